/* POST /v1/messages: the body's fields. */
#include "server/api_messages.h"

#include "base/json_read.h"
#include "base/mem.h"
#include "server/api_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- tools */

/* Tools of other types run on their maker's servers, or have schemas that only their model knows. */
static bool messages_tool_is_custom(const json_t *tool)
{
    const char *type = mq__text_member(tool, "type");
    return !type || strcmp(type, "custom") == 0 || json_is_object(json_object_get(tool, "input_schema"));
}

static bool messages_tool_searches(const json_t *tool)
{
    const char *type = mq__text_member(tool, "type");
    return type && (strncmp(type, "web_search", 10) == 0 || strncmp(type, "web_fetch", 9) == 0);
}

/* A request for a search and nothing else, as Claude Code makes one for each call of its WebSearch: what the model would say without
 * one is shown to the user as results. */
static bool messages_only_search(const json_t *tools)
{
    size_t searches = 0;
    while (searches < json_array_size(tools) && messages_tool_searches(json_array_get(tools, searches))) {
        searches++;
    }
    return searches > 0 && searches == json_array_size(tools);
}

/* `strict` of one tool must not make a keyword in another one's schema an error: it counts when all have it. */
static bool messages_tools_are_strict(const json_t *tools)
{
    bool strict = json_array_size(tools) > 0;
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *tool = json_array_get(tools, i);
        if (messages_tool_is_custom(tool)) strict = strict && json_is_true(json_object_get(tool, "strict"));
    }
    return strict;
}

static bool messages_add_tool(mq_server *server, const json_t *tool, bool strict, const char *param, mq_ask *ask,
                              mq_fault *fault)
{
    json_t *schema = json_object_get(tool, "input_schema"), *name = json_object_get(tool, "name");
    if (!json_is_string(name)) return mq__fault(fault, param, "%s: name: expected a string, got another value", param);
    if (!mq__ask_unique_tool(ask, json_string_value(name), param, fault)) return false;
    schema = schema && !json_is_null(schema)
                 ? json_incref(schema)
                 : json_pack("{sss{}sb}", "type", "object", "properties", "additionalProperties", 0);
    json_t *function = json_pack("{sOsO*sosb}", "name", name, "description", json_object_get(tool, "description"),
                                 "parameters", schema, "strict", strict);
    return function ? mq__ask_add_tool(server, ask, function, param, fault) : mq__fault_memory(fault);
}

static bool messages_read_tools(mq_server *server, const json_t *body, mq_ask *ask, mq_fault *fault)
{
    const json_t *tools = json_object_get(body, "tools");
    if (!tools || json_is_null(tools)) return true;
    if (!json_is_array(tools)) return mq__fault(fault, "tools", "tools: expected a list, got another value");
    if (messages_only_search(tools)) {
        return mq__fault(fault, "tools",
                         "tools: expected some that the client runs, got %.64s alone: this server cannot search",
                         mq__text_member(json_array_get(tools, 0), "type"));
    }
    const bool strict = messages_tools_are_strict(tools);
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *tool = json_array_get(tools, i);
        char param[64];
        snprintf(param, sizeof param, "tools[%zu]", i);
        if (!json_is_object(tool)) return mq__fault(fault, param, "%s: expected an object, got another value", param);
        if (!messages_tool_is_custom(tool)) {
            if (!mq__ask_warn(ask, "tool of type %.64s", mq__text_member(tool, "type"))) return mq__fault_memory(fault);
        } else if (!messages_add_tool(server, tool, strict, param, ask, fault)) {
            return false;
        }
    }
    return true;
}

static bool messages_read_choice(const json_t *body, mq_ask *ask, mq_fault *fault)
{
    const json_t *choice = json_object_get(body, "tool_choice");
    if (!choice || json_is_null(choice)) return true;
    const char *type = mq__text_member(choice, "type");
    bool alone = false;
    if (!type) return mq__fault(fault, "tool_choice", "tool_choice: expected an object with a type, got another value");
    if (!mq__field_bool(choice, "disable_parallel_tool_use", &alone, fault)) return false;
    if (alone) ask->parallel = false;
    if (strcmp(type, "tool") == 0) {
        return mq__ask_must_call(ask, mq__text_member(choice, "name"), "tool_choice", fault);
    }
    return mq__read_tool_choice(json_object_get(choice, "type"), ask, fault);
}

/* ---- thinking, effort, the answer's form */

