/* A regular expression, taken apart. */
#include "base/ascii.h"
#include "base/mem.h"
#include "gen/schema_pattern.h"

#include <stdlib.h>
#include <string.h>

#define PATTERN_BYTES    65536
#define GROUPS_MOST      64 /* within each other */
#define REPEATS_MOST     32768
#define CLASSES_COMPARED 64
#define CODE_MOST        0x10ffffu

static const char not_one[] = "not a regular expression", too_large[] = "too large";

static uint32_t fail_pattern(mq_pattern *p, const char *fault)
{
    if (!p->fault) p->fault = fault;
    p->at = p->end;
    return 0;
}

static bool room_for_more(mq_pattern *p, void **block, size_t count, size_t *room, size_t bytes)
{
    if (count < *room) return true;
    const size_t more = *room ? 2 * *room : 16;
    void *larger = mq__realloc(*block, more * bytes);
    if (!larger) {
        p->failed = true;
        (void)fail_pattern(p, "no memory");
        return false;
    }
    *block = larger;
    *room = more;
    return true;
}

static uint32_t add_pattern_piece(mq_pattern *p, mq_piece piece)
{
    if (!room_for_more(p, (void **)&p->piece, p->count, &p->room, sizeof *p->piece)) return 0;
    p->piece[p->count] = piece;
    return (uint32_t)p->count++;
}

/* ---- classes */

static void add_range(mq_pattern *p, uint32_t low, uint32_t high)
{
    if (!room_for_more(p, (void **)&p->range, p->range_count, &p->range_room, sizeof *p->range)) return;
    p->range[p->range_count++] = (mq_code_range){low, high};
}

static int compare_ranges(const void *a, const void *b)
{
    const mq_code_range *x = a, *y = b;
    return x->low < y->low ? -1 : x->low > y->low;
}

/* The ranges from `first` on become sorted, with gaps between them. */
static void merge_ranges(mq_pattern *p, size_t first)
{
    size_t kept = first;
    if (p->range_count - first > 1) qsort(p->range + first, p->range_count - first, sizeof *p->range, compare_ranges);
    for (size_t i = first; i < p->range_count; i++) {
        mq_code_range *last = kept > first ? &p->range[kept - 1] : NULL;
        if (last && p->range[i].low <= last->high + 1) {
            if (p->range[i].high > last->high) last->high = p->range[i].high;
        } else {
            p->range[kept++] = p->range[i];
        }
    }
    p->range_count = kept;
}

/* Those that they are not. */
static void invert_ranges(mq_pattern *p, size_t first)
{
    merge_ranges(p, first);
    const size_t count = p->range_count;
    uint32_t low = 0;
    for (size_t i = first; i < count && !p->failed; i++) {
        const mq_code_range range = p->range[i];
        if (range.low > low) add_range(p, low, range.low - 1);
        low = range.high + 1;
    }
    if (low <= CODE_MOST) add_range(p, low, CODE_MOST);
    if (p->failed) return;
    memmove(p->range + first, p->range + count, (p->range_count - count) * sizeof *p->range);
    p->range_count -= count - first;
}

/* \d, \w, \s; a capital: all others. White space is that of ASCII where it is asked for and all of it where it is not: what is made
 * matches with every reading of \s. */
static void add_set(mq_pattern *p, char letter, bool inverted)
{
    static const mq_code_range blanks[] = {{'\t', '\r'},     {' ', ' '},       {0xa0, 0xa0},     {0x1680, 0x1680},
                                           {0x180e, 0x180e}, {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f},
                                           {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}, {0x85, 0x85}};
    const bool others = letter < 'a';
    const size_t first = p->range_count;
    if ((letter | 32) == 's') {
        const size_t count = others != inverted ? sizeof blanks / sizeof *blanks : 2;
        for (size_t i = 0; i < count; i++) {
            add_range(p, blanks[i].low, blanks[i].high);
        }
    } else {
        add_range(p, '0', '9');
        if ((letter | 32) == 'w') {
            add_range(p, 'A', 'Z');
            add_range(p, '_', '_');
            add_range(p, 'a', 'z');
        }
    }
    if (others) invert_ranges(p, first);
}

/* A piece of the ranges from `first` on. */
static uint32_t class_piece(mq_pattern *p, size_t first)
{
    merge_ranges(p, first);
    const size_t count = p->range_count - first;
    for (size_t i = p->class_count; i-- > 0 && p->class_count - i <= CLASSES_COMPARED;) {
        const mq_class *known = &p->class_[i];
        if (known->count != count || memcmp(p->range + known->first, p->range + first, count * sizeof *p->range) != 0)
            continue;
        p->range_count = first;
        return add_pattern_piece(p, (mq_piece){.kind = MQ_PIECE_CLASS, .first = (uint32_t)i});
    }
    if (!room_for_more(p, (void **)&p->class_, p->class_count, &p->class_room, sizeof *p->class_)) return 0;
    p->class_[p->class_count] = (mq_class){(uint32_t)first, (uint32_t)count, MQ_NEVER};
    return add_pattern_piece(p, (mq_piece){.kind = MQ_PIECE_CLASS, .first = (uint32_t)p->class_count++});
}

