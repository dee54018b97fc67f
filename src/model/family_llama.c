/* Llama; Qwen2 (biases on q, k, v); Qwen3 (norms on q and k). */
#include "model/family.h"

#include <stddef.h>

#define LAYER     "model.layers.%u."
#define UNUSED    MQ_USE_NOTHING, MQ_WHEN_ALWAYS, 0, 0, 0, 0
#define IN(field) offsetof(mq_layer, field)

/* clang-format off */
static const mq_tensor_rule rules[] = {
    {"model.embed_tokens.weight", MQ_USE_MATRIX, MQ_WHEN_ALWAYS, 'V', 'D', offsetof(mq_model, embedding), 0},
    {LAYER "input_layernorm.weight", MQ_USE_NORM, MQ_WHEN_ALWAYS, 'D', 0, IN(attention_norm), 0},
    {LAYER "self_attn.q_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'Q', 'D', IN(q), MQ_GROUP_QKV},
    {LAYER "self_attn.q_proj.bias", MQ_USE_BIAS, MQ_WHEN_QKV_BIAS, 'Q', 0, IN(q.bias), 0},
    {LAYER "self_attn.k_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'G', 'D', IN(k), MQ_GROUP_QKV},
    {LAYER "self_attn.k_proj.bias", MQ_USE_BIAS, MQ_WHEN_QKV_BIAS, 'G', 0, IN(k.bias), 0},
    {LAYER "self_attn.v_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'G', 'D', IN(v), MQ_GROUP_QKV},
    {LAYER "self_attn.v_proj.bias", MQ_USE_BIAS, MQ_WHEN_QKV_BIAS, 'G', 0, IN(v.bias), 0},
    {LAYER "self_attn.o_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'D', 'Q', IN(o), MQ_GROUP_O},
    {LAYER "self_attn.o_proj.bias", MQ_USE_BIAS, MQ_WHEN_O_BIAS, 'D', 0, IN(o.bias), 0},
    {LAYER "self_attn.q_norm.weight", MQ_USE_VECTOR, MQ_WHEN_QK_NORM, 'K', 0, IN(q_norm), 0},
    {LAYER "self_attn.k_norm.weight", MQ_USE_VECTOR, MQ_WHEN_QK_NORM, 'K', 0, IN(k_norm), 0},
    {LAYER "post_attention_layernorm.weight", MQ_USE_NORM, MQ_WHEN_ALWAYS, 'D', 0, IN(mlp_norm), 0},
    {LAYER "mlp.gate_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'F', 'D', IN(mlp.gate), MQ_GROUP_GATE_UP},
    {LAYER "mlp.gate_proj.bias", MQ_USE_BIAS, MQ_WHEN_MLP_BIAS, 'F', 0, IN(mlp.gate.bias), 0},
    {LAYER "mlp.up_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'F', 'D', IN(mlp.up), MQ_GROUP_GATE_UP},
    {LAYER "mlp.up_proj.bias", MQ_USE_BIAS, MQ_WHEN_MLP_BIAS, 'F', 0, IN(mlp.up.bias), 0},
    {LAYER "mlp.down_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'D', 'F', IN(mlp.down), MQ_GROUP_DOWN},
    {LAYER "mlp.down_proj.bias", MQ_USE_BIAS, MQ_WHEN_MLP_BIAS, 'D', 0, IN(mlp.down.bias), 0},
    /* Frequencies that old writers stored. */
    {LAYER "self_attn.rotary_emb.inv_freq", UNUSED},
    {"model.rotary_emb.inv_freq", UNUSED},
    {"model.norm.weight", MQ_USE_VECTOR, MQ_WHEN_ALWAYS, 'D', 0, offsetof(mq_model, final_norm), 0},
    {"lm_head.weight", MQ_USE_MATRIX, MQ_WHEN_OWN_HEAD, 'V', 'D', offsetof(mq_model, head.dense), 0},
};
/* clang-format on */

const mq_family mq__family_llama = {rules, sizeof rules / sizeof rules[0]};
