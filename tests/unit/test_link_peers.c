/* Peers of links that die, send garbage, say nothing or come in crowds. */
#include "unit_link_raw.h"

#include "link/link_door.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

static uint8_t body[MOST];

/* ---- processes */

static char own_path[PATH_MAX];

/* This program as a peer: PROGRAM KIND PORT flood|sink|try, by an emulator where one runs this program ("qemu-aarch64 -L DIR"). */
static pid_t spawn_peer(const char *kind, uint16_t port, const char *what)
{
    char number[8], emulator[PATH_MAX];
    char *words[16], *rest = NULL;
    size_t count = 0;
    pid_t pid;
    const char *given = getenv("MQ_EMULATOR");
    snprintf(emulator, sizeof emulator, "%s", given ? given : "");
    for (char *word = strtok_r(emulator, " ", &rest); word && count < 11; word = strtok_r(NULL, " ", &rest)) {
        words[count++] = word;
    }
    snprintf(number, sizeof number, "%u", port);
    words[count++] = own_path;
    words[count++] = (char *)(uintptr_t)kind;
    words[count++] = number;
    words[count++] = (char *)(uintptr_t)what;
    words[count] = NULL;
    assert_int_equal(posix_spawnp(&pid, words[0], NULL, NULL, words, environ), 0);
    return pid;
}

static int run_peer(char **words)
{
    end e;
    open_end(&e);
    const bool is_try = strcmp(words[3], "try") == 0;
    if (is_try && setuid(65534) != 0) return 2;
    const uint16_t port = (uint16_t)atoi(words[2]);
    if (mq__link_connect(words[1], "127.0.0.1", port, 5, &e.link, NULL) != MQ_OK) return is_try ? 0 : 3;
    if (is_try || start_end(&e, MOST) != MQ_OK) return 4;
    const bool floods = strcmp(words[3], "flood") == 0;
    mq_status status = MQ_OK;
    for (uint64_t n = 0; status == MQ_OK && (floods || n == 0); n++) {
        status = send_number(e.link, n, body, floods ? MOST : 1, 60, NULL);
    }
    (void)wait_end(&e, 0, true);
    return 5;
}

static void reap(pid_t pid, bool kills)
{
    int status;
    if (kills) kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WIFSIGNALED(status) ? WTERMSIG(status) : 0, kills ? SIGKILL : 0);
    if (!kills) assert_int_equal(WEXITSTATUS(status), 0);
}

/* The peer is killed while a body comes: all that was whole is right, and the end comes once and soon. */
static void test_killed_sender(void **state)
{
    for (unsigned run = 0; run < 20; run++) {
        host h;
        end b;
        const uint16_t port = open_host(&h, *state, "127.0.0.1");
        const pid_t pid = spawn_peer(*state, port, "flood");
        open_end(&b);
        b.link = fetch_accepted(&h, DEADLINE);
        assert_non_null(b.link);
        assert_int_equal(start_end(&b, MOST), MQ_OK);
        assert_true(wait_end(&b, 1, false));
        usleep((unsigned)(mix(run) % 20000));
        reap(pid, true);
        const double start = mq__seconds();
        assert_true(wait_end(&b, 0, true));
        assert_true(mq__seconds() - start < 5);
        assert_int_equal(b.error.status, MQ_IO);
        close_end(&b);
        close_host(&h);
        assert_int_equal(b.ended, 1);
        assert_int_equal(b.wrong, 0);
    }
}

