#include "eval/scene.h"
#include "base/json_read.h"

#include "base/buf.h"
#include "base/error.h"
#include "base/mem.h"

#include <string.h>

/* A value outside JSON: a string without its quotes. */
static void put_bare(mq_buf *text, const json_t *value)
{
    char *number = json_is_string(value) ? NULL : json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    mq__buf_puts(text, number ? number : json_is_string(value) ? json_string_value(value) : "");
    free(number);
}

static void put_json_line(mq_buf *text, const json_t *row)
{
    char *line = json_dumps(row, JSON_COMPACT);
    mq__buf_puts(text, line ? line : "{}");
    free(line);
}

/* Values with `between` between them, each after its name if `named`. */
static void put_bare_line(mq_buf *text, const json_t *row, bool named, char between)
{
    const char *name;
    json_t *value;
    bool first = true;
    json_object_foreach((json_t *)(uintptr_t)row, name, value)
    {
        if (!first) mq__buf_putc(text, between);
        first = false;
        if (named) {
            mq__buf_puts(text, name);
            mq__buf_putc(text, '=');
        }
        put_bare(text, value);
    }
}

/* "name=value name=value" */
static void put_log_line(mq_buf *text, const json_t *row)
{
    put_bare_line(text, row, true, ' ');
}

/* "value|value" */
static void put_table_line(mq_buf *text, const json_t *row)
{
    put_bare_line(text, row, false, '|');
}

/* "name|name" */
static void put_table_head(mq_buf *text, const json_t *columns)
{
    const json_t *name;
    size_t i;
    json_array_foreach(columns, i, name)
    {
        if (i) mq__buf_putc(text, '|');
        mq__buf_puts(text, json_is_string(name) ? json_string_value(name) : "");
    }
    mq__buf_putc(text, '\n');
}

/* How a tool prints its rows; the first is the default. */
static const struct row_format {
    const char *name;
    void (*head)(mq_buf *text, const json_t *columns); /* before the first row, or NULL */
    void (*line)(mq_buf *text, const json_t *row);
} row_formats[] = {
    {"json", NULL, put_json_line}, {"log", NULL, put_log_line}, {"table", put_table_head, put_table_line}};

/* The tool's format, or NULL if there is none of that name. */
static const struct row_format *format_of_scene(const json_t *tool)
{
    const json_t *format = json_object_get(tool, "format");
    if (!format) return &row_formats[0];
    for (size_t i = 0; i < sizeof row_formats / sizeof row_formats[0]; i++) {
        const char *name = json_string_value(format);
        if (name && strcmp(name, row_formats[i].name) == 0) return &row_formats[i];
    }
    return NULL;
}

static bool tool_is_valid(const json_t *tool, const json_t *tables)
{
    const json_t *filter = json_object_get(tool, "filter"), *columns = json_object_get(tool, "columns");
    const json_t *table = json_object_get(tables, json_string_value(json_object_get(tool, "table")));
    return json_is_string(json_object_get(tool, "name")) && json_is_string(json_object_get(tool, "description")) &&
           json_is_object(json_object_get(tool, "parameters")) && json_is_array(table) && json_is_array(columns) &&
           format_of_scene(tool) && json_object_size(filter) == 1 && json_is_integer(json_object_get(tool, "limit")) &&
           json_is_string(json_object_iter_value(json_object_iter((json_t *)(uintptr_t)filter)));
}

static const char *wrong_part(const json_t *scene)
{
    const json_t *tools = json_object_get(scene, "tools"), *tables = json_object_get(scene, "tables");
    const json_t *turns = json_object_get(scene, "turns"), *item;
    size_t i;
    if (!json_is_string(json_object_get(scene, "system"))) return "system";
    if (!json_is_object(tables)) return "tables";
    if (!json_is_array(tools)) return "tools";
    json_array_foreach(tools, i, item)
    {
        if (!tool_is_valid(item, tables)) return "tools";
    }
    if (!json_is_array(turns)) return "turns";
    json_array_foreach(turns, i, item)
    {
        if (!json_is_string(json_object_get(item, "user"))) return "turns";
    }
    return NULL;
}

