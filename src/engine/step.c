/* A step: rows of many sequences, in passes of one phase and one plan. Prefill rows share their GEMMs, decode rows read the
 * weights once; which rows stand together changes no result. */
#include "base/error.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "model/finite.h"

#include <assert.h>
#include <string.h>

/* ---- before anything runs */

/* Rows that verify a draft may have to leave the recurrent state again. */
static bool may_be_dropped(const mq_engine *engine, const mq_rows *rows)
{
    return engine->state_floats && rows->phase == MQ_PHASE_DECODE && rows->logits > 1 &&
           rows->count <= MQ_DECODE_ROWS && !engine->visitor.visit;
}

static mq_status check_entry(mq_engine *engine, mq_rows *rows, mq_error *error)
{
    mq_sequence *sequence = rows->sequence;
    if (engine->reading && (rows->phase != MQ_PHASE_DECODE || sequence->running)) {
        return mq__fail(error, MQ_USAGE, "step: rows: expected decode rows of other sequences while a prompt is read");
    }
    if (sequence->engine != engine || (unsigned)rows->phase >= MQ_PHASES || rows->logits > rows->count) {
        return mq__fail(error, MQ_USAGE,
                        "step: rows: expected this engine's sequence, a phase, and logits of at most "
                        "%u rows, got others",
                        rows->count);
    }
    if (!mq__sequence_sees_windows(sequence)) {
        return mq__fail(error, MQ_USAGE,
                        "step: rows: expected KV of the windows before position %u, got less (of a KV image)",
                        sequence->count);
    }
    const unsigned phase = 1u << rows->phase;
    if (sequence->planned_in >= phase) { /* DECODE comes last */
        return mq__fail(error, MQ_USAGE, "step: rows: expected a sequence once a phase, prefill first, got it again");
    }
    mq_status status = mq__sequence_check_tokens(sequence, rows->tokens, rows->count, error);
    if (status == MQ_OK) status = mq__embedding_check(&engine->weights->model, rows->tokens, rows->count, error);
    if (status != MQ_OK) return status;
    if (!sequence->planned_in) sequence->planned = sequence->count;
    if (rows->count > engine->context - sequence->planned) {
        return mq__fail(error, MQ_LIMIT, "step: rows: expected at most %u tokens of context, got %llu", engine->context,
                        (unsigned long long)sequence->planned + rows->count);
    }
    sequence->planned += rows->count;
    sequence->planned_in |= phase;
    status = mq__sequence_logits_room(sequence, rows->logits, error);
    if (status != MQ_OK || !may_be_dropped(engine, rows)) return status;
    return mq__sequence_kept_room(sequence, rows->count, error);
}

/* Of all sequences together, each counted once: blocks, or window parts. */
static uint64_t all_missing(const mq_rows *rows, uint32_t count,
                            uint32_t (*missing_of)(const mq_sequence *sequence, uint32_t count))
{
    uint64_t missing = 0;
    for (uint32_t i = 0; i < count; i++) {
        const mq_sequence *sequence = rows[i].sequence;
        const bool counted = rows[i].phase == MQ_PHASE_DECODE && sequence->planned_in >> MQ_PHASE_PREFILL & 1;
        if (!counted) missing += missing_of(sequence, sequence->planned);
    }
    return missing;
}

static mq_status check_room(const mq_engine *engine, const mq_rows *rows, uint32_t count, mq_error *error)
{
    const uint64_t blocks = all_missing(rows, count, mq__sequence_blocks_missing),
                   windows = all_missing(rows, count, mq__sequence_windows_missing);
    if (blocks > mq__kv_available(engine->kv)) {
        return mq__fail(error, MQ_LIMIT, "step: KV blocks: expected %llu more, got %u", (unsigned long long)blocks,
                        mq__kv_available(engine->kv));
    }
    if (windows > mq__kv_windows_available(engine->kv)) {
        return mq__fail(error, MQ_LIMIT, "step: window parts of KV blocks: expected %llu more, got %u",
                        (unsigned long long)windows, mq__kv_windows_available(engine->kv));
    }
    return MQ_OK;
}

