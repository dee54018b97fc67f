/* Prefill attention in INT8 with 8-bit dot products: kernels/attention_int8_tiles.h with blocks of 6 query rows and panels of 16
 * columns.
 *
 * Queries and keys are signed. Weights are unsigned, and so are values (+ 128), because there is no instruction for one of each:
 * sums begin at -128 times the row's weights. Both products use a 6 x 16 tile of int32 sums: per 4 k 24 SDOT or UDOT beside 10
 * loads; registers 24 (sums) + 4 (columns) + 1 to 2.
 *
 * Throughput at width 128: per 4 scores 64 dot products where FP32 has 256 FMA, and about 15 instructions of scaling and softmax
 * in either. Speeds not measured. */
#include "kernels/neon/attention_tiles_neon.h"

#include "kernels/table.h"

enum { QUERY_ZERO = 0 };

#include "kernels/attention_int8_tiles.h"

/* Four vectors of integers in [-128, 255] as bytes. */
INLINE uint8x16_t bytes_of(const int32x4_t v[4])
{
    const int16x8_t low = vcombine_s16(vmovn_s32(v[0]), vmovn_s32(v[1]));
    const int16x8_t high = vcombine_s16(vmovn_s32(v[2]), vmovn_s32(v[3]));
    return vreinterpretq_u8_s8(vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}

/* `count` floats, in eights, that `load` brings: their largest magnitude, and round(x * inverse) as bytes. */
INLINE float32x4_t magnitude_of(float32x4_t most, const float32x4_t x[2])
{
    return vmaxq_f32(most, vmaxq_f32(vabsq_f32(x[0]), vabsq_f32(x[1])));
}

INLINE int8x8_t codes_of(const float32x4_t x[2], float inverse)
{
    const int16x4_t low = vmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(x[0], inverse)));
    const int16x4_t high = vmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(x[1], inverse)));
    return vmovn_s16(vcombine_s16(low, high));
}

/* Columns [c, c + 8) of a row, zero past its width. */
INLINE void load_query(const float *q, size_t c, size_t width, float32x4_t x[2])
{
    x[0] = load_first(q + c, width - c);
    x[1] = width - c > 4 ? load_first(q + c + 4, width - c - 4) : vdupq_n_f32(0);
}

static float tile_quantize_query(const float *q, size_t width, uint8_t *codes)
{
    float32x4_t most = vdupq_n_f32(0), x[2];
    for (size_t c = 0; c < width; c += 8) {
        load_query(q, c, width, x);
        most = magnitude_of(most, x);
    }
    float scale;
    const float inverse = inverse_of(vmaxvq_f32(most), 127, &scale);
    for (size_t c = 0; c < width; c += 8) {
        load_query(q, c, width, x);
        vst1_s8((int8_t *)codes + c, codes_of(x, inverse));
    }
    return scale;
}

/* Columns [c, c + 8) of a row of keys or values; zero past the width. */
INLINE void load_columns(const uint16_t *row, size_t c, size_t width, float32x4_t x[2])
{
    const uint16x8_t v = load_first_bf16(row + c, width - c);
    x[0] = widen_bf16_low(v);
    x[1] = widen_bf16_high(v);
}

static void tile_means(const int8_pass *p, size_t key0)
{
    const mq_kv_view *kv = &p->f32.a->kv;
    const size_t width = p->l->f32.width;
    float *means = (float *)(void *)(p->scratch + p->l->means);
    for (size_t c = 0; c < width; c += 8) {
        float32x4_t sum[2] = {vdupq_n_f32(0), vdupq_n_f32(0)}, x[2];
        for (size_t key = 0; key < TILE; key++) {
            load_columns(tile_row(kv, kv->k_offset, key0 + key), c, width, x);
            sum[0] = vaddq_f32(sum[0], x[0]);
            sum[1] = vaddq_f32(sum[1], x[1]);
        }
        vst1q_f32(means + c, vmulq_n_f32(sum[0], 1.0f / TILE));
        vst1q_f32(means + c + 4, vmulq_n_f32(sum[1], 1.0f / TILE));
    }
}

/* Columns of a key less the means. */
INLINE void load_key(const uint16_t *row, const float *means, size_t c, size_t width, float32x4_t x[2])
{
    load_columns(row, c, width, x);
    x[0] = vsubq_f32(x[0], vld1q_f32(means + c));
    x[1] = vsubq_f32(x[1], vld1q_f32(means + c + 4));
}

