/* config.json of the supported architectures, and what its rotary settings mean.
 *
 * A field that changes the maths and is not supported is refused by name; a field that does not is ignored. */
#ifndef MQ_MODEL_CONFIG_H
#define MQ_MODEL_CONFIG_H

#include "base/json_read.h"
#include "mixquant.h"

typedef enum mq_architecture {
    MQ_ARCH_LLAMA,
    MQ_ARCH_QWEN2,
    MQ_ARCH_QWEN3,
    MQ_ARCH_QWEN3_MOE,
    MQ_ARCH_QWEN3_5,
    MQ_ARCH_QWEN3_5_MOE,
    MQ_ARCH_MISTRAL,
    MQ_ARCH_GEMMA3,
    MQ_ARCH_GEMMA4,
    MQ_ARCH_COUNT
} mq_architecture;

/* What a layer is made of. */
typedef enum mq_mixer_kind { MQ_MIXER_ATTENTION, MQ_MIXER_GATED_DELTA, MQ_MIXER_COUNT } mq_mixer_kind;
typedef enum mq_mlp_kind { MQ_MLP_DENSE, MQ_MLP_EXPERTS } mq_mlp_kind;

typedef struct mq_layer_kind {
    uint8_t mixer, mlp; /* mq_mixer_kind, mq_mlp_kind */
    uint8_t global;     /* 1: of the second kind of attention that some models have (mq_model_config.global) */
} mq_layer_kind;

typedef enum mq_rope_type {
    MQ_ROPE_DEFAULT,
    MQ_ROPE_LINEAR,
    MQ_ROPE_LLAMA3,
    MQ_ROPE_YARN,
    MQ_ROPE_PROPORTIONAL,
    MQ_ROPE_COUNT
} mq_rope_type;

typedef struct mq_rope_config {
    mq_rope_type type;
    double theta, factor;
    double partial;                           /* the part of a head's width that is rotated; 0: not given */
    double low_freq_factor, high_freq_factor; /* llama3 */
    double beta_fast, beta_slow, attention_factor, mscale, mscale_all_dim; /* yarn; 0: not given */
    bool truncate;                                                         /* yarn */
    uint32_t original_positions;                                           /* linear, llama3, yarn */
} mq_rope_config;

/* How layers of one kind attend. */
typedef struct mq_attention_config {
    uint32_t kv_heads, head_dim, rotary_dim; /* G K R */
    uint32_t window;                         /* positions that a token sees, its own among them; 0: all before it */
    bool shares_kv;                          /* no v_proj: values are what k_proj makes */
    mq_rope_config rope;
} mq_attention_config;

/* Sizes of Gated DeltaNet layers; all 0: there are none. */
typedef struct mq_delta_sizes {
    uint32_t key_heads, value_heads; /* Hk, Hv: a key head serves Hv/Hk value heads */
    uint32_t key_dim, value_dim;     /* of a head */
    uint32_t taps;                   /* rows of the convolution */
} mq_delta_sizes;

/* Channels of the convolution: queries, keys, values. */
static inline uint32_t mq__delta_channels(const mq_delta_sizes *d)
{
    return 2 * d->key_heads * d->key_dim + d->value_heads * d->value_dim;
}

/* What `quantization_config` says; informative: each tensor's own form decides. */
typedef enum mq_quant_method { MQ_QUANT_NONE, MQ_QUANT_COMPRESSED_TENSORS, MQ_QUANT_MODELOPT } mq_quant_method;

#define MQ_EOS_MAX     16
#define MQ_LAYERS_MAX  1024
#define MQ_CONV_TAPS   8
#define MQ_EXPERTS_MAX 1024      /* of one layer */
#define MQ_ALL_EXPERTS (1 << 17) /* of all layers */

/* Which fields of the suggested sampling generation_config.json names. */
enum {
    MQ_SUGGESTS_TEMPERATURE = 1,
    MQ_SUGGESTS_TOP_K = 2,
    MQ_SUGGESTS_TOP_P = 4,
    MQ_SUGGESTS_MIN_P = 8,
    MQ_SUGGESTS_REPETITION_PENALTY = 16
};

typedef struct mq_model_config {
    mq_architecture architecture;
    uint32_t vocab, width, ffn, layers, heads, kv_heads, head_dim; /* V D F L H G K */
    uint32_t rotary_dim;                                           /* R: the first so many of K are rotated */
    uint32_t max_positions;                                        /* after rotary scaling */
    double norm_eps;
    bool tied_head;                                  /* lm_head is the embedding */
    bool qkv_bias, o_bias, mlp_bias, qk_norm;        /* which tensors exist */
    uint32_t experts, experts_per_token, expert_ffn; /* E, how many of them a token takes, M; 0 without experts */
    bool norm_topk;                                  /* a token's weights of its experts are scaled to sum to 1 */
    uint32_t shared_ffn;                             /* S: of an expert that every token takes; 0: none */
    bool output_gate;                                /* q_proj has a gate of the attention's output beside each head */
    mq_delta_sizes delta;
    mq_layer_kind layer[MQ_LAYERS_MAX]; /* the first `layers` */
    mq_rope_config rope;
    uint32_t window;            /* as in mq_attention_config, of all layers but the global ones */
    mq_attention_config global; /* of the layers whose kind says so */
    double attention_scale;     /* 0: 1/sqrt(K) */
    bool v_norm;                /* values are normed without weights */
    bool gelu;                  /* the MLP's activation; false: silu */
    double embedding_scale;     /* of the embedding's rows; 0: none */
    double router_scale;        /* of the router's logits; 0: none */
    double logit_cap;           /* logits become cap * tanh(logits / cap); 0: none */
    int32_t bos;                /* -1: none */
    int32_t eos[MQ_EOS_MAX];    /* of config.json, generation_config.json and the tokenizer's eos_token */
    size_t eos_count;
    mq_sampling suggested;     /* of generation_config.json */
    unsigned suggested_fields; /* MQ_SUGGESTS_... */
    mq_quant_method quant_method;
} mq_model_config;

const char *mq__architecture_name(mq_architecture architecture); /* model_type: "qwen3" */
/* The same of the language model alone, where the checkpoint may have more: "qwen3_5_text". */
const char *mq__architecture_text_name(mq_architecture architecture);
const char *mq__architecture_class(mq_architecture architecture); /* of that: "Qwen3ForCausalLM" */
const char *mq__rope_type_name(mq_rope_type type);

/* From the text of config.json alone; errors name no file. */
mq_status mq__model_config_parse(const json_t *root, mq_model_config *config, mq_error *error);

/* Reads dir/config.json and, where present, dir/generation_config.json and the end token of dir/tokenizer_config.json. */
mq_status mq__model_config_read(const char *dir, mq_model_config *config, mq_error *error);

/* How a layer attends. */
mq_attention_config mq__attention_of(const mq_model_config *config, uint32_t layer);

/* inv_freq [rotary_dim/2] and the factor on cos and sin; computed in double. */
void mq__rope_frequencies(const mq_rope_config *rope, uint32_t rotary_dim, float *inv_freq, float *factor);

#endif
