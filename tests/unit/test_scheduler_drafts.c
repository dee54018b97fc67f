/* Whoever drafts, however much of it is wrong: tokens, texts, log probabilities and ends are those without drafts. */
#include "unit_client.h"

#include "gen/drafter.h"
#include "sched/sched.h"

#include <math.h>

#define CLIENTS  8
#define VOCAB    333 /* of the random models */
#define TOP      3
#define TEXT_MAX 8192

static mq_vocabulary *vocabulary;

/* All that a client is told of its answer. */
typedef struct heard {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int32_t token[LONG];
    float logprob[LONG];
    mq_token_logprob top[LONG][TOP];
    uint32_t tokens;
    char text[TEXT_MAX];
    size_t bytes;
    mq_report report;
    bool ended;
    mq_job *job;
} heard;

static void hear_all(void *context, const mq_event *event)
{
    heard *h = context;
    pthread_mutex_lock(&h->lock);
    h->report = *event->report;
    if (event->kind == MQ_EVENT_TOKEN && h->tokens < LONG) {
        h->token[h->tokens] = event->token;
        h->logprob[h->tokens] = event->logprob;
        for (size_t i = 0; i < event->top_count && i < TOP; i++) {
            h->top[h->tokens][i] = event->top[i];
        }
        h->tokens++;
    }
    if (event->count && h->bytes + event->count <= TEXT_MAX) {
        memcpy(h->text + h->bytes, event->bytes, event->count);
        h->bytes += event->count;
    }
    h->ended = event->kind == MQ_EVENT_END;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
}

static const char schema[] =
    "{\"type\":\"object\",\"properties\":{\"destination\":{\"type\":\"string\",\"maxLength\":12},\"count\":{\"type\":"
    "\"integer\",\"minimum\":0,\"maximum\":99999},\"kind\":{\"enum\":[\"one_way\",\"round_trip\"]}},\"required\":["
    "\"destination\",\"count\",\"kind\"]}";

/* What an answer may have: all clients differ. */
static mq_request request_of(uint32_t i, const client *c)
{
    static const char *const stops[] = {"e", "ab", "the", "\xC3"};
    static const int32_t stop_ids[] = {17, 40};
    static const mq_logit_bias bias[] = {{50, 1.5f}, {60, -2.0f}};
    mq_generate_options o = {.sampling = MQ_SAMPLING_GREEDY, .max_tokens = c->most, .ignore_eos = i % 4 != 3};
    o.sampling.seed = 100 + i;
    o.sampling.temperature = i % 2 ? 0.4f + 0.2f * (float)i : 0;
    if (i % 3 == 1) o.sampling.top_p = 0.9f;
    if (i % 3 == 2) o.sampling.top_k = 12;
    if (i == 2 || i == 5) {
        o.sampling.repetition_penalty = 1.2f;
        o.sampling.presence_penalty = 0.4f;
        o.sampling.frequency_penalty = 0.2f;
        o.sampling.bias = bias;
        o.sampling.bias_count = 2;
    }
    if (i == 3 || i == 7) {
        o.stops = stops + (i == 3 ? 2 : 1);
        o.stop_count = 1;
        o.stop_ids = stop_ids;
        o.stop_id_count = 2;
    }
    if (i == 1 || i == 4) o.top_logprobs = TOP;
    return (mq_request){.tokens = c->prompt, .count = c->count, .options = o, .owner = i % 2};
}

static mq_constraint *constraint_of(uint32_t i)
{
    mq_constraint *c = NULL;
    const mq_constraint_options options = {.schema = schema, .schema_bytes = strlen(schema)};
    if (i == 0 || i == 6) assert_int_equal(mq_constraint_new(vocabulary, &options, &c, NULL, NULL), MQ_OK);
    return c;
}

static void submit_all(mq_scheduler *s, client *const *c, heard *const *h)
{
    for (uint32_t i = 0; i < CLIENTS; i++) {
        mq_request request = request_of(i, c[i]);
        mq_error error = {0};
        request.constraint = constraint_of(i);
        request.event = hear_all;
        request.context = h[i];
        if (mq_scheduler_submit(s, &request, &h[i]->job, &error) != MQ_OK) fail_msg("%s", error.text);
    }
}

static void wait_all(heard *const *h)
{
    for (uint32_t i = 0; i < CLIENTS; i++) {
        pthread_mutex_lock(&h[i]->lock);
        while (!h[i]->ended) {
            pthread_cond_wait(&h[i]->changed, &h[i]->lock);
        }
        pthread_mutex_unlock(&h[i]->lock);
        mq_job_free(h[i]->job);
    }
}

/* Answers with so many tokens of each draft forced (0: as they pay), a neighbour that leaves, and more or fewer blocks. */
static void answer_all(mq_engine *engine, mq_draft draft, uint32_t forced, client *const *c, heard *const *h,
                       mq_scheduler_stats *stats)
{
    mq_scheduler *s = start(engine, &(mq_scheduler_options){.draft = draft});
    client *gone = new_client(500 + forced, 300);
    gone->most = 200;
    mq__drafter_force(s->drafter, forced);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        *h[i] = (heard){.tokens = 0};
        pthread_mutex_init(&h[i]->lock, NULL);
        pthread_cond_init(&h[i]->changed, NULL);
    }
    must_submit(s, gone, 1);
    submit_all(s, c, h);
    wait_answer(gone, 3);
    leave(gone);
    wait_all(h);
    mq_scheduler_describe(s, stats);
    mq_scheduler_stop(s);
    free(gone);
}

