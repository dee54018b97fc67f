/* Keywords beside anyOf and oneOf, and names with patterns. */
#include "unit_schemas.h"

#include "base/mem.h"

/* ---- alternatives */

#define AB "\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"null\"}}"

static void test_keywords_beside_alternatives(void **state)
{
    (void)state;
    static const answer_case cases[] = {
        {"{\"type\":\"integer\",\"minimum\":2,\"anyOf\":[{\"maximum\":3},{\"maximum\":5}]}",
         NULL,
         {"2", "3", "5"},
         {"-2", "1", "6", "2.5"}},
        {"{\"type\":\"object\"," AB ",\"anyOf\":[{\"required\":[\"a\"]},{\"required\":[\"b\"]}]}",
         NULL,
         {"{\"a\":1}", "{\"b\":null}", "{\"a\":1,\"b\":null}"},
         {"{}", "{\"c\":1}"}},
        {"{\"type\":\"object\",\"required\":[\"a\"]," AB ",\"oneOf\":[{\"properties\":{\"c\":{\"const\":1}}},"
         "{\"properties\":{\"c\":{\"const\":2}}}]}",
         NULL,
         {"{\"a\":1}", "{\"a\":1,\"c\":2}"},
         {"{}", "{\"c\":1}", "{\"a\":1,\"c\":3}"}},
        {"{\"$defs\":{\"s\":{\"maxLength\":1}},\"type\":\"string\",\"title\":\"t\",\"anyOf\":[{\"$ref\":\"#/$defs/s\"},"
         "{\"minLength\":3,\"maxLength\":3}]}",
         NULL,
         {"\"\"", "\"a\"", "\"abc\""},
         {"\"ab\"", "1"}},
        {"{\"type\":[\"number\",\"null\"],\"anyOf\":[{\"type\":\"integer\",\"minimum\":7},{\"type\":[\"string\","
         "\"null\"]}]"
         "}",
         NULL,
         {"7", "null"},
         {"6", "7.5", "\"a\""}},
        {"{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"null\"}],\"oneOf\":[{\"minimum\":5},{\"maximum\":1}]}",
         NULL,
         {"5", "1", "null"},
         {"3"}},
        {"{\"type\":\"string\",\"anyOf\":[true,false,{\"enum\":[1]}],\"maxLength\":1}",
         NULL,
         {"\"a\""},
         {"1", "\"ab\""}},
        {"{\"type\":\"integer\",\"maximum\":3,\"anyOf\":[{\"const\":1},{\"enum\":[2,3,4,\"2\",null]}]}",
         NULL,
         {"1", "2", "3"},
         {"4", "null", "\"2\""}},
        {"{\"exclusiveMinimum\":1,\"type\":\"number\",\"anyOf\":[{\"enum\":[1,2,123456789012345678901234567890]}]}",
         NULL,
         {"2", "123456789012345678901234567890"},
         {"1,"}},
        {"{\"enum\":[\"a\",\"b\",3],\"oneOf\":[{\"const\":\"a\",\"title\":\"A\"},{\"const\":\"c\"},{\"type\":"
         "\"integer\"}]}",
         NULL,
         {"\"a\"", "3"},
         {"\"b\"", "\"c\""}},
        {"{\"nullable\":true,\"type\":\"string\",\"anyOf\":[{\"maxLength\":1},{\"const\":\"ab\"}]}",
         NULL,
         {"null", "\"a\"", "\"ab\""},
         {"\"ac\""}},
        /* What cannot be put together. */
        {"{\"minimum\":2,\"anyOf\":[{\"minimum\":1}]}", "minimum", {"1"}, {"0"}},
        {"{\"type\":\"string\",\"maxLength\":3,\"anyOf\":[{\"const\":\"abcd\"}]}",
         "maxLength",
         {"\"abcd\""},
         {"\"a\""}},
        {"{\"uniqueItems\":true,\"type\":\"null\",\"anyOf\":[{}]}", "uniqueItems", {"null"}, {"1"}},
        {"{\"anyOf\":3}", "anyOf", {"1"}, {NULL}},
        {"{\"$defs\":{\"cat\":{\"allOf\":[{\"$ref\":\"#\"},{\"properties\":{\"purrs\":{\"type\":\"boolean\"}}}]}},"
         "\"required\":[\"kind\"],\"properties\":{\"kind\":{\"type\":\"string\"}},\"oneOf\":[{\"$ref\":\"#/$defs/"
         "cat\"}]}",
         "oneOf",
         {"{\"kind\":\"cat\",\"purrs\":true}"},
         {"{\"purrs\":true}", "{\"kind\":1}"}},
    };
    CHECK(cases);
}