/* One key's bytes to `codes`; its scale. */
static void quantize_key_neondot(const int8_pass *p, size_t key0, size_t key, int8_t *codes)
{
    const size_t width = p->l->f32.width;
    const uint16_t *row = tile_row(&p->f32.a->kv, p->f32.a->kv.k_offset, key0 + key);
    const float *means = (const float *)(const void *)(p->scratch + p->l->means);
    float32x4_t most = vdupq_n_f32(0), x[2];
    for (size_t c = 0; c < width; c += 8) {
        load_key(row, means, c, width, x);
        most = magnitude_of(most, x);
    }
    float *scale = (float *)(void *)(p->scratch + p->l->key_scales) + key;
    const float inverse = inverse_of(vmaxvq_f32(most), 127, scale);
    for (size_t c = 0; c < width; c += 8) {
        load_key(row, means, c, width, x);
        vst1_s8(codes + c, codes_of(x, inverse));
    }
}

static void tile_load_keys(const int8_pass *p, size_t key0)
{
    const size_t words = p->l->words, step = p->l->row_bytes;
    int8_t *codes = (int8_t *)(p->scratch + p->l->weights); /* [NR][row_bytes] */
    uint32_t *keys = (uint32_t *)(void *)(p->scratch + p->l->keys);
    memset(codes, 0, NR * step);
    for (size_t key = 0; key < TILE; key += NR, keys += words * NR) {
        for (size_t i = 0; i < NR; i++)
            quantize_key_neondot(p, key0, key + i, codes + i * step);
        for (size_t i = 0; i < NR; i += 4) {
            for (size_t word = 0; word < words; word += 4) {
                uint32x4_t v[4];
                for (size_t j = 0; j < 4; j++)
                    v[j] = vreinterpretq_u32_s8(vld1q_s8(codes + (i + j) * step + 4 * word));
                transpose_4x4(v);
                for (size_t j = 0; j < 4 && word + j < words; j++)
                    vst1q_u32(keys + (word + j) * NR + i, v[j]);
            }
        }
    }
}

/* Channels [c, c + 8) of four keys as bytes + 128, the bytes of one channel side by side. */
static void load_four_values(const int8_pass *p, size_t key, size_t c, const float32x4_t inverse[2], uint8_t *to)
{
    const mq_kv_view *kv = &p->f32.a->kv;
    uint8x8x4_t four;
    for (size_t i = 0; i < 4; i++) {
        float32x4_t x[2];
        load_columns(tile_row(kv, kv->v_offset, key + i), c, p->l->f32.width, x);
        const int16x4_t low = vmovn_s32(vcvtnq_s32_f32(vmulq_f32(x[0], inverse[0])));
        const int16x4_t high = vmovn_s32(vcvtnq_s32_f32(vmulq_f32(x[1], inverse[1])));
        four.val[i] = vmovn_u16(vreinterpretq_u16_s16(vaddq_s16(vcombine_s16(low, high), vdupq_n_s16(128))));
    }
    vst4_u8(to, four);
}

static void tile_load_values(const int8_pass *p, size_t key0)
{
    const mq_kv_view *kv = &p->f32.a->kv;
    const size_t width = p->l->f32.width, padded = NR * p->l->f32.panels;
    float *scales = (float *)(void *)(p->scratch + p->l->value_scales);
    uint8_t *values = p->scratch + p->l->values;
    if (width < padded) { /* channels that do not exist; what they sum up to is not stored */
        memset(values + (padded - NR) * TILE, 0, (size_t)NR * TILE);
        memset(scales + padded - NR, 0, NR * sizeof *scales);
    }
    for (size_t c = 0; c < width; c += 8) {
        float32x4_t most[2] = {vdupq_n_f32(0), vdupq_n_f32(0)}, inverse[2], x[2];
        for (size_t key = 0; key < TILE; key++) {
            load_columns(tile_row(kv, kv->v_offset, key0 + key), c, width, x);
            most[0] = vmaxq_f32(most[0], vabsq_f32(x[0]));
            most[1] = vmaxq_f32(most[1], vabsq_f32(x[1]));
        }
        for (size_t i = 0; i < 2; i++) {
            const uint32x4_t live = vcgeq_f32(most[i], vdupq_n_f32(0x1p-100f));
            const float32x4_t quotient = vdivq_f32(vdupq_n_f32(127), most[i]);
            inverse[i] = vbslq_f32(live, quotient, vdupq_n_f32(0));
            const float32x4_t scale = vmulq_n_f32(most[i], 1.0f / (127.0f * 255.0f));
            vst1q_f32(scales + c + 4 * i, vbslq_f32(live, scale, vdupq_n_f32(0)));
        }
        uint8_t *to = values + c / NR * NR * TILE + 4 * (c % NR);
        for (size_t key = 0; key < TILE; key += 4, to += 4 * NR)
            load_four_values(p, key0 + key, c, inverse, to);
    }
}

