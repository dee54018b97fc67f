/* Dense products: activation panels, GEMM and thin product of BF16, F16 and F32 weights. */
#include "checkasm.h"

#include "base/mem.h"
#include "base/pool.h"
#include "kernels/dense_common.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MR MQ_DENSE_MR

static const char *const type_names[] = {"bf16", "f16", "f32"};

/* What the numbers look like: ordinary, spread over many binades, or so small that products are subnormal. */
typedef enum kind { KIND_NORMAL, KIND_SPREAD, KIND_TINY, KIND_COUNT } kind;

static float draw(kind k)
{
    const float x = checkasm_normal();
    if (k == KIND_SPREAD) return x * (checkasm_below(2) ? 0x1p40f : 0x1p-40f);
    return k == KIND_TINY ? x * (checkasm_below(4) ? 0x1p-72f : 0x1p-66f) : x;
}

static size_t type_bytes(mq_dense_type type)
{
    return type == MQ_DENSE_F32 ? 4 : 2;
}

/* Weights with unreadable memory right behind the last row. F16 takes any finite pattern, subnormals included. */
static mq_dense draw_weights(mq_dense_type type, size_t n, size_t k_width, kind k)
{
    void *data = checkasm_buffer(n * k_width * type_bytes(type), type_bytes(type));
    for (size_t i = 0; i < n * k_width; i++) {
        if (type == MQ_DENSE_F32) {
            ((float *)data)[i] = draw(k);
        } else if (type == MQ_DENSE_BF16) {
            ((uint16_t *)data)[i] = checkasm_bf16(draw(k));
        } else {
            uint16_t half = (uint16_t)checkasm_random();
            if ((half & 0x7c00) == 0x7c00) half ^= 0x4000;
            ((uint16_t *)data)[i] = half;
        }
    }
    return (mq_dense){.data = data, .type = type, .n = (uint32_t)n, .k_width = (uint32_t)k_width};
}

static float *draw_floats(size_t count, kind k)
{
    float *x = checkasm_floats(count);
    for (size_t i = 0; i < count; i++) {
        x[i] = draw(k);
    }
    return x;
}

/* ------------------------------------------------------------------ panels */

static void check_pack_rows(void)
{
    static const size_t widths[] = {1, 7, 8, 9, 15, 16, 17, 31, 33, 100, 256, 259};
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++) {
        for (size_t rows = 1; rows <= 3 * MR; rows++) {
            const size_t k_width = widths[w], ldx = k_width + rows % 3;
            const size_t groups = (rows + MR - 1) / MR, floats = groups * MR * k_width;
            checkasm_case("rows=%zu k=%zu", rows, k_width);
            checkasm_true(mq__dense_panel_floats(rows, k_width) == floats, "mq__dense_panel_floats");
            const float *x = draw_floats((rows - 1) * ldx + k_width, KIND_NORMAL);
            float *expected = checkasm_floats(floats), *got = checkasm_floats(floats);
            checkasm.ref->dense_pack_rows(x, ldx, rows, k_width, 0, groups, expected);
            const size_t cut = checkasm_below(groups + 1);
            if (cut < groups) checkasm.tested->dense_pack_rows(x, ldx, rows, k_width, cut, groups, got);
            if (cut > 0) checkasm.tested->dense_pack_rows(x, ldx, rows, k_width, 0, cut, got);
            checkasm_same_bytes(expected, got, floats * sizeof *got);
            bool right = true;
            for (size_t i = 0; i < floats; i++) {
                const size_t row = i / (MR * k_width) * MR + i % MR, k = i / MR % k_width;
                right = right && expected[i] == (row < rows ? x[row * ldx + k] : 0);
            }
            checkasm_true(right, "panel order");
        }
    }
}

/* ------------------------------------------------------------------ products */

typedef struct product {
    mq_dense w;
    const float *x;
    size_t rows, ldx;
    mq_epilogue out; /* y: what each call finds there */
    size_t y_floats;
} product;

