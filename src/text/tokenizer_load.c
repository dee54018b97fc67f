/* Loading: tokenizer.json is read whole, its parts are found in one checked pass, then each is compiled in the order in
 * which they need each other: vocabulary, normaliser, added tokens, the other steps. */
#include "base/error.h"
#include "base/file.h"
#include "base/json_read.h"
#include "base/mem.h"
#include "text/tokenizer_impl.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define WHAT             "tokenizer.json"
#define MAX_CONFIG_BYTES ((size_t)16 << 20)
#define MAX_ADDED        ((size_t)1 << 18)

typedef struct parts { /* of tokenizer.json; data NULL: absent */
    mq_text normalizer, pre, post, decoder, added;
    bool has_model;
} parts;

/* Reads the model in passing: it is nearly all of the file. */
static mq_status find_parts(mq_tokenizer *tokenizer, mq_text file, parts *p, mq_error *error)
{
    const struct {
        const char *name;
        mq_text *slice;
    } known[] = {
        {"normalizer", &p->normalizer}, {"pre_tokenizer", &p->pre},  {"post_processor", &p->post},
        {"decoder", &p->decoder},       {"added_tokens", &p->added},
    };
    mq_tokjson json;
    mq_text key, ignored;
    mq__tokjson_init(&json, WHAT, file, error);
    mq__tokjson_open(&json, '{');
    while (mq__tokjson_more(&json, '}')) {
        if (!mq__tokjson_key(&json, &key)) break;
        mq_text *slice = &ignored;
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
            if (mq__text_is(key, known[i].name)) slice = known[i].slice;
        }
        const bool model = mq__text_is(key, "model");
        if (model ? p->has_model : slice != &ignored && slice->data != NULL) {
            mq__tokjson_expected(&json, "each key once");
        } else if (model) {
            p->has_model = true;
            (void)mq__model_read(tokenizer, &json);
        } else {
            (void)mq__tokjson_skip(&json, slice);
        }
    }
    mq__tokjson_end(&json);
    mq__tokjson_free(&json);
    if (json.status == MQ_OK && !p->has_model) {
        return mq__fail(error, MQ_FORMAT, WHAT ": model: expected one, got none");
    }
    return json.status;
}

/* ---------------------------------------------------------------- added tokens */

/* Puts the token's normalised form where it is looked for in normalised text. A special token also stands there as it
 * is written: a chat template that puts "</s><s>" together means both, whatever a Prepend would put before each. */
static mq_status add_normalized(mq_tokenizer *tokenizer, const mq_added *token, const char *where, mq_error *error)
{
    mq_encode_work work = {.regex.budget = tokenizer->load_budget};
    mq_text text = {token->content, token->bytes};
    mq_status status = mq__normalize(tokenizer, &text, &work, error);
    if (status == MQ_OK && text.bytes > 4 * MQ_ADDED_MAX_BYTES) {
        status = mq__fail(error, MQ_LIMIT, "%s: id %d: expected at most %d bytes when normalised, got %zu", where,
                          (int)token->id, 4 * MQ_ADDED_MAX_BYTES, text.bytes);
    }
    if (status == MQ_OK) {
        mq_added changed = *token;
        changed.content = (char *)(uintptr_t)text.data;
        changed.bytes = text.bytes;
        const bool ok = (text.bytes == 0 || mq__added_put(&tokenizer->normalized, &changed)) &&
                        (!token->special || mq__added_put(&tokenizer->normalized, token));
        if (!ok) status = mq__fail(error, MQ_NO_MEMORY, "%s: expected memory, got none", where);
    }
    tokenizer->load_budget = work.regex.budget;
    mq__encode_work_free(&work);
    return status;
}

static uint32_t added_flags(const mq_added *token)
{
    return MQ_TOKEN_ADDED | (token->special ? (uint32_t)MQ_TOKEN_SPECIAL : 0) |
           (token->single_word ? (uint32_t)MQ_TOKEN_SINGLE_WORD : 0) | (token->lstrip ? (uint32_t)MQ_TOKEN_LSTRIP : 0) |
           (token->rstrip ? (uint32_t)MQ_TOKEN_RSTRIP : 0) | (token->normalized ? (uint32_t)MQ_TOKEN_NORMALIZED : 0);
}

