/* Text: building it in the run's arena, Python's str() and repr(), numbers, and the code points behind the bytes. */
#ifndef MQ_FORMAT_JINJA_TEXT_H
#define MQ_FORMAT_JINJA_TEXT_H

#include "base/real_text.h"
#include "base/unicode.h"
#include "jinja/jinja_value.h"

/* Text under construction. Zero it, put, take; it belongs to the run's text arena. */
typedef struct mq_jtext {
    char *data;
    size_t bytes, capacity;
} mq_jtext;

void mq__jtext_put(mq_jrun *run, mq_jtext *text, const char *bytes, size_t count);
void mq__jtext_puts(mq_jrun *run, mq_jtext *text, const char *string);
void mq__jtext_putc(mq_jrun *run, mq_jtext *text, char byte);
void mq__jtext_fill(mq_jrun *run, mq_jtext *text, uint32_t point, size_t count); /* count copies of one code point */
void mq__jtext_put_point(mq_jrun *run, mq_jtext *text, uint32_t point);
void mq__jtext_put_value(mq_jrun *run, mq_jtext *text, mq_jvalue value); /* str(value) */
void mq__jtext_put_repr(mq_jrun *run, mq_jtext *text, mq_jvalue value);
mq_jvalue mq__jtext_take(mq_jtext *text);

mq_jvalue mq__jvalue_str(mq_jrun *run, mq_jvalue value);           /* str(value): a string, without the markup flag */
mq_jvalue mq__jvalue_soft_str(mq_jrun *run, mq_jvalue value);      /* the same, but markup stays markup */
mq_jvalue mq__jvalue_join(mq_jrun *run, mq_jvalue a, mq_jvalue b); /* a + b of two strings */
mq_jvalue mq__jvalue_escape(mq_jrun *run, mq_jvalue value);        /* markupsafe.escape */
mq_jvalue mq__jvalue_copy(mq_jrun *run, const char *text, size_t bytes); /* a string of its own */

#define MQ_J_NUMBER_BYTES MQ_REAL_BYTES
bool mq__jreal_parse(const char *text, size_t bytes, double *value);                           /* Python's float(str) */
bool mq__jint_parse(const char *text, size_t bytes, int base, int64_t *value, bool *overflow); /* int(str, base) */

/* ---------------------------------------------------------------- code points */

/* All text of a run is valid UTF-8: unicode.h walks it. */
size_t mq__jtext_encode(uint32_t point, char out[4]); /* returns the number of bytes */
size_t mq__jtext_count(const char *text, size_t bytes);
size_t mq__jtext_offset(const char *text, size_t bytes, size_t points); /* byte offset of the n-th code point */

bool mq__point_is_space(uint32_t point);
bool mq__point_is_printable(uint32_t point); /* str.isprintable */
bool mq__point_is_alpha(uint32_t point);
bool mq__point_is_decimal(uint32_t point);
bool mq__point_is_digit(uint32_t point);
bool mq__point_is_numeric(uint32_t point);
bool mq__point_is_upper(uint32_t point);
bool mq__point_is_lower(uint32_t point);
bool mq__point_is_title(uint32_t point);
bool mq__point_is_word(uint32_t point); /* \w of a regular expression */

typedef enum mq_jcase { MQ_J_UPPER, MQ_J_LOWER, MQ_J_TITLE } mq_jcase;
/* Full case mapping: up to three code points, returns how many. */
size_t mq__point_case(uint32_t point, mq_jcase to, uint32_t out[3]);
mq_jvalue mq__jvalue_case(mq_jrun *run, mq_jvalue text, mq_jcase to); /* upper() and lower() of a string */

void mq__text_strip(const char **text, size_t *bytes, bool left, bool right); /* white space */

#endif
