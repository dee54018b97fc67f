/* NVFP4 weights with FP32 activations on the AVX-512 level.
 *
 * Decoding: a cell holds one dword of 8 codes per feature (nvfp4_pack.h), so a dword shift brings the code of one k of 16
 * features to the low bits of 16 lanes and VPERMPS looks all sixteen up in one register. Features are lanes, nothing is
 * transposed. The GEMM expands cells to the FP32 panels of the dense micro-kernel; the thin product feeds the looked-up
 * vector to one FMA per row with the activation broadcast from memory. Above 8 rows a slice of a panel is looked up once and
 * lies in L1 for groups of at most 10 rows.
 *
 * Thin, registers: R x 2 block sums and R x 2 totals (above 6 rows the totals live on the stack, touched once per block;
 * taking the features in two halves instead measured slower), 1 to 2 code vectors, table.
 * Throughput model per 16 weights (9 bytes): shift (p0), VPERMPS (p5) and R FMA (p05): (2 + R)/2 cycles.
 * Measured (2-core Cascade Lake class, 2.5 GHz, one thread, N x K = 3072 x 1024), share of the read bandwidth: 0.70 with
 * 1 row, 0.46 with 4, 0.23 with 8. */
#include "kernels/dense_driver.h"
#include "kernels/nvfp4_pack.h"

#include <immintrin.h>

#define AHEAD_BYTES 2048
#define INLINE      static inline __attribute__((always_inline))

INLINE __m512 e2m1_table(void)
{
    return _mm512_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f,
                          -4.0f, -6.0f);
}

/* Bits to shift a dword of codes by, so that VPERMPS indexes with k (mod 8). */
INLINE unsigned code_shift_w4a16_avx512(unsigned k)
{
    return 8 * (k % 4) + 4 * (k % 8 / 4);
}

/* Sixteen scale bytes. Subnormal ones (m/8 * 2^-6) are made as (1 + m/8) * 2^-6 - 2^-6, exactly. */
INLINE __m512 load_scales_w4a16_avx512(const uint8_t *bytes)
{
    __m512i code = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)bytes));
    const __mmask16 subnormal = _mm512_cmplt_epi32_mask(code, _mm512_set1_epi32(8));
    code = _mm512_mask_add_epi32(code, subnormal, code, _mm512_set1_epi32(8));
    const __m512 value =
        _mm512_castsi512_ps(_mm512_add_epi32(_mm512_slli_epi32(code, 20), _mm512_set1_epi32(120 << 23)));
    return _mm512_mask_sub_ps(value, subnormal, value, _mm512_set1_ps(0x1p-6f));
}

static void expand_w4a16_avx512(const void *weights, size_t panel, size_t k0, size_t kc, float *b)
{
    const mq_nvfp4 *w = weights;
    const uint8_t *cell = mq__nvfp4_panel(w, panel) + k0 / MQ_NVFP4_BLOCK * MQ_NVFP4_CELL;
    const __m512 table = e2m1_table();
    for (size_t k = 0; k < kc; k += MQ_NVFP4_BLOCK, cell += MQ_NVFP4_CELL, b += MQ_NVFP4_BLOCK * DENSE_NR) {
        const unsigned width = kc - k < MQ_NVFP4_BLOCK ? (unsigned)(kc - k) : MQ_NVFP4_BLOCK;
        for (size_t half = 0; half < 2; half++) {
            const __m512 scale = load_scales_w4a16_avx512(cell + MQ_NVFP4_CELL_SCALES + 16 * half);
#pragma GCC unroll 16
            for (unsigned i = 0; i < MQ_NVFP4_BLOCK; i++) {
                if (i >= width) break;
                const __m512i codes = _mm512_loadu_si512(cell + 128 * (i / 8) + 64 * half);
                const __m512 value = _mm512_permutexvar_ps(_mm512_srli_epi32(codes, code_shift_w4a16_avx512(i)), table);
                _mm512_store_ps(b + i * DENSE_NR + 16 * half, _mm512_mul_ps(value, scale));
            }
        }
    }
}

