/* One answer: a token in, text that is certain out. */
#include "gen/generation.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/unicode.h"
#include "gen/stop_search.h"
#include "mixquant_serve.h"

#include <string.h>

struct mq_generation {
    const mq_text *text;
    mq_sampler *sampler;
    mq_stream *stream;  /* of the text that is printed */
    mq_stream *special; /* spells single special tokens for the stop search; NULL: none is hidden from it */
    mq_stop_search *stops;
    int32_t *ends; /* [end_count] tokens that end the answer */
    size_t end_count;
    bool hides_special, keeps_markers;
    uint32_t max_tokens, count;
    bool ended;
    mq_buf out; /* what the last call handed out */
};

static mq_status copy_ends(mq_generation *g, const mq_generate_options *options, const mq_generation_start *start,
                           mq_error *error)
{
    const size_t eos_count = options->ignore_eos ? 0 : start->eos_count;
    g->end_count = options->stop_id_count + eos_count;
    g->ends = mq__alloc_zero(g->end_count, sizeof *g->ends);
    if (!g->ends) return mq__fail(error, MQ_NO_MEMORY, "generate: stop ids: expected memory, got none");
    if (options->stop_id_count) memcpy(g->ends, options->stop_ids, options->stop_id_count * sizeof *g->ends);
    if (eos_count) memcpy(g->ends + options->stop_id_count, start->eos, eos_count * sizeof *g->ends);
    return MQ_OK;
}

/* After nothing but special tokens (BOS) a text begins: a SentencePiece model's first space is not part of it. */
static unsigned stream_flags(const mq_generation *g, const mq_generation_start *start)
{
    unsigned flags = g->hides_special && !g->keeps_markers ? MQ_STREAM_SKIP_SPECIAL : 0;
    for (size_t i = 0; i < start->token_count; i++) {
        if (!mq_token_is_special(g->text, start->tokens[i])) return flags | MQ_STREAM_CONTINUES;
    }
    return flags;
}

static mq_status make_sampler(mq_generation *g, const mq_generate_options *options, const mq_generation_start *start,
                              mq_error *error)
{
    mq_status status =
        mq_sampler_new(&options->sampling, start->vocab, start->tokens, start->prompt_count, &g->sampler, error);
    for (size_t i = start->prompt_count; status == MQ_OK && i < start->token_count; i++) {
        status = mq_sampler_accept(g->sampler, start->tokens[i], error);
    }
    return status;
}

static mq_status fill_generation(mq_generation *g, const mq_generate_options *options, const mq_generation_start *start,
                                 mq_error *error)
{
    g->max_tokens = options->max_tokens;
    g->hides_special = !options->keep_special;
    g->keeps_markers = options->keep_markers;
    mq_status status = copy_ends(g, options, start, error);
    if (status == MQ_OK) status = make_sampler(g, options, start, error);
    if (status == MQ_OK) status = mq__stop_search_new(options->stops, options->stop_count, &g->stops, error);
    if (status == MQ_OK) status = mq_stream_new(g->text, stream_flags(g, start), &g->stream, error);
    if (status == MQ_OK && g->hides_special && options->stop_count) {
        status = mq_stream_new(g->text, MQ_STREAM_CONTINUES, &g->special, error);
    }
    if (status == MQ_OK && !mq__buf_reserve(&g->out, 8192)) { /* so that pushing does not allocate */
        status = mq__fail(error, MQ_NO_MEMORY, "generate: text: expected memory, got none");
    }
    return status;
}

mq_status mq_generation_new(const mq_text *text, const mq_generate_options *options, const mq_generation_start *start,
                            mq_generation **out, mq_error *error)
{
    *out = NULL;
    mq_generation *g = mq__alloc_zero(1, sizeof *g);
    if (!g) return mq__fail(error, MQ_NO_MEMORY, "generate: expected memory, got none");
    g->text = text;
    const mq_status status = fill_generation(g, options, start, error);
    if (status == MQ_OK)
        *out = g;
    else
        mq_generation_free(g);
    return status;
}

void mq_generation_free(mq_generation *g)
{
    if (!g) return;
    mq_sampler_free(g->sampler);
    mq_stream_free(g->stream);
    mq_stream_free(g->special);
    mq__stop_search_free(g->stops);
    mq__free(g->ends);
    mq__buf_free(&g->out);
    mq__free(g);
}

mq_sampler *mq_generation_sampler(mq_generation *g)
{
    return g->sampler;
}

uint32_t mq_generation_count(const mq_generation *g)
{
    return g->count;
}

size_t mq_generation_stop(const mq_generation *g)
{
    return mq__stop_search_found(g->stops);
}

