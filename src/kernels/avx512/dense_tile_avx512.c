/* FP32 GEMM core of the AVX-512 level.
 *
 * Idea: weights are expanded once per cache block to FP32 panels [k][32]; activations are panels [k][14]. The micro-kernel
 * keeps a 14 x 32 tile of sums in 28 registers; per k it loads two weight vectors and broadcasts 14 activations, each used
 * twice. Broadcasts as memory operands of the FMA would save issue slots but saturate the load ports (measured: 83-95%
 * of the peak, against 99%).
 *
 * Registers: 28 sums, 2 weight vectors, 1 to 2 broadcasts = 32.
 * Throughput model per k: 28 FMA on two ports = 14 cycles; 16 loads on two ports = 8 cycles; 45 of 56 issue slots. The
 * weight slice streams from L2 at 9 bytes a cycle. Everything that the tile or its successors will miss is prefetched at
 * a few lines per 16 k.
 *
 * Measured (2-core Cascade Lake class, 2.5 GHz), on a machine shared with other work:
 *   commit bd87467 + the k loop unrolled, the tile alone, before it prefetched: 0.98 to 0.99 of the FMA peak; about 0.6 in
 *   long periods in which something outside takes issue slots and leaves the register-only peak almost as it is.
 *   commit 537801d, the whole GEMM, M = 518, N = 256, K = 1024, against the tile timed next to it in the same period:
 *   0.91 to 0.92, nearly all samples from such periods. Against the FMA peak the whole GEMM is not settled: no run on
 *   an idle machine. */
#include "kernels/dense_driver.h"

#include <immintrin.h>

#define MR     MQ_DENSE_MR
#define INLINE static inline __attribute__((always_inline))

typedef __m512 tile_sums[MR][2];

INLINE void prefetch(const void *line)
{
    _mm_prefetch(line, _MM_HINT_T0);
}

/* y = sum * multiplier (+ bias) (+ y) */
INLINE void finish(const dense_step *step, tile_sums sum, const int R)
{
    const mq_epilogue *out = step->finish;
    const __m512 scale = _mm512_set1_ps(step->multiplier);
    const __mmask32 mask = (__mmask32)(0xFFFFFFFFu >> (32 - step->features));
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        const __mmask16 m = (__mmask16)(h ? mask >> 16 : mask);
        const __m512 bias = out->bias ? _mm512_maskz_loadu_ps(m, out->bias + h * 16) : _mm512_setzero_ps();
#pragma GCC unroll 14
        for (int r = 0; r < R; r++) {
            float *y = out->y + (size_t)r * out->ldy + h * 16;
            __m512 value = _mm512_mul_ps(sum[r][h], scale);
            if (out->bias) value = _mm512_add_ps(value, bias);
            if (out->accumulate) value = _mm512_add_ps(_mm512_maskz_loadu_ps(m, y), value);
            _mm512_mask_storeu_ps(y, m, value);
        }
    }
}

INLINE void tile(const dense_step *step, const int R)
{
    enum { CHUNK = 16 };
    const float *a = step->a, *b = step->b;
    float *c = step->c;
    tile_sums sum;
#pragma GCC unroll 14
    for (int r = 0; r < R; r++) {
        sum[r][0] = step->first ? _mm512_setzero_ps() : _mm512_load_ps(c + r * DENSE_NR);
        sum[r][1] = step->first ? _mm512_setzero_ps() : _mm512_load_ps(c + r * DENSE_NR + 16);
    }
    for (size_t k = 0; k < step->kc; k += CHUNK) {
        const size_t row = k / CHUNK;
        prefetch(step->ahead + 2 * k); /* the same line twice */
#pragma GCC unroll 4
        for (size_t i = 0; i < DENSE_AHEAD; i++) {
            _mm_prefetch(step->next_a + (row * DENSE_AHEAD + i) * 64, _MM_HINT_T1);
        }
        if (row < MR) { /* sums of the next tile */
            prefetch(c + DENSE_TILE + row * DENSE_NR);
            prefetch(c + DENSE_TILE + row * DENSE_NR + 16);
        }
        if (step->finish && row < (size_t)R) {
            prefetch(step->finish->y + row * step->finish->ldy);
            prefetch(step->finish->y + row * step->finish->ldy + 16);
        }
        const float *end = b + (step->kc - k < CHUNK ? step->kc - k : CHUNK) * DENSE_NR;
#pragma GCC unroll 4
        while (b < end) {
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
    }
    if (step->finish) {
        finish(step, sum, R);
        return;
    }
#pragma GCC unroll 14
    for (int r = 0; r < R; r++) {
        _mm512_store_ps(c + r * DENSE_NR, sum[r][0]);
        _mm512_store_ps(c + r * DENSE_NR + 16, sum[r][1]);
    }
}

/* clang-format off */
#define TILE(rows) static void tile_##rows(const dense_step *step) { tile(step, rows); }
TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6) TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12) TILE(13) TILE(14)
    /* clang-format on */

    const dense_core mq__dense_core_avx512 = {.tiles = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6, tile_7, tile_8,
                                                        tile_9, tile_10, tile_11, tile_12, tile_13, tile_14},
                                              .kc = 256,
                                              .panels = 4};
