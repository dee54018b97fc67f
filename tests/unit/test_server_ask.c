/* What chat bodies become: fields and their bounds, tools, forms. */
#include "server_ask.h"

/* ---- numbers */

static void test_bounds(void **state)
{
    static const struct {
        const char *name;
        const char *in[3], *out[8];
    } fields[] = {
        {"temperature", {"0", "100", "0.7"}, {"-1e-9", "100.0001", "1e308", "-1", "2147483648", "9223372036854775808"}},
        {"top_p", {"0", "1", "0.95"}, {"-0.01", "1.0001", "1e308", "-1", "2147483648"}},
        {"min_p", {"0", "1", "0.05"}, {"-0.01", "1.0001", "1e308", "-1", "9223372036854775808"}},
        {"repetition_penalty", {"0.001", "1000", "1.1"}, {"0", "0.0009", "1000.1", "-1", "1e308"}},
        {"repeat_penalty", {"0.001", "1000", "1.1"}, {"0", "1000.1", "-1", "1e308"}},
        {"presence_penalty", {"-100", "100", "0.5"}, {"-100.1", "100.1", "1e308", "-1e308"}},
        {"frequency_penalty", {"-100", "100", "0.5"}, {"-100.1", "100.1", "1e308", "2147483648"}},
        {"top_k", {"-1", "2147483647", "40.0"}, {"-2", "2147483648", "9223372036854775808", "1.5", "1e308"}},
        {"n", {"1", "16", "2"}, {"0", "17", "-1", "2147483648", "9223372036854775808", "1e308", "1.5"}},
        {"max_tokens", {"1", "-1", "9223372036854775807"}, {"0", "-2", "9223372036854775808", "1.5", "1e308"}},
        {"max_completion_tokens", {"1", "-1", "2147483648"}, {"0", "-2", "9223372036854775808", "1.5"}},
        {"n_predict", {"1", "-1", "100000000"}, {"0", "-2", "9223372036854775808"}},
        {"seed",
         {"-9223372036854775808", "9223372036854775807", "18446744073709551615"},
         {"1e308", "1.5", "18446744073709551616", "-9223372036854777856"}},
        {"top_logprobs", {"0", "0", "null"}, {"21", "-1", "2147483648", "1.5", "5"}}, /* 5: without logprobs */
    };
    (void)state;
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        char members[200];
        for (size_t k = 0; k < 3; k++) {
            snprintf(members, sizeof members, "\"%s\":%s", fields[i].name, fields[i].in[k]);
            accepts(members);
        }
        snprintf(members, sizeof members, "\"%s\":null", fields[i].name);
        accepts(members);
        for (size_t k = 0; k < 8 && fields[i].out[k]; k++) {
            snprintf(members, sizeof members, "\"%s\":%s", fields[i].name, fields[i].out[k]);
            refuses(members, fields[i].name);
        }
        static const char *const wrong[] = {"\"1\"", "true", "[]", "{}", "[1]"};
        for (size_t k = 0; k < 5; k++) {
            snprintf(members, sizeof members, "\"%s\":%s", fields[i].name, wrong[k]);
            refuses(members, fields[i].name);
        }
    }
}

