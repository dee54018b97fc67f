/* What the scheduler costs and keeps, on random weights of a published shape; each figure against the engine's own in the same process,
 * in turn. usage: bench_scheduler [SHAPE [PROMPT]] (qwen3-0.6b, 8192)
 *
 *     first token   from submission to the first token, over mq_sequence_sync of the same prompt
 *     32 streams    tokens a second of 32 answers, over steps of 32 rows with a draw each
 *     gaps          pauses of 8 answers, alone and while a long prompt is read */
#include "mixquant_serve.h"
#include "mixquant_tools.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STREAMS  32
#define RUNS     5
#define TOKENS   48
#define TALKERS  8
#define GAPS_MAX 100000
#define CONTEXT  16384

static mq_engine *engine;
static mq_text *text;
static mq_engine_info info;

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void check(mq_status status, const mq_error *error)
{
    if (status == MQ_OK) return;
    fprintf(stderr, "bench_scheduler: %s\n", error->text);
    exit(1);
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(double *values, size_t count, double q)
{
    qsort(values, count, sizeof *values, compare);
    return values[(size_t)(q * (double)(count - 1))];
}

static int32_t *new_prompt(uint32_t count, unsigned seed)
{
    int32_t *tokens = malloc(count * sizeof *tokens);
    for (uint32_t i = 0; tokens && i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        tokens[i] = (int32_t)((seed >> 8) % info.vocab);
    }
    return tokens;
}

/* ---- a client: when its tokens came */

typedef struct client {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    double start, first, last;
    double gap[GAPS_MAX];
    uint32_t tokens, gaps;
    bool ended;
    mq_job *job;
} client;

static void hear(void *context, const mq_event *event)
{
    client *c = context;
    const double now = seconds();
    pthread_mutex_lock(&c->lock);
    if (event->kind == MQ_EVENT_TOKEN) {
        if (c->tokens++ == 0)
            c->first = now;
        else if (c->gaps < GAPS_MAX)
            c->gap[c->gaps++] = now - c->last;
        c->last = now;
    }
    c->ended = event->kind == MQ_EVENT_END;
    if (c->ended || c->tokens == 1) pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static void submit(mq_scheduler *s, client *c, const int32_t *prompt, uint32_t count, uint32_t most)
{
    mq_error error = {0};
    const mq_request request = {.tokens = prompt,
                                .count = count,
                                .options = {.sampling = MQ_SAMPLING_GREEDY, .max_tokens = most, .ignore_eos = true},
                                .event = hear,
                                .context = c};
    memset(c, 0, sizeof *c);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    c->start = seconds();
    check(mq_scheduler_submit(s, &request, &c->job, &error), &error);
}

static void wait_tokens(client *c, uint32_t tokens)
{
    pthread_mutex_lock(&c->lock);
    while (!c->ended && c->tokens < tokens) {
        pthread_cond_wait(&c->changed, &c->lock);
    }
    pthread_mutex_unlock(&c->lock);
}

static void finish(client *c)
{
    wait_tokens(c, UINT32_MAX);
    mq_job_free(c->job);
}

static mq_scheduler *start(void)
{
    mq_scheduler *s;
    mq_error error = {0};
    const mq_scheduler_options options = {.engine = engine, .text = text};
    check(mq_scheduler_start(&options, &s, &error), &error);
    return s;
}

/* ---- figures */

static double engine_first(const int32_t *prompt, uint32_t count)
{
    mq_sequence *sequence;
    mq_error error = {0};
    check(mq_sequence_new(engine, &sequence, &error), &error);
    const double begin = seconds();
    check(mq_sequence_sync(sequence, prompt, count, NULL, NULL, &error), &error);
    const double took = seconds() - begin;
    mq_sequence_free(sequence);
    return took;
}

static void bench_first_token(uint32_t count)
{
    double ratio[RUNS], own[RUNS];
    client *c = malloc(sizeof *c);
    for (unsigned run = 0; c && run < RUNS; run++) {
        int32_t *prompt = new_prompt(count, run);
        own[run] = engine_first(prompt, count);
        mq_scheduler *s = start();
        submit(s, c, prompt, count, 1);
        finish(c);
        mq_scheduler_stop(s);
        ratio[run] = (c->first - c->start) / own[run];
        free(prompt);
    }
    const double median = quantile(ratio, RUNS, 0.5);
    printf("first token of %u: %.3f s of the engine; scheduler over engine: median %.3f (%.3f to %.3f)\n", count,
           quantile(own, RUNS, 0.5), median, ratio[0], ratio[RUNS - 1]);
    free(c);
}

/* Greedy: the largest logit, as the sampler finds it. */
static double engine_streams(int32_t *const *prompt)
{
    mq_sequence *sequence[STREAMS];
    mq_sampler *sampler[STREAMS];
    mq_rows rows[STREAMS];
    int32_t token[STREAMS];
    mq_error error = {0};
    for (int i = 0; i < STREAMS; i++) {
        check(mq_sequence_new(engine, &sequence[i], &error), &error);
        check(mq_sequence_sync(sequence[i], prompt[i], 16, NULL, NULL, &error), &error);
        check(mq_sampler_new(&MQ_SAMPLING_GREEDY, info.vocab, prompt[i], 16, &sampler[i], &error), &error);
    }
    const double begin = seconds();
    for (int step = 0; step < TOKENS; step++) {
        for (int i = 0; i < STREAMS; i++) {
            check(mq_sampler_draw(sampler[i], mq_sequence_logits(sequence[i]), NULL, &token[i], &error), &error);
            rows[i] = (mq_rows){
                .sequence = sequence[i], .tokens = &token[i], .count = 1, .phase = MQ_PHASE_DECODE, .logits = 1};
        }
        check(mq_engine_step(engine, rows, STREAMS, &error), &error);
    }
    const double took = seconds() - begin;
    for (int i = 0; i < STREAMS; i++) {
        mq_sequence_free(sequence[i]);
        mq_sampler_free(sampler[i]);
    }
    return STREAMS * TOKENS / took;
}

/* From when all of them talk to when the first one ends. */
static double scheduler_streams(int32_t *const *prompt)
{
    client *c = calloc(STREAMS, sizeof *c);
    mq_scheduler *s = start();
    for (int i = 0; c && i < STREAMS; i++) {
        submit(s, &c[i], prompt[i], 16, TOKENS);
    }
    double begin = 0, end = INFINITY;
    uint32_t tokens = 0;
    for (int i = 0; c && i < STREAMS; i++) {
        finish(&c[i]);
        begin = fmax(begin, c[i].first);
        end = fmin(end, c[i].last);
    }
    for (int i = 0; c && i < STREAMS; i++) {
        double at = c[i].first;
        for (uint32_t g = 0; g < c[i].gaps; g++) {
            at += c[i].gap[g];
            tokens += at > begin && at <= end;
        }
    }
    mq_scheduler_stop(s);
    free(c);
    return tokens / (end - begin);
}

static void bench_streams(void)
{
    double ratio[RUNS], own[RUNS];
    int32_t *prompt[STREAMS];
    for (unsigned i = 0; i < STREAMS; i++) {
        prompt[i] = new_prompt(16, 100 + i);
    }
    for (int run = 0; run < RUNS; run++) {
        own[run] = engine_streams(prompt);
        ratio[run] = scheduler_streams(prompt) / own[run];
    }
    const double median = quantile(ratio, RUNS, 0.5);
    printf("%d streams: %.1f tok/s of the engine; scheduler over engine: median %.3f (%.3f to %.3f)\n", STREAMS,
           quantile(own, RUNS, 0.5), median, ratio[0], ratio[RUNS - 1]);
    for (int i = 0; i < STREAMS; i++) {
        free(prompt[i]);
    }
}

static size_t gather_gaps(const client *c, double from, double to, double *gaps, size_t count)
{
    for (int i = 0; i < TALKERS; i++) {
        double at = c[i].first;
        for (uint32_t g = 0; g < c[i].gaps; g++) {
            at += c[i].gap[g];
            if (at > from && at < to && count < GAPS_MAX) gaps[count++] = c[i].gap[g];
        }
    }
    return count;
}

static void bench_gaps(uint32_t count)
{
    client *c = calloc(TALKERS, sizeof *c), *reader = malloc(sizeof *reader);
    double *alone = malloc(GAPS_MAX * sizeof *alone), *beside = malloc(GAPS_MAX * sizeof *beside);
    if (!c || !reader || !alone || !beside) exit(1);
    mq_scheduler *s = start();
    int32_t *prompt = new_prompt(count, 7);
    for (int i = 0; i < TALKERS; i++) {
        int32_t *own = new_prompt(64, 200 + (unsigned)i);
        submit(s, &c[i], own, 64, CONTEXT - 100);
        free(own);
    }
    for (int i = 0; i < TALKERS; i++) {
        wait_tokens(&c[i], 1);
    }
    const double begin = seconds();
    nanosleep(&(struct timespec){.tv_sec = 8}, NULL);
    submit(s, reader, prompt, count, 1);
    finish(reader);
    const double end = seconds();
    for (int i = 0; i < TALKERS; i++) {
        mq_job_free(c[i].job);
    }
    mq_scheduler_stop(s);
    const size_t a = gather_gaps(c, begin, reader->start, alone, 0), b = gather_gaps(c, reader->start, end, beside, 0);
    const double median = quantile(alone, a, 0.5), p99 = quantile(beside, b, 0.99);
    printf("%d answers: median pause %.1f ms alone, p99 %.1f; beside a prompt of %u: median %.1f, p99 %.1f ms, %.2f "
           "times; "
           "the prompt took %.1f s\n",
           TALKERS, 1e3 * median, 1e3 * quantile(alone, a, 0.99), count, 1e3 * quantile(beside, b, 0.5), 1e3 * p99,
           p99 / median, end - reader->start);
    free(prompt);
    free(c);
    free(reader);
    free(alone);
    free(beside);
}

int main(int argc, char **argv)
{
    const char *shape = argc > 1 ? argv[1] : "qwen3-0.6b";
    const uint32_t prompt = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 8192;
    const char *source = getenv("MQ_SOURCE_DIR");
    char *dir, tokenizer[1024];
    mq_error error = {0};
    setvbuf(stdout, NULL, _IOLBF, 0);
    snprintf(tokenizer, sizeof tokenizer, "%s/models/mixquant-agent", source ? source : ".");
    check(mq_text_open(tokenizer, NULL, &text, &error), &error);
    check(mq_synth_cached(shape, 0, NULL, &dir, &error), &error);
    const mq_engine_options options = {.model_dir = dir,
                                       .plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16},
                                       .context = CONTEXT,
                                       .sequences = 3};
    check(mq_engine_open(&options, &engine, &error), &error);
    mq_engine_describe(engine, &info);
    bench_first_token(2048);
    bench_streams();
    bench_gaps(prompt);
    mq_engine_close(engine);
    mq_text_close(text);
    mq_free(dir);
    return 0;
}
