/* Norms, rotation, activation, conversions and the machine's limits on NEON. */
#include "kernels/neon/vector_neon.h"
#include "kernels/table.h"

static float inverse_rms_neon(const float *x, size_t n, float eps)
{
    float32x4_t sum[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        for (size_t v = 0; v < 4; v++) {
            const float32x4_t a = vld1q_f32(x + i + 4 * v);
            sum[v] = vfmaq_f32(sum[v], a, a);
        }
    }
    for (size_t v = 0; i + 4 * v < n; v++) { /* zeros leave the sums of squares as they are */
        const float32x4_t a = load_first(x + i + 4 * v, n - i - 4 * v);
        sum[v] = vfmaq_f32(sum[v], a, a);
    }
    return 1.0f / sqrtf(sum_lanes_neon(sum) / (float)n + eps);
}

static void rmsnorm_neon(float *y, const float *x, const float *weight, size_t n, float eps)
{
    const float r = inverse_rms_neon(x, n, eps);
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        vst1q_f32(y + i, vmulq_f32(vmulq_n_f32(vld1q_f32(x + i), r), vld1q_f32(weight + i)));
    }
    for (; i < n; i++) {
        y[i] = (x[i] * r) * weight[i];
    }
}

static void rotate_neon(float *x, size_t half, const float *cos, const float *sin)
{
    size_t i = 0;
    for (; i + 4 <= half; i += 4) {
        const float32x4_t x1 = vld1q_f32(x + i), x2 = vld1q_f32(x + half + i);
        const float32x4_t c = vld1q_f32(cos + i), s = vld1q_f32(sin + i);
        vst1q_f32(x + i, vfmaq_f32(vnegq_f32(vmulq_f32(x2, s)), x1, c));
        vst1q_f32(x + half + i, vfmaq_f32(vmulq_f32(x1, s), x2, c));
    }
    for (; i < half; i++) {
        const float x1 = x[i], x2 = x[i + half];
        x[i] = fmaf(x1, cos[i], -(x2 * sin[i]));
        x[i + half] = fmaf(x2, cos[i], x1 * sin[i]);
    }
}

static void norm_rope_neon(float *x, size_t heads, size_t head_dim, size_t rotary, const float *weight, float eps,
                           const float *cos, const float *sin)
{
    for (size_t h = 0; h < heads; h++, x += head_dim) {
        if (weight) {
            rmsnorm_neon(x, x, weight, head_dim, eps);
        }
        rotate_neon(x, rotary / 2, cos, sin);
    }
}

/* mq__exp_f32 on 4 lanes. */
static inline float32x4_t exp_neon(float32x4_t x)
{
    const float32x4_t magic = vdupq_n_f32(MQ_EXP_MAGIC), one = vdupq_n_f32(1);
    const float32x4_t high = vdupq_n_f32(MQ_EXP_HIGH), low = vdupq_n_f32(MQ_EXP_LOW);
    x = vbslq_f32(vcltq_f32(x, high), x, high);
    x = vbslq_f32(vcgtq_f32(x, low), x, low);
    const float32x4_t t = vfmaq_n_f32(magic, x, MQ_EXP_LOG2E), n = vsubq_f32(t, magic);
    const float32x4_t r = vfmaq_n_f32(vfmaq_n_f32(x, n, -MQ_EXP_LN2_HI), n, -MQ_EXP_LN2_LO);
    float32x4_t p = vfmaq_n_f32(vdupq_n_f32(MQ_EXP_C5), r, MQ_EXP_C6);
    p = vfmaq_f32(vdupq_n_f32(MQ_EXP_C4), p, r);
    p = vfmaq_f32(vdupq_n_f32(MQ_EXP_C3), p, r);
    p = vfmaq_f32(vdupq_n_f32(MQ_EXP_C2), p, r);
    p = vfmaq_f32(one, p, r);
    p = vfmaq_f32(one, p, r);
    return vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(p), vshlq_n_u32(vreinterpretq_u32_f32(t), 23)));
}

static void swiglu_neon(float *y, const float *gate, const float *up, size_t n)
{
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const float32x4_t g = vld1q_f32(gate + i);
        const float32x4_t silu = vdivq_f32(g, vaddq_f32(vdupq_n_f32(1), exp_neon(vnegq_f32(g))));
        vst1q_f32(y + i, vmulq_f32(silu, vld1q_f32(up + i)));
    }
    for (; i < n; i++) {
        y[i] = gate[i] / (1.0f + mq__exp_f32(-gate[i])) * up[i];
    }
}

