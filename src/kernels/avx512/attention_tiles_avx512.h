/* The FP32 tile functions of kernels/attention_tiles.h on AVX-512, for the two prefill kernels of this level. The arithmetic
 * and its measurements are described in attention_prefill_avx512.c. */
#ifndef MQ_ATTENTION_TILES_AVX512_H
#define MQ_ATTENTION_TILES_AVX512_H

#include <immintrin.h>

enum { PER_LANE = 1 };

static inline __m512 tile_multiply_add(__m512 sum, __m512 x, __m512 b)
{
    return _mm512_fmadd_ps(x, b, sum);
}

#include "kernels/avx512/attention_products_avx512.h"

static inline __attribute__((always_inline)) void widen_block(const uint16_t *rows, size_t width, size_t count,
                                                              float *to)
{
    for (size_t pair = 0; pair < width / 2; pair += 16) {
        const size_t pairs = width / 2 - pair < 16 ? width / 2 - pair : 16;
        __m512i v[16];
        load_transposed(rows, width, count, pair, v);
#pragma GCC unroll 16
        for (size_t i = 0; i < 16; i++) {
            if (i < pairs) {
                _mm512_store_ps(to + (2 * pair + 2 * i) * NR, low_bf16_attention_avx512(v[i]));
                _mm512_store_ps(to + (2 * pair + 2 * i + 1) * NR, high_bf16_attention_avx512(v[i]));
            }
        }
    }
}

static void tile_widen_keys(const uint16_t *rows, size_t width, size_t count, size_t column, float *keys)
{
    float *to = keys + column / NR * NR * width + column % NR;
    if (count == 16) {
        widen_block(rows, width, 16, to);
    } else {
        widen_block(rows, width, count, to);
    }
}

static void tile_widen_values(const uint16_t *rows, size_t width, size_t count, size_t key, float *values)
{
    for (size_t c = 0; c < width; c += NR) {
        const __mmask16 low = first_lanes_products_avx512(width - c),
                        high = width - c > 16 ? first_lanes_products_avx512(width - c - 16) : 0;
        float *to = values + c * TILE + key * NR;
        const uint16_t *from = rows + c;
        for (size_t r = 0; r < count; r++, to += NR, from += width) {
            const __m512i a = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(low, from));
            const __m512i b = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(high, from + 16));
            _mm512_store_epi32(to, _mm512_slli_epi32(a, 16));
            _mm512_store_epi32(to + 16, _mm512_slli_epi32(b, 16));
        }
    }
}

/* 16 columns of 14 rows per transposition; two zero rows complete the square. */
static void tile_pack(const float *const rows[MR], size_t width, float scale, float *q)
{
    const __m512 factor = _mm512_set1_ps(scale);
    for (size_t c = 0; c < width; c += 16) {
        const __mmask16 mask = first_lanes_products_avx512(width - c);
        __m512i v[16];
#pragma GCC unroll 16
        for (size_t r = 0; r < 16; r++) {
            const bool live = r < MR && rows[r];
            v[r] = live ? _mm512_castps_si512(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, rows[r] + c), factor))
                        : _mm512_setzero_si512();
        }
        transpose_16x16(v);
#pragma GCC unroll 16
        for (size_t i = 0; i < 16; i++) {
            if (c + i < width) {
                _mm512_mask_storeu_epi32(q + (c + i) * MR, 0x3fff, v[i]);
            }
        }
    }
}

static void tile_soften(float *s, block_state *state, size_t key0, size_t count)
{
    find_maxima(s, state, key0, count);
    for (size_t r = 0; r < MR; r++) {
        const __m512 max = _mm512_set1_ps(state->max[r]);
        __m512 sum = _mm512_mul_ps(_mm512_load_ps(state->sum + r * LANES), _mm512_set1_ps(state->correction[r]));
        for (size_t i = 0; i < count; i += 16) {
            const __m512 p = exp2_16(_mm512_sub_ps(_mm512_load_ps(s + r * TILE + i), max));
            _mm512_store_ps(s + r * TILE + i, p);
            sum = _mm512_add_ps(sum, p);
        }
        _mm512_store_ps(state->sum + r * LANES, sum);
    }
}

#endif
