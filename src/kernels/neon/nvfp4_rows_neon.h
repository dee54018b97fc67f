/* The NVFP4 GEMM of the NEON and NEONDOT levels. Included once by a level's file, after
 *     tile_dot16(t, w, a)    t += the products of 16 k of one row with 4 features: w [4][4 features][4 k], a [16]
 * and it then provides nvfp4_gemm_rows(), the slot.
 *
 * The idea is that of the AVX-VNNI file with vectors of 4 features: int32 sums begin at the bits of the float 1.5*2^23, less
 * 12*sum(w), and end as the bits of the float 12582912 + dot; one FMA leaves dot*sw exactly, a second one multiplies by the
 * activations' scale and accumulates. Codes are 0..24 and weights -12..12, so signed dot products do for both. A block's first
 * sum and its -12582912*sw are loaded anew for each row: a copy of a register would take a slot of the multiplying units.
 *
 * Up to DIRECT_ROWS rows take a way of their own, from the cell to registers and out; sums begin at 0 there, and activations lose
 * their offset.
 *
 * Registers of 7 rows x 8 features: acc 14, weights 8, t 2 to 4, activation 1, scales 2 to 4. */
#ifndef MQ_KERNELS_NVFP4_ROWS_NEON_H
#define MQ_KERNELS_NVFP4_ROWS_NEON_H

#include "kernels/neon/nvfp4_neon.h"
#include "kernels/nvfp4_driver.h"

/* Eight features of a weight cell as the loops read them. */
typedef struct wide_cell {
    int8_t w[2][4][16];  /* [quad of features][k/4]: 2*e2m1 of 4 features x 4 k */
    int32_t start[2][4]; /* bits of 1.5*2^23, minus 12*sum(w) */
    float sw[2][4];      /* block scales */
    float c[2][4];       /* -1.5*2^23 * sw */
} wide_cell;

enum {
    OCTETS = MQ_NVFP4_NR / 8,
    SLICE = 16, /* blocks of K unpacked at a time: [octet][SLICE] cells */
    DIRECT_ROWS = MQ_NVFP4_MR,
};

/* Four features, from quad `quad` of a cell. */
INLINE void unpack_quad(const uint8_t *cell, size_t quad, int8x16_t w[4])
{
    doubled_neon(vld1q_u8(cell + 16 * quad), w);
    doubled_neon(vld1q_u8(cell + 128 + 16 * quad), w + 2);
}

INLINE void widen_quad(const uint8_t *cell, size_t quad, wide_cell *out)
{
    int8x16_t w[4];
    unpack_quad(cell, quad, w);
    int16x8_t sum = vpaddlq_s8(w[0]);
    for (size_t j = 1; j < 4; j++)
        sum = vpadalq_s8(sum, w[j]);
    for (size_t j = 0; j < 4; j++)
        vst1q_s8(out->w[quad % 2][j], w[j]);
    vst1q_s32(out->start[quad % 2], vmlsq_n_s32(vdupq_n_s32(0x4b400000), vpaddlq_s16(sum), MQ_NVFP4_OFFSET));
    const float32x4_t sw = e4m3_neon(cell + MQ_NVFP4_CELL_SCALES + 4 * quad);
    vst1q_f32(out->sw[quad % 2], sw);
    vst1q_f32(out->c[quad % 2], vmulq_n_f32(sw, -12582912.0f));
}

static void widen_cells(const uint8_t *cell, size_t blocks, void *cells, const uint8_t *ahead)
{
    wide_cell *out = cells;
    for (size_t b = 0; b < blocks; b++, cell += MQ_NVFP4_CELL, ahead += MQ_NVFP4_CELL, out++) {
        for (size_t line = 0; line < MQ_NVFP4_CELL; line += 64)
            __builtin_prefetch(ahead + line);
        for (size_t quad = 0; quad < 2 * OCTETS; quad++)
            widen_quad(cell, quad, out + quad / 2 * SLICE);
    }
}

