/* Layers with a window keep no more than that of a sequence's KV: what is let go changes no bit, memory is bounded, and a sequence begins
 * or lands only where its windows are there. */
#define TOKENS     1000
#define UNIT_SHAPE "tiny-gemma4"
#include "unit_image.h"
#include "unit_model.h"
#include "unit_sequence.h"

#include "base/buf.h"
#include "base/mem.h"
#include "engine/draft.h"
#include "engine/engine.h"
#include "kernels/kernels.h"
#include "kv/kv_windows.h"

#define PAGE   MQ_PAGE_TOKENS
#define WINDOW 37 /* of the shape */

/* sequences: 1 bounds window parts tightly; many: nothing is ever lost, as in a full cache with a mask. */
static mq_engine *open_with(uint32_t chunk, uint32_t sequences)
{
    mq_engine *engine;
    mq_error error = {0};
    const mq_engine_options options = {.model_dir = model,
                                       .plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16},
                                       .threads = 2,
                                       .context = TOKENS + 20,
                                       .chunk = chunk,
                                       .sequences = sequences,
                                       .no_cache = true};
    if (mq_engine_open(&options, &engine, &error) != MQ_OK) fail_msg("%s", error.text);
    assert_int_equal(engine->kv_layout.window, WINDOW);
    return engine;
}

static void step_by(mq_sequence *sequence, const int32_t *ids, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        mq_error error = {0};
        if (mq_sequence_step(sequence, ids[i], &error) != MQ_OK) fail_msg("%s", error.text);
    }
}

/* The logits after a prompt and `more` decoded tokens, with all KV there all the time; owned. */
static float *full_logits(const int32_t *prompt, uint32_t count, uint32_t more)
{
    mq_engine *engine = open_with(1024, 16);
    mq_sequence *sequence = new_sequence(engine);
    (void)sync_to(sequence, prompt, count);
    step_by(sequence, prompt + count, more);
    float *copy = malloc(row_bytes(engine));
    assert_non_null(copy);
    memcpy(copy, mq_sequence_logits(sequence), row_bytes(engine));
    for (uint32_t b = 0; b < sequence->block_count; b++) {
        assert_non_null(sequence->blocks[b]->window); /* it is the full cache that it is said to be */
    }
    mq_sequence_free(sequence);
    mq_engine_close(engine);
    return copy;
}

static void check_logits(const mq_sequence *sequence, const float *expected)
{
    assert_non_null(mq_sequence_logits(sequence));
    assert_memory_equal(mq_sequence_logits(sequence), expected, row_bytes(sequence->engine));
}

/* What a sequence does not watch may be overwritten at any time: here it is, at once. */
static void spoil_unwatched(const mq_sequence *sequence)
{
    const size_t bytes = sequence->engine->kv_layout.window_elements * sizeof(uint16_t);
    for (uint32_t b = 0; b < sequence->block_count; b++) {
        mq_kv_block *block = sequence->blocks[b];
        if (block->window && !block->watchers) memset(block->window, 0xFF, bytes); /* NaN */
    }
}

static uint32_t parts_watched(const mq_sequence *sequence)
{
    uint32_t count = 0;
    for (uint32_t b = 0; b < sequence->block_count; b++) {
        count += sequence->window_pages[b] != NULL;
    }
    return count;
}

static uint32_t parts_there(const mq_sequence *sequence)
{
    uint32_t count = 0;
    for (uint32_t b = 0; b < sequence->block_count; b++) {
        count += sequence->blocks[b]->window != NULL;
    }
    return count;
}

/* ---- the pool */

