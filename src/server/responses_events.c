/* A stream of the Responses API: numbered events; each item is added, grows, and is done. */
#include "server/api_responses.h"

#include "server/api_parts.h"

#include <string.h>

#define ALIVE_EVERY 15.0 /* seconds of silence */

/* Takes data; its members stand behind type and number. False: it was not sent. */
static bool send_numbered(mq_call *call, const char *type, json_t *data)
{
    mq_responses_state *state = mq__call_state(call);
    json_t *event = json_pack("{sssI}", "type", type, "sequence_number", (json_int_t)state->sequence);
    const bool whole = data && json_object_update(event, data) == 0;
    json_decref(data);
    if (!whole) {
        json_decref(event);
        event = NULL;
    }
    const bool sent = mq__call_send(call, type, event);
    if (sent) state->sequence++;
    return sent;
}

static void send_response(mq_call *call, const char *type, json_t *response)
{
    send_numbered(call, type, json_pack("{so}", "response", response));
}

static bool send_item(mq_call *call, const char *type, json_t *item)
{
    const mq_responses_state *state = mq__call_state(call);
    return send_numbered(call, type, json_pack("{siso}", "output_index", (int)state->index, "item", item));
}

/* An event of the open item; `part`: NULL, or the name of its index of a part (always 0). Takes `value`. */
static void send_of_item(mq_call *call, const char *type, const char *part, const char *member, json_t *value)
{
    const mq_responses_state *state = mq__call_state(call);
    json_t *data = json_pack("{sssiso}", "item_id", state->id, "output_index", (int)state->index, member, value);
    if (part) (void)json_object_set_new(data, part, json_integer(0));
    send_numbered(call, type, data);
}

/* Events of output_text have a list of log probabilities. */
static void send_of_text(mq_call *call, const char *type, const char *member, json_t *value, json_t *logprobs)
{
    const mq_responses_state *state = mq__call_state(call);
    send_numbered(call, type,
                  json_pack("{sssisisoso}", "item_id", state->id, "output_index", (int)state->index, "content_index", 0,
                            member, value, "logprobs", logprobs));
}

/* ---- items */

static void open_item(mq_call *call, mq_item_kind kind, const char *letters)
{
    mq_responses_state *state = mq__call_state(call);
    state->open = kind;
    mq__responses_item_id(call, letters, state->index, state->id, sizeof state->id);
}

/* Takes the item. */
static void finish_item(mq_call *call, json_t *item)
{
    mq_responses_state *state = mq__call_state(call);
    if (!state->output) state->output = json_array();
    const bool kept = json_array_append(state->output, item) == 0;
    const bool sent = send_item(call, "response.output_item.done", item);
    if (kept && !sent) (void)json_array_remove(state->output, json_array_size(state->output) - 1);
    state->open = MQ_ITEM_NONE;
    state->index++;
}

static const char *thought_index(const mq_call *call)
{
    return mq__responses_extra_of(call)->summary ? "summary_index" : "content_index";
}

static const char *thought_event(const mq_call *call, const char *summary, const char *text)
{
    return mq__responses_extra_of(call)->summary ? summary : text;
}

static void close_reasoning(mq_call *call, const char *status)
{
    mq_responses_state *state = mq__call_state(call);
    const mq_buf *reasoning = &mq__call_answered(call, 0)->reasoning;
    const char *text = reasoning->data + state->from;
    const size_t count = reasoning->len - state->from;
    send_of_item(call, thought_event(call, "response.reasoning_summary_text.done", "response.reasoning_text.done"),
                 thought_index(call), "text", mq__json_text(text, count));
    send_of_item(call, thought_event(call, "response.reasoning_summary_part.done", "response.content_part.done"),
                 thought_index(call), "part", mq__responses_thought_part(call, text, count));
    finish_item(call, mq__responses_reasoning_item(call, state->id, text, count, status));
}

static void close_message(mq_call *call, const char *status)
{
    mq_responses_state *state = mq__call_state(call);
    const mq_answered *a = mq__call_answered(call, 0);
    const char *text = a->text.len ? a->text.data + state->from : "";
    const size_t count = state->said - state->from;
    json_t *logprobs = a->logprobs ? a->logprobs : json_array();
    if (a->logprobs) json_incref(logprobs);
    send_of_text(call, "response.output_text.done", "text", mq__json_text(text, count), json_incref(logprobs));
    send_of_item(call, "response.content_part.done", "content_index", "part",
                 mq__responses_text_part(text, count, logprobs));
    finish_item(call, mq__responses_message_item(call, state->id, text, count, status));
}

