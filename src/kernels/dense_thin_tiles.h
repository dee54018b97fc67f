/* Thin dense products of few rows, the part that the levels with short vectors share. Included once by a level's file, which has INLINE
 * and FOUR_ROWS (whether four rows are one tile, though their sums do not all fit the registers) and defines tile_thin(); it provides
 * thin_few_rows().
 *
 * Two features far apart at a time (one row: one to four), each a stream of memory without jumps. Sixteen lanes are two or four
 * registers, so the sums of 2 x 3 features x rows stay in them; more rows reread the weights from L1 or L2. */
#ifndef MQ_KERNELS_DENSE_THIN_TILES_H
#define MQ_KERNELS_DENSE_THIN_TILES_H

#include "kernels/dense_common.h"

/* What a tile prefetches: bytes from the weights of k = 0, and how many more each 16 k; step 0: nothing. further: the same once
 * more, so many bytes behind that, into L2; 0: no. */
typedef struct thin_ahead {
    size_t first, step, further;
} thin_ahead;

/* How one row goes through memory; several rows always go as AHEAD (measured on Zen 3 alone).
 *   PLAIN, AHEAD: two features far apart, which are left to the processor's own prefetchers, or prefetched.
 *   STREAMS: as many as L1 allows beside the activations (kernels/avx512/dense_thin_avx512.c). */
typedef enum thin_way { THIN_PLAIN, THIN_AHEAD, THIN_STREAMS } thin_way;

/* Outputs of features n, n + apart, ... (W of them, at most 4) for rows [row, row + R), at most 4; type is w's. */
INLINE void tile_thin(const float *x, size_t ldx, const mq_dense *w, size_t n, size_t apart, size_t row,
                      const mq_epilogue *out, mq_dense_type type, thin_ahead ahead, int W, int R);

enum { THIN_BYTES_AHEAD = 4096 };

/* Only the first tile of some features waits for memory, those of further rows find the weights in L1 or L2. So each of them sends for
 * its share of the weights of features behind these, that memory does not rest meanwhile. */
INLINE thin_ahead thin_share(const mq_dense *w, size_t row, size_t rows, const mq_dense_type type, const thin_way way)
{
    const size_t element = type == MQ_DENSE_F32 ? 4 : 2, bytes = w->k_width * element;
    const size_t tiles = (rows + 2) / 3, tile = row / 3;
    if (rows == 1 && way == THIN_PLAIN) return (thin_ahead){0, 0, 0};
    if (tiles == 1 || (FOUR_ROWS && rows == 4)) return (thin_ahead){THIN_BYTES_AHEAD, 16 * element, 0};
    return (thin_ahead){(bytes > THIN_BYTES_AHEAD ? bytes : THIN_BYTES_AHEAD) + bytes * tile / tiles,
                        (16 * element + tiles - 1) / tiles, 0};
}

/* All rows of W features, three, two and one at a time. */
INLINE void thin_features(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n, size_t apart,
                          const mq_epilogue *out, const mq_dense_type type, const thin_way way, const int W)
{
    size_t row = 0;
    if (FOUR_ROWS && rows == 4) {
        tile_thin(x, ldx, w, n, apart, 0, out, type, thin_share(w, 0, rows, type, way), W, 4);
        return;
    }
    for (; row + 3 <= rows; row += 3) {
        tile_thin(x, ldx, w, n, apart, row, out, type, thin_share(w, row, rows, type, way), W, 3);
    }
    for (; row + 2 <= rows; row += 2) {
        tile_thin(x, ldx, w, n, apart, row, out, type, thin_share(w, row, rows, type, way), W, 2);
    }
    for (; row < rows; row++) {
        tile_thin(x, ldx, w, n, apart, row, out, type, thin_share(w, row, rows, type, way), W, 1);
    }
}

/* One row, features in W streams of consecutive ones. */
INLINE void thin_row_far(const float *x, size_t ldx, const mq_dense *w, size_t n0, size_t n1, const mq_epilogue *out,
                         const mq_dense_type type, const thin_ahead ahead, const int W)
{
    const size_t each = (n1 - n0) / (size_t)W;
    for (size_t n = n0; n < n0 + each; n++) {
        tile_thin(x, ldx, w, n, each, 0, out, type, ahead, W, 1);
    }
    for (size_t n = n0 + each * (size_t)W; n < n1; n++) {
        tile_thin(x, ldx, w, n, 0, 0, out, type, ahead, 1, 1);
    }
}

INLINE void thin_row_streams(const float *x, size_t ldx, const mq_dense *w, size_t n0, size_t n1,
                             const mq_epilogue *out, const mq_dense_type type)
{
    const size_t step = type == MQ_DENSE_F32 ? 64 : 32;
    if (w->k_width <= THIN_SHORT)
        thin_row_far(x, ldx, w, n0, n1, out, type, (thin_ahead){0, 0, 0}, 2);
    else if (thin_stays(w, 1, 1))
        thin_row_far(x, ldx, w, n0, n1, out, type, (thin_ahead){1024, step, 15 << 10}, 1);
    else
        thin_row_far(x, ldx, w, n0, n1, out, type, (thin_ahead){512, step, 0}, 4);
}

INLINE void thin_typed_rows(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                            const mq_epilogue *out, const mq_dense_type type, const thin_way way)
{
    const size_t each = (n1 - n0) / 2;
    if (rows == 1 && way == THIN_STREAMS) {
        thin_row_streams(x, ldx, w, n0, n1, out, type);
        return;
    }
    for (size_t n = n0; n < n0 + each; n++) {
        thin_features(x, ldx, rows, w, n, each, out, type, way, 2);
    }
    for (size_t n = n0 + each * 2; n < n1; n++) {
        thin_features(x, ldx, rows, w, n, 0, out, type, way, 1);
    }
}

INLINE void thin_few_rows(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                          const mq_epilogue *out, const thin_way way)
{
    if (w->type == MQ_DENSE_BF16) {
        thin_typed_rows(x, ldx, rows, w, n0, n1, out, MQ_DENSE_BF16, way);
    } else if (w->type == MQ_DENSE_F16) {
        thin_typed_rows(x, ldx, rows, w, n0, n1, out, MQ_DENSE_F16, way);
    } else {
        thin_typed_rows(x, ldx, rows, w, n0, n1, out, MQ_DENSE_F32, way);
    }
}

#endif
