/* lm_head in NVFP4: off unless a plan asks, for that plan only; rows alone and together; what is refused. What the numbers are is
 * compared with a float64 model in tests/golden/logits. */
#define TOKENS 90
#include "unit_model.h"

#include "base/mem.h"
#include "engine/engine.h"

static mq_engine *open_head(const char *dir, mq_linear_format head, int threads, uint32_t chunk)
{
    mq_engine *engine;
    mq_error error = {0};
    const mq_engine_options options = {.model_dir = dir,
                                       .plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16, .head = head},
                                       .threads = threads,
                                       .context = 256,
                                       .chunk = chunk,
                                       .sequences = 4,
                                       .no_cache = true};
    if (mq_engine_open(&options, &engine, &error) != MQ_OK) fail_msg("%s", error.text);
    return engine;
}

static float *logits_of_prompt(mq_engine *engine, size_t *bytes)
{
    mq_sequence *sequence;
    mq_engine_info info;
    mq_engine_describe(engine, &info);
    *bytes = info.vocab * sizeof(float);
    float *copy = malloc(*bytes);
    assert_int_equal(mq_sequence_new(engine, &sequence, NULL), MQ_OK);
    assert_int_equal(mq_sequence_sync(sequence, tokens, TOKENS, NULL, NULL, NULL), MQ_OK);
    memcpy(copy, mq_sequence_logits(sequence), *bytes);
    mq_sequence_free(sequence);
    return copy;
}

static float *fresh(mq_linear_format head, int threads, uint32_t chunk, size_t *bytes)
{
    mq_engine *engine = open_head(model, head, threads, chunk);
    float *logits = logits_of_prompt(engine, bytes);
    mq_engine_close(engine);
    return logits;
}

static double distance(const float *a, const float *b, size_t count)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        difference += (double)(a[i] - b[i]) * (double)(a[i] - b[i]);
        norm += (double)a[i] * (double)a[i];
    }
    return sqrt(difference / norm);
}

static void test_formats(void **state)
{
    (void)state;
    size_t bytes;
    float *dense = fresh(MQ_LINEAR_BF16, 2, 32, &bytes), *w4 = fresh(MQ_LINEAR_W4A16, 2, 32, &bytes),
          *nvfp4 = fresh(MQ_LINEAR_NVFP4, 2, 32, &bytes), *other = fresh(MQ_LINEAR_NVFP4, 3, 7, &bytes),
          *one = fresh(MQ_LINEAR_W4A16, 1, 64, &bytes);
    const size_t count = bytes / sizeof(float);
    print_message("w4a16 head: %.3f, nvfp4 head: %.3f from bf16's\n", distance(dense, w4, count),
                  distance(dense, nvfp4, count));
    assert_true(distance(dense, w4, count) > 0.02 && distance(dense, w4, count) < 0.2);
    assert_true(distance(dense, nvfp4, count) > 0.02 && distance(dense, nvfp4, count) < 0.3);
    assert_memory_equal(nvfp4, other, bytes);
    assert_memory_equal(w4, one, bytes);
    float *const all[] = {dense, w4, nvfp4, other, one};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

/* One engine, several plans: each has its own head, and prompts are not computed anew for it than KV's plan says. */
static void test_plans(void **state)
{
    (void)state;
    size_t bytes;
    mq_engine *engine = open_head(model, MQ_LINEAR_BF16, 2, 32);
    float *before = logits_of_prompt(engine, &bytes);
    mq_engine_info dense, packed;
    mq_engine_describe(engine, &dense);
    const mq_plan_options plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16, .head = MQ_LINEAR_NVFP4};
    assert_int_equal(mq_engine_set_plan(engine, &plan, NULL), MQ_OK);
    float *with = logits_of_prompt(engine, &bytes), *expected = fresh(MQ_LINEAR_NVFP4, 2, 32, &bytes);
    assert_memory_equal(with, expected, bytes);
    mq_engine_describe(engine, &packed);
    assert_true(packed.packed_bytes > dense.packed_bytes);
    assert_true(packed.decode_bytes < dense.decode_bytes);
    mq_engine_settle(engine);
    const mq_plan_options back = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16};
    assert_int_equal(mq_engine_set_plan(engine, &back, NULL), MQ_OK);
    float *after = logits_of_prompt(engine, &bytes);
    assert_memory_equal(before, after, bytes);
    mq_engine_close(engine);
    free(before);
    free(with);
    free(expected);
    free(after);
}

