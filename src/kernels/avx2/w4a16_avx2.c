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

INLINE void tile_part(const float *x, size_t ldx, size_t row, const mq_nvfp4 *w, size_t panel, size_t first,
                      const mq_epilogue *out, const int R)
{
    const size_t part = first / 8;
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
    const size_t n = panel * MQ_NVFP4_NR + first;
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        thin_finish_w4a16_avx2(sum[r][0], row + (size_t)r, n, w, out);
        thin_finish_w4a16_avx2(sum[r][1], row + (size_t)r, n + 8, w, out);
    }
}

/* ------------------------------------------------------------------ many rows */

enum { FEW_WIDE = 16, ROWS_GROUP = 6 }; /* 6 x 2 block sums in registers; their totals wait in the scratch */

#include "kernels/w4a16_rows.h"

static void tile_decode(const uint8_t *cell, size_t blocks, float *codes, float *scales)
{
    for (size_t b = 0; b < blocks; b++, cell += MQ_NVFP4_CELL) {
        for (size_t part = 0; part < 4; part++) {
            float *to = codes + part / 2 * CODES_HALF + b * MQ_NVFP4_BLOCK * 16 + part % 2 * 8;
#pragma GCC unroll 16
            for (unsigned k = 0; k < MQ_NVFP4_BLOCK; k++) {
                _mm256_store_ps(to + k * 16, decode(load_codes(cell, k, part), code_shift_w4a16_avx2(k)));
            }
            _mm256_store_ps(scales + part / 2 * SCALES_HALF + b * 16 + part % 2 * 8,
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

static void tile_add(const float *x, size_t ldx, size_t rows, size_t kc, const float *codes, const float *scales,
                     float *totals)
{
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

void mq__fill_avx2_w4a16(mq_kernels *table)
{
    table->w4a16_gemm = gemm_w4a16_avx2;
    table->w4a16_thin = thin_rows_w4a16;
}
