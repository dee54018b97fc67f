/* Keywords of JSON schema under masks: answers drawn at random keep them, what keeps them is let through byte by byte, and nothing else. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "unit_masks.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <pcre2.h>

/* ---- texts */

typedef struct keyword_case {
    const char *schema;
    const char *good[8], *bad[8]; /* answers */
} keyword_case;

static void check_case(const keyword_case *k)
{
    for (int i = 0; i < 16; i++) {
        const bool good = i < 8;
        const char *answer = good ? k->good[i] : k->bad[i - 8];
        if (!answer) continue;
        mq_constraint *c = schema_constraint(k->schema);
        const long refused = try_text(c, answer);
        if ((refused < 0) != good) fail_msg("%s for %s: refused at %ld", answer, k->schema, refused);
        mq_constraint_free(c);
    }
}

#define PATTERN(p)   "{\"type\":\"string\",\"pattern\":\"" p "\"}"
#define FORMAT(name) "{\"type\":\"string\",\"format\":\"" name "\"}"

static const keyword_case texts[] = {
    {PATTERN("^a+b?$"), {"\"a\"", "\"aaab\""}, {"\"\"", "\"b\"", "\"abb\"", "\"ba\"", "\"\\u0061\""}},
    {PATTERN("b"),
     {"\"b\"", "\"xbx\"", "\"b\\n\"",
      "\"\xc3\xa9\\u0041"
      "b\""},
     {"\"\"", "\"xx\""}},
    {PATTERN("^(cat|dog)s?$"), {"\"cat\"", "\"dogs\""}, {"\"catdog\"", "\"catss\"", "\"ca\""}},
    {PATTERN("^x|y$"), {"\"x\"", "\"xz\"", "\"zy\""}, {"\"zx\"", "\"yz\""}},
    {PATTERN("^$|^[0-9]{3}$"), {"\"\"", "\"123\""}, {"\"12\"", "\"1234\""}},
    {PATTERN("(^a$|^b$)"), {"\"a\"", "\"b\""}, {"\"ab\"", "\"c\""}},
    {PATTERN("^[^a-y]$"),
     {"\"z\"", "\"\xc3\xa9\"", "\"\xf0\x9f\x98\x80\"", "\"\\\"\"", "\"\\n\"", "\"\\u001F\""},
     {"\"m\"", "\"\"", "\"zz\"", "\"\\/\""}},
    {PATTERN("^\\\\d{2,4}?$"), {"\"12\"", "\"1234\""}, {"\"1\"", "\"12345\"", "\"1a\""}},
    {PATTERN("^\\\\w\\\\s\\\\W$"), {"\"_ -\"", "\"a\\t\xc3\xa9\""}, {"\"__-\"", "\"a a\""}},
    {PATTERN("^\\\\S\\\\D$"), {"\"aa\"", "\"1-\""}, {"\" a\"", "\"11\""}},
    {PATTERN("^[\\\\w.-]+\\\\.tx{0}t$"), {"\"a-b.c.tt\""}, {"\".tt\"", "\"a.txt\""}},
    {PATTERN("^\\\\u00e9[\\u00e0-\\u00ff]\\\\ud83d\\\\ude00$"),
     {"\"\xc3\xa9\xc3\xa0\xf0\x9f\x98\x80\""},
     {"\"\xc3\xa9\xc3\x9f\xf0\x9f\x98\x80\"", "\"e\""}},
    {PATTERN("^\\\\n\\\\\\\\\\\\/\\\"\\\\x41\\\\u{1F600}$"),
     {"\"\\n\\\\/\\\"A\xf0\x9f\x98\x80\""},
     {"\"n\"", "\"\\n\\\\\\/\""}},
    {PATTERN("^a{,2}{x}$"), {"\"a{,2}{x}\""}, {"\"aa\""}},
    {PATTERN("^(?:a(?<n>b|c){2}){1,2}$"), {"\"abc\"", "\"abbacc\""}, {"\"ab\"", "\"abca\""}},
    {PATTERN("^(a*)*$"), {"\"\"", "\"aaaa\""}, {"\"ab\""}},
    {PATTERN("^[\\\\b\\\\]a-]$"), {"\"\\b\"", "\"]\"", "\"-\""}, {"\"\\\\\"", "\"b\""}},
    {PATTERN("^.$"), {"\"\xe2\x82\xac\""}, {"\"\\n\"", "\"\"", "\"\xe2\x80\xa8\""}},
    {"{\"pattern\":\"^[a-z]+$\",\"minLength\":2,\"maxLength\":3,\"type\":\"string\"}",
     {"\"ab\"", "\"abc\""},
     {"\"a\"", "\"abcd\"", "\"AB\""}},
    {"{\"pattern\":\"^[a-z]{2,9}$\",\"maxLength\":9}", {"\"ab\""}, {"\"a\"", "1"}},
    {"{\"type\":\"string\",\"format\":\"email\",\"maxLength\":5}", {"\"a@b.c\"", "\"any\""}, {"\"a@b.cd\""}},
    {"{\"type\":\"string\",\"format\":\"uuid\",\"minLength\":1}", {NULL}, {"\"x\""}},
    {"{\"type\":\"string\",\"format\":\"thing\"}", {"\"any\""}, {"1"}},
    {"{\"type\":\"string\",\"maxLength\":2000}", {"\"any\""}, {NULL}},
    {FORMAT("date"),
     {"\"2024-02-29\"", "\"1999-12-31\""},
     {"\"2024-13-01\"", "\"2024-00-10\"", "\"2024-1-1\"", "\"2024-10-32\""}},
    {FORMAT("time"), {"\"23:59:59Z\"", "\"00:00:00.123+02:00\""}, {"\"24:00:00Z\"", "\"10:00\"", "\"10:00:00\""}},
    {FORMAT("date-time"), {"\"2024-02-29T12:00:00Z\""}, {"\"2024-02-29 12:00:00Z\"", "\"2024-02-29\""}},
    {FORMAT("duration"), {"\"P1Y2M3DT4H5M6S\"", "\"PT5M\"", "\"P3W\""}, {"\"P\"", "\"PT\"", "\"P1Y3D\"", "\"1Y\""}},
    {FORMAT("email"), {"\"a.b+c@example.org\""}, {"\"a@b\"", "\"@b.c\"", "\"a b@c.d\"", "\"a..b@c.d\""}},
    {FORMAT("hostname"), {"\"a\"", "\"a-1.example.org\""}, {"\"-a\"", "\"a-\"", "\"a..b\"", "\"a_b\""}},
    {FORMAT("ipv4"), {"\"0.10.200.255\""}, {"\"256.1.1.1\"", "\"1.1.1\"", "\"01.1.1.1\""}},
    {FORMAT("ipv6"),
     {"\"::\"", "\"::1\"", "\"fe80::1:2\"", "\"1:2:3:4:5:6:7:8\"", "\"1::\"", "\"1:2:3:4:5:6:7::\""},
     {"\"1:2\"", "\"1::2::3\"", "\"12345::\"", "\":1\""}},
    {FORMAT("uuid"), {"\"123e4567-E89b-12d3-a456-426614174000\""}, {"\"123e4567e89b12d3a456426614174000\"", "\"g\""}},
    {FORMAT("uri"),
     {"\"https://example.org/a?b=c%20d#e\"", "\"urn:x:y\""},
     {"\"//example.org\"", "\"http:\"", "\"a:b c\"", "\"a:%2\""}},
    {"{\"type\":\"integer\",\"multipleOf\":100,\"minimum\":-250,\"maximum\":1000}",
     {"0", "-200", "1000", "100"},
     {"50", "-300", "1100", "1010", "00"}},
    {"{\"type\":\"number\",\"multipleOf\":0.01,\"minimum\":0,\"exclusiveMaximum\":100}",
     {"0", "0.5", "99.99", "12.34"},
     {"0.001", "100", "-1", "1e2"}},
    {"{\"type\":\"number\",\"exclusiveMinimum\":0}", {"0.1", "1", "0.00001", "123456.25"}, {"0", "0.0", "-1", "-0"}},
    {"{\"type\":\"number\",\"minimum\":-1.5,\"maximum\":2.25}",
     {"-1.5", "-1.50", "-1.4", "0", "2.25", "2.2", "-0.1"},
     {"-1.51", "2.26", "2.3", "3", "-2"}},
    {"{\"type\":\"number\",\"maximum\":5}", {"5", "5.0", "-7.5", "4.999"}, {"5.1", "6", "10", "05"}},
    {"{\"type\":\"number\",\"minimum\":2,\"exclusiveMinimum\":true}", {"2.1", "3"}, {"2", "2.0", "1"}},
    {"{\"minimum\":0.5,\"maximum\":0.5}", {"0.5", "0.500"}, {"0.51", "0", "0.4"}},
    {"{\"type\":\"integer\",\"exclusiveMinimum\":9,\"exclusiveMaximum\":11}", {"10"}, {"9", "11", "1", "100"}},
    {"{\"type\":\"array\",\"minItems\":300,\"items\":{\"type\":\"null\"}}", {NULL}, {"[null]"}},
    {"{\"type\":\"array\",\"minItems\":2,\"prefixItems\":[{\"type\":\"null\"}],\"items\":{\"type\":\"boolean\"}}",
     {"[null,true]", "[null,true,false]"},
     {"[null]", "[]", "[null,null]"}},
    {"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"null\"},false]}", {"[null]", "[]"}, {"[null,", "[null,1]"}},
    /* as drafts before 2020-12 have it */
    {"{\"minItems\":2,\"items\":[{\"type\":\"null\"},{\"type\":\"string\"}],\"additionalItems\":{\"type\":\"boolean\"}"
     "}",
     {"[null,\"a\"]", "[null,\"a\",true]"},
     {"[null]", "[1", "[null,true", "[null,\"a\",1"}},
    {"{\"type\":\"array\",\"items\":[{\"type\":\"null\"}],\"additionalItems\":false}",
     {"[null]", "[]"},
     {"[null,", "[1"}},
    {"{\"type\":\"array\",\"items\":[{\"type\":\"null\"}]}", {"[null]", "[null,1]"}, {"[1"}},
    {"{\"type\":\"object\",\"maxProperties\":2,\"minProperties\":1}",
     {"{\"a\":1}", "{\"a\":1,\"b\":2}"},
     {"{}", "{\"a\":1,\"b\":2,\"c\":3}"}},
    {"{\"properties\":{\"a\":{\"type\":\"null\"},\"b\":{\"type\":\"null\"}},\"minProperties\":1}",
     {"{\"a\":null}", "{\"b\":null}"},
     {"{}"}},
    {"{\"properties\":{\"ab\":{\"type\":\"null\"},\"a\":{\"type\":\"null\"}},\"required\":[\"a\"],"
     "\"additionalProperties\":{\"type\":\"boolean\"}}",
     {"{\"a\":null}", "{\"ab\":null,\"a\":null,\"b\":true}", "{\"a\":null,\"abc\":true,\"\":false}",
      "{\"a\":null,\"a\xc3\xa9\":true}", "{\"a\":null,\"b\\u0061\":true}"},
     {"{\"b\":true}", "{\"a\":null,\"a\":true}", "{\"a\":null,\"ab\":true}", "{\"a\":null,\"\\u0061\":true}",
      "{\"a\":null,\"b\":null}", "{\"a\":true}"}},
    {"{\"properties\":{\"\xc3\xa9\":{}},\"additionalProperties\":{\"type\":\"null\"}}",
     {"{}", "{\"x\":null}", "{\"\xc3\xa9\":1,\"x\":null,\"y\":null}"},
     {"{\"x\":1}", "{\"x\":null,\"\xc3\xa9\":1}"}},
    {"{\"properties\":{\"a\":{}},\"additionalProperties\":{\"not\":{}}}", {"{\"a\":1}"}, {"{\"b\":1}"}},
    {"{\"required\":[\"a\"],\"additionalProperties\":{\"type\":\"integer\"}}", {"{\"a\":1}"}, {"{\"a\":null}", "{}"}},
    {"{\"allOf\":[{\"properties\":{\"p\":{\"minimum\":3}}},{\"properties\":{\"p\":{\"maximum\":4}}}]}",
     {"{\"p\":3}", "{\"p\":4}"},
     {"{\"p\":2}", "{\"p\":5}"}},
    {"{\"$defs\":{\"s\":{\"type\":\"string\"}},\"$ref\":\"#/$defs/s\",\"maxLength\":1}", {"\"a\""}, {"\"ab\"", "1"}},
    {"{\"allOf\":[{\"allOf\":[{\"type\":\"integer\"}]},{\"minimum\":5}]}", {"5"}, {"4", "5.5"}},
};

