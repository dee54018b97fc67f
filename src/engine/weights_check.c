/* What a checkpoint holds beside what config.json asks for. Reading takes the tensors that it knows; a tensor that nobody
 * reads may mean another model than the one that config.json describes, and its answers would be wrong without a sign. */
#include "base/error.h"
#include "engine/weights.h"

#include <stdio.h>
#include <string.h>

static bool is_one_of(const char *name, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(name, names[i]) == 0) return true;
    }
    return false;
}

/* A tensor of a linear layer, "<linear>.<part>": biases as config.json says, static activation scales unused. */
static bool is_linear_part(const mq_model_config *c, const char *name)
{
    static const char *const parts[] = {
        "weight",      "weight_packed",     "weight_scale", "weight_scale_2", "weight_global_scale",
        "input_scale", "input_global_scale"};
    static const struct {
        const char *prefix;
        char bias; /* which setting gives it one */
    } linears[] = {{"self_attn.q_proj.", 'q'}, {"self_attn.k_proj.", 'q'}, {"self_attn.v_proj.", 'q'},
                   {"self_attn.o_proj.", 'o'}, {"mlp.gate_proj.", 'm'},    {"mlp.up_proj.", 'm'},
                   {"mlp.down_proj.", 'm'}};
    for (size_t i = 0; i < sizeof linears / sizeof linears[0]; i++) {
        const size_t length = strlen(linears[i].prefix);
        if (strncmp(name, linears[i].prefix, length) != 0) continue;
        const char kind = linears[i].bias;
        const bool bias = kind == 'q' ? c->qkv_bias : kind == 'o' ? c->o_bias : c->mlp_bias;
        if (strcmp(name + length, "bias") == 0) return bias;
        return is_one_of(name + length, parts, sizeof parts / sizeof parts[0]);
    }
    return false;
}

static bool is_layer_part(const mq_model_config *c, const char *name)
{
    static const char *const norms[] = {"input_layernorm.weight", "post_attention_layernorm.weight"};
    static const char *const head_norms[] = {"self_attn.q_norm.weight", "self_attn.k_norm.weight"};
    if (is_one_of(name, norms, 2)) return true;
    if (strcmp(name, "self_attn.rotary_emb.inv_freq") == 0) return true; /* frequencies that old writers stored */
    if (is_one_of(name, head_norms, 2)) return c->qk_norm;
    return is_linear_part(c, name);
}

/* Whether this model has such a tensor. Outside "model." and "lm_head." other programs keep what is theirs. */
static bool is_expected(const mq_model_config *c, const char *name)
{
    static const char *const ends[] = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight",
                                       "model.rotary_emb.inv_freq"};
    unsigned layer = 0;
    int used = 0;
    if (strncmp(name, "model.", 6) != 0 && strncmp(name, "lm_head.", 8) != 0) return true;
    if (is_one_of(name, ends, sizeof ends / sizeof ends[0])) return true;
    if (sscanf(name, "model.layers.%9u.%n", &layer, &used) != 1 || used == 0) return false;
    char prefix[40]; /* "00" or "+0" would be a second layer 0 that nobody reads */
    snprintf(prefix, sizeof prefix, "model.layers.%u.", layer);
    if (strncmp(name, prefix, strlen(prefix)) != 0) return false;
    return layer < c->layers && is_layer_part(c, name + used);
}

/* A tied head may be stored as well; then it has to be the embedding. 4096 places of 8 bytes tell, without reading all. */
static bool head_is_embedding(const mq_checkpoint *checkpoint)
{
    const mq_tensor *head = mq__checkpoint_find(checkpoint, "lm_head.weight");
    const mq_tensor *embedding = mq__checkpoint_find(checkpoint, "model.embed_tokens.weight");
    if (!head || !embedding) return true;
    if (head->dtype != embedding->dtype || head->bytes != embedding->bytes) return false;
    const size_t step = head->bytes / 4096 > 8 ? head->bytes / 4096 : 8;
    for (size_t at = 0; at + 8 <= head->bytes; at += step) {
        if (memcmp(head->data + at, embedding->data + at, 8) != 0) return false;
    }
    return true;
}

mq_status mq__weights_check_names(const mq_checkpoint *checkpoint, const mq_model_config *c, mq_copy copy,
                                  mq_unused *unused, mq_error *error)
{
    for (size_t s = 0; s < mq__checkpoint_shards(checkpoint); s++) {
        const mq_safetensors *shard = mq__checkpoint_shard(checkpoint, s);
        for (size_t i = 0; i < shard->count; i++) {
            const char *name = shard->tensors[i].name;
            if (mq__weights_note_unused(c, copy, name, unused) || is_expected(c, name)) continue;
            return mq__fail(error, MQ_FORMAT, "checkpoint: %s: expected no tensor %.128s in a %s of %u layers, got one",
                            mq__checkpoint_dir(checkpoint), name, mq__architecture_name(c->architecture), c->layers);
        }
    }
    if (copy == MQ_COPY_NVFP4 || !c->tied_head || head_is_embedding(checkpoint)) return MQ_OK;
    return mq__fail(
        error, MQ_FORMAT,
        "checkpoint: tensor lm_head.weight: expected the embedding (tie_word_embeddings), got another matrix");
}
