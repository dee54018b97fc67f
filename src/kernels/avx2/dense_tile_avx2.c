/* FP32 GEMM core of the AVX2 level.
 *
 * Idea: as on AVX-512 (weights expanded to FP32 per cache block, activations in panels [k][14]), with tiles of up to 6 x 16:
 * the 14 rows of a group are taken as 5 + 5 + 4, the 32 features of a panel as 16 + 16.
 *
 * Registers: up to 12 sums, 2 weight vectors, 1 to 2 broadcasts = 16.
 * Throughput model of 5 rows per k: 10 FMA on two ports = 5 cycles (10 chains cover the latency of 4); 7 loads = 3.5
 * cycles; 17 of 20 issue slots, the rest is the loop. A slice of 192 k: half a panel (12 KiB) and the activations of a
 * group (11 KiB) are in L1 together.
 *
 * Measured (2-core Zen 4 class, 32 KiB L1d, one thread, shared host, commit ac937cd; checkasm --bench --isa avx2
 * dense_gemm) in multiples of the FMA peak, 59 GMAC/s: a tile of 5 rows in L1 0.97, of 4 rows 0.93; the whole GEMM with
 * M=512 and 2048, shapes of Qwen3 0.6B, 0.86 to 0.90 at the median of quiet moments, 0.91 to 0.96 at best; with slices of
 * 256 and nothing prefetched but stored weights it was 0.71 to 0.85. Panels of [k][32] make the tile alone faster (0.99
 * and 0.95), the GEMM not. */
#include "kernels/dense_driver.h"

#include <immintrin.h>

#define MR     MQ_DENSE_MR
#define INLINE static inline __attribute__((always_inline))

/* Lines that a tile brings to L2 on its way, one per 8 k. */
typedef struct lines {
    const char *at;
    size_t stride;
} lines;

/* As asm, or gcc 12 moves the load and reads the vector once for each use. */
INLINE __m256 load_once(const float *p)
{
    __m256 v;
    __asm__ volatile("vmovaps %1, %0" : "=x"(v) : "m"(*(const __m256 *)(const void *)p));
    return v;
}

/* R rows (of a, c) by 16 features. */
INLINE void tile_dense_avx2(const float *a, const float *b, size_t kc, float *c, bool first, lines ahead, const int R)
{
    __m256 sum[6][2];
#pragma GCC unroll 6
    for (int r = 0; r < R; r++) {
        sum[r][0] = first ? _mm256_setzero_ps() : _mm256_load_ps(c + r * DENSE_NR);
        sum[r][1] = first ? _mm256_setzero_ps() : _mm256_load_ps(c + r * DENSE_NR + 8);
    }
    for (const float *end = b + 16 * kc; b < end;) {
        _mm_prefetch(ahead.at, _MM_HINT_T1);
        ahead.at += ahead.stride;
        const float *chunk = end - b < 8 * 16 ? end : b + 8 * 16;
#pragma GCC unroll 2
        while (b < chunk) {
            const __m256 b0 = load_once(b), b1 = load_once(b + 8);
#pragma GCC unroll 6
            for (int r = 0; r < R; r++) {
                const __m256 x = _mm256_broadcast_ss(a + r);
                sum[r][0] = _mm256_fmadd_ps(x, b0, sum[r][0]);
                sum[r][1] = _mm256_fmadd_ps(x, b1, sum[r][1]);
            }
            a += MR;
            b += 16;
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; r++) {
        _mm256_store_ps(c + r * DENSE_NR, sum[r][0]);
        _mm256_store_ps(c + r * DENSE_NR + 8, sum[r][1]);
    }
}

static void finish_tile(const dense_step *step, size_t rows)
{
    const mq_epilogue *out = step->finish;
    const __m256 scale = _mm256_set1_ps(step->multiplier);
    for (size_t n = 0; n < step->features; n += 8) {
        const size_t left = step->features - n;
        const __m256i mask =
            _mm256_cmpgt_epi32(_mm256_set1_epi32(left < 8 ? (int)left : 8), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        const __m256 bias = out->bias ? _mm256_maskload_ps(out->bias + n, mask) : _mm256_setzero_ps();
        for (size_t r = 0; r < rows; r++) {
            float *y = out->y + r * out->ldy + n;
            __m256 sum = _mm256_mul_ps(_mm256_load_ps(step->c + r * DENSE_NR + n), scale);
            if (out->bias) sum = _mm256_add_ps(sum, bias);
            if (out->accumulate) sum = _mm256_add_ps(_mm256_maskload_ps(y, mask), sum);
            if (left >= 8) {
                _mm256_storeu_ps(y, sum);
            } else {
                _mm256_maskstore_ps(y, mask, sum);
            }
        }
    }
}

/* A group of r0 + r1 + r2 rows by 32 features. Of the lines to prefetch, stored weights come at a quarter of one per 8 k,
 * activations at two, outputs at two per row. */
INLINE void group(const dense_step *step, const int r0, const int r1, const int r2)
{
    const float *a = step->a;
    float *c = step->c;
    const size_t kc = step->kc;
    const lines weights = {step->ahead, 16}, next[2] = {{step->next_a, 64}, {step->next_a + 8 * kc, 64}};
    for (size_t half = 0; half < 2; half++, c += 16) {
        const float *b = step->b + half * 16 * kc;
        lines y = next[half];
        if (step->finish) y = (lines){(const char *)(step->finish->y + 16 * half), step->finish->ldy * sizeof(float)};
        tile_dense_avx2(a, b, kc, c, step->first, half ? y : weights, r0);
        if (r1 > 0) tile_dense_avx2(a + r0, b, kc, c + r0 * DENSE_NR, step->first, next[half], r1);
        if (r2 > 0) tile_dense_avx2(a + r0 + r1, b, kc, c + (r0 + r1) * DENSE_NR, step->first, y, r2);
    }
    if (step->finish) finish_tile(step, (size_t)(r0 + r1 + r2));
}

/* clang-format off */
#define TILE(rows, r0, r1, r2) static void tile_##rows(const dense_step *step) { group(step, r0, r1, r2); }
TILE(1, 1, 0, 0) TILE(2, 2, 0, 0) TILE(3, 3, 0, 0) TILE(4, 4, 0, 0) TILE(5, 5, 0, 0) TILE(6, 6, 0, 0) TILE(7, 4, 3, 0)
TILE(8, 4, 4, 0) TILE(9, 5, 4, 0) TILE(10, 5, 5, 0) TILE(11, 6, 5, 0) TILE(12, 6, 6, 0) TILE(13, 5, 4, 4)
TILE(14, 5, 5, 4)
    /* clang-format on */

    const dense_core mq__dense_core_avx2 = {.tiles = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6, tile_7, tile_8,
                                                      tile_9, tile_10, tile_11, tile_12, tile_13, tile_14},
                                            .kc = 192,
                                            .panels = 4};
