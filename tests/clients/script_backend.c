#include "script_backend.h"

#include "base/error.h"
#include "base/mem.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BLOCK 64 /* tokens that the prefix cache has together */

typedef struct known_prompt {
    struct known_prompt *next;
    uint64_t owner;
    uint32_t count;
    int32_t tokens[];
} known_prompt;

struct script_backend {
    const mq_text *text;
    const mq_engine_info *info;
    json_t *script, *answers;
    pthread_mutex_t lock;
    pthread_cond_t idle;
    uint32_t threads, running, waiting, requests, released;
    bool draining;
    mq_scheduler_stats stats;
    known_prompt *known;
    mq_request last;
    char *last_prompt;
    char peer[300], lease[140]; /* of the latest request */
    int *used;                  /* [answers] */
};

struct mq_job {
    script_backend *script;
    atomic_uint holders;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool left;
    mq_request request;
    int32_t *prompt;
    mq_generation *generation;
    mq_constraint *constraint;
    json_t *answer; /* borrowed from the script; NULL: "ok" */
    mq_report report;
};

_Noreturn static void stop(const char *what, const char *why)
{
    fprintf(stderr, "script: %s: %s\n", what, why);
    abort();
}

static double number_of(const json_t *object, const char *name, double fallback)
{
    const json_t *value = json_object_get(object, name);
    return json_is_number(value) ? json_number_value(value) : fallback;
}

/* ---- jobs */

static void free_job(mq_job *job)
{
    mq_generation_free(job->generation);
    mq_constraint_free(job->constraint);
    pthread_mutex_destroy(&job->lock);
    pthread_cond_destroy(&job->changed);
    free(job->prompt);
    free(job);
}

static void let_go(mq_job *job)
{
    if (atomic_fetch_sub(&job->holders, 1) == 1) free_job(job);
}

static void tell(mq_job *job, mq_event *event)
{
    event->report = &job->report;
    pthread_mutex_lock(&job->lock);
    if (!job->left) job->request.event(job->request.context, event);
    pthread_mutex_unlock(&job->lock);
}

/* False: the client has left meanwhile. */
static bool pause_for(mq_job *job, double seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    const double end = (double)until.tv_sec + 1e-9 * (double)until.tv_nsec + seconds;
    until.tv_sec = (time_t)end;
    until.tv_nsec = (long)((end - floor(end)) * 1e9);
    pthread_mutex_lock(&job->lock);
    while (!job->left && seconds > 0 && pthread_cond_timedwait(&job->changed, &job->lock, &until) == 0) {}
    const bool stays = !job->left;
    pthread_mutex_unlock(&job->lock);
    return stays;
}

static void end_with(mq_job *job, mq_finish finish, const char *bytes, size_t count)
{
    mq_event event = {.kind = MQ_EVENT_END, .bytes = bytes, .count = count, .token = -1};
    job->report.finish = finish;
    tell(job, &event);
}

static void fail_with(mq_job *job, const mq_error *error)
{
    job->report.status = error->status;
    job->report.error = *error;
    end_with(job, MQ_FINISH_CANCELLED, NULL, 0);
}

/* ---- reading the prompt */

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* What the earlier prompts of an owner have of this one, in whole blocks, and where the best of them differs. */
static void look_up(mq_job *job)
{
    script_backend *s = job->script;
    uint32_t best = 0;
    mq_report *r = &job->report;
    r->miss_token = -1;
    for (const known_prompt *k = s->known; k; k = k->next) {
        uint32_t n = 0;
        while (k->owner == job->request.owner && n < k->count && n < r->prompt && k->tokens[n] == job->prompt[n]) {
            n++;
        }
        if (n < best || n == 0) continue;
        best = n;
        r->miss_token = n < k->count && n < r->prompt ? k->tokens[n] : -1;
        r->miss_at = n;
    }
    if (best == r->prompt) best--; /* the last token is always computed */
    r->cached = r->prompt_done = best / BLOCK * BLOCK;
    if (r->miss_token < 0) r->miss_at = r->cached;
}

static void learn_prompt(mq_job *job)
{
    script_backend *s = job->script;
    known_prompt *k = malloc(sizeof *k + job->report.prompt * sizeof k->tokens[0]);
    if (!k) stop("memory", "none");
    *k = (known_prompt){.next = s->known, .owner = job->request.owner, .count = job->report.prompt};
    memcpy(k->tokens, job->prompt, job->report.prompt * sizeof k->tokens[0]);
    s->known = k;
}

