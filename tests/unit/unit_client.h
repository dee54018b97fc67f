/* Clients of a scheduler over the small random model. */
#ifndef MQ_UNIT_CLIENT_H
#define MQ_UNIT_CLIENT_H

#define TOKENS 1
#include "unit_model.h"

#include "mixquant_serve.h"

#include <pthread.h>
#include <unistd.h>

#define ANSWER 24
#define LONG   940

static mq_text *text;

/* ---- a client */

typedef struct client {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int32_t prompt[LONG];
    uint32_t count;
    uint32_t most; /* tokens of its answer */
    int32_t answer[LONG];
    uint32_t answered, told; /* told: events */
    bool ended;
    mq_report report; /* the latest */
    mq_job *job;
} client;

static inline void hear(void *context, const mq_event *event)
{
    client *c = context;
    pthread_mutex_lock(&c->lock);
    assert_false(c->ended); /* nothing comes after the end */
    c->told++;
    c->report = *event->report;
    if (event->kind == MQ_EVENT_TOKEN && c->answered < LONG) c->answer[c->answered++] = event->token;
    if (event->kind == MQ_EVENT_END) c->ended = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static inline client *new_client(uint32_t seed, uint32_t count)
{
    client *c = calloc(1, sizeof *c);
    assert_non_null(c);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    c->count = count;
    c->most = ANSWER;
    for (uint32_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        c->prompt[i] = (int32_t)(20 + (seed >> 16) % 200);
    }
    return c;
}

static inline mq_generate_options options_of(uint32_t i, uint32_t most)
{
    mq_generate_options options = {.sampling = MQ_SAMPLING_GREEDY, .max_tokens = most, .ignore_eos = true};
    if (i % 2)
        options.sampling = (mq_sampling){.temperature = 0.9f, .top_p = 0.95f, .repetition_penalty = 1, .seed = i};
    return options;
}

static inline mq_status submit(mq_scheduler *s, client *c, uint32_t i, uint64_t owner, mq_error *error)
{
    const mq_request request = {.tokens = c->prompt,
                                .count = c->count,
                                .options = options_of(i, c->most),
                                .owner = owner,
                                .event = hear,
                                .context = c};
    c->ended = false;
    c->answered = c->told = 0;
    return mq_scheduler_submit(s, &request, &c->job, error);
}

static inline void must_submit(mq_scheduler *s, client *c, uint32_t i)
{
    mq_error error = {0};
    if (submit(s, c, i, 0, &error) != MQ_OK) fail_msg("%s", error.text);
}

static inline void finish(client *c)
{
    pthread_mutex_lock(&c->lock);
    while (!c->ended) {
        pthread_cond_wait(&c->changed, &c->lock);
    }
    pthread_mutex_unlock(&c->lock);
    mq_job_free(c->job);
    c->job = NULL;
}

/* Until so many tokens of its prompt are read. */
static inline void wait_read(client *c, uint32_t count)
{
    pthread_mutex_lock(&c->lock);
    while (!c->ended && c->report.prompt_done < count) {
        pthread_cond_wait(&c->changed, &c->lock);
    }
    pthread_mutex_unlock(&c->lock);
}

static inline void wait_answer(client *c, uint32_t count)
{
    pthread_mutex_lock(&c->lock);
    while (!c->ended && c->answered < count) {
        pthread_cond_wait(&c->changed, &c->lock);
    }
    pthread_mutex_unlock(&c->lock);
}

static inline void leave(client *c)
{
    mq_job_free(c->job);
    c->job = NULL;
}

/* ---- the engine */

static inline mq_engine *open_engine_last(uint32_t contexts, uint32_t chunk, uint32_t last)
{
    mq_engine *engine;
    mq_error error = {0};
    const mq_engine_options options = {.model_dir = model,
                                       .plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16},
                                       .threads = 2,
                                       .context = 1024,
                                       .chunk = chunk,
                                       .last = last,
                                       .sequences = contexts,
                                       .no_cache = true};
    if (mq_engine_open(&options, &engine, &error) != MQ_OK) fail_msg("%s", error.text);
    return engine;
}

