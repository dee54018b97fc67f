#include "quantize/smoothquant.h"

#include "base/error.h"
#include "base/halffloat.h"
#include "base/mem.h"
#include "quantize/dense_rows.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#define EXPONENT_MAX 16 /* of a factor: far beyond what a sane model asks for, and far from overflow */

/* One norm and the group that reads it. */
typedef struct smoothed {
    char name[MQ_TENSOR_NAME_BYTES]; /* of the norm's tensor; empty: not smoothed */
    float *factor;                   /* [D] */
    uint8_t *norm;                   /* [D] in the tensor's type */
} smoothed;

struct mq_smoothing {
    size_t count;
    smoothed item[]; /* [L * 2]: attention, mlp */
};

/* A norm of mq_layer, and the linear layers that read it. */
static const struct {
    mq_linear_group group;
    size_t norm;
} places[2] = {{MQ_GROUP_QKV, offsetof(mq_layer, attention_norm)}, {MQ_GROUP_GATE_UP, offsetof(mq_layer, mlp_norm)}};

/* The rule of a norm of the layers. */
static const mq_tensor_rule *norm_rule(const mq_weights *w, size_t offset)
{
    const mq_family *family = mq__family_of(w->config.architecture);
    const mq_tensor_rule *rule = family->rules;
    while ((rule->use != MQ_USE_NORM && rule->use != MQ_USE_NORM_FROM_1) || rule->offset != offset) {
        rule++;
    }
    return rule;
}

/* The first module of a layer's fused group, or module_count: experts and Gated DeltaNet have none, because the router (the gates of the
 * state) read the norm as well. */
static size_t smoothed_group(const mq_weights *w, uint32_t layer, mq_linear_group group)
{
    const mq_layer_kind kind = w->config.layer[layer];
    if (group == MQ_GROUP_GATE_UP ? kind.mlp == MQ_MLP_EXPERTS : kind.mixer == MQ_MIXER_GATED_DELTA)
        return w->module_count;
    for (size_t i = 0; i < w->module_count; i++) {
        const mq_module *m = &w->module[i];
        if (m->place.layer != layer || m->rule->group != group) continue;
        return mq__rule_scope(m->rule) == MQ_SCOPE_LAYER ? i : w->module_count;
    }
    return w->module_count;
}

/* Writes a value where the type holds it exactly. */
static bool store_exactly(float value, mq_dtype dtype, uint8_t *to)
{
    uint16_t half;
    float back = value;
    if (dtype == MQ_DTYPE_F32) {
        memcpy(to, &value, sizeof value);
        return isnormal(value) || value == 0;
    }
    if (dtype == MQ_DTYPE_BF16) {
        half = mq__f32_to_bf16(value);
        back = mq__bf16_to_f32(half);
    } else {
        const uint32_t bits = mq__f32_bits(value), magnitude = bits & 0x7fffffff;
        /* Normal halves only: exponents are moved from a bias of 127 to one of 15. */
        half = (uint16_t)(bits >> 16 & 0x8000);
        if (magnitude >= 0x38800000) half = (uint16_t)(half | (magnitude - 0x38000000) >> 13);
        back = mq__f16_to_f32(half);
    }
    memcpy(to, &half, sizeof half);
    return back == value && (isnormal(value) || value == 0);
}

/* The power of two next to |X|^alpha / |W|^(1-alpha); 1 where either is zero. */
static float factor_of_smoothquant(float input, float weight, float alpha)
{
    if (!(input > 0) || !(weight > 0)) return 1;
    const double exponent = (double)alpha * log2((double)input) - (1 - (double)alpha) * log2((double)weight);
    return ldexpf(1, (int)rint(fmin(fmax(exponent, -EXPONENT_MAX), EXPONENT_MAX)));
}

/* The norm divided by the factors; stored less `from`, where it is zero-centred. A channel whose norm the type cannot hold any more
 * keeps it, and gets the factor 1. */