/* The peer is killed while it is sent to: the send fails, and the end comes once. */
static void test_killed_receiver(void **state)
{
    for (unsigned run = 0; run < 10; run++) {
        host h;
        end b;
        mq_status status = MQ_OK;
        const uint16_t port = open_host(&h, *state, "127.0.0.1");
        const pid_t pid = spawn_peer(*state, port, "sink");
        open_end(&b);
        b.link = fetch_accepted(&h, DEADLINE);
        assert_non_null(b.link);
        assert_int_equal(start_end(&b, MOST), MQ_OK);
        assert_true(wait_end(&b, 1, false));
        const double start = mq__seconds();
        for (uint64_t n = 0; status == MQ_OK && mq__seconds() - start < DEADLINE; n++) {
            if (n == 5) reap(pid, true);
            status = send_number(b.link, n, body, n % 2 ? MOST : 100, 10, NULL);
        }
        assert_int_equal(status, MQ_IO);
        assert_true(mq__seconds() - start < 8);
        assert_true(wait_end(&b, 0, true));
        close_end(&b);
        close_host(&h);
        assert_int_equal(b.ended, 1);
    }
}

/* Another user's process gets no memory of ours. */
static void test_stranger(void **state)
{
    (void)state;
    if (geteuid() != 0) skip();
    hall *h = new_hall("shm", MOST);
    reap(spawn_peer("shm", h->port, "try"), false);
    assert_int_equal(atomic_load(&h->count), 0);
    close_hall(h);
}

/* ---- garbage */

static void test_tcp_garbage(void **state)
{
    (void)state;
    static uint8_t junk[1 << 16];
    hall *h = new_hall("tcp", 1000);
    for (unsigned run = 0; run < 100; run++) {
        const int fd = raw_tcp(h->port);
        end *e = wait_guest(h, run);
        size_t count = (size_t)(mix(run) % sizeof junk);
        fill_bytes(junk, count, run); /* lengths beyond all bounds */
        if (run % 4 == 1) count = make_wire(junk, 1001, 1001);
        if (run % 4 == 2) count = make_wire(junk, UINT64_MAX, 5000);
        if (run % 4 == 3) count = make_wire(junk, 1000, (size_t)(mix(run) % 1000)); /* cut off */
        (void)send(fd, junk, count, MSG_NOSIGNAL);
        if (run % 4 == 3 || count < 8) shutdown(fd, SHUT_WR);
        assert_true(wait_end(e, 0, true));
        assert_int_equal(e->error.status, run % 4 == 3 || count < 120 ? MQ_IO : MQ_FORMAT);
        assert_int_equal(e->count, 0);
        close(fd);
    }
    close_hall(h);
}

/* Whole messages in pieces of a byte, and many in one. */
static void test_tcp_pieces(void **state)
{
    (void)state;
    uint8_t wire[300];
    hall *h = new_hall("tcp", 1000);
    const int fd = raw_tcp(h->port);
    end *e = wait_guest(h, 0);
    const size_t count = make_wire(wire, 100, 100);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(send(fd, wire + i, 1, MSG_NOSIGNAL), 1);
        if (i % 20 == 0) usleep(1000);
    }
    assert_true(wait_end(e, 1, false));
    close(fd);
    assert_true(wait_end(e, 1, true));
    assert_int_equal(e->wrong, 0);
    close_hall(h);
}

/* ---- those that do not listen as they should */

/* The queue of a listener is full, so that packets of further connections are dropped. */
static void test_tcp_black_hole(void **state)
{
    (void)state;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    int waiting[8];
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 0), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
    for (int i = 0; i < 8; i++) {
        waiting[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)connect(waiting[i], (struct sockaddr *)&address, sizeof address);
    }
    expect_no_connection("tcp", "127.0.0.1", ntohs(address.sin_port), 0.5);
    for (int i = 0; i < 8; i++) {
        close(waiting[i]);
    }
    close(fd);
}

static void test_tcp_no_such_host(void **state)
{
    (void)state;
    expect_no_connection("tcp", "no-such-host.invalid", 7700, 2);
    expect_no_connection("tcp", "", 7700, 2);
    expect_no_connection("tcp", "127.0.0.1:80", 7700, 2);
}

/* ---- crowds, and those who wait */

