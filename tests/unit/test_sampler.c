/* Sampling: filters keep exactly what they should, draws follow the distribution, penalties do what their names say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "gen/sampler.h"

#include <math.h>
#include <string.h>

#define V 8

/* Probabilities 0.4 0.3 0.15 0.08 0.04 0.02 0.007 0.003 in a shuffled order. */
static const float probabilities[V] = {0.08f, 0.4f, 0.003f, 0.15f, 0.3f, 0.02f, 0.04f, 0.007f};
static const int by_rank[V] = {1, 4, 3, 0, 6, 5, 7, 2};

static void logits_of(float *logits)
{
    for (int i = 0; i < V; i++) {
        logits[i] = logf(probabilities[i]) + 3.0f;
    }
}

static void draw_many(mq_sampling s, int draws, double frequency[V])
{
    float logits[V];
    int counts[V] = {0};
    mq_sampler *sampler;
    logits_of(logits);
    assert_int_equal(mq__sampler_new(&s, V, NULL, 0, &sampler, NULL), MQ_OK);
    for (int i = 0; i < draws; i++) {
        counts[mq__sampler_next(sampler, logits)]++;
    }
    mq__sampler_free(sampler);
    for (int i = 0; i < V; i++) {
        frequency[i] = (double)counts[i] / draws;
    }
}

static void expect_distribution(mq_sampling s, int kept, float temperature)
{
    double frequency[V], total = 0;
    draw_many(s, 60000, frequency);
    for (int r = 0; r < kept; r++) {
        total += pow((double)probabilities[by_rank[r]], 1.0 / (double)temperature);
    }
    for (int r = 0; r < V; r++) {
        const double p = r < kept ? pow((double)probabilities[by_rank[r]], 1.0 / (double)temperature) / total : 0;
        const double got = frequency[by_rank[r]], sigma = sqrt(p * (1 - p) / 60000);
        if (r >= kept)
            assert_true(got == 0);
        else
            assert_true(fabs(got - p) < 5 * sigma + 1e-9);
    }
}

static mq_sampling sampling(float temperature)
{
    mq_sampling s = MQ_SAMPLING_GREEDY;
    s.temperature = temperature;
    s.seed = 42;
    return s;
}

static void test_filters(void **state)
{
    (void)state;
    mq_sampling s = sampling(1);
    expect_distribution(s, V, 1);
    s.top_k = 3;
    expect_distribution(s, 3, 1);
    s.top_p = 0.8f; /* of the three that top-k left: 0.4 + 0.3 of 0.85 = 0.82 */
    expect_distribution(s, 2, 1);
    s = sampling(1);
    s.top_p = 0.69f;
    expect_distribution(s, 2, 1);
    s.top_p = 0.71f;
    expect_distribution(s, 3, 1);
    s.top_p = 0;
    expect_distribution(s, 1, 1);
    s = sampling(0.5f);
    expect_distribution(s, V, 0.5f);
    s = sampling(1);
    s.min_p = 0.19f; /* of 0.4: 0.076 */
    expect_distribution(s, 4, 1);
    s.min_p = 0.21f;
    expect_distribution(s, 3, 1);
}

static void test_greedy_and_ties(void **state)
{
    (void)state;
    float logits[V] = {1, 5, 5, 2, NAN, 0, -INFINITY, 3};
    mq_sampling s = MQ_SAMPLING_GREEDY;
    mq_sampler *sampler;
    assert_int_equal(mq__sampler_new(&s, V, NULL, 0, &sampler, NULL), MQ_OK);
    assert_int_equal(mq__sampler_next(sampler, logits), 1);
    mq__sampler_free(sampler);
}

static void test_same_seed_same_tokens(void **state)
{
    (void)state;
    double a[V], b[V], c[V];
    mq_sampling s = sampling(1);
    draw_many(s, 1000, a);
    draw_many(s, 1000, b);
    s.seed = 43;
    draw_many(s, 1000, c);
    assert_memory_equal(a, b, sizeof a);
    assert_memory_not_equal(a, c, sizeof a);
}

