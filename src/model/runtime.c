#include "model/runtime.h"
#include "model/share.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/mem.h"

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Adds [rows, width] floats to the account; a sum that overflows stays SIZE_MAX and fails at allocation. */
static float *floats(size_t rows, size_t width)
{
    size_t count, bytes;
    if (!mq__mul_size(rows, width, &count) || !mq__mul_size(count, sizeof(float), &bytes)) return NULL;
    return mq__alloc_aligned(bytes);
}

static bool new_stream(const mq_model *m, size_t rows, mq_stream *s)
{
    s->h = floats(rows, m->width);
    s->position = mq__alloc_zero(rows, sizeof *s->position);
    bool complete = s->h && s->position;
    for (uint32_t r = 0; r < m->ropes; r++) {
        s->cos[r] = floats(rows, m->rope[r].width / 2);
        s->sin[r] = floats(rows, m->rope[r].width / 2);
        complete = complete && s->cos[r] && s->sin[r];
    }
    return complete;
}

static void free_stream(mq_stream *s)
{
    mq__free_aligned(s->h);
    mq__free(s->position);
    for (uint32_t r = 0; r < MQ_ROPES; r++) {
        mq__free_aligned(s->cos[r]);
        mq__free_aligned(s->sin[r]);
    }
}

/* Scratch of one thread: for products, and for the attention of any layer. */
static size_t thread_scratch_bytes(const mq_model *m, const mq_kernels *kernels)
{
    size_t bytes = kernels->gemm_scratch_bytes;
    for (uint32_t l = 0; l < m->layers; l++) {
        const mq_layer *w = &m->layer[l];
        bytes = max_size(bytes, kernels->attention_scratch_bytes(m->heads / w->kv_heads, w->head_dim));
    }
    return bytes;
}

mq_status mq__runtime_new(const mq_model *m, const mq_kv_layout *kv, const mq_kernels *kernels, mq_pool *pool,
                          uint32_t max_rows, uint32_t max_positions, mq_runtime **out, mq_error *error)
{
    *out = NULL;
    mq_runtime *rt = mq__alloc_zero(1, sizeof *rt);
    if (!rt) return mq__fail(error, MQ_NO_MEMORY, "runtime: expected memory, got none");
    const size_t rows = max_size(max_rows, MQ_DECODE_ROWS);
    const size_t z_width = (size_t)m->delta.value_heads * m->delta.value_dim;
    const size_t mixed = max_size(m->q_width, m->delta_layers ? z_width : 0);
    const size_t widest = max_size(max_size(m->width, mixed), m->ffn);
    const int threads = mq__pool_threads(pool);
    *rt = (mq_runtime){.model = m,
                       .kv = kv,
                       .kernels = kernels,
                       .pool = pool,
                       .max_rows = (uint32_t)rows,
                       .max_spans = (max_positions + MQ_SPAN_TOKENS - 1) / MQ_SPAN_TOKENS};
    rt->x = floats(rows, max_size(m->width, mixed));
    rt->q = floats(rows, m->q_width);
    rt->k = floats(rows, m->kv_width);
    rt->v = floats(rows, m->kv_width);
    if (m->output_gate) rt->gated_q = floats(rows, 2 * (size_t)m->q_width);
    if (m->delta_layers) rt->delta = mq__delta_rows_new(m, rows);
    rt->gate = floats(rows, m->ffn);
    rt->up = floats(rows, m->ffn);
    rt->dense_panels = floats(mq__dense_panel_floats(rows, widest), 1);
    rt->nvfp4.panels = mq__alloc_aligned(mq__nvfp4_row_bytes(rows, widest));
    rt->int8.panels = mq__alloc_aligned(mq__int8_row_bytes(rows, widest));
    rt->nvfp4.multiplier = floats(rows + MQ_NVFP4_MR, 1);
    rt->partials = floats((size_t)MQ_DECODE_ROWS * rt->max_spans, m->q_width + 2 * (size_t)m->heads);
    rt->thread_scratch = mq__alloc_zero((size_t)threads, sizeof *rt->thread_scratch);
    rt->own_rows = mq__alloc_zero((size_t)threads, sizeof *rt->own_rows);
    rt->own_packed = mq__alloc_zero((size_t)threads, sizeof *rt->own_packed);
    bool complete = new_stream(m, rows, &rt->stream[MQ_PHASE_PREFILL]) &&
                    new_stream(m, MQ_DECODE_ROWS, &rt->stream[MQ_PHASE_DECODE]) && rt->x && rt->q && rt->k && rt->v &&
                    rt->gate && rt->up && rt->dense_panels && rt->int8.panels && rt->nvfp4.panels &&
                    rt->nvfp4.multiplier && rt->partials && rt->thread_scratch && rt->own_rows && rt->own_packed;
    for (uint32_t l = 0; complete && !rt->branch && l < m->layers; l++) {
        if (m->layer[l].attention_post_norm) complete = (rt->branch = floats(rows, m->width)) != NULL;
    }
    if (m->experts) rt->experts = mq__experts_new(m, rows, threads);
    complete =
        complete && (rt->experts || !m->experts) && (rt->gated_q || !m->output_gate) && (rt->delta || !m->delta_layers);
    const size_t scratch = thread_scratch_bytes(m, kernels);
    for (int t = 0; complete && t < threads; t++) {
        rt->thread_scratch[t] = mq__alloc_aligned(scratch);
        rt->own_rows[t] = floats(MQ_OWN_ROWS, widest);
        mq_nvfp4_rows *packed = &rt->own_packed[t].nvfp4;
        packed->panels = mq__alloc_aligned(mq__nvfp4_row_bytes(MQ_OWN_ROWS, widest));
        packed->multiplier = floats(MQ_NVFP4_MR, 1);
        complete = rt->thread_scratch[t] && rt->own_rows[t] && packed->panels && packed->multiplier;
    }
    if (!complete) {
        mq__runtime_free(rt);
        return mq__fail(error, MQ_NO_MEMORY, "runtime: %zu rows of scratch: expected memory, got none", rows);
    }
    *out = rt;
    return MQ_OK;
}

