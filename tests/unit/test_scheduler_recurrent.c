/* The scheduler on a model with recurrent state: answers are those of the engine alone, cached beginnings end at snapshots, and a turn
 * reads no more again than an interval. */
#define UNIT_SHAPE "tiny-qwen3.5"
#include "unit_client.h"

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
        cmocka_unit_test(test_many_equal_singles),
        cmocka_unit_test(test_parked),
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, open_text, close_text);
}
