/* What the matrix products of the NEONI8MM level share. An instruction multiplies 2 rows by 2 features, so that sums are vectors
 * {row 0 feature 0, row 0 feature 1, row 1 feature 0, row 1 feature 1}. */
#ifndef MQ_KERNELS_PAIRS_NEONI8MM_H
#define MQ_KERNELS_PAIRS_NEONI8MM_H

#include "kernels/neon/vector_neon.h"

/* The lower, the upper halves of two vectors, one after the other. */
INLINE uint8x16_t low_halves(uint8x16_t a, uint8x16_t b)
{
    return vreinterpretq_u8_u64(vzip1q_u64(vreinterpretq_u64_u8(a), vreinterpretq_u64_u8(b)));
}

INLINE uint8x16_t high_halves(uint8x16_t a, uint8x16_t b)
{
    return vreinterpretq_u8_u64(vzip2q_u64(vreinterpretq_u64_u8(a), vreinterpretq_u64_u8(b)));
}

INLINE float32x4_t low_floats(float32x4_t a, float32x4_t b)
{
    return vreinterpretq_f32_f64(vzip1q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

INLINE float32x4_t high_floats(float32x4_t a, float32x4_t b)
{
    return vreinterpretq_f32_f64(vzip2q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

/* One float of each of two rows as a pair's sums want it: {x, x, y, y}. */
INLINE float32x4_t pair_of(const float *x, const float *y)
{
    const float32x4_t both = vzip1q_f32(load_one(x), load_one(y));
    return vzip1q_f32(both, both);
}

/* Where the sums of a pair of rows and a pair of features wait: 16 features of two rows of a tile hold 8 of them, as they are,
 * until split_pairs makes them rows. */
INLINE float *pair_sums(float *row, float *next_row, size_t pair)
{
    return pair < 4 ? row + 4 * pair : next_row + 4 * (pair - 4);
}

/* 16 features of two rows: 8 vectors of sums become the floats of the two rows. */
INLINE void split_pairs(float *row, float *next_row)
{
    float32x4_t sum[8];
    for (size_t f = 0; f < 8; f++)
        sum[f] = vld1q_f32(pair_sums(row, next_row, f));
    for (size_t f = 0; f < 8; f += 2) {
        vst1q_f32(row + 2 * f, low_floats(sum[f], sum[f + 1]));
        vst1q_f32(next_row + 2 * f, high_floats(sum[f], sum[f + 1]));
    }
}

#endif
