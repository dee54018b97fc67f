/* The scorers of free answers, and gsm8k, longbench-v2, longmemeval and aa-lcr over small files of our own in the published formats;
 * with the published file, GSM8K's answers fed back and shuffled. */
#include "unit_files.h"

#include "eval/question.h"

static void numbers(void **state)
{
    (void)state;
    static const struct {
        const char *answer;
        double number;
    } good[] = {{"#### 18", 18},
                {"so 3 + 4 = 7\n#### 1,234.50", 1234.5},
                {"#### $-5.", -5},
                {"#### 7\nno, #### 8", 8},
                {"\\boxed{42} apples, 3 left", 42},
                {"It costs $70,000.", 70000},
                {"between 3 and 5 - 1 = 4.", 4},
                {"10-5", 5}, /* a minus between numbers is no sign */
                {"#### none\nbut 9", 9},
                {"about .5", 0.5}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        double number = -1;
        if (!mq__final_number(good[i].answer, &number) || number != good[i].number) {
            fail_msg("%s: %g", good[i].answer, number);
        }
    }
    static const char *const bad[] = {"", "none", "####", "\\boxed{x}", "$", "-", "."};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        double number;
        if (mq__final_number(bad[i], &number)) fail_msg("%s: %g", bad[i], number);
    }
    char digits[600];
    double number;
    memset(digits, '9', sizeof digits - 1);
    digits[sizeof digits - 1] = '\0';
    assert_true(mq__final_number(digits, &number)); /* cut, not overflowed */
}

