/* --prefill auto, --attention auto: the fastest formats, by what tuning.h has measured on this machine. */
#include "base/buf.h"
#include "base/error.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "engine/tuning.h"
#include "format/checkpoint_locate.h"
#include "kernels/trial.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define CLEARLY_FASTER 1.02 /* a less precise format must be faster by so much */
#define MUCH_FASTER    1.25 /* worth a word to who named another */

/* From precise to coarse. W4A16 is BF16's product with more work: never the fastest for a prompt. */
static const mq_linear_format linear_order[] = {MQ_LINEAR_BF16, MQ_LINEAR_W16A16, MQ_LINEAR_INT8, MQ_LINEAR_NVFP4};
static const mq_attention_format attention_order[] = {MQ_ATTENTION_BF16, MQ_ATTENTION_W16A16, MQ_ATTENTION_INT8};
enum {
    LINEAR = sizeof linear_order / sizeof linear_order[0],
    ATTENTION = sizeof attention_order / sizeof attention_order[0]
};

/* Bytes of the INT8 copy: 9 bits a weight of the linear layers. */
static uint64_t int8_bytes(const mq_model_config *c)
{
    const uint64_t q = (uint64_t)c->heads * c->head_dim, kv = (uint64_t)c->kv_heads * c->head_dim;
    const uint64_t layer = (uint64_t)c->width * (2 * q + 2 * kv + 3 * (uint64_t)c->ffn);
    return c->layers * layer / 8 * 9;
}

/* ---- linear layers */

static mq_linear_format fastest_linear(const mq_tuning *t, bool int8)
{
    mq_linear_format best = linear_order[0];
    for (int i = 1; i < LINEAR; i++) {
        const mq_linear_format f = linear_order[i];
        if (f == MQ_LINEAR_INT8 && !int8) continue;
        if (t->linear[f] * CLEARLY_FASTER < t->linear[best]) best = f;
    }
    return best;
}

static void say_linear(const mq_tuning *t, mq_linear_format chosen, mq_buf *text)
{
    mq__buf_printf(text, "prefill %s: ", mq_linear_format_name(chosen));
    for (int i = 1; i < LINEAR; i++) {
        const mq_linear_format f = linear_order[i];
        mq__buf_printf(text, "%s%s %.2f", i > 1 ? ", " : "", mq_linear_format_name(f),
                       t->linear[MQ_LINEAR_BF16] / t->linear[f]);
    }
    mq__buf_puts(text, " times the speed of bf16 here");
}

static void choose_linear(const mq_model_config *config, const mq_tuning *t, mq_plan_options *plan, mq_buf *text)
{
    const double need = (double)int8_bytes(config) * 0x1p-30, memory = (double)mq__memory_available() * 0x1p-30;
    const bool fits = need <= memory / 2;
    if (config->quant_method != MQ_QUANT_NONE) {
        plan->prefill = MQ_LINEAR_NVFP4;
        mq__buf_puts(text, "prefill nvfp4: the checkpoint is quantised already");
        return;
    }
    if (!t->has_formats) {
        plan->prefill = MQ_LINEAR_NVFP4;
        mq__buf_puts(text, "prefill nvfp4: there is no memory to measure the others");
        return;
    }
    plan->prefill = fastest_linear(t, fits);
    say_linear(t, plan->prefill, text);
    if (!fits && fastest_linear(t, true) == MQ_LINEAR_INT8) {
        mq__buf_printf(text, "; an INT8 copy of %.1f GiB is more than half of the %.1f GiB that are free", need,
                       memory);
    }
}

/* ---- attention */

/* Seconds of a prompt's attention: each tile sees itself and those before it. */
static double attention_seconds(const mq_tuning *t, mq_attention_format format, double tokens)
{
    const double near = t->attention[format][0], far = t->attention[format][1];
    const double tiles = tokens / MQ_ATTENTION_TILE, earlier = (double)MQ_TRIAL_EARLIER / MQ_ATTENTION_TILE;
    return tiles * near + tiles * (tiles - 1) / 2 * (far > near ? far - near : 0) / earlier;
}

/* How much slower than FP32 over prompts of all lengths: the geometric mean. */
static double attention_cost(const mq_tuning *t, mq_attention_format format)
{
    static const double lengths[] = {512, 2048, 8192, 32768};
    double product = 1;
    for (int i = 0; i < 4; i++)
        product *= attention_seconds(t, format, lengths[i]) / attention_seconds(t, MQ_ATTENTION_BF16, lengths[i]);
    return pow(product, 0.25);
}

static void choose_attention(const mq_tuning *t, mq_plan_options *plan, mq_buf *text)
{
    const double length = 8192;
    plan->attention = attention_order[0];
    for (int i = 1; i < ATTENTION && t->has_formats; i++) {
        const mq_attention_format f = attention_order[i];
        if (attention_cost(t, f) * CLEARLY_FASTER < attention_cost(t, plan->attention)) plan->attention = f;
    }
    if (text->len) mq__buf_puts(text, "; ");
    mq__buf_printf(text, "attention %s: ", mq_attention_format_name(plan->attention));
    if (!t->has_formats) {
        mq__buf_puts(text, "there is no memory to measure the others");
        return;
    }
    for (int i = 1; i < ATTENTION; i++) {
        const mq_attention_format f = attention_order[i];
        mq__buf_printf(text, "%s%s %.2f", i > 1 ? ", " : "", mq_attention_format_name(f),
                       attention_seconds(t, MQ_ATTENTION_BF16, length) / attention_seconds(t, f, length));
    }
    mq__buf_printf(text, " times the speed of bf16 over %.0f tokens here", length);
}

