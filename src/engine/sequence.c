/* A sequence: one timeline of tokens and the KV blocks that it holds, some of them shared with others. */
#include "base/error.h"
#include "base/mem.h"
#include "engine/engine.h"

#include <assert.h>
#include <string.h>

/* ---- where a sequence can begin */

/* Whether the window parts are there that a row behind `count` tokens needs. */
static bool sees_windows(const mq_engine *engine, mq_kv_block *const *block, uint32_t count)
{
    if (!engine->kv_layout.window) return true;
    for (uint32_t b = mq__kv_window_from(&engine->kv_layout, count); b < mq__blocks_for(count); b++) {
        if (!block[b]->window) return false;
    }
    return true;
}

bool mq__sequence_sees_windows(const mq_sequence *sequence)
{
    return sees_windows(sequence->engine, sequence->blocks, sequence->count);
}

static bool begins_at(const mq_engine *engine, mq_kv_block *const *block, uint32_t count)
{
    const bool stored =
        !engine->state_floats || (count % MQ_PAGE_TOKENS == 0 && block[count / MQ_PAGE_TOKENS - 1]->state != NULL);
    return stored && sees_windows(engine, block, count);
}

/* Behind the first `count` tokens of these blocks, or the last whole block before at which it can. */
static uint32_t last_beginning(const mq_engine *engine, mq_kv_block *const *block, uint32_t count)
{
    while (count > 0 && !begins_at(engine, block, count)) {
        count = (count - 1) / MQ_PAGE_TOKENS * MQ_PAGE_TOKENS;
    }
    return count;
}

/* Whether the state behind `count` of the tokens is the one before the last pass, or can be made of it. */
static bool kept_covers(const mq_sequence *sequence, uint32_t count)
{
    return sequence->kept_rows && count >= sequence->kept_first;
}

static bool knows_state(const mq_sequence *sequence, uint32_t count)
{
    return !sequence->engine->state_floats || count + sequence->drafted == sequence->count ||
           kept_covers(sequence, count);
}

uint32_t mq__sequence_landing(const mq_sequence *sequence, uint32_t count)
{
    const uint32_t known = sequence->count - sequence->drafted;
    if (count > known) count = known;
    if (knows_state(sequence, count) && sees_windows(sequence->engine, sequence->blocks, count)) return count;
    return last_beginning(sequence->engine, sequence->blocks, count);
}

uint32_t mq__sequence_adoptable(const mq_engine *engine, mq_kv_block *const *block, uint32_t blocks)
{
    return last_beginning(engine, block, blocks * MQ_PAGE_TOKENS) / MQ_PAGE_TOKENS;
}

/* ---- recurrent state */

/* The state behind the first `count` tokens from a snapshot, or the one before the first token. */
static void snapshot_state(const mq_sequence *sequence, uint32_t count, float *to)
{
    const mq_engine *engine = sequence->engine;
    const size_t bytes = engine->state_floats * sizeof *to;
    if (!bytes) return;
    if (count == 0) {
        memset(to, 0, bytes);
        return;
    }
    const mq_kv_block *block = sequence->blocks[count / MQ_PAGE_TOKENS - 1];
    assert(count % MQ_PAGE_TOKENS == 0 && block->state);
    memcpy(to, block->state, bytes);
    mq__kv_state_use(engine->kv, block);
}

/* The state behind `count` tokens, where mq__sequence_landing says that there is one. */
static void landed_state(const mq_sequence *sequence, uint32_t count, float *to)
{
    const mq_engine *engine = sequence->engine;
    if (count + sequence->drafted != sequence->count) {
        if (!kept_covers(sequence, count))
            snapshot_state(sequence, count, to);
        else
            mq__state_rerun(engine->runtime, sequence->state_after, sequence->kept, count - sequence->kept_first, to);
    } else if (to != sequence->state) {
        memcpy(to, sequence->state, engine->state_floats * sizeof *to);
    }
}

const float *mq__sequence_state_at(const mq_sequence *sequence, uint32_t count)
{
    if (count == sequence->count) return sequence->state;
    return count > 0 && count % MQ_PAGE_TOKENS == 0 ? sequence->blocks[count / MQ_PAGE_TOKENS - 1]->state : NULL;
}

float *mq__sequence_state_room(mq_sequence *sequence)
{
    sequence->kept_rows = 0; /* that was of the state there */
    return sequence->state_after;
}

