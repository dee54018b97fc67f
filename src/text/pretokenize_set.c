/* Sets: [...] with ranges, classes, sets in them and their intersection. */
#include "text/pretokenize_translate.h"

#include "base/error.h"

#include <string.h>

#define MAX_NESTED 16

typedef struct set {
    mq_buf items;  /* the inside of PCRE2's set */
    mq_buf others; /* alternatives to it, each behind a bar */
    mq_buf both;   /* what stood before an && , as lookaheads */
    unsigned others_count;
    bool complement; /* the last of the others is "[^...]" */
} set;

/* The operand read so far, as an expression for one character. */
static void put_operand(set *s, mq_buf *out)
{
    if (s->items.len == 0 && s->others.len == 0) {
        mq__buf_puts(out, "(?!)");
        return;
    }
    mq__buf_puts(out, s->others.len ? "(?:" : "");
    if (s->items.len) {
        mq__buf_putc(out, '[');
        mq__buf_append(out, s->items.data, s->items.len);
        mq__buf_putc(out, ']');
    }
    if (s->others.len == 0) return;
    const size_t bar = s->items.len == 0;
    mq__buf_append(out, s->others.data + bar, s->others.len - bar);
    mq__buf_putc(out, ')');
}

/* The whole: one set of PCRE2 where that can say it, else an assertion, in which alternatives leave nothing to go back
 * to: so long runs take no memory for each character. */
static void put_set(set *s, bool negate, mq_buf *out)
{
    if (s->both.len == 0 && s->others.len == 0) {
        mq__buf_puts(out, negate ? "[^" : "[");
        mq__buf_append(out, s->items.data, s->items.len);
        mq__buf_putc(out, ']');
    } else if (s->both.len == 0 && s->items.len == 0 && s->others_count == 1 && s->complement) {
        mq__buf_puts(out, negate ? "[" : "[^");
        mq__buf_append(out, s->others.data + 3, s->others.len - 3); /* behind "|[^" */
    } else {
        mq__buf_puts(out, negate ? "(?:(?!" : "(?:(?=");
        mq__buf_append(out, s->both.data, s->both.len);
        put_operand(s, out);
        mq__buf_puts(out, ")(?s:.))");
    }
    out->failed = out->failed || s->items.failed || s->others.failed || s->both.failed;
}

static mq_status add_class(mq_regex_text *t, set *s, const mq_regex_element *e)
{
    const mq_regex_class *class = &e->property.class;
    if (class->cased && t->groups[t->depth].ignore_case)
        return mq__regex_refuse(t, "a cased class in a set under (?i)");
    if (!e->negate || class->negated) {
        mq__buf_puts(&s->items, e->negate ? class->negated : class->items);
        return MQ_OK;
    }
    mq__buf_printf(&s->others, "|[^%s]", class->items);
    s->others_count++;
    s->complement = true;
    return MQ_OK;
}

/* [:name:] or [:^name:]; at stands on the bracket */
static mq_status read_posix(mq_regex_text *t, mq_regex_element *e)
{
    char name[MQ_REGEX_NAME];
    size_t n = 0, i = 2;
    *e = (mq_regex_element){.is_class = true, .negate = mq__regex_peek(t, 2) == '^'};
    for (i += e->negate; mq__regex_letter(mq__regex_peek(t, i)) && n + 1 < sizeof name; i++)
        name[n++] = t->pattern[t->at + i];
    name[n] = '\0';
    if (mq__regex_peek(t, i) != ':' || mq__regex_peek(t, i + 1) != ']')
        return mq__regex_refuse(t, "an unfinished class name");
    const bool property_only = strcmp(name, "any") == 0 || strcmp(name, "assigned") == 0;
    if (property_only || !mq__regex_posix_class(name, &e->property.class))
        return mq__regex_malformed(t, "a class name");
    t->at += i + 2;
    return MQ_OK;
}

/* One character or class of a set. */
static mq_status read_element(mq_regex_text *t, mq_regex_element *e)
{
    const int c = mq__regex_peek(t, 0), next = mq__regex_peek(t, 1);
    if (c == '[') return next == ':' ? read_posix(t, e) : mq__regex_refuse(t, "a set in a range");
    *e = (mq_regex_element){0};
    if (c != '\\') return mq__regex_literal(t, &e->code);
    t->at++;
    return next >= '0' && next <= '7' ? mq__regex_octal(t, 3, &e->code) : mq__regex_escape(t, e);
}

