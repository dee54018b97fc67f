/* Runs the texts with one group of one layer quantised, all others BF16.
 *
 * What counts is the answer. Under Mix-Quant the prompt reaches it through keys and values only: what the prompt's own logits
 * would show of the last layer's o, gate_up and down never gets there. So the prompt runs in the plan under test, the answer
 * (the text's own continuation) in BF16 on the cache that the prompt left, and the answer's logits are compared. */
#include "quantize/sensitivity.h"

#include "base/distribution.h"
#include "base/error.h"
#include "base/json_read.h"
#include "base/mem.h"
#include "engine/engine.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define ANSWER_MAX  128
#define LOGITS_MAX  ((size_t)512 << 20) /* bytes of kept reference logits */
#define TIMINGS     9
#define LAYERS_TEXT 2048 /* of a rule: "0,1,2,..." */

static const mq_linear_format rungs[MQ_RUNGS] = {MQ_LINEAR_NVFP4, MQ_LINEAR_INT8, MQ_LINEAR_BF16};

typedef struct job {
    const mq_sensitivity_options *options;
    mq_engine *engine;
    mq_sequence *sequence;
    mq_sensitivity measured;
    uint32_t vocab, answer; /* rows of an answer at most */
    float **reference;      /* [texts][rows, V] of BF16 */
    uint32_t done, total;
} job;

/* ---- plans: changed in place, so that what the sequence holds stays valid */

static void set_group(job *j, uint32_t layer, int group, int rung)
{
    mq_linear_format format = rungs[rung];
    const mq_weights *w = j->engine->weights;
    for (size_t i = 0; i < w->module_count; i++) {
        if (w->module[i].place.layer != layer || (int)w->module[i].rule->group != group) continue;
        if (!mq__weights_can_have(w, i, mq__face_of(format))) format = MQ_LINEAR_BF16;
    }
    j->engine->plan->phase[MQ_PHASE_PREFILL].format[layer][group] = (uint8_t)format;
}

static void set_all(job *j, int rung)
{
    for (uint32_t l = 0; l < j->measured.layers; l++) {
        for (int g = 0; g < MQ_GROUPS; g++) {
            set_group(j, l, g, rung);
        }
    }
}

static void set_choice(job *j, uint8_t (*choice)[MQ_GROUPS])
{
    for (uint32_t l = 0; l < j->measured.layers; l++) {
        for (int g = 0; g < MQ_GROUPS; g++) {
            set_group(j, l, g, choice[l][g]);
        }
    }
}

/* ---- divergence */

typedef struct reading {
    const job *job;
    float *reference;
    bool keep; /* the reference, instead of comparing with it */
    uint32_t first, rows;
    double sum;
    bool is_finite;
} reading;

static void take_logits_sensitivity(void *context, uint32_t first, uint32_t rows, const float *logits)
{
    reading *r = context;
    const size_t vocab = r->job->vocab;
    for (uint32_t i = 0; i < rows; i++) {
        const float *row = logits + i * vocab;
        if (first + i < r->first) continue;
        float *kept = r->reference + (first + i - r->first) * vocab;
        r->is_finite = r->is_finite && isfinite(mq__log_sum(row, r->job->vocab));
        if (r->keep)
            memcpy(kept, row, vocab * sizeof *row);
        else
            r->sum += mq__divergence(kept, row, r->job->vocab);
        r->rows++;
    }
}

/* The prompt's end: its last token's logits, which choose the answer's first token, belong to the answer. */
static uint32_t prompt_of(const job *j, const mq_token_span *text)
{
    const uint32_t quarter = text->count / 4, answer = quarter < j->answer ? quarter : j->answer;
    return answer ? text->count - answer : text->count - 1;
}

