/* How two ends of a link over UCX meet. UCX has a listener of its own, but one that ends the process when strangers connect to it:
 * what comes first is read here. */
#include "base/error.h"
#include "base/little_endian.h"
#include "base/pool.h"
#include "link/link_ucx_impl.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <sodium.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NONCE    16u
#define PROOF    32u
#define NONCE_AT 8
#define PLACE_AT 40
#define REST_AT  68
#define PROOF_AT 72
#define FIXED    104u /* bytes of a greeting, and more may follow */

static const uint8_t magic[8] = "MQUCX\1";

typedef struct greeting {
    uint8_t bytes[FIXED + MQ_UCX_ADDRESS];
} greeting;

static bool asks_to_stop(mq_ucx_link *u)
{
    uint64_t scrap;
    pthread_mutex_lock(&u->lock);
    (void)!read(u->kick, &scrap, sizeof scrap);
    const bool stops = u->is_stopping;
    u->is_asleep = !stops;
    pthread_mutex_unlock(&u->lock);
    return stops;
}

/* Waits until the connection is ready. False: too late, or the link is to stop. */
static bool wait_for_peer(mq_ucx_link *u, short events)
{
    struct pollfd both[2] = {{.fd = u->fd, .events = events}, {.fd = u->kick, .events = POLLIN}};
    while (!asks_to_stop(u)) {
        const double left = fmin(fmax(u->deadline - mq__seconds(), 0), 1e6);
        const int ready = poll(both, 2, (int)ceil(left * 1e3));
        if (ready == 0) return false;
        if (ready > 0 && both[0].revents != 0) return true;
    }
    return false;
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

/* ---- the secret */

static pthread_mutex_t secret_lock = PTHREAD_MUTEX_INITIALIZER;
static uint8_t secret[MQ_LINK_SECRET]; /* under secret_lock; zeros: there is none */

void mq__link_set_secret(const uint8_t bytes[MQ_LINK_SECRET])
{
    pthread_mutex_lock(&secret_lock);
    if (bytes) {
        memcpy(secret, bytes, sizeof secret);
    } else {
        sodium_memzero(secret, sizeof secret);
    }
    pthread_mutex_unlock(&secret_lock);
}

/* Of a greeting that answers a nonce; from_connector: who sends it. */
static void prove(const greeting *g, size_t bytes, const uint8_t nonce[NONCE], bool from_connector,
                  uint8_t proof[PROOF])
{
    static const uint8_t none[PROOF];
    const uint8_t side = from_connector ? 'C' : 'L';
    crypto_generichash_state state;
    pthread_mutex_lock(&secret_lock);
    (void)crypto_generichash_init(&state, secret, sizeof secret, PROOF);
    pthread_mutex_unlock(&secret_lock);
    (void)crypto_generichash_update(&state, &side, 1);
    (void)crypto_generichash_update(&state, nonce, NONCE);
    (void)crypto_generichash_update(&state, g->bytes, PROOF_AT);
    (void)crypto_generichash_update(&state, none, PROOF);
    (void)crypto_generichash_update(&state, g->bytes + FIXED, bytes - FIXED);
    (void)crypto_generichash_final(&state, proof, PROOF);
}

/* ---- greetings */

static uint32_t own_version(void)
{
    unsigned major, minor, release;
    mq__ucx.ucp_get_version(&major, &minor, &release);
    return major << 16 | minor;
}

static void put_place(uint8_t *at, const mq_ucx_place *place)
{
    mq__put_u64(at, place->uid);
    mq__put_u32(at + 8, place->port | (uint32_t)place->host_bytes << 16);
    memcpy(at + 12, place->host, sizeof place->host);
}

static mq_ucx_place get_place(const uint8_t *at)
{
    const uint32_t both = mq__get_u32(at + 8);
    mq_ucx_place place = {
        .uid = mq__get_u64(at), .port = (uint16_t)(both & 0xffff), .host_bytes = (uint16_t)(both >> 16)};
    memcpy(place.host, at + 12, sizeof place.host);
    return place;
}

static mq_status send_greeting(mq_ucx_link *u, const uint8_t own_nonce[NONCE], const uint8_t nonce[NONCE],
                               mq_error *error)
{
    mq_ucx_worker *w = &u->work;
    greeting g = {0};
    const size_t rest = w->place.port ? 0 : w->address_bytes;
    memcpy(g.bytes, magic, sizeof magic);
    memcpy(g.bytes + NONCE_AT, own_nonce, NONCE);
    mq__put_u64(g.bytes + 24, w->token);
    mq__put_u32(g.bytes + 32, MQ_UCX_PART);
    mq__put_u32(g.bytes + 36, own_version());
    put_place(g.bytes + PLACE_AT, &w->place);
    mq__put_u32(g.bytes + REST_AT, (uint32_t)rest);
    memcpy(g.bytes + FIXED, w->address, rest);
    prove(&g, FIXED + rest, nonce, u->has_connected, g.bytes + PROOF_AT);
    return write_exactly(u, g.bytes, FIXED + rest, error);
}

static mq_status check_version(const mq_ucx_link *u, uint32_t version, mq_error *error)
{
    const uint32_t own = own_version();
    if (version == own) return MQ_OK;
    return mq__fail(error, MQ_UNSUPPORTED, "link: %s: expected a peer with UCX %u.%u, got %u.%u", u->link.where,
                    own >> 16, own & 0xffff, version >> 16, version & 0xffff);
}

static mq_status receive_greeting(mq_ucx_link *u, greeting *g, const uint8_t own_nonce[NONCE], mq_error *error)
{
    uint8_t proof[PROOF];
    if (read_exactly(u, g->bytes, FIXED, error) != MQ_OK) return error->status;
    if (memcmp(g->bytes, magic, sizeof magic) != 0) return fail_greeting(u, "other bytes", error);
    const uint32_t rest = mq__get_u32(g->bytes + REST_AT);
    if (rest > MQ_UCX_ADDRESS) return fail_greeting(u, "one of impossible length", error);
    if (read_exactly(u, g->bytes + FIXED, rest, error) != MQ_OK) return error->status;
    prove(g, FIXED + rest, own_nonce, !u->has_connected, proof);
    if (sodium_memcmp(proof, g->bytes + PROOF_AT, PROOF) != 0) {
        return fail_greeting(u, "one that is damaged, or of another secret", error);
    }
    if (mq__get_u32(g->bytes + 32) != MQ_UCX_PART) return fail_greeting(u, "parts of another size", error);
    u->work.peer_token = mq__get_u64(g->bytes + 24);
    return check_version(u, mq__get_u32(g->bytes + 36), error);
}

/* A peer that sent back what it got: UCX would connect to itself. */
static bool is_own_place(const mq_ucx_place *own, const mq_ucx_place *place)
{
    return place->uid == own->uid || (place->port == own->port && memcmp(place->host, own->host, own->host_bytes) == 0);
}

/* The address of the peer's worker. */
static mq_status connect_worker(mq_ucx_link *u, const greeting *g, mq_error *error)
{
    mq_ucx_worker *w = &u->work;
    uint8_t address[MQ_UCX_ADDRESS];
    const mq_ucx_place place = get_place(g->bytes + PLACE_AT);
    const bool is_alike = place.host_bytes == w->place.host_bytes && (place.port == 0) == (w->place.port == 0);
    const bool has_rest = mq__get_u32(g->bytes + REST_AT) > 0;
    if (!is_alike || has_rest != (place.port == 0)) {
        return fail_greeting(u, "an address of another kind (is one side's UCX set by its environment?)", error);
    }
    if (has_rest) return mq__ucx_worker_connect(u, g->bytes + FIXED, error);
    if (is_own_place(&w->place, &place)) return fail_greeting(u, "our own address", error);
    mq__ucx_address_write(address, (const uint8_t *)w->address, w->address_bytes, &w->shape, &place);
    return mq__ucx_worker_connect(u, address, error);
}

/* Nonces: of who listens, and the other's. */
static mq_status exchange_nonces(mq_ucx_link *u, uint8_t own[NONCE], uint8_t other[NONCE], mq_error *error)
{
    uint8_t first[sizeof magic + NONCE];
    randombytes_buf(own, NONCE);
    if (!u->has_connected) {
        memcpy(first, magic, sizeof magic);
        memcpy(first + sizeof magic, own, NONCE);
        return write_exactly(u, first, sizeof first, error);
    }
    if (read_exactly(u, first, sizeof first, error) != MQ_OK) return error->status;
    if (memcmp(first, magic, sizeof magic) != 0) return fail_greeting(u, "other bytes", error);
    memcpy(other, first + sizeof magic, NONCE);
    return MQ_OK;
}

/* Who accepted makes no worker before the peer has proved that it knows the secret. */
mq_status mq__ucx_greet(mq_ucx_link *u, mq_error *error)
{
    greeting g = {0};
    uint8_t own[NONCE], other[NONCE];
    if (sodium_init() < 0)
        return mq__fail(error, MQ_UNSUPPORTED, "link: ucx: expected libsodium to start, got a failure");
    randombytes_buf(&u->work.token, sizeof u->work.token);
    mq_status status = exchange_nonces(u, own, other, error);
    if (status == MQ_OK && !u->has_connected) {
        status = receive_greeting(u, &g, own, error);
        memcpy(other, g.bytes + NONCE_AT, NONCE);
    }
    if (status == MQ_OK) status = mq__ucx_worker_open(u, error);
    if (status == MQ_OK) status = send_greeting(u, own, other, error);
    if (status == MQ_OK && u->has_connected) status = receive_greeting(u, &g, own, error);
    return status == MQ_OK ? connect_worker(u, &g, error) : status;
}
