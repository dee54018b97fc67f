/* Links over TCP, IPv4 or IPv6.
 *
 * The wire: a connection carries messages in both directions, without a greeting, a message after the other:
 *
 *      0   u64      bytes of the body, little-endian
 *      8   u8[112]  head
 *    120   u8[]     body
 *
 * Who connects speaks first. A length beyond what the receiver takes, 10 seconds without the rest of a head or the next 256 KiB of a
 * body, and the end of the connection within a message end the link. Either side ends it by closing. */
#include "base/error.h"
#include "base/mem.h"
#include "base/pool.h"
#include "link/link_address.h"
#include "link/link_door.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A peer without a sign of life: asked after KEEP_IDLE seconds, given up after SILENCE_MS; so are bytes that nobody acknowledges. */
#define KEEP_IDLE     10
#define KEEP_INTERVAL 5
#define SILENCE_MS    30000

#define LISTEN_SECONDS 10.0 /* for the name of an address of this machine */
#define DRAIN_MOST     (8 << 20)

typedef struct tcp_link {
    mq_link link;
    int fd;
} tcp_link;

static int fd_of(const mq_link *link)
{
    return ((const tcp_link *)link)->fd;
}

static void set_options(int fd)
{
    const int on = 1, idle = KEEP_IDLE, interval = KEEP_INTERVAL, silence = SILENCE_MS;
    const struct timeval patience = {.tv_sec = MQ_LINK_PATIENCE};
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence, sizeof silence);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
}

/* Takes the socket. NULL: no memory. */
static tcp_link *new_tcp_link(int fd, const char *where)
{
    tcp_link *t = mq__alloc_zero(1, sizeof *t);
    if (!t) {
        close(fd);
        return NULL;
    }
    set_options(fd);
    t->fd = fd;
    mq__link_init(&t->link, &mq__link_tcp, where);
    return t;
}

/* ---- connecting */

/* Waits until it can be written to. False: not within the time. */
static bool wait_writable(int fd, double deadline)
{
    struct pollfd one = {.fd = fd, .events = POLLOUT};
    for (;;) {
        const double left = fmin(fmax(deadline - mq__seconds(), 0), 1e6);
        const int ready = poll(&one, 1, (int)ceil(left * 1e3));
        if (ready > 0) return true;
        if (ready == 0 || errno != EINTR) return false;
    }
}

/* A free port of this machine, connected to from the same port by chance, is connected to itself. */
static bool is_own_end(int fd)
{
    struct sockaddr_storage own = {0}, peer = {0};
    socklen_t own_bytes = sizeof own, peer_bytes = sizeof peer;
    return getsockname(fd, (struct sockaddr *)&own, &own_bytes) == 0 &&
           getpeername(fd, (struct sockaddr *)&peer, &peer_bytes) == 0 && own_bytes == peer_bytes &&
           memcmp(&own, &peer, own_bytes) == 0;
}

/* 0, or an errno. */
static int finish_connect(int fd, double deadline)
{
    int code = 0;
    socklen_t bytes = sizeof code;
    if (!wait_writable(fd, deadline)) return ETIMEDOUT;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &bytes) != 0) return errno;
    return code == 0 && is_own_end(fd) ? ECONNREFUSED : code;
}

/* A connected socket that blocks, or -1 and an errno. */
static int connect_address(const struct addrinfo *a, double deadline, int *code)
{
    const int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    *code = errno;
    if (fd < 0) return -1;
    *code = connect(fd, a->ai_addr, a->ai_addrlen) == 0 ? 0 : errno;
    if (*code == EINPROGRESS || *code == 0) *code = finish_connect(fd, deadline);
    if (*code == 0 && fcntl(fd, F_SETFL, 0) == 0) return fd;
    close(fd);
    return -1;
}

/* One address after the other; each has its share of the time that is left. */
static int connect_any(const struct addrinfo *found, double deadline, int *code)
{
    int fd = -1, left = 0;
    for (const struct addrinfo *a = found; a; a = a->ai_next) {
        left++;
    }
    for (const struct addrinfo *a = found; a && fd < 0; a = a->ai_next, left--) {
        const double now = mq__seconds();
        fd = connect_address(a, now + (deadline - now) / left, code);
    }
    return fd;
}

static mq_status tcp_connect(const char *host, uint16_t port, double seconds, mq_link **link, mq_error *error)
{
    const double deadline = mq__seconds() + seconds;
    struct addrinfo *found;
    int code = 0;
    const mq_status status = mq__link_resolve(host, port, seconds, &found, error);
    if (status != MQ_OK) return status;
    const int fd = connect_any(found, deadline, &code);
    freeaddrinfo(found);
    if (fd < 0) {
        return mq__fail(error, MQ_IO, "link: %s port %u: expected to connect within %.3g seconds, got %s", host, port,
                        seconds, strerror(code));
    }
    tcp_link *t = new_tcp_link(fd, host);
    if (!t) return mq__fail(error, MQ_NO_MEMORY, "link: %s: expected memory, got none", host);
    *link = &t->link;
    return MQ_OK;
}

/* ---- listening */

/* Bound and listening, or -1 and an errno. */
static int listen_address(const struct addrinfo *a, int *code)
{
    const int on = 1;
    const int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *code = errno;
    if (fd < 0) return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, MQ_DOOR_BACKLOG) == 0) return fd;
    *code = errno;
    close(fd);
    return -1;
}

