/* Steps: rows of many sequences, several rows of one, forks, cancelled neighbours, plans side by side; each row has the bits that
 * it has alone. */
#define TOKENS 700
#include "unit_model.h"
#include "unit_sequence.h"

#include "engine/engine.h"

#include <pthread.h>

#define MANY 16

static mq_engine *open_engine(mq_linear_format decode, uint32_t chunk, uint32_t sequences)
{
    mq_engine *engine;
    mq_error error = {0};
    const mq_engine_options options = {.model_dir = model,
                                       .plan = {.prefill = MQ_LINEAR_NVFP4, .decode = decode},
                                       .threads = 3,
                                       .context = TOKENS + 20,
                                       .chunk = chunk,
                                       .sequences = sequences,
                                       .no_cache = true};
    if (mq_engine_open(&options, &engine, &error) != MQ_OK) fail_msg("%s", error.text);
    return engine;
}

static size_t vocab_of(const mq_engine *engine)
{
    mq_engine_info info;
    mq_engine_describe(engine, &info);
    return info.vocab;
}

static void hold(mq_sequence *sequence, uint32_t first, uint32_t count)
{
    assert_int_equal(mq_sequence_sync(sequence, tokens + first, count, NULL, NULL, NULL), MQ_OK);
}

static int32_t best(const float *logits, size_t vocab)
{
    size_t at = 0;
    for (size_t i = 1; i < vocab; i++) {
        if (logits[i] > logits[at]) at = i;
    }
    return (int32_t)at;
}

/* A seeded draw: any function of the logits and the seed that tells tokens apart. */
static int32_t draw(const float *logits, size_t vocab, unsigned seed)
{
    size_t at = 0;
    float most = -INFINITY;
    for (size_t i = 0; i < vocab; i++) {
        seed = seed * 1664525u + 1013904223u;
        const float noisy = logits[i] + 8 * (float)(seed >> 16) / 65536;
        if (noisy > most) {
            most = noisy;
            at = i;
        }
    }
    return (int32_t)at;
}

static uint32_t length_of(uint32_t i)
{
    return 1 + i * 41 % 600; /* some within a block, some over several spans of decode attention */
}

static int32_t choose(const mq_sequence *sequence, size_t vocab, uint32_t i, uint32_t step)
{
    const float *logits = mq_sequence_logits(sequence);
    assert_non_null(logits);
    return i % 2 ? best(logits, vocab) : draw(logits, vocab, i * 977 + step);
}

/* What sequence i generates alone. */
static void generate_alone(mq_engine *engine, uint32_t i, int32_t *out, uint32_t steps)
{
    mq_sequence *sequence = new_sequence(engine);
    hold(sequence, i, length_of(i));
    for (uint32_t step = 0; step < steps; step++) {
        out[step] = choose(sequence, vocab_of(engine), i, step);
        assert_int_equal(mq_sequence_step(sequence, out[step], NULL), MQ_OK);
    }
    mq_sequence_free(sequence);
}

static void test_sixteen_equal_singles(void **state)
{
    (void)state;
    enum { STEPS = 8 };
    static const mq_linear_format formats[] = {MQ_LINEAR_BF16, MQ_LINEAR_NVFP4, MQ_LINEAR_W4A16, MQ_LINEAR_INT8,
                                               MQ_LINEAR_FP8};
    for (size_t f = 0; f < sizeof formats / sizeof formats[0]; f++) {
        mq_engine *engine = open_engine(formats[f], 96, MANY + 1);
        const size_t vocab = vocab_of(engine);
        mq_sequence *many[MANY];
        mq_rows rows[2 * MANY];
        int32_t alone[MANY][STEPS], next[MANY];
        for (uint32_t i = 0; i < MANY; i++) {
            generate_alone(engine, i, alone[i], STEPS);
            many[i] = new_sequence(engine);
        }
        /* All prompts in one step: their prefill rows share passes that end in the middle of a prompt. */
        uint32_t count = 0;
        for (uint32_t i = 0; i < MANY; i++) {
            const uint32_t last = length_of(i) - 1;
            if (last > 0) {
                rows[count++] =
                    (mq_rows){.sequence = many[i], .tokens = tokens + i, .count = last, .phase = MQ_PHASE_PREFILL};
            }
            rows[count++] = (mq_rows){
                .sequence = many[i], .tokens = tokens + i + last, .count = 1, .phase = MQ_PHASE_DECODE, .logits = 1};
        }
        assert_int_equal(mq_engine_step(engine, rows, count, NULL), MQ_OK);
        for (uint32_t step = 0; step < STEPS; step++) {
            for (uint32_t i = 0; i < MANY; i++) {
                next[i] = choose(many[i], vocab, i, step);
                assert_int_equal(next[i], alone[i][step]);
                rows[i] = (mq_rows){
                    .sequence = many[i], .tokens = &next[i], .count = 1, .phase = MQ_PHASE_DECODE, .logits = 1};
            }
            assert_int_equal(mq_engine_step(engine, rows, MANY, NULL), MQ_OK);
        }
        for (uint32_t i = 0; i < MANY; i++) {
            mq_sequence_free(many[i]);
        }
        mq_engine_close(engine);
    }
}

