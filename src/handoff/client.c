#include "handoff/client.h"

#include "base/error.h"
#include "base/mem.h"
#include "handoff/peers.h"

#include <stdio.h>
#include <string.h>

/* ---- life */

mq_status mq__client_new(mq_handoff *h, mq_peer *peer, const char *name, const mq_client_address *address,
                         mq_client **out, mq_error *error)
{
    mq_client *c = mq__alloc_zero(1, sizeof *c);
    *out = c;
    if (!c || !mq__cond_init(&c->changed)) {
        mq__free(c);
        *out = NULL;
        return mq__fail(error, MQ_NO_MEMORY, "hand-off: %s: expected memory, got none", name);
    }
    pthread_mutex_init(&c->lock, NULL);
    atomic_init(&c->holders, 1);
    c->h = h;
    c->peer = peer;
    snprintf(c->name, sizeof c->name, "%s", name);
    c->address = *address;
    c->since = c->used = c->heard = mq__seconds();
    c->wire.in.key = c->wire.out.key = h->key;
    mq__greeting_make(h, 'D', &c->own);
    return MQ_OK;
}

void mq__client_hold(mq_client *c)
{
    atomic_fetch_add_explicit(&c->holders, 1, memory_order_relaxed);
}

void mq__client_release(mq_client *c)
{
    if (atomic_fetch_sub_explicit(&c->holders, 1, memory_order_acq_rel) != 1) return;
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    mq__free(c);
}

const char *mq__client_name(const mq_client *c)
{
    return c->name;
}

/* ---- from other threads */

/* Under the lock. */
static void note_news(mq_client *c)
{
    c->news++;
    pthread_cond_signal(&c->changed);
}

void mq__client_news(mq_client *c)
{
    pthread_mutex_lock(&c->lock);
    note_news(c);
    pthread_mutex_unlock(&c->lock);
}

bool mq__client_takes(mq_client *c, double now)
{
    const mq_handoff_tuning *t = &c->h->tuning;
    pthread_mutex_lock(&c->lock);
    if (now - c->since > t->recycle || c->epoch >= t->recycle_handoffs) c->is_closing = true;
    const bool takes = !c->is_closing && !c->is_broken;
    note_news(c);
    pthread_mutex_unlock(&c->lock);
    return takes;
}

mq_status mq__client_add(mq_client *c, mq_kv_arrival *a, mq_error *error)
{
    pthread_mutex_lock(&c->lock);
    uint32_t at = 0;
    while (at < MQ_FRAME_HANDOFFS && c->table[at]) {
        at++;
    }
    const bool takes = at < MQ_FRAME_HANDOFFS && !c->is_closing && !c->is_broken;
    if (takes) {
        c->table[at] = a;
        c->count++;
        note_news(c);
    } else if (c->is_broken && c->reason.status != MQ_OK) {
        *error = c->reason; /* it could not connect, and that soon */
    } else {
        (void)mq__fail(error, MQ_LIMIT, "hand-off: %s: expected at most %d hand-offs at once, got another", c->name,
                       MQ_FRAME_HANDOFFS);
    }
    pthread_mutex_unlock(&c->lock);
    return takes ? MQ_OK : error->status;
}

uint64_t mq__client_waits(mq_client *c)
{
    uint64_t tokens = 0;
    pthread_mutex_lock(&c->lock);
    for (uint32_t i = 0; i < MQ_FRAME_HANDOFFS; i++) {
        if (c->table[i]) tokens += mq__arriving_waits(c->table[i]);
    }
    pthread_mutex_unlock(&c->lock);
    return tokens;
}

/* Under the lock. */
static void break_client(mq_client *c, const mq_error *error)
{
    if (!c->is_broken) c->reason = *error;
    c->is_broken = true;
    note_news(c);
}

/* It ends for a reason that says nothing of the peer yet. */
static void end_client(mq_client *c, const mq_error *error)
{
    char prefix[MQ_CLIENT_NAME + 16];
    mq_error reason = *error;
    snprintf(prefix, sizeof prefix, "hand-off: %s", c->name);
    (void)mq__fail_within(&reason, reason.status, prefix);
    pthread_mutex_lock(&c->lock);
    break_client(c, &reason);
    pthread_mutex_unlock(&c->lock);
}

