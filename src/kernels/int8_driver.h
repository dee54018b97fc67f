/* Cache blocking of the INT8 GEMM, common to the vector levels. Owns the order of the loops; the arithmetic is the level's.
 *
 * A slice of a few groups of one weight panel (18 KiB: it stays in L1) is used by all rows of a pass; the sums wait in a tile.
 * MQ_INT8_BATCH panels go through a slice together, so that the slice of the activations, at most INT8_PASS_ROWS rows, comes from
 * L2 all but once. The last slice of K writes to y. Weights are read as they are packed, or arranged anew for each pass; rows are
 * read as they are packed, or arranged anew for each MQ_INT8_BATCH panels. */
#ifndef MQ_KERNELS_INT8_DRIVER_H
#define MQ_KERNELS_INT8_DRIVER_H

#include "kernels/int8_pack.h"

enum {
    INT8_SLICE = 8,       /* groups, where the level does not say */
    INT8_PASS_ROWS = 420, /* a multiple of MQ_INT8_MR */
    INT8_ARRANGED = MQ_INT8_CELL + 512,
    INT8_FEW_ROWS =
        28, /* up to so many, reading the weights is what takes time: one panel after the other, if rows are read
                         * as they are packed */
};

/* One slice of K of one panel, for one row group. */
typedef struct int8_slice {
    const uint8_t *cells; /* [groups] weight cells, or what arrange made of them */
    size_t groups;
    bool first, last; /* the sums start at zero; the sums are complete and go to y */
    /* where complete sums go */
    float *y; /* first row of the row group, first feature of the panel */
    size_t ldy;
    const float *bias; /* of the panel, or NULL */
    bool accumulate;
    size_t features;    /* of the panel that exist, 1..32 */
    size_t group_bytes; /* from a row group to the next, at the same k */
} int8_slice;

/* `rows` rows through a slice. a: the first row group's cells at the slice, or what arrange_rows made of the rows; tile: the rows'
 * sums, 64-byte aligned. */
typedef void int8_rows_fn(const int8_slice *s, size_t rows, const uint8_t *a, float (*tile)[MQ_INT8_NR]);

typedef struct int8_core {
    /* Rows of a call, at most. Unless rows are arranged, it divides INT8_PASS_ROWS and is a multiple of MQ_INT8_MR. */
    size_t rows;
    int8_rows_fn *run;
    /* Weight cells in the order of the level's instructions, a slice at most INT8_SLICE * INT8_ARRANGED bytes; NULL: as they
     * are packed. */
    void (*arrange)(const uint8_t *cells, size_t groups, uint8_t *arranged);
    /* Rows of a pass at a slice, for MQ_INT8_BATCH panels: `rows` rows of a group in step_bytes. NULL: as they are packed. cells: the
     * first row group's. The scratch memory has room for INT8_PASS_ROWS rows of a slice more at its end. */
    void (*arrange_rows)(const uint8_t *cells, size_t group_bytes, size_t rows, size_t groups, uint8_t *arranged);
    size_t step_bytes;
    size_t slice; /* groups of a slice, at most; 0: INT8_SLICE */
} int8_core;

/* The slot int8_gemm by way of `core`. scratch: mq__int8_scratch_bytes and what arrange_rows needs, 64-byte aligned. */
void mq__int8_run(const int8_core *core, const mq_int8_rows *a, size_t rows, const mq_int8 *w, size_t p0, size_t p1,
                  const mq_epilogue *out, void *scratch);

/* The same for a single row group, rows <= MQ_INT8_MR, and levels that read a cell once: a panel is one slice, read as it lies in
 * memory, which the processor fetches ahead by itself. */
void mq__int8_run_few(int8_rows_fn *run, const mq_int8_rows *a, size_t rows, const mq_int8 *w, size_t p0, size_t p1,
                      const mq_epilogue *out, void *scratch);

size_t mq__int8_scratch_bytes(void);

#endif