static void divide_norm(const mq_tensor *t, const float *norm, float from, size_t width, smoothed *s)
{
    const size_t bytes = t->bytes / width;
    for (size_t i = 0; i < width; i++) {
        const float divided = norm[i] / s->factor[i], stored = divided - from;
        if (stored + from == divided && store_exactly(stored, t->dtype, s->norm + i * bytes)) continue;
        memcpy(s->norm + i * bytes, t->data + i * bytes, bytes);
        s->factor[i] = 1;
    }
}

/* first: the modules that read the norm. */
static mq_status smooth_smoothquant(mq_weights *w, const mq_calib *calib, float alpha, size_t first, int place,
                                    smoothed *s, mq_error *error)
{
    const mq_model *m = &w->model;
    const size_t width = m->width;
    const uint32_t layer = w->module[first].place.layer;
    const float *inputs = mq__calib_amax(calib, layer, places[place].group);
    const mq_layer *l = &m->layer[layer];
    mq__rule_name(norm_rule(w, places[place].norm), w->module[first].place, "", s->name);
    const mq_tensor *t = mq__checkpoint_find(w->dense, s->name);
    float *amax = mq__alloc_zero(width, sizeof *amax), *row = mq__alloc(width * sizeof *row);
    s->factor = mq__alloc(width * sizeof *s->factor);
    s->norm = mq__alloc(t->bytes);
    const bool complete = amax && row && s->factor && s->norm;
    for (size_t i = first; complete && i < mq__fused_end(w, first); i++) {
        const mq_dense *dense = &w->module[i].linear->dense;
        for (size_t r = 0; r < dense->n; r++) {
            mq__dense_rows(dense, r, 1, NULL, row);
            for (size_t k = 0; k < width; k++) {
                amax[k] = fmaxf(amax[k], fabsf(row[k]));
            }
        }
    }
    for (size_t k = 0; complete && k < width; k++) {
        s->factor[k] = factor_of_smoothquant(inputs[k], amax[k], alpha);
    }
    const float from = norm_rule(w, places[place].norm)->use == MQ_USE_NORM_FROM_1 ? 1 : 0;
    if (complete) divide_norm(t, (place ? l->mlp_norm : l->attention_norm)[MQ_COPY_PRECISE], from, width, s);
    mq__free(row);
    mq__free(amax);
    return complete ? MQ_OK : mq__fail(error, MQ_NO_MEMORY, "smooth: %s: expected memory, got none", s->name);
}

mq_status mq__smoothing_new(mq_weights *w, const mq_calib *calib, float alpha, const bool *quantised,
                            mq_smoothing **out, mq_error *error)
{
    const size_t count = 2 * (size_t)w->model.layers;
    mq_smoothing *s = mq__alloc_zero(1, sizeof *s + count * sizeof s->item[0]);
    mq_status status = s ? MQ_OK : mq__fail(error, MQ_NO_MEMORY, "smooth: expected memory, got none");
    *out = s;
    if (s) s->count = count;
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        const size_t first = smoothed_group(w, (uint32_t)(i / 2), places[i % 2].group);
        if (first == w->module_count || !quantised[first]) continue; /* a fused group is quantised as a whole */
        status = smooth_smoothquant(w, calib, alpha, first, (int)(i % 2), &s->item[i], error);
    }
    return status;
}

void mq__smoothing_free(mq_smoothing *s)
{
    for (size_t i = 0; s && i < s->count; i++) {
        mq__free(s->item[i].factor);
        mq__free(s->item[i].norm);
    }
    mq__free(s);
}

const float *mq__smoothing_factor(const mq_smoothing *s, uint32_t layer, mq_linear_group group)
{
    if (!s || (group != MQ_GROUP_QKV && group != MQ_GROUP_GATE_UP)) return NULL;
    return s->item[2 * (size_t)layer + (group == MQ_GROUP_GATE_UP)].factor;
}

const void *mq__smoothing_norm(const mq_smoothing *s, const char *name)
{
    for (size_t i = 0; s && i < s->count; i++) {
        if (s->item[i].norm && strcmp(s->item[i].name, name) == 0) return s->item[i].norm;
    }
    return NULL;
}
