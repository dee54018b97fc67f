/* Generation: stop strings are found wherever tokens are cut, text is UTF-8 whatever the tokens are, special tokens stop
 * without being printed, several calls continue one answer, a cancel is seen at every token. */
#include "unit_files.h"

#include "base/mem.h"
#include "base/unicode.h"
#include "gen/stop_search.h"
#include "mixquant.h"

#define PROMPT 20

/* The synthetic tokenizer: a token for each byte, of the byte's value, then special ones. */
enum { END_OF_TEXT = 256, IM_START = 257, IM_END = 258, VOCAB = 320 };

static char *model;
static mq_text *text;
static int32_t prompt[PROMPT];

static uint32_t random_below(uint32_t bound)
{
    static uint64_t random_bits = 1;
    random_bits = random_bits * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_bits >> 33) % bound);
}

/* ---------------------------------------------------------------- stop search against a naive one */

#define LONGEST_TEXT 400

typedef struct sample {
    char stops[12][8];
    const char *list[12];
    size_t stop_count;
    char bytes[LONGEST_TEXT], printed[LONGEST_TEXT];
    bool hidden[LONGEST_TEXT];
    size_t count;
} sample;

static void make_sample(sample *s)
{
    s->stop_count = random_below(12);
    for (size_t i = 0; i < s->stop_count; i++) {
        const size_t length = 1 + random_below(7);
        for (size_t k = 0; k <= length; k++) {
            s->stops[i][k] = k < length ? (char)('a' + random_below(2)) : '\0';
        }
        s->list[i] = s->stops[i];
    }
    const uint32_t letters = 2 + random_below(3), hiding = random_below(3);
    bool hidden = false;
    s->count = random_below(LONGEST_TEXT);
    for (size_t i = 0; i < s->count; i++) {
        if (random_below(4) == 0) hidden = hiding > 0 && random_below(3) == 0;
        s->bytes[i] = (char)('a' + random_below(letters));
        s->hidden[i] = hidden;
    }
}

/* Where the longest stop (or, with `open`, the longest beginning of one) starts that the first `end` bytes end with. */
static size_t naive_start(const sample *s, size_t end, bool open)
{
    size_t first = end;
    for (int with_hidden = 0; with_hidden < 2; with_hidden++) {
        if (!with_hidden && !open && end > 0 && s->hidden[end - 1]) continue;
        for (size_t start = 0; start < end; start++) {
            char view[LONGEST_TEXT];
            size_t n = 0;
            if (!with_hidden && s->hidden[start]) continue;
            for (size_t i = start; i < end; i++) {
                if (with_hidden || !s->hidden[i]) view[n++] = s->bytes[i];
            }
            for (size_t k = 0; k < s->stop_count; k++) {
                const size_t length = strlen(s->stops[k]);
                const bool fits = open ? n < length : n == length;
                if (fits && memcmp(view, s->stops[k], n) == 0 && start < first) first = start;
            }
        }
    }
    return first;
}

static size_t printed_before(sample *s, size_t end)
{
    size_t n = 0;
    for (size_t i = 0; i < end; i++) {
        if (!s->hidden[i]) s->printed[n++] = s->bytes[i];
    }
    return n;
}

/* The stop that was found stands there, with the hidden parts or without them. */
static void check_found(const sample *s, const char *stop, size_t start, size_t end)
{
    char views[2][LONGEST_TEXT + 1] = {{0}};
    for (size_t i = start, n[2] = {0}; i < end; i++) {
        views[0][n[0]++] = s->bytes[i];
        if (!s->hidden[i]) views[1][n[1]++] = s->bytes[i];
    }
    assert_true(strcmp(stop, views[0]) == 0 || strcmp(stop, views[1]) == 0);
}

