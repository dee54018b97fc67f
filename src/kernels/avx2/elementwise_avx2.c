/* Norms, rotation, activation, conversions and the machine's limits on AVX2.
 *
 * The 16 lanes of the contract are two registers, lanes 0-7 and 8-15. A tail of fewer than 8 values is copied to a zeroed
 * vector: an FMA with 0*0 leaves its lane unchanged. */
#include "kernels/ref/math_ref.h"
#include "kernels/table.h"

#include <immintrin.h>

static inline __m256i tail_mask_avx2(size_t count)
{
    static const int32_t ones[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256((const __m256i *)(ones + 8 - (count < 8 ? count : 8)));
}

static inline float sum_lanes_avx2(__m256 low, __m256 high)
{
    const __m256 a = _mm256_add_ps(low, high);
    const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}

static inline float inverse_rms_avx2(const float *x, size_t n, float eps)
{
    __m256 low = _mm256_setzero_ps(), high = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + 8);
        low = _mm256_fmadd_ps(a, a, low);
        high = _mm256_fmadd_ps(b, b, high);
    }
    if (i < n) {
        const __m256 a = _mm256_maskload_ps(x + i, tail_mask_avx2(n - i));
        low = _mm256_fmadd_ps(a, a, low);
    }
    if (i + 8 < n) {
        const __m256 b = _mm256_maskload_ps(x + i + 8, tail_mask_avx2(n - i - 8));
        high = _mm256_fmadd_ps(b, b, high);
    }
    return 1.0f / sqrtf(sum_lanes_avx2(low, high) / (float)n + eps);
}

static void rmsnorm_avx2(float *y, const float *x, const float *weight, size_t n, float eps)
{
    const float inverse = inverse_rms_avx2(x, n, eps);
    const __m256 r = _mm256_set1_ps(inverse);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(x + i), r);
        _mm256_storeu_ps(y + i, _mm256_mul_ps(scaled, _mm256_loadu_ps(weight + i)));
    }
    for (; i < n; i++) {
        y[i] = (x[i] * inverse) * weight[i];
    }
}

static void rotate_avx2(float *x, size_t half, const float *cos, const float *sin)
{
    size_t i = 0;
    for (; i + 8 <= half; i += 8) {
        const __m256 x1 = _mm256_loadu_ps(x + i), x2 = _mm256_loadu_ps(x + half + i);
        const __m256 c = _mm256_loadu_ps(cos + i), s = _mm256_loadu_ps(sin + i);
        _mm256_storeu_ps(x + i, _mm256_fmsub_ps(x1, c, _mm256_mul_ps(x2, s)));
        _mm256_storeu_ps(x + half + i, _mm256_fmadd_ps(x2, c, _mm256_mul_ps(x1, s)));
    }
    for (; i < half; i++) {
        const float x1 = x[i], x2 = x[i + half];
        x[i] = fmaf(x1, cos[i], -(x2 * sin[i]));
        x[i + half] = fmaf(x2, cos[i], x1 * sin[i]);
    }
}

static void norm_rope_avx2(float *x, size_t heads, size_t head_dim, size_t rotary, const float *weight, float eps,
                           const float *cos, const float *sin)
{
    for (size_t h = 0; h < heads; h++, x += head_dim) {
        if (weight) {
            rmsnorm_avx2(x, x, weight, head_dim, eps);
        }
        rotate_avx2(x, rotary / 2, cos, sin);
    }
}

/* mq__exp_f32 on 8 lanes. */
static inline __m256 exp8(__m256 x)
{
    const __m256 magic = _mm256_set1_ps(MQ_EXP_MAGIC);
    x = _mm256_max_ps(_mm256_min_ps(x, _mm256_set1_ps(MQ_EXP_HIGH)), _mm256_set1_ps(MQ_EXP_LOW));
    const __m256 t = _mm256_fmadd_ps(x, _mm256_set1_ps(MQ_EXP_LOG2E), magic);
    const __m256 n = _mm256_sub_ps(t, magic);
    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-MQ_EXP_LN2_HI), x);
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(-MQ_EXP_LN2_LO), r);
    __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(MQ_EXP_C6), r, _mm256_set1_ps(MQ_EXP_C5));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(MQ_EXP_C4));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(MQ_EXP_C3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(MQ_EXP_C2));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23)));
}

