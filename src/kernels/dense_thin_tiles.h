/* Thin dense products of few rows, the part that the levels with short vectors share. Included once by a level's file, after
 *     tile_thin(x, ldx, w, n, apart, row, out, type, ahead, W, R)   outputs of features n, n + apart, ... (W of them) for rows
 *                                                            [row, row + R); W * R <= 6, type is w's; ahead: prefetch
 * and INLINE; it then provides thin_few_rows().
 *
 * Two features far apart at a time, each a stream of memory without jumps. Sixteen lanes are two or four registers, so 2 x 3,
 * 2 x 2 or 2 x 1 features x rows are taken at a time; more rows reread the weights from L1. */
#ifndef MQ_KERNELS_DENSE_THIN_TILES_H
#define MQ_KERNELS_DENSE_THIN_TILES_H

#include "kernels/dense_common.h"

/* All rows of W features, three, two and one at a time. */
INLINE void thin_features(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n, size_t apart,
                          const mq_epilogue *out, const mq_dense_type type, const bool ahead, const int W)
{
    size_t row = 0;
    for (; row + 3 <= rows; row += 3) {
        tile_thin(x, ldx, w, n, apart, row, out, type, ahead, W, 3);
    }
    for (; row + 2 <= rows; row += 2) {
        tile_thin(x, ldx, w, n, apart, row, out, type, ahead, W, 2);
    }
    for (; row < rows; row++) {
        tile_thin(x, ldx, w, n, apart, row, out, type, ahead, W, 1);
    }
}

INLINE void thin_typed_rows(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                            const mq_epilogue *out, const mq_dense_type type, const bool ahead)
{
    const size_t each = (n1 - n0) / 2;
    for (size_t n = n0; n < n0 + each; n++) {
        thin_features(x, ldx, rows, w, n, each, out, type, ahead, 2);
    }
    for (size_t n = n0 + each * 2; n < n1; n++) {
        thin_features(x, ldx, rows, w, n, 0, out, type, ahead, 1);
    }
}

INLINE void thin_few_rows(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                          const mq_epilogue *out, const bool ahead)
{
    if (w->type == MQ_DENSE_BF16) {
        thin_typed_rows(x, ldx, rows, w, n0, n1, out, MQ_DENSE_BF16, ahead);
    } else if (w->type == MQ_DENSE_F16) {
        thin_typed_rows(x, ldx, rows, w, n0, n1, out, MQ_DENSE_F16, ahead);
    } else {
        thin_typed_rows(x, ldx, rows, w, n0, n1, out, MQ_DENSE_F32, ahead);
    }
}

#endif
