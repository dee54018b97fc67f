#include "text/chat_template.h"

#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"
#include "text/chat_template_request.h"

#include <stdio.h>
#include <string.h>

#define CONFIG_BYTES ((size_t)16 << 20) /* tokenizer_config.json lists its added tokens, so it can be long */
#define PROBE        "mqprobe"

/* One named template. */
typedef struct entry {
    mq_jinja *program; /* NULL: there is none of that name */
    mq_chat_content content[MQ_CHAT_ROLES];
} entry;

struct mq_chat_template {
    json_t *tokens; /* name -> text of the special tokens that are set */
    entry plain, tool_use;
};

/* ---------------------------------------------------------------- what a template takes as content */

/* A conversation with one message of the role whose content is %c. */
static const char *const probe_texts[MQ_CHAT_ROLES] = {
    [MQ_CHAT_USER] = "[{s:s,s:O}]",
    [MQ_CHAT_SYSTEM] = "[{s:s,s:O},{s:s,s:s}]",
    [MQ_CHAT_ASSISTANT] = "[{s:s,s:s},{s:s,s:O},{s:s,s:s}]",
    [MQ_CHAT_TOOL] = "[{s:s,s:s},{s:s,s:s,s:[{s:s,s:s,s:{s:s,s:{}}}]},{s:s,s:s,s:s,s:O}]",
};

static json_t *probe_messages(int role, json_t *content)
{
    switch (role) {
    case MQ_CHAT_USER:
        return json_pack(probe_texts[role], "role", "user", "content", content);
    case MQ_CHAT_SYSTEM:
        return json_pack(probe_texts[role], "role", "system", "content", content, "role", "user", "content", "x");
    case MQ_CHAT_ASSISTANT:
        return json_pack(probe_texts[role], "role", "user", "content", "x", "role", "assistant", "content", content,
                         "role", "user", "content", "x");
    default:
        return json_pack(probe_texts[role], "role", "user", "content", "x", "role", "assistant", "content", "",
                         "tool_calls", "id", "call00001", "type", "function", "function", "name", "f", "arguments",
                         "role", "tool", "name", "f", "tool_call_id", "call00001", "content", content);
    }
}

/* Renders the probe; *text is NULL where the template fails on it. Only a lack of memory is an error. */
static mq_status probe_chat_template(const mq_chat_template *chat, const mq_jinja *program, int role, json_t *content,
                                     char **text, mq_error *error)
{
    static const mq_chat_content as_given[MQ_CHAT_ROLES] = {MQ_CHAT_EITHER, MQ_CHAT_EITHER, MQ_CHAT_EITHER,
                                                            MQ_CHAT_EITHER};
    const struct tm day = {.tm_mday = 1, .tm_year = 125};
    const mq_jinja_options options = {
        .limits = {.steps = 200000, .output_bytes = (size_t)1 << 20, .memory_bytes = (size_t)8 << 20}, .now = &day};
    size_t bytes;
    mq_status status = MQ_OK;
    *text = NULL;
    json_t *const messages = probe_messages(role, content);
    json_t *const request = json_pack("{s:o?}", "messages", messages);
    json_t *const variables =
        messages && request ? mq__chat_request_variables(request, chat->tokens, as_given, error) : NULL;
    if (!variables) {
        status = mq__fail(error, MQ_NO_MEMORY, "chat template: out of memory");
    } else {
        mq_error reason;
        status = mq__jinja_render(program, variables, &options, text, &bytes, &reason);
        status = status == MQ_NO_MEMORY ? mq__fail(error, status, "%s", reason.text) : MQ_OK;
    }
    json_decref(variables);
    json_decref(request);
    return status;
}

static mq_status probe_role(const mq_chat_template *chat, entry *e, int role, mq_error *error)
{
    char *from_text = NULL, *from_parts = NULL;
    json_t *const text = json_string(PROBE);
    json_t *const parts = json_pack("[{s:s,s:s}]", "type", "text", "text", PROBE);
    mq_status status = text && parts ? MQ_OK : mq__fail(error, MQ_NO_MEMORY, "chat template: out of memory");
    if (status == MQ_OK) status = probe_chat_template(chat, e->program, role, text, &from_text, error);
    if (status == MQ_OK) status = probe_chat_template(chat, e->program, role, parts, &from_parts, error);
    const bool text_works = from_text && strstr(from_text, PROBE), parts_work = from_parts && strstr(from_parts, PROBE);
    e->content[role] = MQ_CHAT_TEXT;
    if (text_works && parts_work && strcmp(from_text, from_parts) == 0) e->content[role] = MQ_CHAT_EITHER;
    if (!text_works && parts_work) e->content[role] = MQ_CHAT_PARTS;
    json_decref(text);
    json_decref(parts);
    mq__free(from_text);
    mq__free(from_parts);
    return status;
}

/* ---------------------------------------------------------------- loading */

static mq_status add_entry(mq_chat_template *chat, entry *e, const char *text, size_t bytes, mq_error *error)
{
    mq_status status = mq__jinja_parse(text, bytes, &e->program, error);
    for (int role = 0; status == MQ_OK && role < MQ_CHAT_ROLES; role++) {
        status = probe_role(chat, e, role, error);
    }
    return status;
}

