/* A prefill worker that does it right but for one message, which it spoils. */
#ifndef MQ_UNIT_LIAR_H
#define MQ_UNIT_LIAR_H

#include "unit_handoff.h"

#include "base/little_endian.h"

/* What becomes of the message. */
typedef enum deed {
    GOOD,
    DIES,         /* the link ends in its place */
    HANGS,        /* nothing more is said */
    DAMAGES_BODY, /* a bit of the body, or of the head where there is none */
    DAMAGES_HEAD,
    DAMAGES_KIND,
    SHORTENS,  /* a byte less than the head says */
    LENGTHENS, /* a byte more, all tags right */
    FLOODS,    /* more than the link takes */
    REPLAYS,   /* the same bytes twice */
    REPEATS,   /* the same again as a message of its own */
    SKIPS,     /* it is not sent, but counted */
    FORGETS,   /* it is not sent */
    FOREIGN,   /* of a hand-off that was never asked for */
    MISNAMES,  /* of no kind that there is */
    REVERSES,  /* of a kind that only the other side sends */
    RESERVED,  /* reserved bytes are not zero */
    FAILS,     /* FAIL in its place */
    DEEDS
} deed;

/* Seconds without a sign of life that count as silence where a test waits for it; a loaded machine is to be faster. */
#define SILENCE 1.5

/* Messages of a hand-off: ACCEPT, BEGIN, the chunks, COMMIT. */
#define AT_ACCEPT 0
#define AT_BEGIN  1
#define AT_KV     2

typedef struct talk talk;

typedef struct liar {
    mq_engine *engine;
    mq_fingerprint print;
    mq_auth_key key;
    mq_link_listener *listener;
    char name[64];
    deed
        greets; /* GOOD, DIES, HANGS; FAILS: refuses; FOREIGN: another fingerprint; REPLAYS: an answer to another greeting */

    pthread_mutex_t
        work; /* the engine. Not while sending: who is flooded stops reading, and others must not wait for that */
    pthread_mutex_t lock; /* what follows */
    deed deed;
    uint32_t at; /* the message that it does it to; what is beyond the last one is the last one */
    bool holds;  /* the next hand-off stays without chunks; they come with the one after it */
    mq_accept accept;
    uint32_t prefills, dones, cancels;
    talk *talks;
} liar;

/* A connection. */
struct talk {
    talk *next;
    liar *by;
    mq_link *link;
    mq_frame_way in, out;
    mq_hello own;
    uint64_t request, epoch, old_request, old_epoch;
    mq_sequence *sequence, *old;
    mq_kvimage image, old_image;
    uint32_t message;                    /* of the hand-off: the next one */
    bool is_silent, has_failed, is_over; /* has_failed: the hand-off */
};

/* ---- messages */

static inline void send_bytes(talk *t, const uint8_t *head, const void *body, size_t bytes)
{
    mq_error error = {0};
    (void)mq__link_send(t->link, head, body, bytes, 2, &error);
    (void)mq__link_flush(t->link, 2, &error);
}

static inline void send_right(talk *t, const mq_frame *frame)
{
    uint8_t head[MQ_LINK_HEAD];
    mq__frame_write(&t->out, frame, head);
    send_bytes(t, head, frame->body, frame->bytes);
}

static inline void tag_head(talk *t, uint8_t *head, const void *body, size_t bytes)
{
    mq__auth_tag(&t->out.key, head, body, bytes, head[4] == MQ_FRAME_KV && head[5] == 0, head + 40);
}

