/* Code points: UTF-8, and the classes and case mappings of Python's str, on top of utf8proc's tables. */
#include "jinja/jinja_case_table.h"
#include "jinja/jinja_run.h"
#include "jinja/jinja_text.h"

#include <string.h>
#include <utf8proc.h>

size_t mq__jtext_encode(uint32_t point, char out[4])
{
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    if (point < 0x800) {
        out[0] = (char)(0xc0 | point >> 6);
        out[1] = (char)(0x80 | (point & 0x3f));
        return 2;
    }
    if (point < 0x10000) {
        out[0] = (char)(0xe0 | point >> 12);
        out[1] = (char)(0x80 | (point >> 6 & 0x3f));
        out[2] = (char)(0x80 | (point & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | point >> 18);
    out[1] = (char)(0x80 | (point >> 12 & 0x3f));
    out[2] = (char)(0x80 | (point >> 6 & 0x3f));
    out[3] = (char)(0x80 | (point & 0x3f));
    return 4;
}

size_t mq__jtext_count(const char *text, size_t bytes)
{
    size_t count = 0;
    for (size_t i = 0; i < bytes; i++) {
        count += ((unsigned char)text[i] & 0xc0) != 0x80;
    }
    return count;
}

size_t mq__jtext_offset(const char *text, size_t bytes, size_t points)
{
    size_t i = 0;
    while (i < bytes && points > 0) {
        i++;
        while (i < bytes && ((unsigned char)text[i] & 0xc0) == 0x80) {
            i++;
        }
        points--;
    }
    return i;
}

/* ---------------------------------------------------------------- classes */

static utf8proc_category_t category(uint32_t point)
{
    return utf8proc_category((utf8proc_int32_t)point);
}

bool mq__point_is_space(uint32_t point)
{
    if (point < 0x80) return point == ' ' || (point >= 9 && point <= 13) || (point >= 0x1c && point <= 0x1f);
    return point == 0x85 || point == 0xa0 || point == 0x1680 || (point >= 0x2000 && point <= 0x200a) ||
           point == 0x2028 || point == 0x2029 || point == 0x202f || point == 0x205f || point == 0x3000;
}

bool mq__point_is_printable(uint32_t point)
{
    if (point < 0x7f) return point >= 0x20;
    switch (category(point)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
        return false;
    default:
        return true;
    }
}

bool mq__point_is_alpha(uint32_t point)
{
    const utf8proc_category_t c = category(point);
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}

bool mq__point_is_decimal(uint32_t point)
{
    return category(point) == UTF8PROC_CATEGORY_ND;
}

/* Numeric_Type=Digit beyond the decimals: super- and subscripts, and the enclosed and other digits. */
bool mq__point_is_digit(uint32_t point)
{
    static const struct {
        uint32_t first, last;
    } ranges[] = {
        {0xb2, 0xb3},     {0xb9, 0xb9},       {0x1369, 0x1371},   {0x19da, 0x19da},   {0x2070, 0x2070},
        {0x2074, 0x2079}, {0x2080, 0x2089},   {0x2460, 0x2468},   {0x2474, 0x247c},   {0x2488, 0x2490},
        {0x24ea, 0x24ea}, {0x24f5, 0x24fd},   {0x24ff, 0x24ff},   {0x2776, 0x277e},   {0x2780, 0x2788},
        {0x278a, 0x2792}, {0x10a40, 0x10a43}, {0x10e60, 0x10e68}, {0x11052, 0x1105a}, {0x1f100, 0x1f10a},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        if (point >= ranges[i].first && point <= ranges[i].last) return true;
    }
    return mq__point_is_decimal(point);
}

bool mq__point_is_numeric(uint32_t point)
{
    const utf8proc_category_t c = category(point);
    return c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
}

bool mq__point_is_upper(uint32_t point)
{
    /* Other_Uppercase: Roman numerals and circled letters */
    return category(point) == UTF8PROC_CATEGORY_LU || (point >= 0x2160 && point <= 0x216f) ||
           (point >= 0x24b6 && point <= 0x24cf) || (point >= 0x1f130 && point <= 0x1f149) ||
           (point >= 0x1f150 && point <= 0x1f169) || (point >= 0x1f170 && point <= 0x1f189);
}

bool mq__point_is_lower(uint32_t point)
{
    /* Other_Lowercase: ordinals, modifier letters, Roman numerals and circled letters */
    return category(point) == UTF8PROC_CATEGORY_LL || point == 0xaa || point == 0xba ||
           (point >= 0x2b0 && point <= 0x2b8) || (point >= 0x2c0 && point <= 0x2c1) ||
           (point >= 0x2e0 && point <= 0x2e4) || point == 0x345 || point == 0x37a ||
           (point >= 0x1d2c && point <= 0x1d6a) || point == 0x1d78 || (point >= 0x1d9b && point <= 0x1dbf) ||
           point == 0x2071 || point == 0x207f || (point >= 0x2090 && point <= 0x209c) ||
           (point >= 0x2170 && point <= 0x217f) || (point >= 0x24d0 && point <= 0x24e9) || point == 0x2c7c ||
           point == 0x2c7d || point == 0xa69c || point == 0xa69d || point == 0xa770 || point == 0xa7f8 ||
           point == 0xa7f9 || (point >= 0xab5c && point <= 0xab5f);
}

bool mq__point_is_title(uint32_t point)
{
    return category(point) == UTF8PROC_CATEGORY_LT;
}

bool mq__point_is_word(uint32_t point)
{
    if (point < 0x80) {
        return point == '_' || (point >= '0' && point <= '9') || ((point | 0x20) >= 'a' && (point | 0x20) <= 'z');
    }
    return mq__point_is_alpha(point) || mq__point_is_numeric(point);
}

/* ---------------------------------------------------------------- case */

size_t mq__point_case(uint32_t point, mq_jcase to, uint32_t out[3])
{
    if (point < 0x80) {
        const bool letter = (point | 0x20) >= 'a' && (point | 0x20) <= 'z';
        out[0] = !letter ? point : to == MQ_J_LOWER ? point | 0x20 : point & ~0x20u;
        return 1;
    }
    if (to == MQ_J_LOWER) {
        out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)point);
        if (point != 0x130) return 1;
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    size_t low = 0, high = sizeof special_cases / sizeof special_cases[0];
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (special_cases[middle].point < point) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low < sizeof special_cases / sizeof special_cases[0] && special_cases[low].point == point) {
        const uint16_t *const form = to == MQ_J_UPPER ? special_cases[low].upper : special_cases[low].title;
        size_t n = 0;
        while (n < 3 && form[n]) {
            out[n] = form[n];
            n++;
        }
        return n;
    }
    const utf8proc_int32_t code = (utf8proc_int32_t)point;
    out[0] = (uint32_t)(to == MQ_J_UPPER ? utf8proc_toupper(code) : utf8proc_totitle(code));
    return 1;
}