mq_status mq__scene_check(const json_t *scene, const char *where, mq_error *error)
{
    const char *wrong = wrong_part(scene);
    if (!wrong) return MQ_OK;
    return mq__fail(error, MQ_FORMAT, "scene: %s: expected a scene with valid \"%s\", got something else", where,
                    wrong);
}

#define SCENE_BYTES ((size_t)64 << 20)

mq_status mq__scene_read(const char *path, json_t **scene, mq_error *error)
{
    mq_status status = mq__json_file(path, SCENE_BYTES, scene, error);
    if (status != MQ_OK) return status;
    status = mq__scene_check(*scene, path, error);
    if (status == MQ_OK) return MQ_OK;
    json_decref(*scene);
    *scene = NULL;
    return status;
}

json_t *mq__scene_tools(const json_t *scene)
{
    json_t *list = json_array();
    const json_t *tool;
    size_t i;
    json_array_foreach(json_object_get(scene, "tools"), i, tool)
    {
        json_array_append_new(list, json_pack("{sss{sOsOsO}}", "type", "function", "function", "name",
                                              json_object_get(tool, "name"), "description",
                                              json_object_get(tool, "description"), "parameters",
                                              json_object_get(tool, "parameters")));
    }
    return list;
}

/* Values are compared as text: a model writes 42 as well as "42". */
static bool same_value(const json_t *a, const json_t *b)
{
    char *x = json_dumps(a, JSON_ENCODE_ANY), *y = json_dumps(b, JSON_ENCODE_ANY);
    bool same = false;
    if (x && y) {
        const char *p = x + (*x == '"'), *q = y + (*y == '"');
        const size_t m = strlen(p) - (*x == '"'), n = strlen(q) - (*y == '"');
        same = m == n && strncmp(p, q, m) == 0;
    }
    free(x);
    free(y);
    return same;
}

static char *select_rows(const json_t *tool, const json_t *table, const json_t *wanted, const char *column)
{
    const json_t *columns = json_object_get(tool, "columns"), *row, *name;
    const json_int_t limit = json_integer_value(json_object_get(tool, "limit"));
    const struct row_format *format = format_of_scene(tool);
    mq_buf text = {0};
    json_int_t found = 0;
    size_t i, k;
    json_array_foreach(table, i, row)
    {
        if (found == limit) break;
        if (!same_value(json_object_get(row, column), wanted)) continue;
        json_t *shown = json_object();
        json_array_foreach(columns, k, name)
        {
            json_t *value = json_object_get(row, json_string_value(name));
            if (value)
                json_object_set(shown, json_string_value(name), value);
            else if (format->head)
                json_object_set_new(shown, json_string_value(name), json_string("")); /* its place */
        }
        if (found) mq__buf_putc(&text, '\n');
        if (found++ == 0 && format->head) format->head(&text, columns);
        format->line(&text, shown);
        json_decref(shown);
    }
    if (found == 0) mq__buf_puts(&text, "no rows");
    return mq__buf_take(&text);
}

char *mq__scene_call(const json_t *scene, const char *name, const json_t *arguments)
{
    const json_t *tool;
    size_t i;
    json_array_foreach(json_object_get(scene, "tools"), i, tool)
    {
        if (strcmp(json_string_value(json_object_get(tool, "name")), name) != 0) continue;
        void *filter = json_object_iter((json_t *)(uintptr_t)json_object_get(tool, "filter"));
        const json_t *wanted = json_object_get(arguments, json_object_iter_key(filter));
        const json_t *table =
            json_object_get(json_object_get(scene, "tables"), json_string_value(json_object_get(tool, "table")));
        if (wanted) return select_rows(tool, table, wanted, json_string_value(json_object_iter_value(filter)));
    }
    return mq__strdup("no such tool");
}

json_t *mq__scene_parse_call(const char *answer)
{
    const char *start = strstr(answer, "<tool_call>"), *end = start ? strstr(start, "</tool_call>") : NULL;
    if (!end) return NULL;
    start += strlen("<tool_call>");
    json_t *call = NULL;
    (void)mq__json_read(start, (size_t)(end - start), 0, MQ_JSON_ROUND_NUMBERS, "call", &call, NULL);
    if (json_is_string(json_object_get(call, "name")) && json_is_object(json_object_get(call, "arguments")))
        return call;
    json_decref(call);
    return NULL;
}
