#include "base/json_read.h"
#include "eval/bfcl.h"

#include "base/buf.h"
#include "base/mem.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

/* ------------------------------------------------------------------ calls of an answer */

/* {"name", "arguments"} of whatever shape a model writes JSON calls in: OpenAI's, with arguments as text, or {name: {...}}. */
static json_t *call_of(const json_t *value)
{
    const char *name = json_string_value(json_object_get(value, "name"));
    const json_t *arguments = json_object_get(value, "arguments");
    if (!name && json_object_size(value) == 1) {
        void *only = json_object_iter((json_t *)(uintptr_t)value);
        arguments = json_object_iter_value(only);
        return json_is_object(arguments)
                   ? json_pack("{sssO}", "name", json_object_iter_key(only), "arguments", arguments)
                   : NULL;
    }
    if (!name) return NULL;
    if (!arguments) arguments = json_object_get(value, "parameters");
    json_t *read = NULL;
    if (json_is_string(arguments)) {
        (void)mq__json_read(json_string_value(arguments), json_string_length(arguments), 0, MQ_JSON_ROUND_NUMBERS,
                            "arguments", &read, NULL);
    } else {
        read = arguments ? json_deep_copy(arguments) : json_object();
    }
    if (json_is_object(read)) return json_pack("{ssso}", "name", name, "arguments", read);
    json_decref(read);
    return NULL;
}

/* Adds the calls of one JSON text; false when it is not all calls. */
static bool add_json(json_t *calls, const char *text, size_t bytes)
{
    json_t *value = NULL, *item;
    (void)mq__json_read(text, bytes, 0, MQ_JSON_ROUND_NUMBERS, "calls", &value, NULL);
    bool ok = json_is_object(value) || json_array_size(value) > 0;
    if (json_is_object(value)) ok = json_array_append_new(calls, call_of(value)) == 0;
    size_t i;
    json_array_foreach(value, i, item)
    {
        ok = ok && json_array_append_new(calls, call_of(item)) == 0;
    }
    json_decref(value);
    return ok;
}

static void add_tagged(json_t *calls, const char *answer)
{
    static const char open[] = "<tool_call>", close[] = "</tool_call>";
    for (const char *at = strstr(answer, open); at; at = strstr(at, open)) {
        at += sizeof open - 1;
        const char *end = strstr(at, close);
        (void)add_json(calls, at, end ? (size_t)(end - at) : strlen(at));
        if (!end) break;
    }
}

static const json_t *function_named(const json_t *functions, const char *name)
{
    char plain[256], other[256];
    const json_t *function;
    size_t i;
    mq__bfcl_plain_name(name, plain, sizeof plain);
    json_array_foreach(functions, i, function)
    {
        const char *candidate = json_string_value(json_object_get(function, "name"));
        mq__bfcl_plain_name(candidate ? candidate : "", other, sizeof other);
        if (strcmp(plain, other) == 0) return function;
    }
    return NULL;
}

static const json_t *properties_of(const json_t *function)
{
    return json_object_get(json_object_get(function, "parameters"), "properties");
}

/* Positional arguments take the names of the parameters in their order; too many make the call a different one. */
static void name_positional(json_t *call, const json_t *functions)
{
    const json_t *function = function_named(functions, json_string_value(json_object_get(call, "name")));
    const json_t *positional = json_object_get(call, "positional");
    json_t *arguments = json_object_get(call, "arguments"), *properties = (json_t *)(uintptr_t)properties_of(function);
    void *at = json_object_iter(properties);
    for (size_t i = 0; i < json_array_size(positional); i++) {
        json_object_set(arguments, at ? json_object_iter_key(at) : "?", json_array_get(positional, i));
        at = at ? json_object_iter_next(properties, at) : NULL;
    }
    json_object_del(call, "positional");
}

static json_t *python_calls(const char *text, const json_t *functions)
{
    json_t *calls = mq__bfcl_python_calls(text), *call;
    size_t i;
    json_array_foreach(calls, i, call)
    {
        name_positional(call, functions);
    }
    return calls;
}

