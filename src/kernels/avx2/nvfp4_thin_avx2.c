/* NVFP4 W4A4 products of a few rows, AVX2: weights come from memory, and unpacking them must not take longer than that.
 *
 * The idea. A dword of a cell is eight k of one feature (nvfp4_pack.h), and the lookup of its nibbles may add 12 as well: weights are
 * unsigned then, activations signed, and what is too much is 12*sum(a), which a row has once for all features. So nothing is
 * stored in between and no sum of weights is taken: four vpmaddubsw make the dot products of a block of 8 features, two words each.
 * E4M3 scales become FP32 by way of FP16, which has room for all of them, as sw / 256; the activations' scale makes up for it.
 * All that is exact, and one rounding a block is left as in the reference: the same bits.
 *
 * A block of 8 features: 10 instructions to unpack, 3 for the scales, 12 a row.
 *
 * Measured (2-core Zen 3 class, one thread, 9728 x 2560 from memory; checkasm --bench nvfp4_gemm): one row 36 to 39 GMAC/s = 20 to 22
 * GB/s, where the GEMM's unpacked cells gave 20 GMAC/s; four rows 54 to 56, where they gave 50. */
#include "kernels/avx2/nvfp4_avx2.h"

enum {
    OCTETS = MQ_NVFP4_NR / 8,
    AHEAD = 8192, /* bytes: the processor's own prefetchers stop at the end of a page, and 14 blocks are one */
};

/* A row's block: four k in each dword of x[i], k = 4*i and on; start: -12*sum(a), spread over the two words of a feature. */
typedef struct row_block {
    __m256i x[4], start;
    __m256 scale;
} row_block;

INLINE row_block load_row_block(const uint8_t *codes, const float *scale)
{
    const __m256i offset = _mm256_set1_epi8(MQ_NVFP4_OFFSET);
    const __m256i all = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)codes));
    const __m256i a = _mm256_sub_epi8(all, offset);
    const __m256i x[4] = {_mm256_shuffle_epi32(a, 0x00), _mm256_shuffle_epi32(a, 0x55), _mm256_shuffle_epi32(a, 0xaa),
                          _mm256_shuffle_epi32(a, 0xff)};
    const __m256i sum = _mm256_add_epi8(_mm256_add_epi8(x[0], x[1]), _mm256_add_epi8(x[2], x[3])); /* at most 48 */
    return (row_block){
        .x = {x[0], x[1], x[2], x[3]},
        .start = _mm256_sub_epi16(_mm256_setzero_si256(), _mm256_maddubs_epi16(offset, sum)),
        .scale = _mm256_mul_ps(_mm256_broadcast_ss(scale), _mm256_set1_ps(256.0f)),
    };
}

/* Eight features of a cell: w[i] 2*e2m1 + 12 of k = 4*i and on, four in each dword; their scales / 256. */
INLINE __m256 load_octet(const uint8_t *cell, int octet, __m256i *w)
{
    const __m256i table =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    const __m256i low = _mm256_set1_epi8(15);
    UNROLL
    for (int h = 0; h < 2; h++) {
        const __m256i packed = _mm256_loadu_si256((const __m256i *)(const void *)(cell + 128 * h + 32 * octet));
        w[2 * h] = _mm256_shuffle_epi8(table, _mm256_and_si256(packed, low));
        w[2 * h + 1] = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(packed, 4), low));
    }
    const __m128i scales = _mm_loadl_epi64((const __m128i *)(const void *)(cell + MQ_NVFP4_CELL_SCALES + 8 * octet));
    return _mm256_cvtph_ps(_mm_slli_epi16(_mm_cvtepu8_epi16(scales), 7));
}

INLINE __m256 add_octet(const row_block *r, const __m256i *w, __m256 sw, __m256 sum)
{
    __m256i dot = _mm256_add_epi16(r->start, _mm256_maddubs_epi16(w[0], r->x[0]));
    UNROLL
    for (int i = 1; i < 4; i++) {
        dot = _mm256_add_epi16(dot, _mm256_maddubs_epi16(w[i], r->x[i]));
    }
    const __m256 exact = _mm256_cvtepi32_ps(_mm256_madd_epi16(dot, _mm256_set1_epi16(1)));
    return _mm256_fmadd_ps(_mm256_mul_ps(exact, sw), r->scale, sum);
}

/* tile [rows][32] = a panel's products, without tensor scales. a: the group of the rows. */
INLINE void thin_panel(const int rows, const uint8_t *a, const uint8_t *cell, size_t blocks, float (*tile)[MQ_NVFP4_NR])
{
    __m256 sum[MQ_NVFP4_THIN_AVX2][OCTETS];
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int o = 0; o < OCTETS; o++)
            sum[r][o] = _mm256_setzero_ps();
    }
    for (size_t b = 0; b < blocks; b++, cell += MQ_NVFP4_CELL, a += MQ_NVFP4_ROW_CELL) {
        for (int line = 0; line < MQ_NVFP4_CELL; line += 64)
            _mm_prefetch((const char *)cell + AHEAD + line, _MM_HINT_T0);
        row_block row[MQ_NVFP4_THIN_AVX2];
        UNROLL
        for (int r = 0; r < rows; r++)
            row[r] = load_row_block(a + r * MQ_NVFP4_BLOCK, (const float *)(const void *)(a + MQ_NVFP4_ROW_SCALES) + r);
        UNROLL
        for (int o = 0; o < OCTETS; o++) {
            __m256i w[4];
            const __m256 sw = load_octet(cell, o, w);
            UNROLL
            for (int r = 0; r < rows; r++)
                sum[r][o] = add_octet(&row[r], w, sw, sum[r][o]);
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int o = 0; o < OCTETS; o++)
            _mm256_store_ps(tile[r] + 8 * o, sum[r][o]);
    }
}

#define THIN(rows)                                                                                                     \
    static __attribute__((noinline)) void thin_##rows(const uint8_t *a, const uint8_t *cell, size_t blocks,            \
                                                      float(*tile)[MQ_NVFP4_NR])                                       \
    {                                                                                                                  \
        thin_panel(rows, a, cell, blocks, tile);                                                                       \
    }
THIN(1)
THIN(2)
THIN(3)
THIN(4)

void mq__nvfp4_thin_avx2(const mq_nvfp4_rows *a, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                         const mq_epilogue *out)
{
    static void (*const thin[])(const uint8_t *, const uint8_t *, size_t,
                                float(*)[MQ_NVFP4_NR]) = {NULL, thin_1, thin_2, thin_3, thin_4};
    _Alignas(32) float tile[MQ_NVFP4_THIN_AVX2][MQ_NVFP4_NR];
    float scale[MQ_NVFP4_THIN_AVX2];
    nvfp4_slice s = {.scale = scale};
    for (size_t r = 0; r < rows; r++)
        scale[r] = 0.25f * a->multiplier[r] * w->multiplier;
    for (size_t p = p0; p < p1; p++) {
        thin[rows](a->panels, mq__nvfp4_panel(w, p), w->blocks, tile);
        mq__nvfp4_set_output(&s, w, p, out, 0);
        finish_nvfp4_avx2(rows, &s, 0, tile);
    }
}
