/* Thin dense products of 9 to 64 rows on the AVX-512 level: arithmetic takes longer than memory, so this is a small GEMM that
 * keeps the thin product's sixteen chains per output.
 *
 * Idea. Rows come in even groups of at most 8. A block of 16 tiles of 3 features takes a slice of K at a time: every group reads
 * its weights from L2 and widens them anew; a group's slice of activations stays in L1 meanwhile. All groups together send for
 * the next block, each for its part, so that memory is busy all the time instead of during the first group only. Weights are
 * read from memory once for 64 rows.
 *
 * Registers: 3 x 8 sums of 16 lanes, 3 weight vectors, 1 activation vector.
 * Throughput model per 16 k of a tile: 3 x 8 FMA and 4.5 operations of widening on the same ports: at most 0.84 of the FMA peak. */
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
    const void *data;       /* of the weights */
    size_t at[WIDE];        /* the slice of each feature in them */
    const char *near, *far; /* weights to send for, into L1 and into L2, `step` bytes from one feature to the next */
    size_t step;
    size_t far0, far1; /* the k of `far` that it sends for */
} thin_piece;

/* 32 k of each feature as FP32: [2][WIDE]. */
INLINE void widen_32(const thin_piece *p, size_t k, const mq_dense_type type, __m512 wv[2][WIDE])
{
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
#pragma GCC unroll 3
    for (int i = 0; i < WIDE; i++) {
        if (type == MQ_DENSE_BF16) { /* one shuffle for two vectors: dword j holds k + j and k + j + 16 */
            const __m512i both =
                _mm512_permutexvar_epi16(order, _mm512_loadu_si512((const uint16_t *)p->data + p->at[i] + k));
            wv[0][i] = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
            wv[1][i] = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32((int)0xffff0000)));
        } else {
            wv[0][i] = load_weights_dense_avx512(p->data, type, p->at[i] + k);
            wv[1][i] = load_weights_dense_avx512(p->data, type, p->at[i] + k + 16);
        }
    }
}

/* 16 k; lanes outside the mask keep their sums. */
INLINE void multiply_16(const thin_piece *p, size_t k, __m512 wv[WIDE], const __mmask16 mask, const bool whole,
                        thin_sums sum, const int R)
{
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        const float *x = p->x + (size_t)r * p->ldx + k;
        __m512 xv = whole ? _mm512_loadu_ps(x) : _mm512_maskz_loadu_ps(mask, x);
        __asm__("" : "+v"(xv)); /* or gcc loads it again for each feature */
#pragma GCC unroll 3
        for (int i = 0; i < WIDE; i++) {
            sum[i][r] =
                whole ? _mm512_fmadd_ps(xv, wv[i], sum[i][r]) : _mm512_mask3_fmadd_ps(xv, wv[i], sum[i][r], mask);
        }
    }
}

INLINE void send_for_32(const thin_piece *p, size_t k, const mq_dense_type type)
{
    const size_t bytes = type == MQ_DENSE_F32 ? 4 : 2;
    const bool is_far = k >= p->far0 && k < p->far1;
#pragma GCC unroll 3
    for (int i = 0; i < WIDE; i++) {
#pragma GCC unroll 2
        for (size_t half = 0; half < 32 * bytes; half += 64) {
            const size_t at = (size_t)i * p->step + k * bytes + half;
            _mm_prefetch(p->near + at, _MM_HINT_T0);
            if (is_far) _mm_prefetch(p->far + at, _MM_HINT_T1);
        }
    }
}

INLINE void multiply_slice_thin_avx512(const thin_piece *p, const mq_dense_type type, thin_sums sum, const int R)
{
    size_t k = 0;
    for (; k + 32 <= p->kc; k += 32) {
        __m512 wv[2][WIDE];
        send_for_32(p, k, type);
        widen_32(p, k, type, wv);
        multiply_16(p, k, wv[0], 0, true, sum, R);
        multiply_16(p, k + 16, wv[1], 0, true, sum, R);
    }
    for (; k < p->kc; k += 16) {
        const __mmask16 mask = p->kc - k < 16 ? (__mmask16)((1u << (p->kc - k)) - 1) : (__mmask16)0xffff;
        __m512 wv[WIDE];
#pragma GCC unroll 3
        for (int i = 0; i < WIDE; i++) {
            wv[i] = load_weights_masked(p->data, type, p->at[i] + k, mask);
        }
        multiply_16(p, k, wv, mask, false, sum, R);
    }
}

