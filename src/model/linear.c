/* Linear layers in any format: a parallel stage that makes and packs the input rows, then one that multiplies.
 *
 * Norm and SwiGLU happen in the first stage, a group of rows at a time, so that a row is still in L1 when it is
 * quantised; one or two plain rows each thread makes for itself, which takes less time than waiting for another one. The
 * second stage partitions the weight panels of all outputs together over the threads: each thread reads its own weights
 * once for all rows, and each output has one writer. Where threads outnumber panels, rows are cut as well. */
#include "model/runtime.h"
#include "model/share.h"

/* How a format wants its input. Tall BF16 and W4A16 products read FP32 panels, thin ones plain rows. */
typedef enum input_layout { ROWS, DENSE_PANELS, BF16_PANELS, NVFP4_PANELS, INT8_PANELS } input_layout;

#define PANEL     MQ_NVFP4_NR /* output features per unit of work, for all formats */
#define THIN_ROWS 8           /* of one call of the thin kernels at most */
#define ROW_GRAIN MQ_DENSE_MR /* rows are cut at multiples of it: where row groups of all layouts begin */
_Static_assert(ROW_GRAIN % MQ_NVFP4_MR == 0 && ROW_GRAIN % MQ_INT8_MR == 0, "row groups begin there");

typedef struct job {
    mq_runtime *rt;
    mq_linear_format format;
    input_layout layout;
    mq_input input;
    const mq_output *outputs;
    int count;
    bool own; /* each thread makes the rows for itself */
} job;

static input_layout layout_of(mq_linear_format format, mq_phase phase)
{
    if (format == MQ_LINEAR_NVFP4) return NVFP4_PANELS;
    if (format == MQ_LINEAR_INT8) return INT8_PANELS;
    if (phase == MQ_PHASE_DECODE) return ROWS;
    return format == MQ_LINEAR_W16A16 ? BF16_PANELS : DENSE_PANELS;
}

static uint32_t group_rows(input_layout layout)
{
    if (layout == ROWS) return 1;
    return layout == NVFP4_PANELS ? MQ_NVFP4_MR : layout == INT8_PANELS ? MQ_INT8_MR : MQ_DENSE_MR;
}

/* The activations of W16A16, still stored as FP32. */
static void round_to_bf16(const mq_kernels *k, float *x, size_t width)
{
    uint16_t half[256];
    for (size_t i = 0; i < width; i += 256) {
        const size_t count = width - i < 256 ? width - i : 256;
        k->f32_to_bf16(half, x + i, count);
        k->dense_to_f32(x + i, half, MQ_DENSE_BF16, count);
    }
}

/* Rows [begin, end) of the input, into those of `rows`. */
static void make_rows(const job *j, size_t begin, size_t end, float *rows)
{
    const mq_runtime *rt = j->rt;
    const mq_input *in = &j->input;
    const size_t width = in->width;
    for (size_t row = begin; row < end; row++) {
        float *y = rows + row * width;
        if (in->kind == MQ_INPUT_NORM) {
            rt->kernels->rmsnorm(y, rt->h + (in->row0 + row) * width, in->norm_weight, width, rt->model->norm_eps);
        } else if (in->kind == MQ_INPUT_SWIGLU) {
            rt->kernels->swiglu(y, rt->gate + row * width, rt->up + row * width, width);
        }
        if (j->format == MQ_LINEAR_W16A16) round_to_bf16(rt->kernels, y, width);
    }
}

static void prepare(void *context, int thread, int threads)
{
    const job *j = context;
    const mq_runtime *rt = j->rt;
    const size_t rows = j->input.count, width = j->input.width, each = group_rows(j->layout);
    size_t begin, end;
    mq__partition((rows + each - 1) / each, thread, threads, &begin, &end);
    for (size_t g = begin; g < end; g++) {
        const size_t row0 = g * each, row1 = row0 + each < rows ? row0 + each : rows;
        make_rows(j, row0, row1, j->input.rows);
        if (j->layout == DENSE_PANELS) {
            rt->kernels->dense_pack_rows(j->input.rows, width, rows, width, g, g + 1, rt->dense_panels);
        } else if (j->layout == BF16_PANELS) {
            rt->kernels->bf16_pack_rows(j->input.rows, width, rows, width, g, g + 1, rt->dense_panels);
        } else if (j->layout == NVFP4_PANELS) {
            rt->kernels->nvfp4_quantize(j->input.rows, width, row0, row1, width, &rt->nvfp4);
        } else if (j->layout == INT8_PANELS) {
            rt->kernels->int8_quantize(j->input.rows, width, row0, row1, width, &rt->int8);
        }
    }
}

/* A piece of a product: rows [row0, row1) and features [PANEL*p0, PANEL*p1). */
typedef struct piece {
    size_t row0, row1, p0, p1;
} piece;

