/* Workers come, go, come back, and are asked how they are; who may be named; what cannot be opened. */
#include "unit_handoff.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <sys/socket.h>

/* ---- an HTTP server that knows one answer */

typedef struct stub {
    int fd;
    pthread_t thread;
    char name[64]; /* HOST:PORT */
    bool is_slow;
    pthread_mutex_t lock;
    worker *of; /* whose description it gives; NULL: `fixed` */
    const char *fixed;
    atomic_bool is_ending;
    atomic_uint asked;
} stub;

static void answer_one(stub *s, int fd)
{
    char request[2048];
    const ssize_t count = recv(fd, request, sizeof request - 1, 0);
    request[count > 0 ? count : 0] = '\0';
    pthread_mutex_lock(&s->lock);
    char *described = s->of ? mq_handoff_describe(s->of->handoff) : NULL;
    const char *told = described ? described : s->fixed;
    pthread_mutex_unlock(&s->lock);
    const bool right = strncmp(request, "GET /internal/link HTTP/1.1\r\n", 29) == 0;
    if (s->is_slow) nap(0.5);
    if (told) {
        dprintf(fd,
                "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
                right ? "200 OK" : "404 Not Found", strlen(told), told);
    }
    mq_free(described);
    atomic_fetch_add(&s->asked, 1);
}

static void *run_stub(void *context)
{
    stub *s = context;
    while (!atomic_load(&s->is_ending)) {
        const int fd = accept(s->fd, NULL, NULL);
        if (fd < 0) continue;
        answer_one(s, fd);
        close(fd);
    }
    return NULL;
}

static void set_answer(stub *s, worker *of, const char *fixed)
{
    pthread_mutex_lock(&s->lock);
    s->of = of;
    s->fixed = fixed;
    pthread_mutex_unlock(&s->lock);
}

static stub *start_stub(worker *of, const char *fixed, bool is_slow)
{
    stub *s = calloc(1, sizeof *s);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof at;
    assert_non_null(s);
    pthread_mutex_init(&s->lock, NULL);
    set_answer(s, of, fixed);
    s->is_slow = is_slow;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(s->fd >= 0 && bind(s->fd, (struct sockaddr *)&at, sizeof at) == 0 && listen(s->fd, 16) == 0);
    assert_int_equal(getsockname(s->fd, (struct sockaddr *)&at, &bytes), 0);
    snprintf(s->name, sizeof s->name, "127.0.0.1:%u", ntohs(at.sin_port));
    assert_int_equal(pthread_create(&s->thread, NULL, run_stub, s), 0);
    return s;
}

