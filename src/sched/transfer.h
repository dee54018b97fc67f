/* KV that goes to another engine while it is computed here, and KV that comes from one instead of being computed here. The scheduler
 * knows no network: src/handoff implements both. All calls come from the scheduler's thread and must not block. */
#ifndef MQ_TRANSFER_H
#define MQ_TRANSFER_H

#include "mixquant_serve.h"

/* ---- out: where the KV of a request's prompt goes (mq_request.sink) */

/* The request is admitted: `sequence` has KV of its first `ready` tokens in all layers. From now until mq_job_free its blocks stay where
 * they are, and what `stored` said is there may be read by any thread. A sink's request is never preempted. Nothing is called after mq_job_free. */
struct mq_kv_sink {
    void (*begin)(void *context, const mq_sequence *sequence, uint32_t ready);
    /* The layer has KV of the first `count` tokens, or (recurrent) its part of `state` is the one behind them. Layers of a pass come in
     * order, as soon as each is computed. The state behind the prompt's last token but one stays where it is, as blocks do. */
    void (*stored)(void *context, uint32_t layer, uint32_t count, const float *state);
    void *context;
};

/* ---- in: who may prefill a prompt in place of this engine (mq_scheduler_options.source) */

typedef struct mq_kv_arrival mq_kv_arrival; /* KV that is on its way; the source's */

/* KV of positions [first, count) is wanted, and the recurrent state behind them; all of it is valid until `end`. */
typedef struct mq_kv_wanted {
    const int32_t *tokens;         /* [count + 1]: the prompt. Its last token is never among those wanted. */
    uint32_t first, count;         /* first: a multiple of 64 */
    uint16_t *const *pages;        /* [blocks of `count` tokens] each one's data (kv/kv_blocks.h), to be written to */
    uint16_t *const *window_pages; /* the same of layers with a window; NULL where they are not wanted (mq__kv_bare) */
    float *state;                  /* to be written to; NULL: the model has none */
    uint64_t owner;
    const char *peer;  /* NULL, or who shall do it: as the request named it */
    const char *lease; /* NULL, or what that peer calls the prompt that it has read already */
    uint32_t attempt;  /* 0, or how often it failed already */
    uint32_t answers;  /* that run here beside it */
} mq_kv_wanted;

/* ARRIVED: all of it is there, the state as well. */
typedef enum mq_arrival_state { MQ_ARRIVING, MQ_ARRIVED, MQ_ARRIVAL_FAILED } mq_arrival_state;

typedef struct mq_arrival_facts {
    uint32_t whole;         /* KV of positions [first, whole) is there in all layers, and right */
    const uint8_t *precise; /* bits of [first, count): which of them the decode plan computed */
    bool declined;          /* of FAILED: on second thoughts this engine shall do it; that is no failure */
    mq_error error;         /* of a failure */
} mq_arrival_facts;

struct mq_kv_source {
    /* NULL: this engine shall do it. *refused: it would have been handed off, but nobody takes it (error says why). */
    mq_kv_arrival *(*begin)(void *self, const mq_kv_wanted *wanted, bool *refused, mq_error *error);
    mq_arrival_state (*state)(void *self, mq_kv_arrival *arrival, mq_arrival_facts *facts);
    /* Nothing is written to the blocks after the return. */
    void (*end)(void *self, mq_kv_arrival *arrival);
    bool fails; /* a failed transfer fails the request; else this engine goes on from what has come */
    void *self;
};

/* From any thread: the state of an arrival has changed. */
void mq__scheduler_wake(mq_scheduler *scheduler);
/* From any thread: whether running requests have waited, since the last call, for blocks of those that are held (mq_request.hold). */
bool mq__scheduler_lacked_room(mq_scheduler *scheduler);

#endif
