/* Hand-offs between workers: the KV that comes is the KV that would have been computed here, and so is the answer. */
#include "base/mem.h"
#include "unit_handoff.h"

static void check_family(const char *name, bool paired)
{
    char *dir;
    mq_error error = {0};
    if (mq_synth_cached(name, 0, NULL, &dir, &error) != MQ_OK) fail_msg("%s", error.text);
    mq_engine *alone = open_model(dir, 1, 128, MQ_LINEAR_NVFP4);
    worker *p = start_prefill(open_model(dir, 4, 128, MQ_LINEAR_NVFP4), NULL);
    const char *peer = p->name;
    worker *d = open_decode(open_model(dir, 8, 96, MQ_LINEAR_NVFP4), &peer, 1, NULL);
    if (paired) {
        d->paired = p;
        d->handoff->dial = dial_pair;
        d->handoff->dial_context = d;
    }
    serve_worker(d, NULL);
    static const uint32_t counts[] = {2, 64, 65, 66, 128, 129, 300, 850};
    uint64_t tokens_in_all = 0, bytes = 0;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        client *c = new_client((uint32_t)i + 1, counts[i]);
        ask(d, c);
        await(c);
        assert_int_equal(c->report.prefilled, MQ_PREFILLED_REMOTE);
        assert_int_equal(c->report.arrived, counts[i] - 1);
        check_truth(alone, c);
        tokens_in_all += counts[i] - 1;
        bytes += mq__kv_range_bytes(&alone->kv_layout, 0, counts[i] - 1);
        drop(c);
    }
    const mq_handoff_stats in = handoff_stats(d);
    WAIT_FOR(handoff_stats(p).sending == 0);
    const mq_handoff_stats out = handoff_stats(p);
    assert_int_equal(in.received, sizeof counts / sizeof counts[0]);
    assert_int_equal(in.received_tokens, tokens_in_all);
    assert_int_equal(in.received_bytes, bytes);
    const uint64_t all =
        tokens_in_all * mq__kv_token_bytes(&alone->kv_layout) + in.received * alone->state_floats * sizeof(float);
    assert_true(alone->kv_layout.window ? bytes < all : bytes == all);
    assert_int_equal(out.sent, in.received);
    assert_int_equal(out.sent_bytes, in.received_bytes);
    assert_int_equal(in.receive_failures + out.send_failures + in.refused_frames + out.refused_frames, 0);
    assert_int_equal(d->dialled, paired);
    stop_worker(d);
    stop_worker(p);
    mq_engine_close(alone);
    mq_free(dir);
}

static void test_dense(void **state)
{
    (void)state;
    check_family("tiny-qwen3", false);
}

static void test_experts(void **state)
{
    (void)state;
    check_family("tiny-qwen3-moe", false);
}

static void test_recurrent_families(void **state)
{
    (void)state;
    check_family("tiny-qwen3.5", false);
    check_family("tiny-qwen3.5-moe", true);
}

/* What no window sees at the prompt's end is not sent. */
static void test_windows(void **state)
{
    (void)state;
    check_family("tiny-gemma4", false);
}

static void test_within_the_process(void **state)
{
    (void)state;
    check_family("tiny-qwen3", true);
}

/* ---- caches on either side */

typedef struct pair_of {
    worker *p, *d;
    mq_engine *alone;
} pair_of;

static pair_of start_both(const mq_handoff_options *of_p, const mq_handoff_options *of_d)
{
    pair_of b = {.alone = open_model(model, 1, 128, MQ_LINEAR_NVFP4)};
    b.p = start_prefill(open_model(model, 6, 64, MQ_LINEAR_NVFP4), of_p);
    b.d = start_decode(open_model(model, 10, 128, MQ_LINEAR_NVFP4), b.p, of_d);
    return b;
}

static void stop_both(pair_of *b)
{
    stop_worker(b->d);
    stop_worker(b->p);
    mq_engine_close(b->alone);
}

