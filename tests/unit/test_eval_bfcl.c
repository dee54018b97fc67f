/* BFCL: literals of three languages, calls in every shape a model writes them, the comparison rules on cases of our own, files
 * that are not what they should be; and with the published files, their answers fed back and shuffled (test_eval_bfcl_turns.c has
 * multi_turn). */
#include "unit_files.h"

#include "base/buf.h"
#include "eval/bfcl.h"

static json_t *from_json(const char *text)
{
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    return value;
}

static void expect_literal(const char *text, mq_bfcl_language language, const char *expected)
{
    json_t *got = mq__bfcl_literal(text, language, NULL), *wanted = expected ? from_json(expected) : NULL;
    if (expected ? !got || !json_equal(got, wanted) : got != NULL) fail_msg("%s", text);
    json_decref(got);
    json_decref(wanted);
}

static void literals(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        mq_bfcl_language language;
        const char *json;
    } cases[] = {
        {"[1, -2.5, 'a\\'b', True, None]", MQ_BFCL_PYTHON, "[1, -2.5, \"a'b\", true, null]"},
        {"{'a': (1, 2), \"b\": {}}", MQ_BFCL_PYTHON, "{\"a\": [1, 2], \"b\": {}}"},
        {"'\\u00e9\\n'", MQ_BFCL_PYTHON, "\"\\u00e9\\n\""},
        {"1e3", MQ_BFCL_PYTHON, "1000.0"},
        {"os.path", MQ_BFCL_PYTHON, "\"os.path\""},
        {"{a: 1n, 'b': `x`}", MQ_BFCL_JAVASCRIPT, "{\"a\": 1, \"b\": \"x\"}"},
        {"42L", MQ_BFCL_JAVA, "42"},
        {"0.5f", MQ_BFCL_JAVA, "0.5"},
        {"new ArrayList<String>(Arrays.asList(\"a\", \"b\"))", MQ_BFCL_JAVA, "[\"a\", \"b\"]"},
        {"new int[]{2, 7}", MQ_BFCL_JAVA, "[2, 7]"},
        {"new HashMap<String, Object>() {{ put(\"k\", 1); put(\"l\", \"v\"); }}", MQ_BFCL_JAVA,
         "{\"k\": 1, \"l\": \"v\"}"},
        {"new HashMap<>()", MQ_BFCL_JAVA, "{}"},
        {"new ArrayList<>() {{ add(1); add(2); }}", MQ_BFCL_JAVA, "[1, 2]"},
        {"new ArrayList<>() {{ add(1) }}", MQ_BFCL_JAVA, NULL},
        {"new ArrayList<>() {{ put(1, 2); }}", MQ_BFCL_JAVA, NULL},
        {"new Array(1, 'b')", MQ_BFCL_JAVASCRIPT, "[1, \"b\"]"},
        {"new Map()", MQ_BFCL_JAVASCRIPT, NULL},
        {"[1, 2", MQ_BFCL_PYTHON, NULL},
        {"[1 2]", MQ_BFCL_PYTHON, NULL},
        {"'open", MQ_BFCL_PYTHON, NULL},
        {"'\xff'", MQ_BFCL_PYTHON, NULL}, /* no UTF-8 */
        {"{'a' 1}", MQ_BFCL_PYTHON, NULL},
        {"1 2", MQ_BFCL_PYTHON, NULL},
        {"", MQ_BFCL_PYTHON, NULL},
        {"new", MQ_BFCL_JAVA, NULL},
        {"2d", MQ_BFCL_JAVA, "2.0"},
        {"'x'", MQ_BFCL_JAVA, "\"x\""},
        {"'\\n'", MQ_BFCL_JAVA, "\"\\n\""},
        {"new HashSet<>(List.of(1))", MQ_BFCL_JAVA, "[1]"},
        {"[true, null]", MQ_BFCL_JAVASCRIPT, "[true, null]"},
        {"'text'", MQ_BFCL_JAVA, NULL}, /* what another language writes */
        {"[1, 2]", MQ_BFCL_JAVA, NULL},
        {"True", MQ_BFCL_JAVA, "\"True\""}, /* a variable */
        {"None", MQ_BFCL_JAVASCRIPT, "\"None\""},
        {"5n", MQ_BFCL_JAVA, NULL},
        {"5L", MQ_BFCL_JAVASCRIPT, NULL},
        {"0.5f", MQ_BFCL_JAVASCRIPT, NULL},
        {"0.5n", MQ_BFCL_JAVASCRIPT, NULL},
        {"0.5L", MQ_BFCL_JAVA, NULL},
        {"5L", MQ_BFCL_PYTHON, NULL},
        {"new Integer(5)", MQ_BFCL_JAVA, NULL},
        {"new Point()", MQ_BFCL_JAVA, NULL},
        {"new ArrayList<>(5)", MQ_BFCL_JAVA, NULL},
        {"0x10", MQ_BFCL_PYTHON, NULL},
        {"1e", MQ_BFCL_PYTHON, NULL},
        {"-.", MQ_BFCL_PYTHON, NULL},
        {"-.5", MQ_BFCL_PYTHON, "-0.5"},
        {"99999999999999999999", MQ_BFCL_PYTHON, "1e20"},
        {"new int[]{2, 7", MQ_BFCL_JAVA, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        expect_literal(cases[i].text, cases[i].language, cases[i].json);
    }
    char deep[4096];
    memset(deep, '[', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    expect_literal(deep, MQ_BFCL_PYTHON, NULL);
}

/* A number is written as its declared type is, in lists as well; one of no declared type in any way. */
static void numbers_by_type(void **state)
{
    (void)state;
    static const struct {
        const char *type, *text;
        mq_bfcl_language language;
        bool good;
    } cases[] = {
        {"integer", "5", MQ_BFCL_JAVA, true},
        {"integer", "5L", MQ_BFCL_JAVA, false},
        {"integer", "5.0", MQ_BFCL_JAVA, false},
        {"short", "5f", MQ_BFCL_JAVA, false},
        {"byte", "-5", MQ_BFCL_JAVA, true},
        {"long", "5L", MQ_BFCL_JAVA, true},
        {"long", "5", MQ_BFCL_JAVA, false},
        {"long", "new long[]{1L, 2L}", MQ_BFCL_JAVA, true},
        {"long", "new long[]{1L, 2}", MQ_BFCL_JAVA, false},
        {"float", "0.5f", MQ_BFCL_JAVA, true},
        {"float", "3F", MQ_BFCL_JAVA, true},
        {"float", "0.5", MQ_BFCL_JAVA, false},
        {"float", "0.5d", MQ_BFCL_JAVA, false},
        {"double", "0.5", MQ_BFCL_JAVA, true},
        {"double", "2d", MQ_BFCL_JAVA, true},
        {"double", "0.5f", MQ_BFCL_JAVA, false},
        {"double", "2L", MQ_BFCL_JAVA, false},
        {"any", "5L", MQ_BFCL_JAVA, true},
        {"Bigint", "5n", MQ_BFCL_JAVASCRIPT, true},
        {"Bigint", "5", MQ_BFCL_JAVASCRIPT, false},
        {"integer", "5n", MQ_BFCL_JAVASCRIPT, false},
        {"integer", "[1, 2]", MQ_BFCL_JAVASCRIPT, true},
        {"integer", "[1, 2.0]", MQ_BFCL_JAVASCRIPT, false},
        {"float", "2.5", MQ_BFCL_JAVASCRIPT, true},
        {"float", "2", MQ_BFCL_JAVASCRIPT, true},
        {"dict", "{a: 5n}", MQ_BFCL_JAVASCRIPT, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *got = mq__bfcl_literal(cases[i].text, cases[i].language, cases[i].type);
        if ((got != NULL) != cases[i].good) fail_msg("%s %s", cases[i].type, cases[i].text);
        json_decref(got);
    }
}

static const char functions_text[] =
    "[{\"name\": \"geo.area\", \"parameters\": {\"type\": \"dict\", \"properties\": {"
    "\"base\": {\"type\": \"integer\"}, \"height\": {\"type\": \"float\"}, \"unit\": {\"type\": \"string\"},"
    "\"tags\": {\"type\": \"array\", \"items\": {\"type\": \"string\"}}, \"more\": {\"type\": \"dict\"}},"
    "\"required\": [\"base\", \"height\"]}},"
    "{\"name\": \"noop\", \"parameters\": {\"type\": \"dict\", \"properties\": {}, \"required\": []}}]";

static const char truth_text[] =
    "[{\"geo.area\": {\"base\": [10], \"height\": [5, 5.5], \"unit\": [\"square cm\", \"\"],"
    "\"tags\": [[\"A\", \"b\"], \"\"], \"more\": [{\"k\": [1, 2]}, \"\"]}}]";

static bool answer_is_right(const char *answer, const char *truth_json)
{
    json_t *functions = from_json(functions_text), *truth = from_json(truth_json);
    json_t *calls = mq__bfcl_answer_calls(answer, functions);
    const bool right = mq__bfcl_match(calls, functions, truth, MQ_BFCL_PYTHON);
    json_decref(calls);
    json_decref(functions);
    json_decref(truth);
    return right;
}

static void right_answers(void **state)
{
    (void)state;
    static const char *const answers[] = {
        "<tool_call>\n{\"name\": \"geo_area\", \"arguments\": {\"base\": 10, \"height\": 5}}\n</tool_call>",
        ("<think>[noop()]</think><tool_call>{\"name\": \"geo.area\", \"arguments\": \"{\\\"base\\\": 10, "
         "\\\"height\\\": 5.5}\"}</tool_call>"),
        "[{\"geo.area\": {\"base\": 10, \"height\": 5.0, \"unit\": \"Square-CM\"}}]",
        "{\"name\": \"geo_area\", \"parameters\": {\"base\": 10, \"height\": 5}}",
        "```json\n[{\"name\": \"geo_area\", \"arguments\": {\"base\": 10, \"height\": 5}}]\n```",
        "[geo.area(base=10, height=5, tags=['a', 'B'])]",
        "geo_area(10, 5, more={'k': 2})",
    };
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        if (!answer_is_right(answers[i], truth_text)) fail_msg("%s", answers[i]);
    }
}

static void wrong_answers(void **state)
{
    (void)state;
    static const char *const answers[] = {
        "",
        "The area is 25.",
        "[geo.area(base=10)]",                            /* a required one is missing */
        "[geo.area(base=11, height=5)]",                  /* value */
        "[geo.area(base=10.0, height=5)]",                /* a real where an integer is declared */
        "[geo.area(base='10', height=5)]",                /* type */
        "[geo.area(base=True, height=5)]",                /* type */
        "[geo.area(base=10, height=5, unit='m')]",        /* value of an optional one */
        "[geo.area(base=10, height=5, colour='red')]",    /* unknown parameter */
        "[geo.area(base=10, height=5, tags=['b', 'a'])]", /* order in a list */
        "[geo.area(base=10, height=5, more={'k': 3})]",   /* inside a map */
        "[geo.area(base=10, height=5, more={'j': 1})]",   /* a key too many */
        "[geo.area(base=10, height=5), noop()]",          /* one call too many */
        "[noop()]",
        "[geo.area(base=10, height=5)", /* cut */
        "<tool_call>{\"name\": \"geo_area\", \"arguments\": {\"base\": 10",
        "<tool_call>{\"name\": 5}</tool_call>",
        "<think>geo.area(base=10, height=5)", /* a thought that does not end */
        "<think><tool_call>{\"name\": \"geo.area\", \"arguments\": {\"base\": 10, \"height\": 5}}</tool_call>",
        "<tool_call>[]</tool_call>",
        "[1, 2]",
        "{}",
    };
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        if (answer_is_right(answers[i], truth_text)) fail_msg("%s", answers[i]);
    }
}

