/* Gated DeltaNet (Yang, Kautz, Hatamizadeh: Gated Delta Networks, 2024), as Qwen3.5 has it: linear attention whose state S of each
 * value head [dk, dv] is decayed and corrected by each token.
 *
 *     u = in_qkv(x)                              q, k, v of all heads
 *     c_t = silu(sum_j w_j u_(t-taps+1+j))       a causal convolution of each channel
 *     q^ = q / |q| / sqrt(dk),  k^ = k / |k|     by key head; it serves Hv/Hk value heads
 *     g = -exp(A) softplus(a + dt),  beta = sigmoid(b)
 *     S = e^g S;  d = beta (v - S^T k^);  S = S + k^ d^T;  o = S^T q^
 *     y = out( norm(o) * silu(z) )               norm by value head
 *
 * Prompts run the same recurrence as answers, a row after the other. GPUs cut a prompt into chunks of 64 tokens and solve for each of
 * them, because a token alone is too little work there. Here the columns of S are independent: a panel of 16 stays in L1 for all rows
 * of a pass, and a token costs 3 multiply-adds for each element of S, where the chunked form takes 4. So a row has the same bits in any
 * chunk, in either phase and with any batch-mates. tests/kernels/check_delta.c has the chunked form to compare with.
 *
 * The state is FP32 and belongs to the sequence. A pass reads one and writes another, so that rows which a cancelled sequence drops
 * leave nothing behind. Of rows that verify a draft it also keeps what the state takes of them, which is little: when some turn out
 * wrong, those before them run through the state again, from the one before the pass. */
#include "base/mem.h"
#include "model/runtime.h"
#include "model/share.h"

#include <math.h>
#include <string.h>

#define LENGTH_EPS 1e-6 /* beside the sum of squares */
#define UNIT_COST  4    /* rows that reading and writing a panel takes as long as */

typedef struct job {
    const mq_runtime *rt;
    const mq_delta_layer *weights;
    size_t state_at; /* where the layer's part of a state begins */
} job;

/* ---- scratch */

static float *filled(size_t count, float value)
{
    float *x = mq__alloc_aligned(count * sizeof *x);
    for (size_t i = 0; x && i < count; i++) {
        x[i] = value;
    }
    return x;
}

mq_delta_rows *mq__delta_rows_new(const mq_model *m, size_t rows)
{
    const mq_delta_sizes *d = &m->delta;
    const size_t channels = mq__delta_channels(d), z_width = (size_t)d->value_heads * d->value_dim;
    mq_delta_rows *x = mq__alloc_zero(1, sizeof *x);
    if (!x) return NULL;
    x->u = mq__alloc_aligned(rows * channels * sizeof *x->u);
    x->c = mq__alloc_aligned(rows * channels * sizeof *x->c);
    x->z = mq__alloc_aligned(rows * z_width * sizeof *x->z);
    x->decay = mq__alloc_aligned(rows * d->value_heads * sizeof *x->decay);
    x->beta = mq__alloc_aligned(rows * d->value_heads * sizeof *x->beta);
    x->key_unit = filled(d->key_dim, (float)(1 / sqrt(d->key_dim)));
    x->q_unit = filled(d->key_dim, (float)(1.0 / d->key_dim));
    if (x->u && x->c && x->z && x->decay && x->beta && x->key_unit && x->q_unit) return x;
    mq__delta_rows_free(x);
    return NULL;
}

void mq__delta_rows_free(mq_delta_rows *x)
{
    if (!x) return;
    float *const all[] = {x->u, x->c, x->z, x->decay, x->beta, x->key_unit, x->q_unit};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        mq__free_aligned(all[i]);
    }
    mq__free(x);
}

/* ---- rows: convolution, lengths, gates */

/* The row of u that is `back` rows before row i of a segment: of the pass, or of the state. */
static const float *row_of_u(const job *j, const mq_segment *segment, uint32_t i, uint32_t back)
{
    const mq_delta_sizes *d = &j->rt->model->delta;
    const size_t channels = mq__delta_channels(d);
    if (back <= i) return j->rt->delta->u + (segment->row + i - back) * channels;
    const float *kept_rows = segment->state + j->state_at + mq__state_matrix_floats(d); /* [taps - 1] */
    return kept_rows + (d->taps - 1 - (back - i)) * channels;
}

static float softplus(float x)
{
    return x > 20 ? x : log1pf(expf(x));
}

/* Where a row's part begins in what a segment keeps. */
static size_t kept_at(const job *j, uint32_t i)
{
    const mq_model *m = j->rt->model;
    return ((size_t)i * m->delta_layers + j->weights->index) * mq__state_row_floats(&m->delta);
}

static void keep_delta_row(const job *j, const mq_segment *segment, uint32_t i)
{
    const mq_delta_rows *x = j->rt->delta;
    const size_t row = segment->row + i, heads = j->rt->model->delta.value_heads;
    const size_t channels = mq__delta_channels(&j->rt->model->delta);
    float *to = segment->keep + kept_at(j, i);
    memcpy(to, x->u + row * channels, channels * sizeof *to);
    memcpy(to + channels, x->decay + row * heads, heads * sizeof *to);
    memcpy(to + channels + heads, x->beta + row * heads, heads * sizeof *to);
}

