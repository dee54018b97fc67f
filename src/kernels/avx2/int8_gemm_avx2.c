/* INT8 W8A8 GEMM, AVX2.
 *
 * The idea. Two products of bytes do not fit the 16 bits of vpmaddubsw; |a| * (w with a's sign) fits, but takes four instructions
 * for 32 products, three of them on the two ports that multiply. So operands are widened to 16 bits, and Winograd's identity makes
 * two products of one multiplication:
 *
 *     (a0 + w1) * (a1 + w0) = a0*w0 + a1*w1 + a0*a1 + w0*w1
 *
 * Two vpaddw, one vpmaddwd, one vpaddd: four instructions as well, but one of them multiplies. The sums of a0*a1 and w0*w1 of a
 * group depend on the row or on the feature alone and are taken out where the sum begins; all is exact modulo 2^32.
 *
 * Even bytes of a packed cell are k and k + 2 of a feature, odd bytes k + 1 and k + 3: two shifts widen them, and the same
 * happens to rows. The driver arranges rows once for all panels of a batch.
 *
 * As in int8_gemm_avxvnni.c a sum begins at the bits of 1.5*2^23, two FMAs scale and accumulate, and the sums of earlier groups
 * wait in the tile, in L1.
 *
 * Registers of micro_4x32: t 8, w 4, the operands of a row 4; at the end of a group t 8, sw 2, c 2, scale 1.
 * Throughput of four k of 4 rows x 16 features: 32 operations on four ports = 8 cycles, where FP32 needs 16; 12 loads, 44 of 48
 * issue slots. One group: 512 + 8 + 16 operations = 134 cycles (1.91 times the FMA peak at best).
 *
 * Up to a row group, reading the weights is what takes time: they are read in one stream, as they are packed, row by row.
 *
 * Measured (2-core Zen 3 class, one thread, shared host; checkasm --bench int8_gemm) in multiples of the FMA peak: operands in L1
 * 1.58; seven shapes of Qwen3, M = 512 and 2048, 1.42 to 1.50 in quiet moments, about 1.0 while a neighbour shares the core. */
#include "kernels/avx2/int8_avx2.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

enum {
    STEP = 4,  /* rows at a time */
    SLICE = 4, /* groups of K: 17.5 KiB of arranged weights */
};

/* A weight cell as the micro-kernel reads it. */
typedef struct wide_cell {
    int16_t w[2][MQ_INT8_GROUP / 4][4][16]; /* [half of the features][k/4][even k, odd k; 8 features each] */
    int32_t start[MQ_INT8_NR];              /* 0x4b400000 - sum(w0*w1) */
    float sw[MQ_INT8_NR];
    float c[MQ_INT8_NR]; /* -1.5*2^23 * sw */
} wide_cell;

/* One group of STEP rows. */
typedef struct wide_rows {
    int16_t a[STEP][MQ_INT8_GROUP / 4][2][2]; /* [row][k/4][even k, odd k] */
    int32_t start[STEP];                      /* -sum(a0*a1) */
    float scale[STEP];
} wide_rows;

_Static_assert(SLICE * sizeof(wide_cell) <= INT8_SLICE * INT8_ARRANGED, "a slice fits the scratch memory");
_Static_assert(INT8_PASS_ROWS % STEP == 0, "whole steps");

INLINE __m256i load_int8_avx2(const void *at)
{
    return _mm256_load_si256((const __m256i *)at);
}

/* Words of the even and of the odd bytes. */
INLINE void widen_int8_avx2(__m256i bytes, __m256i *even, __m256i *odd)
{
    *even = _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8);
    *odd = _mm256_srai_epi16(bytes, 8);
}

