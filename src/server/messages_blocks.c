/* Anthropic's system texts, messages and content blocks as OpenAI's chat messages: an assistant's blocks become one message with
 * content, reasoning_content and tool_calls; results of tools become `tool` messages in their order, and the texts beside them one
 * user's message that follows. */
#include "server/api_messages.h"

#include "base/json_read.h"
#include "server/api_parts.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* A line that Claude Code puts before its system text. It is another one in each turn, and would make each turn a new prompt. */
#define BILLING "x-anthropic-billing-header:"

typedef struct block_reader {
    mq_server *server;
    mq_ask *ask;
    mq_fault *fault;
    size_t number, block; /* of the message, and in it; from 0 */
    bool asks;            /* it is of those with which the client asks now */
    json_t *names;        /* {id: name} of the calls so far */
    mq_buf text, reasoning;
    json_t *calls; /* of this message */
    bool results;  /* it has results of tools */
} block_reader;

typedef enum block_use {
    BLOCK_READ,
    BLOCK_UNKNOWN,
    BLOCK_BINARY, /* an image or a file: this model reads text */
    BLOCK_WRONG   /* the fault says why */
} block_use;

static block_use wrong_block(block_reader *r, const char *member, const char *expected)
{
    char param[96];
    snprintf(param, sizeof param, "messages[%zu].content[%zu]%s%s", r->number, r->block, member[0] ? "." : "", member);
    (void)mq__fault(r->fault, param, "%s: expected %s", param, expected);
    return BLOCK_WRONG;
}

/* ---- texts */

/* Appends a system text without its volatile lines. */
static void add_lasting_lines(mq_buf *out, const char *text, size_t bytes)
{
    for (size_t at = 0; at < bytes;) {
        const char *end = memchr(text + at, '\n', bytes - at);
        const size_t next = end ? (size_t)(end - text) + 1 : bytes;
        const bool is_volatile = next - at >= sizeof BILLING - 1 && memcmp(text + at, BILLING, sizeof BILLING - 1) == 0;
        if (!is_volatile) (void)mq__buf_append(out, text + at, next - at);
        at = next;
    }
}

static json_t *lasting_text(const json_t *text)
{
    mq_buf lines = {0};
    add_lasting_lines(&lines, json_string_value(text), json_string_length(text));
    json_t *value = mq__joined_text(&lines);
    mq__buf_free(&lines);
    return value;
}

/* The texts of a list of text blocks, a line each. */
static void add_texts(mq_buf *out, const json_t *content)
{
    if (json_is_string(content)) mq__join_text(out, "\n", content);
    for (size_t i = 0; i < json_array_size(content); i++) {
        const json_t *text = json_object_get(json_array_get(content, i), "text");
        if (json_is_string(text)) mq__join_text(out, "\n", text);
    }
}

static block_use add_search_result(const json_t *block, mq_buf *out)
{
    mq__join_text(out, "\n", json_object_get(block, "title"));
    mq__join_text(out, "\n", json_object_get(block, "source"));
    add_texts(out, json_object_get(block, "content"));
    return BLOCK_READ;
}

/* A document whose source is text. */
static block_use add_document(const json_t *block, mq_buf *out)
{
    const json_t *source = json_object_get(block, "source"), *title = json_object_get(block, "title");
    const char *type = mq__text_member(source, "type");
    const bool text = type && strcmp(type, "text") == 0, content = type && strcmp(type, "content") == 0;
    if (!text && !content) return BLOCK_BINARY;
    if (json_is_string(title)) mq__join_text(out, "\n", title);
    add_texts(out, json_object_get(source, text ? "data" : "content"));
    return BLOCK_READ;
}

/* What stands for itself, in a user's message as well as in a tool's result. */
static block_use add_plain_block(const json_t *block, mq_buf *out)
{
    const char *type = mq__text_member(block, "type");
    const json_t *text = json_object_get(block, "text");
    if (strcmp(type, "text") == 0 && !json_is_string(text)) return BLOCK_WRONG;
    if (strcmp(type, "text") == 0) {
        if (json_string_length(text)) mq__join_text(out, "\n", text);
        return BLOCK_READ;
    }
    if (strcmp(type, "search_result") == 0) return add_search_result(block, out);
    if (strcmp(type, "document") == 0) return add_document(block, out);
    if (strcmp(type, "tool_reference") == 0) {
        if (out->len) (void)mq__buf_putc(out, '\n');
        const char *name = mq__text_member(block, "tool_name");
        (void)mq__buf_printf(out, "The tool %s is there.", name ? name : "");
        return BLOCK_READ;
    }
    return strcmp(type, "image") == 0 ? BLOCK_BINARY : BLOCK_UNKNOWN;
}

