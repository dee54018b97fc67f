/* Sampling: the same tokens as a reference that sorts everything, draws that follow the distribution and depend on seed and
 * position only, penalties and masks that do what their names say, rows that cannot be drawn from. */
#include "test_sampler_fixture.h"

/* ---------------------------------------------------------------- the distribution */

/* Pearson's statistic of 100,000 draws, along the positions of one seed or over seeds at one position. */
static void expect_distribution(mq_sampling s, int kept, double temperature, bool seeds)
{
    enum { DRAWS = 100000 };
    float logits[V];
    int counts[V] = {0};
    double total = 0, statistic = 0;
    logits_of(logits);
    mq_sampler *sampler = sampler_of(&s, V, NULL, 0);
    for (int i = 0; i < DRAWS; i++) {
        if (seeds) {
            mq_sampler_free(sampler);
            s.seed = (uint64_t)i;
            sampler = sampler_of(&s, V, NULL, 0);
        }
        counts[next_token(sampler, logits)]++;
    }
    for (int r = 0; r < kept; r++) {
        total += pow((double)probabilities[by_rank[r]], 1 / temperature);
    }
    for (int r = 0; r < V; r++) {
        const double p = r < kept ? pow((double)probabilities[by_rank[r]], 1 / temperature) / total : 0;
        const double got = counts[by_rank[r]];
        assert_true(fabs(mq_sampler_probability(sampler, by_rank[r]) - p) < 1e-5);
        if (r >= kept) assert_true(got == 0);
        if (r < kept) statistic += (got - p * DRAWS) * (got - p * DRAWS) / (p * DRAWS);
    }
    assert_true(statistic < 29.9); /* the 0.9999 quantile for 7 degrees of freedom; fewer have a lower one */
    mq_sampler_free(sampler);
}

static void test_filters(void **state)
{
    (void)state;
    mq_sampling s = sampling(1);
    expect_distribution(s, V, 1, false);
    expect_distribution(s, V, 1, true);
    s.top_k = 3;
    expect_distribution(s, 3, 1, false);
    s.top_p = 0.8f; /* of the three that top-k left: 0.4 + 0.3 of 0.85 = 0.82 */
    expect_distribution(s, 2, 1, false);
    s = sampling(1);
    s.top_p = 0.69f;
    expect_distribution(s, 2, 1, false);
    s.top_p = 0.71f;
    expect_distribution(s, 3, 1, false);
    s.top_p = 0;
    expect_distribution(s, 1, 1, false);
    expect_distribution(sampling(0.5f), V, 0.5, false);
    s = sampling(1);
    s.min_p = 0.19f; /* of 0.4: 0.076 */
    expect_distribution(s, 4, 1, false);
    s.min_p = 0.21f;
    expect_distribution(s, 3, 1, false);
}

/* ---------------------------------------------------------------- the reference */

typedef struct ranked {
    double weight;
    float logit;
    int32_t token;
} ranked;

static int by_logit(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return x->token < y->token ? -1 : 1;
}

static int by_token(const void *a, const void *b)
{
    return ((const ranked *)a)->token < ((const ranked *)b)->token ? -1 : 1;
}

/* Sorts everything. Fills kept[] in the order of ids and returns how many; *close: a sum comes so near to top_p that the
 * rounding of another order of summation may decide. */
static size_t reference_filter(const mq_sampling *s, const float *logits, uint32_t vocab, ranked *kept, bool *close)
{
    float best = -INFINITY;
    size_t n = 0;
    *close = false;
    for (uint32_t i = 0; i < vocab; i++) {
        best = fmaxf(best, logits[i]);
    }
    const float least = s->min_p > 0 ? best + (float)(log((double)s->min_p) * (double)s->temperature) : -FLT_MAX;
    for (uint32_t i = 0; i < vocab; i++) {
        const double weight = exp(((double)logits[i] - (double)best) / (double)s->temperature);
        if (logits[i] >= least) kept[n++] = (ranked){weight, logits[i], (int32_t)i};
    }
    qsort(kept, n, sizeof *kept, by_logit);
    if (s->top_k > 0 && (size_t)s->top_k < n) n = (size_t)s->top_k;
    if (s->top_p < 1) {
        double total = 0, sum = 0;
        for (size_t i = 0; i < n; i++) {
            total += kept[i].weight;
        }
        const double target = (double)s->top_p * total;
        size_t k = 0;
        do {
            sum += kept[k++].weight;
            if (fabs(sum - target) < 1e-6 * total) *close = true;
        } while (k < n && sum < target);
        n = k;
    }
    qsort(kept, n, sizeof *kept, by_token);
    return n;
}