/* Letters with case, for the rule of the final sigma; and what that rule skips. */
static bool is_cased_jinja_unicode(uint32_t point)
{
    return mq__point_is_upper(point) || mq__point_is_lower(point) || mq__point_is_title(point);
}

static bool is_case_ignorable(uint32_t point)
{
    switch (category(point)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
        return true;
    default:
        return point == '\'' || point == '.' || point == ':' || point == 0xb7 || point == 0x2019 || point == 0x2018 ||
               point == 0x2024 || point == 0x2027;
    }
}

/* A sigma at [start, end) is final when a cased letter stands before it and none after it. */
static bool is_final_sigma(mq_jvalue text, size_t start, size_t end)
{
    bool before = false;
    for (size_t i = start; i > 0;) {
        i = mq__utf8_before(text.as.text, i);
        size_t next = i;
        const uint32_t point = mq__utf8_next(text.as.text, text.bytes, &next);
        if (is_case_ignorable(point)) continue;
        before = is_cased_jinja_unicode(point);
        break;
    }
    for (size_t i = end; before && i < text.bytes;) {
        const uint32_t point = mq__utf8_next(text.as.text, text.bytes, &i);
        if (!is_case_ignorable(point)) return !is_cased_jinja_unicode(point);
    }
    return before;
}

mq_jvalue mq__jvalue_case(mq_jrun *run, mq_jvalue value, mq_jcase to)
{
    mq_jtext text = {0};
    mq__jrun_charge_points(run, value.bytes);
    for (size_t i = 0; i < value.bytes;) {
        const size_t start = i;
        uint32_t forms[3];
        const uint32_t point = mq__utf8_next(value.as.text, value.bytes, &i);
        if (to == MQ_J_LOWER && point == 0x3a3) {
            mq__jrun_charge(run, 1);
            mq__jtext_put_point(run, &text, is_final_sigma(value, start, i) ? 0x3c2 : 0x3c3);
            continue;
        }
        const size_t n = mq__point_case(point, to, forms);
        for (size_t k = 0; k < n; k++) {
            mq__jtext_put_point(run, &text, forms[k]);
        }
    }
    mq_jvalue result = mq__jtext_take(&text);
    result.flags = value.flags;
    return result;
}
