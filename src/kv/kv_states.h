/* Places for snapshots of recurrent state, each of one KV block; behind kv_blocks.h. */
#ifndef MQ_KV_STATES_H
#define MQ_KV_STATES_H

#include "kv/kv_blocks.h"

typedef struct mq_kv_states mq_kv_states;

/* Memory is used as places are written to. */
mq_status mq__kv_states_open(size_t floats, uint32_t count, mq_kv_states **states, mq_error *error);
void mq__kv_states_free(mq_kv_states *states);

float *mq__kv_states_take(mq_kv_states *states, mq_kv_block *block);
void mq__kv_states_give(mq_kv_states *states, mq_kv_block *block);
void mq__kv_states_use(mq_kv_states *states, const mq_kv_block *block);
void mq__kv_states_settle_all(mq_kv_states *states);
uint32_t mq__kv_states_count(const mq_kv_states *states);

#endif
