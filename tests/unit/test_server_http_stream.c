/* Streams and slow, silent, absent clients; answers from other threads; a server that stops meanwhile. */
#include "base/mem.h"
#include "unit_http.h"

#include <pthread.h>
#include <sys/resource.h>

#define LARGE ((size_t)12 << 20)

/* ---- handlers: what hooks saw is counted */

static atomic_uint ticks, ends, complete_ends, writes_refused, answering;
static _Atomic(mq_exchange *) latest;

static void count_tick(void *context)
{
    (void)context;
    atomic_fetch_add(&ticks, 1);
}

static void count_end(void *context, bool complete)
{
    (void)context;
    atomic_store(&latest, NULL);
    atomic_fetch_add(complete ? &complete_ends : &ends, 1);
}

static void set_hooks(mq_exchange *x)
{
    mq__exchange_set_hooks(x, &(mq_exchange_hooks){.tick = count_tick, .gone = count_end, .context = x});
}

/* A stream that the test itself writes. */
static void stream(mq_server *s, mq_exchange *x)
{
    (void)s;
    set_hooks(x);
    mq__exchange_begin(x, 200, "text/event-stream");
    atomic_store(&latest, x);
}

/* No answer yet. */
static void wait_answer(mq_server *s, mq_exchange *x)
{
    (void)s;
    set_hooks(x);
    atomic_store(&latest, x);
}

typedef struct held {
    pthread_mutex_t lock;
    mq_exchange *x; /* NULL: gone */
    atomic_int holders;
} held;

static void drop_held(held *h)
{
    if (atomic_fetch_sub(&h->holders, 1) != 1) return;
    pthread_mutex_destroy(&h->lock);
    mq__free(h);
}

static void held_gone(void *context, bool complete)
{
    held *h = context;
    pthread_mutex_lock(&h->lock);
    h->x = NULL;
    pthread_mutex_unlock(&h->lock);
    atomic_fetch_add(complete ? &complete_ends : &ends, 1);
    drop_held(h);
}

static void held_tick(void *context)
{
    held *h = context;
    pthread_mutex_lock(&h->lock);
    if (h->x) (void)mq__exchange_write(h->x, ": tick\n\n", 8);
    pthread_mutex_unlock(&h->lock);
}

static void spawn(void *(*run)(void *), void *context)
{
    pthread_t thread;
    atomic_fetch_add(&answering, 1);
    assert_int_equal(pthread_create(&thread, NULL, run, context), 0);
    (void)pthread_detach(thread);
}

/* As answering.c does: another thread writes, until the client has left or all is said. */
static void *write_events(void *context)
{
    held *h = context;
    bool goes_on = true;
    for (int i = 0; i < 40 && goes_on; i++) {
        if (i % 4 == 0) pause_ms(1);
        pthread_mutex_lock(&h->lock);
        goes_on = h->x && mq__exchange_write(h->x, "data: event\n\n", 13);
        if (h->x && i == 39) mq__exchange_end(h->x);
        pthread_mutex_unlock(&h->lock);
    }
    drop_held(h);
    atomic_fetch_sub(&answering, 1);
    return NULL;
}

static void *write_reply(void *context)
{
    held *h = context;
    pause_ms(2);
    pthread_mutex_lock(&h->lock);
    if (h->x) mq__exchange_reply(h->x, 200, "text/plain", "reply", 5);
    pthread_mutex_unlock(&h->lock);
    drop_held(h);
    atomic_fetch_sub(&answering, 1);
    return NULL;
}

static held *hold(mq_exchange *x, bool ticks_too)
{
    held *h = mq__alloc_zero(1, sizeof *h);
    assert_non_null(h);
    pthread_mutex_init(&h->lock, NULL);
    h->x = x;
    atomic_store(&h->holders, 2);
    mq__exchange_set_hooks(x,
                           &(mq_exchange_hooks){.tick = ticks_too ? held_tick : NULL, .gone = held_gone, .context = h});
    return h;
}

/* More than the client reads. */
static void *flood_client(void *context)
{
    held *h = context;
    bool goes_on = true;
    char *some = mq__alloc_zero(1, 65536);
    assert_non_null(some);
    for (int i = 0; i < 10000 && goes_on; i++) {
        pthread_mutex_lock(&h->lock);
        goes_on = h->x && mq__exchange_write(h->x, some, 65536);
        if (h->x && !goes_on) atomic_fetch_add(&writes_refused, 1);
        pthread_mutex_unlock(&h->lock);
    }
    mq__free(some);
    drop_held(h);
    atomic_fetch_sub(&answering, 1);
    return NULL;
}

