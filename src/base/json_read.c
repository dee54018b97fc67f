#include "base/json_read.h"

#include "base/c_locale.h"
#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"

#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_VALUES_MAX ((size_t)1 << 20)

/* ---- memory */

typedef struct block_list {
    void **at;
    size_t count, capacity;
} block_list;

/* A read in progress. jansson's parser drops a byte whose append found no memory and goes on, past the end of its buffer
 * if that byte was a closing quote. So the first failed allocation leaves the parser at once, and all it made is freed;
 * for that, what it frees itself is kept until the read ends. */
typedef struct reading {
    jmp_buf out;
    block_list made, freed;
} reading;

static json_malloc_t host_malloc;
static json_free_t host_free;
static _Thread_local unsigned long failures;
static _Thread_local reading *present;

static bool list_block(block_list *list, void *block)
{
    if (list->count == list->capacity) {
        const size_t capacity = list->capacity ? 2 * list->capacity : 256;
        void **const at = mq__realloc(list->at, capacity * sizeof *at);
        if (!at) return false;
        list->at = at;
        list->capacity = capacity;
    }
    list->at[list->count++] = block;
    return true;
}

static void *watched_malloc(size_t bytes)
{
    void *block = mq__alloc_refused() ? NULL : host_malloc(bytes);
    if (block && present && !list_block(&present->made, block)) {
        host_free(block);
        block = NULL;
    }
    if (block) return block;
    failures++;
    if (present) longjmp(present->out, 1);
    return NULL;
}

static void watched_free(void *block)
{
    if (!present) {
        host_free(block);
    } else if (block && !list_block(&present->freed, block)) {
        failures++;
        longjmp(present->out, 1);
    }
}

/* Before main, because jansson allows no change while another thread uses it. Blocks still are the host's own. */
__attribute__((constructor)) static void watch_jansson(void)
{
    json_get_alloc_funcs(&host_malloc, &host_free);
    json_set_alloc_funcs(watched_malloc, watched_free);
}

static void free_blocks(const block_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        host_free(list->at[i]);
    }
}

/* json_loadb; NULL as well after a failed allocation. */
static json_t *load_watched(const char *text, size_t bytes, size_t flags, json_error_t *at)
{
    reading r = {.made = {0}};
    json_t *volatile value = NULL;
    if (setjmp(r.out) == 0) {
        present = &r;
        value = json_loadb(text, bytes, flags, at);
        present = NULL;
        free_blocks(&r.freed);
    } else {
        present = NULL;
        free_blocks(&r.made); /* the freed ones are among them */
    }
    mq__free(r.made.at);
    mq__free(r.freed.at);
    return value;
}

unsigned long mq__json_failures(void)
{
    return failures;
}

/* ---- numbers that jansson refuses */

typedef struct big_number {
    size_t ordinal; /* among all numbers of the text */
    const char *text;
    size_t bytes;
} big_number;

/* An integer of 64 bits; the text is a number as JSON spells it. */
static bool fits_integer(const char *text, size_t bytes)
{
    const bool negative = text[0] == '-';
    const size_t digits = bytes - negative;
    if (digits != 19) return digits < 19;
    return memcmp(text + negative, negative ? "9223372036854775808" : "9223372036854775807", digits) <= 0;
}

/* Appends the number. *fits: jansson takes it, else it is replaced by the nearest double, or the largest. */
static bool put_number(mq_buf *out, const char *text, size_t bytes, bool *fits)
{
    bool whole = true;
    for (size_t i = 0; i < bytes; i++) {
        whole = whole && text[i] != '.' && (text[i] | 0x20) != 'e';
    }
    const size_t start = out->len;
    if (!mq__buf_append(out, text, bytes)) return false;
    const double value = strtod(out->data + start, NULL);
    *fits = whole ? fits_integer(text, bytes) : isfinite(value);
    if (*fits) return true;
    if (isfinite(value)) return mq__buf_puts(out, ".0");
    out->len = start;
    return mq__buf_puts(out, value < 0 ? "-1.7976931348623157e308" : "1.7976931348623157e308");
}

/* Copies the text with numbers that jansson takes in place of those that it does not; `list` gets the latter. */
static bool replace_numbers(const char *text, size_t bytes, mq_buf *out, mq_buf *list)
{
    size_t ordinal = 0, plain = 0;
    bool quoted = false;
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] == '"') quoted = !quoted;
        if (quoted && text[i] == '\\') i++;
        if (quoted || !(text[i] == '-' || (text[i] >= '0' && text[i] <= '9'))) continue;
        const size_t start = i;
        bool fits = true;
        while (i < bytes && text[i] && strchr("+-.0123456789eE", text[i])) {
            i++;
        }
        const big_number n = {ordinal++, text + start, i - start};
        mq__buf_append(out, text + plain, start - plain);
        if (!put_number(out, n.text, n.bytes, &fits)) return false;
        if (!fits) mq__buf_append(list, &n, sizeof n);
        plain = i--;
    }
    return mq__buf_append(out, text + plain, bytes - plain) && !list->failed;
}

