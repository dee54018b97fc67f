/* What a transformer is here: its weights in two precisions, and the plan that says which is used when.
 *
 * A weight matrix has several faces. The dense face is the checkpoint's own tensor, borrowed from its map and never copied;
 * the NVFP4 face is packed at load or comes from a second checkpoint, the INT8 and FP8 faces are made at load. Norm weights belong
 * to the copy whose linear layers consume their output, because smoothing moves scale between the two. */
#ifndef MQ_MODEL_H
#define MQ_MODEL_H

#include "format/model_config.h"
#include "kernels/kernels.h"

/* The faces of a weight matrix: the checkpoint's own, and those that are packed from it. */
typedef enum mq_face { MQ_FACE_DENSE, MQ_FACE_NVFP4, MQ_FACE_INT8, MQ_FACE_FP8, MQ_FACES } mq_face;

/* The face that a format reads. */
static inline mq_face mq__face_of(mq_linear_format format)
{
    if (format == MQ_LINEAR_INT8) return MQ_FACE_INT8;
    if (format == MQ_LINEAR_FP8) return MQ_FACE_FP8;
    return format == MQ_LINEAR_NVFP4 || format == MQ_LINEAR_W4A16 ? MQ_FACE_NVFP4 : MQ_FACE_DENSE;
}

/* A Gated DeltaNet layer's projections stand in the groups of attention's. */
static inline bool mq__is_delta_group(mq_layer_kind kind, mq_linear_group group)
{
    return kind.mixer == MQ_MIXER_GATED_DELTA && (group == MQ_GROUP_QKV || group == MQ_GROUP_O);
}

/* The two copies of the model that may come from different checkpoints. INT8 and FP8 are made from the precise one. */
typedef enum mq_copy { MQ_COPY_PRECISE, MQ_COPY_NVFP4, MQ_COPIES } mq_copy;

typedef struct mq_linear {
    uint32_t n, k_width;
    mq_dense dense;    /* [n, k_width]; data is NULL when the checkpoint holds this layer in NVFP4 only */
    mq_nvfp4 nvfp4;    /* panels is NULL until packed */
    mq_int8 int8;      /* the same */
    mq_dense fp8;      /* [n, k_width] F32: E4M3 values times their row's scale; data is NULL until made */
    const float *bias; /* [n] or NULL */
} mq_linear;

/* down(f(gate(x)) * up(x)), f silu or gelu: the MLP of a layer, or one of its experts. */
typedef struct mq_mlp {
    mq_linear gate, up; /* [F, D]; of an expert [M, D] */
    mq_linear down;     /* [D, F]; of an expert [D, M] */
} mq_mlp;

/* How positions turn queries and keys: a model has one of these, or one for each kind of layer. */
#define MQ_ROPES 2

typedef struct mq_rope {
    uint32_t width;        /* R: the first so many of a head's K are turned */
    const float *inv_freq; /* [R/2] rotary frequencies after scaling; 0: not turned */
    float factor;          /* multiplies cos and sin (YaRN); 1 otherwise */
} mq_rope;

/* Gated DeltaNet: linear attention with a state of fixed size (gated_delta.c). */
typedef struct mq_delta_layer {
    mq_linear qkv;                /* [C, D]: queries and keys of all key heads, values of all value heads */
    mq_linear z;                  /* [Hv*dv, D], the gate of the output */
    mq_linear out;                /* [D, Hv*dv] */
    mq_linear a[MQ_COPIES];       /* [Hv, D], always dense: how fast the state decays */
    mq_linear b[MQ_COPIES];       /* the same: how much of a correction it takes */
    const float *conv;            /* [taps][C] */
    const float *a_log, *dt_bias; /* [Hv] */
    const float *norm;            /* [dv] */
    uint32_t index;               /* among the layers of its kind */
} mq_delta_layer;

