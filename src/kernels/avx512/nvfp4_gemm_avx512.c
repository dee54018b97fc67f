/* NVFP4 W4A4 GEMM, AVX-512 VNNI.
 *
 * The idea. Doubled E2M1 values are small integers, so the dot product of two blocks of 16 is an exact integer in quarter
 * units: four vpdpbusd for 16 features, activations as unsigned bytes (value + 12), weights signed. The int32 sums start
 * at the bits of the float 1.5*2^23, less 12*sum(w) for the offset: when the four are done the bits are the float
 * 12582912 + dot, without a conversion. One FMA with c = -12582912*sw leaves dot*sw exactly (12-bit integer times 4-bit
 * significand), a second one multiplies by the activation's scale and accumulates: the reference's arithmetic, bit for bit.
 *
 * Blocking: nvfp4_driver.h.
 *
 * Registers of micro_7x32: acc 14, t 14 (int32 sums of one block), w 2, activation broadcast 1 = 31.
 * Throughput of one block of 7 rows x 32 features: 56 vpdpbusd + 28 FMA on two ports = 42 cycles (a ceiling of 2.67 times
 * the FP32 FMA peak), 68 loads (34 cycles), 142 issue slots (36 cycles). Seven rows in one group: 14 chains hide the
 * latency of 5 where 10 rows in two groups of 5 would leave no slack and load each weight vector twice.
 *
 * Up to DIRECT_ROWS rows take a way of their own, from the cell to registers and out: 8 vectors of weights are unpacked with
 * 40 instructions and used by all rows of a group.
 *
 * One row turns the offset round: weights unsigned (value + 12), activations signed, so that what is taken off is a sum of activations,
 * once a block for all features, and the products broadcast from memory: 52 instructions for 288 bytes instead of 72.
 * Operands in L2: 45 GB/s of packed weights, 32 the other way round (Zen 4 class, one thread); it waits for memory.
 *
 * Measured, one thread, shared hosts, checkasm --bench nvfp4_gemm, in multiples of the FMA peak of the same moment, the seven
 * shapes of Qwen3 0.6B, 4B and 8B:
 *   2-core Zen 4 class, 3.6 GHz, peak 59 GMAC/s, commit 9993733: M=512 and 2048 2.50 to 2.59 at the median.
 *   Commit edcaa38: M=1 0.81 to 0.95 in quiet moments (26 GB/s of packed weights out of memory, of 28 that a thread can read;
 *   it was 0.34 to 0.59), M=4 1.75 to 1.9 (0.9 to 1.5), M=8 1.85 to 1.9, M=16 2.05 to 2.1 (1.7 to 2.1).
 *   2-core Cascade Lake class, 2.5 GHz, peak 76.6 GMAC/s, commit 5f6b6a1: operands in L1 2.5 (2.62 without the start and end
 *   of a call); M=512 2.17 to 2.28 at best, median of quiet moments 2.08 to 2.17; M=2048 2.09 to 2.22, 1.95 to 2.13. While
 *   a neighbour shares the core's issue slots it is 1.5 to 1.7. The gap to L1: unpacking 3%, y 3 to 5%, L2 5%. */
#include "kernels/nvfp4_driver.h"
#include "kernels/table.h"

#include <immintrin.h>

enum {
    SLICE = 16,             /* blocks of K unpacked at a time */
    HALF = MQ_NVFP4_NR / 2, /* features per vector */
    STREAMS = 4,            /* panels at a time then, at most */
    DIRECT_ROWS = 28,       /* up to so many, weights go from memory to registers, group by group */
    ONE_BLOCKS = 2048,      /* blocks of K of one row at most */
    AHEAD_BYTES = 4608,     /* prefetched then: 16 cells */
};

/* A weight cell as the micro-kernel reads it. */
typedef struct wide_cell {
    int8_t w[4][2][64];    /* [k/4][half of the features]: 2*e2m1 of 16 features x 4 k */
    uint32_t start[2][16]; /* bits of 1.5*2^23, minus 12*sum(w) */
    float sw[2][16];       /* block scales */
    float c[2][16];        /* -1.5*2^23 * sw */
} wide_cell;

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8") /* early: or else acc and t live on the stack */

static inline __m512i dot4_nvfp4_avx512(__m512i t, __m512i a, __m512i w)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(t) : "v"(a), "v"(w)); /* the intrinsic makes gcc 12 copy and spill t */
    return t;
}

