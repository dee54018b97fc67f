/* Links over UCX. Two threads a link: one moves (link_ucx_move.c), one delivers, so that a receiver who takes his time, or waits for
 * a send, does not keep UCX from moving. */
#include "base/error.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/wait.h"
#include "link/link_door.h"
#include "link/link_tcp.h"
#include "link/link_ucx_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define FAR_AWAY 1e12 /* seconds that fit a time_t */

static mq_ucx_link *ucx_of(mq_link *link)
{
    return (mq_ucx_link *)link;
}

/* Under lock. False: the deadline is over. */
static bool wait_for_departure(mq_ucx_link *u, double deadline)
{
    return mq__cond_wait_until(&u->departures, &u->lock, fmin(deadline, FAR_AWAY));
}

/* ---- making and freeing */

static void init_locks(mq_ucx_link *u)
{
    pthread_mutex_init(&u->lock, NULL);
    pthread_cond_init(&u->arrivals, NULL);
    (void)mq__cond_init(&u->departures);
}

static void ucx_stop(mq_link *link)
{
    mq_ucx_link *u = ucx_of(link);
    pthread_mutex_lock(&u->lock);
    u->is_stopping = true;
    mq__ucx_wake(u);
    pthread_cond_broadcast(&u->departures);
    pthread_mutex_unlock(&u->lock);
}

static void ucx_free(mq_link *link)
{
    mq_ucx_link *u = ucx_of(link);
    if (u->has_mover) pthread_join(u->mover, NULL);
    if (u->has_deliverer) pthread_join(u->deliverer, NULL);
    mq__ucx_inbox_close(&u->opened);
    if (u->kick >= 0) close(u->kick);
    close(u->fd);
    pthread_cond_destroy(&u->departures);
    pthread_cond_destroy(&u->arrivals);
    pthread_mutex_destroy(&u->lock);
    mq__link_fini(link);
}

/* Takes the socket. */
static mq_status new_ucx_link(int fd, const char *where, bool has_connected, double seconds, mq_link **link,
                              mq_error *error)
{
    mq_ucx_link *u = mq__alloc_zero(1, sizeof *u);
    if (!u) {
        close(fd);
        return mq__fail(error, MQ_NO_MEMORY, "link: %s: expected memory, got none", where);
    }
    mq__tcp_set_options(fd);
    mq__link_init(&u->link, &mq__link_ucx, where);
    init_locks(u);
    u->fd = fd;
    u->has_connected = has_connected;
    u->deadline = mq__seconds() + seconds;
    u->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    u->has_mover = u->kick >= 0 && pthread_create(&u->mover, NULL, mq__ucx_move, u) == 0;
    if (u->has_mover) {
        *link = &u->link;
        return MQ_OK;
    }
    ucx_free(&u->link);
    return mq__fail(error, MQ_NO_MEMORY, "link: %s: expected a descriptor and a thread, got none", where);
}

/* ---- connecting and listening */

/* Why the link is at its end. */
static mq_status get_failure(mq_ucx_link *u, mq_error *error)
{
    pthread_mutex_lock(&u->link.lock);
    const mq_error reason = u->link.reason;
    pthread_mutex_unlock(&u->link.lock);
    return mq__fail(error, MQ_IO, "%s", reason.text);
}

static mq_status wait_until_up(mq_ucx_link *u, mq_error *error)
{
    pthread_mutex_lock(&u->lock);
    while (!u->is_up && !u->is_ended) {
        pthread_cond_wait(&u->departures, &u->lock); /* the mover keeps the deadline */
    }
    const bool is_up = u->is_up;
    pthread_mutex_unlock(&u->lock);
    return is_up ? MQ_OK : get_failure(u, error);
}

static mq_status ucx_connect(const char *host, uint16_t port, double seconds, mq_link **link, mq_error *error)
{
    const double deadline = mq__seconds() + seconds;
    int fd;
    mq_error failure = {0};
    mq_status status = mq__ucx_load(&failure);
    if (status == MQ_OK) status = mq__tcp_connect_socket(host, port, seconds, &fd, &failure);
    if (status == MQ_OK) status = new_ucx_link(fd, host, true, deadline - mq__seconds(), link, &failure);
    if (status == MQ_OK) {
        status = wait_until_up(ucx_of(*link), &failure);
        if (status == MQ_OK) return MQ_OK;
        mq__link_close(*link);
        *link = NULL;
    }
    return mq__fail(error, status, "%s", failure.text);
}

static mq_link *welcome_ucx(int fd)
{
    char where[MQ_LINK_WHERE];
    mq_link *link = NULL;
    mq__tcp_where(fd, where, sizeof where);
    (void)new_ucx_link(fd, where, false, MQ_LINK_PATIENCE, &link, NULL);
    return link;
}

static mq_status ucx_listen(const char *host, uint16_t port, const mq_link_listener *like, mq_link_listener **listener,
                            mq_error *error)
{
    mq_link_listener bound = *like;
    int fd;
    mq_status status = mq__ucx_load(error);
    if (status == MQ_OK) status = mq__tcp_listen_socket(host, port, &fd, &bound.port, error);
    return status == MQ_OK ? mq__door_open(fd, &bound, welcome_ucx, listener, error) : status;
}

/* ---- delivering */

