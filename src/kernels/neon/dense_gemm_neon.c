/* Dense GEMM of the NEON level: expansion of BF16, F16 and F32 weights to FP32 panels, and activation panels.
 *
 * Expanded panels are [2][kc][16]: the halves that the tiles read one after the other, each contiguous. */
#include "kernels/dense_driver.h"
#include "kernels/neon/dense_neon.h"
#include "kernels/neon/vector_neon.h"
#include "kernels/table.h"

#define MR MQ_DENSE_MR

/* Four values of k, or fewer, as FP32 from any type. */
INLINE uint32x4_t load_dense_neon(const void *data, size_t at, size_t count, const mq_dense_type type)
{
    if (type == MQ_DENSE_F32) return vreinterpretq_u32_f32(load_first((const float *)data + at, count));
    uint16_t part[4] = {0};
    const uint16_t *half = (const uint16_t *)data + at;
    if (count < 4) half = memcpy(part, half, count * sizeof *part);
    const uint16x4_t x = vld1_u16(half);
    return vreinterpretq_u32_f32(type == MQ_DENSE_BF16 ? widen_bf16(x) : vcvt_f32_f16(vreinterpret_f16_u16(x)));
}

/* Four features (rows of the weights from element `at`, `live` of them present) and kc values of k to b [kc][16]. */
INLINE void expand_four(const void *data, size_t at, size_t ld, size_t live, size_t kc, float *b,
                        const mq_dense_type type)
{
    for (size_t k = 0; k < kc; k += 4) {
        const size_t width = kc - k < 4 ? kc - k : 4;
        uint32x4_t t[4];
        for (size_t i = 0; i < 4; i++)
            t[i] = i < live ? load_dense_neon(data, at + i * ld + k, width, type) : vdupq_n_u32(0);
        transpose_4x4(t);
        for (size_t i = 0; i < width; i++)
            vst1q_f32(b + (k + i) * 16, vreinterpretq_f32_u32(t[i]));
    }
}

static void expand_dense_neon(const void *weights, size_t panel, size_t k0, size_t kc, float *b)
{
    const mq_dense *w = weights;
    const size_t ld = w->k_width;
    for (size_t part = 0; part < 8; part++) {
        const size_t n = panel * DENSE_NR + part * 4, at = n * ld + k0;
        const size_t live = n >= w->n ? 0 : w->n - n < 4 ? w->n - n : 4;
        float *to = b + part / 4 * 16 * kc + part % 4 * 4;
        if (w->type == MQ_DENSE_BF16) {
            expand_four(w->data, at, ld, live, kc, to, MQ_DENSE_BF16);
        } else if (w->type == MQ_DENSE_F16) {
            expand_four(w->data, at, ld, live, kc, to, MQ_DENSE_F16);
        } else {
            expand_four(w->data, at, ld, live, kc, to, MQ_DENSE_F32);
        }
    }
}

void mq__dense_gemm_neon(const float *panels, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                         const mq_epilogue *out, void *scratch)
{
    const dense_source source = {.core = &mq__dense_core_neon,
                                 .expand = expand_dense_neon,
                                 .weights = w,
                                 .n = n1 < w->n ? n1 : w->n,
                                 .k_width = w->k_width,
                                 .row_floats = w->k_width,
                                 .multiplier = 1,
                                 .rows = w->data,
                                 .element_bytes = w->type == MQ_DENSE_F32 ? 4 : 2};
    mq__dense_run(panels, rows, &source, n0 / DENSE_NR, (n1 + DENSE_NR - 1) / DENSE_NR, out, scratch);
}

/* Rows [0, live) of x, at most 4, to columns [0, count) of a panel. */
static void pack_four(const float *x, size_t ldx, size_t live, size_t k_width, float *panel, size_t count)
{
    for (size_t k = 0; k < k_width; k += 4) {
        const size_t width = k_width - k < 4 ? k_width - k : 4;
        uint32x4_t t[4];
        for (size_t i = 0; i < 4; i++)
            t[i] = i < live ? vreinterpretq_u32_f32(load_first(x + i * ldx + k, width)) : vdupq_n_u32(0);
        transpose_4x4(t);
        for (size_t i = 0; i < width; i++)
            store_first(panel + (k + i) * MR, vreinterpretq_f32_u32(t[i]), count);
    }
}

void mq__dense_pack_rows_neon(const float *x, size_t ldx, size_t rows, size_t k_width, size_t g0, size_t g1,
                              float *panels)
{
    for (size_t g = g0; g < g1; g++) {
        const size_t live = rows - g * MR < MR ? rows - g * MR : MR;
        const float *from = x + g * MR * ldx;
        float *panel = panels + g * k_width * MR;
        for (size_t r = 0; r < MR; r += 4) {
            const size_t here = live > r ? live - r : 0;
            pack_four(from + r * ldx, ldx, here < 4 ? here : 4, k_width, panel + r, MR - r < 4 ? MR - r : 4);
        }
    }
}

void mq__fill_neon_dense(mq_kernels *table)
{
    const size_t need = DENSE_SCRATCH_FLOATS * sizeof(float);
    table->dense_pack_rows = mq__dense_pack_rows_neon;
    table->dense_gemm = mq__dense_gemm_neon;
    if (table->gemm_scratch_bytes < need) table->gemm_scratch_bytes = need;
    mq__fill_neon_thin(table);
    mq__fill_neon_w4a16(table);
}
