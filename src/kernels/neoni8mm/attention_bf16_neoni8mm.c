/* Prefill attention with BF16 products: the tiles of kernels/attention_tiles.h, with pairs of BF16 in the place of floats. What
 * GPUs' FlashAttention does: queries and softmax weights are rounded to BF16, keys and values are BF16 as they lie in the cache,
 * sums and the softmax are FP32. BFDOT has the form of the FP32 FMA, an element of a register broadcast, and twice its products.
 *
 * The scratch of the FP32 kernel holds, in half of its room: keys [TILE/NR][pairs of width][NR], values
 * [panels][TILE/2][NR] pairs of keys, queries [pairs of width][MR], weights [MR][TILE/2] (rows TILE floats apart). */
#include "kernels/neon/attention_neon.h"
#include "kernels/table.h"

enum { PER_LANE = 2 };

INLINE float32x4_t tile_multiply_add(float32x4_t sum, float32x4_t b, float32x4_t x, int lane)
{
#define CASE(i)                                                                                                        \
    case i:                                                                                                            \
        __asm__("bfdot %0.4s, %1.8h, %2.2h[" #i "]" : "+w"(sum) : "w"(b), "w"(x));                                     \
        break
    switch (lane) {
        CASE(0);
        CASE(1);
        CASE(2);
        CASE(3);
    }
#undef CASE
    return sum;
}

#include "kernels/neon/attention_products_neon.h"

/* Eight floats as four pairs of BF16. */
INLINE uint32x4_t pairs_of(float32x4_t low, float32x4_t high)
{
    return vreinterpretq_u32_u16(vcombine_u16(narrow_bf16(low), narrow_bf16(high)));
}

/* 4 tokens x 4 pairs of columns per transposition. */
static void tile_widen_keys(const uint16_t *rows, size_t width, size_t count, size_t column, float *keys)
{
    float *to = keys + column / NR * NR * (width / 2) + column % NR;
    for (size_t part = 0; part < 16; part += 4, to += 4) {
        for (size_t c = 0; c < width; c += 8) {
            const size_t here = width - c < 8 ? width - c : 8;
            uint32x4_t v[4];
            for (size_t r = 0; r < 4; r++) {
                v[r] = part + r < count ? vreinterpretq_u32_u16(load_first_bf16(rows + (part + r) * width + c, here))
                                        : vdupq_n_u32(0);
            }
            transpose_4x4(v);
            for (size_t i = 0; i < here / 2; i++) /* the width is even */
                vst1q_f32(to + (c / 2 + i) * NR, vreinterpretq_f32_u32(v[i]));
        }
    }
}

/* Two rows become one of pairs; the last of an odd count is paired with zeros. The rest of the last panel is zero. */
static void tile_widen_values(const uint16_t *rows, size_t width, size_t count, size_t key, float *values)
{
    const size_t padded = (width + NR - 1) / NR * NR;
    const uint16x8_t none = vdupq_n_u16(0);
    for (size_t c = 0; c < padded; c += 8) {
        float *to = values + c / NR * NR * (TILE / 2) + key / 2 * NR + c % NR;
        for (size_t r = 0; r < count; r += 2, to += NR) {
            const uint16_t *from = rows + r * width + c;
            const uint16x8_t a = c < width ? load_first_bf16(from, width - c) : none;
            const uint16x8_t b = c < width && r + 1 < count ? load_first_bf16(from + width, width - c) : none;
            vst1q_f32(to, vreinterpretq_f32_u16(vzip1q_u16(a, b)));
            vst1q_f32(to + 4, vreinterpretq_f32_u16(vzip2q_u16(a, b)));
        }
    }
}

static void tile_pack(const float *const rows[MR], size_t width, float scale, float *q)
{
    for (size_t c = 0; c < width; c += 4) {
        uint32x4_t v[4], w[4]; /* columns */
        load_columns_neon(rows, c, width, scale, v, w);
        for (size_t i = 0; i < 4 && c + i < width; i += 2) {
            uint16_t *to = (uint16_t *)(void *)(q + (c + i) / 2 * MR);
            const uint16x4_t v0 = narrow_bf16(vreinterpretq_f32_u32(v[i])),
                             v1 = narrow_bf16(vreinterpretq_f32_u32(v[i + 1]));
            const uint16x4_t w0 = narrow_bf16(vreinterpretq_f32_u32(w[i])),
                             w1 = narrow_bf16(vreinterpretq_f32_u32(w[i + 1]));
            vst1_u16(to, vzip1_u16(v0, v1));
            vst1_u16(to + 4, vzip2_u16(v0, v1));
            vst1_u16(to + 8, vzip1_u16(w0, w1));
        }
    }
}

/* The weights replace the front of their row of scores: 8 scores are read before their 8 weights are written. */
static void tile_soften(float *s, block_state *state, size_t key0, size_t count)
{
    find_maxima_neon(s, state, key0, count);
    for (size_t r = 0; r < MR; r++) {
        const float32x4_t max = vdupq_n_f32(state->max[r]);
        float32x4_t sum = vmulq_n_f32(vld1q_f32(state->sum + r * LANES), state->correction[r]);
        float *row = s + r * TILE;
        for (size_t i = 0; i < count; i += 8) {
            const float32x4_t low = exp2_neon(vsubq_f32(vld1q_f32(row + i), max));
            const float32x4_t high = i + 4 < count ? exp2_neon(vsubq_f32(vld1q_f32(row + i + 4), max)) : vdupq_n_f32(0);
            vst1q_f32(row + i / 2, vreinterpretq_f32_u32(pairs_of(low, high)));
            sum = vaddq_f32(sum, vaddq_f32(low, high));
        }
        vst1q_f32(state->sum + r * LANES, sum);
    }
}

static void attention_bf16_neoni8mm(const mq_attention *a)
{
    prefill_attention_tiles(a);
}

void mq__fill_neoni8mm_attention(mq_kernels *table)
{
    table->attention_prefill_bf16 = attention_bf16_neoni8mm;
}