void mq__sequence_take_state(mq_sequence *sequence)
{
    mq_engine *engine = sequence->engine;
    float *before = sequence->state;
    if (!engine->state_floats) return;
    sequence->state = sequence->state_after;
    sequence->state_after = before;
    if (sequence->count % MQ_PAGE_TOKENS != 0) return;
    mq_kv_block *block = sequence->blocks[sequence->count / MQ_PAGE_TOKENS - 1];
    float *snapshot = block->holders > 1 || block->state ? NULL : mq__kv_state_take(engine->kv, block);
    if (snapshot) memcpy(snapshot, sequence->state, engine->state_floats * sizeof *snapshot);
    if (!engine->reading) mq__kv_states_settle(engine->kv);
}

/* ---- life */

mq_status mq_sequence_new(mq_engine *engine, mq_sequence **out, mq_error *error)
{
    *out = NULL;
    mq_sequence *sequence = mq__alloc_zero(1, sizeof *sequence);
    if (sequence) {
        sequence->engine = engine;
        sequence->tokens = mq__alloc_zero(engine->context, sizeof *sequence->tokens);
        sequence->blocks = mq__alloc_zero(engine->blocks_per_sequence, sizeof *sequence->blocks);
        sequence->pages = mq__alloc_zero(engine->blocks_per_sequence, sizeof *sequence->pages);
        sequence->window_pages = mq__alloc_zero(engine->blocks_per_sequence, sizeof *sequence->window_pages);
    }
    if (sequence && engine->state_floats) {
        sequence->state = mq__alloc_aligned(engine->state_floats * sizeof *sequence->state);
        sequence->state_after = mq__alloc_aligned(engine->state_floats * sizeof *sequence->state);
    }
    if (!sequence || !sequence->tokens || !sequence->blocks || !sequence->pages || !sequence->window_pages ||
        (engine->state_floats && (!sequence->state || !sequence->state_after)) ||
        mq__sequence_logits_room(sequence, 1, NULL) != MQ_OK) {
        mq_sequence_free(sequence);
        return mq__fail(error, MQ_NO_MEMORY, "sequence: %u tokens: expected memory, got none", engine->context);
    }
    sequence->plan = engine->plan;
    snapshot_state(sequence, 0, sequence->state);
    *out = sequence;
    return MQ_OK;
}

void mq_sequence_free(mq_sequence *sequence)
{
    if (!sequence) return;
    sequence->count = 0;
    mq__sequence_give_blocks(sequence);
    mq__free(sequence->tokens);
    mq__free(sequence->blocks);
    mq__free(sequence->pages);
    mq__free(sequence->window_pages);
    mq__free_aligned(sequence->state);
    mq__free_aligned(sequence->state_after);
    mq__free_aligned(sequence->kept);
    mq__free(sequence->logits);
    mq__free(sequence);
}

void mq_sequence_set_plan(mq_sequence *sequence, const mq_plan *plan)
{
    if (plan != sequence->plan) (void)mq_sequence_truncate(sequence, 0);
    sequence->plan = plan;
    sequence->own_plan = true;
}

void mq_sequence_cancel(mq_sequence *sequence)
{
    atomic_store_explicit(&sequence->cancel, true, memory_order_relaxed);
}

/* ---- blocks */

bool mq__sequence_shares_last(const mq_sequence *sequence)
{
    const uint32_t last = sequence->count / MQ_PAGE_TOKENS;
    return last < sequence->block_count && sequence->blocks[last]->holders > 1;
}

uint32_t mq__sequence_blocks_missing(const mq_sequence *sequence, uint32_t count)
{
    if (count <= sequence->count) return 0;
    const uint32_t needed = mq__blocks_for(count), held = sequence->block_count;
    return (needed > held ? needed - held : 0) + (mq__sequence_shares_last(sequence) ? 1 : 0);
}

static void put_block(mq_sequence *sequence, uint32_t at, mq_kv_block *block)
{
    sequence->blocks[at] = block;
    sequence->pages[at] = block->data;
}

/* The block that the next token goes into becomes the sequence's own. */
static void copy_last(mq_sequence *sequence)
{
    mq_kv_pool *kv = sequence->engine->kv;
    const uint32_t last = sequence->count / MQ_PAGE_TOKENS;
    mq_kv_block *own = mq__kv_take(kv, sequence->plan->id), *shared = sequence->blocks[last];
    assert(own);
    mq__sequence_take_window_of(sequence, last, own);
    mq__kv_copy(kv, own, shared, sequence->count % MQ_PAGE_TOKENS);
    mq__kv_release(kv, shared);
    put_block(sequence, last, own);
}

