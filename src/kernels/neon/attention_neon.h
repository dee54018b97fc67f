/* Between the attention files of the NEON levels. */
#ifndef MQ_KERNELS_ATTENTION_NEON_H
#define MQ_KERNELS_ATTENTION_NEON_H

#include "kernels/kernels.h"
#include "kernels/neon/vector_neon.h"

void mq__attention_prefill_neon(const mq_attention *a);
size_t mq__attention_prefill_scratch_neon(uint32_t heads, uint32_t head_dim);

void mq__attention_decode_span_neon(const mq_attention *a, uint32_t kv_heads, uint32_t span, float *partial,
                                    size_t head_step, size_t row_step);
void mq__attention_decode_merge_neon(const mq_attention *a, uint32_t spans, const float *partials);
size_t mq__attention_decode_scratch_neon(uint32_t heads, uint32_t head_dim);

/* All bits of the first `count` of 4 lanes. */
INLINE uint32x4_t first_lanes_neon(size_t count)
{
    const uint32x4_t lane = {0, 1, 2, 3};
    return vcltq_u32(lane, vdupq_n_u32(count < 4 ? (uint32_t)count : 4));
}

/* The first `count` of 8 bf16, then zeros; nothing past them is read. */
INLINE uint16x8_t load_first_bf16(const uint16_t *from, size_t count)
{
    uint16_t part[8] = {0};
    if (count >= 8) return vld1q_u16(from);
    return vld1q_u16(memcpy(part, from, count * sizeof *part));
}

#endif
