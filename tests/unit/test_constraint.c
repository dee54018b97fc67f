/* Masks: whatever is drawn under them, a finished answer satisfies its schema, and at no place is there nothing to draw. */
#include "unit_masks.h"

#include "base/mem.h"

/* ---- texts against schemas */

static void test_texts(void **state)
{
    (void)state;
#define OBJECT                                                                                                         \
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"string\"}},\"required\":["    \
    "\"b\"]}"
#define TREE                                                                                                           \
    "{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"null\"},\"k\":{\"type\":\"array\",\"items\":{\"$ref\":\"#" \
    "\"}}},\"required\":[\"v\"]}"
    static const struct {
        const char *schema, *answer;
        long refused; /* -1: taken whole */
    } cases[] = {
        {"{}", "[1,{\"a\":null}, \"x\\n\", -0.5e+3]", -1},
        {"{}", "01", 1},
        {"{}", "[1,]", 3},
        {"{}", "\"\\x\"", 2},
        {"{}", "\"\\ud83d\\ude00\"", -1},
        {"{}", "\"\\ud83d\"", 7},
        {"{}", "\"\\ude00\"", 4},
        {"{}", "[", 1},
        {"{}", "nul", 3},
        {OBJECT, "{\"a\":1,\"b\":\"\"}", -1},
        {OBJECT, "{\"b\":\"x\"}", -1},
        {OBJECT, "{ \"b\": \"x\"\n}", -1},
        {OBJECT, "{\"a\":1}", 6},
        {OBJECT, "{\"b\":1}", 5},
        {OBJECT, "{\"b\":\"\",\"a\":1}", 7}, /* not in the schema's order */
        {OBJECT, "{}", 1},
        {OBJECT, "{\"c\":1}", 2},
        {TREE, "{\"v\":null,\"k\":[{\"v\":null},{\"v\":null,\"k\":[]}]}", -1},
        {TREE, "{\"v\":null,\"k\":[{}]}", 16},
        {"{\"enum\":[\"on\",\"off\",3]}", "\"off\"", -1},
        {"{\"enum\":[\"on\",\"off\",3]}", "3", -1},
        {"{\"enum\":[\"on\",\"off\",3]}", "\"oh\"", 2},
        {"{\"type\":\"array\",\"minItems\":2,\"maxItems\":3,\"items\":{\"type\":\"boolean\"}}", "[true,false]", -1},
        {"{\"type\":\"array\",\"minItems\":2,\"maxItems\":3,\"items\":{\"type\":\"boolean\"}}", "[true]", 5},
        {"{\"type\":\"array\",\"minItems\":2,\"maxItems\":3,\"items\":{\"type\":\"boolean\"}}", "[true,true,true,true]",
         15},
        {"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"null\"}],\"items\":false}", "[null]", -1},
        {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}", "\"ab\"", -1},
        {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}", "\"a\"", 2},
        {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}", "\"abcd\"", 4},
        {"{\"type\":[\"integer\",\"null\"]}", "-12", -1},
        {"{\"type\":[\"integer\",\"null\"]}", "1.5", 1},
        {"{\"type\":\"integer\",\"minimum\":0,\"maximum\":9007199254740991}", "17", -1},
        {"{\"type\":\"integer\",\"minimum\":0}", "-1", 0},
        {"{\"type\":\"number\",\"minimum\":-1e300}", "-1.5", -1},
        {"{\"anyOf\":[{\"const\":\"a\"},{\"type\":\"integer\"}]}", "\"a\"", -1},
        {"{\"allOf\":[{\"properties\":{\"p\":{\"type\":\"null\"}},\"required\":[\"p\"]},{\"required\":[\"q\"]}]}",
         "{\"p\":null,\"q\":[]}", -1},
        {"{\"type\":\"object\"}", "{\"any\":1,\"thing\":[]}", -1},
        {"{\"type\":\"integer\",\"nullable\":true}", "null", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mq_constraint *c = schema_constraint(cases[i].schema);
        const long refused = try_text(c, cases[i].answer);
        if (refused != cases[i].refused) {
            fail_msg("%s for %s: expected %ld, got %ld", cases[i].answer, cases[i].schema, cases[i].refused, refused);
        }
        mq_constraint_free(c);
    }
}

