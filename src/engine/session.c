/* A session: one timeline of tokens. Prefill runs all but the last token of a prompt in the prefill plan; the last one
 * runs in the decode plan, so that the first sampled token is already precise (Mix-Quant, section 3.2). */
#include "base/error.h"
#include "base/mem.h"
#include "engine/engine.h"

#include <assert.h>
#include <string.h>
#include <time.h>

mq_status mq_session_new(mq_engine *engine, mq_session **out, mq_error *error)
{
    *out = NULL;
    mq_session *session = mq__alloc_zero(1, sizeof *session);
    if (session) {
        session->engine = engine;
        session->tokens = mq__alloc_zero(engine->context, sizeof *session->tokens);
        session->pages = mq__alloc_zero(engine->pages_per_session, sizeof *session->pages);
        session->logits = mq__alloc_zero(engine->weights->model.vocab, sizeof *session->logits);
    }
    if (!session || !session->tokens || !session->pages || !session->logits) {
        mq_session_free(session);
        return mq__fail(error, MQ_NO_MEMORY, "session: %u tokens: expected memory, got none", engine->context);
    }
    session->plan_id = engine->plan_id;
    *out = session;
    return MQ_OK;
}

void mq_session_free(mq_session *session)
{
    if (!session) return;
    if (session->pages) mq_session_truncate(session, 0);
    mq__free(session->tokens);
    mq__free(session->pages);
    mq__free(session->logits);
    mq__free(session);
}

void mq_session_truncate(mq_session *session, uint32_t count)
{
    if (count < session->count) session->count = count;
    const uint32_t keep = (session->count + MQ_PAGE_TOKENS - 1) / MQ_PAGE_TOKENS;
    while (session->page_count > keep) {
        mq__kv_pool_give(session->engine->kv, session->pages[--session->page_count]);
    }
    session->logits_ready = false;
}

static mq_status reserve(mq_session *session, uint32_t count, mq_error *error)
{
    const uint32_t context = session->engine->context;
    if (count > context) {
        return mq__fail(error, MQ_LIMIT, "session: prompt and answer: expected at most %u tokens of context, got %u",
                        context, count);
    }
    while ((size_t)session->page_count * MQ_PAGE_TOKENS < count) {
        uint16_t *page = mq__kv_pool_take(session->engine->kv);
        if (!page) {
            return mq__fail(error, MQ_LIMIT, "session: KV pages: expected room for %u tokens, got %u", count,
                            session->page_count * MQ_PAGE_TOKENS);
        }
        session->pages[session->page_count++] = page;
    }
    return MQ_OK;
}

static mq_status check_tokens(const mq_session *session, const int32_t *tokens, uint32_t count, mq_error *error)
{
    const uint32_t vocab = session->engine->weights->model.vocab;
    if (count == 0) return mq__fail(error, MQ_USAGE, "session: tokens: expected at least 1, got 0");
    for (uint32_t i = 0; i < count; i++) {
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= vocab) {
            return mq__fail(error, MQ_USAGE, "session: token %u: expected an id below %u, got %d", i, vocab, tokens[i]);
        }
    }
    return MQ_OK;
}

/* Runs rows tokens from position session->count on, in one phase, and appends them to the timeline. */
static void run(mq_session *session, mq_phase phase, const int32_t *tokens, uint32_t rows,
                const mq_sync_options *options)
{
    mq_engine *engine = session->engine;
    const mq_segment segment = {.pages = session->pages, .first = session->count, .rows = rows};
    const mq_pass pass = {.phase = phase,
                          .plan = engine->plan[phase],
                          .tokens = tokens,
                          .rows = rows,
                          .segments = &segment,
                          .segment_count = 1,
                          .observer = engine->observed ? &engine->observer : NULL};
    session->running = rows;
    mq__forward(engine->runtime, &pass);
    session->running = 0;
    if (phase == MQ_PHASE_DECODE) {
        mq__logits(engine->runtime, &pass, 0, 1, session->logits);
        session->logits_ready = true;
        if (options && options->logits) options->logits(options->context, session->count, 1, session->logits);
    } else if (options && options->logits) {
        for (uint32_t row = 0; row < rows; row += MQ_THIN_ROWS) {
            const uint32_t some = rows - row < MQ_THIN_ROWS ? rows - row : MQ_THIN_ROWS;
            mq__logits(engine->runtime, &pass, row, some, engine->batch_logits);
            options->logits(options->context, session->count + row, some, engine->batch_logits);
        }
    }
    memcpy(session->tokens + session->count, tokens, rows * sizeof *tokens);
    session->count += rows;
}

