/* mq_generate with a drafter: the same answers, the same sequence afterwards; a script's answers; and draws that follow the distribution
 * of their logits whoever drafts. */
#define TOKENS 300
#include "unit_model.h"

#include "engine/engine.h"
#include "gen/drafter.h"

#include <math.h>

#define CONTEXT 512
#define VOCAB   333
#ifndef DRAWS
#define DRAWS 6000
#endif

static mq_text *text;
static mq_engine *engine;

typedef struct answer {
    int32_t token[CONTEXT];
    float logprob[CONTEXT];
    uint32_t tokens;
    char text[4 * CONTEXT];
    size_t bytes;
    uint32_t most; /* tokens after which it cancels; 0: never */
} answer;

static bool take_text(void *context, const char *bytes, size_t count)
{
    answer *a = context;
    if (count) memcpy(a->text + a->bytes, bytes, count);
    a->bytes += count;
    return a->most == 0 || a->tokens < a->most;
}

static void take_token(void *context, int32_t token, float logprob, const mq_token_logprob *top, size_t count)
{
    answer *a = context;
    (void)top;
    (void)count;
    a->logprob[a->tokens] = logprob;
    a->token[a->tokens++] = token;
}

static mq_generate_options options_of(uint32_t i)
{
    static const char *const stops[] = {"zq", "e"};
    static const int32_t ids[] = {11, 45};
    mq_generate_options o = {.sampling = MQ_SAMPLING_GREEDY, .max_tokens = 40 + 30 * (i % 4), .logprobs = i % 2};
    o.sampling.seed = i;
    o.sampling.temperature = i % 3 ? 0.5f * (float)(i % 3) : 0;
    if (i % 4 == 1) o.sampling.top_p = 0.85f;
    if (i % 5 == 2) o.sampling.repetition_penalty = 1.3f;
    o.ignore_eos = i % 2 == 0;
    if (i % 4 == 3) {
        o.stops = stops;
        o.stop_count = 2;
        o.stop_ids = ids;
        o.stop_id_count = 2;
    }
    if (i == 8) o.max_tokens = 1;
    if (i == 9) o.max_tokens = 10000; /* until the context is full */
    return o;
}

static mq_generate_result generate(mq_sequence *sequence, mq_generate_options options, mq_drafter *drafter, answer *a)
{
    mq_generate_result result;
    mq_error error = {0};
    options.text = take_text;
    options.token = take_token;
    options.context = a;
    options.drafter = drafter;
    if (mq_generate(sequence, text, &options, &result, &error) != MQ_OK) fail_msg("%s", error.text);
    return result;
}

static mq_sequence *prompted(uint32_t i)
{
    mq_sequence *sequence;
    assert_int_equal(mq_sequence_new(engine, &sequence, NULL), MQ_OK);
    assert_int_equal(mq_sequence_sync(sequence, tokens + i, 30 + 10 * i, NULL, NULL, NULL), MQ_OK);
    return sequence;
}

/* Both ways of one prompt; twice each, so that the second one begins where the first one ended. */
static void run_both(uint32_t i, mq_drafter *drafter, uint32_t cancelled, uint64_t *drafted)
{
    static answer plain, with;
    mq_sequence *a = prompted(i), *b = prompted(i);
    for (int call = 0; call < 2; call++) {
        plain = (answer){.most = cancelled};
        with = (answer){.most = cancelled};
        const mq_generate_result x = generate(a, options_of(i), NULL, &plain);
        const mq_generate_result y = generate(b, options_of(i), drafter, &with);
        assert_int_equal(x.finish, y.finish);
        assert_int_equal(x.generated, y.generated);
        assert_int_equal(plain.tokens, with.tokens);
        assert_memory_equal(plain.token, with.token, plain.tokens * sizeof *plain.token);
        assert_memory_equal(plain.logprob, with.logprob, plain.tokens * sizeof *plain.logprob);
        assert_int_equal(plain.bytes, with.bytes);
        assert_memory_equal(plain.text, with.text, plain.bytes);
        *drafted += y.drafted;
        uint32_t m, n;
        const int32_t *held = mq_sequence_tokens(a, &m), *also = mq_sequence_tokens(b, &n);
        assert_int_equal(m, n);
        assert_memory_equal(held, also, m * sizeof *held);
        const float *logits = mq_sequence_logits(a), *same = mq_sequence_logits(b);
        assert_true(logits && same);
        assert_memory_equal(logits, same, VOCAB * sizeof *logits);
        if (m == CONTEXT) break;
        assert_int_equal(mq_sequence_step(a, plain.token[plain.tokens - 1], NULL), MQ_OK);
        assert_int_equal(mq_sequence_step(b, plain.token[plain.tokens - 1], NULL), MQ_OK);
    }
    mq_sequence_free(a);
    mq_sequence_free(b);
}

