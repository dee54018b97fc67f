/* NVFP4 weights with FP32 activations on the AVX2 level.
 *
 * Decoding: a dword holds 8 codes of one feature (nvfp4_pack.h). A shift brings the code of one k to the low bits of
 * 8 lanes; VPERMPS looks up the magnitude by its three low bits, and the code's sign bit, shifted to the top, is put in.
 * Thin: features are lanes, one FMA per row with the activation broadcast; 7 to 8 instructions per 8 weights.
 * Measured (2-core Cascade Lake class, 2.5 GHz, one thread, N x K = 3072 x 1024, 1 row): 0.33 of the read bandwidth. */
#include "kernels/dense_driver.h"
#include "kernels/nvfp4_pack.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

/* Value of the code at bits [shift, shift + 4) of each lane. */
INLINE __m256 decode(__m256i codes, int shift)
{
    const __m256 table = _mm256_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f);
    const __m256 magnitude = _mm256_permutevar8x32_ps(table, _mm256_srli_epi32(codes, shift));
    const __m256 sign = _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28 - shift));
    return _mm256_or_ps(magnitude, _mm256_and_ps(sign, _mm256_set1_ps(-0.0f)));
}

INLINE int code_shift_w4a16_avx2(unsigned k)
{
    return (int)(8 * (k % 4) + 4 * (k % 8 / 4));
}

/* Eight scale bytes. Subnormal ones (m/8 * 2^-6) are made as (1 + m/8) * 2^-6 - 2^-6, exactly. */
INLINE __m256 load_scales_w4a16_avx2(const uint8_t *bytes)
{
    const __m256i code = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)bytes));
    const __m256i subnormal = _mm256_cmpgt_epi32(_mm256_set1_epi32(8), code);
    const __m256i normal = _mm256_add_epi32(code, _mm256_and_si256(subnormal, _mm256_set1_epi32(8)));
    const __m256 value =
        _mm256_castsi256_ps(_mm256_add_epi32(_mm256_slli_epi32(normal, 20), _mm256_set1_epi32(120 << 23)));
    return _mm256_sub_ps(value, _mm256_and_ps(_mm256_castsi256_ps(subnormal), _mm256_set1_ps(0x1p-6f)));
}

INLINE __m256i load_codes(const uint8_t *cell, unsigned k, size_t part)
{
    return _mm256_loadu_si256((const void *)(cell + 128 * (k / 8) + 32 * part));
}

static void expand_w4a16_avx2(const void *weights, size_t panel, size_t k0, size_t kc, float *b)
{
    const mq_nvfp4 *w = weights;
    const uint8_t *cell = mq__nvfp4_panel(w, panel) + k0 / MQ_NVFP4_BLOCK * MQ_NVFP4_CELL;
    for (size_t k = 0; k < kc; k += MQ_NVFP4_BLOCK, cell += MQ_NVFP4_CELL) {
        const unsigned width = kc - k < MQ_NVFP4_BLOCK ? (unsigned)(kc - k) : MQ_NVFP4_BLOCK;
        for (size_t part = 0; part < 4; part++) {
            const __m256 scale = load_scales_w4a16_avx2(cell + MQ_NVFP4_CELL_SCALES + 8 * part);
            float *to = b + part / 2 * 16 * kc + part % 2 * 8 + k * 16;
#pragma GCC unroll 16
            for (unsigned i = 0; i < MQ_NVFP4_BLOCK; i++) {
                if (i >= width) break;
                const __m256 value = decode(load_codes(cell, i, part), code_shift_w4a16_avx2(i));
                _mm256_store_ps(to + i * 16, _mm256_mul_ps(value, scale));
            }
        }
    }
}

