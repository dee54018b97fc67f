/* What evaluation and the sensitivity pass compute from rows of logits, in double precision; the order of doubles. */
#ifndef MQ_BASE_DISTRIBUTION_H
#define MQ_BASE_DISTRIBUTION_H

#include <stdint.h>

/* log(sum(exp(logits))). */
double mq__log_sum(const float *logits, uint32_t vocab);

/* KL(p || q) in nats of two softmaxes over the same vocabulary; never below 0. */
double mq__divergence(const float *p, const float *q, uint32_t vocab);

uint32_t mq__largest(const float *logits, uint32_t vocab); /* the first of the largest */

int mq__compare_doubles(const void *a, const void *b); /* for qsort: ascending */

#endif
