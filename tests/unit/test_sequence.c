/* Sessions on a small random model: reuse, extension and rebuilding give the bits of a fresh run; batches do not mix;
 * the token loop does not allocate; every allocation of opening may fail. */
#define TOKENS 150
#include "unit_model.h"

#include "base/cpu.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "kernels/kernels.h"

static mq_engine *open_engine(mq_linear_format prefill, mq_linear_format decode, uint32_t sessions)
{
    mq_engine *engine;
    mq_error error = {0};
    const mq_engine_options options = {.model_dir = model,
                                       .plan = {.prefill = prefill, .decode = decode},
                                       .threads = 3,
                                       .context = 256,
                                       .chunk = 32,
                                       .sequences = sessions,
                                       .no_cache = true};
    if (mq_engine_open(&options, &engine, &error) != MQ_OK) fail_msg("%s", error.text);
    return engine;
}

static size_t logits_bytes(const mq_engine *engine)
{
    mq_engine_info info;
    mq_engine_describe(engine, &info);
    return info.vocab * sizeof(float);
}

/* The logits after `count` tokens in a new session; owned. */
static float *fresh_logits(mq_engine *engine, const int32_t *prompt, uint32_t count)
{
    mq_sequence *session;
    assert_int_equal(mq_sequence_new(engine, &session, NULL), MQ_OK);
    assert_int_equal(mq_sequence_sync(session, prompt, count, NULL, NULL, NULL), MQ_OK);
    float *copy = malloc(logits_bytes(engine));
    assert_non_null(copy);
    memcpy(copy, mq_sequence_logits(session), logits_bytes(engine));
    mq_sequence_free(session);
    return copy;
}

/* The last tokens of a prompt in the decode plan: they are precise, and have the bits of decode steps. */
static void test_precise_end(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(MQ_LINEAR_NVFP4, MQ_LINEAR_BF16, 2);
    mq_sequence *session, *steps;
    mq_sync_stats stats;
    assert_int_equal(mq_sequence_new(engine, &session, NULL), MQ_OK);
    assert_int_equal(mq_sequence_new(engine, &steps, NULL), MQ_OK);
    static const uint32_t ends[] = {0, 1, 16, 100, TOKENS, 5 * TOKENS};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        const uint32_t asked = ends[i] ? ends[i] : 1, end = asked < TOKENS ? asked : TOKENS;
        const mq_sync_options options = {.precise = ends[i]};
        mq_sequence_truncate(session, 0);
        mq_sequence_truncate(steps, 0);
        assert_int_equal(mq_sequence_sync(session, tokens, TOKENS, &options, &stats, NULL), MQ_OK);
        assert_int_equal(stats.prefilled, TOKENS - end);
        for (uint32_t at = 0; at < TOKENS; at++) {
            assert_int_equal(mq_sequence_is_precise(session, at), at >= TOKENS - end);
        }
        const uint32_t begin = TOKENS - end < TOKENS - 1 ? TOKENS - end + 1 : TOKENS;
        assert_int_equal(mq_sequence_sync(steps, tokens, begin, NULL, NULL, NULL), MQ_OK);
        for (uint32_t at = begin; at < TOKENS; at++) {
            assert_int_equal(mq_sequence_step(steps, tokens[at], NULL), MQ_OK);
        }
        assert_memory_equal(mq_sequence_logits(session), mq_sequence_logits(steps), logits_bytes(engine));
        /* The same prompt again: what it holds is kept, as it is. */
        assert_int_equal(mq_sequence_sync(session, tokens, TOKENS, &options, &stats, NULL), MQ_OK);
        assert_int_equal(stats.cached, TOKENS - 1);
        assert_int_equal(stats.prefilled, 0);
        assert_memory_equal(mq_sequence_logits(session), mq_sequence_logits(steps), logits_bytes(engine));
    }
    mq_sequence_free(session);
    mq_sequence_free(steps);
    mq_engine_close(engine);
}

