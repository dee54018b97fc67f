/* What a schema refers to, and schemas that are put together. */
#include "gen/json_grammar.h"

#include <stdlib.h>
#include <string.h>

#define HOPS_MOST  64 /* references that lead to references */
#define COPY_WORK  16 /* of a member that is copied: it takes memory */
#define MERGE_WORK 200
#define KEEP_WORK  8 /* of a value of an enumeration that is looked at */

/* "#", "#/$defs/name": what it stands for; NULL: nothing here. */
static const json_t *resolve(const mq_schemas *s, const char *reference)
{
    const json_t *at = s->root;
    if (*reference++ != '#') return NULL;
    while (at && *reference == '/') {
        char part[256];
        size_t count = 0;
        for (reference++; *reference && *reference != '/'; reference++) {
            if (count + 1 >= sizeof part) return NULL;
            char byte = *reference;
            if (byte == '~' && (reference[1] == '0' || reference[1] == '1')) byte = *++reference == '0' ? '~' : '/';
            part[count++] = byte;
        }
        part[count] = '\0';
        at = json_is_array(at) ? json_array_get(at, strtoul(part, NULL, 10)) : json_object_get(at, part);
    }
    return *reference ? NULL : at;
}

const json_t *mq__schema_follow(mq_schemas *s, const json_t *schema)
{
    for (int hops = 0; hops < HOPS_MOST; hops++) {
        const char *reference = json_string_value(json_object_get(schema, "$ref"));
        if (!reference) return schema;
        if (!mq__schema_work(s, strlen(reference) + 1)) return NULL;
        schema = resolve(s, reference);
        if (!schema) {
            (void)mq__schema_fail(s, MQ_USAGE, "$ref: expected one that leads to a part of the schema, got another");
            return NULL;
        }
    }
    (void)mq__schema_fail(s, MQ_USAGE, "$ref: expected one that ends, got a circle");
    return NULL;
}

/* json_equal, with what it takes. */
static bool is_equal(mq_schemas *s, const json_t *a, const json_t *b)
{
    const char *key;
    json_t *item;
    size_t i;
    double x, y;
    if (a == b) return true;
    if (json_is_integer(a) != json_is_integer(b) && mq__schema_number_of(a, &x) && mq__schema_number_of(b, &y))
        return x <= y && x >= y;
    if (!a || !b || json_typeof(a) != json_typeof(b) || json_array_size(a) != json_array_size(b) ||
        json_object_size(a) != json_object_size(b))
        return false;
    if (!mq__schema_work(s, 1 + json_array_size(a) + json_object_size(a) + json_string_length(a))) return false;
    json_array_foreach(a, i, item)
    {
        if (!is_equal(s, item, json_array_get(b, i))) return false;
    }
    json_object_foreach((json_t *)(uintptr_t)a, key, item)
    {
        if (!is_equal(s, item, json_object_get(b, key))) return false;
    }
    return json_is_array(a) || json_is_object(a) || json_equal(a, b);
}

/* A list with the parts of both: {"allOf":[...]} within another one is the same as its parts. */
static json_t *list_of_all(mq_schemas *s, json_t *first, json_t *second)
{
    json_t *parts = json_object_size(first) == 1 ? json_object_get(first, "allOf") : NULL;
    if (!mq__schema_work(s, COPY_WORK * (1 + json_array_size(parts)))) return json_incref(first);
    json_t *list = json_is_array(parts) ? json_copy(parts) : json_pack("[O]", first);
    if (!list || json_array_append(list, second) != 0) s->g->failed = true;
    return json_pack("{s:o}", "allOf", list);
}

/* A member's schema that is said twice must hold both times. */
static void join_properties(mq_schemas *s, json_t *have, const json_t *more)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)more, name, value)
    {
        json_t *first = json_object_get(have, name);
        if (s->status != MQ_OK || (first && is_equal(s, first, value))) continue;
        json_t *both = first ? list_of_all(s, first, value) : json_incref(value);
        if (!both || json_object_set_new(have, name, both) != 0) s->g->failed = true;
    }
}

static bool says_nothing(const char *keyword)
{
    static const char *const words[] = {"title", "description", "default", "examples", "$defs", "definitions"};
    bool found = false;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        found = found || strcmp(keyword, words[i]) == 0;
    }
    return found;
}

/* ---- types and enumerations, which become what both have */

static bool has_type(const json_t *types, const char *type)
{
    const json_t *item;
    size_t i;
    bool found = json_is_string(types) && strcmp(json_string_value(types), type) == 0;
    json_array_foreach(types, i, item)
    {
        found = found || (json_is_string(item) && strcmp(json_string_value(item), type) == 0);
    }
    return found;
}

