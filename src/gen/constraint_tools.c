#include "gen/constraint_tools.h"

#include "base/error.h"
#include "base/mem.h"

#include <string.h>

#define MEMBERS_MOST 256 /* of a tool, where its syntax is not JSON; others are left out */

const char *mq__tool_marker(mq_tool_format format)
{
    switch (format) {
    case MQ_TOOLS_HERMES:
    case MQ_TOOLS_QWEN3_CODER:
        return "<tool_call>";
    case MQ_TOOLS_LLAMA3:
        return "<|python_tag|>";
    case MQ_TOOLS_MISTRAL:
        return "[TOOL_CALLS]";
    case MQ_TOOLS_GEMMA4:
        return "<|tool_call>";
    default:
        return "";
    }
}

/* ---- pieces */

static void put_bytes_of(mq_schemas *s, const char *text)
{
    mq__grammar_text(s->g, text, strlen(text));
}

static void put_space(mq_schemas *s)
{
    mq__schemas_call(s, s->space);
}

static void end_of_ways(mq_schemas *s)
{
    (void)mq__grammar_emit(s->g, MQ_OP_FAIL, 0, 0);
}

static const json_t *function_of(const json_t *tool)
{
    const json_t *function = json_object_get(tool, "function");
    return function ? function : tool;
}

static const char *name_of(const json_t *tool)
{
    const char *name = json_string_value(json_object_get(function_of(tool), "name"));
    return name ? name : "";
}

static const json_t *parameters_of(const json_t *tool)
{
    return json_object_get(function_of(tool), "parameters");
}

static json_t *tool_members(const json_t *schema)
{
    json_t *properties = json_object_get(schema, "properties");
    return mq__schema_is_object(properties) ? properties : NULL;
}

/* A tool without parameters takes any object. */
static void put_arguments(mq_schemas *s, const json_t *tool)
{
    const json_t *schema = parameters_of(tool);
    if (json_is_object(schema)) {
        s->root = schema;
        mq__schemas_call(s, mq__schemas_rule(s, schema));
    } else {
        put_bytes_of(s, "{}");
    }
}

static void put_json_text(mq_schemas *s, const char *text)
{
    json_t *string = json_string_nocheck(text);
    if (string)
        mq__grammar_json(s, string);
    else
        s->g->failed = true;
    json_decref(string);
}

/* {"name": "NAME", "<arguments>": {...}} */
static void put_json_call(mq_schemas *s, const json_t *tool, const char *arguments)
{
    put_bytes_of(s, "{");
    put_space(s);
    put_bytes_of(s, "\"name\"");
    put_space(s);
    put_bytes_of(s, ":");
    put_space(s);
    put_json_text(s, name_of(tool));
    put_space(s);
    put_bytes_of(s, ",");
    put_space(s);
    put_json_text(s, arguments);
    put_space(s);
    put_bytes_of(s, ":");
    put_space(s);
    put_arguments(s, tool);
    put_space(s);
    put_bytes_of(s, "}");
}

/* ---- Qwen3-Coder: parameters between tags, strings as they are */

static bool is_bare_text(const json_t *schema)
{
    const json_t *type = json_object_get(schema, "type");
    return (!type && !json_object_get(schema, "enum")) ||
           (json_is_string(type) && strcmp(json_string_value(type), "string") == 0 && !json_object_get(schema, "enum"));
}

/* Strings of an enumeration stand without quotes. */
static void put_bare_values(mq_schemas *s, const json_t *list)
{
    const json_t *value;
    size_t i;
    uint32_t jumps[256], count = 0;
    json_array_foreach(list, i, value)
    {
        const uint32_t way = mq__grammar_choice(s->g);
        if (json_is_string(value))
            put_bytes_of(s, json_string_value(value));
        else
            mq__grammar_json(s, value);
        if (count < 256) jumps[count++] = mq__grammar_emit(s->g, MQ_OP_JUMP, 0, 0);
        mq__grammar_otherwise(s->g, way);
        if (count == 256) break;
    }
    end_of_ways(s);
    for (uint32_t j = 0; j < count && !s->g->failed && !s->g->too_big; j++) {
        s->g->code[jumps[j]].a = mq__grammar_here(s->g);
    }
}