static void test_extend_truncate_rebuild(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(MQ_LINEAR_NVFP4, MQ_LINEAR_BF16, 2);
    float *expected = fresh_logits(engine, tokens, TOKENS);
    mq_sequence *session;
    mq_sync_stats stats;
    assert_int_equal(mq_sequence_new(engine, &session, NULL), MQ_OK);

    /* Extension after forgetting the precise last token. */
    assert_int_equal(mq_sequence_sync(session, tokens, 70, NULL, &stats, NULL), MQ_OK);
    assert_int_equal(stats.prefilled, 69);
    mq_sequence_truncate(session, 69);
    assert_null(mq_sequence_logits(session));
    assert_int_equal(mq_sequence_sync(session, tokens, TOKENS, NULL, &stats, NULL), MQ_OK);
    assert_int_equal(stats.cached, 69);
    assert_int_equal(stats.prefilled, TOKENS - 70);
    assert_memory_equal(mq_sequence_logits(session), expected, logits_bytes(engine));

    /* The same prompt again: only the last token runs. */
    assert_int_equal(mq_sequence_sync(session, tokens, TOKENS, NULL, &stats, NULL), MQ_OK);
    assert_int_equal(stats.cached, TOKENS - 1);
    assert_memory_equal(mq_sequence_logits(session), expected, logits_bytes(engine));

    /* A prompt that differs in the middle, then back. */
    int32_t other[TOKENS];
    memcpy(other, tokens, sizeof other);
    other[40] ^= 1;
    assert_int_equal(mq_sequence_sync(session, other, TOKENS, NULL, &stats, NULL), MQ_OK);
    assert_int_equal(stats.cached, 40);
    assert_memory_not_equal(mq_sequence_logits(session), expected, logits_bytes(engine));
    assert_int_equal(mq_sequence_sync(session, tokens, TOKENS, NULL, &stats, NULL), MQ_OK);
    assert_int_equal(stats.cached, 40);
    assert_memory_equal(mq_sequence_logits(session), expected, logits_bytes(engine));

    /* Another plan makes other KV: nothing is reused. */
    const mq_plan_options plan = {.prefill = MQ_LINEAR_BF16, .decode = MQ_LINEAR_BF16};
    assert_int_equal(mq_engine_set_plan(engine, &plan, NULL), MQ_OK);
    assert_int_equal(mq_sequence_sync(session, tokens, TOKENS, NULL, &stats, NULL), MQ_OK);
    assert_int_equal(stats.cached, 0);
    assert_memory_not_equal(mq_sequence_logits(session), expected, logits_bytes(engine));
    mq_sequence_free(session);
    mq_engine_close(engine);
    free(expected);
}

/* Logits after 700 tokens, of which the last attend to three tiles in INT8. */
static float *long_logits(mq_linear_format format, mq_attention_format attention, int threads, uint32_t chunk,
                          size_t *count)
{
    enum { LONG = 700 };
    int32_t prompt[LONG];
    mq_engine *engine;
    mq_error error = {0};
    const mq_engine_options options = {.model_dir = model,
                                       .plan = {.prefill = format, .decode = MQ_LINEAR_BF16, .attention = attention},
                                       .threads = threads,
                                       .context = LONG,
                                       .chunk = chunk,
                                       .sequences = 1,
                                       .no_cache = true};
    for (size_t i = 0; i < LONG; i++) {
        prompt[i] = tokens[i * 7 % TOKENS];
    }
    if (mq_engine_open(&options, &engine, &error) != MQ_OK) fail_msg("%s", error.text);
    float *logits = fresh_logits(engine, prompt, LONG);
    *count = logits_bytes(engine) / sizeof(float);
    mq_engine_close(engine);
    return logits;
}

#ifndef UNIT_BF16_BOUND
#define UNIT_BF16_BOUND 2e-3 /* of attention whose products are in BF16 */
#endif
#ifndef UNIT_INT8_SLOT
#define UNIT_INT8_SLOT attention_prefill_int8
#endif

