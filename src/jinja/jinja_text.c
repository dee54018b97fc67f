#include "jinja/jinja_text.h"

#include "jinja/jinja_run.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define NESTING 200 /* of values inside values */

/* ---------------------------------------------------------------- building */

static void reserve_jinja_text(mq_jrun *run, mq_jtext *text, size_t extra)
{
    if (extra <= text->capacity - text->bytes) return;
    const size_t needed = text->bytes + extra;
    if (needed > run->limits.string_bytes || needed < extra) {
        mq__jrun_throw(run, MQ_LIMIT, "expected a string of at most %zu bytes, got %zu", run->limits.string_bytes,
                       needed);
    }
    size_t want = text->capacity * 2 > needed ? text->capacity * 2 : needed + 32;
    if (want > run->limits.string_bytes) want = run->limits.string_bytes;
    if (text->data && mq__arena_extend(&run->text, text->data + text->capacity, want - text->capacity)) {
        text->capacity = want;
        return;
    }
    char *const data = mq__jrun_text(run, want);
    if (text->bytes) {
        mq__jrun_charge_bytes(run, text->bytes / 8);
        memcpy(data, text->data, text->bytes);
    }
    text->data = data;
    text->capacity = want;
}

void mq__jtext_put(mq_jrun *run, mq_jtext *text, const char *bytes, size_t count)
{
    if (count == 0) return;
    reserve_jinja_text(run, text, count);
    memcpy(text->data + text->bytes, bytes, count);
    text->bytes += count;
}

void mq__jtext_puts(mq_jrun *run, mq_jtext *text, const char *string)
{
    mq__jtext_put(run, text, string, strlen(string));
}

void mq__jtext_putc(mq_jrun *run, mq_jtext *text, char byte)
{
    mq__jtext_put(run, text, &byte, 1);
}

void mq__jtext_put_point(mq_jrun *run, mq_jtext *text, uint32_t point)
{
    char bytes[4];
    mq__jtext_put(run, text, bytes, mq__jtext_encode(point, bytes));
}

void mq__jtext_fill(mq_jrun *run, mq_jtext *text, uint32_t point, size_t count)
{
    char bytes[4];
    const size_t each = mq__jtext_encode(point, bytes);
    if (count > run->limits.string_bytes / each) {
        mq__jrun_throw(run, MQ_LIMIT, "expected a string of at most %zu bytes, got more", run->limits.string_bytes);
    }
    mq__jrun_charge_points(run, count * each);
    reserve_jinja_text(run, text, count * each);
    for (size_t i = 0; i < count; i++) {
        mq__jtext_put(run, text, bytes, each);
    }
}

mq_jvalue mq__jtext_take(mq_jtext *text)
{
    return mq__jvalue_text(text->data ? text->data : "", text->bytes);
}

mq_jvalue mq__jvalue_copy(mq_jrun *run, const char *text, size_t bytes)
{
    char *const copy = mq__jrun_text(run, bytes);
    if (bytes) memcpy(copy, text, bytes);
    return mq__jvalue_text(copy, bytes);
}

/* ---------------------------------------------------------------- numbers */

/* Copies a number without white space around it and underscores inside; false when that is malformed. */
static bool clean_number(const char *text, size_t bytes, char *out, size_t capacity)
{
    mq__text_strip(&text, &bytes, true, true);
    size_t n = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] == '_') {
            const bool between =
                i > 0 && i + 1 < bytes && (unsigned)(text[i - 1] | 0x20) - '0' < 75 && text[i + 1] != '_';
            if (!between || text[i - 1] == '.' || text[i + 1] == '.') return false;
            continue;
        }
        if (n + 1 >= capacity) return false;
        out[n++] = text[i];
    }
    out[n] = '\0';
    return n > 0;
}

bool mq__jreal_parse(const char *text, size_t bytes, double *value)
{
    char clean[512];
    if (!clean_number(text, bytes, clean, sizeof clean)) return false;
    const char *digits = clean + (clean[0] == '+' || clean[0] == '-');
    static const char *const words[] = {"inf", "infinity", "nan"};
    bool known = false;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        known = known || strcasecmp(digits, words[i]) == 0;
    }
    if (!known && strspn(digits, "0123456789.eE+-") != strlen(digits)) return false; /* no hexadecimal floats */
    char *end = NULL;
    *value = strtod(clean, &end);
    return end != clean && *end == '\0';
}

