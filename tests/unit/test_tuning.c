/* What is chosen by measuring: whichever variant wins, results have the same bits; what is kept is used, and nothing else; formats follow
 * what was measured. */
#define TOKENS 150
#include "unit_model.h"

#include "base/mem.h"
#include "base/pool.h"
#include "engine/tuning.h"
#include "kernels/trial.h"

static mq_isa own_isa(void)
{
    mq_isa isa;
    assert_int_equal(mq__cpu_choose_isa(&isa, NULL), MQ_OK);
    return isa;
}

/* ---- variants */

/* The logits after a prompt and four decoded tokens. */
static void run_engine(mq_linear_format prefill, mq_linear_format decode, float *logits, size_t vocab)
{
    mq_engine *engine;
    mq_sequence *sequence;
    mq_error error = {0};
    const mq_engine_options options = {.model_dir = model,
                                       .plan = {.prefill = prefill, .decode = decode, .attention = MQ_ATTENTION_BF16},
                                       .threads = 2,
                                       .context = 256,
                                       .no_cache = true};
    if (mq_engine_open(&options, &engine, &error) != MQ_OK) fail_msg("%s", error.text);
    assert_int_equal(mq_sequence_new(engine, &sequence, NULL), MQ_OK);
    assert_int_equal(mq_sequence_sync(sequence, tokens, TOKENS - 4, NULL, NULL, NULL), MQ_OK);
    for (int i = TOKENS - 4; i < TOKENS; i++)
        assert_int_equal(mq_sequence_step(sequence, tokens[i], NULL), MQ_OK);
    memcpy(logits, mq_sequence_logits(sequence), vocab * sizeof *logits);
    mq_sequence_free(sequence);
    mq_engine_close(engine);
}

static void compare_variant(const char *pin, const float *expected, float *got, size_t vocab)
{
    static const mq_linear_format formats[] = {MQ_LINEAR_BF16, MQ_LINEAR_NVFP4, MQ_LINEAR_INT8};
    setenv("MQ_VARIANTS", pin, 1);
    for (size_t f = 0; f < sizeof formats / sizeof formats[0]; f++) {
        run_engine(formats[f], formats[f], got, vocab);
        assert_memory_equal(got, expected + f * vocab, vocab * sizeof *got);
    }
    unsetenv("MQ_VARIANTS");
}

/* Each level, each operation, each variant: the bits of the first. */
static void test_variants_agree(void **state)
{
    (void)state;
    mq_engine *engine;
    mq_engine_info info;
    assert_int_equal(mq_engine_open(&(mq_engine_options){.model_dir = model, .no_cache = true}, &engine, NULL), MQ_OK);
    mq_engine_describe(engine, &info);
    mq_engine_close(engine);
    float *expected = malloc(3 * info.vocab * sizeof *expected), *got = malloc(info.vocab * sizeof *got);
    for (int isa = MQ_ISA_REF + 1; isa <= (int)mq__cpu_best_isa(); isa++) {
        const mq_kernels *level = mq__kernels_get((mq_isa)isa);
        setenv("MQ_ISA", mq__isa_name((mq_isa)isa), 1);
        run_engine(MQ_LINEAR_BF16, MQ_LINEAR_BF16, expected, info.vocab);
        run_engine(MQ_LINEAR_NVFP4, MQ_LINEAR_NVFP4, expected + info.vocab, info.vocab);
        run_engine(MQ_LINEAR_INT8, MQ_LINEAR_INT8, expected + 2 * info.vocab, info.vocab);
        for (int o = 0; o < MQ_OPERATIONS; o++) {
            for (size_t v = 0; v < level->variants[o].count; v++) {
                char pin[96];
                snprintf(pin, sizeof pin, "%s=%s", mq__operation_name((mq_operation)o), level->variants[o].one[v].name);
                compare_variant(pin, expected, got, info.vocab);
            }
        }
        unsetenv("MQ_ISA");
    }
    free(expected);
    free(got);
}

/* A level with two ways to do one thing. */
static mq_kernels two_ways(mq_operation operation)
{
    static const mq_variant ways[] = {{"first", NULL}, {"second", NULL}};
    mq_kernels level = {.isa = MQ_ISA_REF};
    level.variants[operation].count = 2;
    memcpy(level.variants[operation].one, ways, sizeof ways);
    return level;
}

static size_t winner_of(mq_operation operation, double first, double second)
{
    mq_winners winners;
    const mq_kernels level = two_ways(operation);
    mq_tuning tuning = {0};
    tuning.variant[operation][0] = first;
    tuning.variant[operation][1] = second;
    assert_int_equal(mq__winners_of(&level, &tuning, &winners, NULL), MQ_OK);
    assert_false(winners.pinned[operation]);
    return winners.variant[operation];
}