void mq__sequence_take_blocks(mq_sequence *sequence, uint32_t count)
{
    mq_kv_pool *kv = sequence->engine->kv;
    if (count <= sequence->count) return;
    if (mq__sequence_shares_last(sequence))
        copy_last(sequence);
    else if (sequence->count % MQ_PAGE_TOKENS) /* a snapshot there is of tokens that were taken back */
        mq__kv_state_give(kv, sequence->blocks[sequence->count / MQ_PAGE_TOKENS]);
    while (sequence->block_count < mq__blocks_for(count)) {
        mq_kv_block *block = mq__kv_take(kv, sequence->plan->id);
        assert(block);
        put_block(sequence, sequence->block_count++, block);
    }
}

void mq__sequence_give_blocks(mq_sequence *sequence)
{
    if (sequence->window_end > mq__blocks_for(sequence->count)) mq__sequence_watch_windows(sequence);
    while (sequence->block_count > mq__blocks_for(sequence->count)) {
        mq__kv_release(sequence->engine->kv, sequence->blocks[--sequence->block_count]);
    }
}

/* Of what stood behind the tokens in their last block. */
static void forget_provenance(mq_sequence *sequence)
{
    const uint32_t slot = sequence->count % MQ_PAGE_TOKENS;
    if (slot == 0 || mq__sequence_shares_last(sequence)) return; /* others may have tokens there */
    mq__kv_mark(sequence->blocks[sequence->count / MQ_PAGE_TOKENS], slot, MQ_PAGE_TOKENS - slot, false);
}

uint32_t mq_sequence_truncate(mq_sequence *sequence, uint32_t count)
{
    const uint32_t landing = mq__sequence_landing(sequence, count);
    if (landing < sequence->count) {
        if (sequence->state) landed_state(sequence, landing, sequence->state);
        sequence->kept_rows = kept_covers(sequence, landing) ? landing - sequence->kept_first : 0;
        sequence->drafted = 0;
        sequence->count = landing;
        mq__sequence_watch_windows(sequence);
    }
    if (sequence->prompt > sequence->count) sequence->prompt = sequence->count;
    mq__sequence_give_blocks(sequence);
    forget_provenance(sequence);
    sequence->logits_ready = 0;
    return sequence->count;
}

void mq__sequence_drop(mq_sequence *sequence, uint32_t count)
{
    const uint32_t ready = sequence->logits_ready;
    (void)mq_sequence_truncate(sequence, sequence->count - count);
    sequence->logits_ready = ready > count ? ready - count : 0;
}

void mq__sequence_append(mq_sequence *sequence, const int32_t *tokens, uint32_t count, bool precise)
{
    memcpy(sequence->tokens + sequence->count, tokens, count * sizeof *tokens);
    sequence->kept_rows = 0;
    for (uint32_t done = 0, some; done < count; done += some) {
        const uint32_t slot = sequence->count % MQ_PAGE_TOKENS, room = MQ_PAGE_TOKENS - slot;
        some = count - done < room ? count - done : room;
        mq__kv_mark(sequence->blocks[sequence->count / MQ_PAGE_TOKENS], slot, some, precise);
        sequence->count += some;
    }
}

mq_status mq_sequence_fork(const mq_sequence *from, uint32_t count, mq_sequence **out, mq_error *error)
{
    *out = NULL;
    if (count > from->count) {
        return mq__fail(error, MQ_USAGE, "sequence: fork: expected at most %u tokens, got %u", from->count, count);
    }
    const mq_status status = mq_sequence_new(from->engine, out, error);
    if (status != MQ_OK) return status;
    mq_sequence *fork = *out;
    count = mq__sequence_landing(from, count);
    fork->plan = from->plan;
    fork->own_plan = from->own_plan;
    memcpy(fork->tokens, from->tokens, count * sizeof *fork->tokens);
    fork->count = count;
    fork->prompt = from->prompt < count ? from->prompt : count;
    for (uint32_t i = 0; i < mq__blocks_for(count); i++) {
        mq__kv_hold(from->blocks[i]);
        put_block(fork, fork->block_count++, from->blocks[i]);
    }
    mq__sequence_watch_windows(fork);
    if (fork->state) landed_state(from, count, fork->state);
    return MQ_OK;
}

void mq__sequence_adopt(mq_sequence *sequence, const int32_t *tokens, mq_kv_block *const *block, uint32_t blocks)
{
    assert(sequence->count == 0 && blocks <= sequence->engine->blocks_per_sequence);
    sequence->count = blocks * MQ_PAGE_TOKENS;
    memcpy(sequence->tokens, tokens, sequence->count * sizeof *tokens);
    for (uint32_t i = 0; i < blocks; i++) {
        mq__kv_hold(block[i]);
        put_block(sequence, sequence->block_count++, block[i]);
    }
    mq__sequence_watch_windows(sequence);
    snapshot_state(sequence, sequence->count, sequence->state);
}

