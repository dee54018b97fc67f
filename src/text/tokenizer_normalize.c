/* The normaliser: a list of steps, each text -> text. Also the search for matches that Replace and Split share. */
#include "base/error.h"
#include "base/mem.h"
#include "text/tokenizer_impl.h"

#include <string.h>

static mq_status short_of_memory_tokenizer_normalize(mq_error *error)
{
    return mq__fail(error, MQ_NO_MEMORY, "tokenizer: text: expected memory for at most %zu bytes of it, got none",
                    MQ_MAX_STEP_BYTES);
}

bool mq__spans_push(mq_spans *spans, size_t start, size_t end)
{
    return start == end || mq__spans_push_any(spans, start, end);
}

bool mq__spans_push_any(mq_spans *spans, size_t start, size_t end)
{
    if (spans->len == spans->cap) {
        const size_t cap = spans->cap ? spans->cap * 2 : 256;
        mq_span *data = mq__realloc(spans->data, cap * sizeof *data);
        if (!data) return false;
        spans->data = data;
        spans->cap = cap;
    }
    spans->data[spans->len++] = (mq_span){(uint32_t)start, (uint32_t)end};
    return true;
}

/* ---------------------------------------------------------------- matches */

static mq_status find_text(mq_text pattern, mq_text text, mq_spans *matches, mq_error *error)
{
    for (size_t from = 0; pattern.bytes > 0 && from < text.bytes;) {
        const char *found = memmem(text.data + from, text.bytes - from, pattern.data, pattern.bytes);
        if (!found) break;
        const size_t start = (size_t)(found - text.data);
        from = start + pattern.bytes;
        if (!mq__spans_push(matches, start, from)) return short_of_memory_tokenizer_normalize(error);
    }
    return MQ_OK;
}

/* Matches of valid UTF-8, also empty ones, the end of the text included. An empty match where the one before it ended
 * does not count: the search goes on one character further. */
static mq_status find_regex(const mq_regex *regex, mq_text text, mq_encode_work *work, mq_error *error)
{
    size_t last_end = SIZE_MAX;
    mq__regex_work_allow(&work->regex, text.bytes);
    for (size_t from = 0; text.bytes > 0 && from <= text.bytes;) {
        mq_regex_match match;
        const mq_status status = mq__regex_find(regex, &work->regex, text.data, text.bytes, from, &match, error);
        if (status != MQ_OK) return status;
        if (!match.found) break;
        if (match.start == match.end && match.end == last_end) {
            if (from == text.bytes) break;
            (void)mq__utf8_next(text.data, text.bytes, &from);
            continue;
        }
        if (!mq__spans_push_any(&work->matches, match.start, match.end))
            return short_of_memory_tokenizer_normalize(error);
        from = last_end = match.end;
    }
    return MQ_OK;
}

#define STAND_IN       "\xEF\xBF\xBD" /* U+FFFD */
#define STAND_IN_BYTES 3

/* Positions in the text with stand-ins back to positions in the text itself; matches are in order. */
static void map_back(mq_text text, mq_spans *matches)
{
    size_t at = 0, mapped = 0;
    for (size_t i = 0; i < 2 * matches->len; i++) {
        mq_span *span = &matches->data[i / 2];
        uint32_t *position = i % 2 ? &span->end : &span->start;
        while (mapped < *position) {
            const size_t before = at;
            const uint32_t code = mq__utf8_next(text.data, text.bytes, &at);
            mapped += code == MQ_UTF8_INVALID ? STAND_IN_BYTES : at - before;
        }
        *position = (uint32_t)at;
    }
}

