/* A request's way through libmicrohttpd: headers, body, handler, answer, end; and connections as they come and go. */
#include "server/http.h"

#include "base/ascii.h"
#include "base/mem.h"
#include "base/pool.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

/* ---- a request's way */

static void wait_for_client(mq_exchange *x, double seconds)
{
    if (!x->socket) return;
    pthread_mutex_lock(&x->server->lock);
    x->socket->since = mq__seconds();
    x->socket->allowed = seconds;
    pthread_mutex_unlock(&x->server->lock);
}

/* Before or while the body comes. */
static void refuse_early(mq_exchange *x, unsigned status, const char *code, const char *message)
{
    mq__exchange_set_stage(x, HTTP_RUNNING); /* so that a refusal is an answer */
    mq__exchange_refuse(x, status, code, message);
}

static void refuse_large(mq_exchange *x)
{
    refuse_early(x, 413, "request_too_large", "the body is larger than this server takes");
}

/* As announced; the audit has seen that it is a number. */
static uint64_t body_bytes(const mq_exchange *x)
{
    const char *length = mq__exchange_header(x, "Content-Length");
    return !length ? 0 : strlen(length) > 18 ? UINT64_MAX : strtoull(length, NULL, 10);
}

/* Most clients send their whole body before they look for an answer. Who is refused is therefore read on, within bounds, and
 * answered then: cut while it sends, it would see a broken connection only. */
static uint64_t most_dropped(const mq_exchange *x)
{
    return 2 * (uint64_t)x->server->options.limits.body_bytes;
}

static void add_exchange(mq_server *server, mq_exchange *x)
{
    pthread_mutex_lock(&server->lock);
    x->next = server->exchanges;
    if (x->next) x->next->previous = x;
    server->exchanges = x;
    pthread_mutex_unlock(&server->lock);
}

/* A target may be a whole URI (RFC 9112, 3.2.2); its host says nothing to us. */
static const char *path_of(const char *target)
{
    if (strncasecmp(target, "http://", 7) != 0) return target;
    const char *path = strchr(target + 7, '/');
    return path ? path : "/";
}

static enum MHD_Result begin_exchange(mq_server *server, struct MHD_Connection *connection, const http_line *line,
                                      void **state)
{
    mq_exchange *x = mq__exchange_new(server, connection, line->method, path_of(line->path));
    if (!x) return MHD_NO;
    *state = x;
    x->body.max = server->options.limits.body_bytes;
    add_exchange(server, x);
    wait_for_client(x, server->options.limits.body_s);
    mq__exchange_set_stage(x, HTTP_RUNNING);
    http_entry entry = mq__http_admit(server, x, line);
    if (entry == HTTP_ENTERS && body_bytes(x) > x->body.max) {
        refuse_large(x);
        entry = HTTP_REFUSED;
    }
    if (entry == HTTP_ENTERS) {
        mq__exchange_set_stage(x, HTTP_READING);
        return MHD_YES;
    }
    const bool waits = mq__exchange_header(x, "Expect") != NULL; /* for a word, before it sends a body */
    if (entry == HTTP_REFUSED && !waits && body_bytes(x) <= most_dropped(x)) return MHD_YES;
    wait_for_client(x, 0);
    return mq__exchange_send(x); /* without reading a body: the connection closes after it */
}

/* Bodies of all requests together are bounded. */
static bool hold_bytes(mq_exchange *x, size_t count)
{
    mq_server *server = x->server;
    if (atomic_fetch_add(&server->held, count) + count > server->options.limits.bodies_bytes) {
        atomic_fetch_sub(&server->held, count);
        return false;
    }
    x->held += count;
    return true;
}

static void refuse_for_memory(mq_exchange *x)
{
    refuse_early(x, 503, "overloaded", "the server has no memory for the body now");
}

/* False: the connection is to be closed. */
static bool take_body(mq_exchange *x, const char *bytes, size_t count)
{
    if (x->stage == HTTP_READING) {
        if (x->body.len + count > x->body.max)
            refuse_large(x);
        else if (!hold_bytes(x, count) || !mq__buf_append(&x->body, bytes, count))
            refuse_for_memory(x);
        else
            return true;
        mq__buf_free(&x->body);
    }
    x->dropped += count;
    return x->dropped <= most_dropped(x);
}