static void test_parts_go_in_order(void **state)
{
    (void)state;
    const mq_kv_shape shapes[] = {{.kv_heads = 1, .head_dim = 2}, {.kv_heads = 1, .head_dim = 2, .window = 5}};
    mq_kv_layout layout;
    mq_kv_pool *pool;
    mq_kv_block *b[5];
    assert_int_equal(mq__kv_layout_new(shapes, 2, &layout, NULL), MQ_OK);
    assert_int_equal(layout.block_elements, 2 * 2 * PAGE);
    assert_int_equal(layout.window_elements, 2 * 2 * PAGE);
    assert_int_equal(mq__kv_pool_new(&layout, 5, &pool, NULL), MQ_OK);
    assert_int_equal(mq__kv_windows_new(pool, 3, NULL), MQ_OK);
    for (int i = 0; i < 5; i++) {
        b[i] = mq__kv_take(pool, 1);
        assert_true(mq__kv_window_take(pool, b[i]) == (i < 3));
    }
    mq__kv_window_watch(pool, b[0]);
    mq__kv_window_leave(pool, b[0], true);
    assert_int_equal(mq__kv_windows_available(pool), 0); /* one still watches it */
    mq__kv_window_leave(pool, b[0], true);
    mq__kv_window_leave(pool, b[1], true);
    mq__kv_window_leave(pool, b[2], false);
    assert_int_equal(mq__kv_windows_available(pool), 3);
    assert_true(mq__kv_window_take(pool, b[3]));
    assert_null(b[2]->window); /* nobody begins there again */
    assert_non_null(b[0]->window);
    mq__kv_window_watch(pool, b[0]);
    assert_true(mq__kv_window_take(pool, b[4]));
    assert_null(b[1]->window);
    for (int i = 0; i < 5; i++) {
        if (b[i]->watchers) mq__kv_window_leave(pool, b[i], true);
        mq__kv_release(pool, b[i]);
    }
    assert_int_equal(mq__kv_windows_available(pool), 3);
    mq__kv_pool_free(pool);
    mq__kv_layout_free(&layout);
}

/* ---- the same bits */

static void test_windows_are_a_mask(void **state)
{
    (void)state;
    static const uint32_t chunks[] = {1, 7, 64, 100, 512};
    enum { PROMPT = 5 * WINDOW + 11, MORE = 4 * WINDOW };
    float *expected = full_logits(tokens, PROMPT, MORE);
    for (size_t i = 0; i < sizeof chunks / sizeof chunks[0]; i++) {
        mq_engine *engine = open_with(chunks[i], 1);
        mq_sequence *sequence = new_sequence(engine);
        const uint32_t parts = mq__kv_windows_available(engine->kv);
        for (uint32_t at = 0, some = 90; at < PROMPT - 1; at += some, some = 33) {
            if (some > PROMPT - 1 - at) some = PROMPT - 1 - at;
            mq_rows rows = {.sequence = sequence, .tokens = tokens + at, .count = some, .phase = MQ_PHASE_PREFILL};
            assert_int_equal(mq_engine_step(engine, &rows, 1, NULL), MQ_OK);
            spoil_unwatched(sequence);
        }
        (void)sync_to(sequence, tokens, PROMPT);
        for (uint32_t k = 0; k < MORE; k++) {
            spoil_unwatched(sequence);
            step_by(sequence, tokens + PROMPT + k, 1);
        }
        check_logits(sequence, expected);
        mq_sequence_free(sequence);
        assert_int_equal(mq__kv_windows_available(engine->kv), parts);
        mq_engine_close(engine);
    }
    free(expected);
}

/* One entry of many passes, beside others. */
static void test_long_entries(void **state)
{
    (void)state;
    float *expected = full_logits(tokens, 900, 0);
    mq_engine *engine = open_with(70, 2);
    mq_sequence *a = new_sequence(engine), *b = new_sequence(engine);
    mq_rows rows[2] = {{.sequence = a, .tokens = tokens, .count = 899, .phase = MQ_PHASE_PREFILL},
                       {.sequence = b, .tokens = tokens, .count = 699, .phase = MQ_PHASE_PREFILL}};
    assert_int_equal(mq_engine_step(engine, rows, 2, NULL), MQ_OK);
    spoil_unwatched(a);
    step_by(a, tokens + 899, 1);
    check_logits(a, expected);
    assert_true(parts_watched(b) <= 3);
    mq_rows many = {.sequence = b, .tokens = tokens + 699, .count = 201, .phase = MQ_PHASE_DECODE, .logits = 1};
    assert_int_equal(mq_engine_step(engine, &many, 1, NULL), MQ_OK); /* more than a pass has */
    assert_non_null(mq_sequence_logits(b));
    mq_sequence_free(a);
    mq_sequence_free(b);
    mq_engine_close(engine);
    free(expected);
}

