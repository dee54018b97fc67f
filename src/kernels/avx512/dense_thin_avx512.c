/* Thin dense products of the AVX-512 level: 1 to 8 rows of activations, weights streamed once.
 *
 * Idea: memory gives its all only to loads that are known far ahead, and one core's arithmetic must not be in their way. How to
 * tell them is a matter of the processor's own prefetchers, so there are two ways through memory with the same results.
 * The general one (Zen 5):
 *   1 or 2 rows: two streams of consecutive features, far apart, that never jump; the processor's own prefetchers follow
 *     them, and an explicit prefetch 4 KiB ahead carries them over page ends (weights are a file map of 4 KiB pages).
 *   3 to 8 rows: 4 or 3 neighbouring features, so that an activation is loaded once for all of them, while exactly the next
 *     tile is prefetched; K in slices whose activations stay in L1.
 * Zen 4's: far streams for all rows; explicit prefetches only disturb a single row, and from 2 rows on each line is sent for
 * twice, 16 KiB ahead into L2 and 1 KiB ahead into L1.
 *
 * Measured, whole decode steps of the 0.6B shape beside a plain read of the same minute. Zen 5 class, 2 threads: 0.92 of
 * 50 GB/s and 0.88 of 80, the machine's two states, with one row; a thread alone 0.95 of 41 GB/s with 1 row, 0.94 with 2,
 * 0.86 with 4, 0.66 with 8, which is 108 GMAC/s of a core's 137. Zen 4 class, a thread alone: 1.00 of 29 GB/s with 1 row, 0.94
 * with 2, 0.91 with 3, 0.78 with 4, 0.43 with 8, which is 51 GMAC/s of a core's 59; the general way 0.83, 0.70, 0.40, 0.40, 0.32.
 *
 * Registers: W x R sums of 16 lanes (2 x 2, 4 x 4, 3 x 8), W weight vectors, 1 activation vector.
 * Throughput model per 16 k: W loads with widening and shift, R loads of activations, W*R FMA. */
#include "base/cpu.h"
#include "kernels/dense_common.h"

#include <immintrin.h>

#define SLICE  1024 /* of K: 32 KiB for 8 rows */
#define BLOCK  16   /* tiles; their sums are 24 to 32 KiB */
#define INLINE static inline __attribute__((always_inline))

/* What to prefetch, in bytes from what is read; 0: nothing. */
typedef struct prefetch {
    ptrdiff_t l1, l2;
} prefetch;

INLINE __m512 load_weights_dense_avx512(const void *w, mq_dense_type type, size_t at)
{
    if (type == MQ_DENSE_F32) return _mm512_loadu_ps((const float *)w + at);
    const __m256i half = _mm256_loadu_si256((const void *)((const uint16_t *)w + at));
    if (type == MQ_DENSE_F16) return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

INLINE __m512 load_weights_masked(const void *w, mq_dense_type type, size_t at, __mmask16 mask)
{
    if (type == MQ_DENSE_F32) return _mm512_maskz_loadu_ps(mask, (const float *)w + at);
    const __m256i half = _mm256_maskz_loadu_epi16(mask, (const uint16_t *)w + at);
    if (type == MQ_DENSE_F16) return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* The lanes of four registers, each summed pairwise: 8+8, 4+4, 2+2, 1+1. */
INLINE void sum_lanes_dense_avx512(__m512 a, __m512 b, __m512 c, __m512 d, float sums[4])
{
    const __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    const __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    __m512 v = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    v = _mm512_add_ps(v, _mm512_permute_ps(v, 0x4e));
    v = _mm512_add_ps(v, _mm512_permute_ps(v, 0xb1));
    const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm_storeu_ps(sums, _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, v)));
}

typedef __m512 thin_sums[4][8]; /* [W][R] */

/* 16 k of W features for R rows. */
INLINE void thin_step(const float *x, size_t ldx, const void *w, const size_t at[4], size_t k, const mq_dense_type type,
                      thin_sums sum, const int W, const int R)
{
    __m512 wv[4];
#pragma GCC unroll 4
    for (int i = 0; i < W; i++) {
        wv[i] = load_weights_dense_avx512(w, type, at[i] + k);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        const __m512 xv = _mm512_loadu_ps(x + (size_t)r * ldx + k);
#pragma GCC unroll 4
        for (int i = 0; i < W; i++) {
            sum[i][r] = _mm512_fmadd_ps(xv, wv[i], sum[i][r]);
        }
    }
}

INLINE void zero_sums(thin_sums sum, const int W, const int R)
{
#pragma GCC unroll 4
    for (int i = 0; i < W; i++) {
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            sum[i][r] = _mm512_setzero_ps();
        }
    }
}

