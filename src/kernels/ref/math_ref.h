/* The arithmetic that every level repeats operation by operation, so that EXACT slots agree to the bit. */
#ifndef MQ_KERNELS_MATH_REF_H
#define MQ_KERNELS_MATH_REF_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t mq__bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float mq__float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* e^x within 2 ulp for x in [MQ_EXP_LOW, MQ_EXP_HIGH]; arguments outside (and NaN: to HIGH) are clamped to it, so that
 * the result is always a normal number. x = n*ln2 + r with n an integer and |r| <= ln2/2; e^r by a polynomial of degree 6
 * with minimax coefficients (relative error 3.1e-9); 2^n by adding n to the exponent. n is found by adding 1.5*2^23,
 * which leaves it in the low mantissa bits. */
#define MQ_EXP_LOW    (-86.5f)
#define MQ_EXP_HIGH   88.0f
#define MQ_EXP_MAGIC  12582912.0f
#define MQ_EXP_LOG2E  0x1.715476p+0f
#define MQ_EXP_LN2_HI 0x1.62e400p-1f /* 15 significant bits: n*LN2_HI is exact */
#define MQ_EXP_LN2_LO 0x1.7f7d1cp-20f
#define MQ_EXP_C2     0x1.fffffcp-2f
#define MQ_EXP_C3     0x1.555492p-3f
#define MQ_EXP_C4     0x1.5558f2p-5f
#define MQ_EXP_C5     0x1.1239e2p-7f
#define MQ_EXP_C6     0x1.6a2434p-10f

static inline float mq__exp_f32(float x)
{
    x = x < MQ_EXP_HIGH ? x : MQ_EXP_HIGH;
    x = x > MQ_EXP_LOW ? x : MQ_EXP_LOW;
    const float t = fmaf(x, MQ_EXP_LOG2E, MQ_EXP_MAGIC);
    const float n = t - MQ_EXP_MAGIC;
    const float r = fmaf(n, -MQ_EXP_LN2_LO, fmaf(n, -MQ_EXP_LN2_HI, x));
    float p = fmaf(MQ_EXP_C6, r, MQ_EXP_C5);
    p = fmaf(p, r, MQ_EXP_C4);
    p = fmaf(p, r, MQ_EXP_C3);
    p = fmaf(p, r, MQ_EXP_C2);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    return mq__float_of(mq__bits_of(p) + (mq__bits_of(t) << 23));
}

/* What e is raised to in gelu(x) = x / (1 + e^y), y = (x * (0.044715 x^2 + 1)) * -2 sqrt(2/pi). */
#define MQ_GELU_CUBIC 0x1.6e4e26p-5f
#define MQ_GELU_SCALE (-0x1.988454p+0f)

static inline float mq__gelu_exponent(float x)
{
    return x * fmaf(MQ_GELU_CUBIC, x * x, 1.0f) * MQ_GELU_SCALE;
}

/* The order in which 16 partial sums become one: 8+8, 4+4, 2+2, 1+1. */
static inline float mq__sum_lanes16(const float lanes[16])
{
    float s[8];
    for (int i = 0; i < 8; i++) {
        s[i] = lanes[i] + lanes[i + 8];
    }
    for (int half = 4; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) {
            s[i] += s[i + half];
        }
    }
    return s[0];
}

static inline float mq__ref_bf16_to_f32(uint16_t x)
{
    return mq__float_of((uint32_t)x << 16);
}

/* Round to nearest even; a NaN keeps its sign and upper payload and becomes quiet. */
static inline uint16_t mq__ref_f32_to_bf16(float x)
{
    const uint32_t bits = mq__bits_of(x);
    if ((bits & 0x7fffffff) > 0x7f800000) {
        return (uint16_t)(bits >> 16 | 0x40);
    }
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Exact; a NaN becomes quiet, as the conversion instructions make it. */
static inline float mq__ref_f16_to_f32(uint16_t x)
{
    const uint32_t sign = (uint32_t)(x & 0x8000) << 16, exponent = x >> 10 & 31, mantissa = x & 0x3ff;
    if (exponent == 31) {
        return mq__float_of(sign | 0x7f800000 | mantissa << 13 | (mantissa ? 0x400000u : 0));
    }
    if (exponent == 0) { /* mantissa * 2^-24 is a normal float, or zero */
        return mq__float_of(sign | mq__bits_of((float)mantissa * 0x1p-24f));
    }
    return mq__float_of(sign | (exponent + 112) << 23 | mantissa << 13);
}

#endif
