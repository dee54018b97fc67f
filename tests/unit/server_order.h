/* What a strict client of the Messages and of the Responses API accepts as a stream, as automata over its events: order, indices, kinds of
 * deltas, and that everything which is said twice is the same. Each returns what a client would have in hand at the end. */
#ifndef MQ_SERVER_ORDER_H
#define MQ_SERVER_ORDER_H

#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* [{"event": ..., "data": {...}}, ...]; NULL: not server-sent events of JSON. */
static inline json_t *order_events(const char *sse, size_t bytes)
{
    json_t *events = json_array();
    const char *at = sse, *end = sse + bytes;
    while (at < end) {
        const char *stop = memmem(at, (size_t)(end - at), "\n\n", 2);
        const char *data = memmem(at, (size_t)(end - at), "data: ", 6);
        char event[96] = "";
        if (!stop || !data || data > stop) {
            json_decref(events);
            return NULL;
        }
        if (strncmp(at, "event: ", 7) == 0) snprintf(event, sizeof event, "%.*s", (int)strcspn(at + 7, "\n"), at + 7);
        json_t *value = json_loadb(data + 6, (size_t)(stop - data) - 6, JSON_ALLOW_NUL, NULL);
        if (!value || json_array_append_new(events, json_pack("{ssso}", "event", event, "data", value)) != 0) {
            json_decref(events);
            return NULL;
        }
        at = stop + 2;
    }
    return events;
}

typedef struct order {
    char why[256]; /* "": nothing was wrong */
    size_t number; /* of the event */
    bool begun, ended;
    int next;       /* index that a new block or item must have */
    json_t *open;   /* the block or item under way; borrowed from `made` */
    json_t *made;   /* the message or response; owned */
    char *text;     /* deltas of the open one; owned */
    size_t bytes;   /* of it */
    bool signed_;   /* a thinking block has its signature */
    bool part;      /* a part of an item is open */
    bool text_done; /* its text is done */
    long sequence;
} order;

static inline bool order_wrong(order *o, const char *format, ...) __attribute__((format(printf, 2, 3)));
static inline bool order_wrong(order *o, const char *format, ...)
{
    va_list list;
    const int n = snprintf(o->why, sizeof o->why, "event %zu: ", o->number);
    va_start(list, format);
    vsnprintf(o->why + n, sizeof o->why - (size_t)n, format, list);
    va_end(list);
    return false;
}

static inline void order_add(order *o, const json_t *text)
{
    const size_t more = json_string_length(text);
    o->text = realloc(o->text, o->bytes + more + 1);
    if (!o->text) abort();
    if (more) memcpy(o->text + o->bytes, json_string_value(text), more);
    o->bytes += more;
    o->text[o->bytes] = '\0';
}

static inline void order_forget(order *o)
{
    free(o->text);
    o->text = NULL;
    o->bytes = 0;
    order_add(o, NULL);
}

static inline const char *order_string(const json_t *object, const char *name)
{
    const char *value = json_string_value(json_object_get(object, name));
    return value ? value : "";
}

static inline bool order_is(const json_t *object, const char *name, const char *value)
{
    return strcmp(order_string(object, name), value) == 0;
}

static inline int order_number(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_integer(value) ? (int)json_integer_value(value) : -1;
}

/* ---------------------------------------------------------------- messages */

static inline bool order_block_start(order *o, const json_t *data)
{
    json_t *block = json_object_get(data, "content_block");
    if (o->open) return order_wrong(o, "a block begins in a block");
    if (order_number(data, "index") != o->next) return order_wrong(o, "index of a new block");
    const bool text = order_is(block, "type", "text") && json_string_length(json_object_get(block, "text")) == 0 &&
                      json_is_string(json_object_get(block, "text"));
    const bool thinking = order_is(block, "type", "thinking") && json_is_string(json_object_get(block, "thinking")) &&
                          json_is_string(json_object_get(block, "signature"));
    const bool tool = order_is(block, "type", "tool_use") && strncmp(order_string(block, "id"), "toolu_", 6) == 0 &&
                      order_string(block, "name")[0] && json_is_object(json_object_get(block, "input"));
    if (!text && !thinking && !tool) return order_wrong(o, "a block that is not complete");
    o->open = json_deep_copy(block);
    json_array_append_new(json_object_get(o->made, "content"), o->open);
    order_forget(o);
    o->signed_ = false;
    return true;
}

