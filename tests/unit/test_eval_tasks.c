/* Scorers of the agent and ruler tasks with right, wrong and malformed answers; records on disk after a cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "eval/eval.h"
#include "eval/ruler.h"
#include "eval/scene.h"
#include "eval/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char scene_text[] =
    "{\"id\": \"one\", \"system\": \"S\", \"tools\": [{\"name\": \"find_book\", \"description\": \"d\", "
    "\"parameters\": {},"
    " \"table\": \"book\", \"filter\": {\"code\": \"code\"}, \"columns\": [\"code\", \"cost\"], \"limit\": 2}],"
    " \"turns\": [{\"user\": \"What is the cost of book 7?\", \"call\": \"find_book\", \"arguments\": {\"code\": "
    "\"7\"},"
    "   \"expect\": \"The cost is 5.\", \"answer\": \"For book 7:\\n{}\\nThe cost is 5.\"},"
    "  {\"user\": \"And its code?\", \"call\": null, \"arguments\": null, \"expect\": \"The code is 7.\"}],"
    " \"tables\": {\"book\": [{\"code\": 7, \"cost\": 5}, {\"code\": \"8\", \"cost\": 6}]}}\n";

static char path[] = "/tmp/mq-eval-XXXXXX";

static void write_file(const char *text, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

extern const mq_eval_task mq__eval_agent;

/* Plays the scene with given answers; returns the record. *asked counts prompts. */
static json_t *play(const char *const *answers, size_t count)
{
    const mq_eval_options options = {.model_dir = "none", .data = path};
    const mq_eval_context context = {.options = &options};
    mq_error error = {0};
    void *task, *episode;
    size_t items, at = 0;
    mq_eval_prompt prompt = {0};
    write_file(scene_text, sizeof scene_text - 1);
    if (mq__eval_agent.open(&context, &task, &items, &error) != MQ_OK) fail_msg("%s", error.text);
    assert_int_equal(items, 1);
    assert_string_equal(mq__eval_agent.id(task, 0), "one");
    assert_int_equal(mq__eval_agent.begin(task, 0, &episode, &error), MQ_OK);
    assert_int_equal(mq__eval_agent.next(episode, NULL, &prompt, &error), MQ_OK);
    while (prompt.request) {
        json_decref(prompt.request);
        prompt = (mq_eval_prompt){0};
        const char *text = at < count ? answers[at++] : "";
        const mq_eval_answer answer = {.text = text, .bytes = strlen(text)};
        assert_int_equal(mq__eval_agent.next(episode, &answer, &prompt, &error), MQ_OK);
    }
    assert_int_equal(at, count);
    json_t *record = mq__eval_agent.end(episode, true);
    mq__eval_agent.close(task);
    assert_non_null(record);
    return record;
}

static void check(const char *const *answers, size_t count, double episode, double turn, double call, double answer)
{
    json_t *record = play(answers, count);
    assert_true(json_number_value(json_object_get(record, "episode")) == episode);
    assert_true(json_number_value(json_object_get(record, "turn")) == turn);
    assert_true(json_number_value(json_object_get(record, "call")) == call);
    assert_true(json_number_value(json_object_get(record, "answer")) == answer);
    json_decref(record);
}

/* The first wrong turn, and what went wrong in it first. */
static void check_where(const char *const *answers, size_t count, const char *part, int turn)
{
    json_t *record = play(answers, count), *first = json_object_get(record, "first_wrong");
    if (strcmp(json_string_value(json_object_get(first, "part")), part) != 0)
        fail_msg("expected %s, got %s", part, json_string_value(json_object_get(first, "part")));
    assert_int_equal(json_integer_value(json_object_get(first, "turn")), turn);
    char key[32];
    snprintf(key, sizeof key, "%s_wrong", part);
    if (turn) assert_true(json_number_value(json_object_get(record, key)) == 1);
    json_decref(record);
}

