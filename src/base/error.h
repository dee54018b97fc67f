/* How library code reports a failure: `return mq__fail(error, MQ_FORMAT, "config: %s: expected ...", ...)`. */
#ifndef MQ_BASE_ERROR_H
#define MQ_BASE_ERROR_H

#include "mixquant.h"

/* Writes status and the formatted line into *error (which may be NULL) and returns status. Control characters in the
 * formatted text (file names, keys of hostile files) are replaced by '?', so that a report stays one line. */
mq_status mq__fail(mq_error *error, mq_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Prefixes the text of an already filled error with "<prefix>: "; returns error->status (or status if error is NULL). */
mq_status mq__fail_within(mq_error *error, mq_status status, const char *prefix);

#endif
