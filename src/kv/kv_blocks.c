#include "kv/kv_states.h"
#include "kv/kv_windows.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/mem.h"
#include "kernels/kernels.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

_Static_assert(MQ_PAGE_TOKENS == 64, "one bit of mq_kv_block.precise for each token");

struct mq_kv_pool {
    const mq_kv_layout *layout;
    size_t mapped_bytes;
    uint8_t *memory;
    mq_kv_block *block;      /* [blocks] */
    mq_kv_block **available; /* stack of blocks nobody holds; the lowest address on top at the start */
    uint32_t available_count, blocks;
    mq_kv_windows *windows; /* NULL: none */
    mq_kv_states *states;   /* NULL: none */
};

/* ---- layout */

mq_status mq__kv_layout_new(const mq_kv_shape *shape, uint32_t layers, mq_kv_layout *layout, mq_error *error)
{
    *layout = (mq_kv_layout){.layers = layers, .layer = mq__alloc_zero(layers, sizeof *layout->layer)};
    if (!layout->layer) return mq__fail(error, MQ_NO_MEMORY, "kv: layout: expected memory, got none");
    for (uint32_t l = 0; l < layers; l++) {
        size_t *elements = shape[l].window ? &layout->window_elements : &layout->block_elements;
        layout->layer[l] = (mq_kv_layer){.kv_heads = shape[l].kv_heads,
                                         .head_dim = shape[l].head_dim,
                                         .window = shape[l].window,
                                         .offset = *elements,
                                         .state_floats = shape[l].state_floats,
                                         .state_at = layout->state_floats};
        *elements += (size_t)shape[l].kv_heads * 2 * MQ_PAGE_TOKENS * shape[l].head_dim;
        if (shape[l].window > layout->window) layout->window = shape[l].window;
        layout->state_floats += shape[l].state_floats;
    }
    return MQ_OK;
}

void mq__kv_layout_free(mq_kv_layout *layout)
{
    mq__free(layout->layer);
    *layout = (mq_kv_layout){0};
}

size_t mq__kv_token_bytes(const mq_kv_layout *layout)
{
    return (layout->block_elements + layout->window_elements) / MQ_PAGE_TOKENS * sizeof(uint16_t);
}

uint32_t mq__kv_window_from(const mq_kv_layout *layout, uint32_t position)
{
    return position < layout->window ? 0 : (position + 1 - layout->window) / MQ_PAGE_TOKENS;
}

size_t mq__kv_key_offset(const mq_kv_layout *layout, uint32_t layer, uint32_t kv_head)
{
    const mq_kv_layer *l = &layout->layer[layer];
    return l->offset + (size_t)kv_head * 2 * MQ_PAGE_TOKENS * l->head_dim;
}

size_t mq__kv_value_offset(const mq_kv_layout *layout, uint32_t layer, uint32_t kv_head)
{
    return mq__kv_key_offset(layout, layer, kv_head) + (size_t)MQ_PAGE_TOKENS * layout->layer[layer].head_dim;
}

/* ---- pool */

static void fill_pool(mq_kv_pool *pool, size_t block_bytes)
{
    for (uint32_t i = 0; i < pool->blocks; i++) {
        const uint32_t from_top = pool->blocks - 1 - i;
        pool->block[i].data = (uint16_t *)(void *)(pool->memory + i * block_bytes);
        pool->available[from_top] = &pool->block[i];
    }
    pool->available_count = pool->blocks;
}