#define CALL(name, code) "<tool_call>\n{\"name\": \"" name "\", \"arguments\": {\"code\": \"" code "\"}}\n</tool_call>"
#define CHECK(list, ...) check(list, sizeof(list) / sizeof(list)[0], __VA_ARGS__)

static void test_agent_answers(void **state)
{
    (void)state;
    const char *const right[] = {CALL("find_book", "7"), "For book 7:\n{}\nThe cost is 5.", "The code is 7."};
    CHECK(right, 1, 1, 1, 1);
    const char *const wrong_argument[] = {CALL("find_book", "8"), "The cost is 5.", "The code is 7."};
    CHECK(wrong_argument, 0, 0.5, 0.5, 1);
    const char *const wrong_tool[] = {CALL("find_boat", "7"), "The cost is 5.", "The code is 7."};
    CHECK(wrong_tool, 0, 0.5, 0.5, 1);
    const char *const no_call[] = {"The cost is 5.", "The code is 7."};
    CHECK(no_call, 0, 0.5, 0.5, 1);
    const char *const needless_call[] = {CALL("find_book", "7"), "The cost is 5.", CALL("find_book", "7"),
                                         "The code is 7."};
    CHECK(needless_call, 0, 0.5, 0.5, 1);
    const char *const called_twice[] = {CALL("find_book", "7"), CALL("find_book", "7"), "The cost is 5.",
                                        "The code is 7."};
    CHECK(called_twice, 0, 0.5, 0.5, 1);
    const char *const wrong_line[] = {CALL("find_book", "7"), "The cost is 5.\nThe cost is 6.", "The code is 7."};
    CHECK(wrong_line, 0, 0.5, 1, 0.5);
    const char *const malformed[] = {"<tool_call>{\"name\": \"find_book\"", ""};
    CHECK(malformed, 0, 0, 0.5, 0);
    const char *const cut_thoughts[] = {"<think>Which tool", "<think>The code is 7."}; /* are no answers */
    CHECK(cut_thoughts, 0, 0, 0, 0);
    const char *const endless[] = {CALL("find_book", "7"), CALL("find_book", "7"), CALL("find_book", "7"),
                                   CALL("find_book", "7"), CALL("find_book", "7"), "The code is 7."};
    CHECK(endless, 0, 0.5, 0.5, 0.5);
}

#define WHERE(list, ...) check_where(list, sizeof(list) / sizeof(list)[0], __VA_ARGS__)

static void test_agent_parts(void **state)
{
    (void)state;
    const char *const right[] = {CALL("find_book", "7"), "For book 7:\n{}\nThe cost is 5.", "The code is 7."};
    WHERE(right, "none", 0);
    const char *const tool[] = {CALL("find_boat", "7"), "The cost is 5.", "The code is 8."};
    WHERE(tool, "tool", 1);
    const char *const no_call[] = {"The cost is 5.", "The code is 7."};
    WHERE(no_call, "tool", 1);
    const char *const needless[] = {CALL("find_book", "7"), "The cost is 5.", CALL("find_book", "7"), "The code is 7."};
    WHERE(needless, "tool", 2);
    const char *const twice[] = {CALL("find_book", "8"), CALL("find_book", "7"), "The cost is 5.", "The code is 7."};
    WHERE(twice, "argument", 1);
    const char *const argument[] = {CALL("find_book", "8"), "The cost is 6.", "The code is 8."};
    WHERE(argument, "argument", 1);
    const char *const quote[] = {CALL("find_book", "7"), "For book 8:\n{}\nThe cost is 6.", "The code is 7."};
    WHERE(quote, "quote", 1);
    const char *const statement[] = {CALL("find_book", "7"), "For book 7:\n{}\nThe cost is 6.", "The code is 7."};
    WHERE(statement, "statement", 1);
    const char *const later[] = {CALL("find_book", "7"), "For book 7:\n{}\nThe cost is 5.", "The code is 8."};
    WHERE(later, "statement", 2);
    const char *const luck[] = {CALL("find_book", "7"), "For book 8:\n{}\nThe cost is 5.", "The code is 7."};
    WHERE(luck, "none", 0); /* as the turn is scored: by its last line */
}