static void flood(mq_server *s, mq_exchange *x)
{
    (void)s;
    held *h = hold(x, true);
    mq__exchange_begin(x, 200, "text/event-stream");
    spawn(flood_client, h);
}

static void events(mq_server *s, mq_exchange *x)
{
    (void)s;
    held *h = hold(x, true);
    mq__exchange_begin(x, 200, "text/event-stream");
    spawn(write_events, h);
}

static void reply_soon(mq_server *s, mq_exchange *x)
{
    (void)s;
    spawn(write_reply, hold(x, false));
}

/* More than sockets hold, at once. */
static void reply_large(mq_server *s, mq_exchange *x)
{
    (void)s;
    set_hooks(x);
    char *some = mq__alloc_zero(1, LARGE);
    assert_non_null(some);
    mq__exchange_reply(x, 200, "application/octet-stream", some, LARGE);
    mq__free(some);
}

static const http_route routes[] = {
    {"/stream", "GET", stream, true, false},   {"/wait", "GET, POST", wait_answer, true, false},
    {"/flood", "GET", flood, true, false},     {"/events", "GET", events, true, false},
    {"/soon", "GET", reply_soon, true, false}, {"/large", "GET", reply_large, true, false},
};

static int setup(void **state)
{
    (void)state;
    const mq_server_options options = {
        .limits = {.header_s = 1, .body_s = 1, .idle_s = 1, .write_s = 1.5, .unread_bytes = 300000}};
    atomic_store(&ticks, 0);
    atomic_store(&ends, 0);
    atomic_store(&complete_ends, 0);
    atomic_store(&writes_refused, 0);
    start_server(&options, routes, sizeof routes / sizeof routes[0]);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (server) stop_server();
    while (atomic_load(&answering)) {
        pause_ms(1);
    }
    return 0;
}

static mq_exchange *running(void)
{
    const double end = seconds() + 5;
    while (!atomic_load(&latest)) {
        assert_true(seconds() < end);
        pause_ms(1);
    }
    return atomic_load(&latest);
}

static bool becomes(atomic_uint *counter, unsigned value, double within)
{
    const double end = seconds() + within;
    while (atomic_load(counter) != value && seconds() < end) {
        pause_ms(2);
    }
    return atomic_load(counter) == value;
}

/* ---- streams */

