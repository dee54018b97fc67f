/* Thin dense products of 9 to 64 rows on the AVX-512 level: arithmetic takes longer than memory, so this is a small GEMM that
 * keeps the thin product's sixteen chains per output.
 *
 * Idea. Rows come in even groups of at most 8. A block of 16 tiles of 3 features takes a slice of K at a time: every group reads
 * its weights from L2 and widens them anew; a group's slice of activations stays in L1 meanwhile. All groups together send for
 * the next block, each for its part, so that memory is busy all the time instead of during the first group only. Weights are
 * read from memory once for 64 rows. From L2 to L1 the processor's own prefetchers are enough: sending for lines there, too,
 * costs 4 to 8%.
 *
 * Registers: 3 x 8 sums of 16 lanes, 3 weight vectors, 1 activation vector.
 * Throughput model per 16 k of a tile: 3 x 8 FMA and 3 operations of widening (BF16) on the same two ports: at most 0.89 of the
 * FMA peak. 0.77 was measured with everything in L1 when widening took 6. A tile's end takes 80 operations more, 0.04 of the
 * time at K = 1024.
 * Widening once for all groups instead, to FP32 in L1 or L2, needs more from these caches than it saves
 * (docs/perf/2026-11-emerald-rapids.md). */
#include "kernels/avx512/dense_thin_avx512.h"
#include "kernels/dense_driver.h"

enum {
    WIDE = 3,            /* features of a tile */
    TILES = 16,          /* of a block */
    SLICE = 1024,        /* of K, a multiple of 32: 32 KiB of activations */
    MOST = MQ_THIN_MOST, /* rows per reading of the weights */
    GROUPS = MOST / THIN_GROUP,
    SUM_FLOATS = WIDE * THIN_GROUP * 16,
};
_Static_assert(GROUPS *TILES *SUM_FLOATS <= DENSE_SCRATCH_FLOATS, "fits the scratch");

/* A tile's slice of K for one group of rows. */
typedef struct thin_piece {
    const float *x; /* the group's first row, at the slice */
    size_t ldx, kc;
    const void *data; /* of the weights */
    size_t at[WIDE];  /* the slice of each feature in them */
    const char *far;  /* weights to send for, into L2, `step` bytes from one feature to the next */
    size_t step;
    size_t far0, far1; /* the k of `far` that it sends for */
} thin_piece;

/* 16 k; lanes outside the mask keep their sums. */
INLINE void multiply_16(const thin_piece *p, size_t k, const mq_dense_type type, const __mmask16 mask, const bool whole,
                        thin_sums sum, const int R)
{
    __m512 wv[WIDE];
#pragma GCC unroll 3
    for (int i = 0; i < WIDE; i++) {
        wv[i] = whole ? load_weights_dense_avx512(p->data, type, p->at[i] + k)
                      : load_weights_masked(p->data, type, p->at[i] + k, mask);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        const float *x = p->x + (size_t)r * p->ldx + k;
        const __m512 xv = whole ? _mm512_loadu_ps(x) : _mm512_maskz_loadu_ps(mask, x);
#pragma GCC unroll 3
        for (int i = 0; i < WIDE; i++) {
            if (whole) {
                add_product(&sum[i][r], xv, wv[i]);
            } else {
                sum[i][r] = _mm512_mask3_fmadd_ps(xv, wv[i], sum[i][r], mask);
            }
        }
    }
}

INLINE void send_for_32(const thin_piece *p, size_t k, const mq_dense_type type)
{
    const size_t bytes = type == MQ_DENSE_F32 ? 4 : 2;
#pragma GCC unroll 3
    for (int i = 0; i < WIDE; i++) {
#pragma GCC unroll 2
        for (size_t half = 0; half < 32 * bytes; half += 64) {
            _mm_prefetch(p->far + (size_t)i * p->step + k * bytes + half, _MM_HINT_T1);
        }
    }
}

INLINE void multiply_slice_thin_avx512(const thin_piece *p, const mq_dense_type type, thin_sums sum, const int R)
{
    const size_t far = p->far1 - p->far0;
    size_t k = 0;
    for (; k + 32 <= p->kc; k += 32) {
        if (k - p->far0 < far) send_for_32(p, k, type);
        multiply_16(p, k, type, 0, true, sum, R);
        multiply_16(p, k + 16, type, 0, true, sum, R);
    }
    for (; k < p->kc; k += 16) {
        const __mmask16 mask = p->kc - k < 16 ? (__mmask16)((1u << (p->kc - k)) - 1) : (__mmask16)0xffff;
        multiply_16(p, k, type, mask, false, sum, R);
    }
}

