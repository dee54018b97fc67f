/* INT8: the quantisers of weights and activations and the W8A8 GEMM. */
#include "checkasm.h"

#include "base/mem.h"
#include "kernels/int8_pack.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t groups_of(size_t k_width)
{
    return (k_width + MQ_INT8_GROUP - 1) / MQ_INT8_GROUP;
}

/* ------------------------------------------------------------------ activations */

enum data_kind { NORMAL, HALVES, ZERO_GROUPS, ONE_HUGE, TINY, EXTREME, DATA_KINDS };
static const char *const data_names[DATA_KINDS] = {"normal", "halves", "zero groups", "one huge", "tiny", "extreme"};

static float value_of(enum data_kind kind, size_t m, size_t k)
{
    switch (kind) {
    case HALVES: /* ties of the rounding, where 127/amax is exact */
        return k % MQ_INT8_GROUP == 0 ? 127.0f : (float)checkasm_below(254) * 0.5f - 63.25f;
    case ZERO_GROUPS:
        return k / MQ_INT8_GROUP % 2 == m % 2 ? (checkasm_below(2) ? 0.0f : -0.0f) : checkasm_normal();
    case ONE_HUGE:
        return k == 5 % (m + 1) ? 3e4f : checkasm_normal() * ldexpf(1, (int)checkasm_below(12) - 6);
    case TINY: /* around the limit below which a group counts as zero, and denormals */
        return checkasm_normal() * (m % 3 == 0 ? 0x1p-101f : m % 3 == 1 ? 0x1p-140f : 0x1p-99f);
    case EXTREME:
        return checkasm_below(3) ? checkasm_normal() * 1e37f : (checkasm_below(2) ? 3.4028234e38f : -3.4028234e38f);
    default:
        return checkasm_normal();
    }
}

static const uint8_t *row_cell(const mq_int8_rows *q, size_t m, size_t groups, size_t g)
{
    return q->panels + (m / MQ_INT8_MR * groups + g) * MQ_INT8_ROW_CELL;
}

static int row_code(const mq_int8_rows *q, size_t m, size_t groups, size_t k)
{
    return row_cell(q, m, groups, k / MQ_INT8_GROUP)[m % MQ_INT8_MR * MQ_INT8_GROUP + k % MQ_INT8_GROUP] -
           MQ_INT8_OFFSET;
}

static float row_scale(const mq_int8_rows *q, size_t m, size_t groups, size_t g)
{
    float scale;
    memcpy(&scale, row_cell(q, m, groups, g) + MQ_INT8_ROW_SCALES + 4 * (m % MQ_INT8_MR), sizeof scale);
    return scale;
}

/* Every value is within half a step, and the largest of a group is +-127. */
static bool row_is_near(const float *x, size_t k_width, const mq_int8_rows *q, size_t m)
{
    const size_t groups = groups_of(k_width);
    bool right = true;
    for (size_t g = 0; g < groups; g++) {
        const double scale = row_scale(q, m, groups, g);
        float amax = 0;
        int most = 0;
        for (size_t k = 64 * g; k < 64 * g + 64; k++) {
            const int code = row_code(q, m, groups, k);
            if (k >= k_width) {
                right = right && code == 0;
                continue;
            }
            amax = fmaxf(amax, fabsf(x[k]));
            most = abs(code) > most ? abs(code) : most;
            right = right && (scale == 0 || fabs(x[k] - code * scale) <= 0.50001 * scale);
        }
        right = right && (amax < MQ_INT8_TINY ? scale == 0 && most == 0 : most == 127);
    }
    return right;
}

static mq_int8_rows new_rows(size_t rows, size_t k_width)
{
    return (mq_int8_rows){checkasm_aligned(mq__int8_row_bytes(rows, k_width))};
}

