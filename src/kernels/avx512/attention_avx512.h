/* Between the attention files of the AVX-512 level. */
#ifndef MQ_KERNELS_ATTENTION_AVX512_H
#define MQ_KERNELS_ATTENTION_AVX512_H

#include "kernels/kernels.h"

#include "kernels/avx512/transpose_avx512.h"

void mq__attention_prefill_avx512(const mq_attention *a);
size_t mq__attention_prefill_scratch_avx512(uint32_t heads, uint32_t head_dim);

/* Scratch as the FP32 kernel's. */
void mq__attention_bf16_avx512bf16(const mq_attention *a);

void mq__attention_int8_avx512(const mq_attention *a);
/* The same with another arithmetic for the tile of positions that the rows are in themselves. A `pass` is that of
 * kernels/attention_tiles.h, of which all files of these levels have the same sizes. */
struct pass;
typedef void mq_own_tile(const struct pass *pass, size_t own);
void mq__attention_int8_with(const mq_attention *a, mq_own_tile *finish);
void mq__attention_int8_avx512bf16(const mq_attention *a);
size_t mq__attention_int8_scratch_avx512(uint32_t heads, uint32_t head_dim);

void mq__attention_decode_span_l1_avx512(const mq_attention *a, uint32_t kv_heads, uint32_t span, float *partial,
                                         size_t head_step, size_t row_step);
void mq__attention_decode_span_l2_avx512(const mq_attention *a, uint32_t kv_heads, uint32_t span, float *partial,
                                         size_t head_step, size_t row_step);
void mq__attention_decode_merge_avx512(const mq_attention *a, uint32_t spans, const float *partials);
size_t mq__attention_decode_scratch_avx512(uint32_t heads, uint32_t head_dim);

/* The two bf16 of each dword as floats: element 2i from the low half, 2i + 1 from the high half. */
static inline __m512 low_bf16_attention_avx512(__m512i dwords)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(dwords, 16));
}

static inline __m512 high_bf16_attention_avx512(__m512i dwords)
{
    return _mm512_castsi512_ps(_mm512_and_si512(dwords, _mm512_set1_epi32((int)0xffff0000)));
}

#endif
