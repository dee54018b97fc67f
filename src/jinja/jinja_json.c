/* `tojson` as Hugging Face's templates get it: Python's json.dumps with ensure_ascii off. */
#include "jinja/jinja_run.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define NESTING 200

typedef struct writer {
    mq_jtext text;
    mq_jvalue item_separator, key_separator;
    mq_jvalue indent; /* the text of one level; MISSING: everything on one line */
    bool ascii, sort;
} writer;

void mq__jtext_put_json_string(mq_jrun *run, mq_jtext *text, mq_jvalue string, bool ascii)
{
    mq__jrun_charge(run, string.bytes / 16 + 1);
    mq__jtext_putc(run, text, '"');
    size_t plain = 0; /* start of the run of bytes that are copied as they are */
    for (size_t i = 0; i < string.bytes;) {
        const size_t start = i;
        uint32_t point = (unsigned char)string.as.text[i];
        if (point < 0x80 || !ascii) {
            i++;
        } else {
            point = mq__utf8_next(string.as.text, string.bytes, &i);
        }
        if (point >= 0x20 && point != '"' && point != '\\' && (point < 0x7f || !ascii)) continue;
        mq__jtext_put(run, text, string.as.text + plain, start - plain);
        plain = i;
        static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
        const char *const known = point && point < 0x80 ? strchr(from, (int)point) : NULL;
        char escape[16];
        if (known) {
            snprintf(escape, sizeof escape, "\\%c", to[known - from]);
        } else if (point < 0x10000) {
            snprintf(escape, sizeof escape, "\\u%04x", (unsigned)point);
        } else {
            const unsigned rest = point - 0x10000;
            snprintf(escape, sizeof escape, "\\u%04x\\u%04x", 0xd800 + (rest >> 10), 0xdc00 + (rest & 0x3ff));
        }
        mq__jtext_puts(run, text, escape);
    }
    mq__jtext_put(run, text, string.as.text + plain, string.bytes - plain);
    mq__jtext_putc(run, text, '"');
}

static void put_value(mq_jrun *run, writer *out, mq_jvalue value, unsigned depth);

static void put_break(mq_jrun *run, writer *out, unsigned depth)
{
    if (out->indent.type == MQ_J_MISSING) return;
    mq__jtext_putc(run, &out->text, '\n');
    for (unsigned i = 0; i < depth; i++) {
        mq__jtext_put(run, &out->text, out->indent.as.text, out->indent.bytes);
    }
}

static void put_separator(mq_jrun *run, writer *out, mq_jvalue separator)
{
    mq__jtext_put(run, &out->text, separator.as.text, separator.bytes);
}

static void put_real_jinja_json(mq_jrun *run, writer *out, double value)
{
    char number[MQ_J_NUMBER_BYTES];
    mq__jrun_charge(run, 40);
    if (isnan(value)) {
        mq__jtext_puts(run, &out->text, "NaN");
    } else if (isinf(value)) {
        mq__jtext_puts(run, &out->text, value < 0 ? "-Infinity" : "Infinity");
    } else {
        mq__jtext_put(run, &out->text, number, mq__real_print(value, number));
    }
}

static void put_list_jinja_json(mq_jrun *run, writer *out, const mq_jlist *list, unsigned depth)
{
    if (list->count == 0) {
        mq__jtext_puts(run, &out->text, "[]");
        return;
    }
    mq__jtext_putc(run, &out->text, '[');
    for (size_t i = 0; i < list->count; i++) {
        if (i) put_separator(run, out, out->item_separator);
        put_break(run, out, depth + 1);
        put_value(run, out, list->items[i], depth + 1);
    }
    put_break(run, out, depth);
    mq__jtext_putc(run, &out->text, ']');
}

static void put_key(mq_jrun *run, writer *out, mq_jvalue key, unsigned depth)
{
    if (key.type == MQ_J_STRING) {
        mq__jtext_put_json_string(run, &out->text, key, out->ascii);
        return;
    }
    if (key.type != MQ_J_NONE && !mq__jvalue_is_number(key)) {
        mq__jrun_throw(run, MQ_TEMPLATE, "tojson: expected keys that JSON has, got %s", mq__jvalue_type_name(key));
    }
    mq__jtext_putc(run, &out->text, '"');
    put_value(run, out, key, depth);
    mq__jtext_putc(run, &out->text, '"');
}