static void test_values(void **state)
{
    mq_ask ask;
    (void)state;
    must_read(
        "\"temperature\":0.5,\"top_p\":0.9,\"top_k\":-1,\"min_p\":0.1,\"repeat_penalty\":1.25,\"presence_penalty\":-2,"
        "\"frequency_penalty\":2,\"seed\":-1,\"max_tokens\":5,\"max_completion_tokens\":7,\"n_predict\":3,\"n\":2,"
        "\"logprobs\":true,\"top_logprobs\":20,\"stream\":true,\"stream_options\":{\"include_usage\":true},"
        "\"return_progress\":true,\"ignore_eos\":true,\"logit_bias\":{\"5\":-100,\"3071\":100},\"parallel_tool_calls\":"
        "false",
        &ask);
    assert_float_equal(ask.sampling.temperature, 0.5, 0);
    assert_float_equal(ask.sampling.top_p, 0.9, 1e-6);
    assert_int_equal(ask.sampling.top_k, 0);
    assert_float_equal(ask.sampling.min_p, 0.1, 1e-6);
    assert_float_equal(ask.sampling.repetition_penalty, 1.25, 0);
    assert_float_equal(ask.sampling.presence_penalty, -2, 0);
    assert_float_equal(ask.sampling.frequency_penalty, 2, 0);
    assert_true(ask.sampling.seed == UINT64_MAX && ask.has_seed);
    assert_int_equal(ask.max_tokens, 7);
    assert_int_equal(ask.n, 2);
    assert_true(ask.logprobs && ask.top_logprobs == 20);
    assert_true(ask.stream && ask.include_usage && ask.return_progress && ask.ignore_eos && !ask.parallel);
    assert_int_equal(ask.sampling.bias_count, 2);
    assert_int_equal(ask.sampling.bias[1].token, 3071);
    assert_float_equal(ask.sampling.bias[0].bias, -100, 0);
    mq__ask_clear(&ask);

    must_read("", &ask);
    assert_true(ask.max_tokens == UINT32_MAX && ask.n == 1 && !ask.has_seed && !ask.stream && ask.parallel);
    assert_int_equal(ask.thinking, -1);
    assert_int_equal(ask.choice, MQ_CHOICE_AUTO);
    assert_float_equal(ask.sampling.temperature, 0, 0);
    mq__ask_clear(&ask);
    must_read("\"max_tokens\":9,\"max_completion_tokens\":null,\"n_predict\":-1", &ask);
    assert_int_equal(ask.max_tokens, 9);
    mq__ask_clear(&ask);
}

static void test_other_fields(void **state)
{
    (void)state;
    accepts("\"no_such_field\":{\"a\":[1]},\"store\":true,\"service_tier\":\"auto\",\"user\":\"u\",\"metadata\":{}");
    accepts("\"tools\":null,\"tool_choice\":null,\"response_format\":null,\"stop\":null,\"logit_bias\":null,\"stream\":"
            "null,"
            "\"stream_options\":null,\"chat_template_kwargs\":null,\"reasoning\":null,\"functions\":null");
    refuses("\"stream\":1", "stream");
    refuses("\"stream\":\"true\"", "stream");
    refuses("\"stream_options\":[]", "stream_options");
    refuses("\"stream_options\":{\"include_usage\":1}", "include_usage");
    refuses("\"logprobs\":5", "logprobs");
    refuses("\"logit_bias\":[]", "logit_bias");
    refuses("\"logit_bias\":{\"-1\":1}", "logit_bias");
    refuses("\"logit_bias\":{\"3072\":1}", "logit_bias");
    refuses("\"logit_bias\":{\"4294967297\":1}", "logit_bias");
    refuses("\"logit_bias\":{\"07\":1}", "logit_bias");
    refuses("\"logit_bias\":{\"\":1}", "logit_bias");
    refuses("\"logit_bias\":{\"x\":1}", "logit_bias");
    refuses("\"logit_bias\":{\"7\":101}", "logit_bias");
    refuses("\"logit_bias\":{\"7\":\"1\"}", "logit_bias");
    refuses("\"functions\":[{\"name\":\"f\"},5]", "functions[1]");
    refuses("\"functions\":[{\"name\":\"f\"}],\"function_call\":{\"name\":\"g\"}", "function_call");
    refuses("\"grammar\":\"root ::= x\"", "grammar");
    refuses("\"chat_template_kwargs\":[]", "chat_template_kwargs");
    refuses("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"n\":1,\"n\":1}", "");
    refuses("[1]", "");
    refuses("{\"messages\":", "");
}

