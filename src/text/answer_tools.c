/* A request's tools, as far as an answer needs them: which names there are, and of which type a parameter is. */
#include "base/error.h"
#include "base/json_read.h"
#include "text/answer.h"

#include <string.h>

#define SCHEMA_VISITS 256 /* schemas looked at for one parameter; with more its type is unknown */
#define SCHEMA_DEPTH  16

mq_status mq__answer_read_tools(mq_answer *a, const char *tools, size_t bytes, mq_error *error)
{
    if (!tools) return MQ_OK;
    const mq_status status =
        mq__json_read(tools, bytes, JSON_ALLOW_NUL, MQ_JSON_ROUND_NUMBERS, "tools", &a->tools, error);
    if (status != MQ_OK || json_is_array(a->tools)) return status;
    return mq__fail(error, MQ_FORMAT, "tools: expected a list, got another value");
}

bool mq__answer_find_tool(mq_answer *a)
{
    a->parameters = NULL;
    if (!a->tools) return true;
    for (size_t i = 0; i < json_array_size(a->tools); i++) {
        const json_t *const tool = json_array_get(a->tools, i), *const inner = json_object_get(tool, "function");
        const json_t *const function = json_is_object(inner) ? inner : tool;
        const json_t *const name = json_object_get(function, "name");
        if (!json_is_string(name) || json_string_length(name) != a->name.len) continue;
        if (memcmp(json_string_value(name), a->name.data, a->name.len) != 0) continue;
        a->parameters = json_object_get(function, "parameters");
        return true;
    }
    return false;
}

/* ---------------------------------------------------------------- types of schemas */

typedef struct type_search {
    const json_t *root; /* what "#/..." begins at */
    unsigned visits;
} type_search;

static unsigned named_type(const char *name)
{
    static const struct {
        const char *name;
        unsigned types;
    } known[] = {
        {"string", MQ_TYPE_STRING},   {"integer", MQ_TYPE_INTEGER}, {"number", MQ_TYPE_NUMBER | MQ_TYPE_INTEGER},
        {"boolean", MQ_TYPE_BOOLEAN}, {"object", MQ_TYPE_OBJECT},   {"array", MQ_TYPE_ARRAY},
        {"null", MQ_TYPE_NULL}};
    for (size_t i = 0; name && i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(name, known[i].name) == 0) return known[i].types;
    }
    return MQ_TYPE_ANY;
}

static unsigned value_type(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return MQ_TYPE_OBJECT;
    case JSON_ARRAY:
        return MQ_TYPE_ARRAY;
    case JSON_STRING:
        return MQ_TYPE_STRING;
    case JSON_INTEGER:
        return MQ_TYPE_INTEGER | MQ_TYPE_NUMBER;
    case JSON_REAL:
        return MQ_TYPE_NUMBER;
    case JSON_NULL:
        return MQ_TYPE_NULL;
    default:
        return MQ_TYPE_BOOLEAN;
    }
}

static unsigned type_keyword(const json_t *type)
{
    unsigned types = 0;
    if (json_is_string(type)) return named_type(json_string_value(type));
    for (size_t i = 0; i < json_array_size(type); i++) {
        types |= named_type(json_string_value(json_array_get(type, i)));
    }
    return types ? types : MQ_TYPE_ANY;
}

static unsigned enum_types(const json_t *values)
{
    unsigned types = 0;
    for (size_t i = 0; i < json_array_size(values); i++) {
        types |= value_type(json_array_get(values, i));
    }
    return types ? types : MQ_TYPE_ANY;
}

/* "#/$defs/name"; NULL for any other reference. */
static const json_t *referred(const type_search *search, const json_t *reference)
{
    static const char *const places[] = {"$defs", "definitions"};
    const char *const text = json_string_value(reference);
    for (size_t i = 0; text && i < 2; i++) {
        const size_t n = strlen(places[i]);
        if (strncmp(text, "#/", 2) != 0 || strncmp(text + 2, places[i], n) != 0 || text[2 + n] != '/') continue;
        return json_object_get(json_object_get(search->root, places[i]), text + 3 + n);
    }
    return NULL;
}

static unsigned schema_types(type_search *search, const json_t *schema, unsigned depth);

