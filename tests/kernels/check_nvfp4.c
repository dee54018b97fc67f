/* NVFP4: the quantiser, the packing and the W4A4 GEMM. */
#include "checkasm.h"

#include "base/mem.h"
#include "kernels/nvfp4_pack.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t blocks_of(size_t k_width)
{
    return (k_width + MQ_NVFP4_BLOCK - 1) / MQ_NVFP4_BLOCK;
}

/* ------------------------------------------------------------------ the quantiser */

enum data_kind { NORMAL, TIES, ZERO_BLOCKS, HUGE_ONE, TINY, EXTREME, ALL_EQUAL, DATA_KINDS };
static const char *const data_names[DATA_KINDS] = {"normal", "ties",    "zero blocks", "one huge",
                                                   "tiny",   "extreme", "all equal"};

static float value_of(enum data_kind kind, size_t m, size_t k)
{
    static const float ties[] = {0,    0.25f, -0.25f, 0.75f, -0.75f, 1.25f, 1.75f, -1.75f,
                                 2.5f, -2.5f, 3.5f,   -3.5f, 5.0f,   -5.0f, 6.0f,  -6.0f};
    switch (kind) {
    case TIES:
        return ties[checkasm_below(16)] * (checkasm_below(8) ? 1.0f : 0.001f);
    case ZERO_BLOCKS:
        return k / MQ_NVFP4_BLOCK % 2 == m % 2 ? (checkasm_below(2) ? 0.0f : -0.0f) : checkasm_normal();
    case HUGE_ONE: /* the other blocks' scales become subnormal or zero */
        return k == 5 % (m + 1) ? 3e4f : checkasm_normal() * ldexpf(1, (int)checkasm_below(12) - 6);
    case TINY: /* around the limit below which a row counts as zero, and denormals */
        return checkasm_normal() * (m % 3 == 0 ? 0x1p-101f : m % 3 == 1 ? 0x1p-140f : 0x1p-99f);
    case EXTREME:
        return checkasm_below(3) ? checkasm_normal() * 1e37f : (checkasm_below(2) ? 3.4028234e38f : -3.4028234e38f);
    case ALL_EQUAL:
        return m % 3 == 0 ? 0.0f : 1.7f;
    default:
        return checkasm_normal();
    }
}

static void fill_rows(float *x, size_t ldx, size_t rows, size_t k_width, enum data_kind kind)
{
    for (size_t m = 0; m < rows; m++) {
        for (size_t k = 0; k < k_width; k++)
            x[m * ldx + k] = value_of(kind, m, k);
    }
}

/* A second definition, by search: the nearest E4M3 value and the nearest E2M1 value, ties to the even code. */
static float nearest_e4m3(float x)
{
    uint8_t best = 0;
    for (uint8_t code = 1; code < 0x7f; code++) {
        const double d = fabs((double)mq__e4m3_to_f32(code) - x), e = fabs((double)mq__e4m3_to_f32(best) - x);
        if (d < e || (d == e && code % 2 == 0)) best = code;
    }
    return mq__e4m3_to_f32(best);
}

static int nearest_e2m1_doubled(float x)
{
    unsigned best = 0;
    for (unsigned code = 1; code < 8; code++) {
        const double d = fabs(mq__e2m1_doubled(code) / 2.0 - fabs((double)x));
        const double e = fabs(mq__e2m1_doubled(best) / 2.0 - fabs((double)x));
        if (d < e || (d == e && code % 2 == 0)) best = code;
    }
    return x < 0 ? -mq__e2m1_doubled(best) : mq__e2m1_doubled(best);
}

static const uint8_t *row_codes(const mq_nvfp4_rows *q, size_t m, size_t blocks, size_t b)
{
    return q->panels + (m / MQ_NVFP4_MR * blocks + b) * MQ_NVFP4_ROW_CELL + m % MQ_NVFP4_MR * MQ_NVFP4_BLOCK;
}

static float row_scale(const mq_nvfp4_rows *q, size_t m, size_t blocks, size_t b)
{
    float scale;
    const uint8_t *cell = q->panels + (m / MQ_NVFP4_MR * blocks + b) * MQ_NVFP4_ROW_CELL;
    memcpy(&scale, cell + MQ_NVFP4_ROW_SCALES + m % MQ_NVFP4_MR * sizeof scale, sizeof scale);
    return scale;
}

