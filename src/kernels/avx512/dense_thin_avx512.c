/* Thin dense products of the AVX-512 level: 1 to 8 rows of activations, weights streamed once. More rows:
 * dense_thin_rows_avx512.c.
 *
 * Idea: memory gives its all only to loads that are known far ahead, and one core's arithmetic must not be in their way. How to
 * tell them is a matter of the processor's own prefetchers, so there are three ways through memory with the same results.
 * "tiles", the general one (Zen 5):
 *   1 or 2 rows: two streams of consecutive features, far apart, that never jump; the processor's own prefetchers follow
 *     them, and an explicit prefetch 4 KiB ahead carries them over page ends (weights are a file map of 4 KiB pages).
 *   3 to 8 rows: 4 or 3 neighbouring features, so that an activation is loaded once for all of them, while exactly the next
 *     tile is prefetched; K in slices whose activations stay in L1.
 * "streams" (Zen 4): far streams for all rows, of 1 or 2 rows as many as L1 allows (thin_streams below); where there are several rows,
 * or one stream, each line is sent for twice, 16 KiB ahead into L2 and 1 KiB ahead into L1.
 * "twice" (Emerald Rapids): for 1 or 2 rows four far streams, each line sent for twice, 8 KiB and 1 KiB ahead; else "tiles".
 *
 * Measured, whole decode steps of the 0.6B shape beside a plain read of the same minute. Zen 5 class, 2 threads: 0.92 of
 * 50 GB/s and 0.88 of 80, the machine's two states, with one row; a thread alone 0.95 of 41 GB/s with 1 row, 0.94 with 2,
 * 0.86 with 4, 0.66 with 8, which is 108 GMAC/s of a core's 137. Zen 4 class, a thread alone: 1.00 of 29 GB/s with 1 row, 0.94
 * with 2, 0.91 with 3, 0.78 with 4, 0.43 with 8, which is 51 GMAC/s of a core's 59; by tiles 0.83, 0.70, 0.40, 0.40, 0.32. One row
 * there by its length, of 34 GB/s, two streams and "streams": K = 4096 0.69, 0.92; 5376 0.53, 0.88; 21504 0.50, 0.80.
 *
 * Registers: W x R sums of 16 lanes (6 x 1, 2 x 2, 4 x 4, 3 x 8), W weight vectors, 1 activation vector.
 * Throughput model per 16 k: W loads with widening, R loads of activations, W*R FMA. */
#include "kernels/avx512/dense_thin_avx512.h"
#include "kernels/table.h"

#define SLICE 1024 /* of K: 32 KiB for 8 rows */
#define BLOCK 16   /* tiles; their sums are 24 to 32 KiB */

/* What to prefetch, in bytes from what is read; 0: nothing. */
typedef struct prefetch {
    ptrdiff_t l1, l2;
} prefetch;

/* 16 k of W features for R rows. */
INLINE void thin_step(const float *x, size_t ldx, const void *w, const size_t at[THIN_FEATURES], size_t k,
                      const mq_dense_type type, thin_sums sum, const int W, const int R)
{
    __m512 wv[THIN_FEATURES];
#pragma GCC unroll 6
    for (int i = 0; i < W; i++) {
        wv[i] = load_weights_dense_avx512(w, type, at[i] + k);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        __m512 xv = _mm512_loadu_ps(x + (size_t)r * ldx + k);
        __asm__("" : "+v"(xv)); /* or gcc loads it again for each feature */
#pragma GCC unroll 6
        for (int i = 0; i < W; i++) {
            sum[i][r] = _mm512_fmadd_ps(xv, wv[i], sum[i][r]);
        }
    }
}

