/* Window parts of KV blocks, as kv_blocks.h declares them: what a pool has to know of them. */
#ifndef MQ_KV_WINDOWS_H
#define MQ_KV_WINDOWS_H

#include "kv/kv_blocks.h"

typedef struct mq_kv_windows mq_kv_windows;

/* Where a pool keeps them; NULL there: it has none. */
mq_kv_windows **mq__kv_pool_windows(mq_kv_pool *pool);
const mq_kv_layout *mq__kv_pool_layout(const mq_kv_pool *pool);
void mq__kv_windows_free(mq_kv_windows *windows);
/* Nobody holds the block any more. */
void mq__kv_window_give(mq_kv_pool *pool, mq_kv_block *block);

#endif
