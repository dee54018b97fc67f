/* Activations to NVFP4, AVX-512.
 *
 * A block of 16 values is one vector. A row is read twice: for its largest magnitude, then, 16 blocks at a time, for the
 * block maxima (a transposing reduction: one lane per block), the block scales (16 lanes at once) and the codes.
 * Rounding to E4M3 and E2M1 is one addition and one subtraction of 1.5*2^(e+23-m), where 2^e is the power of two at or
 * below the value (at least the smallest normal) and m the number of mantissa bits: FP32 addition rounds to nearest even
 * at just that place. The code byte 2*e2m1 + 12 is then the low byte of the float e2m1 + (1.5*2^22 + 6).
 *
 * Measured (2-core Cascade Lake class, 2.5 GHz, one thread, commit 5f6b6a1): 0.40 to 0.53 ns per value, K 1024 to 12288. */
#include "kernels/nvfp4_pack.h"

#include <immintrin.h>

enum { LANES = 16 };

/* vrangeps: pick by magnitude; the sign is cleared, or that of the first operand. */
enum { MAX_ABS = 0x0b, MIN_ABS_KEEP_SIGN = 0x02 };

static inline __m512 max_abs(__m512 a, __m512 b)
{
    return _mm512_range_ps(a, b, MAX_ABS);
}

static inline __m512 load_block_nvfp4_quantize_avx512(const float *row, size_t k, size_t k_width)
{
    if (k + LANES <= k_width) return _mm512_loadu_ps(row + k);
    if (k >= k_width) return _mm512_setzero_ps();
    return _mm512_maskz_loadu_ps((__mmask16)((1u << (k_width - k)) - 1), row + k);
}

static float row_max_nvfp4_quantize_avx512(const float *row, size_t k_width)
{
    __m512 m[4];
    for (int i = 0; i < 4; i++)
        m[i] = _mm512_setzero_ps();
    size_t k = 0;
    for (; k + 4 * LANES <= k_width; k += 4 * LANES) {
        for (size_t i = 0; i < 4; i++)
            m[i] = max_abs(m[i], _mm512_loadu_ps(row + k + LANES * i));
    }
    for (; k < k_width; k += LANES)
        m[0] = max_abs(m[0], load_block_nvfp4_quantize_avx512(row, k, k_width));
    return _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(m[0], m[1]), _mm512_max_ps(m[2], m[3])));
}

/* Lane i: the largest magnitude in v[i]. */
static inline __m512 transposed_max_abs(const __m512 v[LANES])
{
    __m512 a[8], b[4], c[2];
    for (int i = 0; i < 8; i++) {
        a[i] = max_abs(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
    }
    for (int i = 0; i < 4; i++) {
        const __m512d x = _mm512_castps_pd(a[2 * i]), y = _mm512_castps_pd(a[2 * i + 1]);
        b[i] = _mm512_max_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
    }
    for (int i = 0; i < 2; i++) { /* 128-bit lanes of b: 0 and 2 of one, 1 and 3 of the other */
        c[i] = _mm512_max_ps(_mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0x88),
                             _mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0xdd));
    }
    return _mm512_max_ps(_mm512_shuffle_f32x4(c[0], c[1], 0x88), _mm512_shuffle_f32x4(c[0], c[1], 0xdd));
}

/* Rounds to `step` mantissa positions: see the top. `smallest`: bits of the least power of two that has its own step. */
static inline __m512 round_at_nvfp4_quantize_avx512(__m512 x, int smallest, int offset)
{
    const __m512i power = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7f800000));
    const __m512 magic = _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_max_epi32(power, _mm512_set1_epi32(smallest)), _mm512_set1_epi32(offset)));
    return _mm512_sub_ps(_mm512_add_ps(x, magic), magic);
}

/* E4M3(x), x >= 0: three mantissa bits, smallest normal 2^-6. */
static inline __m512 round_e4m3_nvfp4_quantize_avx512(__m512 x)
{
    return round_at_nvfp4_quantize_avx512(_mm512_min_ps(x, _mm512_set1_ps(448.0f)), (127 - 6) << 23,
                                          (20 << 23) | 0x400000);
}

