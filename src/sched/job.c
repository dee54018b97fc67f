/* A job: a request from its submission to its end, and its client's side of it. */
#include "base/error.h"
#include "base/mem.h"
#include "base/pool.h"
#include "sched/sched.h"

#include <string.h>

#define SIDE_DELAY 10.0  /* seconds that a background request stands behind others which came with it */
#define READ_RATE  100.0 /* prompt tokens a second, for the order of admission only */

/* ---- lists */

void mq__jobs_init(job_list *list)
{
    list->first = NULL;
    list->end = &list->first;
    list->count = 0;
}

void mq__jobs_add(job_list *list, mq_job *job)
{
    job->next = NULL;
    *list->end = job;
    list->end = &job->next;
    list->count++;
}

mq_job *mq__jobs_remove(job_list *list, mq_job **at)
{
    mq_job *job = *at;
    *at = job->next;
    if (list->end == &job->next) list->end = at;
    job->next = NULL;
    list->count--;
    return job;
}

/* ---- submitting */

static void free_job(mq_job *job)
{
    mq_sequence_free(job->sequence);
    mq_generation_free(job->generation);
    mq__draft_end(&job->draft);
    mq_constraint_free(job->constraint);
    pthread_mutex_destroy(&job->lock);
    mq__free(job->peer);
    mq__free(job->lease);
    mq__free(job->tokens);
    mq__free(job);
}

void mq__job_release(mq_job *job)
{
    if (atomic_fetch_sub_explicit(&job->holders, 1, memory_order_acq_rel) == 1) free_job(job);
}

static mq_status check_prompt(const mq_scheduler *s, const mq_request *r, mq_error *error)
{
    if (r->count == 0 || r->count >= s->info.context) {
        return mq__fail(error, MQ_LIMIT,
                        "scheduler: prompt: expected 1 to %u tokens, so that one can be generated, got %u",
                        s->info.context - 1, r->count);
    }
    for (uint32_t i = 0; i < r->count; i++) {
        if (r->tokens[i] >= 0 && (uint32_t)r->tokens[i] < s->info.vocab) continue;
        return mq__fail(error, MQ_USAGE, "scheduler: token %u: expected an id below %u, got %d", i, s->info.vocab,
                        r->tokens[i]);
    }
    return MQ_OK;
}

/* Who comes first: the one that came first, but short prompts wait less: a long one is overtaken only by those that came before it
 * would have been read. */
static double key_of(const mq_request *request, double now)
{
    return now + request->count / READ_RATE + (request->background ? SIDE_DELAY : 0);
}

static mq_status copy_text(const char *text, char **copy, mq_error *error)
{
    *copy = text ? mq__strdup(text) : NULL;
    if (!text || *copy) return MQ_OK;
    return mq__fail(error, MQ_NO_MEMORY, "scheduler: request: expected memory, got none");
}

/* Who sends its KV away leaves one token to the other side, as it would to itself. */
static uint32_t reads_of(const mq_scheduler *s, const mq_request *r)
{
    const uint32_t last = r->sink || r->prefill_only ? 1 : s->info.last;
    return r->count > last ? r->count - last : 0;
}

static mq_status fill_job(const mq_scheduler *s, const mq_request *r, mq_job *job, mq_error *error)
{
    const uint32_t room = s->info.context - r->count;
    mq_generate_options options = r->options;
    options.max_tokens = options.max_tokens < room ? options.max_tokens : room;
    if (r->constraint) options.ignore_eos = false; /* nothing may follow what is complete */
    const mq_generation_start start = {.vocab = s->info.vocab,
                                       .eos = s->info.eos,
                                       .eos_count = s->info.eos_count,
                                       .tokens = r->tokens,
                                       .prompt_count = r->count,
                                       .token_count = r->count};
    job->tokens = mq__alloc((size_t)(r->count + options.max_tokens) * sizeof *job->tokens);
    if (!job->tokens) return mq__fail(error, MQ_NO_MEMORY, "scheduler: request: expected memory, got none");
    memcpy(job->tokens, r->tokens, r->count * sizeof *job->tokens);
    job->prompt = job->count = r->count;
    job->reads = reads_of(s, r);
    job->max_tokens = options.max_tokens;
    job->top_logprobs = options.top_logprobs < 20 ? options.top_logprobs : 20;
    job->logprobs = options.logprobs || options.top_logprobs;
    job->background = r->background;
    job->reads_on = s->options.finish_abandoned && !r->sink;
    job->sink = r->sink;
    job->prefill_only = r->prefill_only;
    job->hold = r->hold || r->sink;
    job->plan = r->plan;
    job->owner = r->owner;
    job->event = r->event;
    job->context = r->context;
    job->submitted = mq__seconds();
    job->key = key_of(r, job->submitted);
    job->report = (mq_report){.prompt = r->count, .miss_token = -1, .drafts = s->options.draft != MQ_DRAFT_OFF};
    job->draft = (mq_draft_answer){.owner = r->owner, .script = r->options.script};
    mq_status status = copy_text(r->prefill_peer, &job->peer, error);
    if (status == MQ_OK) status = copy_text(r->prefill_lease, &job->lease, error);
    if (status != MQ_OK) return status;
    status = mq_generation_new(s->options.text, &options, &start, &job->generation, error);
    if (status == MQ_OK && options.max_tokens > 1) {
        status = mq__draft_begin(s->drafter, r->count + options.max_tokens, &job->draft, error);
    }
    return status;
}

