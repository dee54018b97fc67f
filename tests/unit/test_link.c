/* Links of every kind: order, sizes, both directions, and every way to end. */
#include "unit_link.h"

#include "base/mem.h"

static uint8_t body[MOST + 1];

/* ---- what goes well */

static void test_order(void **state)
{
    uint64_t bytes = 0;
    pair *p = start_pair(*state);
    for (uint64_t n = 0; n < 2000; n++) {
        const size_t size = n % 3 == 0 ? 0 : (size_t)(mix(n) % 20000); /* many bodies are empty */
        assert_int_equal(send_number(p->a.link, n, body, size, DEADLINE, NULL), MQ_OK);
        bytes += size;
    }
    assert_true(wait_end(&p->b, 2000, false));
    assert_int_equal(p->b.bytes, bytes);
    assert_int_equal(mq__link_sent(p->a.link), bytes);
    assert_int_equal(mq__link_received(p->b.link), bytes);
    assert_int_equal(mq__link_sent(p->b.link), 0);
    close_pair(p);
    assert_int_equal(p->a.ended, 0); /* it was closed first */
}

static void test_big_bodies(void **state)
{
    uint64_t n = 0;
    pair *p = start_pair(*state);
    for (; n < 16; n++) {
        assert_int_equal(send_number(p->a.link, n, body, 4 << 20, DEADLINE, NULL), MQ_OK);
    }
    assert_int_equal(send_number(p->a.link, n++, body, MOST, DEADLINE, NULL), MQ_OK);
    assert_int_equal(send_number(p->a.link, n++, body, 1, DEADLINE, NULL), MQ_OK);
    assert_true(wait_end(&p->b, n, false));
    close_pair(p);
}

typedef struct talk {
    end *own;
    uint64_t count;
    mq_status status;
} talk;

static void *send_many(void *argument)
{
    talk *t = argument;
    uint8_t *own_body = malloc(256 << 10);
    t->status = own_body ? MQ_OK : MQ_NO_MEMORY;
    for (uint64_t n = 0; n < t->count && t->status == MQ_OK; n++) {
        t->status = send_number(t->own->link, n, own_body, (256 << 10) - (size_t)n, DEADLINE, NULL);
    }
    free(own_body);
    return NULL;
}

static void test_both_directions(void **state)
{
    pthread_t thread[2];
    pair *p = start_pair(*state);
    assert_int_equal(send_number(p->a.link, 0, body, 0, DEADLINE, NULL), MQ_OK);
    assert_true(wait_end(&p->b, 1, false));
    p->b.count = 0;
    talk talks[2] = {{&p->a, 200, MQ_OK}, {&p->b, 200, MQ_OK}};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&thread[i], NULL, send_many, &talks[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(thread[i], NULL);
        assert_int_equal(talks[i].status, MQ_OK);
    }
    assert_true(wait_end(&p->a, 200, false));
    assert_true(wait_end(&p->b, 200, false));
    close_pair(p);
}

/* ---- ends */

/* Sends until it fails. */
static mq_status send_to_the_end(mq_link *link, double seconds, mq_error *error)
{
    mq_status status = MQ_OK;
    for (uint64_t n = 0; n < 4000 && status == MQ_OK; n++) {
        status = send_number(link, n, body, 256 << 10, seconds, error);
    }
    return status;
}

static void test_too_big(void **state)
{
    pair *p = start_pair(*state);
    assert_int_equal(send_number(p->a.link, 0, body, 10, DEADLINE, NULL), MQ_OK);
    (void)send_number(p->a.link, 1, body, MOST + 1, DEADLINE, NULL);
    assert_true(wait_end(&p->b, 1, true));
    assert_int_equal(p->b.error.status, MQ_FORMAT);
    assert_non_null(strstr(p->b.error.text, "8388621 bytes, got 8388622"));
    assert_true(wait_end(&p->a, 0, true)); /* the other end learns of it */
    assert_int_equal(send_to_the_end(p->a.link, DEADLINE, NULL), MQ_IO);
    assert_int_equal(p->b.count, 1);
    close_pair(p);
}