/* Beyond the bound a connection is closed at once, and the place of one that has gone is free. */
static void test_crowd(void **state)
{
    (void)state;
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_cur < 3 * MQ_DOOR_MOST) skip();
    static int fds[MQ_DOOR_MOST + 1];
    uint8_t wire[200], byte;
    hall *h = new_hall("tcp", 1000);
    for (size_t i = 0; i < MQ_DOOR_MOST; i++) {
        fds[i] = raw_tcp(h->port);
        (void)wait_guest(h, i);
    }
    const int late = raw_tcp(h->port);
    assert_true(recv(late, &byte, 1, 0) <= 0);
    assert_int_equal(atomic_load(&h->count), MQ_DOOR_MOST);
    close(late);
    close_end(&h->ends[7]);
    fds[MQ_DOOR_MOST] = raw_tcp(h->port);
    end *e = wait_guest(h, MQ_DOOR_MOST);
    assert_int_equal(send(fds[MQ_DOOR_MOST], wire, make_wire(wire, 10, 10), MSG_NOSIGNAL), 130);
    assert_true(wait_end(e, 1, false));
    for (size_t i = 0; i <= MQ_DOOR_MOST; i++) {
        close(fds[i]);
    }
    close_hall(h);
}

/* Without a free descriptor the listener waits, and goes on. */
static void test_no_descriptors(void **state)
{
    host h;
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    const uint16_t port = open_host(&h, *state, "127.0.0.1");
    const bool is_tcp = strcmp(*state, "tcp") == 0;
    socklen_t bytes;
    const struct sockaddr_un address = shm_address(port, &bytes);
    const int fd = is_tcp ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int raw = is_tcp ? raw_tcp(port) : fd; /* before, so that only accept needs one */
    mq__link_close(is_tcp ? fetch_accepted(&h, DEADLINE) : NULL);
    const int next = is_tcp ? socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) : fd;
    const struct rlimit low = {3, limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    const struct sockaddr_in ip = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int code = is_tcp ? connect(next, (const struct sockaddr *)&ip, sizeof ip)
                            : connect(next, (const struct sockaddr *)&address, bytes);
    assert_null(fetch_accepted(&h, 0.3));
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(code, 0);
    mq_link *link = fetch_accepted(&h, is_tcp ? DEADLINE : 0.5); /* of shm the accepted one had no memory, or waited */
    if (is_tcp) assert_non_null(link);
    mq__link_close(link);
    mq_link *other;
    assert_int_equal(mq__link_connect(*state, "127.0.0.1", port, DEADLINE, &other, NULL), MQ_OK);
    link = fetch_accepted(&h, DEADLINE);
    assert_non_null(link);
    mq__link_close(link);
    mq__link_close(other);
    if (is_tcp) close(next);
    close(raw);
    close_host(&h);
}

enum { SAYS_NOTHING, HALF_A_HEAD, HALF_A_BODY, SPOKE, GUESTS };

/* They come and say what they have to say. */
static void invite(hall *h, int fds[GUESTS], raw_shm raws[GUESTS])
{
    uint8_t wire[1200];
    const size_t counts[GUESTS] = {0, 50, 500, make_wire(wire, 1000, 1000)};
    for (size_t i = 0; i < GUESTS; i++) {
        if (fds) {
            fds[i] = raw_tcp(h->port);
            assert_int_equal(send(fds[i], wire, counts[i], MSG_NOSIGNAL), counts[i]);
        } else {
            raws[i] = open_raw_shm(h->port);
            put_raw(&raws[i], wire, counts[i]);
        }
        (void)wait_guest(h, i);
    }
}

static void expect_ends(hall *h, double start)
{
    for (size_t i = 0; i < SPOKE; i++) {
        assert_true(wait_end(&h->ends[i], 0, true));
        assert_in_range((int)(mq__seconds() - start), MQ_LINK_PATIENCE - 1, 2 * MQ_LINK_PATIENCE + 3);
        assert_int_equal(h->ends[i].error.status, MQ_IO);
        assert_int_equal(h->ends[i].count, 0);
    }
}

