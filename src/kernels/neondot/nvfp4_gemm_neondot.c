/* NVFP4 W4A4 GEMM with 8-bit dot products: kernels/neon/nvfp4_rows_neon.h.
 *
 * Per block of one row and 4 features 4 SDOT, whose activations are an element of a register, and 2 FMA: 6 instructions of the
 * multiplying units for 64 products, where FP32 has 16. */
#include "kernels/neon/nvfp4_neon.h"
#include "kernels/table.h"

INLINE int32x4_t tile_dot16(int32x4_t t, const int8x16_t w[4], int8x16_t a)
{
    t = vdotq_laneq_s32(t, w[0], a, 0);
    t = vdotq_laneq_s32(t, w[1], a, 1);
    t = vdotq_laneq_s32(t, w[2], a, 2);
    return vdotq_laneq_s32(t, w[3], a, 3);
}

#include "kernels/neon/nvfp4_rows_neon.h"

void mq__nvfp4_gemm_neondot(const mq_nvfp4_rows *a, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                            const mq_epilogue *out, void *scratch)
{
    nvfp4_gemm_rows(a, rows, w, p0, p1, out, scratch);
}

void mq__fill_neondot_nvfp4(mq_kernels *table)
{
    table->nvfp4_gemm = mq__nvfp4_gemm_neondot;
}
