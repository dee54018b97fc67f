#include "gen/sampler.h"

#include "base/error.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

typedef struct candidate {
    float logit; /* after penalties and temperature */
    int32_t token;
} candidate;

/* Top bit of count[]: the token occurs in the prompt; the other bits count its uses in the output. */
#define SEEN_PROMPT (1u << 31)

struct mq_sampler {
    mq_sampling s;
    mq_logit_bias *bias; /* [s.bias_count], a copy */
    uint32_t vocab;
    candidate *candidates; /* [V] */
    uint32_t *count;       /* [V] */
    uint64_t state;        /* splitmix64 */
};

static mq_status check(const mq_sampling *s, uint32_t vocab, mq_error *error)
{
    const struct {
        const char *name;
        double value, low, high;
    } ranges[] = {
        {"temperature", (double)s->temperature, 0, 100},
        {"top_k", s->top_k, 0, 2147483647.0},
        {"top_p", (double)s->top_p, 0, 1},
        {"min_p", (double)s->min_p, 0, 1},
        {"repetition_penalty", (double)s->repetition_penalty, 1e-3, 1000},
        {"presence_penalty", (double)s->presence_penalty, -100, 100},
        {"frequency_penalty", (double)s->frequency_penalty, -100, 100},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        if (!(ranges[i].value >= ranges[i].low && ranges[i].value <= ranges[i].high)) { /* NaN fails as well */
            return mq__fail(error, MQ_USAGE, "sampling: %s: expected %g to %g, got %g", ranges[i].name, ranges[i].low,
                            ranges[i].high, ranges[i].value);
        }
    }
    for (size_t i = 0; i < s->bias_count; i++) {
        if (s->bias[i].token < 0 || (uint32_t)s->bias[i].token >= vocab || !isfinite(s->bias[i].bias)) {
            return mq__fail(error, MQ_USAGE,
                            "sampling: logit bias: expected a token below %u and a finite bias, got %d", vocab,
                            s->bias[i].token);
        }
    }
    return MQ_OK;
}

mq_status mq__sampler_new(const mq_sampling *sampling, uint32_t vocab, const int32_t *prompt, size_t prompt_count,
                          mq_sampler **out, mq_error *error)
{
    *out = NULL;
    const mq_status status = check(sampling, vocab, error);
    if (status != MQ_OK) return status;
    mq_sampler *sampler = mq__alloc_zero(1, sizeof *sampler);
    if (sampler) {
        *sampler = (mq_sampler){.s = *sampling, .vocab = vocab, .state = sampling->seed};
        sampler->candidates = mq__alloc_zero(vocab, sizeof *sampler->candidates);
        sampler->count = mq__alloc_zero(vocab, sizeof *sampler->count);
        sampler->bias = mq__alloc_zero(sampling->bias_count, sizeof *sampler->bias);
    }
    if (!sampler || !sampler->candidates || !sampler->count || !sampler->bias) {
        mq__sampler_free(sampler);
        return mq__fail(error, MQ_NO_MEMORY, "sampling: %u candidates: expected memory, got none", vocab);
    }
    if (sampling->bias_count) memcpy(sampler->bias, sampling->bias, sampling->bias_count * sizeof *sampler->bias);
    for (size_t i = 0; i < prompt_count; i++) {
        sampler->count[prompt[i]] |= SEEN_PROMPT;
    }
    *out = sampler;
    return MQ_OK;
}

void mq__sampler_free(mq_sampler *sampler)
{
    if (!sampler) return;
    mq__free(sampler->candidates);
    mq__free(sampler->count);
    mq__free(sampler->bias);
    mq__free(sampler);
}