static block_use warn_of_block(block_reader *r, const char *type)
{
    if (mq__ask_warn(r->ask, "block of type %.64s", type)) return BLOCK_READ;
    (void)mq__fault_memory(r->fault);
    return BLOCK_WRONG;
}

/* ---- a user's blocks */

/* A session that has an image in its past must go on: only what the user shows now is refused. */
static block_use leave_out_block(block_reader *r, const char *type, mq_buf *out)
{
    if (out->len) (void)mq__buf_putc(out, '\n');
    (void)mq__buf_printf(out, "[%.32s left out: this model reads text only]", type);
    return warn_of_block(r, type);
}

static block_use add_result_block(block_reader *r, const json_t *block, mq_buf *out)
{
    const char *type = mq__text_member(block, "type");
    if (!type) return wrong_block(r, "content", "blocks with a type, got another value");
    const block_use use = add_plain_block(block, out);
    if (use == BLOCK_WRONG) return wrong_block(r, "content", "a string in text, got another value");
    if (use == BLOCK_READ) return use;
    return use == BLOCK_BINARY ? leave_out_block(r, type, out) : warn_of_block(r, type);
}

static block_use read_result_text(block_reader *r, const json_t *block, mq_buf *out)
{
    const json_t *content = json_object_get(block, "content");
    if (json_is_string(content)) {
        mq__join_text(out, "", content);
    } else if (content && !json_is_null(content) && !json_is_array(content)) {
        return wrong_block(r, "content", "a string or a list of blocks, got another value");
    }
    for (size_t i = 0; json_is_array(content) && i < json_array_size(content); i++) {
        if (add_result_block(r, json_array_get(content, i), out) == BLOCK_WRONG) return BLOCK_WRONG;
    }
    return BLOCK_READ;
}

/* A model cannot see is_error; most clients say it in the text as well. */
static json_t *result_content(const json_t *block, mq_buf *text)
{
    const bool failed = json_is_true(json_object_get(block, "is_error"));
    const bool says_so = text->len >= 5 && (strncasecmp(text->data, "error", 5) == 0 || text->data[0] == '<');
    if (!failed || says_so || text->failed) return mq__joined_text(text);
    mq_buf whole = {0};
    (void)mq__buf_puts(&whole, text->len ? "Error: " : "Error");
    (void)mq__buf_append(&whole, text->len ? text->data : "", text->len);
    json_t *content = mq__joined_text(&whole);
    mq__buf_free(&whole);
    return content;
}

static block_use read_tool_result(block_reader *r, const json_t *block)
{
    json_t *id = json_object_get(block, "tool_use_id");
    mq_buf text = {0};
    if (!json_is_string(id)) return wrong_block(r, "tool_use_id", "a string, got another value");
    if (read_result_text(r, block, &text) == BLOCK_WRONG) {
        mq__buf_free(&text);
        return BLOCK_WRONG;
    }
    /* Templates of some models name the tool in its answer. */
    json_t *message = json_pack("{sssoso*so}", "role", "tool", "tool_call_id", json_incref(id), "name",
                                json_incref(json_object_get(r->names, json_string_value(id))), "content",
                                result_content(block, &text));
    mq__buf_free(&text);
    r->results = true;
    return mq__messages_append(r->ask, message, r->fault) ? BLOCK_READ : BLOCK_WRONG;
}

static block_use read_user_block(block_reader *r, const json_t *block, const char *type)
{
    if (strcmp(type, "tool_result") == 0) return read_tool_result(r, block);
    const block_use use = add_plain_block(block, &r->text);
    if (use == BLOCK_WRONG) return wrong_block(r, "text", "a string, got another value");
    if (use == BLOCK_BINARY && !r->asks) return leave_out_block(r, type, &r->text);
    /* Claude Code finds the block by such words, leaves it out and asks again: else each later turn would be refused as well. */
    if (use == BLOCK_BINARY) return wrong_block(r, type, "text: this model reads neither images nor files");
    return use == BLOCK_UNKNOWN ? warn_of_block(r, type) : use;
}

