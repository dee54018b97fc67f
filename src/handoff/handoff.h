/* The insides of a hand-off's two sides. D: peers.c knows who prefills, client.c is a connection to one of them, arrival.c KV on its way
 * here. P: serve.c accepts connections, served.c is one, sender.c KV on its way out, lease.c prompts that wait to be fetched.
 *
 * Locks, in the order in which they may be held together: peers, client, arrival; server, served. A job's own lock (src/sched) may be
 * held above `served`: never the other way round. Nobody calls the scheduler, or sends, with one of these held. */
#ifndef MQ_HANDOFF_H
#define MQ_HANDOFF_H

#include "base/pool.h"
#include "base/wait.h"
#include "engine/engine.h"
#include "handoff/frame.h"
#include "mixquant_handoff.h"
#include "sched/transfer.h"

#include <pthread.h>
#include <stdatomic.h>

/* How long things may take, and how often they happen. All in seconds but for counts. */
typedef struct mq_handoff_tuning {
    double connect;                     /* D: until a connection is greeted */
    double greet;                       /* P: until it has a greeting */
    double send;                        /* a peer that takes nothing for so long is gone */
    double state;                       /* between two STATEs */
    double idle, orphan;                /* D closes a connection without hand-offs after `idle`, P one after `orphan` */
    double recycle;                     /* D: a connection older than that, or with */
    uint32_t recycle_handoffs;          /* so many hand-offs, is replaced */
    double suspect_first, suspect_most; /* D: a peer that failed is left alone so long; doubles up to `most` */
    double late;                        /* a hand-off may take so long, and */
    double late_times;                  /* so many times what is expected, but */
    double late_most;                   /* no longer than that */
    double done;                        /* P: waits for DONE after COMMIT */
    double health, health_wait;         /* D asks each peer so often; an answer takes so long at most */
    double watch;                       /* between two looks at all deadlines */
    uint32_t served, peers, leases;     /* at most: connections, peers beside those of the list, prompts kept */
} mq_handoff_tuning;

typedef struct mq_peers mq_peers;
typedef struct mq_server_side mq_server_side;
typedef struct mq_lease mq_lease;

#define MQ_LEASE_STRAYS 8

struct mq_handoff {
    mq_handoff_options options; /* strings owned, in the fields below; peers and networks are in mq_peers */
    char *transport, *host;
    mq_handoff_tuning tuning; /* tests change it before mq_handoff_serve */
    mq_engine *engine;        /* layout, context and vocabulary only, which stay */
    mq_fingerprint print;
    uint8_t instance[16];
    mq_auth_key key;
    struct mq_kv_source source;
    mq_peers *peers;        /* NULL: nobody prefills for this process */
    mq_server_side *server; /* NULL: it does not listen */

    /* Connects to a peer's link; tests have their own. */
    mq_status (*dial)(void *context, const char *transport, const char *host, uint16_t port, double seconds,
                      mq_link **link, mq_error *error);
    void *dial_context;
    /* Submits a prompt for prefilling; a fuzz target has its own. */
    mq_status (*submit)(void *context, const mq_request *request, mq_job **job, mq_error *error);
    void (*release)(mq_job *job);
    void *submit_context;

    _Atomic(mq_scheduler *) scheduler; /* NULL: not serving yet, or stopped */
    atomic_bool stopping;
    pthread_t watch;
    bool watches;

    pthread_mutex_t lock; /* what follows */
    pthread_cond_t stopped;
    mq_handoff_stats stats;
    mq_lease *leases;
    mq_job *strays[MQ_LEASE_STRAYS]; /* NULL, or jobs that got no lease: the watch lets them go */
    double log_since;                /* lines since then, and lines that were left out */
    uint32_t log_lines, log_left_out;
};

/* ---- handoff.c */

void mq__handoff_log(mq_handoff *h, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Adds to a counter of the statistics. */
void mq__handoff_count(mq_handoff *h, uint64_t *counter, uint64_t more);
void mq__handoff_wake(mq_handoff *h);                         /* the scheduler */
void mq__hex(const uint8_t *bytes, size_t count, char *text); /* [2 * count + 1] */
/* How long a hand-off may take of which so many seconds are expected. */
double mq__handoff_patience(const mq_handoff *h, double expected);

/* ---- wire.c */

/* A connection's messages. Without a link (fuzz targets) what is sent goes nowhere. */
typedef struct mq_wire {
    mq_link *link;
    mq_frame_way in, out; /* `in`: the link's thread; `out`: the thread that sends */
} mq_wire;

mq_status mq__wire_send(mq_wire *wire, const mq_frame *frame, double seconds, mq_error *error);
mq_status mq__wire_flush(mq_wire *wire, double seconds, mq_error *error);

/* "weights", "plan", ...: the first part that differs; NULL: none. */
const char *mq__print_differs(const mq_fingerprint *a, const mq_fingerprint *b);
/* A greeting of this process in `role`, with a new nonce. */
void mq__greeting_make(mq_handoff *h, char role, mq_hello *hello);
/* Whether a peer's greeting fits: role, fingerprint. MQ_UNSUPPORTED says which part differs. */
mq_status mq__greeting_check(const mq_handoff *h, const mq_hello *hello, char role, mq_error *error);

/* ---- lease.c */

/* The job of a lease for exactly these tokens [count], and its sequence; NULL: there is none. It is the caller's then. */
mq_job *mq__lease_take(mq_handoff *h, const char *id, size_t bytes, const int32_t *tokens, uint32_t count,
                       const mq_sequence **sequence);
void mq__leases_watch(mq_handoff *h, double now);
void mq__leases_end(mq_handoff *h);

#endif
