/* A regular expression as the code of a JSON string. Characters stand as JSON has them: what must be escaped is, nothing else is. */
#include "gen/schema_pattern.h"

#include <string.h>

#define PATTERN_MOST 32768 /* steps of one pattern, with all its repetitions */

typedef struct pattern_code {
    mq_pattern *p;
    mq_schemas *s;
    mq_grammar *g;
    uint32_t start; /* where it begins */
    size_t work;
} pattern_code;

/* ---- classes */

/* Characters from `low` to `high`, all with as many bytes in UTF-8, as ways of bytes; each ends the rule. */
static void emit_same_length(mq_grammar *g, uint32_t low, uint32_t high, int more)
{
    for (int i = 1; i <= more; i++) {
        const uint32_t mask = (1u << 6 * i) - 1;
        if ((low & ~mask) == (high & ~mask)) break;
        if (low & mask) {
            emit_same_length(g, low, low | mask, more);
            emit_same_length(g, (low | mask) + 1, high, more);
            return;
        }
        if ((high & mask) != mask) {
            emit_same_length(g, low, (high & ~mask) - 1, more);
            emit_same_length(g, high & ~mask, high, more);
            return;
        }
    }
    static const uint8_t marks[] = {0, 0xc0, 0xe0, 0xf0};
    const uint32_t way = mq__grammar_choice(g);
    for (int i = more; i >= 0; i--) {
        const uint8_t mark = i == more ? marks[more] : 0x80, bits = i == more ? 0xff : 0x3f;
        mq__grammar_byte(g, mark | (uint8_t)(low >> 6 * i & bits), mark | (uint8_t)(high >> 6 * i & bits));
    }
    mq__grammar_end(g);
    mq__grammar_otherwise(g, way);
}

static void emit_beyond_ascii(mq_grammar *g, mq_code_range range)
{
    static const struct {
        uint32_t low, high;
        int more;
    } lengths[] = {{0x80, 0x7ff, 1}, {0x800, 0xd7ff, 2}, {0xe000, 0xffff, 2}, {0x10000, 0x10ffff, 3}};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        const uint32_t low = range.low > lengths[i].low ? range.low : lengths[i].low;
        const uint32_t high = range.high < lengths[i].high ? range.high : lengths[i].high;
        if (low <= high) emit_same_length(g, low, high, lengths[i].more);
    }
}

typedef struct class_bytes {
    mq_byte_set plain;  /* stands as it is */
    mq_byte_set letter; /* \n and the like: what follows the \ */
    mq_byte_set hex[2]; /* the last digit of \u000X, \u001X */
    bool escapes, hexes[2], beyond;
} class_bytes;

