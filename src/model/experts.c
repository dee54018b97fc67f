/* Mixture of experts: each row goes through a few of a layer's MLPs, chosen by the router (Qwen3-MoE, Switch Transformers).
 *
 * Rows are ordered by expert, so that each expert multiplies all of its rows at once and an expert without rows is not read.
 * The units of work are (expert, panel of features), dealt out by cost. Every row's experts are computed by kernels whose rows
 * do not depend on each other, and are added in an order that is the row's own: results do not depend on batch-mates, chunks or
 * threads. */
#include "base/checked.h"
#include "base/mem.h"
#include "model/residual.h"
#include "model/share.h"

#include <math.h>
#include <string.h>

/* Rows of one expert that are packed together. */
typedef struct part {
    size_t first, at; /* the first row, in the order by expert and among the packed ones */
    size_t rows;
} part;

struct mq_experts {
    float *logits;          /* [T, E] */
    float *weight;          /* [T, k] */
    uint32_t *chosen;       /* [T, k] */
    uint32_t *place;        /* [T, k] where it stands in the order by expert */
    uint32_t *row;          /* [T*k] the row at a place */
    size_t *first, *packed; /* [E + 1] the expert's first place, and its first packed row */
    part *parts;
    size_t part_count;
    float *gate, *up;     /* [T*k, M] in the order by expert; gate holds f(gate)*up afterwards */
    float *out;           /* [T*k, D] */
    float *shared;        /* [T, D] what the shared expert says */
    float *shared_gate;   /* [T] */
    mq_packed_rows input; /* the packed rows */
    float *plain;         /* [T*k, max(D, M)] those of thin products */
    float **rows;         /* [threads][MQ_ROW_GRAIN, max(D, M)] a part on its way to be packed */
    int threads;
};

static bool allocate_floats(float **floats, size_t rows, size_t width)
{
    size_t count, bytes;
    if (!mq__mul_size(rows, width, &count) || !mq__mul_size(count, sizeof **floats, &bytes)) return false;
    *floats = mq__alloc_aligned(bytes);
    return *floats != NULL;
}

static bool allocate_experts(mq_experts *x, const mq_model *m, size_t rows)
{
    const size_t all = rows * m->experts_per_token, widest = m->width > m->expert_ffn ? m->width : m->expert_ffn;
    const size_t ends =
        m->experts < all ? m->experts : all; /* each expert with rows may end with a part that is not full */
    const size_t packed = all + ends * (MQ_ROW_GRAIN - 1);
    bool complete = allocate_floats(&x->logits, rows, m->experts) && allocate_floats(&x->weight, all, 1) &&
                    allocate_floats(&x->gate, all, m->expert_ffn) && allocate_floats(&x->up, all, m->expert_ffn) &&
                    allocate_floats(&x->out, all, m->width) && allocate_floats(&x->plain, all, widest) &&
                    allocate_floats(&x->input.panels, mq__dense_panel_floats(packed, widest), 1) &&
                    allocate_floats(&x->shared, m->shared_expert ? rows : 1, m->width) &&
                    allocate_floats(&x->shared_gate, rows, 1) &&
                    allocate_floats(&x->input.nvfp4.multiplier, packed + MQ_NVFP4_MR, 1);
    x->chosen = mq__alloc_zero(all, sizeof *x->chosen);
    x->place = mq__alloc_zero(all, sizeof *x->place);
    x->row = mq__alloc_zero(all, sizeof *x->row);
    x->first = mq__alloc_zero(m->experts + 1, sizeof *x->first);
    x->packed = mq__alloc_zero(m->experts + 1, sizeof *x->packed);
    x->parts = mq__alloc_zero(all / MQ_ROW_GRAIN + ends, sizeof *x->parts);
    x->rows = mq__alloc_zero((size_t)x->threads, sizeof *x->rows);
    x->input.nvfp4.panels = mq__alloc_aligned(mq__nvfp4_row_bytes(packed, widest));
    x->input.int8.panels = mq__alloc_aligned(mq__int8_row_bytes(packed, widest));
    complete = complete && x->chosen && x->place && x->row && x->first && x->packed && x->parts && x->rows &&
               x->input.nvfp4.panels && x->input.int8.panels;
    for (int t = 0; complete && t < x->threads; t++) {
        complete = allocate_floats(&x->rows[t], MQ_ROW_GRAIN, widest);
    }
    return complete;
}