static void stop_stub(stub *s)
{
    atomic_store(&s->is_ending, true);
    (void)shutdown(s->fd, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->fd);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* ---- scenes */

static mq_engine *open_tiny(uint32_t contexts, uint32_t chunk)
{
    return open_model(model, contexts, chunk, MQ_LINEAR_NVFP4);
}

static mq_report run_prompt(worker *d, mq_engine *alone, uint32_t seed, const char *peer)
{
    client *c = new_client(seed, 200);
    c->most = 3;
    ask_with(d, c, &(mq_request){.prefill_peer = peer});
    await(c);
    check_truth(alone, c);
    const mq_report report = c->report;
    drop(c);
    return report;
}

static bool describes(worker *w, const char *part)
{
    char *described = mq_handoff_describe(w->handoff);
    assert_non_null(described);
    const bool has = strstr(described, part) != NULL;
    if (getenv("MQ_TEST_VERBOSE") && !has) print_message("%s\n", described);
    mq_free(described);
    return has;
}

/* ---- health */

static void test_health(void **state)
{
    (void)state;
    mq_engine *alone = open_tiny(1, 128);
    worker *p = start_prefill(open_tiny(4, 64), NULL);
    stub *s = start_stub(p, NULL, false);
    const char *name = s->name;
    worker *d = open_decode(open_tiny(4, 64), &name, 1, NULL);
    assert_int_equal(run_prompt((serve_worker(d, NULL), d), alone, 1, NULL).transfer_failures,
                     0); /* whatever it knows */
    WAIT_FOR(handoff_stats(d).healthy == 1);
    assert_int_equal(run_prompt(d, alone, 2, NULL).prefilled, MQ_PREFILLED_REMOTE);
    assert_true(has_line(d, "prefills for this worker"));
    assert_true(describes(d, "\"healthy\":true"));
    /* it answers no more, or something else */
    static const struct {
        const char *text, *names;
    } cases[] = {{"{\"role\":\"decode\"}", "expected a worker that prefills"},
                 {"[]", "expected"},
                 {"{\"link\":", "expected"},
                 {"", "expected"},
                 {NULL, "expected an answer"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        set_answer(s, NULL, cases[i].text);
        WAIT_FOR(handoff_stats(d).healthy == 0);
        assert_true(describes(d, cases[i].names));
        assert_int_equal(run_prompt(d, alone, 3 + (uint32_t)i, NULL).prefilled, MQ_PREFILLED_LOCAL);
        set_answer(s, p, NULL);
        WAIT_FOR(handoff_stats(d).healthy == 1);
    }
    assert_int_equal(run_prompt(d, alone, 20, NULL).prefilled, MQ_PREFILLED_REMOTE);
    stop_worker(d);
    stop_stub(s);
    stop_worker(p);
    mq_engine_close(alone);
}

static void test_other_engines_are_no_peers(void **state)
{
    (void)state;
    mq_engine *alone = open_tiny(1, 128);
    worker *p = start_prefill(open_model(model, 4, 64, MQ_LINEAR_BF16), NULL);
    stub *s = start_stub(p, NULL, false);
    const char *name = s->name;
    worker *d = open_decode(open_tiny(4, 64), &name, 1, NULL);
    serve_worker(d, NULL);
    WAIT_FOR(atomic_load(&s->asked) >= 2);
    assert_int_equal(handoff_stats(d).healthy, 0);
    assert_true(describes(d, "plan: expected the same on both sides"));
    assert_true(has_line(d, "plan: expected the same on both sides"));
    assert_int_equal(run_prompt(d, alone, 1, NULL).prefilled, MQ_PREFILLED_LOCAL);
    assert_true(describes(p, "\"plan\":\"bf16-bf16\"") && describes(d, "\"plan\":\"nvfp4-bf16\""));
    assert_true(describes(p, "\"role\":\"prefill\"") && describes(d, "\"role\":\"decode\",\"link\":null"));
    stop_worker(d);
    stop_stub(s);
    stop_worker(p);
    mq_engine_close(alone);
}

static void test_slow_answers(void **state)
{
    (void)state;
    worker *p = start_prefill(open_tiny(4, 64), NULL);
    stub *s = start_stub(p, NULL, true);
    const char *name = s->name;
    worker *d = open_decode(open_tiny(4, 64), &name, 1, NULL);
    d->handoff->tuning.health_wait = 0.1;
    serve_worker(d, NULL);
    WAIT_FOR(has_line(d, "expected an answer, got: Timeout was reached"));
    assert_int_equal(handoff_stats(d).healthy, 0);
    stop_worker(d);
    stop_stub(s);
    stop_worker(p);
}

/* ---- named peers */

static void test_named_peers(void **state)
{
    (void)state;
    mq_engine *alone = open_tiny(1, 128);
    worker *p = start_prefill(open_tiny(4, 64), NULL);
    stub *s = start_stub(p, NULL, false);
    static const char *const allowed[] = {"10.0.0.0/8", "127.0.0.0/24", "::1"};
    const mq_handoff_options options = {.least = 1, .allowed = allowed, .allowed_count = 3};
    worker *d = open_decode(open_tiny(4, 64), NULL, 0, &options);
    serve_worker(d, NULL);
    assert_int_equal(run_prompt(d, alone, 1, NULL).prefilled, MQ_PREFILLED_LOCAL);     /* there is nobody to choose */
    assert_int_equal(run_prompt(d, alone, 2, s->name).prefilled, MQ_PREFILLED_REMOTE); /* it says where its link is */
    assert_int_equal(run_prompt(d, alone, 3, p->name).prefilled, MQ_PREFILLED_REMOTE);
    assert_int_equal(handoff_stats(d).refused_peers, 0);
    static const char *const refused[] = {"127.0.1.1:80",        "localhost:80", "192.168.0.1:80", "evil.example:80",
                                          "link://127.0.1.1:80", "nonsense",     "127.0.0.1",      "[::2]:80",
                                          "127.0.0.1:80/x"};
    for (uint32_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        assert_int_equal(handoff_stats(d).refused_peers, 2 * i);
        assert_false(mq_handoff_allows(d->handoff, refused[i])); /* it counts each that it is asked for */
        assert_int_equal(handoff_stats(d).refused_peers, 2 * i + 1);
        assert_int_equal(run_prompt(d, alone, 10 + i, refused[i]).prefilled, MQ_PREFILLED_LOCAL);
    }
    assert_true(mq_handoff_allows(d->handoff, "127.0.0.1:80") && mq_handoff_allows(d->handoff, "link://[::1]:80"));
    assert_false(mq_handoff_allows(p->handoff, "127.0.0.1:80"));
    stop_worker(d);
    stop_stub(s);
    stop_worker(p);
    mq_engine_close(alone);
}

/* Nobody is there: it is found out, and left alone; names that come and go take no more room than there is. */
static void test_absent_peers(void **state)
{
    (void)state;
    mq_engine *alone = open_tiny(1, 128);
    static const char *const allowed[] = {"127.0.0.0/8"};
    const mq_handoff_options options = {.least = 1, .allowed = allowed, .allowed_count = 1};
    worker *d = open_decode(open_tiny(4, 64), NULL, 0, &options);
    d->handoff->tuning.peers = 3;
    serve_worker(d, NULL);
    for (uint32_t i = 0; i < 8; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s127.0.0.%u:9", i % 2 ? "link://" : "", i + 1);
        const mq_report report = run_prompt(d, alone, i, name);
        assert_int_equal(report.prefilled, MQ_PREFILLED_LOCAL);
        assert_int_equal(report.arrived, 0);
        assert_true(d->handoff->peers->unlisted <= 3);
        WAIT_FOR(connections_of(d) == 0);
    }
    assert_int_equal(handoff_stats(d).refused_peers, 0);
    assert_true(has_line(d, "127.0.0.1:9: expected an answer, got"));
    assert_true(has_line(d, "link://127.0.0.2:9: link: 127.0.0.2 port 9: expected to connect"));
    stop_worker(d);
    mq_engine_close(alone);
}

/* A listed peer under its link's address is the same peer. */
static void test_listed_by_its_link(void **state)
{
    (void)state;
    mq_engine *alone = open_tiny(1, 128);
    worker *p = start_prefill(open_tiny(4, 64), NULL);
    stub *s = start_stub(p, NULL, false);
    const char *name = s->name;
    worker *d = open_decode(open_tiny(4, 64), &name, 1, NULL);
    serve_worker(d, NULL);
    WAIT_FOR(handoff_stats(d).healthy == 1);
    assert_true(mq_handoff_allows(d->handoff, p->name));
    assert_int_equal(run_prompt(d, alone, 1, p->name).prefilled, MQ_PREFILLED_REMOTE);
    assert_int_equal(d->handoff->peers->count, 1);
    assert_false(mq_handoff_allows(d->handoff, "link://127.0.0.1:9"));
    stop_worker(d);
    stop_stub(s);
    stop_worker(p);
    mq_engine_close(alone);
}

/* ---- coming and going */

/* Prompts go on while their peer stops at any moment, and is back at the same address. */
static void test_restarts(void **state)
{
    (void)state;
    enum { MANY = 6, ROUNDS = 12 };
    mq_engine *alone = open_tiny(1, 128);
    worker *p = start_prefill(open_tiny(6, 64), NULL);
    const uint16_t port = mq_handoff_port(p->handoff);
    worker *d = start_decode(open_tiny(8, 64), p, NULL);
    uint32_t remote = 0, failures = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        client *c[MANY];
        for (uint32_t i = 0; i < MANY; i++) {
            c[i] = new_client(100 * round + i, 500 + 60 * i);
            c[i]->most = 2;
            ask(d, c[i]);
        }
        nap(0.004 * round);
        stop_worker(p);
        p = start_prefill(open_tiny(6, 64), &(mq_handoff_options){.port = port});
        for (uint32_t i = 0; i < MANY; i++) {
            await(c[i]);
            check_truth(alone, c[i]);
            remote += c[i]->report.prefilled == MQ_PREFILLED_REMOTE;
            failures += c[i]->report.transfer_failures;
            drop(c[i]);
        }
        bool trusted = false; /* again */
        for (uint32_t i = 0; !trusted && i < 40; i++) {
            nap(0.05);
            trusted = run_prompt(d, alone, 7000 + 100 * round + i, NULL).prefilled == MQ_PREFILLED_REMOTE;
        }
        assert_true(trusted);
    }
    print_message("%u of %u came, %u transfers failed\n", remote, MANY * ROUNDS, failures);
    assert_int_equal(handoff_stats(d).refused_frames, 0);
    stop_worker(d);
    stop_worker(p);
    mq_engine_close(alone);
}

/* The decode worker stops at any moment: the peer lets go of all. */
static void test_decode_stops(void **state)
{
    (void)state;
    worker *p = start_prefill(open_tiny(4, 64), NULL);
    for (uint32_t round = 0; round < 10; round++) {
        worker *d = start_decode(open_tiny(8, 64), p, NULL);
        client *c[4];
        for (uint32_t i = 0; i < 4; i++) {
            c[i] = new_client(100 * round + i, 800);
            ask(d, c[i]);
        }
        nap(0.001 * round);
        mq_handoff_stop(d->handoff);
        for (uint32_t i = 0; i < 4; i++) {
            await(c[i]);
            drop(c[i]);
        }
        stop_worker(d);
        WAIT_FOR(handoff_stats(p).sending == 0);
        mq_scheduler_stats stats;
        do {
            mq_scheduler_describe(p->scheduler, &stats);
        } while (stats.running + stats.waiting + stats.held);
    }
    stop_worker(p);
}

/* ---- options */

static void refuse_options(mq_engine *engine, const mq_handoff_options *more, mq_status status, const char *names)
{
    mq_handoff *h;
    mq_error error = {0};
    mq_handoff_options options = *more;
    options.engine = engine;
    unit_refused(mq_handoff_open(&options, &h, &error), status, &error, names);
    assert_null(h);
}

static void test_options(void **state)
{
    (void)state;
    mq_engine *engine = open_tiny(1, 64);
    static const char *const name = "nonsense", *const network = "10.0.0.1/8";
    refuse_options(engine, &(mq_handoff_options){.transport = "pigeons"}, MQ_UNSUPPORTED, "got pigeons");
    refuse_options(engine, &(mq_handoff_options){.peers = &name, .peer_count = 1}, MQ_USAGE, "nonsense");
    refuse_options(engine, &(mq_handoff_options){.allowed = &network, .allowed_count = 1}, MQ_USAGE, "10.0.0.1/8");
    refuse_options(engine, &(mq_handoff_options){.listens = true, .host = "0.0.0.0"}, MQ_USAGE, "key file");
    refuse_options(engine, &(mq_handoff_options){.key_file = unit_path("none")}, MQ_IO, "none");
    unit_puts("key", "0123456789abcdef");
    static const mq_handoff_options good[] = {{.listens = true, .host = "0.0.0.0", .insecure = true},
                                              {.listens = true, .host = "::1"},
                                              {.listens = false, .host = "0.0.0.0"},
                                              {.transport = "shm"}};
    for (size_t i = 0; i < 5; i++) {
        mq_handoff_options options = {.listens = true, .host = "0.0.0.0", .key_file = unit_path("key")};
        if (i < 4) options = good[i];
        mq_handoff *h;
        mq_error error = {0};
        options.engine = engine;
        if (mq_handoff_open(&options, &h, &error) != MQ_OK) fail_msg("%s", error.text);
        assert_null(mq_handoff_source(h));
        assert_int_equal(mq_handoff_port(h), 0);
        mq_handoff_close(h);
    }
    mq_engine_close(engine);
}

/* Every allocation of opening fails once: it is said, and nothing is left behind. */
static void test_short_memory(void **state)
{
    (void)state;
    mq_engine *engine = open_tiny(1, 64);
    static const char *const peers[] = {"127.0.0.1:9", "link://127.0.0.1:9"}, *const allowed[] = {"10.0.0.0/8"};
    const mq_handoff_options options = {
        .engine = engine, .listens = true, .peers = peers, .peer_count = 2, .allowed = allowed, .allowed_count = 1};
    unsigned failed = 0;
    for (unsigned long n = 1;; n++) {
        mq_handoff *h;
        mq_error error = {0};
        (void)mq__alloc_fail_at(n);
        const mq_status status = mq_handoff_open(&options, &h, &error);
        const bool hit = mq__alloc_fail_at(0) >= n;
        if (status == MQ_OK) mq_handoff_close(h);
        if (!hit) break;
        assert_int_equal(status, MQ_NO_MEMORY);
        failed++;
    }
    assert_true(failed >= 8);
    mq_engine_close(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_health),       cmocka_unit_test(test_other_engines_are_no_peers),
        cmocka_unit_test(test_slow_answers), cmocka_unit_test(test_named_peers),
        cmocka_unit_test(test_absent_peers), cmocka_unit_test(test_listed_by_its_link),
        cmocka_unit_test(test_restarts),     cmocka_unit_test(test_decode_stops),
        cmocka_unit_test(test_options),      cmocka_unit_test(test_short_memory),
    };
    return cmocka_run_group_tests(tests, open_text, close_text);
}
