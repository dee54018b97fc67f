/* Small questions about names and digits. */
#ifndef MQ_BASE_ASCII_H
#define MQ_BASE_ASCII_H

#include <stdbool.h>
#include <string.h>

static inline bool mq__has_ending(const char *text, const char *ending)
{
    const size_t n = strlen(text), e = strlen(ending);
    return n >= e && strcmp(text + n - e, ending) == 0;
}

/* The value of a hexadecimal digit; -1: it is none. */
static inline int mq__hex_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

#endif
