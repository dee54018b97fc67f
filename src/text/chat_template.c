#include "text/chat_template.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json_read.h"
#include "base/mem.h"
#include "text/chat_template_probe.h"

#include <string.h>

#define CONFIG_BYTES ((size_t)16 << 20) /* tokenizer_config.json lists its added tokens, so it can be long */

/* One named template. */
typedef struct entry {
    mq_jinja *program; /* NULL: there is none of that name */
    char *source;
    mq_chat_takes takes;
} entry;

struct mq_chat_template {
    json_t *tokens; /* name -> text of the special tokens that are set */
    entry plain, tool_use;
};

/* ---------------------------------------------------------------- loading */

static mq_status add_entry(mq_chat_template *chat, entry *e, const char *text, size_t bytes, mq_error *error)
{
    const mq_status status = mq__jinja_parse(text, bytes, &e->program, error);
    if (status != MQ_OK) return status;
    e->source = mq__strndup(text, bytes);
    if (!e->source) return mq__fail(error, MQ_NO_MEMORY, "chat template: out of memory");
    return mq__chat_probe(e->program, chat->tokens, &e->takes, error);
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
    const mq_status status = mq__json_read(text, bytes, JSON_ALLOW_NUL, MQ_JSON_ROUND_NUMBERS, name, config, error);
    if (status != MQ_OK) return status;
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
    mq__free(chat->plain.source);
    mq__free(chat->tool_use.source);
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
    json_t *variables;
    mq_status status = mq__chat_request_variables(request, chat->tokens, &e->takes, &variables, error);
    if (status != MQ_OK) return status;
    status = mq__jinja_render(e->program, variables, options, prompt, bytes, error);
    json_decref(variables);
    return status;
}

mq_status mq__chat_template_render(const mq_chat_template *chat, const char *text, size_t text_bytes, char **prompt,
                                   size_t *bytes, mq_error *error)
{
    *prompt = NULL;
    *bytes = 0;
    json_t *request;
    mq_status status = mq__chat_request_parse(text, text_bytes, &request, error);
    if (status != MQ_OK) return status;
    status = mq__chat_template_render_json(chat, request, NULL, prompt, bytes, error);
    json_decref(request);
    return status;
}

const char *mq__chat_template_source(const mq_chat_template *chat)
{
    return chat->tool_use.source ? chat->tool_use.source : chat->plain.source;
}

const char *mq__chat_template_token(const mq_chat_template *chat, const char *name)
{
    return json_string_value(json_object_get(chat->tokens, name));
}
