/* The life of a request: from its handler over the backend's events to its end. */
#include "server/answering.h"

#include "base/json_read.h"
#include "base/mem.h"
#include "server/answering_call.h"
#include "server/metrics.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define BLANKS_AFTER 5.0  /* seconds until blanks before JSON begin */
#define BLANKS_EVERY 15.0 /* seconds */
#define PREFILL_WAIT 10.0 /* seconds for which headers wait to say where the prompt was prefilled */

/* ---- memory */

static mq_call *new_call(mq_server *server, mq_exchange *x, const mq_api *api)
{
    mq_call *call = mq__alloc_zero(1, sizeof *call);
    if (!call) return NULL;
    atomic_init(&call->holders, 1);
    pthread_mutex_init(&call->lock, NULL);
    call->server = server;
    call->x = x;
    call->api = api;
    snprintf(call->id, sizeof call->id, "%s", mq__exchange_id(x));
    call->created = (int64_t)time(NULL);
    call->started = call->sent = call->told = mq__seconds();
    return call;
}

static void drop_call(mq_call *call)
{
    if (atomic_fetch_sub_explicit(&call->holders, 1, memory_order_acq_rel) != 1) return;
    for (uint32_t i = 0; call->choices && i < call->ask.n; i++) {
        mq__choice_close(&call->choices[i]);
    }
    if (call->ask.extra && call->api->free_extra) call->api->free_extra(call->ask.extra);
    if (call->state && call->api->free_state) call->api->free_state(call->state);
    mq__free(call->choices);
    mq__free(call->state);
    mq__ask_clear(&call->ask);
    mq_free(call->prompt.tokens);
    mq__buf_free(&call->line);
    pthread_mutex_destroy(&call->lock);
    mq__free(call);
}

/* A release waits for an event that is being told, and that takes the lock. */
void mq__choices_release(mq_call *call)
{
    const mq_backend *backend = mq__server_backend(call->server);
    for (uint32_t i = 0; call->choices && i < call->ask.n; i++) {
        pthread_mutex_lock(&call->lock);
        mq_job *job = call->choices[i].job;
        call->choices[i].job = NULL;
        pthread_mutex_unlock(&call->lock);
        if (job) backend->release(backend->self, job);
    }
}

/* ---- sending; all with the lock */

/* Allocations of jansson that fail in this thread from now on are the call's. */
static void watch_failures(mq_call *call)
{
    call->failures = mq__json_failures();
}

static void note_failures(mq_call *call)
{
    if (mq__json_failures() != call->failures) call->broken = true;
}

static void write_bytes(mq_call *call, const char *bytes, size_t count)
{
    if (call->over || call->left) return;
    if (!mq__exchange_write(call->x, bytes, count)) call->left = true;
    call->sent = mq__seconds();
}

static void begin_line(mq_call *call, const char *event)
{
    mq__buf_clear(&call->line);
    if (event) {
        (void)mq__buf_puts(&call->line, "event: ");
        (void)mq__buf_puts(&call->line, event);
        (void)mq__buf_putc(&call->line, '\n');
    }
    (void)mq__buf_puts(&call->line, "data: ");
}

static void end_line(mq_call *call)
{
    (void)mq__buf_puts(&call->line, "\n\n");
    if (call->line.failed)
        call->broken = true;
    else
        write_bytes(call, call->line.data, call->line.len);
}

/* An event that lacks what memory was short for is not sent, and nothing after it but the error. */
bool mq__call_send(mq_call *call, const char *event, json_t *data)
{
    begin_line(call, event);
    note_failures(call);
    if (call->broken || !data || !mq__json_print(data, JSON_COMPACT, &call->line))
        call->broken = true;
    else
        end_line(call);
    json_decref(data);
    return !call->broken;
}

void mq__call_send_text(mq_call *call, const char *event, const char *data)
{
    begin_line(call, event);
    (void)mq__buf_puts(&call->line, data);
    end_line(call);
}

/* A JSON answer: whole, or after blanks that went before it. */
static void send_json(mq_call *call, unsigned status, json_t *body)
{
    if (!call->begun) {
        mq__call_set_prefill_header(call);
        mq__reply_json(call->x, status, body);
        return;
    }
    mq__buf_clear(&call->line);
    if (body && mq__json_print(body, JSON_COMPACT, &call->line)) write_bytes(call, call->line.data, call->line.len);
    json_decref(body);
    mq__exchange_end(call->x);
}

/* ---- ends; all with the lock, and only once */

static void close_call(mq_call *call, unsigned status, const char *finish)
{
    call->over = true;
    mq__call_log(call, status, finish);
}

static void fail_call(mq_call *call, const mq_fault *fault)
{
    if (call->begun && call->ask.stream) {
        call->api->fail(call, fault);
        mq__exchange_end(call->x);
    } else if (call->begun) {
        send_json(call, 200, call->api->error ? call->api->error(fault) : mq__error_json(fault));
    } else {
        if (call->submitted) mq__call_set_prefill_header(call);
        mq__reply_fault(call->x, call->api, fault);
    }
    close_call(call, fault->status, "failed");
}