INLINE void copy_sums(thin_sums to, thin_sums from, const int W, const int R)
{
#pragma GCC unroll 4
    for (int i = 0; i < W; i++) {
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            to[i][r] = from[i][r];
        }
    }
}

/* k in [k0, k1) of W features, whose weights begin at at[i]. */
INLINE void thin_span(const float *x, size_t ldx, const mq_dense *w, const size_t at[4], size_t k0, size_t k1,
                      const prefetch ahead, const mq_dense_type type, thin_sums sum, const int W, const int R)
{
    const size_t bytes = type == MQ_DENSE_F32 ? 4 : 2;
    size_t k = k0;
    for (; k + 32 <= k1; k += 32) {
#pragma GCC unroll 4
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
#pragma GCC unroll 4
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

/* Outputs of features n, n + apart, ... (W of them). */
INLINE void thin_finish_dense_avx512(const mq_epilogue *out, size_t n, size_t apart, thin_sums sum, const int W,
                                     const int R)
{
    const __m512 none = _mm512_setzero_ps();
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        float y[4];
        sum_lanes_dense_avx512(sum[0][r], W > 1 ? sum[1][r] : none, W > 2 ? sum[2][r] : none, W > 3 ? sum[3][r] : none,
                               y);
#pragma GCC unroll 4
        for (int i = 0; i < W; i++) {
            finish_output(out, (size_t)r, n + (size_t)i * apart, y[i]);
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
        const size_t at[4] = {n * width, (n + each) * width, (n + 2 * each) * width, (n + 3 * each) * width};
        zero_sums(sum, W, R);
        thin_span(x, ldx, w, at, 0, width, ahead, type, sum, W, R);
        thin_finish_dense_avx512(out, n, each, sum, W, R);
    }
    for (size_t n = n0 + each * (size_t)W; n < n1; n++) {
        const size_t at[4] = {n * width};
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
    thin_sums kept[BLOCK];
    for (size_t t0 = 0; t0 < tiles; t0 += BLOCK) {
        const size_t count = tiles - t0 < BLOCK ? tiles - t0 : BLOCK;
        for (size_t k0 = 0; k0 < width; k0 += SLICE) {
            const bool last = width - k0 <= SLICE;
            for (size_t t = 0; t < count; t++) {
                const size_t n = n0 + (t0 + t) * step;
                const size_t at[4] = {n * width, (n + 1) * width, (n + 2) * width, (n + 3) * width};
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

/* R rows, W features at a time, by one of the two ways. */
INLINE void thin_rows_dense_avx512(const float *x, size_t ldx, const mq_dense *w, size_t n0, size_t n1,
                                   const mq_epilogue *out, const mq_dense_type type, const bool is_zen4, const int W,
                                   const int R)
{
    const prefetch none = {0, 0}, page = {4096, 0}, twice = {1024, 16384};
    if (is_zen4) {
        thin_far(x, ldx, w, n0, n1, out, type, R == 1 ? none : twice, W, R);
    } else if (R <= 2) {
        thin_far(x, ldx, w, n0, n1, out, type, page, W, R);
    } else {
        thin_near(x, ldx, w, n0, n1, out, type, W, R);
    }
}

INLINE void thin_typed_dense_avx512(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                                    const mq_epilogue *out, const mq_dense_type type, const bool is_zen4)
{
    switch (rows) {
#define CASE(R, W)                                                                                                     \
    case R:                                                                                                            \
        thin_rows_dense_avx512(x, ldx, w, n0, n1, out, type, is_zen4, W, R);                                           \
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
                              const mq_epilogue *out, const bool is_zen4)
{
    if (w->type == MQ_DENSE_BF16) {
        thin_typed_dense_avx512(x, ldx, rows, w, n0, n1, out, MQ_DENSE_BF16, is_zen4);
    } else if (w->type == MQ_DENSE_F16) {
        thin_typed_dense_avx512(x, ldx, rows, w, n0, n1, out, MQ_DENSE_F16, is_zen4);
    } else {
        thin_typed_dense_avx512(x, ldx, rows, w, n0, n1, out, MQ_DENSE_F32, is_zen4);
    }
}

static void general(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                    const mq_epilogue *out)
{
    thin_dense_avx512(x, ldx, rows, w, n0, n1, out, false);
}

static void zen4(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                 const mq_epilogue *out)
{
    thin_dense_avx512(x, ldx, rows, w, n0, n1, out, true);
}

void mq__fill_avx512_thin(mq_kernels *table)
{
    const bool is_zen4 = mq__cpu_zen4();
    table->dense_thin = is_zen4 ? zen4 : general;
    table->dense_thin_other = is_zen4 ? general : zen4;
}
