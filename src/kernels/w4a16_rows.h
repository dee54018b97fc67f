/* Thin products of NVFP4 weights with FP32 rows, the part that the levels with short vectors share. Included once by a level's
 * file, which defines, before it,
 *     enum { FEW_WIDE, ROWS_GROUP };                       features of tile_part; rows of tile_add, at most: 5 or 6
 *     tile_part(x, ldx, row, w, panel, first, out, R)      outputs of FEW_WIDE features of a panel, from its feature `first` on,
 *                                                          for rows [row, row + R), R = 1, 2 or 4
 * and, after it,
 *     tile_decode(cell, blocks, codes, scales)             a slice of a panel as FP32: the codes' values [half][k][16], the
 *                                                          scales [half][block][16], halves CODES_HALF and SCALES_HALF apart
 *     tile_add(x, ldx, rows, kc, codes, scales, totals)    k in [0, kc) of a decoded half for 3 to ROWS_GROUP rows
 * It provides thin_rows_w4a16(), the slot. */
#ifndef MQ_KERNELS_W4A16_ROWS_H
#define MQ_KERNELS_W4A16_ROWS_H

#include "kernels/dense_driver.h"
#include "kernels/nvfp4_pack.h"

enum {
    ROWS_FEW = 8,
    ROWS_MOST = MQ_THIN_MOST,
    ROWS_BLOCKS = 8, /* blocks decoded together: 16 KiB */
    CODES_HALF = ROWS_BLOCKS * MQ_NVFP4_BLOCK * MQ_NVFP4_NR / 2,
    SCALES_HALF = ROWS_BLOCKS * MQ_NVFP4_NR / 2,
};
_Static_assert(2 * (CODES_HALF + SCALES_HALF) + ROWS_MOST * MQ_NVFP4_NR <= DENSE_SCRATCH_FLOATS, "fits the scratch");

static void tile_decode(const uint8_t *cell, size_t blocks, float *codes, float *scales);
static void tile_add(const float *x, size_t ldx, size_t rows, size_t kc, const float *codes, const float *scales,
                     float *totals);

INLINE void thin_few_parts(const float *x, size_t ldx, size_t row, const mq_nvfp4 *w, size_t panel,
                           const mq_epilogue *out, const int R)
{
    for (size_t first = 0; first < MQ_NVFP4_NR; first += FEW_WIDE)
        tile_part(x, ldx, row, w, panel, first, out, R);
}

static void thin_few_w4a16(const float *x, size_t ldx, size_t rows, const mq_nvfp4 *w, size_t panel,
                           const mq_epilogue *out)
{
    size_t row = 0;
    for (; row + 4 <= rows; row += 4) {
        thin_few_parts(x, ldx, row, w, panel, out, 4);
    }
    for (; row + 2 <= rows; row += 2) {
        thin_few_parts(x, ldx, row, w, panel, out, 2);
    }
    if (row < rows) thin_few_parts(x, ldx, row, w, panel, out, 1);
}

/* 9 to ROWS_MOST rows of a panel, in groups of 3 to ROWS_GROUP whose sizes differ by one at most. */
static void thin_many_w4a16(const float *x, size_t ldx, size_t rows, const mq_nvfp4 *w, size_t panel,
                            const mq_epilogue *out, float *memory)
{
    float *codes = memory, *scales = codes + 2 * CODES_HALF, *totals = scales + 2 * SCALES_HALF; /* [half][row][16] */
    const uint8_t *cells = mq__nvfp4_panel(w, panel);
    const size_t groups = (rows + ROWS_GROUP - 1) / ROWS_GROUP, slice = ROWS_BLOCKS * MQ_NVFP4_BLOCK;
    memset(totals, 0, rows * MQ_NVFP4_NR * sizeof(float));
    for (size_t k0 = 0; k0 < w->k_width; k0 += slice) {
        const size_t kc = w->k_width - k0 < slice ? w->k_width - k0 : slice;
        tile_decode(cells + k0 / MQ_NVFP4_BLOCK * MQ_NVFP4_CELL, (kc + MQ_NVFP4_BLOCK - 1) / MQ_NVFP4_BLOCK, codes,
                    scales);
        for (size_t g = 0; g < groups; g++) {
            const size_t row = rows * g / groups, count = rows * (g + 1) / groups - row;
            for (size_t half = 0; half < 2; half++) {
                tile_add(x + row * ldx + k0, ldx, count, kc, codes + half * CODES_HALF, scales + half * SCALES_HALF,
                         totals + (half * rows + row) * 16);
            }
        }
    }
    for (size_t r = 0; r < 2 * rows; r++) {
        const size_t n = panel * MQ_NVFP4_NR + r / rows * 16;
        for (size_t i = 0; i < 16 && n + i < w->n; i++)
            finish_output(out, r % rows, n + i, totals[r * 16 + i] * w->multiplier);
    }
}

static void thin_rows_w4a16(const float *x, size_t ldx, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                            const mq_epilogue *out, void *scratch)
{
    const size_t passes = (rows + ROWS_MOST - 1) / ROWS_MOST;
    for (size_t i = 0; i < passes; i++) {
        const size_t row = rows * i / passes, count = rows * (i + 1) / passes - row;
        mq_epilogue part = *out;
        part.y += row * part.ldy;
        for (size_t p = p0; p < p1; p++) {
            if (rows <= ROWS_FEW) {
                thin_few_w4a16(x, ldx, rows, w, p, out);
            } else {
                thin_many_w4a16(x + row * ldx, ldx, count, w, p, &part, scratch);
            }
        }
    }
}

#endif
