#include "gen/vocabulary.h"

#include "base/buf.h"
#include "base/error.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

/* What a token adds to a text that goes on: what is whole, and the bytes of a character that is not. */
static mq_status spell_token(mq_vocabulary *v, mq_stream *stream, int32_t token, mq_buf *all, mq_error *error)
{
    const char *bytes, *rest;
    size_t count, more;
    const size_t before = all->len;
    mq_status status = mq_stream_push(stream, token, &bytes, &count, error);
    if (status == MQ_OK) (void)mq__buf_append(all, bytes, count);
    if (status == MQ_OK) status = mq_stream_flush(stream, &rest, &more, error);
    if (status == MQ_OK) (void)mq__buf_append(all, rest, more);
    if (status == MQ_OK && all->failed) status = mq__fail(error, MQ_NO_MEMORY, "vocabulary: expected memory, got none");
    if (status != MQ_OK) return status;
    const size_t length = all->len - before;
    if (length > MQ_TOKEN_BYTES) {
        all->len = before;
        return MQ_OK;
    }
    v->token[token] = (mq_token_bytes){.offset = (uint32_t)before, .count = (uint8_t)length};
    if (length) v->order[v->ordered++] = token;
    return MQ_OK;
}

static mq_status spell_all(mq_vocabulary *v, const mq_text *text, mq_error *error)
{
    mq_buf all = {.max = UINT32_MAX};
    mq_stream *stream;
    mq_status status = mq_stream_new(text, MQ_STREAM_CONTINUES, &stream, error);
    if (status != MQ_OK) return status;
    for (uint32_t t = 0; status == MQ_OK && t < v->vocab; t++) {
        const int32_t token = (int32_t)t;
        if (mq_token_is_special(text, token) && !mq_token_is_marker(text, token)) continue;
        status = spell_token(v, stream, token, &all, error);
    }
    mq_stream_free(stream);
    v->bytes = (uint8_t *)all.data;
    return status;
}

static int compare_tokens(const void *a, const void *b, void *context)
{
    const mq_vocabulary *v = context;
    const mq_token_bytes *x = &v->token[*(const int32_t *)a], *y = &v->token[*(const int32_t *)b];
    const size_t count = x->count < y->count ? x->count : y->count;
    const int order = memcmp(v->bytes + x->offset, v->bytes + y->offset, count);
    return order ? order : (int)x->count - (int)y->count;
}

static void note_shared(mq_vocabulary *v)
{
    for (size_t i = 1; i < v->ordered; i++) {
        const mq_token_bytes *before = &v->token[v->order[i - 1]];
        mq_token_bytes *token = &v->token[v->order[i]];
        uint8_t shared = 0;
        while (shared < before->count && shared < token->count &&
               v->bytes[before->offset + shared] == v->bytes[token->offset + shared]) {
            shared++;
        }
        token->shared = shared;
    }
}

mq_status mq_vocabulary_new(const mq_text *text, uint32_t vocab, const int32_t *eos, size_t eos_count,
                            mq_vocabulary **out, mq_error *error)
{
    *out = NULL;
    mq_vocabulary *v = mq__alloc_zero(1, sizeof *v);
    mq_status status = MQ_NO_MEMORY;
    if (v) {
        v->vocab = vocab;
        v->token = mq__alloc_zero(vocab, sizeof *v->token);
        v->order = mq__alloc_zero(vocab, sizeof *v->order);
        v->eos = mq__alloc_zero(eos_count, sizeof *v->eos);
        v->eos_count = eos_count;
    }
    if (v && v->token && v->order && v->eos) {
        if (eos_count) memcpy(v->eos, eos, eos_count * sizeof *eos);
        status = spell_all(v, text, error);
    } else {
        (void)mq__fail(error, MQ_NO_MEMORY, "vocabulary: %u tokens: expected memory, got none", vocab);
    }
    if (status != MQ_OK) {
        mq_vocabulary_free(v);
        return status;
    }
    qsort_r(v->order, v->ordered, sizeof *v->order, compare_tokens, v);
    note_shared(v);
    *out = v;
    return MQ_OK;
}

void mq_vocabulary_free(mq_vocabulary *v)
{
    if (!v) return;
    mq__free(v->bytes);
    mq__free(v->token);
    mq__free(v->order);
    mq__free(v->eos);
    mq__free(v);
}

/* The first token in order[low, high) whose byte `at` is not below (past: is above) `byte`; all of them have the bytes before it. */
static size_t bound_of(const mq_vocabulary *v, size_t low, size_t high, size_t at, uint8_t byte, bool past)
{
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const mq_token_bytes *token = &v->token[v->order[middle]];
        const int is = token->count > at ? v->bytes[token->offset + at] : -1;
        if (is < byte || (past && is == byte))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int32_t mq__vocabulary_longest(const mq_vocabulary *v, const uint8_t *bytes, size_t count, size_t *others)
{
    size_t low = 0, high = v->ordered, shorter = 0, at = 0;
    int32_t longest = -1;
    while (at < count && at < MQ_TOKEN_BYTES) {
        low = bound_of(v, low, high, at, bytes[at], false);
        high = bound_of(v, low, high, at, bytes[at], true);
        at++;
        for (; low < high && v->token[v->order[low]].count == at; low++) { /* those that end here come first */
            shorter++;
            longest = v->order[low];
        }
        if (low == high) break;
    }
    *others = shorter ? shorter - 1 + (high - low) : 0;
    return longest;
}
