/* What the prefill kernels of AVX-512 share whatever their products are made of: the sizes and both products. Included once by a file
 * that has defined
 *     tile_multiply_add(sum, x, b)     sum + x * b on 16 lanes of 32 bits
 *     enum { PER_LANE };          values that a lane holds: 1 (FP32) or 2 (pairs of BF16, along the summed index)
 * and then defines the rest of kernels/attention_tiles.h. */
#ifndef MQ_ATTENTION_PRODUCTS_AVX512_H
#define MQ_ATTENTION_PRODUCTS_AVX512_H

enum { MR = 14, NR = 32, LANES = 16, TILE = 256 };

#include "kernels/avx512/attention_softmax_avx512.h"

/* acc [14][32] += a [14][k] * b [k][32], k in lanes' worths; a's element (r, i) lies at r*row_step + i*k_step. */
static inline __attribute__((always_inline)) void
multiply_products_avx512(const float *a, size_t row_step, size_t k_step, const float *b, size_t k, __m512 acc[MR][2])
{
    enum { AHEAD = 16 }; /* panel rows: the panels come from L2 */
#pragma GCC unroll 4
    for (size_t i = 0; i < k; i++, a += k_step, b += NR) {
        const __m512 b0 = _mm512_load_ps(b), b1 = _mm512_load_ps(b + 16);
        _mm_prefetch((const char *)(b + AHEAD * NR), _MM_HINT_T0);
        _mm_prefetch((const char *)(b + AHEAD * NR + 16), _MM_HINT_T0);
#pragma GCC unroll 14
        for (size_t r = 0; r < MR; r++) {
            const __m512 x = _mm512_set1_ps(a[r * row_step]);
            acc[r][0] = tile_multiply_add(acc[r][0], x, b0);
            acc[r][1] = tile_multiply_add(acc[r][1], x, b1);
        }
    }
}

static void tile_score(const float *q, const float *keys, size_t width, size_t count, float *s)
{
    for (size_t column = 0; column < count; column += NR) {
        __m512 acc[MR][2];
#pragma GCC unroll 14
        for (size_t r = 0; r < MR; r++) {
            acc[r][0] = acc[r][1] = _mm512_setzero_ps();
        }
        multiply_products_avx512(q, 1, MR, keys + column * (width / PER_LANE), width / PER_LANE, acc);
#pragma GCC unroll 14
        for (size_t r = 0; r < MR; r++) {
            _mm512_store_ps(s + r * TILE + column, acc[r][0]);
            _mm512_store_ps(s + r * TILE + column + 16, acc[r][1]);
        }
    }
}

static void tile_weigh(const float *s, const float *values, const block_state *state, size_t panels, size_t count,
                       float *o)
{
    for (size_t panel = 0; panel < panels; panel++, o += MR * NR, values += TILE / PER_LANE * NR) {
        __m512 acc[MR][2];
#pragma GCC unroll 14
        for (size_t r = 0; r < MR; r++) {
            const __m512 correction = _mm512_set1_ps(state->correction[r]);
            acc[r][0] = _mm512_mul_ps(_mm512_load_ps(o + r * NR), correction);
            acc[r][1] = _mm512_mul_ps(_mm512_load_ps(o + r * NR + 16), correction);
        }
        multiply_products_avx512(s, TILE, 1, values, (count + PER_LANE - 1) / PER_LANE, acc);
#pragma GCC unroll 14
        for (size_t r = 0; r < MR; r++) {
            _mm512_store_ps(o + r * NR, acc[r][0]);
            _mm512_store_ps(o + r * NR + 16, acc[r][1]);
        }
    }
}

#endif
