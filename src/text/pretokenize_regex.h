/* Regular expressions of tokenizer.json, which nobody vouches for: PCRE2 with bounds on every resource.
 *
 * The files are written for Oniguruma; pretokenize_translate.h tells what becomes of what differs. */
#ifndef MQ_FORMAT_PRETOKENIZE_REGEX_H
#define MQ_FORMAT_PRETOKENIZE_REGEX_H

#include "mixquant.h"

typedef struct mq_regex mq_regex; /* immutable after compiling: threads share it */

mq_status mq__regex_compile(const char *pattern, size_t bytes, mq_regex **out, mq_error *error); /* returns owned */
void mq__regex_free(mq_regex *regex);

#define MQ_REGEX_BUDGET ((uint64_t)1 << 20)

/* One thread's matching state and its budget. Zero it before the first use and set the budget to MQ_REGEX_BUDGET. */
typedef struct mq_regex_work {
    void *match, *context, *stack; /* PCRE2's; made on first use; stack is NULL where PCRE2 has no JIT */
    bool ready;
    uint64_t budget; /* match steps left before MQ_LIMIT */
} mq_regex_work;

/* Adds steps for `bytes` more bytes of subject, so that the total cost stays linear in what is encoded. */
void mq__regex_work_allow(mq_regex_work *work, size_t bytes);
void mq__regex_work_free(mq_regex_work *work);

/* The first match in text[from, bytes), which must be well-formed UTF-8; *found tells whether there is one. */
typedef struct mq_regex_match {
    size_t start, end;
    bool found;
} mq_regex_match;

mq_status mq__regex_find(const mq_regex *regex, mq_regex_work *work, const char *text, size_t bytes, size_t from,
                         mq_regex_match *match, mq_error *error);

#endif
