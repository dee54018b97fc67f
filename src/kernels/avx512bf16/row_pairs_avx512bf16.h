/* Rows of activations as pairs of BF16, for the W16A16 products. */
#ifndef MQ_ROW_PAIRS_AVX512BF16_H
#define MQ_ROW_PAIRS_AVX512BF16_H

#include "kernels/avx512/transpose_avx512.h"

#include <stddef.h>

/* The first `width` (1 to 32) values of x [live][ldx], transposed: t[i] is pair i of 16 rows; what is absent is zero. */
static inline __attribute__((always_inline)) void load_row_pairs(const float *x, size_t ldx, size_t live, size_t width,
                                                                 __m512i t[16])
{
    const __mmask32 mask = (__mmask32)(0xFFFFFFFFu >> (32 - width));
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; i++) {
        t[i] = _mm512_setzero_si512();
        if (i >= live) continue;
        const __m512 low = _mm512_maskz_loadu_ps((__mmask16)mask, x + i * ldx);
        const __m512 high = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), x + i * ldx + 16);
        t[i] = (__m512i)_mm512_cvtne2ps_pbh(high, low);
    }
    transpose_16x16(t);
}

#endif