static inline bool order_block_delta(order *o, const json_t *data)
{
    static const char *const kinds[][3] = {{"text", "text_delta", "text"},
                                           {"thinking", "thinking_delta", "thinking"},
                                           {"tool_use", "input_json_delta", "partial_json"}};
    const json_t *delta = json_object_get(data, "delta");
    if (!o->open || order_number(data, "index") != o->next) return order_wrong(o, "a delta of no open block");
    if (o->signed_) return order_wrong(o, "a delta behind the signature");
    if (order_is(delta, "type", "signature_delta") && order_is(o->open, "type", "thinking")) {
        o->signed_ = json_string_length(json_object_get(delta, "signature")) > 0;
        json_object_set(o->open, "signature", json_object_get(delta, "signature"));
        return o->signed_ || order_wrong(o, "an empty signature");
    }
    for (size_t i = 0; i < 3; i++) {
        const json_t *more = json_object_get(delta, kinds[i][2]);
        if (!order_is(o->open, "type", kinds[i][0]) || !order_is(delta, "type", kinds[i][1]) || !json_is_string(more))
            continue;
        order_add(o, more);
        return true;
    }
    return order_wrong(o, "a delta of another kind than its block");
}

static inline bool order_block_stop(order *o, const json_t *data)
{
    if (!o->open || order_number(data, "index") != o->next) return order_wrong(o, "the end of no open block");
    if (order_is(o->open, "type", "tool_use")) {
        json_t *input = o->bytes ? json_loadb(o->text, o->bytes, JSON_ALLOW_NUL, NULL) : json_object();
        if (!input) input = json_stringn(o->text, o->bytes); /* cut; the end must say so */
        json_object_set_new(o->open, "input", input);
    } else if (order_is(o->open, "type", "thinking")) {
        if (!o->signed_) return order_wrong(o, "a thinking block without signature");
        json_object_set_new(o->open, "thinking", json_stringn(o->text, o->bytes));
    } else {
        json_object_set_new(o->open, "text", json_stringn(o->text, o->bytes));
    }
    o->open = NULL;
    o->next++;
    return true;
}

static inline bool order_message_delta(order *o, json_t *data)
{
    json_t *delta = json_object_get(data, "delta"), *usage = json_object_get(data, "usage");
    if (order_number(usage, "output_tokens") < 0) return order_wrong(o, "usage without output_tokens");
    if (json_is_null(json_object_get(delta, "stop_reason"))) return true; /* a sign of life */
    if (!json_is_string(json_object_get(delta, "stop_reason"))) return order_wrong(o, "no stop_reason");
    if (o->open) return order_wrong(o, "the end in an open block");
    if (json_is_string(json_object_get(o->made, "stop_reason"))) return order_wrong(o, "a second end");
    json_object_update(json_object_get(o->made, "usage"), usage);
    json_object_update(o->made, delta);
    size_t i;
    json_t *block;
    json_array_foreach(json_object_get(o->made, "content"), i, block)
    {
        const bool last = i + 1 == json_array_size(json_object_get(o->made, "content"));
        if (!json_is_string(json_object_get(block, "input"))) continue;
        if (!last || !order_is(delta, "stop_reason", "max_tokens")) return order_wrong(o, "input that is no object");
    }
    return true;
}

