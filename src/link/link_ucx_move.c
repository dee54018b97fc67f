/* The moving thread of a link over UCX: it alone calls UCX, and sleeps while there is nothing to do. */
#include "base/error.h"
#include "base/little_endian.h"
#include "base/pool.h"
#include "link/link_ucx_impl.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINGER_STEP    1.0 /* seconds without anything taken, after which a link that stops does not wait for its peer */
#define LINGER_MOST    3.0 /* seconds that it waits in all */
#define PROGRESS_TURNS 64  /* of UCX, before others have their turn */

/* What others want, as a turn begins. */
typedef struct view {
    uint64_t queued, freed, signals;
    bool is_stopping;
} view;

void mq__ucx_wake(mq_ucx_link *u)
{
    const uint64_t one = 1;
    u->signals++;
    if (!u->is_asleep) return;
    u->is_asleep = false;
    (void)!write(u->kick, &one, sizeof one);
}

/* ---- what goes */

void mq__ucx_sent(mq_ucx_slot *slot)
{
    mq_ucx_worker *w = &slot->owner->work;
    slot->is_busy = false;
    if (slot->message) slot->message->pending--;
    w->moves++;
}

static void put_ucx_header(const mq_ucx_worker *w, mq_ucx_slot *slot, uint32_t kind,
                           const uint64_t numbers[MQ_UCX_NUMBERS])
{
    mq__put_u64(slot->header, w->peer_token);
    mq__put_u32(slot->header + 8, kind);
    mq__put_u32(slot->header + 12, 0);
    for (int i = 0; i < MQ_UCX_NUMBERS; i++) {
        mq__put_u64(slot->header + 16 + 8 * i, numbers[i]);
    }
}

static void post_notes(mq_ucx_link *u, uint64_t freed)
{
    mq_ucx_worker *w = &u->work;
    const uint64_t none[MQ_UCX_NUMBERS] = {0}, room[MQ_UCX_NUMBERS] = {freed, w->inbox.size, w->inbox.most};
    for (unsigned note = 0; note < MQ_UCX_NOTES; note++) {
        mq_ucx_slot *slot = &w->notes[note];
        if (!w->wanted[note] || slot->is_busy) continue;
        w->wanted[note] = false;
        if (note == MQ_UCX_ROOM) w->granted = freed;
        put_ucx_header(w, slot, note, note == MQ_UCX_ROOM ? room : none);
        mq__ucx_post(u, slot, MQ_UCX_BARE, NULL, 0);
    }
}

/* False: there is no room yet. A body that the peer does not take goes without its bytes, so that it can say so. */
static bool place_message(mq_ucx_worker *w, const mq_ucx_message *m)
{
    if (w->is_placed) return true;
    if (w->outbox.size == 0) return false;
    w->is_placed = m->bytes > w->outbox.most || mq__ucx_outbox_place(&w->outbox, m->bytes, &w->position);
    return w->is_placed;
}

static void post_part(mq_ucx_link *u, mq_ucx_message *m, mq_ucx_slot *slot)
{
    mq_ucx_worker *w = &u->work;
    const size_t left = m->bytes - (size_t)w->at, all = left < MQ_UCX_PART ? left : MQ_UCX_PART;
    const size_t count = m->bytes <= w->outbox.most ? all : 0;
    const uint8_t *from = count > 0 ? m->body + w->at : NULL;
    put_ucx_header(w, slot, MQ_UCX_A_PART, (uint64_t[]){w->begun, m->bytes, w->position, w->at});
    memcpy(slot->header + MQ_UCX_BARE, m->head, MQ_LINK_HEAD);
    slot->message = m;
    m->pending++;
    w->at += count;
    if (w->at == m->bytes || count == 0) {
        w->is_placed = false;
        w->at = 0;
        w->begun++;
    }
    mq__ucx_post(u, slot, MQ_UCX_HEADER, from, count);
}

static mq_ucx_slot *free_slot(mq_ucx_worker *w)
{
    for (unsigned i = 0; i < MQ_UCX_FLIGHT; i++) {
        if (!w->parts[i].is_busy) return &w->parts[i];
    }
    return NULL;
}