/* The member name of an object that stands for a number. No text has it: jansson refuses NUL in keys. */
static const char big_key[1] = {'\0'};

const char *mq__json_big_number(const json_t *value)
{
    return json_is_object(value) ? json_string_value(json_object_getn(value, big_key, 1)) : NULL;
}

static json_t *new_big_number(const big_number *n)
{
    json_t *const value = json_object();
    if (json_object_setn_new(value, big_key, 1, json_stringn(n->text, n->bytes)) == 0) return value;
    json_decref(value);
    return NULL;
}

typedef struct restore {
    const big_number *next, *end;
    size_t ordinal;
} restore;

/* What is to stand in the place of `value`: NULL for itself. Members come in the order of the text. */
static json_t *restored(json_t *value, restore *r)
{
    if (json_is_number(value) && r->next < r->end && r->ordinal++ == r->next->ordinal) return new_big_number(r->next++);
    for (size_t i = 0; i < json_array_size(value); i++) {
        json_t *const other = restored(json_array_get(value, i), r);
        if (other) json_array_set_new(value, i, other);
    }
    for (void *at = json_object_iter(value); at; at = json_object_iter_next(value, at)) {
        json_t *const other = restored(json_object_iter_value(at), r);
        if (other) json_object_iter_set_new(value, at, other);
    }
    return NULL;
}

/* The text again, after jansson met a number that is too large for it. */
static json_t *load_big(const char *text, size_t bytes, size_t flags, bool keep, json_error_t *at)
{
    mq_buf changed = {0}, list = {0};
    json_t *value = NULL;
    if (replace_numbers(text, bytes, &changed, &list)) {
        value = load_watched(changed.data, changed.len, flags, at);
    } else {
        failures++;
    }
    if (value && keep && list.len) {
        restore r = {.next = (const big_number *)(const void *)list.data};
        r.end = r.next + list.len / sizeof *r.next;
        json_t *const other = restored(value, &r);
        if (other) json_decref(value);
        if (other) value = other;
    }
    mq__buf_free(&changed);
    mq__buf_free(&list);
    return value;
}

/* ---- reading and writing */

mq_status mq__json_read(const char *text, size_t bytes, size_t flags, mq_json_numbers numbers, const char *what,
                        json_t **root, mq_error *error)
{
    json_error_t at = {.line = 0};
    mq_c_locale scope;
    const unsigned long before = failures;
    *root = NULL;
    if (!mq__c_locale_enter(&scope)) return mq__fail(error, MQ_NO_MEMORY, "%s: expected memory, got none", what);
    json_t *value = load_watched(text, bytes, flags | JSON_REJECT_DUPLICATES, &at);
    if (!value && failures == before && json_error_code(&at) == json_error_numeric_overflow) {
        value = load_big(text, bytes, flags | JSON_REJECT_DUPLICATES, numbers == MQ_JSON_KEEP_NUMBERS, &at);
    }
    mq__c_locale_leave(&scope);
    if (value && failures == before) {
        *root = value;
        return MQ_OK;
    }
    json_decref(value);
    if (failures != before || json_error_code(&at) == json_error_out_of_memory) {
        return mq__fail(error, MQ_NO_MEMORY, "%s: expected memory, got none", what);
    }
    return mq__fail(error, MQ_FORMAT, "%s: line %d: expected JSON, got %s", what, at.line, at.text);
}

static int append_text(const char *text, size_t bytes, void *buf)
{
    return mq__buf_append(buf, text, bytes) ? 0 : -1;
}

static const char *skip_space(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\n')) {
        at++;
    }
    return at;
}

/* In JSON from `start` on: objects that stand for a number become it. Inside of a string jansson escapes quotes, so that its key is
 * nowhere else. */
static void unwrap_numbers(mq_buf *text, size_t start)
{
    static const char key[] = "\"\\u0000\":";
    const char *const end = text->data + text->len, *from = text->data + start, *found;
    char *to = text->data + start;
    while ((found = memmem(from, (size_t)(end - from), key, sizeof key - 1))) {
        const char *brace = found;
        while (brace[-1] != '{') {
            brace--;
        }
        brace--;
        const char *const number = skip_space(found + sizeof key - 1, end) + 1;
        const char *const quote = memchr(number, '"', (size_t)(end - number));
        memmove(to, from, (size_t)(brace - from));
        to += brace - from;
        memmove(to, number, (size_t)(quote - number));
        to += quote - number;
        from = skip_space(quote + 1, end) + 1; /* behind the closing brace */
    }
    memmove(to, from, (size_t)(end - from));
    to += end - from;
    text->len = (size_t)(to - text->data);
    *to = '\0';
}