static void test_answers_are_let_through(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        check_case(&texts[i]);
    }
}

/* ---- strictness */

static void test_strict_refuses_nothing_that_is_kept(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        mq_constraint *c = NULL;
        mq_error error = {0};
        const mq_constraint_options options = {
            .schema = texts[i].schema, .schema_bytes = strlen(texts[i].schema), .strict = true};
        if (mq_constraint_new(vocabulary, &options, &c, NULL, &error) != MQ_OK) {
            fail_msg("%s: %s", texts[i].schema, error.text);
        }
        mq_constraint_free(c);
    }
}

static void test_patterns_that_are_left_out(void **state)
{
    (void)state;
    static const struct {
        const char *schema, *names;
    } cases[] = {
        {PATTERN("a(?!b)"), "pattern (a look around)"},
        {PATTERN("(?<=a)b"), "pattern (a look around)"},
        {PATTERN("(a)\\\\1"), "pattern (a back reference)"},
        {PATTERN("a\\\\b"), "pattern (a word boundary)"},
        {PATTERN("a^b"), "pattern (an anchor in the middle)"},
        {PATTERN("(a"), "pattern (not a regular expression)"},
        {PATTERN("a)"), "pattern (not a regular expression)"},
        {PATTERN("[a"), "pattern (not a regular expression)"},
        {PATTERN("*a"), "pattern (not a regular expression)"},
        {PATTERN("[b-a]"), "pattern (not a regular expression)"},
        {PATTERN("a{2,1}"), "pattern (not a regular expression)"},
        {PATTERN("\\\\p{L}"), "pattern (an escape of another kind)"},
        {PATTERN("(a{0,1000}){0,1000}"), "pattern (too large)"},
        {PATTERN("((((){1000}){1000}){1000}){1000}"), "pattern (too large)"},
        {PATTERN("a{99999}"), "pattern (too large)"},
        {"{\"pattern\":\"^a+b$\",\"maxLength\":3}", "maxLength"},
        {"{\"pattern\":\"a\",\"minLength\":3}", "minLength"},
        {"{\"pattern\":1}", "pattern"},
        {"{\"minProperties\":2}", "minProperties"},
        {"{\"maxProperties\":1,\"properties\":{\"a\":{},\"b\":{}}}", "maxProperties"},
        {"{\"allOf\":[{\"minimum\":1},{\"minimum\":2}]}", "minimum"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mq_constraint *c = NULL;
        char *dropped = NULL;
        mq_error error = {0};
        mq_constraint_options options = {.schema = cases[i].schema, .schema_bytes = strlen(cases[i].schema)};
        if (mq_constraint_new(vocabulary, &options, &c, &dropped, &error) != MQ_OK)
            fail_msg("%s: %s", cases[i].schema, error.text);
        if (!dropped || !strstr(dropped, cases[i].names))
            fail_msg("%s: %s", cases[i].schema, dropped ? dropped : "nothing");
        mq_free(dropped);
        mq_constraint_free(c);
        options.strict = true;
        unit_refused(mq_constraint_new(vocabulary, &options, &c, NULL, &error), MQ_UNSUPPORTED, &error, cases[i].names);
    }
}

/* ---- random answers against patterns */

static bool matches(const char *pattern, const char *value)
{
    int code;
    PCRE2_SIZE at;
    pcre2_code *compiled =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_DOLLAR_ENDONLY, &code, &at, NULL);
    if (!compiled) fail_msg("%s: error %d at %zu", pattern, code, at);
    pcre2_match_data *data = pcre2_match_data_create_from_pattern(compiled, NULL);
    const int found = pcre2_match(compiled, (PCRE2_SPTR)value, strlen(value), 0, 0, data, NULL);
    pcre2_match_data_free(data);
    pcre2_code_free(compiled);
    return found >= 0;
}

