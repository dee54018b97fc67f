/* How text is cut into words before merging: hand-written splitters for the regular expressions of published models.
 *
 * Each is recognised by its exact text and gives the same pieces as the expression under PCRE2, with which
 * tests/unit/test_pretokenize.c compares it. Every expression covers every character: nothing is left out. Characters
 * are classed by utf8proc's version of Unicode; PCRE2's may be another, so newly assigned scripts can differ. */
#ifndef MQ_FORMAT_PRETOKENIZE_H
#define MQ_FORMAT_PRETOKENIZE_H

#include <stddef.h>

typedef enum mq_split_pattern {
    MQ_SPLIT_NONE,   /* not a known expression */
    MQ_SPLIT_GPT2,   /* GPT-2, and ByteLevel with use_regex */
    MQ_SPLIT_LLAMA3, /* Llama 3: numbers in groups of up to three digits */
    MQ_SPLIT_QWEN2   /* Qwen2, Qwen3: numbers digit by digit */
} mq_split_pattern;

mq_split_pattern mq__split_known(const char *regex, size_t bytes);
const char *mq__split_regex(mq_split_pattern pattern); /* its expression; NULL for MQ_SPLIT_NONE */

/* The end of the piece of text[0, bytes) that starts at `from` (a character boundary < bytes); > from. The text ends at
 * `bytes` as far as look-ahead is concerned. */
size_t mq__split_next(mq_split_pattern pattern, const char *text, size_t bytes, size_t from);

#endif