static void test_winners(void **state)
{
    (void)state;
    assert_int_equal(winner_of(MQ_DENSE_THIN, 1, 0.9), 1);
    assert_int_equal(winner_of(MQ_DENSE_THIN, 1, 1.1), 0);
    assert_int_equal(winner_of(MQ_DENSE_THIN, 1, 0.99), 0);     /* noise */
    assert_int_equal(winner_of(MQ_DENSE_THIN, 0, 0), 0);        /* nothing was measured */
    assert_int_equal(winner_of(MQ_INT8_ATTENTION, 1, 0.95), 0); /* other results: clearly faster, or not at all */
    assert_int_equal(winner_of(MQ_INT8_ATTENTION, 1, 0.8), 1);
}

static void test_pins(void **state)
{
    (void)state;
    mq_winners winners;
    mq_error error = {0};
    const mq_kernels level = two_ways(MQ_DENSE_THIN);
    const mq_tuning tuning = {.variant[MQ_DENSE_THIN] = {1, 2}};
    setenv("MQ_VARIANTS", "nvfp4_gemm=plain,dense_thin=second", 1);
    assert_int_equal(mq__winners_of(&level, &tuning, &winners, &error), MQ_OK);
    assert_int_equal(winners.variant[MQ_DENSE_THIN], 1);
    assert_true(winners.pinned[MQ_DENSE_THIN] && !winners.pinned[MQ_NVFP4_GEMM]);
    setenv("MQ_VARIANTS", "dense_thin=of another level", 1);
    assert_int_equal(mq__winners_of(&level, &tuning, &winners, &error), MQ_OK);
    assert_int_equal(winners.variant[MQ_DENSE_THIN], 0);
    static const char *const wrong[] = {"dense_thin", "thin=second",         "=",
                                        ",",          "dense_thin=second,,", "dense_thinn=second"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        setenv("MQ_VARIANTS", wrong[i], 1);
        unit_refused(mq__winners_of(&level, &tuning, &winners, &error), MQ_USAGE, &error, "MQ_VARIANTS");
        mq_engine *engine;
        unit_refused(mq_engine_open(&(mq_engine_options){.model_dir = model}, &engine, &error), MQ_USAGE, &error,
                     "MQ_VARIANTS");
    }
    unsetenv("MQ_VARIANTS");
}

/* ---- the file */

static char *read_text(const char *path)
{
    static char text[8192];
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return text;
}

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void measure(bool formats, mq_tuning *tuning)
{
    mq_error error = {0};
    if (mq__tuning_read(own_isa(), unit_dir, formats, tuning, &error) != MQ_OK) fail_msg("%s", error.text);
}

/* Whether bf16's product is said to take exactly so long: nothing that is measured does. */
static bool says(double seconds)
{
    mq_tuning tuning;
    measure(true, &tuning);
    assert_true(tuning.has_formats);
    return tuning.linear[MQ_LINEAR_BF16] == seconds;
}

/* The file with bf16's seconds replaced by this text. */
static void spoil_number(const char *path, const char *intact, const char *number)
{
    char text[8192];
    const char *at = strstr(intact, "\"prefill\": {\"bf16\": ");
    assert_non_null(at);
    at += strlen("\"prefill\": {\"bf16\": ");
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - intact), intact, number, at + strcspn(at, ","));
    write_text(path, text);
}

static void test_file(void **state)
{
    (void)state;
    const mq_isa isa = own_isa();
    if (isa == MQ_ISA_REF) skip();
    mq_tuning first, second;
    char *path = mq__tuning_path(isa, unit_dir), intact[8192], text[8192];
    assert_non_null(path);
    measure(true, &first);
    assert_non_null(read_text(path));
    snprintf(intact, sizeof intact, "%s", read_text(path));
    measure(true, &second);
    for (int f = 0; f < MQ_LINEAR_FORMATS; f++)
        assert_true(fabs(first.linear[f] - second.linear[f]) <= 1e-5 * first.linear[f]); /* as it is printed */
    spoil_number(path, intact, "123.5");
    assert_true(says(123.5)); /* what is kept is used */

    static const char *const numbers[] = {"0",    "-123.5",  "1e99",    "1e999", "\"123.5\"",
                                          "null", "[123.5]", "123.5.5", "{"};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        spoil_number(path, intact, numbers[i]);
        mq_tuning tuning;
        measure(true, &tuning);
        assert_true(tuning.has_formats && tuning.linear[MQ_LINEAR_BF16] > 0 && tuning.linear[MQ_LINEAR_BF16] < 60);
    }
    spoil_number(path, intact, "123.5");
    snprintf(text, sizeof text, "%s", read_text(path));
    char *machine = strstr(text, "mixquant "); /* of another version */
    assert_non_null(machine);
    machine[0] = 'M';
    write_text(path, text);
    assert_false(says(123.5));
    for (size_t length = 0; length < strlen(intact); length += strlen(intact) / 3 + 1) { /* cut short */
        snprintf(text, sizeof text, "%.*s", (int)length, intact);
        write_text(path, text);
        assert_false(says(123.5));
    }
    write_text(path, "[]");
    assert_false(says(123.5));
    unlink(path);
    assert_int_equal(mkdir(path, 0755), 0); /* nothing can be kept there */
    assert_false(says(123.5));
    rmdir(path);
    mq__free(path);
}

