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
#include "kernels/avx512/attention_avx512.h"
#include "kernels/table.h"

enum { MR = 14, NR = 32, LANES = 16, TILE = 256 };

#include "kernels/attention_tiles.h"
#include "kernels/avx512/attention_softmax_avx512.h"

#define INLINE static inline __attribute__((always_inline))

/* BF16 pairs are kept in float storage; as 32-bit integers they are moved unchanged. */
INLINE __m512i pair_vector(const float *at)
{
    return _mm512_load_si512(at);
}

INLINE __m512i pair_broadcast(const float *at)
{
    int pair;
    memcpy(&pair, at, sizeof pair);
    return _mm512_set1_epi32(pair);
}

static void widen_keys(const uint16_t *rows, size_t width, size_t count, size_t column, float *keys)
{
    float *to = keys + column / NR * NR * (width / 2) + column % NR;
    for (size_t pair = 0; pair < width / 2; pair += 16) {
        const size_t pairs = width / 2 - pair < 16 ? width / 2 - pair : 16;
        const __mmask16 mask = first_lanes(pairs);
        __m512i v[16];
#pragma GCC unroll 16
        for (size_t r = 0; r < 16; r++) {
            v[r] = r < count ? _mm512_maskz_loadu_epi32(mask, rows + r * width + 2 * pair) : _mm512_setzero_si512();
        }
        transpose_16x16(v);
#pragma GCC unroll 16
        for (size_t i = 0; i < 16; i++) {
            if (i < pairs) _mm512_store_si512(to + (pair + i) * NR, v[i]);
        }
    }
}

/* Two rows become one of pairs; the last of an odd count is paired with zeros. */
static void widen_values(const uint16_t *rows, size_t width, size_t count, size_t key, float *values)
{
    const __m512i low_halves = _mm512_set1_epi32(0xffff);
    for (size_t c = 0; c < width; c += NR) {
        float *to = values + c * (TILE / 2) + key / 2 * NR;
        for (size_t half = 0; half < 2 && c + half * 16 < width; half++) {
            const __mmask16 mask = first_lanes(width - c - half * 16);
            const uint16_t *from = rows + c + half * 16;
            for (size_t r = 0; r < count; r += 2) {
                const __m512i a = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from + r * width));
                const __m512i b = r + 1 < count
                                      ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from + (r + 1) * width))
                                      : _mm512_setzero_si512();
                const __m512i pairs = _mm512_or_si512(_mm512_and_si512(a, low_halves), _mm512_slli_epi32(b, 16));
                _mm512_store_si512(to + r / 2 * NR + half * 16, pairs);
            }
        }
    }
}

/* 16 pairs of 14 rows per transposition; two zero rows complete the square. */
static void pack(const float *const rows[MR], size_t width, float scale, float *q)
{
    const __m512 factor = _mm512_set1_ps(scale);
    for (size_t c = 0; c < width; c += 32) {
        const __mmask16 low = first_lanes(width - c), high = width - c > 16 ? first_lanes(width - c - 16) : 0;
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

/* acc [14][32] += a [14][pairs] * b [pairs][32]; a's pair (r, i) lies at r*row_step + i*pair_step. */
INLINE void multiply(const float *a, size_t row_step, size_t pair_step, const float *b, size_t pairs, __m512 acc[MR][2])
{
    enum { AHEAD = 16 }; /* panel rows: the panels come from L2 */
#pragma GCC unroll 4
    for (size_t i = 0; i < pairs; i++, a += pair_step, b += NR) {
        const __m512bh b0 = (__m512bh)pair_vector(b), b1 = (__m512bh)pair_vector(b + 16);
        _mm_prefetch((const char *)(b + AHEAD * NR), _MM_HINT_T0);
        _mm_prefetch((const char *)(b + AHEAD * NR + 16), _MM_HINT_T0);
#pragma GCC unroll 14
        for (size_t r = 0; r < MR; r++) {
            const __m512bh x = (__m512bh)pair_broadcast(a + r * row_step);
            acc[r][0] = _mm512_dpbf16_ps(acc[r][0], x, b0);
            acc[r][1] = _mm512_dpbf16_ps(acc[r][1], x, b1);
        }
    }
}

static void score(const float *q, const float *keys, size_t width, size_t count, float *s)
{
    for (size_t column = 0; column < count; column += NR) {
        __m512 acc[MR][2];
#pragma GCC unroll 14
        for (size_t r = 0; r < MR; r++) {
            acc[r][0] = acc[r][1] = _mm512_setzero_ps();
        }
        multiply(q, 1, MR, keys + column * (width / 2), width / 2, acc);
#pragma GCC unroll 14
        for (size_t r = 0; r < MR; r++) {
            _mm512_store_ps(s + r * TILE + column, acc[r][0]);
            _mm512_store_ps(s + r * TILE + column + 16, acc[r][1]);
        }
    }
}

/* The weights replace the front of their row of scores: 32 scores are read before their 32 weights are written. */
static void soften(float *s, block_state *state, size_t key0, size_t count)
{
    find_maxima(s, state, key0, count);
    for (size_t r = 0; r < MR; r++) {
        const __m512 max = _mm512_set1_ps(state->max[r]);
        __m512 sum = _mm512_mul_ps(_mm512_load_ps(state->sum + r * LANES), _mm512_set1_ps(state->correction[r]));
        float *row = s + r * TILE;
        for (size_t i = 0; i < count; i += 32) {
            const __m512 a = exp2_16(_mm512_sub_ps(_mm512_load_ps(row + i), max));
            const bool more = i + 16 < count;
            const __m512 b = more ? exp2_16(_mm512_sub_ps(_mm512_load_ps(row + i + 16), max)) : _mm512_setzero_ps();
            _mm512_store_si512(row + i / 2, (__m512i)_mm512_cvtne2ps_pbh(b, a));
            sum = _mm512_add_ps(sum, _mm512_add_ps(a, b));
        }
        _mm512_store_ps(state->sum + r * LANES, sum);
    }
}

static void weigh(const float *s, const float *values, const block_state *state, size_t panels, size_t count, float *o)
{
    for (size_t panel = 0; panel < panels; panel++, o += MR * NR, values += TILE / 2 * NR) {
        __m512 acc[MR][2];
#pragma GCC unroll 14
        for (size_t r = 0; r < MR; r++) {
            const __m512 correction = _mm512_set1_ps(state->correction[r]);
            acc[r][0] = _mm512_mul_ps(_mm512_load_ps(o + r * NR), correction);
            acc[r][1] = _mm512_mul_ps(_mm512_load_ps(o + r * NR + 16), correction);
        }
        multiply(s, TILE, 1, values, (count + 1) / 2, acc);
#pragma GCC unroll 14
        for (size_t r = 0; r < MR; r++) {
            _mm512_store_ps(o + r * NR, acc[r][0]);
            _mm512_store_ps(o + r * NR + 16, acc[r][1]);
        }
    }
}

void mq__attention_bf16_avx512bf16(const mq_attention *a)
{
    prefill(a);
}

/* Of INT8 attention: the rows' own tile with BF16 products. The queries, which were FP32 until then, are packed anew. */
static void own_tile(const pass *p, size_t own)
{
    load_tile(p, own, p->a->first + p->token0 + p->rows / p->a->heads - own);
    for (size_t b = 0; b < p->blocks; b++) {
        load_queries(p, b);
        run_block(p, b, own);
    }
}

void mq__attention_int8_avx512bf16(const mq_attention *a)
{
    mq__attention_int8_with(a, own_tile);
}
