/* One step: some prefill rows, then a decode row of every running answer, then the tokens that follow from their logits.
 *
 * A long prompt is read in passes of many rows: few rows would cost attention nearly as much, for it reads all keys before them.
 * So that running answers do not wait for a whole pass, decode steps run between its layers, before their pause is longer than
 * options.gap decode steps; and a pass has so few rows that a layer takes no longer than that. */
#include "base/error.h"
#include "base/pool.h"
#include "sched/sched.h"

#include <math.h>
#include <string.h>

#define BUDGET_FIRST 128
#define BUDGET_LEAST 16  /* rows: fewer cost as much */
#define PASS_S       1.0 /* of a prefill pass beside answers: other requests wait for its end */
/* Weight of the latest decode step in the time that one is said to take: slower ones were mostly disturbed. */
#define SLOWER  0.02
#define FASTER  0.3
#define SMOOTH  0.3 /* weight of the latest layer in that of a layer */
#define TOP_MAX 20

/* ---- rows of a step */

static bool wants_prefill(const mq_job *job)
{
    return !job->arrival && job->sequence->count < job->reads;
}

static bool wants_decode(const mq_job *job)
{
    return !job->arrival && !wants_prefill(job) && job->sequence->count < job->count && !job->prefill_only;
}

/* Where it goes on: the disk may not have had the windows before that. */
static void end_loading(mq_job *job)
{
    const uint32_t count = mq__sequence_landing(job->sequence, job->sequence->count);
    if (count == job->sequence->count) return;
    (void)mq_sequence_truncate(job->sequence, count);
    job->report.cached = job->report.prompt_done = count;
}

/* Before its rows: blocks from disk. */
static void load_blocks(mq_scheduler *s, mq_job *job, uint32_t most)
{
    while (job->loading && most--) {
        job->loading = mq__prefix_cache_load(s->cache, job->sequence, job->owner, job->tokens, job->prompt);
        if (!job->loading) {
            end_loading(job);
            break;
        }
        job->report.cached = job->report.prompt_done = job->sequence->count;
        job->report.miss_at = job->sequence->count;
        job->report.miss_token = -1;
    }
}

/* Decode rows that reach the last known token want its logits, and those of the drafted tokens behind it. */
static void add_rows(step_rows *step, mq_job *job, mq_phase phase, uint32_t rows)
{
    const uint32_t first = job->sequence->count;
    const bool last = phase == MQ_PHASE_DECODE && first + rows >= job->count;
    step->job[step->count] = job;
    step->rows[step->count++] = (mq_rows){.sequence = job->sequence,
                                          .tokens = job->tokens + first,
                                          .count = rows,
                                          .phase = phase,
                                          .logits = last ? 1 + job->draft.drafted : 0};
}

/* Prefill rows in the order of admission keys: the one that came first is read first, and others fill the rest of the pass. */
static void gather_prefill(mq_scheduler *s, step_rows *step, uint32_t budget)
{
    double after = -INFINITY;
    while (budget > 0) {
        mq_job *next = NULL;
        for (mq_job *job = s->running.first; job; job = job->next) {
            if (job->loading || !wants_prefill(job) || job->key <= after) continue;
            if (!next || job->key < next->key) next = job;
        }
        if (!next) break;
        const uint32_t left = next->reads - next->sequence->count, rows = left < budget ? left : budget;
        add_rows(step, next, MQ_PHASE_PREFILL, rows);
        budget -= rows;
        after = next->key;
    }
}

static void gather_decode(mq_scheduler *s, step_rows *step)
{
    for (mq_job *job = s->running.first; job; job = job->next) {
        if (job->loading || !wants_decode(job)) continue;
        const uint32_t left = job->count - job->sequence->count;
        add_rows(step, job, MQ_PHASE_DECODE, left < MQ_DECODE_ROWS ? left + job->draft.drafted : MQ_DECODE_ROWS);
    }
}

static uint32_t rows_of_step(const step_rows *step)
{
    uint32_t rows = 0;
    for (uint32_t i = 0; i < step->count; i++) {
        rows += step->rows[i].count;
    }
    return rows;
}

