/* config.json of Qwen3.5 (and 3.6): Gated DeltaNet layers between layers of gated attention. */
#include "base/error.h"
#include "format/config_read.h"

#define KINDS     (1u << MQ_MIXER_ATTENTION | 1u << MQ_MIXER_GATED_DELTA)
#define HEADS_MAX 1024

static mq_status read_delta(const json_t *root, mq_delta_sizes *d, mq_error *error)
{
    mq_status s = mq__config_u32(root, "linear_num_key_heads", 1, HEADS_MAX, 16, &d->key_heads, error);
    if (s == MQ_OK) s = mq__config_u32(root, "linear_num_value_heads", 1, HEADS_MAX, 32, &d->value_heads, error);
    if (s == MQ_OK) s = mq__config_u32(root, "linear_key_head_dim", 16, 1024, 128, &d->key_dim, error);
    if (s == MQ_OK) s = mq__config_u32(root, "linear_value_head_dim", 16, 1024, 128, &d->value_dim, error);
    if (s == MQ_OK) s = mq__config_u32(root, "linear_conv_kernel_dim", 2, MQ_CONV_TAPS, 4, &d->taps, error);
    if (s != MQ_OK) return s;
    if (d->value_heads % d->key_heads != 0) {
        return mq__fail(error, MQ_UNSUPPORTED,
                        "config: linear_num_value_heads: expected a multiple of linear_num_key_heads, got %u and %u",
                        d->value_heads, d->key_heads);
    }
    if (d->key_dim % 16 != 0 || d->value_dim % 16 != 0) {
        return mq__fail(error, MQ_UNSUPPORTED,
                        "config: linear_key_head_dim, linear_value_head_dim: expected multiples of 16, got %u and %u",
                        d->key_dim, d->value_dim);
    }
    return MQ_OK;
}

/* Sequences are counted by their KV: some layer has to have one. */
static mq_status expect_attention(const mq_model_config *c, mq_error *error)
{
    for (uint32_t l = 0; l < c->layers; l++) {
        if (c->layer[l].mixer == MQ_MIXER_ATTENTION) return MQ_OK;
    }
    return mq__fail(error, MQ_UNSUPPORTED,
                    "config: layer_types: expected full_attention in some layer, got none in %u (by them, or by "
                    "full_attention_interval)",
                    c->layers);
}

/* layer_types, or every full_attention_interval-th layer attends. */
static mq_status read_mixers(const json_t *root, mq_model_config *c, mq_error *error)
{
    uint32_t interval;
    mq_status s = mq__config_u32(root, "full_attention_interval", 1, MQ_LAYERS_MAX, 4, &interval, error);
    if (s != MQ_OK) return s;
    for (uint32_t l = 0; l < c->layers; l++) {
        c->layer[l].mixer = (l + 1) % interval == 0 ? MQ_MIXER_ATTENTION : MQ_MIXER_GATED_DELTA;
    }
    s = mq__config_layer_types(root, KINDS, c, error);
    return s == MQ_OK ? expect_attention(c, error) : s;
}

static mq_status read_flags(const json_t *root, mq_model_config *c, mq_error *error)
{
    bool bias = false;
    mq_status s = mq__json_bool(root, "attention_bias", false, &bias, error);
    if (s == MQ_OK) s = mq__json_bool(root, "attn_output_gate", true, &c->output_gate, error);
    if (s != MQ_OK) return s;
    if (bias) return mq__fail(error, MQ_UNSUPPORTED, "config: attention_bias: expected false, got true");
    if (!c->output_gate) return mq__fail(error, MQ_UNSUPPORTED, "config: attn_output_gate: expected true, got false");
    return MQ_OK;
}

/* A quarter of a head is rotated unless it says otherwise. */
static mq_status read_rotary(mq_model_config *c, mq_error *error)
{
    const double part = c->rope.partial > 0 ? c->rope.partial : 0.25;
    c->rotary_dim = (uint32_t)(c->head_dim * part);
    if (c->rotary_dim >= 2 && c->rotary_dim % 2 == 0) return MQ_OK;
    return mq__fail(error, MQ_UNSUPPORTED,
                    "config: partial_rotary_factor: expected an even number of values, got %u of %u", c->rotary_dim,
                    c->head_dim);
}

mq_status mq__qwen3_5_config_read(const json_t *root, mq_model_config *c, mq_error *error)
{
    c->qk_norm = true;
    mq_status s = read_flags(root, c, error);
    if (s == MQ_OK) s = read_delta(root, &c->delta, error);
    if (s == MQ_OK) s = read_mixers(root, c, error);
    return s == MQ_OK ? read_rotary(c, error) : s;
}

mq_status mq__qwen3_5_moe_config_read(const json_t *root, mq_model_config *c, mq_error *error)
{
    mq_status s = mq__qwen3_5_config_read(root, c, error);
    if (s == MQ_OK) s = mq__config_experts(root, 256, &c->experts, error);
    if (s == MQ_OK) s = mq__config_u32(root, "num_experts_per_tok", 1, c->experts, 8, &c->experts_per_token, error);
    if (s == MQ_OK) s = mq__config_u32(root, "moe_intermediate_size", 1, 1 << 20, 512, &c->expert_ffn, error);
    if (s == MQ_OK) s = mq__config_u32(root, "shared_expert_intermediate_size", 1, 1 << 20, 512, &c->shared_ffn, error);
    if (s != MQ_OK) return s;
    if ((uint64_t)c->experts * c->layers > MQ_ALL_EXPERTS) {
        return mq__fail(error, MQ_LIMIT, "config: num_experts: expected at most %d in all layers, got %u in each of %u",
                        MQ_ALL_EXPERTS, c->experts, c->layers);
    }
    c->norm_topk = true; /* whatever it says */
    c->ffn = c->shared_ffn;
    for (uint32_t l = 0; l < c->layers; l++) {
        c->layer[l].mlp = MQ_MLP_EXPERTS;
    }
    return MQ_OK;
}