static void post_parts(mq_ucx_link *u, uint64_t queued)
{
    mq_ucx_worker *w = &u->work;
    while (w->begun < queued && w->failure.status == MQ_OK) {
        mq_ucx_message *m = &u->queue[w->begun % MQ_UCX_QUEUE];
        mq_ucx_slot *slot = free_slot(w);
        if (!slot || !place_message(w, m)) break;
        post_part(u, m, slot);
    }
    while (w->done < w->begun && u->queue[w->done % MQ_UCX_QUEUE].pending == 0) {
        w->done++;
    }
}

/* ---- turns */

static void begin_inbox(mq_ucx_link *u)
{
    mq_ucx_worker *w = &u->work;
    if (w->inbox.ring || !u->opened.ring) return;
    w->inbox = u->opened;
    w->wanted[MQ_UCX_ROOM] = true;
    w->stirred = mq__seconds();
}

static view look_for_work(mq_ucx_link *u)
{
    pthread_mutex_lock(&u->lock);
    if (u->work.is_up) begin_inbox(u);
    const view v = {.queued = u->queued, .freed = u->freed, .signals = u->signals, .is_stopping = u->is_stopping};
    pthread_mutex_unlock(&u->lock);
    return v;
}

/* What the turn has changed, for those who wait. */
static void show(mq_ucx_link *u)
{
    mq_ucx_worker *w = &u->work;
    pthread_mutex_lock(&u->lock);
    u->granted = w->granted;
    if (u->ready != w->inbox.ready) {
        u->ready = w->inbox.ready;
        pthread_cond_signal(&u->arrivals);
    }
    if (u->done != w->done || u->moves != w->moves || u->is_up != w->is_up) {
        u->done = w->done;
        u->moves = w->moves;
        u->is_up = w->is_up;
        pthread_cond_broadcast(&u->departures);
    }
    pthread_mutex_unlock(&u->lock);
}

/* Both ways work: whoever else connects now is a stranger. */
static void come_up(mq_ucx_link *u)
{
    mq_ucx_worker *w = &u->work;
    if (w->is_up || !w->came[MQ_UCX_READY] || !w->came[MQ_UCX_SEEN]) return;
    mq__ucx_port_deafen(&w->port);
    w->is_up = true;
}

/* When the next deadline is; INFINITY: there is none. */
static double next_deadline(const mq_ucx_link *u)
{
    const mq_ucx_worker *w = &u->work;
    double next = w->is_up ? INFINITY : u->deadline;
    const bool waits_for_first = w->inbox.ring && !u->has_connected && w->inbox.placed == 0;
    if (waits_for_first || w->inbox.ready != w->inbox.placed) next = fmin(next, w->stirred + MQ_LINK_PATIENCE);
    if (w->stopped > 0) next = fmin(next, fmin(w->stopped + LINGER_MOST, w->moved + LINGER_STEP));
    return next;
}

static void check_deadlines(mq_ucx_link *u)
{
    const mq_ucx_worker *w = &u->work;
    const double now = mq__seconds();
    if (w->stopped > 0 || now < next_deadline(u)) return;
    if (!w->is_up) {
        mq__ucx_fail(u, MQ_IO,
                     "ucx: expected the peer's worker to answer in time, got nothing (are its ports closed?)");
    } else {
        mq__ucx_fail(u, MQ_IO, "expected the rest of a message within 10 seconds, got too little");
    }
}