static uint32_t drafted_of_step(const step_rows *step)
{
    uint32_t rows = 0;
    for (uint32_t i = 0; i < step->count; i++) {
        rows += step->job[i]->draft.drafted;
    }
    return rows;
}

static mq_kv_need need_of_step(const step_rows *step)
{
    mq_kv_need need = {0};
    for (uint32_t i = 0; i < step->count; i++) {
        const mq_sequence *sequence = step->rows[i].sequence;
        const uint32_t count = sequence->count + step->rows[i].count;
        need.blocks += mq__sequence_blocks_missing(sequence, count);
        need.windows += mq__sequence_windows_missing(sequence, count);
    }
    return need;
}

/* Gathers rows for which there are blocks: making room may park the youngest job, whose rows are not wanted then. `budget`: of prefill
 * rows. False: there are none, or no room without parking or before what is held is let go. */
static bool gather_with_room(mq_scheduler *s, mq_phase phase, uint32_t budget, bool parks)
{
    step_rows *step = &s->step[phase];
    for (;;) {
        step->count = 0;
        if (phase == MQ_PHASE_PREFILL)
            gather_prefill(s, step, budget);
        else
            gather_decode(s, step);
        const uint32_t before = s->running.count;
        const bool room = mq__make_room(s, need_of_step(step), parks);
        if (s->running.count != before) continue;
        const bool waits = !room && parks && s->held.count > 0;
        s->lacks_room = s->lacks_room || waits;
        return step->count > 0 && !waits && (room || parks);
    }
}

/* ---- drafts */

/* Before the rows of a decode step are gathered: what each answer may go on with, behind its known tokens. */
static void propose_drafts(mq_scheduler *s)
{
    uint32_t count = 0, rows = 0;
    for (mq_job *job = s->running.first; job; job = job->next) {
        job->draft.drafted = 0;
        if (job->loading || !wants_decode(job)) continue;
        rows++;
        const uint32_t left = job->prompt + job->max_tokens - job->count; /* the last one is never run */
        if (job->count - job->sequence->count > 1 || left < 2) continue;
        mq_draft_answer *a = &job->draft;
        a->sequence = job->sequence;
        a->generation = job->generation;
        a->constraint = job->constraint;
        a->tokens = job->tokens;
        a->count = job->count;
        a->most = left - 1;
        s->drafting[count++] = a;
    }
    if (count) mq__draft_propose(s->drafter, s->drafting, count, rows);
}

static void drop_drafts(mq_scheduler *s)
{
    for (mq_job *job = s->running.first; job; job = job->next) {
        job->draft.drafted = 0;
    }
}

/* Nobody is parked for the sake of drafts. */
static bool gather_drafted(mq_scheduler *s, bool parks)
{
    propose_drafts(s);
    if (gather_with_room(s, MQ_PHASE_DECODE, 0, false)) return true;
    drop_drafts(s);
    return gather_with_room(s, MQ_PHASE_DECODE, 0, parks);
}

/* ---- running them */

void mq__leave_running(mq_scheduler *s, const mq_job *job)
{
    mq_job **at = &s->running.first;
    while (*at != job) {
        at = &(*at)->next;
    }
    (void)mq__jobs_remove(&s->running, at);
}

/* KV behind the last token but one is of drafts that were wrong, or of tokens that need not be run. */
static void forget_drafts(mq_job *job)
{
    if (job->draft.drafted) (void)mq_sequence_truncate(job->sequence, job->count - 1);
    job->draft.drafted = 0;
}

static void end_running(mq_scheduler *s, mq_job *job, mq_finish finish, const char *bytes, size_t count)
{
    mq__leave_running(s, job);
    forget_drafts(job);
    mq__job_end(s, job, finish, bytes, count);
}

static void fail_running(mq_scheduler *s, mq_job *job, const mq_error *error)
{
    mq__leave_running(s, job);
    forget_drafts(job);
    mq__job_fail(s, job, error);
}

/* Runs the gathered rows. If the engine refuses the step, each entry runs alone and those that it refuses fail: their draw_status and
 * report say why. */
