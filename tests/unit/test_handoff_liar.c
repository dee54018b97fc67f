/* A prefill worker that does anything but what it should: the answer is right all the same, from what came whole and what is computed
 * here, and the next hand-off goes well. */
#include "unit_liar.h"

#define COUNT 200 /* tokens of a prompt: 4 blocks of 3 layers */
enum { CHUNKS = 12, AT_COMMIT = AT_KV + CHUNKS };

typedef struct scene {
    liar *liar;
    worker *d;
    mq_engine *alone;
    uint32_t seed;
} scene;

static scene open_scene(const mq_handoff_options *more)
{
    scene s = {.seed = 1};
    mq_handoff_options options = {.least = 1, .timeout_s = SILENCE};
    if (more) options = *more;
    s.liar = start_liar(model);
    const char *name = s.liar->name;
    s.d = open_decode(open_model(model, 4, 128, MQ_LINEAR_NVFP4), &name, 1, &options);
    s.d->handoff->tuning.suspect_first = s.d->handoff->tuning.suspect_most = 0;
    s.alone = open_model(model, 1, 128, MQ_LINEAR_NVFP4);
    serve_worker(s.d, NULL);
    return s;
}

static void close_scene(scene *s)
{
    stop_worker(s->d);
    stop_liar(s->liar);
    mq_engine_close(s->alone);
}

/* A new prompt, its right answer, and how often its transfer failed. */
static mq_report request(scene *s)
{
    client *c = new_client(s->seed++, COUNT);
    c->most = 4;
    ask(s->d, c);
    await(c);
    check_truth(s->alone, c);
    const mq_report report = c->report;
    drop(c);
    return report;
}

/* Whether what it does to that message breaks a rule. */
static bool is_refused(deed d, uint32_t at)
{
    if (d == DIES || d == HANGS || d == FAILS) return false;
    if (d == FORGETS || d == SKIPS || d == REPEATS) return at != AT_COMMIT; /* what follows COMMIT is of no hand-off */
    return true;
}

/* Twice after COMMIT is of no hand-off, or of no matter any more. */
static bool is_late(deed d, uint32_t at, uint32_t commit)
{
    return (d == REPEATS || d == REPLAYS) && at >= commit;
}

/* Transfers fail at most twice; the second one asks for what the first one did not bring. */
static uint32_t failures_of(deed d, uint32_t at, uint32_t *blocks)
{
    *blocks = 4;
    if (at >= AT_COMMIT) return !is_late(d, at, AT_COMMIT);
    const uint32_t twice = d == REPEATS || d == REPLAYS, chunks = at < AT_KV ? 0 : at - AT_KV + twice;
    *blocks = chunks / 3;
    if (*blocks == 4) return 1;
    return is_late(d, at, AT_COMMIT - 3 * *blocks) ? 1 : 2;
}

static void check_deed(scene *s, deed d, uint32_t at)
{
    uint32_t blocks;
    const uint32_t failures = failures_of(d, at, &blocks);
    const mq_handoff_stats before = handoff_stats(s->d);
    set_deed(s->liar, d, at);
    const mq_report report = request(s);
    set_deed(s->liar, GOOD, 0);
    if (report.transfer_failures != failures || report.arrived < (blocks == 4 ? COUNT - 1 : 64 * blocks)) {
        fail_msg("deed %d at %u: %u failures, %u tokens", d, at, report.transfer_failures, report.arrived);
    }
    assert_int_equal(handoff_stats(s->d).receive_failures - before.receive_failures, failures);
    /* The second hand-off's COMMIT twice ends the link as well: the next request must not begin on it. */
    const bool again = d == REPLAYS && at < AT_COMMIT && failures == 1 && blocks < 4;
    if (is_refused(d, at))
        WAIT_FOR(handoff_stats(s->d).refused_frames > before.refused_frames + again);
    else
        assert_int_equal(handoff_stats(s->d).refused_frames, before.refused_frames);
    const mq_report next = request(s);
    if (next.transfer_failures) fail_msg("after deed %d at %u: %s", d, at, next.error.text);
    assert_int_equal(next.prefilled, MQ_PREFILLED_REMOTE);
    assert_int_equal(next.arrived, COUNT - 1);
    WAIT_FOR(handoff_stats(s->d).receiving == 0);
}

