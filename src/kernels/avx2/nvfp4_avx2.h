/* What the NVFP4 GEMMs of 256 bits share: the walk of a pass's rows through a slice, and the outputs. */
#ifndef MQ_KERNELS_NVFP4_AVX2_H
#define MQ_KERNELS_NVFP4_AVX2_H

#include "kernels/nvfp4_driver.h"

#include <immintrin.h>

enum { NVFP4_STEP = 4 }; /* rows of a micro-kernel: a group is taken as 4 + 3 */

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

static inline __m256 e4m3_to_f32_nvfp4_avx2(const uint8_t *bytes)
{
    const __m256i x = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)bytes));
    const __m256i subnormal = _mm256_cmpgt_epi32(_mm256_set1_epi32(8), x);
    __m256i bits = _mm256_add_epi32(_mm256_slli_epi32(x, 20), _mm256_set1_epi32(120 << 23));
    bits = _mm256_add_epi32(bits, _mm256_and_si256(subnormal, _mm256_set1_epi32(1 << 23))); /* (1 + m/8) * 2^-6 */
    const __m256 excess = _mm256_and_ps(_mm256_castsi256_ps(subnormal), _mm256_set1_ps(0x1p-6f));
    return _mm256_sub_ps(_mm256_castsi256_ps(bits), excess);
}

INLINE __m256i load_nvfp4_avx2(const void *p)
{
    return _mm256_load_si256((const __m256i *)p);
}

/* Complete sums of rows [row, row + rows) of the pass to y. */
static inline void finish_nvfp4_avx2(size_t rows, const nvfp4_slice *s, size_t row, float (*tile)[MQ_NVFP4_NR])
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    float *y = s->y + row * s->ldy;
    for (size_t r = 0; r < rows; r++, y += s->ldy) {
        const __m256 scale = _mm256_set1_ps(s->scale[row + r]);
        for (int o = 0; o < 4; o++) {
            const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)s->features - 8 * o), lane);
            __m256 sum = _mm256_mul_ps(_mm256_load_ps(tile[r] + 8 * o), scale);
            if (s->bias) sum = _mm256_add_ps(sum, _mm256_maskload_ps(s->bias + 8 * o, mask));
            if (s->accumulate) sum = _mm256_add_ps(sum, _mm256_maskload_ps(y + 8 * o, mask));
            if (s->features == MQ_NVFP4_NR) {
                _mm256_storeu_ps(y + 8 * o, sum);
            } else {
                _mm256_maskstore_ps(y + 8 * o, mask, sum); /* slow on some processors */
            }
        }
    }
}

/* tile [rows][32] += the slice's blocks, for rows [row, row + rows) of the group a. */
typedef void micro_kernel(const nvfp4_slice *s, const uint8_t *a, size_t row, float (*tile)[MQ_NVFP4_NR]);

/* micro_kernels [NVFP4_STEP + 1], by the number of rows. */
static inline void run_slice_nvfp4_avx2(micro_kernel *const *micro_kernels, const nvfp4_slice *s, size_t rows,
                                        const uint8_t *a, float (*tile)[MQ_NVFP4_NR], const uint8_t *packed)
{
    for (size_t m = 0; m < rows; m += MQ_NVFP4_MR, tile += MQ_NVFP4_MR, a += s->group_bytes, packed += 128) {
        const size_t group = rows - m < MQ_NVFP4_MR ? rows - m : MQ_NVFP4_MR;
        mq__nvfp4_prefetch(s->y + m * s->ldy, s->ldy, s->last ? group : 0, packed);
        if (s->first) memset(tile, 0, group * sizeof *tile);
        for (size_t row = 0; row < group; row += NVFP4_STEP)
            micro_kernels[group - row < NVFP4_STEP ? group - row : NVFP4_STEP](s, a, row, tile + row);
        if (s->last) finish_nvfp4_avx2(group, s, m, tile);
    }
}

/* The slot nvfp4_gemm for 1 to MQ_NVFP4_THIN_AVX2 rows. */
enum { MQ_NVFP4_THIN_AVX2 = 4 };
void mq__nvfp4_thin_avx2(const mq_nvfp4_rows *a, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                         const mq_epilogue *out);

#ifdef MQ_VNNI_EVEX /* for the tests */
#define mq__nvfp4_gemm_avxvnni mq__nvfp4_gemm_vnni256
#endif
/* The slot nvfp4_gemm for processors with AVX-VNNI. */
void mq__nvfp4_gemm_avxvnni(const mq_nvfp4_rows *a, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                            const mq_epilogue *out, void *scratch);

#endif
