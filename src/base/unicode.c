#include "base/unicode.h"

#include <string.h>
#include <utf8proc.h>

/* Length of the well-formed sequence at p (the table of well-formed byte sequences, Unicode 15 section 3.9), or 0. */
static size_t sequence_length(const uint8_t *p, size_t left)
{
    const uint8_t a = p[0];
    if (a < 0x80) return 1;
    if (a < 0xC2 || a > 0xF4 || left < 2) return 0;
    if (a < 0xE0) return (p[1] & 0xC0) == 0x80 ? 2 : 0;
    const uint8_t low = a == 0xE0 ? 0xA0 : a == 0xF0 ? 0x90 : 0x80;
    const uint8_t high = a == 0xED ? 0x9F : a == 0xF4 ? 0x8F : 0xBF;
    if (p[1] < low || p[1] > high || left < 3 || (p[2] & 0xC0) != 0x80) return 0;
    if (a < 0xF0) return 3;
    return left >= 4 && (p[3] & 0xC0) == 0x80 ? 4 : 0;
}

uint32_t mq__utf8_next(const char *text, size_t bytes, size_t *pos)
{
    const uint8_t *p = (const uint8_t *)text + *pos;
    const size_t n = sequence_length(p, bytes - *pos);
    *pos += n ? n : 1;
    switch (n) {
    case 1:
        return p[0];
    case 2:
        return (uint32_t)(p[0] & 0x1F) << 6 | (p[1] & 0x3Fu);
    case 3:
        return (uint32_t)(p[0] & 0x0F) << 12 | (uint32_t)(p[1] & 0x3F) << 6 | (p[2] & 0x3Fu);
    case 4:
        return (uint32_t)(p[0] & 0x07) << 18 | (uint32_t)(p[1] & 0x3F) << 12 | (uint32_t)(p[2] & 0x3F) << 6 |
               (p[3] & 0x3Fu);
    default:
        return MQ_UTF8_INVALID;
    }
}

size_t mq__utf8_before(const char *text, size_t end)
{
    const uint8_t *p = (const uint8_t *)text;
    for (size_t n = 2; n <= 4 && n <= end; n++) {
        if ((p[end - n + 1] & 0xC0) != 0x80) break;
        if (sequence_length(p + end - n, n) == n) return end - n;
    }
    return end - 1;
}

bool mq__utf8_valid(const char *text, size_t bytes)
{
    const uint8_t *p = (const uint8_t *)text;
    for (size_t i = 0; i < bytes;) {
        uint64_t eight;
        if (i + 8 <= bytes && (memcpy(&eight, p + i, 8), (eight & 0x8080808080808080u) == 0)) {
            i += 8;
            continue;
        }
        const size_t n = sequence_length(p + i, bytes - i);
        if (n == 0) return false;
        i += n;
    }
    return true;
}

size_t mq__utf8_incomplete_tail(const char *text, size_t bytes)
{
    /* A tail is incomplete when continuation bytes could still make it well-formed: try the two extreme ones. */
    for (size_t n = 1; n <= 3 && n <= bytes; n++) {
        const uint8_t *p = (const uint8_t *)text + bytes - n;
        if ((p[0] & 0xC0) == 0x80) continue;
        if (p[0] < 0xC2) return 0;
        uint8_t low[4] = {0, 0x80, 0x80, 0x80}, high[4] = {0, 0xBF, 0xBF, 0xBF};
        memcpy(low, p, n);
        memcpy(high, p, n);
        return sequence_length(low, 4) > n || sequence_length(high, 4) > n ? n : 0;
    }
    return 0;
}

bool mq__utf8_put(mq_buf *out, uint32_t code)
{
    char text[4];
    if (code < 0x80) return mq__buf_putc(out, (char)code);
    if (code < 0x800) {
        text[0] = (char)(0xC0 | code >> 6);
        text[1] = (char)(0x80 | (code & 0x3F));
        return mq__buf_append(out, text, 2);
    }
    if (code < 0x10000) {
        text[0] = (char)(0xE0 | code >> 12);
        text[1] = (char)(0x80 | (code >> 6 & 0x3F));
        text[2] = (char)(0x80 | (code & 0x3F));
        return mq__buf_append(out, text, 3);
    }
    text[0] = (char)(0xF0 | code >> 18);
    text[1] = (char)(0x80 | (code >> 12 & 0x3F));
    text[2] = (char)(0x80 | (code >> 6 & 0x3F));
    text[3] = (char)(0x80 | (code & 0x3F));
    return mq__buf_append(out, text, 4);
}

#define L (MQ_CLASS_LETTER | MQ_CLASS_WORD)
#define N (MQ_CLASS_NUMBER | MQ_CLASS_WORD)
#define S MQ_CLASS_SPACE
#define E (MQ_CLASS_SPACE | MQ_CLASS_NEWLINE)
#define P MQ_CLASS_PUNCT
#define U (MQ_CLASS_PUNCT | MQ_CLASS_WORD)
const uint8_t mq__ascii_class[128] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, S, E, S, S, E, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* 00 */
    S, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, N, N, N, N, N, N, N, N, N, N, P, P, P, P, P, P, /* 20 */
    P, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, P, P, P, P, U, /* 40 */
    P, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, P, P, P, P, 0, /* 60 */
};
#undef L
#undef N
#undef S
#undef E
#undef P
#undef U

/* Other_Alphabetic outside of M (PropList.txt): enclosed Latin letters; and Join_Control. */
static bool odd_word_character(uint32_t code)
{
    return (code >= 0x24B6 && code <= 0x24E9) || (code >= 0x1F130 && code <= 0x1F149) ||
           (code >= 0x1F150 && code <= 0x1F169) || (code >= 0x1F170 && code <= 0x1F189) || code == 0x200C ||
           code == 0x200D;
}

unsigned mq__unicode_class_slow(uint32_t code)
{
    if (code > 0x10FFFF) return 0;
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return MQ_CLASS_LETTER | MQ_CLASS_WORD;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
        return MQ_CLASS_MARK | MQ_CLASS_WORD;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
        return MQ_CLASS_NUMBER | MQ_CLASS_WORD;
    case UTF8PROC_CATEGORY_NO:
        return MQ_CLASS_NUMBER;
    case UTF8PROC_CATEGORY_PC:
        return MQ_CLASS_PUNCT | MQ_CLASS_WORD;
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
        return MQ_CLASS_PUNCT;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return MQ_CLASS_SPACE;
    default:
        if (code == 0x85) return MQ_CLASS_SPACE; /* NEL: a control that has White_Space */
        return odd_word_character(code) ? MQ_CLASS_WORD : 0;
    }
}
