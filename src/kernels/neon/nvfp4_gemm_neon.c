/* NVFP4 W4A4 GEMM of the NEON level, without dot-product instructions: kernels/neon/nvfp4_rows_neon.h.
 *
 * Products of bytes are added up in 16 bits, where 4 of at most 288 fit: 8 multiplications for 64 products, two pairwise sums,
 * and 4 broadcasts that 8 features share. */
#include "kernels/neon/nvfp4_neon.h"
#include "kernels/table.h"

INLINE int32x4_t tile_dot16(int32x4_t t, const int8x16_t w[4], int8x16_t a)
{
    const int32x4_t quads = vreinterpretq_s32_s8(a);
    const int8x16_t x0 = vreinterpretq_s8_s32(vdupq_laneq_s32(quads, 0)), /* 4 k for each of 4 features */
        x1 = vreinterpretq_s8_s32(vdupq_laneq_s32(quads, 1)), x2 = vreinterpretq_s8_s32(vdupq_laneq_s32(quads, 2)),
                    x3 = vreinterpretq_s8_s32(vdupq_laneq_s32(quads, 3));
    int16x8_t low = vmull_s8(vget_low_s8(w[0]), vget_low_s8(x0)), high = vmull_high_s8(w[0], x0);
    low = vmlal_s8(low, vget_low_s8(w[1]), vget_low_s8(x1));
    high = vmlal_high_s8(high, w[1], x1);
    low = vmlal_s8(low, vget_low_s8(w[2]), vget_low_s8(x2));
    high = vmlal_high_s8(high, w[2], x2);
    low = vmlal_s8(low, vget_low_s8(w[3]), vget_low_s8(x3));
    high = vmlal_high_s8(high, w[3], x3);
    return vpadalq_s16(t, vpaddq_s16(low, high));
}

#include "kernels/neon/nvfp4_rows_neon.h"

void mq__fill_neon_nvfp4(mq_kernels *table)
{
    const size_t need = mq__nvfp4_scratch_bytes();
    table->nvfp4_quantize = mq__nvfp4_quantize_neon;
    table->nvfp4_gemm = nvfp4_gemm_rows;
    if (table->gemm_scratch_bytes < need) table->gemm_scratch_bytes = need;
}