static uint16_t bound_port(int fd)
{
    struct sockaddr_storage bound = {0};
    socklen_t bytes = sizeof bound;
    if (getsockname(fd, (struct sockaddr *)&bound, &bytes) != 0) return 0;
    return ntohs(bound.ss_family == AF_INET ? ((struct sockaddr_in *)&bound)->sin_port
                                            : ((struct sockaddr_in6 *)&bound)->sin6_port);
}

static mq_link *welcome_tcp(int fd)
{
    struct sockaddr_storage peer = {0};
    socklen_t bytes = sizeof peer;
    char where[MQ_LINK_WHERE] = "?";
    if (getpeername(fd, (struct sockaddr *)&peer, &bytes) == 0) {
        mq__link_address_text((struct sockaddr *)&peer, bytes, where, sizeof where);
    }
    tcp_link *t = new_tcp_link(fd, where);
    return t ? &t->link : NULL;
}

/* The first of a name's addresses that can be had. */
static mq_status listen_at(const char *host, uint16_t port, const mq_link_listener *like, mq_link_listener **listener,
                           mq_error *error)
{
    struct addrinfo *found;
    int fd = -1, code = 0;
    const mq_status status = mq__link_resolve(host, port, LISTEN_SECONDS, &found, error);
    if (status != MQ_OK) return status;
    for (const struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
        fd = listen_address(a, &code);
    }
    freeaddrinfo(found);
    if (fd < 0) {
        return mq__fail(error, MQ_USAGE, "link: %s port %u: expected a free address of this machine, got %s", host,
                        port, strerror(code));
    }
    mq_link_listener bound = *like;
    bound.port = bound_port(fd);
    return mq__door_open(fd, &bound, welcome_tcp, listener, error);
}

/* ---- bytes */

static mq_status fail_read(const mq_link *link, size_t missing, const char *got, mq_error *error)
{
    return mq__fail(error, MQ_IO, "link: %s: expected %zu more bytes, got %s", link->where, missing, got);
}

/* recv returns fewer bytes than it was asked for when MQ_LINK_PATIENCE is over, at the end, and for signals. */
static mq_status tcp_read(mq_link *link, void *to, size_t bytes, bool *late, mq_error *error)
{
    const int fd = fd_of(link);
    double deadline = INFINITY;
    for (size_t have = 0; have < bytes;) {
        const ssize_t count = recv(fd, (uint8_t *)to + have, bytes - have, MSG_WAITALL);
        if (count > 0) have += (size_t)count;
        if (have == bytes) break;
        if (count == 0) return fail_read(link, bytes - have, "the end of the connection", error);
        if (count < 0 && errno == EINTR) continue;
        if ((count < 0 && errno == EAGAIN) || mq__seconds() > deadline) {
            *late = have == 0;
            return fail_read(link, bytes - have, "too few within 10 seconds", error);
        }
        if (count < 0) return fail_read(link, bytes - have, strerror(errno), error);
        if (deadline == INFINITY) deadline = mq__seconds() + MQ_LINK_PATIENCE;
    }
    return MQ_OK;
}

/* Takes what was sent off the parts. */
static void advance(struct msghdr *message, size_t count)
{
    while (message->msg_iovlen > 0 && count >= message->msg_iov->iov_len) {
        count -= message->msg_iov->iov_len;
        message->msg_iov++;
        message->msg_iovlen--;
    }
    if (message->msg_iovlen == 0) return;
    message->msg_iov->iov_base = (uint8_t *)message->msg_iov->iov_base + count;
    message->msg_iov->iov_len -= count;
}

static mq_status tcp_write(mq_link *link, struct iovec *parts, int count, double seconds, mq_error *error)
{
    const int fd = fd_of(link);
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)count};
    while (message.msg_iovlen > 0) {
        const ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent >= 0) {
            advance(&message, (size_t)sent);
        } else if (errno == EAGAIN) {
            if (wait_writable(fd, mq__seconds() + seconds)) continue;
            return mq__fail(error, MQ_IO, "link: %s: expected it to take bytes, got none taken for %.3g seconds",
                            link->where, seconds);
        } else if (errno != EINTR) {
            return mq__fail(error, MQ_IO, "link: %s: expected to send, got %s", link->where, strerror(errno));
        }
    }
    return MQ_OK;
}

/* ---- the end */

static void tcp_stop(mq_link *link)
{
    (void)shutdown(fd_of(link), SHUT_RDWR); /* what was sent goes before it */
}

/* A connection that is closed with bytes unread is reset, and what was sent is lost: so they are read. A peer that goes on sending
 * loses what it was sent. */
static void tcp_free(mq_link *link)
{
    uint8_t scrap[16384];
    const int fd = fd_of(link);
    ssize_t count = 1;
    for (size_t all = 0; count > 0 && all < DRAIN_MOST; all += (size_t)count) {
        count = recv(fd, scrap, sizeof scrap, MSG_DONTWAIT);
    }
    close(fd);
    mq__link_fini(link);
}

const mq_link_kind mq__link_tcp = {
    .name = "tcp",
    .connect = tcp_connect,
    .listen = listen_at,
    .listener_close = mq__door_close,
    .read = tcp_read,
    .write = tcp_write,
    .stop = tcp_stop,
    .free = tcp_free,
};