mq_status mq__find_matches(const mq_regex *regex, mq_text pattern, mq_text text, mq_encode_work *work, mq_error *error)
{
    work->matches.len = 0;
    if (!regex) return find_text(pattern, text, &work->matches, error);
    if (mq__utf8_valid(text.data, text.bytes)) return find_regex(regex, text, work, error);
    mq_buf *mapped = &work->mapped;
    mq__buf_clear(mapped);
    mapped->max = MQ_MAX_STEP_BYTES;
    for (size_t i = 0; i < text.bytes;) {
        const size_t from = i;
        const bool broken = mq__utf8_next(text.data, text.bytes, &i) == MQ_UTF8_INVALID;
        mq__buf_append(mapped, broken ? STAND_IN : text.data + from, broken ? STAND_IN_BYTES : i - from);
    }
    if (mapped->failed) return short_of_memory_tokenizer_normalize(error);
    const mq_status status = find_regex(regex, (mq_text){mapped->data, mapped->len}, work, error);
    if (status == MQ_OK) map_back(text, &work->matches);
    return status;
}

/* ---------------------------------------------------------------- steps */

static mq_status replace(const mq_norm_step *step, mq_text text, mq_encode_work *work, mq_buf *out, mq_error *error)
{
    const mq_text pattern = {step->text, step->text_bytes};
    const mq_status status = mq__find_matches(step->regex, pattern, text, work, error);
    if (status != MQ_OK) return status;
    size_t from = 0;
    for (size_t i = 0; i < work->matches.len && !out->failed; i++) {
        const mq_span match = work->matches.data[i];
        mq__buf_append(out, text.data + from, match.start - from);
        mq__buf_append(out, step->content, step->content_bytes);
        from = match.end;
    }
    mq__buf_append(out, text.data + from, text.bytes - from);
    return MQ_OK;
}

static mq_text strip(mq_text text, bool left, bool right)
{
    while (left && text.bytes > 0) {
        size_t next = 0;
        if (!(mq__unicode_class(mq__utf8_next(text.data, text.bytes, &next)) & MQ_CLASS_SPACE)) break;
        text = (mq_text){text.data + next, text.bytes - next};
    }
    while (right && text.bytes > 0) {
        const size_t last = mq__utf8_before(text.data, text.bytes);
        size_t next = last;
        if (!(mq__unicode_class(mq__utf8_next(text.data, text.bytes, &next)) & MQ_CLASS_SPACE)) break;
        text.bytes = last;
    }
    return text;
}

static void strip_accents(mq_text text, mq_buf *out)
{
    for (size_t i = 0; i < text.bytes && !out->failed;) {
        const size_t from = i;
        if (!(mq__unicode_class(mq__utf8_next(text.data, text.bytes, &i)) & MQ_CLASS_MARK)) {
            mq__buf_append(out, text.data + from, i - from);
        }
    }
}

mq_status mq__normalize(const mq_tokenizer *tokenizer, mq_text *text, mq_encode_work *work, mq_error *error)
{
    for (size_t i = 0; i < tokenizer->normalizer_count; i++) {
        const mq_norm_step *step = &tokenizer->normalizers[i];
        mq_buf *out = &work->text[i % 2];
        mq_status status = MQ_OK;
        bool ok = true;
        mq__buf_clear(out);
        out->max = MQ_MAX_STEP_BYTES;
        switch (step->kind) {
        case MQ_NORM_PREPEND:
            if (text->bytes > 0) mq__buf_append(out, step->text, step->text_bytes);
            mq__buf_append(out, text->data, text->bytes);
            break;
        case MQ_NORM_REPLACE:
            status = replace(step, *text, work, out, error);
            break;
        case MQ_NORM_FORM:
            ok = mq__unicode_normalize(text->data, text->bytes, step->form, out);
            break;
        case MQ_NORM_LOWERCASE:
            ok = mq__unicode_lowercase(text->data, text->bytes, out);
            break;
        case MQ_NORM_STRIP:
            *text = strip(*text, step->left, step->right);
            mq__buf_append(out, text->data, text->bytes);
            break;
        case MQ_NORM_STRIP_ACCENTS:
            strip_accents(*text, out);
            break;
        }
        if (status != MQ_OK) return status;
        if (!ok || out->failed) return short_of_memory_tokenizer_normalize(error);
        *text = (mq_text){out->data, out->len};
    }
    return MQ_OK;
}