static uint64_t computed(const worker *w)
{
    mq_scheduler_stats stats;
    mq_scheduler_describe(w->scheduler, &stats);
    return stats.prompt_tokens;
}

static mq_report run_one(pair_of *b, worker *w, client *c, uint64_t owner)
{
    ask_with(w, c, &(mq_request){.owner = owner});
    await(c);
    check_truth(b->alone, c);
    leave(c);
    return c->report;
}

/* A prompt that begins like an earlier one: only the rest moves, and only what is new is computed. */
static void test_cached_beginnings(void **state)
{
    (void)state;
    pair_of b = start_both(NULL, NULL);
    client *c = new_client(5, 700);
    const uint64_t token_bytes = mq__kv_token_bytes(&b.alone->kv_layout);
    c->count = 300;
    (void)run_one(&b, b.d, c, 7);
    c->count = 500; /* both have 256 of it */
    uint64_t moved = handoff_stats(b.d).received_bytes, made = computed(b.p);
    mq_report report = run_one(&b, b.d, c, 7);
    assert_int_equal(report.cached, 256);
    assert_int_equal(report.arrived, 499 - 256);
    assert_int_equal(handoff_stats(b.d).received_bytes - moved, (499 - 256) * token_bytes);
    assert_int_equal(computed(b.p) - made, 499 - 256);
    /* P has all but the last block's tokens: its own client had it read */
    client *other = new_client(6, 600);
    (void)run_one(&b, b.p, other, 7);
    made = computed(b.p);
    report = run_one(&b, b.d, other, 7);
    assert_int_equal(report.arrived, 599);
    assert_true(computed(b.p) - made <= 64);
    /* another owner's is another one's */
    moved = handoff_stats(b.d).received_bytes;
    made = computed(b.p);
    report = run_one(&b, b.d, other, 8);
    assert_int_equal(report.arrived, 599);
    assert_int_equal(handoff_stats(b.d).received_bytes - moved, 599 * token_bytes);
    assert_int_equal(computed(b.p) - made, 599);
    /* D has all of it */
    report = run_one(&b, b.d, other, 8);
    assert_int_equal(report.arrived, 599 - 576);
    drop(c);
    drop(other);
    stop_both(&b);
}

/* What the peer reads is remembered: that is what it is thought to have the next time. */
static void test_peer_is_remembered(void **state)
{
    (void)state;
    pair_of b = start_both(NULL, NULL);
    client *c = new_client(5, 400);
    uint64_t marks[6];
    (void)run_one(&b, b.d, c, 3);
    mq__marks(3, c->prompt, 399, marks);
    pthread_mutex_lock(&b.d->handoff->peers->lock);
    assert_int_equal(mq__remembers(&b.d->handoff->peers->first->memory, marks, 6), 384);
    pthread_mutex_unlock(&b.d->handoff->peers->lock);
    drop(c);
    stop_both(&b);
}

/* A peer that was asked while it read a prompt for this worker has no less to do afterwards, as far as its answer goes; but that much
 * was this prompt, and is no reason to read the next one here. */
static void test_peer_has_read(void **state)
{
    (void)state;
    pair_of b = start_both(NULL, NULL);
    int32_t prompt[401] = {0};
    mq_kv_arrival a = {.first = 100, .count = 400, .tokens = prompt, .figures = {.asked = mq__seconds()}};
    mq_handoff *h = b.d->handoff;
    mq_peer *peer = h->peers->first;
    const struct {
        uint64_t unread, left;
        double asked; /* after the answer by so many seconds */
    } cases[] = {{1000, 700, -1}, {200, 0, -1}, {1000, 1000, 1000}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mq_peer_answer answer = peer->answer;
        answer.unread = cases[i].unread;
        mq__peer_answered(h, peer, &answer, NULL);
        a.figures.asked = mq__seconds() + cases[i].asked;
        mq__peer_served(h, peer, &a);
        pthread_mutex_lock(&h->peers->lock);
        assert_int_equal(peer->answer.unread, cases[i].left);
        pthread_mutex_unlock(&h->peers->lock);
    }
    stop_both(&b);
}

