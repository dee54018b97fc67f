/* Tools, which of them may be called, and the form of the answer. */
#include "base/json_read.h"
#include "base/mem.h"
#include "server/answering.h"

#include <stdio.h>
#include <string.h>

#define NAME_MOST 256 /* bytes */

static const char *text_at(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

static const char *tool_name(const json_t *tool)
{
    return text_at(json_object_get(tool, "function"), "name");
}

static json_t *find_tool(const json_t *tools, const char *name)
{
    for (size_t i = 0; i < json_array_size(tools); i++) {
        json_t *tool = json_array_get(tools, i);
        const char *own = tool_name(tool);
        if (own && strcmp(own, name) == 0) return tool;
    }
    return NULL;
}

/* ---- tools */

static bool name_has_control(const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7f) return true;
    }
    return false;
}

static bool check_function(const json_t *function, const char *param, mq_fault *fault)
{
    const json_t *name = json_object_get(function, "name"), *description = json_object_get(function, "description"),
                 *parameters = json_object_get(function, "parameters");
    const size_t bytes = json_string_length(name);
    if (!json_is_string(name) || bytes == 0 || bytes > NAME_MOST || name_has_control(json_string_value(name), bytes)) {
        return mq__fault(fault, param,
                         "%s: name: expected a string of 1 to %d bytes without control characters, got another value",
                         param, NAME_MOST);
    }
    if (description && !json_is_null(description) && !json_is_string(description)) {
        return mq__fault(fault, param, "%s: description: expected a string, got another value", param);
    }
    if (parameters && !json_is_null(parameters) && !json_is_object(parameters)) {
        return mq__fault(fault, param, "%s: parameters: expected a JSON schema (an object), got another value", param);
    }
    return true;
}

/* Arguments are an object, whatever a schema says. */
static bool have_object(mq_ask *ask, json_t *function)
{
    const char *type = text_at(json_object_get(function, "parameters"), "type");
    if (!type || strcmp(type, "object") == 0) return true;
    return mq__ask_warn(ask, "parameters of type %.64s", type) &&
           json_object_set_new(function, "parameters", json_pack("{ss}", "type", "object")) == 0;
}

bool mq__ask_add_tool(mq_server *server, mq_ask *ask, json_t *function, const char *param, mq_fault *fault)
{
    static const char *const members[] = {"name", "description", "parameters"};
    const uint32_t most = mq__server_limits(server)->tools;
    bool right = json_array_size(ask->tools) < most;
    if (!right) (void)mq__fault(fault, "tools", "tools: expected at most %u, got more", most);
    right = right && check_function(function, param, fault);
    if (!right) {
        json_decref(function);
        return false;
    }
    /* `strict` of one tool must not make a keyword in another one's schema an error: it counts when all have it. */
    ask->strict_tools = json_is_true(json_object_get(function, "strict")) && (ask->strict_tools || !ask->tools);
    /* Always these members in this order, so that a prompt does not depend on how a client writes them. */
    json_t *copy = json_object();
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        json_t *value = json_object_get(function, members[i]);
        if (value && !json_is_null(value)) (void)json_object_set(copy, members[i], value);
    }
    json_decref(function);
    const bool known = have_object(ask, copy);
    if (!ask->tools) ask->tools = json_array();
    json_t *tool = json_pack("{ssso}", "type", "function", "function", copy);
    return (json_array_append_new(ask->tools, tool) == 0 && known) || mq__fault_memory(fault);
}

bool mq__read_tools(mq_server *server, const json_t *tools, mq_ask *ask, mq_fault *fault)
{
    if (!tools || json_is_null(tools)) return true;
    if (!json_is_array(tools)) return mq__fault(fault, "tools", "tools: expected a list, got another value");
    for (size_t i = 0; i < json_array_size(tools); i++) {
        char param[64];
        snprintf(param, sizeof param, "tools[%zu]", i);
        const json_t *tool = json_array_get(tools, i);
        const char *type = text_at(tool, "type");
        if (!json_is_object(tool)) return mq__fault(fault, param, "%s: expected an object, got another value", param);
        if (type && strcmp(type, "function") != 0) {
            if (!mq__ask_warn(ask, "tool of type %.64s", type)) return mq__fault_memory(fault);
            continue;
        }
        snprintf(param, sizeof param, "tools[%zu].function", i);
        json_t *function = json_object_get(tool, "function");
        if (!json_is_object(function)) return mq__fault(fault, param, "%s: expected an object, got nothing", param);
        if (!mq__ask_add_tool(server, ask, json_incref(function), param, fault)) return false;
    }
    return true;
}

/* ---- which may be called */

bool mq__ask_must_call(mq_ask *ask, const char *name, const char *param, mq_fault *fault)
{
    json_t *tool = name ? find_tool(ask->tools, name) : NULL;
    if (!tool)
        return mq__fault(fault, param, "%s: expected the name of one of the tools, got %.100s", param,
                         name ? name : "none");
    mq__free(ask->only_tool);
    ask->only_tool = mq__strdup(name);
    json_decref(ask->callable);
    ask->callable = json_pack("[O]", tool);
    ask->choice = MQ_CHOICE_REQUIRED;
    return (ask->only_tool && ask->callable) || mq__fault_memory(fault);
}

