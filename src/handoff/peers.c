#include "handoff/peers.h"

#include "base/error.h"
#include "base/mem.h"

#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

#define LINK_MEASURE (256 << 10) /* bytes from which a transfer says how fast the link is */
#define SMOOTH_LINK  0.3

/* ---- life */

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;

static void start_curl(void)
{
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* Under the lock, or before others see it. */
static mq_peer *new_peer(mq_handoff *h, const char *name, const mq_peer_name *at, bool is_listed)
{
    mq_peer *peer = mq__alloc_zero(1, sizeof *peer);
    if (!peer) return NULL;
    snprintf(peer->name, sizeof peer->name, "%s", name);
    peer->at = *at;
    peer->is_listed = is_listed;
    peer->is_healthy = !is_listed || at->is_link;
    if (at->is_link) {
        snprintf(peer->answer.address.transport, sizeof peer->answer.address.transport, "%s", h->transport);
        peer->answer.address.port = at->port;
    }
    peer->next = h->peers->first;
    h->peers->first = peer;
    h->peers->count++;
    h->peers->unlisted += !is_listed;
    return peer;
}

static mq_status read_peers(mq_handoff *h, const mq_handoff_options *o, mq_error *error)
{
    for (size_t i = o->peer_count; i-- > 0;) { /* each goes to the front */
        mq_peer_name at;
        const mq_status status = mq__peer_name_read(o->peers[i], &at, error);
        if (status != MQ_OK) return status;
        if (!new_peer(h, o->peers[i], &at, true)) {
            return mq__fail(error, MQ_NO_MEMORY, "hand-off: peers: expected memory, got none");
        }
    }
    return MQ_OK;
}

static mq_status read_networks(mq_handoff *h, const mq_handoff_options *o, mq_error *error)
{
    mq_peers *p = h->peers;
    p->networks = mq__alloc_zero(o->allowed_count, sizeof *p->networks);
    if (!p->networks) return mq__fail(error, MQ_NO_MEMORY, "hand-off: networks: expected memory, got none");
    for (; p->network_count < o->allowed_count; p->network_count++) {
        const mq_status status = mq__network_read(o->allowed[p->network_count], &p->networks[p->network_count], error);
        if (status != MQ_OK) return status;
    }
    return MQ_OK;
}

mq_status mq__peers_new(mq_handoff *h, const mq_handoff_options *options, mq_error *error)
{
    mq_peers *p = mq__alloc_zero(1, sizeof *p);
    if (!p || !mq__cond_init(&p->changed)) {
        mq__free(p);
        return mq__fail(error, MQ_NO_MEMORY, "hand-off: peers: expected memory, got none");
    }
    (void)pthread_once(&curl_once, start_curl);
    pthread_mutex_init(&p->lock, NULL);
    h->peers = p;
    const mq_status status = read_peers(h, options, error);
    return status == MQ_OK ? read_networks(h, options, error) : status;
}

mq_status mq__peers_start(mq_handoff *h, mq_error *error)
{
    mq_peers *p = h->peers;
    if (p->count == 0) return MQ_OK; /* there is nobody to ask but whom requests name */
    p->asks = pthread_create(&p->health, NULL, mq__health_run, h) == 0;
    return p->asks ? MQ_OK : mq__fail(error, MQ_NO_MEMORY, "hand-off: peers: expected a thread, got none");
}

/* Takes a connection out of the list whose thread has ended, or any. NULL: there is none. */
static mq_client *take_over(mq_peers *p, bool any)
{
    mq_client *c = NULL;
    pthread_mutex_lock(&p->lock);
    for (mq_client **at = &p->clients; *at; at = &(*at)->next) {
        if (!any && !atomic_load(&(*at)->is_over)) continue;
        c = *at;
        *at = c->next;
        break;
    }
    pthread_mutex_unlock(&p->lock);
    return c;
}

static void reap_clients(mq_peers *p, bool any)
{
    for (mq_client *c = take_over(p, any); c; c = take_over(p, any)) {
        pthread_join(c->thread, NULL);
        pthread_mutex_lock(&p->lock);
        c->peer->clients--;
        if (c->peer->client == c) c->peer->client = NULL;
        pthread_mutex_unlock(&p->lock);
        mq__client_release(c);
    }
}

void mq__peers_watch(mq_handoff *h, double now)
{
    mq_peers *p = h->peers;
    mq_client *watched[64]; /* those of a turn */
    size_t count = 0, done = 0;
    do {
        size_t skip = done;
        pthread_mutex_lock(&p->lock);
        count = 0;
        for (mq_client *c = p->clients; c && count < 64; c = c->next) {
            if (skip > 0) {
                skip--;
                continue;
            }
            mq__client_hold(c);
            watched[count++] = c;
        }
        pthread_mutex_unlock(&p->lock);
        for (size_t i = 0; i < count; i++) {
            mq__client_watch(watched[i], now);
            mq__client_release(watched[i]);
        }
        done += count;
    } while (count == 64);
    reap_clients(p, false);
}

void mq__peers_stop(mq_handoff *h)
{
    mq_peers *p = h->peers;
    pthread_mutex_lock(&p->lock);
    p->is_stopping = true;
    pthread_cond_broadcast(&p->changed);
    for (mq_client *c = p->clients; c; c = c->next) {
        mq__client_stop(c);
    }
    pthread_mutex_unlock(&p->lock);
    reap_clients(p, true);
    if (p->asks) pthread_join(p->health, NULL);
    p->asks = false;
}

void mq__peers_free(mq_handoff *h)
{
    mq_peers *p = h->peers;
    if (!p) return;
    while (p->first) {
        mq_peer *peer = p->first;
        p->first = peer->next;
        mq__free(peer);
    }
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
    mq__free(p->networks);
    mq__free(p);
    h->peers = NULL;
}

/* ---- who may be asked; under the lock */

static mq_peer *find_peer(mq_peers *p, const char *name, const mq_peer_name *at)
{
    for (mq_peer *peer = p->first; peer; peer = peer->next) {
        if (strcmp(peer->name, name) == 0) return peer;
        /* the link's address of one of the list */
        if (at->is_link && peer->is_listed && peer->answer.address.port == at->port &&
            strcmp(peer->at.host, at->host) == 0)
            return peer;
    }
    return NULL;
}

static bool is_allowed(const mq_peers *p, const mq_peer_name *at)
{
    for (size_t i = 0; i < p->network_count; i++) {
        if (mq__network_has(&p->networks[i], at->host)) return true;
    }
    return false;
}

/* The one that has not been used for the longest time goes. */
static void forget_unlisted(mq_peers *p)
{
    mq_peer **oldest = NULL;
    for (mq_peer **at = &p->first; *at; at = &(*at)->next) {
        if ((*at)->is_listed || (*at)->clients) continue;
        if (!oldest || (*at)->used < (*oldest)->used) oldest = at;
    }
    if (!oldest) return;
    mq_peer *peer = *oldest;
    *oldest = peer->next;
    mq__free(peer);
    p->count--;
    p->unlisted--;
}

mq_peer *mq__peers_named(mq_handoff *h, const char *name, mq_error *error)
{
    mq_peers *p = h->peers;
    mq_peer_name at;
    if (strlen(name) >= MQ_CLIENT_NAME || mq__peer_name_read(name, &at, error) != MQ_OK) return NULL;
    mq_peer *peer = find_peer(p, name, &at);
    if (!peer && !is_allowed(p, &at)) {
        (void)mq__fail(error, MQ_USAGE, "hand-off: peer: expected one of the list or of an allowed network, got %s",
                       name);
        return NULL;
    }
    if (peer) return peer;
    if (p->unlisted >= h->tuning.peers) forget_unlisted(p);
    peer = p->unlisted < h->tuning.peers ? new_peer(h, name, &at, false) : NULL;
    if (!peer) (void)mq__fail(error, MQ_LIMIT, "hand-off: peer: expected fewer at once, got %s", name);
    return peer;
}

bool mq_handoff_allows(mq_handoff *h, const char *host_port)
{
    mq_peer_name at;
    bool allows = false;
    if (h->peers && mq__peer_name_read(host_port, &at, NULL) == MQ_OK) {
        pthread_mutex_lock(&h->peers->lock);
        allows = find_peer(h->peers, host_port, &at) || is_allowed(h->peers, &at);
        pthread_mutex_unlock(&h->peers->lock);
    }
    if (!allows) mq__handoff_count(h, &h->stats.refused_peers, 1);
    return allows;
}

mq_client *mq__peer_client(mq_handoff *h, mq_peer *peer, mq_error *error)
{
    mq_peers *p = h->peers;
    mq_client_address address = peer->answer.address;
    if (peer->client && mq__client_takes(peer->client, mq__seconds())) return peer->client;
    peer->client = NULL;
    if (p->is_stopping) {
        (void)mq__fail(error, MQ_CANCELLED, "hand-off: expected a worker that runs, got one that stops");
        return NULL;
    }
    snprintf(address.host, sizeof address.host, "%s", peer->at.host);
    mq_client *c;
    if (mq__client_new(h, peer, peer->name, &address, &c, error) != MQ_OK) return NULL;
    if (pthread_create(&c->thread, NULL, mq__client_run, c) != 0) {
        (void)mq__fail(error, MQ_NO_MEMORY, "hand-off: %s: expected a thread, got none", peer->name);
        mq__client_release(c);
        return NULL;
    }
    c->next = p->clients;
    p->clients = c;
    peer->client = c;
    peer->clients++;
    return c;
}

/* ---- what becomes of them */

static void leave_alone(mq_handoff *h, mq_peer *peer, double seconds, const mq_error *error)
{
    peer->away_until = mq__seconds() + seconds;
    snprintf(peer->trouble, sizeof peer->trouble, "%s", error->text);
    (void)h;
}

void mq__peer_failed(mq_handoff *h, mq_peer *peer, const mq_error *error, bool busy)
{
    const mq_handoff_tuning *t = &h->tuning;
    pthread_mutex_lock(&h->peers->lock);
    double seconds = t->suspect_first;
    for (unsigned i = 0; !busy && i < peer->failures && seconds < t->suspect_most; i++) {
        seconds *= 2;
    }
    peer->failures += !busy;
    leave_alone(h, peer, seconds < t->suspect_most ? seconds : t->suspect_most, error);
    pthread_mutex_unlock(&h->peers->lock);
}

void mq__peer_refused(mq_handoff *h, mq_peer *peer, const mq_error *error)
{
    pthread_mutex_lock(&h->peers->lock);
    peer->failures++;
    leave_alone(h, peer, h->tuning.suspect_most, error);
    pthread_mutex_unlock(&h->peers->lock);
}

void mq__peer_greeted(mq_handoff *h, mq_peer *peer, const mq_hello *hello, double round_trip)
{
    char instance[33];
    mq__hex(hello->instance, sizeof hello->instance, instance);
    pthread_mutex_lock(&h->peers->lock);
    peer->round_trip = round_trip;
    if (strcmp(instance, peer->answer.instance) != 0) peer->memory = (mq_remembered){.slot = {0}};
    memcpy(peer->answer.instance, instance, sizeof instance);
    pthread_mutex_unlock(&h->peers->lock);
}

/* Under the peer's lock: the arrival has ended and does not change any more. */
static void measure_link(mq_peer *peer, const mq_arriving_figures *f)
{
    const uint64_t bytes = f->bytes - f->bytes_before;
    const double seconds = f->ended - f->computed;
    if (bytes < LINK_MEASURE || !(seconds > 0)) return;
    const double rate = (double)bytes / seconds;
    peer->link_rate += peer->link_rate > 0 ? SMOOTH_LINK * (rate - peer->link_rate) : rate;
    peer->linked = mq__seconds();
}

void mq__peer_linked(mq_handoff *h, mq_peer *peer, double rate)
{
    pthread_mutex_lock(&h->peers->lock);
    peer->link_rate = rate;
    peer->linked = mq__seconds();
    pthread_mutex_unlock(&h->peers->lock);
}

void mq__peer_served(mq_handoff *h, mq_peer *peer, const mq_kv_arrival *a)
{
    const uint32_t blocks = a->count / MQ_PAGE_TOKENS;
    uint64_t *marks = mq__alloc(blocks * sizeof *marks);
    if (marks) mq__marks(a->owner, a->tokens, a->count, marks);
    pthread_mutex_lock(&h->peers->lock);
    peer->failures = 0;
    peer->away_until = 0;
    peer->trouble[0] = '\0';
    if (a->pays.peer_rate > 0) peer->answer.rate = a->pays.peer_rate;
    if (peer->answered >= a->figures.asked) { /* what waited there then was this prompt, too */
        const uint64_t read = a->count - a->first;
        peer->answer.unread -= read < peer->answer.unread ? read : peer->answer.unread;
    }
    measure_link(peer, &a->figures);
    /* it had less than it was thought to have: its cache has forgotten */
    if (a->figures.ready + MQ_PAGE_TOKENS < a->figures.guess) peer->memory = (mq_remembered){.slot = {0}};
    if (marks) mq__remember(&peer->memory, marks, blocks);
    pthread_mutex_unlock(&h->peers->lock);
    mq__free(marks);
}

void mq__peer_answered(mq_handoff *h, mq_peer *peer, const mq_peer_answer *answer, const mq_error *error)
{
    pthread_mutex_lock(&h->peers->lock);
    const bool was_healthy = peer->is_healthy, first = peer->answer.address.port == 0 && peer->trouble[0] == '\0';
    peer->is_healthy = answer != NULL;
    if (answer) {
        if (strcmp(answer->instance, peer->answer.instance) != 0) { /* another process: it may do better */
            peer->memory = (mq_remembered){.slot = {0}};
            peer->away_until = 0;
        }
        peer->answer = *answer;
        peer->answered = mq__seconds();
        if (!was_healthy) peer->trouble[0] = '\0';
    } else {
        snprintf(peer->trouble, sizeof peer->trouble, "%s", error->text);
    }
    pthread_mutex_unlock(&h->peers->lock);
    if (!answer && (was_healthy || first)) mq__handoff_log(h, "%s", error->text);
    if (answer && !was_healthy) mq__handoff_log(h, "hand-off: %s: prefills for this worker", peer->name);
}

void mq__peers_describe(mq_handoff *h, mq_peers_summary *summary)
{
    const double now = mq__seconds();
    pthread_mutex_lock(&h->peers->lock);
    for (const mq_peer *peer = h->peers->first; peer; peer = peer->next) {
        summary->peers += peer->is_listed;
        summary->healthy += peer->is_listed && peer->is_healthy && now >= peer->away_until;
    }
    for (mq_client *c = h->peers->clients; c; c = c->next) {
        pthread_mutex_lock(&c->lock);
        summary->receiving += c->count;
        pthread_mutex_unlock(&c->lock);
    }
    pthread_mutex_unlock(&h->peers->lock);
}
