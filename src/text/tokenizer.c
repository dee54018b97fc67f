/* Encoding from end to end, and the queries. */
#include "text/tokenizer.h"

#include "base/error.h"
#include "base/mem.h"
#include "text/tokenizer_impl.h"

#include <string.h>

bool mq__ids_push(mq_ids *ids, int32_t id)
{
    if (ids->len == ids->cap) {
        const size_t cap = ids->cap ? ids->cap * 2 : 64;
        int32_t *data = mq__realloc(ids->data, cap * sizeof *data);
        if (!data) return false;
        ids->data = data;
        ids->cap = cap;
    }
    ids->data[ids->len++] = id;
    return true;
}

void mq__ids_free(mq_ids *ids)
{
    mq__free(ids->data);
    *ids = (mq_ids){0};
}

/* ---------------------------------------------------------------- encoding */

typedef struct encoder {
    const mq_tokenizer *tokenizer;
    bool specials; /* special tokens in the text are recognised */
    mq_ids *ids;
    mq_encode_work work;
    mq_error *error;
} encoder;

static mq_status short_of_memory_tokenizer(encoder *e)
{
    return mq__fail(e->error, MQ_NO_MEMORY, "tokenize: expected memory for the ids, got none");
}

/* Normalised text without added tokens: words, then merging. */
static mq_status encode_words(encoder *e, mq_text text, bool at_start)
{
    const mq_spans *words;
    if (text.bytes == 0) return MQ_OK;
    const mq_status status = mq__presplit(e->tokenizer, &text, at_start, &e->work, &words, e->error);
    if (status != MQ_OK) return status;
    for (size_t i = 0; i < words->len; i++) {
        const mq_span span = words->data[i];
        const mq_text word = {text.data + span.start, span.end - span.start};
        if (!mq__bpe_encode(&e->tokenizer->bpe, &e->tokenizer->vocab, word, &e->work.bpe, e->ids)) {
            return short_of_memory_tokenizer(e);
        }
    }
    return MQ_OK;
}

/* Text between the added tokens that are looked for in raw text. */
static mq_status encode_raw_part(encoder *e, mq_text text, bool at_start)
{
    if (text.bytes == 0) return MQ_OK;
    mq_status status = mq__normalize(e->tokenizer, &text, &e->work, e->error);
    for (size_t from = 0; status == MQ_OK && from < text.bytes;) {
        const mq_added_match match =
            mq__added_find(&e->tokenizer->normalized, text.data, text.bytes, from, e->specials);
        const mq_text part = {text.data + from, match.start - from};
        status = encode_words(e, part, at_start && from == 0);
        if (status == MQ_OK && match.found && !mq__ids_push(e->ids, match.id)) status = short_of_memory_tokenizer(e);
        from = match.end;
    }
    return status;
}

static mq_status encode_text(encoder *e, mq_text text)
{
    mq_status status = MQ_OK;
    for (size_t from = 0; status == MQ_OK && from < text.bytes;) {
        const mq_added_match match = mq__added_find(&e->tokenizer->raw, text.data, text.bytes, from, e->specials);
        status = encode_raw_part(e, (mq_text){text.data + from, match.start - from}, from == 0);
        if (status == MQ_OK && match.found && !mq__ids_push(e->ids, match.id)) status = short_of_memory_tokenizer(e);
        from = match.end;
    }
    return status;
}

static bool push_all(mq_ids *ids, const mq_ids *more)
{
    for (size_t i = 0; i < more->len; i++) {
        if (!mq__ids_push(ids, more->data[i])) return false;
    }
    return true;
}

mq_status mq__tokenizer_encode(const mq_tokenizer *tokenizer, const char *text, size_t bytes, unsigned flags,
                               mq_ids *ids, mq_error *error)
{
    if (bytes > MQ_TOKENIZER_MAX_INPUT) {
        return mq__fail(error, MQ_LIMIT, "tokenize: expected a text of at most %zu bytes, got %zu",
                        MQ_TOKENIZER_MAX_INPUT, bytes);
    }
    const size_t before = ids->len;
    const bool around = (flags & MQ_ENCODE_ADD_SPECIAL) != 0;
    encoder e = {.tokenizer = tokenizer,
                 .specials = (flags & MQ_ENCODE_PARSE_SPECIAL) != 0,
                 .ids = ids,
                 .work.regex.budget = MQ_REGEX_BUDGET,
                 .error = error};
    mq_status status = MQ_OK;
    if (around && !push_all(ids, &tokenizer->before)) status = short_of_memory_tokenizer(&e);
    if (status == MQ_OK) status = encode_text(&e, (mq_text){text, bytes});
    if (status == MQ_OK && around && !push_all(ids, &tokenizer->after)) status = short_of_memory_tokenizer(&e);
    mq__encode_work_free(&e.work);
    if (status != MQ_OK) ids->len = before;
    return status;
}

/* ---------------------------------------------------------------- queries */

int32_t mq__tokenizer_vocab_size(const mq_tokenizer *tokenizer)
{
    return (int32_t)tokenizer->vocab.count;
}

bool mq__tokenizer_is_valid(const mq_tokenizer *tokenizer, int32_t id)
{
    return id >= 0 && (size_t)id < tokenizer->vocab.count && tokenizer->vocab.tokens[id].bytes != MQ_TOKEN_ABSENT;
}

bool mq__tokenizer_is_special(const mq_tokenizer *tokenizer, int32_t id)
{
    return mq__tokenizer_is_valid(tokenizer, id) && (tokenizer->vocab.tokens[id].flags & MQ_TOKEN_SPECIAL) != 0;
}

const char *mq__tokenizer_token(const mq_tokenizer *tokenizer, int32_t id, size_t *bytes)
{
    const mq_text text = mq__vocab_text(&tokenizer->vocab, id);
    *bytes = text.bytes;
    return text.data;
}

int32_t mq__tokenizer_id(const mq_tokenizer *tokenizer, const char *token, size_t bytes)
{
    return mq__vocab_find(&tokenizer->vocab, token, bytes);
}

const char *mq__tokenizer_special_text(const mq_tokenizer *tokenizer, mq_special which)
{
    return tokenizer->special_text[which];
}

int32_t mq__tokenizer_special_id(const mq_tokenizer *tokenizer, mq_special which)
{
    return tokenizer->special_id[which];
}

int mq__tokenizer_add_bos(const mq_tokenizer *tokenizer)
{
    return tokenizer->add_bos;
}

int mq__tokenizer_add_eos(const mq_tokenizer *tokenizer)
{
    return tokenizer->add_eos;
}

const char *mq__tokenizer_chat_template(const mq_tokenizer *tokenizer, const char *name)
{
    return json_string_value(json_object_get(tokenizer->templates, name));
}
