#include "kv/kv_states.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/mem.h"

#include <assert.h>

typedef struct place {
    mq_kv_block *block; /* NULL: free */
    uint64_t used;      /* the clock then */
    bool being_written, between;
} place;

struct mq_kv_states {
    float *memory;
    size_t floats; /* of a place, padded to whole cache lines */
    place *at;     /* [count] */
    uint32_t count;
    uint64_t clock;
};

mq_status mq__kv_states_new(mq_kv_pool *pool, size_t floats, uint32_t count, mq_error *error)
{
    size_t bytes;
    mq_kv_states *s = mq__alloc_zero(1, sizeof *s);
    if (!s) return mq__fail(error, MQ_NO_MEMORY, "kv: snapshots: expected memory, got none");
    s->floats = mq__round_up(floats, 16);
    s->count = count;
    s->at = mq__alloc_zero(count, sizeof *s->at);
    if (mq__mul_size(s->floats * sizeof(float), count, &bytes)) s->memory = mq__alloc_aligned(bytes);
    if (s->at && s->memory) {
        *mq__kv_pool_states(pool) = s;
        return MQ_OK;
    }
    mq__kv_states_free(s);
    return mq__fail(error, MQ_NO_MEMORY, "kv: %u snapshots of %zu bytes: expected memory, got none", count,
                    floats * sizeof(float));
}

void mq__kv_states_free(mq_kv_states *s)
{
    if (!s) return;
    mq__free_aligned(s->memory);
    mq__free(s->at);
    mq__free(s);
}

/* Whether those between have all that they may have. */
static bool enough_between(const mq_kv_states *s)
{
    uint32_t held = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        held += s->at[i].block && s->at[i].between;
    }
    return held >= (s->count + 3) / 4;
}

/* A free place, or the one that was used longest ago; NULL: all are being written to. own: of those between. */
static place *choose_place(mq_kv_states *s, bool own)
{
    place *best = NULL;
    for (uint32_t i = 0; i < s->count; i++) {
        place *p = &s->at[i];
        if (own && !(p->block && p->between)) continue;
        if (!p->block) return p;
        if (!p->being_written && (!best || p->used < best->used)) best = p;
    }
    return best;
}

static place *place_of_state(mq_kv_states *s, const mq_kv_block *block)
{
    return &s->at[(size_t)(block->state - s->memory) / s->floats];
}

static float *take_place(mq_kv_states *s, mq_kv_block *block, bool between)
{
    assert(!block->state);
    place *p = s ? choose_place(s, between && enough_between(s)) : NULL;
    if (!p) return NULL;
    if (p->block) p->block->state = NULL;
    *p = (place){block, ++s->clock, true, between};
    block->state = s->memory + (size_t)(p - s->at) * s->floats;
    return block->state;
}

float *mq__kv_state_take(mq_kv_pool *pool, mq_kv_block *block)
{
    return take_place(*mq__kv_pool_states(pool), block, false);
}

float *mq__kv_state_take_between(mq_kv_pool *pool, mq_kv_block *block)
{
    return take_place(*mq__kv_pool_states(pool), block, true);
}

void mq__kv_state_give(mq_kv_pool *pool, mq_kv_block *block)
{
    if (!block->state) return;
    *place_of_state(*mq__kv_pool_states(pool), block) = (place){0};
    block->state = NULL;
}

void mq__kv_state_use(mq_kv_pool *pool, const mq_kv_block *block)
{
    mq_kv_states *s = *mq__kv_pool_states(pool);
    if (block->state) place_of_state(s, block)->used = ++s->clock;
}

void mq__kv_states_settle(mq_kv_pool *pool)
{
    mq_kv_states *s = *mq__kv_pool_states(pool);
    for (uint32_t i = 0; s && i < s->count; i++) {
        s->at[i].being_written = false;
    }
}

uint32_t mq__kv_states_held(mq_kv_pool *pool)
{
    const mq_kv_states *s = *mq__kv_pool_states(pool);
    uint32_t held = 0;
    for (uint32_t i = 0; s && i < s->count; i++) {
        held += s->at[i].block != NULL;
    }
    return held;
}
