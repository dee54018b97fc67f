/* Tools of the Responses API as functions that a model sees, and which of them it may call. */
#include "server/api_responses.h"

#include "base/mem.h"
#include "server/api_parts.h"

#include <stdio.h>
#include <string.h>

#define BETWEEN_NAMES "__"        /* a namespace and its tool, as the model sees them */
#define PLAIN_SPACE   "functions" /* the namespace of tools that have none: Codex wraps its own into it */

json_t *mq__responses_shown_name(const json_t *space, const json_t *name)
{
    const char *outer = json_string_value(space);
    if (!outer || !outer[0] || strcmp(outer, PLAIN_SPACE) == 0) return json_incref((json_t *)(uintptr_t)name);
    mq_buf text = {0};
    mq__join_text(&text, "", space);
    mq__join_text(&text, BETWEEN_NAMES, name);
    json_t *shown = mq__joined_text(&text);
    mq__buf_free(&text);
    return shown;
}

/* ---- a tool */

/* Where a tool stands in the request. */
typedef struct tool_place {
    mq_server *server;
    mq_ask *ask;
    mq_fault *fault;
    const char *param;
    const json_t *space; /* NULL: in no namespace */
    bool strict;         /* all functions of the request are */
    bool again;          /* a tool may be there already: the list came with the input */
} tool_place;

static mq_response_tool *note_tool(const tool_place *at, mq_response_call kind, json_t *shown, json_t *name)
{
    mq_responses_extra *extra = at->ask->extra;
    mq_response_tool *tools = mq__realloc(extra->tools, (extra->tool_count + 1) * sizeof *tools);
    if (!tools) return NULL;
    extra->tools = tools;
    tools[extra->tool_count] = (mq_response_tool){.kind = kind,
                                                  .shown = json_incref(shown),
                                                  .name = json_incref(name),
                                                  .space = json_incref((json_t *)(uintptr_t)at->space)};
    return &tools[extra->tool_count++];
}

static bool is_known_tool(const tool_place *at, const json_t *shown)
{
    const mq_responses_extra *extra = at->ask->extra;
    for (size_t i = 0; i < extra->tool_count; i++) {
        if (json_equal(extra->tools[i].shown, shown)) return true;
    }
    return false;
}

/* A conversation brings its lists of tools each time: the first of a name stays, so that the prompt's beginning does. */
static bool add_new_tool(const tool_place *at, mq_response_call kind, json_t *shown, json_t *name, json_t *description,
                         json_t *parameters)
{
    if (at->again && is_known_tool(at, shown)) {
        return mq__ask_warn(at->ask, "tool %.64s of additional_tools, which is there already",
                            json_string_value(shown)) ||
               mq__fault_memory(at->fault);
    }
    if (!note_tool(at, kind, shown, name)) return mq__fault_memory(at->fault);
    if (!mq__ask_unique_tool(at->ask, json_string_value(shown), at->param, at->fault)) return false;
    json_t *function = json_pack("{sOsO*sO*sb}", "name", shown, "description", description, "parameters", parameters,
                                 "strict", at->strict);
    return function ? mq__ask_add_tool(at->server, at->ask, function, at->param, at->fault)
                    : mq__fault_memory(at->fault);
}

/* Takes description and parameters. */
static bool add_response_tool(const tool_place *at, mq_response_call kind, json_t *name, json_t *description,
                              json_t *parameters)
{
    json_t *shown = json_is_string(name) ? mq__responses_shown_name(at->space, name) : NULL;
    bool added = false;
    if (!json_is_string(name)) {
        (void)mq__fault(at->fault, at->param, "%s: name: expected a string, got another value", at->param);
    } else if (!shown) {
        (void)mq__fault_memory(at->fault);
    } else {
        added = add_new_tool(at, kind, shown, name, description, parameters);
    }
    json_decref(shown);
    json_decref(description);
    json_decref(parameters);
    return added;
}

/* As the API writes it, or (some clients do) as chat/completions does, inside a "function". */
static bool add_function_tool(const tool_place *at, const json_t *tool)
{
    const json_t *inner = json_object_get(tool, "function");
    const json_t *function = json_is_object(inner) ? inner : tool;
    json_t *parameters = json_object_get(function, "parameters");
    parameters = parameters && !json_is_null(parameters)
                     ? json_incref(parameters)
                     : json_pack("{sss{}sb}", "type", "object", "properties", "additionalProperties", 0);
    return add_response_tool(at, MQ_RESPONSE_FUNCTION, json_object_get(function, "name"),
                             json_incref(json_object_get(function, "description")), parameters);
}

