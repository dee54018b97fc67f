/* OpenAI's chat messages in the normal form that templates get. */
#include "base/json_read.h"
#include "base/mem.h"
#include "server/answering.h"

#include <stdio.h>
#include <string.h>

/* Texts that come together in one message lie in a list until mq__messages_finish joins them: a conversation of many system
 * messages would otherwise be copied once for each. */
#define BETWEEN    "\n\n" /* texts of one message */
#define TAG_BEGIN  "<system-reminder>\n"
#define TAG_END    "\n</system-reminder>"
#define NAMED_MOST 256 /* calls among which the name of a tool's message is looked for */

static const char *string_at(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

static bool has_role(const json_t *message, const char *role)
{
    const char *own = string_at(message, "role");
    return own && strcmp(own, role) == 0;
}

/* ---- the list */

/* Adds a text to a message's content. */
static bool add_piece(json_t *message, const char *text, size_t bytes)
{
    json_t *content = json_object_get(message, "content"), *more = mq__json_text(text, bytes);
    if (bytes == 0) {
        json_decref(more);
        return true;
    }
    if (json_is_array(content)) return json_array_append_new(content, more) == 0;
    json_t *list = json_array();
    if (json_string_length(content)) (void)json_array_append(list, content);
    const bool added = json_array_append_new(list, more) == 0;
    return json_object_set_new(message, "content", list) == 0 && added;
}

static bool add_reminder(json_t *message, const char *text, size_t bytes)
{
    mq_buf tagged = {0};
    (void)mq__buf_puts(&tagged, TAG_BEGIN);
    (void)mq__buf_append(&tagged, text, bytes);
    (void)mq__buf_puts(&tagged, TAG_END);
    const bool added = !tagged.failed && add_piece(message, tagged.data, tagged.len);
    mq__buf_free(&tagged);
    return added;
}

static bool add_system(mq_ask *ask, json_t *message)
{
    const size_t count = json_array_size(ask->messages);
    json_t *last = count ? json_array_get(ask->messages, count - 1) : NULL;
    const json_t *content = json_object_get(message, "content");
    const char *text = json_string_value(content);
    const size_t bytes = json_string_length(content);
    if (!last)
        return json_object_set_new(message, "role", json_string("system")) == 0 &&
               json_array_append(ask->messages, message) == 0;
    if (has_role(last, "system")) return add_piece(last, text, bytes);
    if (bytes == 0) return true;
    if (!has_role(last, "assistant")) return add_reminder(last, text, bytes);
    json_t *begun = json_pack("{ssss}", "role", "user", "content", "");
    ask->joins_next = true;
    return json_array_append_new(ask->messages, begun) == 0 && add_reminder(begun, text, bytes);
}

static bool append_normal(mq_ask *ask, json_t *message)
{
    if (has_role(message, "system") || has_role(message, "developer")) return add_system(ask, message);
    const size_t count = json_array_size(ask->messages);
    const bool joins = ask->joins_next && has_role(message, "user");
    ask->joins_next = false;
    if (!joins) return json_array_append(ask->messages, message) == 0;
    const json_t *content = json_object_get(message, "content");
    return add_piece(json_array_get(ask->messages, count - 1), json_string_value(content), json_string_length(content));
}

bool mq__messages_append(mq_ask *ask, json_t *message, mq_fault *fault)
{
    if (!ask->messages) ask->messages = json_array();
    const bool appended = message && append_normal(ask, message);
    json_decref(message);
    return appended || mq__fault_memory(fault);
}

static bool join_texts(json_t *message)
{
    const json_t *list = json_object_get(message, "content");
    if (!json_is_array(list)) return true;
    mq_buf text = {0};
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *piece = json_array_get(list, i);
        if (i) (void)mq__buf_puts(&text, BETWEEN);
        (void)mq__buf_append(&text, json_string_value(piece), json_string_length(piece));
    }
    json_t *joined = text.failed ? NULL : mq__json_text(text.data, text.len);
    mq__buf_free(&text);
    return json_object_set_new(message, "content", joined) == 0;
}

