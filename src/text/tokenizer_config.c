/* tokenizer_config.json and added_tokens.json: what stands beside tokenizer.json. */
#include "base/error.h"
#include "base/json_read.h"
#include "base/mem.h"
#include "text/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

#define WHAT             "tokenizer_config.json"
#define MAX_CONFIG_BYTES ((size_t)16 << 20)

static mq_status load_object(mq_text file, const char *what, json_t **json, mq_error *error)
{
    *json = NULL;
    if (file.bytes > MAX_CONFIG_BYTES) {
        return mq__fail(error, MQ_LIMIT, "%s: expected at most %zu bytes, got %zu", what, MAX_CONFIG_BYTES, file.bytes);
    }
    const mq_status status =
        mq__json_read(file.data, file.bytes, JSON_ALLOW_NUL, MQ_JSON_ROUND_NUMBERS, what, json, error);
    if (status != MQ_OK) return status;
    if (json_is_object(*json)) return MQ_OK;
    json_decref(*json);
    *json = NULL;
    return mq__fail(error, MQ_FORMAT, "%s: expected an object, got something else", what);
}

/* bos_token and friends: a string, null, or an object with content */
static mq_status read_special(mq_tokenizer *tokenizer, const json_t *config, const char *key, mq_special which,
                              mq_error *error)
{
    const json_t *value = json_object_get(config, key);
    if (!value || json_is_null(value)) return MQ_OK;
    if (json_is_object(value)) value = json_object_get(value, "content");
    if (!json_is_string(value)) {
        return mq__fail(error, MQ_FORMAT, WHAT ": %s: expected a string, null or an added token, got something else",
                        key);
    }
    const char *text = json_string_value(value);
    tokenizer->special_text[which] = mq__strdup(text);
    if (!tokenizer->special_text[which])
        return mq__fail(error, MQ_NO_MEMORY, WHAT ": %s: expected memory, got none", key);
    tokenizer->special_id[which] = mq__vocab_find(&tokenizer->vocab, text, strlen(text));
    return MQ_OK;
}

static int read_tristate(const json_t *config, const char *key)
{
    const json_t *value = json_object_get(config, key);
    return json_is_boolean(value) ? json_is_true(value) : -1;
}

/* chat_template: a string, or an array of {"name", "template"} */
static mq_status read_templates(mq_tokenizer *tokenizer, json_t *config, mq_error *error)
{
    json_t *value = json_object_get(config, "chat_template");
    if (!value || json_is_null(value)) return MQ_OK;
    tokenizer->templates = json_object();
    int failed = !tokenizer->templates;
    if (json_is_string(value)) {
        failed = failed || json_object_set(tokenizer->templates, "default", value) != 0;
    } else if (json_is_array(value)) {
        size_t i;
        json_t *item;
        json_array_foreach(value, i, item)
        {
            const char *name = json_string_value(json_object_get(item, "name"));
            json_t *text = json_object_get(item, "template");
            if (!name || !json_is_string(text)) {
                return mq__fail(error, MQ_FORMAT,
                                WHAT ": chat_template[%zu]: expected a name and a template, got neither or one", i);
            }
            failed = failed || json_object_set(tokenizer->templates, name, text) != 0;
        }
    } else {
        return mq__fail(error, MQ_FORMAT, WHAT ": chat_template: expected a string or an array, got something else");
    }
    return failed ? mq__fail(error, MQ_NO_MEMORY, WHAT ": chat_template: expected memory, got none") : MQ_OK;
}

static bool read_id(const char *text, int64_t *id)
{
    char *end;
    if (text[0] < '0' || text[0] > '9') return false;
    *id = strtoll(text, &end, 10);
    return *end == '\0' && *id <= MQ_TOKENIZER_MAX_ID;
}

/* added_tokens_decoder: id as text -> added token. Its flags replace those of tokenizer.json, as in transformers. */
static mq_status read_added(mq_tokenizer *tokenizer, json_t *config, mq_error *error)
{
    json_t *added = json_object_get(config, "added_tokens_decoder"), *value;
    const char *key;
    json_object_foreach(added, key, value)
    {
        const json_t *content = json_object_get(value, "content");
        int64_t id;
        if (!read_id(key, &id) || !json_is_string(content)) {
            return mq__fail(error, MQ_FORMAT, WHAT ": added_tokens_decoder: expected ids and tokens, got \"%s\"", key);
        }
        const bool special = mq__step_flag(value, "special", false);
        const mq_added token = {.content = (char *)(uintptr_t)json_string_value(content),
                                .bytes = json_string_length(content),
                                .id = (int32_t)id,
                                .special = special,
                                .single_word = mq__step_flag(value, "single_word", false),
                                .lstrip = mq__step_flag(value, "lstrip", false),
                                .rstrip = mq__step_flag(value, "rstrip", false),
                                .normalized = mq__step_flag(value, "normalized", !special),
                                .restates = true};
        const mq_status status = mq__tokenizer_add(tokenizer, &token, WHAT ": added_tokens_decoder", error);
        if (status != MQ_OK) return status;
    }
    return MQ_OK;
}

mq_status mq__config_load(mq_tokenizer *tokenizer, mq_text config, bool *lists_added, mq_error *error)
{
    static const char *const keys[MQ_SPECIAL_COUNT] = {"bos_token", "eos_token", "pad_token", "unk_token"};
    json_t *json;
    mq_status status = load_object(config, WHAT, &json, error);
    if (status != MQ_OK) return status;
    status = read_added(tokenizer, json, error);
    for (int i = 0; status == MQ_OK && i < MQ_SPECIAL_COUNT; i++)
        status = read_special(tokenizer, json, keys[i], (mq_special)i, error);
    if (status == MQ_OK) status = read_templates(tokenizer, json, error);
    *lists_added = json_object_size(json_object_get(json, "added_tokens_decoder")) > 0;
    tokenizer->add_bos = read_tristate(json, "add_bos_token");
    tokenizer->add_eos = read_tristate(json, "add_eos_token");
    json_decref(json);
    return status;
}

/* A file that older versions wrote; it may be stale. What tokenizer.json says otherwise is passed over. */
static bool contradicts(const mq_vocab *vocab, const mq_added *token)
{
    const int32_t id = mq__vocab_find(vocab, token->content, token->bytes);
    return id >= 0 ? id != token->id : mq__vocab_text(vocab, token->id).data != NULL;
}

mq_status mq__added_json_load(mq_tokenizer *tokenizer, mq_text file, mq_error *error)
{
    json_t *json, *value;
    const char *key;
    mq_status status = load_object(file, "added_tokens.json", &json, error);
    if (status != MQ_OK) return status;
    json_object_foreach(json, key, value)
    {
        const json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id > MQ_TOKENIZER_MAX_ID) {
            status = mq__fail(error, MQ_FORMAT, "added_tokens.json: \"%s\": expected an id in 0..%d, got another value",
                              key, MQ_TOKENIZER_MAX_ID);
            break;
        }
        const mq_added token = {
            .content = (char *)(uintptr_t)key, .bytes = strlen(key), .id = (int32_t)id, .normalized = true};
        if (contradicts(&tokenizer->vocab, &token)) continue;
        status = mq__tokenizer_add(tokenizer, &token, "added_tokens.json", error);
        if (status != MQ_OK) break;
    }
    json_decref(json);
    return status;
}