/* A file as an older run has left it, without formats, gets them. */
static void test_formats_later(void **state)
{
    (void)state;
    mq_tuning tuning;
    const mq_isa isa = own_isa();
    if (isa == MQ_ISA_REF) skip();
    char *path = mq__tuning_path(isa, unit_dir);
    unlink(path);
    measure(false, &tuning);
    assert_false(tuning.has_formats);
    assert_true((tuning.variant[MQ_DENSE_THIN][1] > 0) == (mq__kernels_get(isa)->variants[MQ_DENSE_THIN].count > 1));
    measure(true, &tuning);
    assert_true(tuning.has_formats);
    for (int f = 0; f < MQ_LINEAR_FORMATS; f++) {
        assert_true(tuning.linear[f] > 0);
    }
    assert_true(tuning.linear[MQ_LINEAR_FP8] == tuning.linear[MQ_LINEAR_BF16]); /* by the same kernels */
    assert_non_null(strstr(read_text(path), "attention_far"));
    mq__free(path);
}

static void test_time(void **state)
{
    (void)state;
    double best = 1e9;
    mq_tuning tuning;
    const mq_isa isa = own_isa();
    if (isa == MQ_ISA_REF) skip();
    char *path = mq__tuning_path(isa, unit_dir);
    for (int i = 0; i < 3; i++) {
        unlink(path);
        const double start = mq__seconds();
        measure(true, &tuning);
        const double seconds = mq__seconds() - start;
        if (seconds < best) best = seconds;
    }
    print_message("all was measured in %.3f s\n", best);
    assert_true(best < 10 || getenv("MQ_EMULATOR")); /* 0.5 where nobody else computes */
    mq__free(path);
}

/* ---- formats */

/* A machine where these take so long. */
static void pretend(double w16a16, double int8, double nvfp4, const double far[MQ_ATTENTION_FORMATS])
{
    mq_tuning t;
    char text[8192], *at;
    char *path = mq__tuning_path(own_isa(), unit_dir);
    mq__tuning_forget();
    unlink(path);
    measure(true, &t);
    snprintf(text, sizeof text, "%s", read_text(path));
    at = strstr(text, "\"prefill\"");
    assert_non_null(at);
    snprintf(at, sizeof text - (size_t)(at - text),
             "\"prefill\": {\"bf16\": 1, \"nvfp4\": %g, \"w4a16\": 1.1, \"w16a16\": %g, \"int8\": %g, \"fp8\": 1},\n"
             "\"attention\": {\"bf16\": 0.1, \"int8\": 0.1, \"w16a16\": 0.1},\n"
             "\"attention_far\": {\"bf16\": %g, \"int8\": %g, \"w16a16\": %g}}\n",
             nvfp4, w16a16, int8, far[MQ_ATTENTION_BF16], far[MQ_ATTENTION_INT8], far[MQ_ATTENTION_W16A16]);
    write_text(path, text);
    mq__free(path);
}

static mq_plan_options choose(const char *names)
{
    char why[512];
    mq_error error = {0};
    mq_plan_options plan = {.prefill = MQ_LINEAR_W4A16};
    const mq_engine_options options = {.model_dir = model, .cache_dir = unit_dir};
    if (mq_choose_plan(&options, true, true, &plan, why, sizeof why, &error) != MQ_OK) fail_msg("%s", error.text);
    print_message("%s\n", why);
    if (!strstr(why, names)) fail_msg("expected %s, got %s", names, why);
    assert_null(strchr(why, '\n'));
    return plan;
}

