/* Links of all kinds: which there are, the thread that reads messages, counters, and that a link ends once. */
#include "base/error.h"
#include "base/little_endian.h"
#include "base/mem.h"
#include "link/link_impl.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static const mq_link_kind *const kinds[] = {
    &mq__link_tcp,
    &mq__link_shm,
#ifdef MQ_UCX
    &mq__link_ucx,
#endif
};

const char *mq__link_kinds(void)
{
#ifdef MQ_UCX
    return "tcp, shm, ucx";
#else
    return "tcp, shm";
#endif
}

/* NULL: there is none of this name. */
static const mq_link_kind *find_kind(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(kinds[i]->name, name) == 0) return kinds[i];
    }
    return NULL;
}

bool mq__link_has_kind(const char *name)
{
    return find_kind(name) != NULL;
}

static mq_status refuse_kind(const char *name, mq_error *error)
{
    return mq__fail(error, MQ_UNSUPPORTED, "link: expected one of %s, got '%s'", mq__link_kinds(), name);
}

/* ---- what kinds use */

void mq__link_init(mq_link *link, const mq_link_kind *kind, const char *where)
{
    link->kind = kind;
    snprintf(link->where, sizeof link->where, "%s", where);
    pthread_mutex_init(&link->lock, NULL);
}

void mq__link_leave(atomic_int *crowd)
{
    if (crowd && atomic_fetch_sub(crowd, 1) == 1) mq__free(crowd);
}

void mq__link_fini(mq_link *link)
{
    mq__link_leave(link->crowd);
    pthread_mutex_destroy(&link->lock);
    mq__free_aligned(link->body);
    mq__free(link);
}

static mq_status stopped_here(const mq_link *link, mq_error *error)
{
    return mq__fail(error, MQ_CANCELLED, "link: %s: stopped here", link->where);
}

static mq_status too_big(const mq_link *link, uint64_t bytes, mq_error *error)
{
    return mq__fail(error, MQ_FORMAT, "link: %s: expected a body of at most %zu bytes, got %llu", link->where,
                    link->most, (unsigned long long)bytes);
}

mq_status mq__link_deliver(mq_link *link, const uint8_t *head, const void *body, size_t bytes, mq_error *error)
{
    if (atomic_load(&link->asked)) return stopped_here(link, error);
    if (bytes > link->most) return too_big(link, bytes, error);
    atomic_fetch_add_explicit(&link->received, bytes, memory_order_relaxed);
    if (link->events.arrived(link->events.context, head, body, bytes)) return MQ_OK;
    return mq__fail(error, MQ_CANCELLED, "link: %s: no more messages are wanted", link->where);
}

void mq__link_give_up(mq_link *link, const mq_error *error)
{
    pthread_mutex_lock(&link->lock);
    if (link->reason.status == MQ_OK) link->reason = *error;
    pthread_mutex_unlock(&link->lock);
    atomic_store(&link->stopped, true);
    link->kind->stop(link);
}

/* The first failure: those that follow from it say less. */
static void get_reason(mq_link *link, mq_error *error)
{
    pthread_mutex_lock(&link->lock);
    *error = link->reason;
    pthread_mutex_unlock(&link->lock);
}

void mq__link_over(mq_link *link, const mq_error *error)
{
    mq_error reason;
    mq__link_give_up(link, error);
    get_reason(link, &reason);
    if (atomic_exchange(&link->over, true) || atomic_load(&link->closing)) return;
    link->events.ended(link->events.context, &reason);
}

/* ---- messages of bytes */

mq_status mq__link_cut_off(const mq_link *link, size_t have, size_t bytes, const char *got, mq_error *error)
{
    if (have == 0 && bytes == MQ_LINK_WIRE_HEAD) {
        return mq__fail(error, MQ_IO, "link: %s: expected more messages, got %s", link->where, got);
    }
    return mq__fail(error, MQ_IO, "link: %s: expected %zu more bytes of a message, got %s", link->where, bytes - have,
                    got);
}

static mq_status grow_body(mq_link *link, size_t bytes, mq_error *error)
{
    if (bytes <= link->body_capacity) return MQ_OK;
    mq__free_aligned(link->body); /* memory is used as bytes come, so a length alone costs a peer's victim nothing */
    link->body = mq__alloc_aligned(bytes);
    link->body_capacity = link->body ? bytes : 0;
    if (link->body) return MQ_OK;
    return mq__fail(error, MQ_NO_MEMORY, "link: %s: expected memory for a body of %zu bytes, got none", link->where,
                    bytes);
}

static mq_status read_bytes(mq_link *link, void *to, size_t bytes, bool *late, mq_error *error)
{
    *late = false;
    if (atomic_load(&link->asked)) return stopped_here(link, error);
    return link->kind->read(link, to, bytes, late, error);
}

static mq_status read_body(mq_link *link, size_t bytes, mq_error *error)
{
    bool late;
    mq_status status = grow_body(link, bytes, error);
    for (size_t at = 0, step; status == MQ_OK && at < bytes; at += step) {
        step = bytes - at < MQ_LINK_STEP ? bytes - at : MQ_LINK_STEP;
        status = read_bytes(link, link->body + at, step, &late, error);
    }
    return status;
}