/* kept: the tile's sums [WIDE][R][16] of the slices before. */
INLINE void run_piece(const thin_piece *p, const mq_dense_type type, bool first_slice, bool last_slice, float *kept,
                      const mq_epilogue *out, size_t n, const int R)
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
        thin_finish_dense_avx512(out, n, 1, sum, WIDE, R);
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
                                                     float *kept, const mq_epilogue *out, size_t n)                    \
    {                                                                                                                  \
        run_piece(p, type, first_slice, last_slice, kept, out, n, R);                                                  \
    }
#define PIECES(name, type)                                                                                             \
    PIECE(name, type, 4)                                                                                               \
    PIECE(name, type, 5)                                                                                               \
    PIECE(name, type, 6)                                                                                               \
    PIECE(name, type, 7)                                                                                               \
    PIECE(name, type, 8)                                                                                               \
    static piece_fn *const name[] = {name##_4, name##_5, name##_6, name##_7, name##_8};

typedef void piece_fn(const thin_piece *p, bool first_slice, bool last_slice, float *kept, const mq_epilogue *out,
                      size_t n);

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
    size_t n, tiles; /* the first feature; tiles of WIDE */
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
            const size_t n = b->n + t * WIDE, at = n * width + k0, back = (b->tiles - 1) * WIDE * width;
            const size_t near = t + 1 < b->tiles ? at + WIDE * width : at - back + (g + 1 == b->groups ? next : 0);
            const thin_piece p = {.x = b->x + row * b->ldx + k0,
                                  .ldx = b->ldx,
                                  .kc = kc,
                                  .data = b->w->data,
                                  .at = {at, at + width, at + 2 * width},
                                  .near = (const char *)b->w->data + near * bytes,
                                  .far = (const char *)b->w->data + (at + next) * bytes,
                                  .step = width * bytes,
                                  .far0 = kc * g / b->groups,
                                  .far1 = kc * (g + 1) / b->groups};
            run(&p, k0 == 0, last, b->kept + (g * TILES + t) * SUM_FLOATS, &out, n);
        }
    }
}

/* One feature at a time: what is left of [n0, n1). */
static void run_feature(const thin_block *b, size_t n)
{
    const size_t width = b->w->k_width;
    for (size_t row = 0; row < b->rows; row++) {
        const float *x = b->x + row * b->ldx;
        __m512 sum = _mm512_setzero_ps();
        size_t k = 0;
        for (; k + 16 <= width; k += 16) {
            sum = _mm512_fmadd_ps(_mm512_loadu_ps(x + k),
                                  load_weights_dense_avx512(b->w->data, b->w->type, n * width + k), sum);
        }
        if (k < width) {
            const __mmask16 mask = (__mmask16)((1u << (width - k)) - 1);
            sum = _mm512_mask3_fmadd_ps(_mm512_maskz_loadu_ps(mask, x + k),
                                        load_weights_masked(b->w->data, b->w->type, n * width + k, mask), sum, mask);
        }
        float y[4];
        sum_lanes_dense_avx512(sum, sum, sum, sum, y);
        finish_output(b->out, row, n, y[0]);
    }
}

static void run_rows(thin_block b, size_t n1)
{
    const size_t width = b.w->k_width;
    const size_t slices = (width + SLICE - 1) / SLICE, slice = ((width + slices - 1) / slices + 31) / 32 * 32;
    for (; b.n + WIDE <= n1; b.n += b.tiles * WIDE) {
        const size_t left = (n1 - b.n) / WIDE;
        b.tiles = left < TILES ? left : TILES;
        for (size_t k0 = 0; k0 < width; k0 += slice) {
            run_slice_thin_avx512(&b, k0, width - k0 < slice ? width - k0 : slice);
        }
    }
    for (; b.n < n1; b.n++) {
        run_feature(&b, b.n);
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
                              .out = &part,
                              .kept = scratch};
        run_rows(b, n1);
    }
}
