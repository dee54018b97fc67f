/* Opens the checkpoints of a model and points an mq_model into them. */
#include "engine/weights.h"

#include "base/error.h"
#include "base/mem.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>

/* The linear layers of a transformer layer, in the order of mq__weights_linear. Sizes as letters: D width, Q = H*K,
 * G = G*K, F ffn. */
static const struct {
    const char *name;
    size_t offset;
    mq_linear_group group;
    char n, k;
} linears[MQ_LINEARS_PER_LAYER] = {
    {"self_attn.q_proj", offsetof(mq_layer, q), MQ_GROUP_QKV, 'Q', 'D'},
    {"self_attn.k_proj", offsetof(mq_layer, k), MQ_GROUP_QKV, 'G', 'D'},
    {"self_attn.v_proj", offsetof(mq_layer, v), MQ_GROUP_QKV, 'G', 'D'},
    {"self_attn.o_proj", offsetof(mq_layer, o), MQ_GROUP_O, 'D', 'Q'},
    {"mlp.gate_proj", offsetof(mq_layer, gate), MQ_GROUP_GATE_UP, 'F', 'D'},
    {"mlp.up_proj", offsetof(mq_layer, up), MQ_GROUP_GATE_UP, 'F', 'D'},
    {"mlp.down_proj", offsetof(mq_layer, down), MQ_GROUP_DOWN, 'D', 'F'},
};

static uint32_t size_of(const mq_model *m, char letter)
{
    switch (letter) {
    case 'D':
        return m->width;
    case 'Q':
        return m->heads * m->head_dim;
    case 'G':
        return m->kv_heads * m->head_dim;
    default:
        return m->ffn;
    }
}

mq_linear *mq__weights_linear(mq_weights *w, size_t index)
{
    char *layer = (char *)&w->model.layer[index / MQ_LINEARS_PER_LAYER];
    return (mq_linear *)(void *)(layer + linears[index % MQ_LINEARS_PER_LAYER].offset);
}

mq_linear_group mq__weights_group(size_t index)
{
    return linears[index % MQ_LINEARS_PER_LAYER].group;
}

static bool wants_bias(const mq_model_config *c, mq_linear_group group)
{
    return group == MQ_GROUP_QKV ? c->qkv_bias : group == MQ_GROUP_O ? c->o_bias : c->mlp_bias;
}

static mq_status read_bias(mq_weights *w, const char *prefix, bool wanted, mq_linear *linear, mq_error *error)
{
    char name[128];
    snprintf(name, sizeof name, "%s.bias", prefix);
    if (wanted) return mq__weights_vector(w, w->dense, name, linear->n, &linear->bias, error);
    if (!mq__checkpoint_find(w->dense, name)) return MQ_OK;
    return mq__fail(error, MQ_FORMAT, "checkpoint: tensor %s: expected none by config.json, got one", name);
}

static mq_status read_linears(mq_weights *w, uint32_t l, mq_error *error)
{
    for (size_t i = 0; i < MQ_LINEARS_PER_LAYER; i++) {
        const size_t index = (size_t)l * MQ_LINEARS_PER_LAYER + i;
        mq_linear *linear = mq__weights_linear(w, index);
        mq_linear_source own;
        char prefix[96];
        snprintf(prefix, sizeof prefix, "model.layers.%u.%s", l, linears[i].name);
        linear->n = size_of(&w->model, linears[i].n);
        linear->k_width = size_of(&w->model, linears[i].k);
        mq_status s = mq__linear_source_read(w, w->dense, prefix, linear->n, linear->k_width, &own, error);
        if (s == MQ_OK) s = read_bias(w, prefix, wants_bias(&w->config, linears[i].group), linear, error);
        if (s != MQ_OK) return s;
        linear->dense = own.dense;
        w->packed_source[index] = own;
        if (!w->second) continue;
        s = mq__linear_source_read(w, w->second, prefix, linear->n, linear->k_width, &w->packed_source[index], error);
        if (s != MQ_OK) return s;
    }
    return MQ_OK;
}

