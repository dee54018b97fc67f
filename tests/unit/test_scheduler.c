/* The scheduler: whatever runs together, is cached, parked or abandoned, an answer has the tokens that it has alone. */
#include "unit_client.h"

#include <time.h>

#define CLIENTS 16

static mq_scheduler_stats stats_of(mq_scheduler *s)
{
    mq_scheduler_stats stats;
    mq_scheduler_describe(s, &stats);
    return stats;
}

static uint32_t length_of(uint32_t i)
{
    return 1 + i * 97 % LONG;
}

/* ---- tests */

static void test_many_equal_singles(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(CLIENTS, 128);
    static int32_t alone[CLIENTS][ANSWER];
    client *c[CLIENTS], *gone = new_client(99, 850);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        c[i] = new_client(i, length_of(i));
        answer_alone(engine, c[i], i, alone[i]);
    }
    mq_scheduler *s = start(engine, NULL);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        must_submit(s, c[i], i);
        if (i == 5) must_submit(s, gone, 0);
        if (i == 9) leave(gone); /* a neighbour that is cancelled changes nothing */
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        finish(c[i]);
        check_answer(c[i], alone[i]);
    }
    /* Once more, from the cache. */
    for (uint32_t i = 0; i < CLIENTS; i++) {
        must_submit(s, c[i], i);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        finish(c[i]);
        check_answer(c[i], alone[i]);
        assert_int_equal(c[i]->report.cached, (c[i]->count - 1) / 64 * 64);
        free(c[i]);
    }
    free(gone);
    assert_int_equal(stats_of(s).failed, 0);
    assert_true(stats_of(s).hit_tokens > 0);
    mq_scheduler_stop(s);
    mq_engine_close(engine);
}

/* Turns of a conversation: what was read or written is not read again. */
static void test_turns_reuse(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(1, 256);
    mq_scheduler *s = start(engine, NULL);
    client *c = new_client(3, 300);
    must_submit(s, c, 0);
    finish(c);
    uint64_t computed = stats_of(s).prompt_tokens;
    for (uint32_t turn = 0; turn < 5; turn++) {
        memcpy(c->prompt + c->count, c->answer, ANSWER * sizeof *c->answer);
        const uint32_t known = c->count + ANSWER;
        for (uint32_t i = 0; i < 70; i++) {
            c->prompt[known + i] = (int32_t)(30 + (i * turn) % 100);
        }
        c->count = known + 70;
        must_submit(s, c, 0);
        finish(c);
        const uint64_t now = stats_of(s).prompt_tokens;
        assert_true(now - computed <= 70 + 64);
        assert_true(c->report.cached + 70 + 64 >= c->count);
        computed = now;
    }
    free(c);
    mq_scheduler_stop(s);
    mq_engine_close(engine);
}

/* Fewer than a decode pass takes, more, and all: the answers are those of the engine itself, and so much was not prefilled. */
static void test_last_tokens_are_decoded(void **state)
{
    (void)state;
    const uint32_t last[] = {40, 100, LONG};
    for (size_t i = 0; i < sizeof last / sizeof *last; i++) {
        mq_engine *engine = open_engine_last(4, 128, last[i]);
        static int32_t alone[3][ANSWER];
        client *c[3];
        for (uint32_t k = 0; k < 3; k++) {
            c[k] = new_client(20 + k, 300);
            answer_alone(engine, c[k], k, alone[k]);
        }
        mq_scheduler *s = start(engine, NULL);
        for (uint32_t k = 0; k < 3; k++) {
            must_submit(s, c[k], k);
        }
        for (uint32_t k = 0; k < 3; k++) {
            finish(c[k]);
            check_answer(c[k], alone[k]);
            assert_int_equal(c[k]->report.prompt_done, 300);
            free(c[k]);
        }
        assert_int_equal(stats_of(s).prompt_tokens, last[i] < 300 ? 3 * (300 - last[i]) : 0);
        mq_scheduler_stop(s);
        mq_engine_close(engine);
    }
}