/* ---- characters */

/* A character of the pattern, which is UTF-8. */
static uint32_t take_code(mq_pattern *p)
{
    const uint8_t first = (uint8_t)*p->at++;
    if (first < 0x80) return first;
    const int more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
    uint32_t code = first & (0x3fu >> more);
    for (int i = 0; i < more && p->at < p->end; i++) {
        code = code << 6 | (*p->at++ & 0x3f);
    }
    return code;
}

/* Hexadecimal digits; MQ_NEVER: there are others. */
static uint32_t take_hex(mq_pattern *p, int count)
{
    uint32_t code = 0;
    for (int i = 0; i < count; i++) {
        const int digit = p->at < p->end ? mq__hex_value(*p->at) : -1;
        if (digit < 0) return MQ_NEVER;
        code = code << 4 | (uint32_t)digit;
        p->at++;
    }
    return code;
}

/* What follows \u: XXXX, a pair of surrogates, or {X...}. */
static uint32_t take_unicode(mq_pattern *p)
{
    if (p->at < p->end && *p->at == '{') {
        const char *close = memchr(p->at, '}', (size_t)(p->end - p->at));
        if (!close || close - p->at > 7 || close - p->at < 2) return MQ_NEVER;
        p->at++;
        const uint32_t code = take_hex(p, (int)(close - p->at));
        p->at = close + 1;
        return code;
    }
    const uint32_t code = take_hex(p, 4);
    if (code < 0xd800 || code > 0xdbff || p->end - p->at < 6 || p->at[0] != '\\' || p->at[1] != 'u') return code;
    p->at += 2;
    const uint32_t low = take_hex(p, 4);
    return low >= 0xdc00 && low <= 0xdfff ? 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00) : MQ_NEVER;
}

/* An escape that is one character; \ and the letter are taken. */
static uint32_t take_pattern_escape(mq_pattern *p, char letter)
{
    static const char letters[] = "tnvfr0", codes[] = "\t\n\v\f\r";
    const char *known = letter ? strchr(letters, letter) : NULL;
    if (known && letter == '0' && p->at < p->end && *p->at >= '0' && *p->at <= '9') return MQ_NEVER;
    if (known) return (uint8_t)codes[known - letters];
    const uint32_t code = letter == 'u' ? take_unicode(p) : letter == 'x' ? take_hex(p, 2) : MQ_NEVER;
    if (letter == 'u' || letter == 'x') return code > CODE_MOST || (code >= 0xd800 && code <= 0xdfff) ? MQ_NEVER : code;
    p->at--;
    return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') || (letter >= '0' && letter <= '9')
               ? MQ_NEVER
               : take_code(p);
}

static bool is_set_letter(char letter)
{
    return letter && strchr("dDwWsS", letter);
}

/* A member of [...]: a character, or a whole set (MQ_NEVER, it is added). */
static uint32_t take_member(mq_pattern *p, bool inverted)
{
    if (*p->at != '\\') return take_code(p);
    if (p->end - p->at < 2) {
        (void)fail_pattern(p, not_one);
        return MQ_NEVER;
    }
    const char letter = p->at[1];
    p->at += 2;
    if (is_set_letter(letter)) {
        add_set(p, letter, inverted);
        return MQ_NEVER;
    }
    const uint32_t code = letter == 'b' ? '\b' : take_pattern_escape(p, letter);
    if (code == MQ_NEVER) (void)fail_pattern(p, "an escape of another kind");
    return code;
}

static uint32_t read_class(mq_pattern *p)
{
    const size_t first = p->range_count;
    const bool inverted = p->at < p->end && *p->at == '^';
    p->at += inverted;
    while (p->at < p->end && *p->at != ']') {
        const uint32_t low = take_member(p, inverted);
        uint32_t high = low;
        if (p->end - p->at >= 2 && p->at[0] == '-' && p->at[1] != ']' && low != MQ_NEVER) {
            p->at++;
            high = take_member(p, inverted);
            if (high == MQ_NEVER) { /* [a-\d]: a, -, and the digits */
                add_range(p, '-', '-');
                high = low;
            } else if (high < low) {
                (void)fail_pattern(p, not_one);
            }
        }
        if (low != MQ_NEVER) add_range(p, low, high);
    }
    if (p->at == p->end) return fail_pattern(p, not_one);
    p->at++;
    if (inverted) invert_ranges(p, first);
    return class_piece(p, first);
}