/* "" among the accepted values says that a parameter may be left out; it is a value only of texts, and a list may be empty
 * instead. Integers in lists and maps are integers. */
static void optional_and_nested_values(void **state)
{
    (void)state;
    static const char functions[] = "[{\"name\": \"f\", \"parameters\": {\"type\": \"dict\", \"properties\": {\"n\": "
                                    "{\"type\": \"integer\"}, \"r\": {\"type\": "
                                    "\"float\"}, \"on\": {\"type\": \"boolean\"}, \"s\": {\"type\": \"string\"}, "
                                    "\"ids\": {\"type\": \"array\", \"items\": "
                                    "{\"type\": \"integer\"}}, \"tags\": {\"type\": \"array\", \"items\": {\"type\": "
                                    "\"string\"}}, \"m\": {\"type\": \"dict\", "
                                    "\"properties\": {\"k\": {\"type\": \"integer\"}}}}, \"required\": []}}]";
    static const char truth[] = "[{\"f\": {\"n\": [5, \"\"], \"r\": [0.5, \"\"], \"on\": [true, \"\"], \"s\": [\"a\", "
                                "\"\"], \"ids\": [[2, 1], \"\"], "
                                "\"tags\": [\"\"], \"m\": [{\"k\": [3]}, \"\"]}}]";
    static const struct {
        const char *answer;
        bool right;
    } cases[] = {{"f()", true},
                 {"f(n=5, r=0.5, on=True, s='a', ids=[2, 1], m={'k': 3})", true},
                 {"f(n='')", false},
                 {"f(r='')", false},
                 {"f(on='')", false},
                 {"f(ids='')", false},
                 {"f(m='')", false},
                 {"f(s='')", true},
                 {"f(ids=[2.0, 1.0])", false},
                 {"f(ids=[2, 1.0])", false},
                 {"f(m={'k': 3.0})", false},
                 {"f(tags=[])", true},
                 {"f(ids=[])", true},
                 {"f(tags=[''])", false},
                 {"f(n=[])", false}};
    json_t *described = from_json(functions), *accepted = from_json(truth);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *calls = mq__bfcl_answer_calls(cases[i].answer, described);
        if (mq__bfcl_match(calls, described, accepted, MQ_BFCL_PYTHON) != cases[i].right)
            fail_msg("%s", cases[i].answer);
        json_decref(calls);
    }
    json_decref(described);
    json_decref(accepted);
}