/* Four bytes, in lane 0. */
INLINE int8x16_t load_word(const uint8_t *at)
{
    return vreinterpretq_s8_f32(load_one((const float *)(const void *)at));
}

INLINE int32x4_t dot4_neondot(int32x4_t sum, uint8x16_t b, int8x16_t x, const bool is_signed)
{
    if (is_signed) return vdotq_laneq_s32(sum, vreinterpretq_s8_u8(b), x, 0);
    return vreinterpretq_s32_u32(vdotq_laneq_u32(vreinterpretq_u32_s32(sum), b, vreinterpretq_u8_s8(x), 0));
}

/* sums [6][16] += a [6][4*words] * b [words][16][4], all signed or all unsigned; row r of a at r*stride bytes. */
INLINE void multiply_bytes_neondot(const uint8_t *a, size_t stride, const uint8_t *b, size_t words,
                                   const bool is_signed, int32x4_t sums[MR][WIDE])
{
    for (size_t word = 0; word < words; word++, a += 4, b += 4 * NR) {
        uint8x16_t bv[WIDE];
        UNROLL
        for (size_t v = 0; v < WIDE; v++)
            bv[v] = vld1q_u8(b + 16 * v);
        UNROLL
        for (size_t r = 0; r < MR; r++) {
            const int8x16_t x = load_word(a + r * stride);
            UNROLL
            for (size_t v = 0; v < WIDE; v++)
                sums[r][v] = dot4_neondot(sums[r][v], bv[v], x, is_signed);
            __asm__ volatile("" ::: "memory"); /* or gcc 12 loads all activations first and spills */
        }
    }
}

/* query . mean of the block's rows, in the exponent's base. */
static void mean_scores_neondot(const int8_pass *p, size_t block, float out[8])
{
    const float *q = block_part(&p->f32, p->l->f32.queries, p->l->f32.query_step, block); /* [width][MR], scaled */
    const float *means = (const float *)(const void *)(p->scratch + p->l->means);
    float32x4_t low[2] = {vdupq_n_f32(0), vdupq_n_f32(0)}, high[2] = {vdupq_n_f32(0), vdupq_n_f32(0)};
    for (size_t c = 0; c < p->l->f32.width; c++) {
        low[c % 2] = vfmaq_n_f32(low[c % 2], vld1q_f32(q + c * MR), means[c]);
        high[c % 2] = vfmaq_n_f32(high[c % 2], vld1q_f32(q + c * MR + 2), means[c]);
    }
    vst1q_f32(out + 2, vaddq_f32(high[0], high[1])); /* rows 2..5 */
    vst1q_f32(out, vaddq_f32(low[0], low[1]));
}

static void tile_score_bytes(const int8_pass *p, size_t block, float *s)
{
    float mean[8];
    mean_scores_neondot(p, block, mean);
    const uint8_t *q = query_block(p, block), *keys = p->scratch + p->l->keys;
    const float *query_scale = query_scales(p, block);
    const float *key_scales = (const float *)(const void *)(p->scratch + p->l->key_scales);
    for (size_t key = 0; key < TILE; key += NR, keys += 4 * NR * p->l->words) {
        int32x4_t sums[MR][WIDE];
        UNROLL
        for (size_t i = 0; i < MR * WIDE; i++)
            sums[i / WIDE][i % WIDE] = vdupq_n_s32(0);
        multiply_bytes_neondot(q, p->l->row_bytes, keys, p->l->words, true, sums);
        UNROLL
        for (size_t i = 0; i < MR * WIDE; i++) {
            const size_t r = i / WIDE, column = key + i % WIDE * 4;
            const float32x4_t dot = vmulq_f32(vcvtq_f32_s32(sums[r][i % WIDE]), vld1q_f32(key_scales + column));
            vst1q_f32(s + r * TILE + column, vfmaq_n_f32(vdupq_n_f32(mean[r]), dot, query_scale[r]));
        }
    }
}