void mq__note_waiting(mq_scheduler *s)
{
    uint32_t count = 0;
    for (const mq_job *job = s->waiting.first; job; job = job->next) {
        s->waiting_owners[count++] = job->owner;
    }
    s->stats.waiting = count;
}

/* Under the lock: requests of an owner that wait. */
static uint32_t waiting_of(const mq_scheduler *s, uint64_t owner)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < s->stats.waiting; i++) {
        count += s->waiting_owners[i] == owner;
    }
    for (const mq_job *job = s->inbox.first; job; job = job->next) {
        count += job->owner == owner;
    }
    return count;
}

/* Under the lock. An owner may have as many requests waiting as places are left: so there are some for others, whoever came first. Without
 * owners (0) there are no others. */
static mq_status check_queue(const mq_scheduler *s, const mq_job *job, mq_error *error)
{
    const uint32_t waiting = s->stats.waiting + s->inbox.count, most = s->options.queue;
    if (waiting >= most) {
        return mq__fail(error, MQ_LIMIT, "scheduler: queue: expected at most %u waiting requests, got another", most);
    }
    const uint32_t left = most - waiting;
    if (job->owner == 0 || waiting_of(s, job->owner) < left) return MQ_OK;
    return mq__fail(error, MQ_LIMIT,
                    "scheduler: queue: expected at most as many waiting requests of a key as places are left (%u), got "
                    "another",
                    left);
}

static mq_status queue_job(mq_scheduler *s, mq_job *job, mq_error *error)
{
    mq_status status = MQ_OK;
    pthread_mutex_lock(&s->lock);
    if (s->draining) {
        status =
            mq__fail(error, MQ_CANCELLED, "scheduler: expected requests before the shutdown, got one after it began");
    } else {
        status = check_queue(s, job, error);
    }
    if (status == MQ_OK) {
        mq__jobs_add(&s->inbox, job);
        s->jobs++;
        s->stats.requests++;
        pthread_cond_signal(&s->work);
    }
    pthread_mutex_unlock(&s->lock);
    return status;
}

mq_status mq_scheduler_submit(mq_scheduler *s, const mq_request *request, mq_job **out, mq_error *error)
{
    *out = NULL;
    mq_status status = check_prompt(s, request, error);
    mq_job *job = status == MQ_OK ? mq__alloc_zero(1, sizeof *job) : NULL;
    if (status == MQ_OK && !job)
        status = mq__fail(error, MQ_NO_MEMORY, "scheduler: request: expected memory, got none");
    if (status != MQ_OK) {
        mq_constraint_free(request->constraint);
        return status;
    }
    job->constraint = request->constraint;
    atomic_init(&job->holders, 2);
    pthread_mutex_init(&job->lock, NULL);
    status = fill_job(s, request, job, error);
    *out = job; /* before the first event */
    if (status == MQ_OK) status = queue_job(s, job, error);
    if (status == MQ_OK) return MQ_OK;
    *out = NULL;
    free_job(job);
    return status;
}

/* ---- the client's side */

void mq_job_free(mq_job *job)
{
    if (!job) return;
    pthread_mutex_lock(&job->lock);
    job->left = true;
    const bool reads_on = job->reads_on && job->read_done == 0;
    if (job->sequence && !reads_on) mq_sequence_cancel(job->sequence);
    pthread_mutex_unlock(&job->lock);
    mq__job_release(job);
}

