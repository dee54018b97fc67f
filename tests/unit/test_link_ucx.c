/* Links over UCX between processes: peers that die or stop in the midst of a message, many that come and go beside a running one, strangers
 * at the ports. A peer is this program once more, as UCX does not survive a fork. */
#include "unit_link.h"

#include "base/little_endian.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <ucp/api/ucp.h>

#define STREAM (3u << 20) /* bytes of a body in a stream: more than one part */

extern char **environ;

static const char *own_path;
static uint8_t body[MOST];

/* ---- peers */

/* stream PORT COUNT: connects, sends so many messages, and closes. */
static int run_stream(uint16_t port, uint64_t count)
{
    end e;
    open_end(&e);
    if (mq__link_connect("ucx", "127.0.0.1", port, DEADLINE, &e.link, NULL) != MQ_OK) return 2;
    if (start_end(&e, MOST) != MQ_OK) return 3;
    for (uint64_t n = 0; n < count; n++) {
        if (send_number(e.link, n, body, STREAM, 60, NULL) != MQ_OK) return 4;
    }
    mq__link_close(e.link);
    return 0;
}

/* mixed PORT COUNT: the same, with bodies of many sizes in flight at once; ends when as many have come back. */
static int run_mixed(uint16_t port, uint64_t count)
{
    end e;
    uint64_t at = 0, random = 1;
    uint8_t head[MQ_LINK_HEAD];
    open_end(&e);
    if (mq__link_connect("ucx", "127.0.0.1", port, DEADLINE, &e.link, NULL) != MQ_OK) return 2;
    if (start_end(&e, MOST) != MQ_OK) return 3;
    for (uint64_t n = 0; n < count; n++) {
        random = mix(random + 1);
        const size_t bytes = random % 3 == 0 ? random % 200 : (size_t)(random % 300000);
        if (at + bytes > MOST) {
            if (mq__link_flush(e.link, 60, NULL) != MQ_OK) return 4;
            at = 0;
        }
        fill_bytes(head, sizeof head, n);
        fill_bytes(body + at, bytes, mix(n));
        if (mq__link_send(e.link, head, body + at, bytes, 60, NULL) != MQ_OK) return 5;
        at += (bytes + 7) / 8 * 8;
    }
    if (!wait_end(&e, count, false) || e.wrong) return 6;
    mq__link_close(e.link);
    return 0;
}

/* sink PORT: takes what comes, until the end. */
static int run_sink(uint16_t port)
{
    end e;
    open_end(&e);
    if (mq__link_connect("ucx", "127.0.0.1", port, DEADLINE, &e.link, NULL) != MQ_OK) return 2;
    if (start_end(&e, MOST) != MQ_OK) return 3;
    const bool ended = wait_end(&e, 0, true);
    mq__link_close(e.link);
    return ended && !e.wrong ? 0 : 4;
}

static pid_t start_peer(const char *role, uint16_t port, uint64_t count)
{
    char port_text[8], count_text[24];
    snprintf(port_text, sizeof port_text, "%u", port);
    snprintf(count_text, sizeof count_text, "%llu", (unsigned long long)count);
    char *words[] = {(char *)(uintptr_t)own_path, (char *)(uintptr_t)role, port_text, count_text, NULL};
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)execve(own_path, words, environ);
        _exit(127);
    }
    return child;
}

