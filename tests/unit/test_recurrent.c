/* Models with recurrent state (Gated DeltaNet): a row has the same bits in any chunk, on any threads and with any batch-mates; a sequence
 * that goes back lands at a snapshot, and goes on as if it had never been anywhere else. */
#define TOKENS 700
#include "unit_files.h"
#include "unit_sequence.h"

#include "engine/engine.h"

static char *model;
static int32_t tokens[TOKENS];

static int make_models(void **state)
{
    (void)state;
    mq_error error = {0};
    for (uint32_t i = 0; i < TOKENS; i++) {
        tokens[i] = (int32_t)((i * 37 + i * i * 11) % 250);
    }
    return mq_synth_cached("tiny-qwen3.5", 0, NULL, &model, &error) == MQ_OK ? 0 : 1;
}

static int forget_models(void **state)
{
    (void)state;
    mq_free(model);
    return 0;
}

typedef struct settings {
    mq_linear_format prefill;
    int threads;
    uint32_t chunk, sequences;
    uint64_t state_bytes;
} settings;

static mq_engine *open_with(settings s)
{
    mq_engine *engine;
    mq_error error = {0};
    const mq_engine_options options = {.model_dir = model,
                                       .plan = {.prefill = s.prefill, .decode = MQ_LINEAR_BF16},
                                       .threads = s.threads ? s.threads : 2,
                                       .context = 1024,
                                       .chunk = s.chunk ? s.chunk : 128,
                                       .sequences = s.sequences ? s.sequences : 4,
                                       .state_bytes = s.state_bytes,
                                       .no_cache = true};
    if (mq_engine_open(&options, &engine, &error) != MQ_OK) fail_msg("%s", error.text);
    return engine;
}

/* The logits after a prompt and then `more` decoded tokens, in a new sequence; owned. */
static float *fresh_logits(mq_engine *engine, const int32_t *prompt, uint32_t count, uint32_t more)
{
    mq_sequence *sequence = new_sequence(engine);
    (void)sync_to(sequence, prompt, count);
    for (uint32_t i = 0; i < more; i++) {
        assert_int_equal(mq_sequence_step(sequence, prompt[count + i], NULL), MQ_OK);
    }
    float *copy = malloc(row_bytes(engine));
    assert_non_null(copy);
    memcpy(copy, mq_sequence_logits(sequence), row_bytes(engine));
    mq_sequence_free(sequence);
    return copy;
}

static void check_logits(const mq_sequence *sequence, const float *expected)
{
    assert_non_null(mq_sequence_logits(sequence));
    assert_memory_equal(mq_sequence_logits(sequence), expected, row_bytes(sequence->engine));
}

static uint32_t held(const mq_sequence *sequence)
{
    uint32_t count;
    (void)mq_sequence_tokens(sequence, &count);
    return count;
}

/* ---- rows */

static void test_any_split(void **state)
{
    (void)state;
    static const settings all[] = {
        {.chunk = 512}, {.chunk = 1, .threads = 1}, {.chunk = 7, .threads = 3}, {.chunk = 65}};
    for (int nvfp4 = 0; nvfp4 < 2; nvfp4++) {
        float *expected = NULL;
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
            settings s = all[i];
            s.prefill = nvfp4 ? MQ_LINEAR_NVFP4 : MQ_LINEAR_BF16;
            mq_engine *engine = open_with(s);
            float *got = fresh_logits(engine, tokens, 300, 20);
            if (expected) assert_memory_equal(got, expected, row_bytes(engine));
            if (expected) free(got);
            if (!expected) expected = got;
            mq_engine_close(engine);
        }
        free(expected);
    }
}

/* The state itself as well: every float of it. */
static void test_state_is_of_tokens_only(void **state)
{
    (void)state;
    mq_engine *engine = open_with((settings){.chunk = 96});
    mq_sequence *whole = new_sequence(engine), *parts = new_sequence(engine);
    (void)sync_to(whole, tokens, 290);
    for (uint32_t at = 0, some = 1; at < 289; at += some, some = some * 3 % 50 + 1) {
        if (some > 289 - at) some = 289 - at;
        mq_rows rows = {.sequence = parts, .tokens = tokens + at, .count = some, .phase = MQ_PHASE_PREFILL};
        assert_int_equal(mq_engine_step(engine, &rows, 1, NULL), MQ_OK);
    }
    mq_rows last = {.sequence = parts, .tokens = tokens + 289, .count = 1, .phase = MQ_PHASE_DECODE};
    assert_int_equal(mq_engine_step(engine, &last, 1, NULL), MQ_OK);
    assert_true(engine->state_floats > 0);
    assert_memory_equal(whole->state, parts->state, engine->state_floats * sizeof(float));
    bool any = false;
    for (size_t i = 0; i < engine->state_floats; i++) {
        any = any || whole->state[i] != 0;
    }
    assert_true(any);
    mq_sequence_free(whole);
    mq_sequence_free(parts);
    mq_engine_close(engine);
}

