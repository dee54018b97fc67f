/* Objects and arrays. */
#include "base/mem.h"
#include "gen/json_grammar.h"

#include <stdlib.h>
#include <string.h>

#define ITEMS_MOST 1024
#define NAME_MOST  64 /* bytes of a declared name that other names are told from */

static void put_byte(mq_schemas *s, char byte)
{
    mq__grammar_byte(s->g, (uint8_t)byte, (uint8_t)byte);
}

static void put_comma(mq_schemas *s)
{
    put_byte(s, ',');
    mq__schemas_call(s, s->space);
}

static void put_colon(mq_schemas *s)
{
    mq__schemas_call(s, s->space);
    put_byte(s, ':');
    mq__schemas_call(s, s->space);
}

static void close_list(mq_schemas *s, char close)
{
    put_byte(s, close);
    mq__grammar_end(s->g);
}

bool mq__schema_requires(mq_schemas *s, const json_t *schema, const char *name)
{
    const json_t *required = json_object_get(schema, "required"), *item;
    size_t i;
    if (!mq__schema_work(s, json_array_size(required))) return false;
    json_array_foreach(required, i, item)
    {
        if (json_is_string(item) && strcmp(json_string_value(item), name) == 0) return true;
    }
    return false;
}

/* ---- lists that are counted */

typedef struct item_list {
    const json_t *schema; /* of an array; NULL: members of any name */
    const json_t *values; /* of those */
    long least, most;     /* -1: any number */
} item_list;

/* Schemas of the first items, one each. Before draft 2020-12 they were a list in `items`, and `additionalItems` what `items` is now. */
static const json_t *first_items(const json_t *schema)
{
    const json_t *items = json_object_get(schema, "items");
    return json_is_array(items) ? items : json_object_get(schema, "prefixItems");
}

/* Of those behind them. */
static const json_t *more_items(const json_t *schema)
{
    const json_t *items = json_object_get(schema, "items");
    return json_is_array(items) ? json_object_get(schema, "additionalItems") : items;
}

static void put_item(mq_schemas *s, const item_list *list, size_t at)
{
    const json_t *prefix = json_array_get(first_items(list->schema), at);
    const json_t *value = !list->schema ? list->values : prefix ? prefix : more_items(list->schema);
    if (!list->schema) {
        mq__schemas_call(s, s->string);
        put_colon(s);
    }
    mq__schemas_call(s, value ? mq__schemas_rule(s, value) : s->value);
    mq__schemas_call(s, s->space);
}

/* `counted` items each with code of its own, then as many as there is no limit to. */
static void put_items(mq_schemas *s, const item_list *list, long counted, char close)
{
    mq_grammar *g = s->g;
    uint32_t chain = MQ_NEVER;
    if (list->most >= 0 && list->most < list->least) {
        (void)mq__grammar_emit(g, MQ_OP_FAIL, 0, 0);
        return;
    }
    for (long n = 0; n < counted && !g->failed && !g->too_big; n++) {
        if (n >= list->least) chain = mq__grammar_chain(g, chain);
        if (n > 0) put_comma(s);
        put_item(s, list, (size_t)n);
    }
    if (list->most < 0) {
        const uint32_t again = mq__grammar_choice(g);
        put_comma(s);
        put_item(s, list, (size_t)counted);
        (void)mq__grammar_emit(g, MQ_OP_JUMP, again, 0);
        mq__grammar_otherwise(g, again);
    }
    mq__grammar_close_chain(g, chain);
    close_list(s, close);
}

void mq__schema_array(mq_schemas *s, const json_t *schema)
{
    const long fixed = (long)json_array_size(first_items(schema));
    item_list list = {.schema = schema,
                      .least = mq__schema_bound(s, schema, "minItems", ITEMS_MOST),
                      .most = mq__schema_bound(s, schema, "maxItems", ITEMS_MOST)};
    if (json_is_false(more_items(schema)) && (list.most < 0 || list.most > fixed)) list.most = fixed;
    const long counted = list.most >= 0 ? list.most : list.least > fixed ? list.least : fixed;
    put_byte(s, '[');
    mq__schemas_call(s, s->space);
    put_items(s, &list, counted > 0 || list.most == 0 ? counted : 1, ']');
}

/* Members of any name, all values of one schema. Names may come twice, so that more than one member cannot be made sure. */
static void put_map(mq_schemas *s, const json_t *schema, const json_t *values)
{
    item_list list = {.values = json_is_true(values) ? NULL : values,
                      .least = mq__schema_bound(s, schema, "minProperties", 1),
                      .most = mq__schema_bound(s, schema, "maxProperties", ITEMS_MOST)};
    put_byte(s, '{');
    mq__schemas_call(s, s->space);
    put_items(s, &list, list.most >= 0 ? list.most : 1, '}');
}

/* ---- names other than those that are declared */

typedef struct name_range {
    const char **name; /* [count], sorted: they begin alike */
    size_t count;
    uint32_t rest; /* the rule of what follows where a name has become another one */
} name_range;