static void swiglu_avx2(float *y, const float *gate, const float *up, size_t n)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 g = _mm256_loadu_ps(gate + i);
        const __m256 silu = _mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1.0f), exp8(_mm256_xor_ps(g, sign))));
        _mm256_storeu_ps(y + i, _mm256_mul_ps(silu, _mm256_loadu_ps(up + i)));
    }
    for (; i < n; i++) {
        y[i] = gate[i] / (1.0f + mq__exp_f32(-gate[i])) * up[i];
    }
}

static void geglu_avx2(float *y, const float *gate, const float *up, size_t n)
{
    const __m256 one = _mm256_set1_ps(1.0f);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 g = _mm256_loadu_ps(gate + i);
        const __m256 cubic = _mm256_fmadd_ps(_mm256_set1_ps(MQ_GELU_CUBIC), _mm256_mul_ps(g, g), one);
        const __m256 exponent = _mm256_mul_ps(_mm256_mul_ps(g, cubic), _mm256_set1_ps(MQ_GELU_SCALE));
        const __m256 gelu = _mm256_div_ps(g, _mm256_add_ps(one, exp8(exponent)));
        _mm256_storeu_ps(y + i, _mm256_mul_ps(gelu, _mm256_loadu_ps(up + i)));
    }
    for (; i < n; i++) {
        y[i] = gate[i] / (1.0f + mq__exp_f32(mq__gelu_exponent(gate[i]))) * up[i];
    }
}

static void sigmoid_gate_avx2(float *y, const float *gate, size_t n)
{
    const __m256 sign = _mm256_set1_ps(-0.0f), one = _mm256_set1_ps(1.0f);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 minus = _mm256_xor_ps(_mm256_loadu_ps(gate + i), sign);
        _mm256_storeu_ps(y + i, _mm256_div_ps(_mm256_loadu_ps(y + i), _mm256_add_ps(one, exp8(minus))));
    }
    for (; i < n; i++) {
        y[i] = y[i] / (1.0f + mq__exp_f32(-gate[i]));
    }
}

static void conv_silu_avx2(float *y, const float *const *u, const float *w, size_t taps, size_t n)
{
    const __m256 sign = _mm256_set1_ps(-0.0f), one = _mm256_set1_ps(1.0f);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 sum = _mm256_setzero_ps();
        for (size_t t = 0; t < taps; t++) {
            sum = _mm256_fmadd_ps(_mm256_loadu_ps(w + t * n + i), _mm256_loadu_ps(u[t] + i), sum);
        }
        _mm256_storeu_ps(y + i, _mm256_div_ps(sum, _mm256_add_ps(one, exp8(_mm256_xor_ps(sum, sign)))));
    }
    for (; i < n; i++) {
        float sum = 0;
        for (size_t t = 0; t < taps; t++) {
            sum = fmaf(w[t * n + i], u[t][i], sum);
        }
        y[i] = sum / (1.0f + mq__exp_f32(-sum));
    }
}

static void f32_to_bf16_avx2(uint16_t *y, const float *x, size_t n)
{
    const __m256i one = _mm256_set1_epi32(1), half = _mm256_set1_epi32(0x7fff), quiet = _mm256_set1_epi32(0x40);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 v = _mm256_loadu_ps(x + i);
        const __m256i bits = _mm256_castps_si256(v), upper = _mm256_srli_epi32(bits, 16);
        const __m256i odd = _mm256_and_si256(upper, one);
        const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, half), odd), 16);
        const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
        const __m256i out = _mm256_blendv_epi8(rounded, _mm256_or_si256(upper, quiet), nan);
        _mm_storeu_si128((__m128i *)(y + i),
                         _mm_packus_epi32(_mm256_castsi256_si128(out), _mm256_extracti128_si256(out, 1)));
    }
    for (; i < n; i++) {
        y[i] = mq__ref_f32_to_bf16(x[i]);
    }
}

