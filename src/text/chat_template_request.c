#include "text/chat_template_request.h"

#include "base/buf.h"
#include "base/error.h"

#include <string.h>

json_t *mq__chat_request_parse(const char *text, size_t bytes, mq_error *error)
{
    json_error_t reason;
    json_t *const request = json_loadb(text, bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &reason);
    if (!request) {
        mq__fail(error, MQ_FORMAT, "request: line %d column %d: expected JSON, got %s", reason.line, reason.column,
                 reason.text);
    }
    return request;
}

static int role_of(const json_t *message)
{
    const char *const role = json_string_value(json_object_get(message, "role"));
    if (!role) return MQ_CHAT_USER;
    if (strcmp(role, "system") == 0 || strcmp(role, "developer") == 0) return MQ_CHAT_SYSTEM;
    if (strcmp(role, "assistant") == 0) return MQ_CHAT_ASSISTANT;
    return strcmp(role, "tool") == 0 ? MQ_CHAT_TOOL : MQ_CHAT_USER;
}

/* The texts of a list of parts, joined by line breaks; NULL and an error when it has another kind of part. */
static json_t *flatten(const json_t *parts, size_t message, mq_error *error)
{
    mq_buf text = {0};
    json_t *result = NULL;
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *const part = json_array_get(parts, i);
        const char *const type = json_string_value(json_object_get(part, "type"));
        const json_t *const piece = json_is_string(part) ? part : json_object_get(part, "text");
        if (!json_is_string(piece) || (type && strcmp(type, "text") != 0)) {
            mq__fail(error, MQ_FORMAT, "request: messages[%zu].content[%zu]: expected a part of type text, got %s",
                     message, i, type ? type : "another value");
            goto out;
        }
        if (i) (void)mq__buf_putc(&text, '\n');
        (void)mq__buf_append(&text, json_string_value(piece), json_string_length(piece));
    }
    result = text.failed ? NULL : json_stringn(text.data ? text.data : "", text.len);
    if (!result) mq__fail(error, MQ_NO_MEMORY, "request: out of memory");

out:
    mq__buf_free(&text);
    return result;
}

