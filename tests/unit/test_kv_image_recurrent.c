/* KV images of a model with recurrent state: the state behind the range comes along, bit for bit, and what comes is a snapshot at a block's
 * end; a range that ends elsewhere than at a known state, and damaged, cut and foreign images are refused. */
#define TOKENS     700
#define UNIT_SHAPE "tiny-qwen3.5"
#include "unit_image.h"
#include "unit_model.h"

#include "base/buf.h"
#include "engine/engine.h"
#include "format/kvimage.h"

static mq_engine *open_chunked(uint32_t chunk)
{
    mq_engine *engine;
    mq_error error = {0};
    const mq_engine_options options = {.model_dir = model,
                                       .plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16},
                                       .threads = 2,
                                       .context = 1024,
                                       .chunk = chunk,
                                       .sequences = 3,
                                       .no_cache = true};
    if (mq_engine_open(&options, &engine, &error) != MQ_OK) fail_msg("%s", error.text);
    return engine;
}

static mq_sequence *filled(mq_engine *engine, uint32_t count)
{
    mq_sequence *sequence;
    assert_int_equal(mq_sequence_new(engine, &sequence, NULL), MQ_OK);
    if (count) assert_int_equal(mq_sequence_sync(sequence, tokens, count, NULL, NULL, NULL), MQ_OK);
    return sequence;
}

static void go_on_alike(mq_sequence *a, mq_sequence *b)
{
    const mq_engine *engine = a->engine;
    assert_int_equal(a->count, b->count);
    assert_memory_equal(a->state, b->state, engine->state_floats * sizeof(float));
    for (int step = 0; step < 4; step++) {
        assert_int_equal(mq_sequence_step(a, tokens[step], NULL), MQ_OK);
        assert_int_equal(mq_sequence_step(b, tokens[step], NULL), MQ_OK);
        assert_memory_equal(mq_sequence_logits(a), mq_sequence_logits(b), engine->weights->model.vocab * sizeof(float));
    }
    assert_memory_equal(a->state, b->state, engine->state_floats * sizeof(float));
}

/* In one image, or in two that meet at a snapshot. */
static void test_go_on(void **state)
{
    (void)state;
    static const uint32_t cuts[][2] = {{1, 1}, {64, 64}, {100, 100}, {256, 256}, {256, 300}, {512, 600}, {576, 600}};
    mq_engine *engine = open_chunked(128), *other = open_chunked(96);
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        const uint32_t cut = cuts[i][0], count = cuts[i][1];
        mq_sequence *from = filled(engine, count), *to = filled(other, 0);
        mq_buf image = export_range(from, 0, cut);
        must_import(to, &image);
        if (cut < count) {
            image = export_range(from, cut, count - cut);
            must_import(to, &image);
        }
        go_on_alike(from, to);
        mq_sequence_free(from);
        mq_sequence_free(to);
    }
    assert_int_equal(mq__kv_states_held(other->kv), 0);
    mq_engine_close(engine);
    mq_engine_close(other);
}

static void test_ends_are_snapshots(void **state)
{
    (void)state;
    mq_engine *engine = open_chunked(128);
    mq_sequence *from = filled(engine, 600), *to = filled(engine, 0);
    mq_buf image = export_range(from, 0, 512);
    must_import(to, &image);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(mq_sequence_step(to, tokens[i], NULL), MQ_OK);
    }
    assert_int_equal(mq_sequence_truncate(to, 516), 512);
    mq_sync_stats stats;
    assert_int_equal(mq_sequence_sync(to, tokens, 600, NULL, &stats, NULL), MQ_OK);
    assert_int_equal(stats.cached, 512);
    go_on_alike(from, to);
    assert_int_equal(mq_sequence_truncate(to, 511), 0); /* between them nothing came */
    mq_sequence_free(from);
    mq_sequence_free(to);
    mq_engine_close(engine);
}

static void test_unknown_states_are_refused(void **state)
{
    (void)state;
    mq_engine *engine = open_chunked(128);
    mq_sequence *from = filled(engine, 600);
    static const uint32_t ends[] = {64, 128, 255, 257, 599};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        mq_buf image = {0};
        mq_error error = {0};
        unit_refused(mq_sequence_export(from, 0, ends[i], into_buffer, &image, &error), MQ_USAGE, &error,
                     "where the recurrent state is known");
        assert_int_equal(image.len, 0);
    }
    mq_sequence_free(from);
    mq_engine_close(engine);
}