/* acc + f * *s; one instruction, where the compiler would keep the broadcast of s in a register that is not there. */
INLINE void fma_broadcast_nvfp4_avx512(__m512 *acc, __m512 f, const float *s)
{
    __asm__("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(*acc) : "v"(f), "m"(*s));
}

/* A scale byte is the upper half of an F16 whose exponent is 8 too low; subnormal ones as well. */
static inline __m512 e4m3_to_f32_nvfp4_avx512(__m128i bytes)
{
    const __m256i half = _mm256_slli_epi16(_mm256_cvtepu8_epi16(bytes), 7);
    return _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256.0f));
}

/* A cell's weights as operands, w [4][2] as in wide_cell, and start [2]. */
INLINE void unpack(const uint8_t *cell, __m512i (*w)[2], __m512i *start)
{
    const __m512i table =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12));
    const __m512i low = _mm512_set1_epi8(15), offset = _mm512_set1_epi8(MQ_NVFP4_OFFSET);
    UNROLL
    for (int v = 0; v < 2; v++) {
        __m512i sum = _mm512_setzero_si512(); /* 12*sum(w) */
        UNROLL
        for (int h = 0; h < 2; h++) {
            const __m512i packed = _mm512_loadu_si512(cell + 128 * h + 64 * v);
            w[2 * h][v] = _mm512_shuffle_epi8(table, _mm512_and_si512(packed, low));
            w[2 * h + 1][v] = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(packed, 4), low));
            sum = dot4_nvfp4_avx512(dot4_nvfp4_avx512(sum, offset, w[2 * h][v]), offset, w[2 * h + 1][v]);
        }
        start[v] = _mm512_sub_epi32(_mm512_set1_epi32(0x4b400000), sum);
    }
}

INLINE __m512 block_scales(const uint8_t *cell, int v)
{
    return e4m3_to_f32_nvfp4_avx512(
        _mm_loadu_si128((const __m128i *)(const void *)(cell + MQ_NVFP4_CELL_SCALES + HALF * v)));
}

static void widen_nvfp4_avx512(const uint8_t *cell, size_t blocks, void *cells, const uint8_t *ahead)
{
    wide_cell *out = cells;
    for (size_t b = 0; b < blocks; b++, cell += MQ_NVFP4_CELL, ahead += MQ_NVFP4_CELL, out++) {
        for (int line = 0; line < MQ_NVFP4_CELL; line += 64)
            _mm_prefetch((const char *)ahead + line, _MM_HINT_T0);
        __m512i w[4][2], start[2];
        unpack(cell, w, start);
        UNROLL
        for (int v = 0; v < 2; v++) {
            UNROLL
            for (int j = 0; j < 4; j++)
                _mm512_store_si512(out->w[j][v], w[j][v]);
            const __m512 sw = block_scales(cell, v);
            _mm512_store_si512(out->start[v], start[v]);
            _mm512_store_ps(out->sw[v], sw);
            _mm512_store_ps(out->c[v], _mm512_mul_ps(sw, _mm512_set1_ps(-12582912.0f)));
        }
    }
}

/* acc [rows][2] += one block. */
INLINE void add_block_nvfp4_avx512(int rows, const uint8_t *a, const wide_cell *w, __m512 (*acc)[2])
{
    __m512i t[MQ_NVFP4_MR][2];
    UNROLL
    for (int j = 0; j < 4; j++) {
        const __m512i w0 = _mm512_load_si512(w->w[j][0]), w1 = _mm512_load_si512(w->w[j][1]);
        UNROLL
        for (int r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, a + r * MQ_NVFP4_BLOCK + 4 * j, sizeof four);
            const __m512i x = _mm512_set1_epi32(four);
            if (j == 0) {
                t[r][0] = _mm512_load_si512(w->start[0]);
                t[r][1] = _mm512_load_si512(w->start[1]);
            }
            t[r][0] = dot4_nvfp4_avx512(t[r][0], x, w0);
            t[r][1] = dot4_nvfp4_avx512(t[r][1], x, w1);
        }
    }
    const float *sa = (const float *)(const void *)(a + MQ_NVFP4_ROW_SCALES);
    UNROLL
    for (int v = 0; v < 2; v++) {
        const __m512 sw = _mm512_load_ps(w->sw[v]), c = _mm512_load_ps(w->c[v]);
        UNROLL
        for (int r = 0; r < rows; r++) {
            const __m512 exact = _mm512_fmadd_ps(_mm512_castsi512_ps(t[r][v]), sw, c); /* dot * sw */
            fma_broadcast_nvfp4_avx512(&acc[r][v], exact, sa + r);
        }
    }
}

