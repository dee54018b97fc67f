/* What the prefill kernels of AVX-512 share whatever their products are made of: the sizes, both products, the softmax. Included
 * once by a file that has defined
 *     tile_multiply_add(sum, x, b)     sum + x * b on 16 lanes of 32 bits
 *     enum { PER_LANE };          values that a lane holds: 1 (FP32) or 2 (pairs of BF16, along the summed index)
 * and then defines the rest of kernels/attention_tiles.h. */
#ifndef MQ_ATTENTION_PRODUCTS_AVX512_H
#define MQ_ATTENTION_PRODUCTS_AVX512_H

#include "kernels/avx512/attention_avx512.h"

enum { MR = 14, NR = 32, LANES = 16, TILE = 256 };

#include "kernels/attention_tiles.h"

static inline __mmask16 first_lanes_products_avx512(size_t count)
{
    return count >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << count) - 1);
}

/* 16 pairs of columns from `pair` on of rows [0, count), transposed: v[i] is pair + i of 16 rows; absent ones are zero. */
static inline __attribute__((always_inline)) void load_transposed(const uint16_t *rows, size_t width, size_t count,
                                                                  size_t pair, __m512i v[16])
{
    const __mmask16 mask = first_lanes_products_avx512(width / 2 - pair);
#pragma GCC unroll 16
    for (size_t r = 0; r < 16; r++) {
        v[r] = r < count ? _mm512_maskz_loadu_epi32(mask, rows + r * width + 2 * pair) : _mm512_setzero_si512();
    }
    transpose_16x16(v);
}

/* 2^x for x <= 0, within 2e-7; exactly 1 at 0; 0 below -64, where nothing is lost beside the row's maximum of 1 (and for
 * -infinity), so that no denormal number ever arises. */
static inline __m512 exp2_16(__m512 x)
{
    const __m512 magic = _mm512_set1_ps(12582912.0f);
    const __m512 t = _mm512_add_ps(x, magic), r = _mm512_sub_ps(x, _mm512_sub_ps(t, magic));
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(0x1.470bb8p-13f), r, _mm512_set1_ps(0x1.5f72acp-10f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.3b270ep-7f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.c6ae72p-5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.ebfbe2p-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.62e432p-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    const __mmask16 large = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-64.0f), _CMP_GE_OQ);
    return _mm512_castsi512_ps(
        _mm512_maskz_add_epi32(large, _mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(t), 23)));
}

/* Takes keys that a row may not see out of s, and brings the rows' maxima and corrections up to date. */
static inline void find_maxima(float *s, block_state *state, size_t key0, size_t count)
{
    const __m512 none = _mm512_set1_ps(-INFINITY);
    for (size_t r = 0; r < MR; r++) {
        const size_t seen = state->end[r] > key0 ? state->end[r] - key0 : 0, visible = seen < count ? seen : count;
        __m512 max = none;
        size_t i = 0;
        for (; i + 16 <= visible; i += 16) {
            max = _mm512_max_ps(max, _mm512_load_ps(s + r * TILE + i));
        }
        for (; i < count; i += 16) {
            const size_t left = visible > i ? visible - i : 0;
            const __m512 v =
                _mm512_mask_mov_ps(none, first_lanes_products_avx512(left), _mm512_load_ps(s + r * TILE + i));
            _mm512_store_ps(s + r * TILE + i, v);
            max = _mm512_max_ps(max, v);
        }
        const float old = state->max[r], here = _mm512_reduce_max_ps(max);
        state->max[r] = here > old ? here : old;
        state->correction[r] = old - state->max[r];
    }
    _mm512_store_ps(state->correction, exp2_16(_mm512_load_ps(state->correction)));
}

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
