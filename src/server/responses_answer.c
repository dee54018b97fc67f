/* Response objects and their items; the whole answer. */
#include "server/api_responses.h"

#include "base/json_read.h"
#include "server/api_parts.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

const mq_responses_extra *mq__responses_extra_of(const mq_call *call)
{
    return mq__call_ask(call)->extra;
}

void mq__responses_item_id(const mq_call *call, const char *letters, uint32_t index, char *id, size_t size)
{
    snprintf(id, size, "%s_%s%02u", letters, mq__call_id(call), index);
}

/* ---- the response */

static json_t *responses_usage(const mq_call *call)
{
    const mq_answered *a = mq__call_answered(call, 0);
    const json_int_t prompt = mq__call_prompt_tokens(call), written = a->report.generated;
    return json_pack("{sIs{sI}sIs{sI}sI}", "input_tokens", prompt, "input_tokens_details", "cached_tokens",
                     (json_int_t)a->report.cached, "output_tokens", written, "output_tokens_details",
                     "reasoning_tokens", (json_int_t)a->reasoning_tokens, "total_tokens", prompt + written);
}

static json_t *responses_error(const mq_fault *fault)
{
    const char *code = fault->code ? fault->code : fault->status < 500 ? "invalid_prompt" : "server_error";
    return json_pack("{ssso}", "code", code, "message", mq__json_text(fault->message, strlen(fault->message)));
}

json_t *mq__responses_object(const mq_call *call, const char *status, json_t *output, const mq_fault *fault)
{
    const bool completed = strcmp(status, "completed") == 0, incomplete = strcmp(status, "incomplete") == 0;
    json_t *object = json_pack("{so ss sI ss so so}", "id", json_sprintf("resp_%s", mq__call_id(call)), "object",
                               "response", "created_at", (json_int_t)mq__call_created(call), "status", status, "model",
                               mq__call_model(call), "output", output);
    object = mq__with(object, "error", fault ? responses_error(fault) : json_null());
    object = mq__with(object, "incomplete_details",
                      incomplete ? json_pack("{ss}", "reason", "max_output_tokens") : json_null());
    (void)json_object_update(object, mq__responses_extra_of(call)->echo);
    if (!completed && !incomplete) {
        return mq__with(object, "usage", json_null());
    }
    object = mq__with(object, "completed_at", json_integer((json_int_t)time(NULL)));
    object = mq__with(object, "usage", responses_usage(call));
    object = mq__with(object, "timings", mq__call_timings(call));
    return mq__with(object, "plan", mq__call_plan(call));
}

/* ---- items */

static bool is_to_come(const char *status)
{
    return strcmp(status, "in_progress") == 0;
}

json_t *mq__responses_text_part(const char *text, size_t count, json_t *logprobs)
{
    return json_pack("{ssso s[] so}", "type", "output_text", "text", mq__json_text(text, count), "annotations",
                     "logprobs", logprobs);
}

json_t *mq__responses_thought_part(const mq_call *call, const char *text, size_t count)
{
    const bool summary = mq__responses_extra_of(call)->summary;
    return json_pack("{ssso}", "type", summary ? "summary_text" : "reasoning_text", "text", mq__json_text(text, count));
}

json_t *mq__responses_reasoning_item(const mq_call *call, const char *id, const char *text, size_t count,
                                     const char *status)
{
    const mq_responses_extra *extra = mq__responses_extra_of(call);
    json_t *parts = json_array();
    if (!is_to_come(status)) parts = mq__with_item(parts, mq__responses_thought_part(call, text, count));
    json_t *item = json_pack("{ssssss}", "id", id, "type", "reasoning", "status", status);
    item = mq__with(item, "summary", extra->summary ? parts : json_array());
    if (!extra->summary) item = mq__with(item, "content", parts);
    if (!extra->sealed || is_to_come(status)) return item;
    return mq__with(item, "encrypted_content", mq__reasoning_seal(text, count));
}

/* Log probabilities are of all tokens of the answer, its reasoning and calls as well. */
json_t *mq__responses_message_item(const mq_call *call, const char *id, const char *text, size_t count,
                                   const char *status)
{
    json_t *content = json_array(), *logprobs = mq__call_answered(call, 0)->logprobs;
    if (!is_to_come(status)) {
        logprobs = logprobs ? json_incref(logprobs) : json_array();
        content = mq__with_item(content, mq__responses_text_part(text, count, logprobs));
    }
    return json_pack("{ssssssssso}", "id", id, "type", "message", "status", status, "role", "assistant", "content",
                     content);
}

const char *mq__responses_call_letters(const mq_response_tool *tool)
{
    if (!tool || tool->kind == MQ_RESPONSE_FUNCTION) return "fc";
    return tool->kind == MQ_RESPONSE_CUSTOM ? "ctc" : "lsh";
}