/* Row m of quantised x against the definition by search. */
static bool row_is_right(const float *x, size_t k_width, const mq_nvfp4_rows *q, size_t m)
{
    float amax = 0;
    for (size_t k = 0; k < k_width; k++)
        amax = fmaxf(amax, fabsf(x[k]));
    const float global = amax < MQ_NVFP4_TINY ? 1.0f : 2688.0f / amax;
    bool right = q->multiplier[m] == 1.0f / global;
    for (size_t b = 0; b < blocks_of(k_width); b++) {
        float block_max = 0;
        for (size_t k = 16 * b; k < 16 * b + 16 && k < k_width; k++)
            block_max = fmaxf(block_max, fabsf(x[k]));
        const float scale = nearest_e4m3(global * (block_max * (1.0f / 6.0f)));
        const float inverse = scale != 0 ? 1.0f / (scale * (1.0f / global)) : 0;
        right = right && row_scale(q, m, blocks_of(k_width), b) == scale;
        for (size_t i = 0; i < 16; i++) {
            const int code = 16 * b + i < k_width ? nearest_e2m1_doubled(x[16 * b + i] * inverse) : 0;
            right = right && row_codes(q, m, blocks_of(k_width), b)[i] == code + MQ_NVFP4_OFFSET;
        }
    }
    return right;
}

static mq_nvfp4_rows new_rows(size_t rows, size_t k_width)
{
    const mq_nvfp4_rows q = {checkasm_aligned(mq__nvfp4_row_bytes(rows, k_width)), checkasm_floats(rows)};
    return q;
}

static void check_quantize_shape(size_t rows, size_t k_width, size_t gap, enum data_kind kind)
{
    checkasm_case("rows=%zu k=%zu gap=%zu %s", rows, k_width, gap, data_names[kind]);
    const size_t ldx = k_width + gap;
    float *x = checkasm_floats((rows - 1) * ldx + k_width);
    fill_rows(x, ldx, rows, k_width, kind);
    const mq_nvfp4_rows expected = new_rows(rows, k_width), got = new_rows(rows, k_width),
                        split = new_rows(rows, k_width);
    checkasm.ref->nvfp4_quantize(x, ldx, 0, rows, k_width, &expected);
    checkasm.tested->nvfp4_quantize(x, ldx, 0, rows, k_width, &got);
    for (size_t m = 0; m < rows; m += MQ_NVFP4_MR) {
        const size_t end = m + MQ_NVFP4_MR < rows ? m + MQ_NVFP4_MR : rows;
        checkasm.tested->nvfp4_quantize(x, ldx, m, end, k_width, &split);
    }
    const size_t bytes = mq__nvfp4_row_bytes(rows, k_width);
    checkasm_same_bytes(expected.panels, got.panels, bytes);
    checkasm_same_f32(expected.multiplier, got.multiplier, 1, rows, rows);
    checkasm_same_bytes(expected.panels, split.panels, bytes);
    checkasm_same_f32(expected.multiplier, split.multiplier, 1, rows, rows);
    bool right = true;
    for (size_t m = 0; m < rows; m++)
        right = right && row_is_right(x + m * ldx, k_width, &got, m);
    checkasm_true(right, "codes and scales are the nearest ones");
}