/* k + 1 rows at once have the bits of k + 1 steps: across the ends of blocks and spans, beside other sequences. */
static void test_rows_of_a_draft_equal_single_rows(void **state)
{
    (void)state;
    static const mq_linear_format formats[] = {MQ_LINEAR_BF16, MQ_LINEAR_NVFP4, MQ_LINEAR_W4A16, MQ_LINEAR_INT8,
                                               MQ_LINEAR_FP8};
    static const uint32_t prompts[] = {5, 60, 510};
    for (size_t f = 0; f < sizeof formats / sizeof formats[0]; f++) {
        mq_engine *engine = open_engine(formats[f], 512, 3);
        const size_t bytes = vocab_of(engine) * sizeof(float);
        for (size_t p = 0; p < sizeof prompts / sizeof prompts[0]; p++) {
            for (uint32_t k = 1; k <= 70; k = 3 * k + 1) {
                mq_sequence *draft = new_sequence(engine), *single = new_sequence(engine),
                            *other = new_sequence(engine);
                hold(draft, 0, prompts[p]);
                hold(single, 0, prompts[p]);
                hold(other, 3, 40);
                mq_rows rows[2] = {
                    {.sequence = other, .tokens = tokens, .count = 2, .phase = MQ_PHASE_DECODE, .logits = 1},
                    {.sequence = draft, .tokens = tokens + 9, .count = k, .phase = MQ_PHASE_DECODE, .logits = k}};
                assert_int_equal(mq_engine_step(engine, rows, 2, NULL), MQ_OK);
                assert_int_equal(rows[1].done, k);
                for (uint32_t i = 0; i < k; i++) {
                    assert_int_equal(mq_sequence_step(single, tokens[9 + i], NULL), MQ_OK);
                    assert_memory_equal(mq_sequence_logits(single), mq_sequence_logits_of(draft, k - 1 - i), bytes);
                }
                assert_null(mq_sequence_logits_of(draft, k));
                mq_sequence_free(draft);
                mq_sequence_free(single);
                mq_sequence_free(other);
            }
        }
        mq_engine_close(engine);
    }
}

