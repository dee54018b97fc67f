/* Bytes through memory that two ends share, a ring each way. The other end may be hostile: what it says of its place in a ring is
 * checked, and nothing is read twice.
 *
 * An end that has nothing to do says what it waits for and sleeps at a socket, its bell; who moves so much rings it with a byte. The end
 * of the bell is the death of the other end. */
#ifndef MQ_LINK_RING_H
#define MQ_LINK_RING_H

#include "mixquant.h"

#include <stdatomic.h>

#define MQ_RING_BYTES  (8u << 20) /* of each way; a power of two */
#define MQ_RING_MEMORY (4096 + 2 * (size_t)MQ_RING_BYTES)

/* Of one way, at the start of the memory; each in a cache line of its own. Bytes are counted from the beginning. */
typedef struct mq_ring {
    _Alignas(64) _Atomic uint64_t written;
    _Alignas(64) _Atomic uint64_t taken;
    _Alignas(64) _Atomic uint64_t reader_wants; /* 0, or how many bytes it sleeps for */
    _Alignas(64) _Atomic uint64_t writer_wants; /* 0, or for how much room */
} mq_ring;

/* One end's view of one way: the reader's or the writer's. */
typedef struct mq_ring_end {
    mq_ring *ring;
    uint8_t *data;
    uint64_t own;  /* `written` or `taken`, whose ever it is; the one in the ring is for the other end */
    int bell;      /* this end sleeps there */
    int far_bell;  /* a socket to where the other end sleeps */
    bool is_alone; /* the other end is gone */
} mq_ring_end;

/* The memory's rings: way 0 or 1. Its pages are zero at first. */
void mq__ring_open(mq_ring_end *end, void *memory, int way, int bell, int far_bell);

/* Moves what is possible now, at most `bytes`. -1: the other end's place is impossible. */
int64_t mq__ring_put(mq_ring_end *writer, const void *from, size_t bytes);
int64_t mq__ring_take(mq_ring_end *reader, void *to, size_t bytes);

/* Sleeps until so much is probably possible, the other end is gone (is_alone), or the time is over: false. */
bool mq__ring_wait_room(mq_ring_end *writer, size_t bytes, double deadline);
bool mq__ring_wait_bytes(mq_ring_end *reader, size_t bytes, double deadline);

#endif
