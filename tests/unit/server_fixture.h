/* An exchange and a server in memory, for tests of the APIs: what an answer sends lies in a buffer, and the test plays the watcher and
 * the client. The model is the bundled one, the backend a script. */
#ifndef MQ_SERVER_FIXTURE_H
#define MQ_SERVER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>
#include <strings.h>
#include <time.h>

#include "base/buf.h"
#include "base/json_read.h"
#include "base/mem.h"
#include "script_backend.h"
#include "server/answering.h"
#include "server/metrics.h"

/* ---- the exchange */

typedef struct fixture_header {
    char name[64], value[1200];
} fixture_header;

struct mq_exchange {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    const char *method, *path, *body;
    size_t body_bytes;
    uint64_t owner;
    fixture_header in[16], out[8];
    size_t in_count, out_count;
    mq_exchange_hooks hooks;
    bool hooked, begun, ended, replied, deaf; /* deaf: writes fail */
    bool leaves_at_once;                      /* before the request is even submitted */
    size_t deaf_after;                        /* writes; 0: never */
    size_t writes;
    unsigned status;
    char type[64];
    mq_buf sent;
};

const char *mq__exchange_method(const mq_exchange *x)
{
    return x->method;
}

const char *mq__exchange_path(const mq_exchange *x)
{
    return x->path;
}

const char *mq__exchange_header(const mq_exchange *x, const char *name)
{
    for (size_t i = 0; i < x->in_count; i++) {
        if (strcasecmp(x->in[i].name, name) == 0) return x->in[i].value;
    }
    return NULL;
}

const char *mq__exchange_query(const mq_exchange *x, const char *key)
{
    (void)x;
    (void)key;
    return NULL;
}

const char *mq__exchange_body(const mq_exchange *x, size_t *count)
{
    *count = x->body_bytes;
    return x->body;
}

uint64_t mq__exchange_owner(const mq_exchange *x)
{
    return x->owner;
}

bool mq__exchange_local_address(const mq_exchange *x, char *host, size_t size)
{
    (void)x;
    snprintf(host, size, "192.0.2.7");
    return true;
}

const char *mq__exchange_id(const mq_exchange *x)
{
    (void)x;
    return "request0123456789abcdefg";
}

void mq__exchange_set_header(mq_exchange *x, const char *name, const char *value)
{
    pthread_mutex_lock(&x->lock);
    assert_false(x->begun || x->replied);
    assert_true(x->out_count < 8);
    assert_null(strpbrk(value, "\r\n"));
    fixture_header *h = &x->out[x->out_count++];
    snprintf(h->name, sizeof h->name, "%s", name);
    snprintf(h->value, sizeof h->value, "%s", value);
    pthread_mutex_unlock(&x->lock);
}

void mq__exchange_reply(mq_exchange *x, unsigned status, const char *type, const char *bytes, size_t count)
{
    pthread_mutex_lock(&x->lock);
    assert_false(x->begun || x->replied || x->ended);
    x->replied = x->ended = true;
    x->status = status;
    snprintf(x->type, sizeof x->type, "%s", type);
    mq__buf_append(&x->sent, bytes, count);
    pthread_cond_broadcast(&x->changed);
    pthread_mutex_unlock(&x->lock);
}

void mq__exchange_begin(mq_exchange *x, unsigned status, const char *type)
{
    pthread_mutex_lock(&x->lock);
    assert_false(x->begun || x->replied || x->ended);
    x->begun = true;
    x->status = status;
    snprintf(x->type, sizeof x->type, "%s", type);
    pthread_cond_broadcast(&x->changed);
    pthread_mutex_unlock(&x->lock);
}

bool mq__exchange_write(mq_exchange *x, const char *bytes, size_t count)
{
    pthread_mutex_lock(&x->lock);
    assert_true(x->begun && !x->ended);
    if (x->deaf_after && ++x->writes > x->deaf_after) x->deaf = true;
    if (!x->deaf) mq__buf_append(&x->sent, bytes, count);
    const bool heard = !x->deaf;
    pthread_cond_broadcast(&x->changed);
    pthread_mutex_unlock(&x->lock);
    return heard;
}

void mq__exchange_end(mq_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    assert_true(x->begun && !x->ended);
    x->ended = true;
    pthread_cond_broadcast(&x->changed);
    pthread_mutex_unlock(&x->lock);
}