/* A tree whose nodes have keywords beside their alternatives ends. */
static void test_circles_beside_alternatives(void **state)
{
    (void)state;
    static const answer_case cases[] = {
        {"{\"type\":\"object\",\"properties\":{\"l\":{\"$ref\":\"#\"},\"v\":{\"type\":\"null\"}},\"anyOf\":[{"
         "\"required\":["
         "\"l\"]},{\"required\":[\"v\"]}]}",
         NULL,
         {"{\"v\":null}", "{\"l\":{\"l\":{\"v\":null}}}"},
         {"{}", "{\"l\":{}}"}},
        {"{\"type\":\"object\",\"properties\":{\"l\":{\"$ref\":\"#\"}},\"anyOf\":[{\"properties\":{\"l\":{\"$ref\":\"#"
         "\"}},"
         "\"required\":[\"v\"]},{\"required\":[\"l\"]}]}",
         NULL,
         {"{\"l\":{\"v\":1}}", "{\"l\":{\"l\":{\"v\":1}}}"},
         {"{}", "{\"l\":{}}"}},
    };
    CHECK(cases);
}

static void test_alternatives_that_nothing_satisfies(void **state)
{
    (void)state;
    static const char *const schemas[] = {
        "{\"type\":\"string\",\"anyOf\":[{\"type\":\"integer\"},{\"const\":1}]}",
        "{\"enum\":[1,2],\"oneOf\":[{\"enum\":[3]},{\"minimum\":3}]}",
        "{\"const\":1,\"anyOf\":[{\"const\":2},false]}",
        "{\"allOf\":[{\"type\":\"null\"},{\"type\":\"array\"}]}",
        "{\"anyOf\":[],\"type\":\"string\"}",
    };
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++) {
        mq_constraint *c;
        mq_error error;
        unit_refused(make_schema(schemas[i], false, &c, NULL, &error), MQ_USAGE, &error, "none");
    }
}

/* ---- names with patterns */

#define RECORD(pattern, more)                                                                                          \
    "{\"type\":\"object\",\"patternProperties\":{\"" pattern                                                           \
    "\":{\"type\":\"string\"}},\"additionalProperties\":false"                                                         \
    "" more "}"

