/* KV images: what goes out comes back and generates the same; damaged, foreign, cut and misplaced images are refused and leave
 * the sequence and the pool as they were. */
#include "unit_files.h"
#include "unit_image.h"

#include "base/buf.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "format/kvimage.h"

#define TOKENS 300

static char *model;
static int32_t tokens[TOKENS];

static mq_engine *open_context(const char *dir, mq_linear_format prefill, mq_scale_rule scales, uint32_t context)
{
    mq_engine *engine;
    mq_error error = {0};
    const mq_engine_options options = {.model_dir = dir,
                                       .plan = {.prefill = prefill, .decode = MQ_LINEAR_BF16},
                                       .scales = scales,
                                       .threads = 2,
                                       .context = context,
                                       .chunk = 64,
                                       .sequences = 3,
                                       .no_cache = true};
    if (mq_engine_open(&options, &engine, &error) != MQ_OK) fail_msg("%s", error.text);
    return engine;
}

static mq_engine *open_engine(const char *dir, mq_linear_format prefill, mq_scale_rule scales)
{
    return open_context(dir, prefill, scales, TOKENS);
}

static mq_sequence *filled(mq_engine *engine, uint32_t count)
{
    mq_sequence *sequence;
    assert_int_equal(mq_sequence_new(engine, &sequence, NULL), MQ_OK);
    if (count) assert_int_equal(mq_sequence_sync(sequence, tokens, count, NULL, NULL, NULL), MQ_OK);
    return sequence;
}

static uint32_t held(const mq_sequence *sequence)
{
    uint32_t count;
    (void)mq_sequence_tokens(sequence, &count);
    return count;
}

/* Import, then go on: the same logits as without the detour, whatever the ends of the ranges are. */
static void test_export_import_go_on(void **state)
{
    (void)state;
    static const uint32_t cuts[][2] = {{200, 200}, {64, 200}, {128, 256}, {1, 2}, {63, 65}, {100, 101}, {130, 192}};
    mq_engine *engine = open_engine(model, MQ_LINEAR_NVFP4, MQ_SCALES_RTN),
              *other = open_engine(model, MQ_LINEAR_NVFP4, MQ_SCALES_RTN);
    const size_t bytes = engine->weights->model.vocab * sizeof(float);
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        const uint32_t cut = cuts[i][0], count = cuts[i][1];
        mq_sequence *from = filled(engine, count), *to = filled(other, 0);
        mq_buf first = export_range(from, 0, cut), second = {0};
        mq_error error = {0};
        if (import_bytes(to, first.data, first.len, &error) != MQ_OK) fail_msg("%s", error.text);
        if (cut < count) {
            second = export_range(from, cut, count - cut);
            if (import_bytes(to, second.data, second.len, &error) != MQ_OK) fail_msg("%s", error.text);
        }
        assert_int_equal(held(to), count);
        assert_null(mq_sequence_logits(to));
        for (uint32_t t = 0; t < count; t++) {
            assert_true(mq_sequence_is_precise(from, t) == mq_sequence_is_precise(to, t));
        }
        for (int step = 0; step < 3; step++) {
            assert_int_equal(mq_sequence_step(from, tokens[step], NULL), MQ_OK);
            assert_int_equal(mq_sequence_step(to, tokens[step], NULL), MQ_OK);
            assert_memory_equal(mq_sequence_logits(from), mq_sequence_logits(to), bytes);
        }
        mq_buf again = export_range(to, 0, cut);
        assert_int_equal(again.len, first.len);
        assert_memory_equal(again.data, first.data, first.len);
        mq__buf_free(&again);
        mq__buf_free(&first);
        mq__buf_free(&second);
        mq_sequence_free(from);
        mq_sequence_free(to);
    }
    mq_engine_close(engine);
    mq_engine_close(other);
}

