/* The parts of Anthropic's Messages API. api_messages.c reads the body, messages_blocks.c its blocks; messages_events.c writes streams,
 * messages_answer.c what streams and whole answers share. */
#ifndef MQ_API_MESSAGES_H
#define MQ_API_MESSAGES_H

#include "server/answering.h"

/* What the writers need of a request: mq_ask.extra. */
typedef struct mq_messages_extra {
    bool omits_thinking; /* thinking.display "omitted": the signature carries it */
    bool diagnoses;      /* diagnostics.previous_message_id was sent */
    bool warms;          /* max_tokens 0: only the prompt is read */
} mq_messages_extra;

/* Body to ask. Also for count_tokens, which has no max_tokens. */
bool mq__messages_read(mq_server *server, const mq_exchange *x, const json_t *body, mq_ask *ask, mq_fault *fault);
void mq__messages_free_extra(void *extra);
/* Appends the body's `system` and `messages` to the ask. */
bool mq__blocks_read(mq_server *server, const json_t *body, mq_ask *ask, mq_fault *fault);

extern const mq_api mq__messages_api;

/* ---- answers; all new references */

const mq_messages_extra *mq__messages_extra_of(const mq_call *call);
json_t *mq__messages_id(const mq_call *call);                                /* "msg_..." */
json_t *mq__messages_tool_id(const mq_answered_call *called);                /* "toolu_..." */
json_t *mq__messages_signature(const mq_call *call, size_t from, size_t to); /* of reasoning[from, to) */
/* input_tokens are those that were not in the cache, cache_read_input_tokens those that were: all of the prompt is the sum of both, since
 * cache_creation_input_tokens is 0 (what is read always goes to the cache, at no price of its own). */
json_t *mq__messages_usage(const mq_call *call);
json_t *mq__messages_stop_reason(const mq_call *call);
json_t *mq__messages_stop_sequence(const mq_call *call); /* or null */
json_t *mq__messages_diagnostics(const mq_call *call);   /* NULL: not asked for */
json_t *mq__messages_error(const mq_fault *fault);
json_t *mq__messages_whole(mq_call *call);

/* ---- a stream */

typedef enum mq_block_kind { MQ_BLOCK_NONE, MQ_BLOCK_THINKING, MQ_BLOCK_TEXT, MQ_BLOCK_TOOL } mq_block_kind;

typedef struct mq_messages_state {
    mq_block_kind open; /* the block that is open, and its index; NONE: the next one's */
    uint32_t index;
    size_t thought, said; /* bytes of reasoning that closed blocks have; of text that was sent */
    double told;
    unsigned pings; /* since the last event that clients count */
} mq_messages_state;

void mq__messages_begin(mq_call *call);
void mq__messages_progress(mq_call *call, const mq_report *report);
void mq__messages_part(mq_call *call, uint32_t choice, const mq_part *part);
void mq__messages_alive(mq_call *call, double idle);
void mq__messages_end(mq_call *call);
void mq__messages_fail(mq_call *call, const mq_fault *fault);

#endif
