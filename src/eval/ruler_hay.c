#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"
#include "eval/ruler.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define HAY_MAX ((size_t)64 << 20)

/* Whether a sentence ends behind p: at a mark before a space, or where a line does. */
static bool ends_sentence(const char *p)
{
    return *p == '\n' || ((*p == '.' || *p == '!' || *p == '?') && isspace((unsigned char)p[1]));
}

/* Splits the text in place; begin has room for all its bytes. */
static void split_hay(mq_ruler_hay *hay)
{
    for (char *p = hay->text; *p;) {
        while (isspace((unsigned char)*p))
            p++;
        if (!*p) break;
        hay->begin[hay->count++] = (uint32_t)(p - hay->text);
        while (*p && !ends_sentence(p))
            p++;
        if (*p && *p != '\n') p++;
        if (*p) *p++ = '\0';
    }
}

mq_status mq__ruler_hay_read(const char *path, mq_ruler_hay *hay, mq_error *error)
{
    size_t bytes;
    *hay = (mq_ruler_hay){0};
    const mq_status status = mq__file_read(path, HAY_MAX, &hay->text, &bytes, error);
    if (status != MQ_OK) return status;
    mq__eval_make_text(hay->text, bytes);
    snprintf(hay->hash, sizeof hay->hash, "%016llx", (unsigned long long)mq__eval_hash(0, hay->text, bytes));
    hay->begin = mq__alloc((bytes / 2 + 1) * sizeof *hay->begin); /* a sentence and what ends it take two bytes */
    if (!hay->begin) return mq__fail(error, MQ_NO_MEMORY, "eval: ruler: expected memory, got none");
    split_hay(hay);
    if (hay->count > 0) return MQ_OK;
    return mq__fail(error, MQ_FORMAT, "eval: ruler: %s: expected sentences, got none", path);
}

void mq__ruler_hay_free(mq_ruler_hay *hay)
{
    mq__free(hay->text);
    mq__free(hay->begin);
    *hay = (mq_ruler_hay){0};
}