/* k in [k0, k1) of W features, whose weights begin at at[i]. */
INLINE void thin_span(const float *x, size_t ldx, const mq_dense *w, const size_t at[THIN_FEATURES], size_t k0,
                      size_t k1, const prefetch ahead, const mq_dense_type type, thin_sums sum, const int W,
                      const int R)
{
    const size_t bytes = type == MQ_DENSE_F32 ? 4 : 2;
    size_t k = k0;
    for (; k + 32 <= k1; k += 32) {
#pragma GCC unroll 6
        for (int i = 0; i < W; i++) {
            const char *line = (const char *)w->data + (at[i] + k) * bytes;
#pragma GCC unroll 2
            for (size_t half = 0; half < 32 * bytes; half += 64) {
                if (ahead.l1) _mm_prefetch(line + half + ahead.l1, _MM_HINT_T0);
                if (ahead.l2) _mm_prefetch(line + half + ahead.l2, _MM_HINT_T1);
            }
        }
        thin_step(x, ldx, w->data, at, k, type, sum, W, R);
        thin_step(x, ldx, w->data, at, k + 16, type, sum, W, R);
    }
    if (k + 16 <= k1) {
        thin_step(x, ldx, w->data, at, k, type, sum, W, R);
        k += 16;
    }
    if (k < k1) { /* lanes past the end keep their sums */
        const __mmask16 mask = (__mmask16)((1u << (k1 - k)) - 1);
#pragma GCC unroll 6
        for (int i = 0; i < W; i++) {
            const __m512 wv = load_weights_masked(w->data, type, at[i] + k, mask);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                const __m512 xv = _mm512_maskz_loadu_ps(mask, x + (size_t)r * ldx + k);
                sum[i][r] = _mm512_mask3_fmadd_ps(xv, wv, sum[i][r], mask);
            }
        }
    }
}

/* Features [n0, n1) in W streams of consecutive ones: memory is read in W sequences that never jump. */
INLINE void thin_far(const float *x, size_t ldx, const mq_dense *w, size_t n0, size_t n1, const mq_epilogue *out,
                     const mq_dense_type type, const prefetch ahead, const int W, const int R)
{
    const size_t each = (n1 - n0) / (size_t)W, width = w->k_width;
    thin_sums sum;
    for (size_t n = n0; n < n0 + each; n++) {
        size_t at[THIN_FEATURES];
#pragma GCC unroll 6
        for (size_t i = 0; i < (size_t)W; i++) {
            at[i] = (n + i * each) * width;
        }
        zero_sums(sum, W, R);
        thin_span(x, ldx, w, at, 0, width, ahead, type, sum, W, R);
        thin_finish_dense_avx512(out, n, each, sum, W, R);
    }
    for (size_t n = n0 + each * (size_t)W; n < n1; n++) {
        const size_t at[THIN_FEATURES] = {n * width};
        zero_sums(sum, 1, R);
        thin_span(x, ldx, w, at, 0, width, ahead, type, sum, 1, R);
        thin_finish_dense_avx512(out, n, 0, sum, 1, R);
    }
}

/* Features [n0, n1), W neighbours at a time, a whole tile prefetched ahead. Many rows of activations do not stay in L1
 * beside the weights, so a block of tiles takes them a slice of K at a time and keeps its sums in between. */
INLINE void thin_near(const float *x, size_t ldx, const mq_dense *w, size_t n0, size_t n1, const mq_epilogue *out,
                      const mq_dense_type type, const int W, const int R)
{
    const size_t width = w->k_width, step = (size_t)W, tiles = (n1 - n0) / step, bytes = type == MQ_DENSE_F32 ? 4 : 2;
    const ptrdiff_t row_bytes = (ptrdiff_t)(width * bytes), slice_bytes = (ptrdiff_t)(SLICE * bytes);
    __m512 kept[BLOCK][4][THIN_GROUP];
    for (size_t t0 = 0; t0 < tiles; t0 += BLOCK) {
        const size_t count = tiles - t0 < BLOCK ? tiles - t0 : BLOCK;
        for (size_t k0 = 0; k0 < width; k0 += SLICE) {
            const bool last = width - k0 <= SLICE;
            for (size_t t = 0; t < count; t++) {
                const size_t n = n0 + (t0 + t) * step;
                const size_t at[THIN_FEATURES] = {n * width, (n + 1) * width, (n + 2) * width, (n + 3) * width};
                const bool back = t + 1 == count && !last; /* next comes the block's first tile, a slice further */
                const prefetch ahead = {back ? slice_bytes - (ptrdiff_t)(t * step) * row_bytes : W * row_bytes, 0};
                thin_sums sum;
                if (k0 == 0)
                    zero_sums(sum, W, R);
                else
                    copy_sums(sum, kept[t], W, R);
                thin_span(x, ldx, w, at, k0, last ? width : k0 + SLICE, ahead, type, sum, W, R);
                if (last)
                    thin_finish_dense_avx512(out, n, 1, sum, W, R);
                else
                    copy_sums(kept[t], sum, W, R);
            }
        }
    }
    thin_far(x, ldx, w, n0 + tiles * step, n1, out, type, (prefetch){4096, 0}, 1, R);
}

typedef enum thin_way { TILES, STREAMS, TWICE } thin_way;