static void test_forks_share_and_copy(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(MQ_LINEAR_BF16, 128, 4);
    const size_t bytes = vocab_of(engine) * sizeof(float);
    mq_sequence *root = new_sequence(engine), *fork, *alone = new_sequence(engine);
    hold(root, 0, 150);
    const uint32_t before = mq__kv_available(engine->kv);
    assert_int_equal(mq_sequence_fork(root, 150, &fork, NULL), MQ_OK);
    assert_int_equal(mq__kv_available(engine->kv), before); /* shared */
    assert_null(mq_sequence_logits(fork));
    hold(alone, 0, 150);
    const uint32_t alone_left = mq__kv_available(engine->kv);
    /* Both write after the shared tokens: the first one copies, and neither sees the other's. */
    assert_int_equal(mq_sequence_step(fork, tokens[7], NULL), MQ_OK);
    assert_int_equal(mq__kv_available(engine->kv), alone_left - 1);
    assert_int_equal(mq_sequence_step(root, tokens[8], NULL), MQ_OK);
    assert_int_equal(mq__kv_available(engine->kv), alone_left - 1);
    assert_int_equal(mq_sequence_step(fork, tokens[9], NULL), MQ_OK);
    assert_int_equal(mq_sequence_step(alone, tokens[7], NULL), MQ_OK);
    assert_int_equal(mq_sequence_step(alone, tokens[9], NULL), MQ_OK);
    assert_memory_equal(mq_sequence_logits(fork), mq_sequence_logits(alone), bytes);
    assert_int_equal(mq_sequence_truncate(alone, 150), 150);
    assert_int_equal(mq_sequence_step(alone, tokens[8], NULL), MQ_OK);
    assert_memory_equal(mq_sequence_logits(root), mq_sequence_logits(alone), bytes);
    /* Where the KV comes from: prompts are prefilled but for their last token. */
    assert_false(mq_sequence_is_precise(fork, 148));
    assert_true(mq_sequence_is_precise(fork, 149));
    assert_true(mq_sequence_is_precise(fork, 151));
    assert_false(mq_sequence_is_precise(fork, 152));
    assert_int_equal(mq_sequence_truncate(fork, 100), 100);
    hold(fork, 0, 130);
    assert_false(mq_sequence_is_precise(fork, 128));
    assert_true(mq_sequence_is_precise(fork, 129));
    mq_sequence *none;
    assert_int_equal(mq_sequence_fork(root, 152, &none, NULL), MQ_USAGE);
    assert_null(none);
    mq_sequence_free(alone);
    mq_sequence_free(root); /* before its fork */
    hold(fork, 0, 140);
    mq_sequence_free(fork);
    mq_engine_close(engine);
}

/* ---- cancelling */

static void test_cancelled_neighbours(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(MQ_LINEAR_BF16, 512, 5);
    const size_t bytes = vocab_of(engine) * sizeof(float);
    mq_sequence *s[4], *alone = new_sequence(engine);
    mq_rows rows[8];
    for (uint32_t i = 0; i < 4; i++) {
        s[i] = new_sequence(engine);
        rows[2 * i] =
            (mq_rows){.sequence = s[i], .tokens = tokens + i, .count = 99, .phase = MQ_PHASE_PREFILL, .logits = 0};
        rows[2 * i + 1] =
            (mq_rows){.sequence = s[i], .tokens = tokens + i + 99, .count = 1, .phase = MQ_PHASE_DECODE, .logits = 1};
    }
    mq_sequence_cancel(s[0]);
    mq_sequence_cancel(s[2]);
    assert_int_equal(mq_engine_step(engine, rows, 8, NULL), MQ_OK);
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t held;
        (void)mq_sequence_tokens(s[i], &held);
        assert_int_equal(held, i % 2 ? 100 : 0);
        assert_int_equal(rows[2 * i].status, i % 2 ? MQ_OK : MQ_CANCELLED);
        assert_int_equal(rows[2 * i + 1].status, i % 2 ? MQ_OK : MQ_CANCELLED);
        if (i % 2 == 0) {
            assert_null(mq_sequence_logits(s[i]));
            continue;
        }
        hold(alone, i, 100);
        assert_memory_equal(mq_sequence_logits(s[i]), mq_sequence_logits(alone), bytes);
    }
    /* It was seen, so it is over. */
    hold(s[0], 0, 50);
    for (uint32_t i = 0; i < 4; i++) {
        mq_sequence_free(s[i]);
    }
    mq_sequence_free(alone);
    mq_engine_close(engine);
}

/* Cancels from inside a pass, between two layers. */
typedef struct canceller {
    mq_sequence *victim;
    uint32_t at_layer, layers_after;
    bool done;
} canceller;

static void watch(void *context, uint32_t layer, mq_linear_group group, const float *rows, uint32_t count,
                  uint32_t width)
{
    (void)rows;
    (void)count;
    (void)width;
    canceller *c = context;
    if (c->done && layer > c->at_layer) c->layers_after++;
    if (group != MQ_GROUP_O || layer != c->at_layer) return;
    mq_sequence_cancel(c->victim);
    c->done = true;
}

