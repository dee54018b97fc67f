/* The id of the tokenizer's end token, without building the tokenizer: the engine needs it where nobody opens a text. */
#include "base/error.h"
#include "base/file.h"
#include "base/json_read.h"
#include "base/mem.h"
#include "format/config_read.h"

#include <stdlib.h>
#include <string.h>

#define CONFIG_BYTES    ((size_t)16 << 20)
#define TOKENIZER_BYTES ((size_t)256 << 20)

static mq_status parse_object(const char *text, size_t bytes, const char *path, json_t **root, mq_error *error)
{
    /* model_max_length often is 1e30, written as an integer */
    const mq_status s = mq__json_read(text, bytes, JSON_ALLOW_NUL, MQ_JSON_ROUND_NUMBERS, path, root, error);
    if (s != MQ_OK || json_is_object(*root)) return s;
    json_decref(*root);
    *root = NULL;
    return mq__fail(error, MQ_FORMAT, "json: %s: expected a JSON object, got something else", path);
}

/* *root is NULL when the directory has no such file. */
static mq_status read_object_tokenizer_eos(const char *dir, const char *name, size_t max_bytes, json_t **root,
                                           mq_error *error)
{
    char *data = NULL, *path = mq__path_join(dir, name);
    size_t bytes;
    *root = NULL;
    if (!path) return mq__fail(error, MQ_NO_MEMORY, "%s: expected memory, got none", name);
    mq_status s = MQ_OK;
    if (mq__file_exists(path)) {
        s = mq__file_read(path, max_bytes, &data, &bytes, error);
        if (s == MQ_OK) s = parse_object(data, bytes, path, root, error);
    }
    mq__free(data);
    mq__free(path);
    return s;
}

static bool is_token(const json_t *value, const char *token)
{
    const char *text = json_string_value(value);
    return text && strcmp(text, token) == 0;
}

static int64_t id_of(const json_t *value)
{
    return json_is_number(value) ? (int64_t)json_number_value(value) : -1;
}

/* added_tokens_decoder: {"151645": {"content": "<|im_end|>", ...}} */
static int64_t find_in_config(const json_t *config, const char *token)
{
    const char *key;
    json_t *value;
    json_object_foreach(json_object_get(config, "added_tokens_decoder"), key, value)
    {
        if (is_token(json_object_get(value, "content"), token)) return strtoll(key, NULL, 10);
    }
    return -1;
}

/* added_tokens: [{"id": 151645, "content": "<|im_end|>"}]; vocab: {"token": id}, or [["token", score]] of Unigram. */
static int64_t find_in_tokenizer(const json_t *tokenizer, const char *token)
{
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(tokenizer, "added_tokens"), i, item)
    {
        if (is_token(json_object_get(item, "content"), token)) return id_of(json_object_get(item, "id"));
    }
    const json_t *vocab = json_object_get(json_object_get(tokenizer, "model"), "vocab");
    json_array_foreach(vocab, i, item)
    {
        if (is_token(json_array_get(item, 0), token)) return (int64_t)i;
    }
    return id_of(json_object_get(vocab, token));
}

mq_status mq__tokenizer_eos(const char *dir, int64_t *id, mq_error *error)
{
    json_t *config = NULL, *tokenizer = NULL;
    mq_error trouble = {0};
    *id = -1;
    mq_status s = read_object_tokenizer_eos(dir, "tokenizer_config.json", CONFIG_BYTES, &config, error);
    if (s != MQ_OK) return s;
    const json_t *eos = json_object_get(config, "eos_token");
    const char *token = json_string_value(json_is_object(eos) ? json_object_get(eos, "content") : eos);
    if (eos && !json_is_null(eos) && !token) {
        s = mq__fail(error, MQ_FORMAT,
                     "tokenizer_config.json: eos_token: expected a string, null or an added token, got something else");
    }
    if (token) *id = find_in_config(config, token);
    if (token && *id < 0) {
        /* What is wrong with a tokenizer is reported where one is opened; without one, tokens have no text at all. */
        const mq_status read = read_object_tokenizer_eos(dir, "tokenizer.json", TOKENIZER_BYTES, &tokenizer, &trouble);
        if (read == MQ_NO_MEMORY) s = mq__fail(error, read, "%s", trouble.text);
        *id = find_in_tokenizer(tokenizer, token);
    }
    json_decref(tokenizer);
    json_decref(config);
    return s;
}
