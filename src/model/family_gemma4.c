/* Gemma 4, the text model. A layer has norms before and after each of its parts:
 *
 *     h = h + post_attention_layernorm(attention(input_layernorm(h)))
 *     h = (h + post_feedforward_layernorm(mlp(pre_feedforward_layernorm(h)))) * layer_scalar
 *
 * Attention: norms on queries and keys, one without weights on values, no scale. Most layers see a window; the others, which are
 * global, have heads of their own width, and with attention_k_eq_v no v_proj: their values are what k_proj makes.
 *
 * With experts the dense MLP is a shared one beside them, and the feed-forward part is
 *
 *     post_feedforward_layernorm_1(mlp(pre_feedforward_layernorm(h))) +
 *     post_feedforward_layernorm_2(sum of p_e expert_e(pre_feedforward_layernorm_2(h)))
 *
 * The router reads h itself, normed without weights, times router.scale/sqrt(D), which together are a norm; p_e is scaled by
 * per_expert_scale[e] after its normalisation. */
#include "model/family_rules.h"

#define EXPERT LAYER "experts.%u."

/* clang-format off */
static const mq_tensor_rule rules[] = {
    {"model.embed_tokens.weight", MQ_USE_MATRIX, MQ_WHEN_ALWAYS, 'V', 'D', offsetof(mq_model, embedding), 0},
    {LAYER "input_layernorm.weight", MQ_USE_NORM, MQ_WHEN_ALWAYS, 'D', 0, IN(attention_norm), 0},
    {LAYER "self_attn.q_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'Q', 'D', IN(q), MQ_GROUP_QKV},
    {LAYER "self_attn.k_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'G', 'D', IN(k), MQ_GROUP_QKV},
    {LAYER "self_attn.v_proj", MQ_USE_LINEAR, MQ_WHEN_OWN_V, 'G', 'D', IN(v), MQ_GROUP_QKV},
    {LAYER "self_attn.o_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'D', 'Q', IN(o), MQ_GROUP_O},
    {LAYER "self_attn.q_norm.weight", MQ_USE_VECTOR, MQ_WHEN_ALWAYS, 'K', 0, IN(q_norm), 0},
    {LAYER "self_attn.k_norm.weight", MQ_USE_VECTOR, MQ_WHEN_ALWAYS, 'K', 0, IN(k_norm), 0},
    {LAYER "post_attention_layernorm.weight", MQ_USE_VECTOR, MQ_WHEN_ALWAYS, 'D', 0, IN(attention_post_norm), 0},
    {LAYER "pre_feedforward_layernorm.weight", MQ_USE_NORM, MQ_WHEN_ALWAYS, 'D', 0, IN(mlp_norm), 0},
    {LAYER "mlp.gate_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'F', 'D', IN(mlp.gate), MQ_GROUP_GATE_UP},
    {LAYER "mlp.up_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'F', 'D', IN(mlp.up), MQ_GROUP_GATE_UP},
    {LAYER "mlp.down_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'D', 'F', IN(mlp.down), MQ_GROUP_DOWN},
    {LAYER "post_feedforward_layernorm_1.weight", MQ_USE_VECTOR, MQ_WHEN_EXPERTS, 'D', 0, IN(dense_post_norm), 0},
    {LAYER "router.scale", MQ_USE_NORM, MQ_WHEN_EXPERTS, 'D', 0, IN(router_norm), 0},
    {LAYER "router.proj.weight", MQ_USE_ROUTER, MQ_WHEN_EXPERTS, 'E', 'D', IN(router), 0},
    {LAYER "router.per_expert_scale", MQ_USE_VECTOR, MQ_WHEN_EXPERTS, 'E', 0, IN(expert_scale), 0},
    {LAYER "pre_feedforward_layernorm_2.weight", MQ_USE_NORM, MQ_WHEN_EXPERTS, 'D', 0, IN(experts_norm), 0},
    {EXPERT "gate_proj", MQ_USE_LINEAR, MQ_WHEN_EXPERTS, 'M', 'D', offsetof(mq_mlp, gate), MQ_GROUP_GATE_UP},
    {EXPERT "up_proj", MQ_USE_LINEAR, MQ_WHEN_EXPERTS, 'M', 'D', offsetof(mq_mlp, up), MQ_GROUP_GATE_UP},
    {EXPERT "down_proj", MQ_USE_LINEAR, MQ_WHEN_EXPERTS, 'D', 'M', offsetof(mq_mlp, down), MQ_GROUP_DOWN},
    {LAYER "post_feedforward_layernorm_2.weight", MQ_USE_VECTOR, MQ_WHEN_EXPERTS, 'D', 0, IN(experts_post_norm), 0},
    {LAYER "post_feedforward_layernorm.weight", MQ_USE_VECTOR, MQ_WHEN_ALWAYS, 'D', 0, IN(mlp_post_norm), 0},
    {LAYER "layer_scalar", MQ_USE_VECTOR, MQ_WHEN_ALWAYS, '1', 0, IN(scalar), 0},
    {"model.norm.weight", MQ_USE_VECTOR, MQ_WHEN_ALWAYS, 'D', 0, offsetof(mq_model, final_norm), 0},
    {"lm_head.weight", MQ_USE_MATRIX, MQ_WHEN_OWN_HEAD, 'V', 'D', offsetof(mq_model, head.dense), 0},
};
/* clang-format on */

const mq_family mq__family_gemma4 = {rules, sizeof rules / sizeof rules[0]};
