/* Thin dense products of the AVX-512 level: 1 to 8 rows of activations, weights streamed once. */
#include "kernels/dense_common.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

INLINE __m512 load_weights(const void *w, mq_dense_type type, size_t at)
{
    if (type == MQ_DENSE_F32) return _mm512_loadu_ps((const float *)w + at);
    const __m256i half = _mm256_loadu_si256((const void *)((const uint16_t *)w + at));
    if (type == MQ_DENSE_F16) return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

INLINE __m512 load_weights_masked(const void *w, mq_dense_type type, size_t at, __mmask16 mask)
{
    if (type == MQ_DENSE_F32) return _mm512_maskz_loadu_ps(mask, (const float *)w + at);
    const __m256i half = _mm256_maskz_loadu_epi16(mask, (const uint16_t *)w + at);
    if (type == MQ_DENSE_F16) return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* Lanes pairwise: 8+8, 4+4, 2+2, 1+1. */
INLINE float sum_lanes(__m512 v)
{
    const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

/* W features from n, R rows. */
INLINE void thin_tile(const float *x, size_t ldx, const mq_dense *w, size_t n, const mq_epilogue *out,
                      const mq_dense_type type, const int W, const int R)
{
    const size_t k_width = w->k_width, at = n * k_width;
    __m512 sum[4][8];
#pragma GCC unroll 4
    for (int i = 0; i < W; i++) {
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            sum[i][r] = _mm512_setzero_ps();
        }
    }
    size_t k = 0;
    for (; k + 16 <= k_width; k += 16) {
        __m512 wv[4];
#pragma GCC unroll 4
        for (int i = 0; i < W; i++) {
            wv[i] = load_weights(w->data, type, at + (size_t)i * k_width + k);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            const __m512 xv = _mm512_loadu_ps(x + (size_t)r * ldx + k);
#pragma GCC unroll 4
            for (int i = 0; i < W; i++) {
                sum[i][r] = _mm512_fmadd_ps(xv, wv[i], sum[i][r]);
            }
        }
    }
    if (k < k_width) { /* lanes past the end keep their sums */
        const __mmask16 mask = (__mmask16)((1u << (k_width - k)) - 1);
#pragma GCC unroll 4
        for (int i = 0; i < W; i++) {
            const __m512 wv = load_weights_masked(w->data, type, at + (size_t)i * k_width + k, mask);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                const __m512 xv = _mm512_maskz_loadu_ps(mask, x + (size_t)r * ldx + k);
                sum[i][r] = _mm512_mask3_fmadd_ps(xv, wv, sum[i][r], mask);
            }
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < W; i++) {
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            finish_output(out, (size_t)r, n + (size_t)i, sum_lanes(sum[i][r]));
        }
    }
}

INLINE void thin_rows(const float *x, size_t ldx, const mq_dense *w, size_t n0, size_t n1, const mq_epilogue *out,
                      const mq_dense_type type, const int W, const int R)
{
    size_t n = n0;
    for (; n + (size_t)W <= n1; n += (size_t)W) {
        thin_tile(x, ldx, w, n, out, type, W, R);
    }
    for (; n < n1; n++) {
        thin_tile(x, ldx, w, n, out, type, 1, R);
    }
}

INLINE void thin_typed(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                       const mq_epilogue *out, const mq_dense_type type)
{
    switch (rows) {
    case 1:
        thin_rows(x, ldx, w, n0, n1, out, type, 4, 1);
        break;
    case 2:
        thin_rows(x, ldx, w, n0, n1, out, type, 4, 2);
        break;
    case 3:
        thin_rows(x, ldx, w, n0, n1, out, type, 4, 3);
        break;
    case 4:
        thin_rows(x, ldx, w, n0, n1, out, type, 4, 4);
        break;
    case 5:
        thin_rows(x, ldx, w, n0, n1, out, type, 2, 5);
        break;
    case 6:
        thin_rows(x, ldx, w, n0, n1, out, type, 2, 6);
        break;
    case 7:
        thin_rows(x, ldx, w, n0, n1, out, type, 2, 7);
        break;
    default:
        thin_rows(x, ldx, w, n0, n1, out, type, 2, 8);
        break;
    }
}

static void thin(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                 const mq_epilogue *out)
{
    if (w->type == MQ_DENSE_BF16) {
        thin_typed(x, ldx, rows, w, n0, n1, out, MQ_DENSE_BF16);
    } else if (w->type == MQ_DENSE_F16) {
        thin_typed(x, ldx, rows, w, n0, n1, out, MQ_DENSE_F16);
    } else {
        thin_typed(x, ldx, rows, w, n0, n1, out, MQ_DENSE_F32);
    }
}

void mq__fill_avx512_thin(mq_kernels *table)
{
    table->dense_thin = thin;
}
