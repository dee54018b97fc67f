/* Speed of both phases, format against format. Compared formats run in turn (A B A B ...), so that a ratio survives a
 * machine whose speed drifts; the machine's own limits are measured before each run, and the share of them is the median
 * of the runs' own shares. */
#include "base/distribution.h"
#include "base/pool.h"
#include "cli/bench_report.h"
#include "cli/turn.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LIST_MAX   16
#define BATCH_MAX  64
#define RUNS_MAX   100
#define LIMITS_MAX 1024

typedef struct settings {
    cli_engine engine;
    const char *shape, *prompts, *depths, *batches, *prefill, *decode, *plan, *csv, *plots;
    int layers, steps, runs;
    bool json;
} settings;

typedef struct bench {
    const settings *s;
    const char *model;
    mq_engine *engine;
    mq_engine_info info;
    mq_machine machine; /* its limits: those of the latest run */
    double read_gb_s[LIMITS_MAX], fma_gmac_s[LIMITS_MAX];
    size_t limit_count;
    mq_sequence *sequence[BATCH_MAX]; /* of the prompts or answers in hand */
    int32_t *tokens;                  /* [context] */
    json_t *results, *ratios;
} bench;

/* "nvfp4", or "nvfp4/int8": the format of the linear layers, and that of attention. "auto" is "auto/auto", "nvfp4/auto" what a
 * user gets who gives no option. */
typedef struct variant {
    char name[24];
    mq_linear_format linear;
    mq_attention_format attention;
    bool auto_linear, auto_attention;
} variant;

typedef struct formats {
    variant item[LIST_MAX];
    size_t count;
} formats;

/* The runs of one variant at one point. */
typedef struct samples {
    double rate[RUNS_MAX], share[RUNS_MAX]; /* tokens per second; of the machine's limit at that time */
    double stages[MQ_STAGES];               /* seconds of all runs */
} samples;

/* What one line of the table is about. */
typedef struct point {
    const char *phase;
    long batch, tokens, depth;
} point;

static double median(const double *values, size_t count)
{
    double sorted[LIMITS_MAX];
    memcpy(sorted, values, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, mq__compare_doubles);
    return count % 2 ? sorted[count / 2] : 0.5 * (sorted[count / 2 - 1] + sorted[count / 2]);
}

