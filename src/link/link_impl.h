/* What a kind of link brings, and what link.c does for all of them: the thread that receives, counters, and that a link ends once.
 *
 * A kind carries bytes in order (`read`, `write`; link.c makes messages of them, on a thread a link), or messages (`start`, `send`,
 * `flush`, threads of its own). Its links begin with an mq_link, its listeners with an mq_link_listener. */
#ifndef MQ_LINK_IMPL_H
#define MQ_LINK_IMPL_H

#include "link/link.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>

#define MQ_LINK_WIRE_HEAD (8 + MQ_LINK_HEAD) /* of a kind that carries bytes: length of the body, u64; the head */
#define MQ_LINK_WHERE     64                 /* of a peer's address as text */

/* What a peer has begun it goes on with: each step of a message comes within so many seconds, and so does the first message of a link
 * that was accepted. Between two messages a link may be idle. */
#define MQ_LINK_PATIENCE 10
#define MQ_LINK_STEP     (256 << 10)

typedef struct mq_link_kind {
    const char *name;
    mq_status (*connect)(const char *host, uint16_t port, double seconds, mq_link **link, mq_error *error);
    /* Listens; calls listener->accepted on a thread of its own as soon as it likes. `listener` has been filled but for its port. */
    mq_status (*listen)(const char *host, uint16_t port, const mq_link_listener *like, mq_link_listener **listener,
                        mq_error *error);
    void (*listener_close)(mq_link_listener *listener); /* stops, waits for `accepted` to return, frees */

    /* Kinds that carry bytes. read: exactly so many; *late is set where none came within MQ_LINK_PATIENCE. write: all of the parts
     * (which it may change), MQ_IO when no byte moved for so many seconds. */
    mq_status (*read)(mq_link *link, void *to, size_t bytes, bool *late, mq_error *error);
    mq_status (*write)(mq_link *link, struct iovec *parts, int count, double seconds, mq_error *error);

    /* Kinds that carry messages; all NULL in the others. They call mq__link_deliver and mq__link_over. */
    mq_status (*start)(mq_link *link, mq_error *error);
    mq_status (*send)(mq_link *link, const uint8_t *head, const void *body, size_t bytes, double seconds,
                      mq_error *error);
    mq_status (*flush)(mq_link *link, double seconds, mq_error *error);

    /* Any thread, also while another reads or writes: both fail soon. The peer sees the end after what was sent. May be called again. */
    void (*stop)(mq_link *link);
    /* After stop, when its reading thread is gone: no event comes after the return. Ends with mq__link_fini. */
    void (*free)(mq_link *link);
} mq_link_kind;

struct mq_link {
    const mq_link_kind *kind;
    char where[MQ_LINK_WHERE]; /* the peer, for messages */
    mq_link_events events;     /* from mq__link_start on */
    size_t most;
    atomic_ullong sent, received;
    atomic_bool stopped; /* nothing is sent any more; set before kind->stop */
    atomic_bool asked;   /* nothing is read any more: mq__link_stop */
    atomic_bool closing; /* no event is called any more */
    atomic_bool over;    /* `ended` was called, or would have been */
    pthread_mutex_t lock;
    mq_error reason;      /* under lock: the first failure, or MQ_OK */
    bool is_started;      /* of kinds that carry bytes: `thread` runs, or has run */
    bool is_accepted;     /* the peer connected, so it speaks first */
    pthread_t thread;     /* reads */
    uint8_t *body;        /* of the thread: where a body is put together */
    size_t body_capacity; /* the same */
    atomic_int *crowd;    /* NULL, or how many hold it: a listener, and links that it accepted. The last one frees it */
};

struct mq_link_listener {
    const mq_link_kind *kind;
    uint16_t port;
    void (*accepted)(void *context, mq_link *link, const char *from);
    void *context;
};

extern const mq_link_kind mq__link_tcp, mq__link_shm, mq__link_ucx;

/* ---- for kinds */

void mq__link_init(mq_link *link, const mq_link_kind *kind, const char *where); /* the common fields of a zeroed link */
void mq__link_fini(mq_link *link);                                              /* frees what they own, and the link */
void mq__link_leave(atomic_int *crowd);

/* A whole message came: counts it and calls `arrived`. Not MQ_OK: the link is to end, and *error says why. */
mq_status mq__link_deliver(mq_link *link, const uint8_t *head, const void *body, size_t bytes, mq_error *error);
/* No message comes any more: calls `ended`, the first time. Not under a lock that stop or send take. */
void mq__link_over(mq_link *link, const mq_error *error);
/* Notes why it ends, if it is the first to know, and stops it. */
void mq__link_give_up(mq_link *link, const mq_error *error);

#endif