/* Same kept set, same probabilities, and the token that the drawn number falls on: found back by the probabilities, since
 * the number is the sampler's own. */
static void compare_with_reference(const mq_sampling *s, const float *logits, uint32_t vocab, ranked *kept,
                                   int *skipped)
{
    bool close;
    const size_t n = reference_filter(s, logits, vocab, kept, &close);
    if (close) {
        ++*skipped;
        return;
    }
    double total = 0, sum = 0;
    mq_sampler *sampler = sampler_of(s, vocab, NULL, 0);
    const int32_t token = draw_one(sampler, logits, NULL);
    for (size_t i = 0; i < n; i++) {
        total += kept[i].weight;
    }
    size_t at = 0;
    bool found = false;
    for (uint32_t i = 0; i < vocab; i++) {
        const bool is_kept = at < n && kept[at].token == (int32_t)i;
        const double expected = is_kept ? kept[at].weight / total : 0,
                     got = mq_sampler_probability(sampler, (int32_t)i);
        assert_true(fabs(got - expected) <= 1e-6 * expected);
        if (is_kept && token == (int32_t)i) found = true;
        at += is_kept;
        sum += got;
    }
    assert_true(found);
    assert_true(fabs(sum - 1) < 1e-5);
    mq_sampler_free(sampler);
}

static void test_equals_reference(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1, 2, 63, 64, 65, 300, 1000, 4099};
    static float logits[4099];
    static ranked kept[4099];
    int skipped = 0;
    for (int i = 0; i < 4000; i++) {
        const uint32_t vocab = sizes[i % 8];
        const mq_sampling s = random_sampling((uint64_t)i);
        random_logits(logits, vocab, i / 8 % 5);
        compare_with_reference(&s, logits, vocab, kept, &skipped);
    }
    assert_true(skipped < 30);
}

/* The drawn number walks the kept tokens in the order of ids: the same number under different filters, by hand. */
static void test_draws_walk_the_ids(void **state)
{
    (void)state;
    static float logits[1000];
    static ranked kept[1000];
    for (int i = 0; i < 200; i++) {
        mq_sampling s = random_sampling((uint64_t)i), two = sampling(1);
        bool close;
        random_logits(logits, 1000, i % 5);
        /* 2^20 tokens of one weight show the number itself to 2^-20 */
        two.seed = s.seed;
        static float flat[1 << 20];
        mq_sampler *ruler = sampler_of(&two, 1 << 20, NULL, 0), *sampler = sampler_of(&s, 1000, NULL, 0);
        const double u = draw_one(ruler, flat, NULL) / (double)(1 << 20);
        mq_sampler_free(ruler);
        const size_t n = reference_filter(&s, logits, 1000, kept, &close);
        const int32_t token = draw_one(sampler, logits, NULL);
        mq_sampler_free(sampler);
        if (close) continue;
        double total = 0, below = 0, own = 0;
        for (size_t k = 0; k < n; k++) {
            total += kept[k].weight;
            if (kept[k].token < token) below += kept[k].weight;
            if (kept[k].token == token) own = kept[k].weight;
        }
        assert_true(below <= (u + 3e-6) * total && (u - 3e-6) * total <= below + own);
    }
}