static void test_cancel_is_seen_at_the_next_layer(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(MQ_LINEAR_BF16, 512, 4);
    const size_t bytes = vocab_of(engine) * sizeof(float);
    for (int phase = 0; phase < MQ_PHASES; phase++) {
        for (uint32_t victim = 0; victim < 3; victim++) {
            mq_sequence *s[3], *alone = new_sequence(engine);
            mq_rows rows[3];
            for (uint32_t i = 0; i < 3; i++) {
                s[i] = new_sequence(engine);
                hold(s[i], i, 30 + i);
                rows[i] = (mq_rows){
                    .sequence = s[i], .tokens = tokens + i + 30, .count = 5 + i, .phase = (mq_phase)phase, .logits = 1};
            }
            canceller c = {.victim = s[victim], .at_layer = 0};
            mq_engine_observe(engine, &(mq_observer){.linear = watch, .context = &c});
            assert_int_equal(mq_engine_step(engine, rows, 3, NULL), MQ_OK);
            mq_engine_observe(engine, NULL);
            for (uint32_t i = 0; i < 3; i++) {
                uint32_t held;
                (void)mq_sequence_tokens(s[i], &held);
                assert_int_equal(held, 30 + i + (i == victim ? 0 : 5 + i));
                assert_int_equal(rows[i].status, i == victim ? MQ_CANCELLED : MQ_OK);
                if (i == victim) continue;
                hold(alone, i, 30 + i);
                mq_rows one = {.sequence = alone,
                               .tokens = tokens + i + 30,
                               .count = 5 + i,
                               .phase = (mq_phase)phase,
                               .logits = 1};
                assert_int_equal(mq_engine_step(engine, &one, 1, NULL), MQ_OK);
                assert_memory_equal(mq_sequence_logits(s[i]), mq_sequence_logits(alone), bytes);
            }
            for (uint32_t i = 0; i < 3; i++) {
                mq_sequence_free(s[i]);
            }
            mq_sequence_free(alone);
        }
    }
    /* A sequence alone: no layer runs after the one in which it was cancelled. */
    mq_sequence *one = new_sequence(engine);
    canceller c = {.victim = one, .at_layer = 0};
    mq_engine_observe(engine, &(mq_observer){.linear = watch, .context = &c});
    mq_error error = {0};
    assert_int_equal(mq_sequence_sync(one, tokens, 40, NULL, NULL, &error), MQ_CANCELLED);
    assert_true(c.done);
    assert_int_equal(c.layers_after, 0);
    mq_engine_observe(engine, NULL);
    mq_sequence_free(one);
    mq_engine_close(engine);
}

/* ---- plans and refusals */

static void test_plans_side_by_side(void **state)
{
    (void)state;
    static const mq_plan_options options[] = {{.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16},
                                              {.prefill = MQ_LINEAR_BF16, .decode = MQ_LINEAR_BF16},
                                              {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_NVFP4}};
    mq_engine *engine = open_engine(MQ_LINEAR_BF16, 64, 6);
    const size_t bytes = vocab_of(engine) * sizeof(float);
    mq_sequence *together[3], *alone[3];
    mq_rows rows[6];
    for (uint32_t i = 0; i < 3; i++) {
        const mq_plan *plan, *again;
        assert_int_equal(mq_engine_plan(engine, &options[i], &plan, NULL), MQ_OK);
        assert_int_equal(mq_engine_plan(engine, &options[i], &again, NULL), MQ_OK);
        assert_ptr_equal(plan, again);
        mq_sequence_set_plan(together[i] = new_sequence(engine), plan);
        mq_sequence_set_plan(alone[i] = new_sequence(engine), plan);
        rows[2 * i] =
            (mq_rows){.sequence = together[i], .tokens = tokens, .count = 99, .phase = MQ_PHASE_PREFILL, .logits = 0};
        rows[2 * i + 1] = (mq_rows){
            .sequence = together[i], .tokens = tokens + 99, .count = 1, .phase = MQ_PHASE_DECODE, .logits = 1};
    }
    assert_int_equal(mq_engine_step(engine, rows, 6, NULL), MQ_OK);
    for (uint32_t i = 0; i < 3; i++) {
        hold(alone[i], 0, 100);
        assert_memory_equal(mq_sequence_logits(together[i]), mq_sequence_logits(alone[i]), bytes);
        if (i > 0) assert_memory_not_equal(mq_sequence_logits(together[i]), mq_sequence_logits(together[0]), bytes);
    }
    /* Its own plan stays when the engine's changes; another one forgets. */
    mq_sync_stats stats;
    assert_int_equal(mq_engine_set_plan(engine, &options[2], NULL), MQ_OK);
    assert_int_equal(mq_sequence_sync(together[1], tokens, 100, NULL, &stats, NULL), MQ_OK);
    assert_int_equal(stats.cached, 99);
    mq_sequence_set_plan(together[1], alone[0]->plan);
    assert_int_equal(mq_sequence_sync(together[1], tokens, 100, NULL, &stats, NULL), MQ_OK);
    assert_int_equal(stats.cached, 0);
    assert_memory_equal(mq_sequence_logits(together[1]), mq_sequence_logits(alone[0]), bytes);
    for (uint32_t i = 0; i < 3; i++) {
        mq_sequence_free(together[i]);
        mq_sequence_free(alone[i]);
    }
    mq_engine_close(engine);
}