static mq_status config_of_choice(const char *model_dir, mq_model_config *config, mq_error *error)
{
    char *dir = NULL;
    mq_status status = mq__checkpoint_locate(model_dir, false, &dir, error);
    if (status == MQ_OK) status = mq__model_config_read(dir, config, error);
    mq__free(dir);
    return status;
}

/* Where a more precise format would be much faster than the NVFP4 or INT8 that all of the prompt shall have: what to do about it. INT8 in
 * the place of NVFP4 takes memory and is not proposed. */
static void say_better(const mq_tuning *t, mq_linear_format named, mq_buf *text)
{
    mq_linear_format best = named;
    for (int i = 0; i < LINEAR && linear_order[i] != named; i++) {
        const mq_linear_format f = linear_order[i];
        if (f != MQ_LINEAR_INT8 && t->linear[f] < t->linear[best]) best = f;
    }
    if (t->linear[best] * MUCH_FASTER > t->linear[named]) return;
    mq__buf_printf(text, "; --prefill %s would be %.1f times as fast as %s here, and more precise",
                   mq_linear_format_name(best), t->linear[named] / t->linear[best], mq_linear_format_name(named));
}

/* All of the prompt's linear layers are to be NVFP4 or INT8, made from this checkpoint. */
static bool one_coarse_format(const mq_engine_options *options, const mq_plan_options *plan)
{
    mq_model_config config;
    if (plan->prefill != MQ_LINEAR_NVFP4 && plan->prefill != MQ_LINEAR_INT8) return false;
    if (plan->file || options->prefill_model_dir || !options->model_dir) return false;
    return config_of_choice(options->model_dir, &config, NULL) == MQ_OK && config.quant_method == MQ_QUANT_NONE;
}

mq_status mq_choose_plan(const mq_engine_options *options, bool prefill, bool attention, mq_plan_options *plan,
                         char *why, size_t size, mq_error *error)
{
    mq_isa isa;
    mq_model_config config;
    mq_tuning tuning = {0};
    mq_buf text = {0};
    mq_status status = mq__cpu_choose_isa(&isa, error);
    if (status == MQ_OK && prefill) status = config_of_choice(options->model_dir, &config, error);
    if (status == MQ_OK && isa != MQ_ISA_REF) status = mq__tuning_get(isa, options->cache_dir, true, &tuning, error);
    if (status != MQ_OK) return status;
    if (isa == MQ_ISA_REF) { /* slow in every format */
        if (prefill) plan->prefill = MQ_LINEAR_BF16;
        if (attention) plan->attention = MQ_ATTENTION_BF16;
        mq__buf_printf(&text, "%s bf16: no vector instructions that other formats gain from",
                       prefill ? "prefill" : "attention");
    } else {
        if (prefill) choose_linear(&config, &tuning, plan, &text);
        if (attention) choose_attention(&tuning, plan, &text);
        if (!prefill && tuning.has_formats && one_coarse_format(options, plan))
            say_better(&tuning, plan->prefill, &text);
    }
    if (size) snprintf(why, size, "%s", text.failed || !text.data ? "" : text.data);
    mq__buf_free(&text);
    return MQ_OK;
}

/* ---- what was measured, for people */

typedef struct listing {
    mq_candidate *to;
    size_t room, count;
} listing;

static void add_candidate(listing *l, mq_candidate candidate)
{
    if (l->count < l->room) l->to[l->count] = candidate;
    l->count++;
}

static void list_formats(listing *l, const mq_tuning *t)
{
    mq_plan_options plan = {0};
    mq_buf text = {0};
    plan.prefill = t->has_formats ? fastest_linear(t, true) : MQ_LINEAR_NVFP4;
    choose_attention(t, &plan, &text);
    mq__buf_free(&text);
    for (int i = 0; i < LINEAR; i++) {
        const mq_linear_format f = linear_order[i];
        add_candidate(l, (mq_candidate){.choice = "prefill",
                                        .name = mq_linear_format_name(f),
                                        .seconds = t->linear[f],
                                        .winner = plan.prefill == f});
    }
    for (int i = 0; i < ATTENTION; i++) {
        const mq_attention_format f = attention_order[i];
        add_candidate(l, (mq_candidate){.choice = "attention",
                                        .name = mq_attention_format_name(f),
                                        .seconds = t->attention[f][1],
                                        .winner = plan.attention == f});
    }
}

mq_status mq_machine_candidates(const char *cache_dir, mq_candidate *candidates, size_t room, size_t *count,
                                mq_error *error)
{
    mq_isa isa;
    mq_tuning tuning;
    mq_winners winners;
    listing l = {candidates, room, 0};
    mq_status status = mq__cpu_choose_isa(&isa, error);
    const mq_kernels *level = mq__kernels_get(status == MQ_OK ? isa : MQ_ISA_REF);
    if (status == MQ_OK) status = mq__tuning_get(isa, cache_dir, isa != MQ_ISA_REF, &tuning, error);
    if (status == MQ_OK) status = mq__winners_of(level, &tuning, &winners, error);
    if (status != MQ_OK) return status;
    for (int o = 0; o < MQ_OPERATIONS; o++) {
        for (size_t v = 0; v < level->variants[o].count; v++) {
            add_candidate(&l, (mq_candidate){.choice = mq__operation_name((mq_operation)o),
                                             .name = level->variants[o].one[v].name,
                                             .seconds = tuning.variant[o][v],
                                             .winner = winners.variant[o] == v,
                                             .pinned = winners.pinned[o]});
        }
    }
    if (isa != MQ_ISA_REF) list_formats(&l, &tuning);
    *count = l.count;
    return MQ_OK;
}
