/* A connection of a decode worker: what comes, and the thread that sends. */
#include "base/error.h"
#include "base/mem.h"
#include "handoff/serve.h"

#include <stdio.h>
#include <string.h>

void mq__served_news(mq_served *c)
{
    c->news++;
    pthread_cond_signal(&c->changed);
}

/* ---- life */

mq_status mq__served_new(mq_handoff *h, const char *from, mq_served **out, mq_error *error)
{
    mq_served *c = mq__alloc_zero(1, sizeof *c);
    *out = c;
    if (!c || !mq__cond_init(&c->changed)) {
        mq__free(c);
        *out = NULL;
        return mq__fail(error, MQ_NO_MEMORY, "hand-off: %s: expected memory, got none", from);
    }
    pthread_mutex_init(&c->lock, NULL);
    c->h = h;
    snprintf(c->from, sizeof c->from, "%s", from);
    c->end = &c->first;
    c->since = mq__seconds();
    c->wire.in.key = c->wire.out.key = h->key;
    mq__greeting_make(h, 'P', &c->own);
    return MQ_OK;
}

void mq__served_free(mq_served *c)
{
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    mq__free(c);
}

static void count_sending(mq_handoff *h, int32_t more)
{
    pthread_mutex_lock(&h->lock);
    h->stats.sending += (uint32_t)more;
    pthread_mutex_unlock(&h->lock);
}

static void add_sender(mq_served *c, mq_sender *s)
{
    pthread_mutex_lock(&c->lock);
    s->next = NULL;
    *c->end = s;
    c->end = &s->next;
    c->count++;
    mq__served_news(c);
    pthread_mutex_unlock(&c->lock);
}

/* Under the lock. */
static mq_sender *take_out(mq_served *c, mq_sender **at)
{
    mq_sender *s = *at;
    *at = s->next;
    if (c->end == &s->next) c->end = at;
    c->count--;
    if (c->count == 0) c->since = mq__seconds();
    return s;
}

/* ---- what comes */

/* Under the lock. */
static void break_served(mq_served *c, const mq_error *error)
{
    if (!c->is_broken && !c->is_refused) c->reason = *error;
    c->is_broken = true;
    mq__served_news(c);
}

/* A peer that is not greeted is told why. */
static void refuse_served(mq_served *c, const mq_error *error)
{
    pthread_mutex_lock(&c->lock);
    if (!c->is_broken && !c->is_refused) c->reason = *error;
    c->is_refused = true;
    mq__served_news(c);
    pthread_mutex_unlock(&c->lock);
}

/* Nothing more is sent. */
static void end_served(mq_served *c, const mq_error *error)
{
    pthread_mutex_lock(&c->lock);
    break_served(c, error);
    pthread_mutex_unlock(&c->lock);
}

static mq_status take_hello(mq_served *c, const mq_frame *frame, mq_error *error)
{
    mq_hello theirs;
    mq_status status = mq__hello_read(frame, &theirs, error);
    if (status == MQ_OK) status = mq__greeting_check(c->h, &theirs, 'D', error);
    if (status != MQ_OK) return status;
    mq__auth_key_derive(&c->h->key, 'D', theirs.nonce, c->own.nonce, &c->wire.in.key);
    pthread_mutex_lock(&c->lock);
    c->theirs = theirs;
    c->is_greeted = true;
    mq__served_news(c);
    pthread_mutex_unlock(&c->lock);
    return MQ_OK;
}