/* round(2^x), x <= log2(255): a cubic is good to 1e-4. */
INLINE int32x4_t exp2_integer(float32x4_t x)
{
    x = vminq_f32(vmaxq_f32(x, vdupq_n_f32(-30)), vdupq_n_f32(WEIGHT_LOG2)); /* above it is rounding */
    const float32x4_t floor = vrndmq_f32(x), r = vsubq_f32(x, floor);
    float32x4_t p = vfmaq_n_f32(vdupq_n_f32(EXP2_C2), r, EXP2_C3);
    p = vfmaq_f32(vdupq_n_f32(EXP2_C1), p, r);
    p = vfmaq_f32(vdupq_n_f32(EXP2_C0), p, r);
    const int32x4_t exponent = vshlq_n_s32(vcvtq_s32_f32(floor), 23);
    return vcvtnq_s32_f32(vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p), exponent)));
}

static void tile_soften_bytes(const float *s, block_state *state, uint8_t *weights)
{
    for (size_t r = 0; r < MR; r++) {
        float32x4_t max = vld1q_f32(s + r * TILE);
        for (size_t i = 4; i < TILE; i += 4)
            max = vmaxq_f32(max, vld1q_f32(s + r * TILE + i));
        const float old = state->max[r], here = vmaxvq_f32(max);
        state->max[r] = here > old ? here : old;
        state->correction[r] = old - state->max[r];
    }
    for (size_t r = 0; r < MR; r += 4)
        vst1q_f32(state->correction + r, exp2_neon(vld1q_f32(state->correction + r)));
    for (size_t r = 0; r < MR; r++, weights += TILE) {
        const float32x4_t top = vdupq_n_f32(state->max[r] - WEIGHT_LOG2);
        uint32x4_t sum = vdupq_n_u32(0);
        for (size_t i = 0; i < TILE; i += 16) {
            int32x4_t v[4];
            for (size_t j = 0; j < 4; j++)
                v[j] = exp2_integer(vsubq_f32(vld1q_f32(s + r * TILE + i + 4 * j), top));
            const uint8x16_t bytes = bytes_of(v);
            vst1q_u8(weights + i, bytes);
            sum = vdotq_u32(sum, bytes, vdupq_n_u8(1));
        }
        const float32x4_t before = vmulq_n_f32(vld1q_f32(state->sum + r * LANES), state->correction[r]);
        const float32x4_t here = vmulq_n_f32(vcvtq_f32_u32(sum), 1.0f / 255.0f);
        vst1q_f32(state->sum + r * LANES, vaddq_f32(before, here));
    }
}

static void tile_weigh_bytes(const int8_pass *p, const block_state *state, const uint8_t *weights, float *o)
{
    const uint8_t *values = p->scratch + p->l->values;
    const float *scales = (const float *)(const void *)(p->scratch + p->l->value_scales);
    int32_t start[MR];
    for (size_t r = 0; r < MR; r++) {
        uint32x4_t sum = vdupq_n_u32(0);
        for (size_t i = 0; i < TILE; i += 16)
            sum = vdotq_u32(sum, vld1q_u8(weights + r * TILE + i), vdupq_n_u8(1));
        start[r] = -128 * (int32_t)vaddvq_u32(sum);
    }
    for (size_t panel = 0; panel < p->l->f32.panels; panel++, o += MR * NR, values += NR * TILE, scales += NR) {
        int32x4_t sums[MR][WIDE];
        UNROLL
        for (size_t i = 0; i < MR * WIDE; i++)
            sums[i / WIDE][i % WIDE] = vdupq_n_s32(start[i / WIDE]);
        multiply_bytes_neondot(weights, TILE, values, TILE / 4, false, sums);
        UNROLL
        for (size_t i = 0; i < MR * WIDE; i++) {
            const float32x4_t before = vmulq_n_f32(vld1q_f32(o + 4 * i), state->correction[i / WIDE]);
            const float32x4_t here = vcvtq_f32_s32(sums[i / WIDE][i % WIDE]);
            vst1q_f32(o + 4 * i, vfmaq_f32(before, here, vld1q_f32(scales + i % WIDE * 4)));
        }
    }
}

static void attention_int8_neondot(const mq_attention *a)
{
    attention_int8_passes(a, own_tile);
}

static size_t scratch_bytes_neondot(uint32_t heads, uint32_t head_dim)
{
    const size_t int8 = attention_int8_bytes(heads, head_dim), f32 = prefill_scratch_bytes(heads, head_dim);
    const size_t decode = mq__attention_decode_scratch_neon(heads, head_dim), most = f32 > int8 ? f32 : int8;
    return most > decode ? most : decode;
}

void mq__fill_neondot_attention(mq_kernels *table)
{
    table->attention_prefill_int8 = attention_int8_neondot;
    table->attention_scratch_bytes = scratch_bytes_neondot;
}