/* Behind `depth` bytes that all names of the range have. What is no other name for sure is not made: with characters beyond ASCII, and
 * with escapes, where a declared name has one at this place. */
static void put_other_names(mq_schemas *s, name_range names, size_t depth)
{
    mq_grammar *g = s->g;
    mq_byte_set others = {{0}};
    bool beyond = true;
    const bool ends = strlen(names.name[0]) == depth;
    mq__set_add(&others, 0x20, 0x7f);
    for (size_t first = ends, last; first < names.count && depth < NAME_MOST; first = last) {
        const uint8_t byte = (uint8_t)names.name[first][depth];
        for (last = first; last < names.count && (uint8_t)names.name[last][depth] == byte;) {
            last++;
        }
        others.bits[byte / 32] &= ~(1u << byte % 32);
        beyond = beyond && byte < 0x80;
        if (byte < 0x20 || byte >= 0x80 || byte == '"' || byte == '\\') continue;
        const uint32_t way = mq__grammar_choice(g);
        put_byte(s, (char)byte);
        put_other_names(s, (name_range){names.name + first, last - first, names.rest}, depth + 1);
        mq__grammar_otherwise(g, way);
    }
    others.bits['"' / 32] &= ~(1u << '"' % 32);
    others.bits['\\' / 32] &= ~(1u << '\\' % 32);
    for (int kind = 0; kind < 2 && depth < NAME_MOST; kind++) {
        const uint32_t way = mq__grammar_choice(g);
        if (kind == 0)
            mq__grammar_set(g, &others);
        else
            (void)mq__grammar_emit(g, beyond ? MQ_OP_CALL : MQ_OP_FAIL, s->beyond, 0);
        mq__schemas_call(s, names.rest);
        mq__grammar_end(g);
        mq__grammar_otherwise(g, way);
    }
    if (ends || depth >= NAME_MOST)
        (void)mq__grammar_emit(g, MQ_OP_FAIL, 0, 0);
    else
        close_list(s, '"');
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* ---- declared members */

typedef struct member {
    const char *key;
    const json_t *value;
    bool required;
    uint32_t rule, jump;
} member;

typedef struct member_list {
    member *member; /* [count] */
    size_t count, required;
    const json_t *others; /* the schema of members of other names; NULL: there are none */
    uint32_t other;       /* their rule */
} member_list;

/* Before the first member: one of them, up to the first that is required, and on to its place in the row behind. */
static void put_first_members(mq_schemas *s, member_list *list, bool may_be_empty, uint32_t *other_jump)
{
    for (size_t i = 0; i < list->count; i++) {
        member *m = &list->member[i];
        const uint32_t option = m->required ? 0 : mq__grammar_choice(s->g);
        mq__schemas_call(s, m->rule);
        m->jump = mq__grammar_emit(s->g, MQ_OP_JUMP, 0, 0);
        if (m->required) return; /* what is behind a required member is never first */
        mq__grammar_otherwise(s->g, option);
    }
    const uint32_t option = mq__grammar_choice(s->g);
    if (list->others)
        mq__schemas_call(s, list->other);
    else
        (void)mq__grammar_emit(s->g, MQ_OP_FAIL, 0, 0);
    *other_jump = mq__grammar_emit(s->g, MQ_OP_JUMP, 0, 0);
    mq__grammar_otherwise(s->g, option);
    if (may_be_empty)
        close_list(s, '}');
    else
        (void)mq__grammar_emit(s->g, MQ_OP_FAIL, 0, 0);
}

/* Behind a member: each of those that follow after a comma, or not; then those of other names. */
static void put_next_members(mq_schemas *s, const member_list *list, uint32_t other_jump)
{
    mq_grammar *g = s->g;
    for (size_t i = 0; i < list->count; i++) {
        const member *m = &list->member[i];
        if (i > 0) {
            const uint32_t option = m->required ? 0 : mq__grammar_choice(g);
            put_comma(s);
            mq__schemas_call(s, m->rule);
            if (!m->required) mq__grammar_otherwise(g, option);
        }
        if (m->jump) mq__grammar_land(g, m->jump);
    }
    if (other_jump) mq__grammar_land(g, other_jump);
    if (list->others) {
        const uint32_t again = mq__grammar_choice(g);
        put_comma(s);
        mq__schemas_call(s, list->other);
        (void)mq__grammar_emit(g, MQ_OP_JUMP, again, 0);
        mq__grammar_otherwise(g, again);
    }
    close_list(s, '}');
}

static void put_member_value(mq_schemas *s, const json_t *value)
{
    put_colon(s);
    mq__schemas_call(s, json_is_true(value) ? s->value : mq__schemas_rule(s, value));
    mq__schemas_call(s, s->space);
    mq__grammar_end(s->g);
}

static void put_member_rules(mq_schemas *s, const member_list *list)
{
    for (size_t i = 0; i < list->count && !s->g->failed; i++) {
        json_t *name = json_string_nocheck(list->member[i].key);
        mq__grammar_begin(s->g, list->member[i].rule);
        if (name)
            mq__grammar_json(s, name);
        else
            s->g->failed = true;
        json_decref(name);
        put_member_value(s, list->member[i].value);
    }
}

/* The rule of a member with another name, and the two that it needs. */
static void put_other_rules(mq_schemas *s, const member_list *list)
{
    const char **name = mq__alloc_zero(list->count, sizeof *name);
    if (!name) s->g->failed = true;
    for (size_t i = 0; name && i < list->count; i++) {
        name[i] = list->member[i].key;
    }
    const uint32_t names = mq__grammar_rule(s->g), rest = mq__grammar_rule(s->g);
    mq__grammar_begin(s->g, list->other);
    put_byte(s, '"');
    mq__schemas_call(s, names);
    put_member_value(s, list->others);
    mq__grammar_begin(s->g, rest);
    mq__schemas_characters(s);
    close_list(s, '"');
    mq__grammar_begin(s->g, names);
    if (name) {
        qsort(name, list->count, sizeof *name, compare_names);
        put_other_names(s, (name_range){name, list->count, rest}, 0);
    }
    mq__free(name);
}

static void put_declared(mq_schemas *s, const json_t *schema, member_list *list)
{
    const long most = mq__schema_bound(s, schema, "maxProperties", ITEMS_MOST);
    const long least = mq__schema_bound(s, schema, "minProperties", list->required > 1 ? (long)list->required : 1);
    uint32_t other_jump = 0;
    if (most >= 0 && (list->others || most < (long)list->count)) (void)mq__schema_leave_out(s, "maxProperties");
    put_byte(s, '{');
    mq__schemas_call(s, s->space);
    put_first_members(s, list, least < 1, &other_jump);
    put_next_members(s, list, other_jump);
    put_member_rules(s, list);
    if (list->others) put_other_rules(s, list);
}

static bool matches_all(const char *pattern)
{
    static const char *const all[] = {"", "^", ".*", "^.*", "^.*$", "(.*)", "^(.*)$"};
    bool found = false;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        found = found || strcmp(pattern, all[i]) == 0;
    }
    return found;
}