static void gemm_w4a16_avx512(const float *panels, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                              const mq_epilogue *out, void *scratch)
{
    const size_t n1 = p1 * MQ_NVFP4_NR < w->n ? p1 * MQ_NVFP4_NR : w->n;
    const dense_source source = {.core = &mq__dense_core_avx512,
                                 .expand = expand_w4a16_avx512,
                                 .weights = w,
                                 .n = n1,
                                 .k_width = w->k_width,
                                 .row_floats = w->k_width,
                                 .multiplier = w->multiplier};
    mq__dense_run(panels, rows, &source, p0, p1, out, scratch);
}

/* Adds one block (or the first `width` k of it) of 32 features for R rows to `sum`. */
INLINE void thin_block_w4a16_avx512(const uint8_t *cell, const float *x, size_t ldx, unsigned width, __m512 sum[8][2],
                                    const int R)
{
    const __m512 table = e2m1_table();
    __m512 dot[8][2];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        dot[r][0] = dot[r][1] = _mm512_setzero_ps();
    }
#pragma GCC unroll 16
    for (unsigned k = 0; k < MQ_NVFP4_BLOCK; k++) {
        if (k >= width) break;
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            const __m512i codes = _mm512_loadu_si512(cell + 128 * (k / 8) + 64 * h);
            const __m512 value = _mm512_permutexvar_ps(_mm512_srli_epi32(codes, code_shift_w4a16_avx512(k)), table);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                dot[r][h] = _mm512_fmadd_ps(_mm512_set1_ps(x[(size_t)r * ldx + k]), value, dot[r][h]);
            }
        }
    }
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        const __m512 scale = load_scales_w4a16_avx512(cell + MQ_NVFP4_CELL_SCALES + 16 * h);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            sum[r][h] = _mm512_fmadd_ps(dot[r][h], scale, sum[r][h]);
        }
    }
}

INLINE void thin_finish_w4a16_avx512(__m512 sum, size_t row, size_t n, size_t n_end, float multiplier,
                                     const mq_epilogue *out)
{
    if (n >= n_end) return;
    const __mmask16 mask = n_end - n < 16 ? (__mmask16)((1u << (n_end - n)) - 1) : (__mmask16)0xFFFF;
    float *y = out->y + row * out->ldy + n;
    sum = _mm512_mul_ps(sum, _mm512_set1_ps(multiplier));
    if (out->bias) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, out->bias + n));
    if (out->accumulate) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), sum);
    _mm512_mask_storeu_ps(y, mask, sum);
}

/* One panel, R rows. */
INLINE void thin_panel(const float *x, size_t ldx, const mq_nvfp4 *w, size_t panel, const mq_epilogue *out, const int R)
{
    const uint8_t *cell = mq__nvfp4_panel(w, panel);
    const size_t whole = w->k_width / MQ_NVFP4_BLOCK, rest = w->k_width % MQ_NVFP4_BLOCK;
    __m512 sum[8][2];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        sum[r][0] = sum[r][1] = _mm512_setzero_ps();
    }
    for (size_t b = 0; b < whole; b++, cell += MQ_NVFP4_CELL, x += MQ_NVFP4_BLOCK) {
#pragma GCC unroll 5
        for (int i = 0; i < 5; i++) {
            _mm_prefetch((const char *)cell + AHEAD_BYTES + 64 * i, _MM_HINT_T0);
        }
        thin_block_w4a16_avx512(cell, x, ldx, MQ_NVFP4_BLOCK, sum, R);
    }
    if (rest) thin_block_w4a16_avx512(cell, x, ldx, (unsigned)rest, sum, R);
    const size_t n = panel * MQ_NVFP4_NR;
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        thin_finish_w4a16_avx512(sum[r][0], (size_t)r, n, w->n, w->multiplier, out);
        thin_finish_w4a16_avx512(sum[r][1], (size_t)r, n + 16, w->n, w->multiplier, out);
    }
}

INLINE void thin_rows_w4a16_avx512(const float *x, size_t ldx, const mq_nvfp4 *w, size_t p0, size_t p1,
                                   const mq_epilogue *out, const int R)
{
    for (size_t p = p0; p < p1; p++) {
        thin_panel(x, ldx, w, p, out, R);
    }
}

