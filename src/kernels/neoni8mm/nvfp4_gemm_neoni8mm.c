/* NVFP4 W4A4 GEMM with products of 8-bit matrices: SMMLA multiplies 2 rows by 2 features and 8 k.
 *
 * The idea is that of kernels/neon/nvfp4_rows_neon.h: int32 sums begin at the bits of the float 1.5*2^23, less 12*sum(w), one FMA
 * leaves dot*sw exactly, a second one scales and accumulates; here for two rows and two features at once. Rows are paired across
 * their groups of 7. An odd last row is its own pair.
 *
 * Registers of 4 rows x 16 features: acc 16, activations 4, weights 2, t 1 to 4, scales 3.
 * Per block of a pair of rows and a pair of features 2 SMMLA and 2 FMA, and 4 instructions that make a pair of rows, shared by 8
 * pairs of features: 4.5 instructions of the multiplying units for 64 products, where FP32 has 16. */
#include "kernels/neon/nvfp4_neon.h"
#include "kernels/neoni8mm/pairs_neoni8mm.h"
#include "kernels/nvfp4_driver.h"
#include "kernels/table.h"

enum {
    PAIRS = 8,  /* of features, at a time */
    SLICE = 12, /* blocks of K unpacked at a time: [SLICE] cells of features 0..15, then [SLICE] of the others */
    FEW = MQ_NVFP4_MR,
};

/* 16 features of a weight cell as the loops read them; what a feature has once is there twice, for both rows. */
typedef struct wide_cell {
    int8_t w[PAIRS][2][16];  /* [pair][k/8]: 2*e2m1 of 2 features x 8 k */
    int32_t start[PAIRS][4]; /* bits of 1.5*2^23, minus 12*sum(w) */
    float sw[PAIRS][4];      /* block scales */
    float c[PAIRS][4];       /* -1.5*2^23 * sw */
} wide_cell;
_Static_assert(2 * SLICE * sizeof(wide_cell) <= NVFP4_CELLS, "a slice fits the scratch memory");

/* Four features: two pairs. */
static void widen_quad_neoni8mm(const uint8_t *cell, size_t quad, wide_cell *out)
{
    const size_t pair = 2 * (quad % 4);
    int16x8_t sum = vdupq_n_s16(0);
    for (size_t half = 0; half < 2; half++) { /* of k */
        int8x16_t w[2];
        doubled_neon(vld1q_u8(cell + 128 * half + 16 * quad), w);
        sum = vpadalq_s8(vpadalq_s8(sum, w[0]), w[1]);
        const int32x4_t low = vreinterpretq_s32_s8(w[0]), high = vreinterpretq_s32_s8(w[1]);
        vst1q_s8(out->w[pair][half], vreinterpretq_s8_s32(vzip1q_s32(low, high)));
        vst1q_s8(out->w[pair + 1][half], vreinterpretq_s8_s32(vzip2q_s32(low, high)));
    }
    const int32x4_t start = vmlsq_n_s32(vdupq_n_s32(0x4b400000), vpaddlq_s16(sum), MQ_NVFP4_OFFSET);
    const float32x4_t bits = vreinterpretq_f32_s32(start), sw = e4m3_neon(cell + MQ_NVFP4_CELL_SCALES + 4 * quad);
    const float32x4_t c = vmulq_n_f32(sw, -12582912.0f);
    vst1q_s32(out->start[pair], vreinterpretq_s32_f32(low_floats(bits, bits)));
    vst1q_s32(out->start[pair + 1], vreinterpretq_s32_f32(high_floats(bits, bits)));
    vst1q_f32(out->sw[pair], low_floats(sw, sw));
    vst1q_f32(out->sw[pair + 1], high_floats(sw, sw));
    vst1q_f32(out->c[pair], low_floats(c, c));
    vst1q_f32(out->c[pair + 1], high_floats(c, c));
}

static void widen_nvfp4_neoni8mm(const uint8_t *cell, size_t blocks, void *cells, const uint8_t *ahead)
{
    wide_cell *out = cells;
    for (size_t b = 0; b < blocks; b++, cell += MQ_NVFP4_CELL, ahead += MQ_NVFP4_CELL, out++) {
        for (size_t line = 0; line < MQ_NVFP4_CELL; line += 64)
            __builtin_prefetch(ahead + line);
        for (size_t quad = 0; quad < 8; quad++)
            widen_quad_neoni8mm(cell, quad, out + quad / 4 * SLICE);
    }
}

/* Up to 4 rows of a pass: where each has its codes and its scale in its group's cells, and its sums. */
typedef struct four_rows {
    const uint8_t *codes[4];
    const float *scale[4];
    float *sums[4];
} four_rows;

static four_rows rows_from(const nvfp4_slice *s, const uint8_t *a, size_t row, size_t rows, float (*tile)[MQ_NVFP4_NR])
{
    four_rows four;
    for (size_t i = 0; i < 4; i++) { /* the last row stands for those past the end */
        const size_t m = row + i < rows ? row + i : rows - 1;
        four.codes[i] = row_codes(a, s->group_bytes, m);
        four.scale[i] = row_scale(a, s->group_bytes, m);
        four.sums[i] = tile[row + i];
    }
    return four;
}