bool mq__jint_parse(const char *text, size_t bytes, int base, int64_t *value, bool *overflow)
{
    char clean[512];
    *overflow = false;
    if (!clean_number(text, bytes, clean, sizeof clean)) return false;
    const bool negative = clean[0] == '-';
    const char *s = clean + (clean[0] == '+' || clean[0] == '-');
    const char mark = (char)(s[0] == '0' && s[1] ? s[1] | 0x20 : 0);
    const int marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (marked && (base == marked || base == 0)) {
        s += 2;
        base = marked;
    } else if (base == 0) {
        base = 10;
        if (s[0] == '0' && strspn(s, "0") != strlen(s)) return false;
    }
    if (!*s) return false;
    uint64_t sum = 0;
    for (; *s; s++) {
        const int lower = *s | 0x20;
        const int digit = *s >= '0' && *s <= '9' ? *s - '0' : lower >= 'a' && lower <= 'z' ? lower - 'a' + 10 : 99;
        if (digit >= base) return false;
        if (__builtin_mul_overflow(sum, (uint64_t)base, &sum) || __builtin_add_overflow(sum, (uint64_t)digit, &sum))
            *overflow = true;
    }
    if (sum > (uint64_t)INT64_MAX + negative) *overflow = true;
    if (*overflow) return false;
    *value = negative ? (int64_t)(0 - sum) : (int64_t)sum;
    return true;
}

/* ---------------------------------------------------------------- str and repr */

static void put_repr(mq_jrun *run, mq_jtext *text, mq_jvalue value, unsigned depth);

static void put_quoted(mq_jrun *run, mq_jtext *text, mq_jvalue value)
{
    const bool single = memchr(value.as.text, '\'', value.bytes) != NULL;
    const char quote = single && !memchr(value.as.text, '"', value.bytes) ? '"' : '\'';
    mq__jrun_charge_points(run, value.bytes);
    mq__jtext_putc(run, text, quote);
    for (size_t i = 0; i < value.bytes;) {
        const size_t start = i;
        const uint32_t point = mq__utf8_next(value.as.text, value.bytes, &i);
        char escape[16] = "";
        if (point == (unsigned char)quote || point == '\\') {
            snprintf(escape, sizeof escape, "\\%c", (char)point);
        } else if (point == '\n' || point == '\r' || point == '\t') {
            snprintf(escape, sizeof escape, "\\%c", point == '\n' ? 'n' : point == '\r' ? 'r' : 't');
        } else if (!mq__point_is_printable(point)) {
            if (point < 0x100) {
                snprintf(escape, sizeof escape, "\\x%02x", (unsigned)point);
            } else if (point < 0x10000) {
                snprintf(escape, sizeof escape, "\\u%04x", (unsigned)point);
            } else {
                snprintf(escape, sizeof escape, "\\U%08x", (unsigned)point);
            }
        }
        if (escape[0]) {
            mq__jtext_puts(run, text, escape);
        } else {
            mq__jtext_put(run, text, value.as.text + start, i - start);
        }
    }
    mq__jtext_putc(run, text, quote);
}

static void put_dict_jinja_text(mq_jrun *run, mq_jtext *text, const mq_jdict *dict, unsigned depth)
{
    mq__jtext_putc(run, text, '{');
    for (size_t i = 0; i < dict->count; i++) {
        if (i) mq__jtext_puts(run, text, ", ");
        put_repr(run, text, dict->entries[i].key, depth + 1);
        mq__jtext_puts(run, text, ": ");
        put_repr(run, text, dict->entries[i].value, depth + 1);
    }
    mq__jtext_putc(run, text, '}');
}