/* Mean divergence of all answers after prompts that ran in the plan that prepare sets. */
static mq_status measure_sensitivity(job *j, void (*prepare)(job *, const void *), const void *plan, bool keep,
                                     double *mean, mq_error *error)
{
    const mq_sensitivity_options *o = j->options;
    reading all = {.is_finite = true};
    mq_status s = MQ_OK;
    if (o->progress && !o->progress(o->context, j->done++, j->total)) {
        return mq__fail(error, MQ_CANCELLED, "sensitivity: %s: cancelled", o->model_dir);
    }
    for (size_t i = 0; s == MQ_OK && i < o->text_count; i++) {
        const mq_token_span *text = &o->texts[i];
        if (text->count < 2) continue;
        const uint32_t prompt = prompt_of(j, text);
        reading r = {.job = j, .reference = j->reference[i], .keep = keep, .first = prompt - 1, .is_finite = true};
        mq_sequence_truncate(j->sequence, 0);
        prepare(j, plan);
        s = mq_sequence_sync(j->sequence, text->tokens, prompt, NULL, NULL, error);
        if (s != MQ_OK) break;
        take_logits_sensitivity(&r, prompt - 1, 1, mq_sequence_logits(j->sequence));
        set_all(j, MQ_RUNG_BF16);
        const mq_sync_options how = {.logits = take_logits_sensitivity, .context = &r};
        s = mq_sequence_sync(j->sequence, text->tokens, text->count, &how, NULL, error);
        all.sum += r.sum;
        all.rows += r.rows;
        all.is_finite = all.is_finite && r.is_finite;
    }
    if (s == MQ_OK && !all.is_finite) {
        s = mq__fail(error, MQ_FORMAT, "sensitivity: %s: expected finite logits, got others", o->model_dir);
    }
    *mean = all.rows ? all.sum / all.rows : 0;
    return s;
}

typedef struct single {
    uint32_t layer;
    int group, rung;
} single;

static void prepare_single(job *j, const void *plan)
{
    const single *one = plan;
    set_all(j, MQ_RUNG_BF16);
    set_group(j, one->layer, one->group, one->rung);
}

static void prepare_uniform(job *j, const void *plan)
{
    set_all(j, *(const int *)plan);
}

static void prepare_choice(job *j, const void *plan)
{
    set_choice(j, (uint8_t(*)[MQ_GROUPS])(uintptr_t)plan);
}

static mq_status measure_groups(job *j, mq_error *error)
{
    mq_status s = MQ_OK;
    for (single one = {0}; s == MQ_OK && one.layer < j->measured.layers; one.layer++) {
        for (one.group = 0; s == MQ_OK && one.group < MQ_GROUPS; one.group++) {
            for (one.rung = 0; s == MQ_OK && one.rung < MQ_RUNG_BF16; one.rung++) {
                s = measure_sensitivity(j, prepare_single, &one, false,
                                        &j->measured.divergence[one.layer][one.group][one.rung], error);
            }
        }
    }
    return s;
}

/* ---- time */

typedef struct stopwatch {
    const mq_engine *engine;
    double group[MQ_GROUPS], last;
} stopwatch;

static double linear_seconds(const mq_engine *engine)
{
    mq_profile p;
    mq_engine_profile(engine, &p);
    return p.prefill[MQ_STAGE_PREPARE] + p.prefill[MQ_STAGE_LINEAR];
}

/* A group has just been computed: what the linear stages took since the group before is its time. */
static void take_time(void *context, uint32_t layer, mq_linear_group group, const float *rows, uint32_t count,
                      uint32_t width)
{
    stopwatch *w = context;
    (void)layer, (void)rows, (void)count, (void)width;
    const double now = linear_seconds(w->engine);
    w->group[group] += now - w->last;
    w->last = now;
}

/* Each format in its turn, several times over; the smallest of each counts. */
static mq_status measure_time(job *j, mq_error *error)
{
    const mq_token_span *longest = &j->options->texts[0];
    mq_sensitivity *m = &j->measured;
    mq_status s = MQ_OK;
    for (size_t i = 1; i < j->options->text_count; i++) {
        if (j->options->texts[i].count > longest->count) longest = &j->options->texts[i];
    }
    for (int run = 0; s == MQ_OK && run < TIMINGS; run++) {
        for (int rung = 0; s == MQ_OK && rung < MQ_RUNGS; rung++) {
            stopwatch watch = {.engine = j->engine, .last = linear_seconds(j->engine)};
            const mq_observer observer = {.linear = take_time, .context = &watch};
            mq_sync_stats stats = {0};
            set_all(j, rung);
            mq_sequence_truncate(j->sequence, 0);
            mq_engine_observe(j->engine, &observer);
            s = mq_sequence_sync(j->sequence, longest->tokens, longest->count, NULL, &stats, error);
            mq_engine_observe(j->engine, NULL);
            for (int g = 0; g < MQ_GROUPS; g++) {
                const double seconds = watch.group[g] / m->layers;
                m->seconds[g][rung] = run ? fmin(m->seconds[g][rung], seconds) : seconds;
            }
            if (rung == MQ_RUNG_NVFP4) {
                m->prefill_seconds = run ? fmin(m->prefill_seconds, stats.prefill_s) : stats.prefill_s;
            }
        }
    }
    return s;
}

