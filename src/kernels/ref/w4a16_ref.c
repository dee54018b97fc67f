/* The definition of the products of NVFP4 weights with FP32 activations. */
#include "kernels/dense_common.h"
#include "kernels/nvfp4_pack.h"
#include "kernels/table.h"

#include <math.h>

#define MR MQ_DENSE_MR

static float e2m1(const uint8_t *cell, unsigned k, unsigned feature)
{
    return 0.5f * (float)mq__e2m1_doubled(mq__nvfp4_cell_code(cell, k, feature));
}

/* e2m1 * e4m3 has at most 2 + 4 significant bits: exact. */
static void gemm_w4a16_ref(const float *panels, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                           const mq_epilogue *out, void *scratch)
{
    (void)scratch;
    const size_t k_width = w->k_width, n1 = p1 * MQ_NVFP4_NR < w->n ? p1 * MQ_NVFP4_NR : w->n;
    for (size_t n = p0 * MQ_NVFP4_NR; n < n1; n++) {
        const uint8_t *weights = mq__nvfp4_panel(w, n / MQ_NVFP4_NR);
        const unsigned feature = (unsigned)(n % MQ_NVFP4_NR);
        for (size_t row = 0; row < rows; row++) {
            const float *panel = panels + row / MR * MR * k_width + row % MR;
            float sum = 0;
            for (size_t k = 0; k < k_width; k++) {
                const uint8_t *cell = weights + k / MQ_NVFP4_BLOCK * MQ_NVFP4_CELL;
                const float weight = e2m1(cell, k % MQ_NVFP4_BLOCK, feature) * mq__nvfp4_cell_scale(cell, feature);
                sum = fmaf(panel[k * MR], weight, sum);
            }
            finish_output(out, row, n, sum * w->multiplier);
        }
    }
}

static void thin_w4a16_ref(const float *x, size_t ldx, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                           const mq_epilogue *out, void *scratch)
{
    (void)scratch;
    const size_t k_width = w->k_width, n1 = p1 * MQ_NVFP4_NR < w->n ? p1 * MQ_NVFP4_NR : w->n;
    for (size_t n = p0 * MQ_NVFP4_NR; n < n1; n++) {
        const uint8_t *weights = mq__nvfp4_panel(w, n / MQ_NVFP4_NR);
        const unsigned feature = (unsigned)(n % MQ_NVFP4_NR);
        for (size_t row = 0; row < rows; row++) {
            float sum = 0;
            for (size_t k0 = 0; k0 < k_width; k0 += MQ_NVFP4_BLOCK) {
                const uint8_t *cell = weights + k0 / MQ_NVFP4_BLOCK * MQ_NVFP4_CELL;
                float dot = 0;
                for (size_t k = k0; k < k0 + MQ_NVFP4_BLOCK && k < k_width; k++) {
                    dot = fmaf(x[row * ldx + k], e2m1(cell, (unsigned)(k - k0), feature), dot);
                }
                sum = fmaf(dot, mq__nvfp4_cell_scale(cell, feature), sum);
            }
            finish_output(out, row, n, sum * w->multiplier);
        }
    }
}

void mq__fill_ref_w4a16(mq_kernels *table)
{
    table->w4a16_gemm = gemm_w4a16_ref;
    table->w4a16_thin = thin_w4a16_ref;
}
