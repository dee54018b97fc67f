/* The packed faces of the weights: quantised and packed on all threads at the first start, mapped from the cache later
 * (packing_cache.c). */
#include "base/checked.h"
#include "base/error.h"
#include "base/mem.h"
#include "engine/weights.h"
#include "format/fp8.h"
#include "format/nvfp4.h"

#include <math.h>
#include <string.h>

mq_nvfp4_rule mq__nvfp4_rule_of(mq_scale_rule rule)
{
    return rule == MQ_SCALES_FOUR_SIX ? MQ_NVFP4_FOUR_SIX : rule == MQ_SCALES_SWEEP ? MQ_NVFP4_SWEEP : MQ_NVFP4_RTN;
}

bool mq__weights_can_have(const mq_weights *w, size_t index, mq_face face)
{
    const mq_module *m = &w->module[index];
    if (face == MQ_FACE_NVFP4) return w->packed_available[m->place.layer][m->rule->group];
    return m->linear->dense.data != NULL;
}

size_t mq__face_bytes(mq_face face, const mq_linear *linear)
{
    if (face == MQ_FACE_FP8) return (size_t)linear->n * linear->k_width * sizeof(float);
    return face == MQ_FACE_INT8 ? mq__int8_panel_bytes(linear->n, linear->k_width)
                                : mq__nvfp4_panel_bytes(linear->n, linear->k_width);
}

void mq__face_set(mq_linear *linear, mq_face face, const uint8_t *panels, float multiplier)
{
    if (face == MQ_FACE_FP8) {
        linear->fp8 = (mq_dense){.data = panels, .type = MQ_DENSE_F32, .n = linear->n, .k_width = linear->k_width};
        return;
    }
    if (face == MQ_FACE_INT8) {
        linear->int8 = (mq_int8){.panels = panels,
                                 .n = linear->n,
                                 .k_width = linear->k_width,
                                 .groups = (linear->k_width + MQ_INT8_GROUP - 1) / MQ_INT8_GROUP};
        return;
    }
    linear->nvfp4 = (mq_nvfp4){.panels = panels,
                               .n = linear->n,
                               .k_width = linear->k_width,
                               .blocks = (uint32_t)mq__nvfp4_blocks(linear->k_width),
                               .multiplier = multiplier};
}

/* ---- making NVFP4 panels */

typedef struct build {
    const mq_linear_source *source;
    uint32_t n, k_width;
    mq_nvfp4_rule rule;
    mq_nvfp4_scale scale;
    uint8_t *panels;
    uint8_t *scratch; /* per thread: nibbles and scales of 32 rows */
    size_t scratch_each;
    float amax[MQ_THREADS_MAX]; /* per thread */
} build;

static size_t element_bytes(mq_dense_type type)
{
    return type == MQ_DENSE_F32 ? 4 : 2;
}

static mq_weight_type weight_type(mq_dense_type type)
{
    return type == MQ_DENSE_F32 ? MQ_WEIGHT_F32 : type == MQ_DENSE_F16 ? MQ_WEIGHT_F16 : MQ_WEIGHT_BF16;
}

static const uint8_t *row_of(const build *b, size_t row)
{
    return (const uint8_t *)b->source->dense.data + row * b->k_width * element_bytes(b->source->dense.type);
}

static void find_amax_packing(void *context, int thread, int threads)
{
    build *b = context;
    size_t begin, end;
    mq__partition(b->n, thread, threads, &begin, &end);
    b->amax[thread] =
        mq__weights_amax(row_of(b, begin), weight_type(b->source->dense.type), (end - begin) * b->k_width);
}

static void make_panels(void *context, int thread, int threads)
{
    const build *b = context;
    const uint32_t blocks = (uint32_t)mq__nvfp4_blocks(b->k_width);
    const size_t panel_bytes = (size_t)blocks * MQ_NVFP4_CELL, nibble_bytes = (size_t)blocks * 8;
    size_t begin, end;
    mq__partition((b->n + MQ_NVFP4_NR - 1) / MQ_NVFP4_NR, thread, threads, &begin, &end);
    if (b->source->nibbles) {
        mq__nvfp4_pack(b->source->nibbles, b->source->scales, b->n, blocks, begin, end, b->panels);
        return;
    }
    uint8_t *nibbles = b->scratch + (size_t)thread * b->scratch_each, *scales = nibbles + nibble_bytes * MQ_NVFP4_NR;
    for (size_t p = begin; p < end; p++) {
        const size_t row0 = p * MQ_NVFP4_NR;
        const uint32_t rows = b->n - row0 < MQ_NVFP4_NR ? (uint32_t)(b->n - row0) : MQ_NVFP4_NR;
        for (uint32_t r = 0; r < rows; r++) {
            mq__nvfp4_quantize_row(b->rule, b->scale, row_of(b, row0 + r), weight_type(b->source->dense.type),
                                   b->k_width, nibbles + r * nibble_bytes, scales + (size_t)r * blocks);
        }
        mq__nvfp4_pack(nibbles, scales, rows, blocks, 0, 1, b->panels + p * panel_bytes);
    }
}