/* ---- many */

static void test_many_at_once(void **state)
{
    (void)state;
    enum { MANY = 24 };
    pair_of b = start_both(NULL, NULL);
    client *c[MANY];
    for (uint32_t i = 0; i < MANY; i++) {
        c[i] = new_client(i, 60 + i * 83 % 600);
        c[i]->most = 6;
        const mq_request request = {.owner = i % 3};
        ask_with(b.d, c[i], &request);
    }
    for (uint32_t i = 0; i < MANY; i++) {
        await(c[i]);
        check_truth(b.alone, c[i]);
        assert_int_equal(c[i]->report.prefilled, MQ_PREFILLED_REMOTE);
        drop(c[i]);
    }
    WAIT_FOR(handoff_stats(b.p).sending == 0);
    assert_int_equal(handoff_stats(b.d).received, MANY);
    stop_both(&b);
}

/* Short ones, one after the other, on one connection. */
static void test_two_thousand(void **state)
{
    (void)state;
    pair_of b = start_both(NULL, NULL);
    b.d->paired = b.p;
    client *c = new_client(1, 140);
    c->most = 1;
    for (uint32_t i = 0; i < 2000; i++) {
        c->count = 66 + i % 70;
        c->prompt[0] = 20 + (int32_t)(i % 200);
        c->prompt[1] = 20 + (int32_t)(i / 200);
        ask(b.d, c);
        await(c);
        assert_int_equal(c->report.arrived, c->count - 1);
        if (i % 100 == 0) check_truth(b.alone, c);
        leave(c);
    }
    const mq_handoff_stats stats = handoff_stats(b.d);
    assert_int_equal(stats.received, 2000);
    assert_int_equal(stats.receive_failures + stats.refused_frames, 0);
    pthread_mutex_lock(&b.d->handoff->peers->lock);
    assert_int_equal(b.d->handoff->peers->clients->epoch, 2000);
    pthread_mutex_unlock(&b.d->handoff->peers->lock);
    WAIT_FOR(handoff_stats(b.p).sending == 0);
    drop(c);
    stop_both(&b);
}

/* ---- connections */

static mq_status dial_counted(void *context, const char *transport, const char *host, uint16_t port, double seconds,
                              mq_link **link, mq_error *error)
{
    worker *w = context;
    pthread_mutex_lock(&w->lock);
    w->dialled++;
    pthread_mutex_unlock(&w->lock);
    return mq__link_connect(transport, host, port, seconds, link, error);
}

static uint32_t dialled(worker *w)
{
    pthread_mutex_lock(&w->lock);
    const uint32_t count = w->dialled;
    pthread_mutex_unlock(&w->lock);
    return count;
}

static pair_of start_counted(double idle, uint32_t handoffs)
{
    pair_of b = {.alone = open_model(model, 1, 128, MQ_LINEAR_NVFP4)};
    b.p = start_prefill(open_model(model, 6, 64, MQ_LINEAR_NVFP4), NULL);
    const char *name = b.p->name;
    b.d = open_decode(open_model(model, 10, 128, MQ_LINEAR_NVFP4), &name, 1, NULL);
    b.d->handoff->dial = dial_counted;
    b.d->handoff->dial_context = b.d;
    b.d->handoff->tuning.idle = idle;
    b.d->handoff->tuning.recycle_handoffs = handoffs;
    serve_worker(b.d, NULL);
    return b;
}

static void run_some(pair_of *b, uint32_t seed)
{
    client *c = new_client(seed, 150);
    c->most = 2;
    assert_int_equal(run_one(b, b->d, c, 0).prefilled, MQ_PREFILLED_REMOTE);
    drop(c);
}

static void test_connections_are_replaced(void **state)
{
    (void)state;
    pair_of b = start_counted(60, 4);
    for (uint32_t i = 0; i < 10; i++) {
        run_some(&b, i);
    }
    assert_int_equal(dialled(b.d), 3);
    assert_int_equal(handoff_stats(b.d).received, 10);
    stop_both(&b);
}