/* The object that a string of arguments holds, or NULL. */
static json_t *parse_arguments_chat_template_request(const json_t *arguments)
{
    if (!json_is_string(arguments)) return NULL;
    json_t *const parsed = json_loadb(json_string_value(arguments), json_string_length(arguments),
                                      JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    if (json_is_object(parsed)) return parsed;
    json_decref(parsed);
    return NULL;
}

/* A copy of one tool call with parsed arguments, or a new reference to it when there is nothing to change. */
static json_t *convert_call(json_t *call)
{
    json_t *const function = json_object_get(call, "function");
    json_t *const holder = json_is_object(function) ? function : call;
    json_t *const arguments = parse_arguments_chat_template_request(json_object_get(holder, "arguments"));
    if (!arguments) return json_incref(call);
    json_t *const inner = json_copy(holder);
    if (json_object_set_new(inner, "arguments", arguments) != 0) {
        json_decref(inner);
        return NULL;
    }
    if (holder == call) return inner;
    json_t *const copy = json_copy(call);
    if (json_object_set_new(copy, "function", inner) != 0) {
        json_decref(copy);
        return NULL;
    }
    return copy;
}

static json_t *convert_calls(const json_t *calls)
{
    json_t *const list = json_array();
    for (size_t i = 0; list && i < json_array_size(calls); i++) {
        if (json_array_append_new(list, convert_call(json_array_get(calls, i))) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

/* The content that the template takes, as a new reference; *changed tells whether it differs. */
static json_t *convert_content(json_t *content, mq_chat_content takes, size_t message, bool *changed, mq_error *error)
{
    *changed = true;
    if (json_is_array(content) && takes == MQ_CHAT_TEXT) return flatten(content, message, error);
    if (json_is_string(content) && takes == MQ_CHAT_PARTS) {
        json_t *const parts = json_pack("[{s:s,s:O}]", "type", "text", "text", content);
        if (!parts) mq__fail(error, MQ_NO_MEMORY, "request: out of memory");
        return parts;
    }
    *changed = false;
    return json_incref(content);
}

/* A new reference to the message, or to a changed copy of it. */
static json_t *convert_message(json_t *message, size_t number, const mq_chat_content takes[MQ_CHAT_ROLES],
                               mq_error *error)
{
    json_t *const content = json_object_get(message, "content"), *const calls = json_object_get(message, "tool_calls");
    json_t *result = json_incref(message);
    if (content) {
        bool changed;
        json_t *const converted = convert_content(content, takes[role_of(message)], number, &changed, error);
        if (!converted) goto fail;
        if (changed) {
            json_decref(result);
            result = json_copy(message);
        }
        if (!changed) {
            json_decref(converted);
        } else if (json_object_set_new(result, "content", converted) != 0) {
            goto no_memory;
        }
    }
    if (json_array_size(calls) > 0) {
        json_t *const copy = json_copy(result);
        json_decref(result);
        result = copy;
        if (json_object_set_new(result, "tool_calls", convert_calls(calls)) != 0) goto no_memory;
    }
    return result;

no_memory:
    mq__fail(error, MQ_NO_MEMORY, "request: out of memory");
fail:
    json_decref(result);
    return NULL;
}

static json_t *convert_messages(const json_t *messages, const mq_chat_content takes[MQ_CHAT_ROLES], mq_error *error)
{
    if (!json_is_array(messages)) {
        mq__fail(error, MQ_FORMAT, "request: messages: expected a list, got %s",
                 messages ? "another value" : "nothing");
        return NULL;
    }
    json_t *const list = json_array();
    for (size_t i = 0; list && i < json_array_size(messages); i++) {
        json_t *const message = json_array_get(messages, i);
        if (!json_is_string(json_object_get(message, "role"))) {
            mq__fail(error, MQ_FORMAT, "request: messages[%zu]: expected an object with a role", i);
            json_decref(list);
            return NULL;
        }
        json_t *const converted = convert_message(message, i, takes, error);
        if (!converted || json_array_append_new(list, converted) != 0) {
            if (converted) mq__fail(error, MQ_NO_MEMORY, "request: out of memory");
            json_decref(list);
            return NULL;
        }
    }
    if (!list) mq__fail(error, MQ_NO_MEMORY, "request: out of memory");
    return list;
}

/* A member of the request or `fallback` (a reference that is taken). */
static json_t *member_chat_template_request(const json_t *request, const char *name, json_t *fallback)
{
    json_t *const found = json_object_get(request, name);
    if (!found) return fallback;
    json_decref(fallback);
    return json_incref(found);
}

json_t *mq__chat_request_variables(const json_t *request, const json_t *tokens,
                                   const mq_chat_content content[MQ_CHAT_ROLES], mq_error *error)
{
    if (!json_is_object(request)) {
        mq__fail(error, MQ_FORMAT, "request: expected a JSON object");
        return NULL;
    }
    json_t *const kwargs = json_object_get(request, "chat_template_kwargs");
    if (kwargs && !json_is_object(kwargs) && !json_is_null(kwargs)) {
        mq__fail(error, MQ_FORMAT, "request: chat_template_kwargs: expected an object");
        return NULL;
    }
    if (json_object_get(kwargs, "messages") || json_object_get(kwargs, "tools")) {
        mq__fail(error, MQ_FORMAT, "request: chat_template_kwargs: expected other names than messages and tools");
        return NULL;
    }
    json_t *const tools = json_object_get(request, "tools");
    if (tools && !json_is_array(tools) && !json_is_null(tools)) {
        mq__fail(error, MQ_FORMAT, "request: tools: expected a list");
        return NULL;
    }
    json_t *const messages = convert_messages(json_object_get(request, "messages"), content, error);
    if (!messages) return NULL;
    json_t *const variables = json_copy((json_t *)(uintptr_t)tokens);
    int failed = json_object_set_new(variables, "messages", messages);
    failed |= json_object_set_new(variables, "tools", member_chat_template_request(request, "tools", json_null()));
    failed |=
        json_object_set_new(variables, "documents", member_chat_template_request(request, "documents", json_null()));
    failed |= json_object_set_new(variables, "add_generation_prompt",
                                  member_chat_template_request(request, "add_generation_prompt", json_true()));
    json_t *const effort = json_object_get(request, "reasoning_effort");
    if (json_is_string(effort)) failed |= json_object_set(variables, "reasoning_effort", effort);
    if (json_is_object(kwargs)) failed |= json_object_update(variables, kwargs);
    if (!failed) return variables;
    mq__fail(error, MQ_NO_MEMORY, "request: out of memory");
    json_decref(variables);
    return NULL;
}
