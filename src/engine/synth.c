/* Random checkpoints. Each tensor has a generator of its own, seeded by the model's seed and the tensor's name, so that
 * a cut model has the same first layers as the whole one. */
#include "base/error.h"
#include "base/halffloat.h"
#include "base/mem.h"
#include "engine/cache_dir.h"
#include "engine/synth_shapes.h"
#include "format/checkpoint_write.h"
#include "mixquant_tools.h"

#include <math.h>
#include <string.h>

#define QUANTILES  4096 /* 12 bits: five weights from one 64-bit number */
#define NAME_BYTES 96
#define CHUNK      65535 /* weights per write; a multiple of 5 */

/* The quantiles of a normal distribution in the middle of 4096 equally likely bins, ends at +-3.67. */
static void fill_quantiles(float quantile[QUANTILES])
{
    for (int i = QUANTILES / 2; i < QUANTILES; i++) {
        const double p = (i + 0.5) / QUANTILES;
        double low = 0, high = 8;
        for (int step = 0; step < 50; step++) {
            const double middle = (low + high) / 2;
            if (0.5 * erfc(-middle / sqrt(2.0)) < p)
                low = middle;
            else
                high = middle;
        }
        quantile[i] = (float)low;
        quantile[QUANTILES - 1 - i] = -(float)low;
    }
}

typedef struct generator {
    uint64_t s[4]; /* xoshiro256++ (Blackman and Vigna) */
} generator;

static uint64_t rotate_synth(uint64_t x, int k)
{
    return x << k | x >> (64 - k);
}

static uint64_t next_number(generator *g)
{
    uint64_t *s = g->s;
    const uint64_t result = rotate_synth(s[0] + s[3], 23) + s[0], t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_synth(s[3], 45);
    return result;
}

static generator generator_of(uint64_t seed, const char *name)
{
    generator g;
    uint64_t x = seed;
    for (const char *c = name; *c; c++) {
        x = (x ^ (unsigned char)*c) * 0x100000001b3u; /* FNV-1a */
    }
    for (int i = 0; i < 4; i++) { /* splitmix64 */
        uint64_t z = x += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        g.s[i] = z ^ z >> 31;
    }
    return g;
}

typedef struct plan {
    mq_tensor_spec *specs;
    float (*normal)[2]; /* mean, deviation */
    char (*names)[NAME_BYTES];
    size_t count, max;
} plan;

static void add_synth(plan *p, const char *name, uint64_t rows, uint64_t columns, float mean, float deviation)
{
    const size_t i = p->count++;
    snprintf(p->names[i], NAME_BYTES, "%s", name);
    p->specs[i] = (mq_tensor_spec){
        .name = p->names[i], .dtype = MQ_DTYPE_BF16, .rank = columns ? 2 : 1, .shape = {rows, columns}};
    p->normal[i][0] = mean;
    p->normal[i][1] = deviation;
}

static void add_norm(plan *p, const char *name, uint64_t width)
{
    add_synth(p, name, width, 0, 1.0f, 0.05f);
}

/* Weights of deviation 1/sqrt(inputs) keep the scale of normalised activations. */
static void add_linear(plan *p, const char *prefix, const char *name, uint64_t n, uint64_t k, bool bias)
{
    char full[NAME_BYTES];
    snprintf(full, sizeof full, "%s%s.weight", prefix, name);
    add_synth(p, full, n, k, 0.0f, 1.0f / sqrtf((float)k));
    if (!bias) return;
    snprintf(full, sizeof full, "%s%s.bias", prefix, name);
    add_synth(p, full, n, 0, 0.0f, 0.1f);
}

