#include "text/json_scan.h"

#include "base/ascii.h"

#include <string.h>

/* ---------------------------------------------------------------- UTF-8 */

bool mq__utf8_check(mq_utf8_check *check, uint8_t byte)
{
    if (check->left) {
        if (byte < check->low || byte > check->high) return false;
        *check = (mq_utf8_check){(uint8_t)(check->left - 1), 0x80, 0xBF};
        return true;
    }
    if (byte < 0x80) return true;
    if (byte < 0xC2 || byte > 0xF4) return false;
    *check = (mq_utf8_check){byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3, 0x80, 0xBF};
    /* No overlong forms, no surrogates, nothing above U+10FFFF. */
    if (byte == 0xE0) check->low = 0xA0;
    if (byte == 0xED) check->high = 0x9F;
    if (byte == 0xF0) check->low = 0x90;
    if (byte == 0xF4) check->high = 0x8F;
    return true;
}

/* ---------------------------------------------------------------- strings */

enum { STRING_PLAIN, STRING_ESCAPE, STRING_HEX, STRING_PAIR, STRING_PAIR_U };

static size_t put_utf8(uint32_t code, char out[4])
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    const size_t count = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = count - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (code & 0x3F));
        code >>= 6;
    }
    out[0] = (char)((0xF00 >> count) | code);
    return count;
}

static mq_scan escaped_byte(mq_json_string *s, uint8_t byte, char *out, size_t *count)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    if (byte == 'u') {
        s->state = STRING_HEX;
        s->digits = 0;
        s->code = 0;
        return MQ_SCAN_MORE;
    }
    const char *const found = byte ? strchr(names, byte) : NULL;
    if (!found) return MQ_SCAN_BAD;
    s->state = STRING_PLAIN;
    out[0] = values[found - names];
    *count = 1;
    return MQ_SCAN_MORE;
}

static mq_scan hex_byte(mq_json_string *s, uint8_t byte, char *out, size_t *count)
{
    const int digit = mq__hex_value((char)byte);
    if (digit < 0) return MQ_SCAN_BAD;
    s->code = (uint16_t)(s->code << 4 | digit);
    if (++s->digits < 4) return MQ_SCAN_MORE;
    const bool first = s->code >= 0xD800 && s->code < 0xDC00, second = s->code >= 0xDC00 && s->code < 0xE000;
    if (second != (s->high != 0)) return MQ_SCAN_BAD;
    s->state = first ? STRING_PAIR : STRING_PLAIN;
    if (first) {
        s->high = s->code;
        return MQ_SCAN_MORE;
    }
    const uint32_t pair = 0x10000 + (((uint32_t)s->high & 0x3FF) << 10) + (s->code & 0x3FF);
    *count = put_utf8(second ? pair : s->code, out);
    s->high = 0;
    return MQ_SCAN_MORE;
}

mq_scan mq__json_string_byte(mq_json_string *s, uint8_t byte, char out[4], size_t *count)
{
    *count = 0;
    switch (s->state) {
    case STRING_ESCAPE:
        return escaped_byte(s, byte, out, count);
    case STRING_HEX:
        return hex_byte(s, byte, out, count);
    case STRING_PAIR:
        s->state = STRING_PAIR_U;
        return byte == '\\' ? MQ_SCAN_MORE : MQ_SCAN_BAD;
    case STRING_PAIR_U:
        return byte == 'u' ? escaped_byte(s, byte, out, count) : MQ_SCAN_BAD;
    default:
        break;
    }
    if (byte < 0x20 || !mq__utf8_check(&s->utf8, byte)) return MQ_SCAN_BAD;
    if (byte == '"') return MQ_SCAN_END;
    if (byte == '\\') {
        s->state = STRING_ESCAPE;
        return MQ_SCAN_MORE;
    }
    out[0] = (char)byte;
    *count = 1;
    return MQ_SCAN_MORE;
}

/* ---------------------------------------------------------------- values */