static int parse_formats_bench(const char *text, formats *list)
{
    char copy[128], *save = NULL;
    snprintf(copy, sizeof copy, "%s", text);
    list->count = 0;
    for (char *name = strtok_r(copy, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
        mq_error error = {0};
        if (list->count == LIST_MAX) return cli_usage_error("bench: expected each format once, got %s", text);
        variant *v = &list->item[list->count++];
        *v = (variant){.attention = MQ_ATTENTION_BF16};
        snprintf(v->name, sizeof v->name, "%s", name);
        char *slash = strchr(name, '/');
        if (slash) *slash = '\0';
        v->auto_linear = strcmp(name, "auto") == 0;
        v->auto_attention = slash ? strcmp(slash + 1, "auto") == 0 : v->auto_linear;
        if (!v->auto_linear && mq_linear_format_parse(name, &v->linear, &error) != MQ_OK) return cli_report(&error);
        if (slash && !v->auto_attention && mq_attention_format_parse(slash + 1, &v->attention, &error) != MQ_OK)
            return cli_report(&error);
    }
    return list->count ? CLI_DONE : cli_usage_error("bench: expected a list of formats, got none");
}

/* What `auto` stands for on this machine. */
static int choose_variants(const bench *b, formats *list)
{
    const mq_engine_options options = {.model_dir = b->model, .cache_dir = b->s->engine.cache_dir};
    for (size_t i = 0; i < list->count; i++) {
        variant *v = &list->item[i];
        char why[512];
        mq_error error = {0};
        mq_plan_options plan = {.prefill = v->linear, .attention = v->attention};
        if (!v->auto_linear && !v->auto_attention) continue;
        if (mq_choose_plan(&options, v->auto_linear, v->auto_attention, &plan, why, sizeof why, &error) != MQ_OK)
            return cli_report(&error);
        v->linear = plan.prefill;
        v->attention = plan.attention;
        fprintf(stderr, "mixquant: %s: %s\n", v->name, why);
    }
    return CLI_DONE;
}

/* Multiply-adds of a prefill of n tokens: linear layers, and attention over the keys that each token sees. */
static double prefill_macs(const bench *b, uint32_t n)
{
    return n * (double)b->info.linear_weights + (double)mq_engine_attention_macs(b->engine, 0, n);
}

/* Bytes that a decode step of `batch` sequences at some depth reads: the weights once, each sequence's KV. */
static double decode_bytes(const bench *b, double batch, double depth)
{
    const double state = 2 * (double)b->info.state_bytes; /* read and written */
    const double kv = (double)mq_engine_attention_bytes(b->engine, (uint32_t)depth);
    return (double)b->info.decode_bytes + batch * (kv + state);
}

static double weight_bits(mq_linear_format format)
{
    if (format == MQ_LINEAR_NVFP4 || format == MQ_LINEAR_W4A16) return 4.5;
    return format == MQ_LINEAR_INT8 ? 9 : 16;
}

/* Bytes that the prefill of n tokens has to read at least: weights and the cache so far once a chunk. */
static double prefill_bytes(const bench *b, mq_linear_format format, double n)
{
    const mq_engine_info *m = &b->info;
    const double passes = ceil(n / m->chunk), kv = (double)mq_engine_attention_bytes(b->engine, (uint32_t)(n / 2));
    return passes * ((double)m->linear_weights * weight_bits(format) / 8 + kv);
}

/* Multiply-adds of a decode step of `batch` sequences, the head included. */
static double decode_macs(const bench *b, double batch, double depth)
{
    const mq_engine_info *m = &b->info;
    const double attention = (double)mq_engine_attention_macs(b->engine, (uint32_t)depth, 1);
    return batch * ((double)m->linear_weights + (double)m->head_weights + attention);
}

/* {"linear": 0.7, ...}: where the time went. */
static json_t *breakdown_of(const samples *got)
{
    json_t *object = json_object();
    double total = 0;
    for (int stage = 0; stage < MQ_STAGES; stage++) {
        total += got->stages[stage];
    }
    for (int stage = 0; stage < MQ_STAGES && total > 0; stage++) {
        json_object_set_new(object, mq_stage_name((mq_stage)stage), json_real(got->stages[stage] / total));
    }
    return object;
}

static void print_breakdown(const json_t *breakdown)
{
    const char *name, *gap = "         of the time:";
    json_t *share;
    json_object_foreach((json_t *)(uintptr_t)breakdown, name, share)
    {
        printf("%s %s %.1f%%", gap, name, 100 * json_number_value(share));
        gap = ",";
    }
    putchar('\n');
}

/* work: multiply-adds or bytes per token, in units of 1e9; intensity: multiply-adds per byte. */
static json_t *add_result(bench *b, const point *p, const char *format, const samples *got, double work,
                          const char *work_name, double intensity)
{
    double low = INFINITY, high = 0;
    const size_t runs = (size_t)b->s->runs;
    for (size_t i = 0; i < runs; i++) {
        low = fmin(low, got->rate[i]);
        high = fmax(high, got->rate[i]);
    }
    const double middle = median(got->rate, runs), share = median(got->share, runs);
    json_t *result =
        json_pack("{ss ss sI sI sI s{sf sf sf} si sf sf sf so}", "phase", p->phase, "format", format, "batch",
                  (json_int_t)p->batch, "tokens", (json_int_t)p->tokens, "depth", (json_int_t)p->depth, "tok_s", "min",
                  low, "median", middle, "max", high, "runs", b->s->runs, work_name, work * middle, "share", share,
                  "mac_per_byte", intensity, "breakdown", breakdown_of(got));
    json_array_append(b->results, result);
    if (!b->s->json) {
        printf("%-8s %-10s %5ld %7ld %7ld %10.2f %10.2f %10.2f %9.1f %s %5.0f%%", p->phase, format, p->batch, p->tokens,
               p->depth, low, middle, high, work * middle, strcmp(work_name, "gmac_s") ? "GB/s  " : "GMAC/s",
               100 * share);
    }
    json_decref(result); /* the array holds it */
    return result;
}

/* The paired ratio to bf16, where bf16 is in the list. */
static void add_ratio(bench *b, const point *p, const formats *list, size_t which, const samples *got, json_t *result)
{
    double ratios[RUNS_MAX];
    for (size_t f = 0; f < list->count; f++) {
        if (strcmp(list->item[f].name, "bf16") != 0 || f == which) continue;
        for (int i = 0; i < b->s->runs; i++) {
            ratios[i] = got[which].rate[i] / got[f].rate[i];
        }
        const double middle = median(ratios, (size_t)b->s->runs);
        json_array_append_new(b->ratios,
                              json_pack("{ss ss ss sI sI sI sf}", "phase", p->phase, "format", list->item[which].name,
                                        "over", "bf16", "batch", (json_int_t)p->batch, "tokens", (json_int_t)p->tokens,
                                        "depth", (json_int_t)p->depth, "median", middle));
        if (!b->s->json) printf("   %.2fx bf16", middle);
    }
    if (!b->s->json) {
        putchar('\n');
        print_breakdown(json_object_get(result, "breakdown"));
        fflush(stdout);
    }
}

/* How depths are filled before decoding is timed: fast. */
static const variant mix = {.name = "nvfp4", .linear = MQ_LINEAR_NVFP4, .attention = MQ_ATTENTION_INT8};

static int set_plan(bench *b, const variant *prefill, mq_linear_format decode)
{
    mq_error error = {0};
    const bool plain = prefill->linear == MQ_LINEAR_BF16;
    mq_plan_options plan = {.prefill = prefill->linear,
                            .decode = decode,
                            .file = plain ? NULL : b->s->plan, /* the baseline is that */
                            .attention = prefill->attention};
    if (b->s->engine.head && mq_linear_format_parse(b->s->engine.head, &plan.head, &error) != MQ_OK)
        return cli_report(&error);
    if (mq_engine_set_plan(b->engine, &plan, &error) != MQ_OK) return cli_report(&error);
    mq_engine_settle(b->engine);
    mq_engine_describe(b->engine, &b->info);
    return CLI_DONE;
}

/* The machine's limits, as they are now. */
static int refresh_limits(bench *b)
{
    mq_error error = {0};
    if (mq_machine_measure(b->info.threads, true, &b->machine, &error) != MQ_OK) return cli_report(&error);
    if (b->limit_count < LIMITS_MAX) {
        b->read_gb_s[b->limit_count] = b->machine.read_gb_s;
        b->fma_gmac_s[b->limit_count++] = b->machine.fma_gmac_s;
    }
    return CLI_DONE;
}

/* Adds what the engine's stages took since `before`. */
static void add_stages(const bench *b, const mq_profile *before, bool decode, samples *got)
{
    mq_profile now;
    mq_engine_profile(b->engine, &now);
    for (int stage = 0; stage < MQ_STAGES; stage++) {
        got->stages[stage] +=
            decode ? now.decode[stage] - before->decode[stage] : now.prefill[stage] - before->prefill[stage];
    }
}

static int open_sequences(bench *b, mq_sequence **sequence, long batch)
{
    mq_error error = {0};
    for (long i = 0; i < batch; i++) {
        if (mq_sequence_new(b->engine, &sequence[i], &error) != MQ_OK) return cli_report(&error);
    }
    return CLI_DONE;
}

static void free_sequences(mq_sequence **sequence, long batch)
{
    for (long i = 0; i < batch; i++) {
        mq_sequence_free(sequence[i]);
        sequence[i] = NULL;
    }
}

/* `batch` prompts of `count` tokens in one step: they share the products of each pass. */
static int prefill_all(bench *b, long batch, uint32_t count, double *rate)
{
    mq_rows rows[BATCH_MAX];
    mq_error error = {0};
    int code = open_sequences(b, b->sequence, batch);
    for (long i = 0; i < batch; i++) {
        rows[i] = (mq_rows){.sequence = b->sequence[i], .tokens = b->tokens, .count = count, .phase = MQ_PHASE_PREFILL};
    }
    const double start = mq__seconds();
    if (code == CLI_DONE && mq_engine_step(b->engine, rows, (uint32_t)batch, &error) != MQ_OK) {
        code = cli_report(&error);
    }
    *rate = (double)batch * count / (mq__seconds() - start);
    free_sequences(b->sequence, batch);
    return code;
}

static int bench_prefill(bench *b, const formats *list, long tokens, long batch)
{
    samples got[LIST_MAX] = {0};
    const point p = {"prefill", batch, tokens, 0};
    const double work = prefill_macs(b, (uint32_t)tokens) / (double)tokens * 1e-9;
    /* Run -1 warms up: pages of the map, the pool's threads, clock speed. */
    for (int run = -1; run < b->s->runs; run++) {
        int code = refresh_limits(b);
        for (size_t f = 0; code == CLI_DONE && f < list->count; f++) {
            mq_profile before;
            double rate = 0;
            code = set_plan(b, &list->item[f], MQ_LINEAR_BF16);
            mq_engine_profile(b->engine, &before);
            const uint32_t count = (uint32_t)(run < 0 && tokens > 256 ? 256 : tokens);
            if (code == CLI_DONE) code = prefill_all(b, run < 0 ? 1 : batch, count, &rate);
            if (run < 0 || code != CLI_DONE) continue;
            add_stages(b, &before, false, &got[f]);
            got[f].rate[run] = rate;
            got[f].share[run] = work * got[f].rate[run] / b->machine.fma_gmac_s;
        }
        if (code != CLI_DONE) return code;
    }
    for (size_t f = 0; f < list->count; f++) {
        const double bytes = prefill_bytes(b, list->item[f].linear, (double)tokens) / (double)tokens * 1e-9;
        json_t *result = add_result(b, &p, list->item[f].name, &got[f], work, "gmac_s", work / bytes);
        add_ratio(b, &p, list, f, got, result);
    }
    return CLI_DONE;
}

static int time_steps(bench *b, mq_sequence *const *sequence, long depth, long batch, int steps, double *seconds)
{
    mq_error error = {0};
    mq_rows rows[BATCH_MAX];
    for (long i = 0; i < batch; i++) {
        (void)mq_sequence_truncate(sequence[i], (uint32_t)depth);
        rows[i] = (mq_rows){.sequence = sequence[i], .count = 1, .phase = MQ_PHASE_DECODE, .logits = 1};
    }
    const double start = mq__seconds();
    for (int step = 0; step < steps; step++) {
        for (long i = 0; i < batch; i++) {
            rows[i].tokens = &b->tokens[(step + i) % 64];
        }
        if (mq_engine_step(b->engine, rows, (uint32_t)batch, &error) != MQ_OK) return cli_report(&error);
    }
    *seconds = mq__seconds() - start;
    return CLI_DONE;
}

/* Sequences of one decode format, filled to the depth. */
static int fill_bench(bench *b, const variant *decode, mq_sequence **sequence, long depth, long batch)
{
    int code = set_plan(b, &mix, decode->linear);
    if (code == CLI_DONE) code = open_sequences(b, sequence, batch);
    for (long i = 0; code == CLI_DONE && depth > 0 && i < batch; i++) {
        mq_error error = {0};
        if (mq_sequence_sync(sequence[i], b->tokens, (uint32_t)depth, NULL, NULL, &error) != MQ_OK) {
            code = cli_report(&error);
        }
    }
    return code;
}

static int bench_decode(bench *b, const formats *list, long depth, long batch)
{
    samples got[LIST_MAX] = {0};
    double gb[LIST_MAX] = {0}; /* per token */
    const point p = {"decode", batch, b->s->steps, depth};
    mq_sequence *sequence[LIST_MAX][BATCH_MAX] = {{NULL}};
    int code = CLI_DONE;
    for (size_t f = 0; code == CLI_DONE && f < list->count; f++) {
        code = fill_bench(b, &list->item[f], sequence[f], depth, batch);
    }
    if (code == CLI_DONE) code = refresh_limits(b);
    for (int run = -1; code == CLI_DONE && run < b->s->runs; run++) {
        for (size_t f = 0; code == CLI_DONE && f < list->count; f++) {
            double seconds = 1;
            mq_profile before;
            code = set_plan(b, &mix, list->item[f].linear);
            mq_engine_profile(b->engine, &before);
            if (code == CLI_DONE) code = time_steps(b, sequence[f], depth, batch, run < 0 ? 1 : b->s->steps, &seconds);
            if (run < 0 || code != CLI_DONE) continue;
            add_stages(b, &before, true, &got[f]);
            gb[f] = decode_bytes(b, (double)batch, (double)depth + 0.5 * b->s->steps) / (double)batch * 1e-9;
            got[f].rate[run] = (double)batch * b->s->steps / seconds;
        }
        /* Memory that other machines share changes within seconds: the limit is what it is before and after. */
        const double earlier = b->machine.read_gb_s;
        if (code == CLI_DONE) code = refresh_limits(b);
        for (size_t f = 0; code == CLI_DONE && run >= 0 && f < list->count; f++) {
            got[f].share[run] = gb[f] * got[f].rate[run] / (0.5 * (earlier + b->machine.read_gb_s));
        }
    }
    for (size_t f = 0; code == CLI_DONE && f < list->count; f++) {
        const double macs = decode_macs(b, (double)batch, (double)depth + 0.5 * b->s->steps) / (double)batch;
        json_t *result = add_result(b, &p, list->item[f].name, &got[f], gb[f], "gb_s", macs * 1e-9 / gb[f]);
        add_ratio(b, &p, list, f, got, result);
    }
    for (size_t f = 0; f < list->count; f++) {
        free_sequences(sequence[f], batch);
    }
    return code;
}

/* Everything that was measured; NULL: out of memory. */
static json_t *document_of(bench *b, const char *model)
{
    mq_machine *m = &b->machine;
    m->read_gb_s = median(b->read_gb_s, b->limit_count);
    m->fma_gmac_s = median(b->fma_gmac_s, b->limit_count);
    return json_pack("{ss ss s{ss ss si sf sf} s{ss sI sI} sO sO}", "version", mq_version(), "commit", mq_commit(),
                     "cpu", "name", m->cpu, "isa", m->isa, "threads", m->threads, "read_gb_s", m->read_gb_s,
                     "fma_gflop_s", 2 * m->fma_gmac_s, "model", "name", model, "params", (json_int_t)b->info.parameters,
                     "layers", (json_int_t)b->info.layers, "results", b->results, "ratios", b->ratios);
}

static int report(bench *b, const char *model)
{
    json_t *document = document_of(b, model);
    char *text = document && b->s->json ? json_dumps(document, JSON_INDENT(1) | JSON_REAL_PRECISION(6)) : NULL;
    int code = document && (text || !b->s->json) ? CLI_DONE : CLI_FAILED;
    if (text) puts(text);
    if (code == CLI_DONE && b->s->csv) code = bench_write_csv(document, b->s->csv);
    if (code == CLI_DONE && b->s->plots) code = bench_write_plots(document, b->s->plots);
    free(text);
    json_decref(document);
    return code;
}

static int run_all(bench *b, const long *prompts, size_t prompt_count, const long *depths, size_t depth_count,
                   const long *batches, size_t batch_count)
{
    formats prefill, decode;
    int code = parse_formats_bench(b->s->prefill, &prefill);
    if (code == CLI_DONE) code = choose_variants(b, &prefill);
    if (code == CLI_DONE) code = parse_formats_bench(b->s->decode, &decode);
    if (code == CLI_DONE && !b->s->json) {
        printf("%s, %s, %d threads: read %.1f GB/s, FP32 FMA %.1f GMAC/s\n", b->machine.cpu, b->machine.isa,
               b->machine.threads, b->machine.read_gb_s, b->machine.fma_gmac_s);
        printf("%-8s %-10s %5s %7s %7s %10s %10s %10s %16s %6s\n", "phase", "format", "batch", "tokens", "depth",
               "min tok/s", "median", "max", "work", "limit");
    }
    for (size_t i = 0; i < prompt_count && prompts[i] > 0; i++) {
        for (size_t k = 0; code == CLI_DONE && k < batch_count; k++) {
            code = bench_prefill(b, &prefill, prompts[i], batches[k]);
        }
    }
    for (size_t d = 0; d < depth_count; d++) {
        for (size_t k = 0; code == CLI_DONE && b->s->steps > 0 && k < batch_count; k++) {
            code = bench_decode(b, &decode, depths[d], batches[k]);
        }
    }
    return code;
}

static long largest_bench(const long *values, size_t count)
{
    long best = 0;
    for (size_t i = 0; i < count; i++) {
        if (values[i] > best) best = values[i];
    }
    return best;
}

static int open_bench(bench *b, const char *model, long context, size_t sequences)
{
    const settings *s = b->s;
    mq_error error = {0};
    mq_placement placement = MQ_PLACEMENT_AUTO;
    mq_scale_rule scales;
    if (s->engine.numa && mq_placement_parse(s->engine.numa, &placement, &error) != MQ_OK) return cli_report(&error);
    if (mq_scale_rule_parse(s->engine.scales, &scales, &error) != MQ_OK) return cli_report(&error);
    const mq_engine_options options = {
        .model_dir = model,
        .prefill_model_dir = s->engine.prefill_model,
        .scales = scales,
        .threads = s->engine.threads,
        .context = (uint32_t)context,
        .chunk = (uint32_t)s->engine.chunk,
        .last = (uint32_t)s->engine.last,
        .sequences = (uint32_t)sequences,
        .cache_dir = s->engine.cache_dir,
        .no_cache = s->engine.no_cache,
        .placement = placement,
        .plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16},
    };
    if (mq_engine_open(&options, &b->engine, &error) != MQ_OK) return cli_report(&error);
    mq_engine_describe(b->engine, &b->info);
    const int code = refresh_limits(b);
    if (code != CLI_DONE) return code;
    b->tokens = malloc((size_t)context * sizeof *b->tokens);
    if (!b->tokens) return CLI_FAILED;
    uint64_t state = 1;
    for (long i = 0; i < context; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        b->tokens[i] = (int32_t)((state >> 33) % b->info.vocab);
    }
    b->results = json_array();
    b->ratios = json_array();
    return CLI_DONE;
}

