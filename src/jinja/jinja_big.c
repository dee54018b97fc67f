/* Integers beyond 64 bits, which requests and templates may have: they are kept as their decimal digits. They print,
 * compare and change sign as in Python; other arithmetic refuses them. */
#include "jinja/jinja_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REAL_DIGITS 320 /* room for the whole part of any double */

mq_jvalue mq__jvalue_big(const char *digits, size_t bytes)
{
    return (mq_jvalue){.type = MQ_J_BIG, .bytes = (uint32_t)bytes, .as.text = digits};
}

bool mq__jbig_is_text(const char *text, size_t bytes)
{
    const size_t sign = bytes > 0 && text[0] == '-';
    if (bytes == sign || text[sign] == '0') return false;
    for (size_t i = sign; i < bytes; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
    }
    return true;
}

mq_jvalue mq__jbig_from_real(mq_jrun *run, double value)
{
    char digits[REAL_DIGITS];
    const size_t bytes = (size_t)snprintf(digits, sizeof digits, "%.0f", trunc(value));
    const mq_jvalue text = mq__jvalue_copy(run, digits, bytes);
    return mq__jvalue_big(text.as.text, text.bytes);
}

double mq__jbig_to_real(mq_jvalue value)
{
    char digits[REAL_DIGITS + 1];
    if (value.bytes > REAL_DIGITS) return value.as.text[0] == '-' ? -HUGE_VAL : HUGE_VAL;
    memcpy(digits, value.as.text, value.bytes);
    digits[value.bytes] = '\0';
    return strtod(digits, NULL);
}

/* Of an INT or a BIG. */
mq_jvalue mq__jbig_negate(mq_jrun *run, mq_jvalue value)
{
    char digits[32];
    if (value.type == MQ_J_INT) {
        const uint64_t size = 0 - (uint64_t)value.as.integer;
        const int bytes = snprintf(digits, sizeof digits, "%llu", (unsigned long long)size);
        const mq_jvalue text = mq__jvalue_copy(run, digits, (size_t)bytes);
        return mq__jvalue_big(text.as.text, text.bytes);
    }
    if (value.as.text[0] == '-') return mq__jvalue_big(value.as.text + 1, value.bytes - 1);
    const mq_jvalue text = mq__jvalue_join(run, mq__jvalue_literal("-"), mq__jvalue_text(value.as.text, value.bytes));
    int64_t small;
    bool overflow; /* the least integer of 64 bits has no positive of its own */
    if (mq__jint_parse(text.as.text, text.bytes, 10, &small, &overflow)) return mq__jvalue_int(small);
    return mq__jvalue_big(text.as.text, text.bytes);
}

static int compare_digits(const char *a, size_t a_bytes, const char *b, size_t b_bytes)
{
    const bool a_negative = a[0] == '-', b_negative = b[0] == '-';
    if (a_negative != b_negative) return a_negative ? -1 : 1;
    int order = (a_bytes > b_bytes) - (a_bytes < b_bytes);
    if (order == 0) order = memcmp(a, b, a_bytes);
    order = (order > 0) - (order < 0);
    return a_negative ? -order : order;
}

/* A BIG and any number; by exact values, as Python compares an int and a float. */
static int compare_one(mq_jvalue big, mq_jvalue other)
{
    const int sign = big.as.text[0] == '-' ? -1 : 1;
    if (other.type == MQ_J_BIG) return compare_digits(big.as.text, big.bytes, other.as.text, other.bytes);
    if (other.type != MQ_J_FLOAT) return sign;
    if (isnan(other.as.real)) return 2;
    if (isinf(other.as.real)) return other.as.real < 0 ? 1 : -1;
    if (fabs(other.as.real) < 0x1p63) return sign;
    char digits[REAL_DIGITS];
    const int bytes = snprintf(digits, sizeof digits, "%.0f", other.as.real);
    return compare_digits(big.as.text, big.bytes, digits, (size_t)bytes);
}

int mq__jbig_compare(mq_jvalue a, mq_jvalue b)
{
    if (a.type == MQ_J_BIG) return compare_one(a, b);
    const int order = compare_one(b, a);
    return order == 2 ? 2 : -order;
}
