/* Messages as protocol.h lays them out: heads to and from structs, tags, sequences. No network here. */
#ifndef MQ_FRAME_H
#define MQ_FRAME_H

#include "base/buf.h"
#include "handoff/auth.h"

/* One direction of a connection. */
typedef struct mq_frame_way {
    mq_auth_key key;
    uint64_t next; /* sequence */
} mq_frame_way;

typedef struct mq_frame {
    mq_frame_kind kind;
    uint64_t request, epoch;
    uint8_t own[MQ_FRAME_OWN];
    const void *body; /* borrowed */
    size_t bytes;
} mq_frame;

const char *mq__frame_name(mq_frame_kind kind);

/* Fills the head of the direction's next message. */
void mq__frame_write(mq_frame_way *way, const mq_frame *frame, uint8_t *head);
/* MQ_FORMAT: it is not the direction's next message. */
mq_status mq__frame_read(mq_frame_way *way, const uint8_t *head, const void *body, size_t bytes, mq_frame *frame,
                         mq_error *error);

/* ---- the kinds' own. Reading checks all that can be known from the message alone: MQ_FORMAT. */

#define MQ_HELLO_BODY (5 * sizeof(mq_digest) + MQ_PROTOCOL_NONCE)

typedef struct mq_hello {
    uint32_t version;
    char role; /* 'D' or 'P' */
    uint8_t instance[16], nonce[MQ_PROTOCOL_NONCE], answers[MQ_PROTOCOL_NONCE];
    mq_fingerprint print;
} mq_hello;

/* `body`: [MQ_HELLO_BODY], borrowed by the frame. */
mq_frame mq__hello_frame(const mq_hello *hello, uint8_t *body);
mq_status mq__hello_read(const mq_frame *frame, mq_hello *hello, mq_error *error);

typedef struct mq_prefill {
    uint32_t first, count, timeout_ms;
    uint64_t owner;
    const uint8_t *tokens; /* i32[count + 1], unaligned; borrowed from the body, as is the lease */
    const char *lease;
    uint32_t lease_bytes;
} mq_prefill;

/* Body of a PREFILL: owned by `out`. */
bool mq__prefill_body(const int32_t *tokens, uint32_t count, const char *lease, mq_buf *out);
mq_frame mq__prefill_frame(const mq_prefill *prefill, const mq_buf *body);
mq_status mq__prefill_read(const mq_frame *frame, mq_prefill *prefill, mq_error *error);

typedef struct mq_accept {
    uint32_t cached;
    uint64_t ahead; /* tokens that wait before it */
    double rate;    /* prompt tokens a second; 0: not measured */
} mq_accept;

mq_frame mq__accept_frame(const mq_accept *accept);
mq_status mq__accept_read(const mq_frame *frame, mq_accept *accept, mq_error *error);

mq_frame mq__begin_frame(uint32_t ready, const mq_buf *header);
mq_status mq__begin_read(const mq_frame *frame, uint32_t *ready, mq_error *error);

mq_frame mq__state_frame(uint32_t computed, uint64_t ahead);
mq_status mq__state_read(const mq_frame *frame, uint32_t *computed, uint64_t *ahead, mq_error *error);

mq_frame mq__commit_frame(mq_digest tokens, uint64_t chunks);
mq_status mq__commit_read(const mq_frame *frame, mq_digest *tokens, uint64_t *chunks, mq_error *error);

/* `text` is borrowed by the frame; what is beyond MQ_FRAME_TEXT bytes is left out. */
mq_frame mq__fail_frame(mq_handoff_fault fault, const char *text);
mq_status mq__fail_read(const mq_frame *frame, mq_handoff_fault *fault, char text[MQ_FRAME_TEXT + 1], mq_error *error);
mq_frame mq__refuse_frame(const char *text);
mq_status mq__refuse_read(const mq_frame *frame, char text[MQ_FRAME_TEXT + 1], mq_error *error);

/* DONE and CANCEL: neither numbers nor a body. */
mq_status mq__empty_read(const mq_frame *frame, mq_error *error);

/* Digest of token ids as COMMIT has it. */
mq_digest mq__tokens_digest(const int32_t *tokens, uint32_t count);

#endif