static void geglu_neon(float *y, const float *gate, const float *up, size_t n)
{
    const float32x4_t one = vdupq_n_f32(1);
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const float32x4_t g = vld1q_f32(gate + i);
        const float32x4_t cubic = vfmaq_f32(one, vdupq_n_f32(MQ_GELU_CUBIC), vmulq_f32(g, g));
        const float32x4_t exponent = vmulq_f32(vmulq_f32(g, cubic), vdupq_n_f32(MQ_GELU_SCALE));
        const float32x4_t gelu = vdivq_f32(g, vaddq_f32(one, exp_neon(exponent)));
        vst1q_f32(y + i, vmulq_f32(gelu, vld1q_f32(up + i)));
    }
    for (; i < n; i++) {
        y[i] = gate[i] / (1.0f + mq__exp_f32(mq__gelu_exponent(gate[i]))) * up[i];
    }
}

static void f32_to_bf16_neon(uint16_t *y, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        vst1q_u16(y + i, vcombine_u16(narrow_bf16(vld1q_f32(x + i)), narrow_bf16(vld1q_f32(x + i + 4))));
    }
    for (; i < n; i++) {
        y[i] = mq__ref_f32_to_bf16(x[i]);
    }
}

static void dense_to_f32_neon(float *y, const void *x, mq_dense_type type, size_t n)
{
    const uint16_t *in = x;
    size_t i = 0;
    switch (type) {
    case MQ_DENSE_BF16:
        for (; i + 4 <= n; i += 4) {
            vst1q_f32(y + i, widen_bf16(vld1_u16(in + i)));
        }
        for (; i < n; i++) {
            y[i] = mq__ref_bf16_to_f32(in[i]);
        }
        break;
    case MQ_DENSE_F16:
        for (; i + 4 <= n; i += 4) {
            vst1q_f32(y + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(in + i))));
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

/* 24 chains cover 4 units x 4 cycles of latency, and 5 of 4; the rest of the registers hold the operands. */
static uint64_t burn_fma_neon(uint64_t rounds)
{
    enum { CHAINS = 24 };
    float32x4_t sum[CHAINS], a = vdupq_n_f32(0.5f), b = vdupq_n_f32(1);
    for (int c = 0; c < CHAINS; c++) {
        sum[c] = vdupq_n_f32((float)c);
    }
    for (uint64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 24
        for (int c = 0; c < CHAINS; c++) {
            sum[c] = vfmaq_f32(sum[c], a, b);
        }
        __asm__ volatile("" : "+w"(a), "+w"(b)); /* keeps the compiler from closing the recurrence */
    }
    float32x4_t all = sum[0];
    for (int c = 1; c < CHAINS; c++) {
        all = vaddq_f32(all, sum[c]);
    }
    __asm__ volatile("" : : "w"(all));
    return rounds * CHAINS * 4 + 1;
}

/* ahead: bytes to prefetch from what is read, past the end, too, which is harmless; 0: none. */
INLINE uint64_t read_in_neon(const char *p, size_t bytes, const size_t streams, const size_t ahead)
{
    const size_t each = bytes / streams;
    uint64x2_t sum[4] = {vdupq_n_u64(0), vdupq_n_u64(0), vdupq_n_u64(0), vdupq_n_u64(0)};
    for (size_t i = 0; i < each; i += 64) {
        UNROLL
        for (size_t s = 0; s < streams; s++) {
            const char *line = p + s * each + i;
            if (ahead) __builtin_prefetch(line + ahead);
            UNROLL
            for (size_t v = 0; v < 4; v++) {
                sum[s] = vaddq_u64(sum[s], vld1q_u64((const uint64_t *)(const void *)(line + 16 * v)));
            }
        }
    }
    const uint64x2_t all = vaddq_u64(vaddq_u64(sum[0], sum[1]), vaddq_u64(sum[2], sum[3]));
    return vgetq_lane_u64(all, 0) + vgetq_lane_u64(all, 1);
}

static uint64_t read_stream_neon(const void *data, size_t bytes, mq_read_way way)
{
    return way == MQ_READ_AHEAD ? read_in_neon(data, bytes, 4, 1024) : read_in_neon(data, bytes, 2, 0);
}

void mq__fill_neon_elementwise(mq_kernels *table)
{
    table->rmsnorm = rmsnorm_neon;
    table->norm_rope = norm_rope_neon;
    table->swiglu = swiglu_neon;
    table->geglu = geglu_neon;
    table->f32_to_bf16 = f32_to_bf16_neon;
    table->dense_to_f32 = dense_to_f32_neon;
    table->burn_fma = burn_fma_neon;
    table->read_stream = read_stream_neon;
}