/* Another arithmetic of attention is near FP32's, is not FP32's where the level has it, and does not see chunks or threads. */
static void check_attention(mq_attention_format format, double bound, bool own)
{
    size_t count;
    float *exact = long_logits(MQ_LINEAR_BF16, MQ_ATTENTION_BF16, 2, 512, &count);
    float *close = long_logits(MQ_LINEAR_BF16, format, 2, 512, &count);
    float *again = long_logits(MQ_LINEAR_BF16, format, 3, 96, &count);
    double error = 0, size = 0;
    for (size_t i = 0; i < count; i++) {
        error += (double)(close[i] - exact[i]) * (double)(close[i] - exact[i]);
        size += (double)exact[i] * (double)exact[i];
    }
    print_message("%s attention: relative error %.2e\n", mq_attention_format_name(format), sqrt(error / size));
    assert_true(error <= bound * bound * size);
    assert_memory_equal(close, again, count * sizeof(float));
    assert_true(own == (error > 0));
    free(exact);
    free(close);
    free(again);
}

static void test_attention_formats(void **state)
{
    (void)state;
    mq_isa isa;
    assert_int_equal(mq__cpu_choose_isa(&isa, NULL), MQ_OK);
    const mq_kernels *table = mq__kernels_get(isa);
    /* 2%, of keys and values that have no structure to speak of */
    check_attention(MQ_ATTENTION_INT8, 2e-2, table->UNIT_INT8_SLOT != table->attention_prefill);
    check_attention(MQ_ATTENTION_W16A16, UNIT_BF16_BOUND, table->attention_prefill_bf16 != table->attention_prefill);
}

/* Weights that were copied near their threads are the same weights, in every face. */
static void test_placement_changes_nothing(void **state)
{
    (void)state;
    static const mq_linear_format formats[] = {MQ_LINEAR_BF16, MQ_LINEAR_NVFP4, MQ_LINEAR_INT8};
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        mq_engine_options options = {.model_dir = model,
                                     .plan = {.prefill = formats[i], .decode = formats[i]},
                                     .threads = 3,
                                     .sequences = 1,
                                     .no_cache = true};
        float *logits[2];
        size_t bytes = 0;
        for (int copy = 0; copy < 2; copy++) {
            mq_engine *engine;
            options.placement = copy ? MQ_PLACEMENT_COPY : MQ_PLACEMENT_MAP;
            assert_int_equal(mq_engine_open(&options, &engine, NULL), MQ_OK);
            assert_true((engine->weights->face[mq__face_of(formats[i])].placed != NULL) == (copy == 1));
            logits[copy] = fresh_logits(engine, tokens, TOKENS);
            bytes = logits_bytes(engine);
            mq_engine_close(engine);
        }
        assert_memory_equal(logits[0], logits[1], bytes);
        free(logits[0]);
        free(logits[1]);
    }
    mq_placement placement;
    assert_int_equal(mq_placement_parse("on", &placement, NULL), MQ_OK);
    assert_int_equal(placement, MQ_PLACEMENT_COPY);
    assert_int_equal(mq_placement_parse("node0", &placement, NULL), MQ_USAGE);
}

/* Experts move, or stay while the others do, and what is memory already stays; the answers are the same. */
static void test_settling_of_experts(void **state)
{
    (void)state;
    char *dir;
    assert_int_equal(mq_synth_cached("tiny-qwen3-moe", 0, NULL, &dir, NULL), MQ_OK);
    const mq_engine_options options = {.model_dir = dir,
                                       .plan = {.prefill = MQ_LINEAR_BF16, .decode = MQ_LINEAR_BF16},
                                       .threads = 2,
                                       .sequences = 1,
                                       .no_cache = true};
    for (int experts = 0; experts < 2; experts++) {
        mq_engine *engine;
        assert_int_equal(mq_engine_open(&options, &engine, NULL), MQ_OK);
        mq_weights *w = engine->weights;
        const void *head = w->model.head.dense.data, *expert = w->experts[0].down.dense.data;
        const void *owned = w->module[0].linear->dense.data;
        w->module[0].is_fp8 = true; /* as if multiplied out */
        const size_t bytes = logits_bytes(engine);
        float *before = fresh_logits(engine, tokens, TOKENS);
        const uint64_t all = mq__weights_settle_bytes(w, MQ_FACE_DENSE, true);
        assert_true(mq__weights_settle_bytes(w, MQ_FACE_DENSE, false) < all);
        mq__weights_settle_begin(w, MQ_FACE_DENSE, experts);
        assert_int_equal(mq__weights_settle_bytes(w, MQ_FACE_DENSE, true), 0); /* it has begun */
        assert_false(mq__weights_settle(w, MQ_FACE_DENSE, engine->pool, SIZE_MAX));
        assert_ptr_not_equal(w->model.head.dense.data, head);
        assert_int_equal(w->experts[0].down.dense.data != expert, experts);
        assert_ptr_equal(w->module[0].linear->dense.data, owned);
        float *after = fresh_logits(engine, tokens, TOKENS);
        assert_memory_equal(before, after, bytes);
        free(after);
        free(before);
        mq_engine_close(engine);
    }
    mq_free(dir);
}

