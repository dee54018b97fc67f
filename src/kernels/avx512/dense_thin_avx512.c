/* Thin dense products of the AVX-512 level: 1 to 8 rows of activations, weights streamed once.
 *
 * Idea: W features at a time, far apart: each of the W streams of memory runs on without a jump, so that the processor's
 * own prefetchers follow it, and an explicit prefetch 1 KiB ahead carries it over page ends (weights are a file map of
 * 4 KiB pages). Adjacent features without prefetch reach 0.70 of the read bandwidth.
 *
 * Measured (2-core Cascade Lake class, 2.5 GHz, one thread, file map, N x K = 3072 x 1024; commit 9900f18), share of the
 * read bandwidth: 0.93 with 1 row, 0.76 to 0.88 with 4, 0.41 to 0.56 with 8 (issue-bound).
 *
 * (2-core Zen 4 class, 3.6 GHz, two threads, file map, commit 38be055; checkasm --bench --isa avx512vnni dense_thin): 0.90 to
 * 0.96 of 35 GB/s with 1 row, lm_head (151936 x 1024) 0.90 to 0.98; 0.82 to 0.95 with 2; 0.72 to 0.77 with 4; 0.60 with 8,
 * which is 22 GB/s whatever the memory gives: FMAs alone allow 28.6 there (8 cycles for 32 bytes, a core). Copying x to
 * [k/16][rows][16], chunks of K that keep it in L1, and reading x once per step by asm: none was faster.
 *
 * Registers: W x R sums of 16 lanes (4 x 4, 3 x 8), W weight vectors, 1 activation vector.
 * Throughput model per 16 k: W loads with widening and shift (2 instructions on ports 0 and 5), R loads of activations,
 * W*R FMA: (2 + R)/2 cycles per 32 bytes of BF16, i.e. 21 bytes a cycle for one row and 6.4 for eight; memory delivers
 * 5 to 6. */
#include "kernels/dense_common.h"

#include <immintrin.h>

#define AHEAD_BYTES 1024
#define INLINE      static inline __attribute__((always_inline))

INLINE __m512 load_weights(const void *w, mq_dense_type type, size_t at)
{
    if (type == MQ_DENSE_F32) return _mm512_loadu_ps((const float *)w + at);
    const __m256i half = _mm256_loadu_si256((const void *)((const uint16_t *)w + at));
    if (type == MQ_DENSE_F16) return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

INLINE __m512 load_weights_masked(const void *w, mq_dense_type type, size_t at, __mmask16 mask)
{
    if (type == MQ_DENSE_F32) return _mm512_maskz_loadu_ps(mask, (const float *)w + at);
    const __m256i half = _mm256_maskz_loadu_epi16(mask, (const uint16_t *)w + at);
    if (type == MQ_DENSE_F16) return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* The lanes of four registers, each summed pairwise: 8+8, 4+4, 2+2, 1+1. */
INLINE void sum_lanes(__m512 a, __m512 b, __m512 c, __m512 d, float sums[4])
{
    const __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    const __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    __m512 v = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    v = _mm512_add_ps(v, _mm512_permute_ps(v, 0x4e));
    v = _mm512_add_ps(v, _mm512_permute_ps(v, 0xb1));
    const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm_storeu_ps(sums, _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, v)));
}

/* 16 k of W features for R rows. */
INLINE void thin_step(const float *x, size_t ldx, const void *w, const size_t at[4], size_t k, const mq_dense_type type,
                      __m512 sum[4][8], const int W, const int R)
{
    __m512 wv[4];
#pragma GCC unroll 4
    for (int i = 0; i < W; i++) {
        wv[i] = load_weights(w, type, at[i] + k);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        const __m512 xv = _mm512_loadu_ps(x + (size_t)r * ldx + k);
#pragma GCC unroll 4
        for (int i = 0; i < W; i++) {
            sum[i][r] = _mm512_fmadd_ps(xv, wv[i], sum[i][r]);
        }
    }
}

