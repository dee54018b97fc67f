/* INT8 W8A8 in plain C: the definition that every level agrees with, bit for bit. */
#include "kernels/int8_pack.h"
#include "kernels/table.h"

#include <math.h>

static void int8_quantize_ref(const float *x, size_t ldx, size_t row0, size_t row1, size_t k_width,
                              const mq_int8_rows *out)
{
    const size_t groups = (k_width + MQ_INT8_GROUP - 1) / MQ_INT8_GROUP;
    for (size_t m = row0; m < row1; m++) {
        uint8_t *cell = out->panels + m / MQ_INT8_MR * groups * MQ_INT8_ROW_CELL;
        const size_t r = m % MQ_INT8_MR;
        for (size_t k = 0; k < k_width; k += MQ_INT8_GROUP, cell += MQ_INT8_ROW_CELL) {
            const size_t n = k_width - k < MQ_INT8_GROUP ? k_width - k : MQ_INT8_GROUP;
            const float *from = x + m * ldx + k;
            float amax = 0;
            for (size_t i = 0; i < n; i++)
                amax = fmaxf(amax, fabsf(from[i]));
            const float scale = amax < MQ_INT8_TINY ? 0 : amax * (1.0f / 127.0f);
            const float inverse = amax < MQ_INT8_TINY ? 0 : 127.0f / amax;
            uint8_t *codes = cell + r * MQ_INT8_GROUP;
            for (size_t i = 0; i < MQ_INT8_GROUP; i++) {
                codes[i] = (uint8_t)(MQ_INT8_OFFSET + (i < n ? (int)rintf(from[i] * inverse) : 0));
            }
            memcpy(cell + MQ_INT8_ROW_SCALES + 4 * r, &scale, sizeof scale);
        }
    }
    mq__int8_pad_rows(out->panels, row1, groups);
}

/* acc [MR][NR] += one group: activation cell a times weight cell w. */
static void add_group_int8_ref(const uint8_t *a, const uint8_t *w, size_t rows, float (*acc)[MQ_INT8_NR])
{
    float sa[MQ_INT8_MR];
    memcpy(sa, a + MQ_INT8_ROW_SCALES, sizeof sa);
    for (unsigned f = 0; f < MQ_INT8_NR; f++) {
        const float sw = mq__int8_cell_scale(w, f);
        for (size_t r = 0; r < rows; r++) {
            int dot = 0; /* |dot| <= 64*127*127 < 2^20 */
            for (unsigned k = 0; k < MQ_INT8_GROUP; k++) {
                dot += (a[r * MQ_INT8_GROUP + k] - MQ_INT8_OFFSET) * mq__int8_cell_value(w, k, f);
            }
            acc[r][f] = fmaf((float)dot * sw, sa[r], acc[r][f]);
        }
    }
}

static void int8_gemm_ref(const mq_int8_rows *a, size_t rows, const mq_int8 *w, size_t p0, size_t p1,
                          const mq_epilogue *out, void *scratch)
{
    (void)scratch;
    for (size_t p = p0; p < p1; p++) {
        const size_t n0 = p * MQ_INT8_NR;
        const size_t features = w->n - n0 < MQ_INT8_NR ? w->n - n0 : MQ_INT8_NR;
        for (size_t m0 = 0; m0 < rows; m0 += MQ_INT8_MR) {
            const size_t group_rows = rows - m0 < MQ_INT8_MR ? rows - m0 : MQ_INT8_MR;
            const uint8_t *cells = a->panels + m0 / MQ_INT8_MR * w->groups * MQ_INT8_ROW_CELL;
            float acc[MQ_INT8_MR][MQ_INT8_NR] = {{0}};
            for (size_t g = 0; g < w->groups; g++) {
                add_group_int8_ref(cells + g * MQ_INT8_ROW_CELL, mq__int8_panel(w, p) + g * MQ_INT8_CELL, group_rows,
                                   acc);
            }
            for (size_t r = 0; r < group_rows; r++) {
                float *y = out->y + (m0 + r) * out->ldy + n0;
                for (size_t f = 0; f < features; f++) {
                    const float sum = out->bias ? acc[r][f] + out->bias[n0 + f] : acc[r][f];
                    y[f] = out->accumulate ? sum + y[f] : sum;
                }
            }
        }
    }
}

void mq__fill_ref_int8(mq_kernels *table)
{
    table->int8_quantize = int8_quantize_ref;
    table->int8_gemm = int8_gemm_ref;
}
