/* What the files of the NEON levels share about NVFP4: values of codes and of scales. */
#ifndef MQ_KERNELS_NVFP4_NEON_H
#define MQ_KERNELS_NVFP4_NEON_H

#include "kernels/neon/vector_neon.h"
#include "kernels/nvfp4_pack.h"

/* 16 bytes of a cell, 4 features: twice the values of the low nibbles' 4 k, then of the high nibbles', [feature][k]. */
INLINE void doubled_neon(uint8x16_t packed, int8x16_t w[2])
{
    const int8x16_t table = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    w[0] = vqtbl1q_s8(table, vandq_u8(packed, vdupq_n_u8(15)));
    w[1] = vqtbl1q_s8(table, vshrq_n_u8(packed, 4));
}

/* The values of four scale bytes. Subnormal ones are m * 2^-9. */
INLINE float32x4_t e4m3_neon(const uint8_t *bytes)
{
    uint32_t four;
    memcpy(&four, bytes, sizeof four);
    const uint32x4_t x = vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four))));
    const uint32x4_t normal = vaddq_u32(vshlq_n_u32(x, 20), vdupq_n_u32(120u << 23));
    return vbslq_f32(vcltq_u32(x, vdupq_n_u32(8)), vcvtq_n_f32_u32(x, 9), vreinterpretq_f32_u32(normal));
}

/* A GEMM's rows are numbered through their groups; where row `m` lies in its group's cell. */
INLINE const uint8_t *row_codes(const uint8_t *a, size_t group_bytes, size_t m)
{
    return a + m / MQ_NVFP4_MR * group_bytes + m % MQ_NVFP4_MR * MQ_NVFP4_BLOCK;
}

INLINE const float *row_scale(const uint8_t *a, size_t group_bytes, size_t m)
{
    const uint8_t *cell = a + m / MQ_NVFP4_MR * group_bytes;
    return (const float *)(const void *)(cell + MQ_NVFP4_ROW_SCALES) + m % MQ_NVFP4_MR;
}

/* The quantiser of all NEON levels; the file of the GEMM puts it into the table. */
void mq__nvfp4_quantize_neon(const float *x, size_t ldx, size_t row0, size_t row1, size_t k_width,
                             const mq_nvfp4_rows *out);

/* The slot nvfp4_gemm of the NEONDOT level, which the next one uses for few rows. */
void mq__nvfp4_gemm_neondot(const mq_nvfp4_rows *a, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                            const mq_epilogue *out, void *scratch);

#endif