bool mq__messages_finish(mq_server *server, mq_ask *ask, mq_fault *fault)
{
    const size_t count = json_array_size(ask->messages), most = mq__server_limits(server)->messages;
    if (count == 0 || count > most) {
        return mq__fault(fault, "messages", "messages: expected 1 to %zu, got %zu", most, count);
    }
    for (size_t i = 0; i < count; i++) {
        if (!join_texts(json_array_get(ask->messages, i))) return mq__fault_memory(fault);
    }
    return true;
}

/* ---- one message as it comes */

typedef struct incoming {
    const json_t *message;
    size_t number;
    bool asks;     /* it is of those with which the client asks now */
    json_t *calls; /* of the latest assistant's message, normalised; borrowed from the ask */
    mq_ask *ask;
    mq_fault *fault;
} incoming;

static bool wrong(const incoming *in, const char *member, const char *expected)
{
    char param[96];
    snprintf(param, sizeof param, "messages[%zu]%s%s", in->number, member[0] ? "." : "", member);
    return mq__fault(in->fault, param, "%s: expected %s", param, expected);
}

static bool is_text_part(const char *type)
{
    static const char *const kinds[] = {"text", "input_text", "output_text", "refusal"};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(type, kinds[i]) == 0) return true;
    }
    return false;
}

/* The text of a part of a list; NULL: it has none that we can use, and the fault says so. */
static const json_t *part_text(const incoming *in, size_t at, const json_t *part)
{
    const char *type = string_at(part, "type");
    if (json_is_string(part)) return part;
    const bool known = !type || is_text_part(type);
    const json_t *text = json_object_get(part, type && strcmp(type, "refusal") == 0 ? "refusal" : "text");
    if (known && json_is_string(text)) return text;
    char param[96];
    snprintf(param, sizeof param, "messages[%zu].content[%zu]", in->number, at);
    (void)mq__fault(in->fault, param, "%s: expected a part of type text, got %.64s%s", param,
                    type ? type : "another value", type && !known ? ": this model reads text only" : "");
    return NULL;
}

/* Reasoning that a client puts into the content is not part of it. */
static bool is_reasoning(const json_t *part)
{
    const char *type = string_at(part, "type");
    return type &&
           (strcmp(type, "thinking") == 0 || strcmp(type, "reasoning") == 0 || strcmp(type, "redacted_thinking") == 0);
}

/* An item of the Responses API is a message by its type, or has none. */
static bool is_message_of(const json_t *message, const char *role)
{
    const char *type = string_at(message, "type");
    return has_role(message, role) && (!type || strcmp(type, "message") == 0);
}

size_t mq__messages_asking(const json_t *messages)
{
    size_t count = json_array_size(messages);
    const json_t *last = json_array_get(messages, count - 1);
    if (count > 1 && is_message_of(last, "assistant") && !json_array_size(json_object_get(last, "tool_calls"))) count--;
    while (count > 1 && (is_message_of(json_array_get(messages, count - 1), "system") ||
                         is_message_of(json_array_get(messages, count - 1), "developer"))) {
        count--;
    }
    return count ? count - 1 : 0;
}

/* A session that has an image in its past must go on: only what the user shows now is refused. */
static bool may_leave_out(const incoming *in, const json_t *part)
{
    const char *type = string_at(part, "type"), *role = string_at(in->message, "role");
    const bool shown = in->asks && role && strcmp(role, "user") == 0;
    return type && !shown && !is_text_part(type);
}

static bool leave_out(const incoming *in, const json_t *part, mq_buf *text)
{
    const char *type = string_at(part, "type");
    (void)mq__buf_printf(text, "[%.32s left out: this model reads text only]", type);
    return mq__ask_warn(in->ask, "part of type %.64s", type);
}