static bool end_user(block_reader *r)
{
    const bool empty = r->text.len == 0 && !r->text.failed;
    if (empty && r->results) return true;
    json_t *message = json_pack("{ssso}", "role", "user", "content", mq__joined_text(&r->text));
    return mq__messages_append(r->ask, message, r->fault);
}

/* ---- an assistant's blocks */

/* Arguments as JSON text. A string stays what it is, be it JSON or not. */
static json_t *arguments_text(const json_t *input)
{
    if (!input || json_is_null(input)) return json_string("{}");
    mq_buf text = {0};
    if (json_is_string(input)) mq__join_text(&text, "", input);
    if (!json_is_string(input) && !mq__json_print(input, JSON_COMPACT | JSON_ENCODE_ANY, &text)) text.failed = true;
    json_t *value = mq__joined_text(&text);
    mq__buf_free(&text);
    return value;
}

static block_use read_tool_use(block_reader *r, const json_t *block)
{
    json_t *id = json_object_get(block, "id"), *name = json_object_get(block, "name");
    if (!json_is_string(name)) return wrong_block(r, "name", "a string, got another value");
    if (json_is_string(id)) (void)json_object_set(r->names, json_string_value(id), name);
    if (!r->calls) r->calls = json_array();
    json_t *call = json_pack("{sO*sss{sOso}}", "id", json_is_string(id) ? id : NULL, "type", "function", "function",
                             "name", name, "arguments", arguments_text(json_object_get(block, "input")));
    if (json_array_append_new(r->calls, call) == 0) return BLOCK_READ;
    (void)mq__fault_memory(r->fault);
    return BLOCK_WRONG;
}

/* Thinking that was not shown lies in its signature. */
static void read_thinking_block(block_reader *r, const json_t *block)
{
    const json_t *thinking = json_object_get(block, "thinking");
    if (json_string_length(thinking)) {
        mq__join_text(&r->reasoning, "\n", thinking);
    } else {
        (void)mq__reasoning_open(json_object_get(block, "signature"), &r->reasoning);
    }
}

static block_use read_assistant_block(block_reader *r, const json_t *block, const char *type)
{
    if (strcmp(type, "tool_use") == 0) return read_tool_use(r, block);
    if (strcmp(type, "redacted_thinking") == 0) return BLOCK_READ; /* nobody but its maker can read it */
    if (strcmp(type, "thinking") == 0) {
        read_thinking_block(r, block);
        return BLOCK_READ;
    }
    if (strcmp(type, "text") != 0) return warn_of_block(r, type);
    const json_t *text = json_object_get(block, "text");
    if (!json_is_string(text)) return wrong_block(r, "text", "a string, got another value");
    mq__join_text(&r->text, "", text); /* pieces of one answer */
    return BLOCK_READ;
}

static bool end_assistant(block_reader *r)
{
    const bool silent = r->text.len == 0 && !r->text.failed && r->calls;
    json_t *content = silent ? json_null() : mq__joined_text(&r->text);
    json_t *message = json_pack("{ssso}", "role", "assistant", "content", content);
    if (r->reasoning.len || r->reasoning.failed) {
        message = mq__with(message, "reasoning_content", mq__joined_text(&r->reasoning));
    }
    if (r->calls) (void)json_object_set(message, "tool_calls", r->calls);
    return mq__messages_append(r->ask, message, r->fault);
}

/* ---- system texts */

static block_use read_system_block(block_reader *r, const json_t *block, const char *type)
{
    const json_t *text = json_object_get(block, "text");
    if (strcmp(type, "text") != 0) return warn_of_block(r, type);
    if (!json_is_string(text)) return wrong_block(r, "text", "a string, got another value");
    json_t *lasting = lasting_text(text);
    if (!lasting) {
        (void)mq__fault_memory(r->fault);
        return BLOCK_WRONG;
    }
    if (json_string_length(lasting)) mq__join_text(&r->text, "\n", lasting);
    json_decref(lasting);
    return BLOCK_READ;
}

static bool end_system(block_reader *r)
{
    if (r->text.len == 0 && !r->text.failed) return true;
    json_t *message = json_pack("{ssso}", "role", "system", "content", mq__joined_text(&r->text));
    return mq__messages_append(r->ask, message, r->fault);
}