/* The schema of members that are not declared; NULL: any. Names are not held to a pattern: what it says of its members' values is said of all
 * of them. */
static json_t *others_of(mq_schemas *s, const json_t *schema)
{
    json_t *more = json_object_get(schema, "additionalProperties");
    json_t *patterns = json_object_get(schema, "patternProperties");
    if (!patterns || (json_is_object(patterns) && json_object_size(patterns) == 0)) return more;
    if (!mq__schema_is_object(patterns)) {
        (void)mq__schema_leave_out(s, "patternProperties");
        return more;
    }
    void *first = json_object_iter(patterns);
    json_t *values = json_object_size(patterns) == 1 ? json_object_iter_value(first) : json_true();
    const bool kept = json_object_size(patterns) == 1 && matches_all(json_object_iter_key(first));
    if (!kept || json_object_size(json_object_get(schema, "properties")) > 0)
        (void)mq__schema_leave_out(s, "patternProperties");
    return kept || !json_is_false(values) ? values : more;
}

/* Members that are required without a schema have that of other ones. */
static json_t *declared_members(mq_schemas *s, const json_t *schema, json_t *others)
{
    const json_t *properties = json_object_get(schema, "properties"), *name;
    json_t *members = mq__schema_is_object(properties) ? json_copy((json_t *)(uintptr_t)properties) : json_object();
    size_t i;
    json_array_foreach(json_object_get(schema, "required"), i, name)
    {
        if (!members || !json_is_string(name) || json_object_get(members, json_string_value(name))) continue;
        if (json_object_set_new_nocheck(members, json_string_value(name), others ? json_incref(others) : json_true()) !=
            0)
            s->g->failed = true;
    }
    if (!members || json_array_append(s->made, members) != 0) s->g->failed = true;
    return members; /* `made` holds it, too */
}

void mq__schema_object(mq_schemas *s, const json_t *schema)
{
    json_t *more = others_of(s, schema), *members = declared_members(s, schema, more), *value;
    const char *key;
    member_list list = {.others = json_object_size(more) > 0 ? more : NULL};
    if (members && json_object_size(members) == 0 && !json_is_false(more)) {
        put_map(s, schema, more);
    } else if (members) {
        list.member = mq__alloc_zero(json_object_size(members) + 1, sizeof *list.member);
        if (!list.member) s->g->failed = true;
        if (list.others) list.other = mq__grammar_rule(s->g);
        json_object_foreach(members, key, value)
        {
            if (s->g->failed || s->status != MQ_OK) break;
            const bool required = mq__schema_requires(s, schema, key);
            list.required += required;
            list.member[list.count++] = (member){key, value, required, mq__grammar_rule(s->g), 0};
        }
        if (!s->g->failed && s->status == MQ_OK) put_declared(s, schema, &list);
        mq__free(list.member);
    }
    json_decref(members);
}