void mq__exchange_set_hooks(mq_exchange *x, const mq_exchange_hooks *hooks)
{
    assert_false(x->hooked);
    x->hooks = *hooks;
    x->hooked = !x->leaves_at_once;
    if (x->leaves_at_once) hooks->gone(hooks->context, false);
}

/* ---- the server */

struct mq_server {
    mq_served_model model;
    mq_backend backend;
    mq_server_limits limits;
    mq_server_options options;
    mq_counts counts;
    pthread_mutex_t lock;
    mq_buf log;
    mq_text *text;
    script_backend *script;
    int32_t eos[4];
    bool is_public; /* other machines reach it */
};

bool mq__server_is_private(const mq_server *server)
{
    return !server->is_public;
}

const mq_served_model *mq__server_model(const mq_server *server)
{
    return &server->model;
}

const mq_backend *mq__server_backend(const mq_server *server)
{
    return &server->backend;
}

const mq_handoff_backend *mq__server_handoff(const mq_server *server)
{
    return server->backend.handoff;
}

const mq_server_limits *mq__server_limits(const mq_server *server)
{
    return &server->limits;
}

const mq_server_options *mq__server_options(const mq_server *server)
{
    return &server->options;
}

mq_counts *mq__server_counts(mq_server *server)
{
    return &server->counts;
}

void mq__server_log(mq_server *server, const char *format, ...)
{
    char line[4096];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    assert_null(strchr(line, '\n'));
    pthread_mutex_lock(&server->lock);
    mq__buf_puts(&server->log, line);
    mq__buf_putc(&server->log, '\n');
    pthread_mutex_unlock(&server->lock);
}

/* template_file: NULL, or a template in place of the bundled model's, under the source folder. */
static inline mq_server *fixture_server(const char *script, const char *template_file)
{
    char dir[1024], template[1024];
    mq_error error = {0};
    const char *root = getenv("MQ_SOURCE_DIR");
    mq_server *server = calloc(1, sizeof *server);
    assert_non_null(server);
    snprintf(dir, sizeof dir, "%s/models/mixquant-agent", root ? root : ".");
    snprintf(template, sizeof template, "%s/%s", root ? root : ".", template_file ? template_file : "");
    if (mq_text_open(dir, template_file ? template : NULL, &server->text, &error) != MQ_OK) fail_msg("%s", error.text);
    pthread_mutex_init(&server->lock, NULL);
    server->eos[0] = 3062;
    server->model = (mq_served_model){.name = "mixquant-agent", .text = server->text, .created = 1700000000};
    server->model.info = (mq_engine_info){.vocab = 3072,
                                          .context = 4096,
                                          .max_positions = 4096,
                                          .width = 256,
                                          .parameters = 6000000,
                                          .eos = server->eos,
                                          .eos_count = 1,
                                          .bos = -1,
                                          .prefill = MQ_LINEAR_NVFP4,
                                          .decode = MQ_LINEAR_BF16,
                                          .suggested = MQ_SAMPLING_GREEDY};
    mq_text_answer_style(server->text, &server->model.style);
    server->model.needs = mq__template_needs(server->text);
    server->limits = (mq_server_limits){.body_bytes = 32 << 20,
                                        .json_depth = 64,
                                        .messages = 10000,
                                        .tools = 512,
                                        .max_tokens = 4096,
                                        .n = 16,
                                        .stops = 16};
    server->script = script_open(script, server->text, &server->model.info);
    server->backend = script_interface(server->script);
    return server;
}

static inline void fixture_close(mq_server *server)
{
    script_close(server->script);
    mq_text_close(server->text);
    pthread_mutex_destroy(&server->lock);
    mq__buf_free(&server->log);
    free(server);
}

/* ---- one exchange */

/* headers: "name: value", NULL at the end. */
static inline mq_exchange *fixture_exchange(const char *path, const char *body, const char *const *headers)
{
    mq_exchange *x = calloc(1, sizeof *x);
    assert_non_null(x);
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->changed, NULL);
    x->method = body ? "POST" : "GET";
    x->path = path;
    x->body = body;
    x->body_bytes = body ? strlen(body) : 0;
    for (; headers && *headers; headers++) {
        const char *colon = strchr(*headers, ':');
        fixture_header *h = &x->in[x->in_count++];
        snprintf(h->name, sizeof h->name, "%.*s", (int)(colon - *headers), *headers);
        snprintf(h->value, sizeof h->value, "%s", colon + 2);
    }
    return x;
}

static inline void fixture_wait_end(mq_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    while (!x->ended) {
        pthread_cond_wait(&x->changed, &x->lock);
    }
    pthread_mutex_unlock(&x->lock);
}