static void test_schemas_that_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *schema;
        bool strict;
        mq_status status;
        const char *names;
    } cases[] = {
        {"", false, MQ_USAGE, "JSON"},
        {"3", false, MQ_USAGE, "object"},
        {"false", false, MQ_USAGE, "none"},
        {"{\"enum\":[]}", false, MQ_USAGE, "none"},
        {"{\"type\":\"thing\"}", false, MQ_USAGE, "type"},
        {"{\"properties\":{\"x\":{\"$ref\":\"#\"}},\"required\":[\"x\"]}", false, MQ_USAGE, "none"},
        {"{\"$ref\":\"#\"}", false, MQ_USAGE, "circle"},
        {"{\"$ref\":\"#/$defs/none\"}", false, MQ_USAGE, "$ref"},
        {"{\"$ref\":\"http://elsewhere/\"}", false, MQ_USAGE, "$ref"},
        {"{\"type\":\"string\",\"pattern\":\"(?=a)\"}", true, MQ_UNSUPPORTED, "pattern (a look around)"},
        {"{\"type\":\"integer\",\"minimum\":1e15}", true, MQ_UNSUPPORTED, "minimum"},
        {"{\"type\":\"number\",\"exclusiveMaximum\":0.00000000001}", true, MQ_UNSUPPORTED, "exclusiveMaximum"},
        {"{\"type\":\"number\",\"multipleOf\":3}", true, MQ_UNSUPPORTED, "multipleOf"},
        {"{\"uniqueItems\":true}", true, MQ_UNSUPPORTED, "uniqueItems"},
        {"{\"type\":\"array\",\"minItems\":1000000000}", true, MQ_UNSUPPORTED, "minItems"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mq_constraint *c = NULL;
        mq_error error = {0};
        const mq_constraint_options options = {
            .schema = cases[i].schema, .schema_bytes = strlen(cases[i].schema), .strict = cases[i].strict};
        unit_refused(mq_constraint_new(vocabulary, &options, &c, NULL, &error), cases[i].status, &error,
                     cases[i].names);
        assert_null(c);
    }
}

static void test_what_is_left_out_is_named(void **state)
{
    (void)state;
    static const char schema[] =
        "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"pattern\":\"x\\\\b\"},"
        "\"b\":{\"minimum\":1e16,\"type\":\"integer\"}}}";
    mq_constraint *c;
    char *dropped;
    const mq_constraint_options options = {.schema = schema, .schema_bytes = sizeof schema - 1};
    assert_int_equal(mq_constraint_new(vocabulary, &options, &c, &dropped, NULL), MQ_OK);
    assert_non_null(dropped);
    assert_non_null(strstr(dropped, "pattern (a word boundary)"));
    assert_non_null(strstr(dropped, "minimum"));
    mq_free(dropped);
    mq_constraint_free(c);
}

/* Schemas that would grow without end. */
static void test_attacks_are_bounded(void **state)
{
    (void)state;
    char *schema = malloc(1 << 21);
    assert_non_null(schema);
    for (int kind = 0; kind < 3; kind++) {
        size_t n = 0;
        const int depth = kind == 0 ? 3000 : 30000;
        if (kind == 0) { /* nested deeply */
            for (int i = 0; i < depth; i++) {
                n += (size_t)sprintf(schema + n, "{\"items\":");
            }
            n += (size_t)sprintf(schema + n, "{}");
            for (int i = 0; i < depth; i++) {
                n += (size_t)sprintf(schema + n, "}");
            }
        } else { /* many alternatives, or many members */
            n += (size_t)sprintf(schema + n, kind == 1 ? "{\"anyOf\":[" : "{\"properties\":{");
            for (int i = 0; i < depth; i++) {
                n += (size_t)sprintf(schema + n, kind == 1 ? "%s{\"const\":\"%d\"}" : "%s\"p%d\":{}", i ? "," : "", i);
            }
            n += (size_t)sprintf(schema + n, kind == 1 ? "]}" : "}}");
        }
        mq_constraint *c;
        mq_error error = {0};
        const mq_constraint_options options = {.schema = schema, .schema_bytes = n};
        if (mq_constraint_new(vocabulary, &options, &c, NULL, &error) == MQ_OK) {
            (void)mq_constraint_mask(c);
            mq_constraint_free(c);
        } else {
            assert_true(error.status == MQ_LIMIT || error.status == MQ_USAGE);
        }
    }
    free(schema);
}

