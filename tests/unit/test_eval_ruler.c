/* What RULER's texts are made of besides our own words: an essay around needles, crowds of needles, and published questions of both
 * files that RULER takes; files that are not what they should be. */
#include "unit_files.h"

#include "eval/ruler.h"

static uint32_t times_in(const char *text, const char *part)
{
    uint32_t times = 0;
    for (const char *p = text; (p = strstr(p, part)); p++)
        times++;
    return times;
}

static char *text_of(const mq_ruler_item *item, uint32_t noise)
{
    mq_buf text = {0};
    mq__ruler_text(item, noise, &text);
    mq__buf_putc(&text, '\0');
    assert_false(text.failed);
    return mq__buf_take(&text);
}

static void test_essays(void **state)
{
    (void)state;
    mq_ruler_hay hay;
    mq_error error = {0};
    mq_ruler_item item;
    unit_puts("essay.txt", "One thing. Another 3.5 thing!\n\n  A title\nIs that all? Yes");
    if (mq__ruler_hay_read(unit_path("essay.txt"), &hay, &error) != MQ_OK) fail_msg("%s", error.text);
    static const char *const sentences[] = {"One thing.", "Another 3.5 thing!", "A title", "Is that all?", "Yes"};
    assert_int_equal(hay.count, 5);
    for (uint32_t i = 0; i < 5; i++)
        assert_string_equal(hay.text + hay.begin[i], sentences[i]);
    const mq_ruler_source source = {.hay = &hay};
    mq__ruler_make(&item, MQ_RULER_SINGLE, MQ_RULER_ENGLISH, source, 1, "x");
    char *text = text_of(&item, 7);
    uint32_t all = 0;
    for (uint32_t i = 0; i < 5; i++) {
        const uint32_t times = times_in(text, sentences[i]);
        assert_in_range(times, 1, 2); /* seven of five: round and round */
        all += times;
    }
    assert_int_equal(all, 7);
    assert_int_equal(times_in(text, item.fact[0]), 1);
    assert_null(strstr(text, "grass"));
    mq_free(text);
    mq__ruler_make(&item, MQ_RULER_TRACKING, MQ_RULER_ENGLISH, source, 1, "x"); /* RULER's own noise, as in RULER */
    text = text_of(&item, 7);
    assert_non_null(strstr(text, "The grass is green."));
    mq_free(text);
    mq__ruler_hay_free(&hay);
    char line[2001]; /* no ends: pieces that a prompt can be filled with; nor within a character */
    for (size_t i = 0; i < 2000; i++)
        line[i] = "\xe7\x94\xb2"[i % 3];
    line[1998] = '\0';
    unit_puts("essay.txt", line);
    assert_int_equal(mq__ruler_hay_read(unit_path("essay.txt"), &hay, &error), MQ_OK);
    assert_int_equal(hay.count, 6);
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(strlen(hay.text + hay.begin[i]) % 3, 0);
    mq__ruler_hay_free(&hay);
    unit_puts("essay.txt", "\xe7\x94\xb2\xe3\x80\x82\xe7\x94\xb2\xe3\x80\x82\r\nwords and\r\n");
    assert_int_equal(mq__ruler_hay_read(unit_path("essay.txt"), &hay, &error), MQ_OK);
    assert_int_equal(hay.count, 3);
    assert_string_equal(hay.text + hay.begin[2], "words and");
    mq__ruler_hay_free(&hay);
    unit_puts("essay.txt", " \n\n ");
    assert_int_equal(mq__ruler_hay_read(unit_path("essay.txt"), &hay, &error), MQ_FORMAT);
    mq__ruler_hay_free(&hay);
}

/* The needle that is asked for comes once, all others have other keys. */
static void test_crowds(void **state)
{
    (void)state;
    static const mq_ruler_kind kinds[] = {MQ_RULER_CROWDED, MQ_RULER_UUIDS};
    for (size_t i = 0; i < 2; i++) {
        mq_ruler_item item;
        char key[64];
        mq__ruler_make(&item, kinds[i], MQ_RULER_ENGLISH, (mq_ruler_source){0}, 3, "x");
        assert_int_equal(sscanf(item.fact[0], "One of the special magic %*s for %63s is: ", key), 1);
        char *text = text_of(&item, 3000);
        assert_int_equal(times_in(text, "One of the special magic "), 3001);
        assert_int_equal(times_in(text, item.fact[0]), 1);
        char asked[80];
        snprintf(asked, sizeof asked, "for %s is: ", key);
        assert_int_equal(times_in(text, asked), 1);
        assert_non_null(strstr(item.question, key));
        if (i) assert_true(strlen(item.wanted[0]) == 36 && item.wanted[0][14] == '4');
        mq_free(text);
    }
}

static const char squad[] =
    "{\"version\": \"v2.0\", \"data\": [{\"title\": \"T\", \"paragraphs\": ["
    "{\"context\": \"The first text.\", \"qas\": ["
    "{\"question\": \"Which?\", \"id\": \"1\", \"is_impossible\": false, \"answers\": [{\"text\": \"first\", "
    "\"answer_start\": 4}, {\"text\": \"first\"}, {\"text\": \"the first\"}]},"
    "{\"question\": \"None?\", \"id\": \"2\", \"is_impossible\": true, \"answers\": []}]},"
    "{\"context\": \"The second text.\", \"qas\": [{\"question\": \"What?\", \"id\": \"3\", \"answers\": [{\"text\": "
    "\"second\"}]}]},{\"context\": \"The third text.\", \"qas\": []}]}]}";

