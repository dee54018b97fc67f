#include "gen/lookup.h"

#include "base/error.h"
#include "base/mem.h"

#include <string.h>
#include <xxhash.h>

#define BOUNDARY     (-1)       /* between the texts of a ring */
#define CHANCE_LEAST 0.04       /* a draft ends there */
#define RING_MOST    (1u << 30) /* tokens of a ring, forgotten ones included: it begins anew after that */

static const uint8_t orders[MQ_LOOKUP_ORDERS] = {1, 3, 8};

typedef struct chain {
    uint32_t *head;     /* [heads] latest position after an end with this hash; 0: none */
    uint32_t *previous; /* [room + 1, of a ring room] the one before that */
} chain;

struct mq_lookup {
    chain chain[MQ_LOOKUP_ORDERS];
    uint32_t head_mask, room;
    int32_t *ring;  /* [room] NULL: the text is borrowed */
    uint32_t count; /* tokens that it knows; of a ring: those forgotten included */
};

/* ---- life */

static bool allocate_chains(mq_lookup *lookup, uint32_t heads)
{
    const size_t positions = lookup->ring ? lookup->room : (size_t)lookup->room + 1;
    bool complete = true;
    for (int o = 0; o < MQ_LOOKUP_ORDERS; o++) {
        chain *c = &lookup->chain[o];
        c->head = mq__alloc_zero(heads, sizeof *c->head);
        c->previous = mq__alloc_zero(positions, sizeof *c->previous);
        complete = complete && c->head && c->previous;
    }
    return complete;
}

static mq_status make_lookup(uint32_t room, bool ring, mq_lookup **out, mq_error *error)
{
    uint32_t heads = 1024;
    while (heads < room && heads < 1u << 20) {
        heads *= 2;
    }
    *out = NULL;
    mq_lookup *lookup = mq__alloc_zero(1, sizeof *lookup);
    if (lookup) {
        *lookup = (mq_lookup){.head_mask = heads - 1, .room = room};
        if (ring) lookup->ring = mq__alloc_zero(room, sizeof *lookup->ring);
        if ((lookup->ring || !ring) && allocate_chains(lookup, heads)) {
            *out = lookup;
            return MQ_OK;
        }
    }
    mq__lookup_free(lookup);
    return mq__fail(error, MQ_NO_MEMORY, "lookup: %u tokens: expected memory, got none", room);
}

mq_status mq__lookup_new(uint32_t room, mq_lookup **lookup, mq_error *error)
{
    return make_lookup(room, false, lookup, error);
}

mq_status mq__lookup_new_ring(uint32_t room, mq_lookup **lookup, mq_error *error)
{
    return make_lookup(room, true, lookup, error);
}

void mq__lookup_free(mq_lookup *lookup)
{
    if (!lookup) return;
    for (int o = 0; o < MQ_LOOKUP_ORDERS; o++) {
        mq__free(lookup->chain[o].head);
        mq__free(lookup->chain[o].previous);
    }
    mq__free(lookup->ring);
    mq__free(lookup);
}

/* ---- positions: before a position stand the tokens that a match has in common with the text's end */

static int32_t token_at(const mq_lookup *lookup, const int32_t *tokens, uint32_t at)
{
    return lookup->ring ? lookup->ring[at & (lookup->room - 1)] : tokens[at];
}

/* The oldest token that it has. */
static uint32_t oldest(const mq_lookup *lookup)
{
    return lookup->ring && lookup->count > lookup->room ? lookup->count - lookup->room : 0;
}

static uint32_t *previous_of(const mq_lookup *lookup, int order, uint32_t at)
{
    return &lookup->chain[order].previous[lookup->ring ? at & (lookup->room - 1) : at];
}

static uint32_t hash_of_end(const mq_lookup *lookup, const int32_t *end, int order)
{
    return (uint32_t)XXH3_64bits(end - orders[order], orders[order] * sizeof *end) & lookup->head_mask;
}

/* Enters a position; end: after the tokens before it, of which there are `known`. */
static void enter(mq_lookup *lookup, uint32_t at, const int32_t *end, uint32_t known)
{
    for (int o = 0; o < MQ_LOOKUP_ORDERS; o++) {
        if (known < orders[o]) return;
        uint32_t *head = &lookup->chain[o].head[hash_of_end(lookup, end, o)];
        *previous_of(lookup, o, at) = *head;
        *head = at;
    }
}

/* A position is entered when the token at it is known, so that a draft has at least one. */
void mq__lookup_grow(mq_lookup *lookup, const int32_t *tokens, uint32_t count)
{
    if (count > lookup->room) count = lookup->room;
    for (; lookup->count < count; lookup->count++) {
        if (lookup->count) enter(lookup, lookup->count, tokens + lookup->count, lookup->count);
    }
}

static void forget_all(mq_lookup *ring)
{
    for (int o = 0; o < MQ_LOOKUP_ORDERS; o++) {
        memset(ring->chain[o].head, 0, ((size_t)ring->head_mask + 1) * sizeof *ring->chain[o].head);
    }
    ring->count = 0;
}

void mq__lookup_add(mq_lookup *ring, const int32_t *tokens, uint32_t count)
{
    const uint32_t mask = ring->room - 1;
    if (count >= ring->room) {
        tokens += count - (ring->room - 1);
        count = ring->room - 1;
    }
    if (ring->count > RING_MOST) forget_all(ring);
    for (uint32_t i = 0; i < count; i++) {
        ring->ring[ring->count & mask] = tokens[i];
        if (i) enter(ring, ring->count, tokens + i, i);
        ring->count++;
    }
    ring->ring[ring->count++ & mask] = BOUNDARY;
}