/* The string that a walk gives; NULL: it did not come to its end, or it has a NUL. */
static json_t *draw_value(const char *schema, unsigned seed)
{
    bool ended;
    mq_constraint *c = schema_constraint(schema);
    char *answer = walk(c, seed, &ended);
    mq_constraint_free(c);
    json_t *value = json_loads(answer, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (ended && !value) fail_msg("%s: %s", schema, answer);
    if (!ended) {
        json_decref(value);
        value = NULL;
    }
    mq_free(answer);
    return value;
}

static void test_random_strings_match(void **state)
{
    (void)state;
    static const char *const patterns[] = {
        "^a+b?$",
        "b",
        "^(cat|dog)s?$",
        "^x|y$",
        "^[^a-y]$",
        "^\\d{2,4}?$",
        "^\\w\\s\\W$",
        "^\\S\\D$",
        "[^\\s\\w]{3}",
        "^.{0,20}$",
        "^[\\x{80}-\\x{3000}]{1,5}$",
        "^(a|b)*abb$",
        "^([a-z]+\\.)+[A-Z]{2,3}$",
        "^[\\W\\d]{2}$",
        "^$|^[0-9]{3}$",
        "(^ab?$|q$)",
        "^[^\\x00-\\x7f\\x{100}-\\x{10ffff}]+$",
        "^(?:[^\"\\\\]|\\\\.)*$",
    };
    int ends = 0;
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        char ours[128], schema[256];
        size_t n = 0;
        for (const char *c = patterns[i]; *c; c++) { /* PCRE2's \x{...} is our \u{...} */
            ours[n++] = c[0] == 'x' && c[1] == '{' ? 'u' : *c;
        }
        ours[n] = 0;
        json_t *made = json_pack("{s:s,s:s}", "type", "string", "pattern", ours);
        assert_true(json_dumpb(made, schema, sizeof schema - 1, 0) < sizeof schema);
        schema[json_dumpb(made, schema, sizeof schema - 1, 0)] = 0;
        json_decref(made);
        for (unsigned seed = 0; seed < 12; seed++) {
            json_t *value = draw_value(schema, seed * 7919 + (unsigned)i);
            const char *string = json_string_value(value);
            if (value && strlen(string) == json_string_length(value)) {
                if (!matches(patterns[i], string)) fail_msg("%s: %s", patterns[i], string);
                ends++;
            }
            json_decref(value);
        }
    }
    assert_true(ends > 150);
}