/* ---- tokens and logits */

mq_status mq__sequence_check_tokens(const mq_sequence *sequence, const int32_t *tokens, uint32_t count, mq_error *error)
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

mq_status mq__sequence_logits_room(mq_sequence *sequence, uint32_t rows, mq_error *error)
{
    if (rows <= sequence->logits_room) return MQ_OK;
    float *logits = mq__alloc_zero((size_t)rows * sequence->engine->weights->model.vocab, sizeof *logits);
    if (!logits) return mq__fail(error, MQ_NO_MEMORY, "sequence: logits of %u rows: expected memory, got none", rows);
    mq__free(sequence->logits);
    sequence->logits = logits;
    sequence->logits_room = rows;
    sequence->logits_ready = 0;
    return MQ_OK;
}

mq_status mq__sequence_kept_room(mq_sequence *sequence, uint32_t rows, mq_error *error)
{
    const mq_model *m = &sequence->engine->weights->model;
    if (rows <= sequence->kept_room) return MQ_OK;
    float *kept = mq__alloc_aligned((size_t)rows * m->delta_layers * mq__state_row_floats(&m->delta) * sizeof *kept);
    if (!kept) return mq__fail(error, MQ_NO_MEMORY, "sequence: drafts of %u rows: expected memory, got none", rows);
    mq__free_aligned(sequence->kept);
    sequence->kept = kept;
    sequence->kept_room = rows;
    sequence->kept_rows = 0;
    return MQ_OK;
}

const float *mq_sequence_logits(const mq_sequence *sequence)
{
    return mq_sequence_logits_of(sequence, 0);
}

const float *mq_sequence_logits_of(const mq_sequence *sequence, uint32_t before_last)
{
    if (before_last >= sequence->logits_ready) return NULL;
    const size_t row = sequence->logits_ready - 1 - before_last;
    return sequence->logits + row * sequence->engine->weights->model.vocab;
}

const int32_t *mq_sequence_tokens(const mq_sequence *sequence, uint32_t *count)
{
    *count = sequence->count;
    return sequence->tokens;
}

bool mq_sequence_is_precise(const mq_sequence *sequence, uint32_t position)
{
    if (position >= sequence->count) return false;
    return sequence->blocks[position / MQ_PAGE_TOKENS]->precise >> position % MQ_PAGE_TOKENS & 1;
}

/* ---- one sequence alone */

static uint32_t common_prefix(const mq_sequence *sequence, const int32_t *tokens, uint32_t count)
{
    uint32_t n = 0;
    while (n < sequence->count && n < count && sequence->tokens[n] == tokens[n]) {
        n++;
    }
    return n;
}

/* Blocks that nobody would hold any more if the sequence had `count` tokens. */
static uint32_t blocks_beyond(const mq_sequence *sequence, uint32_t count)
{
    uint32_t freed = 0;
    for (uint32_t i = mq__blocks_for(count); i < sequence->block_count; i++) {
        freed += sequence->blocks[i]->holders == 1;
    }
    return freed;
}

/* Keeps the first `keep` tokens and takes blocks of a plan for `count`; a refusal changes nothing. */
static mq_status make_room(mq_sequence *sequence, const mq_plan *plan, uint32_t keep, uint32_t count, mq_error *error)
{
    const mq_engine *engine = sequence->engine;
    if (count > engine->context) {
        return mq__fail(error, MQ_LIMIT, "sequence: prompt and answer: expected at most %u tokens of context, got %u",
                        engine->context, count);
    }
    const uint32_t tail = keep / MQ_PAGE_TOKENS;
    const bool copies = keep % MQ_PAGE_TOKENS != 0 && sequence->blocks[tail]->holders > 1;
    const uint32_t needed = mq__blocks_for(count) - mq__blocks_for(keep) + (copies ? 1 : 0);
    const uint32_t room = mq__kv_available(engine->kv) + blocks_beyond(sequence, keep);
    if (needed > room) {
        return mq__fail(error, MQ_LIMIT, "sequence: KV blocks: expected %u for %u tokens, got %u", needed, count, room);
    }
    if (!mq__sequence_windows_suffice(sequence, keep, count, copies)) {
        return mq__fail(error, MQ_LIMIT, "sequence: window parts of KV blocks: expected some for %u tokens, got %u",
                        count, mq__kv_windows_available(engine->kv));
    }
    (void)mq_sequence_truncate(sequence, keep);
    sequence->plan = plan;
    mq__sequence_take_blocks(sequence, count);
    return MQ_OK;
}

