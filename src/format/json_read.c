#include "format/json_read.h"

#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"

#include <math.h>

mq_status mq__json_file(const char *path, size_t max_bytes, json_t **root, mq_error *error)
{
    char *data;
    size_t bytes;
    json_error_t at;
    *root = NULL;
    const mq_status status = mq__file_read(path, max_bytes, &data, &bytes, error);
    if (status != MQ_OK) return status;
    *root = json_loadb(data, bytes, JSON_REJECT_DUPLICATES, &at);
    mq__free(data);
    if (json_is_object(*root)) return MQ_OK;
    const bool parsed = *root != NULL;
    json_decref(*root);
    *root = NULL;
    if (parsed) return mq__fail(error, MQ_FORMAT, "json: %s: expected an object, got something else", path);
    return mq__fail(error, MQ_FORMAT, "json: %s: line %d: expected JSON, got %s", path, at.line, at.text);
}

static const json_t *member(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

mq_status mq__json_integer(const json_t *object, const char *name, int64_t low, int64_t high, int64_t fallback,
                           int64_t *value, mq_error *error)
{
    const json_t *item = member(object, name);
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
    const json_t *item = member(object, name);
    *value = item ? json_number_value(item) : fallback;
    if ((!item || json_is_number(item)) && *value >= low && *value <= high) return MQ_OK;
    return mq__fail(error, MQ_FORMAT, "config: %s: expected a number from %g to %g, got %s", name, low, high,
                    item ? json_is_number(item) ? "another number" : "something else" : "nothing");
}

mq_status mq__json_bool(const json_t *object, const char *name, bool fallback, bool *value, mq_error *error)
{
    const json_t *item = member(object, name);
    *value = item ? json_is_true(item) : fallback;
    if (!item || json_is_boolean(item)) return MQ_OK;
    return mq__fail(error, MQ_FORMAT, "config: %s: expected true or false, got something else", name);
}

mq_status mq__json_string(const json_t *object, const char *name, const char **value, mq_error *error)
{
    const json_t *item = member(object, name);
    *value = json_string_value(item);
    if (!item || *value) return MQ_OK;
    return mq__fail(error, MQ_FORMAT, "config: %s: expected a string, got something else", name);
}
