/* Exchanges: what APIs read and write, and how it becomes a libmicrohttpd response. A connection without anything to send is suspended;
 * who writes resumes it. Both happen under the exchange's lock, so none is missed. */
#include "base/error.h"
#include "base/mem.h"
#include "server/http.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/socket.h>

#define STREAM_BLOCK 16384

static void make_id(char id[25])
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    unsigned char random[24];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) memset(random, 0, sizeof random);
    for (int i = 0; i < 24; i++) {
        id[i] = letters[random[i] % 36];
    }
    id[24] = '\0';
}

mq_exchange *mq__exchange_new(mq_server *server, struct MHD_Connection *connection, const char *method,
                              const char *path)
{
    mq_exchange *x = mq__alloc_zero(1, sizeof *x);
    if (!x) return NULL;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    x->server = server;
    x->connection = connection;
    x->socket = info ? info->socket_context : NULL;
    x->path = mq__strdup(path);
    snprintf(x->method, sizeof x->method, "%s", method);
    make_id(x->id);
    pthread_mutex_init(&x->lock, NULL);
    pthread_mutex_init(&x->hook_lock, NULL);
    if (x->path) return x;
    mq__exchange_free(x);
    return NULL;
}

void mq__exchange_free(mq_exchange *x)
{
    pthread_mutex_destroy(&x->lock);
    pthread_mutex_destroy(&x->hook_lock);
    atomic_fetch_sub(&x->server->held, x->held);
    mq__buf_free(&x->body);
    mq__buf_free(&x->headers);
    mq__buf_free(&x->out);
    mq__free(x->path);
    mq__free(x);
}

/* ---- the request */

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
    return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
}

const char *mq__exchange_query(const mq_exchange *x, const char *key)
{
    return MHD_lookup_connection_value(x->connection, MHD_GET_ARGUMENT_KIND, key);
}

const char *mq__exchange_body(const mq_exchange *x, size_t *count)
{
    *count = x->body.len;
    return x->body.data ? x->body.data : "";
}

uint64_t mq__exchange_owner(const mq_exchange *x)
{
    return x->owner;
}

bool mq__exchange_local_address(const mq_exchange *x, char *host, size_t size)
{
    struct sockaddr_storage address;
    socklen_t bytes = sizeof address;
    const struct sockaddr *any = (const struct sockaddr *)&address;
    if (!x->socket || getsockname(x->socket->fd, (struct sockaddr *)&address, &bytes) != 0) return false;
    if (address.ss_family != AF_INET && address.ss_family != AF_INET6) return false;
    if (getnameinfo(any, bytes, host, (socklen_t)size, NULL, 0, NI_NUMERICHOST) != 0) return false;
    static const char mapped[] = "::ffff:"; /* an IPv4 client of an IPv6 socket */
    if (strncmp(host, mapped, sizeof mapped - 1) == 0 && strchr(host, '.'))
        memmove(host, host + sizeof mapped - 1, strlen(host) - sizeof mapped + 2);
    return true;
}

const char *mq__exchange_id(const mq_exchange *x)
{
    return x->id;
}

/* ---- the answer */

/* Something is there to be sent. Under the exchange's lock. */
static void wake(mq_exchange *x)
{
    if (!x->suspended) return;
    x->suspended = false;
    MHD_resume_connection(x->connection);
}

/* Under the exchange's lock, before `gone`: the descriptor is open. */
static void cut_off(mq_exchange *x)
{
    x->cut = true;
    if (x->queued && x->socket) (void)shutdown(x->socket->fd, SHUT_RDWR); /* it may wait for its client to read */
    wake(x);
}

void mq__exchange_set_stage(mq_exchange *x, http_stage stage)
{
    pthread_mutex_lock(&x->lock);
    x->stage = stage;
    pthread_mutex_unlock(&x->lock);
}

void mq__exchange_set_header(mq_exchange *x, const char *name, const char *value)
{
    pthread_mutex_lock(&x->lock);
    mq__buf_printf(&x->headers, "%s: ", name);
    for (const char *c = value; *c; c++) {
        mq__buf_putc(&x->headers, (unsigned char)*c < 0x20 || *c == 0x7f ? ' ' : *c);
    }
    mq__buf_putc(&x->headers, '\n');
    pthread_mutex_unlock(&x->lock);
}