static product draw_product(mq_dense_type type, size_t rows, size_t n, size_t k_width, kind k)
{
    product p = {.rows = rows, .ldx = k_width + checkasm_below(3)};
    p.out.accumulate = checkasm_below(2) != 0;
    const bool bias = checkasm_below(2) != 0;
    checkasm_case("%s rows=%zu n=%zu k=%zu kind=%d bias=%d accumulate=%d", type_names[type], rows, n, k_width, (int)k,
                  bias, p.out.accumulate);
    p.w = draw_weights(type, n, k_width, k);
    p.x = draw_floats((rows - 1) * p.ldx + k_width, k);
    p.out.ldy = n + checkasm_below(3);
    p.y_floats = (rows - 1) * p.out.ldy + n;
    p.out.y = draw_floats(p.y_floats, k);
    p.out.bias = bias ? draw_floats(n, k) : NULL;
    return p;
}

static mq_epilogue fresh_output(const product *p)
{
    mq_epilogue out = p->out;
    out.y = checkasm_copy(p->out.y, p->y_floats * sizeof(float), sizeof(float));
    return out;
}

static void same_outputs(const product *p, const mq_epilogue *expected, const mq_epilogue *got)
{
    checkasm_same_f32(expected->y, got->y, p->rows, p->w.n, p->out.ldy);
}

/* The same in double arithmetic, from the definition of the linear layer alone. Gaps between rows stay as they are. */
static void near_exact(const product *p, const mq_epilogue *got)
{
    double *exact = checkasm_buffer(p->y_floats * sizeof *exact, sizeof *exact);
    for (size_t i = 0; i < p->y_floats; i++) {
        const size_t row = i / p->out.ldy, n = i % p->out.ldy;
        exact[i] = (double)p->out.y[i];
        if (n >= p->w.n) continue;
        double sum = p->out.accumulate ? exact[i] : 0;
        if (p->out.bias) sum += (double)p->out.bias[n];
        for (size_t k = 0; k < p->w.k_width; k++) {
            sum += (double)p->x[row * p->ldx + k] * (double)dense_element(p->w.data, p->w.type, n * p->w.k_width + k);
        }
        exact[i] = sum;
    }
    checkasm_within(exact, got->y, p->y_floats, 1e-5);
}

/* ------------------------------------------------------------------ GEMM */

static void run_gemm(const mq_kernels *level, const product *p, const mq_epilogue *out, size_t cut_row, size_t cut_n)
{
    const size_t groups = (p->rows + MR - 1) / MR, k_width = p->w.k_width, cut_group = cut_row / MR;
    float *panels = checkasm_floats(groups * MR * k_width);
    void *scratch = checkasm_aligned(level->gemm_scratch_bytes);
    level->dense_pack_rows(p->x, p->ldx, p->rows, k_width, 0, groups, panels);
    for (int half = 0; half < 2; half++) { /* the later rows first */
        const size_t row = half ? 0 : cut_group * MR, end = half ? cut_group * MR : p->rows;
        if (row >= end) continue;
        mq_epilogue part = *out;
        part.y += row * part.ldy;
        if (cut_n < p->w.n) {
            level->dense_gemm(panels + row * k_width, end - row, &p->w, cut_n, p->w.n, &part, scratch);
        }
        if (cut_n > 0) level->dense_gemm(panels + row * k_width, end - row, &p->w, 0, cut_n, &part, scratch);
    }
}

static void check_gemm_case(mq_dense_type type, size_t rows, size_t n, size_t k_width, kind k)
{
    const product p = draw_product(type, rows, n, k_width, k);
    const mq_epilogue expected = fresh_output(&p), got = fresh_output(&p), parts = fresh_output(&p);
    run_gemm(checkasm.ref, &p, &expected, 0, 0);
    run_gemm(checkasm.tested, &p, &got, 0, 0);
    same_outputs(&p, &expected, &got);
    run_gemm(checkasm.tested, &p, &parts, checkasm_below(rows), checkasm_below(n) / 32 * 32);
    same_outputs(&p, &expected, &parts);
    if (k == KIND_NORMAL) near_exact(&p, &got);
}

static void check_gemm(void)
{
    static const size_t ns[] = {1, 5, 15, 16, 17, 31, 32, 33, 63, 64, 97, 130};
    static const size_t ks[] = {1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 64, 100, 255, 256, 257, 515};
    for (int type = 0; type < 3; type++) {
        for (size_t i = 0; i < 90; i++) {
            const size_t n = ns[checkasm_below(sizeof ns / sizeof ns[0])];
            check_gemm_case((mq_dense_type)type, 1 + i % 30, n, ks[i % 16], (kind)(i / 16 % KIND_COUNT));
        }
        check_gemm_case((mq_dense_type)type, 37 * MR + 9, 40, 300, KIND_NORMAL); /* more than one block of rows */
    }
}

