/* The server's life. */
#include "server/http.h"

#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define HTTP_THREADS 4 /* at least */
/* libmicrohttpd takes 128 events of a thread at once, and where it gets as many it sleeps for more before it looks at them. So a thread
 * has fewer: connections, the listener, the word to resume. */
#define THREAD_CONNECTIONS 120
#define LAST_WORDS         100 /* centiseconds in which a server that stops sends what is complete */
#if MHD_VERSION >= 0x00097701
#define STRICT MHD_OPTION_CLIENT_DISCIPLINE_LVL, 2 /* no lines that end with LF alone */
#else
#define STRICT MHD_OPTION_STRICT_FOR_CLIENT, 1 /* http_audit.c has the rest */
#endif

/* ---- what handlers ask */

bool mq__server_is_private(const mq_server *server)
{
    return server->is_loopback || server->unix_socket;
}

const mq_served_model *mq__server_model(const mq_server *server)
{
    return atomic_load(&server->is_ready) ? &server->model : NULL;
}

const mq_backend *mq__server_backend(const mq_server *server)
{
    return &server->backend;
}

const mq_handoff_backend *mq__server_handoff(const mq_server *server)
{
    return atomic_load(&server->is_ready) ? server->backend.handoff : NULL;
}

const mq_server_limits *mq__server_limits(const mq_server *server)
{
    return &server->options.limits;
}

const mq_server_options *mq__server_options(const mq_server *server)
{
    return &server->options;
}

struct mq_counts *mq__server_counts(mq_server *server)
{
    return &server->counts;
}

void mq__server_log(mq_server *server, const char *format, ...)
{
    char line[1024];
    if (!server->options.log) return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    for (char *c = line; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = ' ';
    }
    server->options.log(server->options.log_context, line);
}

static void ignore_message(void *context, const char *format, va_list arguments)
{
    (void)context;
    (void)format;
    (void)arguments;
}

/* ---- life */

static void set_default(size_t *value, size_t standard)
{
    if (*value == 0) *value = standard;
}

static void default_limits(mq_server_limits *l)
{
    set_default(&l->body_bytes, (size_t)32 << 20);
    set_default(&l->header_bytes, (size_t)64 << 10);
    set_default(&l->unread_bytes, (size_t)4 << 20);
    set_default(&l->bodies_bytes, (size_t)256 << 20);
    if (l->bodies_bytes < l->body_bytes) l->bodies_bytes = l->body_bytes;
    if (l->json_depth == 0) l->json_depth = 64;
    if (l->messages == 0) l->messages = 10000;
    if (l->tools == 0) l->tools = 512;
    if (l->n == 0) l->n = 16;
    if (l->stops == 0) l->stops = 16;
    if (l->connections == 0) l->connections = 512;
    if (l->per_address == 0) l->per_address = l->connections;
    if (!(l->header_s > 0)) l->header_s = 10;
    if (!(l->body_s > 0)) l->body_s = 60;
    if (!(l->idle_s > 0)) l->idle_s = 75;
    if (!(l->write_s > 0)) l->write_s = 60;
}

static char *copy_option(const char *text, bool *failed)
{
    char *copy = text ? mq__strdup(text) : NULL;
    *failed = *failed || (text && !copy);
    return copy;
}

static mq_status copy_server_options(mq_server *server, const mq_server_options *options, mq_error *error)
{
    bool failed = false;
    server->options = *options;
    default_limits(&server->options.limits);
    server->host = copy_option(options->host ? options->host : "127.0.0.1", &failed);
    server->unix_socket = copy_option(options->unix_socket, &failed);
    server->key_file = copy_option(options->key_file, &failed);
    server->allowed_hosts = mq__alloc_zero(options->allowed_host_count, sizeof(char *));
    failed = failed || !server->allowed_hosts;
    for (size_t i = 0; !failed && i < options->allowed_host_count; i++) {
        server->allowed_hosts[i] = copy_option(options->allowed_hosts[i], &failed);
    }
    if (failed) return mq__fail(error, MQ_NO_MEMORY, "server: options: expected memory, got none");
    size_t bytes;
    mq_status status = MQ_OK;
    if (options->tls_cert) status = mq__file_read(options->tls_cert, 1 << 20, &server->tls_cert, &bytes, error);
    if (status == MQ_OK && options->tls_key) {
        status = mq__file_read(options->tls_key, 1 << 20, &server->tls_key, &bytes, error);
    }
    if (status == MQ_OK && !options->tls_cert != !options->tls_key) {
        return mq__fail(error, MQ_USAGE, "server: TLS: expected a certificate and its key, got one of them");
    }
    if (status == MQ_OK && options->tls_cert && MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES) {
        return mq__fail(error, MQ_UNSUPPORTED, "server: TLS: expected a libmicrohttpd with GnuTLS, got one without");
    }
    return status;
}

static unsigned http_threads(uint32_t connections)
{
    const unsigned threads = (connections + THREAD_CONNECTIONS - 1) / THREAD_CONNECTIONS;
    return threads < HTTP_THREADS ? HTTP_THREADS : threads;
}

