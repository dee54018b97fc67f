/* Between the attention files of the AVX-512 level. */
#ifndef MQ_KERNELS_ATTENTION_AVX512_H
#define MQ_KERNELS_ATTENTION_AVX512_H

#include "kernels/kernels.h"

#include <immintrin.h>

void mq__attention_prefill_avx512(const mq_attention *a);
size_t mq__attention_prefill_scratch_avx512(uint32_t heads, uint32_t head_width);

void mq__attention_decode_span_avx512(const mq_attention *a, uint32_t key0, uint32_t key1, float *partial);
void mq__attention_decode_merge_avx512(const mq_attention *a, uint32_t spans, const float *partials);
size_t mq__attention_decode_scratch_avx512(uint32_t heads, uint32_t head_width);

/* 16 rows of 16 dwords, transposed: four rounds of pairwise interleaving, 64 shuffles. */
static inline __attribute__((always_inline)) void transpose_16x16(__m512i v[16])
{
    __m512i t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) { /* rows i, i+1: dwords interleaved */
        t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) { /* rows i..i+3: lane q of v[i+j] holds column 4q+j */
        v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) { /* lanes 0 and 2, and 1 and 3, of rows 0-7 and of rows 8-15 */
        t[j] = _mm512_shuffle_i32x4(v[j], v[4 + j], 0x88);
        t[4 + j] = _mm512_shuffle_i32x4(v[j], v[4 + j], 0xdd);
        t[8 + j] = _mm512_shuffle_i32x4(v[8 + j], v[12 + j], 0x88);
        t[12 + j] = _mm512_shuffle_i32x4(v[8 + j], v[12 + j], 0xdd);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        v[j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0x88);
        v[8 + j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0xdd);
        v[4 + j] = _mm512_shuffle_i32x4(t[4 + j], t[12 + j], 0x88);
        v[12 + j] = _mm512_shuffle_i32x4(t[4 + j], t[12 + j], 0xdd);
    }
}

/* The two bf16 of each dword as floats: element 2i from the low half, 2i + 1 from the high half. */
static inline __m512 low_bf16(__m512i dwords)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(dwords, 16));
}

static inline __m512 high_bf16(__m512i dwords)
{
    return _mm512_castsi512_ps(_mm512_and_si512(dwords, _mm512_set1_epi32((int)0xffff0000)));
}

#endif
