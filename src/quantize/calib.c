#include "quantize/calib.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

#define CHUNK         512
#define MOMENTS_BYTES ((size_t)1 << 30) /* of all held layers; a single layer may be larger */

struct mq_calib {
    mq_engine *engine;
    mq_sequence *sequence;
    const mq_token_span *texts; /* borrowed */
    size_t text_count;
    float *amax[MQ_GROUPS];     /* [L, widest] */
    float *moments;             /* [held layers][group][width, width] */
    size_t layer_floats;        /* of one layer's moments */
    uint32_t first, held, most; /* layers [first, first + held) are held, of `most` that fit */
    float *columns, *panels;    /* [width, CHUNK] a chunk transposed, and packed for the product */
    uint8_t **scratch;          /* [threads] */
    bool is_finite;
};

static const mq_model *model_of_calib(const mq_calib *c)
{
    return &c->engine->weights->model;
}

uint32_t mq__calib_width(const mq_calib *c, uint32_t layer, mq_linear_group group)
{
    const mq_model *m = model_of_calib(c);
    if (group == MQ_GROUP_O) return m->heads * m->layer[layer].head_dim;
    if (group != MQ_GROUP_DOWN) return m->width;
    const bool experts = m->layer[layer].kind.mlp == MQ_MLP_EXPERTS && !m->layer[layer].experts_post_norm;
    return experts ? m->expert_ffn : m->ffn; /* of experts beside a dense MLP that one is seen */
}

/* The largest width of a group in any layer: all layers have so much room. */
static uint32_t widest_of(const mq_calib *c, mq_linear_group group)
{
    uint32_t widest = 0;
    for (uint32_t l = 0; l < model_of_calib(c)->layers; l++) {
        const uint32_t width = mq__calib_width(c, l, group);
        widest = width > widest ? width : widest;
    }
    return widest;
}

/* ---- watching */

static void take_amax(void *context, uint32_t layer, mq_linear_group group, const float *rows, uint32_t count,
                      uint32_t width)
{
    mq_calib *c = context;
    float *amax = c->amax[group] + (size_t)layer * widest_of(c, group);
    for (uint32_t r = 0; r < count; r++) {
        const float *row = rows + (size_t)r * width;
        float sum = 0; /* of zeros, or NaN where a value is not finite */
        for (uint32_t i = 0; i < width; i++) {
            const float a = fabsf(row[i]);
            amax[i] = a > amax[i] ? a : amax[i];
            sum += row[i] * 0.0f;
        }
        c->is_finite = c->is_finite && sum == 0;
    }
}

typedef struct moments_task {
    const mq_calib *calib;
    const float *rows; /* [count, width] */
    uint32_t count, width;
    float *moments; /* [width, width] */
} moments_task;

