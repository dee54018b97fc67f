/* The codes of one module: smoothing, the tensor scale of its group, then nearest values or GPTQ. */
#include "base/error.h"
#include "base/halffloat.h"
#include "base/mem.h"
#include "quantize/dense_rows.h"
#include "quantize/gptq.h"
#include "quantize/quantize_job.h"

#include <math.h>
#include <string.h>

/* What GPTQ's own code adds to the diagonal, as a part of its mean. */
#define DAMPING 0.01

void mq__dense_rows(const mq_dense *dense, size_t first, size_t count, const float *factor, float *out)
{
    const size_t k = dense->k_width, begin = first * k;
    if (dense->type == MQ_DENSE_F32) {
        memcpy(out, (const float *)dense->data + begin, count * k * sizeof *out);
    } else {
        const uint16_t *half = (const uint16_t *)dense->data + begin;
        for (size_t i = 0; i < count * k; i++) {
            out[i] = dense->type == MQ_DENSE_BF16 ? mq__bf16_to_f32(half[i]) : mq__f16_to_f32(half[i]);
        }
    }
    for (size_t r = 0; factor && r < count; r++) {
        for (size_t i = 0; i < k; i++) {
            out[r * k + i] *= factor[i];
        }
    }
}

typedef struct rows_task {
    const mq_quantize_job *job;
    const mq_dense *dense;
    const float *factor; /* of smoothing, or NULL */
    mq_nvfp4_scale scale;
    const float *u;             /* GPTQ's triangle, or NULL */
    float amax[MQ_THREADS_MAX]; /* per thread */
} rows_task;

static size_t some_rows(size_t at, size_t end)
{
    return end - at < MQ_GPTQ_ROWS ? end - at : MQ_GPTQ_ROWS;
}

static void find_amax_quantize_weights(void *context, int thread, int threads)
{
    rows_task *t = context;
    const size_t k = t->dense->k_width;
    float *rows = t->job->rows[thread], amax = 0;
    size_t begin, end;
    mq__partition(t->dense->n, thread, threads, &begin, &end);
    for (size_t r = begin; r < end && !isnan(amax); r += MQ_GPTQ_ROWS) {
        const size_t count = some_rows(r, end);
        mq__dense_rows(t->dense, r, count, t->factor, rows);
        const float most = mq__weights_amax(rows, MQ_WEIGHT_F32, count * k);
        amax = isnan(most) || most > amax ? most : amax;
    }
    t->amax[thread] = amax;
}

static void quantize_rows(void *context, int thread, int threads)
{
    const rows_task *t = context;
    const mq_quantize_job *j = t->job;
    const size_t k = t->dense->k_width;
    float *rows = j->rows[thread];
    size_t begin, end;
    mq__partition(t->dense->n, thread, threads, &begin, &end);
    for (size_t r = begin; r < end; r += MQ_GPTQ_ROWS) {
        const size_t count = some_rows(r, end);
        uint8_t *nibbles = j->nibbles + r * k / 2, *scales = j->scales + r * k / MQ_NVFP4_VALUES;
        mq__dense_rows(t->dense, r, count, t->factor, rows);
        if (t->u) {
            mq__gptq_quantize_rows(t->u, j->rule, t->scale, rows, (uint32_t)count, (uint32_t)k, nibbles, scales,
                                   j->scratch[thread]);
            continue;
        }
        for (size_t i = 0; i < count; i++) {
            mq__nvfp4_quantize_row(j->rule, t->scale, rows + i * k, MQ_WEIGHT_F32, k, nibbles + i * k / 2,
                                   scales + i * k / MQ_NVFP4_VALUES);
        }
    }
}