/* ------------------------------------------------------------------ W16A16 */

static void run_bf16(const mq_kernels *level, const product *p, const mq_epilogue *out, size_t cut_group, size_t cut_n)
{
    const size_t k_width = p->w.k_width;
    void *scratch = checkasm_aligned(level->gemm_scratch_bytes);
    for (int half = 0; half < 2; half++) { /* rows in two passes of their own, features in two calls */
        const size_t row = half ? 0 : cut_group * MR, end = half ? cut_group * MR : p->rows;
        if (row >= end) continue;
        float *panels = checkasm_floats(mq__dense_panel_floats(p->rows, k_width));
        level->bf16_pack_rows(p->x + row * p->ldx, p->ldx, end - row, k_width, 0, (end - row + MR - 1) / MR, panels);
        mq_epilogue part = *out;
        part.y += row * part.ldy;
        if (cut_n < p->w.n) level->bf16_gemm(panels, end - row, &p->w, cut_n, p->w.n, &part, scratch);
        if (cut_n > 0) level->bf16_gemm(panels, end - row, &p->w, 0, cut_n, &part, scratch);
    }
}

/* |got - expected| <= 1e-6 sum |x*w|, against the reference; cuts change nothing. */
static void check_bf16_case(size_t rows, size_t n, size_t k_width)
{
    product p = draw_product(MQ_DENSE_BF16, rows, n, k_width, KIND_NORMAL);
    float *x = checkasm_floats((rows - 1) * p.ldx + k_width);
    for (size_t i = 0; i < (rows - 1) * p.ldx + k_width; i++) {
        x[i] = f32_of_bits((uint32_t)checkasm_bf16(p.x[i]) << 16);
    }
    p.x = x;
    const mq_epilogue expected = fresh_output(&p), got = fresh_output(&p), parts = fresh_output(&p);
    run_bf16(checkasm.ref, &p, &expected, 0, 0);
    run_bf16(checkasm.tested, &p, &got, 0, 0);
    run_bf16(checkasm.tested, &p, &parts, checkasm_below((rows - 1) / MR + 1), checkasm_below(n) / 32 * 32);
    same_outputs(&p, &got, &parts);
    bool near = true;
    for (size_t row = 0; row < rows; row++) {
        for (size_t i = 0; i < n; i++) {
            double sum = 1; /* bias, and what y holds */
            for (size_t k = 0; k < k_width; k++) {
                sum += fabs((double)x[row * p.ldx + k] * (double)dense_element(p.w.data, p.w.type, i * k_width + k));
            }
            near = near &&
                   fabs((double)expected.y[row * p.out.ldy + i] - (double)got.y[row * p.out.ldy + i]) <= 1e-6 * sum;
        }
    }
    checkasm_true(near, "within 1e-6 of the sum of magnitudes");
}

static void check_bf16(void)
{
    static const size_t ks[] = {1, 2, 7, 16, 31, 32, 33, 64, 100, 255, 256, 511, 512, 513, 1030};
    for (size_t i = 0; i < 60; i++) {
        check_bf16_case(1 + i % 30, 1 + checkasm_below(100), ks[i % 15]);
    }
    check_bf16_case(37 * MR + 9, 40, 600);  /* more than one block of rows */
    check_bf16_case(57 * MR + 9, 70, 600);  /* with tiles, too */
    check_bf16_case(3 * MR - 2, 300, 1100); /* and several batches of panels, an odd number of groups, three slices */
}

/* ------------------------------------------------------------------ thin product */