/* 2*E2M1(x) + 12 of 16 values. */
static inline __m128i code_e2m1_nvfp4_quantize_avx512(__m512 x)
{
    const __m512 clamped = _mm512_range_ps(x, _mm512_set1_ps(6.0f), MIN_ABS_KEEP_SIGN);
    const __m512 rounded = round_at_nvfp4_quantize_avx512(clamped, 127 << 23, (22 << 23) | 0x400000);
    return _mm512_cvtepi32_epi8(_mm512_castps_si512(_mm512_add_ps(rounded, _mm512_set1_ps(0x1.8p22f + 6.0f))));
}

#define INLINE static inline __attribute__((always_inline))

/* The next 16 blocks of a row, or what is left of it; `whole` is a constant and says that all 16 are there. */
INLINE void quantize_chunk(const float *x, size_t left, bool whole, float global, uint8_t *codes, uint8_t *scales)
{
    __m512 v[LANES];
    for (size_t i = 0; i < LANES; i++)
        v[i] = whole ? _mm512_loadu_ps(x + LANES * i) : load_block_nvfp4_quantize_avx512(x, LANES * i, left);
    const __m512 amax = _mm512_mul_ps(transposed_max_abs(v), _mm512_set1_ps(1.0f / 6.0f));
    const __m512 scale = round_e4m3_nvfp4_quantize_avx512(_mm512_mul_ps(amax, _mm512_set1_ps(global)));
    const __mmask16 nonzero = _mm512_cmp_ps_mask(scale, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    const __m512 inverse =
        _mm512_maskz_div_ps(nonzero, _mm512_set1_ps(1.0f), _mm512_mul_ps(scale, _mm512_set1_ps(1.0f / global)));
    _Alignas(64) float scale_of[LANES], inverse_of[LANES];
    _mm512_store_ps(scale_of, scale);
    _mm512_store_ps(inverse_of, inverse);
    for (size_t i = 0; i < LANES && (whole || LANES * i < left); i++) {
        const __m512 block =
            whole ? _mm512_loadu_ps(x + LANES * i) : load_block_nvfp4_quantize_avx512(x, LANES * i, left);
        const __m128i code = code_e2m1_nvfp4_quantize_avx512(_mm512_mul_ps(block, _mm512_set1_ps(inverse_of[i])));
        _mm_storeu_si128((__m128i *)(void *)(codes + i * MQ_NVFP4_ROW_CELL), code);
        memcpy(scales + i * MQ_NVFP4_ROW_CELL, &scale_of[i], sizeof(float));
    }
}

/* Row r of a group of cells. */
static void quantize_row_nvfp4_avx512(const float *x, size_t k_width, float global, uint8_t *cells, size_t r)
{
    enum { CHUNK = LANES * MQ_NVFP4_BLOCK };
    uint8_t *codes = cells + r * MQ_NVFP4_BLOCK, *scales = cells + MQ_NVFP4_ROW_SCALES + r * sizeof(float);
    for (; k_width >= CHUNK; k_width -= CHUNK, x += CHUNK) {
        quantize_chunk(x, CHUNK, true, global, codes, scales);
        codes += (size_t)LANES * MQ_NVFP4_ROW_CELL, scales += (size_t)LANES * MQ_NVFP4_ROW_CELL;
    }
    if (k_width) quantize_chunk(x, k_width, false, global, codes, scales);
}

void mq__nvfp4_quantize_avx512(const float *x, size_t ldx, size_t row0, size_t row1, size_t k_width,
                               const mq_nvfp4_rows *out)
{
    const size_t blocks = (k_width + MQ_NVFP4_BLOCK - 1) / MQ_NVFP4_BLOCK;
    for (size_t m = row0; m < row1; m++) {
        const float amax = row_max_nvfp4_quantize_avx512(x + m * ldx, k_width);
        const float global = amax < MQ_NVFP4_TINY ? 1.0f : 2688.0f / amax;
        out->multiplier[m] = 1.0f / global;
        quantize_row_nvfp4_avx512(x + m * ldx, k_width, global,
                                  out->panels + m / MQ_NVFP4_MR * blocks * MQ_NVFP4_ROW_CELL, m % MQ_NVFP4_MR);
    }
    mq__nvfp4_pad_rows(out->panels, row1, blocks);
}
