#include "text/chat_template_request.h"

#include "base/buf.h"
#include "base/error.h"
#include "base/json_read.h"
#include "base/mem.h"
#include "jinja/jinja.h"

#include <string.h>

/* Values are built without a look at each result: jansson's functions take the NULL of one before, and
 * mq__chat_request_variables asks at its end whether any of them was short of memory. */

mq_status mq__chat_request_parse(const char *text, size_t bytes, json_t **request, mq_error *error)
{
    return mq__json_read(text, bytes, JSON_ALLOW_NUL, MQ_JSON_KEEP_NUMBERS, "request", request, error);
}

static int role_of(const json_t *message)
{
    const char *const role = json_string_value(json_object_get(message, "role"));
    if (!role) return MQ_CHAT_USER;
    if (strcmp(role, "system") == 0 || strcmp(role, "developer") == 0) return MQ_CHAT_SYSTEM;
    if (strcmp(role, "assistant") == 0) return MQ_CHAT_ASSISTANT;
    return strcmp(role, "tool") == 0 ? MQ_CHAT_TOOL : MQ_CHAT_USER;
}

/* ---------------------------------------------------------------- tool calls */

static bool is_blank(const json_t *text)
{
    const char *const value = json_string_value(text);
    return value && strspn(value, " \t\r\n") == json_string_length(text);
}

/* The object that a string of arguments holds; no arguments are an empty one. Anything else stays. A new reference. */
static json_t *arguments_as_object(json_t *given)
{
    json_t *parsed = NULL;
    if (!given || json_is_null(given) || is_blank(given)) return json_object();
    if (!json_is_string(given)) return json_incref(given);
    (void)mq__json_read(json_string_value(given), json_string_length(given), JSON_ALLOW_NUL, MQ_JSON_KEEP_NUMBERS,
                        "arguments", &parsed, NULL);
    if (json_is_object(parsed)) return parsed;
    json_decref(parsed);
    return json_incref(given);
}

/* The JSON text of a value as templates print it. */
static mq_status print_tojson(const json_t *value, json_t **text, mq_error *error)
{
    static const char source[] = "{{ value|tojson }}";
    mq_jinja *program = NULL;
    char *printed = NULL;
    size_t bytes = 0;
    json_t *const variables = json_pack("{s:O}", "value", value);
    mq_status status = variables ? mq__jinja_parse(source, sizeof source - 1, &program, error)
                                 : mq__fail(error, MQ_NO_MEMORY, "request: out of memory");
    if (status == MQ_OK) status = mq__jinja_render(program, variables, NULL, &printed, &bytes, error);
    *text = status == MQ_OK ? json_stringn(printed, bytes) : NULL;
    mq__free(printed);
    mq__jinja_free(program);
    json_decref(variables);
    return status;
}

/* A string stays as it came. */
static mq_status arguments_as_text(json_t *given, json_t **text, mq_error *error)
{
    if (json_is_string(given)) *text = json_incref(given);
    if (!given || json_is_null(given)) *text = json_string("{}");
    return *text ? MQ_OK : print_tojson(given, text, error);
}

/* A copy of one tool call with the arguments in the form that the template takes; *call is replaced. */
static mq_status convert_call(json_t **call, const mq_chat_takes *takes, mq_error *error)
{
    if (!json_is_object(*call)) return MQ_OK;
    json_t *const function = json_object_get(*call, "function");
    json_t *const inner = json_copy(json_is_object(function) ? function : *call);
    json_t *const given = json_object_get(inner, "arguments");
    json_t *arguments = NULL;
    mq_status status = MQ_OK;
    if (takes->text_arguments) {
        status = arguments_as_text(given, &arguments, error);
    } else {
        arguments = arguments_as_object(given);
    }
    json_object_set_new(inner, "arguments", arguments);
    json_t *outer = inner;
    if (json_is_object(function)) {
        outer = json_copy(*call);
        json_object_set_new(outer, "function", inner);
    }
    json_decref(*call);
    *call = outer;
    return status;
}

static mq_status convert_calls(json_t *message, const mq_chat_takes *takes, mq_error *error)
{
    const json_t *const calls = json_object_get(message, "tool_calls");
    mq_status status = MQ_OK;
    if (!json_is_array(calls)) return MQ_OK;
    json_t *const list = json_array();
    for (size_t i = 0; status == MQ_OK && i < json_array_size(calls); i++) {
        json_t *call = json_incref(json_array_get(calls, i));
        status = convert_call(&call, takes, error);
        json_array_append_new(list, call);
    }
    json_object_set_new(message, "tool_calls", list);
    return status;
}

/* ---------------------------------------------------------------- messages */

/* The texts of a list of parts, joined by line breaks. MQ_FORMAT when it has another kind of part. */
static mq_status flatten(const json_t *parts, size_t message, json_t **joined, mq_error *error)
{
    mq_buf text = {0};
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *const part = json_array_get(parts, i);
        const char *const type = json_string_value(json_object_get(part, "type"));
        const json_t *const piece = json_is_string(part) ? part : json_object_get(part, "text");
        if (!json_is_string(piece) || (type && strcmp(type, "text") != 0)) {
            mq__buf_free(&text);
            return mq__fail(error, MQ_FORMAT,
                            "request: messages[%zu].content[%zu]: expected a part of type text, got %s", message, i,
                            type ? type : "another value");
        }
        if (i) (void)mq__buf_putc(&text, '\n');
        (void)mq__buf_append(&text, json_string_value(piece), json_string_length(piece));
    }
    *joined = text.failed ? NULL : json_stringn(text.data ? text.data : "", text.len);
    mq__buf_free(&text);
    return *joined ? MQ_OK : mq__fail(error, MQ_NO_MEMORY, "request: out of memory");
}