/* Chunks name their places, so their order does not matter; none may come twice. */
static void test_chunks_in_any_order(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(model, MQ_LINEAR_NVFP4, MQ_SCALES_RTN);
    const size_t bytes = engine->weights->model.vocab * sizeof(float);
    mq_sequence *from = filled(engine, 128), *to = filled(engine, 0);
    mq_buf image = export_range(from, 0, 128), mixed = {0};
    size_t head;
    assert_int_equal(mq__kvimage_head_bytes((const uint8_t *)image.data, TOKENS, &head, NULL), MQ_OK);
    const size_t count = 2 * engine->kv_layout.layers, chunk = (image.len - head) / count;
    mq__buf_append(&mixed, image.data, head);
    for (size_t i = count; i-- > 0;) {
        mq__buf_append(&mixed, image.data + head + i * chunk, chunk);
    }
    assert_int_equal(import_bytes(to, mixed.data, mixed.len, NULL), MQ_OK);
    assert_int_equal(mq_sequence_step(from, 5, NULL), MQ_OK);
    assert_int_equal(mq_sequence_step(to, 5, NULL), MQ_OK);
    assert_memory_equal(mq_sequence_logits(from), mq_sequence_logits(to), bytes);
    (void)mq_sequence_truncate(to, 0);
    memcpy(mixed.data + head, mixed.data + head + chunk, chunk);
    mq_error error = {0};
    assert_int_equal(import_bytes(to, mixed.data, mixed.len, &error), MQ_FORMAT);
    assert_int_equal(held(to), 0);
    mq__buf_free(&image);
    mq__buf_free(&mixed);
    mq_sequence_free(from);
    mq_sequence_free(to);
    mq_engine_close(engine);
}

static void test_damage_is_refused(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(model, MQ_LINEAR_NVFP4, MQ_SCALES_RTN);
    mq_sequence *from = filled(engine, 70), *to = filled(engine, 0);
    mq_buf image = export_range(from, 0, 70);
    const uint32_t available = mq__kv_available(engine->kv);
    size_t head, refused = 0;
    assert_int_equal(mq__kvimage_head_bytes((const uint8_t *)image.data, TOKENS, &head, NULL), MQ_OK);
    /* Every byte of the header and of a chunk's head, and some of the payloads. */
    for (size_t at = 0; at < image.len; at += at < head + MQ_KVCHUNK_HEAD + 8 ? 1 : 997) {
        for (int bit = 0; bit < 8; bit += 7) {
            mq_error error = {0};
            image.data[at] ^= (char)(1 << bit);
            const mq_status status = import_bytes(to, image.data, image.len, &error);
            image.data[at] ^= (char)(1 << bit);
            if (status == MQ_OK) fail_msg("byte %zu, bit %d: accepted", at, bit);
            assert_true(error.text[0] != 0);
            assert_int_equal(held(to), 0);
            assert_int_equal(mq__kv_available(engine->kv), available);
            refused++;
        }
    }
    assert_true(refused > 500);
    for (size_t length = 0; length < image.len; length += 1 + length / 9) {
        mq_error error = {0};
        assert_int_equal(import_bytes(to, image.data, length, &error), MQ_IO);
        assert_int_equal(mq__kv_available(engine->kv), available);
    }
    assert_int_equal(import_bytes(to, image.data, image.len, NULL), MQ_OK); /* it was in order all the time */
    mq__buf_free(&image);
    mq_sequence_free(from);
    mq_sequence_free(to);
    mq_engine_close(engine);
}

static void expect_foreign(mq_engine *engine, const mq_buf *image, const char *what)
{
    mq_sequence *to = filled(engine, 0);
    mq_error error = {0};
    assert_int_equal(import_bytes(to, image->data, image->len, &error), MQ_UNSUPPORTED);
    if (!strstr(error.text, what)) fail_msg("%s: expected %s", error.text, what);
    assert_int_equal(held(to), 0);
    mq_sequence_free(to);
    mq_engine_close(engine);
}