static void test_patterns_of_names(void **state)
{
    (void)state;
    static const answer_case cases[] = {
        {RECORD("^(.*)$", ""), NULL, {"{}", "{\"a\":\"\",\"b\":\"x\"}"}, {"{\"a\":1}", "{\"a\":{}}"}},
        {RECORD("^.*$", ",\"minProperties\":1"), NULL, {"{\"a\":\"\"}"}, {"{}", "{\"a\":1}"}},
        {RECORD(".*", ",\"required\":[\"a\"]"),
         NULL,
         {"{\"a\":\"\",\"b\":\"x\"}"},
         {"{}", "{\"b\":\"x\"}", "{\"a\":1}"}},
        {RECORD("", ",\"maxProperties\":1"), NULL, {"{}", "{\"a\":\"\"}"}, {"{\"a\":\"\",\"b\":\"x\"}"}},
        {RECORD("^[0-9]+$", ""), "patternProperties", {"{}", "{\"1\":\"\"}"}, {"{\"1\":1}"}},
        {RECORD("^x-", ",\"properties\":{\"n\":{\"type\":\"null\"}}"),
         "patternProperties",
         {"{\"n\":null,\"x-a\":\"\"}", "{\"x-a\":\"\"}"},
         {"{\"n\":\"\"}", "{\"x-a\":1}"}},
        {"{\"patternProperties\":{\"^a\":{\"type\":\"null\"},\"^b\":{}},\"additionalProperties\":false,\"required\":["
         "\"b\"],"
         "\"minProperties\":1}",
         "patternProperties",
         {"{\"b\":1}"},
         {"{}"}},
        {"{\"patternProperties\":{\"^a\":{\"type\":\"null\"},\"^b\":{}},\"additionalProperties\":false}",
         "patternProperties",
         {"{}", "{\"b\":1,\"a\":null}"},
         {"1"}},
        {"{\"type\":\"object\",\"patternProperties\":{\"^x-\":false}}", "patternProperties", {"{\"a\":1}"}, {"1"}},
        {"{\"type\":\"object\",\"patternProperties\":{},\"additionalProperties\":false}", NULL, {"{}"}, {"{\"a\":1}"}},
        {"{\"type\":\"object\",\"patternProperties\":1}", "patternProperties", {"{\"a\":1}"}, {"1"}},
        {"{\"type\":\"object\",\"anyOf\":[" RECORD("^(.*)$", "") "]}", NULL, {"{\"a\":\"\"}"}, {"{\"a\":1}"}},
    };
    CHECK(cases);
}

/* A tool's arguments that are a map. */
static void test_tools_with_patterns_of_names(void **state)
{
    (void)state;
    static const char tools[] = "[{\"name\":\"f\",\"parameters\":" RECORD("^(.*)$", ",\"minProperties\":1") "}]";
    const mq_constraint_options options = {
        .tools = tools, .tools_bytes = sizeof tools - 1, .format = MQ_TOOLS_HERMES, .required = true, .strict = true};
    for (int good = 0; good < 2; good++) {
        mq_constraint *c = new_constraint(&options);
        const long refused = try_text(c, good ? "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":\"b\"}}</tool_call>"
                                              : "<tool_call>{\"name\":\"f\",\"arguments\":{}");
        assert_int_equal(refused, good ? -1 : 36);
        mq_constraint_free(c);
    }
}

/* ---- schemas that multiply */

static size_t put(char *schema, size_t n, const char *format, int i)
{
    return n + (size_t)snprintf(schema + n, ((size_t)4 << 20) - n, format, i, i, i + 1, i + 1);
}

/* Alternatives within alternatives, all beside members: by nesting, by references that double, by circles; members that are said again
 * and again. Each ends soon, in a limit or in a constraint. */
