/* The packed form of NVFP4 weights and the scalar view of it; the arithmetic of E2M1 and E4M3 in one place.
 *
 * A cell is 16 k x 32 features in MQ_NVFP4_CELL = 288 bytes: 256 bytes of nibbles, then one E4M3 scale per feature.
 * Nibbles come as four vectors of 64 bytes, [half of k: 0..7, 8..15][features 0..15, 16..31]. A vector is 16 dwords,
 * one per feature; byte i of the dword holds k = 8*half + i in its low nibble and k = 8*half + 4 + i in its high nibble:
 *
 *     byte   = 128*(k/8) + 64*(feature/16) + 4*(feature%16) + k%4
 *     nibble = low when k%8 < 4, else high
 *     scale  = byte 256 + feature
 *
 * Why so: `vector & 15` and `(vector >> 4) & 15` followed by one byte shuffle are operands of the dot-product
 * instructions (4 consecutive k of 16 features, or of 8 in half a vector), and a dword shift by 8*(k%4) + 4*(k%8/4) bits
 * leaves the code of one k of 16 features in the low bits of 16 dwords, ready to index a table of floats. */
#ifndef MQ_KERNELS_NVFP4_PACK_H
#define MQ_KERNELS_NVFP4_PACK_H

#include "kernels/kernels.h"

#include <string.h>

#define MQ_NVFP4_CELL_SCALES 256                            /* offset of the scale bytes in a weight cell */
#define MQ_NVFP4_ROW_SCALES  (MQ_NVFP4_MR * MQ_NVFP4_BLOCK) /* offset of the f32 scales in an activation cell */
#define MQ_NVFP4_OFFSET      12                             /* activations are stored as 2*e2m1 + 12: unsigned */

/* Below this largest magnitude a row of activations is quantised as if it were zero: keeps every step of the
 * quantiser in the normal range of FP32. */
#define MQ_NVFP4_TINY 0x1p-100f

/* 2*e2m1 of a code (sign, two exponent bits, one mantissa bit). */
static inline int mq__e2m1_doubled(unsigned code)
{
    static const int8_t magnitude[8] = {0, 1, 2, 3, 4, 6, 8, 12};
    return code & 8 ? -magnitude[code & 7] : magnitude[code & 7];
}

/* Value of a scale byte. Scales are finite and not negative (0 .. 0x7e): the loader refuses others. */
static inline float mq__e4m3_to_f32(uint8_t byte)
{
    if (byte < 8) return (float)byte * 0x1p-9f;
    const uint32_t bits = ((uint32_t)byte << 20) + (120u << 23);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Code of weight (k, feature) of a cell, k < 16, feature < 32. */
static inline unsigned mq__nvfp4_cell_code(const uint8_t *cell, unsigned k, unsigned feature)
{
    const unsigned byte = cell[128 * (k / 8) + 64 * (feature / 16) + 4 * (feature % 16) + k % 4];
    return k % 8 < 4 ? byte & 15 : byte >> 4;
}

static inline float mq__nvfp4_cell_scale(const uint8_t *cell, unsigned feature)
{
    return mq__e4m3_to_f32(cell[MQ_NVFP4_CELL_SCALES + feature]);
}

/* Panel p of packed weights: `blocks` cells, k ascending. */
static inline const uint8_t *mq__nvfp4_panel(const mq_nvfp4 *w, size_t p)
{
    return w->panels + p * w->blocks * MQ_NVFP4_CELL;
}

/* Fills rows [row1, end of its group) of quantised activations with 12 and scale 0. */
void mq__nvfp4_pad_rows(uint8_t *panels, size_t row1, size_t blocks);

#ifdef MQ_X86
/* The quantiser of each level (contract: mq_kernels.nvfp4_quantize); the file of the GEMM puts them into the table. */
void mq__nvfp4_quantize_avx2(const float *x, size_t ldx, size_t row0, size_t row1, size_t k_width,
                             const mq_nvfp4_rows *out);
void mq__nvfp4_quantize_avx512(const float *x, size_t ldx, size_t row0, size_t row1, size_t k_width,
                               const mq_nvfp4_rows *out);
#endif

#endif
