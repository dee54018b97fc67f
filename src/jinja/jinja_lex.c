#include "jinja/jinja_lex.h"

#include "base/ascii.h"
#include "jinja/jinja_text.h"

#include <stdio.h>
#include <string.h>

#define MAX_BRACKETS 256

typedef struct lexer {
    mq_jtrap *trap;
    mq_arena *texts, *scratch;
    const char *source;
    size_t bytes, at;
    uint32_t line;
    bool line_starting; /* the last token ended with a line break */
    mq_jtoken *tokens;
    size_t count, capacity;
    char brackets[MAX_BRACKETS]; /* the closing bracket of each open one */
    size_t open;
} lexer;

static char peek(const lexer *lex, size_t ahead)
{
    return ahead < lex->bytes - lex->at ? lex->source[lex->at + ahead] : '\0';
}

static bool looking_at(const lexer *lex, size_t at, const char *text)
{
    const size_t n = strlen(text);
    return at <= lex->bytes && n <= lex->bytes - at && memcmp(lex->source + at, text, n) == 0;
}

static void advance_jinja_lex(lexer *lex, size_t to)
{
    for (size_t i = lex->at; i < to; i++) {
        if (lex->source[i] == '\n') lex->line++;
    }
    if (to > lex->at) lex->line_starting = lex->source[to - 1] == '\n';
    lex->at = to;
    lex->trap->line = lex->line;
}

static mq_jtoken *add_token(lexer *lex, mq_jtoken_kind kind)
{
    if (lex->count == lex->capacity) {
        const size_t capacity = lex->capacity ? lex->capacity * 2 : 256;
        mq_jtoken *const tokens = mq__arena_alloc_zero(lex->scratch, capacity, sizeof *tokens);
        if (!tokens) mq__jtrap_throw_memory(lex->trap, lex->scratch);
        if (lex->count) memcpy(tokens, lex->tokens, lex->count * sizeof *tokens);
        lex->tokens = tokens;
        lex->capacity = capacity;
    }
    mq_jtoken *const token = &lex->tokens[lex->count++];
    *token = (mq_jtoken){.kind = (uint8_t)kind, .line = lex->line};
    return token;
}

static size_t skip_space_jinja_lex(const lexer *lex, size_t at)
{
    while (at < lex->bytes) {
        size_t next = at;
        if (!mq__point_is_space(mq__utf8_next(lex->source, lex->bytes, &next))) break;
        at = next;
    }
    return at;
}

/* ---------------------------------------------------------------- text between tags */

/* Emits source[from, to) as template text, less the white space that the tag at `to` takes away. */
static void add_data(lexer *lex, size_t from, size_t to, char sign, bool lstrip)
{
    const char *text = lex->source + from;
    size_t bytes = to - from;
    if (sign == '-') {
        mq__text_strip(&text, &bytes, false, true);
    } else if (sign != '+' && lstrip) {
        size_t line = bytes;
        while (line > 0 && text[line - 1] != '\n') {
            line--;
        }
        const char *rest = text + line;
        size_t rest_bytes = bytes - line;
        if (line > 0 || lex->line_starting) {
            mq__text_strip(&rest, &rest_bytes, true, false);
            if (rest_bytes == 0) bytes = line;
        }
    }
    if (bytes > 0) add_token(lex, MQ_JT_DATA)->value = mq__jvalue_text(text, bytes);
}

static char strip_sign(const lexer *lex, size_t at)
{
    const char c = at < lex->bytes ? lex->source[at] : '\0';
    return c == '-' || c == '+' ? c : '\0';
}

/* The end of a tag that closes with `close` ("%}", "#}", "}}") at `at`, its sign included: 0 when it is not there. */
static size_t tag_end(const lexer *lex, size_t at, const char *close, bool plus, bool trim)
{
    if (looking_at(lex, at, "-") && looking_at(lex, at + 1, close)) return skip_space_jinja_lex(lex, at + 3);
    if (plus && looking_at(lex, at, "+") && looking_at(lex, at + 1, close)) return at + 3;
    if (!looking_at(lex, at, close)) return 0;
    at += 2;
    return trim && looking_at(lex, at, "\n") ? at + 1 : at;
}

/* Whether a tag `{% word %}` starts at `at`: returns the end of the tag, or 0. */
static size_t bare_tag(const lexer *lex, size_t at, const char *word, bool opening)
{
    if (!looking_at(lex, at, "{%")) return 0;
    at += 2;
    if (strip_sign(lex, at)) at++;
    at = skip_space_jinja_lex(lex, at);
    if (!looking_at(lex, at, word)) return 0;
    at = skip_space_jinja_lex(lex, at + strlen(word));
    return tag_end(lex, at, "%}", !opening, !opening);
}