/* Several rows of a decode step have the bits of single steps. */
static void test_rows(void **state)
{
    (void)state;
    static const mq_linear_format heads[] = {MQ_LINEAR_W4A16, MQ_LINEAR_NVFP4};
    for (size_t h = 0; h < 2; h++) {
        mq_engine *engine = open_head(model, heads[h], 3, 32);
        mq_engine_info info;
        mq_engine_describe(engine, &info);
        mq_sequence *all, *each;
        assert_int_equal(mq_sequence_new(engine, &all, NULL), MQ_OK);
        assert_int_equal(mq_sequence_new(engine, &each, NULL), MQ_OK);
        assert_int_equal(mq_sequence_sync(all, tokens, 20, NULL, NULL, NULL), MQ_OK);
        assert_int_equal(mq_sequence_sync(each, tokens, 20, NULL, NULL, NULL), MQ_OK);
        mq_rows rows = {.sequence = all, .tokens = tokens + 20, .count = 4, .phase = MQ_PHASE_DECODE, .logits = 4};
        assert_int_equal(mq_engine_step(engine, &rows, 1, NULL), MQ_OK);
        for (uint32_t i = 0; i < 4; i++) {
            assert_int_equal(mq_sequence_step(each, tokens[20 + i], NULL), MQ_OK);
            assert_memory_equal(mq_sequence_logits_of(all, 3 - i), mq_sequence_logits(each),
                                info.vocab * sizeof(float));
        }
        mq_sequence_free(all);
        mq_sequence_free(each);
        mq_engine_close(engine);
    }
}

static void test_refusals(void **state)
{
    (void)state;
    mq_error error = {0};
    const mq_plan *plan;
    mq_engine *engine = open_head(model, MQ_LINEAR_BF16, 2, 32);
    mq_plan_options options = {.prefill = MQ_LINEAR_NVFP4, .head = MQ_LINEAR_INT8};
    unit_refused(mq_engine_plan(engine, &options, &plan, &error), MQ_USAGE, &error, "head");
    options.head = MQ_LINEAR_W16A16;
    unit_refused(mq_engine_plan(engine, &options, &plan, &error), MQ_USAGE, &error, "head");
    options.head = MQ_LINEAR_BF16;
    options.file = unit_path("plan.json");
    unit_puts("plan.json", "{\"head\": \"int8\", \"layers\": []}");
    unit_refused(mq_engine_plan(engine, &options, &plan, &error), MQ_USAGE, &error, "head");
    unit_puts("plan.json", "{\"head\": 4, \"layers\": []}");
    unit_refused(mq_engine_plan(engine, &options, &plan, &error), MQ_FORMAT, &error, "head");
    unit_puts("plan.json", "{\"head\": \"nvfp4\", \"layers\": []}");
    assert_int_equal(mq_engine_plan(engine, &options, &plan, &error), MQ_OK);
    assert_int_equal(plan->phase[MQ_PHASE_DECODE].head, MQ_LINEAR_NVFP4);
    mq_engine_close(engine);
}

/* The plan that finds no memory leaves the engine as it was. */
static void test_no_memory(void **state)
{
    (void)state;
    const mq_plan_options plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16, .head = MQ_LINEAR_W4A16};
    mq_engine *engine = open_head(model, MQ_LINEAR_BF16, 2, 32);
    size_t bytes;
    float *before = logits_of_prompt(engine, &bytes);
    for (unsigned long n = 1;; n++) {
        mq__alloc_fail_at(n);
        const mq_status status = mq_engine_set_plan(engine, &plan, NULL);
        const bool hit = mq__alloc_fail_at(0) >= n;
        if (!hit) {
            assert_int_equal(status, MQ_OK);
            break;
        }
        assert_true(status == MQ_NO_MEMORY || status == MQ_OK); /* the move to large pages is only left out */
        if (status == MQ_OK) continue;
        float *after = logits_of_prompt(engine, &bytes);
        assert_memory_equal(before, after, bytes);
        free(after);
    }
    mq_engine_close(engine);
    free(before);
}

static int set_up(void **state)
{
    return unit_setup(state) || make_model(state);
}

static int tear_down(void **state)
{
    return forget_model(state) | unit_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_formats), cmocka_unit_test(test_plans),
                                       cmocka_unit_test(test_rows), cmocka_unit_test(test_refusals),
                                       cmocka_unit_test(test_no_memory)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