static bool inflate_body(mq_exchange *x)
{
    const char *encoding = mq__exchange_header(x, "Content-Encoding");
    if (!encoding || strcasecmp(encoding, "identity") == 0) return true;
#ifdef MQ_ZLIB
    if (strcasecmp(encoding, "gzip") == 0) {
        mq_buf text = {0};
        bool too_large = false;
        const bool inflated =
            mq__inflate(x->body.data ? x->body.data : "", x->body.len, x->body.max, &text, &too_large);
        mq__buf_free(&x->body);
        x->body = text;
        if (inflated && hold_bytes(x, text.len)) return true;
        if (too_large)
            refuse_large(x);
        else if (inflated || text.failed)
            refuse_for_memory(x);
        else
            mq__exchange_refuse(x, 400, "bad_encoding", "the body is no gzip");
        return false;
    }
    mq__exchange_set_header(x, "Accept-Encoding", "gzip, identity");
#else
    mq__exchange_set_header(x, "Accept-Encoding", "identity");
#endif
    mq__exchange_refuse(x, 415, "unsupported_encoding", "the body has an encoding that this server does not read");
    return false;
}

static void run_handler(mq_exchange *x)
{
    mq__exchange_set_stage(x, HTTP_RUNNING);
    if (inflate_body(x)) x->handler(x->server, x);
}

/* Its request is complete: it has an answer, or gets one. */
static enum MHD_Result answer_exchange(mq_exchange *x)
{
    if (!x->complete) {
        x->complete = true;
        wait_for_client(x, 0);
        if (x->stage == HTTP_READING) run_handler(x);
    }
    return mq__exchange_send(x);
}

enum MHD_Result mq__http_request(void *context, struct MHD_Connection *connection, const char *path, const char *method,
                                 const char *version, const char *data, size_t *count, void **state)
{
    mq_exchange *x = *state;
    if (!x) return begin_exchange(context, connection, &(http_line){method, path, version}, state);
    if (*count == 0) return answer_exchange(x);
    if (!take_body(x, data, *count)) return MHD_NO;
    *count = 0;
    return MHD_YES;
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
        x->socket->since = mq__seconds();
        x->socket->allowed = server->options.limits.idle_s;
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
    return count == 0 ? 0 : hash ? hash : 1;
}

/* A client whose machine or network has gone is found after two minutes, also where nothing is sent to it. */
static void keep_alive(int fd)
{
    const int on = 1, idle = 60, between = 15, probes = 4;
    if (setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) != 0) return;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &between, sizeof between);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

static void add_connection(mq_server *server, struct MHD_Connection *connection, void **state)
{
    const union MHD_ConnectionInfo *fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    http_connection *c = fd ? mq__alloc_zero(1, sizeof *c) : NULL;
    *state = c;
    if (!c) return;
    *c = (http_connection){.server = server,
                           .fd = fd->connect_fd,
                           .since = mq__seconds(),
                           .allowed = server->options.limits.header_s,
                           .address = hash_address(connection)};
    uint32_t same = 0;
    if (c->address) keep_alive(c->fd);
    pthread_mutex_lock(&server->lock);
    c->id = ++server->accepted;
    for (const http_connection *other = server->connections; other && c->address; other = other->next) {
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

static http_connection *connection_facts(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

/* The request line has come: from here on its headers have their own time. Returns the state that the request begins with. */
void *mq__http_uri(void *context, const char *uri, struct MHD_Connection *connection)
{
    mq_server *server = context;
    http_connection *c = connection_facts(connection);
    if (!c) return NULL;
    c->uri_bytes = uri ? strlen(uri) : 0;
    pthread_mutex_lock(&server->lock);
    if (c->requests++ > 0) { /* the first one's began when the connection did */
        c->since = mq__seconds();
        c->allowed = server->options.limits.header_s;
    }
    pthread_mutex_unlock(&server->lock);
    return NULL;
}

/* In place, as libmicrohttpd's own; %00 is noted, because a path would end there. */
size_t mq__http_unescape(void *context, struct MHD_Connection *connection, char *text)
{
    char *to = text;
    (void)context;
    for (const char *from = text; *from; from++) {
        const int high = *from == '%' ? mq__hex_value(from[1]) : -1, low = high >= 0 ? mq__hex_value(from[2]) : -1;
        if (low < 0) {
            *to++ = *from;
            continue;
        }
        if (high == 0 && low == 0) {
            http_connection *c = connection_facts(connection);
            if (c) c->bad_path = true;
        }
        *to++ = (char)(16 * high + low);
        from += 2;
    }
    *to = '\0';
    return (size_t)(to - text);
}