/* Lanes are added pairwise as in sum_lanes_dense_avx512, for more sums at a time. Here 8 + 8: the lower 256 bits of the result are
 * a's. */
INLINE __m512 add_halves(__m512 a, __m512 b)
{
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
}

/* 4 + 4: 128 bits for each of the four sums in a and b. */
INLINE __m512 add_quarters(__m512 a, __m512 b)
{
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

/* 2 + 2: in each 128 bits two lanes of a's sum, two of b's. */
INLINE __m512 add_pairs(__m512 a, __m512 b)
{
    const __m512d ad = _mm512_castps_pd(a), bd = _mm512_castps_pd(b);
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ad, bd)), _mm512_castpd_ps(_mm512_unpackhi_pd(ad, bd)));
}

/* 1 + 1: in each 128 bits the two sums of a, the two of b. */
INLINE __m512 add_ones(__m512 a, __m512 b)
{
    return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
}

/* Outputs of features n, n + 1, ... (`features` of the tile's). */
INLINE void finish_rows_tile_avx512(const mq_epilogue *out, size_t n, size_t features, thin_sums sum, const int R)
{
    __m512 row[WIDE]; /* per feature, in 128 bits q: two partial sums of row q, two of row q + 4 */
#pragma GCC unroll 3
    for (int i = 0; i < WIDE; i++) {
        const __m512 *s = sum[i];
        const int r4 = R > 4 ? 4 : 0, r5 = R > 5 ? 5 : 0, r6 = R > 6 ? 6 : 0, r7 = R > 7 ? 7 : 0; /* or any */
        const __m512 low = add_quarters(add_halves(s[0], s[1]), add_halves(s[2], s[3]));
        const __m512 high = add_quarters(add_halves(s[r4], s[r5]), add_halves(s[r6], s[r7]));
        row[i] = add_pairs(low, high);
    }
    const __m512 first = add_ones(row[0], row[1]), second = add_ones(row[2], row[2]);
    float y[THIN_GROUP][4];
    _mm512_storeu_ps(y[0], _mm512_shuffle_ps(first, second, 0x88));
    _mm512_storeu_ps(y[4], _mm512_shuffle_ps(first, second, 0xdd));
    const __mmask8 mask = (__mmask8)((1u << features) - 1);
    const __m128 bias = out->bias ? _mm_maskz_loadu_ps(mask, out->bias + n) : _mm_setzero_ps();
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        float *to = out->y + (size_t)r * out->ldy + n;
        __m128 v = _mm_loadu_ps(y[r]);
        if (out->bias) v = _mm_add_ps(v, bias);
        if (out->accumulate) v = _mm_add_ps(_mm_maskz_loadu_ps(mask, to), v);
        _mm_mask_storeu_ps(to, mask, v);
    }
}

/* kept: the tile's sums [WIDE][R][16] of the slices before. */
INLINE void run_piece(const thin_piece *p, const mq_dense_type type, bool first_slice, bool last_slice, float *kept,
                      const mq_epilogue *out, size_t n, size_t features, const int R)
{
    thin_sums sum;
#pragma GCC unroll 3
    for (int i = 0; i < WIDE; i++) {
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            sum[i][r] = first_slice ? _mm512_setzero_ps() : _mm512_load_ps(kept + (i * R + r) * 16);
        }
    }
    multiply_slice_thin_avx512(p, type, sum, R);
    if (last_slice) {
        finish_rows_tile_avx512(out, n, features, sum, R);
        return;
    }
#pragma GCC unroll 3
    for (int i = 0; i < WIDE; i++) {
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            _mm512_store_ps(kept + (i * R + r) * 16, sum[i][r]);
        }
    }
}

#define PIECE(name, type, R)                                                                                           \
    static __attribute__((noinline)) void name##_##R(const thin_piece *p, bool first_slice, bool last_slice,           \
                                                     float *kept, const mq_epilogue *out, size_t n, size_t features)   \
    {                                                                                                                  \
        run_piece(p, type, first_slice, last_slice, kept, out, n, features, R);                                        \
    }
