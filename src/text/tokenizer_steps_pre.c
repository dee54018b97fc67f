/* Compiles the pre-tokeniser and the post-processor of tokenizer.json. */
#include "base/error.h"
#include "base/mem.h"
#include "text/tokenizer_impl.h"

#include <string.h>

#define PRE "pre_tokenizer"

/* ---------------------------------------------------------------- pre_tokenizer */

static mq_pre_step *new_step(mq_tokenizer *tokenizer, mq_pre_kind kind, mq_error *error)
{
    if (tokenizer->pre_count == MQ_MAX_STEPS) {
        mq__fail(error, MQ_LIMIT, "tokenizer.json: " PRE ": expected at most %d steps, got more", MQ_MAX_STEPS);
        return NULL;
    }
    mq_pre_step *step = &tokenizer->pre[tokenizer->pre_count++];
    *step = (mq_pre_step){.kind = kind};
    return step;
}

static mq_status read_behavior(const json_t *json, mq_split_behavior *behavior, mq_error *error)
{
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const json_t *value = json_object_get(json, "behavior");
    const char *name = value ? json_string_value(value) : "Isolated";
    for (size_t i = 0; name && i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) != 0) continue;
        *behavior = (mq_split_behavior)i;
        return MQ_OK;
    }
    return mq__fail(error, MQ_UNSUPPORTED, "tokenizer.json: " PRE ".behavior: expected a known one, got \"%s\"",
                    name ? name : "(not a string)");
}

static mq_status split_step(mq_tokenizer *tokenizer, const json_t *json, mq_error *error)
{
    mq_pre_step *step = new_step(tokenizer, MQ_PRE_TEXT, error);
    if (!step) return MQ_LIMIT;
    mq_status status = read_behavior(json, &step->behavior, error);
    if (status != MQ_OK) return status;
    step->invert = mq__step_flag(json, "invert", false);
    status = mq__step_pattern(json, PRE, &step->text, &step->text_bytes, &step->regex, error);
    if (status != MQ_OK || !step->regex) return status;
    step->kind = MQ_PRE_REGEX;
    step->pattern = mq__split_known(step->text, step->text_bytes);
    if (step->pattern != MQ_SPLIT_NONE) {
        /* A known expression matches every character: what it isolates, and what is not between, are its pieces. */
        const bool pieces = step->invert
                                ? step->behavior == MQ_BEHAVIOR_REMOVED || step->behavior == MQ_BEHAVIOR_ISOLATED
                                : step->behavior == MQ_BEHAVIOR_ISOLATED;
        if (pieces) step->kind = MQ_PRE_PATTERN;
    }
    return MQ_OK;
}

static mq_status byte_level_step(mq_tokenizer *tokenizer, const json_t *json, mq_error *error)
{
    if (mq__step_flag(json, "add_prefix_space", true) && !new_step(tokenizer, MQ_PRE_PREFIX_SPACE, error)) {
        return MQ_LIMIT;
    }
    if (mq__step_flag(json, "use_regex", true)) {
        mq_pre_step *step = new_step(tokenizer, MQ_PRE_PATTERN, error);
        if (!step) return MQ_LIMIT;
        step->pattern = MQ_SPLIT_GPT2;
    }
    return new_step(tokenizer, MQ_PRE_BYTES, error) ? MQ_OK : MQ_LIMIT;
}

static mq_status metaspace_step(mq_tokenizer *tokenizer, const json_t *json, mq_error *error)
{
    mq_pre_step *step = new_step(tokenizer, MQ_PRE_METASPACE, error);
    if (!step) return MQ_LIMIT;
    const json_t *value = json_object_get(json, "prepend_scheme");
    const char *scheme = value ? json_string_value(value) : "always";
    step->split = mq__step_flag(json, "split", true);
    if (!mq__step_flag(json, "add_prefix_space", true)) scheme = "never"; /* what files before prepend_scheme say */
    if (scheme && strcmp(scheme, "always") == 0) {
        step->scheme = MQ_PREPEND_ALWAYS;
    } else if (scheme && strcmp(scheme, "first") == 0) {
        step->scheme = MQ_PREPEND_FIRST;
    } else if (scheme && strcmp(scheme, "never") == 0) {
        step->scheme = MQ_PREPEND_NEVER;
    } else {
        return mq__fail(error, MQ_UNSUPPORTED,
                        "tokenizer.json: " PRE ".prepend_scheme: expected a known one, got \"%s\"",
                        scheme ? scheme : "(not a string)");
    }
    const mq_status status = mq__step_text(json, "replacement", PRE, &step->text, &step->text_bytes, error);
    if (status == MQ_OK && step->text_bytes == 0) {
        return mq__fail(error, MQ_FORMAT, "tokenizer.json: " PRE ".replacement: expected a character, got none");
    }
    return status;
}

