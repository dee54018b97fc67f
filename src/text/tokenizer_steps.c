/* Compiles the normaliser and the decoder of tokenizer.json into lists of steps; Sequences are flattened. */
#include "base/error.h"
#include "base/mem.h"
#include "text/tokenizer_impl.h"

#include <string.h>

/* ---------------------------------------------------------------- shared helpers */

static mq_status short_of_memory_tokenizer_steps(const char *where, mq_error *error)
{
    return mq__fail(error, MQ_NO_MEMORY, "tokenizer.json: %s: expected memory, got none", where);
}

const char *mq__step_type(const json_t *json, const char *where, mq_error *error)
{
    const char *type = json_string_value(json_object_get(json, "type"));
    if (!type) mq__fail(error, MQ_FORMAT, "tokenizer.json: %s: expected an object with a type, got none", where);
    return type;
}

mq_status mq__step_unknown(const char *type, const char *where, mq_error *error)
{
    return mq__fail(error, MQ_UNSUPPORTED, "tokenizer.json: %s: expected a supported type, got \"%s\"", where, type);
}

bool mq__step_flag(const json_t *json, const char *key, bool absent)
{
    const json_t *value = json_object_get(json, key);
    return json_is_boolean(value) ? json_is_true(value) : absent;
}

mq_status mq__step_text(const json_t *json, const char *key, const char *where, char **text, size_t *bytes,
                        mq_error *error)
{
    const json_t *value = json_object_get(json, key);
    if (!json_is_string(value)) {
        return mq__fail(error, MQ_FORMAT, "tokenizer.json: %s.%s: expected a string, got something else", where, key);
    }
    *bytes = json_string_length(value);
    *text = mq__strndup(json_string_value(value), *bytes);
    return *text ? MQ_OK : short_of_memory_tokenizer_steps(where, error);
}

mq_status mq__step_pattern(const json_t *json, const char *where, char **text, size_t *bytes, mq_regex **regex,
                           mq_error *error)
{
    const json_t *pattern = json_object_get(json, "pattern");
    const bool is_regex = json_object_get(pattern, "Regex") != NULL;
    mq_status status = mq__step_text(pattern, is_regex ? "Regex" : "String", where, text, bytes, error);
    if (status != MQ_OK) return status;
    if (*bytes == 0) {
        return mq__fail(error, MQ_FORMAT, "tokenizer.json: %s.pattern: expected a pattern, got an empty one", where);
    }
    if (!is_regex) return MQ_OK;
    status = mq__regex_compile(*text, *bytes, regex, error);
    return status == MQ_OK ? MQ_OK : mq__fail_within(error, status, "tokenizer.json");
}

static mq_status too_many(const char *where, mq_error *error)
{
    return mq__fail(error, MQ_LIMIT, "tokenizer.json: %s: expected at most %d steps, got more", where, MQ_MAX_STEPS);
}

/* A count of characters to strip: 0..64, absent is 0. */
static bool strip_count(const json_t *json, const char *key, uint32_t *count)
{
    const json_t *value = json_object_get(json, key);
    *count = 0;
    if (!value) return true;
    const json_int_t n = json_integer_value(value);
    if (!json_is_integer(value) || n < 0 || n > 64) return false;
    *count = (uint32_t)n;
    return true;
}

/* ---------------------------------------------------------------- normalizer */