INLINE void finish_nvfp4_avx512(int rows, const nvfp4_slice *s, size_t row, __m512 (*acc)[2])
{
    const size_t ldy = s->ldy;
    const float *scale = s->scale + row, *bias = s->bias;
    const uint32_t features = UINT32_MAX >> (MQ_NVFP4_NR - s->features);
    const __mmask16 mask[2] = {(__mmask16)features, (__mmask16)(features >> HALF)};
    const bool accumulate = s->accumulate;
    float *y = s->y + row * ldy;
    UNROLL
    for (int r = 0; r < rows; r++, y += ldy) {
        __m512 sum[2];
        UNROLL
        for (int v = 0; v < 2; v++)
            sum[v] = _mm512_mul_ps(acc[r][v], _mm512_set1_ps(scale[r]));
        if (bias) {
            for (int v = 0; v < 2; v++) {
                sum[v] = _mm512_add_ps(sum[v], _mm512_maskz_loadu_ps(mask[v], bias + HALF * v));
            }
        }
        if (accumulate) {
            for (int v = 0; v < 2; v++)
                sum[v] = _mm512_add_ps(sum[v], _mm512_maskz_loadu_ps(mask[v], y + HALF * v));
        }
        for (int v = 0; v < 2; v++)
            _mm512_mask_storeu_ps(y + HALF * v, mask[v], sum[v]);
    }
}

/* Rows [row, row + rows) of the pass; a: their group at the slice's first block. */
INLINE void micro_nvfp4_avx512(int rows, const nvfp4_slice *s, const uint8_t *a, size_t row, float (*tile)[MQ_NVFP4_NR])
{
    __m512 acc[MQ_NVFP4_MR][2];
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int v = 0; v < 2; v++)
            acc[r][v] = s->first ? _mm512_setzero_ps() : _mm512_load_ps(tile[r] + HALF * v);
    }
    const wide_cell *w = s->cells, *end = w + s->blocks;
    const char *next_a = (const char *)a + s->group_bytes, *next_tile = (const char *)tile[MQ_NVFP4_MR];
    do {
        _mm_prefetch(next_a, _MM_HINT_T0);
        _mm_prefetch(next_a + 64, _MM_HINT_T0);
        _mm_prefetch(next_tile, _MM_HINT_T0);
        add_block_nvfp4_avx512(rows, a, w, acc);
        next_a += MQ_NVFP4_ROW_CELL, next_tile += 64;
        a += MQ_NVFP4_ROW_CELL, w++;
    } while (w < end);
    UNROLL
    for (int r = 0; r < rows; r++) {
        __asm__ volatile("" : "+v"(acc[r][0]), "+v"(acc[r][1])); /* or gcc 12 copies all of acc in each round */
    }
    if (s->last) {
        finish_nvfp4_avx512(rows, s, row, acc);
        return;
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int v = 0; v < 2; v++)
            _mm512_store_ps(tile[r] + HALF * v, acc[r][v]);
    }
}

typedef void micro_kernel(const nvfp4_slice *s, const uint8_t *a, size_t row, float (*tile)[MQ_NVFP4_NR]);

#define MICRO(rows)                                                                                                    \
    static __attribute__((noinline)) void micro_##rows##x32(const nvfp4_slice *s, const uint8_t *a, size_t row,        \
                                                            float(*tile)[MQ_NVFP4_NR])                                 \
    {                                                                                                                  \
        micro_nvfp4_avx512(rows, s, a, row, tile);                                                                     \
    }
MICRO(1)
MICRO(2)
MICRO(3)
MICRO(4)
MICRO(5)
MICRO(6)
MICRO(7)
static micro_kernel *const micro_kernels[MQ_NVFP4_MR + 1] = {NULL,       micro_1x32, micro_2x32, micro_3x32,
                                                             micro_4x32, micro_5x32, micro_6x32, micro_7x32};

static void run_slice_nvfp4_avx512(const nvfp4_slice *s, size_t rows, const uint8_t *a, float (*tile)[MQ_NVFP4_NR],
                                   const uint8_t *packed)
{
    for (size_t row = 0; row < rows; row += MQ_NVFP4_MR) {
        const size_t n = rows - row < MQ_NVFP4_MR ? rows - row : MQ_NVFP4_MR;
        mq__nvfp4_prefetch(s->y + row * s->ldy, s->ldy, s->last ? n : 0, packed);
        micro_kernels[n](s, a, row, tile + row);
        a += s->group_bytes, packed += 128;
    }
}