static void test_drafted_answers_are_the_same(void **state)
{
    (void)state;
    static const uint32_t forced[] = {1, 3, 16, 0};
    for (int draft = MQ_DRAFT_AUTO; draft < MQ_DRAFT_OFF; draft++) {
        for (size_t f = 0; f < sizeof forced / sizeof *forced; f++) {
            mq_drafter *drafter;
            uint64_t drafted = 0;
            assert_int_equal(mq_drafter_new(engine, (mq_draft)draft, &drafter, NULL), MQ_OK);
            mq__drafter_force(drafter, forced[f]);
            for (uint32_t i = 0; i < 12; i++) {
                run_both(i, drafter, 0, &drafted);
                run_both(i, drafter, 7, &drafted);
            }
            assert_true(drafted > 0 || forced[f] == 0);
            mq_drafter_free(drafter);
        }
    }
}

/* What the script gives is what comes out, with as much of the drafts right as it says. */
static void test_scripts_rule(void **state)
{
    (void)state;
    static answer a;
    mq_drafter *drafter;
    int32_t script_tokens[97];
    for (uint32_t i = 0; i < 97; i++) {
        script_tokens[i] = (int32_t)(i * 31 % VOCAB);
    }
    for (int tenths = 0; tenths <= 10; tenths += 5) {
        const mq_draft_script script = {script_tokens, 97, tenths / 10.0, 3};
        const mq_generate_options options = {
            .sampling = MQ_SAMPLING_GREEDY, .max_tokens = 300, .ignore_eos = true, .script = &script};
        assert_int_equal(mq_drafter_new(engine, MQ_DRAFT_NVFP4, &drafter, NULL), MQ_OK);
        mq__drafter_force(drafter, 1);
        mq_sequence *sequence = prompted(1);
        a = (answer){.tokens = 0};
        const mq_generate_result result = generate(sequence, options, drafter, &a);
        assert_int_equal(a.tokens, 300);
        for (uint32_t i = 0; i < 300; i++) {
            assert_int_equal(a.token[i], script_tokens[i % 97]);
        }
        const double share = (double)result.drafted_right / result.drafted;
        assert_true(fabs(share - tenths / 10.0) < 0.1);
        if (tenths == 0) assert_int_equal(result.drafted_right, 0);
        if (tenths == 10) assert_int_equal(result.drafted_right, result.drafted);
        mq_sequence_free(sequence);
        mq_drafter_free(drafter);
    }
}

/* ---- the distribution */

/* Where each drawn token fell in the distribution of its logits is a number that is uniform in [0, 1): the weights before it, and a part
 * of its own that another generator chooses. Pearson's statistic over 50 classes. */
typedef struct uniform {
    uint32_t count[50], drawn;
    uint64_t seed;
} uniform;