static mq_status norm_step(mq_norm_step *step, const json_t *json, const char *type, mq_error *error)
{
    static const struct {
        const char *name;
        mq_norm_kind kind;
        mq_normal_form form;
    } simple[] = {
        {"NFC", MQ_NORM_FORM, MQ_NORMAL_NFC},
        {"NFD", MQ_NORM_FORM, MQ_NORMAL_NFD},
        {"NFKC", MQ_NORM_FORM, MQ_NORMAL_NFKC},
        {"NFKD", MQ_NORM_FORM, MQ_NORMAL_NFKD},
        {"Lowercase", MQ_NORM_LOWERCASE, 0},
        {"StripAccents", MQ_NORM_STRIP_ACCENTS, 0},
        {"Strip", MQ_NORM_STRIP, 0},
    };
    const char *where = "normalizer";
    for (size_t i = 0; i < sizeof simple / sizeof simple[0]; i++) {
        if (strcmp(type, simple[i].name) != 0) continue;
        step->kind = simple[i].kind;
        step->form = simple[i].form;
        step->left = mq__step_flag(json, "strip_left", true);
        step->right = mq__step_flag(json, "strip_right", true);
        return MQ_OK;
    }
    if (strcmp(type, "Prepend") == 0) {
        step->kind = MQ_NORM_PREPEND;
        return mq__step_text(json, "prepend", where, &step->text, &step->text_bytes, error);
    }
    if (strcmp(type, "Replace") == 0) {
        step->kind = MQ_NORM_REPLACE;
        const mq_status status = mq__step_pattern(json, where, &step->text, &step->text_bytes, &step->regex, error);
        if (status != MQ_OK) return status;
        return mq__step_text(json, "content", where, &step->content, &step->content_bytes, error);
    }
    return mq__step_unknown(type, where, error);
}

mq_status mq__steps_normalizer(mq_tokenizer *tokenizer, const json_t *json, mq_error *error)
{
    if (json_is_null(json)) return MQ_OK;
    const char *type = mq__step_type(json, "normalizer", error);
    if (!type) return MQ_FORMAT;
    if (strcmp(type, "Sequence") == 0) {
        size_t i;
        json_t *item;
        mq_status status = MQ_OK;
        json_array_foreach(json_object_get(json, "normalizers"), i, item)
        {
            status = mq__steps_normalizer(tokenizer, item, error);
            if (status != MQ_OK) return status;
        }
        return MQ_OK;
    }
    if (tokenizer->normalizer_count == MQ_MAX_STEPS) return too_many("normalizer", error);
    return norm_step(&tokenizer->normalizers[tokenizer->normalizer_count++], json, type, error);
}

/* ---------------------------------------------------------------- decoder */

static mq_status strip_decoder(mq_decode_step *step, const json_t *json, mq_error *error)
{
    const mq_status status = mq__step_text(json, "content", "decoder", &step->text, &step->text_bytes, error);
    if (status != MQ_OK) return status;
    size_t next = 0;
    if (step->text_bytes > 0) (void)mq__utf8_next(step->text, step->text_bytes, &next);
    if (next == 0 || next != step->text_bytes) {
        return mq__fail(error, MQ_FORMAT, "tokenizer.json: decoder.content: expected one character, got %zu bytes",
                        step->text_bytes);
    }
    if (!strip_count(json, "start", &step->start) || !strip_count(json, "stop", &step->stop)) {
        return mq__fail(error, MQ_FORMAT, "tokenizer.json: decoder: expected start and stop in 0..64, got others");
    }
    return MQ_OK;
}

static mq_status metaspace_decoder(mq_decode_step *step, const json_t *json, mq_error *error)
{
    const char *scheme = json_string_value(json_object_get(json, "prepend_scheme"));
    step->drop_first = scheme ? strcmp(scheme, "never") != 0 : mq__step_flag(json, "add_prefix_space", true);
    return mq__step_text(json, "replacement", "decoder", &step->text, &step->text_bytes, error);
}