static void put_list_jinja_text(mq_jrun *run, mq_jtext *text, const mq_jlist *list, unsigned depth)
{
    static const struct {
        const char *open, *close;
    } brackets[] = {
        [MQ_J_PLAIN] = {"[", "]"},
        [MQ_J_TUPLE] = {"(", ")"},
        [MQ_J_KEYS] = {"dict_keys([", "])"},
        [MQ_J_VALUES] = {"dict_values([", "])"},
        [MQ_J_ITEMS] = {"dict_items([", "])"},
    };
    if (list->kind == MQ_J_GENERATOR) {
        mq__jtext_puts(run, text, "<generator object>");
        return;
    }
    if (list->kind == MQ_J_RANGE) {
        char line[100];
        int n = snprintf(line, sizeof line, "range(%" PRId64 ", %" PRId64, list->start, list->stop);
        if (list->step != 1) n += snprintf(line + n, sizeof line - (size_t)n, ", %" PRId64, list->step);
        line[n++] = ')';
        mq__jtext_put(run, text, line, (size_t)n);
        return;
    }
    mq__jtext_puts(run, text, brackets[list->kind].open);
    for (size_t i = 0; i < list->count; i++) {
        if (i) mq__jtext_puts(run, text, ", ");
        put_repr(run, text, list->items[i], depth + 1);
    }
    if (list->kind == MQ_J_TUPLE && list->count == 1) mq__jtext_putc(run, text, ',');
    mq__jtext_puts(run, text, brackets[list->kind].close);
}

static void put_object(mq_jrun *run, mq_jtext *text, mq_jvalue value)
{
    char line[64];
    switch (value.type) {
    case MQ_J_LOOP:
        snprintf(line, sizeof line, "<LoopContext %" PRId64 "/%" PRId64 ">", value.as.loop->index0 + 1,
                 mq__jloop_length(run, value.as.loop));
        mq__jtext_puts(run, text, line);
        return;
    case MQ_J_MACRO:
        mq__jtext_puts(run, text, value.as.macro->caller ? "<Macro anonymous" : "<Macro ");
        if (!value.as.macro->caller) put_quoted(run, text, run->program->names[value.as.macro->node->name]);
        mq__jtext_putc(run, text, '>');
        return;
    default:
        snprintf(line, sizeof line, "<%s object>", mq__jvalue_type_name(value));
        mq__jtext_puts(run, text, line);
    }
}

static void put_repr(mq_jrun *run, mq_jtext *text, mq_jvalue value, unsigned depth)
{
    if (depth > NESTING) mq__jrun_throw(run, MQ_LIMIT, "expected values nested less than %d deep", NESTING);
    mq__jrun_charge(run, 1);
    char number[MQ_J_NUMBER_BYTES];
    switch (value.type) {
    case MQ_J_UNDEFINED:
        mq__jtext_puts(run, text, "Undefined");
        return;
    case MQ_J_NONE:
        mq__jtext_puts(run, text, "None");
        return;
    case MQ_J_BOOL:
        mq__jtext_puts(run, text, value.as.boolean ? "True" : "False");
        return;
    case MQ_J_INT:
        mq__jtext_put(run, text, number, (size_t)snprintf(number, sizeof number, "%" PRId64, value.as.integer));
        return;
    case MQ_J_BIG:
        mq__jtext_put(run, text, value.as.text, value.bytes);
        return;
    case MQ_J_FLOAT:
        mq__jrun_charge(run, 40);
        mq__jtext_put(run, text, number, mq__real_print(value.as.real, number));
        return;
    case MQ_J_STRING:
        if (value.flags & MQ_J_MARKUP) mq__jtext_puts(run, text, "Markup(");
        put_quoted(run, text, value);
        if (value.flags & MQ_J_MARKUP) mq__jtext_putc(run, text, ')');
        return;
    case MQ_J_LIST:
        put_list_jinja_text(run, text, value.as.list, depth);
        return;
    case MQ_J_DICT:
        put_dict_jinja_text(run, text, value.as.dict, depth);
        return;
    case MQ_J_NAMESPACE:
        mq__jtext_puts(run, text, "<Namespace ");
        put_dict_jinja_text(run, text, value.as.dict, depth + 1);
        mq__jtext_putc(run, text, '>');
        return;
    default:
        put_object(run, text, value);
    }
}

