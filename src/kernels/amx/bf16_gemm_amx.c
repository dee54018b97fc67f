/* W16A16 GEMM of the AMX level: TDPBF16PS, the product of 16 features by 16 rows and 32 k, in 16 cycles.
 *
 * It is y^T = w x^T that is computed: a tile of weights has the order that they have in the checkpoint and is only copied; it is the
 * rows of activations that are packed in pairs of k, and the sums that are transposed at the end. The other way round weights would
 * be transposed, which for 512 rows takes a tenth of the time of their products and for few rows more than that.
 *
 * Loops, outermost first, as in kernels/dense_driver.h:
 *     blocks of row groups      at most BLOCK_GROUPS; their sums wait in L2 from slice to slice
 *     PANELS panels of weights  together, so that the rows of a slice come from L2 once for all of them
 *     slices of k               the panels' weights are copied: contiguous tiles, which share no cache set
 *     two row groups, a panel   2 x 2 tiles of sums; meanwhile stored weights of the next slice are prefetched
 *
 * A row group has MQ_DENSE_MR = 14 rows, so 2 of 16 columns of a tile are idle.
 * The instruction rounds and flushes subnormals in its own way: BOUND, as at the AVX512_BF16 level.
 *
 * Measured (Emerald Rapids, one thread, a busy host): 3.7 to 4.0 times the FP32 FMA peak for 512 and 2048 rows, 2.8 for 128; what the
 * neighbour does to tiles is in docs/perf/amx.md. */
#include "kernels/amx/tile_amx.h"
#include "kernels/avx512/transpose_avx512.h"
#include "kernels/avx512bf16/avx512bf16.h"
#include "kernels/avx512bf16/row_pairs_avx512bf16.h"
#include "kernels/dense_driver.h"
#include "kernels/table.h"

#define MR MQ_DENSE_MR

enum {
    STEP = 32,         /* k of a tile */
    SLICE_STEPS = 16,  /* of a slice, at most */
    PANELS = 4,        /* that share a slice of the rows */
    BLOCK_GROUPS = 54, /* an even number */
    PANEL_BYTES = 2 * SLICE_STEPS * TILE_BYTES,
    SUM_BYTES = 4 * TILE_BYTES, /* of two groups and a panel */
    SUMS_BYTES = BLOCK_GROUPS / 2 * PANELS * SUM_BYTES,
    SCRATCH_BYTES = PANELS * PANEL_BYTES + SUMS_BYTES,
    LEAST_WIDTH = 64, /* below, not every width leaves a group the room for whole tiles */
};

static size_t steps_of(size_t k_width)
{
    return (k_width + STEP - 1) / STEP;
}

