/* Products of NVFP4 weights with FP32 activations: GEMM and thin product. */
#include "checkasm.h"

#include "base/mem.h"
#include "base/pool.h"
#include "kernels/nvfp4_pack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MR MQ_DENSE_MR
#define NR MQ_NVFP4_NR

/* Ordinary numbers, many binades, or products in the subnormal range. */
typedef enum kind { KIND_NORMAL, KIND_SPREAD, KIND_TINY, KIND_COUNT } kind;

static float draw(kind k)
{
    const float x = checkasm_normal();
    if (k == KIND_SPREAD) return x * (checkasm_below(2) ? 0x1p40f : 0x1p-40f);
    return k == KIND_TINY ? x * (checkasm_below(4) ? 0x1p-142f : 0x1p-130f) : x;
}

static float *draw_floats(size_t count, kind k)
{
    float *x = checkasm_floats(count);
    for (size_t i = 0; i < count; i++) {
        x[i] = draw(k);
    }
    return x;
}

typedef struct product {
    mq_nvfp4 w;
    const uint8_t *nibbles, *scales; /* canonical form: [n, 8*blocks], [n, blocks] */
    const float *x;
    size_t rows, ldx;
    mq_epilogue out; /* y: what each call finds there */
    size_t y_floats;
} product;

static product draw_product(size_t rows, size_t n, size_t k_width, kind k)
{
    const size_t blocks = (k_width + MQ_NVFP4_BLOCK - 1) / MQ_NVFP4_BLOCK;
    product p = {.rows = rows, .ldx = k_width + checkasm_below(3)};
    const bool bias = checkasm_below(2) != 0;
    p.out.accumulate = checkasm_below(2) != 0;
    checkasm_case("rows=%zu n=%zu k=%zu kind=%d bias=%d accumulate=%d", rows, n, k_width, (int)k, bias,
                  p.out.accumulate);
    uint8_t *nibbles = checkasm_buffer(n * blocks * 8, 1), *scales = checkasm_buffer(n * blocks, 1);
    checkasm_fill_bytes(nibbles, n * blocks * 8);
    for (size_t i = 0; i < n * blocks; i++) {
        scales[i] = (uint8_t)(checkasm_below(4) ? 0x20 + checkasm_below(0x30) : checkasm_below(0x7f));
        for (size_t j = 0; j < 16; j++) { /* the format has zeros past the end */
            if (i % blocks * 16 + j >= k_width) nibbles[i * 8 + j / 2] &= j % 2 ? 0x0f : 0xf0;
        }
    }
    uint8_t *panels = checkasm_aligned(mq__nvfp4_panel_bytes(n, k_width));
    mq__nvfp4_pack(nibbles, scales, (uint32_t)n, (uint32_t)blocks, 0, (n + NR - 1) / NR, panels);
    p.nibbles = nibbles, p.scales = scales;
    p.w = (mq_nvfp4){.panels = panels,
                     .n = (uint32_t)n,
                     .k_width = (uint32_t)k_width,
                     .blocks = (uint32_t)blocks,
                     .multiplier = checkasm_uniform(0.001f, 0.01f)};
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

/* One weight, from the canonical form and tables of its own. */
static double weight(const product *p, size_t n, size_t k)
{
    static const double magnitude[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    const uint8_t pair = p->nibbles[(n * p->w.blocks + k / 16) * 8 + k % 16 / 2];
    const unsigned code = k % 2 ? pair >> 4 : pair & 15, scale = p->scales[n * p->w.blocks + k / 16];
    double value = scale & 7;
    value = scale >> 3 ? (8 + value) / 8 : value / 4; /* subnormals have the exponent of 1 */
    for (unsigned e = 0; e < 16; e++) {
        value *= e < scale >> 3 ? 2 : 1;
    }
    return value * 0x1p-7 * (code & 8 ? -magnitude[code & 7] : magnitude[code & 7]) * (double)p->w.multiplier;
}

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
            sum += (double)p->x[row * p->ldx + k] * weight(p, n, k);
        }
        exact[i] = sum;
    }
    checkasm_within(exact, got->y, p->y_floats, 1e-5);
}

/* ------------------------------------------------------------------ GEMM */