static void test_greedy_and_ties(void **state)
{
    (void)state;
    static float logits[5000];
    mq_sampling s = MQ_SAMPLING_GREEDY;
    mq_sampler *sampler = sampler_of(&s, 5000, NULL, 0);
    for (int round = 0; round < 500; round++) {
        random_logits(logits, 5000, round % 5);
        int32_t best = 0;
        for (int32_t i = 1; i < 5000; i++) {
            if (logits[i] > logits[best]) best = i;
        }
        assert_int_equal(next_token(sampler, logits), best);
        assert_true(mq_sampler_probability(sampler, best) == 1);
    }
    mq_sampler_free(sampler);
    const float ties[V] = {1, 5, 5, 2, -INFINITY, 0, 5, 3};
    sampler = sampler_of(&s, V, NULL, 0);
    assert_int_equal(next_token(sampler, ties), 1);
    mq_sampler_free(sampler);
}

/* ---------------------------------------------------------------- rows that are no distribution */

static void expect_bad_row(const mq_sampling *s, float *logits, uint32_t vocab, const uint32_t *mask)
{
    int32_t token = 77;
    mq_error error = {0};
    mq_sampler *sampler = sampler_of(s, vocab, NULL, 0);
    assert_int_equal(mq_sampler_draw(sampler, logits, mask, &token, &error), MQ_USAGE);
    assert_non_null(strstr(error.text, "expected"));
    assert_true(mq_sampler_probability(sampler, 0) == 0);
    mq_sampler_free(sampler);
}

static void test_bad_rows(void **state)
{
    (void)state;
    enum { N = 200 };
    float logits[N];
    const uint32_t nothing[(N + 31) / 32] = {0};
    mq_sampling all[3] = {MQ_SAMPLING_GREEDY, sampling(1), sampling(0.6f)};
    all[2].top_k = 20;
    for (int k = 0; k < 3; k++) {
        for (int at = 0; at < N; at += at < 130 ? 13 : 1) {
            for (int bad = 0; bad < 3; bad++) {
                random_logits(logits, N, 0);
                logits[at] = bad == 0 ? NAN : bad == 1 ? -NAN : INFINITY;
                expect_bad_row(&all[k], logits, N, NULL);
            }
        }
        for (int i = 0; i < N; i++) {
            logits[i] = -INFINITY;
        }
        expect_bad_row(&all[k], logits, N, NULL);
        random_logits(logits, N, 0);
        expect_bad_row(&all[k], logits, N, nothing);
    }
    /* Finite rows at the ends of the range, and the smallest temperature. */
    const mq_logit_bias bias[] = {{3, FLT_MAX}};
    const int32_t prompt[] = {3};
    mq_sampling s = sampling(1e-40f);
    s.bias = bias;
    s.bias_count = 1;
    s.repetition_penalty = 1e-3f;
    for (int i = 0; i < N; i++) {
        logits[i] = i == 3 ? FLT_MAX : -FLT_MAX;
    }
    mq_sampler *sampler = sampler_of(&s, N, prompt, 1);
    assert_int_equal(draw_one(sampler, logits, NULL), 3);
    mq_sampler_free(sampler);
}

static void test_mask(void **state)
{
    (void)state;
    enum { N = 100 };
    float logits[N];
    for (int round = 0; round < 300; round++) {
        uint32_t mask[(N + 31) / 32] = {0};
        const mq_sampling s = round % 3 ? random_sampling((uint64_t)round) : MQ_SAMPLING_GREEDY;
        random_logits(logits, N, round % 4);
        for (int i = 0; i < N; i++) {
            if (random_number() < 0.2 || i == 57) mask[i / 32] |= 1u << i % 32;
        }
        if (round % 2) mask[1] = UINT32_MAX;
        mq_sampler *sampler = sampler_of(&s, N, NULL, 0), *plain = sampler_of(&s, N, NULL, 0);
        const int32_t token = draw_one(sampler, logits, mask);
        assert_true(mask[token / 32] >> token % 32 & 1);
        for (int i = 0; i < N; i++) { /* a mask is the same as logits of minus infinity */
            if (!(mask[i / 32] >> i % 32 & 1)) logits[i] = -INFINITY;
        }
        assert_int_equal(draw_one(plain, logits, NULL), token);
        mq_sampler_free(sampler);
        mq_sampler_free(plain);
    }
}