static void lex_comment(lexer *lex)
{
    const size_t body = lex->at + 2 + (strip_sign(lex, lex->at + 2) != '\0');
    for (size_t i = body; i + 1 < lex->bytes; i++) {
        const size_t end = tag_end(lex, i, "#}", true, true);
        if (end) {
            advance_jinja_lex(lex, end);
            return;
        }
    }
    mq__jtrap_throw(lex->trap, MQ_TEMPLATE, "expected #} at the end of a comment, got the end of the template");
}

static void lex_raw(lexer *lex, size_t body)
{
    advance_jinja_lex(lex, body);
    for (size_t i = body; i + 1 < lex->bytes; i++) {
        const size_t end = lex->source[i] == '{' ? bare_tag(lex, i, "endraw", false) : 0;
        if (!end) continue;
        add_data(lex, body, i, strip_sign(lex, i + 2), true);
        advance_jinja_lex(lex, end);
        return;
    }
    mq__jtrap_throw(lex->trap, MQ_TEMPLATE, "expected {%% endraw %%}, got the end of the template");
}

/* ---------------------------------------------------------------- inside a tag */

static bool is_digit(char c, int base)
{
    if (base == 16) return mq__hex_value(c) >= 0;
    return c >= '0' && c < '0' + (base > 10 ? 10 : base);
}

/* digits with single underscores between them; returns the end, or `at` when there is no digit. */
static size_t digits(const lexer *lex, size_t at, int base)
{
    size_t end = at;
    while (end < lex->bytes) {
        const char *const s = lex->source;
        if (is_digit(s[end], base)) {
            end++;
        } else if (s[end] == '_' && end > at && end + 1 < lex->bytes && is_digit(s[end + 1], base)) {
            end += 2;
        } else {
            break;
        }
    }
    return end;
}

static size_t float_end(const lexer *lex)
{
    const char *const s = lex->source;
    if (lex->at > 0 && s[lex->at - 1] == '.') return 0; /* x.1.5 is two subscripts */
    const size_t whole = digits(lex, lex->at, 10);
    size_t end = whole;
    if (end < lex->bytes && s[end] == '.') {
        const size_t fraction = digits(lex, end + 1, 10);
        if (fraction > end + 1) end = fraction;
    }
    if (end < lex->bytes && (s[end] == 'e' || s[end] == 'E')) {
        size_t exponent = end + 1;
        if (exponent < lex->bytes && (s[exponent] == '+' || s[exponent] == '-')) exponent++;
        const size_t last = digits(lex, exponent, 10);
        if (last > exponent) return last;
    }
    return end > whole ? end : 0;
}

static size_t copy_digits(lexer *lex, size_t from, size_t to, char *out, size_t capacity)
{
    size_t n = 0;
    for (size_t i = from; i < to; i++) {
        if (lex->source[i] == '_') continue;
        if (n == capacity) mq__jtrap_throw(lex->trap, MQ_LIMIT, "expected a number of fewer than %zu digits", capacity);
        out[n++] = lex->source[i];
    }
    return n;
}

static void lex_number(lexer *lex)
{
    char text[400];
    mq_jtoken *const token = add_token(lex, MQ_JT_CONST);
    size_t end = float_end(lex);
    if (end) {
        double value = 0;
        const size_t n = copy_digits(lex, lex->at, end, text, sizeof text);
        if (!mq__jreal_parse(text, n, &value)) mq__jtrap_throw(lex->trap, MQ_TEMPLATE, "expected a number");
        token->value = mq__jvalue_real(value);
        advance_jinja_lex(lex, end);
        return;
    }
    int base = 10;
    size_t from = lex->at;
    const char mark = (char)(peek(lex, 1) | 0x20);
    if (peek(lex, 0) == '0' && (mark == 'x' || mark == 'o' || mark == 'b')) {
        const int other = mark == 'x' ? 16 : mark == 'o' ? 8 : 2;
        size_t start = from + 2;
        if (start < lex->bytes && lex->source[start] == '_') start++;
        if (digits(lex, start, other) > start) {
            base = other;
            from = start;
        }
    }
    end = digits(lex, from, base);
    if (base == 10 && lex->source[from] == '0') { /* zeros only: 007 is 00 and then 7 */
        end = from;
        while (end < lex->bytes &&
               (lex->source[end] == '0' || (lex->source[end] == '_' && looking_at(lex, end + 1, "0")))) {
            end++;
        }
    }
    int64_t value = 0;
    bool overflow = false;
    const size_t n = copy_digits(lex, from, end, text, sizeof text);
    const bool parsed = mq__jint_parse(text, n, base, &value, &overflow);
    if (!parsed && base == 10 && mq__jbig_is_text(text, n)) {
        char *const copy = mq__arena_text(lex->texts, n);
        if (!copy) mq__jtrap_throw_memory(lex->trap, lex->texts);
        memcpy(copy, text, n);
        token->value = mq__jvalue_big(copy, n);
        advance_jinja_lex(lex, end);
        return;
    }
    if (!parsed) {
        mq__jtrap_throw(lex->trap, overflow ? MQ_LIMIT : MQ_TEMPLATE, "expected an integer of 64 bits, got %.*s",
                        (int)n, text);
    }
    token->value = mq__jvalue_int(value);
    advance_jinja_lex(lex, end);
}