/* What went wrong meanwhile ends the call. */
static void settle(mq_call *call)
{
    if (call->over) return;
    if (call->left) {
        mq__exchange_end(call->x);
        close_call(call, 499, "left");
    } else if (call->broken) {
        mq_fault fault;
        (void)mq__fault_memory(&fault);
        call->broken = false;
        watch_failures(call);
        fail_call(call, &fault);
    }
}

/* What the API says, and, where somebody will fetch the prompt's KV, by what. */
static json_t *whole_answer(mq_call *call)
{
    json_t *whole = call->api->whole(call);
    mq__call_lend(call);
    if (call->lease[0]) (void)json_object_set_new(whole, "kv_transfer_params", mq__call_lease(call));
    return whole;
}

static void end_call(mq_call *call)
{
    json_t *whole = NULL;
    if (call->ask.stream)
        call->api->end(call);
    else
        whole = whole_answer(call);
    note_failures(call);
    if (!call->ask.stream && !whole) call->broken = true;
    if (call->broken || call->left) {
        json_decref(whole);
        settle(call);
        return;
    }
    if (call->ask.stream)
        mq__exchange_end(call->x);
    else
        send_json(call, 200, whole);
    close_call(call, 200, mq__finish_name(&call->choices[0].answered));
}

/* ---- events */

/* Why an answer did not end well. */
static void fault_of_report(const mq_call *call, const mq_report *report, mq_fault *fault)
{
    if (mq__call_failed_transfer(call, report, fault)) return;
    if (report->status == MQ_OK) { /* cancelled, and not by its client */
        const mq_error error = {MQ_CANCELLED, "the server is shutting down"};
        (void)mq__fault_error(fault, MQ_CANCELLED, &error);
    } else if (report->status == MQ_NO_MEMORY || report->status == MQ_USAGE) {
        (void)mq__fault_error(fault, report->status, &report->error);
    } else {
        (void)mq__fault_error(fault, MQ_IO, &report->error); /* 500 */
    }
}

static void take_end(mq_choice *choice, const mq_event *event)
{
    mq_call *call = choice->call;
    if (event->report->status != MQ_OK || event->report->finish == MQ_FINISH_CANCELLED) {
        mq_fault fault;
        fault_of_report(call, event->report, &fault);
        fail_call(call, &fault);
        return;
    }
    mq__choice_finish(choice, event);
    if (call->broken || call->left) return;
    if (call->ask.stream && call->api->ended) call->api->ended(call, choice->number);
    if (++call->ended == call->ask.n) end_call(call);
}

static bool has_ended_well(const mq_event *event)
{
    return event->kind == MQ_EVENT_END && event->report->status == MQ_OK &&
           event->report->finish != MQ_FINISH_CANCELLED;
}

static void begin_stream(mq_call *call)
{
    mq__call_set_prefill_header(call);
    mq__exchange_begin(call->x, 200, "text/event-stream");
    call->begun = true;
    call->api->begin(call);
}

/* A stream that has not begun waits to know where its prompt was prefilled: an answer's first token has come then. */
static void begin_when_known(mq_choice *choice, const mq_event *event)
{
    mq_call *call = choice->call;
    if (!call->ask.stream || call->begun) return;
    const bool known = choice->number == 0 && mq__call_knows_prefill(call, event->report);
    const bool begins = event->kind == MQ_EVENT_PROGRESS ? known : event->kind == MQ_EVENT_TOKEN;
    if (begins || has_ended_well(event)) begin_stream(call);
}

static void take_event(mq_choice *choice, const mq_event *event)
{
    mq_call *call = choice->call;
    choice->answered.report = *event->report;
    mq__call_find_miss(call, event->report);
    begin_when_known(choice, event);
    if (call->broken || call->left) return;
    if (event->kind == MQ_EVENT_PROGRESS) {
        if (call->ask.stream && call->begun && call->api->progress) call->api->progress(call, event->report);
    } else if (event->kind == MQ_EVENT_TOKEN) {
        mq__choice_token(choice, event);
    } else {
        take_end(choice, event);
    }
}

void mq__choice_event(void *context, const mq_event *event)
{
    mq_choice *choice = context;
    mq_call *call = choice->call;
    pthread_mutex_lock(&call->lock);
    watch_failures(call);
    if (!call->over) {
        take_event(choice, event);
        note_failures(call);
        settle(call);
    }
    pthread_mutex_unlock(&call->lock);
}

/* ---- while it lasts */

/* For so long a whole answer's headers wait where there are blanks before it. */
static double blanks_after(const mq_call *call)
{
    return mq__call_knows_prefill(call, &call->choices[0].answered.report) ? BLANKS_AFTER : PREFILL_WAIT;
}

