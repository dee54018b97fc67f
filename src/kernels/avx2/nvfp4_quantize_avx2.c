/* Activations to NVFP4, AVX2. The same steps as the AVX-512 quantiser (rounding by adding and subtracting
 * 1.5*2^(e+23-m), code byte from the low bits of a float), eight blocks at a time: one lane per block for the scales.
 *
 * Measured (2-core Cascade Lake class, 2.5 GHz, one thread, commit 5f6b6a1): 0.69 to 0.87 ns per value, K 1024 to 12288. */
#include "kernels/nvfp4_pack.h"

#include <immintrin.h>

enum { LANES = 8 };

static inline __m256 absolute(__m256 x)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}

/* Values [k, k + 8) of a row, zero past its end. */
static inline __m256 load8(const float *row, size_t k, size_t k_width)
{
    if (k + LANES <= k_width) return _mm256_loadu_ps(row + k);
    if (k >= k_width) return _mm256_setzero_ps();
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_maskload_ps(row + k, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(k_width - k)), lane));
}

static float row_max_nvfp4_quantize_avx2(const float *row, size_t k_width)
{
    __m256 m[4];
    for (int i = 0; i < 4; i++)
        m[i] = _mm256_setzero_ps();
    size_t k = 0;
    for (; k + 4 * LANES <= k_width; k += 4 * LANES) {
        for (size_t i = 0; i < 4; i++)
            m[i] = _mm256_max_ps(m[i], absolute(_mm256_loadu_ps(row + k + LANES * i)));
    }
    for (; k < k_width; k += LANES)
        m[0] = _mm256_max_ps(m[0], absolute(load8(row, k, k_width)));
    const __m256 all = _mm256_max_ps(_mm256_max_ps(m[0], m[1]), _mm256_max_ps(m[2], m[3]));
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

/* Lane i: the largest of v[i], v[i] >= 0. */
static inline __m256 transposed_max(const __m256 v[LANES])
{
    __m256 a[4], b[2];
    for (int i = 0; i < 4; i++) {
        a[i] = _mm256_max_ps(_mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]));
    }
    for (int i = 0; i < 2; i++) {
        const __m256d x = _mm256_castps_pd(a[2 * i]), y = _mm256_castps_pd(a[2 * i + 1]);
        b[i] = _mm256_max_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(x, y)), _mm256_castpd_ps(_mm256_unpackhi_pd(x, y)));
    }
    return _mm256_max_ps(_mm256_permute2f128_ps(b[0], b[1], 0x20), _mm256_permute2f128_ps(b[0], b[1], 0x31));
}

/* `smallest`: bits of the least power of two that has its own step; `offset`: from a power's bits to its magic number. */
static inline __m256 round_at_nvfp4_quantize_avx2(__m256 x, int smallest, int offset)
{
    const __m256i power = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7f800000));
    const __m256 magic = _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_max_epi32(power, _mm256_set1_epi32(smallest)), _mm256_set1_epi32(offset)));
    return _mm256_sub_ps(_mm256_add_ps(x, magic), magic);
}

/* E4M3(x), x >= 0: three mantissa bits, smallest normal 2^-6. */
static inline __m256 round_e4m3_nvfp4_quantize_avx2(__m256 x)
{
    return round_at_nvfp4_quantize_avx2(_mm256_min_ps(x, _mm256_set1_ps(448.0f)), (127 - 6) << 23,
                                        (20 << 23) | 0x400000);
}

/* 2*E2M1(x) + 12 of 8 values, as dwords. */
static inline __m256i code_e2m1_nvfp4_quantize_avx2(__m256 x)
{
    const __m256 clamped = _mm256_max_ps(_mm256_min_ps(x, _mm256_set1_ps(6.0f)), _mm256_set1_ps(-6.0f));
    const __m256 rounded = round_at_nvfp4_quantize_avx2(clamped, 127 << 23, (22 << 23) | 0x400000);
    const __m256i bits = _mm256_castps_si256(_mm256_add_ps(rounded, _mm256_set1_ps(0x1.8p22f + 6.0f)));
    return _mm256_and_si256(bits, _mm256_set1_epi32(255));
}

static inline __m128i pack_codes(__m256i low, __m256i high)
{
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8); /* lanes 0 2 1 3: in order */
    return _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

static void quantize_row_nvfp4_avx2(const float *row, size_t k_width, float global, uint8_t *cell, size_t r)
{
    const __m256 inverse_global = _mm256_set1_ps(1.0f / global);
    for (size_t k = 0; k < k_width; k += LANES * MQ_NVFP4_BLOCK) {
        __m256 v[LANES];
        for (size_t i = 0; i < LANES; i++) {
            const size_t at = k + MQ_NVFP4_BLOCK * i;
            v[i] = _mm256_max_ps(absolute(load8(row, at, k_width)), absolute(load8(row, at + LANES, k_width)));
        }
        const __m256 amax = _mm256_mul_ps(transposed_max(v), _mm256_set1_ps(1.0f / 6.0f));
        const __m256 scale = round_e4m3_nvfp4_quantize_avx2(_mm256_mul_ps(amax, _mm256_set1_ps(global)));
        const __m256 zero = _mm256_cmp_ps(scale, _mm256_setzero_ps(), _CMP_EQ_OQ);
        const __m256 divisor = _mm256_blendv_ps(_mm256_mul_ps(scale, inverse_global), _mm256_set1_ps(1.0f), zero);
        const __m256 inverse = _mm256_andnot_ps(zero, _mm256_div_ps(_mm256_set1_ps(1.0f), divisor));
        float scales[LANES], inverses[LANES];
        _mm256_storeu_ps(scales, scale);
        _mm256_storeu_ps(inverses, inverse);
        for (size_t i = 0; i < LANES && k + MQ_NVFP4_BLOCK * i < k_width; i++, cell += MQ_NVFP4_ROW_CELL) {
            const size_t at = k + MQ_NVFP4_BLOCK * i;
            const __m256 s = _mm256_set1_ps(inverses[i]);
            const __m256i low = code_e2m1_nvfp4_quantize_avx2(_mm256_mul_ps(load8(row, at, k_width), s));
            const __m256i high = code_e2m1_nvfp4_quantize_avx2(_mm256_mul_ps(load8(row, at + LANES, k_width), s));
            _mm_storeu_si128((__m128i *)(void *)(cell + r * MQ_NVFP4_BLOCK), pack_codes(low, high));
            memcpy(cell + MQ_NVFP4_ROW_SCALES + r * sizeof(float), &scales[i], sizeof(float));
        }
    }
}

void mq__nvfp4_quantize_avx2(const float *x, size_t ldx, size_t row0, size_t row1, size_t k_width,
                             const mq_nvfp4_rows *out)
{
    const size_t blocks = (k_width + MQ_NVFP4_BLOCK - 1) / MQ_NVFP4_BLOCK;
    for (size_t m = row0; m < row1; m++) {
        const float amax = row_max_nvfp4_quantize_avx2(x + m * ldx, k_width);
        const float global = amax < MQ_NVFP4_TINY ? 1.0f : 2688.0f / amax;
        out->multiplier[m] = 1.0f / global;
        quantize_row_nvfp4_avx2(x + m * ldx, k_width, global,
                                out->panels + m / MQ_NVFP4_MR * blocks * MQ_NVFP4_ROW_CELL, m % MQ_NVFP4_MR);
    }
    mq__nvfp4_pad_rows(out->panels, row1, blocks);
}