static void run_gemm(const mq_kernels *level, const product *p, const mq_epilogue *out, size_t cut_row, size_t cut)
{
    const size_t groups = (p->rows + MR - 1) / MR, k_width = p->w.k_width, panels = (p->w.n + NR - 1) / NR;
    float *x = checkasm_floats(groups * MR * k_width);
    void *scratch = checkasm_aligned(level->gemm_scratch_bytes);
    level->dense_pack_rows(p->x, p->ldx, p->rows, k_width, 0, groups, x);
    for (int half = 0; half < 2; half++) { /* the later rows first */
        const size_t row = half ? 0 : cut_row / MR * MR, end = half ? cut_row / MR * MR : p->rows;
        if (row >= end) continue;
        mq_epilogue part = *out;
        part.y += row * part.ldy;
        if (cut < panels) level->w4a16_gemm(x + row * k_width, end - row, &p->w, cut, panels, &part, scratch);
        if (cut > 0) level->w4a16_gemm(x + row * k_width, end - row, &p->w, 0, cut, &part, scratch);
    }
}

static void check_gemm(void)
{
    static const size_t ns[] = {1, 5, 15, 16, 17, 31, 32, 33, 63, 64, 97, 130};
    static const size_t ks[] = {1, 2, 7, 15, 16, 17, 32, 64, 100, 172, 255, 256, 257, 272, 515};
    for (size_t i = 0; i < 180; i++) {
        const kind k = (kind)(i / 15 % KIND_COUNT);
        const product p = draw_product(1 + i % 30, ns[checkasm_below(sizeof ns / sizeof ns[0])], ks[i % 15], k);
        const mq_epilogue expected = fresh_output(&p), got = fresh_output(&p), parts = fresh_output(&p);
        run_gemm(checkasm.ref, &p, &expected, 0, 0);
        run_gemm(checkasm.tested, &p, &got, 0, 0);
        same_outputs(&p, &expected, &got);
        run_gemm(checkasm.tested, &p, &parts, checkasm_below(p.rows), checkasm_below((p.w.n + NR - 1) / NR + 1));
        same_outputs(&p, &expected, &parts);
        if (k == KIND_NORMAL) near_exact(&p, &got);
    }
}

/* ------------------------------------------------------------------ thin product */

static void check_thin_case(size_t rows, size_t n, size_t k_width, kind k)
{
    const product p = draw_product(rows, n, k_width, k);
    const size_t panels = (n + NR - 1) / NR, cut = checkasm_below(panels + 1);
    const mq_epilogue expected = fresh_output(&p), got = fresh_output(&p), parts = fresh_output(&p);
    void *scratch = checkasm_aligned(checkasm.tested->gemm_scratch_bytes);
    checkasm.ref->w4a16_thin(p.x, p.ldx, rows, &p.w, 0, panels, &expected, NULL);
    checkasm.tested->w4a16_thin(p.x, p.ldx, rows, &p.w, 0, panels, &got, scratch);
    same_outputs(&p, &expected, &got);
    for (size_t row = 0; row < rows; row++) { /* panels in two calls, rows one by one */
        mq_epilogue one = parts;
        one.y += row * one.ldy;
        const float *x = p.x + row * p.ldx;
        if (cut < panels) checkasm.tested->w4a16_thin(x, p.ldx, 1, &p.w, cut, panels, &one, scratch);
        if (cut > 0) checkasm.tested->w4a16_thin(x, p.ldx, 1, &p.w, 0, cut, &one, scratch);
    }
    same_outputs(&p, &got, &parts);
    if (k == KIND_NORMAL) near_exact(&p, &got);
}

static void check_thin(void)
{
    static const size_t ks[] = {1, 3, 15, 16, 17, 31, 32, 33, 48, 64, 95, 100, 128, 172, 256, 515};
    for (size_t i = 0; i < 384; i++) {
        check_thin_case(1 + i % 8, 1 + checkasm_below(140), ks[i / 4 % 16], (kind)(i / 64 % KIND_COUNT));
    }
    for (size_t rows = 1; rows <= MQ_THIN_MOST; rows++) {
        check_thin_case(rows, 1 + checkasm_below(100), ks[rows % 16], (kind)(rows % KIND_COUNT));
    }
    check_thin_case(2 * MQ_THIN_MOST + 1, 40, 515, KIND_NORMAL); /* weights read thrice */
}

static void check(void)
{
    if (checkasm_slot("w4a16_gemm")) check_gemm();
    if (checkasm_slot("w4a16_thin")) check_thin();
}

/* ------------------------------------------------------------------ benchmarks */

typedef struct bench_case {
    mq_nvfp4 w;
    float *x, *panels;
    size_t rows;
    mq_epilogue out;
    void *scratch, *scratches[2];
    size_t matrix_bytes, matrices;
} bench_case;

static void *need(void *block)
{
    if (!block) {
        fprintf(stderr, "check_w4a16: no memory\n");
        exit(2);
    }
    return block;
}