mq_experts *mq__experts_new(const mq_model *m, size_t rows, int threads)
{
    mq_experts *x = mq__alloc_zero(1, sizeof *x);
    if (!x) return NULL;
    x->threads = threads;
    if (allocate_experts(x, m, rows)) return x;
    mq__experts_free(x);
    return NULL;
}

void mq__experts_free(mq_experts *x)
{
    if (!x) return;
    for (int t = 0; x->rows && t < x->threads; t++) {
        mq__free_aligned(x->rows[t]);
    }
    float *const floats[] = {x->logits, x->weight,     x->gate,         x->up,
                             x->out,    x->plain,      x->input.panels, x->input.nvfp4.multiplier,
                             x->shared, x->shared_gate};
    for (size_t i = 0; i < sizeof floats / sizeof floats[0]; i++) {
        mq__free_aligned(floats[i]);
    }
    mq__free_aligned(x->input.nvfp4.panels);
    mq__free_aligned(x->input.int8.panels);
    mq__free(x->rows);
    mq__free(x->parts);
    mq__free(x->packed);
    mq__free(x->first);
    mq__free(x->row);
    mq__free(x->place);
    mq__free(x->chosen);
    mq__free(x);
}

float *mq__experts_logits(mq_experts *x)
{
    return x->logits;
}

const float *mq__experts_activations(const mq_experts *x)
{
    return x->gate;
}

typedef struct job {
    mq_runtime *rt;
    const mq_layer *layer;
    mq_packed_rows x;
    bool down;
} job;

/* ---- routing */

/* Logits, scaled, become probabilities. */
static void softmax(float *p, uint32_t count, float scale)
{
    float most = p[0] *= scale, sum = 0;
    for (uint32_t e = 1; e < count; e++) {
        p[e] *= scale;
        most = p[e] > most ? p[e] : most;
    }
    for (uint32_t e = 0; e < count; e++) {
        p[e] = expf(p[e] - most);
        sum += p[e];
    }
    for (uint32_t e = 0; e < count; e++) {
        p[e] /= sum;
    }
}

/* The largest of p that are not taken yet (taken ones are -1); the first of equal ones. */
static uint32_t take_largest(float *p, uint32_t count, float *value)
{
    uint32_t best = 0;
    while (p[best] == -1.0f) {
        best++;
    }
    for (uint32_t e = best + 1; e < count; e++) {
        if (p[e] > p[best]) best = e;
    }
    *value = p[best];
    p[best] = -1.0f;
    return best;
}

static void route_rows(void *context, int thread, int threads)
{
    const job *j = context;
    const mq_runtime *rt = j->rt;
    const mq_model *m = rt->model;
    const mq_experts *x = rt->experts;
    const float *scale = j->layer->expert_scale;
    const uint32_t k = m->experts_per_token;
    size_t begin, end;
    mq__partition(rt->pass->rows, thread, threads, &begin, &end);
    for (size_t row = begin; row < end; row++) {
        float *p = x->logits + row * m->experts, *weight = x->weight + row * k, sum = 0;
        softmax(p, m->experts, m->router_scale);
        for (uint32_t i = 0; i < k; i++) {
            x->chosen[row * k + i] = take_largest(p, m->experts, &weight[i]);
            sum += weight[i];
        }
        for (uint32_t i = 0; m->norm_topk && i < k; i++) {
            weight[i] /= sum;
        }
        for (uint32_t i = 0; scale && i < k; i++) {
            weight[i] *= scale[x->chosen[row * k + i]];
        }
    }
}

/* Places by expert, and by row among those of one expert. */
static void order_by_expert(mq_experts *x, uint32_t experts, size_t rows, uint32_t k)
{
    size_t *first = x->first;
    memset(first, 0, (experts + 1) * sizeof *first);
    for (size_t i = 0; i < rows * k; i++) {
        first[x->chosen[i] + 1]++;
    }
    for (uint32_t e = 0; e < experts; e++) {
        first[e + 1] += first[e];
    }
    memcpy(x->packed, first, experts * sizeof *first); /* the next free places for a while */
    for (size_t i = 0; i < rows * k; i++) {
        const size_t place = x->packed[x->chosen[i]]++;
        x->place[i] = (uint32_t)place;
        x->row[place] = (uint32_t)(i / k);
    }
}