/* Weights in the middle of their move to large pages, and after it, are the same weights. */
static void test_settling_changes_nothing(void **state)
{
    (void)state;
    static const mq_linear_format formats[] = {MQ_LINEAR_BF16, MQ_LINEAR_INT8};
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        assert_int_equal(unit_setup(NULL), 0);
        mq_engine_options options = {.model_dir = model,
                                     .plan = {.prefill = formats[i], .decode = formats[i]},
                                     .threads = 3,
                                     .sequences = 1,
                                     .cache_dir = unit_dir};
        const mq_face face = mq__face_of(formats[i]);
        mq_engine *engine;
        assert_int_equal(mq_engine_open(&options, &engine, NULL), MQ_OK); /* writes the cache */
        mq_engine_close(engine);
        assert_int_equal(mq_engine_open(&options, &engine, NULL), MQ_OK); /* maps it */
        mq_weights *w = engine->weights;
        const void *mapped = face == MQ_FACE_DENSE ? w->model.head.dense.data : w->module[3].linear->int8.panels;
        const size_t bytes = logits_bytes(engine);
        float *before = fresh_logits(engine, tokens, TOKENS);
        mq__weights_settle_begin(w, face, true); /* the engine itself leaves so small a model where it is */
        int slices = 0;
        for (bool more = true; more; slices++) {
            more = mq__weights_settle(w, face, engine->pool, 10007);
            if (slices % 7 == 0 || !more) {
                float *now = fresh_logits(engine, tokens, TOKENS);
                assert_memory_equal(before, now, bytes);
                free(now);
            }
        }
        assert_true(slices > 7);
        assert_false(mq__weights_settle(w, face, engine->pool, SIZE_MAX));
        const void *now = face == MQ_FACE_DENSE ? w->model.head.dense.data : w->module[3].linear->int8.panels;
        assert_ptr_not_equal(mapped, now);
        mq_engine_close(engine);
        free(before);
        (void)unit_teardown(NULL);
    }
}

/* 16 threads have more hands than the narrow layers have panels: rows are cut, too. */
static void test_threads_change_nothing(void **state)
{
    (void)state;
    static const mq_linear_format formats[] = {MQ_LINEAR_BF16, MQ_LINEAR_W16A16, MQ_LINEAR_NVFP4, MQ_LINEAR_W4A16,
                                               MQ_LINEAR_INT8};
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        size_t count;
        float *one = long_logits(formats[i], MQ_ATTENTION_BF16, 1, 512, &count);
        float *many = long_logits(formats[i], MQ_ATTENTION_BF16, 16, 512, &count);
        assert_memory_equal(one, many, count * sizeof(float));
        free(one);
        free(many);
    }
}

