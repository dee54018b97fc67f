/* Comma-separated values, good and broken; aa-lcr over a small data set of our own in the published form: the documents' order,
 * garbled names, what the judge is asked, and data that is not what it should be. */
#include "unit_files.h"

#include "eval/csv.h"
#include "eval/question.h"

static void test_csv(void **state)
{
    (void)state;
    static const struct {
        const char *text, *json; /* NULL: refused */
    } cases[] = {
        {"a,b\n1,2\n", "[{\"a\": \"1\", \"b\": \"2\"}]"},
        {"a,b\r\n1,2\r\n3,4", "[{\"a\": \"1\", \"b\": \"2\"}, {\"a\": \"3\", \"b\": \"4\"}]"},
        {"\xef\xbb\xbf"
         "a,b\n\n1,\n",
         "[{\"a\": \"1\", \"b\": \"\"}]"},
        {"a,b\n\"x, \"\"y\"\"\nz\",\"\"\n", "[{\"a\": \"x, \\\"y\\\"\\nz\", \"b\": \"\"}]"},
        {",a\n0,caf\xc3\xa9\n", "[{\"\": \"0\", \"a\": \"caf\xc3\xa9\"}]"},
        {"a,b\n", "[]"},
        {"", "[]"},
        {"a,b\n1\n", NULL},
        {"a,b\n1,2,3\n", NULL},
        {"a\n\"x", NULL},
        {"a\n\"x\"y\n", NULL},
        {"a\nx\"y\"\n", NULL},
        {"a\n\xff\n", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mq_error error = {0};
        json_t *rows = NULL, *wanted = cases[i].json ? json_loads(cases[i].json, 0, NULL) : NULL;
        unit_puts("x.csv", cases[i].text);
        const mq_status status = mq__csv_read(unit_path("x.csv"), &rows, &error);
        if (cases[i].json ? status != MQ_OK || !json_equal(rows, wanted) : status != MQ_FORMAT || rows) {
            fail_msg("%zu: %s", i, error.text);
        }
        json_decref(rows);
        json_decref(wanted);
    }
    mq_error error = {0};
    json_t *rows;
    unit_write("x.csv", "a\n\"1\n2\"\nx\0y\n", 13);
    assert_int_equal(mq__csv_read(unit_path("x.csv"), &rows, &error), MQ_FORMAT);
    assert_non_null(strstr(error.text, "line 4: expected text, got a NUL byte"));
}

#define COLUMNS                                                                                                        \
    ",document_category,document_set_id,question_id,question,answer,data_source_filenames,data_source_urls\n"

static void make_data(const char *rows)
{
    char text[2048];
    const char *const folders[] = {"lcr", "lcr/Legal_Texts", "lcr/Legal_Texts/set_a"};
    for (size_t i = 0; i < 3; i++)
        (void)mkdir(unit_path(folders[i]), 0755);
    snprintf(text, sizeof text, "%s%s", COLUMNS, rows);
    unit_puts("AA-LCR_Dataset.csv", text);
    unit_puts("lcr/Legal_Texts/set_a/one.txt", "The first \xff text.");
    unit_puts("lcr/Legal_Texts/set_a/EU\xce\x93\xc3\x87\xc3\x96s act.txt", "The second text.");
}

static const char good_rows[] =
    "0,Legal Texts,set_a,7,\"Which color, exactly?\",blue,EU\xe2\x80\x99s act.txt; one.txt,u\n";

static const mq_eval_options options = {.model_dir = "none", .data = unit_dir};
static const mq_eval_context context = {.options = &options, .info.context = 4096};

static void test_question(void **state)
{
    (void)state;
    static const char published[] = "BEGIN INPUT DOCUMENTS\n\nBEGIN DOCUMENT 1:\nThe second text.\nEND DOCUMENT 1\n\n"
                                    "BEGIN DOCUMENT 2:\nThe first ? text.\nEND DOCUMENT 2\n\nEND INPUT DOCUMENTS\n\n";
    const mq_eval_task *task = mq__eval_task_named("aa-lcr", 6);
    mq_error error = {0};
    void *opened, *episode;
    size_t items;
    mq_eval_prompt prompt = {0};
    make_data(good_rows);
    if (task->open(&context, &opened, &items, &error) != MQ_OK) fail_msg("%s", error.text);
    assert_int_equal(items, 1);
    assert_string_equal(task->id(opened, 0), "set_a-7");
    assert_int_equal(task->begin(opened, 0, &episode, &error), MQ_OK);
    assert_int_equal(task->next(episode, NULL, &prompt, &error), MQ_OK);
    assert_int_equal(strncmp(prompt.prompt, published, strlen(published)), 0);
    assert_non_null(strstr(prompt.prompt, "\nSTART QUESTION\n\nWhich color, exactly?\n\nEND QUESTION\n"));
    mq_free(prompt.prompt);
    const mq_eval_answer answer = {.text = "It is blue.", .bytes = 11};
    assert_int_equal(task->next(episode, &answer, &prompt, &error), MQ_OK);
    json_t *record = task->end(episode, true);
    task->close(opened);
    assert_true(json_number_value(json_object_get(record, "contains")) == 1);
    assert_string_equal(json_string_value(json_object_get(record, "group")), "Legal Texts");
    json_decref(record);
}

static void test_bad_data(void **state)
{
    (void)state;
    static const struct {
        const char *rows, *says;
        mq_status status;
    } cases[] = {
        {"0,Legal Texts,set_a,7,q,a,none.txt,u\n", "none.txt", MQ_IO},
        {"0,Legal Texts,set_a,7,q,a,../one.txt,u\n", "names of files", MQ_FORMAT},
        {"0,Legal Texts,set_a,7,q,a,\xe7\x94\xb2.txt,u\n", "\xe7\x94\xb2.txt",
         MQ_IO}, /* without ASCII: no other file is meant */
        {"0,Legal Texts,set_a,7,q,a,one.txt,u\n1,Legal Texts,set_a,7,r,b,one.txt,u\n", "set_a-7 twice", MQ_FORMAT},
        {"0,Legal Texts,../set_a,7,q,a,one.txt,u\n", "published columns", MQ_FORMAT},
        {"0,..,set_a,7,q,a,one.txt,u\n", "published columns", MQ_FORMAT},
        {"0,Legal Texts,set_a,7,q,a,,u\n", "published keys", MQ_FORMAT},
        {"0,Legal Texts,set_a\n", "8 fields", MQ_FORMAT},
        {"", "expected questions", MQ_FORMAT},
    };
    const mq_eval_task *task = mq__eval_task_named("aa-lcr", 6);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mq_error error = {0};
        void *opened = NULL;
        size_t items;
        make_data(cases[i].rows);
        unit_puts("lcr/Legal_Texts/set_a/\xe4\xb9\x99.txt", "another");
        const mq_status status = task->open(&context, &opened, &items, &error);
        if (status != cases[i].status || !strstr(error.text, cases[i].says)) fail_msg("%zu: %s", i, error.text);
        task->close(opened);
    }
}