/* The special tokens of a config: a string, an object with "content" (AddedToken), or null. */
static mq_status read_tokens_chat_template(mq_chat_template *chat, const json_t *config, mq_error *error)
{
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        json_t *value = json_object_get(config, names[i]);
        if (json_is_object(value)) value = json_object_get(value, "content");
        if (!value || json_is_null(value)) continue;
        if (!json_is_string(value)) {
            return mq__fail(error, MQ_FORMAT, "tokenizer_config.json: %s: expected a string, null or a token",
                            names[i]);
        }
        if (json_string_length(value) == 0) continue; /* as transformers: an empty token is not set */
        if (json_object_set(chat->tokens, names[i], value) != 0) {
            return mq__fail(error, MQ_NO_MEMORY, "tokenizer_config.json: out of memory");
        }
    }
    return MQ_OK;
}

static mq_status parse_config(const char *text, size_t bytes, const char *name, json_t **config, mq_error *error)
{
    json_error_t reason;
    *config = json_loadb(text, bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &reason);
    if (!*config)
        return mq__fail(error, MQ_FORMAT, "%s: line %d: expected JSON, got %s", name, reason.line, reason.text);
    if (json_is_object(*config)) return MQ_OK;
    json_decref(*config);
    *config = NULL;
    return mq__fail(error, MQ_FORMAT, "%s: expected a JSON object", name);
}

/* *config is NULL when the directory has no such file. */
static mq_status read_config(const char *directory, const char *name, json_t **config, mq_error *error)
{
    char *text = NULL;
    size_t bytes = 0;
    *config = NULL;
    char *const path = mq__path_join(directory, name);
    mq_status status = path ? MQ_OK : mq__fail(error, MQ_NO_MEMORY, "%s: out of memory", name);
    if (status == MQ_OK && mq__file_exists(path)) {
        status = mq__file_read(path, CONFIG_BYTES, &text, &bytes, error);
        if (status == MQ_OK) status = parse_config(text, bytes, path, config, error);
    }
    mq__free(text);
    mq__free(path);
    return status;
}

/* Parses <directory>/<name> into the entry when there is such a file. */
static mq_status read_entry_chat_template(mq_chat_template *chat, entry *e, const char *directory, const char *name,
                                          mq_error *error)
{
    char *text = NULL;
    size_t bytes = 0;
    char *const path = directory ? mq__path_join(directory, name) : mq__strdup(name);
    mq_status status = path ? MQ_OK : mq__fail(error, MQ_NO_MEMORY, "%s: out of memory", name);
    if (status == MQ_OK && (!directory || mq__file_exists(path))) {
        status = mq__file_read(path, MQ_JINJA_SOURCE_BYTES, &text, &bytes, error);
        if (status == MQ_OK) status = add_entry(chat, e, text, bytes, error);
        if (status != MQ_OK) status = mq__fail_within(error, status, path);
    }
    mq__free(text);
    mq__free(path);
    return status;
}

static mq_status add_named(mq_chat_template *chat, const json_t *item, mq_error *error)
{
    const json_t *const name = json_object_get(item, "name"), *const text = json_object_get(item, "template");
    if (!json_is_string(name) || !json_is_string(text)) {
        return mq__fail(error, MQ_FORMAT,
                        "tokenizer_config.json: chat_template: expected a name and a template in each item");
    }
    entry *e = NULL;
    if (strcmp(json_string_value(name), "default") == 0) e = &chat->plain;
    if (strcmp(json_string_value(name), "tool_use") == 0) e = &chat->tool_use;
    if (!e) return MQ_OK; /* another use, such as "rag": nothing asks for it */
    if (e->program) return mq__fail(error, MQ_FORMAT, "tokenizer_config.json: chat_template: expected each name once");
    return add_entry(chat, e, json_string_value(text), json_string_length(text), error);
}

/* The chat_template member of a config. */
static mq_status add_configured(mq_chat_template *chat, const json_t *config, mq_error *error)
{
    const json_t *const given = json_object_get(config, "chat_template");
    mq_status status = MQ_OK;
    if (json_is_string(given)) {
        status = add_entry(chat, &chat->plain, json_string_value(given), json_string_length(given), error);
    } else if (json_is_array(given)) {
        for (size_t i = 0; status == MQ_OK && i < json_array_size(given); i++) {
            status = add_named(chat, json_array_get(given, i), error);
        }
    } else if (given && !json_is_null(given)) {
        status = mq__fail(error, MQ_FORMAT, "tokenizer_config.json: chat_template: expected a string or a list");
    }
    return status;
}

static mq_chat_template *new_chat(mq_error *error)
{
    mq_chat_template *chat = mq__alloc_zero(1, sizeof *chat);
    if (chat) chat->tokens = json_object();
    if (chat && chat->tokens) return chat;
    mq__free(chat);
    mq__fail(error, MQ_NO_MEMORY, "chat template: out of memory");
    return NULL;
}