static void parallel_calls_in_any_order(void **state)
{
    (void)state;
    static const char truth[] =
        "[{\"geo.area\": {\"base\": [1], \"height\": [2]}}, {\"geo.area\": {\"base\": [3], \"height\": [4]}}]";
    assert_true(answer_is_right("[geo.area(base=3, height=4), geo.area(base=1, height=2)]", truth));
    assert_false(answer_is_right("[geo.area(base=3, height=4), geo.area(base=3, height=4)]", truth));
    assert_false(answer_is_right("[geo.area(base=3, height=4)]", truth));
}

static void java_values_as_source(void **state)
{
    (void)state;
    json_t *functions = from_json("[{\"name\": \"f\", \"parameters\": {\"properties\": {\"n\": {\"type\": \"long\"},"
                                  "\"ids\": {\"type\": \"ArrayList\", \"items\": {\"type\": \"integer\"}},"
                                  "\"x\": {\"type\": \"any\"}}, \"required\": [\"n\"]}}]");
    json_t *truth = from_json("[{\"f\": {\"n\": [5], \"ids\": [[1, 2], \"\"], \"x\": [\"control\", \"\"]}}]");
    static const struct {
        const char *answer;
        bool right;
    } cases[] = {
        {"{\"name\": \"f\", \"arguments\": {\"n\": \"5L\", \"ids\": \"new ArrayList<>(Arrays.asList(1, 2))\", \"x\": "
         "\"control\"}}",
         true},
        {"{\"name\": \"f\", \"arguments\": {\"n\": 5}}", true},
        {"{\"name\": \"f\", \"arguments\": {\"n\": \"5\"}}", false},
        {"{\"name\": \"f\", \"arguments\": {\"n\": \"5L\", \"ids\": \"new ArrayList<>() {{ add(1); add(2); }}\"}}",
         true},
        {"{\"name\": \"f\", \"arguments\": {\"n\": \"5L\", \"ids\": \"Arrays.asList(1L, 2L)\"}}", false},
        {"{\"name\": \"f\", \"arguments\": {\"n\": \"five\"}}", false},
        {"{\"name\": \"f\", \"arguments\": {\"n\": \"5L\", \"ids\": \"Arrays.asList(2, 1)\"}}", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *calls = mq__bfcl_answer_calls(cases[i].answer, functions);
        if (mq__bfcl_match(calls, functions, truth, MQ_BFCL_JAVA) != cases[i].right) fail_msg("%s", cases[i].answer);
        json_decref(calls);
    }
    json_decref(functions);
    json_decref(truth);
}

static void turns_are_compared_in_order(void **state)
{
    (void)state;
    json_t *functions =
        from_json("[{\"name\": \"cd\", \"parameters\": {\"properties\": {\"folder\": {\"type\": \"string\"}}}},"
                  "{\"name\": \"ls\", \"parameters\": {\"properties\": {}}}]");
    json_t *texts = from_json("[\"cd('a')\", \"ls()\"]");
    static const struct {
        const char *answer;
        bool right;
    } cases[] = {{"[cd(folder='a'), ls()]", true},  {"[ls(), cd(folder='a')]", false},
                 {"[cd(folder='A'), ls()]", false}, {"[cd(folder='a'), ls(), ls()]", false},
                 {"[cd('a', 'b'), ls()]", false},   {"", false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *calls = mq__bfcl_answer_calls(cases[i].answer, functions);
        if (mq__bfcl_same_calls(calls, functions, texts) != cases[i].right) fail_msg("%s", cases[i].answer);
        json_decref(calls);
    }
    json_decref(functions);
    json_decref(texts);
}

static void tools_follow_json_schema(void **state)
{
    (void)state;
    json_t *functions = from_json(functions_text), *tools = mq__bfcl_tools(functions, MQ_BFCL_PYTHON);
    const json_t *f = json_object_get(json_array_get(tools, 0), "function"), *p = json_object_get(f, "parameters");
    assert_string_equal(json_string_value(json_object_get(f, "name")), "geo_area");
    assert_string_equal(json_string_value(json_object_get(p, "type")), "object");
    const json_t *height = json_object_get(json_object_get(p, "properties"), "height");
    assert_string_equal(json_string_value(json_object_get(height, "type")), "number");
    json_decref(tools);
    json_decref(functions);
}

static void bad_files_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "[1, 2",
        "{\"id\": \"a\"}",
        "{\"id\": 5, \"question\": [[{\"role\": \"user\", \"content\": \"x\"}]], \"function\": []}",
        "{\"id\": \"a\", \"question\": [5], \"function\": []}",
        "{\"id\": \"a\", \"question\": [[{\"role\": \"user\"}]], \"function\": []}",
        "{\"id\": \"a\", \"question\": [[{\"role\": \"user\", \"content\": \"x\"}]], \"function\": [{}]}",
        "5",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        json_t *items = NULL;
        mq_error error = {0};
        unit_write("BFCL_v4_irrelevance.json", bad[i], strlen(bad[i]));
        assert_int_equal(mq__bfcl_read(unit_dir, "irrelevance", &items, &error), MQ_FORMAT);
        assert_true(error.text[0] != '\0');
        json_decref(items);
    }
    json_t *items = NULL;
    mq_error error = {0};
    assert_int_equal(mq__bfcl_read(unit_dir, "nonsense", &items, &error), MQ_USAGE);
    json_decref(items);
    assert_int_equal(mq__bfcl_read(unit_dir, "simple_python", &items, &error), MQ_IO);
    json_decref(items);
}