/* Inside of ```...``` when that is all there is. */
static char *without_fence(const char *text)
{
    while (isspace((unsigned char)*text)) {
        text++;
    }
    if (strncmp(text, "```", 3) == 0) {
        const char *line = strchr(text, '\n'), *end = line ? strstr(line, "```") : NULL;
        if (end) return mq__strndup(line + 1, (size_t)(end - line - 1));
    }
    return mq__strndup(text, strlen(text));
}

json_t *mq__bfcl_answer_calls(const char *answer, const json_t *functions)
{
    answer = mq__eval_after_thought(answer, false);
    json_t *calls = json_array();
    if (strstr(answer, "<tool_call>")) {
        add_tagged(calls, answer);
        return calls;
    }
    char *text = without_fence(answer);
    if (text && add_json(calls, text, strlen(text))) {
        mq__free(text);
        return calls;
    }
    json_array_clear(calls);
    json_t *python = text ? python_calls(text, functions) : NULL;
    mq__free(text);
    if (!python) return calls;
    json_decref(calls);
    return python;
}

/* ------------------------------------------------------------------ values */

/* Letters and digits matter, case, blanks and ,./-_*^ do not; ' is ". Owned. */
static char *standard(const char *text)
{
    mq_buf out = {0};
    for (const char *p = text; *p; p++) {
        if (strchr(" ,./-_*^", *p)) continue;
        mq__buf_putc(&out, *p == '\'' ? '"' : (char)tolower((unsigned char)*p));
    }
    mq__buf_putc(&out, '\0');
    char *result = mq__buf_take(&out);
    mq__buf_free(&out);
    return result;
}

static bool same_text_bfcl_match(const char *a, const char *b, bool loose)
{
    if (!loose) return strcmp(a, b) == 0;
    char *x = standard(a), *y = standard(b);
    const bool same = x && y && strcmp(x, y) == 0;
    mq__free(x);
    mq__free(y);
    return same;
}

/* Python's ==: 1 equals 1.0. loose: strings, at any depth, are compared in their standard form. Depth is bounded by the parsers. */
static bool same_bfcl_match(const json_t *a, const json_t *b, bool loose)
{
    if (json_is_number(a) && json_is_number(b)) return json_number_value(a) == json_number_value(b);
    if (json_typeof(a) != json_typeof(b)) return false;
    if (json_is_string(a)) return same_text_bfcl_match(json_string_value(a), json_string_value(b), loose);
    if (json_is_array(a)) {
        bool equal = json_array_size(a) == json_array_size(b);
        for (size_t i = 0; equal && i < json_array_size(a); i++) {
            equal = same_bfcl_match(json_array_get(a, i), json_array_get(b, i), loose);
        }
        return equal;
    }
    if (!json_is_object(a)) return true;
    const char *key;
    json_t *value;
    bool equal = json_object_size(a) == json_object_size(b);
    json_object_foreach((json_t *)(uintptr_t)a, key, value)
    {
        const json_t *other = json_object_get(b, key);
        equal = equal && other && same_bfcl_match(value, other, loose);
    }
    return equal;
}

static bool is_among(const json_t *value, const json_t *accepted, bool loose)
{
    const json_t *one;
    size_t i;
    json_array_foreach(accepted, i, one)
    {
        if (same_bfcl_match(value, one, loose)) return true;
    }
    return false;
}

/* An empty text among the accepted values: the parameter may be left out. */
static bool may_be_absent(const json_t *accepted)
{
    const json_t *one;
    size_t i;
    json_array_foreach(accepted, i, one)
    {
        if (json_is_string(one) && json_string_length(one) == 0) return true;
    }
    return false;
}

