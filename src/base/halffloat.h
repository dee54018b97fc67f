/* Small floating-point formats to and from FP32: BF16, F16, E4M3 (FN: no infinities, NaN 0x7f). Rounding is to nearest
 * even throughout. The loops over arrays in the kernels do the same with vector instructions. */
#ifndef MQ_BASE_HALFFLOAT_H
#define MQ_BASE_HALFFLOAT_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t mq__f32_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float mq__f32_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float mq__bf16_to_f32(uint16_t value)
{
    return mq__f32_from_bits((uint32_t)value << 16);
}

static inline uint16_t mq__f32_to_bf16(float value)
{
    const uint32_t bits = mq__f32_bits(value);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40); /* quiet NaN: rounding could lose it */
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline float mq__f16_to_f32(uint16_t value)
{
    const uint32_t sign = (uint32_t)(value & 0x8000) << 16, magnitude = value & 0x7fff;
    if (magnitude >= 0x7c00) return mq__f32_from_bits(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
    /* Shifted into place, the exponent is short by 112; the multiplication is exact and makes subnormals normal. */
    const float scaled = mq__f32_from_bits(magnitude << 13) * 0x1p112f;
    return mq__f32_from_bits(mq__f32_bits(scaled) | sign);
}

/* The value of an E4M3 byte; NaN for 0x7f and 0xff. */
static inline float mq__e4m3_decode(uint8_t byte)
{
    const int exponent = byte >> 3 & 15, mantissa = byte & 7;
    if ((byte & 0x7f) == 0x7f) return NAN;
    const float magnitude = exponent ? mq__f32_from_bits((uint32_t)(exponent + 120) << 23 | (uint32_t)mantissa << 20)
                                     : (float)mantissa * 0x1p-9f;
    return byte & 0x80 ? -magnitude : magnitude;
}

/* The nearest E4M3 byte; beyond +-448 it saturates; NaN stays NaN. */
static inline uint8_t mq__e4m3_encode(float value)
{
    const uint32_t bits = mq__f32_bits(value), magnitude = bits & 0x7fffffff;
    const uint8_t sign = (uint8_t)(bits >> 24 & 0x80);
    if (magnitude > 0x7f800000) return sign | 0x7f;
    if (magnitude >= 0x43e00000) return sign | 0x7e;                  /* 448 and above */
    if (magnitude < 0x3c800000) {                                     /* below 2^-6: steps of 2^-9 */
        const float shifted = mq__f32_from_bits(magnitude) + 0x1p14f; /* ulp(2^14) = 2^-9: the sum rounds for us */
        return (uint8_t)(sign | (mq__f32_bits(shifted) & 0xf));
    }
    const uint32_t rounded = magnitude + 0x7ffff + (magnitude >> 20 & 1);
    const uint32_t code = (rounded >> 20) - (120u << 3);
    return (uint8_t)(sign | (code > 0x7e ? 0x7e : code));
}

#endif