static void put_tagged(mq_schemas *s, const char *name, const json_t *schema)
{
    static const char end[] = "\n</parameter>";
    put_bytes_of(s, "<parameter=");
    put_bytes_of(s, name);
    put_bytes_of(s, ">\n");
    if (is_bare_text(schema)) {
        mq__grammar_until(s->g, end, sizeof end - 1);
    } else {
        if (json_is_array(json_object_get(schema, "enum")))
            put_bare_values(s, json_object_get(schema, "enum"));
        else
            mq__schemas_call(s, mq__schemas_rule(s, schema));
        put_bytes_of(s, end);
    }
    put_space(s);
}

static void put_tagged_call(mq_schemas *s, const json_t *tool)
{
    const json_t *schema = parameters_of(tool);
    const char *key;
    json_t *value;
    put_bytes_of(s, "<function=");
    put_bytes_of(s, name_of(tool));
    put_bytes_of(s, ">");
    put_space(s);
    s->root = schema;
    json_object_foreach(tool_members(schema), key, value)
    {
        const bool required = mq__schema_requires(s, schema, key);
        const uint32_t way = required ? 0 : mq__grammar_choice(s->g);
        put_tagged(s, key, value);
        if (!required) mq__grammar_otherwise(s->g, way);
    }
    put_bytes_of(s, "</function>");
    put_space(s);
    put_bytes_of(s, "</tool_call>");
}

/* ---- Gemma 4: a syntax of its own, strings between marks */

static const char gemma_quote[] = "<|\"|>";

/* Any value. */
static uint32_t emit_gemma_value(mq_schemas *s)
{
    mq_grammar *g = s->g;
    const uint32_t rule = mq__grammar_rule(g);
    mq__grammar_begin(g, rule);
    const uint32_t text = mq__grammar_choice(s->g);
    put_bytes_of(s, gemma_quote);
    mq__grammar_until(g, gemma_quote, sizeof gemma_quote - 1);
    mq__grammar_end(s->g);
    mq__grammar_otherwise(s->g, text);
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < 3; i++) {
        const uint32_t word = mq__grammar_choice(s->g);
        put_bytes_of(s, words[i]);
        mq__grammar_end(s->g);
        mq__grammar_otherwise(s->g, word);
    }
    const uint32_t number = mq__grammar_choice(s->g);
    mq__schemas_call(s, s->number);
    mq__grammar_end(s->g);
    mq__grammar_otherwise(s->g, number);
    for (int keys = 0; keys < 2; keys++) {
        const uint32_t list = mq__grammar_choice(s->g);
        put_bytes_of(s, keys ? "{" : "[");
        const uint32_t any = mq__grammar_choice(s->g), again = mq__grammar_here(g);
        if (keys) {
            mq_byte_set word = {{0}};
            mq__set_add(&word, '0', '9');
            mq__set_add(&word, 'A', 'Z');
            mq__set_add(&word, 'a', 'z');
            mq__set_add(&word, '_', '_');
            const uint32_t letter = mq__grammar_here(g);
            mq__grammar_set(g, &word);
            const uint32_t more = mq__grammar_choice(s->g);
            (void)mq__grammar_emit(g, MQ_OP_JUMP, letter, 0);
            mq__grammar_otherwise(s->g, more);
            put_bytes_of(s, ":");
        }
        mq__schemas_call(s, rule);
        const uint32_t last = mq__grammar_choice(s->g);
        put_bytes_of(s, ",");
        (void)mq__grammar_emit(g, MQ_OP_JUMP, again, 0);
        mq__grammar_otherwise(s->g, last);
        mq__grammar_otherwise(s->g, any);
        put_bytes_of(s, keys ? "}" : "]");
        mq__grammar_end(s->g);
        mq__grammar_otherwise(s->g, list);
    }
    end_of_ways(s);
    return rule;
}

static void put_gemma_value(mq_schemas *s, const json_t *schema, uint32_t value)
{
    const char *type = json_string_value(json_object_get(schema, "type"));
    if (type && strcmp(type, "string") == 0) {
        put_bytes_of(s, gemma_quote);
        if (json_is_array(json_object_get(schema, "enum"))) {
            put_bare_values(s, json_object_get(schema, "enum"));
            put_bytes_of(s, gemma_quote);
        } else {
            mq__grammar_until(s->g, gemma_quote, sizeof gemma_quote - 1);
        }
    } else if (type && (strcmp(type, "integer") == 0 || strcmp(type, "number") == 0)) {
        mq__schemas_call(s, mq__schemas_rule(s, schema));
    } else {
        mq__schemas_call(s, value);
    }
}