static inline void do_deed(talk *t, deed d, mq_frame frame)
{
    static _Thread_local uint8_t body[1 << 17];
    static const size_t flood = sizeof body;
    uint8_t head[MQ_LINK_HEAD];
    size_t bytes = frame.bytes;
    assert_true(bytes + 1 < sizeof body);
    if (bytes) memcpy(body, frame.body, bytes);
    frame.body = body;
    if (d == LENGTHENS) frame.bytes = ++bytes;
    if (d == FLOODS) frame.bytes = bytes = flood;
    if (d == FOREIGN) frame.epoch += 1000;
    if (d == REVERSES) frame.kind = MQ_FRAME_PREFILL;
    mq__frame_write(&t->out, &frame, head);
    if (d == DAMAGES_BODY && bytes) body[bytes / 2] ^= 4;
    if (d == DAMAGES_HEAD || (d == DAMAGES_BODY && !bytes)) head[60] ^= 1;
    if (d == DAMAGES_KIND) head[4] ^= 1;
    if (d == MISNAMES) head[4] = 99;
    if (d == RESERVED) head[110] = 1;
    if (d == MISNAMES || d == RESERVED) tag_head(t, head, body, bytes);
    if (d == SHORTENS) bytes = bytes ? bytes - 1 : 1;
    send_bytes(t, head, body, bytes);
    if (d == REPLAYS) send_bytes(t, head, body, bytes);
    if (d == REPEATS) send_right(t, &frame);
}

/* A message of a hand-off; `last`: there is none behind it. */
static inline void say(talk *t, mq_frame frame, bool last)
{
    liar *l = t->by;
    pthread_mutex_lock(&l->lock);
    const bool meant = l->at == t->message || (last && l->at > t->message);
    const deed d = meant ? l->deed : GOOD;
    pthread_mutex_unlock(&l->lock);
    t->message++;
    frame.request = t->request;
    frame.epoch = t->epoch;
    if (t->is_silent || t->has_failed) return;
    if (d == DIES) mq__link_stop(t->link);
    if (d == DIES || d == HANGS) t->is_silent = true;
    if (d == SKIPS) t->out.next++;
    if (t->is_silent || d == SKIPS || d == FORGETS) return;
    if (d == FAILS) {
        frame = mq__fail_frame(MQ_FAULT_FAILED, "it is a liar");
        frame.request = t->request;
        frame.epoch = t->epoch;
        t->has_failed = true;
    }
    if (d == GOOD || d == FAILS)
        send_right(t, &frame);
    else
        do_deed(t, d, frame);
}

/* ---- a hand-off */

static inline void forget(talk *t, mq_sequence **sequence)
{
    pthread_mutex_lock(&t->by->work);
    mq_sequence_free(*sequence);
    pthread_mutex_unlock(&t->by->work);
    *sequence = NULL;
}

static inline void say_chunks(talk *t, const mq_sequence *sequence, const mq_kvimage *image)
{
    const mq_kv_layout *layout = &t->by->engine->kv_layout;
    const uint32_t end = image->first + image->count;
    static _Thread_local uint8_t payload[1 << 16];
    assert_true(mq__kv_chunk_most(layout) <= sizeof payload);
    for (uint32_t at = image->first; at < end; at = (at / MQ_PAGE_TOKENS + 1) * MQ_PAGE_TOKENS) {
        for (uint32_t l = 0; l < layout->layers; l++) {
            const mq_kvchunk chunk = mq__kv_chunk_at(layout, l, at, end);
            if (!mq__kv_chunk_exists(layout, image, l, at)) continue;
            mq__kv_chunk_gather(layout, &chunk, sequence->pages[at / MQ_PAGE_TOKENS], payload);
            mq_frame frame = {.kind = MQ_FRAME_KV, .body = payload, .bytes = chunk.bytes};
            mq__kvchunk_write(&chunk, payload, frame.own);
            say(t, frame, false);
        }
    }
    for (uint32_t l = 0; l < layout->layers; l++) {
        const mq_kvchunk chunk = mq__kv_chunk_of_state(layout, l, end);
        if (!mq__kv_chunk_exists(layout, image, l, end)) continue;
        mq_frame frame = {
            .kind = MQ_FRAME_KV, .body = sequence->state + layout->layer[l].state_at, .bytes = chunk.bytes};
        mq__kvchunk_write(&chunk, frame.body, frame.own);
        say(t, frame, false);
    }
}