void mq__lap(mq_runtime *rt, mq_stage stage)
{
    mq_clock *c = &rt->clock;
    double *seconds = c->seconds[rt->pass->phase];
    const double now = mq__seconds(), all = mq__pool_waited(rt->pool), waited = all - c->waited;
    seconds[MQ_STAGE_WAIT] += waited;
    seconds[c->head ? MQ_STAGE_HEAD : stage] += now - c->last - waited;
    c->last = now;
    c->waited = all;
}

int mq__parts_of(const mq_runtime *rt, size_t rows, size_t units, size_t least)
{
    enum { MANY = 64 };
    const bool cut = rt->pass->phase == MQ_PHASE_PREFILL && rows >= MANY;
    return cut ? mq__parts_each(units, least, mq__pool_threads(rt->pool)) : 1;
}

void mq__runtime_profile(const mq_runtime *rt, mq_profile *profile)
{
    for (int stage = 0; stage < MQ_STAGES; stage++) {
        profile->prefill[stage] = rt->clock.seconds[MQ_PHASE_PREFILL][stage];
        profile->decode[stage] = rt->clock.seconds[MQ_PHASE_DECODE][stage];
    }
    profile->prefill_passes = rt->clock.passes[MQ_PHASE_PREFILL];
    profile->decode_passes = rt->clock.passes[MQ_PHASE_DECODE];
}

void mq__runtime_free(mq_runtime *rt)
{
    if (!rt) return;
    for (int t = 0; t < mq__pool_threads(rt->pool); t++) {
        if (rt->thread_scratch) mq__free_aligned(rt->thread_scratch[t]);
        if (rt->own_rows) mq__free_aligned(rt->own_rows[t]);
        if (rt->own_packed) mq__free_aligned(rt->own_packed[t].nvfp4.panels);
        if (rt->own_packed) mq__free_aligned(rt->own_packed[t].nvfp4.multiplier);
    }
    for (int phase = 0; phase < MQ_PHASES; phase++) {
        free_stream(&rt->stream[phase]);
    }
    mq__free(rt->thread_scratch);
    mq__free(rt->own_rows);
    mq__free(rt->own_packed);
    mq__experts_free(rt->experts);
    mq__delta_rows_free(rt->delta);
    float *const all[] = {
        rt->x,        rt->q,      rt->k,      rt->v, rt->gate, rt->up, rt->dense_panels, rt->nvfp4.multiplier,
        rt->partials, rt->branch, rt->gated_q};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        mq__free_aligned(all[i]);
    }
    mq__free_aligned(rt->nvfp4.panels);
    mq__free_aligned(rt->int8.panels);
    mq__free(rt);
}