/* Closes what is open. A call is closed by its own end: one that the answer's end cut never is, so that no client runs it. */
static void close_item(mq_call *call, const char *status)
{
    const mq_responses_state *state = mq__call_state(call);
    if (state->open == MQ_ITEM_REASONING) close_reasoning(call, status);
    if (state->open == MQ_ITEM_MESSAGE) close_message(call, status);
}

/* ---- reasoning and text */

static void send_reasoning(mq_call *call, const mq_part *part)
{
    mq_responses_state *state = mq__call_state(call);
    if (state->open != MQ_ITEM_REASONING) {
        close_item(call, "completed");
        open_item(call, MQ_ITEM_REASONING, "rs");
        state->from = state->thought;
        send_item(call, "response.output_item.added",
                  mq__responses_reasoning_item(call, state->id, "", 0, "in_progress"));
        send_of_item(call, thought_event(call, "response.reasoning_summary_part.added", "response.content_part.added"),
                     thought_index(call), "part", mq__responses_thought_part(call, "", 0));
    }
    send_of_item(call, thought_event(call, "response.reasoning_summary_text.delta", "response.reasoning_text.delta"),
                 thought_index(call), "delta", mq__json_text(part->bytes, part->count));
    state->thought = mq__call_answered(call, 0)->reasoning.len;
}

static void open_message(mq_call *call)
{
    mq_responses_state *state = mq__call_state(call);
    close_item(call, "completed");
    open_item(call, MQ_ITEM_MESSAGE, "msg");
    state->from = state->said;
    send_item(call, "response.output_item.added", mq__responses_message_item(call, state->id, "", 0, "in_progress"));
    send_of_item(call, "response.content_part.added", "content_index", "part",
                 mq__responses_text_part("", 0, json_array()));
}

/* A message of nothing but white space is none: it waits for what follows it. */
static void send_message(mq_call *call)
{
    mq_responses_state *state = mq__call_state(call);
    const mq_buf *text = &mq__call_answered(call, 0)->text;
    const char *more = text->data + state->said;
    const size_t count = text->len - state->said;
    if (state->open != MQ_ITEM_MESSAGE) {
        if (mq__is_blank(more, count)) return;
        open_message(call);
    }
    send_of_text(call, "response.output_text.delta", "delta", mq__json_text(more, count), json_array());
    state->said = text->len;
}

/* ---- calls */

static const mq_answered_call *open_call(const mq_call *call, uint32_t number, const mq_response_tool **tool,
                                         mq_response_call *kind)
{
    const mq_answered_call *called = &mq__call_answered(call, 0)->calls[number];
    *tool = mq__responses_tool(call, called);
    *kind = *tool ? (*tool)->kind : MQ_RESPONSE_FUNCTION;
    return called;
}

static void begin_item_call(mq_call *call, const mq_part *part)
{
    mq_responses_state *state = mq__call_state(call);
    const mq_response_tool *tool;
    mq_response_call kind;
    const mq_answered_call *called = open_call(call, part->call, &tool, &kind);
    close_item(call, "completed");
    state->said = mq__call_answered(call, 0)->text.len; /* blanks before a call are dropped */
    state->call = part->call;
    open_item(call, MQ_ITEM_CALL, mq__responses_call_letters(tool));
    mq__custom_input_clear(&state->input);
    send_item(call, "response.output_item.added",
              mq__responses_call_item(call, state->id, called, json_string(""), "in_progress"));
}

/* What is new of a custom tool's input. */
static void send_input(mq_call *call)
{
    mq_responses_state *state = mq__call_state(call);
    mq_custom_input *input = &state->input;
    if (input->text.failed) {
        mq__call_send(call, NULL, NULL); /* no memory */
        return;
    }
    if (input->given == input->text.len) return;
    send_of_item(call, "response.custom_tool_call_input.delta", NULL, "delta",
                 mq__json_text(input->text.data + input->given, input->text.len - input->given));
    input->given = input->text.len;
}