static void check_quantize_case(size_t rows, size_t k_width, size_t gap, enum data_kind kind)
{
    checkasm_case("rows=%zu k=%zu gap=%zu %s", rows, k_width, gap, data_names[kind]);
    const size_t ldx = k_width + gap, bytes = mq__int8_row_bytes(rows, k_width);
    float *x = checkasm_floats((rows - 1) * ldx + k_width);
    for (size_t i = 0; i < (rows - 1) * ldx + k_width; i++)
        x[i] = value_of(kind, i / ldx, i % ldx);
    const mq_int8_rows expected = new_rows(rows, k_width), got = new_rows(rows, k_width),
                       split = new_rows(rows, k_width);
    checkasm.ref->int8_quantize(x, ldx, 0, rows, k_width, &expected);
    checkasm.tested->int8_quantize(x, ldx, 0, rows, k_width, &got);
    for (size_t m = 0; m < rows; m += MQ_INT8_MR)
        checkasm.tested->int8_quantize(x, ldx, m, m + MQ_INT8_MR < rows ? m + MQ_INT8_MR : rows, k_width, &split);
    checkasm_same_bytes(expected.panels, got.panels, bytes);
    checkasm_same_bytes(expected.panels, split.panels, bytes);
    bool near = true;
    for (size_t m = 0; m < rows; m++)
        near = near && row_is_near(x + m * ldx, k_width, &got, m);
    checkasm_true(near, "codes are the nearest ones");
}

static void check_quantize(void)
{
    static const size_t widths[] = {1, 15, 16, 17, 63, 64, 65, 100, 128, 172, 320};
    for (int kind = 0; kind < DATA_KINDS; kind++) {
        for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++)
            check_quantize_case(1 + checkasm_below(16), widths[i], checkasm_below(2) * 3, (enum data_kind)kind);
    }
}

/* ------------------------------------------------------------------ products */

enum operand_kind { QUANTISED, LARGEST, RANDOM, OPERAND_KINDS };
static const char *const operand_names[OPERAND_KINDS] = {"quantised", "largest", "random"};

typedef struct weights {
    mq_int8 packed;
    const uint16_t *source; /* [n, k] BF16 */
} weights;

/* Weights by way of the packer. LARGEST: every value +-127 with the sign of the column, the worst sums there are. */
static weights new_weights(uint32_t n, uint32_t k_width, enum operand_kind kind)
{
    uint16_t *source = checkasm_buffer((size_t)n * k_width * 2, 2);
    for (size_t i = 0; i < (size_t)n * k_width; i++) {
        const float largest = i / k_width % 3 == 1 && checkasm_below(2) ? -1.0f : i / k_width % 3 == 2 ? -1.0f : 1.0f;
        source[i] = checkasm_bf16(kind == LARGEST ? largest : checkasm_normal());
    }
    uint8_t *panels = checkasm_aligned(mq__int8_panel_bytes(n, k_width));
    const mq_dense dense = {.data = source, .type = MQ_DENSE_BF16, .n = n, .k_width = k_width};
    const size_t count = (n + MQ_INT8_NR - 1) / MQ_INT8_NR, cut = checkasm_below(count + 1);
    mq__int8_pack(&dense, cut, count, panels);
    mq__int8_pack(&dense, 0, cut, panels);
    return (weights){{panels, n, k_width, (uint32_t)groups_of(k_width)}, source};
}