/* Hand-checked vectors: one block with all codes and ties, and three blocks of BF16 values. */
static void check_quantize_golden(void)
{
    static const float all_codes[16] = {0, .1f, -.25f, .5f, .75f, -1, 1.25f, 1.5f, 1.75f, 2, 2.5f, -3, 3.5f, 4, 5, 6};
    static const uint8_t all_expected[16] = {0, 0, 8, 1, 2, 10, 2, 3, 4, 4, 4, 13, 6, 6, 6, 7};
    static const uint16_t three_blocks[48] = {
        0x3bcb, 0xbc00, 0x3be5, 0xbc81, 0x3a2e, 0xb9d9, 0x3b86, 0xbbaa, 0xbc1f, 0xbba5, 0x3c55, 0xbc56,
        0xbc05, 0x3bbc, 0x3c3e, 0x3ca0, 0x3e9a, 0xbd12, 0x3d20, 0x3e01, 0xbe80, 0x3e51, 0x3e5d, 0x3ef6,
        0xbe2f, 0xbd5f, 0x3e55, 0x3e76, 0xbea8, 0xbef8, 0x3e91, 0xbeeb, 0x3f16, 0xbfc3, 0x3ead, 0x3dbb,
        0xbf1e, 0xbff4, 0x3f60, 0x3fa6, 0x40e8, 0x4035, 0x4000, 0xbf29, 0x3f9d, 0xc010, 0x3f26, 0x3e97};
    static const uint8_t three_expected[24] = {0xc4, 0xe4, 0x80, 0xb2, 0xbd, 0xe6, 0x3c, 0x75, 0x96, 0x31, 0x5d, 0x75,
                                               0x9c, 0x55, 0xfe, 0xf5, 0xb1, 0x01, 0xb9, 0x21, 0x47, 0x93, 0xc2, 0x01};
    static const uint8_t three_scales[3] = {0x3a, 0x5f, 0x7e};

    checkasm_case("golden: all codes");
    mq_nvfp4_rows q = new_rows(1, 16);
    checkasm.tested->nvfp4_quantize(all_codes, 16, 0, 1, 16, &q);
    checkasm_true(row_scale(&q, 0, 1, 0) == 448.0f && q.multiplier[0] == 1.0f / 448.0f, "scales of a block up to 6");
    bool same = true;
    for (size_t i = 0; i < 16; i++)
        same = same && row_codes(&q, 0, 1, 0)[i] == 12 + mq__e2m1_doubled(all_expected[i]);
    checkasm_true(same, "all codes");

    checkasm_case("golden: three blocks");
    float x[48];
    for (size_t i = 0; i < 48; i++) {
        const uint32_t bits = (uint32_t)three_blocks[i] << 16;
        memcpy(&x[i], &bits, sizeof bits);
    }
    q = new_rows(1, 48);
    checkasm.tested->nvfp4_quantize(x, 48, 0, 1, 48, &q);
    checkasm_true(q.multiplier[0] == 1.0f / 370.758606f, "tensor scale");
    same = true;
    for (size_t i = 0; i < 48; i++) {
        const unsigned code = three_expected[i / 2] >> 4 * (i % 2) & 15;
        same = same && row_codes(&q, 0, 3, i / 16)[i % 16] == 12 + mq__e2m1_doubled(code);
        same = same && row_scale(&q, 0, 3, i / 16) == mq__e4m3_to_f32(three_scales[i / 16]);
    }
    checkasm_true(same, "three blocks");
}

static void check_quantize(void)
{
    static const size_t widths[] = {1, 7, 8, 9, 15, 16, 17, 31, 64, 172, 255, 256, 257, 300, 528};
    check_quantize_golden();
    for (int kind = 0; kind < DATA_KINDS; kind++) {
        for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
            check_quantize_shape(1 + checkasm_below(23), widths[i], checkasm_below(2) * 3, (enum data_kind)kind);
        }
    }
    for (size_t rows = 1; rows <= 31; rows++)
        check_quantize_shape(rows, 80, 0, NORMAL);
}

/* ------------------------------------------------------------------ the GEMM */

enum operand_kind { RANDOM, ALL_MAX, ALL_MIN, SUBNORMAL_SCALES, SPARSE, QUANTISED, OPERAND_KINDS };
static const char *const operand_names[OPERAND_KINDS] = {"random",    "largest", "largest, opposite signs",
                                                         "subnormal", "sparse",  "quantised"};

static uint8_t random_scale(enum operand_kind kind)
{
    switch (kind) {
    case ALL_MAX:
    case ALL_MIN:
        return 0x7e;
    case SUBNORMAL_SCALES:
        return (uint8_t)checkasm_below(10);
    case SPARSE:
        return checkasm_below(2) ? 0 : (uint8_t)checkasm_below(0x7f);
    default:
        return (uint8_t)checkasm_below(0x7f);
    }
}

