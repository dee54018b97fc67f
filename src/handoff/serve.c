/* The listener of the prefill side, and its connections. */
#include "handoff/serve.h"

#include "base/error.h"
#include "base/mem.h"

#define PROMPT_MOST ((size_t)1 << 20) /* tokens */

struct mq_server_side {
    mq_link_listener *listener; /* NULL: not yet, or not any more */
    size_t most;                /* bytes of a body */

    pthread_mutex_t lock; /* what follows */
    mq_served *first;
    uint32_t count;
    bool is_stopping;
};

/* Bytes of a body: of any prompt of the model that a decode worker may have. One that is too long for this worker's context is refused
 * (mq__sender_submit), which leaves the connection to the others; a body that is too long ends it. Memory for bodies is used as they come,
 * one a connection at a time. */
static size_t most_asked(const mq_engine *e)
{
    const size_t all = e->weights->config.max_positions, tokens = all < PROMPT_MOST ? all : PROMPT_MOST;
    return 4 * ((tokens > e->context ? tokens : e->context) + 1) + MQ_FRAME_LEASE + MQ_HELLO_BODY;
}

mq_status mq__server_side_new(mq_handoff *h, mq_error *error)
{
    mq_server_side *side = mq__alloc_zero(1, sizeof *side);
    if (!side) return mq__fail(error, MQ_NO_MEMORY, "hand-off: expected memory, got none");
    pthread_mutex_init(&side->lock, NULL);
    side->most = most_asked(h->engine);
    h->server = side;
    return MQ_OK;
}

mq_status mq__server_side_listen(mq_handoff *h, mq_error *error)
{
    return mq__link_listen(h->transport, h->host, h->options.port, mq__server_side_accept, h, &h->server->listener,
                           error);
}

uint16_t mq__server_side_port(const mq_handoff *h)
{
    return h->server->listener ? mq__link_port(h->server->listener) : 0;
}

/* Under the lock. */
static mq_status start_served(mq_handoff *h, mq_served *c, mq_error *error)
{
    mq_server_side *side = h->server;
    const mq_link_events events = {.arrived = mq__served_arrived, .ended = mq__served_ended, .context = c};
    if (side->is_stopping || side->count >= h->tuning.served) {
        return mq__fail(error, MQ_LIMIT, "hand-off: %s: expected at most %u connections, got another", c->from,
                        h->tuning.served);
    }
    const mq_status status = mq__link_start(c->wire.link, &events, side->most, error);
    if (status != MQ_OK) return status;
    if (pthread_create(&c->thread, NULL, mq__served_run, c) != 0) {
        return mq__fail(error, MQ_NO_MEMORY, "hand-off: %s: expected a thread, got none", c->from);
    }
    c->next = side->first;
    side->first = c;
    side->count++;
    return MQ_OK;
}

void mq__server_side_accept(void *context, mq_link *link, const char *from)
{
    mq_handoff *h = context;
    mq_served *c;
    mq_error error = {0};
    mq_status status = mq__served_new(h, from, &c, &error);
    if (!c) {
        mq__link_close(link);
        return;
    }
    c->wire.link = link;
    pthread_mutex_lock(&h->server->lock);
    status = start_served(h, c, &error);
    pthread_mutex_unlock(&h->server->lock);
    if (status == MQ_OK) return;
    mq__handoff_log(h, "%s", error.text);
    mq__served_end(c);
    mq__served_free(c);
}

/* Takes a connection out whose thread has ended, or any. NULL: there is none. */
static mq_served *take_ended(mq_server_side *side, bool any)
{
    mq_served *c = NULL;
    pthread_mutex_lock(&side->lock);
    for (mq_served **at = &side->first; *at; at = &(*at)->next) {
        if (!any && !atomic_load(&(*at)->is_over)) continue;
        c = *at;
        *at = c->next;
        side->count--;
        break;
    }
    pthread_mutex_unlock(&side->lock);
    return c;
}

static void reap_served(mq_server_side *side, bool any)
{
    for (mq_served *c = take_ended(side, any); c; c = take_ended(side, any)) {
        pthread_join(c->thread, NULL);
        mq__served_free(c);
    }
}

void mq__server_side_watch(mq_handoff *h)
{
    reap_served(h->server, false);
}

void mq__server_side_stop(mq_handoff *h)
{
    mq_server_side *side = h->server;
    pthread_mutex_lock(&side->lock);
    side->is_stopping = true;
    for (mq_served *c = side->first; c; c = c->next) {
        mq__served_stop(c);
    }
    pthread_mutex_unlock(&side->lock);
    if (side->listener) mq__link_listener_close(side->listener);
    side->listener = NULL;
    reap_served(side, true);
}

void mq__server_side_free(mq_handoff *h)
{
    if (!h->server) return;
    pthread_mutex_destroy(&h->server->lock);
    mq__free(h->server);
    h->server = NULL;
}