/* Against the reference; then features in two calls, rows one by one: the same bits, whatever the number of rows. */
static void check_thin_case(mq_dense_thin_fn *tested, mq_dense_type type, size_t rows, size_t n, size_t k_width, kind k)
{
    const product p = draw_product(type, rows, n, k_width, k);
    const mq_epilogue expected = fresh_output(&p), got = fresh_output(&p), parts = fresh_output(&p);
    void *scratch = checkasm_aligned(checkasm.tested->gemm_scratch_bytes);
    checkasm.ref->dense_thin(p.x, p.ldx, rows, &p.w, 0, n, &expected, NULL);
    tested(p.x, p.ldx, rows, &p.w, 0, n, &got, scratch);
    same_outputs(&p, &expected, &got);
    const size_t cut = checkasm_below(n);
    for (size_t row = 0; row < rows; row++) {
        mq_epilogue one = parts;
        one.y += row * one.ldy;
        tested(p.x + row * p.ldx, p.ldx, 1, &p.w, cut, n, &one, scratch);
        if (cut) tested(p.x + row * p.ldx, p.ldx, 1, &p.w, 0, cut, &one, scratch);
    }
    same_outputs(&p, &got, &parts);
    if (k == KIND_NORMAL) near_exact(&p, &got);
}

static void check_thin(mq_dense_thin_fn *tested)
{
    static const size_t ks[] = {1, 3, 15, 16, 17, 31, 32, 33, 48, 64, 95, 100, 128, 255, 256, 515};
    for (int type = 0; type < 3; type++) {
        for (size_t i = 0; i < 192; i++) {
            check_thin_case(tested, (mq_dense_type)type, 1 + i % 8, 1 + checkasm_below(70), ks[i / 4 % 16],
                            (kind)(i / 64 % KIND_COUNT));
        }
        for (size_t rows = 1; rows <= 8; rows++) { /* several slices of K and blocks of features */
            check_thin_case(tested, (mq_dense_type)type, rows, 100 + rows, rows % 2 ? 1024 : 2085, KIND_NORMAL);
        }
        /* Around where L1 decides how many features go together. */
        static const size_t wide[] = {1537, 3073, 4616, 6151, 7003};
        for (size_t i = 0; i < 30; i++) {
            check_thin_case(tested, (mq_dense_type)type, 1 + i / 5 % 3, 1 + checkasm_below(20), wide[i % 5],
                            KIND_NORMAL);
        }
        for (size_t rows = 1; rows <= MQ_THIN_MOST; rows++) {
            check_thin_case(tested, (mq_dense_type)type, rows, 1 + checkasm_below(60), ks[rows % 16],
                            (kind)(rows % KIND_COUNT));
        }
        check_thin_case(tested, (mq_dense_type)type, 9, 101, 2085, KIND_NORMAL); /* slices and blocks again */
        check_thin_case(tested, (mq_dense_type)type, 19, 97, 1040, KIND_SPREAD);
        check_thin_case(tested, (mq_dense_type)type, 2 * MQ_THIN_MOST + 1, 7, 70,
                        KIND_NORMAL); /* weights read thrice */
    }
}

static void check(void)
{
    if (checkasm_slot("dense_pack_rows")) check_pack_rows();
    if (checkasm_slot("dense_gemm")) check_gemm();
    if (checkasm_slot("bf16_pack_rows")) check_bf16(); /* its layout is the level's own: seen through the product */
    if (checkasm_slot("bf16_gemm")) check_bf16();
    if (checkasm_slot("dense_thin")) check_thin(checkasm.tested->dense_thin);
}

/* ------------------------------------------------------------------ benchmarks */

typedef struct bench_case {
    mq_dense_thin_fn *thin;
    mq_dense w;
    float *x, *panels;
    size_t rows;
    mq_epilogue out;
    void *scratch, *scratches[2];
    size_t matrix_bytes, matrices, next; /* thin: several matrices, so that no cache holds the next one */
} bench_case;

static void *need(void *block)
{
    if (!block) {
        fprintf(stderr, "check_dense: no memory\n");
        exit(2);
    }
    return block;
}

static void bench_pack(void *context)
{
    bench_case *c = context;
    checkasm.tested->dense_pack_rows(c->x, c->w.k_width, c->rows, c->w.k_width, 0, (c->rows + MR - 1) / MR, c->panels);
}

static void bench_gemm(void *context)
{
    bench_case *c = context;
    checkasm.tested->dense_gemm(c->panels, c->rows, &c->w, 0, c->w.n, &c->out, c->scratch);
}

static void bench_bf16(void *context)
{
    bench_case *c = context;
    checkasm.tested->bf16_gemm(c->panels, c->rows, &c->w, 0, c->w.n, &c->out, c->scratch);
}

