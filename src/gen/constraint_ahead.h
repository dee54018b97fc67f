/* What a constraint says of tokens that are not there yet, for drafts. All of it happens on a copy, which has an automaton of its own: what
 * an automaton has looked at changes what its bounds allow later, and drafts must change nothing. */
#ifndef MQ_CONSTRAINT_AHEAD_H
#define MQ_CONSTRAINT_AHEAD_H

#include "mixquant_serve.h"

/* A copy as the constraint is now; masks are asked of it and tokens given to it as to the constraint itself. Owned by the constraint, and
 * made anew by the next call. NULL: no memory. */
mq_constraint *mq__constraint_ahead(mq_constraint *constraint);

/* Tokens that have to come next as far as the text is certain: the longest ones of the vocabulary, at most `most`. only[i]: the mask at it
 * has no other bit. The constraint stands behind them afterwards. */
uint32_t mq__constraint_forced(mq_constraint *ahead, int32_t *tokens, bool *only, uint32_t most);

#endif
