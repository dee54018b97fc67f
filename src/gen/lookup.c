#include "gen/lookup.h"

#include "base/error.h"
#include "base/mem.h"

#include <xxhash.h>

#define CANDIDATES 32 /* earlier occurrences that are compared */

struct mq_lookup {
    uint32_t *head;     /* [mask + 1] latest position after an end with this hash; 0: none */
    uint32_t *previous; /* [room + 1] the one before that */
    uint32_t mask, room;
    uint32_t count; /* tokens that it knows */
};

mq_status mq__lookup_new(uint32_t room, mq_lookup **out, mq_error *error)
{
    uint32_t heads = 1024;
    while (heads < room) {
        heads *= 2;
    }
    mq_lookup *lookup = mq__alloc_zero(1, sizeof *lookup);
    if (lookup) {
        *lookup = (mq_lookup){.mask = heads - 1, .room = room};
        lookup->head = mq__alloc_zero(heads, sizeof *lookup->head);
        lookup->previous = mq__alloc_zero((size_t)room + 1, sizeof *lookup->previous);
    }
    *out = lookup;
    if (lookup && lookup->head && lookup->previous) return MQ_OK;
    mq__lookup_free(lookup);
    *out = NULL;
    return mq__fail(error, MQ_NO_MEMORY, "lookup: %u tokens: expected memory, got none", room);
}

void mq__lookup_free(mq_lookup *lookup)
{
    if (!lookup) return;
    mq__free(lookup->head);
    mq__free(lookup->previous);
    mq__free(lookup);
}

/* Of the tokens before a position. */
static uint32_t end_hash(const mq_lookup *lookup, const int32_t *tokens, uint32_t position)
{
    return (uint32_t)XXH3_64bits(tokens + position - MQ_LOOKUP_LEAST, MQ_LOOKUP_LEAST * sizeof *tokens) & lookup->mask;
}

/* A position is entered when the token at it is known, so that a draft has at least one. */
void mq__lookup_grow(mq_lookup *lookup, const int32_t *tokens, uint32_t count)
{
    if (count > lookup->room) count = lookup->room;
    for (; lookup->count < count; lookup->count++) {
        const uint32_t position = lookup->count;
        if (position < MQ_LOOKUP_LEAST) continue;
        uint32_t *head = &lookup->head[end_hash(lookup, tokens, position)];
        lookup->previous[position] = *head;
        *head = position;
    }
}

/* Equal tokens before two positions. */
static uint32_t equal_ends(const int32_t *tokens, uint32_t earlier, uint32_t later)
{
    uint32_t n = 0;
    while (n < MQ_LOOKUP_MOST && n < earlier && tokens[earlier - 1 - n] == tokens[later - 1 - n]) {
        n++;
    }
    return n;
}

uint32_t mq__lookup_draft(const mq_lookup *lookup, const int32_t *tokens, uint32_t most, int32_t *draft,
                          uint32_t *length)
{
    const uint32_t count = lookup->count;
    uint32_t best = 0, from = 0;
    *length = 0;
    if (count < MQ_LOOKUP_LEAST || most == 0) return 0;
    uint32_t at = lookup->head[end_hash(lookup, tokens, count)];
    for (int i = 0; at && i < CANDIDATES && best < MQ_LOOKUP_MOST; i++, at = lookup->previous[at]) {
        const uint32_t equal = equal_ends(tokens, at, count);
        if (equal <= best) continue; /* of equal ones the latest */
        best = equal;
        from = at;
    }
    if (best < MQ_LOOKUP_LEAST) return 0;
    *length = best;
    uint32_t n = 0;
    for (; n < most; n++) {
        /* What it proposes may be what it goes on from: a text that repeats itself. */
        draft[n] = from + n < count ? tokens[from + n] : draft[from + n - count];
    }
    return n;
}
