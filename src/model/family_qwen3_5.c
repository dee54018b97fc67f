/* Qwen3.5 and 3.6: of each layer either gated attention or Gated DeltaNet, then a dense MLP or experts with one that every token takes.
 * All norms are zero-centred but that of Gated DeltaNet's output. */
#include "model/family_rules.h"

#define DELTA LAYER "linear_attn."

/* clang-format off */
#define RULES_MIXERS \
    {"model.embed_tokens.weight", MQ_USE_MATRIX, MQ_WHEN_ALWAYS, 'V', 'D', offsetof(mq_model, embedding), 0}, \
    {LAYER "input_layernorm.weight", MQ_USE_NORM_FROM_1, MQ_WHEN_ALWAYS, 'D', 0, IN(attention_norm), 0}, \
    {LAYER "self_attn.q_proj", MQ_USE_LINEAR, MQ_WHEN_ATTENTION, 'A', 'D', IN(q), MQ_GROUP_QKV}, \
    {LAYER "self_attn.k_proj", MQ_USE_LINEAR, MQ_WHEN_ATTENTION, 'G', 'D', IN(k), MQ_GROUP_QKV}, \
    {LAYER "self_attn.v_proj", MQ_USE_LINEAR, MQ_WHEN_ATTENTION, 'G', 'D', IN(v), MQ_GROUP_QKV}, \
    {LAYER "self_attn.o_proj", MQ_USE_LINEAR, MQ_WHEN_ATTENTION, 'D', 'Q', IN(o), MQ_GROUP_O}, \
    {LAYER "self_attn.q_norm.weight", MQ_USE_VECTOR_FROM_1, MQ_WHEN_ATTENTION, 'K', 0, IN(q_norm), 0}, \
    {LAYER "self_attn.k_norm.weight", MQ_USE_VECTOR_FROM_1, MQ_WHEN_ATTENTION, 'K', 0, IN(k_norm), 0}, \
    {DELTA "in_proj_qkv", MQ_USE_LINEAR, MQ_WHEN_DELTA, 'C', 'D', IN(delta.qkv), MQ_GROUP_QKV}, \
    {DELTA "in_proj_z", MQ_USE_LINEAR, MQ_WHEN_DELTA, 'Z', 'D', IN(delta.z), MQ_GROUP_QKV}, \
    {DELTA "in_proj_b.weight", MQ_USE_ROUTER, MQ_WHEN_DELTA, 'N', 'D', IN(delta.b), 0}, \
    {DELTA "in_proj_a.weight", MQ_USE_ROUTER, MQ_WHEN_DELTA, 'N', 'D', IN(delta.a), 0}, \
    {DELTA "conv1d.weight", MQ_USE_CONV, MQ_WHEN_DELTA, 'C', 'T', IN(delta.conv), 0}, \
    {DELTA "A_log", MQ_USE_BIAS, MQ_WHEN_DELTA, 'N', 0, IN(delta.a_log), 0}, \
    {DELTA "dt_bias", MQ_USE_BIAS, MQ_WHEN_DELTA, 'N', 0, IN(delta.dt_bias), 0}, \
    {DELTA "norm.weight", MQ_USE_VECTOR, MQ_WHEN_DELTA, 'W', 0, IN(delta.norm), 0}, \
    {DELTA "out_proj", MQ_USE_LINEAR, MQ_WHEN_DELTA, 'D', 'Z', IN(delta.out), MQ_GROUP_O}, \
    {LAYER "post_attention_layernorm.weight", MQ_USE_NORM_FROM_1, MQ_WHEN_ALWAYS, 'D', 0, IN(mlp_norm), 0}

static const mq_tensor_rule dense_rules[] = {
    RULES_MIXERS,
    RULES_MLP(LAYER "mlp.", MQ_WHEN_ALWAYS),
    RULES_END(MQ_USE_VECTOR_FROM_1),
};

/* Experts have tensors of their own, or all of a layer are in two (weights_read.c:mq__expert_source_read). */
static const mq_tensor_rule experts_rules[] = {
    RULES_MIXERS,
    {LAYER "mlp.gate.weight", MQ_USE_ROUTER, MQ_WHEN_ALWAYS, 'E', 'D', IN(router), 0},
    RULES_MLP(LAYER "mlp.shared_expert.", MQ_WHEN_ALWAYS),
    {LAYER "mlp.shared_expert_gate.weight", MQ_USE_ROUTER, MQ_WHEN_ALWAYS, '1', 'D', IN(shared_gate), 0},
    RULES_EXPERTS(LAYER "mlp.experts.%u.", MQ_WHEN_ALWAYS),
    RULES_END(MQ_USE_VECTOR_FROM_1),
};
/* clang-format on */

const mq_family mq__family_qwen3_5 = {dense_rules, sizeof dense_rules / sizeof dense_rules[0]};
const mq_family mq__family_qwen3_5_moe = {experts_rules, sizeof experts_rules / sizeof experts_rules[0]};
