/* Workers of a hand-off in one process: engine, scheduler and hand-off of each, over links of any kind. */
#ifndef MQ_UNIT_HANDOFF_H
#define MQ_UNIT_HANDOFF_H

#include "unit_client.h"

#include "engine/engine.h"
#include "handoff/peers.h"
#include "handoff/serve.h"
#include "sched/sched.h"

#define PATIENCE (getenv("MQ_EMULATOR") ? 200.0 : 20.0) /* seconds after which a test has failed */

typedef struct worker {
    mq_engine *engine;
    mq_scheduler *scheduler;
    mq_handoff *handoff;
    char name[64];         /* of its link: link://127.0.0.1:PORT */
    struct worker *paired; /* D: whom `dial_pair` connects to */
    uint32_t dialled;
    pthread_mutex_t lock;
    char lines[8192]; /* of the log */
} worker;

static inline void note_line(void *context, const char *line)
{
    worker *w = context;
    pthread_mutex_lock(&w->lock);
    const size_t used = strlen(w->lines);
    snprintf(w->lines + used, sizeof w->lines - used, "%s\n", line);
    pthread_mutex_unlock(&w->lock);
    if (getenv("MQ_TEST_VERBOSE")) print_message("%s\n", line);
}

static inline bool has_line(worker *w, const char *part)
{
    pthread_mutex_lock(&w->lock);
    const bool has = strstr(w->lines, part) != NULL;
    pthread_mutex_unlock(&w->lock);
    return has;
}

static inline mq_handoff_stats handoff_stats(const worker *w)
{
    mq_handoff_stats stats;
    mq_handoff_describe_stats(w->handoff, &stats);
    return stats;
}

/* Of a decode worker. */
static inline uint32_t connections_of(const worker *d)
{
    uint32_t count = 0;
    mq_peers *p = d->handoff->peers;
    pthread_mutex_lock(&p->lock);
    for (const mq_client *c = p->clients; c; c = c->next) {
        count++;
    }
    pthread_mutex_unlock(&p->lock);
    return count;
}

/* Everything happens soon. */
static inline void make_hasty(mq_handoff *h)
{
    h->tuning.connect = h->tuning.greet = 2;
    h->tuning.send = 2;
    h->tuning.state = 0.05;
    h->tuning.suspect_first = 0.1;
    h->tuning.suspect_most = 0.4;
    h->tuning.late = 10;
    h->tuning.done = 2;
    h->tuning.watch = 0.01;
    h->tuning.health = 0.1;
    h->tuning.health_wait = 1;
}

static inline mq_engine *open_context(const char *dir, uint32_t context, uint32_t contexts, uint32_t chunk,
                                      mq_linear_format prefill)
{
    mq_engine *engine;
    mq_error error = {0};
    const mq_engine_options options = {.model_dir = dir,
                                       .plan = {.prefill = prefill, .decode = MQ_LINEAR_BF16},
                                       .threads = 1,
                                       .context = context,
                                       .chunk = chunk,
                                       .sequences = contexts,
                                       .no_cache = true};
    if (mq_engine_open(&options, &engine, &error) != MQ_OK) fail_msg("%s", error.text);
    return engine;
}

static inline mq_engine *open_model(const char *dir, uint32_t contexts, uint32_t chunk, mq_linear_format prefill)
{
    return open_context(dir, 1024, contexts, chunk, prefill);
}

/* Begins with an engine; start_worker goes on. */
static inline worker *new_worker(mq_engine *engine)
{
    worker *w = calloc(1, sizeof *w);
    assert_non_null(w);
    pthread_mutex_init(&w->lock, NULL);
    w->engine = engine;
    return w;
}

static inline mq_status open_handoff(worker *w, const mq_handoff_options *more, mq_error *error)
{
    mq_handoff_options options = *more;
    options.engine = w->engine;
    options.log = note_line;
    options.log_context = w;
    if (options.timeout_s == 0) options.timeout_s = PATIENCE / 4;
    const mq_status status = mq_handoff_open(&options, &w->handoff, error);
    if (status == MQ_OK) make_hasty(w->handoff);
    return status;
}

static inline void serve_worker(worker *w, const mq_scheduler_options *more)
{
    mq_error error = {0};
    mq_scheduler_options options = more ? *more : (mq_scheduler_options){0};
    options.source = mq_handoff_source(w->handoff);
    w->scheduler = start(w->engine, &options);
    if (mq_handoff_serve(w->handoff, w->scheduler, &error) != MQ_OK) fail_msg("%s", error.text);
    snprintf(w->name, sizeof w->name, "link://127.0.0.1:%u", mq_handoff_port(w->handoff));
}

static inline worker *start_prefill(mq_engine *engine, const mq_handoff_options *more)
{
    worker *w = new_worker(engine);
    mq_error error = {0};
    mq_handoff_options options = more ? *more : (mq_handoff_options){0};
    options.listens = true;
    if (open_handoff(w, &options, &error) != MQ_OK) fail_msg("%s", error.text);
    serve_worker(w, NULL);
    return w;
}

/* A decode worker of these peers; hands off all prompts, unless `more` says otherwise. */
static inline worker *open_decode(mq_engine *engine, const char *const *peers, size_t count,
                                  const mq_handoff_options *more)
{
    worker *w = new_worker(engine);
    mq_error error = {0};
    mq_handoff_options options = more ? *more : (mq_handoff_options){.least = 1};
    options.peers = peers;
    options.peer_count = count;
    if (open_handoff(w, &options, &error) != MQ_OK) fail_msg("%s", error.text);
    return w;
}

