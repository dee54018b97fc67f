/* INT8 W8A8: quantiser and GEMM, AVX-512 VNNI.
 *
 * The idea is the NVFP4 GEMM's (nvfp4_gemm_avx512.c) with groups of 64: int32 sums start at the bits of the float 1.5*2^23
 * less the correction for the activations' offset, so that they end as the float 12582912 + dot; one FMA takes the offset
 * away and multiplies by the weights' scale, a second one multiplies by the activations' and accumulates.
 *
 * Registers of micro_7x32: acc 14, t 14, w 2, activation broadcast 1 = 31.
 * Throughput of one group of 7 rows x 32 features: 224 vpdpbusd + 28 FMA (a ceiling of 3.56 times the FP32 FMA peak), 158
 * loads.
 *
 * Measured (one thread, M = 512 and 2048, shapes of Qwen3 0.6B, 4B and 8B, times the FP32 FMA peak): Zen 4 class 3.38 to 3.44;
 * Zen 5 class, medians of four runs, 3.31 to 3.38, 4096x12288 at M = 2048 3.28. Zen 4 at M = 16 2.9 to 3.1; M = 1 in whole decode
 * steps 0.86 of a thread's read bandwidth. */
#include "kernels/avx512/gemm_avx512.h"
#include "kernels/int8_driver.h"
#include "kernels/table.h"

#include <immintrin.h>

enum { HALF = MQ_INT8_NR / 2 };

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8") /* early: or else acc and t live on the stack */

static inline __m512i dot4_int8_avx512(__m512i t, __m512i a, __m512i w)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(t) : "v"(a), "v"(w)); /* the intrinsic makes gcc 12 copy and spill t */
    return t;
}

/* acc + f * *s; one instruction, where the compiler would keep the broadcast of s in a register that is not there. */
INLINE void fma_broadcast_int8_avx512(__m512 *acc, __m512 f, const float *s)
{
    __asm__("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(*acc) : "v"(f), "m"(*s));
}

/* acc [rows][2] += one group. */
INLINE void add_group_int8_avx512(int rows, const uint8_t *a, const uint8_t *w, __m512 (*acc)[2])
{
    __m512i t[MQ_INT8_MR][2];
    UNROLL
    for (int r = 0; r < rows; r++) {
        t[r][0] = _mm512_load_si512(w + MQ_INT8_CELL_STARTS);
        t[r][1] = _mm512_load_si512(w + MQ_INT8_CELL_STARTS + 64);
    }
    for (int j = 0; j < MQ_INT8_GROUP / 4; j++) {
        const __m512i w0 = _mm512_load_si512(w + 128 * j), w1 = _mm512_load_si512(w + 128 * j + 64);
        UNROLL
        for (int r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, a + r * MQ_INT8_GROUP + 4 * j, sizeof four);
            const __m512i x = _mm512_set1_epi32(four);
            t[r][0] = dot4_int8_avx512(t[r][0], x, w0);
            t[r][1] = dot4_int8_avx512(t[r][1], x, w1);
        }
    }
    const float *sa = (const float *)(const void *)(a + MQ_INT8_ROW_SCALES);
    UNROLL
    for (int v = 0; v < 2; v++) {
        const __m512 sw = _mm512_load_ps(w + MQ_INT8_CELL_SCALES + 64 * v);
        const __m512 c = _mm512_mul_ps(sw, _mm512_set1_ps(-12582912.0f));
        UNROLL
        for (int r = 0; r < rows; r++) {
            const __m512 scaled = _mm512_fmadd_ps(_mm512_castsi512_ps(t[r][v]), sw, c); /* round(dot * sw) */
            fma_broadcast_int8_avx512(&acc[r][v], scaled, sa + r);
        }
    }
}

INLINE void finish_int8_avx512(int rows, const int8_slice *s, __m512 (*acc)[2])
{
    const uint32_t mask = s->features == MQ_INT8_NR ? UINT32_MAX : (1u << s->features) - 1;
    UNROLL
    for (int v = 0; v < 2; v++) {
        const __mmask16 m = (__mmask16)(mask >> (HALF * v));
        const __m512 bias = s->bias ? _mm512_maskz_loadu_ps(m, s->bias + HALF * v) : _mm512_setzero_ps();
        UNROLL
        for (int r = 0; r < rows; r++) {
            float *y = s->y + (size_t)r * s->ldy + HALF * v;
            __m512 sum = acc[r][v];
            if (s->bias) sum = _mm512_add_ps(sum, bias);
            if (s->accumulate) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(m, y));
            _mm512_mask_storeu_ps(y, m, sum);
        }
    }
}

