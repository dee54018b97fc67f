/* Work for measuring. All operands lie in one block of a byte that every format takes for an ordinary number: 0x3c is 0.011 as BF16
 * and as FP32, 1.5 as a scale of NVFP4, 60 as INT8. Each thread has a part of the block, far beyond its caches, and takes the next
 * piece of it each time, so that weights, keys and values come from memory. */
#include "kernels/trial.h"

#include "base/error.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>
#include <time.h>

enum {
    ORDINARY = 0x3c,
    PIECE = 2 << 20,        /* bytes that a piece of work reads */
    PART = 16 << 20,        /* of a thread, at least */
    WHOLE = 96 << 20,       /* of all threads, at least, */
    WHOLE_L3 = 8,           /* and so many times the last cache: what comes from there makes all ways look alike, */
    WHOLE_MOST = 256 << 20, /* but no more than this: filling it takes time */
    K_WIDTH = 1024,         /* of all products but long ones */
    LONG_K = 4096,
    TALL_ROWS = 32 * MQ_DENSE_MR,
    WIDTH = 128, /* of a head */
    HEADS = 2,   /* query heads per kv head */
    ROW_TRIES = 4,
};

typedef struct trial_thread {
    uint8_t *memory; /* the thread's part */
    size_t at;       /* of the next piece */
    float *x, *y;    /* [TALL_ROWS][K_WIDTH] */
    uint8_t *packed; /* the rows of a product as its format packs them */
    float *multiplier;
    void *scratch;
    double seconds; /* of the run in hand */
} trial_thread;

struct mq_trial {
    mq_pool *pool;
    size_t threads;
    uint8_t *block;
    size_t part; /* bytes of a thread */
    trial_thread *thread;
    const mq_kernels *kernels; /* of the run in hand */
    mq_work work;
};

