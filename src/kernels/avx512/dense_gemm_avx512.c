/* Dense GEMM of the AVX-512 level: expansion of BF16, F16 and F32 weights to FP32 panels, and activation panels.
 *
 * BF16: sixteen rows of 32 k are sixteen registers of 16 dwords, each a pair of k; a 16x16 dword transpose gives one
 * register per pair with 16 features in its lanes, and a shift and a mask split it: 64 shuffles and 32 logic operations
 * per 512 weights, about 0.13 cycles each, against 16 cycles of FMA per weight at 512 rows. */
#include "kernels/avx512/transpose_avx512.h"
#include "kernels/dense_driver.h"
#include "kernels/table.h"

#define MR     MQ_DENSE_MR
#define INLINE static inline __attribute__((always_inline))

INLINE void store_pair_dense_avx512(float *b, __m512i pair)
{
    _mm512_store_ps(b, _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)));
    _mm512_store_ps(b + DENSE_NR, _mm512_castsi512_ps(_mm512_and_epi32(pair, _mm512_set1_epi32((int)0xFFFF0000u))));
}

/* Sixteen features (rows of w, `live` of them present) and kc values of k to b [kc][32]. */
static void expand_bf16_dense_avx512(const uint16_t *w, size_t ld, size_t live, size_t kc, float *b)
{
    __m512i t[16];
    size_t k = 0;
    if (live == 16) {
        for (; k + 32 <= kc; k += 32) {
#pragma GCC unroll 16
            for (size_t i = 0; i < 16; i++) {
                t[i] = _mm512_loadu_si512(w + i * ld + k);
            }
            transpose_16x16(t);
#pragma GCC unroll 16
            for (size_t i = 0; i < 16; i++) {
                store_pair_dense_avx512(b + (k + 2 * i) * DENSE_NR, t[i]);
            }
        }
    }
    for (; k < kc; k += 32) {
        const size_t width = kc - k < 32 ? kc - k : 32;
        const __mmask32 mask = (__mmask32)(0xFFFFFFFFu >> (32 - width));
        for (size_t i = 0; i < 16; i++) {
            t[i] = i < live ? _mm512_maskz_loadu_epi16(mask, w + i * ld + k) : _mm512_setzero_si512();
        }
        transpose_16x16(t);
        float pairs[32 * DENSE_NR] __attribute__((aligned(64)));
        for (size_t i = 0; i < 16; i++) {
            store_pair_dense_avx512(pairs + 2 * i * DENSE_NR, t[i]);
        }
        for (size_t i = 0; i < width; i++) {
            _mm512_store_ps(b + (k + i) * DENSE_NR, _mm512_load_ps(pairs + i * DENSE_NR));
        }
    }
}

/* The same from F16 or F32. */
INLINE void expand_words_dense_avx512(const void *weights, bool half, size_t ld, size_t live, size_t kc, float *b)
{
    for (size_t k = 0; k < kc; k += 16) {
        const size_t width = kc - k < 16 ? kc - k : 16;
        const __mmask16 mask = (__mmask16)(0xFFFFu >> (16 - width));
        __m512i t[16];
        for (size_t i = 0; i < 16; i++) {
            t[i] = _mm512_setzero_si512();
            if (i >= live) continue;
            if (half) {
                const uint16_t *w = (const uint16_t *)weights + i * ld + k;
                t[i] = _mm512_castps_si512(_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, w)));
            } else {
                t[i] = _mm512_maskz_loadu_epi32(mask, (const float *)weights + i * ld + k);
            }
        }
        transpose_16x16(t);
        for (size_t i = 0; i < width; i++) {
            _mm512_store_si512(b + (k + i) * DENSE_NR, t[i]);
        }
    }
}

static void expand_dense_avx512(const void *weights, size_t panel, size_t k0, size_t kc, float *b)
{
    const mq_dense *w = weights;
    const size_t ld = w->k_width;
    for (size_t half = 0; half < 2; half++) {
        const size_t n = panel * DENSE_NR + half * 16, at = n * ld + k0;
        const size_t live = n >= w->n ? 0 : w->n - n < 16 ? w->n - n : 16;
        float *to = b + half * 16;
        if (w->type == MQ_DENSE_BF16) {
            expand_bf16_dense_avx512((const uint16_t *)w->data + at, ld, live, kc, to);
        } else if (w->type == MQ_DENSE_F16) {
            expand_words_dense_avx512((const uint16_t *)w->data + at, true, ld, live, kc, to);
        } else {
            expand_words_dense_avx512((const float *)w->data + at, false, ld, live, kc, to);
        }
    }
}

static void gemm_dense_avx512(const float *panels, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                              const mq_epilogue *out, void *scratch)
{
    const dense_source source = {.core = &mq__dense_core_avx512,
                                 .expand = expand_dense_avx512,
                                 .weights = w,
                                 .n = n1 < w->n ? n1 : w->n,
                                 .k_width = w->k_width,
                                 .row_floats = w->k_width,
                                 .multiplier = 1,
                                 .rows = w->data,
                                 .element_bytes = w->type == MQ_DENSE_F32 ? 4 : 2};
    mq__dense_run(panels, rows, &source, n0 / DENSE_NR, (n1 + DENSE_NR - 1) / DENSE_NR, out, scratch);
}

static void pack_rows_dense_avx512(const float *x, size_t ldx, size_t rows, size_t k_width, size_t g0, size_t g1,
                                   float *panels)
{
    for (size_t g = g0; g < g1; g++) {
        const size_t live = rows - g * MR < MR ? rows - g * MR : MR;
        const float *from = x + g * MR * ldx;
        float *panel = panels + g * k_width * MR;
        for (size_t k = 0; k < k_width; k += 16) {
            const size_t width = k_width - k < 16 ? k_width - k : 16;
            const __mmask16 mask = (__mmask16)(0xFFFFu >> (16 - width));
            __m512i t[16];
#pragma GCC unroll 16
            for (size_t i = 0; i < 16; i++) {
                t[i] = i < live ? _mm512_maskz_loadu_epi32(mask, from + i * ldx + k) : _mm512_setzero_si512();
            }
            transpose_16x16(t);
#pragma GCC unroll 16
            for (size_t i = 0; i < 16; i++) {
                if (i < width) _mm512_mask_storeu_epi32(panel + (k + i) * MR, (1u << MR) - 1, t[i]);
            }
        }
    }
}

void mq__fill_avx512_dense(mq_kernels *table)
{
    const size_t need = DENSE_SCRATCH_FLOATS * sizeof(float);
    table->dense_pack_rows = pack_rows_dense_avx512;
    table->dense_gemm = gemm_dense_avx512;
    if (table->gemm_scratch_bytes < need) table->gemm_scratch_bytes = need;
    mq__fill_avx512_thin(table);
    mq__fill_avx512_w4a16(table);
}
