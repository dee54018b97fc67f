/* Reading and printing JSON: numbers that jansson refuses, short memory, a locale with a comma. */
#include "base/json_read.h"

#include "base/mem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static json_t *read_text(const char *text, mq_json_numbers numbers)
{
    json_t *root;
    mq_error error = {0};
    if (mq__json_read(text, strlen(text), JSON_ALLOW_NUL, numbers, "test", &root, &error) != MQ_OK)
        fail_msg("%s", error.text);
    return root;
}

static void test_rounded_numbers(void **state)
{
    (void)state;
    json_t *const root =
        read_text("{\"a\": [1e400, 18446744073709551615, -9223372036854775808, 9223372036854775807, -1e999], \"s\": "
                  "\"\\\" 99999999999999999999\", \"n\": 1000000000000000000000000, \"t\": [0.5, 7]}",
                  MQ_JSON_ROUND_NUMBERS);
    const json_t *const a = json_object_get(root, "a");
    assert_true(json_real_value(json_array_get(a, 0)) == 1.7976931348623157e308);
    assert_true(json_real_value(json_array_get(a, 1)) == 18446744073709551615.0);
    assert_true(json_integer_value(json_array_get(a, 2)) == INT64_MIN);
    assert_true(json_integer_value(json_array_get(a, 3)) == INT64_MAX);
    assert_true(json_real_value(json_array_get(a, 4)) == -1.7976931348623157e308);
    assert_string_equal(json_string_value(json_object_get(root, "s")), "\" 99999999999999999999");
    assert_true(json_real_value(json_object_get(root, "n")) == 1e24);
    assert_true(json_real_value(json_array_get(json_object_get(root, "t"), 0)) == 0.5);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(root, "t"), 1)), 7);
    int64_t value;
    assert_int_equal(mq__json_integer(root, "n", 0, INT64_MAX, 0, &value, NULL), MQ_FORMAT); /* one that is used */
    json_decref(root);
}

static void test_kept_numbers(void **state)
{
    (void)state;
    json_t *const root = read_text("[1, {\"x\": 2, \"y\": [3, 18446744073709551615, 4]}, \"99999999999999999999\", "
                                   "-10000000000000000000000, {\"z\": 1.5e999}, 5]",
                                   MQ_JSON_KEEP_NUMBERS);
    const json_t *const inner = json_array_get(root, 1), *const y = json_object_get(inner, "y");
    assert_int_equal(json_integer_value(json_array_get(root, 0)), 1);
    assert_int_equal(json_integer_value(json_object_get(inner, "x")), 2);
    assert_string_equal(mq__json_big_number(json_array_get(y, 1)), "18446744073709551615");
    assert_int_equal(json_integer_value(json_array_get(y, 2)), 4);
    assert_null(mq__json_big_number(json_array_get(root, 2)));
    assert_string_equal(mq__json_big_number(json_array_get(root, 3)), "-10000000000000000000000");
    assert_string_equal(mq__json_big_number(json_object_get(json_array_get(root, 4), "z")), "1.5e999");
    assert_int_equal(json_integer_value(json_array_get(root, 5)), 5);
    static const size_t flags[] = {JSON_COMPACT, 0, JSON_INDENT(2), JSON_COMPACT | JSON_ENSURE_ASCII};
    static const char spelled[] =
        "[1,{\"x\":2,\"y\":[3,18446744073709551615,4]},\"99999999999999999999\",-10000000000000000000000,"
        "{\"z\":1.5e999},5]";
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        mq_buf text = {0};
        assert_true(mq__buf_puts(&text, "{\"\\u0000\": ")); /* what was there before stays */
        const size_t before = text.len;
        assert_true(mq__json_print(root, flags[i], &text));
        assert_int_equal(memcmp(text.data, "{\"\\u0000\": ", before), 0);
        char *to = text.data + before;
        for (const char *from = to; *from; from++) {
            if (*from != ' ' && *from != '\n') *to++ = *from;
        }
        *to = '\0';
        assert_string_equal(text.data + before, spelled);
        mq__buf_free(&text);
    }
    json_decref(root);
    json_t *const odd = read_text("[\"{\\\"\\\\u0000\\\": \\\"5\\\"}\", 18446744073709551615]", MQ_JSON_KEEP_NUMBERS);
    mq_buf line = {0}; /* a string that looks like such an object stays a string */
    assert_true(mq__json_print(odd, JSON_COMPACT, &line));
    assert_string_equal(line.data, "[\"{\\\"\\\\u0000\\\": \\\"5\\\"}\",18446744073709551615]");
    mq__buf_free(&line);
    json_decref(odd);
    /* No text can say what stands for such a number. */
    json_t *forged;
    static const char text[] = "{\"\\u0000\": \"5\", \"n\": 99999999999999999999}";
    assert_int_equal(mq__json_read(text, strlen(text), JSON_ALLOW_NUL, MQ_JSON_KEEP_NUMBERS, "test", &forged, NULL),
                     MQ_FORMAT);
    assert_null(forged);
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        "{",
                                        "[099999999999999999999]",
                                        "[99999999999999999999",
                                        "[1 2]",
                                        "[1-2]",
                                        "[1e400,]",
                                        "{\"a\": 1, \"a\": 99999999999999999999}",
                                        "[-]"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        json_t *root;
        mq_error error = {0};
        assert_int_equal(mq__json_read(texts[i], strlen(texts[i]), 0, MQ_JSON_KEEP_NUMBERS, "test", &root, &error),
                         MQ_FORMAT);
        assert_null(root);
        assert_non_null(strstr(error.text, "test: line "));
    }
}