/* The texts of a list of parts, joined by line breaks. NULL with a fault. */
static json_t *text_of_parts(const incoming *in, const json_t *parts)
{
    mq_buf text = {0};
    bool first = true;
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i);
        if (is_reasoning(part)) continue;
        const bool without = may_leave_out(in, part);
        const json_t *piece = without ? NULL : part_text(in, i, part);
        if (!piece && !without) {
            mq__buf_free(&text);
            return NULL;
        }
        if (!first) (void)mq__buf_putc(&text, '\n');
        first = false;
        if (!without)
            (void)mq__buf_append(&text, json_string_value(piece), json_string_length(piece));
        else if (!leave_out(in, part, &text))
            text.failed = true;
    }
    json_t *joined = text.failed ? NULL : mq__json_text(text.data ? text.data : "", text.len);
    mq__buf_free(&text);
    if (!joined) (void)mq__fault_memory(in->fault);
    return joined;
}

/* Content as a string; null and nothing are "". NULL with a fault. */
static json_t *text_of_content(const incoming *in)
{
    json_t *content = json_object_get(in->message, "content");
    if (json_is_array(content)) return text_of_parts(in, content);
    const bool empty = !content || json_is_null(content);
    if (!empty && !json_is_string(content)) {
        (void)wrong(in, "content", "a string, null or a list of parts, got another value");
        return NULL;
    }
    json_t *text = empty ? json_string("") : json_incref(content);
    if (!text) (void)mq__fault_memory(in->fault);
    return text;
}

/* ---- calls */

/* Arguments stay as they came: a string that holds no object is shown to the template as it is. */
static json_t *normal_call(const incoming *in, size_t at, const json_t *call)
{
    const json_t *custom = json_object_get(call, "custom"), *function = json_object_get(call, "function");
    const json_t *inner = json_is_object(function) ? function : json_is_object(custom) ? custom : call;
    json_t *name = json_object_get(inner, "name"), *arguments = json_object_get(inner, "arguments");
    json_t *id = json_object_get(call, "id");
    if (!json_is_string(name)) {
        char member[64];
        snprintf(member, sizeof member, "tool_calls[%zu]", at);
        (void)wrong(in, member, "an object with a function and its name, got another value");
        return NULL;
    }
    if (inner == custom) {
        arguments = json_pack("{sO?}", "input", json_object_get(custom, "input"));
    } else {
        arguments = arguments && !json_is_null(arguments) ? json_incref(arguments) : json_string("{}");
    }
    json_t *made = json_pack("{s{sOso}}", "function", "name", name, "arguments", arguments);
    json_t *normal = json_pack("{sssO}", "type", "function", "function", json_object_get(made, "function"));
    json_decref(made);
    if (json_is_string(id)) (void)json_object_set(normal, "id", id);
    if (!normal) (void)mq__fault_memory(in->fault);
    return normal;
}

/* *calls stays NULL where there are none. */
static bool normal_calls(const incoming *in, json_t **calls)
{
    const json_t *given = json_object_get(in->message, "tool_calls"),
                 *legacy = json_object_get(in->message, "function_call");
    *calls = NULL;
    if (given && !json_is_null(given) && !json_is_array(given)) {
        return wrong(in, "tool_calls", "a list, got another value");
    }
    const size_t count = json_array_size(given);
    if (count == 0 && !json_is_object(legacy)) return true;
    *calls = json_array();
    for (size_t i = 0; i < count || (count == 0 && i == 0); i++) {
        json_t *call = normal_call(in, i, count ? json_array_get(given, i) : legacy);
        if (call && json_array_append_new(*calls, call) == 0) continue;
        if (call) (void)mq__fault_memory(in->fault);
        json_decref(*calls);
        *calls = NULL;
        return false;
    }
    return true;
}

/* Templates of some models name the tool in its answer; clients only send the call's id. */
static json_t *name_of_call(const incoming *in)
{
    const char *id = string_at(in->message, "tool_call_id");
    const size_t count = json_array_size(in->calls);
    for (size_t i = 0; id && count <= NAMED_MOST && i < count; i++) {
        const json_t *call = json_array_get(in->calls, i);
        const char *own = string_at(call, "id");
        if (own && strcmp(own, id) == 0) return json_object_get(json_object_get(call, "function"), "name");
    }
    return NULL;
}