static void test_foreign_images_are_refused(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(model, MQ_LINEAR_NVFP4, MQ_SCALES_RTN);
    mq_sequence *from = filled(engine, 70);
    mq_buf image = export_range(from, 0, 70);
    const mq_synth_options others = {.shape = "tiny-qwen3", .seed = 2, .out_dir = unit_path("other")};
    assert_int_equal(mq_synth_checkpoint(&others, NULL), MQ_OK);
    expect_foreign(open_engine(unit_path("other"), MQ_LINEAR_NVFP4, MQ_SCALES_RTN), &image, "weights");
    expect_foreign(open_engine(model, MQ_LINEAR_BF16, MQ_SCALES_RTN), &image, "plan");
    expect_foreign(open_engine(model, MQ_LINEAR_NVFP4, MQ_SCALES_FOUR_SIX), &image, "plan");
    /* Another prefix, and a range that does not follow. */
    mq_buf rest = export_range(from, 64, 6);
    mq_error error = {0};
    int32_t prefix[64];
    memcpy(prefix, tokens, sizeof prefix);
    prefix[3] ^= 1;
    mq_sequence *to = filled(engine, 0);
    assert_int_equal(import_bytes(to, rest.data, rest.len, &error), MQ_USAGE);
    assert_int_equal(mq_sequence_sync(to, prefix, 64, NULL, NULL, NULL), MQ_OK);
    assert_int_equal(import_bytes(to, rest.data, rest.len, &error), MQ_UNSUPPORTED);
    assert_non_null(strstr(error.text, "token 3"));
    assert_int_equal(held(to), 64);
    /* A writer that refuses, ranges that are not held. */
    assert_int_equal(mq_sequence_export(from, 0, 71, into_buffer, &rest, &error), MQ_USAGE);
    assert_int_equal(mq_sequence_export(from, 70, 1, into_buffer, &rest, &error), MQ_USAGE);
    assert_int_equal(mq_sequence_export(from, 3, 0, into_buffer, &rest, &error), MQ_USAGE);
    mq_buf small = {.max = 500};
    assert_int_equal(mq_sequence_export(from, 0, 70, into_buffer, &small, &error), MQ_WRITE);
    mq__buf_free(&small);
    mq__buf_free(&rest);
    mq__buf_free(&image);
    mq_sequence_free(to);
    mq_sequence_free(from);
    mq_engine_close(engine);
}

/* INT8 attention has other bits in another way, or with codes of another range: its KV is not taken for this engine's. */
static void test_another_way(void **state)
{
    (void)state;
    mq_engine *engine;
    const mq_engine_options options = {
        .model_dir = model,
        .plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16, .attention = MQ_ATTENTION_INT8},
        .threads = 1,
        .context = TOKENS,
        .sequences = 2,
        .no_cache = true};
    assert_int_equal(mq_engine_open(&options, &engine, NULL), MQ_OK);
    mq_sequence *from = filled(engine, 70), *to = filled(engine, 0);
    mq_buf image = export_range(from, 0, 70);
    const mq_kernels before = engine->tuned;
    const mq_variants *ways = &before.variants[MQ_INT8_ATTENTION];
    for (size_t i = 0; i <= ways->count; i++) {
        mq_error error = {0};
        if (i < ways->count)
            mq__variant_use(&engine->tuned, MQ_INT8_ATTENTION, i);
        else
            engine->tuned.attention_int8_most = before.attention_int8_most == 127 ? 64 : 127;
        const bool is_same = i < ways->count && engine->tuned.attention_prefill_int8 == before.attention_prefill_int8;
        const mq_status status = import_bytes(to, image.data, image.len, &error);
        if (is_same)
            assert_int_equal(status, MQ_OK);
        else
            unit_refused(status, MQ_UNSUPPORTED, &error, "plan");
        assert_int_equal(mq_sequence_truncate(to, 0), MQ_OK);
        engine->tuned = before;
    }
    assert_int_equal(import_bytes(to, image.data, image.len, NULL), MQ_OK);
    mq__buf_free(&image);
    mq_sequence_free(from);
    mq_sequence_free(to);
    mq_engine_close(engine);
}

