/* Benchmarks of attention: shapes of the Qwen3 family. */
#include "check_attention.h"
#include "checkasm.h"

#include "base/mem.h"

#include <math.h>
#include <stdio.h>

enum { BENCH_TOKENS = 32768, BENCH_PAGES = BENCH_TOKENS / MQ_PAGE_TOKENS, MAX_THREADS = 2 };

/* `kv_heads` heads of one layer, pages as in a pool of several layers, so that heads' pages lie apart. */
typedef struct bench_world {
    uint16_t *pool, *pages[BENCH_PAGES];
    uint32_t width, heads, kv_heads, tokens, rows;
    bool apart; /* each row by itself */
    float *q, *out, *partials;
    void *scratch[MAX_THREADS];
} bench_world;

static bool bench_open(bench_world *w)
{
    const size_t page = (size_t)w->kv_heads * 2 * MQ_PAGE_TOKENS * w->width, count = w->tokens / MQ_PAGE_TOKENS;
    const size_t row = (size_t)w->kv_heads * w->heads * w->width;
    const size_t spans = (w->tokens + MQ_SPAN_TOKENS - 1) / MQ_SPAN_TOKENS;
    w->pool = mq__alloc_aligned(page * count * sizeof *w->pool);
    w->q = mq__alloc_aligned(row * w->rows * sizeof *w->q);
    w->out = mq__alloc_aligned(row * w->rows * sizeof *w->out);
    w->partials = mq__alloc_aligned(w->rows * spans * w->kv_heads * w->heads * (w->width + 2) * sizeof *w->partials);
    bool ok = w->pool && w->q && w->out && w->partials;
    for (int t = 0; t < MAX_THREADS; t++) {
        w->scratch[t] = mq__alloc_aligned(checkasm.tested->attention_scratch_bytes(w->heads, w->width));
        ok = ok && w->scratch[t];
    }
    if (!ok) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        w->pages[i] = w->pool + i * page;
    }
    for (size_t i = 0; i < page * count; i++) {
        w->pool[i] = (uint16_t)(0x3f00 ^ (i * 40503u >> 7 & 0x80ff)); /* about +-0.5 */
    }
    for (size_t i = 0; i < row * w->rows; i++) {
        w->q[i] = (float)((i * 2654435761u >> 20) & 255) / 128 - 1;
    }
    return true;
}

static void bench_close(bench_world *w)
{
    mq__free_aligned(w->pool);
    mq__free_aligned(w->q);
    mq__free_aligned(w->out);
    mq__free_aligned(w->partials);
    for (int t = 0; t < MAX_THREADS; t++) {
        mq__free_aligned(w->scratch[t]);
    }
}

static mq_attention bench_call(const bench_world *w, uint32_t kv_head, uint32_t first, uint32_t rows, int thread)
{
    const size_t side = (size_t)MQ_PAGE_TOKENS * w->width, row = (size_t)w->kv_heads * w->heads * w->width;
    return (mq_attention){.kv = {w->pages, side * 2 * kv_head, side * (2 * kv_head + 1), w->width},
                          .q = w->q + (size_t)kv_head * w->heads * w->width,
                          .out = w->out + (size_t)kv_head * w->heads * w->width,
                          .q_stride = row,
                          .out_stride = row,
                          .heads = w->heads,
                          .first = first,
                          .rows = rows,
                          .scale = 1 / sqrtf((float)w->width),
                          .scratch = w->scratch[thread]};
}

static void run_prefill(void *context)
{
    const bench_world *w = context;
    const mq_attention a = bench_call(w, 0, w->tokens - w->rows, w->rows, 0);
    checkasm.tested->attention_prefill(&a);
}

static void run_prefill_bf16(void *context)
{
    const bench_world *w = context;
    const mq_attention a = bench_call(w, 0, w->tokens - w->rows, w->rows, 0);
    checkasm.tested->attention_prefill_bf16(&a);
}

static void run_prefill_int8(void *context)
{
    const bench_world *w = context;
    const mq_attention a = bench_call(w, 0, w->tokens - w->rows, w->rows, 0);
    checkasm.tested->attention_prefill_int8(&a);
}

static void bench_prefill(uint32_t width, uint32_t heads, uint32_t tokens, uint32_t rows)
{
    if (!checkasm_bench_wanted("attention_prefill") && !checkasm_bench_wanted("attention_prefill_bf16") &&
        !checkasm_bench_wanted("attention_prefill_int8")) {
        return;
    }
    bench_world w = {.width = width, .heads = heads, .kv_heads = 1, .tokens = tokens, .rows = rows};
    if (bench_open(&w)) {
        char label[64];
        double keys = 0; /* each row sees what the causal mask leaves, no more is counted */
        for (uint32_t t = tokens - rows; t < tokens; t++) {
            keys += t + 1;
        }
        snprintf(label, sizeof label, "width %u, %u:1, %u rows at %u", width, heads, rows, tokens);
        checkasm_bench("attention_prefill", label, run_prefill, &w, keys * heads * 2 * width, CHECKASM_MACS);
        checkasm_bench("attention_prefill_bf16", label, run_prefill_bf16, &w, keys * heads * 2 * width, CHECKASM_MACS);
        checkasm_bench("attention_prefill_int8", label, run_prefill_int8, &w, keys * heads * 2 * width, CHECKASM_MACS);
    }
    bench_close(&w);
}

