/* Opens the checkpoints of a model and points an mq_model into them. */
#include "engine/weights.h"

#include "base/error.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

/* ---- modules */

static mq_status count_module(void *context, const mq_tensor_rule *rule, mq_place place, mq_error *error)
{
    (void)place;
    (void)error;
    *(size_t *)context += rule->use == MQ_USE_LINEAR;
    return MQ_OK;
}

/* Where a rule's tensor goes. */
static void *target_of(mq_model *m, const mq_tensor_rule *rule, mq_place place)
{
    char *const base[] = {(char *)m, (char *)&m->layer[place.layer], NULL};
    const mq_rule_scope scope = mq__rule_scope(rule);
    if (scope == MQ_SCOPE_EXPERT) return (char *)&m->layer[place.layer].expert[place.expert] + rule->offset;
    return base[scope] + rule->offset;
}

static mq_status add_module(void *context, const mq_tensor_rule *rule, mq_place place, mq_error *error)
{
    mq_weights *w = context;
    (void)error;
    if (rule->use != MQ_USE_LINEAR) return MQ_OK;
    const size_t i = w->module_count++;
    const mq_module *last = i ? &w->module[i - 1] : NULL;
    const bool fused = last && last->place.layer == place.layer && last->place.expert == place.expert &&
                       last->rule->group == rule->group;
    mq_module *module = &w->module[i];
    *module = (mq_module){.rule = rule, .place = place, .fused = fused ? last->fused : i};
    module->linear = target_of(&w->model, rule, place);
    module->linear->n = mq__rule_size(&w->config, place.layer, rule->rows);
    module->linear->k_width = mq__rule_size(&w->config, place.layer, rule->columns);
    return MQ_OK;
}

size_t mq__fused_end(const mq_weights *w, size_t first)
{
    size_t end = first + 1;
    while (end < w->module_count && w->module[end].fused == first) {
        end++;
    }
    return end;
}

