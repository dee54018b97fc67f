/* Qwen3 with experts: a layer has a router and experts, or a dense MLP (decoder_sparse_step, mlp_only_layers). */
#include "model/family_rules.h"

/* clang-format off */
static const mq_tensor_rule rules[] = {
    RULES_BEFORE_MLP,
    RULES_MLP(LAYER "mlp.", MQ_WHEN_DENSE),
    {LAYER "mlp.gate.weight", MQ_USE_ROUTER, MQ_WHEN_EXPERTS, 'E', 'D', IN(router), 0},
    RULES_EXPERTS(LAYER "mlp.experts.%u.", MQ_WHEN_EXPERTS),
    RULES_AFTER_MLP,
};
/* clang-format on */

const mq_family mq__family_qwen3_moe = {rules, sizeof rules / sizeof rules[0]};
