/* What the tests of sampling share: a small distribution, samplers of it, and random numbers. */
#ifndef MQ_TEST_SAMPLER_FIXTURE_H
#define MQ_TEST_SAMPLER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/pool.h"
#include "mixquant.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define V 8

/* Probabilities 0.4 0.3 0.15 0.08 0.04 0.02 0.007 0.003 in a shuffled order. */
static const float probabilities[V] = {0.08f, 0.4f, 0.003f, 0.15f, 0.3f, 0.02f, 0.04f, 0.007f};
static const int by_rank[V] = {1, 4, 3, 0, 6, 5, 7, 2};

static inline void logits_of(float *logits)
{
    for (int i = 0; i < V; i++) {
        logits[i] = logf(probabilities[i]) + 3.0f;
    }
}

static inline mq_sampler *sampler_of(const mq_sampling *s, uint32_t vocab, const int32_t *prompt, size_t count)
{
    mq_sampler *sampler;
    mq_error error = {0};
    if (mq_sampler_new(s, vocab, prompt, count, &sampler, &error) != MQ_OK) fail_msg("%s", error.text);
    return sampler;
}

static inline int32_t draw_one(mq_sampler *sampler, const float *logits, const uint32_t *mask)
{
    int32_t token = -1;
    mq_error error = {0};
    if (mq_sampler_draw(sampler, logits, mask, &token, &error) != MQ_OK) fail_msg("%s", error.text);
    return token;
}

static inline int32_t next_token(mq_sampler *sampler, const float *logits)
{
    const int32_t token = draw_one(sampler, logits, NULL);
    assert_int_equal(mq_sampler_accept(sampler, token, NULL), MQ_OK);
    return token;
}

static inline mq_sampling sampling(float temperature)
{
    mq_sampling s = MQ_SAMPLING_GREEDY;
    s.temperature = temperature;
    s.seed = 42;
    return s;
}

static uint64_t random_state = 1;

static inline double random_number(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 11) * 0x1p-53;
}

static inline void random_logits(float *logits, uint32_t vocab, int kind)
{
    const double spread = kind == 0 ? 2 : kind == 1 ? 8 : 0.5;
    for (uint32_t i = 0; i < vocab; i++) {
        double x = 0;
        for (int k = 0; k < 4; k++) {
            x += random_number() - 0.5;
        }
        logits[i] = (float)(x * 2 * spread);
        if (kind == 3) logits[i] = floorf(logits[i] * 2); /* many ties */
        if (kind == 4 && random_number() < 0.3) logits[i] = -INFINITY;
    }
    if (kind == 4) logits[vocab / 2] = 1;
}

static inline mq_sampling random_sampling(uint64_t seed)
{
    mq_sampling s = MQ_SAMPLING_GREEDY;
    s.temperature = (float)(0.1 + 2 * random_number());
    if (random_number() < 0.5) s.top_k = 1 + (int)(random_number() * random_number() * 200);
    if (random_number() < 0.5) s.top_p = (float)random_number();
    if (random_number() < 0.3) s.min_p = (float)(random_number() * 0.3);
    s.seed = seed;
    return s;
}

#endif
