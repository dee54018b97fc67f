/* A request's way through libmicrohttpd: headers, body, handler, answer, end; and connections as they come and go. */
#include "server/http.h"

#include "base/mem.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#define IDLE_SECONDS 75.0 /* of a connection between two requests */

/* ---- a request's way */

static void wait_for_client(mq_exchange *x, double seconds)
{
    if (!x->socket) return;
    pthread_mutex_lock(&x->server->lock);
    x->socket->since = mq__http_now();
    x->socket->allowed = seconds;
    pthread_mutex_unlock(&x->server->lock);
}

static bool has_large_body(const mq_exchange *x)
{
    const char *length = mq__exchange_header(x, "Content-Length");
    return length && (strlen(length) > 18 || strtoull(length, NULL, 10) > x->server->options.limits.body_bytes);
}

static enum MHD_Result begin_exchange(mq_server *server, struct MHD_Connection *connection, const char *path,
                                      const char *method, void **state)
{
    mq_exchange *x = mq__exchange_new(server, connection, method, path);
    if (!x) return MHD_NO;
    *state = x;
    x->body.max = server->options.limits.body_bytes;
    pthread_mutex_lock(&server->lock);
    x->next = server->exchanges;
    if (x->next) x->next->previous = x;
    server->exchanges = x;
    pthread_mutex_unlock(&server->lock);
    wait_for_client(x, server->options.limits.body_s);
    x->stage = HTTP_RUNNING; /* so that a refusal is an answer */
    if (mq__http_admit(server, x)) {
        if (has_large_body(x))
            mq__exchange_refuse(x, 413, "request_too_large", "the body is too large");
        else
            x->stage = HTTP_READING;
    }
    if (x->stage == HTTP_READING) return MHD_YES;
    wait_for_client(x, 0);
    return mq__exchange_send(x); /* without reading a body: the connection closes after it */
}

static bool inflate_body(mq_exchange *x)
{
    const char *encoding = mq__exchange_header(x, "Content-Encoding");
    bool too_large = false;
    if (!encoding || strcasecmp(encoding, "identity") == 0) return true;
    if (strcasecmp(encoding, "gzip") == 0) {
        const size_t most = x->server->options.limits.body_bytes;
        if (mq__inflate(x->body.data ? x->body.data : "", x->body.len, most, &x->inflated, &too_large)) return true;
    }
#ifdef MQ_ZLIB
    if (strcasecmp(encoding, "gzip") == 0) {
        mq__exchange_refuse(x, too_large ? 413 : 400, too_large ? "request_too_large" : "bad_encoding",
                            too_large ? "the inflated body is too large" : "the body is no gzip");
        return false;
    }
#endif
    mq__exchange_set_header(x, "Accept-Encoding", "identity");
    mq__exchange_refuse(x, 415, "unsupported_encoding",
                        "bodies are read as they are, or gzip where the server has zlib");
    return false;
}

static void run_handler(mq_exchange *x)
{
    wait_for_client(x, 0);
    x->stage = HTTP_RUNNING;
    if (x->body.failed)
        mq__exchange_refuse(x, 413, "request_too_large", "the body is too large");
    else if (inflate_body(x))
        x->handler(x->server, x);
}

enum MHD_Result mq__http_request(void *context, struct MHD_Connection *connection, const char *path, const char *method,
                                 const char *version, const char *data, size_t *count, void **state)
{
    mq_server *server = context;
    mq_exchange *x = *state;
    (void)version;
    if (!x) return begin_exchange(server, connection, path, method, state);
    if (*count > 0) {
        if (x->body.failed && *count) return MHD_NO; /* it has no length, and goes on beyond the bound */
        (void)mq__buf_append(&x->body, data, *count);
        *count = 0;
        return MHD_YES;
    }
    if (x->stage == HTTP_READING) run_handler(x);
    return mq__exchange_send(x);
}

