/* Schemas to rules: what of JSON schema is kept, what is left out, what is refused (docs/SCHEMA.md). */
#include "base/error.h"
#include "base/mem.h"
#include "gen/json_grammar.h"

#include <string.h>

#define REPEAT_MOST 256   /* items or characters that are counted */
#define RULES_MOST  20000 /* schemas of one request */

static const char *const ignored[] = {"type",
                                      "properties",
                                      "required",
                                      "additionalProperties",
                                      "items",
                                      "prefixItems",
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

/* A keyword that cannot be kept: left out, or an error. */
bool mq__schema_leave_out(mq_schemas *s, const char *keyword)
{
    if (s->strict) {
        if (s->status == MQ_OK) {
            s->status = mq__fail(s->error, MQ_UNSUPPORTED, "schema: %.60s: expected keywords of docs/SCHEMA.md, got it",
                                 keyword);
        }
        return false;
    }
    if (s->dropped.data && strstr(s->dropped.data, keyword)) return true;
    if (s->dropped.len) mq__buf_puts(&s->dropped, ", ");
    mq__buf_printf(&s->dropped, "%.60s", keyword);
    s->dropped.failed = false; /* a list that is too long is cut */
    return true;
}

uint32_t mq__schemas_rule(mq_schemas *s, const json_t *schema)
{
    for (size_t i = s->known_count; i-- > 0;) {
        if (s->known[i].schema == schema) return s->known[i].rule;
        if (s->known_count - i > 512) break; /* only a schema that is referred to comes twice, and soon */
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
    s->known[s->known_count++] = (schema_rule){schema, s->root, rule};
    return rule;
}

/* ---- code */

static void set_byte(mq_schemas *s, char byte)
{
    mq__grammar_byte(s->g, (uint8_t)byte, (uint8_t)byte);
}

static uint32_t begin_option(mq_schemas *s)
{
    return mq__grammar_emit(s->g, MQ_OP_SPLIT, mq__grammar_here(s->g) + 1, 0);
}

static void end_option(mq_schemas *s, uint32_t option)
{
    if (!s->g->failed && !s->g->too_big) s->g->code[option].b = mq__grammar_here(s->g);
}

static void return_here(mq_schemas *s)
{
    (void)mq__grammar_emit(s->g, MQ_OP_RETURN, 0, 0);
}

/* A way of the rule that is this schema. */
static void schema_way(mq_schemas *s, const json_t *schema)
{
    const uint32_t option = begin_option(s);
    mq__schemas_call(s, mq__schemas_rule(s, schema));
    return_here(s);
    end_option(s, option);
}

static void literal_way(mq_schemas *s, const json_t *value)
{
    const uint32_t option = begin_option(s);
    mq__grammar_json(s, value);
    return_here(s);
    end_option(s, option);
}

static void no_other_way(mq_schemas *s)
{
    (void)mq__grammar_emit(s->g, MQ_OP_FAIL, 0, 0);
}

/* ---- counts */

/* A bound that is counted, or -1. */
static long read_bound(mq_schemas *s, const json_t *schema, const char *name)
{
    const json_t *value = json_object_get(schema, name);
    if (!value) return -1;
    const double bound = json_is_number(value) ? json_number_value(value) : -1;
    if (bound >= 0 && bound <= REPEAT_MOST && bound == (double)(long)bound) return (long)bound;
    (void)mq__schema_leave_out(s, name);
    return -1;
}

static void emit_bounded_string(mq_schemas *s, const json_t *schema)
{
    const long least = read_bound(s, schema, "minLength"), most = read_bound(s, schema, "maxLength");
    if (least <= 0 && most < 0) {
        mq__schemas_call(s, s->string);
        return_here(s);
        return;
    }
    if (most >= 0 && most < least) {
        no_other_way(s);
        return;
    }
    set_byte(s, '"');
    long n = 0;
    for (; n < least; n++) {
        mq__schemas_call(s, s->character);
    }
    const uint32_t again = mq__grammar_here(s->g);
    for (; n < most; n++) {
        const uint32_t more = begin_option(s), close = more;
        mq__schemas_call(s, s->character);
        const uint32_t next = mq__grammar_emit(s->g, MQ_OP_JUMP, 0, 0);
        end_option(s, close);
        set_byte(s, '"');
        return_here(s);
        if (!s->g->failed && !s->g->too_big) s->g->code[next].a = mq__grammar_here(s->g);
    }
    if (most < 0) {
        const uint32_t more = begin_option(s);
        mq__schemas_call(s, s->character);
        (void)mq__grammar_emit(s->g, MQ_OP_JUMP, again, 0);
        end_option(s, more);
    }
    set_byte(s, '"');
    return_here(s);
}

/* ---- objects */

static bool is_required(const json_t *schema, const char *name)
{
    const json_t *required = json_object_get(schema, "required"), *item;
    size_t i;
    json_array_foreach(required, i, item)
    {
        if (json_is_string(item) && strcmp(json_string_value(item), name) == 0) return true;
    }
    return false;
}

static void emit_member(mq_schemas *s, const char *key, const json_t *value)
{
    json_t *name = json_string_nocheck(key);
    if (name)
        mq__grammar_json(s, name);
    else
        s->g->failed = true;
    json_decref(name);
    mq__schemas_call(s, s->space);
    set_byte(s, ':');
    mq__schemas_call(s, s->space);
    mq__schemas_call(s, value ? mq__schemas_rule(s, value) : s->value);
    mq__schemas_call(s, s->space);
}

/* Members in the schema's order, of which those that are not required may be left out. Each has a rule; the code is two rows of places,
 * before the first member that is there and behind it. */
static void emit_members(mq_schemas *s, const json_t *schema, const json_t *members)
{
    const size_t count = json_object_size(members);
    uint32_t *rule = mq__alloc_zero(count + 1, sizeof *rule), *jump = mq__alloc_zero(count + 1, sizeof *jump);
    if (!rule || !jump) s->g->failed = true;
    set_byte(s, '{');
    mq__schemas_call(s, s->space);
    const char *key;
    json_t *value;
    size_t i = 0;
    /* No member yet: take this one and go to its place behind, or leave it out. */
    json_object_foreach((json_t *)(uintptr_t)members, key, value)
    {
        if (s->g->failed) break;
        rule[i] = mq__grammar_rule(s->g);
        const bool required = is_required(schema, key);
        const uint32_t option = required ? 0 : begin_option(s);
        mq__schemas_call(s, rule[i]);
        jump[i] = mq__grammar_emit(s->g, MQ_OP_JUMP, 0, 0);
        if (!required) end_option(s, option);
        i++;
        if (required) break; /* what is behind a required member is never first */
    }
    const size_t firsts = i;
    bool any_required = false;
    json_object_foreach((json_t *)(uintptr_t)members, key, value)
    {
        any_required = any_required || is_required(schema, key);
    }
    if (!any_required) {
        set_byte(s, '}');
        return_here(s);
    }
    i = 0;
    json_object_foreach((json_t *)(uintptr_t)members, key, value)
    {
        if (s->g->failed || s->g->too_big) break;
        if (i > 0) { /* behind a member: this one after a comma, or not */
            const bool required = is_required(schema, key);
            if (i >= firsts) rule[i] = mq__grammar_rule(s->g);
            const uint32_t option = required ? 0 : begin_option(s);
            set_byte(s, ',');
            mq__schemas_call(s, s->space);
            mq__schemas_call(s, rule[i]);
            if (!required) end_option(s, option);
        }
        if (i < firsts) s->g->code[jump[i]].a = mq__grammar_here(s->g);
        i++;
    }
    set_byte(s, '}');
    return_here(s);
    i = 0;
    json_object_foreach((json_t *)(uintptr_t)members, key, value)
    {
        if (s->g->failed) break;
        mq__grammar_begin(s->g, rule[i++]);
        emit_member(s, key, value);
        return_here(s);
    }
    mq__free(rule);
    mq__free(jump);
}

/* Any keys, all values of one schema. */
static void emit_map(mq_schemas *s, const json_t *values)
{
    set_byte(s, '{');
    mq__schemas_call(s, s->space);
    const uint32_t any = begin_option(s), again = mq__grammar_here(s->g);
    mq__schemas_call(s, s->string);
    mq__schemas_call(s, s->space);
    set_byte(s, ':');
    mq__schemas_call(s, s->space);
    mq__schemas_call(s, json_is_object(values) ? mq__schemas_rule(s, values) : s->value);
    mq__schemas_call(s, s->space);
    const uint32_t last = begin_option(s);
    set_byte(s, ',');
    mq__schemas_call(s, s->space);
    (void)mq__grammar_emit(s->g, MQ_OP_JUMP, again, 0);
    end_option(s, last);
    end_option(s, any);
    set_byte(s, '}');
    return_here(s);
}

/* Members that are required without a schema may have any value. */
static json_t *members_of(mq_schemas *s, const json_t *schema)
{
    const json_t *properties = json_object_get(schema, "properties"), *name;
    json_t *members = json_is_object(properties) ? json_copy((json_t *)(uintptr_t)properties) : json_object();
    size_t i;
    json_array_foreach(json_object_get(schema, "required"), i, name)
    {
        if (!members || !json_is_string(name) || json_object_get(members, json_string_value(name))) continue;
        if (json_object_set_new_nocheck(members, json_string_value(name), json_true()) != 0) s->g->failed = true;
    }
    if (!members || json_array_append(s->made, members) != 0) s->g->failed = true;
    return members; /* `made` holds it, too */
}

static void emit_object(mq_schemas *s, const json_t *schema)
{
    const json_t *more = json_object_get(schema, "additionalProperties");
    json_t *members = members_of(s, schema);
    if (members && json_object_size(members) == 0 && !json_is_false(more))
        emit_map(s, more);
    else if (members)
        emit_members(s, schema, members);
    json_decref(members);
}

/* ---- arrays */

static void emit_item(mq_schemas *s, const json_t *schema, size_t at)
{
    const json_t *prefix = json_array_get(json_object_get(schema, "prefixItems"), at);
    const json_t *items = prefix ? prefix : json_object_get(schema, "items");
    mq__schemas_call(s, items ? mq__schemas_rule(s, items) : s->value);
    mq__schemas_call(s, s->space);
}

static void emit_array(mq_schemas *s, const json_t *schema)
{
    const json_t *prefix = json_object_get(schema, "prefixItems");
    const size_t fixed = json_array_size(prefix);
    long least = read_bound(s, schema, "minItems"), most = read_bound(s, schema, "maxItems");
    if (json_is_false(json_object_get(schema, "items")) && (most < 0 || most > (long)fixed)) most = (long)fixed;
    if (least < 0) least = 0;
    const long counted = most >= 0 ? most : least > (long)fixed ? least : (long)fixed;
    if (counted > REPEAT_MOST) {
        (void)mq__schema_fail(s, MQ_LIMIT, "expected at most 256 counted items, got more");
        return;
    }
    set_byte(s, '[');
    mq__schemas_call(s, s->space);
    for (long n = 0; n < counted || (most < 0 && n == counted); n++) {
        if (n >= least) { /* it may end here */
            const uint32_t more = begin_option(s), skip = mq__grammar_emit(s->g, MQ_OP_JUMP, 0, 0);
            end_option(s, more);
            set_byte(s, ']');
            return_here(s);
            if (!s->g->failed && !s->g->too_big) s->g->code[skip].a = mq__grammar_here(s->g);
        }
        if (n > 0) {
            set_byte(s, ',');
            mq__schemas_call(s, s->space);
        }
        emit_item(s, schema, (size_t)n);
    }
    if (most >= 0 || s->g->failed || s->g->too_big) {
        set_byte(s, ']');
        return_here(s);
        return;
    }
    const uint32_t again = mq__grammar_here(s->g), more = begin_option(s);
    set_byte(s, ',');
    mq__schemas_call(s, s->space);
    emit_item(s, schema, (size_t)counted + 1);
    (void)mq__grammar_emit(s->g, MQ_OP_JUMP, again, 0);
    end_option(s, more);
    set_byte(s, ']');
    return_here(s);
}

/* ---- a schema */

/* Numbers have at most 15 digits before the point: bounds beyond those hold by themselves. Of the others, 0 below is kept. */
static bool is_signed(mq_schemas *s, const json_t *schema)
{
    static const char *const lower[] = {"minimum", "exclusiveMinimum"}, *const upper[] = {"maximum",
                                                                                          "exclusiveMaximum"};
    bool can_be_negative = true;
    for (int i = 0; i < 2; i++) {
        const json_t *low = json_object_get(schema, lower[i]), *high = json_object_get(schema, upper[i]);
        if (json_is_number(low) && i == 0 && !(json_number_value(low) < 0 || json_number_value(low) > 0))
            can_be_negative = false;
        else if (low && !(json_is_number(low) && json_number_value(low) <= -1e15))
            (void)mq__schema_leave_out(s, lower[i]);
        if (high && !(json_is_number(high) && json_number_value(high) >= 1e15)) (void)mq__schema_leave_out(s, upper[i]);
    }
    return can_be_negative;
}

static void emit_number(mq_schemas *s, const json_t *schema, bool whole)
{
    const bool negative = is_signed(s, schema);
    mq__schemas_call(s, whole ? (negative ? s->integer : s->natural) : negative ? s->number : s->positive);
    return_here(s);
}

static void emit_type(mq_schemas *s, const json_t *schema, const char *type)
{
    if (strcmp(type, "object") == 0) {
        emit_object(s, schema);
    } else if (strcmp(type, "array") == 0) {
        emit_array(s, schema);
    } else if (strcmp(type, "string") == 0) {
        emit_bounded_string(s, schema);
    } else if (strcmp(type, "number") == 0 || strcmp(type, "integer") == 0) {
        emit_number(s, schema, *type == 'i');
    } else if (strcmp(type, "boolean") == 0) {
        literal_way(s, json_true());
        literal_way(s, json_false());
        no_other_way(s);
    } else if (strcmp(type, "null") == 0) {
        mq__grammar_text(s->g, "null", 4);
        return_here(s);
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
        const uint32_t option = begin_option(s);
        emit_type(s, schema, json_is_string(type) ? json_string_value(type) : "");
        end_option(s, option);
    }
    no_other_way(s);
}

/* Without a type: what its keywords are about. */
static void emit_untyped(mq_schemas *s, const json_t *schema)
{
    if (json_object_get(schema, "properties") || json_object_get(schema, "required"))
        emit_object(s, schema);
    else if (json_object_get(schema, "items") || json_object_get(schema, "prefixItems"))
        emit_array(s, schema);
    else {
        mq__schemas_call(s, s->value);
        return_here(s);
    }
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

static void emit_alternatives(mq_schemas *s, const json_t *list)
{
    const json_t *one;
    size_t i;
    json_array_foreach(list, i, one)
    {
        schema_way(s, one);
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

static void emit_keywords(mq_schemas *s, const json_t *schema)
{
    const json_t *type = json_object_get(schema, "type"), *any = json_object_get(schema, "anyOf");
    const json_t *constant = json_object_get(schema, "const"), *list = json_object_get(schema, "enum");
    if (!any) any = json_object_get(schema, "oneOf");
    if (json_is_true(json_object_get(schema, "nullable"))) literal_way(s, json_null());
    if (constant) {
        mq__grammar_json(s, constant);
        return_here(s);
    } else if (json_is_array(list)) {
        emit_literals(s, list);
    } else if (json_is_array(any) && !json_object_get(schema, "properties")) {
        emit_alternatives(s, any);
    } else {
        if (any) (void)mq__schema_leave_out(s, "anyOf");
        if (json_is_array(type))
            emit_types(s, schema, type);
        else if (type)
            emit_type(s, schema, json_is_string(type) ? json_string_value(type) : "");
        else
            emit_untyped(s, schema);
    }
}

static void emit_schema(mq_schemas *s, const json_t *schema)
{
    schema = mq__schema_follow(s, schema);
    if (json_is_object(schema) && json_object_get(schema, "allOf")) schema = mq__schema_merge(s, schema);
    if (!schema || json_is_false(schema)) {
        no_other_way(s);
    } else if (json_is_true(schema)) {
        mq__schemas_call(s, s->value);
        return_here(s);
    } else if (!json_is_object(schema)) {
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
