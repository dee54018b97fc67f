/* The definition of the dense products: activation panels, the GEMM with one FMA chain per output over ascending k, and
 * the thin product with sixteen chains per output (lane = k mod 16), one vector register wide on the widest level. */
#include "kernels/dense_common.h"
#include "kernels/table.h"

#include <math.h>

#define MR    MQ_DENSE_MR
#define LANES 16

size_t mq__dense_panel_floats(size_t rows, size_t k_width)
{
    return (rows + MR - 1) / MR * MR * k_width;
}

static void pack_rows_dense_ref(const float *x, size_t ldx, size_t rows, size_t k_width, size_t g0, size_t g1,
                                float *panels)
{
    for (size_t g = g0; g < g1; g++) {
        float *panel = panels + g * k_width * MR;
        for (size_t k = 0; k < k_width; k++) {
            for (size_t r = 0; r < MR; r++) {
                panel[k * MR + r] = g * MR + r < rows ? x[(g * MR + r) * ldx + k] : 0;
            }
        }
    }
}

static void gemm_dense_ref(const float *panels, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                           const mq_epilogue *out, void *scratch)
{
    (void)scratch;
    const size_t k_width = w->k_width;
    for (size_t n = n0; n < n1; n++) {
        for (size_t row = 0; row < rows; row++) {
            const float *panel = panels + row / MR * MR * k_width + row % MR;
            float sum = 0;
            for (size_t k = 0; k < k_width; k++) {
                sum = fmaf(panel[k * MR], dense_element(w->data, w->type, n * k_width + k), sum);
            }
            finish_output(out, row, n, sum);
        }
    }
}

static void thin_dense_ref(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                           const mq_epilogue *out, void *scratch)
{
    (void)scratch;
    const size_t k_width = w->k_width;
    for (size_t n = n0; n < n1; n++) {
        for (size_t row = 0; row < rows; row++) {
            float lane[LANES] = {0};
            for (size_t k = 0; k < k_width; k++) {
                lane[k % LANES] =
                    fmaf(x[row * ldx + k], dense_element(w->data, w->type, n * k_width + k), lane[k % LANES]);
            }
            for (size_t half = LANES / 2; half > 0; half /= 2) {
                for (size_t i = 0; i < half; i++) {
                    lane[i] += lane[i + half];
                }
            }
            finish_output(out, row, n, lane[0]);
        }
    }
}

void mq__fill_ref_dense(mq_kernels *table)
{
    table->dense_pack_rows = pack_rows_dense_ref;
    table->dense_gemm = gemm_dense_ref;
    table->dense_thin = thin_dense_ref;
    mq__fill_ref_w4a16(table);
}