static void test_batch_mates(void **state)
{
    (void)state;
    enum { MATES = 3 };
    mq_engine *engine = open_with((settings){.prefill = MQ_LINEAR_NVFP4, .chunk = 100});
    float *expected[MATES];
    mq_sequence *mate[MATES];
    mq_rows rows[MATES];
    for (uint32_t i = 0; i < MATES; i++) {
        expected[i] = fresh_logits(engine, tokens + 50 * i, 90 + 31 * i, 5);
        mate[i] = new_sequence(engine);
        rows[i] =
            (mq_rows){.sequence = mate[i], .tokens = tokens + 50 * i, .count = 89 + 31 * i, .phase = MQ_PHASE_PREFILL};
    }
    assert_int_equal(mq_engine_step(engine, rows, MATES, NULL), MQ_OK);
    for (uint32_t step = 0; step < 6; step++) {
        for (uint32_t i = 0; i < MATES; i++) {
            rows[i] = (mq_rows){.sequence = mate[i],
                                .tokens = tokens + 50 * i + 89 + 31 * i + step,
                                .count = 1,
                                .phase = MQ_PHASE_DECODE,
                                .logits = 1};
        }
        assert_int_equal(mq_engine_step(engine, rows, MATES, NULL), MQ_OK);
    }
    for (uint32_t i = 0; i < MATES; i++) {
        check_logits(mate[i], expected[i]);
        mq_sequence_free(mate[i]);
        free(expected[i]);
    }
    mq_engine_close(engine);
}

/* ---- going back */

static void test_truncate_lands_at_snapshot(void **state)
{
    (void)state;
    mq_engine *engine = open_with((settings){.prefill = MQ_LINEAR_NVFP4});
    float *expected = fresh_logits(engine, tokens, 600, 10);
    mq_sequence *s = new_sequence(engine);
    (void)sync_to(s, tokens, 600);
    assert_int_equal(engine->state_interval, 256);
    assert_int_equal(mq_sequence_truncate(s, 600), 600);
    assert_int_equal(mq_sequence_truncate(s, 599), 576); /* the end of the prompt, in whole blocks */
    assert_int_equal(mq_sequence_truncate(s, 575), 512); /* a multiple of the interval */
    assert_null(mq_sequence_logits(s));
    mq_sync_stats stats = sync_to(s, tokens, 600);
    assert_int_equal(stats.cached, 512);
    assert_int_equal(stats.prefilled, 599 - 512);
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(mq_sequence_step(s, tokens[600 + i], NULL), MQ_OK);
    }
    check_logits(s, expected);
    assert_int_equal(mq_sequence_truncate(s, 511), 256);
    assert_int_equal(mq_sequence_truncate(s, 255), 0);
    stats = sync_to(s, tokens, 600);
    assert_int_equal(stats.cached, 0);
    /* a prompt that differs */
    int32_t other[TOKENS];
    memcpy(other, tokens, sizeof other);
    other[400] ^= 1;
    float *of_other = fresh_logits(engine, other, 600, 0);
    stats = sync_to(s, other, 600);
    assert_int_equal(stats.cached, 256);
    check_logits(s, of_other);
    mq_sequence_free(s);
    free(of_other);
    free(expected);
    mq_engine_close(engine);
}

static void test_fork(void **state)
{
    (void)state;
    mq_engine *engine = open_with((settings){.prefill = MQ_LINEAR_NVFP4});
    float *expected = fresh_logits(engine, tokens, 500, 30);
    mq_sequence *s = new_sequence(engine), *fork, *lower;
    (void)sync_to(s, tokens, 500);
    assert_int_equal(mq_sequence_fork(s, 500, &fork, NULL), MQ_OK);
    assert_int_equal(mq_sequence_fork(s, 300, &lower, NULL), MQ_OK);
    assert_int_equal(held(fork), 500);
    assert_int_equal(held(lower), 256);
    for (uint32_t i = 0; i < 30; i++) { /* the first one goes elsewhere meanwhile */
        assert_int_equal(mq_sequence_step(s, tokens[i], NULL), MQ_OK);
        assert_int_equal(mq_sequence_step(fork, tokens[500 + i], NULL), MQ_OK);
    }
    check_logits(fork, expected);
    mq_sequence_free(s);
    assert_int_equal(sync_to(lower, tokens, 500).cached, 256);
    for (uint32_t i = 0; i < 30; i++) {
        assert_int_equal(mq_sequence_step(lower, tokens[500 + i], NULL), MQ_OK);
    }
    check_logits(lower, expected);
    mq_sequence_free(fork);
    mq_sequence_free(lower);
    mq_engine_close(engine);
    free(expected);
}