bool mq__job_has_left(mq_job *job)
{
    pthread_mutex_lock(&job->lock);
    const bool left = job->left;
    pthread_mutex_unlock(&job->lock);
    return left;
}

void mq__job_tell(mq_job *job, const mq_event *event)
{
    pthread_mutex_lock(&job->lock);
    if (!job->left && job->event) job->event(job->context, event);
    pthread_mutex_unlock(&job->lock);
}

void mq__job_progress(mq_job *job)
{
    const mq_event event = {.kind = MQ_EVENT_PROGRESS, .report = &job->report};
    mq__job_tell(job, &event);
}

/* ---- the end */

static void set_sequence(mq_job *job, mq_sequence *sequence)
{
    pthread_mutex_lock(&job->lock);
    job->sequence = sequence;
    pthread_mutex_unlock(&job->lock);
}

void mq__job_park(mq_scheduler *s, mq_job *job)
{
    mq_sequence *sequence = job->sequence;
    if (!sequence) return;
    mq__arrival_end(job);
    mq__prefix_cache_keep(s->cache, sequence, job->owner, job->background);
    set_sequence(job, NULL);
    mq_sequence_free(sequence);
    job->kept = 0;
    job->asked = false;
}

void mq__job_keep(mq_scheduler *s, mq_job *job)
{
    const uint32_t blocks = job->sequence->count / MQ_PAGE_TOKENS;
    if (blocks == job->kept) return;
    mq__prefix_cache_keep(s->cache, job->sequence, job->owner, job->background);
    job->kept = blocks;
}

uint32_t mq__job_unread(const mq_job *job)
{
    const uint32_t held = job->sequence ? job->sequence->count : 0;
    return !job->arrival && held < job->reads ? job->reads - held : 0;
}

static void count_end(mq_scheduler *s, const mq_job *job)
{
    pthread_mutex_lock(&s->lock);
    s->jobs--;
    if (job->report.status != MQ_OK)
        s->stats.failed++;
    else if (job->report.finish == MQ_FINISH_CANCELLED)
        s->stats.cancelled++;
    if (s->jobs == 0) pthread_cond_broadcast(&s->idle);
    pthread_mutex_unlock(&s->lock);
}

/* The client has its end; what is left of it is blocks for the prefix cache and the disk. */
static void put_away(mq_scheduler *s, mq_job *job)
{
    if (job->sequence) {
        (void)mq_sequence_truncate(job->sequence, job->sequence->count / MQ_PAGE_TOKENS * MQ_PAGE_TOKENS);
        mq__prefix_cache_keep(s->cache, job->sequence, job->owner, job->background);
    }
    if (job->sequence && s->cache->store && !job->background && job->report.status == MQ_OK) {
        mq__jobs_add(&s->storing, job);
        return;
    }
    mq__job_park(s, job);
    mq__job_release(job);
}

static void end_job(mq_scheduler *s, mq_job *job, const char *bytes, size_t count)
{
    const mq_event event = {.kind = MQ_EVENT_END, .bytes = bytes, .count = count, .token = -1, .report = &job->report};
    mq__arrival_end(job);
    mq__job_tell(job, &event);
    count_end(s, job);
    mq__draft_keep(s->drafter, job->owner, job->tokens + job->prompt, job->count - job->prompt);
    pthread_mutex_lock(&job->lock);
    job->event = NULL;
    const bool held = job->hold && !job->left && job->sequence;
    pthread_mutex_unlock(&job->lock);
    if (held)
        mq__jobs_add(&s->held, job);
    else
        put_away(s, job);
}

bool mq__release_stored(mq_scheduler *s)
{
    if (!s->storing.first) return false;
    mq_job *job = mq__jobs_remove(&s->storing, &s->storing.first);
    mq__job_park(s, job);
    mq__job_release(job);
    return true;
}

void mq__release_held(mq_scheduler *s, bool all)
{
    for (mq_job **at = &s->held.first; *at;) {
        if (all || mq__job_has_left(*at))
            put_away(s, mq__jobs_remove(&s->held, at));
        else
            at = &(*at)->next;
    }
}

void mq__job_end(mq_scheduler *s, mq_job *job, mq_finish finish, const char *bytes, size_t count)
{
    job->report.finish = finish;
    end_job(s, job, bytes, count);
}

void mq__job_fail(mq_scheduler *s, mq_job *job, const mq_error *error)
{
    job->report.status = error->status;
    job->report.error = *error;
    job->report.finish = MQ_FINISH_CANCELLED;
    end_job(s, job, NULL, 0);
}
