/* Single tensors of a checkpoint: vectors, dense matrices, linear layers in either precision. */
#include "base/error.h"
#include "base/halffloat.h"
#include "base/mem.h"
#include "engine/weights.h"
#include "format/nvfp4.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static bool has_shape(const mq_tensor *t, uint64_t n, uint64_t k)
{
    return k ? t->rank == 2 && t->shape[0] == n && t->shape[1] == k : t->rank == 1 && t->shape[0] == n;
}

static mq_status wrong_shape(const mq_tensor *t, uint64_t n, uint64_t k, mq_error *error)
{
    char got[128] = "";
    for (int i = 0, used = 0; i < t->rank && used < 100; i++) {
        used +=
            snprintf(got + used, sizeof got - (size_t)used, "%s%llu", i ? ", " : "", (unsigned long long)t->shape[i]);
    }
    if (k == 0) {
        return mq__fail(error, MQ_FORMAT, "checkpoint: tensor %s: expected shape [%llu] from config.json, got [%s]",
                        t->name, (unsigned long long)n, got);
    }
    return mq__fail(error, MQ_FORMAT, "checkpoint: tensor %s: expected shape [%llu, %llu] from config.json, got [%s]",
                    t->name, (unsigned long long)n, (unsigned long long)k, got);
}

static mq_status find_weights_read(const mq_checkpoint *c, const char *name, const mq_tensor **t, mq_error *error)
{
    *t = mq__checkpoint_find(c, name);
    if (*t) return MQ_OK;
    return mq__fail(error, MQ_FORMAT, "checkpoint: %s: expected tensor %s, got none", mq__checkpoint_dir(c), name);
}

static bool dense_type(mq_dtype dtype, mq_dense_type *type)
{
    switch (dtype) {
    case MQ_DTYPE_BF16:
        *type = MQ_DENSE_BF16;
        return true;
    case MQ_DTYPE_F16:
        *type = MQ_DENSE_F16;
        return true;
    case MQ_DTYPE_F32:
        *type = MQ_DENSE_F32;
        return true;
    default:
        return false;
    }
}

float *mq__weights_own(mq_weights *w, size_t bytes)
{
    if (w->vector_count == w->vector_cap) {
        const size_t cap = w->vector_cap ? 2 * w->vector_cap : 64;
        float **larger = mq__realloc(w->vectors, cap * sizeof *larger);
        if (!larger) return NULL;
        w->vectors = larger;
        w->vector_cap = cap;
    }
    float *block = mq__alloc_aligned(bytes);
    if (block) w->vectors[w->vector_count++] = block;
    return block;
}

/* An owned FP32 copy of `count` values. */
static mq_status vector_of(mq_weights *w, const mq_tensor *t, size_t count, const float **vector, mq_error *error)
{
    const char *name = t->name;
    mq_dense_type type;
    if (!dense_type(t->dtype, &type)) {
        return mq__fail(error, MQ_UNSUPPORTED, "checkpoint: tensor %s: expected BF16, F16 or F32, got %s", name,
                        mq__dtype_name(t->dtype));
    }
    float *values = mq__weights_own(w, count * sizeof *values);
    if (!values) return mq__fail(error, MQ_NO_MEMORY, "checkpoint: tensor %s: expected memory, got none", name);
    bool finite = true;
    for (size_t i = 0; i < count; i++) {
        uint16_t half = 0;
        if (type == MQ_DENSE_F32)
            memcpy(&values[i], t->data + 4 * i, 4);
        else
            memcpy(&half, t->data + 2 * i, 2);
        if (type == MQ_DENSE_BF16) values[i] = mq__bf16_to_f32(half);
        if (type == MQ_DENSE_F16) values[i] = mq__f16_to_f32(half);
        finite = finite && isfinite(values[i]);
    }
    if (!finite) return mq__fail(error, MQ_FORMAT, "checkpoint: tensor %s: expected finite values, got others", name);
    *vector = values;
    return MQ_OK;
}

