/* The FP32 tile functions of kernels/attention_tiles.h on NEON, for the prefill kernels of these levels. */
#ifndef MQ_ATTENTION_TILES_NEON_H
#define MQ_ATTENTION_TILES_NEON_H

#include "kernels/neon/vector_neon.h"

enum { PER_LANE = 1 };

INLINE float32x4_t tile_multiply_add(float32x4_t sum, float32x4_t b, float32x4_t x, int lane)
{
    return fma_lane(sum, b, x, lane);
}

#include "kernels/neon/attention_products_neon.h"

/* 4 tokens x 4 pairs of columns per transposition. */
static void tile_widen_keys(const uint16_t *rows, size_t width, size_t count, size_t column, float *keys)
{
    float *to = keys + column / NR * NR * width + column % NR;
    for (size_t part = 0; part < 16; part += 4, to += 4) {
        for (size_t c = 0; c < width; c += 8) {
            const size_t here = width - c < 8 ? width - c : 8;
            uint32x4_t v[4];
            for (size_t r = 0; r < 4; r++) {
                v[r] = part + r < count ? vreinterpretq_u32_u16(load_first_bf16(rows + (part + r) * width + c, here))
                                        : vdupq_n_u32(0);
            }
            transpose_4x4(v);
            for (size_t i = 0; i < here / 2; i++) { /* the width is even */
                vst1q_f32(to + (c + 2 * i) * NR, even_bf16(vreinterpretq_u16_u32(v[i])));
                vst1q_f32(to + (c + 2 * i + 1) * NR, odd_bf16(vreinterpretq_u16_u32(v[i])));
            }
        }
    }
}

/* The rest of the last panel is zero. */
static void tile_widen_values(const uint16_t *rows, size_t width, size_t count, size_t key, float *values)
{
    const size_t padded = (width + NR - 1) / NR * NR;
    for (size_t c = 0; c < padded; c += 8) {
        float *to = values + c / NR * NR * TILE + key * NR + c % NR;
        for (size_t r = 0; r < count; r++, to += NR) {
            const uint16x8_t v = c < width ? load_first_bf16(rows + r * width + c, width - c) : vdupq_n_u16(0);
            vst1q_f32(to, widen_bf16_low(v));
            vst1q_f32(to + 4, widen_bf16_high(v));
        }
    }
}

static void tile_pack(const float *const rows[MR], size_t width, float scale, float *q)
{
    for (size_t c = 0; c < width; c += 4) {
        uint32x4_t v[4], w[4];
        load_columns_neon(rows, c, width, scale, v, w);
        for (size_t i = 0; i < 4 && c + i < width; i++) {
            vst1q_f32(q + (c + i) * MR, vreinterpretq_f32_u32(v[i]));
            vst1_f32(q + (c + i) * MR + 4, vget_low_f32(vreinterpretq_f32_u32(w[i])));
        }
    }
}

static void tile_soften(float *s, block_state *state, size_t key0, size_t count)
{
    find_maxima_neon(s, state, key0, count);
    for (size_t r = 0; r < MR; r++) {
        const float32x4_t max = vdupq_n_f32(state->max[r]);
        float32x4_t sum = vmulq_n_f32(vld1q_f32(state->sum + r * LANES), state->correction[r]);
        for (size_t i = 0; i < count; i += 4) {
            const float32x4_t p = exp2_neon(vsubq_f32(vld1q_f32(s + r * TILE + i), max));
            vst1q_f32(s + r * TILE + i, p);
            sum = vaddq_f32(sum, p);
        }
        vst1q_f32(state->sum + r * LANES, sum);
    }
}

#endif