/* ---- spoiled */

static uint64_t number_at(const mq_buf *image, size_t at, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) {
        value |= (uint64_t)(uint8_t)image->data[at + (size_t)i] << 8 * i;
    }
    return value;
}

/* Where chunk i begins; the end of the last one: where the image ends. */
static size_t chunk_begin(const mq_buf *image, uint32_t i)
{
    size_t at = (size_t)number_at(image, 8, 4);
    while (i-- > 0) {
        at += MQ_KVCHUNK_HEAD + (size_t)number_at(image, at + 16, 8);
    }
    return at;
}

static void must_refuse(mq_sequence *to, const mq_buf *image, size_t bytes, mq_status expected)
{
    const uint32_t available = mq__kv_available(to->engine->kv);
    const uint32_t snapshots = mq__kv_states_held(to->engine->kv);
    mq_error error = {0};
    const mq_status status = import_bytes(to, image->data, bytes, &error);
    if (status == MQ_OK || (expected != MQ_OK && status != expected)) fail_msg("%d: %s", status, error.text);
    assert_int_equal(to->count, 0);
    assert_int_equal(mq__kv_available(to->engine->kv), available);
    assert_int_equal(mq__kv_states_held(to->engine->kv), snapshots);
    for (size_t f = 0; f < to->engine->state_floats; f++) {
        assert_true(to->state[f] == 0);
    }
}

/* 70 tokens: two blocks of two layers that attend, and the states of two others. */
static void test_damage_is_refused(void **state)
{
    (void)state;
    enum { CHUNKS = 6, FIRST_STATE = 4 };
    mq_engine *engine = open_chunked(128);
    mq_sequence *from = filled(engine, 70), *to = filled(engine, 0);
    mq_buf image = export_range(from, 0, 70);
    assert_int_equal(chunk_begin(&image, CHUNKS), image.len);
    const size_t states = chunk_begin(&image, FIRST_STATE), last = chunk_begin(&image, FIRST_STATE + 1);
    for (size_t at = states; at < image.len; at += at < states + MQ_KVCHUNK_HEAD + 8 ? 1 : 101) {
        image.data[at] ^= 1;
        must_refuse(to, &image, image.len, MQ_OK);
        image.data[at] ^= 1;
    }
    for (size_t length = states; length < image.len; length += 1 + (length - states) / 9) {
        must_refuse(to, &image, length, MQ_IO);
    }
    mq_buf twice = {0};
    mq__buf_append(&twice, image.data, last);
    mq__buf_append(&twice, image.data + states, last - states);
    must_refuse(to, &twice, twice.len, MQ_FORMAT);
    mq__buf_free(&twice);
    must_import(to, &image); /* it was in order all the time */
    go_on_alike(from, to);
    mq_sequence_free(from);
    mq_sequence_free(to);
    mq_engine_close(engine);
}

/* A chunk with a right checksum that the image must not have: of a layer that keeps nothing of its kind, or of another place. */
static void test_misplaced_states_are_refused(void **state)
{
    (void)state;
    enum { FIRST_STATE = 4 };
    static const mq_kvchunk wrong[] = {{.layer = 1, .first = 70},
                                       {.layer = 0, .first = 64},
                                       {.layer = 0, .first = 71},
                                       {.layer = 9, .first = 70},
                                       {.layer = 0, .first = 64, .count = 6}};
    mq_engine *engine = open_chunked(128);
    mq_sequence *from = filled(engine, 70), *to = filled(engine, 0);
    mq_buf image = export_range(from, 0, 70);
    uint8_t *head = (uint8_t *)image.data + chunk_begin(&image, FIRST_STATE);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        mq_kvchunk chunk = wrong[i];
        chunk.bytes = number_at(&image, chunk_begin(&image, FIRST_STATE) + 16, 8);
        mq__kvchunk_write(&chunk, head + MQ_KVCHUNK_HEAD, head);
        must_refuse(to, &image, image.len, MQ_FORMAT);
    }
    mq__buf_free(&image);
    mq_sequence_free(from);
    mq_sequence_free(to);
    mq_engine_close(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_go_on),
        cmocka_unit_test(test_ends_are_snapshots),
        cmocka_unit_test(test_unknown_states_are_refused),
        cmocka_unit_test(test_damage_is_refused),
        cmocka_unit_test(test_misplaced_states_are_refused),
    };
    return cmocka_run_group_tests(tests, make_model, forget_model);
}