static void test_stops(void **state)
{
    char long_stop[1200], many[400] = "\"stop\":[\"a\"";
    mq_ask ask;
    (void)state;
    must_read("\"stop\":\"END\"", &ask);
    assert_int_equal(ask.stop_count, 1);
    assert_string_equal(ask.stops[0], "END");
    mq__ask_clear(&ask);
    must_read("\"stop\":[\"a\",\"\",\"b\"]", &ask);
    assert_int_equal(ask.stop_count, 2); /* an empty one would end every answer at once */
    assert_string_equal(ask.stops[1], "b");
    mq__ask_clear(&ask);
    refuses("\"stop\":5", "stop");
    refuses("\"stop\":[\"a\",5]", "stop");
    refuses("\"stop\":\"a\\u0000b\"", "stop");
    for (int i = 1; i < 16; i++) {
        strcat(many, ",\"a\"");
    }
    snprintf(long_stop, sizeof long_stop, "%s]", many);
    accepts(long_stop);
    snprintf(long_stop, sizeof long_stop, "%s,\"a\"]", many);
    refuses(long_stop, "stop");
    snprintf(long_stop, sizeof long_stop, "\"stop\":\"%01024d\"", 0);
    accepts(long_stop);
    snprintf(long_stop, sizeof long_stop, "\"stop\":\"%01025d\"", 0);
    refuses(long_stop, "stop");
}

static void test_depth(void **state)
{
    char text[400] = "\"x\":";
    (void)state;
    for (int i = 0; i < 63; i++) {
        strcat(text, "[");
    }
    for (int i = 0; i < 63; i++) {
        strcat(text, "]");
    }
    accepts(text); /* with the body's own, 64 levels */
    memcpy(text + 4, "[[", 2);
    char deeper[420];
    snprintf(deeper, sizeof deeper, "\"x\":[%s]", text + 4);
    refuses(deeper, "");
    /* Brackets in strings are none. */
    accepts("\"x\":\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[[[[[[[[[\"");
}

/* Half a character, as a cut text has it, is U+FFFD; a mark before the JSON is none of it. */
static void test_halves_of_characters(void **state)
{
    static const struct {
        const char *text, *expected;
    } cases[] = {{"a\\ud83d", "a\xEF\xBF\xBD"},
                 {"\\uDE00b", "\xEF\xBF\xBD"
                              "b"},
                 {"\\ud83d\\ud83d\\ude00", "\xEF\xBF\xBD\xF0\x9F\x98\x80"},
                 {"\\ud83d\\n\\ud83dx", "\xEF\xBF\xBD\n\xEF\xBF\xBDx"},
                 {"\\ud83d\\ude00", "\xF0\x9F\x98\x80"},
                 {"\\\\ud83d", "\\ud83d"},
                 {"\\u00e9\\ud7ff\\ue000", "\xC3\xA9\xED\x9F\xBF\xEE\x80\x80"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[200];
        mq_fault fault;
        snprintf(body, sizeof body, "\xEF\xBB\xBF{\"a\":\"%s\",\"b\":1}", cases[i].text);
        json_t *read = mq__body_parse(body, strlen(body), 64, &fault);
        if (!read) fail_msg("%s: %s", body, fault.message);
        assert_string_equal(json_string_value(json_object_get(read, "a")), cases[i].expected);
        assert_int_equal(json_integer_value(json_object_get(read, "b")), 1);
        json_decref(read);
    }
    static const char *const broken[] = {"{\"a\":\"\\ud83\"}", "{\"a\":\"\\ud83d", "{\"a\":\\ud83d}", "\xEF\xBB{}",
                                         "\\"};
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        mq_fault fault;
        assert_null(mq__body_parse(broken[i], strlen(broken[i]), 64, &fault));
        assert_int_equal(fault.status, 400);
    }
}

static void test_values_bound(void **state)
{
    const size_t count = ((size_t)1 << 20) + 10;
    char *text = malloc(2 * count + 20);
    mq_fault fault;
    (void)state;
    assert_non_null(text);
    size_t n = (size_t)sprintf(text, "{\"x\":[1");
    for (size_t i = 0; i < count; i++) {
        text[n++] = ',';
        text[n++] = '1';
    }
    memcpy(text + n, "]}", 2);
    assert_null(mq__body_parse(text, n + 2, 64, &fault));
    assert_int_equal(fault.status, 400);
    free(text);
}

/* ---- reasoning */

