/* The INT8 GEMM of the NEON and NEONDOT levels. Included once by a level's file, after
 *     #define STEP                   rows at a time: 2 or 4
 *     tile_sum                       a type for 4 sums on their way
 *     tile_none()                    sums of nothing
 *     tile_dot8(t, w0, w1, a, half)  t += the products of 8 of 16 k of one row with 4 features: w0, w1 [4 features][4 k], a [16]
 *     tile_total(t)                  the 4 sums
 * and it then provides int8_rows_neon(), a row group through a slice.
 *
 * A row group is taken STEP rows at a time, a panel 16 features at a time: the integers of STEP x 16 outputs live in registers for
 * a group of 64 k, the sums in the tile, in L1. Activations lose their offset of 128 when they are loaded. */
#ifndef MQ_KERNELS_INT8_ROWS_NEON_H
#define MQ_KERNELS_INT8_ROWS_NEON_H

#include "kernels/int8_driver.h"
#include "kernels/neon/vector_neon.h"

enum { QUADS = 4 }; /* of features, at a time */

/* sum [rows][QUADS] += one group. a: codes of the first row; sa: its scale; w: the cell's values, at the first quad; sw: scales. */
INLINE void add_group_int8_neon(int rows, const uint8_t *a, const float *sa, const int8_t *w, const float *sw,
                                float (*sum)[MQ_INT8_NR])
{
    tile_sum t[STEP][QUADS];
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int q = 0; q < QUADS; q++)
            t[r][q] = tile_none();
    }
#pragma GCC unroll 1
    for (size_t k = 0; k < MQ_INT8_GROUP; k += 16, w += 16 * MQ_INT8_NR) {
        int8x16_t codes[STEP];
        UNROLL
        for (int r = 0; r < rows; r++) {
            const uint8x16_t offset = vld1q_u8(a + (size_t)r * MQ_INT8_GROUP + k);
            codes[r] = vreinterpretq_s8_u8(veorq_u8(offset, vdupq_n_u8(MQ_INT8_OFFSET)));
        }
        UNROLL
        for (int i = 0; i < 2 * QUADS; i++) {
            const int half = i / QUADS, q = i % QUADS;
            const int8_t *at = w + 8 * MQ_INT8_NR * half + 16 * q;
            const int8x16_t w0 = vld1q_s8(at), w1 = vld1q_s8(at + 4 * MQ_INT8_NR);
            UNROLL
            for (int r = 0; r < rows; r++)
                t[r][q] = tile_dot8(t[r][q], w0, w1, codes[r], half);
            __asm__ volatile("" ::: "memory"); /* or gcc 12 loads all weights first and spills */
        }
    }
    UNROLL
    for (int q = 0; q < QUADS; q++) {
        const float32x4_t scale = vld1q_f32(sw + 4 * q);
        UNROLL
        for (int r = 0; r < rows; r++) {
            float *to = sum[r] + 4 * q;
            const float32x4_t scaled = vmulq_f32(vcvtq_f32_s32(tile_total(t[r][q])), scale); /* round(dot * sw) */
            vst1q_f32(to, vfmaq_n_f32(vld1q_f32(to), scaled, sa[r]));
        }
    }
}

/* Rows [row, row + rows) of a row group through a slice. */
INLINE void slice_int8_neon(int rows, const int8_slice *s, const uint8_t *a, size_t row, float (*tile)[MQ_INT8_NR])
{
    for (size_t half = 0; half < 2; half++) {
        float(*sum)[MQ_INT8_NR] = (float(*)[MQ_INT8_NR])(void *)(tile[row] + 4 * QUADS * half);
        const uint8_t *codes = a + row * MQ_INT8_GROUP, *w = s->cells;
        const float *scales = (const float *)(const void *)(a + MQ_INT8_ROW_SCALES) + row;
        for (size_t g = 0; g < s->groups; g++) {
            const float *sw = (const float *)(const void *)(w + MQ_INT8_CELL_SCALES) + 4 * QUADS * half;
            add_group_int8_neon(rows, codes, scales, (const int8_t *)w + 16 * QUADS * half, sw, sum);
            codes += MQ_INT8_ROW_CELL, scales += MQ_INT8_ROW_CELL / sizeof *scales, w += MQ_INT8_CELL;
        }
    }
}

typedef void slice_fn(const int8_slice *s, const uint8_t *a, size_t row, float (*tile)[MQ_INT8_NR]);

#define SLICE_OF(rows)                                                                                                 \
    static __attribute__((noinline)) void tile_##rows##x16(const int8_slice *s, const uint8_t *a, size_t row,          \
                                                           float(*tile)[MQ_INT8_NR])                                   \
    {                                                                                                                  \
        slice_int8_neon(rows, s, a, row, tile);                                                                        \
    }
SLICE_OF(1)
SLICE_OF(2)
#if STEP > 2
SLICE_OF(3)
SLICE_OF(4)
#endif

static void int8_rows_neon(const int8_slice *s, size_t rows, const uint8_t *a, float (*tile)[MQ_INT8_NR])
{
#if STEP > 2
    static slice_fn *const slices[] = {tile_1x16, tile_2x16, tile_3x16, tile_4x16};
#else
    static slice_fn *const slices[] = {tile_1x16, tile_2x16};
#endif
    if (s->first) memset(tile, 0, rows * sizeof *tile);
    for (size_t row = 0; row < rows; row += STEP)
        slices[(rows - row < STEP ? rows - row : STEP) - 1](s, a, row, tile);
    for (size_t r = 0; s->last && r < rows; r++)
        finish_row_neon(s->y + r * s->ldy, tile[r], s->features, 1, s->bias, s->accumulate);
}

static void int8_gemm_rows(const mq_int8_rows *a, size_t rows, const mq_int8 *w, size_t p0, size_t p1,
                           const mq_epilogue *out, void *scratch)
{
    static const int8_core core = {.rows = MQ_INT8_MR, .run = int8_rows_neon};
    if (rows <= MQ_INT8_MR) {
        mq__int8_run_few(int8_rows_neon, a, rows, w, p0, p1, out, scratch);
    } else {
        mq__int8_run(&core, a, rows, w, p0, p1, out, scratch);
    }
}

#endif