/* A share of the prompt has been read, here or elsewhere. */
static void note_read(mq_job *job, uint32_t first, double share)
{
    mq_report *r = &job->report;
    const char *where = json_string_value(json_object_get(job->answer, "prefilled"));
    const uint32_t rest = r->prompt - first;
    r->prompt_done = first + (uint32_t)((double)rest * share);
    if (!where || strcmp(where, "local") == 0) {
        r->prefilled = rest ? MQ_PREFILLED_LOCAL : MQ_PREFILLED_NONE;
        return;
    }
    if (strcmp(where, "none") == 0) return;
    const bool breaks = strcmp(where, "broken") == 0 && share > 0.5; /* the second half had to be computed here */
    r->arriving = share < 1 && !breaks;
    if (r->prompt_done >= r->prompt) r->prompt_done = r->prompt - 1; /* the last token is decoded */
    if (!breaks) r->arrived = r->prompt_done - first;
    r->prefilled = breaks ? MQ_PREFILLED_LOCAL : MQ_PREFILLED_REMOTE;
    r->transfer_failures = breaks;
    if (breaks) snprintf(r->error.text, sizeof r->error.text, "script: the transfer broke");
}

static bool read_script_prompt(mq_job *job)
{
    script_backend *s = job->script;
    const double begun = now_s(), seconds = number_of(job->answer, "prefill_s", number_of(s->script, "prefill_s", 0));
    const int steps = (int)number_of(s->script, "steps", 4);
    mq_event event = {.kind = MQ_EVENT_PROGRESS, .token = -1};
    pthread_mutex_lock(&s->lock);
    look_up(job);
    learn_prompt(job);
    s->stats.hit_tokens += job->report.cached;
    s->stats.cached_tokens += job->report.cached;
    s->stats.miss_tokens += job->report.prompt - job->report.cached;
    s->stats.prompt_tokens += job->report.prompt - job->report.cached;
    s->stats.prompt_s += seconds;
    pthread_mutex_unlock(&s->lock);
    job->report.plan_prefill = "nvfp4";
    job->report.plan_decode = "bf16";
    tell(job, &event);
    const uint32_t first = job->report.cached;
    for (int i = 1; i <= steps; i++) {
        if (!pause_for(job, seconds / steps)) return false;
        note_read(job, first, (double)i / steps);
        job->report.prefill_s = now_s() - begun;
        if (i < steps || steps == 1) tell(job, &event);
    }
    job->report.last_s = 0.001;
    return true;
}

/* ---- the answer */

static bool allowed(mq_job *job, int32_t token, mq_error *error)
{
    const uint32_t *mask = job->constraint ? mq_constraint_mask(job->constraint) : NULL;
    if (mask && !(mask[token / 32] >> (token % 32) & 1U)) {
        (void)mq__fail(error, MQ_FORMAT, "script: token %d: expected one that the mask allows", token);
        return false;
    }
    return !job->constraint || mq_constraint_accept(job->constraint, token, error) == MQ_OK;
}

/* False: it has ended. */
static bool say_token(mq_job *job, int32_t token)
{
    mq_error error = {0};
    mq_finish finish = MQ_FINISH_NONE;
    const mq_token_logprob top[2] = {{token, -0.25f}, {token ? token - 1 : token + 1, -2.5f}};
    mq_event event = {.kind = MQ_EVENT_TOKEN, .token = token, .logprob = -0.25f, .top = top};
    event.top_count = job->request.options.top_logprobs < 2 ? job->request.options.top_logprobs : 2;
    if (!allowed(job, token, &error) ||
        mq_generation_push(job->generation, token, &event.bytes, &event.count, &finish, &error) != MQ_OK) {
        fail_with(job, &error);
        return false;
    }
    job->report.generated = mq_generation_count(job->generation);
    job->report.decode_s += 0.001;
    if (finish == MQ_FINISH_STOP) job->report.stop = (uint32_t)mq_generation_stop(job->generation);
    const char *bytes = event.bytes;
    const size_t count = event.count;
    if (finish != MQ_FINISH_NONE) event.count = 0;
    if (finish != MQ_FINISH_EOS) tell(job, &event);
    if (finish != MQ_FINISH_NONE) end_with(job, finish, bytes, count);
    return finish == MQ_FINISH_NONE;
}

