/* NVFP4 W4A4 in plain C: the definition that every level agrees with, bit for bit. */
#include "kernels/nvfp4_pack.h"
#include "kernels/table.h"

#include <math.h>

/* E4M3 to nearest even, saturating at 448. x is finite and not negative. */
static uint8_t e4m3_from_f32(float x)
{
    if (x >= 448.0f) return 0x7e;
    if (x < 0x1p-6f) return (uint8_t)lrintf(x * 0x1p9f); /* subnormal: multiples of 2^-9; 8 is the smallest normal */
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits += 0x7ffff + (bits >> 20 & 1);
    return (uint8_t)((bits >> 20) - (120u << 3));
}

/* 2*E2M1(x), to nearest with ties to the even code, saturating. */
static int e2m1_from_f32(float x)
{
    const float y = fabsf(x);
    int magnitude;
    if (y <= 0.25f) {
        magnitude = 0;
    } else if (y < 0.75f) {
        magnitude = 1;
    } else if (y <= 1.25f) {
        magnitude = 2;
    } else if (y < 1.75f) {
        magnitude = 3;
    } else if (y <= 2.5f) {
        magnitude = 4;
    } else if (y < 3.5f) {
        magnitude = 6;
    } else {
        magnitude = y <= 5.0f ? 8 : 12;
    }
    return x < 0 ? -magnitude : magnitude;
}

static float largest_nvfp4_ref(const float *x, size_t n)
{
    float amax = 0;
    for (size_t i = 0; i < n; i++)
        amax = fmaxf(amax, fabsf(x[i]));
    return amax;
}

/* One block of n <= 16 values: its codes to cell_codes [16], its scale returned. */
static float quantize_block_nvfp4_ref(const float *x, size_t n, float global, float inverse_global, uint8_t *cell_codes)
{
    const float scale = mq__e4m3_to_f32(e4m3_from_f32(global * (largest_nvfp4_ref(x, n) * (1.0f / 6.0f))));
    const float inverse = scale != 0 ? 1.0f / (scale * inverse_global) : 0.0f;
    for (size_t i = 0; i < MQ_NVFP4_BLOCK; i++) {
        cell_codes[i] = (uint8_t)(MQ_NVFP4_OFFSET + (i < n ? e2m1_from_f32(x[i] * inverse) : 0));
    }
    return scale;
}

static void nvfp4_quantize_ref(const float *x, size_t ldx, size_t row0, size_t row1, size_t k_width,
                               const mq_nvfp4_rows *out)
{
    const size_t blocks = (k_width + MQ_NVFP4_BLOCK - 1) / MQ_NVFP4_BLOCK;
    for (size_t m = row0; m < row1; m++) {
        const float *row = x + m * ldx;
        const float amax = largest_nvfp4_ref(row, k_width);
        const float global = amax < MQ_NVFP4_TINY ? 1.0f : 2688.0f / amax;
        out->multiplier[m] = 1.0f / global;
        uint8_t *cell = out->panels + m / MQ_NVFP4_MR * blocks * MQ_NVFP4_ROW_CELL;
        const size_t r = m % MQ_NVFP4_MR;
        for (size_t k = 0; k < k_width; k += MQ_NVFP4_BLOCK, cell += MQ_NVFP4_ROW_CELL) {
            const size_t n = k_width - k < MQ_NVFP4_BLOCK ? k_width - k : MQ_NVFP4_BLOCK;
            const float scale = quantize_block_nvfp4_ref(row + k, n, global, 1.0f / global, cell + r * MQ_NVFP4_BLOCK);
            memcpy(cell + MQ_NVFP4_ROW_SCALES + r * sizeof scale, &scale, sizeof scale);
        }
    }
    mq__nvfp4_pad_rows(out->panels, row1, blocks);
}

/* acc [MR][NR] += one block: activation cell a times weight cell w. */
static void add_block_nvfp4_ref(const uint8_t *a, const uint8_t *w, size_t rows, float (*acc)[MQ_NVFP4_NR])
{
    float sa[MQ_NVFP4_MR];
    memcpy(sa, a + MQ_NVFP4_ROW_SCALES, sizeof sa);
    for (unsigned f = 0; f < MQ_NVFP4_NR; f++) {
        int weight[MQ_NVFP4_BLOCK];
        for (unsigned k = 0; k < MQ_NVFP4_BLOCK; k++)
            weight[k] = mq__e2m1_doubled(mq__nvfp4_cell_code(w, k, f));
        const float sw = mq__nvfp4_cell_scale(w, f);
        for (size_t r = 0; r < rows; r++) {
            int dot = 0; /* in quarters: both factors are doubled; |dot| <= 16*12*12 */
            for (unsigned k = 0; k < MQ_NVFP4_BLOCK; k++) {
                dot += (a[r * MQ_NVFP4_BLOCK + k] - MQ_NVFP4_OFFSET) * weight[k];
            }
            acc[r][f] = fmaf((float)dot * sw, sa[r], acc[r][f]);
        }
    }
}

static void nvfp4_gemm_ref(const mq_nvfp4_rows *a, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                           const mq_epilogue *out, void *scratch)
{
    (void)scratch;
    for (size_t p = p0; p < p1; p++) {
        const size_t n0 = p * MQ_NVFP4_NR;
        const size_t features = w->n - n0 < MQ_NVFP4_NR ? w->n - n0 : MQ_NVFP4_NR;
        for (size_t m0 = 0; m0 < rows; m0 += MQ_NVFP4_MR) {
            const size_t group_rows = rows - m0 < MQ_NVFP4_MR ? rows - m0 : MQ_NVFP4_MR;
            const uint8_t *cells = a->panels + m0 / MQ_NVFP4_MR * w->blocks * MQ_NVFP4_ROW_CELL;
            float acc[MQ_NVFP4_MR][MQ_NVFP4_NR] = {{0}};
            for (size_t b = 0; b < w->blocks; b++) {
                add_block_nvfp4_ref(cells + b * MQ_NVFP4_ROW_CELL, mq__nvfp4_panel(w, p) + b * MQ_NVFP4_CELL,
                                    group_rows, acc);
            }
            for (size_t r = 0; r < group_rows; r++) {
                const float scale = 0.25f * a->multiplier[m0 + r] * w->multiplier;
                float *y = out->y + (m0 + r) * out->ldy + n0;
                for (size_t f = 0; f < features; f++) {
                    float sum = acc[r][f] * scale;
                    if (out->bias) sum += out->bias[n0 + f];
                    y[f] = out->accumulate ? sum + y[f] : sum;
                }
            }
        }
    }
}

void mq__fill_ref_nvfp4(mq_kernels *table)
{
    table->nvfp4_quantize = nvfp4_quantize_ref;
    table->nvfp4_gemm = nvfp4_gemm_ref;
}
