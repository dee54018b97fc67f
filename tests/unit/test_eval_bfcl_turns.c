/* The BFCL task itself, turn by turn: which functions a turn has, answers that are none; and with the published files, multi_turn's
 * own answers played back and shuffled. */
#include "unit_files.h"

#include "eval/bfcl.h"

static json_t *from_json(const char *text)
{
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    return value;
}

/* The task's own score of item `to`, when each turn is answered with the calls of the same turn of `from`, then with nothing. */
static bool played(const mq_eval_task *task, void *opened, size_t to, const json_t *from)
{
    void *episode;
    mq_eval_prompt prompt = {0};
    assert_int_equal(task->begin(opened, to, &episode, NULL), MQ_OK);
    assert_int_equal(task->next(episode, NULL, &prompt, NULL), MQ_OK);
    const json_t *turns = json_object_get(from, "ground_truth"), *text;
    for (size_t t = 0, step = 0; prompt.request;) {
        char calls[16384] = "[";
        size_t i;
        json_array_foreach(json_array_get(turns, t), i, text)
        {
            snprintf(calls + strlen(calls), sizeof calls - strlen(calls), "%s%s", i ? ", " : "",
                     json_string_value(text));
        }
        strcat(calls, "]");
        const bool asks = step == 0 && json_array_size(json_array_get(turns, t)) > 0;
        const mq_eval_answer answer = {.text = asks ? calls : "done", .bytes = asks ? strlen(calls) : 4};
        t += !asks;
        step = asks ? step + 1 : 0;
        json_decref(prompt.request);
        prompt = (mq_eval_prompt){0};
        assert_int_equal(task->next(episode, &answer, &prompt, NULL), MQ_OK);
    }
    json_t *record = task->end(episode, true);
    const bool right = json_number_value(json_object_get(record, "right")) == 1;
    json_decref(record);
    return right;
}

static const char class_text[] =
    "{\"name\": \"cd\", \"parameters\": {\"properties\": {\"folder\": {\"type\": \"string\"}}}}\n"
    "{\"name\": \"mv\", \"parameters\": {\"properties\": {\"source\": {\"type\": \"string\"}, \"destination\": "
    "{\"type\": "
    "\"string\"}}}}\n";

static const char missed_text[] =
    "{\"id\": \"multi_turn_miss_func_0\", \"question\": [[{\"role\": \"user\", \"content\": \"Move a to b.\"}], []], "
    "\"involved_classes\": [\"GorillaFileSystem\"], \"missed_function\": {\"1\": [\"mv\"]}}\n";

/* The folder of BFCL with the descriptions of its classes, all alike. */
static void write_classes(void)
{
    static const char *const docs[] = {"gorilla_file_system", "math_api",    "message_api",    "posting_api",
                                       "ticket_api",          "trading_bot", "travel_booking", "vehicle_control"};
    assert_int_equal(mkdir(unit_path("multi_turn_func_doc"), 0700), 0);
    assert_int_equal(mkdir(unit_path("possible_answer"), 0700), 0);
    for (size_t i = 0; i < 8; i++) {
        char name[64];
        snprintf(name, sizeof name, "multi_turn_func_doc/%s.json", docs[i]);
        unit_puts(name, class_text);
    }
}

/* The published calls may have positional arguments of a function that comes with a later turn: their names are known then. */
static void missed_functions_have_parameters(void **state)
{
    (void)state;
    const mq_eval_task *task = mq__eval_task_named("bfcl", 4);
    write_classes();
    unit_puts("BFCL_v4_multi_turn_miss_func.json", missed_text);
    unit_puts("possible_answer/BFCL_v4_multi_turn_miss_func.json",
              "{\"id\": \"multi_turn_miss_func_0\", \"ground_truth\": [[], [\"mv('a', destination='b')\"]]}\n");
    const mq_eval_options options = {.model_dir = "none", .data = unit_dir, .kinds = "multi_turn_miss_func"};
    const mq_eval_context context = {.options = &options};
    void *opened;
    size_t items;
    mq_error error = {0};
    if (task->open(&context, &opened, &items, &error) != MQ_OK) fail_msg("%s", error.text);
    assert_int_equal(items, 1);
    json_t *right = from_json("{\"ground_truth\": [[], [\"mv(source='a', destination='b')\"]]}");
    json_t *wrong = from_json("{\"ground_truth\": [[], [\"mv(source='a', destination='c')\"]]}");
    json_t *early = from_json("{\"ground_truth\": [[\"mv(source='a', destination='b')\"], []]}");
    assert_true(played(task, opened, 0, right));
    assert_false(played(task, opened, 0, wrong));
    assert_false(played(task, opened, 0, early));
    json_decref(right);
    json_decref(wrong);
    json_decref(early);
    task->close(opened);
}