/* Waits for it. */
static mq_status read_message(mq_link *link, bool is_first, mq_error *error)
{
    uint8_t wire[MQ_LINK_WIRE_HEAD];
    mq_status status;
    bool late;
    do { /* between two messages a link may be idle */
        status = read_bytes(link, wire, sizeof wire, &late, error);
    } while (late && !(is_first && link->is_accepted));
    if (status != MQ_OK) return status;
    const uint64_t bytes = mq__get_u64(wire);
    if (bytes > link->most) return too_big(link, bytes, error);
    status = read_body(link, (size_t)bytes, error);
    return status == MQ_OK ? mq__link_deliver(link, wire + 8, link->body, (size_t)bytes, error) : status;
}

static void *read_messages(void *argument)
{
    mq_link *link = argument;
    mq_error error = {0};
    bool is_first = true;
    while (read_message(link, is_first, &error) == MQ_OK) {
        is_first = false;
    }
    mq__link_over(link, &error);
    return NULL;
}

static mq_status write_message(mq_link *link, const uint8_t *head, const void *body, size_t bytes, double seconds,
                               mq_error *error)
{
    uint8_t wire[MQ_LINK_WIRE_HEAD];
    mq__put_u64(wire, bytes);
    memcpy(wire + 8, head, MQ_LINK_HEAD);
    struct iovec parts[2] = {{wire, sizeof wire}, {(void *)(uintptr_t)body, bytes}};
    return link->kind->write(link, parts, bytes > 0 ? 2 : 1, seconds, error);
}

/* ---- the calls */

#ifndef MQ_UCX
void mq__link_set_secret(const uint8_t secret[MQ_LINK_SECRET])
{
    (void)secret; /* no kind needs it */
}
#endif

mq_status mq__link_connect(const char *kind, const char *host, uint16_t port, double seconds, mq_link **link,
                           mq_error *error)
{
    *link = NULL;
    const mq_link_kind *found = find_kind(kind);
    return found ? found->connect(host, port, seconds, link, error) : refuse_kind(kind, error);
}

mq_status mq__link_listen(const char *kind, const char *host, uint16_t port,
                          void (*accepted)(void *context, mq_link *link, const char *from), void *context,
                          mq_link_listener **listener, mq_error *error)
{
    *listener = NULL;
    const mq_link_kind *found = find_kind(kind);
    if (!found) return refuse_kind(kind, error);
    const mq_link_listener like = {.kind = found, .port = port, .accepted = accepted, .context = context};
    return found->listen(host, port, &like, listener, error);
}

uint16_t mq__link_port(const mq_link_listener *listener)
{
    return listener->port;
}

void mq__link_listener_close(mq_link_listener *listener)
{
    if (listener) listener->kind->listener_close(listener);
}

mq_status mq__link_start(mq_link *link, const mq_link_events *events, size_t most, mq_error *error)
{
    assert(!link->is_started);
    link->events = *events;
    link->most = most;
    if (link->kind->start) return link->kind->start(link, error);
    if (pthread_create(&link->thread, NULL, read_messages, link) != 0) {
        return mq__fail(error, MQ_NO_MEMORY, "link: %s: expected a thread to start, got a refusal", link->where);
    }
    link->is_started = true;
    return MQ_OK;
}

mq_status mq__link_send(mq_link *link, const uint8_t *head, const void *body, size_t bytes, double seconds,
                        mq_error *error)
{
    mq_error failure = {0};
    mq_status status = MQ_IO;
    if (!atomic_load(&link->stopped)) {
        status = link->kind->send ? link->kind->send(link, head, body, bytes, seconds, &failure)
                                  : write_message(link, head, body, bytes, seconds, &failure);
    }
    if (status == MQ_OK) {
        atomic_fetch_add_explicit(&link->sent, bytes, memory_order_relaxed);
        return MQ_OK;
    }
    if (failure.status != MQ_OK) mq__link_give_up(link, &failure); /* a part of a message may have gone */
    get_reason(link, &failure);
    return mq__fail(error, MQ_IO, "%s", failure.text);
}

mq_status mq__link_flush(mq_link *link, double seconds, mq_error *error)
{
    return link->kind->flush ? link->kind->flush(link, seconds, error) : MQ_OK; /* write copies */
}

void mq__link_stop(mq_link *link)
{
    mq_error asked = {0};
    (void)stopped_here(link, &asked);
    atomic_store(&link->asked, true);
    mq__link_give_up(link, &asked);
}

void mq__link_close(mq_link *link)
{
    if (!link) return;
    atomic_store(&link->closing, true);
    mq__link_stop(link);
    if (link->is_started) pthread_join(link->thread, NULL);
    link->kind->free(link);
}

uint64_t mq__link_sent(const mq_link *link)
{
    return atomic_load_explicit(&link->sent, memory_order_relaxed);
}

uint64_t mq__link_received(const mq_link *link)
{
    return atomic_load_explicit(&link->received, memory_order_relaxed);
}