static bool read_system(block_reader *r, const json_t *body)
{
    const json_t *system = json_object_get(body, "system");
    if (!system || json_is_null(system)) return true;
    if (json_is_string(system)) {
        add_lasting_lines(&r->text, json_string_value(system), json_string_length(system));
        return end_system(r);
    }
    if (!json_is_array(system)) {
        return mq__fault(r->fault, "system", "system: expected a string or a list of blocks, got another value");
    }
    for (r->block = 0; r->block < json_array_size(system); r->block++) {
        const json_t *block = json_array_get(system, r->block);
        const char *type = mq__text_member(block, "type");
        if (read_system_block(r, block, type ? type : "text") == BLOCK_WRONG) return false;
    }
    return end_system(r);
}

/* ---- messages */

typedef block_use block_read(block_reader *r, const json_t *block, const char *type);

static bool read_content(block_reader *r, const json_t *content, block_read *read)
{
    for (r->block = 0; r->block < json_array_size(content); r->block++) {
        const json_t *block = json_array_get(content, r->block);
        const char *type = mq__text_member(block, "type");
        if (!type) return wrong_block(r, "type", "a string, got another value") != BLOCK_WRONG;
        if (read(r, block, type) == BLOCK_WRONG) return false;
    }
    return true;
}

static bool read_one_message(block_reader *r, const json_t *message)
{
    static const struct role {
        const char *name;
        block_read *read;
        bool (*end)(block_reader *r);
    } roles[] = {{"user", read_user_block, end_user},
                 {"assistant", read_assistant_block, end_assistant},
                 {"system", read_system_block, end_system},
                 {"developer", read_system_block, end_system}};
    const char *name = mq__text_member(message, "role");
    const json_t *content = json_object_get(message, "content");
    const struct role *role = NULL;
    for (size_t i = 0; name && i < sizeof roles / sizeof roles[0]; i++) {
        if (strcmp(roles[i].name, name) == 0) role = &roles[i];
    }
    if (!role || !(json_is_string(content) || json_is_array(content))) {
        char param[96];
        snprintf(param, sizeof param, "messages[%zu].%s", r->number, role ? "content" : "role");
        return mq__fault(r->fault, param, "%s: expected %s, got another value", param,
                         role ? "a string or a list of blocks" : "user, assistant or system");
    }
    if (json_is_string(content)) {
        json_t *block = json_pack("{sssO}", "type", "text", "text", content);
        const block_use use = block ? role->read(r, block, "text") : BLOCK_WRONG;
        json_decref(block);
        return use == BLOCK_WRONG ? mq__fault_memory(r->fault) : role->end(r);
    }
    return read_content(r, content, role->read) && role->end(r);
}

static bool read_message_list(block_reader *r, const json_t *messages)
{
    const size_t count = json_array_size(messages), most = mq__server_limits(r->server)->messages;
    if (!json_is_array(messages) || count == 0 || count > most) {
        return mq__fault(r->fault, "messages", "messages: expected a list of 1 to %zu, got %s", most,
                         !json_is_array(messages) ? "another value"
                         : count                  ? "more"
                                                  : "none");
    }
    const size_t asking = mq__messages_asking(messages);
    for (r->number = 0; r->number < count; r->number++) {
        r->asks = r->number >= asking;
        if (!read_one_message(r, json_array_get(messages, r->number))) return false;
        mq__buf_clear(&r->text);
        mq__buf_clear(&r->reasoning);
        json_decref(r->calls);
        r->calls = NULL;
        r->results = false;
    }
    return true;
}

/* An assistant's last message is the beginning of the answer. */
static bool ends_with_text(const mq_ask *ask)
{
    const size_t count = json_array_size(ask->messages);
    const json_t *last = count ? json_array_get(ask->messages, count - 1) : NULL;
    const char *role = mq__text_member(last, "role");
    return role && strcmp(role, "assistant") == 0 && !json_object_get(last, "tool_calls");
}

bool mq__blocks_read(mq_server *server, const json_t *body, mq_ask *ask, mq_fault *fault)
{
    block_reader r = {.server = server, .ask = ask, .fault = fault, .names = json_object()};
    const bool read = read_system(&r, body) && read_message_list(&r, json_object_get(body, "messages"));
    mq__buf_free(&r.text);
    mq__buf_free(&r.reasoning);
    json_decref(r.calls);
    json_decref(r.names);
    ask->continues = read && ends_with_text(ask);
    return read && mq__messages_finish(server, ask, fault);
}
