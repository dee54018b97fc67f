/* What came and was not taken yet: messages one after the other in a ring, each in one piece, so that `arrived` gets it where it lies.
 *
 * A message is a record: its head and its body. The sender says where it lies: behind the record before, at a multiple of MQ_UCX_GRAIN,
 * not across the ring's end. Positions count on, beyond the size; a sender has room while its last record ends within `size` of what the
 * receiver has freed. */
#ifndef MQ_LINK_UCX_INBOX_H
#define MQ_LINK_UCX_INBOX_H

#include "link/link.h"

#define MQ_UCX_GRAIN  128u         /* a record's head, and what records are aligned to */
#define MQ_UCX_SHARES 4u           /* records of the greatest size that fit a ring */
#define MQ_UCX_LEAST  (4ull << 20) /* bytes of a ring */
#ifndef MQ_UCX_WARM
#define MQ_UCX_WARM (1ull << 20) /* of them that are used where that suffices: they stay in a cache */
#endif
#define MQ_UCX_FREED (MQ_UCX_WARM / 2) /* is told when it is so many bytes; at most a share of a ring */

typedef struct mq_ucx_record {
    uint64_t bytes;   /* of the body, which follows; MQ_UCX_SKIP: the next record is elsewhere, `missing` bytes on */
    uint64_t missing; /* of them */
    uint8_t head[MQ_LINK_HEAD];
} mq_ucx_record;

#define MQ_UCX_SKIP UINT64_MAX

_Static_assert(sizeof(mq_ucx_record) == MQ_UCX_GRAIN, "a record's head is a grain");

typedef struct mq_ucx_inbox {
    uint8_t *ring; /* NULL: nothing may come yet */
    uint64_t size;
    size_t most;
    uint64_t placed; /* where the last record ends */
    uint64_t ready;  /* records before it are whole */
    uint64_t number; /* of the record that comes next, or is coming */
    uint64_t coming; /* position of the record whose parts come; placed when there is none */
    uint64_t begun;  /* bytes of it for which a part has come, or is under way */
} mq_ucx_inbox;

uint64_t mq__ucx_record_bytes(uint64_t body);

/* What a sender knows of its peer's inbox. */
typedef struct mq_ucx_outbox {
    uint64_t size, most; /* 0: nothing may be sent yet; most bytes of a body */
    uint64_t freed, placed;
} mq_ucx_outbox;

/* Where the next record goes; false: there is no room yet. */
bool mq__ucx_outbox_place(mq_ucx_outbox *outbox, uint64_t body, uint64_t *position);

bool mq__ucx_inbox_open(mq_ucx_inbox *inbox, size_t most); /* false: no memory */
void mq__ucx_inbox_close(mq_ucx_inbox *inbox);

typedef struct mq_ucx_part {
    uint64_t number, body, position; /* of the message: its number, bytes of its body, where it lies */
    uint64_t offset;                 /* of this part in the body */
    const uint8_t *head;             /* [MQ_LINK_HEAD] */
    size_t bytes;                    /* of this part */
} mq_ucx_part;

/* Where the part's bytes go, and its record; NULL: the part is not the one that must come, and *error says how. freed: what the sender knows. */
uint8_t *mq__ucx_inbox_place(mq_ucx_inbox *inbox, const mq_ucx_part *part, uint64_t freed, mq_ucx_record **record,
                             mq_error *error);
/* So many bytes of it are there. */
void mq__ucx_inbox_fill(mq_ucx_inbox *inbox, mq_ucx_record *record, size_t bytes);
/* The record at *position, which lies before `ready`; moves it behind a skip. */
mq_ucx_record *mq__ucx_inbox_at(const mq_ucx_inbox *inbox, uint64_t *position);

#endif
