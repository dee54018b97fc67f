#include "text/pretokenize_translate.h"

#include "base/error.h"

#include <string.h>

#define MAX_REPEATS 4 /* quantifiers of quantifiers */

static void begin_atom(mq_regex_text *t)
{
    t->atom = t->out->len;
    t->repeats = 0;
    t->repeatable = true;
}

/* ---------------------------------------------------------------- groups */

static mq_status open_group(mq_regex_text *t, const char *text, bool assertion)
{
    if (t->open == MQ_REGEX_GROUPS) return mq__regex_refuse(t, "too many groups in groups");
    mq_regex_group *inner = &t->groups[t->depth + 1];
    *inner = t->groups[t->depth];
    inner->start = t->out->len;
    inner->options = 0;
    inner->assertion = assertion;
    t->depth++;
    t->open++;
    t->repeatable = false;
    mq__buf_puts(t->out, text);
    return MQ_OK;
}

static mq_status close_group(mq_regex_text *t)
{
    const mq_regex_group *inner = &t->groups[t->depth];
    if (t->depth == 0) return mq__regex_malformed(t, "a group before its end");
    for (unsigned i = 0; i <= inner->options; i++)
        mq__buf_putc(t->out, ')');
    t->open -= inner->options + 1;
    t->atom = inner->start;
    t->repeats = 0;
    t->repeatable = !inner->assertion;
    t->depth--;
    return MQ_OK;
}

/* (?imx-imx) or (?imx-imx: ; at stands behind the question mark. Oniguruma's m is PCRE2's s. */
static mq_status read_inline_options(mq_regex_text *t)
{
    char text[24];
    size_t n = 0;
    mq_regex_group changed = t->groups[t->depth];
    bool on = true, dot[2] = {false, false};
    for (;; t->at++) {
        const int c = mq__regex_peek(t, 0);
        if (c == ')' || c == ':') break;
        if (c == '-') {
            on = false;
        } else if (c == 'i') {
            changed.ignore_case = on;
        } else if (c == 'x') {
            changed.extended = on;
        } else if (c == 'm') {
            dot[on] = true;
        } else {
            return mq__regex_refuse(t, "an unknown group");
        }
    }
    memcpy(text, "(?", n = 2);
    if (dot[true] && !dot[false]) text[n++] = 's';
    if (changed.ignore_case) text[n++] = 'i';
    if (dot[false] || !changed.ignore_case) text[n++] = '-';
    if (dot[false]) text[n++] = 's';
    if (!changed.ignore_case) text[n++] = 'i';
    memcpy(text + n, ":", 2);
    if (t->pattern[t->at++] == ':') {
        const mq_status status = open_group(t, text, false);
        t->groups[t->depth].ignore_case = changed.ignore_case;
        t->groups[t->depth].extended = changed.extended;
        return status;
    }
    if (t->open == MQ_REGEX_GROUPS) return mq__regex_refuse(t, "too many groups in groups");
    mq__buf_puts(t->out, text);
    changed.options++;
    t->open++;
    t->repeatable = false;
    t->groups[t->depth] = changed;
    return MQ_OK;
}

/* Bytes of a name or number at `at`, up to its end mark; 0: not one. */
static size_t name_bytes(const mq_regex_text *t, char end, bool number)
{
    size_t n = 0;
    while (mq__regex_digit(mq__regex_peek(t, n)) ||
           (!number && (mq__regex_letter(mq__regex_peek(t, n)) || mq__regex_peek(t, n) == '_')))
        n++;
    const bool begins = number || !mq__regex_digit(mq__regex_peek(t, 0));
    return n <= 32 && begins && mq__regex_peek(t, n) == end ? n : 0;
}

static mq_status read_regex_group(mq_regex_text *t)
{
    static const struct {
        const char *text;
        bool assertion;
    } known[] = {{"(?:", false}, {"(?>", false}, {"(?=", true}, {"(?!", true}, {"(?<=", true}, {"(?<!", true}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        const size_t n = strlen(known[i].text);
        if (t->bytes - t->at < n || memcmp(t->pattern + t->at, known[i].text, n) != 0) continue;
        t->at += n;
        return open_group(t, known[i].text, known[i].assertion);
    }
    const int next = mq__regex_peek(t, 1), after = mq__regex_peek(t, 2);
    t->at++;
    if (next == '*') return mq__regex_refuse(t, "a callout");
    if (next != '?') return open_group(t, "(", false);
    t->at++;
    if (after == '#') { /* a comment */
        while (mq__regex_peek(t, 0) >= 0 && mq__regex_peek(t, 0) != ')')
            t->at += mq__regex_peek(t, 0) == '\\' && mq__regex_peek(t, 1) >= 0 ? 2 : 1;
        return t->at++ < t->bytes ? MQ_OK : mq__regex_malformed(t, "the end of a comment");
    }
    if (after != '<' && after != '\'') return read_inline_options(t);
    t->at++;
    const size_t n = name_bytes(t, after == '<' ? '>' : '\'', false);
    if (n == 0) return mq__regex_refuse(t, "a group's name that PCRE2 does not know");
    char text[48] = "(?<";
    memcpy(text + 3, t->pattern + t->at, n);
    memcpy(text + 3 + n, ">", 2);
    t->at += n + 1;
    return open_group(t, text, false);
}