mq_status mq__weights_vector(mq_weights *w, const mq_checkpoint *c, const char *name, size_t count,
                             const float **vector, mq_error *error)
{
    const mq_tensor *t;
    *vector = NULL;
    const mq_status status = find_weights_read(c, name, &t, error);
    if (status != MQ_OK) return status;
    return has_shape(t, count, 0) ? vector_of(w, t, count, vector, error) : wrong_shape(t, count, 0, error);
}

/* [rows, 1, columns] of the file becomes [columns][rows]. */
mq_status mq__weights_conv(mq_weights *w, const mq_checkpoint *c, const char *name, uint32_t rows, uint32_t columns,
                           const float **conv, mq_error *error)
{
    const mq_tensor *t = mq__checkpoint_find(c, name);
    const bool fits = t && t->rank == 3 && t->shape[0] == rows && t->shape[1] == 1 && t->shape[2] == columns;
    if (!fits) {
        return mq__fail(error, MQ_FORMAT, "checkpoint: tensor %s: expected shape [%u, 1, %u] from config.json, got %s",
                        name, rows, columns, t ? "another" : "no such tensor");
    }
    const float *values;
    const mq_status status = vector_of(w, t, (size_t)rows * columns, &values, error);
    if (status != MQ_OK) return status;
    float *turned = mq__weights_own(w, (size_t)rows * columns * sizeof *turned);
    if (!turned) return mq__fail(error, MQ_NO_MEMORY, "checkpoint: tensor %s: expected memory, got none", name);
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < columns; i++) {
            turned[i * rows + r] = values[r * columns + i];
        }
    }
    *conv = turned;
    return MQ_OK;
}

static mq_status dense_of(mq_weights *w, const mq_tensor *t, uint32_t n, uint32_t k, mq_dense *dense, mq_error *error)
{
    mq_dense_type type;
    if (!dense_type(t->dtype, &type)) {
        return mq__fail(error, MQ_UNSUPPORTED,
                        "checkpoint: tensor %s: expected BF16, F16 or F32 (or NVFP4 or FP8 with its scales), got %s",
                        t->name, mq__dtype_name(t->dtype));
    }
    if (!has_shape(t, n, k)) return wrong_shape(t, n, k, error);
    const void *data = t->data;
    /* Writers align tensors; the format does not promise it. A misaligned one costs a copy. */
    if ((uintptr_t)data % mq__dtype_bytes(t->dtype) != 0) {
        void *copy = mq__weights_own(w, t->bytes);
        if (!copy) return mq__fail(error, MQ_NO_MEMORY, "checkpoint: tensor %s: expected memory, got none", t->name);
        memcpy(copy, data, t->bytes);
        data = copy;
    }
    *dense = (mq_dense){.data = data, .type = type, .n = n, .k_width = k};
    return MQ_OK;
}

mq_status mq__dense_read(mq_weights *w, const mq_checkpoint *c, const char *name, uint32_t n, uint32_t k_width,
                         mq_dense *dense, mq_error *error)
{
    const mq_tensor *t;
    const mq_status status = find_weights_read(c, name, &t, error);
    return status == MQ_OK ? dense_of(w, t, n, k_width, dense, error) : status;
}

static const mq_tensor *find_suffix(const mq_checkpoint *c, const char *prefix, const char *suffix)
{
    char name[512];
    return (size_t)snprintf(name, sizeof name, "%s.%s", prefix, suffix) < sizeof name ? mq__checkpoint_find(c, name)
                                                                                      : NULL;
}

/* A positive finite scalar. */
static bool read_scalar(const mq_tensor *t, float *value)
{
    if (!t || t->dtype != MQ_DTYPE_F32 || t->bytes != sizeof *value) return false;
    memcpy(value, t->data, sizeof *value);
    return isfinite(*value) && *value > 0;
}