void mq__client_ended(void *context, const mq_error *error)
{
    mq_client *c = context;
    if (error->status == MQ_FORMAT) mq__handoff_count(c->h, &c->h->stats.refused_frames, 1); /* too long a body */
    end_client(c, error);
}

/* Ends it with its link, should its thread be sending. */
static void cut_client(mq_client *c, const mq_error *error)
{
    pthread_mutex_lock(&c->lock);
    break_client(c, error);
    if (c->wire.link) mq__link_stop(c->wire.link);
    pthread_mutex_unlock(&c->lock);
}

void mq__client_stop(mq_client *c)
{
    const mq_error error = {.status = MQ_CANCELLED, .text = "hand-off: the worker stops"};
    cut_client(c, &error);
}

/* ---- the end of a hand-off */

static void count_arrival(mq_handoff *h, const mq_kv_arrival *a, bool arrived)
{
    const mq_arriving_figures *f = &a->figures;
    pthread_mutex_lock(&h->lock);
    h->stats.receive_failures += !arrived;
    if (arrived) {
        h->stats.received++;
        h->stats.received_tokens += a->count - a->first;
        h->stats.received_bytes += f->bytes;
        h->stats.hidden_s += f->computed - f->began;
        h->stats.exposed_s += f->ended - f->computed;
    }
    pthread_mutex_unlock(&h->lock);
}

/* It has ended here, not by the scheduler: once. `cut`: with its connection, whose failure is the peer's already. */
static void settle_arrival(mq_client *c, mq_kv_arrival *a, bool cut)
{
    pthread_mutex_lock(&a->lock);
    const bool arrived = a->state == MQ_ARRIVED, declined = a->is_declined, told = a->farewell == 0;
    const mq_error error = a->error;
    const double link_rate = a->figures.link_rate;
    pthread_mutex_unlock(&a->lock);
    if (!declined) count_arrival(c->h, a, arrived);
    if (link_rate > 0) mq__peer_linked(c->h, c->peer, link_rate);
    if (arrived) {
        mq__peer_served(c->h, c->peer, a);
    } else if (!declined && !cut) {
        const bool busy = error.status == MQ_LIMIT || error.status == MQ_UNSUPPORTED;
        mq__handoff_log(c->h, "%s", error.text);
        mq__peer_failed(c->h, c->peer, &error, told && busy);
    }
    mq__handoff_wake(c->h);
}

void mq__client_watch(mq_client *c, double now)
{
    const double silence = c->h->options.timeout_s;
    pthread_mutex_lock(&c->lock);
    const bool is_idle = c->count == 0;
    pthread_mutex_unlock(&c->lock);
    for (uint32_t i = 0; i < MQ_FRAME_HANDOFFS && !is_idle; i++) {
        pthread_mutex_lock(&c->lock);
        mq_kv_arrival *a = c->table[i];
        if (a) mq__arriving_hold(a);
        const bool silent = c->count && now - c->heard > silence;
        pthread_mutex_unlock(&c->lock);
        if (!a) continue;
        mq_error error = {0};
        if (mq__arriving_watch(a, now, silence, &error)) {
            settle_arrival(c, a, false);
            mq__client_news(c);
            /* not even a word of the others: its link may be gone, and a thread that sends may wait for it */
            if (silent) cut_client(c, &error);
        }
        mq__arriving_release(a);
    }
}

/* ---- what comes */

static mq_status take_refusal(const mq_frame *frame, mq_error *error)
{
    char text[MQ_FRAME_TEXT + 1];
    const mq_status status = mq__refuse_read(frame, text, error);
    if (status != MQ_OK) return status;
    (void)mq__fail(error, MQ_UNSUPPORTED, "expected to be greeted, got a refusal: %s", text);
    return MQ_UNSUPPORTED;
}