static void prepare_delta_row(const job *j, const mq_segment *segment, uint32_t i)
{
    const mq_runtime *rt = j->rt;
    const mq_delta_sizes *d = &rt->model->delta;
    const size_t channels = mq__delta_channels(d), row = segment->row + i;
    const float eps = (float)(LENGTH_EPS / d->key_dim);
    const float *u[MQ_CONV_TAPS];
    float *c = rt->delta->c + row * channels, *k = c + (size_t)d->key_heads * d->key_dim;
    if (segment->keep) keep_delta_row(j, segment, i);
    for (uint32_t t = 0; t < d->taps; t++) {
        u[t] = row_of_u(j, segment, i, d->taps - 1 - t);
    }
    rt->kernels->conv_silu(c, u, j->weights->conv, d->taps, channels);
    for (size_t h = 0; h < d->key_heads; h++) {
        float *qh = c + h * d->key_dim, *kh = k + h * d->key_dim;
        rt->kernels->rmsnorm(qh, qh, rt->delta->q_unit, d->key_dim, eps);
        rt->kernels->rmsnorm(kh, kh, rt->delta->key_unit, d->key_dim, eps);
    }
    float *decay = rt->delta->decay + row * d->value_heads, *beta = rt->delta->beta + row * d->value_heads;
    for (size_t h = 0; h < d->value_heads; h++) {
        decay[h] = expf(-expf(j->weights->a_log[h]) * softplus(decay[h] + j->weights->dt_bias[h]));
        beta[h] = 1 / (1 + expf(-beta[h]));
    }
}

static void prepare_delta_rows(void *context, int thread, int threads)
{
    const job *j = context;
    size_t begin, end, r0, r1;
    mq__partition(j->rt->pass->rows, thread, threads, &begin, &end);
    for (uint32_t s = 0; s < j->rt->pass->segment_count; s++) {
        const mq_segment *segment = &j->rt->pass->segments[s];
        if (!mq__group_part(segment->row, segment->rows, begin, end, &r0, &r1)) continue;
        for (size_t i = r0; i < r1; i++) {
            prepare_delta_row(j, segment, (uint32_t)i);
        }
    }
}

/* ---- the recurrence */

/* Rows [row0, row1) of a segment through panel `unit` (of all value heads) of the state. */
static void run_panel(const job *j, const mq_segment *segment, uint32_t unit, uint32_t row0, uint32_t row1,
                      const float *from, float *to)
{
    const mq_runtime *rt = j->rt;
    const mq_delta_sizes *d = &rt->model->delta;
    const size_t channels = mq__delta_channels(d), z_width = (size_t)d->value_heads * d->value_dim;
    const size_t column = (size_t)unit * MQ_DELTA_COLUMNS, head = column / d->value_dim;
    const size_t key_head = head / (d->value_heads / d->key_heads), row = segment->row + row0;
    const float *c = rt->delta->c + row * channels;
    const mq_delta rule = {.from = from,
                           .to = to,
                           .q = c + key_head * d->key_dim,
                           .k = c + (d->key_heads + key_head) * d->key_dim,
                           .v = c + 2 * (size_t)d->key_heads * d->key_dim + column,
                           .out = rt->x + row * z_width + column,
                           .decay = rt->delta->decay + row * d->value_heads + head,
                           .beta = rt->delta->beta + row * d->value_heads + head,
                           .qk_stride = channels,
                           .v_stride = channels,
                           .out_stride = z_width,
                           .scalar_stride = d->value_heads,
                           .key_dim = d->key_dim,
                           .rows = row1 - row0};
    rt->kernels->delta_rule(&rule);
}

/* All rows of a segment, with the states between that are wanted. */
static void run_unit(const job *j, const mq_segment *segment, uint32_t unit)
{
    const size_t floats = (size_t)j->rt->model->delta.key_dim * MQ_DELTA_COLUMNS;
    const size_t at = j->state_at + unit * floats;
    const float *from = segment->state + at;
    float *to = segment->state_after + at;
    uint32_t done = 0;
    for (uint32_t s = 0; s < segment->saves; s++) {
        run_panel(j, segment, unit, done, segment->save[s].rows, from, to);
        done = segment->save[s].rows;
        from = to;
        memcpy(segment->save[s].to + at, to, floats * sizeof *to);
    }
    if (done < segment->rows) run_panel(j, segment, unit, done, segment->rows, from, to);
}

/* The last rows of u of a state behind `rows` rows of the segment. */
static void keep_rows(const job *j, const mq_segment *segment, uint32_t rows, float *state)
{
    const mq_delta_sizes *d = &j->rt->model->delta;
    const size_t channels = mq__delta_channels(d);
    float *to = state + j->state_at + mq__state_matrix_floats(d);
    for (uint32_t t = 0; t + 1 < d->taps; t++) {
        memcpy(to + t * channels, row_of_u(j, segment, rows - 1, d->taps - 2 - t), channels * sizeof *to);
    }
}

