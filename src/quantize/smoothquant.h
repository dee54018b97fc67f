/* SmoothQuant (arXiv 2211.10438): a channel with large inputs is divided by a factor, and the weights that read it are
 * multiplied by it. The division goes into the weights of the norm before: it is done for q, k, v and for gate, up, whose
 * input is a norm's output that nobody else reads. Queries, keys and values stay what they are, so the precise copy can read a
 * cache that a smoothed copy has written. (For o the factor would have to go through v, that is into the cache, and for down
 * into up, which would bind the formats of two groups together.)
 *
 * Factors are powers of two: neither a norm's weight nor a linear layer's weight is rounded by them, and a smoothed model that
 * is not quantised gives the same bits. Internal to src/engine. */
#ifndef MQ_SMOOTHQUANT_H
#define MQ_SMOOTHQUANT_H

#include "mixquant_tools.h"
#include "quantize/calib.h"

typedef struct mq_smoothing mq_smoothing;

/* Factors |X|^alpha / |W|^(1-alpha), largest magnitudes by channel, for all groups whose linear layers are all quantised
 * ([modules]). Experts are left as they are: a router reads their norm, too. */
mq_status mq__smoothing_new(mq_weights *weights, const mq_calib *calib, float alpha, const bool *quantised,
                            mq_smoothing **smoothing, mq_error *error);
void mq__smoothing_free(mq_smoothing *smoothing);

/* What the weights of a group are multiplied with, [width]; NULL: nothing. smoothing may be NULL. */
const float *mq__smoothing_factor(const mq_smoothing *smoothing, uint32_t layer, mq_linear_group group);

/* The new bytes of the norm tensor of this name, in its own type; NULL for any other. smoothing may be NULL. */
const void *mq__smoothing_norm(const mq_smoothing *smoothing, const char *name);

#endif
