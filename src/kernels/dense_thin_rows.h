/* Thin dense products of 9 to 64 rows, the part that the levels with short vectors share: a small GEMM that keeps the thin
 * product's sixteen chains per output. Included once by a level's file, after
 *     enum { WIDE, GROUP, TILES, SLICE };                         features of a tile, rows of a tile at most, tiles of a block;
 *                                                                 k of a slice, a multiple of 16
 *     tile_widen(w, at, kc, wide, ahead)                          kc weights from element `at` on as FP32, as the level reads
 *                                                                 them; element `ahead` on may be prefetched. wide is at this
 *                                                                 feature of its tile: WIDE_STEP floats from one to the next
 *     tile_multiply(x, ldx, rows, kc, wide, kept, fresh)          kept += a tile's slice for rows <= GROUP; fresh: kept = it
 *     tile_finish(out, row, rows, n, features, kept)              a tile's sums to y through the epilogue
 * and enum { WIDE_STEP, TILE_FLOATS, SUM_FLOATS }: of wide, floats of a tile's slice; floats of its sums. It then provides
 * thin_many_rows().
 *
 * A block of TILES tiles takes a slice of K at a time: its weights are widened to FP32 once, then groups of at most GROUP rows
 * multiply them. */
#ifndef MQ_KERNELS_DENSE_THIN_ROWS_H
#define MQ_KERNELS_DENSE_THIN_ROWS_H

#include "kernels/dense_driver.h"

enum { MOST = MQ_THIN_MOST, GROUPS = (MOST + GROUP - 1) / GROUP };
_Static_assert(TILES *TILE_FLOATS + GROUPS * TILES * SUM_FLOATS <= DENSE_SCRATCH_FLOATS, "fits the scratch");

/* A block of tiles at work. */
typedef struct thin_block {
    const float *x;
    size_t ldx, rows, groups;
    const mq_dense *w;
    size_t n, n1, tiles; /* the first feature, the last one's end; tiles of WIDE */
    const mq_epilogue *out;
    float *wide, *kept;
} thin_block;

/* Features of tile t; the last tile of all may have fewer than WIDE, and what it computes beyond them is left. */
static size_t features_of(const thin_block *b, size_t t)
{
    const size_t left = b->n1 - (b->n + t * WIDE);
    return left < WIDE ? left : WIDE;
}

static void run_thin_slice(const thin_block *b, size_t k0, size_t kc)
{
    const size_t width = b->w->k_width;
    const bool last = k0 + kc == width;
    for (size_t t = 0; t < b->tiles; t++) {
        for (size_t i = 0; i < WIDE; i++) {
            const size_t at = (b->n + t * WIDE + i) * width + k0;
            float *wide = b->wide + t * TILE_FLOATS + i * WIDE_STEP;
            if (i < features_of(b, t)) {
                tile_widen(b->w, at, kc, wide, at + WIDE * width);
            } else {
                tile_widen(b->w, at - i * width, kc, wide, at); /* the first feature once more: it is not stored */
            }
        }
    }
    for (size_t g = 0; g < b->groups; g++) {
        const size_t row = b->rows * g / b->groups, count = b->rows * (g + 1) / b->groups - row;
        for (size_t t = 0; t < b->tiles; t++) {
            float *kept = b->kept + (g * TILES + t) * SUM_FLOATS;
            tile_multiply(b->x + row * b->ldx + k0, b->ldx, count, kc, b->wide + t * TILE_FLOATS, kept, k0 == 0);
            if (last) tile_finish(b->out, row, count, b->n + t * WIDE, features_of(b, t), kept);
        }
    }
}

static void thin_many_rows(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                           const mq_epilogue *out, void *scratch)
{
    const size_t passes = (rows + MOST - 1) / MOST;
    for (size_t i = 0; i < passes; i++) {
        const size_t row = rows * i / passes, count = rows * (i + 1) / passes - row;
        mq_epilogue part = *out;
        part.y += row * part.ldy;
        thin_block b = {.x = x + row * ldx,
                        .ldx = ldx,
                        .rows = count,
                        .groups = (count + GROUP - 1) / GROUP,
                        .w = w,
                        .n1 = n1,
                        .out = &part,
                        .wide = scratch,
                        .kept = (float *)scratch + TILES * TILE_FLOATS};
        for (b.n = n0; b.n < n1; b.n += b.tiles * WIDE) {
            const size_t left = (n1 - b.n + WIDE - 1) / WIDE;
            b.tiles = left < TILES ? left : TILES;
            for (size_t k0 = 0; k0 < w->k_width; k0 += SLICE) {
                run_thin_slice(&b, k0, w->k_width - k0 < SLICE ? w->k_width - k0 : SLICE);
            }
        }
    }
}

#endif
