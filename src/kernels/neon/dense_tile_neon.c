/* FP32 GEMM core of the NEON level.
 *
 * Idea: as on AVX-512 (weights expanded to FP32 per cache block, activations in panels [k][14]), with tiles of up to 6 x 16: the
 * 14 rows of a group are taken as 5 + 5 + 4, the 32 features of a panel as 16 + 16. A multiplication by an element of a register
 * broadcasts for nothing, so the activations of 5 rows come as two vectors.
 *
 * Registers: up to 24 sums, 2 vectors of activations, 4 of weights = 30. With 7 rows gcc 12 spills.
 * Throughput model of 5 rows per k: 20 FMA beside 6 loads; on two FMA units 10 cycles, on four 5 (20 chains cover a latency of
 * 4). Instructions per multiply-add, and what follows on named processors: docs/perf/arm.md. Speeds not measured. */
#include "kernels/dense_driver.h"
#include "kernels/neon/vector_neon.h"

#define MR MQ_DENSE_MR

enum { ROWS = 6, WIDE = 4 };

/* Lines that a tile brings to L2 on its way, one per 8 k. */
typedef struct lines {
    const char *at;
    size_t stride;
} lines;

/* R rows (of a, c) by 16 features. */
INLINE void tile_dense_neon(const float *a, const float *b, size_t kc, float *c, bool first, lines ahead, const int R)
{
    float32x4_t sum[ROWS][WIDE];
    UNROLL
    for (int r = 0; r < R; r++) {
        UNROLL
        for (int v = 0; v < WIDE; v++)
            sum[r][v] = first ? vdupq_n_f32(0) : vld1q_f32(c + r * DENSE_NR + 4 * v);
    }
    for (const float *end = b + 16 * kc; b < end;) {
        __builtin_prefetch(ahead.at, 0, 2);
        ahead.at += ahead.stride;
        const float *chunk = end - b < 8 * 16 ? end : b + 8 * 16;
#pragma GCC unroll 2
        while (b < chunk) {
            const int second = R > 4 ? R - 4 : 0; /* within the panel, whose rows are more than 4 */
            const float32x4_t a0 = vld1q_f32(a), a1 = vld1q_f32(a + second);
            UNROLL
            for (int v = 0; v < WIDE; v++) {
                const float32x4_t bv = vld1q_f32(b + 4 * v);
                UNROLL
                for (int r = 0; r < R; r++)
                    sum[r][v] = r < 4 ? fma_lane(sum[r][v], bv, a0, r) : fma_lane(sum[r][v], bv, a1, r - second);
            }
            a += MR;
            b += 16;
        }
    }
    UNROLL
    for (int r = 0; r < R; r++) {
        UNROLL
        for (int v = 0; v < WIDE; v++)
            vst1q_f32(c + r * DENSE_NR + 4 * v, sum[r][v]);
    }
}

/* A group of r0 + r1 + r2 rows by 32 features. Of the lines to prefetch, stored weights come at a quarter of one per 8 k,
 * activations at two, outputs at two per row. */
INLINE void group_dense_neon(const dense_step *step, const int r0, const int r1, const int r2)
{
    const float *a = step->a;
    float *c = step->c;
    const size_t kc = step->kc;
    const lines weights = {step->ahead, 16}, next[2] = {{step->next_a, 64}, {step->next_a + 8 * kc, 64}};
    for (size_t half = 0; half < 2; half++, c += 16) {
        const float *b = step->b + half * 16 * kc;
        lines y = next[half];
        if (step->finish) y = (lines){(const char *)(step->finish->y + 16 * half), step->finish->ldy * sizeof(float)};
        tile_dense_neon(a, b, kc, c, step->first, half ? y : weights, r0);
        if (r1 > 0) tile_dense_neon(a + r0, b, kc, c + r0 * DENSE_NR, step->first, next[half], r1);
        if (r2 > 0) tile_dense_neon(a + r0 + r1, b, kc, c + (r0 + r1) * DENSE_NR, step->first, y, r2);
    }
    const mq_epilogue *out = step->finish;
    for (size_t r = 0; out && r < (size_t)(r0 + r1 + r2); r++) {
        finish_row_neon(out->y + r * out->ldy, step->c + r * DENSE_NR, step->features, step->multiplier, out->bias,
                        out->accumulate);
    }
}

/* clang-format off */
#define TILE(rows, r0, r1, r2) static void tile_##rows(const dense_step *step) { group_dense_neon(step, r0, r1, r2); }
TILE(1, 1, 0, 0) TILE(2, 2, 0, 0) TILE(3, 3, 0, 0) TILE(4, 4, 0, 0) TILE(5, 5, 0, 0) TILE(6, 6, 0, 0) TILE(7, 4, 3, 0)
TILE(8, 4, 4, 0) TILE(9, 5, 4, 0) TILE(10, 5, 5, 0) TILE(11, 6, 5, 0) TILE(12, 6, 6, 0) TILE(13, 5, 4, 4)
TILE(14, 5, 5, 4)
    /* clang-format on */

    const dense_core mq__dense_core_neon = {.tiles = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6, tile_7, tile_8,
                                                      tile_9, tile_10, tile_11, tile_12, tile_13, tile_14},
                                            .kc = 256,
                                            .panels = 4};