static double uniform(mq_sampler *sampler)
{
    uint64_t z = (sampler->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

static bool better(candidate a, candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

/* Max-heap on `better`. */
static void sift_down(candidate *heap, size_t count, size_t i)
{
    const candidate moved = heap[i];
    for (size_t child; (child = 2 * i + 1) < count; i = child) {
        if (child + 1 < count && better(heap[child + 1], heap[child])) child++;
        if (!better(heap[child], moved)) break;
        heap[i] = heap[child];
    }
    heap[i] = moved;
}

static void heapify(candidate *heap, size_t count)
{
    for (size_t i = count / 2; i-- > 0;) {
        sift_down(heap, count, i);
    }
}

/* Moves the best to heap[count - 1] and restores the heap on the rest. */
static candidate pop(candidate *heap, size_t count)
{
    const candidate best = heap[0];
    heap[0] = heap[count - 1];
    heap[count - 1] = best;
    sift_down(heap, count - 1, 0);
    return best;
}

/* Logits after penalties and biases; a NaN logit never wins. Returns the index of the best. */
static size_t adjust(mq_sampler *sampler, const float *logits)
{
    const mq_sampling *s = &sampler->s;
    candidate *c = sampler->candidates;
    for (uint32_t i = 0; i < sampler->vocab; i++) {
        float logit = isnan(logits[i]) ? -INFINITY : logits[i];
        const uint32_t count = sampler->count[i];
        if (count) {
            const uint32_t output = count & ~SEEN_PROMPT;
            logit = logit > 0 ? logit / s->repetition_penalty : logit * s->repetition_penalty;
            logit -= s->frequency_penalty * (float)output + (output ? s->presence_penalty : 0);
        }
        c[i] = (candidate){logit, (int32_t)i};
    }
    for (size_t i = 0; i < s->bias_count; i++) {
        c[sampler->bias[i].token].logit += sampler->bias[i].bias;
    }
    size_t best = 0;
    for (uint32_t i = 1; i < sampler->vocab; i++) {
        if (c[i].logit > c[best].logit) best = i;
    }
    return best;
}

/* Draws from the candidates that pass the filters. The heap yields them in descending order, so only the kept ones are
 * ordered. The kept candidates end up at the tail of the array, best last. */
static int32_t draw_sampler(mq_sampler *sampler, float best)
{
    const mq_sampling *s = &sampler->s;
    candidate *c = sampler->candidates;
    const float floor_logit = s->min_p > 0 ? best + logf(s->min_p) * s->temperature : -INFINITY;
    size_t count = 0;
    for (uint32_t i = 0; i < sampler->vocab; i++) {
        if (c[i].logit >= floor_logit) c[count++] = (candidate){(c[i].logit - best) / s->temperature, c[i].token};
    }
    const size_t limit = s->top_k > 0 && (size_t)s->top_k < count ? (size_t)s->top_k : count;
    double total = 0, kept = 0;
    if (limit < count || s->top_p < 1) heapify(c, count);
    if (limit < count) { /* the distribution that top-p looks at is the one after top-k */
        for (size_t i = 0; i < limit; i++) {
            total += exp((double)pop(c, count - i).logit);
        }
        memmove(c, c + count - limit, limit * sizeof *c);
        count = limit;
        heapify(c, count);
    } else {
        for (size_t i = 0; i < count; i++) {
            total += exp((double)c[i].logit);
        }
    }
    size_t keep = count;
    if (s->top_p < 1) {
        keep = 0;
        do {
            kept += exp((double)pop(c, count - keep).logit);
            keep++;
        } while (keep < count && kept < (double)s->top_p * total);
    } else {
        kept = total;
    }
    const candidate *tail = c + count - keep;
    double x = uniform(sampler) * kept;
    for (size_t i = keep; i-- > 1;) {
        x -= exp((double)tail[i].logit);
        if (x < 0) return tail[i].token;
    }
    return tail[0].token;
}

int32_t mq__sampler_next(mq_sampler *sampler, const float *logits)
{
    const size_t best = adjust(sampler, logits);
    const int32_t token = sampler->s.temperature > 0 ? draw_sampler(sampler, sampler->candidates[best].logit)
                                                     : sampler->candidates[best].token;
    sampler->count[token]++;
    return token;
}

float mq__logprobs(const float *logits, uint32_t vocab, int32_t token, mq_token_logprob *top, size_t top_count)
{
    float best = -INFINITY;
    for (uint32_t i = 0; i < vocab; i++) {
        if (logits[i] > best) best = logits[i];
    }
    double sum = 0;
    for (uint32_t i = 0; i < vocab; i++) {
        sum += exp((double)(logits[i] - best));
    }
    const float shift = best + (float)log(sum);
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
        top[i].logprob -= shift;
    }
    return logits[token] - shift;
}