/* All blocks, and window parts for a pass; further passes take theirs as they leave others. */
static void take_blocks_of_step(mq_sequence *sequence)
{
    const uint32_t most = mq__engine_rows(sequence->engine), left = sequence->planned - sequence->count;
    mq__sequence_take_blocks(sequence, sequence->planned);
    mq__sequence_take_windows(sequence, 0, sequence->count + (left < most ? left : most));
}

static mq_status check_step(mq_engine *engine, mq_rows *rows, uint32_t count, mq_error *error)
{
    mq_status status = MQ_OK;
    for (uint32_t i = 0; i < count; i++) {
        rows[i].done = 0;
        rows[i].status = MQ_OK;
        rows[i].sequence->planned_in = 0;
    }
    for (uint32_t i = 0; status == MQ_OK && i < count; i++) {
        status = check_entry(engine, &rows[i], error);
    }
    if (status != MQ_OK) return status;
    status = check_room(engine, rows, count, error);
    if (status != MQ_OK) return status;
    for (uint32_t i = 0; i < count; i++) {
        take_blocks_of_step(rows[i].sequence);
        rows[i].sequence->logits_ready = 0;
    }
    return MQ_OK;
}

/* ---- putting a pass together */

static bool cancelled(const mq_sequence *sequence)
{
    return atomic_load_explicit(&sequence->cancel, memory_order_relaxed);
}

/* ---- recurrent state: which snapshots a segment leaves, and where its states are */

static bool ends_turn(const mq_weights *weights, int32_t token)
{
    for (size_t i = 0; i < weights->eos_count; i++) {
        if (weights->eos[i] == token) return true;
    }
    return false;
}

/* Whether later prompts may part from this one in the block behind a position: a turn ends before its last token. tokens: the segment's. */
static bool turn_ends(const mq_engine *engine, const mq_segment *segment, const int32_t *tokens, uint32_t position)
{
    const uint32_t from = position > segment->first ? position - 1 - segment->first : 0, left = segment->rows - from;
    for (uint32_t i = 0; i < left && i < MQ_PAGE_TOKENS; i++) {
        if (ends_turn(engine->weights, tokens[from + i])) return true;
    }
    return false;
}

/* Beside multiples of the interval: the last whole block of each turn, of rows that do not fill a pass (there a prompt ends), and of an
 * answer. */
static bool snapshot_between(const mq_engine *engine, const mq_segment *segment, mq_phase phase, const int32_t *tokens,
                             uint32_t position)
{
    const uint32_t end = segment->first + segment->rows;
    if (phase == MQ_PHASE_DECODE) return true;
    if (segment->rows < engine->chunk && end - position < MQ_PAGE_TOKENS) return true;
    return turn_ends(engine, segment, tokens, position);
}

/* What a block of an answer has for its end, until the next one is whole. */
static void give_earlier(mq_engine *engine, const mq_sequence *sequence, uint32_t position)
{
    const uint32_t before = position / MQ_PAGE_TOKENS - 1;
    if (before == 0 || before * MQ_PAGE_TOKENS % engine->state_interval == 0) return;
    mq_kv_block *block = sequence->blocks[before - 1];
    const bool decoded = block->precise >> (MQ_PAGE_TOKENS - 1) & 1; /* its last token was */
    if (decoded) mq__kv_state_give(engine->kv, block);
}

static void add_snapshot(mq_engine *engine, const mq_sequence *sequence, mq_phase phase, mq_segment *segment,
                         uint32_t position)
{
    mq_kv_block *block = sequence->blocks[position / MQ_PAGE_TOKENS - 1];
    const bool regular = position % engine->state_interval == 0;
    if (block->holders > 1 || block->state) return;
    if (phase == MQ_PHASE_DECODE) give_earlier(engine, sequence, position);
    float *to = regular ? mq__kv_state_take(engine->kv, block) : mq__kv_state_take_between(engine->kv, block);
    if (to) segment->save[segment->saves++] = (mq_state_save){position - segment->first, to};
}

