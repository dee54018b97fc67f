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

/* clang-format off */
static const mq_tensor_rule rules[] = {
    RULES_GEMMA(MQ_USE_NORM, MQ_USE_VECTOR, MQ_WHEN_OWN_V),
    {LAYER "post_feedforward_layernorm_1.weight", MQ_USE_VECTOR, MQ_WHEN_EXPERTS, 'D', 0, IN(dense_post_norm), 0},
    {LAYER "router.scale", MQ_USE_NORM, MQ_WHEN_EXPERTS, 'D', 0, IN(router_norm), 0},
    {LAYER "router.proj.weight", MQ_USE_ROUTER, MQ_WHEN_EXPERTS, 'E', 'D', IN(router), 0},
    {LAYER "router.per_expert_scale", MQ_USE_VECTOR, MQ_WHEN_EXPERTS, 'E', 0, IN(expert_scale), 0},
    {LAYER "pre_feedforward_layernorm_2.weight", MQ_USE_NORM, MQ_WHEN_EXPERTS, 'D', 0, IN(experts_norm), 0},
    RULES_EXPERTS(LAYER "experts.%u.", MQ_WHEN_EXPERTS),
    {LAYER "post_feedforward_layernorm_2.weight", MQ_USE_VECTOR, MQ_WHEN_EXPERTS, 'D', 0, IN(experts_post_norm), 0},
    {LAYER "post_feedforward_layernorm.weight", MQ_USE_VECTOR, MQ_WHEN_ALWAYS, 'D', 0, IN(mlp_post_norm), 0},
    {LAYER "layer_scalar", MQ_USE_VECTOR, MQ_WHEN_ALWAYS, '1', 0, IN(scalar), 0},
    RULES_END(MQ_USE_VECTOR),
};
/* clang-format on */

const mq_family mq__family_gemma4 = {rules, sizeof rules / sizeof rules[0]};
