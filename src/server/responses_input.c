/* Items of the Responses API as OpenAI's chat messages. Items of one answer (reasoning, message, calls) become one assistant's message;
 * results of tools become `tool` messages. */
#include "server/api_responses.h"

#include "base/json_read.h"
#include "server/api_parts.h"

#include <stdio.h>
#include <string.h>

typedef struct item_reader {
    mq_ask *ask;
    mq_fault *fault;
    size_t number; /* of the item, from 0 */
    bool asks;     /* it is of those with which the client asks now */
    json_t *names; /* {call_id: name as shown} */
    /* The assistant's message that is under way. */
    bool open;
    mq_buf text, reasoning;
    json_t *calls;
} item_reader;

static bool wrong_item(item_reader *r, const char *member, const char *expected)
{
    char param[96];
    snprintf(param, sizeof param, "input[%zu]%s%s", r->number, member[0] ? "." : "", member);
    return mq__fault(r->fault, param, "%s: expected %s", param, expected);
}

static bool memory_of(item_reader *r, bool enough)
{
    return enough || mq__fault_memory(r->fault);
}

/* ---- the assistant's message under way */

static bool end_turn(item_reader *r)
{
    if (!r->open) return true;
    const bool silent = r->text.len == 0 && !r->text.failed && r->calls;
    json_t *message =
        json_pack("{ssso}", "role", "assistant", "content", silent ? json_null() : mq__joined_text(&r->text));
    if (r->reasoning.len || r->reasoning.failed) {
        message = mq__with(message, "reasoning_content", mq__joined_text(&r->reasoning));
    }
    if (r->calls) (void)json_object_set(message, "tool_calls", r->calls);
    json_decref(r->calls);
    mq__buf_clear(&r->text);
    mq__buf_clear(&r->reasoning);
    r->calls = NULL;
    r->open = false;
    return mq__messages_append(r->ask, message, r->fault);
}

/* Takes name and arguments. */
static bool add_item_call(item_reader *r, const json_t *item, json_t *name, json_t *arguments)
{
    json_t *id = json_object_get(item, "call_id");
    if (!json_is_string(id)) id = json_object_get(item, "id");
    if (!json_is_string(id)) id = NULL;
    if (id && name) (void)json_object_set(r->names, json_string_value(id), name);
    if (!r->calls) r->calls = json_array();
    r->open = true;
    json_t *call =
        json_pack("{sO*sss{soso}}", "id", id, "type", "function", "function", "name", name, "arguments", arguments);
    return memory_of(r, json_array_append_new(r->calls, call) == 0);
}

/* ---- content */

static const json_t *text_of_part(const json_t *part)
{
    const char *type = mq__text_member(part, "type");
    const json_t *text = json_object_get(part, type && strcmp(type, "refusal") == 0 ? "refusal" : "text");
    return json_is_string(part) ? part : json_is_string(text) ? text : NULL;
}

/* A string, or the texts of a list of parts. `reject`: a part without text is an error, else a placeholder: a session that has an
 * image in its past must go on, only what the user shows now is refused. */
static bool add_content(item_reader *r, const json_t *content, const char *between, bool reject, mq_buf *out)
{
    if (json_is_string(content)) mq__join_text(out, "", content);
    for (size_t i = 0; json_is_array(content) && i < json_array_size(content); i++) {
        const json_t *part = json_array_get(content, i), *text = text_of_part(part);
        const char *type = mq__text_member(part, "type");
        char member[48];
        snprintf(member, sizeof member, "content[%zu]", i);
        if (text) {
            if (json_string_length(text)) mq__join_text(out, between, text);
        } else if (reject || !type) {
            return wrong_item(r, member, "text: this model reads neither images nor files");
        } else {
            if (out->len) (void)mq__buf_puts(out, between);
            (void)mq__buf_printf(out, "[%.32s left out: this model reads text only]", type);
            if (!mq__ask_warn(r->ask, "part of type %.64s", type)) return mq__fault_memory(r->fault);
        }
    }
    return true;
}

/* ---- items */

typedef bool item_read(item_reader *r, const json_t *item);

static bool read_assistant_item(item_reader *r, const json_t *item)
{
    mq_buf text = {0};
    bool read = add_content(r, json_object_get(item, "content"), "", r->asks, &text);
    if (text.len && r->text.len) (void)mq__buf_puts(&r->text, "\n\n");
    if (text.len) (void)mq__buf_append(&r->text, text.data, text.len);
    read = read && memory_of(r, !text.failed && !r->text.failed);
    r->open = true;
    mq__buf_free(&text);
    return read;
}

