/* Normal forms over utf8proc's decomposition and composition of single characters and short sequences.
 *
 * utf8proc orders combining marks by swapping neighbours, which is quadratic on a long run of them, so text is cut at
 * characters that no normal form can join to what stands before them, and each piece is ordered here by counting. */
#include "base/mem.h"
#include "base/unicode.h"

#include <string.h>
#include <utf8proc.h>

typedef struct codes {
    int32_t *data, *spare; /* spare: room for ordering, same capacity */
    size_t len, cap;
} codes;

static bool codes_reserve(codes *list, size_t extra)
{
    if (list->cap - list->len >= extra) return true;
    size_t cap = list->cap ? list->cap * 2 : 256;
    while (cap - list->len < extra)
        cap *= 2;
    int32_t *data = mq__realloc(list->data, cap * sizeof *data);
    if (!data) return false;
    list->data = data;
    int32_t *spare = mq__realloc(list->spare, cap * sizeof *spare);
    if (!spare) return false;
    list->spare = spare;
    list->cap = cap;
    return true;
}

static unsigned combining_class(int32_t code)
{
    return code < 0x300 ? 0 : (unsigned)utf8proc_get_property(code)->combining_class & 0xFF;
}

/* Sorts data[from, to) by combining class, keeping equal ones in order: counting sort, linear in the run. */
static void order_run(codes *list, size_t from, size_t to)
{
    size_t start[257] = {0};
    bool sorted = true;
    unsigned last = 0;
    for (size_t i = from; i < to; i++) {
        const unsigned ccc = combining_class(list->data[i]);
        sorted = sorted && ccc >= last;
        last = ccc;
        start[ccc + 1]++;
    }
    if (sorted) return;
    for (size_t c = 1; c < 257; c++)
        start[c] += start[c - 1];
    for (size_t i = from; i < to; i++)
        list->spare[start[combining_class(list->data[i])]++] = list->data[i];
    memcpy(list->data + from, list->spare, (to - from) * sizeof *list->data);
}

static void order_marks(codes *list)
{
    for (size_t i = 0; i < list->len;) {
        if (combining_class(list->data[i]) == 0) {
            i++;
            continue;
        }
        size_t end = i + 1;
        while (end < list->len && combining_class(list->data[end]) != 0)
            end++;
        if (end - i > 1) order_run(list, i, end);
        i = end;
    }
}

#define LONGEST_DECOMPOSITION 18 /* U+FDFA in NFKD (UAX 15) */

static int form_options(mq_normal_form form)
{
    const bool compose = form == MQ_NORMAL_NFC || form == MQ_NORMAL_NFKC;
    const bool compat = form == MQ_NORMAL_NFKC || form == MQ_NORMAL_NFKD;
    return (int)UTF8PROC_STABLE | (int)(compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
           (compat ? (int)UTF8PROC_COMPAT : 0);
}

/* text[0, bytes) is well-formed UTF-8 */
static bool normalize_piece(const char *text, size_t bytes, mq_normal_form form, codes *list, mq_buf *out)
{
    const int options = form_options(form);
    list->len = 0;
    for (size_t i = 0; i < bytes;) {
        const int32_t code = (int32_t)mq__utf8_next(text, bytes, &i);
        if (!codes_reserve(list, 2 * LONGEST_DECOMPOSITION)) return false;
        int boundary = 0;
        const utf8proc_ssize_t n = utf8proc_decompose_char(code, list->data + list->len, 2 * LONGEST_DECOMPOSITION,
                                                           (utf8proc_option_t)options, &boundary);
        if (n < 0 || n > 2 * LONGEST_DECOMPOSITION) return false;
        list->len += (size_t)n;
    }
    order_marks(list);
    if (options & (int)UTF8PROC_COMPOSE) {
        const utf8proc_ssize_t n =
            utf8proc_normalize_utf32(list->data, (utf8proc_ssize_t)list->len, (utf8proc_option_t)options);
        if (n < 0) return false;
        list->len = (size_t)n;
    }
    for (size_t i = 0; i < list->len; i++) {
        if (!mq__utf8_put(out, (uint32_t)list->data[i])) return false;
    }
    return true;
}

/* Characters that are their own normal form and never join the character before them. For NFC: everything below the
 * first combining mark, and the main CJK block; for the other forms ASCII. */
static bool is_boundary(uint32_t code, mq_normal_form form)
{
    if (code < 0x80 || code == MQ_UTF8_INVALID) return true;
    return form == MQ_NORMAL_NFC && (code < 0x300 || (code >= 0x4E00 && code <= 0x9FFF));
}

bool mq__unicode_normalize(const char *text, size_t bytes, mq_normal_form form, mq_buf *out)
{
    codes list = {0};
    bool ok = true;
    size_t done = 0;    /* text[0, done) has been written */
    size_t last = 0;    /* start of the latest boundary character: the piece that follows may change it */
    bool joins = false; /* text[last] is a boundary character that a following mark may join */
    for (size_t i = 0; ok && i < bytes;) {
        const size_t at = i;
        const uint32_t code = mq__utf8_next(text, bytes, &i);
        if (is_boundary(code, form)) {
            last = at;
            joins = code != MQ_UTF8_INVALID;
            continue;
        }
        const size_t from = joins ? last : at;
        size_t to = i;
        while (to < bytes) {
            size_t next = to;
            if (is_boundary(mq__utf8_next(text, bytes, &next), form)) break;
            to = next;
        }
        ok = mq__buf_append(out, text + done, from - done) && normalize_piece(text + from, to - from, form, &list, out);
        done = i = to;
        joins = false;
    }
    ok = ok && mq__buf_append(out, text + done, bytes - done);
    mq__free(list.data);
    mq__free(list.spare);
    return ok;
}

bool mq__unicode_lowercase(const char *text, size_t bytes, mq_buf *out)
{
    for (size_t i = 0; i < bytes;) {
        const size_t at = i;
        const uint32_t code = mq__utf8_next(text, bytes, &i);
        bool ok;
        if (code == MQ_UTF8_INVALID) {
            ok = mq__buf_append(out, text + at, 1);
        } else if (code == 0x130) { /* the one unconditional mapping to two characters (SpecialCasing.txt) */
            ok = mq__utf8_put(out, 'i') && mq__utf8_put(out, 0x307);
        } else {
            ok = mq__utf8_put(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)code));
        }
        if (!ok) return false;
    }
    return true;
}
