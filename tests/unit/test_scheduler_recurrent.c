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

/* Who is parked begins again at a snapshot. */
static void test_crowded(void **state)
{
    (void)state;
    (void)check_crowded();
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

/* KV for one context. The second prompt goes on where the first one has a snapshot, before the place where they part: the blocks between
 * are there twice, and those of the first one go when the second needs them. */
static void test_a_lone_request_has_room(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(1, 256);
    static int32_t alone[LONG];
    client *first = new_client(5, 520), *second = new_client(6, 900);
    memcpy(second->prompt, first->prompt, 460 * sizeof *first->prompt);
    second->most = 110;
    answer_alone(engine, second, 0, alone);
    mq_scheduler *s = start(engine, &(mq_scheduler_options){.draft = MQ_DRAFT_OFF});
    must_submit(s, first, 0);
    finish(first);
    must_submit(s, second, 0);
    finish(second);
    check_answer(second, alone);
    free(first);
    free(second);
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

/* ---- the disk */

/* What a new process finds of the prompt; state_bytes 1: it keeps one snapshot only. */
static uint32_t cached_by_process(const char *dir, uint64_t state_bytes, client *c, int32_t *answer)
{
    mq_engine *engine;
    mq_error error = {0};
    const mq_engine_options options = {.model_dir = model,
                                       .plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16},
                                       .threads = 2,
                                       .context = 1024,
                                       .chunk = 256,
                                       .state_bytes = state_bytes,
                                       .no_cache = true};
    if (mq_engine_open(&options, &engine, &error) != MQ_OK) fail_msg("%s", error.text);
    mq_scheduler *s = start(engine, &(mq_scheduler_options){.cache_dir = dir});
    must_submit(s, c, 0);
    finish(c);
    const uint32_t cached = c->report.cached;
    memcpy(answer, c->answer, ANSWER * sizeof *answer);
    mq_scheduler_stop(s);
    mq_engine_close(engine);
    return cached;
}

/* Spoils the files of a folder; returns how many there are. */
static uint32_t damage_files(const char *dir)
{
    DIR *folder = opendir(dir);
    uint32_t count = 0;
    assert_non_null(folder);
    for (const struct dirent *e = readdir(folder); e; e = readdir(folder)) {
        char path[700];
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        FILE *file = strstr(path, ".mqkv") ? fopen(path, "r+b") : NULL;
        if (!file) continue;
        assert_int_equal(fseek(file, -30, SEEK_END), 0); /* in a state */
        assert_int_equal(fputc('X', file), 'X');
        assert_int_equal(fclose(file), 0);
        count++;
    }
    closedir(folder);
    return count;
}

static void test_disk_outlives_the_process(void **state)
{
    (void)state;
    const char *dir = unit_path("kv");
    client *c = new_client(70, 650);
    int32_t first[ANSWER], again[ANSWER];
    assert_int_equal(cached_by_process(dir, 0, c, first), 0);
    assert_int_equal(cached_by_process(dir, 0, c, again), 640);
    assert_memory_equal(first, again, sizeof first);
    assert_int_equal(damage_files(dir), 3);             /* to 256, to 512, to 640 */
    static const uint32_t found[] = {0, 256, 512, 640}; /* each finds a damaged one, and writes it anew */
    for (size_t i = 0; i < sizeof found / sizeof found[0]; i++) {
        assert_int_equal(cached_by_process(dir, 0, c, again), found[i]);
        assert_memory_equal(first, again, sizeof first);
    }
    c->count = 600;
    assert_int_equal(cached_by_process(dir, 0, c, again), 512);
    free(c);
}

/* Snapshots between that are lost make one span of many. */
static void test_one_snapshot_on_disk(void **state)
{
    (void)state;
    const char *dir = unit_path("kv1");
    client *c = new_client(71, 650);
    int32_t first[ANSWER], again[ANSWER];
    assert_int_equal(cached_by_process(dir, 1, c, first), 0);
    assert_int_equal(cached_by_process(dir, 1, c, again), 640);
    assert_memory_equal(first, again, sizeof first);
    assert_int_equal(cached_by_process(dir, 0, c, again), 640);
    assert_memory_equal(first, again, sizeof first);
    assert_int_equal(damage_files(dir), 1);
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_equal_singles),
        cmocka_unit_test(test_a_lone_request_has_room),
        cmocka_unit_test(test_crowded),
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_turn_ends),
        cmocka_unit_test(test_answer_ends),
        cmocka_unit_test(test_disk_outlives_the_process),
        cmocka_unit_test(test_one_snapshot_on_disk),
    };
    return cmocka_run_group_tests(tests, open_text, close_text);
}
