/* Norms, rotation, activation, conversions and the machine's limits on AVX-512.
 *
 * One vector is the 16 lanes of the contract, so every sum is the reference's, lane by lane; tails are masked loads whose
 * missing lanes are zero (an FMA with 0*0 leaves its lane unchanged). These kernels touch each value once or twice and run
 * at the speed of the cache that holds the row. */
#include "kernels/ref/math_ref.h"
#include "kernels/table.h"

#include <immintrin.h>

static inline __mmask16 tail_mask_avx512(size_t count)
{
    return count >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << count) - 1);
}

static inline float sum_lanes_avx512(__m512 v)
{
    const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}

static inline float inverse_rms_avx512(const float *x, size_t n, float eps)
{
    __m512 sum = _mm512_setzero_ps();
    for (size_t i = 0; i < n; i += 16) {
        const __m512 v = _mm512_maskz_loadu_ps(tail_mask_avx512(n - i), x + i);
        sum = _mm512_fmadd_ps(v, v, sum);
    }
    return 1.0f / sqrtf(sum_lanes_avx512(sum) / (float)n + eps);
}

static void rmsnorm_avx512(float *y, const float *x, const float *weight, size_t n, float eps)
{
    const __m512 r = _mm512_set1_ps(inverse_rms_avx512(x, n, eps));
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = tail_mask_avx512(n - i);
        const __m512 scaled = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), r);
        _mm512_mask_storeu_ps(y + i, m, _mm512_mul_ps(scaled, _mm512_maskz_loadu_ps(m, weight + i)));
    }
}

static void norm_rope_avx512(float *x, size_t heads, size_t head_dim, size_t rotary, const float *weight, float eps,
                             const float *cos, const float *sin)
{
    const size_t half = rotary / 2;
    for (size_t h = 0; h < heads; h++, x += head_dim) {
        if (weight) {
            rmsnorm_avx512(x, x, weight, head_dim, eps);
        }
        for (size_t i = 0; i < half; i += 16) {
            const __mmask16 m = tail_mask_avx512(half - i);
            const __m512 x1 = _mm512_maskz_loadu_ps(m, x + i), x2 = _mm512_maskz_loadu_ps(m, x + half + i);
            const __m512 c = _mm512_maskz_loadu_ps(m, cos + i), s = _mm512_maskz_loadu_ps(m, sin + i);
            _mm512_mask_storeu_ps(x + i, m, _mm512_fmsub_ps(x1, c, _mm512_mul_ps(x2, s)));
            _mm512_mask_storeu_ps(x + half + i, m, _mm512_fmadd_ps(x2, c, _mm512_mul_ps(x1, s)));
        }
    }
}

/* mq__exp_f32 on 16 lanes. */
static inline __m512 exp16(__m512 x)
{
    const __m512 magic = _mm512_set1_ps(MQ_EXP_MAGIC);
    x = _mm512_max_ps(_mm512_min_ps(x, _mm512_set1_ps(MQ_EXP_HIGH)), _mm512_set1_ps(MQ_EXP_LOW));
    const __m512 t = _mm512_fmadd_ps(x, _mm512_set1_ps(MQ_EXP_LOG2E), magic);
    const __m512 n = _mm512_sub_ps(t, magic);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-MQ_EXP_LN2_HI), x);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(-MQ_EXP_LN2_LO), r);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(MQ_EXP_C6), r, _mm512_set1_ps(MQ_EXP_C5));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(MQ_EXP_C4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(MQ_EXP_C3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(MQ_EXP_C2));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(t), 23)));
}

static void swiglu_avx512(float *y, const float *gate, const float *up, size_t n)
{
    const __m512i sign = _mm512_set1_epi32(INT32_MIN);
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = tail_mask_avx512(n - i);
        const __m512 g = _mm512_maskz_loadu_ps(m, gate + i), u = _mm512_maskz_loadu_ps(m, up + i);
        const __m512 minus = _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(g), sign));
        const __m512 silu = _mm512_div_ps(g, _mm512_add_ps(_mm512_set1_ps(1.0f), exp16(minus)));
        _mm512_mask_storeu_ps(y + i, m, _mm512_mul_ps(silu, u));
    }
}

static void geglu_avx512(float *y, const float *gate, const float *up, size_t n)
{
    const __m512 one = _mm512_set1_ps(1.0f);
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = tail_mask_avx512(n - i);
        const __m512 g = _mm512_maskz_loadu_ps(m, gate + i), u = _mm512_maskz_loadu_ps(m, up + i);
        const __m512 cubic = _mm512_fmadd_ps(_mm512_set1_ps(MQ_GELU_CUBIC), _mm512_mul_ps(g, g), one);
        const __m512 exponent = _mm512_mul_ps(_mm512_mul_ps(g, cubic), _mm512_set1_ps(MQ_GELU_SCALE));
        const __m512 gelu = _mm512_div_ps(g, _mm512_add_ps(one, exp16(exponent)));
        _mm512_mask_storeu_ps(y + i, m, _mm512_mul_ps(gelu, u));
    }
}

static inline __m512 one_and_exp_of_minus(__m512 x)
{
    const __m512i sign = _mm512_set1_epi32(INT32_MIN);
    const __m512 minus = _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(x), sign));
    return _mm512_add_ps(_mm512_set1_ps(1.0f), exp16(minus));
}