static void test_agent_data(void **state)
{
    (void)state;
    static const char *const bad[] = {"{", "[]\n", "{\"id\": \"a\"}\n", "\n"};
    const mq_eval_options options = {.model_dir = "none", .data = path};
    const mq_eval_context context = {.options = &options};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        void *task = NULL;
        size_t items = 0;
        write_file(bad[i], strlen(bad[i]));
        const mq_status status = mq__eval_agent.open(&context, &task, &items, NULL);
        assert_true(status == MQ_FORMAT || items == 0);
        mq__eval_agent.close(task);
    }
    char twice[2 * sizeof scene_text];
    snprintf(twice, sizeof twice, "%s%s", scene_text, scene_text);
    write_file(twice, strlen(twice));
    void *task = NULL;
    size_t items;
    assert_int_equal(mq__eval_agent.open(&context, &task, &items, NULL), MQ_FORMAT);
    mq__eval_agent.close(task);
}

static void test_scene_calls(void **state)
{
    (void)state;
    json_t *scene = json_loads(scene_text, 0, NULL), *seven = json_pack("{si}", "code", 7),
           *odd = json_pack("{s[]}", "code");
    char *text = mq__scene_call(scene, "find_book", seven);
    assert_string_equal(text, "{\"code\":7,\"cost\":5}");
    mq__free(text);
    text = mq__scene_call(scene, "find_book", odd);
    assert_string_equal(text, "no rows");
    mq__free(text);
    text = mq__scene_call(scene, "x", seven);
    assert_string_equal(text, "no such tool");
    mq__free(text);
    json_t *tool = json_array_get(json_object_get(scene, "tools"), 0), *eight = json_pack("{ss}", "code", "8");
    json_object_set_new(tool, "format", json_string("log"));
    json_array_append_new(json_object_get(json_object_get(scene, "tables"), "book"),
                          json_pack("{sssssi}", "code", "8", "title", "Two", "cost", 3));
    assert_int_equal(mq__scene_check(scene, "x", NULL), MQ_OK);
    text = mq__scene_call(scene, "find_book", eight);
    assert_string_equal(text, "code=8 cost=6\ncode=8 cost=3");
    mq__free(text);
    json_object_set_new(tool, "format", json_string("table"));
    text = mq__scene_call(scene, "find_book", eight);
    assert_string_equal(text, "code|cost\n8|6\n8|3");
    mq__free(text);
    json_object_set_new(tool, "limit", json_integer(3));
    json_array_append_new(json_object_get(json_object_get(scene, "tables"), "book"), json_pack("{ss}", "code", "8"));
    text = mq__scene_call(scene, "find_book", eight);
    assert_string_equal(text, "code|cost\n8|6\n8|3\n8|");
    mq__free(text);
    json_object_set_new(tool, "format", json_string("xml"));
    assert_int_equal(mq__scene_check(scene, "x", NULL), MQ_FORMAT);
    json_object_set_new(tool, "format", json_integer(1));
    assert_int_equal(mq__scene_check(scene, "x", NULL), MQ_FORMAT);
    json_decref(eight);
    json_decref(odd);
    json_decref(seven);
    json_decref(scene);
    assert_null(mq__scene_parse_call("<tool_call>{\"name\": 1, \"arguments\": {}}</tool_call>"));
    assert_null(mq__scene_parse_call("{\"name\": \"a\", \"arguments\": {}}"));
}

