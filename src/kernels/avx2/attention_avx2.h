/* Between the attention files of the AVX2 level. */
#ifndef MQ_KERNELS_ATTENTION_AVX2_H
#define MQ_KERNELS_ATTENTION_AVX2_H

#include "kernels/kernels.h"

#include <immintrin.h>

void mq__attention_prefill_avx2(const mq_attention *a);
size_t mq__attention_prefill_scratch_avx2(uint32_t heads, uint32_t head_dim);

#define MQ_INT8_MOST_AVX2 64 /* the largest code of a key or value */
void mq__attention_int8_avx2(const mq_attention *a);
size_t mq__attention_int8_scratch_avx2(uint32_t heads, uint32_t head_dim);

void mq__attention_decode_span_avx2(const mq_attention *a, uint32_t kv_heads, uint32_t span, float *partial,
                                    size_t head_step, size_t row_step);
void mq__attention_decode_merge_avx2(const mq_attention *a, uint32_t spans, const float *partials);
size_t mq__attention_decode_scratch_avx2(uint32_t heads, uint32_t head_dim);

/* The first `count` of 8 dwords. */
static inline __m256i first_dwords(size_t count)
{
    static const int32_t ones[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256((const __m256i *)(ones + 8 - (count < 8 ? count : 8)));
}

/* 8 rows of 8 dwords, transposed: three rounds of pairwise interleaving, 24 shuffles. */
static inline __attribute__((always_inline)) void transpose_8x8(__m256i v[8])
{
    __m256i t[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) { /* rows i..i+3: half q of v[i+j] holds column 4q+j */
        v[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        const __m256i low = _mm256_permute2x128_si256(v[j], v[4 + j], 0x20);
        v[4 + j] = _mm256_permute2x128_si256(v[j], v[4 + j], 0x31);
        v[j] = low;
    }
}

/* The two bf16 of each dword as floats: element 2i from the low half, 2i + 1 from the high half. */
static inline __m256 low_bf16_attention_avx2(__m256i dwords)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(dwords, 16));
}

static inline __m256 high_bf16_attention_avx2(__m256i dwords)
{
    return _mm256_castsi256_ps(_mm256_and_si256(dwords, _mm256_set1_epi32((int)0xffff0000)));
}

static inline float largest_of(__m256 v)
{
    const __m128 a = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 b = _mm_max_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_shuffle_ps(b, b, 1)));
}

static inline float sum_of(__m256 v)
{
    const __m128 a = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 b = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
}

#endif