/* ------------------------------------------------------------------ the published files */

static bool has_parameter(const json_t *functions, const char *name, const char *parameter)
{
    const json_t *function;
    size_t i;
    json_array_foreach(functions, i, function)
    {
        if (strcmp(name, json_string_value(json_object_get(function, "name"))) != 0) continue;
        return json_object_get(json_object_get(json_object_get(function, "parameters"), "properties"), parameter) !=
               NULL;
    }
    return false;
}

/* The first accepted value of each parameter, "" (left out) only where nothing else is accepted. Two published answers name a
 * parameter that the function does not have, and may be left out. */
static json_t *first_values(const json_t *truth, const json_t *functions)
{
    json_t *calls = json_array(), *accepted;
    const json_t *one;
    const char *key;
    size_t i;
    json_array_foreach(truth, i, one)
    {
        void *only = json_object_iter((json_t *)(uintptr_t)one);
        json_t *arguments = json_object();
        json_object_foreach(json_object_iter_value(only), key, accepted)
        {
            const json_t *value = json_array_get(accepted, 0);
            if (json_is_string(value) && json_string_length(value) == 0 && json_array_size(accepted) > 1) {
                value = json_array_get(accepted, 1);
            }
            if (json_is_string(value) && json_string_length(value) == 0) continue;
            if (!has_parameter(functions, json_object_iter_key(only), key)) continue;
            json_object_set(arguments, key, value ? (json_t *)(uintptr_t)value : accepted);
        }
        json_array_append_new(calls, json_pack("{ssso}", "name", json_object_iter_key(only), "arguments", arguments));
    }
    return calls;
}

