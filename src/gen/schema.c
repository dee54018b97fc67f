/* Schemas to rules: what of JSON schema is kept, what is left out, what is refused (docs/SCHEMA.md). */
#include "base/error.h"
#include "base/mem.h"
#include "gen/json_grammar.h"

#include <string.h>

#define RULES_MOST 20000               /* schemas of one request */
#define WORK_MOST  (20u * 1000 * 1000) /* steps that are more than a schema has bytes */

static const char *const ignored[] = {"pattern",
                                      "format",
                                      "multipleOf",
                                      "minProperties",
                                      "maxProperties",
                                      "type",
                                      "properties",
                                      "required",
                                      "additionalProperties",
                                      "patternProperties",
                                      "items",
                                      "prefixItems",
                                      "additionalItems",
                                      "minItems",
                                      "maxItems",
                                      "enum",
                                      "const",
                                      "anyOf",
                                      "oneOf",
                                      "allOf",
                                      "$ref",
                                      "$defs",
                                      "definitions",
                                      "minimum",
                                      "exclusiveMinimum",
                                      "maximum",
                                      "exclusiveMaximum",
                                      "minLength",
                                      "maxLength",
                                      "nullable",
                                      "title",
                                      "default",
                                      "examples",
                                      "example",
                                      "description",
                                      "$schema",
                                      "$id",
                                      "$comment",
                                      "$anchor",
                                      "readOnly",
                                      "writeOnly",
                                      "deprecated",
                                      "strict",
                                      "contentMediaType",
                                      "contentEncoding",
                                      "id",
                                      "name",
                                      "$vocabulary",
                                      "x-order"};

bool mq__schema_fail(mq_schemas *s, mq_status status, const char *what)
{
    if (s->status == MQ_OK) s->status = mq__fail(s->error, status, "schema: %s", what);
    return false;
}

/* Whether it stands in the list, between its commas. */
static bool is_dropped(const mq_schemas *s, const char *keyword)
{
    const size_t bytes = strlen(keyword);
    if (bytes == 0) return s->dropped.data != NULL;
    for (const char *at = s->dropped.data; at && (at = strstr(at, keyword)); at += bytes) {
        const bool begins = at == s->dropped.data || at[-1] == ' ';
        if (begins && (at[bytes] == ',' || at[bytes] == '\0')) return true;
    }
    return false;
}

/* A keyword that cannot be kept: left out, or an error. */
bool mq__schema_leave_out(mq_schemas *s, const char *keyword)
{
    if (s->strict) {
        if (s->status == MQ_OK) {
            s->status = mq__fail(s->error, MQ_UNSUPPORTED,
                                 "schema: %.60s: expected a keyword of docs/SCHEMA.md, got another one", keyword);
        }
        return false;
    }
    if (is_dropped(s, keyword)) return true;
    if (s->dropped.len) mq__buf_puts(&s->dropped, ", ");
    mq__buf_printf(&s->dropped, "%.60s", keyword);
    s->dropped.failed = false; /* a list that is too long is cut */
    return true;
}

bool mq__schema_work(mq_schemas *s, size_t amount)
{
    s->work += amount;
    return s->work <= WORK_MOST || mq__schema_fail(s, MQ_LIMIT, "expected one of less work, got more");
}

uint32_t mq__schemas_rule(mq_schemas *s, const json_t *schema)
{
    if (json_object_size(schema) == 1) schema = mq__schema_follow(s, schema);
    if (!schema) return s->value;
    uint32_t *bucket = &s->bucket[(uintptr_t)schema / sizeof(void *) % MQ_SCHEMA_BUCKETS];
    for (uint32_t i = *bucket; i; i = s->known[i - 1].next) {
        if (s->known[i - 1].schema == schema) return s->known[i - 1].rule;
    }
    if (s->known_count >= RULES_MOST) {
        (void)mq__schema_fail(s, MQ_LIMIT, "expected at most 20000 subschemas, got more");
        return s->value;
    }
    if (s->known_count == s->known_room) {
        const size_t room = s->known_room ? 2 * s->known_room : 64;
        schema_rule *known = mq__realloc(s->known, room * sizeof *known);
        if (!known) {
            s->g->failed = true;
            return s->value;
        }
        s->known = known;
        s->known_room = room;
    }
    const uint32_t rule = mq__grammar_rule(s->g);
    s->known[s->known_count++] = (schema_rule){schema, s->root, rule, *bucket};
    *bucket = (uint32_t)s->known_count;
    return rule;
}

