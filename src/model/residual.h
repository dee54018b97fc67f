/* What stands between a layer's parts and the residual stream: norms of rows, sums, factors. Internal to src/model. */
#ifndef MQ_RESIDUAL_H
#define MQ_RESIDUAL_H

#include "model/runtime.h"

/* Runs a stage over the rows of the pass: on the caller alone when they are few, because waking the others takes longer. */
void mq__run_rows(const mq_runtime *rt, mq_pool_fn *stage, void *context);

/* to = rmsnorm(from), [rows, D] of the pass. They may be the same. */
void mq__norm_rows(mq_runtime *rt, const float *from, const float *weight, float *to);

/* h = (h + rmsnorm(branch)) * scalar, where what a part of a layer gives stands in rt->branch. scalar: NULL: 1. */
void mq__add_branch(mq_runtime *rt, const float *weight, const float *scalar);

/* logits [rows, n] = cap * tanh(logits / cap). */
void mq__cap_logits(mq_runtime *rt, float *logits, size_t count);

#endif
