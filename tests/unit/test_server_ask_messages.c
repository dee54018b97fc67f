/* What the messages of chat bodies become, and how a template gets them. */
#include "server_ask.h"

static void expect_messages(const char *messages, const char *expected)
{
    char body[20000];
    mq_ask ask;
    snprintf(body, sizeof body, "{\"messages\":%s}", messages);
    must_read(body, &ask);
    char *text = json_dumps(ask.messages, JSON_COMPACT);
    assert_string_equal(text, expected);
    free(text);
    mq__ask_clear(&ask);
}

static void refuses_messages(const char *messages, const char *param)
{
    char body[20000];
    snprintf(body, sizeof body, "{\"messages\":%s}", messages);
    refuses(body, param);
}

#define REMIND(t) "<system-reminder>\\n" t "\\n</system-reminder>"

static void test_system(void **state)
{
    (void)state;
    expect_messages("[" SYS("a") ",{\"role\":\"developer\",\"content\":\"b\"}," SYS("") "," USER("u") "]",
                    "[" SYS("a\\n\\nb") "," USER("u") "]");
    expect_messages("[{\"role\":\"developer\",\"content\":\"b\"}," USER("u") "]", "[" SYS("b") "," USER("u") "]");
    /* Later ones: at the end of what the user said, or before what the user says next. */
    expect_messages("[" USER("u") "," SYS("x") "," ASSIST("a") "]",
                    "[" USER("u\\n\\n" REMIND("x")) "," ASSIST("a") "]");
    expect_messages(
        "[" USER("u") "," ASSIST("a") "," SYS("x") "," SYS("y") "," USER("v") "," USER("w") "]",
        "[" USER("u") "," ASSIST("a") "," USER(REMIND("x") "\\n\\n" REMIND("y") "\\n\\nv") "," USER("w") "]");
    expect_messages("[" USER("u") "," SYS("") "," USER("v") "]", "[" USER("u") "," USER("v") "]");
    expect_messages(
        "[" USER("u") ",{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"1\",\"function\":{\"name\":\"f\"}}]},"
                      "{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"r\"}," SYS("x") "]",
        "[" USER("u") ",{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"type\":\"function\",\"function\":"
                      "{\"name\":\"f\",\"arguments\":\"{}\"},\"id\":\"1\"}]},{\"role\":\"tool\",\"content\":"
                      "\"r\\n\\n" REMIND("x") "\",\"tool_call_id\":\"1\",\"name\":\"f\"}]");
}

#define REFUSES(content, refusal) "{\"role\":\"assistant\"" content ",\"refusal\":" refusal "}"

/* OpenAI's in place of a content. */
static void test_refusal(void **state)
{
    static const char *const contents[] = {"", ",\"content\":null", ",\"content\":\"\"", ",\"content\":[]"};
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        char messages[500];
        snprintf(messages, sizeof messages, "[" USER("u") "," REFUSES("%s", "\"no\"") "," USER("v") "]", contents[i]);
        expect_messages(messages, "[" USER("u") "," ASSIST("no") "," USER("v") "]");
    }
    expect_messages("[" USER("u") "," REFUSES(",\"content\":\"a\"", "\"no\"") "," REFUSES("", "null") "]",
                    "[" USER("u") "," ASSIST("a") "," ASSIST("") "]");
}

/* The messages of a turn begin with those of the turn before, whatever system texts came between. */
static void test_system_keeps_prefix(void **state)
{
    static const char *const turns[] = {"[" SYS("s") "," USER("u") "," ASSIST("a") "," SYS("x") "," USER("v") "]",
                                        "[" SYS("s") "," USER("u") "," ASSIST("a") "," SYS("x") "," USER(
                                            "v") "," ASSIST("b") "," SYS("y") "," USER("w") "]"};
    json_t *kept[2];
    (void)state;
    for (int i = 0; i < 2; i++) {
        char body[2000];
        mq_ask ask;
        snprintf(body, sizeof body, "{\"messages\":%s}", turns[i]);
        must_read(body, &ask);
        kept[i] = json_incref(ask.messages);
        mq__ask_clear(&ask);
    }
    for (size_t i = 0; i < json_array_size(kept[0]); i++) {
        assert_true(json_equal(json_array_get(kept[0], i), json_array_get(kept[1], i)));
    }
    json_decref(kept[0]);
    json_decref(kept[1]);
}

