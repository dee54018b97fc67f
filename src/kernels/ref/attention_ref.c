/* Attention over BF16 keys and values: the definition. Each row is a two-pass softmax in double precision. */
#include "kernels/ref/math_ref.h"
#include "kernels/table.h"

static const uint16_t *key_row(const mq_kv_view *kv, size_t token)
{
    return kv->pages[token / MQ_PAGE_TOKENS] + kv->k_offset + token % MQ_PAGE_TOKENS * kv->head_dim;
}

static const uint16_t *value_row(const mq_kv_view *kv, size_t token)
{
    return kv->pages[token / MQ_PAGE_TOKENS] + kv->v_offset + token % MQ_PAGE_TOKENS * kv->head_dim;
}

static double score_attention_ref(const mq_attention *a, const float *q, size_t token)
{
    const uint16_t *key = key_row(&a->kv, token);
    double sum = 0;
    for (size_t i = 0; i < a->kv.head_dim; i++) {
        sum += (double)q[i] * (double)mq__ref_bf16_to_f32(key[i]);
    }
    return sum * (double)a->scale;
}

/* One query head over keys [key0, key1). The scores are computed twice rather than kept, the sum in `out` lives in the
 * scratch, [head_dim] doubles. Returns the sum of p, and the maximum in *max. */
static double head_over_keys(const mq_attention *a, const float *q, size_t key0, size_t key1, double *max)
{
    const size_t width = a->kv.head_dim;
    double *out = a->scratch;
    double weight_sum = 0;
    *max = -INFINITY;
    memset(out, 0, width * sizeof *out);
    for (size_t t = key0; t < key1; t++) {
        *max = fmax(*max, score_attention_ref(a, q, t));
    }
    for (size_t t = key0; t < key1; t++) {
        const double p = exp(score_attention_ref(a, q, t) - *max);
        const uint16_t *value = value_row(&a->kv, t);
        for (size_t i = 0; i < width; i++) {
            out[i] += p * (double)mq__ref_bf16_to_f32(value[i]);
        }
        weight_sum += p;
    }
    return weight_sum;
}

static void attention_prefill(const mq_attention *a)
{
    const size_t width = a->kv.head_dim;
    const double *sum = a->scratch;
    for (size_t t = 0; t < a->rows; t++) {
        const size_t end = (size_t)a->first + t + 1, begin = a->window && end > a->window ? end - a->window : 0;
        for (size_t h = 0; h < a->heads; h++) {
            double max;
            const double weights = head_over_keys(a, a->q + t * a->q_stride + h * width, begin, end, &max);
            float *out = a->out + t * a->out_stride + h * width;
            for (size_t i = 0; i < width; i++) {
                out[i] = (float)(sum[i] / weights);
            }
        }
    }
}

/* One kv head for one row; q: its query heads. */
static void span_of_row(const mq_attention *a, const float *q, mq_keys keys, float *out)
{
    const size_t width = a->kv.head_dim;
    const double *sum = a->scratch;
    for (size_t h = 0; h < a->heads; h++, out += width + 2) {
        double max;
        const double weights = head_over_keys(a, q + h * width, keys.begin, keys.end, &max);
        for (size_t i = 0; i < width; i++) {
            out[i] = (float)sum[i];
        }
        out[width] = (float)max;
        out[width + 1] = (float)weights;
    }
}

static void attention_decode_span(const mq_attention *a, uint32_t kv_heads, uint32_t span, float *partial,
                                  size_t head_step, size_t row_step)
{
    const size_t width = a->kv.head_dim, side = MQ_PAGE_TOKENS * width;
    for (uint32_t t = 0; t < a->rows; t++) {
        const mq_keys keys = mq__keys_of_span(mq__keys_seen(a->first + t, a->window), span);
        for (size_t g = 0; g < kv_heads && keys.begin < keys.end; g++) {
            mq_attention one = *a;
            one.kv.k_offset += g * 2 * side;
            one.kv.v_offset += g * 2 * side;
            span_of_row(&one, a->q + t * a->q_stride + g * a->heads * width, keys,
                        partial + t * row_step + g * head_step);
        }
    }
}

/* out = sum_s(f_s * partial_s) / sum_s(f_s * weights_s), f_s = e^(max_s - max): FMA chains over ascending spans. */
static void attention_decode_merge(const mq_attention *a, uint32_t spans, const float *partials)
{
    const size_t width = a->kv.head_dim, each = width + 2, step = a->heads * each;
    for (size_t h = 0; h < a->heads; h++) {
        const float *first = partials + h * each;
        float *out = a->out + h * width;
        float max = first[width];
        for (size_t s = 1; s < spans; s++) {
            max = first[s * step + width] > max ? first[s * step + width] : max;
        }
        float weights = 0;
        memset(out, 0, width * sizeof *out);
        for (size_t s = 0; s < spans; s++) {
            const float *partial = first + s * step;
            const float factor = mq__exp_f32(partial[width] - max);
            for (size_t i = 0; i < width; i++) {
                out[i] = fmaf(factor, partial[i], out[i]);
            }
            weights = fmaf(factor, partial[width + 1], weights);
        }
        for (size_t i = 0; i < width; i++) {
            out[i] /= weights;
        }
    }
}

static size_t attention_scratch_bytes(uint32_t heads, uint32_t head_dim)
{
    (void)heads;
    const size_t own = head_dim * sizeof(double), int8 = mq__attention_int8_scratch_ref();
    return own > int8 ? own : int8;
}

void mq__fill_ref_attention(mq_kernels *table)
{
    table->attention_prefill = attention_prefill;
    table->attention_prefill_int8 = mq__attention_int8_ref;
    table->attention_int8_most = 127;
    table->attention_decode_span = attention_decode_span;
    table->attention_decode_merge = attention_decode_merge;
    table->attention_scratch_bytes = attention_scratch_bytes;
}