static mq_status take_prefill(mq_served *c, const mq_frame *frame, mq_error *error)
{
    mq_prefill prefill;
    const mq_status status = mq__prefill_read(frame, &prefill, error);
    if (status != MQ_OK) return status;
    pthread_mutex_lock(&c->lock);
    const bool full = c->count >= 2 * MQ_FRAME_HANDOFFS; /* D may have left some that still leave here */
    pthread_mutex_unlock(&c->lock);
    if (frame->request == 0 || frame->epoch <= c->epoch || full) {
        return mq__fail(error, MQ_FORMAT, "PREFILL: expected a later epoch than %llu and at most %d at once, got %llu",
                        (unsigned long long)c->epoch, MQ_FRAME_HANDOFFS, (unsigned long long)frame->epoch);
    }
    c->epoch = frame->epoch;
    mq_sender *s = mq__sender_new(c, frame, &prefill);
    if (!s) return mq__fail(error, MQ_NO_MEMORY, "PREFILL: expected memory, got none");
    mq__sender_submit(s, &prefill);
    count_sending(c->h, 1);
    add_sender(c, s);
    return MQ_OK;
}

/* DONE or CANCEL; of a hand-off that has ended here, too, it comes to nothing. */
static mq_status take_leave(mq_served *c, const mq_frame *frame, mq_error *error)
{
    const mq_status status = mq__empty_read(frame, error);
    if (status != MQ_OK) return status;
    bool early = frame->epoch == 0 || frame->epoch > c->epoch;
    pthread_mutex_lock(&c->lock);
    for (mq_sender *s = c->first; s; s = s->next) {
        if (s->epoch != frame->epoch) continue;
        early = early || s->request != frame->request || (frame->kind == MQ_FRAME_DONE && !s->committed);
        s->is_left = s->is_left || !early;
    }
    mq__served_news(c);
    pthread_mutex_unlock(&c->lock);
    if (!early) return MQ_OK;
    return mq__fail(error, MQ_FORMAT, "%s: expected it of a hand-off that was %s, got epoch %llu",
                    mq__frame_name(frame->kind), frame->kind == MQ_FRAME_DONE ? "committed" : "begun",
                    (unsigned long long)frame->epoch);
}

static mq_status take_frame(mq_served *c, const mq_frame *frame, mq_error *error)
{
    if (frame->kind == MQ_FRAME_PREFILL) return take_prefill(c, frame, error);
    if (frame->kind == MQ_FRAME_DONE || frame->kind == MQ_FRAME_CANCEL) return take_leave(c, frame, error);
    return mq__fail(error, MQ_FORMAT, "expected PREFILL, DONE or CANCEL, got %s", mq__frame_name(frame->kind));
}

static void reject_frame(mq_served *c, const mq_error *error)
{
    if (error->status == MQ_FORMAT) mq__handoff_count(c->h, &c->h->stats.refused_frames, 1);
}

bool mq__served_arrived(void *context, const uint8_t *head, const void *body, size_t bytes)
{
    mq_served *c = context;
    mq_frame frame;
    mq_error error = {0};
    pthread_mutex_lock(&c->lock);
    const bool greeted = c->is_greeted, refused = c->is_refused;
    /* D speaks only when it has heard the answer: what comes before was made for another connection. */
    const bool early = greeted && !c->is_open;
    pthread_mutex_unlock(&c->lock);
    if (refused) return true;
    mq_status status = mq__frame_read(&c->wire.in, head, body, bytes, &frame, &error);
    if (status == MQ_OK && early) {
        status = mq__fail(&error, MQ_FORMAT, "expected nothing before the greeting's answer, got %s",
                          mq__frame_name(frame.kind));
    }
    if (status == MQ_OK) status = greeted ? take_frame(c, &frame, &error) : take_hello(c, &frame, &error);
    if (status == MQ_OK) return true;
    reject_frame(c, &error);
    if (!greeted) {
        refuse_served(c, &error);
        return true;
    }
    end_served(c, &error);
    return false;
}

void mq__served_ended(void *context, const mq_error *error)
{
    mq_served *c = context;
    reject_frame(c, error); /* too long a body */
    end_served(c, error);
}

/* ---- what is sent */

static void send_frame(mq_served *c, const mq_frame *frame)
{
    mq_error error = {0};
    if (mq__wire_send(&c->wire, frame, c->h->tuning.send, &error) != MQ_OK) end_served(c, &error);
}

