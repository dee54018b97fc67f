#include "handoff/frame.h"

#include "base/error.h"
#include "base/little_endian.h"

#include <string.h>

/* Offsets of the head. */
enum { KIND = 4, ZERO = 6, REQUEST = 8, EPOCH = 16, SEQUENCE = 24, BYTES = 32, TAG = 40, OWN = 56, REST = 104 };

static const uint8_t frame_magic[4] = {'M', 'Q', 'H', '1'};

static const char *const frame_names[MQ_FRAME_KINDS] = {"no kind", "HELLO", "REFUSE", "PREFILL", "ACCEPT", "BEGIN",
                                                        "KV",      "STATE", "COMMIT", "FAIL",    "DONE",   "CANCEL"};

const char *mq__frame_name(mq_frame_kind kind)
{
    return kind > 0 && kind < MQ_FRAME_KINDS ? frame_names[kind] : frame_names[0];
}

void mq__frame_write(mq_frame_way *way, const mq_frame *frame, uint8_t *head)
{
    memset(head, 0, MQ_LINK_HEAD);
    memcpy(head, frame_magic, sizeof frame_magic);
    head[KIND] = (uint8_t)frame->kind;
    mq__put_u64(head + REQUEST, frame->request);
    mq__put_u64(head + EPOCH, frame->epoch);
    mq__put_u64(head + SEQUENCE, way->next++);
    mq__put_u64(head + BYTES, frame->bytes);
    memcpy(head + OWN, frame->own, MQ_FRAME_OWN);
    mq__auth_tag(&way->key, head, frame->body, frame->bytes, frame->kind == MQ_FRAME_KV, head + TAG);
}

static mq_status check_tag(const mq_frame_way *way, const uint8_t *head, const void *body, size_t bytes,
                           mq_error *error)
{
    uint8_t tag[MQ_PROTOCOL_TAG];
    const bool is_kv = head[KIND] == MQ_FRAME_KV && head[KIND + 1] == 0;
    mq__auth_tag(&way->key, head, body, bytes, is_kv, tag);
    if (mq__auth_tag_is(head + TAG, tag)) return MQ_OK;
    return mq__fail(error, MQ_FORMAT,
                    way->key.there ? "frame: tag: expected the shared key's, got another: a foreign or damaged message"
                                   : "frame: tag: expected the message's own, got another: it is damaged, or of a peer "
                                     "with a key");
}

/* What the tag covers is what the sender wrote: what is wrong from here on was sent so. */
static mq_status check_head(const mq_frame_way *way, const uint8_t *head, size_t bytes, mq_error *error)
{
    static const uint8_t zero[MQ_LINK_HEAD - REST];
    const uint32_t kind = mq__get_u32(head + KIND) & 0xffff;
    const uint64_t sequence = mq__get_u64(head + SEQUENCE), said = mq__get_u64(head + BYTES);
    if (kind == 0 || kind >= MQ_FRAME_KINDS) {
        return mq__fail(error, MQ_FORMAT, "frame: kind: expected 1 to %d, got %u", MQ_FRAME_KINDS - 1, kind);
    }
    if (memcmp(head + ZERO, zero, 2) != 0 || memcmp(head + REST, zero, sizeof zero) != 0) {
        return mq__fail(error, MQ_FORMAT, "frame: %s: expected reserved bytes of zero, got others", frame_names[kind]);
    }
    if (sequence != way->next) {
        return mq__fail(error, MQ_FORMAT, "frame: sequence: expected %llu, got %llu: a message is lost or replayed",
                        (unsigned long long)way->next, (unsigned long long)sequence);
    }
    if (said != bytes) {
        return mq__fail(error, MQ_FORMAT, "frame: %s: expected a body of %llu bytes, got %zu", frame_names[kind],
                        (unsigned long long)said, bytes);
    }
    return MQ_OK;
}

mq_status mq__frame_read(mq_frame_way *way, const uint8_t *head, const void *body, size_t bytes, mq_frame *frame,
                         mq_error *error)
{
    if (memcmp(head, frame_magic, sizeof frame_magic) != 0) {
        return mq__fail(error, MQ_FORMAT, "frame: magic: expected MQH1, got another version, or no hand-off at all");
    }
    mq_status status = check_tag(way, head, body, bytes, error);
    if (status == MQ_OK) status = check_head(way, head, bytes, error);
    if (status != MQ_OK) return status;
    *frame = (mq_frame){.kind = (mq_frame_kind)head[KIND],
                        .request = mq__get_u64(head + REQUEST),
                        .epoch = mq__get_u64(head + EPOCH),
                        .body = body,
                        .bytes = bytes};
    memcpy(frame->own, head + OWN, MQ_FRAME_OWN);
    way->next++;
    return MQ_OK;
}
