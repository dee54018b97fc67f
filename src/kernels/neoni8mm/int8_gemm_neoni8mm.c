/* INT8 W8A8 GEMM with products of 8-bit matrices: USMMLA multiplies 2 rows of unsigned activations by 2 features of signed weights
 * and 8 k.
 *
 * Weights are arranged once per pass so that 8 k of two features lie together. int32 sums begin at the bits of the float 1.5*2^23
 * less the correction for the activations' offset (int8_pack.h), one FMA takes the offset away and multiplies by the weights'
 * scale, a second one multiplies by the activations' and accumulates. The sums wait in the tile, in L1. Rows are paired across
 * their groups of 7; an odd last row is its own pair.
 *
 * Registers of 4 rows x 16 features: t 16, activations 4, weights 1 to 2, and scales at the end of a group.
 * Per group of 64 k of a pair of rows and a pair of features 8 USMMLA and 2 FMA, and 10 instructions that make a pair of rows,
 * shared by 8 pairs of features: 11 instructions of the multiplying units for 256 products, where FP32 has 64. */
#include "kernels/int8_driver.h"
#include "kernels/neon/int8_neon.h"
#include "kernels/neoni8mm/pairs_neoni8mm.h"
#include "kernels/table.h"

enum {
    PAIRS = 8,                   /* of features, at a time */
    MOST_PAIRS = MQ_INT8_NR / 2, /* of a panel */
    ROWS = 4 * MQ_INT8_MR,       /* of a call: whole fours */
    OCTETS = MQ_INT8_GROUP / 8,  /* of k */
    ROW_STEP = MQ_INT8_ROW_CELL, /* bytes to the next group of k */
    FEW = MQ_INT8_MR,
};

/* A weight cell as the loops read it; what a feature has once is there twice, for both rows. */
typedef struct arranged {
    int8_t w[OCTETS][MOST_PAIRS][16]; /* 2 features x 8 k */
    int32_t start[MOST_PAIRS][4];
    float sw[MOST_PAIRS][4];
    float c[MOST_PAIRS][4]; /* -1.5*2^23 * sw */
} arranged;
_Static_assert(sizeof(arranged) <= INT8_ARRANGED, "the driver has room for it");

static void arrange_pairs(const uint8_t *cell, arranged *out)
{
    for (size_t k = 0; k < OCTETS; k++) {
        for (size_t quad = 0; quad < MOST_PAIRS / 2; quad++) {
            const int8_t *from = (const int8_t *)cell + 256 * k + 16 * quad;
            const int32x4_t low = vreinterpretq_s32_s8(vld1q_s8(from)),
                            high = vreinterpretq_s32_s8(vld1q_s8(from + 128));
            vst1q_s8(out->w[k][2 * quad], vreinterpretq_s8_s32(vzip1q_s32(low, high)));
            vst1q_s8(out->w[k][2 * quad + 1], vreinterpretq_s8_s32(vzip2q_s32(low, high)));
        }
    }
    const float *scales = (const float *)(const void *)(cell + MQ_INT8_CELL_SCALES);
    const float *starts = (const float *)(const void *)(cell + MQ_INT8_CELL_STARTS); /* bits, to be moved */
    for (size_t pair = 0; pair < MOST_PAIRS; pair += 2) {
        const float32x4_t sw = vld1q_f32(scales + 2 * pair), start = vld1q_f32(starts + 2 * pair);
        const float32x4_t c = vmulq_n_f32(sw, -12582912.0f);
        vst1q_s32(out->start[pair], vreinterpretq_s32_f32(low_floats(start, start)));
        vst1q_s32(out->start[pair + 1], vreinterpretq_s32_f32(high_floats(start, start)));
        vst1q_f32(out->sw[pair], low_floats(sw, sw));
        vst1q_f32(out->sw[pair + 1], high_floats(sw, sw));
        vst1q_f32(out->c[pair], low_floats(c, c));
        vst1q_f32(out->c[pair + 1], high_floats(c, c));
    }
}

static void arrange_int8_neoni8mm(const uint8_t *cells, size_t groups, uint8_t *to)
{
    arranged *out = (arranged *)(void *)to;
    for (size_t g = 0; g < groups; g++)
        arrange_pairs(cells + g * MQ_INT8_CELL, out + g);
}

/* Up to 4 rows: where each has its codes and its scale in its group's cells, and its sums. */
typedef struct four_rows {
    const uint8_t *codes[4];
    const float *scale[4];
    float *sums[4];
} four_rows;

static four_rows rows_of_call(const int8_slice *s, const uint8_t *a, size_t row, size_t rows, float (*tile)[MQ_INT8_NR])
{
    four_rows four;
    for (size_t i = 0; i < 4; i++) { /* the last row stands for those past the end */
        const size_t m = row + i < rows ? row + i : rows - 1;
        const uint8_t *cell = a + m / MQ_INT8_MR * s->group_bytes;
        four.codes[i] = cell + m % MQ_INT8_MR * MQ_INT8_GROUP;
        four.scale[i] = (const float *)(const void *)(cell + MQ_INT8_ROW_SCALES) + m % MQ_INT8_MR;
        four.sums[i] = tile[row + i];
    }
    return four;
}

/* t + the products of 2 rows, 2 features and 8 k. As asm, because the intrinsic makes gcc 12 copy t. */
INLINE int32x4_t multiply_pairs(int32x4_t t, uint8x16_t a, int8x16_t w)
{
    __asm__("usmmla %0.4s, %1.16b, %2.16b" : "+w"(t) : "w"(a), "w"(w));
    return t;
}