static int wait_peer(pid_t child)
{
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void kill_peer(pid_t child, int signal_number)
{
    assert_int_equal(kill(child, signal_number), 0);
}

/* The next link that comes, with `e` at this end. */
static void accept_end(host *h, end *e, size_t most)
{
    open_end(e);
    e->link = fetch_accepted(h, DEADLINE);
    assert_non_null(e->link);
    assert_int_equal(start_end(e, most), MQ_OK);
}

/* ---- peers that die or stop */

static void test_sender_killed(void **state)
{
    (void)state;
    host h;
    const uint16_t port = open_host(&h, "ucx", "127.0.0.1");
    const int before = count_descriptors();
    for (int run = 0; run < 12; run++) {
        end e;
        const pid_t child = start_peer("stream", port, 100000);
        accept_end(&h, &e, MOST);
        assert_true(wait_end(&e, 1 + (uint64_t)run / 4, false));
        usleep((unsigned)run * 777);
        kill_peer(child, SIGKILL);
        const double start = mq__seconds();
        assert_true(wait_end(&e, 0, true));
        assert_true(mq__seconds() - start < 5);
        assert_int_equal(e.error.status, MQ_IO);
        assert_int_equal(send_number(e.link, 0, body, 10, 1, NULL), MQ_IO);
        close_end(&e);
        assert_int_equal(e.wrong, 0);
        assert_int_equal(e.ended, 1);
        (void)wait_peer(child);
        if (run > 0) assert_int_equal(count_descriptors(), before);
    }
    end e; /* and the next one is as welcome */
    const pid_t child = start_peer("stream", port, 20);
    accept_end(&h, &e, MOST);
    assert_true(wait_end(&e, 20, true));
    assert_int_equal(wait_peer(child), 0);
    close_end(&e);
    assert_int_equal(e.wrong, 0);
    close_host(&h);
}

typedef struct killer {
    pid_t child;
    int signal_number;
} killer;

static void *kill_soon(void *argument)
{
    const killer *k = argument;
    usleep(100000);
    (void)kill(k->child, k->signal_number);
    return NULL;
}

/* Sends until a signal hits the peer. Seconds from then on. */
static double send_into(int signal_number, double seconds, mq_error *error)
{
    host h;
    end e;
    pthread_t thread;
    const uint16_t port = open_host(&h, "ucx", "127.0.0.1");
    killer k = {start_peer("sink", port, 0), signal_number};
    accept_end(&h, &e, MOST);
    assert_int_equal(send_number(e.link, 0, body, 10, DEADLINE, NULL), MQ_OK);
    assert_int_equal(pthread_create(&thread, NULL, kill_soon, &k), 0);
    e.count = 0;
    const double start = mq__seconds();
    uint64_t n = 1;
    mq_status status = MQ_OK;
    while (status == MQ_OK) {
        status = send_number(e.link, n++, body, STREAM, seconds, error);
    }
    const double took = mq__seconds() - start;
    assert_int_equal(status, MQ_IO);
    pthread_join(thread, NULL);
    assert_true(wait_end(&e, 0, true));
    close_end(&e);
    close_host(&h);
    (void)kill(k.child, SIGKILL);
    (void)wait_peer(k.child);
    return took;
}

static void test_receiver_killed(void **state)
{
    (void)state;
    mq_error error = {0};
    for (int run = 0; run < 3; run++) {
        assert_true(send_into(SIGKILL, 60, &error) < 10);
    }
}

static void test_receiver_stopped(void **state)
{
    (void)state;
    mq_error error = {0};
    const double took = send_into(SIGSTOP, 1.5, &error);
    assert_true(took > 1 && took < 10);
    assert_non_null(strstr(error.text, "expected it to take bytes, got none taken for 1.5 seconds"));
}

/* ---- many */

typedef struct visitor {
    uint16_t port;
    int visits, failures;
    mq_error error; /* the last */
} visitor;

static void *visit(void *argument)
{
    visitor *v = argument;
    uint8_t own_body[40000];
    for (int i = 0; i < v->visits; i++) {
        mq_link *link;
        uint64_t n = 0;
        mq_status status = mq__link_connect("ucx", "127.0.0.1", v->port, DEADLINE, &link, &v->error);
        for (; n < 3 && status == MQ_OK; n++) {
            status = send_number(link, n, own_body, i % 2 ? 0 : sizeof own_body, DEADLINE, &v->error);
        }
        v->failures += status != MQ_OK;
        if (link) mq__link_close(link);
    }
    return NULL;
}

/* Visitors' links at the other end: each takes three messages and is closed when it has ended. */
typedef struct visited {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t messages, ended, wrong;
    mq_link *done[512];
    int done_count;
} visited;

typedef struct visit_end {
    visited *all;
    mq_link *link;
    uint64_t count;
} visit_end;

static bool take_visit(void *context, const uint8_t *head, const void *bytes, size_t count)
{
    visit_end *v = context;
    pthread_mutex_lock(&v->all->lock);
    v->all->messages++;
    v->all->wrong += !has_bytes(head, MQ_LINK_HEAD, v->count) || !has_bytes(bytes, count, mix(v->count));
    v->count++;
    pthread_mutex_unlock(&v->all->lock);
    return true;
}

static void end_visit(void *context, const mq_error *error)
{
    visit_end *v = context;
    (void)error;
    pthread_mutex_lock(&v->all->lock);
    v->all->done[v->all->done_count++] = v->link;
    v->all->ended++;
    pthread_cond_broadcast(&v->all->changed);
    pthread_mutex_unlock(&v->all->lock);
    free(v);
}

static void accept_visit(void *context, mq_link *link, const char *from)
{
    (void)from;
    visit_end *v = calloc(1, sizeof *v);
    *v = (visit_end){.all = context, .link = link};
    const mq_link_events events = {take_visit, end_visit, v};
    if (mq__link_start(link, &events, 100000, NULL) != MQ_OK) abort();
}

static void test_many_beside_a_transfer(void **state)
{
    enum { THREADS = 4, VISITS = 50 };
    (void)state;
    visited all = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    mq_link_listener *listener;
    pthread_t threads[THREADS];
    visitor visitors[THREADS];
    pair *running = start_pair("ucx");
    assert_int_equal(mq__link_listen("ucx", "127.0.0.1", 0, accept_visit, &all, &listener, NULL), MQ_OK);
    for (int i = 0; i < THREADS; i++) {
        visitors[i] = (visitor){.port = mq__link_port(listener), .visits = VISITS};
        assert_int_equal(pthread_create(&threads[i], NULL, visit, &visitors[i]), 0);
    }
    uint64_t n = 0;
    bool goes_on = true;
    while (goes_on) {
        assert_int_equal(send_number(running->a.link, n++, body, STREAM, DEADLINE, NULL), MQ_OK);
        pthread_mutex_lock(&all.lock);
        goes_on = all.ended < THREADS * VISITS;
        pthread_mutex_unlock(&all.lock);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        if (visitors[i].failures) fail_msg("%d failures: %s", visitors[i].failures, visitors[i].error.text);
    }
    assert_true(wait_end(&running->b, n, false));
    close_pair(running);
    mq__link_listener_close(listener);
    for (int i = 0; i < all.done_count; i++) {
        mq__link_close(all.done[i]);
    }
    assert_int_equal(all.messages, 3 * THREADS * VISITS);
    assert_int_equal(all.wrong, 0);
}

/* ---- other ways of UCX */

/* Bodies that the receiver fetches, and small ones that overtake them on the wire, arrive in order. */
static void test_rendezvous(void **state)
{
    (void)state;
    static const char *const thresholds[] = {"0", "2000", "100000"};
    for (int i = 0; i < 3; i++) {
        host h;
        end e;
        assert_int_equal(setenv("UCX_RNDV_THRESH", thresholds[i], 1), 0); /* of this process's links, too */
        const uint16_t port = open_host(&h, "ucx", "127.0.0.1");
        const pid_t child = start_peer("mixed", port, 500);
        accept_end(&h, &e, MOST);
        for (uint64_t n = 0; n < 500; n++) {
            assert_int_equal(send_number(e.link, n, body, n % 10 == 0 ? STREAM : n % 3000, DEADLINE, NULL), MQ_OK);
        }
        assert_true(wait_end(&e, 500, true));
        assert_int_equal(wait_peer(child), 0);
        close_end(&e);
        assert_int_equal(e.wrong, 0);
        close_host(&h);
        assert_int_equal(unsetenv("UCX_RNDV_THRESH"), 0);
    }
}

/* ---- strangers */

static int connect_plain(uint16_t port)
{
    const struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

/* Whether the other end closes within the time. */
static bool is_closed(int fd, double seconds)
{
    char scrap[5000];
    struct pollfd one = {.fd = fd, .events = POLLIN};
    const double deadline = mq__seconds() + seconds;
    while (mq__seconds() < deadline) {
        if (poll(&one, 1, 20) == 1 && recv(fd, scrap, sizeof scrap, MSG_DONTWAIT) <= 0) return true;
    }
    return false;
}

static void send_plain(uint16_t port, const void *bytes, size_t count)
{
    const int fd = connect_plain(port);
    (void)send(fd, bytes, count, MSG_NOSIGNAL);
    if (!is_closed(fd, DEADLINE)) fail_msg("%zu bytes were taken", count);
    close(fd);
}

/* A greeting (src/link/link_ucx_impl.h), right but for what a test changes. */
typedef struct greeting {
    uint32_t part, version, rest;
    uint64_t uid;
    uint16_t port, host_bytes;
    uint8_t key[32];
    char side;
} greeting;

static greeting right_greeting(void)
{
    return (greeting){
        .part = 1u << 20, .version = UCP_API_MAJOR << 16 | UCP_API_MINOR, .uid = 1, .port = 1, .side = 'C'};
}

static void put_proof(uint8_t *bytes, size_t count, const uint8_t nonce[16], const greeting *g)
{
    crypto_generichash_state state;
    uint8_t proof[32];
    assert_int_equal(crypto_generichash_init(&state, g->key, sizeof g->key, sizeof proof), 0);
    (void)crypto_generichash_update(&state, (const uint8_t *)&g->side, 1);
    (void)crypto_generichash_update(&state, nonce, 16);
    (void)crypto_generichash_update(&state, bytes, count);
    (void)crypto_generichash_final(&state, proof, sizeof proof);
    memcpy(bytes + 72, proof, sizeof proof);
}

/* Sends it, as who connects. */
static int send_greeting(uint16_t port, greeting g, uint8_t nonce[16])
{
    uint8_t bytes[104 + 5000] = "MQUCX\1", first[24];
    const size_t rest = g.rest < 5000 ? g.rest : 5000;
    const int fd = connect_plain(port);
    assert_int_equal(recv(fd, first, sizeof first, MSG_WAITALL), sizeof first);
    assert_memory_equal(first, "MQUCX\1\0\0", 8);
    memcpy(nonce, first + 8, 16);
    mq__put_u32(bytes + 32, g.part);
    mq__put_u32(bytes + 36, g.version);
    mq__put_u64(bytes + 40, g.uid);
    mq__put_u32(bytes + 48, g.port | (uint32_t)g.host_bytes << 16);
    mq__put_u32(bytes + 68, g.rest);
    fill_bytes(bytes + 104, rest, g.rest);
    put_proof(bytes, 104 + rest, nonce, &g);
    (void)send(fd, bytes, 104 + rest, MSG_NOSIGNAL);
    return fd;
}

static void send_wrong(uint16_t port, greeting g)
{
    uint8_t nonce[16];
    const int fd = send_greeting(port, g, nonce);
    if (!is_closed(fd, DEADLINE)) fail_msg("part %u version %x rest %u were taken", g.part, g.version, g.rest);
    close(fd);
}

#define WRONG(field, value)                                                                                            \
    do {                                                                                                               \
        greeting g_ = right_greeting();                                                                                \
        g_.field = value;                                                                                              \
        send_wrong(port, g_);                                                                                          \
    } while (0)

/* What comes to the listener's port that is no greeting is closed, at once or after ten seconds; links come through meanwhile. */
static void test_strangers(void **state)
{
    (void)state;
    host h;
    uint8_t bytes[5000] = {0};
    const uint16_t port = open_host(&h, "ucx", "127.0.0.1");
    send_plain(
        port,
        "GET / HTTP/1.1\r\nHost: example.org\r\nAccept: text/html, application/xhtml+xml, application/xml\r\n\r\n\r\n",
        104);
    send_plain(port, bytes, 104);
    for (uint64_t i = 0; i < 50; i++) {
        fill_bytes(bytes, sizeof bytes, i);
        if (i % 2) memcpy(bytes, "MQUCX\1\0", 8);
        send_plain(port, bytes, 104 + i * 90);
    }
    WRONG(part, 4096);
    WRONG(version, 99 << 16);
    WRONG(rest, 4097);
    WRONG(rest, UINT32_MAX);
    WRONG(rest, 50); /* a whole address, which nobody asked for */
    WRONG(side, 'L');
    WRONG(key[7], 1);
    WRONG(port, 0);
    WRONG(host_bytes, 4);
    WRONG(host_bytes, 17);
    WRONG(uid, 0); /* nobody is there: UCX finds out */
    end e;
    mq__link_close(fetch_accepted(&h, 0.1)); /* a stranger's */
    const pid_t child = start_peer("stream", port, 3);
    accept_end(&h, &e, MOST);
    assert_true(wait_end(&e, 3, true));
    assert_int_equal(wait_peer(child), 0);
    close_end(&e);
    const double start = mq__seconds();
    const int slow = connect_plain(port);
    (void)send(slow, "MQUCX\1\0\0", 8, MSG_NOSIGNAL);
    assert_true(is_closed(slow, DEADLINE));
    assert_true(mq__seconds() - start > 9 && mq__seconds() - start < 15);
    close(slow);
    close_host(&h);
}

/* A port of this machine where nobody listens, or somebody who is no worker: the link does not come about. */
static void test_false_places(void **state)
{
    (void)state;
    host h;
    uint8_t nonce[16], answer[104];
    const uint16_t port = open_host(&h, "ucx", "127.0.0.1");
    greeting g = right_greeting();
    g.port = port;
    const int fd = send_greeting(port, g, nonce);
    assert_int_equal(recv(fd, answer, sizeof answer, MSG_WAITALL), sizeof answer);
    close(fd);
    g.port = (uint16_t)(mq__get_u32(answer + 48) & 0xffff); /* its own, of the link before */
    send_wrong(port, g);
    end e;
    mq__link_close(fetch_accepted(&h, 0.1));
    const pid_t child = start_peer("stream", port, 3);
    accept_end(&h, &e, MOST);
    assert_true(wait_end(&e, 3, true));
    assert_int_equal(wait_peer(child), 0);
    close_end(&e);
    close_host(&h);
}

/* Who does not know the secret gets no link; who does gets one. */
static void test_secret(void **state)
{
    (void)state;
    static const uint8_t ours[MQ_LINK_SECRET] = {1, 2, 3};
    host h;
    end e;
    uint8_t nonce[16];
    const uint16_t port = open_host(&h, "ucx", "127.0.0.1");
    mq__link_set_secret(ours);
    send_wrong(port, right_greeting());
    mq__link_close(fetch_accepted(&h, 1));
    pid_t child = start_peer("stream", port, 1); /* without one */
    assert_int_equal(wait_peer(child), 2);
    mq__link_close(fetch_accepted(&h, 1));
    greeting g = right_greeting();
    memcpy(g.key, ours, sizeof ours);
    const int fd = send_greeting(port, g, nonce);
    uint8_t answer[104];
    assert_int_equal(recv(fd, answer, sizeof answer, MSG_WAITALL), sizeof answer);
    mq__link_close(fetch_accepted(&h, 1));
    close(fd);
    mq__link_set_secret(NULL);
    child = start_peer("stream", port, 3);
    accept_end(&h, &e, MOST);
    assert_true(wait_end(&e, 3, true));
    assert_int_equal(wait_peer(child), 0);
    close_end(&e);
    close_host(&h);
}

/* The ports at which this process listens on 127.0.0.1. */
static int find_listening(uint16_t ports[16])
{
    int count = 0;
    for (int fd = 3; fd < 200 && count < 16; fd++) {
        int listens = 0;
        struct sockaddr_in own = {0};
        socklen_t bytes = sizeof listens, own_bytes = sizeof own;
        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &bytes) != 0 || !listens) continue;
        if (getsockname(fd, (struct sockaddr *)&own, &own_bytes) == 0) ports[count++] = ntohs(own.sin_port);
    }
    return count;
}

