#include "eval/stats.h"

#include "base/distribution.h"
#include "eval/eval.h"

#include <math.h>
#include <stdlib.h>

static double weight_of(const double *weights, size_t i)
{
    return weights ? weights[i] : 1;
}

/* ---- intervals */

mq_eval_interval mq__eval_wilson(uint64_t successes, uint64_t count)
{
    const double z = 1.959963984540054, n = (double)count, share = (double)successes / n; /* z: 97.5% of the normal */
    if (count == 0) return (mq_eval_interval){0, 0, 0};
    const double middle = (share + z * z / (2 * n)) / (1 + z * z / n);
    const double half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n));
    /* At 0 and n the bound is 0 or 1 exactly; rounding must not say otherwise. */
    return (mq_eval_interval){share, successes ? middle - half : 0, successes < count ? middle + half : 1};
}

/* The statistic of items drawn by `random` (NULL: of all items once): a mean, or with b the difference of two. */
typedef struct sample {
    const double *a, *b, *weights;
    size_t count;
    bool exponential;
} sample;

static double statistic(const sample *s, mq_eval_random *random)
{
    double a = 0, b = 0, weight = 0;
    for (size_t i = 0; i < s->count; i++) {
        const size_t k = random ? mq__eval_random_below(random, (uint32_t)s->count) : i;
        const double w = weight_of(s->weights, k);
        a += w * s->a[k];
        b += s->b ? w * s->b[k] : 0;
        weight += w;
    }
    if (s->exponential) return exp(a / weight) - exp(b / weight);
    return (a - b) / weight;
}

static mq_eval_interval bootstrap(const sample *s, uint64_t seed, const char *stream)
{
    double drawn[MQ_EVAL_RESAMPLES];
    const size_t tail = MQ_EVAL_RESAMPLES / 40; /* 2.5% */
    if (s->count == 0 || s->count > UINT32_MAX) return (mq_eval_interval){0, 0, 0};
    mq_eval_random random = mq__eval_random(seed, stream);
    for (size_t r = 0; r < MQ_EVAL_RESAMPLES; r++) {
        drawn[r] = statistic(s, &random);
    }
    qsort(drawn, MQ_EVAL_RESAMPLES, sizeof *drawn, mq__compare_doubles);
    return (mq_eval_interval){statistic(s, NULL), drawn[tail], drawn[MQ_EVAL_RESAMPLES - 1 - tail]};
}

mq_eval_interval mq__eval_bootstrap(const double *values, const double *weights, size_t count, uint64_t seed)
{
    return bootstrap(&(sample){values, NULL, weights, count, false}, seed, "bootstrap");
}

mq_eval_interval mq__eval_paired_bootstrap(const double *a, const double *b, const double *weights, size_t count,
                                           bool exponential, uint64_t seed)
{
    return bootstrap(&(sample){a, b, weights, count, exponential}, seed, "paired");
}

static double ratio_of_sums(const double *part, const double *whole, size_t count, mq_eval_random *random)
{
    double a = 0, b = 0;
    for (size_t i = 0; i < count; i++) {
        const size_t k = random ? mq__eval_random_below(random, (uint32_t)count) : i;
        a += part[k];
        b += whole[k];
    }
    return b > 0 ? a / b : random ? INFINITY : NAN;
}

mq_eval_interval mq__eval_ratio_bootstrap(const double *part, const double *whole, size_t count, uint64_t seed)
{
    double drawn[MQ_EVAL_RESAMPLES];
    const size_t tail = MQ_EVAL_RESAMPLES / 40;
    if (count == 0 || count > UINT32_MAX) return (mq_eval_interval){NAN, NAN, NAN};
    mq_eval_random random = mq__eval_random(seed, "ratio");
    for (size_t r = 0; r < MQ_EVAL_RESAMPLES; r++) {
        drawn[r] = ratio_of_sums(part, whole, count, &random);
    }
    qsort(drawn, MQ_EVAL_RESAMPLES, sizeof *drawn, mq__compare_doubles);
    return (mq_eval_interval){ratio_of_sums(part, whole, count, NULL), drawn[tail],
                              drawn[MQ_EVAL_RESAMPLES - 1 - tail]};
}

/* ---- tests */

/* Sums that differ by rounding only are the same sum: 0.1 + 0.2 - 0.3 is 0. */
static bool as_far(double sum, double seen, double all)
{
    return fabs(sum) >= fabs(seen) - 1e-10 * all;
}

/* All sums of +-values[0 .. count), 2^count of them. */
static void signed_sums(const double *values, size_t count, double *sums)
{
    sums[0] = 0;
    for (size_t i = 0; i < count; i++) {
        const size_t had = (size_t)1 << i;
        for (size_t k = 0; k < had; k++) {
            sums[had + k] = sums[k] - values[i];
            sums[k] += values[i];
        }
    }
}

/* Every pattern is one of the first half with one of the second. */
static double enumerate(const double *values, size_t count, double seen, double all)
{
    double first[1 << (MQ_EVAL_EXACT_MAX / 2)], second[1 << (MQ_EVAL_EXACT_MAX / 2)];
    const size_t low = count / 2, high = count - low;
    uint64_t far = 0;
    signed_sums(values, low, first);
    signed_sums(values + low, high, second);
    for (size_t i = 0; i < (size_t)1 << low; i++) {
        for (size_t k = 0; k < (size_t)1 << high; k++) {
            far += as_far(first[i] + second[k], seen, all);
        }
    }
    return ldexp((double)far, -(int)count);
}

/* The difference of an item as the test sums it. */
static double weighted(const sample *s, size_t i)
{
    return weight_of(s->weights, i) * (s->a[i] - s->b[i]);
}

static double draw(const sample *s, double seen, double all, uint64_t seed)
{
    uint64_t far = 0, bits = 0;
    mq_eval_random random = mq__eval_random(seed, "sign flip");
    for (size_t r = 0; r < MQ_EVAL_FLIPS; r++) {
        double sum = 0;
        size_t flips = 0;
        for (size_t i = 0; i < s->count; i++) {
            const double value = weighted(s, i);
            if (value == 0) continue;
            bits = flips++ % 64 ? bits >> 1 : mq__eval_random_u64(&random);
            sum += bits & 1 ? value : -value;
        }
        far += as_far(sum, seen, all);
    }
    return ((double)far + 1) / (MQ_EVAL_FLIPS + 1.0);
}

mq_eval_test mq__eval_sign_flip(const double *a, const double *b, const double *weights, size_t count, uint64_t seed)
{
    const sample s = {a, b, weights, count, false};
    double few[MQ_EVAL_EXACT_MAX], seen = 0, all = 0;
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        const double value = weighted(&s, i);
        seen += value;
        all += fabs(value);
        if (value != 0 && n++ < MQ_EVAL_EXACT_MAX) few[n - 1] = value;
    }
    if (n <= MQ_EVAL_EXACT_MAX) return (mq_eval_test){enumerate(few, n, seen, all), true};
    return (mq_eval_test){draw(&s, seen, all, seed), false};
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

void mq__eval_holm(const double *p, double *corrected, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        corrected[i] = 0;
        for (size_t k = 0; k < count; k++) { /* the largest of (tests that are not smaller) * p up to this one */
            size_t left = 0;
            for (size_t j = 0; j < count; j++) {
                left += p[j] >= p[k];
            }
            if (p[k] <= p[i]) corrected[i] = fmax(corrected[i], fmin(1, (double)left * p[k]));
        }
    }
}