static void test_choice(void **state)
{
    (void)state;
    if (own_isa() == MQ_ISA_REF) skip();
    const double server[] = {[MQ_ATTENTION_BF16] = 1, [MQ_ATTENTION_INT8] = 0.4, [MQ_ATTENTION_W16A16] = 0.6};
    const double same[] = {1, 1, 1}, middle[] = {1, 0.9, 0.6};
    pretend(0.55, 0.3, 0.4, server);
    mq_plan_options plan = choose("prefill int8: w16a16 1.82, int8 3.33, nvfp4 2.50");
    assert_int_equal(plan.prefill, MQ_LINEAR_INT8);
    assert_int_equal(plan.attention, MQ_ATTENTION_INT8);
    pretend(1.1, 1.05, 0.5, same);
    plan = choose("attention bf16");
    assert_int_equal(plan.prefill, MQ_LINEAR_NVFP4);
    assert_int_equal(plan.attention, MQ_ATTENTION_BF16);
    pretend(0.5, 0.5, 0.5, middle); /* equally fast: the most precise */
    plan = choose("prefill w16a16");
    assert_int_equal(plan.prefill, MQ_LINEAR_W16A16);
    assert_int_equal(plan.attention, MQ_ATTENTION_W16A16);
    pretend(1, 0.99, 1.2, same);
    assert_int_equal(choose("prefill bf16").prefill, MQ_LINEAR_BF16);
    mq__tuning_forget();
}

/* Who names NVFP4 hears of a more precise format only where that is much faster. */
static void test_word_to_who_named(void **state)
{
    (void)state;
    if (own_isa() == MQ_ISA_REF) skip();
    const double same[] = {1, 1, 1};
    const mq_engine_options options = {.model_dir = model, .cache_dir = unit_dir};
    for (int faster = 0; faster < 2; faster++) {
        char why[512];
        mq_error error = {0};
        mq_plan_options plan = {.prefill = MQ_LINEAR_NVFP4};
        pretend(faster ? 0.25 : 0.45, 0.1, 0.5, same); /* INT8 takes memory and is not proposed */
        if (mq_choose_plan(&options, false, true, &plan, why, sizeof why, &error) != MQ_OK) fail_msg("%s", error.text);
        assert_int_equal(plan.prefill, MQ_LINEAR_NVFP4);
        assert_int_equal(strstr(why, "; --prefill w16a16 would be 2.0 times as fast as nvfp4 here") != NULL, faster);
        plan.file = "some layers.json"; /* which layers have which format is not known */
        if (mq_choose_plan(&options, false, true, &plan, why, sizeof why, &error) != MQ_OK) fail_msg("%s", error.text);
        assert_null(strstr(why, "would be"));
    }
    mq__tuning_forget();
}

static void test_candidates(void **state)
{
    (void)state;
    mq_candidate list[32];
    size_t count, winners = 0;
    const double same[] = {1, 1, 1};
    if (own_isa() == MQ_ISA_REF) skip();
    pretend(0.5, 0.4, 0.3, same);
    assert_int_equal(mq_machine_candidates(unit_dir, list, 32, &count, NULL), MQ_OK);
    assert_true(count >= 7 && count <= 32);
    for (size_t i = 0; i < count; i++) {
        assert_true(list[i].seconds > 0);
        winners += list[i].winner;
        if (strcmp(list[i].choice, "prefill") == 0)
            assert_int_equal(list[i].winner, strcmp(list[i].name, "nvfp4") == 0);
    }
    size_t choices = 1;
    for (size_t i = 1; i < count; i++)
        choices += strcmp(list[i].choice, list[i - 1].choice) != 0;
    assert_int_equal(winners, choices);
    size_t again;
    assert_int_equal(mq_machine_candidates(unit_dir, list, 2, &again, NULL), MQ_OK);
    assert_int_equal(again, count);
    mq__tuning_forget();
}

/* Memory that runs out is an error like any other, and leaves nothing behind. */
static void test_no_memory(void **state)
{
    (void)state;
    mq_trial *trial;
    mq_error error = {0};
    for (unsigned long n = 1;; n++) {
        mq__alloc_fail_at(n);
        const mq_status status = mq__trial_new(mq__kernels_get(own_isa()), 2, &trial, &error);
        const bool hit = mq__alloc_fail_at(0) >= n;
        if (!hit) {
            assert_int_equal(status, MQ_OK);
            mq__trial_free(trial);
            break;
        }
        assert_int_equal(status, MQ_NO_MEMORY);
        assert_null(trial);
    }
}

static int set_up(void **state)
{
    return unit_setup(state) || make_model(state);
}

static int tear_down(void **state)
{
    return forget_model(state) | unit_teardown(state);
}

int main(void)
{
    unsetenv("MQ_VARIANTS");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_variants_agree), cmocka_unit_test(test_winners),
        cmocka_unit_test(test_pins),           cmocka_unit_test(test_file),
        cmocka_unit_test(test_formats_later),  cmocka_unit_test(test_time),
        cmocka_unit_test(test_choice),         cmocka_unit_test(test_word_to_who_named),
        cmocka_unit_test(test_candidates),     cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
