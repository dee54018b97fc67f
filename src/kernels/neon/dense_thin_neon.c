/* Thin dense products of the NEON level: the walks of kernels/dense_thin_tiles.h and dense_thin_rows.h.
 *
 * Few rows: sixteen lanes are four registers, so 2 x 3 features x rows have 24 sums beside 4 vectors of weights and 2 of
 * activations; per 16 k and feature 2 loads and 4 widenings of BF16, and 4 FMA a row.
 * More than THIN_FEW rows: the four registers of a sum never meet before the end, so a tile is taken four times, a quarter of the
 * lanes each: 4 x 6 sums, 4 vectors of weights and 1 to 2 of activations = 30 registers. Per 4 k 24 FMA beside 10 loads. */
#include "kernels/neon/vector_neon.h"
#include "kernels/table.h"

enum { THIN_FEW = 8, FOUR_ROWS = 0 };

#include "kernels/dense_thin_tiles.h"

/* Weights [at, at + 8) as two vectors. */
INLINE void load_weights_neon(const void *w, mq_dense_type type, size_t at, float32x4_t to[2])
{
    if (type == MQ_DENSE_F32) {
        to[0] = vld1q_f32((const float *)w + at);
        to[1] = vld1q_f32((const float *)w + at + 4);
        return;
    }
    const uint16x8_t half = vld1q_u16((const uint16_t *)w + at);
    if (type == MQ_DENSE_F16) {
        to[0] = vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(half)));
        to[1] = vcvt_high_f32_f16(vreinterpretq_f16_u16(half));
    } else {
        to[0] = widen_bf16_low(half);
        to[1] = widen_bf16_high(half);
    }
}

/* k in [k0, k_width), fewer than 16 of them, for one feature and row: lanes past the end keep their sums. */
static void add_tail_neon(const float *x, const mq_dense *w, size_t at, size_t k0, float32x4_t sum[4])
{
    float lane[16];
    for (size_t v = 0; v < 4; v++)
        vst1q_f32(lane + 4 * v, sum[v]);
    for (size_t i = 0; k0 + i < w->k_width; i++)
        lane[i] = fmaf(x[k0 + i], dense_element(w->data, w->type, at + k0 + i), lane[i]);
    for (size_t v = 0; v < 4; v++)
        sum[v] = vld1q_f32(lane + 4 * v);
}

INLINE void tile_thin(const float *x, size_t ldx, const mq_dense *w, size_t n, size_t apart, size_t row,
                      const mq_epilogue *out, const mq_dense_type type, const thin_ahead ahead, const int W,
                      const int R)
{
    const size_t k_width = w->k_width, bytes = type == MQ_DENSE_F32 ? 4 : 2;
    size_t at[4], far = ahead.first;
    float32x4_t sum[4][4][4];
    x += row * ldx;
    UNROLL
    for (int i = 0; i < W; i++) {
        at[i] = (n + (size_t)i * apart) * k_width;
        UNROLL
        for (int r = 0; r < R; r++)
            sum[i][r][0] = sum[i][r][1] = sum[i][r][2] = sum[i][r][3] = vdupq_n_f32(0);
    }
    size_t k = 0;
    for (; k + 16 <= k_width; k += 16, far += ahead.step) {
        UNROLL
        for (int i = 0; i < W; i++) {
            const char *line = (const char *)w->data + at[i] * bytes + far;
            if (ahead.step) __builtin_prefetch(line);
            if (ahead.further) __builtin_prefetch(line + ahead.further, 0, 2);
        }
        UNROLL
        for (size_t half = 0; half < 2; half++) {
            float32x4_t wv[4][2];
            UNROLL
            for (int i = 0; i < W; i++)
                load_weights_neon(w->data, type, at[i] + k + half * 8, wv[i]);
            UNROLL
            for (int r = 0; r < R; r++) {
                const float *xs = x + (size_t)r * ldx + k + half * 8;
                const float32x4_t low = vld1q_f32(xs), high = vld1q_f32(xs + 4);
                UNROLL
                for (int i = 0; i < W; i++) {
                    sum[i][r][2 * half] = vfmaq_f32(sum[i][r][2 * half], low, wv[i][0]);
                    sum[i][r][2 * half + 1] = vfmaq_f32(sum[i][r][2 * half + 1], high, wv[i][1]);
                }
            }
        }
    }
    UNROLL
    for (int i = 0; i < W; i++) {
        UNROLL
        for (int r = 0; r < R; r++) {
            if (k < k_width) add_tail_neon(x + (size_t)r * ldx, w, at[i], k, sum[i][r]);
            finish_output(out, row + (size_t)r, n + (size_t)i * apart, sum_lanes_neon(sum[i][r]));
        }
    }
}