static mq_status take_greeting(mq_client *c, const mq_frame *frame, mq_error *error)
{
    mq_hello theirs;
    if (frame->kind == MQ_FRAME_REFUSE) return take_refusal(frame, error);
    mq_status status = mq__hello_read(frame, &theirs, error);
    if (status == MQ_OK) status = mq__greeting_check(c->h, &theirs, 'P', error);
    if (status != MQ_OK) return status;
    if (memcmp(theirs.answers, c->own.nonce, sizeof theirs.answers) != 0) {
        return mq__fail(error, MQ_FORMAT, "greeting: expected the answer to this one, got another's");
    }
    mq__auth_key_derive(&c->h->key, 'P', c->own.nonce, theirs.nonce, &c->wire.in.key);
    pthread_mutex_lock(&c->lock);
    c->theirs = theirs;
    c->is_open = true;
    const double round_trip = c->heard - c->asked;
    note_news(c);
    pthread_mutex_unlock(&c->lock);
    mq__peer_greeted(c->h, c->peer, &theirs, round_trip);
    return MQ_OK;
}

/* The hand-off that a frame is of, held. NULL: it has ended here; or, with *error, never was. */
static mq_kv_arrival *find_arrival(mq_client *c, const mq_frame *frame, mq_error *error)
{
    mq_kv_arrival *a = NULL;
    const uint64_t at = frame->request - 1;
    pthread_mutex_lock(&c->lock);
    if (at < MQ_FRAME_HANDOFFS && c->table[at] && c->table[at]->epoch == frame->epoch) a = c->table[at];
    const bool given = at < MQ_FRAME_HANDOFFS && frame->epoch > 0 && frame->epoch <= c->epoch;
    if (a && given) mq__arriving_hold(a);
    pthread_mutex_unlock(&c->lock);
    if (given) return a;
    (void)mq__fail(error, MQ_FORMAT, "%s: expected a hand-off that was asked for, got epoch %llu",
                   mq__frame_name(frame->kind), (unsigned long long)frame->epoch);
    return NULL;
}

static mq_status take_handoff(mq_client *c, const mq_frame *frame, mq_error *error)
{
    bool ended = false;
    mq_kv_arrival *a = find_arrival(c, frame, error);
    if (!a) return error->status;
    const mq_status status = mq__arriving_take(a, frame, &ended, error);
    if (ended) {
        settle_arrival(c, a, false);
        mq__client_news(c);
    }
    mq__arriving_release(a);
    return status;
}

bool mq__client_arrived(void *context, const uint8_t *head, const void *body, size_t bytes)
{
    mq_client *c = context;
    mq_frame frame;
    mq_error error = {0};
    pthread_mutex_lock(&c->lock);
    const bool is_open = c->is_open;
    c->heard = mq__seconds();
    pthread_mutex_unlock(&c->lock);
    mq_status status = mq__frame_read(&c->wire.in, head, body, bytes, &frame, &error);
    if (status == MQ_OK) {
        status = is_open ? take_handoff(c, &frame, &error) : take_greeting(c, &frame, &error);
    }
    if (status == MQ_OK) return true;
    if (status == MQ_FORMAT) mq__handoff_count(c->h, &c->h->stats.refused_frames, 1);
    end_client(c, &error);
    return false;
}

/* ---- what is sent */

static void send_or_break(mq_client *c, const mq_frame *frame)
{
    mq_error error = {0};
    mq_status status = mq__wire_send(&c->wire, frame, c->h->tuning.send, &error);
    if (status == MQ_OK && frame->bytes) status = mq__wire_flush(&c->wire, c->h->tuning.send, &error);
    if (status == MQ_OK) return;
    end_client(c, &error);
}

static void send_prefill(mq_client *c, mq_kv_arrival *a, uint64_t request)
{
    const double now = mq__seconds();
    mq_buf body = {0};
    mq_error error = {0};
    pthread_mutex_lock(&a->lock);
    a->figures.asked = a->heard = now;
    pthread_mutex_unlock(&a->lock);
    if (!mq__prefill_body(a->tokens, a->count, a->lease, &body)) {
        (void)mq__fail(&error, MQ_NO_MEMORY, "hand-off: %s: expected memory, got none", c->name);
        if (mq__arriving_fail(a, &error)) settle_arrival(c, a, true);
    } else {
        const double left = a->deadline - now;
        const mq_prefill prefill = {.first = a->first,
                                    .count = a->count,
                                    .owner = a->owner,
                                    .timeout_ms = left > 0 ? (uint32_t)(left * 1e3) : 0,
                                    .lease_bytes = (uint32_t)strlen(a->lease)};
        mq_frame frame = mq__prefill_frame(&prefill, &body);
        frame.request = request;
        frame.epoch = a->epoch;
        send_or_break(c, &frame);
    }
    mq__buf_free(&body);
}

