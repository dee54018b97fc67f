/* Dense GEMM of the AVX2 level: expansion of BF16, F16 and F32 weights to FP32 panels, and activation panels.
 *
 * Expanded panels are [2][kc][16]: the halves that the tiles read one after the other, each contiguous. */
#include "kernels/dense_driver.h"
#include "kernels/table.h"

#include <immintrin.h>

#define MR     MQ_DENSE_MR
#define INLINE static inline __attribute__((always_inline))

/* t[j] lane i becomes t[i] lane j. */
INLINE void transpose_dense_avx2(__m256i t[8])
{
    __m256i u[8], v[8];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        u[2 * i] = _mm256_unpacklo_epi32(t[2 * i], t[2 * i + 1]);
        u[2 * i + 1] = _mm256_unpackhi_epi32(t[2 * i], t[2 * i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        v[4 * i] = _mm256_unpacklo_epi64(u[4 * i], u[4 * i + 2]);
        v[4 * i + 1] = _mm256_unpackhi_epi64(u[4 * i], u[4 * i + 2]);
        v[4 * i + 2] = _mm256_unpacklo_epi64(u[4 * i + 1], u[4 * i + 3]);
        v[4 * i + 3] = _mm256_unpackhi_epi64(u[4 * i + 1], u[4 * i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2x128_si256(v[i], v[4 + i], 0x20);
        t[4 + i] = _mm256_permute2x128_si256(v[i], v[4 + i], 0x31);
    }
}

INLINE void store_pair_dense_avx2(float *b, __m256i pair, bool both)
{
    _mm256_store_ps(b, _mm256_castsi256_ps(_mm256_slli_epi32(pair, 16)));
    if (both) {
        const __m256i high = _mm256_and_si256(pair, _mm256_set1_epi32((int)0xFFFF0000u));
        _mm256_store_ps(b + 16, _mm256_castsi256_ps(high));
    }
}

/* Eight features (rows of w, `live` of them present) and kc values of k to b [kc][16]. */
static void expand_bf16_dense_avx2(const uint16_t *w, size_t ld, size_t live, size_t kc, float *b)
{
    for (size_t k = 0; k < kc; k += 16) {
        const size_t width = kc - k < 16 ? kc - k : 16;
        __m256i t[8];
        if (live == 8 && width == 16) {
#pragma GCC unroll 8
            for (size_t i = 0; i < 8; i++) {
                t[i] = _mm256_loadu_si256((const void *)(w + i * ld + k));
            }
            transpose_dense_avx2(t);
#pragma GCC unroll 8
            for (size_t i = 0; i < 8; i++) {
                store_pair_dense_avx2(b + (k + 2 * i) * 16, t[i], true);
            }
            continue;
        }
        for (size_t i = 0; i < 8; i++) {
            uint16_t part[16] = {0};
            if (i < live) memcpy(part, w + i * ld + k, width * sizeof part[0]);
            t[i] = _mm256_loadu_si256((const void *)part);
        }
        transpose_dense_avx2(t);
        for (size_t i = 0; 2 * i < width; i++) {
            store_pair_dense_avx2(b + (k + 2 * i) * 16, t[i], 2 * i + 1 < width);
        }
    }
}

/* The same from F16 or F32. */
INLINE void expand_words_dense_avx2(const void *weights, bool half, size_t ld, size_t live, size_t kc, float *b)
{
    for (size_t k = 0; k < kc; k += 8) {
        const size_t width = kc - k < 8 ? kc - k : 8;
        __m256i t[8];
        for (size_t i = 0; i < 8; i++) {
            t[i] = _mm256_setzero_si256();
            if (i >= live) continue;
            const char *from = (const char *)weights + (i * ld + k) * (half ? 2 : 4);
            float part[8] = {0};
            if (width < 8) {
                memcpy(part, from, width * (half ? 2 : 4));
                from = (const char *)part;
            }
            t[i] = half ? _mm256_castps_si256(_mm256_cvtph_ps(_mm_loadu_si128((const void *)from)))
                        : _mm256_loadu_si256((const void *)from);
        }
        transpose_dense_avx2(t);
        for (size_t i = 0; i < width; i++) {
            _mm256_store_si256((void *)(b + (k + i) * 16), t[i]);
        }
    }
}

static void expand_dense_avx2(const void *weights, size_t panel, size_t k0, size_t kc, float *b)
{
    const mq_dense *w = weights;
    const size_t ld = w->k_width;
    for (size_t part = 0; part < 4; part++) {
        const size_t n = panel * DENSE_NR + part * 8, at = n * ld + k0;
        const size_t live = n >= w->n ? 0 : w->n - n < 8 ? w->n - n : 8;
        float *to = b + part / 2 * 16 * kc + part % 2 * 8;
        if (w->type == MQ_DENSE_BF16) {
            expand_bf16_dense_avx2((const uint16_t *)w->data + at, ld, live, kc, to);
        } else if (w->type == MQ_DENSE_F16) {
            expand_words_dense_avx2((const uint16_t *)w->data + at, true, ld, live, kc, to);
        } else {
            expand_words_dense_avx2((const float *)w->data + at, false, ld, live, kc, to);
        }
    }
}

static void gemm_dense_avx2(const float *panels, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                            const mq_epilogue *out, void *scratch)
{
    const dense_source source = {.core = &mq__dense_core_avx2,
                                 .expand = expand_dense_avx2,
                                 .weights = w,
                                 .n = n1 < w->n ? n1 : w->n,
                                 .k_width = w->k_width,
                                 .row_floats = w->k_width,
                                 .multiplier = 1,
                                 .rows = w->data,
                                 .element_bytes = w->type == MQ_DENSE_F32 ? 4 : 2};
    mq__dense_run(panels, rows, &source, n0 / DENSE_NR, (n1 + DENSE_NR - 1) / DENSE_NR, out, scratch);
}

/* Rows [0, live) of x, at most 8, to columns [0, count) of a panel. */
static void pack_columns(const float *x, size_t ldx, size_t live, size_t k_width, float *panel, size_t count)
{
    const __m256i columns =
        _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    for (size_t k = 0; k < k_width; k += 8) {
        const size_t width = k_width - k < 8 ? k_width - k : 8;
        const __m256i mask =
            _mm256_cmpgt_epi32(_mm256_set1_epi32((int)width), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        __m256i t[8];
        for (size_t i = 0; i < 8; i++) {
            t[i] = i < live ? _mm256_castps_si256(_mm256_maskload_ps(x + i * ldx + k, mask)) : _mm256_setzero_si256();
        }
        transpose_dense_avx2(t);
        for (size_t i = 0; i < width; i++) {
            _mm256_maskstore_ps(panel + (k + i) * MR, columns, _mm256_castsi256_ps(t[i]));
        }
    }
}

static void pack_rows_dense_avx2(const float *x, size_t ldx, size_t rows, size_t k_width, size_t g0, size_t g1,
                                 float *panels)
{
    for (size_t g = g0; g < g1; g++) {
        const size_t live = rows - g * MR < MR ? rows - g * MR : MR;
        const float *from = x + g * MR * ldx;
        float *panel = panels + g * k_width * MR;
        pack_columns(from, ldx, live < 8 ? live : 8, k_width, panel, 8);
        pack_columns(from + 8 * ldx, ldx, live < 8 ? 0 : live - 8, k_width, panel + 8, MR - 8);
    }
}

void mq__fill_avx2_dense(mq_kernels *table)
{
    const size_t need = DENSE_SCRATCH_FLOATS * sizeof(float);
    table->dense_pack_rows = pack_rows_dense_avx2;
    table->dense_gemm = gemm_dense_avx2;
    if (table->gemm_scratch_bytes < need) table->gemm_scratch_bytes = need;
    mq__fill_avx2_thin(table);
    mq__fill_avx2_w4a16(table);
}
