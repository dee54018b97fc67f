/* Gemma 3, the text model: norms before and after each part of a layer, stored less 1, and norms on queries and keys. Five layers
 * of six see a window; the sixth sees everything and turns by frequencies of its own. */
#include "model/family_rules.h"

/* clang-format off */
static const mq_tensor_rule rules[] = {
    {"model.embed_tokens.weight", MQ_USE_MATRIX, MQ_WHEN_ALWAYS, 'V', 'D', offsetof(mq_model, embedding), 0},
    {LAYER "input_layernorm.weight", MQ_USE_NORM_FROM_1, MQ_WHEN_ALWAYS, 'D', 0, IN(attention_norm), 0},
    {LAYER "self_attn.q_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'Q', 'D', IN(q), MQ_GROUP_QKV},
    {LAYER "self_attn.k_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'G', 'D', IN(k), MQ_GROUP_QKV},
    {LAYER "self_attn.v_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'G', 'D', IN(v), MQ_GROUP_QKV},
    {LAYER "self_attn.o_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'D', 'Q', IN(o), MQ_GROUP_O},
    {LAYER "self_attn.q_norm.weight", MQ_USE_VECTOR_FROM_1, MQ_WHEN_ALWAYS, 'K', 0, IN(q_norm), 0},
    {LAYER "self_attn.k_norm.weight", MQ_USE_VECTOR_FROM_1, MQ_WHEN_ALWAYS, 'K', 0, IN(k_norm), 0},
    {LAYER "post_attention_layernorm.weight", MQ_USE_VECTOR_FROM_1, MQ_WHEN_ALWAYS, 'D', 0, IN(attention_post_norm), 0},
    {LAYER "pre_feedforward_layernorm.weight", MQ_USE_NORM_FROM_1, MQ_WHEN_ALWAYS, 'D', 0, IN(mlp_norm), 0},
    {LAYER "mlp.gate_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'F', 'D', IN(mlp.gate), MQ_GROUP_GATE_UP},
    {LAYER "mlp.up_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'F', 'D', IN(mlp.up), MQ_GROUP_GATE_UP},
    {LAYER "mlp.down_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'D', 'F', IN(mlp.down), MQ_GROUP_DOWN},
    {LAYER "post_feedforward_layernorm.weight", MQ_USE_VECTOR_FROM_1, MQ_WHEN_ALWAYS, 'D', 0, IN(mlp_post_norm), 0},
    {"model.norm.weight", MQ_USE_VECTOR_FROM_1, MQ_WHEN_ALWAYS, 'D', 0, offsetof(mq_model, final_norm), 0},
    {"lm_head.weight", MQ_USE_MATRIX, MQ_WHEN_OWN_HEAD, 'V', 'D', offsetof(mq_model, head.dense), 0},
};
/* clang-format on */

const mq_family mq__family_gemma3 = {rules, sizeof rules / sizeof rules[0]};