static int thinking_of(const char *members)
{
    mq_ask ask;
    must_read(members, &ask);
    const int thinking = ask.thinking;
    mq__ask_clear(&ask);
    return thinking;
}

static void test_reasoning(void **state)
{
    mq_ask ask;
    (void)state;
    assert_int_equal(thinking_of("\"reasoning_effort\":\"none\""), 0);
    assert_int_equal(thinking_of("\"reasoning_effort\":\"high\""), 1);
    assert_int_equal(thinking_of("\"reasoning_effort\":\"minimal\""), -1);
    assert_int_equal(thinking_of("\"reasoning_effort\":null"), -1);
    assert_int_equal(thinking_of("\"reasoning\":{\"effort\":\"none\"}"), 0);
    assert_int_equal(thinking_of("\"reasoning\":{\"enabled\":false}"), 0);
    assert_int_equal(thinking_of("\"reasoning\":{\"enabled\":true}"), 1);
    assert_int_equal(thinking_of("\"thinking\":{\"type\":\"disabled\"}"), 0);
    assert_int_equal(thinking_of("\"thinking\":{\"type\":\"enabled\"}"), 1);
    assert_int_equal(thinking_of("\"enable_thinking\":false"), 0);
    assert_int_equal(thinking_of("\"chat_template_kwargs\":{\"enable_thinking\":false}"), 0);
    must_read("\"reasoning_effort\":\"low\",\"reasoning_format\":\"none\",\"include_reasoning\":false", &ask);
    assert_string_equal(text_at_path(ask.template_kwargs, "reasoning_effort"), "low");
    assert_true(ask.raw_reasoning && ask.hide_reasoning);
    mq__ask_clear(&ask);
    must_read("\"chat_template_kwargs\":{\"reasoning_effort\":\"max\",\"a\":1},\"reasoning_effort\":\"low\"", &ask);
    assert_string_equal(text_at_path(ask.template_kwargs, "reasoning_effort"), "max"); /* the kwargs are closer */
    assert_int_equal(integer_at_path(ask.template_kwargs, "a"), 1);
    mq__ask_clear(&ask);
    refuses("\"reasoning_effort\":5", "reasoning_effort");
    refuses("\"enable_thinking\":\"yes\"", "enable_thinking");
    refuses("\"reasoning\":{\"enabled\":1}", "enabled");
}

/* ---- tools */

#define TOOL(name) "{\"type\":\"function\",\"function\":{\"name\":\"" name "\",\"parameters\":{\"type\":\"object\"}}}"
#define TOOLS      "\"tools\":[" TOOL("a") "," TOOL("b") "," TOOL("c") "]"

static void test_tools(void **state)
{
    mq_ask ask;
    (void)state;
    must_read("\"tools\":[{\"function\":{\"strict\":false,\"parameters\":{\"x\":1},\"name\":\"f\",\"description\":"
              "\"d\",\"z\":1}},"
              "{\"type\":\"web_search\"},{\"type\":\"web_search\"},{\"type\":\"custom\",\"custom\":{\"name\":\"c\"}}]",
              &ask);
    char *text = json_dumps(ask.tools, JSON_COMPACT);
    assert_string_equal(text,
                        "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\",\"parameters\":"
                        "{\"x\":1}}}]");
    free(text);
    assert_string_equal(ask.warning, "tool of type web_search; tool of type custom");
    assert_false(ask.strict_tools);
    mq__ask_clear(&ask);
    must_read("\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"strict\":true,\"description\":null}}]",
              &ask);
    assert_true(ask.strict_tools);
    assert_null(at_path(ask.tools, "0.function.description"));
    mq__ask_clear(&ask);
    for (int last = 0; last < 2; last++) { /* one strict tool does not make the others strict, in whatever order */
        must_read(last ? "\"tools\":[" TOOL("a") ",{\"function\":{\"name\":\"f\",\"strict\":true}}]"
                       : "\"tools\":[{\"function\":{\"name\":\"f\",\"strict\":true}}," TOOL("a") "]",
                  &ask);
        assert_false(ask.strict_tools);
        mq__ask_clear(&ask);
    }
    must_read("\"tools\":[{\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"integer\"}}}]", &ask);
    assert_string_equal(text_at_path(ask.tools, "0.function.parameters.type"), "object");
    assert_string_equal(ask.warning, "parameters of type integer");
    mq__ask_clear(&ask);
    must_read("\"tools\":[]", &ask);
    assert_null(ask.tools);
    mq__ask_clear(&ask);
    refuses("\"tools\":{}", "tools");
    refuses("\"tools\":[5]", "tools[0]");
    refuses("\"tools\":[{\"type\":\"function\"}]", "tools[0].function");
    refuses("\"tools\":[" TOOL("a") ",{\"type\":\"function\",\"function\":{}}]", "tools[1].function");
    refuses("\"tools\":[{\"function\":{\"name\":\"\"}}]", "tools[0].function");
    refuses("\"tools\":[{\"function\":{\"name\":\"a\\u0000b\"}}]", "tools[0].function");
    refuses("\"tools\":[{\"function\":{\"name\":\"a\\nb\"}}]", "tools[0].function");
    refuses("\"tools\":[{\"function\":{\"name\":\"a\\u007f\"}}]", "tools[0].function");
    refuses("\"tools\":[{\"function\":{\"name\":\"f\",\"parameters\":[]}}]", "tools[0].function");
    refuses("\"tools\":[{\"function\":{\"name\":\"f\",\"description\":5}}]", "tools[0].function");
}