/* ---- the plan file */

static double seconds_of(const mq_sensitivity *m, uint8_t (*choice)[MQ_GROUPS])
{
    double sum = m->prefill_seconds;
    for (uint32_t l = 0; l < m->layers; l++) {
        for (int g = 0; g < MQ_GROUPS; g++) {
            sum += m->seconds[g][choice[l][g]] - m->seconds[g][MQ_RUNG_NVFP4];
        }
    }
    return sum;
}

/* The names of a group in a plan file: layers of either kind take theirs. */
static json_t *names_of(const job *j, int group)
{
    static const mq_layer_kind delta = {.mixer = MQ_MIXER_GATED_DELTA};
    json_t *names = json_array();
    json_array_append_new(names, json_string(mq_linear_group_name((mq_linear_group)group)));
    if (j->engine->state_floats && group <= MQ_GROUP_O) {
        json_array_append_new(names, json_string(mq__plan_group_name(delta, group)));
    }
    return names;
}

/* A rule for the layers whose group is on a rung; NULL where there are none. */
static json_t *rule_of_sensitivity(const job *j, uint8_t (*choice)[MQ_GROUPS], int group, int rung)
{
    char text[LAYERS_TEXT] = "";
    size_t used = 0;
    for (uint32_t l = 0; l < j->measured.layers && used + 16 < sizeof text; l++) {
        if (choice[l][group] != rung) continue;
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%u", used ? "," : "", l);
    }
    if (!used) return NULL;
    return json_pack("{sssoss}", "layers", text, "linears", names_of(j, group), "prefill",
                     mq_linear_format_name(rungs[rung]));
}

static json_t *rules_of(const job *j, uint8_t (*choice)[MQ_GROUPS])
{
    char all[32];
    json_t *rules = json_array();
    snprintf(all, sizeof all, "0-%u", j->measured.layers - 1);
    json_array_append_new(rules, json_pack("{ssss}", "layers", all, "prefill", "nvfp4"));
    for (int rung = MQ_RUNG_INT8; rung < MQ_RUNGS; rung++) {
        for (int g = 0; g < MQ_GROUPS; g++) {
            json_t *rule = rule_of_sensitivity(j, choice, g, rung);
            if (rule) json_array_append_new(rules, rule);
        }
    }
    return rules;
}

static json_t *groups_of(const mq_sensitivity *m)
{
    json_t *groups = json_array();
    for (uint32_t l = 0; l < m->layers; l++) {
        for (int g = 0; g < MQ_GROUPS; g++) {
            json_array_append_new(groups, json_pack("{sisssfsf}", "layer", (int)l, "linears",
                                                    mq_linear_group_name((mq_linear_group)g), "nvfp4",
                                                    m->divergence[l][g][MQ_RUNG_NVFP4], "int8",
                                                    m->divergence[l][g][MQ_RUNG_INT8]));
        }
    }
    return groups;
}

static mq_status write_plan_sensitivity(job *j, char **plan, mq_error *error)
{
    const mq_sensitivity *m = &j->measured;
    static const int nvfp4 = MQ_RUNG_NVFP4, int8 = MQ_RUNG_INT8;
    double of_nvfp4 = 0, of_int8 = 0, of_plan = 0;
    uint8_t(*choice)[MQ_GROUPS] = mq__alloc_zero(m->layers, sizeof *choice);
    if (!choice) return mq__fail(error, MQ_NO_MEMORY, "sensitivity: expected memory, got none");
    mq__sensitivity_choose(m, j->options->budget, choice);
    mq_status s = measure_sensitivity(j, prepare_uniform, &nvfp4, false, &of_nvfp4, error);
    if (s == MQ_OK) s = measure_sensitivity(j, prepare_uniform, &int8, false, &of_int8, error);
    if (s == MQ_OK) s = measure_sensitivity(j, prepare_choice, choice, false, &of_plan, error);
    if (s == MQ_OK) {
        const unsigned long before = mq__json_failures();
        json_t *times = json_array();
        for (int g = 0; g < MQ_GROUPS; g++) {
            json_array_append_new(times, json_pack("{sssfsfsf}", "linears", mq_linear_group_name((mq_linear_group)g),
                                                   "nvfp4", m->seconds[g][MQ_RUNG_NVFP4], "int8",
                                                   m->seconds[g][MQ_RUNG_INT8], "bf16", m->seconds[g][MQ_RUNG_BF16]));
        }
        json_t *root =
            json_pack("{sos{sfsfs{sfsfsf}soso}}", "layers", rules_of(j, choice), "sensitivity", "budget",
                      j->options->budget, "time", seconds_of(m, choice) / m->prefill_seconds, "divergence", "nvfp4",
                      of_nvfp4, "plan", of_plan, "int8", of_int8, "seconds", times, "groups", groups_of(m));
        mq_buf text = {0};
        const bool complete = root && mq__json_print(root, JSON_INDENT(1) | JSON_REAL_PRECISION(6), &text) &&
                              mq__json_failures() == before;
        *plan = complete ? mq__buf_take(&text) : NULL;
        mq__buf_free(&text);
        json_decref(root);
        if (!*plan) s = mq__fail(error, MQ_NO_MEMORY, "sensitivity: expected memory, got none");
    }
    mq__free(choice);
    return s;
}