/* value {key: v} against {key: [accepted, ...]}. */
static bool map_matches(const json_t *value, const json_t *truth)
{
    const char *key;
    json_t *item;
    if (!json_is_object(value) || !json_is_object(truth)) return false;
    json_object_foreach((json_t *)(uintptr_t)value, key, item)
    {
        const json_t *accepted = json_object_get(truth, key); /* one published map has a bare value */
        if (!accepted ||
            !(json_is_array(accepted) ? is_among(item, accepted, true) : same_bfcl_match(item, accepted, true))) {
            return false;
        }
    }
    json_object_foreach((json_t *)(uintptr_t)truth, key, item)
    {
        if (!json_object_get(value, key) && !may_be_absent(item)) return false;
    }
    return true;
}

static bool maps_match(const json_t *values, const json_t *truths)
{
    bool match = json_is_array(truths) && json_array_size(values) == json_array_size(truths);
    for (size_t i = 0; match && i < json_array_size(values); i++) {
        match = map_matches(json_array_get(values, i), json_array_get(truths, i));
    }
    return match;
}

typedef enum kind { KIND_TEXT, KIND_WHOLE, KIND_REAL, KIND_TRUTH, KIND_LIST, KIND_MAP, KIND_ANY } kind;

static kind kind_of_type(const char *type)
{
    static const struct {
        const char *name;
        kind kind;
    } kinds[] = {{"string", KIND_TEXT},    {"char", KIND_TEXT},  {"integer", KIND_WHOLE}, {"long", KIND_WHOLE},
                 {"bigint", KIND_WHOLE},   {"float", KIND_REAL}, {"double", KIND_REAL},   {"number", KIND_REAL},
                 {"boolean", KIND_TRUTH},  {"array", KIND_LIST}, {"list", KIND_LIST},     {"tuple", KIND_LIST},
                 {"arraylist", KIND_LIST}, {"dict", KIND_MAP},   {"object", KIND_MAP},    {"hashmap", KIND_MAP}};
    for (size_t i = 0; type && i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcasecmp(type, kinds[i].name) == 0) return kinds[i].kind;
    }
    return KIND_ANY;
}

static kind kind_of_value(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_STRING:
        return KIND_TEXT;
    case JSON_INTEGER:
        return KIND_WHOLE;
    case JSON_REAL:
        return KIND_REAL;
    case JSON_TRUE:
    case JSON_FALSE:
        return KIND_TRUTH;
    case JSON_ARRAY:
        return KIND_LIST;
    case JSON_OBJECT:
        return KIND_MAP;
    default:
        return KIND_ANY;
    }
}

/* Parts of lists and maps that are declared to be integers are none where they are written 1.0. */
static bool wholes_are_whole(const json_t *value, const json_t *property)
{
    const json_t *items = json_object_get(property, "items"), *properties = json_object_get(property, "properties"),
                 *part;
    const char *key;
    size_t i;
    json_array_foreach(value, i, part)
    {
        if (!wholes_are_whole(part, items)) return false;
    }
    json_object_foreach((json_t *)(uintptr_t)value, key, part)
    {
        if (!wholes_are_whole(part, json_object_get(properties, key))) return false;
    }
    return !json_is_real(value) || kind_of_type(json_string_value(json_object_get(property, "type"))) != KIND_WHOLE;
}

/* A value of the declared type; one of another type stands for a variable and must be accepted as it is written. */
static bool value_matches(const json_t *value, const json_t *property, const json_t *accepted)
{
    const kind wanted = kind_of_type(json_string_value(json_object_get(property, "type"))), got = kind_of_value(value);
    const json_t *one;
    size_t i;
    if (got == KIND_WHOLE && wanted == KIND_REAL) return is_among(value, accepted, false);
    if (got == KIND_TEXT && (wanted == KIND_TEXT || wanted == KIND_ANY)) return is_among(value, accepted, true);
    if (wanted != got && wanted != KIND_ANY) {
        json_array_foreach(accepted, i, one)
        {
            const bool absent = got == KIND_TEXT && json_string_length(one) == 0; /* "" says that it may be left out */
            if (!absent && kind_of_value(one) == got && same_bfcl_match(value, one, false)) return true;
        }
        return false;
    }
    if (!wholes_are_whole(value, property)) return false;
    if (got == KIND_LIST && json_array_size(value) == 0 && may_be_absent(accepted)) return true;
    if (got == KIND_LIST && json_is_object(json_array_get(value, 0))) {
        json_array_foreach(accepted, i, one)
        {
            if (maps_match(value, one)) return true;
        }
        return false;
    }
    if (got == KIND_MAP) {
        json_array_foreach(accepted, i, one)
        {
            if (map_matches(value, one)) return true;
        }
        return false;
    }
    return is_among(value, accepted, true);
}