/* Strings grow over several buffers, so that the parser's appends fail at every place, closing quotes among them. */
static void test_short_memory(void **state)
{
    (void)state;
    char text[4000], expected[4000];
    size_t used = 0;
    used += (size_t)snprintf(text, sizeof text, "{\"numbers\": [1.5, -7, 18446744073709551615]");
    for (int i = 1; i < 40; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, ", \"k%0*d\": \"\\u00e9%0*d\"", i, 0, i, 0);
    }
    snprintf(text + used, sizeof text - used, "}");
    for (unsigned long n = 0;; n++) { /* 0: none fails */
        json_t *root;
        mq_buf printed = {0};
        mq_error error = {0};
        (void)mq__alloc_fail_at(n);
        mq_status status = mq__json_read(text, strlen(text), 0, MQ_JSON_ROUND_NUMBERS, "test", &root, &error);
        const bool is_printed = status == MQ_OK && mq__json_print(root, JSON_COMPACT, &printed);
        const unsigned long made = mq__alloc_fail_at(0);
        if (n == 0) snprintf(expected, sizeof expected, "%s", printed.data);
        if (status != MQ_OK) {
            assert_int_equal(status, MQ_NO_MEMORY);
            assert_int_equal(error.status, MQ_NO_MEMORY);
            assert_null(root);
        } else if (is_printed) {
            assert_string_equal(printed.data, expected);
        }
        json_decref(root);
        mq__buf_free(&printed);
        if (made < n) {
            assert_true(is_printed && n > 100);
            return;
        }
        assert_true(n == 0 || !is_printed);
    }
}

/* Building goes on after a lack of memory; the count tells. */
static void test_failures_are_counted(void **state)
{
    (void)state;
    json_t *const whole =
        read_text("{\"a\": 1, \"b\": 2, \"c\": 3, \"d\": 4, \"e\": 5, \"f\": 6, \"g\": 7, \"h\": 8, \"i\": 9}",
                  MQ_JSON_ROUND_NUMBERS);
    bool lost_some = false;
    for (unsigned long n = 1;; n++) {
        const unsigned long before = mq__json_failures();
        (void)mq__alloc_fail_at(n);
        json_t *const copy = json_copy(whole);
        const bool failed = mq__alloc_fail_at(0) >= n;
        lost_some = lost_some || (copy && json_object_size(copy) < 9);
        assert_int_equal(mq__json_failures() - before, failed);
        json_decref(copy);
        if (!failed) break;
    }
    assert_true(lost_some); /* else the count would not be needed */
    json_decref(whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rounded_numbers),
        cmocka_unit_test(test_kept_numbers),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_short_memory),
        cmocka_unit_test(test_failures_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