/* Puts the token where encoding looks for it. One that is added already keeps its flags, unless they are restated; once
 * special, a token stays so. */
static mq_status put_added(mq_tokenizer *tokenizer, mq_added token, const char *where, mq_error *error)
{
    uint32_t *flags = &tokenizer->vocab.tokens[token.id].flags;
    token.special = token.special || (*flags & MQ_TOKEN_SPECIAL);
    uint32_t now = added_flags(&token) | (*flags & MQ_TOKEN_OUTSIDE);
    if (*flags & MQ_TOKEN_ADDED) {
        if (!token.restates || (*flags & MQ_TOKEN_RESTATED) || now == *flags) return MQ_OK;
        now |= MQ_TOKEN_RESTATED;
    }
    *flags = now;
    if (token.bytes == 0) return MQ_OK;
    if (token.normalized) return add_normalized(tokenizer, &token, where, error);
    if (mq__added_put(&tokenizer->raw, &token)) return MQ_OK;
    return mq__fail(error, MQ_NO_MEMORY, "%s: expected memory, got none", where);
}

/* Takes away what was put before the token's flags were restated. */
static void drop_restated(const mq_vocab *vocab, mq_added_set *set)
{
    size_t kept = 0;
    for (size_t i = 0; i < set->count; i++) {
        mq_added *token = &set->tokens[i];
        if ((vocab->tokens[token->id].flags & MQ_TOKEN_RESTATED) && !token->restates) {
            mq__free(token->content);
        } else {
            set->tokens[kept++] = *token;
        }
    }
    set->count = kept;
}

mq_status mq__tokenizer_add(mq_tokenizer *tokenizer, const mq_added *token, const char *where, mq_error *error)
{
    const mq_text text = {token->content, token->bytes};
    if (text.bytes > MQ_ADDED_MAX_BYTES) {
        return mq__fail(error, MQ_LIMIT, "%s: id %d: expected at most %d bytes, got %zu", where, (int)token->id,
                        MQ_ADDED_MAX_BYTES, text.bytes);
    }
    if (tokenizer->raw.count + tokenizer->normalized.count > MAX_ADDED) {
        return mq__fail(error, MQ_LIMIT, "%s: expected at most %zu tokens, got more", where, MAX_ADDED);
    }
    mq_vocab *vocab = &tokenizer->vocab;
    switch (mq__vocab_put(vocab, text, token->id, MQ_TOKEN_OUTSIDE)) {
    case MQ_PUT_NO_MEMORY:
        return mq__fail(error, MQ_NO_MEMORY, "%s: expected memory, got none", where);
    case MQ_PUT_SAME_ID:
        return mq__fail(error, MQ_FORMAT, "%s: id %d: expected an id of its own, got that of another token", where,
                        (int)token->id);
    case MQ_PUT_SAME_TEXT: {
        const int32_t id = mq__vocab_find(vocab, text.data, text.bytes);
        if (id == token->id) break;
        return mq__fail(error, MQ_FORMAT, "%s: id %d: expected id %d, which its text has already, got another", where,
                        (int)token->id, (int)id);
    }
    case MQ_PUT_DONE:
        break;
    }
    return put_added(tokenizer, *token, where, error);
}