static void greet(mq_served *c)
{
    uint8_t body[MQ_HELLO_BODY];
    memcpy(c->own.answers, c->theirs.nonce, sizeof c->own.answers);
    const mq_frame frame = mq__hello_frame(&c->own, body);
    mq_error error = {0};
    /* what the answer asks for may come before this thread runs again */
    pthread_mutex_lock(&c->lock);
    c->is_open = true;
    pthread_mutex_unlock(&c->lock);
    mq_status status = mq__wire_send(&c->wire, &frame, c->h->tuning.send, &error);
    if (status == MQ_OK) status = mq__wire_flush(&c->wire, c->h->tuning.send, &error);
    if (status != MQ_OK) end_served(c, &error);
    mq__auth_key_derive(&c->h->key, 'P', c->theirs.nonce, c->own.nonce, &c->wire.out.key);
}

static void send_refusal(mq_served *c)
{
    mq_error reason, unheard = {0};
    pthread_mutex_lock(&c->lock);
    reason = c->reason;
    pthread_mutex_unlock(&c->lock);
    const mq_frame frame = mq__refuse_frame(reason.text);
    if (mq__wire_send(&c->wire, &frame, c->h->tuning.greet, &unheard) == MQ_OK) {
        (void)mq__wire_flush(&c->wire, c->h->tuning.greet, &unheard);
    }
    end_served(c, &reason);
}

/* Its blocks go back when nobody reads them any more: at once, or else with the link. */
static void end_sender(mq_served *c, mq_sender *s)
{
    mq_error error = {0};
    if (mq__wire_flush(&c->wire, c->h->tuning.send, &error) != MQ_OK) {
        end_served(c, &error);
        add_sender(c, s);
        return;
    }
    c->h->release(s->job);
    count_sending(c->h, -1);
    if (s->failed) {
        mq__handoff_log(c->h, "hand-off: %s: %s", c->from, s->text);
        if (s->fault == MQ_FAULT_FAILED || s->fault == MQ_FAULT_LATE)
            mq__handoff_count(c->h, &c->h->stats.send_failures, 1);
    }
    mq__sender_free(s);
}

static void count_sent(mq_handoff *h, const mq_sender *s)
{
    pthread_mutex_lock(&h->lock);
    h->stats.sent++;
    h->stats.sent_tokens += s->count - s->first;
    h->stats.sent_bytes += s->bytes;
    pthread_mutex_unlock(&h->lock);
}

static void send_chunk(mq_served *c, mq_sender *s, const mq_kvchunk *chunk)
{
    const mq_frame frame = mq__sender_chunk_frame(s, chunk);
    send_frame(c, &frame);
    s->chunks++;
    s->bytes += chunk->bytes;
}

/* Under the lock: a chunk of the hand-off whose turn it is, which goes to the end. */
static mq_sender *next_chunk(mq_served *c, mq_kvchunk *chunk)
{
    for (mq_sender **at = &c->first; *at; at = &(*at)->next) {
        mq_sender *s = *at;
        if (!mq__sender_chunk(s, chunk)) continue;
        *at = s->next;
        if (c->end == &s->next) c->end = at;
        s->next = NULL;
        *c->end = s;
        c->end = &s->next;
        return s;
    }
    return NULL;
}

/* Under the lock. */
static mq_sender *next_over(mq_served *c, double now)
{
    for (mq_sender **at = &c->first; *at; at = &(*at)->next) {
        if (mq__sender_is_over(*at, now)) return take_out(c, at);
    }
    return NULL;
}

/* Under the lock. */
static mq_sender *next_speaker(mq_served *c, double now, mq_frame *frame, double *due)
{
    for (mq_sender *s = c->first; s; s = s->next) {
        if (mq__sender_speaks(s, now, frame, due)) return s;
    }
    return NULL;
}