/* Packed codes with their block scales and tensor scale; divisor as compressed-tensors stores it, else ModelOpt's. */
static mq_status nvfp4_of(const mq_checkpoint *c, const char *prefix, const mq_tensor *codes, uint32_t n, uint32_t k,
                          mq_linear_source *source, mq_error *error)
{
    const mq_tensor *scales = find_suffix(c, prefix, "weight_scale");
    const mq_tensor *divisor = find_suffix(c, prefix, "weight_global_scale");
    const mq_tensor *multiplier = find_suffix(c, prefix, "weight_scale_2");
    float value;
    if (k % MQ_NVFP4_VALUES != 0 || codes->dtype != MQ_DTYPE_U8 || !has_shape(codes, n, k / 2)) {
        return mq__fail(error, MQ_FORMAT, "checkpoint: %s: expected U8 codes [%u, %u] of NVFP4, got others", prefix, n,
                        k / 2);
    }
    if (!scales || scales->dtype != MQ_DTYPE_F8_E4M3 || !has_shape(scales, n, k / MQ_NVFP4_VALUES)) {
        return mq__fail(error, MQ_FORMAT, "checkpoint: %s.weight_scale: expected F8_E4M3 [%u, %u], got others", prefix,
                        n, k / MQ_NVFP4_VALUES);
    }
    if (find_suffix(c, prefix, "pre_quant_scale")) {
        return mq__fail(error, MQ_UNSUPPORTED, "checkpoint: %s.pre_quant_scale: expected none, got one", prefix);
    }
    if (!read_scalar(divisor ? divisor : multiplier, &value)) {
        return mq__fail(error, MQ_FORMAT, "checkpoint: %s: expected a positive F32 tensor scale, got another", prefix);
    }
    if (!mq__nvfp4_scales_are_valid(scales->data, scales->bytes)) {
        return mq__fail(error, MQ_FORMAT, "checkpoint: %s.weight_scale: expected scales >= 0, got NaN or negative",
                        prefix);
    }
    source->nibbles = codes->data;
    source->scales = scales->data;
    source->multiplier = divisor ? 1.0f / value : value;
    if (isfinite(source->multiplier)) return MQ_OK;
    return mq__fail(error, MQ_FORMAT, "checkpoint: %s: expected a tensor scale with a finite reciprocal, got %g",
                    prefix, (double)value);
}

/* The scale of each row of an FP8 matrix; a single one stands for all. False: not such a tensor, or not positive and finite. */
static bool read_fp8_scales(const mq_tensor *t, uint32_t n, float *scales)
{
    mq_dense_type type;
    if (!t || !dense_type(t->dtype, &type)) return false;
    const size_t count = t->bytes / mq__dtype_bytes(t->dtype);
    const bool shaped = t->rank == 0 || (t->rank == 1 && (count == 1 || count == n)) ||
                        (t->rank == 2 && t->shape[1] == 1 && (count == 1 || count == n));
    if (!shaped) return false;
    for (size_t i = 0; i < n; i++) {
        const uint8_t *at = t->data + (count == 1 ? 0 : i) * mq__dtype_bytes(t->dtype);
        uint16_t half = 0;
        memcpy(type == MQ_DENSE_F32 ? (void *)&scales[i] : (void *)&half, at, mq__dtype_bytes(t->dtype));
        if (type == MQ_DENSE_BF16) scales[i] = mq__bf16_to_f32(half);
        if (type == MQ_DENSE_F16) scales[i] = mq__f16_to_f32(half);
        if (!(scales[i] > 0) || !isfinite(scales[i])) return false;
    }
    return true;
}

/* E4M3 values with a scale a row (compressed-tensors' float-quantized), as FP32: the only form in which they are multiplied here. */
static mq_status fp8_of(mq_weights *w, const mq_checkpoint *c, const char *prefix, const mq_tensor *codes, uint32_t n,
                        uint32_t k, mq_linear_source *source, mq_error *error)
{
    if (!has_shape(codes, n, k)) return wrong_shape(codes, n, k, error);
    float *scales = mq__alloc(n * sizeof *scales), *values = mq__weights_own(w, (size_t)n * k * sizeof *values);
    mq_status status = MQ_OK;
    if (!scales || !values) {
        status = mq__fail(error, MQ_NO_MEMORY, "checkpoint: %s: expected memory, got none", prefix);
    } else if (!read_fp8_scales(find_suffix(c, prefix, "weight_scale"), n, scales)) {
        status =
            mq__fail(error, MQ_FORMAT,
                     "checkpoint: %s.weight_scale: expected a positive scale for each of %u rows (or one for all) in "
                     "BF16, F16 or F32, got others",
                     prefix, n);
    }
    for (size_t i = 0; status == MQ_OK && i < (size_t)n * k; i++) {
        values[i] = mq__e4m3_decode(codes->data[i]) * scales[i / k];
        if (isfinite(values[i])) continue;
        status = mq__fail(error, MQ_FORMAT, "checkpoint: tensor %s: expected finite values, got others", codes->name);
    }
    mq__free(scales);
    source->dense = (mq_dense){.data = values, .type = MQ_DENSE_F32, .n = n, .k_width = k};
    source->is_fp8 = true;
    return status;
}

