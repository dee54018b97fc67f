/* INT8 prefill attention: the definition, in plain C. The kernels of the levels round single operations otherwise, so a
 * code may differ by one here and there: BOUND. */
#include "kernels/ref/math_ref.h"
#include "kernels/table.h"

enum { TILE = MQ_ATTENTION_TILE };

/* One kv head's tile of keys and values as integers. Lives in the scratch. */
typedef struct tile {
    float mean[1024], key_scale[TILE], value_scale[1024];
    int8_t key[TILE][1024], value[TILE][1024];
} tile;

/* The softmax of one row so far. */
typedef struct row_state {
    double max, sum, out[1024];
} row_state;

static float element(const mq_kv_view *kv, size_t offset, size_t token, size_t i)
{
    return mq__ref_bf16_to_f32(kv->pages[token / MQ_PAGE_TOKENS][offset + token % MQ_PAGE_TOKENS * kv->head_dim + i]);
}

/* q = rint(x * most/amax) of n values `step` apart; the scale. */
static float quantize_attention_int8_ref(const float *x, size_t n, int most, int8_t *q, size_t step)
{
    float amax = 0;
    for (size_t i = 0; i < n; i++)
        amax = fmaxf(amax, fabsf(x[i]));
    const float inverse = amax < 0x1p-100f ? 0 : (float)most / amax;
    for (size_t i = 0; i < n; i++)
        q[i * step] = (int8_t)rintf(x[i] * inverse);
    return amax < 0x1p-100f ? 0 : amax * (1.0f / (float)most);
}

static void load_tile_attention_int8_ref(const mq_kv_view *kv, size_t key0, int most, tile *t)
{
    float column[TILE], row[1024];
    for (size_t i = 0; i < kv->head_dim; i++) {
        double sum = 0;
        for (size_t k = 0; k < TILE; k++) {
            sum += element(kv, kv->k_offset, key0 + k, i);
            column[k] = element(kv, kv->v_offset, key0 + k, i);
        }
        t->mean[i] = (float)(sum / TILE);
        t->value_scale[i] = quantize_attention_int8_ref(column, TILE, most, &t->value[0][i], sizeof t->value[0]);
    }
    for (size_t k = 0; k < TILE; k++) {
        for (size_t i = 0; i < kv->head_dim; i++)
            row[i] = element(kv, kv->k_offset, key0 + k, i) - t->mean[i];
        t->key_scale[k] = quantize_attention_int8_ref(row, kv->head_dim, most, t->key[k], 1);
    }
}

/* Moves the maximum to at least `top`: what was summed so far shrinks. */
static void raise_max(row_state *state, size_t width, double top)
{
    if (top <= state->max) return;
    const double shrink = exp(state->max - top);
    state->max = top;
    state->sum *= shrink;
    for (size_t i = 0; i < width; i++)
        state->out[i] *= shrink;
}

static void attend_int8(const mq_attention *a, const float *q, const tile *t, row_state *state)
{
    const size_t width = a->kv.head_dim;
    int8_t query[1024];
    const double query_scale = (double)quantize_attention_int8_ref(q, width, 127, query, 1) * (double)a->scale;
    double score[TILE], mean = 0, top = -INFINITY;
    for (size_t i = 0; i < width; i++)
        mean += (double)q[i] * (double)t->mean[i] * (double)a->scale;
    for (size_t k = 0; k < TILE; k++) {
        int dot = 0;
        for (size_t i = 0; i < width; i++)
            dot += query[i] * t->key[k][i];
        score[k] = dot * query_scale * (double)t->key_scale[k] + mean;
        top = fmax(top, score[k]);
    }
    raise_max(state, width, top);
    int weight[TILE], sum = 0;
    for (size_t k = 0; k < TILE; k++) {
        weight[k] = (int)rint(255 * exp(score[k] - state->max));
        sum += weight[k];
    }
    state->sum += sum / 255.0;
    for (size_t i = 0; i < width; i++) {
        int dot = 0;
        for (size_t k = 0; k < TILE; k++)
            dot += weight[k] * t->value[k][i];
        state->out[i] += dot * (double)t->value_scale[i] / 255;
    }
}

static void attend_exact(const mq_attention *a, const float *q, size_t key, row_state *state)
{
    const size_t width = a->kv.head_dim;
    double score = 0;
    for (size_t i = 0; i < width; i++)
        score += (double)q[i] * (double)element(&a->kv, a->kv.k_offset, key, i);
    score *= (double)a->scale;
    raise_max(state, width, score);
    const double p = exp(score - state->max);
    state->sum += p;
    for (size_t i = 0; i < width; i++)
        state->out[i] += p * (double)element(&a->kv, a->kv.v_offset, key, i);
}

void mq__attention_int8_define(const mq_attention *a, int most)
{
    const size_t width = a->kv.head_dim;
    tile *t = a->scratch;
    row_state *state = (row_state *)(void *)(t + 1);
    for (size_t row = 0; row < a->rows; row++) {
        const size_t position = a->first + row, own = position / TILE * TILE;
        for (size_t h = 0; h < a->heads; h++) {
            const float *q = a->q + row * a->q_stride + h * width;
            float *out = a->out + row * a->out_stride + h * width;
            *state = (row_state){.max = -INFINITY};
            for (size_t key0 = 0; key0 < own; key0 += TILE) {
                load_tile_attention_int8_ref(&a->kv, key0, most, t);
                attend_int8(a, q, t, state);
            }
            for (size_t key = own; key <= position; key++)
                attend_exact(a, q, key, state);
            for (size_t i = 0; i < width; i++)
                out[i] = (float)(state->out[i] / state->sum);
        }
    }
}

void mq__attention_int8_ref(const mq_attention *a)
{
    mq__attention_int8_define(a, 127);
}

size_t mq__attention_int8_scratch_ref(void)
{
    return sizeof(tile) + sizeof(row_state);
}
