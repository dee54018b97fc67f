/* Ids back to text. The decoder is a list of steps over tokens; behind a Fuse they see one text, so those are written
 * as streams that hold back no more than what a later token can still change. Whole decoding is the same stream, fed at
 * once, and so cannot differ from it. */
#include "base/error.h"
#include "base/mem.h"
#include "text/tokenizer_impl.h"

#include <string.h>

typedef struct stream { /* a step behind Fuse */
    mq_buf pending;     /* input that is not decided yet */
    uint32_t to_strip;  /* MQ_DECODER_STRIP: characters that may still go at the start */
} stream;

struct mq_detokenizer {
    const mq_tokenizer *tokenizer; /* borrowed */
    unsigned flags;
    bool first;          /* no token came yet */
    int32_t held;        /* BPEDecoder treats the last token in its own way: one token waits; -1: none */
    bool hold;           /* there is such a step */
    mq_buf token[2];     /* the token's text; steps swap them */
    stream *streams;     /* [decoder_count - fuse_at] */
    mq_buf tail;         /* output whose last character may be incomplete */
    mq_encode_work work; /* for Replace by a regex */
};

static mq_status short_of_memory_tokenizer_decode(mq_error *error)
{
    return mq__fail(error, MQ_NO_MEMORY, "detokenize: expected memory for the text, got none");
}

static void restart(mq_detokenizer *d)
{
    const bool anew = (d->flags & MQ_DECODE_CONTINUE) == 0;
    const mq_tokenizer *t = d->tokenizer;
    d->first = anew;
    d->held = -1;
    d->work.regex.budget = MQ_REGEX_BUDGET;
    mq__buf_clear(&d->tail);
    for (size_t i = 0; i < t->decoder_count - t->fuse_at; i++) {
        mq__buf_clear(&d->streams[i].pending);
        d->streams[i].to_strip = anew ? t->decoders[t->fuse_at + i].start : 0;
    }
}

#define USUAL_TOKEN   ((size_t)4096)    /* bytes */
#define LONGEST_TOKEN ((size_t)1 << 20) /* a hostile vocabulary or Replace could make a token of any length */

static bool reserve_tokenizer_decode(mq_buf *buf, size_t bytes)
{
    buf->max = LONGEST_TOKEN;
    return mq__buf_reserve(buf, bytes);
}

static mq_status detokenizer_init(mq_detokenizer *d, const mq_tokenizer *tokenizer, unsigned flags, mq_error *error)
{
    const size_t streams = tokenizer->decoder_count - tokenizer->fuse_at;
    *d = (mq_detokenizer){.tokenizer = tokenizer, .flags = flags};
    d->streams = mq__alloc_zero(streams, sizeof *d->streams);
    bool ok = d->streams != NULL;
    for (size_t i = 0; i < tokenizer->fuse_at; i++)
        d->hold = d->hold || tokenizer->decoders[i].kind == MQ_DECODER_BPE;
    /* Room for any usual token now, so that pushing does not allocate. */
    const size_t room = tokenizer->vocab.longest < USUAL_TOKEN ? 2 * tokenizer->vocab.longest + 64 : 2 * USUAL_TOKEN;
    ok = ok && reserve_tokenizer_decode(&d->token[0], room) && reserve_tokenizer_decode(&d->token[1], room) &&
         reserve_tokenizer_decode(&d->tail, room);
    for (size_t i = 0; ok && i < streams; i++)
        ok = reserve_tokenizer_decode(&d->streams[i].pending, room);
    if (!ok) return short_of_memory_tokenizer_decode(error);
    restart(d);
    return MQ_OK;
}

static void detokenizer_clear(mq_detokenizer *d)
{
    for (size_t i = 0; d->streams && i < d->tokenizer->decoder_count - d->tokenizer->fuse_at; i++)
        mq__buf_free(&d->streams[i].pending);
    mq__free(d->streams);
    mq__buf_free(&d->token[0]);
    mq__buf_free(&d->token[1]);
    mq__buf_free(&d->tail);
    mq__encode_work_free(&d->work);
}

/* ---------------------------------------------------------------- output */

