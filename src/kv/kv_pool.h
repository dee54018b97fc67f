/* Pages of BF16 keys and values. The pool owns the memory and hands out pages; a session owns the pages it has taken
 * until it gives them back. Address space for all pages is reserved at the start, memory is used as pages are touched,
 * and a request beyond the pool is refused before anything is computed. */
#ifndef MQ_KV_POOL_H
#define MQ_KV_POOL_H

#include "mixquant.h"

/* One page holds MQ_PAGE_TOKENS tokens of all layers: [layers][kv_heads][K|V][MQ_PAGE_TOKENS][head_dim] bf16, so the
 * keys of one head are contiguous and its values follow them. */
typedef struct mq_kv_layout {
    uint32_t layers, kv_heads, head_dim;
} mq_kv_layout;

size_t mq__kv_page_elements(const mq_kv_layout *layout);
size_t mq__kv_token_bytes(const mq_kv_layout *layout);
/* Offsets in elements inside a page. */
size_t mq__kv_key_offset(const mq_kv_layout *layout, uint32_t layer, uint32_t kv_head);
size_t mq__kv_value_offset(const mq_kv_layout *layout, uint32_t layer, uint32_t kv_head);

typedef struct mq_kv_pool mq_kv_pool;

mq_status mq__kv_pool_new(const mq_kv_layout *layout, uint32_t pages, mq_kv_pool **pool, mq_error *error);
void mq__kv_pool_free(mq_kv_pool *pool);

uint16_t *mq__kv_pool_take(mq_kv_pool *pool); /* NULL when all pages are taken; the content is undefined */
void mq__kv_pool_give(mq_kv_pool *pool, uint16_t *page);

#endif