static void test_ruler_items(void **state)
{
    (void)state;
    mq_ruler_item item, again;
    for (int kind = 0; kind < MQ_RULER_QA; kind++) {
        for (int wording = 0; wording < 2; wording++) {
            char name[32], answer[2048] = "";
            assert_non_null(mq__ruler_kind_names[kind]);
            snprintf(name, sizeof name, "item-%d", kind);
            mq__ruler_make(&item, (mq_ruler_kind)kind, (mq_ruler_wording)wording, (mq_ruler_source){0}, 42, name);
            mq__ruler_make(&again, (mq_ruler_kind)kind, (mq_ruler_wording)wording, (mq_ruler_source){0}, 42, name);
            mq_buf text = {0}, same = {0}, longer = {0};
            mq__ruler_text(&item, 20, &text);
            mq__ruler_text(&again, 20, &same);
            assert_string_equal(text.data, same.data);
            mq__buf_free(&same);
            mq__ruler_text(&item, 40, &longer);
            assert_true(!text.failed && longer.len > text.len);
            for (uint32_t i = 0; i < item.facts; i++) {
                assert_non_null(strstr(text.data, item.fact[i]));
                assert_true(i == 0 || strstr(text.data, item.fact[i]) > strstr(text.data, item.fact[i - 1]));
            }
            assert_non_null(strstr(text.data, item.question));
            assert_true(item.wanted_count > 0);
            for (uint32_t i = 0; i < item.wanted_count; i++) {
                assert_non_null(strstr(text.data, item.wanted[i]));
                strcat(strcat(answer, item.wanted[i]), ", ");
            }
            assert_true(mq__ruler_score(&item, answer) == 1);
            assert_true(mq__ruler_score(&item, "") == 0);
            assert_true(mq__ruler_score(&item, "I do not know") == 0);
            assert_true(mq__ruler_score(&item, item.wanted[0]) == 1.0 / item.wanted_count);
            snprintf(answer, sizeof answer, "x%sx", item.wanted[0]); /* a part of another word is not it */
            assert_true(mq__ruler_score(&item, answer) == 0);
            mq__buf_free(&text);
            mq__buf_free(&longer);
        }
    }
    mq__ruler_make(&item, MQ_RULER_COMMON, MQ_RULER_BUNDLED, (mq_ruler_source){0}, 42, "item-5");
    mq__ruler_make(&again, MQ_RULER_COMMON, MQ_RULER_BUNDLED, (mq_ruler_source){0}, 43, "item-5");
    assert_true(strcmp(again.wanted[0], item.wanted[0]) != 0 || strcmp(again.wanted[1], item.wanted[1]) != 0);
}

/* How often a word comes in a text. */
static uint32_t times_of(const char *text, const char *word)
{
    uint32_t times = 0;
    const size_t length = strlen(word);
    for (const char *p = strstr(text, word); p; p = strstr(p + 1, word)) {
        times += (p == text || strchr(" \n", p[-1])) && (p[length] == ' ' || p[length] == '\n');
    }
    return times;
}

/* Of all words of the coded text the three that are asked for come most often, the k-th 1/k^2 as often as the first. */
static void test_ruler_frequent(void **state)
{
    (void)state;
    static const uint32_t noises[] = {0, 16, 100, 900};
    for (size_t n = 0; n < 4; n++) {
        mq_ruler_item item;
        mq_buf text = {0};
        char copy[64];
        mq__ruler_make(&item, MQ_RULER_FREQUENT, MQ_RULER_ENGLISH, (mq_ruler_source){0}, 7 + n, "x");
        mq__ruler_text(&item, noises[n], &text);
        mq__buf_putc(&text, '\0');
        const uint32_t first = noises[n] < 18 ? 18 : noises[n];
        for (uint32_t k = 0; k < 3; k++) {
            assert_int_equal(times_of(text.data, item.wanted[k]), first / ((k + 1) * (k + 1)));
        }
        const char *p = text.data + strlen(item.before), *end = strstr(text.data, item.question);
        for (size_t length; p < end; p += length + 1) {
            length = strcspn(p, " \n");
            snprintf(copy, sizeof copy, "%.*s", (int)length, p);
            const bool wanted = strcmp(copy, item.wanted[0]) == 0 || strcmp(copy, item.wanted[1]) == 0 ||
                                strcmp(copy, item.wanted[2]) == 0;
            if (!wanted) assert_true(times_of(text.data, copy) < first / 9);
        }
        mq__buf_free(&text);
    }
}

