/* An HTTP exchange: a request whose body is complete, and its answer, at once or as a stream. Here APIs meet HTTP: they never see the
 * HTTP library, and http.c knows no API. */
#ifndef MQ_EXCHANGE_H
#define MQ_EXCHANGE_H

#include "mixquant.h"

typedef struct mq_exchange mq_exchange;

/* ---- the request; all valid while the exchange is held */

const char *mq__exchange_method(const mq_exchange *x);
const char *mq__exchange_path(const mq_exchange *x);                     /* without the query */
const char *mq__exchange_header(const mq_exchange *x, const char *name); /* case-insensitive; NULL: none */
const char *mq__exchange_query(const mq_exchange *x, const char *key);   /* NULL: none */
const char *mq__exchange_body(const mq_exchange *x, size_t *count);      /* inflated; NUL-terminated as a convenience */
uint64_t mq__exchange_owner(const mq_exchange *x);                       /* of the API key; 0: no keys are in use */
/* This machine's address, as its client sees it; false: there is none (a Unix socket). */
bool mq__exchange_local_address(const mq_exchange *x, char *host, size_t size);
const char *mq__exchange_id(const mq_exchange *x); /* request id, 24 letters and digits; also in x-request-id */

/* ---- the answer; from any thread, of one exchange one call at a time */

/* A header of the answer, before it begins. */
void mq__exchange_set_header(mq_exchange *x, const char *name, const char *value);
/* The whole answer. */
void mq__exchange_reply(mq_exchange *x, unsigned status, const char *type, const char *bytes, size_t count);
/* Or a stream: its headers go out at once, then what is written, then its end. */
void mq__exchange_begin(mq_exchange *x, unsigned status, const char *type);
/* Appends a copy. False: the client is gone, or reads so slowly that it was cut: cancel what makes the answer. */
bool mq__exchange_write(mq_exchange *x, const char *bytes, size_t count);
void mq__exchange_end(mq_exchange *x);

/* ---- while it lasts: set by the handler before it returns when the answer comes later */

typedef struct mq_exchange_hooks {
    void (*tick)(void *context); /* four times a second, by the watcher's thread, until `gone` */
    /* Exactly once, last: the client left, or has the whole answer. `complete` says which. Nothing is read from the exchange
     * afterwards unless it is held. */
    void (*gone)(void *context, bool complete);
    void *context;
} mq_exchange_hooks;

void mq__exchange_set_hooks(mq_exchange *x, const mq_exchange_hooks *hooks);

#endif
