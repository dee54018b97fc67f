/* Activations to NVFP4, NEON. The same steps as the AVX-512 quantiser (rounding by adding and subtracting 1.5*2^(e+23-m), code
 * byte from the low bits of a float), four blocks at a time: one lane per block for the scales. */
#include "kernels/neon/nvfp4_neon.h"

enum { LANES = 4 };

/* Values [k, k + 4) of a row, zero past its end. */
INLINE float32x4_t load4(const float *row, size_t k, size_t k_width)
{
    return k < k_width ? load_first(row + k, k_width - k) : vdupq_n_f32(0);
}

/* Largest magnitudes of values [k, k + 16), by lane. */
INLINE float32x4_t block_max(const float *row, size_t k, size_t k_width)
{
    float32x4_t m[4];
    for (size_t i = 0; i < 4; i++)
        m[i] = vabsq_f32(load4(row, k + LANES * i, k_width));
    return vmaxq_f32(vmaxq_f32(m[0], m[1]), vmaxq_f32(m[2], m[3]));
}

static float row_max_neon(const float *row, size_t k_width)
{
    float32x4_t m = vdupq_n_f32(0);
    for (size_t k = 0; k < k_width; k += MQ_NVFP4_BLOCK)
        m = vmaxq_f32(m, block_max(row, k, k_width));
    return vmaxvq_f32(m);
}

/* `smallest`: bits of the least power of two that has its own step; `offset`: from a power's bits to its magic number. */
INLINE float32x4_t round_at_neon(float32x4_t x, uint32_t smallest, uint32_t offset)
{
    const uint32x4_t power = vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x7f800000));
    const float32x4_t magic =
        vreinterpretq_f32_u32(vaddq_u32(vmaxq_u32(power, vdupq_n_u32(smallest)), vdupq_n_u32(offset)));
    return vsubq_f32(vaddq_f32(x, magic), magic);
}

/* E4M3(x), x >= 0: three mantissa bits, smallest normal 2^-6. */
INLINE float32x4_t round_e4m3_neon(float32x4_t x)
{
    return round_at_neon(vminq_f32(x, vdupq_n_f32(448)), (127 - 6) << 23, (20 << 23) | 0x400000);
}

/* 2*E2M1(x) + 12 of 4 values, as halfwords. */
INLINE uint16x4_t code_e2m1_neon(float32x4_t x)
{
    const float32x4_t clamped = vmaxq_f32(vminq_f32(x, vdupq_n_f32(6)), vdupq_n_f32(-6));
    const float32x4_t rounded = round_at_neon(clamped, 127 << 23, (22 << 23) | 0x400000);
    return vmovn_u32(vreinterpretq_u32_f32(vaddq_f32(rounded, vdupq_n_f32(0x1.8p22f + 6.0f))));
}

/* 16 values from k on, times `inverse`, as bytes. */
INLINE uint8x16_t block_codes(const float *row, size_t k, size_t k_width, float inverse)
{
    uint16x4_t code[4];
    for (size_t i = 0; i < 4; i++)
        code[i] = code_e2m1_neon(vmulq_n_f32(load4(row, k + LANES * i, k_width), inverse));
    return vcombine_u8(vmovn_u16(vcombine_u16(code[0], code[1])), vmovn_u16(vcombine_u16(code[2], code[3])));
}

static void quantize_row_neon(const float *row, size_t k_width, float global, uint8_t *cell, size_t r)
{
    const float inverse_global = 1.0f / global;
    for (size_t k = 0; k < k_width; k += LANES * MQ_NVFP4_BLOCK) {
        float32x4_t v[LANES];
        for (size_t i = 0; i < LANES; i++)
            v[i] = block_max(row, k + MQ_NVFP4_BLOCK * i, k_width);
        const float32x4_t amax = vpmaxq_f32(vpmaxq_f32(v[0], v[1]), vpmaxq_f32(v[2], v[3])); /* lane i: of block i */
        const float32x4_t scale = round_e4m3_neon(vmulq_n_f32(vmulq_n_f32(amax, 1.0f / 6.0f), global));
        const uint32x4_t zero = vceqzq_f32(scale);
        const float32x4_t divisor = vbslq_f32(zero, vdupq_n_f32(1), vmulq_n_f32(scale, inverse_global));
        const float32x4_t quotient = vdivq_f32(vdupq_n_f32(1), divisor);
        float scales[LANES], inverses[LANES];
        vst1q_f32(scales, scale);
        vst1q_f32(inverses, vbslq_f32(zero, vdupq_n_f32(0), quotient));
        for (size_t i = 0; i < LANES && k + MQ_NVFP4_BLOCK * i < k_width; i++, cell += MQ_NVFP4_ROW_CELL) {
            const size_t at = k + MQ_NVFP4_BLOCK * i;
            vst1q_u8(cell + r * MQ_NVFP4_BLOCK, block_codes(row, at, k_width, inverses[i]));
            memcpy(cell + MQ_NVFP4_ROW_SCALES + r * sizeof(float), &scales[i], sizeof(float));
        }
    }
}

void mq__nvfp4_quantize_neon(const float *x, size_t ldx, size_t row0, size_t row1, size_t k_width,
                             const mq_nvfp4_rows *out)
{
    const size_t blocks = (k_width + MQ_NVFP4_BLOCK - 1) / MQ_NVFP4_BLOCK;
    for (size_t m = row0; m < row1; m++) {
        const float amax = row_max_neon(x + m * ldx, k_width);
        const float global = amax < MQ_NVFP4_TINY ? 1.0f : 2688.0f / amax;
        out->multiplier[m] = 1.0f / global;
        quantize_row_neon(x + m * ldx, k_width, global, out->panels + m / MQ_NVFP4_MR * blocks * MQ_NVFP4_ROW_CELL,
                          m % MQ_NVFP4_MR);
    }
    mq__nvfp4_pad_rows(out->panels, row1, blocks);
}
