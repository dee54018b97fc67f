/* Qwen3 with experts: a layer has a router and experts, or a dense MLP (decoder_sparse_step, mlp_only_layers). */
#include "model/family_rules.h"

#define EXPERT LAYER "mlp.experts.%u."

/* clang-format off */
static const mq_tensor_rule rules[] = {
    RULES_BEFORE_MLP,
    {LAYER "mlp.gate_proj", MQ_USE_LINEAR, MQ_WHEN_DENSE, 'F', 'D', IN(mlp.gate), MQ_GROUP_GATE_UP},
    {LAYER "mlp.up_proj", MQ_USE_LINEAR, MQ_WHEN_DENSE, 'F', 'D', IN(mlp.up), MQ_GROUP_GATE_UP},
    {LAYER "mlp.down_proj", MQ_USE_LINEAR, MQ_WHEN_DENSE, 'D', 'F', IN(mlp.down), MQ_GROUP_DOWN},
    {LAYER "mlp.gate.weight", MQ_USE_ROUTER, MQ_WHEN_EXPERTS, 'E', 'D', IN(router), 0},
    {EXPERT "gate_proj", MQ_USE_LINEAR, MQ_WHEN_EXPERTS, 'M', 'D', offsetof(mq_mlp, gate), MQ_GROUP_GATE_UP},
    {EXPERT "up_proj", MQ_USE_LINEAR, MQ_WHEN_EXPERTS, 'M', 'D', offsetof(mq_mlp, up), MQ_GROUP_GATE_UP},
    {EXPERT "down_proj", MQ_USE_LINEAR, MQ_WHEN_EXPERTS, 'D', 'M', offsetof(mq_mlp, down), MQ_GROUP_DOWN},
    RULES_AFTER_MLP,
};
/* clang-format on */

const mq_family mq__family_qwen3_moe = {rules, sizeof rules / sizeof rules[0]};