static int bench_model(const settings *s, const char *model, const char *name)
{
    long prompts[LIST_MAX], depths[LIST_MAX], batches[LIST_MAX];
    const size_t prompt_count = cli_number_list(s->prompts, 0, 1 << 22, prompts, LIST_MAX);
    const size_t depth_count = cli_number_list(s->depths, 0, 1 << 22, depths, LIST_MAX);
    const size_t batch_count = cli_number_list(s->batches, 1, BATCH_MAX, batches, LIST_MAX);
    if (!prompt_count) return cli_usage_error("bench: -p: expected lengths such as 512,2048, got %s", s->prompts);
    if (!depth_count) return cli_usage_error("bench: -d: expected depths such as 0,4096, got %s", s->depths);
    if (!batch_count) return cli_usage_error("bench: -b: expected batches from 1 to 64, got %s", s->batches);
    const long deepest = largest_bench(depths, depth_count) + s->steps, longest = largest_bench(prompts, prompt_count);
    const long context = (deepest > longest ? deepest : longest) + 64;
    bench b = {.s = s, .model = model};
    formats decode;
    int code = parse_formats_bench(s->decode, &decode);
    if (strstr(s->decode, "auto"))
        code = cli_usage_error("bench: --decode: expected formats by name, got %s", s->decode);
    const size_t sequences = (size_t)largest_bench(batches, batch_count) * (code == CLI_DONE ? decode.count : 0);
    if (code == CLI_DONE) code = open_bench(&b, model, context, sequences);
    if (code == CLI_DONE) code = run_all(&b, prompts, prompt_count, depths, depth_count, batches, batch_count);
    if (code == CLI_DONE) code = report(&b, name);
    mq_engine_close(b.engine);
    json_decref(b.results);
    json_decref(b.ratios);
    free(b.tokens);
    return code;
}

