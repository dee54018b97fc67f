#include "link/link_ucx_inbox.h"

#include "base/error.h"
#include "base/mem.h"

#include <string.h>

uint64_t mq__ucx_record_bytes(uint64_t body)
{
    return (body + MQ_UCX_GRAIN + MQ_UCX_GRAIN - 1) / MQ_UCX_GRAIN * MQ_UCX_GRAIN;
}

static bool has_room(const mq_ucx_outbox *o, uint64_t at, uint64_t record)
{
    return at + record - o->freed <= o->size;
}

bool mq__ucx_outbox_place(mq_ucx_outbox *outbox, uint64_t body, uint64_t *position)
{
    const uint64_t record = mq__ucx_record_bytes(body), offset = outbox->placed % outbox->size;
    const uint64_t next = outbox->placed + (outbox->size - offset); /* the ring's beginning */
    const bool fits = record <= outbox->size - offset;
    *position = fits ? outbox->placed : next;
    if (fits && offset >= MQ_UCX_WARM && has_room(outbox, next, record)) *position = next;
    if (!has_room(outbox, *position, record)) return false;
    outbox->placed = *position + record;
    return true;
}

bool mq__ucx_inbox_open(mq_ucx_inbox *inbox, size_t most)
{
    if (most > SIZE_MAX / MQ_UCX_SHARES / 2) return false;
    const uint64_t size = MQ_UCX_SHARES * mq__ucx_record_bytes(most);
    *inbox = (mq_ucx_inbox){.size = size > MQ_UCX_LEAST ? size : MQ_UCX_LEAST, .most = most};
    inbox->ring = mq__alloc_aligned(inbox->size);
    return inbox->ring != NULL;
}

void mq__ucx_inbox_close(mq_ucx_inbox *inbox)
{
    mq__free_aligned(inbox->ring);
    inbox->ring = NULL;
}

static mq_ucx_record *record_at(const mq_ucx_inbox *inbox, uint64_t position)
{
    return (mq_ucx_record *)(void *)(inbox->ring + position % inbox->size);
}

static bool begin_record(mq_ucx_inbox *inbox, const mq_ucx_part *part, uint64_t freed)
{
    const uint64_t record = mq__ucx_record_bytes(part->body), at = part->position, size = inbox->size;
    if (at < inbox->placed || at % MQ_UCX_GRAIN != 0 || at - freed > size - record || record > size - at % size) {
        return false;
    }
    if (at != inbox->placed) {
        *record_at(inbox, inbox->placed) = (mq_ucx_record){.bytes = MQ_UCX_SKIP, .missing = at - inbox->placed};
    }
    mq_ucx_record *r = record_at(inbox, at);
    r->bytes = r->missing = part->body;
    memcpy(r->head, part->head, MQ_LINK_HEAD);
    inbox->coming = at;
    inbox->placed = at + record;
    return true;
}

uint8_t *mq__ucx_inbox_place(mq_ucx_inbox *inbox, const mq_ucx_part *part, uint64_t freed, mq_ucx_record **record,
                             mq_error *error)
{
    const uint64_t begun = inbox->begun;
    const bool is_next = part->number == inbox->number && part->offset == begun && part->bytes <= part->body - begun &&
                         (begun == 0 || record_at(inbox, inbox->coming)->bytes == part->body) &&
                         (part->bytes > 0 || part->body == 0);
    if (!inbox->ring || !is_next) {
        (void)mq__fail(error, MQ_FORMAT, "expected byte %llu of message %llu, got byte %llu of message %llu",
                       (unsigned long long)begun, (unsigned long long)inbox->number, (unsigned long long)part->offset,
                       (unsigned long long)part->number);
        return NULL;
    }
    if (begun == 0 && !begin_record(inbox, part, freed)) {
        (void)mq__fail(error, MQ_FORMAT, "expected a message that there is room for, got one of %llu bytes",
                       (unsigned long long)part->body);
        return NULL;
    }
    *record = record_at(inbox, inbox->coming);
    inbox->begun += part->bytes;
    if (inbox->begun == part->body) {
        inbox->begun = 0;
        inbox->number++;
    }
    return (uint8_t *)(*record + 1) + begun;
}

void mq__ucx_inbox_fill(mq_ucx_inbox *inbox, mq_ucx_record *record, size_t bytes)
{
    record->missing -= bytes;
    while (inbox->ready != inbox->placed) {
        uint64_t at = inbox->ready;
        const mq_ucx_record *first = mq__ucx_inbox_at(inbox, &at);
        if (first->missing > 0) return;
        inbox->ready = at + mq__ucx_record_bytes(first->bytes);
    }
}

mq_ucx_record *mq__ucx_inbox_at(const mq_ucx_inbox *inbox, uint64_t *position)
{
    mq_ucx_record *r = record_at(inbox, *position);
    if (r->bytes == MQ_UCX_SKIP) {
        *position += r->missing;
        r = record_at(inbox, *position);
    }
    return r;
}