/* Java and JavaScript arguments come as source text or as JSON. */
static bool argument_matches(const json_t *value, const json_t *property, const json_t *accepted,
                             mq_bfcl_language language)
{
    /* Two published answers accept nothing where the empty list is meant; the original counts any answer to them wrong. */
    if (json_array_size(accepted) == 0) return json_is_array(value) && json_array_size(value) == 0;
    if (value_matches(value, property, accepted)) return true;
    if (language == MQ_BFCL_PYTHON || !json_is_string(value)) return false;
    const json_t *items = json_object_get(property, "items"); /* of a list, the numbers in it */
    json_t *literal = mq__bfcl_literal(json_string_value(value), language,
                                       json_string_value(json_object_get(items ? items : property, "type")));
    const bool match = literal && value_matches(literal, property, accepted);
    json_decref(literal);
    return match;
}

/* ------------------------------------------------------------------ calls */

static bool call_matches(const json_t *call, const json_t *functions, const json_t *truth, mq_bfcl_language language)
{
    void *only = json_object_iter((json_t *)(uintptr_t)truth);
    const char *name = json_string_value(json_object_get(call, "name")), *key;
    const json_t *function = only ? function_named(functions, json_object_iter_key(only)) : NULL;
    if (!function || !name || function_named(functions, name) != function) return false;
    const json_t *wanted = json_object_iter_value(only), *arguments = json_object_get(call, "arguments"), *required;
    json_t *value;
    size_t i;
    json_array_foreach(json_object_get(json_object_get(function, "parameters"), "required"), i, required)
    {
        if (!json_object_get(arguments, json_string_value(required))) return false;
    }
    json_object_foreach((json_t *)(uintptr_t)arguments, key, value)
    {
        const json_t *property = json_object_get(properties_of(function), key),
                     *accepted = json_object_get(wanted, key);
        if (!property || !accepted || !argument_matches(value, property, accepted, language)) return false;
    }
    json_object_foreach((json_t *)(uintptr_t)wanted, key, value)
    {
        if (!json_object_get(arguments, key) && !may_be_absent(value)) return false;
    }
    return true;
}

bool mq__bfcl_match(const json_t *calls, const json_t *functions, const json_t *truth, mq_bfcl_language language)
{
    const size_t count = json_array_size(calls);
    bool used[64] = {false};
    if (count != json_array_size(truth) || count == 0 || count > sizeof used) return false;
    for (size_t t = 0; t < count; t++) {
        size_t c = 0;
        while (c < count &&
               (used[c] || !call_matches(json_array_get(calls, c), functions, json_array_get(truth, t), language))) {
            c++;
        }
        if (c == count) return false;
        used[c] = true;
    }
    return true;
}

bool mq__bfcl_same_calls(const json_t *calls, const json_t *functions, const json_t *texts)
{
    const json_t *text;
    size_t i;
    bool equal = json_array_size(calls) == json_array_size(texts);
    json_array_foreach(texts, i, text)
    {
        if (!equal) break;
        json_t *expected = json_is_string(text) ? python_calls(json_string_value(text), functions) : NULL;
        const json_t *call = json_array_get(calls, i), *one = json_array_get(expected, 0);
        equal = one &&
                same_text_bfcl_match(json_string_value(json_object_get(call, "name")),
                                     json_string_value(json_object_get(one, "name")), false) &&
                same_bfcl_match(json_object_get(call, "arguments"), json_object_get(one, "arguments"), false);
        json_decref(expected);
    }
    return equal;
}
