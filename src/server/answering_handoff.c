/* Where a prompt was prefilled, as answers say it, and KV that stays for somebody who fetches it. */
#include "base/json_read.h"
#include "base/mem.h"
#include "server/answering_call.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define LEASE_SECONDS 30.0 /* as vLLM's */
#define BLOCK_TOKENS  64

/* ---- x-prefill */

static const mq_report *first_report(const mq_call *call)
{
    return &call->choices[0].answered.report;
}

/* All answers of a request have one prompt, which the first one's job reads. */
static const char *prefilled_where(const mq_report *r)
{
    static const char *const names[] = {
        [MQ_PREFILLED_NONE] = "none", [MQ_PREFILLED_LOCAL] = "local", [MQ_PREFILLED_REMOTE] = "remote"};
    return r->arriving && r->prefilled != MQ_PREFILLED_LOCAL ? "remote" : names[r->prefilled];
}

bool mq__call_tells_prefill(const mq_call *call)
{
    const mq_handoff_backend *handoff = mq__server_handoff(call->server);
    return handoff && handoff->receives && !call->ask.handoff.acknowledges;
}

bool mq__call_knows_prefill(const mq_call *call, const mq_report *report)
{
    if (!mq__call_tells_prefill(call) || report->prefilled == MQ_PREFILLED_LOCAL) return true;
    return report->plan_decode && !report->arriving && report->prompt_done + 1 >= call->prompt.count;
}

void mq__call_set_prefill_header(mq_call *call)
{
    if (!mq__call_tells_prefill(call) || call->told_prefill) return;
    call->told_prefill = true;
    mq__exchange_set_header(call->x, "x-prefill", prefilled_where(first_report(call)));
}

/* ---- timings.prefill, and the log's words */

/* Why a prompt was not prefilled where it should have been; NULL: nothing is to say. */
static const char *prefill_reason(const mq_call *call)
{
    const mq_report *r = first_report(call);
    if (call->ask.handoff.ignored[0]) return call->ask.handoff.ignored;
    return r->status == MQ_OK && r->error.text[0] ? r->error.text : NULL;
}

json_t *mq__call_prefill(const mq_call *call)
{
    const mq_report *r = first_report(call);
    const char *reason = prefill_reason(call);
    json_t *prefill = json_pack("{ss sI sI}", "where", prefilled_where(r), "arrived_n", (json_int_t)r->arrived,
                                "transfer_failures", (json_int_t)r->transfer_failures);
    if (reason) (void)json_object_set_new(prefill, "reason", mq__json_text(reason, strlen(reason)));
    return prefill;
}

void mq__call_prefill_words(const mq_call *call, char *words, size_t size)
{
    const mq_report *r = call->choices ? first_report(call) : NULL;
    words[0] = '\0';
    if (!r || !mq__call_tells_prefill(call)) return;
    const char *reason = prefill_reason(call);
    snprintf(words, size, ", prefilled %s, arrived %u, failed transfers %u%s%s", prefilled_where(r), r->arrived,
             r->transfer_failures, reason ? ": " : "", reason ? reason : "");
}

bool mq__call_failed_transfer(const mq_call *call, const mq_report *report, mq_fault *fault)
{
    const mq_handoff_backend *handoff = mq__server_handoff(call->server);
    if (!handoff || !handoff->fails || report->transfer_failures == 0) return false;
    if (report->status == MQ_OK || report->status == MQ_NO_MEMORY || report->status == MQ_USAGE) return false;
    *fault = (mq_fault){.status = 503, .type = "server_error", .code = "kv_transfer_failed", .retry_after = 2};
    snprintf(fault->message, sizeof fault->message, "%s",
             report->error.text[0] ? report->error.text : "the prompt's KV did not arrive");
    return true;
}

/* ---- leases */

void mq__call_lend(mq_call *call)
{
    const mq_handoff_backend *handoff = mq__server_handoff(call->server);
    mq_job *job = call->choices[0].job;
    if (!call->ask.handoff.lends || !handoff || !job || call->lease[0]) return;
    call->choices[0].job = NULL; /* the lease has it now */
    handoff->lease(handoff->self, job, LEASE_SECONDS, call->lease);
}

/* What a decode worker reaches the link by: where the link listens, or, if that is any address, the one that this request came to. */
static void link_address(const mq_call *call, const char *listens, char *host, size_t size)
{
    const bool any = strcmp(listens, "0.0.0.0") == 0 || strcmp(listens, "::") == 0 || strcmp(listens, "*") == 0;
    if (!any || !mq__exchange_local_address(call->x, host, size)) snprintf(host, size, "%s", listens);
}

/* The name of this run of this process, which its peers know. */
static json_t *own_instance(const mq_handoff_backend *handoff)
{
    char *text = handoff->describe(handoff->self);
    json_t *facts = NULL;
    if (text) (void)mq__json_parse(text, strlen(text), 256, "link", "description", &facts, NULL);
    json_t *instance = json_incref(json_object_get(facts, "instance"));
    json_decref(facts);
    mq_free(text);
    return instance ? instance : json_null();
}

/* One list: there is one group of KV. They are the prompt's own blocks, counted; nobody needs them. */
static json_t *block_numbers(size_t tokens)
{
    json_t *numbers = json_array();
    for (size_t i = 0; i < (tokens + BLOCK_TOKENS - 1) / BLOCK_TOKENS; i++) {
        (void)json_array_append_new(numbers, json_integer((json_int_t)i));
    }
    return json_pack("[o]", numbers);
}

json_t *mq__call_lease(const mq_call *call)
{
    const mq_handoff_backend *handoff = mq__server_handoff(call->server);
    char host[288];
    if (!call->lease[0] || !handoff) return NULL;
    link_address(call, handoff->link_host, host, sizeof host);
    return json_pack("{sb sb so ss so ss sI sI sf sI ss}", "do_remote_prefill", 1, "do_remote_decode", 0,
                     "remote_engine_id", own_instance(handoff), "remote_request_id", call->lease, "remote_block_ids",
                     block_numbers(call->prompt.count), "remote_host", host, "remote_port",
                     (json_int_t)handoff->link_port, "remote_num_tokens", (json_int_t)call->prompt.count,
                     "remote_blocks_expiry_time", (double)time(NULL) + LEASE_SECONDS, "tp_size", (json_int_t)1,
                     "transfer_mode", "pull");
}