/* ---- random answers */

/* Enough of JSON schema for the schemas below, written apart from what is tested. */
static bool satisfies(const json_t *v, const json_t *schema)
{
    const char *type = json_string_value(json_object_get(schema, "type")), *key;
    json_t *sub, *item;
    size_t i;
    if (!type) return true;
    if (strcmp(type, "integer") == 0) return json_is_integer(v);
    if (strcmp(type, "number") == 0) return json_is_number(v);
    if (strcmp(type, "boolean") == 0) return json_is_boolean(v);
    if (strcmp(type, "string") == 0) {
        const json_t *list = json_object_get(schema, "enum");
        bool found = !list;
        json_array_foreach(list, i, item) found = found || json_equal(item, v);
        return json_is_string(v) && found;
    }
    if (strcmp(type, "array") == 0) {
        const json_t *least = json_object_get(schema, "minItems"), *most = json_object_get(schema, "maxItems");
        if (!json_is_array(v) || (least && json_array_size(v) < (size_t)json_integer_value(least))) return false;
        if (most && json_array_size(v) > (size_t)json_integer_value(most)) return false;
        json_array_foreach(v, i, item)
        {
            if (!satisfies(item, json_object_get(schema, "items"))) return false;
        }
        return true;
    }
    if (!json_is_object(v)) return false;
    json_array_foreach(json_object_get(schema, "required"), i, item)
    {
        if (!json_object_get(v, json_string_value(item))) return false;
    }
    json_object_foreach((json_t *)(uintptr_t)v, key, sub)
    {
        const json_t *own = json_object_get(json_object_get(schema, "properties"), key);
        if (!own || !satisfies(sub, own)) return false;
    }
    return true;
}

static const char walked[] = "{\"type\":\"object\",\"properties\":{\"id\":{\"type\":\"integer\"},\"tags\":{\"type\":"
                             "\"array\",\"items\":{\"type\":\"string\"},"
                             "\"minItems\":1,\"maxItems\":4},\"kind\":{\"type\":\"string\",\"enum\":[\"a\",\"bb\",\"a "
                             "b\"]},\"at\":{\"type\":\"object\","
                             "\"properties\":{\"x\":{\"type\":\"number\"},\"y\":{\"type\":\"number\"}},\"required\":["
                             "\"x\"]},\"ok\":{\"type\":\"boolean\"}},"
                             "\"required\":[\"tags\",\"ok\"]}";

