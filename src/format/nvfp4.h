/* NVFP4, the format as code: E2M1 values in blocks of 16 along the input dimension, one E4M3 scale per block, one FP32
 * scale per tensor (Mix-Quant section 3.3; compressed-tensors and ModelOpt layouts).
 *
 * The canonical form of a matrix [O, I] is what both layouts share: nibbles [O, ceil(I/16)*8] bytes (element 2i in the low
 * nibble of byte i) and E4M3 scales [O, ceil(I/16)]; I is zero-padded to a whole block. Its tensor scale is kept as a
 * multiplier: w = e2m1 * e4m3 * multiplier. compressed-tensors stores the reciprocal. */
#ifndef MQ_NVFP4_H
#define MQ_NVFP4_H

#include "mixquant.h"

#define MQ_NVFP4_VALUES 16 /* per block */

static inline size_t mq__nvfp4_blocks(size_t i)
{
    return (i + MQ_NVFP4_VALUES - 1) / MQ_NVFP4_VALUES;
}

/* The value of a 4-bit code, and the code of a value: nearest, ties to the even code, saturating, sign of zero kept. */
float mq__e2m1_decode(unsigned code);
unsigned mq__e2m1_encode(float value);

/* Which element type a row of source weights has. */
typedef enum mq_weight_type { MQ_WEIGHT_BF16, MQ_WEIGHT_F16, MQ_WEIGHT_F32 } mq_weight_type;

/* The largest magnitude of `count` weights; NaN when any of them is not finite. */
float mq__weights_amax(const void *weights, mq_weight_type type, size_t count);

/* How the block scales and codes are chosen.
 *   RTN       compressed-tensors: divisor 2688/amax, scale amax_b/6, a zero scale becomes 0.125
 *   MODELOPT  multiplier amax/2688, zero blocks get scale 1, division instead of multiplication by reciprocals
 *   FOUR_SIX  divisor 1536/amax, block maximum maps to 6 or 4, whichever has the smaller squared error
 *   SWEEP     divisor 2688/amax, the E4M3 scale with the smallest squared error of all that matter */
typedef enum mq_nvfp4_rule { MQ_NVFP4_RTN, MQ_NVFP4_MODELOPT, MQ_NVFP4_FOUR_SIX, MQ_NVFP4_SWEEP } mq_nvfp4_rule;

/* The tensor scale of a rule for weights (or a fused group of them) of this largest magnitude. */
typedef struct mq_nvfp4_scale {
    float divisor;    /* as compressed-tensors stores it */
    float multiplier; /* as ModelOpt stores it */
} mq_nvfp4_scale;

mq_nvfp4_scale mq__nvfp4_scale(mq_nvfp4_rule rule, float amax);

/* Quantises one row of `width` finite weights: blocks*8 bytes of nibbles, blocks scales. */
void mq__nvfp4_quantize_row(mq_nvfp4_rule rule, mq_nvfp4_scale scale, const void *weights, mq_weight_type type,
                            size_t width, uint8_t *nibbles, uint8_t *scales);

/* The inverse: `width` floats. */
void mq__nvfp4_dequantize_row(const uint8_t *nibbles, const uint8_t *scales, float multiplier, size_t width,
                              float *weights);

/* What a loader must know before it uses foreign scales: false when a byte is NaN or negative. */
bool mq__nvfp4_scales_are_valid(const uint8_t *scales, size_t count);

#endif