static mq_status not_finite(const mq_weights *w, size_t index, mq_error *error)
{
    char name[MQ_TENSOR_NAME_BYTES];
    mq__module_name(&w->module[index], "", name);
    return mq__fail(error, MQ_FORMAT, "model: %s: expected finite weights, got others", name);
}

/* The joint largest magnitude of the linear layers [first, last): a fused group shares its tensor scale. */
static mq_status group_amax(mq_weights *w, const mq_packing *how, build *b, size_t first, size_t last, float *amax,
                            mq_error *error)
{
    *amax = 0;
    for (size_t i = first; i < last; i++) {
        const mq_linear *linear = w->module[i].linear;
        b->source = &w->module[i].source;
        b->n = linear->n;
        b->k_width = linear->k_width;
        mq__pool_run(how->pool, find_amax_packing, b);
        for (int t = 0; t < mq__pool_threads(how->pool); t++) {
            if (isnan(b->amax[t])) return not_finite(w, i, error);
            *amax = fmaxf(*amax, b->amax[t]);
        }
    }
    return MQ_OK;
}

/* Memory for the panels of a linear layer, owned by the weights. */
static mq_status new_panels(mq_weights *w, mq_face face, size_t index, uint8_t **panels, mq_error *error)
{
    const size_t bytes = mq__face_bytes(face, w->module[index].linear);
    uint8_t **owned = &w->face[face].panels[index];
    mq__free_aligned(*owned); /* of an earlier attempt that failed */
    *panels = *owned = mq__alloc_aligned(bytes);
    if (*owned) return MQ_OK;
    return mq__fail(error, MQ_NO_MEMORY, "model: packed weights: expected %zu bytes of memory, got none", bytes);
}

static mq_status build_group(mq_weights *w, const mq_packing *how, build *b, size_t first, size_t last, mq_error *error)
{
    if (!w->module[first].source.nibbles) {
        float amax;
        const mq_status status = group_amax(w, how, b, first, last, &amax, error);
        if (status != MQ_OK) return status;
        b->scale = mq__nvfp4_scale(b->rule, amax);
    }
    for (size_t i = first; i < last; i++) {
        mq_linear *linear = w->module[i].linear;
        b->source = &w->module[i].source;
        b->n = linear->n;
        b->k_width = linear->k_width;
        const mq_status status = new_panels(w, MQ_FACE_NVFP4, i, &b->panels, error);
        if (status != MQ_OK) return status;
        mq__pool_run(how->pool, make_panels, b);
        mq__face_set(linear, MQ_FACE_NVFP4, b->panels,
                     b->source->nibbles ? b->source->multiplier : b->scale.multiplier);
    }
    return MQ_OK;
}

static mq_status build_nvfp4(mq_weights *w, const mq_packing *how, mq_error *error)
{
    uint32_t widest = 0;
    for (size_t i = 0; i < w->module_count; i++) {
        if (w->module[i].linear->k_width > widest) widest = w->module[i].linear->k_width;
    }
    const size_t blocks = mq__nvfp4_blocks(widest);
    build b = {.rule = mq__nvfp4_rule_of(how->rule), .scratch_each = mq__round_up(blocks * 9 * MQ_NVFP4_NR, 64)};
    b.scratch = mq__alloc_aligned(b.scratch_each * (size_t)mq__pool_threads(how->pool));
    if (!b.scratch) return mq__fail(error, MQ_NO_MEMORY, "model: packing: expected memory, got none");
    mq_status status = MQ_OK;
    for (size_t first = 0, last; status == MQ_OK && first < w->module_count; first = last) {
        last = mq__fused_end(w, first);
        if (mq__weights_can_have(w, first, MQ_FACE_NVFP4)) status = build_group(w, how, &b, first, last, error);
    }
    mq__free_aligned(b.scratch);
    return status;
}

/* ---- making INT8 panels, and FP8 values */

typedef struct eight_build {
    mq_face face;
    bool is_fp8; /* already: nothing is rounded once more */
    const mq_dense *dense;
    uint8_t *panels;
} eight_build;