static uint8_t random_code(enum operand_kind kind, bool weight)
{
    switch (kind) {
    case ALL_MAX:
        return 7;
    case ALL_MIN:
        return weight ? 15 : 7;
    case SPARSE:
        return checkasm_below(4) ? (uint8_t)(8 * checkasm_below(2)) : (uint8_t)checkasm_below(16);
    default:
        return (uint8_t)checkasm_below(16);
    }
}

/* Canonical weights [n, 8*blocks] and [n, blocks], zero past k_width, and their packed form. */
typedef struct weights {
    uint8_t *nibbles, *scales;
    mq_nvfp4 packed;
} weights;

static weights new_weights(uint32_t n, uint32_t k_width, enum operand_kind kind)
{
    const size_t blocks = blocks_of(k_width);
    weights w = {checkasm_buffer(n * 8 * blocks, 1), checkasm_buffer(n * blocks, 1), {.n = n, .k_width = k_width}};
    memset(w.nibbles, 0, n * 8 * blocks);
    for (size_t f = 0; f < n; f++) {
        for (size_t k = 0; k < k_width; k++) {
            w.nibbles[f * 8 * blocks + k / 2] |= (uint8_t)(random_code(kind, true) << 4 * (k % 2));
        }
        for (size_t b = 0; b < blocks; b++)
            w.scales[f * blocks + b] = random_scale(kind);
    }
    uint8_t *panels = checkasm_aligned(mq__nvfp4_panel_bytes(n, k_width));
    const size_t count = (n + MQ_NVFP4_NR - 1) / MQ_NVFP4_NR;
    for (size_t p = count; p-- > 0;)
        mq__nvfp4_pack(w.nibbles, w.scales, n, (uint32_t)blocks, p, p + 1, panels);
    w.packed.panels = panels;
    w.packed.blocks = (uint32_t)blocks;
    w.packed.multiplier = checkasm_uniform(1e-4f, 1e-2f);
    return w;
}

static int weight_doubled(const weights *w, size_t f, size_t k)
{
    return mq__e2m1_doubled(w->nibbles[f * 8 * w->packed.blocks + k / 2] >> 4 * (k % 2) & 15);
}

static mq_nvfp4_rows new_operand(size_t rows, size_t k_width, enum operand_kind kind)
{
    const mq_nvfp4_rows q = new_rows(rows, k_width);
    float *x = checkasm_floats(rows * k_width); /* quantised first: pads the last group */
    fill_rows(x, k_width, rows, k_width, NORMAL);
    checkasm.ref->nvfp4_quantize(x, k_width, 0, rows, k_width, &q);
    if (kind == QUANTISED) return q;
    for (size_t m = 0; m < rows; m++) {
        for (size_t b = 0; b < blocks_of(k_width); b++) {
            uint8_t *codes = q.panels + (row_codes(&q, m, blocks_of(k_width), b) - q.panels);
            for (size_t i = 0; i < 16 && 16 * b + i < k_width; i++) {
                codes[i] = (uint8_t)(MQ_NVFP4_OFFSET + mq__e2m1_doubled(random_code(kind, false)));
            }
            const float scale = mq__e4m3_to_f32(random_scale(kind));
            memcpy(codes - m % MQ_NVFP4_MR * 16 + MQ_NVFP4_ROW_SCALES + m % MQ_NVFP4_MR * 4, &scale, sizeof scale);
        }
    }
    return q;
}

/* The cell helper, which other kernels decode by, agrees with the canonical form. */
static bool cells_are_right(const weights *w)
{
    bool right = true;
    const size_t panels = (w->packed.n + MQ_NVFP4_NR - 1) / MQ_NVFP4_NR;
    for (size_t f = 0; f < panels * MQ_NVFP4_NR; f++) {
        for (size_t k = 0; k < 16 * w->packed.blocks; k++) {
            const uint8_t *cell = mq__nvfp4_panel(&w->packed, f / MQ_NVFP4_NR) + k / 16 * MQ_NVFP4_CELL;
            const unsigned code = mq__nvfp4_cell_code(cell, (unsigned)k % 16, (unsigned)f % MQ_NVFP4_NR);
            const float scale = mq__nvfp4_cell_scale(cell, (unsigned)f % MQ_NVFP4_NR);
            if (f >= w->packed.n) {
                right = right && code == 0 && scale == 0;
                continue;
            }
            right = right && mq__e2m1_doubled(code) == weight_doubled(w, f, k);
            right = right && scale == mq__e4m3_to_f32(w->scales[f * w->packed.blocks + k / 16]);
        }
    }
    return right;
}