/* One span of some kv heads. */
static void run_span(const bench_world *w, uint32_t g, uint32_t kv_heads, uint32_t span, int thread)
{
    const uint32_t spans = (w->tokens + MQ_SPAN_TOKENS - 1) / MQ_SPAN_TOKENS, rows = w->apart ? 1 : w->rows;
    const size_t each = (size_t)w->heads * (w->width + 2), row_step = w->kv_heads * spans * each;
    for (uint32_t row = 0; row < w->rows; row += rows) {
        mq_attention a = bench_call(w, g, w->tokens - w->rows + row, rows, thread);
        a.q += row * a.q_stride;
        checkasm.tested->attention_decode_span(
            &a, kv_heads, span, w->partials + row * row_step + (g * spans + span) * each, spans * each, row_step);
    }
}

/* A decode step's attention: each thread has its kv heads, in calls of several as a model has them. */
static void run_decode(void *context, int thread, int threads)
{
    const bench_world *w = context;
    const uint32_t spans = (w->tokens + MQ_SPAN_TOKENS - 1) / MQ_SPAN_TOKENS, rows = w->rows;
    const size_t each = (size_t)w->heads * (w->width + 2);
    const uint32_t heads = w->apart ? 2 : MQ_DECODE_KV_HEADS / rows; /* apart: they stay in L2 for the next row */
    for (uint32_t g = (uint32_t)thread * heads; g < w->kv_heads; g += (uint32_t)threads * heads) {
        for (uint32_t span = 0; span < spans; span++) {
            run_span(w, g, heads, span, thread);
        }
        for (uint32_t i = 0; i < heads * rows; i++) {
            mq_attention a = bench_call(w, g + i / rows, w->tokens - rows + i % rows, 1, thread);
            a.out += i % rows * a.out_stride;
            checkasm.tested->attention_decode_merge(
                &a, spans, w->partials + (i % rows * w->kv_heads + g + i / rows) * spans * each);
        }
    }
}

static void run_decode_one(void *context)
{
    run_decode(context, 0, 1);
}

static void bench_decode_rows(uint32_t width, uint32_t heads, uint32_t tokens, uint32_t rows, bool apart)
{
    if (!checkasm_bench_wanted("attention_decode_span")) {
        return;
    }
    bench_world w = {.width = width, .heads = heads, .tokens = tokens, .rows = rows, .apart = apart};
    w.kv_heads = (128u << 20) / (4 * width * tokens); /* 128 MiB: nothing stays in a cache */
    if (w.kv_heads < 2 * MQ_DECODE_KV_HEADS) w.kv_heads = 2 * MQ_DECODE_KV_HEADS;
    if (bench_open(&w)) {
        char label[64];
        const double bytes = 4.0 * width * tokens * w.kv_heads; /* rows or not */
        snprintf(label, sizeof label, "width %u, %u:1, depth %u%s%.0u%s", width, heads, tokens,
                 rows > 1 ? ", rows " : "", rows > 1 ? rows : 0, apart ? " apart" : "");
        checkasm_bench("attention_decode_span", label, run_decode_one, &w, bytes, CHECKASM_BYTES);
        checkasm_bench_threads("attention_decode_span", label, run_decode, &w, bytes, CHECKASM_BYTES, 2);
    }
    bench_close(&w);
}

static void bench_decode(uint32_t width, uint32_t heads, uint32_t tokens)
{
    bench_decode_rows(width, heads, tokens, 1, false);
}

void checkasm_bench_attention(void)
{
    if (checkasm.isa == MQ_ISA_REF) {
        return; /* seconds per call */
    }
    bench_prefill(128, 2, 2048, 512);
    bench_prefill(128, 4, 2048, 512);
    bench_prefill(128, 8, 2048, 512);
    bench_prefill(128, 2, 8192, 256);
    bench_prefill(128, 4, 8192, 256);
    bench_prefill(128, 2, 32768, 256);
    bench_prefill(128, 4, 32768, 256);
    bench_prefill(64, 4, 8192, 256);
    bench_prefill(128, 2, 512, 512);
    for (uint32_t heads = 1; heads <= 8; heads *= 2) {
        bench_decode(128, heads, 4096);
    }
    bench_decode(128, 2, 32768);
    bench_decode(128, 4, 32768);
    bench_decode(64, 4, 4096);
    for (uint32_t rows = 2; rows <= MQ_DECODE_KV_HEADS; rows *= 2) {
        for (int apart = 0; apart < 2; apart++) {
            bench_decode_rows(128, 2, 4096, rows, apart);
            bench_decode_rows(64, 2, 512, rows, apart);
        }
    }
}
