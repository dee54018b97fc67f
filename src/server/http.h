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
    uint64_t id;      /* unlike its descriptor's, never another's */
    double since;     /* when it began to wait for headers, or for the rest of a body */
    double allowed;   /* seconds that this may take; 0: it does not wait for its client */
    bool bad_path;    /* %00 in it */
    uint32_t address; /* hash of the client's address, for per_address */
} http_connection;

typedef enum http_stage { HTTP_READING, HTTP_RUNNING, HTTP_REPLY, HTTP_STREAM, HTTP_SENT } http_stage;

struct mq_exchange {
    struct mq_exchange *next, *previous; /* of the server's list; under its lock */
    struct mq_server *server;
    struct MHD_Connection *connection;
    http_connection *socket;
    char method[16], id[25];
    char *path;
    mq_buf body, inflated;
    uint64_t owner;
    mq_handler *handler;

    pthread_mutex_t lock; /* what follows, up to the blank line */
    http_stage stage;
    unsigned status;
    char type[64];
    mq_buf headers; /* "Name: value\n" each */
    mq_buf out;     /* what is to be sent; out_from: bytes of it that were */
    size_t out_from;
    bool suspended, ended, cut; /* cut: the client is gone or too slow; the connection is to be closed */
    bool parked_once;           /* a handler has returned without an answer */

    pthread_mutex_t hook_lock; /* held while a hook runs */
    mq_exchange_hooks hooks;
    bool hooked;
};

typedef struct http_route {
    const char *path;    /* "/v1/models/" ends with a slash: a prefix */
    const char *methods; /* "GET HEAD", "POST" */
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
    uint16_t port;
    atomic_bool is_ready, is_draining, is_stopping;
    mq_served_model model;
    mq_backend backend;
    mq_counts counts;

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

double mq__http_now(void); /* seconds */

/* ---- http_audit.c: why a request's headers are refused: an HTTP status, and the reason; 0: they are not. */
unsigned mq__http_audit(struct MHD_Connection *connection, const mq_server *server, const char **reason);

/* ---- http_inflate.c: false: not gzip, or more than `most` bytes (*too_large). */
bool mq__inflate(const char *bytes, size_t count, size_t most, mq_buf *out, bool *too_large);

/* ---- http_routes.c */
extern const http_route mq__http_routes[];
extern const size_t mq__http_route_count;
/* Before the body: whoever is refused here does not send it. True: the exchange has its handler. */
bool mq__http_admit(mq_server *server, mq_exchange *x);

/* ---- http.c: what libmicrohttpd calls */
enum MHD_Result mq__http_request(void *server, struct MHD_Connection *connection, const char *path, const char *method,
                                 const char *version, const char *data, size_t *count, void **state);
void mq__http_ended(void *server, struct MHD_Connection *connection, void **state,
                    enum MHD_RequestTerminationCode code);
void mq__http_connection(void *server, struct MHD_Connection *connection, void **state,
                         enum MHD_ConnectionNotificationCode code);
size_t mq__http_unescape(void *server, struct MHD_Connection *connection, char *text);

/* ---- server_listen.c */
mq_status mq__server_listen(mq_server *server, mq_error *error);

/* ---- http_watch.c */
void *mq__http_watch(void *server);
/* Closes an exchange's connection soon: its client is gone, or the server stops. */
void mq__exchange_cut(mq_exchange *x);

/* ---- exchange.c */
mq_exchange *mq__exchange_new(mq_server *server, struct MHD_Connection *connection, const char *method,
                              const char *path);
void mq__exchange_free(mq_exchange *x);
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