static unsigned any_of(type_search *search, const json_t *list, unsigned depth)
{
    unsigned types = 0;
    for (size_t i = 0; i < json_array_size(list) && types != MQ_TYPE_ANY; i++) {
        types |= schema_types(search, json_array_get(list, i), depth);
    }
    return types ? types : MQ_TYPE_ANY;
}

static unsigned schema_types(type_search *search, const json_t *schema, unsigned depth)
{
    if (!json_is_object(schema) || depth == SCHEMA_DEPTH || search->visits++ >= SCHEMA_VISITS) return MQ_TYPE_ANY;
    unsigned types = type_keyword(json_object_get(schema, "type"));
    const json_t *const constant = json_object_get(schema, "const"), *const all = json_object_get(schema, "allOf");
    if (constant) types &= value_type(constant);
    types &= enum_types(json_object_get(schema, "enum"));
    types &= any_of(search, json_object_get(schema, "anyOf"), depth + 1);
    types &= any_of(search, json_object_get(schema, "oneOf"), depth + 1);
    types &= schema_types(search, referred(search, json_object_get(schema, "$ref")), depth + 1);
    for (size_t i = 0; i < json_array_size(all); i++) {
        types &= schema_types(search, json_array_get(all, i), depth + 1);
    }
    if (json_is_true(json_object_get(schema, "nullable"))) types |= MQ_TYPE_NULL;
    return types ? types : MQ_TYPE_ANY;
}

unsigned mq__answer_types(const mq_answer *a, const char *parameter, size_t bytes)
{
    const json_t *const properties = json_object_get(a->parameters, "properties");
    type_search search = {.root = a->parameters};
    return schema_types(&search, json_object_getn(properties, parameter ? parameter : "", bytes), 0);
}

/* ---------------------------------------------------------------- values */

bool mq__answer_quote(mq_answer *a, uint8_t byte)
{
    static const char names[] = "\"\\bfnrt", values[] = "\"\\\b\f\n\r\t", hex[] = "0123456789abcdef";
    if (!mq__utf8_check(&a->reader.utf8, byte)) return false;
    const char *const found = byte ? strchr(values, byte) : NULL;
    if (found) {
        const char escape[2] = {'\\', names[found - values]};
        mq__answer_arguments(a, escape, 2);
    } else if (byte < 0x20) {
        const char escape[6] = {'\\', 'u', '0', '0', hex[byte >> 4], hex[byte & 15]};
        mq__answer_arguments(a, escape, 6);
    } else {
        mq__answer_arguments(a, (const char *)&byte, 1);
    }
    return true;
}

bool mq__answer_string(mq_answer *a, const char *text, size_t bytes)
{
    a->reader.utf8 = (mq_utf8_check){0};
    mq__answer_arguments(a, "\"", 1);
    for (size_t i = 0; i < bytes; i++) {
        if (!mq__answer_quote(a, (uint8_t)text[i])) return false;
    }
    if (a->reader.utf8.left) return false;
    mq__answer_arguments(a, "\"", 1);
    return true;
}

/* Python's spelling of a value, as JSON; NULL for others. */
static const char *python_literal(const char *text, size_t bytes)
{
    if (bytes == 4 && memcmp(text, "True", 4) == 0) return "true";
    if (bytes == 5 && memcmp(text, "False", 5) == 0) return "false";
    if (bytes == 4 && memcmp(text, "None", 4) == 0) return "null";
    return NULL;
}

bool mq__answer_value(mq_answer *a, const char *text, size_t bytes, unsigned types)
{
    size_t start = 0, end = bytes;
    while (start < end && mq__json_blank((uint8_t)text[start])) {
        start++;
    }
    while (end > start && mq__json_blank((uint8_t)text[end - 1])) {
        end--;
    }
    if (start == end) return mq__answer_string(a, text, bytes);
    const char *const literal = python_literal(text + start, end - start);
    const char *const json = literal ? literal : text + start;
    const size_t count = literal ? strlen(literal) : end - start;
    const unsigned type = mq__json_type(json, count);
    const bool other = (types & MQ_TYPE_STRING) ? (type & types & ~(unsigned)MQ_TYPE_STRING) != 0 : type != 0;
    if (!other) return mq__answer_string(a, text, bytes);
    mq__answer_arguments(a, json, count);
    return true;
}