static void dense_to_f32_avx2(float *y, const void *x, mq_dense_type type, size_t n)
{
    const uint16_t *in = x;
    size_t i = 0;
    switch (type) {
    case MQ_DENSE_BF16:
        for (; i + 8 <= n; i += 8) {
            const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(in + i)));
            _mm256_storeu_si256((__m256i *)(y + i), _mm256_slli_epi32(wide, 16));
        }
        for (; i < n; i++) {
            y[i] = mq__ref_bf16_to_f32(in[i]);
        }
        break;
    case MQ_DENSE_F16:
        for (; i + 8 <= n; i += 8) {
            _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(in + i))));
        }
        for (; i < n; i++) {
            y[i] = mq__ref_f16_to_f32(in[i]);
        }
        break;
    case MQ_DENSE_F32:
        memcpy(y, x, n * sizeof *y);
        break;
    }
}

/* 12 chains cover 2 ports x 4 (or 5) cycles of latency; the rest of the registers hold the operands. */
static uint64_t burn_fma_avx2(uint64_t rounds)
{
    enum { CHAINS = 12 };
    __m256 acc[CHAINS];
    __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(1.0f);
    for (int c = 0; c < CHAINS; c++) {
        acc[c] = _mm256_set1_ps((float)c);
    }
    for (uint64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) {
            acc[c] = _mm256_fmadd_ps(acc[c], a, b);
        }
        __asm__ volatile("" : "+x"(a), "+x"(b)); /* keeps the compiler from closing the recurrence */
    }
    __m256 sum = acc[0];
    for (int c = 1; c < CHAINS; c++) {
        sum = _mm256_add_ps(sum, acc[c]);
    }
    __asm__ volatile("" : : "x"(sum));
    return rounds * CHAINS * 8 + 1;
}

/* ahead: bytes to prefetch from what is read, past the end, too, which is harmless; 0: none. */
static inline __attribute__((always_inline)) uint64_t read_in_avx2(const char *p, size_t bytes, const size_t streams,
                                                                   const size_t ahead)
{
    const size_t each = bytes / streams;
    __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    for (size_t i = 0; i < each; i += 64) {
#pragma GCC unroll 4
        for (size_t s = 0; s < streams; s++) {
            const char *line = p + s * each + i;
            if (ahead) _mm_prefetch(line + ahead, _MM_HINT_T0);
            const __m256i a = _mm256_loadu_si256((const __m256i *)line);
            const __m256i b = _mm256_loadu_si256((const __m256i *)(line + 32));
            sum[s] = _mm256_add_epi64(sum[s], _mm256_add_epi64(a, b));
        }
    }
    const __m256i all = _mm256_add_epi64(_mm256_add_epi64(sum[0], sum[1]), _mm256_add_epi64(sum[2], sum[3]));
    uint64_t lanes[4];
    _mm256_storeu_si256((__m256i *)lanes, all);
    return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

static uint64_t read_stream_avx2(const void *data, size_t bytes, mq_read_way way)
{
    return way == MQ_READ_AHEAD ? read_in_avx2(data, bytes, 4, 1024) : read_in_avx2(data, bytes, 2, 0);
}

void mq__fill_avx2_elementwise(mq_kernels *table)
{
    table->rmsnorm = rmsnorm_avx2;
    table->norm_rope = norm_rope_avx2;
    table->swiglu = swiglu_avx2;
    table->geglu = geglu_avx2;
    table->sigmoid_gate = sigmoid_gate_avx2;
    table->conv_silu = conv_silu_avx2;
    table->f32_to_bf16 = f32_to_bf16_avx2;
    table->dense_to_f32 = dense_to_f32_avx2;
    table->burn_fma = burn_fma_avx2;
    table->read_stream = read_stream_avx2;
}
