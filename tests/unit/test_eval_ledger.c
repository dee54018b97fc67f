/* The ledger task: its texts as the training corpus has them (tools/train/test_world.py has the same literal), walks checked by
 * reading the text itself, and scores of right, wrong and malformed answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "eval/ledger.h"
#include "eval/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char names[3][32] = {"Ann", "Bob", "Cid"};
static uint8_t numbers[] = {4, 7, 2};
static uint32_t places[] = {2, 0, 1};
static const mq_ledger small = {.name = names, .number = numbers, .place = places, .rows = 3, .steps = 3, .total = 93};

static const char small_text[] = "Each row has a name, a number and the next name.\n"
                                 "Cid: 2, then Ann.\n"
                                 "Ann: 4, then Bob.\n"
                                 "Bob: 7, then Cid.\n"
                                 "Start with a total of 93 and follow 3 rows, one a line, with the total so far:\n"
                                 "1. Ann: 4, then Bob. Total 97.";

static void test_wording(void **state)
{
    (void)state;
    mq_buf text = {0};
    char line[128];
    mq__ledger_text(&small, &text);
    mq__buf_putc(&text, '\0');
    assert_string_equal(text.data, small_text);
    mq__ledger_line(&small, 2, line);
    assert_string_equal(line, "3. Cid: 2, then Ann. Total 106.");
    mq__buf_free(&text);
}

/* Walks through the text by searching it, as a reader would. */
static void walk(const mq_ledger *ledger, char *text)
{
    char name[32], next[32], line[128], start[40];
    unsigned total, steps, number, count = 0;
    const char *ask = strstr(text, "Start with a total of ");
    assert_non_null(ask);
    assert_int_equal(sscanf(ask, "Start with a total of %u and follow %u rows", &total, &steps), 2);
    assert_int_equal(sscanf(strchr(ask, '\n'), "\n1. %31[A-Za-z]:", name), 1);
    assert_int_equal(steps, ledger->steps);
    for (unsigned i = 0; i < steps; i++) {
        snprintf(start, sizeof start, "\n%s: ", name);
        const char *row = strstr(text, start);
        assert_non_null(row);
        assert_true(row < ask && !strstr(row + 1, start)); /* one row of that name, in the table */
        assert_int_equal(sscanf(row + strlen(start), "%u, then %31[A-Za-z].", &number, next), 2);
        assert_true(number >= 1 && number <= 9);
        total += number;
        char wanted[128];
        snprintf(wanted, sizeof wanted, "%u. %s: %u, then %s. Total %u.", i + 1, name, number, next, total);
        mq__ledger_line(ledger, i, line);
        assert_string_equal(line, wanted);
        memcpy(name, next, sizeof name);
        count++;
    }
    assert_int_equal(count, steps);
}

static void test_walks(void **state)
{
    (void)state;
    static const uint32_t rows[] = {2, 20, 40, 300}, steps[] = {2, 20, 20, 40};
    for (size_t i = 0; i < 4; i++) {
        mq_ledger a, b, other;
        mq_buf text = {0}, again = {0}, different = {0};
        assert_int_equal(mq__ledger_make(&a, rows[i], steps[i], 42, "x", NULL), MQ_OK);
        assert_int_equal(mq__ledger_make(&b, rows[i], steps[i], 42, "x", NULL), MQ_OK);
        assert_int_equal(mq__ledger_make(&other, rows[i], steps[i], 43, "x", NULL), MQ_OK);
        mq__ledger_text(&a, &text);
        mq__ledger_text(&b, &again);
        mq__ledger_text(&other, &different);
        mq__buf_putc(&text, '\0');
        mq__buf_putc(&again, '\0');
        mq__buf_putc(&different, '\0');
        assert_string_equal(text.data, again.data);
        assert_string_not_equal(text.data, different.data);
        walk(&a, text.data);
        for (uint32_t k = 0; k < rows[i]; k++) {
            assert_true(mq__eval_is_held(a.name[k]));
        }
        mq__buf_free(&text);
        mq__buf_free(&again);
        mq__buf_free(&different);
        mq__ledger_free(&a);
        mq__ledger_free(&b);
        mq__ledger_free(&other);
    }
}

static void expect(const char *answer, bool last, uint32_t right, mq_ledger_part part)
{
    const mq_ledger_score score = mq__ledger_score(&small, answer);
    if (score.last != last || score.right != right || score.part != part) {
        fail_msg("%s: last %d, %u lines, first wrong: %s", answer, score.last, score.right,
                 mq__ledger_part_name(score.part));
    }
}

#define ONE   "1. Ann: 4, then Bob. Total 97.\n"
#define TWO   "2. Bob: 7, then Cid. Total 104.\n"
#define THREE "3. Cid: 2, then Ann. Total 106."

static void test_scores(void **state)
{
    (void)state;
    expect(ONE TWO THREE, true, 3, MQ_LEDGER_NONE);
    expect("\n" ONE "\n  " TWO THREE "\n \n", true, 3, MQ_LEDGER_NONE);
    expect("1. Ann: 4, then Bob. Total 97\n" TWO THREE, true, 3, MQ_LEDGER_NONE);
    expect("", false, 0, MQ_LEDGER_END);
    expect(ONE TWO, false, 2, MQ_LEDGER_END);
    expect(ONE TWO THREE "\n4. Ann: 4, then Bob. Total 110.", false, 3, MQ_LEDGER_END);
    expect(ONE TWO THREE "\nThe total is 106.", true, 3, MQ_LEDGER_END);
    expect("2" ONE TWO THREE, true, 0, MQ_LEDGER_COUNT);
    expect(ONE "3. Bob: 7, then Cid. Total 104.\n" THREE, true, 1, MQ_LEDGER_COUNT);
    expect(ONE "2. Bo: 7, then Cid. Total 104.\n" THREE, true, 1, MQ_LEDGER_NAME);
    expect(ONE "2. Bobby: 7, then Cid. Total 104.\n" THREE, true, 1, MQ_LEDGER_NAME);
    expect(ONE "2. Cid: 2, then Ann. Total 99.", false, 1, MQ_LEDGER_NAME);
    expect(ONE "2. Bob: 77, then Cid. Total 104.\n" THREE, true, 1, MQ_LEDGER_NUMBER);
    expect(ONE "2. Bob: 8, then Cid. Total 105.\n" THREE, true, 1, MQ_LEDGER_NUMBER);
    expect(ONE "2. Bob: 7, then Ann. Total 104.\n" THREE, true, 1, MQ_LEDGER_NEXT);
    expect(ONE "2. Bob: 7, then Cid. Total 114.\n3. Cid: 2, then Ann. Total 116.", false, 1, MQ_LEDGER_TOTAL);
    expect(ONE "2. Bob: 7, then Cid. Total 1040.\n" THREE, true, 1, MQ_LEDGER_TOTAL);
    expect(ONE "2. Bob: 7, then Cid. Total 104, or so.\n" THREE, true, 1, MQ_LEDGER_TOTAL);
    expect("106", true, 0, MQ_LEDGER_COUNT);
    expect("I cannot.", false, 0, MQ_LEDGER_COUNT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wording),
        cmocka_unit_test(test_walks),
        cmocka_unit_test(test_scores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