static void run_gathered(mq_scheduler *s, step_rows *step)
{
    mq_error error = {0};
    for (uint32_t i = 0; i < step->count; i++) {
        step->job[i]->draw_status = MQ_OK;
    }
    if (mq_engine_step(s->engine, step->rows, step->count, &error) == MQ_OK) return;
    for (uint32_t i = 0; i < step->count; i++) {
        error = (mq_error){0};
        step->job[i]->draw_status = mq_engine_step(s->engine, &step->rows[i], 1, &error);
        if (step->job[i]->draw_status == MQ_OK) continue;
        step->rows[i].status = error.status;
        step->job[i]->report.error = error;
    }
}

/* Ends the jobs whose rows did not run to their end; their places become NULL. */
static void end_broken(mq_scheduler *s, step_rows *step)
{
    for (uint32_t i = 0; i < step->count; i++) {
        mq_job *job = step->job[i];
        const mq_status status = step->rows[i].status;
        if (status == MQ_OK) continue;
        mq_error error = job->report.error; /* or of a transfer, before */
        if (status == MQ_CANCELLED) {
            end_running(s, job, MQ_FINISH_CANCELLED, NULL, 0);
        } else {
            if (job->draw_status == MQ_OK) {
                (void)mq__fail(&error, status,
                               "scheduler: logits: expected numbers, got NaN or infinity (damaged weights)");
            }
            fail_running(s, job, &error);
        }
        step->job[i] = NULL;
    }
}

static void prefill_ran(mq_scheduler *s, mq_job *job)
{
    mq__job_keep(s, job);
    mq__sink_stored(s, job);
    job->report.prompt_done = job->sequence->count;
    job->report.prefilled = MQ_PREFILLED_LOCAL;
    job->report.prefill_s = mq__seconds() - job->admitted;
    mq__job_progress(job);
}

/* ---- tokens */

/* A draw from the logits of a row: the last one of the sequence, or so many before it. */
static void draw_token(mq_job *job, uint32_t before_last)
{
    const uint32_t *mask = job->constraint ? mq_constraint_mask(job->constraint) : NULL;
    mq_error error = {0};
    job->draw_status = mq_sampler_draw(mq_generation_sampler(job->generation),
                                       mq_sequence_logits_of(job->sequence, before_last), mask, &job->drawn, &error);
    if (job->draw_status != MQ_OK) job->report.error = error;
    const mq_draft_script *script = job->draft.script;
    if (script) job->drawn = mq__draft_scripted(script, mq_generation_count(job->generation));
}

/* The first draw of a part of the jobs: draws of different jobs share nothing. */
static void draw_first(void *context, int thread, int threads)
{
    mq_scheduler *s = context;
    size_t begin, end;
    mq__partition(s->draws, thread, threads, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        mq_job *job = s->step[MQ_PHASE_DECODE].job[i];
        draw_token(job, job->draft.drafted);
    }
}

/* Keeps those whose logits are there at the beginning. */
static void collect_draws(mq_scheduler *s, step_rows *step)
{
    s->draws = 0;
    for (uint32_t i = 0; i < step->count; i++) {
        mq_job *job = step->job[i];
        if (job && job->sequence->count == job->count + job->draft.drafted) step->job[s->draws++] = job;
    }
}

static mq_status accept_token(mq_job *job, const char **bytes, size_t *count, mq_finish *finish, mq_error *error)
{
    if (job->draw_status != MQ_OK) {
        *error = job->report.error;
        return job->draw_status;
    }
    mq_status status = MQ_OK;
    if (job->constraint) status = mq_constraint_accept(job->constraint, job->drawn, error);
    if (status == MQ_OK) {
        status = mq_generation_push(job->generation, job->drawn, bytes, count, finish, error);
    }
    return status;
}

static void tell_token(mq_scheduler *s, mq_job *job, const char *bytes, size_t count, uint32_t before_last)
{
    mq_token_logprob top[TOP_MAX];
    mq_event event = {.kind = MQ_EVENT_TOKEN,
                      .bytes = bytes,
                      .count = count,
                      .token = job->drawn,
                      .logprob = NAN,
                      .top = top,
                      .report = &job->report};
    if (job->logprobs) {
        const float *logits = mq_sequence_logits_of(job->sequence, before_last);
        event.top_count = job->top_logprobs;
        event.logprob = mq_logprobs(logits, s->info.vocab, job->drawn, top, job->top_logprobs);
    }
    mq__job_tell(job, &event);
}