/* ------------------------------------------------------------------ many rows */

enum {
    WIDE = 4,    /* features of a tile */
    GROUP = 6,   /* rows of a tile, at most */
    TILES = 12,  /* of a block */
    SLICE = 512, /* of K, a multiple of 16: 12 KiB of activations */
    QUARTER_FLOATS = WIDE * SLICE / 4,
    WIDE_STEP = 4,
    TILE_FLOATS = 4 * QUARTER_FLOATS,
    SUM_FLOATS = WIDE * GROUP * 16,
};

/* A slice of one feature to wide [4 quarters of 16 lanes][k / 16][WIDE][4], zero past its end. */
INLINE void widen_feature_neon(const mq_dense *w, size_t at, size_t kc, float *wide, const char *ahead,
                               const mq_dense_type type)
{
    const size_t bytes = type == MQ_DENSE_F32 ? 4 : 2;
    size_t k = 0;
    for (; k + 16 <= kc; k += 16, wide += WIDE * 4) {
        __builtin_prefetch(ahead + k * bytes);
        UNROLL
        for (size_t half = 0; half < 2; half++) {
            float32x4_t v[2];
            load_weights_neon(w->data, type, at + k + 8 * half, v);
            vst1q_f32(wide + 2 * half * QUARTER_FLOATS, v[0]);
            vst1q_f32(wide + (2 * half + 1) * QUARTER_FLOATS, v[1]);
        }
    }
    for (size_t i = 0; k < kc && i < 16; i++) {
        wide[i / 4 * QUARTER_FLOATS + i % 4] = k + i < kc ? dense_element(w->data, type, at + k + i) : 0;
    }
}

static void tile_widen(const mq_dense *w, size_t at, size_t kc, float *wide, size_t ahead)
{
    const char *line = (const char *)w->data + ahead * (w->type == MQ_DENSE_F32 ? 4 : 2);
    if (w->type == MQ_DENSE_BF16) {
        widen_feature_neon(w, at, kc, wide, line, MQ_DENSE_BF16);
    } else if (w->type == MQ_DENSE_F16) {
        widen_feature_neon(w, at, kc, wide, line, MQ_DENSE_F16);
    } else {
        widen_feature_neon(w, at, kc, wide, line, MQ_DENSE_F32);
    }
}

/* The `count` < 16 values of k after the whole ones: lanes past the end keep their sums. sums [WIDE][R][4]. */
static void multiply_rest(const float *x, size_t ldx, size_t count, const float *wide, size_t first, float *sums, int R)
{
    for (size_t lane = first; lane < first + 4 && lane < count; lane++) {
        for (int i = 0; i < WIDE; i++) {
            for (int r = 0; r < R; r++) {
                float *sum = sums + (i * R + r) * 4 + lane % 4;
                *sum = fmaf(x[(size_t)r * ldx + lane], wide[4 * i + (int)(lane % 4)], *sum);
            }
        }
    }
}