/* A turn ends in the first block of a pass: its snapshot is the state that the pass begins with. */
static void snapshot_before(mq_engine *engine, const mq_sequence *sequence, const mq_segment *segment,
                            const int32_t *tokens)
{
    if (segment->first % MQ_PAGE_TOKENS != 0 || segment->first % engine->state_interval == 0) return;
    mq_kv_block *block = sequence->blocks[segment->first / MQ_PAGE_TOKENS - 1];
    if (block->state || !turn_ends(engine, segment, tokens, segment->first)) return;
    float *to = mq__kv_state_take_between(engine->kv, block);
    if (to) memcpy(to, sequence->state, engine->state_floats * sizeof *to);
}

/* The last ones, where there are more than fit; those at multiples of the interval first. */
static void plan_snapshots(mq_engine *engine, const mq_sequence *sequence, mq_phase phase, const int32_t *tokens,
                           mq_segment *segment)
{
    uint32_t wanted[MQ_STATE_SAVES], count = 0;
    const uint32_t end = segment->first + segment->rows, interval = engine->state_interval;
    const uint32_t regular = end / interval - segment->first / interval;
    uint32_t between = regular < MQ_STATE_SAVES ? MQ_STATE_SAVES - regular : 0;
    for (uint32_t at = end / MQ_PAGE_TOKENS * MQ_PAGE_TOKENS; at > segment->first && count < MQ_STATE_SAVES;
         at -= MQ_PAGE_TOKENS) {
        if (at % interval != 0) {
            if (between == 0 || !snapshot_between(engine, segment, phase, tokens, at)) continue;
            between--;
        }
        wanted[count++] = at;
    }
    if (phase == MQ_PHASE_PREFILL) snapshot_before(engine, sequence, segment, tokens);
    while (count-- > 0) {
        add_snapshot(engine, sequence, phase, segment, wanted[count]);
    }
}

/* Draft steps write over their own state: the one before them stays. */
static void place_states(mq_engine *engine, const mq_rows *rows, mq_segment *segment)
{
    mq_sequence *sequence = rows->sequence;
    assert(engine->drafting || !sequence->drafted);
    segment->state = sequence->drafted ? sequence->state_after : sequence->state;
    segment->state_after = sequence->state_after;
    sequence->kept_rows = 0;
    if (may_be_dropped(engine, rows)) segment->keep = sequence->kept;
    if (!engine->drafting) plan_snapshots(engine, sequence, rows->phase, rows->tokens + rows->done, segment);
}

/* The rows have run, or (dropped) have not. */
static void keep_state(mq_engine *engine, mq_sequence *sequence, const mq_segment *segment, bool dropped)
{
    if (!engine->state_floats) return;
    if (engine->drafting) {
        sequence->drafted += segment->rows;
        return;
    }
    if (dropped) {
        for (uint32_t b = sequence->count / MQ_PAGE_TOKENS; b < sequence->block_count; b++) {
            if (sequence->blocks[b]->holders == 1) mq__kv_state_give(engine->kv, sequence->blocks[b]);
        }
        return;
    }
    float *before = sequence->state;
    sequence->state = segment->state_after;
    sequence->state_after = before;
    sequence->kept_first = segment->first;
    sequence->kept_rows = segment->keep ? segment->rows : 0;
}

/* Rows of an entry that go into the pass. */
static void add_segment(mq_engine *engine, mq_pass *pass, mq_rows *rows, uint32_t most)
{
    mq_sequence *sequence = rows->sequence;
    const uint32_t left = rows->count - rows->done, room = most - pass->rows, some = left < room ? left : room;
    const mq_pass_rows *to = &engine->pass[pass->phase];
    memcpy(to->tokens + pass->rows, rows->tokens + rows->done, some * sizeof *rows->tokens);
    to->owner[pass->segment_count] = rows;
    mq_segment *segment = &to->segments[pass->segment_count++];
    mq__sequence_take_windows(sequence, 0, sequence->count + some);
    *segment = (mq_segment){.pages = sequence->pages,
                            .window_pages = sequence->window_pages,
                            .first = sequence->count,
                            .row = pass->rows,
                            .rows = some,
                            .cancel = &sequence->cancel};
    if (engine->state_floats) place_states(engine, rows, segment);
    pass->rows += some;
    sequence->running = some;
}

