/* Calls that are not written as JSON: Qwen3-Coder and Gemma 4. Their text becomes JSON by the tool's schema. */
#include "unit_answer.h"

static void coder(const char *text, const char *expected)
{
    const mq_answer_options options = unit_answer_options(MQ_TOOLS_QWEN3_CODER);
    unit_expect_parts(&options, text, expected);
}

static void gemma(const char *text, const char *expected)
{
    const mq_answer_options options = unit_answer_options(MQ_TOOLS_GEMMA4);
    unit_expect_parts(&options, text, expected);
}

/* One parameter of the tool f, as Qwen3-Coder's template writes it. */
static void coder_value(const char *key, const char *value, const char *json)
{
    char text[512], expected[512];
    snprintf(text, sizeof text,
             "<tool_call>\n<function=f>\n<parameter=%s>\n%s\n</parameter>\n</function>\n</tool_call>", key, value);
    snprintf(expected, sizeof expected, "C0(f)A({\"%s\":%s})E", key, json);
    coder(text, expected);
}

static void gemma_value(const char *key, const char *value, const char *json)
{
    char text[512], expected[512];
    snprintf(text, sizeof text, "<|tool_call>call:f{%s:%s}<tool_call|>", key, value);
    snprintf(expected, sizeof expected, "C0(f)A({\"%s\":%s})E", key, json);
    gemma(text, expected);
}

/* ---------------------------------------------------------------- Qwen3-Coder */

static void test_coder(void **state)
{
    (void)state;
    coder("I look.\n\n<tool_call>\n<function=f>\n<parameter=s>\nx\n</parameter>\n<parameter=i>\n7\n</parameter>\n"
          "</function>\n</tool_call>\n",
          "T(I look.\n)C0(f)A({\"s\":\"x\",\"i\":7})E");
    coder("<tool_call>\n<function=f>\n</function>\n</tool_call>\n<tool_call><function=g-2.x></function></tool_call>x",
          "C0(f)A({})EC1(g-2.x)A({})ET(x)");
    coder("<think>\nwhy\n</think>\n\n<function=f><parameter=i>7</parameter></function>",
          "R(why)C0(f)A({\"i\":7})E");                                                         /* without <tool_call> */
    coder("<function=f>\n<parameter=s>a</parameter>\n</tool_call>", "C0(f)A({\"s\":\"a\"})E"); /* or </function> */
    coder("<function=f>\n<parameter=s>a</parameter>\n<parameter=s>b</parameter></function>",
          "C0(f)A({\"s\":\"a\",\"s\":\"b\"})E");
    coder("<function=f>\n<parameter=a\"b>1</parameter></function>", "C0(f)A({\"a\\\"b\":1})E");
}

static void test_coder_strings(void **state)
{
    (void)state;
    coder_value("s", "", "\"\"");
    coder_value("s", "\n", "\"\\n\"");
    coder_value("s", " x ", "\" x \"");
    coder_value("s", "\n\nx\n\n", "\"\\n\\nx\\n\\n\"");
    coder_value("s", "5", "\"5\"");
    coder_value("s", "true", "\"true\"");
    coder_value("s", "{\"a\": [1]}", "\"{\\\"a\\\": [1]}\"");
    coder_value("s", "\\ \" \t \r \b \f \x1F \x7F \xC3\xA4 \xF0\x9F\x98\x80",
                "\"\\\\ \\\" \\t \\r \\b \\f \\u001f \x7F \xC3\xA4 \xF0\x9F\x98\x80\"");
    coder_value("s", "if a < b:\n    <b>x</b>\n</para", "\"if a < b:\\n    <b>x</b>\\n</para\"");
    coder_value("s", "</parameter>", "\"</parameter>\""); /* no tag follows: it is text */
    coder_value("s", "a\n</parameter>\n\n</parameter> <x>\n</parameter>\n</tool",
                "\"a\\n</parameter>\\n\\n</parameter> <x>\\n</parameter>\\n</tool\"");
    coder_value("s", "<parameter=i>\n<tool_call></function>", "\"<parameter=i>\\n<tool_call></function>\"");
    coder("<function=f><parameter=s></parameter></function>", "C0(f)A({\"s\":\"\"})E");
    coder("<function=f><parameter=s>\n</parameter></function>", "C0(f)A({\"s\":\"\"})E");
}