static size_t min_size_amx(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* [group][step]: 16 pairs of k by 16 rows, the last two of them zero. */
static void pack_rows_amx(const float *x, size_t ldx, size_t rows, size_t k_width, size_t g0, size_t g1, float *panels)
{
    if (k_width < LEAST_WIDTH) {
        mq__bf16_pack_rows_avx512bf16(x, ldx, rows, k_width, g0, g1, panels);
        return;
    }
    for (size_t g = g0; g < g1; g++) {
        const size_t live = min_size_amx(rows - g * MR, MR);
        const float *from = x + g * MR * ldx;
        char *to = (char *)(panels + g * k_width * MR);
        for (size_t k = 0; k < k_width; k += STEP, to += TILE_BYTES) {
            __m512i t[16];
            load_row_pairs(from + k, ldx, live, min_size_amx(k_width - k, STEP), t);
#pragma GCC unroll 16
            for (size_t i = 0; i < 16; i++)
                _mm512_storeu_si512(to + i * TILE_ROW_BYTES, t[i]);
        }
    }
}

/* Where a product stands. */
typedef struct place {
    const mq_dense *w;
    size_t n;             /* one past the last feature to compute */
    size_t g0, g1;        /* row groups of the block */
    size_t panel, panels; /* and of weights */
    size_t step0, steps;  /* the slice */
    bool first, last;     /* of the slices */
} place;

/* A panel's slice as [half][step] tiles of 16 features; absent features and k are zero. */
static void copy_panel(const place *at, size_t panel, char *to)
{
    const size_t width = at->w->k_width, k0 = at->step0 * STEP, k1 = min_size_amx(width, k0 + at->steps * STEP);
    for (size_t f = 0; f < DENSE_NR; f++) {
        const size_t n = panel * DENSE_NR + f;
        const uint16_t *from = (const uint16_t *)at->w->data + n * width;
        char *row = to + f / 16 * (at->steps * TILE_BYTES) + f % 16 * TILE_ROW_BYTES;
        for (size_t k = k0; k < k1; k += STEP, row += TILE_BYTES) {
            const size_t live = n < at->n ? min_size_amx(k1 - k, STEP) : 0;
            const __mmask32 mask = (__mmask32)(((uint64_t)1 << live) - 1);
            _mm512_store_si512(row, _mm512_maskz_loadu_epi16(mask, from + k));
        }
    }
}

/* Stored weights of the slice after this one come to L2 in `tiles` parts. */
static void prefetch_part(const place *next, size_t tile, size_t tiles)
{
    const size_t n0 = next->panel * DENSE_NR, count = min_size_amx(next->panels * DENSE_NR, next->n - n0);
    const size_t k0 = next->step0 * STEP, bytes = 2 * min_size_amx(next->w->k_width - k0, next->steps * STEP);
    for (size_t f = tile * count / tiles; f < (tile + 1) * count / tiles; f++) {
        const char *from = (const char *)next->w->data + 2 * ((n0 + f) * next->w->k_width + k0);
        for (size_t i = 0; i < bytes; i += 64)
            __builtin_prefetch(from + i, 0, 2);
    }
}

/* sums [4]: features 0-15 and 16-31 by one group, then, if there are two, by the other. */
static inline __attribute__((always_inline)) void
multiply_groups(const bool two, const char *w, const char *x, size_t group_bytes, size_t steps, bool first, char *sums)
{
    const char *w1 = w + steps * TILE_BYTES, *x1 = x + group_bytes, *const end = w1;
    if (first) {
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_ZERO(2);
        TILE_ZERO(3);
    } else {
        TILE_LOAD(0, sums, TILE_ROW_BYTES);
        TILE_LOAD(1, sums + TILE_BYTES, TILE_ROW_BYTES);
        if (two) TILE_LOAD(2, sums + 2 * TILE_BYTES, TILE_ROW_BYTES);
        if (two) TILE_LOAD(3, sums + 3 * TILE_BYTES, TILE_ROW_BYTES);
    }
    do {
        TILE_LOAD(4, w, TILE_ROW_BYTES);
        TILE_LOAD(6, x, TILE_ROW_BYTES);
        TILE_MULTIPLY_BF16(0, 4, 6);
        TILE_LOAD(5, w1, TILE_ROW_BYTES);
        TILE_MULTIPLY_BF16(1, 5, 6);
        if (two) {
            TILE_LOAD(7, x1, TILE_ROW_BYTES);
            TILE_MULTIPLY_BF16(2, 4, 7);
            TILE_MULTIPLY_BF16(3, 5, 7);
        }
        w += TILE_BYTES, w1 += TILE_BYTES, x += TILE_BYTES, x1 += TILE_BYTES;
    } while (w < end);
    TILE_STORE(0, sums, TILE_ROW_BYTES);
    TILE_STORE(1, sums + TILE_BYTES, TILE_ROW_BYTES);
    if (two) TILE_STORE(2, sums + 2 * TILE_BYTES, TILE_ROW_BYTES);
    if (two) TILE_STORE(3, sums + 3 * TILE_BYTES, TILE_ROW_BYTES);
}

/* y of up to 14 rows from two finished tiles of sums. */
static void finish_group(const char *sums, size_t rows, size_t n, size_t features, float *y, const mq_epilogue *out)
{
    for (size_t half = 0; 16 * half < features; half++, sums += TILE_BYTES) {
        const __mmask16 mask = (__mmask16)((1u << min_size_amx(features - 16 * half, 16)) - 1);
        const __m512 bias = out->bias ? _mm512_maskz_loadu_ps(mask, out->bias + n + 16 * half) : _mm512_setzero_ps();
        __m512i t[16];
#pragma GCC unroll 16
        for (size_t i = 0; i < 16; i++)
            t[i] = _mm512_load_si512(sums + i * TILE_ROW_BYTES);
        transpose_16x16(t);
#pragma GCC unroll 14
        for (size_t r = 0; r < MR; r++) {
            if (r >= rows) continue;
            float *to = y + r * out->ldy + 16 * half;
            __m512 value = _mm512_castsi512_ps(t[r]);
            if (out->bias) value = _mm512_add_ps(value, bias);
            if (out->accumulate) value = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), value);
            _mm512_mask_storeu_ps(to, mask, value);
        }
    }
}