/* X^T, and its panels. */
static void transpose_calib(void *context, int thread, int threads)
{
    const moments_task *t = context;
    const mq_calib *c = t->calib;
    size_t begin, end;
    mq__partition((t->width + MQ_DENSE_MR - 1) / MQ_DENSE_MR, thread, threads, &begin, &end);
    for (size_t k = begin * MQ_DENSE_MR; k < end * MQ_DENSE_MR && k < t->width; k++) {
        for (size_t r = 0; r < t->count; r++) {
            c->columns[k * t->count + r] = t->rows[r * t->width + k];
        }
    }
    c->engine->kernels->dense_pack_rows(c->columns, t->count, t->width, t->count, begin, end, c->panels);
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* moments += X^T (X^T)^T: a dense product whose rows and features are the channels and whose depth are the tokens. */
static void add_products(void *context, int thread, int threads)
{
    const moments_task *t = context;
    const mq_calib *c = t->calib;
    const mq_dense w = {.data = c->columns, .type = MQ_DENSE_F32, .n = t->width, .k_width = t->count};
    const mq_epilogue out = {.y = t->moments, .ldy = t->width, .accumulate = true};
    size_t begin, end;
    mq__partition((t->width + 31) / 32, thread, threads, &begin, &end);
    begin = smaller(32 * begin, t->width);
    end = smaller(32 * end, t->width);
    if (begin < end) {
        c->engine->kernels->dense_gemm(c->panels, t->width, &w, begin, end, &out, c->scratch[thread]);
    }
}

static size_t group_offset(const mq_calib *c, mq_linear_group group)
{
    size_t floats = 0;
    for (int g = 0; g < (int)group; g++) {
        const size_t width = widest_of(c, (mq_linear_group)g);
        floats += width * width;
    }
    return floats;
}

static float *moments_of(const mq_calib *c, uint32_t layer, mq_linear_group group)
{
    return c->moments + (layer - c->first) * c->layer_floats + group_offset(c, group);
}

/* The pool is idle while an observer is called. */
static void take_moments(void *context, uint32_t layer, mq_linear_group group, const float *rows, uint32_t count,
                         uint32_t width)
{
    mq_calib *c = context;
    if (layer < c->first || layer - c->first >= c->held) return;
    moments_task task = {
        .calib = c, .rows = rows, .count = count, .width = width, .moments = moments_of(c, layer, group)};
    mq__pool_run(c->engine->pool, transpose_calib, &task);
    mq__pool_run(c->engine->pool, add_products, &task);
}

/* Every text from its beginning: what a sequence holds already would not be seen again. */
static mq_status run_texts(mq_calib *c, mq_observer observer, mq_error *error)
{
    mq_status status = MQ_OK;
    observer.context = c;
    mq_engine_observe(c->engine, &observer);
    for (size_t i = 0; status == MQ_OK && i < c->text_count; i++) {
        mq_sequence_truncate(c->sequence, 0);
        status = mq_sequence_sync(c->sequence, c->texts[i].tokens, c->texts[i].count, NULL, NULL, error);
    }
    mq_engine_observe(c->engine, NULL);
    return status;
}

/* ---- opening */

static mq_status no_memory_calib(mq_error *error)
{
    return mq__fail(error, MQ_NO_MEMORY, "calibrate: expected memory, got none");
}

static mq_status allocate_calib(mq_calib *c, mq_error *error)
{
    const mq_model *m = model_of_calib(c);
    const int threads = mq__pool_threads(c->engine->pool);
    size_t widest = 0;
    for (int g = 0; g < MQ_GROUPS; g++) {
        const size_t width = widest_of(c, (mq_linear_group)g);
        widest = width > widest ? width : widest;
        c->amax[g] = mq__alloc_zero(m->layers, width * sizeof(float));
        if (!c->amax[g]) return no_memory_calib(error);
    }
    c->layer_floats = group_offset(c, MQ_GROUPS);
    const size_t fit = MOMENTS_BYTES / sizeof(float) / c->layer_floats;
    c->most = fit == 0 ? 1 : fit < m->layers ? (uint32_t)fit : m->layers;
    c->columns = mq__alloc_aligned(widest * CHUNK * sizeof(float));
    c->panels = mq__alloc_aligned(mq__dense_panel_floats(widest, CHUNK) * sizeof(float));
    c->scratch = mq__alloc_zero((size_t)threads, sizeof *c->scratch);
    bool complete = c->columns && c->panels && c->scratch;
    for (int t = 0; complete && t < threads; t++) {
        c->scratch[t] = mq__alloc_aligned(c->engine->kernels->gemm_scratch_bytes);
        complete = c->scratch[t];
    }
    return complete ? MQ_OK : no_memory_calib(error);
}

mq_status mq__calib_open(const char *model_dir, const mq_token_span *texts, size_t count, int threads, mq_calib **out,
                         mq_error *error)
{
    *out = NULL;
    uint32_t longest = 0;
    for (size_t i = 0; i < count; i++) {
        longest = texts[i].count > longest ? texts[i].count : longest;
    }
    if (longest == 0) return mq__fail(error, MQ_USAGE, "calibrate: texts: expected at least one token, got none");
    mq_calib *c = mq__alloc_zero(1, sizeof *c);
    if (!c) return no_memory_calib(error);
    c->texts = texts;
    c->text_count = count;
    c->is_finite = true;
    const mq_engine_options options = {
        .model_dir = model_dir, .threads = threads, .context = longest, .chunk = CHUNK, .no_cache = true};
    mq_status status = mq_engine_open(&options, &c->engine, error);
    if (status == MQ_OK) status = mq_sequence_new(c->engine, &c->sequence, error);
    if (status == MQ_OK) status = allocate_calib(c, error);
    if (status == MQ_OK) status = run_texts(c, (mq_observer){.linear = take_amax}, error);
    if (status == MQ_OK && !c->is_finite) {
        status = mq__fail(error, MQ_FORMAT, "calibrate: %s: expected finite activations, got others", model_dir);
    }
    if (status == MQ_OK)
        *out = c;
    else
        mq__calib_close(c);
    return status;
}

void mq__calib_close(mq_calib *c)
{
    if (!c) return;
    for (int t = 0; c->scratch && t < mq__pool_threads(c->engine->pool); t++) {
        mq__free_aligned(c->scratch[t]);
    }
    mq__free(c->scratch);
    mq__free_aligned(c->panels);
    mq__free_aligned(c->columns);
    mq__free_aligned(c->moments);
    for (int g = 0; g < MQ_GROUPS; g++) {
        mq__free(c->amax[g]);
    }
    mq_sequence_free(c->sequence);
    mq_engine_close(c->engine);
    mq__free(c);
}

const float *mq__calib_amax(const mq_calib *c, uint32_t layer, mq_linear_group group)
{
    return c->amax[group] + (size_t)layer * widest_of(c, group);
}

mq_status mq__calib_moments(mq_calib *c, uint32_t layer, mq_linear_group group, const float **moments, mq_error *error)
{
    const uint32_t layers = model_of_calib(c)->layers;
    if (layer < c->first || layer - c->first >= c->held) {
        size_t floats, bytes;
        c->held = 0;
        if (!mq__mul_size(c->layer_floats, c->most, &floats) || !mq__mul_size(floats, sizeof(float), &bytes)) {
            return no_memory_calib(error);
        }
        if (!c->moments) c->moments = mq__alloc_aligned(bytes);
        if (!c->moments) return no_memory_calib(error);
        memset(c->moments, 0, bytes);
        c->first = layer;
        c->held = layers - layer < c->most ? layers - layer : c->most;
        const mq_status status = run_texts(c, (mq_observer){.linear = take_moments}, error);
        if (status != MQ_OK) return status;
    }
    *moments = moments_of(c, layer, group);
    return MQ_OK;
}
