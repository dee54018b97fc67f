/* GET /metrics: Prometheus text under llama.cpp's names, vLLM's, which routers read, and our own. */
#include "server/metrics.h"

#include "base/buf.h"
#include "base/c_locale.h"
#include "server/answering.h"

#include <string.h>

static const char *const api_names[MQ_COUNTED_APIS] = {"chat", "completions", "responses", "messages", "other"};
static const unsigned statuses[MQ_COUNTED_STATUSES] = {200, 400, 401, 404, 413, 429, 499, 500, 503, 504, 529, 0};
static const char *const finish_names[3] = {"stop", "length", "tool_calls"};
static const double time_bounds[MQ_TIME_BUCKETS] = {0.05, 0.1, 0.25, 0.5, 1,   2.5, 5,    10,
                                                    20,   40,  80,   160, 320, 640, 1280, 2560}; /* seconds */

/* ---- counting */

void mq__count_answer(mq_counts *counts, const char *api, unsigned status)
{
    size_t a = 0, s = 0;
    while (a < 4 && strcmp(api_names[a], api) != 0) {
        a++;
    }
    while (s + 1 < MQ_COUNTED_STATUSES && statuses[s] != status) {
        s++;
    }
    atomic_fetch_add_explicit(&counts->answers[a][s], 1, memory_order_relaxed);
}

void mq__count_finish(mq_counts *counts, const char *finish)
{
    for (size_t i = 0; i < 3; i++) {
        if (strcmp(finish_names[i], finish) != 0) continue;
        atomic_fetch_add_explicit(&counts->finished[i], 1, memory_order_relaxed);
    }
}