static void check_sample(sample *s)
{
    mq_stop_search *search;
    mq_buf out = {0};
    bool found = false;
    size_t at = 0;
    assert_int_equal(mq__stop_search_new(s->list, s->stop_count, &search, NULL), MQ_OK);
    while (at < s->count && !found) {
        size_t end = at + 1;
        for (uint32_t most = 1 + random_below(20); end < s->count && end - at < most; end++) {
            if (s->hidden[end] != s->hidden[at]) break;
        }
        size_t stop_end = at + 1, stop_start = 0;
        for (; stop_end <= end; stop_end++) {
            stop_start = naive_start(s, stop_end, false);
            if (stop_start < stop_end) break;
        }
        assert_true(mq__stop_search_feed(search, s->bytes + at, end - at, s->hidden[at], &out, &found));
        assert_int_equal(found, stop_end <= end);
        if (found) check_found(s, s->stops[mq__stop_search_found(search)], stop_start, stop_end);
        const size_t expected = printed_before(s, found ? stop_start : naive_start(s, end, true));
        assert_int_equal(out.len, expected);
        assert_true(expected == 0 || memcmp(out.data, s->printed, expected) == 0);
        at = end;
    }
    if (!found) {
        assert_true(mq__stop_search_end(search, &out));
        assert_int_equal(out.len, printed_before(s, s->count));
        assert_true(out.len == 0 || memcmp(out.data, s->printed, out.len) == 0);
    }
    mq__buf_free(&out);
    mq__stop_search_free(search);
}

static void test_stop_search_equals_naive(void **state)
{
    (void)state;
    static sample s;
    for (int i = 0; i < 4000; i++) {
        make_sample(&s);
        check_sample(&s);
    }
}

static void test_stop_search_refuses(void **state)
{
    (void)state;
    static char large[5000];
    memset(large, 'x', sizeof large - 1);
    const char *const bad[] = {"", large, "\xE2\x82"};
    for (int i = 0; i < 3; i++) {
        mq_stop_search *search;
        mq_error error = {0};
        const char *const stops[] = {"fine", bad[i]};
        assert_int_equal(mq__stop_search_new(stops, 2, &search, &error), MQ_USAGE);
        assert_null(search);
        assert_non_null(strstr(error.text, "stop string 1: expected"));
    }
}

/* ---------------------------------------------------------------- tokens to text */

typedef struct answer {
    char bytes[4096];
    size_t count;
    uint32_t tokens;
    mq_finish finish;
    size_t stop;
} answer;

static const int32_t eos[] = {IM_END};

static mq_generation *generation_of(const mq_generate_options *options)
{
    mq_generation *g;
    mq_error error = {0};
    const mq_generation_start start = {
        .vocab = VOCAB, .eos = eos, .eos_count = 1, .tokens = prompt, .prompt_count = PROMPT, .token_count = PROMPT};
    if (mq_generation_new(text, options, &start, &g, &error) != MQ_OK) fail_msg("%s", error.text);
    return g;
}

static void take(answer *a, const char *bytes, size_t count)
{
    assert_true(mq__utf8_valid(bytes, count));
    assert_true(a->count + count < sizeof a->bytes);
    if (count) memcpy(a->bytes + a->count, bytes, count);
    a->count += count;
    a->bytes[a->count] = '\0';
}

static answer push_all(const mq_generate_options *options, const int32_t *tokens, size_t count)
{
    static answer a;
    const char *bytes;
    size_t n;
    a = (answer){0};
    mq_generation *g = generation_of(options);
    mq__alloc_guard_begin();
    for (size_t i = 0; i < count && a.finish == MQ_FINISH_NONE; i++) {
        assert_int_equal(mq_generation_push(g, tokens[i], &bytes, &n, &a.finish, NULL), MQ_OK);
        take(&a, bytes, n);
    }
    assert_int_equal(mq__alloc_guard_end(), 0);
    if (a.finish == MQ_FINISH_NONE) {
        assert_int_equal(mq_generation_end(g, &bytes, &n, NULL), MQ_OK);
        take(&a, bytes, n);
    } else {
        mq_finish unused;
        assert_int_equal(mq_generation_push(g, 'x', &bytes, &n, &unused, NULL), MQ_USAGE);
    }
    a.tokens = mq_generation_count(g);
    a.stop = mq_generation_stop(g);
    mq_generation_free(g);
    return a;
}

static size_t tokens_of_text(const char *bytes, int32_t *tokens)
{
    size_t n = 0;
    for (; bytes[n]; n++) {
        tokens[n] = (uint8_t)bytes[n];
    }
    return n;
}