static void test_coder_types(void **state)
{
    (void)state;
    coder_value("i", "-12", "-12");
    coder_value("i", "abc", "\"abc\"");
    coder_value("i", "", "\"\"");
    coder_value("n", "1e-05", "1e-05");
    coder_value("n", " 1.50 ", "1.50");
    coder_value("n", "nan", "\"nan\"");
    coder_value("b", "true", "true");
    coder_value("b", "False", "false"); /* templates print Python's */
    coder_value("z", "None", "null");
    coder_value("o", "{\"a\": [1, \"</parameter>\"]}", "{\"a\": [1, \"</parameter>\"]}");
    coder_value("o", "{'a': 1}", "\"{'a': 1}\"");
    coder_value("o", "{\"a\": 1", "\"{\\\"a\\\": 1\"");
    coder_value("l", "[1,\n2]", "[1,\n2]");
    coder_value("l", "\"x\"", "\"x\"");
}

/* Where a string is one of several types only what no string was meant by is another one. */
static void test_coder_unions(void **state)
{
    (void)state;
    coder_value("sn", "null", "null");
    coder_value("sn", "5", "\"5\"");
    coder_value("sn", "x", "\"x\"");
    coder_value("any", "5", "5");
    coder_value("any", "5.5", "\"5.5\"");
    coder_value("any", "true", "\"true\"");
    coder_value("any", "\"x\"", "\"\\\"x\\\"\"");
    coder_value("untyped", "[1]", "[1]");
    coder_value("untyped", "x y", "\"x y\"");
    coder_value("unknown", "7", "7");
}

static void coder_schema(const char *schema, const char *value, const char *json)
{
    char tools[1024], text[256], expected[256];
    mq_answer_options options = unit_answer_options(MQ_TOOLS_QWEN3_CODER);
    snprintf(tools, sizeof tools,
             "[{\"name\":\"h\",\"parameters\":{\"properties\":{\"p\":%s},\"definitions\":{\"n\":{\"type\":\"number\"},"
             "\"r\":{\"$ref\":\"#/definitions/r\"}}}}]",
             schema);
    options.tools = tools;
    options.tools_bytes = strlen(tools);
    snprintf(text, sizeof text, "<function=h><parameter=p>%s</parameter></function>", value);
    snprintf(expected, sizeof expected, "C0(h)A({\"p\":%s})E", json);
    unit_expect_parts(&options, text, expected);
}

static void test_coder_schemas(void **state)
{
    (void)state;
    coder_schema("{\"enum\":[\"1\",\"2\"]}", "1", "\"1\"");
    coder_schema("{\"enum\":[1,2]}", "1", "1");
    coder_schema("{\"enum\":[true,null,1.5,{},[]]}", "x", "\"x\"");
    coder_schema("{\"const\":\"7\"}", "7", "\"7\"");
    coder_schema("{\"type\":\"string\",\"nullable\":true}", "null", "null");
    coder_schema("{\"oneOf\":[{\"type\":\"string\"},{\"enum\":[\"1\"]}]}", "1", "\"1\"");
    coder_schema("{\"allOf\":[{\"type\":[\"string\",\"integer\"]},{\"type\":\"string\"}]}", "1", "\"1\"");
    coder_schema("{\"$ref\":\"#/definitions/n\"}", "1", "1");
    coder_schema("{\"$ref\":\"#/definitions/r\"}", "1", "1"); /* to itself */
    coder_schema("{\"$ref\":\"#/definitions/none\"}", "x", "\"x\"");
    coder_schema("{\"$ref\":\"elsewhere\"}", "x", "\"x\"");
    coder_schema("{\"type\":\"text\"}", "1", "1");
    coder_schema("7", "1", "1");
}

static void test_coder_no_call(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "<tool_call>\n",
        "<tool_call>\n<func",
        "<tool_call>\n<function=f",
        "<tool_call>{\"name\":\"f\"}</tool_call>",
        "<tool_call>\n<function=unknown>\n<parameter=s>\nx\n</parameter>\n</function>\n</tool_call>\n",
        "<function=>x",
        "<function=a b>",
        "see </function> and <parameter=s>x</parameter>",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        char expected[256];
        snprintf(expected, sizeof expected, "T(%s)", texts[i]);
        coder(texts[i], expected);
    }
    coder("<tool_call>\n<func<tool_call>\n<function=f></function></tool_call>", "T(<tool_call>\n<func)C0(f)A({})E");
}

static void test_coder_broken(void **state)
{
    (void)state;
    coder("<function=f>oops</function>", "C0(f)A({)T(oops</function>)");
    coder("<function=f><param<tool_call><function=f></function>", "C0(f)A({)T(<param)C1(f)A({})E");
    coder("<function=f><parameter=>x", "C0(f)A({)T(>x)");
    coder("<function=f>\n<parameter=s>\nnever en", "C0(f)A({\"s\":\"never en)");
    coder("<function=f>\n<parameter=i>\n7\n</parameter>\n", "C0(f)A({\"i\":)"); /* no tag follows */
    coder("<function=f><parameter=s>a\xFFz</parameter></function>",
          "C0(f)A({\"s\":\"a)T(\xFFz</parameter></function>)");
    coder("<function=f><parameter=s>a\n\xFFz", "C0(f)A({\"s\":\"a\\n)T(\xFFz)");
    coder("<function=f><parameter=s>a\xC3</parameter></function>z",
          "C0(f)A({\"s\":\"a\xC3)T(</parameter></function>z)");
}