/* t [pairs of rows][PAIRS] += 16 k, `at` bytes into the rows. */
INLINE void multiply_16_neoni8mm(const int pairs, const four_rows *four, size_t at, const int8_t (*w)[MOST_PAIRS][16],
                                 int32x4_t (*t)[PAIRS])
{
    uint8x16_t a[2][2];
    UNROLL
    for (int p = 0; p < pairs; p++) {
        const uint8x16_t x = vld1q_u8(four->codes[2 * p] + at), y = vld1q_u8(four->codes[2 * p + 1] + at);
        a[p][0] = low_halves(x, y);
        a[p][1] = high_halves(x, y);
    }
    UNROLL
    for (int i = 0; i < 2 * PAIRS; i++) {
        const int8x16_t weights = vld1q_s8(w[i / PAIRS][i % PAIRS]);
        UNROLL
        for (int p = 0; p < pairs; p++)
            t[p][i % PAIRS] = multiply_pairs(t[p][i % PAIRS], a[p][i / PAIRS], weights);
    }
}

/* The sums += one group: pairs of features from `first` on. */
INLINE void add_group_neoni8mm(const int pairs, const four_rows *four, size_t group, const arranged *cell, size_t first)
{
    int32x4_t t[2][PAIRS];
    float32x4_t sa[2];
    UNROLL
    for (int i = 0; i < pairs * PAIRS; i++) {
        const float *start = (const float *)(const void *)cell->start[first + (size_t)(i % PAIRS)];
        t[i / PAIRS][i % PAIRS] = vreinterpretq_s32_f32(load_anew(start));
    }
#pragma GCC unroll 1
    for (size_t k = 0; k < OCTETS; k += 2) {
        const int8_t(*w)[MOST_PAIRS][16] = (const int8_t(*)[MOST_PAIRS][16])(const void *)cell->w[k][first];
        multiply_16_neoni8mm(pairs, four, group * ROW_STEP + 8 * k, w, t);
    }
    UNROLL
    for (int p = 0; p < pairs; p++) {
        const size_t at = group * (ROW_STEP / sizeof(float));
        sa[p] = pair_of(four->scale[2 * p] + at, four->scale[2 * p + 1] + at);
    }
    UNROLL
    for (int i = 0; i < pairs * PAIRS; i++) {
        const size_t f = (size_t)(i % PAIRS);
        float *sum = pair_sums(four->sums[i / PAIRS * 2] + 2 * first, four->sums[i / PAIRS * 2 + 1] + 2 * first, f);
        const float32x4_t bits = vreinterpretq_f32_s32(t[i / PAIRS][f]), sw = vld1q_f32(cell->sw[first + f]);
        const float32x4_t scaled = vfmaq_f32(load_anew(cell->c[first + f]), bits, sw); /* round(dot * sw) */
        vst1q_f32(sum, vfmaq_f32(vld1q_f32(sum), scaled, sa[i / PAIRS]));
    }
}

INLINE void run_four_int8(const int pairs, const int8_slice *s, const four_rows *rows)
{
    const arranged *cells = (const arranged *)(const void *)s->cells;
    for (size_t first = 0; first < MOST_PAIRS; first += PAIRS) {
        for (size_t g = 0; g < s->groups; g++)
            add_group_neoni8mm(pairs, rows, g, cells + g, first);
    }
}

static __attribute__((noinline)) void tile_2x32(const int8_slice *s, const four_rows *rows)
{
    run_four_int8(1, s, rows);
}

static __attribute__((noinline)) void tile_4x32(const int8_slice *s, const four_rows *rows)
{
    run_four_int8(2, s, rows);
}

/* The tile has an even number of rows, one more than the pass at most. */
static void run_int8_neoni8mm(const int8_slice *s, size_t rows, const uint8_t *a, float (*tile)[MQ_INT8_NR])
{
    if (s->first) memset(tile, 0, (rows + 1) / 2 * 2 * sizeof *tile);
    for (size_t m = 0; m < rows; m += 4) {
        const size_t n = rows - m < 4 ? rows - m : 4;
        const four_rows four = rows_of_call(s, a, m, rows, tile);
        (n > 2 ? tile_4x32 : tile_2x32)(s, &four);
        for (size_t r = 0; s->last && r < n; r++) {
            if (r % 2 == 0) {
                split_pairs(four.sums[r], four.sums[r + 1]);
                split_pairs(four.sums[r] + 16, four.sums[r + 1] + 16);
            }
            finish_row_neon(s->y + (m + r) * s->ldy, tile[m + r], s->features, 1, s->bias, s->accumulate);
        }
    }
}

_Static_assert(INT8_PASS_ROWS % ROWS == 0 && ROWS % 4 == 0, "sums of rows past the end have room");

static void gemm_int8_neoni8mm(const mq_int8_rows *a, size_t rows, const mq_int8 *w, size_t p0, size_t p1,
                               const mq_epilogue *out, void *scratch)
{
    static const int8_core core = {.rows = ROWS, .run = run_int8_neoni8mm, .arrange = arrange_int8_neoni8mm};
    if (rows <= FEW) {
        mq__int8_gemm_neondot(a, rows, w, p0, p1, out, scratch);
    } else {
        mq__int8_run(&core, a, rows, w, p0, p1, out, scratch);
    }
}

void mq__fill_neoni8mm_int8(mq_kernels *table)
{
    table->int8_gemm = gemm_int8_neoni8mm;
}
