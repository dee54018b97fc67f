/* Sequences once more, over a model most of whose layers see a window only. */
#define UNIT_SHAPE "tiny-gemma4"
/* Gemma's scores are not divided by the root of the head's width: what rounds a query weighs so many times as much. */
#define UNIT_BF16_BOUND 1e-2
#include "test_sequence.c"