static bool read_message_item(item_reader *r, const json_t *item)
{
    const char *role = mq__text_member(item, "role");
    const json_t *content = json_object_get(item, "content");
    if (!role) return wrong_item(r, "role", "user, assistant, system or developer, got another value");
    if (!json_is_string(content) && !json_is_array(content) && !json_is_null(content)) {
        return wrong_item(r, "content", "a string or a list of parts, got another value");
    }
    if (strcmp(role, "assistant") == 0) return read_assistant_item(r, item);
    const bool system = strcmp(role, "system") == 0 || strcmp(role, "developer") == 0;
    if (!system && strcmp(role, "user") != 0) {
        return wrong_item(r, "role", "user, assistant, system or developer, got another value");
    }
    mq_buf text = {0};
    json_t *message = NULL;
    const bool read = end_turn(r) && add_content(r, content, "\n", r->asks, &text);
    if (read) message = json_pack("{ssso}", "role", system ? "system" : "user", "content", mq__joined_text(&text));
    mq__buf_free(&text);
    return read && mq__messages_append(r->ask, message, r->fault);
}

/* What one agent of a task tells another. Its payload is "encrypted" where somebody can: else it is the text. */
static bool read_agent_message(item_reader *r, const json_t *item)
{
    const json_t *content = json_object_get(item, "content");
    mq_buf text = {0};
    if (json_is_string(content)) mq__join_text(&text, "", content);
    for (size_t i = 0; json_is_array(content) && i < json_array_size(content); i++) {
        const json_t *part = json_array_get(content, i), *plain = text_of_part(part);
        if (!plain) plain = json_object_get(part, "encrypted_content");
        if (json_is_string(plain)) mq__join_text(&text, "", plain);
    }
    json_t *message = json_pack("{ssso}", "role", "user", "content", mq__joined_text(&text));
    mq__buf_free(&text);
    if (end_turn(r)) return mq__messages_append(r->ask, message, r->fault);
    json_decref(message);
    return false;
}

/* Reasoning that we sealed comes back as it was; of others' we know the texts only. */
static bool read_reasoning_item(item_reader *r, const json_t *item)
{
    static const char *const lists[] = {"content", "summary"};
    if (r->text.len || r->calls) {
        if (!end_turn(r)) return false;
    }
    r->open = true;
    mq_buf text = {0};
    (void)mq__reasoning_open(json_object_get(item, "encrypted_content"), &text);
    for (size_t i = 0; i < 2 && text.len == 0 && !text.failed; i++) {
        const json_t *list = json_object_get(item, lists[i]);
        for (size_t k = 0; k < json_array_size(list); k++) {
            const json_t *part = text_of_part(json_array_get(list, k));
            if (part) mq__join_text(&text, "\n\n", part);
        }
    }
    if (text.len && r->reasoning.len) (void)mq__buf_putc(&r->reasoning, '\n');
    if (text.len) (void)mq__buf_append(&r->reasoning, text.data, text.len);
    const bool enough = !text.failed && !r->reasoning.failed;
    mq__buf_free(&text);
    return memory_of(r, enough);
}

/* Any value as text: a string is itself. */
static json_t *value_text(const json_t *value)
{
    mq_buf text = {0};
    if (json_is_string(value)) {
        mq__join_text(&text, "", value);
    } else if (value && !json_is_null(value) && !mq__json_print(value, JSON_COMPACT | JSON_ENCODE_ANY, &text)) {
        text.failed = true;
    }
    json_t *made = mq__joined_text(&text);
    mq__buf_free(&text);
    return made;
}

static bool read_function_call(item_reader *r, const json_t *item)
{
    const json_t *name = json_object_get(item, "name");
    if (!json_is_string(name)) return wrong_item(r, "name", "a string, got another value");
    return add_item_call(r, item, mq__responses_shown_name(json_object_get(item, "namespace"), name),
                         value_text(json_object_get(item, "arguments")));
}

static bool read_custom_call(item_reader *r, const json_t *item)
{
    const json_t *name = json_object_get(item, "name"), *input = json_object_get(item, "input");
    if (!json_is_string(name)) return wrong_item(r, "name", "a string, got another value");
    if (!json_is_string(input)) return wrong_item(r, "input", "a string, got another value");
    return add_item_call(r, item, mq__responses_shown_name(json_object_get(item, "namespace"), name),
                         mq__responses_custom_arguments(input));
}

static bool read_shell_call(item_reader *r, const json_t *item)
{
    const json_t *action = json_object_get(item, "action");
    json_t *arguments =
        json_pack("{sO*sO*sO*}", "command", json_object_get(action, "command"), "workdir",
                  json_object_get(action, "working_directory"), "timeout_ms", json_object_get(action, "timeout_ms"));
    json_t *text = arguments ? value_text(arguments) : NULL;
    json_decref(arguments);
    return add_item_call(r, item, json_string("local_shell"), text);
}

static bool read_search_call(item_reader *r, const json_t *item)
{
    return add_item_call(r, item, json_string("tool_search"), value_text(json_object_get(item, "arguments")));
}