/* Reads one object of added_tokens; *content is an owned copy (the reader's string does not outlive the next one). */
static bool read_added_token(mq_tokjson *json, mq_added *token)
{
    mq_text key, content = {NULL, 0};
    int64_t id = -1;
    bool ok = mq__tokjson_open(json, '{');
    while (ok && mq__tokjson_more(json, '}')) {
        if (!mq__tokjson_key(json, &key)) break;
        if (mq__text_is(key, "id")) {
            ok = mq__tokjson_integer(json, 0, MQ_TOKENIZER_MAX_ID, &id);
        } else if (mq__text_is(key, "content")) {
            ok = mq__tokjson_string(json, &content) && !token->content;
            if (!ok) break;
            token->bytes = content.bytes;
            token->content = mq__strndup(content.data, content.bytes);
            ok = token->content || mq__tokjson_no_memory(json);
        } else if (mq__text_is(key, "special")) {
            ok = mq__tokjson_bool(json, &token->special);
        } else if (mq__text_is(key, "single_word")) {
            ok = mq__tokjson_bool(json, &token->single_word);
        } else if (mq__text_is(key, "lstrip")) {
            ok = mq__tokjson_bool(json, &token->lstrip);
        } else if (mq__text_is(key, "rstrip")) {
            ok = mq__tokjson_bool(json, &token->rstrip);
        } else if (mq__text_is(key, "normalized")) {
            ok = mq__tokjson_bool(json, &token->normalized);
        } else {
            ok = mq__tokjson_skip(json, NULL);
        }
    }
    if (json->status != MQ_OK) return false;
    token->id = (int32_t)id;
    return (ok && id >= 0 && token->content) || mq__tokjson_expected(json, "one id and one content, before this byte");
}

static mq_status read_added_tokens(mq_tokenizer *tokenizer, mq_text slice, mq_error *error)
{
    mq_tokjson json;
    mq_status status = MQ_OK;
    if (!slice.data) return MQ_OK;
    mq__tokjson_init(&json, WHAT ": added_tokens", slice, error);
    if (!mq__tokjson_null(&json)) mq__tokjson_open(&json, '[');
    while (status == MQ_OK && json.depth > 0 && mq__tokjson_more(&json, ']')) {
        mq_added token = {0};
        if (read_added_token(&json, &token)) status = mq__tokenizer_add(tokenizer, &token, json.what, error);
        mq__free(token.content);
        if (json.status != MQ_OK) break;
    }
    mq__tokjson_free(&json);
    return json.status != MQ_OK ? json.status : status;
}

/* ---------------------------------------------------------------- steps */

typedef mq_status compile_steps(mq_tokenizer *tokenizer, const json_t *json, mq_error *error);

static mq_status compile_tokenizer_load(mq_tokenizer *tokenizer, mq_text slice, const char *where, compile_steps *steps,
                                        mq_error *error)
{
    if (!slice.data) return MQ_OK;
    if (slice.bytes > MQ_MAX_STEPS_JSON) {
        return mq__fail(error, MQ_LIMIT, WHAT ": %s: expected at most %zu bytes, got %zu", where, MQ_MAX_STEPS_JSON,
                        slice.bytes);
    }
    char place[64];
    snprintf(place, sizeof place, WHAT ": %s", where);
    json_t *json;
    mq_status status = mq__json_read(slice.data, slice.bytes, JSON_DECODE_ANY | JSON_ALLOW_NUL, MQ_JSON_ROUND_NUMBERS,
                                     place, &json, error);
    if (status != MQ_OK) return status;
    status = steps(tokenizer, json, error);
    json_decref(json);
    return status;
}

static mq_status load_tokenizer_json(mq_tokenizer *tokenizer, mq_text file, parts *p, mq_error *error)
{
    mq_status status = find_parts(tokenizer, file, p, error);
    if (status == MQ_OK)
        status = compile_tokenizer_load(tokenizer, p->normalizer, "normalizer", mq__steps_normalizer, error);
    if (status == MQ_OK) status = read_added_tokens(tokenizer, p->added, error);
    return status;
}

static mq_status load_all(mq_tokenizer *tokenizer, const mq_tokenizer_files *files, mq_error *error)
{
    parts p = {0};
    const mq_text file = {files->tokenizer, files->tokenizer_bytes}, config = {files->config, files->config_bytes},
                  added = {files->added, files->added_bytes};
    mq_status status = load_tokenizer_json(tokenizer, file, &p, error);
    bool lists_added = false;
    if (status == MQ_OK && config.data) status = mq__config_load(tokenizer, config, &lists_added, error);
    if (status == MQ_OK && added.data && !lists_added) status = mq__added_json_load(tokenizer, added, error);
    if (status != MQ_OK) return status;
    drop_restated(&tokenizer->vocab, &tokenizer->raw);
    drop_restated(&tokenizer->vocab, &tokenizer->normalized);
    mq__added_sort(&tokenizer->raw);
    mq__added_sort(&tokenizer->normalized);
    status = compile_tokenizer_load(tokenizer, p.pre, "pre_tokenizer", mq__steps_pre, error);
    if (status == MQ_OK) status = compile_tokenizer_load(tokenizer, p.post, "post_processor", mq__steps_post, error);
    if (status == MQ_OK) status = compile_tokenizer_load(tokenizer, p.decoder, "decoder", mq__steps_decoder, error);
    if (status == MQ_OK) mq__model_finish(tokenizer);
    return status;
}