void mq__exchange_reply(mq_exchange *x, unsigned status, const char *type, const char *bytes, size_t count)
{
    pthread_mutex_lock(&x->lock);
    if (x->stage == HTTP_RUNNING) {
        x->stage = HTTP_REPLY;
        x->status = status;
        snprintf(x->type, sizeof x->type, "%s", type);
        if (!mq__buf_append(&x->out, bytes, count)) cut_off(x);
        wake(x);
    } else if (x->stage == HTTP_STREAM) { /* blanks went before it: --json-keepalive */
        if (!mq__buf_append(&x->out, bytes, count)) cut_off(x);
        x->ended = true;
        wake(x);
    }
    pthread_mutex_unlock(&x->lock);
}

void mq__exchange_begin(mq_exchange *x, unsigned status, const char *type)
{
    pthread_mutex_lock(&x->lock);
    if (x->stage == HTTP_RUNNING) {
        x->stage = HTTP_STREAM;
        x->status = status;
        snprintf(x->type, sizeof x->type, "%s", type);
        wake(x);
    }
    pthread_mutex_unlock(&x->lock);
}

/* What was sent goes, once it is worth the move. Under the exchange's lock. */
static void forget_sent(mq_exchange *x)
{
    if (x->out_from < x->out.len && x->out_from <= 4 * STREAM_BLOCK) return;
    memmove(x->out.data, x->out.data + x->out_from, x->out.len - x->out_from);
    x->out.len -= x->out_from;
    x->out_from = 0;
}

bool mq__exchange_write(mq_exchange *x, const char *bytes, size_t count)
{
    pthread_mutex_lock(&x->lock);
    if (x->out_from > 0) forget_sent(x);
    const bool too_slow = x->out.len - x->out_from > x->server->options.limits.unread_bytes;
    if (!x->cut && (too_slow || !mq__buf_append(&x->out, bytes, count)))
        cut_off(x);
    else
        wake(x);
    const bool goes_on = !x->cut;
    pthread_mutex_unlock(&x->lock);
    return goes_on;
}

void mq__exchange_end(mq_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    x->ended = true;
    wake(x);
    pthread_mutex_unlock(&x->lock);
}

void mq__exchange_set_hooks(mq_exchange *x, const mq_exchange_hooks *hooks)
{
    pthread_mutex_lock(&x->hook_lock);
    x->hooks = *hooks;
    x->hooked = true;
    pthread_mutex_unlock(&x->hook_lock);
}

void mq__exchange_cut(mq_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    cut_off(x);
    pthread_mutex_unlock(&x->lock);
}

/* ---- errors of HTTP itself */

static const char *error_type(unsigned status)
{
    switch (status) {
    case 401:
        return "authentication_error";
    case 404:
        return "not_found_error";
    case 413:
        return "request_too_large";
    case 429:
        return "rate_limit_error";
    case 503:
        return "overloaded_error";
    default:
        return status < 500 ? "invalid_request_error" : "api_error";
    }
}

void mq__exchange_refuse(mq_exchange *x, unsigned status, const char *code, const char *message)
{
    char text[640];
    const bool anthropic = strstr(x->path, "/messages") != NULL;
    const int count =
        anthropic
            ? snprintf(text, sizeof text,
                       "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":\"%s\"},\"request_id\":\"req_%s\"}",
                       error_type(status), message, x->id)
            : snprintf(text, sizeof text,
                       "{\"error\":{\"message\":\"%s\",\"type\":\"%s\",\"code\":\"%s\",\"param\":null}}", message,
                       error_type(status), code);
    if (anthropic) { /* where its SDKs look for it */
        char id[32];
        snprintf(id, sizeof id, "req_%s", x->id);
        mq__exchange_set_header(x, "request-id", id);
    }
    if (status == 503 || status == 429) mq__exchange_set_header(x, "Retry-After", "2");
    if (status == 401) mq__exchange_set_header(x, "WWW-Authenticate", "Bearer");
    if (status < 500 && status != 408 && status != 429) mq__exchange_set_header(x, "x-should-retry", "false");
    mq__exchange_reply(x, status, "application/json", text, (size_t)count);
}