static void make_fp8_rows(const eight_build *b, size_t begin, size_t end)
{
    const size_t k = b->dense->k_width;
    float *out = (float *)(void *)b->panels; /* aligned: mq__alloc_aligned */
    if (b->is_fp8) memcpy(out + begin * k, (const float *)b->dense->data + begin * k, (end - begin) * k * sizeof *out);
    for (size_t row = begin; row < end && !b->is_fp8; row++) {
        const uint8_t *from = (const uint8_t *)b->dense->data + row * k * element_bytes(b->dense->type);
        mq__fp8_round_weights(out + row * k, from, weight_type(b->dense->type), k);
    }
}

static void make_eight_bits(void *context, int thread, int threads)
{
    const eight_build *b = context;
    size_t begin, end;
    if (b->face == MQ_FACE_FP8) {
        mq__partition(b->dense->n, thread, threads, &begin, &end);
        make_fp8_rows(b, begin, end);
        return;
    }
    mq__partition((b->dense->n + MQ_INT8_NR - 1) / MQ_INT8_NR, thread, threads, &begin, &end);
    mq__int8_pack(b->dense, begin, end, b->panels);
}

/* Both are made row by row from the precise weights. */
static mq_status build_eight(mq_weights *w, mq_face face, const mq_packing *how, mq_error *error)
{
    for (size_t i = 0; i < w->module_count; i++) {
        mq_linear *linear = w->module[i].linear;
        if (!mq__weights_can_have(w, i, face)) continue;
        eight_build b = {.face = face, .is_fp8 = w->module[i].is_fp8, .dense = &linear->dense};
        build check = {
            .source = &(mq_linear_source){.dense = linear->dense}, .n = linear->n, .k_width = linear->k_width};
        mq__pool_run(how->pool, find_amax_packing, &check);
        for (int t = 0; t < mq__pool_threads(how->pool); t++) {
            if (isnan(check.amax[t])) return not_finite(w, i, error);
        }
        const mq_status status = new_panels(w, face, i, &b.panels, error);
        if (status != MQ_OK) return status;
        mq__pool_run(how->pool, make_eight_bits, &b);
        mq__face_set(linear, face, b.panels, 1);
    }
    return MQ_OK;
}

mq_status mq__weights_pack_head(mq_weights *w, const mq_packing *how, mq_error *error)
{
    mq_linear *head = &w->model.head;
    if (w->head_panels) return MQ_OK;
    const size_t threads = (size_t)mq__pool_threads(how->pool), blocks = mq__nvfp4_blocks(head->k_width);
    const mq_linear_source source = {.dense = head->dense};
    build b = {.source = &source,
               .n = head->n,
               .k_width = head->k_width,
               .rule = mq__nvfp4_rule_of(how->rule),
               .scratch_each = mq__round_up(blocks * 9 * MQ_NVFP4_NR, 64)};
    float amax = 0;
    mq__pool_run(how->pool, find_amax_packing, &b);
    for (size_t t = 0; t < threads; t++) {
        if (isnan(b.amax[t])) return mq__fail(error, MQ_FORMAT, "model: lm_head: expected finite weights, got others");
        amax = fmaxf(amax, b.amax[t]);
    }
    b.scale = mq__nvfp4_scale(b.rule, amax);
    b.scratch = mq__alloc_aligned(b.scratch_each * threads);
    b.panels = w->head_panels = b.scratch ? mq__alloc_aligned(mq__face_bytes(MQ_FACE_NVFP4, head)) : NULL;
    if (w->head_panels) {
        mq__pool_run(how->pool, make_panels, &b);
        mq__face_set(head, MQ_FACE_NVFP4, b.panels, b.scale.multiplier);
    }
    mq__free_aligned(b.scratch);
    return w->head_panels ? MQ_OK : mq__fail(error, MQ_NO_MEMORY, "model: lm_head: expected memory, got none");
}

mq_status mq__weights_pack(mq_weights *w, mq_face face, const mq_packing *how, mq_error *error)
{
    if (w->face[face].is_ready) return MQ_OK;
    const mq_pack_cache cache = mq__pack_cache(w, face, how);
    mq_status status = MQ_OK;
    if (!mq__pack_load(w, face, how, &cache)) {
        status = face == MQ_FACE_NVFP4 ? build_nvfp4(w, how, error) : build_eight(w, face, how, error);
        mq_error trouble = {0};
        if (status == MQ_OK && cache.path && mq__pack_save(w, face, how, &cache, &trouble) != MQ_OK && how->log) {
            how->log(how->log_context, trouble.text); /* the engine works without the file */
        }
    }
    if (status == MQ_OK) {
        w->face[face].is_ready = true;
        for (size_t i = 0; i < w->module_count; i++) {
            if (mq__weights_can_have(w, i, face)) w->face[face].bytes += mq__face_bytes(face, w->module[i].linear);
        }
    }
    mq__free(cache.path);
    return status;
}