static void add_layer(plan *p, const mq_synth_shape *s, uint32_t layer)
{
    char prefix[48], name[NAME_BYTES];
    const uint64_t q = (uint64_t)s->heads * s->head_dim, kv = (uint64_t)s->kv_heads * s->head_dim;
    const bool bias = s->architecture == MQ_ARCH_QWEN2;
    snprintf(prefix, sizeof prefix, "model.layers.%u.", layer);
    snprintf(name, sizeof name, "%sinput_layernorm.weight", prefix);
    add_norm(p, name, s->width);
    add_linear(p, prefix, "self_attn.q_proj", q, s->width, bias);
    add_linear(p, prefix, "self_attn.k_proj", kv, s->width, bias);
    add_linear(p, prefix, "self_attn.v_proj", kv, s->width, bias);
    add_linear(p, prefix, "self_attn.o_proj", s->width, q, false);
    if (s->architecture == MQ_ARCH_QWEN3) {
        snprintf(name, sizeof name, "%sself_attn.q_norm.weight", prefix);
        add_norm(p, name, s->head_dim);
        snprintf(name, sizeof name, "%sself_attn.k_norm.weight", prefix);
        add_norm(p, name, s->head_dim);
    }
    snprintf(name, sizeof name, "%spost_attention_layernorm.weight", prefix);
    add_norm(p, name, s->width);
    add_linear(p, prefix, "mlp.gate_proj", s->ffn, s->width, false);
    add_linear(p, prefix, "mlp.up_proj", s->ffn, s->width, false);
    add_linear(p, prefix, "mlp.down_proj", s->width, s->ffn, false);
}

static void clear_plan(plan *p)
{
    mq__free(p->specs);
    mq__free(p->normal);
    mq__free(p->names);
}

/* On failure the caller clears it, as on success. */
static bool make_plan(const mq_synth_shape *s, uint32_t layers, plan *p)
{
    *p = (plan){.max = 3 + (size_t)layers * 14};
    p->specs = mq__alloc_zero(p->max, sizeof *p->specs);
    p->normal = mq__alloc_zero(p->max, sizeof *p->normal);
    p->names = mq__alloc_zero(p->max, sizeof *p->names);
    if (!p->specs || !p->normal || !p->names) return false;
    const float small = 1.0f / sqrtf((float)s->width);
    add_synth(p, "model.embed_tokens.weight", s->vocab, s->width, 0, s->tied ? small : 1.0f);
    for (uint32_t i = 0; i < layers; i++) {
        add_layer(p, s, i);
    }
    add_norm(p, "model.norm.weight", s->width);
    if (!s->tied) add_linear(p, "", "lm_head", s->vocab, s->width, false);
    return true;
}

typedef struct scratch {
    float quantile[QUANTILES];
    uint16_t table[QUANTILES], weights[CHUNK];
} scratch;

static mq_status write_tensor(mq_checkpoint_writer *w, const plan *p, size_t i, uint64_t seed, scratch *s,
                              mq_error *error)
{
    generator g = generator_of(seed, p->specs[i].name);
    mq_status status = MQ_OK;
    for (int q = 0; q < QUANTILES; q++) {
        s->table[q] = mq__f32_to_bf16(p->normal[i][0] + p->normal[i][1] * s->quantile[q]);
    }
    uint64_t left = mq__tensor_spec_bytes(&p->specs[i]) / sizeof(uint16_t);
    while (status == MQ_OK && left) {
        const size_t count = left < CHUNK ? (size_t)left : CHUNK;
        for (size_t k = 0; k < CHUNK && k < count; k += 5) {
            const uint64_t bits = next_number(&g);
            for (int j = 0; j < 5; j++) {
                s->weights[k + (size_t)j] = s->table[bits >> (12 * j) & (QUANTILES - 1)];
            }
        }
        status = mq__checkpoint_put(w, s->weights, count * sizeof(uint16_t), error);
        left -= count;
    }
    return status;
}

static mq_status put_json(mq_checkpoint_writer *w, const char *name, json_t *value, mq_error *error)
{
    if (!value) return mq__fail(error, MQ_NO_MEMORY, "synth: %s: expected memory, got none", name);
    const mq_status status = mq__checkpoint_put_json(w, name, value, error);
    json_decref(value);
    return status;
}