enum {
    SCAN_VALUE,
    SCAN_FIRST_VALUE, /* or ']' */
    SCAN_FIRST_KEY,   /* or '}' */
    SCAN_KEY,
    SCAN_COLON,
    SCAN_STRING,
    SCAN_LITERAL,
    SCAN_MINUS,
    SCAN_ZERO,
    SCAN_WHOLE,
    SCAN_POINT,
    SCAN_FRACTION,
    SCAN_EXPONENT,
    SCAN_EXPONENT_SIGN,
    SCAN_EXPONENT_DIGITS,
    SCAN_NEXT, /* ',' or the end of the level */
    SCAN_OVER
};

static bool in_object(const mq_json_scan *s)
{
    const unsigned level = s->depth - 1u;
    return s->objects[level / 64] >> (level % 64) & 1;
}

static mq_scan value_ends(mq_json_scan *s)
{
    s->state = s->depth ? SCAN_NEXT : SCAN_OVER;
    return s->depth ? MQ_SCAN_MORE : MQ_SCAN_END;
}

static mq_scan open_level(mq_json_scan *s, bool object)
{
    if (s->depth == MQ_SCAN_DEPTH) return MQ_SCAN_BAD;
    const uint64_t bit = (uint64_t)1 << (s->depth % 64);
    uint64_t *const word = &s->objects[s->depth / 64];
    *word = object ? *word | bit : *word & ~bit;
    s->depth++;
    s->state = object ? SCAN_FIRST_KEY : SCAN_FIRST_VALUE;
    return MQ_SCAN_MORE;
}

static mq_scan close_level(mq_json_scan *s, bool object)
{
    if (in_object(s) != object) return MQ_SCAN_BAD;
    s->depth--;
    return value_ends(s);
}

static mq_scan begin_string(mq_json_scan *s, bool key)
{
    s->key = key;
    s->state = SCAN_STRING;
    s->string = (mq_json_string){0};
    return MQ_SCAN_MORE;
}

static mq_scan begin_literal(mq_json_scan *s, const char *literal)
{
    s->literal = literal;
    s->matched = 1;
    s->state = SCAN_LITERAL;
    return MQ_SCAN_MORE;
}

static mq_scan begin_value(mq_json_scan *s, uint8_t byte)
{
    switch (byte) {
    case '{':
        return open_level(s, true);
    case '[':
        return open_level(s, false);
    case '"':
        return begin_string(s, false);
    case 't':
        return begin_literal(s, "true");
    case 'f':
        return begin_literal(s, "false");
    case 'n':
        return begin_literal(s, "null");
    case '-':
        s->state = SCAN_MINUS;
        return MQ_SCAN_MORE;
    case '0':
        s->state = SCAN_ZERO;
        return MQ_SCAN_MORE;
    default:
        s->state = SCAN_WHOLE;
        return byte >= '1' && byte <= '9' ? MQ_SCAN_MORE : MQ_SCAN_BAD;
    }
}

/* The state that a byte leads to inside a number; SCAN_NEXT: it is not part of it. */
static uint8_t number_after(uint8_t state, uint8_t byte)
{
    const bool digit = byte >= '0' && byte <= '9', e = byte == 'e' || byte == 'E';
    switch (state) {
    case SCAN_MINUS:
        return byte == '0' ? SCAN_ZERO : digit ? SCAN_WHOLE : SCAN_NEXT;
    case SCAN_ZERO:
        return byte == '.' ? SCAN_POINT : e ? SCAN_EXPONENT : SCAN_NEXT;
    case SCAN_WHOLE:
        return digit ? SCAN_WHOLE : byte == '.' ? SCAN_POINT : e ? SCAN_EXPONENT : SCAN_NEXT;
    case SCAN_POINT:
        return digit ? SCAN_FRACTION : SCAN_NEXT;
    case SCAN_FRACTION:
        return digit ? SCAN_FRACTION : e ? SCAN_EXPONENT : SCAN_NEXT;
    case SCAN_EXPONENT:
        if (byte == '+' || byte == '-') return SCAN_EXPONENT_SIGN;
        break;
    default:
        break;
    }
    return digit ? SCAN_EXPONENT_DIGITS : SCAN_NEXT;
}