static mq_status decode_step(mq_decode_step *step, const json_t *json, const char *type, mq_error *error)
{
    if (strcmp(type, "ByteLevel") == 0) {
        step->kind = MQ_DECODER_BYTE_LEVEL;
        return MQ_OK;
    }
    if (strcmp(type, "ByteFallback") == 0) {
        step->kind = MQ_DECODER_BYTE_FALLBACK;
        return MQ_OK;
    }
    if (strcmp(type, "Fuse") == 0) {
        step->kind = MQ_DECODER_FUSE;
        return MQ_OK;
    }
    if (strcmp(type, "Strip") == 0) {
        step->kind = MQ_DECODER_STRIP;
        return strip_decoder(step, json, error);
    }
    if (strcmp(type, "Metaspace") == 0) {
        step->kind = MQ_DECODER_METASPACE;
        return metaspace_decoder(step, json, error);
    }
    if (strcmp(type, "BPEDecoder") == 0) {
        step->kind = MQ_DECODER_BPE;
        return mq__step_text(json, "suffix", "decoder", &step->text, &step->text_bytes, error);
    }
    if (strcmp(type, "Replace") == 0) {
        step->kind = MQ_DECODER_REPLACE;
        const mq_status status = mq__step_pattern(json, "decoder", &step->text, &step->text_bytes, &step->regex, error);
        if (status != MQ_OK) return status;
        return mq__step_text(json, "content", "decoder", &step->content, &step->content_bytes, error);
    }
    return mq__step_unknown(type, "decoder", error);
}

/* What may follow a Fuse: steps that a stream can do. Their patterns must not be empty. */
static mq_status check_order(const mq_tokenizer *tokenizer, const mq_decode_step *step, const char *type,
                             mq_error *error)
{
    const bool matches_text = step->kind == MQ_DECODER_METASPACE || step->kind == MQ_DECODER_BPE;
    if (matches_text && step->text_bytes == 0) {
        return mq__fail(error, MQ_FORMAT, "tokenizer.json: decoder %s: expected a text to look for, got none", type);
    }
    const bool streams = step->kind == MQ_DECODER_FUSE || step->kind == MQ_DECODER_STRIP ||
                         (step->kind == MQ_DECODER_REPLACE && !step->regex);
    if (tokenizer->fuse_at < tokenizer->decoder_count && !streams) {
        return mq__fail(error, MQ_UNSUPPORTED,
                        "tokenizer.json: decoder: expected Strip or Replace of a string behind Fuse, got \"%s\"", type);
    }
    return MQ_OK;
}

static mq_status add_decoders(mq_tokenizer *tokenizer, const json_t *json, mq_error *error)
{
    const char *type = mq__step_type(json, "decoder", error);
    if (!type) return MQ_FORMAT;
    if (strcmp(type, "Sequence") == 0) {
        size_t i;
        json_t *item;
        json_array_foreach(json_object_get(json, "decoders"), i, item)
        {
            const mq_status status = add_decoders(tokenizer, item, error);
            if (status != MQ_OK) return status;
        }
        return MQ_OK;
    }
    if (tokenizer->decoder_count == MQ_MAX_STEPS) return too_many("decoder", error);
    mq_decode_step *step = &tokenizer->decoders[tokenizer->decoder_count];
    const mq_status status = decode_step(step, json, type, error);
    const bool fused = tokenizer->fuse_at < tokenizer->decoder_count;
    tokenizer->decoder_count++;
    if (!fused) tokenizer->fuse_at = tokenizer->decoder_count - (step->kind == MQ_DECODER_FUSE && status == MQ_OK);
    return status == MQ_OK ? check_order(tokenizer, step, type, error) : status;
}

mq_status mq__steps_decoder(mq_tokenizer *tokenizer, const json_t *json, mq_error *error)
{
    if (json_is_null(json)) return MQ_OK;
    tokenizer->has_decoder = true;
    return add_decoders(tokenizer, json, error);
}

void mq__steps_free(mq_tokenizer *tokenizer)
{
    for (size_t i = 0; i < tokenizer->normalizer_count; i++) {
        mq__regex_free(tokenizer->normalizers[i].regex);
        mq__free(tokenizer->normalizers[i].text);
        mq__free(tokenizer->normalizers[i].content);
    }
    for (size_t i = 0; i < tokenizer->pre_count; i++) {
        mq__regex_free(tokenizer->pre[i].regex);
        mq__free(tokenizer->pre[i].text);
    }
    for (size_t i = 0; i < tokenizer->decoder_count; i++) {
        mq__regex_free(tokenizer->decoders[i].regex);
        mq__free(tokenizer->decoders[i].text);
        mq__free(tokenizer->decoders[i].content);
    }
}