/* acc [rows][2] += one block, its weights straight from the cell. */
INLINE void add_cell(int rows, const uint8_t *a, const uint8_t *cell, __m512 (*acc)[2])
{
    __m512i w[4][2], start[2];
    UNROLL
    for (int line = 0; line < 5; line++)
        _mm_prefetch((const char *)cell + AHEAD_BYTES + 64 * line, _MM_HINT_T0);
    unpack(cell, w, start);
    const __m512 sw[2] = {block_scales(cell, 0), block_scales(cell, 1)};
    const __m512 c[2] = {_mm512_mul_ps(sw[0], _mm512_set1_ps(-12582912.0f)),
                         _mm512_mul_ps(sw[1], _mm512_set1_ps(-12582912.0f))};
    const float *sa = (const float *)(const void *)(a + MQ_NVFP4_ROW_SCALES);
    UNROLL
    for (int r = 0; r < rows; r++) {
        __m512i t[2] = {start[0], start[1]};
        UNROLL
        for (int j = 0; j < 4; j++) {
            int32_t four;
            memcpy(&four, a + r * MQ_NVFP4_BLOCK + 4 * j, sizeof four);
            const __m512i x = _mm512_set1_epi32(four);
            t[0] = dot4_nvfp4_avx512(t[0], x, w[j][0]);
            t[1] = dot4_nvfp4_avx512(t[1], x, w[j][1]);
        }
        UNROLL
        for (int v = 0; v < 2; v++)
            fma_broadcast_nvfp4_avx512(&acc[r][v], _mm512_fmadd_ps(_mm512_castsi512_ps(t[v]), sw[v], c[v]), sa + r);
    }
}

/* Rows of one group through `streams` whole panels, `apart` bytes from each other in memory. a: the group. */
INLINE void direct(int rows, int streams, const nvfp4_slice *s, const uint8_t *a, size_t row, const uint8_t *cell,
                   size_t apart)
{
    __m512 acc[STREAMS][MQ_NVFP4_MR][2];
    UNROLL
    for (int i = 0; i < streams; i++) {
        UNROLL
        for (int r = 0; r < rows; r++)
            acc[i][r][0] = acc[i][r][1] = _mm512_setzero_ps();
    }
    for (size_t b = 0; b < s->blocks; b++, cell += MQ_NVFP4_CELL, a += MQ_NVFP4_ROW_CELL) {
        UNROLL
        for (int i = 0; i < streams; i++)
            add_cell(rows, a, cell + (size_t)i * apart, acc[i]);
    }
    UNROLL
    for (int i = 0; i < streams; i++)
        finish_nvfp4_avx512(rows, s + i, row, acc[i]);
}

typedef void direct_kernel(const nvfp4_slice *s, const uint8_t *a, size_t row, const uint8_t *cell, size_t apart);

#define DIRECT(rows, streams)                                                                                          \
    static __attribute__((noinline)) void direct_##rows##_##streams(const nvfp4_slice *s, const uint8_t *a,            \
                                                                    size_t row, const uint8_t *cell, size_t apart)     \
    {                                                                                                                  \
        direct(rows, streams, s, a, row, cell, apart);                                                                 \
    }
DIRECT(2, 2)
DIRECT(1, 1)
DIRECT(2, 1)
DIRECT(3, 1)
DIRECT(4, 1)
DIRECT(5, 1)
DIRECT(6, 1)
DIRECT(7, 1)
static direct_kernel *const direct_kernels[MQ_NVFP4_MR + 1] = {NULL,       direct_1_1, direct_2_1, direct_3_1,
                                                               direct_4_1, direct_5_1, direct_6_1, direct_7_1};

/* ------------------------------------------------------------------ one row */

/* A block of the row's activations. */
typedef struct one_block {
    int8_t a[MQ_NVFP4_BLOCK];
    uint32_t start; /* bits of 1.5*2^23, minus 12*sum(a) */
    float scale;
    uint32_t unused[2];
} one_block;
_Static_assert(ONE_BLOCKS * sizeof(one_block) <= MQ_NVFP4_BATCH * NVFP4_PASS_ROWS * MQ_NVFP4_NR * sizeof(float),
               "a row fits the scratch memory");

