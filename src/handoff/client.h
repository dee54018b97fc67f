/* The decode side: a connection to a prefill worker. Its own thread connects, greets, sends PREFILL, DONE and CANCEL; the link's thread
 * takes what comes. It ends by itself when it is idle or old and has no hand-offs, and when it breaks. */
#ifndef MQ_CLIENT_H
#define MQ_CLIENT_H

#include "handoff/arrival.h"
#include "handoff/network.h"

#define MQ_CLIENT_NAME      (MQ_HOST_MOST + 16)
#define MQ_CLIENT_TRANSPORT 16

typedef struct mq_peer mq_peer;

/* Where a link is. */
typedef struct mq_client_address {
    char transport[MQ_CLIENT_TRANSPORT];
    char host[MQ_HOST_MOST];
    uint16_t port; /* 0: not known yet; the peer's HTTP server says it */
} mq_client_address;

struct mq_client {
    mq_client *next; /* of mq_peers */
    atomic_uint holders;
    mq_handoff *h;
    mq_peer *peer; /* lives as long as the connection is in the list of mq_peers */
    char name[MQ_CLIENT_NAME];
    mq_client_address address;
    mq_wire wire;
    mq_hello own;
    pthread_t thread;
    atomic_bool is_over; /* the thread is about to return */

    pthread_mutex_t lock; /* what follows */
    pthread_cond_t changed;
    uint64_t news, seen; /* signals so far, and when the thread last looked */
    bool is_open;        /* greeted by both */
    bool is_closing;     /* it takes no new hand-offs, and ends with the last one */
    bool is_broken;
    mq_error reason;
    mq_hello theirs;
    mq_kv_arrival *table[MQ_FRAME_HANDOFFS]; /* request - 1 */
    uint32_t count;
    uint64_t epoch; /* of the latest hand-off that was asked for */
    double since;   /* of the connection */
    double used;    /* when its last hand-off ended */
    double heard;
    double asked; /* when HELLO went out */
};

mq_status mq__client_new(mq_handoff *h, mq_peer *peer, const char *name, const mq_client_address *address,
                         mq_client **client, mq_error *error);
void mq__client_hold(mq_client *c);
void mq__client_release(mq_client *c);
const char *mq__client_name(const mq_client *c);

/* Whether it takes hand-offs. One that is too old does not, from then on. */
bool mq__client_takes(mq_client *c, double now);
/* MQ_LIMIT: it has as many as it may have; or why it has ended. */
mq_status mq__client_add(mq_client *c, mq_kv_arrival *a, mq_error *error);
/* Tokens that wait for this peer on this connection. */
uint64_t mq__client_waits(mq_client *c);
void mq__client_news(mq_client *c); /* its thread looks again */
/* Deadlines of its hand-offs. */
void mq__client_watch(mq_client *c, double now);
void mq__client_stop(mq_client *c); /* from any thread: it is to end */

/* A message came. False: the connection ends. */
bool mq__client_arrived(void *context, const uint8_t *head, const void *body, size_t bytes);
void mq__client_ended(void *context, const mq_error *error);
/* Sends a message. False: there is nothing to do before *due. */
bool mq__client_step(mq_client *c, double *due);
void mq__client_end(mq_client *c); /* by its thread: ends the link, fails its hand-offs */
void *mq__client_run(void *context);

#endif
