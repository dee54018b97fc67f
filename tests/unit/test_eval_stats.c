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

static void test_bootstrap(void **state)
{
    (void)state;
    double coins[100], equal[3] = {0.5, 0.5, 0.5};
    for (int i = 0; i < 100; i++) {
        coins[i] = i % 2;
    }
    const mq_eval_interval a = mq__eval_bootstrap(coins, 100, 7), b = mq__eval_bootstrap(coins, 100, 7);
    assert_memory_equal(&a, &b, sizeof a); /* seeded */
    assert_near(a.mean, 0.5, 0);
    assert_near(a.low, 0.5 - 1.96 * 0.05, 0.021); /* the normal limit, in steps of 0.01 */
    assert_near(a.high, 0.5 + 1.96 * 0.05, 0.021);
    const mq_eval_interval none = mq__eval_bootstrap(equal, 3, 7), empty = mq__eval_bootstrap(equal, 0, 7);
    assert_true(none.low == 0.5 && none.high == 0.5);
    assert_true(empty.mean == 0 && empty.low == 0 && empty.high == 0);
}

static void test_paired(void **state)
{
    (void)state;
    double a[200], b[200];
    for (int i = 0; i < 200; i++) {
        b[i] = i % 7;
        a[i] = b[i] + 1;
    }
    const mq_eval_paired shifted = mq__eval_paired_bootstrap(a, b, 200, 1);
    assert_near(shifted.difference.mean, 1, 1e-12);
    assert_near(shifted.difference.low, 1, 1e-12);
    assert_near(shifted.p, 2.0 / (MQ_EVAL_RESAMPLES + 1), 1e-12);
    for (int i = 0; i < 200; i++) {
        a[i] = b[i] + (i % 2 ? 1 : -1);
    }
    const mq_eval_paired even = mq__eval_paired_bootstrap(a, b, 200, 1);
    assert_near(even.difference.mean, 0, 1e-12);
    assert_true(even.p > 0.8 && even.difference.low < 0 && even.difference.high > 0);
    assert_near(mq__eval_paired_bootstrap(a, b, 0, 1).p, 1, 0);
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
        cmocka_unit_test(test_mcnemar),    cmocka_unit_test(test_bootstrap), cmocka_unit_test(test_paired),
        cmocka_unit_test(test_divergence), cmocka_unit_test(test_random),    cmocka_unit_test(test_summary),
        cmocka_unit_test(test_svg),        cmocka_unit_test(test_plans),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