static void test_first_token_is_precise(void **state)
{
    (void)state;
    /* One token has nothing to prefill: Mix-Quant is then the BF16 model, uniform NVFP4 is not. */
    mq_engine *mix = open_engine(MQ_LINEAR_NVFP4, MQ_LINEAR_BF16, 1),
              *bf16 = open_engine(MQ_LINEAR_BF16, MQ_LINEAR_BF16, 1);
    mq_engine *uniform = open_engine(MQ_LINEAR_NVFP4, MQ_LINEAR_NVFP4, 1);
    float *a = fresh_logits(mix, tokens, 1), *b = fresh_logits(bf16, tokens, 1), *c = fresh_logits(uniform, tokens, 1);
    assert_memory_equal(a, b, logits_bytes(mix));
    assert_memory_not_equal(a, c, logits_bytes(mix));
    free(a);
    free(b);
    free(c);
    mq_engine_close(mix);
    mq_engine_close(bf16);
    mq_engine_close(uniform);
}

/* One decode row of each. */
static void step_batch(mq_engine *engine, mq_sequence *const *batch, const int32_t *next, uint32_t count)
{
    mq_rows rows[8];
    for (uint32_t i = 0; i < count; i++) {
        rows[i] =
            (mq_rows){.sequence = batch[i], .tokens = &next[i], .count = 1, .phase = MQ_PHASE_DECODE, .logits = 1};
    }
    assert_int_equal(mq_engine_step(engine, rows, count, NULL), MQ_OK);
}

static void test_batch_equals_single(void **state)
{
    (void)state;
    const mq_linear_format decodes[] = {MQ_LINEAR_BF16, MQ_LINEAR_NVFP4, MQ_LINEAR_W4A16};
    for (size_t d = 0; d < 3; d++) {
        mq_engine *engine = open_engine(MQ_LINEAR_NVFP4, decodes[d], 6);
        mq_sequence *batch[3], *single[3];
        const int32_t next[3] = {tokens[5], tokens[6], tokens[7]};
        for (uint32_t i = 0; i < 3; i++) {
            assert_int_equal(mq_sequence_new(engine, &batch[i], NULL), MQ_OK);
            assert_int_equal(mq_sequence_new(engine, &single[i], NULL), MQ_OK);
            assert_int_equal(mq_sequence_sync(batch[i], tokens + i, 20 + 50 * i, NULL, NULL, NULL), MQ_OK);
            assert_int_equal(mq_sequence_sync(single[i], tokens + i, 20 + 50 * i, NULL, NULL, NULL), MQ_OK);
        }
        for (int step = 0; step < 3; step++) {
            step_batch(engine, batch, next, 3);
            for (uint32_t i = 0; i < 3; i++) {
                assert_int_equal(mq_sequence_step(single[i], next[i], NULL), MQ_OK);
                assert_memory_equal(mq_sequence_logits(batch[i]), mq_sequence_logits(single[i]), logits_bytes(engine));
            }
        }
        for (uint32_t i = 0; i < 3; i++) {
            mq_sequence_free(batch[i]);
            mq_sequence_free(single[i]);
        }
        mq_engine_close(engine);
    }
}

static bool cancel_after_two(void *context, uint32_t done, uint32_t total)
{
    (void)done;
    (void)total;
    return ++*(int *)context < 2;
}

static void test_cancel_keeps_what_is_done(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(MQ_LINEAR_NVFP4, MQ_LINEAR_BF16, 2);
    float *expected = fresh_logits(engine, tokens, TOKENS);
    mq_sequence *session;
    int calls = 0;
    uint32_t held;
    mq_error error = {0};
    mq_sync_stats stats;
    const mq_sync_options options = {.progress = cancel_after_two, .context = &calls};
    assert_int_equal(mq_sequence_new(engine, &session, NULL), MQ_OK);
    assert_int_equal(mq_sequence_sync(session, tokens, TOKENS, &options, NULL, &error), MQ_CANCELLED);
    (void)mq_sequence_tokens(session, &held);
    assert_int_equal(held, 64);
    assert_int_equal(mq_sequence_sync(session, tokens, TOKENS, NULL, &stats, NULL), MQ_OK);
    assert_int_equal(stats.cached, 64);
    assert_memory_equal(mq_sequence_logits(session), expected, logits_bytes(engine));
    mq_sequence_free(session);
    mq_engine_close(engine);
    free(expected);
}