static void test_random_answers_satisfy_the_schema(void **state)
{
    (void)state;
    json_t *schema = json_loads(walked, 0, NULL);
    int ends = 0;
    for (unsigned seed = 0; seed < 150; seed++) {
        bool ended;
        mq_constraint *c = schema_constraint(walked);
        char *answer = walk(c, seed * 7919, &ended);
        mq_constraint_free(c);
        json_t *value = json_loads(answer, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
        if (ended && (!value || !satisfies(value, schema))) fail_msg("seed %u: %s", seed, answer);
        ends += ended;
        json_decref(value);
        mq_free(answer);
    }
    assert_true(ends > 120);
    json_decref(schema);
}

/* ---- calls */

static const char tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"find\",\"parameters\":{\"type\":\"object\",\"properties\":{\"q\":"
    "{\"type\":\"string\"},"
    "\"n\":{\"type\":\"integer\"}},\"required\":[\"q\"]}}},{\"type\":\"function\",\"function\":{\"name\":\"stop\"}}]";

static void skip_part(void *context, const mq_part *part)
{
    (void)context;
    (void)part;
}

/* What the parser of the same syntax makes of a text. */
static uint32_t calls_in(const char *bytes, mq_tool_format format)
{
    mq_answer *answer;
    const mq_answer_options options = {
        .style = {.tools = format}, .tools = tools, .tools_bytes = sizeof tools - 1, .part = skip_part};
    assert_int_equal(mq_answer_new(&options, &answer, NULL), MQ_OK);
    assert_int_equal(mq_answer_push(answer, bytes, strlen(bytes), NULL), MQ_OK);
    assert_int_equal(mq_answer_end(answer, NULL), MQ_OK);
    const uint32_t calls = mq_answer_calls(answer);
    mq_answer_free(answer);
    return calls;
}

/* What a mask lets through is what the parser of the same syntax takes for a call. */
static void test_required_calls_are_calls(void **state)
{
    (void)state;
    for (int format = MQ_TOOLS_HERMES; format < MQ_TOOL_FORMATS; format++) {
        int ends = 0;
        for (unsigned seed = 0; seed < 40; seed++) {
            bool ended;
            mq_constraint *c = new_constraint(&(mq_constraint_options){
                .tools = tools, .tools_bytes = sizeof tools - 1, .format = (mq_tool_format)format, .required = true});
            char *text_of = walk(c, seed * 31 + 7, &ended);
            mq_constraint_free(c);
            if (ended && calls_in(text_of, (mq_tool_format)format) == 0)
                fail_msg("%s: %s", mq_tool_format_name((mq_tool_format)format), text_of);
            ends += ended;
            mq_free(text_of);
        }
        assert_true(ends > 5);
    }
}

static void accept_text(mq_constraint *c, const char *bytes)
{
    int32_t *token;
    size_t count;
    assert_int_equal(mq_tokenize(text, bytes, strlen(bytes), MQ_TOKENIZE_PARSE_SPECIAL, &token, &count, NULL), MQ_OK);
    for (size_t i = 0; i < count; i++) {
        if (!is_allowed(mq_constraint_mask(c), token[i])) fail_msg("%s: token %zu is not allowed", bytes, i);
        assert_int_equal(mq_constraint_accept(c, token[i], NULL), MQ_OK);
    }
    mq_free(token);
}

/* Every token but the end. */
static void assert_only_the_end_is_not(const uint32_t *mask)
{
    assert_non_null(mask);
    for (int32_t t = 0; t < VOCAB; t++) {
        assert_int_equal(is_allowed(mask, t), t != EOS);
    }
}

static void test_text_is_free_until_a_call(void **state)
{
    (void)state;
    const mq_constraint_options options = {
        .tools = tools, .tools_bytes = sizeof tools - 1, .format = MQ_TOOLS_HERMES, .parallel = true};
    mq_constraint *c = new_constraint(&options);
    accept_text(c, "I say <tool and {\"a\": and then ");
    assert_null(mq_constraint_mask(c));
    accept_text(c, "<tool_call>");
    assert_non_null(mq_constraint_mask(c));
    assert_false(is_allowed(mq_constraint_mask(c), EOS));
    accept_text(c, "\n{\"name\": \"find\", \"arguments\": {\"q\": \"x\"}}\n</tool_call>");
    assert_null(mq_constraint_mask(c)); /* another may follow */
    accept_text(c, "\n<tool_call>{\"name\": \"stop\", \"arguments\": {}}</tool_call>");
    mq_constraint_free(c);
    /* One call only, after reasoning. */
    mq_constraint_options one = options;
    one.parallel = false;
    one.required = true;
    one.after = "</think>";
    c = new_constraint(&one);
    accept_text(c, "anything <tool_call>");
    assert_only_the_end_is_not(mq_constraint_mask(c));
    accept_text(c, "</think>");
    assert_non_null(mq_constraint_mask(c));
    accept_text(c, "\n<tool_call>{\"name\": \"stop\", \"arguments\": {}}</tool_call>");
    assert_true(is_allowed(mq_constraint_mask(c), EOS));
    for (int32_t t = 0; t < VOCAB; t++) {
        assert_true(t == EOS || !is_allowed(mq_constraint_mask(c), t));
    }
    mq_constraint_free(c);
}

/* What has to follow the reasoning cannot be left out by ending within it. */
static void test_reasoning_does_not_end_the_answer(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++) { /* a schema, calls, either, calls that may be left out */
        const mq_constraint_options options = {.schema = kind % 2 == 0 ? walked : NULL,
                                               .schema_bytes = kind % 2 == 0 ? sizeof walked - 1 : 0,
                                               .tools = kind > 0 ? tools : NULL,
                                               .tools_bytes = kind > 0 ? sizeof tools - 1 : 0,
                                               .format = kind > 0 ? MQ_TOOLS_HERMES : MQ_TOOLS_NONE,
                                               .required = kind == 1,
                                               .after = "</think>"};
        mq_constraint *c = new_constraint(&options);
        for (int i = 0; i < 3; i++) {
            const uint32_t *mask = mq_constraint_mask(c);
            if (kind == 3)
                assert_null(mask);
            else
                assert_only_the_end_is_not(mask);
            assert_ptr_equal(mask, mq_constraint_mask(c)); /* it costs nothing */
            accept_text(c, i == 0 ? "{\"a\": <tool_call>" : "so </thin");
        }
        accept_text(c, "</think>");
        if (kind == 3)
            assert_null(mq_constraint_mask(c));
        else
            assert_false(is_allowed(mq_constraint_mask(c), EOS) || is_allowed(mq_constraint_mask(c), byte_token('x')));
        mq_constraint_free(c);
    }
}