/* The model reads the grammar of the input, it is not held to it. */
static json_t *custom_description(const json_t *tool)
{
    const json_t *format = json_object_get(tool, "format"), *description = json_object_get(tool, "description");
    const json_t *grammar =
        json_is_object(json_object_get(format, "grammar")) ? json_object_get(format, "grammar") : format;
    const char *definition = mq__text_member(grammar, "definition"), *syntax = mq__text_member(grammar, "syntax");
    mq_buf text = {0};
    mq__join_text(&text, "", description);
    if (definition) {
        if (text.len) (void)mq__buf_puts(&text, "\n\n");
        (void)mq__buf_printf(&text, "The input has this grammar%s%s:\n", syntax ? ", written in " : "",
                             syntax ? syntax : "");
        mq__join_text(&text, "", json_object_get(grammar, "definition"));
    }
    json_t *value = mq__joined_text(&text);
    mq__buf_free(&text);
    return value;
}

static bool add_custom_tool(const tool_place *at, const json_t *tool)
{
    json_t *parameters =
        json_pack("{sss{s{ss}}s[s]}", "type", "object", "properties", "input", "type", "string", "required", "input");
    json_t *description = custom_description(tool);
    if (!description) {
        json_decref(parameters);
        return mq__fault_memory(at->fault);
    }
    return add_response_tool(at, MQ_RESPONSE_CUSTOM, json_object_get(tool, "name"), description, parameters);
}

static bool add_shell_tool(const tool_place *at)
{
    json_t *name = json_string("local_shell");
    json_t *parameters = json_pack("{sss{s{sss{ss}}s{ss}s{ss}}s[s]}", "type", "object", "properties", "command", "type",
                                   "array", "items", "type", "string", "workdir", "type", "string", "timeout_ms",
                                   "type", "integer", "required", "command");
    const bool added = add_response_tool(
        at, MQ_RESPONSE_SHELL, name,
        json_string("Runs a command (the program and its arguments) on the user's machine and returns "
                    "its output."),
        parameters);
    json_decref(name);
    return added;
}

/* Tools that run on the API's own servers are left out. */
static bool add_any_tool(const tool_place *at, const json_t *tool)
{
    const char *type = mq__text_member(tool, "type");
    if (!type) {
        return mq__fault(at->fault, at->param, "%s: expected an object with a type, got another value", at->param);
    }
    if (strcmp(type, "function") == 0) return add_function_tool(at, tool);
    if (strcmp(type, "custom") == 0) return add_custom_tool(at, tool);
    if (strcmp(type, "local_shell") == 0) return add_shell_tool(at);
    return mq__ask_warn(at->ask, "tool of type %.64s", type) || mq__fault_memory(at->fault);
}

static bool add_namespace(tool_place at, const json_t *space)
{
    const json_t *tools = json_object_get(space, "tools");
    const char *outer = at.param;
    char param[96];
    at.space = json_object_get(space, "name");
    at.param = param;
    if (!json_is_string(at.space) || !json_is_array(tools)) {
        return mq__fault(at.fault, outer, "%s: expected a name and a list of tools, got another value", outer);
    }
    for (size_t i = 0; i < json_array_size(tools); i++) {
        snprintf(param, sizeof param, "%s.tools[%zu]", outer, i);
        if (!add_any_tool(&at, json_array_get(tools, i))) return false;
    }
    return true;
}

/* ---- all tools */

static bool is_namespace(const json_t *tool)
{
    const char *type = mq__text_member(tool, "type");
    return type && strcmp(type, "namespace") == 0;
}

/* `strict` of one tool must not make a keyword in another one's schema an error: it counts when all have it. */
static bool functions_are_strict(const json_t *tools, bool *any)
{
    bool strict = true;
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *tool = json_array_get(tools, i), *inner = json_object_get(tool, "function");
        const char *type = mq__text_member(tool, "type");
        if (is_namespace(tool)) {
            strict = functions_are_strict(json_object_get(tool, "tools"), any) && strict;
        } else if (type && strcmp(type, "function") == 0) {
            *any = true;
            strict = strict && json_is_true(json_object_get(json_is_object(inner) ? inner : tool, "strict"));
        }
    }
    return strict;
}

static const json_t *more_tools_of(const json_t *item)
{
    const char *type = mq__text_member(item, "type");
    return type && strcmp(type, "additional_tools") == 0 ? json_object_get(item, "tools") : NULL;
}

static bool all_are_strict(const json_t *tools, const json_t *input)
{
    bool any = false, strict = functions_are_strict(tools, &any);
    for (size_t i = 0; i < json_array_size(input); i++) {
        strict = functions_are_strict(more_tools_of(json_array_get(input, i)), &any) && strict;
    }
    return strict && any;
}

/* `list`: what it is called in a fault. */
static bool read_tool_list(tool_place at, const json_t *tools, const char *list)
{
    char param[64];
    at.param = param;
    if (!tools || json_is_null(tools)) return true;
    if (!json_is_array(tools)) return mq__fault(at.fault, list, "%s: expected a list, got another value", list);
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *tool = json_array_get(tools, i);
        snprintf(param, sizeof param, "%.40s[%zu]", list, i);
        if (!(is_namespace(tool) ? add_namespace(at, tool) : add_any_tool(&at, tool))) return false;
    }
    return true;
}

