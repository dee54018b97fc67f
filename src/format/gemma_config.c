/* config.json of Gemma 3 and Gemma 4: two kinds of layers, each with a geometry and rotary settings of its own.
 *
 * What the text model of a checkpoint cannot do without is refused by name: per-layer embeddings and shared KV (E2B, E4B), attention in
 * both directions. */
#include "base/error.h"
#include "base/halffloat.h"
#include "format/config_read.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define LOCAL_THETA  1e4
#define GLOBAL_THETA 1e6

/* ---- what both have */

static mq_status refuse_gemma(const json_t *root, const char *name, mq_error *error)
{
    const json_t *value = json_object_get(root, name);
    if (!value || json_is_null(value) || json_is_false(value)) return MQ_OK;
    if (json_is_number(value) && json_number_value(value) == 0) return MQ_OK;
    return mq__fail(error, MQ_UNSUPPORTED, "config: %s: expected none, got one", name);
}

/* Fields that would change the maths. */
static mq_status refuse_all(const json_t *root, mq_error *error)
{
    static const char *const names[] = {"attn_logit_softcapping", "num_kv_shared_layers", "hidden_size_per_layer_input",
                                        "use_double_wide_mlp", "attention_bias"};
    const char *activation = NULL, *directions = NULL;
    mq_status s = MQ_OK;
    for (size_t i = 0; s == MQ_OK && i < sizeof names / sizeof names[0]; i++) {
        s = refuse_gemma(root, names[i], error);
    }
    if (s == MQ_OK) s = mq__json_string(root, "hidden_activation", &activation, error);
    if (s == MQ_OK && activation && strcmp(activation, "gelu_pytorch_tanh") != 0) {
        s = mq__fail(error, MQ_UNSUPPORTED, "config: hidden_activation: expected gelu_pytorch_tanh, got %.64s",
                     activation);
    }
    if (s != MQ_OK || json_is_false(json_object_get(root, "use_bidirectional_attention"))) return s;
    if (json_is_true(json_object_get(root, "use_bidirectional_attention"))) directions = "true";
    if (!directions) s = mq__json_string(root, "use_bidirectional_attention", &directions, error);
    if (s == MQ_OK && directions && strcmp(directions, "vision") != 0) { /* of image tokens only: not ours */
        s = mq__fail(error, MQ_UNSUPPORTED, "config: use_bidirectional_attention: expected none or vision, got %.64s",
                     directions);
    }
    return s;
}

/* The root of the width, as BF16 has it: 73.5 of 5376. */
static double embedding_scale(uint32_t width)
{
    return (double)mq__bf16_to_f32(mq__f32_to_bf16(sqrtf((float)width)));
}

/* Which layers are global: by layer_types, or every `period`-th one. */
static mq_status read_kinds(const json_t *root, uint32_t period, mq_model_config *c, mq_error *error)
{
    const json_t *types = json_object_get(root, "layer_types");
    if (types && !json_is_null(types) && json_array_size(types) < c->layers) {
        return mq__fail(error, MQ_FORMAT, "config: layer_types: expected %u layers, got %zu", c->layers,
                        json_array_size(types));
    }
    for (uint32_t l = 0; l < c->layers; l++) {
        const char *name = json_string_value(json_array_get(types, l));
        if (json_is_array(types) && (!name || (strcmp(name, "full_attention") && strcmp(name, "sliding_attention")))) {
            return mq__fail(error, MQ_UNSUPPORTED,
                            "config: layer_types[%u]: expected full_attention or sliding_attention, got %.64s", l,
                            name ? name : "something else");
        }
        c->layer[l].global = name ? strcmp(name, "full_attention") == 0 : (l + 1) % period == 0;
    }
    return MQ_OK;
}

/* A part of the width turns in one way only. */
static mq_status check_partial(const char *kind, mq_rope_config *rope, mq_error *error)
{
    if (rope->type != MQ_ROPE_PROPORTIONAL && rope->partial != 0 && rope->partial != 1) {
        return mq__fail(error, MQ_UNSUPPORTED, "config: partial_rotary_factor: expected none or 1 in %s, got %g", kind,
                        rope->partial);
    }
    if (rope->partial == 0) rope->partial = 1;
    return MQ_OK;
}

/* The settings of one kind of layer, from rope_parameters; scaling: an older rope_scaling beside it that holds for this kind,
 * or NULL. */
