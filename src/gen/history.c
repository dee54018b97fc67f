#include "gen/history.h"

#include "base/error.h"
#include "base/mem.h"

#define OWNER_TOKENS (1u << 14)             /* the latest of each */
#define OWNER_BYTES  (OWNER_TOKENS * 28ull) /* tokens, chains and their heads (lookup.c) */

typedef struct earlier {
    uint64_t owner, used; /* used: when it was last asked for or added to */
    mq_lookup *text;      /* NULL: the place is free */
} earlier;

struct mq_history {
    earlier *place; /* [places] */
    uint32_t places;
    uint64_t now;
};

mq_status mq__history_new(uint64_t bytes, mq_history **out, mq_error *error)
{
    *out = NULL;
    mq_history *history = mq__alloc_zero(1, sizeof *history);
    if (history) {
        history->places = (uint32_t)(bytes / OWNER_BYTES ? bytes / OWNER_BYTES : 1);
        history->place = mq__alloc_zero(history->places, sizeof *history->place);
        if (history->place) {
            *out = history;
            return MQ_OK;
        }
    }
    mq__history_free(history);
    return mq__fail(error, MQ_NO_MEMORY, "history: expected memory, got none");
}

void mq__history_free(mq_history *history)
{
    if (!history) return;
    for (uint32_t i = 0; history->place && i < history->places; i++) {
        mq__lookup_free(history->place[i].text);
    }
    mq__free(history->place);
    mq__free(history);
}

static earlier *find_owner(mq_history *history, uint64_t owner)
{
    for (uint32_t i = 0; i < history->places; i++) {
        earlier *e = &history->place[i];
        if (!e->text || e->owner != owner) continue;
        e->used = ++history->now;
        return e;
    }
    return NULL;
}

const mq_lookup *mq__history_of(mq_history *history, uint64_t owner)
{
    const earlier *e = find_owner(history, owner);
    return e ? e->text : NULL;
}

/* A free place, or that of the owner who was away longest; what it held is gone. */
static earlier *new_owner(mq_history *history, uint64_t owner)
{
    earlier *oldest = &history->place[0];
    for (uint32_t i = 0; i < history->places && oldest->text; i++) {
        earlier *e = &history->place[i];
        if (!e->text || e->used < oldest->used) oldest = e;
    }
    mq__lookup_free(oldest->text);
    oldest->text = NULL;
    if (mq__lookup_new_ring(OWNER_TOKENS, &oldest->text, NULL) != MQ_OK) return NULL;
    oldest->owner = owner;
    oldest->used = ++history->now;
    return oldest;
}

void mq__history_add(mq_history *history, uint64_t owner, const int32_t *tokens, uint32_t count)
{
    if (count < 2) return;
    earlier *e = find_owner(history, owner);
    if (!e) e = new_owner(history, owner);
    if (e) mq__lookup_add(e->text, tokens, count);
}

uint32_t mq__history_owners(const mq_history *history)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < history->places; i++) {
        count += history->place[i].text != NULL;
    }
    return count;
}