/* A numeric escape of `digits` hexadecimal digits at `at`. */
static uint32_t hex_escape(lexer *lex, size_t at, size_t count)
{
    uint32_t point = 0;
    for (size_t i = 0; i < count; i++) {
        const int digit = at + i < lex->bytes ? mq__hex_value(lex->source[at + i]) : -1;
        if (digit < 0)
            mq__jtrap_throw(lex->trap, MQ_TEMPLATE, "expected %zu hexadecimal digits in a string escape", count);
        point = point << 4 | (uint32_t)digit;
    }
    if (point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) {
        mq__jtrap_throw(lex->trap, MQ_TEMPLATE, "expected a Unicode character in a string escape, got U+%04X",
                        (unsigned)point);
    }
    return point;
}

/* One escape, the backslash at `at`: writes what it stands for and returns the position behind it. */
static size_t unescape(lexer *lex, size_t at, char *out, size_t *n)
{
    static const char from[] = "abfnrtv\\'\"", to[] = "\a\b\f\n\r\t\v\\'\"";
    const char c = lex->source[at + 1];
    const char *const known = c ? strchr(from, c) : NULL;
    if (known) {
        out[(*n)++] = to[known - from];
        return at + 2;
    }
    if (c == '\n') return at + 2;
    if (c == 'x' || c == 'u' || c == 'U') {
        const size_t count = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        *n += mq__jtext_encode(hex_escape(lex, at + 2, count), out + *n);
        return at + 2 + count;
    }
    if (c == 'N') mq__jtrap_throw(lex->trap, MQ_UNSUPPORTED, "expected a \\u escape, got a named character");
    if (c >= '0' && c <= '7') {
        uint32_t point = 0;
        size_t i = at + 1;
        for (; i < at + 4 && i < lex->bytes && lex->source[i] >= '0' && lex->source[i] <= '7'; i++) {
            point = point * 8 + (uint32_t)(lex->source[i] - '0');
        }
        *n += mq__jtext_encode(point, out + *n);
        return i;
    }
    out[(*n)++] = '\\';
    if ((unsigned char)c < 0x80) {
        out[(*n)++] = c;
        return at + 2;
    }
    /* Jinja spells the character as an escape before it looks at backslashes, so the backslash escapes a backslash. */
    size_t next = at + 1;
    const uint32_t point = mq__utf8_next(lex->source, lex->bytes, &next);
    char spelled[16];
    const char *const form = point < 0x100 ? "x%02x" : point < 0x10000 ? "u%04x" : "U%08x";
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    const int written = snprintf(spelled, sizeof spelled, form, (unsigned)point);
#pragma GCC diagnostic pop
    memcpy(out + *n, spelled, (size_t)written);
    *n += (size_t)written;
    return next;
}

static void lex_string(lexer *lex)
{
    const char quote = lex->source[lex->at];
    size_t end = lex->at + 1;
    bool escaped = false;
    while (end < lex->bytes && lex->source[end] != quote) {
        if (lex->source[end] == '\\') {
            escaped = true;
            end++;
        }
        end++;
    }
    if (end >= lex->bytes) mq__jtrap_throw(lex->trap, MQ_TEMPLATE, "expected a closing %c", quote);
    mq_jtoken *const token = add_token(lex, MQ_JT_CONST);
    const size_t start = lex->at + 1, bytes = end - start;
    token->value = mq__jvalue_text(lex->source + start, bytes);
    if (escaped) {
        /* The longest growth is a backslash and a character of 4 bytes, spelled as a backslash and 9 characters. */
        char *const out = mq__arena_text(lex->texts, bytes * 2 + 16);
        if (!out) mq__jtrap_throw_memory(lex->trap, lex->texts);
        size_t n = 0;
        for (size_t i = start; i < end;) {
            if (lex->source[i] == '\\') {
                i = unescape(lex, i, out, &n);
            } else {
                out[n++] = lex->source[i++];
            }
        }
        token->value = mq__jvalue_text(out, n);
    }
    advance_jinja_lex(lex, end + 1);
}