/* Members in order, those that are not required may be left out, commas between those that are there: two rows of places as in a JSON
 * object (schema.c). `rule` has one for each. */
static void put_members(mq_schemas *s, const json_t *schema, const uint32_t *rule, size_t count)
{
    uint32_t jump[MEMBERS_MOST];
    const char *key;
    json_t *value, *object = tool_members(schema);
    size_t i = 0, firsts;
    bool sure = false;
    json_object_foreach(object, key, value)
    {
        if (i == count || sure) break;
        sure = mq__schema_requires(s, schema, key);
        const uint32_t way = sure ? 0 : mq__grammar_choice(s->g);
        mq__schemas_call(s, rule[i]);
        jump[i++] = mq__grammar_emit(s->g, MQ_OP_JUMP, 0, 0);
        if (!sure) mq__grammar_otherwise(s->g, way);
    }
    firsts = i;
    const uint32_t none = sure ? 0 : mq__grammar_emit(s->g, MQ_OP_JUMP, 0, 0);
    i = 0;
    json_object_foreach(object, key, value)
    {
        if (i == count || s->g->failed || s->g->too_big) break;
        if (i > 0) {
            const bool required = mq__schema_requires(s, schema, key);
            const uint32_t way = required ? 0 : mq__grammar_choice(s->g);
            put_bytes_of(s, ",");
            mq__schemas_call(s, rule[i]);
            if (!required) mq__grammar_otherwise(s->g, way);
        }
        if (i < firsts) s->g->code[jump[i]].a = mq__grammar_here(s->g);
        i++;
    }
    if (!sure && !s->g->failed && !s->g->too_big) s->g->code[none].a = mq__grammar_here(s->g);
}

/* The rules of a tool's members; their code stands where this is called, between rules. */
static size_t emit_gemma_members(mq_schemas *s, const json_t *schema, uint32_t any, uint32_t *rule)
{
    const char *key;
    json_t *value;
    size_t count = 0;
    json_object_foreach(tool_members(schema), key, value)
    {
        if (count == MEMBERS_MOST) break;
        rule[count] = mq__grammar_rule(s->g);
        mq__grammar_begin(s->g, rule[count++]);
        put_bytes_of(s, key);
        put_bytes_of(s, ":");
        put_gemma_value(s, value, any);
        mq__grammar_end(s->g);
    }
    return count;
}

/* A rule of its own. */
static uint32_t gemma_call(mq_schemas *s, const json_t *tool, uint32_t any)
{
    uint32_t rule[MEMBERS_MOST];
    const json_t *schema = parameters_of(tool);
    s->root = schema;
    const size_t count = emit_gemma_members(s, schema, any, rule);
    const uint32_t call = mq__grammar_rule(s->g);
    mq__grammar_begin(s->g, call);
    put_bytes_of(s, "call:");
    put_bytes_of(s, name_of(tool));
    put_bytes_of(s, "{");
    put_members(s, schema, rule, count);
    put_bytes_of(s, "}<tool_call|>");
    mq__grammar_end(s->g);
    return call;
}

/* ---- */

static void put_call(mq_schemas *s, mq_tool_format format, const json_t *tool)
{
    switch (format) {
    case MQ_TOOLS_QWEN3_CODER:
        put_space(s);
        put_tagged_call(s, tool);
        break;
    case MQ_TOOLS_LLAMA3:
        put_space(s);
        put_json_call(s, tool, "parameters");
        break;
    default:
        put_space(s);
        put_json_call(s, tool, "arguments");
        put_space(s);
        put_bytes_of(s, "</tool_call>");
    }
}

