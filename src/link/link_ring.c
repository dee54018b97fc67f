#include "link/link_ring.h"

#include "base/pool.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

/* What is moved at once: the other end works on the last piece meanwhile. */
#define PIECE (128u << 10)

_Static_assert(2 * sizeof(mq_ring) <= 4096, "both heads lie in the first page");

void mq__ring_open(mq_ring_end *end, void *memory, int way, int bell, int far_bell)
{
    uint8_t *data = (uint8_t *)memory + 4096 + (size_t)way * MQ_RING_BYTES;
    *end = (mq_ring_end){.ring = (mq_ring *)memory + way, .data = data, .bell = bell, .far_bell = far_bell};
}

/* After a move: `wants` is read after it was published, and the sleeper looks again after it has published `wants`; so one of them
 * sees the other. Who clears it rings. */
static void ring_bell(const mq_ring_end *end, _Atomic uint64_t *wants, uint64_t possible)
{
    const uint64_t wanted = atomic_load(wants);
    if (wanted == 0 || possible < wanted || atomic_exchange(wants, 0) == 0) return;
    (void)send(end->far_bell, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT); /* full of bytes, it rings anyway */
}

/* Bytes that may be read, or room; -1: the other end's place is impossible. */
static int64_t bytes_there(const mq_ring_end *reader)
{
    const uint64_t there = atomic_load(&reader->ring->written) - reader->own;
    return there <= MQ_RING_BYTES ? (int64_t)there : -1;
}

static int64_t room_there(const mq_ring_end *writer)
{
    const uint64_t used = writer->own - atomic_load(&writer->ring->taken);
    return used <= MQ_RING_BYTES ? (int64_t)(MQ_RING_BYTES - used) : -1;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

int64_t mq__ring_put(mq_ring_end *writer, const void *from, size_t bytes)
{
    size_t moved = 0;
    while (moved < bytes) {
        const int64_t room = room_there(writer);
        if (room <= 0) return room < 0 ? -1 : (int64_t)moved;
        const size_t at = writer->own % MQ_RING_BYTES;
        const size_t count = least(least((size_t)room, bytes - moved), least(PIECE, MQ_RING_BYTES - at));
        memcpy(writer->data + at, (const uint8_t *)from + moved, count);
        moved += count;
        writer->own += count;
        atomic_store(&writer->ring->written, writer->own);
        ring_bell(writer, &writer->ring->reader_wants, MQ_RING_BYTES - (uint64_t)room + count);
    }
    return (int64_t)moved;
}

int64_t mq__ring_take(mq_ring_end *reader, void *to, size_t bytes)
{
    size_t moved = 0;
    while (moved < bytes) {
        const int64_t there = bytes_there(reader);
        if (there <= 0) return there < 0 ? -1 : (int64_t)moved;
        const size_t at = reader->own % MQ_RING_BYTES;
        const size_t count = least(least((size_t)there, bytes - moved), least(PIECE, MQ_RING_BYTES - at));
        memcpy((uint8_t *)to + moved, reader->data + at, count);
        moved += count;
        reader->own += count;
        atomic_store(&reader->ring->taken, reader->own);
        ring_bell(reader, &reader->ring->writer_wants, MQ_RING_BYTES - (uint64_t)there + count);
    }
    return (int64_t)moved;
}

/* One sleep. False: the time is over. */
static bool sleep_at_bell(mq_ring_end *end, double deadline)
{
    char scrap[64];
    struct pollfd one = {.fd = end->bell, .events = POLLIN};
    const double left = fmin(fmax(deadline - mq__seconds(), 0), 1e6);
    const int ready = poll(&one, 1, (int)ceil(left * 1e3));
    if (ready == 0) return false;
    const ssize_t count = ready > 0 ? recv(end->bell, scrap, sizeof scrap, MSG_DONTWAIT) : -1;
    end->is_alone = count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR);
    return true;
}

static bool wait_for(mq_ring_end *end, int64_t (*possible)(const mq_ring_end *), _Atomic uint64_t *wants, size_t bytes,
                     double deadline)
{
    bool in_time = true;
    atomic_store(wants, bytes);
    int64_t now = possible(end);
    while (now >= 0 && now < (int64_t)bytes && in_time && !end->is_alone) {
        in_time = sleep_at_bell(end, deadline);
        atomic_store(wants, bytes);
        now = possible(end);
    }
    atomic_store(wants, 0);
    return in_time;
}

bool mq__ring_wait_room(mq_ring_end *writer, size_t bytes, double deadline)
{
    return wait_for(writer, room_there, &writer->ring->writer_wants, least(bytes, MQ_RING_BYTES / 4), deadline);
}

bool mq__ring_wait_bytes(mq_ring_end *reader, size_t bytes, double deadline)
{
    return wait_for(reader, bytes_there, &reader->ring->reader_wants, least(bytes, MQ_RING_BYTES / 4), deadline);
}
