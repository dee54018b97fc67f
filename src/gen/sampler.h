/* From logits to a token. Order of operations: penalties and biases on the raw logits, temperature, min-p, top-k, top-p,
 * draw; each filter keeps at least the best token. Ties are broken towards the lower token id, so greedy decoding does
 * not depend on the machine. */
#ifndef MQ_SAMPLER_H
#define MQ_SAMPLER_H

#include "mixquant.h"

typedef struct mq_sampler mq_sampler;

/* prompt tokens count for the repetition penalty. Checks every parameter (MQ_USAGE names the bad one). */
mq_status mq__sampler_new(const mq_sampling *sampling, uint32_t vocab, const int32_t *prompt, size_t prompt_count,
                          mq_sampler **sampler, mq_error *error);
void mq__sampler_free(mq_sampler *sampler);

/* Draws from logits [vocab], which stay as they are, and remembers the token for the penalties. Does not allocate. */
int32_t mq__sampler_next(mq_sampler *sampler, const float *logits);

/* Log probabilities of the unmodified distribution: of `token`, and the best `top_count` in descending order. */
float mq__logprobs(const float *logits, uint32_t vocab, int32_t token, mq_token_logprob *top, size_t top_count);

#endif
