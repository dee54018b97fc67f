/* Values that are no numbers: named where they enter a pass and where they leave it.
 *
 * A NaN or an infinity in a dense weight reaches the logits of every token that meets it. Quantised activations would lose
 * one that an embedding row brings into the prefill, so rows are looked at as they are gathered. Packed weights are checked
 * while they are packed, norms and biases when they are read. */
#ifndef MQ_FINITE_H
#define MQ_FINITE_H

#include "model/model.h"

/* MQ_FORMAT when a logit is NaN or infinite: those that lm_head gives, before anybody rules tokens out. */
mq_status mq__logits_check(const float *logits, uint32_t vocab, mq_error *error);

/* MQ_FORMAT when the embedding row of a token has a value that is not finite. */
mq_status mq__embedding_check(const mq_model *model, const int32_t *tokens, uint32_t count, mq_error *error);

#endif
