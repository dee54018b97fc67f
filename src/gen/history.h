/* Earlier outputs, by owner (API key): what drafts may come from besides a request's own text. Nothing of one owner is ever looked at for
 * another. Bounded: each owner's latest tokens, and of owners those that wrote last. */
#ifndef MQ_HISTORY_H
#define MQ_HISTORY_H

#include "gen/lookup.h"

typedef struct mq_history mq_history;

mq_status mq__history_new(uint64_t bytes, mq_history **history, mq_error *error);
void mq__history_free(mq_history *history);
/* What the owner wrote; NULL: nothing yet. Valid until the next mq__history_add. */
const mq_lookup *mq__history_of(mq_history *history, uint64_t owner);
/* Keeps an output; without memory it is not kept. */
void mq__history_add(mq_history *history, uint64_t owner, const int32_t *tokens, uint32_t count);
/* Owners that are kept. */
uint32_t mq__history_owners(const mq_history *history);

#endif
