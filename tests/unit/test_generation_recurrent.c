/* mq_generate with a drafter once more, over a model with recurrent state. */
#define UNIT_SHAPE "tiny-qwen3.5"
#define DRAWS      1200
#include "test_generation_drafts.c"
