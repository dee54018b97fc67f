/* Gemma 3, the text model: norms before and after each part of a layer, stored less 1, and norms on queries and keys. Five layers
 * of six see a window; the sixth sees everything and turns by frequencies of its own. */
#include "model/family_rules.h"

/* clang-format off */
static const mq_tensor_rule rules[] = {
    RULES_GEMMA(MQ_USE_NORM_FROM_1, MQ_USE_VECTOR_FROM_1, MQ_WHEN_ALWAYS),
    {LAYER "post_feedforward_layernorm.weight", MQ_USE_VECTOR_FROM_1, MQ_WHEN_ALWAYS, 'D', 0, IN(mlp_post_norm), 0},
    RULES_END(MQ_USE_VECTOR_FROM_1),
};
/* clang-format on */

const mq_family mq__family_gemma3 = {rules, sizeof rules / sizeof rules[0]};