/* ---------------------------------------------------------------- quantifiers */

typedef struct interval {
    size_t bytes; /* of its text; 0: the brace is a character */
    unsigned low, high;
    bool fixed, endless;
} interval;

static interval read_interval(const mq_regex_text *t)
{
    interval found = {.fixed = true};
    size_t i = 1, digits[2] = {0, 0};
    for (unsigned part = 0; part < 2; part++) {
        unsigned *value = part ? &found.high : &found.low;
        for (; mq__regex_digit(mq__regex_peek(t, i)); i++, digits[part]++)
            *value = *value > 99999 ? 999999 : *value * 10 + (unsigned)(t->pattern[t->at + i] - '0');
        if (part || mq__regex_peek(t, i) != ',') break;
        found.fixed = false;
        i++;
    }
    found.endless = digits[1] == 0;
    if (mq__regex_peek(t, i) == '}' && digits[0] + digits[1] > 0) found.bytes = i + 1;
    return found;
}

/* A quantifier behind another repeats the whole, as the + in X{1,3}+ does. */
static mq_status group_atom(mq_regex_text *t)
{
    mq_buf *out = t->out;
    if (t->repeats == MAX_REPEATS) return mq__regex_refuse(t, "too many quantifiers of quantifiers");
    const size_t end = out->len;
    if (t->repeats == 0 || !mq__buf_append(out, ")(?:", 4)) return MQ_OK;
    memmove(out->data + t->atom + 3, out->data + t->atom, end + 1 - t->atom);
    memcpy(out->data + t->atom, "(?:", 3);
    return MQ_OK;
}

static mq_status read_quantifier(mq_regex_text *t, interval braces)
{
    if (!t->repeatable) return mq__regex_malformed(t, "something to repeat before a quantifier");
    const mq_status status = group_atom(t);
    if (status != MQ_OK) return status;
    t->repeats++;
    if (braces.bytes == 0) {
        mq__buf_putc(t->out, t->pattern[t->at++]);
        if (mq__regex_peek(t, 0) == '?' || mq__regex_peek(t, 0) == '+') mq__buf_putc(t->out, t->pattern[t->at++]);
        return MQ_OK;
    }
    t->at += braces.bytes;
    mq__buf_printf(t->out, "{%u", braces.low);
    if (!braces.fixed) mq__buf_putc(t->out, ',');
    if (!braces.fixed && !braces.endless) mq__buf_printf(t->out, "%u", braces.high);
    mq__buf_putc(t->out, '}');
    if (!braces.fixed && mq__regex_peek(t, 0) == '?') { /* X{2}? is an optional X{2} */
        mq__buf_putc(t->out, '?');
        t->at++;
    }
    return MQ_OK;
}

/* ---------------------------------------------------------------- the whole */

/* \k<name>, \k<1>, \k<-1>, \g<name>, \g<1>; at stands behind the letter */
static mq_status read_reference(mq_regex_text *t, char letter)
{
    const char end = mq__regex_peek(t, 0) == '<' ? '>' : '\'';
    t->at++;
    const bool back = letter == 'k' && mq__regex_peek(t, 0) == '-';
    t->at += back;
    const bool number = mq__regex_digit(mq__regex_peek(t, 0));
    const size_t n = back && !number ? 0 : name_bytes(t, end, number);
    if (n == 0) return mq__regex_refuse(t, "a reference that PCRE2 does not know");
    const char *name = t->pattern + t->at;
    begin_atom(t);
    if (letter == 'k' && number) {
        mq__buf_printf(t->out, "\\g{%s%.*s}", back ? "-" : "", (int)n, name);
    } else {
        mq__buf_printf(t->out, "\\%c<%.*s>", letter, (int)n, name);
    }
    t->at += n + 1;
    return MQ_OK;
}

static void put_class(mq_regex_text *t, const mq_regex_element *e)
{
    const mq_regex_class *class = &e->property.class;
    const char *items = class->alone ? class->alone : class->items;
    const bool shield = class->cased && t->groups[t->depth].ignore_case; /* (?i) does not reach it in Oniguruma */
    /* A bare \P is never written: PCRE2 10.42 takes \P{N}+ and \P{L} for disjoint and makes the first possessive. */
    const bool single = !e->negate && strncmp(items, "\\p", 2) == 0 && !strchr(items + 1, '\\');
    if (shield) mq__buf_puts(t->out, "(?-i:");
    if (single) {
        mq__buf_puts(t->out, items);
    } else {
        mq__buf_printf(t->out, e->negate ? "[^%s]" : "[%s]", items);
    }
    if (shield) mq__buf_putc(t->out, ')');
}