static mq_status read_rope_of(const json_t *root, const char *kind, json_t *scaling, double theta, mq_rope_config *rope,
                              uint32_t *positions, mq_error *error)
{
    json_t *own = json_object_get(json_object_get(root, "rope_parameters"), kind);
    json_t *alone = own ? json_pack("{sO,sO?}", "rope_parameters", own, "rope_scaling", scaling) : NULL;
    if (!own) {
        return mq__fail(error, MQ_FORMAT, "config: rope_parameters: expected %s, got none", kind);
    }
    if (!alone) return mq__fail(error, MQ_NO_MEMORY, "config: rope_parameters: expected memory, got none");
    const mq_status s = mq__rope_config_read(alone, theta, rope, positions, error);
    json_decref(alone);
    return s == MQ_OK ? check_partial(kind, rope, error) : s;
}

static bool is_layered(const json_t *root)
{
    return json_is_object(json_object_get(json_object_get(root, "rope_parameters"), "full_attention"));
}

static mq_status check_heads(const mq_model_config *c, const mq_attention_config *a, mq_error *error)
{
    if (c->heads % a->kv_heads == 0 && a->head_dim % 2 == 0) return MQ_OK;
    return mq__fail(
        error, MQ_UNSUPPORTED,
        "config: num_attention_heads: expected a multiple of the kv heads and an even width, got %u, %u and %u",
        c->heads, a->kv_heads, a->head_dim);
}

static mq_status read_shared(const json_t *root, uint32_t window, mq_model_config *c, mq_error *error)
{
    mq_status s = refuse_all(root, error);
    if (s == MQ_OK) s = mq__json_bool(root, "tie_word_embeddings", true, &c->tied_head, error);
    if (s == MQ_OK) s = mq__config_u32(root, "sliding_window", 1, 1 << 24, window, &c->window, error);
    if (s == MQ_OK) s = mq__json_number(root, "final_logit_softcapping", 0, 1e6, 0, &c->logit_cap, error);
    c->gelu = true;
    c->qk_norm = true;
    c->embedding_scale = embedding_scale(c->width);
    c->rotary_dim = c->head_dim;
    return s;
}

/* ---- Gemma 3 */

/* Both frequency bases stand outside of older configs, and hold where the settings of a kind of layers name none. A rope_scaling is
 * that of the global layers. */
static mq_status read_gemma3_ropes(const json_t *root, mq_model_config *c, mq_error *error)
{
    static const char full[] = "full_attention";
    double local = LOCAL_THETA, global = GLOBAL_THETA;
    uint32_t stretched = c->max_positions; /* not kept: the published number has been stretched already */
    mq_status s = mq__config_expect_one(root, "partial_rotary_factor", error);
    if (s == MQ_OK) s = mq__json_number(root, "rope_local_base_freq", 1, 1e12, LOCAL_THETA, &local, error);
    if (s == MQ_OK) s = mq__json_number(root, "rope_theta", 1, 1e12, GLOBAL_THETA, &global, error);
    if (s == MQ_OK && is_layered(root)) {
        s = read_rope_of(root, "sliding_attention", NULL, local, &c->rope, &stretched, error);
        if (s != MQ_OK) return s;
        return read_rope_of(root, full, json_object_get(root, "rope_scaling"), global, &c->global.rope, &stretched,
                            error);
    }
    c->rope = (mq_rope_config){.theta = local, .factor = 1, .partial = 1};
    if (s == MQ_OK) s = mq__rope_config_read(root, GLOBAL_THETA, &c->global.rope, &stretched, error);
    return s == MQ_OK ? check_partial(full, &c->global.rope, error) : s;
}

mq_status mq__config_gemma3(const json_t *root, mq_model_config *c, mq_error *error)
{
    uint32_t period = 6;
    double pre_attention = 256;
    mq_status s = read_shared(root, 4096, c, error);
    if (s == MQ_OK) s = mq__config_u32(root, "sliding_window_pattern", 1, MQ_LAYERS_MAX, 6, &period, error);
    if (s == MQ_OK) s = read_kinds(root, period, c, error);
    if (s == MQ_OK) s = mq__json_number(root, "query_pre_attn_scalar", 1e-3, 1e6, 256, &pre_attention, error);
    if (s != MQ_OK) return s;
    c->attention_scale = 1 / sqrt(pre_attention);
    c->global = (mq_attention_config){.kv_heads = c->kv_heads, .head_dim = c->head_dim, .rotary_dim = c->head_dim};
    return read_gemma3_ropes(root, c, error);
}

/* ---- Gemma 4 */

