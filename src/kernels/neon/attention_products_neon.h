/* What the prefill kernels of the NEON levels share whatever their products are made of: the sizes, both products, the softmax.
 * Included once by a file that has defined
 *     tile_multiply_add(sum, b, x, lane)   sum + b * element `lane` of x, on 4 lanes of 32 bits
 *     enum { PER_LANE };                   values that a lane holds: 1 (FP32) or 2 (pairs of BF16, along the summed index)
 * and then defines the rest of kernels/attention_tiles.h.
 *
 * Both products use a 6x16 micro-kernel: 24 sums, 4 panel vectors, 1 to 2 of activations = 30 registers. Per k step 24 FMA beside
 * 6 loads in Q K^T, where the 6 activations lie side by side, and 10 in P V, where each is loaded alone. */
#ifndef MQ_ATTENTION_PRODUCTS_NEON_H
#define MQ_ATTENTION_PRODUCTS_NEON_H

#include "kernels/neon/attention_neon.h"

enum { MR = 6, NR = 16, LANES = 4, TILE = MQ_ATTENTION_TILE, WIDE = NR / 4 };

#include "kernels/attention_tiles.h"

/* 2^x for x <= 0, within 2e-7; exactly 1 at 0; 0 below -64, where nothing is lost beside the row's maximum of 1 (and for
 * -infinity), so that no denormal number ever arises. */
INLINE float32x4_t exp2_neon(float32x4_t x)
{
    const float32x4_t magic = vdupq_n_f32(12582912.0f);
    const float32x4_t t = vaddq_f32(x, magic), r = vsubq_f32(x, vsubq_f32(t, magic));
    float32x4_t p = vfmaq_n_f32(vdupq_n_f32(0x1.5f72acp-10f), r, 0x1.470bb8p-13f);
    p = vfmaq_f32(vdupq_n_f32(0x1.3b270ep-7f), p, r);
    p = vfmaq_f32(vdupq_n_f32(0x1.c6ae72p-5f), p, r);
    p = vfmaq_f32(vdupq_n_f32(0x1.ebfbe2p-3f), p, r);
    p = vfmaq_f32(vdupq_n_f32(0x1.62e432p-1f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1), p, r);
    const uint32x4_t large = vcgeq_f32(x, vdupq_n_f32(-64));
    const uint32x4_t scaled = vaddq_u32(vreinterpretq_u32_f32(p), vshlq_n_u32(vreinterpretq_u32_f32(t), 23));
    return vreinterpretq_f32_u32(vandq_u32(scaled, large));
}

/* Takes keys that a row may not see out of s, and brings the rows' maxima and corrections up to date. */
static inline void find_maxima_neon(float *s, block_state *state, size_t key0, size_t count)
{
    const float32x4_t none = vdupq_n_f32(-INFINITY);
    for (size_t r = 0; r < MR; r++) {
        const size_t seen = state->end[r] > key0 ? state->end[r] - key0 : 0, visible = seen < count ? seen : count;
        float32x4_t max = none;
        size_t i = 0;
        for (; i + 4 <= visible; i += 4) {
            max = vmaxq_f32(max, vld1q_f32(s + r * TILE + i));
        }
        for (; i < count; i += 4) {
            const uint32x4_t mask = first_lanes_neon(visible > i ? visible - i : 0);
            const float32x4_t v = vbslq_f32(mask, vld1q_f32(s + r * TILE + i), none);
            vst1q_f32(s + r * TILE + i, v);
            max = vmaxq_f32(max, v);
        }
        const float old = state->max[r], here = vmaxvq_f32(max);
        state->max[r] = here > old ? here : old;
        state->correction[r] = old - state->max[r];
    }
    for (size_t r = 0; r < MR; r += 4)
        vst1q_f32(state->correction + r, exp2_neon(vld1q_f32(state->correction + r)));
}

/* acc [6][16] += a [6][k] * b [k][16], k in lanes' worths; a's element (r, i) lies at r*row_step + i*k_step. */
INLINE void multiply_products_neon(const float *a, size_t row_step, size_t k_step, const float *b, size_t k,
                                   float32x4_t acc[MR][WIDE])
{
    for (size_t i = 0; i < k; i++, a += k_step, b += NR) {
        float32x4_t bv[WIDE];
        UNROLL
        for (size_t v = 0; v < WIDE; v++)
            bv[v] = vld1q_f32(b + 4 * v);
        const bool together = row_step == 1;
        const float32x4_t x0 = together ? vld1q_f32(a) : bv[0], x1 = together ? vld1q_f32(a + 2) : bv[0];
        UNROLL
        for (size_t r = 0; r < MR; r++) {
            const float32x4_t x = !together ? load_one(a + r * row_step) : r < 4 ? x0 : x1;
            const int lane = !together ? 0 : r < 4 ? (int)r : (int)r - 2;
            UNROLL
            for (size_t v = 0; v < WIDE; v++)
                acc[r][v] = tile_multiply_add(acc[r][v], bv[v], x, lane);
        }
    }
}

static void tile_score(const float *q, const float *keys, size_t width, size_t count, float *s)
{
    for (size_t column = 0; column < count; column += NR) {
        float32x4_t acc[MR][WIDE];
        UNROLL
        for (size_t i = 0; i < MR * WIDE; i++)
            acc[i / WIDE][i % WIDE] = vdupq_n_f32(0);
        multiply_products_neon(q, 1, MR, keys + column * (width / PER_LANE), width / PER_LANE, acc);
        UNROLL
        for (size_t i = 0; i < MR * WIDE; i++)
            vst1q_f32(s + i / WIDE * TILE + column + i % WIDE * 4, acc[i / WIDE][i % WIDE]);
    }
}

static void tile_weigh(const float *s, const float *values, const block_state *state, size_t panels, size_t count,
                       float *o)
{
    for (size_t panel = 0; panel < panels; panel++, o += MR * NR, values += TILE / PER_LANE * NR) {
        float32x4_t acc[MR][WIDE];
        UNROLL
        for (size_t i = 0; i < MR * WIDE; i++)
            acc[i / WIDE][i % WIDE] = vmulq_n_f32(vld1q_f32(o + 4 * i), state->correction[i / WIDE]);
        multiply_products_neon(s, TILE, 1, values, (count + PER_LANE - 1) / PER_LANE, acc);
        UNROLL
        for (size_t i = 0; i < MR * WIDE; i++)
            vst1q_f32(o + 4 * i, acc[i / WIDE][i % WIDE]);
    }
}

/* Columns [c, c + 4) of the 6 rows, scaled, as v[i] and w[i]: column c + i of rows 0..3, and of rows 4, 5 (then zeros). */
INLINE void load_columns_neon(const float *const rows[MR], size_t c, size_t width, float scale, uint32x4_t v[4],
                              uint32x4_t w[4])
{
    UNROLL
    for (size_t r = 0; r < 8; r++) {
        const bool live = r < MR && rows[r];
        const float32x4_t x = live ? vmulq_n_f32(load_first(rows[r] + c, width - c), scale) : vdupq_n_f32(0);
        (r < 4 ? v : w)[r % 4] = vreinterpretq_u32_f32(x);
    }
    transpose_4x4(v);
    transpose_4x4(w);
}

#endif