/* ---- */

static mq_status open_job_sensitivity(job *j, mq_error *error)
{
    const mq_sensitivity_options *o = j->options;
    uint32_t longest = 0;
    for (size_t i = 0; i < o->text_count; i++) {
        longest = o->texts[i].count > longest ? o->texts[i].count : longest;
    }
    if (longest < 2) return mq__fail(error, MQ_USAGE, "sensitivity: texts: expected two tokens or more, got fewer");
    mq_engine_options how = {.model_dir = o->model_dir,
                             .prefill_model_dir = o->prefill_model_dir,
                             .scales = o->scales,
                             .threads = o->threads,
                             .context = longest,
                             .no_cache = true};
    mq_status s = mq_engine_open(&how, &j->engine, error);
    /* Each face once; the last plan is BF16 in both phases, and its formats are changed in place from here on. */
    for (int rung = 0; s == MQ_OK && rung < MQ_RUNGS; rung++) {
        how.plan.prefill = rungs[rung];
        s = mq_engine_set_plan(j->engine, &how.plan, error);
    }
    if (s == MQ_OK) s = mq_sequence_new(j->engine, &j->sequence, error);
    if (s != MQ_OK) return s;
    j->measured.layers = j->engine->weights->model.layers;
    j->vocab = j->engine->weights->model.vocab;
    j->total = j->measured.layers * MQ_GROUPS * MQ_RUNG_BF16 + 4; /* and BF16, NVFP4, INT8, the plan */
    const size_t row = j->vocab * sizeof(float), fit = LOGITS_MAX / row / o->text_count;
    j->answer = fit < 2 ? 1 : fit - 1 < ANSWER_MAX ? (uint32_t)(fit - 1) : ANSWER_MAX;
    j->measured.divergence = mq__alloc_zero(j->measured.layers, sizeof *j->measured.divergence);
    j->reference = mq__alloc_zero(o->text_count, sizeof *j->reference);
    bool complete = j->measured.divergence && j->reference;
    for (size_t i = 0; complete && i < o->text_count; i++) {
        j->reference[i] = mq__alloc((j->answer + 1) * row);
        complete = j->reference[i];
    }
    return complete ? MQ_OK : mq__fail(error, MQ_NO_MEMORY, "sensitivity: expected memory, got none");
}

static void close_job_sensitivity(job *j)
{
    for (size_t i = 0; j->reference && i < j->options->text_count; i++) {
        mq__free(j->reference[i]);
    }
    mq__free(j->reference);
    mq__free(j->measured.divergence);
    mq_sequence_free(j->sequence);
    mq_engine_close(j->engine);
}

mq_status mq_sensitivity_plan(const mq_sensitivity_options *o, char **plan, mq_error *error)
{
    static const int bf16 = MQ_RUNG_BF16;
    double none;
    *plan = NULL;
    if (!o->model_dir || !(o->budget >= 1 && o->budget <= 100)) {
        return mq__fail(error, MQ_USAGE, "sensitivity: expected a model and a budget of 1 to 100, got others");
    }
    job j = {.options = o};
    mq_status s = open_job_sensitivity(&j, error);
    if (s == MQ_OK) s = measure_sensitivity(&j, prepare_uniform, &bf16, true, &none, error);
    if (s == MQ_OK) s = measure_groups(&j, error);
    if (s == MQ_OK) s = measure_time(&j, error);
    if (s == MQ_OK) s = write_plan_sensitivity(&j, plan, error);
    close_job_sensitivity(&j);
    return s;
}