/* ------------------------------------------------------------------ more than 8 rows */

enum {
    ROWS_MOST = MQ_THIN_MOST,
    ROWS_GROUP = 10,  /* rows together: 10 x 2 block sums in registers; their totals wait in the scratch */
    ROWS_BLOCKS = 16, /* blocks decoded together: 32 KiB */
    ROWS_CODES = ROWS_BLOCKS * MQ_NVFP4_BLOCK * MQ_NVFP4_NR,
    ROWS_SCALES = ROWS_BLOCKS * MQ_NVFP4_NR,
};
_Static_assert(ROWS_CODES + ROWS_SCALES + ROWS_MOST * MQ_NVFP4_NR <= DENSE_SCRATCH_FLOATS, "fits the scratch");

/* A slice of a panel as FP32: the codes' values [k][32] and the scales [block][32]. */
typedef struct decoded {
    float *codes, *scales, *totals; /* totals: [row][32], of the slices before */
} decoded;

static void decode_cells_w4a16_avx512(const uint8_t *cell, size_t blocks, const decoded *d)
{
    const __m512 table = e2m1_table();
    float *to = d->codes;
    for (size_t b = 0; b < blocks; b++, cell += MQ_NVFP4_CELL, to += MQ_NVFP4_BLOCK * MQ_NVFP4_NR) {
#pragma GCC unroll 5
        for (int i = 0; i < 5; i++) {
            _mm_prefetch((const char *)cell + AHEAD_BYTES + 64 * i, _MM_HINT_T0);
        }
#pragma GCC unroll 2
        for (size_t h = 0; h < 2; h++) {
#pragma GCC unroll 16
            for (unsigned k = 0; k < MQ_NVFP4_BLOCK; k++) {
                const __m512i codes = _mm512_loadu_si512(cell + 128 * (k / 8) + 64 * h);
                const __m512i index = _mm512_srli_epi32(codes, code_shift_w4a16_avx512(k));
                _mm512_store_ps(to + k * MQ_NVFP4_NR + 16 * h, _mm512_permutexvar_ps(index, table));
            }
            _mm512_store_ps(d->scales + b * MQ_NVFP4_NR + 16 * h,
                            load_scales_w4a16_avx512(cell + MQ_NVFP4_CELL_SCALES + 16 * h));
        }
    }
}

/* Adds k in [0, kc) of a decoded slice to the totals of R rows. */
INLINE void add_decoded_w4a16_avx512(const float *x, size_t ldx, size_t kc, const decoded *d, float *totals,
                                     const int R)
{
    const float *codes = d->codes, *scales = d->scales;
    for (size_t k0 = 0; k0 < kc; k0 += MQ_NVFP4_BLOCK, x += MQ_NVFP4_BLOCK, scales += MQ_NVFP4_NR) {
        const size_t width = kc - k0 < MQ_NVFP4_BLOCK ? kc - k0 : MQ_NVFP4_BLOCK;
        __m512 dot[ROWS_GROUP][2];
#pragma GCC unroll 10
        for (int r = 0; r < R; r++) {
            dot[r][0] = dot[r][1] = _mm512_setzero_ps();
        }
        for (size_t k = 0; k < width; k++) {
            const __m512 w0 = _mm512_load_ps(codes + k * MQ_NVFP4_NR),
                         w1 = _mm512_load_ps(codes + k * MQ_NVFP4_NR + 16);
#pragma GCC unroll 10
            for (int r = 0; r < R; r++) {
                const __m512 xv = _mm512_set1_ps(x[(size_t)r * ldx + k]);
                dot[r][0] = _mm512_fmadd_ps(xv, w0, dot[r][0]);
                dot[r][1] = _mm512_fmadd_ps(xv, w1, dot[r][1]);
            }
        }
        codes += MQ_NVFP4_BLOCK * MQ_NVFP4_NR;
        const __m512 s0 = _mm512_load_ps(scales), s1 = _mm512_load_ps(scales + 16);
#pragma GCC unroll 10
        for (int r = 0; r < R; r++) {
            float *total = totals + r * MQ_NVFP4_NR;
            _mm512_store_ps(total, _mm512_fmadd_ps(dot[r][0], s0, _mm512_load_ps(total)));
            _mm512_store_ps(total + 16, _mm512_fmadd_ps(dot[r][1], s1, _mm512_load_ps(total + 16)));
        }
    }
}

