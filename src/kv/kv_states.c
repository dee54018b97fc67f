#include "kv/kv_states.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/mem.h"

#include <assert.h>

typedef struct place {
    mq_kv_block *block; /* NULL: free */
    uint64_t used;      /* the clock then */
    bool being_written;
} place;

struct mq_kv_states {
    float *memory;
    size_t floats; /* of a place, padded to whole cache lines */
    place *at;     /* [count] */
    uint32_t count;
    uint64_t clock;
};

mq_status mq__kv_states_open(size_t floats, uint32_t count, mq_kv_states **out, mq_error *error)
{
    size_t bytes;
    *out = NULL;
    mq_kv_states *s = mq__alloc_zero(1, sizeof *s);
    if (!s) return mq__fail(error, MQ_NO_MEMORY, "kv: snapshots: expected memory, got none");
    s->floats = mq__round_up(floats, 16);
    s->count = count;
    s->at = mq__alloc_zero(count, sizeof *s->at);
    if (mq__mul_size(s->floats * sizeof(float), count, &bytes)) s->memory = mq__alloc_aligned(bytes);
    if (s->at && s->memory) {
        *out = s;
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

/* A free place, or the one that was used longest ago; NULL: all are being written to. */
static place *choose_place(mq_kv_states *s)
{
    place *best = NULL;
    for (uint32_t i = 0; i < s->count; i++) {
        place *p = &s->at[i];
        if (!p->block) return p;
        if (!p->being_written && (!best || p->used < best->used)) best = p;
    }
    return best;
}

static place *place_of(mq_kv_states *s, const mq_kv_block *block)
{
    return &s->at[(size_t)(block->state - s->memory) / s->floats];
}

float *mq__kv_states_take(mq_kv_states *s, mq_kv_block *block)
{
    assert(!block->state);
    place *p = choose_place(s);
    if (!p) return NULL;
    if (p->block) p->block->state = NULL;
    *p = (place){block, ++s->clock, true};
    block->state = s->memory + (size_t)(p - s->at) * s->floats;
    return block->state;
}

void mq__kv_states_give(mq_kv_states *s, mq_kv_block *block)
{
    *place_of(s, block) = (place){0};
    block->state = NULL;
}

void mq__kv_states_use(mq_kv_states *s, const mq_kv_block *block)
{
    place_of(s, block)->used = ++s->clock;
}

void mq__kv_states_settle_all(mq_kv_states *s)
{
    for (uint32_t i = 0; i < s->count; i++) {
        s->at[i].being_written = false;
    }
}

uint32_t mq__kv_states_count(const mq_kv_states *s)
{
    uint32_t held = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        held += s->at[i].block != NULL;
    }
    return held;
}
