/* Wrong kernels: each calls the true one and then spoils one value, the last of its output, by as little as the slot's
 * contract forbids (one bit for EXACT, 1e-3 for BOUND). A check that does not notice them is no check. */
#include "checkasm.h"

#include <string.h>

static mq_kernels honest;

static void flip(float *x)
{
    uint32_t bits;
    memcpy(&bits, x, sizeof bits);
    bits ^= 1;
    memcpy(x, &bits, sizeof bits);
}

static void bad_rmsnorm(float *y, const float *x, const float *weight, size_t n, float eps)
{
    honest.rmsnorm(y, x, weight, n, eps);
    flip(&y[n - 1]);
}

static void bad_norm_rope(float *x, size_t heads, size_t head_dim, size_t rotary, const float *weight, float eps,
                          const float *cos, const float *sin)
{
    honest.norm_rope(x, heads, head_dim, rotary, weight, eps, cos, sin);
    flip(&x[heads * head_dim - 1]);
}

static void bad_swiglu(float *y, const float *gate, const float *up, size_t n)
{
    honest.swiglu(y, gate, up, n);
    flip(&y[n - 1]);
}

static void bad_geglu(float *y, const float *gate, const float *up, size_t n)
{
    honest.geglu(y, gate, up, n);
    flip(&y[n - 1]);
}

static void bad_sigmoid_gate(float *y, const float *gate, size_t n)
{
    honest.sigmoid_gate(y, gate, n);
    flip(&y[n - 1]);
}

static void bad_conv_silu(float *y, const float *const *u, const float *w, size_t taps, size_t n)
{
    honest.conv_silu(y, u, w, taps, n);
    flip(&y[n - 1]);
}

/* The output, and in the other one the state. */
static void bad_delta_rule(const mq_delta *d)
{
    honest.delta_rule(d);
    flip(&d->out[(d->rows - 1) * d->out_stride + MQ_DELTA_COLUMNS - 1]);
}

static void stale_delta_rule(const mq_delta *d)
{
    honest.delta_rule(d);
    flip(&d->to[(size_t)d->key_dim * MQ_DELTA_COLUMNS - 1]);
}

static void bad_f32_to_bf16(uint16_t *y, const float *x, size_t n)
{
    honest.f32_to_bf16(y, x, n);
    y[n - 1] ^= 1;
}

static void bad_dense_to_f32(float *y, const void *x, mq_dense_type type, size_t n)
{
    honest.dense_to_f32(y, x, type, n);
    flip(&y[n - 1]);
}

static void bad_nvfp4_quantize(const float *x, size_t ldx, size_t row0, size_t row1, size_t k_width,
                               const mq_nvfp4_rows *out)
{
    honest.nvfp4_quantize(x, ldx, row0, row1, k_width, out);
    flip(&out->multiplier[row1 - 1]);
}

/* The last value of a linear layer's output for features [.., n1). */
static void spoil_linear(size_t rows, size_t n1, size_t n, const mq_epilogue *out)
{
    flip(&out->y[(rows - 1) * out->ldy + (n1 < n ? n1 : n) - 1]);
}

static void bad_nvfp4_gemm(const mq_nvfp4_rows *a, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                           const mq_epilogue *out, void *scratch)
{
    honest.nvfp4_gemm(a, rows, w, p0, p1, out, scratch);
    spoil_linear(rows, p1 * MQ_NVFP4_NR, w->n, out);
}

static void bad_int8_quantize(const float *x, size_t ldx, size_t row0, size_t row1, size_t k_width,
                              const mq_int8_rows *out)
{
    honest.int8_quantize(x, ldx, row0, row1, k_width, out);
    out->panels[mq__int8_row_bytes(row0 + 1, k_width) - 1] ^= 1;
}

static void bad_int8_gemm(const mq_int8_rows *a, size_t rows, const mq_int8 *w, size_t p0, size_t p1,
                          const mq_epilogue *out, void *scratch)
{
    honest.int8_gemm(a, rows, w, p0, p1, out, scratch);
    spoil_linear(rows, p1 * MQ_INT8_NR, w->n, out);
}

static void bad_dense_pack_rows(const float *x, size_t ldx, size_t rows, size_t k_width, size_t g0, size_t g1,
                                float *panels)
{
    honest.dense_pack_rows(x, ldx, rows, k_width, g0, g1, panels);
    flip(&panels[g1 * MQ_DENSE_MR * k_width - 1]);
}