static void sort_character(class_bytes *c, uint32_t code)
{
    static const char escaped[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    const char *found = code ? strchr(escaped, (int)code) : NULL;
    if (found) {
        const uint8_t letter = (uint8_t)letters[found - escaped];
        mq__set_add(&c->letter, letter, letter);
        c->escapes = true;
    } else if (code < 0x20) {
        const uint8_t digit = (uint8_t) "0123456789abcdef"[code % 16];
        mq__set_add(&c->hex[code / 16], digit, digit);
        if (digit > '9') mq__set_add(&c->hex[code / 16], digit - 32u, digit - 32u);
        c->hexes[code / 16] = true;
    } else {
        mq__set_add(&c->plain, code, code);
    }
}

static class_bytes bytes_of_class(const mq_pattern *p, const mq_class *class_)
{
    class_bytes c = {0};
    for (uint32_t i = 0; i < class_->count; i++) {
        const mq_code_range range = p->range[class_->first + i];
        for (uint32_t code = range.low; code <= range.high && code < 0x80; code++) {
            sort_character(&c, code);
        }
        c.beyond = c.beyond || range.high >= 0x80;
    }
    return c;
}

static void emit_class(pattern_code *e, uint32_t index)
{
    mq_class *class_ = &e->p->class_[index];
    const class_bytes c = bytes_of_class(e->p, class_);
    if (class_->count == 0) {
        (void)mq__grammar_emit(e->g, MQ_OP_FAIL, 0, 0);
    } else if (!c.escapes && !c.hexes[0] && !c.hexes[1] && !c.beyond) {
        mq__grammar_set(e->g, &c.plain);
    } else {
        if (class_->rule == MQ_NEVER) class_->rule = mq__grammar_rule(e->g);
        mq__schemas_call(e->s, class_->rule);
    }
}

void mq__pattern_emit_classes(mq_pattern *p, mq_schemas *s)
{
    mq_grammar *g = s->g;
    for (size_t i = 0; i < p->class_count && !g->failed && !g->too_big; i++) {
        if (p->class_[i].rule == MQ_NEVER) continue;
        const class_bytes c = bytes_of_class(p, &p->class_[i]);
        mq__grammar_begin(g, p->class_[i].rule);
        const uint32_t plain = mq__grammar_choice(g);
        mq__grammar_set(g, &c.plain);
        mq__grammar_end(g);
        mq__grammar_otherwise(g, plain);
        const uint32_t letter = mq__grammar_choice(g);
        mq__grammar_byte(g, '\\', '\\');
        mq__grammar_set(g, &c.letter);
        mq__grammar_end(g);
        mq__grammar_otherwise(g, letter);
        for (int high = 0; high < 2; high++) {
            const uint32_t hex = mq__grammar_choice(g);
            mq__grammar_text(g, high ? "\\u001" : "\\u000", 5);
            mq__grammar_set(g, &c.hex[high]);
            mq__grammar_end(g);
            mq__grammar_otherwise(g, hex);
        }
        for (uint32_t r = 0; r < p->class_[i].count; r++) {
            emit_beyond_ascii(g, p->range[p->class_[i].first + r]);
        }
        (void)mq__grammar_emit(g, MQ_OP_FAIL, 0, 0);
    }
}

/* ---- pieces */

static void emit_piece(pattern_code *e, uint32_t piece);

static void emit_parts(pattern_code *e, uint32_t part)
{
    for (; part && !e->p->fault; part = e->p->piece[part].next) {
        emit_piece(e, part);
    }
}

static void emit_ways(pattern_code *e, uint32_t any, void (*emit_way)(pattern_code *e, uint32_t list))
{
    uint32_t chain = MQ_NEVER; /* of the jumps to the end, each to the one before until all are known */
    for (uint32_t list = e->p->piece[any].first; list && !e->p->fault; list = e->p->piece[list].next) {
        const bool last = !e->p->piece[list].next;
        const uint32_t way = last ? 0 : mq__grammar_choice(e->g);
        emit_way(e, list);
        if (last) break;
        chain = mq__grammar_emit(e->g, MQ_OP_JUMP, chain, 0);
        mq__grammar_otherwise(e->g, way);
    }
    while (chain != MQ_NEVER && !e->g->failed && !e->g->too_big) {
        const uint32_t before = e->g->code[chain].a;
        mq__grammar_land(e->g, chain);
        chain = before;
    }
}

static void emit_repeat(pattern_code *e, const mq_piece *repeat)
{
    uint32_t chain = MQ_NEVER, n = 0; /* of choices, each with the one before until all are known */
    for (; n < repeat->least && !e->p->fault; n++) {
        emit_piece(e, repeat->first);
    }
    if (repeat->most == MQ_ENDLESS) {
        const uint32_t again = mq__grammar_choice(e->g);
        emit_piece(e, repeat->first);
        (void)mq__grammar_emit(e->g, MQ_OP_JUMP, again, 0);
        mq__grammar_otherwise(e->g, again);
        return;
    }
    for (; n < repeat->most && !e->p->fault; n++) {
        chain = mq__grammar_chain(e->g, chain);
        emit_piece(e, repeat->first);
    }
    mq__grammar_close_chain(e->g, chain);
}

static void emit_inner_list(pattern_code *e, uint32_t list)
{
    emit_parts(e, e->p->piece[list].first);
}

static void emit_piece(pattern_code *e, uint32_t piece)
{
    const mq_piece *here = &e->p->piece[piece];
    if (++e->work > 4 * (size_t)PATTERN_MOST || e->g->code_count - e->start > PATTERN_MOST) e->p->fault = "too large";
    if (e->p->fault || e->g->failed || e->g->too_big) return;
    switch (here->kind) {
    case MQ_PIECE_CLASS:
        emit_class(e, here->first);
        break;
    case MQ_PIECE_LIST:
        emit_inner_list(e, piece);
        break;
    case MQ_PIECE_ANY:
        emit_ways(e, piece, emit_inner_list);
        break;
    case MQ_PIECE_REPEAT:
        emit_repeat(e, here);
        break;
    case MQ_PIECE_START:
    case MQ_PIECE_END:
        e->p->fault = "an anchor in the middle";
    }
}

/* An alternative of the whole: it may be tied to the ends, and so may those of a group that is all of it. */
static void emit_whole(pattern_code *e, uint32_t list)
{
    const mq_piece *piece = e->p->piece;
    uint32_t part = piece[list].first;
    if (part && !piece[part].next && piece[part].kind == MQ_PIECE_ANY) {
        emit_ways(e, part, emit_whole);
        return;
    }
    if (part && piece[part].kind == MQ_PIECE_START)
        part = piece[part].next;
    else
        mq__schemas_characters(e->s); /* it is not tied to the beginning */
    for (; part && !e->p->fault && (piece[part].next || piece[part].kind != MQ_PIECE_END); part = piece[part].next) {
        emit_piece(e, part);
    }
    if (!part) mq__schemas_characters(e->s); /* nor to the end */
}

bool mq__pattern_emit(mq_pattern *p, mq_schemas *s)
{
    pattern_code e = {.p = p, .s = s, .g = s->g, .start = mq__grammar_here(s->g)};
    if (p->failed) s->g->failed = true;
    if (!p->fault) {
        mq__grammar_byte(s->g, '"', '"');
        emit_ways(&e, p->top, emit_whole);
        mq__grammar_byte(s->g, '"', '"');
        mq__grammar_end(s->g);
    }
    if (!mq__schema_work(s, e.work + p->count) || !p->fault) return true;
    s->g->code_count = e.start;
    for (size_t i = 0; i < p->class_count; i++) {
        p->class_[i].rule = MQ_NEVER; /* these stay behind, empty, and nobody calls them */
    }
    return false;
}