static const char hotpot[] =
    "[{\"_id\": \"a\", \"question\": \"Who?\", \"answer\": \"Ann\", \"supporting_facts\": [[\"One\", 0]], \"context\": "
    "[[\"One\", [\"Ann met \", \"Bob.\"]], [\"Two\", [\"Bob.\"]], [\"Two\", [\"Bob.\"]]]},"
    "{\"_id\": \"b\", \"question\": \"Where?\", \"answer\": \"Rome\", \"context\": [[\"Three\", [\"Rome.\"]]]}]";

static void read_qa(const char *text, mq_ruler_qa *qa)
{
    mq_error error = {0};
    unit_puts("qa.json", text);
    if (mq__ruler_qa_read(unit_path("qa.json"), qa, &error) != MQ_OK) fail_msg("%s", error.text);
}

static void test_squad(void **state)
{
    (void)state;
    mq_ruler_qa qa;
    mq_ruler_item item;
    read_qa(squad, &qa);
    assert_int_equal(json_array_size(qa.questions), 2);
    assert_int_equal(json_array_size(qa.documents), 3);
    mq__ruler_make(&item, MQ_RULER_QA, MQ_RULER_ENGLISH, (mq_ruler_source){.qa = &qa}, 1, "x");
    for (uint64_t seed = 0; seed < 9; seed++) {
        assert_true(mq__ruler_qa_draw(&qa, seed, 0) == mq__ruler_qa_draw(&qa, seed, 2));
        assert_true(mq__ruler_qa_draw(&qa, seed, 0) != mq__ruler_qa_draw(&qa, seed, 1));
    }
    uint32_t seconds = 0, thirds = 0;
    for (uint32_t seed = 0; seed < 64; seed++) {
        item.noise_seed = seed;
        char *text = text_of(&item, 1);
        assert_int_equal(times_in(text, "The first text."), 1); /* its own one, and one of the others */
        assert_non_null(strstr(text, "Document 2:"));
        assert_null(strstr(text, "Document 3:"));
        assert_non_null(strstr(text, "\n\nQuestion: Which?"));
        seconds += strstr(text, "The second text.") != NULL;
        thirds += strstr(text, "The third text.") != NULL;
        mq_free(text);
    }
    assert_int_equal(seconds + thirds, 64);
    assert_in_range(seconds, 16, 48);
    char *text = text_of(&item, 9); /* there are no more than two */
    assert_null(strstr(text, "Document 4:"));
    mq_free(text);
    assert_true(mq__ruler_score(&item, "It is the First one.") == 1);
    assert_true(mq__ruler_score(&item, "firsts") == 0);
    assert_true(mq__ruler_score(&item, "") == 0);
    mq__ruler_qa_free(&qa);
}

static void test_hotpot(void **state)
{
    (void)state;
    mq_ruler_qa qa;
    mq_ruler_item item;
    read_qa(hotpot, &qa);
    assert_int_equal(json_array_size(qa.documents), 3); /* each once */
    mq__ruler_make(&item, MQ_RULER_QA, MQ_RULER_ENGLISH, (mq_ruler_source){.qa = &qa}, 1, "x");
    char *text = text_of(&item, 0);
    assert_int_equal(times_in(text, "One\nAnn met Bob.\n"), 1);
    assert_int_equal(times_in(text, "Two\nBob.\n"), 1);
    assert_null(strstr(text, "Rome"));
    mq_free(text);
    assert_true(mq__ruler_score(&item, "ann") == 1);
    mq__ruler_qa_free(&qa);
}

static void test_bad_files(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "[",
                                      "{}",
                                      "{\"data\": 5}",
                                      "{\"data\": [5, {\"paragraphs\": [{\"context\": 1, \"qas\": 2}]}]}",
                                      "[{\"question\": \"x\", \"answer\": \"y\", \"context\": [5, [], [1, 2]]}]",
                                      "[{\"question\": \"x\", \"answer\": \"\", \"context\": [[\"t\", [\"s\"]]]}]",
                                      "[{\"question\": 1, \"answer\": \"y\", \"context\": [[\"t\", [\"s\"]]]}]"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        mq_ruler_qa qa;
        mq_error error = {0};
        unit_puts("qa.json", bad[i]);
        if (mq__ruler_qa_read(unit_path("qa.json"), &qa, &error) != MQ_FORMAT) fail_msg("%s", bad[i]);
        assert_true(error.text[0] != '\0');
        mq__ruler_qa_free(&qa);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_essays, unit_setup, unit_teardown),
        cmocka_unit_test(test_crowds),
        cmocka_unit_test_setup_teardown(test_squad, unit_setup, unit_teardown),
        cmocka_unit_test_setup_teardown(test_hotpot, unit_setup, unit_teardown),
        cmocka_unit_test_setup_teardown(test_bad_files, unit_setup, unit_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