static void test_idle_connections_close(void **state)
{
    (void)state;
    pair_of b = start_counted(0.05, 1000);
    for (uint32_t i = 0; i < 3; i++) {
        run_some(&b, i);
        WAIT_FOR(connections_of(b.d) == 0);
    }
    assert_int_equal(dialled(b.d), 3);
    assert_int_equal(handoff_stats(b.d).receive_failures, 0);
    assert_string_equal(b.d->lines, ""); /* nothing to speak of */
    assert_string_equal(b.p->lines, "");
    stop_both(&b);
}

/* ---- leases */

typedef struct kept {
    client *client;
    mq_job *job;
    char id[33];
} kept;

/* A prompt that P reads for somebody who will fetch it. */
static kept read_for_another(worker *p, uint32_t seed, uint32_t count, double seconds)
{
    kept k = {.client = new_client(seed, count)};
    ask_with(p, k.client, &(mq_request){.prefill_only = true});
    await(k.client);
    mq_handoff_lease(p->handoff, k.client->job, seconds, k.id);
    k.client->job = NULL;
    return k;
}

static void test_leases(void **state)
{
    (void)state;
    pair_of b = start_both(NULL, NULL);
    kept k = read_for_another(b.p, 1, 333, 30);
    assert_int_equal(strlen(k.id), 32);
    assert_int_equal(handoff_stats(b.p).leased, 1);
    const uint64_t made = computed(b.p);
    ask_with(b.d, k.client, &(mq_request){.prefill_peer = b.p->name, .prefill_lease = k.id});
    await(k.client);
    check_truth(b.alone, k.client);
    assert_int_equal(k.client->report.arrived, 332);
    assert_int_equal(computed(b.p), made); /* straight from what it has, the last block's part as well */
    WAIT_FOR(handoff_stats(b.p).sending == 0);
    assert_int_equal(handoff_stats(b.p).leased, 0);
    assert_int_equal(handoff_stats(b.p).leases_expired, 0);
    drop(k.client);

    k = read_for_another(b.p, 2, 200, 0.05); /* nobody comes in time: it is read again */
    WAIT_FOR(handoff_stats(b.p).leases_expired == 1);
    ask_with(b.d, k.client, &(mq_request){.prefill_peer = b.p->name, .prefill_lease = k.id});
    await(k.client);
    check_truth(b.alone, k.client);
    assert_int_equal(k.client->report.transfer_failures, 0);
    assert_int_equal(k.client->report.arrived, 199);
    drop(k.client);

    k = read_for_another(b.p, 3, 200, 30); /* another prompt under its name */
    client *other = new_client(4, 200);
    ask_with(b.d, other, &(mq_request){.prefill_peer = b.p->name, .prefill_lease = k.id});
    await(other);
    check_truth(b.alone, other);
    assert_int_equal(other->report.arrived, 199);
    drop(other);
    drop(k.client);

    k = read_for_another(b.p, 5, 200, 30); /* it is never fetched: the end finds it */
    drop(k.client);
    stop_both(&b);
}

/* An answer that needs the blocks of leases gets those of the first one. */
static void test_leases_make_room(void **state)
{
    (void)state;
    mq_engine *alone = open_model(model, 1, 128, MQ_LINEAR_NVFP4);
    worker *p = start_prefill(open_model(model, 1, 64, MQ_LINEAR_NVFP4), NULL); /* 16 blocks */
    kept first = read_for_another(p, 1, 400, 30), second = read_for_another(p, 2, 200, 30);
    client *c = new_client(3, 100);
    c->most = 500;
    ask(p, c);
    await(c);
    check_truth(alone, c);
    assert_int_equal(handoff_stats(p).leased, 1);
    assert_int_equal(handoff_stats(p).leases_expired, 1);
    const mq_sequence *sequence;
    assert_null(mq__lease_take(p->handoff, first.id, 32, first.client->prompt, 400, &sequence));
    mq_job *job = mq__lease_take(p->handoff, second.id, 32, second.client->prompt, 200, &sequence);
    assert_non_null(job);
    mq_job_free(job);
    drop(first.client);
    drop(second.client);
    drop(c);
    stop_worker(p);
    mq_engine_close(alone);
}