/* Tokens [sequence->count, last) in the prefill plan, a chunk at a time. */
static mq_status prefill(mq_sequence *sequence, const int32_t *tokens, uint32_t last, const mq_sync_options *options,
                         mq_error *error)
{
    mq_engine *engine = sequence->engine;
    while (sequence->count < last) {
        const uint32_t left = last - sequence->count, some = left < engine->chunk ? left : engine->chunk;
        mq_rows rows = {.sequence = sequence,
                        .tokens = tokens + sequence->count,
                        .count = some,
                        .phase = MQ_PHASE_PREFILL,
                        .logits = engine->visitor.visit ? some : 0};
        const mq_status status = mq_engine_step(engine, &rows, 1, error);
        if (status != MQ_OK) return status;
        if (rows.status == MQ_FORMAT) return rows.status;
        if (rows.status == MQ_CANCELLED ||
            (options && options->progress && !options->progress(options->context, sequence->count, last + 1))) {
            return mq__fail(error, MQ_CANCELLED, "sequence: prefill: expected %u tokens, cancelled after %u", last + 1,
                            sequence->count);
        }
    }
    return MQ_OK;
}

/* The position from which the prompt runs in the decode plan. */
static uint32_t first_precise(const mq_engine *engine, const mq_sync_options *options, uint32_t count)
{
    const uint32_t precise = options && options->precise ? options->precise : mq__engine_last(engine);
    return precise < count ? count - precise : 0;
}

static mq_status sync_sequence(mq_sequence *sequence, const int32_t *tokens, uint32_t count,
                               const mq_sync_options *options, mq_sync_stats *stats, mq_error *error)
{
    const double start = mq__seconds();
    mq_status status = prefill(sequence, tokens, first_precise(sequence->engine, options, count), options, error);
    stats->prefill_s = mq__seconds() - start;
    if (status != MQ_OK) return status;
    const uint32_t left = count - sequence->count;
    mq_rows rows = {.sequence = sequence,
                    .tokens = tokens + sequence->count,
                    .count = left,
                    .phase = MQ_PHASE_DECODE,
                    .logits = sequence->engine->visitor.visit ? left : 1};
    status = mq_engine_step(sequence->engine, &rows, 1, error);
    stats->last_s = mq__seconds() - start - stats->prefill_s;
    if (status == MQ_OK && rows.status == MQ_FORMAT) return rows.status;
    if (status == MQ_OK && rows.status == MQ_CANCELLED) {
        return mq__fail(error, MQ_CANCELLED, "sequence: prefill: expected %u tokens, cancelled after %u", count,
                        sequence->count);
    }
    if (status != MQ_OK) return status;
    sequence->prompt = sequence->count;
    if (options && options->progress) (void)options->progress(options->context, count, count);
    return MQ_OK;
}

mq_status mq_sequence_sync(mq_sequence *sequence, const int32_t *tokens, uint32_t count, const mq_sync_options *options,
                           mq_sync_stats *stats, mq_error *error)
{
    mq_engine *engine = sequence->engine;
    mq_status status = mq__sequence_check_tokens(sequence, tokens, count, error);
    if (status != MQ_OK) return status;
    const mq_plan *plan = sequence->own_plan ? sequence->plan : engine->plan;
    const uint32_t same = plan == sequence->plan ? common_prefix(sequence, tokens, count) : 0;
    const uint32_t keep = mq__sequence_landing(sequence, same < count ? same : count - 1);
    status = make_room(sequence, plan, keep, count, error);
    if (status != MQ_OK) return status;
    mq_sync_stats unused;
    if (!stats) stats = &unused;
    const uint32_t first = first_precise(engine, options, count);
    *stats = (mq_sync_stats){.cached = keep, .prefilled = first > keep ? first - keep : 0};
    if (options) engine->visitor = (mq_logits_visitor){options->logits, options->context};
    status = sync_sequence(sequence, tokens, count, options, stats, error);
    engine->visitor = (mq_logits_visitor){0};
    return status;
}

mq_status mq_sequence_step(mq_sequence *sequence, int32_t token, mq_error *error)
{
    mq_rows rows = {.sequence = sequence, .tokens = &token, .count = 1, .phase = MQ_PHASE_DECODE, .logits = 1};
    const mq_status status = mq_engine_step(sequence->engine, &rows, 1, error);
    if (status != MQ_OK) return status;
    if (rows.status != MQ_CANCELLED) return rows.status;
    return mq__fail(error, MQ_CANCELLED, "sequence: step: expected token %u, cancelled before it", sequence->count);
}