/* ---------------------------------------------------------------- Gemma 4 */

static void test_gemma(void **state)
{
    (void)state;
    gemma("<|channel>thought\nwhy\n<channel|><|tool_call>call:f{i:7,s:<|\"|>x<|\"|>}<tool_call|>",
          "R(why)C0(f)A({\"i\":7,\"s\":\"x\"})E");
    gemma(
        "<|tool_call>call:f{}<tool_call|><|tool_call>call:g-2.x{a:{b:[1,{c:<|\"|>,}]<|\"|>}],d:{}},e:[]}<tool_call|>x",
        "C0(f)A({})EC1(g-2.x)A({\"a\":{\"b\":[1,{\"c\":\",}]\"}],\"d\":{}},\"e\":[]})ET(x)");
    gemma("<|tool_call> call:f{ s : <|\"|>x<|\"|> , i : 7 }", "C0(f)A({\"s\":\"x\",\"i\":7})E");
    gemma("<|tool_call>call:f{<|\"|>a:b<|\"|>:1,<|\"|><|<|\"|> :2}<tool_call|>", "C0(f)A({\"a:b\":1,\"<|\":2})E");
    gemma("<|tool_call>call:f{s:\"a, \\\"b\\\"}\",i:1}", "C0(f)A({\"s\":\"a, \\\"b\\\"}\",\"i\":1})E");
}

static void test_gemma_values(void **state)
{
    (void)state;
    gemma_value("s", "<|\"|><|\"|>", "\"\"");
    gemma_value("s", "<|\"|>a\n\"b\" \\ <|\" <<|\"|>", "\"a\\n\\\"b\\\" \\\\ <|\\\" <\"");
    gemma_value("i", "<|\"|>5<|\"|>", "\"5\""); /* quotes are the model's word */
    gemma_value("s", "5", "\"5\"");
    gemma_value("s", "two words ", "\"two words\"");
    gemma_value("i", "-5", "-5");
    gemma_value("n", "1e+20", "1e+20");
    gemma_value("b", "true", "true");
    gemma_value("b", "False", "false");
    gemma_value("z", "None", "null");
    gemma_value("l", "[1,x,<|\"|>y<|\"|>,null,[]]", "[1,\"x\",\"y\",null,[]]");
    gemma_value("o", "{k: 1.5 }", "{\"k\":1.5}");
}

static void test_gemma_no_call(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "<|tool_call>",        "<|tool_call>call",
        "<|tool_call>f{}",     "<|tool_call>call:unknown{s:1}<tool_call|>",
        "<|tool_call>call:f",  "<|tool_call>call:f {}",
        "<|tool_call>call:{}", "<tool_call|>",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        char expected[256];
        snprintf(expected, sizeof expected, "T(%s)", texts[i]);
        gemma(texts[i], expected);
    }
}

static void test_gemma_broken(void **state)
{
    (void)state;
    gemma("<|tool_call>call:f{s:<|x", "C0(f)A({\"s\":)T(<|x)");
    gemma("<|tool_call>call:f{s 7}", "C0(f)A({)T(s 7})");
    gemma("<|tool_call>call:f{:7}", "C0(f)A({)T(:7})");
    gemma("<|tool_call>call:f{,}", "C0(f)A({)T(,})");
    gemma("<|tool_call>call:f{s:,}", "C0(f)A({\"s\":)T(,})");
    gemma("<|tool_call>call:f{s:7<|\"|>}", "C0(f)A({\"s\":)T(7<|\"|>})");
    gemma("<|tool_call>call:f{l:[1}", "C0(f)A({\"l\":[1)T(})");
    gemma("<|tool_call>call:f{i:1,}<tool_call|>", "C0(f)A({\"i\":1,)T(}<tool_call|>)");
    gemma("<|tool_call>call:f{s:<|\"|>a\xFF<|\"|>}", "C0(f)A({\"s\":\"a)T(\xFF<|\"|>})");
    gemma("<|tool_call>call:f{s:<|\"|>a", "C0(f)A({\"s\":\"a)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_coder),         cmocka_unit_test(test_coder_strings),
        cmocka_unit_test(test_coder_types),   cmocka_unit_test(test_coder_unions),
        cmocka_unit_test(test_coder_schemas), cmocka_unit_test(test_coder_no_call),
        cmocka_unit_test(test_coder_broken),  cmocka_unit_test(test_gemma),
        cmocka_unit_test(test_gemma_values),  cmocka_unit_test(test_gemma_no_call),
        cmocka_unit_test(test_gemma_broken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
