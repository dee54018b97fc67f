#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *mq_status_text(mq_status status)
{
    static const char *const texts[] = {
#define MQ_STATUS_TEXT(name, text) [MQ_##name] = (text),
        MQ_STATUS_LIST(MQ_STATUS_TEXT)
#undef MQ_STATUS_TEXT
    };
    const size_t i = (size_t)status;
    return i < sizeof texts / sizeof texts[0] ? texts[i] : "unknown status";
}

static void keep_one_line(char *text)
{
    for (unsigned char *p = (unsigned char *)text; *p; p++) {
        if (*p < 0x20 || *p == 0x7f) *p = '?';
    }
}

mq_status mq__fail(mq_error *error, mq_status status, const char *format, ...)
{
    if (!error) return status;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    keep_one_line(error->text);
    error->status = status;
    return status;
}

mq_status mq__fail_within(mq_error *error, mq_status status, const char *prefix)
{
    if (!error) return status;
    char inner[sizeof error->text];
    memcpy(inner, error->text, sizeof inner);
    const int used = snprintf(error->text, sizeof error->text, "%s: ", prefix);
    if (used > 0 && (size_t)used < sizeof error->text) {
        const size_t room = sizeof error->text - (size_t)used - 1;
        const size_t length = strnlen(inner, room); /* what does not fit is cut */
        memcpy(error->text + used, inner, length);
        error->text[(size_t)used + length] = '\0';
    }
    keep_one_line(error->text);
    return error->status;
}