static void test_content(void **state)
{
    (void)state;
    expect_messages("[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"input_text\","
                    "\"text\":\"b\"}]}]",
                    "[" USER("a\\nb") "]");
    expect_messages("[{\"role\":\"user\",\"content\":null}]", "[" USER("") "]");
    expect_messages("[{\"role\":\"user\"}]", "[" USER("") "]");
    expect_messages("[{\"role\":\"user\",\"content\":[]}]", "[" USER("") "]");
    expect_messages("[{\"role\":\"user\",\"content\":\"a\\u0000b\"}]", "[" USER("a\\u0000b") "]");
    expect_messages("[{\"role\":\"user\",\"content\":\"a\",\"name\":\"n\",\"cache_control\":{}}]",
                    "[{\"role\":\"user\",\"content\":\"a\",\"name\":\"n\"}]");
    expect_messages(
        "[" USER("u") ",{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"t\"},"
                      "{\"type\":\"refusal\",\"refusal\":\"no\"}],\"reasoning_content\":\"r\",\"audio\":null}]",
        "[" USER("u") ",{\"role\":\"assistant\",\"content\":\"no\",\"reasoning_content\":\"r\"}]");
    expect_messages("[" USER("u") ",{\"role\":\"assistant\",\"content\":\"c\",\"reasoning\":\"r\",\"tool_calls\":[]}]",
                    "[" USER("u") ",{\"role\":\"assistant\",\"content\":\"c\",\"reasoning_content\":\"r\"}]");
    refuses_messages("[{\"role\":\"user\",\"content\":5}]", "messages[0].content");
    refuses_messages(
        "[" USER("a") ",{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"x\"}}]}]",
        "messages[1].content[0]");
    /* What stands in the past is named, as are results of tools. */
#define IMAGE    "{\"type\":\"image_url\",\"image_url\":{\"url\":\"x\"}}"
#define NO_IMAGE "[image_url left out: this model reads text only]"
    expect_messages("[{\"role\":\"user\",\"content\":[" IMAGE ",{\"type\":\"text\",\"text\":\"a\"}]}," USER("b") "]",
                    "[" USER(NO_IMAGE "\\na") "," USER("b") "]");
    expect_messages(
        "[{\"role\":\"user\",\"content\":[" IMAGE "]},{\"role\":\"assistant\",\"tool_calls\":"
        "[{\"function\":{\"name\":\"f\"}}]}]",
        "[" USER(NO_IMAGE) ",{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"type\":\"function\","
                           "\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}]");
    /* Behind what the user shows now are perhaps notes, and the beginning of the answer. */
    refuses_messages("[{\"role\":\"user\",\"content\":[" IMAGE "]},{\"role\":\"developer\",\"content\":\"n\"}]",
                     "messages[0].content[0]");
    refuses_messages("[{\"role\":\"user\",\"content\":[" IMAGE "]},{\"role\":\"system\",\"content\":\"n\"},"
                     "{\"role\":\"assistant\",\"content\":\"It\"}]",
                     "messages[0].content[0]");
    expect_messages("[{\"role\":\"tool\",\"content\":[" IMAGE "]}]",
                    "[{\"role\":\"tool\",\"content\":\"" NO_IMAGE "\"}]");
    refuses_messages("[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]", "messages[0].content[0]");
    refuses_messages("[{\"role\":\"user\",\"content\":[5]}]", "messages[0].content[0]");
    refuses_messages("[{\"role\":\"narrator\",\"content\":\"a\"}]", "messages[0].role");
    refuses_messages("[{\"content\":\"a\"}]", "messages[0].role");
    refuses_messages("[5]", "messages[0]");
    refuses_messages("[]", "messages");
    refuses_messages("{}", "messages");
    refuses_messages("null", "messages");
}

