/* Sequences that must do what is asked of them. */
#ifndef MQ_UNIT_SEQUENCE_H
#define MQ_UNIT_SEQUENCE_H

#include "unit_files.h"

#include "engine/engine.h"

static inline mq_sequence *new_sequence(mq_engine *engine)
{
    mq_sequence *sequence;
    assert_int_equal(mq_sequence_new(engine, &sequence, NULL), MQ_OK);
    return sequence;
}

static inline mq_sync_stats sync_to(mq_sequence *sequence, const int32_t *prompt, uint32_t count)
{
    mq_error error = {0};
    mq_sync_stats stats;
    if (mq_sequence_sync(sequence, prompt, count, NULL, &stats, &error) != MQ_OK) fail_msg("%s", error.text);
    return stats;
}

/* Of the logits of a row. */
static inline size_t row_bytes(const mq_engine *engine)
{
    return engine->weights->model.vocab * sizeof(float);
}

#endif