/* acc [rows][2] += one block. a: the group's cell. */
INLINE void add_block_nvfp4_neon(int rows, const uint8_t *a, const wide_cell *cell, float32x4_t (*acc)[2])
{
    int8x16_t w[2][4];
    UNROLL
    for (int q = 0; q < 2; q++) {
        UNROLL
        for (int j = 0; j < 4; j++)
            w[q][j] = vld1q_s8(cell->w[q][j]);
    }
    const float32x4_t sw[2] = {vld1q_f32(cell->sw[0]), vld1q_f32(cell->sw[1])};
    const float *sa = (const float *)(const void *)(a + MQ_NVFP4_ROW_SCALES);
    const float32x4_t scales[2] = {vld1q_f32(sa), vld1q_f32(sa + 3)}; /* of rows 0..3, 3..6 */
    UNROLL
    for (int r = 0; r < rows; r++) {
        const int8x16_t codes = vreinterpretq_s8_u8(vld1q_u8(a + r * MQ_NVFP4_BLOCK));
        UNROLL
        for (int q = 0; q < 2; q++) {
            const int32x4_t start = vreinterpretq_s32_f32(load_anew((const float *)(const void *)cell->start[q]));
            const float32x4_t t = vreinterpretq_f32_s32(tile_dot16(start, w[q], codes));
            const float32x4_t exact = vfmaq_f32(load_anew(cell->c[q]), t, sw[q]); /* dot * sw */
            acc[r][q] = fma_lane(acc[r][q], exact, scales[r / 4], r < 4 ? r : r - 3);
        }
    }
}

/* One row group through the slice. */
INLINE void group_rows(int rows, const nvfp4_slice *s, const uint8_t *a, float (*tile)[MQ_NVFP4_NR])
{
    for (size_t octet = 0; octet < OCTETS; octet++) {
        const wide_cell *cell = (const wide_cell *)s->cells + octet * SLICE, *end = cell + s->blocks;
        const uint8_t *from = a;
        float32x4_t acc[MQ_NVFP4_MR][2];
        UNROLL
        for (int r = 0; r < rows; r++) {
            UNROLL
            for (int q = 0; q < 2; q++)
                acc[r][q] = s->first ? vdupq_n_f32(0) : vld1q_f32(tile[r] + 8 * octet + 4 * q);
        }
        do {
            __builtin_prefetch(from + s->group_bytes);
            add_block_nvfp4_neon(rows, from, cell, acc);
            from += MQ_NVFP4_ROW_CELL;
        } while (++cell < end);
        UNROLL
        for (int r = 0; r < rows; r++) {
            UNROLL
            for (int q = 0; q < 2; q++)
                vst1q_f32(tile[r] + 8 * octet + 4 * q, acc[r][q]);
        }
    }
}

typedef void group_fn(const nvfp4_slice *s, const uint8_t *a, float (*tile)[MQ_NVFP4_NR]);

#define GROUP(rows)                                                                                                    \
    static __attribute__((noinline)) void tile_##rows##x8(const nvfp4_slice *s, const uint8_t *a,                      \
                                                          float(*tile)[MQ_NVFP4_NR])                                   \
    {                                                                                                                  \
        group_rows(rows, s, a, tile);                                                                                  \
    }
GROUP(1)
GROUP(2)
GROUP(3)
GROUP(4)
GROUP(5)
GROUP(6)
GROUP(7)

static void run_slice_neon(const nvfp4_slice *s, size_t rows, const uint8_t *a, float (*tile)[MQ_NVFP4_NR],
                           const uint8_t *packed)
{
    static group_fn *const groups[] = {tile_1x8, tile_2x8, tile_3x8, tile_4x8, tile_5x8, tile_6x8, tile_7x8};
    for (size_t m = 0; m < rows; m += MQ_NVFP4_MR, tile += MQ_NVFP4_MR, a += s->group_bytes, packed += 128) {
        const size_t n = rows - m < MQ_NVFP4_MR ? rows - m : MQ_NVFP4_MR;
        mq__nvfp4_prefetch(s->y + m * s->ldy, s->ldy, s->last ? n : 0, packed);
        groups[n - 1](s, a, tile);
        for (size_t r = 0; s->last && r < n; r++) {
            finish_row_neon(s->y + (m + r) * s->ldy, tile[r], s->features, s->scale[m + r], s->bias, s->accumulate);
        }
    }
}

