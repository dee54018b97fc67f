/* Norms, rotation, activation, conversions and the machine's limits: the definition. */
#include "kernels/ref/math_ref.h"
#include "kernels/table.h"

/* 1/sqrt(mean(x^2) + eps), squares summed in 16 lanes. */
static float inverse_rms_ref(const float *x, size_t n, float eps)
{
    float lanes[16] = {0};
    for (size_t i = 0; i < n; i++) {
        lanes[i % 16] = fmaf(x[i], x[i], lanes[i % 16]);
    }
    const float mean = mq__sum_lanes16(lanes) / (float)n;
    return 1.0f / sqrtf(mean + eps);
}

static void rmsnorm_ref(float *y, const float *x, const float *weight, size_t n, float eps)
{
    const float r = inverse_rms_ref(x, n, eps);
    for (size_t i = 0; i < n; i++) {
        y[i] = (x[i] * r) * weight[i];
    }
}

static void norm_rope_ref(float *x, size_t heads, size_t head_dim, size_t rotary, const float *weight, float eps,
                          const float *cos, const float *sin)
{
    const size_t half = rotary / 2;
    for (size_t h = 0; h < heads; h++, x += head_dim) {
        if (weight) {
            rmsnorm_ref(x, x, weight, head_dim, eps);
        }
        for (size_t i = 0; i < half; i++) {
            const float x1 = x[i], x2 = x[i + half];
            x[i] = fmaf(x1, cos[i], -(x2 * sin[i]));
            x[i + half] = fmaf(x2, cos[i], x1 * sin[i]);
        }
    }
}

static void swiglu_ref(float *y, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        y[i] = gate[i] / (1.0f + mq__exp_f32(-gate[i])) * up[i];
    }
}

static void geglu_ref(float *y, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        y[i] = gate[i] / (1.0f + mq__exp_f32(mq__gelu_exponent(gate[i]))) * up[i];
    }
}

static void sigmoid_gate_ref(float *y, const float *gate, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        y[i] = y[i] / (1.0f + mq__exp_f32(-gate[i]));
    }
}

static void conv_silu_ref(float *y, const float *const *u, const float *w, size_t taps, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float sum = 0;
        for (size_t t = 0; t < taps; t++) {
            sum = fmaf(w[t * n + i], u[t][i], sum);
        }
        y[i] = sum / (1.0f + mq__exp_f32(-sum));
    }
}

static void f32_to_bf16_ref(uint16_t *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        y[i] = mq__ref_f32_to_bf16(x[i]);
    }
}

static void dense_to_f32_ref(float *y, const void *x, mq_dense_type type, size_t n)
{
    const uint16_t *half = x;
    switch (type) {
    case MQ_DENSE_BF16:
        for (size_t i = 0; i < n; i++) {
            y[i] = mq__ref_bf16_to_f32(half[i]);
        }
        break;
    case MQ_DENSE_F16:
        for (size_t i = 0; i < n; i++) {
            y[i] = mq__ref_f16_to_f32(half[i]);
        }
        break;
    case MQ_DENSE_F32:
        memcpy(y, x, n * sizeof *y);
        break;
    }
}

/* Eight independent chains of plain multiply-adds: what portable C reaches. */
static uint64_t burn_fma_ref(uint64_t rounds)
{
    enum { CHAINS = 8 };
    float acc[CHAINS] = {1, 2, 3, 4, 5, 6, 7, 8};
    for (uint64_t i = 0; i < rounds; i++) {
        for (int c = 0; c < CHAINS; c++) {
            acc[c] = acc[c] * 0.5f + 1.0f;
        }
    }
    volatile float sink = 0; /* the chains end in something that may not be dropped */
    for (int c = 0; c < CHAINS; c++) {
        sink = sink + acc[c];
    }
    return rounds * CHAINS + 1;
}

static uint64_t read_stream_ref(const void *data, size_t bytes, mq_read_way way)
{
    (void)way;
    const size_t quarter = bytes / 4 / sizeof(uint64_t);
    const uint64_t *p = data;
    uint64_t sum[4] = {0};
    for (size_t i = 0; i < quarter; i++) {
        for (size_t s = 0; s < 4; s++) {
            sum[s] += p[s * quarter + i];
        }
    }
    return sum[0] + sum[1] + sum[2] + sum[3];
}

void mq__fill_ref_elementwise(mq_kernels *table)
{
    table->rmsnorm = rmsnorm_ref;
    table->norm_rope = norm_rope_ref;
    table->swiglu = swiglu_ref;
    table->geglu = geglu_ref;
    table->sigmoid_gate = sigmoid_gate_ref;
    table->conv_silu = conv_silu_ref;
    table->f32_to_bf16 = f32_to_bf16_ref;
    table->dense_to_f32 = dense_to_f32_ref;
    table->burn_fma = burn_fma_ref;
    table->read_stream = read_stream_ref;
}