typedef struct mq_layer {
    mq_layer_kind kind;
    uint32_t kv_heads, head_dim;            /* G K */
    uint32_t window;                        /* keys that a token sees, its own among them; 0: all before it */
    uint32_t rope;                          /* which of the model's */
    float attention_scale;                  /* 1/sqrt(K), or the family's own */
    const float *attention_norm[MQ_COPIES]; /* [D], before q, k, v */
    const float *attention_post_norm;       /* [D] before the residual stream takes what o gives, or NULL */
    const float *q_norm, *k_norm;           /* [K] each, or NULL */
    const float *v_norm;                    /* [K] ones, or NULL */
    mq_linear q, k, v; /* [H*K, D], [G*K, D], [G*K, D]; with output_gate q is [H*2K, D]: query, gate; v.n is 0
                                               where values are what k gives */
    mq_linear o;       /* [D, H*K] */
    const float *mlp_norm[MQ_COPIES]; /* [D], before gate, up and most routers */
    const float *mlp_post_norm;       /* [D] before the residual stream takes what the MLP gives, or NULL */
    mq_mlp mlp;                       /* MQ_MLP_DENSE, or beside the experts (Gemma 4) */
    mq_linear router[MQ_COPIES];      /* MQ_MLP_EXPERTS: [E, D], always dense */
    mq_mlp *expert;                   /* MQ_MLP_EXPERTS: [E]; a shared expert is `mlp` */
    mq_linear shared_gate[MQ_COPIES]; /* [1, D], always dense: how much of the shared expert a token takes */
    mq_delta_layer delta;             /* MQ_MIXER_GATED_DELTA, in place of q, k, v, o */
    const float *scalar;              /* [1] a factor of the residual stream after the layer, or NULL */

    /* Gemma 4's experts beside a dense MLP; NULL in other families. */
    const float *router_norm[MQ_COPIES];  /* [D], before the router */
    const float *expert_scale;            /* [E] of the weights of a token's experts */
    const float *experts_norm[MQ_COPIES]; /* [D], before the experts' gate and up */
    const float *dense_post_norm;         /* [D] of what the dense MLP gives */
    const float *experts_post_norm;       /* [D] of what the experts give together */
} mq_layer;

typedef struct mq_model {
    uint32_t vocab, width, ffn, layers, heads;       /* V D F L H */
    uint32_t q_width, kv_width;                      /* H*K, G*K of the widest layer */
    uint32_t experts, experts_per_token, expert_ffn; /* E, how many of them a token takes, M */
    bool shared_expert;                              /* beside those, of width F */
    bool output_gate;                                /* attention's output times sigmoid(gate) */
    mq_delta_sizes delta;
    uint32_t delta_layers;
    bool norm_topk; /* a token's expert weights are scaled to sum to 1 */
    float norm_eps;
    bool gelu;             /* the MLP's activation; false: silu */
    float embedding_scale; /* of the embedding's rows: 1 */
    float router_scale;    /* of the router's logits: 1 */
    float logit_cap;       /* logits become cap * tanh(logits / cap); 0: none */
    mq_rope rope[MQ_ROPES];
    uint32_t ropes;
    mq_dense embedding; /* [V, D] */
    mq_linear head;     /* [V, D]: lm_head, or the embedding when tied; dense, and NVFP4 for plans that ask for it */
    const float *final_norm; /* [D] */
    mq_layer *layer;         /* [L] */
} mq_model;

/* ---- recurrent state: of each Gated DeltaNet layer [Hv][dv/16][dk][16] (panels as delta_rule has them), then the last taps - 1 rows
 * that went into the convolution [taps - 1][C], the oldest first. FP32. */

static inline size_t mq__state_matrix_floats(const mq_delta_sizes *d)
{
    return (size_t)d->value_heads * d->key_dim * d->value_dim;
}

static inline size_t mq__state_layer_floats(const mq_delta_sizes *d)
{
    return mq__state_matrix_floats(d) + (size_t)(d->taps - 1) * mq__delta_channels(d);
}

/* What a layer's state takes of a row: its row of u, and what its linear layers say of decay and beta. */
static inline size_t mq__state_row_floats(const mq_delta_sizes *d)
{
    return mq__delta_channels(d) + 2 * (size_t)d->value_heads;
}

/* Of a sequence; 0: the model has none. */
static inline size_t mq__state_floats(const mq_model *m)
{
    return m->delta_layers ? m->delta_layers * mq__state_layer_floats(&m->delta) : 0;
}

/* Which format each linear group of each layer uses in one phase, and attention. */
typedef struct mq_phase_plan {
    uint8_t (*format)[MQ_GROUPS];  /* [L][MQ_GROUPS] of mq_linear_format */
    mq_attention_format attention; /* of prefill passes */
    mq_linear_format head;         /* BF16, W4A16 or NVFP4 */
} mq_phase_plan;

#endif
