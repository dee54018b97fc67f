/* Reading JSON files and typed members, with errors that name the place. */
#ifndef MQ_JSON_READ_H
#define MQ_JSON_READ_H

#include "base/buf.h"
#include "mixquant.h"

#include <jansson.h>

/* How often jansson got no memory in this thread. Some of its functions go on then and leave something out, json_copy and
 * the parser among them: what builds a value compares the number before with the number after. */
unsigned long mq__json_failures(void);

/* What becomes of numbers beyond 64 bits or a double: the nearest double (the largest for what is larger), or an object
 * that mq__json_big_number knows. */
typedef enum mq_json_numbers { MQ_JSON_ROUND_NUMBERS, MQ_JSON_KEEP_NUMBERS } mq_json_numbers;

/* Parses JSON as json_loadb does with `flags` (duplicate keys are always refused), in the C locale. A lack of memory is
 * always MQ_NO_MEMORY. Returns a new reference; `what` begins the error's text. */
mq_status mq__json_read(const char *text, size_t bytes, size_t flags, mq_json_numbers numbers, const char *what,
                        json_t **root, mq_error *error);
const char *mq__json_big_number(const json_t *value); /* its text, as it was spelled; NULL: another value */

/* Appends the text of a value, as json_dumps makes it with `flags`, in the C locale; big numbers as they were spelled. False: memory is
 * short. */
bool mq__json_print(const json_t *value, size_t flags, mq_buf *text);

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