static bool has_format(const char *name, const char *value)
{
    uint8_t address[16];
    unsigned n[6] = {1, 1, 1};
    int end = 0;
    if (strcmp(name, "ipv4") == 0) return inet_pton(AF_INET, value, address) == 1;
    if (strcmp(name, "ipv6") == 0) return inet_pton(AF_INET6, value, address) == 1;
    if (strncmp(name, "date", 4) == 0) {
        if (sscanf(value, "%4u-%2u-%2u%n", &n[0], &n[1], &n[2], &end) != 3 || end != 10) return false;
        if (n[1] < 1 || n[1] > 12 || n[2] < 1 || n[2] > 31 || (value[10] == 'T') != (name[4] == '-')) return false;
        value += 11;
    }
    if (strcmp(name, "date") == 0) return value[-1] == 0;
    if (strcmp(name, "uuid") == 0) return strlen(value) == 36 && strspn(value, "0123456789abcdefABCDEF-") == 36;
    const bool read = sscanf(value, "%2u:%2u:%2u%n", &n[3], &n[4], &n[5], &end) == 3;
    return read && end == 8 && n[3] < 24 && n[4] < 60 && n[5] < 60 && strpbrk(value + 8, "Z+-");
}

static void test_random_formats(void **state)
{
    (void)state;
    static const char *const names[] = {"ipv4", "ipv6", "date", "date-time", "time", "uuid"};
    int ends = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char schema[80];
        snprintf(schema, sizeof schema, "{\"type\":\"string\",\"format\":\"%s\"}", names[i]);
        for (unsigned seed = 0; seed < 20; seed++) {
            json_t *value = draw_value(schema, seed * 31 + (unsigned)i);
            if (value && !has_format(names[i], json_string_value(value)))
                fail_msg("%s: %s", names[i], json_string_value(value));
            ends += value != NULL;
            json_decref(value);
        }
    }
    assert_true(ends > 100);
}

