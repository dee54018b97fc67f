/* The pre-tokeniser: a list of steps that cut the text into words. A span is a word so far; each step goes through all
 * spans and may also change their text, which then moves to another buffer. */
#include "base/error.h"
#include "base/mem.h"
#include "text/tokenizer_impl.h"

#include <string.h>

static mq_status short_of_memory_tokenizer_split(mq_error *error)
{
    return mq__fail(error, MQ_NO_MEMORY, "tokenizer: text: expected memory for at most %zu bytes of it, got none",
                    MQ_MAX_STEP_BYTES);
}

/* ---------------------------------------------------------------- what becomes of matches */

/* Puts the parts of one span, matches and what is between, together by the step's behaviour. An empty match is a part
 * like others until all are there: it keeps what stands before it and what stands behind it apart. */
typedef struct cutter {
    mq_spans *out;
    size_t first; /* out->len when the span began */
    mq_split_behavior behavior;
    bool invert, previous_match, pending, failed;
    size_t pending_start, pending_end; /* MERGED_WITH_NEXT: a match that waits for what follows it */
} cutter;

static void push(cutter *c, size_t start, size_t end)
{
    c->failed = !mq__spans_push_any(c->out, start, end) || c->failed;
}

static void flush_pending(cutter *c)
{
    if (c->pending) push(c, c->pending_start, c->pending_end);
    c->pending = false;
}

static bool finish_cut(cutter *c)
{
    flush_pending(c);
    size_t kept = c->first;
    for (size_t i = c->first; i < c->out->len; i++) {
        const mq_span span = c->out->data[i];
        if (span.start != span.end) c->out->data[kept++] = span;
    }
    c->out->len = kept;
    return !c->failed;
}

static void add_part(cutter *c, size_t start, size_t end, bool match)
{
    if (start == end && !match) return;
    match ^= c->invert;
    const bool can_extend = c->out->len > c->first;
    bool extend = false;
    switch (c->behavior) {
    case MQ_BEHAVIOR_REMOVED:
        if (match) return;
        break;
    case MQ_BEHAVIOR_MERGED_WITH_PREVIOUS:
        extend = can_extend && match && !c->previous_match;
        break;
    case MQ_BEHAVIOR_CONTIGUOUS:
        extend = can_extend && match == c->previous_match;
        break;
    case MQ_BEHAVIOR_MERGED_WITH_NEXT:
        if (match) {
            flush_pending(c);
            c->pending = true;
            c->pending_start = start;
            c->pending_end = end;
            return;
        }
        if (c->pending) start = c->pending_start;
        c->pending = false;
        break;
    case MQ_BEHAVIOR_ISOLATED:
        break;
    }
    c->previous_match = match;
    if (extend) {
        c->out->data[c->out->len - 1].end = (uint32_t)end;
    } else {
        push(c, start, end);
    }
}

/* matches are relative to span.start */
static bool cut_by_matches(const mq_pre_step *step, mq_span span, const mq_spans *matches, mq_spans *out)
{
    cutter c = {.out = out, .first = out->len, .behavior = step->behavior, .invert = step->invert};
    size_t from = span.start;
    for (size_t i = 0; i < matches->len; i++) {
        const size_t start = span.start + matches->data[i].start, end = span.start + matches->data[i].end;
        add_part(&c, from, start, false);
        add_part(&c, start, end, true);
        from = end;
    }
    add_part(&c, from, span.end, false);
    return finish_cut(&c);
}

/* ---------------------------------------------------------------- steps that only cut */

static bool cut_by_pattern(const mq_pre_step *step, mq_text text, mq_span span, mq_spans *out)
{
    for (size_t from = span.start; from < span.end;) {
        const size_t to = mq__split_next(step->pattern, text.data, span.end, from);
        if (!mq__spans_push(out, from, to)) return false;
        from = to;
    }
    return true;
}

static bool cut_by_class(const mq_pre_step *step, mq_text text, mq_span span, mq_spans *out)
{
    cutter c = {.out = out, .first = out->len, .behavior = step->behavior, .invert = step->invert};
    size_t gap = span.start;
    for (size_t i = span.start; i < span.end;) {
        const size_t from = i;
        if (!(mq__unicode_class(mq__utf8_next(text.data, span.end, &i)) & step->classes)) continue;
        add_part(&c, gap, from, false);
        add_part(&c, from, i, true);
        gap = i;
    }
    add_part(&c, gap, span.end, false);
    return finish_cut(&c);
}

static bool cut_words(mq_text text, mq_span span, mq_spans *out)
{
    size_t start = span.start;
    unsigned kind = MQ_CLASS_SPACE; /* of text[start, i): WORD, SPACE or 0 for the others */
    for (size_t i = span.start; i < span.end;) {
        const size_t from = i;
        const unsigned class = mq__unicode_class(mq__utf8_next(text.data, span.end, &i));
        const unsigned now = class & MQ_CLASS_WORD ? MQ_CLASS_WORD : class & MQ_CLASS_SPACE;
        if (now == kind) continue;
        if (kind != MQ_CLASS_SPACE && !mq__spans_push(out, start, from)) return false;
        start = from;
        kind = now;
    }
    return kind == MQ_CLASS_SPACE || mq__spans_push(out, start, span.end);
}

