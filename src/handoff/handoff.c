/* The public interface: options, life, the thread that looks at deadlines, statistics. */
#include "handoff/handoff.h"

#include "base/error.h"
#include "base/mem.h"
#include "handoff/network.h"
#include "handoff/peers.h"
#include "handoff/serve.h"

#include <stdio.h>
#include <string.h>

#define MOST_WAITING ((uint64_t)262144)
#define TIMEOUT      10.0
#define LOG_LINES    100  /* in */
#define LOG_SECONDS  10.0 /* at most */

static const mq_handoff_tuning default_tuning = {.connect = 5,
                                                 .greet = 5,
                                                 .send = 10,
                                                 .state = 0.5,
                                                 .idle = 60,
                                                 .orphan = 300,
                                                 .recycle = 3600,
                                                 .recycle_handoffs = 50000,
                                                 .suspect_first = 1,
                                                 .suspect_most = 60,
                                                 .late = 60,
                                                 .late_times = 4,
                                                 .late_most = 4 * 3600,
                                                 .done = 10,
                                                 .health = 2,
                                                 .health_wait = 2,
                                                 .watch = 0.1,
                                                 .served = 256,
                                                 .peers = 64,
                                                 .leases = 256};

/* ---- small things */

void mq__hex(const uint8_t *bytes, size_t count, char *text)
{
    for (size_t i = 0; i < count; i++) {
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    }
}

/* Whether a line may be written now: peers that fail, or strangers that connect, fill no disk. *left_out: lines that were not, before. */
static bool may_log(mq_handoff *h, uint32_t *left_out)
{
    const double now = mq__seconds();
    pthread_mutex_lock(&h->lock);
    if (now - h->log_since > LOG_SECONDS) {
        h->log_since = now;
        h->log_lines = 0;
    }
    const bool may = h->log_lines < LOG_LINES;
    h->log_lines += may;
    h->log_left_out += !may;
    *left_out = may ? h->log_left_out : 0;
    if (may) h->log_left_out = 0;
    pthread_mutex_unlock(&h->lock);
    return may;
}

void mq__handoff_log(mq_handoff *h, const char *format, ...)
{
    char text[640];
    uint32_t left_out;
    va_list arguments;
    if (!h->options.log || !may_log(h, &left_out)) return;
    if (left_out) {
        snprintf(text, sizeof text, "hand-off: %u lines left out", left_out);
        h->options.log(h->options.log_context, text);
    }
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    h->options.log(h->options.log_context, text);
}

void mq__handoff_count(mq_handoff *h, uint64_t *counter, uint64_t more)
{
    pthread_mutex_lock(&h->lock);
    *counter += more;
    pthread_mutex_unlock(&h->lock);
}

void mq__handoff_wake(mq_handoff *h)
{
    mq_scheduler *scheduler = atomic_load(&h->scheduler);
    if (scheduler) mq__scheduler_wake(scheduler);
}

double mq__handoff_patience(const mq_handoff *h, double expected)
{
    const double seconds = h->tuning.late + h->tuning.late_times * expected;
    return seconds < h->tuning.late_most ? seconds : h->tuning.late_most;
}

/* ---- opening */

static mq_status check_options(const mq_handoff *h, mq_error *error)
{
    if (!mq__link_has_kind(h->transport)) {
        return mq__fail(error, MQ_UNSUPPORTED, "hand-off: transport: expected one of %s, got %s", mq__link_kinds(),
                        h->transport);
    }
    if (h->options.listens && !h->key.there && !h->options.insecure && !mq__is_loopback(h->host)) {
        return mq__fail(error, MQ_USAGE,
                        "hand-off: %s: expected a key file or `insecure` for an address that others reach, got neither",
                        h->host);
    }
    return MQ_OK;
}

static mq_status read_options(mq_handoff *h, const mq_handoff_options *o, mq_error *error)
{
    h->transport = mq__strdup(o->transport ? o->transport : "tcp");
    h->host = mq__strdup(o->host ? o->host : "127.0.0.1");
    if (!h->transport || !h->host) return mq__fail(error, MQ_NO_MEMORY, "hand-off: expected memory, got none");
    if (h->options.most_waiting == 0) h->options.most_waiting = MOST_WAITING;
    if (!(h->options.timeout_s > 0)) h->options.timeout_s = TIMEOUT;
    mq_status status = mq__auth_key_read(o->key_file, &h->key, error);
    if (status == MQ_OK) status = check_options(h, error);
    if (status == MQ_OK && (o->peer_count || o->allowed_count)) status = mq__peers_new(h, o, error);
    if (status == MQ_OK && o->listens) status = mq__server_side_new(h, error);
    return status;
}

