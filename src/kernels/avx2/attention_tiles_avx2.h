/* The FP32 tile functions of kernels/attention_tiles.h on AVX2, for the two prefill kernels of this level. The arithmetic and its
 * measurements are described in attention_prefill_avx2.c. What includes it has set TILE. */
#ifndef MQ_ATTENTION_TILES_AVX2_H
#define MQ_ATTENTION_TILES_AVX2_H

#include "kernels/avx2/attention_avx2.h"

enum { MR = 6, NR = 16, LANES = 8, PER_LANE = 1 };

#include "kernels/attention_tiles.h"

static void tile_widen_keys(const uint16_t *rows, size_t width, size_t count, size_t column, float *keys)
{
    float *to = keys + column / NR * NR * width + column % NR;
    for (size_t part = 0; part < 16; part += 8, to += 8) {
        for (size_t pair = 0; pair < width / 2; pair += 8) {
            const size_t pairs = width / 2 - pair < 8 ? width / 2 - pair : 8;
            const __m256i mask = first_dwords(pairs);
            __m256i v[8];
#pragma GCC unroll 8
            for (size_t r = 0; r < 8; r++) {
                const uint16_t *from = rows + (part + r) * width + 2 * pair;
                v[r] = part + r < count ? _mm256_maskload_epi32((const int *)(const void *)from, mask)
                                        : _mm256_setzero_si256();
            }
            transpose_8x8(v);
#pragma GCC unroll 8
            for (size_t i = 0; i < 8; i++) {
                if (i < pairs) {
                    _mm256_store_ps(to + (2 * pair + 2 * i) * NR, low_bf16_attention_avx2(v[i]));
                    _mm256_store_ps(to + (2 * pair + 2 * i + 1) * NR, high_bf16_attention_avx2(v[i]));
                }
            }
        }
    }
}

static void tile_widen_values(const uint16_t *rows, size_t width, size_t count, size_t key, float *values)
{
    for (size_t c = 0; c < width; c += 8) {
        float *to = values + c / NR * NR * TILE + key * NR + c % NR;
        const uint16_t *from = rows + c;
        if (width - c < 8) { /* the last, cut vector; the rest of its panel is zero */
            for (size_t r = 0; r < count; r++, to += NR, from += width) {
                for (size_t i = 0; i < 8; i++) {
                    const uint32_t bits = c + i < width ? (uint32_t)from[i] << 16 : 0;
                    memcpy(to + i, &bits, sizeof bits);
                }
            }
            break;
        }
        for (size_t r = 0; r < count; r++, to += NR, from += width) {
            const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)from));
            _mm256_store_si256((__m256i *)(void *)to, _mm256_slli_epi32(wide, 16));
        }
    }
    const size_t whole = (width + 7) / 8 * 8;
    if (whole % NR != 0) {
        for (size_t r = 0; r < count; r++) {
            _mm256_store_ps(values + whole / NR * NR * TILE + (key + r) * NR + 8, _mm256_setzero_ps());
        }
    }
}

/* 8 columns of 6 rows per transposition; two zero rows complete the square. */
static void tile_pack(const float *const rows[MR], size_t width, float scale, float *q)
{
    const __m256 factor = _mm256_set1_ps(scale);
    for (size_t c = 0; c < width; c += 8) {
        const __m256i mask = first_dwords(width - c);
        __m256i v[8];
#pragma GCC unroll 8
        for (size_t r = 0; r < 8; r++) {
            const bool live = r < MR && rows[r];
            v[r] = live ? _mm256_castps_si256(_mm256_mul_ps(_mm256_maskload_ps(rows[r] + c, mask), factor))
                        : _mm256_setzero_si256();
        }
        transpose_8x8(v);
#pragma GCC unroll 8
        for (size_t i = 0; i < 8; i++) {
            if (c + i < width) {
                _mm256_maskstore_epi32((int *)(void *)(q + (c + i) * MR), first_dwords(MR), v[i]);
            }
        }
    }
}

/* acc [6][16] += a [6][k] * b [k][16]; a's element (r, i) lies at r*row_step + i*k_step. */
static inline __attribute__((always_inline)) void multiply_prefill_avx2(const float *a, size_t row_step, size_t k_step,
                                                                        const float *b, size_t k, __m256 acc[MR][2])
{
#pragma GCC unroll 4
    for (size_t i = 0; i < k; i++, a += k_step, b += NR) {
        const __m256 b0 = _mm256_load_ps(b), b1 = _mm256_load_ps(b + 8);
#pragma GCC unroll 6
        for (size_t r = 0; r < MR; r++) {
            const __m256 x = _mm256_broadcast_ss(a + r * row_step);
            acc[r][0] = _mm256_fmadd_ps(x, b0, acc[r][0]);
            acc[r][1] = _mm256_fmadd_ps(x, b1, acc[r][1]);
        }
    }
}