/* ---- matches */

/* What is to go on: the text that the first lookup is of, or a little more. */
typedef struct text_end {
    const int32_t *tokens;
    uint32_t count;
} text_end;

typedef struct match {
    const mq_lookup *text;
    uint32_t at, length;
    bool follows; /* it goes on as the draft does */
} match;

typedef struct matches {
    match item[MQ_LOOKUP_MATCHES];
    uint32_t count;
} matches;

static uint32_t equal_ends(const mq_lookup *text, const text_end *end, uint32_t at)
{
    const uint32_t begin = oldest(text);
    uint32_t n = 0;
    while (n < MQ_LOOKUP_LONGEST && n < end->count && at - n > begin &&
           token_at(text, end->tokens, at - 1 - n) == end->tokens[end->count - 1 - n]) {
        n++;
    }
    return n;
}

static bool is_listed(const matches *m, const mq_lookup *text, uint32_t at)
{
    for (uint32_t i = 0; i < m->count; i++) {
        if (m->item[i].text == text && m->item[i].at == at) return true;
    }
    return false;
}

/* The latest occurrences of each order, the longest order first. */
static void find_matches(const mq_lookup *text, const text_end *end, matches *m)
{
    const uint32_t begin = oldest(text);
    for (int o = MQ_LOOKUP_ORDERS - 1; o >= 0; o--) {
        if (end->count < orders[o]) continue;
        uint32_t at = text->chain[o].head[hash_of_end(text, end->tokens + end->count, o)];
        for (int i = 0; at > begin && i < MQ_LOOKUP_EACH; i++) { /* what a ring has forgotten is not after it */
            const uint32_t length = equal_ends(text, end, at);
            if (length >= orders[o] && !is_listed(m, text, at)) m->item[m->count++] = (match){text, at, length, true};
            at = *previous_of(text, o, at);
        }
    }
}

/* ---- what most of them go on with */

/* The token `step` behind a match. What it proposes may be what it goes on from: a text that repeats itself. */
static int32_t next_of(const match *m, const text_end *end, uint32_t step, const mq_drafted *draft)
{
    const uint32_t at = m->at + step;
    if (m->text->ring) return at < m->text->count ? token_at(m->text, NULL, at) : BOUNDARY;
    return at < end->count ? end->tokens[at] : draft[at - end->count].token;
}

/* Of the matches that follow, the token that most have next (of equal ones the first match's). The others leave. */
static int32_t vote(matches *m, const text_end *end, uint32_t step, const mq_drafted *draft, double *share,
                    bool *several)
{
    int32_t next[MQ_LOOKUP_MATCHES], best = BOUNDARY;
    uint32_t most = 0, all = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        next[i] = m->item[i].follows ? next_of(&m->item[i], end, step, draft) : BOUNDARY;
        all += next[i] != BOUNDARY;
    }
    for (uint32_t i = 0; i < m->count && most <= all / 2; i++) {
        uint32_t same = 0;
        for (uint32_t j = i; next[i] != BOUNDARY && next[i] != best && j < m->count; j++) {
            same += next[j] == next[i];
        }
        if (same > most) {
            most = same;
            best = next[i];
        }
    }
    for (uint32_t i = 0; i < m->count; i++) {
        m->item[i].follows = m->item[i].follows && next[i] == best;
    }
    *share = all ? (double)most / all : 0;
    *several = all > 1;
    return best;
}

/* The draft of the matches that are at least so long; returns how many right tokens it promises. */
static double draft_of(matches *m, uint32_t length, const text_end *end, const mq_odds *odds, mq_drafted *draft,
                       uint32_t *count)
{
    double chance = 1, promise = 0, share;
    bool several;
    *count = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        m->item[i].follows = m->item[i].length >= length;
    }
    while (*count < MQ_DRAFT_MOST) {
        const int32_t token = vote(m, end, *count, draft, &share, &several);
        if (token == BOUNDARY) break;
        const uint32_t class = mq__odds_of_text(length, share, several);
        chance *= (double)odds->right[class];
        if (chance < CHANCE_LEAST && *count) break;
        draft[(*count)++] = (mq_drafted){token, class, chance};
        promise += chance;
    }
    return promise;
}

static uint32_t longest_below(const matches *m, uint32_t limit)
{
    uint32_t longest = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        const uint32_t length = m->item[i].length;
        if (length < limit && length > longest) longest = length;
    }
    return longest;
}

uint32_t mq__lookup_draft(const mq_lookup *own, const mq_lookup *earlier, const int32_t *tokens, uint32_t count,
                          const mq_odds *odds, mq_drafted *draft)
{
    const text_end end = {tokens, count};
    matches m = {.count = 0};
    uint32_t drafted = 0, some;
    double best = 0;
    find_matches(own, &end, &m);
    if (earlier) find_matches(earlier, &end, &m);
    for (uint32_t length = longest_below(&m, UINT32_MAX); length; length = longest_below(&m, length)) {
        mq_drafted other[MQ_DRAFT_MOST];
        const double promise = draft_of(&m, length, &end, odds, other, &some);
        if (promise <= best) continue;
        best = promise;
        drafted = some;
        memcpy(draft, other, some * sizeof *other);
    }
    return drafted;
}
