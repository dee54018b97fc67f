#include "text/tokjson.h"

#include "base/ascii.h"
#include "base/error.h"
#include "base/unicode.h"

#include <string.h>

void mq__tokjson_init(mq_tokjson *json, const char *what, mq_text text, mq_error *error)
{
    *json = (mq_tokjson){.data = text.data, .bytes = text.bytes, .what = what, .error = error};
}

void mq__tokjson_free(mq_tokjson *json)
{
    mq__buf_free(&json->scratch);
}

bool mq__tokjson_expected(mq_tokjson *json, const char *expected)
{
    if (json->status != MQ_OK) return false;
    if (json->pos >= json->bytes) {
        json->status =
            mq__fail(json->error, MQ_FORMAT, "%s: byte %zu: expected %s, got the end", json->what, json->pos, expected);
        return false;
    }
    const unsigned char c = (unsigned char)json->data[json->pos];
    if (c > 0x20 && c < 0x7F) {
        json->status =
            mq__fail(json->error, MQ_FORMAT, "%s: byte %zu: expected %s, got '%c'", json->what, json->pos, expected, c);
    } else {
        json->status = mq__fail(json->error, MQ_FORMAT, "%s: byte %zu: expected %s, got byte 0x%02x", json->what,
                                json->pos, expected, c);
    }
    return false;
}

bool mq__tokjson_no_memory(mq_tokjson *json)
{
    if (json->status == MQ_OK) {
        json->status =
            mq__fail(json->error, MQ_NO_MEMORY, "%s: byte %zu: expected memory, got none", json->what, json->pos);
    }
    return false;
}

char mq__tokjson_peek(mq_tokjson *json)
{
    if (json->status != MQ_OK) return 0;
    while (json->pos < json->bytes) {
        const char c = json->data[json->pos];
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t') return c;
        json->pos++;
    }
    return 0;
}

bool mq__tokjson_open(mq_tokjson *json, char bracket)
{
    if (mq__tokjson_peek(json) != bracket) return mq__tokjson_expected(json, bracket == '{' ? "an object" : "an array");
    if (json->depth == MQ_TOKJSON_MAX_DEPTH) return mq__tokjson_expected(json, "at most 64 levels of nesting");
    json->begun &= ~((uint64_t)1 << json->depth);
    json->depth++;
    json->pos++;
    return true;
}

bool mq__tokjson_more(mq_tokjson *json, char bracket)
{
    const char c = mq__tokjson_peek(json);
    if (json->status != MQ_OK || json->depth == 0) return false;
    const uint64_t bit = (uint64_t)1 << (json->depth - 1);
    if (c == bracket) {
        json->pos++;
        json->depth--;
        return false;
    }
    if (json->begun & bit) {
        if (c != ',') return mq__tokjson_expected(json, bracket == '}' ? "',' or '}'" : "',' or ']'");
        json->pos++;
    }
    json->begun |= bit;
    return true;
}

bool mq__tokjson_key(mq_tokjson *json, mq_text *key)
{
    if (!mq__tokjson_string(json, key)) return false;
    if (mq__tokjson_peek(json) != ':') return mq__tokjson_expected(json, "':'");
    json->pos++;
    return true;
}

/* four hex digits at pos; moves pos behind them */
static bool read_unit(mq_tokjson *json, uint32_t *unit)
{
    *unit = 0;
    for (int i = 0; i < 4; i++, json->pos++) {
        const int digit = json->pos < json->bytes ? mq__hex_value(json->data[json->pos]) : -1;
        if (digit < 0) return mq__tokjson_expected(json, "four hexadecimal digits");
        *unit = *unit << 4 | (uint32_t)digit;
    }
    return true;
}