static void test_a_refusal_changes_nothing(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(MQ_LINEAR_BF16, 64, 1);
    mq_sequence *a = new_sequence(engine), *b = new_sequence(engine);
    const uint32_t all = mq__kv_available(engine->kv);
    mq_error error = {0};
    const mq_rows row = {.sequence = a, .tokens = tokens, .count = 1, .phase = MQ_PHASE_DECODE, .logits = 1};
    mq_rows twice[2] = {row, row};
    assert_int_equal(mq_engine_step(engine, twice, 2, &error), MQ_USAGE);
    twice[1].phase = MQ_PHASE_PREFILL; /* prefill rows come first */
    assert_int_equal(mq_engine_step(engine, twice, 2, &error), MQ_USAGE);
    mq_rows rows[2] = {{.sequence = a, .tokens = tokens, .count = 65, .phase = MQ_PHASE_DECODE, .logits = 1},
                       {.sequence = b, .tokens = tokens, .count = TOKENS, .phase = MQ_PHASE_PREFILL}};
    assert_int_equal(mq_engine_step(engine, rows, 2, &error), MQ_LIMIT); /* one block too many for the pool */
    assert_int_equal(mq__kv_available(engine->kv), all);
    rows[0].logits = 66;
    assert_int_equal(mq_engine_step(engine, rows, 1, &error), MQ_USAGE);
    rows[0].logits = 1;
    rows[0].phase = (mq_phase)7;
    assert_int_equal(mq_engine_step(engine, rows, 1, &error), MQ_USAGE);
    const int32_t bad[2] = {1, -1};
    rows[0] = (mq_rows){.sequence = a, .tokens = bad, .count = 2, .phase = MQ_PHASE_DECODE};
    assert_int_equal(mq_engine_step(engine, rows, 1, &error), MQ_USAGE);
    assert_non_null(strstr(error.text, "token 1"));
    assert_int_equal(mq__kv_available(engine->kv), all);
    /* A refused sync keeps what the sequence had. */
    hold(a, 0, 600);
    hold(b, 0, 60);
    mq_sync_stats stats;
    assert_int_equal(mq_sequence_sync(b, tokens + 1, 200, NULL, NULL, &error), MQ_LIMIT);
    assert_int_equal(mq_sequence_sync(b, tokens, 60, NULL, &stats, NULL), MQ_OK);
    assert_int_equal(stats.cached, 59);
    hold(a, 0, 630); /* and nothing of the pool */
    mq_sequence_free(a);
    mq_sequence_free(b);
    mq_engine_close(engine);
}

static void *cancel_later(void *context)
{
    usleep(3000);
    mq_sequence_cancel(context);
    return NULL;
}

static void test_cancel_from_another_thread(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(MQ_LINEAR_BF16, 16, 2);
    mq_sequence *a = new_sequence(engine);
    int cancelled = 0;
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        (void)mq_sequence_truncate(a, 0);
        assert_int_equal(pthread_create(&thread, NULL, cancel_later, a), 0);
        mq_status status = MQ_OK;
        for (int k = 0; status == MQ_OK && k < 1000000; k++) {
            status = mq_sequence_sync(a, tokens, 600 + (uint32_t)k % 2, NULL, NULL, NULL);
        }
        cancelled += status == MQ_CANCELLED;
        pthread_join(thread, NULL);
    }
    assert_int_equal(cancelled, 20);
    mq_sequence_free(a);
    mq_engine_close(engine);
}

