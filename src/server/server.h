/* The server: one listening socket, the APIs over it, and what answers them. */
#ifndef MQ_SERVER_H
#define MQ_SERVER_H

#include "mixquant_handoff.h"
#include "server/exchange.h"

#include <jansson.h>

/* What a worker has besides where prefill and decode run on different machines: mixquant_handoff.h, or a script in tests. Same meanings
 * as mq_handoff_describe, mq_handoff_allows, mq_handoff_lease, mq_handoff_describe_stats. */
typedef struct mq_handoff_backend {
    const char *role;      /* "both", "prefill", "decode" */
    bool receives;         /* prompts may be prefilled elsewhere: answers say where theirs was */
    bool fails;            /* a transfer that failed fails its request */
    const char *link_host; /* where it listens for decode workers; NULL: it does not */
    uint16_t link_port;
    double lease_seconds; /* for which KV that somebody shall fetch stays */
    char *(*describe)(void *self);
    bool (*allows)(void *self, const char *peer);
    void (*lease)(void *self, mq_job *job, double seconds, char id[33]);
    void (*count)(void *self, mq_handoff_stats *stats);
    void *self;
} mq_handoff_backend;

/* What runs requests: a scheduler, or a script in tests. Same meanings as mq_scheduler_submit, mq_job_free, mq_scheduler_describe. */
typedef struct mq_backend {
    mq_status (*submit)(void *self, const mq_request *request, mq_job **job, mq_error *error);
    void (*release)(void *self, mq_job *job);
    void (*describe)(void *self, mq_scheduler_stats *stats);
    void *self;
    const mq_handoff_backend *handoff; /* NULL: none; borrowed until mq__server_stop */
} mq_backend;

/* Bounds of one request; 0 stands for the default in brackets. */
typedef struct mq_server_limits {
    size_t body_bytes;       /* [32 MiB], also after inflating */
    size_t bodies_bytes;     /* [256 MiB] of all requests in hand */
    size_t header_bytes;     /* [64 KiB] of all headers; 128 of them at most */
    uint32_t json_depth;     /* [64] */
    uint32_t messages;       /* [10000] */
    uint32_t tools;          /* [512] */
    uint32_t max_tokens;     /* [context] */
    uint32_t n;              /* [16] */
    uint32_t stops;          /* [16] of at most 1024 bytes */
    uint32_t connections;    /* [512] */
    uint32_t per_address;    /* [connections] */
    double header_s, body_s; /* [10], [60] for a client to send them */
    double idle_s, write_s;  /* [75] between two requests; [60] in which a client reads nothing of what waits for it */
    double request_s;        /* [none] for a whole answer */
    size_t unread_bytes;     /* [4 MiB] of a stream that its client has not read: then it is cut */
} mq_server_limits;

/* What a chat template refuses or leaves out (answering_rescue.c). */
typedef struct mq_template_needs {
    unsigned rescues[2]; /* bits of the forms in which messages are said otherwise: without tools, with tools */
    bool hides_tools;
} mq_template_needs;

/* What the loaded model is, for the APIs. */
typedef struct mq_served_model {
    const char *name; /* as clients see it: the folder's, or --alias */
    const mq_text *text;
    mq_engine_info info;
    mq_answer_style style;
    mq_template_needs needs; /* filled in by mq__server_ready */
    mq_vocabulary *vocabulary;
    int64_t created; /* seconds since 1970: of config.json */
} mq_served_model;

typedef struct mq_server_options {
    const char *host;        /* "127.0.0.1" */
    uint16_t port;           /* 0: any free one */
    const char *unix_socket; /* NULL, or its path instead of host and port */
    const char *key_file;    /* NULL, or API keys, a line each: "KEY" or "blake2b:HEX" */
    const char *tls_cert, *tls_key;
    bool insecure;                    /* a non-loopback address without keys is allowed */
    bool json_keepalive;              /* blanks before a JSON answer that takes long */
    bool strict_model;                /* a request for another model is 404 */
    const char *const *allowed_hosts; /* besides loopback names and `host`: names in the Host header */
    size_t allowed_host_count;
    mq_server_limits limits;
    void (*log)(void *context, const char *line);
    void *log_context;
} mq_server_options;

typedef struct mq_server mq_server;

/* Listens; until mq__server_ready everything but /health is 503. Options are copied. */
mq_status mq__server_start(const mq_server_options *options, mq_server **server, mq_error *error);
void mq__server_ready(mq_server *server, const mq_served_model *model, const mq_backend *backend);
uint16_t mq__server_port(const mq_server *server);
mq_status mq__server_reload_keys(mq_server *server, mq_error *error);
void mq__server_draining(mq_server *server); /* /health is 503, connections close after their answers */
bool mq__server_is_idle(mq_server *server);  /* no request is in hand */
void mq__server_stop(mq_server *server);     /* waits for handlers, closes connections, frees */

/* ---- for the handlers */

mq_template_needs mq__template_needs(const mq_text *text); /* renders some short conversations; NULL: needs nothing */

/* NULL: still loading. No handler is called before mq__server_ready. */
const mq_served_model *mq__server_model(const mq_server *server);
bool mq__server_is_private(const mq_server *server); /* only this machine reaches it */
const mq_backend *mq__server_backend(const mq_server *server);
const mq_handoff_backend *mq__server_handoff(const mq_server *server); /* NULL: none, or still loading */
const mq_server_limits *mq__server_limits(const mq_server *server);    /* defaults filled in */
const mq_server_options *mq__server_options(const mq_server *server);
void mq__server_log(mq_server *server, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Counters of answers (metrics.h): a member of the server, zeroed when it starts. */
struct mq_counts *mq__server_counts(mq_server *server);

/* A handler answers the exchange, or sets hooks and answers later. Handlers run on HTTP threads and never wait for the engine. */
typedef void mq_handler(mq_server *server, mq_exchange *x);

/* api_chat.c, api_completions.c, api_responses.c, api_messages.c */
mq_handler mq__api_chat, mq__api_completions, mq__api_responses, mq__api_messages;
/* api_count.c: /v1/messages/count_tokens, /v1/responses/input_tokens; api_text.c: the others */
mq_handler mq__api_count_messages, mq__api_count_responses, mq__api_tokenize, mq__api_detokenize,
    mq__api_apply_template;
mq_handler mq__api_models;  /* api_models.c */
mq_handler mq__api_metrics; /* metrics.c */
mq_handler mq__api_link;    /* api_link.c: what workers ask each other */

#endif
