/* Drafts from the text itself: agents copy ids, paths, code and keys from their prompt. The tokens are searched for the longest earlier
 * occurrence of their own end, and what followed there is the draft. Chains of positions with equal ends of three tokens, as
 * LZ77 compressors keep; the latest ones are looked at. */
#ifndef MQ_LOOKUP_H
#define MQ_LOOKUP_H

#include "mixquant.h"

typedef struct mq_lookup mq_lookup;

/* For at most `room` tokens. */
mq_status mq__lookup_new(uint32_t room, mq_lookup **lookup, mq_error *error);
void mq__lookup_free(mq_lookup *lookup);

/* Tells it of tokens [.., count) of a text that only grows; `tokens` is borrowed for the call. */
void mq__lookup_grow(mq_lookup *lookup, const int32_t *tokens, uint32_t count);
/* What followed the longest earlier occurrence of the text's end, `most` tokens or fewer (0: there is none), into draft[]. *length:
 * of the occurrence, MQ_LOOKUP_LEAST to MQ_LOOKUP_MOST tokens. */
uint32_t mq__lookup_draft(const mq_lookup *lookup, const int32_t *tokens, uint32_t most, int32_t *draft,
                          uint32_t *length);

enum { MQ_LOOKUP_LEAST = 3, MQ_LOOKUP_MOST = 32 };

#endif