static json_t *common_types(mq_schemas *s, const json_t *have, const json_t *more)
{
    static const char *const names[] = {"object", "array", "string", "number", "integer", "boolean", "null"};
    json_t *both = json_array();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        bool first = has_type(have, names[i]), second = has_type(more, names[i]);
        if (strcmp(names[i], "integer") == 0 && !(first && second)) {
            const bool wide = has_type(have, "number"), other = has_type(more, "number");
            first = first || (wide && !other);
            second = second || (other && !wide);
        }
        if (first && second && json_array_append_new(both, json_string(names[i])) != 0) s->g->failed = true;
    }
    return both;
}

static json_t *common_values(mq_schemas *s, const json_t *have, const json_t *more)
{
    json_t *both = json_array(), *one, *other;
    size_t i, j;
    json_array_foreach(have, i, one)
    {
        bool found = false;
        json_array_foreach(more, j, other)
        {
            if (found || !mq__schema_work(s, 1)) break;
            found = is_equal(s, one, other);
        }
        if (found && json_array_append(both, one) != 0) s->g->failed = true;
    }
    return both;
}

/* A keyword that is there already with another value; false: nothing satisfies both. */
static bool join_again(mq_schemas *s, json_t *into, const char *key, json_t *have, json_t *value)
{
    const bool types = strcmp(key, "type") == 0, values = strcmp(key, "enum") == 0;
    if (strcmp(key, "const") == 0) return false;
    if (types && !mq__schema_work(s, 14 * (json_array_size(have) + json_array_size(value)))) return false;
    if (!types && !(values && json_is_array(have) && json_is_array(value))) {
        const bool grows = strcmp(key, "properties") == 0 || strcmp(key, "required") == 0;
        if (!says_nothing(key)) (void)mq__schema_leave_out(s, key);
        if (json_object_set_new(into, key, grows ? json_copy(value) : json_incref(value)) != 0) s->g->failed = true;
        return true;
    }
    json_t *both = types ? common_types(s, have, value) : common_values(s, have, value);
    const size_t count = json_array_size(both);
    if (!both || json_object_set_new(into, key, both) != 0) s->g->failed = true;
    return count > 0;
}

static bool join_keyword(mq_schemas *s, json_t *into, const char *key, json_t *value)
{
    json_t *have = json_object_get(into, key);
    const bool members = strcmp(key, "properties") == 0 && mq__schema_is_object(value);
    const bool names = strcmp(key, "required") == 0 && json_is_array(value);
    const size_t count = json_object_size(value) + json_array_size(value);
    if (!mq__schema_work(s, 1 + (members ? COPY_WORK : 1) * count)) return false;
    if (members && json_is_object(have)) {
        join_properties(s, have, value);
    } else if (names && json_is_array(have)) {
        if (json_array_extend(have, value) != 0) s->g->failed = true;
    } else if (!have) { /* what is joined later is a copy */
        json_t *own = members || names ? json_copy(value) : json_incref(value);
        if (!own || json_object_set_new(into, key, own) != 0) s->g->failed = true;
    } else if (!is_equal(s, have, value)) {
        return join_again(s, into, key, have, value);
    }
    return true;
}

/* One schema of several: the members and the requirements of all, other keywords of the last that has them. False: nothing satisfies it. */
static bool merge_schema(mq_schemas *s, json_t *into, const json_t *part, int depth)
{
    const char *key;
    json_t *value;
    size_t i;
    if (depth > HOPS_MOST)
        return mq__schema_fail(s, MQ_LIMIT, "allOf: expected at most 64 within each other, got more");
    if (!mq__schema_is_object(part)) return part && json_is_true(part);
    if (json_object_get(part, "$ref") && !merge_schema(s, into, mq__schema_follow(s, part), depth + 1)) return false;
    json_object_foreach((json_t *)(uintptr_t)part, key, value)
    {
        if (strcmp(key, "allOf") == 0 || strcmp(key, "$ref") == 0) continue;
        if (!join_keyword(s, into, key, value)) return false;
    }
    json_array_foreach(json_object_get(part, "allOf"), i, value)
    {
        if (s->status != MQ_OK || !merge_schema(s, into, value, depth + 1)) return false;
    }
    return true;
}

static json_t *new_merged(mq_schemas *s)
{
    if (!mq__schema_work(s, MERGE_WORK) || s->status != MQ_OK) return NULL;
    json_t *merged = json_object();
    if (!merged || json_array_append_new(s->made, merged) != 0) {
        s->g->failed = true;
        return NULL;
    }
    return merged;
}