static inline void say_begin(talk *t, const int32_t *ids)
{
    mq_buf header = {0};
    static const uint8_t precise[128];
    assert_int_equal(mq__kvimage_write(&t->image, ids, precise, &header, NULL), MQ_OK);
    say(t, mq__begin_frame(t->image.first, &header), false);
    mq__buf_free(&header);
}

/* What should have come before comes now, of the hand-off before. */
static inline void say_old(talk *t)
{
    const uint64_t request = t->request, epoch = t->epoch;
    if (!t->old) return;
    t->request = t->old_request;
    t->epoch = t->old_epoch;
    t->message = 1000;
    say_chunks(t, t->old, &t->old_image);
    forget(t, &t->old);
    t->request = request;
    t->epoch = epoch;
    t->message = 0;
}

static inline void do_prefill(talk *t, const mq_frame *frame)
{
    liar *l = t->by;
    mq_prefill prefill;
    static _Thread_local int32_t ids[1024];
    assert_int_equal(mq__prefill_read(frame, &prefill, NULL), MQ_OK);
    for (uint32_t i = 0; i <= prefill.count; i++) {
        ids[i] = (int32_t)mq__get_u32(prefill.tokens + 4 * (size_t)i);
    }
    t->request = frame->request;
    t->epoch = frame->epoch;
    t->message = 0;
    t->has_failed = false;
    t->image = (mq_kvimage){.weights = l->print.weights,
                            .plan = l->print.plan,
                            .tokenizer = l->print.tokenizer,
                            .rope = l->print.rope,
                            .layout = l->print.layout,
                            .layers = l->engine->kv_layout.layers,
                            .first = prefill.first,
                            .count = prefill.count - prefill.first};
    pthread_mutex_lock(&l->work);
    assert_int_equal(mq_sequence_new(l->engine, &t->sequence, NULL), MQ_OK);
    mq_rows rows = {.sequence = t->sequence, .tokens = ids, .count = prefill.count, .phase = MQ_PHASE_PREFILL};
    assert_int_equal(mq_engine_step(l->engine, &rows, 1, NULL), MQ_OK);
    pthread_mutex_unlock(&l->work);
    pthread_mutex_lock(&l->lock);
    const bool holds = l->holds;
    const mq_accept accept = l->accept;
    l->holds = false;
    l->prefills++;
    pthread_mutex_unlock(&l->lock);
    say_old(t);
    say(t, mq__accept_frame(&accept), false);
    say_begin(t, ids);
    if (holds) {
        t->old = t->sequence;
        t->old_request = t->request;
        t->old_epoch = t->epoch;
        t->old_image = t->image;
        t->sequence = NULL;
        return;
    }
    say_chunks(t, t->sequence, &t->image);
    const uint64_t chunks = mq__kv_chunks(&l->engine->kv_layout, &t->image);
    say(t, mq__commit_frame(mq__tokens_digest(ids, prefill.count + 1), chunks), true);
    forget(t, &t->sequence);
}

/* ---- a connection */

static inline void do_greeting(talk *t, const mq_frame *frame)
{
    liar *l = t->by;
    mq_hello theirs;
    uint8_t body[MQ_HELLO_BODY];
    assert_int_equal(mq__hello_read(frame, &theirs, NULL), MQ_OK);
    if (l->greets == DIES) mq__link_stop(t->link);
    if (l->greets == DIES || l->greets == HANGS) return;
    t->own = (mq_hello){.version = MQ_PROTOCOL_VERSION, .role = 'P', .print = l->print};
    memcpy(t->own.answers, theirs.nonce, sizeof theirs.nonce);
    if (l->greets == REPLAYS) t->own.answers[0] ^= 1;
    if (l->greets == FOREIGN) t->own.print.tokenizer.bytes[3] ^= 1;
    if (l->greets == REVERSES) t->own.role = 'D';
    mq__auth_random(t->own.nonce, sizeof t->own.nonce);
    const mq_frame answer = l->greets == FAILS ? mq__refuse_frame("no room for liars") : mq__hello_frame(&t->own, body);
    send_right(t, &answer);
    mq__auth_key_derive(&l->key, 'D', theirs.nonce, t->own.nonce, &t->in.key);
    mq__auth_key_derive(&l->key, 'P', theirs.nonce, t->own.nonce, &t->out.key);
}