/* Takes the drawn token. False: the answer has ended with it, one way or another. An end token has no text; the text that was held
 * back comes with the end. */
static bool push_token(mq_scheduler *s, mq_job *job, uint32_t before_last)
{
    mq_error error = {0};
    mq_finish finish;
    const char *bytes;
    size_t count;
    if (accept_token(job, &bytes, &count, &finish, &error) != MQ_OK) {
        fail_running(s, job, &error);
        return false;
    }
    const bool goes_on = finish == MQ_FINISH_NONE;
    job->report.generated = mq_generation_count(job->generation);
    if (finish == MQ_FINISH_STOP) job->report.stop = (uint32_t)mq_generation_stop(job->generation);
    s->tokens_drawn++;
    if (finish != MQ_FINISH_EOS) {
        job->tokens[job->count++] = job->drawn;
        tell_token(s, job, goes_on ? bytes : NULL, goes_on ? count : 0, before_last);
    }
    if (!goes_on) end_running(s, job, finish, bytes, count);
    return goes_on;
}

/* The drawn token, and while it is the one that was drafted the next row's. What follows is as if each had been run alone: a row
 * has the bits that it has alone, and a draw depends on logits, seed and position only. */
static void push_tokens(mq_scheduler *s, mq_job *job)
{
    const uint32_t drafted = job->draft.drafted;
    uint32_t right = 0;
    job->report.drafted += drafted;
    s->drafted += drafted;
    for (;;) {
        const bool is_right = job->draw_status == MQ_OK && mq__draft_judge(s->drafter, &job->draft, right, job->drawn);
        job->report.drafted_right += is_right;
        s->drafted_right += is_right;
        if (!push_token(s, job, drafted - right)) return;
        if (!is_right) break;
        right++;
        draw_token(job, drafted - right);
    }
    forget_drafts(job);
    mq__job_keep(s, job);
}

/* The last token of a prompt has run: its answer begins. */
static void note_read(mq_job *job, double start)
{
    if (job->read_done != 0 || job->sequence->count < job->prompt) return;
    const double now = mq__seconds();
    pthread_mutex_lock(&job->lock);
    job->read_done = now;
    pthread_mutex_unlock(&job->lock);
    job->report.last_s = now - start;
    job->report.prefill_s = start - job->admitted;
    job->report.prompt_done = job->prompt;
}

static void decode_ran(mq_scheduler *s, step_rows *step, double start)
{
    end_broken(s, step);
    for (uint32_t i = 0; i < step->count; i++) {
        mq_job *job = step->job[i];
        if (!job) continue;
        note_read(job, start);
        if (job->report.generated) job->report.decode_s = mq__seconds() - job->read_done;
    }
    collect_draws(s, step);
    mq__pool_run(s->engine->pool, draw_first, s);
    for (uint32_t i = 0; i < s->draws; i++) {
        mq_job *job = step->job[i];
        if (job->max_tokens == 0)
            end_running(s, job, MQ_FINISH_LENGTH, NULL, 0);
        else
            push_tokens(s, job);
    }
}

static void note_decode(mq_scheduler *s, double seconds)
{
    if (s->decode_s == 0) s->decode_s = seconds;
    s->decode_s += (seconds > s->decode_s ? SLOWER : FASTER) * (seconds - s->decode_s);
}

static bool run_decode(mq_scheduler *s, bool parks)
{
    step_rows *step = &s->step[MQ_PHASE_DECODE];
    const double start = mq__seconds();
    if (!gather_drafted(s, parks)) return false;
    const double drafted = mq__seconds();
    run_gathered(s, step);
    const double ended = mq__seconds(), seconds = ended - start;
    const uint32_t rows = rows_of_step(step), answers = step->count;
    mq__draft_stepped(s->drafter, rows, drafted_of_step(step) > 0, ended - drafted);
    note_decode(s, seconds);
    s->tokens_drawn = s->drafted = s->drafted_right = 0;
    decode_ran(s, step, start);
    s->decoded = mq__seconds();
    pthread_mutex_lock(&s->lock);
    s->stats.steps++;
    s->stats.step_answers += answers;
    s->stats.generated_s += seconds;
    s->stats.generated_tokens += s->tokens_drawn;
    s->stats.drafted_tokens += s->drafted;
    s->stats.drafted_right_tokens += s->drafted_right;
    pthread_mutex_unlock(&s->lock);
    return true;
}

