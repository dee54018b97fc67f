/* Cache blocking of the FP32 GEMMs (dense weights and W4A16), common to the vector levels. Owns the order of the loops
 * and the scratch layout; the arithmetic is the level's. */
#ifndef MQ_KERNELS_DENSE_DRIVER_H
#define MQ_KERNELS_DENSE_DRIVER_H

#include "kernels/dense_common.h"

enum {
    DENSE_NR = 32,     /* features per weight panel */
    DENSE_KC = 256,    /* k per slice: an expanded panel slice has 32 KiB, an activation slice 14 KiB */
    DENSE_PANELS = 4,  /* panels expanded together: 128 KiB of L2 */
    DENSE_GROUPS = 37, /* row groups per block: their partial sums take 260 KiB of L2 */
    DENSE_TILE = MQ_DENSE_MR * DENSE_NR
};

#define DENSE_SCRATCH_FLOATS (DENSE_PANELS * DENSE_NR * DENSE_KC + DENSE_GROUPS * DENSE_PANELS * DENSE_TILE)

/* One tile of a constant number of rows: c [rows][32] = (first ? 0 : c) + kc products; a is [kc][MQ_DENSE_MR], b one
 * expanded panel slice. */
typedef void dense_tile_fn(const float *a, const float *b, size_t kc, float *c, bool first);

/* The finished sums of one tile, times multiplier, to y; features [n, n + 32) below n_end. */
typedef void dense_finish_fn(const float *c, size_t row, size_t rows, size_t n, size_t n_end, float multiplier,
                             const mq_epilogue *out);

typedef struct dense_core {
    dense_tile_fn *tiles[MQ_DENSE_MR]; /* [rows - 1] */
    dense_finish_fn *finish;
} dense_core;

/* Where the weights of a GEMM come from. */
typedef struct dense_source {
    const dense_core *core;
    /* Writes features [32 panel, +32) and k [k0, k0 + kc) as FP32 to b in the order that the tiles read, zero past the
     * last feature. k0 is a multiple of DENSE_KC, kc <= DENSE_KC. */
    void (*expand)(const void *weights, size_t panel, size_t k0, size_t kc, float *b);
    const void *weights;
    size_t n, k_width; /* n: one past the last feature to compute */
    float multiplier;  /* applied to the finished sum */
} dense_source;

/* y for rows [0, rows) and the panels [p0, p1) of `source`. scratch: DENSE_SCRATCH_FLOATS, 64-byte aligned. */
void mq__dense_run(const float *rows_panels, size_t rows, const dense_source *source, size_t p0, size_t p1,
                   const mq_epilogue *out, float *scratch);

#ifdef MQ_X86
extern const dense_core mq__dense_core_avx2, mq__dense_core_avx512;
#endif

#endif
