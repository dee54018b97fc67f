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
#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

INLINE __m512 gemm_multiply_add(__m512 sum, __m512 x, __m512 b)
{
    return _mm512_fmadd_ps(x, b, sum);
}

#include "kernels/avx512/dense_tile_avx512.h"

DENSE_TILES

const dense_core mq__dense_core_avx512 = {.tiles = DENSE_TILE_LIST, .kc = 256, .panels = 4};