/* ---- numbers */

/* A bound of a random size, in units of 10^-places. */
static long long random_bound(unsigned *seed, long long most)
{
    long long value = (long long)next_random(seed) << 24 | next_random(seed);
    for (unsigned i = next_random(seed) % 15; i > 0; i--) {
        value /= 10;
    }
    value %= most;
    return next_random(seed) % 2 ? -value : value;
}

static void check_numbers(long long low, long long high, bool exclusive, int places, unsigned seed)
{
    char schema[256], text_of[64];
    const double unit = pow(10, -places), least = (double)low * unit, most = (double)high * unit;
    snprintf(schema, sizeof schema, "{\"type\":\"%s\",\"%s\":%.*f,\"%s\":%.*f}", places ? "number" : "integer",
             exclusive ? "exclusiveMinimum" : "minimum", places, least, exclusive ? "exclusiveMaximum" : "maximum",
             places, most);
    for (int i = 0; i < 4; i++) {
        json_t *value = draw_value(schema, seed + (unsigned)i);
        const double is = json_number_value(value);
        const double from = strtod(strstr(schema, "imum\":") + 6, NULL),
                     to = strtod(strstr(schema, "aximum\":") + 8, NULL);
        if (value && (exclusive ? is <= from || is >= to : is < from || is > to)) fail_msg("%s: %.17g", schema, is);
        assert_true(!value || places || json_is_integer(value));
        json_decref(value);
    }
    for (int i = 0; i < 8; i++) { /* at, within and beyond the bounds */
        const long long near = i % 2 ? high : low,
                        within = low + (long long)(next_random(&seed) % 1000) * ((high - low) / 1000);
        const long long try = i < 6 ? near + i / 2 - 1 : within;
        const bool good = exclusive ? try > low && try < high : try >= low && try <= high;
        const long long scale = places == 0 ? 1 : places == 1 ? 10 : places == 2 ? 100 : 1000, size = try < 0 ? -
        try : try
            ;
        int n = snprintf(text_of, sizeof text_of, "%s%lld", try < 0 ? "-" : "", size / scale);
        if (places) snprintf(text_of + n, sizeof text_of - (size_t)n, ".%0*lld", places, size % scale);
        mq_constraint *c = schema_constraint(schema);
        const long refused = try_text(c, text_of);
        if ((refused < 0) != good) fail_msg("%s for %s: refused at %ld", text_of, schema, refused);
        mq_constraint_free(c);
    }
}