static void choices(void **state)
{
    (void)state;
    static const struct {
        const char *answer;
        char choice;
    } cases[] = {{"The correct answer is (A)", 'A'},
                 {"**The correct answer is (B)**.", 'B'},
                 {"the correct answer is C.", 'C'},
                 {"The correct answer is: D", 'D'},
                 {"The correct answer is (A). Wait: the correct answer is (B).", 'B'},
                 {"The correct answer is (E)", 0},
                 {"The correct answer is Apple", 0},
                 {"Final answer: B", 'B'},
                 {"The answer is (c), as the text says.", 'C'},
                 {"**Answer:** D", 'D'},
                 {"The correct answer is option A.", 'A'},
                 {"So the answer is b.", 'B'},
                 {"(b)", 'B'},
                 {"B", 'B'},
                 {"I compared all four.\n\n(C).\n", 'C'},
                 {"The answer is (A).\n(B)", 'A'}, /* what is stated counts more than a letter */
                 {"(A)\nor rather not", 0},
                 {"The answer is a dog", 0},
                 {"The answer is not A", 0},
                 {"Answer: B-flat", 0},
                 {"A dog", 0},
                 {"(e)", 0},
                 {"", 0},
                 {"The correct answer is", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (mq__final_choice(cases[i].answer) != cases[i].choice) fail_msg("%s", cases[i].answer);
    }
}

static void overlaps(void **state)
{
    (void)state;
    assert_true(mq__word_overlap("It was the Blue-Door café.", "blue door caf\xc3\xa9").contains);
    assert_false(mq__word_overlap("bluedoor", "blue door").contains);
    assert_false(mq__word_overlap("door blue", "blue door").contains);
    assert_false(mq__word_overlap("", "blue").contains);
    assert_false(mq__word_overlap("blue", "").contains);
    assert_float_equal(mq__word_overlap("door blue", "blue door").f1, 1, 1e-12);
    assert_float_equal(mq__word_overlap("blue blue", "blue door").f1, 0.5, 1e-12);
    assert_float_equal(mq__word_overlap("red", "blue").f1, 0, 1e-12);
    char longest[400];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_true(mq__word_overlap(longest, longest).contains);
}

/* A list of everything and a denial have the words as well. */
static void statements(void **state)
{
    (void)state;
    static const struct {
        const char *answer, *wanted;
        bool states;
    } cases[] = {{"Blue.", "blue", true},
                 {"It is blue, not red.", "blue", true},
                 {"You bought a blue car on Monday, I think.", "blue", true},
                 {"On Monday, you said, you saw a blue car", "blue", true},
                 {"Yes, it was on May 5, 2023.", "May 5", true},
                 {"Not red. It was blue.", "blue", true},
                 {"Red, blue and green.", "red, blue, and green", true},
                 {"You met Dr. Smith.", "Dr. Smith", true},
                 {"You and your sister went to Paris.", "Paris", true},
                 {"You did not go", "did not go", true},
                 {"It was not blue.", "blue", false},
                 {"I don't think that it was blue.", "blue", false},
                 {"It was never said to be blue", "blue", false},
                 {"Red, blue, green, yellow.", "blue", false},
                 {"blue or red", "blue", false},
                 {"Maybe red or blue", "blue", false},
                 {"red/blue/green", "blue", false},
                 {"green | blue | red", "red", false},
                 {"- red\n- blue\n- green", "blue", false},
                 {"1. red\n2. blue\n3. green", "green", false},
                 {"It was on 5/20/2023.", "5/20/2023", true},
                 {"You drove 90 km/h.", "90 km", true},
                 {"red\nblue\ngreen", "blue", false},
                 {"It is one of blue, red, green", "blue", false},
                 {"1, 2, 3, 4, 5", "3", false},
                 {"Red and blue and green", "green", false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (mq__word_overlap(cases[i].answer, cases[i].wanted).contains != cases[i].states) {
            fail_msg("%s (%s)", cases[i].answer, cases[i].wanted);
        }
    }
}

static void thoughts(void **state)
{
    (void)state;
    static const struct {
        const char *answer, *rest;
        bool opened;
    } cases[] = {{"7", "7", false},
                 {"<think>5</think>7", "7", false},
                 {"5</think>7", "7", true},
                 {"<think>5", "", false},
                 {"5 and so", "", true},
                 {"5</think>6<think>7", "", true},
                 {"<think>5</think>6<think>7</think>8", "8", false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_string_equal(mq__eval_after_thought(cases[i].answer, cases[i].opened), cases[i].rest);
    }
    assert_false(mq__eval_opens_thought(NULL));
}

/* Opens the task over a file, asks item 0, gives it the answer, and returns the record; NULL in *prompt: not wanted. */
static json_t *ask(const char *task_name, const char *file, const char *text, char **asked)
{
    const mq_eval_task *task = mq__eval_task_named(task_name, strlen(task_name));
    const mq_eval_options options = {.model_dir = "none", .data = file};
    const mq_eval_context context = {.options = &options, .info.context = 4096};
    mq_error error = {0};
    void *opened, *episode;
    size_t items;
    mq_eval_prompt prompt = {0};
    assert_non_null(task);
    if (task->open(&context, &opened, &items, &error) != MQ_OK) fail_msg("%s", error.text);
    assert_int_equal(task->begin(opened, 0, &episode, &error), MQ_OK);
    assert_int_equal(task->next(episode, NULL, &prompt, &error), MQ_OK);
    assert_non_null(prompt.prompt);
    assert_int_equal(prompt.max_prompt,
                     3072); /* a quarter is kept for the answer, which may be longer if the prompt is short */
    assert_true(prompt.sampling.temperature > 0.59f && prompt.sampling.temperature < 0.61f);
    *asked = prompt.prompt;
    const mq_eval_answer answer = {.text = text, .bytes = strlen(text)};
    prompt = (mq_eval_prompt){0};
    assert_int_equal(task->next(episode, &answer, &prompt, &error), MQ_OK);
    assert_true(!prompt.prompt && !prompt.request);
    json_t *record = task->end(episode, true);
    task->close(opened);
    assert_non_null(record);
    return record;
}

static void expect(const char *task, const char *file, const char *answer, const char *metric, double value)
{
    char *asked;
    json_t *record = ask(task, file, answer, &asked);
    if (json_number_value(json_object_get(record, metric)) != value) fail_msg("%s: %s", task, answer);
    mq_free(asked);
    json_decref(record);
}

static const char longbench_text[] =
    "[\n {\"_id\": \"x1\", \"domain\": \"d\", \"sub_domain\": \"s\", \"difficulty\": \"easy\", \"length\": \"short\","
    "\n  \"question\": \"Which colour?\", \"choice_A\": \"red\", \"choice_B\": \"blue\", \"choice_C\": \"green\", "
    "\"choice_D\": \"none\", \"answer\": \"B\", \"context\": \"The door is blue.\"}\n]\n";

static const char longmemeval_text[] =
    "[{\"question_id\": \"q0_abs\", \"question_type\": \"t\", \"question\": \"?\", \"answer\": \"none\", "
    "\"question_date\": \"d\", \"haystack_dates\": [], \"haystack_sessions\": []},"
    "{\"question_id\": \"q1\", \"question_type\": \"single\", \"question\": \"What does my dog weigh?\", \"answer\": "
    "12, "
    "\"question_date\": \"2024/01/02\", \"haystack_dates\": [\"2023/05/20\"], \"haystack_session_ids\": [\"s\"], "
    "\"haystack_sessions\": [[{\"role\": \"user\", \"content\": \"My dog weighs 12 kilos.\", \"has_answer\": true}]], "
    "\"answer_session_ids\": [\"s\"]}]";

static void small_files(void **state)
{
    (void)state;
    char *asked;
    unit_puts("gsm.jsonl", "{\"question\": \"2 + 2?\", \"answer\": \"2 + 2 = <<2+2=4>>4\\n#### 4\"}\n");
    const char *file = unit_path("gsm.jsonl");
    expect("gsm8k", file, "four is 4", "right", 1);
    expect("gsm8k", file, "<think>#### 5</think>#### 4.00", "right", 1);
    expect("gsm8k", file, "<think>2 and 2, so #### 4", "right", 0); /* cut before it was done */
    expect("gsm8k", file, "#### 5", "right", 0);
    expect("gsm8k", file, "", "right", 0);

    unit_puts("longbench.json", longbench_text);
    file = unit_path("longbench.json");
    expect("longbench-v2", file, "The correct answer is (B)", "right", 1);
    expect("longbench-v2", file, "The correct answer is (A)", "right", 0);
    expect("longbench-v2", file, "<think>maybe red</think>(b)", "right", 1);
    expect("longbench-v2", file, "<think>The correct answer is (B)", "right", 0);
    expect("longbench-v2", file, "blue", "right", 0);

    unit_puts("longmemeval.json", longmemeval_text);
    file = unit_path("longmemeval.json");
    expect("longmemeval", file, "It weighs 12 kilos.", "contains", 1);
    expect("longmemeval", file, "It weighs 120 kilos.", "contains", 0);
    expect("longmemeval", file, "It does not weigh 12 kilos.", "contains", 0);
    expect("longmemeval", file, "10, 11, 12, 13 or 14", "contains", 0);
    json_t *record = ask("longmemeval", file, "12", &asked); /* the item without an answer was left out */
    assert_non_null(strstr(asked, "My dog weighs 12 kilos."));
    assert_non_null(strstr(asked, "2024/01/02"));
    assert_true(json_number_value(json_object_get(record, "f1")) == 1);
    mq_free(asked);
    json_decref(record);
}

/* Chats are told in the order of their dates, those of one date in the file's. */
static void sessions_by_date(void **state)
{
    (void)state;
    static const char text[] = "[{\"question_id\": \"q\", \"question_type\": \"t\", \"question\": \"?\", \"answer\": "
                               "\"x\", \"question_date\": "
                               "\"2023/06/01\", \"haystack_dates\": [\"2023/05/30 (Tue) 09:00\", \"2023/05/02 (Tue) "
                               "23:10\", \"2023/05/30 (Tue) 09:00\", "
                               "\"2023/05/02 (Tue) 08:00\"], \"haystack_sessions\": [[{\"role\": \"user\", "
                               "\"content\": \"third\"}], [{\"role\": \"user\", "
                               "\"content\": \"second\"}], [{\"role\": \"user\", \"content\": \"fourth\"}], "
                               "[{\"role\": \"user\", \"content\": "
                               "\"first\"}]]}]";
    static const char *const order[] = {"user: first", "user: second", "user: third", "user: fourth"};
    char *asked;
    unit_puts("sessions.json", text);
    json_decref(ask("longmemeval", unit_path("sessions.json"), "x", &asked));
    const char *at = asked;
    for (size_t i = 0; i < 4; i++) {
        at = strstr(at, order[i]);
        if (!at) fail_msg("%s", asked);
    }
    assert_null(strstr(at + 1, "user: "));
    mq_free(asked);
}

/* The paper's limits of prompts and answers, in its contexts, larger and smaller ones, and as asked for. */
static void limits(void **state)
{
    (void)state;
    static const struct {
        const char *task, *file;
        uint32_t context, asked, max_tokens, max_prompt;
    } cases[] = {{"gsm8k", "gsm.jsonl", 40960, 0, 32768, 30720},
                 {"longbench-v2", "longbench.json", 131072, 0, 30720, 100000},
                 {"longbench-v2", "longbench.json", 1048576, 0, 30720, 100000},
                 {"longbench-v2", "longbench.json", 32768, 0, 30720, 24576},
                 {"longmemeval", "longmemeval.json", 112000, 0, 19072, 92928},
                 {"longmemeval", "longmemeval.json", 131072, 0, 19072, 92928},
                 {"longmemeval", "longmemeval.json", 32768, 1024, 1024, 31744}};
    unit_puts("gsm.jsonl", "{\"question\": \"2 + 2?\", \"answer\": \"#### 4\"}\n");
    unit_puts("longbench.json", longbench_text);
    unit_puts("longmemeval.json", longmemeval_text);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const mq_eval_task *task = mq__eval_task_named(cases[i].task, strlen(cases[i].task));
        const mq_eval_options options = {
            .model_dir = "none", .data = unit_path(cases[i].file), .max_tokens = cases[i].asked};
        const mq_eval_context context = {.options = &options, .info.context = cases[i].context};
        void *opened, *episode;
        size_t items;
        mq_eval_prompt prompt = {0};
        assert_int_equal(task->open(&context, &opened, &items, NULL), MQ_OK);
        assert_int_equal(task->begin(opened, 0, &episode, NULL), MQ_OK);
        assert_int_equal(task->next(episode, NULL, &prompt, NULL), MQ_OK);
        if (prompt.max_tokens != cases[i].max_tokens || prompt.max_prompt != cases[i].max_prompt)
            fail_msg("%s in %u: %u, %u", cases[i].task, cases[i].context, prompt.max_tokens, prompt.max_prompt);
        mq_free(prompt.prompt);
        (void)task->end(episode, false);
        task->close(opened);
    }
}

static void bad_files(void **state)
{
    (void)state;
    static const char *const names[] = {"gsm8k", "longbench-v2", "longmemeval"};
    static const char *const bad[] = {"",
                                      "[",
                                      "5",
                                      "{}",
                                      "[{}]",
                                      "{\"question\": \"x\", \"answer\": \"no number\"}",
                                      "{\"question\": 5, \"answer\": \"#### 5\"}",
                                      "[[[[1]]]]",
                                      "nul"};
    for (size_t n = 0; n < 3; n++) {
        const mq_eval_task *task = mq__eval_task_named(names[n], strlen(names[n]));
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            unit_puts("bad.json", bad[i]);
            const mq_eval_options options = {.model_dir = "none", .data = unit_path("bad.json")};
            const mq_eval_context context = {.options = &options, .info.context = 4096};
            mq_error error = {0};
            void *opened = NULL;
            size_t items;
            assert_int_equal(task->open(&context, &opened, &items, &error), MQ_FORMAT);
            assert_true(error.text[0] != '\0');
            task->close(opened);
        }
    }
}

static void published_gsm8k(void **state)
{
    (void)state;
    const char *shared = getenv("MQ_SHARED");
    char file[512];
    json_t *items = NULL;
    mq_error error = {0};
    if (!shared) skip();
    snprintf(file, sizeof file, "%s/data/eval/gsm8k/test.jsonl", shared);
    if (mq__eval_read_values(file, &items, &error) != MQ_OK) fail_msg("%s", error.text);
    const size_t count = json_array_size(items);
    size_t shuffled = 0;
    assert_int_equal(count, 1319);
    for (size_t i = 0; i < count; i++) {
        const char *own = json_string_value(json_object_get(json_array_get(items, i), "answer"));
        const char *other =
            json_string_value(json_object_get(json_array_get(items, (i + count / 2) % count), "answer"));
        double a = 0, b = 1;
        assert_true(mq__final_number(own, &a));
        assert_true(mq__final_number(other, &b));
        assert_true(a == strtod(strstr(own, "####") + 4, NULL) || strchr(strstr(own, "####"), ',') != NULL);
        shuffled += a == b;
    }
    print_message("gsm8k: %zu items, %zu shuffled\n", count, shuffled);
    assert_true(shuffled * 20 <= count);
    json_decref(items);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers),
        cmocka_unit_test(choices),
        cmocka_unit_test(overlaps),
        cmocka_unit_test(statements),
        cmocka_unit_test(thoughts),
        cmocka_unit_test_setup_teardown(sessions_by_date, unit_setup, unit_teardown),
        cmocka_unit_test_setup_teardown(small_files, unit_setup, unit_teardown),
        cmocka_unit_test_setup_teardown(limits, unit_setup, unit_teardown),
        cmocka_unit_test_setup_teardown(bad_files, unit_setup, unit_teardown),
        cmocka_unit_test(published_gsm8k),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
