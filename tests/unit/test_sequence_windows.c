/* Sequences once more, over a model most of whose layers see a window only. */
#define UNIT_SHAPE "tiny-gemma4"
/* Gemma's scores are not divided by the root of the head's width: what rounds a query weighs so many times as much. */
#define UNIT_BF16_BOUND 1e-2
/* The one layer without a window is the last: how its prompt attends moves no later token. The others attend in BF16 under INT8. */
#define UNIT_INT8_SLOT attention_prefill_bf16
#include "test_sequence.c"
