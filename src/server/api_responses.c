/* POST /v1/responses: the body's fields. Nothing is kept between requests. */
#include "server/api_responses.h"

#include "base/mem.h"
#include "server/api_parts.h"

#include <string.h>

/* ---- what needs a server that keeps responses */

static bool is_given(const json_t *body, const char *name)
{
    const json_t *value = json_object_get(body, name);
    return value && !json_is_null(value);
}

static bool refuse_stateful(const json_t *body, mq_fault *fault)
{
    static const char *const members[] = {"conversation", "prompt"};
    if (is_given(body, "previous_response_id")) {
        (void)mq__fault(
            fault, "previous_response_id",
            "previous_response_id: expected the whole conversation in input, got an id: this server keeps no "
            "responses");
        fault->code = "previous_response_not_found";
        return false;
    }
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        if (!is_given(body, members[i])) continue;
        return mq__fault(fault, members[i], "%s: expected the whole conversation in input: this server keeps nothing",
                         members[i]);
    }
    if (!json_is_true(json_object_get(body, "background"))) return true;
    return mq__fault(fault, "background", "background: expected false: this server keeps no responses");
}

/* ---- fields */

static bool read_output_tokens(const json_t *body, mq_ask *ask, mq_fault *fault)
{
    int64_t most = UINT32_MAX;
    if (!mq__field_integer(body, "max_output_tokens", 1, INT64_MAX, &most, fault)) return false;
    ask->max_tokens = most > UINT32_MAX ? UINT32_MAX : (uint32_t)most;
    return true;
}

/* No effort, or nearly none: without thinking. Templates that know an effort know three of them. */
static bool read_effort(const json_t *body, mq_ask *ask, mq_fault *fault)
{
    const json_t *reasoning = json_object_get(body, "reasoning");
    const char *effort = mq__text_member(reasoning, "effort"), *summary = mq__text_member(reasoning, "summary");
    if (!summary) summary = mq__text_member(reasoning, "generate_summary");
    mq_responses_extra *extra = ask->extra;
    extra->summary = summary && strcmp(summary, "none") != 0;
    if (!effort) return true;
    const bool off = strcmp(effort, "none") == 0 || strcmp(effort, "minimal") == 0;
    const bool less = strcmp(effort, "low") == 0 || strcmp(effort, "medium") == 0;
    ask->thinking = !off;
    return off || mq__ask_kwarg(ask, "reasoning_effort", json_string(less ? effort : "high")) ||
           mq__fault_memory(fault);
}

static bool read_logprobs(const json_t *body, mq_ask *ask, mq_fault *fault)
{
    const json_t *include = json_object_get(body, "include");
    mq_responses_extra *extra = ask->extra;
    int64_t top = 0;
    for (size_t i = 0; i < json_array_size(include); i++) {
        const char *name = json_string_value(json_array_get(include, i));
        if (name && strcmp(name, "message.output_text.logprobs") == 0) ask->logprobs = true;
        if (name && strcmp(name, "reasoning.encrypted_content") == 0) extra->sealed = true;
    }
    if (!mq__field_integer(body, "top_logprobs", 0, 20, &top, fault)) return false;
    ask->top_logprobs = (uint32_t)top;
    if (top) ask->logprobs = true;
    return true;
}

/* Codex names what its side requests are for. */
static void note_subagent(const mq_exchange *x, mq_ask *ask)
{
    const char *subagent = mq__exchange_header(x, "x-openai-subagent");
    if (subagent && strncmp(subagent, "memory", 6) == 0) ask->background = true;
}