/* ---- pieces */

static uint32_t read_alternatives(mq_pattern *p);

static uint32_t read_pattern_group(mq_pattern *p)
{
    if (p->end - p->at >= 2 && p->at[0] == '?') {
        const bool named = p->at[1] == '<' && p->end - p->at > 2 && p->at[2] != '=' && p->at[2] != '!';
        const char *name_end = named ? memchr(p->at, '>', (size_t)(p->end - p->at)) : NULL;
        if (!name_end && p->at[1] != ':') return fail_pattern(p, strchr("=!<", p->at[1]) ? "a look around" : not_one);
        p->at = name_end ? name_end + 1 : p->at + 2;
    }
    if (++p->depth > GROUPS_MOST) return fail_pattern(p, too_large);
    const uint32_t inner = read_alternatives(p);
    p->depth--;
    if (p->at == p->end) return fail_pattern(p, not_one);
    p->at++;
    return inner;
}

static uint32_t read_escape(mq_pattern *p)
{
    if (p->at == p->end) return fail_pattern(p, not_one);
    const size_t first = p->range_count;
    const char letter = *p->at++;
    if (is_set_letter(letter)) {
        add_set(p, letter, false);
        return class_piece(p, first);
    }
    if (letter == 'b' || letter == 'B') return fail_pattern(p, "a word boundary");
    if ((letter >= '1' && letter <= '9') || letter == 'k') return fail_pattern(p, "a back reference");
    const uint32_t code = take_pattern_escape(p, letter);
    if (code == MQ_NEVER) return fail_pattern(p, "an escape of another kind");
    add_range(p, code, code);
    return class_piece(p, first);
}

static uint32_t read_atom(mq_pattern *p)
{
    const size_t first = p->range_count;
    switch (*p->at++) {
    case '^':
        return add_pattern_piece(p, (mq_piece){.kind = MQ_PIECE_START});
    case '$':
        return add_pattern_piece(p, (mq_piece){.kind = MQ_PIECE_END});
    case '(':
        return read_pattern_group(p);
    case '[':
        return read_class(p);
    case '\\':
        return read_escape(p);
    case '*':
    case '+':
    case '?':
        return fail_pattern(p, not_one);
    case '.':
        add_range(p, '\n', '\n');
        add_range(p, '\r', '\r');
        add_range(p, 0x2028, 0x2029);
        invert_ranges(p, first);
        return class_piece(p, first);
    default:
        p->at--;
        const uint32_t code = take_code(p);
        add_range(p, code, code);
        return class_piece(p, first);
    }
}

/* A count within braces; MQ_NEVER: none is here. */
static uint32_t take_count(const char **at, const char *end)
{
    uint32_t count = 0;
    const char *first = *at;
    for (; *at < end && **at >= '0' && **at <= '9'; ++*at) {
        if (count <= REPEATS_MOST) count = 10 * count + (uint32_t)(**at - '0');
    }
    return *at > first ? count : MQ_NEVER;
}

/* {m}, {m,} or {m,n}; false: a brace that is itself. */
static bool take_braces(mq_pattern *p, uint32_t *least, uint32_t *most)
{
    const char *at = p->at + 1;
    *least = *most = take_count(&at, p->end);
    if (*least == MQ_NEVER) return false;
    if (at < p->end && *at == ',') {
        at++;
        *most = take_count(&at, p->end); /* none: MQ_ENDLESS, which is the same */
    }
    if (at == p->end || *at != '}') return false;
    p->at = at + 1;
    if (*least > REPEATS_MOST || (*most > REPEATS_MOST && *most != MQ_ENDLESS)) (void)fail_pattern(p, too_large);
    if (*most < *least) (void)fail_pattern(p, not_one);
    return true;
}

static uint32_t read_repeated(mq_pattern *p)
{
    const uint32_t atom = read_atom(p);
    uint32_t least = 0, most = MQ_ENDLESS;
    if (p->at == p->end || !*p->at || !strchr("*+?{", *p->at)) return atom;
    if (*p->at == '{') {
        if (!take_braces(p, &least, &most)) return atom;
    } else {
        least = *p->at == '+';
        most = *p->at++ == '?' ? 1 : MQ_ENDLESS;
    }
    if (p->at < p->end && *p->at == '?') p->at++; /* lazy: the same texts */
    return add_pattern_piece(p, (mq_piece){.kind = MQ_PIECE_REPEAT, .first = atom, .least = least, .most = most});
}

