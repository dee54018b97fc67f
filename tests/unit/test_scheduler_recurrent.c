/* The scheduler on a model with recurrent state: answers are those of the engine alone, cached beginnings end at snapshots, and a turn
 * reads no more again than an interval. */
#define UNIT_SHAPE "tiny-qwen3.5"
#include "unit_client.h"

#include "engine/synth_shapes.h"

#define CLIENTS  6
#define INTERVAL 256 /* of a context of 1024 tokens */

static void test_many_equal_singles(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(CLIENTS, 128);
    static int32_t alone[CLIENTS][ANSWER];
    client *c[CLIENTS];
    for (uint32_t i = 0; i < CLIENTS; i++) {
        c[i] = new_client(i / 2, 100 + 140 * i); /* two and two begin alike */
        answer_alone(engine, c[i], i, alone[i]);
    }
    mq_scheduler *s = start(engine, NULL);
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < CLIENTS; i++) {
            must_submit(s, c[i], i);
        }
        for (uint32_t i = 0; i < CLIENTS; i++) {
            finish(c[i]);
            check_answer(c[i], alone[i]);
            assert_true(c[i]->report.cached % 64 == 0);
            if (round && c[i]->count > INTERVAL) assert_true(c[i]->report.cached + INTERVAL >= c[i]->count);
        }
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        free(c[i]);
    }
    mq_scheduler_stop(s);
    mq_engine_close(engine);
}

/* Blocks for one and a half contexts: jobs are parked and begin again at snapshots. */
static void test_parked(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(1, 128);
    static int32_t alone[CLIENTS][LONG];
    client *c[CLIENTS];
    for (uint32_t i = 0; i < CLIENTS; i++) {
        c[i] = new_client(20 + i, 150 + 30 * i);
        c[i]->most = 150;
        answer_alone(engine, c[i], i, alone[i]);
    }
    mq_scheduler *s = start(engine, NULL);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        must_submit(s, c[i], i);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        finish(c[i]);
        check_answer(c[i], alone[i]);
        free(c[i]);
    }
    mq_scheduler_stop(s);
    mq_engine_close(engine);
}

static void test_turns(void **state)
{
    (void)state;
    enum { NEW = 10 };
    mq_engine *engine = open_engine(1, 256);
    mq_scheduler *s = start(engine, NULL);
    client *c = new_client(3, 200);
    mq_scheduler_stats stats;
    must_submit(s, c, 0);
    finish(c);
    mq_scheduler_describe(s, &stats);
    uint64_t computed = stats.prompt_tokens;
    for (uint32_t turn = 0; turn < 20; turn++) {
        memcpy(c->prompt + c->count, c->answer, ANSWER * sizeof *c->answer);
        const uint32_t known = c->count + ANSWER;
        for (uint32_t i = 0; i < NEW; i++) {
            c->prompt[known + i] = (int32_t)(30 + (i * turn) % 100);
        }
        c->count = known + NEW;
        must_submit(s, c, 0);
        finish(c);
        mq_scheduler_describe(s, &stats);
        assert_true(stats.prompt_tokens - computed <= NEW + ANSWER + INTERVAL);
        computed = stats.prompt_tokens;
    }
    free(c);
    mq_scheduler_stop(s);
    mq_engine_close(engine);
}

/* ---- turns: what is read again beside what is new */

enum { SYSTEM = 150, CALL = 20, RESULT = 100, SHORT = 10, TURN_END = MQ_SYNTH_IM_END };

static uint32_t put_turn(int32_t *prompt, uint32_t at, uint32_t count, uint32_t seed, int32_t end)
{
    for (uint32_t i = 0; i + 1 < count; i++) {
        prompt[at + i] = (int32_t)(20 + (seed * 37 + i * 11) % 200);
    }
    prompt[at + count - 1] = end;
    return at + count;
}

/* An agent that keeps the last call's result only and cuts the ones before short. Returns the tokens of 20 turns that were read again
 * though an earlier prompt had them; most: of one turn. */
static uint32_t run_cutting_agent(int32_t end, uint32_t *most)
{
    mq_engine *engine = open_engine(2, 256);
    mq_scheduler *s = start(engine, NULL);
    client *c = new_client(3, 0);
    uint32_t again = 0, kept = put_turn(c->prompt, 0, SYSTEM, 1, end), known = 0;
    *most = 0;
    for (uint32_t turn = 0; turn < 20; turn++) {
        if (turn) kept = put_turn(c->prompt, kept, SHORT, turn, end);
        kept = put_turn(c->prompt, kept, CALL, 100 + turn, end);
        c->count = put_turn(c->prompt, kept, RESULT, 200 + turn, end);
        must_submit(s, c, 0);
        finish(c);
        assert_int_equal(c->report.status, MQ_OK);
        const uint32_t read = known - c->report.cached;
        again += read;
        if (read > *most) *most = read;
        known = kept; /* what the next prompt begins with */
    }
    free(c);
    mq_scheduler_stop(s);
    mq_engine_close(engine);
    return again;
}

static void test_turn_ends(void **state)
{
    (void)state;
    uint32_t most, most_without;
    const uint32_t again = run_cutting_agent(TURN_END, &most);
    const uint32_t without = run_cutting_agent(TURN_END + 1, &most_without); /* a token that ends no turn */
    print_message("read again in 20 turns: %u tokens, %u at most; without snapshots at turn ends %u, %u\n", again, most,
                  without, most_without);
    assert_true(most < 64 && most_without <= INTERVAL);
    assert_true(most_without > 64 && again * 2 < without);
}

/* The next prompt goes on behind the answer: no whole block of it is read again, however often it was drafted over. */
static void test_answer_ends(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(2, 256);
    mq_scheduler *s = start(engine, NULL);
    client *c = new_client(8, 70);
    c->most = 100;
    for (uint32_t turn = 0; turn < 6; turn++) {
        const uint32_t held = c->count - (turn ? 12 : 1); /* 11 new tokens; the answer's last one was not run */
        must_submit(s, c, turn);
        finish(c);
        assert_int_equal(c->report.status, MQ_OK);
        if (turn) assert_int_equal(c->report.cached, held / 64 * 64);
        memcpy(c->prompt + c->count, c->answer, c->most * sizeof *c->answer);
        c->count = put_turn(c->prompt, c->count + c->most, 11, turn, 50);
    }
    free(c);
    mq_scheduler_stop(s);
    mq_engine_close(engine);
}

static void test_refusals(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(1, 128);
    mq_scheduler *s;
    mq_error error = {0};
    const mq_scheduler_options options = {
        .engine = engine, .text = text, .cache_dir = unit_path("kv"), .disk_bytes = 1 << 20};
    unit_refused(mq_scheduler_start(&options, &s, &error), MQ_UNSUPPORTED, &error, "KV folder: qwen3_5");
    mq_engine_close(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_equal_singles), cmocka_unit_test(test_parked),      cmocka_unit_test(test_turns),
        cmocka_unit_test(test_turn_ends),          cmocka_unit_test(test_answer_ends), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, open_text, close_text);
}
