/* The decode side: who prefills for this process. */
#ifndef MQ_PEERS_H
#define MQ_PEERS_H

#include "handoff/client.h"
#include "handoff/remember.h"

/* What a peer's HTTP server says of it (GET /internal/link). */
typedef struct mq_peer_answer {
    mq_client_address address; /* without the host */
    char instance[33];
    uint64_t unread;
    uint32_t context; /* tokens; 0: not known */
    double rate;
} mq_peer_answer;

struct mq_peer {
    mq_peer *next;
    char name[MQ_CLIENT_NAME]; /* as it was given */
    mq_peer_name at;
    bool is_listed;
    bool is_healthy;              /* listed: its latest answer was good; others: it has not failed */
    mq_peer_answer answer;        /* the latest; address.port 0: none */
    double answered;              /* when it came */
    char trouble[480];            /* why it is not healthy, or what failed last */
    unsigned failures;            /* in a row */
    double away_until;            /* it is not asked before */
    double link_rate, round_trip; /* 0: not measured */
    double linked;                /* when link_rate was */
    mq_remembered memory;
    mq_client *client; /* NULL, or the connection that takes hand-offs */
    uint32_t clients;  /* connections, closing ones included */
    double used;
};

struct mq_peers {
    mq_network *networks;
    size_t network_count;
    pthread_t health;
    bool asks; /* the thread runs */

    pthread_mutex_t lock; /* what follows */
    pthread_cond_t changed;
    mq_peer *first;
    uint32_t count, unlisted;
    mq_client *clients; /* held */
    bool is_stopping;
};

/* ---- peers.c */

mq_status mq__peers_new(mq_handoff *h, const mq_handoff_options *options, mq_error *error);
mq_status mq__peers_start(mq_handoff *h, mq_error *error);
void mq__peers_watch(mq_handoff *h, double now);
void mq__peers_stop(mq_handoff *h);
void mq__peers_free(mq_handoff *h);

typedef struct mq_peers_summary {
    uint32_t peers, healthy, receiving; /* of the list, both; hand-offs under way */
} mq_peers_summary;
void mq__peers_describe(mq_handoff *h, mq_peers_summary *summary);

/* Under the lock: the peer of that name, if requests may name it; it is made where it is not there yet. NULL: *error says why. */
mq_peer *mq__peers_named(mq_handoff *h, const char *name, mq_error *error);
/* Under the lock: a connection of it that takes hand-offs. */
mq_client *mq__peer_client(mq_handoff *h, mq_peer *peer, mq_error *error);

/* It failed: it is left alone for a while. `busy`: it only has too much to do. */
void mq__peer_failed(mq_handoff *h, mq_peer *peer, const mq_error *error, bool busy);
/* It refused the greeting: for as long as a peer may be left alone. */
void mq__peer_refused(mq_handoff *h, mq_peer *peer, const mq_error *error);
void mq__peer_greeted(mq_handoff *h, mq_peer *peer, const mq_hello *hello, double round_trip);
/* What the link gave a hand-off that waited for it. */
void mq__peer_linked(mq_handoff *h, mq_peer *peer, double rate);
void mq__peer_served(mq_handoff *h, mq_peer *peer, const mq_kv_arrival *a);
void mq__peer_answered(mq_handoff *h, mq_peer *peer, const mq_peer_answer *answer, const mq_error *error);

/* ---- source.c */

void mq__source_fill(mq_handoff *h);

/* ---- health.c */

/* Asks a peer's HTTP server, now. */
mq_status mq__health_ask(const mq_handoff *h, const mq_peer_name *at, mq_peer_answer *answer, mq_error *error);
/* The answer's text. */
mq_status mq__health_read(const mq_handoff *h, const char *text, size_t bytes, mq_peer_answer *answer, mq_error *error);
void *mq__health_run(void *context); /* the thread that asks all listed peers, again and again */

#endif