/* An element and, where a hyphen joins it with another, the range; *ranged: a hyphen may follow as itself. */
static mq_status read_range(mq_regex_text *t, set *s, bool first, bool *ranged)
{
    mq_regex_element from, to;
    const bool hyphen = mq__regex_peek(t, 0) == '-', last = mq__regex_peek(t, 1) == ']';
    if (hyphen && !first && !last && !*ranged) return mq__regex_malformed(t, "a range, got a hyphen behind a class");
    const bool alone = hyphen && *ranged;
    *ranged = false;
    mq_status status = read_element(t, &from);
    if (status != MQ_OK) return status;
    if (from.is_class) return add_class(t, s, &from);
    mq__regex_put_literal(&s->items, from.code);
    if (alone || mq__regex_peek(t, 0) != '-' || mq__regex_peek(t, 1) == ']') return MQ_OK;
    if (mq__regex_peek(t, 1) == '&' && mq__regex_peek(t, 2) == '&')
        return mq__regex_refuse(t, "a range without an end");
    t->at++;
    status = read_element(t, &to);
    if (status != MQ_OK) return status;
    if (to.is_class || to.code < from.code) return mq__regex_malformed(t, "a range in order");
    mq__buf_putc(&s->items, '-');
    mq__regex_put_literal(&s->items, to.code);
    *ranged = true;
    return MQ_OK;
}

static mq_status read_char_set(mq_regex_text *t, unsigned nested, mq_buf *out);

/* What stands between the brackets. */
static mq_status read_set_items(mq_regex_text *t, set *s, unsigned nested)
{
    bool ranged = false;
    mq_status status = MQ_OK;
    if (nested && mq__regex_peek(t, 0) == ']') return mq__regex_refuse(t, "a bracket that begins a nested set");
    for (bool first = true; status == MQ_OK && (first || mq__regex_peek(t, 0) != ']'); first = false) {
        const int c = mq__regex_peek(t, 0), next = mq__regex_peek(t, 1);
        const bool special = (c == '[' && next != ':') || (c == '&' && next == '&');
        if (c < 0) return mq__regex_malformed(t, "the end of a set");
        if (special && t->groups[t->depth].ignore_case) return mq__regex_refuse(t, "a set of sets under (?i)");
        if (c == '[' && next != ':') {
            t->at++;
            mq__buf_putc(&s->others, '|');
            status = read_char_set(t, nested + 1, &s->others);
            s->others_count++;
            s->complement = ranged = false;
        } else if (c == '&' && next == '&') {
            t->at += 2;
            mq__buf_puts(&s->both, "(?=");
            put_operand(s, &s->both);
            mq__buf_putc(&s->both, ')');
            mq__buf_clear(&s->items);
            mq__buf_clear(&s->others);
            s->others_count = 0;
            ranged = false;
        } else {
            status = read_range(t, s, first, &ranged);
        }
        if (status == MQ_OK && s->items.len + s->others.len + s->both.len > MQ_REGEX_TEXT_BYTES)
            status = mq__fail(t->error, MQ_LIMIT, "regex: byte %zu: expected a shorter set", t->at);
    }
    return status;
}

/* at stands behind the bracket */
static mq_status read_char_set(mq_regex_text *t, unsigned nested, mq_buf *out)
{
    set s = {0};
    const bool negate = mq__regex_peek(t, 0) == '^';
    if (nested > MAX_NESTED) return mq__regex_refuse(t, "too many sets in sets");
    t->at += negate;
    const mq_status status = read_set_items(t, &s, nested);
    if (status == MQ_OK) {
        t->at++;
        put_set(&s, negate, out);
    }
    mq__buf_free(&s.items);
    mq__buf_free(&s.others);
    mq__buf_free(&s.both);
    return status;
}

mq_status mq__regex_set(mq_regex_text *t, mq_buf *out)
{
    return read_char_set(t, 0, out);
}