static void arrange_int8_avx2(const uint8_t *cells, size_t groups, uint8_t *arranged)
{
    wide_cell *out = (wide_cell *)(void *)arranged;
    for (size_t g = 0; g < groups; g++, cells += MQ_INT8_CELL, out++) {
        for (size_t v = 0; v < 4; v++) {
            __m256i start = _mm256_set1_epi32(MQ_INT8_MAGIC);
            for (size_t j = 0; j < MQ_INT8_GROUP / 4; j++) {
                __m256i even, odd;
                widen_int8_avx2(load_int8_avx2(cells + 128 * j + 32 * v), &even, &odd);
                _mm256_store_si256((__m256i *)(void *)out->w[v / 2][j][v % 2], even);
                _mm256_store_si256((__m256i *)(void *)out->w[v / 2][j][v % 2 + 2], odd);
                start = _mm256_sub_epi32(start, _mm256_madd_epi16(even, odd));
            }
            _mm256_store_si256((__m256i *)(void *)(out->start + 8 * v), start);
            const __m256 sw = _mm256_load_ps((const float *)(const void *)(cells + MQ_INT8_CELL_SCALES) + 8 * v);
            _mm256_store_ps(out->sw + 8 * v, sw);
            _mm256_store_ps(out->c + 8 * v, _mm256_mul_ps(sw, _mm256_set1_ps(-12582912.0f)));
        }
    }
}

/* One group of one row. */
INLINE void arrange_row_int8_avx2(const uint8_t *codes, int16_t (*a)[2][2], int32_t *start)
{
    __m256i sum = _mm256_setzero_si256();
    for (size_t i = 0; i < 2; i++) {
        const __m256i bytes = _mm256_loadu_si256((const __m256i *)(const void *)(codes + 32 * i));
        __m256i even, odd;
        widen_int8_avx2(_mm256_xor_si256(bytes, _mm256_set1_epi8((char)MQ_INT8_OFFSET)), &even, &odd);
        sum = _mm256_sub_epi32(sum, _mm256_madd_epi16(even, odd));
        const __m256i low = _mm256_unpacklo_epi32(even, odd), high = _mm256_unpackhi_epi32(even, odd);
        __m256i *to = (__m256i *)(void *)a[8 * i];
        _mm256_storeu_si256(to, _mm256_permute2x128_si256(low, high, 0x20));
        _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(low, high, 0x31));
    }
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    *start = _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

static void arrange_rows_int8_avx2(const uint8_t *cells, size_t group_bytes, size_t rows, size_t groups,
                                   uint8_t *arranged)
{
    wide_rows *out = (wide_rows *)(void *)arranged;
    for (size_t m = 0; m < rows; m++) {
        const size_t r = m % MQ_INT8_MR, to = m % STEP;
        const uint8_t *cell = cells + m / MQ_INT8_MR * group_bytes;
        for (size_t g = 0; g < groups; g++, cell += MQ_INT8_ROW_CELL) {
            wide_rows *wide = out + m / STEP * groups + g;
            _mm_prefetch((const char *)cell + group_bytes + r * MQ_INT8_GROUP, _MM_HINT_T0);
            if (r == 0) _mm_prefetch((const char *)cell + group_bytes + MQ_INT8_ROW_SCALES, _MM_HINT_T0);
            arrange_row_int8_avx2(cell + r * MQ_INT8_GROUP, wide->a[to], &wide->start[to]);
            memcpy(&wide->scale[to], cell + MQ_INT8_ROW_SCALES + 4 * r, sizeof(float));
        }
    }
}

/* As asm, or gcc 12 reads the vector once for each use. */
INLINE __m256i load_once_int8_avx2(const int16_t *at)
{
    __m256i v;
    __asm__ volatile("vmovdqa %1, %0" : "=x"(v) : "m"(*(const __m256i *)(const void *)at));
    return v;
}

