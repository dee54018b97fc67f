#include "base/json_read.h"

#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"

#include <math.h>

#define FILE_VALUES_MAX ((size_t)1 << 20)

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
    json_error_t at;
    *root = NULL;
    const size_t values = count_values(text, bytes);
    if (values > max_values) {
        return mq__fail(error, MQ_LIMIT, "%s: %s: expected at most %zu values, got %zu", what, where, max_values,
                        values);
    }
    json_t *value = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &at);
    if (!value && json_error_code(&at) == json_error_out_of_memory) {
        return mq__fail(error, MQ_NO_MEMORY, "%s: %s: expected memory, got none", what, where);
    }
    if (!value)
        return mq__fail(error, MQ_FORMAT, "%s: %s: line %d: expected JSON, got %s", what, where, at.line, at.text);
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
