/* Keys, values and softmax weights as pairs of BF16, for kernels/attention_tiles.h with PER_LANE = 2: keys [TILE/NR][pairs of
 * width][NR], values [panels][TILE/2][NR] pairs of keys. Included by a file that has defined tile_weight(score), 2^score of scores less
 * their row's maximum. */
#ifndef MQ_ATTENTION_PAIRS_AVX512BF16_H
#define MQ_ATTENTION_PAIRS_AVX512BF16_H

static void tile_widen_keys(const uint16_t *rows, size_t width, size_t count, size_t column, float *keys)
{
    float *to = keys + column / NR * NR * (width / 2) + column % NR;
    for (size_t pair = 0; pair < width / 2; pair += 16) {
        const size_t pairs = width / 2 - pair < 16 ? width / 2 - pair : 16;
        __m512i v[16];
        load_transposed(rows, width, count, pair, v);
#pragma GCC unroll 16
        for (size_t i = 0; i < 16; i++) {
            if (i < pairs) _mm512_store_si512(to + (pair + i) * NR, v[i]);
        }
    }
}

/* Two rows become one of pairs; the last of an odd count is paired with zeros. */
static inline void widen_value_pairs(const uint16_t *rows, size_t width, size_t count, size_t key, float *values)
{
    for (size_t c = 0; c < width; c += NR) {
        float *to = values + c * (TILE / 2) + key / 2 * NR;
        for (size_t half = 0; half < 2 && c + half * 16 < width; half++) {
            const __mmask16 mask = first_lanes_products_avx512(width - c - half * 16);
            const uint16_t *from = rows + c + half * 16;
            for (size_t r = 0; r < count; r += 2) {
                const __m512i a = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from + r * width));
                const __m512i b = r + 1 < count
                                      ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from + (r + 1) * width))
                                      : _mm512_setzero_si512();
                const __m512i pairs = _mm512_or_si512(a, _mm512_slli_epi32(b, 16));
                _mm512_store_si512(to + r / 2 * NR + half * 16, pairs);
            }
        }
    }
}

/* The weights replace the front of their row of scores: 32 scores are read before their 32 weights are written. */
static void tile_soften(float *s, block_state *state, size_t key0, size_t count)
{
    find_maxima(s, state, key0, count);
    for (size_t r = 0; r < MR; r++) {
        const __m512 max = _mm512_set1_ps(state->max[r]);
        __m512 sum = _mm512_mul_ps(_mm512_load_ps(state->sum + r * LANES), _mm512_set1_ps(state->correction[r]));
        float *row = s + r * TILE;
        for (size_t i = 0; i < count; i += 32) {
            const __m512 a = tile_weight(_mm512_sub_ps(_mm512_load_ps(row + i), max));
            const bool more = i + 16 < count;
            const __m512 b = more ? tile_weight(_mm512_sub_ps(_mm512_load_ps(row + i + 16), max)) : _mm512_setzero_ps();
            _mm512_store_si512(row + i / 2, (__m512i)_mm512_cvtne2ps_pbh(b, a));
            sum = _mm512_add_ps(sum, _mm512_add_ps(a, b));
        }
        _mm512_store_ps(state->sum + r * LANES, sum);
    }
}

#endif
