/* What streams and whole answers of the Messages API share: ids, usage, reasons, errors; and the whole answer. */
#include "server/api_messages.h"

#include "base/json_read.h"
#include "server/api_parts.h"

#include <string.h>

/* Bytes of a message that are looked for in a prompt, to know where it begins. */
#define LANDMARK 64

const mq_messages_extra *mq__messages_extra_of(const mq_call *call)
{
    return mq__call_ask(call)->extra;
}

json_t *mq__messages_id(const mq_call *call)
{
    return json_sprintf("msg_%s", mq__call_id(call));
}

json_t *mq__messages_tool_id(const mq_answered_call *called)
{
    const char *letters = strchr(called->id, '_');
    return json_sprintf("toolu_%s", letters ? letters + 1 : called->id);
}

json_t *mq__messages_signature(const mq_call *call, size_t from, size_t to)
{
    const mq_answered *a = mq__call_answered(call, 0);
    const bool hidden = mq__messages_extra_of(call)->omits_thinking && from < to;
    return mq__reasoning_seal(hidden ? a->reasoning.data + from : "", hidden ? to - from : 0);
}

/* ---- numbers and reasons */

json_t *mq__messages_usage(const mq_call *call)
{
    const mq_answered *a = mq__call_answered(call, 0);
    const json_int_t prompt = mq__call_prompt_tokens(call), cached = a->report.cached,
                     written = mq__messages_extra_of(call)->warms ? 0 : a->report.generated;
    return json_pack("{sI sI sI sI}", "input_tokens", prompt > cached ? prompt - cached : 0,
                     "cache_creation_input_tokens", (json_int_t)0, "cache_read_input_tokens", cached, "output_tokens",
                     written);
}

static bool ended_at_stop(const mq_call *call)
{
    const mq_report *report = &mq__call_answered(call, 0)->report;
    return report->finish == MQ_FINISH_STOP && report->stop < mq__call_ask(call)->stop_count;
}

/* Whether the context ended before max_tokens did: more of these would not help. */
static bool filled_context(const mq_call *call)
{
    const uint32_t context = mq__server_model(mq__call_server(call))->info.context,
                   written = mq__call_answered(call, 0)->report.generated;
    return written < mq__call_ask(call)->max_tokens && mq__call_prompt_tokens(call) + written >= context;
}

json_t *mq__messages_stop_reason(const mq_call *call)
{
    const char *finish = mq__finish_name(mq__call_answered(call, 0));
    if (mq__messages_extra_of(call)->warms) return json_string("max_tokens");
    if (strcmp(finish, "length") == 0) {
        return json_string(filled_context(call) ? "model_context_window_exceeded" : "max_tokens");
    }
    if (strcmp(finish, "tool_calls") == 0) return json_string("tool_use");
    return json_string(ended_at_stop(call) ? "stop_sequence" : "end_turn");
}

json_t *mq__messages_stop_sequence(const mq_call *call)
{
    if (!ended_at_stop(call)) return json_null();
    const char *stop = mq__call_ask(call)->stops[mq__call_answered(call, 0)->report.stop];
    return mq__json_text(stop, strlen(stop));
}

/* ---- why the cache missed */

/* Where in a text the beginning (or else the end) of another one stands; NULL: nowhere. Behind it. */
static const char *find_landmark(const char *text, const char *end, const json_t *other, bool beginning)
{
    const size_t count = json_string_length(other), shown = count < LANDMARK ? count : LANDMARK;
    const char *landmark = json_string_value(other);
    if (shown == 0) return text;
    const char *found = memmem(text, (size_t)(end - text), beginning ? landmark : landmark + count - shown, shown);
    return found ? found + shown : NULL;
}

/* What of the request the cache has otherwise, by what the common prefix already holds. */
static const char *changed_part(const mq_call *call, const char *prefix, size_t bytes)
{
    const mq_ask *ask = mq__call_ask(call);
    const json_t *first = json_array_get(ask->messages, 0), *second = json_array_get(ask->messages, 1);
    const char *role = mq__text_member(first, "role"), *end = prefix + bytes, *at = prefix;
    const bool has_system = role && strcmp(role, "system") == 0;
    if (has_system) at = find_landmark(at, end, json_object_get(first, "content"), false);
    if (!at) return "system_changed";
    if (find_landmark(at, end, json_object_get(has_system ? second : first, "content"), true))
        return "messages_changed";
    return ask->tools ? "tools_changed" : "messages_changed";
}