static uint32_t held_jobs(const worker *w)
{
    mq_scheduler_stats stats;
    mq_scheduler_describe(w->scheduler, &stats);
    return stats.held;
}

/* A lease in the job's last event, where a server makes it, and where the job cannot be freed. */
typedef struct lent {
    worker *p;
    client *client;
    bool fails;
    char id[33];
} lent;

static void lend_at_the_end(void *context, const mq_event *event)
{
    lent *l = context;
    if (event->kind == MQ_EVENT_END) {
        pthread_mutex_lock(&l->client->lock); /* until it was submitted */
        mq_job *job = l->client->job;
        pthread_mutex_unlock(&l->client->lock);
        if (l->fails) (void)mq__alloc_fail_at(1);
        mq_handoff_lease(l->p->handoff, job, 30, l->id);
        (void)mq__alloc_fail_at(0);
    }
    hear(l->client, event);
}

static void test_leases_in_events(void **state)
{
    (void)state;
    pair_of b = start_both(NULL, NULL);
    for (uint32_t i = 0; i < 2; i++) {
        lent l = {.p = b.p, .client = new_client(700 + i, 333), .fails = i == 1};
        mq_error error = {0};
        mq_request request = {.tokens = l.client->prompt,
                              .count = l.client->count,
                              .options = options_of(0, 1),
                              .hold = true,
                              .event = lend_at_the_end,
                              .context = &l};
        pthread_mutex_lock(&l.client->lock);
        assert_int_equal(mq_scheduler_submit(b.p->scheduler, &request, &l.client->job, &error), MQ_OK);
        pthread_mutex_unlock(&l.client->lock);
        await(l.client);
        l.client->job = NULL;
        assert_int_equal(handoff_stats(b.p).leased, !l.fails);
        ask_with(b.d, l.client, &(mq_request){.prefill_peer = b.p->name, .prefill_lease = l.id});
        await(l.client);
        check_truth(b.alone, l.client);
        assert_int_equal(l.client->report.transfer_failures, 0);
        WAIT_FOR(held_jobs(b.p) == 0); /* also of the one that got no lease */
        drop(l.client);
    }
    stop_both(&b);
}

/* Blocks of a lease that has run out belong to whoever reads them until he is done. */
static void test_lease_ends_under_a_reader(void **state)
{
    (void)state;
    pair_of b = start_both(NULL, NULL);
    for (uint32_t i = 0; i < 20; i++) {
        kept k = read_for_another(b.p, 50 + i, 900, 0.001 * i);
        ask_with(b.d, k.client, &(mq_request){.prefill_peer = b.p->name, .prefill_lease = k.id});
        client *more = new_client(500 + i, 800); /* wants P's blocks meanwhile */
        ask(b.p, more);
        await(k.client);
        check_truth(b.alone, k.client);
        await(more);
        drop(k.client);
        drop(more);
    }
    assert_int_equal(handoff_stats(b.d).receive_failures, 0);
    stop_both(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense),
        cmocka_unit_test(test_experts),
        cmocka_unit_test(test_recurrent_families),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_within_the_process),
        cmocka_unit_test(test_cached_beginnings),
        cmocka_unit_test(test_peer_is_remembered),
        cmocka_unit_test(test_peer_has_read),
        cmocka_unit_test(test_many_at_once),
        cmocka_unit_test(test_two_thousand),
        cmocka_unit_test(test_connections_are_replaced),
        cmocka_unit_test(test_idle_connections_close),
        cmocka_unit_test(test_leases),
        cmocka_unit_test(test_leases_in_events),
        cmocka_unit_test(test_leases_make_room),
        cmocka_unit_test(test_lease_ends_under_a_reader),
    };
    return cmocka_run_group_tests(tests, open_text, close_text);
}
