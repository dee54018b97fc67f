/* The softmax of a tile of scores on AVX-512, and transposing what comes from the cache. Included once by a file that has defined
 * enum { MR, NR, LANES = 16, TILE } and PER_LANE (kernels/attention_tiles.h). */
#ifndef MQ_ATTENTION_SOFTMAX_AVX512_H
#define MQ_ATTENTION_SOFTMAX_AVX512_H

#include "kernels/avx512/attention_avx512.h"

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
    for (size_t r = 0; r < MR; r += 16)
        _mm512_store_ps(state->correction + r, exp2_16(_mm512_load_ps(state->correction + r)));
}

#endif