static void multiply_piece(const job *j, const mq_output *out, piece at, int thread)
{
    const mq_runtime *rt = j->rt;
    const mq_kernels *k = rt->kernels;
    const mq_linear *w = out->linear;
    const mq_epilogue epilogue = {
        .y = out->y + at.row0 * w->n, .ldy = w->n, .bias = w->bias, .accumulate = out->accumulate};
    const size_t rows = at.row1 - at.row0, width = j->input.width;
    const size_t n0 = at.p0 * PANEL, n1 = at.p1 * PANEL < w->n ? at.p1 * PANEL : w->n;
    const float *x = (j->own ? rt->own_rows[thread] : j->input.rows) + at.row0 * width;
    uint8_t *scratch = rt->thread_scratch[thread];
    const float *panels = rt->dense_panels + mq__dense_panel_floats(at.row0, width); /* also of BF16 */
    if (j->layout == NVFP4_PANELS) {
        const mq_nvfp4_rows a = {rt->nvfp4.panels + mq__nvfp4_row_bytes(at.row0, width),
                                 rt->nvfp4.multiplier + at.row0};
        k->nvfp4_gemm(&a, rows, &w->nvfp4, at.p0, at.p1, &epilogue, scratch);
    } else if (j->layout == INT8_PANELS) {
        const mq_int8_rows a = {rt->int8.panels + mq__int8_row_bytes(at.row0, width)};
        k->int8_gemm(&a, rows, &w->int8, at.p0, at.p1, &epilogue, scratch);
    } else if (j->format == MQ_LINEAR_W4A16 && j->layout == ROWS) {
        k->w4a16_thin(x, width, rows, &w->nvfp4, at.p0, at.p1, &epilogue, scratch);
    } else if (j->format == MQ_LINEAR_W4A16) {
        k->w4a16_gemm(panels, rows, &w->nvfp4, at.p0, at.p1, &epilogue, scratch);
    } else if (j->layout == ROWS) {
        k->dense_thin(x, width, rows, &w->dense, n0, n1, &epilogue, scratch);
    } else if (j->layout == BF16_PANELS) {
        k->bf16_gemm(panels, rows, &w->dense, n0, n1, &epilogue, scratch);
    } else {
        k->dense_gemm(panels, rows, &w->dense, n0, n1, &epilogue, scratch);
    }
}

static size_t panels_of(const mq_output *out)
{
    return (out->linear->n + PANEL - 1) / PANEL;
}

/* Panels [begin, end) of all outputs, one after the other, for rows [row0, row1). */
static void multiply_panels(const job *j, size_t begin, size_t end, size_t row0, size_t row1, int thread)
{
    size_t base = 0;
    for (int i = 0; i < j->count; i++) {
        const size_t panels = panels_of(&j->outputs[i]);
        piece at = {.row0 = row0, .row1 = row1};
        if (mq__group_part(base, panels, begin, end, &at.p0, &at.p1)) multiply_piece(j, &j->outputs[i], at, thread);
        base += panels;
    }
}

static void multiply_linear(void *context, int thread, int threads)
{
    const job *j = context;
    size_t panels = 0, begin, end;
    for (int i = 0; i < j->count; i++) {
        panels += panels_of(&j->outputs[i]);
    }
    if (j->own) make_rows(j, 0, j->input.count, j->rt->own_rows[thread]);
    const size_t rows = j->input.count, groups = (rows + ROW_GRAIN - 1) / ROW_GRAIN;
    const size_t pieces = j->layout == ROWS ? 1 : mq__row_pieces(panels, rows, threads);
    mq__partition(panels * pieces, thread, threads, &begin, &end);
    for (size_t i = begin / panels; i * panels < end; i++) {
        const size_t row0 = groups * i / pieces * ROW_GRAIN, row1 = groups * (i + 1) / pieces * ROW_GRAIN;
        const size_t p0 = begin > i * panels ? begin - i * panels : 0, left = end - i * panels;
        const size_t row_end = row1 < rows ? row1 : rows, step = j->layout == ROWS ? THIN_ROWS : row_end;
        for (size_t row = row0; row < row_end; row += step) {
            multiply_panels(j, p0, left < panels ? left : panels, row, row_end - row < step ? row_end : row + step,
                            thread);
        }
    }
}

void mq__linear_group(mq_runtime *rt, mq_linear_format format, mq_input input, const mq_output *outputs, int count)
{
    job j = {.rt = rt,
             .format = format,
             .layout = layout_of(format, rt->pass->phase),
             .input = input,
             .outputs = outputs,
             .count = count};
    const bool as_it_is = j.layout == ROWS && input.kind == MQ_INPUT_PLAIN && format != MQ_LINEAR_W16A16;
    j.own = j.layout == ROWS && input.kind != MQ_INPUT_PLAIN && input.count <= MQ_OWN_ROWS && !rt->pass->observer;
    if (!as_it_is && !j.own) mq__pool_run(rt->pool, prepare, &j);
    mq__lap(rt, MQ_STAGE_PREPARE);
    mq__pool_run(rt->pool, multiply_linear, &j);
    mq__lap(rt, MQ_STAGE_LINEAR);
}
