/* Prefill attention with BF16 products (AVX512_BF16): the tiles of kernels/attention_tiles.h, with pairs of BF16 in the place of
 * floats. What GPUs' FlashAttention does: queries and softmax weights are rounded to BF16, keys and values are BF16 as they lie
 * in the cache, sums and the softmax are FP32.
 *
 * The scratch of the FP32 kernel holds, in half of its room: keys [TILE/NR][pairs of width][NR], values
 * [panels][TILE/2][NR] pairs of keys, queries [pairs of width][MR], weights [MR][TILE/2] (rows TILE floats apart).
 *
 * Throughput at width 128: per 14x16 block of scores 128*14 vdpbf16ps for the two products and about 18*14 vector instructions
 * of softmax, so at most 1.75 times the FP32 FMA peak.
 * Measured (Zen 5 class, one thread, checkasm --bench attention_prefill_bf16, width 128, 2 to 8 heads per kv head): 1.60-1.67 of
 * that peak ending at 2k and 8k, 1.42-1.50 at 32k, 1.47 for the first 512 tokens, where the FP32 kernel reaches 0.82-0.92. */
#include <immintrin.h>

enum { PER_LANE = 2 };

static inline __m512 tile_multiply_add(__m512 sum, __m512 x, __m512 b)
{
    return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)b);
}

#include "kernels/avx512/attention_products_avx512.h"

static inline __m512 tile_weight(__m512 score)
{
    return exp2_16(score);
}

#include "kernels/avx512bf16/attention_pairs_avx512bf16.h"

static void tile_widen_values(const uint16_t *rows, size_t width, size_t count, size_t key, float *values)
{
    widen_value_pairs(rows, width, count, key, values);
}

/* 16 pairs of 14 rows per transposition; two zero rows complete the square. */
static void tile_pack(const float *const rows[MR], size_t width, float scale, float *q)
{
    const __m512 factor = _mm512_set1_ps(scale);
    for (size_t c = 0; c < width; c += 32) {
        const __mmask16 low = first_lanes_products_avx512(width - c),
                        high = width - c > 16 ? first_lanes_products_avx512(width - c - 16) : 0;
        __m512i v[16];
#pragma GCC unroll 16
        for (size_t r = 0; r < 16; r++) {
            v[r] = _mm512_setzero_si512();
            if (r >= MR || !rows[r]) continue;
            const __m512 a = _mm512_mul_ps(_mm512_maskz_loadu_ps(low, rows[r] + c), factor);
            const __m512 b = _mm512_mul_ps(_mm512_maskz_loadu_ps(high, rows[r] + c + 16), factor);
            v[r] = (__m512i)_mm512_cvtne2ps_pbh(b, a);
        }
        transpose_16x16(v);
#pragma GCC unroll 16
        for (size_t i = 0; i < 16; i++) {
            if (c / 2 + i < width / 2) _mm512_mask_storeu_epi32(q + (c / 2 + i) * MR, 0x3fff, v[i]);
        }
    }
}

void mq__attention_bf16_avx512bf16(const mq_attention *a)
{
    prefill_attention_tiles(a);
}

/* Of INT8 attention: the rows' own tile with BF16 products. The queries, which were FP32 until then, are packed anew. */
static void repacked_own_tile(const pass *p, size_t own)
{
    for (size_t b = 0; b < p->blocks; b++) {
        load_queries(p, b);
    }
    own_tile(p, own);
}

void mq__attention_int8_avx512bf16(const mq_attention *a)
{
    mq__attention_int8_with(a, repacked_own_tile);
}
