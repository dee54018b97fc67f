/* W16A16 GEMM with products of BF16 matrices: BFMMLA multiplies 2 rows by 2 features and 4 k.
 *
 * The blocking and the scratch are those of the dense GEMM, with a pair of k in the place of one k; two pairs are a quad:
 * activations [group][quad][7 pairs of rows][2][4 k], expanded weights [4 octets of features][quad][4 pairs][2][4 k]. Expansion
 * only moves pieces of 8 bytes. K is padded to whole quads with zeros.
 *
 * The instruction rounds and flushes subnormals in its own way, so this slot is BOUND where the others are EXACT.
 *
 * Registers of 4 pairs of rows x 8 features: 16 sums, 4 of activations, 4 of weights. 14 rows are taken as 8 + 6.
 * Per quad 16 BFMMLA beside 8 loads: 1 instruction for 16 products, where FP32 has 4. Speeds not measured. */
#include "kernels/dense_driver.h"
#include "kernels/neon/dense_neon.h"
#include "kernels/neoni8mm/pairs_neoni8mm.h"
#include "kernels/table.h"

#define MR MQ_DENSE_MR

enum {
    PAIRS = 4,                       /* of features, at a time: an octet */
    OCTETS = DENSE_NR / (2 * PAIRS), /* of features in a panel */
    ROW_BYTES = 8,                   /* 4 k of one row or one feature */
    A_STEP = MR * ROW_BYTES,         /* of activations, a quad */
    B_STEP = 2 * PAIRS * ROW_BYTES,  /* of an octet's weights, a quad */
    KC = 256,                        /* pairs of k in a slice */
};

/* Lines that a tile brings to L2 on its way, one per 4 quads. */
typedef struct lines {
    const char *at;
    size_t stride;
} lines;

INLINE float32x4_t multiply_quads(float32x4_t sum, uint16x8_t a, uint16x8_t b)
{
    __asm__("bfmmla %0.4s, %1.8h, %2.8h" : "+w"(sum) : "w"(a), "w"(b));
    return sum;
}

INLINE uint16x8_t load_halves(const char *at)
{
    return vld1q_u16((const uint16_t *)(const void *)at);
}

/* P pairs of rows (of a, c) by 8 features. */
INLINE void tile_pairs(const char *a, const char *b, size_t quads, float *c, bool first, lines ahead, const int P)
{
    float32x4_t sum[4][PAIRS];
    UNROLL
    for (int i = 0; i < P * PAIRS; i += 2) {
        float *row = c + i / PAIRS * 2 * DENSE_NR + i % PAIRS * 2;
        const float32x4_t r0 = vld1q_f32(row), r1 = vld1q_f32(row + DENSE_NR);
        sum[i / PAIRS][i % PAIRS] = first ? vdupq_n_f32(0) : low_floats(r0, r1);
        sum[i / PAIRS][i % PAIRS + 1] = first ? vdupq_n_f32(0) : high_floats(r0, r1);
    }
    for (size_t q = 0; q < quads; q++, a += A_STEP, b += B_STEP) {
        uint16x8_t av[4], bv[PAIRS];
        if (q % 4 == 0) {
            __builtin_prefetch(ahead.at, 0, 2);
            ahead.at += ahead.stride;
        }
        UNROLL
        for (int p = 0; p < P; p++)
            av[p] = load_halves(a + 2 * ROW_BYTES * p);
        UNROLL
        for (int f = 0; f < PAIRS; f++)
            bv[f] = load_halves(b + 2 * ROW_BYTES * f);
        UNROLL
        for (int i = 0; i < P * PAIRS; i++)
            sum[i / PAIRS][i % PAIRS] = multiply_quads(sum[i / PAIRS][i % PAIRS], av[i / PAIRS], bv[i % PAIRS]);
    }
    UNROLL
    for (int i = 0; i < P * PAIRS; i += 2) {
        float *row = c + i / PAIRS * 2 * DENSE_NR + i % PAIRS * 2;
        vst1q_f32(row, low_floats(sum[i / PAIRS][i % PAIRS], sum[i / PAIRS][i % PAIRS + 1]));
        vst1q_f32(row + DENSE_NR, high_floats(sum[i / PAIRS][i % PAIRS], sum[i / PAIRS][i % PAIRS + 1]));
    }
}

/* A group of `rows` in p0 + p1 pairs (an odd last row with a row of zeros) by 32 features. What comes to L2 meanwhile: stored
 * weights, activations in two halves, two lines of each row of outputs. */
INLINE void group_pairs(const dense_step *step, const size_t rows, const int p0, const int p1)
{
    const char *a = (const char *)step->a, *b = (const char *)step->b;
    const size_t quads = step->kc / 2;
    const lines weights = {step->ahead, 32}, next[2] = {{step->next_a, 64}, {step->next_a + 8 * step->kc, 64}};
    lines y[2] = {next[0], next[1]};
    for (size_t i = 0; step->finish && i < 2; i++)
        y[i] = (lines){(const char *)(step->finish->y + 16 * i), step->finish->ldy * sizeof(float)};
    const lines ahead[OCTETS][2] = {{weights, next[0]}, {next[1], y[0]}, {y[1], next[0]}, {next[1], y[0]}};
    for (size_t o = 0; o < OCTETS; o++, b += quads * B_STEP) {
        float *c = step->c + 8 * o;
        tile_pairs(a, b, quads, c, step->first, ahead[o][0], p0);
        if (p1 > 0) {
            tile_pairs(a + 2 * ROW_BYTES * p0, b, quads, c + 2 * p0 * DENSE_NR, step->first, ahead[o][1], p1);
        }
    }
    const mq_epilogue *out = step->finish;
    for (size_t r = 0; out && r < rows; r++) {
        finish_row_neon(out->y + r * out->ldy, step->c + r * DENSE_NR, step->features, step->multiplier, out->bias,
                        out->accumulate);
    }
}

