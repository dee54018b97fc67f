/* HTTP by libmicrohttpd: connections, exchanges, and the watcher that sees who is slow or gone. Internal to src/server; server.c has the
 * life cycle and the routes, http_audit.c looks at headers, http_watch.c at connections. */
#ifndef MQ_HTTP_H
#define MQ_HTTP_H

#include "base/buf.h"
#include "server/metrics.h"
#include "server/server.h"

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

/* An accepted connection. */
typedef struct http_connection {
    struct http_connection *next, *previous; /* of the server's list; under its lock */
    struct mq_server *server;
    int fd;
    uint64_t id;       /* unlike its descriptor's, never another's */
    double since;      /* when it began to wait for headers, or for the rest of a body */
    double allowed;    /* seconds that this may take; 0: it does not wait for its client */
    double left_at;    /* `since`, when its client was seen to have hung up; 0: it has not */
    double moved;      /* when what the client has to read was something else, or nothing */
    int unsent;        /* bytes of that */
    uint32_t address;  /* hash of the client's address, for per_address; 0: none */
    bool bad_path;     /* %00 in it */
    size_t uri_bytes;  /* of the request, as it came */
    uint64_t requests; /* whose first line has come */
} http_connection;

/* READING: the body comes. RUNNING: the handler has the request. REPLY, STREAM: what the answer is, whole or not. */
typedef enum http_stage { HTTP_READING, HTTP_RUNNING, HTTP_REPLY, HTTP_STREAM } http_stage;

struct mq_exchange {
    struct mq_exchange *next, *previous; /* of the server's list; under its lock */
    struct mq_server *server;
    struct MHD_Connection *connection;
    http_connection *socket;
    char method[16], id[25];
    char *path;
    mq_buf body;
    size_t held;    /* bytes of it that count for limits.bodies_bytes */
    size_t dropped; /* bytes that came after the request was refused */
    bool complete;  /* the request is */
    uint64_t owner;
    mq_handler *handler;
    uint64_t ticked; /* the watcher's latest tick for it; under the server's lock */

    pthread_mutex_t lock; /* what follows, up to the blank line */
    http_stage stage;
    bool queued; /* libmicrohttpd has the answer */
    unsigned status;
    char type[64];
    mq_buf headers; /* "Name: value\n" each */
    mq_buf out;     /* what is to be sent; out_from: bytes of it that were */
    size_t out_from;
    bool suspended, ended, cut; /* cut: the client is gone or too slow; the connection is to be closed */

    pthread_mutex_t hook_lock; /* held while a hook runs */
    mq_exchange_hooks hooks;
    bool hooked;
};

typedef struct http_route {
    const char *path;    /* "/v1/models/" ends with a slash: a prefix */
    const char *methods; /* "GET, HEAD", "POST" */
    mq_handler *handler;
    bool open;  /* needs no key */
    bool early; /* works while the model is loading */
} http_route;

typedef struct api_keys api_keys;

struct mq_server {
    mq_server_options options; /* strings owned */
    char *host, *unix_socket, *key_file, *tls_cert, *tls_key;
    char **allowed_hosts;
    const http_route *routes;
    size_t route_count;
    struct MHD_Daemon *daemon;
    int listener;
    bool has_socket_file; /* it has made unix_socket */
    bool is_loopback;     /* only this machine reaches it */
    uint16_t port;
    atomic_bool is_ready, is_draining, is_stopping;
    mq_served_model model;
    mq_backend backend;
    mq_counts counts;
    atomic_size_t held; /* bytes of all bodies */

    pthread_mutex_t lock; /* lists and keys */
    http_connection *connections;
    struct mq_exchange *exchanges;
    api_keys *keys; /* NULL: none are in use */

    pthread_t watcher;
    bool watching;
    uint64_t accepted; /* connections so far; under the lock */
};

/* As mq__server_start, with routes of one's own (tests). */
mq_status mq__server_start_with(const mq_server_options *options, const http_route *routes, size_t count,
                                mq_server **server, mq_error *error);

/* ---- http_audit.c */

/* A request line as libmicrohttpd hands it on: pointers into what came. */
typedef struct http_line {
    const char *method, *path, *version;
} http_line;

/* Why a request's headers are refused: an HTTP status, and the reason; 0: they are not. */
unsigned mq__http_audit(const mq_exchange *x, const http_line *line, const char **reason);

/* ---- http_inflate.c: false: not gzip, or more than `most` bytes (*too_large). */
bool mq__inflate(const char *bytes, size_t count, size_t most, mq_buf *out, bool *too_large);

/* ---- http_routes.c */
extern const http_route mq__http_routes[];
extern const size_t mq__http_route_count;
/* UNSOUND: refused, and where the request ends is not to be trusted. */
typedef enum http_entry { HTTP_ENTERS, HTTP_REFUSED, HTTP_UNSOUND } http_entry;
/* Before the body. HTTP_ENTERS: the exchange has its handler; else it has its answer. */
http_entry mq__http_admit(mq_server *server, mq_exchange *x, const http_line *line);

/* ---- http.c: what libmicrohttpd calls */
enum MHD_Result mq__http_request(void *server, struct MHD_Connection *connection, const char *path, const char *method,
                                 const char *version, const char *data, size_t *count, void **state);
void mq__http_ended(void *server, struct MHD_Connection *connection, void **state,
                    enum MHD_RequestTerminationCode code);
void mq__http_connection(void *server, struct MHD_Connection *connection, void **state,
                         enum MHD_ConnectionNotificationCode code);
size_t mq__http_unescape(void *server, struct MHD_Connection *connection, char *text);
void *mq__http_uri(void *server, const char *uri, struct MHD_Connection *connection);

/* ---- server_listen.c */
mq_status mq__server_listen(mq_server *server, mq_error *error);

/* ---- http_watch.c */
void *mq__http_watch(void *server);

/* ---- exchange.c */
mq_exchange *mq__exchange_new(mq_server *server, struct MHD_Connection *connection, const char *method,
                              const char *path);
void mq__exchange_free(mq_exchange *x);
void mq__exchange_set_stage(mq_exchange *x, http_stage stage);
/* Closes its connection soon: the client is gone, or the server stops. Under the server's lock. */
void mq__exchange_cut(mq_exchange *x);
/* An error of the HTTP layer itself, in the form of the path's API. */
void mq__exchange_refuse(mq_exchange *x, unsigned status, const char *code, const char *message);
/* Queues what is ready on the connection; suspends it when nothing is. */
enum MHD_Result mq__exchange_send(mq_exchange *x);

/* ---- server_keys.c: keys, hashed; owners */
mq_status mq__keys_read(const char *path, api_keys **keys, mq_error *error);
void mq__keys_free(api_keys *keys);
/* The owner of a key, never 0; 0: it is none of them. Takes as long for any. */
uint64_t mq__keys_owner(const api_keys *keys, const char *key, size_t count);

/* ---- page.c */
mq_handler mq__page;

#endif