/* t [16 features] += four k of one row. w: even k, odd k. As asm, or gcc 12 regroups the sums and spills. */
INLINE void dot4_int8_avx2(__m256i t[2], const int16_t (*a)[2], const __m256i w[4])
{
    __m256i even, odd, x, y;
    __asm__("vpbroadcastd %6, %2\n\t"
            "vpbroadcastd %7, %3\n\t"
            "vpaddw %10, %2, %4\n\t"
            "vpaddw %8, %3, %5\n\t"
            "vpaddw %11, %2, %2\n\t"
            "vpaddw %9, %3, %3\n\t"
            "vpmaddwd %5, %4, %4\n\t"
            "vpmaddwd %3, %2, %2\n\t"
            "vpaddd %4, %0, %0\n\t"
            "vpaddd %2, %1, %1"
            : "+x"(t[0]), "+x"(t[1]), "=&x"(even), "=&x"(odd), "=&x"(x), "=&x"(y)
            : "m"(*(const int32_t *)(const void *)a[0]), "m"(*(const int32_t *)(const void *)a[1]), "x"(w[0]),
              "x"(w[1]), "x"(w[2]), "x"(w[3]));
}

/* sum [rows][16 of 32] += one group. */
INLINE void add_group_int8_avx2(int rows, const wide_rows *a, const wide_cell *cell, size_t half,
                                float (*sum)[MQ_INT8_NR])
{
    __m256i t[STEP][2];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        const __m256i start = _mm256_set1_epi32(a->start[r]);
        t[r][0] = _mm256_add_epi32(start, load_int8_avx2(cell->start + 16 * half));
        t[r][1] = _mm256_add_epi32(start, load_int8_avx2(cell->start + 16 * half + 8));
    }
#pragma GCC unroll 2
    for (size_t j = 0; j < MQ_INT8_GROUP / 4; j++) {
        const int16_t(*from)[16] = cell->w[half][j];
        const __m256i w[4] = {load_once_int8_avx2(from[0]), load_once_int8_avx2(from[1]), load_once_int8_avx2(from[2]),
                              load_once_int8_avx2(from[3])};
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
            dot4_int8_avx2(t[r], a->a[r][j], w);
    }
#pragma GCC unroll 2
    for (size_t v = 0; v < 2; v++) {
        const __m256 sw = _mm256_load_ps(cell->sw + 16 * half + 8 * v);
        const __m256 c = _mm256_load_ps(cell->c + 16 * half + 8 * v);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            float *to = sum[r] + 16 * half + 8 * v;
            const __m256 scaled = _mm256_fmadd_ps(_mm256_castsi256_ps(t[r][v]), sw, c); /* round(dot * sw) */
            _mm256_store_ps(to, _mm256_fmadd_ps(scaled, _mm256_broadcast_ss(a->scale + r), _mm256_load_ps(to)));
        }
    }
}

#define MICRO(rows)                                                                                                    \
    static __attribute__((noinline)) void micro_##rows##x32(const int8_slice *s, const wide_rows *a,                   \
                                                            float(*sum)[MQ_INT8_NR])                                   \
    {                                                                                                                  \
        const wide_cell *cells = (const wide_cell *)(const void *)s->cells;                                            \
        for (size_t half = 0; half < 2; half++) {                                                                      \
            for (size_t g = 0; g < s->groups; g++) {                                                                   \
                _mm_prefetch((const char *)(sum + STEP + 2 * half) + 64 * g, _MM_HINT_T0); /* the next step's */       \
                add_group_int8_avx2(rows, a + g, cells + g, half, sum);                                                \
                __asm__ volatile("" ::: "memory"); /* or gcc 12 keeps copies of the sums */                            \
            }                                                                                                          \
        }                                                                                                              \
    }
MICRO(1)
MICRO(2)
MICRO(3)
MICRO(4)

static void run_int8_avx2(const int8_slice *s, size_t rows, const uint8_t *a, float (*tile)[MQ_INT8_NR])
{
    static void (*const kernels[])(const int8_slice *, const wide_rows *,
                                   float(*)[MQ_INT8_NR]) = {micro_1x32, micro_2x32, micro_3x32, micro_4x32};
    if (s->first) memset(tile, 0, rows * sizeof *tile);
    kernels[rows - 1](s, (const wide_rows *)(const void *)a, tile);
    for (size_t r = 0; s->last && r < rows; r++) {
        mq__int8_finish_avx2(s, s->y + r * s->ldy, tile[r]);
    }
}