static void test_forks(void **state)
{
    (void)state;
    float *expected = full_logits(tokens, 300, 120);
    mq_engine *engine = open_with(64, 3);
    mq_sequence *a = new_sequence(engine), *fork, *lower;
    (void)sync_to(a, tokens, 300);
    assert_int_equal(mq_sequence_fork(a, 300, &fork, NULL), MQ_OK);
    assert_int_equal(mq_sequence_fork(a, 290, &lower, NULL), MQ_OK);
    assert_int_equal(lower->count, 290);
    for (uint32_t i = 0; i < 120; i++) { /* the first one goes elsewhere meanwhile */
        step_by(a, tokens + i, 1);
        step_by(fork, tokens + 300 + i, 1);
        spoil_unwatched(a);
        spoil_unwatched(fork);
    }
    check_logits(fork, expected);
    mq_sequence_free(a);
    assert_int_equal(sync_to(lower, tokens, 300).cached, 290);
    step_by(lower, tokens + 300, 120);
    check_logits(lower, expected);
    mq_sequence_free(fork);
    mq_sequence_free(lower);
    mq_engine_close(engine);
    free(expected);
}

/* Drafts of up to a whole pass are taken back, wherever a block or a window begins. */
static void test_drafts_are_taken_back(void **state)
{
    (void)state;
    float *expected = full_logits(tokens, 100, 300);
    mq_engine *engine = open_with(64, 1);
    assert_int_equal(mq__engine_draft_open(engine, NULL), MQ_OK);
    mq_sequence *sequence = new_sequence(engine);
    (void)sync_to(sequence, tokens, 100);
    for (uint32_t at = 100; at < 400; at++) {
        int32_t wrong[MQ_DECODE_ROWS];
        for (uint32_t i = 0; i < MQ_DECODE_ROWS; i++) {
            wrong[i] = (tokens[at + i] + (i > 0)) % 200;
        }
        mq_rows draft = {.sequence = sequence, .tokens = wrong, .count = at % 64 + 1, .phase = MQ_PHASE_DECODE};
        assert_int_equal(mq__engine_draft(engine, &draft, 1, NULL), MQ_OK);
        assert_int_equal(mq_sequence_truncate(sequence, at), at);
        const uint32_t count = at % 3 ? MQ_DECODE_ROWS : 5;
        mq_rows rows = {
            .sequence = sequence, .tokens = wrong, .count = count, .phase = MQ_PHASE_DECODE, .logits = count};
        assert_int_equal(mq_engine_step(engine, &rows, 1, NULL), MQ_OK);
        spoil_unwatched(sequence);
        mq__sequence_drop(sequence, count - 1);
        assert_int_equal(sequence->count, at + 1);
    }
    check_logits(sequence, expected);
    mq_sequence_free(sequence);
    mq_engine_close(engine);
    free(expected);
}

/* ---- memory */

static void test_memory_is_bounded(void **state)
{
    (void)state;
    mq_engine *engine = open_with(64, 1);
    const uint32_t bound = engine->windows_per_sequence;
    assert_true(bound <= (WINDOW + 64 + 64) / PAGE + 2);
    mq_sequence *sequence = new_sequence(engine);
    for (uint32_t count = 50; count < TOKENS; count += 70) {
        (void)sync_to(sequence, tokens, count);
        assert_true(parts_watched(sequence) <= bound);
        assert_true(parts_there(sequence) <= 2 * bound);
    }
    assert_int_equal(sequence->block_count, (sequence->count - 1) / PAGE + 1);
    assert_true(parts_watched(sequence) <= (WINDOW + MQ_DECODE_ROWS) / PAGE + 2);
    mq_engine_info info;
    mq_engine_describe(engine, &info);
    const mq_kv_layout *kv = &engine->kv_layout;
    assert_int_equal(info.kv_bytes_per_token, kv->block_elements / PAGE * sizeof(uint16_t));
    mq_sequence_free(sequence);
    mq_engine_close(engine);
}

