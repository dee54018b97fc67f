/* Thin dense products of the AVX2 level: few rows of activations, weights streamed once. More rows: dense_thin_rows_avx2.c.
 *
 * Idea: as on AVX-512, two features far apart, each a stream of memory without jumps, with a prefetch 4 KiB or a row of weights ahead. The
 * walk is that of dense_thin_tiles.h. Four rows have 16 sums, all the registers; the processor forwards the few that spill.
 *
 * Measured (2-core Zen 5 class, MQ_ISA=avx2, whole decode steps of the 0.6B shape beside a plain read of the same minute), one
 * row: 0.92 of 42 GB/s with one thread, where four streams 1 KiB ahead reached 0.74; 0.91 of 52 with two. Zen 4 class, one thread,
 * "plain" and "streams": 0.58 and 0.83 of 33 GB/s in the 9B shape, 0.45 and 0.81 in the 31B shape. Of 8 rows, arithmetic is the
 * limit: 0.36 to 0.48 of the FMA peak on Zen 3. */
#include "kernels/avx2/dense_thin_avx2.h"
#include "kernels/table.h"

enum { FOUR_ROWS = 1 };

#include "kernels/dense_thin_tiles.h"

/* k in [k0, k_width), fewer than 16 of them, for one feature and row: lanes past the end keep their sums. */
static void add_tail(const float *x, const mq_dense *w, size_t at, size_t k0, __m256 *low, __m256 *high)
{
    const size_t width = w->k_width - k0;
    float xs[16] = {0}, ws[16] = {0};
    for (size_t i = 0; i < width; i++) {
        xs[i] = x[k0 + i];
        ws[i] = dense_element(w->data, w->type, at + k0 + i);
    }
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256 in_low = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32((int)width), lane));
    const __m256 in_high = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32((int)width - 8), lane));
    const __m256 a = _mm256_fmadd_ps(_mm256_loadu_ps(xs), _mm256_loadu_ps(ws), *low);
    const __m256 b = _mm256_fmadd_ps(_mm256_loadu_ps(xs + 8), _mm256_loadu_ps(ws + 8), *high);
    *low = _mm256_blendv_ps(*low, a, in_low);
    *high = _mm256_blendv_ps(*high, b, in_high);
}

/* Features n, n + apart, ... (W of them), rows [row, row + R). */
INLINE void tile_thin(const float *x, size_t ldx, const mq_dense *w, size_t n, size_t apart, size_t row,
                      const mq_epilogue *out, const mq_dense_type type, const thin_ahead ahead, const int W,
                      const int R)
{
    const size_t k_width = w->k_width, bytes = type == MQ_DENSE_F32 ? 4 : 2;
    size_t at[4], far = ahead.first;
    __m256 sum[4][4][2];
    x += row * ldx;
#pragma GCC unroll 4
    for (int i = 0; i < W; i++) {
        at[i] = (n + (size_t)i * apart) * k_width;
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            sum[i][r][0] = sum[i][r][1] = _mm256_setzero_ps();
        }
    }
    size_t k = 0;
    for (; k + 16 <= k_width; k += 16, far += ahead.step) {
#pragma GCC unroll 4
        for (int i = 0; i < W; i++) {
            const char *line = (const char *)w->data + at[i] * bytes + far;
            if (ahead.step) _mm_prefetch(line, _MM_HINT_T0);
            if (ahead.further) _mm_prefetch(line + ahead.further, _MM_HINT_T1);
        }
#pragma GCC unroll 2
        for (size_t half = 0; half < 2; half++) {
#pragma GCC unroll 4
            for (int i = 0; i < W; i++) {
                const __m256 wv = load_weights_dense_avx2(w->data, type, at[i] + k + half * 8);
#pragma GCC unroll 4
                for (int r = 0; r < R; r++) {
                    const __m256 xv = _mm256_loadu_ps(x + (size_t)r * ldx + k + half * 8);
                    sum[i][r][half] = _mm256_fmadd_ps(xv, wv, sum[i][r][half]);
                }
            }
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < W; i++) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            if (k < k_width) add_tail(x + (size_t)r * ldx, w, at[i], k, &sum[i][r][0], &sum[i][r][1]);
            finish_output(out, row + (size_t)r, n + (size_t)i * apart,
                          sum_lanes_dense_avx2(sum[i][r][0], sum[i][r][1]));
        }
    }
}

static inline void thin_dense_avx2(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                                   const mq_epilogue *out, void *scratch, const thin_way way)
{
    if (rows > THIN_FEW)
        mq__dense_thin_rows_avx2(x, ldx, rows, w, n0, n1, out, scratch);
    else
        thin_few_rows(x, ldx, rows, w, n0, n1, out, way);
}

static void ahead_dense_avx2(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                             const mq_epilogue *out, void *scratch)
{
    thin_dense_avx2(x, ldx, rows, w, n0, n1, out, scratch, THIN_AHEAD);
}

static void plain_dense_avx2(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                             const mq_epilogue *out, void *scratch)
{
    thin_dense_avx2(x, ldx, rows, w, n0, n1, out, scratch, THIN_PLAIN);
}

static void streams_dense_avx2(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                               const mq_epilogue *out, void *scratch)
{
    thin_dense_avx2(x, ldx, rows, w, n0, n1, out, scratch, THIN_STREAMS);
}

void mq__fill_avx2_thin(mq_kernels *table)
{
    static const mq_variant thin[] = {MQ_VARIANT("ahead", ahead_dense_avx2), MQ_VARIANT("plain", plain_dense_avx2),
                                      MQ_VARIANT("streams", streams_dense_avx2)};
    mq__variants_set(table, MQ_DENSE_THIN, thin, 3);
}
