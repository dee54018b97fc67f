/* What comes over a link over UCX, as untrusted as anything from outside: notes and parts of messages. */
#include "base/error.h"
#include "base/little_endian.h"
#include "base/pool.h"
#include "link/link_ucx_impl.h"

#include <stdio.h>

#define SIZE_LIMIT (1ull << 48) /* of a peer's ring: positions do not wrap around */

static void take_room(mq_ucx_link *u, uint64_t freed, uint64_t size, uint64_t most)
{
    mq_ucx_outbox *o = &u->work.outbox;
    const bool is_same = o->size == 0 || (size == o->size && most == o->most);
    if (!is_same || size < MQ_UCX_LEAST || size > SIZE_LIMIT || size % MQ_UCX_GRAIN != 0 ||
        most > size / MQ_UCX_SHARES - MQ_UCX_GRAIN || freed < o->freed || freed > o->placed) {
        mq__ucx_fail(u, MQ_FORMAT, "expected room for messages, got impossible numbers");
        return;
    }
    o->size = size;
    o->most = most;
    o->freed = freed;
    u->work.moves++;
}

static void take_note(mq_ucx_link *u, mq_ucx_note note, const uint8_t *header)
{
    mq_ucx_worker *w = &u->work;
    w->came[note] = true;
    if (note == MQ_UCX_READY) w->wanted[MQ_UCX_SEEN] = true;
    if (note == MQ_UCX_BYE) w->wanted[MQ_UCX_BYE_SEEN] = true;
    if (note == MQ_UCX_ROOM) {
        take_room(u, mq__get_u64(header + 16), mq__get_u64(header + 24), mq__get_u64(header + 32));
    }
}

static uint8_t *take_ucx_part(mq_ucx_link *u, const uint8_t *header, size_t bytes, mq_ucx_record **record)
{
    mq_ucx_worker *w = &u->work;
    const mq_ucx_part part = {.number = mq__get_u64(header + 16),
                              .body = mq__get_u64(header + 24),
                              .position = mq__get_u64(header + 32),
                              .offset = mq__get_u64(header + 40),
                              .head = header + MQ_UCX_BARE,
                              .bytes = bytes};
    mq_error error;
    char text[128];
    uint8_t *to = NULL;
    if (w->inbox.ring && part.body > w->inbox.most) {
        snprintf(text, sizeof text, "expected a body of at most %zu bytes, got %llu", w->inbox.most,
                 (unsigned long long)part.body);
        mq__ucx_fail(u, MQ_FORMAT, text);
    } else {
        to = mq__ucx_inbox_place(&w->inbox, &part, w->granted, record, &error);
        if (!to) mq__ucx_fail(u, MQ_FORMAT, error.text);
    }
    w->stirred = mq__seconds();
    return to;
}

uint8_t *mq__ucx_take(mq_ucx_link *u, const uint8_t *header, size_t header_bytes, size_t bytes, mq_ucx_record **record)
{
    mq_ucx_worker *w = &u->work;
    const bool is_part = header_bytes == MQ_UCX_HEADER;
    const bool is_ours = (is_part || header_bytes == MQ_UCX_BARE) && mq__get_u64(header) == w->token;
    const uint32_t kind = is_ours ? mq__get_u32(header + 8) : UINT32_MAX;
    if (w->failure.status != MQ_OK) return NULL; /* the link ends */
    if (is_part && kind == MQ_UCX_A_PART && bytes <= MQ_UCX_PART) return take_ucx_part(u, header, bytes, record);
    if (!is_part && kind < MQ_UCX_NOTES && bytes == 0) {
        take_note(u, (mq_ucx_note)kind, header);
    } else {
        mq__ucx_fail(u, MQ_FORMAT, "expected a message of a ucx link, got another");
    }
    return NULL;
}

void mq__ucx_fill(mq_ucx_link *u, mq_ucx_record *record, size_t bytes)
{
    mq__ucx_inbox_fill(&u->work.inbox, record, bytes);
    u->work.stirred = mq__seconds();
}
