/* The window parts of a sequence's blocks. It watches those that its next rows see; where there is none, window_pages is NULL. */
#include "engine/engine.h"

#include <assert.h>

static bool has_windows(const mq_sequence *sequence)
{
    return sequence->engine->kv_layout.window > 0;
}

static void leave_window(mq_sequence *sequence, uint32_t at, bool again)
{
    if (!sequence->window_pages[at]) return;
    mq__kv_window_leave(sequence->engine->kv, sequence->blocks[at], again);
    sequence->window_pages[at] = NULL;
}

/* The first block that the row behind `count` tokens sees, also after a draft round was taken back. */
static uint32_t first_seen(const mq_sequence *sequence, uint32_t count)
{
    return mq__kv_window_from(&sequence->engine->kv_layout, count < MQ_DECODE_ROWS ? 0 : count - MQ_DECODE_ROWS);
}

void mq__sequence_watch_windows(mq_sequence *sequence)
{
    if (!has_windows(sequence)) return;
    const uint32_t from = first_seen(sequence, sequence->count), end = mq__blocks_for(sequence->count);
    for (uint32_t at = from; at < end; at++) {
        if (sequence->window_pages[at] || !sequence->blocks[at]->window) continue;
        mq__kv_window_watch(sequence->engine->kv, sequence->blocks[at]);
        sequence->window_pages[at] = sequence->blocks[at]->window;
    }
    for (uint32_t at = sequence->window_from; at < sequence->window_end; at++) {
        if (at < from || at >= end) leave_window(sequence, at, true);
    }
    sequence->window_from = from;
    sequence->window_end = end;
}

/* Whether somebody may well begin behind a block that is left: where others have begun already, and at the end of a prompt, which the
 * next one may share without the answer. */
static bool begins_again(const mq_sequence *sequence, uint32_t at, mq_phase phase)
{
    if (phase == MQ_PHASE_DECODE) return sequence->blocks[at]->precise != UINT64_MAX;
    return at < sequence->landmark / MQ_PAGE_TOKENS &&
           at >= mq__kv_window_from(&sequence->engine->kv_layout, sequence->landmark);
}

void mq__sequence_leave_windows(mq_sequence *sequence, mq_phase phase)
{
    if (!has_windows(sequence)) return;
    const uint32_t from = first_seen(sequence, sequence->count);
    for (; sequence->window_from < from && sequence->window_from < sequence->window_end; sequence->window_from++) {
        leave_window(sequence, sequence->window_from, begins_again(sequence, sequence->window_from, phase));
    }
}

/* ---- taking */

static uint32_t watched_parts(const mq_sequence *sequence)
{
    uint32_t parts = 0;
    for (uint32_t at = sequence->window_from; at < sequence->window_end; at++) {
        parts += sequence->window_pages[at] != NULL;
    }
    return parts;
}

uint32_t mq__sequence_windows_missing(const mq_sequence *sequence, uint32_t count)
{
    const uint32_t most = sequence->engine->windows_per_sequence, end = mq__blocks_for(count);
    if (!most || count <= sequence->count) return 0;
    const uint32_t more = end > sequence->window_end ? end - sequence->window_end : 0,
                   watched = watched_parts(sequence);
    const uint32_t room = most > watched ? most - watched : 0; /* further passes leave as many as they take */
    return (more < room ? more : room) + (mq__sequence_shares_last(sequence) ? 1 : 0);
}

bool mq__sequence_windows_suffice(const mq_sequence *sequence, uint32_t keep, uint32_t count, bool copies)
{
    if (!has_windows(sequence)) return true;
    const uint32_t from = first_seen(sequence, keep), kept = mq__blocks_for(keep);
    uint32_t needed = mq__blocks_for(count) - from, room = mq__kv_windows_available(sequence->engine->kv);
    if (needed > sequence->engine->windows_per_sequence) needed = sequence->engine->windows_per_sequence;
    needed += copies;
    for (uint32_t at = 0; at < sequence->block_count; at++) {
        const bool own = sequence->window_pages[at] != NULL, others = sequence->blocks[at]->watchers > own;
        if (own && !others) room++;                    /* it stays, or becomes free */
        if (others && at >= from && at < kept) room++; /* it is there already */
    }
    return needed <= room;
}

void mq__sequence_take_windows(mq_sequence *sequence, uint32_t from, uint32_t count)
{
    const uint32_t end = mq__blocks_for(count);
    if (!has_windows(sequence) || end <= sequence->window_end) return;
    for (uint32_t at = from > sequence->window_end ? from : sequence->window_end; at < end; at++) {
        const bool taken = mq__kv_window_take(sequence->engine->kv, sequence->blocks[at]);
        assert(taken);
        (void)taken;
        sequence->window_pages[at] = sequence->blocks[at]->window;
    }
    sequence->window_end = end;
}

void mq__sequence_take_window_of(mq_sequence *sequence, uint32_t at, mq_kv_block *own)
{
    if (!sequence->window_pages[at]) return;
    const bool taken = mq__kv_window_take(sequence->engine->kv, own);
    assert(taken);
    (void)taken;
    leave_window(sequence, at, true);
    sequence->window_pages[at] = own->window;
}