static int run_bench(int argc, char **argv)
{
    settings s = {.prompts = "512,2048",
                  .depths = "0",
                  .batches = "1",
                  .prefill = "bf16,nvfp4",
                  .decode = "bf16",
                  .steps = 32,
                  .runs = 5};
    cli_option engine[CLI_ENGINE_OPTION_COUNT];
    cli_engine_options(&s.engine, engine, "prefill decode attention plan c");
    const cli_option own[] = {
        {"shape", CLI_TEXT, &s.shape, 0, 0, "random weights of a published shape (see synth) instead of -m"},
        {"layers", CLI_NUMBER, &s.layers, 0, 1024, "cut the shape to N layers (default 0: all)"},
        {"p", CLI_TEXT, &s.prompts, 0, 0, "prompt lengths (default 512,2048; 0: none)"},
        {"n", CLI_NUMBER, &s.steps, 0, 65536, "decode steps of one run (default 32; 0: none)"},
        {"d", CLI_TEXT, &s.depths, 0, 0, "depths at which decoding starts (default 0)"},
        {"b", CLI_TEXT, &s.batches, 0, 0, "sequences at once, 1 to 64 (default 1)"},
        {"r", CLI_NUMBER, &s.runs, 1, RUNS_MAX, "runs of each point (default 5)"},
        {"prefill", CLI_TEXT, &s.prefill, 0, 0,
         "formats of prompts, with commas (default bf16,nvfp4); attention as in nvfp4/int8 and nvfp4/auto (else bf16)"},
        {"decode", CLI_TEXT, &s.decode, 0, 0,
         "formats of answers, with commas (default bf16): bf16, nvfp4, w4a16, int8, w16a16, fp8"},
        {"plan", CLI_TEXT, &s.plan, 0, 0, "JSON file with formats per layer (docs/PLANS.md), of prefills but bf16"},
        {"csv", CLI_TEXT, &s.csv, 0, 0, "file for the results, one a line"},
        {"plots", CLI_TEXT, &s.plots, 0, 0, "folder for SVG plots: speed-up by length, decode by depth, roofline"},
        {"json", CLI_FLAG, &s.json, 0, 0, "one JSON document"},
    };
    const cli_options tables[] = {CLI_OPTIONS(own), CLI_OPTIONS(engine)};
    cli_texts rest = {.count = 0};
    const int code = cli_parse(&cli_bench, tables, 2, argc, argv, &rest, 0);
    if (code != CLI_GO_ON) return code;
    if (s.engine.attention) {
        return cli_usage_error("bench: expected attention beside its format (--prefill nvfp4/%s), got --attention",
                               s.engine.attention);
    }
    if (s.engine.context) return cli_usage_error("bench: expected lengths as -p and -d, got -c");
    if (!s.shape) return bench_model(&s, cli_model(s.engine.model), cli_model(s.engine.model));
    if (s.engine.model) return cli_usage_error("bench: expected one of -m and --shape, got both");
    char *directory;
    mq_error error = {0};
    if (mq_synth_cached(s.shape, (uint32_t)s.layers, s.engine.cache_dir, &directory, &error) != MQ_OK) {
        return cli_report(&error);
    }
    const int result = bench_model(&s, directory, s.shape);
    mq_free(directory);
    return result;
}

const cli_command cli_bench = {"bench", "[-m DIR | --shape NAME [--layers N]] [options]",
                               "tokens per second of each phase, formats compared in turn", run_bench};
