/* UTF-8, classes and normal forms, with broken input. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "base/unicode.h"

static void test_decode_all(void **state)
{
    (void)state;
    for (uint32_t code = 0; code <= 0x10FFFF; code++) {
        if (code >= 0xD800 && code < 0xE000) continue;
        utf8proc_uint8_t bytes[4];
        const size_t n = (size_t)utf8proc_encode_char((utf8proc_int32_t)code, bytes);
        size_t pos = 0;
        assert_int_equal(mq__utf8_next((const char *)bytes, n, &pos), code);
        assert_int_equal(pos, n);
        assert_int_equal(mq__utf8_before((const char *)bytes, n), 0);
        for (size_t cut = 1; cut < n; cut++) { /* an unfinished character: each byte for itself */
            pos = 0;
            assert_int_equal(mq__utf8_next((const char *)bytes, cut, &pos), MQ_UTF8_INVALID);
            assert_int_equal(pos, 1);
            assert_int_equal(mq__utf8_incomplete_tail((const char *)bytes, cut), cut);
        }
        assert_int_equal(mq__utf8_incomplete_tail((const char *)bytes, n), 0);
    }
}

/* All texts of three bytes: walking forward and backward sees the same characters, utf8proc agrees on validity, and a
 * tail is incomplete exactly when some continuation completes it. */
static void test_three_bytes(void **state)
{
    (void)state;
    static const uint8_t picks[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF,
                                    0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF};
    const size_t n = sizeof picks;
    for (size_t i = 0; i < n * n * n; i++) {
        const uint8_t bytes[3] = {picks[i / n / n], picks[i / n % n], picks[i % n]};
        const char *text = (const char *)bytes;
        size_t starts[4] = {0}, count = 0, pos = 0;
        bool valid = true;
        while (pos < 3) {
            starts[count++] = pos;
            valid = mq__utf8_next(text, 3, &pos) != MQ_UTF8_INVALID && valid;
        }
        assert_int_equal(mq__utf8_valid(text, 3), valid);
        utf8proc_int32_t code;
        utf8proc_ssize_t at = 0, step = 1;
        while (at < 3 && (step = utf8proc_iterate(bytes + at, 3 - at, &code)) > 0)
            at += step;
        assert_int_equal(valid, step > 0);
        for (size_t end = 3; end > 0 && count > 0; end = starts[count])
            assert_int_equal(mq__utf8_before(text, end), starts[--count]);
        size_t expected = 0;
        for (size_t tail = 1; tail <= 3; tail++) {
            for (size_t a = 0; a < 3 && expected == 0; a++) {
                static const uint8_t next[] = {0x80, 0x9F, 0xBF};
                const uint8_t longer[5] = {bytes[3 - tail], tail > 1 ? bytes[4 - tail] : next[a],
                                           tail > 2 ? bytes[2] : next[a], next[a], 0};
                size_t end = 0;
                if (mq__utf8_next((const char *)longer, 4, &end) != MQ_UTF8_INVALID && end > tail) expected = tail;
            }
        }
        assert_int_equal(mq__utf8_incomplete_tail(text, 3), expected);
    }
}

static void test_ascii_classes(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < 128; code++) {
        unsigned expected = mq__unicode_class_slow(code);
        if (code == '\n' || code == '\r') expected |= MQ_CLASS_NEWLINE;
        if (code >= 9 && code <= 13) expected |= MQ_CLASS_SPACE;
        if (strchr("$+<=>^`|~", (int)code) && code) expected |= MQ_CLASS_PUNCT;
        assert_int_equal(mq__unicode_class(code), expected);
    }
    assert_int_equal(mq__unicode_class(MQ_UTF8_INVALID), 0);
    assert_int_equal(mq__unicode_class(0xFFFD), 0);
    assert_int_equal(mq__unicode_class(0x85), MQ_CLASS_SPACE);
    assert_int_equal(mq__unicode_class(0x180E), 0);
    assert_int_equal(mq__unicode_class(0x24B6), MQ_CLASS_WORD);
    assert_int_equal(mq__unicode_class(0x203F), MQ_CLASS_PUNCT | MQ_CLASS_WORD);
}

static void expect_form(mq_normal_form form, const char *text, const char *expected)
{
    mq_buf out = {0};
    assert_true(mq__unicode_normalize(text, strlen(text), form, &out));
    assert_int_equal(out.len, strlen(expected));
    assert_memory_equal(out.data, expected, out.len);
    mq__buf_free(&out);
}

