/* Drafts from texts: agents copy ids, paths, code and keys from their prompt, and write again what they wrote before. Occurrences of a
 * text's own end are searched for in the text itself, and in earlier ones of the same owner; what most of them go on with is the
 * draft.
 *
 * Chains of positions with equal ends of 1, 3 and 8 tokens, as LZ77 compressors keep them; the latest ones of each are looked at.
 * These few say as much as all occurrences would (docs/DRAFTING.md), and unlike a suffix automaton chains can forget. */
#ifndef MQ_LOOKUP_H
#define MQ_LOOKUP_H

#include "gen/odds.h"
#include "mixquant.h"

enum {
    MQ_LOOKUP_ORDERS = 3,
    MQ_LOOKUP_EACH = 12,    /* occurrences of each order that are looked at */
    MQ_LOOKUP_LONGEST = 32, /* tokens that are compared */
    MQ_LOOKUP_MATCHES = 2 * MQ_LOOKUP_ORDERS * MQ_LOOKUP_EACH,
    MQ_DRAFT_MOST = 16 /* tokens of a draft */
};

typedef struct mq_lookup mq_lookup;

/* Of a text that only grows, at most `room` tokens, which is borrowed. */
mq_status mq__lookup_new(uint32_t room, mq_lookup **lookup, mq_error *error);
/* Of texts that are copied, of which the last `room` tokens are kept (a power of two). */
mq_status mq__lookup_new_ring(uint32_t room, mq_lookup **lookup, mq_error *error);
void mq__lookup_free(mq_lookup *lookup);

/* Tells it of tokens [.., count) of the growing text. */
void mq__lookup_grow(mq_lookup *lookup, const int32_t *tokens, uint32_t count);
/* A ring takes one more text. */
void mq__lookup_add(mq_lookup *ring, const int32_t *tokens, uint32_t count);

/* A drafted token and what it rests on. */
typedef struct mq_drafted {
    int32_t token;
    uint32_t class; /* odds.h */
    double chance;  /* that it and all before it are right */
} mq_drafted;

/* What is likely to follow tokens[0, count), of which `own` knows all or all but the last few, by `own` and (not NULL) `earlier`. Returns how many of draft
 * [MQ_DRAFT_MOST] it filled; none where nothing is known. */
uint32_t mq__lookup_draft(const mq_lookup *own, const mq_lookup *earlier, const int32_t *tokens, uint32_t count,
                          const mq_odds *odds, mq_drafted *draft);

#endif
