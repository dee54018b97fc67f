/* What is known of a request and of its answers: for writers, and for the log. */
#include "base/json_read.h"
#include "server/answering_call.h"
#include "server/metrics.h"

#include <stdio.h>
#include <string.h>

/* ---- what writers ask for */

mq_server *mq__call_server(const mq_call *call)
{
    return call->server;
}

const mq_ask *mq__call_ask(const mq_call *call)
{
    return &call->ask;
}

const mq_answered *mq__call_answered(const mq_call *call, uint32_t choice)
{
    return &call->choices[choice].answered;
}

uint32_t mq__call_prompt_tokens(const mq_call *call)
{
    return (uint32_t)call->prompt.count;
}

const int32_t *mq__call_prompt(const mq_call *call)
{
    return call->prompt.tokens;
}

const char *mq__call_id(const mq_call *call)
{
    return call->id;
}

int64_t mq__call_created(const mq_call *call)
{
    return call->created;
}

const char *mq__call_miss(const mq_call *call)
{
    return call->miss;
}

void *mq__call_state(mq_call *call)
{
    return call->state;
}

const char *mq__finish_name(const mq_answered *a)
{
    bool complete = a->call_count > 0, any = false;
    for (size_t i = 0; i < a->call_count; i++) {
        complete = complete && a->calls[i].complete;
        any = any || a->calls[i].complete;
    }
    /* Cut in the middle of a call, or of what follows the last one. */
    if (a->report.finish == MQ_FINISH_LENGTH) return complete && a->last == MQ_PART_CALL_END ? "tool_calls" : "length";
    return any ? "tool_calls" : "stop";
}

/* ---- usage and timings */

/* Of all answers together: the prompt as the first one read it. */
static mq_report report_of_all(const mq_call *call)
{
    mq_report all = call->choices[0].answered.report;
    for (uint32_t i = 1; i < call->ask.n; i++) {
        const mq_report *r = &call->choices[i].answered.report;
        all.generated += r->generated;
        all.drafted += r->drafted;
        all.drafted_right += r->drafted_right;
        if (r->decode_s > all.decode_s) all.decode_s = r->decode_s;
    }
    return all;
}

json_t *mq__call_usage(const mq_call *call)
{
    const mq_report all = report_of_all(call);
    json_int_t reasoning = 0;
    const json_int_t prompt = (json_int_t)call->prompt.count, generated = all.generated;
    for (uint32_t i = 0; i < call->ask.n; i++) {
        reasoning += call->choices[i].answered.reasoning_tokens;
    }
    json_t *details = json_pack("{sI}", "reasoning_tokens", reasoning);
    if (all.drafted) { /* OpenAI's predictions; rejected ones are not among completion_tokens here */
        (void)json_object_set_new(details, "accepted_prediction_tokens", json_integer(all.drafted_right));
        (void)json_object_set_new(details, "rejected_prediction_tokens", json_integer(all.drafted - all.drafted_right));
    }
    return json_pack("{sI sI sI s{sI} so}", "prompt_tokens", prompt, "completion_tokens", generated, "total_tokens",
                     prompt + generated, "prompt_tokens_details", "cached_tokens", (json_int_t)all.cached,
                     "completion_tokens_details", details);
}

json_t *mq__call_plan(const mq_call *call)
{
    const mq_report *r = &call->choices[0].answered.report;
    if (!r->plan_prefill || !r->plan_decode) return json_null();
    return json_pack("{ssss}", "prefill", r->plan_prefill, "decode", r->plan_decode);
}

/* {"n", "ms", "per_token_ms", "per_second"} under the names of a phase. */
static void put_phase(json_t *timings, const char *phase, uint32_t tokens, double seconds)
{
    char name[48];
    const struct {
        const char *end;
        double value;
    } members[] = {{"ms", 1e3 * seconds},
                   {"per_token_ms", tokens ? 1e3 * seconds / tokens : 0},
                   {"per_second", seconds > 0 ? tokens / seconds : 0}};
    snprintf(name, sizeof name, "%s_n", phase);
    (void)json_object_set_new(timings, name, json_integer(tokens));
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        snprintf(name, sizeof name, "%s_%s", phase, members[i].end);
        (void)json_object_set_new(timings, name, json_real(members[i].value));
    }
}

static json_t *token_text(const mq_call *call, int32_t token)
{
    char *text = NULL;
    size_t bytes = 0;
    if (mq_detokenize(mq__server_model(call->server)->text, &token, 1, false, &text, &bytes, NULL) != MQ_OK) {
        return json_string("");
    }
    json_t *value = mq__json_text(text, bytes);
    mq_free(text);
    return value;
}