const json_t *mq__schema_merge(mq_schemas *s, const json_t *schema)
{
    json_t *merged = new_merged(s);
    return merged && merge_schema(s, merged, schema, 0) ? merged : NULL;
}

/* ---- alternatives, and what is beside them */

const json_t *mq__schema_beside(mq_schemas *s, const json_t *schema, const char *alternatives)
{
    static const char *const others[] = {"type", "enum", "const", "anyOf", "oneOf"};
    const char *key;
    json_t *value, *beside = NULL;
    json_object_foreach((json_t *)(uintptr_t)schema, key, value)
    {
        bool asks = mq__schema_about(key) != NULL;
        for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
            asks = asks || strcmp(key, others[i]) == 0;
        }
        if (!asks || strcmp(key, alternatives) == 0) continue;
        if (!beside && !(beside = new_merged(s))) return NULL;
        if (json_object_set(beside, key, value) != 0) s->g->failed = true;
    }
    return beside;
}

static const char *type_of_value(const json_t *value)
{
    double number;
    return mq__schema_number_of(value, &number) ? "number"
           : json_is_string(value)              ? "string"
           : json_is_array(value)               ? "array"
           : json_is_object(value)              ? "object"
           : json_is_null(value)                ? "null"
                                                : "boolean";
}

/* Whether a value of an enumeration keeps the type and the bounds beside it. */
static bool keeps(const json_t *schema, const json_t *value)
{
    static const char *const bounds[] = {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"};
    const json_t *types = json_object_get(schema, "type");
    const char *type = type_of_value(value);
    double number, bound;
    const bool whole = mq__schema_is_whole(value);
    if (types && !has_type(types, type) && !(whole && has_type(types, "integer"))) return false;
    for (size_t i = 0; i < 4 && mq__schema_number_of(value, &number); i++) {
        const json_t *other = json_object_get(schema, bounds[i ^ 1]);
        bool beyond = i % 2 != 0; /* the bound itself is */
        if (!mq__schema_number_of(json_object_get(schema, bounds[i]), &bound)) continue;
        beyond = beyond || json_is_true(other); /* as draft 4 has it */
        if (beyond ? (i < 2 ? number <= bound : number >= bound) : (i < 2 ? number < bound : number > bound))
            return false;
    }
    return true;
}

/* Of keywords beside an enumeration those that its values are about and that are not looked at are left out. */
static void note_keywords(mq_schemas *s, const json_t *schema, const json_t *values)
{
    const char *key;
    json_t *item, *value;
    size_t i;
    json_object_foreach((json_t *)(uintptr_t)schema, key, item)
    {
        const char *about = mq__schema_about(key);
        bool noted = !about || strstr(key, "imum") != NULL; /* see `keeps` */
        json_array_foreach(values, i, value)
        {
            if (noted || !mq__schema_work(s, 1)) break;
            noted = strcmp(about, type_of_value(value)) == 0;
            if (noted) (void)mq__schema_leave_out(s, key);
        }
    }
}

/* Of an enumeration what the keywords beside it allow; false: that is nothing. */
static bool choose_values(mq_schemas *s, json_t *schema)
{
    json_t *constant = json_object_get(schema, "const"), *list = json_object_get(schema, "enum"), *value;
    json_t *kept = json_array(), *only = constant ? json_pack("[O]", constant) : NULL;
    size_t i;
    if (!kept || (constant && !only)) s->g->failed = true;
    if (constant && json_is_array(list)) {
        json_t *both = common_values(s, list, only);
        json_decref(only);
        only = both;
    }
    json_array_foreach(only ? only : list, i, value)
    {
        if (mq__schema_work(s, KEEP_WORK) && keeps(schema, value) && json_array_append(kept, value) != 0)
            s->g->failed = true;
    }
    const bool any = json_array_size(kept) > 0;
    note_keywords(s, schema, kept);
    if (constant) (void)json_object_del(schema, "const");
    if (json_object_set_new(schema, "enum", kept) != 0) s->g->failed = true;
    json_decref(only);
    return any;
}

const json_t *mq__schema_both(mq_schemas *s, const json_t *beside, const json_t *alternative, const char *keyword,
                              const json_t *list)
{
    json_t *both = new_merged(s);
    if (!both || !merge_schema(s, both, beside, 0) || !merge_schema(s, both, alternative, 0)) return NULL;
    if (json_object_get(both, keyword) == list) { /* Pet is oneOf Cat or Dog, and Cat is Pet and more */
        (void)mq__schema_leave_out(s, keyword);
        (void)json_object_del(both, keyword);
    }
    const bool listed = json_object_get(both, "const") || json_is_array(json_object_get(both, "enum"));
    return !listed || choose_values(s, both) ? both : NULL;
}
