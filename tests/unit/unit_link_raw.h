/* Peers of links that keep to no rule, and a host that all of them may come to. */
#ifndef UNIT_LINK_RAW_H
#define UNIT_LINK_RAW_H

#include "unit_link.h"

#include "base/little_endian.h"
#include "link/link_impl.h"
#include "link/link_ring.h"

#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#define ENDS 300

/* ---- a host whose links are all started */

typedef struct hall {
    mq_link_listener *listener;
    uint16_t port;
    size_t most;
    atomic_size_t count;
    end ends[ENDS];
} hall;

static hall halls[2]; /* tcp, shm */

static inline void accept_start(void *context, mq_link *link, const char *from)
{
    (void)from;
    hall *h = context;
    const size_t n = atomic_load(&h->count);
    open_end(&h->ends[n]);
    h->ends[n].link = link;
    (void)start_end(&h->ends[n], h->most);
    atomic_store(&h->count, n + 1);
}

static inline hall *new_hall(const char *kind, size_t most)
{
    hall *h = &halls[strcmp(kind, "shm") == 0];
    mq_error error;
    memset(h, 0, sizeof *h);
    h->most = most;
    if (mq__link_listen(kind, "127.0.0.1", 0, accept_start, h, &h->listener, &error) != MQ_OK) {
        fail_msg("%s", error.text);
    }
    h->port = mq__link_port(h->listener);
    return h;
}

static inline end *wait_guest(hall *h, size_t n)
{
    for (const double deadline = mq__seconds() + DEADLINE; atomic_load(&h->count) <= n;) {
        assert_true(mq__seconds() < deadline);
        usleep(1000);
    }
    return &h->ends[n];
}

/* Each ended at most once, and nothing came that nobody sent. */
static inline void close_hall(hall *h)
{
    mq__link_listener_close(h->listener);
    for (size_t i = 0; i < atomic_load(&h->count); i++) {
        close_end(&h->ends[i]);
        assert_in_range(h->ends[i].ended, 0, 1);
    }
}

/* ---- raw connections */

static inline int raw_tcp(uint16_t port)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static inline struct sockaddr_un shm_address(uint16_t port, socklen_t *bytes)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int count = sprintf(address.sun_path + 1, "mixquant-link-%u", port);
    *bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)count);
    return address;
}

/* A peer through shared memory that keeps to no rule. */
typedef struct raw_shm {
    int fd, bell;
    uint8_t *memory;
    mq_ring *rings; /* [2]: from the listener, to it */
} raw_shm;

static inline raw_shm open_raw_shm(uint16_t port)
{
    raw_shm raw = {.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    socklen_t bytes;
    const struct sockaddr_un address = shm_address(port, &bytes);
    assert_int_equal(connect(raw.fd, (const struct sockaddr *)&address, bytes), 0);
    char text[8];
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))];
    struct iovec part = {text, sizeof text};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    assert_int_equal(recvmsg(raw.fd, &message, 0), 8);
    int fds[2];
    memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fds);
    assert_int_equal(ftruncate(fds[0], 0), -1); /* sealed */
    raw.bell = fds[1];
    raw.memory = mmap(NULL, MQ_RING_MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
    assert_true(raw.memory != MAP_FAILED);
    raw.rings = (mq_ring *)raw.memory;
    close(fds[0]);
    return raw;
}

static inline void close_raw_shm(raw_shm *raw)
{
    close(raw->fd);
    close(raw->bell);
    munmap(raw->memory, MQ_RING_MEMORY);
}

/* As a peer should: bytes of the first lap. */
static inline void put_raw(raw_shm *raw, const void *bytes, size_t count)
{
    const uint64_t at = atomic_load(&raw->rings[1].written);
    memcpy(raw->memory + 4096 + MQ_RING_BYTES + at, bytes, count);
    atomic_store(&raw->rings[1].written, at + count);
    (void)send(raw->fd, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* The wire of message 0, with a body of so many bytes; returns how many of them are there. */
static inline size_t make_wire(uint8_t *wire, uint64_t claimed, size_t bytes)
{
    mq__put_u64(wire, claimed);
    fill_bytes(wire + 8, MQ_LINK_HEAD, 0);
    fill_bytes(wire + 8 + MQ_LINK_HEAD, bytes, mix(0));
    return 8 + MQ_LINK_HEAD + bytes;
}

static inline void expect_no_connection(const char *kind, const char *address, uint16_t port, double seconds)
{
    mq_link *link;
    mq_error error = {0};
    const double start = mq__seconds();
    const mq_status status = mq__link_connect(kind, address, port, seconds, &link, &error);
    assert_true(status == MQ_IO || status == MQ_FORMAT);
    assert_null(link);
    assert_true(mq__seconds() - start < seconds + 1);
}

#endif