/* Names in all the forms that unpacking leaves, and folders in all the places. */
static void test_places(void **state)
{
    (void)state;
    static const char *const files[] = {"lcr/lcr",
                                        "lcr/lcr/Law Texts",
                                        "lcr/lcr/Law Texts/set",
                                        "extracted_text",
                                        "extracted_text/lcr",
                                        "extracted_text/lcr/Other",
                                        "extracted_text/lcr/Other/set"};
    const mq_eval_task *task = mq__eval_task_named("aa-lcr", 6);
    mq_error error = {0};
    void *opened;
    size_t items;
    make_data("0,Law Texts,set,1,q,a,\"Karaba\xc5\x9f.txt;\tone.txt\r\",u\n1,Other,set,2,q,a,Karabas.txt,u\n");
    for (size_t i = 0; i < 7; i++)
        (void)mkdir(unit_path(files[i]), 0755);
    unit_puts("lcr/lcr/Law Texts/set/Karabas\xcc\xa7.txt", "x"); /* decomposed */
    unit_puts("lcr/lcr/Law Texts/set/one.txt", "y");
    unit_puts("extracted_text/lcr/Other/set/Karabas\xcc\xa7.txt", "z");
    if (task->open(&context, &opened, &items, &error) != MQ_OK) fail_msg("%s", error.text);
    assert_int_equal(items, 2);
    task->close(opened);
    unit_puts("extracted_text/lcr/Other/set/Karabas\xce\x93.txt", "which?");
    assert_int_equal(task->open(&context, &opened, &items, &error), MQ_IO);
    task->close(opened);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_csv, unit_setup, unit_teardown),
        cmocka_unit_test_setup_teardown(test_question, unit_setup, unit_teardown),
        cmocka_unit_test_setup_teardown(test_places, unit_setup, unit_teardown),
        cmocka_unit_test_setup_teardown(test_bad_data, unit_setup, unit_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
