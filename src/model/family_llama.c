/* Llama; Qwen2 (biases on q, k, v); Qwen3 (norms on q and k). */
#include "model/family_rules.h"

/* clang-format off */
static const mq_tensor_rule rules[] = {
    RULES_BEFORE_MLP,
    {LAYER "mlp.gate_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'F', 'D', IN(mlp.gate), MQ_GROUP_GATE_UP},
    {LAYER "mlp.gate_proj.bias", MQ_USE_BIAS, MQ_WHEN_MLP_BIAS, 'F', 0, IN(mlp.gate.bias), 0},
    {LAYER "mlp.up_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'F', 'D', IN(mlp.up), MQ_GROUP_GATE_UP},
    {LAYER "mlp.up_proj.bias", MQ_USE_BIAS, MQ_WHEN_MLP_BIAS, 'F', 0, IN(mlp.up.bias), 0},
    {LAYER "mlp.down_proj", MQ_USE_LINEAR, MQ_WHEN_ALWAYS, 'D', 'F', IN(mlp.down), MQ_GROUP_DOWN},
    {LAYER "mlp.down_proj.bias", MQ_USE_BIAS, MQ_WHEN_MLP_BIAS, 'D', 0, IN(mlp.down.bias), 0},
    RULES_AFTER_MLP,
};
/* clang-format on */

const mq_family mq__family_llama = {rules, sizeof rules / sizeof rules[0]};
