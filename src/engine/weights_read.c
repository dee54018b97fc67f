/* Single tensors of a checkpoint: vectors, dense matrices, linear layers in either precision. */
#include "base/error.h"
#include "base/halffloat.h"
#include "base/mem.h"
#include "engine/weights.h"
#include "format/nvfp4.h"

#include <math.h>
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

mq_status mq__weights_vector(mq_weights *w, const mq_checkpoint *c, const char *name, size_t count,
                             const float **vector, mq_error *error)
{
    const mq_tensor *t;
    mq_dense_type type;
    *vector = NULL;
    const mq_status status = find_weights_read(c, name, &t, error);
    if (status != MQ_OK) return status;
    if (!has_shape(t, count, 0)) return wrong_shape(t, count, 0, error);
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

static mq_status dense_of(mq_weights *w, const mq_tensor *t, uint32_t n, uint32_t k, mq_dense *dense, mq_error *error)
{
    mq_dense_type type;
    if (!dense_type(t->dtype, &type)) {
        return mq__fail(error, MQ_UNSUPPORTED,
                        "checkpoint: tensor %s: expected BF16, F16 or F32 (or NVFP4 with its scales), got %s", t->name,
                        mq__dtype_name(t->dtype));
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

/* Where experts of a layer are stored together: "<experts>.gate_up_proj" [E, 2M, D], gate first, and "<experts>.down_proj" [E, D, M].
 * Of the linear layer "<experts>.<e>.<part>" the tensor that it is in, and where its rows begin; NULL: it is in none. */
static const mq_tensor *find_fused(const mq_checkpoint *c, const char *prefix, uint32_t n, uint32_t k_width,
                                   uint64_t *first_row)
{
    char name[512];
    const char *part = strrchr(prefix, '.'), *number = part;
    while (number && number > prefix && number[-1] != '.') {
        number--;
    }
    uint32_t expert = 0;
    char end = 0;
    if (!number || sscanf(number, "%9u%c", &expert, &end) != 2 || end != '.') return NULL;
    const bool down = strcmp(part, ".down_proj") == 0, up = strcmp(part, ".up_proj") == 0;
    const int stem = (int)(number - 1 - prefix);
    if ((size_t)snprintf(name, sizeof name, "%.*s.%s", stem, prefix, down ? "down_proj" : "gate_up_proj") >=
        sizeof name)
        return NULL;
    const mq_tensor *t = mq__checkpoint_find(c, name);
    const uint64_t rows = down ? n : 2 * (uint64_t)n;
    if (!t || t->rank != 3 || expert >= t->shape[0] || t->shape[1] != rows || t->shape[2] != k_width) return NULL;
    *first_row = expert * rows + (up ? n : 0);
    return t;
}

static mq_status fused_of(mq_weights *w, const mq_tensor *t, uint64_t first_row, uint32_t n, uint32_t k_width,
                          mq_dense *dense, mq_error *error)
{
    const size_t row = k_width * mq__dtype_bytes(t->dtype);
    mq_tensor own = *t;
    own.rank = 2;
    own.shape[0] = n;
    own.shape[1] = k_width;
    own.data = t->data + first_row * row;
    own.bytes = n * row;
    return dense_of(w, &own, n, k_width, dense, error);
}

mq_status mq__linear_source_read(mq_weights *w, const mq_checkpoint *c, const char *prefix, uint32_t n,
                                 uint32_t k_width, mq_linear_source *source, mq_error *error)
{
    *source = (mq_linear_source){0};
    const mq_tensor *packed = find_suffix(c, prefix, "weight_packed"), *weight = find_suffix(c, prefix, "weight");
    uint64_t first_row = 0;
    if (packed) return nvfp4_of(c, prefix, packed, n, k_width, source, error);
    const mq_tensor *fused = weight ? NULL : find_fused(c, prefix, n, k_width, &first_row);
    if (fused) return fused_of(w, fused, first_row, n, k_width, &source->dense, error);
    if (!weight) {
        return mq__fail(error, MQ_FORMAT, "checkpoint: %s: expected tensor %s.weight, got none", mq__checkpoint_dir(c),
                        prefix);
    }
    if (weight->dtype == MQ_DTYPE_U8) return nvfp4_of(c, prefix, weight, n, k_width, source, error);
    return dense_of(w, weight, n, k_width, &source->dense, error);
}