static bool read_mode(const char *mode, mq_ask *ask, mq_fault *fault)
{
    if (strcmp(mode, "auto") == 0) {
        ask->choice = MQ_CHOICE_AUTO;
    } else if (strcmp(mode, "none") == 0) {
        ask->choice = MQ_CHOICE_NONE;
    } else if (strcmp(mode, "required") == 0 || strcmp(mode, "any") == 0) {
        ask->choice = MQ_CHOICE_REQUIRED;
    } else {
        return mq__fault(fault, "tool_choice", "tool_choice: expected none, auto or required, got %.64s", mode);
    }
    if (ask->choice == MQ_CHOICE_REQUIRED && !ask->tools) {
        return mq__fault(fault, "tool_choice", "tool_choice: expected tools beside it, got none");
    }
    return true;
}

/* The name in a member of tool_choice: {"type":"function","function":{"name"}}, or {"type":"function","name"}. */
static const char *chosen_name(const json_t *choice)
{
    const char *name = tool_name(choice);
    return name ? name : text_at(choice, "name");
}

/* {"mode","tools"}: the prompt has all tools, the answer may call some. */
static bool read_allowed(const json_t *choice, mq_ask *ask, mq_fault *fault)
{
    const json_t *inner = json_object_get(choice, "allowed_tools");
    const json_t *allowed = json_is_object(inner) ? inner : choice, *list = json_object_get(allowed, "tools");
    const char *mode = text_at(allowed, "mode");
    if (!read_mode(mode ? mode : "auto", ask, fault)) return false;
    json_t *callable = json_array();
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = chosen_name(json_array_get(list, i));
        json_t *tool = name ? find_tool(ask->tools, name) : NULL;
        if (!tool) {
            json_decref(callable);
            return mq__fault(fault, "tool_choice", "tool_choice: tools[%zu]: expected one of the tools, got %.100s", i,
                             name ? name : "no name");
        }
        (void)json_array_append(callable, tool);
    }
    json_decref(ask->callable);
    ask->callable = callable;
    if (json_array_size(callable)) return true;
    if (ask->choice == MQ_CHOICE_REQUIRED) {
        return mq__fault(fault, "tool_choice", "tool_choice: expected tools that may be called, got none");
    }
    ask->choice = MQ_CHOICE_NONE;
    return callable || mq__fault_memory(fault);
}

bool mq__read_tool_choice(const json_t *choice, mq_ask *ask, mq_fault *fault)
{
    if (!choice || json_is_null(choice)) return true;
    if (json_is_string(choice)) return read_mode(json_string_value(choice), ask, fault);
    const char *type = text_at(choice, "type");
    if (!type) return mq__fault(fault, "tool_choice", "tool_choice: expected a string or an object with a type");
    if (strcmp(type, "function") == 0) return mq__ask_must_call(ask, chosen_name(choice), "tool_choice", fault);
    if (strcmp(type, "allowed_tools") == 0) return read_allowed(choice, ask, fault);
    return read_mode(type, ask, fault);
}

/* ---- the form of the answer */

static bool set_schema(mq_ask *ask, json_t *schema, mq_fault *fault)
{
    json_decref(ask->schema);
    ask->schema = schema;
    return schema || mq__fault_memory(fault);
}

static bool read_schema(const json_t *format, const char *name, mq_ask *ask, mq_fault *fault)
{
    const json_t *inner = json_object_get(format, "json_schema");
    const json_t *holder = json_is_object(inner) ? inner : format, *strict = json_object_get(holder, "strict");
    json_t *schema = json_object_get(holder, "schema");
    if (!json_is_object(schema)) {
        return mq__fault(fault, name, "%s: expected a JSON schema (an object) in schema, got %s", name,
                         schema ? "another value" : "nothing");
    }
    if (strict && !json_is_boolean(strict) && !json_is_null(strict)) {
        return mq__fault(fault, name, "%s: strict: expected true or false, got another value", name);
    }
    if (json_is_true(strict)) ask->strict = true;
    return set_schema(ask, json_incref(schema), fault);
}

bool mq__read_format(const json_t *format, const char *name, mq_ask *ask, mq_fault *fault)
{
    if (!format || json_is_null(format)) return true;
    const char *type = text_at(format, "type");
    if (!type) return mq__fault(fault, name, "%s: expected an object with a type, got another value", name);
    if (strcmp(type, "text") == 0) return true;
    if (strcmp(type, "json_schema") == 0) return read_schema(format, name, ask, fault);
    if (strcmp(type, "json_object") != 0) {
        return mq__fault(fault, name, "%s: expected type text, json_object or json_schema, got %.64s", name, type);
    }
    if (json_is_object(json_object_get(format, "schema"))) return read_schema(format, name, ask, fault);
    return set_schema(ask, json_pack("{ss}", "type", "object"), fault);
}
