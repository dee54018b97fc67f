#include "jinja/jinja_value.h"

#include "base/error.h"
#include "jinja/jinja_run.h"
#include "jinja/jinja_text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#define NESTING    200 /* of values inside values, for what walks them */
#define INDEX_FROM 12  /* entries from which a dict gets a hash index */
#define MAX_ITEMS  ((size_t)1 << 28)

/* ---------------------------------------------------------------- errors */

void mq__jtrap_throw(mq_jtrap *trap, mq_status status, const char *format, ...)
{
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (n < 0) n = 0;
    if ((size_t)n >= sizeof text) n = (int)sizeof text - 1;
    /* A cut or a single byte of a hostile template must not make the report invalid UTF-8. */
    for (int i = 0; i < n;) {
        int length = 1;
        while (i + length < n && length < 4 && ((unsigned char)text[i + length] & 0xc0) == 0x80) {
            length++;
        }
        if (!mq__utf8_valid(text + i, (size_t)length)) memset(text + i, '?', (size_t)length);
        i += length;
    }
    text[n] = '\0';
    trap->status = status;
    mq__fail(trap->error, status, "template: line %u: %s", (unsigned)trap->line, text);
    longjmp(trap->target, 1);
}

void mq__jtrap_throw_memory(mq_jtrap *trap, const mq_arena *arena)
{
    if (arena->over) mq__jtrap_throw(trap, MQ_LIMIT, "expected at most %zu bytes of memory, got more", arena->max);
    mq__jtrap_throw(trap, MQ_NO_MEMORY, "out of memory");
}

void mq__jvalue_fail_undefined(mq_jrun *run, mq_jvalue value)
{
    const int bytes = value.bytes < 200 ? (int)value.bytes : 200;
    const char *const text = value.as.text ? value.as.text : "";
    if (value.flags == MQ_J_HINT_MESSAGE) mq__jrun_throw(run, MQ_TEMPLATE, "%.*s", bytes, text);
    if (value.flags == MQ_J_HINT_NAME) mq__jrun_throw(run, MQ_TEMPLATE, "'%.*s' is undefined", bytes, text);
    const mq_jvalue object = {.type = (uint8_t)(value.flags - MQ_J_HINT_ATTRIBUTE)};
    mq__jrun_throw(run, MQ_TEMPLATE, "'%s' object has no attribute '%.*s'",
                   object.type == MQ_J_LIST ? "list" : mq__jvalue_type_name(object), bytes, text);
}

/* ---------------------------------------------------------------- making */

mq_jvalue mq__jvalue_literal(const char *text)
{
    return mq__jvalue_text(text, strlen(text));
}

mq_jvalue mq__jvalue_undefined(uint8_t hint, const char *text, size_t bytes)
{
    return (mq_jvalue){.type = MQ_J_UNDEFINED, .flags = hint, .bytes = (uint32_t)bytes, .as.text = text};
}

mq_jlist *mq__jlist_new(mq_jrun *run, mq_jlist_kind kind, size_t capacity)
{
    mq_jlist *const list = mq__jrun_alloc(run, 1, sizeof *list);
    list->kind = kind;
    if (capacity) list->items = mq__jrun_alloc(run, capacity, sizeof *list->items);
    list->capacity = capacity;
    return list;
}

