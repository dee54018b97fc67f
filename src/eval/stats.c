#include "eval/stats.h"

#include "eval/eval.h"

#include <math.h>
#include <stdlib.h>

static int compare_stats(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double mean_of(const double *values, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += values[i];
    }
    return count ? sum / (double)count : 0;
}

/* Means of resamples with replacement, sorted. Values that are all equal resample to themselves. */
static void resample(const double *values, size_t count, uint64_t seed, double means[MQ_EVAL_RESAMPLES])
{
    mq_eval_random random = mq__eval_random(seed, "bootstrap");
    for (size_t r = 0; r < MQ_EVAL_RESAMPLES; r++) {
        double sum = 0;
        for (size_t i = 0; i < count; i++) {
            sum += values[mq__eval_random_below(&random, (uint32_t)count)];
        }
        means[r] = sum / (double)count;
    }
    qsort(means, MQ_EVAL_RESAMPLES, sizeof *means, compare_stats);
}

static mq_eval_interval interval_of(const double *values, size_t count, const double means[MQ_EVAL_RESAMPLES])
{
    const size_t tail = MQ_EVAL_RESAMPLES / 40; /* 2.5% */
    return (mq_eval_interval){mean_of(values, count), means[tail], means[MQ_EVAL_RESAMPLES - 1 - tail]};
}

mq_eval_interval mq__eval_bootstrap(const double *values, size_t count, uint64_t seed)
{
    double means[MQ_EVAL_RESAMPLES];
    if (count == 0 || count > UINT32_MAX) return (mq_eval_interval){0, 0, 0};
    resample(values, count, seed, means);
    return interval_of(values, count, means);
}

mq_eval_paired mq__eval_paired_bootstrap(const double *a, const double *b, size_t count, uint64_t seed)
{
    double means[MQ_EVAL_RESAMPLES];
    mq_eval_paired result = {.p = 1};
    if (count == 0 || count > UINT32_MAX) return result;
    mq_eval_random random = mq__eval_random(seed, "paired");
    for (size_t r = 0; r < MQ_EVAL_RESAMPLES; r++) {
        double sum = 0;
        for (size_t i = 0; i < count; i++) {
            const uint32_t k = mq__eval_random_below(&random, (uint32_t)count);
            sum += a[k] - b[k];
        }
        means[r] = sum / (double)count;
    }
    qsort(means, MQ_EVAL_RESAMPLES, sizeof *means, compare_stats);
    size_t below = 0, above = 0;
    for (size_t r = 0; r < MQ_EVAL_RESAMPLES; r++) {
        below += means[r] <= 0;
        above += means[r] >= 0;
    }
    const size_t tail = MQ_EVAL_RESAMPLES / 40, fewer = below < above ? below : above;
    result.difference =
        (mq_eval_interval){mean_of(a, count) - mean_of(b, count), means[tail], means[MQ_EVAL_RESAMPLES - 1 - tail]};
    result.p = fmin(1, 2.0 * ((double)fewer + 1) / (MQ_EVAL_RESAMPLES + 1)); /* never 0: resamples are finite */
    return result;
}

double mq__eval_mcnemar(uint64_t wins, uint64_t losses)
{
    const uint64_t n = wins + losses, k = wins < losses ? wins : losses;
    double tail = 0;
    for (uint64_t i = 0; i <= k && n; i++) {
        tail += exp(lgamma((double)n + 1) - lgamma((double)i + 1) - lgamma((double)(n - i) + 1) - (double)n * M_LN2);
    }
    return n ? fmin(1, 2 * tail) : 1;
}
