/* What the scheduler asks for KV that may come from elsewhere (sched/transfer.h). */
#include "base/error.h"
#include "base/mem.h"
#include "handoff/peers.h"

#define LINK_MEMORY 60.0 /* seconds after which a link's speed is measured anew */

/* A prompt, and the best peer so far. */
typedef struct choice {
    const mq_kv_wanted *wanted;
    mq_pays_facts facts;   /* without those of a peer */
    const uint64_t *marks; /* [count / 64] or NULL */
    mq_peer *peer;
    mq_pays_facts best;
    uint32_t guess; /* tokens that it is thought to have */
} choice;

/* ---- choosing, under the lock of the peers */

static bool is_available(const mq_peer *peer, double now)
{
    return peer->is_healthy && now >= peer->away_until;
}

static mq_pays_facts facts_of(const choice *c, mq_peer *peer, bool is_leased, uint32_t *guess)
{
    mq_pays_facts facts = c->facts;
    const uint32_t count = c->wanted->count;
    const uint64_t waits = peer->client ? mq__client_waits(peer->client) : 0;
    *guess = c->marks ? mq__remembers(&peer->memory, c->marks, count / MQ_PAGE_TOKENS) : 0;
    facts.computes = is_leased ? 0 : count - *guess;
    facts.peer_unread = is_leased ? 0 : peer->answer.unread > waits ? peer->answer.unread : waits;
    facts.peer_rate = peer->answer.rate;
    facts.link_rate = mq__seconds() - peer->linked < LINK_MEMORY ? peer->link_rate : 0;
    facts.round_trip = peer->round_trip;
    return facts;
}

static void consider_peer(choice *c, mq_peer *peer, bool is_leased)
{
    uint32_t guess;
    if (peer->answer.context && c->wanted->count + 1 >= peer->answer.context) return; /* as mq__sender_submit */
    const mq_pays_facts facts = facts_of(c, peer, is_leased, &guess);
    if (c->peer && mq__pays_times(&facts).remote >= mq__pays_times(&c->best).remote) return;
    c->peer = peer;
    c->best = facts;
    c->guess = guess;
}

/* Whom the request names, if it may and the peer does not fail just now. */
static bool consider_named(mq_handoff *h, choice *c, double now)
{
    mq_error error = {0};
    if (!c->wanted->peer) return false;
    mq_peer *peer = mq__peers_named(h, c->wanted->peer, &error);
    if (!peer) {
        if (error.status == MQ_USAGE) mq__handoff_count(h, &h->stats.refused_peers, 1);
        mq__handoff_log(h, "%s", error.text);
        return false;
    }
    if (!is_available(peer, now)) return false;
    consider_peer(c, peer, c->wanted->lease != NULL);
    return true;
}

static void consider_listed(mq_handoff *h, choice *c, double now, bool available)
{
    for (mq_peer *peer = h->peers->first; peer; peer = peer->next) {
        if (peer->is_listed && is_available(peer, now) == available) consider_peer(c, peer, false);
    }
}

static mq_kv_arrival *try_peer(mq_handoff *h, const choice *c, const mq_kv_wanted *wanted, mq_error *error)
{
    mq_kv_arrival *a;
    mq_client *client = mq__peer_client(h, c->peer, error);
    if (!client || mq__arriving_new(h, client, wanted, &c->best, &a, error) != MQ_OK) return NULL;
    a->figures.guess = c->guess;
    if (mq__client_add(client, a, error) == MQ_OK) return a;
    mq__arriving_release(a);
    mq__arriving_release(a);
    return NULL;
}

static mq_kv_arrival *ask_peer(mq_handoff *h, const choice *c, bool is_named, bool *refused, mq_error *error)
{
    mq_kv_wanted wanted = *c->wanted;
    if (!is_named) wanted.lease = NULL;
    mq_kv_arrival *a = try_peer(h, c, &wanted, error);
    if (!a) a = try_peer(h, c, &wanted, error); /* its connection has ended just now: over another one */
    *refused = a == NULL;
    c->peer->used = mq__seconds();
    return a;
}

static mq_kv_arrival *choose_and_ask(mq_handoff *h, choice *c, bool *refused, mq_error *error)
{
    const double now = mq__seconds();
    const bool is_named = consider_named(h, c, now);
    if (!is_named) consider_listed(h, c, now, true);
    const bool available = c->peer != NULL;
    if (!available) consider_listed(h, c, now, false);
    if (!c->peer || !mq__pays(&c->best)) return NULL;
    if (available) return ask_peer(h, c, is_named, refused, error);
    *refused = true;
    (void)mq__fail(error, MQ_LIMIT, "hand-off: expected a peer that prefills, got none: %s: %s", c->peer->name,
                   c->peer->trouble[0] ? c->peer->trouble : "it has not answered yet");
    return NULL;
}

/* ---- as the scheduler calls it */

static mq_kv_arrival *source_begin(void *self, const mq_kv_wanted *wanted, bool *refused, mq_error *error)
{
    mq_handoff *h = self;
    mq_scheduler *scheduler = atomic_load(&h->scheduler);
    mq_scheduler_stats stats;
    *refused = false;
    if (!scheduler || atomic_load(&h->stopping) || wanted->first >= wanted->count) return NULL;
    mq_scheduler_describe(scheduler, &stats);
    const uint32_t tokens = wanted->count - wanted->first;
    uint64_t *marks = mq__alloc(wanted->count / MQ_PAGE_TOKENS * sizeof *marks);
    if (marks) mq__marks(wanted->owner, wanted->tokens, wanted->count, marks);
    choice c = {.wanted = wanted,
                .marks = marks,
                .facts = {.least = h->options.least,
                          .wanted = tokens,
                          .unread = stats.unread_tokens,
                          .rate = mq__prompt_rate(&stats),
                          .bytes = mq__kv_range_bytes(&h->engine->kv_layout, wanted->first, wanted->count),
                          .answers = wanted->answers}};
    pthread_mutex_lock(&h->peers->lock);
    mq_kv_arrival *a = choose_and_ask(h, &c, refused, error);
    pthread_mutex_unlock(&h->peers->lock);
    mq__free(marks);
    return a;
}

static mq_arrival_state source_state(void *self, mq_kv_arrival *arrival, mq_arrival_facts *facts)
{
    (void)self;
    return mq__arriving_state(arrival, facts);
}

static void source_end(void *self, mq_kv_arrival *arrival)
{
    (void)self;
    mq__arriving_end(arrival);
}

void mq__source_fill(mq_handoff *h)
{
    h->source = (struct mq_kv_source){
        .begin = source_begin, .state = source_state, .end = source_end, .fails = h->options.fails, .self = h};
}

const struct mq_kv_source *mq_handoff_source(mq_handoff *h)
{
    return h->peers ? &h->source : NULL;
}
