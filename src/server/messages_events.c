/* A stream of the Messages API: blocks one after the other, each with its index; pings while nothing is to tell. */
#include "server/api_messages.h"

#include "server/api_parts.h"

#include <string.h>

#define PING_EVERY 15.0 /* seconds of silence */
/* Clients do not count pings as life of the answer: each of so many (2 minutes) is an interim message_delta, which they do. */
#define COUNTED_PING 8

static void send_block_event(mq_call *call, const char *type, const char *member, json_t *value)
{
    const mq_messages_state *state = mq__call_state(call);
    if (member) {
        mq__call_send(call, type, json_pack("{sssiso}", "type", type, "index", (int)state->index, member, value));
    } else {
        mq__call_send(call, type, json_pack("{sssi}", "type", type, "index", (int)state->index));
    }
}

static void send_block_delta(mq_call *call, const char *type, const char *member, json_t *value)
{
    send_block_event(call, "content_block_delta", "delta", json_pack("{ssso}", "type", type, member, value));
}

/* ---- blocks */

/* A thinking block ends with its signature. */
static void close_block(mq_call *call)
{
    mq_messages_state *state = mq__call_state(call);
    if (state->open == MQ_BLOCK_NONE) return;
    if (state->open == MQ_BLOCK_THINKING) {
        const size_t to = mq__call_answered(call, 0)->reasoning.len;
        send_block_delta(call, "signature_delta", "signature", mq__messages_signature(call, state->thought, to));
        state->thought = to;
    }
    send_block_event(call, "content_block_stop", NULL, NULL);
    state->open = MQ_BLOCK_NONE;
    state->index++;
}

static void open_block(mq_call *call, mq_block_kind kind, json_t *block)
{
    mq_messages_state *state = mq__call_state(call);
    close_block(call);
    send_block_event(call, "content_block_start", "content_block", block);
    state->open = kind;
}

static void send_thinking(mq_call *call, const mq_part *part)
{
    mq_messages_state *state = mq__call_state(call);
    if (state->open != MQ_BLOCK_THINKING) {
        open_block(call, MQ_BLOCK_THINKING, json_pack("{ssssss}", "type", "thinking", "thinking", "", "signature", ""));
    }
    if (mq__messages_extra_of(call)->omits_thinking) return;
    send_block_delta(call, "thinking_delta", "thinking", mq__json_text(part->bytes, part->count));
}

/* A block of nothing but white space is no answer: it waits for what follows it. */
static void send_text(mq_call *call)
{
    mq_messages_state *state = mq__call_state(call);
    const mq_buf *text = &mq__call_answered(call, 0)->text;
    const char *more = text->data + state->said;
    const size_t count = text->len - state->said;
    if (state->open != MQ_BLOCK_TEXT) {
        if (mq__is_blank(more, count)) return;
        open_block(call, MQ_BLOCK_TEXT, json_pack("{ssss}", "type", "text", "text", ""));
    }
    send_block_delta(call, "text_delta", "text", mq__json_text(more, count));
    state->said = text->len;
}

static void begin_tool_use(mq_call *call, const mq_part *part)
{
    mq_messages_state *state = mq__call_state(call);
    const mq_answered *a = mq__call_answered(call, 0);
    state->said = a->text.len; /* blanks before a call are dropped */
    open_block(call, MQ_BLOCK_TOOL,
               json_pack("{sssosos{}}", "type", "tool_use", "id", mq__messages_tool_id(&a->calls[part->call]), "name",
                         mq__json_text(part->bytes, part->count), "input"));
}

void mq__messages_part(mq_call *call, uint32_t choice, const mq_part *part)
{
    mq_messages_state *state = mq__call_state(call);
    (void)choice; /* there is one */
    if (mq__messages_extra_of(call)->warms) return;
    state->pings = 0;
    switch (part->kind) {
    case MQ_PART_REASONING:
        send_thinking(call, part);
        break;
    case MQ_PART_TEXT:
        send_text(call);
        break;
    case MQ_PART_CALL:
        begin_tool_use(call, part);
        break;
    case MQ_PART_ARGUMENTS:
        send_block_delta(call, "input_json_delta", "partial_json", mq__json_text(part->bytes, part->count));
        break;
    case MQ_PART_CALL_END:
    default:
        close_block(call);
        break;
    }
}

/* ---- the frame */

void mq__messages_begin(mq_call *call)
{
    json_t *message = json_pack("{so ss ss so s[] sn sn so}", "id", mq__messages_id(call), "type", "message", "role",
                                "assistant", "model", mq__call_model(call), "content", "stop_reason", "stop_sequence",
                                "usage", mq__messages_usage(call));
    mq__call_send(call, "message_start", json_pack("{ssso}", "type", "message_start", "message", message));
}

void mq__messages_progress(mq_call *call, const mq_report *report)
{
    (void)call; /* this API has no event for it */
    (void)report;
}

void mq__messages_alive(mq_call *call, double idle)
{
    mq_messages_state *state = mq__call_state(call);
    if (!mq__alive_due(&state->told, idle, PING_EVERY)) return;
    if (++state->pings < COUNTED_PING) {
        mq__call_send(call, "ping", json_pack("{ss}", "type", "ping"));
        return;
    }
    state->pings = 0;
    mq__call_send(call, "message_delta",
                  json_pack("{sss{snsn}s{si}}", "type", "message_delta", "delta", "stop_reason", "stop_sequence",
                            "usage", "output_tokens", 0));
}

void mq__messages_end(mq_call *call)
{
    const mq_messages_state *state = mq__call_state(call);
    close_block(call);
    if (state->index == 0 &&
        !mq__messages_extra_of(call)->warms) { /* an answer without any block is taken for a lost one */
        open_block(call, MQ_BLOCK_TEXT, json_pack("{ssss}", "type", "text", "text", ""));
        close_block(call);
    }
    json_t *delta = json_pack("{so so so*}", "stop_reason", mq__messages_stop_reason(call), "stop_sequence",
                              mq__messages_stop_sequence(call), "diagnostics", mq__messages_diagnostics(call));
    mq__call_send(call, "message_delta",
                  json_pack("{ss so so so so}", "type", "message_delta", "delta", delta, "usage",
                            mq__messages_usage(call), "timings", mq__call_timings(call), "plan", mq__call_plan(call)));
    mq__call_send(call, "message_stop", json_pack("{ss}", "type", "message_stop"));
}

void mq__messages_fail(mq_call *call, const mq_fault *fault)
{
    json_t *error = mq__messages_error(fault);
    mq__call_send(call, "error", mq__with(error, "request_id", json_sprintf("req_%s", mq__call_id(call))));
}