static void say(mq_job *job)
{
    script_backend *s = job->script;
    const json_t *given = json_object_get(job->answer, "answer");
    const char *text = given ? json_string_value(given) : "ok";
    const double pause = number_of(job->answer, "token_s", number_of(s->script, "token_s", 0));
    int32_t *tokens;
    size_t count;
    mq_error error = {0};
    if (mq_tokenize(s->text, text, given ? json_string_length(given) : 2, MQ_TOKENIZE_PARSE_SPECIAL, &tokens, &count,
                    &error) != MQ_OK) {
        stop("text", error.text);
    }
    bool goes_on = true;
    for (size_t i = 0; goes_on && i < count; i++) {
        goes_on = pause_for(job, pause) && say_token(job, tokens[i]);
    }
    mq_free(tokens);
    pthread_mutex_lock(&s->lock);
    s->stats.generated_tokens += job->report.generated;
    s->stats.generated_s += job->report.decode_s;
    s->stats.steps += job->report.generated;
    pthread_mutex_unlock(&s->lock);
    if (goes_on && s->info->eos_count) (void)say_token(job, s->info->eos[0]);
}

static void refuse_by_name(mq_job *job, const char *name)
{
    static const struct {
        const char *name;
        mq_status status;
    } statuses[] = {{"no_memory", MQ_NO_MEMORY}, {"format", MQ_FORMAT}, {"io", MQ_IO}, {"usage", MQ_USAGE}};
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        mq_error error = {0};
        if (strcmp(statuses[i].name, name) != 0) continue;
        (void)mq__fail(&error, statuses[i].status, "script: it was asked to fail");
        job->report.transfer_failures += json_is_true(json_object_get(job->answer, "transfer"));
        fail_with(job, &error);
        return;
    }
    stop("error", name);
}

static void count_running(script_backend *s, int more)
{
    pthread_mutex_lock(&s->lock);
    s->running += (uint32_t)more;
    pthread_mutex_unlock(&s->lock);
}

static void *run_script_job(void *context)
{
    mq_job *job = context;
    script_backend *s = job->script;
    const char *error = json_string_value(json_object_get(job->answer, "error"));
    bool stays = true;
    while (stays && json_is_true(json_object_get(job->answer, "hold"))) {
        stays = pause_for(job, 60);
    }
    pthread_mutex_lock(&s->lock);
    s->waiting--;
    s->running++;
    pthread_mutex_unlock(&s->lock);
    if (stays && read_script_prompt(job)) {
        if (error)
            refuse_by_name(job, error);
        else if (json_is_true(json_object_get(job->answer, "cancel")))
            end_with(job, MQ_FINISH_CANCELLED, NULL, 0);
        else
            say(job);
    }
    count_running(s, -1);
    let_go(job);
    pthread_mutex_lock(&s->lock);
    if (--s->threads == 0) pthread_cond_broadcast(&s->idle);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- submitting */

/* The first answer that fits, with the lock. */
static json_t *choose_answer(script_backend *s, const char *prompt)
{
    size_t i;
    json_t *answer;
    json_array_foreach(s->answers, i, answer)
    {
        const char *when = json_string_value(json_object_get(answer, "when"));
        const int times = (int)number_of(answer, "times", 0);
        if (times && s->used[i] >= times) continue;
        if (when && !strstr(prompt, when)) continue;
        s->used[i]++;
        return answer;
    }
    return NULL;
}

static mq_job *new_job(script_backend *s, const mq_request *request, mq_error *error)
{
    mq_job *job = calloc(1, sizeof *job);
    if (!job) stop("memory", "none");
    job->script = s;
    job->request = *request;
    job->prompt = malloc(request->count * sizeof *job->prompt);
    if (!job->prompt) stop("memory", "none");
    memcpy(job->prompt, request->tokens, request->count * sizeof *job->prompt);
    job->constraint = request->constraint;
    atomic_init(&job->holders, 2);
    pthread_mutex_init(&job->lock, NULL);
    pthread_cond_init(&job->changed, NULL);
    job->report = (mq_report){.prompt = request->count, .miss_token = -1};
    const mq_generation_start start = {.vocab = s->info->vocab,
                                       .eos = s->info->eos,
                                       .eos_count = s->info->eos_count,
                                       .tokens = request->tokens,
                                       .prompt_count = request->count,
                                       .token_count = request->count};
    if (mq_generation_new(s->text, &request->options, &start, &job->generation, error) == MQ_OK) return job;
    free_job(job);
    return NULL;
}

static mq_status refuse_job(script_backend *s, mq_error *error)
{
    if (s->draining) return mq__fail(error, MQ_CANCELLED, "script: expected no request while draining");
    if (s->waiting < number_of(s->script, "queue", 256)) return MQ_OK;
    return mq__fail(error, MQ_LIMIT, "script: queue: expected fewer waiting requests");
}

static mq_status submit_script(void *self, const mq_request *request, mq_job **out, mq_error *error)
{
    script_backend *s = self;
    char *prompt;
    size_t bytes;
    *out = NULL;
    mq_job *job = new_job(s, request, error);
    if (!job) return MQ_USAGE;
    if (mq_detokenize(s->text, request->tokens, request->count, false, &prompt, &bytes, error) != MQ_OK) {
        stop("prompt", error->text);
    }
    pthread_mutex_lock(&s->lock);
    const mq_status status = refuse_job(s, error);
    if (status == MQ_OK) {
        mq_free(s->last_prompt);
        s->last_prompt = prompt;
        s->last = *request;
        snprintf(s->peer, sizeof s->peer, "%s", request->prefill_peer ? request->prefill_peer : "");
        snprintf(s->lease, sizeof s->lease, "%s", request->prefill_lease ? request->prefill_lease : "");
        s->requests++;
        s->stats.requests++;
        s->waiting++;
        s->threads++;
        job->answer = choose_answer(s, prompt);
        *out = job;
        pthread_t thread;
        if (pthread_create(&thread, NULL, run_script_job, job) != 0) stop("thread", "none");
        pthread_detach(thread);
    }
    pthread_mutex_unlock(&s->lock);
    if (status == MQ_OK) return status;
    mq_free(prompt);
    free_job(job);
    return status;
}

static void release_script(void *self, mq_job *job)
{
    script_backend *s = self;
    pthread_mutex_lock(&job->lock);
    job->left = true;
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->lock);
    let_go(job);
    pthread_mutex_lock(&s->lock);
    s->released++;
    pthread_mutex_unlock(&s->lock);
}

