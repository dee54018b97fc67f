/* A small random model and tokens for it, made once for a test program. */
#ifndef MQ_UNIT_MODEL_H
#define MQ_UNIT_MODEL_H

#include "unit_files.h"

#ifndef UNIT_SHAPE
#define UNIT_SHAPE "tiny-qwen3"
#endif

static char *model;
static int32_t tokens[TOKENS]; /* TOKENS: of the test that includes this */

static inline int make_model(void **state)
{
    (void)state;
    mq_error error = {0};
    if (mq_synth_cached(UNIT_SHAPE, 0, NULL, &model, &error) != MQ_OK) {
        print_error("%s\n", error.text);
        return 1;
    }
    for (int i = 0; i < TOKENS; i++) {
        tokens[i] = (i * 37 + i * i * 11) % 200;
    }
    return 0;
}

static inline int forget_model(void **state)
{
    (void)state;
    mq_free(model);
    return 0;
}

#endif
