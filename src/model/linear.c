/* Linear layers in any format: a parallel stage that makes and packs the input rows, then one that multiplies.
 *
 * Norm and activation happen in the first stage, a group of rows at a time, so that a row is still in L1 when it is
 * quantised; one or two rows each thread makes for itself (and quantises), which takes less time than waiting for another one. The
 * second stage partitions the weight panels of all outputs together over the threads: each weight is read once for all rows,
 * and each output has one writer. Where threads outnumber panels, rows are cut as well. */
#include "model/runtime.h"
#include "model/share.h"

typedef struct job {
    mq_runtime *rt;
    mq_packed_rows x; /* plain: input.rows */
    mq_input input;
    const mq_output *outputs;
    int count;
    bool own;      /* each thread makes the rows for itself */
    size_t pieces; /* into which the rows are cut */
    int each;      /* parts of a thread */
} job;

/* Rows [begin, end) of the input, into those of `rows`. */
static void make_rows(const job *j, size_t begin, size_t end, float *rows)
{
    const mq_runtime *rt = j->rt;
    const mq_input *in = &j->input;
    const size_t width = in->width;
    for (size_t row = begin; row < end; row++) {
        float *y = rows + row * width;
        if (in->kind == MQ_INPUT_NORM) {
            rt->kernels->rmsnorm(y, rt->rows->h + (in->row0 + row) * width, in->norm_weight, width,
                                 rt->model->norm_eps);
        } else if (in->kind == MQ_INPUT_GATED) {
            mq__gated(rt, y, rt->gate + row * width, rt->up + row * width, width);
        } else if (in->kind == MQ_INPUT_GATED_HEADS) {
            mq__gate_heads(rt, row, rt->x + row * width, y);
        } else if (in->kind == MQ_INPUT_GATED_NORM) {
            mq__gate_norm(rt, row, in->norm_weight, rt->x + row * width, y);
        }
        mq__round_rows(rt->kernels, j->x.format, y, 1, width);
    }
}

static void prepare_rows(void *context, int thread, int threads)
{
    const job *j = context;
    const size_t rows = j->input.count, each = mq__row_group(j->x.layout);
    size_t begin, end;
    mq__partition((rows + each - 1) / each, thread, threads, &begin, &end);
    for (size_t g = begin; g < end; g++) {
        const size_t row0 = g * each, row1 = row0 + each < rows ? row0 + each : rows;
        make_rows(j, row0, row1, j->input.rows);
        mq__pack_rows(j->rt->kernels, &j->x, row0, j->input.rows + row0 * j->x.width, row1 - row0);
    }
}

/* All of the rows for one thread. */
static void make_own(const job *j, int thread)
{
    mq_packed_rows *x = &j->rt->own_packed[thread];
    const size_t rows = j->input.count;
    const bool as_it_is = j->input.kind == MQ_INPUT_PLAIN;
    float *made = as_it_is ? j->input.rows : j->rt->own_rows[thread];
    if (!as_it_is) make_rows(j, 0, rows, made);
    x->format = j->x.format;
    x->layout = j->x.layout;
    x->width = j->x.width;
    x->plain = made;
    mq__pack_rows(j->rt->kernels, x, 0, made, rows);
}

/* Panels [begin, end) of all outputs, one after the other, for rows [row0, row1). */
static void multiply_panels(const job *j, size_t begin, size_t end, size_t row0, size_t row1, int thread)
{
    const mq_packed_rows x = j->own ? j->rt->own_packed[thread] : j->x;
    size_t base = 0;
    for (int i = 0; i < j->count; i++) {
        const mq_output *out = &j->outputs[i];
        const size_t n = out->linear->n, panels = mq__panels_of(out->linear);
        const mq_epilogue epilogue = {
            .y = out->y + row0 * n, .ldy = n, .bias = out->linear->bias, .accumulate = out->accumulate};
        size_t p0, p1;
        if (mq__group_part(base, panels, begin, end, &p0, &p1)) {
            mq__multiply(j->rt->kernels, &x, row0, row1, out->linear, p0, p1, &epilogue, j->rt->thread_scratch[thread]);
        }
        base += panels;
    }
}

/* Panels that a kernel takes at once: it reads, and on AVX2 arranges, the rows for each. */
static size_t batch_of(mq_row_layout layout)
{
    return layout == MQ_ROWS_INT8 ? MQ_INT8_BATCH : MQ_NVFP4_BATCH;
}

static size_t panels_of_outputs(const job *j)
{
    size_t panels = 0;
    for (int i = 0; i < j->count; i++) {
        panels += mq__panels_of(j->outputs[i].linear);
    }
    return panels;
}

static void multiply_linear(void *context, int part, int parts, int thread)
{
    const job *j = context;
    const size_t panels = panels_of_outputs(j), pieces = j->pieces;
    size_t begin, end;
    if (j->own) make_own(j, thread);
    const size_t rows = j->input.count, groups = (rows + MQ_ROW_GRAIN - 1) / MQ_ROW_GRAIN;
    mq__part_units(panels * pieces, part, parts, j->each, batch_of(j->x.layout), &begin, &end);
    for (size_t i = begin / panels; i * panels < end; i++) {
        const size_t row0 = groups * i / pieces * MQ_ROW_GRAIN, row1 = groups * (i + 1) / pieces * MQ_ROW_GRAIN;
        const size_t p0 = begin > i * panels ? begin - i * panels : 0, left = end - i * panels;
        multiply_panels(j, p0, left < panels ? left : panels, row0, row1 < rows ? row1 : rows, thread);
    }
}

void mq__linear_group(mq_runtime *rt, mq_linear_format format, mq_input input, const mq_output *outputs, int count)
{
    job j = {.rt = rt,
             .x = {.format = format,
                   .layout = mq__row_layout(format, rt->pass->phase),
                   .width = input.width,
                   .plain = input.rows,
                   .panels = rt->dense_panels,
                   .nvfp4 = rt->nvfp4,
                   .int8 = rt->int8},
             .input = input,
             .outputs = outputs,
             .count = count};
    const bool plain = j.x.layout == MQ_ROWS_PLAIN;
    const bool as_it_is = plain && input.kind == MQ_INPUT_PLAIN && !mq__rounds_rows(format);
    const bool few = input.count <= MQ_OWN_ROWS && !rt->pass->observer && !input.keep;
    j.own = few && (plain ? input.kind != MQ_INPUT_PLAIN : j.x.layout == MQ_ROWS_NVFP4);
    if (!as_it_is && !j.own) mq__pool_run(rt->pool, prepare_rows, &j);
    mq__lap(rt, MQ_STAGE_PREPARE);
    const size_t panels = panels_of_outputs(&j);
    j.pieces = plain ? 1 : mq__row_pieces(panels, input.count, mq__pool_threads(rt->pool));
    j.each = mq__parts_of(rt, input.count, panels * j.pieces, batch_of(j.x.layout));
    mq__pool_deal(rt->pool, multiply_linear, &j, j.each);
    mq__lap(rt, MQ_STAGE_LINEAR);
}