/* Rows [first, first + n) of what all experts of a layer have in one tensor [E, rows, k]. */
static mq_status expert_of(mq_weights *w, const mq_tensor *t, uint32_t expert, uint32_t rows, uint32_t first,
                           const mq_linear *linear, mq_linear_source *source, mq_error *error)
{
    const uint64_t n = linear->n, k = linear->k_width;
    if (t->rank != 3 || t->shape[0] != w->config.experts || t->shape[1] != rows || t->shape[2] != k) {
        return mq__fail(error, MQ_FORMAT,
                        "checkpoint: tensor %s: expected shape [%u, %u, %llu] from config.json, got another", t->name,
                        w->config.experts, rows, (unsigned long long)k);
    }
    const size_t bytes = mq__dtype_bytes(t->dtype);
    mq_tensor part = *t;
    part.rank = 2;
    part.shape[0] = n;
    part.shape[1] = k;
    part.bytes = n * k * bytes;
    part.data = t->data + ((uint64_t)expert * rows + first) * k * bytes;
    return dense_of(w, &part, (uint32_t)n, (uint32_t)k, &source->dense, error);
}

mq_status mq__expert_source_read(mq_weights *w, const mq_checkpoint *c, const mq_module *m, bool *found,
                                 mq_linear_source *source, mq_error *error)
{
    char name[MQ_TENSOR_NAME_BYTES];
    const bool down = m->rule->group == MQ_GROUP_DOWN;
    const uint32_t n = m->linear->n;
    const mq_tensor *t = NULL;
    mq__module_name(m, "", name);
    char *const experts = strstr(name, ".experts.");
    if (experts && mq__rule_scope(m->rule) ==
                       MQ_SCOPE_EXPERT) { /* "<...>.experts.<e>.up_proj" is part of "<...>.experts.gate_up_proj" */
        char *const after = experts + strlen(".experts.");
        snprintf(after, sizeof name - (size_t)(after - name), "%s", down ? "down_proj" : "gate_up_proj");
        t = mq__checkpoint_find(c, name);
    }
    *source = (mq_linear_source){0};
    *found = t != NULL;
    if (!t) return MQ_OK;
    const bool up = !down && m->rule->offset == offsetof(mq_mlp, up);
    return expert_of(w, t, m->place.expert, down ? n : 2 * n, up ? n : 0, m->linear, source, error);
}

mq_status mq__linear_source_read(mq_weights *w, const mq_checkpoint *c, const char *prefix, uint32_t n,
                                 uint32_t k_width, mq_linear_source *source, mq_error *error)
{
    *source = (mq_linear_source){0};
    const mq_tensor *packed = find_suffix(c, prefix, "weight_packed"), *weight = find_suffix(c, prefix, "weight");
    if (packed) return nvfp4_of(c, prefix, packed, n, k_width, source, error);
    if (!weight) {
        return mq__fail(error, MQ_FORMAT, "checkpoint: %s: expected tensor %s.weight, got none", mq__checkpoint_dir(c),
                        prefix);
    }
    if (weight->dtype == MQ_DTYPE_U8) return nvfp4_of(c, prefix, weight, n, k_width, source, error);
    if (weight->dtype == MQ_DTYPE_F8_E4M3) return fp8_of(w, c, prefix, weight, n, k_width, source, error);
    return dense_of(w, weight, n, k_width, &source->dense, error);
}
