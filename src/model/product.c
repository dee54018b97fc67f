#include "model/product.h"

#include "format/fp8.h"

mq_row_layout mq__row_layout(mq_linear_format format, mq_phase phase)
{
    if (format == MQ_LINEAR_NVFP4) return MQ_ROWS_NVFP4;
    if (format == MQ_LINEAR_INT8) return MQ_ROWS_INT8;
    if (phase == MQ_PHASE_DECODE) return MQ_ROWS_PLAIN;
    return format == MQ_LINEAR_W16A16 ? MQ_ROWS_BF16 : MQ_ROWS_DENSE;
}

size_t mq__row_group(mq_row_layout layout)
{
    if (layout == MQ_ROWS_PLAIN) return 1;
    return layout == MQ_ROWS_NVFP4 ? MQ_NVFP4_MR : layout == MQ_ROWS_INT8 ? MQ_INT8_MR : MQ_DENSE_MR;
}

/* What W16A16 makes of its activations. */
static void round_to_bf16(const mq_kernels *k, float *x, size_t count)
{
    uint16_t half[256];
    for (size_t i = 0; i < count; i += 256) {
        const size_t some = count - i < 256 ? count - i : 256;
        k->f32_to_bf16(half, x + i, some);
        k->dense_to_f32(x + i, half, MQ_DENSE_BF16, some);
    }
}

bool mq__rounds_rows(mq_linear_format format)
{
    return format == MQ_LINEAR_W16A16 || format == MQ_LINEAR_FP8;
}

void mq__round_rows(const mq_kernels *k, mq_linear_format format, float *x, size_t rows, size_t width)
{
    if (format == MQ_LINEAR_W16A16) round_to_bf16(k, x, rows * width);
    for (size_t i = 0; format == MQ_LINEAR_FP8 && i < rows; i++) {
        mq__fp8_round(x + i * width, x + i * width, width);
    }
}

void mq__pack_rows(const mq_kernels *k, const mq_packed_rows *to, size_t at, const float *x, size_t rows)
{
    const size_t width = to->width, groups = (rows + MQ_DENSE_MR - 1) / MQ_DENSE_MR;
    if (to->layout == MQ_ROWS_DENSE) {
        k->dense_pack_rows(x, width, rows, width, 0, groups, to->panels + mq__dense_panel_floats(at, width));
    } else if (to->layout == MQ_ROWS_BF16) {
        k->bf16_pack_rows(x, width, rows, width, 0, groups, to->panels + mq__dense_panel_floats(at, width));
    } else if (to->layout == MQ_ROWS_NVFP4) {
        const mq_nvfp4_rows out = {to->nvfp4.panels + mq__nvfp4_row_bytes(at, width), to->nvfp4.multiplier + at};
        k->nvfp4_quantize(x, width, 0, rows, width, &out);
    } else if (to->layout == MQ_ROWS_INT8) {
        const mq_int8_rows out = {to->int8.panels + mq__int8_row_bytes(at, width)};
        k->int8_quantize(x, width, 0, rows, width, &out);
    }
}

void mq__multiply(const mq_kernels *k, const mq_packed_rows *x, size_t row0, size_t row1, const mq_linear *w, size_t p0,
                  size_t p1, const mq_epilogue *out, void *scratch)
{
    const size_t rows = row1 - row0, width = x->width;
    const mq_dense *dense = x->format == MQ_LINEAR_FP8 ? &w->fp8 : &w->dense;
    const size_t n0 = p0 * MQ_PANEL, n1 = p1 * MQ_PANEL < w->n ? p1 * MQ_PANEL : w->n;
    if (x->layout == MQ_ROWS_PLAIN && x->format == MQ_LINEAR_W4A16) {
        k->w4a16_thin(x->plain + row0 * width, width, rows, &w->nvfp4, p0, p1, out, scratch);
    } else if (x->layout == MQ_ROWS_PLAIN) {
        k->dense_thin(x->plain + row0 * width, width, rows, dense, n0, n1, out, scratch);
    } else if (x->layout == MQ_ROWS_NVFP4) {
        const mq_nvfp4_rows a = {x->nvfp4.panels + mq__nvfp4_row_bytes(row0, width), x->nvfp4.multiplier + row0};
        k->nvfp4_gemm(&a, rows, &w->nvfp4, p0, p1, out, scratch);
    } else if (x->layout == MQ_ROWS_INT8) {
        const mq_int8_rows a = {x->int8.panels + mq__int8_row_bytes(row0, width)};
        k->int8_gemm(&a, rows, &w->int8, p0, p1, out, scratch);
    } else {
        const float *panels = x->panels + mq__dense_panel_floats(row0, width);
        if (x->format == MQ_LINEAR_W4A16)
            k->w4a16_gemm(panels, rows, &w->nvfp4, p0, p1, out, scratch);
        else if (x->layout == MQ_ROWS_BF16)
            k->bf16_gemm(panels, rows, dense, n0, n1, out, scratch);
        else
            k->dense_gemm(panels, rows, dense, n0, n1, out, scratch);
    }
}