/* Nested maps list accepted values too: their first ones. */
static json_t *flat(const json_t *value)
{
    if (json_is_array(value)) {
        json_t *out = json_array();
        for (size_t i = 0; i < json_array_size(value); i++) {
            json_array_append_new(out, flat(json_array_get(value, i)));
        }
        return out;
    }
    if (!json_is_object(value)) return json_deep_copy(value);
    json_t *out = json_object(), *accepted;
    const char *key;
    json_object_foreach((json_t *)(uintptr_t)value, key, accepted)
    {
        const json_t *first = json_is_array(accepted) ? json_array_get(accepted, 0) : accepted;
        if (!first || (json_is_string(first) && json_string_length(first) == 0)) continue;
        json_object_set_new(out, key, json_deep_copy(first));
    }
    return out;
}

static void flatten_arguments(json_t *calls)
{
    json_t *call, *value;
    const char *key;
    size_t i;
    json_array_foreach(calls, i, call)
    {
        json_t *arguments = json_object_get(call, "arguments"), *out = json_object();
        json_object_foreach(arguments, key, value) json_object_set_new(out, key, flat(value));
        json_object_set_new(call, "arguments", out);
    }
}

/* The answer of item `from` as a model would write it, scored as item `to`. */
static bool scored(const json_t *from, const json_t *to)
{
    const char *category = json_string_value(json_object_get(to, "category"));
    json_t *calls = first_values(json_object_get(from, "ground_truth"), json_object_get(from, "function"));
    flatten_arguments(calls);
    char *text = json_dumps(calls, 0);
    json_t *read = mq__bfcl_answer_calls(text, json_object_get(to, "function"));
    const bool right = mq__bfcl_match(read, json_object_get(to, "function"), json_object_get(to, "ground_truth"),
                                      mq__bfcl_language_of(category));
    free(text);
    json_decref(calls);
    json_decref(read);
    return right;
}