static void put_dict_jinja_json(mq_jrun *run, writer *out, const mq_jdict *dict, unsigned depth)
{
    if (dict->count == 0) {
        mq__jtext_puts(run, &out->text, "{}");
        return;
    }
    const mq_jentry *entries = dict->entries;
    if (out->sort) {
        mq_jvalue *const keys = mq__jrun_alloc(run, dict->count, sizeof *keys);
        mq_jvalue *const order = mq__jrun_alloc(run, dict->count, sizeof *order);
        for (size_t i = 0; i < dict->count; i++) {
            keys[i] = entries[i].key;
            order[i] = mq__jvalue_int((int64_t)i);
        }
        mq__jlist_sort(run, order, keys, dict->count, false);
        mq_jentry *const sorted = mq__jrun_alloc(run, dict->count, sizeof *sorted);
        for (size_t i = 0; i < dict->count; i++) {
            sorted[i] = entries[order[i].as.integer];
        }
        entries = sorted;
    }
    mq__jtext_putc(run, &out->text, '{');
    for (size_t i = 0; i < dict->count; i++) {
        if (i) put_separator(run, out, out->item_separator);
        put_break(run, out, depth + 1);
        put_key(run, out, entries[i].key, depth + 1);
        put_separator(run, out, out->key_separator);
        put_value(run, out, entries[i].value, depth + 1);
    }
    put_break(run, out, depth);
    mq__jtext_putc(run, &out->text, '}');
}

static void put_value(mq_jrun *run, writer *out, mq_jvalue value, unsigned depth)
{
    if (depth > NESTING) mq__jrun_throw(run, MQ_LIMIT, "expected values nested less than %d deep", NESTING);
    mq__jrun_charge(run, 1);
    char number[32];
    switch (value.type) {
    case MQ_J_NONE:
        mq__jtext_puts(run, &out->text, "null");
        return;
    case MQ_J_BOOL:
        mq__jtext_puts(run, &out->text, value.as.boolean ? "true" : "false");
        return;
    case MQ_J_INT:
        snprintf(number, sizeof number, "%" PRId64, value.as.integer);
        mq__jtext_puts(run, &out->text, number);
        return;
    case MQ_J_BIG:
        mq__jtext_put(run, &out->text, value.as.text, value.bytes);
        return;
    case MQ_J_FLOAT:
        put_real_jinja_json(run, out, value.as.real);
        return;
    case MQ_J_STRING:
        mq__jtext_put_json_string(run, &out->text, value, out->ascii);
        return;
    case MQ_J_LIST:
        if (value.as.list->kind > MQ_J_TUPLE) break;
        put_list_jinja_json(run, out, value.as.list, depth);
        return;
    case MQ_J_DICT:
        put_dict_jinja_json(run, out, value.as.dict, depth);
        return;
    default:
        break;
    }
    mq__jrun_throw(run, MQ_TEMPLATE, "tojson: expected a value that JSON has, got %s", mq__jvalue_type_name(value));
}

mq_jvalue mq__jinja_tojson(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    static const char *const names[] = {"ensure_ascii", "indent", "separators", "sort_keys"};
    mq_jvalue given[4];
    mq__jargs_bind(run, "tojson", args, names, 4, given);
    writer out = {.ascii = mq__jvalue_truth(given[0]), .sort = mq__jvalue_truth(given[3])};
    out.key_separator = mq__jvalue_literal(": ");
    out.item_separator = mq__jvalue_literal(", ");
    if (given[1].type == MQ_J_STRING) {
        out.indent = given[1];
    } else if (given[1].type != MQ_J_MISSING && given[1].type != MQ_J_NONE) {
        const int64_t width = mq__jvalue_integer(run, given[1], "tojson indent");
        mq_jtext spaces = {0};
        mq__jtext_fill(run, &spaces, ' ', width > 0 ? (size_t)width : 0);
        out.indent = mq__jtext_take(&spaces);
    }
    if (out.indent.type != MQ_J_MISSING) out.item_separator = mq__jvalue_literal(",");
    if (given[2].type != MQ_J_MISSING && given[2].type != MQ_J_NONE) {
        const mq_jlist *const pair = mq__jvalue_to_list(run, given[2], MQ_J_PLAIN);
        if (pair->count != 2 || pair->items[0].type != MQ_J_STRING || pair->items[1].type != MQ_J_STRING) {
            mq__jrun_throw(run, MQ_TEMPLATE, "tojson: expected two strings as separators");
        }
        out.item_separator = pair->items[0];
        out.key_separator = pair->items[1];
    }
    put_value(run, &out, self, 0);
    return mq__jtext_take(&out.text);
}
