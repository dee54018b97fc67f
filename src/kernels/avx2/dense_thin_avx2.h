/* What the thin dense products of the AVX2 level share. */
#ifndef MQ_KERNELS_DENSE_THIN_AVX2_H
#define MQ_KERNELS_DENSE_THIN_AVX2_H

#include "kernels/dense_common.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

enum { THIN_FEW = 8 }; /* rows above which mq__dense_thin_rows_avx2 is the faster way */

/* Weights [at, at + 8). */
INLINE __m256 load_weights_dense_avx2(const void *w, mq_dense_type type, size_t at)
{
    if (type == MQ_DENSE_F32) return _mm256_loadu_ps((const float *)w + at);
    const __m128i half = _mm_loadu_si128((const void *)((const uint16_t *)w + at));
    if (type == MQ_DENSE_F16) return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* Lanes of two registers (0..7, 8..15) pairwise: 8+8, 4+4, 2+2, 1+1. */
INLINE float sum_lanes_dense_avx2(__m256 low, __m256 high)
{
    const __m256 a = _mm256_add_ps(low, high);
    const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

/* More than THIN_FEW rows; scratch as the slot's. */
void mq__dense_thin_rows_avx2(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                              const mq_epilogue *out, void *scratch);

#endif
