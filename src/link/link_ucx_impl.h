/* Links over UCX: active messages between two workers, of which each belongs to one link and to the thread that moves it.
 *
 * The wire. Peers meet over a TCP connection, which stays: its end is the peer's end. All numbers are little-endian. Who listens sends
 * 8 bytes, "MQUCX\1\0\0", and a nonce of 16. Then each sends a greeting, who connects first:
 *
 *      0   "MQUCX\1\0\0"
 *      8   u8[16]  a nonce; of who listens the same
 *     24   u64     token: the peer puts it into each of its messages
 *     32   u32     most bytes of a part
 *     36   u32     UCX's version, major * 65536 + minor
 *     40   u64     its worker: uid
 *     48   u16     port
 *     50   u16     bytes of its address: 4, 16; 0: this host's
 *     52   u8[16]  address
 *     68   u32     bytes that follow: 0; a whole address of a UCX worker where the environment chooses interfaces or transports
 *     72   u8[32]  BLAKE2b-256 of the other's nonce, the greeting with zeros here, and what follows; the key is the shared secret,
 *                  or 32 zeros; before all that stands 'C' from who connects, 'L' from who listens
 *    104   what follows
 *
 * From then on they send active messages of id 1. The header of one:
 *
 *      0   u64     token
 *      8   u32     kind (mq_ucx_note)
 *     12   u32     zero
 *     16   u64[4]  numbers of the kind's own
 *     48   u8[112] head, of parts only
 *
 * A part is so many bytes of a message's body: number of the message, bytes of its body, its position (link_ucx_inbox.h), offset of these
 * bytes in the body; the parts of a message follow each other. Who receives says with ROOM what it has freed, the size of its ring, and most bytes of a body. BYE is
 * the last message of a side that ends the link, and is answered. */
#ifndef MQ_LINK_UCX_IMPL_H
#define MQ_LINK_UCX_IMPL_H

#include "link/link_impl.h"
#include "link/link_ucx_address.h"
#include "link/link_ucx_inbox.h"
#include "link/link_ucx_library.h"
#include "link/link_ucx_port.h"

#ifndef MQ_UCX_PART
#define MQ_UCX_PART (1u << 20) /* bytes of a message's part */
#endif
#define MQ_UCX_NUMBERS 4
#define MQ_UCX_BARE    (16 + 8 * MQ_UCX_NUMBERS) /* bytes of a note */
#define MQ_UCX_HEADER  (MQ_UCX_BARE + MQ_LINK_HEAD)
#define MQ_UCX_FLIGHT  4u  /* parts that UCX has at a time */
#define MQ_UCX_QUEUE   32u /* messages that wait to be sent */

typedef enum mq_ucx_note {
    MQ_UCX_READY, /* the first message of each side */
    MQ_UCX_SEEN,  /* READY came: so both ways work */
    MQ_UCX_ROOM,  /* bytes freed, size of the ring, most bytes of a body */
    MQ_UCX_BYE,
    MQ_UCX_BYE_SEEN,
    MQ_UCX_NOTES,
    MQ_UCX_A_PART = MQ_UCX_NOTES /* number of the message, bytes of its body, position, offset */
} mq_ucx_note;

typedef struct mq_ucx_message {
    const uint8_t *body; /* borrowed */
    size_t bytes;
    uint8_t head[MQ_LINK_HEAD];
    unsigned pending; /* parts that UCX has */
} mq_ucx_message;

struct mq_ucx_link;

/* A header that UCX has, until the message is sent. */
typedef struct mq_ucx_slot {
    struct mq_ucx_link *owner;
    mq_ucx_message *message; /* NULL: a note */
    bool is_busy;
    uint8_t header[MQ_UCX_HEADER];
} mq_ucx_slot;