/* The same sums in double, from the canonical weights. */
static void gemm_in_double(const mq_nvfp4_rows *a, size_t rows, const weights *w, const float *bias,
                           const float *before, size_t ldy, double *y)
{
    const size_t blocks = w->packed.blocks;
    for (size_t m = 0; m < rows; m++) {
        for (size_t f = 0; f < w->packed.n; f++) {
            double sum = 0;
            for (size_t k = 0; k < w->packed.k_width; k++) {
                const double scale =
                    (double)row_scale(a, m, blocks, k / 16) * mq__e4m3_to_f32(w->scales[f * blocks + k / 16]);
                sum += (row_codes(a, m, blocks, k / 16)[k % 16] - 12) * weight_doubled(w, f, k) * scale;
            }
            sum *= 0.25 * a->multiplier[m] * w->packed.multiplier;
            y[m * w->packed.n + f] = sum + (bias ? bias[f] : 0) + (before ? before[m * ldy + f] : 0);
        }
    }
}

typedef struct gemm_case {
    size_t rows, k_width, gap;
    uint32_t n;
    bool bias, accumulate;
    enum operand_kind kind;
} gemm_case;

/* Runs the slot over a partition: every group of `group_rows` rows times every `step` panels. */
static void run_parts(const mq_nvfp4_rows *a, const gemm_case *c, const mq_nvfp4 *w, mq_epilogue out, size_t group_rows,
                      size_t step)
{
    const size_t panels = (c->n + MQ_NVFP4_NR - 1) / MQ_NVFP4_NR;
    void *scratch = checkasm_aligned(checkasm.tested->gemm_scratch_bytes);
    float *y = out.y;
    for (size_t p = 0; p < panels; p += step) {
        for (size_t m = 0; m < c->rows; m += group_rows) {
            const mq_nvfp4_rows part = {a->panels + mq__nvfp4_row_bytes(m, c->k_width), a->multiplier + m};
            out.y = y + m * out.ldy;
            checkasm.tested->nvfp4_gemm(&part, c->rows - m < group_rows ? c->rows - m : group_rows, w, p,
                                        p + step < panels ? p + step : panels, &out, scratch);
        }
    }
}

static void check_gemm_case(const gemm_case *c)
{
    checkasm_case("rows=%zu n=%u k=%zu gap=%zu%s%s %s", c->rows, c->n, c->k_width, c->gap, c->bias ? " bias" : "",
                  c->accumulate ? " accumulate" : "", operand_names[c->kind]);
    const weights w = new_weights(c->n, (uint32_t)c->k_width, c->kind);
    const mq_nvfp4_rows a = new_operand(c->rows, c->k_width, c->kind);
    const size_t ldy = c->n + c->gap, count = (c->rows - 1) * ldy + c->n;
    float *bias = c->bias ? checkasm_floats(c->n) : NULL;
    if (bias) checkasm_fill_normal(bias, c->n, 1);
    float *before = checkasm_floats(count);
    checkasm_fill_normal(before, count, 1);
    float *expected = checkasm_copy(before, count * sizeof(float), sizeof(float));
    float *whole = checkasm_copy(before, count * sizeof(float), sizeof(float));
    float *parts = checkasm_copy(before, count * sizeof(float), sizeof(float));
    mq_epilogue out = {expected, ldy, bias, c->accumulate};
    const size_t panels = (c->n + MQ_NVFP4_NR - 1) / MQ_NVFP4_NR;
    checkasm.ref->nvfp4_gemm(&a, c->rows, &w.packed, 0, panels, &out,
                             checkasm_aligned(checkasm.ref->gemm_scratch_bytes));
    out.y = whole;
    run_parts(&a, c, &w.packed, out, c->rows, panels);
    checkasm_same_f32(expected, whole, c->rows, c->n, ldy);
    out.y = parts;
    run_parts(&a, c, &w.packed, out, MQ_NVFP4_MR * (1 + checkasm_below(3)), 1 + checkasm_below(3));
    checkasm_same_f32(expected, parts, c->rows, c->n, ldy);
    checkasm_true(cells_are_right(&w), "packed cells");

    double *exact = checkasm_buffer(c->rows * c->n * sizeof(double), sizeof(double));
    float *dense = checkasm_floats(c->rows * c->n);
    gemm_in_double(&a, c->rows, &w, bias, c->accumulate ? before : NULL, ldy, exact);
    for (size_t m = 0; m < c->rows; m++)
        memcpy(dense + m * c->n, whole + m * ldy, c->n * sizeof(float));
    checkasm_within(exact, dense, c->rows * c->n, 3e-6);
}