/* ---- messages */

static void copy_member(json_t *to, const json_t *from, const char *name, const char *as)
{
    json_t *value = json_object_get(from, name);
    if (json_is_string(value) && !json_object_get(to, as)) (void)json_object_set(to, as, value);
}

static bool fill_assistant(const incoming *in, json_t *normal)
{
    json_t *calls;
    if (json_string_length(json_object_get(normal, "content")) == 0) {
        json_t *refusal = json_object_get(in->message, "refusal"); /* OpenAI's in place of content */
        if (json_is_string(refusal)) (void)json_object_set(normal, "content", refusal);
    }
    copy_member(normal, in->message, "reasoning_content", "reasoning_content");
    copy_member(normal, in->message, "reasoning", "reasoning_content");
    if (!normal_calls(in, &calls)) return false;
    if (!calls) return true;
    const json_t *content = json_object_get(normal, "content");
    if (json_string_length(content) == 0) (void)json_object_set_new(normal, "content", json_null());
    return json_object_set_new(normal, "tool_calls", calls) == 0 || mq__fault_memory(in->fault);
}

static bool fill_tool(const incoming *in, json_t *normal)
{
    copy_member(normal, in->message, "tool_call_id", "tool_call_id");
    json_t *name = json_object_get(normal, "name") ? NULL : name_of_call(in);
    if (name) (void)json_object_set(normal, "name", name);
    return true;
}

/* The normal form's name of a role; NULL: there is none. */
static const char *normal_role(const char *role)
{
    static const char *const roles[][2] = {{"system", "system"},       {"developer", "system"}, {"user", "user"},
                                           {"assistant", "assistant"}, {"tool", "tool"},        {"function", "tool"}};
    for (size_t i = 0; role && i < sizeof roles / sizeof roles[0]; i++) {
        if (strcmp(role, roles[i][0]) == 0) return roles[i][1];
    }
    return NULL;
}

/* A new reference; NULL with a fault. */
static json_t *normal_message(const incoming *in)
{
    const char *role = normal_role(string_at(in->message, "role"));
    if (!role) {
        (void)wrong(in, json_is_object(in->message) ? "role" : "",
                    json_is_object(in->message) ? "system, developer, user, assistant or tool, got another value"
                                                : "an object, got another value");
        return NULL;
    }
    json_t *content = text_of_content(in);
    if (!content) return NULL;
    json_t *normal = json_pack("{ssso}", "role", role, "content", content);
    copy_member(normal, in->message, "name", "name");
    bool filled = normal || mq__fault_memory(in->fault);
    if (filled && strcmp(role, "assistant") == 0) filled = fill_assistant(in, normal);
    if (filled && strcmp(role, "tool") == 0) filled = fill_tool(in, normal);
    if (filled) return normal;
    json_decref(normal);
    return NULL;
}

bool mq__read_messages(mq_server *server, const json_t *messages, mq_ask *ask, mq_fault *fault)
{
    incoming in = {.ask = ask, .fault = fault};
    const size_t count = json_array_size(messages), most = mq__server_limits(server)->messages;
    if (!json_is_array(messages) || count == 0 || count > most) {
        return mq__fault(fault, "messages", "messages: expected a list of 1 to %zu, got %s", most,
                         !json_is_array(messages) ? "another value"
                         : count                  ? "more"
                                                  : "none");
    }
    const size_t asking = mq__messages_asking(messages);
    for (in.number = 0; in.number < count; in.number++) {
        in.message = json_array_get(messages, in.number);
        in.asks = in.number >= asking;
        json_t *normal = normal_message(&in);
        if (!normal) return false;
        if (has_role(normal, "assistant")) in.calls = json_object_get(normal, "tool_calls");
        if (!mq__messages_append(ask, normal, fault)) return false;
    }
    return mq__messages_finish(server, ask, fault);
}