/* ------------------------------------------------------------------ few rows */

/* acc [rows][8] of a panel's quads += one block, its weights straight from the cell. a: the group's cell. */
INLINE void add_cell_neon(int rows, const uint8_t *a, const uint8_t *cell, float (*acc)[MQ_NVFP4_NR])
{
    const float *sa = (const float *)(const void *)(a + MQ_NVFP4_ROW_SCALES);
    int8x16_t codes[MQ_NVFP4_MR];
    UNROLL
    for (int r = 0; r < rows; r++)
        codes[r] = vsubq_s8(vreinterpretq_s8_u8(vld1q_u8(a + r * MQ_NVFP4_BLOCK)), vdupq_n_s8(MQ_NVFP4_OFFSET));
    for (size_t quad = 0; quad < 2 * OCTETS; quad++) {
        int8x16_t w[4];
        unpack_quad(cell, quad, w);
        const float32x4_t sw = e4m3_neon(cell + MQ_NVFP4_CELL_SCALES + 4 * quad);
        UNROLL
        for (int r = 0; r < rows; r++) {
            const float32x4_t dot = vcvtq_f32_s32(tile_dot16(vdupq_n_s32(0), w, codes[r]));
            float *sum = acc[r] + 4 * quad;
            vst1q_f32(sum, vfmaq_n_f32(vld1q_f32(sum), vmulq_f32(dot, sw), sa[r]));
        }
    }
}

INLINE void direct_rows(int rows, const uint8_t *a, const uint8_t *cell, size_t blocks, float (*acc)[MQ_NVFP4_NR])
{
    for (size_t b = 0; b < blocks; b++, a += MQ_NVFP4_ROW_CELL, cell += MQ_NVFP4_CELL) {
        for (size_t line = 0; line < MQ_NVFP4_CELL; line += 64)
            __builtin_prefetch(cell + 16 * MQ_NVFP4_CELL + line);
        add_cell_neon(rows, a, cell, acc);
    }
}

typedef void direct_fn(const uint8_t *a, const uint8_t *cell, size_t blocks, float (*acc)[MQ_NVFP4_NR]);

#define DIRECT(rows)                                                                                                   \
    static __attribute__((noinline)) void tile_direct_##rows(const uint8_t *a, const uint8_t *cell, size_t blocks,     \
                                                             float(*acc)[MQ_NVFP4_NR])                                 \
    {                                                                                                                  \
        direct_rows(rows, a, cell, blocks, acc);                                                                       \
    }
DIRECT(1)
DIRECT(2)
DIRECT(3)
DIRECT(4)
DIRECT(5)
DIRECT(6)
DIRECT(7)

static void nvfp4_few_rows(const mq_nvfp4_rows *a, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                           const mq_epilogue *out)
{
    static direct_fn *const direct[] = {tile_direct_1, tile_direct_2, tile_direct_3, tile_direct_4,
                                        tile_direct_5, tile_direct_6, tile_direct_7};
    for (size_t p = p0; p < p1; p++) {
        float acc[MQ_NVFP4_MR][MQ_NVFP4_NR] = {{0}};
        direct[rows - 1](a->panels, mq__nvfp4_panel(w, p), w->blocks, acc);
        nvfp4_slice s;
        mq__nvfp4_set_output(&s, w, p, out, 0);
        for (size_t r = 0; r < rows; r++) {
            finish_row_neon(s.y + r * s.ldy, acc[r], s.features, 0.25f * a->multiplier[r] * w->multiplier, s.bias,
                            s.accumulate);
        }
    }
}

static void nvfp4_gemm_rows(const mq_nvfp4_rows *a, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                            const mq_epilogue *out, void *scratch)
{
    static const nvfp4_core core = {.slice = SLICE, .widen = widen_cells, .rows = run_slice_neon};
    _Static_assert(OCTETS * SLICE * sizeof(wide_cell) <= NVFP4_CELLS, "a slice fits the scratch memory");
    if (rows <= DIRECT_ROWS) {
        if (rows > 0) nvfp4_few_rows(a, rows, w, p0, p1, out);
    } else {
        mq__nvfp4_run(&core, a, rows, w, p0, p1, out, scratch);
    }
}

#endif