static inline bool hear_talk(void *context, const uint8_t *head, const void *body, size_t bytes)
{
    talk *t = context;
    liar *l = t->by;
    mq_frame frame;
    if (mq__frame_read(&t->in, head, body, bytes, &frame, NULL) != MQ_OK) return false;
    pthread_mutex_lock(&l->lock);
    l->dones += frame.kind == MQ_FRAME_DONE;
    l->cancels += frame.kind == MQ_FRAME_CANCEL;
    pthread_mutex_unlock(&l->lock);
    if (frame.kind == MQ_FRAME_HELLO) do_greeting(t, &frame);
    if (frame.kind != MQ_FRAME_PREFILL || t->is_silent) return true;
    do_prefill(t, &frame);
    return true;
}

static inline void end_talk(void *context, const mq_error *error)
{
    talk *t = context;
    (void)error;
    pthread_mutex_lock(&t->by->lock);
    t->is_over = true;
    pthread_mutex_unlock(&t->by->lock);
}

static inline void take_talk(void *context, mq_link *link, const char *from)
{
    liar *l = context;
    talk *t = calloc(1, sizeof *t);
    mq_error error = {0};
    (void)from;
    assert_non_null(t);
    t->by = l;
    t->link = link;
    t->in.key = t->out.key = l->key;
    pthread_mutex_lock(&l->lock);
    t->next = l->talks;
    l->talks = t;
    pthread_mutex_unlock(&l->lock);
    const mq_link_events events = {.arrived = hear_talk, .ended = end_talk, .context = t};
    if (mq__link_start(link, &events, 1 << 20, &error) != MQ_OK) fail_msg("%s", error.text);
}

/* ---- life */

static inline liar *start_liar(const char *dir)
{
    liar *l = calloc(1, sizeof *l);
    mq_error error = {0};
    assert_non_null(l);
    pthread_mutex_init(&l->lock, NULL);
    pthread_mutex_init(&l->work, NULL);
    l->engine = open_model(dir, 3, 128, MQ_LINEAR_NVFP4);
    assert_int_equal(mq__fingerprint(l->engine, l->engine->plan, &l->print, NULL), MQ_OK);
    if (mq__link_listen("tcp", "127.0.0.1", 0, take_talk, l, &l->listener, &error) != MQ_OK) fail_msg("%s", error.text);
    snprintf(l->name, sizeof l->name, "link://127.0.0.1:%u", mq__link_port(l->listener));
    return l;
}

static inline void set_deed(liar *l, deed d, uint32_t at)
{
    pthread_mutex_lock(&l->lock);
    l->deed = d;
    l->at = at;
    pthread_mutex_unlock(&l->lock);
}

static inline uint32_t liar_count(liar *l, const uint32_t *counter)
{
    pthread_mutex_lock(&l->lock);
    const uint32_t count = *counter;
    pthread_mutex_unlock(&l->lock);
    return count;
}

static inline void stop_liar(liar *l)
{
    mq__link_listener_close(l->listener);
    while (l->talks) {
        talk *t = l->talks;
        l->talks = t->next;
        mq__link_close(t->link);
        mq_sequence_free(t->sequence);
        mq_sequence_free(t->old);
        free(t);
    }
    mq_engine_close(l->engine);
    pthread_mutex_destroy(&l->lock);
    pthread_mutex_destroy(&l->work);
    free(l);
}

#endif
