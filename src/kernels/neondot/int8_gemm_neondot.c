/* INT8 W8A8 GEMM with 8-bit dot products: kernels/neon/int8_rows_neon.h.
 *
 * Per group of 64 k of one row and 4 features 16 SDOT, whose activations are an element of a register, 1 for the activations'
 * offset, and 3 to scale and add: 20 instructions of the multiplying units for 256 products, where FP32 has 64. */
#include "kernels/neon/int8_neon.h"
#include "kernels/table.h"

#define STEP 4

typedef int32x4_t tile_sum;

INLINE tile_sum tile_none(void)
{
    return vdupq_n_s32(0);
}

INLINE tile_sum tile_dot8(tile_sum t, int8x16_t w0, int8x16_t w1, int8x16_t a, int half)
{
    if (half) return vdotq_laneq_s32(vdotq_laneq_s32(t, w0, a, 2), w1, a, 3);
    return vdotq_laneq_s32(vdotq_laneq_s32(t, w0, a, 0), w1, a, 1);
}

INLINE int32x4_t tile_total(tile_sum t)
{
    return t;
}

#include "kernels/neon/int8_rows_neon.h"

void mq__int8_gemm_neondot(const mq_int8_rows *a, size_t rows, const mq_int8 *w, size_t p0, size_t p1,
                           const mq_epilogue *out, void *scratch)
{
    int8_gemm_rows(a, rows, w, p0, p1, out, scratch);
}

void mq__fill_neondot_int8(mq_kernels *table)
{
    table->int8_gemm = mq__int8_gemm_neondot;
}