long mq__schema_bound(mq_schemas *s, const json_t *schema, const char *name, long most)
{
    const json_t *value = json_object_get(schema, name);
    if (!value) return -1;
    double bound;
    if (mq__schema_number_of(value, &bound) && bound >= 0 && bound <= (double)most && bound == (double)(long)bound)
        return (long)bound;
    (void)mq__schema_leave_out(s, name);
    return -1;
}

/* ---- code */

/* A way of the rule that is this schema. */
static void schema_way(mq_schemas *s, const json_t *schema)
{
    const uint32_t option = mq__grammar_choice(s->g);
    mq__schemas_call(s, mq__schemas_rule(s, schema));
    mq__grammar_end(s->g);
    mq__grammar_otherwise(s->g, option);
}

static void literal_way(mq_schemas *s, const json_t *value)
{
    const uint32_t option = mq__grammar_choice(s->g);
    mq__grammar_json(s, value);
    mq__grammar_end(s->g);
    mq__grammar_otherwise(s->g, option);
}

static void no_other_way(mq_schemas *s)
{
    (void)mq__grammar_emit(s->g, MQ_OP_FAIL, 0, 0);
}

/* ---- a schema */

static void emit_type(mq_schemas *s, const json_t *schema, const char *type)
{
    if (strcmp(type, "object") == 0) {
        mq__schema_object(s, schema);
    } else if (strcmp(type, "array") == 0) {
        mq__schema_array(s, schema);
    } else if (strcmp(type, "string") == 0) {
        mq__schema_string(s, schema);
    } else if (strcmp(type, "number") == 0 || strcmp(type, "integer") == 0) {
        mq__schema_number(s, schema, *type == 'i');
    } else if (strcmp(type, "boolean") == 0) {
        literal_way(s, json_true());
        literal_way(s, json_false());
        no_other_way(s);
    } else if (strcmp(type, "null") == 0) {
        mq__grammar_text(s->g, "null", 4);
        mq__grammar_end(s->g);
    } else {
        (void)mq__schema_fail(s, MQ_USAGE, "type: expected object, array, string, number, integer, boolean or null");
    }
}

static void emit_types(mq_schemas *s, const json_t *schema, const json_t *types)
{
    const json_t *type;
    size_t i;
    json_array_foreach(types, i, type)
    {
        const uint32_t option = mq__grammar_choice(s->g);
        emit_type(s, schema, json_is_string(type) ? json_string_value(type) : "");
        mq__grammar_otherwise(s->g, option);
    }
    no_other_way(s);
}

static const struct {
    const char *keyword, *type;
} about[] = {{"properties", "object"},
             {"required", "object"},
             {"additionalProperties", "object"},
             {"patternProperties", "object"},
             {"minProperties", "object"},
             {"maxProperties", "object"},
             {"items", "array"},
             {"prefixItems", "array"},
             {"additionalItems", "array"},
             {"minItems", "array"},
             {"maxItems", "array"},
             {"pattern", "string"},
             {"format", "string"},
             {"minLength", "string"},
             {"maxLength", "string"},
             {"minimum", "number"},
             {"maximum", "number"},
             {"exclusiveMinimum", "number"},
             {"exclusiveMaximum", "number"},
             {"multipleOf", "number"}};

const char *mq__schema_about(const char *keyword)
{
    for (size_t i = 0; i < sizeof about / sizeof *about; i++) {
        if (strcmp(about[i].keyword, keyword) == 0) return about[i].type;
    }
    return NULL;
}

/* Without a type: what its keywords are about. */
static const char *type_of_keywords(const json_t *schema)
{
    for (size_t i = 0; i < sizeof about / sizeof *about; i++) {
        if (json_object_get(schema, about[i].keyword)) return about[i].type;
    }
    return NULL;
}

static void emit_any_value(mq_schemas *s)
{
    mq__schemas_call(s, s->value);
    mq__grammar_end(s->g);
}

