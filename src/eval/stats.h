/* Statistics of an evaluation: seeded bootstrap intervals, paired tests. No state; values may be in any order, but pairs
 * must match. */
#ifndef MQ_EVAL_STATS_H
#define MQ_EVAL_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MQ_EVAL_RESAMPLES 4000

typedef struct mq_eval_interval {
    double mean, low, high; /* 95%, percentile bootstrap over the values */
} mq_eval_interval;

/* count may be 0: all zero. */
mq_eval_interval mq__eval_bootstrap(const double *values, size_t count, uint64_t seed);

/* Mean of a - b, its interval, and the share of resamples on the other side of zero, doubled: a two-sided p. */
typedef struct mq_eval_paired {
    mq_eval_interval difference;
    double p;
} mq_eval_paired;

mq_eval_paired mq__eval_paired_bootstrap(const double *a, const double *b, size_t count, uint64_t seed);

/* The exact McNemar test: two-sided binomial p of `wins` against `losses` discordant pairs under even odds. */
double mq__eval_mcnemar(uint64_t wins, uint64_t losses);

#endif
