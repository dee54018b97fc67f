/* KV that one scheduler's requests take from another one, without a network: what comes is used, what does not come is computed, and
 * the answers are the same. */
#include "unit_client.h"

#include "base/pool.h"
#include "engine/engine.h"
#include "engine/kv_image.h"
#include "sched/transfer.h"

#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>

/* The time of day is set back by so many seconds after it was read; in place of the C library's. */
static atomic_int set_back;

int clock_gettime(clockid_t clock, struct timespec *now)
{
    const long result = syscall(SYS_clock_gettime, clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += atomic_load(&set_back);
    return (int)result;
}

/* What the other engine shall do. */
typedef enum how { COMPLETES, STOPS, DECLINES, REFUSES, HANGS } how;

typedef struct other {
    struct mq_kv_source source;
    mq_engine *engine;
    mq_scheduler *scheduler, *asks; /* asks: whose source it is */
    how manner;
    uint32_t stops_at;   /* tokens after which it fails */
    uint32_t good_after; /* failures after which it completes */
    uint32_t begun, ended;
    uint32_t first, count; /* of the latest request */
} other;

struct mq_kv_arrival {
    other *by;
    mq_kv_wanted wanted;
    client client;
    struct mq_kv_sink sink;
    const mq_sequence *sequence;
    how manner;
    pthread_mutex_t lock;
    uint32_t stored[64]; /* tokens of each layer that are copied */
    bool over;           /* of the request */
    uint8_t precise[LONG / 8];
};

/* ---- the sink: copies chunks from block to block */

static void copy_layer(mq_kv_arrival *a, uint32_t layer, uint32_t count, const float *state)
{
    const mq_kv_layout *layout = &a->by->engine->kv_layout;
    const uint32_t end = count < a->wanted.count ? count : a->wanted.count;
    const uint32_t bare = mq__kv_bare(layout, a->wanted.first, a->wanted.count);
    uint16_t *const *from = mq__kv_pages(layout, layer, a->sequence->pages, a->sequence->window_pages);
    uint16_t *const *to = mq__kv_pages(layout, layer, a->wanted.pages, a->wanted.window_pages);
    static uint8_t payload[1 << 16];
    assert_true(mq__kv_chunk_most(layout) <= sizeof payload);
    for (uint32_t at = a->wanted.first + (layout->layer[layer].window ? bare : 0); at < end;) {
        const mq_kvchunk chunk = mq__kv_chunk_at(layout, layer, at, end);
        mq__kv_chunk_gather(layout, &chunk, from[at / MQ_PAGE_TOKENS], payload);
        mq__kv_chunk_scatter(layout, &chunk, payload, to[at / MQ_PAGE_TOKENS]);
        at += chunk.count;
    }
    a->stored[layer] = end;
    const mq_kv_layer *l = &layout->layer[layer];
    if (l->state_floats && end == a->wanted.count)
        memcpy(a->wanted.state + l->state_at, state + l->state_at, l->state_floats * sizeof *state);
}

static void sink_begin(void *context, const mq_sequence *sequence, uint32_t ready)
{
    mq_kv_arrival *a = context;
    a->sequence = sequence;
    for (uint32_t l = 0; l < a->by->engine->kv_layout.layers; l++) {
        copy_layer(a, l, ready, sequence->state);
    }
}

static void sink_stored(void *context, uint32_t layer, uint32_t count, const float *state)
{
    mq_kv_arrival *a = context;
    if (layer > 0) assert_true(a->stored[layer - 1] >= (count < a->wanted.count ? count : a->wanted.count));
    copy_layer(a, layer, count, state);
}

static void hear_other(void *context, const mq_event *event)
{
    mq_kv_arrival *a = context;
    if (event->kind != MQ_EVENT_END) return;
    pthread_mutex_lock(&a->lock);
    a->over = true;
    pthread_mutex_unlock(&a->lock);
    mq__scheduler_wake(a->by->asks);
}

/* ---- the source */

static void ask_other(other *o, mq_kv_arrival *a)
{
    a->sink = (struct mq_kv_sink){sink_begin, sink_stored, a};
    const mq_request request = {.tokens = a->wanted.tokens,
                                .count = a->wanted.count + 1,
                                .options = {.sampling = MQ_SAMPLING_GREEDY},
                                .prefill_only = true,
                                .sink = &a->sink,
                                .event = hear_other,
                                .context = a};
    mq_error error = {0};
    if (mq_scheduler_submit(o->scheduler, &request, &a->client.job, &error) != MQ_OK) fail_msg("%s", error.text);
}

static mq_kv_arrival *begin_arrival(void *self, const mq_kv_wanted *wanted, bool *refused, mq_error *error)
{
    other *o = self;
    assert_int_equal(wanted->first % MQ_PAGE_TOKENS, 0);
    o->first = wanted->first;
    o->count = wanted->count;
    if (o->manner == REFUSES) {
        *refused = true;
        (void)snprintf(error->text, sizeof error->text, "nobody takes it");
        error->status = MQ_IO;
        return NULL;
    }
    mq_kv_arrival *a = calloc(1, sizeof *a);
    assert_non_null(a);
    pthread_mutex_init(&a->lock, NULL);
    a->by = o;
    a->wanted = *wanted;
    a->manner = o->good_after && wanted->attempt >= o->good_after ? COMPLETES : o->manner;
    o->begun++;
    if (a->manner == COMPLETES || a->manner == STOPS) ask_other(o, a);
    return a;
}

static mq_arrival_state state_of_arrival(void *self, mq_kv_arrival *a, mq_arrival_facts *facts)
{
    (void)self;
    *facts = (mq_arrival_facts){.whole = a->wanted.first, .precise = a->precise};
    if (a->manner == HANGS) return MQ_ARRIVING;
    facts->declined = a->manner == DECLINES;
    (void)snprintf(facts->error.text, sizeof facts->error.text, "it broke");
    facts->error.status = MQ_IO;
    if (a->manner == DECLINES) return MQ_ARRIVAL_FAILED;
    pthread_mutex_lock(&a->lock);
    const bool over = a->over;
    pthread_mutex_unlock(&a->lock);
    if (!over) return MQ_ARRIVING;
    facts->whole = a->wanted.count;
    if (a->manner == COMPLETES) return MQ_ARRIVED;
    if (a->by->stops_at < facts->whole) facts->whole = a->by->stops_at;
    return MQ_ARRIVAL_FAILED;
}

static void end_arrival(void *self, mq_kv_arrival *a)
{
    other *o = self;
    o->ended++;
    if (a->client.job) mq_job_free(a->client.job);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

/* ---- two engines */

static mq_scheduler *start_two(other *o, how manner, bool fails, mq_engine **engine)
{
    *o = (other){.source = {begin_arrival, state_of_arrival, end_arrival, fails, o}, .manner = manner};
    o->engine = open_engine(3, 64);
    o->scheduler = start(o->engine, NULL);
    *engine = open_engine(3, 64);
    const mq_scheduler_options options = {.source = &o->source};
    return o->asks = start(*engine, &options);
}

static void stop_two(other *o, mq_scheduler *s, mq_engine *engine)
{
    mq_scheduler_stop(s);
    assert_int_equal(o->begun, o->ended);
    mq_scheduler_stop(o->scheduler);
    mq_engine_close(o->engine);
    mq_engine_close(engine);
}

/* The answer of a scheduler that does everything itself. */
static void answer_here(client *c, uint32_t i, int32_t *answer)
{
    mq_engine *engine = open_engine(3, 64);
    mq_scheduler *s = start(engine, NULL);
    must_submit(s, c, i);
    finish(c);
    assert_int_equal(c->report.status, MQ_OK);
    assert_int_equal(c->report.prefilled, c->count > 1 ? MQ_PREFILLED_LOCAL : MQ_PREFILLED_NONE);
    memcpy(answer, c->answer, c->most * sizeof *answer);
    mq_scheduler_stop(s);
    mq_engine_close(engine);
}

static void must_answer(mq_scheduler *s, client *c, uint32_t i, const int32_t *expected)
{
    must_submit(s, c, i);
    finish(c);
    assert_int_equal(c->report.status, MQ_OK);
    assert_int_equal(c->answered, c->most);
    assert_memory_equal(c->answer, expected, c->most * sizeof *expected);
}

static mq_scheduler_stats stats_now(mq_scheduler *s)
{
    mq_scheduler_stats stats;
    mq_scheduler_describe(s, &stats);
    return stats;
}

/* Until what is freed by another thread is. */
static void wait_idle_pool(mq_scheduler *s, uint32_t busy)
{
    for (int i = 0; i < 400; i++) {
        const mq_scheduler_stats stats = stats_now(s);
        if (stats.held == 0 && stats.kv_blocks - stats.kv_blocks_free - stats.kv_blocks_cached <= busy) return;
        (void)nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    fail_msg("blocks are still held");
}

/* ---- tests */

static void test_arrived_equals_computed(void **state)
{
    (void)state;
    static const uint32_t lengths[] = {1, 2, 63, 64, 65, 66, 129, 300, 777};
    other o;
    mq_engine *engine;
    mq_scheduler *s = start_two(&o, COMPLETES, false, &engine);
    for (uint32_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        int32_t expected[ANSWER];
        client *c = new_client(i + 3, lengths[i]);
        answer_here(c, i, expected);
        must_answer(s, c, i, expected);
        assert_int_equal(c->report.prefilled, lengths[i] > 1 ? MQ_PREFILLED_REMOTE : MQ_PREFILLED_NONE);
        assert_int_equal(c->report.arrived, lengths[i] - 1);
        must_answer(s, c, i, expected); /* from the cache, but for the tail */
        assert_int_equal(c->report.arrived, (lengths[i] - 1) % MQ_PAGE_TOKENS);
        free(c);
    }
    assert_int_equal(stats_now(s).prompt_tokens, 0);
    wait_idle_pool(o.scheduler, 0);
    stop_two(&o, s, engine);
}

/* A second turn wants only what is new. */
static void test_only_what_is_missing(void **state)
{
    (void)state;
    other o;
    mq_engine *engine;
    mq_scheduler *s = start_two(&o, COMPLETES, false, &engine);
    client *c = new_client(1, 200), *turn = new_client(1, 500);
    int32_t expected[ANSWER];
    must_submit(s, c, 0);
    finish(c);
    assert_int_equal(o.first, 0);
    answer_here(turn, 2, expected);
    must_answer(s, turn, 2, expected);
    assert_int_equal(o.first, 192);
    assert_int_equal(o.count, 499);
    assert_int_equal(turn->report.cached, 192);
    assert_int_equal(turn->report.arrived, 499 - 192);
    free(c);
    free(turn);
    stop_two(&o, s, engine);
}

static void test_what_fails_is_computed(void **state)
{
    (void)state;
    other o;
    mq_engine *engine;
    mq_scheduler *s = start_two(&o, STOPS, false, &engine);
    const bool windows = engine->kv_layout.window > 0; /* those before where it stops have not come: it is of no use */
    int32_t expected[ANSWER];
    client *c = new_client(11, 400);
    answer_here(c, 1, expected);
    o.stops_at = 133;
    must_answer(s, c, 1, expected);
    assert_int_equal(o.begun, windows ? 2 : 1); /* it holds 133 tokens: the next attempt would begin within a block */
    assert_int_equal(c->report.prefilled, MQ_PREFILLED_LOCAL);
    assert_int_equal(c->report.transfer_failures, windows ? 2 : 1);
    assert_int_equal(c->report.arrived, windows ? 0 : 133);
    free(c);

    c = new_client(12, 400);
    answer_here(c, 2, expected);
    o.stops_at = 128;
    must_answer(s, c, 2, expected);
    assert_int_equal(o.begun, windows ? 4 : 3);
    assert_int_equal(o.first, windows ? 0 : 128);
    assert_int_equal(c->report.transfer_failures, 2);
    assert_int_equal(c->report.prefilled, MQ_PREFILLED_LOCAL);
    free(c);

    c = new_client(13, 400);
    answer_here(c, 3, expected);
    o.good_after = 1; /* the second one is done well: nothing is computed here */
    must_answer(s, c, 3, expected);
    assert_int_equal(o.first, windows ? 0 : 128);
    assert_int_equal(c->report.transfer_failures, 1);
    assert_int_equal(c->report.prefilled, MQ_PREFILLED_REMOTE);
    free(c);
    assert_int_equal(stats_now(s).transfers_failed, windows ? 5 : 4);
    stop_two(&o, s, engine);
}

static void test_declined_and_refused(void **state)
{
    (void)state;
    other o;
    mq_engine *engine;
    mq_scheduler *s = start_two(&o, DECLINES, false, &engine);
    int32_t expected[ANSWER];
    client *c = new_client(21, 300);
    answer_here(c, 0, expected);
    must_answer(s, c, 0, expected);
    assert_int_equal(o.begun, 1);
    assert_int_equal(c->report.transfer_failures, 0);
    assert_int_equal(c->report.prefilled, MQ_PREFILLED_LOCAL);
    free(c);
    o.manner = REFUSES;
    c = new_client(22, 300);
    answer_here(c, 0, expected);
    must_answer(s, c, 0, expected);
    assert_int_equal(c->report.prefilled, MQ_PREFILLED_LOCAL);
    free(c);
    stop_two(&o, s, engine);
}

static void test_a_failure_may_fail_the_request(void **state)
{
    (void)state;
    static const how manners[] = {STOPS, REFUSES};
    for (uint32_t i = 0; i < 2; i++) {
        other o;
        mq_engine *engine;
        mq_scheduler *s = start_two(&o, manners[i], true, &engine);
        client *c = new_client(31, 300);
        must_submit(s, c, 0);
        finish(c);
        assert_int_equal(c->report.status, MQ_IO);
        assert_string_equal(c->report.error.text, i ? "nobody takes it" : "it broke");
        assert_int_equal(c->answered, 0);
        wait_idle_pool(s, 0);
        free(c);
        stop_two(&o, s, engine);
    }
}

/* Clients that leave while KV is on its way, and a scheduler that stops then; others go on meanwhile. */
static void test_leaving_while_it_arrives(void **state)
{
    (void)state;
    other o;
    mq_engine *engine;
    mq_scheduler *s = start_two(&o, HANGS, false, &engine);
    client *c = new_client(41, 300), *small = new_client(42, 1), *last = new_client(43, 300);
    int32_t expected[ANSWER];
    answer_here(small, 0, expected);
    must_submit(s, c, 0);
    must_answer(s, small, 0, expected); /* nothing of it is prefilled anywhere */
    pthread_mutex_lock(&c->lock);
    assert_true(c->report.arriving);
    pthread_mutex_unlock(&c->lock);
    assert_int_equal(stats_now(s).arriving, 1);
    leave(c);
    wait_idle_pool(s, 0);
    must_submit(s, last, 0);
    (void)nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    stop_two(&o, s, engine);
    leave(last);
    free(c);
    free(small);
    free(last);
}

/* What ended stays for its client, whatever others need, and is free afterwards. */
static void test_held_until_freed(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(1, 64);
    mq_scheduler *s = start(engine, NULL);
    client *c = new_client(51, 400), *next = new_client(52, 800);
    mq_request request = {.tokens = c->prompt,
                          .count = c->count,
                          .options = options_of(0, c->most),
                          .prefill_only = true,
                          .hold = true,
                          .event = hear,
                          .context = c};
    assert_int_equal(mq_scheduler_submit(s, &request, &c->job, NULL), MQ_OK);
    wait_read(c, 399);
    must_submit(s, next, 0); /* there is no room for it beside the held one */
    for (int i = 0; i < 20; i++) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
        assert_int_equal(stats_now(s).held, 1);
        assert_int_equal(stats_now(s).running, 0);
    }
    pthread_mutex_lock(&c->lock);
    assert_true(c->ended);
    assert_int_equal(c->answered, 0);
    pthread_mutex_unlock(&c->lock);
    leave(c);
    finish(next);
    assert_int_equal(next->report.status, MQ_OK);
    assert_int_equal(next->answered, next->most);
    wait_idle_pool(s, 0);
    mq_scheduler_stop(s);
    mq_engine_close(engine);
    free(c);
    free(next);
}

/* An answer that needs the blocks of what is held waits for them; nobody is aborted. */
static void test_running_waits_for_held(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(1, 64);
    static int32_t alone[LONG];
    client *held = new_client(51, 400), *c = new_client(53, 100);
    c->most = 800; /* 15 blocks in all, of 16 */
    answer_alone(engine, c, 0, alone);
    mq_scheduler *s = start(engine, &(mq_scheduler_options){.draft = MQ_DRAFT_OFF});
    mq_request request = {.tokens = held->prompt,
                          .count = held->count,
                          .options = options_of(0, held->most),
                          .prefill_only = true,
                          .hold = true,
                          .event = hear,
                          .context = held};
    assert_int_equal(mq_scheduler_submit(s, &request, &held->job, NULL), MQ_OK);
    wait_read(held, 399);
    must_submit(s, c, 0);
    wait_answer(c, 9 * 64 - 100); /* the others are held */
    for (int i = 0; i < 20; i++) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
        assert_int_equal(stats_now(s).running, 1);
    }
    assert_true(mq__scheduler_lacked_room(s));
    leave(held);
    finish(c);
    check_answer(c, alone);
    mq_scheduler_stop(s);
    mq_engine_close(engine);
    free(held);
    free(c);
}

/* What fails after a failed transfer says its own reason. */
static void test_each_failure_has_its_reason(void **state)
{
    (void)state;
    other o;
    mq_engine *engine;
    mq_scheduler *s = start_two(&o, STOPS, false, &engine);
    client *c = new_client(71, 300);
    float damaged[1024];
    for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
        damaged[i] = NAN;
    }
    const float *norm = engine->weights->model.final_norm;
    engine->weights->model.final_norm = damaged;
    must_submit(s, c, 0);
    finish(c);
    assert_int_equal(c->report.transfer_failures, 2);
    unit_refused(c->report.status, MQ_FORMAT, &c->report.error, "NaN");
    engine->weights->model.final_norm = norm;
    stop_two(&o, s, engine);
    free(c);
}

static void test_waits_by_no_clock_that_is_set(void **state)
{
    (void)state;
    other o;
    mq_engine *engine;
    mq_scheduler *s = start_two(&o, HANGS, false, &engine);
    client *c = new_client(61, 300);
    must_submit(s, c, 0);
    const double began = mq__seconds();
    atomic_store(&set_back, 10);
    mq_scheduler_drain(s, 0.05);
    atomic_store(&set_back, 0);
    assert_true(mq__seconds() - began < 5);
    stop_two(&o, s, engine);
    leave(c);
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arrived_equals_computed),
        cmocka_unit_test(test_only_what_is_missing),
        cmocka_unit_test(test_what_fails_is_computed),
        cmocka_unit_test(test_declined_and_refused),
        cmocka_unit_test(test_a_failure_may_fail_the_request),
        cmocka_unit_test(test_leaving_while_it_arrives),
        cmocka_unit_test(test_held_until_freed),
        cmocka_unit_test(test_running_waits_for_held),
        cmocka_unit_test(test_each_failure_has_its_reason),
        cmocka_unit_test(test_waits_by_no_clock_that_is_set),
    };
    return cmocka_run_group_tests(tests, open_text, close_text);
}