/* A quarter of the lanes (from `first`) of a tile's slice, R rows; kept [WIDE][R][4]: the sums before and after it. */
INLINE void multiply_quarter(const float *x, size_t ldx, size_t kc, const float *wide, size_t first, float *kept,
                             const bool fresh, const int R)
{
    float32x4_t sum[WIDE][GROUP];
    UNROLL
    for (int i = 0; i < WIDE; i++) {
        UNROLL
        for (int r = 0; r < R; r++)
            sum[i][r] = fresh ? vdupq_n_f32(0) : vld1q_f32(kept + (i * R + r) * 4);
    }
    size_t k = 0;
    for (; k + 16 <= kc; k += 16, wide += WIDE * 4) {
        float32x4_t wv[WIDE];
        UNROLL
        for (int i = 0; i < WIDE; i++)
            wv[i] = vld1q_f32(wide + 4 * i);
        UNROLL
        for (int r = 0; r < R; r++) {
            const float32x4_t xv = vld1q_f32(x + (size_t)r * ldx + k + first);
            UNROLL
            for (int i = 0; i < WIDE; i++)
                sum[i][r] = vfmaq_f32(sum[i][r], xv, wv[i]);
        }
    }
    UNROLL
    for (int i = 0; i < WIDE; i++) {
        UNROLL
        for (int r = 0; r < R; r++)
            vst1q_f32(kept + (i * R + r) * 4, sum[i][r]);
    }
    if (k + first < kc) multiply_rest(x + k, ldx, kc - k, wide, first, kept, R);
}

/* All quarters; kept [4][WIDE][R][4]. */
INLINE void multiply_tile_neon(const float *x, size_t ldx, size_t kc, const float *wide, float *kept, bool fresh,
                               const int R)
{
    for (size_t q = 0; q < 4; q++)
        multiply_quarter(x, ldx, kc, wide + q * QUARTER_FLOATS, 4 * q, kept + q * (size_t)(WIDE * R * 4), fresh, R);
}

static void tile_multiply(const float *x, size_t ldx, size_t rows, size_t kc, const float *wide, float *kept,
                          bool fresh)
{
    switch (rows) {
    case 4:
        multiply_tile_neon(x, ldx, kc, wide, kept, fresh, 4);
        break;
    case 5:
        multiply_tile_neon(x, ldx, kc, wide, kept, fresh, 5);
        break;
    case 6:
        multiply_tile_neon(x, ldx, kc, wide, kept, fresh, 6);
        break;
    }
}

static void tile_finish(const mq_epilogue *out, size_t row, size_t rows, size_t n, size_t features, const float *kept)
{
    for (size_t i = 0; i < features; i++) {
        for (size_t r = 0; r < rows; r++) {
            float32x4_t sum[4];
            for (size_t q = 0; q < 4; q++)
                sum[q] = vld1q_f32(kept + q * (WIDE * rows * 4) + (i * rows + r) * 4);
            finish_output(out, row + r, n + i, sum_lanes_neon(sum));
        }
    }
}

#include "kernels/dense_thin_rows.h"

_Static_assert(THIN_FEW + 1 > GROUP && (THIN_FEW + 1) / 2 >= 4, "groups of more rows than THIN_FEW have 4 to GROUP");

static inline void thin_dense_neon(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                                   const mq_epilogue *out, void *scratch, const thin_way way)
{
    if (rows > THIN_FEW)
        thin_many_rows(x, ldx, rows, w, n0, n1, out, scratch);
    else
        thin_few_rows(x, ldx, rows, w, n0, n1, out, way);
}

static void ahead_dense_neon(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                             const mq_epilogue *out, void *scratch)
{
    thin_dense_neon(x, ldx, rows, w, n0, n1, out, scratch, THIN_AHEAD);
}

static void plain_dense_neon(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                             const mq_epilogue *out, void *scratch)
{
    thin_dense_neon(x, ldx, rows, w, n0, n1, out, scratch, THIN_PLAIN);
}

static void streams_dense_neon(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                               const mq_epilogue *out, void *scratch)
{
    thin_dense_neon(x, ldx, rows, w, n0, n1, out, scratch, THIN_STREAMS);
}

void mq__fill_neon_thin(mq_kernels *table)
{
    static const mq_variant thin[] = {MQ_VARIANT("ahead", ahead_dense_neon), MQ_VARIANT("plain", plain_dense_neon),
                                      MQ_VARIANT("streams", streams_dense_neon)};
    mq__variants_set(table, MQ_DENSE_THIN, thin, 3);
}