/* clang-format off */
#define TILE(rows, p0, p1) static void tile_##rows(const dense_step *step) { group_pairs(step, rows, p0, p1); }
TILE(1, 1, 0) TILE(2, 1, 0) TILE(3, 2, 0) TILE(4, 2, 0) TILE(5, 3, 0) TILE(6, 3, 0) TILE(7, 4, 0) TILE(8, 4, 0)
TILE(9, 3, 2) TILE(10, 3, 2) TILE(11, 3, 3) TILE(12, 3, 3) TILE(13, 4, 3) TILE(14, 4, 3)
    /* clang-format on */

    static const dense_core core = {.tiles = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6, tile_7, tile_8, tile_9,
                                              tile_10, tile_11, tile_12, tile_13, tile_14},
                                    .kc = KC,
                                    .panels = 4};

/* The first `count` of 8 bf16 of two features: pairs of two quads. */
INLINE void expand_two(const uint16_t *w0, const uint16_t *w1, size_t count, uint8x16_t to[2])
{
    uint16_t part[2][8] = {{0}};
    if (count < 8 || !w0 || !w1) {
        count = count < 8 ? count : 8;
        if (w0) memcpy(part[0], w0, count * sizeof *w0);
        if (w1) memcpy(part[1], w1, count * sizeof *w1);
        w0 = part[0];
        w1 = part[1];
    }
    const uint8x16_t x = vreinterpretq_u8_u16(vld1q_u16(w0)), y = vreinterpretq_u8_u16(vld1q_u16(w1));
    to[0] = low_halves(x, y);
    to[1] = high_halves(x, y);
}

static void expand_bf16_neoni8mm(const void *weights, size_t panel, size_t pair0, size_t pairs, float *b)
{
    const mq_dense *w = weights;
    const size_t k0 = 2 * pair0, width = w->k_width, quads = pairs / 2;
    uint8_t *to = (uint8_t *)b;
    for (size_t f = 0; f < DENSE_NR; f += 2) {
        const size_t n = panel * DENSE_NR + f;
        const uint16_t *row = (const uint16_t *)w->data + n * width;
        uint8_t *at = to + f / (2 * PAIRS) * quads * B_STEP + f % (2 * PAIRS) * ROW_BYTES;
        for (size_t q = 0; q < quads; q += 2) {
            const size_t k = k0 + 4 * q, count = width > k ? width - k : 0;
            uint8x16_t two[2];
            expand_two(n < w->n ? row + k : NULL, n + 1 < w->n ? row + width + k : NULL, count, two);
            vst1q_u8(at + q * B_STEP, two[0]);
            if (q + 1 < quads) vst1q_u8(at + (q + 1) * B_STEP, two[1]);
        }
    }
}

/* Pairs of k, in whole quads. They take half of the room of as many floats, but for K = 1, which is multiplied in FP32. */
static size_t padded_pairs(size_t k_width)
{
    return (k_width + 3) / 4 * 2;
}

static void pack_rows_neoni8mm(const float *x, size_t ldx, size_t rows, size_t k_width, size_t g0, size_t g1,
                               float *panels)
{
    if (k_width < 2) {
        mq__dense_pack_rows_neon(x, ldx, rows, k_width, g0, g1, panels);
        return;
    }
    for (size_t g = g0; g < g1; g++) {
        const size_t live = rows - g * MR < MR ? rows - g * MR : MR;
        for (size_t r = 0; r < MR; r++) {
            const float *from = x + (g * MR + r) * ldx;
            uint16_t *to = (uint16_t *)(void *)(panels + g * k_width * MR) + 4 * r;
            for (size_t k = 0; k < k_width; k += 4, to += 4 * MR) {
                const float32x4_t four = r < live ? load_first(from + k, k_width - k) : vdupq_n_f32(0);
                vst1_u16(to, narrow_bf16(four));
            }
        }
    }
}

static void gemm_bf16_neoni8mm(const float *panels, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                               const mq_epilogue *out, void *scratch)
{
    if (w->k_width < 2) {
        mq__dense_gemm_neon(panels, rows, w, n0, n1, out, scratch);
        return;
    }
    const dense_source source = {.core = &core,
                                 .expand = expand_bf16_neoni8mm,
                                 .weights = w,
                                 .n = n1 < w->n ? n1 : w->n,
                                 .k_width = padded_pairs(w->k_width),
                                 .row_floats = w->k_width,
                                 .multiplier = 1,
                                 .rows = w->data,
                                 .element_bytes = 4};
    mq__dense_run(panels, rows, &source, n0 / DENSE_NR, (n1 + DENSE_NR - 1) / DENSE_NR, out, scratch);
}

void mq__fill_neoni8mm_bf16(mq_kernels *table)
{
    table->bf16_pack_rows = pack_rows_neoni8mm;
    table->bf16_gemm = gemm_bf16_neoni8mm;
}