static bool number_may_end(uint8_t state)
{
    return state == SCAN_ZERO || state == SCAN_WHOLE || state == SCAN_FRACTION || state == SCAN_EXPONENT_DIGITS;
}

static mq_scan number_byte(mq_json_scan *s, uint8_t byte)
{
    const uint8_t next = number_after(s->state, byte);
    if (next != SCAN_NEXT) {
        s->state = next;
        return MQ_SCAN_MORE;
    }
    if (!number_may_end(s->state)) return MQ_SCAN_BAD;
    if (value_ends(s) == MQ_SCAN_END) return MQ_SCAN_AFTER;
    return mq__json_scan_byte(s, byte); /* in SCAN_NEXT: no deeper */
}

static mq_scan literal_byte(mq_json_scan *s, uint8_t byte)
{
    if (byte != (uint8_t)s->literal[s->matched]) return MQ_SCAN_BAD;
    return s->literal[++s->matched] ? MQ_SCAN_MORE : value_ends(s);
}

static mq_scan scanned_string_byte(mq_json_scan *s, uint8_t byte)
{
    char out[4];
    size_t count;
    const mq_scan got = mq__json_string_byte(&s->string, byte, out, &count);
    if (got != MQ_SCAN_END) return got;
    if (!s->key) return value_ends(s);
    s->state = SCAN_COLON;
    return MQ_SCAN_MORE;
}

/* A byte between tokens that is not white space. */
static mq_scan structure_byte(mq_json_scan *s, uint8_t byte)
{
    switch (s->state) {
    case SCAN_FIRST_VALUE:
        return byte == ']' ? close_level(s, false) : begin_value(s, byte);
    case SCAN_FIRST_KEY:
        if (byte == '}') return close_level(s, true);
        return byte == '"' ? begin_string(s, true) : MQ_SCAN_BAD;
    case SCAN_KEY:
        return byte == '"' ? begin_string(s, true) : MQ_SCAN_BAD;
    case SCAN_COLON:
        s->state = SCAN_VALUE;
        return byte == ':' ? MQ_SCAN_MORE : MQ_SCAN_BAD;
    case SCAN_NEXT:
        if (byte == '}' || byte == ']') return close_level(s, byte == '}');
        s->state = in_object(s) ? SCAN_KEY : SCAN_VALUE;
        return byte == ',' ? MQ_SCAN_MORE : MQ_SCAN_BAD;
    default:
        return begin_value(s, byte);
    }
}

mq_scan mq__json_scan_byte(mq_json_scan *s, uint8_t byte)
{
    if (s->state == SCAN_STRING) return scanned_string_byte(s, byte);
    if (s->state == SCAN_LITERAL) return literal_byte(s, byte);
    if (s->state >= SCAN_MINUS && s->state <= SCAN_EXPONENT_DIGITS) return number_byte(s, byte);
    if (s->state == SCAN_OVER) return MQ_SCAN_BAD;
    return mq__json_blank(byte) ? MQ_SCAN_MORE : structure_byte(s, byte);
}

unsigned mq__json_type(const char *text, size_t bytes)
{
    mq_json_scan s = {0};
    mq_scan got = MQ_SCAN_BAD;
    bool whole = true;
    for (size_t i = 0; i < bytes; i++) {
        got = mq__json_scan_byte(&s, (uint8_t)text[i]);
        if (got == MQ_SCAN_BAD || got == MQ_SCAN_AFTER || (got == MQ_SCAN_END && i + 1 < bytes)) return 0;
        whole = whole && s.state <= SCAN_WHOLE;
    }
    if (got == MQ_SCAN_MORE && s.depth == 0 && number_may_end(s.state)) {
        return whole ? MQ_TYPE_INTEGER | MQ_TYPE_NUMBER : MQ_TYPE_NUMBER;
    }
    if (got != MQ_SCAN_END) return 0;
    switch (text[0]) {
    case '{':
        return MQ_TYPE_OBJECT;
    case '[':
        return MQ_TYPE_ARRAY;
    case '"':
        return MQ_TYPE_STRING;
    case 'n':
        return MQ_TYPE_NULL;
    default:
        return MQ_TYPE_BOOLEAN;
    }
}