const char *mq_synth_shape_name(size_t i)
{
    const mq_synth_shape *shape = mq__synth_shape_at(i);
    return shape ? shape->name : NULL;
}

static mq_status find_shape(const char *name, uint32_t layers, const mq_synth_shape **shape, mq_error *error)
{
    *shape = name ? mq__synth_shape_find(name) : NULL;
    if (!*shape) {
        return mq__fail(error, MQ_USAGE, "synth: shape: expected one that synth --list names, got %.64s",
                        name ? name : "none");
    }
    if (layers > (*shape)->layers) {
        return mq__fail(error, MQ_USAGE, "synth: %s: expected at most %u layers, got %u", name, (*shape)->layers,
                        layers);
    }
    return MQ_OK;
}

mq_status mq_synth_checkpoint(const mq_synth_options *o, mq_error *error)
{
    const mq_synth_shape *shape;
    mq_checkpoint_writer writer = {0};
    plan p = {0};
    scratch *s = NULL;
    if (!o->out_dir) return mq__fail(error, MQ_USAGE, "synth: output: expected a directory, got none");
    mq_status status = find_shape(o->shape, o->layers, &shape, error);
    if (status != MQ_OK) return status;
    const uint32_t layers = o->layers ? o->layers : shape->layers;
    s = mq__alloc(sizeof *s);
    if (!s || !make_plan(shape, layers, &p)) {
        status = mq__fail(error, MQ_NO_MEMORY, "synth: %s: expected memory, got none", o->shape);
        goto out;
    }
    fill_quantiles(s->quantile);
    status = mq__checkpoint_create(o->out_dir, &writer, error);
    if (status == MQ_OK) status = put_json(&writer, "config.json", mq__synth_config(shape, layers), error);
    if (status == MQ_OK) status = put_json(&writer, "generation_config.json", mq__synth_generation_config(), error);
    if (status == MQ_OK) status = put_json(&writer, "tokenizer.json", mq__synth_tokenizer(), error);
    if (status == MQ_OK) status = put_json(&writer, "tokenizer_config.json", mq__synth_tokenizer_config(shape), error);
    if (status == MQ_OK) status = mq__checkpoint_declare(&writer, p.specs, p.count, 0, error);
    for (size_t i = 0; status == MQ_OK && i < p.count; i++) {
        status = write_tensor(&writer, &p, i, o->seed, s, error);
    }
    if (status == MQ_OK) status = mq__checkpoint_finish(&writer, error);
out:
    mq__checkpoint_discard(&writer);
    clear_plan(&p);
    mq__free(s);
    return status;
}

mq_status mq_synth_cached(const char *shape_name, uint32_t layers, const char *cache_dir, char **dir, mq_error *error)
{
    const mq_synth_shape *shape;
    char name[80], *cache = NULL, *path = NULL, *config = NULL;
    *dir = NULL;
    mq_status status = find_shape(shape_name, layers, &shape, error);
    if (status == MQ_OK) status = mq__cache_dir(cache_dir, &cache, error);
    if (status != MQ_OK) return status;
    if (layers == 0 || layers == shape->layers)
        snprintf(name, sizeof name, "synth/%s", shape->name);
    else
        snprintf(name, sizeof name, "synth/%s-L%u", shape->name, layers);
    path = mq__path_join(cache, name);
    config = path ? mq__path_join(path, "config.json") : NULL;
    if (!config) {
        status = mq__fail(error, MQ_NO_MEMORY, "synth: %s: expected memory, got none", shape_name);
    } else if (!mq__file_exists(config)) { /* a directory that is there is whole: it was renamed into place */
        status = mq_synth_checkpoint(
            &(mq_synth_options){.shape = shape_name, .layers = layers, .seed = 1, .out_dir = path}, error);
        if (status != MQ_OK && mq__file_exists(config)) status = MQ_OK; /* another process was faster */
    }
    if (status == MQ_OK) {
        *dir = path;
        path = NULL;
    }
    mq__free(config);
    mq__free(path);
    mq__free(cache);
    return status;
}
