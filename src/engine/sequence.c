/* A sequence: one timeline of tokens. Prefill runs all but the last token of a prompt in the prefill plan; the last one
 * runs in the decode plan, so that the first sampled token is already precise (Mix-Quant, section 3.2). */
#include "base/error.h"
#include "base/mem.h"
#include "engine/engine.h"

#include <assert.h>
#include <string.h>
#include <time.h>

mq_status mq_sequence_new(mq_engine *engine, mq_sequence **out, mq_error *error)
{
    *out = NULL;
    mq_sequence *sequence = mq__alloc_zero(1, sizeof *sequence);
    if (sequence) {
        sequence->engine = engine;
        sequence->tokens = mq__alloc_zero(engine->context, sizeof *sequence->tokens);
        sequence->pages = mq__alloc_zero(engine->pages_per_session, sizeof *sequence->pages);
        sequence->logits = mq__alloc_zero(engine->weights->model.vocab, sizeof *sequence->logits);
    }
    if (!sequence || !sequence->tokens || !sequence->pages || !sequence->logits) {
        mq_sequence_free(sequence);
        return mq__fail(error, MQ_NO_MEMORY, "sequence: %u tokens: expected memory, got none", engine->context);
    }
    sequence->plan_id = engine->plan_id;
    *out = sequence;
    return MQ_OK;
}

void mq_sequence_free(mq_sequence *sequence)
{
    if (!sequence) return;
    if (sequence->pages) mq_sequence_truncate(sequence, 0);
    mq__free(sequence->tokens);
    mq__free(sequence->pages);
    mq__free(sequence->logits);
    mq__free(sequence);
}

void mq_sequence_truncate(mq_sequence *sequence, uint32_t count)
{
    if (count < sequence->count) sequence->count = count;
    const uint32_t keep = (sequence->count + MQ_PAGE_TOKENS - 1) / MQ_PAGE_TOKENS;
    while (sequence->page_count > keep) {
        mq__kv_pool_give(sequence->engine->kv, sequence->pages[--sequence->page_count]);
    }
    sequence->logits_ready = false;
}

static mq_status reserve_session(mq_sequence *sequence, uint32_t count, mq_error *error)
{
    const uint32_t context = sequence->engine->context;
    if (count > context) {
        return mq__fail(error, MQ_LIMIT, "sequence: prompt and answer: expected at most %u tokens of context, got %u",
                        context, count);
    }
    while ((size_t)sequence->page_count * MQ_PAGE_TOKENS < count) {
        uint16_t *page = mq__kv_pool_take(sequence->engine->kv);
        if (!page) {
            return mq__fail(error, MQ_LIMIT, "sequence: KV pages: expected room for %u tokens, got %u", count,
                            sequence->page_count * MQ_PAGE_TOKENS);
        }
        sequence->pages[sequence->page_count++] = page;
    }
    return MQ_OK;
}

static mq_status check_tokens(const mq_sequence *sequence, const int32_t *tokens, uint32_t count, mq_error *error)
{
    const uint32_t vocab = sequence->engine->weights->model.vocab;
    if (count == 0) return mq__fail(error, MQ_USAGE, "sequence: tokens: expected at least 1, got 0");
    for (uint32_t i = 0; i < count; i++) {
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= vocab) {
            return mq__fail(error, MQ_USAGE, "sequence: token %u: expected an id below %u, got %d", i, vocab,
                            tokens[i]);
        }
    }
    return MQ_OK;
}

/* Runs rows tokens from position sequence->count on, in one phase, and appends them to the timeline. */
static void run_session(mq_sequence *sequence, mq_phase phase, const int32_t *tokens, uint32_t rows,
                        const mq_sync_options *options)
{
    mq_engine *engine = sequence->engine;
    const mq_segment segment = {.pages = sequence->pages, .first = sequence->count, .rows = rows};
    const mq_pass pass = {.phase = phase,
                          .plan = engine->plan[phase],
                          .tokens = tokens,
                          .rows = rows,
                          .segments = &segment,
                          .segment_count = 1,
                          .observer = engine->observed ? &engine->observer : NULL};
    sequence->running = rows;
    mq__forward(engine->runtime, &pass);
    sequence->running = 0;
    if (phase == MQ_PHASE_DECODE) {
        mq__logits(engine->runtime, &pass, 0, 1, sequence->logits);
        sequence->logits_ready = true;
        if (options && options->logits) options->logits(options->context, sequence->count, 1, sequence->logits);
    } else if (options && options->logits) {
        for (uint32_t row = 0; row < rows; row += MQ_THIN_ROWS) {
            const uint32_t some = rows - row < MQ_THIN_ROWS ? rows - row : MQ_THIN_ROWS;
            mq__logits(engine->runtime, &pass, row, some, engine->batch_logits);
            options->logits(options->context, sequence->count + row, some, engine->batch_logits);
        }
    }
    memcpy(sequence->tokens + sequence->count, tokens, rows * sizeof *tokens);
    sequence->count += rows;
}