/* A trajectory whose thoughts are left out of the next prompt: of each turn no more is read again than an interval. */
static void test_turns(void **state)
{
    (void)state;
    enum { TURNS = 20, NEW = 30, THOUGHT = 9 };
    mq_engine *engine = open_with((settings){.prefill = MQ_LINEAR_NVFP4});
    mq_sequence *s = new_sequence(engine);
    uint32_t count = 60;
    for (uint32_t turn = 0; turn < TURNS; turn++) {
        const mq_sync_stats stats = sync_to(s, tokens, count);
        if (turn) assert_true(stats.prefilled <= NEW + engine->state_interval);
        float *expected = fresh_logits(engine, tokens, count, 0);
        check_logits(s, expected);
        free(expected);
        for (uint32_t i = 0; i < THOUGHT; i++) { /* is not part of the next prompt */
            assert_int_equal(mq_sequence_step(s, 249 - (int32_t)i, NULL), MQ_OK);
        }
        count += NEW;
    }
    mq_sequence_free(s);
    mq_engine_close(engine);
}

/* With room for one snapshot they are lost to each other all the time, and nothing is wrong. */
static void test_few_snapshots(void **state)
{
    (void)state;
    mq_engine *engine = open_with((settings){.state_bytes = 1});
    float *expected = fresh_logits(engine, tokens, 640, 0);
    mq_sequence *a = new_sequence(engine), *b = new_sequence(engine);
    for (uint32_t i = 0; i < 3; i++) {
        (void)sync_to(a, tokens, 640);
        check_logits(a, expected);
        (void)sync_to(b, tokens, 640);
        check_logits(b, expected);
        assert_true(mq__kv_states_held(engine->kv) <= 1);
        (void)mq_sequence_truncate(a, 600);
        (void)mq_sequence_truncate(b, 300);
    }
    mq_sequence_free(a);
    mq_sequence_free(b);
    assert_int_equal(mq__kv_states_held(engine->kv), 0);
    free(expected);
    mq_engine_close(engine);
}

/* However many turns end in a prompt, the regular snapshots stay. */
static void test_many_turns(void **state)
{
    (void)state;
    mq_engine *engine = open_with((settings){.sequences = 1, .chunk = 512});
    int32_t prompt[TOKENS];
    for (uint32_t i = 0; i < TOKENS; i++) {
        prompt[i] = i % 20 == 19 ? engine->weights->eos[0] : tokens[i];
    }
    mq_sequence *s = new_sequence(engine);
    (void)sync_to(s, prompt, TOKENS);
    assert_int_equal(mq__kv_states_held(engine->kv), 2 + 6); /* of 10 blocks */
    assert_int_equal(mq_sequence_truncate(s, 300), 256);
    assert_int_equal(mq_sequence_truncate(s, 255), 192);
    assert_int_equal(mq_sequence_truncate(s, 191), 0); /* turns that ended longest ago have lost theirs */
    mq_sequence_free(s);
    mq_engine_close(engine);
}

/* Wherever passes begin, a turn's last whole block has one; and each is the state of its tokens. */
static void test_turn_ends_and_passes(void **state)
{
    (void)state;
    static const uint32_t chunks[] = {64, 128, 192, 512};
    for (size_t c = 0; c < sizeof chunks / sizeof *chunks; c++) {
        mq_engine *engine = open_with((settings){.chunk = chunks[c]});
        int32_t prompt[TOKENS];
        memcpy(prompt, tokens, sizeof prompt);
        mq_sequence *s = new_sequence(engine);
        for (uint32_t end = 130; end < 600; end += 97) {
            prompt[end] = engine->weights->eos[0];
        }
        (void)sync_to(s, prompt, TOKENS);
        for (uint32_t end = 130 + 4 * 97; end >= 130; end -= 97) {
            const uint32_t whole = (end + 1) / MQ_PAGE_TOKENS * MQ_PAGE_TOKENS;
            assert_int_equal(mq_sequence_truncate(s, end + 1), whole);
            (void)sync_to(s, prompt, end + 40);
            float *expected = fresh_logits(engine, prompt, end + 40, 0);
            check_logits(s, expected);
            free(expected);
            (void)mq_sequence_truncate(s, whole);
        }
        mq_sequence_free(s);
        mq_engine_close(engine);
    }
}

