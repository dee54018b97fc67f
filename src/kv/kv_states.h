/* Snapshots of recurrent state, as kv_blocks.h declares them: what a pool has to know of them. */
#ifndef MQ_KV_STATES_H
#define MQ_KV_STATES_H

#include "kv/kv_blocks.h"

typedef struct mq_kv_states mq_kv_states;

/* Where a pool keeps them; NULL there: it has none. */
mq_kv_states **mq__kv_pool_states(mq_kv_pool *pool);
void mq__kv_states_free(mq_kv_states *states);

#endif
