/* What connections of both sides share: sending messages, greetings, waiting. */
#include "base/error.h"
#include "handoff/handoff.h"

#include <string.h>
#include <time.h>

mq_status mq__wire_send(mq_wire *wire, const mq_frame *frame, double seconds, mq_error *error)
{
    uint8_t head[MQ_LINK_HEAD];
    mq__frame_write(&wire->out, frame, head);
    if (!wire->link) return MQ_OK;
    return mq__link_send(wire->link, head, frame->body, frame->bytes, seconds, error);
}

mq_status mq__wire_flush(mq_wire *wire, double seconds, mq_error *error)
{
    return wire->link ? mq__link_flush(wire->link, seconds, error) : MQ_OK;
}

/* ---- greetings */

const char *mq__print_differs(const mq_fingerprint *a, const mq_fingerprint *b)
{
    if (memcmp(&a->layout, &b->layout, sizeof a->layout) != 0) return "KV layout";
    if (memcmp(&a->weights, &b->weights, sizeof a->weights) != 0) return "weights";
    if (memcmp(&a->plan, &b->plan, sizeof a->plan) != 0) return "plan";
    if (memcmp(&a->tokenizer, &b->tokenizer, sizeof a->tokenizer) != 0) return "tokenizer";
    if (memcmp(&a->rope, &b->rope, sizeof a->rope) != 0) return "rotary frequencies";
    return NULL;
}

void mq__greeting_make(mq_handoff *h, char role, mq_hello *hello)
{
    *hello = (mq_hello){.version = MQ_PROTOCOL_VERSION, .role = role, .print = h->print};
    memcpy(hello->instance, h->instance, sizeof hello->instance);
    mq__auth_random(hello->nonce, sizeof hello->nonce);
}

mq_status mq__greeting_check(const mq_handoff *h, const mq_hello *hello, char role, mq_error *error)
{
    if (hello->role != role) {
        return mq__fail(error, MQ_FORMAT, "greeting: expected one of a %s worker, got another",
                        role == 'P' ? "prefill" : "decode");
    }
    if (memcmp(hello->instance, h->instance, sizeof h->instance) == 0) {
        return mq__fail(error, MQ_UNSUPPORTED, "greeting: expected another worker, got this one itself");
    }
    const char *part = mq__print_differs(&h->print, &hello->print);
    if (!part) return MQ_OK;
    return mq__fail(error, MQ_UNSUPPORTED, "%s: expected the same on both sides, got others", part);
}