static float bf16_value(uint16_t half)
{
    const uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Values within half a step of the source, absent ones zero, and `start` as int8_pack.h says. */
static bool cells_are_right(const weights *w)
{
    bool right = true;
    const size_t panels = (w->packed.n + MQ_INT8_NR - 1) / MQ_INT8_NR;
    for (size_t f = 0; f < panels * MQ_INT8_NR; f++) {
        for (size_t g = 0; g < w->packed.groups; g++) {
            const uint8_t *cell = mq__int8_panel(&w->packed, f / MQ_INT8_NR) + g * MQ_INT8_CELL;
            const double scale = mq__int8_cell_scale(cell, (unsigned)f % MQ_INT8_NR);
            int32_t start, sum = 0;
            memcpy(&start, cell + MQ_INT8_CELL_STARTS + 4 * (f % MQ_INT8_NR), sizeof start);
            for (size_t k = 64 * g; k < 64 * g + 64; k++) {
                const int value = mq__int8_cell_value(cell, (unsigned)k % 64, (unsigned)f % MQ_INT8_NR);
                sum += value;
                if (f >= w->packed.n || k >= w->packed.k_width) {
                    right = right && value == 0;
                } else {
                    const double x = bf16_value(w->source[f * w->packed.k_width + k]);
                    right = right && fabs(x - value * scale) <= 0.501 * scale;
                }
            }
            right = right && start == MQ_INT8_MAGIC - 128 * sum;
        }
    }
    return right;
}

static mq_int8_rows new_operand(size_t rows, size_t k_width, enum operand_kind kind)
{
    const mq_int8_rows q = new_rows(rows, k_width);
    float *x = checkasm_floats(rows * k_width);
    for (size_t i = 0; i < rows * k_width; i++) {
        x[i] = kind == LARGEST ? (i / k_width % 3 == 2 && checkasm_below(2) ? -3.0f
                                  : i / k_width % 3                         ? -3.0f
                                                                            : 3.0f)
                               : checkasm_normal();
    }
    checkasm.ref->int8_quantize(x, k_width, 0, rows, k_width, &q);
    return q;
}

/* The same sums in double. */
static void gemm_in_double(const mq_int8_rows *a, size_t rows, const weights *w, const float *bias, const float *before,
                           size_t ldy, double *y)
{
    for (size_t m = 0; m < rows; m++) {
        for (size_t f = 0; f < w->packed.n; f++) {
            double sum = (bias ? bias[f] : 0) + (before ? before[m * ldy + f] : 0);
            for (size_t k = 0; k < w->packed.k_width; k++) {
                const uint8_t *cell = mq__int8_panel(&w->packed, f / MQ_INT8_NR) + k / 64 * MQ_INT8_CELL;
                sum += (double)row_code(a, m, w->packed.groups, k) * row_scale(a, m, w->packed.groups, k / 64) *
                       mq__int8_cell_value(cell, (unsigned)k % 64, (unsigned)f % MQ_INT8_NR) *
                       (double)mq__int8_cell_scale(cell, (unsigned)f % MQ_INT8_NR);
            }
            y[m * w->packed.n + f] = sum;
        }
    }
}

typedef struct gemm_case {
    size_t rows, k_width, gap;
    uint32_t n;
    bool bias, accumulate;
    enum operand_kind kind;
} gemm_case;

/* Runs the slot over a partition: every `group_rows` rows times every `step` panels. */
static void run_parts(const mq_int8_rows *a, const gemm_case *c, const mq_int8 *w, mq_epilogue out, size_t group_rows,
                      size_t step)
{
    const size_t panels = (c->n + MQ_INT8_NR - 1) / MQ_INT8_NR;
    void *scratch = checkasm_aligned(checkasm.tested->gemm_scratch_bytes);
    float *y = out.y;
    for (size_t p = 0; p < panels; p += step) {
        for (size_t m = 0; m < c->rows; m += group_rows) {
            const mq_int8_rows part = {a->panels + mq__int8_row_bytes(m, c->k_width)};
            out.y = y + m * out.ldy;
            checkasm.tested->int8_gemm(&part, c->rows - m < group_rows ? c->rows - m : group_rows, w, p,
                                       p + step < panels ? p + step : panels, &out, scratch);
        }
    }
}

static void check_gemm_case(const gemm_case *c)
{
    checkasm_case("rows=%zu n=%u k=%zu gap=%zu%s%s %s", c->rows, c->n, c->k_width, c->gap, c->bias ? " bias" : "",
                  c->accumulate ? " accumulate" : "", operand_names[c->kind]);
    const weights w = new_weights(c->n, (uint32_t)c->k_width, c->kind);
    const mq_int8_rows a = new_operand(c->rows, c->k_width, c->kind);
    const size_t ldy = c->n + c->gap, count = (c->rows - 1) * ldy + c->n;
    float *bias = c->bias ? checkasm_floats(c->n) : NULL;
    if (bias) checkasm_fill_normal(bias, c->n, 1);
    float *before = checkasm_floats(count);
    checkasm_fill_normal(before, count, 1);
    float *expected = checkasm_copy(before, count * sizeof(float), sizeof(float));
    float *whole = checkasm_copy(before, count * sizeof(float), sizeof(float));
    float *parts = checkasm_copy(before, count * sizeof(float), sizeof(float));
    mq_epilogue out = {expected, ldy, bias, c->accumulate};
    const size_t panels = (c->n + MQ_INT8_NR - 1) / MQ_INT8_NR;
    checkasm.ref->int8_gemm(&a, c->rows, &w.packed, 0, panels, &out,
                            checkasm_aligned(checkasm.ref->gemm_scratch_bytes));
    out.y = whole;
    run_parts(&a, c, &w.packed, out, c->rows, panels);
    checkasm_same_f32(expected, whole, c->rows, c->n, ldy);
    out.y = parts;
    run_parts(&a, c, &w.packed, out, MQ_INT8_MR * (1 + checkasm_below(3)), 1 + checkasm_below(3));
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
    static const uint32_t features[] = {1, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 70, 100, 160};
    static const size_t widths[] = {1, 15, 63, 64, 65, 128, 172, 512, 520, 576, 1040};
    for (int i = 0; i < 120; i++) {
        check_gemm_case(&(gemm_case){
            .rows = 1 + checkasm_below(i % 4 ? 12 : 44),
            .k_width = widths[(size_t)i % (sizeof widths / sizeof widths[0])],
            .n = features[checkasm_below(sizeof features / sizeof features[0])],
            .gap = checkasm_below(2) * 5,
            .bias = checkasm_below(2),
            .accumulate = checkasm_below(2),
            .kind = (enum operand_kind)checkasm_below(OPERAND_KINDS),
        });
    }
    for (size_t rows = 1; rows <= 2 * MQ_INT8_MR + 1; rows++)
        check_gemm_case(&(gemm_case){.rows = rows, .k_width = 96, .n = 40, .kind = LARGEST});
    /* More rows than one pass, more panels than one batch, more groups than one slice. */
    check_gemm_case(&(gemm_case){.rows = 1003, .k_width = 48, .n = 33, .accumulate = true, .kind = QUANTISED});
    check_gemm_case(&(gemm_case){.rows = 40, .k_width = 64, .n = 600, .bias = true, .kind = QUANTISED});
    check_gemm_case(&(gemm_case){.rows = 7, .k_width = 4112, .n = 70, .kind = LARGEST});
    check_gemm_case(&(gemm_case){.rows = 20, .k_width = 4544, .n = 340, .accumulate = true, .kind = LARGEST});
    check_gemm_case(&(gemm_case){.rows = 430, .k_width = 320, .n = 330, .bias = true, .kind = QUANTISED});
}

#ifdef MQ_X86
/* The kernel of AVX-VNNI in the encoding of AVX-512 VNNI, in place of the AVX2 level's own. */
void mq__int8_gemm_vnni256(const mq_int8_rows *a, size_t rows, const mq_int8 *w, size_t p0, size_t p1,
                           const mq_epilogue *out, void *scratch);

static void check_vnni256(void)
{
    const mq_kernels *level = checkasm.tested;
    mq_kernels other = *level;
    other.int8_gemm = mq__int8_gemm_vnni256;
    checkasm.tested = &other;
    check_gemm();
    checkasm.tested = level;
}
#endif

static void check(void)
{
    if (checkasm_slot("int8_quantize")) check_quantize();
    if (checkasm_slot("int8_gemm")) check_gemm();
#ifdef MQ_X86
    if (checkasm.isa == MQ_ISA_AVX2 && mq__cpu_best_isa() >= MQ_ISA_AVX512VNNI && checkasm_slot("int8_gemm_vnni256")) {
        check_vnni256();
    }
#endif
}

/* ------------------------------------------------------------------ benchmarks */

typedef struct gemm_bench {
    mq_int8_rows a;
    mq_int8 w;
    mq_epilogue out;
    float *x;
    void *scratch;
    size_t rows, next, step; /* panels [next, next + step) come next: weights are as cold as in a model */
} gemm_bench;

static void run_gemm(void *context)
{
    gemm_bench *g = context;
    if (g->next + g->step > g->w.n / MQ_INT8_NR) g->next = 0;
    checkasm.tested->int8_gemm(&g->a, g->rows, &g->w, g->next, g->next + g->step, &g->out, g->scratch);
    g->next += g->step;
}

static void run_quantize(void *context)
{
    gemm_bench *g = context;
    checkasm.tested->int8_quantize(g->x, g->w.k_width, 0, g->rows, g->w.k_width, &g->a);
}

static void *get(size_t bytes)
{
    void *block = mq__alloc_aligned(bytes);
    if (!block) abort();
    return block;
}

static void bench_shape(uint32_t n, uint32_t k_width)
{
    enum { MOST_ROWS = 2048 };
    static const size_t row_counts[] = {1, 4, 16, 64, 512, 2048};
    char label[64];
    gemm_bench g = {.w = {.n = n, .k_width = k_width, .groups = k_width / MQ_INT8_GROUP}};
    uint8_t *panels = get(mq__int8_panel_bytes(n, k_width));
    uint16_t *source = get((size_t)n * k_width * 2);
    for (size_t i = 0; i < (size_t)n * k_width; i++)
        source[i] = (uint16_t)(0x3c00 + (i * 37 & 0x81ff));
    mq__int8_pack(&(mq_dense){source, MQ_DENSE_BF16, n, k_width}, 0, n / MQ_INT8_NR, panels);
    g.w.panels = panels;
    g.a.panels = get(mq__int8_row_bytes(MOST_ROWS, k_width));
    g.x = get((size_t)MOST_ROWS * k_width * sizeof(float));
    checkasm_fill_normal(g.x, (size_t)MOST_ROWS * k_width, 1);
    g.out = (mq_epilogue){.y = get((size_t)MOST_ROWS * n * sizeof(float)), .ldy = n};
    memset(g.out.y, 0, (size_t)MOST_ROWS * n * sizeof(float));
    g.scratch = get(checkasm.tested->gemm_scratch_bytes);
    checkasm.tested->int8_quantize(g.x, k_width, 0, MOST_ROWS, k_width, &g.a);
    for (size_t i = 0; i < sizeof row_counts / sizeof row_counts[0]; i++) {
        g.rows = row_counts[i];
        const double panel_work = (double)g.rows * k_width * MQ_INT8_NR;
        g.step = n / MQ_INT8_NR;
        while (g.step > 16 && panel_work * (double)g.step > 2e9)
            g.step /= 2;
        g.next = 0;
        snprintf(label, sizeof label, "%ux%u M=%zu", n, k_width, g.rows);
        checkasm_bench("int8_gemm", label, run_gemm, &g, panel_work * (double)g.step, CHECKASM_MACS);
    }
    g.rows = 512;
    snprintf(label, sizeof label, "512x%u", k_width);
    checkasm_bench("int8_quantize", label, run_quantize, &g, 512.0 * k_width, CHECKASM_ITEMS);
    void *blocks[] = {panels, source, g.a.panels, g.x, g.out.y, g.scratch};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        mq__free_aligned(blocks[i]);
}

static void bench(void)
{
    static const uint32_t shapes[][2] = {{3072, 1024}, {1024, 3072},  {2048, 1024}, {9728, 2560},
                                         {2560, 9728}, {12288, 4096}, {4096, 12288}};
    if (checkasm.isa == MQ_ISA_REF || !(checkasm_bench_wanted("int8_gemm") || checkasm_bench_wanted("int8_quantize"))) {
        return;
    }
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        bench_shape(shapes[i][0], shapes[i][1]);
}

CHECKASM_SUITE(int8, check, bench)