bool mq__json_print(const json_t *value, size_t flags, mq_buf *text)
{
    mq_c_locale scope;
    const unsigned long before = failures;
    const size_t start = text->len;
    if (!mq__c_locale_enter(&scope)) return false;
    const bool printed = json_dump_callback(value, append_text, text, flags) == 0;
    mq__c_locale_leave(&scope);
    if (!printed || failures != before || text->failed) return false;
    if (text->len > start) unwrap_numbers(text, start);
    return true;
}

/* ---- files and members */

/* At least the number of values: each but the first follows a comma or an opening bracket. */
static size_t count_values(const char *text, size_t bytes)
{
    size_t count = 1;
    bool quoted = false;
    for (size_t i = 0; i < bytes; i++) {
        if (quoted && text[i] == '\\')
            i++;
        else if (text[i] == '"')
            quoted = !quoted;
        else if (!quoted)
            count += text[i] == ',' || text[i] == '[' || text[i] == '{';
    }
    return count;
}

mq_status mq__json_parse(const char *text, size_t bytes, size_t max_values, const char *what, const char *where,
                         json_t **root, mq_error *error)
{
    *root = NULL;
    const size_t values = count_values(text, bytes);
    if (values > max_values) {
        return mq__fail(error, MQ_LIMIT, "%s: %s: expected at most %zu values, got %zu", what, where, max_values,
                        values);
    }
    char place[512];
    snprintf(place, sizeof place, "%s: %s", what, where);
    json_t *value;
    const mq_status status = mq__json_read(text, bytes, 0, MQ_JSON_ROUND_NUMBERS, place, &value, error);
    if (status != MQ_OK) return status;
    if (!json_is_object(value)) {
        json_decref(value);
        return mq__fail(error, MQ_FORMAT, "%s: %s: expected an object, got something else", what, where);
    }
    *root = value;
    return MQ_OK;
}

mq_status mq__json_file(const char *path, size_t max_bytes, json_t **root, mq_error *error)
{
    char *data;
    size_t bytes;
    *root = NULL;
    mq_status status = mq__file_read(path, max_bytes, &data, &bytes, error);
    if (status != MQ_OK) return status;
    status = mq__json_parse(data, bytes, FILE_VALUES_MAX, "json", path, root, error);
    mq__free(data);
    return status;
}

static const json_t *member_json_read(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

mq_status mq__json_integer(const json_t *object, const char *name, int64_t low, int64_t high, int64_t fallback,
                           int64_t *value, mq_error *error)
{
    const json_t *item = member_json_read(object, name);
    *value = fallback;
    if (!item && fallback >= low) return MQ_OK;
    /* Some writers print whole numbers as 1e6 or 8192.0. */
    const double number = json_number_value(item);
    const bool whole = json_is_integer(item) || (json_is_real(item) && number == floor(number) && fabs(number) < 1e15);
    if (whole) *value = json_is_integer(item) ? json_integer_value(item) : (int64_t)number;
    if (whole && *value >= low && *value <= high) return MQ_OK;
    return mq__fail(error, MQ_FORMAT, "config: %s: expected a whole number from %lld to %lld, got %s", name,
                    (long long)low, (long long)high, item ? whole ? "another number" : "something else" : "nothing");
}

mq_status mq__json_number(const json_t *object, const char *name, double low, double high, double fallback,
                          double *value, mq_error *error)
{
    const json_t *item = member_json_read(object, name);
    *value = item ? json_number_value(item) : fallback;
    if ((!item || json_is_number(item)) && *value >= low && *value <= high) return MQ_OK;
    return mq__fail(error, MQ_FORMAT, "config: %s: expected a number from %g to %g, got %s", name, low, high,
                    item ? json_is_number(item) ? "another number" : "something else" : "nothing");
}

mq_status mq__json_bool(const json_t *object, const char *name, bool fallback, bool *value, mq_error *error)
{
    const json_t *item = member_json_read(object, name);
    *value = item ? json_is_true(item) : fallback;
    if (!item || json_is_boolean(item)) return MQ_OK;
    return mq__fail(error, MQ_FORMAT, "config: %s: expected true or false, got something else", name);
}

mq_status mq__json_string(const json_t *object, const char *name, const char **value, mq_error *error)
{
    const json_t *item = member_json_read(object, name);
    *value = json_string_value(item);
    if (!item || *value) return MQ_OK;
    return mq__fail(error, MQ_FORMAT, "config: %s: expected a string, got something else", name);
}
