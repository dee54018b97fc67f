/* Text and reasoning of an answer, calls written as JSON (Hermes, Llama 3, Mistral), and what is no call. */
#include "base/mem.h"
#include "unit_answer.h"

static void hermes(const char *text, const char *expected)
{
    const mq_answer_options options = unit_answer_options(MQ_TOOLS_HERMES);
    unit_expect_parts(&options, text, expected);
}

/* ---------------------------------------------------------------- text and reasoning */

static void test_text(void **state)
{
    (void)state;
    hermes("", "");
    hermes("Hello", "T(Hello)");
    hermes("\n\n  Hello\n\nyou \n", "T(\n\n  Hello\n\nyou \n)");
    hermes(" \n", "T( \n)");
    hermes("a < b <tool <tool_cal </tool_call> </think> <thin", "T(a < b <tool <tool_cal </tool_call> </think> <thin)");
    hermes("<<tool_call", "T(<<tool_call)");
    hermes("x <think> y </think> z", "T(x <think> y </think> z)"); /* text came before */
    hermes("h\xC3\xA4 \xE2\x82\xAC", "T(h\xC3\xA4 \xE2\x82\xAC)");
}

static void test_reasoning(void **state)
{
    (void)state;
    hermes("<think>\nfirst\n\nsecond\n</think>\n\nanswer", "R(first\n\nsecond)T(answer)");
    hermes("\n <think>\r\n\nx</think>y\n", "R(x)T(y\n)");
    hermes("<think>\n\n</think>\n\n", "");
    hermes("<think></think> answer", "T( answer)");
    hermes("<think> x </thin </think>\ny", "R( x </thin )T(y)");
    hermes("<think>a</think>\n<think>b</think>\nc <think>", "R(ab)T(c <think>)");
    hermes("<think>never ends\n", "R(never ends\n)");
    hermes("<think>cut </thi", "R(cut </thi)");
    hermes("<think>calls <tool_call>{\"name\":\"f\"}</tool_call></think>",
           "R(calls <tool_call>{\"name\":\"f\"}</tool_call>)");
    hermes("<think>x</think>\n \n<tool_call>{\"name\":\"f\"}</tool_call>\n<think>y</think>z",
           "R(x)C0(f)A({})ER(y)T(z)");
}

static void test_in_reasoning(void **state)
{
    (void)state;
    mq_answer_options options = unit_answer_options(MQ_TOOLS_HERMES);
    options.in_reasoning = true;
    unit_expect_parts(&options, "\nwhy\n</think>\n\nso", "R(why)T(so)");
    unit_expect_parts(&options, "<think>\nwhy</think>so", "R(why)T(so)");
    unit_expect_parts(&options, "x<think>\nwhy</think>so", "R(x<think>\nwhy)T(so)");
    unit_expect_parts(&options, "no end", "R(no end)");
    unit_expect_parts(&options, "</think>", "");
    options.style.unthink[0] = options.style.think[0] = '\0'; /* the model does not reason */
    unit_expect_parts(&options, "</think>x", "T(</think>x)");
}

static void test_reasoning_stays(void **state)
{
    (void)state;
    static const char text[] = "\n<think>\n<tool_call>{\"name\":\"f\"}</tool_call>\n</think>\n\ntext\n";
    static const char call[] = "<think>x</think>\n<tool_call>{\"name\":\"f\"}</tool_call>";
    mq_answer_options options = unit_answer_options(MQ_TOOLS_HERMES);
    options.split_reasoning = false;
    unit_expect_parts(&options, text, "T(\n<think>\n<tool_call>{\"name\":\"f\"}</tool_call>\n</think>\n\ntext\n)");
    unit_expect_parts(&options, call, "T(<think>x</think>)C0(f)A({})E");
    options.in_reasoning = true;
    unit_expect_parts(&options, "\n<think>x\n</think>\n\n", "T(\n<think>x\n</think>\n\n)");
    unit_expect_parts(&options, "x\n</th", "T(x\n</th)");
}