/* UCX's own port, which believes all that comes, answers nobody when the link is there. */
static void test_deaf_port(void **state)
{
    (void)state;
    uint16_t ports[16];
    pair *p = start_pair("ucx");
    assert_int_equal(send_number(p->a.link, 0, body, 10, DEADLINE, NULL), MQ_OK);
    assert_int_equal(send_number(p->b.link, 0, body, 10, DEADLINE, NULL), MQ_OK);
    assert_true(wait_end(&p->a, 1, false) && wait_end(&p->b, 1, false));
    const int count = find_listening(ports);
    assert_int_equal(count, 3); /* the listener's, and one of each end's worker */
    int answers = 0;
    for (int i = 0; i < count; i++) {
        const struct sockaddr_in to = {
            .sin_family = AF_INET, .sin_port = htons(ports[i]), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        struct pollfd one = {.fd = fd, .events = POLLOUT};
        (void)connect(fd, (const struct sockaddr *)&to, sizeof to);
        answers += poll(&one, 1, 300) == 1;
        close(fd);
    }
    assert_int_equal(answers, 1);
    for (uint64_t n = 1; n < 20; n++) {
        assert_int_equal(send_number(p->a.link, n, body, STREAM, DEADLINE, NULL), MQ_OK);
    }
    assert_true(wait_end(&p->b, 20, false));
    close_pair(p);
}

int main(int count, char **words)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sender_killed),    cmocka_unit_test(test_receiver_killed),
        cmocka_unit_test(test_receiver_stopped), cmocka_unit_test(test_many_beside_a_transfer),
        cmocka_unit_test(test_rendezvous),       cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_deaf_port),        cmocka_unit_test(test_false_places),
        cmocka_unit_test(test_secret),
    };
    own_path = "/proc/self/exe";
    if (count < 4 && !tests_ucx()) return 77; /* skipped */
    if (count == 4) {
        const uint16_t port = (uint16_t)atoi(words[2]);
        const uint64_t messages = strtoull(words[3], NULL, 10);
        if (strcmp(words[1], "stream") == 0) return run_stream(port, messages);
        if (strcmp(words[1], "mixed") == 0) return run_mixed(port, messages);
        return run_sink(port);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
