/* Statistics of an evaluation: means with 95% intervals, paired tests, a correction for many tests. No state; values may
 * be in any order, but pairs must match. docs/EVALUATION.md says which is used where. */
#ifndef MQ_EVAL_STATS_H
#define MQ_EVAL_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MQ_EVAL_RESAMPLES 4000
#define MQ_EVAL_EXACT_MAX 20    /* differences that a sign-flip test enumerates: 2^20 sums */
#define MQ_EVAL_FLIPS     99999 /* random draws of a sign-flip test of more */

typedef struct mq_eval_interval {
    double mean, low, high; /* 95% */
} mq_eval_interval;

/* Wilson's score interval of a proportion. count may be 0: all zero. */
mq_eval_interval mq__eval_wilson(uint64_t successes, uint64_t count);

/* Percentile bootstrap of a weighted mean: items are drawn with replacement, each with its weight. weights NULL: all 1.
 * count may be 0: all zero. */
mq_eval_interval mq__eval_bootstrap(const double *values, const double *weights, size_t count, uint64_t seed);

/* The same for the difference of two weighted means over the same items. exponential: of exp(mean a) - exp(mean b). */
mq_eval_interval mq__eval_paired_bootstrap(const double *a, const double *b, const double *weights, size_t count,
                                           bool exponential, uint64_t seed);

/* The ratio of two sums over the same items, sum of part by sum of whole, and its percentile bootstrap. A resample whose whole is
 * not above 0 has no share: it counts as above all others, so that a bound may be infinite. The ratio itself is NAN then. */
mq_eval_interval mq__eval_ratio_bootstrap(const double *part, const double *whole, size_t count, uint64_t seed);

/* The two-sided sign-flip (paired permutation) test of weights * (a - b). If the plans are alike, each item's difference
 * has either sign with even odds: p is the share of all sign patterns whose sum is at least as far from 0 as the one
 * seen. Up to MQ_EVAL_EXACT_MAX differences that are not 0, all patterns are counted; of more, MQ_EVAL_FLIPS seeded ones
 * and the one seen, p = (1 + as far) / (1 + MQ_EVAL_FLIPS). */
typedef struct mq_eval_test {
    double p;
    bool exact;
} mq_eval_test;

mq_eval_test mq__eval_sign_flip(const double *a, const double *b, const double *weights, size_t count, uint64_t seed);

/* The exact McNemar test: two-sided binomial p of `wins` against `losses` discordant pairs under even odds. */
double mq__eval_mcnemar(uint64_t wins, uint64_t losses);

/* Holm's step-down correction: corrected[i] of p[i], so that "corrected < 0.05" is wrong anywhere in the family with a
 * probability of at most 0.05. */
void mq__eval_holm(const double *p, double *corrected, size_t count);

#endif
