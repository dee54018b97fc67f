/* The scheduler's thread and its life. */
#include "base/error.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/wait.h"
#include "sched/sched.h"

#include <string.h>
#include <time.h>

#define STREAMS_DEFAULT 64
#define QUEUE_DEFAULT   256
#define GAP_DEFAULT     2.0
#define DISK_DEFAULT    ((uint64_t)16 << 30)
#define PUBLISH_EVERY   0.2   /* seconds between counts of what the cache could give */
#define DOZE            20e-3 /* seconds between looks at KV that arrives and at jobs that are held, if nobody wakes */
#define STORE_PATIENCE  10.0  /* seconds in which the disk takes no block, after which the end waits no more */
#define STORE_AT_ONCE   8     /* blocks that are offered to the disk in a row while nothing else is to do */

/* ---- the thread */

/* Without jobs it waits for one; when all that there are wait for something that is not here, it looks again soon. */
static void take_inbox(mq_scheduler *s, bool dozes)
{
    const bool busy = s->waiting.count || s->running.count || s->storing.count || s->held.count;
    const double until = mq__seconds() + DOZE;
    pthread_mutex_lock(&s->lock);
    while ((!busy || dozes) && !s->inbox.first && !s->stopping && !s->woken) {
        if (!busy)
            pthread_cond_wait(&s->work, &s->lock);
        else if (!mq__cond_wait_until(&s->work, &s->lock, until))
            break;
    }
    s->woken = false;
    while (s->inbox.first) {
        mq__jobs_add(&s->waiting, mq__jobs_remove(&s->inbox, &s->inbox.first));
    }
    mq__note_waiting(s);
    pthread_mutex_unlock(&s->lock);
}

static bool is_over(mq_scheduler *s)
{
    pthread_mutex_lock(&s->lock);
    const bool over = s->stopping;
    pthread_mutex_unlock(&s->lock);
    return over;
}

/* Jobs whose clients have left; a prompt that is read on for a retry stays until it is read. */
static void end_left(mq_scheduler *s, job_list *list, bool all)
{
    for (mq_job **at = &list->first; *at;) {
        mq_job *job = *at;
        const bool reads_on = job->reads_on && job->sequence && job->read_done == 0 && !all;
        if (!all && (reads_on || !mq__job_has_left(job))) {
            at = &job->next;
            continue;
        }
        (void)mq__jobs_remove(list, at);
        mq__job_end(s, job, MQ_FINISH_CANCELLED, NULL, 0);
    }
}

/* Offers blocks of ended jobs to the disk; those that are done let go. */
static void store_some(mq_scheduler *s, uint32_t blocks)
{
    while (s->storing.first && blocks--) {
        mq_job *job = s->storing.first;
        if (job->stored < job->sequence->count / MQ_PAGE_TOKENS) {
            if (!mq__prefix_cache_store(s->cache, job->sequence, job->owner, job->stored, &job->name)) return;
            job->stored++;
            continue;
        }
        (void)mq__release_stored(s);
    }
}

static void publish_stats(mq_scheduler *s)
{
    uint32_t largest = 0, arriving = 0, evictable = s->stats.kv_blocks_cached;
    uint64_t unread = 0;
    bool lacks = s->lacks_room;
    const double now = mq__seconds();
    if (now - s->published > PUBLISH_EVERY || s->running.count == 0) {
        evictable = mq__prefix_evictable(s->cache->tree);
        s->published = now;
    }
    for (const mq_job *job = s->running.first; job; job = job->next) {
        if (job->sequence->count > largest) largest = job->sequence->count;
        unread += mq__job_unread(job);
        arriving += job->arrival != NULL;
    }
    for (const mq_job *job = s->waiting.first; job; job = job->next) {
        unread += mq__job_unread(job);
    }
    for (mq_job *job = s->held.first; lacks && job; job = job->next) {
        lacks = !mq__job_has_left(job); /* else there will be some */
    }
    const uint32_t free = mq__kv_available(s->engine->kv), windows_free = mq__kv_windows_available(s->engine->kv);
    pthread_mutex_lock(&s->lock);
    s->stats.running = s->running.count;
    mq__note_waiting(s);
    s->stats.arriving = arriving;
    s->stats.held = s->held.count;
    s->stats.unread_tokens = unread;
    s->stats.kv_blocks_free = free;
    s->stats.kv_windows_free = windows_free;
    s->stats.kv_blocks_cached = evictable;
    s->stats.hit_tokens = s->stats.cached_tokens = s->cache->hit_tokens;
    s->stats.miss_tokens = s->cache->miss_tokens;
    s->stats.evicted_tokens = s->cache->evicted_tokens;
    s->stats.disk_read_tokens = s->cache->read_tokens;
    s->stats.disk_written_tokens = s->cache->written_tokens;
    s->lacked_room = lacks;
    if (largest > s->stats.largest) s->stats.largest = largest;
    pthread_mutex_unlock(&s->lock);
}

