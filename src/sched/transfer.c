#include "sched/transfer.h"

#include "base/error.h"
#include "engine/kv_image.h"
#include "sched/sched.h"

#define ATTEMPTS 2 /* transfers that may fail before the prompt is prefilled here */

void mq__scheduler_wake(mq_scheduler *s)
{
    pthread_mutex_lock(&s->lock);
    s->woken = true;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
}

bool mq__scheduler_lacked_room(mq_scheduler *s)
{
    pthread_mutex_lock(&s->lock);
    const bool lacked = s->lacked_room;
    s->lacked_room = false;
    pthread_mutex_unlock(&s->lock);
    return lacked;
}

/* ---- in */

/* Tokens up to `whole` become the sequence's: their KV is in its blocks. */
static void append_arrived(mq_job *job, const mq_arrival_facts *facts)
{
    const uint32_t first = job->sequence->count;
    for (uint32_t at = first, end; at < facts->whole; at = end) {
        const bool precise = facts->precise[(at - first) / 8] >> (at - first) % 8 & 1;
        for (end = at + 1; end < facts->whole; end++) {
            if ((facts->precise[(end - first) / 8] >> (end - first) % 8 & 1) != precise) break;
        }
        mq__sequence_append(job->sequence, job->tokens + at, end - at, precise);
    }
}

/* The state that comes is the one behind the last token: with it all is of use, without it nothing, where a model has one. */
static void take_arrived(mq_job *job, mq_arrival_state state, const mq_arrival_facts *facts)
{
    const uint32_t before = job->sequence->count;
    const bool of_use = state == MQ_ARRIVED || !job->sequence->state;
    if (of_use && facts->whole > before) append_arrived(job, facts);
    if (state == MQ_ARRIVED) mq__sequence_take_state(job->sequence);
    job->source->end(job->source->self, job->arrival);
    job->arrival = NULL;
    job->report.arriving = false;
    /* Of a part that has come the windows may be missing: then it is of no use. */
    (void)mq_sequence_truncate(job->sequence, job->sequence->count);
    mq__sequence_leave_windows(job->sequence, MQ_PHASE_PREFILL);
    job->report.arrived += job->sequence->count - before;
}

void mq__arrival_end(mq_job *job)
{
    mq_arrival_facts facts = {.whole = 0};
    if (!job->arrival) return;
    const mq_arrival_state state = job->source->state(job->source->self, job->arrival, &facts);
    take_arrived(job, state, &facts);
}

static void fail_transfer(mq_scheduler *s, mq_job *job, const mq_error *error)
{
    mq__leave_running(s, job);
    mq__job_fail(s, job, error);
}

static void count_transfer(mq_scheduler *s, uint32_t tokens, bool failed)
{
    pthread_mutex_lock(&s->lock);
    s->stats.arrived_tokens += tokens;
    s->stats.transfers_failed += failed;
    pthread_mutex_unlock(&s->lock);
}

/* Takes blocks for the prompt and asks the source to fill them. False: the request has failed. */
static bool ask_source(mq_scheduler *s, mq_job *job, uint32_t answers)
{
    const struct mq_kv_source *source = s->options.source;
    const uint32_t count = job->prompt - 1, first = job->sequence->count;
    const uint32_t bare = mq__kv_bare(&s->engine->kv_layout, first, count);
    const uint32_t from = mq__blocks_for(first + bare), blocks = mq__blocks_for(count);
    const mq_kv_need need = {mq__sequence_blocks_missing(job->sequence, count),
                             s->engine->kv_layout.window ? blocks - from : 0};
    job->asked = true;
    if (!mq__make_room(s, need, false)) return true;
    mq__sequence_take_blocks(job->sequence, count);
    mq__sequence_take_windows(job->sequence, from, count);
    const mq_kv_wanted wanted = {.tokens = job->tokens,
                                 .first = first,
                                 .count = count,
                                 .pages = job->sequence->pages,
                                 .window_pages = job->sequence->window_pages,
                                 .state = mq__sequence_state_room(job->sequence),
                                 .owner = job->owner,
                                 .peer = job->peer,
                                 .lease = job->lease,
                                 .attempt = job->report.transfer_failures,
                                 .answers = answers};
    mq_error error = {0};
    bool refused = false;
    job->source = source;
    job->arrival = source->begin(source->self, &wanted, &refused, &error);
    job->report.arriving = job->arrival != NULL;
    if (job->arrival) {
        mq__job_progress(job);
        return true;
    }
    mq__sequence_give_blocks(job->sequence);
    if (refused) job->report.error = error;
    if (!refused || !source->fails) return true;
    job->report.transfer_failures++;
    count_transfer(s, 0, true);
    fail_transfer(s, job, &error);
    return false;
}

