/* The 14 x 32 tile of the dense GEMMs: FP32 (dense_tile_avx512.c) and BF16 pairs (bf16_gemm_avx512bf16.c). The file that
 * includes it has defined gemm_multiply_add(sum, x, b), sum + x * b on 16 lanes of 32 bits, and instantiates DENSE_TILES. */
#ifndef MQ_DENSE_TILE_AVX512_H
#define MQ_DENSE_TILE_AVX512_H

#include "kernels/dense_driver.h"

#include <immintrin.h>

#define MR MQ_DENSE_MR

typedef __m512 tile_sums[MR][2];

INLINE void prefetch(const void *line)
{
    _mm_prefetch(line, _MM_HINT_T0);
}

/* y = sum * multiplier (+ bias) (+ y) */
INLINE void finish_dense_tile_avx512(const dense_step *step, tile_sums sum, const int R)
{
    const mq_epilogue *out = step->finish;
    const __m512 scale = _mm512_set1_ps(step->multiplier);
    const __mmask32 mask = (__mmask32)(0xFFFFFFFFu >> (32 - step->features));
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        const __mmask16 m = (__mmask16)(h ? mask >> 16 : mask);
        const __m512 bias = out->bias ? _mm512_maskz_loadu_ps(m, out->bias + h * 16) : _mm512_setzero_ps();
#pragma GCC unroll 14
        for (int r = 0; r < R; r++) {
            float *y = out->y + (size_t)r * out->ldy + h * 16;
            __m512 value = _mm512_mul_ps(sum[r][h], scale);
            if (out->bias) value = _mm512_add_ps(value, bias);
            if (out->accumulate) value = _mm512_add_ps(_mm512_maskz_loadu_ps(m, y), value);
            _mm512_mask_storeu_ps(y, m, value);
        }
    }
}

INLINE void tile_dense_avx512(const dense_step *step, const int R)
{
    enum { CHUNK = 16 };
    const float *a = step->a, *b = step->b;
    float *c = step->c;
    tile_sums sum;
#pragma GCC unroll 14
    for (int r = 0; r < R; r++) {
        sum[r][0] = step->first ? _mm512_setzero_ps() : _mm512_load_ps(c + r * DENSE_NR);
        sum[r][1] = step->first ? _mm512_setzero_ps() : _mm512_load_ps(c + r * DENSE_NR + 16);
    }
    for (size_t k = 0; k < step->kc; k += CHUNK) {
        const size_t row = k / CHUNK;
        prefetch(step->ahead + 2 * k); /* the same line twice */
#pragma GCC unroll 4
        for (size_t i = 0; i < DENSE_AHEAD; i++) {
            _mm_prefetch(step->next_a + (row * DENSE_AHEAD + i) * 64, _MM_HINT_T1);
        }
        if (row < MR) { /* sums of the next tile */
            prefetch(c + DENSE_TILE + row * DENSE_NR);
            prefetch(c + DENSE_TILE + row * DENSE_NR + 16);
        }
        if (step->finish && row < (size_t)R) {
            prefetch(step->finish->y + row * step->finish->ldy);
            prefetch(step->finish->y + row * step->finish->ldy + 16);
        }
        const float *end = b + (step->kc - k < CHUNK ? step->kc - k : CHUNK) * DENSE_NR;
#pragma GCC unroll 4
        while (b < end) {
            const __m512 b0 = _mm512_load_ps(b), b1 = _mm512_load_ps(b + 16);
#pragma GCC unroll 14
            for (int r = 0; r < R; r++) {
                const __m512 x = _mm512_set1_ps(a[r]);
                sum[r][0] = gemm_multiply_add(sum[r][0], x, b0);
                sum[r][1] = gemm_multiply_add(sum[r][1], x, b1);
            }
            a += MR;
            b += DENSE_NR;
        }
    }
    if (step->finish) {
        finish_dense_tile_avx512(step, sum, R);
        return;
    }
#pragma GCC unroll 14
    for (int r = 0; r < R; r++) {
        _mm512_store_ps(c + r * DENSE_NR, sum[r][0]);
        _mm512_store_ps(c + r * DENSE_NR + 16, sum[r][1]);
    }
}

/* clang-format off */
#define DENSE_TILE_OF(rows) static void tile_##rows(const dense_step *step) { tile_dense_avx512(step, rows); }
#define DENSE_TILES \
    DENSE_TILE_OF(1) DENSE_TILE_OF(2) DENSE_TILE_OF(3) DENSE_TILE_OF(4) DENSE_TILE_OF(5) DENSE_TILE_OF(6) \
    DENSE_TILE_OF(7) DENSE_TILE_OF(8) DENSE_TILE_OF(9) DENSE_TILE_OF(10) DENSE_TILE_OF(11) DENSE_TILE_OF(12) \
    DENSE_TILE_OF(13) DENSE_TILE_OF(14)
#define DENSE_TILE_LIST \
    {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6, tile_7, tile_8, tile_9, tile_10, tile_11, tile_12, tile_13, tile_14}
/* clang-format on */

#endif