/* `matrices` packed matrices one after the other: any bytes are valid codes, scales are kept finite and positive. */
static bench_case bench_new(size_t rows, size_t n, size_t k_width, size_t matrices)
{
    bench_case c = {.rows = rows, .matrices = matrices, .matrix_bytes = mq__nvfp4_panel_bytes(n, k_width)};
    uint8_t *cells = need(mq__alloc_aligned(c.matrix_bytes * matrices));
    for (size_t i = 0; i < c.matrix_bytes * matrices; i++) {
        cells[i] = (uint8_t)(i % MQ_NVFP4_CELL < MQ_NVFP4_CELL_SCALES ? i * 2654435761u >> 13 : 0x30 + i % 16);
    }
    c.w = (mq_nvfp4){.panels = cells,
                     .n = (uint32_t)n,
                     .k_width = (uint32_t)k_width,
                     .blocks = (uint32_t)((k_width + 15) / 16),
                     .multiplier = 0.01f};
    c.x = need(mq__alloc_aligned(rows * k_width * sizeof(float)));
    for (size_t i = 0; i < rows * k_width; i++) {
        c.x[i] = (float)(i % 17) - 8;
    }
    c.out = (mq_epilogue){.y = need(mq__alloc_aligned(rows * n * sizeof(float))), .ldy = n};
    return c;
}

static void bench_free(bench_case *c)
{
    mq__free_aligned((void *)(uintptr_t)c->w.panels);
    mq__free_aligned(c->x);
    mq__free_aligned(c->out.y);
}

static void bench_gemm(void *context)
{
    bench_case *c = context;
    checkasm.tested->w4a16_gemm(c->panels, c->rows, &c->w, 0, c->w.n / NR, &c->out, c->scratch);
}

static void bench_gemm_shape(size_t rows, size_t n, size_t k_width)
{
    bench_case c = bench_new(rows, n, k_width, 1);
    c.panels = need(mq__alloc_aligned(mq__dense_panel_floats(rows, k_width) * sizeof(float)));
    c.scratch = need(mq__alloc_aligned(checkasm.tested->gemm_scratch_bytes));
    checkasm.tested->dense_pack_rows(c.x, k_width, rows, k_width, 0, (rows + MR - 1) / MR, c.panels);
    char label[64];
    snprintf(label, sizeof label, "M=%zu N=%zu K=%zu", rows, n, k_width);
    checkasm_bench("w4a16_gemm", label, bench_gemm, &c, (double)rows * (double)n * (double)k_width, CHECKASM_MACS);
    mq__free_aligned(c.panels);
    mq__free_aligned(c.scratch);
    bench_free(&c);
}

static void bench_thin(void *context, int thread, int threads)
{
    bench_case *c = context;
    size_t p0, p1;
    mq__partition(c->w.n / NR, thread, threads, &p0, &p1);
    for (size_t i = 0; i < c->matrices; i++) {
        mq_nvfp4 w = c->w;
        w.panels = c->w.panels + i * c->matrix_bytes;
        checkasm.tested->w4a16_thin(c->x, w.k_width, c->rows, &w, p0, p1, &c->out, c->scratches[thread]);
    }
}

static void bench_thin_shape(size_t rows, size_t n, size_t k_width, int threads)
{
    const size_t pool = (size_t)200 << 20; /* far more than the caches hold */
    bench_case c = bench_new(rows, n, k_width, pool / mq__nvfp4_panel_bytes(n, k_width));
    char label[64];
    snprintf(label, sizeof label, "M=%zu N=%zu K=%zu", rows, n, k_width);
    for (int thread = 0; thread < threads; thread++)
        c.scratches[thread] = need(mq__alloc_aligned(checkasm.tested->gemm_scratch_bytes));
    checkasm_bench_threads("w4a16_thin", label, bench_thin, &c, (double)(c.matrices * c.matrix_bytes), CHECKASM_BYTES,
                           threads);
    for (int thread = 0; thread < threads; thread++)
        mq__free_aligned(c.scratches[thread]);
    bench_free(&c);
}

static void bench(void)
{
    if (checkasm_bench_wanted("w4a16_gemm")) {
        bench_gemm_shape(512, 3072, 1024);
        bench_gemm_shape(512, 9728, 2560);
    }
    if (checkasm_bench_wanted("w4a16_thin")) {
        bench_thin_shape(1, 3072, 1024, 1);
        bench_thin_shape(1, 3072, 1024, 2);
        bench_thin_shape(1, 4096, 12288, 2);
        for (size_t rows = 2; rows <= MQ_THIN_MOST; rows *= 2) {
            bench_thin_shape(rows, 3072, 1024, 2);
        }
    }
}

CHECKASM_SUITE(w4a16, check, bench)