/* [{...}, ...], or NAME[ARGS]{...} */
static void put_mistral(mq_schemas *s, const json_t *tools)
{
    const json_t *tool;
    size_t i;
    const uint32_t one = mq__grammar_rule(s->g), list = mq__grammar_choice(s->g);
    put_space(s);
    put_bytes_of(s, "[");
    const uint32_t again = mq__grammar_here(s->g);
    put_space(s);
    mq__schemas_call(s, one);
    put_space(s);
    const uint32_t last = mq__grammar_choice(s->g);
    put_bytes_of(s, ",");
    (void)mq__grammar_emit(s->g, MQ_OP_JUMP, again, 0);
    mq__grammar_otherwise(s->g, last);
    put_bytes_of(s, "]");
    mq__grammar_end(s->g);
    mq__grammar_otherwise(s->g, list);
    json_array_foreach(tools, i, tool)
    {
        const uint32_t way = mq__grammar_choice(s->g);
        put_bytes_of(s, name_of(tool));
        put_bytes_of(s, "[ARGS]");
        put_arguments(s, tool);
        mq__grammar_end(s->g);
        mq__grammar_otherwise(s->g, way);
    }
    end_of_ways(s);
    mq__grammar_begin(s->g, one);
    json_array_foreach(tools, i, tool)
    {
        const uint32_t way = mq__grammar_choice(s->g);
        put_json_call(s, tool, "arguments");
        mq__grammar_end(s->g);
        mq__grammar_otherwise(s->g, way);
    }
    end_of_ways(s);
}

/* Gemma's rules stand before the one that chooses among them. */
static void emit_gemma(mq_schemas *s, uint32_t call, const json_t *tools)
{
    const uint32_t any = emit_gemma_value(s);
    const json_t *tool;
    size_t i, count = 0;
    uint32_t *rule = mq__alloc_zero(json_array_size(tools), sizeof *rule);
    if (!rule) s->g->failed = true;
    json_array_foreach(tools, i, tool)
    {
        if (!s->g->failed) rule[count++] = gemma_call(s, tool, any);
    }
    mq__grammar_begin(s->g, call);
    for (i = 0; i < count; i++) {
        const uint32_t way = mq__grammar_choice(s->g);
        mq__schemas_call(s, rule[i]);
        mq__grammar_end(s->g);
        mq__grammar_otherwise(s->g, way);
    }
    end_of_ways(s);
    mq__free(rule);
}

mq_status mq__tools_emit(mq_schemas *s, uint32_t call, mq_tool_format format, const json_t *tools, mq_error *error)
{
    const json_t *tool;
    size_t i;
    if (!json_is_array(tools) || json_array_size(tools) == 0) {
        return mq__fail(error, MQ_USAGE, "tools: expected an array with at least one, got another value");
    }
    if (format == MQ_TOOLS_GEMMA4) {
        emit_gemma(s, call, tools);
        return MQ_OK;
    }
    mq__grammar_begin(s->g, call);
    if (format == MQ_TOOLS_MISTRAL) {
        put_mistral(s, tools);
        return MQ_OK;
    }
    json_array_foreach(tools, i, tool)
    {
        const uint32_t way = mq__grammar_choice(s->g);
        put_call(s, format, tool);
        mq__grammar_end(s->g);
        mq__grammar_otherwise(s->g, way);
    }
    end_of_ways(s);
    return MQ_OK;
}

/* Llama's marker may be missing, and between its calls stands a semicolon. */
static void put_marked_calls(mq_schemas *s, uint32_t call, mq_tool_format format, bool parallel)
{
    const bool llama = format == MQ_TOOLS_LLAMA3;
    const uint32_t again = mq__grammar_here(s->g);
    put_space(s);
    const uint32_t marked = llama ? mq__grammar_choice(s->g) : 0;
    put_bytes_of(s, mq__tool_marker(format));
    if (llama) mq__grammar_otherwise(s->g, marked);
    mq__schemas_call(s, call);
    if (!parallel) return;
    const uint32_t more = mq__grammar_choice(s->g);
    if (llama) put_bytes_of(s, ";");
    (void)mq__grammar_emit(s->g, MQ_OP_JUMP, again, 0);
    mq__grammar_otherwise(s->g, more);
}

mq_status mq__tools_emit_either(mq_schemas *s, uint32_t schema, mq_tool_format format, bool parallel,
                                const json_t *tools, mq_error *error)
{
    const uint32_t call = mq__grammar_rule(s->g);
    const mq_status status = mq__tools_emit(s, call, format, tools, error);
    if (status != MQ_OK) return status;
    mq__grammar_begin(s->g, 0);
    const uint32_t way = mq__grammar_choice(s->g);
    mq__schemas_call(s, schema);
    mq__grammar_end(s->g);
    mq__grammar_otherwise(s->g, way);
    put_marked_calls(s, call, format, parallel);
    mq__grammar_end(s->g);
    return MQ_OK;
}
