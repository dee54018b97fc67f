/* FP32 GEMM core of the AVX-512 level.
 *
 * Idea: weights are expanded once per cache block to FP32 panels [k][32]; activations are panels [k][14]. The micro-kernel
 * keeps a 14 x 32 tile of sums in 28 registers; per k it loads two weight vectors and broadcasts 14 activations, each used
 * twice.
 *
 * Registers: 28 sums, 2 weight vectors, 1 to 2 broadcasts = 32.
 * Throughput model per k: 28 FMA on two ports = 14 cycles; 16 loads on two ports = 8 cycles; 46 of 56 issue slots. The
 * weight slice (32 KiB per panel) streams from L2 at 9 bytes a cycle, the activation slice stays in L1 for 4 panels.
 * Partial sums between k slices live in scratch, so that each output is one FMA chain over ascending k.
 */
#include "kernels/dense_driver.h"

#include <immintrin.h>

#define MR     MQ_DENSE_MR
#define INLINE static inline __attribute__((always_inline))

/* One tile of R rows: sums from c (or zero when `first`) plus kc products each, to c. */
INLINE void tile(const float *a, const float *b, size_t kc, float *c, bool first, const int R)
{
    __m512 sum[MR][2];
#pragma GCC unroll 14
    for (int r = 0; r < R; r++) {
        sum[r][0] = first ? _mm512_setzero_ps() : _mm512_load_ps(c + r * DENSE_NR);
        sum[r][1] = first ? _mm512_setzero_ps() : _mm512_load_ps(c + r * DENSE_NR + 16);
    }
    for (size_t k = 0; k < kc; k++) {
        const __m512 b0 = _mm512_load_ps(b), b1 = _mm512_load_ps(b + 16);
#pragma GCC unroll 14
        for (int r = 0; r < R; r++) {
            const __m512 x = _mm512_set1_ps(a[r]);
            sum[r][0] = _mm512_fmadd_ps(x, b0, sum[r][0]);
            sum[r][1] = _mm512_fmadd_ps(x, b1, sum[r][1]);
        }
        a += MR;
        b += DENSE_NR;
    }
#pragma GCC unroll 14
    for (int r = 0; r < R; r++) {
        _mm512_store_ps(c + r * DENSE_NR, sum[r][0]);
        _mm512_store_ps(c + r * DENSE_NR + 16, sum[r][1]);
    }
}

#define TILE(rows)                                                                                                     \
    static void tile_##rows(const float *a, const float *b, size_t kc, float *c, bool first)                           \
    {                                                                                                                  \
        tile(a, b, kc, c, first, rows);                                                                                \
    }
TILE(1)
TILE(2)
TILE(3) TILE(4) TILE(5) TILE(6) TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12) TILE(13) TILE(14)

    /* The finished sums of one tile to y, features [n, n + 32) below n_end. */
    static void finish_tile(const float *c, size_t row, size_t rows, size_t n, size_t n_end, float multiplier,
                            const mq_epilogue *out)
{
    const size_t features = n_end - n < DENSE_NR ? n_end - n : DENSE_NR;
    const __m512 scale = _mm512_set1_ps(multiplier);
    for (size_t half = 0; half * 16 < features; half++) {
        const size_t left = features - half * 16;
        const __mmask16 mask = left < 16 ? (__mmask16)((1u << left) - 1) : (__mmask16)0xFFFF;
        const __m512 bias = out->bias ? _mm512_maskz_loadu_ps(mask, out->bias + n + half * 16) : _mm512_setzero_ps();
        for (size_t r = 0; r < rows; r++) {
            float *y = out->y + (row + r) * out->ldy + n + half * 16;
            __m512 sum = _mm512_mul_ps(_mm512_load_ps(c + r * DENSE_NR + half * 16), scale);
            if (out->bias) sum = _mm512_add_ps(sum, bias);
            if (out->accumulate) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), sum);
            _mm512_mask_storeu_ps(y, mask, sum);
        }
    }
}

const dense_core mq__dense_core_avx512 = {{tile_1, tile_2, tile_3, tile_4, tile_5, tile_6, tile_7, tile_8, tile_9,
                                           tile_10, tile_11, tile_12, tile_13, tile_14},
                                          finish_tile};