static void send_arguments(mq_call *call, const mq_part *part)
{
    mq_responses_state *state = mq__call_state(call);
    const mq_response_tool *tool;
    mq_response_call kind;
    const mq_answered_call *called = open_call(call, state->call, &tool, &kind);
    if (kind == MQ_RESPONSE_FUNCTION) {
        send_of_item(call, "response.function_call_arguments.delta", NULL, "delta",
                     mq__json_text(part->bytes, part->count));
    } else if (kind == MQ_RESPONSE_CUSTOM) {
        mq__custom_input_read(&state->input, called->arguments.data, called->arguments.len);
        send_input(call);
    }
}

static void send_custom_end(mq_call *call, const mq_answered_call *called)
{
    mq_responses_state *state = mq__call_state(call);
    mq__custom_input_end(&state->input, called->arguments.data ? called->arguments.data : "", called->arguments.len);
    send_input(call);
    json_t *input = mq__joined_text(&state->input.text);
    send_of_item(call, "response.custom_tool_call_input.done", NULL, "input", json_incref(input));
    finish_item(call, mq__responses_call_item(call, state->id, called, input, "completed"));
}

static void end_item_call(mq_call *call)
{
    mq_responses_state *state = mq__call_state(call);
    const mq_response_tool *tool;
    mq_response_call kind;
    const mq_answered_call *called = open_call(call, state->call, &tool, &kind);
    if (kind == MQ_RESPONSE_CUSTOM) {
        send_custom_end(call, called);
        return;
    }
    json_t *item = mq__responses_call_item(call, state->id, called, NULL, "completed");
    if (kind == MQ_RESPONSE_FUNCTION) {
        send_of_item(call, "response.function_call_arguments.done", NULL, "arguments",
                     json_incref(json_object_get(item, "arguments")));
    }
    finish_item(call, item);
}

void mq__responses_part(mq_call *call, uint32_t choice, const mq_part *part)
{
    (void)choice; /* there is one */
    switch (part->kind) {
    case MQ_PART_REASONING:
        send_reasoning(call, part);
        break;
    case MQ_PART_TEXT:
        send_message(call);
        break;
    case MQ_PART_CALL:
        begin_item_call(call, part);
        break;
    case MQ_PART_ARGUMENTS:
        send_arguments(call, part);
        break;
    case MQ_PART_CALL_END:
    default:
        end_item_call(call);
        break;
    }
}

/* ---- the frame */

void mq__responses_free_state(void *state)
{
    mq_responses_state *s = state;
    mq__custom_input_clear(&s->input);
    json_decref(s->output);
}

void mq__responses_begin(mq_call *call)
{
    send_response(call, "response.created", mq__responses_object(call, "in_progress", json_array(), NULL));
    send_response(call, "response.in_progress", mq__responses_object(call, "in_progress", json_array(), NULL));
}

void mq__responses_progress(mq_call *call, const mq_report *report)
{
    (void)call; /* this API has no event for it */
    (void)report;
}

/* The short form: what a request's tools were is not said again and again. */
void mq__responses_alive(mq_call *call, double idle)
{
    mq_responses_state *state = mq__call_state(call);
    if (!mq__alive_due(&state->told, idle, ALIVE_EVERY)) return;
    send_response(call, "response.in_progress",
                  json_pack("{so ss sI ss so s[]}", "id", json_sprintf("resp_%s", mq__call_id(call)), "object",
                            "response", "created_at", (json_int_t)mq__call_created(call), "status", "in_progress",
                            "model", mq__call_model(call), "output"));
}

/* Items that are done; a new reference. */
static json_t *done_items(mq_responses_state *state)
{
    return state->output ? json_incref(state->output) : json_array();
}

void mq__responses_end(mq_call *call)
{
    mq_responses_state *state = mq__call_state(call);
    const bool cut = strcmp(mq__finish_name(mq__call_answered(call, 0)), "length") == 0;
    const char *status = cut ? "incomplete" : "completed";
    if (state->index == 0 && state->open == MQ_ITEM_NONE) open_message(call); /* clients look for one */
    close_item(call, status);
    send_response(call, cut ? "response.incomplete" : "response.completed",
                  mq__responses_object(call, status, done_items(state), NULL));
}

void mq__responses_fail(mq_call *call, const mq_fault *fault)
{
    mq_responses_state *state = mq__call_state(call);
    send_response(call, "response.failed", mq__responses_object(call, "failed", done_items(state), fault));
}
