/* Links between two processes of one host and one user (or root), through shared memory.
 *
 * The wire: the listener of port N is the abstract Unix stream socket "mixquant-link-N", in a network namespace. Who listens sends, as
 * soon as it accepts, the 8 bytes "MQSHM\1\0\0" with two descriptors: memory (a memfd, sealed at MQ_RING_MEMORY bytes), and one end of a
 * second pair of sockets. The memory has two heads (mq_ring; at 0 of the way from the listener, at 256 of the other) in its first
 * 4096 bytes, then 8 MiB of bytes for each way in the same order: a byte of number n lies at n % 8 MiB. `written` and `taken` count bytes.
 * Through a ring go messages as through tcp (link_tcp.c). The first socket wakes whoever waits for bytes: who has written as many as
 * `reader_wants` sets it to 0 and sends a byte, of any value. The second wakes whoever waits for room, by `writer_wants`. An end
 * that is closed or killed closes the sockets; what it has written before counts. */
#include "link/link_shm.h"

#include "base/error.h"
#include "base/mem.h"
#include "base/pool.h"
#include "link/link_door.h"
#include "link/link_ring.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define SEALS       (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define FIRST_PORT  49152 /* of those that are given to who asks for any */
#define PORT_TRIES  200
#define RETRY_US    10000 /* while a listener's queue is full */
#define GREETING    "MQSHM\1\0"
#define DESCRIPTORS 2

typedef struct shm_link {
    mq_link link;
    int sockets[2];
    mq_shm_memory *memory;
    mq_ring_end writer, reader;
} shm_link;

/* ---- ends */

mq_shm_memory *mq__shm_map(int fd)
{
    mq_shm_memory *memory = mq__alloc(sizeof *memory);
    if (!memory) return NULL;
    const int flags = fd < 0 ? MAP_SHARED | MAP_ANONYMOUS : MAP_SHARED;
    memory->base = mmap(NULL, MQ_RING_MEMORY, PROT_READ | PROT_WRITE, flags, fd, 0);
    atomic_init(&memory->holders, 1);
    if (memory->base != MAP_FAILED) return memory;
    mq__free(memory);
    return NULL;
}

void mq__shm_unmap(mq_shm_memory *memory)
{
    if (!memory || atomic_fetch_sub(&memory->holders, 1) != 1) return;
    (void)munmap(memory->base, MQ_RING_MEMORY);
    mq__free(memory);
}

mq_link *mq__shm_link_new(const mq_link_kind *kind, mq_shm_memory *memory, int way, const int sockets[2])
{
    shm_link *s = mq__alloc_zero(1, sizeof *s);
    if (!s) {
        mq__shm_unmap(memory);
        close(sockets[0]);
        close(sockets[1]);
        return NULL;
    }
    s->memory = memory;
    memcpy(s->sockets, sockets, sizeof s->sockets);
    mq__ring_open(&s->writer, memory->base, way, sockets[1], sockets[0]);
    mq__ring_open(&s->reader, memory->base, 1 - way, sockets[0], sockets[1]);
    mq__link_init(&s->link, kind, kind->name);
    return &s->link;
}

void mq__shm_stop(mq_link *link)
{
    const shm_link *s = (const shm_link *)link;
    (void)shutdown(s->sockets[0], SHUT_RDWR);
    (void)shutdown(s->sockets[1], SHUT_RDWR);
}

void mq__shm_free(mq_link *link)
{
    shm_link *s = (shm_link *)link;
    close(s->sockets[0]);
    close(s->sockets[1]);
    mq__shm_unmap(s->memory);
    mq__link_fini(link);
}

/* ---- bytes */

static mq_status fail_place(const mq_link *link, mq_error *error)
{
    return mq__fail(error, MQ_FORMAT, "link: %s: expected a place within the ring, got one beyond it", link->where);
}

mq_status mq__shm_read(mq_link *link, void *to, size_t bytes, bool *late, mq_error *error)
{
    mq_ring_end *reader = &((shm_link *)link)->reader;
    const char *missing = NULL; /* why no more will come */
    double deadline = 0;
    for (size_t have = 0;;) {
        const int64_t count = mq__ring_take(reader, (uint8_t *)to + have, bytes - have);
        if (count < 0) return fail_place(link, error);
        have += (size_t)count;
        if (have == bytes) return MQ_OK;
        if (missing) {
            *late = have == 0 && !reader->is_alone;
            return mq__fail(error, MQ_IO, "link: %s: expected %zu more bytes, got %s", link->where, bytes - have,
                            missing);
        }
        if (deadline == 0) deadline = mq__seconds() + MQ_LINK_PATIENCE;
        if (!mq__ring_wait_bytes(reader, bytes - have, deadline)) missing = "too few within 10 seconds";
        if (reader->is_alone) missing = "the end of the connection";
    }
}

