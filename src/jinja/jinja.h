/* The part of Jinja2 that chat templates use, with budgets.
 *
 * Owns: the grammar (statements, expressions, filters, tests, methods) and Python's meaning of values, as
 * Jinja2 3.1 gives them to a template inside its immutable sandbox with trim_blocks, lstrip_blocks, loop controls and
 * `generation` blocks. Refuses, by name and at parse time: inclusion, inheritance and unknown tags; when a render
 * reaches them: unknown filters and tests.
 * Never reaches the host: a template sees its variables, the functions range, dict, namespace, cycler, joiner,
 * raise_exception and strftime_now, and nothing else.
 *
 * Known differences from Jinja2 on Python: integers beyond 64 bits are taken, printed and compared, but arithmetic with or
 * to them is an error; values do not change in place (the sandbox forbids it as well, but for list.pop and list.clear,
 * which work); an unknown filter or test outside an `if` is refused when it is reached, not at once; generators are computed when they are made; a name that a macro reads before
 * the first top-level `set` of it is the request's variable, where Jinja2 leaves it undefined; slices of constants that
 * have none are errors; the text of an object without a literal form (a function) is not Python's. */
#ifndef MQ_FORMAT_JINJA_H
#define MQ_FORMAT_JINJA_H

#include "mixquant.h"

#include <jansson.h>
#include <time.h>

typedef struct mq_jinja mq_jinja; /* a parsed template; immutable, so threads may share it */

/* What one render may spend; 0 means the default in brackets. Passing a bound is MQ_LIMIT. */
typedef struct mq_jinja_limits {
    uint64_t steps;      /* evaluated nodes, plus a charge for bulk work on text and lists [10,000,000] */
    size_t output_bytes; /* of the rendered text [32 MiB] */
    size_t memory_bytes; /* of all values [256 MiB] */
    size_t string_bytes; /* of one string [32 MiB] */
    unsigned calls;      /* nested macros, calls and recursive loops [100] */
} mq_jinja_limits;

typedef struct mq_jinja_options {
    mq_jinja_limits limits;
    const struct tm *now; /* what strftime_now prints; NULL: the local time. Borrowed */
} mq_jinja_options;

#define MQ_JINJA_SOURCE_BYTES ((size_t)1 << 20) /* a longer template is refused */

/* Parses `bytes` of UTF-8. On success *program is owned by the caller. MQ_TEMPLATE: a syntax error, with its line;
 * MQ_UNSUPPORTED: a tag outside the subset; MQ_LIMIT: too long or too deeply nested. */
mq_status mq__jinja_parse(const char *source, size_t bytes, mq_jinja **program, mq_error *error);
void mq__jinja_free(mq_jinja *program);

/* Renders with `variables`, a JSON object name -> value that is borrowed for the call. *text is owned (mq__free) and
 * NUL-terminated, *bytes long. options may be NULL. MQ_TEMPLATE: the template raised an exception or met an error
 * that Python would raise; MQ_UNSUPPORTED: it reached a filter or test that is not there; the text names the line. Uses at most 512 KiB of stack. */
mq_status mq__jinja_render(const mq_jinja *program, const json_t *variables, const mq_jinja_options *options,
                           char **text, size_t *bytes, mq_error *error);

#endif
