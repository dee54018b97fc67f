/* What each kind of message says. */
#include "base/error.h"
#include "base/little_endian.h"
#include "engine/engine.h"
#include "handoff/frame.h"

#include <string.h>

#define RATE_UNIT 1000.0 /* rates are sent as tokens in so many seconds */

/* ---- checks */

static mq_status wrong_frame(const mq_frame *frame, const char *expected, mq_error *error)
{
    return mq__fail(error, MQ_FORMAT, "frame: %s: expected %s, got another message of %zu bytes",
                    mq__frame_name(frame->kind), expected, frame->bytes);
}

/* Whether own bytes from `at` on are zero. */
static bool is_zero(const mq_frame *frame, size_t at)
{
    uint8_t any = 0;
    for (; at < MQ_FRAME_OWN; at++) {
        any |= frame->own[at];
    }
    return any == 0;
}

static mq_status check_numbers(const mq_frame *frame, size_t used, mq_error *error)
{
    if (frame->bytes == 0 && is_zero(frame, used)) return MQ_OK;
    return wrong_frame(frame, "no body, and zero behind its numbers", error);
}

mq_status mq__empty_read(const mq_frame *frame, mq_error *error)
{
    return check_numbers(frame, 0, error);
}

static mq_status read_frame_text(const mq_frame *frame, char text[MQ_FRAME_TEXT + 1], mq_error *error)
{
    if (frame->bytes > MQ_FRAME_TEXT) return wrong_frame(frame, "a short text", error);
    for (size_t i = 0; i < frame->bytes; i++) { /* it goes into logs */
        const uint8_t byte = ((const uint8_t *)frame->body)[i];
        text[i] = byte >= ' ' && byte < 127 ? (char)byte : '?';
    }
    text[frame->bytes] = '\0';
    return MQ_OK;
}

/* ---- HELLO, REFUSE */

static void put_print(const mq_fingerprint *print, uint8_t *body)
{
    const mq_digest all[] = {print->weights, print->plan, print->tokenizer, print->rope, print->layout};
    memcpy(body, all, sizeof all);
}

mq_frame mq__hello_frame(const mq_hello *hello, uint8_t *body)
{
    mq_frame frame = {.kind = MQ_FRAME_HELLO, .body = body, .bytes = MQ_HELLO_BODY};
    frame.own[0] = (uint8_t)hello->version;
    frame.own[1] = (uint8_t)(hello->version >> 8);
    frame.own[2] = (uint8_t)hello->role;
    memcpy(frame.own + 8, hello->instance, 16);
    memcpy(frame.own + 24, hello->nonce, MQ_PROTOCOL_NONCE);
    put_print(&hello->print, body);
    memcpy(body + 5 * sizeof(mq_digest), hello->answers, MQ_PROTOCOL_NONCE);
    return frame;
}

mq_status mq__hello_read(const mq_frame *frame, mq_hello *hello, mq_error *error)
{
    const uint32_t version = frame->own[0] | (uint32_t)frame->own[1] << 8;
    if (frame->kind == MQ_FRAME_HELLO && version != MQ_PROTOCOL_VERSION) {
        return mq__fail(error, MQ_FORMAT, "hand-off: protocol: expected version %d, got %u", MQ_PROTOCOL_VERSION,
                        version);
    }
    const char role = (char)frame->own[2];
    if (frame->kind != MQ_FRAME_HELLO || frame->request || frame->epoch || frame->bytes != MQ_HELLO_BODY ||
        (role != 'D' && role != 'P') || frame->own[3] || mq__get_u32(frame->own + 4) || !is_zero(frame, 40)) {
        return wrong_frame(frame, "a greeting", error);
    }
    mq_digest all[5];
    memcpy(all, frame->body, sizeof all);
    *hello =
        (mq_hello){.version = version,
                   .role = role,
                   .print = {.weights = all[0], .plan = all[1], .tokenizer = all[2], .rope = all[3], .layout = all[4]}};
    memcpy(hello->instance, frame->own + 8, 16);
    memcpy(hello->nonce, frame->own + 24, MQ_PROTOCOL_NONCE);
    memcpy(hello->answers, (const uint8_t *)frame->body + sizeof all, MQ_PROTOCOL_NONCE);
    return MQ_OK;
}

mq_frame mq__refuse_frame(const char *text)
{
    return (mq_frame){.kind = MQ_FRAME_REFUSE, .body = text, .bytes = strnlen(text, MQ_FRAME_TEXT)};
}

mq_status mq__refuse_read(const mq_frame *frame, char text[MQ_FRAME_TEXT + 1], mq_error *error)
{
    if (!is_zero(frame, 0) || frame->request || frame->epoch) return wrong_frame(frame, "a text and no numbers", error);
    return read_frame_text(frame, text, error);
}

/* ---- PREFILL */

bool mq__prefill_body(const int32_t *tokens, uint32_t count, const char *lease, mq_buf *out)
{
    uint8_t word[4];
    for (uint32_t i = 0; i <= count; i++) {
        mq__put_u32(word, (uint32_t)tokens[i]);
        if (!mq__buf_append(out, word, sizeof word)) return false;
    }
    return mq__buf_append(out, lease, strnlen(lease, MQ_FRAME_LEASE));
}

