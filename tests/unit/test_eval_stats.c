/* Statistics against values worked out by hand; distributions; the chart writer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/distribution.h"
#include "base/mem.h"
#include "eval/report.h"
#include "eval/stats.h"
#include "eval/svg.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void assert_near(double a, double b, double within)
{
    if (!(fabs(a - b) <= within)) fail_msg("expected %.9g, got %.9g", b, a);
}

static void test_mcnemar(void **state)
{
    (void)state;
    assert_near(mq__eval_mcnemar(0, 0), 1, 0);
    assert_near(mq__eval_mcnemar(0, 5), 2.0 / 32, 1e-12);
    assert_near(mq__eval_mcnemar(5, 0), 2.0 / 32, 1e-12);
    assert_near(mq__eval_mcnemar(1, 9), 2.0 * (1 + 10) / 1024, 1e-12);
    assert_near(mq__eval_mcnemar(2, 8), 2.0 * (1 + 10 + 45) / 1024, 1e-12);
    assert_near(mq__eval_mcnemar(3, 3), 1, 0);
    assert_true(mq__eval_mcnemar(100, 200) < 1e-8 && mq__eval_mcnemar(100, 200) > 0);
}

static void test_wilson(void **state)
{
    (void)state;
    static const struct {
        uint64_t right, count;
        double low, high;
    } cases[] = {{81, 263, 0.2553, 0.3662}, /* Newcombe 1998, Statistics in Medicine 17, table I, method 3 */
                 {15, 148, 0.0624, 0.1605},
                 {0, 20, 0.0000, 0.1611},
                 {1, 29, 0.0061, 0.1718},
                 {24, 24, 0.8620, 1.0000}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const mq_eval_interval v = mq__eval_wilson(cases[i].right, cases[i].count);
        assert_near(v.mean, (double)cases[i].right / (double)cases[i].count, 1e-15);
        assert_near(v.low, cases[i].low, 0.5e-4);
        assert_near(v.high, cases[i].high, 0.5e-4);
    }
    assert_true(mq__eval_wilson(0, 20).low == 0 && mq__eval_wilson(24, 24).high == 1);
    const mq_eval_interval none = mq__eval_wilson(0, 0);
    assert_true(none.mean == 0 && none.low == 0 && none.high == 0);
}

static void test_bootstrap(void **state)
{
    (void)state;
    double coins[100], equal[3] = {0.5, 0.5, 0.5};
    for (int i = 0; i < 100; i++) {
        coins[i] = i % 2;
    }
    const mq_eval_interval a = mq__eval_bootstrap(coins, NULL, 100, 7), b = mq__eval_bootstrap(coins, NULL, 100, 7);
    assert_memory_equal(&a, &b, sizeof a); /* seeded */
    assert_near(a.mean, 0.5, 0);
    assert_near(a.low, 0.5 - 1.96 * 0.05, 0.021); /* the normal limit, in steps of 0.01 */
    assert_near(a.high, 0.5 + 1.96 * 0.05, 0.021);
    const mq_eval_interval none = mq__eval_bootstrap(equal, NULL, 3, 7), empty = mq__eval_bootstrap(equal, NULL, 0, 7);
    assert_true(none.low == 0.5 && none.high == 0.5);
    assert_true(empty.mean == 0 && empty.low == 0 && empty.high == 0);
    const double two[] = {1, 4}, weights[] = {3, 1};
    const mq_eval_interval weighted = mq__eval_bootstrap(two, weights, 2, 7);
    assert_near(weighted.mean, (3 * 1 + 1 * 4) / 4.0, 1e-15);
    assert_true(weighted.low == 1 && weighted.high == 4); /* of one item twice */
}

