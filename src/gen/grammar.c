#include "gen/grammar.h"

#include "base/mem.h"

#include <string.h>

#define SETS_COMPARED 512 /* a set that is there among the latest is not kept twice */

void mq__grammar_free(mq_grammar *g)
{
    mq__free(g->code);
    mq__free(g->set);
    mq__free(g->rule);
    mq__free(g->need);
    *g = (mq_grammar){0};
}

/* Room for one more of `bytes` each in *block; NULL: none. */
static void *room_for_one(mq_grammar *g, void *block, size_t count, size_t *room, size_t bytes)
{
    if (count < *room) return block;
    const size_t more = *room ? 2 * *room : 64;
    void *larger = g->failed ? NULL : mq__realloc(block, more * bytes);
    if (larger)
        *room = more;
    else
        g->failed = true;
    return larger ? larger : block;
}

uint32_t mq__grammar_here(const mq_grammar *g)
{
    return (uint32_t)g->code_count;
}

uint32_t mq__grammar_emit(mq_grammar *g, mq_op op, uint32_t a, uint32_t b)
{
    g->too_big = g->too_big || g->code_count >= MQ_GRAMMAR_MOST;
    if (!g->too_big) g->code = room_for_one(g, g->code, g->code_count, &g->code_room, sizeof *g->code);
    if (g->failed || g->too_big) return 0;
    g->code[g->code_count] = (mq_instruction){op, a, b};
    return (uint32_t)g->code_count++;
}

uint32_t mq__grammar_rule(mq_grammar *g)
{
    g->rule = room_for_one(g, g->rule, g->rule_count, &g->rule_room, sizeof *g->rule);
    if (g->failed) return 0;
    g->rule[g->rule_count] = 0;
    return (uint32_t)g->rule_count++;
}

void mq__grammar_begin(mq_grammar *g, uint32_t rule)
{
    if (!g->failed) g->rule[rule] = mq__grammar_here(g);
}

void mq__grammar_end(mq_grammar *g)
{
    (void)mq__grammar_emit(g, MQ_OP_RETURN, 0, 0);
}

uint32_t mq__grammar_choice(mq_grammar *g)
{
    return mq__grammar_emit(g, MQ_OP_SPLIT, mq__grammar_here(g) + 1, 0);
}

void mq__grammar_otherwise(mq_grammar *g, uint32_t choice)
{
    if (!g->failed && !g->too_big) g->code[choice].b = mq__grammar_here(g);
}

void mq__grammar_land(mq_grammar *g, uint32_t jump)
{
    if (!g->failed && !g->too_big) g->code[jump].a = mq__grammar_here(g);
}

uint32_t mq__grammar_chain(mq_grammar *g, uint32_t chain)
{
    return mq__grammar_emit(g, MQ_OP_SPLIT, mq__grammar_here(g) + 1, chain);
}

void mq__grammar_close_chain(mq_grammar *g, uint32_t chain)
{
    while (chain != MQ_NEVER && !g->failed && !g->too_big) {
        const uint32_t before = g->code[chain].b;
        mq__grammar_otherwise(g, chain);
        chain = before;
    }
}

void mq__set_add(mq_byte_set *set, unsigned low, unsigned high)
{
    for (unsigned byte = low; byte <= high; byte++) {
        set->bits[byte / 32] |= 1u << byte % 32;
    }
}

bool mq__set_has(const mq_byte_set *set, uint8_t byte)
{
    return set->bits[byte / 32] >> byte % 32 & 1;
}

void mq__grammar_set(mq_grammar *g, const mq_byte_set *set)
{
    size_t i = g->set_count, looked = 0;
    if (memcmp(set, &(const mq_byte_set){{0}}, sizeof *set) == 0) {
        (void)mq__grammar_emit(g, MQ_OP_FAIL, 0, 0);
        return;
    }
    while (i > 0 && looked < SETS_COMPARED && memcmp(&g->set[i - 1], set, sizeof *set) != 0) {
        i--;
        looked++;
    }
    if (i == 0 || looked == SETS_COMPARED) {
        g->set = room_for_one(g, g->set, g->set_count, &g->set_room, sizeof *g->set);
        if (g->failed) return;
        g->set[g->set_count++] = *set;
        i = g->set_count;
    }
    (void)mq__grammar_emit(g, MQ_OP_SET, (uint32_t)i - 1, 0);
}

void mq__grammar_byte(mq_grammar *g, uint8_t low, uint8_t high)
{
    mq_byte_set set = {{0}};
    mq__set_add(&set, low, high);
    mq__grammar_set(g, &set);
}

void mq__grammar_text(mq_grammar *g, const char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        mq__grammar_byte(g, (uint8_t)bytes[i], (uint8_t)bytes[i]);
    }
}

/* ---- text up to an end, as Knuth, Morris and Pratt search it */

/* How much of `end` is there after `matched` of its bytes and another one. */
static size_t matched_after(const char *end, size_t matched, uint8_t byte)
{
    for (size_t keep = matched + 1; keep > 0; keep--) {
        if ((uint8_t)end[keep - 1] == byte && memcmp(end, end + matched + 1 - keep, keep - 1) == 0) return keep;
    }
    return 0;
}