static void expect_text(const mq_generate_options *options, const int32_t *tokens, size_t count, const char *expected,
                        mq_finish finish)
{
    const answer a = push_all(options, tokens, count);
    if (strcmp(a.bytes, expected) != 0) fail_msg("expected \"%s\", got \"%s\"", expected, a.bytes);
    assert_int_equal(a.finish, finish);
}

static void test_text_is_utf8(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"gr\xC3\xBC\xC3\x9F \xE2\x82\xAC \xF0\x9F\x98\x80!", "gr\xC3\xBC\xC3\x9F \xE2\x82\xAC \xF0\x9F\x98\x80!"},
        {"a\xE2\x82", "a"},                           /* cut by the end */
        {"a\xF0\x9F\x98", "a"},                       /* the same */
        {"\xC3", ""},                                 /* nothing is left */
        {"a\xE2\x82z", "a\xEF\xBF\xBDz"},             /* one character that does not go on */
        {"a\xFF\xFEz", "a\xEF\xBF\xBD\xEF\xBF\xBDz"}, /* two that never begin */
        {"\xE2\x82\xE2\x82\xAC", "\xEF\xBF\xBD\xE2\x82\xAC"},
        {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"}, /* a surrogate */
        {"\x80\xE2\x82", "\xEF\xBF\xBD"},
    };
    const mq_generate_options options = {.sampling = MQ_SAMPLING_GREEDY, .max_tokens = 100};
    int32_t tokens[100];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const size_t n = tokens_of_text(cases[i][0], tokens);
        expect_text(&options, tokens, n, cases[i][1], MQ_FINISH_NONE);
        mq_generate_options cut = options;
        cut.max_tokens = (uint32_t)n;
        expect_text(&cut, tokens, n, cases[i][1], MQ_FINISH_LENGTH);
        tokens[n] = IM_END;
        expect_text(&options, tokens, n + 1, cases[i][1], MQ_FINISH_EOS);
    }
    /* Any bytes, with stops that make the search hold text back: always UTF-8 (take checks it). */
    const char *const stops[] = {"\xE2\x82\xAC\xE2\x82\xAC", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"};
    static const uint8_t alphabet[] = {0xE2, 0x82, 0xAC, 0xE2, 0x82, 0xAC, 'x', 0xF0, 0x9F, 0xFF};
    for (int round = 0; round < 2000; round++) {
        mq_generate_options some = options;
        some.stops = stops;
        some.stop_count = (size_t)(round % 3);
        for (int i = 0; i < 60; i++) {
            tokens[i] = alphabet[round % 2 ? (uint32_t)i % 3 : random_below(sizeof alphabet)];
            if (random_below(9) == 0) tokens[i] = alphabet[random_below(sizeof alphabet)];
        }
        (void)push_all(&some, tokens, 60);
    }
}

