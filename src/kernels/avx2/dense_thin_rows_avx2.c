/* Thin dense products of 9 to 64 rows on the AVX2 level: a small GEMM that keeps the thin product's sixteen chains per output.
 *
 * Idea. A block of tiles of 3 features takes a slice of K at a time: its weights are widened to FP32 once, then groups of at
 * most 4 rows multiply them. Sixteen chains are two registers, which never meet before the end: a tile is taken twice, for
 * lanes 0..7 and for lanes 8..15, so that 3 x 4 sums, 3 weight vectors and 1 activation vector fill the 16 registers.
 * Throughput model per 8 k of a tile: 3 x 4 FMA beside 7 loads; widening is 2 operations a vector, once for all rows. */
#include "kernels/avx2/dense_thin_avx2.h"
#include "kernels/dense_driver.h"

enum {
    WIDE = 3,    /* features of a tile */
    GROUP = 4,   /* rows of a tile, at most */
    TILES = 16,  /* of a block */
    SLICE = 512, /* of K, a multiple of 16: 8 KiB of activations */
    MOST = MQ_THIN_MOST,
    GROUPS = MOST / GROUP,
    HALF_FLOATS = WIDE * SLICE / 2,
    TILE_FLOATS = 2 * HALF_FLOATS,
    SUM_FLOATS = WIDE * GROUP * 16,
};
_Static_assert(TILES *TILE_FLOATS + GROUPS * TILES * SUM_FLOATS <= DENSE_SCRATCH_FLOATS, "fits the scratch");

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

static void widen_tile(const mq_dense *w, size_t at, size_t kc, float *wide, size_t ahead)
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

static void multiply_rows(const float *x, size_t ldx, size_t rows, size_t kc, const float *wide, float *kept,
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
static void finish_rows_tile(const mq_epilogue *out, size_t row, size_t rows, size_t n, size_t features,
                             const float *kept)
{
    for (size_t i = 0; i < features; i++) {
        for (size_t r = 0; r < rows; r++) {
            const float *low = kept + (i * rows + r) * 8, *high = low + WIDE * rows * 8;
            finish_output(out, row + r, n + i, sum_lanes_dense_avx2(_mm256_load_ps(low), _mm256_load_ps(high)));
        }
    }
}

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

static void run_slice_thin_avx2(const thin_block *b, size_t k0, size_t kc)
{
    const size_t width = b->w->k_width;
    const bool last = k0 + kc == width;
    for (size_t t = 0; t < b->tiles; t++) {
        for (size_t i = 0; i < WIDE; i++) {
            const size_t at = (b->n + t * WIDE + i) * width + k0;
            float *wide = b->wide + t * TILE_FLOATS + i * 8;
            if (i < features_of(b, t)) {
                widen_tile(b->w, at, kc, wide, at + WIDE * width);
            } else {
                widen_tile(b->w, at - i * width, kc, wide, at); /* the first feature once more: it is not stored */
            }
        }
    }
    for (size_t g = 0; g < b->groups; g++) {
        const size_t row = b->rows * g / b->groups, count = b->rows * (g + 1) / b->groups - row;
        for (size_t t = 0; t < b->tiles; t++) {
            float *kept = b->kept + (g * TILES + t) * SUM_FLOATS;
            multiply_rows(b->x + row * b->ldx + k0, b->ldx, count, kc, b->wide + t * TILE_FLOATS, kept, k0 == 0);
            if (last) finish_rows_tile(b->out, row, count, b->n + t * WIDE, features_of(b, t), kept);
        }
    }
}

void mq__dense_thin_rows_avx2(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
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
                run_slice_thin_avx2(&b, k0, w->k_width - k0 < SLICE ? w->k_width - k0 : SLICE);
            }
        }
    }
}