/* ---- decode steps between the layers of a prefill pass */

typedef struct interlude {
    mq_sequence *reads, *leaves, *answers;
    int32_t answer[64];
    uint32_t count, calls, layers;
} interlude;

static void answer_once(void *context, uint32_t layers)
{
    interlude *in = context;
    assert_int_equal(layers, 1 + in->calls++ % (in->layers - 1));
    mq_engine *engine = in->answers->engine;
    mq_error error = {0};
    mq_rows row = {.sequence = in->answers, .tokens = tokens, .count = 1, .phase = MQ_PHASE_PREFILL};
    assert_int_equal(mq_engine_step(engine, &row, 1, &error), MQ_USAGE); /* one prefill pass at a time */
    row = (mq_rows){.sequence = in->reads, .tokens = tokens, .count = 1, .phase = MQ_PHASE_DECODE};
    assert_int_equal(mq_engine_step(engine, &row, 1, &error), MQ_USAGE); /* it is in the middle of a pass */
    if (in->count == 0) mq_sequence_cancel(in->leaves);
    if (in->count == sizeof in->answer / sizeof in->answer[0]) return;
    const int32_t token = best(mq_sequence_logits(in->answers), vocab_of(engine));
    assert_int_equal(mq_sequence_step(in->answers, token, &error), MQ_OK);
    in->answer[in->count++] = token;
}

/* Two prompts, the second of which leaves in the middle of the first pass, around an answer. */
static void test_answers_between_layers(void **state)
{
    (void)state;
    enum { READ = 500, OTHER = 40 };
    mq_engine *engine = open_engine(MQ_LINEAR_BF16, 96, 3);
    const size_t vocab = vocab_of(engine);
    mq_engine_info info;
    mq_engine_describe(engine, &info);
    interlude in = {.layers = info.layers,
                    .reads = new_sequence(engine),
                    .leaves = new_sequence(engine),
                    .answers = new_sequence(engine)};
    mq_sequence *alone = new_sequence(engine);
    hold(alone, 0, READ);
    float *expected = malloc(vocab * sizeof *expected);
    assert_non_null(expected);
    memcpy(expected, mq_sequence_logits(alone), vocab * sizeof *expected);
    hold(in.answers, 7, 90);

    mq__engine_set_interlude(engine, answer_once, &in);
    mq_rows rows[2] = {{.sequence = in.leaves, .tokens = tokens + 9, .count = OTHER, .phase = MQ_PHASE_PREFILL},
                       {.sequence = in.reads, .tokens = tokens, .count = READ - 1, .phase = MQ_PHASE_PREFILL}};
    assert_int_equal(mq_engine_step(engine, rows, 2, NULL), MQ_OK);
    mq__engine_set_interlude(engine, NULL, NULL);
    assert_int_equal(rows[0].status, MQ_CANCELLED);
    assert_int_equal(rows[1].done, READ - 1);
    assert_true(in.count > 4);
    hold(in.reads, 0, READ);
    assert_memory_equal(mq_sequence_logits(in.reads), expected, vocab * sizeof *expected);

    (void)mq_sequence_truncate(alone, 0);
    hold(alone, 7, 90);
    for (uint32_t i = 0; i < in.count; i++) {
        const int32_t token = best(mq_sequence_logits(alone), vocab);
        assert_int_equal(token, in.answer[i]);
        assert_int_equal(mq_sequence_step(alone, token, NULL), MQ_OK);
    }
    mq_sequence_free(alone);
    mq_sequence_free(in.reads);
    mq_sequence_free(in.leaves);
    mq_sequence_free(in.answers);
    free(expected);
    mq_engine_close(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sixteen_equal_singles),
        cmocka_unit_test(test_rows_of_a_draft_equal_single_rows),
        cmocka_unit_test(test_forks_share_and_copy),
        cmocka_unit_test(test_cancelled_neighbours),
        cmocka_unit_test(test_cancel_is_seen_at_the_next_layer),
        cmocka_unit_test(test_plans_side_by_side),
        cmocka_unit_test(test_a_refusal_changes_nothing),
        cmocka_unit_test(test_cancel_from_another_thread),
        cmocka_unit_test(test_answers_between_layers),
    };
    return cmocka_run_group_tests(tests, make_model, forget_model);
}
