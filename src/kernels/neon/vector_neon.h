/* What the files of the NEON levels share: vectors of four floats, and the end of a row of sums. */
#ifndef MQ_KERNELS_VECTOR_NEON_H
#define MQ_KERNELS_VECTOR_NEON_H

#include "kernels/ref/math_ref.h"

#include <arm_neon.h>
#include <stdbool.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32") /* early: or else the sums live on the stack */

/* The 16 lanes of the contract (lane = i mod 16) are four vectors. They are added pairwise: 8+8, 4+4, 2+2, 1+1. */
INLINE float sum_lanes_neon(const float32x4_t v[4])
{
    const float32x4_t b = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
    const float32x2_t c = vadd_f32(vget_low_f32(b), vget_high_f32(b));
    return vget_lane_f32(c, 0) + vget_lane_f32(c, 1);
}

/* The first `count` of four floats, then zeros; nothing past them is read. */
INLINE float32x4_t load_first(const float *x, size_t count)
{
    float part[4] = {0};
    if (count >= 4) return vld1q_f32(x);
    for (size_t i = 0; i < count; i++)
        part[i] = x[i];
    return vld1q_f32(part);
}

INLINE void store_first(float *y, float32x4_t v, size_t count)
{
    float part[4];
    if (count >= 4) {
        vst1q_f32(y, v);
        return;
    }
    vst1q_f32(part, v);
    for (size_t i = 0; i < count; i++)
        y[i] = part[i];
}

/* A load that the compiler neither moves nor merges with another one of the same address: a copy would take an issue slot of the
 * multiplying units, a load does not. */
INLINE float32x4_t load_anew(const float *at)
{
    float32x4_t v;
    __asm__ volatile("ldr %q0, %1" : "=w"(v) : "m"(*(const float32x4_t *)(const void *)at));
    return v;
}

/* One element, in lane 0: no broadcast, which would take a slot of the multiplying units. */
INLINE float32x4_t load_one(const float *at)
{
    float32x4_t v;
    __asm__("ldr %s0, %1" : "=w"(v) : "m"(*at));
    return v;
}

/* sum + b * x; the element of a register is an operand of the multiplication. As asm, because gcc 12 makes a broadcast of it when
 * it is used twice. */
INLINE float32x4_t fma_lane(float32x4_t sum, float32x4_t b, float32x4_t x, int lane)
{
#define CASE(i)                                                                                                        \
    case i:                                                                                                            \
        __asm__("fmla %0.4s, %1.4s, %2.s[" #i "]" : "+w"(sum) : "w"(b), "w"(x));                                       \
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

/* Four bf16, or the lower or upper half of eight, as floats. */
INLINE float32x4_t widen_bf16(uint16x4_t half)
{
    return vreinterpretq_f32_u32(vshll_n_u16(half, 16));
}

INLINE float32x4_t widen_bf16_low(uint16x8_t x)
{
    return widen_bf16(vget_low_u16(x));
}

INLINE float32x4_t widen_bf16_high(uint16x8_t x)
{
    return vreinterpretq_f32_u32(vshll_high_n_u16(x, 16));
}

/* The two bf16 of each dword as floats: element 2i, element 2i + 1. */
INLINE float32x4_t even_bf16(uint16x8_t x)
{
    return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_u16(x), 16));
}

INLINE float32x4_t odd_bf16(uint16x8_t x)
{
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_u16(x), vdupq_n_u32(0xffff0000u)));
}

/* BF16 to nearest even, two vectors; a NaN becomes quiet. */
INLINE uint16x4_t narrow_bf16(float32x4_t x)
{
    const uint32x4_t bits = vreinterpretq_u32_f32(x), odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
    const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
    return vshrn_n_u32(vbslq_u32(vceqq_f32(x, x), rounded, quiet), 16);
}

/* v[j] lane i becomes v[i] lane j. */
INLINE void transpose_4x4(uint32x4_t v[4])
{
    const uint32x4_t a = vtrn1q_u32(v[0], v[1]), b = vtrn2q_u32(v[0], v[1]);
    const uint32x4_t c = vtrn1q_u32(v[2], v[3]), d = vtrn2q_u32(v[2], v[3]);
    v[0] = vreinterpretq_u32_u64(vtrn1q_u64(vreinterpretq_u64_u32(a), vreinterpretq_u64_u32(c)));
    v[1] = vreinterpretq_u32_u64(vtrn1q_u64(vreinterpretq_u64_u32(b), vreinterpretq_u64_u32(d)));
    v[2] = vreinterpretq_u32_u64(vtrn2q_u64(vreinterpretq_u64_u32(a), vreinterpretq_u64_u32(c)));
    v[3] = vreinterpretq_u32_u64(vtrn2q_u64(vreinterpretq_u64_u32(b), vreinterpretq_u64_u32(d)));
}

/* y = sum * scale (+ bias) (+ y) for `features` floats of one row. */
static inline void finish_row_neon(float *y, const float *sum, size_t features, float scale, const float *bias,
                                   bool accumulate)
{
    for (size_t f = 0; f < features; f += 4) {
        const size_t left = features - f;
        float32x4_t value = vmulq_n_f32(vld1q_f32(sum + f), scale);
        if (bias) value = vaddq_f32(value, load_first(bias + f, left));
        if (accumulate) value = vaddq_f32(load_first(y + f, left), value);
        store_first(y + f, value, left);
    }
}

#endif
