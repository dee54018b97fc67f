/* Cache blocking of the NVFP4 GEMM, common to the vector levels. Owns the order of the loops and the scratch layout; the
 * arithmetic is the level's.
 *
 * A slice of `slice` blocks of one weight panel is unpacked to the operands of the level's instructions (about 14 KiB: it
 * stays in L1) and used by all rows of a pass; the sums wait in a tile. MQ_NVFP4_BATCH panels go through a slice together,
 * so that the slice of the activations, at most NVFP4_PASS_ROWS rows, comes from L2 all but once. The last slice of K
 * writes to y. */
#ifndef MQ_KERNELS_NVFP4_DRIVER_H
#define MQ_KERNELS_NVFP4_DRIVER_H

#include "kernels/nvfp4_pack.h"

enum {
    NVFP4_PASS_ROWS = 280, /* a multiple of MQ_NVFP4_MR and of every level's rows at a time */
    NVFP4_CELLS = 16384,   /* bytes of unpacked cells */
};

/* One slice of K of one panel, for all rows of a pass. */
typedef struct nvfp4_slice {
    const void *cells; /* as core->widen wrote them, 64-byte aligned */
    size_t blocks;
    size_t group_bytes; /* from a row group to the next, at the same k */
    bool first, last;   /* the sums start at zero; the sums are complete and go to y */
    /* where complete sums go */
    float *y; /* first row of the pass, first feature of the panel */
    size_t ldy;
    const float *bias; /* of the panel, or NULL */
    bool accumulate;
    size_t features;    /* of the panel that exist, 1..32 */
    const float *scale; /* [rows of the pass] both tensor scales and the quarter unit */
} nvfp4_slice;

typedef struct nvfp4_core {
    size_t slice; /* most blocks of a slice; unpacked, they take at most NVFP4_CELLS bytes */
    /* Unpacks `blocks` cells; as many at `ahead` are brought to the cache meanwhile. */
    void (*widen)(const uint8_t *cell, size_t blocks, void *out, const uint8_t *ahead);
    /* All rows of a pass through one slice. a: the pass's first group at the slice; tile [rows] 64-byte aligned; packed:
     * what is unpacked next, brought to L2 on the way. */
    void (*rows)(const nvfp4_slice *s, size_t rows, const uint8_t *a, float (*tile)[MQ_NVFP4_NR],
                 const uint8_t *packed);
} nvfp4_core;

/* The slot nvfp4_gemm by way of `core`. scratch: mq__nvfp4_scratch_bytes, 64-byte aligned. */
void mq__nvfp4_run(const nvfp4_core *core, const mq_nvfp4_rows *a, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                   const mq_epilogue *out, void *scratch);

size_t mq__nvfp4_scratch_bytes(void);

/* Points s at the outputs of panel p, first row m0. */
void mq__nvfp4_set_output(nvfp4_slice *s, const mq_nvfp4 *w, size_t p, const mq_epilogue *out, size_t m0);

/* Brings lines of y (n rows, two each) and of the weights that are unpacked next (two) to L2, ahead of their use. */
static inline void mq__nvfp4_prefetch(const float *y, size_t ldy, size_t n, const uint8_t *packed)
{
    for (size_t r = 0; r < n; r++, y += ldy) {
        __builtin_prefetch(y, 0, 2);
        __builtin_prefetch(y + 16, 0, 2);
    }
    __builtin_prefetch(packed, 0, 2);
    __builtin_prefetch(packed + 64, 0, 2);
}

#endif
