/* What a schema refers to, and schemas that are put together. */
#include "gen/json_grammar.h"

#include <stdlib.h>
#include <string.h>

#define HOPS_MOST 64 /* references that lead to references */

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

/* A member's schema that is said twice must hold both times. */
static bool join_properties(mq_schemas *s, json_t *have, const json_t *more)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)more, name, value)
    {
        json_t *first = json_object_get(have, name);
        json_t *both = first && first != value ? json_pack("{s:[O,O]}", "allOf", first, value) : json_incref(value);
        if (!both || json_object_set_new(have, name, both) != 0) s->g->failed = true;
    }
    return !s->g->failed;
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

static void join_keyword(mq_schemas *s, json_t *into, const char *key, json_t *value)
{
    json_t *have = json_object_get(into, key);
    const bool members = strcmp(key, "properties") == 0 && mq__schema_is_object(value);
    const bool names = strcmp(key, "required") == 0 && json_is_array(value);
    if (!mq__schema_work(s, 1 + json_object_size(value) + json_array_size(value))) return;
    if (members && json_is_object(have)) {
        (void)join_properties(s, have, value);
    } else if (names && json_is_array(have)) {
        if (json_array_extend(have, value) != 0) s->g->failed = true;
    } else { /* what is joined later is a copy */
        if (have && !says_nothing(key) && !json_equal(have, value)) (void)mq__schema_leave_out(s, key);
        json_t *own = members || names ? json_copy(value) : json_incref(value);
        if (!own || json_object_set_new(into, key, own) != 0) s->g->failed = true;
    }
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
        if (strcmp(key, "allOf") != 0 && strcmp(key, "$ref") != 0) join_keyword(s, into, key, value);
    }
    json_array_foreach(json_object_get(part, "allOf"), i, value)
    {
        if (s->status != MQ_OK || !merge_schema(s, into, value, depth + 1)) return false;
    }
    return true;
}

const json_t *mq__schema_merge(mq_schemas *s, const json_t *schema)
{
    json_t *merged = json_object();
    if (!merged || json_array_append_new(s->made, merged) != 0) {
        s->g->failed = true;
        return schema;
    }
    return merge_schema(s, merged, schema, 0) ? merged : NULL;
}