static inline bool order_message_event(order *o, const char *event, json_t *data)
{
    if (!order_is(data, "type", event)) return order_wrong(o, "type and event differ");
    if (o->ended) return order_wrong(o, "%s behind the end", event);
    if (!o->begun) {
        json_t *message = json_object_get(data, "message");
        if (strcmp(event, "message_start") != 0) return order_wrong(o, "%s before message_start", event);
        if (strncmp(order_string(message, "id"), "msg_", 4) != 0 || !order_is(message, "role", "assistant") ||
            !order_is(message, "type", "message") || !order_string(message, "model")[0] ||
            !json_is_null(json_object_get(message, "stop_reason")) ||
            order_number(json_object_get(message, "usage"), "input_tokens") < 0 ||
            json_array_size(json_object_get(message, "content")) != 0) {
            return order_wrong(o, "a message that is not complete");
        }
        o->made = json_deep_copy(message);
        return o->begun = true;
    }
    if (strcmp(event, "ping") == 0) return true;
    if (strcmp(event, "content_block_start") == 0) return order_block_start(o, data);
    if (strcmp(event, "content_block_delta") == 0) return order_block_delta(o, data);
    if (strcmp(event, "content_block_stop") == 0) return order_block_stop(o, data);
    if (strcmp(event, "message_delta") == 0) return order_message_delta(o, data);
    o->ended = true;
    if (strcmp(event, "error") == 0) {
        json_t *error = json_object_get(data, "error");
        if (!order_string(error, "type")[0] || !order_string(error, "message")[0]) return order_wrong(o, "no error");
        return json_object_set(o->made, "error", error) == 0;
    }
    if (strcmp(event, "message_stop") != 0) return order_wrong(o, "%s: nobody knows it", event);
    return json_is_string(json_object_get(o->made, "stop_reason")) || order_wrong(o, "no stop_reason");
}

/* ---------------------------------------------------------------- responses */

static inline bool order_item_added(order *o, const json_t *data)
{
    json_t *item = json_object_get(data, "item");
    if (o->open) return order_wrong(o, "an item begins in an item");
    if (order_number(data, "output_index") != o->next) return order_wrong(o, "index of a new item");
    if (!order_string(item, "id")[0] || !order_string(item, "type")[0] || !order_is(item, "status", "in_progress"))
        return order_wrong(o, "an item that is not complete");
    o->open = item;
    o->part = o->text_done = false;
    order_forget(o);
    return true;
}

/* What an event says of the open item: its kind must be `type`, and an index of a part 0. */
static inline bool order_of_item(order *o, const json_t *data, const char *type, const char *part)
{
    if (!o->open || !order_is(data, "item_id", order_string(o->open, "id")) ||
        order_number(data, "output_index") != o->next)
        return order_wrong(o, "not of the open item");
    if (!order_is(o->open, "type", type)) return order_wrong(o, "not of an item of type %s", type);
    return !part || order_number(data, part) == 0 || order_wrong(o, "index of the part");
}

static inline bool order_item_done(order *o, json_t *data)
{
    json_t *item = json_object_get(data, "item");
    if (!o->open || !order_is(item, "id", order_string(o->open, "id")) || order_number(data, "output_index") != o->next)
        return order_wrong(o, "the end of no open item");
    if (o->part) return order_wrong(o, "the end in an open part");
    const char *type = order_string(item, "type");
    const json_t *said = NULL;
    if (strcmp(type, "message") == 0) {
        said = json_object_get(json_array_get(json_object_get(item, "content"), 0), "text");
    } else if (strcmp(type, "reasoning") == 0) {
        const json_t *summary = json_object_get(item, "summary");
        said = json_object_get(json_array_get(json_array_size(summary) ? summary : json_object_get(item, "content"), 0),
                               "text");
    } else if (strcmp(type, "function_call") == 0) {
        said = json_object_get(item, "arguments");
    } else if (strcmp(type, "custom_tool_call") == 0) {
        said = json_object_get(item, "input");
    } else if (strcmp(type, "local_shell_call") == 0) {
        o->text_done = json_is_array(json_object_get(json_object_get(item, "action"), "command"));
    }
    if (!o->text_done) return order_wrong(o, "the end of an item before its text's");
    if (said && (json_string_length(said) != o->bytes || memcmp(json_string_value(said), o->text, o->bytes) != 0))
        return order_wrong(o, "an item that is not what its deltas said");
    if (strstr(type, "call") && (!order_string(item, "call_id")[0] || !order_is(item, "status", "completed")))
        return order_wrong(o, "a call that is not complete");
    json_array_append(json_object_get(o->made, "output"), item);
    o->open = NULL;
    o->next++;
    return true;
}