static void drop_front(mq_buf *buf, size_t bytes)
{
    if (bytes == 0) return;
    memmove(buf->data, buf->data + bytes, buf->len - bytes);
    buf->len -= bytes;
}

/* Appends to out all but an incomplete last character. */
static bool emit(mq_detokenizer *d, mq_text text, mq_buf *out)
{
    if (text.bytes == 0) return true;
    if (!mq__buf_append(&d->tail, text.data, text.bytes)) return false;
    const size_t whole = d->tail.len - mq__utf8_incomplete_tail(d->tail.data, d->tail.len);
    if (!mq__buf_append(out, d->tail.data, whole)) return false;
    drop_front(&d->tail, whole);
    return true;
}

/* ---------------------------------------------------------------- steps behind Fuse */

static bool feed(mq_detokenizer *d, size_t step, mq_text text, mq_buf *out);

static bool pass_on(mq_detokenizer *d, size_t step, size_t bytes, mq_buf *out)
{
    mq_buf *pending = &d->streams[step - d->tokenizer->fuse_at].pending;
    if (!feed(d, step + 1, (mq_text){pending->data, bytes}, out)) return false;
    drop_front(pending, bytes);
    return true;
}

static bool strip_stream(mq_detokenizer *d, size_t index, mq_buf *out)
{
    const mq_decode_step *step = &d->tokenizer->decoders[index];
    stream *s = &d->streams[index - d->tokenizer->fuse_at];
    const size_t n = step->text_bytes;
    while (s->to_strip > 0 && s->pending.len > 0) {
        const size_t m = s->pending.len < n ? s->pending.len : n;
        if (memcmp(s->pending.data, step->text, m) != 0) {
            s->to_strip = 0;
        } else if (m < n) {
            return true; /* the beginning of the character: the rest decides */
        } else {
            drop_front(&s->pending, n);
            s->to_strip--;
        }
    }
    const size_t keep = n * step->stop; /* only these bytes can be stripped at the end */
    return s->pending.len <= keep || pass_on(d, index, s->pending.len - keep, out);
}

/* Length of the longest end of text that begins the pattern without completing it. */
static size_t open_match(mq_text text, mq_text pattern)
{
    size_t n = pattern.bytes - 1 < text.bytes ? pattern.bytes - 1 : text.bytes;
    while (n > 0 && memcmp(text.data + text.bytes - n, pattern.data, n) != 0)
        n--;
    return n;
}

static bool replace_stream(mq_detokenizer *d, size_t index, mq_buf *out)
{
    const mq_decode_step *step = &d->tokenizer->decoders[index];
    mq_buf *pending = &d->streams[index - d->tokenizer->fuse_at].pending;
    const char *found;
    while (pending->len > 0 && (found = memmem(pending->data, pending->len, step->text, step->text_bytes)) != NULL) {
        if (!pass_on(d, index, (size_t)(found - pending->data), out)) return false;
        drop_front(pending, step->text_bytes);
        if (!feed(d, index + 1, (mq_text){step->content, step->content_bytes}, out)) return false;
    }
    if (pending->len == 0) return true;
    const size_t open = open_match((mq_text){pending->data, pending->len}, (mq_text){step->text, step->text_bytes});
    return pass_on(d, index, pending->len - open, out);
}

/* Gives text to the step and its successors. Recursion is as deep as there are steps. */
static bool feed(mq_detokenizer *d, size_t index, mq_text text, mq_buf *out)
{
    if (index == d->tokenizer->decoder_count) return emit(d, text, out);
    const mq_decode_step *step = &d->tokenizer->decoders[index];
    if (step->kind == MQ_DECODER_FUSE) return feed(d, index + 1, text, out);
    if (text.bytes == 0) return true;
    if (!mq__buf_append(&d->streams[index - d->tokenizer->fuse_at].pending, text.data, text.bytes)) return false;
    return step->kind == MQ_DECODER_STRIP ? strip_stream(d, index, out) : replace_stream(d, index, out);
}