void mq__count_time(mq_times *times, double seconds)
{
    size_t i = 0;
    while (i < MQ_TIME_BUCKETS && seconds > time_bounds[i]) {
        i++;
    }
    atomic_fetch_add_explicit(&times->buckets[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&times->count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&times->micros, (uint64_t)(seconds * 1e6), memory_order_relaxed);
}

/* ---- printing */

static void put_head(mq_buf *out, const char *name, const char *type, const char *help)
{
    (void)mq__buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_metric(mq_buf *out, const char *name, const char *type, double value, const char *help)
{
    put_head(out, name, type, help);
    (void)mq__buf_printf(out, "%s %.15g\n", name, value);
}

/* A label's value: backslash, quote and line feed are escaped. */
static void put_label(mq_buf *out, const char *value)
{
    for (; *value; value++) {
        if (*value == '\\' || *value == '"') (void)mq__buf_putc(out, '\\');
        (void)mq__buf_putc(out, *value == '\n' ? ' ' : *value);
    }
}

static void put_llama(mq_buf *out, const mq_scheduler_stats *s)
{
    const double used = s->kv_blocks ? 1 - (double)s->kv_blocks_free / s->kv_blocks : 0;
    put_metric(out, "llamacpp:prompt_tokens_total", "counter", (double)s->prompt_tokens, "Prompt tokens computed.");
    put_metric(out, "llamacpp:prompt_seconds_total", "counter", s->prompt_s, "Seconds that prompts took.");
    put_metric(out, "llamacpp:tokens_predicted_total", "counter", (double)s->generated_tokens, "Tokens generated.");
    put_metric(out, "llamacpp:tokens_predicted_seconds_total", "counter", s->generated_s, "Seconds that answers took.");
    put_metric(out, "llamacpp:n_decode_total", "counter", (double)s->steps, "Decode steps.");
    put_metric(out, "llamacpp:n_tokens_max", "counter", s->largest, "Tokens of the longest sequence so far.");
    put_metric(out, "llamacpp:n_busy_slots_per_decode", "gauge",
               s->steps ? (double)s->step_answers / (double)s->steps : 0, "Answers in a decode step on average.");
    put_metric(out, "llamacpp:prompt_tokens_seconds", "gauge",
               s->prompt_s > 0 ? (double)s->prompt_tokens / s->prompt_s : 0, "Prompt tokens a second on average.");
    put_metric(out, "llamacpp:predicted_tokens_seconds", "gauge",
               s->generated_s > 0 ? (double)s->generated_tokens / s->generated_s : 0,
               "Generated tokens a second on average.");
    put_metric(out, "llamacpp:requests_processing", "gauge", s->running, "Requests that run.");
    put_metric(out, "llamacpp:requests_deferred", "gauge", s->waiting, "Requests that wait.");
    put_metric(out, "llamacpp:kv_cache_usage_ratio", "gauge", used, "Share of KV blocks that are not free.");
    put_metric(out, "llamacpp:kv_cache_tokens", "gauge", 64.0 * (s->kv_blocks - s->kv_blocks_free),
               "Tokens in KV blocks that are not free.");
}

static void put_vllm_metric(mq_buf *out, const char *model, const char *name, const char *type, double value,
                            const char *help)
{
    put_head(out, name, type, help);
    (void)mq__buf_printf(out, "%s{model_name=\"", name);
    put_label(out, model);
    (void)mq__buf_printf(out, "\"} %.15g\n", value);
}

static void put_vllm(mq_buf *out, const mq_scheduler_stats *s, const char *model)
{
    /* What the prefix cache alone holds is free for whoever needs it: a router asks how much room there is. */
    const double given = (double)s->kv_blocks_free + s->kv_blocks_cached;
    const double used = s->kv_blocks && given < s->kv_blocks ? 1 - given / s->kv_blocks : 0;
    const double hits = (double)s->hit_tokens, queries = hits + (double)s->miss_tokens;
    put_vllm_metric(out, model, "vllm:num_requests_running", "gauge", s->running, "Requests that run.");
    put_vllm_metric(out, model, "vllm:num_requests_waiting", "gauge", s->waiting, "Requests that wait.");
    put_vllm_metric(out, model, "vllm:kv_cache_usage_perc", "gauge", used,
                    "Share of KV blocks that running requests hold, from 0 to 1.");
    put_vllm_metric(out, model, "vllm:num_preemptions_total", "counter", (double)s->preempted,
                    "Requests whose KV was taken away while they ran.");
    put_vllm_metric(out, model, "vllm:prompt_tokens_total", "counter", (double)(s->prompt_tokens + s->cached_tokens),
                    "Prompt tokens, computed or cached.");
    put_vllm_metric(out, model, "vllm:generation_tokens_total", "counter", (double)s->generated_tokens,
                    "Tokens generated.");
    put_vllm_metric(out, model, "vllm:spec_decode_num_draft_tokens_total", "counter", (double)s->drafted_tokens,
                    "Tokens that were proposed for answers.");
    put_vllm_metric(out, model, "vllm:spec_decode_num_accepted_tokens_total", "counter",
                    (double)s->drafted_right_tokens, "Tokens of them that were right.");
    put_vllm_metric(out, model, "vllm:prefix_cache_queries_total", "counter", queries,
                    "Prompt tokens that the prefix cache was asked for.");
    put_vllm_metric(out, model, "vllm:prefix_cache_hits_total", "counter", hits, "Prompt tokens that it had.");
}

static void put_finished(mq_buf *out, const mq_counts *counts, const char *model)
{
    put_head(out, "vllm:request_success_total", "counter", "Answers that ended well.");
    for (size_t i = 0; i < 3; i++) {
        const uint64_t n = atomic_load_explicit(&counts->finished[i], memory_order_relaxed);
        (void)mq__buf_printf(out, "vllm:request_success_total{model_name=\"");
        put_label(out, model);
        (void)mq__buf_printf(out, "\",finished_reason=\"%s\"} %llu\n", finish_names[i], (unsigned long long)n);
    }
}

static void put_times(mq_buf *out, const mq_times *times, const char *name, const char *model, const char *help)
{
    uint64_t below = 0;
    put_head(out, name, "histogram", help);
    for (size_t i = 0; i <= MQ_TIME_BUCKETS; i++) {
        below += atomic_load_explicit(&times->buckets[i], memory_order_relaxed);
        (void)mq__buf_printf(out, "%s_bucket{model_name=\"", name);
        put_label(out, model);
        if (i < MQ_TIME_BUCKETS)
            (void)mq__buf_printf(out, "\",le=\"%g\"} %llu\n", time_bounds[i], (unsigned long long)below);
        else
            (void)mq__buf_printf(out, "\",le=\"+Inf\"} %llu\n", (unsigned long long)below);
    }
    (void)mq__buf_printf(out, "%s_sum{model_name=\"", name);
    put_label(out, model);
    (void)mq__buf_printf(out, "\"} %.6f\n%s_count{model_name=\"",
                         1e-6 * (double)atomic_load_explicit(&times->micros, memory_order_relaxed), name);
    put_label(out, model);
    (void)mq__buf_printf(out, "\"} %llu\n", (unsigned long long)below);
}

/* Facts as labels of a gauge that is 1. llm-d's scheduler reads the sizes; routers keep pools of different plans apart by the plan. */
static void put_facts(mq_buf *out, const mq_scheduler_stats *s, const mq_served_model *model, const char *role)
{
    put_head(out, "vllm:cache_config_info", "gauge", "Sizes of the KV cache.");
    (void)mq__buf_puts(out, "vllm:cache_config_info{model_name=\"");
    put_label(out, model->name);
    (void)mq__buf_printf(out, "\",block_size=\"64\",num_gpu_blocks=\"%u\"} 1\n", s->kv_blocks);
    put_head(out, "mixquant:plan_info", "gauge", "Formats of both phases, and what this worker does of them.");
    (void)mq__buf_printf(out, "mixquant:plan_info{prefill=\"%s\",decode=\"%s\",role=\"%s\"} 1\n",
                         mq_linear_format_name(model->info.prefill), mq_linear_format_name(model->info.decode), role);
}

typedef struct own_metric {
    const char *name;
    double value;
    const char *help;
} own_metric;

static void put_all(mq_buf *out, const own_metric *metrics, size_t count, const char *type)
{
    for (size_t i = 0; i < count; i++) {
        put_metric(out, metrics[i].name, type, metrics[i].value, metrics[i].help);
    }
}

static void put_handoff(mq_buf *out, const mq_handoff_stats *h)
{
    const own_metric counters[] = {
        {"mixquant:handoffs_sent_total", (double)h->sent, "Prompts whose KV went to another worker."},
        {"mixquant:handoff_sent_tokens_total", (double)h->sent_tokens, "Tokens of them."},
        {"mixquant:handoff_sent_bytes_total", (double)h->sent_bytes, "Bytes of them."},
        {"mixquant:handoff_send_failures_total", (double)h->send_failures, "Hand-offs to others that failed."},
        {"mixquant:handoffs_received_total", (double)h->received, "Prompts whose KV came from another worker."},
        {"mixquant:handoff_received_tokens_total", (double)h->received_tokens, "Tokens of them."},
        {"mixquant:handoff_received_bytes_total", (double)h->received_bytes, "Bytes of them."},
        {"mixquant:handoff_receive_failures_total", (double)h->receive_failures, "Hand-offs from others that failed."},
        {"mixquant:handoff_refused_peers_total", (double)h->refused_peers,
         "Requests that named a worker which is not allowed."},
        {"mixquant:handoff_refused_frames_total", (double)h->refused_frames,
         "Messages that were damaged, foreign, replayed or too large."},
        {"mixquant:handoff_leases_total", (double)h->leases, "Prompts that were kept for somebody to fetch."},
        {"mixquant:handoff_leases_expired_total", (double)h->leases_expired, "Those that nobody fetched in time."},
        {"mixquant:handoff_hidden_seconds_total", h->hidden_s, "Transfers from others while they still computed."},
        {"mixquant:handoff_exposed_seconds_total", h->exposed_s, "Transfers from others after they had computed."},
    };
    const own_metric gauges[] = {
        {"mixquant:handoffs_sending", h->sending, "Hand-offs to others that are under way."},
        {"mixquant:handoffs_receiving", h->receiving, "Hand-offs from others that are under way."},
        {"mixquant:handoff_leased", h->leased, "Prompts that are kept for somebody to fetch."},
        {"mixquant:prefill_peers", h->peers, "Workers in the list of --prefill-peer."},
        {"mixquant:prefill_peers_healthy", h->healthy, "Those that can be used."},
    };
    put_all(out, counters, sizeof counters / sizeof counters[0], "counter");
    put_all(out, gauges, sizeof gauges / sizeof gauges[0], "gauge");
}

static void put_own(mq_buf *out, const mq_scheduler_stats *s)
{
    const own_metric counters[] = {
        {"mixquant:prefix_cache_hit_tokens_total", (double)s->hit_tokens, "Prompt tokens that the prefix cache had."},
        {"mixquant:prefix_cache_miss_tokens_total", (double)s->miss_tokens, "Prompt tokens that it did not have."},
        {"mixquant:prefix_cache_evict_tokens_total", (double)s->evicted_tokens, "Tokens that it gave up for others."},
        {"mixquant:disk_read_tokens_total", (double)s->disk_read_tokens, "Tokens whose KV was read from disk."},
        {"mixquant:disk_written_tokens_total", (double)s->disk_written_tokens, "Tokens whose KV was written to disk."},
        {"mixquant:arrived_tokens_total", (double)s->arrived_tokens, "Prompt tokens that were prefilled elsewhere."},
        {"mixquant:transfers_failed_total", (double)s->transfers_failed,
         "Prompts of which what was prefilled elsewhere did not arrive."},
        {"mixquant:requests_total", (double)s->requests, "Requests that were queued."},
        {"mixquant:requests_cancelled_total", (double)s->cancelled, "Requests that were cancelled."},
        {"mixquant:requests_failed_total", (double)s->failed, "Requests that failed."},
    };
    const own_metric gauges[] = {
        {"mixquant:kv_blocks", s->kv_blocks, "KV blocks of 64 tokens."},
        {"mixquant:kv_blocks_free", s->kv_blocks_free, "Blocks that nothing holds."},
        {"mixquant:kv_blocks_cached", s->kv_blocks_cached, "Blocks that the prefix cache alone holds."},
        {"mixquant:unread_tokens", (double)s->unread_tokens, "Prompt tokens that wait to be computed here."},
        {"mixquant:requests_arriving", s->arriving, "Running requests whose prompt is prefilled elsewhere."},
        {"mixquant:requests_held", s->held, "Ended requests whose KV stays for others."},
    };
    put_all(out, counters, sizeof counters / sizeof counters[0], "counter");
    const own_metric windows[] = {
        {"mixquant:kv_windows", s->kv_windows, "Window parts for KV blocks: what layers with a window keep of one."},
        {"mixquant:kv_windows_free", s->kv_windows_free, "Window parts that no running request needs."},
    };
    put_all(out, gauges, sizeof gauges / sizeof gauges[0], "gauge");
    if (s->kv_windows) put_all(out, windows, sizeof windows / sizeof windows[0], "gauge");
}

static void put_answers(mq_buf *out, const mq_counts *counts)
{
    put_head(out, "mixquant:answers_total", "counter", "Answers by API and HTTP status (499: the client left).");
    for (size_t a = 0; a < MQ_COUNTED_APIS && api_names[a]; a++) {
        for (size_t s = 0; s < MQ_COUNTED_STATUSES; s++) {
            const uint64_t n = atomic_load_explicit(&counts->answers[a][s], memory_order_relaxed);
            if (n == 0 && statuses[s] != 200) continue;
            (void)mq__buf_printf(out, "mixquant:answers_total{api=\"%s\",status=\"%u\"} %llu\n", api_names[a],
                                 statuses[s], (unsigned long long)n);
        }
    }
}

static void put_worker(mq_buf *out, mq_server *server, const mq_scheduler_stats *s)
{
    const mq_handoff_backend *handoff = mq__server_handoff(server);
    mq_handoff_stats stats = {0};
    put_facts(out, s, mq__server_model(server), handoff ? handoff->role : "both");
    if (!handoff) return;
    handoff->count(handoff->self, &stats);
    put_handoff(out, &stats);
}

void mq__api_metrics(mq_server *server, mq_exchange *x)
{
    static const char type[] = "text/plain; version=0.0.4; charset=utf-8";
    const mq_served_model *model = mq__server_model(server);
    const mq_backend *backend = mq__server_backend(server);
    const mq_counts *counts = mq__server_counts(server);
    mq_scheduler_stats s;
    mq_buf out = {0};
    mq_c_locale scope;
    backend->describe(backend->self, &s);
    if (mq__c_locale_enter(&scope)) {
        put_llama(&out, &s);
        put_vllm(&out, &s, model->name);
        put_finished(&out, counts, model->name);
        put_times(&out, &counts->first_token, "vllm:time_to_first_token_seconds", model->name,
                  "From a request to its first token.");
        put_times(&out, &counts->whole, "vllm:e2e_request_latency_seconds", model->name, "From a request to its end.");
        put_own(&out, &s);
        put_worker(&out, server, &s);
        put_answers(&out, counts);
        mq__c_locale_leave(&scope);
    }
    if (out.len && !out.failed)
        mq__exchange_reply(x, 200, type, out.data, out.len);
    else
        mq__exchange_reply(x, 503, type, "", 0);
    mq__buf_free(&out);
}