static mq_status write_part(mq_link *link, const uint8_t *from, size_t bytes, double seconds, mq_error *error)
{
    mq_ring_end *writer = &((shm_link *)link)->writer;
    bool in_time = true;
    while (bytes > 0) {
        const int64_t count = mq__ring_put(writer, from, bytes);
        if (count < 0) return fail_place(link, error);
        from += count;
        bytes -= (size_t)count;
        if (bytes == 0) break;
        if (writer->is_alone) return mq__fail(error, MQ_IO, "link: %s: expected to send, got its end", link->where);
        if (!in_time && count == 0) {
            return mq__fail(error, MQ_IO, "link: %s: expected it to take bytes, got none taken for %.3g seconds",
                            link->where, seconds);
        }
        in_time = mq__ring_wait_room(writer, bytes, mq__seconds() + seconds);
    }
    return MQ_OK;
}

mq_status mq__shm_write(mq_link *link, struct iovec *parts, int count, double seconds, mq_error *error)
{
    mq_status status = MQ_OK;
    for (int i = 0; i < count && status == MQ_OK; i++) {
        status = write_part(link, parts[i].iov_base, parts[i].iov_len, seconds, error);
    }
    return status;
}

/* ---- the meeting */

static socklen_t name_port(struct sockaddr_un *address, uint16_t port)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    const int count = snprintf(address->sun_path + 1, sizeof address->sun_path - 1, "mixquant-link-%u", (unsigned)port);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)count);
}

/* The other process belongs to our user, or to root: whoever may read our memory anyway. */
static bool is_ours(int fd)
{
    struct ucred peer = {.uid = (uid_t)-1};
    socklen_t bytes = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0 && (peer.uid == geteuid() || peer.uid == 0);
}

/* Memory that its receiver may rely on: it cannot shrink. -1: an errno. */
static int make_memory(void)
{
    const int fd = memfd_create("mixquant-link", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return -1;
    if (ftruncate(fd, (off_t)MQ_RING_MEMORY) == 0 && fcntl(fd, F_ADD_SEALS, SEALS) == 0) return fd;
    close(fd);
    return -1;
}

static bool is_reliable(int fd)
{
    struct stat facts;
    const int seals = fcntl(fd, F_GET_SEALS);
    return seals >= 0 && (seals & F_SEAL_SHRINK) && fstat(fd, &facts) == 0 && facts.st_size == (off_t)MQ_RING_MEMORY;
}

/* The greeting's parts, to be sent or received. */
typedef struct greeting {
    char text[sizeof GREETING];
    struct iovec part;
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(DESCRIPTORS * sizeof(int))];
    struct msghdr message;
} greeting;

static void prepare(greeting *g)
{
    memset(g, 0, sizeof *g);
    g->part = (struct iovec){g->text, sizeof g->text};
    g->message = (struct msghdr){
        .msg_iov = &g->part, .msg_iovlen = 1, .msg_control = g->control, .msg_controllen = sizeof g->control};
}

static bool send_greeting(int fd, const int descriptors[DESCRIPTORS])
{
    greeting g;
    prepare(&g);
    memcpy(g.text, GREETING, sizeof g.text);
    struct cmsghdr *control = CMSG_FIRSTHDR(&g.message);
    control->cmsg_level = SOL_SOCKET;
    control->cmsg_type = SCM_RIGHTS;
    control->cmsg_len = CMSG_LEN(DESCRIPTORS * sizeof(int));
    memcpy(CMSG_DATA(control), descriptors, DESCRIPTORS * sizeof(int));
    return sendmsg(fd, &g.message, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)sizeof g.text;
}

/* False: it is not one. Descriptors that came are the caller's in both cases; the others -1. */
static bool receive_greeting(int fd, int descriptors[DESCRIPTORS])
{
    greeting g;
    prepare(&g);
    const ssize_t count = recvmsg(fd, &g.message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    const struct cmsghdr *control = count >= 0 ? CMSG_FIRSTHDR(&g.message) : NULL;
    if (control && control->cmsg_level == SOL_SOCKET && control->cmsg_type == SCM_RIGHTS) {
        const size_t bytes = control->cmsg_len - CMSG_LEN(0);
        memcpy(descriptors, CMSG_DATA(control), bytes < DESCRIPTORS * sizeof(int) ? bytes : DESCRIPTORS * sizeof(int));
    }
    return count == (ssize_t)sizeof g.text && memcmp(g.text, GREETING, sizeof g.text) == 0 && descriptors[0] >= 0 &&
           descriptors[1] >= 0;
}

/* ---- listening */

static void close_all(int *fds, int count)
{
    for (int i = 0; i < count; i++) {
        if (fds[i] >= 0) close(fds[i]);
    }
}

static mq_link *welcome_shm(int fd)
{
    int fds[4] = {fd, -1, -1, -1}; /* first socket, own end of the second, the other's, memory */
    mq_shm_memory *memory = NULL;
    if (is_ours(fd) && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds + 1) == 0) fds[3] = make_memory();
    if (fds[3] >= 0) memory = mq__shm_map(fds[3]);
    const bool sent = memory && send_greeting(fd, (int[]){fds[3], fds[2]});
    if (!sent) {
        mq__shm_unmap(memory);
        close_all(fds, 4);
        return NULL;
    }
    close_all(fds + 2, 2);
    return mq__shm_link_new(&mq__link_shm, memory, 0, fds);
}