static mq_status class_step(mq_tokenizer *tokenizer, unsigned classes, mq_split_behavior behavior, mq_error *error)
{
    mq_pre_step *step = new_step(tokenizer, MQ_PRE_CLASS, error);
    if (!step) return MQ_LIMIT;
    step->classes = classes;
    step->behavior = behavior;
    return MQ_OK;
}

static mq_status pre_step(mq_tokenizer *tokenizer, const json_t *json, const char *type, mq_error *error)
{
    if (strcmp(type, "Split") == 0) return split_step(tokenizer, json, error);
    if (strcmp(type, "ByteLevel") == 0) return byte_level_step(tokenizer, json, error);
    if (strcmp(type, "Metaspace") == 0) return metaspace_step(tokenizer, json, error);
    if (strcmp(type, "Whitespace") == 0) return new_step(tokenizer, MQ_PRE_WORDS, error) ? MQ_OK : MQ_LIMIT;
    if (strcmp(type, "WhitespaceSplit") == 0) {
        return class_step(tokenizer, MQ_CLASS_SPACE, MQ_BEHAVIOR_REMOVED, error);
    }
    if (strcmp(type, "Digits") == 0) {
        const bool each = mq__step_flag(json, "individual_digits", false);
        return class_step(tokenizer, MQ_CLASS_NUMBER, each ? MQ_BEHAVIOR_ISOLATED : MQ_BEHAVIOR_CONTIGUOUS, error);
    }
    if (strcmp(type, "Punctuation") == 0) {
        mq_split_behavior behavior = MQ_BEHAVIOR_ISOLATED;
        const mq_status status = read_behavior(json, &behavior, error);
        return status == MQ_OK ? class_step(tokenizer, MQ_CLASS_PUNCT, behavior, error) : status;
    }
    return mq__step_unknown(type, PRE, error);
}

mq_status mq__steps_pre(mq_tokenizer *tokenizer, const json_t *json, mq_error *error)
{
    if (json_is_null(json)) return MQ_OK;
    const char *type = mq__step_type(json, PRE, error);
    if (!type) return MQ_FORMAT;
    if (strcmp(type, "Sequence") != 0) return pre_step(tokenizer, json, type, error);
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(json, "pretokenizers"), i, item)
    {
        const mq_status status = mq__steps_pre(tokenizer, item, error);
        if (status != MQ_OK) return status;
    }
    return MQ_OK;
}

/* ---------------------------------------------------------------- post_processor */

#define POST "post_processor"

static mq_status push_id(const mq_tokenizer *tokenizer, const json_t *json, mq_ids *ids, mq_error *error)
{
    const json_int_t id = json_integer_value(json);
    const bool known =
        json_is_integer(json) && id >= 0 && id <= MQ_TOKENIZER_MAX_ID && mq__tokenizer_is_valid(tokenizer, (int32_t)id);
    if (!known) {
        return mq__fail(error, MQ_FORMAT, "tokenizer.json: " POST ": expected the id of a token, got %lld",
                        (long long)id);
    }
    if (!mq__ids_push(ids, (int32_t)id)) {
        return mq__fail(error, MQ_NO_MEMORY, "tokenizer.json: " POST ": expected memory, got none");
    }
    return MQ_OK;
}