static void add_group_w4a16_avx512(const float *x, size_t ldx, size_t rows, size_t kc, const decoded *d, float *totals)
{
    switch (rows) {
#define CASE(R)                                                                                                        \
    case R:                                                                                                            \
        add_decoded_w4a16_avx512(x, ldx, kc, d, totals, R);                                                            \
        break
        CASE(4);
        CASE(5);
        CASE(6);
        CASE(7);
        CASE(8);
        CASE(9);
        CASE(10);
#undef CASE
    }
}

/* 9 to ROWS_MOST rows of a panel, in groups of 4 to ROWS_GROUP whose sizes differ by one at most. */
static void thin_many_w4a16_avx512(const float *x, size_t ldx, size_t rows, const mq_nvfp4 *w, size_t panel,
                                   const mq_epilogue *out, const decoded *d)
{
    const uint8_t *cells = mq__nvfp4_panel(w, panel);
    const size_t groups = (rows + ROWS_GROUP - 1) / ROWS_GROUP, slice = ROWS_BLOCKS * MQ_NVFP4_BLOCK;
    memset(d->totals, 0, rows * MQ_NVFP4_NR * sizeof(float));
    for (size_t k0 = 0; k0 < w->k_width; k0 += slice) {
        const size_t kc = w->k_width - k0 < slice ? w->k_width - k0 : slice;
        decode_cells_w4a16_avx512(cells + k0 / MQ_NVFP4_BLOCK * MQ_NVFP4_CELL,
                                  (kc + MQ_NVFP4_BLOCK - 1) / MQ_NVFP4_BLOCK, d);
        for (size_t g = 0; g < groups; g++) {
            const size_t row = rows * g / groups, count = rows * (g + 1) / groups - row;
            add_group_w4a16_avx512(x + row * ldx + k0, ldx, count, kc, d, d->totals + row * MQ_NVFP4_NR);
        }
    }
    for (size_t r = 0; r < rows; r++) {
        const float *total = d->totals + r * MQ_NVFP4_NR;
        thin_finish_w4a16_avx512(_mm512_load_ps(total), r, panel * MQ_NVFP4_NR, w->n, w->multiplier, out);
        thin_finish_w4a16_avx512(_mm512_load_ps(total + 16), r, panel * MQ_NVFP4_NR + 16, w->n, w->multiplier, out);
    }
}

static void thin_w4a16_avx512(const float *x, size_t ldx, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                              const mq_epilogue *out, void *scratch)
{
    float *memory = scratch;
    const decoded d = {memory, memory + ROWS_CODES, memory + ROWS_CODES + ROWS_SCALES};
    const size_t passes = (rows + ROWS_MOST - 1) / ROWS_MOST;
    switch (rows) {
#define CASE(R)                                                                                                        \
    case R:                                                                                                            \
        thin_rows_w4a16_avx512(x, ldx, w, p0, p1, out, R);                                                             \
        return
        CASE(1);
        CASE(2);
        CASE(3);
        CASE(4);
        CASE(5);
        CASE(6);
        CASE(7);
        CASE(8);
#undef CASE
    }
    for (size_t i = 0; i < passes; i++) {
        const size_t row = rows * i / passes, count = rows * (i + 1) / passes - row;
        mq_epilogue part = *out;
        part.y += row * part.ldy;
        for (size_t p = p0; p < p1; p++) {
            thin_many_w4a16_avx512(x + row * ldx, ldx, count, w, p, &part, &d);
        }
    }
}

void mq__fill_avx512_w4a16(mq_kernels *table)
{
    table->w4a16_gemm = gemm_w4a16_avx512;
    table->w4a16_thin = thin_w4a16_avx512;
}