static void test_alternatives_that_multiply(void **state)
{
    (void)state;
    static const struct {
        const char *before, *one, *middle, *two, *after;
        int count;
    } cases[] = {
        {"", "{\"properties\":{\"p%d\":{},\"x\":{\"minLength\":%d}},\"anyOf\":[{\"required\":[\"x\"]},", "{}", "]}", "",
         900},
        {"{\"$ref\":\"#/$defs/d0\",\"$defs\":{",
         "\"d%d\":{\"properties\":{\"q%d\":{}},\"anyOf\":[{\"$ref\":\"#/$defs/d%d\"},{\"$ref\":\"#/$defs/d%d\"}]},",
         "\"d60\":{}", "", "}}", 60},
        {"{\"$ref\":\"#/$defs/d0\",\"$defs\":{",
         "\"d%d\":{\"type\":\"string\",\"properties\":{\"x\":{\"a\":%d}},\"anyOf\":[{\"$ref\":\"#/$defs/d%d\"}]},",
         "\"d20000\":{}", "", "}}", 20000},
        {"{\"properties\":{\"a\":{\"minLength\":1}},\"anyOf\":[", "{\"$ref\":\"#\",\"title\":\"%d\"},",
         "{\"required\":[\"a\"]}", "", "]}", 1000},
        {"{\"type\":\"string\",\"allOf\":[", "{\"properties\":{\"x\":{\"a\":%d}}},", "{}", "", "]}", 110000},
        {"{\"type\":\"integer\",\"properties\":{\"a\":{},\"b\":{},\"c\":{},\"d\":{}},\"anyOf\":[", "{},", "{}", "",
         "]}", 400000},
        {"{\"type\":\"integer\",\"enum\":[", "%d,",
         "0],\"anyOf\":[{\"enum\":[1,1,1,1]},{\"minimum\":7},{\"maximum\":7}", "", "]}", 100000},
    };
    char *schema = malloc((size_t)4 << 20);
    assert_non_null(schema);
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        size_t n = put(schema, 0, cases[k].before, 0);
        for (int i = 0; i < cases[k].count; i++) {
            n = put(schema, n, cases[k].one, i);
        }
        n = put(schema, n, cases[k].middle, 0);
        for (int i = 0; i < cases[k].count && cases[k].two[0]; i++) {
            n = put(schema, n, cases[k].two, i);
        }
        n = put(schema, n, cases[k].after, 0);
        assert_true(n + 1 < (size_t)4 << 20);
        mq_constraint *c = NULL;
        char *dropped = NULL;
        mq_error error;
        const mq_status status = make_schema(schema, false, &c, &dropped, &error);
        if (status != MQ_OK && status != MQ_LIMIT) fail_msg("case %zu: %s", k, error.text);
        if (c) assert_non_null(mq_constraint_mask(c));
        mq_free(dropped);
        mq_constraint_free(c);
    }
    free(schema);
}

/* Without memory a schema is refused; never is a part of it forgotten. */
static void test_short_memory_of_alternatives(void **state)
{
    (void)state;
    static const char schema[] =
        "{\"type\":\"object\",\"properties\":{\"a\":{\"enum\":[0.1,123456789012345678901234567890]}},\"anyOf\":[{"
        "\"required\":[\"a\"],\"properties\":{\"a\":{\"type\":\"number\"}}},{\"required\":[\"b\"]}],"
        "\"patternProperties\":{\"^(.*)$\":{\"anyOf\":[{\"const\":1},{\"const\":\"x\"}],\"type\":\"string\"}}}";
    const mq_constraint_options options = {.schema = schema, .schema_bytes = sizeof schema - 1, .after = "b"};
    int failed = 0, made = 0;
    for (unsigned long n = 1; n < 1500; n++) {
        mq_constraint *c = NULL;
        mq_error error = {0};
        (void)mq__alloc_fail_at(n);
        const mq_status status = mq_constraint_new(vocabulary, &options, &c, NULL, &error);
        (void)mq__alloc_fail_at(0);
        if (status != MQ_OK && status != MQ_NO_MEMORY && status != MQ_LIMIT) fail_msg("%lu: %s", n, error.text);
        failed += status != MQ_OK;
        made += status == MQ_OK;
        if (c && n % 50 == 0) {
            assert_int_equal(mq_constraint_accept(c, byte_token('b'), NULL), MQ_OK);
            assert_int_equal(try_text(c, "{\"b\":\"x\"}"), -1);
        }
        mq_constraint_free(c);
    }
    assert_true(failed > 50 && made > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keywords_beside_alternatives),        cmocka_unit_test(test_circles_beside_alternatives),
        cmocka_unit_test(test_alternatives_that_nothing_satisfies), cmocka_unit_test(test_patterns_of_names),
        cmocka_unit_test(test_tools_with_patterns_of_names),        cmocka_unit_test(test_alternatives_that_multiply),
        cmocka_unit_test(test_short_memory_of_alternatives),
    };
    return cmocka_run_group_tests(tests, unit_open_vocabulary, unit_close_vocabulary);
}