static void bad_dense_gemm(const float *panels, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                           const mq_epilogue *out, void *scratch)
{
    honest.dense_gemm(panels, rows, w, n0, n1, out, scratch);
    spoil_linear(rows, n1, w->n, out);
}

static void bad_bf16_pack_rows(const float *x, size_t ldx, size_t rows, size_t k_width, size_t g0, size_t g1,
                               float *panels)
{
    honest.bf16_pack_rows(x, ldx, rows, k_width, g0, g1, panels);
    flip(&panels[g0 * MQ_DENSE_MR * k_width]);
}

static void bad_bf16_gemm(const float *panels, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                          const mq_epilogue *out, void *scratch)
{
    honest.bf16_gemm(panels, rows, w, n0, n1, out, scratch);
    spoil_linear(rows, n1, w->n, out);
}

static void bad_w4a16_gemm(const float *panels, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                           const mq_epilogue *out, void *scratch)
{
    honest.w4a16_gemm(panels, rows, w, p0, p1, out, scratch);
    spoil_linear(rows, p1 * MQ_NVFP4_NR, w->n, out);
}

static void bad_dense_thin(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                           const mq_epilogue *out, void *scratch)
{
    honest.dense_thin(x, ldx, rows, w, n0, n1, out, scratch);
    spoil_linear(rows, n1, w->n, out);
}

static void bad_w4a16_thin(const float *x, size_t ldx, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                           const mq_epilogue *out, void *scratch)
{
    honest.w4a16_thin(x, ldx, rows, w, p0, p1, out, scratch);
    spoil_linear(rows, p1 * MQ_NVFP4_NR, w->n, out);
}

static void spoil_attention(const mq_attention *a)
{
    float *row = a->out + (a->rows - 1) * a->out_stride + (size_t)(a->heads - 1) * a->kv.head_dim;
    float largest = 0;
    for (uint32_t k = 0; k < a->kv.head_dim; k++) {
        largest = row[k] > largest ? row[k] : -row[k] > largest ? -row[k] : largest;
    }
    row[a->kv.head_dim - 1] += 1e-3f * largest;
}

/* Values 1% too large. */
static void spoil_attention_scale(const mq_attention *a, float factor)
{
    for (uint32_t row = 0; row < a->rows; row++) {
        for (size_t i = 0; i < (size_t)a->heads * a->kv.head_dim; i++) {
            a->out[row * a->out_stride + i] *= factor;
        }
    }
}

static void large_attention_prefill(const mq_attention *a)
{
    honest.attention_prefill(a);
    spoil_attention_scale(a, 1.01f);
}

static void large_attention_prefill_bf16(const mq_attention *a)
{
    honest.attention_prefill_bf16(a);
    spoil_attention_scale(a, 1.01f);
}

static void large_attention_prefill_int8(const mq_attention *a)
{
    honest.attention_prefill_int8(a);
    spoil_attention_scale(a, 1.01f);
}

/* 1/256 for the weights' unit of 1/255: what earlier tiles add is too small. Their share is that of their keys, which is what
 * it is on average. */
static void unit_attention_prefill_int8(const mq_attention *a)
{
    honest.attention_prefill_int8(a);
    for (uint32_t row = 0; row < a->rows; row++) {
        const uint32_t position = a->first + row, earlier = position / MQ_ATTENTION_TILE * MQ_ATTENTION_TILE;
        mq_attention one = *a;
        one.out += row * a->out_stride;
        one.rows = 1;
        spoil_attention_scale(&one, 1 - (float)earlier / (float)(position + 1) / 256);
    }
}

static void bad_attention_prefill(const mq_attention *a)
{
    honest.attention_prefill(a);
    spoil_attention(a);
}

static void bad_attention_prefill_bf16(const mq_attention *a)
{
    honest.attention_prefill_bf16(a);
    spoil_attention(a);
}

static void bad_attention_prefill_int8(const mq_attention *a)
{
    honest.attention_prefill_int8(a);
    spoil_attention(a);
}

static void bad_attention_decode_span(const mq_attention *a, uint32_t kv_heads, uint32_t span, float *partial,
                                      size_t head_step, size_t row_step)
{
    honest.attention_decode_span(a, kv_heads, span, partial, head_step, row_step);
    partial[(size_t)a->heads * (a->kv.head_dim + 2) - 1] *= 1.001f;
}