static void fill_one(const uint8_t *a, size_t blocks, one_block *out)
{
    for (size_t b = 0; b < blocks; b++, a += MQ_NVFP4_ROW_CELL) {
        int sum = 0;
        for (int k = 0; k < MQ_NVFP4_BLOCK; k++) {
            out[b].a[k] = (int8_t)(a[k] - MQ_NVFP4_OFFSET);
            sum += out[b].a[k];
        }
        out[b].start = 0x4b400000u - (uint32_t)(MQ_NVFP4_OFFSET * sum);
        memcpy(&out[b].scale, a + MQ_NVFP4_ROW_SCALES, sizeof out[b].scale);
    }
}

INLINE __m512i dot4_broadcast_nvfp4_avx512(__m512i t, __m512i w, const int8_t *a)
{
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(t) : "v"(w), "m"(*(const int32_t(*)[1])(const void *)a));
    return t;
}

/* acc [2] += one block. */
INLINE void add_one(const one_block *x, const uint8_t *cell, size_t ahead, __m512 *acc)
{
    const __m512i table =
        _mm512_broadcast_i32x4(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    const __m512i low = _mm512_set1_epi8(15);
    UNROLL
    for (int line = 0; line < 5 && ahead; line++)
        _mm_prefetch((const char *)cell + ahead + 64 * line, _MM_HINT_T0);
    UNROLL
    for (int v = 0; v < 2; v++) {
        __m512i t = _mm512_set1_epi32((int32_t)x->start);
        UNROLL
        for (int h = 0; h < 2; h++) {
            const __m512i packed = _mm512_loadu_si512(cell + 128 * h + 64 * v);
            const __m512i lows = _mm512_and_si512(packed, low);
            const __m512i highs = _mm512_and_si512(_mm512_srli_epi16(packed, 4), low);
            t = dot4_broadcast_nvfp4_avx512(t, _mm512_shuffle_epi8(table, lows), x->a + 8 * h);
            t = dot4_broadcast_nvfp4_avx512(t, _mm512_shuffle_epi8(table, highs), x->a + 8 * h + 4);
        }
        const __m512 sw = block_scales(cell, v),
                     dot = _mm512_sub_ps(_mm512_castsi512_ps(t), _mm512_set1_ps(12582912.0f));
        fma_broadcast_nvfp4_avx512(&acc[v], _mm512_mul_ps(dot, sw), &x->scale);
    }
}

INLINE void one_row(int streams, const nvfp4_slice *s, const one_block *x, const uint8_t *cell, size_t apart,
                    size_t ahead)
{
    __m512 acc[STREAMS][1][2];
    UNROLL
    for (int i = 0; i < streams; i++)
        acc[i][0][0] = acc[i][0][1] = _mm512_setzero_ps();
    for (size_t b = 0; b < s->blocks; b++, cell += MQ_NVFP4_CELL) {
        UNROLL
        for (int i = 0; i < streams; i++)
            add_one(x + b, cell + (size_t)i * apart, ahead, acc[i][0]);
    }
    UNROLL
    for (int i = 0; i < streams; i++)
        finish_nvfp4_avx512(1, s + i, 0, acc[i]);
}

static __attribute__((noinline)) void one_row_4(const nvfp4_slice *s, const one_block *x, const uint8_t *cell,
                                                size_t apart, size_t ahead)
{
    one_row(4, s, x, cell, apart, ahead);
}

static __attribute__((noinline)) void one_row_1(const nvfp4_slice *s, const one_block *x, const uint8_t *cell,
                                                size_t ahead)
{
    one_row(1, s, x, cell, 0, ahead);
}

static void run_one(const mq_nvfp4_rows *a, const mq_nvfp4 *w, size_t p0, size_t p1, const mq_epilogue *out,
                    one_block *x, size_t ahead)
{
    const size_t each = ahead ? (p1 - p0) / STREAMS : 0, apart = each * w->blocks * MQ_NVFP4_CELL;
    const float scale = 0.25f * a->multiplier[0] * w->multiplier;
    nvfp4_slice s[STREAMS];
    fill_one(a->panels, w->blocks, x);
    for (size_t i = 0; i < STREAMS; i++)
        s[i] = (nvfp4_slice){.blocks = w->blocks, .scale = &scale};
    for (size_t p = p0; p < p0 + each; p++) {
        for (size_t i = 0; i < STREAMS; i++)
            mq__nvfp4_set_output(&s[i], w, p + i * each, out, 0);
        one_row_4(s, x, mq__nvfp4_panel(w, p), apart, ahead);
    }
    for (size_t p = p0 + each * STREAMS; p < p1; p++) {
        mq__nvfp4_set_output(s, w, p, out, 0);
        one_row_1(s, x, mq__nvfp4_panel(w, p), ahead);
    }
}

/* ------------------------------------------------------------------ few rows */

/* One or two rows wait for memory: several panels far apart at a time are streams that the processor fetches ahead. More
 * rows are limited by arithmetic. */
static void few_rows(const mq_nvfp4_rows *a, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                     const mq_epilogue *out)
{
    float scale[DIRECT_ROWS];
    for (size_t r = 0; r < rows; r++)
        scale[r] = 0.25f * a->multiplier[r] * w->multiplier;
    const size_t group_bytes = w->blocks * MQ_NVFP4_ROW_CELL;
    nvfp4_slice s[STREAMS];
    for (size_t i = 0; i < STREAMS; i++)
        s[i] = (nvfp4_slice){.blocks = w->blocks, .group_bytes = group_bytes, .scale = scale};
    const size_t streams = rows == 2 ? 2 : 1, each = (p1 - p0) / streams;
    if (streams > 1) {
        for (size_t p = p0; p < p0 + each; p++) {
            for (size_t i = 0; i < streams; i++)
                mq__nvfp4_set_output(&s[i], w, p + i * each, out, 0);
            direct_2_2(s, a->panels, 0, mq__nvfp4_panel(w, p), each * w->blocks * MQ_NVFP4_CELL);
        }
        p0 += each * streams;
    }
    for (size_t p = p0; p < p1; p++) {
        mq__nvfp4_set_output(s, w, p, out, 0);
        for (size_t row = 0; row < rows; row += MQ_NVFP4_MR) {
            const size_t n = rows - row < MQ_NVFP4_MR ? rows - row : MQ_NVFP4_MR;
            direct_kernels[n](s, a->panels + row / MQ_NVFP4_MR * group_bytes, row, mq__nvfp4_panel(w, p), 0);
        }
    }
}

static const nvfp4_core core = {.slice = SLICE, .widen = widen_nvfp4_avx512, .rows = run_slice_nvfp4_avx512};
_Static_assert(SLICE * sizeof(wide_cell) <= NVFP4_CELLS, "a slice fits the scratch memory");

static void gemm_nvfp4_avx512(const mq_nvfp4_rows *a, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                              const mq_epilogue *out, void *scratch, size_t ahead)
{
    if (rows == 1 && w->blocks <= ONE_BLOCKS) {
        run_one(a, w, p0, p1, out, scratch, ahead);
    } else if (rows <= DIRECT_ROWS) {
        few_rows(a, rows, w, p0, p1, out);
    } else {
        mq__nvfp4_run(&core, a, rows, w, p0, p1, out, scratch);
    }
}

/* One row by four streams with prefetches, or by one without. A Zen 4's own prefetchers do better undisturbed (dense_thin_avx512.c), and
 * follow one stream best when outputs are stored in between (docs/perf/2026-12-zen4.md): in decode steps a thread reads 0.84 of its
 * bandwidth then, and 0.66 otherwise. 4 rows and more want prefetches there, too. */
static void ahead_nvfp4_avx512(const mq_nvfp4_rows *a, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                               const mq_epilogue *out, void *scratch)
{
    gemm_nvfp4_avx512(a, rows, w, p0, p1, out, scratch, AHEAD_BYTES);
}

static void plain_nvfp4_avx512(const mq_nvfp4_rows *a, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                               const mq_epilogue *out, void *scratch)
{
    gemm_nvfp4_avx512(a, rows, w, p0, p1, out, scratch, 0);
}

void mq__fill_avx512_nvfp4(mq_kernels *table)
{
    static const mq_variant gemm[] = {MQ_VARIANT("ahead", ahead_nvfp4_avx512), MQ_VARIANT("plain", plain_nvfp4_avx512)};
    const size_t need = mq__nvfp4_scratch_bytes();
    table->nvfp4_quantize = mq__nvfp4_quantize_avx512;
    mq__variants_set(table, MQ_NVFP4_GEMM, gemm, 2);
    if (table->gemm_scratch_bytes < need) table->gemm_scratch_bytes = need;
}