static void test_paired_bootstrap(void **state)
{
    (void)state;
    double a[200], b[200];
    for (int i = 0; i < 200; i++) {
        b[i] = i % 7;
        a[i] = b[i] + 1;
    }
    const mq_eval_interval shifted = mq__eval_paired_bootstrap(a, b, NULL, 200, false, 1);
    assert_near(shifted.mean, 1, 1e-12);
    assert_near(shifted.low, 1, 1e-12);
    assert_near(shifted.high, 1, 1e-12);
    const mq_eval_interval ratio = mq__eval_paired_bootstrap(a, b, NULL, 1, true, 1);
    assert_near(ratio.mean, exp(1) - exp(0), 1e-12);
    assert_near(mq__eval_paired_bootstrap(a, b, NULL, 0, false, 1).high, 0, 0);
}

static double flipped(const double *a, const double *b, const double *weights, size_t count)
{
    const mq_eval_test test = mq__eval_sign_flip(a, b, weights, count, 42);
    assert_true(test.exact);
    return test.p;
}

/* Darwin's 15 pairs of maize, in eighths of an inch. Fisher (The Design of Experiments, 1935, section 21) counted 863 of the
 * 32,768 sign patterns with a sum as large as the 314 seen. */
static const double maize[15] = {49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48}, nothing[64];

static void test_sign_flip(void **state)
{
    (void)state;
    double up[64], half[64];
    for (int i = 0; i < 64; i++) {
        up[i] = 1 + 0.1 * i;
        half[i] = 0.5;
    }
    assert_near(flipped(up, half, NULL, 1), 1, 0); /* all signs agree: 2 of 2^n patterns */
    assert_near(flipped(up, half, NULL, 2), 0.5, 0);
    assert_near(flipped(up, half, NULL, 4), 0.125, 0);
    assert_near(flipped(up, half, NULL, 8), 2.0 / 256, 0);
    assert_near(flipped(up, half, NULL, 20), 2.0 / 1048576, 0);
    assert_near(flipped(half, up, NULL, 8), 2.0 / 256, 0);
    assert_near(flipped(up, up, NULL, 64), 1, 0);
    assert_near(flipped(up, half, NULL, 0), 1, 0);
    assert_near(flipped(maize, nothing, NULL, 15), 2 * 863.0 / 32768, 0);
    const double tenths[] = {0.1, 0.2, -0.3}, ones[] = {1, 1, 1}, weights[] = {1, 2, -3};
    assert_near(flipped(tenths, nothing, NULL, 3), 1, 0); /* a sum of 0, but for rounding */
    assert_near(flipped(ones, nothing, weights, 3), 1, 0);
    const double sparse[] = {1, 0, 0, 1, 0, 1, 1, 1, 0, -1}; /* equal sizes: the exact McNemar test */
    assert_near(flipped(sparse, nothing, NULL, 10), mq__eval_mcnemar(5, 1), 1e-12);
}

static void test_sign_flip_of_many(void **state)
{
    (void)state;
    double up[64], even[64];
    for (int i = 0; i < 64; i++) {
        up[i] = 1 + 0.1 * i;
        even[i] = i % 2 ? 1 : -1;
    }
    const mq_eval_test all = mq__eval_sign_flip(up, nothing, NULL, 64, 1);
    assert_true(!all.exact && all.p == 1.0 / (MQ_EVAL_FLIPS + 1.0)); /* never 0 */
    assert_near(mq__eval_sign_flip(even, nothing, NULL, 64, 1).p, 1, 0);
    const mq_eval_test drawn = mq__eval_sign_flip(even, nothing, NULL, 21, 3);
    assert_near(drawn.p, mq__eval_sign_flip(even, nothing, NULL, 21, 3).p, 0); /* seeded */
    assert_near(drawn.p, 1, 0);                                                /* 10 of 21 is as even as it gets */
    for (int i = 0; i < 24; i++) {
        even[i] = i < 17 ? 1 : -1;
    }
    assert_near(mq__eval_sign_flip(even, nothing, NULL, 24, 3).p, mq__eval_mcnemar(17, 7),
                0.003); /* 4 of its deviations */
}

