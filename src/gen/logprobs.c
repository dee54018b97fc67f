/* Log probabilities, for those who ask. */
#include "mixquant.h"

#include <math.h>

static double log_total(const float *logits, uint32_t vocab)
{
    float best = -INFINITY;
    for (uint32_t i = 0; i < vocab; i++) {
        if (logits[i] > best) best = logits[i];
    }
    double sum = 0;
    for (uint32_t i = 0; i < vocab; i++) {
        sum += exp((double)logits[i] - (double)best);
    }
    return (double)best + log(sum);
}

float mq_logprobs(const float *logits, uint32_t vocab, int32_t token, mq_token_logprob *top, size_t top_count)
{
    const double total = log_total(logits, vocab);
    size_t filled = 0;
    for (uint32_t i = 0; i < vocab && top_count; i++) {
        if (filled == top_count && !(logits[i] > top[filled - 1].logprob)) continue;
        size_t at = filled < top_count ? filled++ : filled - 1;
        for (; at > 0 && logits[i] > top[at - 1].logprob; at--) {
            top[at] = top[at - 1];
        }
        top[at] = (mq_token_logprob){(int32_t)i, logits[i]};
    }
    for (size_t i = 0; i < filled; i++) {
        top[i].logprob = (float)((double)top[i].logprob - total);
    }
    return (float)((double)logits[token] - total);
}