static void test_takes_nothing(void **state)
{
    mq_error error = {0};
    pair *p = start_pair(*state);
    p->b.held = true;
    double start = mq__seconds();
    assert_int_equal(send_to_the_end(p->a.link, 0.5, &error), MQ_IO);
    assert_true(mq__seconds() - start < DEADLINE);
    start = mq__seconds();
    assert_int_equal(send_number(p->a.link, 0, body, 1, DEADLINE, &error), MQ_IO); /* the link is of no more use */
    assert_true(mq__seconds() - start < 1);
    assert_true(wait_end(&p->a, 0, true));
    assert_int_equal(p->a.error.status, MQ_IO);
    hold(&p->b, false);
    assert_true(wait_end(&p->b, 1, true));
    close_pair(p);
}

static void test_peer_closes(void **state)
{
    pair *p = start_pair(*state);
    for (uint64_t n = 0; n < 50; n++) {
        assert_int_equal(send_number(p->a.link, n, body, 100000, DEADLINE, NULL), MQ_OK);
    }
    close_end(&p->a);
    assert_true(wait_end(&p->b, 50, true)); /* what was flushed arrives before the end */
    assert_int_equal(p->b.error.status, MQ_IO);
    assert_int_equal(p->b.count, 50);
    assert_int_equal(send_to_the_end(p->b.link, DEADLINE, NULL), MQ_IO);
    usleep(20000);
    assert_int_equal(p->b.ended, 1);
    close_pair(p);
    assert_int_equal(p->a.ended, 0);
}

static void *close_now(void *argument)
{
    mq__link_close(argument);
    return NULL;
}

/* What was sent arrives although bytes lie unread where it was sent, and the peer takes its time. */
static void test_peer_closes_unread(void **state)
{
    pthread_t thread;
    pair *p = start_pair(*state);
    p->a.held = p->b.held = true;
    for (uint64_t n = 0; n < 4; n++) {
        assert_int_equal(send_number(p->b.link, n, body, 1000, DEADLINE, NULL), MQ_OK);
    }
    assert_true(wait_end(&p->a, 1, false));
    for (uint64_t n = 0; n < 6; n++) {
        assert_int_equal(send_number(p->a.link, n, body, 20000, DEADLINE, NULL), MQ_OK);
    }
    assert_int_equal(pthread_create(&thread, NULL, close_now, p->a.link), 0);
    usleep(50000);
    hold(&p->a, false);
    pthread_join(thread, NULL);
    p->a.link = NULL;
    assert_int_equal(p->a.count, 1);
    hold(&p->b, false);
    assert_true(wait_end(&p->b, 6, true));
    close_pair(p);
    assert_int_equal(p->a.ended, 0);
}

static void test_wants_no_more(void **state)
{
    pair *p = start_pair(*state);
    p->b.wanted = 3;
    for (uint64_t n = 0; n < 5; n++) {
        (void)send_number(p->a.link, n, body, 100, DEADLINE, NULL);
    }
    assert_true(wait_end(&p->b, 3, true));
    assert_int_equal(p->b.error.status, MQ_CANCELLED);
    assert_int_equal(p->b.count, 3);
    assert_true(wait_end(&p->a, 0, true));
    close_pair(p);
}

static void *stop_soon(void *argument)
{
    usleep(200000);
    mq__link_stop(argument);
    return NULL;
}

static void test_stop(void **state)
{
    pthread_t thread;
    mq_error error = {0};
    pair *p = start_pair(*state);
    p->b.held = true;
    assert_int_equal(pthread_create(&thread, NULL, stop_soon, p->a.link), 0);
    const double start = mq__seconds();
    assert_int_equal(send_to_the_end(p->a.link, 60, &error), MQ_IO);
    assert_true(mq__seconds() - start < DEADLINE);
    assert_true(wait_end(&p->a, 0, true));
    assert_int_equal(p->a.error.status, MQ_CANCELLED);
    pthread_join(thread, NULL);
    mq__link_stop(p->a.link); /* again */
    hold(&p->b, false);
    assert_true(wait_end(&p->b, 1, true));
    close_pair(p);
    assert_int_equal(p->a.ended, 1);
}

