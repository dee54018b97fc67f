#include "kv/kv_windows.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/mem.h"

#include <assert.h>
#include <sys/mman.h>

/* Blocks in the order in which they were left. */
typedef struct part_list {
    mq_kv_block *first, *last;
    uint32_t count;
} part_list;

struct mq_kv_windows {
    uint8_t *memory;
    size_t bytes;
    uint16_t **available; /* stack of free parts; the lowest address on top at the start */
    uint32_t available_count;
    part_list left[2]; /* parts that nobody needs; [0] go first, [1]: somebody may well begin there again */
};

/* ---- life */

mq_status mq__kv_windows_new(mq_kv_pool *pool, uint32_t count, mq_error *error)
{
    const size_t one = mq__round_up(mq__kv_pool_layout(pool)->window_elements * sizeof(uint16_t), 64);
    mq_kv_windows *w = mq__alloc_zero(1, sizeof *w);
    uint16_t **available = mq__alloc_zero(count, sizeof *available);
    void *memory = MAP_FAILED;
    size_t bytes = 0;
    if (w && available && mq__mul_size(one, count, &bytes)) {
        memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    if (memory == MAP_FAILED) {
        mq__free(available);
        mq__free(w);
        return mq__fail(error, MQ_NO_MEMORY, "kv: %u window parts of %zu bytes: expected address space, got a refusal",
                        count, one);
    }
    (void)madvise(memory, bytes, MADV_HUGEPAGE);
    *w = (mq_kv_windows){.memory = memory, .bytes = bytes, .available = available, .available_count = count};
    for (uint32_t i = 0; i < count; i++) {
        available[count - 1 - i] = (uint16_t *)(void *)(w->memory + i * one);
    }
    *mq__kv_pool_windows(pool) = w;
    return MQ_OK;
}

void mq__kv_windows_free(mq_kv_windows *w)
{
    if (!w) return;
    munmap(w->memory, w->bytes);
    mq__free(w->available);
    mq__free(w);
}

uint32_t mq__kv_windows_available(mq_kv_pool *pool)
{
    const mq_kv_windows *w = *mq__kv_pool_windows(pool);
    return w ? w->available_count + w->left[0].count + w->left[1].count : 0;
}

/* ---- parts that nobody needs */

static void list_part(mq_kv_windows *w, mq_kv_block *block, bool again)
{
    part_list *list = &w->left[again];
    block->again = again;
    block->sooner = list->last;
    *(list->last ? &list->last->later : &list->first) = block;
    list->last = block;
    list->count++;
}

static void unlist_part(mq_kv_windows *w, mq_kv_block *block)
{
    part_list *list = &w->left[block->again];
    *(block->sooner ? &block->sooner->later : &list->first) = block->later;
    *(block->later ? &block->later->sooner : &list->last) = block->sooner;
    block->sooner = block->later = NULL;
    list->count--;
}

/* ---- taking and leaving */

bool mq__kv_window_take(mq_kv_pool *pool, mq_kv_block *block)
{
    mq_kv_windows *w = *mq__kv_pool_windows(pool);
    assert(!block->window);
    if (w->available_count) {
        block->window = w->available[--w->available_count];
    } else {
        mq_kv_block *loses = w->left[0].first ? w->left[0].first : w->left[1].first;
        if (!loses) return false;
        unlist_part(w, loses);
        block->window = loses->window;
        loses->window = NULL;
    }
    block->watchers = 1;
    return true;
}

void mq__kv_window_watch(mq_kv_pool *pool, mq_kv_block *block)
{
    assert(block->window);
    if (block->watchers++ == 0) unlist_part(*mq__kv_pool_windows(pool), block);
}

void mq__kv_window_leave(mq_kv_pool *pool, mq_kv_block *block, bool again)
{
    assert(block->watchers > 0);
    if (--block->watchers == 0) list_part(*mq__kv_pool_windows(pool), block, again);
}

void mq__kv_window_give(mq_kv_pool *pool, mq_kv_block *block)
{
    mq_kv_windows *w = *mq__kv_pool_windows(pool);
    if (!block->window) return;
    assert(block->watchers == 0);
    unlist_part(w, block);
    w->available[w->available_count++] = block->window;
    block->window = NULL;
}
