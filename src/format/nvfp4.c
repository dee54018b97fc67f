#include "format/nvfp4.h"

#include "base/halffloat.h"

#include <math.h>
#include <string.h>

float mq__e2m1_decode(unsigned code)
{
    static const float magnitude[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    return code & 8 ? -magnitude[code & 7] : magnitude[code & 7];
}

/* Codes of magnitudes count the thresholds passed; >= where the tie goes up to the even code. Branch-free, and 32 bits
 * wide like its input, so that the compiler vectorises the loop over a block. */
static inline uint32_t encode_magnitude(float a)
{
    return (uint32_t)(a > 0.25f) + (uint32_t)(a >= 0.75f) + (uint32_t)(a > 1.25f) + (uint32_t)(a >= 1.75f) +
           (uint32_t)(a > 2.5f) + (uint32_t)(a >= 3.5f) + (uint32_t)(a > 5.0f);
}

unsigned mq__e2m1_encode(float value)
{
    return encode_magnitude(fabsf(value)) | (mq__f32_bits(value) >> 31 << 3);
}

#define BLOCK MQ_NVFP4_VALUES

/* One block as floats, zeros past the row's end. */
static void load_block_nvfp4(const void *weights, mq_weight_type type, size_t first, size_t width, float x[BLOCK])
{
    const size_t count = width - first < BLOCK ? width - first : BLOCK;
    if (type == MQ_WEIGHT_F32) {
        memset(x, 0, BLOCK * sizeof *x);
        memcpy(x, (const char *)weights + first * sizeof *x, count * sizeof *x);
        return;
    }
    uint16_t half[BLOCK] = {0};
    if (count == BLOCK)
        memcpy(half, (const char *)weights + first * sizeof *half, sizeof half);
    else
        memcpy(half, (const char *)weights + first * sizeof *half, count * sizeof *half);
    if (type == MQ_WEIGHT_BF16) {
        for (int i = 0; i < BLOCK; i++) {
            x[i] = mq__bf16_to_f32(half[i]);
        }
    } else {
        for (int i = 0; i < BLOCK; i++) {
            x[i] = mq__f16_to_f32(half[i]);
        }
    }
}

static float block_amax(const float x[BLOCK])
{
    /* As integers, because magnitudes order like their bits; a float maximum would have to mind NaN and not vectorise. */
    int32_t best[4] = {0};
    for (int i = 0; i < BLOCK; i += 4) {
        for (int lane = 0; lane < 4; lane++) {
            const int32_t bits = (int32_t)(mq__f32_bits(x[i + lane]) & 0x7fffffff);
            best[lane] = bits > best[lane] ? bits : best[lane];
        }
    }
    const int32_t a = best[0] > best[1] ? best[0] : best[1], b = best[2] > best[3] ? best[2] : best[3];
    return mq__f32_from_bits((uint32_t)(a > b ? a : b));
}

float mq__weights_amax(const void *weights, mq_weight_type type, size_t count)
{
    uint32_t best = 0;
    if (type == MQ_WEIGHT_F32) {
        for (size_t i = 0; i < count; i++) {
            uint32_t bits;
            memcpy(&bits, (const char *)weights + 4 * i, sizeof bits);
            bits &= 0x7fffffff;
            best = bits > best ? bits : best;
        }
    } else {
        uint16_t most = 0;
        for (size_t i = 0; i < count; i++) {
            uint16_t bits;
            memcpy(&bits, (const char *)weights + 2 * i, sizeof bits);
            bits &= 0x7fff;
            most = bits > most ? bits : most;
        }
        best = mq__f32_bits(type == MQ_WEIGHT_BF16 ? mq__bf16_to_f32(most) : mq__f16_to_f32(most));
    }
    return best >= 0x7f800000 ? NAN : mq__f32_from_bits(best);
}

mq_nvfp4_scale mq__nvfp4_scale(mq_nvfp4_rule rule, float amax)
{
    /* 448 * 6; Four-over-Six leaves room to scale a block by 1.5 below E4M3's maximum: 256 * 6. */
    const float range = rule == MQ_NVFP4_FOUR_SIX ? 1536.0f : 2688.0f;
    if (amax == 0) return (mq_nvfp4_scale){1, 1};      /* as compressed-tensors writes a matrix of zeros */
    const float safe = fmaxf(amax, range * 0x1p-126f); /* the divisor stays finite, the multiplier normal */
    if (rule == MQ_NVFP4_MODELOPT) return (mq_nvfp4_scale){range / safe, safe / range};
    const float divisor = range / safe;
    return (mq_nvfp4_scale){divisor, 1.0f / divisor};
}

typedef struct block {
    float x[BLOCK];
    uint32_t codes[BLOCK];
    float amax;
} block;

/* Codes by multiplication with the reciprocal of the step. */
static void encode_block(block *b, float inverse)
{
    for (int i = 0; i < BLOCK; i++) {
        b->codes[i] = encode_magnitude(fabsf(b->x[i] * inverse)) | (mq__f32_bits(b->x[i]) >> 31 << 3);
    }
}

/* The same by division, as compressed-tensors and ModelOpt round. */
static void encode_block_by_division(block *b, float step)
{
    for (int i = 0; i < BLOCK; i++) {
        b->codes[i] = encode_magnitude(fabsf(b->x[i] / step)) | (mq__f32_bits(b->x[i]) >> 31 << 3);
    }
}

/* E2M1's value nearest to a >= 0: thresholds as in encode_magnitude, each worth what it adds, in halves. */
static inline float round_magnitude(float a)
{
    const uint32_t halves = (uint32_t)(a > 0.25f) + (uint32_t)(a >= 0.75f) + (uint32_t)(a > 1.25f) +
                            (uint32_t)(a >= 1.75f) + ((uint32_t)(a > 2.5f) << 1) + ((uint32_t)(a >= 3.5f) << 1) +
                            ((uint32_t)(a > 5.0f) << 2);
    return 0.5f * (float)(int32_t)halves;
}

/* Squared error of the block when it is encoded with this step (0: all values become zero). */
static float squared_error(const block *b, float step)
{
    const float inverse = step > 0 ? 1.0f / step : 0.0f;
    float d[BLOCK], sum[4] = {0};
    for (int i = 0; i < BLOCK; i++) {
        const float a = fabsf(b->x[i]);
        d[i] = round_magnitude(a * inverse) * step - a;
    }
    for (int i = 0; i < BLOCK; i++) {
        sum[i % 4] += d[i] * d[i];
    }
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

static uint8_t quantize_rtn(mq_nvfp4_scale scale, block *b)
{
    uint8_t byte = mq__e4m3_encode(scale.divisor * (b->amax / 6.0f));
    if (byte == 0) byte = 0x20; /* 0.125: the "eps" of compressed-tensors for zero and underflowing blocks */
    encode_block_by_division(b, mq__e4m3_decode(byte) / scale.divisor);
    return byte;
}

static uint8_t quantize_modelopt(mq_nvfp4_scale scale, block *b)
{
    float relative = b->amax / (6.0f * scale.multiplier);
    if (relative == 0) relative = 1.0f;
    const uint8_t byte = mq__e4m3_encode(relative);
    const float step = mq__e4m3_decode(byte) * scale.multiplier;
    if (step == 0)
        memset(b->codes, 0, sizeof b->codes); /* an underflowed scale: zeros whatever the codes are */
    else
        encode_block_by_division(b, step);
    return byte;
}

static void encode_by_step(block *b, float step)
{
    if (step > 0)
        encode_block(b, 1.0f / step);
    else
        memset(b->codes, 0, sizeof b->codes);
}

static uint8_t quantize_four_six(mq_nvfp4_scale scale, block *b)
{
    const float relative = b->amax / 6.0f * scale.divisor;
    const uint8_t six = mq__e4m3_encode(relative), four = mq__e4m3_encode(relative * 1.5f);
    const float step_six = mq__e4m3_decode(six) * scale.multiplier,
                step_four = mq__e4m3_decode(four) * scale.multiplier;
    const bool is_four = squared_error(b, step_four) < squared_error(b, step_six); /* strict: ties keep six */
    encode_by_step(b, is_four ? step_four : step_six);
    return is_four ? four : six;
}

/* All E4M3 scales that can win. Downwards from amax/6 the largest value is clipped, and its error alone grows until it
 * passes the best: the rest cannot win. At 2*amax/6 and above, all magnitudes are at most 3 steps, whose grid is part of
 * that of half the step: the half, where E4M3 has it (above twice its smallest normal number), is as good. */
static uint8_t quantize_sweep(mq_nvfp4_scale scale, block *b)
{
    const float relative = b->amax / 6.0f * scale.divisor;
    const int start = mq__e4m3_encode(relative);
    if (b->amax == 0) return quantize_rtn(scale, b);
    float best = INFINITY;
    uint8_t chosen = 1;
    for (int byte = start > 1 ? start : 1; byte >= 1; byte--) {
        const float step = mq__e4m3_decode((uint8_t)byte) * scale.multiplier, clipped = b->amax - 6.0f * step;
        if (clipped > 0 && clipped * clipped > best) break;
        const float error = squared_error(b, step);
        if (!(error < best)) continue;
        best = error;
        chosen = (uint8_t)byte;
    }
    for (int byte = start + 1; byte <= 0x7e; byte++) {
        const float value = mq__e4m3_decode((uint8_t)byte);
        if (byte > 0x10 && value >= 2 * relative) break;
        const float error = squared_error(b, value * scale.multiplier);
        if (!(error < best)) continue;
        best = error;
        chosen = (uint8_t)byte;
    }
    encode_by_step(b, mq__e4m3_decode(chosen) * scale.multiplier);
    return chosen;
}

static uint8_t quantize_block_nvfp4(mq_nvfp4_rule rule, mq_nvfp4_scale scale, block *b)
{
    switch (rule) {
    case MQ_NVFP4_MODELOPT:
        return quantize_modelopt(scale, b);
    case MQ_NVFP4_FOUR_SIX:
        return quantize_four_six(scale, b);
    case MQ_NVFP4_SWEEP:
        return quantize_sweep(scale, b);
    case MQ_NVFP4_RTN:
    default:
        return quantize_rtn(scale, b);
    }
}

void mq__nvfp4_quantize_row(mq_nvfp4_rule rule, mq_nvfp4_scale scale, const void *weights, mq_weight_type type,
                            size_t width, uint8_t *nibbles, uint8_t *scales)
{
    block b;
    for (size_t n = 0; n < mq__nvfp4_blocks(width); n++, nibbles += BLOCK / 2) {
        load_block_nvfp4(weights, type, n * BLOCK, width, b.x);
        b.amax = block_amax(b.x);
        scales[n] = quantize_block_nvfp4(rule, scale, &b);
        for (int i = 0; i < BLOCK / 2; i++) {
            nibbles[i] = (uint8_t)(b.codes[2 * i] | b.codes[2 * i + 1] << 4);
        }
    }
}

void mq__nvfp4_dequantize_row(const uint8_t *nibbles, const uint8_t *scales, float multiplier, size_t width,
                              float *weights)
{
    for (size_t i = 0; i < width; i++) {
        const unsigned code = i % 2 ? nibbles[i / 2] >> 4 : nibbles[i / 2] & 15;
        weights[i] = mq__e2m1_decode(code) * mq__e4m3_decode(scales[i / BLOCK]) * multiplier;
    }
}

bool mq__nvfp4_scales_are_valid(const uint8_t *scales, size_t count)
{
    uint8_t bad = 0;
    for (size_t i = 0; i < count; i++) {
        bad |= (uint8_t)((scales[i] & 0x80) | (scales[i] == 0x7f));
    }
    return bad == 0;
}