static void test_forms(void **state)
{
    (void)state;
    expect_form(MQ_NORMAL_NFC, "", "");
    expect_form(MQ_NORMAL_NFC, "abc\xC3\xA9", "abc\xC3\xA9");
    expect_form(MQ_NORMAL_NFC, "e\xCC\x81", "\xC3\xA9");
    expect_form(MQ_NORMAL_NFC, "xe\xFF\xCC\x81", "xe\xFF\xCC\x81");         /* a broken byte parts them */
    expect_form(MQ_NORMAL_NFC, "\xE1\x84\x80\xE1\x85\xA1", "\xEA\xB0\x80"); /* Hangul */
    expect_form(MQ_NORMAL_NFC, "\xE2\x84\xAB", "\xC3\x85");                 /* a singleton */
    expect_form(MQ_NORMAL_NFC, "\xE0\xA5\x98", "\xE0\xA4\x95\xE0\xA4\xBC"); /* a composition exclusion */
    expect_form(MQ_NORMAL_NFD, "\xE1\xBA\xA5", "a\xCC\x82\xCC\x81");
    expect_form(MQ_NORMAL_NFC, "q\xCC\x87\xCC\xA3", "q\xCC\xA3\xCC\x87"); /* order of marks */
    expect_form(MQ_NORMAL_NFKC, "\xEF\xBC\xA1\xE2\x91\xA0", "A1");
    expect_form(MQ_NORMAL_NFKD, "\xEF\xB7\xBA",
                "\xD8\xB5\xD9\x84\xD9\x89 \xD8\xA7\xD9\x84\xD9\x84\xD9\x87 \xD8\xB9\xD9\x84\xD9\x8A\xD9\x87 "
                "\xD9\x88\xD8\xB3\xD9\x84\xD9\x85");
    /* across a piece: boundary characters on both sides */
    expect_form(MQ_NORMAL_NFC,
                "\xE4\xBD\xA0"
                "e\xCC\x81\xE4\xBD\xA0"
                "e\xCC\x81",
                "\xE4\xBD\xA0\xC3\xA9\xE4\xBD\xA0\xC3\xA9");
}

/* Every character for itself and behind a letter, against utf8proc on the whole text. */
static void test_forms_against_utf8proc(void **state)
{
    (void)state;
    for (uint32_t code = 1; code <= 0x2FFFF; code++) {
        if (code >= 0xD800 && code < 0xE000) continue;
        char text[32] = "e";
        size_t n = 1;
        n += (size_t)utf8proc_encode_char((utf8proc_int32_t)code, (utf8proc_uint8_t *)text + n);
        n += (size_t)utf8proc_encode_char(0x323, (utf8proc_uint8_t *)text + n);
        n += (size_t)utf8proc_encode_char(0x301, (utf8proc_uint8_t *)text + n);
        for (int form = MQ_NORMAL_NFC; form <= MQ_NORMAL_NFKD; form++) {
            const bool compat = form == MQ_NORMAL_NFKC || form == MQ_NORMAL_NFKD;
            const bool compose = form == MQ_NORMAL_NFC || form == MQ_NORMAL_NFKC;
            utf8proc_uint8_t *expected;
            const int options = (int)UTF8PROC_STABLE | (int)(compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                                (compat ? (int)UTF8PROC_COMPAT : 0);
            const utf8proc_ssize_t m = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &expected,
                                                    (utf8proc_option_t)options);
            assert_true(m >= 0);
            mq_buf out = {0};
            assert_true(mq__unicode_normalize(text, n, (mq_normal_form)form, &out));
            assert_int_equal(out.len, m);
            assert_memory_equal(out.data, expected, (size_t)m);
            mq__buf_free(&out);
            mq__free(expected);
        }
    }
}

/* A megabyte of marks in the worst order is sorted in linear time. */
static void test_marks_are_linear(void **state)
{
    (void)state;
    mq_buf text = {0}, out = {0};
    mq__buf_putc(&text, 'e');
    for (int i = 0; i < 250000; i++)
        mq__buf_puts(&text, "\xCC\x81\xCC\x96");
    const clock_t begin = clock();
    assert_true(mq__unicode_normalize(text.data, text.len, MQ_NORMAL_NFC, &out));
    assert_true(clock() - begin < 10 * CLOCKS_PER_SEC);
    assert_int_equal(out.len, text.len - 1); /* e and the first acute are one; the graves below come first */
    assert_memory_equal(out.data, "\xC3\xA9\xCC\x96\xCC\x96", 6);
    mq__buf_free(&text);
    mq__buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode_all),
        cmocka_unit_test(test_three_bytes),
        cmocka_unit_test(test_ascii_classes),
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_forms_against_utf8proc),
        cmocka_unit_test(test_marks_are_linear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