static void assert_same(const heard *a, const heard *b, uint32_t i)
{
    if (a->report.status != MQ_OK) fail_msg("client %u: %s", i, a->report.error.text);
    assert_int_equal(a->tokens, b->tokens);
    assert_memory_equal(a->token, b->token, a->tokens * sizeof *a->token);
    for (uint32_t t = 0; t < a->tokens; t++) {
        assert_true(isnan(a->logprob[t]) ? isnan(b->logprob[t]) : a->logprob[t] == b->logprob[t]);
    }
    assert_memory_equal(a->top, b->top, sizeof a->top);
    assert_int_equal(a->bytes, b->bytes);
    assert_memory_equal(a->text, b->text, a->bytes);
    assert_int_equal(a->report.status, b->report.status);
    assert_int_equal(a->report.finish, b->report.finish);
    assert_int_equal(a->report.stop, b->report.stop);
    assert_int_equal(a->report.generated, b->report.generated);
    assert_true(a->report.drafted_right <= a->report.drafted);
}

static void run_model(const char *dir, uint32_t contexts, uint32_t most)
{
    static const struct {
        mq_draft draft;
        uint32_t forced;
    } ways[] = {{MQ_DRAFT_LOOKUP, 3}, {MQ_DRAFT_NVFP4, 1}, {MQ_DRAFT_NVFP4, 4},
                {MQ_DRAFT_AUTO, 5},   {MQ_DRAFT_AUTO, 16}, {MQ_DRAFT_AUTO, 0}};
    client *c[CLIENTS];
    heard *plain[CLIENTS], *drafted[CLIENTS];
    mq_scheduler_stats stats;
    uint64_t preempted = 0;
    model = (char *)(uintptr_t)dir;
    mq_engine *engine = open_engine(contexts, 64);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        c[i] = new_client(80 + i, 40 + 60 * i);
        for (uint32_t t = 10; t < c[i]->count; t++) {
            if (i % 2 == 0) c[i]->prompt[t] = c[i]->prompt[t % 10];
        }
        c[i]->most = most + 7 * i;
        plain[i] = calloc(1, sizeof *plain[i]);
        drafted[i] = calloc(1, sizeof *drafted[i]);
        assert_true(plain[i] && drafted[i]);
    }
    answer_all(engine, MQ_DRAFT_OFF, 0, c, plain, &stats);
    assert_int_equal(stats.drafted_tokens, 0);
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        answer_all(engine, ways[w].draft, ways[w].forced, c, drafted, &stats);
        for (uint32_t i = 0; i < CLIENTS; i++) {
            assert_same(drafted[i], plain[i], i);
        }
        if (ways[w].forced) assert_true(stats.drafted_tokens > 100 && stats.drafted_right_tokens > 0);
        if (ways[w].forced > 1) assert_true(stats.drafted_right_tokens < stats.drafted_tokens);
        preempted += stats.preempted;
    }
    assert_true(contexts > 1 || preempted > 0);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        free(c[i]);
        free(plain[i]);
        free(drafted[i]);
    }
    mq_engine_close(engine);
}

static char *own_model;

static void test_dense(void **state)
{
    (void)state;
    run_model(own_model, 8, 60);
}

static void run_shape(const char *shape, uint32_t contexts, uint32_t most)
{
    char *dir;
    assert_int_equal(mq_synth_cached(shape, 0, NULL, &dir, NULL), MQ_OK);
    run_model(dir, contexts, most);
    mq_free(dir);
}

static void test_experts(void **state)
{
    (void)state;
    run_shape("tiny-qwen3-moe", 8, 40);
}

static void test_recurrent_state(void **state)
{
    (void)state;
    run_shape("tiny-qwen3.5", 1, 260); /* some are parked */
    run_shape("tiny-qwen3.5-moe", 8, 40);
}

/* So few blocks that some wait in between, with what was drafted of them. */
static void test_parked(void **state)
{
    (void)state;
    run_model(own_model, 1, 260);
}

static void test_what_schedulers_refuse(void **state)
{
    (void)state;
    mq_engine *engine;
    mq_scheduler *s;
    mq_error error = {0};
    const mq_engine_options options = {
        .model_dir = own_model, .threads = 2, .context = 256, .sequences = 1, .no_cache = true};
    assert_int_equal(mq_engine_open(&options, &engine, NULL), MQ_OK); /* BF16 in both phases */
    const mq_scheduler_options wrong = {.engine = engine, .text = text, .draft = MQ_DRAFT_NVFP4};
    assert_int_equal(mq_scheduler_start(&wrong, &s, &error), MQ_USAGE);
    assert_non_null(strstr(error.text, "nvfp4"));
    assert_null(s);
    s = start(engine, NULL); /* auto does without */
    mq_scheduler_stop(s);
    mq_engine_close(engine);
}

static int open_all(void **state)
{
    const int32_t eos = 332;
    if (open_text(state) != 0) return 1;
    own_model = model;
    return mq_vocabulary_new(text, VOCAB, &eos, 1, &vocabulary, NULL) == MQ_OK ? 0 : 1;
}

static int close_all(void **state)
{
    mq_vocabulary_free(vocabulary);
    model = own_model;
    return close_text(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense),
        cmocka_unit_test(test_experts),
        cmocka_unit_test(test_recurrent_state),
        cmocka_unit_test(test_parked),
        cmocka_unit_test(test_what_schedulers_refuse),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