static void send_farewell(mq_client *c, const mq_kv_arrival *a, uint64_t request, mq_frame_kind kind)
{
    const mq_frame frame = {.kind = kind, .request = request, .epoch = a->epoch};
    if (kind) send_or_break(c, &frame);
}

/* Under the lock: the first hand-off that has something to say, which is noted; one that is over leaves the table. Epochs are given here:
 * PREFILLs go out in their order, wherever in the table they are. */
static mq_kv_arrival *next_arrival(mq_client *c, uint64_t *request, bool *is_over, bool *was_asked,
                                   mq_frame_kind *farewell)
{
    for (uint32_t i = 0; i < MQ_FRAME_HANDOFFS; i++) {
        mq_kv_arrival *a = c->table[i];
        if (!a) continue;
        *is_over = mq__arriving_is_over(a, farewell);
        *was_asked = a->is_asked;
        if (!*is_over && *was_asked) continue;
        *request = i + 1;
        if (*is_over) {
            c->table[i] = NULL;
            if (--c->count == 0) c->used = mq__seconds();
        } else {
            a->is_asked = true;
            a->epoch = ++c->epoch;
        }
        return a;
    }
    return NULL;
}

bool mq__client_step(mq_client *c, double *due)
{
    uint64_t request = 0;
    bool is_over = false, was_asked = false;
    mq_frame_kind farewell = (mq_frame_kind)0;
    pthread_mutex_lock(&c->lock);
    c->seen = c->news;
    mq_kv_arrival *a = c->is_broken || !c->is_open ? NULL : next_arrival(c, &request, &is_over, &was_asked, &farewell);
    *due = c->used + c->h->tuning.idle;
    pthread_mutex_unlock(&c->lock);
    if (!a) return false;
    if (!is_over) {
        send_prefill(c, a, request);
        return true;
    }
    if (was_asked) send_farewell(c, a, request, farewell);
    mq__arriving_release(a);
    return true;
}

/* ---- connecting */

static mq_status find_link(mq_client *c, mq_error *error)
{
    mq_peer_answer answer;
    mq_peer_name at;
    if (c->address.port) return MQ_OK;
    mq_status status = mq__peer_name_read(c->name, &at, error);
    if (status == MQ_OK) status = mq__health_ask(c->h, &at, &answer, error);
    if (status != MQ_OK) return status;
    mq__peer_answered(c->h, c->peer, &answer, NULL);
    c->address.port = answer.address.port;
    memcpy(c->address.transport, answer.address.transport, sizeof c->address.transport);
    return MQ_OK;
}

static size_t most_body(const mq_handoff *h)
{
    const size_t chunk = mq__kv_chunk_most(&h->engine->kv_layout);
    const size_t header = MQ_KVIMAGE_FIXED + 4 * ((size_t)h->engine->context + 1) + h->engine->context / 8 + 1;
    return chunk > header ? chunk : header;
}

static mq_status open_link(mq_client *c, mq_error *error)
{
    const mq_link_events events = {.arrived = mq__client_arrived, .ended = mq__client_ended, .context = c};
    mq_link *link;
    mq_status status = c->h->dial(c->h->dial_context, c->address.transport, c->address.host, c->address.port,
                                  c->h->tuning.connect, &link, error);
    if (status != MQ_OK) return status;
    pthread_mutex_lock(&c->lock);
    c->wire.link = link;
    const bool is_stopped = c->is_broken;
    pthread_mutex_unlock(&c->lock);
    if (is_stopped) return mq__fail(error, MQ_CANCELLED, "expected to connect, stopped");
    return mq__link_start(link, &events, most_body(c->h), error);
}