/* The same vector of both copies. */
static mq_status read_norms(mq_weights *w, const char *name, const float *norm[MQ_COPIES], mq_error *error)
{
    mq_status s = mq__weights_vector(w, w->dense, name, w->model.width, &norm[MQ_COPY_PRECISE], error);
    norm[MQ_COPY_NVFP4] = norm[MQ_COPY_PRECISE];
    if (s == MQ_OK && w->second) {
        s = mq__weights_vector(w, w->second, name, w->model.width, &norm[MQ_COPY_NVFP4], error);
    }
    return s;
}

static mq_status read_head_norm(mq_weights *w, const char *name, const float **norm, mq_error *error)
{
    if (w->config.qk_norm) return mq__weights_vector(w, w->dense, name, w->model.head_dim, norm, error);
    if (!mq__checkpoint_find(w->dense, name)) return MQ_OK;
    return mq__fail(error, MQ_FORMAT, "checkpoint: tensor %s: expected none by config.json, got one", name);
}

static mq_status read_layer(mq_weights *w, uint32_t l, mq_error *error)
{
    mq_layer *layer = &w->model.layer[l];
    char name[96];
    snprintf(name, sizeof name, "model.layers.%u.input_layernorm.weight", l);
    mq_status s = read_norms(w, name, layer->attention_norm, error);
    snprintf(name, sizeof name, "model.layers.%u.post_attention_layernorm.weight", l);
    if (s == MQ_OK) s = read_norms(w, name, layer->mlp_norm, error);
    snprintf(name, sizeof name, "model.layers.%u.self_attn.q_norm.weight", l);
    if (s == MQ_OK) s = read_head_norm(w, name, &layer->q_norm, error);
    snprintf(name, sizeof name, "model.layers.%u.self_attn.k_norm.weight", l);
    if (s == MQ_OK) s = read_head_norm(w, name, &layer->k_norm, error);
    return s == MQ_OK ? read_linears(w, l, error) : s;
}

/* Everything but the layers. */
static mq_status read_ends(mq_weights *w, mq_error *error)
{
    mq_model *m = &w->model;
    mq_status s = mq__dense_read(w, w->dense, "model.embed_tokens.weight", m->vocab, m->width, &m->embedding, error);
    if (s == MQ_OK) s = mq__weights_vector(w, w->dense, "model.norm.weight", m->width, &m->final_norm, error);
    m->head = (mq_linear){.n = m->vocab, .k_width = m->width, .dense = m->embedding};
    if (s == MQ_OK && !w->config.tied_head) {
        s = mq__dense_read(w, w->dense, "lm_head.weight", m->vocab, m->width, &m->head.dense, error);
    }
    return s;
}

/* A quantised checkpoint says by its tensors which groups are NVFP4; the others stay dense in both phases. Of a dense
 * checkpoint every group can be packed. */
static void find_packed_groups(mq_weights *w)
{
    const size_t count = (size_t)w->model.layers * MQ_LINEARS_PER_LAYER;
    bool quantised = false;
    for (size_t i = 0; i < count; i++) {
        quantised = quantised || w->packed_source[i].nibbles;
    }
    for (uint32_t l = 0; l < w->model.layers; l++) {
        for (int g = 0; g < MQ_GROUPS; g++) {
            w->packed_available[l][g] = true;
        }
    }
    for (size_t i = 0; quantised && i < count; i++) {
        if (w->packed_source[i].nibbles) continue;
        w->packed_available[i / MQ_LINEARS_PER_LAYER][mq__weights_group(i)] = false;
    }
}

static mq_status check_second(const mq_weights *w, const char *dir, mq_error *error)
{
    mq_model_config other;
    const mq_model_config *c = &w->config;
    const mq_status s = mq__model_config_read(dir, &other, error);
    if (s != MQ_OK) return s;
    if (other.architecture == c->architecture && other.layers == c->layers && other.width == c->width &&
        other.ffn == c->ffn && other.heads == c->heads && other.kv_heads == c->kv_heads &&
        other.head_dim == c->head_dim && other.vocab == c->vocab) {
        return MQ_OK;
    }
    return mq__fail(error, MQ_FORMAT, "prefill model: %s: expected the same architecture and sizes, got others", dir);
}