/* acc [4] += one group of one row from packed cells: |a| * (w with a's sign) does not saturate, its pairs are at most
 * 2*127*127. Registers of one row x 32 features: sums 4, int32 4, activation 2, ones 1, weights and products 4 = 15. */
INLINE void add_row_group_int8_avx2(const uint8_t *a, float sa, const uint8_t *w, __m256 acc[4])
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i t[4];
    for (int v = 0; v < 4; v++)
        t[v] = _mm256_setzero_si256();
    for (size_t j = 0; j < MQ_INT8_GROUP / 4; j++) {
        int32_t four;
        memcpy(&four, a + 4 * j, sizeof four);
        const __m256i x = _mm256_xor_si256(_mm256_set1_epi32(four), _mm256_set1_epi8((char)MQ_INT8_OFFSET));
        const __m256i magnitude = _mm256_abs_epi8(x);
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++) {
            const __m256i weights = load_int8_avx2(w + 128 * j + 32 * v);
            const __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(weights, x));
            t[v] = _mm256_add_epi32(t[v], _mm256_madd_epi16(pairs, ones));
        }
    }
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; v++) {
        const __m256 sw = _mm256_load_ps((const float *)(const void *)(w + MQ_INT8_CELL_SCALES + 32 * v));
        const __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(t[v]), sw);
        acc[v] = _mm256_fmadd_ps(scaled, _mm256_set1_ps(sa), acc[v]);
    }
}

/* A whole panel, row by row. */
static void run_few_int8_avx2(const int8_slice *s, size_t rows, const uint8_t *a, float (*tile)[MQ_INT8_NR])
{
    for (size_t r = 0; r < rows; r++) {
        __m256 acc[4];
        for (size_t v = 0; v < 4; v++)
            acc[v] = _mm256_setzero_ps();
        for (size_t g = 0; g < s->groups; g++) {
            const uint8_t *cell = a + g * MQ_INT8_ROW_CELL;
            float sa;
            memcpy(&sa, cell + MQ_INT8_ROW_SCALES + 4 * r, sizeof sa);
            add_row_group_int8_avx2(cell + r * MQ_INT8_GROUP, sa, s->cells + g * MQ_INT8_CELL, acc);
        }
        for (size_t v = 0; v < 4; v++)
            _mm256_store_ps(tile[r] + 8 * v, acc[v]);
        mq__int8_finish_avx2(s, s->y + r * s->ldy, tile[r]);
    }
}

void mq__int8_finish_avx2(const int8_slice *s, float *y, const float *sum)
{
    size_t f = 0;
    for (; f + 8 <= s->features; f += 8) {
        __m256 value = _mm256_loadu_ps(sum + f);
        if (s->bias) value = _mm256_add_ps(value, _mm256_loadu_ps(s->bias + f));
        if (s->accumulate) value = _mm256_add_ps(value, _mm256_loadu_ps(y + f));
        _mm256_storeu_ps(y + f, value);
    }
    for (; f < s->features; f++) {
        const float value = s->bias ? sum[f] + s->bias[f] : sum[f];
        y[f] = s->accumulate ? value + y[f] : value;
    }
}

size_t mq__int8_scratch_bytes_avx2(void)
{
    return mq__int8_scratch_bytes() + INT8_PASS_ROWS / STEP * SLICE * sizeof(wide_rows);
}

void mq__int8_gemm_avx2(const mq_int8_rows *a, size_t rows, const mq_int8 *w, size_t p0, size_t p1,
                        const mq_epilogue *out, void *scratch)
{
    static const int8_core core = {.rows = STEP,
                                   .run = run_int8_avx2,
                                   .slice = SLICE,
                                   .arrange = arrange_int8_avx2,
                                   .arrange_rows = arrange_rows_int8_avx2,
                                   .step_bytes = sizeof(wide_rows)};
    if (rows <= MQ_INT8_MR) {
        mq__int8_run_few(run_few_int8_avx2, a, rows, w, p0, p1, out, scratch);
    } else {
        mq__int8_run(&core, a, rows, w, p0, p1, out, scratch);
    }
}