static void keep_all_rows(const job *j, const mq_segment *segment)
{
    for (uint32_t s = 0; s < segment->saves; s++) {
        keep_rows(j, segment, segment->save[s].rows, segment->save[s].to);
    }
    keep_rows(j, segment, segment->rows, segment->state_after);
}

#define DELTA_UNITS 4 /* that a part has at least */

static uint32_t delta_units(const mq_runtime *rt)
{
    const mq_delta_sizes *d = &rt->model->delta;
    return d->value_heads * d->value_dim / MQ_DELTA_COLUMNS;
}

/* Units are (segment, panel), dealt out by cost. */
static void run_recurrence(void *context, int part, int parts, int thread)
{
    (void)thread;
    const job *j = context;
    const mq_pass *pass = j->rt->pass;
    const uint32_t units = delta_units(j->rt);
    double total = 0, at = 0, cost;
    for (uint32_t s = 0; s < pass->segment_count; s++) {
        total += pass->segments[s].rows ? (pass->segments[s].rows + UNIT_COST) * (double)units : 0;
    }
    const mq_share share = mq__share(total, part, parts);
    for (uint32_t s = 0; s < pass->segment_count; s++, at += cost) {
        const mq_segment *segment = &pass->segments[s];
        uint32_t u0, u1;
        cost = segment->rows ? (segment->rows + UNIT_COST) * (double)units : 0;
        if (cost == 0 || !mq__share_parts(share, at, cost, units, &u0, &u1)) continue;
        if (u0 == 0) keep_all_rows(j, segment);
        for (uint32_t unit = u0; unit < u1; unit++) {
            run_unit(j, segment, unit);
        }
    }
}

void mq__gated_delta(mq_runtime *rt, uint32_t layer)
{
    const mq_delta_layer *weights = &rt->model->layer[layer].delta;
    job j = {.rt = rt, .weights = weights, .state_at = weights->index * mq__state_layer_floats(&rt->model->delta)};
    mq__pool_run(rt->pool, prepare_delta_rows, &j);
    mq__lap(rt, MQ_STAGE_ROTATE);
    mq__pool_deal(rt->pool, run_recurrence, &j, mq__parts_of(rt, rt->pass->rows, delta_units(rt), DELTA_UNITS));
    mq__lap(rt, MQ_STAGE_ATTEND);
}

/* ---- rows that run again */

/* Back to where keep_delta_row had it from, as row i of the pass. */
static void recall_delta_row(const job *j, const float *kept, uint32_t i)
{
    const mq_delta_rows *x = j->rt->delta;
    const size_t heads = j->rt->model->delta.value_heads, channels = mq__delta_channels(&j->rt->model->delta);
    memcpy(x->u + i * channels, kept, channels * sizeof *kept);
    memcpy(x->decay + i * heads, kept + channels, heads * sizeof *kept);
    memcpy(x->beta + i * heads, kept + channels + heads, heads * sizeof *kept);
}

void mq__state_rerun(mq_runtime *rt, const float *from, const float *kept, uint32_t rows, float *to)
{
    const mq_model *m = rt->model;
    mq_segment segment = {.rows = rows, .state = from, .state_after = to};
    const mq_pass pass = {.phase = MQ_PHASE_DECODE, .rows = rows, .segments = &segment, .segment_count = 1};
    if (rows == 0) {
        memcpy(to, from, mq__state_floats(m) * sizeof *to);
        return;
    }
    mq__pass_enter(rt, &pass);
    for (uint32_t l = 0; l < m->layers; l++) {
        const job j = {.rt = rt, .weights = &m->layer[l].delta};
        if (m->layer[l].kind.mixer != MQ_MIXER_GATED_DELTA) continue;
        for (uint32_t i = 0; i < rows; i++) {
            recall_delta_row(&j, kept + kept_at(&j, i), i);
        }
        mq__gated_delta(rt, l);
    }
}

/* ---- gates of outputs */

void mq__gate_heads(const mq_runtime *rt, size_t row, const float *x, float *y)
{
    const mq_model *m = rt->model;
    const size_t width = m->q_width / m->heads; /* of all its layers */
    const float *gates = rt->gated_q + row * 2 * m->heads * width + width;
    if (y != x) memcpy(y, x, m->heads * width * sizeof *y);
    for (size_t h = 0; h < m->heads; h++) {
        rt->kernels->sigmoid_gate(y + h * width, gates + 2 * h * width, width);
    }
}

void mq__gate_norm(const mq_runtime *rt, size_t row, const float *norm, const float *x, float *y)
{
    const mq_delta_sizes *d = &rt->model->delta;
    const size_t width = (size_t)d->value_heads * d->value_dim;
    for (size_t h = 0; h < d->value_heads; h++) {
        rt->kernels->rmsnorm(y + h * d->value_dim, x + h * d->value_dim, norm, d->value_dim, rt->model->norm_eps);
    }
    rt->kernels->swiglu(y, rt->delta->z + row * width, y, width);
}