/* Like the API itself: who does not ask for thinking gets none. */
static bool messages_read_thinking(const json_t *body, mq_ask *ask, mq_fault *fault)
{
    const json_t *thinking = json_object_get(body, "thinking");
    const char *type = mq__text_member(thinking, "type"), *display = mq__text_member(thinking, "display");
    mq_messages_extra *extra = ask->extra;
    int64_t budget = 0;
    ask->thinking = type && strcmp(type, "disabled") != 0;
    extra->omits_thinking = display && strcmp(display, "omitted") == 0;
    if (thinking && !json_is_null(thinking) && !type) {
        return mq__fault(fault, "thinking", "thinking: expected an object with a type, got another value");
    }
    if (!mq__field_integer(thinking, "budget_tokens", 0, INT64_MAX, &budget, fault)) return false;
    if (budget == 0 || mq__ask_kwarg(ask, "thinking_budget", json_integer(budget))) return true;
    return mq__fault_memory(fault);
}

/* Templates that know an effort know these three. */
static bool messages_read_effort(const json_t *config, mq_ask *ask, mq_fault *fault)
{
    const char *effort = mq__text_member(config, "effort");
    if (!effort) return true;
    const bool known = strcmp(effort, "low") == 0 || strcmp(effort, "medium") == 0;
    return mq__ask_kwarg(ask, "reasoning_effort", json_string(known ? effort : "high")) || mq__fault_memory(fault);
}

/* ---- what is neither prompt nor sampling */

static bool messages_read_max_tokens(const json_t *body, mq_ask *ask, mq_fault *fault)
{
    mq_messages_extra *extra = ask->extra;
    int64_t most = -1;
    if (!mq__field_integer(body, "max_tokens", 0, INT64_MAX, &most, fault)) return false;
    extra->warms = most == 0;
    if (most >= 0) ask->max_tokens = most == 0 ? 1 : most > UINT32_MAX ? UINT32_MAX : (uint32_t)most;
    return true;
}

/* Claude Code puts its ids, as JSON, into a string. */
static void messages_note_session(const json_t *body, mq_ask *ask)
{
    const char *user = mq__text_member(json_object_get(body, "metadata"), "user_id");
    json_t *ids = NULL;
    if (ask->session[0] || !user || user[0] != '{') return;
    (void)mq__json_parse(user, strlen(user), 64, "metadata", "user_id", &ids, NULL);
    const char *session = mq__text_member(ids, "session_id");
    size_t n = 0;
    for (; session && session[n] && n + 1 < sizeof ask->session; n++) {
        const char c = session[n];
        ask->session[n] = c > ' ' && c < 0x7F && c != '"' && c != '\\' ? c : '?';
    }
    ask->session[n] = '\0';
    json_decref(ids);
}

static bool messages_read_rest(mq_server *server, const json_t *body, mq_ask *ask, mq_fault *fault)
{
    const json_t *config = json_object_get(body, "output_config");
    const json_t *format = json_object_get(config, "format"), *older = json_object_get(body, "output_format");
    mq_messages_extra *extra = ask->extra;
    const json_t *diagnostics = json_object_get(body, "diagnostics");
    extra->diagnoses = json_is_string(json_object_get(diagnostics, "previous_message_id"));
    messages_note_session(body, ask);
    return mq__field_bool(body, "stream", &ask->stream, fault) && messages_read_max_tokens(body, ask, fault) &&
           messages_read_thinking(body, ask, fault) && messages_read_effort(config, ask, fault) &&
           mq__read_format(format ? format : older, "output_config.format", ask, fault) &&
           mq__read_sampling(server, body, ask, fault) &&
           mq__read_stops(server, json_object_get(body, "stop_sequences"), "stop_sequences", ask, fault);
}

bool mq__messages_read(mq_server *server, const mq_exchange *x, const json_t *body, mq_ask *ask, mq_fault *fault)
{
    (void)x;
    ask->extra = mq__alloc_zero(1, sizeof(mq_messages_extra));
    if (!ask->extra) return mq__fault_memory(fault);
    if (!messages_read_rest(server, body, ask, fault) || !messages_read_tools(server, body, ask, fault) ||
        !messages_read_choice(body, ask, fault) || !mq__blocks_read(server, body, ask, fault)) {
        return false;
    }
    mq__ask_note_title(ask);
    return true;
}

void mq__messages_free_extra(void *extra)
{
    mq__free(extra);
}

/* ---- the API */

const mq_api mq__messages_api = {.name = "messages",
                                 .read = mq__messages_read,
                                 .free_extra = mq__messages_free_extra,
                                 .state_bytes = sizeof(mq_messages_state),
                                 .begin = mq__messages_begin,
                                 .progress = mq__messages_progress,
                                 .part = mq__messages_part,
                                 .alive = mq__messages_alive,
                                 .end = mq__messages_end,
                                 .fail = mq__messages_fail,
                                 .whole = mq__messages_whole,
                                 .error = mq__messages_error};

void mq__api_messages(mq_server *server, mq_exchange *x)
{
    char id[40];
    snprintf(id, sizeof id, "req_%.32s", mq__exchange_id(x));
    mq__exchange_set_header(x, "request-id", id); /* where Anthropic's SDKs look for it */
    mq__answer(server, x, &mq__messages_api);
}