void mq__jlist_push(mq_jrun *run, mq_jlist *list, mq_jvalue value)
{
    if (list->count == list->capacity) {
        const size_t capacity = list->capacity ? list->capacity * 2 : 4;
        if (capacity > MAX_ITEMS) mq__jrun_throw(run, MQ_LIMIT, "expected at most %zu items in a list", MAX_ITEMS);
        mq_jvalue *const items = mq__jrun_alloc(run, capacity, sizeof *items);
        if (list->count) memcpy(items, list->items, list->count * sizeof *items);
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = value;
}

mq_jvalue mq__jlist_at(const mq_jlist *list, size_t i)
{
    if (list->kind == MQ_J_RANGE) { /* the item fits 64 bits, i * step may not */
        return mq__jvalue_int((int64_t)((uint64_t)list->start + i * (uint64_t)list->step));
    }
    return list->items[i];
}

mq_jvalue mq__jvalue_pair(mq_jrun *run, mq_jvalue a, mq_jvalue b)
{
    mq_jlist *const pair = mq__jlist_new(run, MQ_J_TUPLE, 2);
    pair->items[0] = a;
    pair->items[1] = b;
    pair->count = 2;
    return mq__jvalue_list(pair);
}

/* ---------------------------------------------------------------- dicts */

bool mq__jvalue_hash(mq_jvalue value, unsigned depth, uint64_t *hash)
{
    switch (value.type) {
    case MQ_J_STRING:
        *hash = XXH3_64bits(value.as.text, value.bytes);
        return true;
    case MQ_J_NONE:
    case MQ_J_UNDEFINED:
        *hash = value.type;
        return true;
    case MQ_J_BOOL:
    case MQ_J_INT:
    case MQ_J_BIG:
    case MQ_J_FLOAT: {
        /* 1, 1.0 and True are one key. */
        const double real = mq__jvalue_number(value);
        *hash = XXH3_64bits(&real, sizeof real);
        if (real == 0) *hash = 0; /* -0.0 */
        return true;
    }
    case MQ_J_LIST: {
        const mq_jlist *const list = value.as.list;
        if (list->kind == MQ_J_PLAIN || list->kind >= MQ_J_KEYS || depth > NESTING) return false;
        *hash = list->count;
        if (list->kind != MQ_J_TUPLE) return true;
        for (size_t i = 0; i < list->count; i++) {
            uint64_t item;
            if (!mq__jvalue_hash(list->items[i], depth + 1, &item)) return false;
            *hash = (*hash ^ item) * 0x9e3779b97f4a7c15u;
        }
        return true;
    }
    case MQ_J_DICT:
        return false;
    default:
        *hash = (uint64_t)(uintptr_t)value.as.list >> 4;
        return true;
    }
}

mq_jdict *mq__jdict_new(mq_jrun *run, size_t capacity)
{
    mq_jdict *const dict = mq__jrun_alloc(run, 1, sizeof *dict);
    if (capacity) dict->entries = mq__jrun_alloc(run, capacity, sizeof *dict->entries);
    dict->capacity = capacity;
    return dict;
}

static void index_entry(mq_jrun *run, mq_jdict *dict, size_t i)
{
    uint64_t hash = 0;
    (void)mq__jvalue_hash(dict->entries[i].key, 0, &hash);
    size_t slot = (size_t)hash & (dict->slots - 1), probes = 0;
    for (; dict->index[slot]; probes++) {
        slot = (slot + 1) & (dict->slots - 1);
    }
    mq__jrun_charge(run, probes / 8);
    dict->index[slot] = (uint32_t)i + 1;
}

void mq__jdict_append(mq_jrun *run, mq_jdict *dict, mq_jvalue key, mq_jvalue value)
{
    if (dict->count == dict->capacity) {
        const size_t capacity = dict->capacity ? dict->capacity * 2 : 4;
        if (capacity > MAX_ITEMS) mq__jrun_throw(run, MQ_LIMIT, "expected at most %zu entries in a dict", MAX_ITEMS);
        mq_jentry *const entries = mq__jrun_alloc(run, capacity, sizeof *entries);
        if (dict->count) memcpy(entries, dict->entries, dict->count * sizeof *entries);
        dict->entries = entries;
        dict->capacity = capacity;
    }
    dict->entries[dict->count++] = (mq_jentry){key, value};
    if (dict->count < INDEX_FROM) return;
    if (dict->count * 2 <= dict->slots) {
        index_entry(run, dict, dict->count - 1);
        return;
    }
    dict->slots = dict->slots ? dict->slots * 2 : 64;
    dict->index = mq__jrun_alloc(run, dict->slots, sizeof *dict->index);
    for (size_t i = 0; i < dict->count; i++) {
        index_entry(run, dict, i);
    }
}

mq_jvalue *mq__jdict_get(mq_jrun *run, const mq_jdict *dict, mq_jvalue key)
{
    uint64_t hash = 0;
    if (!dict->index) {
        for (size_t i = 0; i < dict->count; i++) {
            const mq_jvalue known = dict->entries[i].key;
            if (known.type == MQ_J_STRING && key.type == MQ_J_STRING) { /* nearly always */
                if (known.bytes == key.bytes && memcmp(known.as.text, key.as.text, key.bytes) == 0) {
                    return &dict->entries[i].value;
                }
            } else if (mq__jvalue_hash(key, 0, &hash) && mq__jvalue_equal(run, known, key)) {
                return &dict->entries[i].value;
            }
        }
        return NULL;
    }
    if (!mq__jvalue_hash(key, 0, &hash)) return NULL;
    size_t slot = (size_t)hash & (dict->slots - 1), probes = 0;
    mq_jvalue *found = NULL;
    for (; dict->index[slot] && !found; probes++) {
        mq_jentry *const entry = &dict->entries[dict->index[slot] - 1];
        if (mq__jvalue_equal(run, entry->key, key)) found = &entry->value;
        slot = (slot + 1) & (dict->slots - 1);
    }
    mq__jrun_charge(run, probes / 8);
    return found;
}

void mq__jdict_put(mq_jrun *run, mq_jdict *dict, mq_jvalue key, mq_jvalue value)
{
    uint64_t hash;
    if (!mq__jvalue_hash(key, 0, &hash)) {
        mq__jrun_throw(run, MQ_TEMPLATE, "expected a hashable key, got %s", mq__jvalue_type_name(key));
    }
    mq_jvalue *const known = mq__jdict_get(run, dict, key);
    if (known) {
        *known = value;
    } else {
        mq__jdict_append(run, dict, key, value);
    }
}

/* ---------------------------------------------------------------- asking */

const char *mq__jvalue_type_name(mq_jvalue value)
{
    static const char *const names[MQ_J_TYPES] = {
        [MQ_J_MISSING] = "nothing",
        [MQ_J_UNDEFINED] = "Undefined",
        [MQ_J_NONE] = "NoneType",
        [MQ_J_BOOL] = "bool",
        [MQ_J_INT] = "int",
        [MQ_J_BIG] = "int",
        [MQ_J_FLOAT] = "float",
        [MQ_J_STRING] = "str",
        [MQ_J_LIST] = "list",
        [MQ_J_DICT] = "dict",
        [MQ_J_NAMESPACE] = "Namespace",
        [MQ_J_LOOP] = "LoopContext",
        [MQ_J_MACRO] = "Macro",
        [MQ_J_FUNCTION] = "function",
        [MQ_J_METHOD] = "method",
        [MQ_J_CYCLER] = "Cycler",
        [MQ_J_JOINER] = "Joiner",
    };
    static const char *const lists[] = {"list",      "tuple",       "range",     "generator",
                                        "dict_keys", "dict_values", "dict_items"};
    if (value.type == MQ_J_STRING && (value.flags & MQ_J_MARKUP)) return "Markup";
    if (value.type == MQ_J_LIST && value.as.list) return lists[value.as.list->kind];
    return names[value.type];
}

bool mq__jvalue_length(mq_jvalue value, size_t *length)
{
    *length = 0;
    switch (value.type) {
    case MQ_J_UNDEFINED:
        return true;
    case MQ_J_STRING:
        *length = mq__jtext_count(value.as.text, value.bytes);
        return true;
    case MQ_J_LIST:
        *length = value.as.list->count;
        return value.as.list->kind != MQ_J_GENERATOR;
    case MQ_J_DICT:
        *length = value.as.dict->count;
        return true;
    default:
        return false;
    }
}

bool mq__jvalue_truth(mq_jvalue value)
{
    switch (value.type) {
    case MQ_J_MISSING:
    case MQ_J_UNDEFINED:
    case MQ_J_NONE:
        return false;
    case MQ_J_BOOL:
        return value.as.boolean;
    case MQ_J_INT:
        return value.as.integer != 0;
    case MQ_J_FLOAT:
        return value.as.real != 0;
    case MQ_J_STRING:
        return value.bytes != 0;
    case MQ_J_LIST:
        return value.as.list->count != 0 || value.as.list->kind == MQ_J_GENERATOR;
    case MQ_J_DICT:
        return value.as.dict->count != 0;
    default:
        return true;
    }
}

bool mq__jvalue_is_number(mq_jvalue value)
{
    return value.type == MQ_J_BOOL || value.type == MQ_J_INT || value.type == MQ_J_BIG || value.type == MQ_J_FLOAT;
}

bool mq__jvalue_is_text(mq_jvalue value, const char *text)
{
    return value.type == MQ_J_STRING && value.bytes == strlen(text) && memcmp(value.as.text, text, value.bytes) == 0;
}

double mq__jvalue_number(mq_jvalue value)
{
    if (value.type == MQ_J_FLOAT) return value.as.real;
    if (value.type == MQ_J_BIG) return mq__jbig_to_real(value);
    return value.type == MQ_J_BOOL ? (double)value.as.boolean : (double)value.as.integer;
}

int64_t mq__jvalue_integer(mq_jrun *run, mq_jvalue value, const char *what)
{
    if (value.type == MQ_J_INT) return value.as.integer;
    if (value.type == MQ_J_BOOL) return value.as.boolean;
    if (value.type == MQ_J_UNDEFINED) mq__jvalue_fail_undefined(run, value);
    if (value.type == MQ_J_BIG)
        mq__jrun_throw(run, MQ_LIMIT, "%s: expected an integer of 64 bits, got a larger one", what);
    mq__jrun_throw(run, MQ_TEMPLATE, "%s: expected an integer, got %s", what, mq__jvalue_type_name(value));
}

/* An int and a float compare by their exact values, beyond 2^53 as well. */
static int compare_mixed(int64_t a, double b)
{
    if (isnan(b)) return 2;
    if (b >= 0x1p63) return -1;
    if (b < -0x1p63) return 1;
    const int64_t whole = (int64_t)b;
    if (a != whole) return a < whole ? -1 : 1;
    const double rest = b - (double)whole;
    return rest > 0 ? -1 : rest < 0 ? 1 : 0;
}

static int compare_numbers(mq_jvalue a, mq_jvalue b)
{
    if (a.type == MQ_J_BIG || b.type == MQ_J_BIG) return mq__jbig_compare(a, b);
    if (a.type == MQ_J_FLOAT && b.type == MQ_J_FLOAT) {
        if (isnan(a.as.real) || isnan(b.as.real)) return 2;
        return a.as.real < b.as.real ? -1 : a.as.real > b.as.real;
    }
    const int64_t x = a.type == MQ_J_BOOL ? a.as.boolean : a.as.integer;
    const int64_t y = b.type == MQ_J_BOOL ? b.as.boolean : b.as.integer;
    if (b.type == MQ_J_FLOAT) return compare_mixed(x, b.as.real);
    if (a.type == MQ_J_FLOAT) {
        const int order = compare_mixed(y, a.as.real);
        return order == 2 ? 2 : -order;
    }
    return x < y ? -1 : x > y;
}

static bool equal_at(mq_jrun *run, mq_jvalue a, mq_jvalue b, unsigned depth);

static bool equal_lists(mq_jrun *run, const mq_jlist *a, const mq_jlist *b, unsigned depth)
{
    if (a == b) return true;
    if (a->kind != b->kind || a->count != b->count || a->kind == MQ_J_GENERATOR || a->kind == MQ_J_VALUES) return false;
    if (a->kind == MQ_J_KEYS || a->kind == MQ_J_ITEMS) { /* sets: each of one is in the other */
        for (size_t i = 0; i < a->count; i++) {
            bool found = false;
            for (size_t j = 0; j < b->count && !found; j++) {
                found = equal_at(run, a->items[i], b->items[j], depth + 1);
            }
            if (!found) return false;
        }
        return true;
    }
    for (size_t i = 0; i < a->count; i++) {
        if (!equal_at(run, mq__jlist_at(a, i), mq__jlist_at(b, i), depth + 1)) return false;
    }
    return true;
}

static bool equal_dicts(mq_jrun *run, const mq_jdict *a, const mq_jdict *b, unsigned depth)
{
    if (a == b) return true;
    if (a->count != b->count) return false;
    for (size_t i = 0; i < a->count; i++) {
        const mq_jvalue *const other = mq__jdict_get(run, b, a->entries[i].key);
        if (!other || !equal_at(run, a->entries[i].value, *other, depth + 1)) return false;
    }
    return true;
}

static bool equal_at(mq_jrun *run, mq_jvalue a, mq_jvalue b, unsigned depth)
{
    if (depth > NESTING) mq__jrun_throw(run, MQ_LIMIT, "expected values nested less than %d deep", NESTING);
    mq__jrun_charge(run, 1);
    if (mq__jvalue_is_number(a) && mq__jvalue_is_number(b)) return compare_numbers(a, b) == 0;
    if (a.type != b.type) return false;
    switch (a.type) {
    case MQ_J_MISSING:
    case MQ_J_UNDEFINED:
    case MQ_J_NONE:
        return true;
    case MQ_J_STRING:
        if (a.bytes != b.bytes) return false;
        if (a.as.text == b.as.text) return true;
        mq__jrun_charge_bytes(run, a.bytes / 16);
        return memcmp(a.as.text, b.as.text, a.bytes) == 0;
    case MQ_J_LIST:
        return equal_lists(run, a.as.list, b.as.list, depth);
    case MQ_J_DICT:
        return equal_dicts(run, a.as.dict, b.as.dict, depth);
    case MQ_J_METHOD:
        return a.as.method->method == b.as.method->method &&
               equal_at(run, a.as.method->self, b.as.method->self, depth + 1);
    default:
        return a.as.list == b.as.list;
    }
}

bool mq__jvalue_equal(mq_jrun *run, mq_jvalue a, mq_jvalue b)
{
    return equal_at(run, a, b, 0);
}

static int compare_at(mq_jrun *run, mq_jvalue a, mq_jvalue b, const char *operation, unsigned depth)
{
    if (depth > NESTING) mq__jrun_throw(run, MQ_LIMIT, "expected values nested less than %d deep", NESTING);
    mq__jrun_charge(run, 1);
    if (a.type == MQ_J_UNDEFINED) mq__jvalue_fail_undefined(run, a);
    if (b.type == MQ_J_UNDEFINED) mq__jvalue_fail_undefined(run, b);
    if (mq__jvalue_is_number(a) && mq__jvalue_is_number(b)) return compare_numbers(a, b);
    if (a.type == MQ_J_STRING && b.type == MQ_J_STRING) {
        /* The order of UTF-8 bytes is the order of code points. */
        const size_t bytes = a.bytes < b.bytes ? a.bytes : b.bytes;
        mq__jrun_charge_bytes(run, bytes / 16);
        const int order = memcmp(a.as.text, b.as.text, bytes);
        return order ? (order > 0) - (order < 0) : (a.bytes > b.bytes) - (a.bytes < b.bytes);
    }
    if (a.type == MQ_J_LIST && b.type == MQ_J_LIST && a.as.list->kind == b.as.list->kind &&
        a.as.list->kind <= MQ_J_TUPLE) {
        const mq_jlist *const x = a.as.list, *const y = b.as.list;
        for (size_t i = 0; i < x->count && i < y->count; i++) {
            if (equal_at(run, x->items[i], y->items[i], depth + 1)) continue;
            return compare_at(run, x->items[i], y->items[i], operation, depth + 1);
        }
        return (x->count > y->count) - (x->count < y->count);
    }
    mq__jrun_throw(run, MQ_TEMPLATE, "expected comparable values around '%s', got %s and %s", operation,
                   mq__jvalue_type_name(a), mq__jvalue_type_name(b));
}

int mq__jvalue_compare(mq_jrun *run, mq_jvalue a, mq_jvalue b, const char *operation)
{
    return compare_at(run, a, b, operation, 0);
}

bool mq__jvalue_contains(mq_jrun *run, mq_jvalue container, mq_jvalue item)
{
    if (container.type == MQ_J_STRING) {
        if (item.type == MQ_J_UNDEFINED) mq__jvalue_fail_undefined(run, item);
        if (item.type != MQ_J_STRING) {
            mq__jrun_throw(run, MQ_TEMPLATE, "expected a string before 'in', got %s", mq__jvalue_type_name(item));
        }
        mq__jrun_charge_bytes(run, container.bytes);
        return item.bytes == 0 || memmem(container.as.text, container.bytes, item.as.text, item.bytes) != NULL;
    }
    if (container.type == MQ_J_DICT) {
        uint64_t hash;
        if (!mq__jvalue_hash(item, 0, &hash)) {
            mq__jrun_throw(run, MQ_TEMPLATE, "expected a hashable value before 'in', got %s",
                           mq__jvalue_type_name(item));
        }
        return mq__jdict_get(run, container.as.dict, item) != NULL;
    }
    mq_jiter iter;
    mq_jvalue each;
    mq__jiter_need(run, &iter, container);
    while (mq__jiter_next(run, &iter, &each)) {
        if (mq__jvalue_equal(run, each, item)) return true;
    }
    return false;
}

/* ---------------------------------------------------------------- iterating */

bool mq__jiter_open(mq_jiter *iter, mq_jvalue source)
{
    *iter = (mq_jiter){.source = source};
    return source.type == MQ_J_UNDEFINED || source.type == MQ_J_STRING || source.type == MQ_J_LIST ||
           source.type == MQ_J_DICT;
}

void mq__jiter_need(mq_jrun *run, mq_jiter *iter, mq_jvalue source)
{
    if (mq__jiter_open(iter, source)) return;
    mq__jrun_throw(run, MQ_TEMPLATE, "expected something to iterate over, got %s", mq__jvalue_type_name(source));
}

bool mq__jiter_next(mq_jrun *run, mq_jiter *iter, mq_jvalue *item)
{
    mq__jrun_charge(run, 1);
    const mq_jvalue source = iter->source;
    if (source.type == MQ_J_STRING) {
        if (iter->position >= source.bytes) return false;
        const size_t start = iter->position;
        (void)mq__utf8_next(source.as.text, source.bytes, &iter->position);
        *item = mq__jvalue_text(source.as.text + start, iter->position - start);
        return true;
    }
    if (source.type == MQ_J_DICT) {
        if (iter->position >= source.as.dict->count) return false;
        *item = source.as.dict->entries[iter->position++].key;
        return true;
    }
    if (source.type != MQ_J_LIST) return false;
    mq_jlist *const list = source.as.list;
    size_t *const position = list->kind == MQ_J_GENERATOR ? &list->next : &iter->position;
    if (*position >= list->count) return false;
    *item = mq__jlist_at(list, (*position)++);
    return true;
}

mq_jlist *mq__jvalue_to_list(mq_jrun *run, mq_jvalue source, mq_jlist_kind kind)
{
    mq_jiter iter;
    mq_jvalue item;
    size_t length = 0;
    mq__jiter_need(run, &iter, source);
    (void)mq__jvalue_length(source, &length);
    mq_jlist *const list = mq__jlist_new(run, kind, length);
    while (mq__jiter_next(run, &iter, &item)) {
        mq__jlist_push(run, list, item);
    }
    return list;
}