static void bench_gemm_shape(size_t rows, size_t n, size_t k_width)
{
    bench_case c = {.rows = rows};
    uint16_t *weights = need(mq__alloc_aligned(n * k_width * 2));
    for (size_t i = 0; i < n * k_width; i++) {
        weights[i] = (uint16_t)(0x3c00 + (i * 37 & 0x81ff));
    }
    c.w = (mq_dense){.data = weights, .type = MQ_DENSE_BF16, .n = (uint32_t)n, .k_width = (uint32_t)k_width};
    c.x = need(mq__alloc_aligned(rows * k_width * sizeof(float)));
    for (size_t i = 0; i < rows * k_width; i++) {
        c.x[i] = (float)(i % 17) - 8;
    }
    c.panels = need(mq__alloc_aligned(mq__dense_panel_floats(rows, k_width) * sizeof(float)));
    c.out = (mq_epilogue){.y = need(mq__alloc_aligned(rows * n * sizeof(float))), .ldy = n};
    c.scratch = need(mq__alloc_aligned(checkasm.tested->gemm_scratch_bytes));
    memset(c.out.y, 0, rows * n * sizeof(float));
    char label[64];
    snprintf(label, sizeof label, "M=%zu K=%zu", rows, k_width);
    bench_pack(&c);
    checkasm_bench("dense_pack_rows", label, bench_pack, &c, (double)(rows * k_width), CHECKASM_ITEMS);
    snprintf(label, sizeof label, "bf16 M=%zu N=%zu K=%zu", rows, n, k_width);
    checkasm_bench("dense_gemm", label, bench_gemm, &c, (double)rows * (double)n * (double)k_width, CHECKASM_MACS);
    checkasm.tested->bf16_pack_rows(c.x, k_width, rows, k_width, 0, (rows + MR - 1) / MR, c.panels);
    snprintf(label, sizeof label, "M=%zu N=%zu K=%zu", rows, n, k_width);
    checkasm_bench("bf16_gemm", label, bench_bf16, &c, (double)rows * (double)n * (double)k_width, CHECKASM_MACS);
    mq__free_aligned(weights);
    mq__free_aligned(c.x);
    mq__free_aligned(c.panels);
    mq__free_aligned(c.out.y);
    mq__free_aligned(c.scratch);
}

/* One pass over all matrices: what a decode step does. */
static void bench_thin(void *context, int thread, int threads)
{
    bench_case *c = context;
    size_t n0, n1;
    mq__partition(c->w.n, thread, threads, &n0, &n1);
    for (size_t i = 0; i < c->matrices; i++) {
        mq_dense w = c->w;
        w.data = (const char *)c->w.data + i * c->matrix_bytes;
        c->thin(c->x, w.k_width, c->rows, &w, n0, n1, &c->out, c->scratches[thread]);
    }
}

static void bench_thin_alone(void *context)
{
    bench_thin(context, 0, 1);
}

static void bench_thin_shape(const void *weights, size_t bytes, const char *where, mq_dense_type type, size_t rows,
                             size_t n, size_t k_width, int threads)
{
    bench_case c = {.rows = rows, .matrix_bytes = n * k_width * type_bytes(type)};
    c.w = (mq_dense){.data = weights, .type = type, .n = (uint32_t)n, .k_width = (uint32_t)k_width};
    c.matrices = bytes / c.matrix_bytes;
    c.x = need(mq__alloc_aligned(rows * k_width * sizeof(float)));
    for (size_t i = 0; i < rows * k_width; i++) {
        c.x[i] = (float)(i % 17) - 8;
    }
    c.out = (mq_epilogue){.y = need(mq__alloc_aligned(rows * n * sizeof(float))), .ldy = n};
    char label[64];
    snprintf(label, sizeof label, "%s %s M=%zu N=%zu K=%zu", type_names[type], where, rows, n, k_width);
    const double read = (double)(c.matrices * c.matrix_bytes);
    for (int thread = 0; thread < threads; thread++)
        c.scratches[thread] = need(mq__alloc_aligned(checkasm.tested->gemm_scratch_bytes));
    mq_kernels level = *checkasm.tested;
    const mq_variants *ways = &level.variants[MQ_DENSE_THIN];
    for (size_t v = 0; v < (ways->count ? ways->count : 1); v++) {
        char name[48] = "dense_thin";
        if (ways->count) {
            mq__variant_use(&level, MQ_DENSE_THIN, v);
            snprintf(name, sizeof name, "dense_thin/%s", ways->one[v].name);
        }
        c.thin = level.dense_thin;
        checkasm_bench_threads(name, label, bench_thin, &c, read, CHECKASM_BYTES, threads);
    }
    if (rows >= 8 && threads == 1) { /* where arithmetic is the limit */
        const double macs = (double)rows * (double)n * (double)k_width * (double)c.matrices;
        c.thin = checkasm.tested->dense_thin;
        checkasm_bench("dense_thin", label, bench_thin_alone, &c, macs, CHECKASM_MACS);
    }
    for (int thread = 0; thread < threads; thread++)
        mq__free_aligned(c.scratches[thread]);
    mq__free_aligned(c.x);
    mq__free_aligned(c.out.y);
}