bool mq__served_step(mq_served *c, double *due)
{
    const double now = mq__seconds();
    mq_frame frame;
    mq_kvchunk chunk;
    *due = now + c->h->tuning.orphan;
    pthread_mutex_lock(&c->lock);
    c->seen = c->news;
    const bool greets = c->is_greeted && !c->is_open, refuses = c->is_refused && !c->is_broken;
    const bool talks = c->is_open && !c->is_broken;
    mq_sender *over = talks ? next_over(c, now) : NULL;
    mq_sender *speaker = talks && !over ? next_speaker(c, now, &frame, due) : NULL;
    mq_sender *sends = talks && !over && !speaker ? next_chunk(c, &chunk) : NULL;
    const bool commits = speaker && frame.kind == MQ_FRAME_COMMIT;
    pthread_mutex_unlock(&c->lock);
    if (greets) greet(c);
    if (refuses) send_refusal(c);
    if (over) end_sender(c, over);
    if (commits) count_sent(c->h, speaker);
    if (speaker) send_frame(c, &frame);
    if (sends) send_chunk(c, sends, &chunk);
    return greets || refuses || over || speaker || sends;
}

/* ---- the thread */

/* Waits for something to do. False: the connection is over. */
static bool wait_served(mq_served *c, double due)
{
    mq_error late = {0};
    pthread_mutex_lock(&c->lock);
    const double patience = c->is_open ? c->h->tuning.orphan : c->h->tuning.greet;
    const double end = c->since + patience;
    if (c->count == 0 && mq__seconds() >= end) {
        (void)mq__fail(&late, MQ_IO, "expected a %s within %g s, got none", c->is_open ? "message" : "greeting",
                       patience);
        break_served(c, &late);
    }
    if (c->count == 0 && end < due) due = end;
    if (!c->is_broken && c->seen == c->news) mq__cond_wait_until(&c->changed, &c->lock, due);
    const bool goes_on = !c->is_broken;
    pthread_mutex_unlock(&c->lock);
    return goes_on;
}

void mq__served_stop(mq_served *c)
{
    pthread_mutex_lock(&c->lock);
    const mq_error error = {.status = MQ_CANCELLED, .text = "hand-off: the worker stops"};
    break_served(c, &error);
    if (c->wire.link) mq__link_stop(c->wire.link);
    pthread_mutex_unlock(&c->lock);
}

void mq__served_end(mq_served *c)
{
    pthread_mutex_lock(&c->lock);
    mq_link *link = c->wire.link;
    c->wire.link = NULL;
    pthread_mutex_unlock(&c->lock);
    if (link) {
        mq__link_stop(link);
        mq__link_close(link);
    }
    for (mq_sender *s = c->first, *next; s; s = next) {
        next = s->next;
        if (!s->committed && !s->is_left && !s->failed) mq__handoff_count(c->h, &c->h->stats.send_failures, 1);
        c->h->release(s->job);
        count_sending(c->h, -1);
        mq__sender_free(s);
    }
    c->first = NULL;
    c->end = &c->first;
    c->count = 0;
}

static void log_end(mq_served *c)
{
    if (atomic_load(&c->h->stopping)) return;
    pthread_mutex_lock(&c->lock);
    const bool quiet = c->reason.status == MQ_IO && c->count == 0 && c->is_open; /* D has closed it */
    pthread_mutex_unlock(&c->lock);
    if (!quiet) mq__handoff_log(c->h, "hand-off: %s: %s", c->from, c->reason.text);
}

void *mq__served_run(void *context)
{
    mq_served *c = context;
    double due;
    bool goes_on = true;
    while (goes_on) {
        while (mq__served_step(c, &due)) {}
        goes_on = wait_served(c, due);
    }
    log_end(c);
    mq__served_end(c);
    atomic_store(&c->is_over, true);
    return NULL;
}