static void test_logprobs(void **state)
{
    (void)state;
    float logits[V];
    mq_token_logprob top[3];
    logits_of(logits);
    const float logprob = mq_logprobs(logits, V, 6, top, 3);
    assert_true(fabsf(logprob - logf(0.04f)) < 1e-6f);
    for (int r = 0; r < 3; r++) {
        assert_int_equal(top[r].token, by_rank[r]);
        assert_true(fabsf(top[r].logprob - logf(probabilities[by_rank[r]])) < 1e-6f);
    }
    static float row[1000];
    static ranked sorted[1000];
    for (int round = 0; round < 200; round++) {
        mq_token_logprob best[20];
        double total = 0;
        random_logits(row, 1000, round % 4);
        for (int i = 0; i < 1000; i++) {
            total += exp((double)row[i]);
            sorted[i] = (ranked){0, row[i], i};
        }
        qsort(sorted, 1000, sizeof *sorted, by_logit);
        assert_true(fabs((double)mq_logprobs(row, 1000, 5, best, 20) - ((double)row[5] - log(total))) < 1e-5);
        for (int i = 0; i < 20; i++) {
            assert_int_equal(best[i].token, sorted[i].token);
            assert_true(fabs((double)best[i].logprob - ((double)sorted[i].logit - log(total))) < 1e-5);
        }
    }
}

/* ---------------------------------------------------------------- speed: printed, not judged */

static void print_speed(const char *name, mq_sampling s, const float *logits, uint32_t vocab)
{
    enum { ROUNDS = 40 };
    double seconds[ROUNDS];
    mq_sampler *sampler = sampler_of(&s, vocab, NULL, 0);
    for (int i = 0; i < ROUNDS; i++) {
        const double start = mq__seconds();
        (void)next_token(sampler, logits);
        seconds[i] = mq__seconds() - start;
        for (int k = i; k > 0 && seconds[k] < seconds[k - 1]; k--) {
            const double swapped = seconds[k];
            seconds[k] = seconds[k - 1];
            seconds[k - 1] = swapped;
        }
    }
    print_message("%-44s %7.3f ms a token (median; least %.3f)\n", name, 1e3 * seconds[ROUNDS / 2], 1e3 * seconds[0]);
    mq_sampler_free(sampler);
}

static void test_speed(void **state)
{
    (void)state;
    const uint32_t vocab = 151936;
    float *logits = malloc(vocab * sizeof *logits);
    assert_non_null(logits);
    for (uint32_t i = 0; i < vocab; i++) { /* like a model's: a broad middle and a few that stand out */
        double x = 0;
        for (int k = 0; k < 12; k++) {
            x += random_number() - 0.5;
        }
        logits[i] = (float)(x * 2.5);
    }
    for (int i = 0; i < 30; i++) {
        logits[(uint32_t)(random_number() * vocab)] = (float)(20 - 0.3 * i);
    }
    mq_sampling s = MQ_SAMPLING_GREEDY;
    print_speed("greedy", s, logits, vocab);
    s = sampling(1);
    print_speed("temperature 1", s, logits, vocab);
    s = sampling(0.6f);
    s.top_p = 0.95f;
    print_speed("temperature 0.6, top-p 0.95", s, logits, vocab);
    s.top_k = 20;
    print_speed("temperature 0.6, top-k 20, top-p 0.95", s, logits, vocab);
    s.presence_penalty = 1;
    print_speed("the same with a presence penalty", s, logits, vocab);
    s = sampling(0.6f);
    s.min_p = 0.05f;
    print_speed("temperature 0.6, min-p 0.05", s, logits, vocab);
    memset(logits, 0, vocab * sizeof *logits);
    s = sampling(0.6f);
    s.top_p = 0.95f;
    print_speed("all logits equal, top-p 0.95", s, logits, vocab);
    s.top_k = 20;
    print_speed("all logits equal, top-k 20, top-p 0.95", s, logits, vocab);
    free(logits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_filters),
        cmocka_unit_test(test_equals_reference),
        cmocka_unit_test(test_draws_walk_the_ids),
        cmocka_unit_test(test_greedy_and_ties),
        cmocka_unit_test(test_bad_rows),
        cmocka_unit_test(test_mask),
        cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_speed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