static void test_dropped_prefill_is_continued(void **state)
{
    (void)state;
    enum { CHUNK = 128 };
    mq_engine *engine = open_engine(2, CHUNK);
    static int32_t alone[ANSWER];
    client *c = new_client(7, LONG);
    answer_alone(engine, c, 0, alone);
    mq_scheduler *s = start(engine, NULL);
    for (uint32_t percent = 30; percent <= 90; percent += 30) {
        must_submit(s, c, 0);
        wait_read(c, LONG * percent / 100);
        leave(c);
    }
    must_submit(s, c, 0);
    finish(c);
    check_answer(c, alone);
    assert_true(c->report.cached > LONG * 2 / 3);
    assert_true(stats_of(s).prompt_tokens <= LONG + 3 * CHUNK);
    free(c);
    mq_scheduler_stop(s);
    mq_engine_close(engine);
}

static void test_abandoned_prefill_is_finished(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(2, 128);
    mq_scheduler *s = start(engine, &(mq_scheduler_options){.finish_abandoned = true});
    client *c = new_client(8, LONG);
    must_submit(s, c, 0);
    wait_read(c, 128);
    leave(c);
    must_submit(s, c, 0); /* attaches to what is still being read */
    finish(c);
    assert_int_equal(c->report.cached, (LONG - 1) / 64 * 64);
    assert_true(stats_of(s).prompt_tokens <= LONG + 64);
    free(c);
    mq_scheduler_stop(s);
    mq_engine_close(engine);
}

static void test_same_prompt_is_read_once(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(8, 128);
    static int32_t alone[ANSWER];
    client *c[6];
    for (int i = 0; i < 6; i++) {
        c[i] = new_client(11, LONG);
    }
    answer_alone(engine, c[0], 0, alone);
    mq_scheduler *s = start(engine, NULL);
    for (int i = 0; i < 6; i++) {
        must_submit(s, c[i], 0);
    }
    for (int i = 0; i < 6; i++) {
        finish(c[i]);
        check_answer(c[i], alone);
        free(c[i]);
    }
    assert_true(stats_of(s).prompt_tokens <= LONG + 6 * 64);
    mq_scheduler_stop(s);
    mq_engine_close(engine);
}

/* The pool holds three prompts, but not their answers: one waits in between, and nobody notices but by the clock. */
static void test_small_pool_parks(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(1, 256);
    static int32_t alone[3][LONG];
    client *c[3];
    for (uint32_t i = 0; i < 3; i++) {
        c[i] = new_client(20 + i, 64 + 40);
        c[i]->most = 400;
        answer_alone(engine, c[i], i, alone[i]);
    }
    mq_scheduler *s = start(engine, &(mq_scheduler_options){.streams = 3, .draft = MQ_DRAFT_OFF});
    for (uint32_t i = 0; i < 3; i++) {
        must_submit(s, c[i], i);
    }
    for (uint32_t i = 0; i < 3; i++) {
        finish(c[i]);
        check_answer(c[i], alone[i]);
        free(c[i]);
    }
    assert_true(stats_of(s).preempted > 0);
    mq_scheduler_stop(s);
    mq_engine_close(engine);
}

/* Drafted or not, greedy or drawn: the same tokens. */
static void test_drafts_change_nothing(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(4, 256);
    static int32_t alone[4][LONG];
    client *c[4];
    for (uint32_t i = 0; i < 4; i++) {
        c[i] = new_client(80 + i, 100);
        for (uint32_t t = 10; t < 100; t++) {
            c[i]->prompt[t] = c[i]->prompt[t % 10]; /* what repeats itself is what a small random model repeats */
        }
        c[i]->most = 500;
        answer_alone(engine, c[i], i, alone[i]);
    }
    for (int drafts = 0; drafts < 2; drafts++) {
        mq_scheduler *s = start(engine, &(mq_scheduler_options){.draft = drafts ? MQ_DRAFT_LOOKUP : MQ_DRAFT_OFF});
        for (uint32_t i = 0; i < 4; i++) {
            must_submit(s, c[i], i);
        }
        for (uint32_t i = 0; i < 4; i++) {
            finish(c[i]);
            check_answer(c[i], alone[i]);
            assert_true(c[i]->report.drafted_right <= c[i]->report.drafted);
        }
        const mq_scheduler_stats stats = stats_of(s);
        assert_true(drafts ? stats.drafted_tokens > 0
                           : stats.drafted_tokens == 0); /* how many pay is the machine's matter */
        mq_scheduler_stop(s);
    }
    for (uint32_t i = 0; i < 4; i++) {
        free(c[i]);
    }
    mq_engine_close(engine);
}