/* What a response repeats of its request. */
static json_t *echo_of(const json_t *body, const mq_ask *ask)
{
    static const char *const nulls[] = {
        "instructions", "max_output_tokens", "prompt_cache_key", "safety_identifier", "temperature", "top_p", "user"};
    const json_t *text = json_object_get(body, "text"), *tools = json_object_get(body, "tools");
    json_t *echo = json_pack("{sb sb sb sn sn ss}", "parallel_tool_calls", ask->parallel, "store", 0, "background", 0,
                             "previous_response_id", "max_tool_calls", "truncation", "disabled");
    for (size_t i = 0; i < sizeof nulls / sizeof nulls[0]; i++) {
        json_t *value = json_object_get(body, nulls[i]);
        (void)json_object_set_new(echo, nulls[i], value ? json_incref(value) : json_null());
    }
    json_t *choice = json_object_get(body, "tool_choice"), *reasoning = json_object_get(body, "reasoning"),
           *metadata = json_object_get(body, "metadata");
    (void)json_object_set_new(echo, "tools",
                              json_is_array(tools) ? json_incref((json_t *)(uintptr_t)tools) : json_array());
    (void)json_object_set_new(echo, "tool_choice", choice ? json_incref(choice) : json_string("auto"));
    (void)json_object_set_new(echo, "text",
                              json_is_object(text) ? json_incref((json_t *)(uintptr_t)text)
                                                   : json_pack("{s{ss}}", "format", "type", "text"));
    (void)json_object_set_new(echo, "reasoning",
                              json_is_object(reasoning) ? json_incref(reasoning)
                                                        : json_pack("{snsn}", "effort", "summary"));
    (void)json_object_set_new(echo, "metadata", json_is_object(metadata) ? json_incref(metadata) : json_object());
    (void)json_object_set_new(echo, "top_logprobs", json_integer(ask->top_logprobs));
    (void)json_object_set_new(echo, "service_tier", json_string("default"));
    return echo;
}

bool mq__responses_read(mq_server *server, const mq_exchange *x, const json_t *body, mq_ask *ask, mq_fault *fault)
{
    mq_responses_extra *extra = mq__alloc_zero(1, sizeof *extra);
    ask->extra = extra;
    if (!extra) return mq__fault_memory(fault);
    note_subagent(x, ask);
    if (!refuse_stateful(body, fault) || !mq__field_bool(body, "stream", &ask->stream, fault) ||
        !mq__field_bool(body, "parallel_tool_calls", &ask->parallel, fault) || !read_output_tokens(body, ask, fault) ||
        !read_effort(body, ask, fault) || !read_logprobs(body, ask, fault) ||
        !mq__read_format(json_object_get(json_object_get(body, "text"), "format"), "text.format", ask, fault) ||
        !mq__read_sampling(server, body, ask, fault) ||
        !mq__read_stops(server, json_object_get(body, "stop"), "stop", ask, fault) ||
        !mq__responses_read_tools(server, body, ask, fault) || !mq__responses_read_input(server, body, ask, fault)) {
        return false;
    }
    mq__ask_note_title(ask);
    extra->echo = echo_of(body, ask);
    return extra->echo || mq__fault_memory(fault);
}

void mq__responses_free_extra(void *given)
{
    mq_responses_extra *extra = given;
    for (size_t i = 0; i < extra->tool_count; i++) {
        json_decref(extra->tools[i].shown);
        json_decref(extra->tools[i].name);
        json_decref(extra->tools[i].space);
    }
    mq__free(extra->tools);
    json_decref(extra->echo);
    mq__free(extra);
}

/* ---- the API */

const mq_api mq__responses_api = {.name = "responses",
                                  .read = mq__responses_read,
                                  .free_extra = mq__responses_free_extra,
                                  .state_bytes = sizeof(mq_responses_state),
                                  .free_state = mq__responses_free_state,
                                  .begin = mq__responses_begin,
                                  .progress = mq__responses_progress,
                                  .part = mq__responses_part,
                                  .alive = mq__responses_alive,
                                  .end = mq__responses_end,
                                  .fail = mq__responses_fail,
                                  .whole = mq__responses_whole,
                                  .error = mq__error_json};

void mq__api_responses(mq_server *server, mq_exchange *x)
{
    mq__answer(server, x, &mq__responses_api);
}