static void test_no_tools(void **state)
{
    (void)state;
    mq_answer_options options = unit_answer_options(MQ_TOOLS_NONE);
    static const char call[] = "\n<tool_call>{\"name\":\"f\"}</tool_call>\n";
    unit_expect_parts(&options, call, "T(\n<tool_call>{\"name\":\"f\"}</tool_call>\n)");
    unit_expect_parts(&options, "<think>a</think>\n b\n\nc", "R(a)T( b\n\nc)");
    options.split_reasoning = false;
    unit_expect_parts(&options, "<think>a</think>\n b", "T(<think>a</think>\n b)");
}

/* ---------------------------------------------------------------- calls */

static void test_hermes(void **state)
{
    (void)state;
    hermes("<tool_call>\n{\"name\": \"f\", \"arguments\": {\"s\": \"x\", \"i\": [1, {\"a\": null}]}}\n</tool_call>",
           "C0(f)A({\"s\": \"x\", \"i\": [1, {\"a\": null}]})E");
    hermes("I look.\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n", "T(I look.)C0(f)A({})E");
    hermes("I look.\n\n\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>", "T(I look.\n\n)C0(f)A({})E");
    hermes("<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\nDone.\n", "C0(f)A({})ET(\nDone.\n)");
    hermes("<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n<tool_call>\n{\"name\":\"g-2.x\",\"arguments\":"
           "{\"a\":1}}\n</tool_call>\nand\n<tool_call>{\"name\":\"f\"}</tool_call>",
           "C0(f)A({})EC1(g-2.x)A({\"a\":1})ET(\nand)C2(f)A({})E");
    hermes("<tool_call>{\"name\":\"f\",\"arguments\":{\"s\":\"</tool_call><tool_call>\\\"}}\\u00e4\"}}</tool_call>",
           "C0(f)A({\"s\":\"</tool_call><tool_call>\\\"}}\\u00e4\"})E");
    hermes(" <tool_call> { \"arguments\" : { \"a\" : 1 } , \"name\" : \"f\" } </tool_call> ", "C0(f)A({ \"a\" : 1 })E");
    hermes("<tool_call>{\"id\":7,\"x\":[{}],\"name\":\"f\",\"more\":-1.5e3,\"parameters\":{\"a\":1},\"y\":true}</"
           "tool_call>",
           "C0(f)A({\"a\":1})E");
    hermes("<tool_call>{\"name\":\"\\u0066\",\"arguments\":{\"a\":1,\"a\":2}}</tool_call>",
           "C0(f)A({\"a\":1,\"a\":2})E"); /* duplicate keys are the client's to judge */
    hermes("<tool_call>{\"name\":\"f\",\"arguments\":{},\"name\":\"g-2.x\",\"arguments\":{\"a\":1}}</tool_call>",
           "C0(f)A({})E");
}

static void test_missing_arguments(void **state)
{
    (void)state;
    hermes("<tool_call>{\"name\":\"f\"}</tool_call>", "C0(f)A({})E");
    hermes("<tool_call>{\"name\":\"f\",\"arguments\":null}</tool_call>", "C0(f)A({})E");
    hermes("<tool_call>{\"arguments\":null,\"name\":\"f\"}</tool_call>", "C0(f)A({})E");
    hermes("<tool_call>{\"name\":\"f\",\"arguments\":\" \"}</tool_call>", "C0(f)A({})E");
}

/* The text in a string is handed out as it is spelled there. */
static void test_arguments_as_text(void **state)
{
    (void)state;
    hermes("<tool_call>{\"name\":\"f\",\"arguments\":\" {\\\"s\\\": \\\"a\\\\nb \\u20ac\\\"}\\n\"}</tool_call>",
           "C0(f)A({\"s\": \"a\\nb \xE2\x82\xAC\"})E");
    hermes("<tool_call>{\"arguments\":\"{}\",\"name\":\"f\"}</tool_call>", "C0(f)A({})E");
    hermes("<tool_call>{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1} 2\"}</tool_call>",
           "C0(f)A({\"a\":1})T(2\"}</tool_call>)");
    hermes("<tool_call>{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1\"}</tool_call>",
           "C0(f)A({\"a\":1)T(\"}</tool_call>)");
    hermes("<tool_call>{\"name\":\"f\",\"arguments\":\"[1]\"}</tool_call>", "C0(f)T([1]\"}</tool_call>)");
}