void mq__experts_route(mq_runtime *rt, const mq_layer *layer)
{
    const mq_model *m = rt->model;
    job j = {.rt = rt, .layer = layer};
    mq__run_rows(rt, route_rows, &j);
    order_by_expert(rt->experts, m->experts, rt->pass->rows, m->experts_per_token);
    mq__lap(rt, MQ_STAGE_PREPARE);
}

/* ---- products */

/* Where each expert's packed rows begin, and the parts to pack: panels of all layouts begin at multiples of MQ_ROW_GRAIN. */
static void cut_parts(mq_experts *x, uint32_t experts, mq_row_layout layout)
{
    const size_t grain = layout == MQ_ROWS_PLAIN ? 1 : MQ_ROW_GRAIN;
    size_t at = 0;
    x->part_count = 0;
    for (uint32_t e = 0; e < experts; e++) {
        const size_t end = x->first[e + 1];
        x->packed[e] = at;
        for (size_t first = x->first[e], rows; first < end; first += rows) {
            rows = end - first < MQ_ROW_GRAIN ? end - first : MQ_ROW_GRAIN;
            x->parts[x->part_count++] = (part){first, at, rows};
            at += (rows + grain - 1) / grain * grain;
        }
    }
}

/* The rows of a part: those of x that the expert takes, or what its gate and up have made of them. */
static void make_part(const job *j, const part *p, float *rows)
{
    const mq_runtime *rt = j->rt;
    const mq_experts *x = rt->experts;
    const size_t width = j->x.width;
    for (size_t i = 0; i < p->rows; i++) {
        float *y = rows + i * width;
        if (j->down) {
            float *gate = x->gate + (p->first + i) * width;
            mq__gated(rt, gate, gate, x->up + (p->first + i) * width, width);
            memcpy(y, gate, width * sizeof *y);
        } else {
            memcpy(y, rt->x + x->row[p->first + i] * width, width * sizeof *y);
        }
    }
    mq__round_rows(rt->kernels, j->x.format, rows, p->rows, width);
}

static void gather(void *context, int thread, int threads)
{
    const job *j = context;
    const mq_experts *x = j->rt->experts;
    const bool plain = j->x.layout == MQ_ROWS_PLAIN;
    size_t begin, end;
    mq__partition(x->part_count, thread, threads, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const part *p = &x->parts[i];
        float *rows = plain ? x->plain + p->at * j->x.width : x->rows[thread];
        make_part(j, p, rows);
        mq__pack_rows(j->rt->kernels, &j->x, p->at, rows, p->rows);
    }
}

/* Panels [begin, end) of an expert's gate, then up; or of its down. */
static void multiply_expert(const job *j, uint32_t e, size_t begin, size_t end, int thread)
{
    const mq_experts *x = j->rt->experts;
    const mq_mlp *mlp = &j->layer->expert[e];
    const mq_linear *const linears[2] = {j->down ? &mlp->down : &mlp->gate, j->down ? NULL : &mlp->up};
    float *const y[2] = {j->down ? x->out : x->gate, x->up};
    const size_t rows = x->first[e + 1] - x->first[e], at = x->packed[e];
    size_t base = 0, p0, p1;
    for (int i = 0; i < 2 && linears[i]; base += mq__panels_of(linears[i++])) {
        const mq_epilogue out = {
            .y = y[i] + x->first[e] * linears[i]->n, .ldy = linears[i]->n, .bias = linears[i]->bias};
        if (!mq__group_part(base, mq__panels_of(linears[i]), begin, end, &p0, &p1)) continue;
        mq__multiply(j->rt->kernels, &j->x, at, at + rows, linears[i], p0, p1, &out, j->rt->thread_scratch[thread]);
    }
}

/* What a panel costs for so many rows: reading and unpacking it takes about as long as multiplying it with some. */
static double panel_cost(size_t rows)
{
    return rows ? (double)rows + 12 : 0;
}

#define EXPERT_PANELS 16 /* that a thread's part of the stage has at least */

/* Of one expert; all are of one size. */
static size_t expert_panels(const job *j)
{
    const mq_mlp *one = &j->layer->expert[0];
    return j->down ? mq__panels_of(&one->down) : 2 * mq__panels_of(&one->gate);
}