/* What the model wrote for the shell's tool, as an action. A command that is a text is one for a shell. */
static json_t *shell_action(const mq_answered_call *called, const char *status)
{
    json_t *given = NULL, *command = NULL;
    const char *text = called->arguments.data ? called->arguments.data : "";
    if (!is_to_come(status) && mq__json_read(text, called->arguments.len, JSON_ALLOW_NUL, MQ_JSON_KEEP_NUMBERS,
                                             "arguments", &given, NULL) == MQ_NO_MEMORY) {
        return NULL;
    }
    json_t *wanted = json_object_get(given, "command");
    if (json_is_array(wanted)) command = json_incref(wanted);
    if (json_is_string(wanted)) command = json_pack("[ssO]", "sh", "-c", wanted);
    if (!command) command = json_array();
    json_t *action =
        json_pack("{sssos{}sO*sO*}", "type", "exec", "command", command, "env", "timeout_ms",
                  json_object_get(given, "timeout_ms"), "working_directory", json_object_get(given, "workdir"));
    json_decref(given);
    return action;
}

json_t *mq__responses_call_item(const mq_call *call, const char *id, const mq_answered_call *called, json_t *input,
                                const char *status)
{
    const mq_response_tool *tool = mq__responses_tool(call, called);
    const bool written = !is_to_come(status) && called->arguments.data;
    json_t *name = tool ? json_incref(tool->name) : mq__json_text(called->name, strlen(called->name));
    if (tool && tool->kind == MQ_RESPONSE_SHELL) {
        json_decref(name);
        json_decref(input);
        return json_pack("{sssssssssO*so}", "id", id, "type", "local_shell_call", "status", status, "call_id",
                         called->id, "namespace", tool->space, "action", shell_action(called, status));
    }
    if (tool && tool->kind == MQ_RESPONSE_CUSTOM) {
        return json_pack("{sssssssssosO*so}", "id", id, "type", "custom_tool_call", "status", status, "call_id",
                         called->id, "name", name, "namespace", tool->space, "input", input);
    }
    json_decref(input);
    json_t *arguments = written ? mq__json_text(called->arguments.data, called->arguments.len) : json_string("");
    return json_pack("{ssssssss so sO* so}", "id", id, "type", "function_call", "status", status, "call_id", called->id,
                     "name", name, "namespace", tool ? tool->space : NULL, "arguments", arguments);
}

/* ---- the whole answer */

static json_t *custom_input_of(const mq_call *call, const mq_answered_call *called)
{
    const mq_response_tool *tool = mq__responses_tool(call, called);
    mq_custom_input input = {0};
    if (!tool || tool->kind != MQ_RESPONSE_CUSTOM) return NULL;
    mq__custom_input_end(&input, called->arguments.data ? called->arguments.data : "", called->arguments.len);
    json_t *text = mq__joined_text(&input.text);
    mq__custom_input_clear(&input);
    return text;
}

/* A call that the end cut is left out: nobody can run it. */
static json_t *with_calls(const mq_call *call, json_t *output)
{
    const mq_answered *a = mq__call_answered(call, 0);
    char id[96];
    for (size_t i = 0; i < a->call_count; i++) {
        const mq_answered_call *called = &a->calls[i];
        if (!called->complete) continue;
        const char *letters = mq__responses_call_letters(mq__responses_tool(call, called));
        mq__responses_item_id(call, letters, (uint32_t)json_array_size(output), id, sizeof id);
        json_t *input = custom_input_of(call, called);
        output = mq__with_item(output, mq__responses_call_item(call, id, called, input, "completed"));
    }
    return output;
}

json_t *mq__responses_whole(mq_call *call)
{
    const mq_answered *a = mq__call_answered(call, 0);
    const char *status = strcmp(mq__finish_name(a), "length") == 0 ? "incomplete" : "completed";
    const bool calls = a->call_count && a->calls[0].complete, spoke = !mq__is_blank(a->text.data, a->text.len);
    json_t *output = json_array();
    char id[96];
    if (a->reasoning.len) {
        mq__responses_item_id(call, "rs", 0, id, sizeof id);
        output = mq__with_item(output, mq__responses_reasoning_item(call, id, a->reasoning.data, a->reasoning.len,
                                                                    spoke || calls ? "completed" : status));
    }
    if (spoke || (!calls && !a->reasoning.len)) {
        mq__responses_item_id(call, "msg", (uint32_t)json_array_size(output), id, sizeof id);
        output =
            mq__with_item(output, mq__responses_message_item(call, id, spoke ? a->text.data : "",
                                                             spoke ? a->text.len : 0, calls ? "completed" : status));
    }
    return mq__responses_object(call, status, with_calls(call, output), NULL);
}