static void test_tools_bound(void **state)
{
    char text[50000] = "\"tools\":[" TOOL("t");
    (void)state;
    for (int i = 1; i < 512; i++) {
        strcat(text, "," TOOL("t"));
    }
    const size_t n = strlen(text);
    strcpy(text + n, "]");
    accepts(text);
    strcpy(text + n, "," TOOL("t") "]");
    refuses(text, "tools");
}

static void test_choice(void **state)
{
    mq_ask ask;
    (void)state;
    must_read(TOOLS ",\"tool_choice\":\"none\"", &ask);
    assert_int_equal(ask.choice, MQ_CHOICE_NONE);
    mq__ask_clear(&ask);
    must_read(TOOLS ",\"tool_choice\":\"required\"", &ask);
    assert_int_equal(ask.choice, MQ_CHOICE_REQUIRED);
    assert_null(ask.only_tool);
    mq__ask_clear(&ask);
    must_read(TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"b\"}}", &ask);
    assert_int_equal(ask.choice, MQ_CHOICE_REQUIRED);
    assert_string_equal(ask.only_tool, "b");
    assert_int_equal(json_array_size(ask.callable), 1);
    assert_int_equal(json_array_size(ask.tools), 3); /* the prompt still has all */
    mq__ask_clear(&ask);
    must_read(TOOLS ",\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\":\"required\",\"tools\":"
                    "[{\"type\":\"function\",\"function\":{\"name\":\"c\"}},{\"type\":\"function\",\"name\":\"a\"}]}}",
              &ask);
    assert_int_equal(ask.choice, MQ_CHOICE_REQUIRED);
    assert_string_equal(text_at_path(ask.callable, "0.function.name"), "c");
    assert_string_equal(text_at_path(ask.callable, "1.function.name"), "a");
    mq__ask_clear(&ask);
    must_read(TOOLS ",\"tool_choice\":{\"type\":\"allowed_tools\",\"mode\":\"auto\",\"tools\":[]}", &ask);
    assert_int_equal(ask.choice, MQ_CHOICE_NONE);
    mq__ask_clear(&ask);
    refuses(TOOLS ",\"tool_choice\":\"sometimes\"", "tool_choice");
    refuses(TOOLS ",\"tool_choice\":5", "tool_choice");
    refuses(TOOLS ",\"tool_choice\":{}", "tool_choice");
    refuses(TOOLS ",\"tool_choice\":{\"type\":\"function\"}", "tool_choice");
    refuses(TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"d\"}}", "tool_choice");
    refuses(TOOLS ",\"tool_choice\":{\"type\":\"allowed_tools\",\"mode\":\"required\",\"tools\":[]}", "tool_choice");
    refuses(TOOLS ",\"tool_choice\":{\"type\":\"allowed_tools\",\"mode\":\"auto\",\"tools\":[{\"name\":\"d\"}]}",
            "tool_choice");
    refuses("\"tool_choice\":\"required\"", "tool_choice");
}

