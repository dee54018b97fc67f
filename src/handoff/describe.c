/* What a worker says of itself to others, and to who looks after it (GET /internal/link). */
#include "base/json_read.h"
#include "base/mem.h"
#include "handoff/peers.h"
#include "handoff/serve.h"

#include <string.h>

static json_t *hex_text(const uint8_t *bytes, size_t count)
{
    char text[2 * sizeof(mq_fingerprint) + 1];
    mq__hex(bytes, count, text);
    return json_string(text);
}

static json_t *digest_text(const mq_digest *digest)
{
    return hex_text(digest->bytes, sizeof digest->bytes);
}

static json_t *prints_of(const mq_fingerprint *print)
{
    return json_pack("{so so so so so}", "weights", digest_text(&print->weights), "plan", digest_text(&print->plan),
                     "tokenizer", digest_text(&print->tokenizer), "rope", digest_text(&print->rope), "layout",
                     digest_text(&print->layout));
}

static json_t *plan_text(const mq_plan *plan)
{
    return json_sprintf("%s-%s", mq_linear_format_name(plan->prefill), mq_linear_format_name(plan->decode));
}

static json_t *link_of(const mq_handoff *h)
{
    if (!h->server) return json_null();
    return json_pack("{ss si}", "transport", h->transport, "port", (int)mq_handoff_port(h));
}

/* Under the lock of the peers. */
static json_t *peer_of(const mq_peer *peer, double now)
{
    const bool healthy = peer->is_healthy && now >= peer->away_until;
    return json_pack("{ss sb sb so ss sI sf sf sf}", "peer", peer->name, "listed", (int)peer->is_listed, "healthy",
                     (int)healthy, "trouble", peer->trouble[0] ? json_string(peer->trouble) : json_null(), "instance",
                     peer->answer.instance, "unread_tokens", (json_int_t)peer->answer.unread,
                     "prompt_tokens_per_second", peer->answer.rate, "link_bytes_per_second", peer->link_rate,
                     "round_trip_s", peer->round_trip);
}

static json_t *peers_of(mq_handoff *h)
{
    json_t *list = json_array();
    if (!h->peers) return list;
    const double now = mq__seconds();
    pthread_mutex_lock(&h->peers->lock);
    for (const mq_peer *peer = h->peers->first; peer; peer = peer->next) {
        (void)json_array_append_new(list, peer_of(peer, now));
    }
    pthread_mutex_unlock(&h->peers->lock);
    return list;
}

static json_t *describe(mq_handoff *h)
{
    mq_scheduler_stats stats = {0};
    mq_scheduler *scheduler = atomic_load(&h->scheduler);
    if (scheduler) mq_scheduler_describe(scheduler, &stats);
    const char *role = h->server && h->peers ? "both" : h->server ? "prefill" : "decode";
    const mq_digest all = mq__digest(&h->print, sizeof h->print);
    return json_pack("{ss so si so so so so sI sf sI so}", "role", role, "link", link_of(h), "protocol",
                     MQ_PROTOCOL_VERSION, "instance", hex_text(h->instance, sizeof h->instance), "fingerprint",
                     digest_text(&all), "fingerprints", prints_of(&h->print), "plan", plan_text(h->engine->plan),
                     "unread_tokens", (json_int_t)stats.unread_tokens, "prompt_tokens_per_second",
                     mq__prompt_rate(&stats), "kv_bytes_per_token",
                     (json_int_t)mq__kv_token_bytes(&h->engine->kv_layout), "peers", peers_of(h));
}

char *mq_handoff_describe(mq_handoff *h)
{
    mq_buf text = {0};
    const unsigned long before = mq__json_failures();
    json_t *root = describe(h);
    const bool ok = root && mq__json_print(root, JSON_COMPACT, &text) && mq__json_failures() == before;
    json_decref(root);
    if (ok) return mq__buf_take(&text);
    mq__buf_free(&text);
    return NULL;
}
