/* What came and was not taken yet: messages one after the other in a ring, each in one piece, so that `arrived` gets it where it lies.
 *
 * Sender and receiver agree on where a message lies without a word: a record is its head and its body, begins at a multiple of
 * MQ_UCX_GRAIN after the one before, and at the ring's beginning where the rest of the ring is too short. Positions count on,
 * beyond the size. A sender has room while its last record ends within `size` of what the receiver has freed. */
#ifndef MQ_LINK_UCX_INBOX_H
#define MQ_LINK_UCX_INBOX_H

#include "link/link.h"

#define MQ_UCX_GRAIN  128u         /* a record's head, and what records are aligned to */
#define MQ_UCX_SHARES 4u           /* records of the greatest size that fit a ring */
#define MQ_UCX_LEAST  (4ull << 20) /* bytes of a ring */

typedef struct mq_ucx_record {
    uint64_t bytes;   /* of the body, which follows; MQ_UCX_SKIP: the next record is at the ring's beginning */
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
/* Where a record of so many bytes begins, the one before having ended at `placed`. */
uint64_t mq__ucx_record_place(uint64_t placed, uint64_t record, uint64_t size);

bool mq__ucx_inbox_open(mq_ucx_inbox *inbox, size_t most); /* false: no memory */
void mq__ucx_inbox_close(mq_ucx_inbox *inbox);

typedef struct mq_ucx_part {
    uint64_t number, body, offset; /* of the message; bytes of its body; where this part lies in it */
    const uint8_t *head;           /* [MQ_LINK_HEAD] */
    size_t bytes;                  /* of this part */
} mq_ucx_part;

/* Where the part's bytes go, and its record; NULL: the part is not the one that must come, and *error says how. freed: what was taken. */
uint8_t *mq__ucx_inbox_place(mq_ucx_inbox *inbox, const mq_ucx_part *part, uint64_t freed, mq_ucx_record **record,
                             mq_error *error);
/* So many bytes of it are there. */
void mq__ucx_inbox_fill(mq_ucx_inbox *inbox, mq_ucx_record *record, size_t bytes);
/* The record at *position, which lies before `ready`; moves it behind a skip. */
mq_ucx_record *mq__ucx_inbox_at(const mq_ucx_inbox *inbox, uint64_t *position);

#endif
