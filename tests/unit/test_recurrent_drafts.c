/* Drafts on models with recurrent state: rows that were wrong leave it. What a sequence holds after a drop, its state float by float, is what
 * one holds that ran the right rows only. */
#define UNIT_SHAPE "tiny-qwen3.5"
#define TOKENS     700
#include "unit_model.h"

#include "engine/draft.h"

#define MATES 6

static mq_engine *engine;

static int open_all(void **state)
{
    mq_error error = {0};
    if (make_model(state) != 0) return 1;
    const mq_engine_options options = {.model_dir = model,
                                       .plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16},
                                       .threads = 2,
                                       .context = 640,
                                       .sequences = 2 * MATES + 2,
                                       .no_cache = true};
    if (mq_engine_open(&options, &engine, &error) == MQ_OK && mq__engine_draft_open(engine, &error) == MQ_OK) return 0;
    print_error("%s\n", error.text);
    return 1;
}

static int close_all(void **state)
{
    mq_engine_close(engine);
    return forget_model(state);
}

static mq_sequence *prompted(const int32_t *prompt, uint32_t count)
{
    mq_sequence *s;
    mq_error error = {0};
    assert_int_equal(mq_sequence_new(engine, &s, NULL), MQ_OK);
    if (mq_sequence_sync(s, prompt, count, NULL, NULL, &error) != MQ_OK) fail_msg("%s", error.text);
    return s;
}

static mq_rows rows_of(mq_sequence *s, const int32_t *ids, uint32_t count)
{
    return (mq_rows){.sequence = s, .tokens = ids, .count = count, .phase = MQ_PHASE_DECODE, .logits = count};
}

static mq_status verify(mq_sequence *s, const int32_t *ids, uint32_t count)
{
    mq_rows rows = rows_of(s, ids, count);
    assert_int_equal(mq_engine_step(engine, &rows, 1, NULL), MQ_OK);
    return rows.status;
}

static void go_on(mq_sequence *s, const int32_t *ids, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(mq_sequence_step(s, ids[i], NULL), MQ_OK);
    }
}

static void assert_same(const mq_sequence *a, const mq_sequence *b)
{
    assert_int_equal(a->count, b->count);
    assert_memory_equal(a->tokens, b->tokens, a->count * sizeof *a->tokens);
    assert_memory_equal(a->state, b->state, engine->state_floats * sizeof(float));
}

/* It holds what a sequence holds that was given its tokens one by one; frees it. prompt: how many of them were a prompt. */
static void assert_as_fresh(mq_sequence *s, uint32_t prompt)
{
    mq_sequence *fresh = prompted(s->tokens, prompt);
    go_on(fresh, s->tokens + prompt, s->count - prompt);
    assert_same(s, fresh);
    mq_sequence_free(fresh);
    mq_sequence_free(s);
}

/* ---- rows of many, more than a pass has: none, some or all of them stay */

static void test_batches(void **state)
{
    (void)state;
    mq_sequence *mate[MATES], *plain[MATES];
    mq_rows rows[MATES];
    for (uint32_t i = 0; i < MATES; i++) {
        mate[i] = prompted(tokens + 20 * i, 30 + 11 * i);
        plain[i] = prompted(tokens + 20 * i, 30 + 11 * i);
    }
    for (uint32_t round = 0; round < 14; round++) {
        uint32_t right[MATES];
        for (uint32_t i = 0; i < MATES; i++) {
            const uint32_t count = 1 + (i * 7 + round * 3) % 23;
            right[i] = (i + round) % 5 == 0 ? 0 : (i + round) % 5 == 1 ? count : (i * 5 + round) % (count + 1);
            if (count == 1) right[i] = 1; /* no draft */
            rows[i] = rows_of(mate[i], tokens + mate[i]->count, count);
            go_on(plain[i], tokens + mate[i]->count, right[i]);
        }
        assert_int_equal(mq_engine_step(engine, rows, MATES, NULL), MQ_OK);
        for (uint32_t i = 0; i < MATES; i++) {
            assert_int_equal(rows[i].status, MQ_OK);
            if (rows[i].count > right[i]) mq__sequence_drop(mate[i], rows[i].count - right[i]);
            assert_same(mate[i], plain[i]);
            if (right[i] == 0) continue;
            assert_memory_equal(mq_sequence_logits(mate[i]), mq_sequence_logits(plain[i]),
                                engine->weights->model.vocab * sizeof(float));
        }
    }
    for (uint32_t i = 0; i < MATES; i++) {
        mq_sequence_free(mate[i]);
        mq_sequence_free(plain[i]);
    }
}

/* Bit by bit, and further than the step began. */
static void test_drops(void **state)
{
    (void)state;
    mq_sequence *s = prompted(tokens, 100);
    assert_int_equal(verify(s, tokens + 300, 20), MQ_OK);
    mq__sequence_drop(s, 3);
    assert_int_equal(s->count, 117);
    assert_int_equal(mq_sequence_truncate(s, 110), 110);
    mq__sequence_drop(s, 1);
    assert_int_equal(s->count, 109);
    go_on(s, tokens + 50, 2);
    assert_int_equal(mq_sequence_truncate(s, 110), 64); /* a step without a draft */
    go_on(s, tokens, 60);
    assert_int_equal(verify(s, tokens + 300, 64), MQ_OK);
    assert_int_equal(mq_sequence_truncate(s, 124), 124);
    assert_as_fresh(s, 65); /* token 64 was decoded */
    s = prompted(tokens, 100);
    assert_int_equal(verify(s, tokens + 300, 9), MQ_OK);
    assert_int_equal(mq_sequence_truncate(s, 99), 64);
    mq_rows many = rows_of(s, tokens, 65); /* more than a pass has */
    assert_int_equal(mq_engine_step(engine, &many, 1, NULL), MQ_OK);
    assert_int_equal(mq_sequence_truncate(s, 120), 64);
    mq_sequence_free(s);
}

