/* Reading JSON files and typed members, with errors that name the place. */
#ifndef MQ_JSON_READ_H
#define MQ_JSON_READ_H

#include "mixquant.h"

#include <jansson.h>

/* Parses JSON whose root is an object; duplicate keys are refused. Values beyond max_values are refused before the parser
 * sees them: it takes up to some 150 bytes for each, so a small hostile text could take all memory. Returns a new
 * reference; `what` and `where` begin the error's text. */
mq_status mq__json_parse(const char *text, size_t bytes, size_t max_values, const char *what, const char *where,
                         json_t **root, mq_error *error);

/* Reads a file of at most max_bytes whose root is an object; duplicate keys are refused. Returns a new reference. */
mq_status mq__json_file(const char *path, size_t max_bytes, json_t **root, mq_error *error);

/* A whole number in [low, high]; fallback where the member is absent or null (fallback < low: the member is required). */
mq_status mq__json_integer(const json_t *object, const char *name, int64_t low, int64_t high, int64_t fallback,
                           int64_t *value, mq_error *error);
mq_status mq__json_number(const json_t *object, const char *name, double low, double high, double fallback,
                          double *value, mq_error *error);
mq_status mq__json_bool(const json_t *object, const char *name, bool fallback, bool *value, mq_error *error);
/* A string, or NULL where the member is absent or null. Borrowed from the object. */
mq_status mq__json_string(const json_t *object, const char *name, const char **value, mq_error *error);

#endif