static bool lex_name(lexer *lex)
{
    size_t end = lex->at;
    while (end < lex->bytes) {
        size_t next = end;
        if (!mq__point_is_word(mq__utf8_next(lex->source, lex->bytes, &next))) break;
        end = next;
    }
    if (end == lex->at) return false;
    add_token(lex, MQ_JT_NAME)->value = mq__jvalue_text(lex->source + lex->at, end - lex->at);
    advance_jinja_lex(lex, end);
    return true;
}

static void balance(lexer *lex, char c)
{
    const char *const pairs = "{}()[]";
    const char *const found = strchr(pairs, c);
    if (!found) return;
    if ((found - pairs) % 2 == 0) {
        if (lex->open == MAX_BRACKETS)
            mq__jtrap_throw(lex->trap, MQ_LIMIT, "expected at most %d open brackets", MAX_BRACKETS);
        lex->brackets[lex->open++] = found[1];
        return;
    }
    if (lex->open == 0) mq__jtrap_throw(lex->trap, MQ_TEMPLATE, "unexpected '%c'", c);
    const char expected = lex->brackets[--lex->open];
    if (expected != c) mq__jtrap_throw(lex->trap, MQ_TEMPLATE, "expected '%c', got '%c'", expected, c);
}

static void lex_operator(lexer *lex)
{
    static const char *const pairs[] = {"//", "**", "==", "!=", ">=", "<="};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        if (!looking_at(lex, lex->at, pairs[i])) continue;
        add_token(lex, MQ_JT_OPERATOR)->op = MQ_J_OP2(pairs[i][0], pairs[i][1]);
        advance_jinja_lex(lex, lex->at + 2);
        return;
    }
    const char c = lex->source[lex->at];
    if (!c || !strchr("+-/*%~[](){}><=.:|,;", c)) {
        mq__jtrap_throw(lex->trap, MQ_TEMPLATE, "unexpected character '%c'", c);
    }
    balance(lex, c);
    add_token(lex, MQ_JT_OPERATOR)->op = (uint8_t)c;
    advance_jinja_lex(lex, lex->at + 1);
}

static void lex_tag(lexer *lex, bool block)
{
    lex->open = 0;
    while (lex->at < lex->bytes) {
        const size_t end = lex->open ? 0 : tag_end(lex, lex->at, block ? "%}" : "}}", block, block);
        if (end) {
            add_token(lex, block ? MQ_JT_BLOCK_END : MQ_JT_PRINT_END);
            advance_jinja_lex(lex, end);
            return;
        }
        const size_t space = skip_space_jinja_lex(lex, lex->at);
        const char c = lex->source[lex->at];
        if (space > lex->at) {
            advance_jinja_lex(lex, space);
        } else if (c >= '0' && c <= '9') {
            lex_number(lex);
        } else if (c == '"' || c == '\'') {
            lex_string(lex);
        } else if (!lex_name(lex)) {
            lex_operator(lex);
        }
    }
}

const mq_jtoken *mq__jinja_lex(mq_jtrap *trap, mq_arena *texts, mq_arena *scratch, const char *source, size_t bytes)
{
    lexer lex = {.trap = trap, .texts = texts, .scratch = scratch, .source = source, .bytes = bytes, .line = 1};
    lex.line_starting = true;
    trap->line = 1;
    while (lex.at < bytes) {
        size_t tag = lex.at;
        while (tag + 1 < bytes &&
               !(source[tag] == '{' && (source[tag + 1] == '{' || source[tag + 1] == '%' || source[tag + 1] == '#'))) {
            tag++;
        }
        if (tag + 1 >= bytes) {
            add_data(&lex, lex.at, bytes, '\0', false);
            advance_jinja_lex(&lex, bytes);
            break;
        }
        const char kind = source[tag + 1], sign = strip_sign(&lex, tag + 2);
        add_data(&lex, lex.at, tag, sign, kind != '{');
        advance_jinja_lex(&lex, tag);
        const size_t raw = bare_tag(&lex, tag, "raw", true);
        if (raw) {
            lex_raw(&lex, raw);
            continue;
        }
        if (kind == '#') {
            lex_comment(&lex);
            continue;
        }
        add_token(&lex, kind == '{' ? MQ_JT_PRINT_BEGIN : MQ_JT_BLOCK_BEGIN);
        advance_jinja_lex(&lex, tag + 2 + (sign != '\0'));
        lex_tag(&lex, kind == '%');
    }
    add_token(&lex, MQ_JT_END);
    return lex.tokens;
}