/* Anchors and what else has a meaning only outside of a set. *done: c, behind the backslash, was one. */
static mq_status outside_escape(mq_regex_text *t, char c, bool *done)
{
    const int next = mq__regex_peek(t, 1);
    *done = true;
    t->at++;
    if (c == 'b' || c == 'B') {
        const char same = c == 'B' ? '=' : '!', w = c == 'B' ? '!' : '=';
        mq__buf_printf(t->out, "(?:(?<=[%s])(?%c[%s])|(?<![%s])(?%c[%s]))", mq__regex_word, same, mq__regex_word,
                       mq__regex_word, w, mq__regex_word);
        t->repeatable = false;
    } else if (strchr("AZzGK", c)) {
        mq__buf_printf(t->out, "\\%c", c);
        t->repeatable = false;
    } else if (strchr("RXNO", c)) {
        begin_atom(t);
        mq__buf_puts(t->out, c == 'R' ? "\\R" : c == 'X' ? "\\X" : c == 'N' ? "[^\\n]" : "(?s:.)");
    } else if (c == 'y' || c == 'Y') {
        return mq__regex_refuse(t, "a text segment's boundary");
    } else if ((c == 'k' || c == 'g') && (next == '<' || next == '\'')) {
        return read_reference(t, c);
    } else if (c == '0') {
        uint32_t code;
        const mq_status status = mq__regex_octal(t, 2, &code);
        begin_atom(t);
        mq__regex_put_literal(t->out, code);
        return status;
    } else if (mq__regex_digit(c)) {
        if (mq__regex_digit(next)) return mq__regex_refuse(t, "a reference or octal code of several digits");
        begin_atom(t);
        mq__buf_printf(t->out, "\\g{%c}", c);
    } else {
        t->at--;
        *done = false;
    }
    return MQ_OK;
}

static mq_status read_outside_escape(mq_regex_text *t)
{
    mq_regex_element e;
    bool done = false;
    mq_status status = MQ_OK;
    t->at++;
    const char c = t->at < t->bytes ? t->pattern[t->at] : '\0';
    if (mq__regex_letter((unsigned char)c) || mq__regex_digit((unsigned char)c)) status = outside_escape(t, c, &done);
    if (status != MQ_OK || done) return status;
    status = mq__regex_escape(t, &e);
    if (status != MQ_OK) return status;
    begin_atom(t);
    if (e.is_class) {
        put_class(t, &e);
    } else {
        mq__regex_put_literal(t->out, e.code);
    }
    return MQ_OK;
}

static mq_status read_construct(mq_regex_text *t)
{
    const char c = t->pattern[t->at];
    const interval braces = c == '{' ? read_interval(t) : (interval){0};
    uint32_t code;
    if (t->groups[t->depth].extended && (memchr(" \t\n\f\r", c, 5) || c == '#')) {
        while (c == '#' && mq__regex_peek(t, 1) >= 0 && t->pattern[t->at] != '\n')
            t->at++;
        t->at++;
        return MQ_OK;
    }
    if (braces.bytes || c == '*' || c == '+' || c == '?') return read_quantifier(t, braces);
    switch (c) {
    case '\\':
        return read_outside_escape(t);
    case '[':
        t->at++;
        begin_atom(t);
        return mq__regex_set(t, t->out);
    case '(':
        return read_regex_group(t);
    case ')':
        t->at++;
        return close_group(t);
    case '|':
    case '^':
    case '$':
    case '.':
        begin_atom(t);
        t->repeatable = c == '.';
        mq__buf_putc(t->out, c);
        t->at++;
        return MQ_OK;
    default: {
        const mq_status status = mq__regex_literal(t, &code);
        if (status != MQ_OK) return status;
        begin_atom(t);
        mq__regex_put_literal(t->out, code);
        return MQ_OK;
    }
    }
}

mq_status mq__regex_translate(const char *pattern, size_t bytes, mq_buf *out, mq_error *error)
{
    mq_regex_text t = {.pattern = pattern, .bytes = bytes, .out = out, .error = error};
    while (t.at < t.bytes) {
        const mq_status status = read_construct(&t);
        if (status != MQ_OK) return status;
        if (out->len > MQ_REGEX_TEXT_BYTES)
            return mq__fail(error, MQ_LIMIT, "regex: byte %zu: expected a shorter expression", t.at);
    }
    if (t.depth > 0) return mq__regex_malformed(&t, "the end of a group");
    for (unsigned i = 0; i < t.groups[0].options; i++)
        mq__buf_putc(out, ')');
    return out->failed ? mq__fail(error, MQ_NO_MEMORY, "regex: expected memory, got none") : MQ_OK;
}