INLINE void micro_int8_avx512(int rows, const int8_slice *s, const uint8_t *a, float (*tile)[MQ_INT8_NR])
{
    __m512 acc[MQ_INT8_MR][2];
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int v = 0; v < 2; v++)
            acc[r][v] = s->first ? _mm512_setzero_ps() : _mm512_load_ps(tile[r] + HALF * v);
    }
    const uint8_t *w = s->cells, *end = w + s->groups * MQ_INT8_CELL;
    do {
        add_group_int8_avx512(rows, a, w, acc);
        a += MQ_INT8_ROW_CELL, w += MQ_INT8_CELL;
    } while (w < end);
    UNROLL
    for (int r = 0; r < rows; r++) {
        __asm__ volatile("" : "+v"(acc[r][0]), "+v"(acc[r][1])); /* or gcc 12 copies all of acc in each round */
    }
    if (s->last) {
        finish_int8_avx512(rows, s, acc);
        return;
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int v = 0; v < 2; v++)
            _mm512_store_ps(tile[r] + HALF * v, acc[r][v]);
    }
}

#define MICRO(rows)                                                                                                    \
    static __attribute__((noinline)) void micro_##rows##x32(const int8_slice *s, const uint8_t *a,                     \
                                                            float(*tile)[MQ_INT8_NR])                                  \
    {                                                                                                                  \
        micro_int8_avx512(rows, s, a, tile);                                                                           \
    }
MICRO(1)
MICRO(2)
MICRO(3)
MICRO(4)
MICRO(5)
MICRO(6)
MICRO(7)

static void run_int8_avx512(const int8_slice *s, size_t rows, const uint8_t *a, float (*tile)[MQ_INT8_NR])
{
    static void (*const kernels[])(const int8_slice *, const uint8_t *, float(*)[MQ_INT8_NR]) = {
        micro_1x32, micro_2x32, micro_3x32, micro_4x32, micro_5x32, micro_6x32, micro_7x32};
    kernels[rows - 1](s, a, tile);
}

void mq__int8_gemm_avx512(const mq_int8_rows *a, size_t rows, const mq_int8 *w, size_t p0, size_t p1,
                          const mq_epilogue *out, void *scratch)
{
    static const int8_core core = {.rows = MQ_INT8_MR, .run = run_int8_avx512};
    if (rows <= MQ_INT8_MR) {
        mq__int8_run_few(run_int8_avx512, a, rows, w, p0, p1, out, scratch);
    } else {
        mq__int8_run(&core, a, rows, w, p0, p1, out, scratch);
    }
}

/* One group of `left` values (64 when whole). */
INLINE void quantize_group_int8_avx512(const float *x, size_t left, bool whole, uint8_t *codes, uint8_t *scale_at)
{
    __m512 v[4];
    for (size_t i = 0; i < 4; i++) {
        const size_t at = 16 * i, n = left <= at ? 0 : left - at < 16 ? left - at : 16;
        v[i] = whole ? _mm512_loadu_ps(x + at) : _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), x + at);
    }
    const __m512 low = _mm512_max_ps(_mm512_abs_ps(v[0]), _mm512_abs_ps(v[1]));
    const __m512 high = _mm512_max_ps(_mm512_abs_ps(v[2]), _mm512_abs_ps(v[3]));
    const float amax = _mm512_reduce_max_ps(_mm512_max_ps(low, high));
    const bool zero = amax < MQ_INT8_TINY;
    const float scale = zero ? 0 : amax * (1.0f / 127.0f);
    const __m512 inverse = _mm512_set1_ps(zero ? 0 : 127.0f / amax);
    for (size_t i = 0; i < 4; i++) {
        const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(v[i], inverse));
        const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_add_epi32(q, _mm512_set1_epi32(MQ_INT8_OFFSET)));
        _mm_storeu_si128((__m128i *)(void *)(codes + 16 * i), bytes);
    }
    memcpy(scale_at, &scale, sizeof scale);
}

static void quantize_int8_avx512(const float *x, size_t ldx, size_t row0, size_t row1, size_t k_width,
                                 const mq_int8_rows *out)
{
    const size_t groups = (k_width + MQ_INT8_GROUP - 1) / MQ_INT8_GROUP;
    for (size_t m = row0; m < row1; m++) {
        const size_t r = m % MQ_INT8_MR;
        uint8_t *cell = out->panels + m / MQ_INT8_MR * groups * MQ_INT8_ROW_CELL;
        const float *row = x + m * ldx;
        size_t k = 0;
        for (; k + MQ_INT8_GROUP <= k_width; k += MQ_INT8_GROUP, cell += MQ_INT8_ROW_CELL) {
            quantize_group_int8_avx512(row + k, MQ_INT8_GROUP, true, cell + r * MQ_INT8_GROUP,
                                       cell + MQ_INT8_ROW_SCALES + 4 * r);
        }
        if (k < k_width) {
            quantize_group_int8_avx512(row + k, k_width - k, false, cell + r * MQ_INT8_GROUP,
                                       cell + MQ_INT8_ROW_SCALES + 4 * r);
        }
    }
    mq__int8_pad_rows(out->panels, row1, groups);
}

void mq__fill_avx512_int8(mq_kernels *table)
{
    table->int8_quantize = quantize_int8_avx512;
    table->int8_gemm = mq__int8_gemm_avx512;
    if (table->gemm_scratch_bytes < mq__int8_scratch_bytes()) table->gemm_scratch_bytes = mq__int8_scratch_bytes();
}
