/* Links through shared memory with peers that keep to no rule: places that cannot be, memory that changes, greetings that lie. */
#include "unit_link_raw.h"

#include <errno.h>
#include <fcntl.h>

static uint8_t body[MOST];

/* ---- who connects */

/* Places in the rings that cannot be, at any moment. */
static void test_shm_garbage(void **state)
{
    (void)state;
    static const uint64_t places[] = {1ull << 63, UINT64_MAX, MQ_RING_BYTES + 1121, 1ull << 40};
    hall *h = new_hall("shm", MOST);
    uint8_t wire[1200];
    for (unsigned run = 0; run < 200; run++) {
        raw_shm raw = open_raw_shm(h->port);
        end *e = wait_guest(h, run);
        const size_t count = make_wire(wire, 1000, 1000);
        put_raw(&raw, wire, run % 3 ? count : 60);
        if (run % 3) assert_true(wait_end(e, 1, false));
        if (run % 2) usleep((unsigned)(mix(run) % 500));
        const bool takes = run % 5 == 0; /* of the other way: found out when something is sent */
        atomic_store(takes ? &raw.rings[0].taken : &raw.rings[1].written, places[takes ? 0 : run % 4]);
        (void)send(raw.fd, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (takes) assert_int_equal(send_number(e->link, 0, body, 1000, DEADLINE, NULL), MQ_IO);
        assert_true(wait_end(e, 0, true));
        assert_int_equal(e->error.status, MQ_FORMAT);
        assert_int_equal(e->wrong, 0);
        close_raw_shm(&raw);
    }
    close_hall(h);
}

static void *scribble(void *argument)
{
    raw_shm *raw = argument;
    for (uint64_t n = 0; n < 3000; n++) {
        const uint64_t value = mix(n) >> (mix(n + 1) % 64);
        atomic_store((_Atomic uint64_t *)(raw->memory + mix(n + 2) % 8 * 64), value);
        memset(raw->memory + 4096 + mix(n + 3) % (2 * MQ_RING_BYTES - 64), (int)n, 64);
        (void)send(n % 2 ? raw->fd : raw->bell, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n % 100 == 0) usleep(1000);
    }
    return NULL;
}

/* Whatever stands in the memory, and while it changes: nothing but the link is lost. */
static void test_shm_scribbled(void **state)
{
    (void)state;
    hall *h = new_hall("shm", 1 << 20);
    for (unsigned run = 0; run < 20; run++) {
        pthread_t thread;
        raw_shm raw = open_raw_shm(h->port);
        end *e = wait_guest(h, run);
        assert_int_equal(pthread_create(&thread, NULL, scribble, &raw), 0);
        mq_status status = MQ_OK;
        for (uint64_t n = 0; n < 200 && status == MQ_OK; n++) {
            status = send_number(e->link, n, body, 100000, 0.1, NULL);
        }
        pthread_join(thread, NULL);
        close_raw_shm(&raw);
        assert_true(wait_end(e, 0, true));
    }
    close_hall(h);
}

/* ---- who listens */

/* An abstract socket at a port of shm. */
static int listen_raw_shm(uint16_t port, int backlog)
{
    socklen_t bytes;
    const struct sockaddr_un address = shm_address(port, &bytes);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, bytes), 0);
    assert_int_equal(listen(fd, backlog), 0);
    return fd;
}

static void greet(int fd, const char *text, const int *fds, size_t count)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(4 * sizeof(int))] = {0};
    struct iovec part = {(void *)(uintptr_t)text, 8};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (count > 0) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(c), fds, count * sizeof(int));
    }
    assert_int_equal(sendmsg(fd, &message, MSG_NOSIGNAL), 8);
}

typedef struct liar {
    int fd;
    int memory[2];    /* one that may shrink, one that is too small */
    atomic_int round; /* how it greets */
} liar;

static void *lie(void *argument)
{
    liar *l = argument;
    for (;;) {
        const int fd = accept(l->fd, NULL, NULL);
        if (fd < 0) return NULL;
        const int fds[4] = {l->memory[0], l->fd, l->fd, l->fd}, small[2] = {l->memory[1], l->fd};
        switch (atomic_load(&l->round)) {
        case 0:
            break; /* the end */
        case 1:
            greet(fd, "MQSHM\1\0", NULL, 0);
            break;
        case 2:
            greet(fd, "MQSHM\2\0", small, 2);
            break;
        case 3:
            greet(fd, "MQSHM\1\0", fds, 1);
            break;
        case 4:
            greet(fd, "MQSHM\1\0", fds, 4);
            break;
        case 5:
            greet(fd, "MQSHM\1\0", fds, 2);
            break;
        default:
            greet(fd, "MQSHM\1\0", small, 2);
            break;
        }
        close(fd);
    }
}

static void test_shm_liars(void **state)
{
    (void)state;
    pthread_t thread;
    liar l = {.fd = listen_raw_shm(60001, 8)};
    l.memory[0] = memfd_create("large", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    l.memory[1] = memfd_create("small", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(l.memory[0], (off_t)MQ_RING_MEMORY), 0);
    assert_int_equal(ftruncate(l.memory[1], 4096), 0);
    assert_int_equal(fcntl(l.memory[1], F_ADD_SEALS, F_SEAL_SHRINK), 0);
    assert_int_equal(pthread_create(&thread, NULL, lie, &l), 0);
    expect_no_connection("shm", "", 60001, DEADLINE);
    const int before = count_descriptors();
    for (int round = 1; round < 7; round++) {
        atomic_store(&l.round, round);
        expect_no_connection("shm", "", 60001, DEADLINE);
    }
    usleep(20000);
    if (!getenv("MQ_EMULATOR")) { /* qemu-user keeps those for which a control message has no room */
        assert_int_equal(count_descriptors(), before);
    }
    shutdown(l.fd, SHUT_RDWR);
    pthread_join(thread, NULL);
    close(l.fd);
    close(l.memory[0]);
    close(l.memory[1]);
}

/* Nobody accepts, and then the queue is full. */
static void test_shm_silence(void **state)
{
    (void)state;
    const int fd = listen_raw_shm(60002, 0);
    expect_no_connection("shm", "", 60002, 0.3);
    socklen_t bytes;
    const struct sockaddr_un address = shm_address(60002, &bytes);
    const int waits = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    (void)connect(waits, (const struct sockaddr *)&address, bytes);
    expect_no_connection("shm", "", 60002, 0.3);
    close(waits);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shm_garbage),
        cmocka_unit_test(test_shm_scribbled),
        cmocka_unit_test(test_shm_liars),
        cmocka_unit_test(test_shm_silence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