/* A row beside others sums in another order. */
static void beside_attention_decode_span(const mq_attention *a, uint32_t kv_heads, uint32_t span, float *partial,
                                         size_t head_step, size_t row_step)
{
    honest.attention_decode_span(a, kv_heads, span, partial, head_step, row_step);
    if (a->rows > 1) flip(&partial[row_step]);
}

static void bad_attention_decode_merge(const mq_attention *a, uint32_t spans, const float *partials)
{
    honest.attention_decode_merge(a, spans, partials);
    spoil_attention(a);
}

static uint64_t bad_burn_fma(uint64_t rounds)
{
    return honest.burn_fma(rounds) * 0;
}

static uint64_t bad_read_stream(const void *data, size_t bytes, mq_read_way way)
{
    return honest.read_stream(data, bytes - 256, way);
}

#define SPOILER(slot, bad)                                                                                             \
    static void spoil_##bad(mq_kernels *table)                                                                         \
    {                                                                                                                  \
        table->slot = bad;                                                                                             \
    }
#define EACH(X)                                                                                                        \
    X(rmsnorm, bad_rmsnorm)                                                                                            \
    X(norm_rope, bad_norm_rope)                                                                                        \
    X(geglu, bad_geglu)                                                                                                \
    X(swiglu, bad_swiglu)                                                                                              \
    X(sigmoid_gate, bad_sigmoid_gate)                                                                                  \
    X(conv_silu, bad_conv_silu)                                                                                        \
    X(delta_rule, bad_delta_rule)                                                                                      \
    X(delta_rule, stale_delta_rule)                                                                                    \
    X(f32_to_bf16, bad_f32_to_bf16)                                                                                    \
    X(dense_to_f32, bad_dense_to_f32)                                                                                  \
    X(nvfp4_quantize, bad_nvfp4_quantize)                                                                              \
    X(nvfp4_gemm, bad_nvfp4_gemm)                                                                                      \
    X(int8_quantize, bad_int8_quantize)                                                                                \
    X(int8_gemm, bad_int8_gemm)                                                                                        \
    X(dense_pack_rows, bad_dense_pack_rows)                                                                            \
    X(dense_gemm, bad_dense_gemm)                                                                                      \
    X(w4a16_gemm, bad_w4a16_gemm)                                                                                      \
    X(bf16_pack_rows, bad_bf16_pack_rows)                                                                              \
    X(bf16_gemm, bad_bf16_gemm)                                                                                        \
    X(dense_thin, bad_dense_thin)                                                                                      \
    X(w4a16_thin, bad_w4a16_thin)                                                                                      \
    X(attention_prefill, bad_attention_prefill)                                                                        \
    X(attention_prefill, large_attention_prefill)                                                                      \
    X(attention_prefill_bf16, bad_attention_prefill_bf16)                                                              \
    X(attention_prefill_bf16, large_attention_prefill_bf16)                                                            \
    X(attention_prefill_int8, bad_attention_prefill_int8)                                                              \
    X(attention_prefill_int8, large_attention_prefill_int8)                                                            \
    X(attention_prefill_int8, unit_attention_prefill_int8)                                                             \
    X(attention_decode_span, bad_attention_decode_span)                                                                \
    X(attention_decode_span, beside_attention_decode_span)                                                             \
    X(attention_decode_merge, bad_attention_decode_merge)                                                              \
    X(burn_fma, bad_burn_fma)                                                                                          \
    X(read_stream, bad_read_stream)
EACH(SPOILER)

#define ENTRY(slot, bad) {#bad, #slot, spoil_##bad},
static const struct {
    const char *name, *slot;
    void (*spoil)(mq_kernels *table);
} spoilers[] = {EACH(ENTRY)};

const char *checkasm_spoil_name(size_t index, const char **slot)
{
    if (index >= sizeof spoilers / sizeof spoilers[0]) return NULL;
    *slot = spoilers[index].slot;
    return spoilers[index].name;
}

bool checkasm_spoil(mq_kernels *table, const char *name)
{
    for (size_t i = 0; i < sizeof spoilers / sizeof spoilers[0]; i++) {
        if (!strcmp(spoilers[i].name, name)) {
            honest = *table;
            spoilers[i].spoil(table);
            return true;
        }
    }
    return false;
}