static inline worker *start_decode(mq_engine *engine, const worker *peer, const mq_handoff_options *more)
{
    const char *name = peer->name;
    worker *w = open_decode(engine, &name, 1, more);
    serve_worker(w, NULL);
    return w;
}

static inline void stop_worker(worker *w)
{
    mq_handoff_stop(w->handoff);
    mq_scheduler_stop(w->scheduler);
    mq_handoff_close(w->handoff);
    mq_engine_close(w->engine);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

/* ---- a pair within the process in place of sockets */

static inline mq_status dial_pair(void *context, const char *transport, const char *host, uint16_t port, double seconds,
                                  mq_link **link, mq_error *error)
{
    worker *w = context;
    mq_link *other;
    (void)transport;
    (void)host;
    (void)port;
    (void)seconds;
    const mq_status status = mq__link_pair(link, &other, error);
    if (status != MQ_OK) return status;
    w->dialled++;
    mq__server_side_accept(w->paired->handoff, other, "pair");
    return MQ_OK;
}

/* ---- waiting */

static inline void nap(double seconds)
{
    usleep((useconds_t)(seconds * 1e6));
}

/* Waits until a condition holds; fails the test when it does not for long. */
#define WAIT_FOR(condition)                                                                                            \
    do {                                                                                                               \
        const double wait_end_ = mq__seconds() + PATIENCE;                                                             \
        while (!(condition)) {                                                                                         \
            if (mq__seconds() > wait_end_) fail_msg("not in time: %s", #condition);                                    \
            nap(0.002);                                                                                                \
        }                                                                                                              \
    } while (0)

/* ---- what is right */

static inline void note_true_token(void *context, int32_t token, float logprob, const mq_token_logprob *top,
                                   size_t count)
{
    client *c = context;
    (void)logprob;
    (void)top;
    (void)count;
    c->answer[c->answered++] = token;
}

/* The held job of a client has the KV of the prompt but its last token as this engine makes it, and the client its answer. */
static inline void check_truth(mq_engine *engine, const client *c)
{
    const mq_kv_layout *layout = &engine->kv_layout;
    client *alone = calloc(1, sizeof *alone);
    mq_sequence *sequence;
    mq_generate_options options = options_of(0, c->most);
    mq_generate_result result;
    assert_non_null(alone);
    options.token = note_true_token;
    options.context = alone;
    assert_int_equal(mq_sequence_new(engine, &sequence, NULL), MQ_OK);
    assert_int_equal(mq_sequence_sync(sequence, c->prompt, c->count, NULL, NULL, NULL), MQ_OK);
    for (uint32_t at = 0; c->job && at < c->count - 1; at += MQ_PAGE_TOKENS) {
        for (uint32_t l = 0; l < layout->layers; l++) {
            const mq_kvchunk chunk = mq__kv_chunk_at(layout, l, at, c->count - 1);
            static uint8_t own[1 << 16], other[1 << 16];
            assert_true(chunk.bytes <= sizeof own);
            const mq_sequence *sequences[] = {sequence, c->job->sequence};
            const uint16_t *page[2];
            for (int i = 0; i < 2; i++) {
                page[i] = mq__kv_pages(layout, l, sequences[i]->pages, sequences[i]->window_pages)[at / MQ_PAGE_TOKENS];
            }
            if (!page[0] || !page[1]) { /* no window sees it any more */
                assert_true(layout->layer[l].window &&
                            at + MQ_PAGE_TOKENS + layout->window < c->count + MQ_DECODE_ROWS + c->most);
                continue;
            }
            mq__kv_chunk_gather(layout, &chunk, page[0], own);
            mq__kv_chunk_gather(layout, &chunk, page[1], other);
            if (memcmp(own, other, chunk.bytes) != 0) fail_msg("layer %u, position %u: other KV", l, at);
        }
    }
    for (uint32_t i = 0; c->job && i < c->count - 1; i++) {
        assert_true(mq_sequence_is_precise(sequence, i) == mq_sequence_is_precise(c->job->sequence, i));
    }
    assert_int_equal(mq_generate(sequence, text, &options, &result, NULL), MQ_OK);
    assert_int_equal(c->answered, alone->answered);
    if (c->job && sequence->state && sequence->count == c->job->sequence->count)
        assert_memory_equal(sequence->state, c->job->sequence->state, layout->state_floats * sizeof(float));
    assert_memory_equal(c->answer, alone->answer, c->answered * sizeof *c->answer);
    mq_sequence_free(sequence);
    free(alone);
}

/* ---- requests of a decode worker */

static inline void ask_with(worker *w, client *c, const mq_request *more)
{
    mq_error error = {0};
    mq_request request = *more;
    request.tokens = c->prompt;
    request.count = c->count;
    request.options = options_of(0, c->most);
    request.hold = true;
    request.event = hear;
    request.context = c;
    c->ended = false;
    c->answered = c->told = 0;
    if (mq_scheduler_submit(w->scheduler, &request, &c->job, &error) != MQ_OK) fail_msg("%s", error.text);
}

static inline void ask(worker *w, client *c)
{
    ask_with(w, c, &(mq_request){.owner = 0});
}

static inline bool has_ended(client *c)
{
    pthread_mutex_lock(&c->lock);
    const bool ended = c->ended;
    pthread_mutex_unlock(&c->lock);
    return ended;
}

/* Waits for the end; the job stays. */
static inline void await(client *c)
{
    WAIT_FOR(has_ended(c));
    if (c->report.status != MQ_OK) fail_msg("%s", c->report.error.text);
}

static inline void drop(client *c)
{
    mq_job_free(c->job);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->changed);
    free(c);
}

#endif