static mq_status start_daemon(mq_server *server, mq_error *error)
{
    const mq_server_limits *l = &server->options.limits;
    const unsigned threads = http_threads(l->connections);
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    struct MHD_OptionItem more[] = {{MHD_OPTION_END, 0, NULL}, {MHD_OPTION_END, 0, NULL}, {MHD_OPTION_END, 0, NULL}};
    if (server->tls_cert) {
        flags |= MHD_USE_TLS;
        more[0] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_CERT, 0, server->tls_cert};
        more[1] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_KEY, 0, server->tls_key};
    }
    server->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, mq__http_request, server, MHD_OPTION_EXTERNAL_LOGGER, ignore_message, NULL,
        MHD_OPTION_LISTEN_SOCKET, server->listener, MHD_OPTION_THREAD_POOL_SIZE, threads, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)(l->connections < threads ? threads : l->connections), MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        l->header_bytes + 32768, STRICT, MHD_OPTION_NOTIFY_COMPLETED, mq__http_ended, server,
        MHD_OPTION_NOTIFY_CONNECTION, mq__http_connection, server, MHD_OPTION_UNESCAPE_CALLBACK, mq__http_unescape,
        server, MHD_OPTION_URI_LOG_CALLBACK, mq__http_uri, server, MHD_OPTION_ARRAY, more, MHD_OPTION_END);
    if (!server->daemon && server->tls_cert) {
        return mq__fail(error, MQ_FORMAT, "server: TLS: expected a PEM certificate and its key, got others");
    }
    if (!server->daemon) return mq__fail(error, MQ_IO, "server: expected HTTP threads to start, got a failure");
    server->watching = pthread_create(&server->watcher, NULL, mq__http_watch, server) == 0;
    return server->watching ? MQ_OK : mq__fail(error, MQ_NO_MEMORY, "server: expected a thread, got none");
}

mq_status mq__server_start_with(const mq_server_options *options, const http_route *routes, size_t count,
                                mq_server **out, mq_error *error)
{
    *out = NULL;
    mq_server *server = mq__alloc_zero(1, sizeof *server);
    if (!server) return mq__fail(error, MQ_NO_MEMORY, "server: expected memory, got none");
    pthread_mutex_init(&server->lock, NULL);
    server->listener = -1;
    server->routes = routes;
    server->route_count = count;
    mq_status status = copy_server_options(server, options, error);
    if (status == MQ_OK && server->key_file) status = mq__keys_read(server->key_file, &server->keys, error);
    if (status == MQ_OK) status = mq__server_listen(server, error);
    if (status == MQ_OK) status = start_daemon(server, error);
    if (status == MQ_OK)
        *out = server;
    else
        mq__server_stop(server);
    return status;
}

mq_status mq__server_start(const mq_server_options *options, mq_server **server, mq_error *error)
{
    return mq__server_start_with(options, mq__http_routes, mq__http_route_count, server, error);
}

void mq__server_ready(mq_server *server, const mq_served_model *model, const mq_backend *backend)
{
    server->model = *model;
    server->model.needs = mq__template_needs(model->text);
    server->backend = *backend;
    atomic_store(&server->is_ready, true);
}

uint16_t mq__server_port(const mq_server *server)
{
    return server->port;
}

mq_status mq__server_reload_keys(mq_server *server, mq_error *error)
{
    api_keys *keys;
    if (!server->key_file) return MQ_OK;
    const mq_status status = mq__keys_read(server->key_file, &keys, error);
    if (status != MQ_OK) return status;
    pthread_mutex_lock(&server->lock);
    api_keys *old = server->keys;
    server->keys = keys;
    pthread_mutex_unlock(&server->lock);
    mq__keys_free(old);
    return MQ_OK;
}

void mq__server_draining(mq_server *server)
{
    atomic_store(&server->is_draining, true);
}

bool mq__server_is_idle(mq_server *server)
{
    pthread_mutex_lock(&server->lock);
    const bool idle = server->exchanges == NULL;
    pthread_mutex_unlock(&server->lock);
    return idle;
}

static bool has_last_words(mq_server *server)
{
    bool has = false;
    pthread_mutex_lock(&server->lock);
    for (mq_exchange *x = server->exchanges; x && !has; x = x->next) {
        pthread_mutex_lock(&x->lock);
        has = !x->cut && (x->stage == HTTP_REPLY || x->ended);
        pthread_mutex_unlock(&x->lock);
    }
    pthread_mutex_unlock(&server->lock);
    return has;
}

/* libmicrohttpd must not stop with suspended connections. */
static void resume_all(mq_server *server)
{
    pthread_mutex_lock(&server->lock);
    for (mq_exchange *x = server->exchanges; x; x = x->next) {
        mq__exchange_cut(x);
    }
    pthread_mutex_unlock(&server->lock);
}

void mq__server_stop(mq_server *server)
{
    if (!server) return;
    for (int i = 0; i < LAST_WORDS && has_last_words(server); i++) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    atomic_store(&server->is_stopping, true);
    if (server->watching) pthread_join(server->watcher, NULL);
    if (server->daemon) {
        resume_all(server);
        MHD_stop_daemon(server->daemon); /* closes the listener */
    } else if (server->listener >= 0) {
        close(server->listener);
    }
    if (server->has_socket_file) (void)unlink(server->unix_socket);
    mq__keys_free(server->keys);
    for (size_t i = 0; server->allowed_hosts && i < server->options.allowed_host_count; i++) {
        mq__free(server->allowed_hosts[i]);
    }
    mq__free(server->allowed_hosts);
    mq__free(server->host);
    mq__free(server->unix_socket);
    mq__free(server->key_file);
    mq__free(server->tls_cert);
    mq__free(server->tls_key);
    pthread_mutex_destroy(&server->lock);
    mq__free(server);
}
