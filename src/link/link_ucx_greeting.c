/* How two ends of a link over UCX meet. UCX has a listener of its own, but one that ends the process when strangers connect to it:
 * what comes first is read here, and UCX sees an address only when it came whole from a peer that knows the way. */
#include "base/error.h"
#include "base/little_endian.h"
#include "base/pool.h"
#include "link/link_ucx_impl.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <xxhash.h>

#define FIXED   32u /* bytes before the address */
#define HASH_AT 24

static const uint8_t magic[8] = "MQUCX\1";

typedef struct greeting {
    uint8_t bytes[FIXED + MQ_UCX_ADDRESS];
} greeting;

/* Waits until the connection is ready. False: too late, or the link is to stop. */
static bool wait_for_peer(mq_ucx_link *u, short events)
{
    struct pollfd both[2] = {{.fd = u->fd, .events = events}, {.fd = u->kick, .events = POLLIN}};
    int ready;
    do {
        const double left = fmin(fmax(u->deadline - mq__seconds(), 0), 1e6);
        ready = poll(both, 2, (int)ceil(left * 1e3));
    } while (ready < 0 && errno == EINTR);
    return ready > 0 && both[1].revents == 0;
}

static mq_status fail_greeting(const mq_ucx_link *u, const char *got, mq_error *error)
{
    return mq__fail(error, MQ_IO, "link: %s: expected a greeting of a ucx link, got %s", u->link.where, got);
}

static mq_status read_exactly(mq_ucx_link *u, uint8_t *to, size_t bytes, mq_error *error)
{
    for (size_t have = 0; have < bytes;) {
        if (!wait_for_peer(u, POLLIN)) return fail_greeting(u, "none in time", error);
        const ssize_t count = recv(u->fd, to + have, bytes - have, MSG_DONTWAIT);
        if (count == 0) return fail_greeting(u, "the end of the connection", error);
        if (count < 0 && errno != EAGAIN && errno != EINTR) return fail_greeting(u, strerror(errno), error);
        if (count > 0) have += (size_t)count;
    }
    return MQ_OK;
}

static mq_status write_exactly(mq_ucx_link *u, const uint8_t *from, size_t bytes, mq_error *error)
{
    for (size_t have = 0; have < bytes;) {
        if (!wait_for_peer(u, POLLOUT)) return fail_greeting(u, "nobody who takes ours", error);
        const ssize_t count = send(u->fd, from + have, bytes - have, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (count < 0 && errno != EAGAIN && errno != EINTR) return fail_greeting(u, strerror(errno), error);
        if (count > 0) have += (size_t)count;
    }
    return MQ_OK;
}

static uint64_t hash_of(greeting *g, size_t bytes)
{
    uint8_t kept[8];
    memcpy(kept, g->bytes + HASH_AT, sizeof kept);
    memset(g->bytes + HASH_AT, 0, sizeof kept);
    const uint64_t hash = XXH3_64bits(g->bytes, bytes);
    memcpy(g->bytes + HASH_AT, kept, sizeof kept);
    return hash;
}

static mq_status send_greeting(mq_ucx_link *u, mq_error *error)
{
    mq_ucx_worker *w = &u->work;
    greeting g = {0};
    const size_t bytes = FIXED + w->address_bytes;
    memcpy(g.bytes, magic, sizeof magic);
    mq__put_u64(g.bytes + 8, w->token);
    mq__put_u32(g.bytes + 16, (uint32_t)w->address_bytes);
    mq__put_u32(g.bytes + 20, MQ_UCX_PART);
    memcpy(g.bytes + FIXED, w->address, w->address_bytes);
    mq__put_u64(g.bytes + HASH_AT, hash_of(&g, bytes));
    return write_exactly(u, g.bytes, bytes, error);
}

static mq_status receive_greeting(mq_ucx_link *u, greeting *g, mq_error *error)
{
    if (read_exactly(u, g->bytes, FIXED, error) != MQ_OK) return error->status;
    if (memcmp(g->bytes, magic, sizeof magic) != 0) return fail_greeting(u, "other bytes", error);
    const uint32_t bytes = mq__get_u32(g->bytes + 16), part = mq__get_u32(g->bytes + 20);
    if (bytes == 0 || bytes > MQ_UCX_ADDRESS) return fail_greeting(u, "an address of impossible length", error);
    if (part != MQ_UCX_PART) return fail_greeting(u, "parts of another size", error);
    if (read_exactly(u, g->bytes + FIXED, bytes, error) != MQ_OK) return error->status;
    if (mq__get_u64(g->bytes + HASH_AT) != hash_of(g, FIXED + bytes)) return fail_greeting(u, "a damaged one", error);
    u->work.peer_token = mq__get_u64(g->bytes + 8);
    return MQ_OK;
}

/* Who accepted makes no worker before the peer has shown that it is one. */
mq_status mq__ucx_greet(mq_ucx_link *u, mq_error *error)
{
    greeting g = {0};
    mq_status status = MQ_OK;
    if (getrandom(&u->work.token, sizeof u->work.token, 0) != (ssize_t)sizeof u->work.token) {
        return mq__fail(error, MQ_IO, "link: %s: expected random bytes, got %s", u->link.where, strerror(errno));
    }
    if (!u->has_connected) status = receive_greeting(u, &g, error);
    if (status == MQ_OK) status = mq__ucx_worker_open(u, error);
    if (status == MQ_OK) status = send_greeting(u, error);
    if (status == MQ_OK && u->has_connected) status = receive_greeting(u, &g, error);
    return status == MQ_OK ? mq__ucx_worker_connect(u, g.bytes + FIXED, error) : status;
}
