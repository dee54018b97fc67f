/* INT8 W8A8: quantiser and GEMM of the NEON level, without dot-product instructions: kernels/neon/int8_rows_neon.h.
 *
 * Products of signed bytes are at most 127*127, of which 16 bits hold two: 8 multiplications and 4 pairwise sums to 32 bits for 64
 * products, and 4 broadcasts that 16 features share. */
#include "kernels/neon/vector_neon.h"
#include "kernels/table.h"

#define STEP 2

typedef struct tile_sum {
    int32x4_t low, high; /* of features 0, 0, 1, 1; 2, 2, 3, 3 */
} tile_sum;

INLINE tile_sum tile_none(void)
{
    return (tile_sum){vdupq_n_s32(0), vdupq_n_s32(0)};
}

INLINE tile_sum tile_dot8(tile_sum t, int8x16_t w0, int8x16_t w1, int8x16_t a, int half)
{
    const int32x4_t quads = vreinterpretq_s32_s8(a);
    const int8x16_t x0 = vreinterpretq_s8_s32(half ? vdupq_laneq_s32(quads, 2) : vdupq_laneq_s32(quads, 0));
    const int8x16_t x1 = vreinterpretq_s8_s32(half ? vdupq_laneq_s32(quads, 3) : vdupq_laneq_s32(quads, 1));
    int16x8_t low = vmull_s8(vget_low_s8(w0), vget_low_s8(x0)), high = vmull_high_s8(w0, x0);
    low = vmlal_s8(low, vget_low_s8(w1), vget_low_s8(x1));
    high = vmlal_high_s8(high, w1, x1);
    t.low = vpadalq_s16(t.low, low);
    t.high = vpadalq_s16(t.high, high);
    return t;
}

INLINE int32x4_t tile_total(tile_sum t)
{
    return vpaddq_s32(t.low, t.high);
}

#include "kernels/neon/int8_rows_neon.h"

/* One group of 64 values. */
static void quantize_group_neon(const float *x, uint8_t *codes, uint8_t *scale_at)
{
    float32x4_t m = vdupq_n_f32(0);
    for (size_t i = 0; i < MQ_INT8_GROUP; i += 4)
        m = vmaxq_f32(m, vabsq_f32(vld1q_f32(x + i)));
    const float amax = vmaxvq_f32(m);
    const bool zero = amax < MQ_INT8_TINY;
    const float scale = zero ? 0 : amax * (1.0f / 127.0f), inverse = zero ? 0 : 127.0f / amax;
    for (size_t i = 0; i < MQ_INT8_GROUP; i += 16) {
        int16x4_t q[4];
        for (size_t j = 0; j < 4; j++)
            q[j] = vmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i + 4 * j), inverse)));
        const int8x16_t bytes = vcombine_s8(vmovn_s16(vcombine_s16(q[0], q[1])), vmovn_s16(vcombine_s16(q[2], q[3])));
        vst1q_u8(codes + i, veorq_u8(vreinterpretq_u8_s8(bytes), vdupq_n_u8(MQ_INT8_OFFSET)));
    }
    memcpy(scale_at, &scale, sizeof scale);
}

static void quantize_int8_neon(const float *x, size_t ldx, size_t row0, size_t row1, size_t k_width,
                               const mq_int8_rows *out)
{
    const size_t groups = (k_width + MQ_INT8_GROUP - 1) / MQ_INT8_GROUP;
    for (size_t m = row0; m < row1; m++) {
        const size_t r = m % MQ_INT8_MR;
        uint8_t *cell = out->panels + m / MQ_INT8_MR * groups * MQ_INT8_ROW_CELL;
        for (size_t k = 0; k < k_width; k += MQ_INT8_GROUP, cell += MQ_INT8_ROW_CELL) {
            float tail[MQ_INT8_GROUP] = {0};
            const float *from = x + m * ldx + k;
            if (k_width - k < MQ_INT8_GROUP) from = memcpy(tail, from, (k_width - k) * sizeof *from);
            quantize_group_neon(from, cell + r * MQ_INT8_GROUP, cell + MQ_INT8_ROW_SCALES + 4 * r);
        }
    }
    mq__int8_pad_rows(out->panels, row1, groups);
}

void mq__fill_neon_int8(mq_kernels *table)
{
    table->int8_quantize = quantize_int8_neon;
    table->int8_gemm = int8_gemm_rows;
    if (table->gemm_scratch_bytes < mq__int8_scratch_bytes()) table->gemm_scratch_bytes = mq__int8_scratch_bytes();
}