static void expect_goes_on(hall *h)
{
    end *e = &h->ends[SPOKE];
    assert_true(wait_end(e, 1, false));
    assert_int_equal(e->ended, 0);
    assert_int_equal(send_number(e->link, 0, body, 10, DEADLINE, NULL), MQ_OK);
}

/* What has begun goes on within MQ_LINK_PATIENCE, and so does a link; one that has spoken may be idle. */
static void test_patience(void **state)
{
    (void)state;
    int fds[GUESTS];
    raw_shm raws[GUESTS];
    hall *tcp = new_hall("tcp", 1000), *shm = new_hall("shm", 1000);
    const double start = mq__seconds();
    invite(tcp, fds, NULL);
    invite(shm, NULL, raws);
    expect_ends(shm, start);
    expect_ends(tcp, start);
    expect_goes_on(tcp);
    expect_goes_on(shm);
    close_hall(tcp);
    close_hall(shm);
    for (size_t i = 0; i < GUESTS; i++) {
        close(fds[i]);
        close_raw_shm(&raws[i]);
    }
}

/* ---- addresses */

static void expect_from(const char *kind, const char *listens, const char *connects, const char *from)
{
    host h;
    mq_link *link;
    const uint16_t port = open_host(&h, kind, listens);
    assert_int_equal(mq__link_connect(kind, connects, port, DEADLINE, &link, NULL), MQ_OK);
    mq_link *accepted = fetch_accepted(&h, DEADLINE);
    assert_string_equal(h.from, from);
    mq__link_close(link);
    mq__link_close(accepted);
    mq_link_listener *second;
    mq_error error;
    assert_int_equal(mq__link_listen(kind, listens, port, accept_one, &h, &second, &error), MQ_USAGE);
    assert_null(second);
    close_host(&h);
}

static void test_addresses(void **state)
{
    (void)state;
    expect_from("tcp", "127.0.0.1", "localhost", "127.0.0.1");
    expect_from("shm", "127.0.0.1", "anywhere", "shm");
    const int fd = socket(AF_INET6, SOCK_STREAM, 0);
    const struct sockaddr_in6 loopback = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    const bool has_6 = fd >= 0 && bind(fd, (const struct sockaddr *)&loopback, sizeof loopback) == 0;
    if (fd >= 0) close(fd);
    if (!has_6) return;
    expect_from("tcp", "::1", "::1", "::1");
    expect_from("tcp", "::", "::1", "::1");
    expect_from("tcp", "::", "127.0.0.1", "127.0.0.1");
}

#define OF(kind, test)                                                                                                 \
    {                                                                                                                  \
        kind ": " #test, test, NULL, NULL, (void *)(uintptr_t)(kind)                                                   \
    }

int main(int count, char **words)
{
    if (count == 4) return run_peer(words);
    if (!realpath("/proc/self/exe", own_path)) return 1;
    const struct CMUnitTest tests[] = {
        OF("tcp", test_killed_sender),   OF("tcp", test_killed_receiver),
        OF("tcp", test_tcp_garbage),     OF("tcp", test_tcp_pieces),
        OF("tcp", test_tcp_black_hole),  OF("tcp", test_tcp_no_such_host),
        OF("tcp", test_crowd),           OF("tcp", test_no_descriptors),
        OF("tcp", test_patience),        OF("tcp", test_addresses),
        OF("shm", test_killed_sender),   OF("shm", test_killed_receiver),
        OF("shm", test_stranger),        OF("shm", test_no_descriptors),
        OF("ucx", test_killed_sender), /* the last two: on demand */
        OF("ucx", test_killed_receiver),
    };
    const size_t ucx = tests_ucx() ? 0 : 2;
    return _cmocka_run_group_tests("link_peers", tests, sizeof tests / sizeof tests[0] - ucx, NULL, NULL);
}
