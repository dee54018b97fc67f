/* INT8 W8A8: quantiser and GEMM, AVX2.
 *
 * vpmaddubsw saturates at 16 bits, which (a + 128) * w would pass; |a| * (w with a's sign) does not: pairs are at most
 * 2*127*127. Four instructions (sign, two multiply-adds, add) for 32 products: as many products per instruction as an FP32
 * FMA, so INT8 gains on this level only what processors with more integer than FMA units give. `--prefill auto` knows.
 * Where AVX-VNNI exists, int8_gemm_avxvnni.c takes the GEMM over.
 *
 * Registers of one row x 32 features: sums 4, int32 4, activation 2, ones 1, weights and products 4 = 15. */
#include "kernels/avx2/int8_avx2.h"
#include "kernels/table.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

/* acc [4] += one group of one row. */
INLINE void add_group_int8_avx2(const uint8_t *a, float sa, const uint8_t *w, __m256 acc[4])
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i t[4];
    for (int v = 0; v < 4; v++)
        t[v] = _mm256_setzero_si256();
    for (size_t j = 0; j < MQ_INT8_GROUP / 4; j++) {
        int32_t four;
        memcpy(&four, a + 4 * j, sizeof four);
        const __m256i x = _mm256_xor_si256(_mm256_set1_epi32(four), _mm256_set1_epi8((char)MQ_INT8_OFFSET));
        const __m256i magnitude = _mm256_abs_epi8(x);
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++) {
            const __m256i weights = _mm256_load_si256((const __m256i *)(const void *)(w + 128 * j + 32 * v));
            const __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(weights, x));
            t[v] = _mm256_add_epi32(t[v], _mm256_madd_epi16(pairs, ones));
        }
    }
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; v++) {
        const __m256 sw = _mm256_load_ps((const float *)(const void *)(w + MQ_INT8_CELL_SCALES + 32 * v));
        const __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(t[v]), sw);
        acc[v] = _mm256_fmadd_ps(scaled, _mm256_set1_ps(sa), acc[v]);
    }
}

void mq__int8_finish_avx2(const int8_slice *s, float *y, const float *sum)
{
    for (size_t f = 0; f < s->features; f++) {
        const float value = s->bias ? sum[f] + s->bias[f] : sum[f];
        y[f] = s->accumulate ? value + y[f] : value;
    }
}

static void run_int8_avx2(const int8_slice *s, size_t rows, const uint8_t *a, float (*tile)[MQ_INT8_NR])
{
    for (size_t r = 0; r < rows; r++) {
        __m256 acc[4];
        for (size_t v = 0; v < 4; v++)
            acc[v] = s->first ? _mm256_setzero_ps() : _mm256_load_ps(tile[r] + 8 * v);
        for (size_t g = 0; g < s->groups; g++) {
            const uint8_t *cell = a + g * MQ_INT8_ROW_CELL;
            float sa;
            memcpy(&sa, cell + MQ_INT8_ROW_SCALES + 4 * r, sizeof sa);
            add_group_int8_avx2(cell + r * MQ_INT8_GROUP, sa, s->cells + g * MQ_INT8_CELL, acc);
        }
        for (size_t v = 0; v < 4; v++)
            _mm256_store_ps(tile[r] + 8 * v, acc[v]);
        if (s->last) mq__int8_finish_avx2(s, s->y + r * s->ldy, tile[r]);
    }
}

static void gemm_int8_avx2(const mq_int8_rows *a, size_t rows, const mq_int8 *w, size_t p0, size_t p1,
                           const mq_epilogue *out, void *scratch)
{
    static const int8_core core = {.rows = MQ_INT8_MR, .run = run_int8_avx2};
    if (rows <= MQ_INT8_MR) {
        mq__int8_run_few(run_int8_avx2, a, rows, w, p0, p1, out, scratch);
    } else {
        mq__int8_run(&core, a, rows, w, p0, p1, out, scratch);
    }
}

static void quantize_group_int8_avx2(const float *x, uint8_t *codes, uint8_t *scale_at)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 m = _mm256_setzero_ps();
    for (size_t i = 0; i < MQ_INT8_GROUP; i += 8)
        m = _mm256_max_ps(m, _mm256_andnot_ps(sign, _mm256_loadu_ps(x + i)));
    float lanes[8], amax = 0;
    _mm256_storeu_ps(lanes, m);
    for (int i = 0; i < 8; i++)
        amax = lanes[i] > amax ? lanes[i] : amax;
    const bool zero = amax < MQ_INT8_TINY;
    const float scale = zero ? 0 : amax * (1.0f / 127.0f);
    const __m256 inverse = _mm256_set1_ps(zero ? 0 : 127.0f / amax);
    for (size_t i = 0; i < MQ_INT8_GROUP; i += 32) {
        __m256i q[4];
        for (size_t j = 0; j < 4; j++)
            q[j] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i + 8 * j), inverse));
        const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
        const __m256i ordered = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256((__m256i *)(void *)(codes + i),
                            _mm256_xor_si256(ordered, _mm256_set1_epi8((char)MQ_INT8_OFFSET)));
    }
    memcpy(scale_at, &scale, sizeof scale);
}

static void quantize_int8_avx2(const float *x, size_t ldx, size_t row0, size_t row1, size_t k_width,
                               const mq_int8_rows *out)
{
    const size_t groups = (k_width + MQ_INT8_GROUP - 1) / MQ_INT8_GROUP;
    for (size_t m = row0; m < row1; m++) {
        const size_t r = m % MQ_INT8_MR;
        uint8_t *cell = out->panels + m / MQ_INT8_MR * groups * MQ_INT8_ROW_CELL;
        for (size_t k = 0; k < k_width; k += MQ_INT8_GROUP, cell += MQ_INT8_ROW_CELL) {
            float tail[MQ_INT8_GROUP] = {0};
            const float *from = x + m * ldx + k;
            if (k_width - k < MQ_INT8_GROUP) from = memcpy(tail, from, (k_width - k) * sizeof *from);
            quantize_group_int8_avx2(from, cell + r * MQ_INT8_GROUP, cell + MQ_INT8_ROW_SCALES + 4 * r);
        }
    }
    mq__int8_pad_rows(out->panels, row1, groups);
}

void mq__fill_avx2_int8(mq_kernels *table)
{
    static const mq_variant gemm[] = {MQ_VARIANT("vnni", mq__int8_gemm_avxvnni), MQ_VARIANT("madd", gemm_int8_avx2)};
    table->int8_quantize = quantize_int8_avx2;
    table->int8_gemm = gemm_int8_avx2;
    if (mq__cpu_avx_vnni()) mq__variants_set(table, MQ_INT8_GEMM, gemm, 2);
    if (table->gemm_scratch_bytes < mq__int8_scratch_bytes()) table->gemm_scratch_bytes = mq__int8_scratch_bytes();
}
