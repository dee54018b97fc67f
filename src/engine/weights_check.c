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

/* Scales and zero points of quantised queries, keys, values, attention weights and outputs of linear layers, as
 * "self_attn.q_scale", "self_attn.prob_output_scale", "self_attn.k_proj.output_scale". What belongs to the weights or the
 * inputs of a linear layer is none of them. */
static bool is_activation_scale(const char *name)
{
    static const char *const whats[] = {"q",           "k",           "v",         "kv",        "attn",
                                        "prob",        "output",      "q_output",  "k_output",  "v_output",
                                        "prob_output", "attn_output", "qk_output", "pv_output", "kv_cache"};
    static const char *const kinds[] = {"_scale", "_zero_point", "_global_scale"};
    const char *part = strrchr(name, '.');
    if (!part || (strncmp(name, "self_attn.", 10) != 0 && strncmp(name, "mlp.", 4) != 0)) return false;
    part++;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        for (size_t i = 0; i < sizeof whats / sizeof whats[0]; i++) {
            const size_t length = strlen(whats[i]);
            if (strncmp(part, whats[i], length) == 0 && strcmp(part + length, kinds[k]) == 0) return true;
        }
    }
    return false;
}

/* The part of a layer's tensor after "model.layers.<number>."; NULL for others, and for layers that do not exist. */
static const char *layer_part(const mq_model_config *c, const char *name)
{
    unsigned layer = 0;
    int used = 0;
    if (sscanf(name, "model.layers.%9u.%n", &layer, &used) != 1 || used == 0 || layer >= c->layers) return NULL;
    char prefix[40]; /* "00" or "+0" would be a second layer 0 that nobody reads */
    snprintf(prefix, sizeof prefix, "model.layers.%u.", layer);
    return strncmp(name, prefix, strlen(prefix)) == 0 ? name + used : NULL;
}

/* May be left out with a line that says so. */
static bool is_unused(const mq_model_config *c, mq_copy copy, const char *name)
{
    const char *part = layer_part(c, name);
    if (part) return is_activation_scale(part);
    return copy == MQ_COPY_NVFP4 && strncmp(name, "lm_head.", 8) == 0 && strcmp(name, "lm_head.weight") != 0;
}

/* Whether this model has such a tensor. Outside "model." and "lm_head." other programs keep what is theirs. */
static bool is_expected(const mq_model_config *c, const char *name)
{
    static const char *const ends[] = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight",
                                       "model.rotary_emb.inv_freq"};
    if (strncmp(name, "model.", 6) != 0 && strncmp(name, "lm_head.", 8) != 0) return true;
    if (is_one_of(name, ends, sizeof ends / sizeof ends[0])) return true;
    const char *part = layer_part(c, name);
    return part && is_layer_part(c, part);
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

bool mq__weights_unused_text(const mq_weights *w, mq_copy copy, char *line, size_t size)
{
    const mq_unused *unused = &w->unused[copy];
    if (unused->count == 0) return false;
    const bool head = strncmp(unused->first, "lm_head.", 8) == 0;
    snprintf(line, size, "checkpoint: %s: left unused: %zu tensor%s, as %s (%s)",
             mq__checkpoint_dir(copy == MQ_COPY_PRECISE ? w->dense : w->second), unused->count,
             unused->count == 1 ? "" : "s", unused->first,
             head ? "lm_head is the precise model's" : "activations of attention and the KV cache stay BF16 and FP32");
    return true;
}

mq_status mq__weights_check_names(const mq_checkpoint *checkpoint, const mq_model_config *c, mq_copy copy,
                                  mq_unused *unused, mq_error *error)
{
    for (size_t s = 0; s < mq__checkpoint_shards(checkpoint); s++) {
        const mq_safetensors *shard = mq__checkpoint_shard(checkpoint, s);
        for (size_t i = 0; i < shard->count; i++) {
            const char *name = shard->tensors[i].name;
            if (is_unused(c, copy, name)) {
                if (unused->count++ == 0) snprintf(unused->first, sizeof unused->first, "%s", name);
                continue;
            }
            if (is_expected(c, name)) continue;
            return mq__fail(error, MQ_FORMAT, "checkpoint: %s: expected no tensor %.128s in a %s of %u layers, got one",
                            mq__checkpoint_dir(checkpoint), name, mq__architecture_name(c->architecture), c->layers);
        }
    }
    if (copy == MQ_COPY_NVFP4 || !c->tied_head || head_is_embedding(checkpoint)) return MQ_OK;
    return mq__fail(
        error, MQ_FORMAT,
        "checkpoint: tensor lm_head.weight: expected the embedding (tie_word_embeddings), got another matrix");
}