/* acc [pairs of rows][PAIRS] += one block, `at` bytes into the rows' cells. */
INLINE void add_block_neoni8mm(const int pairs, const four_rows *four, size_t at, const wide_cell *cell,
                               float32x4_t (*acc)[PAIRS])
{
    int8x16_t a[2][2];
    float32x4_t sa[2];
    UNROLL
    for (int p = 0; p < pairs; p++) {
        const uint8x16_t x = vld1q_u8(four->codes[2 * p] + at), y = vld1q_u8(four->codes[2 * p + 1] + at);
        a[p][0] = vreinterpretq_s8_u8(low_halves(x, y));
        a[p][1] = vreinterpretq_s8_u8(high_halves(x, y));
        sa[p] = pair_of(four->scale[2 * p] + at / sizeof(float), four->scale[2 * p + 1] + at / sizeof(float));
    }
    UNROLL
    for (int f = 0; f < PAIRS; f++) {
        const int8x16_t w0 = vld1q_s8(cell->w[f][0]), w1 = vld1q_s8(cell->w[f][1]);
        const float32x4_t sw = vld1q_f32(cell->sw[f]);
        UNROLL
        for (int p = 0; p < pairs; p++) {
            int32x4_t t = vreinterpretq_s32_f32(load_anew((const float *)(const void *)cell->start[f]));
            t = vmmlaq_s32(vmmlaq_s32(t, a[p][0], w0), a[p][1], w1);
            const float32x4_t exact = vfmaq_f32(load_anew(cell->c[f]), vreinterpretq_f32_s32(t), sw); /* dot * sw */
            acc[p][f] = vfmaq_f32(acc[p][f], exact, sa[p]);
        }
    }
}

INLINE void run_four(const int pairs, const nvfp4_slice *s, const four_rows *rows)
{
    for (size_t half = 0; half < 2; half++) {
        const wide_cell *cell = (const wide_cell *)s->cells + half * SLICE;
        float32x4_t acc[2][PAIRS];
        UNROLL
        for (int i = 0; i < pairs * PAIRS; i++) {
            const float *from = pair_sums(rows->sums[i / PAIRS * 2] + 16 * half,
                                          rows->sums[i / PAIRS * 2 + 1] + 16 * half, (size_t)(i % PAIRS));
            acc[i / PAIRS][i % PAIRS] = s->first ? vdupq_n_f32(0) : vld1q_f32(from);
        }
        for (size_t b = 0; b < s->blocks; b++)
            add_block_neoni8mm(pairs, rows, b * MQ_NVFP4_ROW_CELL, cell + b, acc);
        UNROLL
        for (int i = 0; i < pairs * PAIRS; i++) {
            float *to = pair_sums(rows->sums[i / PAIRS * 2] + 16 * half, rows->sums[i / PAIRS * 2 + 1] + 16 * half,
                                  (size_t)(i % PAIRS));
            vst1q_f32(to, acc[i / PAIRS][i % PAIRS]);
        }
    }
}

static __attribute__((noinline)) void tile_2x32(const nvfp4_slice *s, const four_rows *rows)
{
    run_four(1, s, rows);
}

static __attribute__((noinline)) void tile_4x32(const nvfp4_slice *s, const four_rows *rows)
{
    run_four(2, s, rows);
}

/* The tile has an even number of rows, one more than the pass at most. */
static void run_slice_neoni8mm(const nvfp4_slice *s, size_t rows, const uint8_t *a, float (*tile)[MQ_NVFP4_NR],
                               const uint8_t *packed)
{
    for (size_t m = 0; m < rows; m += 4, packed += 64) {
        const size_t n = rows - m < 4 ? rows - m : 4;
        mq__nvfp4_prefetch(s->y + m * s->ldy, s->ldy, s->last ? n : 0, packed);
        const four_rows four = rows_from(s, a, m, rows, tile);
        (n > 2 ? tile_4x32 : tile_2x32)(s, &four);
        for (size_t r = 0; s->last && r < n; r++) {
            if (r % 2 == 0) {
                split_pairs(four.sums[r], four.sums[r + 1]);
                split_pairs(four.sums[r] + 16, four.sums[r + 1] + 16);
            }
            finish_row_neon(s->y + (m + r) * s->ldy, tile[m + r], s->features, s->scale[m + r], s->bias, s->accumulate);
        }
    }
}

_Static_assert(NVFP4_PASS_ROWS % 4 == 0, "sums of rows past the end have room");

static void gemm_nvfp4_neoni8mm(const mq_nvfp4_rows *a, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                                const mq_epilogue *out, void *scratch)
{
    static const nvfp4_core core = {.slice = SLICE, .widen = widen_nvfp4_neoni8mm, .rows = run_slice_neoni8mm};
    if (rows <= FEW) {
        mq__nvfp4_gemm_neondot(a, rows, w, p0, p1, out, scratch);
    } else {
        mq__nvfp4_run(&core, a, rows, w, p0, p1, out, scratch);
    }
}

void mq__fill_neoni8mm_nvfp4(mq_kernels *table)
{
    table->nvfp4_gemm = gemm_nvfp4_neoni8mm;
}