/* Those of `tools`, and of items of the input: the newest models of Codex have all of theirs there. */
static bool read_all_tools(mq_server *server, const json_t *body, mq_ask *ask, mq_fault *fault)
{
    const json_t *tools = json_object_get(body, "tools"), *input = json_object_get(body, "input");
    tool_place at = {.server = server, .ask = ask, .fault = fault, .strict = all_are_strict(tools, input)};
    if (!read_tool_list(at, tools, "tools")) return false;
    at.again = true;
    for (size_t i = 0; i < json_array_size(input); i++) {
        char list[40];
        snprintf(list, sizeof list, "input[%zu].tools", i);
        if (!read_tool_list(at, more_tools_of(json_array_get(input, i)), list)) return false;
    }
    return true;
}

/* ---- which may be called */

static bool same_text(const json_t *a, const json_t *b)
{
    return json_is_string(a) && json_equal(a, b);
}

/* Whether an entry of tool_choice means a tool: its name (as the client or the model knows it), or a whole namespace. */
static bool is_chosen(const mq_response_tool *tool, const json_t *entry)
{
    const char *type = mq__text_member(entry, "type");
    const json_t *name = json_object_get(entry, "name"), *space = json_object_get(entry, "namespace");
    if (type && strcmp(type, "namespace") == 0) return same_text(tool->space, name);
    if (type && strcmp(type, "local_shell") == 0) return tool->kind == MQ_RESPONSE_SHELL;
    if (json_is_string(space)) return same_text(tool->space, space) && same_text(tool->name, name);
    return same_text(tool->shown, name) || same_text(tool->name, name);
}

/* Appends {"name": as shown} for each tool that an entry means. */
static void add_chosen(const mq_responses_extra *extra, const json_t *entry, json_t *names)
{
    for (size_t i = 0; i < extra->tool_count; i++) {
        if (!is_chosen(&extra->tools[i], entry)) continue;
        (void)json_array_append_new(names, json_pack("{sO}", "name", extra->tools[i].shown));
    }
}

/* Tools that were left out cannot be allowed either. */
static bool is_hosted(const json_t *entry)
{
    static const char *const known[] = {"function", "custom", "local_shell", "namespace"};
    const char *type = mq__text_member(entry, "type");
    for (size_t i = 0; type && i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(type, known[i]) == 0) return false;
    }
    return type != NULL;
}

static bool read_allowed_tools(const json_t *choice, mq_ask *ask, mq_fault *fault)
{
    const json_t *list = json_object_get(choice, "tools"), *mode = json_object_get(choice, "mode");
    json_t *names = json_array();
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        const size_t before = json_array_size(names);
        if (is_hosted(entry)) continue;
        add_chosen(ask->extra, entry, names);
        if (json_array_size(names) > before) continue;
        json_decref(names);
        const char *name = mq__text_member(entry, "name");
        return mq__fault(fault, "tool_choice", "tool_choice: tools[%zu]: expected one of the tools, got %.100s", i,
                         name ? name : "another value");
    }
    json_t *shown = json_pack("{sssO*so}", "type", "allowed_tools", "mode", mode, "tools", names);
    const bool read = shown ? mq__read_tool_choice(shown, ask, fault) : mq__fault_memory(fault);
    json_decref(shown);
    return read;
}

static bool read_one_choice(const json_t *choice, mq_ask *ask, mq_fault *fault)
{
    json_t *names = json_array();
    const json_t *inner = json_object_get(choice, "function");
    add_chosen(ask->extra, json_is_object(inner) ? inner : choice, names);
    const bool one = json_array_size(names) == 1;
    bool read = false;
    if (one) {
        read = mq__ask_must_call(ask, mq__text_member(json_array_get(names, 0), "name"), "tool_choice", fault);
    } else {
        (void)mq__fault(fault, "tool_choice", "tool_choice: expected one of the tools, got %s",
                        json_array_size(names) ? "a name that several have" : "another name");
    }
    json_decref(names);
    return read;
}

static bool read_choice_of_tools(const json_t *choice, mq_ask *ask, mq_fault *fault)
{
    const char *type = mq__text_member(choice, "type");
    if (!type) return mq__read_tool_choice(choice, ask, fault); /* a string, or nothing */
    if (strcmp(type, "allowed_tools") == 0) return read_allowed_tools(choice, ask, fault);
    if (!is_hosted(choice)) return read_one_choice(choice, ask, fault);
    return mq__fault(fault, "tool_choice", "tool_choice: expected a tool that runs here, got %.64s", type);
}

bool mq__responses_read_tools(mq_server *server, const json_t *body, mq_ask *ask, mq_fault *fault)
{
    return read_all_tools(server, body, ask, fault) &&
           read_choice_of_tools(json_object_get(body, "tool_choice"), ask, fault);
}

/* ---- back to the client's names */

const mq_response_tool *mq__responses_tool(const mq_call *call, const mq_answered_call *called)
{
    const mq_responses_extra *extra = mq__responses_extra_of(call);
    for (size_t i = 0; i < extra->tool_count; i++) {
        const char *shown = json_string_value(extra->tools[i].shown);
        if (strcmp(shown, called->name) == 0) return &extra->tools[i];
    }
    return NULL;
}
