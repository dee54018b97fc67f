/* KV from elsewhere once more, over a model most of whose layers see a window only. */
#define UNIT_SHAPE "tiny-gemma4"
#include "test_scheduler_transfer.c"