static void check_keywords(mq_schemas *s, const json_t *schema)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)schema, key, value)
    {
        bool known = strncmp(key, "x-", 2) == 0;
        for (size_t i = 0; !known && i < sizeof ignored / sizeof ignored[0]; i++) {
            known = strcmp(key, ignored[i]) == 0;
        }
        if (!known && !mq__schema_leave_out(s, key)) return;
    }
}

/* Each alternative keeps the keywords beside them, too. */
static void emit_alternatives(mq_schemas *s, const json_t *schema, const char *keyword)
{
    const json_t *beside = mq__schema_beside(s, schema, keyword), *list = json_object_get(schema, keyword), *one;
    size_t i;
    json_array_foreach(list, i, one)
    {
        if (s->status != MQ_OK || s->g->failed || s->g->too_big) break;
        const bool joined = beside && (mq__schema_is_object(one) || json_is_boolean(one));
        if (joined) one = mq__schema_both(s, beside, one, keyword, list);
        if (one) schema_way(s, one);
    }
    no_other_way(s);
}

static void emit_literals(mq_schemas *s, const json_t *list)
{
    const json_t *one;
    size_t i;
    json_array_foreach(list, i, one)
    {
        literal_way(s, one);
    }
    no_other_way(s);
}

/* The keyword with alternatives; NULL: there is none. */
static const char *alternatives_of(mq_schemas *s, const json_t *schema)
{
    static const char *const names[] = {"anyOf", "oneOf"};
    const char *found = NULL;
    for (size_t i = 0; i < 2; i++) {
        const json_t *list = json_object_get(schema, names[i]);
        if (list && !json_is_array(list)) (void)mq__schema_leave_out(s, names[i]);
        if (!found && json_is_array(list)) found = names[i];
    }
    return found;
}

static void emit_keywords(mq_schemas *s, const json_t *schema)
{
    const json_t *type = json_object_get(schema, "type");
    const json_t *constant = json_object_get(schema, "const"), *list = json_object_get(schema, "enum");
    const char *alternatives = alternatives_of(s, schema);
    if (json_is_true(json_object_get(schema, "nullable"))) literal_way(s, json_null());
    if (alternatives) {
        emit_alternatives(s, schema, alternatives);
    } else if (constant) {
        mq__grammar_json(s, constant);
        mq__grammar_end(s->g);
    } else if (json_is_array(list)) {
        emit_literals(s, list);
    } else if (json_is_array(type)) {
        emit_types(s, schema, type);
    } else if (type) {
        emit_type(s, schema, json_is_string(type) ? json_string_value(type) : "");
    } else if (type_of_keywords(schema)) {
        emit_type(s, schema, type_of_keywords(schema));
    } else {
        emit_any_value(s);
    }
}

/* "not" of what every value satisfies: how some write `false`. */
static bool is_never(const json_t *schema)
{
    const json_t *never = json_object_get(schema, "not");
    return json_is_false(schema) || json_is_true(never) || (json_is_object(never) && json_object_size(never) == 0);
}

static void emit_schema(mq_schemas *s, const json_t *schema)
{
    if (json_object_get(schema, "allOf") || json_object_get(schema, "$ref")) schema = mq__schema_merge(s, schema);
    if (!schema || is_never(schema)) {
        no_other_way(s);
    } else if (json_is_true(schema)) {
        emit_any_value(s);
    } else if (!mq__schema_is_object(schema)) {
        (void)mq__schema_fail(s, MQ_USAGE, "expected an object, true or false, got another value");
    } else {
        check_keywords(s, schema);
        emit_keywords(s, schema);
    }
}

mq_status mq__schemas_emit(mq_schemas *s)
{
    while (s->emitted < s->known_count && s->status == MQ_OK && !s->g->failed && !s->g->too_big) {
        const schema_rule next = s->known[s->emitted++];
        s->root = next.root;
        mq__grammar_begin(s->g, next.rule);
        emit_schema(s, next.schema);
    }
    if (s->g->failed) return mq__fail(s->error, MQ_NO_MEMORY, "schema: expected memory, got none");
    if (s->g->too_big) {
        return mq__fail(s->error, MQ_LIMIT, "schema: expected one of at most %d steps, got more", MQ_GRAMMAR_MOST);
    }
    return s->status;
}
