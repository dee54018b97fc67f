/* A link: messages between two processes, in order and each at most once. A message is a head of fixed size and a body. What they mean is
 * for others (src/handoff); a link trusts nothing that comes and checks nothing but lengths.
 *
 * One thread of the link's own calls `arrived` and `ended`. Sending is for one thread at a time, and may go on beside it. */
#ifndef MQ_LINK_H
#define MQ_LINK_H

#include "mixquant.h"

#define MQ_LINK_HEAD 112 /* bytes of a message's head */

typedef struct mq_link mq_link;
typedef struct mq_link_listener mq_link_listener;

typedef struct mq_link_events {
    /* A whole message; the body is the link's, until the return. False: no more are wanted, the link ends. */
    bool (*arrived)(void *context, const uint8_t *head, const void *body, size_t bytes);
    /* Once, last: no message will come any more. MQ_IO: the peer is gone; MQ_FORMAT: it sent what it must not; MQ_CANCELLED:
     * `arrived` wanted no more, or mq__link_stop. Not after mq__link_close. */
    void (*ended)(void *context, const mq_error *error);
    void *context;
} mq_link_events;

/* "tcp"; "shm": between processes of one host; "ucx" where it is built in. NULL: there is no such kind. */
const char *mq__link_kinds(void); /* "tcp, shm, ucx": for messages */
bool mq__link_has_kind(const char *kind);

/* Connects within so many seconds. Nothing arrives before mq__link_start. host: a name, an IPv4 or IPv6 address without brackets. */
mq_status mq__link_connect(const char *kind, const char *host, uint16_t port, double seconds, mq_link **link,
                           mq_error *error);
/* Two ends within this process. */
mq_status mq__link_pair(mq_link **a, mq_link **b, mq_error *error);

/* Listens. `accepted` owns the link that it is given; it is called on a thread of the listener's own and starts it, or closes it. `from` is
 * the peer's address as text, "shm" for a process of this host. Who connects speaks first: a started link of tcp or shm ends when no
 * message comes within 10 seconds. port 0: any free one. */
mq_status mq__link_listen(const char *kind, const char *host, uint16_t port,
                          void (*accepted)(void *context, mq_link *link, const char *from), void *context,
                          mq_link_listener **listener, mq_error *error);
uint16_t mq__link_port(const mq_link_listener *listener);
void mq__link_listener_close(mq_link_listener *listener); /* `accepted` is not called any more. Not from `accepted` */

/* For kinds whose library believes whatever a peer says (ucx): peers prove to each other that they know this, before it hears of them.
 * Of links that begin from now on; NULL: none, the network is trusted. */
#define MQ_LINK_SECRET 32
void mq__link_set_secret(const uint8_t secret[MQ_LINK_SECRET]);

/* Messages come from now on. One with a body of more than `most` bytes ends the link. */
mq_status mq__link_start(mq_link *link, const mq_link_events *events, size_t most, mq_error *error);

/* Sends a message. The body is borrowed until mq__link_flush returns (or mq__link_close). Blocks while the peer takes nothing;
 * MQ_IO when it takes nothing for so many seconds, or is gone: then the link is of no more use. */
mq_status mq__link_send(mq_link *link, const uint8_t *head, const void *body, size_t bytes, double seconds,
                        mq_error *error);
/* Returns when bodies that were sent are no longer needed. */
mq_status mq__link_flush(mq_link *link, double seconds, mq_error *error);

/* From any thread: a send that blocks fails soon, `ended` comes soon. The link is still to be closed. */
void mq__link_stop(mq_link *link);
/* Frees it; what was flushed before arrives. Not from its own events; no send may be under way. No event comes after the return. */
void mq__link_close(mq_link *link);

uint64_t mq__link_sent(const mq_link *link);     /* bytes of bodies so far */
uint64_t mq__link_received(const mq_link *link); /* the same */

#endif
