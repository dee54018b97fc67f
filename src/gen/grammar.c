#include "gen/grammar.h"

#include "base/mem.h"

#include <string.h>

void mq__grammar_free(mq_grammar *g)
{
    mq__free(g->code);
    mq__free(g->set);
    mq__free(g->rule);
    mq__free(g->productive);
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
    size_t i = 0;
    while (i < g->set_count && memcmp(&g->set[i], set, sizeof *set) != 0) {
        i++;
    }
    if (i == g->set_count) {
        g->set = room_for_one(g, g->set, g->set_count, &g->set_room, sizeof *g->set);
        if (g->failed) return;
        g->set[g->set_count++] = *set;
    }
    (void)mq__grammar_emit(g, MQ_OP_SET, (uint32_t)i, 0);
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

/* ---- which rules can end */

/* Whether a rule's end can be reached if the rules that are known to end do. `seen` holds the round in which a place was seen last. */
static bool reaches_end(const mq_grammar *g, uint32_t rule, uint32_t round, uint32_t *seen, uint32_t *stack)
{
    size_t count = 0;
    stack[count++] = g->rule[rule];
    while (count > 0) {
        const uint32_t at = stack[--count];
        if (seen[at] == round) continue;
        seen[at] = round;
        const mq_instruction *i = &g->code[at];
        if (i->op == MQ_OP_RETURN) return true;
        if (i->op == MQ_OP_SPLIT) stack[count++] = i->b;
        if (i->op == MQ_OP_SPLIT || i->op == MQ_OP_JUMP) stack[count++] = i->a;
        if (i->op == MQ_OP_SET || (i->op == MQ_OP_CALL && g->productive[i->a])) stack[count++] = at + 1;
    }
    return false;
}

bool mq__grammar_finish(mq_grammar *g)
{
    uint32_t *seen = mq__alloc_zero(g->code_count + 1, sizeof *seen), round = 0;
    uint32_t *stack = mq__alloc_zero(2 * g->code_count + 2, sizeof *stack);
    g->productive = mq__alloc_zero(g->rule_count, sizeof *g->productive);
    g->failed = g->failed || !seen || !stack || !g->productive;
    for (bool changed = true; changed && !g->failed;) {
        changed = false;
        for (size_t r = g->rule_count; r-- > 0;) {
            if (g->productive[r] || !reaches_end(g, (uint32_t)r, ++round, seen, stack)) continue;
            g->productive[r] = changed = true;
        }
    }
    mq__free(seen);
    mq__free(stack);
    return !g->failed && g->productive[0];
}