static void test_missing_close(void **state)
{
    (void)state;
    hermes("<tool_call>\n{\"name\":\"f\",\"arguments\":{\"a\":1}}", "C0(f)A({\"a\":1})E");
    hermes("<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":1}}</tool_", "C0(f)A({\"a\":1})ET(</tool_)");
    hermes("<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":1}\n</tool_call>", "C0(f)A({\"a\":1})E");
    hermes("<tool_call>{\"name\":\"f\",\"arguments\":{}}\n<tool_call>{\"name\":\"f\",\"arguments\":{}}\n",
           "C0(f)A({})EC1(f)A({})E");
}

/* What no call comes of is text, byte for byte. */
static void test_no_call(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "<tool_call>",
        "a\n<tool_call>\n\n",
        "<tool_call>nothing</tool_call>",
        "<tool_call>{\"name\":\"other\",\"arguments\":{\"a\":1}}</tool_call>\n",
        "<tool_call>{\"name\":\"\",\"arguments\":{}}</tool_call>",
        "<tool_call>{\"name\":7}</tool_call>",
        "<tool_call>{\"arguments\":{\"a\":1}}</tool_call>",
        "<tool_call>{\"arguments\":{\"a\":1},\"name\":\"ff\"}</tool_call>",
        "<tool_call>{\"arguments\":[1],\"name\":\"f\"}</tool_call>",
        "<tool_call>{\"arguments\":{\"a\":tru},\"name\":\"f\"}</tool_call>",
        "<tool_call>{\"arguments\":{\"a\":01},\"name\":\"f\"}</tool_call>",
        "<tool_call>{\"name\" \"f\"}",
        "<tool_call>{'name': 'f'}",
        "<tool_call>[{\"name\":\"f\"}]",
        "<tool_call>{,\"name\":\"f\"}",
        "<tool_call>{\"x\":1,}",
        "<tool_call>{\"name\":\"f",
        "<tool_call>{\"x\":\"\n\",\"name\":\"f\"}",
        "<tool_call>{\"x\":\"\\x\",\"name\":\"f\"}",
        "<tool_call>{\"x\":\"\\ud800\",\"name\":\"f\"}",
        "<tool_call>{\"x\":\"\\udc00\",\"name\":\"f\"}",
        "<tool_call>{\"x\":\"\\ud800\\u0041\",\"name\":\"f\"}",
        "<tool_call>{\"x\":\"\xFF\",\"name\":\"f\"}",
        "<tool_call>{\"x\":\"\xC3\",\"name\":\"f\"}",
        "<tool_call>{\"x\":\"\xED\xA0\x80\",\"name\":\"f\"}",
        "<tool_call>{\"x\":-,\"name\":\"f\"}",
        "<tool_call>{\"x\":1.,\"name\":\"f\"}",
        "<tool_call>{\"x\":1e,\"name\":\"f\"}",
        "<tool_call>{\"x\":[1},\"name\":\"f\"}",
        "<tool_call>{\"x\":[1,],\"name\":\"f\"}",
        "<tool_call>{\"x\":{\"a\"},\"name\":\"f\"}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        char expected[256];
        snprintf(expected, sizeof expected, "T(%s)", texts[i]);
        hermes(texts[i], expected);
    }
    /* and what follows is looked at again */
    hermes("<tool_call><tool_call>{\"name\":\"f\"}</tool_call>", "T(<tool_call>)C0(f)A({})E");
    hermes("<tool_call>{\"name\":\"x\"}</tool_call><tool_call>{\"name\":\"f\"}</tool_call>",
           "T(<tool_call>{\"name\":\"x\"}</tool_call>)C0(f)A({})E");
}

