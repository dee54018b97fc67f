/* The scheduler on a model with windows whose parts are few: answers are those of the engine alone, and many begin where others have. */
#define UNIT_SHAPE "tiny-gemma4"
#include "unit_client.h"

#define SYSTEM 320

/* A prompt that begins as all do. */
static client *new_task(uint32_t seed, uint32_t count)
{
    client *c = new_client(seed, count), *first = new_client(77, SYSTEM);
    memcpy(c->prompt, first->prompt, SYSTEM * sizeof *c->prompt);
    free(first);
    return c;
}

/* The first prompt leaves the parts behind what all have, and loses them to its own end. The second one reads it again, and from then on
 * they stay. */
static void test_others_begin_there(void **state)
{
    (void)state;
    enum { TASKS = 5 };
    mq_engine *engine = open_engine(1, 128);
    static int32_t alone[TASKS][ANSWER];
    client *c[TASKS];
    for (uint32_t i = 0; i < TASKS; i++) {
        c[i] = new_task(i, 960 - ANSWER);
        answer_alone(engine, c[i], i, alone[i]);
    }
    mq_scheduler *s = start(engine, NULL);
    for (uint32_t i = 0; i < TASKS; i++) {
        must_submit(s, c[i], i);
        finish(c[i]);
        check_answer(c[i], alone[i]);
        assert_int_equal(c[i]->report.cached, i < 2 ? 0 : SYSTEM);
        free(c[i]);
    }
    mq_scheduler_stop(s);
    mq_engine_close(engine);
}

/* Window parts are few as well: they are what jobs wait for. */
static void test_crowded(void **state)
{
    (void)state;
    const mq_scheduler_stats stats = check_crowded();
    assert_true(stats.kv_windows > 0 && stats.kv_windows < stats.kv_blocks);
}

/* The next prompt has the answer, or leaves it out: no more is read again than a block. */
static void test_turns(void **state)
{
    (void)state;
    enum { NEW = 10, TURNS = 12 };
    mq_engine *engine = open_engine(1, 128);
    mq_scheduler *s = start(engine, NULL);
    client *c = new_client(3, 200);
    must_submit(s, c, 0);
    finish(c);
    for (uint32_t turn = 0; turn < TURNS; turn++) {
        const uint32_t keeps = turn % 2 ? ANSWER : 0, known = c->count + keeps;
        memcpy(c->prompt + c->count, c->answer, keeps * sizeof *c->answer);
        for (uint32_t i = 0; i < NEW + turn; i++) {
            c->prompt[known + i] = (int32_t)(30 + (i * turn) % 100);
        }
        const uint32_t before = c->count;
        c->count = known + NEW + turn;
        must_submit(s, c, 0);
        finish(c);
        assert_int_equal(c->report.cached, (keeps ? known - 1 : before) / 64 * 64);
    }
    free(c);
    mq_scheduler_stop(s);
    mq_engine_close(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_others_begin_there),
        cmocka_unit_test(test_crowded),
        cmocka_unit_test(test_turns),
    };
    return cmocka_run_group_tests(tests, open_text, close_text);
}