/* ---- draft steps */

static uint32_t run_draft(mq_sequence *s, const int32_t *ids, uint32_t count)
{
    uint32_t done = 0;
    for (uint32_t i = 0; i < count; i++) {
        mq_rows rows = rows_of(s, ids + i, 1);
        assert_int_equal(mq__engine_draft(engine, &rows, 1, NULL), MQ_OK);
        done += rows.done;
    }
    return done;
}

static void test_draft_steps(void **state)
{
    (void)state;
    mq_sequence *s = prompted(tokens, 190), *fork;
    for (uint32_t round = 0; round < 30; round++) {
        const uint32_t at = s->count, k = round % 6;
        assert_int_equal(run_draft(s, tokens + at + 1, k), k);
        assert_int_equal(mq_sequence_truncate(s, at), at);
        assert_int_equal(verify(s, tokens + at, k + 1), MQ_OK);
        if (k > 2) mq__sequence_drop(s, k - 2);
    }
    assert_true(s->count > 260);
    const uint32_t at = s->count;
    assert_int_equal(run_draft(s, tokens + 7, 4), 4);
    assert_int_equal(mq_sequence_fork(s, s->count, &fork, NULL), MQ_OK); /* which has no draft */
    assert_int_equal(fork->count, at);
    assert_int_equal(mq_sequence_truncate(s, at + 2), at);
    assert_same(s, fork);
    go_on(fork, tokens + 20, 3);
    assert_as_fresh(fork, 190);
    assert_as_fresh(s, 190);
}

/* Draft steps leave no snapshots, and take none from others. */
static void test_draft_steps_and_snapshots(void **state)
{
    (void)state;
    mq_sequence *s = prompted(tokens, 250);
    const uint32_t held = mq__kv_states_held(engine->kv);
    assert_int_equal(run_draft(s, tokens + 1, 16), 16);
    assert_int_equal(mq__kv_states_held(engine->kv), held);
    assert_int_equal(mq_sequence_truncate(s, 250), 250);
    assert_as_fresh(s, 250);
}

/* ---- snapshots, forks */

/* A snapshot of rows that went is no snapshot any more. */
static void test_snapshots(void **state)
{
    (void)state;
    assert_int_equal(engine->state_interval, 256);
    mq_sequence *s = prompted(tokens, 250);
    assert_int_equal(verify(s, tokens + 400, 12), MQ_OK);
    assert_non_null(s->blocks[3]->state);
    mq__sequence_drop(s, 10);
    assert_int_equal(s->count, 252);
    go_on(s, tokens + 100, 1);
    assert_null(s->blocks[3]->state);
    assert_int_equal(verify(s, tokens + 101, 9), MQ_OK);
    mq__sequence_drop(s, 3);
    assert_int_equal(s->count, 259);
    assert_non_null(s->blocks[3]->state);
    go_on(s, tokens, 30);
    assert_int_equal(mq_sequence_truncate(s, 280), 256);
    assert_as_fresh(s, 250);
}

static void test_forks(void **state)
{
    (void)state;
    mq_sequence *s = prompted(tokens, 250), *fork;
    assert_int_equal(verify(s, tokens + 400, 12), MQ_OK);
    assert_int_equal(mq_sequence_fork(s, 253, &fork, NULL), MQ_OK);
    assert_int_equal(fork->count, 253);
    mq__sequence_drop(s, 4);
    assert_non_null(s->blocks[3]->state); /* 258 tokens: it holds the block whole */
    assert_int_equal(mq_sequence_truncate(s, 254), 254);
    go_on(fork, tokens, 10); /* from now on each has that block for itself */
    go_on(s, tokens + 9, 10);
    assert_int_equal(mq_sequence_truncate(s, 260), 256);
    assert_as_fresh(fork, 250);
    assert_as_fresh(s, 250);
}

/* ---- cancelled in the middle of a pass */

static void cancel_at_layer(void *context, uint32_t layer, mq_linear_group group, const float *rows, uint32_t count,
                            uint32_t width)
{
    (void)rows;
    (void)count;
    (void)width;
    if (layer == 2 && group == MQ_GROUP_DOWN) mq_sequence_cancel(context);
}

static void test_cancelled(void **state)
{
    (void)state;
    mq_sequence *s = prompted(tokens, 90);
    const mq_observer observer = {.linear = cancel_at_layer, .context = s};
    assert_int_equal(verify(s, tokens + 90, 8), MQ_OK);
    mq_engine_observe(engine, &observer);
    assert_int_equal(verify(s, tokens + 98, 8), MQ_CANCELLED);
    mq_engine_observe(engine, NULL);
    assert_int_equal(s->count, 98);
    assert_int_equal(mq__sequence_landing(s, 95), 64); /* what was kept of the step before is written over */
    go_on(s, tokens + 200, 1);
    assert_int_equal(run_draft(s, tokens, 2), 2);
    mq_engine_observe(engine, &observer);
    assert_int_equal(run_draft(s, tokens, 1), 0);
    mq_engine_observe(engine, NULL);
    assert_int_equal(mq_sequence_truncate(s, 99), 99);
    assert_int_equal(verify(s, tokens, 1), MQ_CANCELLED);
    assert_int_equal(verify(s, tokens, 3), MQ_OK);
    mq__sequence_drop(s, 1);
    assert_as_fresh(s, 90);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batches),     cmocka_unit_test(test_drops),
        cmocka_unit_test(test_draft_steps), cmocka_unit_test(test_draft_steps_and_snapshots),
        cmocka_unit_test(test_snapshots),   cmocka_unit_test(test_forks),
        cmocka_unit_test(test_cancelled),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