/* Messages that wait are forgotten, and no event comes after the return. */
static void test_close_waiting(void **state)
{
    for (int run = 0; run < 20; run++) {
        pair *p = start_pair(*state);
        for (uint64_t n = 0; n < 60; n++) {
            assert_int_equal(send_number(p->a.link, n, body, 50000, DEADLINE, NULL), MQ_OK);
        }
        if (run % 2) assert_true(wait_end(&p->b, 1, false));
        close_end(&p->b);
        assert_true(wait_end(&p->a, 0, true));
        usleep(1000);
        close_pair(p);
    }
}

static void test_never_started(void **state)
{
    close_pair(open_pair(*state));
    pair *p = open_pair(*state);
    mq__link_stop(p->b.link);
    assert_int_equal(start_end(&p->b, MOST), MQ_OK);
    assert_true(wait_end(&p->b, 0, true));
    assert_int_equal(p->b.error.status, MQ_CANCELLED);
    close_pair(p);
}

/* ---- meetings */

static void test_refused(void **state)
{
    host h;
    mq_link *link;
    mq_error error = {0};
    const uint16_t port = open_host(&h, *state, "127.0.0.1");
    close_host(&h);
    const double start = mq__seconds();
    assert_int_equal(mq__link_connect(*state, "127.0.0.1", port, 3, &link, &error), MQ_IO);
    assert_null(link);
    assert_non_null(strstr(error.text, "expected"));
    assert_true(mq__seconds() - start < 6);
}

static void test_one_after_the_other(void **state)
{
    host h = {0};
    uint16_t port = 0;
    const bool meets = strcmp(*state, "memory") != 0;
    if (meets) port = open_host(&h, *state, "127.0.0.1");
    int before = 0;
    for (int i = 0; i < 1000; i++) {
        end a, b;
        open_end(&a);
        open_end(&b);
        if (meets) {
            assert_int_equal(mq__link_connect(*state, "127.0.0.1", port, DEADLINE, &a.link, NULL), MQ_OK);
            b.link = fetch_accepted(&h, DEADLINE);
            assert_non_null(b.link);
        } else {
            assert_int_equal(mq__link_pair(&a.link, &b.link, NULL), MQ_OK);
        }
        assert_int_equal(start_end(&b, MOST), MQ_OK);
        assert_int_equal(send_number(a.link, 0, body, 100, DEADLINE, NULL), MQ_OK);
        assert_true(wait_end(&b, 1, false));
        close_end(&a);
        close_end(&b);
        if (i == 10) before = count_descriptors(); /* after what is made once */
    }
    assert_int_equal(count_descriptors(), before);
    if (meets) close_host(&h);
}

typedef struct comer {
    const char *kind;
    uint16_t port;
    atomic_bool stops;
} comer;

static void *come_again(void *argument)
{
    comer *c = argument;
    while (!atomic_load(&c->stops)) {
        mq_link *link;
        if (mq__link_connect(c->kind, "127.0.0.1", c->port, 0.1, &link, NULL) == MQ_OK) mq__link_close(link);
    }
    return NULL;
}

static void test_listener_closes(void **state)
{
    for (int run = 0; run < 10; run++) {
        host h;
        pthread_t thread;
        comer c = {.kind = *state};
        c.port = open_host(&h, *state, "127.0.0.1");
        h.closes = true;
        assert_int_equal(pthread_create(&thread, NULL, come_again, &c), 0);
        usleep((unsigned)run * 5000);
        close_host(&h);
        const uint64_t count = h.count;
        atomic_store(&c.stops, true);
        pthread_join(thread, NULL);
        assert_int_equal(h.count, count);
    }
}

/* ---- memory */

/* An allocation of a link's life fails: at the connecting end, at the other, and of the first body. */
static void test_no_memory(void **state)
{
    int failed = 0;
    host h;
    const uint16_t port = open_host(&h, *state, "127.0.0.1");
    const int before = count_descriptors();
    for (unsigned long at = 1; at < 8; at++) {
        end a, b;
        open_end(&a);
        open_end(&b);
        mq__alloc_fail_at(at);
        const mq_status status = mq__link_connect(*state, "127.0.0.1", port, 1, &a.link, NULL);
        b.link = fetch_accepted(&h, 0.2);
        if (status == MQ_OK && b.link) {
            assert_int_equal(start_end(&b, MOST), MQ_OK);
            assert_int_equal(send_number(a.link, 0, body, 100, DEADLINE, NULL), MQ_OK);
            mq__link_close(a.link); /* so that it ends in any case */
            a.link = NULL;
            assert_true(wait_end(&b, 0, true));
        }
        mq__alloc_fail_at(0);
        failed += status == MQ_NO_MEMORY || !b.link || b.error.status == MQ_NO_MEMORY;
        close_end(&a);
        close_end(&b);
    }
    assert_in_range(failed, 3, 6); /* and then there are no more */
    mq__link_close(fetch_accepted(&h, 0.2));
    assert_int_equal(count_descriptors(), before);
    close_host(&h);
}