static uint32_t common_prefix(const mq_sequence *sequence, const int32_t *tokens, uint32_t count)
{
    uint32_t n = 0;
    while (n < sequence->count && n < count && sequence->tokens[n] == tokens[n]) {
        n++;
    }
    return n;
}

mq_status mq_sequence_sync(mq_sequence *sequence, const int32_t *tokens, uint32_t count, const mq_sync_options *options,
                           mq_sync_stats *stats, mq_error *error)
{
    mq_status status = check_tokens(sequence, tokens, count, error);
    if (status != MQ_OK) return status;
    if (sequence->plan_id != sequence->engine->plan_id) mq_sequence_truncate(sequence, 0);
    sequence->plan_id = sequence->engine->plan_id;
    const uint32_t same = common_prefix(sequence, tokens, count), last = count - 1;
    mq_sequence_truncate(sequence, same < last ? same : last);
    status = reserve_session(sequence, count, error);
    if (status != MQ_OK) return status;

    mq_sync_stats unused;
    if (!stats) stats = &unused;
    *stats = (mq_sync_stats){.cached = sequence->count, .prefilled = last - sequence->count};
    const double start = mq__seconds();
    while (sequence->count < last) {
        const uint32_t left = last - sequence->count;
        run_session(sequence, MQ_PHASE_PREFILL, tokens + sequence->count,
                    left < sequence->engine->chunk ? left : sequence->engine->chunk, options);
        if (options && options->progress && !options->progress(options->context, sequence->count, count)) {
            stats->prefill_s = mq__seconds() - start;
            return mq__fail(error, MQ_CANCELLED, "sequence: prefill: expected %u tokens, cancelled after %u", count,
                            sequence->count);
        }
    }
    stats->prefill_s = mq__seconds() - start;
    run_session(sequence, MQ_PHASE_DECODE, tokens + last, 1, options);
    stats->last_s = mq__seconds() - start - stats->prefill_s;
    if (options && options->progress) (void)options->progress(options->context, count, count);
    return MQ_OK;
}

mq_status mq_sequence_step(mq_sequence *sequence, int32_t token, mq_error *error)
{
    mq_status status = check_tokens(sequence, &token, 1, error);
    if (status == MQ_OK) status = reserve_session(sequence, sequence->count + 1, error);
    if (status != MQ_OK) return status;
    run_session(sequence, MQ_PHASE_DECODE, &token, 1, NULL);
    mq__engine_stepped(sequence->engine);
    return MQ_OK;
}

mq_status mq_sequence_step_batch(mq_sequence *const *sequences, const int32_t *tokens, uint32_t count, mq_error *error)
{
    if (count == 1) return mq_sequence_step(sequences[0], tokens[0], error);
    if (count == 0 || count > MQ_THIN_ROWS) {
        return mq__fail(error, MQ_USAGE, "sequence: batch: expected 1 to %d sequences, got %u", MQ_THIN_ROWS, count);
    }
    mq_engine *engine = sequences[0]->engine;
    mq_segment segments[MQ_THIN_ROWS];
    for (uint32_t i = 0; i < count; i++) {
        assert(sequences[i]->engine == engine);
        mq_status status = check_tokens(sequences[i], &tokens[i], 1, error);
        if (status == MQ_OK) status = reserve_session(sequences[i], sequences[i]->count + 1, error);
        if (status != MQ_OK) return status;
        segments[i] = (mq_segment){.pages = sequences[i]->pages, .first = sequences[i]->count, .row = i, .rows = 1};
    }
    const mq_pass pass = {.phase = MQ_PHASE_DECODE,
                          .plan = engine->plan[MQ_PHASE_DECODE],
                          .tokens = tokens,
                          .rows = count,
                          .segments = segments,
                          .segment_count = count,
                          .observer = engine->observed ? &engine->observer : NULL};
    for (uint32_t i = 0; i < count; i++) {
        sequences[i]->running = 1;
    }
    mq__forward(engine->runtime, &pass);
    mq__logits(engine->runtime, &pass, 0, count, engine->batch_logits);
    const size_t vocab = engine->weights->model.vocab;
    for (uint32_t i = 0; i < count; i++) {
        memcpy(sequences[i]->logits, engine->batch_logits + i * vocab, vocab * sizeof(float));
        sequences[i]->tokens[sequences[i]->count++] = tokens[i];
        sequences[i]->running = 0;
        sequences[i]->logits_ready = true;
    }
    mq__engine_stepped(engine);
    return MQ_OK;
}

const float *mq_sequence_logits(const mq_sequence *sequence)
{
    return sequence->logits_ready ? sequence->logits : NULL;
}

const int32_t *mq_sequence_tokens(const mq_sequence *sequence, uint32_t *count)
{
    *count = sequence->count;
    return sequence->tokens;
}
