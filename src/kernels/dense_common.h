/* What the dense kernels of all levels share: one weight as FP32, and the epilogue of one output. */
#ifndef MQ_KERNELS_DENSE_COMMON_H
#define MQ_KERNELS_DENSE_COMMON_H

#include "kernels/kernels.h"

#include <string.h>

/* Parts of each level's dense slots, filled by mq__fill_*_dense. */
void mq__fill_avx2_thin(mq_kernels *table);
void mq__fill_avx512_thin(mq_kernels *table);
void mq__fill_ref_w4a16(mq_kernels *table);
void mq__fill_avx2_w4a16(mq_kernels *table);
void mq__fill_avx512_w4a16(mq_kernels *table);
void mq__fill_neon_thin(mq_kernels *table);
void mq__fill_neon_w4a16(mq_kernels *table);

static inline float f32_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* IEEE binary16; NaNs come back quiet, as from VCVTPH2PS. */
static inline float f32_of_f16(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = (half >> 10) & 31u, fraction = half & 1023u;
    if (exponent == 31) return f32_of_bits(sign | 0x7F800000u | (fraction ? 0x400000u | fraction << 13 : 0));
    if (exponent == 0) {
        const float magnitude = (float)fraction * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    return f32_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

/* K up to which one row's activations are a small part of L1 beside whatever passes. */
enum { THIN_SHORT = 1536 };

/* Whether L1 (32 KiB) keeps the activations of some rows of a thin product while so many features pass through it with them.
 * Prefetchers make up for a little more. */
static inline bool thin_stays(const mq_dense *w, size_t features, size_t rows)
{
    const size_t element = w->type == MQ_DENSE_F32 ? 4 : 2;
    return w->k_width * (features * element + rows * sizeof(float)) <= 36 << 10;
}

/* Element `index` of a row-major matrix of the given type. */
static inline float dense_element(const void *data, mq_dense_type type, size_t index)
{
    if (type == MQ_DENSE_F32) return ((const float *)data)[index];
    const uint16_t half = ((const uint16_t *)data)[index];
    return type == MQ_DENSE_BF16 ? f32_of_bits((uint32_t)half << 16) : f32_of_f16(half);
}

/* y = sum (+ bias) (+ y): every step rounded, in this order, on every level. */
static inline void finish_output(const mq_epilogue *out, size_t row, size_t feature, float sum)
{
    float *y = out->y + row * out->ldy + feature;
    if (out->bias) sum += out->bias[feature];
    *y = out->accumulate ? *y + sum : sum;
}

#endif