static void test_ratio(void **state)
{
    (void)state;
    double part[100], whole[100];
    for (int i = 0; i < 100; i++) {
        whole[i] = i % 4 == 0;
        part[i] = i % 8 == 0;
    }
    const mq_eval_interval half = mq__eval_ratio_bootstrap(part, whole, 100, 7);
    assert_near(half.mean, 13.0 / 25, 1e-15);
    assert_near(half.low, 0.52 - 1.96 * sqrt(0.25 / 25), 0.05); /* of 25, as of coins */
    assert_near(half.high, 0.52 + 1.96 * sqrt(0.25 / 25), 0.05);
    const double some[] = {1, 0, 0}, seldom[] = {1, 0, 0}; /* in 8 of 27 resamples the first does not come */
    const mq_eval_interval open = mq__eval_ratio_bootstrap(some, seldom, 3, 7);
    assert_true(open.mean == 1 && open.low == 1 && isinf(open.high));
    assert_true(isnan(mq__eval_ratio_bootstrap(some, nothing, 3, 7).mean));
    assert_true(isnan(mq__eval_ratio_bootstrap(some, seldom, 0, 7).mean));
}

static void test_holm(void **state)
{
    (void)state;
    const double p[] = {0.01, 0.04, 0.03, 0.005}, wanted[] = {0.03, 0.06, 0.06, 0.02};
    const double ties[] = {0.02, 0.02, 0.9}, tied[] = {0.06, 0.06, 0.9};
    double corrected[4];
    mq__eval_holm(p, corrected, 4);
    for (int i = 0; i < 4; i++) {
        assert_near(corrected[i], wanted[i], 1e-15);
    }
    mq__eval_holm(ties, corrected, 3);
    for (int i = 0; i < 3; i++) {
        assert_near(corrected[i], tied[i], 1e-15);
    }
    mq__eval_holm(&ties[2], corrected, 1);
    assert_near(corrected[0], 0.9, 0);
}

static void test_divergence(void **state)
{
    (void)state;
    const float p[] = {0, 1.0986122887f}, q[] = {5, 5}; /* 1:3 against 1:1 */
    assert_near(mq__divergence(p, q, 2), 0.25 * log(0.5) + 0.75 * log(1.5), 1e-7);
    assert_near(mq__divergence(p, p, 2), 0, 0);
    assert_near(mq__log_sum(q, 2), 5 + log(2), 1e-12);
    const float far[] = {-1e30f, 0}, near[] = {0, 0};
    assert_near(mq__divergence(far, near, 2), log(2), 1e-12); /* a probability of zero counts nothing */
    const float ties[] = {1, 3, 3};
    assert_int_equal(mq__largest(ties, 3), 1);
}

static void test_random(void **state)
{
    (void)state;
    mq_eval_random a = mq__eval_random(1, "x"), b = mq__eval_random(1, "x"), c = mq__eval_random(2, "x"),
                   d = mq__eval_random(1, "y");
    const uint64_t first = mq__eval_random_u64(&a);
    assert_true(first == mq__eval_random_u64(&b) && first != mq__eval_random_u64(&c) &&
                first != mq__eval_random_u64(&d));
    uint32_t seen = 0;
    for (int i = 0; i < 1000; i++) {
        const uint32_t value = mq__eval_random_below(&a, 5);
        assert_true(value < 5);
        seen |= 1u << value;
    }
    assert_int_equal(seen, 31);
}

