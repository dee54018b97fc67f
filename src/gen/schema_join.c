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
        schema = resolve(s, reference);
        if (!schema) {
            (void)mq__schema_fail(s, MQ_USAGE, "$ref: expected one that leads to a part of the schema, got another");
            return NULL;
        }
    }
    (void)mq__schema_fail(s, MQ_USAGE, "$ref: expected one that ends, got a circle");
    return NULL;
}

/* One schema of several: the members and the requirements of all, other keywords of the last that has them. */
static bool merge_schema(mq_schemas *s, json_t *into, const json_t *part)
{
    const char *key;
    json_t *value;
    part = mq__schema_follow(s, part);
    if (!json_is_object(part)) return part && json_is_true(part);
    json_object_foreach((json_t *)(uintptr_t)part, key, value)
    {
        json_t *have = json_object_get(into, key);
        int failed = 0;
        if (strcmp(key, "allOf") == 0) continue;
        if (have && json_is_object(have) && json_is_object(value) && strcmp(key, "properties") == 0) {
            json_t *both = json_copy(have);
            failed = !both || json_object_update(both, value) != 0 || json_object_set_new(into, key, both) != 0;
        } else if (have && json_is_array(have) && json_is_array(value) && strcmp(key, "required") == 0) {
            json_t *both = json_copy(have);
            failed = !both || json_array_extend(both, value) != 0 || json_object_set_new(into, key, both) != 0;
        } else {
            failed = json_object_set(into, key, value);
        }
        if (failed) s->g->failed = true;
    }
    return true;
}

const json_t *mq__schema_merge(mq_schemas *s, const json_t *schema)
{
    const json_t *all = json_object_get(schema, "allOf"), *part;
    size_t i;
    json_t *merged = json_object();
    if (!merged || json_array_append_new(s->made, merged) != 0) {
        s->g->failed = true;
        return schema;
    }
    if (!merge_schema(s, merged, schema)) return NULL;
    json_array_foreach(all, i, part)
    {
        if (json_object_get(part, "allOf")) (void)mq__schema_leave_out(s, "allOf");
        if (!merge_schema(s, merged, part)) return NULL;
    }
    return merged;
}