static void bench_thin_all(const void *weights, size_t bytes, const char *where)
{
    static const size_t shapes[][2] = {{3072, 1024}, {1024, 3072}, {9728, 2560}, {4096, 12288}};
    bench_thin_shape(weights, bytes, where, MQ_DENSE_BF16, 1, 3072, 1024, 1);
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        bench_thin_shape(weights, bytes, where, MQ_DENSE_BF16, 1, shapes[i][0], shapes[i][1], 2);
    }
    for (size_t rows = 1; rows <= 8; rows *= 8) { /* lm_head */
        bench_thin_shape(weights, bytes, where, MQ_DENSE_BF16, rows, 151936, 1024, 2);
    }
    for (size_t rows = 8; rows <= MQ_THIN_MOST; rows *= 2) {
        bench_thin_shape(weights, bytes, where, MQ_DENSE_BF16, rows, 3072, 1024, 1);
        bench_thin_shape(weights, bytes, where, MQ_DENSE_BF16, rows, 1024, 3072, 1);
    }
    for (size_t rows = 2; rows <= MQ_THIN_MOST; rows *= 2) {
        bench_thin_shape(weights, bytes, where, MQ_DENSE_BF16, rows, 3072, 1024, 2);
        bench_thin_shape(weights, bytes, where, MQ_DENSE_BF16, rows, 4096, 12288, 2);
    }
}

/* Weights as they come in practice: a file map of small pages, present in the page cache. */
static void bench_thin_memory(void)
{
    const size_t bytes = (size_t)512 << 20;
    uint16_t *memory = need(mq__alloc_aligned(bytes));
    for (size_t i = 0; i < bytes / 2; i++) {
        memory[i] = (uint16_t)(0x3c00 + (i * 37 & 0x81ff));
    }
    bench_thin_shape(memory, bytes, "memory", MQ_DENSE_BF16, 1, 3072, 1024, 2);
    bench_thin_shape(memory, bytes, "memory", MQ_DENSE_F16, 1, 3072, 1024, 2);
    bench_thin_shape(memory, bytes, "memory", MQ_DENSE_F32, 1, 3072, 1024, 2);
    FILE *file = tmpfile();
    if (file && fwrite(memory, 1, bytes, file) == bytes && fflush(file) == 0) {
        void *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, fileno(file), 0);
        if (map != MAP_FAILED) {
            bench_thin_all(map, bytes, "file");
            munmap(map, bytes);
        }
    }
    if (file) fclose(file);
    mq__free_aligned(memory);
}

static void bench(void)
{
    static const size_t shapes[][2] = {{3072, 1024}, {1024, 3072},  {2048, 1024}, {9728, 2560},
                                       {2560, 9728}, {12288, 4096}, {4096, 12288}};
    if (checkasm_bench_wanted("dense_gemm") || checkasm_bench_wanted("dense_pack_rows") ||
        checkasm_bench_wanted("bf16_gemm")) {
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
            bench_gemm_shape(512, shapes[i][0], shapes[i][1]);
            if (shapes[i][0] * shapes[i][1] < 8 << 20) bench_gemm_shape(2048, shapes[i][0], shapes[i][1]);
        }
        bench_gemm_shape(32, 3072, 1024);
        bench_gemm_shape(128, 3072, 1024);
    }
    if (checkasm_bench_wanted("dense_thin/ahead") || checkasm_bench_wanted("dense_thin/plain") ||
        checkasm_bench_wanted("dense_thin/tiles") || checkasm_bench_wanted("dense_thin/streams"))
        bench_thin_memory();
}

CHECKASM_SUITE(dense, check, bench)