mq_frame mq__prefill_frame(const mq_prefill *prefill, const mq_buf *body)
{
    mq_frame frame = {.kind = MQ_FRAME_PREFILL, .body = body->data, .bytes = body->len};
    mq__put_u32(frame.own, prefill->first);
    mq__put_u32(frame.own + 4, prefill->count);
    mq__put_u64(frame.own + 8, prefill->owner);
    mq__put_u32(frame.own + 16, prefill->timeout_ms);
    mq__put_u32(frame.own + 20, prefill->lease_bytes);
    return frame;
}

mq_status mq__prefill_read(const mq_frame *frame, mq_prefill *prefill, mq_error *error)
{
    *prefill = (mq_prefill){.first = mq__get_u32(frame->own),
                            .count = mq__get_u32(frame->own + 4),
                            .owner = mq__get_u64(frame->own + 8),
                            .timeout_ms = mq__get_u32(frame->own + 16),
                            .lease_bytes = mq__get_u32(frame->own + 20),
                            .tokens = frame->body};
    const uint64_t ids = 4 * ((uint64_t)prefill->count + 1);
    if (prefill->first >= prefill->count || prefill->first % MQ_PAGE_TOKENS != 0 ||
        prefill->lease_bytes > MQ_FRAME_LEASE || frame->bytes != ids + prefill->lease_bytes || !is_zero(frame, 24)) {
        return wrong_frame(frame, "a range from a block's beginning on, its tokens and a lease", error);
    }
    prefill->lease = (const char *)frame->body + ids;
    return MQ_OK;
}

/* ---- ACCEPT, BEGIN, STATE, COMMIT, FAIL */

mq_frame mq__accept_frame(const mq_accept *accept)
{
    mq_frame frame = {.kind = MQ_FRAME_ACCEPT};
    mq__put_u32(frame.own, accept->cached);
    mq__put_u64(frame.own + 8, accept->ahead);
    mq__put_u64(frame.own + 16, (uint64_t)(accept->rate * RATE_UNIT));
    return frame;
}

mq_status mq__accept_read(const mq_frame *frame, mq_accept *accept, mq_error *error)
{
    *accept = (mq_accept){.cached = mq__get_u32(frame->own),
                          .ahead = mq__get_u64(frame->own + 8),
                          .rate = (double)mq__get_u64(frame->own + 16) / RATE_UNIT};
    if (mq__get_u32(frame->own + 4)) return wrong_frame(frame, "zero between its numbers", error);
    return check_numbers(frame, 24, error);
}

mq_frame mq__begin_frame(uint32_t ready, const mq_buf *header)
{
    mq_frame frame = {.kind = MQ_FRAME_BEGIN, .body = header->data, .bytes = header->len};
    mq__put_u32(frame.own, ready);
    return frame;
}

mq_status mq__begin_read(const mq_frame *frame, uint32_t *ready, mq_error *error)
{
    *ready = mq__get_u32(frame->own);
    return is_zero(frame, 4) ? MQ_OK : wrong_frame(frame, "zero behind its number", error);
}

mq_frame mq__state_frame(uint32_t computed, uint64_t ahead)
{
    mq_frame frame = {.kind = MQ_FRAME_STATE};
    mq__put_u32(frame.own, computed);
    mq__put_u64(frame.own + 8, ahead);
    return frame;
}

mq_status mq__state_read(const mq_frame *frame, uint32_t *computed, uint64_t *ahead, mq_error *error)
{
    *computed = mq__get_u32(frame->own);
    *ahead = mq__get_u64(frame->own + 8);
    if (mq__get_u32(frame->own + 4)) return wrong_frame(frame, "zero between its numbers", error);
    return check_numbers(frame, 16, error);
}

mq_frame mq__commit_frame(mq_digest tokens, uint64_t chunks)
{
    mq_frame frame = {.kind = MQ_FRAME_COMMIT};
    memcpy(frame.own, tokens.bytes, sizeof tokens.bytes);
    mq__put_u64(frame.own + 16, chunks);
    return frame;
}

mq_status mq__commit_read(const mq_frame *frame, mq_digest *tokens, uint64_t *chunks, mq_error *error)
{
    memcpy(tokens->bytes, frame->own, sizeof tokens->bytes);
    *chunks = mq__get_u64(frame->own + 16);
    return check_numbers(frame, 24, error);
}

mq_frame mq__fail_frame(mq_handoff_fault fault, const char *text)
{
    mq_frame frame = {.kind = MQ_FRAME_FAIL, .body = text, .bytes = strnlen(text, MQ_FRAME_TEXT)};
    mq__put_u32(frame.own, fault);
    return frame;
}

mq_status mq__fail_read(const mq_frame *frame, mq_handoff_fault *fault, char text[MQ_FRAME_TEXT + 1], mq_error *error)
{
    const uint32_t code = mq__get_u32(frame->own);
    if (code == 0 || code >= MQ_FAULTS || !is_zero(frame, 4)) return wrong_frame(frame, "a fault and a text", error);
    *fault = (mq_handoff_fault)code;
    return read_frame_text(frame, text, error);
}

mq_digest mq__tokens_digest(const int32_t *tokens, uint32_t count)
{
    /* as they lie in memory: engines run on little-endian machines only */
    return mq__digest(tokens, (size_t)count * sizeof *tokens);
}