/* Takes content. */
static bool add_output(item_reader *r, const json_t *item, json_t *content)
{
    json_t *id = json_object_get(item, "call_id");
    if (!json_is_string(id)) id = json_object_get(item, "id");
    if (!json_is_string(id)) {
        json_decref(content);
        return wrong_item(r, "call_id", "a string, got another value");
    }
    if (!end_turn(r)) {
        json_decref(content);
        return false;
    }
    json_t *message = json_pack("{sssOsO*so}", "role", "tool", "tool_call_id", id, "name",
                                json_object_get(r->names, json_string_value(id)), "content", content);
    return mq__messages_append(r->ask, message, r->fault);
}

static bool read_call_output(item_reader *r, const json_t *item)
{
    const json_t *output = json_object_get(item, "output");
    mq_buf text = {0};
    if (!json_is_array(output)) return add_output(r, item, value_text(output));
    if (!add_content(r, output, "\n", false, &text)) {
        mq__buf_free(&text);
        return false;
    }
    json_t *content = mq__joined_text(&text);
    mq__buf_free(&text);
    return add_output(r, item, content);
}

/* Tools that a search found: the model reads their definitions. */
static bool read_search_output(item_reader *r, const json_t *item)
{
    return add_output(r, item, value_text(json_object_get(item, "tools")));
}

static bool skip_item(item_reader *r, const json_t *item)
{
    (void)r;
    (void)item;
    return true;
}

static bool refuse_reference(item_reader *r, const json_t *item)
{
    (void)item;
    return wrong_item(r, "type",
                      "a whole item, got item_reference: this server keeps no responses (send store: false)");
}

static bool read_item(item_reader *r, const json_t *item)
{
    static const struct {
        const char *type;
        item_read *read;
    } types[] = {{"message", read_message_item},
                 {"agent_message", read_agent_message},
                 {"reasoning", read_reasoning_item},
                 {"function_call", read_function_call},
                 {"custom_tool_call", read_custom_call},
                 {"local_shell_call", read_shell_call},
                 {"tool_search_call", read_search_call},
                 {"function_call_output", read_call_output},
                 {"custom_tool_call_output", read_call_output},
                 {"local_shell_call_output", read_call_output},
                 {"tool_search_output", read_search_output},
                 {"web_search_call", skip_item},  /* its results are in the answer that follows */
                 {"additional_tools", skip_item}, /* responses_tools.c reads them */
                 {"item_reference", refuse_reference}};
    const char *type = mq__text_member(item, "type");
    if (!json_is_object(item)) return wrong_item(r, "", "an object, got another value");
    if (!type && json_object_get(item, "role")) type = "message";
    if (!type) return wrong_item(r, "type", "a string, got another value");
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(types[i].type, type) == 0) return types[i].read(r, item);
    }
    return memory_of(r, mq__ask_warn(r->ask, "item of type %.64s", type));
}

/* ---- the whole input */

static bool read_items(item_reader *r, mq_server *server, const json_t *items)
{
    const size_t count = json_array_size(items), most = mq__server_limits(server)->messages;
    if (count > most) return mq__fault(r->fault, "input", "input: expected at most %zu items, got %zu", most, count);
    const size_t asking = mq__messages_asking(items);
    for (r->number = 0; r->number < count; r->number++) {
        r->asks = r->number >= asking;
        if (!read_item(r, json_array_get(items, r->number))) return false;
    }
    const bool goes_on = r->open && !r->calls && r->text.len > 0;
    if (!end_turn(r)) return false;
    r->ask->continues = goes_on;
    return true;
}

static bool append_input_text(item_reader *r, const char *role, const json_t *text)
{
    return mq__messages_append(r->ask, json_pack("{sssO}", "role", role, "content", text), r->fault);
}

/* A probe sends no input; templates want a user's message. */
static bool append_some_user(item_reader *r)
{
    const size_t count = json_array_size(r->ask->messages);
    const char *role = mq__text_member(json_array_get(r->ask->messages, count ? count - 1 : 0), "role");
    if (count > 1 || (role && strcmp(role, "system") != 0)) return true;
    return mq__messages_append(r->ask, json_pack("{ssss}", "role", "user", "content", ""), r->fault);
}

bool mq__responses_read_input(mq_server *server, const json_t *body, mq_ask *ask, mq_fault *fault)
{
    const json_t *instructions = json_object_get(body, "instructions"), *input = json_object_get(body, "input");
    item_reader r = {.ask = ask, .fault = fault, .names = json_object()};
    bool read = true;
    if (json_string_length(instructions)) {
        read = append_input_text(&r, "system", instructions);
    } else if (instructions && !json_is_null(instructions) && !json_is_string(instructions)) {
        read = mq__fault(fault, "instructions", "instructions: expected a string, got another value");
    }
    if (read && json_is_string(input)) {
        read = append_input_text(&r, "user", input);
    } else if (read && input && !json_is_null(input)) {
        read = json_is_array(input) ? read_items(&r, server, input)
                                    : mq__fault(fault, "input", "input: expected a string or a list of items");
    }
    read = read && append_some_user(&r) && mq__messages_finish(server, ask, fault);
    mq__buf_free(&r.text);
    mq__buf_free(&r.reasoning);
    json_decref(r.calls);
    json_decref(r.names);
    return read;
}