/* The bytes at `text` that are no UTF-8 and count as one character: the beginning of a sequence that does not go on, or one. */
static size_t broken_bytes(const char *text, size_t bytes)
{
    for (size_t n = bytes < 3 ? bytes : 3; n > 1; n--) {
        if (mq__utf8_incomplete_tail(text, n) == n) return n;
    }
    return 1;
}

/* Gives text to the stop search, with U+FFFD for what is no UTF-8. */
static bool search_text(mq_generation *g, const char *text, size_t bytes, bool hidden, bool *found)
{
    size_t from = 0, at = 0;
    *found = false;
    while (at < bytes) {
        const size_t start = at;
        if (mq__utf8_next(text, bytes, &at) != MQ_UTF8_INVALID) continue;
        at = start + broken_bytes(text + start, bytes - start);
        if (!mq__stop_search_feed(g->stops, text + from, start - from, hidden, &g->out, found)) return false;
        if (!*found && !mq__stop_search_feed(g->stops, "\xEF\xBF\xBD", 3, hidden, &g->out, found)) return false;
        if (*found) return true;
        from = at;
    }
    return mq__stop_search_feed(g->stops, text + from, bytes - from, hidden, &g->out, found);
}

static mq_status no_room(mq_error *error)
{
    return mq__fail(error, MQ_NO_MEMORY, "generate: text: expected memory, got none");
}

/* A special token that is not printed may be what a stop string names. */
static mq_status search_special(mq_generation *g, int32_t token, bool *found, mq_error *error)
{
    const char *bytes;
    size_t count;
    mq_status status = mq_stream_push(g->special, token, &bytes, &count, error);
    if (status == MQ_OK && !search_text(g, bytes, count, true, found)) status = no_room(error);
    if (status != MQ_OK || *found) return status;
    status = mq_stream_flush(g->special, &bytes, &count, error);
    return status != MQ_OK || search_text(g, bytes, count, true, found) ? status : no_room(error);
}

static bool is_hidden(const mq_generation *g, int32_t token)
{
    if (!g->hides_special || !mq_token_is_special(g->text, token)) return false;
    return !(g->keeps_markers && mq_token_is_marker(g->text, token));
}

static mq_status search_token(mq_generation *g, int32_t token, bool *found, mq_error *error)
{
    const char *bytes;
    size_t count;
    *found = false;
    if (is_hidden(g, token)) {
        return g->special ? search_special(g, token, found, error) : MQ_OK;
    }
    const mq_status status = mq_stream_push(g->stream, token, &bytes, &count, error);
    return status != MQ_OK || search_text(g, bytes, count, false, found) ? status : no_room(error);
}

/* The text that the stream and the stop search hold back; a character that the end cuts is left out. */
static mq_status flush_generation(mq_generation *g, bool *found, mq_error *error)
{
    const char *bytes;
    size_t count;
    g->ended = true;
    mq_status status = mq_stream_flush(g->stream, &bytes, &count, error);
    if (status != MQ_OK) return status;
    count -= mq__utf8_incomplete_tail(bytes, count);
    if (!search_text(g, bytes, count, false, found)) return no_room(error);
    return *found || mq__stop_search_end(g->stops, &g->out) ? MQ_OK : no_room(error);
}

bool mq__generation_is_end(const mq_generation *g, int32_t token)
{
    for (size_t i = 0; i < g->end_count; i++) {
        if (g->ends[i] == token) return true;
    }
    return false;
}

mq_status mq_generation_push(mq_generation *g, int32_t token, const char **bytes, size_t *count, mq_finish *finish,
                             mq_error *error)
{
    bool found = false;
    *finish = MQ_FINISH_NONE;
    mq__buf_clear(&g->out);
    if (g->ended) return mq__fail(error, MQ_USAGE, "generate: token: expected none after the end, got %d", token);
    mq_status status = mq_sampler_accept(g->sampler, token, error);
    if (status != MQ_OK) return status;
    if (mq__generation_is_end(g, token)) {
        *finish = MQ_FINISH_EOS;
    } else {
        g->count++;
        status = search_token(g, token, &found, error);
        if (!found && g->count >= g->max_tokens) *finish = MQ_FINISH_LENGTH;
    }
    if (status == MQ_OK && *finish != MQ_FINISH_NONE) status = flush_generation(g, &found, error);
    if (found) *finish = MQ_FINISH_STOP;
    g->ended = g->ended || found;
    *bytes = g->out.data;
    *count = g->out.len;
    return status;
}

mq_status mq_generation_end(mq_generation *g, const char **bytes, size_t *count, mq_error *error)
{
    bool found;
    mq__buf_clear(&g->out);
    const mq_status status = g->ended ? MQ_OK : flush_generation(g, &found, error);
    *bytes = g->out.data;
    *count = g->out.len;
    return status;
}