static void test_owners_do_not_share(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(2, 256);
    mq_scheduler *s = start(engine, NULL);
    client *c = new_client(30, 400);
    for (uint64_t owner = 1; owner <= 2; owner++) {
        assert_int_equal(submit(s, c, 0, owner, NULL), MQ_OK);
        finish(c);
        assert_int_equal(c->report.cached, 0);
        assert_int_equal(submit(s, c, 0, owner, NULL), MQ_OK);
        finish(c);
        assert_int_equal(c->report.cached, 384);
    }
    free(c);
    mq_scheduler_stop(s);
    mq_engine_close(engine);
}

static void test_a_miss_is_explained(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(1, 256);
    mq_scheduler *s = start(engine, NULL);
    client *c = new_client(31, 400);
    must_submit(s, c, 0);
    finish(c);
    const int32_t was = c->prompt[200];
    c->prompt[200] = was + 1;
    must_submit(s, c, 0);
    finish(c);
    assert_int_equal(c->report.cached, 192);
    assert_int_equal(c->report.miss_at, 200);
    assert_int_equal(c->report.miss_token, was);
    free(c);
    mq_scheduler_stop(s);
    mq_engine_close(engine);
}

static void test_refusals(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(2, 64);
    mq_scheduler *s = start(engine, &(mq_scheduler_options){.streams = 1, .queue = 2});
    client *c[5], *wrong = new_client(1, 3);
    mq_error error = {0};
    mq_status status = MQ_OK;
    wrong->prompt[1] = 1 << 30;
    assert_int_equal(submit(s, wrong, 0, 0, &error), MQ_USAGE);
    wrong->count = 0;
    assert_int_equal(submit(s, wrong, 0, 0, &error), MQ_LIMIT);
    for (uint32_t i = 0; i < 5; i++) {
        c[i] = new_client(40 + i, LONG);
        c[i]->most = 120; /* so that none ends meanwhile */
        if (status == MQ_OK) status = submit(s, c[i], 0, 0, &error);
    }
    assert_int_equal(status, MQ_LIMIT);
    assert_non_null(strstr(error.text, "queue"));
    for (uint32_t i = 0; i < 5; i++) {
        leave(c[i]);
        free(c[i]);
    }
    mq_scheduler_drain(s, 20);
    wrong->count = 1;
    assert_int_equal(submit(s, wrong, 0, 0, &error), MQ_CANCELLED);
    mq_scheduler_stop(s);
    free(wrong);
    mq_engine_close(engine);
}

/* A key may have as many requests waiting as places are left: others find some. */
static void test_places_of_the_queue(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(1, 64);
    mq_scheduler *s = start(engine, &(mq_scheduler_options){.streams = 1, .queue = 8});
    client *runs = new_client(40, 40), *waits[8], *refused = new_client(49, 100);
    static const struct {
        uint64_t owner;
        uint32_t places;
    } cases[] = {{1, 4}, {2, 2}, {3, 1}, {0, 1}};
    mq_error error = {0};
    uint32_t count = 0;
    runs->most = 900;
    assert_int_equal(submit(s, runs, 0, 1, NULL), MQ_OK);
    while (stats_of(s).running == 0 || stats_of(s).waiting > 0) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    pthread_mutex_lock(&runs->lock); /* it goes no further than to its next token */
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (uint32_t n = 0; n < cases[i].places; n++) {
            waits[count] = new_client(41 + count, LONG);
            assert_int_equal(submit(s, waits[count++], 0, cases[i].owner, NULL), MQ_OK);
        }
        unit_refused(submit(s, refused, 0, cases[i].owner, &error), MQ_LIMIT, &error, "queue");
    }
    unit_refused(submit(s, refused, 0, 4, &error), MQ_LIMIT, &error, "at most 8");
    pthread_mutex_unlock(&runs->lock);
    leave(runs);
    for (uint32_t i = 0; i < count; i++) {
        leave(waits[i]);
    }
    mq_scheduler_drain(s, 20);
    for (uint32_t i = 0; i < count; i++) {
        free(waits[i]);
    }
    mq_scheduler_stop(s);
    free(runs);
    free(refused);
    mq_engine_close(engine);
}