static mq_status dial_link(void *context, const char *transport, const char *host, uint16_t port, double seconds,
                           mq_link **link, mq_error *error)
{
    (void)context;
    return mq__link_connect(transport, host, port, seconds, link, error);
}

static mq_status submit_job(void *context, const mq_request *request, mq_job **job, mq_error *error)
{
    mq_handoff *h = context;
    mq_scheduler *scheduler = atomic_load(&h->scheduler);
    if (scheduler) return mq_scheduler_submit(scheduler, request, job, error);
    return mq__fail(error, MQ_CANCELLED, "hand-off: prefill: expected a worker that runs, got one that does not");
}

mq_status mq_handoff_open(const mq_handoff_options *options, mq_handoff **out, mq_error *error)
{
    *out = NULL;
    mq_handoff *h = mq__alloc_zero(1, sizeof *h);
    if (!h || !mq__cond_init(&h->stopped)) {
        mq__free(h);
        return mq__fail(error, MQ_NO_MEMORY, "hand-off: expected memory, got none");
    }
    pthread_mutex_init(&h->lock, NULL);
    h->options = *options;
    h->engine = options->engine;
    h->tuning = default_tuning;
    if (options->idle_s > 0) {
        h->tuning.idle = options->idle_s;
        h->tuning.orphan = 5 * options->idle_s;
    }
    h->dial = dial_link;
    h->submit = submit_job;
    h->submit_context = h;
    h->release = mq_job_free;
    mq_status status = read_options(h, options, error);
    if (status == MQ_OK) status = mq__fingerprint(h->engine, h->engine->plan, &h->print, error);
    if (status != MQ_OK) {
        mq_handoff_close(h);
        return status;
    }
    /* the caller's may go */
    h->options.transport = h->options.host = h->options.key_file = NULL;
    h->options.peers = h->options.allowed = NULL;
    mq__auth_random(h->instance, sizeof h->instance);
    mq__source_fill(h);
    *out = h;
    return MQ_OK;
}

void mq_handoff_close(mq_handoff *h)
{
    if (!h) return;
    mq_handoff_stop(h);
    mq__peers_free(h);
    mq__server_side_free(h);
    mq__auth_forget(&h->key);
    pthread_cond_destroy(&h->stopped);
    pthread_mutex_destroy(&h->lock);
    mq__free(h->transport);
    mq__free(h->host);
    mq__free(h);
}

/* ---- running */

static void *watch_deadlines(void *context)
{
    mq_handoff *h = context;
    while (!atomic_load(&h->stopping)) {
        const double now = mq__seconds();
        mq__leases_watch(h, now);
        if (h->server) mq__server_side_watch(h);
        if (h->peers) mq__peers_watch(h, now);
        pthread_mutex_lock(&h->lock);
        if (!atomic_load(&h->stopping)) mq__cond_wait_until(&h->stopped, &h->lock, now + h->tuning.watch);
        pthread_mutex_unlock(&h->lock);
    }
    return NULL;
}

mq_status mq_handoff_serve(mq_handoff *h, mq_scheduler *scheduler, mq_error *error)
{
    mq_status status = MQ_OK;
    atomic_store(&h->scheduler, scheduler);
    h->watches = pthread_create(&h->watch, NULL, watch_deadlines, h) == 0;
    if (!h->watches) status = mq__fail(error, MQ_NO_MEMORY, "hand-off: expected a thread, got none");
    if (status == MQ_OK && h->peers) status = mq__peers_start(h, error);
    if (status == MQ_OK && h->server) status = mq__server_side_listen(h, error);
    if (status != MQ_OK) mq_handoff_stop(h);
    return status;
}

uint16_t mq_handoff_port(const mq_handoff *h)
{
    return h->server ? mq__server_side_port(h) : 0;
}

void mq_handoff_stop(mq_handoff *h)
{
    pthread_mutex_lock(&h->lock);
    atomic_store(&h->stopping, true);
    pthread_cond_broadcast(&h->stopped);
    pthread_mutex_unlock(&h->lock);
    if (h->watches) pthread_join(h->watch, NULL);
    h->watches = false;
    if (h->peers) mq__peers_stop(h);
    if (h->server) mq__server_side_stop(h);
    mq__leases_end(h);
    atomic_store(&h->scheduler, NULL);
}

/* ---- what it says of itself */

void mq_handoff_describe_stats(mq_handoff *h, mq_handoff_stats *stats)
{
    mq_peers_summary summary = {0};
    if (h->peers) mq__peers_describe(h, &summary);
    pthread_mutex_lock(&h->lock);
    *stats = h->stats;
    pthread_mutex_unlock(&h->lock);
    stats->receiving = summary.receiving;
    stats->peers = summary.peers;
    stats->healthy = summary.healthy;
}
