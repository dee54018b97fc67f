#include "kv/kv_pool.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/mem.h"
#include "kernels/kernels.h"

#include <assert.h>
#include <sys/mman.h>

struct mq_kv_pool {
    size_t page_bytes, mapped_bytes;
    uint8_t *memory;
    uint16_t **available; /* stack of pages nobody holds; the lowest address on top at the start */
    uint32_t available_count, pages;
};

size_t mq__kv_page_elements(const mq_kv_layout *layout)
{
    return (size_t)layout->layers * layout->kv_heads * 2 * MQ_PAGE_TOKENS * layout->head_dim;
}

size_t mq__kv_token_bytes(const mq_kv_layout *layout)
{
    return mq__kv_page_elements(layout) / MQ_PAGE_TOKENS * sizeof(uint16_t);
}

size_t mq__kv_key_offset(const mq_kv_layout *layout, uint32_t layer, uint32_t kv_head)
{
    return ((size_t)layer * layout->kv_heads + kv_head) * 2 * MQ_PAGE_TOKENS * layout->head_dim;
}

size_t mq__kv_value_offset(const mq_kv_layout *layout, uint32_t layer, uint32_t kv_head)
{
    return mq__kv_key_offset(layout, layer, kv_head) + (size_t)MQ_PAGE_TOKENS * layout->head_dim;
}

mq_status mq__kv_pool_new(const mq_kv_layout *layout, uint32_t pages, mq_kv_pool **out, mq_error *error)
{
    *out = NULL;
    size_t bytes;
    const size_t page_bytes = mq__round_up(mq__kv_page_elements(layout) * sizeof(uint16_t), 64);
    if (!mq__mul_size(page_bytes, pages, &bytes) || pages == 0) {
        return mq__fail(error, MQ_LIMIT, "kv: pool: expected 1 or more pages that fit the address space, got %u",
                        pages);
    }
    mq_kv_pool *pool = mq__alloc_zero(1, sizeof *pool);
    uint16_t **available = mq__alloc_zero(pages, sizeof *available);
    void *memory = MAP_FAILED;
    if (pool && available) {
        memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    if (memory == MAP_FAILED) {
        mq__free(available);
        mq__free(pool);
        return mq__fail(error, MQ_NO_MEMORY, "kv: pool: expected %zu bytes of address space, got a refusal", bytes);
    }
    (void)madvise(memory, bytes, MADV_HUGEPAGE);
    *pool = (mq_kv_pool){.page_bytes = page_bytes,
                         .mapped_bytes = bytes,
                         .memory = memory,
                         .available = available,
                         .available_count = pages,
                         .pages = pages};
    for (uint32_t i = 0; i < pages; i++) {
        available[i] = (uint16_t *)(void *)(pool->memory + (size_t)(pages - 1 - i) * page_bytes);
    }
    *out = pool;
    return MQ_OK;
}

void mq__kv_pool_free(mq_kv_pool *pool)
{
    if (!pool) return;
    assert(pool->available_count == pool->pages); /* a session outlived its engine otherwise */
    munmap(pool->memory, pool->mapped_bytes);
    mq__free(pool->available);
    mq__free(pool);
}

uint16_t *mq__kv_pool_take(mq_kv_pool *pool)
{
    return pool->available_count ? pool->available[--pool->available_count] : NULL;
}

void mq__kv_pool_give(mq_kv_pool *pool, uint16_t *page)
{
    assert(pool->available_count < pool->pages);
    pool->available[pool->available_count++] = page;
}
