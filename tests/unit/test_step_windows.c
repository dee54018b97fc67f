/* Steps once more, over a model most of whose layers see a window only. */
#define UNIT_SHAPE "tiny-gemma4-moe"
#include "test_step.c"
