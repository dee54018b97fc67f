#include "format/nvfp4.h"

#include "base/halffloat.h"

#include <math.h>
#include <string.h>

float mq__e2m1_decode(unsigned code)
{
    static const float magnitude[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    return code & 8 ? -magnitude[code & 7] : magnitude[code & 7];
}

/* Codes of magnitudes count the thresholds passed; >= where the tie goes up to the even code. Branch-free, so that the
 * compiler vectorises the loop over a block. */
static inline uint8_t encode_magnitude(float a)
{
    return (uint8_t)((a > 0.25f) + (a >= 0.75f) + (a > 1.25f) + (a >= 1.75f) + (a > 2.5f) + (a >= 3.5f) + (a > 5.0f));
}

unsigned mq__e2m1_encode(float value)
{
    return encode_magnitude(fabsf(value)) | (mq__f32_bits(value) >> 31 << 3);
}

#define BLOCK MQ_NVFP4_VALUES

/* One block as floats, zeros past the row's end. */
static void load_block(const void *weights, mq_weight_type type, size_t first, size_t width, float x[BLOCK])
{
    const size_t count = width - first < BLOCK ? width - first : BLOCK;
    uint16_t half[BLOCK] = {0};
    memset(x, 0, BLOCK * sizeof *x);
    if (type == MQ_WEIGHT_F32) {
        memcpy(x, (const char *)weights + first * sizeof *x, count * sizeof *x);
        return;
    }
    memcpy(half, (const char *)weights + first * sizeof *half, count * sizeof *half);
    for (int i = 0; i < BLOCK; i++) {
        x[i] = type == MQ_WEIGHT_BF16 ? mq__bf16_to_f32(half[i]) : mq__f16_to_f32(half[i]);
    }
}

static float block_amax(const float x[BLOCK])
{
    /* As integers, because magnitudes order like their bits; a float maximum would have to mind NaN and not vectorise. */
    uint32_t best = 0;
    for (int i = 0; i < BLOCK; i++) {
        const uint32_t bits = mq__f32_bits(x[i]) & 0x7fffffff;
        best = bits > best ? bits : best;
    }
    return mq__f32_from_bits(best);
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
    const float safe = fmaxf(amax, range * 0x1p-126f); /* the divisor stays finite, the multiplier normal */
    if (rule == MQ_NVFP4_MODELOPT) return (mq_nvfp4_scale){range / safe, safe / range};
    const float divisor = range / safe;
    return (mq_nvfp4_scale){divisor, 1.0f / divisor};
}

/* Codes of x * inverse, into nibbles; the caller's x is zero past the end. */
static void encode_block(const float x[BLOCK], float inverse, uint8_t codes[BLOCK])
{
    for (int i = 0; i < BLOCK; i++) {
        const float scaled = x[i] * inverse;
        codes[i] = (uint8_t)(encode_magnitude(fabsf(scaled)) | (mq__f32_bits(x[i]) >> 31 << 3));
    }
}

/* The same by division, as compressed-tensors and ModelOpt round. */
static void encode_block_by_division(const float x[BLOCK], float step, uint8_t codes[BLOCK])
{
    for (int i = 0; i < BLOCK; i++) {
        const float scaled = x[i] / step;
        codes[i] = (uint8_t)(encode_magnitude(fabsf(scaled)) | (mq__f32_bits(x[i]) >> 31 << 3));
    }
}

static float squared_error(const float x[BLOCK], const uint8_t codes[BLOCK], float step)
{
    float sum = 0;
    for (int i = 0; i < BLOCK; i++) {
        const float d = mq__e2m1_decode(codes[i]) * step - x[i];
        sum += d * d;
    }
    return sum;
}

static uint8_t quantize_rtn(mq_nvfp4_scale scale, const float x[BLOCK], uint8_t codes[BLOCK])
{
    uint8_t byte = mq__e4m3_encode(scale.divisor * (block_amax(x) / 6.0f));
    if (byte == 0) byte = 0x20; /* 0.125: the "eps" of compressed-tensors for zero and underflowing blocks */
    encode_block_by_division(x, mq__e4m3_decode(byte) / scale.divisor, codes);
    return byte;
}

static uint8_t quantize_modelopt(mq_nvfp4_scale scale, const float x[BLOCK], uint8_t codes[BLOCK])
{
    float relative = block_amax(x) / (6.0f * scale.multiplier);
    if (relative == 0) relative = 1.0f;
    const uint8_t byte = mq__e4m3_encode(relative);
    const float step = mq__e4m3_decode(byte) * scale.multiplier;
    if (step == 0) memset(codes, 0, BLOCK); /* underflowed scale: the block decodes to zeros whatever its codes are */
    else encode_block_by_division(x, step, codes);
    return byte;
}

static uint8_t quantize_four_six(mq_nvfp4_scale scale, const float x[BLOCK], uint8_t codes[BLOCK])
{
    const float relative = block_amax(x) / 6.0f * scale.divisor;
    const uint8_t bytes[2] = {mq__e4m3_encode(relative), mq__e4m3_encode(relative * 1.5f)};
    float best = INFINITY;
    uint8_t chosen = 0;
    for (int i = 0; i < 2; i++) {
        uint8_t candidate[BLOCK] = {0};
        const float step = mq__e4m3_decode(bytes[i]) * scale.multiplier;
        if (step > 0) encode_block(x, 1.0f / step, candidate);
        const float error = squared_error(x, candidate, step);
        if (!(error < best)) continue; /* strict: ties keep six */
        best = error;
        chosen = bytes[i];
        memcpy(codes, candidate, BLOCK);
    }
    return chosen;
}

static uint8_t quantize_sweep(mq_nvfp4_scale scale, const float x[BLOCK], uint8_t codes[BLOCK])
{
    /* A scale above 1.05 * amax/6 * 2 maps the maximum below 3: never better than its half. Below 0.4 * amax/6 the maximum
     * is clipped by more than half: its error alone exceeds that of round-to-nearest. */
    const float relative = block_amax(x) / 6.0f * scale.divisor;
    const int low = mq__e4m3_encode(relative * 0.4f), high = mq__e4m3_encode(relative * 2.1f);
    float best = INFINITY;
    uint8_t chosen = quantize_rtn(scale, x, codes);
    for (int byte = low > 1 ? low : 1; byte <= high; byte++) {
        uint8_t candidate[BLOCK];
        const float step = mq__e4m3_decode((uint8_t)byte) * scale.multiplier;
        encode_block(x, 1.0f / step, candidate);
        const float error = squared_error(x, candidate, step);
        if (!(error < best)) continue;
        best = error;
        chosen = (uint8_t)byte;
        memcpy(codes, candidate, BLOCK);
    }
    return chosen;
}

void mq__nvfp4_quantize_row(mq_nvfp4_rule rule, mq_nvfp4_scale scale, const void *weights, mq_weight_type type,
                            size_t width, uint8_t *nibbles, uint8_t *scales)
{
    float x[BLOCK];
    uint8_t codes[BLOCK];
    for (size_t b = 0; b < mq__nvfp4_blocks(width); b++, nibbles += BLOCK / 2) {
        load_block(weights, type, b * BLOCK, width, x);
        switch (rule) {
        case MQ_NVFP4_MODELOPT:
            scales[b] = quantize_modelopt(scale, x, codes);
            break;
        case MQ_NVFP4_FOUR_SIX:
            scales[b] = quantize_four_six(scale, x, codes);
            break;
        case MQ_NVFP4_SWEEP:
            scales[b] = quantize_sweep(scale, x, codes);
            break;
        case MQ_NVFP4_RTN:
        default:
            scales[b] = quantize_rtn(scale, x, codes);
            break;
        }
        for (int i = 0; i < BLOCK / 2; i++) {
            nibbles[i] = (uint8_t)(codes[2 * i] | codes[2 * i + 1] << 4);
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