static void test_special_tokens_stop(void **state)
{
    (void)state;
    mq_generate_options options = {.sampling = MQ_SAMPLING_GREEDY, .max_tokens = 100};
    const int32_t tokens[] = {'B', IM_START, 'C', 'D', END_OF_TEXT, 'E'};
    expect_text(&options, tokens, 6, "BCDE", MQ_FINISH_NONE);
    static const char *const cases[][2] = {
        {"<|im_start|>", "B"}, {"im_start", "B"},        {"B<|im_start|>", ""}, {"|>C", "B"},           {"CD", "B"},
        {"BCD", ""},           {"<|endoftext|>", "BCD"}, {"D<|end", "BC"},      {"<|im_end|>", "BCDE"}, {"BC<", "BCDE"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        options.stops = &cases[i][0];
        options.stop_count = 1;
        const bool stops = strcmp(cases[i][1], "BCDE") != 0;
        expect_text(&options, tokens, 6, cases[i][1], stops ? MQ_FINISH_STOP : MQ_FINISH_NONE);
    }
    options.stop_count = 0;
    options.keep_special = true;
    expect_text(&options, tokens, 6, "B<|im_start|>CD<|endoftext|>E", MQ_FINISH_NONE);
    const char *const stop = "<|im_start|>";
    options.stops = &stop;
    options.stop_count = 1;
    expect_text(&options, tokens, 6, "B", MQ_FINISH_STOP);
}

/* Which of several it was: the one that begins first, hidden parts counted. */
static void test_which_stop(void **state)
{
    (void)state;
    mq_generate_options options = {.sampling = MQ_SAMPLING_GREEDY, .max_tokens = 100, .stop_count = 3};
    const int32_t tokens[] = {'B', IM_START, 'C', 'D', END_OF_TEXT, 'E'};
    static const char *const cases[][3] = {
        {"E", "CD", "D"}, {"|>CD", "BCD", "x"}, {"E", "<|im_start|>CD", "CD"}, {"E", "<|endoftext|>", "y"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        options.stops = cases[i];
        assert_int_equal(push_all(&options, tokens, 6).stop, 1);
    }
}

static void test_ends(void **state)
{
    (void)state;
    const int32_t tokens[] = {'a', 'b', IM_END, 'c', 'd'}, ids[] = {'c', END_OF_TEXT};
    mq_generate_options options = {.sampling = MQ_SAMPLING_GREEDY, .max_tokens = 5};
    expect_text(&options, tokens, 5, "ab", MQ_FINISH_EOS);
    assert_int_equal(push_all(&options, tokens, 5).tokens, 2); /* the end token does not count */
    options.ignore_eos = true;
    expect_text(&options, tokens, 5, "abcd", MQ_FINISH_LENGTH);
    assert_int_equal(push_all(&options, tokens, 5).tokens, 5);
    options.stop_ids = ids;
    options.stop_id_count = 2;
    expect_text(&options, tokens, 5, "ab", MQ_FINISH_EOS);
    options.max_tokens = 2;
    expect_text(&options, tokens, 5, "ab", MQ_FINISH_LENGTH);
    /* What a stop might have begun with is text after all. */
    const char *const stop = "abx";
    options.stops = &stop;
    options.stop_count = 1;
    expect_text(&options, tokens, 5, "ab", MQ_FINISH_LENGTH);
    options.max_tokens = 100;
    expect_text(&options, tokens, 5, "ab", MQ_FINISH_EOS);
}

static void test_new_survives_allocation_failures(void **state)
{
    (void)state;
    const char *const stops[] = {"one", "two"};
    const mq_generate_options options = {
        .sampling = MQ_SAMPLING_GREEDY, .max_tokens = 5, .stops = stops, .stop_count = 2};
    const mq_generation_start start = {
        .vocab = VOCAB, .eos = eos, .eos_count = 1, .tokens = prompt, .prompt_count = 5, .token_count = PROMPT};
    unsigned long n = 1, refused = 0;
    for (bool hit = true; hit; n++) {
        mq_generation *g;
        (void)mq__alloc_fail_at(n);
        const mq_status status = mq_generation_new(text, &options, &start, &g, NULL);
        hit = mq__alloc_fail_at(0) >= n;
        assert_int_equal(status, hit ? MQ_NO_MEMORY : MQ_OK);
        assert_true((g == NULL) == hit);
        refused += hit;
        mq_generation_free(g);
    }
    assert_true(refused > 10);
}

/* ---------------------------------------------------------------- with an engine */

static mq_engine *open_model(void)
{
    mq_engine *engine;
    mq_error error = {0};
    const mq_engine_options options = {.model_dir = model, .threads = 2, .context = 128, .no_cache = true};
    if (mq_engine_open(&options, &engine, &error) != MQ_OK) fail_msg("%s", error.text);
    return engine;
}

static mq_sequence *synced(mq_engine *engine)
{
    mq_sequence *sequence;
    assert_int_equal(mq_sequence_new(engine, &sequence, NULL), MQ_OK);
    assert_int_equal(mq_sequence_sync(sequence, prompt, PROMPT, NULL, NULL, NULL), MQ_OK);
    return sequence;
}

typedef struct collected {
    answer a;
    int32_t tokens[200];
    uint32_t count, asked, cancel_at; /* cancel_at: the call of `text` that returns false; 0: none */
} collected;

static bool collect(void *context, const char *bytes, size_t count)
{
    collected *c = context;
    take(&c->a, bytes, count);
    return ++c->asked != c->cancel_at;
}

static void collect_token(void *context, int32_t token, float logprob, const mq_token_logprob *top, size_t top_count)
{
    collected *c = context;
    c->tokens[c->count++] = token;
    assert_true(top_count == 0 ? isnan(logprob) : top[0].logprob >= top[1].logprob && logprob <= top[0].logprob);
}

static mq_generate_result generate(mq_sequence *sequence, mq_generate_options options, collected *out)
{
    mq_generate_result result;
    mq_error error = {0};
    options.text = collect;
    options.token = collect_token;
    options.context = out;
    if (mq_generate(sequence, text, &options, &result, &error) != MQ_OK) fail_msg("%s", error.text);
    return result;
}

static void test_generate_stops(void **state)
{
    (void)state;
    mq_engine *engine = open_model();
    mq_generate_options options = {.sampling = MQ_SAMPLING_GREEDY, .max_tokens = 40, .ignore_eos = true};
    options.sampling.repetition_penalty = 1.3f; /* random weights repeat themselves otherwise */
    collected whole = {0};
    mq_sequence *sequence = synced(engine);
    assert_int_equal(generate(sequence, options, &whole).finish, MQ_FINISH_LENGTH);
    assert_true(whole.a.count > 10);

    /* Any stretch of the text as a stop string ends it right before the first place where it occurs. */
    for (size_t at = 0; at + 3 < whole.a.count; at += 5) {
        char stop[4] = {whole.a.bytes[at], whole.a.bytes[at + 1], whole.a.bytes[at + 2], 0};
        if (strlen(stop) != 3 || !mq__utf8_valid(stop, 3)) continue;
        const char *const stops[] = {"\x01never\x01", stop};
        collected part = {0};
        options.stops = stops;
        options.stop_count = 2;
        assert_int_equal(mq_sequence_sync(sequence, prompt, PROMPT, NULL, NULL, NULL), MQ_OK);
        assert_int_equal(generate(sequence, options, &part).finish, MQ_FINISH_STOP);
        const char *first = memmem(whole.a.bytes, whole.a.count, stop, 3);
        assert_int_equal(part.a.count, first - whole.a.bytes);
        assert_memory_equal(part.a.bytes, whole.a.bytes, part.a.count);
    }
    collected seven = {0};
    options.stop_count = 0;
    options.top_logprobs = 2;
    options.max_tokens = 7;
    assert_int_equal(mq_sequence_sync(sequence, prompt, PROMPT, NULL, NULL, NULL), MQ_OK);
    assert_int_equal(generate(sequence, options, &seven).generated, 7);
    assert_memory_equal(seven.tokens, whole.tokens, 7 * sizeof *seven.tokens);
    mq_sequence_free(sequence);
    mq_engine_close(engine);
}

/* One call of 24 tokens, 24 calls of one, and the object driven by hand give the same tokens. */
static void compare_ways(mq_engine *engine, mq_sampling sampling)
{
    enum { LENGTH = 24 };
    collected one = {0}, many = {0};
    int32_t by_hand[LENGTH];
    mq_engine_info info;
    mq_generate_options options = {.sampling = sampling, .max_tokens = LENGTH, .ignore_eos = true};
    mq_sequence *sequence = synced(engine);
    assert_int_equal(generate(sequence, options, &one).generated, LENGTH);

    assert_int_equal(mq_sequence_sync(sequence, prompt, PROMPT, NULL, NULL, NULL), MQ_OK);
    options.max_tokens = 1;
    for (int i = 0; i < LENGTH; i++) {
        assert_int_equal(generate(sequence, options, &many).generated, 1);
        assert_int_equal(mq_sequence_step(sequence, many.tokens[i], NULL), MQ_OK);
    }
    mq_engine_describe(engine, &info);
    assert_int_equal(mq_sequence_sync(sequence, prompt, PROMPT, NULL, NULL, NULL), MQ_OK);
    const mq_generation_start start = {
        .vocab = info.vocab, .tokens = prompt, .prompt_count = PROMPT, .token_count = PROMPT};
    mq_generation *g;
    options.max_tokens = LENGTH;
    assert_int_equal(mq_generation_new(text, &options, &start, &g, NULL), MQ_OK);
    for (int i = 0; i < LENGTH; i++) {
        const char *bytes;
        size_t count;
        mq_finish finish;
        mq_sampler *sampler = mq_generation_sampler(g);
        assert_int_equal(mq_sampler_draw(sampler, mq_sequence_logits(sequence), NULL, &by_hand[i], NULL), MQ_OK);
        assert_int_equal(mq_generation_push(g, by_hand[i], &bytes, &count, &finish, NULL), MQ_OK);
        assert_int_equal(mq_sequence_step(sequence, by_hand[i], NULL), MQ_OK);
    }
    mq_generation_free(g);
    assert_memory_equal(one.tokens, many.tokens, LENGTH * sizeof *one.tokens);
    assert_memory_equal(one.tokens, by_hand, sizeof by_hand);
    mq_sequence_free(sequence);
}

static void test_calls_continue_the_answer(void **state)
{
    (void)state;
    mq_engine *engine = open_model();
    mq_sampling sampling = MQ_SAMPLING_GREEDY;
    sampling.frequency_penalty = 100; /* no token twice */
    compare_ways(engine, sampling);
    sampling = MQ_SAMPLING_GREEDY;
    sampling.temperature = 1;
    sampling.seed = 3;
    sampling.presence_penalty = 0.5f;
    compare_ways(engine, sampling);
    mq_engine_close(engine);
}

static void test_cancel_at_every_token(void **state)
{
    (void)state;
    mq_engine *engine = open_model();
    mq_sequence *sequence = synced(engine);
    const mq_logit_bias hidden[] = {{IM_START, 1e6f}}; /* nothing but a token that is not printed */
    mq_generate_options options = {.sampling = MQ_SAMPLING_GREEDY, .max_tokens = 50, .ignore_eos = true};
    options.sampling.bias = hidden;
    options.sampling.bias_count = 1;
    for (uint32_t at = 1; at < 5; at++) {
        collected c = {.cancel_at = at};
        assert_int_equal(mq_sequence_sync(sequence, prompt, PROMPT, NULL, NULL, NULL), MQ_OK);
        const mq_generate_result result = generate(sequence, options, &c);
        assert_int_equal(result.finish, MQ_FINISH_CANCELLED);
        assert_int_equal(result.generated, at);
        assert_int_equal(c.a.count, 0);
    }
    mq_sequence_free(sequence);
    mq_engine_close(engine);
}

static bool cancel_sequence(void *context, const char *bytes, size_t count)
{
    (void)bytes;
    (void)count;
    mq_sequence_cancel(context);
    return true;
}

/* Cancelling the sequence ends the answer as well, without an error. */
static void test_cancelled_sequence(void **state)
{
    (void)state;
    mq_engine *engine = open_model();
    mq_sequence *sequence = synced(engine);
    mq_generate_result result;
    mq_error error = {0};
    const mq_generate_options options = {.sampling = MQ_SAMPLING_GREEDY,
                                         .max_tokens = 50,
                                         .ignore_eos = true,
                                         .text = cancel_sequence,
                                         .context = sequence};
    assert_int_equal(mq_generate(sequence, text, &options, &result, &error), MQ_OK);
    assert_int_equal(result.finish, MQ_FINISH_CANCELLED);
    assert_int_equal(result.generated, 1);
    assert_string_equal(error.text, "");
    mq_sequence_free(sequence);
    mq_engine_close(engine);
}

static int make_model(void **state)
{
    (void)state;
    mq_error error = {0};
    if (mq_synth_cached("tiny-qwen3", 0, NULL, &model, &error) != MQ_OK ||
        mq_text_open(model, NULL, &text, &error) != MQ_OK) {
        print_error("%s\n", error.text);
        return 1;
    }
    for (int i = 0; i < PROMPT; i++) {
        prompt[i] = (i * 37 + i * i * 11) % 200;
    }
    return 0;
}

static int forget_model(void **state)
{
    (void)state;
    mq_text_close(text);
    mq_free(model);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stop_search_equals_naive),
        cmocka_unit_test(test_stop_search_refuses),
        cmocka_unit_test(test_text_is_utf8),
        cmocka_unit_test(test_special_tokens_stop),
        cmocka_unit_test(test_which_stop),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_new_survives_allocation_failures),
        cmocka_unit_test(test_generate_stops),
        cmocka_unit_test(test_calls_continue_the_answer),
        cmocka_unit_test(test_cancel_at_every_token),
        cmocka_unit_test(test_cancelled_sequence),
    };
    return cmocka_run_group_tests(tests, make_model, forget_model);
}