/* Whoever still runs at the stop is told. */
static void test_stop_ends_all(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(2, 64);
    mq_scheduler *s = start(engine, NULL);
    client *c[4];
    for (uint32_t i = 0; i < 4; i++) {
        c[i] = new_client(50 + i, LONG);
        c[i]->most = 120;
        must_submit(s, c[i], 0);
    }
    wait_read(c[0], 64);
    mq_scheduler_stop(s);
    for (uint32_t i = 0; i < 4; i++) {
        assert_true(c[i]->ended);
        assert_true(c[i]->report.finish == MQ_FINISH_CANCELLED || c[i]->answered == c[i]->most);
        leave(c[i]);
        free(c[i]);
    }
    mq_engine_close(engine);
}

/* ---- the disk */

static uint32_t first_turn_cached(const char *dir, client *c, uint64_t disk, int32_t *answer)
{
    mq_engine *engine = open_engine(1, 256);
    mq_scheduler *s = start(engine, &(mq_scheduler_options){.cache_dir = dir, .disk_bytes = disk});
    must_submit(s, c, 0);
    finish(c);
    const uint32_t cached = c->report.cached;
    memcpy(answer, c->answer, ANSWER * sizeof *answer);
    mq_scheduler_stop(s);
    mq_engine_close(engine);
    return cached;
}

static void damage_a_file(const char *dir)
{
    DIR *folder = opendir(dir);
    assert_non_null(folder);
    bool done = false;
    for (const struct dirent *e = readdir(folder); e && !done; e = readdir(folder)) {
        char path[700];
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        FILE *file = strstr(path, ".mqkv") ? fopen(path, "r+b") : NULL;
        if (!file) continue;
        assert_int_equal(fseek(file, 3000, SEEK_SET), 0);
        assert_int_equal(fputc('X', file), 'X');
        assert_int_equal(fclose(file), 0);
        done = true;
    }
    closedir(folder);
    assert_true(done);
}

/* What nobody ever writes to. */
static void replace_by_fifos(const char *dir)
{
    DIR *folder = opendir(dir);
    assert_non_null(folder);
    for (const struct dirent *e = readdir(folder); e; e = readdir(folder)) {
        char path[700];
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (!strstr(path, ".mqkv")) continue;
        assert_int_equal(unlink(path), 0);
        assert_int_equal(mkfifo(path, 0600), 0);
    }
    closedir(folder);
}

static void test_disk_outlives_the_process(void **state)
{
    (void)state;
    const char *dir = unit_path("kv");
    client *c = new_client(70, 700);
    int32_t first[ANSWER], again[ANSWER];
    assert_int_equal(first_turn_cached(dir, c, 0, first), 0);
    assert_int_equal(first_turn_cached(dir, c, 0, again), 640);
    assert_memory_equal(first, again, sizeof first);
    damage_a_file(dir);
    assert_true(first_turn_cached(dir, c, 0, again) < 640);
    assert_memory_equal(first, again, sizeof first);
    assert_int_equal(first_turn_cached(dir, c, 0, again), 640); /* written anew */
    replace_by_fifos(dir);
    assert_int_equal(first_turn_cached(dir, c, 0, again), 0);
    assert_memory_equal(first, again, sizeof first);
    assert_int_equal(first_turn_cached(dir, c, 0, again), 640);
    struct stat info;
    assert_int_equal(stat(dir, &info), 0);
    assert_int_equal(info.st_mode & 077, 0); /* what was asked is nobody else's business */
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_equal_singles),
        cmocka_unit_test(test_turns_reuse),
        cmocka_unit_test(test_last_tokens_are_decoded),
        cmocka_unit_test(test_dropped_prefill_is_continued),
        cmocka_unit_test(test_abandoned_prefill_is_finished),
        cmocka_unit_test(test_same_prompt_is_read_once),
        cmocka_unit_test(test_small_pool_parks),
        cmocka_unit_test(test_drafts_change_nothing),
        cmocka_unit_test(test_owners_do_not_share),
        cmocka_unit_test(test_a_miss_is_explained),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_places_of_the_queue),
        cmocka_unit_test(test_stop_ends_all),
        cmocka_unit_test(test_disk_outlives_the_process),
    };
    return cmocka_run_group_tests(tests, open_text, close_text);
}