static void test_each_deed(void **state)
{
    (void)state;
    static const uint32_t places[] = {AT_ACCEPT, AT_BEGIN, AT_KV, AT_KV + 7, AT_COMMIT - 1, AT_COMMIT};
    static const mq_handoff_options patience[] = {{.least = 1}, {.least = 1, .timeout_s = SILENCE}};
    for (int waits = 0; waits < 2;
         waits++) { /* only those wait that are told nothing: a loaded machine is not silent */
        scene s = open_scene(&patience[waits]);
        for (deed d = DIES; d < DEEDS; d++) {
            const bool silent = d == HANGS || d == FORGETS || d == SKIPS;
            for (size_t i = 0; silent == waits && i < sizeof places / sizeof places[0]; i++) {
                check_deed(&s, d, places[i]);
            }
        }
        close_scene(&s);
    }
}

/* ---- greetings */

static bool describes(worker *w, const char *part)
{
    char *described = mq_handoff_describe(w->handoff);
    assert_non_null(described);
    const bool has = strstr(described, part) != NULL;
    mq_free(described);
    return has;
}

static void test_greetings(void **state)
{
    (void)state;
    static const struct {
        deed deed;
        const char *names;
    } cases[] = {{DIES, "the end of the connection"},
                 {HANGS, "expected a greeting within 0.3 s"},
                 {FAILS, "got a refusal: no room for liars"},
                 {FOREIGN, "tokenizer: expected the same on both sides"},
                 {REPLAYS, "greeting: expected the answer to this one"},
                 {REVERSES, "expected one of a prefill worker"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        scene s = open_scene(NULL);
        s.d->handoff->tuning.connect = 0.3;
        s.liar->greets = cases[i].deed;
        const mq_report report = request(&s);
        assert_int_equal(report.transfer_failures, 2);
        assert_int_equal(report.prefilled, MQ_PREFILLED_LOCAL);
        assert_int_equal(report.arrived, 0);
        assert_true(has_line(s.d, cases[i].names));
        assert_true(describes(s.d, cases[i].names));
        s.liar->greets = GOOD;
        assert_int_equal(request(&s).prefilled, MQ_PREFILLED_REMOTE);
        close_scene(&s);
    }
}

static void test_keys(void **state)
{
    (void)state;
    unit_puts("key", "0123456789abcdef");
    unit_puts("other", "0123456789abcdeg");
    const mq_handoff_options options = {.least = 1, .key_file = unit_path("key")};
    scene s = open_scene(&options);
    static const char *const wrong[] = {NULL, "other"};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(mq__auth_key_read(wrong[i] ? unit_path(wrong[i]) : NULL, &s.liar->key, NULL), MQ_OK);
        const mq_report report = request(&s);
        assert_int_equal(report.prefilled, MQ_PREFILLED_LOCAL);
        assert_int_equal(liar_count(s.liar, &s.liar->prefills), 0); /* it does not learn the prompt */
        assert_int_equal(handoff_stats(s.d).refused_frames, 0);     /* the stranger hangs up first: its own key fails */
    }
    assert_int_equal(mq__auth_key_read(unit_path("key"), &s.liar->key, NULL), MQ_OK);
    static const deed deeds[] = {DAMAGES_BODY, DAMAGES_HEAD, REPLAYS, SKIPS, FOREIGN, MISNAMES};
    for (size_t i = 0; i < sizeof deeds / sizeof deeds[0]; i++) {
        check_deed(&s, deeds[i], AT_KV + 4);
    }
    close_scene(&s);
}

/* ---- hand-offs that have ended here */

static void wait_prefills(liar *l, uint32_t count)
{
    WAIT_FOR(liar_count(l, &l->prefills) == count);
}