/* Clients send null for what a message does not have, and no calls as []: the member goes. Null content is empty text,
 * but beside calls for a template that knows them by it. */
static void drop_nulls(json_t *message, const mq_chat_takes *takes)
{
    const char *name;
    void *next;
    json_t *value;
    if (json_is_array(json_object_get(message, "tool_calls")) &&
        json_array_size(json_object_get(message, "tool_calls")) == 0) {
        json_object_del(message, "tool_calls");
    }
    json_object_foreach_safe(message, next, name, value)
    {
        if (json_is_null(value) && strcmp(name, "content") != 0) json_object_del(message, name);
    }
    const json_t *const content = json_object_get(message, "content");
    if (takes->null_content && json_object_get(message, "tool_calls")) {
        if (!content) json_object_set_new(message, "content", json_null());
    } else if (json_is_null(content)) {
        json_object_set_new(message, "content", json_string(""));
    }
}

static mq_status convert_content(json_t *message, size_t number, const mq_chat_takes *takes, mq_error *error)
{
    json_t *const content = json_object_get(message, "content"), *converted = NULL;
    const mq_chat_content form = takes->content[role_of(message)];
    if (json_is_array(content) && form == MQ_CHAT_TEXT) {
        const mq_status status = flatten(content, number, &converted, error);
        if (status != MQ_OK) return status;
    } else if (json_is_string(content) && form == MQ_CHAT_PARTS) {
        converted = json_pack("[{s:s,s:O}]", "type", "text", "text", content);
    } else {
        return MQ_OK;
    }
    json_object_set_new(message, "content", converted);
    return MQ_OK;
}

static mq_status convert_messages(const json_t *messages, const mq_chat_takes *takes, json_t *list, mq_error *error)
{
    mq_status status = MQ_OK;
    if (!json_is_array(messages)) {
        return mq__fail(error, MQ_FORMAT, "request: messages: expected a list, got %s",
                        messages ? "another value" : "nothing");
    }
    for (size_t i = 0; status == MQ_OK && i < json_array_size(messages); i++) {
        json_t *const given = json_array_get(messages, i);
        if (!json_is_string(json_object_get(given, "role"))) {
            return mq__fail(error, MQ_FORMAT, "request: messages[%zu]: expected an object with a role", i);
        }
        json_t *const message = json_copy(given);
        drop_nulls(message, takes);
        status = convert_content(message, i, takes, error);
        if (status == MQ_OK) status = convert_calls(message, takes, error);
        json_array_append_new(list, message);
    }
    return status;
}

/* ---------------------------------------------------------------- the request */

static mq_status check_request(const json_t *request, mq_error *error)
{
    if (!json_is_object(request)) return mq__fail(error, MQ_FORMAT, "request: expected a JSON object");
    const json_t *const kwargs = json_object_get(request, "chat_template_kwargs");
    if (kwargs && !json_is_object(kwargs) && !json_is_null(kwargs)) {
        return mq__fail(error, MQ_FORMAT, "request: chat_template_kwargs: expected an object");
    }
    if (json_object_get(kwargs, "messages") || json_object_get(kwargs, "tools")) {
        return mq__fail(error, MQ_FORMAT,
                        "request: chat_template_kwargs: expected other names than messages and tools");
    }
    const json_t *const tools = json_object_get(request, "tools");
    if (tools && !json_is_array(tools) && !json_is_null(tools)) {
        return mq__fail(error, MQ_FORMAT, "request: tools: expected a list");
    }
    return MQ_OK;
}

/* Sets a member of the request, or `fallback` (a reference that is taken). */
static void set_member(json_t *variables, const json_t *request, const char *name, json_t *fallback)
{
    json_t *const found = json_object_get(request, name);
    if (found) json_decref(fallback);
    json_object_set_new(variables, name, found ? json_incref(found) : fallback);
}

mq_status mq__chat_request_variables(const json_t *request, const json_t *tokens, const mq_chat_takes *takes,
                                     json_t **out, mq_error *error)
{
    const unsigned long before = mq__json_failures();
    *out = NULL;
    mq_status status = check_request(request, error);
    if (status != MQ_OK) return status;
    json_t *const variables = json_copy((json_t *)(uintptr_t)tokens), *const messages = json_array();
    status = convert_messages(json_object_get(request, "messages"), takes, messages, error);
    json_object_set_new(variables, "messages", messages);
    set_member(variables, request, "tools", json_null());
    set_member(variables, request, "documents", json_null());
    set_member(variables, request, "add_generation_prompt", json_true());
    json_t *const effort = json_object_get(request, "reasoning_effort");
    json_t *const kwargs = json_object_get(request, "chat_template_kwargs");
    if (json_is_string(effort)) json_object_set(variables, "reasoning_effort", effort);
    if (json_is_object(kwargs)) json_object_update(variables, kwargs);
    if (mq__json_failures() != before) status = mq__fail(error, MQ_NO_MEMORY, "request: out of memory");
    if (status == MQ_OK) {
        *out = variables;
    } else {
        json_decref(variables);
    }
    return status;
}
