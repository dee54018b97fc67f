#include "base/distribution.h"

#include <math.h>

uint32_t mq__largest(const float *logits, uint32_t vocab)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < vocab; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    return best;
}

double mq__log_sum(const float *logits, uint32_t vocab)
{
    const double most = (double)logits[mq__largest(logits, vocab)];
    double sum = 0;
    for (uint32_t i = 0; i < vocab; i++) {
        sum += exp((double)logits[i] - most);
    }
    return most + log(sum);
}

double mq__divergence(const float *p, const float *q, uint32_t vocab)
{
    const double of_p = mq__log_sum(p, vocab), of_q = mq__log_sum(q, vocab);
    double sum = 0;
    for (uint32_t i = 0; i < vocab; i++) {
        const double log_p = (double)p[i] - of_p;
        sum += exp(log_p) * (log_p - ((double)q[i] - of_q));
    }
    return sum > 0 ? sum : 0; /* rounding of equal rows */
}

int mq__compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