static mq_status special_piece(const mq_tokenizer *tokenizer, const json_t *specials, const json_t *piece, mq_ids *ids,
                               mq_error *error)
{
    const char *name = json_string_value(json_object_get(piece, "id"));
    const json_t *list = name ? json_object_get(json_object_get(specials, name), "ids") : NULL;
    if (!json_is_array(list)) {
        return mq__fail(error, MQ_FORMAT,
                        "tokenizer.json: " POST ": expected the ids of special token \"%s\", got none",
                        name ? name : "");
    }
    size_t i;
    json_t *id;
    json_array_foreach(list, i, id)
    {
        const mq_status status = push_id(tokenizer, id, ids, error);
        if (status != MQ_OK) return status;
    }
    return MQ_OK;
}

/* "single": special tokens around one Sequence A */
static mq_status template_around(const mq_tokenizer *tokenizer, const json_t *json, mq_ids *before, mq_ids *after,
                                 mq_error *error)
{
    size_t i, texts = 0;
    json_t *item;
    json_array_foreach(json_object_get(json, "single"), i, item)
    {
        const json_t *special = json_object_get(item, "SpecialToken");
        const char *text = json_string_value(json_object_get(json_object_get(item, "Sequence"), "id"));
        mq_status status = MQ_OK;
        if (special) {
            const json_t *specials = json_object_get(json, "special_tokens");
            status = special_piece(tokenizer, specials, special, texts ? after : before, error);
        } else if (text && strcmp(text, "A") == 0) {
            texts++;
        } else {
            status = mq__fail(error, MQ_UNSUPPORTED,
                              "tokenizer.json: " POST ".single: expected special tokens and sequence A, got another");
        }
        if (status != MQ_OK) return status;
    }
    if (texts != 1) {
        return mq__fail(error, MQ_UNSUPPORTED,
                        "tokenizer.json: " POST ".single: expected sequence A once, got it %zu times", texts);
    }
    return MQ_OK;
}

/* RobertaProcessing, BertProcessing: cls, the text, sep; each is a pair of text and id */
static mq_status cls_sep(const mq_tokenizer *tokenizer, const json_t *json, mq_ids *before, mq_ids *after,
                         mq_error *error)
{
    const mq_status status = push_id(tokenizer, json_array_get(json_object_get(json, "cls"), 1), before, error);
    if (status != MQ_OK) return status;
    return push_id(tokenizer, json_array_get(json_object_get(json, "sep"), 1), after, error);
}

/* before = inner + before, after = after + inner */
static bool wrap(mq_tokenizer *tokenizer, mq_ids *before, const mq_ids *after)
{
    for (size_t i = 0; i < tokenizer->before.len; i++) {
        if (!mq__ids_push(before, tokenizer->before.data[i])) return false;
    }
    for (size_t i = 0; i < after->len; i++) {
        if (!mq__ids_push(&tokenizer->after, after->data[i])) return false;
    }
    mq__ids_free(&tokenizer->before);
    tokenizer->before = *before;
    *before = (mq_ids){0};
    return true;
}

mq_status mq__steps_post(mq_tokenizer *tokenizer, const json_t *json, mq_error *error)
{
    if (json_is_null(json)) return MQ_OK;
    const char *type = mq__step_type(json, POST, error);
    if (!type) return MQ_FORMAT;
    if (strcmp(type, "ByteLevel") == 0) return MQ_OK; /* moves offsets only, and there are none here */
    mq_status status = MQ_OK;
    if (strcmp(type, "Sequence") == 0) {
        size_t i;
        json_t *item;
        json_array_foreach(json_object_get(json, "processors"), i, item)
        {
            status = mq__steps_post(tokenizer, item, error);
            if (status != MQ_OK) return status;
        }
        return MQ_OK;
    }
    mq_ids before = {0}, after = {0};
    if (strcmp(type, "TemplateProcessing") == 0) {
        status = template_around(tokenizer, json, &before, &after, error);
    } else if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0) {
        status = cls_sep(tokenizer, json, &before, &after, error);
    } else {
        status = mq__step_unknown(type, POST, error);
    }
    if (status == MQ_OK && !wrap(tokenizer, &before, &after)) {
        status = mq__fail(error, MQ_NO_MEMORY, "tokenizer.json: " POST ": expected memory, got none");
    }
    mq__ids_free(&before);
    mq__ids_free(&after);
    return status;
}