static void test_calls(void **state)
{
    (void)state;
    expect_messages(
        "[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"x\",\"type\":\"function\",\"function\":"
        "{\"name\":\"f\",\"arguments\":\"{\\\"a\\\": tru\"}},{\"function\":{\"name\":\"g\",\"arguments\":{\"b\":1}}}]},"
        "{\"role\":\"tool\",\"content\":[{\"type\":\"text\",\"text\":\"r\"}]},"
        "{\"role\":\"function\",\"name\":\"g\",\"content\":\"s\"}]",
        "[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"type\":\"function\",\"function\":{\"name\":\"f\","
        "\"arguments\":\"{\\\"a\\\": tru\"},\"id\":\"x\"},{\"type\":\"function\",\"function\":{\"name\":\"g\","
        "\"arguments\":{\"b\":1}}}]},{\"role\":\"tool\",\"content\":\"r\"},"
        "{\"role\":\"tool\",\"content\":\"s\",\"name\":\"g\"}]");
    expect_messages(
        "[" USER("u") ",{\"role\":\"assistant\",\"function_call\":{\"name\":\"f\",\"arguments\":\"{}\"}}]",
        "[" USER("u") ",{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"type\":\"function\",\"function\":"
                      "{\"name\":\"f\",\"arguments\":\"{}\"}}]}]");
    expect_messages(
        "[{\"role\":\"assistant\",\"tool_calls\":[{\"type\":\"custom\",\"custom\":{\"name\":\"f\",\"input\":\"x\"}}]}]",
        "[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"type\":\"function\",\"function\":{\"name\":\"f\","
        "\"arguments\":{\"input\":\"x\"}}}]}]");
    refuses_messages("[{\"role\":\"assistant\",\"tool_calls\":5}]", "messages[0].tool_calls");
    refuses_messages("[{\"role\":\"assistant\",\"tool_calls\":[5]}]", "messages[0].tool_calls[0]");
    refuses_messages("[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{}}]}]", "messages[0].tool_calls[0]");
}

static void test_messages_bound(void **state)
{
    mq_ask ask;
    mq_fault fault;
    (void)state;
    for (size_t count = 10000; count <= 10001; count++) {
        json_t *list = json_array();
        for (size_t i = 0; i < count; i++) {
            json_array_append_new(list, json_pack("{ssss}", "role", i ? "system" : "user", "content", "some text"));
        }
        mq__ask_defaults(server, &ask);
        assert_int_equal(mq__read_messages(server, list, &ask, &fault), count == 10000);
        if (count == 10000) assert_int_equal(json_array_size(ask.messages), 1);
        if (count == 10001) assert_string_equal(fault.param, "messages");
        mq__ask_clear(&ask);
        json_decref(list);
    }
}

static void test_turn(void **state)
{
    static const struct {
        const char *members;
        bool continues, no_turn;
    } cases[] = {
        {"\"messages\":[" USER("u") "]", false, false},
        {"\"messages\":[" USER("u") "," ASSIST("a") "]", true, false},
        {"\"messages\":[" USER("u") "," ASSIST("a") "],\"add_generation_prompt\":true", false, false},
        {"\"messages\":[" USER("u") "," ASSIST("a") "],\"add_generation_prompt\":false", true, false},
        {"\"messages\":[" USER("u") "," ASSIST("a") "],\"continue_final_message\":false", false, false},
        {"\"messages\":[" USER("u") "],\"add_generation_prompt\":false", false, true},
        {"\"messages\":[" USER("u") "," ASSIST(
             "a") "],\"add_generation_prompt\":false,\"continue_final_message\":false",
         false, true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[500];
        mq_ask ask;
        snprintf(body, sizeof body, "{%s}", cases[i].members);
        must_read(body, &ask);
        if (ask.continues != cases[i].continues || ask.no_turn != cases[i].no_turn) fail_msg("%s", body);
        mq__ask_clear(&ask);
    }
    refuses("\"continue_final_message\":true", "continue_final_message");
    refuses(
        "{\"messages\":[" USER("u") "," ASSIST("a") "],\"continue_final_message\":true,\"add_generation_prompt\":true}",
        "continue_final_message");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_system),  cmocka_unit_test(test_refusal), cmocka_unit_test(test_system_keeps_prefix),
        cmocka_unit_test(test_content), cmocka_unit_test(test_calls),   cmocka_unit_test(test_messages_bound),
        cmocka_unit_test(test_turn),
    };
    return cmocka_run_group_tests(tests, open_server, close_server);
}
