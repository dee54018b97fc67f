/* The prefill side: connections of decode workers, and hand-offs on their way out. */
#ifndef MQ_SERVE_H
#define MQ_SERVE_H

#include "engine/kv_image.h"
#include "handoff/handoff.h"

#define MQ_SERVED_FROM 64 /* bytes of a peer's address as text */

typedef struct mq_served mq_served;

/* A hand-off on its way out. The scheduler says what there is (its sink), the connection's own thread sends it from the blocks. */
typedef struct mq_sender {
    struct mq_sender *next; /* of its connection */
    mq_served *served;
    uint64_t request, epoch;
    uint32_t first, count; /* KV of positions [first, count) is wanted */
    int32_t *tokens;       /* [count + 1] */
    struct mq_kv_sink sink;
    mq_job *job; /* NULL: it was refused */
    mq_accept accept;
    double deadline;
    uint8_t *tail; /* payloads of the last block's chunks, if it is cut: [layers] */
    mq_buf header; /* body of BEGIN, which the link borrows, as it does the tail */

    /* Under the connection's lock, up to the blank line. */
    uint16_t *const *pages; /* NULL: not admitted yet; else data of the blocks */
    uint16_t *const *window_pages;
    uint32_t ready;          /* tokens that were there at that time */
    uint8_t *precise;        /* bits of [first, count) */
    const float *state;      /* behind all of them; NULL: not computed yet, or there is none */
    uint32_t *stored, *sent; /* [layers]: positions that are there, and that are sent; a state as position `count` */
    bool is_left;            /* D wants nothing more: DONE or CANCEL */
    mq_handoff_fault fault;  /* 0, or why it fails; `text` says so */
    char text[MQ_FRAME_TEXT + 1];

    bool accepted, begun, computed, committed, failed; /* what was said */
    double state_due;
    uint64_t chunks, bytes;
} mq_sender;

/* A connection of a decode worker. The link's thread takes what comes (mq__served_arrived), its own sends. */
struct mq_served {
    mq_served *next; /* of the side */
    mq_handoff *h;
    char from[MQ_SERVED_FROM];
    mq_wire wire;
    mq_hello own;   /* its greeting */
    uint64_t epoch; /* of the link's thread: the latest that was given */
    pthread_t thread;
    atomic_bool is_over; /* the thread is about to return */

    pthread_mutex_t lock; /* what follows */
    pthread_cond_t changed;
    uint64_t news, seen; /* signals so far, and when the thread last looked */
    bool is_greeted;     /* by D, well */
    bool is_open;        /* greeted by P, too */
    bool is_broken;      /* nothing is sent any more */
    bool is_refused;     /* but for a refusal */
    mq_hello theirs;
    mq_error reason;
    mq_sender *first, **end;
    uint32_t count;
    double since; /* of the connection, or when its last hand-off ended */
};

/* ---- sender.c */

mq_sender *mq__sender_new(mq_served *c, const mq_frame *frame, const mq_prefill *prefill);
void mq__sender_free(mq_sender *s);
/* Asks the scheduler for it, or takes a lease. What fails becomes its fault. */
void mq__sender_submit(mq_sender *s, const mq_prefill *prefill);
/* Under the connection's lock: whether it is to go; the next message but for chunks; the next chunk, which counts as sent from now on.
 * *due: when to ask again. */
bool mq__sender_is_over(const mq_sender *s, double now);
bool mq__sender_speaks(mq_sender *s, double now, mq_frame *frame, double *due);
bool mq__sender_chunk(mq_sender *s, mq_kvchunk *chunk);
/* Without the lock: the frame of such a chunk. */
mq_frame mq__sender_chunk_frame(mq_sender *s, const mq_kvchunk *chunk);

/* ---- served.c */

mq_status mq__served_new(mq_handoff *h, const char *from, mq_served **served, mq_error *error);
void mq__served_free(mq_served *c);
/* A message came. False: the connection ends. */
bool mq__served_arrived(void *context, const uint8_t *head, const void *body, size_t bytes);
void mq__served_ended(void *context, const mq_error *error);
/* Under its lock: its thread looks again. */
void mq__served_news(mq_served *c);
/* Sends a message, or lets a hand-off go. False: there is nothing to do before *due. */
bool mq__served_step(mq_served *c, double *due);
/* From any thread: it is to end. */
void mq__served_stop(mq_served *c);
/* By its thread: ends the link and lets all hand-offs go. */
void mq__served_end(mq_served *c);
void *mq__served_run(void *context); /* its thread */

/* ---- serve.c */

mq_status mq__server_side_new(mq_handoff *h, mq_error *error);
mq_status mq__server_side_listen(mq_handoff *h, mq_error *error);
uint16_t mq__server_side_port(const mq_handoff *h);
/* As the listener calls it: takes the link. */
void mq__server_side_accept(void *context, mq_link *link, const char *from);
void mq__server_side_watch(mq_handoff *h);
void mq__server_side_stop(mq_handoff *h);
void mq__server_side_free(mq_handoff *h);

#endif