/* ---- to libmicrohttpd */

/* What a cut stream ends with. Its socket is shut down, so libmicrohttpd fails to send the stream's end and forgets the connection at
 * once. After an error, 0.9.75 keeps it until something else wakes its thread. */
static ssize_t end_of_cut(const mq_exchange *x)
{
    return x->socket ? MHD_CONTENT_READER_END_OF_STREAM : MHD_CONTENT_READER_END_WITH_ERROR;
}

static ssize_t feed_response(void *context, uint64_t position, char *to, size_t most)
{
    mq_exchange *x = context;
    (void)position;
    pthread_mutex_lock(&x->lock);
    size_t count = x->out.len - x->out_from;
    ssize_t result = 0;
    if (atomic_load(&x->server->is_stopping)) {
        result = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (x->cut) {
        result = end_of_cut(x);
    } else if (count > 0) {
        if (count > most) count = most;
        memcpy(to, x->out.data + x->out_from, count);
        x->out_from += count;
        result = (ssize_t)count;
    } else if (x->ended) {
        result = MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        x->suspended = true;
        MHD_suspend_connection(x->connection);
    }
    pthread_mutex_unlock(&x->lock);
    return result;
}

static bool add_headers(struct MHD_Response *response, const mq_exchange *x)
{
    if (x->headers.failed) return false;
    bool added = MHD_add_response_header(response, "Content-Type", x->type) == MHD_YES &&
                 MHD_add_response_header(response, "x-request-id", x->id) == MHD_YES &&
                 MHD_add_response_header(response, "X-Content-Type-Options", "nosniff") == MHD_YES;
    char *lines = x->headers.len ? mq__strdup(x->headers.data) : NULL, *save = NULL;
    for (char *line = lines ? strtok_r(lines, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save)) {
        char *value = strstr(line, ": ");
        if (!value) continue;
        *value = '\0';
        added = MHD_add_response_header(response, line, value + 2) == MHD_YES && added;
    }
    mq__free(lines);
    if (x->stage == HTTP_STREAM) { /* proxies must not hold events back */
        added = MHD_add_response_header(response, "Cache-Control", "no-cache") == MHD_YES && added;
        added = MHD_add_response_header(response, "X-Accel-Buffering", "no") == MHD_YES && added;
    }
    if (atomic_load(&x->server->is_draining)) {
        added = MHD_add_response_header(response, "Connection", "close") == MHD_YES && added;
    }
    return added;
}

/* Under the exchange's lock. NULL: no memory. */
static struct MHD_Response *make_response(mq_exchange *x)
{
    struct MHD_Response *response =
        x->stage == HTTP_STREAM
            ? MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, feed_response, x, NULL)
            : MHD_create_response_from_buffer(x->out.len, x->out.data ? x->out.data : x->id, MHD_RESPMEM_PERSISTENT);
    if (response && add_headers(response, x)) return response;
    if (response) MHD_destroy_response(response);
    return NULL;
}

/* Without the exchange's lock: libmicrohttpd has one of the response, which it also holds while it calls read_stream. */
static enum MHD_Result queue_response(mq_exchange *x, struct MHD_Response *response)
{
    if (!response) return MHD_NO;
    const enum MHD_Result result = MHD_queue_response(x->connection, x->status, response);
    MHD_destroy_response(response);
    return result;
}

enum MHD_Result mq__exchange_send(mq_exchange *x)
{
    struct MHD_Response *response = NULL;
    pthread_mutex_lock(&x->lock);
    const bool closes = x->cut || atomic_load(&x->server->is_stopping);
    const bool queues = !x->queued && !closes && (x->stage == HTTP_REPLY || x->stage == HTTP_STREAM);
    const bool waits = !x->queued && !closes && !queues;
    if (queues) {
        response = make_response(x);
        x->queued = true;
    } else if (waits) {
        x->suspended = true;
        MHD_suspend_connection(x->connection);
    }
    pthread_mutex_unlock(&x->lock);
    if (queues) return queue_response(x, response);
    return closes ? MHD_NO : MHD_YES; /* NO closes the connection */
}