static size_t first_of_layer(const mq_weights *w, uint32_t layer)
{
    size_t low = 0, high = w->module_count;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (w->module[middle].place.layer < layer)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

size_t mq__module_find(const mq_weights *w, const char *tensor)
{
    const mq_family *family = mq__family_of(w->config.architecture);
    for (size_t r = 0; r < family->count; r++) {
        mq_place place;
        if (family->rules[r].use != MQ_USE_LINEAR) continue;
        const char *rest = mq__rule_match(&family->rules[r], tensor, &place);
        if (!rest || strcmp(rest, ".weight") != 0) continue;
        for (size_t i = first_of_layer(w, place.layer); i < w->module_count; i++) {
            const mq_module *m = &w->module[i];
            if (m->place.layer != place.layer) break;
            if (m->rule == &family->rules[r] && m->place.expert == place.expert) return i;
        }
    }
    return w->module_count;
}

bool mq__module_is_used(const mq_weights *w, const mq_module *module)
{
    const bool expert = mq__rule_scope(module->rule) == MQ_SCOPE_EXPERT;
    return !expert || module->place.expert < w->config.experts_per_token;
}

typedef struct parameters {
    const mq_model_config *config;
    uint64_t count;
} parameters;

static mq_status count_parameters(void *context, const mq_tensor_rule *rule, mq_place place, mq_error *error)
{
    parameters *p = context;
    (void)error;
    if (rule->use == MQ_USE_NOTHING) return MQ_OK;
    p->count += (uint64_t)mq__rule_size(p->config, place.layer, rule->rows) *
                (rule->columns ? mq__rule_size(p->config, place.layer, rule->columns) : 1);
    return MQ_OK;
}

uint64_t mq__weights_parameters(const mq_weights *w)
{
    parameters p = {&w->config, 0};
    (void)mq__family_walk(&w->config, count_parameters, &p, NULL);
    return p.count;
}

/* ---- reading */

/* In a tied model the embedding serves as the head. */
static mq_status read_matrix(mq_weights *w, const char *name, uint32_t n, uint32_t k, mq_dense *dense, mq_error *error)
{
    const mq_status s = mq__dense_read(w, w->dense, name, n, k, dense, error);
    if (s == MQ_OK && dense == &w->model.embedding) {
        w->model.head = (mq_linear){.n = n, .k_width = k, .dense = *dense};
    }
    return s;
}

static mq_status read_router(mq_weights *w, const char *name, uint32_t n, uint32_t k, mq_linear router[MQ_COPIES],
                             mq_error *error)
{
    const mq_checkpoint *from[MQ_COPIES] = {w->dense, w->second ? w->second : w->dense};
    mq_status s = MQ_OK;
    for (int copy = 0; s == MQ_OK && copy < MQ_COPIES; copy++) {
        router[copy] = (mq_linear){.n = n, .k_width = k};
        s = mq__dense_read(w, from[copy], name, n, k, &router[copy].dense, error);
    }
    return s;
}

static mq_status read_vector(mq_weights *w, const mq_checkpoint *from, const char *name, uint32_t n, bool from_1,
                             const float **vector, mq_error *error)
{
    const mq_status s = mq__weights_vector(w, from, name, n, vector, error);
    float *own = (float *)(uintptr_t)*vector; /* the weights' */
    for (uint32_t i = 0; s == MQ_OK && from_1 && i < n; i++) {
        own[i] += 1;
    }
    return s;
}

/* The same vector of both copies. */
static mq_status read_norm(mq_weights *w, const char *name, uint32_t n, bool from_1, const float *norm[MQ_COPIES],
                           mq_error *error)
{
    mq_status s = read_vector(w, w->dense, name, n, from_1, &norm[MQ_COPY_PRECISE], error);
    norm[MQ_COPY_NVFP4] = norm[MQ_COPY_PRECISE];
    if (s == MQ_OK && w->second) s = read_vector(w, w->second, name, n, from_1, &norm[MQ_COPY_NVFP4], error);
    return s;
}

static mq_status read_tensor(void *context, const mq_tensor_rule *rule, mq_place place, mq_error *error)
{
    mq_weights *w = context;
    char name[MQ_TENSOR_NAME_BYTES];
    void *target = target_of(&w->model, rule, place);
    const uint32_t n = mq__rule_size(&w->config, place.layer, rule->rows),
                   k = mq__rule_size(&w->config, place.layer, rule->columns);
    mq__rule_name(rule, place, "", name);
    switch (rule->use) {
    case MQ_USE_MATRIX:
        return read_matrix(w, name, n, k, target, error);
    case MQ_USE_ROUTER:
        return read_router(w, name, n, k, target, error);
    case MQ_USE_NORM:
    case MQ_USE_NORM_FROM_1:
        return read_norm(w, name, n, rule->use == MQ_USE_NORM_FROM_1, target, error);
    case MQ_USE_CONV:
        return mq__weights_conv(w, w->dense, name, n, k, target, error);
    case MQ_USE_VECTOR:
    case MQ_USE_VECTOR_FROM_1:
    case MQ_USE_BIAS:
        return read_vector(w, w->dense, name, n, rule->use == MQ_USE_VECTOR_FROM_1, target, error);
    default: /* linear layers: read_modules */
        return MQ_OK;
    }
}

static mq_status read_module(mq_weights *w, const mq_checkpoint *from, mq_module *m, mq_error *error)
{
    char name[MQ_TENSOR_NAME_BYTES];
    bool found;
    const mq_status s = mq__expert_source_read(w, from, m, &found, &m->source, error);
    if (found || s != MQ_OK) return s;
    mq__module_name(m, "", name);
    return mq__linear_source_read(w, from, name, m->linear->n, m->linear->k_width, &m->source, error);
}

static mq_status read_modules(mq_weights *w, mq_error *error)
{
    mq_status s = MQ_OK;
    for (size_t i = 0; s == MQ_OK && i < w->module_count; i++) {
        mq_module *m = &w->module[i];
        s = read_module(w, w->dense, m, error);
        m->linear->dense = m->source.dense;
        m->is_fp8 = m->source.is_fp8;
        if (s == MQ_OK && w->second) s = read_module(w, w->second, m, error);
    }
    return s;
}

/* A quantised checkpoint says by its tensors which groups are NVFP4; the others stay dense in both phases. Of a dense
 * checkpoint every group can be packed. */
static void find_packed_groups(mq_weights *w)
{
    bool quantised = false;
    for (size_t i = 0; i < w->module_count; i++) {
        quantised = quantised || w->module[i].source.nibbles;
    }
    for (uint32_t l = 0; l < w->model.layers; l++) {
        for (int g = 0; g < MQ_GROUPS; g++) {
            w->packed_available[l][g] = true;
        }
    }
    for (size_t i = 0; quantised && i < w->module_count; i++) {
        const mq_module *m = &w->module[i];
        if (!m->source.nibbles) w->packed_available[m->place.layer][m->rule->group] = false;
    }
}

static bool attends_alike(const mq_model_config *a, const mq_model_config *b)
{
    return a->window == b->window && a->global.window == b->global.window && a->global.kv_heads == b->global.kv_heads &&
           a->global.head_dim == b->global.head_dim && a->global.shares_kv == b->global.shares_kv;
}

static mq_status check_second(const mq_weights *w, const char *dir, mq_error *error)
{
    mq_model_config other;
    const mq_model_config *c = &w->config;
    const mq_status s = mq__model_config_read(dir, &other, error);
    if (s != MQ_OK) return s;
    if (other.architecture == c->architecture && other.layers == c->layers && other.width == c->width &&
        other.ffn == c->ffn && other.heads == c->heads && other.kv_heads == c->kv_heads &&
        other.head_dim == c->head_dim && other.rotary_dim == c->rotary_dim && other.vocab == c->vocab &&
        other.experts == c->experts && other.experts_per_token == c->experts_per_token &&
        other.expert_ffn == c->expert_ffn && other.norm_topk == c->norm_topk && other.shared_ffn == c->shared_ffn &&
        memcmp(&other.delta, &c->delta, sizeof c->delta) == 0 && memcmp(other.layer, c->layer, sizeof c->layer) == 0 &&
        attends_alike(&other, c)) {
        return MQ_OK;
    }
    return mq__fail(error, MQ_FORMAT, "prefill model: %s: expected the same architecture and sizes, got others", dir);
}

static mq_status no_memory_weights(const mq_weights *w, mq_error *error)
{
    return mq__fail(error, MQ_NO_MEMORY, "model: %u layers: expected memory, got none", w->config.layers);
}

/* How a layer attends. */
static void lay_out_attention(const mq_model_config *c, mq_model *m, uint32_t l)
{
    const mq_attention_config a = mq__attention_of(c, l);
    mq_layer *layer = &m->layer[l];
    layer->kv_heads = a.kv_heads;
    layer->head_dim = a.head_dim;
    layer->window = a.window;
    layer->rope = c->layer[l].global;
    layer->attention_scale = (float)(c->attention_scale > 0 ? c->attention_scale : 1 / sqrt((double)a.head_dim));
    const uint32_t q_width = m->heads * a.head_dim, kv_width = a.kv_heads * a.head_dim;
    m->q_width = q_width > m->q_width ? q_width : m->q_width;
    m->kv_width = kv_width > m->kv_width ? kv_width : m->kv_width;
    m->ropes = layer->rope >= m->ropes ? layer->rope + 1 : m->ropes;
}

/* The model's sizes and empty layers, and the list of its modules. */
static mq_status lay_out(mq_weights *w, mq_error *error)
{
    const mq_model_config *c = &w->config;
    mq_model *m = &w->model;
    size_t count = 0, experts = 0;
    *m = (mq_model){.vocab = c->vocab,
                    .width = c->width,
                    .ffn = c->ffn,
                    .layers = c->layers,
                    .heads = c->heads,
                    .experts = c->experts,
                    .experts_per_token = c->experts_per_token,
                    .expert_ffn = c->expert_ffn,
                    .norm_topk = c->norm_topk,
                    .gelu = c->gelu,
                    .embedding_scale = c->embedding_scale > 0 ? (float)c->embedding_scale : 1,
                    .router_scale = c->router_scale > 0 ? (float)c->router_scale : 1,
                    .logit_cap = (float)c->logit_cap,
                    .shared_expert = c->shared_ffn > 0,
                    .output_gate = c->output_gate,
                    .delta = c->delta,
                    .norm_eps = (float)c->norm_eps};
    (void)mq__family_walk(c, count_module, &count, NULL);
    m->layer = mq__alloc_zero(c->layers, sizeof *m->layer);
    w->module = mq__alloc_zero(count, sizeof *w->module);
    w->packed_available = mq__alloc_zero(c->layers, sizeof *w->packed_available);
    bool complete = m->layer && w->module && w->packed_available;
    for (int face = 0; face < MQ_FACES; face++) {
        w->face[face].panels = mq__alloc_zero(count, sizeof *w->face[face].panels);
        complete = complete && w->face[face].panels;
    }
    for (uint32_t l = 0; l < c->layers; l++) {
        experts += c->layer[l].mlp == MQ_MLP_EXPERTS ? c->experts : 0;
    }
    if (experts) w->experts = mq__alloc_zero(experts, sizeof *w->experts);
    if (!complete || (experts && !w->experts)) return no_memory_weights(w, error);
    mq_mlp *expert = w->experts;
    for (uint32_t l = 0; l < c->layers; l++) {
        m->layer[l].kind = c->layer[l];
        lay_out_attention(c, m, l);
        if (c->layer[l].mixer == MQ_MIXER_GATED_DELTA) m->layer[l].delta.index = m->delta_layers++;
        if (c->layer[l].mlp != MQ_MLP_EXPERTS) continue;
        m->layer[l].expert = expert;
        expert += c->experts;
    }
    return mq__family_walk(c, add_module, w, error);
}

/* The weights of a norm without any. */
static mq_status make_value_norms(mq_weights *w, mq_error *error)
{
    uint32_t widest = 0;
    for (uint32_t l = 0; l < w->model.layers; l++) {
        widest = w->model.layer[l].head_dim > widest ? w->model.layer[l].head_dim : widest;
    }
    float *ones = mq__weights_own(w, widest * sizeof *ones);
    if (!ones) return no_memory_weights(w, error);
    for (uint32_t i = 0; i < widest; i++) {
        ones[i] = 1;
    }
    for (uint32_t l = 0; l < w->model.layers; l++) {
        w->model.layer[l].v_norm = ones;
    }
    return MQ_OK;
}

static mq_status read_ropes(mq_weights *w, mq_error *error)
{
    const mq_model_config *c = &w->config;
    const mq_rope_config *const ropes[MQ_ROPES] = {&c->rope, &c->global.rope};
    const uint32_t widths[MQ_ROPES] = {c->rotary_dim, c->global.rotary_dim};
    for (uint32_t r = 0; r < w->model.ropes; r++) {
        mq_rope *rope = &w->model.rope[r];
        float *inv_freq = mq__alloc_aligned(widths[r] / 2 * sizeof *inv_freq);
        if (!inv_freq) return no_memory_weights(w, error);
        mq__rope_frequencies(ropes[r], widths[r], inv_freq, &rope->factor);
        rope->width = widths[r];
        rope->inv_freq = inv_freq;
    }
    return MQ_OK;
}

mq_status mq__weights_open(const char *dir, const char *second_dir, mq_weights **out, mq_error *error)
{
    *out = NULL;
    mq_weights *w = mq__alloc_zero(1, sizeof *w);
    if (!w) return mq__fail(error, MQ_NO_MEMORY, "model: %s: expected memory, got none", dir);
    mq_model_config *c = &w->config;
    mq_status s = mq__model_config_read(dir, c, error);
    if (s == MQ_OK) s = mq__checkpoint_open(dir, &w->dense, error);
    if (s == MQ_OK && second_dir) s = check_second(w, second_dir, error);
    if (s == MQ_OK && second_dir) s = mq__checkpoint_open(second_dir, &w->second, error);
    if (s == MQ_OK) s = lay_out(w, error);
    if (s == MQ_OK) s = read_ropes(w, error);
    if (s == MQ_OK && c->v_norm) s = make_value_norms(w, error);
    w->eos = c->eos;
    w->eos_count = c->eos_count;
    if (s == MQ_OK) s = mq__family_walk(c, read_tensor, w, error);
    if (s == MQ_OK) s = read_modules(w, error);
    if (s == MQ_OK)
        s = mq__weights_check_names(w->dense, c, MQ_COPY_PRECISE, &w->unused[MQ_COPY_PRECISE],
                                    &w->skipped[MQ_COPY_PRECISE], error);
    if (s == MQ_OK && w->second) {
        s = mq__weights_check_names(w->second, c, MQ_COPY_NVFP4, &w->unused[MQ_COPY_NVFP4], &w->skipped[MQ_COPY_NVFP4],
                                    error);
        if (s == MQ_OK) s = mq__weights_check_origin(w->dense, w->second, error);
    }
    if (s == MQ_OK) {
        find_packed_groups(w);
        *out = w;
        return MQ_OK;
    }
    mq__weights_close(w);
    return s;
}

void mq__weights_close(mq_weights *w)
{
    if (!w) return;
    for (int face = 0; face < MQ_FACES; face++) {
        uint8_t **panels = w->face[face].panels;
        for (size_t i = 0; panels && i < w->module_count; i++) {
            mq__free_aligned(panels[i]);
        }
        mq__free(panels);
        uint8_t **placed = w->face[face].placed;
        for (size_t i = 0; placed && i < w->module_count + (face == MQ_FACE_DENSE); i++) {
            mq__free_aligned(placed[i]);
        }
        mq__free(placed);
        mq__free_aligned(w->face[face].settling.block);
        mq__packfile_close(&w->face[face].file);
    }
    for (size_t i = 0; i < w->vector_count; i++) {
        mq__free_aligned(w->vectors[i]);
    }
    for (uint32_t r = 0; r < MQ_ROPES; r++) {
        mq__free_aligned((void *)(uintptr_t)w->model.rope[r].inv_freq);
    }
    mq__free(w->vectors);
    mq__free(w->packed_available);
    mq__free_aligned(w->head_panels);
    mq__free(w->module);
    mq__free(w->experts);
    mq__free(w->model.layer);
    mq__checkpoint_close(w->second);
    mq__checkpoint_close(w->dense);
    mq__free(w);
}