static void test_store_after_cut(void **state)
{
    (void)state;
    mq_eval_store store;
    mq_error error = {0};
    json_t *header = json_pack("{ss}", "task", "t"), *other = json_pack("{ss}", "task", "u");
    (void)unlink(path);
    assert_int_equal(mq__eval_store_open(&store, path, header, &error), MQ_OK);
    assert_int_equal(access(path, F_OK), -1); /* made with the first record */
    mq__eval_store_close(&store);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(mq__eval_store_open(&store, path, header, &error), MQ_OK);
    for (int i = 0; i < 3; i++) {
        char id[8];
        snprintf(id, sizeof id, "i%d", i);
        assert_int_equal(mq__eval_store_add(&store, json_pack("{sssssi}", "plan", "mix", "id", id, "x", i), &error),
                         MQ_OK);
    }
    assert_int_equal(mq__eval_store_add(&store, json_pack("{ss}", "id", "no plan"), &error), MQ_FORMAT);
    mq__eval_store_close(&store);

    write_file("{\"task\":\"t\"}\n{\"plan\":\"mix\",\"id\":\"i0\",\"x\":0}\n{\"plan\":\"mix\",\"id\":\"i1", 62);
    assert_int_equal(mq__eval_store_open(&store, path, header, &error), MQ_OK);
    assert_non_null(mq__eval_store_get(&store, "mix", "i0"));
    assert_null(mq__eval_store_get(&store, "mix", "i1"));
    assert_null(mq__eval_store_get(&store, "bf16", "i0"));
    assert_int_equal(mq__eval_store_add(&store, json_pack("{sssssi}", "plan", "mix", "id", "i1", "x", 9), &error),
                     MQ_OK);
    mq__eval_store_close(&store);
    assert_int_equal(mq__eval_store_open(&store, path, header, &error), MQ_OK);
    assert_int_equal(json_integer_value(json_object_get(mq__eval_store_get(&store, "mix", "i1"), "x")), 9);
    mq__eval_store_close(&store);

    assert_int_equal(mq__eval_store_open(&store, path, other, &error), MQ_USAGE); /* another run's records */
    write_file("{\"task\":\"t\"}\nnot json\n", 22);
    assert_int_equal(mq__eval_store_open(&store, path, header, &error), MQ_FORMAT);
    write_file("", 0);
    assert_int_equal(mq__eval_store_open(&store, path, header, &error), MQ_OK);
    mq__eval_store_close(&store);
    json_decref(header);
    json_decref(other);
}

static void test_any_bytes_become_text(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *text;
        size_t count;
    } cases[] = {{"caf\xc3\xa9 \xf0\x9f\x98\x80", "caf\xc3\xa9 \xf0\x9f\x98\x80", 10},
                 {"a\xc3", "a?", 2},
                 {"\xc3(", "?(", 2},
                 {"\xc0\x80", "??", 2},
                 {"\xed\xa0\x80", "???", 3},
                 {"\xf8\x88\x80\x80\x80", "?????", 5},
                 {"a\0b", "a?b", 3},
                 {"\xe2\x82", "??", 2},
                 {"", "", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char bytes[16];
        memcpy(bytes, cases[i].bytes, cases[i].count);
        mq__eval_make_text(bytes, cases[i].count);
        assert_memory_equal(bytes, cases[i].text, cases[i].count);
        json_t *value = json_stringn(bytes, cases[i].count);
        assert_non_null(value);
        json_decref(value);
    }
}

static int make_path(void **state)
{
    (void)state;
    const int file = mkstemp(path);
    return file < 0 ? -1 : close(file);
}

static int remove_path(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_agent_answers),  cmocka_unit_test(test_agent_parts),
        cmocka_unit_test(test_agent_data),     cmocka_unit_test(test_any_bytes_become_text),
        cmocka_unit_test(test_scene_calls),    cmocka_unit_test(test_ruler_items),
        cmocka_unit_test(test_ruler_frequent), cmocka_unit_test(test_store_after_cut),
    };
    return cmocka_run_group_tests(tests, make_path, remove_path);
}
