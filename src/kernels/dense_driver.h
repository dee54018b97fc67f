/* Cache blocking of the FP32 GEMMs (dense weights and W4A16), common to the vector levels. Owns the order of the loops
 * and the scratch layout; the arithmetic is the level's. */
#ifndef MQ_KERNELS_DENSE_DRIVER_H
#define MQ_KERNELS_DENSE_DRIVER_H

#include "kernels/dense_common.h"

enum {
    DENSE_NR = 32,                       /* features per weight panel */
    DENSE_TILE = MQ_DENSE_MR * DENSE_NR, /* sums of one tile */
    DENSE_PANEL_FLOATS = 32 << 10,       /* scratch for expanded panels: 128 KiB of L2 */
    DENSE_SUM_TILES = 148,               /* tiles whose sums wait for their next k slice: 260 KiB of L2 */
    DENSE_AHEAD = 4,
    DENSE_SCRATCH_FLOATS = DENSE_PANEL_FLOATS + DENSE_SUM_TILES * DENSE_TILE
};

/* One tile: up to 14 rows by 32 features by kc products. */
typedef struct dense_step {
    const float *a; /* [kc][MQ_DENSE_MR] */
    const float *b; /* one expanded panel slice, in the level's own order */
    size_t kc;
    float *c;   /* [14][32], 64-byte aligned: sums of the slices before and, but for the last, of this one */
    bool first; /* no slice before: the sums start at zero */
    const mq_epilogue *finish; /* last slice: y and bias at the tile's first row and feature; else NULL */
    size_t features;           /* present in y, 1..32 */
    float multiplier;          /* applied to the finished sums */
    const char *ahead;         /* to prefetch on the way: one line of stored weights per 32 k, */
    const char *next_a;        /* and, of the next group's activations, DENSE_AHEAD lines per 16 k */
} dense_step;

typedef struct dense_core {
    void (*tiles[MQ_DENSE_MR])(const dense_step *step); /* [rows - 1] */
    size_t kc;                                          /* k per slice, a multiple of 32 */
    size_t panels; /* panels expanded together; kc * panels * DENSE_NR <= DENSE_PANEL_FLOATS */
} dense_core;

/* Where the weights of a GEMM come from. */
typedef struct dense_source {
    const dense_core *core;
    /* Writes features [32 panel, +32) and k [k0, k0 + kc) as FP32 to b in the order that the tiles read, zero past the
     * last feature. k0 is a multiple of core->kc, kc <= core->kc. */
    void (*expand)(const void *weights, size_t panel, size_t k0, size_t kc, float *b);
    const void *weights;
    size_t n, k_width; /* n: one past the last feature to compute */
    size_t row_floats; /* between two rows of the activation panels */
    float multiplier;
    const char *rows;     /* row-major weights, prefetched one slice ahead of expand; NULL: nothing to prefetch */
    size_t element_bytes; /* of those */
} dense_source;

/* y for rows [0, rows) and the panels [p0, p1) of `source`. scratch: DENSE_SCRATCH_FLOATS, 64-byte aligned. */
void mq__dense_run(const float *rows_panels, size_t rows, const dense_source *source, size_t p0, size_t p1,
                   const mq_epilogue *out, float *scratch);

#ifdef MQ_X86
extern const dense_core mq__dense_core_avx2, mq__dense_core_avx512;
#endif
#ifdef MQ_ARM
extern const dense_core mq__dense_core_neon;
#endif

#endif
