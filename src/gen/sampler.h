/* What drafts ask of a sampler. */
#ifndef MQ_SAMPLER_H
#define MQ_SAMPLER_H

#include "mixquant.h"

bool mq__sampler_is_greedy(const mq_sampler *sampler);
/* How sure the last draw was of its token: the probability that it had; of a greedy one, that it would have at temperature 1. The logits
 * must still be there. */
double mq__sampler_confidence(mq_sampler *sampler, int32_t token);

#endif