/* The end of the connection is the end of the peer's process, or of its link; what it sent before may still be on its way. */
static void check_peer(mq_ucx_link *u)
{
    uint8_t scrap;
    const ssize_t count = recv(u->fd, &scrap, 1, MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    for (int i = 0; i < PROGRESS_TURNS * PROGRESS_TURNS && mq__ucx.ucp_worker_progress(u->work.worker) > 0; i++) {}
    mq__ucx_fail(u, MQ_IO, "expected more messages, got the end of the connection");
}

/* Whether a link that was stopped has nothing left to wait for. */
static bool has_stopped(mq_ucx_link *u, const view *v)
{
    mq_ucx_worker *w = &u->work;
    const double now = mq__seconds();
    if (!v->is_stopping) return false;
    if (w->stopped == 0) w->stopped = w->moved = now;
    pthread_mutex_lock(&u->link.lock);
    const bool is_orderly = u->link.reason.status == MQ_CANCELLED && w->is_up;
    pthread_mutex_unlock(&u->link.lock);
    if (!is_orderly || w->came[MQ_UCX_BYE_SEEN] || now >= next_deadline(u)) return true;
    if (w->done == v->queued && !w->has_bid) w->wanted[MQ_UCX_BYE] = w->has_bid = true;
    return false;
}

/* The peer has said farewell, and knows that we have heard it. */
static void check_farewell(mq_ucx_link *u)
{
    const mq_ucx_worker *w = &u->work;
    if (!w->came[MQ_UCX_BYE] || w->wanted[MQ_UCX_BYE_SEEN] || w->notes[MQ_UCX_BYE_SEEN].is_busy) return;
    mq__ucx_fail(u, MQ_IO, "expected more messages, got the end of the connection");
}

static bool has_room_to_grant(const mq_ucx_worker *w, uint64_t freed)
{
    return w->inbox.ring && freed - w->granted >= MQ_UCX_FREED;
}

/* True: something was done. */
static bool do_work(mq_ucx_link *u, const view *v)
{
    mq_ucx_worker *w = &u->work;
    const uint64_t before = w->moves;
    unsigned done = 0;
    if (has_room_to_grant(w, v->freed)) w->wanted[MQ_UCX_ROOM] = true;
    post_notes(u, v->freed);
    post_parts(u, v->queued);
    for (int i = 0; i < PROGRESS_TURNS; i++) {
        const unsigned more = mq__ucx.ucp_worker_progress(w->worker);
        if (more == 0) break;
        done += more;
    }
    post_parts(u, v->queued);
    come_up(u);
    if (w->moves == before) return done > 0;
    w->moved = mq__seconds();
    return true;
}

static int milliseconds_left(double deadline)
{
    if (deadline == INFINITY) return -1;
    return (int)ceil(fmin(fmax(deadline - mq__seconds(), 0), 1e6) * 1e3);
}

/* Sleeps until something happens. An event between the look and the sleep is not missed: the worker is armed after the one, and
 * `kick` is written to from the other on. */
static void rest(mq_ucx_link *u, const view *v)
{
    struct pollfd fds[3] = {
        {.fd = u->work.wakes, .events = POLLIN}, {.fd = u->kick, .events = POLLIN}, {.fd = u->fd, .events = POLLIN}};
    uint64_t scrap;
    pthread_mutex_lock(&u->lock);
    u->is_asleep = u->signals == v->signals;
    const bool may_sleep = u->is_asleep;
    pthread_mutex_unlock(&u->lock);
    if (!may_sleep) return;
    const ucs_status_t armed = mq__ucx.ucp_worker_arm(u->work.worker);
    if (armed == UCS_OK) (void)poll(fds, 3, milliseconds_left(next_deadline(u)));
    pthread_mutex_lock(&u->lock);
    u->is_asleep = false;
    pthread_mutex_unlock(&u->lock);
    if (fds[1].revents != 0) (void)!read(u->kick, &scrap, sizeof scrap);
    if (fds[2].revents != 0) check_peer(u);
    if (armed != UCS_OK && armed != UCS_ERR_BUSY)
        mq__ucx_fail(u, MQ_IO, "ucx: expected to wait for events, got an error");
}

/* False: the link is at its end. */
static bool move_turn(mq_ucx_link *u)
{
    const view v = look_for_work(u);
    if (u->work.failure.status != MQ_OK || has_stopped(u, &v)) return false;
    const bool worked = do_work(u, &v);
    check_farewell(u);
    check_deadlines(u);
    show(u);
    if (!worked && u->work.failure.status == MQ_OK) rest(u, &v);
    return true;
}

static void end_move(mq_ucx_link *u)
{
    mq_ucx_worker *w = &u->work;
    mq__ucx_worker_close(u);
    (void)shutdown(u->fd, SHUT_RDWR); /* whoever closes the link may take his time */
    if (w->failure.status != MQ_OK) mq__link_give_up(&u->link, &w->failure);
    pthread_mutex_lock(&u->lock);
    begin_inbox(u); /* it is freed with the mover's */
    u->ready = w->inbox.ready;
    u->is_ended = true;
    pthread_cond_broadcast(&u->arrivals);
    pthread_cond_broadcast(&u->departures);
    pthread_mutex_unlock(&u->lock);
}

void *mq__ucx_move(void *link)
{
    mq_ucx_link *u = link;
    mq_error error;
    if (mq__ucx_greet(u, &error) != MQ_OK) {
        u->work.failure = error;
    } else {
        u->work.wanted[MQ_UCX_READY] = true;
        while (move_turn(u)) {}
    }
    end_move(u);
    return NULL;
}