static void run_slice_amx(const float *panels, size_t rows, const place *at, const place *next, const mq_epilogue *out,
                          char *scratch)
{
    const size_t group_bytes = at->w->k_width * MR * sizeof(float);
    const size_t tiles = (at->g1 - at->g0 + 1) / 2 * at->panels;
    char *sums = scratch + PANELS * PANEL_BYTES;
    for (size_t p = 0; p < at->panels; p++)
        copy_panel(at, at->panel + p, scratch + p * PANEL_BYTES);
    for (size_t t = 0; t < tiles; t++, sums += SUM_BYTES) {
        const size_t g = at->g0 + t / at->panels * 2, p = t % at->panels, n = (at->panel + p) * DENSE_NR;
        const char *x = (const char *)panels + g * group_bytes + at->step0 * TILE_BYTES, *w = scratch + p * PANEL_BYTES;
        prefetch_part(next, t, tiles);
        if (g + 1 < at->g1)
            multiply_groups(true, w, x, group_bytes, at->steps, at->first, sums);
        else
            multiply_groups(false, w, x, group_bytes, at->steps, at->first, sums);
        for (size_t i = g; at->last && i < at->g1 && i < g + 2; i++)
            finish_group(sums + (i - g) * 2 * TILE_BYTES, min_size_amx(rows - i * MR, MR), n,
                         min_size_amx(at->n - n, DENSE_NR), out->y + i * MR * out->ldy + n, out);
    }
}

/* The slice after `at`. */
static place next_slice(const place *at, size_t steps, size_t each, size_t p0, size_t p1)
{
    place next = *at;
    next.step0 = at->last ? 0 : at->step0 + at->steps;
    next.steps = min_size_amx(steps - next.step0, each);
    if (at->last) next.panel = at->panel + at->panels < p1 ? at->panel + at->panels : p0;
    next.panels = min_size_amx(p1 - next.panel, PANELS);
    next.first = next.step0 == 0;
    next.last = next.step0 + next.steps == steps;
    return next;
}

static void gemm_bf16_amx(const float *panels, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                          const mq_epilogue *out, void *scratch)
{
    if (w->k_width < LEAST_WIDTH) {
        mq__bf16_gemm_avx512bf16(panels, rows, w, n0, n1, out, scratch);
        return;
    }
    const size_t groups = (rows + MR - 1) / MR, blocks = (groups + BLOCK_GROUPS - 1) / BLOCK_GROUPS;
    const size_t steps = steps_of(w->k_width), slices = (steps + SLICE_STEPS - 1) / SLICE_STEPS;
    const size_t each = (steps + slices - 1) / slices;
    const size_t p0 = n0 / DENSE_NR, p1 = (n1 + DENSE_NR - 1) / DENSE_NR;
    tiles_configure();
    for (size_t m = 0; m < blocks; m++) {
        place at = {.w = w,
                    .n = min_size_amx(n1, w->n),
                    .g0 = groups * m / blocks,
                    .g1 = groups * (m + 1) / blocks,
                    .panel = p0,
                    .panels = min_size_amx(p1 - p0, PANELS),
                    .steps = min_size_amx(steps, each),
                    .first = true,
                    .last = slices == 1};
        for (size_t left = (p1 - p0 + PANELS - 1) / PANELS * slices; left > 0; left--) {
            const place next = next_slice(&at, steps, each, p0, p1);
            run_slice_amx(panels, rows, &at, &next, out, scratch);
            at = next;
        }
    }
    tiles_release();
}

void mq__fill_amx_bf16(mq_kernels *table)
{
    table->bf16_pack_rows = pack_rows_amx;
    table->bf16_gemm = gemm_bf16_amx;
    if (table->gemm_scratch_bytes < SCRATCH_BYTES) table->gemm_scratch_bytes = SCRATCH_BYTES;
}