/* ---- either */

static mq_constraint *either_constraint(mq_tool_format format, bool parallel, const char *after)
{
    return new_constraint(&(mq_constraint_options){.schema = walked,
                                                   .schema_bytes = sizeof walked - 1,
                                                   .tools = tools,
                                                   .tools_bytes = sizeof tools - 1,
                                                   .format = format,
                                                   .parallel = parallel,
                                                   .after = after});
}

static void test_calls_or_the_schema(void **state)
{
    (void)state;
#define CALL "<tool_call>\n{\"name\": \"find\", \"arguments\": {\"q\": \"x\"}}\n</tool_call>"
#define TEXT "{\"tags\":[\"x\"],\"ok\":true}"
    static const struct {
        const char *answer;
        bool parallel;
        long refused;
    } cases[] = {{CALL, false, -1},
                 {CALL "\n" CALL, true, -1},
                 {CALL "\n" CALL, false, sizeof CALL - 1},
                 {TEXT, true, -1},
                 {"I look. " CALL, true, 0},
                 {TEXT CALL, true, sizeof TEXT - 1},
                 {CALL TEXT, true, sizeof CALL - 1},
                 {"{\"tags\":[]", true, 9},
                 {"<tool_call>\n{\"name\": \"found", true, 23},
                 {"", true, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mq_constraint *c = either_constraint(MQ_TOOLS_HERMES, cases[i].parallel, NULL);
        const long refused = try_text(c, cases[i].answer);
        if (refused != cases[i].refused) fail_msg("%s: %ld", cases[i].answer, refused);
        mq_constraint_free(c);
    }
    mq_constraint *c = either_constraint(MQ_TOOLS_HERMES, true, "</think>");
    accept_text(c, "free " CALL);
    assert_only_the_end_is_not(mq_constraint_mask(c));
    accept_text(c, "</think>");
    assert_int_equal(try_text(c, "x"), 0);
    assert_int_equal(try_text(c, TEXT), -1);
    mq_constraint_free(c);
    c = either_constraint(MQ_TOOLS_LLAMA3, true, NULL);
    assert_int_equal(try_text(c, "{\"name\": \"stop\", \"parameters\": {}}; <|python_tag|>{\"name\":\"stop\","
                                 "\"parameters\":{}}"),
                     -1);
    mq_constraint_free(c);
}

/* Of a keyword that is not kept: `strict` is the schema's, strict_tools the tools'. */
static void test_strict_of_either(void **state)
{
    (void)state;
    static const char odd[] = "{\"type\":\"array\",\"uniqueItems\":true}";
    static const char odd_tools[] = "[{\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{\"a\":{\"type\":"
                                    "\"array\",\"contains\":{}}}}}}]";
    for (int i = 0; i < 8; i++) {
        const char *schema = i & 1 ? odd : "{}";
        const mq_constraint_options options = {.schema = schema,
                                               .schema_bytes = strlen(schema),
                                               .tools = odd_tools,
                                               .tools_bytes = sizeof odd_tools - 1,
                                               .format = MQ_TOOLS_HERMES,
                                               .strict = i & 2,
                                               .strict_tools = i & 4};
        mq_constraint *c;
        char *dropped = NULL;
        mq_error error = {0};
        const mq_status status = mq_constraint_new(vocabulary, &options, &c, &dropped, &error);
        assert_int_equal(status, i & 4 || (i & 1 && i & 2) ? MQ_UNSUPPORTED : MQ_OK);
        if (status == MQ_OK) assert_non_null(strstr(dropped, "contains"));
        if (status == MQ_OK) assert_int_equal(strstr(dropped, "uniqueItems") != NULL, i & 1);
        mq_free(dropped);
        mq_constraint_free(c);
    }
}

/* Whatever is drawn is one or the other. */
static void test_random_answers_are_either(void **state)
{
    (void)state;
    json_t *schema = json_loads(walked, 0, NULL);
    for (int format = MQ_TOOLS_HERMES; format < MQ_TOOL_FORMATS; format++) {
        int calls = 0, texts = 0;
        for (unsigned seed = 0; seed < 60; seed++) {
            bool ended;
            mq_constraint *c = either_constraint((mq_tool_format)format, false, NULL);
            char *drawn = walk(c, seed * 31 + 7, &ended);
            mq_constraint_free(c);
            const uint32_t made = calls_in(drawn, (mq_tool_format)format);
            json_t *value = json_loads(drawn, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
            const bool right = value && satisfies(value, schema);
            if (ended && (made > 0) == right) fail_msg("%s: %s", mq_tool_format_name((mq_tool_format)format), drawn);
            calls += ended && made;
            texts += ended && right;
            json_decref(value);
            mq_free(drawn);
        }
        assert_true(calls > 3 && texts > 3);
    }
    json_decref(schema);
}

static void test_short_memory(void **state)
{
    (void)state;
    const mq_constraint_options options = {.schema = walked,
                                           .schema_bytes = sizeof walked - 1,
                                           .tools = tools,
                                           .tools_bytes = sizeof tools - 1,
                                           .format = MQ_TOOLS_GEMMA4};
    int failed = 0;
    for (unsigned long n = 1; n < 400; n++) {
        mq_constraint *c = NULL;
        mq_error error = {0};
        (void)mq__alloc_fail_at(n);
        const mq_status status = mq_constraint_new(vocabulary, &options, &c, NULL, &error);
        (void)mq__alloc_fail_at(0);
        assert_true(status == MQ_OK || status == MQ_NO_MEMORY || status == MQ_LIMIT);
        assert_true((status == MQ_OK) == (c != NULL));
        failed += status != MQ_OK;
        mq_constraint_free(c);
    }
    assert_true(failed > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_schemas_that_are_refused),
        cmocka_unit_test(test_what_is_left_out_is_named),
        cmocka_unit_test(test_attacks_are_bounded),
        cmocka_unit_test(test_random_answers_satisfy_the_schema),
        cmocka_unit_test(test_required_calls_are_calls),
        cmocka_unit_test(test_text_is_free_until_a_call),
        cmocka_unit_test(test_reasoning_does_not_end_the_answer),
        cmocka_unit_test(test_calls_or_the_schema),
        cmocka_unit_test(test_strict_of_either),
        cmocka_unit_test(test_random_answers_are_either),
        cmocka_unit_test(test_short_memory),
    };
    return cmocka_run_group_tests(tests, unit_open_vocabulary, unit_close_vocabulary);
}
