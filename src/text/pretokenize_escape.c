/* What a character of an expression can be: itself, or an escape. */
#include "text/pretokenize_translate.h"

#include "base/ascii.h"
#include "base/error.h"
#include "base/unicode.h"

#include <string.h>

mq_status mq__regex_refuse(const mq_regex_text *t, const char *what)
{
    return mq__fail(t->error, MQ_UNSUPPORTED, "regex: byte %zu: expected what PCRE2 can say too, got %s", t->at, what);
}

mq_status mq__regex_malformed(const mq_regex_text *t, const char *expected)
{
    return mq__fail(t->error, MQ_FORMAT, "regex: byte %zu: expected %s", t->at, expected);
}

/* One character that means itself, inside or outside of a set. */
void mq__regex_put_literal(mq_buf *out, uint32_t code)
{
    if (code > 0x7F) {
        mq__utf8_put(out, code);
    } else if (mq__regex_letter((int)code) || mq__regex_digit((int)code)) {
        mq__buf_putc(out, (char)code);
    } else if (code > ' ' && code < 0x7F) {
        mq__buf_printf(out, "\\%c", (char)code);
    } else {
        mq__buf_printf(out, "\\x{%x}", (unsigned)code);
    }
}

mq_status mq__regex_literal(mq_regex_text *t, uint32_t *code)
{
    if (t->at >= t->bytes) return mq__regex_malformed(t, "a character, got the end");
    *code = mq__utf8_next(t->pattern, t->bytes, &t->at);
    return *code == MQ_UTF8_INVALID ? mq__regex_malformed(t, "UTF-8, got another byte") : MQ_OK;
}

/* \xHH, \x{H...}, \uHHHH; at stands behind the letter */
static mq_status read_hex(mq_regex_text *t, char letter, uint32_t *code)
{
    const bool braces = letter == 'x' && mq__regex_peek(t, 0) == '{';
    const size_t most = braces ? 8 : letter == 'x' ? 2 : 4, from = t->at += braces;
    uint32_t value = 0;
    while (t->at - from < most && mq__hex_value((char)mq__regex_peek(t, 0)) >= 0)
        value = value << 4 | (uint32_t)mq__hex_value(t->pattern[t->at++]);
    const size_t digits = t->at - from;
    if (digits == 0 || (letter == 'u' && digits != 4)) return mq__regex_refuse(t, "a code without its digits");
    if (braces && mq__regex_peek(t, 0) != '}') return mq__regex_refuse(t, "a list of codes");
    t->at += braces;
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000))
        return mq__regex_malformed(t, "the code of a character");
    if (letter == 'x' && !braces && value > 0x7F) return mq__regex_refuse(t, "a byte");
    *code = value;
    return MQ_OK;
}

mq_status mq__regex_octal(mq_regex_text *t, size_t most, uint32_t *code)
{
    *code = 0;
    for (size_t i = 0; i < most && mq__regex_peek(t, 0) >= '0' && mq__regex_peek(t, 0) <= '7'; i++)
        *code = *code * 8 + (uint32_t)(t->pattern[t->at++] - '0');
    return *code <= 0x7F ? MQ_OK : mq__regex_refuse(t, "a byte");
}

/* {name} or {^name}; at stands on the brace */
static mq_status read_property(mq_regex_text *t, mq_regex_element *e)
{
    char name[MQ_REGEX_NAME];
    size_t n = 0;
    t->at++;
    if (mq__regex_peek(t, 0) == '^') {
        e->negate = !e->negate;
        t->at++;
    }
    for (; mq__regex_peek(t, 0) != '}'; t->at++) {
        const int c = mq__regex_peek(t, 0);
        if (c == ' ' || c == '_' || c == '-') continue;
        if ((!mq__regex_letter(c) && !mq__regex_digit(c)) || n + 1 == sizeof name)
            return mq__regex_malformed(t, "a property's name");
        name[n++] = (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    }
    t->at++;
    name[n] = '\0';
    if (n == 0) return mq__regex_malformed(t, "a property's name");
    e->is_class = true;
    mq__regex_property(name, &e->property);
    return MQ_OK;
}

static bool short_class(char letter, mq_regex_element *e)
{
    static const struct {
        char letter;
        const char *name;
    } known[] = {{'w', "word"}, {'s', "space"}, {'d', "digit"}, {'h', "xdigit"}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (known[i].letter != letter && known[i].letter != letter - 'A' + 'a') continue;
        e->is_class = true;
        e->negate = known[i].letter != letter;
        return mq__regex_posix_class(known[i].name, &e->property.class);
    }
    return false;
}

/* An escape that means the same inside and outside of a set; at stands behind the backslash. */
mq_status mq__regex_escape(mq_regex_text *t, mq_regex_element *e)
{
    static const char letters[] = "abefnrtv", codes[] = "\a\b\033\f\n\r\t\v";
    *e = (mq_regex_element){0};
    if (t->at >= t->bytes) return mq__regex_malformed(t, "an escaped character, got the end");
    const char c = t->pattern[t->at];
    if (!mq__regex_letter((unsigned char)c)) return mq__regex_literal(t, &e->code);
    t->at++;
    if (short_class(c, e)) return MQ_OK;
    const char *simple = strchr(letters, c);
    if (simple) {
        e->code = (uint32_t)codes[simple - letters];
        return MQ_OK;
    }
    switch (c) {
    case 'x':
    case 'u':
        return read_hex(t, c, &e->code);
    case 'c':
    case 'C':
    case 'M':
    case 'o':
        return mq__regex_refuse(t, "a control, meta or octal escape");
    case 'p':
    case 'P':
        e->negate = c == 'P';
        if (mq__regex_peek(t, 0) == '{') return read_property(t, e);
        break;
    default:
        break;
    }
    e->code = (uint32_t)c; /* a letter that means nothing else is itself */
    e->negate = false;
    return MQ_OK;
}