static void test_format(void **state)
{
    mq_ask ask;
    (void)state;
    must_read("\"response_format\":{\"type\":\"text\"}", &ask);
    assert_null(ask.schema);
    mq__ask_clear(&ask);
    must_read("\"response_format\":{\"type\":\"json_object\"}", &ask);
    assert_string_equal(text_at_path(ask.schema, "type"), "object");
    assert_false(ask.strict);
    mq__ask_clear(&ask);
    must_read("\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"schema\":{\"type\":"
              "\"array\"}}}",
              &ask);
    assert_string_equal(text_at_path(ask.schema, "type"), "array");
    assert_false(ask.strict); /* as OpenAI has it */
    mq__ask_clear(&ask);
    must_read("\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":{},\"strict\":true}}", &ask);
    assert_true(ask.strict);
    mq__ask_clear(&ask);
    must_read("\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":{},\"strict\":false}}", &ask);
    assert_true(ask.schema && !ask.strict);
    mq__ask_clear(&ask);
    must_read("\"response_format\":{\"type\":\"json_object\",\"schema\":{\"type\":\"string\"}}", &ask);
    assert_string_equal(text_at_path(ask.schema, "type"), "string");
    mq__ask_clear(&ask);
    must_read("\"json_schema\":{\"type\":\"number\"}", &ask);
    assert_string_equal(text_at_path(ask.schema, "type"), "number");
    mq__ask_clear(&ask);
    refuses("\"response_format\":\"json\"", "response_format");
    refuses("\"response_format\":{\"type\":\"xml\"}", "response_format");
    refuses("\"response_format\":{\"type\":\"json_schema\"}", "response_format");
    refuses("\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":5}}", "response_format");
    refuses("\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":{},\"strict\":1}}",
            "response_format");
}

/* ---- short of memory */

static void test_memory(void **state)
{
    static const char body[] = "{\"messages\":[" SYS("a") "," SYS("b") "," USER("u") "," ASSIST("a") "," SYS(
        "x") ",{\"role\":\"user\",\"content\":[{\"type\":"
             "\"text\",\"text\":\"t\"}]},{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"1\",\"function\":{\"name\":"
             "\"f\"}}]},"
             "{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"r\"}]," TOOLS
             ",\"tool_choice\":{\"type\":\"function\",\"function\":"
             "{\"name\":\"b\"}},\"stop\":[\"s\",\"t\"],\"logit_bias\":{\"1\":2},\"response_format\":{\"type\":\"json_"
             "object\"},"
             "\"reasoning_effort\":\"low\",\"chat_template_kwargs\":{\"x\":1}}";
    (void)state;
    unsigned long n = 0;
    for (bool failed = true; failed; n++) {
        mq_ask ask;
        mq_fault fault = {0};
        mq__ask_defaults(server, &ask);
        const unsigned long before = mq__json_failures();
        mq__alloc_fail_at(n + 1);
        json_t *parsed = mq__body_parse(body, sizeof body - 1, 64, &fault);
        const bool read = parsed && mq__chat_api.read(server, NULL, parsed, &ask, &fault);
        failed = mq__alloc_fail_at(0) > n;
        /* Refused, or the counter tells that something is missing. */
        if (failed && read) assert_true(mq__json_failures() > before);
        if (failed && !read) assert_true(fault.status == 503 || (fault.status == 400 && mq__json_failures() > before));
        if (!failed) assert_true(read);
        json_decref(parsed);
        mq__ask_clear(&ask);
    }
    assert_true(n > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_other_fields),
        cmocka_unit_test(test_stops),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_values_bound),
        cmocka_unit_test(test_reasoning),
        cmocka_unit_test(test_tools),
        cmocka_unit_test(test_tools_bound),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_format),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_halves_of_characters),
    };
    return cmocka_run_group_tests(tests, open_server, close_server);
}