/* The scale that a module shares with those fused with it; found at the first of them. */
static mq_status group_scale_of(mq_quantize_job *j, size_t module, rows_task *task, mq_error *error)
{
    const mq_weights *w = j->weights;
    const size_t first = w->module[module].fused, end = mq__fused_end(w, first);
    mq_group_scale *g = &j->scale[first];
    float amax = 0;
    for (size_t i = first; !g->known && i < end; i++) {
        rows_task one = {.job = j, .dense = &w->module[i].linear->dense, .factor = task->factor};
        mq__pool_run(j->pool, find_amax_quantize_weights, &one);
        for (int t = 0; t < mq__pool_threads(j->pool); t++) {
            if (isnan(one.amax[t])) {
                char name[MQ_TENSOR_NAME_BYTES];
                mq__module_name(&w->module[i], ".weight", name);
                return mq__fail(error, MQ_FORMAT, "quantize: tensor %s: expected finite weights, got others", name);
            }
            amax = fmaxf(amax, one.amax[t]);
        }
    }
    if (!g->known) g->scale = mq__nvfp4_scale(j->rule, amax);
    g->known = true;
    task->scale = g->scale;
    return MQ_OK;
}

static mq_status allocate_quantize_weights(mq_quantize_job *j, mq_error *error)
{
    const int threads = mq__pool_threads(j->pool);
    uint32_t widest = 0;
    if (j->rows) return MQ_OK;
    for (size_t i = 0; i < j->weights->module_count; i++) {
        const uint32_t k = j->weights->module[i].linear->k_width;
        widest = k > widest ? k : widest;
    }
    j->rows = mq__alloc_zero((size_t)threads, sizeof *j->rows);
    j->scratch = mq__alloc_zero((size_t)threads, sizeof *j->scratch);
    bool complete = j->rows && j->scratch;
    for (int t = 0; complete && t < threads; t++) {
        j->rows[t] = mq__alloc_aligned((size_t)MQ_GPTQ_ROWS * widest * sizeof **j->rows);
        if (j->options->method == MQ_METHOD_GPTQ) j->scratch[t] = mq__alloc_aligned(mq__gptq_scratch_bytes(widest));
        complete = j->rows[t] && (j->scratch[t] || j->options->method != MQ_METHOD_GPTQ);
    }
    if (complete) return MQ_OK;
    return mq__fail(error, MQ_NO_MEMORY, "quantize: rows: expected memory, got none");
}

void mq__quantize_weights_free(mq_quantize_job *j)
{
    for (int t = 0; j->pool && t < mq__pool_threads(j->pool); t++) {
        if (j->rows) mq__free_aligned(j->rows[t]);
        if (j->scratch) mq__free_aligned(j->scratch[t]);
    }
    mq__free(j->rows);
    mq__free(j->scratch);
    mq__free_aligned(j->factor);
}

/* The triangle of the module's group: made for the first of its linear layers, kept for those that follow. */
static mq_status factor_of_quantize_weights(mq_quantize_job *j, size_t module, const float *smoothing, const float **u,
                                            mq_error *error)
{
    const mq_module *m = &j->weights->module[module];
    const float *moments;
    if (!j->factor || j->factor_group != m->fused) {
        mq__free_aligned(j->factor);
        j->factor = NULL;
        mq_status s = mq__calib_moments(j->calib, m->place.layer, m->rule->group, &moments, error);
        if (s == MQ_OK) {
            s = mq__gptq_factor(moments, smoothing, m->linear->k_width, DAMPING, j->pool, &j->factor, error);
        }
        if (s != MQ_OK) return s;
        j->factor_group = m->fused;
    }
    *u = j->factor;
    return MQ_OK;
}

mq_status mq__quantize_weights(mq_quantize_job *j, size_t module, mq_nvfp4_scale *scale, mq_error *error)
{
    const mq_module *m = &j->weights->module[module];
    const bool of_layer = mq__rule_scope(m->rule) == MQ_SCOPE_LAYER; /* experts read no norm that is smoothed */
    rows_task task = {.job = j,
                      .dense = &m->linear->dense,
                      .factor = of_layer ? mq__smoothing_factor(j->smoothing, m->place.layer, m->rule->group) : NULL};
    mq_status s = allocate_quantize_weights(j, error);
    if (s == MQ_OK) s = group_scale_of(j, module, &task, error);
    if (s == MQ_OK && j->options->method == MQ_METHOD_GPTQ)
        s = factor_of_quantize_weights(j, module, task.factor, &task.u, error);
    if (s != MQ_OK) return s;
    mq__pool_run(j->pool, quantize_rows, &task);
    *scale = task.scale;
    return MQ_OK;
}
