/* INT8 W8A8 GEMM for processors with AVX2 and AVX-VNNI: client chips without AVX-512.
 *
 * The idea is that of the AVX-512 file with half the width: int32 sums begin at the bits of the float 1.5*2^23 less the
 * correction for the activations' offset, two FMAs scale and accumulate. 16 registers do not hold sums besides the integers of
 * a group of 64, so the sums stay in the tile, in L1.
 *
 * Registers of 4 rows x 16 features: t 8, w 2, activation 1; at the end of a group t 8, sw 2, c 2, scale 1.
 * Throughput of one group of 4 rows x 16 features: 128 vpdpbusd + 16 FMA on two ports = 72 cycles (3.56 times the FMA peak at
 * best), 96 + 14 loads. A row group of 7 is 4 rows, then 3.
 * Measured (Zen 5 class, one thread, VEX encoding, checkasm --bench --isa avx2 int8_gemm): 3.0 times the FMA peak at M = 512 and
 * 2048, 2.4 to 2.7 at 16; M = 1 reads 37 GB/s from memory. */
#include "kernels/avx2/avxvnni.h"
#include "kernels/avx2/int8_avx2.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

enum { STEP = 4 }; /* rows at a time */

INLINE __m256i load_int8_avxvnni(const uint8_t *at)
{
    return _mm256_load_si256((const __m256i *)(const void *)at);
}

/* sum [rows][16 of 32] += one group. a: codes of the first row; sa: its scale; w: the cell, at feature 16*half. */
INLINE void add_group_int8_avxvnni(int rows, const uint8_t *a, const float *sa, const uint8_t *w, size_t half,
                                   float (*sum)[MQ_INT8_NR])
{
    const uint8_t *starts = w + MQ_INT8_CELL_STARTS + 64 * half;
    __m256i t[STEP][2];
    UNROLL
    for (int r = 0; r < rows; r++) {
        t[r][0] = load_int8_avxvnni(starts);
        t[r][1] = load_int8_avxvnni(starts + 32);
    }
    UNROLL
    for (size_t j = 0; j < MQ_INT8_GROUP / 4; j++) {
        const __m256i w0 = load_int8_avxvnni(w + 128 * j + 64 * half),
                      w1 = load_int8_avxvnni(w + 128 * j + 64 * half + 32);
        UNROLL
        for (int r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, a + (size_t)r * MQ_INT8_GROUP + 4 * j, sizeof four);
            const __m256i x = _mm256_set1_epi32(four);
            t[r][0] = dot4_avxvnni(t[r][0], x, w0);
            t[r][1] = dot4_avxvnni(t[r][1], x, w1);
        }
    }
    const float *scales = (const float *)(const void *)(w + MQ_INT8_CELL_SCALES) + 16 * half;
    const __m256 sw[2] = {_mm256_load_ps(scales), _mm256_load_ps(scales + 8)}, magic = _mm256_set1_ps(-12582912.0f);
    const __m256 c[2] = {_mm256_mul_ps(sw[0], magic), _mm256_mul_ps(sw[1], magic)};
    UNROLL
    for (int r = 0; r < rows; r++) {
        const __m256 scale = _mm256_broadcast_ss(sa + r);
        UNROLL
        for (int o = 0; o < 2; o++) {
            const __m256 scaled = _mm256_fmadd_ps(_mm256_castsi256_ps(t[r][o]), sw[o], c[o]); /* round(dot * sw) */
            _mm256_store_ps(sum[r] + 8 * o, _mm256_fmadd_ps(scaled, scale, _mm256_load_ps(sum[r] + 8 * o)));
        }
    }
}

/* Rows [row, row + rows) of a row group through a slice. */
INLINE void micro_int8_avxvnni(int rows, const int8_slice *s, const uint8_t *a, size_t row, float (*tile)[MQ_INT8_NR])
{
    for (size_t half = 0; half < 2; half++) {
        float(*sum)[MQ_INT8_NR] = (float(*)[MQ_INT8_NR])(void *)(tile[row] + 16 * half);
        const uint8_t *codes = a + row * MQ_INT8_GROUP, *w = s->cells;
        const float *scales = (const float *)(const void *)(a + MQ_INT8_ROW_SCALES) + row;
        for (size_t g = 0; g < s->groups; g++) {
            add_group_int8_avxvnni(rows, codes, scales, w, half, sum);
            __asm__ volatile("" ::: "memory"); /* or gcc 12 keeps copies of the sums */
            codes += MQ_INT8_ROW_CELL, scales += MQ_INT8_ROW_CELL / sizeof *scales, w += MQ_INT8_CELL;
        }
    }
}

#define MICRO(rows)                                                                                                    \
    static __attribute__((noinline)) void micro_##rows##x32(const int8_slice *s, const uint8_t *a, size_t row,         \
                                                            float(*tile)[MQ_INT8_NR])                                  \
    {                                                                                                                  \
        micro_int8_avxvnni(rows, s, a, row, tile);                                                                     \
    }
MICRO(1)
MICRO(2)
MICRO(3)
MICRO(4)

static void run_int8_avxvnni(const int8_slice *s, size_t rows, const uint8_t *a, float (*tile)[MQ_INT8_NR])
{
    static void (*const kernels[])(const int8_slice *, const uint8_t *, size_t,
                                   float(*)[MQ_INT8_NR]) = {micro_1x32, micro_2x32, micro_3x32, micro_4x32};
    if (s->first) memset(tile, 0, rows * sizeof *tile);
    for (size_t row = 0; row < rows; row += STEP) {
        const size_t n = rows - row < STEP ? rows - row : STEP;
        kernels[n - 1](s, a, row, tile);
    }
    for (size_t r = 0; s->last && r < rows; r++) {
        mq__int8_finish_avx2(s, s->y + r * s->ldy, tile[r]);
    }
}

void mq__int8_gemm_avxvnni(const mq_int8_rows *a, size_t rows, const mq_int8 *w, size_t p0, size_t p1,
                           const mq_epilogue *out, void *scratch)
{
    static const int8_core core = {.rows = MQ_INT8_MR, .run = run_int8_avxvnni};
    mq__int8_run(&core, a, rows, w, p0, p1, out, scratch);
}