/* Waits for a message before `*ready`. False: none comes any more. */
static bool wait_for_arrival(mq_ucx_link *u, uint64_t taken, uint64_t *ready)
{
    pthread_mutex_lock(&u->lock);
    if (u->freed != taken) {
        u->freed = taken;
        if (taken - u->granted >= MQ_UCX_FREED) mq__ucx_wake(u);
    }
    while (u->ready == taken && !u->is_ended) {
        pthread_cond_wait(&u->arrivals, &u->lock);
    }
    *ready = u->ready;
    pthread_mutex_unlock(&u->lock);
    return *ready != taken;
}

static void *deliver_messages(void *argument)
{
    mq_ucx_link *u = argument;
    mq_error error = {0};
    mq_status status = MQ_OK;
    uint64_t at = 0, ready;
    while (status == MQ_OK && wait_for_arrival(u, at, &ready)) {
        const mq_ucx_record *r = mq__ucx_inbox_at(&u->opened, &at);
        status = mq__link_deliver(&u->link, r->head, r + 1, (size_t)r->bytes, &error);
        at += mq__ucx_record_bytes(r->bytes);
    }
    mq__link_over(&u->link, &error); /* the mover's failure is its reason already */
    return NULL;
}

static mq_status ucx_start(mq_link *link, mq_error *error)
{
    mq_ucx_link *u = ucx_of(link);
    mq_ucx_inbox inbox;
    if (!mq__ucx_inbox_open(&inbox, link->most)) {
        return mq__fail(error, MQ_NO_MEMORY, "link: %s: expected memory for bodies of %zu bytes, got none", link->where,
                        link->most);
    }
    pthread_mutex_lock(&u->lock);
    u->opened = inbox;
    mq__ucx_wake(u);
    pthread_mutex_unlock(&u->lock);
    u->has_deliverer = pthread_create(&u->deliverer, NULL, deliver_messages, u) == 0;
    if (u->has_deliverer) return MQ_OK;
    return mq__fail(error, MQ_NO_MEMORY, "link: %s: expected a thread to start, got a refusal", link->where);
}

/* ---- sending */

/* Under lock: waits until `done` is at least so many, or the link is at its end. False: nothing moves any more. */
static bool wait_until_done(mq_ucx_link *u, uint64_t least, double seconds)
{
    double deadline = mq__seconds() + seconds;
    uint64_t moves = u->moves;
    while (u->done < least && !u->is_ended && !u->is_stopping) {
        if (!wait_for_departure(u, deadline) && u->moves == moves) return false;
        if (u->moves != moves) deadline = mq__seconds() + seconds;
        moves = u->moves;
    }
    return true;
}

static mq_status fail_slow(const mq_link *link, double seconds, mq_error *error)
{
    return mq__fail(error, MQ_IO, "link: %s: expected it to take bytes, got none taken for %.3g seconds", link->where,
                    seconds);
}

static mq_status ucx_send(mq_link *link, const uint8_t *head, const void *body, size_t bytes, double seconds,
                          mq_error *error)
{
    mq_ucx_link *u = ucx_of(link);
    pthread_mutex_lock(&u->lock);
    const uint64_t least = u->queued < MQ_UCX_QUEUE ? 0 : u->queued + 1 - MQ_UCX_QUEUE;
    const bool moves = wait_until_done(u, least, seconds);
    const bool goes_on = !u->is_ended && !u->is_stopping;
    if (moves && goes_on) {
        mq_ucx_message *m = &u->queue[u->queued % MQ_UCX_QUEUE];
        *m = (mq_ucx_message){.body = body, .bytes = bytes};
        memcpy(m->head, head, MQ_LINK_HEAD);
        u->queued++;
        mq__ucx_wake(u);
    }
    pthread_mutex_unlock(&u->lock);
    if (!moves) return fail_slow(link, seconds, error);
    return goes_on ? MQ_OK : MQ_IO; /* why is link->reason */
}

/* Messages up to `least` have gone, or the mover has let go of them. */
static mq_status wait_until_released(mq_ucx_link *u, uint64_t least, mq_error *error)
{
    pthread_mutex_lock(&u->lock);
    while (u->done < least && !u->is_ended) {
        pthread_cond_wait(&u->departures, &u->lock);
    }
    const bool have_gone = u->done >= least;
    pthread_mutex_unlock(&u->lock);
    return have_gone ? MQ_OK : get_failure(u, error);
}

static mq_status ucx_flush(mq_link *link, double seconds, mq_error *error)
{
    mq_ucx_link *u = ucx_of(link);
    mq_error slow;
    pthread_mutex_lock(&u->lock);
    const uint64_t queued = u->queued;
    const bool moves = wait_until_done(u, queued, seconds);
    pthread_mutex_unlock(&u->lock);
    if (!moves) {
        (void)fail_slow(link, seconds, &slow);
        mq__link_give_up(link, &slow);
    }
    return wait_until_released(u, queued, error);
}

const mq_link_kind mq__link_ucx = {
    .name = "ucx",
    .connect = ucx_connect,
    .listen = ucx_listen,
    .listener_close = mq__door_close,
    .start = ucx_start,
    .send = ucx_send,
    .flush = ucx_flush,
    .stop = ucx_stop,
    .free = ucx_free,
};
