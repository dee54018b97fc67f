/* Prompts that were read for somebody who will fetch their KV soon. */
#include "base/mem.h"
#include "handoff/handoff.h"
#include "sched/sched.h"

#include <string.h>

#define LEASE_ID 33 /* bytes of a name with its end */

struct mq_lease {
    mq_lease *next;
    char id[LEASE_ID];
    mq_job *job;
    double until;
};

static void drop_lease(mq_handoff *h, mq_lease *lease)
{
    h->release(lease->job);
    mq__free(lease);
}

/* Under the lock: the first one that came, if there are too many. */
static mq_lease **first_beyond(mq_handoff *h)
{
    mq_lease **at = &h->leases;
    while (h->stats.leased > h->tuning.leases && (*at)->next) {
        at = &(*at)->next;
    }
    return h->stats.leased > h->tuning.leases ? at : NULL;
}

/* Under the lock. */
static mq_lease *unlist(mq_handoff *h, mq_lease **at)
{
    mq_lease *lease = *at;
    *at = lease->next;
    h->stats.leased--;
    return lease;
}

/* A lease is made in the last event of its job, where the job must not be freed: the watch does it. */
static void stray_later(mq_handoff *h, mq_job *job)
{
    pthread_mutex_lock(&h->lock);
    for (size_t i = 0; job && i < MQ_LEASE_STRAYS; i++) {
        if (h->strays[i]) continue;
        h->strays[i] = job;
        job = NULL;
    }
    pthread_mutex_unlock(&h->lock);
    if (job) mq__handoff_log(h, "hand-off: leases: expected memory, got none: blocks of a prompt stay until the end");
}

static void free_strays(mq_handoff *h)
{
    for (size_t i = 0; i < MQ_LEASE_STRAYS; i++) {
        pthread_mutex_lock(&h->lock);
        mq_job *job = h->strays[i];
        h->strays[i] = NULL;
        pthread_mutex_unlock(&h->lock);
        if (job) h->release(job);
    }
}

void mq_handoff_lease(mq_handoff *h, mq_job *job, double seconds, char id[33])
{
    uint8_t name[16];
    mq__auth_random(name, sizeof name);
    mq__hex(name, sizeof name, id);
    mq_lease *lease = mq__alloc_zero(1, sizeof *lease);
    if (!lease) { /* as one that has run out already */
        stray_later(h, job);
        return;
    }
    *lease = (mq_lease){.job = job, .until = mq__seconds() + seconds};
    memcpy(lease->id, id, LEASE_ID);
    pthread_mutex_lock(&h->lock);
    lease->next = h->leases;
    h->leases = lease;
    h->stats.leases++;
    h->stats.leased++;
    mq_lease **first = first_beyond(h), *gone = first ? unlist(h, first) : NULL;
    h->stats.leases_expired += gone != NULL;
    pthread_mutex_unlock(&h->lock);
    if (gone) drop_lease(h, gone);
}

static mq_lease *find_lease(mq_handoff *h, const char *id, size_t bytes)
{
    mq_lease *found = NULL;
    pthread_mutex_lock(&h->lock);
    for (mq_lease **at = &h->leases; *at && !found; at = &(*at)->next) {
        if (bytes != LEASE_ID - 1 || memcmp((*at)->id, id, bytes) != 0) continue;
        found = unlist(h, at);
        break;
    }
    pthread_mutex_unlock(&h->lock);
    return found;
}

/* Its job has ended and holds KV of the tokens but the last, also what windows see there, made by the engine's own plan; with a state, of
 * these and no more. */
static const mq_sequence *held_prompt(const mq_handoff *h, mq_job *job, const int32_t *tokens, uint32_t count)
{
    const uint32_t from = mq__kv_window_from(&h->engine->kv_layout, (count - 1) / MQ_PAGE_TOKENS * MQ_PAGE_TOKENS);
    pthread_mutex_lock(&job->lock);
    const mq_sequence *sequence = job->event == NULL ? job->sequence : NULL;
    const bool has = sequence && job->prompt == count && sequence->count + 1 >= count &&
                     (!sequence->state || sequence->count + 1 == count) && sequence->window_from <= from &&
                     sequence->plan == h->engine->plan && memcmp(job->tokens, tokens, count * sizeof *tokens) == 0;
    pthread_mutex_unlock(&job->lock);
    return has ? sequence : NULL;
}

mq_job *mq__lease_take(mq_handoff *h, const char *id, size_t bytes, const int32_t *tokens, uint32_t count,
                       const mq_sequence **sequence)
{
    mq_lease *lease = bytes ? find_lease(h, id, bytes) : NULL;
    if (!lease) return NULL;
    mq_job *job = lease->job;
    mq__free(lease);
    *sequence = held_prompt(h, job, tokens, count);
    if (*sequence) return job;
    h->release(job); /* its blocks are in the prefix cache: what was asked for finds them there */
    return NULL;
}

/* One that has run out, or any. */
static mq_lease *next_old(mq_handoff *h, double now, bool any)
{
    mq_lease *old = NULL;
    pthread_mutex_lock(&h->lock);
    for (mq_lease **at = &h->leases; *at && !old;) {
        if (any || now >= (*at)->until) {
            old = unlist(h, at);
            h->stats.leases_expired += !any;
        } else {
            at = &(*at)->next;
        }
    }
    pthread_mutex_unlock(&h->lock);
    return old;
}

/* The first one that came, where running requests wait for its blocks: who comes for it has its prompt read again. */
static void lend_no_more(mq_handoff *h)
{
    mq_scheduler *scheduler = atomic_load(&h->scheduler);
    if (!scheduler || !mq__scheduler_lacked_room(scheduler)) return;
    pthread_mutex_lock(&h->lock);
    mq_lease **at = &h->leases;
    while (*at && (*at)->next) {
        at = &(*at)->next;
    }
    mq_lease *first = *at ? unlist(h, at) : NULL;
    h->stats.leases_expired += first != NULL;
    pthread_mutex_unlock(&h->lock);
    if (!first) return;
    mq__handoff_log(h, "hand-off: lease %.8s: expected room for running requests beside it, there is none", first->id);
    drop_lease(h, first);
    mq__scheduler_wake(scheduler);
}

void mq__leases_watch(mq_handoff *h, double now)
{
    free_strays(h);
    lend_no_more(h);
    for (mq_lease *old = next_old(h, now, false); old; old = next_old(h, now, false)) {
        mq__handoff_log(h, "hand-off: lease %.8s: expected to be fetched in time, nobody came", old->id);
        drop_lease(h, old);
    }
}

void mq__leases_end(mq_handoff *h)
{
    free_strays(h);
    for (mq_lease *old = next_old(h, 0, true); old; old = next_old(h, 0, true)) {
        drop_lease(h, old);
    }
}