#define PIECES(name, type)                                                                                             \
    PIECE(name, type, 4)                                                                                               \
    PIECE(name, type, 5)                                                                                               \
    PIECE(name, type, 6)                                                                                               \
    PIECE(name, type, 7)                                                                                               \
    PIECE(name, type, 8)                                                                                               \
    static piece_fn *const name[] = {name##_4, name##_5, name##_6, name##_7, name##_8};

typedef void piece_fn(const thin_piece *p, bool first_slice, bool last_slice, float *kept, const mq_epilogue *out,
                      size_t n, size_t features);

PIECES(bf16_pieces, MQ_DENSE_BF16)
PIECES(f16_pieces, MQ_DENSE_F16)
PIECES(f32_pieces, MQ_DENSE_F32)

enum { LEAST = 4 }; /* rows of a group: 9 rows are 5 + 4 */

static piece_fn *piece_for(mq_dense_type type, size_t rows)
{
    return (type == MQ_DENSE_F32 ? f32_pieces : type == MQ_DENSE_F16 ? f16_pieces : bf16_pieces)[rows - LEAST];
}

/* A block of tiles at work. */
typedef struct thin_block {
    const float *x;
    size_t ldx, rows, groups;
    const mq_dense *w;
    size_t n, n1; /* the first feature, one past the last of the whole product */
    size_t tiles; /* of WIDE; the last of all may have fewer features */
    const mq_epilogue *out;
    float *kept;
} thin_block;

/* Where group g begins: sizes differ by one at most. */
static size_t group_start(const thin_block *b, size_t g)
{
    return b->rows * g / b->groups;
}

static void run_slice_thin_avx512(const thin_block *b, size_t k0, size_t kc)
{
    const size_t width = b->w->k_width, bytes = b->w->type == MQ_DENSE_F32 ? 4 : 2;
    const bool last = k0 + kc == width;
    const size_t next = last ? b->tiles * WIDE * width - k0 : kc; /* from here to what is read after all groups */
    for (size_t g = 0; g < b->groups; g++) {
        const size_t row = group_start(b, g), count = group_start(b, g + 1) - row;
        piece_fn *run = piece_for(b->w->type, count);
        mq_epilogue out = *b->out;
        out.y += row * out.ldy;
        for (size_t t = 0; t < b->tiles; t++) {
            const size_t n = b->n + t * WIDE, at = n * width + k0;
            const size_t features = b->n1 - n < WIDE ? b->n1 - n : WIDE;
            const thin_piece p = {.x = b->x + row * b->ldx + k0,
                                  .ldx = b->ldx,
                                  .kc = kc,
                                  .data = b->w->data,
                                  /* missing features: the first once more, which is not stored */
                                  .at = {at, features > 1 ? at + width : at, features > 2 ? at + 2 * width : at},
                                  .far = (const char *)b->w->data + (at + next) * bytes,
                                  .step = width * bytes,
                                  .far0 = kc * g / b->groups,
                                  .far1 = kc * (g + 1) / b->groups};
            run(&p, k0 == 0, last, b->kept + (g * TILES + t) * SUM_FLOATS, &out, n, features);
        }
    }
}

static void run_rows(thin_block b)
{
    const size_t width = b.w->k_width;
    const size_t slices = (width + SLICE - 1) / SLICE, slice = ((width + slices - 1) / slices + 31) / 32 * 32;
    for (; b.n < b.n1; b.n += b.tiles * WIDE) {
        const size_t left = (b.n1 - b.n + WIDE - 1) / WIDE;
        b.tiles = left < TILES ? left : TILES;
        for (size_t k0 = 0; k0 < width; k0 += slice) {
            run_slice_thin_avx512(&b, k0, width - k0 < slice ? width - k0 : slice);
        }
    }
}

void mq__dense_thin_rows_avx512(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                                const mq_epilogue *out, void *scratch)
{
    const size_t passes = (rows + MOST - 1) / MOST;
    for (size_t i = 0; i < passes; i++) {
        const size_t row = rows * i / passes, count = rows * (i + 1) / passes - row;
        mq_epilogue part = *out;
        part.y += row * part.ldy;
        const thin_block b = {.x = x + row * ldx,
                              .ldx = ldx,
                              .rows = count,
                              .groups = (count + THIN_GROUP - 1) / THIN_GROUP,
                              .w = w,
                              .n = n0,
                              .n1 = n1,
                              .out = &part,
                              .kept = scratch};
        run_rows(b);
    }
}
