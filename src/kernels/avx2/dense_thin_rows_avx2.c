/* Thin dense products of 9 to 64 rows on the AVX2 level, by kernels/dense_thin_rows.h.
 *
 * Idea. Tiles are of 3 features and at most 4 rows. Sixteen chains are two registers, which never meet before the end: a tile is
 * taken twice, for lanes 0..7 and for lanes 8..15, so that 3 x 4 sums, 3 weight vectors and 1 activation vector fill the 16
 * registers.
 * Throughput model per 8 k of a tile: 3 x 4 FMA beside 7 loads; widening is 2 operations a vector, once for all rows. */
#include "kernels/avx2/dense_thin_avx2.h"

enum {
    WIDE = 3,    /* features of a tile */
    GROUP = 4,   /* rows of a tile, at most */
    TILES = 16,  /* of a block */
    SLICE = 512, /* of K, a multiple of 16: 8 KiB of activations */
    HALF_FLOATS = WIDE * SLICE / 2,
    WIDE_STEP = 8,
    TILE_FLOATS = 2 * HALF_FLOATS,
    SUM_FLOATS = WIDE * GROUP * 16,
};

/* Lanes [first, first + 8) of the `count` that a vector of 16 has. */
INLINE __m256i lanes_below(size_t count, size_t first)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count - (int)first), lane);
}

/* A slice of one feature to wide [2 halves of 16 lanes][k / 16][WIDE][8], zero past its end. ahead: weights to send for. */
INLINE void widen_feature(const mq_dense *w, size_t at, size_t kc, float *wide, const char *ahead,
                          const mq_dense_type type)
{
    const size_t bytes = type == MQ_DENSE_F32 ? 4 : 2;
    size_t k = 0;
    for (; k + 16 <= kc; k += 16, wide += WIDE * 8) {
        _mm_prefetch(ahead + k * bytes, _MM_HINT_T0);
        _mm256_store_ps(wide, load_weights_dense_avx2(w->data, type, at + k));
        _mm256_store_ps(wide + HALF_FLOATS, load_weights_dense_avx2(w->data, type, at + k + 8));
    }
    for (size_t i = 0; k < kc && i < 16; i++) {
        wide[i / 8 * HALF_FLOATS + i % 8] = k + i < kc ? dense_element(w->data, type, at + k + i) : 0;
    }
}

static void tile_widen(const mq_dense *w, size_t at, size_t kc, float *wide, size_t ahead)
{
    const char *line = (const char *)w->data + ahead * (w->type == MQ_DENSE_F32 ? 4 : 2);
    if (w->type == MQ_DENSE_BF16) {
        widen_feature(w, at, kc, wide, line, MQ_DENSE_BF16);
    } else if (w->type == MQ_DENSE_F16) {
        widen_feature(w, at, kc, wide, line, MQ_DENSE_F16);
    } else {
        widen_feature(w, at, kc, wide, line, MQ_DENSE_F32);
    }
}

/* Half the lanes (from `first`) of a tile's slice, R rows; kept [WIDE][R][8]: the sums before and after it. */
INLINE void multiply_half(const float *x, size_t ldx, size_t kc, const float *wide, size_t first, float *kept,
                          const bool fresh, const int R)
{
    __m256 sum[WIDE][GROUP];
#pragma GCC unroll 3
    for (int i = 0; i < WIDE; i++) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            sum[i][r] = fresh ? _mm256_setzero_ps() : _mm256_load_ps(kept + (i * R + r) * 8);
        }
    }
    size_t k = 0;
    for (x += first; k + 16 <= kc; k += 16, wide += WIDE * 8) {
        const __m256 w0 = _mm256_load_ps(wide), w1 = _mm256_load_ps(wide + 8), w2 = _mm256_load_ps(wide + 16);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            const __m256 xv = _mm256_loadu_ps(x + (size_t)r * ldx + k);
            sum[0][r] = _mm256_fmadd_ps(xv, w0, sum[0][r]);
            sum[1][r] = _mm256_fmadd_ps(xv, w1, sum[1][r]);
            sum[2][r] = _mm256_fmadd_ps(xv, w2, sum[2][r]);
        }
    }
    if (k + first < kc) { /* lanes past the end keep their sums */
        const __m256i mask = lanes_below(kc - k, first);
#pragma GCC unroll 3
        for (int i = 0; i < WIDE; i++) {
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                const __m256 xv = _mm256_maskload_ps(x + (size_t)r * ldx + k, mask);
                const __m256 next = _mm256_fmadd_ps(xv, _mm256_load_ps(wide + 8 * i), sum[i][r]);
                sum[i][r] = _mm256_blendv_ps(sum[i][r], next, _mm256_castsi256_ps(mask));
            }
        }
    }
#pragma GCC unroll 3
    for (int i = 0; i < WIDE; i++) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            _mm256_store_ps(kept + (i * R + r) * 8, sum[i][r]);
        }
    }
}

/* Both halves; kept [2][WIDE][R][8]. */
INLINE void multiply_tile(const float *x, size_t ldx, size_t kc, const float *wide, float *kept, bool fresh,
                          const int R)
{
    multiply_half(x, ldx, kc, wide, 0, kept, fresh, R);
    multiply_half(x, ldx, kc, wide + HALF_FLOATS, 8, kept + WIDE * R * 8, fresh, R);
}

static void tile_multiply(const float *x, size_t ldx, size_t rows, size_t kc, const float *wide, float *kept,
                          bool fresh)
{
    switch (rows) {
    case 1:
        multiply_tile(x, ldx, kc, wide, kept, fresh, 1);
        break;
    case 2:
        multiply_tile(x, ldx, kc, wide, kept, fresh, 2);
        break;
    case 3:
        multiply_tile(x, ldx, kc, wide, kept, fresh, 3);
        break;
    default:
        multiply_tile(x, ldx, kc, wide, kept, fresh, 4);
        break;
    }
}

/* Features [n, n + features) of `rows` rows from their kept sums. */
static void tile_finish(const mq_epilogue *out, size_t row, size_t rows, size_t n, size_t features, const float *kept)
{
    for (size_t i = 0; i < features; i++) {
        for (size_t r = 0; r < rows; r++) {
            const float *low = kept + (i * rows + r) * 8, *high = low + WIDE * rows * 8;
            finish_output(out, row + r, n + i, sum_lanes_dense_avx2(_mm256_load_ps(low), _mm256_load_ps(high)));
        }
    }
}

#include "kernels/dense_thin_rows.h"

void mq__dense_thin_rows_avx2(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                              const mq_epilogue *out, void *scratch)
{
    thin_many_rows(x, ldx, rows, w, n0, n1, out, scratch);
}
