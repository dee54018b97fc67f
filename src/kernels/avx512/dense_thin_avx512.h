/* What the thin dense products of the AVX-512 level share: widened weights, tiles of sums, and their end. */
#ifndef MQ_KERNELS_DENSE_THIN_AVX512_H
#define MQ_KERNELS_DENSE_THIN_AVX512_H

#include "kernels/dense_common.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

/* Rows and features whose sums are in registers together, at most. */
enum { THIN_GROUP = 8, THIN_FEATURES = 6 };

typedef __m512 thin_sums[THIN_FEATURES][THIN_GROUP];

/* 16 bf16 as FP32: each goes to the upper half of a lane. One operation, where widening and shifting are two. */
INLINE __m512 widen_bf16_dense_avx512(__m256i half)
{
    const __m512i from = _mm512_set_epi16(15, 0, 14, 0, 13, 0, 12, 0, 11, 0, 10, 0, 9, 0, 8, 0, 7, 0, 6, 0, 5, 0, 4, 0,
                                          3, 0, 2, 0, 1, 0, 0, 0);
    return _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, from, _mm512_castsi256_si512(half)));
}

INLINE __m512 load_weights_dense_avx512(const void *w, mq_dense_type type, size_t at)
{
    if (type == MQ_DENSE_F32) return _mm512_loadu_ps((const float *)w + at);
    const __m256i half = _mm256_loadu_si256((const void *)((const uint16_t *)w + at));
    if (type == MQ_DENSE_F16) return _mm512_cvtph_ps(half);
    return widen_bf16_dense_avx512(half);
}

INLINE __m512 load_weights_masked(const void *w, mq_dense_type type, size_t at, __mmask16 mask)
{
    if (type == MQ_DENSE_F32) return _mm512_maskz_loadu_ps(mask, (const float *)w + at);
    const __m256i half = _mm256_maskz_loadu_epi16(mask, (const uint16_t *)w + at);
    if (type == MQ_DENSE_F16) return _mm512_cvtph_ps(half);
    return widen_bf16_dense_avx512(half);
}

/* sum += x * w. With the intrinsic gcc loads x anew for each feature, and moves sums from register to register. */
INLINE void add_product(__m512 *sum, __m512 x, __m512 w)
{
    __asm__("vfmadd231ps %2, %1, %0" : "+v"(*sum) : "v"(x), "v"(w));
}

/* The lanes of four registers, each summed pairwise: 8+8, 4+4, 2+2, 1+1. */
INLINE void sum_lanes_dense_avx512(__m512 a, __m512 b, __m512 c, __m512 d, float sums[4])
{
    const __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    const __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    __m512 v = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    v = _mm512_add_ps(v, _mm512_permute_ps(v, 0x4e));
    v = _mm512_add_ps(v, _mm512_permute_ps(v, 0xb1));
    const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm_storeu_ps(sums, _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, v)));
}

INLINE void zero_sums(thin_sums sum, const int W, const int R)
{
#pragma GCC unroll 6
    for (int i = 0; i < W; i++) {
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            sum[i][r] = _mm512_setzero_ps();
        }
    }
}

INLINE void copy_sums(thin_sums to, thin_sums from, const int W, const int R)
{
#pragma GCC unroll 6
    for (int i = 0; i < W; i++) {
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            to[i][r] = from[i][r];
        }
    }
}

/* Outputs of features n, n + apart, ... (W of them). */
INLINE void thin_finish_dense_avx512(const mq_epilogue *out, size_t n, size_t apart, thin_sums sum, const int W,
                                     const int R)
{
    const __m512 none = _mm512_setzero_ps();
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        float y[8];
        sum_lanes_dense_avx512(sum[0][r], W > 1 ? sum[1][r] : none, W > 2 ? sum[2][r] : none, W > 3 ? sum[3][r] : none,
                               y);
        if (W > 4) sum_lanes_dense_avx512(sum[4][r], W > 5 ? sum[5][r] : none, none, none, y + 4);
#pragma GCC unroll 6
        for (int i = 0; i < W; i++) {
            finish_output(out, (size_t)r, n + (size_t)i * apart, y[i]);
        }
    }
}

/* More than THIN_GROUP rows; scratch as the slot's. */
void mq__dense_thin_rows_avx512(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                                const mq_epilogue *out, void *scratch);

#endif
