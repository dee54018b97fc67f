/* The decode side: KV on its way into blocks of this engine. */
#ifndef MQ_ARRIVAL_H
#define MQ_ARRIVAL_H

#include "engine/kv_image.h"
#include "handoff/handoff.h"
#include "handoff/pays.h"

typedef struct mq_client mq_client;

typedef enum mq_arriving_stage {
    MQ_STAGE_ASKED,
    MQ_STAGE_ACCEPTED,
    MQ_STAGE_BEGUN,
    MQ_STAGE_OVER /* arrived, failed, declined or ended by the scheduler: nothing more is taken */
} mq_arriving_stage;

/* When what happened, in seconds, for the peer's figures. 0: not yet. */
typedef struct mq_arriving_figures {
    double asked, began, computed, ended; /* PREFILL, BEGIN, the STATE that says that all is computed, COMMIT */
    uint32_t guess, ready;                /* tokens that the peer was thought to have, and had */
    uint64_t bytes, bytes_before;         /* of payloads; and of those that had come when all was computed */
    double link_rate;                     /* bytes a second, where the link was what it waited for; 0: it was not */
} mq_arriving_figures;

/* Two hold it: its connection, while it is in its table, and the scheduler until `end`. */
struct mq_kv_arrival {
    atomic_uint holders;
    mq_handoff *h;
    mq_client *client;     /* held */
    uint32_t first, count; /* KV of positions [first, count) is wanted */
    int32_t *tokens;       /* [count + 1] */
    uint64_t owner;
    char lease[MQ_FRAME_LEASE + 1];
    double expected, deadline;

    /* of the client, under its lock */
    uint64_t epoch;
    bool is_asked; /* PREFILL was sent */

    pthread_mutex_t lock; /* what follows */
    mq_arriving_stage stage;
    mq_arrival_state state;
    mq_frame_kind farewell; /* once it is over: DONE, CANCEL, or 0: P has ended it */
    bool is_declined;
    uint16_t *const *pages; /* of the sequence; NULL: the scheduler has ended it */
    uint16_t *const *window_pages;
    float *kv_state;         /* of the sequence; NULL: there is none */
    mq_kvimage image;        /* range and layers of BEGIN */
    uint8_t *precise;        /* bits of [first, count) */
    uint8_t *seen;           /* [blocks of the range and one for states, layers] */
    uint32_t *block_chunks;  /* [the same]: those that have come */
    uint32_t blocks, chunks; /* chunks: all that have come */
    uint32_t whole;
    double heard;
    mq_pays_facts pays;
    mq_arriving_figures figures;
    mq_error error;
};

/* The client is held from now on. The caller has two holds on the arrival: its own, and the table's. */
mq_status mq__arriving_new(mq_handoff *h, mq_client *client, const mq_kv_wanted *wanted, const mq_pays_facts *pays,
                           mq_kv_arrival **arrival, mq_error *error);
void mq__arriving_hold(mq_kv_arrival *a);
void mq__arriving_release(mq_kv_arrival *a);

/* Takes a frame of it. Not MQ_OK: it breaks a rule. *ended: it is over with this frame. */
mq_status mq__arriving_take(mq_kv_arrival *a, const mq_frame *frame, bool *ended, mq_error *error);
/* False: it was over already. */
bool mq__arriving_fail(mq_kv_arrival *a, const mq_error *error);
/* Fails it when it is late, or nothing was heard of it for `silence` seconds. */
/* True: it did. */
bool mq__arriving_watch(mq_kv_arrival *a, double now, double silence, mq_error *error);
/* Whether it is over, and what P is to be told then; 0: nothing. */
bool mq__arriving_is_over(mq_kv_arrival *a, mq_frame_kind *farewell);
/* Tokens that wait for the peer to begin. */
uint32_t mq__arriving_waits(mq_kv_arrival *a);

mq_arrival_state mq__arriving_state(mq_kv_arrival *a, mq_arrival_facts *facts);
/* By the scheduler: nothing is written to its blocks after the return. */
void mq__arriving_end(mq_kv_arrival *a);

#endif