static void sigmoid_gate_avx512(float *y, const float *gate, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = tail_mask_avx512(n - i);
        const __m512 x = _mm512_maskz_loadu_ps(m, y + i), g = _mm512_maskz_loadu_ps(m, gate + i);
        _mm512_mask_storeu_ps(y + i, m, _mm512_div_ps(x, one_and_exp_of_minus(g)));
    }
}

static void conv_silu_avx512(float *y, const float *const *u, const float *w, size_t taps, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = tail_mask_avx512(n - i);
        __m512 sum = _mm512_setzero_ps();
        for (size_t t = 0; t < taps; t++) {
            sum = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(m, w + t * n + i), _mm512_maskz_loadu_ps(m, u[t] + i), sum);
        }
        _mm512_mask_storeu_ps(y + i, m, _mm512_div_ps(sum, one_and_exp_of_minus(sum)));
    }
}

static void f32_to_bf16_avx512(uint16_t *y, const float *x, size_t n)
{
    const __m512i one = _mm512_set1_epi32(1), half = _mm512_set1_epi32(0x7fff), quiet = _mm512_set1_epi32(0x40);
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = tail_mask_avx512(n - i);
        const __m512 v = _mm512_maskz_loadu_ps(m, x + i);
        const __m512i bits = _mm512_castps_si512(v), upper = _mm512_srli_epi32(bits, 16);
        const __m512i odd = _mm512_and_si512(upper, one);
        __m512i out = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, half), odd), 16);
        out = _mm512_mask_or_epi32(out, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), upper, quiet);
        _mm256_mask_storeu_epi16(y + i, m, _mm512_cvtepi32_epi16(out));
    }
}

static void dense_to_f32_avx512(float *y, const void *x, mq_dense_type type, size_t n)
{
    const uint16_t *in = x;
    switch (type) {
    case MQ_DENSE_BF16:
        for (size_t i = 0; i < n; i += 16) {
            const __mmask16 m = tail_mask_avx512(n - i);
            const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, in + i));
            _mm512_mask_storeu_epi32(y + i, m, _mm512_slli_epi32(wide, 16));
        }
        break;
    case MQ_DENSE_F16:
        for (size_t i = 0; i < n; i += 16) {
            const __mmask16 m = tail_mask_avx512(n - i);
            _mm512_mask_storeu_ps(y + i, m, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, in + i)));
        }
        break;
    case MQ_DENSE_F32:
        memcpy(y, x, n * sizeof *y);
        break;
    }
}

/* 24 chains cover 2 ports x 4 cycles of latency three times over; the rest of the registers hold the operands. */
static uint64_t burn_fma_avx512(uint64_t rounds)
{
    enum { CHAINS = 24 };
    __m512 acc[CHAINS];
    __m512 a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(1.0f);
    for (int c = 0; c < CHAINS; c++) {
        acc[c] = _mm512_set1_ps((float)c);
    }
    for (uint64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 24
        for (int c = 0; c < CHAINS; c++) {
            acc[c] = _mm512_fmadd_ps(acc[c], a, b);
        }
        __asm__ volatile("" : "+v"(a), "+v"(b)); /* keeps the compiler from closing the recurrence */
    }
    __m512 sum = acc[0];
    for (int c = 1; c < CHAINS; c++) {
        sum = _mm512_add_ps(sum, acc[c]);
    }
    __asm__ volatile("" : : "v"(sum));
    return rounds * CHAINS * 16 + 1;
}

/* ahead: bytes to prefetch from what is read, past the end, too, which is harmless; 0: none. */
static inline __attribute__((always_inline)) uint64_t read_in_avx512(const char *p, size_t bytes, const size_t streams,
                                                                     const size_t ahead)
{
    const size_t each = bytes / streams;
    __m512i sum[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
    for (size_t i = 0; i < each; i += 64) {
#pragma GCC unroll 4
        for (size_t s = 0; s < streams; s++) {
            const char *line = p + s * each + i;
            if (ahead) _mm_prefetch(line + ahead, _MM_HINT_T0);
            sum[s] = _mm512_add_epi64(sum[s], _mm512_loadu_si512(line));
        }
    }
    const __m512i all = _mm512_add_epi64(_mm512_add_epi64(sum[0], sum[1]), _mm512_add_epi64(sum[2], sum[3]));
    uint64_t lanes[8], total = 0;
    _mm512_storeu_si512(lanes, all);
    for (int i = 0; i < 8; i++) {
        total += lanes[i];
    }
    return total;
}

static uint64_t read_stream_avx512(const void *data, size_t bytes, mq_read_way way)
{
    return way == MQ_READ_AHEAD ? read_in_avx512(data, bytes, 4, 1024) : read_in_avx512(data, bytes, 2, 0);
}

void mq__fill_avx512_elementwise(mq_kernels *table)
{
    table->rmsnorm = rmsnorm_avx512;
    table->norm_rope = norm_rope_avx512;
    table->swiglu = swiglu_avx512;
    table->geglu = geglu_avx512;
    table->sigmoid_gate = sigmoid_gate_avx512;
    table->conv_silu = conv_silu_avx512;
    table->f32_to_bf16 = f32_to_bf16_avx512;
    table->dense_to_f32 = dense_to_f32_avx512;
    table->burn_fma = burn_fma_avx512;
    table->read_stream = read_stream_avx512;
}