typedef struct order_step {
    const char *event, *type, *part, *member; /* of items of this type; member: of the delta, or of the whole text */
    enum { ORDER_PART, ORDER_DELTA, ORDER_TEXT_DONE, ORDER_PART_DONE } step;
    bool in_part; /* only in an open part */
} order_step;

static inline bool order_take_step(order *o, const order_step *step, const json_t *data)
{
    const json_t *value = json_object_get(data, step->member);
    if (!order_of_item(o, data, step->type, step->part)) return false;
    if (step->step == ORDER_PART ? o->part : step->in_part && !o->part) return order_wrong(o, "order of a part");
    if (step->step == ORDER_PART) {
        o->part = true;
        return json_is_object(value) || order_wrong(o, "no part");
    }
    if (step->step == ORDER_PART_DONE) {
        const json_t *text = json_object_get(value, "text");
        o->part = false;
        if (!o->text_done) return order_wrong(o, "the end of a part before its text's");
        return (json_string_length(text) == o->bytes && memcmp(json_string_value(text), o->text, o->bytes) == 0) ||
               order_wrong(o, "a part that is not what its deltas said");
    }
    if (!json_is_string(value)) return order_wrong(o, "no %s", step->member);
    if (o->text_done) return order_wrong(o, "text behind its end");
    if (step->step == ORDER_DELTA) {
        order_add(o, value);
        return true;
    }
    o->text_done = true;
    return (json_string_length(value) == o->bytes && memcmp(json_string_value(value), o->text, o->bytes) == 0) ||
           order_wrong(o, "a text that is not what its deltas said");
}

static inline bool order_response_end(order *o, const char *event, json_t *data)
{
    json_t *response = json_object_get(data, "response"), *made = json_object_get(o->made, "output");
    const char *status = strchr(event, '.') + 1;
    o->ended = true;
    if (!order_is(response, "status", status)) return order_wrong(o, "another status");
    if (!order_is(response, "id", order_string(o->made, "id"))) return order_wrong(o, "another id");
    if (!json_equal(json_object_get(response, "output"), made)) return order_wrong(o, "output that is not the items");
    if (strcmp(status, "failed") == 0) {
        const json_t *error = json_object_get(response, "error");
        if (!order_string(error, "code")[0] || !order_string(error, "message")[0]) return order_wrong(o, "no error");
    } else {
        const json_t *usage = json_object_get(response, "usage");
        if (order_number(usage, "input_tokens") + order_number(usage, "output_tokens") !=
                order_number(usage, "total_tokens") ||
            order_number(json_object_get(usage, "input_tokens_details"), "cached_tokens") < 0 ||
            order_number(json_object_get(usage, "output_tokens_details"), "reasoning_tokens") < 0)
            return order_wrong(o, "usage");
        const bool cut = strcmp(status, "incomplete") == 0;
        if (cut && !order_is(json_object_get(response, "incomplete_details"), "reason", "max_output_tokens"))
            return order_wrong(o, "no reason");
        if (o->open && !(cut && strstr(order_string(o->open, "type"), "call")))
            return order_wrong(o, "the end in an open item");
    }
    json_decref(o->made);
    o->made = json_deep_copy(response);
    return true;
}

