/* Numbers of enumerations as they are written, and those beyond 64 bits wherever they stand. */
#include "unit_schemas.h"

static void test_numbers_are_written_short(void **state)
{
    (void)state;
    static const answer_case cases[] = {
        {"{\"const\":0.1}", NULL, {"0.1"}, {"0.10000000000000001", "0.10"}},
        {"{\"enum\":[-0.3,1e-7,2.5e300,1.0,1e15,1e16,0.0001,-0.0,123456.75,5e-324,1.7976931348623157e308]}",
         NULL,
         {"-0.3", "1e-07", "2.5e+300", "1.0", "1000000000000000.0", "1e+16"},
         {"0.3"}},
        {"{\"enum\":[-0.3,1e-7,2.5e300,1.0,1e15,1e16,0.0001,-0.0,123456.75,5e-324,1.7976931348623157e308]}",
         NULL,
         {"0.0001", "-0.0", "123456.75", "5e-324", "1.7976931348623157e+308"},
         {"1e+308"}},
        {"{\"const\":0.30000000000000004}", NULL, {"0.30000000000000004"}, {"0.3"}},
        {"{\"const\":{\"a\":[0.1,true,null,\"\xc3\xa9\\n\",{}],\"b\":9007199254740993}}",
         NULL,
         {"{\"a\":[0.1,true,null,\"\xc3\xa9\\n\",{}],\"b\":9007199254740993}"},
         {"{\"a\":[0.1,true,null,\"\xc3\xa9\\n\",{}],\"b\":9007199254740992}"}},
    };
    CHECK(cases);
}

static void test_numbers_beyond_64_bits(void **state)
{
    (void)state;
    static const answer_case cases[] = {
        {"{\"enum\":[123456789012345678901234567890,{\"n\":[-98765432109876543210,1e999]}]}",
         NULL,
         {"123456789012345678901234567890", "{\"n\":[-98765432109876543210,1e999]}"},
         {"1.2345678901234568e29", "123456789012345678901234567891"}},
        {"{\"const\":18446744073709551616}", NULL, {"18446744073709551616"}, {"18446744073709551615"}},
        {"{\"type\":\"integer\",\"minimum\":-123456789012345678901234567890,\"maximum\":3}", NULL, {"3", "-4"}, {"4"}},
        {"{\"maximum\":123456789012345678901234567890}", NULL, {"3", "-4"}, {"\"\""}},
        {"{\"type\":\"integer\",\"minimum\":123456789012345678901234567890}", "minimum", {"3"}, {"\"\""}},
        {"{\"type\":\"string\",\"minLength\":123456789012345678901234567890}", "minLength", {"\"\""}, {"1"}},
        {"{\"multipleOf\":123456789012345678901234567890}", "multipleOf", {"1"}, {"\"\""}},
        {"{\"type\":\"integer\",\"anyOf\":[{\"const\":123456789012345678901234567890},{\"const\":1e999},{\"const\":2.0}"
         "]}",
         NULL,
         {"123456789012345678901234567890", "2.0"},
         {"1e999"}},
    };
    CHECK(cases);
}

/* A number beyond 64 bits in the place of a schema, a list or a text is what any number is there. */
static void test_numbers_where_none_belongs(void **state)
{
    (void)state;
    static const char *const keywords[] = {"type",
                                           "properties",
                                           "required",
                                           "additionalProperties",
                                           "patternProperties",
                                           "items",
                                           "prefixItems",
                                           "enum",
                                           "anyOf",
                                           "oneOf",
                                           "allOf",
                                           "$ref",
                                           "$defs",
                                           "not",
                                           "format",
                                           "pattern",
                                           "nullable",
                                           "const",
                                           "title",
                                           "what"};
    for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++) {
        for (int beside = 0; beside < 3; beside++) {
            static const char *const others[] = {"", ",\"anyOf\":[{\"maxLength\":1}]", ",\"allOf\":[{\"minItems\":1}]"};
            char schema[2][160];
            mq_status status[2];
            if (beside && strstr(others[beside], keywords[i])) continue;
            for (int big = 0; big < 2; big++) {
                mq_constraint *c = NULL;
                mq_error error;
                char *dropped = NULL;
                snprintf(schema[big], sizeof schema[big], "{\"%s\":%s%s}", keywords[i],
                         big ? "123456789012345678901234567890" : "7", others[beside]);
                status[big] = make_schema(schema[big], false, &c, &dropped, &error);
                mq_free(dropped);
                mq_constraint_free(c);
            }
            if (status[0] != status[1]) fail_msg("%s: %d, got %d", schema[1], status[0], status[1]);
        }
    }
    static const char *const tools[] = {
        "[{\"name\":\"f\",\"parameters\":123456789012345678901234567890}]",
        "[{\"name\":\"f\",\"parameters\":{\"properties\":123456789012345678901234567890}}]",
        "[123456789012345678901234567890]", "123456789012345678901234567890",
        "[{\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{\"a\":1e999}}}}]"};
    for (size_t i = 0; i < sizeof tools / sizeof *tools; i++) {
        for (int format = MQ_TOOLS_HERMES; format < MQ_TOOL_FORMATS; format++) {
            mq_constraint *c = NULL;
            (void)mq_constraint_new(vocabulary,
                                    &(mq_constraint_options){.tools = tools[i],
                                                             .tools_bytes = strlen(tools[i]),
                                                             .format = (mq_tool_format)format,
                                                             .required = true},
                                    &c, NULL, NULL);
            if (c) assert_non_null(mq_constraint_mask(c));
            mq_constraint_free(c);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_are_written_short),
        cmocka_unit_test(test_numbers_beyond_64_bits),
        cmocka_unit_test(test_numbers_where_none_belongs),
    };
    return cmocka_run_group_tests(tests, unit_open_vocabulary, unit_close_vocabulary);
}