mq_status mq__chat_template_load(const char *directory, mq_chat_template **out, mq_error *error)
{
    json_t *config = NULL, *processor = NULL;
    *out = NULL;
    mq_chat_template *const chat = new_chat(error);
    if (!chat) return MQ_NO_MEMORY;
    mq_status status = read_config(directory, "tokenizer_config.json", &config, error);
    if (status == MQ_OK) status = read_tokens_chat_template(chat, config, error);
    if (status == MQ_OK) status = read_entry_chat_template(chat, &chat->plain, directory, "chat_template.jinja", error);
    if (status == MQ_OK && chat->plain.program) {
        status = read_entry_chat_template(chat, &chat->tool_use, directory, "additional_chat_templates/tool_use.jinja",
                                          error);
    } else if (status == MQ_OK) {
        status = add_configured(chat, config, error);
        if (status == MQ_OK && !chat->plain.program && !chat->tool_use.program) {
            status = read_config(directory, "chat_template.json", &processor, error);
            if (status == MQ_OK) status = add_configured(chat, processor, error);
        }
        if (status != MQ_OK) status = mq__fail_within(error, status, directory);
    }
    if (status == MQ_OK && !chat->plain.program && !chat->tool_use.program) {
        status = mq__fail(
            error, MQ_FORMAT,
            "chat template: %s: expected chat_template.jinja or a chat_template in tokenizer_config.json, got neither",
            directory);
    }
    json_decref(config);
    json_decref(processor);
    if (status == MQ_OK) {
        *out = chat;
    } else {
        mq__chat_template_free(chat);
    }
    return status;
}

mq_status mq__chat_template_load_file(const char *file, const char *directory, mq_chat_template **out, mq_error *error)
{
    json_t *config = NULL;
    *out = NULL;
    mq_chat_template *const chat = new_chat(error);
    if (!chat) return MQ_NO_MEMORY;
    mq_status status = directory ? read_config(directory, "tokenizer_config.json", &config, error) : MQ_OK;
    if (status == MQ_OK) status = read_tokens_chat_template(chat, config, error);
    if (status == MQ_OK) status = read_entry_chat_template(chat, &chat->plain, NULL, file, error);
    json_decref(config);
    if (status == MQ_OK) {
        *out = chat;
    } else {
        mq__chat_template_free(chat);
    }
    return status;
}

mq_status mq__chat_template_from_text(const char *text, size_t bytes, const char *config_text, mq_chat_template **out,
                                      mq_error *error)
{
    json_t *config = NULL;
    *out = NULL;
    mq_chat_template *const chat = new_chat(error);
    if (!chat) return MQ_NO_MEMORY;
    mq_status status = MQ_OK;
    if (config_text) status = parse_config(config_text, strlen(config_text), "tokenizer_config.json", &config, error);
    if (status == MQ_OK) status = read_tokens_chat_template(chat, config, error);
    if (status == MQ_OK) status = add_entry(chat, &chat->plain, text, bytes, error);
    json_decref(config);
    if (status == MQ_OK) {
        *out = chat;
    } else {
        mq__chat_template_free(chat);
    }
    return status;
}

void mq__chat_template_free(mq_chat_template *chat)
{
    if (!chat) return;
    json_decref(chat->tokens);
    mq__jinja_free(chat->plain.program);
    mq__jinja_free(chat->tool_use.program);
    mq__free(chat);
}

/* ---------------------------------------------------------------- rendering */

mq_status mq__chat_template_render_json(const mq_chat_template *chat, const json_t *request,
                                        const mq_jinja_options *options, char **prompt, size_t *bytes, mq_error *error)
{
    *prompt = NULL;
    *bytes = 0;
    const json_t *const tools = json_object_get(request, "tools");
    const bool has_tools = tools && !json_is_null(tools);
    const entry *const e =
        (has_tools && chat->tool_use.program) || !chat->plain.program ? &chat->tool_use : &chat->plain;
    if (!has_tools && !chat->plain.program) {
        return mq__fail(error, MQ_TEMPLATE,
                        "chat template: expected a template named default for a request without tools, got none");
    }
    mq_error unused;
    json_t *const variables = mq__chat_request_variables(request, chat->tokens, e->content, error ? error : &unused);
    if (!variables) return error ? error->status : unused.status;
    const mq_status status = mq__jinja_render(e->program, variables, options, prompt, bytes, error);
    json_decref(variables);
    return status;
}

mq_status mq__chat_template_render(const mq_chat_template *chat, const char *text, size_t text_bytes, char **prompt,
                                   size_t *bytes, mq_error *error)
{
    *prompt = NULL;
    *bytes = 0;
    json_t *const request = mq__chat_request_parse(text, text_bytes, error);
    if (!request) return MQ_FORMAT;
    const mq_status status = mq__chat_template_render_json(chat, request, NULL, prompt, bytes, error);
    json_decref(request);
    return status;
}

const char *mq__chat_template_token(const mq_chat_template *chat, const char *name)
{
    return json_string_value(json_object_get(chat->tokens, name));
}