/* Whatever JSON allows passes. */
static void test_valid_json(void **state)
{
    (void)state;
    static const char *const values[] = {
        "0",
        "-0",
        "-0.5E+10",
        "1e-7",
        "123456789012345678901234567890",
        "true",
        "false",
        "null",
        "\"\"",
        "[]",
        "{}",
        "[ ]",
        "{ }",
        "[1 , 2]",
        "{\"\" : [[[{}]]]}",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000\\uD83D\\uDE00\"",
        "\"\xF0\x9F\x98\x80 \xEF\xBF\xBF \x7F\"",
    };
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        char text[256], expected[256];
        snprintf(text, sizeof text, "<tool_call>{\"x\":%s,\"name\":\"f\",\"arguments\":{\"a\":%s}}</tool_call>",
                 values[i], values[i]);
        snprintf(expected, sizeof expected, "C0(f)A({\"a\":%s})E", values[i]);
        hermes(text, expected);
    }
}

/* Arguments that break: what was valid came, the rest is text, and the call does not count. */
static void test_broken_arguments(void **state)
{
    (void)state;
    hermes("<tool_call>{\"name\":\"f\",\"arguments\":{\"a\": tru}}</tool_call>",
           "C0(f)A({\"a\": tru)T(}}</tool_call>)");
    hermes("<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":1</tool_call>\n<tool_call>{\"name\":\"f\"}</tool_call>",
           "C0(f)A({\"a\":1)C1(f)A({})E");
    hermes("<tool_call>{\"name\":\"f\",\"arguments\":7}", "C0(f)T(7})");
    hermes("<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":\"never ends", "C0(f)A({\"a\":\"never ends)");
    hermes("<tool_call>{\"name\":\"f\"", "C0(f)");
    hermes("<tool_call>{\"name\":\"f\",\"arguments\":{}}}</tool_call>", "C0(f)A({})ET(}</tool_call>)");
    hermes("<tool_call>{\"name\":\"f\",\"arguments\":{}, oops}</tool_call>", "C0(f)A({})ET(oops}</tool_call>)");
    unit_parts parts;
    uint32_t complete;
    mq_error error;
    const mq_answer_options options = unit_answer_options(MQ_TOOLS_HERMES);
    static const char text[] = "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":!}}<tool_call>{\"name\":\"f\"}";
    assert_int_equal(unit_take_apart(&options, text, strlen(text), 0, 5, &parts, &complete, &error), MQ_OK);
    assert_int_equal(parts.calls, 2);
    assert_int_equal(complete, 1);
    mq__buf_free(&parts.text);
}

static void test_llama3(void **state)
{
    (void)state;
    mq_answer_options options = unit_answer_options(MQ_TOOLS_LLAMA3);
    options.style.think[0] = options.style.unthink[0] = '\0';
    unit_expect_parts(&options, "{\"name\": \"f\", \"parameters\": {\"a\": 1}}", "C0(f)A({\"a\": 1})E");
    unit_expect_parts(&options, "\n <|python_tag|>{\"name\": \"f\", \"parameters\": {}}", "C0(f)A({})E");
    unit_expect_parts(&options,
                      "{\"type\": \"function\", \"name\": \"f\", \"parameters\": {\"a\": 1}}; {\"name\": \"f\"}\n",
                      "C0(f)A({\"a\": 1})EC1(f)A({})E");
    unit_expect_parts(&options, "{\"name\":\"f\",\"arguments\":{}}\n{\"name\":\"f\"}", "C0(f)A({})EC1(f)A({})E");
    unit_expect_parts(&options, "See: {\"name\": \"f\", \"parameters\": {}}",
                      "T(See: {\"name\": \"f\", \"parameters\": {}})");
    unit_expect_parts(&options, "See: <|python_tag|>{\"name\": \"f\"}", "T(See: )C0(f)A({})E");
    unit_expect_parts(&options, "<|python_tag|>f.call(x=\"1\")", "T(<|python_tag|>f.call(x=\"1\"))");
    unit_expect_parts(&options, "{\"name\": \"Alice\", \"age\": 3}", "T({\"name\": \"Alice\", \"age\": 3})");
    unit_expect_parts(&options, "{\"a\": {\"name\": \"f\"}} and {", "T({\"a\": {\"name\": \"f\"}} and {)");
    unit_expect_parts(&options, "{{\"name\": \"f\"}", "T({{\"name\": \"f\"})");
}