static void tile_score(const float *q, const float *keys, size_t width, size_t count, float *s)
{
    for (size_t column = 0; column < count; column += NR) {
        __m256 acc[MR][2];
#pragma GCC unroll 6
        for (size_t r = 0; r < MR; r++) {
            acc[r][0] = acc[r][1] = _mm256_setzero_ps();
        }
        multiply_prefill_avx2(q, 1, MR, keys + column * width, width, acc);
#pragma GCC unroll 6
        for (size_t r = 0; r < MR; r++) {
            _mm256_store_ps(s + r * TILE + column, acc[r][0]);
            _mm256_store_ps(s + r * TILE + column + 8, acc[r][1]);
        }
    }
}

/* 2^x for x <= 0, within 2e-7; exactly 1 at 0; 0 below -64, where nothing is lost beside the row's maximum of 1 (and for
 * -infinity), so that no denormal number ever arises. */
static inline __m256 exp2_8(__m256 x)
{
    const __m256 magic = _mm256_set1_ps(12582912.0f);
    const __m256 t = _mm256_add_ps(x, magic), r = _mm256_sub_ps(x, _mm256_sub_ps(t, magic));
    __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(0x1.470bb8p-13f), r, _mm256_set1_ps(0x1.5f72acp-10f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.3b270ep-7f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.c6ae72p-5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.ebfbe2p-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.62e432p-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    const __m256 large = _mm256_cmp_ps(x, _mm256_set1_ps(-64.0f), _CMP_GE_OQ);
    const __m256i scaled = _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23));
    return _mm256_and_ps(_mm256_castsi256_ps(scaled), large);
}

static void tile_soften(float *s, block_state *state, size_t key0, size_t count)
{
    const __m256 none = _mm256_set1_ps(-INFINITY);
    for (size_t r = 0; r < MR; r++) {
        const size_t seen = state->end[r] > key0 ? state->end[r] - key0 : 0, visible = seen < count ? seen : count;
        __m256 max = none;
        size_t i = 0;
        for (; i + 8 <= visible; i += 8) {
            max = _mm256_max_ps(max, _mm256_load_ps(s + r * TILE + i));
        }
        for (; i < count; i += 8) {
            const __m256i mask = first_dwords(visible > i ? visible - i : 0);
            const __m256 v = _mm256_blendv_ps(none, _mm256_load_ps(s + r * TILE + i), _mm256_castsi256_ps(mask));
            _mm256_store_ps(s + r * TILE + i, v);
            max = _mm256_max_ps(max, v);
        }
        const float old = state->max[r], here = largest_of(max);
        state->max[r] = here > old ? here : old;
        state->correction[r] = old - state->max[r];
    }
    _mm256_store_ps(state->correction, exp2_8(_mm256_load_ps(state->correction)));
    for (size_t r = 0; r < MR; r++) {
        const __m256 max = _mm256_set1_ps(state->max[r]);
        __m256 sum = _mm256_mul_ps(_mm256_load_ps(state->sum + r * LANES), _mm256_set1_ps(state->correction[r]));
        for (size_t i = 0; i < count; i += 8) {
            const __m256 p = exp2_8(_mm256_sub_ps(_mm256_load_ps(s + r * TILE + i), max));
            _mm256_store_ps(s + r * TILE + i, p);
            sum = _mm256_add_ps(sum, p);
        }
        _mm256_store_ps(state->sum + r * LANES, sum);
    }
}

static void tile_weigh(const float *s, const float *values, const block_state *state, size_t panels, size_t count,
                       float *o)
{
    for (size_t panel = 0; panel < panels; panel++, o += MR * NR, values += TILE * NR) {
        __m256 acc[MR][2];
#pragma GCC unroll 6
        for (size_t r = 0; r < MR; r++) {
            const __m256 correction = _mm256_set1_ps(state->correction[r]);
            acc[r][0] = _mm256_mul_ps(_mm256_load_ps(o + r * NR), correction);
            acc[r][1] = _mm256_mul_ps(_mm256_load_ps(o + r * NR + 8), correction);
        }
        multiply_prefill_avx2(s, TILE, 1, values, count, acc);
#pragma GCC unroll 6
        for (size_t r = 0; r < MR; r++) {
            _mm256_store_ps(o + r * NR, acc[r][0]);
            _mm256_store_ps(o + r * NR + 8, acc[r][1]);
        }
    }
}

#endif