/* As many bytes are divided as are given; a context fits in any case. */
static void test_bytes_are_divided(void **state)
{
    (void)state;
    static const uint64_t all[] = {1, 1 << 20, 10 << 20, 100 << 20};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        mq_engine *engine;
        const mq_engine_options options = {.model_dir = model,
                                           .plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16},
                                           .threads = 1,
                                           .context = 700,
                                           .chunk = 64,
                                           .kv_bytes = all[i],
                                           .no_cache = true};
        assert_int_equal(mq_engine_open(&options, &engine, NULL), MQ_OK);
        const uint64_t block = engine->kv_layout.block_elements * sizeof(uint16_t),
                       window = engine->kv_layout.window_elements * sizeof(uint16_t);
        const uint32_t blocks = mq__kv_available(engine->kv), windows = mq__kv_windows_available(engine->kv);
        assert_true(blocks >= engine->blocks_per_sequence && windows >= engine->windows_per_sequence);
        const uint64_t least = engine->blocks_per_sequence * block + engine->windows_per_sequence * window;
        assert_true(blocks * block + windows * window <= (all[i] > least ? all[i] : least));
        if (all[i] > 4 * least) assert_true(blocks * block + windows * window > all[i] * 9 / 10);
        mq_engine_close(engine);
    }
}

static void test_no_part_is_left(void **state)
{
    (void)state;
    mq_engine *engine = open_with(64, 1);
    mq_sequence *held[64];
    uint32_t count = 0;
    mq_error error = {0};
    mq_status status = MQ_OK;
    while (status == MQ_OK && count < 64) { /* short ones: blocks are there for more of them than parts */
        held[count] = new_sequence(engine);
        mq_rows rows = {.sequence = held[count++], .tokens = tokens, .count = 60, .phase = MQ_PHASE_PREFILL};
        status = mq_engine_step(engine, &rows, 1, &error);
    }
    unit_refused(status, MQ_LIMIT, &error, "window parts");
    assert_true(mq__kv_available(engine->kv) > 0);
    error = (mq_error){0};
    unit_refused(mq_sequence_sync(held[1], tokens + 9, 200, NULL, NULL, &error), MQ_LIMIT, &error, "window parts");
    assert_int_equal(held[1]->count, 60); /* a refusal changes nothing */
    assert_int_equal(sync_to(held[1], tokens, 61).cached, 60);
    mq_sequence_free(held[0]);
    mq_rows rows = {.sequence = held[count - 1], .tokens = tokens, .count = 60, .phase = MQ_PHASE_PREFILL};
    assert_int_equal(mq_engine_step(engine, &rows, 1, NULL), MQ_OK);
    for (uint32_t i = 1; i < count; i++) {
        mq_sequence_free(held[i]);
    }
    mq_engine_close(engine);
}

/* ---- going back */

static void test_truncate_lands_where_windows_are(void **state)
{
    (void)state;
    float *expected = full_logits(tokens, 900, 0);
    mq_engine *engine = open_with(64, 1);
    mq_sequence *sequence = new_sequence(engine);
    (void)sync_to(sequence, tokens, 800);
    assert_int_equal(mq_sequence_truncate(sequence, 790), 790);
    for (uint32_t b = 2; b < 9; b++) { /* somebody else has taken them */
        mq_kv_block *block = sequence->blocks[b];
        if (block->window && !block->watchers) mq__kv_window_give(engine->kv, block);
    }
    const uint32_t landed = mq_sequence_truncate(sequence, 500);
    assert_true(landed < 3 * PAGE && landed % PAGE == 0);
    assert_null(mq_sequence_logits(sequence));
    assert_int_equal(sync_to(sequence, tokens, 900).cached, landed);
    check_logits(sequence, expected);
    /* a fork below lands as well, and the sequence itself stays */
    for (uint32_t b = 0; b < 14; b++) {
        mq_kv_block *block = sequence->blocks[b];
        if (block->window && !block->watchers) mq__kv_window_give(engine->kv, block);
    }
    mq_sequence *fork;
    assert_int_equal(mq_sequence_fork(sequence, 400, &fork, NULL), MQ_OK);
    assert_int_equal(fork->count, 0);
    mq_sequence_free(fork);
    assert_int_equal(sequence->count, 900);
    mq_sequence_free(sequence);
    mq_engine_close(engine);
    free(expected);
}