/* KV of a hand-off that was given up comes when another one runs in its place: it is dropped, and nobody minds. */
static void test_late_chunks(void **state)
{
    (void)state;
    const mq_handoff_options patient = {.least = 1};
    scene s = open_scene(&patient);
    for (int i = 0; i < 3; i++) {
        pthread_mutex_lock(&s.liar->lock);
        s.liar->holds = true;
        pthread_mutex_unlock(&s.liar->lock);
        client *c = new_client(s.seed++, COUNT);
        const uint32_t before = liar_count(s.liar, &s.liar->prefills);
        ask(s.d, c);
        wait_prefills(s.liar, before + 1);
        drop(c);
        WAIT_FOR(liar_count(s.liar, &s.liar->cancels) == (uint32_t)i + 1);
        const mq_report report = request(&s);
        assert_int_equal(report.transfer_failures, 0);
        assert_int_equal(report.arrived, COUNT - 1);
    }
    const mq_handoff_stats stats = handoff_stats(s.d);
    assert_int_equal(stats.refused_frames + stats.receive_failures, 0);
    assert_int_equal(stats.received, 3);
    assert_non_null(s.liar->talks);
    assert_null(s.liar->talks->next); /* one connection for all */
    close_scene(&s);
}

/* Everything that is left waits for the engine: the blocks are free again. */
static void test_blocks_come_back(void **state)
{
    (void)state;
    const mq_handoff_options patient = {.least = 1};
    scene s = open_scene(&patient);
    set_deed(s.liar, HANGS, AT_KV + 5);
    client *c = new_client(s.seed++, COUNT);
    ask(s.d, c);
    wait_prefills(s.liar, 1);
    wait_read(c, 64);
    drop(c);
    mq_scheduler_stats stats;
    do {
        nap(0.005);
        mq_scheduler_describe(s.d->scheduler, &stats);
    } while (stats.running || stats.held || stats.kv_blocks_free + stats.kv_blocks_cached != stats.kv_blocks);
    assert_int_equal(handoff_stats(s.d).receive_failures, 0);
    close_scene(&s);
}

/* ---- policies */

static void test_failing_is_asked_for(void **state)
{
    (void)state;
    const mq_handoff_options options = {.least = 1, .fails = true};
    scene s = open_scene(&options);
    s.d->handoff->tuning.suspect_first = s.d->handoff->tuning.suspect_most = 0.3;
    set_deed(s.liar, FAILS, AT_BEGIN);
    static const char *const expected[] = {"it is a liar", "expected a peer that prefills, got none"};
    for (int i = 0; i < 2; i++) { /* the second time it is left alone */
        client *c = new_client(s.seed++, COUNT);
        ask(s.d, c);
        WAIT_FOR(has_ended(c));
        assert_int_not_equal(c->report.status, MQ_OK);
        assert_non_null(strstr(c->report.error.text, expected[i]));
        assert_non_null(strstr(c->report.error.text, s.liar->name));
        drop(c);
    }
    set_deed(s.liar, GOOD, 0);
    nap(0.4);
    assert_int_equal(request(&s).prefilled, MQ_PREFILLED_REMOTE);
    close_scene(&s);
}

/* What one peer does not do another one does. */
static void test_another_peer(void **state)
{
    (void)state;
    liar *first = start_liar(model), *second = start_liar(model);
    const char *names[] = {first->name, second->name};
    worker *d = open_decode(open_model(model, 4, 128, MQ_LINEAR_NVFP4), names, 2, NULL);
    d->handoff->tuning.suspect_first = d->handoff->tuning.suspect_most = 60;
    mq_engine *alone = open_model(model, 1, 128, MQ_LINEAR_NVFP4);
    serve_worker(d, NULL);
    set_deed(first, FAILS, AT_KV + 8);
    client *c = new_client(77, COUNT);
    ask(d, c);
    await(c);
    check_truth(alone, c);
    assert_int_equal(c->report.transfer_failures, 1);
    assert_int_equal(c->report.prefilled, MQ_PREFILLED_REMOTE);
    assert_int_equal(c->report.arrived, COUNT - 1);
    assert_int_equal(liar_count(second, &second->prefills), 1);
    assert_int_equal(handoff_stats(d).peers, 2);
    assert_int_equal(handoff_stats(d).healthy, 1);
    drop(c);
    stop_worker(d);
    stop_liar(first);
    stop_liar(second);
    mq_engine_close(alone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_deed),
        cmocka_unit_test(test_greetings),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_late_chunks),
        cmocka_unit_test(test_blocks_come_back),
        cmocka_unit_test(test_failing_is_asked_for),
        cmocka_unit_test(test_another_peer),
    };
    return cmocka_run_group_tests(tests, open_text, close_text);
}