static void gemm_w4a16_avx2(const float *panels, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                            const mq_epilogue *out, void *scratch)
{
    const size_t n1 = p1 * MQ_NVFP4_NR < w->n ? p1 * MQ_NVFP4_NR : w->n;
    const dense_source source = {.core = &mq__dense_core_avx2,
                                 .expand = expand_w4a16_avx2,
                                 .weights = w,
                                 .n = n1,
                                 .k_width = w->k_width,
                                 .row_floats = w->k_width,
                                 .multiplier = w->multiplier};
    mq__dense_run(panels, rows, &source, p0, p1, out, scratch);
}

/* Adds one block (or the first `width` k of it) of two parts (16 features) for R rows to `sum`. */
INLINE void thin_block_w4a16_avx2(const uint8_t *cell, size_t part, const float *x, size_t ldx, unsigned width,
                                  __m256 sum[4][2], const int R)
{
    __m256 dot[4][2];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        dot[r][0] = dot[r][1] = _mm256_setzero_ps();
    }
#pragma GCC unroll 16
    for (unsigned k = 0; k < MQ_NVFP4_BLOCK; k++) {
        if (k >= width) break;
        const __m256 v0 = decode(load_codes(cell, k, part), code_shift_w4a16_avx2(k));
        const __m256 v1 = decode(load_codes(cell, k, part + 1), code_shift_w4a16_avx2(k));
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            const __m256 xv = _mm256_broadcast_ss(x + (size_t)r * ldx + k);
            dot[r][0] = _mm256_fmadd_ps(xv, v0, dot[r][0]);
            dot[r][1] = _mm256_fmadd_ps(xv, v1, dot[r][1]);
        }
    }
    const __m256 s0 = load_scales_w4a16_avx2(cell + MQ_NVFP4_CELL_SCALES + 8 * part);
    const __m256 s1 = load_scales_w4a16_avx2(cell + MQ_NVFP4_CELL_SCALES + 8 * part + 8);
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        sum[r][0] = _mm256_fmadd_ps(dot[r][0], s0, sum[r][0]);
        sum[r][1] = _mm256_fmadd_ps(dot[r][1], s1, sum[r][1]);
    }
}

static void thin_finish_w4a16_avx2(__m256 sum, size_t row, size_t n, const mq_nvfp4 *w, const mq_epilogue *out)
{
    float values[8];
    _mm256_storeu_ps(values, _mm256_mul_ps(sum, _mm256_set1_ps(w->multiplier)));
    for (size_t i = 0; i < 8 && n + i < w->n; i++) {
        finish_output(out, row, n + i, values[i]);
    }
}

/* 16 features from part `part` of a panel, rows [row, row + R). */
INLINE void thin_part(const float *x, size_t ldx, size_t row, const mq_nvfp4 *w, size_t panel, size_t part,
                      const mq_epilogue *out, const int R)
{
    const uint8_t *cell = mq__nvfp4_panel(w, panel);
    const size_t whole = w->k_width / MQ_NVFP4_BLOCK, rest = w->k_width % MQ_NVFP4_BLOCK;
    __m256 sum[4][2];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        sum[r][0] = sum[r][1] = _mm256_setzero_ps();
    }
    x += row * ldx;
    for (size_t b = 0; b < whole; b++, cell += MQ_NVFP4_CELL, x += MQ_NVFP4_BLOCK) {
        thin_block_w4a16_avx2(cell, part, x, ldx, MQ_NVFP4_BLOCK, sum, R);
    }
    if (rest) thin_block_w4a16_avx2(cell, part, x, ldx, (unsigned)rest, sum, R);
    const size_t n = panel * MQ_NVFP4_NR + part * 8;
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        thin_finish_w4a16_avx2(sum[r][0], row + (size_t)r, n, w, out);
        thin_finish_w4a16_avx2(sum[r][1], row + (size_t)r, n + 8, w, out);
    }
}