/* A value as a program of that language has it. type: of its numbers. */
static void put_source(mq_buf *out, const json_t *value, const char *type, bool java)
{
    const bool list = json_is_array(value);
    const char *key, *suffix = !java ? "" : strcmp(type, "long") == 0 ? "L" : strcmp(type, "float") == 0 ? "f" : "";
    json_t *part;
    size_t i;
    if (json_is_number(value)) {
        mq__buf_printf(out, "%.17g%s", json_number_value(value), suffix);
    } else if (list || json_is_object(value)) {
        mq__buf_puts(out, java   ? list ? "new ArrayList<>(Arrays.asList(" : "new HashMap<String, Object>() {{ "
                          : list ? "["
                                 : "{");
        json_array_foreach(value, i, part)
        {
            mq__buf_puts(out, i ? ", " : "");
            put_source(out, part, type, java);
        }
        json_object_foreach((json_t *)(uintptr_t)value, key, part)
        {
            mq__buf_printf(out, java ? "put(\"%s\", " : "'%s': ", key);
            put_source(out, part, type, java);
            mq__buf_puts(out, java ? "); " : ", ");
        }
        mq__buf_puts(out, java ? list ? "))" : "}}" : list ? "]" : "}");
    } else {
        char *text = json_dumps(value, JSON_ENCODE_ANY);
        mq__buf_puts(out, text);
        free(text);
    }
}

