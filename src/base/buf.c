#include "base/buf.h"

#include "base/checked.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

bool mq__buf_reserve(mq_buf *buf, size_t extra)
{
    size_t need;
    if (buf->failed) return false;
    if (!mq__add_size(buf->len, extra, &need) || (buf->max && need > buf->max) || !mq__add_size(need, 1, &need)) {
        buf->failed = true;
        return false;
    }
    if (need <= buf->cap) return true;
    size_t cap = buf->cap ? buf->cap : 64;
    while (cap < need && mq__mul_size(cap, 2, &cap)) {}
    if (cap < need) cap = need;
    char *data = mq__realloc(buf->data, cap);
    if (!data) {
        buf->failed = true;
        return false;
    }
    buf->data = data;
    buf->cap = cap;
    return true;
}

bool mq__buf_append(mq_buf *buf, const void *bytes, size_t count)
{
    if (!mq__buf_reserve(buf, count)) return false;
    if (count) memcpy(buf->data + buf->len, bytes, count);
    buf->len += count;
    buf->data[buf->len] = '\0';
    return true;
}

bool mq__buf_puts(mq_buf *buf, const char *text)
{
    return mq__buf_append(buf, text, strlen(text));
}

bool mq__buf_putc(mq_buf *buf, char byte)
{
    return mq__buf_append(buf, &byte, 1);
}

bool mq__buf_printf(mq_buf *buf, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const int need = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (need < 0 || !mq__buf_reserve(buf, (size_t)need)) {
        buf->failed = true;
        return false;
    }
    va_start(arguments, format);
    vsnprintf(buf->data + buf->len, (size_t)need + 1, format, arguments);
    va_end(arguments);
    buf->len += (size_t)need;
    return true;
}

void mq__buf_clear(mq_buf *buf)
{
    buf->len = 0;
    buf->failed = false;
    if (buf->data) buf->data[0] = '\0';
}

char *mq__buf_take(mq_buf *buf)
{
    char *data = NULL;
    if (!buf->failed && mq__buf_reserve(buf, 0)) {
        data = buf->data;
        data[buf->len] = '\0';
        buf->data = NULL;
    }
    mq__buf_free(buf);
    return data;
}

void mq__buf_free(mq_buf *buf)
{
    mq__free(buf->data);
    *buf = (mq_buf){.max = buf->max};
}