static void test_random_bounds(void **state)
{
    (void)state;
    unsigned seed = 5;
    for (int i = 0; i < 60; i++) {
        const int places = i % 4;
        const long long most = places ? 1000000000 : 100000000000000;
        long long low = random_bound(&seed, most), high = random_bound(&seed, most);
        if (i % 5 == 0) high = low + next_random(&seed) % 50;
        if (low > high) {
            const long long swap = low;
            low = high;
            high = swap;
        }
        const bool exclusive = i % 3 == 0 && high - low > 1;
        check_numbers(low, high, exclusive, places, seed);
    }
}

/* Numbers of Gemma's calls are those of JSON. */
static void test_numbers_of_calls(void **state)
{
    (void)state;
    static const char tools[] = "[{\"name\":\"f\",\"parameters\":{\"properties\":{\"n\":{\"type\":\"integer\","
                                "\"minimum\":5}}}}]";
    const mq_constraint_options options = {
        .tools = tools, .tools_bytes = sizeof tools - 1, .format = MQ_TOOLS_GEMMA4, .required = true};
    for (int good = 0; good < 2; good++) {
        mq_constraint *c = new_constraint(&options);
        const long refused =
            try_text(c, good ? "<|tool_call>call:f{n:5}<tool_call|>" : "<|tool_call>call:f{n:4}<tool_call|>");
        assert_int_equal(refused, good ? -1 : 22);
        mq_constraint_free(c);
    }
}

/* ---- schemas that would take for ever */

static char *repeat_text(const char *before, const char *one, const char *between, int count, const char *after)
{
    const size_t room = strlen(before) + strlen(after) + (size_t)count * (strlen(one) + strlen(between) + 12) + 1;
    char *all = malloc(room);
    assert_non_null(all);
    size_t n = (size_t)snprintf(all, room, "%s", before);
    for (int i = 0; i < count; i++) {
        if (i) n += (size_t)snprintf(all + n, room - n, "%s", between);
        n += (size_t)snprintf(all + n, room - n, one, i);
    }
    (void)snprintf(all + n, room - n, "%s", after);
    return all;
}

