/* Short prompts together against one after the other: what a step of rows of many sequences brings to their prefill. Both ways in turn,
 * the ratio of tokens a second of each pair.
 *
 *     bench_prompts SHAPE LAYERS FORMAT [PROMPTS [TOKENS [PAIRS]]]     8 prompts of 64 tokens, 9 pairs
 *
 * SHAPE: of `mixquant synth`, with random weights, cut to LAYERS (0: all); FORMAT of the prefill: bf16, nvfp4, int8, ... */
#include "mixquant_tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PROMPTS_MOST = 64, TOKENS_MOST = 4096, PAIRS_MOST = 99 };

static mq_engine *engine;
static mq_sequence *sequence[PROMPTS_MOST];
static int32_t tokens[PROMPTS_MOST][TOKENS_MOST];

static void check(mq_status status, const mq_error *error)
{
    if (status == MQ_OK) return;
    fprintf(stderr, "bench_prompts: %s\n", error->text);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void open_shape(const char *shape, uint32_t layers, const char *format)
{
    char *dir;
    mq_error error = {0};
    mq_linear_format prefill = MQ_LINEAR_FORMATS;
    for (int f = 0; f < MQ_LINEAR_FORMATS; f++) {
        if (strcmp(mq_linear_format_name((mq_linear_format)f), format) == 0) prefill = (mq_linear_format)f;
    }
    if (prefill == MQ_LINEAR_FORMATS) {
        fprintf(stderr, "bench_prompts: expected a format, got %s\n", format);
        exit(2);
    }
    check(mq_synth_cached(shape, layers, NULL, &dir, &error), &error);
    const mq_engine_options options = {.model_dir = dir,
                                       .plan = {.prefill = prefill, .decode = MQ_LINEAR_BF16},
                                       .context = TOKENS_MOST,
                                       .sequences = PROMPTS_MOST / 8};
    check(mq_engine_open(&options, &engine, &error), &error);
    mq_engine_settle(engine);
    mq_free(dir);
}

/* Seconds for all prompts, in steps of `together` sequences each; without logits, which come of the decode row that follows a prompt. */
static double run_prompts(uint32_t prompts, uint32_t count, uint32_t together)
{
    mq_error error = {0};
    mq_rows rows[PROMPTS_MOST];
    for (uint32_t i = 0; i < prompts; i++) {
        (void)mq_sequence_truncate(sequence[i], 0);
    }
    const double begin = now();
    for (uint32_t i = 0; i < prompts; i += together) {
        for (uint32_t k = 0; k < together; k++) {
            rows[k] = (mq_rows){
                .sequence = sequence[i + k], .tokens = tokens[i + k], .count = count, .phase = MQ_PHASE_PREFILL};
        }
        check(mq_engine_step(engine, rows, together, &error), &error);
    }
    return now() - begin;
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    double alone[PAIRS_MOST], all[PAIRS_MOST], ratio[PAIRS_MOST];
    mq_error error = {0};
    if (argc < 4) {
        fprintf(stderr, "bench_prompts SHAPE LAYERS FORMAT [PROMPTS [TOKENS [PAIRS]]]\n");
        return 2;
    }
    const uint32_t prompts = argc > 4 ? (uint32_t)atoi(argv[4]) : 8, count = argc > 5 ? (uint32_t)atoi(argv[5]) : 64;
    const uint32_t pairs = argc > 6 ? (uint32_t)atoi(argv[6]) : 9;
    if (!prompts || prompts > PROMPTS_MOST || !count || count > TOKENS_MOST || !pairs || pairs > PAIRS_MOST) return 2;
    open_shape(argv[1], (uint32_t)atoi(argv[2]), argv[3]);
    srand(1);
    for (uint32_t i = 0; i < prompts; i++) {
        check(mq_sequence_new(engine, &sequence[i], &error), &error);
        for (uint32_t t = 0; t < count; t++)
            tokens[i][t] = rand() % 1000 + 1;
    }
    (void)run_prompts(prompts, count, 1);
    (void)run_prompts(prompts, count, prompts);
    for (uint32_t i = 0; i < pairs; i++) {
        alone[i] = run_prompts(prompts, count, 1);
        all[i] = run_prompts(prompts, count, prompts);
        ratio[i] = alone[i] / all[i];
    }
    qsort(alone, pairs, sizeof *alone, compare_doubles);
    qsort(all, pairs, sizeof *all, compare_doubles);
    qsort(ratio, pairs, sizeof *ratio, compare_doubles);
    const double rows = (double)prompts * count;
    printf("%s %s, %u prompts of %u: one after the other %.0f tok/s, together %.0f; ratio %.2f (%.2f to %.2f)\n",
           argv[1], argv[3], prompts, count, rows / alone[pairs / 2], rows / all[pairs / 2], ratio[pairs / 2], ratio[0],
           ratio[pairs - 1]);
    for (uint32_t i = 0; i < prompts; i++)
        mq_sequence_free(sequence[i]);
    mq_engine_close(engine);
    return 0;
}