static bool has_miss(const mq_call *call, const mq_report *r)
{
    return r->miss_token >= 0 && r->miss_at < call->prompt.count;
}

/* What the cache has may be of another client's prompt, unless the client has a key or nobody else reaches the server. */
static bool may_show_cached(const mq_call *call)
{
    return mq__exchange_owner(call->x) != 0 || mq__server_is_private(call->server);
}

json_t *mq__call_timings(const mq_call *call)
{
    const mq_report all = report_of_all(call);
    json_t *timings = json_pack("{sI}", "cache_n", (json_int_t)all.cached);
    put_phase(timings, "prompt", all.prompt > all.cached ? all.prompt - all.cached : 0, all.prefill_s + all.last_s);
    put_phase(timings, "predicted", all.generated, all.decode_s);
    if (all.drafts) {
        (void)json_object_set_new(timings, "draft_n", json_integer(all.drafted));
        (void)json_object_set_new(timings, "draft_n_accepted", json_integer(all.drafted_right));
    }
    (void)json_object_set_new(timings, "plan", mq__call_plan(call));
    if (mq__call_tells_prefill(call)) (void)json_object_set_new(timings, "prefill", mq__call_prefill(call));
    if (!has_miss(call, &all)) return timings;
    json_t *miss = json_pack("{sI so ss}", "position", (json_int_t)all.miss_at, "prompt_text",
                             token_text(call, call->prompt.tokens[all.miss_at]), "explanation", call->miss);
    if (may_show_cached(call)) (void)json_object_set_new(miss, "cached_text", token_text(call, all.miss_token));
    (void)json_object_set_new(timings, "cache_miss", miss);
    return timings;
}

/* ---- the miss as a sentence */

/* A token between quotes, as JSON writes it: one line whatever it is. False: no memory. */
static bool quote_token(const mq_call *call, int32_t token, char *out, size_t size)
{
    mq_buf text = {0};
    json_t *value = token_text(call, token);
    const bool printed = value && mq__json_print(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII, &text);
    snprintf(out, size, "%s", printed ? text.data : "");
    json_decref(value);
    mq__buf_free(&text);
    return printed;
}

void mq__call_find_miss(mq_call *call, const mq_report *report)
{
    char cached[120], prompt[120];
    if (!has_miss(call, report)) {
        call->miss[0] = '\0';
    } else if (!call->miss[0] || call->miss_at != report->miss_at) {
        snprintf(cached, sizeof cached, "other text");
        if ((may_show_cached(call) && !quote_token(call, report->miss_token, cached, sizeof cached)) ||
            !quote_token(call, call->prompt.tokens[report->miss_at], prompt, sizeof prompt)) {
            return;
        }
        call->miss_at = report->miss_at;
        snprintf(call->miss, sizeof call->miss, "cached %u of %u tokens: at %u the cache has %s, the prompt %s",
                 report->cached, report->prompt, report->miss_at, cached, prompt);
    }
}

/* ---- the end */

void mq__call_log(mq_call *call, unsigned status, const char *finish)
{
    mq_counts *counts = mq__server_counts(call->server);
    const double took = mq__seconds() - call->started;
    mq__count_answer(counts, call->api->name, status);
    if (status == 200) {
        mq__count_finish(counts, finish);
        mq__count_time(&counts->whole, took);
        if (call->first_token > 0) mq__count_time(&counts->first_token, call->first_token - call->started);
    }
    const mq_report all = call->choices ? report_of_all(call) : (mq_report){.miss_token = -1};
    char prefilled[400];
    mq__call_prefill_words(call, prefilled, sizeof prefilled);
    mq__server_log(
        call->server,
        "%s: id %s, status %u, session %s, prompt %zu, cached %u, generated %u, queued %.0f ms, prefill %.0f ms, "
        "decode %.0f ms, total %.0f ms, finish %s%s%s%s%s%s",
        call->api->name, call->id, status, call->ask.session[0] ? call->ask.session : "-", call->prompt.count,
        all.cached, all.generated, 1e3 * all.queued_s, 1e3 * (all.prefill_s + all.last_s), 1e3 * all.decode_s,
        1e3 * took, finish, prefilled, call->miss[0] ? ", " : "", call->miss, call->ask.warning ? ", left out: " : "",
        call->ask.warning ? call->ask.warning : "");
}