static bool finish_streams(mq_detokenizer *d, mq_buf *out)
{
    for (size_t i = d->tokenizer->fuse_at; i < d->tokenizer->decoder_count; i++) {
        const mq_decode_step *step = &d->tokenizer->decoders[i];
        mq_buf *pending = &d->streams[i - d->tokenizer->fuse_at].pending;
        const size_t n = step->text_bytes;
        if (step->kind == MQ_DECODER_STRIP) {
            for (uint32_t k = 0; k < step->stop && pending->len >= n; k++) {
                if (memcmp(pending->data + pending->len - n, step->text, n) != 0) break;
                pending->len -= n;
            }
        }
        if (pending->len > 0 && !pass_on(d, i, pending->len, out)) return false;
    }
    return true;
}

/* ---------------------------------------------------------------- steps on single tokens */

static bool replace_text(mq_text pattern, mq_text content, mq_text text, mq_buf *out)
{
    for (size_t from = 0; from < text.bytes;) {
        const char *found = memmem(text.data + from, text.bytes - from, pattern.data, pattern.bytes);
        const size_t to = found ? (size_t)(found - text.data) : text.bytes;
        mq__buf_append(out, text.data + from, to - from);
        if (found) mq__buf_append(out, content.data, content.bytes);
        from = found ? to + pattern.bytes : to;
    }
    return !out->failed;
}

static mq_status replace_regex(mq_detokenizer *d, const mq_decode_step *step, mq_text text, mq_buf *out,
                               mq_error *error)
{
    const mq_status status = mq__find_matches(step->regex, (mq_text){NULL, 0}, text, &d->work, error);
    if (status != MQ_OK) return status;
    size_t from = 0;
    for (size_t i = 0; i < d->work.matches.len; i++) {
        const mq_span match = d->work.matches.data[i];
        mq__buf_append(out, text.data + from, match.start - from);
        mq__buf_append(out, step->content, step->content_bytes);
        from = match.end;
    }
    mq__buf_append(out, text.data + from, text.bytes - from);
    return MQ_OK;
}

/* A token of the byte alphabet to bytes; a text with any other character is plain text and stays. */
static bool from_alphabet(mq_text text, mq_buf *out)
{
    for (size_t i = 0; i < text.bytes;) {
        const int byte = mq__code_to_byte(mq__utf8_next(text.data, text.bytes, &i));
        if (byte < 0) {
            mq__buf_clear(out);
            return mq__buf_append(out, text.data, text.bytes);
        }
        if (!mq__buf_putc(out, (char)byte)) return false;
    }
    return true;
}

static mq_text strip_token(const mq_decode_step *step, mq_text text)
{
    const size_t n = step->text_bytes;
    for (uint32_t k = 0; k < step->start && text.bytes >= n && memcmp(text.data, step->text, n) == 0; k++)
        text = (mq_text){text.data + n, text.bytes - n};
    for (uint32_t k = 0; k < step->stop && text.bytes >= n; k++) {
        if (memcmp(text.data + text.bytes - n, step->text, n) != 0) break;
        text.bytes -= n;
    }
    return text;
}

typedef struct token_state {
    bool first, last, added;
} token_state;

static mq_status apply(mq_detokenizer *d, const mq_decode_step *step, mq_text text, token_state state, mq_buf *out,
                       mq_error *error)
{
    const mq_text pattern = {step->text, step->text_bytes}, content = {step->content, step->content_bytes};
    const mq_text space = {" ", 1}, nothing = {"", 0};
    mq_status status = MQ_OK;
    bool ok = true;
    switch (step->kind) {
    case MQ_DECODER_BYTE_LEVEL: /* added tokens are not written in the alphabet */
        ok = state.added ? mq__buf_append(out, text.data, text.bytes) : from_alphabet(text, out);
        break;
    case MQ_DECODER_BYTE_FALLBACK: {
        const int byte = mq__byte_token_value(text);
        ok = byte >= 0 ? mq__buf_putc(out, (char)byte) : mq__buf_append(out, text.data, text.bytes);
        break;
    }
    case MQ_DECODER_REPLACE:
        if (step->regex) {
            status = replace_regex(d, step, text, out, error);
        } else {
            ok = replace_text(pattern, content, text, out);
        }
        break;
    case MQ_DECODER_STRIP:
        text = strip_token(step, text);
        ok = mq__buf_append(out, text.data, text.bytes);
        break;
    case MQ_DECODER_METASPACE:
        ok = replace_text(pattern, state.first && step->drop_first ? nothing : space, text, out);
        break;
    case MQ_DECODER_BPE:
        ok = replace_text(pattern, state.last ? nothing : space, text, out);
        break;
    case MQ_DECODER_FUSE:
        break;
    }
    if (status != MQ_OK) return status;
    return ok && !out->failed ? MQ_OK : short_of_memory_tokenizer_decode(error);
}