/* A pool that is full refuses before it reads the chunks. */
static void test_full_pool(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(model, MQ_LINEAR_NVFP4, MQ_SCALES_RTN);
    mq_sequence *from = filled(engine, TOKENS), *a = filled(engine, TOKENS), *to = filled(engine, 0);
    mq_buf image = export_range(from, 0, TOKENS);
    mq_error error = {0};
    mq_sequence *b = filled(engine, 10);
    assert_int_equal(import_bytes(to, image.data, image.len, &error), MQ_LIMIT);
    assert_int_equal(held(to), 0);
    mq_sequence_free(b);
    assert_int_equal(import_bytes(to, image.data, image.len, &error), MQ_OK);
    mq__buf_free(&image);
    mq_sequence_free(a);
    mq_sequence_free(from);
    mq_sequence_free(to);
    mq_engine_close(engine);
}

/* An image of an engine with a longer context is refused before anything is written, unless it ends within this one's. */
static void test_longer_context(void **state)
{
    (void)state;
    mq_engine *longer = open_engine(model, MQ_LINEAR_NVFP4, MQ_SCALES_RTN),
              *engine = open_context(model, MQ_LINEAR_NVFP4, MQ_SCALES_RTN, 128);
    mq_sequence *from = filled(longer, 200), *to = filled(engine, 120);
    const uint32_t available = mq__kv_available(engine->kv);
    static const uint32_t ends[] = {129, 131, 128};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        mq_buf image = export_range(from, 120, ends[i] - 120);
        mq_error error = {0};
        const mq_status status = import_bytes(to, image.data, image.len, &error);
        if (ends[i] > 128) {
            unit_refused(status, MQ_LIMIT, &error, "context of 128");
            assert_int_equal(held(to), 120);
            assert_int_equal(mq__kv_available(engine->kv), available);
        } else {
            assert_int_equal(status, MQ_OK);
            assert_int_equal(held(to), 128);
        }
        mq__buf_free(&image);
    }
    mq_sequence_free(from);
    mq_sequence_free(to);
    mq_engine_close(longer);
    mq_engine_close(engine);
}

static void test_failing_allocations(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(model, MQ_LINEAR_NVFP4, MQ_SCALES_RTN);
    mq_sequence *from = filled(engine, 70), *to = filled(engine, 0);
    mq_buf image = export_range(from, 0, 70);
    const uint32_t available = mq__kv_available(engine->kv);
    unsigned refused = 0;
    for (unsigned long n = 1;; n++) {
        mq_error error = {0};
        (void)mq__alloc_fail_at(n);
        const mq_status status = import_bytes(to, image.data, image.len, &error);
        const bool hit = mq__alloc_fail_at(0) >= n;
        assert_true(status == (hit ? MQ_NO_MEMORY : MQ_OK));
        if (!hit) break;
        assert_int_equal(mq__kv_available(engine->kv), available);
        refused++;
    }
    assert_true(refused > 3);
    mq__buf_free(&image);
    mq_sequence_free(from);
    mq_sequence_free(to);
    mq_engine_close(engine);
}

static int make_model(void **state)
{
    mq_error error = {0};
    if (mq_synth_cached("tiny-qwen3", 0, NULL, &model, &error) != MQ_OK) {
        print_error("%s\n", error.text);
        return 1;
    }
    for (int i = 0; i < TOKENS; i++) {
        tokens[i] = (i * 37 + i * i * 11) % 200;
    }
    return unit_setup(state);
}

static int forget_model(void **state)
{
    mq_free(model);
    return unit_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_export_import_go_on), cmocka_unit_test(test_chunks_in_any_order),
        cmocka_unit_test(test_damage_is_refused),   cmocka_unit_test(test_foreign_images_are_refused),
        cmocka_unit_test(test_full_pool),           cmocka_unit_test(test_longer_context),
        cmocka_unit_test(test_another_way),         cmocka_unit_test(test_failing_allocations),
    };
    return cmocka_run_group_tests(tests, make_model, forget_model);
}