mq_status mq__kv_pool_new(const mq_kv_layout *layout, uint32_t blocks, mq_kv_pool **out, mq_error *error)
{
    *out = NULL;
    size_t bytes;
    /* Where all layers have a window, blocks still have an address. */
    const size_t elements = layout->block_elements ? layout->block_elements : 1;
    const size_t block_bytes = mq__round_up(elements * sizeof(uint16_t), 64);
    if (!mq__mul_size(block_bytes, blocks, &bytes) || blocks == 0) {
        return mq__fail(error, MQ_LIMIT, "kv: pool: expected 1 or more blocks that fit the address space, got %u",
                        blocks);
    }
    mq_kv_pool *pool = mq__alloc_zero(1, sizeof *pool);
    mq_kv_block *block = mq__alloc_zero(blocks, sizeof *block);
    mq_kv_block **available = mq__alloc_zero(blocks, sizeof *available);
    void *memory = MAP_FAILED;
    if (pool && block && available) {
        memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    if (memory == MAP_FAILED) {
        mq__free(available);
        mq__free(block);
        mq__free(pool);
        return mq__fail(error, MQ_NO_MEMORY, "kv: pool: expected %zu bytes of address space, got a refusal", bytes);
    }
    (void)madvise(memory, bytes, MADV_HUGEPAGE);
    *pool = (mq_kv_pool){.layout = layout,
                         .mapped_bytes = bytes,
                         .memory = memory,
                         .block = block,
                         .available = available,
                         .blocks = blocks};
    fill_pool(pool, block_bytes);
    *out = pool;
    return MQ_OK;
}

void mq__kv_pool_free(mq_kv_pool *pool)
{
    if (!pool) return;
    assert(pool->available_count == pool->blocks); /* a sequence outlived its engine otherwise */
    mq__kv_states_free(pool->states);
    mq__kv_windows_free(pool->windows);
    munmap(pool->memory, pool->mapped_bytes);
    mq__free(pool->available);
    mq__free(pool->block);
    mq__free(pool);
}

uint32_t mq__kv_available(const mq_kv_pool *pool)
{
    return pool->available_count;
}

mq_kv_block *mq__kv_take(mq_kv_pool *pool, uint64_t plan)
{
    if (!pool->available_count) return NULL;
    mq_kv_block *block = pool->available[--pool->available_count];
    block->holders = 1;
    block->plan = plan;
    block->precise = 0;
    return block;
}

void mq__kv_hold(mq_kv_block *block)
{
    assert(block->holders > 0);
    block->holders++;
}

void mq__kv_release(mq_kv_pool *pool, mq_kv_block *block)
{
    assert(block->holders > 0);
    if (--block->holders > 0) return;
    mq__kv_state_give(pool, block);
    mq__kv_window_give(pool, block);
    pool->available[pool->available_count++] = block;
}

void mq__kv_copy(const mq_kv_pool *pool, mq_kv_block *to, const mq_kv_block *from, uint32_t tokens)
{
    const mq_kv_layout *layout = pool->layout;
    for (uint32_t l = 0; l < layout->layers; l++) {
        const mq_kv_layer *layer = &layout->layer[l];
        const size_t one = (size_t)MQ_PAGE_TOKENS * layer->head_dim;
        uint16_t *into = layer->window ? to->window : to->data;
        const uint16_t *out_of = layer->window ? from->window : from->data;
        if (!into || !out_of) continue;
        for (uint32_t i = 0; i < 2 * layer->kv_heads; i++) { /* keys and values of each head */
            const size_t at = layer->offset + i * one;
            memcpy(into + at, out_of + at, (size_t)tokens * layer->head_dim * sizeof *into);
        }
    }
    to->precise = from->precise;
    mq__kv_mark(to, tokens, MQ_PAGE_TOKENS - tokens, false);
}

void mq__kv_mark(mq_kv_block *block, uint32_t first, uint32_t count, bool precise)
{
    if (count == 0) return;
    const uint64_t bits = (count == 64 ? ~UINT64_C(0) : (UINT64_C(1) << count) - 1) << first;
    block->precise = precise ? block->precise | bits : block->precise & ~bits;
}

mq_kv_windows **mq__kv_pool_windows(mq_kv_pool *pool)
{
    return &pool->windows;
}

const mq_kv_layout *mq__kv_pool_layout(const mq_kv_pool *pool)
{
    return pool->layout;
}

mq_kv_states **mq__kv_pool_states(mq_kv_pool *pool)
{
    return &pool->states;
}