json_t *mq__messages_diagnostics(const mq_call *call)
{
    const mq_report *report = &mq__call_answered(call, 0)->report;
    const uint32_t prompt = mq__call_prompt_tokens(call);
    if (!mq__messages_extra_of(call)->diagnoses) return NULL;
    if (report->miss_token < 0 || report->miss_at >= prompt) {
        if (report->cached) return json_pack("{sn}", "cache_miss_reason");
        return json_pack("{s{ss}}", "cache_miss_reason", "type", "previous_message_not_found");
    }
    char *prefix = NULL;
    size_t bytes = 0;
    const bool known = mq_detokenize(mq__server_model(mq__call_server(call))->text, mq__call_prompt(call),
                                     report->miss_at, false, &prefix, &bytes, NULL) == MQ_OK;
    const char *type = known ? changed_part(call, prefix, bytes) : "unavailable", *miss = mq__call_miss(call);
    mq_free(prefix);
    return json_pack("{s{ss sI so}}", "cache_miss_reason", "type", type, "cache_missed_input_tokens",
                     (json_int_t)(prompt - report->cached), "message", mq__json_text(miss, strlen(miss)));
}

/* ---- errors */

json_t *mq__messages_error(const mq_fault *fault)
{
    static const struct {
        unsigned status;
        const char *type;
    } types[] = {{401, "authentication_error"}, {403, "permission_error"}, {404, "not_found_error"},
                 {413, "request_too_large"},    {429, "rate_limit_error"}, {503, "overloaded_error"},
                 {504, "timeout_error"},        {529, "overloaded_error"}};
    const char *type = fault->status >= 500 ? "api_error" : "invalid_request_error";
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (types[i].status == fault->status) type = types[i].type;
    }
    return json_pack("{sss{ssso}}", "type", "error", "error", "type", type, "message",
                     mq__json_text(fault->message, strlen(fault->message)));
}

/* ---- the whole answer */

static json_t *whole_thinking(const mq_call *call)
{
    const mq_buf *reasoning = &mq__call_answered(call, 0)->reasoning;
    const bool omitted = mq__messages_extra_of(call)->omits_thinking;
    return json_pack("{sssoso}", "type", "thinking", "thinking",
                     mq__json_text(omitted ? "" : reasoning->data, omitted ? 0 : reasoning->len), "signature",
                     mq__messages_signature(call, 0, reasoning->len));
}

static json_t *whole_tool_use(const mq_answered_call *called)
{
    json_t *input = NULL;
    const char *text = called->arguments.data ? called->arguments.data : "";
    const mq_status status =
        mq__json_read(text, called->arguments.len, JSON_ALLOW_NUL, MQ_JSON_KEEP_NUMBERS, "arguments", &input, NULL);
    if (status == MQ_NO_MEMORY) return NULL;
    if (!json_is_object(input)) {
        json_decref(input);
        input = json_object();
    }
    return json_pack("{sssososo}", "type", "tool_use", "id", mq__messages_tool_id(called), "name",
                     mq__json_text(called->name, strlen(called->name)), "input", input);
}

/* A call that the end cut is left out: nobody can run it. */
static json_t *whole_content(const mq_call *call)
{
    const mq_answered *a = mq__call_answered(call, 0);
    json_t *content = json_array();
    if (mq__messages_extra_of(call)->warms) return content;
    if (a->reasoning.len) content = mq__with_item(content, whole_thinking(call));
    const bool spoke = !mq__is_blank(a->text.data, a->text.len), calls = a->call_count && a->calls[0].complete;
    if (spoke || (!a->reasoning.len && !calls)) {
        content = mq__with_item(content, json_pack("{ssso}", "type", "text", "text",
                                                   mq__json_text(spoke ? a->text.data : "", spoke ? a->text.len : 0)));
    }
    for (size_t i = 0; i < a->call_count; i++) {
        if (a->calls[i].complete) content = mq__with_item(content, whole_tool_use(&a->calls[i]));
    }
    return content;
}

json_t *mq__messages_whole(mq_call *call)
{
    json_t *diagnostics = mq__messages_diagnostics(call);
    return json_pack("{so ss ss so so so so so so* so so}", "id", mq__messages_id(call), "type", "message", "role",
                     "assistant", "model", mq__call_model(call), "content", whole_content(call), "stop_reason",
                     mq__messages_stop_reason(call), "stop_sequence", mq__messages_stop_sequence(call), "usage",
                     mq__messages_usage(call), "diagnostics", diagnostics, "timings", mq__call_timings(call), "plan",
                     mq__call_plan(call));
}