static uint64_t random_seed(void)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) == (ssize_t)sizeof seed) return seed;
    struct timespec now; /* early boot, or a sandbox without the call: a guess is enough to keep tables usable */
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_nsec * 0x9E3779B97F4A7C15u ^ (uint64_t)(uintptr_t)&seed;
}

mq_status mq__tokenizer_load_memory(const mq_tokenizer_files *files, mq_tokenizer **out, mq_error *error)
{
    *out = NULL;
    if (files->tokenizer_bytes > MQ_TOKENIZER_MAX_FILE) {
        return mq__fail(error, MQ_LIMIT, WHAT ": expected at most %zu bytes, got %zu", MQ_TOKENIZER_MAX_FILE,
                        files->tokenizer_bytes);
    }
    mq_tokenizer *tokenizer = mq__alloc_zero(1, sizeof *tokenizer);
    if (!tokenizer) return mq__fail(error, MQ_NO_MEMORY, WHAT ": expected memory, got none");
    tokenizer->vocab.seed = random_seed();
    tokenizer->load_budget = MQ_REGEX_BUDGET;
    tokenizer->add_bos = tokenizer->add_eos = -1;
    for (int i = 0; i < MQ_SPECIAL_COUNT; i++)
        tokenizer->special_id[i] = -1;
    const mq_status status = load_all(tokenizer, files, error);
    if (status != MQ_OK) {
        mq__tokenizer_free(tokenizer);
        return status;
    }
    *out = tokenizer;
    return MQ_OK;
}

/* An absent optional file leaves *data NULL; one that is there and cannot be read is an error. */
static mq_status read_file(const char *dir, const char *name, size_t max, bool optional, char **data, size_t *bytes,
                           mq_error *error)
{
    char *path = mq__path_join(dir, name);
    if (!path) return mq__fail(error, MQ_NO_MEMORY, "%s: expected memory, got none", name);
    mq_status status = MQ_OK;
    if (!optional || mq__file_exists(path)) status = mq__file_read(path, max, data, bytes, error);
    mq__free(path);
    return status;
}

mq_status mq__tokenizer_load(const char *dir, mq_tokenizer **out, mq_error *error)
{
    char *file = NULL, *config = NULL, *added = NULL;
    mq_tokenizer_files files = {0};
    *out = NULL;
    mq_status status = read_file(dir, WHAT, MQ_TOKENIZER_MAX_FILE, false, &file, &files.tokenizer_bytes, error);
    if (status == MQ_OK) {
        status = read_file(dir, "tokenizer_config.json", MAX_CONFIG_BYTES, true, &config, &files.config_bytes, error);
    }
    if (status == MQ_OK) {
        status = read_file(dir, "added_tokens.json", MAX_CONFIG_BYTES, true, &added, &files.added_bytes, error);
    }
    files.tokenizer = file;
    files.config = config;
    files.added = added;
    if (status == MQ_OK) status = mq__tokenizer_load_memory(&files, out, error);
    mq__free(file);
    mq__free(config);
    mq__free(added);
    return status;
}

void mq__tokenizer_free(mq_tokenizer *tokenizer)
{
    if (!tokenizer) return;
    mq__vocab_free(&tokenizer->vocab);
    mq__bpe_free(&tokenizer->bpe);
    mq__added_free(&tokenizer->raw);
    mq__added_free(&tokenizer->normalized);
    mq__steps_free(tokenizer);
    mq__ids_free(&tokenizer->before);
    mq__ids_free(&tokenizer->after);
    for (int i = 0; i < MQ_SPECIAL_COUNT; i++)
        mq__free(tokenizer->special_text[i]);
    json_decref(tokenizer->templates);
    mq__free(tokenizer);
}