static void describe_script(void *self, mq_scheduler_stats *stats)
{
    script_backend *s = self;
    pthread_mutex_lock(&s->lock);
    *stats = s->stats;
    stats->running = s->running;
    stats->waiting = s->waiting;
    stats->kv_blocks = 1000;
    stats->kv_blocks_free = 600;
    stats->kv_blocks_cached = 150;
    pthread_mutex_unlock(&s->lock);
}

mq_backend script_interface(script_backend *script)
{
    return (mq_backend){submit_script, release_script, describe_script, script, NULL};
}

/* ---- life */

script_backend *script_open(const char *json, const mq_text *text, const mq_engine_info *info)
{
    json_error_t error;
    script_backend *s = calloc(1, sizeof *s);
    if (!s) stop("memory", "none");
    s->script = json_loads(json, JSON_ALLOW_NUL, &error);
    if (!s->script) stop("JSON", error.text);
    s->answers = json_is_array(s->script) ? s->script : json_object_get(s->script, "answers");
    s->used = calloc(json_array_size(s->answers) + 1, sizeof *s->used);
    if (!s->used) stop("memory", "none");
    s->text = text;
    s->info = info;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->idle, NULL);
    return s;
}

void script_settle(script_backend *s)
{
    pthread_mutex_lock(&s->lock);
    while (s->threads) {
        pthread_cond_wait(&s->idle, &s->lock);
    }
    pthread_mutex_unlock(&s->lock);
}

void script_close(script_backend *s)
{
    script_settle(s);
    while (s->known) {
        known_prompt *next = s->known->next;
        free(s->known);
        s->known = next;
    }
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->idle);
    json_decref(s->script);
    mq_free(s->last_prompt);
    free(s->used);
    free(s);
}

static uint32_t read_counter(script_backend *s, const uint32_t *counter)
{
    pthread_mutex_lock(&s->lock);
    const uint32_t value = *counter;
    pthread_mutex_unlock(&s->lock);
    return value;
}

uint32_t script_requests(script_backend *s)
{
    return read_counter(s, &s->requests);
}

uint32_t script_released(script_backend *s)
{
    return read_counter(s, &s->released);
}

void script_drain(script_backend *s)
{
    pthread_mutex_lock(&s->lock);
    s->draining = true;
    pthread_mutex_unlock(&s->lock);
}

char *script_last_prompt(script_backend *s)
{
    pthread_mutex_lock(&s->lock);
    char *copy = s->last_prompt ? mq__strdup(s->last_prompt) : NULL;
    pthread_mutex_unlock(&s->lock);
    return copy;
}

void script_last_handoff(script_backend *s, char peer[300], char lease[140])
{
    pthread_mutex_lock(&s->lock);
    memcpy(peer, s->peer, sizeof s->peer);
    memcpy(lease, s->lease, sizeof s->lease);
    pthread_mutex_unlock(&s->lock);
}

mq_request script_last_request(script_backend *s)
{
    pthread_mutex_lock(&s->lock);
    const mq_request last = s->last;
    pthread_mutex_unlock(&s->lock);
    return last;
}