mq_status mq__weights_open(const char *dir, const char *second_dir, mq_weights **out, mq_error *error)
{
    *out = NULL;
    mq_weights *w = mq__alloc_zero(1, sizeof *w);
    if (!w) return mq__fail(error, MQ_NO_MEMORY, "model: %s: expected memory, got none", dir);
    mq_model_config *c = &w->config;
    mq_model *m = &w->model;
    float *inv_freq = NULL;
    mq_status s = mq__model_config_read(dir, c, error);
    if (s == MQ_OK) s = mq__checkpoint_open(dir, &w->dense, error);
    if (s == MQ_OK && second_dir) s = check_second(w, second_dir, error);
    if (s == MQ_OK && second_dir) s = mq__checkpoint_open(second_dir, &w->second, error);
    if (s != MQ_OK) goto out;
    *m = (mq_model){.vocab = c->vocab,
                    .width = c->width,
                    .ffn = c->ffn,
                    .layers = c->layers,
                    .heads = c->heads,
                    .kv_heads = c->kv_heads,
                    .head_dim = c->head_dim,
                    .norm_eps = (float)c->norm_eps};
    const size_t count = (size_t)c->layers * MQ_LINEARS_PER_LAYER;
    m->layer = mq__alloc_zero(c->layers, sizeof *m->layer);
    w->packed_source = mq__alloc_zero(count, sizeof *w->packed_source);
    w->packed_available = mq__alloc_zero(c->layers, sizeof *w->packed_available);
    bool complete = true;
    for (int face = 0; face < MQ_FACES; face++) {
        w->face[face].panels = mq__alloc_zero(count, sizeof *w->face[face].panels);
        complete = complete && w->face[face].panels;
    }
    inv_freq = mq__alloc_aligned(c->head_dim / 2 * sizeof *inv_freq);
    if (!m->layer || !w->packed_source || !w->packed_available || !complete || !inv_freq) {
        s = mq__fail(error, MQ_NO_MEMORY, "model: %u layers: expected memory, got none", c->layers);
        goto out;
    }
    mq__rope_frequencies(c, inv_freq, &m->rope_factor);
    m->inv_freq = inv_freq;
    inv_freq = NULL;
    w->eos = c->eos;
    w->eos_count = c->eos_count;
    s = read_ends(w, error);
    for (uint32_t l = 0; s == MQ_OK && l < c->layers; l++) {
        s = read_layer(w, l, error);
    }
    if (s == MQ_OK) s = mq__weights_check_names(w->dense, c, MQ_COPY_PRECISE, &w->unused[MQ_COPY_PRECISE], error);
    if (s == MQ_OK && w->second) {
        s = mq__weights_check_names(w->second, c, MQ_COPY_NVFP4, &w->unused[MQ_COPY_NVFP4], error);
    }
    if (s == MQ_OK) {
        find_packed_groups(w);
        *out = w;
        w = NULL;
    }
out:
    mq__free_aligned(inv_freq);
    mq__weights_close(w);
    return s;
}

void mq__weights_close(mq_weights *w)
{
    if (!w) return;
    for (int face = 0; face < MQ_FACES; face++) {
        uint8_t **panels = w->face[face].panels;
        for (size_t i = 0; panels && i < (size_t)w->model.layers * MQ_LINEARS_PER_LAYER; i++) {
            mq__free_aligned(panels[i]);
        }
        mq__free(panels);
        uint8_t **placed = w->face[face].placed;
        for (size_t i = 0; placed && i < (size_t)w->model.layers * MQ_LINEARS_PER_LAYER + (face == MQ_FACE_DENSE);
             i++) {
            mq__free_aligned(placed[i]);
        }
        mq__free(placed);
        mq__free_aligned(w->face[face].settling.block);
        mq__packfile_close(&w->face[face].file);
    }
    for (size_t i = 0; i < w->vector_count; i++) {
        mq__free_aligned(w->vectors[i]);
    }
    mq__free_aligned((void *)(uintptr_t)w->model.inv_freq);
    mq__free(w->vectors);
    mq__free(w->packed_available);
    mq__free(w->packed_source);
    mq__free(w->model.layer);
    mq__checkpoint_close(w->second);
    mq__checkpoint_close(w->dense);
    mq__free(w);
}
