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
    mq_handoff_options options = {.least = 1, .timeout_s = 0.4};
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
    if (is_refused(d, at))
        WAIT_FOR(handoff_stats(s->d).refused_frames > before.refused_frames);
    else
        assert_int_equal(handoff_stats(s->d).refused_frames, before.refused_frames);
    const mq_report next = request(s);
    assert_int_equal(next.transfer_failures, 0);
    assert_int_equal(next.prefilled, MQ_PREFILLED_REMOTE);
    assert_int_equal(next.arrived, COUNT - 1);
    WAIT_FOR(handoff_stats(s->d).receiving == 0);
}

static void test_each_deed(void **state)
{
    (void)state;
    static const uint32_t places[] = {AT_ACCEPT, AT_BEGIN, AT_KV, AT_KV + 7, AT_COMMIT - 1, AT_COMMIT};
    scene s = open_scene(NULL);
    for (deed d = DIES; d < DEEDS; d++) {
        for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
            check_deed(&s, d, places[i]);
        }
    }
    close_scene(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_deed),
    };
    return cmocka_run_group_tests(tests, open_text, close_text);
}