static void note_draw(uniform *u, mq_sampler *sampler, const float *logits, int32_t token)
{
    int32_t again;
    double before = 0;
    assert_int_equal(mq_sampler_draw(sampler, logits, NULL, &again, NULL), MQ_OK);
    assert_int_equal(again, token);
    for (int32_t t = 0; t < token; t++) {
        before += mq_sampler_probability(sampler, t);
    }
    u->seed = u->seed * 6364136223846793005u + 1442695040888963407u;
    const double at = before + mq_sampler_probability(sampler, token) * (double)(u->seed >> 33) / 0x1p31;
    u->count[(int)(fmin(at, 0.999999) * 50)]++;
    u->drawn++;
    assert_int_equal(mq_sampler_accept(sampler, token, NULL), MQ_OK);
}

/* The answer once more, token by token and without drafts, with what each was drawn from. */
static void note_answer(uniform *u, uint32_t i, const answer *a, const mq_sampling *sampling)
{
    mq_sequence *sequence = prompted(i);
    mq_sampler *sampler;
    assert_int_equal(mq_sampler_new(sampling, VOCAB, tokens + i, 30 + 10 * i, &sampler, NULL), MQ_OK);
    for (uint32_t t = 0; t < a->tokens; t++) {
        note_draw(u, sampler, mq_sequence_logits(sequence), a->token[t]);
        if (t + 1 < a->tokens) assert_int_equal(mq_sequence_step(sequence, a->token[t], NULL), MQ_OK);
    }
    mq_sampler_free(sampler);
    mq_sequence_free(sequence);
}

static void test_draws_follow_the_distribution(void **state)
{
    (void)state;
    static const mq_draft kinds[] = {MQ_DRAFT_LOOKUP, MQ_DRAFT_NVFP4};
    for (size_t k = 0; k < 2; k++) {
        uniform u = {.seed = 9};
        mq_drafter *drafter;
        assert_int_equal(mq_drafter_new(engine, kinds[k], &drafter, NULL), MQ_OK);
        mq__drafter_force(drafter, 4);
        uint32_t drafted = 0;
        for (uint64_t seed = 0; u.drawn < DRAWS; seed++) {
            static answer a;
            mq_generate_options o = {.sampling = MQ_SAMPLING_GREEDY, .max_tokens = 250, .ignore_eos = true};
            o.sampling.temperature = 0.8f;
            o.sampling.top_p = 0.9f;
            o.sampling.presence_penalty = 0.3f;
            o.sampling.frequency_penalty = 0.1f;
            o.sampling.repetition_penalty = 1.05f;
            o.sampling.seed = seed;
            const uint32_t i = (uint32_t)(seed % 12);
            mq_sequence *sequence = prompted(i);
            a = (answer){.tokens = 0};
            drafted += generate(sequence, o, drafter, &a).drafted;
            mq_sequence_free(sequence);
            note_answer(&u, i, &a, &o.sampling);
        }
        double statistic = 0;
        for (int c = 0; c < 50; c++) {
            const double expected = u.drawn / 50.0;
            statistic += (u.count[c] - expected) * (u.count[c] - expected) / expected;
        }
        assert_true(drafted > DRAWS / 6);
        if (!(statistic < 94)) fail_msg("%s: %.1f", mq_draft_name(kinds[k]), statistic); /* 0.9999 of 49 degrees */
        mq_drafter_free(drafter);
    }
}

static int open_all(void **state)
{
    const char *source = getenv("MQ_SOURCE_DIR");
    char dir[1024];
    mq_error error = {0};
    snprintf(dir, sizeof dir, "%s/models/mixquant-agent", source ? source : ".");
    if (make_model(state) != 0 || mq_text_open(dir, NULL, &text, &error) != MQ_OK) return 1;
    const mq_engine_options options = {.model_dir = model,
                                       .plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16},
                                       .threads = 2,
                                       .context = CONTEXT,
                                       .sequences = 2,
                                       .no_cache = true};
    return mq_engine_open(&options, &engine, &error) == MQ_OK ? 0 : 1;
}

static int close_all(void **state)
{
    mq_engine_close(engine);
    mq_text_close(text);
    return forget_model(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_drafted_answers_are_the_same),
        cmocka_unit_test(test_scripts_rule),
        cmocka_unit_test(test_draws_follow_the_distribution),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