/* Whether the item's answer is right when its values are written as source; texts stay as they are (variables, or any type). */
static bool scored_as_source(const json_t *item, mq_bfcl_language language)
{
    const json_t *functions = json_object_get(item, "function"), *truth = json_object_get(item, "ground_truth");
    const json_t *properties =
        json_object_get(json_object_get(json_array_get(functions, 0), "parameters"), "properties");
    json_t *calls = first_values(truth, functions), *value;
    flatten_arguments(calls);
    json_t *arguments = json_object_get(json_array_get(calls, 0), "arguments"), *written = json_object();
    const char *key;
    json_object_foreach(arguments, key, value)
    {
        const json_t *property = json_object_get(properties, key), *items = json_object_get(property, "items");
        mq_buf text = {0};
        put_source(&text, value, json_string_value(json_object_get(items ? items : property, "type")),
                   language == MQ_BFCL_JAVA);
        json_object_set_new(written, key,
                            json_is_string(value) ? json_incref(value) : json_stringn(text.data, text.len));
        mq__buf_free(&text);
    }
    json_object_set_new(json_array_get(calls, 0), "arguments", written);
    const bool right = mq__bfcl_match(calls, functions, truth, language);
    json_decref(calls);
    return right;
}

static void published_sources(void **state)
{
    (void)state;
    const char *shared = getenv("MQ_SHARED");
    char folder[512];
    json_t *items = NULL, *item;
    mq_error error = {0};
    size_t i;
    if (!shared) skip();
    snprintf(folder, sizeof folder, "%s/data/eval/bfcl_v4", shared);
    if (mq__bfcl_read(folder, "simple_java,simple_javascript", &items, &error) != MQ_OK) fail_msg("%s", error.text);
    json_array_foreach(items, i, item)
    {
        const char *category = json_string_value(json_object_get(item, "category"));
        if (!scored_as_source(item, mq__bfcl_language_of(category)))
            fail_msg("%s: its own answer is wrong", json_string_value(json_object_get(item, "id")));
    }
    assert_int_equal(json_array_size(items), 150);
    json_decref(items);
}

static void published_answers(void **state)
{
    (void)state;
    const char *shared = getenv("MQ_SHARED");
    char folder[512];
    json_t *items = NULL, *item;
    mq_error error = {0};
    if (!shared) skip();
    snprintf(folder, sizeof folder, "%s/data/eval/bfcl_v4", shared);
    if (mq__bfcl_read(folder, NULL, &items, &error) != MQ_OK) fail_msg("%s", error.text);
    json_t *by_category = json_object(), *list;
    const char *category;
    size_t i, all = 0, all_shuffled = 0;
    json_array_foreach(items, i, item)
    {
        category = json_string_value(json_object_get(item, "category"));
        if (!json_object_get(item, "ground_truth")) continue;
        if (!json_object_get(by_category, category)) json_object_set_new(by_category, category, json_array());
        json_array_append(json_object_get(by_category, category), item);
    }
    assert_true(json_object_size(by_category) >= 10);
    json_object_foreach(by_category, category, list)
    {
        const size_t count = json_array_size(list);
        size_t right = 0, shuffled = 0;
        if (strncmp(category, "multi_turn", 10) == 0) continue; /* test_eval_bfcl_turns.c has them */
        json_array_foreach(list, i, item)
        {
            const json_t *other = json_array_get(list, (i + count / 2) % count);
            const bool ok = scored(item, item);
            if (!ok) print_message("%s: its own answer is wrong\n", json_string_value(json_object_get(item, "id")));
            right += ok;
            shuffled += scored(other, item);
        }
        print_message("%-26s %zu items, %zu right, %zu shuffled\n", category, count, right, shuffled);
        assert_int_equal(right, count);
        assert_true(shuffled <= 1 || shuffled * 20 <= count); /* small categories repeat themselves */
        all += count;
        all_shuffled += shuffled;
    }
    assert_true(all_shuffled * 20 <= all);
    json_decref(by_category);
    json_decref(items);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(literals),
        cmocka_unit_test(numbers_by_type),
        cmocka_unit_test(right_answers),
        cmocka_unit_test(wrong_answers),
        cmocka_unit_test(optional_and_nested_values),
        cmocka_unit_test(parallel_calls_in_any_order),
        cmocka_unit_test(java_values_as_source),
        cmocka_unit_test(turns_are_compared_in_order),
        cmocka_unit_test(tools_follow_json_schema),
        cmocka_unit_test_setup_teardown(bad_files_are_refused, unit_setup, unit_teardown),
        cmocka_unit_test(published_answers),
        cmocka_unit_test(published_sources),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