static void keep_blanks(mq_call *call, double now)
{
    if (!mq__server_options(call->server)->json_keepalive) return;
    if (!call->begun && now - call->started >= blanks_after(call)) {
        mq__call_set_prefill_header(call);
        mq__exchange_begin(call->x, 200, "application/json");
        call->begun = true;
        write_bytes(call, " ", 1);
    } else if (call->begun && now - call->sent >= BLANKS_EVERY) {
        write_bytes(call, " ", 1);
    }
}

/* Long enough: the headers say what is known by now. What the prompt's progress was is not lost. */
static void begin_late(mq_call *call)
{
    const mq_report *report = &call->choices[0].answered.report;
    begin_stream(call);
    if (!call->broken && !call->left && report->plan_decode && call->api->progress) call->api->progress(call, report);
}

static void tick_call(mq_call *call)
{
    const double now = mq__seconds(), most = mq__server_limits(call->server)->request_s;
    if (most > 0 && now - call->started > most) {
        mq_fault fault = {.status = 504, .type = "server_error", .code = "request_timeout"};
        snprintf(fault.message, sizeof fault.message, "the answer took longer than this server's limit of %g s", most);
        fail_call(call, &fault);
        return;
    }
    if (!call->ask.stream) {
        keep_blanks(call, now);
    } else if (!call->begun && now - call->started >= PREFILL_WAIT) {
        begin_late(call);
    } else if (call->begun && call->api->alive && now - call->told >= 1) {
        call->told = now;
        call->api->alive(call, now - call->sent);
    }
}

static void on_tick(void *context)
{
    mq_call *call = context;
    pthread_mutex_lock(&call->lock);
    watch_failures(call);
    if (!call->over) {
        tick_call(call);
        note_failures(call);
        settle(call);
    }
    const bool over = call->over;
    pthread_mutex_unlock(&call->lock);
    if (over) mq__choices_release(call); /* others of its answers may still run */
}

static void on_gone(void *context, bool complete)
{
    mq_call *call = context;
    (void)complete;
    pthread_mutex_lock(&call->lock);
    if (!call->over) close_call(call, 499, "left");
    pthread_mutex_unlock(&call->lock);
    mq__choices_release(call);
    drop_call(call);
}

/* ---- the handler */

static void set_warning(mq_call *call)
{
    char value[1100];
    if (!call->ask.warning) return;
    snprintf(value, sizeof value, "299 mixquant \"left out: %s\"", call->ask.warning);
    mq__exchange_set_header(call->x, "warning", value);
}

/* An answer without a token: what the prompt's KV is for happens elsewhere. */
static void acknowledge(mq_call *call)
{
    const mq_report report = {.prompt = (uint32_t)call->prompt.count, .finish = MQ_FINISH_LENGTH, .miss_token = -1};
    const mq_event event = {.kind = MQ_EVENT_END, .token = -1, .report = &report};
    for (uint32_t i = 0; i < call->ask.n && !call->over && !call->broken; i++) {
        take_event(&call->choices[i], &event);
    }
}

/* False: it has failed. */
static bool submit_call(mq_call *call)
{
    mq_fault fault;
    for (uint32_t i = 0; i < call->ask.n; i++) {
        if (mq__choice_submit(&call->choices[i], &fault)) continue;
        fail_call(call, &fault);
        return false;
    }
    call->submitted = true;
    return true;
}

/* With the lock: events that come meanwhile wait. */
static void start_call(mq_call *call)
{
    if (!call->ask.handoff.acknowledges && !submit_call(call)) return;
    watch_failures(call);
    if (call->ask.stream && !mq__call_tells_prefill(call)) begin_stream(call);
    if (call->ask.handoff.acknowledges) acknowledge(call);
    note_failures(call);
    settle(call);
}

static void launch_call(mq_call *call)
{
    const mq_exchange_hooks hooks = {.tick = on_tick, .gone = on_gone, .context = call};
    set_warning(call);
    atomic_fetch_add_explicit(&call->holders, 1, memory_order_relaxed);
    mq__exchange_set_hooks(call->x, &hooks);
    pthread_mutex_lock(&call->lock);
    if (!call->over) start_call(call); /* else its client has left already */
    const bool over = call->over;
    pthread_mutex_unlock(&call->lock);
    if (over) mq__choices_release(call);
}

void mq__answer(mq_server *server, mq_exchange *x, const mq_api *api)
{
    mq_fault fault;
    mq_call *call = new_call(server, x, api);
    if (!call) {
        (void)mq__fault_memory(&fault);
        mq__reply_fault(x, api, &fault);
        return;
    }
    if (mq__call_prepare(call, &fault)) {
        launch_call(call);
    } else {
        pthread_mutex_lock(&call->lock);
        fail_call(call, &fault);
        pthread_mutex_unlock(&call->lock);
    }
    drop_call(call);
}