static void check_gemm(void)
{
    static const uint32_t features[] = {1, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 63, 64, 70, 100, 160};
    static const size_t widths[] = {1, 15, 16, 17, 32, 64, 172, 256, 496, 512, 528, 1040};
    for (int i = 0; i < 160; i++) {
        const gemm_case c = {
            .rows = 1 + checkasm_below(i % 4 ? 12 : 44),
            .k_width = widths[(size_t)i % (sizeof widths / sizeof widths[0])],
            .n = features[checkasm_below(sizeof features / sizeof features[0])],
            .gap = checkasm_below(2) * 5,
            .bias = checkasm_below(2),
            .accumulate = checkasm_below(2),
            .kind = (enum operand_kind)checkasm_below(OPERAND_KINDS),
        };
        check_gemm_case(&c);
    }
    for (size_t rows = 1; rows <= 2 * MQ_NVFP4_MR + 1; rows++) {
        check_gemm_case(&(gemm_case){.rows = rows, .k_width = 96, .n = 40, .kind = QUANTISED});
    }
    /* More rows than one pass, more panels than one batch, more blocks than one slice. */
    check_gemm_case(&(gemm_case){.rows = 1003, .k_width = 48, .n = 33, .accumulate = true, .kind = RANDOM});
    check_gemm_case(&(gemm_case){.rows = 281, .k_width = 272, .n = 129, .bias = true, .kind = QUANTISED});
    check_gemm_case(&(gemm_case){.rows = 4096, .k_width = 48, .n = 40, .kind = QUANTISED});
    check_gemm_case(&(gemm_case){.rows = 13, .k_width = 64, .n = 1100, .bias = true, .kind = RANDOM});
    check_gemm_case(&(gemm_case){.rows = 7, .k_width = 4112, .n = 70, .kind = QUANTISED});
}

#ifdef MQ_X86
/* The kernel of AVX-VNNI in the encoding of AVX-512 VNNI, in place of the AVX2 level's own. */
void mq__nvfp4_gemm_vnni256(const mq_nvfp4_rows *a, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                            const mq_epilogue *out, void *scratch);

static bool vnni256_runs(void)
{
    return checkasm.isa == MQ_ISA_AVX2 && mq__cpu_best_isa() >= MQ_ISA_AVX512VNNI;
}

static void with_vnni256(void (*work)(void))
{
    const mq_kernels *level = checkasm.tested;
    mq_kernels other = *level;
    other.nvfp4_gemm = mq__nvfp4_gemm_vnni256;
    checkasm.tested = &other;
    work();
    checkasm.tested = level;
}
#endif

static void check(void)
{
    if (checkasm_slot("nvfp4_quantize")) check_quantize();
    if (checkasm_slot("nvfp4_gemm")) check_gemm();
#ifdef MQ_X86
    if (vnni256_runs() && checkasm_slot("nvfp4_gemm_vnni256")) with_vnni256(check_gemm);
#endif
}

/* ------------------------------------------------------------------ benchmarks */

typedef struct gemm_bench {
    mq_nvfp4_rows a;
    mq_nvfp4 w;
    mq_epilogue out;
    float *x;
    void *scratch;
    size_t rows, next, step; /* panels [next, next + step) come next: weights are as cold as in a model */
} gemm_bench;