/* Records of two plans: the summary's cells, groups, curves and comparisons. */
static void test_summary(void **state)
{
    (void)state;
    static const mq_eval_task task = {.name = "t", .metrics = {"right", "missing"}, .binary = 1u << 0};
    mq_eval_plan plans[2];
    assert_int_equal(mq__eval_plan_parse("bf16", &plans[0], NULL), MQ_OK);
    assert_int_equal(mq__eval_plan_parse("nvfp4/bf16", &plans[1], NULL), MQ_OK);
    json_t *result =
        json_loads("{\"ids\": [\"a\", \"b\", \"c\"], \"records\": {"
                   "\"bf16\": {\"a\": {\"right\": 1, \"group\": \"g\", \"input_tokens\": 10, \"output_tokens\": 2,"
                   "   \"curves\": {\"k\": {\"x\": [1, 2], \"y\": [1, 3]}}},"
                   " \"b\": {\"right\": 1, \"input_tokens\": 20, \"output_tokens\": 4, \"curves\": {\"k\": {\"x\": "
                   "[1], \"y\": [3]}}},"
                   " \"c\": {\"right\": 1}, \"not in ids\": {\"right\": 0}},"
                   "\"nvfp4/bf16\": {\"a\": {\"right\": 0, \"group\": \"g\"}, \"b\": {\"right\": 1}, \"c\": "
                   "{\"right\": \"odd\"}}}}",
                   0, NULL);
    json_t *s = mq__eval_summary(&task, plans, 2, result, 42);
    assert_non_null(s);
    const json_t *cells = json_object_get(json_object_get(s, "metrics"), "right");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(cells, "bf16"), "n")), 3);
    assert_near(json_number_value(json_object_get(json_object_get(cells, "nvfp4/bf16"), "mean")), 0.5, 0);
    assert_null(json_object_get(json_object_get(s, "metrics"), "missing"));
    const json_t *compare = json_array_get(json_object_get(s, "compare"), 0);
    assert_int_equal(json_array_size(json_object_get(s, "compare")), 1);
    assert_int_equal(json_integer_value(json_object_get(compare, "n")), 2);
    assert_int_equal(json_integer_value(json_object_get(compare, "lower")), 1);
    assert_near(json_number_value(json_object_get(compare, "p")), 1, 0);
    const json_t *group = json_object_get(json_object_get(s, "groups"), "g");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(group, "bf16"), "n")), 1);
    const json_t *curve = json_object_get(json_object_get(json_object_get(s, "curves"), "k"), "bf16");
    assert_near(json_number_value(json_array_get(json_object_get(curve, "y"), 0)), 2, 0);
    assert_near(json_number_value(json_array_get(json_object_get(curve, "y"), 1)), 3, 0);
    const json_t *tokens = json_object_get(json_object_get(s, "tokens"), "bf16");
    assert_near(json_number_value(json_object_get(tokens, "input")), 15, 0);
    json_decref(s);
    json_decref(result);
}

static const json_t *item_of(const json_t *list, size_t i, const char *metric)
{
    const json_t *item = json_array_get(list, i);
    assert_string_equal(json_string_value(json_object_get(item, "metric")), metric);
    return item;
}

static double number_of(const json_t *object, const char *key)
{
    assert_true(json_is_number(json_object_get(object, key)));
    return json_number_value(json_object_get(object, key));
}

/* Of a loss of 3 items, mix has 1: two thirds are regained; with errors (smaller is better) the signs turn. */
static void test_regained(void **state)
{
    (void)state;
    static const mq_eval_task tasks[2] = {{.name = "t", .metrics = {"right"}, .binary = 1u << 0},
                                          {.name = "t", .metrics = {"right"}, .smaller_is_better = true}};
    static const char *const names[] = {"bf16", "nvfp4", "mix"};
    mq_eval_plan plans[3];
    for (int t = 0; t < 2; t++) {
        json_t *ids = json_array(), *records = json_object();
        for (int p = 0; p < 3; p++) {
            assert_int_equal(mq__eval_plan_parse(names[p], &plans[p], NULL), MQ_OK);
            json_t *of_plan = json_object();
            for (int i = 0; i < 12; i++) {
                char id[8];
                snprintf(id, sizeof id, "%d", i);
                if (p == 0) json_array_append_new(ids, json_string(id));
                const bool lost = p == 1 ? i < 3 : p == 2 && i < 1;
                json_object_set_new(of_plan, id, json_pack("{sf}", "right", lost == (t == 1) ? 1.0 : 0.0));
            }
            json_object_set_new(records, names[p], of_plan);
        }
        json_t *result = json_pack("{soso}", "ids", ids, "records", records);
        json_t *s = mq__eval_summary(&tasks[t], plans, 3, result, 42);
        const json_t *share = json_object_get(s, "regained");
        assert_near(number_of(share, "mean"), 2 / 3.0, 1e-12);
        assert_true(number_of(share, "low") < 2 / 3.0);
        json_decref(s);
        json_decref(result);
    }
}