static void test_bounds_of_work(void **state)
{
    (void)state;
    static const struct {
        const char *before, *one, *between, *after;
        int count;
    } cases[] = {
        {"{\"pattern\":\"^(", "word%d", "|", ")$\"}", 10000},
        {"{\"pattern\":\"^(", "w%d", "|", ")$\"}", 2000},
        {"{\"enum\":[", "\"w%d\"", ",", "]}", 20000},
        {"{\"pattern\":\"", "(a|%d)*", "", "\"}", 1000},
        {"{\"pattern\":\"^(.*a){3}.{0,400}", "x%d?", "", "\"}", 100},
        {"{\"pattern\":\"^([^b]{0,60}[^c]{0,60}){0,60}", "%d", "", "$\"}", 1},
        {"{\"anyOf\":[{\"pattern\":\"^", "a%d?", "",
         "\"},{\"$ref\":\"#\"},{\"$ref\":\"#\"},{\"items\":{\"$ref\":\"#\"}},{\"items\":{\"$ref\":\"#\"}}]}", 300},
        {"{\"properties\":{\"x\":true},\"required\":[", "\"n%d\"", ",", "]}", 60000},
        {"{\"$defs\":{\"a\":{\"properties\":{\"x\":{},\"y\":{}}}},\"allOf\":[",
         "{\"$ref\":\"#/$defs/a\",\"title\":\"%d\"}", ",", "]}", 50000},
        {"{\"prefixItems\":[", "{\"allOf\":[{\"pattern\":\"((a{9}){9}){9}%d\"}]}", ",", "]}", 5000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *schema = repeat_text(cases[i].before, cases[i].one, cases[i].between, cases[i].count, cases[i].after);
        mq_constraint *c = NULL;
        mq_error error = {0};
        const mq_constraint_options options = {.schema = schema, .schema_bytes = strlen(schema)};
        const mq_status status = mq_constraint_new(vocabulary, &options, &c, NULL, &error);
        if (status != MQ_OK && status != MQ_LIMIT) fail_msg("case %zu: %s", i, error.text);
        unsigned seed = (unsigned)i;
        for (int n = 0; c && n < 6; n++) {
            const int32_t token = draw_allowed(mq_constraint_mask(c), &seed, false);
            if (token < 0) break;
            assert_int_equal(mq_constraint_accept(c, token, NULL), MQ_OK);
        }
        mq_constraint_free(c);
        free(schema);
    }
}

/* Without memory a constraint is refused, or its masks allow less; never is one of them empty. */
static void test_short_memory_of_keywords(void **state)
{
    (void)state;
    static const char schema[] =
        "{\"properties\":{\"a\":{\"pattern\":\"^([a-z]+|[^\\\\d]{2,5})$\"},\"b\":{\"format\":\"ipv6\"}"
        ",\"c\":{\"$ref\":\"#/properties/a\",\"minLength\":1}},\"required\":[\"a\"],"
        "\"additionalProperties\":{\"minimum\":-2.5}}";
    const mq_constraint_options options = {.schema = schema, .schema_bytes = sizeof schema - 1};
    int failed = 0;
    for (unsigned long n = 1; n < 500; n++) {
        mq_constraint *c = NULL;
        mq_error error = {0};
        unsigned seed = (unsigned)n;
        (void)mq__alloc_fail_at(n);
        const mq_status status = mq_constraint_new(vocabulary, &options, &c, NULL, &error);
        assert_true(status == MQ_OK || status == MQ_NO_MEMORY || status == MQ_LIMIT);
        for (int i = 0; c && i < 4; i++) {
            const int32_t token = draw_allowed(mq_constraint_mask(c), &seed, false);
            if (token < 0 || mq_constraint_accept(c, token, NULL) != MQ_OK) break;
        }
        (void)mq__alloc_fail_at(0);
        failed += status != MQ_OK;
        mq_constraint_free(c);
    }
    assert_true(failed > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_are_let_through),
        cmocka_unit_test(test_strict_refuses_nothing_that_is_kept),
        cmocka_unit_test(test_patterns_that_are_left_out),
        cmocka_unit_test(test_random_strings_match),
        cmocka_unit_test(test_random_formats),
        cmocka_unit_test(test_random_bounds),
        cmocka_unit_test(test_numbers_of_calls),
        cmocka_unit_test(test_bounds_of_work),
        cmocka_unit_test(test_short_memory_of_keywords),
    };
    return cmocka_run_group_tests(tests, unit_open_vocabulary, unit_close_vocabulary);
}
