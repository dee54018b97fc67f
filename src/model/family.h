/* A family of models as data: one list of rules says which tensors a checkpoint has, what shape they have, and where they go.
 * Reading, the check for unknown tensors, quantising, synthetic models and inspect all walk this list. To add a family, write its
 * list (family_*.c), its reader of config.json (format/model_config.c), and name both in their tables. */
#ifndef MQ_FAMILY_H
#define MQ_FAMILY_H

#include "model/model.h"

/* What a tensor is for, and with it what its target in the model is. */
typedef enum mq_tensor_use {
    MQ_USE_LINEAR, /* mq_linear: <name>.weight, dense or NVFP4 with its scales; what plans give a format to */
    MQ_USE_BIAS,   /* const float *: of a linear layer */
    MQ_USE_MATRIX, /* mq_dense: dense in every plan */
    MQ_USE_ROUTER, /* mq_linear [MQ_COPIES]: dense in every plan; one of each copy, because it reads a norm's output */
    MQ_USE_NORM,   /* const float * [MQ_COPIES]: a norm before linear layers */
    MQ_USE_VECTOR, /* const float *: another norm */
    MQ_USE_NORM_FROM_1, /* as NORM, VECTOR; stored as w - 1 (zero-centred): 1 is added when it is read */
    MQ_USE_VECTOR_FROM_1,
    MQ_USE_CONV,   /* const float *: [rows, 1, columns] in the file, [columns][rows] in memory */
    MQ_USE_NOTHING /* known and not needed */
} mq_tensor_use;

/* Which models or layers have the tensor. */
typedef enum mq_when {
    MQ_WHEN_ALWAYS,
    MQ_WHEN_OWN_HEAD, /* lm_head is not the embedding */
    MQ_WHEN_QKV_BIAS,
    MQ_WHEN_O_BIAS,
    MQ_WHEN_MLP_BIAS,
    MQ_WHEN_QK_NORM,
    MQ_WHEN_OWN_V,     /* values are not what k_proj makes */
    MQ_WHEN_DENSE,     /* the layer's MLP is dense */
    MQ_WHEN_EXPERTS,   /* the layer has experts */
    MQ_WHEN_ATTENTION, /* the layer's mixer is attention */
    MQ_WHEN_DELTA      /* the layer's mixer is Gated DeltaNet */
} mq_when;

/* A name without "%u" is a tensor of the model, with one it is one of each layer, with two one of each expert of each layer.
 * Sizes are letters: V D F E M, K head width, Q = H*K, A = 2*Q, G = G*K; of Gated DeltaNet C channels, T taps, N value heads,
 * W the width of one, Z = N*W; 1; columns 0: a vector. */
typedef struct mq_tensor_rule {
    const char *name;
    mq_tensor_use use;
    mq_when when;
    char rows, columns;
    size_t offset; /* of the target in mq_model, mq_layer or mq_mlp */
    mq_linear_group group;
} mq_tensor_rule;

typedef struct mq_family {
    const mq_tensor_rule *rules;
    size_t count;
} mq_family;

extern const mq_family mq__family_llama, mq__family_qwen3_moe, mq__family_qwen3_5, mq__family_qwen3_5_moe,
    mq__family_gemma3, mq__family_gemma4;

const mq_family *mq__family_of(mq_architecture architecture);

/* Which of the tensors of a rule. */
typedef struct mq_place {
    uint32_t layer, expert; /* 0 where the rule has none */
} mq_place;

#define MQ_TENSOR_NAME_BYTES 128

/* Where a rule's tensors are: in the model once, in each layer, in each expert. */
typedef enum mq_rule_scope { MQ_SCOPE_MODEL, MQ_SCOPE_LAYER, MQ_SCOPE_EXPERT } mq_rule_scope;
mq_rule_scope mq__rule_scope(const mq_tensor_rule *rule);

bool mq__rule_applies(const mq_tensor_rule *rule, const mq_model_config *config, uint32_t layer);

/* The name with its numbers, followed by `suffix`. */
void mq__rule_name(const mq_tensor_rule *rule, mq_place place, const char *suffix, char name[MQ_TENSOR_NAME_BYTES]);

/* What follows the rule's name in this name (""; ".weight" of a linear layer), and the place; NULL: not of this rule. Numbers
 * are plain: "01" is none. */
const char *mq__rule_match(const mq_tensor_rule *rule, const char *name, mq_place *place);

/* What a letter stands for; K, Q and G depend on the layer. */
uint32_t mq__rule_size(const mq_model_config *config, uint32_t layer, char letter);

/* Calls for every tensor of the model, in the order of the list: the layers one after the other where the list comes to them,
 * the experts likewise. Stops at the first status that is not MQ_OK. */
typedef mq_status mq_rule_visit(void *context, const mq_tensor_rule *rule, mq_place place, mq_error *error);
mq_status mq__family_walk(const mq_model_config *config, mq_rule_visit *visit, void *context, mq_error *error);

#endif