static mq_status decode_token(mq_detokenizer *d, int32_t id, bool last, mq_buf *out, mq_error *error)
{
    const mq_tokenizer *t = d->tokenizer;
    mq_text text = mq__vocab_text(&t->vocab, id);
    const token_state state = {d->first, last, (t->vocab.tokens[id].flags & MQ_TOKEN_ADDED) != 0};
    d->first = false;
    if (!t->has_decoder && !state.first && !emit(d, (mq_text){" ", 1}, out))
        return short_of_memory_tokenizer_decode(error);
    for (size_t i = 0; i < t->fuse_at; i++) {
        mq_buf *changed = &d->token[i % 2];
        mq__buf_clear(changed);
        const mq_status status = apply(d, &t->decoders[i], text, state, changed, error);
        if (status != MQ_OK) return status;
        text = (mq_text){changed->data, changed->len};
    }
    return feed(d, t->fuse_at, text, out) ? MQ_OK : short_of_memory_tokenizer_decode(error);
}

/* ---------------------------------------------------------------- interface */

mq_status mq__detokenizer_push(mq_detokenizer *d, int32_t id, mq_buf *out, mq_error *error)
{
    if (id < 0) return mq__fail(error, MQ_USAGE, "detokenize: expected the id of a token, got %d", (int)id);
    if (!mq__tokenizer_is_valid(d->tokenizer, id)) return MQ_OK;
    if ((d->flags & MQ_DECODE_SKIP_SPECIAL) && mq__tokenizer_is_special(d->tokenizer, id)) return MQ_OK;
    if (!d->hold) return decode_token(d, id, false, out, error);
    const int32_t previous = d->held;
    d->held = id;
    return previous < 0 ? MQ_OK : decode_token(d, previous, false, out, error);
}

mq_status mq__detokenizer_flush(mq_detokenizer *d, mq_buf *out, mq_error *error)
{
    mq_status status = d->held < 0 ? MQ_OK : decode_token(d, d->held, true, out, error);
    if (status == MQ_OK && (!finish_streams(d, out) || !mq__buf_append(out, d->tail.data, d->tail.len))) {
        status = short_of_memory_tokenizer_decode(error);
    }
    restart(d);
    return status;
}

mq_status mq__detokenizer_new(const mq_tokenizer *tokenizer, unsigned flags, mq_detokenizer **out, mq_error *error)
{
    mq_detokenizer *d = mq__alloc_zero(1, sizeof *d);
    *out = NULL;
    if (!d) return short_of_memory_tokenizer_decode(error);
    const mq_status status = detokenizer_init(d, tokenizer, flags, error);
    if (status != MQ_OK) {
        mq__detokenizer_free(d);
        return status;
    }
    *out = d;
    return MQ_OK;
}

void mq__detokenizer_free(mq_detokenizer *d)
{
    if (!d) return;
    detokenizer_clear(d);
    mq__free(d);
}

mq_status mq__tokenizer_decode(const mq_tokenizer *tokenizer, const int32_t *ids, size_t count, unsigned flags,
                               mq_buf *out, mq_error *error)
{
    mq_detokenizer d;
    mq_status status = detokenizer_init(&d, tokenizer, flags, error);
    for (size_t i = 0; status == MQ_OK && i < count; i++)
        status = mq__detokenizer_push(&d, ids[i], out, error);
    if (status == MQ_OK) status = mq__detokenizer_flush(&d, out, error);
    detokenizer_clear(&d);
    return status;
}