static void test_mistral_lists(void **state)
{
    (void)state;
    mq_answer_options options = unit_answer_options(MQ_TOOLS_MISTRAL);
    unit_expect_parts(&options, "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": [1]}, \"id\": \"abcdefghi\"}]",
                      "C0(f)A({\"a\": [1]})E");
    unit_expect_parts(
        &options, "ok[TOOL_CALLS] [ {\"name\":\"f\",\"arguments\":{}} , {\"arguments\":{\"b\":2},\"name\":\"f\"} ] x",
        "T(ok)C0(f)A({})EC1(f)A({\"b\":2})ET( x)");
    unit_expect_parts(&options, "[TOOL_CALLS]{\"name\":\"f\",\"arguments\":{}}", "C0(f)A({})E");
    unit_expect_parts(&options, "[TOOL_CALLS][{\"name\":\"f\"}, {\"name\":\"x\"}]",
                      "C0(f)A({})ET(, {\"name\":\"x\"}])");
    unit_expect_parts(&options, "[TOOL_CALLS][{\"name\":\"f\"} 7]", "C0(f)A({})ET( 7])");
    unit_expect_parts(&options, "[TOOL_CALLS][{\"name\":\"f\"}\n", "C0(f)A({})E");
    unit_expect_parts(&options, "[TOOL_CALLS][]", "T([TOOL_CALLS][])");
    unit_expect_parts(&options, "[TOOL_CALLS", "T([TOOL_CALLS)");
}

static void test_mistral_names(void **state)
{
    (void)state;
    mq_answer_options options = unit_answer_options(MQ_TOOLS_MISTRAL);
    unit_expect_parts(&options, "[TOOL_CALLS]f[ARGS]{\"a\": \"[TOOL_CALLS]\"}", "C0(f)A({\"a\": \"[TOOL_CALLS]\"})E");
    unit_expect_parts(&options, "[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS] {}[TOOL_CALLS]g-2.x[ARGS]{\"a\":1}\n",
                      "C0(f)A({})EC1(g-2.x)A({\"a\":1})E");
    unit_expect_parts(&options, "[TOOL_CALLS] f {\"a\":1}", "C0(f)A({\"a\":1})E");
    unit_expect_parts(&options, "[TOOL_CALLS]f[ARGS][1]", "C0(f)T([1])");
    unit_expect_parts(&options, "[TOOL_CALLS]f[ARG]{}", "T([TOOL_CALLS]f[ARG]{})");
    unit_expect_parts(&options, "[TOOL_CALLS]x[ARGS]{}", "T([TOOL_CALLS]x[ARGS]{})");
    unit_expect_parts(&options, "[TOOL_CALLS]f f[ARGS]{}", "T([TOOL_CALLS]f f[ARGS]{})");
    unit_expect_parts(&options, "[TOOL_CALLS]f[CALL_ID][CALL_ID]1[ARGS]{\"a\"", "C0(f)A({\"a\")");
    unit_expect_parts(&options, "[TOOL_CALLS]f[CALL_ID]a b", "C0(f)T( b)");
}

/* ---------------------------------------------------------------- the rest of the interface */

static void test_any_name(void **state)
{
    (void)state;
    mq_answer_options options = unit_answer_options(MQ_TOOLS_HERMES);
    options.tools = NULL;
    options.tools_bytes = 0;
    unit_expect_parts(&options, "<tool_call>{\"name\":\"whatever\"}</tool_call>", "C0(whatever)A({})E");
    unit_expect_parts(&options, "<tool_call>{\"name\":\"a\\u0000b\"}", "T(<tool_call>{\"name\":\"a\\u0000b\"})");
    char text[400], expected[400];
    snprintf(text, sizeof text, "<tool_call>{\"name\":\"%0256d\"}", 7);
    snprintf(expected, sizeof expected, "C0(%0256d)A({})E", 7);
    unit_expect_parts(&options, text, expected);
    snprintf(text, sizeof text, "<tool_call>{\"name\":\"%0257d\"}", 7);
    snprintf(expected, sizeof expected, "T(%s)", text);
    unit_expect_parts(&options, text, expected);
    options.tools = "[]";
    options.tools_bytes = 2;
    unit_expect_parts(&options, "<tool_call>{\"name\":\"f\"}", "T(<tool_call>{\"name\":\"f\"})");
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const tools[] = {"{}", "[", "[{\"a\":1,\"a\":2}]", ""};
    mq_answer_options options = unit_answer_options(MQ_TOOLS_HERMES);
    mq_answer *answer;
    mq_error error = {0};
    for (size_t i = 0; i < sizeof tools / sizeof tools[0]; i++) {
        options.tools = tools[i];
        options.tools_bytes = strlen(tools[i]);
        unit_refused(mq_answer_new(&options, &answer, &error), MQ_FORMAT, &error, "tools");
        assert_null(answer);
    }
    options.tools = NULL;
    options.part = NULL;
    assert_int_equal(mq_answer_new(&options, &answer, &error), MQ_OK);
    assert_int_equal(mq_answer_push(answer, "x", 1, &error), MQ_OK);
    assert_int_equal(mq_answer_end(answer, &error), MQ_OK);
    assert_int_equal(mq_answer_end(answer, &error), MQ_OK);
    unit_refused(mq_answer_push(answer, "x", 1, &error), MQ_USAGE, &error, "end");
    mq_answer_free(answer);
    mq_answer_free(NULL);
}