static void multiply_experts(void *context, int nth, int of, int thread)
{
    const job *j = context;
    const mq_experts *x = j->rt->experts;
    const uint32_t experts = j->rt->model->experts;
    const size_t panels = expert_panels(j);
    double total = 0, at = 0;
    for (uint32_t e = 0; e < experts; e++) {
        total += (double)panels * panel_cost(x->first[e + 1] - x->first[e]);
    }
    const mq_share share = mq__share(total, nth, of);
    for (uint32_t e = 0; e < experts; e++) {
        const double cost = (double)panels * panel_cost(x->first[e + 1] - x->first[e]);
        uint32_t p0, p1;
        if (cost > 0 && mq__share_parts(share, at, cost, (uint32_t)panels, &p0, &p1)) {
            multiply_expert(j, e, p0, p1, thread);
        }
        at += cost;
    }
}

static void multiply_all(mq_runtime *rt, const mq_layer *layer, mq_linear_format format, bool down)
{
    mq_experts *x = rt->experts;
    job j = {.rt = rt, .layer = layer, .x = x->input, .down = down};
    j.x.format = format;
    j.x.layout = mq__row_layout(format, rt->pass->phase);
    j.x.width = down ? rt->model->expert_ffn : rt->model->width;
    j.x.plain = x->plain;
    cut_parts(x, rt->model->experts, j.x.layout);
    mq__run_rows(rt, gather, &j);
    mq__lap(rt, MQ_STAGE_PREPARE);
    const size_t panels = rt->model->experts * expert_panels(&j);
    mq__pool_deal(rt->pool, multiply_experts, &j, mq__parts_of(rt, rt->pass->rows, panels, EXPERT_PANELS));
    mq__lap(rt, MQ_STAGE_LINEAR);
}

void mq__experts_gate_up(mq_runtime *rt, const mq_layer *layer, mq_linear_format format)
{
    multiply_all(rt, layer, format, false);
}

void mq__experts_down(mq_runtime *rt, const mq_layer *layer, mq_linear_format format)
{
    multiply_all(rt, layer, format, true);
}

/* ---- the sum */

static void add_weighted(float *y, const float *x, float weight, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        y[i] += weight * x[i];
    }
}

static void combine_rows(void *context, int thread, int threads)
{
    const job *j = context;
    const mq_runtime *rt = j->rt;
    const mq_experts *x = rt->experts;
    const float *norm = j->layer->experts_post_norm;
    const size_t width = rt->model->width, k = rt->model->experts_per_token;
    float *to = norm ? rt->branch : rt->rows->h;
    size_t begin, end;
    mq__partition(rt->pass->rows, thread, threads, &begin, &end);
    for (size_t row = begin; row < end; row++) {
        float *sum = x->rows[thread];
        memset(sum, 0, width * sizeof *sum);
        for (size_t i = row * k; i < (row + 1) * k; i++) {
            add_weighted(sum, x->out + x->place[i] * width, x->weight[i], width);
        }
        if (norm) rt->kernels->rmsnorm(sum, sum, norm, width, rt->model->norm_eps);
        add_weighted(to + row * width, sum, 1, width);
    }
}

void mq__experts_combine(mq_runtime *rt, const mq_layer *layer)
{
    job j = {.rt = rt, .layer = layer};
    mq__run_rows(rt, combine_rows, &j);
    mq__lap(rt, MQ_STAGE_PREPARE);
}

/* ---- the expert that every token takes */

float *mq__experts_shared(mq_experts *x)
{
    return x->shared;
}

float *mq__experts_shared_gate(mq_experts *x)
{
    return x->shared_gate;
}

static void add_shared_rows(void *context, int thread, int threads)
{
    const mq_runtime *rt = context;
    const mq_experts *x = rt->experts;
    const size_t width = rt->model->width;
    size_t begin, end;
    mq__partition(rt->pass->rows, thread, threads, &begin, &end);
    for (size_t row = begin; row < end; row++) {
        const float gate = 1 / (1 + expf(-x->shared_gate[row]));
        add_weighted(rt->rows->h + row * width, x->shared + row * width, gate, width);
    }
}

void mq__experts_add_shared(mq_runtime *rt)
{
    mq__run_rows(rt, add_shared_rows, rt);
    mq__lap(rt, MQ_STAGE_PREPARE);
}