static bool bind_port(int fd, uint16_t port)
{
    struct sockaddr_un address;
    const socklen_t bytes = name_port(&address, port);
    return bind(fd, (struct sockaddr *)&address, bytes) == 0;
}

static bool bind_any(int fd, uint16_t *port)
{
    for (int i = 0; i < PORT_TRIES; i++) {
        uint16_t random;
        if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random) return false;
        *port = (uint16_t)(FIRST_PORT + random % (65536 - FIRST_PORT));
        if (bind_port(fd, *port)) return true;
    }
    return false;
}

static mq_status shm_listen(const char *host, uint16_t port, const mq_link_listener *like, mq_link_listener **listener,
                            mq_error *error)
{
    (void)host; /* it is this one */
    mq_link_listener bound = *like;
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool has_port = fd >= 0 && (port ? bind_port(fd, port) : bind_any(fd, &bound.port));
    if (has_port && listen(fd, MQ_DOOR_BACKLOG) == 0) return mq__door_open(fd, &bound, welcome_shm, listener, error);
    (void)mq__fail(error, MQ_USAGE, "link: shm port %u: expected a free one, got %s", port, strerror(errno));
    if (fd >= 0) close(fd);
    return MQ_USAGE;
}

/* ---- connecting */

static bool connect_port(int fd, uint16_t port, double deadline)
{
    struct sockaddr_un address;
    const socklen_t bytes = name_port(&address, port);
    while (connect(fd, (struct sockaddr *)&address, bytes) != 0) {
        if (errno != EAGAIN && errno != EINTR) return false;
        if (mq__seconds() > deadline) return false;
        (void)usleep(RETRY_US);
    }
    return true;
}

static bool wait_readable(int fd, double deadline)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    int ready;
    do {
        const double left = fmin(fmax(deadline - mq__seconds(), 0), 1e6);
        ready = poll(&one, 1, (int)ceil(left * 1e3));
    } while (ready < 0 && errno == EINTR);
    if (ready == 0) errno = ETIMEDOUT;
    return ready > 0;
}

/* Takes the socket and what came with the greeting. */
static mq_status join(int fd, uint16_t port, mq_link **link, mq_error *error)
{
    int fds[3] = {fd, -1, -1}; /* first socket, memory, second socket */
    const bool greeted = receive_greeting(fd, fds + 1);
    if (!greeted || !is_reliable(fds[1])) {
        close_all(fds, 3);
        return mq__fail(error, MQ_FORMAT, "link: shm port %u: expected %s, got %s", port,
                        greeted ? "memory of fixed size" : "a greeting", greeted ? "another" : "none");
    }
    mq_shm_memory *memory = mq__shm_map(fds[1]);
    close(fds[1]);
    if (memory) {
        *link = mq__shm_link_new(&mq__link_shm, memory, 1, (int[]){fds[0], fds[2]});
    } else {
        close(fds[0]);
        close(fds[2]);
    }
    if (*link) return MQ_OK;
    return mq__fail(error, MQ_NO_MEMORY, "link: shm port %u: expected memory, got none", port);
}

static mq_status shm_connect(const char *host, uint16_t port, double seconds, mq_link **link, mq_error *error)
{
    (void)host; /* it is this one */
    const double deadline = mq__seconds() + seconds;
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mq_status status = MQ_OK;
    if (fd < 0 || !connect_port(fd, port, deadline) || !wait_readable(fd, deadline)) {
        status = mq__fail(error, MQ_IO, "link: shm port %u: expected to connect within %.3g seconds, got %s", port,
                          seconds, strerror(errno));
    } else if (!is_ours(fd)) {
        status = mq__fail(error, MQ_IO, "link: shm port %u: expected a process of this user, got another's", port);
    }
    if (status == MQ_OK) return join(fd, port, link, error);
    if (fd >= 0) close(fd);
    return status;
}

const mq_link_kind mq__link_shm = {
    .name = "shm",
    .connect = shm_connect,
    .listen = shm_listen,
    .listener_close = mq__door_close,
    .read = mq__shm_read,
    .write = mq__shm_write,
    .stop = mq__shm_stop,
    .free = mq__shm_free,
};
