#include "base/buf.h"
#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"
#include "eval/ruler.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define HAY_MAX ((size_t)64 << 20)

/* Bytes of a sentence at most: what has no ends of sentences is cut into pieces. */
#define SENTENCE_MAX 400

/* Whether a sentence ends with the byte at p: a mark before a space (or a full stop of Chinese and Japanese, whose last byte it is),
 * or the last byte of a line. */
static bool ends_sentence(const char *p)
{
    static const char *const wide[] = {"\xe3\x80\x82", "\xef\xbc\x81", "\xef\xbc\x9f"};
    if ((*p == '.' || *p == '!' || *p == '?') && isspace((unsigned char)p[1])) return true;
    for (size_t i = 0; i < 3; i++) {
        if (*p == wide[i][2] && p[-1] == wide[i][1] && p[-2] == wide[i][0]) return true;
    }
    return p[1] == '\n' || p[1] == '\r';
}

/* The bytes of the sentence at p, which is not empty. */
static size_t sentence_bytes(const char *p)
{
    size_t bytes = 0, space = 0;
    while (p[bytes] && bytes < SENTENCE_MAX) {
        if (p[bytes] == ' ') space = bytes;
        if (ends_sentence(p + bytes++)) return bytes;
    }
    if (!p[bytes]) return bytes;
    if (space) return space;
    while (((unsigned char)p[bytes] & 0xc0) == 0x80)
        bytes--; /* not within a character */
    return bytes;
}

/* Splits the text; each sentence gets a NUL behind it, for which the text is moved apart. */
static bool split_hay(mq_ruler_hay *hay, const char *from, mq_buf *to)
{
    for (const char *p = from; *p;) {
        while (isspace((unsigned char)*p))
            p++;
        if (!*p) break;
        const size_t bytes = sentence_bytes(p);
        hay->begin[hay->count++] = (uint32_t)to->len;
        mq__buf_append(to, p, bytes);
        mq__buf_putc(to, '\0');
        p += bytes;
    }
    return !to->failed;
}

mq_status mq__ruler_hay_read(const char *path, mq_ruler_hay *hay, mq_error *error)
{
    size_t bytes;
    *hay = (mq_ruler_hay){0};
    char *text = NULL;
    mq_buf sentences = {0};
    const mq_status status = mq__file_read(path, HAY_MAX, &text, &bytes, error);
    if (status != MQ_OK) return status;
    mq__eval_make_text(text, bytes);
    snprintf(hay->hash, sizeof hay->hash, "%016llx", (unsigned long long)mq__eval_hash(0, text, bytes));
    hay->begin =
        mq__alloc((bytes / 2 + 1) * sizeof *hay->begin); /* behind each but the last there is a space, or it is long */
    const bool split = hay->begin && split_hay(hay, text, &sentences);
    hay->text = mq__buf_take(&sentences);
    mq__free(text);
    if (!split) return mq__fail(error, MQ_NO_MEMORY, "eval: ruler: expected memory, got none");
    if (hay->count > 0) return MQ_OK;
    return mq__fail(error, MQ_FORMAT, "eval: ruler: %s: expected sentences, got none", path);
}

void mq__ruler_hay_free(mq_ruler_hay *hay)
{
    mq__free(hay->text);
    mq__free(hay->begin);
    *hay = (mq_ruler_hay){0};
}