/* Two texts of 1 and 3 predicted tokens with losses of 1 and 2 nats: 7/4 nats a token, not 3/2. */
static void test_weighted_perplexity(void **state)
{
    (void)state;
    static const mq_eval_task task = {
        .name = "t", .metrics = {"loss", "perplexity"}, .weight = "predicted", .exponential = 1u << 1};
    mq_eval_plan plans[2];
    assert_int_equal(mq__eval_plan_parse("bf16", &plans[0], NULL), MQ_OK);
    assert_int_equal(mq__eval_plan_parse("mix", &plans[1], NULL), MQ_OK);
    json_t *result = json_pack("{s[ss]s{s{s{sfsfsi}s{sfsfsi}}s{s{sfsfsi}s{sfsfsi}}}}", "ids", "a", "b", "records",
                               "bf16", "a", "loss", 1.0, "perplexity", exp(1), "predicted", 1, "b", "loss", 2.0,
                               "perplexity", exp(2), "predicted", 3, "mix", "a", "loss", 1.5, "perplexity", exp(1.5),
                               "predicted", 1, "b", "loss", 3.0, "perplexity", exp(3), "predicted", 3);
    json_t *s = mq__eval_summary(&task, plans, 2, result, 42);
    const json_t *metrics = json_object_get(s, "metrics"), *compare = json_object_get(s, "compare");
    const json_t *loss = json_object_get(json_object_get(metrics, "loss"), "bf16");
    const json_t *perplexity = json_object_get(json_object_get(metrics, "perplexity"), "bf16");
    assert_near(number_of(loss, "mean"), 7 / 4.0, 1e-12);
    assert_near(number_of(perplexity, "mean"), exp(7 / 4.0), 1e-12);
    assert_near(number_of(perplexity, "low"), exp(1), 1e-12);
    assert_near(number_of(perplexity, "high"), exp(2), 1e-12);
    assert_near(number_of(item_of(compare, 0, "loss"), "difference"), (0.5 + 3) / 4, 1e-12);
    assert_near(number_of(item_of(compare, 1, "perplexity"), "difference"), exp(10.5 / 4) - exp(7 / 4.0), 1e-12);
    assert_near(number_of(item_of(compare, 1, "perplexity"), "p"), 0.5, 0); /* two texts, both higher */
    json_decref(s);
    json_decref(result);
}