static void test_penalties(void **state)
{
    (void)state;
    float logits[V] = {2.0f, 1.9f, -1, -1, -1, -1, -1, -1};
    const int32_t prompt[] = {0};
    mq_sampling s = MQ_SAMPLING_GREEDY;
    mq_sampler *sampler;
    s.repetition_penalty = 1.1f; /* counts the prompt: 2.0 / 1.1 < 1.9; then 1.9 / 1.1 < 2.0 / 1.1 */
    assert_int_equal(mq__sampler_new(&s, V, prompt, 1, &sampler, NULL), MQ_OK);
    assert_int_equal(mq__sampler_next(sampler, logits), 1);
    assert_int_equal(mq__sampler_next(sampler, logits), 0);
    mq__sampler_free(sampler);
    s = MQ_SAMPLING_GREEDY;
    s.presence_penalty = 0.5f; /* does not count the prompt */
    assert_int_equal(mq__sampler_new(&s, V, prompt, 1, &sampler, NULL), MQ_OK);
    assert_int_equal(mq__sampler_next(sampler, logits), 0);
    assert_int_equal(mq__sampler_next(sampler, logits), 1);
    assert_int_equal(mq__sampler_next(sampler, logits), 0); /* 1.5 and 1.4 */
    mq__sampler_free(sampler);
    const mq_logit_bias bias[] = {{5, 10}};
    s = MQ_SAMPLING_GREEDY;
    s.bias = bias;
    s.bias_count = 1;
    s.frequency_penalty = 6; /* token 5: 9, then 3, then -3 */
    assert_int_equal(mq__sampler_new(&s, V, NULL, 0, &sampler, NULL), MQ_OK);
    assert_int_equal(mq__sampler_next(sampler, logits), 5);
    assert_int_equal(mq__sampler_next(sampler, logits), 5);
    assert_int_equal(mq__sampler_next(sampler, logits), 0);
    mq__sampler_free(sampler);
}

static void test_logprobs(void **state)
{
    (void)state;
    float logits[V];
    mq_token_logprob top[3];
    logits_of(logits);
    const float logprob = mq__logprobs(logits, V, 6, top, 3);
    assert_true(fabsf(logprob - logf(0.04f)) < 1e-4f);
    for (int r = 0; r < 3; r++) {
        assert_int_equal(top[r].token, by_rank[r]);
        assert_true(fabsf(top[r].logprob - logf(probabilities[by_rank[r]])) < 1e-4f);
    }
}

static void expect_refused(mq_sampling s)
{
    mq_sampler *sampler;
    mq_error error = {0};
    assert_int_equal(mq__sampler_new(&s, V, NULL, 0, &sampler, &error), MQ_USAGE);
    assert_null(sampler);
    assert_true(strlen(error.text) > 0);
}

static void test_refuses_bad_parameters(void **state)
{
    (void)state;
    mq_sampling s = sampling(NAN);
    expect_refused(s);
    s = sampling(-1);
    expect_refused(s);
    s = sampling(1);
    s.top_p = 1.5f;
    expect_refused(s);
    s = sampling(1);
    s.top_k = -1;
    expect_refused(s);
    s = sampling(1);
    s.repetition_penalty = 0;
    expect_refused(s);
    const mq_logit_bias outside[] = {{V, 1}}, infinite[] = {{1, INFINITY}};
    s = sampling(1);
    s.bias = outside;
    s.bias_count = 1;
    expect_refused(s);
    s.bias = infinite;
    expect_refused(s);
}

static void test_allocation_failures(void **state)
{
    (void)state;
    mq_sampling s = MQ_SAMPLING_GREEDY;
    for (unsigned long n = 1; n <= 4; n++) {
        mq_sampler *sampler;
        (void)mq__alloc_fail_at(n);
        const mq_status status = mq__sampler_new(&s, V, NULL, 0, &sampler, NULL);
        (void)mq__alloc_fail_at(0);
        assert_int_equal(status, MQ_NO_MEMORY);
        assert_null(sampler);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_filters),
        cmocka_unit_test(test_greedy_and_ties),
        cmocka_unit_test(test_same_seed_same_tokens),
        cmocka_unit_test(test_penalties),
        cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_refuses_bad_parameters),
        cmocka_unit_test(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