void mq__http_ended(void *context, struct MHD_Connection *connection, void **state,
                    enum MHD_RequestTerminationCode code)
{
    mq_server *server = context;
    mq_exchange *x = *state;
    (void)connection;
    if (!x) return;
    *state = NULL;
    pthread_mutex_lock(&x->hook_lock);
    const mq_exchange_hooks hooks = x->hooks;
    const bool hooked = x->hooked;
    x->hooked = false;
    pthread_mutex_unlock(&x->hook_lock);
    if (hooked && hooks.gone) hooks.gone(hooks.context, code == MHD_REQUEST_TERMINATED_COMPLETED_OK);
    pthread_mutex_lock(&server->lock);
    if (x->previous)
        x->previous->next = x->next;
    else
        server->exchanges = x->next;
    if (x->next) x->next->previous = x->previous;
    if (x->socket) {
        x->socket->since = mq__http_now();
        x->socket->allowed = IDLE_SECONDS;
    }
    pthread_mutex_unlock(&server->lock);
    mq__exchange_free(x);
}

/* ---- connections */

static uint32_t hash_address(const struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info((struct MHD_Connection *)(uintptr_t)connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    uint32_t hash = 2166136261u;
    const unsigned char *bytes = NULL;
    size_t count = 0;
    if (info && info->client_addr && info->client_addr->sa_family == AF_INET) {
        bytes = (const unsigned char *)&((const struct sockaddr_in *)(const void *)info->client_addr)->sin_addr;
        count = 4;
    } else if (info && info->client_addr && info->client_addr->sa_family == AF_INET6) {
        bytes = (const unsigned char *)&((const struct sockaddr_in6 *)(const void *)info->client_addr)->sin6_addr;
        count = 8; /* a household has a /64 */
    }
    for (size_t i = 0; i < count; i++) {
        hash = (hash ^ bytes[i]) * 16777619u;
    }
    return hash;
}

static void add_connection(mq_server *server, struct MHD_Connection *connection, void **state)
{
    const union MHD_ConnectionInfo *fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    http_connection *c = fd ? mq__alloc_zero(1, sizeof *c) : NULL;
    *state = c;
    if (!c) return;
    *c = (http_connection){.server = server,
                           .fd = fd->connect_fd,
                           .since = mq__http_now(),
                           .allowed = server->options.limits.header_s,
                           .address = hash_address(connection)};
    uint32_t same = 0;
    pthread_mutex_lock(&server->lock);
    c->id = ++server->accepted;
    for (const http_connection *other = server->connections; other; other = other->next) {
        same += other->address == c->address;
    }
    c->next = server->connections;
    if (c->next) c->next->previous = c;
    server->connections = c;
    if (same >= server->options.limits.per_address) (void)shutdown(c->fd, SHUT_RDWR);
    pthread_mutex_unlock(&server->lock);
}

static void remove_connection(mq_server *server, http_connection *c)
{
    if (!c) return;
    pthread_mutex_lock(&server->lock);
    if (c->previous)
        c->previous->next = c->next;
    else
        server->connections = c->next;
    if (c->next) c->next->previous = c->previous;
    pthread_mutex_unlock(&server->lock);
    mq__free(c);
}

void mq__http_connection(void *context, struct MHD_Connection *connection, void **state,
                         enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        add_connection(context, connection, state);
    else
        remove_connection(context, *state);
}

static int hex_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* In place, as libmicrohttpd's own; %00 is noted, because a path would end there. */
size_t mq__http_unescape(void *context, struct MHD_Connection *connection, char *text)
{
    char *to = text;
    (void)context;
    for (const char *from = text; *from; from++) {
        const int high = *from == '%' ? hex_value(from[1]) : -1, low = high >= 0 ? hex_value(from[2]) : -1;
        if (low < 0) {
            *to++ = *from;
            continue;
        }
        if (high == 0 && low == 0) {
            const union MHD_ConnectionInfo *info =
                MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
            if (info && info->socket_context) ((http_connection *)info->socket_context)->bad_path = true;
        }
        *to++ = (char)(16 * high + low);
        from += 2;
    }
    *to = '\0';
    return (size_t)(to - text);
}