static mq_status await_greeting(mq_client *c, mq_error *error)
{
    const double until = mq__seconds() + c->h->tuning.connect;
    pthread_mutex_lock(&c->lock);
    while (!c->is_open && !c->is_broken && mq__seconds() < until) {
        mq__cond_wait_until(&c->changed, &c->lock, until);
    }
    const bool is_open = c->is_open && !c->is_broken;
    if (!is_open && c->is_broken) *error = c->reason;
    pthread_mutex_unlock(&c->lock);
    if (is_open) return MQ_OK;
    if (error->status != MQ_OK) return error->status;
    return mq__fail(error, MQ_IO, "expected a greeting within %g s, got none", c->h->tuning.connect);
}

static mq_status say_hello(mq_client *c, mq_error *error)
{
    uint8_t body[MQ_HELLO_BODY];
    const mq_frame frame = mq__hello_frame(&c->own, body);
    pthread_mutex_lock(&c->lock);
    c->asked = mq__seconds();
    pthread_mutex_unlock(&c->lock);
    mq_status status = mq__wire_send(&c->wire, &frame, c->h->tuning.send, error);
    if (status == MQ_OK) status = mq__wire_flush(&c->wire, c->h->tuning.send, error);
    if (status == MQ_OK) status = await_greeting(c, error);
    if (status == MQ_OK) mq__auth_key_derive(&c->h->key, 'D', c->own.nonce, c->theirs.nonce, &c->wire.out.key);
    return status;
}

/* ---- the thread */

/* Waits for something to do. False: it is to end. */
static bool wait_client(mq_client *c, double due)
{
    const double now = mq__seconds();
    pthread_mutex_lock(&c->lock);
    if (c->count == 0 && now >= c->used + c->h->tuning.idle) c->is_closing = true;
    const bool goes_on = !c->is_broken && (c->count > 0 || !c->is_closing);
    if (goes_on && c->seen == c->news) mq__cond_wait_until(&c->changed, &c->lock, c->count ? now + 1 : due);
    pthread_mutex_unlock(&c->lock);
    return goes_on;
}

/* All hand-offs that are left fail for one reason, which is said once. */
static void fail_all(mq_client *c, const mq_error *reason)
{
    for (uint32_t i = 0; i < MQ_FRAME_HANDOFFS; i++) {
        pthread_mutex_lock(&c->lock);
        mq_kv_arrival *a = c->table[i];
        c->table[i] = NULL;
        c->count -= a != NULL;
        pthread_mutex_unlock(&c->lock);
        if (!a) continue;
        if (mq__arriving_fail(a, reason)) settle_arrival(c, a, true);
        mq__arriving_release(a);
    }
}

void mq__client_end(mq_client *c)
{
    pthread_mutex_lock(&c->lock);
    mq_link *link = c->wire.link;
    c->wire.link = NULL;
    const mq_error reason = c->reason;
    const bool is_broken = c->is_broken;
    const bool is_quiet = c->is_open && c->count == 0 && reason.status == MQ_IO; /* P has closed it */
    c->is_broken = true;                                                         /* it takes nothing more */
    pthread_mutex_unlock(&c->lock);
    if (link) {
        mq__link_stop(link);
        mq__link_close(link);
    }
    if (is_broken && reason.status != MQ_CANCELLED && !is_quiet) {
        mq__handoff_log(c->h, "%s", reason.text);
        if (reason.status == MQ_UNSUPPORTED)
            mq__peer_refused(c->h, c->peer, &reason);
        else
            mq__peer_failed(c->h, c->peer, &reason, false);
    }
    fail_all(c, &reason);
}

void *mq__client_run(void *context)
{
    mq_client *c = context;
    double due;
    mq_error error = {0};
    mq_status status = find_link(c, &error);
    if (status == MQ_OK) status = open_link(c, &error);
    if (status == MQ_OK) status = say_hello(c, &error);
    if (status != MQ_OK) end_client(c, &error);
    do {
        while (mq__client_step(c, &due)) {}
    } while (wait_client(c, due));
    mq__client_end(c);
    atomic_store(&c->is_over, true);
    return NULL;
}