/* pos is behind "\u" */
static bool read_unicode_escape(mq_tokjson *json)
{
    uint32_t code, low;
    if (!read_unit(json, &code)) return false;
    if (code >= 0xDC00 && code < 0xE000) return mq__tokjson_expected(json, "no lone surrogate before this byte");
    if (code >= 0xD800 && code < 0xDC00) {
        if (json->bytes - json->pos < 2 || memcmp(json->data + json->pos, "\\u", 2) != 0) {
            return mq__tokjson_expected(json, "the second half of a surrogate pair");
        }
        json->pos += 2;
        if (!read_unit(json, &low)) return false;
        if (low < 0xDC00 || low >= 0xE000) return mq__tokjson_expected(json, "a low surrogate before this byte");
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    return mq__utf8_put(&json->scratch, code) || mq__tokjson_no_memory(json);
}

/* pos is at a backslash */
static bool read_escape_tokjson(mq_tokjson *json)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char c = json->pos + 1 < json->bytes ? json->data[json->pos + 1] : 0;
    if (c == 'u') {
        json->pos += 2;
        return read_unicode_escape(json);
    }
    const char *found = c ? strchr(from, c) : NULL;
    json->pos++;
    if (!found) return mq__tokjson_expected(json, "an escape of JSON");
    json->pos++;
    return mq__buf_putc(&json->scratch, to[found - from]) || mq__tokjson_no_memory(json);
}

/* From pos, the bytes of a string that stand for themselves, checked as UTF-8; stops at '"', '\\' or a control. */
static bool plain_run(mq_tokjson *json)
{
    const unsigned char *p = (const unsigned char *)json->data;
    const size_t n = json->bytes;
    size_t i = json->pos;
    while (i < n) {
        const unsigned char c = p[i];
        if (c < 0x80) {
            if (c == '"' || c == '\\' || c < 0x20) break;
            i++;
        } else if (c >= 0xC2 && c < 0xE0 && i + 1 < n && (p[i + 1] & 0xC0) == 0x80) {
            i += 2; /* the byte alphabet's letters: most that is not ASCII */
        } else {
            json->pos = i;
            if (mq__utf8_next(json->data, n, &i) == MQ_UTF8_INVALID) return mq__tokjson_expected(json, "UTF-8");
        }
    }
    json->pos = i;
    return true;
}

bool mq__tokjson_string(mq_tokjson *json, mq_text *text)
{
    if (mq__tokjson_peek(json) != '"') return mq__tokjson_expected(json, "a string");
    size_t from = ++json->pos;
    bool escaped = false;
    for (;;) {
        if (!plain_run(json)) return false;
        const char c = json->pos < json->bytes ? json->data[json->pos] : 0;
        if (c == '"' && !escaped) {
            *text = (mq_text){json->data + from, json->pos - from};
            json->pos++;
            return true;
        }
        if (c != '"' && c != '\\') return mq__tokjson_expected(json, "the rest of a string");
        if (!escaped) mq__buf_clear(&json->scratch);
        escaped = true;
        if (!mq__buf_append(&json->scratch, json->data + from, json->pos - from)) return mq__tokjson_no_memory(json);
        if (c == '"') break;
        if (!read_escape_tokjson(json)) return false;
        from = json->pos;
    }
    json->pos++;
    *text = (mq_text){json->scratch.data, json->scratch.len};
    return true;
}

/* -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?; whole is set when there is neither fraction nor exponent */
static bool skip_number(mq_tokjson *json, bool *whole)
{
    const char *p = json->data;
    const size_t n = json->bytes;
    size_t i = json->pos;
    if (i < n && p[i] == '-') i++;
    size_t digits = i;
    while (i < n && p[i] >= '0' && p[i] <= '9')
        i++;
    bool ok = i > digits && (p[digits] != '0' || i == digits + 1);
    *whole = true;
    if (ok && i < n && p[i] == '.') {
        *whole = false;
        digits = ++i;
        while (i < n && p[i] >= '0' && p[i] <= '9')
            i++;
        ok = i > digits;
    }
    if (ok && i < n && (p[i] | 0x20) == 'e') {
        *whole = false;
        i++;
        if (i < n && (p[i] == '+' || p[i] == '-')) i++;
        digits = i;
        while (i < n && p[i] >= '0' && p[i] <= '9')
            i++;
        ok = i > digits;
    }
    if (!ok) return mq__tokjson_expected(json, "a JSON value");
    json->pos = i;
    return true;
}