/* The end of a prompt outlasts its answer: the next prompt may leave that out. */
static void test_prompt_end_stays(void **state)
{
    (void)state;
    mq_engine *engine = open_with(64, 1);
    mq_sequence *sequence = new_sequence(engine);
    (void)sync_to(sequence, tokens, 300);
    step_by(sequence, tokens + 300, 650);
    assert_true(parts_there(sequence) <= 2 * engine->windows_per_sequence);
    assert_int_equal(sync_to(sequence, tokens, 310).cached, 309);
    mq_sequence_free(sequence);
    mq_engine_close(engine);
}

/* ---- KV images */

static void test_images(void **state)
{
    (void)state;
    float *expected = full_logits(tokens, 700, 40);
    mq_engine *engine = open_with(64, 2);
    const mq_kv_layout *kv = &engine->kv_layout;
    mq_sequence *from = new_sequence(engine), *to = new_sequence(engine);
    mq_buf image = {0}, parts = {0};
    mq_error error = {0};
    (void)sync_to(from, tokens, 700);
    (void)mq_sequence_truncate(from, 699);
    assert_int_equal(mq_sequence_export(from, 0, 699, into_buffer, &image, NULL), MQ_OK);
    /* No more than the windows of its end: of 2 blocks at most. */
    assert_true(image.len < 699 * 2 * kv->block_elements / PAGE + 2 * 2 * kv->window_elements + 11 * 3 * 48 + 5000);
    assert_int_equal(import_bytes(to, image.data, image.len, &error), MQ_OK);
    spoil_unwatched(to);
    (void)sync_to(to, tokens, 700);
    step_by(to, tokens + 700, 40);
    check_logits(to, expected);
    /* Block by block, as on disk: those whose parts are gone are bare. */
    for (uint32_t b = 0; b < 5; b++) {
        mq__kv_window_give(engine->kv, from->blocks[b]);
    }
    for (uint32_t b = 0; b < 10; b++) {
        assert_int_equal(mq_sequence_export(from, b * PAGE, PAGE, into_buffer, &parts, NULL), MQ_OK);
        if (b > 5) assert_non_null(from->blocks[b]->window);
    }
    mq_sequence_free(from);
    source s = {parts.data, parts.len};
    from = new_sequence(engine);
    for (uint32_t b = 0; b < 3; b++) {
        assert_int_equal(mq_sequence_import(from, from_source, &s, NULL), MQ_OK);
    }
    mq_rows row = {.sequence = from, .tokens = tokens + 3 * PAGE, .count = 1, .phase = MQ_PHASE_DECODE};
    unit_refused(mq_engine_step(engine, &row, 1, &error), MQ_USAGE, &error, "windows");
    assert_int_equal(mq__sequence_landing(from, 3 * PAGE), 0);
    for (uint32_t b = 3; b < 10; b++) {
        assert_int_equal(mq_sequence_import(from, from_source, &s, NULL), MQ_OK);
    }
    assert_int_equal(from->count, 10 * PAGE);
    (void)sync_to(from, tokens, 700);
    step_by(from, tokens + 700, 40);
    check_logits(from, expected);
    /* A damaged image leaves what was there. */
    (void)mq_sequence_truncate(from, 0);
    image.data[image.len - 1] ^= 1;
    error = (mq_error){0};
    assert_int_equal(import_bytes(from, image.data, image.len, &error), MQ_FORMAT);
    assert_int_equal(from->count, 0);
    mq_sequence_free(from);
    mq_sequence_free(to);
    assert_int_equal(mq__kv_windows_available(engine->kv), 2 * 2 * engine->windows_per_sequence);
    mq__buf_free(&image);
    mq__buf_free(&parts);
    mq_engine_close(engine);
    free(expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_go_in_order),
        cmocka_unit_test(test_windows_are_a_mask),
        cmocka_unit_test(test_long_entries),
        cmocka_unit_test(test_forks),
        cmocka_unit_test(test_drafts_are_taken_back),
        cmocka_unit_test(test_memory_is_bounded),
        cmocka_unit_test(test_bytes_are_divided),
        cmocka_unit_test(test_no_part_is_left),
        cmocka_unit_test(test_truncate_lands_where_windows_are),
        cmocka_unit_test(test_prompt_end_stays),
        cmocka_unit_test(test_images),
    };
    return cmocka_run_group_tests(tests, make_model, forget_model);
}