/* Holm's correction is over the comparisons of one metric; binary metrics get Wilson and McNemar, others do not. */
static void test_summary_of_families(void **state)
{
    (void)state;
    static const mq_eval_task task = {.name = "t", .metrics = {"share", "right"}, .binary = 1u << 1};
    static const char *const names[] = {"bf16", "nvfp4", "mix", "inverse"};
    mq_eval_plan plans[4];
    json_t *ids = json_array(), *records = json_object();
    for (int p = 0; p < 4; p++) {
        assert_int_equal(mq__eval_plan_parse(names[p], &plans[p], NULL), MQ_OK);
        json_t *of_plan = json_object();
        for (int i = 0; i < 8; i++) {
            char id[8];
            snprintf(id, sizeof id, "%d", i);
            if (p == 0) json_array_append_new(ids, json_string(id));
            const double right = p == 0 || (p == 2 && i > 0);
            json_object_set_new(of_plan, id, json_pack("{sfsf}", "share", 0.5 + 0.01 * i * p, "right", right));
        }
        json_object_set_new(records, names[p], of_plan);
    }
    json_t *result = json_pack("{soso}", "ids", ids, "records", records);
    json_t *s = mq__eval_summary(&task, plans, 4, result, 42);
    const json_t *compare = json_object_get(s, "compare");
    assert_int_equal(json_array_size(compare),
                     10); /* three plans against bf16, mix against nvfp4 and inverse; two metrics */
    const json_t *right = json_object_get(json_object_get(json_object_get(s, "metrics"), "right"), "mix");
    assert_string_equal(json_string_value(json_object_get(right, "interval")), "Wilson");
    assert_near(number_of(right, "low"), mq__eval_wilson(7, 8).low, 0);
    assert_string_equal(json_string_value(json_object_get(item_of(compare, 0, "share"), "test")), "exact sign flip");
    assert_near(number_of(item_of(compare, 0, "share"), "p"), 2.0 / 128, 0); /* item 0 is equal */
    assert_near(number_of(item_of(compare, 0, "share"), "p_holm"), 3 * 2.0 / 128, 1e-12);
    static const char *const pairs[5][3] = {{"nvfp4", "bf16", "stated"},
                                            {"mix", "nvfp4", "stated"},
                                            {"mix", "inverse", "stated"},
                                            {"mix", "bf16", "other"},
                                            {"inverse", "bf16", "other"}};
    for (size_t i = 0; i < 5; i++) { /* what was stated beforehand comes first, and is corrected on its own */
        const json_t *item = item_of(compare, 5 + i, "right");
        assert_string_equal(json_string_value(json_object_get(item, "plan")), pairs[i][0]);
        assert_string_equal(json_string_value(json_object_get(item, "against")), pairs[i][1]);
        assert_string_equal(json_string_value(json_object_get(item, "family")), pairs[i][2]);
    }
    assert_string_equal(json_string_value(json_object_get(item_of(compare, 5, "right"), "test")), "exact McNemar");
    assert_near(number_of(item_of(compare, 5, "right"), "p"), 2.0 / 256, 1e-12); /* nvfp4: 0 of 8 */
    assert_near(number_of(item_of(compare, 5, "right"), "p_holm"), 3 * 2.0 / 256, 1e-12);
    assert_near(number_of(item_of(compare, 6, "right"), "p_holm"), 2 * 2.0 / 128, 1e-12); /* mix against nvfp4 */
    assert_near(number_of(item_of(compare, 8, "right"), "p"), 1, 0);                      /* mix: 7 of 8 */
    assert_near(number_of(item_of(compare, 9, "right"), "p_holm"), 2 * 2.0 / 256, 1e-12);
    mq_buf text = {0};
    json_t *report = json_pack("{s{sO}}", "tasks", "t", s);
    mq__eval_table(report, &text);
    assert_non_null(strstr(text.data, "p = 0.0156, Holm 0.0469 (exact sign flip)"));
    mq__buf_free(&text);
    json_decref(report);
    json_decref(s);
    json_decref(result);
}

static void test_svg(void **state)
{
    (void)state;
    mq_svg svg;
    mq__svg_begin(&svg, "a < b & c", (mq_svg_axis){0, 1, NULL, false}, (mq_svg_axis){0, 1, NULL, false});
    mq__svg_bar(&svg, 0, 1, "x", 0.5, 0.25, 0.75);
    char *text = mq__svg_end(&svg);
    assert_non_null(strstr(text, "a &lt; b &amp; c"));
    assert_non_null(strstr(text, "y=\"165.0\" width=\"308.0\" height=\"125.0\"")); /* half of 250, from 40 + 250 up */
    assert_string_equal(text + strlen(text) - 7, "</svg>\n");
    mq__free(text);
}