/* Of an answer only the last whole block has one, beside the regular ones. */
static void test_answer(void **state)
{
    (void)state;
    mq_engine *engine = open_with((settings){.chunk = 128});
    mq_sequence *s = new_sequence(engine);
    (void)sync_to(s, tokens, 70);
    for (uint32_t i = 70; i < 340; i++) {
        assert_int_equal(mq_sequence_step(s, tokens[i], NULL), MQ_OK);
        const bool regular = i + 1 >= 256, own = i + 1 >= 128 && (i + 1) / 64 != 4;
        assert_int_equal(mq__kv_states_held(engine->kv), 1u + regular + own);
    }
    assert_int_equal(mq_sequence_truncate(s, 339), 320);
    float *expected = fresh_logits(engine, tokens, 70, 260);
    for (uint32_t i = 320; i < 330; i++) {
        assert_int_equal(mq_sequence_step(s, tokens[i], NULL), MQ_OK);
    }
    check_logits(s, expected);
    free(expected);
    mq_sequence_free(s);
    mq_engine_close(engine);
}

/* ---- cancelled in the middle of a pass: the layers before have gone through the rows already */

static void cancel_at_layer(void *context, uint32_t layer, mq_linear_group group, const float *rows, uint32_t count,
                            uint32_t width)
{
    (void)rows;
    (void)count;
    (void)width;
    if (layer == 1 && group == MQ_GROUP_DOWN) mq_sequence_cancel(context);
}

static void test_cancel(void **state)
{
    (void)state;
    mq_engine *engine = open_with((settings){.prefill = MQ_LINEAR_NVFP4});
    float *expected = fresh_logits(engine, tokens, 500, 3);
    mq_sequence *s = new_sequence(engine);
    (void)sync_to(s, tokens, 200);
    assert_int_equal(mq_sequence_truncate(s, 199), 192);
    const mq_observer observer = {.linear = cancel_at_layer, .context = s};
    mq_engine_observe(engine, &observer);
    assert_int_equal(mq_sequence_sync(s, tokens, 500, NULL, NULL, NULL), MQ_CANCELLED);
    mq_engine_observe(engine, NULL);
    assert_int_equal(held(s), 192);
    (void)sync_to(s, tokens, 500);
    mq_engine_observe(engine, &observer);
    assert_int_equal(mq_sequence_step(s, tokens[500], NULL), MQ_CANCELLED);
    mq_engine_observe(engine, NULL);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(mq_sequence_step(s, tokens[500 + i], NULL), MQ_OK);
    }
    check_logits(s, expected);
    mq_sequence_free(s);
    mq_engine_close(engine);
    free(expected);
}

/* ---- plans and refusals */

static void test_plans(void **state)
{
    (void)state;
    mq_engine *engine = open_with((settings){.prefill = MQ_LINEAR_NVFP4});
    const mq_plan *plan;
    uint8_t(*format)[MQ_GROUPS] = engine->plan->phase[MQ_PHASE_PREFILL].format;
    for (uint32_t l = 0; l < 4; l++) {
        const bool attends = engine->weights->config.layer[l].mixer == MQ_MIXER_ATTENTION;
        assert_int_equal(attends, l % 2 == 1);
        assert_int_equal(format[l][MQ_GROUP_QKV], attends ? MQ_LINEAR_NVFP4 : MQ_LINEAR_BF16);
        assert_int_equal(format[l][MQ_GROUP_O], attends ? MQ_LINEAR_NVFP4 : MQ_LINEAR_BF16);
        assert_int_equal(format[l][MQ_GROUP_DOWN], MQ_LINEAR_NVFP4);
    }
    unit_puts("plan.json", "{\"layers\": [{\"layers\": \"0-3\", \"linears\": [\"delta_in\"], \"prefill\": \"nvfp4\"},"
                           "{\"layers\": \"0-3\", \"linears\": [\"qkv\"], \"prefill\": \"int8\"}]}");
    const mq_plan_options options = {
        .prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16, .file = unit_path("plan.json")};
    assert_int_equal(mq_engine_plan(engine, &options, &plan, NULL), MQ_OK);
    format = plan->phase[MQ_PHASE_PREFILL].format;
    assert_int_equal(format[0][MQ_GROUP_QKV], MQ_LINEAR_NVFP4);
    assert_int_equal(format[0][MQ_GROUP_O], MQ_LINEAR_BF16);
    assert_int_equal(format[1][MQ_GROUP_QKV], MQ_LINEAR_INT8);
    mq_engine_close(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_split),
        cmocka_unit_test(test_state_is_of_tokens_only),
        cmocka_unit_test(test_batch_mates),
        cmocka_unit_test(test_truncate_lands_at_snapshot),
        cmocka_unit_test(test_fork),
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_few_snapshots),
        cmocka_unit_test(test_many_turns),
        cmocka_unit_test(test_turn_ends_and_passes),
        cmocka_unit_test(test_answer),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test_setup_teardown(test_plans, unit_setup, unit_teardown),
    };
    return cmocka_run_group_tests(tests, make_models, forget_models);
}