static void test_refusals(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(MQ_LINEAR_NVFP4, MQ_LINEAR_BF16, 1);
    mq_sequence *session, *second;
    mq_error error = {0};
    int32_t many[257] = {0}, bad[2] = {1, 1 << 28};
    assert_int_equal(mq_sequence_new(engine, &session, NULL), MQ_OK);
    assert_int_equal(mq_sequence_sync(session, many, 257, NULL, NULL, &error), MQ_LIMIT);
    assert_int_equal(mq_sequence_sync(session, bad, 2, NULL, NULL, &error), MQ_USAGE);
    assert_non_null(strstr(error.text, "token 1"));
    bad[1] = -1;
    assert_int_equal(mq_sequence_sync(session, bad, 2, NULL, NULL, &error), MQ_USAGE);
    assert_int_equal(mq_sequence_sync(session, many, 0, NULL, NULL, &error), MQ_USAGE);
    assert_int_equal(mq_sequence_sync(session, many, 256, NULL, NULL, &error), MQ_OK);
    assert_int_equal(mq_sequence_step(session, 1, &error), MQ_LIMIT);
    /* The pool holds one full session: a second one finds no page, and the first is unharmed. */
    assert_int_equal(mq_sequence_new(engine, &second, NULL), MQ_OK);
    assert_int_equal(mq_sequence_sync(second, many, 10, NULL, NULL, &error), MQ_LIMIT);
    assert_non_null(mq_sequence_logits(session));
    mq_sequence_free(session);
    assert_int_equal(mq_sequence_sync(second, many, 10, NULL, NULL, &error), MQ_OK);
    mq_sequence_free(second);
    mq_engine_close(engine);
}

static void test_token_loop_does_not_allocate(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(MQ_LINEAR_NVFP4, MQ_LINEAR_BF16, 1);
    mq_sequence *session;
    assert_int_equal(mq_sequence_new(engine, &session, NULL), MQ_OK);
    mq__alloc_guard_begin();
    assert_int_equal(mq_sequence_sync(session, tokens, 100, NULL, NULL, NULL), MQ_OK);
    for (int i = 0; i < 50; i++) { /* crosses a page */
        assert_int_equal(mq_sequence_step(session, tokens[i], NULL), MQ_OK);
    }
    assert_int_equal(mq__alloc_guard_end(), 0);
    mq_sequence_free(session);
    mq_engine_close(engine);
}

static void test_open_survives_allocation_failures(void **state)
{
    (void)state;
    const mq_engine_options options = {.model_dir = model,
                                       .plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16},
                                       .threads = 2,
                                       .context = 64,
                                       .no_cache = true};
    unsigned long n = 1, refused = 0;
    for (bool hit = true; hit; n++) {
        mq_engine *engine;
        mq_error error = {0};
        (void)mq__alloc_fail_at(n);
        const mq_status status = mq_engine_open(&options, &engine, &error);
        hit = mq__alloc_fail_at(0) >= n; /* else there are fewer than n allocations */
        /* A few failures are survived: without memory for its path there is no cache. */
        assert_true(status == MQ_OK || (status == MQ_NO_MEMORY && !engine && hit));
        refused += status != MQ_OK;
        mq_engine_close(engine);
    }
    assert_true(refused > 30); /* the sweep really hit opening */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_precise_end),
        cmocka_unit_test(test_extend_truncate_rebuild),
        cmocka_unit_test(test_attention_formats),
        cmocka_unit_test(test_placement_changes_nothing),
        cmocka_unit_test(test_settling_changes_nothing),
        cmocka_unit_test(test_settling_of_experts),
        cmocka_unit_test(test_threads_change_nothing),
        cmocka_unit_test(test_first_token_is_precise),
        cmocka_unit_test(test_batch_equals_single),
        cmocka_unit_test(test_cancel_keeps_what_is_done),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_token_loop_does_not_allocate),
        cmocka_unit_test(test_open_survives_allocation_failures),
    };
    return cmocka_run_group_tests(tests, make_model, forget_model);
}