static mq_status cut(const mq_pre_step *step, mq_text text, mq_span span, mq_encode_work *work, mq_spans *out,
                     mq_error *error)
{
    bool ok = true;
    switch (step->kind) {
    case MQ_PRE_PATTERN:
        ok = cut_by_pattern(step, text, span, out);
        break;
    case MQ_PRE_CLASS:
        ok = cut_by_class(step, text, span, out);
        break;
    case MQ_PRE_WORDS:
        ok = cut_words(text, span, out);
        break;
    default: {
        const mq_text part = {text.data + span.start, span.end - span.start};
        const mq_status status =
            mq__find_matches(step->regex, (mq_text){step->text, step->text_bytes}, part, work, error);
        if (status != MQ_OK) return status;
        ok = cut_by_matches(step, span, &work->matches, out);
    }
    }
    return ok ? MQ_OK : short_of_memory_tokenizer_split(error);
}

/* ---------------------------------------------------------------- steps that change the text */

static bool begins_with(mq_text text, const char *start, size_t bytes)
{
    return text.bytes >= bytes && memcmp(text.data, start, bytes) == 0;
}

/* ' ' becomes the replacement, which is also put in front where the scheme says so; a word begins at each. */
static bool metaspace(const mq_pre_step *step, mq_text part, bool first, mq_buf *text, mq_spans *out)
{
    const size_t start = text->len;
    const bool prepend = step->scheme == MQ_PREPEND_ALWAYS || (step->scheme == MQ_PREPEND_FIRST && first);
    if (prepend && !begins_with(part, " ", 1) && !begins_with(part, step->text, step->text_bytes)) {
        mq__buf_append(text, step->text, step->text_bytes);
    }
    for (size_t i = 0; i < part.bytes && !text->failed;) {
        const char *space = memchr(part.data + i, ' ', part.bytes - i);
        const size_t to = space ? (size_t)(space - part.data) : part.bytes;
        mq__buf_append(text, part.data + i, to - i);
        if (space) mq__buf_append(text, step->text, step->text_bytes);
        i = to + 1;
    }
    if (text->failed) return false;
    if (!step->split) return mq__spans_push(out, start, text->len);
    size_t from = start; /* MergedWithNext: each replacement character begins a word */
    for (size_t at = start; at < text->len;) {
        const char *found = memmem(text->data + at, text->len - at, step->text, step->text_bytes);
        if (!found) break;
        const size_t cut_at = (size_t)(found - text->data);
        if (!mq__spans_push(out, from, cut_at)) return false;
        from = cut_at;
        at = cut_at + step->text_bytes;
    }
    return mq__spans_push(out, from, text->len);
}

static bool rewrite(const mq_pre_step *step, mq_text part, bool first, mq_buf *text, mq_spans *out)
{
    const size_t start = text->len;
    if (step->kind == MQ_PRE_METASPACE) return metaspace(step, part, first, text, out);
    if (step->kind == MQ_PRE_BYTES) {
        return mq__bytes_to_alphabet(part.data, part.bytes, text) && mq__spans_push(out, start, text->len);
    }
    if (!begins_with(part, " ", 1)) mq__buf_putc(text, ' ');
    return mq__buf_append(text, part.data, part.bytes) && mq__spans_push(out, start, text->len);
}

static bool changes_text(const mq_pre_step *step)
{
    return step->kind == MQ_PRE_METASPACE || step->kind == MQ_PRE_PREFIX_SPACE || step->kind == MQ_PRE_BYTES;
}

mq_status mq__presplit(const mq_tokenizer *tokenizer, mq_text *text, bool at_start, mq_encode_work *work,
                       const mq_spans **words, mq_error *error)
{
    mq_spans *now = &work->spans[0], *next = &work->spans[1];
    size_t buffer = 0;
    now->len = 0;
    if (!mq__spans_push(now, 0, text->bytes)) return short_of_memory_tokenizer_split(error);
    for (size_t s = 0; s < tokenizer->pre_count; s++) {
        const mq_pre_step *step = &tokenizer->pre[s];
        mq_buf *changed = &work->split_text[buffer];
        next->len = 0;
        mq__buf_clear(changed);
        changed->max = MQ_MAX_STEP_BYTES;
        for (size_t i = 0; i < now->len; i++) {
            const mq_span span = now->data[i];
            mq_status status = MQ_OK;
            if (changes_text(step)) {
                const mq_text part = {text->data + span.start, span.end - span.start};
                if (!rewrite(step, part, at_start && i == 0, changed, next))
                    status = short_of_memory_tokenizer_split(error);
            } else {
                status = cut(step, *text, span, work, next, error);
            }
            if (status != MQ_OK) return status;
        }
        if (changes_text(step)) {
            *text = (mq_text){changed->data, changed->len};
            buffer ^= 1;
        }
        mq_spans *swap = now;
        now = next;
        next = swap;
    }
    *words = now;
    return MQ_OK;
}

void mq__encode_work_free(mq_encode_work *work)
{
    for (int i = 0; i < 2; i++) {
        mq__buf_free(&work->text[i]);
        mq__buf_free(&work->split_text[i]);
        mq__free(work->spans[i].data);
    }
    mq__buf_free(&work->mapped);
    mq__free(work->matches.data);
    mq__regex_work_free(&work->regex);
    mq__bpe_work_free(&work->bpe);
}
