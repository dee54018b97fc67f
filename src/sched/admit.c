/* Who runs: admission by key and fairness, waiting for a prompt that another request is reading, and making room. */
#include "base/error.h"
#include "base/pool.h"
#include "sched/sched.h"

#define AHEAD_BLOCKS 2 /* room for the answer that an admission asks for */

static const mq_plan *plan_of(const mq_scheduler *s, const mq_job *job)
{
    return job->plan ? job->plan : s->engine->plan;
}

/* ---- making room */

/* The running job that was admitted last waits again; its answer goes on later, unchanged. */
static bool park_youngest(mq_scheduler *s)
{
    mq_job **youngest = NULL;
    if (s->running.count < 2) return false;
    for (mq_job **at = &s->running.first; *at; at = &(*at)->next) {
        if ((*at)->sink) continue;
        if (!youngest || (*at)->admitted >= (*youngest)->admitted) youngest = at;
    }
    if (!youngest) return false;
    mq_job *job = mq__jobs_remove(&s->running, youngest);
    mq__job_park(s, job);
    mq__jobs_add(&s->waiting, job);
    pthread_mutex_lock(&s->lock);
    s->stats.preempted++;
    pthread_mutex_unlock(&s->lock);
    return true;
}

bool mq__make_room(mq_scheduler *s, mq_kv_need need, bool parks)
{
    for (;;) {
        const uint32_t free = mq__kv_available(s->engine->kv);
        if (free >= need.blocks && mq__kv_windows_available(s->engine->kv) >= need.windows) return true;
        if (free < need.blocks && mq__prefix_cache_evict(s->cache, need.blocks - free)) continue;
        if (!mq__release_stored(s) && !(parks && park_youngest(s))) return false;
    }
}

/* ---- admission */

/* Blocks that are free, or would be if the cache and the disk gave back theirs, less what running jobs still need for the tokens that
 * they have. */
static int64_t blocks_to_give(const mq_scheduler *s)
{
    int64_t blocks = (int64_t)mq__kv_available(s->engine->kv) + mq__prefix_evictable(s->cache->tree);
    for (const mq_job *job = s->running.first; job; job = job->next) {
        blocks -= mq__sequence_blocks_missing(job->sequence, job->count) + AHEAD_BLOCKS;
    }
    return blocks;
}

/* The same for window parts. */
static int64_t windows_to_give(const mq_scheduler *s)
{
    int64_t windows = mq__kv_windows_available(s->engine->kv);
    for (const mq_job *job = s->running.first; job; job = job->next) {
        windows -= mq__sequence_windows_missing(job->sequence, job->count) + AHEAD_BLOCKS;
    }
    return windows;
}

static bool fits(mq_scheduler *s, const mq_job *job)
{
    if (s->running.count + s->held.count == 0) return true; /* the pool holds a whole context */
    const int64_t needed = job->count / MQ_PAGE_TOKENS + 1 + AHEAD_BLOCKS;
    const int64_t most = s->engine->windows_per_sequence, windows = needed < most ? needed : most;
    return needed <= blocks_to_give(s) && (most == 0 || windows <= windows_to_give(s));
}

static uint32_t shared_tokens(const mq_job *a, const mq_job *b)
{
    const uint32_t most = a->prompt < b->prompt ? a->prompt : b->prompt;
    uint32_t n = 0;
    while (n < most && a->tokens[n] == b->tokens[n]) {
        n++;
    }
    return n;
}

/* A running job that is reading what this one would have to read as well: it will be in the cache soon. */
static const mq_job *leader_of(const mq_scheduler *s, const mq_job *job, uint32_t cached)
{
    for (const mq_job *other = s->running.first; other; other = other->next) {
        if (other->read_done != 0 || other->owner != job->owner || plan_of(s, other) != plan_of(s, job)) continue;
        uint32_t shared = shared_tokens(other, job);
        if (shared == job->prompt) shared--; /* the last one runs anyway */
        if (shared == other->prompt) shared--;
        shared = shared / MQ_PAGE_TOKENS * MQ_PAGE_TOKENS;
        if (shared > cached && other->sequence->count < shared) return other;
    }
    return NULL;
}

/* Whether it waits for a leader; its client sees the leader's progress. */
static bool follows_leader(mq_scheduler *s, mq_job *job)
{
    mq_prefix_miss miss;
    const uint32_t cached =
        mq__prefix_cache_find(s->cache, job->owner, plan_of(s, job), job->tokens, job->count, &miss);
    const mq_job *leader = leader_of(s, job, cached);
    if (!leader) return false;
    const uint32_t done = leader->sequence->count < job->prompt ? leader->sequence->count : job->prompt;
    if (done > job->report.prompt_done) {
        job->report.prompt_done = done;
        mq__job_progress(job);
    }
    return true;
}

static uint32_t running_of(const mq_scheduler *s, uint64_t owner)
{
    uint32_t count = 0;
    for (const mq_job *job = s->running.first; job; job = job->next) {
        count += job->owner == owner;
    }
    return count;
}

/* The next one: of the owner with the fewest running, the smallest key. NULL: none may come now. */
static mq_job **choose_next(mq_scheduler *s)
{
    mq_job **best = NULL;
    uint32_t best_running = 0;
    for (mq_job **at = &s->waiting.first; *at; at = &(*at)->next) {
        const uint32_t running = running_of(s, (*at)->owner);
        if (best && (running > best_running || (running == best_running && (*at)->key >= (*best)->key))) continue;
        if (follows_leader(s, *at)) continue;
        best = at;
        best_running = running;
    }
    return best;
}

static mq_status start_job(mq_scheduler *s, mq_job *job, mq_error *error)
{
    mq_sequence *sequence;
    const mq_status status = mq_sequence_new(s->engine, &sequence, error);
    if (status != MQ_OK) return status;
    const mq_plan *plan = plan_of(s, job);
    mq_sequence_set_plan(sequence, plan);
    mq_prefix_miss miss;
    (void)mq__prefix_cache_find(s->cache, job->owner, plan, job->tokens, job->prompt, &miss);
    const uint32_t cached = mq__prefix_cache_attach(s->cache, sequence, job->owner, job->tokens, job->count);
    pthread_mutex_lock(&job->lock);
    job->sequence = sequence;
    pthread_mutex_unlock(&job->lock);
    job->loading = s->cache->store != NULL;
    if (job->admitted != 0) return MQ_OK; /* it was parked: its report stays */
    job->admitted = mq__seconds();
    job->report.queued_s = job->admitted - job->submitted;
    job->report.cached = job->report.prompt_done = cached;
    job->report.miss_at = miss.at;
    job->report.miss_token = miss.token;
    job->report.plan_prefill = mq_linear_format_name(plan->prefill);
    job->report.plan_decode = mq_linear_format_name(plan->decode);
    mq__job_progress(job);
    return MQ_OK;
}

void mq__admit(mq_scheduler *s)
{
    while (s->running.count < s->options.streams) {
        mq_job **next = choose_next(s);
        if (!next || !fits(s, *next)) return;
        mq_job *job = mq__jobs_remove(&s->waiting, next);
        mq_error error = {0};
        if (start_job(s, job, &error) == MQ_OK)
            mq__jobs_add(&s->running, job);
        else
            mq__job_fail(s, job, &error);
    }
}