/* Until so many bytes were sent, or it has ended. */
static inline void fixture_wait_bytes(mq_exchange *x, size_t bytes)
{
    pthread_mutex_lock(&x->lock);
    while (!x->ended && x->sent.len < bytes) {
        pthread_cond_wait(&x->changed, &x->lock);
    }
    pthread_mutex_unlock(&x->lock);
}

static inline void fixture_tick(mq_exchange *x)
{
    if (x->hooked && x->hooks.tick) x->hooks.tick(x->hooks.context);
}

/* The client leaves, or has read all. */
static inline void fixture_gone(mq_exchange *x, bool complete)
{
    if (x->hooked && x->hooks.gone) x->hooks.gone(x->hooks.context, complete);
    x->hooked = false;
}

static inline void fixture_free(mq_exchange *x)
{
    pthread_mutex_destroy(&x->lock);
    pthread_cond_destroy(&x->changed);
    mq__buf_free(&x->sent);
    free(x);
}

static inline const char *fixture_answer_header(const mq_exchange *x, const char *name)
{
    for (size_t i = 0; i < x->out_count; i++) {
        if (strcasecmp(x->out[i].name, name) == 0) return x->out[i].value;
    }
    return NULL;
}

/* A request from its first byte to its last one; free with fixture_free. */
static inline mq_exchange *fixture_ask(mq_server *server, mq_handler *handler, const char *path, const char *body,
                                       const char *const *headers)
{
    mq_exchange *x = fixture_exchange(path, body, headers);
    handler(server, x);
    fixture_wait_end(x);
    fixture_gone(x, true);
    return x;
}

/* The JSON of an answer that is no stream. */
static inline json_t *fixture_json(const mq_exchange *x)
{
    json_error_t error;
    json_t *value = json_loadb(x->sent.data, x->sent.len, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &error);
    if (!value) fail_msg("expected JSON, got %s: %.500s", error.text, x->sent.data);
    return value;
}

typedef struct fixture_event {
    char name[64]; /* "" */
    json_t *data;  /* NULL: "[DONE]" */
} fixture_event;

typedef struct fixture_events {
    fixture_event *at;
    size_t count;
} fixture_events;

/* Takes a stream apart; each event must be well formed. */
static inline fixture_events fixture_parse(const mq_exchange *x)
{
    fixture_events events = {0};
    const char *at = x->sent.data ? x->sent.data : "";
    assert_string_equal(x->type, "text/event-stream");
    while (*at) {
        fixture_event event = {.name = ""};
        const char *end = strstr(at, "\n\n");
        assert_non_null(end);
        if (strncmp(at, "event: ", 7) == 0) {
            const char *line = strchr(at, '\n');
            snprintf(event.name, sizeof event.name, "%.*s", (int)(line - at - 7), at + 7);
            at = line + 1;
        }
        assert_memory_equal(at, "data: ", 6);
        at += 6;
        assert_null(memchr(at, '\n', (size_t)(end - at)));
        if (strncmp(at, "[DONE]", 6) != 0) {
            json_error_t error;
            event.data = json_loadb(at, (size_t)(end - at), JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &error);
            if (!event.data) fail_msg("expected JSON, got %s: %.300s", error.text, at);
        }
        events.at = realloc(events.at, (events.count + 1) * sizeof *events.at);
        assert_non_null(events.at);
        events.at[events.count++] = event;
        at = end + 2;
    }
    return events;
}

static inline void fixture_events_free(fixture_events *events)
{
    for (size_t i = 0; i < events->count; i++) {
        json_decref(events->at[i].data);
    }
    free(events->at);
}

/* A value by a path like "choices.0.delta.content"; NULL: there is none. Borrowed. */
static inline json_t *at_path(json_t *value, const char *path)
{
    char name[256];
    while (value && *path) {
        const size_t n = strcspn(path, ".");
        snprintf(name, sizeof name, "%.*s", (int)n, path);
        value = json_is_array(value) ? json_array_get(value, (size_t)atol(name)) : json_object_get(value, name);
        path += n + (path[n] == '.');
    }
    return value;
}

static inline const char *text_at_path(json_t *value, const char *path)
{
    const char *text = json_string_value(at_path(value, path));
    return text ? text : "(none)";
}

static inline long long integer_at_path(json_t *value, const char *path)
{
    const json_t *found = at_path(value, path);
    return json_is_integer(found) ? (long long)json_integer_value(found) : -99999;
}

#endif