static void test_pair_no_memory(void **state)
{
    (void)state;
    const int before = count_descriptors();
    mq_status status = MQ_NO_MEMORY;
    for (unsigned long at = 1; status != MQ_OK; at++) {
        mq_link *a, *b;
        mq__alloc_fail_at(at);
        status = mq__link_pair(&a, &b, NULL);
        mq__alloc_fail_at(0);
        assert_true(at < 10);
        assert_true(status == MQ_OK || (status == MQ_NO_MEMORY && !a && !b));
        mq__link_close(a);
        mq__link_close(b);
    }
    assert_int_equal(count_descriptors(), before);
}

static void test_kinds(void **state)
{
    (void)state;
    mq_error error;
    mq_link *link;
    mq_link_listener *listener;
    assert_non_null(strstr(mq__link_kinds(), "tcp, shm"));
    assert_true(mq__link_has_kind("tcp") && mq__link_has_kind("shm"));
    assert_false(mq__link_has_kind("memory"));
    assert_int_equal(mq__link_has_kind("ucx"), strstr(mq__link_kinds(), "ucx") != NULL);
    assert_int_equal(mq__link_connect("pigeon", "127.0.0.1", 1, 1, &link, &error), MQ_UNSUPPORTED);
    assert_null(link);
    assert_int_equal(mq__link_listen("pigeon", "127.0.0.1", 0, accept_one, NULL, &listener, &error), MQ_UNSUPPORTED);
    assert_null(listener);
    mq__link_close(NULL);
    mq__link_listener_close(NULL);
}

/* ---- all of them */

enum { MEMORY = 1, TCP = 2, SHM = 4, UCX = 8, MEETING = TCP | SHM | UCX, EVERY = MEMORY | MEETING };

static const struct {
    CMUnitTestFunction function;
    const char *name;
    int kinds;
} list[] = {
#define OF(test, kinds)                                                                                                \
    {                                                                                                                  \
        test, #test, kinds                                                                                             \
    }
    OF(test_order, EVERY),
    OF(test_big_bodies, EVERY),
    OF(test_both_directions, EVERY),
    OF(test_too_big, EVERY),
    OF(test_takes_nothing, EVERY),
    OF(test_peer_closes, EVERY),
    OF(test_peer_closes_unread, EVERY),
    OF(test_wants_no_more, EVERY),
    OF(test_stop, EVERY),
    OF(test_close_waiting, EVERY),
    OF(test_never_started, EVERY),
    OF(test_refused, MEETING),
    OF(test_one_after_the_other, EVERY),
    OF(test_listener_closes, MEETING),
    OF(test_no_memory, TCP | SHM),
    OF(test_pair_no_memory, MEMORY),
    OF(test_kinds, TCP),
};

int main(void)
{
    enum { TESTS = sizeof list / sizeof list[0], KINDS = 4 };
    static const char *const kinds[KINDS] = {"memory", "tcp", "shm", "ucx"};
    static char names[KINDS * TESTS][64];
    struct CMUnitTest tests[KINDS * TESTS];
    size_t count = 0;
    for (int k = 0; k < KINDS; k++) {
        if (k > 0 && !mq__link_has_kind(kinds[k])) continue;
        if (strcmp(kinds[k], "ucx") == 0 && !tests_ucx()) continue;
        for (size_t t = 0; t < TESTS; t++) {
            if (!(list[t].kinds & 1 << k)) continue;
            snprintf(names[count], sizeof names[count], "%s: %s", kinds[k], list[t].name);
            tests[count] = (struct CMUnitTest){names[count], list[t].function, NULL, NULL, (void *)(uintptr_t)kinds[k]};
            count++;
        }
    }
    return _cmocka_run_group_tests("link", tests, count, NULL, NULL);
}