/* What the newest writers say of the global layers: per_layer_config = {"5": {"head_dim": 512, ...}, ...}, the same of all. */
static mq_status read_per_layer(const json_t *root, mq_model_config *c, mq_error *error)
{
    const json_t *table = json_object_get(root, "per_layer_config");
    const char *key;
    json_t *value;
    bool first = true;
    json_object_foreach((json_t *)(uintptr_t)table, key, value)
    {
        uint32_t head_dim = c->head_dim, kv_heads = c->kv_heads;
        char number[16];
        bool known = false;
        mq_status s = mq__config_u32(value, "head_dim", 2, 1024, c->head_dim, &head_dim, error);
        if (s == MQ_OK) s = mq__config_u32(value, "num_key_value_heads", 1, 1024, c->kv_heads, &kv_heads, error);
        if (s != MQ_OK) return s;
        for (uint32_t l = 0; l < c->layers && !known; l++) {
            snprintf(number, sizeof number, "%u", l);
            known = c->layer[l].global && strcmp(number, key) == 0;
        }
        const bool same = first || (head_dim == c->global.head_dim && kv_heads == c->global.kv_heads);
        if (!known || !same) {
            return mq__fail(
                error, MQ_UNSUPPORTED,
                "config: per_layer_config: expected the same of all full_attention layers, got another at %.16s", key);
        }
        c->global.head_dim = head_dim;
        c->global.kv_heads = kv_heads;
        first = false;
    }
    return MQ_OK;
}

static mq_status read_global(const json_t *root, mq_model_config *c, mq_error *error)
{
    mq_attention_config *g = &c->global;
    mq_status s = mq__json_bool(root, "attention_k_eq_v", false, &g->shares_kv, error);
    if (s == MQ_OK) s = mq__config_u32(root, "global_head_dim", 2, 1024, 512, &g->head_dim, error);
    g->kv_heads = c->kv_heads;
    if (s == MQ_OK && g->shares_kv) {
        s = mq__config_u32(root, "num_global_key_value_heads", 1, 1024, c->kv_heads, &g->kv_heads, error);
    }
    if (s == MQ_OK) s = read_per_layer(root, c, error);
    g->rotary_dim = g->head_dim;
    return s == MQ_OK ? check_heads(c, g, error) : s;
}

static mq_status read_experts(const json_t *root, mq_model_config *c, mq_error *error)
{
    bool enabled = false;
    mq_status s = mq__json_bool(root, "enable_moe_block", false, &enabled, error);
    if (s != MQ_OK || !enabled) return s;
    s = mq__config_u32(root, "num_experts", 1, MQ_EXPERTS_MAX, -1, &c->experts, error);
    if (s == MQ_OK) s = mq__config_u32(root, "top_k_experts", 1, c->experts, -1, &c->experts_per_token, error);
    const bool older = !json_object_get(root, "moe_intermediate_size");
    if (s == MQ_OK) {
        s = mq__config_u32(root, older ? "expert_intermediate_size" : "moe_intermediate_size", 1, 1 << 20, -1,
                           &c->expert_ffn, error);
    }
    if (s == MQ_OK && (uint64_t)c->experts * c->layers > MQ_ALL_EXPERTS) {
        s = mq__fail(error, MQ_LIMIT, "config: num_experts: expected at most %d in all layers, got %u in each of %u",
                     MQ_ALL_EXPERTS, c->experts, c->layers);
    }
    c->norm_topk = true;
    c->router_scale = 1 / sqrt((double)c->width);
    for (uint32_t l = 0; l < c->layers; l++) {
        c->layer[l].mlp = MQ_MLP_EXPERTS;
    }
    return s;
}

/* Without rope_parameters: a quarter of a global head is rotated. */
static mq_status read_both_ropes(const json_t *root, mq_model_config *c, mq_error *error)
{
    uint32_t local = c->max_positions;
    const json_t *parameters = json_object_get(root, "rope_parameters");
    mq_status s = refuse_gemma(root, "rope_scaling", error); /* no writer has it, and no reader would use it */
    if (s != MQ_OK) return s;
    if (!parameters || json_is_null(parameters)) {
        c->rope = (mq_rope_config){.theta = LOCAL_THETA, .factor = 1, .partial = 1};
        c->global.rope =
            (mq_rope_config){.type = MQ_ROPE_PROPORTIONAL, .theta = GLOBAL_THETA, .factor = 1, .partial = 0.25};
        return MQ_OK;
    }
    s = read_rope_of(root, "sliding_attention", NULL, LOCAL_THETA, &c->rope, &local, error);
    if (s != MQ_OK) return s;
    return read_rope_of(root, "full_attention", NULL, GLOBAL_THETA, &c->global.rope, &c->max_positions, error);
}

mq_status mq__config_gemma4(const json_t *root, mq_model_config *c, mq_error *error)
{
    mq_status s = read_shared(root, 512, c, error);
    if (s == MQ_OK) s = read_kinds(root, 6, c, error);
    if (s != MQ_OK) return s;
    c->attention_scale = 1;
    c->v_norm = true;
    c->layer[c->layers - 1].global = 1; /* whatever layer_types says */
    s = read_global(root, c, error);
    if (s == MQ_OK) s = read_both_ropes(root, c, error);
    return s == MQ_OK ? read_experts(root, c, error) : s;
}
