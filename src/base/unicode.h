/* UTF-8 that may be broken, code point classes and normal forms.
 *
 * One rule for bytes that are not UTF-8, used everywhere in the tokenizer: each byte that is not part of a well-formed
 * sequence (no overlong forms, surrogates or values above U+10FFFF) is one character of its own. It is classed like
 * U+FFFD - no letter, number, space or punctuation - and every normaliser copies it unchanged. */
#ifndef MQ_FORMAT_UNICODE_H
#define MQ_FORMAT_UNICODE_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MQ_UTF8_INVALID 0xFFFFFFFFu /* what mq__utf8_next returns for one byte that is not UTF-8 */

/* Decodes the character at text[*pos] (*pos < bytes) and moves *pos behind it. */
uint32_t mq__utf8_next(const char *text, size_t bytes, size_t *pos);

/* The start of the character that ends at `end` (0 < end <= bytes), by the same rule. */
size_t mq__utf8_before(const char *text, size_t end);

bool mq__utf8_valid(const char *text, size_t bytes);

/* Bytes at the end of text that begin a well-formed sequence but do not complete it: 0..3. */
size_t mq__utf8_incomplete_tail(const char *text, size_t bytes);

bool mq__utf8_put(mq_buf *out, uint32_t code); /* code must be a scalar value */

/* Classes are bits, so that a caller tests several at once. */
enum {
    MQ_CLASS_LETTER = 1,  /* L */
    MQ_CLASS_NUMBER = 2,  /* N */
    MQ_CLASS_SPACE = 4,   /* White_Space */
    MQ_CLASS_PUNCT = 8,   /* P, and the ASCII symbols $+<=>^`|~ */
    MQ_CLASS_MARK = 16,   /* M */
    MQ_CLASS_WORD = 32,   /* Alphabetic, M, Nd, Pc, Join_Control: \w of UTS 18 */
    MQ_CLASS_NEWLINE = 64 /* CR, LF */
};

extern const uint8_t mq__ascii_class[128];
unsigned mq__unicode_class_slow(uint32_t code);

static inline unsigned mq__unicode_class(uint32_t code) /* MQ_UTF8_INVALID has no class: 0 */
{
    return code < 128 ? mq__ascii_class[code] : mq__unicode_class_slow(code);
}

typedef enum mq_normal_form { MQ_NORMAL_NFC, MQ_NORMAL_NFD, MQ_NORMAL_NFKC, MQ_NORMAL_NFKD } mq_normal_form;

/* Appends the normal form of text; false when memory is short or out->max is passed. Linear in bytes. */
bool mq__unicode_normalize(const char *text, size_t bytes, mq_normal_form form, mq_buf *out);

bool mq__unicode_lowercase(const char *text, size_t bytes, mq_buf *out);

#endif