bool mq__tokjson_integer(mq_tokjson *json, int64_t min, int64_t max, int64_t *value)
{
    const char c = mq__tokjson_peek(json);
    const size_t from = json->pos;
    bool whole = false;
    if (json->status != MQ_OK) return false;
    if (c != '-' && (c < '0' || c > '9')) return mq__tokjson_expected(json, "an integer");
    if (!skip_number(json, &whole)) return false;
    const size_t to = json->pos;
    int64_t sum = 0;
    bool fits = whole;
    for (size_t i = from + (c == '-'); fits && i < to; i++) {
        const int digit = json->data[i] - '0';
        fits = !__builtin_mul_overflow(sum, (int64_t)10, &sum) &&
               !__builtin_add_overflow(sum, (int64_t)(c == '-' ? -digit : digit), &sum);
    }
    if (!fits || sum < min || sum > max) {
        const size_t shown = to - from < 40 ? to - from : 40;
        json->status = mq__fail(json->error, MQ_FORMAT, "%s: byte %zu: expected an integer in %lld..%lld, got %.*s",
                                json->what, from, (long long)min, (long long)max, (int)shown, json->data + from);
        return false;
    }
    *value = sum;
    return true;
}

static bool take_word(mq_tokjson *json, const char *word)
{
    const size_t n = strlen(word);
    if (json->bytes - json->pos < n || memcmp(json->data + json->pos, word, n) != 0) return false;
    json->pos += n;
    return true;
}

bool mq__tokjson_bool(mq_tokjson *json, bool *value)
{
    const char c = mq__tokjson_peek(json);
    if (json->status == MQ_OK && ((c == 't' && take_word(json, "true")) || (c == 'f' && take_word(json, "false")))) {
        *value = c == 't';
        return true;
    }
    return mq__tokjson_expected(json, "true or false");
}

bool mq__tokjson_null(mq_tokjson *json)
{
    return mq__tokjson_peek(json) == 'n' && take_word(json, "null");
}

static bool skip_scalar(mq_tokjson *json)
{
    mq_text text;
    bool flag;
    const char c = mq__tokjson_peek(json);
    if (c == '"') return mq__tokjson_string(json, &text);
    if (c == 't' || c == 'f') return mq__tokjson_bool(json, &flag);
    if (c == 'n') return mq__tokjson_null(json) || mq__tokjson_expected(json, "a JSON value");
    return json->status == MQ_OK && skip_number(json, &flag);
}

bool mq__tokjson_skip(mq_tokjson *json, mq_text *value)
{
    mq_text key;
    const unsigned outer = json->depth;
    char closing[MQ_TOKJSON_MAX_DEPTH + 1];
    char c = mq__tokjson_peek(json);
    const size_t from = json->pos;
    for (;;) {
        if (c == '{' || c == '[') {
            if (!mq__tokjson_open(json, c)) return false;
            closing[json->depth] = c == '{' ? '}' : ']';
        } else if (!skip_scalar(json)) {
            return false;
        }
        while (json->depth > outer && !mq__tokjson_more(json, closing[json->depth])) {
            if (json->status != MQ_OK) return false;
        }
        if (json->depth == outer) break;
        if (closing[json->depth] == '}' && !mq__tokjson_key(json, &key)) return false;
        c = mq__tokjson_peek(json);
    }
    if (value) *value = (mq_text){json->data + from, json->pos - from};
    return true;
}

bool mq__tokjson_end(mq_tokjson *json)
{
    (void)mq__tokjson_peek(json);
    if (json->status != MQ_OK) return false;
    return json->pos == json->bytes || mq__tokjson_expected(json, "the end");
}