/* Fills a pass with rows of one phase and plan that have not run; false when there are none. */
static bool gather_pass(mq_engine *engine, mq_rows *rows, uint32_t count, mq_phase phase, mq_pass *pass)
{
    const uint32_t most = phase == MQ_PHASE_PREFILL ? engine->chunk : MQ_DECODE_ROWS;
    const mq_plan *plan = NULL, *draft = engine->drafting ? engine->draft : NULL;
    const bool gives_way = phase == MQ_PHASE_PREFILL && engine->interlude.call;
    *pass = (mq_pass){.phase = phase,
                      .tokens = engine->pass[phase].tokens,
                      .segments = engine->pass[phase].segments,
                      .draft_head = draft ? mq__draft_head_linear(engine->draft_head) : NULL,
                      .observer = engine->observed ? &engine->observer : NULL,
                      .interlude = gives_way ? &engine->interlude : NULL};
    for (uint32_t i = 0; i < count && pass->rows < most; i++) {
        if (rows[i].phase != phase || rows[i].done == rows[i].count) continue;
        if (cancelled(rows[i].sequence)) rows[i].status = MQ_CANCELLED;
        if (rows[i].status == MQ_CANCELLED || (plan && !draft && rows[i].sequence->plan != plan)) continue;
        if (may_be_dropped(engine, &rows[i]) && rows[i].count > most - pass->rows) continue; /* all in one pass */
        plan = draft ? draft : rows[i].sequence->plan;
        add_segment(engine, pass, &rows[i], most);
    }
    if (plan) pass->plan = plan->phase[phase];
    return plan != NULL;
}

/* ---- logits of a pass */

/* Neighbouring rows of the pass on their way through the head. */
typedef struct head_rows {
    uint32_t row, count, first;  /* first: position of the first one */
    mq_rows *of[MQ_DECODE_ROWS]; /* whose rows they are */
    float *to[MQ_DECODE_ROWS];   /* where each row's logits go; NULL: to the visitor only */
    mq_error *error;             /* of the step's first failure; NULL after that */
} head_rows;

/* Logits that are no numbers fail their own sequence only. */
static bool check_logits(head_rows *head, uint32_t i, const float *logits, size_t vocab)
{
    const mq_status status = mq__logits_check(logits, (uint32_t)vocab, head->error);
    if (status == MQ_OK) return true;
    head->error = NULL;
    head->of[i]->status = status;
    return false;
}

static void run_head(mq_engine *engine, const mq_pass *pass, head_rows *head)
{
    const size_t vocab = engine->weights->model.vocab;
    if (head->count == 0) return;
    mq__logits(engine->runtime, pass, head->row, head->count, engine->batch_logits);
    const size_t width = pass->draft_head ? pass->draft_head->n : vocab;
    bool all = true;
    for (uint32_t i = 0; i < head->count; i++) {
        const float *logits = engine->batch_logits + i * width;
        all = check_logits(head, i, logits, width) && all;
        if (pass->draft_head)
            mq__draft_head_spread(engine->draft_head, logits, head->to[i]);
        else if (head->to[i])
            memcpy(head->to[i], logits, vocab * sizeof *logits);
    }
    if (engine->visitor.visit && all) {
        engine->visitor.visit(engine->visitor.context, head->first, head->count, engine->batch_logits);
    }
    head->count = 0;
}