static uint32_t common_prefix(const mq_session *session, const int32_t *tokens, uint32_t count)
{
    uint32_t n = 0;
    while (n < session->count && n < count && session->tokens[n] == tokens[n]) {
        n++;
    }
    return n;
}

mq_status mq_session_sync(mq_session *session, const int32_t *tokens, uint32_t count, const mq_sync_options *options,
                          mq_sync_stats *stats, mq_error *error)
{
    mq_status status = check_tokens(session, tokens, count, error);
    if (status != MQ_OK) return status;
    if (session->plan_id != session->engine->plan_id) mq_session_truncate(session, 0);
    session->plan_id = session->engine->plan_id;
    const uint32_t same = common_prefix(session, tokens, count), last = count - 1;
    mq_session_truncate(session, same < last ? same : last);
    status = reserve(session, count, error);
    if (status != MQ_OK) return status;

    mq_sync_stats unused;
    if (!stats) stats = &unused;
    *stats = (mq_sync_stats){.cached = session->count, .prefilled = last - session->count};
    const double start = mq__seconds();
    while (session->count < last) {
        const uint32_t left = last - session->count;
        run(session, MQ_PHASE_PREFILL, tokens + session->count,
            left < session->engine->chunk ? left : session->engine->chunk, options);
        if (options && options->progress && !options->progress(options->context, session->count, count)) {
            stats->prefill_s = mq__seconds() - start;
            return mq__fail(error, MQ_CANCELLED, "session: prefill: expected %u tokens, cancelled after %u", count,
                            session->count);
        }
    }
    stats->prefill_s = mq__seconds() - start;
    run(session, MQ_PHASE_DECODE, tokens + last, 1, options);
    stats->last_s = mq__seconds() - start - stats->prefill_s;
    if (options && options->progress) (void)options->progress(options->context, count, count);
    return MQ_OK;
}

mq_status mq_session_step(mq_session *session, int32_t token, mq_error *error)
{
    mq_status status = check_tokens(session, &token, 1, error);
    if (status == MQ_OK) status = reserve(session, session->count + 1, error);
    if (status != MQ_OK) return status;
    run(session, MQ_PHASE_DECODE, &token, 1, NULL);
    mq__engine_stepped(session->engine);
    return MQ_OK;
}

mq_status mq_session_step_batch(mq_session *const *sessions, const int32_t *tokens, uint32_t count, mq_error *error)
{
    if (count == 1) return mq_session_step(sessions[0], tokens[0], error);
    if (count == 0 || count > MQ_THIN_ROWS) {
        return mq__fail(error, MQ_USAGE, "session: batch: expected 1 to %d sessions, got %u", MQ_THIN_ROWS, count);
    }
    mq_engine *engine = sessions[0]->engine;
    mq_segment segments[MQ_THIN_ROWS];
    for (uint32_t i = 0; i < count; i++) {
        assert(sessions[i]->engine == engine);
        mq_status status = check_tokens(sessions[i], &tokens[i], 1, error);
        if (status == MQ_OK) status = reserve(sessions[i], sessions[i]->count + 1, error);
        if (status != MQ_OK) return status;
        segments[i] = (mq_segment){.pages = sessions[i]->pages, .first = sessions[i]->count, .row = i, .rows = 1};
    }
    const mq_pass pass = {.phase = MQ_PHASE_DECODE,
                          .plan = engine->plan[MQ_PHASE_DECODE],
                          .tokens = tokens,
                          .rows = count,
                          .segments = segments,
                          .segment_count = count,
                          .observer = engine->observed ? &engine->observer : NULL};
    for (uint32_t i = 0; i < count; i++) {
        sessions[i]->running = 1;
    }
    mq__forward(engine->runtime, &pass);
    mq__logits(engine->runtime, &pass, 0, count, engine->batch_logits);
    const size_t vocab = engine->weights->model.vocab;
    for (uint32_t i = 0; i < count; i++) {
        memcpy(sessions[i]->logits, engine->batch_logits + i * vocab, vocab * sizeof(float));
        sessions[i]->tokens[sessions[i]->count++] = tokens[i];
        sessions[i]->running = 0;
        sessions[i]->logits_ready = true;
    }
    mq__engine_stepped(engine);
    return MQ_OK;
}

const float *mq_session_logits(const mq_session *session)
{
    return session->logits_ready ? session->logits : NULL;
}

const int32_t *mq_session_tokens(const mq_session *session, uint32_t *count)
{
    *count = session->count;
    return session->tokens;
}
