/* W16A16 GEMM of the AVX512_BF16 level: vdpbf16ps multiplies pairs of BF16, twice the products of an FP32 FMA.
 *
 * The blocking, the tile and the scratch are those of the dense GEMM, with a pair of k in the place of one k: activations
 * [group][pair][14], expanded weights [pair][32], each 32 bits. Expansion is the dense one's 16x16 dword transposition
 * without the widening. Throughput model per pair: 28 vdpbf16ps against 16 loads, as in the dense tile.
 *
 * The instruction rounds and flushes subnormals in its own way, so this slot is BOUND where the others are EXACT.
 *
 * Measured (Zen 4 class, one thread, the commit that added it): 1.83 to 1.96 times the FP32 FMA peak at M = 512 and 2048, where the
 * bare instruction reaches 2.03. The intrinsic keeps the sums in registers here; inline assembly made gcc 12 spill them. */
#include "kernels/avx512/attention_avx512.h"
#include "kernels/avx512/transpose_avx512.h"
#include "kernels/avx512bf16/avx512bf16.h"
#include "kernels/avx512bf16/row_pairs_avx512bf16.h"
#include "kernels/dense_driver.h"
#include "kernels/table.h"

#define INLINE static inline __attribute__((always_inline))

INLINE __m512 gemm_multiply_add(__m512 sum, __m512 x, __m512 b)
{
    return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)b);
}

#include "kernels/avx512/dense_tile_avx512.h"

DENSE_TILES

static const dense_core core = {.tiles = DENSE_TILE_LIST, .kc = 256, .panels = 4};

/* Sixteen features (rows of w, `live` of them present) and `pairs` pairs of k, of which `kc` values exist. */
static void expand_half(const uint16_t *w, size_t ld, size_t live, size_t kc, size_t pairs, float *b)
{
    for (size_t p = 0; p < pairs; p += 16) {
        const size_t k = 2 * p, width = kc - k < 32 ? kc - k : 32, count = pairs - p < 16 ? pairs - p : 16;
        const __mmask32 mask = (__mmask32)(0xFFFFFFFFu >> (32 - width));
        __m512i t[16];
#pragma GCC unroll 16
        for (size_t i = 0; i < 16; i++) {
            t[i] = i < live ? _mm512_maskz_loadu_epi16(mask, w + i * ld + k) : _mm512_setzero_si512();
        }
        transpose_16x16(t);
#pragma GCC unroll 16
        for (size_t i = 0; i < 16; i++) {
            if (i < count) _mm512_store_ps(b + (p + i) * DENSE_NR, _mm512_castsi512_ps(t[i]));
        }
    }
}

static void expand_bf16(const void *weights, size_t panel, size_t pair0, size_t pairs, float *b)
{
    const mq_dense *w = weights;
    const size_t k0 = 2 * pair0, kc = w->k_width - k0 < 2 * pairs ? w->k_width - k0 : 2 * pairs;
    for (size_t half = 0; half < 2; half++) {
        const size_t n = panel * DENSE_NR + half * 16;
        const size_t live = n >= w->n ? 0 : w->n - n < 16 ? w->n - n : 16;
        expand_half((const uint16_t *)w->data + n * w->k_width + k0, w->k_width, live, kc, pairs, b + half * 16);
    }
}

void mq__bf16_gemm_avx512bf16(const float *panels, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                              const mq_epilogue *out, void *scratch)
{
    const dense_source source = {.core = &core,
                                 .expand = expand_bf16,
                                 .weights = w,
                                 .n = n1 < w->n ? n1 : w->n,
                                 .k_width = ((size_t)w->k_width + 1) / 2,
                                 .row_floats = w->k_width,
                                 .multiplier = 1,
                                 .rows = w->data,
                                 .element_bytes = 4};
    mq__dense_run(panels, rows, &source, n0 / DENSE_NR, (n1 + DENSE_NR - 1) / DENSE_NR, out, scratch);
}

void mq__bf16_pack_rows_avx512bf16(const float *x, size_t ldx, size_t rows, size_t k_width, size_t g0, size_t g1,
                                   float *panels)
{
    const size_t pairs = (k_width + 1) / 2;
    for (size_t g = g0; g < g1; g++) {
        const size_t live = rows - g * MR < MR ? rows - g * MR : MR;
        const float *from = x + g * MR * ldx;
        float *panel = panels + g * k_width * MR; /* the pairs take half of the room */
        for (size_t p = 0; p < pairs; p += 16) {
            const size_t k = 2 * p, width = k_width - k < 32 ? k_width - k : 32;
            __m512i t[16];
            load_row_pairs(from + k, ldx, live, width, t);
#pragma GCC unroll 16
            for (size_t i = 0; i < 16; i++) {
                if (p + i < pairs) _mm512_mask_storeu_epi32(panel + (p + i) * MR, (1u << MR) - 1, t[i]);
            }
        }
    }
}

/* Of INT8 attention, the tile that the rows are in themselves in BF16 or in FP32: twice the products an instruction, but on some
 * processors not in the same time, and queries are packed twice. */
static const mq_variant int8[] = {MQ_VARIANT("own_fp32", mq__attention_int8_avx512),
                                  MQ_VARIANT("own_bf16", mq__attention_int8_avx512bf16)};

void mq__fill_avx512bf16(mq_kernels *table)
{
    table->bf16_pack_rows = mq__bf16_pack_rows_avx512bf16;
    table->bf16_gemm = mq__bf16_gemm_avx512bf16;
    table->attention_prefill_bf16 = mq__attention_bf16_avx512bf16;
    mq__variants_set(table, MQ_INT8_ATTENTION, int8, 2);
}