static uint32_t read_sequence(mq_pattern *p)
{
    const uint32_t list = add_pattern_piece(p, (mq_piece){.kind = MQ_PIECE_LIST});
    uint32_t last = 0;
    while (p->at < p->end && *p->at != '|' && *p->at != ')') {
        const uint32_t part = read_repeated(p);
        if (p->fault) return list;
        *(last ? &p->piece[last].next : &p->piece[list].first) = part;
        last = part;
    }
    return list;
}

static uint32_t read_alternatives(mq_pattern *p)
{
    const uint32_t any = add_pattern_piece(p, (mq_piece){.kind = MQ_PIECE_ANY});
    uint32_t last = 0;
    for (bool more = true; more && !p->fault;) {
        const uint32_t list = read_sequence(p);
        if (p->fault) break;
        *(last ? &p->piece[last].next : &p->piece[any].first) = list;
        last = list;
        more = p->at < p->end && *p->at == '|';
        p->at += more;
    }
    return any;
}

void mq__pattern_read(mq_pattern *p, const char *text, size_t bytes)
{
    *p = (mq_pattern){.at = text, .end = text + bytes};
    if (bytes > PATTERN_BYTES) (void)fail_pattern(p, too_large);
    (void)add_pattern_piece(p, (mq_piece){0}); /* none */
    p->top = read_alternatives(p);
    if (p->at < p->end) (void)fail_pattern(p, not_one); /* a group that ends and did not begin */
}

void mq__pattern_free(mq_pattern *p)
{
    mq__free(p->piece);
    mq__free(p->class_);
    mq__free(p->range);
}

/* ---- lengths */

static uint32_t at_most(uint64_t length)
{
    return length < MQ_ENDLESS ? (uint32_t)length : MQ_ENDLESS;
}

static void piece_length(const mq_pattern *p, uint32_t piece, uint32_t *least, uint32_t *most)
{
    const mq_piece *here = &p->piece[piece];
    *least = *most = here->kind == MQ_PIECE_CLASS;
    if (here->kind == MQ_PIECE_CLASS || here->kind == MQ_PIECE_START || here->kind == MQ_PIECE_END) return;
    bool first = true;
    for (uint32_t part = here->first; part; part = p->piece[part].next, first = false) {
        uint32_t low, high;
        piece_length(p, part, &low, &high);
        if (here->kind == MQ_PIECE_ANY) {
            *least = first || low < *least ? low : *least;
            *most = high > *most ? high : *most;
        } else {
            *least = at_most((uint64_t)*least + low);
            *most = high == MQ_ENDLESS ? high : at_most((uint64_t)*most + high);
        }
    }
    if (here->kind != MQ_PIECE_REPEAT) return;
    *least = at_most((uint64_t)*least * here->least);
    *most = here->most == MQ_ENDLESS && *most > 0 ? MQ_ENDLESS : at_most((uint64_t)*most * here->most);
}

/* The only part of a list; 0: it has others. */
static uint32_t only_part(const mq_pattern *p, uint32_t list)
{
    const uint32_t part = p->piece[list].first;
    return part && !p->piece[part].next ? part : 0;
}

/* Whether all alternatives are tied to both ends; *repeat: what stands between them, if that is a single character repeated. */
static bool is_tied(const mq_pattern *p, uint32_t any, uint32_t *repeat)
{
    *repeat = 0;
    for (uint32_t list = p->piece[any].first; list; list = p->piece[list].next) {
        uint32_t last = p->piece[list].first, inner = only_part(p, list), count = 1;
        if (inner && p->piece[inner].kind == MQ_PIECE_ANY) {
            if (!is_tied(p, inner, repeat)) return false;
            continue;
        }
        if (p->piece[last].kind != MQ_PIECE_START) return false;
        inner = p->piece[last].next;
        for (; p->piece[last].next; count++) {
            last = p->piece[last].next;
        }
        if (p->piece[last].kind != MQ_PIECE_END) return false;
        const bool repeats = count == 3 && p->piece[inner].kind == MQ_PIECE_REPEAT &&
                             p->piece[p->piece[inner].first].kind == MQ_PIECE_CLASS;
        *repeat = repeats ? inner : 0;
    }
    if (!only_part(p, any)) *repeat = 0;
    return true;
}

bool mq__pattern_limit(mq_pattern *p, uint32_t least, uint32_t most)
{
    uint32_t low, high, repeat;
    const bool tied = is_tied(p, p->top, &repeat);
    piece_length(p, p->top, &low, &high);
    if (low >= least && (most == MQ_ENDLESS || (tied && high <= most))) return true;
    if (!tied || !repeat) return false;
    mq_piece *only = &p->piece[repeat];
    if (only->least < least) only->least = least;
    if (only->most > most) only->most = most;
    if (only->least > only->most) (void)fail_pattern(p, "another length");
    return true;
}