static inline bool order_response_event(order *o, const char *event, json_t *data)
{
    static const order_step steps[] = {
        {"response.content_part.added", "message", "content_index", "part", ORDER_PART, false},
        {"response.content_part.added", "reasoning", "content_index", "part", ORDER_PART, false},
        {"response.output_text.delta", "message", "content_index", "delta", ORDER_DELTA, true},
        {"response.output_text.done", "message", "content_index", "text", ORDER_TEXT_DONE, true},
        {"response.content_part.done", "message", "content_index", "part", ORDER_PART_DONE, true},
        {"response.content_part.done", "reasoning", "content_index", "part", ORDER_PART_DONE, true},
        {"response.reasoning_text.delta", "reasoning", "content_index", "delta", ORDER_DELTA, true},
        {"response.reasoning_text.done", "reasoning", "content_index", "text", ORDER_TEXT_DONE, true},
        {"response.reasoning_summary_part.added", "reasoning", "summary_index", "part", ORDER_PART, false},
        {"response.reasoning_summary_text.delta", "reasoning", "summary_index", "delta", ORDER_DELTA, true},
        {"response.reasoning_summary_text.done", "reasoning", "summary_index", "text", ORDER_TEXT_DONE, true},
        {"response.reasoning_summary_part.done", "reasoning", "summary_index", "part", ORDER_PART_DONE, true},
        {"response.function_call_arguments.delta", "function_call", NULL, "delta", ORDER_DELTA, false},
        {"response.function_call_arguments.done", "function_call", NULL, "arguments", ORDER_TEXT_DONE, false},
        {"response.custom_tool_call_input.delta", "custom_tool_call", NULL, "delta", ORDER_DELTA, false},
        {"response.custom_tool_call_input.done", "custom_tool_call", NULL, "input", ORDER_TEXT_DONE, false}};
    if (!order_is(data, "type", event)) return order_wrong(o, "type and event differ");
    if (order_number(data, "sequence_number") != o->sequence++) return order_wrong(o, "sequence_number");
    if (o->ended) return order_wrong(o, "%s behind the end", event);
    if (!o->begun) {
        json_t *response = json_object_get(data, "response");
        if (strcmp(event, "response.created") != 0) return order_wrong(o, "%s before response.created", event);
        if (strncmp(order_string(response, "id"), "resp_", 5) != 0 || !order_is(response, "object", "response") ||
            !order_is(response, "status", "in_progress") || !json_is_array(json_object_get(response, "output")))
            return order_wrong(o, "a response that is not complete");
        o->made = json_deep_copy(response);
        return o->begun = true;
    }
    if (strcmp(event, "response.in_progress") == 0) {
        return order_is(json_object_get(data, "response"), "id", order_string(o->made, "id")) ||
               order_wrong(o, "another response");
    }
    if (strcmp(event, "response.output_item.added") == 0) return order_item_added(o, data);
    if (strcmp(event, "response.output_item.done") == 0) return order_item_done(o, data);
    if (strcmp(event, "response.completed") == 0 || strcmp(event, "response.incomplete") == 0 ||
        strcmp(event, "response.failed") == 0)
        return order_response_end(o, event, data);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        if (strcmp(steps[i].event, event) == 0 && (!o->open || order_is(o->open, "type", steps[i].type)))
            return order_take_step(o, &steps[i], data);
    }
    return order_wrong(o, "%s: nobody expects it here", event);
}

/* ---------------------------------------------------------------- both */

typedef bool order_event(order *o, const char *event, json_t *data);

/* Runs events through an automaton. The message or response that they make (a new reference), or NULL with `why`. */
static inline json_t *order_run(json_t *events, order_event *take, char *why, size_t size)
{
    order o = {.why = ""};
    size_t i;
    json_t *event;
    bool right = json_is_array(events) || order_wrong(&o, "no events");
    json_array_foreach(events, i, event)
    {
        o.number = i;
        right = right && take(&o, order_string(event, "event"), json_object_get(event, "data"));
    }
    if (right && !o.ended) right = order_wrong(&o, "no end");
    snprintf(why, size, "%s", o.why);
    free(o.text);
    if (right) return o.made;
    json_decref(o.made);
    return NULL;
}

#endif