/* ---- a prefill step */

static double allowed_pause(const mq_scheduler *s)
{
    return (s->options.gap - 1) * s->decode_s;
}

/* Before each layer but the first: a decode step, if the answers' pause would be too long after another such layer. */
static void between_layers(void *context, uint32_t layers)
{
    mq_scheduler *s = context;
    const double now = mq__seconds(), layer = now - s->reading.layer_began;
    reading *r = &s->reading;
    mq__tell_sinks(s, layers);
    r->layer_s += r->layer_s > 0 ? SMOOTH * (layer - r->layer_s) : layer;
    if (r->answers && now - s->decoded + r->layer_s > allowed_pause(s)) (void)run_decode(s, false);
    r->layer_began = mq__seconds();
    r->others += r->layer_began - now;
}

/* The budget goes where a layer, and the pass, take as long as they may; by half or twice at most. `seconds`: of the pass. */
static void adapt_budget(mq_scheduler *s, uint32_t rows, double seconds)
{
    reading *r = &s->reading;
    if (rows < r->budget) return; /* it was not filled: nothing is to be learnt */
    const double more = fmin(allowed_pause(s) / fmax(r->layer_s, 1e-6), PASS_S / fmax(seconds, 1e-6));
    const double next = rows * fmin(fmax(more, 0.5), 2);
    r->budget = (uint32_t)fmin(fmax(next, BUDGET_LEAST), s->info.chunk);
}

static bool run_prefill(mq_scheduler *s, bool answers)
{
    step_rows *step = &s->step[MQ_PHASE_PREFILL];
    reading *r = &s->reading;
    if (r->budget == 0) r->budget = BUDGET_FIRST < s->info.chunk ? BUDGET_FIRST : s->info.chunk;
    if (!gather_with_room(s, MQ_PHASE_PREFILL, answers ? r->budget : s->info.chunk, true)) return false;
    const uint32_t rows = rows_of_step(step);
    const double start = r->layer_began = mq__seconds();
    r->others = 0;
    r->answers = answers;
    mq__engine_set_interlude(s->engine, between_layers, s);
    run_gathered(s, step);
    mq__engine_set_interlude(s->engine, NULL, NULL);
    const double seconds = mq__seconds() - start - r->others;
    if (answers) adapt_budget(s, rows, seconds);
    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < step->count; i++) {
        s->stats.prompt_tokens += step->rows[i].done;
    }
    s->stats.prompt_s += seconds;
    pthread_mutex_unlock(&s->lock);
    end_broken(s, step);
    for (uint32_t i = 0; i < step->count; i++) {
        if (step->job[i]) prefill_ran(s, step->job[i]);
    }
    return true;
}

/* What is not rows: blocks from disk, KV from and to others, and prompts that are only to be read. */
static bool run_transfers(mq_scheduler *s, uint32_t answers)
{
    bool ran = false;
    for (mq_job *job = s->running.first, *next; job; job = next) {
        next = job->next;
        load_blocks(s, job, answers ? 1 : 16);
        ran = ran || job->loading;
        if (job->loading) continue;
        mq__sink_begin(job);
        if (!job->prefill_only || wants_prefill(job)) continue;
        end_running(s, job, MQ_FINISH_LENGTH, NULL, 0);
        ran = true;
    }
    return mq__run_arrivals(s, answers) || ran;
}

bool mq__run_step(mq_scheduler *s)
{
    uint32_t answers = 0;
    for (mq_job *job = s->running.first; job; job = job->next) {
        answers += !job->loading && wants_decode(job);
    }
    const bool moved = run_transfers(s, answers);
    const bool read = run_prefill(s, answers > 0);
    return run_decode(s, true) || read || moved;
}