static void pause_briefly(void)
{
    (void)nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

/* At the end: blocks that the disk has not taken when it takes none any more are given up. */
static void store_rest(mq_scheduler *s)
{
    double moved = mq__seconds();
    while (s->storing.first) {
        const mq_job *job = s->storing.first;
        const uint32_t before = job->stored;
        store_some(s, STORE_AT_ONCE);
        if (s->storing.first != job || job->stored != before)
            moved = mq__seconds();
        else if (mq__seconds() - moved > STORE_PATIENCE)
            (void)mq__release_stored(s);
        else
            pause_briefly();
    }
}

static void *run_scheduler(void *context)
{
    mq_scheduler *s = context;
    bool dozes = false;
    while (!is_over(s)) {
        take_inbox(s, dozes);
        end_left(s, &s->waiting, false);
        end_left(s, &s->running, false);
        mq__release_held(s, false);
        mq__admit(s);
        s->lacks_room = false;
        const bool ran = mq__run_step(s);
        const uint32_t before = s->storing.first ? s->storing.first->stored : 0;
        store_some(s, ran ? 1 : STORE_AT_ONCE);
        publish_stats(s);
        dozes = !ran && !s->storing.first;
        /* The disk has more than it can take, and nothing runs. */
        if (!ran && s->storing.first && s->storing.first->stored == before) pause_briefly();
    }
    take_inbox(s, false);
    end_left(s, &s->waiting, true);
    end_left(s, &s->running, true);
    mq__release_held(s, true);
    store_rest(s);
    return NULL;
}

/* ---- life */

static void set_defaults(mq_scheduler_options *o)
{
    if (o->streams == 0) o->streams = STREAMS_DEFAULT;
    if (o->queue == 0) o->queue = QUEUE_DEFAULT;
    if (!(o->gap > 0)) o->gap = GAP_DEFAULT;
    if (o->gap < 1.1) o->gap = 1.1;
    if (o->disk_bytes == 0) o->disk_bytes = DISK_DEFAULT;
}

static void free_scheduler(mq_scheduler *s)
{
    mq__prefix_cache_free(s->cache);
    mq_drafter_free(s->drafter);
    mq__free(s->drafting);
    mq__free(s->waiting_owners);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->work);
    pthread_cond_destroy(&s->idle);
    for (int phase = 0; phase < MQ_PHASES; phase++) {
        mq__free(s->step[phase].rows);
        mq__free(s->step[phase].job);
    }
    mq__free(s);
}

static mq_status allocate_steps(mq_scheduler *s, mq_error *error)
{
    for (int phase = 0; phase < MQ_PHASES; phase++) {
        s->step[phase].rows = mq__alloc_zero(s->options.streams, sizeof(mq_rows));
        s->step[phase].job = mq__alloc_zero(s->options.streams, sizeof(mq_job *));
        if (s->step[phase].rows && s->step[phase].job) continue;
        return mq__fail(error, MQ_NO_MEMORY, "scheduler: expected memory, got none");
    }
    s->drafting = mq__alloc_zero(s->options.streams, sizeof(mq_draft_answer *));
    s->waiting_owners = mq__alloc_zero((size_t)s->options.queue + s->options.streams, sizeof *s->waiting_owners);
    if (!s->drafting || !s->waiting_owners)
        return mq__fail(error, MQ_NO_MEMORY, "scheduler: expected memory, got none");
    return mq_drafter_new(s->engine, s->options.draft, &s->drafter, error);
}

mq_status mq_scheduler_start(const mq_scheduler_options *options, mq_scheduler **out, mq_error *error)
{
    *out = NULL;
    mq_scheduler *s = mq__alloc_zero(1, sizeof *s);
    const bool has_work = s && mq__cond_init(&s->work), has_idle = has_work && mq__cond_init(&s->idle);
    if (!has_idle) {
        if (has_work) pthread_cond_destroy(&s->work);
        mq__free(s);
        return mq__fail(error, MQ_NO_MEMORY, "scheduler: expected memory, got none");
    }
    s->options = *options;
    s->engine = options->engine;
    set_defaults(&s->options);
    mq_engine_describe(s->engine, &s->info);
    pthread_mutex_init(&s->lock, NULL);
    mq__jobs_init(&s->inbox);
    mq__jobs_init(&s->waiting);
    mq__jobs_init(&s->running);
    mq__jobs_init(&s->storing);
    mq__jobs_init(&s->held);
    s->stats.kv_blocks = s->stats.kv_blocks_free = (uint32_t)(s->info.kv_tokens / MQ_PAGE_TOKENS);
    s->stats.kv_windows = s->stats.kv_windows_free = mq__kv_windows_available(s->engine->kv);
    mq_status status = allocate_steps(s, error);
    if (status == MQ_OK) {
        status = mq__prefix_cache_new(s->engine, s->options.cache_bytes, s->options.cache_dir, s->options.disk_bytes,
                                      &s->cache, error);
    }
    if (status == MQ_OK && pthread_create(&s->thread, NULL, run_scheduler, s) != 0) {
        status = mq__fail(error, MQ_NO_MEMORY, "scheduler: expected a thread, got none");
    }
    if (status == MQ_OK)
        *out = s;
    else
        free_scheduler(s);
    return status;
}

void mq_scheduler_drain(mq_scheduler *s, double seconds)
{
    const double until = mq__seconds() + seconds;
    pthread_mutex_lock(&s->lock);
    s->draining = true;
    while (s->jobs > 0 && mq__cond_wait_until(&s->idle, &s->lock, until)) {}
    pthread_mutex_unlock(&s->lock);
}

static void cancel_all(mq_scheduler *s)
{
    pthread_mutex_lock(&s->lock);
    s->draining = s->stopping = true;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
}

void mq_scheduler_stop(mq_scheduler *s)
{
    if (!s) return;
    cancel_all(s);
    pthread_join(s->thread, NULL);
    free_scheduler(s);
}

void mq_scheduler_describe(mq_scheduler *s, mq_scheduler_stats *stats)
{
    pthread_mutex_lock(&s->lock);
    *stats = s->stats;
    stats->waiting += s->inbox.count;
    for (const mq_job *job = s->inbox.first; job; job = job->next) {
        stats->unread_tokens += mq__job_unread(job);
    }
    pthread_mutex_unlock(&s->lock);
}