void mq__grammar_until(mq_grammar *g, const char *end, size_t count)
{
    /* State m: m bytes of the end are there. Each is a chain of choices, one for each state that some byte leads to; bytes that are
     * no text (controls but tab and line ends, what UTF-8 never has) lead nowhere. Jumps are filled in when all states stand. */
    uint32_t *state = mq__alloc_zero(count + 1, sizeof *state);
    if (!state) {
        g->failed = true;
        return;
    }
    const uint32_t first = mq__grammar_here(g);
    for (size_t m = 0; m < count; m++) {
        state[m] = mq__grammar_here(g);
        for (size_t to = 0; to <= m + 1; to++) {
            mq_byte_set set = {{0}};
            bool any = false;
            for (unsigned byte = 0; byte < 256; byte++) {
                const bool is_text = byte >= 0x20 ? byte != 0x7f && byte != 0xc0 && byte != 0xc1 && byte < 0xf5
                                                  : byte == '\n' || byte == '\t' || byte == '\r';
                if ((!is_text && byte != (uint8_t)end[m]) || matched_after(end, m, (uint8_t)byte) != to) continue;
                mq__set_add(&set, byte, byte);
                any = true;
            }
            if (!any) continue;
            const uint32_t split = mq__grammar_emit(g, MQ_OP_SPLIT, 0, 0);
            mq__grammar_set(g, &set);
            (void)mq__grammar_emit(g, MQ_OP_JUMP, (uint32_t)to, UINT32_MAX); /* a state, until they are filled in */
            if (g->failed || g->too_big) break;
            g->code[split].a = split + 1;
            g->code[split].b = mq__grammar_here(g);
        }
        (void)mq__grammar_emit(g, MQ_OP_FAIL, 0, 0);
    }
    state[count] = mq__grammar_here(g);
    for (size_t i = first; !g->failed && !g->too_big && i < g->code_count; i++) {
        if (g->code[i].op != MQ_OP_JUMP || g->code[i].b != UINT32_MAX) continue;
        g->code[i] = (mq_instruction){MQ_OP_JUMP, state[g->code[i].a], 0};
    }
    mq__free(state);
}

/* ---- what leads to an end */

/* What an instruction leads to: 0, 1 or 2 places; a call leads on only if its rule ends, too. */
static size_t places_after(const mq_grammar *g, uint32_t at, uint32_t after[2])
{
    const mq_instruction *i = &g->code[at];
    after[0] = i->op == MQ_OP_SPLIT || i->op == MQ_OP_JUMP ? i->a : at + 1;
    after[1] = i->op == MQ_OP_SPLIT ? i->b : i->op == MQ_OP_CALL ? g->rule[i->a] : 0;
    return i->op == MQ_OP_RETURN || i->op == MQ_OP_FAIL ? 0 : i->op == MQ_OP_SPLIT || i->op == MQ_OP_CALL ? 2 : 1;
}

typedef struct end_search {
    uint32_t *first, *before; /* before[first[at]] up to before[first[at + 1]]: the places that lead to `at` */
    uint32_t *queue, *late;   /* places from where an end is reached; calls of rules that were found to end */
    uint8_t *missing;         /* what must be found before a place leads to an end */
    size_t queued, late_count;
} end_search;

static bool begin_end_search(const mq_grammar *g, end_search *e)
{
    const size_t count = g->code_count;
    uint32_t after[2];
    e->first = mq__alloc_zero(count + 3, sizeof *e->first);
    e->before = mq__alloc_zero(2 * count + 1, sizeof *e->before);
    e->queue = mq__alloc_zero(count + 1, sizeof *e->queue);
    e->late = mq__alloc_zero(count + 1, sizeof *e->late);
    e->missing = mq__alloc_zero(count + 1, 1);
    if (!e->first || !e->before || !e->queue || !e->late || !e->missing) return false;
    for (uint32_t at = 0; at < count; at++) {
        const mq_op op = g->code[at].op;
        for (size_t n = places_after(g, at, after); n-- > 0;) {
            e->first[after[n] + 2]++;
        }
        e->missing[at] = op == MQ_OP_RETURN ? 0 : op == MQ_OP_CALL ? 2 : 1;
        if (op == MQ_OP_RETURN) e->queue[e->queued++] = at;
    }
    for (size_t at = 0; at < count; at++) {
        e->first[at + 2] += e->first[at + 1];
    }
    for (uint32_t at = 0; at < count; at++) { /* first[to + 1] goes from the list's beginning to its end */
        for (size_t n = places_after(g, at, after); n-- > 0;) {
            e->before[e->first[after[n] + 1]++] = at;
        }
    }
    return true;
}

/* `at` leads to an end with `level` rules waiting: what of the places before it? */
static void note_end(mq_grammar *g, end_search *e, uint32_t at, uint32_t level)
{
    g->need[at] = level;
    for (uint32_t i = e->first[at]; i < e->first[at + 1]; i++) {
        const uint32_t from = e->before[i];
        const mq_instruction *in = &g->code[from];
        if (e->missing[from] == 0) continue;
        if (in->op == MQ_OP_CALL && g->rule[in->a] == at)
            e->late[e->late_count++] = from;
        else if (--e->missing[from] == 0)
            e->queue[e->queued++] = from;
    }
}

bool mq__grammar_finish(mq_grammar *g)
{
    const size_t count = g->code_count;
    end_search e = {0};
    g->need = mq__alloc(count * sizeof *g->need);
    g->failed = g->failed || !begin_end_search(g, &e) || !g->need;
    if (!g->failed) memset(g->need, 0xff, count * sizeof *g->need);
    size_t done = 0;
    for (uint32_t level = 0; !g->failed && done < e.queued; level++) {
        for (; done < e.queued; done++) {
            note_end(g, &e, e.queue[done], level);
        }
        for (size_t i = 0; i < e.late_count; i++) {
            if (--e.missing[e.late[i]] == 0) e.queue[e.queued++] = e.late[i];
        }
        e.late_count = 0;
    }
    mq__free(e.first);
    mq__free(e.before);
    mq__free(e.queue);
    mq__free(e.late);
    mq__free(e.missing);
    return !g->failed && g->need[g->rule[0]] != MQ_NEVER;
}