static void thin_few_w4a16_avx2(const float *x, size_t ldx, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                                const mq_epilogue *out)
{
    for (size_t p = p0; p < p1; p++) {
        size_t row = 0;
        for (; row + 4 <= rows; row += 4) {
            thin_part(x, ldx, row, w, p, 0, out, 4);
            thin_part(x, ldx, row, w, p, 2, out, 4);
        }
        for (; row + 2 <= rows; row += 2) {
            thin_part(x, ldx, row, w, p, 0, out, 2);
            thin_part(x, ldx, row, w, p, 2, out, 2);
        }
        if (row < rows) {
            thin_part(x, ldx, row, w, p, 0, out, 1);
            thin_part(x, ldx, row, w, p, 2, out, 1);
        }
    }
}

/* ------------------------------------------------------------------ many rows */

enum {
    ROWS_FEW = 8,
    ROWS_MOST = MQ_THIN_MOST,
    ROWS_GROUP = 6,  /* rows together: 6 x 2 block sums in registers; their totals wait in the scratch */
    ROWS_BLOCKS = 8, /* blocks decoded together: 16 KiB */
    ROWS_CODES = ROWS_BLOCKS * MQ_NVFP4_BLOCK * MQ_NVFP4_NR,
    ROWS_SCALES = ROWS_BLOCKS * MQ_NVFP4_NR,
};
_Static_assert(ROWS_CODES + ROWS_SCALES + ROWS_MOST * MQ_NVFP4_NR <= DENSE_SCRATCH_FLOATS, "fits the scratch");

/* A slice of a panel as FP32: the codes' values [half][k][16] and the scales [half][block][16]. */
typedef struct decoded {
    float *codes, *scales, *totals; /* totals: [half][row][16], of the slices before */
} decoded;

static void decode_cells_w4a16_avx2(const uint8_t *cell, size_t blocks, const decoded *d)
{
    for (size_t b = 0; b < blocks; b++, cell += MQ_NVFP4_CELL) {
        for (size_t part = 0; part < 4; part++) {
            float *to = d->codes + part / 2 * (ROWS_CODES / 2) + b * MQ_NVFP4_BLOCK * 16 + part % 2 * 8;
#pragma GCC unroll 16
            for (unsigned k = 0; k < MQ_NVFP4_BLOCK; k++) {
                _mm256_store_ps(to + k * 16, decode(load_codes(cell, k, part), code_shift_w4a16_avx2(k)));
            }
            _mm256_store_ps(d->scales + part / 2 * (ROWS_SCALES / 2) + b * 16 + part % 2 * 8,
                            load_scales_w4a16_avx2(cell + MQ_NVFP4_CELL_SCALES + 8 * part));
        }
    }
}

/* Adds k in [0, kc) of a decoded slice to the totals of 16 features for R rows. */
INLINE void add_decoded_w4a16_avx2(const float *x, size_t ldx, size_t kc, const float *codes, const float *scales,
                                   float *totals, const int R)
{
    for (size_t k0 = 0; k0 < kc; k0 += MQ_NVFP4_BLOCK, x += MQ_NVFP4_BLOCK, scales += 16) {
        const size_t width = kc - k0 < MQ_NVFP4_BLOCK ? kc - k0 : MQ_NVFP4_BLOCK;
        __m256 dot[ROWS_GROUP][2];
#pragma GCC unroll 6
        for (int r = 0; r < R; r++) {
            dot[r][0] = dot[r][1] = _mm256_setzero_ps();
        }
        for (size_t k = 0; k < width; k++) {
            const __m256 w0 = _mm256_load_ps(codes + k * 16), w1 = _mm256_load_ps(codes + k * 16 + 8);
#pragma GCC unroll 6
            for (int r = 0; r < R; r++) {
                const __m256 xv = _mm256_broadcast_ss(x + (size_t)r * ldx + k);
                dot[r][0] = _mm256_fmadd_ps(xv, w0, dot[r][0]);
                dot[r][1] = _mm256_fmadd_ps(xv, w1, dot[r][1]);
            }
        }
        codes += MQ_NVFP4_BLOCK * 16;
        const __m256 s0 = _mm256_load_ps(scales), s1 = _mm256_load_ps(scales + 8);
#pragma GCC unroll 6
        for (int r = 0; r < R; r++) {
            float *total = totals + r * 16;
            _mm256_store_ps(total, _mm256_fmadd_ps(dot[r][0], s0, _mm256_load_ps(total)));
            _mm256_store_ps(total + 8, _mm256_fmadd_ps(dot[r][1], s1, _mm256_load_ps(total + 8)));
        }
    }
}

