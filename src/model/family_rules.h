/* Rules that families of models share. Included by family_*.c only. */
#ifndef MQ_FAMILY_RULES_H
#define MQ_FAMILY_RULES_H

#include "model/family.h"

#include <stddef.h>

#define LAYER     "model.layers.%u."
#define UNUSED    MQ_USE_NOTHING, MQ_WHEN_ALWAYS, 0, 0, 0, 0
#define IN(field) offsetof(mq_layer, field)

/* clang-format off */
/* The embedding, and of each layer what comes before the MLP: attention and the norms. */
#define RULES_BEFORE_MLP \
    {"model.embed_tokens.weight", MQ_USE_MATRIX, MQ_WHEN_ALWAYS, 'V', 'D', offsetof(mq_model, embedding), 0}, \
    {LAYER "input_layernorm.weight", MQ_USE_NORM, MQ_WHEN_ALWAYS, 'D', 0, IN(attention_norm), 0}, \
    {LAYER "self_attn.q_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'Q', 'D', IN(q), MQ_GROUP_QKV}, \
    {LAYER "self_attn.q_proj.bias", MQ_USE_BIAS, MQ_WHEN_QKV_BIAS, 'Q', 0, IN(q.bias), 0}, \
    {LAYER "self_attn.k_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'G', 'D', IN(k), MQ_GROUP_QKV}, \
    {LAYER "self_attn.k_proj.bias", MQ_USE_BIAS, MQ_WHEN_QKV_BIAS, 'G', 0, IN(k.bias), 0}, \
    {LAYER "self_attn.v_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'G', 'D', IN(v), MQ_GROUP_QKV}, \
    {LAYER "self_attn.v_proj.bias", MQ_USE_BIAS, MQ_WHEN_QKV_BIAS, 'G', 0, IN(v.bias), 0}, \
    {LAYER "self_attn.o_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'D', 'Q', IN(o), MQ_GROUP_O}, \
    {LAYER "self_attn.o_proj.bias", MQ_USE_BIAS, MQ_WHEN_O_BIAS, 'D', 0, IN(o.bias), 0}, \
    {LAYER "self_attn.q_norm.weight", MQ_USE_VECTOR, MQ_WHEN_QK_NORM, 'K', 0, IN(q_norm), 0}, \
    {LAYER "self_attn.k_norm.weight", MQ_USE_VECTOR, MQ_WHEN_QK_NORM, 'K', 0, IN(k_norm), 0}, \
    {LAYER "post_attention_layernorm.weight", MQ_USE_NORM, MQ_WHEN_ALWAYS, 'D', 0, IN(mlp_norm), 0}

/* A dense MLP without biases, and experts, under a prefix. */
#define RULES_MLP(prefix, when) \
    {prefix "gate_proj", MQ_USE_LINEAR, when, 'F', 'D', IN(mlp.gate), MQ_GROUP_GATE_UP}, \
    {prefix "up_proj", MQ_USE_LINEAR, when, 'F', 'D', IN(mlp.up), MQ_GROUP_GATE_UP}, \
    {prefix "down_proj", MQ_USE_LINEAR, when, 'D', 'F', IN(mlp.down), MQ_GROUP_DOWN}
#define RULES_EXPERTS(prefix, when) \
    {prefix "gate_proj", MQ_USE_LINEAR, when, 'M', 'D', offsetof(mq_mlp, gate), MQ_GROUP_GATE_UP}, \
    {prefix "up_proj", MQ_USE_LINEAR, when, 'M', 'D', offsetof(mq_mlp, up), MQ_GROUP_GATE_UP}, \
    {prefix "down_proj", MQ_USE_LINEAR, when, 'D', 'M', offsetof(mq_mlp, down), MQ_GROUP_DOWN}

/* The final norm, used as `vector` says, and lm_head. */
#define RULES_END(vector) \
    {"model.norm.weight", vector, MQ_WHEN_ALWAYS, 'D', 0, offsetof(mq_model, final_norm), 0}, \
    {"lm_head.weight", MQ_USE_MATRIX, MQ_WHEN_OWN_HEAD, 'V', 'D', offsetof(mq_model, head.dense), 0}

/* The same after frequencies that old writers stored. */
#define RULES_AFTER_MLP \
    {LAYER "self_attn.rotary_emb.inv_freq", UNUSED}, \
    {"model.rotary_emb.inv_freq", UNUSED}, \
    RULES_END(MQ_USE_VECTOR)

/* Gemma: everything up to the dense MLP, with norms before and after each part. norm, vector: how norms are stored; own_v: which
 * layers have a v_proj. */
#define RULES_GEMMA(norm, vector, own_v) \
    {"model.embed_tokens.weight", MQ_USE_MATRIX, MQ_WHEN_ALWAYS, 'V', 'D', offsetof(mq_model, embedding), 0}, \
    {LAYER "input_layernorm.weight", norm, MQ_WHEN_ALWAYS, 'D', 0, IN(attention_norm), 0}, \
    {LAYER "self_attn.q_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'Q', 'D', IN(q), MQ_GROUP_QKV}, \
    {LAYER "self_attn.k_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'G', 'D', IN(k), MQ_GROUP_QKV}, \
    {LAYER "self_attn.v_proj", MQ_USE_LINEAR, own_v, 'G', 'D', IN(v), MQ_GROUP_QKV}, \
    {LAYER "self_attn.o_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'D', 'Q', IN(o), MQ_GROUP_O}, \
    {LAYER "self_attn.q_norm.weight", vector, MQ_WHEN_ALWAYS, 'K', 0, IN(q_norm), 0}, \
    {LAYER "self_attn.k_norm.weight", vector, MQ_WHEN_ALWAYS, 'K', 0, IN(k_norm), 0}, \
    {LAYER "post_attention_layernorm.weight", vector, MQ_WHEN_ALWAYS, 'D', 0, IN(attention_post_norm), 0}, \
    {LAYER "pre_feedforward_layernorm.weight", norm, MQ_WHEN_ALWAYS, 'D', 0, IN(mlp_norm), 0}, \
    RULES_MLP(LAYER "mlp.", MQ_WHEN_ALWAYS)
/* clang-format on */

#endif