/* Deep nesting is refused, not followed. */
static void test_depth(void **state)
{
    (void)state;
    const mq_answer_options options = unit_answer_options(MQ_TOOLS_HERMES);
    for (size_t depth = 511; depth <= 512; depth++) {
        mq_buf text = {0};
        unit_parts parts;
        uint32_t complete;
        mq_error error;
        mq__buf_puts(&text, "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":");
        for (size_t i = 0; i < depth; i++)
            mq__buf_putc(&text, '[');
        for (size_t i = 0; i < depth; i++)
            mq__buf_putc(&text, ']');
        mq__buf_puts(&text, "}}</tool_call>");
        assert_int_equal(unit_take_apart(&options, text.data, text.len, 0, 64, &parts, &complete, &error), MQ_OK);
        assert_int_equal(complete, depth == 511);
        mq__buf_free(&parts.text);
        mq__buf_free(&text);
    }
}

/* Texts that would take hours if anything were looked at again from its beginning: they are megabytes. */
static void test_linear_time(void **state)
{
    (void)state;
    static const struct {
        mq_tool_format format;
        const char *begin, *again;
    } texts[] = {
        {MQ_TOOLS_HERMES, "", "\n"},
        {MQ_TOOLS_HERMES, "<think>", "\n"},
        {MQ_TOOLS_HERMES, "", "<tool_call>"},
        {MQ_TOOLS_HERMES, "<tool_call>", " "},
        {
            MQ_TOOLS_HERMES,
            "<tool_call>{\"x\":[",
            "\"<tool_call>{\",",
        },
        {MQ_TOOLS_HERMES, "", "<tool_call>{\"x\":\"\","},
        {MQ_TOOLS_HERMES, "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":\"", "a"},
        {MQ_TOOLS_HERMES, "", "<tool_call>{\"name\":\"f\"}"},
        {MQ_TOOLS_QWEN3_CODER, "<function=f><parameter=s>", "</parameter>"},
        {MQ_TOOLS_QWEN3_CODER, "<function=f><parameter=s>", "\n</parameter>\n"},
        {MQ_TOOLS_QWEN3_CODER, "<function=f><parameter=s></parameter>", " "},
        {MQ_TOOLS_QWEN3_CODER, "<function=f><parameter=s></parameter>", "\n"},
        {MQ_TOOLS_QWEN3_CODER, "<function=f><parameter=o>", "</parameter>   </para"},
        {MQ_TOOLS_QWEN3_CODER, "<function=f>", "<parameter=i>7</parameter>"},
        {MQ_TOOLS_GEMMA4, "<|tool_call>call:f{s:<|\"|>", "<|\"|<|"},
        {MQ_TOOLS_GEMMA4, "<|tool_call>call:f{", "i:7,"},
        {MQ_TOOLS_GEMMA4, "<|tool_call>call:f{s:", "x"},
        {MQ_TOOLS_MISTRAL, "[TOOL_CALLS][", "{\"name\":\"f\"},"},
        {MQ_TOOLS_LLAMA3, "", "{\"name\":\"f\"};"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const mq_answer_options options = unit_answer_options(texts[i].format);
        mq_buf text = {0};
        unit_parts parts;
        mq_error error;
        mq__buf_puts(&text, texts[i].begin);
        while (text.len < (size_t)1 << 20)
            mq__buf_puts(&text, texts[i].again);
        assert_int_equal(unit_take_apart(&options, text.data, text.len, 0, 1000, &parts, NULL, &error), MQ_OK);
        mq__buf_free(&parts.text);
        mq__buf_free(&text);
    }
}

/* Whichever allocation fails: no memory, or the same parts. */
static void test_answer_short_memory(void **state)
{
    (void)state;
    static const struct {
        mq_tool_format format;
        const char *text;
    } answers[] = {
        {MQ_TOOLS_HERMES,
         "<think>\nx\n\n\ny</think>\n\nz\n<tool_call>{\"arguments\":{\"a\":\"b\"},\"name\":\"f\"}</tool_call>"},
        {MQ_TOOLS_LLAMA3, "{\"name\":\"f\",\"parameters\":\"{}\"};{\"name\":\"x\"}"},
        {MQ_TOOLS_MISTRAL, "a\n[TOOL_CALLS]f[CALL_ID]i[ARGS]{\"a\":1}[TOOL_CALLS][{\"name\":\"f\"}, 7]"},
        {MQ_TOOLS_QWEN3_CODER,
         "<function=f>\n<parameter=s>\nx\n</parameter>\n<parameter=o>{}</parameter>\n</function>\n</tool_call>"},
        {MQ_TOOLS_GEMMA4,
         "<|channel>thought\nx<channel|><|tool_call>call:f{s:<|\"|>x<|\"|>,o:{<|\"|>k<|\"|>:1}}<tool_call|>"},
    };
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        const mq_answer_options options = unit_answer_options(answers[i].format);
        mq_buf padded = {0}; /* longer than what is reserved */
        mq__buf_printf(&padded, "%s%3000s%s", answers[i].text, "", answers[i].text);
        char *whole = NULL;
        for (unsigned long n = 0;; n++) { /* 0: none fails */
            mq_error error = {0};
            unit_parts parts = {.last = -1};
            mq_answer_options o = options;
            mq_answer *answer = NULL;
            o.part = unit_take_part;
            o.context = &parts;
            mq__buf_reserve(&parts.text, 65536);
            (void)mq__alloc_fail_at(n);
            mq_status status = mq_answer_new(&o, &answer, &error);
            if (status == MQ_OK) status = mq_answer_push(answer, padded.data, padded.len, &error);
            if (status == MQ_OK) status = mq_answer_end(answer, &error);
            const unsigned long made = mq__alloc_fail_at(0);
            if (status != MQ_OK && answer) assert_int_equal(mq_answer_push(answer, "x", 1, &error), MQ_NO_MEMORY);
            mq_answer_free(answer);
            if (status != MQ_OK) unit_refused(status, MQ_NO_MEMORY, &error, NULL);
            if (status == MQ_OK && whole) assert_string_equal(parts.text.data, whole);
            if (!whole && status == MQ_OK) whole = mq__strdup(parts.text.data);
            mq__buf_free(&parts.text);
            if (n == 0 || made >= n) continue;
            assert_in_range(n, 20, 100000);
            break;
        }
        mq__free(whole);
        mq__buf_free(&padded);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_reasoning),
        cmocka_unit_test(test_in_reasoning),
        cmocka_unit_test(test_reasoning_stays),
        cmocka_unit_test(test_no_tools),
        cmocka_unit_test(test_hermes),
        cmocka_unit_test(test_missing_arguments),
        cmocka_unit_test(test_arguments_as_text),
        cmocka_unit_test(test_missing_close),
        cmocka_unit_test(test_no_call),
        cmocka_unit_test(test_valid_json),
        cmocka_unit_test(test_broken_arguments),
        cmocka_unit_test(test_llama3),
        cmocka_unit_test(test_mistral_lists),
        cmocka_unit_test(test_mistral_names),
        cmocka_unit_test(test_any_name),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_linear_time),
        cmocka_unit_test(test_answer_short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