static void test_plans(void **state)
{
    (void)state;
    mq_eval_plan plan;
    mq_error error = {0};
    assert_int_equal(mq__eval_plan_parse("mix", &plan, NULL), MQ_OK);
    assert_true(plan.options.prefill == MQ_LINEAR_NVFP4 && plan.options.decode == MQ_LINEAR_BF16);
    assert_int_equal(mq__eval_plan_parse("inverse", &plan, NULL), MQ_OK);
    assert_true(plan.options.prefill == MQ_LINEAR_BF16 && plan.options.decode == MQ_LINEAR_NVFP4);
    assert_int_equal(mq__eval_plan_parse("w4a16/bf16", &plan, NULL), MQ_OK);
    assert_true(plan.options.prefill == MQ_LINEAR_W4A16 && plan.options.decode == MQ_LINEAR_BF16);
    assert_int_equal(mq__eval_plan_parse("w4a16", &plan, NULL), MQ_OK);
    assert_true(plan.options.decode == MQ_LINEAR_W4A16);
    assert_true(plan.options.attention == MQ_ATTENTION_BF16);
    assert_int_equal(mq__eval_plan_parse("mix+int8-attention", &plan, NULL), MQ_OK);
    assert_true(plan.options.attention == MQ_ATTENTION_INT8 && plan.options.prefill == MQ_LINEAR_NVFP4);
    assert_string_equal(plan.name, "mix+int8-attention");
    assert_int_equal(mq__eval_plan_parse("int8/bf16+w16a16-attention", &plan, NULL), MQ_OK);
    assert_true(plan.options.attention == MQ_ATTENTION_W16A16 && plan.options.prefill == MQ_LINEAR_INT8);
    assert_int_equal(mq__eval_plan_parse("mix+last64+int8-attention+reprefill", &plan, NULL), MQ_OK);
    assert_true(plan.options.attention == MQ_ATTENTION_INT8 && plan.options.prefill == MQ_LINEAR_NVFP4);
    assert_true(plan.precise == 64 && plan.reprefill);
    assert_int_equal(mq__eval_plan_parse("mix+last99999999999999999999", &plan, &error), MQ_USAGE);
    assert_int_equal(mq__eval_plan_parse("mix+nvfp4-attention", &plan, &error), MQ_USAGE);
    assert_int_equal(mq__eval_plan_parse("+int8-attention", &plan, &error), MQ_USAGE);
    assert_int_equal(mq__eval_plan_parse("int8-mix", &plan, NULL), MQ_OK);
    assert_true(plan.options.prefill == MQ_LINEAR_INT8 && plan.options.decode == MQ_LINEAR_BF16);
    assert_int_equal(mq__eval_plan_parse("some.json", &plan, NULL), MQ_OK);
    assert_string_equal(plan.options.file, "some.json");
    assert_int_equal(mq__eval_plan_parse("mix/bf16", &plan, &error), MQ_USAGE);
    assert_int_equal(mq__eval_plan_parse("", &plan, &error), MQ_USAGE);
    assert_int_equal(mq__eval_plan_parse("bf16/", &plan, &error), MQ_USAGE);
    char longest[200];
    memset(longest, 'x', sizeof longest);
    longest[199] = '\0';
    assert_int_equal(mq__eval_plan_parse(longest, &plan, &error), MQ_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mcnemar),
        cmocka_unit_test(test_wilson),
        cmocka_unit_test(test_bootstrap),
        cmocka_unit_test(test_paired_bootstrap),
        cmocka_unit_test(test_sign_flip),
        cmocka_unit_test(test_sign_flip_of_many),
        cmocka_unit_test(test_ratio),
        cmocka_unit_test(test_regained),
        cmocka_unit_test(test_holm),
        cmocka_unit_test(test_divergence),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_summary),
        cmocka_unit_test(test_weighted_perplexity),
        cmocka_unit_test(test_summary_of_families),
        cmocka_unit_test(test_svg),
        cmocka_unit_test(test_plans),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