static void published_turns(void **state)
{
    (void)state;
    const char *shared = getenv("MQ_SHARED");
    const mq_eval_task *task = mq__eval_task_named("bfcl", 4);
    char folder[512];
    json_t *items = NULL;
    void *opened;
    size_t count, right = 0, shuffled = 0;
    static const char kinds[] = "multi_turn_base,multi_turn_miss_func,multi_turn_miss_param,multi_turn_long_context";
    if (!shared) skip();
    snprintf(folder, sizeof folder, "%s/data/eval/bfcl_v4", shared);
    const mq_eval_options options = {.model_dir = "none", .data = folder, .kinds = kinds};
    const mq_eval_context context = {.options = &options};
    mq_error error = {0};
    if (task->open(&context, &opened, &count, &error) != MQ_OK) fail_msg("%s", error.text);
    assert_int_equal(mq__bfcl_read(folder, kinds, &items, &error), MQ_OK);
    assert_int_equal(json_array_size(items), count);
    for (size_t i = 0; i < count; i++) {
        right += played(task, opened, i, json_array_get(items, i));
        shuffled += played(task, opened, i, json_array_get(items, (i + count / 2) % count));
    }
    print_message("multi_turn_*: %zu items, %zu right, %zu shuffled\n", count, right, shuffled);
    assert_int_equal(right, count);
    assert_true(shuffled * 20 <= count);
    json_decref(items);
    task->close(opened);
}

/* Of an irrelevance item, and of a multi_turn one whose turns want no calls: the score of one answer to every turn. */
static bool scores_without_calls(const mq_eval_task *task, void *opened, size_t item, const char *text,
                                 mq_finish finish, uint32_t tokens)
{
    void *episode;
    mq_eval_prompt prompt = {0};
    const mq_eval_answer answer = {.text = text, .bytes = strlen(text), .finish = finish, .output_tokens = tokens};
    assert_int_equal(task->begin(opened, item, &episode, NULL), MQ_OK);
    assert_int_equal(task->next(episode, NULL, &prompt, NULL), MQ_OK);
    assert_int_equal(prompt.max_tokens, 4096);
    while (prompt.request) {
        json_decref(prompt.request);
        prompt = (mq_eval_prompt){0};
        assert_int_equal(task->next(episode, &answer, &prompt, NULL), MQ_OK);
    }
    json_t *record = task->end(episode, true);
    const bool right = json_number_value(json_object_get(record, "right")) == 1;
    json_decref(record);
    return right;
}

/* Where no call is right, an answer that never came is not: cut in its thought, or without room for a prompt. */
static void answers_that_are_none(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        mq_finish finish;
        uint32_t tokens;
        bool right;
    } cases[] = {{"I cannot do that.", MQ_FINISH_STOP, 5, true},
                 {"", MQ_FINISH_STOP, 1, true},
                 {"<think>No tool fits.</think>", MQ_FINISH_STOP, 9, true},
                 {"<think>No tool fits.</think>I cannot", MQ_FINISH_LENGTH, 9, true},
                 {"<think>Which tool", MQ_FINISH_LENGTH, 9, false},
                 {"<think>Done.</think><think>But then", MQ_FINISH_LENGTH, 9, false},
                 {"", MQ_FINISH_LENGTH, 0, false}};
    const mq_eval_task *task = mq__eval_task_named("bfcl", 4);
    write_classes();
    unit_puts("BFCL_v4_irrelevance.json",
              "{\"id\": \"irrelevance_0\", \"question\": [[{\"role\": \"user\", \"content\": "
              "\"x\"}]], \"function\": [{\"name\": \"f\", \"parameters\": {}}]}\n");
    unit_puts("BFCL_v4_multi_turn_miss_func.json", missed_text);
    unit_puts("possible_answer/BFCL_v4_multi_turn_miss_func.json",
              "{\"id\": \"multi_turn_miss_func_0\", \"ground_truth\": [[], []]}\n");
    const mq_eval_options options = {.model_dir = "none", .data = unit_dir};
    const mq_eval_context context = {.options = &options};
    void *opened;
    size_t items;
    mq_error error = {0};
    if (task->open(&context, &opened, &items, &error) != MQ_OK) fail_msg("%s", error.text);
    assert_int_equal(items, 2);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (size_t item = 0; item < items; item++) {
            if (scores_without_calls(task, opened, item, cases[i].text, cases[i].finish, cases[i].tokens) !=
                cases[i].right)
                fail_msg("%s: %s", task->id(opened, item), cases[i].text);
        }
    }
    task->close(opened);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(missed_functions_have_parameters, unit_setup, unit_teardown),
        cmocka_unit_test_setup_teardown(answers_that_are_none, unit_setup, unit_teardown),
        cmocka_unit_test(published_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