void mq__jtext_put_repr(mq_jrun *run, mq_jtext *text, mq_jvalue value)
{
    put_repr(run, text, value, 0);
}

void mq__jtext_put_value(mq_jrun *run, mq_jtext *text, mq_jvalue value)
{
    if (value.type == MQ_J_STRING) {
        mq__jtext_put(run, text, value.as.text, value.bytes);
    } else if (value.type != MQ_J_UNDEFINED) {
        put_repr(run, text, value, 0);
    }
}

mq_jvalue mq__jvalue_soft_str(mq_jrun *run, mq_jvalue value)
{
    if (value.type == MQ_J_STRING) return value;
    mq_jtext text = {0};
    mq__jtext_put_value(run, &text, value);
    return mq__jtext_take(&text);
}

mq_jvalue mq__jvalue_str(mq_jrun *run, mq_jvalue value)
{
    value = mq__jvalue_soft_str(run, value);
    value.flags = 0;
    return value;
}

mq_jvalue mq__jvalue_escape(mq_jrun *run, mq_jvalue value)
{
    if (value.type == MQ_J_STRING && (value.flags & MQ_J_MARKUP)) return value;
    value = mq__jvalue_str(run, value);
    mq_jtext text = {0};
    mq__jrun_charge_points(run, value.bytes);
    for (size_t i = 0; i < value.bytes; i++) {
        static const char marks[] = "&<>'\"";
        static const char *const entities[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
        const char c = value.as.text[i];
        const char *const mark = c ? strchr(marks, c) : NULL;
        if (mark) {
            mq__jtext_puts(run, &text, entities[mark - marks]);
        } else {
            mq__jtext_putc(run, &text, c);
        }
    }
    mq_jvalue result = mq__jtext_take(&text);
    result.flags = MQ_J_MARKUP;
    return result;
}

/* The left side is extended in place when it ends the newest text: building a prompt part by part copies each part once. */
mq_jvalue mq__jvalue_join(mq_jrun *run, mq_jvalue a, mq_jvalue b)
{
    const uint8_t flags = (a.flags | b.flags) & MQ_J_MARKUP;
    if (flags) {
        a = mq__jvalue_escape(run, a);
        b = mq__jvalue_escape(run, b);
    }
    const size_t bytes = (size_t)a.bytes + b.bytes;
    if (bytes > run->limits.string_bytes) {
        mq__jrun_throw(run, MQ_LIMIT, "expected a string of at most %zu bytes, got %zu", run->limits.string_bytes,
                       bytes);
    }
    mq_jvalue result = mq__jvalue_text(a.as.text, bytes);
    result.flags = flags;
    if (b.bytes == 0) return result;
    mq__jrun_charge_bytes(run, b.bytes);
    if (a.bytes > 0 && mq__arena_extend(&run->text, a.as.text + a.bytes, b.bytes)) {
        memcpy(run->text.next - b.bytes, b.as.text, b.bytes);
        return result;
    }
    mq__jrun_charge_bytes(run, a.bytes);
    char *const data = mq__jrun_text(run, bytes);
    memcpy(data, a.as.text, a.bytes);
    memcpy(data + a.bytes, b.as.text, b.bytes);
    result.as.text = data;
    return result;
}

/* Whether the character at the start of text is white space; *next is its length. */
static bool leading_space(const char *text, size_t bytes, size_t *next)
{
    *next = 0;
    if ((unsigned char)text[0] < 0x80) {
        *next = 1;
        return mq__point_is_space((unsigned char)text[0]);
    }
    return mq__point_is_space(mq__utf8_next(text, bytes, next));
}

void mq__text_strip(const char **text, size_t *bytes, bool left, bool right)
{
    size_t start = 0, end = *bytes, length;
    while (left && start < end && leading_space(*text + start, end - start, &length)) {
        start += length;
    }
    while (right && end > start) {
        const size_t last = (unsigned char)(*text)[end - 1] < 0x80 ? end - 1 : mq__utf8_before(*text, end);
        if (!leading_space(*text + last, end - last, &length)) break;
        end = last;
    }
    *text += start;
    *bytes = end - start;
}
