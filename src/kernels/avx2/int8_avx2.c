/* INT8 W8A8: quantiser, AVX2. The GEMM is int8_gemm_avx2.c, with AVX-VNNI int8_gemm_avxvnni.c. */
#include "kernels/avx2/int8_avx2.h"
#include "kernels/table.h"

#include <immintrin.h>

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
    static const mq_variant gemm[] = {MQ_VARIANT("vnni", mq__int8_gemm_avxvnni),
                                      MQ_VARIANT("madd", mq__int8_gemm_avx2)};
    const size_t need = mq__int8_scratch_bytes_avx2();
    table->int8_quantize = quantize_int8_avx2;
    table->int8_gemm = mq__int8_gemm_avx2;
    if (mq__cpu_avx_vnni()) mq__variants_set(table, MQ_INT8_GEMM, gemm, 2);
    if (table->gemm_scratch_bytes < need) table->gemm_scratch_bytes = need;
}