static inline mq_engine *open_engine(uint32_t contexts, uint32_t chunk)
{
    return open_engine_last(contexts, chunk, 0);
}

static inline mq_scheduler *start(mq_engine *engine, const mq_scheduler_options *more)
{
    mq_scheduler *s;
    mq_error error = {0};
    mq_scheduler_options options = more ? *more : (mq_scheduler_options){0};
    options.engine = engine;
    options.text = text;
    if (mq_scheduler_start(&options, &s, &error) != MQ_OK) fail_msg("%s", error.text);
    return s;
}

static inline void note_token(void *context, int32_t token, float logprob, const mq_token_logprob *top, size_t count)
{
    client *c = context;
    (void)logprob;
    (void)top;
    (void)count;
    c->answer[c->answered++] = token;
}

/* What client c gets alone, from the engine itself. */
static inline void answer_alone(mq_engine *engine, const client *c, uint32_t i, int32_t *answer)
{
    client alone = {.answered = 0};
    mq_sequence *sequence;
    mq_generate_options options = options_of(i, c->most);
    mq_generate_result result;
    options.token = note_token;
    options.context = &alone;
    assert_int_equal(mq_sequence_new(engine, &sequence, NULL), MQ_OK);
    assert_int_equal(mq_sequence_sync(sequence, c->prompt, c->count, NULL, NULL, NULL), MQ_OK);
    assert_int_equal(mq_generate(sequence, text, &options, &result, NULL), MQ_OK);
    assert_int_equal(alone.answered, c->most);
    memcpy(answer, alone.answer, c->most * sizeof *answer);
    mq_sequence_free(sequence);
}

static inline void check_answer(const client *c, const int32_t *alone)
{
    assert_int_equal(c->report.status, MQ_OK);
    assert_int_equal(c->report.finish, MQ_FINISH_LENGTH);
    assert_int_equal(c->answered, c->most);
    assert_int_equal(c->report.generated, c->most);
    assert_memory_equal(c->answer, alone, c->most * sizeof *alone);
}

static inline int open_text(void **state)
{
    const char *source = getenv("MQ_SOURCE_DIR");
    mq_error error = {0};
    if (unit_setup(state) != 0) return 1;
    char dir[1024]; /* any tokenizer will do that has the random model's ids */
    snprintf(dir, sizeof dir, "%s/models/mixquant-agent", source ? source : ".");
    if (make_model(state) != 0) return 1;
    if (mq_text_open(dir, NULL, &text, &error) == MQ_OK) return 0;
    print_error("%s\n", error.text);
    return 1;
}

static inline int close_text(void **state)
{
    mq_text_close(text);
    (void)forget_model(state);
    return unit_teardown(state);
}

/* KV for one context and many long answers: jobs wait, or are parked when blocks run out, and answer as they do alone. */
static inline mq_scheduler_stats check_crowded(void)
{
    enum { CROWD = 6 };
    mq_engine *engine = open_engine(1, 128);
    static int32_t alone[CROWD][LONG];
    client *c[CROWD];
    for (uint32_t i = 0; i < CROWD; i++) {
        c[i] = new_client(20 + i, 150 + 30 * i);
        c[i]->most = 150;
        answer_alone(engine, c[i], i, alone[i]);
    }
    mq_scheduler *s = start(engine, NULL);
    for (uint32_t i = 0; i < CROWD; i++) {
        must_submit(s, c[i], i);
    }
    for (uint32_t i = 0; i < CROWD; i++) {
        finish(c[i]);
        check_answer(c[i], alone[i]);
        free(c[i]);
    }
    mq_scheduler_stats stats;
    mq_scheduler_describe(s, &stats);
    mq_scheduler_stop(s);
    mq_engine_close(engine);
    return stats;
}

#endif