/* Features n, n + apart, ... (W of them), R rows. */
INLINE void thin_tile(const float *x, size_t ldx, const mq_dense *w, size_t n, size_t apart, const mq_epilogue *out,
                      const mq_dense_type type, const int W, const int R)
{
    const size_t k_width = w->k_width, bytes = type == MQ_DENSE_F32 ? 4 : 2;
    size_t at[4];
    __m512 sum[4][8];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        at[i] = (n + (size_t)i * apart) * k_width;
#pragma GCC unroll 8
        for (int r = 0; r < 8; r++) {
            sum[i][r] = _mm512_setzero_ps();
        }
    }
    size_t k = 0;
    for (; k + 32 <= k_width; k += 32) {
#pragma GCC unroll 4
        for (int i = 0; i < W; i++) {
            const char *line = (const char *)w->data + (at[i] + k) * bytes + AHEAD_BYTES;
            _mm_prefetch(line, _MM_HINT_T1);
            if (bytes == 4) _mm_prefetch(line + 64, _MM_HINT_T1);
        }
        thin_step(x, ldx, w->data, at, k, type, sum, W, R);
        thin_step(x, ldx, w->data, at, k + 16, type, sum, W, R);
    }
    if (k + 16 <= k_width) {
        thin_step(x, ldx, w->data, at, k, type, sum, W, R);
        k += 16;
    }
    if (k < k_width) { /* lanes past the end keep their sums */
        const __mmask16 mask = (__mmask16)((1u << (k_width - k)) - 1);
#pragma GCC unroll 4
        for (int i = 0; i < W; i++) {
            const __m512 wv = load_weights_masked(w->data, type, at[i] + k, mask);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                const __m512 xv = _mm512_maskz_loadu_ps(mask, x + (size_t)r * ldx + k);
                sum[i][r] = _mm512_mask3_fmadd_ps(xv, wv, sum[i][r], mask);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        float y[4];
        sum_lanes(sum[0][r], sum[1][r], sum[2][r], sum[3][r], y);
#pragma GCC unroll 4
        for (int i = 0; i < W; i++) {
            finish_output(out, (size_t)r, n + (size_t)i * apart, y[i]);
        }
    }
}

/* W streams, each of consecutive features: memory is read in W sequences that never jump. */
INLINE void thin_rows(const float *x, size_t ldx, const mq_dense *w, size_t n0, size_t n1, const mq_epilogue *out,
                      const mq_dense_type type, const int W, const int R)
{
    const size_t each = (n1 - n0) / (size_t)W;
    for (size_t i = 0; i < each; i++) {
        thin_tile(x, ldx, w, n0 + i, each, out, type, W, R);
    }
    for (size_t n = n0 + each * (size_t)W; n < n1; n++) {
        thin_tile(x, ldx, w, n, 0, out, type, 1, R);
    }
}

INLINE void thin_typed(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                       const mq_epilogue *out, const mq_dense_type type)
{
    switch (rows) {
    case 1:
        thin_rows(x, ldx, w, n0, n1, out, type, 4, 1);
        break;
    case 2:
        thin_rows(x, ldx, w, n0, n1, out, type, 4, 2);
        break;
    case 3:
        thin_rows(x, ldx, w, n0, n1, out, type, 4, 3);
        break;
    case 4:
        thin_rows(x, ldx, w, n0, n1, out, type, 4, 4);
        break;
    case 5:
        thin_rows(x, ldx, w, n0, n1, out, type, 3, 5);
        break;
    case 6:
        thin_rows(x, ldx, w, n0, n1, out, type, 3, 6);
        break;
    case 7:
        thin_rows(x, ldx, w, n0, n1, out, type, 3, 7);
        break;
    default:
        thin_rows(x, ldx, w, n0, n1, out, type, 3, 8);
        break;
    }
}

static void thin(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                 const mq_epilogue *out)
{
    if (w->type == MQ_DENSE_BF16) {
        thin_typed(x, ldx, rows, w, n0, n1, out, MQ_DENSE_BF16);
    } else if (w->type == MQ_DENSE_F16) {
        thin_typed(x, ldx, rows, w, n0, n1, out, MQ_DENSE_F16);
    } else {
        thin_typed(x, ldx, rows, w, n0, n1, out, MQ_DENSE_F32);
    }
}

void mq__fill_avx512_thin(mq_kernels *table)
{
    table->dense_thin = thin;
}