static size_t most_bytes(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t packed_bytes(void)
{
    const size_t dense = mq__dense_panel_floats(TALL_ROWS, K_WIDTH) * sizeof(float);
    return most_bytes(dense,
                      most_bytes(mq__nvfp4_row_bytes(TALL_ROWS, K_WIDTH), mq__int8_row_bytes(TALL_ROWS, K_WIDTH)));
}

static bool thread_new(trial_thread *t, const mq_kernels *level)
{
    const size_t floats = (size_t)TALL_ROWS * K_WIDTH;
    t->x = mq__alloc_aligned(floats * sizeof *t->x);
    t->y = mq__alloc_aligned(floats * sizeof *t->y);
    t->packed = mq__alloc_aligned(packed_bytes());
    t->multiplier = mq__alloc_aligned(TALL_ROWS * sizeof *t->multiplier);
    t->scratch = mq__alloc_aligned(most_bytes(level->gemm_scratch_bytes, level->attention_scratch_bytes(HEADS, WIDTH)));
    return t->x && t->y && t->packed && t->multiplier && t->scratch;
}

static void touch_part(void *context, int thread, int threads)
{
    mq_trial *t = context;
    trial_thread *own = &t->thread[thread];
    (void)threads;
    memset(t->block + (size_t)thread * t->part, ORDINARY, t->part);
    memset(own->x, ORDINARY, (size_t)TALL_ROWS * K_WIDTH * sizeof *own->x);
    memset(own->y, ORDINARY, (size_t)TALL_ROWS * K_WIDTH * sizeof *own->y);
    memset(own->packed, ORDINARY, packed_bytes());
    for (size_t i = 0; i < TALL_ROWS; i++)
        own->multiplier[i] = 1;
}

mq_status mq__trial_new(const mq_kernels *level, int threads, mq_trial **trial, mq_error *error)
{
    mq_cpu_info cpu;
    mq__cpu_info(&cpu);
    const size_t beyond = WHOLE_L3 * cpu.l3_bytes, most = mq__memory_available() / 4;
    size_t whole = most_bytes(WHOLE, beyond < WHOLE_MOST ? beyond : WHOLE_MOST);
    if (whole > most) whole = WHOLE;
    const size_t each = most_bytes(PART, whole / (size_t)threads / PIECE * PIECE);
    *trial = NULL;
    if (each * (size_t)threads > most) return MQ_OK;
    mq_trial *t = mq__alloc_zero(1, sizeof *t);
    if (!t) return mq__fail(error, MQ_NO_MEMORY, "cpu: work to measure: expected memory, got none");
    t->part = each;
    t->threads = (size_t)threads;
    t->thread = mq__alloc_zero((size_t)threads, sizeof *t->thread);
    t->block = mq__alloc_aligned(each * (size_t)threads);
    bool ok = t->thread && t->block;
    for (int i = 0; ok && i < threads; i++) {
        t->thread[i].memory = t->block + (size_t)i * each;
        ok = thread_new(&t->thread[i], level);
    }
    mq_status status = ok ? mq__pool_new(threads, &t->pool, error)
                          : mq__fail(error, MQ_NO_MEMORY, "cpu: work to measure: expected memory, got none");
    if (status != MQ_OK) {
        mq__trial_free(t);
        return status;
    }
    mq__pool_run(t->pool, touch_part, t);
    *trial = t;
    return MQ_OK;
}

void mq__trial_free(mq_trial *t)
{
    if (!t) return;
    for (size_t i = 0; t->thread && i < t->threads; i++) {
        void *const blocks[] = {t->thread[i].x, t->thread[i].y, t->thread[i].packed, t->thread[i].multiplier,
                                t->thread[i].scratch};
        for (size_t b = 0; b < sizeof blocks / sizeof blocks[0]; b++)
            mq__free_aligned(blocks[b]);
    }
    mq__pool_free(t->pool);
    mq__free_aligned(t->block);
    mq__free(t->thread);
    mq__free(t);
}

static bool is_alone(const mq_trial *t)
{
    return t->work == MQ_WORK_THIN_LONG_ALONE || t->work == MQ_WORK_NVFP4_ROW_ALONE;
}

/* The next piece of the thread's memory; the first thread alone has all of it. */
static const void *next_piece(mq_trial *t, trial_thread *own)
{
    const size_t end = is_alone(t) ? t->part * t->threads : t->part;
    own->at = own->at + PIECE < end ? own->at + PIECE : 0;
    return own->memory + own->at;
}

static void run_row(mq_trial *t, trial_thread *own)
{
    const mq_kernels *k = t->kernels;
    const void *weights = next_piece(t, own);
    const mq_epilogue out = {.y = own->y, .ldy = (size_t)TALL_ROWS * K_WIDTH};
    if (t->work <= MQ_WORK_THIN_LONG_ALONE) {
        const uint32_t width = t->work == MQ_WORK_THIN ? K_WIDTH : LONG_K, n = PIECE / 2 / width;
        const mq_dense w = {weights, MQ_DENSE_BF16, n, width};
        k->dense_thin(own->x, width, 1, &w, 0, n, &out, own->scratch);
    } else if (t->work <= MQ_WORK_NVFP4_ROW_ALONE) {
        const size_t panels = PIECE / mq__nvfp4_panel_bytes(MQ_NVFP4_NR, K_WIDTH);
        const mq_nvfp4 w = {weights, (uint32_t)panels * MQ_NVFP4_NR, K_WIDTH, K_WIDTH / MQ_NVFP4_BLOCK, 1};
        const mq_nvfp4_rows rows = {own->packed, own->multiplier};
        k->nvfp4_quantize(own->x, K_WIDTH, 0, 1, K_WIDTH, &rows);
        k->nvfp4_gemm(&rows, 1, &w, 0, panels, &out, own->scratch);
    } else {
        const size_t panels = PIECE / mq__int8_panel_bytes(MQ_INT8_NR, K_WIDTH);
        const mq_int8 w = {weights, (uint32_t)panels * MQ_INT8_NR, K_WIDTH, K_WIDTH / MQ_INT8_GROUP};
        const mq_int8_rows rows = {own->packed};
        k->int8_quantize(own->x, K_WIDTH, 0, 1, K_WIDTH, &rows);
        k->int8_gemm(&rows, 1, &w, 0, panels, &out, own->scratch);
    }
}

static void run_tall(mq_trial *t, trial_thread *own)
{
    enum { N = K_WIDTH, GROUPS = TALL_ROWS / MQ_DENSE_MR };
    const mq_kernels *k = t->kernels;
    const mq_epilogue out = {.y = own->y, .ldy = N};
    const void *weights = next_piece(t, own);
    const mq_dense dense = {weights, MQ_DENSE_BF16, N, K_WIDTH};
    float *panels = (float *)(void *)own->packed;
    if (t->work == MQ_WORK_NVFP4) {
        const mq_nvfp4 w = {weights, N, K_WIDTH, K_WIDTH / MQ_NVFP4_BLOCK, 1};
        const mq_nvfp4_rows rows = {own->packed, own->multiplier};
        k->nvfp4_quantize(own->x, K_WIDTH, 0, TALL_ROWS, K_WIDTH, &rows);
        k->nvfp4_gemm(&rows, TALL_ROWS, &w, 0, N / MQ_NVFP4_NR, &out, own->scratch);
    } else if (t->work == MQ_WORK_INT8) {
        const mq_int8 w = {weights, N, K_WIDTH, K_WIDTH / MQ_INT8_GROUP};
        const mq_int8_rows rows = {own->packed};
        k->int8_quantize(own->x, K_WIDTH, 0, TALL_ROWS, K_WIDTH, &rows);
        k->int8_gemm(&rows, TALL_ROWS, &w, 0, N / MQ_INT8_NR, &out, own->scratch);
    } else if (t->work == MQ_WORK_W16A16) {
        k->bf16_pack_rows(own->x, K_WIDTH, TALL_ROWS, K_WIDTH, 0, GROUPS, panels);
        k->bf16_gemm(panels, TALL_ROWS, &dense, 0, N, &out, own->scratch);
    } else {
        k->dense_pack_rows(own->x, K_WIDTH, TALL_ROWS, K_WIDTH, 0, GROUPS, panels);
        if (t->work == MQ_WORK_W4A16) {
            const mq_nvfp4 w = {weights, N, K_WIDTH, K_WIDTH / MQ_NVFP4_BLOCK, 1};
            k->w4a16_gemm(panels, TALL_ROWS, &w, 0, N / MQ_NVFP4_NR, &out, own->scratch);
        } else {
            k->dense_gemm(panels, TALL_ROWS, &dense, 0, N, &out, own->scratch);
        }
    }
}

/* `count` pages of `kv_heads` heads in the next piece. */
static void lay_pages(mq_trial *t, trial_thread *own, uint16_t **page, size_t count, size_t kv_heads)
{
    uint8_t *memory = own->memory + ((const uint8_t *)next_piece(t, own) - own->memory);
    for (size_t i = 0; i < count; i++)
        page[i] = (uint16_t *)(void *)(memory + i * kv_heads * 2 * MQ_PAGE_TOKENS * WIDTH * sizeof **page);
}

static mq_attention attention_of(const trial_thread *own, uint16_t *const *page, uint32_t first, uint32_t rows)
{
    return (mq_attention){.kv = {page, 0, (size_t)MQ_PAGE_TOKENS * WIDTH, WIDTH},
                          .q = own->x,
                          .out = own->y,
                          .q_stride = K_WIDTH,
                          .out_stride = K_WIDTH,
                          .heads = HEADS,
                          .first = first,
                          .rows = rows,
                          .scale = 1 / sqrtf(WIDTH),
                          .scratch = own->scratch};
}

static void run_span(mq_trial *t, trial_thread *own)
{
    enum { PAGES = MQ_SPAN_TOKENS / MQ_PAGE_TOKENS, PARTIAL = HEADS * (WIDTH + 2) };
    _Static_assert(PAGES * MQ_DECODE_KV_HEADS * 2 * MQ_PAGE_TOKENS * WIDTH * 2 <= PIECE, "a span is a piece");
    uint16_t *page[PAGES];
    lay_pages(t, own, page, PAGES, MQ_DECODE_KV_HEADS);
    const mq_attention a = attention_of(own, page, MQ_SPAN_TOKENS - 1, 1);
    t->kernels->attention_decode_span(&a, MQ_DECODE_KV_HEADS, 0, own->y, PARTIAL, 0);
}

static void run_tile(mq_trial *t, trial_thread *own)
{
    enum { PAGES = (MQ_TRIAL_EARLIER + MQ_ATTENTION_TILE) / MQ_PAGE_TOKENS };
    _Static_assert(PAGES * 2 * MQ_PAGE_TOKENS * WIDTH * 2 <= PIECE, "a kv head's keys and values are a piece");
    _Static_assert(HEADS * WIDTH <= K_WIDTH && (int)MQ_ATTENTION_TILE <= (int)TALL_ROWS, "queries fit in x");
    uint16_t *page[PAGES];
    const bool far = t->work >= MQ_WORK_FAR_BF16;
    lay_pages(t, own, page, PAGES, 1);
    const mq_attention a = attention_of(own, page, far ? MQ_TRIAL_EARLIER : 0, MQ_ATTENTION_TILE);
    if (t->work == MQ_WORK_NEAR_INT8 || t->work == MQ_WORK_FAR_INT8)
        t->kernels->attention_prefill_int8(&a);
    else if (t->work == MQ_WORK_NEAR_W16A16 || t->work == MQ_WORK_FAR_W16A16)
        t->kernels->attention_prefill_bf16(&a);
    else
        t->kernels->attention_prefill(&a);
}

/* Of this thread alone: who else computes on the machine takes the processor away, and says nothing about kernels. */
static double thread_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void run_piece(mq_trial *t, trial_thread *own)
{
    if (t->work >= MQ_WORK_NEAR_BF16) {
        run_tile(t, own);
    } else if (t->work >= MQ_WORK_BF16) {
        run_tall(t, own);
    } else {
        for (int i = 0; i < ROW_TRIES; i++) {
            if (t->work == MQ_WORK_SPAN)
                run_span(t, own);
            else
                run_row(t, own);
        }
    }
}

static void run_work(void *context, int thread, int threads)
{
    mq_trial *t = context;
    trial_thread *own = &t->thread[thread];
    (void)threads;
    const double start = thread_seconds();
    if (thread == 0 || !is_alone(t)) run_piece(t, own);
    own->seconds = thread_seconds() - start;
}

void mq__trial_race(mq_trial *t, mq_contender *contenders, size_t count, int rounds, double deadline)
{
    for (size_t i = 0; i < count; i++)
        contenders[i].seconds = INFINITY;
    for (int round = 0; round < rounds && (round == 0 || mq__seconds() < deadline); round++) {
        for (size_t i = 0; i < count; i++) {
            mq_contender *c = &contenders[i];
            t->kernels = c->kernels;
            t->work = c->work;
            double seconds = 0; /* of the slowest thread */
            mq__pool_run(t->pool, run_work, t);
            for (size_t thread = 0; thread < t->threads; thread++)
                seconds = fmax(seconds, t->thread[thread].seconds);
            if (seconds < c->seconds) c->seconds = seconds;
        }
    }
}