/* What only the moving thread touches. */
typedef struct mq_ucx_worker {
    ucp_context_h context;
    ucp_worker_h worker;
    ucp_ep_h peer;
    ucp_address_t *address;
    size_t address_bytes;
    mq_ucx_shape shape; /* of the address */
    mq_ucx_place place; /* what it says; port 0: the environment chose, and the address is whatever UCX says */
    int wakes;          /* readable when the worker has something to do */
    mq_ucx_port port;
    uint64_t token, peer_token;
    mq_error failure; /* the first; of callbacks, too */
    bool is_up;
    mq_ucx_slot parts[MQ_UCX_FLIGHT], notes[MQ_UCX_NOTES];
    bool wanted[MQ_UCX_NOTES]; /* to be sent */
    bool came[MQ_UCX_NOTES];

    /* What the peer takes. */
    mq_ucx_outbox outbox;
    uint64_t begun, done; /* messages that were given to UCX, and that have gone */
    uint64_t at;          /* bytes of message `begun` that were given to UCX */
    uint64_t position;    /* of it at the peer's */
    bool is_placed;       /* it has one */
    uint64_t moves;       /* changes whenever the peer, or UCX, takes something */
    double moved;         /* when it did so last */

    /* What comes. */
    mq_ucx_inbox inbox;
    uint64_t granted;   /* what the last ROOM said was freed */
    unsigned receiving; /* parts that UCX fetches into the inbox */
    double stirred;     /* when a part came last, or may come at first */
    double stopped;     /* when the link was stopped; 0: it goes on */
    bool has_bid;       /* farewell */
} mq_ucx_worker;

typedef struct mq_ucx_link {
    mq_link link;
    int fd;             /* connection to the peer's process */
    int kick;           /* eventfd: wakes the moving thread */
    bool has_connected; /* this side */
    double deadline;    /* for the link to be up */
    pthread_t mover, deliverer;
    bool has_mover, has_deliverer;

    pthread_mutex_t lock;               /* of all down to `work` */
    pthread_cond_t arrivals;            /* for the deliverer: ready, is_ended */
    pthread_cond_t departures;          /* for senders and who connects: done, moves, is_up, is_ended */
    mq_ucx_message queue[MQ_UCX_QUEUE]; /* [done, queued) modulo; the mover's once they are queued */
    uint64_t queued, done;              /* messages so far */
    uint64_t moves;                     /* the worker's */
    uint64_t ready, freed;              /* positions in the inbox: whole messages end, delivered ones end */
    uint64_t granted;                   /* the worker's */
    mq_ucx_inbox opened;                /* from the start on: the mover's inbox as it was made */
    bool is_up, is_stopping;
    bool is_ended;    /* the mover is done: bodies are not read any more, nothing comes */
    uint64_t signals; /* changes when the mover is to look again */
    bool is_asleep;   /* the mover is about to look at `kick` */

    mq_ucx_worker work;
} mq_ucx_link;

/* ---- link_ucx_worker.c: of the moving thread */

mq_status mq__ucx_worker_open(mq_ucx_link *u, mq_error *error);
mq_status mq__ucx_worker_connect(mq_ucx_link *u, const uint8_t *address, mq_error *error);
/* Gives back everything but the inbox. Bodies are not read any more. */
void mq__ucx_worker_close(mq_ucx_link *u);
/* Sends a header and bytes; what becomes of it, the slot says. */
void mq__ucx_post(mq_ucx_link *u, mq_ucx_slot *slot, size_t header_bytes, const void *bytes, size_t count);
/* The first failure counts: "link: <where>: <text>". */
void mq__ucx_fail(mq_ucx_link *u, mq_status status, const char *text);

/* ---- link_ucx_greeting.c */

/* Opens the worker, exchanges greetings, and connects the worker to the peer's. */
mq_status mq__ucx_greet(mq_ucx_link *u, mq_error *error);

/* ---- link_ucx_take.c */

/* A message came. NULL: its bytes are not wanted. */
uint8_t *mq__ucx_take(mq_ucx_link *u, const uint8_t *header, size_t header_bytes, size_t bytes, mq_ucx_record **record);
/* So many bytes of a part are where they belong. */
void mq__ucx_fill(mq_ucx_link *u, mq_ucx_record *record, size_t bytes);

/* ---- link_ucx_move.c */

void *mq__ucx_move(void *link);       /* the moving thread */
void mq__ucx_wake(mq_ucx_link *u);    /* under lock: it is to look again */
void mq__ucx_sent(mq_ucx_slot *slot); /* what was posted has gone */

#endif