static void test_events_go_out_at_once(void **state)
{
    (void)state;
    mq_buf heard = {0};
    const int fd = open_client();
    say(fd, "GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
    hear_until(fd, &heard, "\r\n\r\n"); /* headers, before there is anything to say */
    assert_true(holds(&heard, "\r\nTransfer-Encoding: chunked\r\n"));
    assert_true(holds(&heard, "\r\nX-Accel-Buffering: no\r\n"));
    mq_exchange *x = running();
    double slowest = 0;
    for (int i = 0; i < 20; i++) {
        char event[16];
        snprintf(event, sizeof event, "event-%d.", i);
        const double begun = seconds();
        assert_true(mq__exchange_write(x, event, strlen(event)));
        hear_until(fd, &heard, event);
        if (seconds() - begun > slowest) slowest = seconds() - begun;
    }
    assert_true(slowest < 0.5);
    assert_int_equal(atomic_load(&complete_ends), 0);
    mq__exchange_end(x);
    hear_until(fd, &heard, "\r\n0\r\n\r\n");
    assert_true(becomes(&complete_ends, 1, 2));
    mq__buf_clear(&heard);
    say(fd, "GET /soon HTTP/1.1\r\nHost: localhost\r\n\r\n"); /* on the same connection */
    hear_until(fd, &heard, "reply");
    assert_true(becomes(&complete_ends, 2, 2));
    assert_int_equal(atomic_load(&ends), 0);
    mq__buf_free(&heard);
    close(fd);
}

static void test_a_stream_of_http_1_0(void **state)
{
    (void)state;
    char *answer = ask("GET /events HTTP/1.0\r\nHost: localhost\r\n\r\n");
    assert_null(strstr(answer, "chunked"));
    assert_string_equal(answer + strlen(answer) - 13, "data: event\n\n");
    assert_true(becomes(&complete_ends, 1, 2));
    mq__free(answer);
}

static void test_ticks_come_four_times_a_second(void **state)
{
    (void)state;
    const int fd = open_client();
    say(fd, "GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n");
    mq_exchange *x = running();
    const unsigned before = atomic_load(&ticks);
    pause_ms(1500);
    const unsigned count = atomic_load(&ticks) - before;
    assert_in_range(count, 3, 7);
    mq__exchange_reply(x, 200, "text/plain", "ok", 2);
    assert_true(becomes(&complete_ends, 1, 2));
    const unsigned after = atomic_load(&ticks);
    pause_ms(600);
    assert_int_equal(atomic_load(&ticks), after); /* none after `gone` */
    close(fd);
}

/* ---- clients that leave */

static void check_leaves(const char *request, bool only_half)
{
    atomic_store(&ends, 0);
    const int fd = open_client();
    say(fd, request);
    (void)running();
    pause_ms(300);
    const double begun = seconds();
    if (only_half)
        (void)shutdown(fd, SHUT_WR);
    else
        close(fd);
    assert_true(becomes(&ends, 1, 2));
    assert_true(seconds() - begun < 0.5);
    if (only_half) {
        assert_true(ends_within(fd, 2));
        close(fd);
    }
}

static void test_who_leaves_is_seen(void **state)
{
    (void)state;
    for (int half = 0; half < 2; half++) {
        check_leaves("GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n", half);
        check_leaves("GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n", half);
        check_leaves("POST /wait HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", half);
    }
    assert_int_equal(atomic_load(&complete_ends), 0);
}

/* One that sends, and closes its side before it reads, has its answer where that is there soon. */
static void test_a_reset_is_seen(void **state)
{
    (void)state;
    const int fd = open_client();
    say(fd, "GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n");
    (void)running();
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
    close(fd);
    assert_true(becomes(&ends, 1, 2));
}

/* ---- clients that are slow */

static void test_who_does_not_read_is_cut(void **state)
{
    (void)state;
    struct rusage before, after;
    const int fd = open_client();
    say(fd, "GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n");
    getrusage(RUSAGE_SELF, &before);
    assert_true(becomes(&writes_refused, 1, 10));
    assert_true(becomes(&ends, 1, 2)); /* at once, though it never reads */
    getrusage(RUSAGE_SELF, &after);
    assert_true(after.ru_maxrss - before.ru_maxrss < 64 << 10); /* KiB */
    close(fd);
}

static void check_stuck(const char *request)
{
    const int fd = open_client();
    atomic_store(&ends, 0);
    say(fd, request);
    const double begun = seconds();
    assert_true(becomes(&ends, 1, 10));
    assert_true(seconds() - begun >= 1.4); /* write_s */
    close(fd);
}

static void test_who_reads_nothing_of_a_reply_is_cut(void **state)
{
    (void)state;
    check_stuck("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n");
}

static void test_who_reads_slowly_has_all(void **state)
{
    (void)state;
    const int fd = open_client();
    size_t count = 0;
    char *some = mq__alloc(1 << 20);
    assert_non_null(some);
    say(fd, "GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    for (ssize_t n = 1; n > 0; count += (size_t)n) {
        n = recv(fd, some, 1 << 20, 0);
        if (count < LARGE / 4) pause_ms(300);
    }
    assert_true(count > LARGE);
    assert_true(becomes(&complete_ends, 1, 2));
    mq__free(some);
    close(fd);
}

/* A byte now and then does not help. */
static void check_slow(const char *head, const char *drip, double limit)
{
    const int fd = open_client();
    const double begun = seconds();
    say(fd, head);
    while (seconds() - begun < limit + 3) {
        say(fd, drip);
        if (ends_within(fd, 0.2)) break;
    }
    const double lasted = seconds() - begun;
    if (lasted < limit - 0.1 || lasted > limit + 1) fail_msg("expected %g s, got %g: %s", limit, lasted, head);
    close(fd);
}

static void test_slow_requests_are_cut(void **state)
{
    (void)state;
    check_slow("", "", 1);
    check_slow("GET /wait HT", "", 1);
    check_slow("GET /wait HTTP/1.1\r\nHost: localhost\r\n", "X-A: 1\r\n", 1);
    check_slow("POST /wait HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n", "x", 1);
    check_slow("POST /wait HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", 1);
    check_slow("POST /wait HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "X-A: 1\r\n", 1);
    check_slow("POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n", "x", 1);
    check_slow("GET /soon HTTP/1.1\r\nHost: localhost\r\n\r\n", "", 1);
}

static void test_a_slow_second_request_is_cut(void **state)
{
    (void)state;
    const int fd = open_client();
    mq_buf heard = {0};
    say(fd, "GET /soon HTTP/1.1\r\nHost: localhost\r\n\r\n");
    hear_until(fd, &heard, "reply");
    pause_ms(700); /* of the second between two requests */
    say(fd, "GET /soon HTTP/1.1\r\n");
    const double begun = seconds();
    while (seconds() - begun < 3) {
        say(fd, "X-A: 1\r\n");
        if (ends_within(fd, 0.2)) break;
    }
    assert_true(seconds() - begun > 0.8 && seconds() - begun < 2);
    mq__buf_free(&heard);
    close(fd);
}

/* ---- all at once */

static void *be_client(void *context)
{
    unsigned seed = (unsigned)(uintptr_t)context;
    for (int i = 0; i < 30; i++) {
        mq_buf heard = {0};
        const int fd = open_client();
        const int what = rand_r(&seed) % 6;
        say(fd, what % 2
                    ? "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"
                    : "GET /soon HTTP/1.1\r\nHost: localhost\r\n\r\nGET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
        if (what < 2) { /* to the end */
            const double end = seconds() + 20;
            while (!holds(&heard, "\r\n0\r\n\r\n") && seconds() < end) {
                assert_true(hear(fd, &heard, 0.1));
            }
            assert_true(holds(&heard, "\r\n0\r\n\r\n"));
        } else if (what < 4) {
            (void)hear(fd, &heard, 0.005);
        }
        mq__buf_free(&heard);
        close(fd);
    }
    return NULL;
}

static void test_many_come_and_go(void **state)
{
    (void)state;
    pthread_t threads[16];
    for (uintptr_t i = 0; i < 16; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, be_client, (void *)(i + 1)), 0);
    }
    for (size_t i = 0; i < 16; i++) {
        pthread_join(threads[i], NULL);
    }
    const double end = seconds() + 5;
    bool empty = false;
    while (!empty && seconds() < end) {
        pause_ms(10);
        pthread_mutex_lock(&server->lock);
        empty = !server->exchanges && !server->connections;
        pthread_mutex_unlock(&server->lock);
    }
    assert_true(empty);
    assert_int_equal(atomic_load(&server->held), 0);
}

/* ---- the end of the server */

static void test_stop_ends_everything(void **state)
{
    (void)state;
    int fds[24];
    for (int round = 0; round < 5; round++) {
        static const char *const paths[] = {"stream", "wait", "flood", "events", "soon", "large"};
        char request[80];
        for (size_t i = 0; i < 24; i++) {
            fds[i] = open_client();
            snprintf(request, sizeof request, "GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n", paths[i % 6]);
            say(fds[i], request);
        }
        pause_ms(round * 2);
        const double begun = seconds();
        stop_server();
        assert_true(seconds() - begun < 8);
        for (size_t i = 0; i < 24; i++) {
            assert_true(ends_within(fds[i], 2));
            close(fds[i]);
        }
        teardown(NULL);
        setup(NULL);
    }
}

/* An answer that is complete is sent before the server ends. */
static void test_stop_sends_what_is_complete(void **state)
{
    (void)state;
    mq_buf heard = {0};
    const int fd = open_client();
    say(fd, "GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
    hear_until(fd, &heard, "\r\n\r\n");
    mq_exchange *x = running();
    for (int i = 0; i < 200; i++) {
        assert_true(mq__exchange_write(x, "data: some words\n\n", 18));
    }
    assert_true(mq__exchange_write(x, "data: [DONE]\n\n", 14));
    mq__exchange_end(x);
    stop_server();
    hear_until(fd, &heard, "data: [DONE]\n\n");
    hear_until(fd, &heard, "\r\n0\r\n\r\n");
    assert_int_equal(atomic_load(&complete_ends), 1);
    mq__buf_free(&heard);
    close(fd);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_events_go_out_at_once),
        TEST(test_a_stream_of_http_1_0),
        TEST(test_ticks_come_four_times_a_second),
        TEST(test_who_leaves_is_seen),
        TEST(test_a_reset_is_seen),
        TEST(test_who_does_not_read_is_cut),
        TEST(test_who_reads_nothing_of_a_reply_is_cut),
        TEST(test_who_reads_slowly_has_all),
        TEST(test_slow_requests_are_cut),
        TEST(test_a_slow_second_request_is_cut),
        TEST(test_many_come_and_go),
        TEST(test_stop_ends_everything),
        TEST(test_stop_sends_what_is_complete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