static void add_group_w4a16_avx2(const float *x, size_t ldx, size_t rows, size_t kc, const decoded *d, size_t half,
                                 float *totals)
{
    const float *codes = d->codes + half * (ROWS_CODES / 2), *scales = d->scales + half * (ROWS_SCALES / 2);
    switch (rows) {
    case 4:
        add_decoded_w4a16_avx2(x, ldx, kc, codes, scales, totals, 4);
        break;
    case 5:
        add_decoded_w4a16_avx2(x, ldx, kc, codes, scales, totals, 5);
        break;
    case 6:
        add_decoded_w4a16_avx2(x, ldx, kc, codes, scales, totals, 6);
        break;
    }
}

/* 9 to ROWS_MOST rows of a panel, in groups of 4 to ROWS_GROUP whose sizes differ by one at most. */
static void thin_many_w4a16_avx2(const float *x, size_t ldx, size_t rows, const mq_nvfp4 *w, size_t panel,
                                 const mq_epilogue *out, const decoded *d)
{
    const uint8_t *cells = mq__nvfp4_panel(w, panel);
    const size_t groups = (rows + ROWS_GROUP - 1) / ROWS_GROUP, slice = ROWS_BLOCKS * MQ_NVFP4_BLOCK;
    memset(d->totals, 0, rows * MQ_NVFP4_NR * sizeof(float));
    for (size_t k0 = 0; k0 < w->k_width; k0 += slice) {
        const size_t kc = w->k_width - k0 < slice ? w->k_width - k0 : slice;
        decode_cells_w4a16_avx2(cells + k0 / MQ_NVFP4_BLOCK * MQ_NVFP4_CELL, (kc + MQ_NVFP4_BLOCK - 1) / MQ_NVFP4_BLOCK,
                                d);
        for (size_t g = 0; g < groups; g++) {
            const size_t row = rows * g / groups, count = rows * (g + 1) / groups - row;
            for (size_t half = 0; half < 2; half++) {
                add_group_w4a16_avx2(x + row * ldx + k0, ldx, count, kc, d, half, d->totals + (half * rows + row) * 16);
            }
        }
    }
    for (size_t r = 0; r < 2 * rows; r++) {
        const size_t n = panel * MQ_NVFP4_NR + r / rows * 16;
        thin_finish_w4a16_avx2(_mm256_load_ps(d->totals + r * 16), r % rows, n, w, out);
        thin_finish_w4a16_avx2(_mm256_load_ps(d->totals + r * 16 + 8), r % rows, n + 8, w, out);
    }
}

static void thin_w4a16_avx2(const float *x, size_t ldx, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                            const mq_epilogue *out, void *scratch)
{
    if (rows <= ROWS_FEW) {
        thin_few_w4a16_avx2(x, ldx, rows, w, p0, p1, out);
        return;
    }
    float *memory = scratch;
    const decoded d = {memory, memory + ROWS_CODES, memory + ROWS_CODES + ROWS_SCALES};
    const size_t passes = (rows + ROWS_MOST - 1) / ROWS_MOST;
    for (size_t i = 0; i < passes; i++) {
        const size_t row = rows * i / passes, count = rows * (i + 1) / passes - row;
        mq_epilogue part = *out;
        part.y += row * part.ldy;
        for (size_t p = p0; p < p1; p++) {
            thin_many_w4a16_avx2(x + row * ldx, ldx, count, w, p, &part, &d);
        }
    }
}

void mq__fill_avx2_w4a16(mq_kernels *table)
{
    table->w4a16_gemm = gemm_w4a16_avx2;
    table->w4a16_thin = thin_w4a16_avx2;
}
