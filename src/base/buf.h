/* A growing byte buffer with a byte bound: what output of unknown length is written to. */
#ifndef MQ_BASE_BUF_H
#define MQ_BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

/* Owns `data`. After a failed append, `failed` stays set and further appends do nothing, so a chain of appends is
 * checked once at its end. `data` is always NUL-terminated once anything was appended (the NUL is not counted). */
typedef struct mq_buf {
    char *data;
    size_t len, cap;
    size_t max;  /* largest len allowed; 0 means no bound */
    bool failed; /* an append failed: out of memory or over max */
} mq_buf;

bool mq__buf_append(mq_buf *buf, const void *bytes, size_t count); /* false when buf->failed */
bool mq__buf_puts(mq_buf *buf, const char *text);
bool mq__buf_putc(mq_buf *buf, char byte);
bool mq__buf_printf(mq_buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool mq__buf_reserve(mq_buf *buf, size_t extra);
void mq__buf_clear(mq_buf *buf); /* len = 0, failed = false; keeps the memory */
char *
mq__buf_take(mq_buf *buf); /* returns owned data (free with mq__free; NULL if failed or empty alloc) and empties */
void mq__buf_free(mq_buf *buf);

#endif