static void run_gemm(void *context)
{
    gemm_bench *g = context;
    const size_t panels = g->w.n / MQ_NVFP4_NR;
    if (g->next + g->step > panels) g->next = 0;
    checkasm.tested->nvfp4_gemm(&g->a, g->rows, &g->w, g->next, g->next + g->step, &g->out, g->scratch);
    g->next += g->step;
}

static void run_quantize(void *context)
{
    gemm_bench *g = context;
    checkasm.tested->nvfp4_quantize(g->x, g->w.k_width, 0, g->rows, g->w.k_width, &g->a);
}

static void *get(size_t bytes)
{
    void *block = mq__alloc_aligned(bytes);
    if (!block) abort();
    return block;
}

static void bench_shape(const char *slot, uint32_t n, uint32_t k_width)
{
    enum { MOST_ROWS = 2048 };
    static const size_t row_counts[] = {1, 4, 8, 16, 64, 512, 2048};
    char label[64];
    gemm_bench g = {.w = {.n = n, .k_width = k_width, .blocks = k_width / 16, .multiplier = 1e-3f}};
    uint8_t *panels = get(mq__nvfp4_panel_bytes(n, k_width));
    checkasm_fill_bytes(panels, mq__nvfp4_panel_bytes(n, k_width));
    for (size_t cell = 0; cell < mq__nvfp4_panel_bytes(n, k_width); cell += MQ_NVFP4_CELL) {
        for (size_t f = 0; f < MQ_NVFP4_NR; f++)
            panels[cell + MQ_NVFP4_CELL_SCALES + f] &= 0x3f;
    }
    g.w.panels = panels;
    g.a.panels = get(mq__nvfp4_row_bytes(MOST_ROWS, k_width));
    g.a.multiplier = get(MOST_ROWS * sizeof(float));
    g.x = get((size_t)MOST_ROWS * k_width * sizeof(float));
    checkasm_fill_normal(g.x, (size_t)MOST_ROWS * k_width, 1);
    g.out = (mq_epilogue){.y = get((size_t)MOST_ROWS * n * sizeof(float)), .ldy = n};
    memset(g.out.y, 0, (size_t)MOST_ROWS * n * sizeof(float));
    g.scratch = get(checkasm.tested->gemm_scratch_bytes);
    checkasm.tested->nvfp4_quantize(g.x, k_width, 0, MOST_ROWS, k_width, &g.a);
    for (size_t i = 0; i < sizeof row_counts / sizeof row_counts[0]; i++) {
        g.rows = row_counts[i];
        const double panel_work = (double)g.rows * k_width * MQ_NVFP4_NR;
        g.step = n / MQ_NVFP4_NR;
        while (g.step > 16 && panel_work * (double)g.step > 2e9)
            g.step /= 2;
        g.next = 0;
        snprintf(label, sizeof label, "%ux%u M=%zu", n, k_width, g.rows);
        checkasm_bench(slot, label, run_gemm, &g, panel_work * (double)g.step, CHECKASM_MACS);
    }
    g.rows = 512;
    snprintf(label, sizeof label, "512x%u", k_width);
    checkasm_bench("nvfp4_quantize", label, run_quantize, &g, 512.0 * k_width, CHECKASM_ITEMS);
    void *blocks[] = {panels, g.a.panels, g.a.multiplier, g.x, g.out.y, g.scratch};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        mq__free_aligned(blocks[i]);
}

#ifdef MQ_X86
static void bench_vnni256(void)
{
    bench_shape("nvfp4_gemm_vnni256", 9728, 2560);
}
#endif

static void bench(void)
{
    static const uint32_t shapes[][2] = {{3072, 1024}, {1024, 3072},  {2048, 1024}, {9728, 2560},
                                         {2560, 9728}, {12288, 4096}, {4096, 12288}};
    if (checkasm.isa == MQ_ISA_REF ||
        !(checkasm_bench_wanted("nvfp4_gemm") || checkasm_bench_wanted("nvfp4_quantize"))) {
        return;
    }
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        bench_shape("nvfp4_gemm", shapes[i][0], shapes[i][1]);
#ifdef MQ_X86
    if (vnni256_runs()) with_vnni256(bench_vnni256);
#endif
}

CHECKASM_SUITE(nvfp4, check, bench)
