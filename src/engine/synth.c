/* Random checkpoints. Each tensor has a generator of its own, seeded by the model's seed and the tensor's name, so that
 * a cut model has the same first layers as the whole one. */
#include "base/error.h"
#include "base/halffloat.h"
#include "base/mem.h"
#include "engine/cache_dir.h"
#include "engine/synth_shapes.h"
#include "format/checkpoint_write.h"
#include "mixquant_tools.h"
#include "model/family.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#define QUANTILES 4096  /* 12 bits: five weights from one 64-bit number */
#define CHUNK     65535 /* weights per write; a multiple of 5 */

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
    const mq_model_config *config;
    mq_tensor_spec *specs;
    float (*normal)[2]; /* mean, deviation */
    char (*names)[MQ_TENSOR_NAME_BYTES];
    size_t count;
} plan;

static void add_synth(plan *p, const char *name, uint64_t rows, uint64_t columns, float mean, float deviation)
{
    const size_t i = p->count++;
    snprintf(p->names[i], MQ_TENSOR_NAME_BYTES, "%s", name);
    p->specs[i] = (mq_tensor_spec){
        .name = p->names[i], .dtype = MQ_DTYPE_BF16, .rank = columns ? 2 : 1, .shape = {rows, columns}};
    p->normal[i][0] = mean;
    p->normal[i][1] = deviation;
}

/* Weights of deviation 1/sqrt(inputs) keep the scale of normalised activations. */
static mq_status add_tensor(void *context, const mq_tensor_rule *rule, mq_place place, mq_error *error)
{
    plan *p = context;
    char name[MQ_TENSOR_NAME_BYTES];
    const uint32_t rows = mq__rule_size(p->config, place.layer, rule->rows);
    const uint32_t columns = mq__rule_size(p->config, place.layer, rule->columns);
    const bool embedding = rule->use == MQ_USE_MATRIX && rule->offset == offsetof(mq_model, embedding);
    (void)error;
    mq__rule_name(rule, place, rule->use == MQ_USE_LINEAR ? ".weight" : "", name);
    if (rule->use == MQ_USE_NOTHING) return MQ_OK;
    if (!p->specs) {
        p->count++;
    } else if (rule->use == MQ_USE_CONV) {
        add_synth(p, name, rows, 1, 0.0f, 1.0f / sqrtf((float)columns));
        p->specs[p->count - 1].rank = 3;
        p->specs[p->count - 1].shape[2] = columns;
    } else if (rule->use == MQ_USE_BIAS) {
        add_synth(p, name, rows, 0, 0.0f, 0.1f);
    } else if (columns == 0) {
        const bool from_1 = rule->use == MQ_USE_NORM_FROM_1 || rule->use == MQ_USE_VECTOR_FROM_1;
        add_synth(p, name, rows, 0, from_1 ? 0.0f : 1.0f, 0.05f);
    } else if (rule->use == MQ_USE_ROUTER && p->config->router_scale > 0) {
        add_synth(p, name, rows, columns, 0.0f, 1.0f); /* its logits are scaled instead */
    } else {
        add_synth(p, name, rows, columns, 0.0f,
                  embedding && !p->config->tied_head ? 1.0f : 1.0f / sqrtf((float)columns));
    }
    return MQ_OK;
}

static void clear_plan(plan *p)
{
    mq__free(p->specs);
    mq__free(p->normal);
    mq__free(p->names);
}

/* On failure the caller clears it, as on success. */
static bool make_plan(const mq_model_config *config, plan *p)
{
    *p = (plan){.config = config};
    (void)mq__family_walk(config, add_tensor, p, NULL); /* counts */
    p->specs = mq__alloc_zero(p->count, sizeof *p->specs);
    p->normal = mq__alloc_zero(p->count, sizeof *p->normal);
    p->names = mq__alloc_zero(p->count, sizeof *p->names);
    if (!p->specs || !p->normal || !p->names) return false;
    p->count = 0;
    (void)mq__family_walk(config, add_tensor, p, NULL);
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
    mq_model_config config;
    plan p = {0};
    scratch *s = NULL;
    if (!o->out_dir) return mq__fail(error, MQ_USAGE, "synth: output: expected a directory, got none");
    mq_status status = find_shape(o->shape, o->layers, &shape, error);
    if (status != MQ_OK) return status;
    const uint32_t layers = o->layers ? o->layers : shape->layers;
    json_t *json = mq__synth_config(shape, layers);
    s = mq__alloc(sizeof *s);
    if (json) status = mq__model_config_parse(json, &config, error);
    if (status != MQ_OK) goto out;
    if (!json || !s || !make_plan(&config, &p)) {
        status = mq__fail(error, MQ_NO_MEMORY, "synth: %s: expected memory, got none", o->shape);
        goto out;
    }
    fill_quantiles(s->quantile);
    status = mq__checkpoint_create(o->out_dir, &writer, error);
    if (status == MQ_OK) status = mq__checkpoint_put_json(&writer, "config.json", json, error);
    if (status == MQ_OK) status = put_json(&writer, "generation_config.json", mq__synth_generation_config(), error);
    if (status == MQ_OK) status = put_json(&writer, "tokenizer.json", mq__synth_tokenizer(), error);
    if (status == MQ_OK) status = put_json(&writer, "tokenizer_config.json", mq__synth_tokenizer_config(shape), error);
    if (status == MQ_OK) status = mq__checkpoint_declare(&writer, p.specs, p.count, 0, error);
    for (size_t i = 0; status == MQ_OK && i < p.count; i++) {
        status = write_tensor(&writer, &p, i, o->seed, s, error);
    }
    if (status == MQ_OK) status = mq__checkpoint_finish(&writer, error);
out:
    json_decref(json);
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