/* Far streams, few where the activations then stay in L1: the processor's prefetchers follow those best. Activations that do not
 * stay come from L2 for every W features, and more of them share that. */
INLINE void thin_streams(const float *x, size_t ldx, const mq_dense *w, size_t n0, size_t n1, const mq_epilogue *out,
                         const mq_dense_type type, const int R)
{
    const prefetch none = {0, 0}, near = {512, 0}, twice = {1024, 16384};
    if (R == 1 && w->k_width <= THIN_SHORT)
        thin_far(x, ldx, w, n0, n1, out, type, none, 2, 1);
    else if (R == 1 && thin_stays(w, 1, 1))
        thin_far(x, ldx, w, n0, n1, out, type, twice, 1, 1);
    else if (R == 1)
        thin_far(x, ldx, w, n0, n1, out, type, near, 6, 1);
    else if (R == 2 && thin_stays(w, 2, 2))
        thin_far(x, ldx, w, n0, n1, out, type, twice, 2, R);
    else
        thin_far(x, ldx, w, n0, n1, out, type, twice, R <= 4 ? 4 : 3, R);
}

/* R rows, W features at a time, by one of the ways. */
INLINE void thin_rows_dense_avx512(const float *x, size_t ldx, const mq_dense *w, size_t n0, size_t n1,
                                   const mq_epilogue *out, const mq_dense_type type, const thin_way way, const int W,
                                   const int R)
{
    const prefetch page = {4096, 0}, twice_near = {1024, 8192};
    if (way == STREAMS) {
        thin_streams(x, ldx, w, n0, n1, out, type, R);
    } else if (way == TWICE && R <= 2) {
        thin_far(x, ldx, w, n0, n1, out, type, twice_near, 4, R);
    } else if (R <= 2) {
        thin_far(x, ldx, w, n0, n1, out, type, page, W, R);
    } else {
        thin_near(x, ldx, w, n0, n1, out, type, W, R);
    }
}

INLINE void thin_typed_dense_avx512(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                                    const mq_epilogue *out, const mq_dense_type type, const thin_way way)
{
    switch (rows) {
#define CASE(R, W)                                                                                                     \
    case R:                                                                                                            \
        thin_rows_dense_avx512(x, ldx, w, n0, n1, out, type, way, W, R);                                               \
        break
        CASE(1, 2);
        CASE(2, 2);
        CASE(3, 4);
        CASE(4, 4);
        CASE(5, 3);
        CASE(6, 3);
        CASE(7, 3);
        CASE(8, 3);
#undef CASE
    }
}

INLINE void thin_dense_avx512(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                              const mq_epilogue *out, void *scratch, const thin_way way)
{
    if (rows > THIN_GROUP) {
        mq__dense_thin_rows_avx512(x, ldx, rows, w, n0, n1, out, scratch);
    } else if (w->type == MQ_DENSE_BF16) {
        thin_typed_dense_avx512(x, ldx, rows, w, n0, n1, out, MQ_DENSE_BF16, way);
    } else if (w->type == MQ_DENSE_F16) {
        thin_typed_dense_avx512(x, ldx, rows, w, n0, n1, out, MQ_DENSE_F16, way);
    } else {
        thin_typed_dense_avx512(x, ldx, rows, w, n0, n1, out, MQ_DENSE_F32, way);
    }
}

/* Neighbouring features together, the next tile prefetched. */
static void tiles_dense_avx512(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                               const mq_epilogue *out, void *scratch)
{
    thin_dense_avx512(x, ldx, rows, w, n0, n1, out, scratch, TILES);
}

/* Features far apart, each a stream of memory that never jumps. */
static void streams_dense_avx512(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                                 const mq_epilogue *out, void *scratch)
{
    thin_dense_avx512(x, ldx, rows, w, n0, n1, out, scratch, STREAMS);
}

static void twice_dense_avx512(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                               const mq_epilogue *out, void *scratch)
{
    thin_dense_avx512(x, ldx, rows, w, n0, n1, out, scratch, TWICE);
}

void mq__fill_avx512_thin(mq_kernels *table)
{
    static const mq_variant thin[] = {MQ_VARIANT("tiles", tiles_dense_avx512),
                                      MQ_VARIANT("streams", streams_dense_avx512),
                                      MQ_VARIANT("twice", twice_dense_avx512)};
    mq__variants_set(table, MQ_DENSE_THIN, thin, 3);
}