static bool may_ask(const mq_scheduler *s, const mq_job *job)
{
    const bool own_plan = job->plan && job->plan != s->engine->plan; /* others make KV with the engine's */
    return s->options.source && !own_plan && !job->asked && !job->loading && !job->sink && !job->arrival &&
           job->sequence->count % MQ_PAGE_TOKENS == 0 && mq__job_unread(job) > 0;
}

/* The arrival has ended, well or not; what came of it is kept. False: the request has failed with it. */
static bool finish_arrival(mq_scheduler *s, mq_job *job, mq_arrival_state state, const mq_arrival_facts *facts)
{
    const uint32_t before = job->sequence->count;
    const bool failed = state == MQ_ARRIVAL_FAILED && !facts->declined;
    take_arrived(job, state, facts);
    count_transfer(s, job->sequence->count - before, failed);
    job->report.prompt_done = job->sequence->count;
    if (state == MQ_ARRIVAL_FAILED) job->report.error = facts->error;
    if (job->sequence->count > before && job->report.prefilled == MQ_PREFILLED_NONE)
        job->report.prefilled = MQ_PREFILLED_REMOTE; /* until a token is computed here */
    if (failed) {
        job->report.transfer_failures++;
        job->asked = job->report.transfer_failures >= ATTEMPTS;
    }
    if (failed && job->source->fails) {
        fail_transfer(s, job, &facts->error);
        return false;
    }
    mq__job_keep(s, job);
    mq__job_progress(job);
    return true;
}

/* False: the request has failed. */
static bool poll_arrival(mq_scheduler *s, mq_job *job)
{
    mq_arrival_facts facts = {.whole = 0};
    const mq_arrival_state state = job->source->state(job->source->self, job->arrival, &facts);
    if (state != MQ_ARRIVING) return finish_arrival(s, job, state, &facts);
    if (facts.whole > job->report.prompt_done) {
        job->report.prompt_done = facts.whole;
        mq__job_progress(job);
    }
    return true;
}

bool mq__run_arrivals(mq_scheduler *s, uint32_t answers)
{
    bool changed = false;
    for (mq_job *job = s->running.first, *next; job; job = next) {
        next = job->next;
        const bool was_arriving = job->arrival != NULL;
        if (was_arriving && !poll_arrival(s, job))
            changed = true;
        else if (may_ask(s, job))
            changed = !ask_source(s, job, answers) || changed;
        else
            changed = changed || (was_arriving && !job->arrival);
    }
    return changed;
}

/* ---- out. A client that has left hears nothing: its sink may be gone. */

void mq__sink_begin(mq_job *job)
{
    if (!job->sink || job->began) return;
    job->began = true;
    pthread_mutex_lock(&job->lock);
    if (!job->left) job->sink->begin(job->sink->context, job->sequence, job->sequence->count);
    pthread_mutex_unlock(&job->lock);
}

static void tell_stored(mq_job *job, uint32_t layer, uint32_t count, const float *state)
{
    pthread_mutex_lock(&job->lock);
    if (!job->left) job->sink->stored(job->sink->context, layer, count, state);
    pthread_mutex_unlock(&job->lock);
}

void mq__tell_sinks(mq_scheduler *s, uint32_t layers)
{
    const step_rows *step = &s->step[MQ_PHASE_PREFILL];
    for (uint32_t i = 0; i < step->count; i++) {
        mq_job *job = step->job[i];
        if (!job->sink || job->sequence->running == 0) continue; /* not in this pass */
        tell_stored(job, layers - 1, job->sequence->count + job->sequence->running, job->sequence->state_after);
    }
}

void mq__sink_stored(const mq_scheduler *s, mq_job *job)
{
    for (uint32_t l = 0; job->sink && l < s->engine->kv_layout.layers; l++) {
        tell_stored(job, l, job->sequence->count, job->sequence->state);
    }
}
