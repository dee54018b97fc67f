/* What a sampler remembers: seed and position, penalties, rewinding; and what it refuses. */
#include "test_sampler_fixture.h"

/* ---------------------------------------------------------------- state */

static void test_seed_and_position_only(void **state)
{
    (void)state;
    enum { N = 300, STEPS = 200 };
    static float rows[STEPS][N];
    int32_t alone[2][STEPS];
    mq_sampling s = sampling(1);
    s.top_k = 50;
    for (int i = 0; i < STEPS; i++) {
        random_logits(rows[i], N, 0);
    }
    for (int q = 0; q < 2; q++) {
        s.seed = 7 + (uint64_t)q;
        mq_sampler *sampler = sampler_of(&s, N, NULL, 0);
        for (int i = 0; i < STEPS; i++) {
            alone[q][i] = next_token(sampler, rows[i]);
        }
        mq_sampler_free(sampler);
    }
    assert_memory_not_equal(alone[0], alone[1], sizeof alone[0]);
    /* Interleaved, with repeated draws and wrong drafts that are rewound. */
    mq_sampler *both[2];
    for (int q = 0; q < 2; q++) {
        s.seed = 7 + (uint64_t)q;
        both[q] = sampler_of(&s, N, NULL, 0);
    }
    for (int i = 0; i < STEPS; i++) {
        for (int q = 1; q >= 0; q--) {
            (void)draw_one(both[q], rows[(i + 1) % STEPS], NULL);
            for (int k = 0; k < i % 5; k++) {
                assert_int_equal(mq_sampler_accept(both[q], k, NULL), MQ_OK);
                (void)draw_one(both[q], rows[k], NULL);
            }
            assert_int_equal(mq_sampler_rewind(both[q], (uint32_t)(i % 5), NULL), MQ_OK);
            assert_int_equal(mq_sampler_position(both[q]), i);
            assert_int_equal(next_token(both[q], rows[i]), alone[q][i]);
        }
    }
    mq_sampler_free(both[0]);
    mq_sampler_free(both[1]);
}

static void test_penalties(void **state)
{
    (void)state;
    float logits[V] = {2.0f, 1.9f, -1, -1, -1, -1, -1, -1};
    const int32_t prompt[] = {0};
    mq_sampling s = MQ_SAMPLING_GREEDY;
    s.repetition_penalty = 1.1f; /* counts the prompt: 2.0 / 1.1 < 1.9; then 1.9 / 1.1 < 2.0 / 1.1 */
    mq_sampler *sampler = sampler_of(&s, V, prompt, 1);
    assert_int_equal(next_token(sampler, logits), 1);
    assert_int_equal(next_token(sampler, logits), 0);
    mq_sampler_free(sampler);
    s = MQ_SAMPLING_GREEDY;
    s.presence_penalty = 0.5f; /* does not count the prompt */
    sampler = sampler_of(&s, V, prompt, 1);
    assert_int_equal(next_token(sampler, logits), 0);
    assert_int_equal(next_token(sampler, logits), 1);
    assert_int_equal(next_token(sampler, logits), 0); /* 1.5 and 1.4 */
    mq_sampler_free(sampler);
    const mq_logit_bias bias[] = {{5, 10}};
    s = MQ_SAMPLING_GREEDY;
    s.bias = bias;
    s.bias_count = 1;
    s.frequency_penalty = 6; /* token 5: 9, then 3, then -3 */
    sampler = sampler_of(&s, V, NULL, 0);
    assert_int_equal(next_token(sampler, logits), 5);
    assert_int_equal(next_token(sampler, logits), 5);
    assert_int_equal(next_token(sampler, logits), 0);
    assert_int_equal(mq_sampler_rewind(sampler, 2, NULL), MQ_OK); /* one use of token 5 remains */
    assert_int_equal(next_token(sampler, logits), 5);
    assert_int_equal(next_token(sampler, logits), 0);
    mq_sampler_free(sampler);
}

static void test_rewind_has_an_end(void **state)
{
    (void)state;
    const mq_sampling s = MQ_SAMPLING_GREEDY;
    mq_sampler *sampler = sampler_of(&s, V, NULL, 0);
    assert_int_equal(mq_sampler_rewind(sampler, 1, NULL), MQ_USAGE);
    for (int i = 0; i < 3 * MQ_SAMPLER_REWIND; i++) {
        assert_int_equal(mq_sampler_accept(sampler, i % V, NULL), MQ_OK);
    }
    assert_int_equal(mq_sampler_rewind(sampler, MQ_SAMPLER_REWIND + 1, NULL), MQ_USAGE);
    assert_int_equal(mq_sampler_rewind(sampler, MQ_SAMPLER_REWIND, NULL), MQ_OK);
    assert_int_equal(mq_sampler_position(sampler), 2 * MQ_SAMPLER_REWIND);
    assert_int_equal(mq_sampler_rewind(sampler, 1, NULL), MQ_USAGE);
    assert_int_equal(mq_sampler_accept(sampler, V, NULL), MQ_USAGE);
    assert_int_equal(mq_sampler_accept(sampler, -1, NULL), MQ_USAGE);
    mq_sampler_free(sampler);
}

static void test_draws_do_not_allocate(void **state)
{
    (void)state;
    static float logits[4099];
    for (int i = 0; i < 50; i++) {
        mq_sampling s = random_sampling(3);
        s.frequency_penalty = 0.5f;
        mq_sampler *sampler = sampler_of(&s, 4099, NULL, 0);
        random_logits(logits, 4099, i % 5);
        mq__alloc_guard_begin();
        (void)next_token(sampler, logits);
        assert_int_equal(mq__alloc_guard_end(), 0);
        mq_sampler_free(sampler);
    }
}

/* ---------------------------------------------------------------- refusals */

static void expect_refused(mq_sampling s)
{
    mq_sampler *sampler;
    mq_error error = {0};
    assert_int_equal(mq_sampler_new(&s, V, NULL, 0, &sampler, &error), MQ_USAGE);
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
    mq_sampler *sampler;
    const int32_t strange[] = {1, V}, negative[] = {-1};
    s = sampling(1);
    assert_int_equal(mq_sampler_new(&s, V, strange, 2, &sampler, NULL), MQ_USAGE);
    assert_int_equal(mq_sampler_new(&s, V, negative, 1, &sampler, NULL), MQ_USAGE);
    assert_int_equal(mq_sampler_new(&s, 0, NULL, 0, &sampler, NULL), MQ_USAGE);
}

static void test_allocation_failures(void **state)
{
    (void)state;
    mq_sampling s = MQ_SAMPLING_GREEDY;
    s.presence_penalty = 1;
    for (unsigned long n = 1; n <= 9; n++) {
        mq_sampler *sampler;
        (void)mq__alloc_fail_at(n);
        const mq_status status = mq_sampler_new(&s, V, NULL, 0, &sampler, NULL);
        (void)mq__alloc_fail_at(0);
        assert_int_equal(status, MQ_NO_MEMORY);
        assert_null(sampler);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seed_and_position_only), cmocka_unit_test(test_penalties),
        cmocka_unit_test(test_rewind_has_an_end),      cmocka_unit_test(test_draws_do_not_allocate),
        cmocka_unit_test(test_refuses_bad_parameters), cmocka_unit_test(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