static void add_head_row(mq_engine *engine, const mq_pass *pass, head_rows *head, uint32_t row, uint32_t position,
                         mq_rows *of, float *to)
{
    if (head->row + head->count != row || head->count == MQ_DECODE_ROWS) run_head(engine, pass, head);
    if (head->count == 0) {
        head->row = row;
        head->first = position;
    }
    head->of[head->count] = of;
    head->to[head->count++] = to;
}

/* Those of a segment's rows whose logits are wanted: the last ones of its entry. */
static void add_head_rows(mq_engine *engine, const mq_pass *pass, head_rows *head, const mq_segment *segment,
                          mq_rows *rows)
{
    const size_t vocab = engine->weights->model.vocab;
    const bool kept = rows->phase == MQ_PHASE_DECODE || !engine->visitor.visit;
    const uint32_t from = rows->count - rows->logits;
    for (uint32_t i = 0; i < segment->rows; i++) {
        const uint32_t at = rows->done + i;
        if (at < from) continue;
        float *to = kept ? rows->sequence->logits + (at - from) * vocab : NULL;
        add_head_row(engine, pass, head, segment->row + i, segment->first + i, rows, to);
        if (kept) rows->sequence->logits_ready = at - from + 1;
    }
}

/* ---- running */

/* A sequence that was cancelled runs no more rows of this step. */
static void drop_entries(mq_rows *rows, uint32_t count, const mq_sequence *sequence)
{
    for (uint32_t i = 0; i < count; i++) {
        if (rows[i].sequence == sequence && rows[i].done < rows[i].count) rows[i].status = MQ_CANCELLED;
    }
}

void mq__engine_set_interlude(mq_engine *engine, void (*call)(void *context, uint32_t layers), void *context)
{
    engine->interlude = (mq_interlude){call, context};
}

/* Returns where the next failure's text goes: NULL after the first one. */
static mq_error *run_pass_of_step(mq_engine *engine, mq_pass *pass, mq_rows *rows, uint32_t count, mq_error *error)
{
    head_rows head = {.error = error};
    const bool reading = engine->reading;
    engine->reading = reading || pass->phase == MQ_PHASE_PREFILL;
    mq__forward(engine->runtime, pass);
    engine->reading = reading;
    if (!reading) mq__kv_states_settle(engine->kv); /* not in the middle of a prefill pass, which writes to its own */
    for (uint32_t s = 0; s < pass->segment_count; s++) {
        const mq_segment *segment = &pass->segments[s];
        mq_rows *entry = engine->pass[pass->phase].owner[s];
        mq_sequence *sequence = entry->sequence;
        sequence->running = 0;
        if (segment->rows == 0) {
            keep_state(engine, sequence, segment, true);
            drop_entries(rows, count, sequence);
            continue;
        }
        add_head_rows(engine, pass, &head, segment, entry);
        mq__sequence_append(sequence, entry->tokens + entry->done, segment->rows,
                            pass->phase == MQ_PHASE_DECODE && !engine->drafting);
        keep_state(engine, sequence, segment, false);
        entry->done += segment->rows;
        mq__sequence_leave_windows(sequence, pass->phase);
    }
    run_head(engine, pass, &head);
    if (pass->phase == MQ_PHASE_DECODE && !engine->drafting) mq__engine_stepped(engine);
    return head.error;
}

mq_status mq_engine_step(mq_engine *engine, mq_rows *rows, uint32_t count, mq_error *error)
{
    const mq_status status = check_step(engine, rows, count, error);
    if (status != MQ_OK) return status;
    mq_pass pass;
    for (int phase = 0; phase < MQ_PHASES; phase++) {
        while (gather_pass(engine, rows, count, (mq_phase)phase, &pass)) {
            error = run_pass_of_step(engine, &pass, rows, count, error);
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        mq_sequence *sequence = rows[i].sequence;
        if (rows[i].status != MQ_OK) sequence->logits_ready = 0;
        if (rows[i].status == MQ_CANCELLED) atomic_store_explicit(&sequence->cancel, false, memory_order_relaxed);
    }
    return MQ_OK;
}
