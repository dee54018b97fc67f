#include "eval/csv.h"

#include "base/buf.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json_read.h"
#include "base/mem.h"

#include <string.h>

#define CSV_MAX ((size_t)256 << 20)

typedef struct csv_reader {
    const char *path, *at, *end;
    size_t line;
    mq_buf field; /* reused */
} csv_reader;

static mq_status csv_wrong(const csv_reader *r, const char *expected, const char *got, mq_error *error)
{
    return mq__fail(error, MQ_FORMAT, "eval: %s: line %zu: expected %s, got %s", r->path, r->line, expected, got);
}

static mq_status no_memory_csv(const csv_reader *r, mq_error *error)
{
    return mq__fail(error, MQ_NO_MEMORY, "eval: %s: expected memory, got none", r->path);
}

/* What follows an opening quote, up to the one that closes it. */
static mq_status read_quoted(csv_reader *r, mq_error *error)
{
    while (r->at < r->end) {
        const char c = *r->at++;
        if (c == '"') {
            if (r->at == r->end || *r->at != '"') return MQ_OK;
            r->at++;
        }
        r->line += c == '\n';
        mq__buf_putc(&r->field, c);
    }
    return csv_wrong(r, "a quote at the field's end", "the file's end", error);
}

static bool ends_field(const csv_reader *r)
{
    return r->at == r->end || *r->at == ',' || *r->at == '\n' || *r->at == '\r';
}

static mq_status read_csv_field(csv_reader *r, json_t *fields, mq_error *error)
{
    mq_status status = MQ_OK;
    mq__buf_clear(&r->field);
    if (r->at < r->end && *r->at == '"') {
        r->at++;
        status = read_quoted(r, error);
    } else {
        while (!ends_field(r) && *r->at != '"')
            mq__buf_putc(&r->field, *r->at++);
    }
    if (status != MQ_OK) return status;
    if (r->field.failed) return no_memory_csv(r, error);
    if (!ends_field(r)) return csv_wrong(r, "a comma or the row's end", "more of a field", error);
    const size_t bytes = r->field.len;
    if (bytes && memchr(r->field.data, '\0', bytes)) return csv_wrong(r, "text", "a NUL byte", error);
    const unsigned long failures = mq__json_failures();
    json_t *text = json_stringn(bytes ? r->field.data : "", bytes);
    if (mq__json_failures() != failures) return no_memory_csv(r, error);
    if (!text) return csv_wrong(r, "UTF-8", "another text", error);
    return json_array_append_new(fields, text) == 0 ? MQ_OK : no_memory_csv(r, error);
}

/* One row's fields, and its line break. */
static mq_status read_csv_row(csv_reader *r, json_t *fields, mq_error *error)
{
    for (;;) {
        const mq_status status = read_csv_field(r, fields, error);
        if (status != MQ_OK) return status;
        if (r->at == r->end || *r->at != ',') break;
        r->at++;
    }
    if (r->at < r->end && *r->at == '\r') r->at++;
    if (r->at < r->end && *r->at == '\n') r->at++;
    return MQ_OK;
}

static mq_status add_csv_row(const csv_reader *r, const json_t *names, const json_t *fields, json_t *rows,
                             mq_error *error)
{
    const size_t count = json_array_size(names);
    if (json_array_size(fields) != count) {
        return mq__fail(error, MQ_FORMAT, "eval: %s: line %zu: expected a row of %zu fields, got %zu", r->path, r->line,
                        count, json_array_size(fields));
    }
    json_t *row = json_object();
    bool good = row != NULL;
    for (size_t i = 0; good && i < count; i++) {
        good = json_object_set(row, json_string_value(json_array_get(names, i)), json_array_get(fields, i)) == 0;
    }
    if (good && json_array_append(rows, row) == 0) {
        json_decref(row);
        return MQ_OK;
    }
    json_decref(row);
    return no_memory_csv(r, error);
}

static mq_status read_csv_rows(csv_reader *r, json_t *rows, mq_error *error)
{
    json_t *names = NULL;
    mq_status status = MQ_OK;
    while (status == MQ_OK && r->at < r->end) {
        if (*r->at == '\r' || *r->at == '\n') {
            r->line += *r->at++ == '\n';
            continue;
        }
        json_t *fields = json_array();
        status = fields ? read_csv_row(r, fields, error) : no_memory_csv(r, error);
        if (status == MQ_OK && names) status = add_csv_row(r, names, fields, rows, error);
        if (!names) names = json_incref(fields);
        json_decref(fields);
        r->line++;
    }
    json_decref(names);
    return status;
}

mq_status mq__csv_read(const char *path, json_t **rows, mq_error *error)
{
    char *data = NULL;
    size_t bytes;
    *rows = NULL;
    mq_status status = mq__file_read(path, CSV_MAX, &data, &bytes, error);
    if (status != MQ_OK) return status;
    csv_reader r = {.path = path, .at = data, .end = data + bytes, .line = 1};
    if (bytes >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0) r.at += 3;
    json_t *list = json_array();
    status = list ? read_csv_rows(&r, list, error) : no_memory_csv(&r, error);
    mq__buf_free(&r.field);
    mq__free(data);
    if (status == MQ_OK)
        *rows = list;
    else
        json_decref(list);
    return status;
}
