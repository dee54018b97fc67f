#include "format/model_config.h"

#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"
#include "format/config_read.h"

#include <string.h>

#define CONFIG_MAX ((size_t)4 << 20)

static mq_status read_llama(const json_t *root, mq_model_config *c, mq_error *error);
static mq_status read_qwen2(const json_t *root, mq_model_config *c, mq_error *error);
static mq_status read_qwen3(const json_t *root, mq_model_config *c, mq_error *error);
static mq_status read_qwen3_moe(const json_t *root, mq_model_config *c, mq_error *error);
static mq_status read_mistral(const json_t *root, mq_model_config *c, mq_error *error);

/* What holds where a config says nothing: the defaults of transformers' classes, which its writers leave out of a text_config.
 * 0: the config must say it; kv_heads: as many as heads; head_dim: the width over the heads. */
typedef struct default_sizes {
    uint32_t vocab, width, ffn, layers, heads, kv_heads, head_dim, positions;
} default_sizes;

/* In the order of mq_architecture. `read` sets what differs between them: biases, norms, experts. Models that see or hear have
 * the language model as text_config; text_type and text_class are what a checkpoint of that alone says. `alone`: it reads rotary
 * settings and refuses fields itself. */
static const struct {
    const char *type, *class_name, *text_type, *text_class;
    mq_status (*read)(const json_t *root, mq_model_config *c, mq_error *error);
    bool alone;
    default_sizes sizes;
} architectures[MQ_ARCH_COUNT] = {
    {"llama", "LlamaForCausalLM", NULL, NULL, read_llama, false, {.positions = 2048}},
    {"qwen2", "Qwen2ForCausalLM", NULL, NULL, read_qwen2, false, {.positions = 32768}},
    {"qwen3", "Qwen3ForCausalLM", NULL, NULL, read_qwen3, false, {.head_dim = 128, .positions = 32768}},
    {"qwen3_moe", "Qwen3MoeForCausalLM", NULL, NULL, read_qwen3_moe, false, {.kv_heads = 4, .positions = 32768}},
    {"qwen3_5",
     "Qwen3_5ForConditionalGeneration",
     "qwen3_5_text",
     "Qwen3_5ForCausalLM",
     mq__qwen3_5_config_read,
     false,
     {248320, 4096, 12288, 32, 16, 4, 256, 32768}},
    {"qwen3_5_moe",
     "Qwen3_5MoeForConditionalGeneration",
     "qwen3_5_moe_text",
     "Qwen3_5MoeForCausalLM",
     mq__qwen3_5_moe_config_read,
     false,
     {248320, 2048, 512, 40, 16, 2, 256, 32768}}, /* ffn: the shared expert's */
    {"mistral", "MistralForCausalLM", NULL, NULL, read_mistral, false, {.kv_heads = 8, .positions = 131072}},
    {"gemma3",
     "Gemma3ForConditionalGeneration",
     "gemma3_text",
     "Gemma3ForCausalLM",
     mq__config_gemma3,
     true,
     {262208, 2304, 9216, 26, 8, 4, 256, 131072}},
    {"gemma4",
     "Gemma4ForConditionalGeneration",
     "gemma4_text",
     "Gemma4ForCausalLM",
     mq__config_gemma4,
     true,
     {262144, 2304, 9216, 30, 8, 4, 256, 131072}},
};

const char *mq__architecture_name(mq_architecture architecture)
{
    return architectures[architecture].type;
}

const char *mq__architecture_text_name(mq_architecture architecture)
{
    const char *own = architectures[architecture].text_type;
    return own ? own : architectures[architecture].type;
}

const char *mq__architecture_class(mq_architecture architecture)
{
    const char *own = architectures[architecture].text_class;
    return own ? own : architectures[architecture].class_name;
}

mq_attention_config mq__attention_of(const mq_model_config *c, uint32_t layer)
{
    if (c->layer[layer].global) return c->global;
    return (mq_attention_config){.kv_heads = c->kv_heads,
                                 .head_dim = c->head_dim,
                                 .rotary_dim = c->rotary_dim,
                                 .window = c->window,
                                 .rope = c->rope};
}

mq_status mq__config_u32(const json_t *root, const char *name, int64_t low, int64_t high, int64_t fallback,
                         uint32_t *value, mq_error *error)
{
    int64_t wide = 0;
    const mq_status status = mq__json_integer(root, name, low, high, fallback, &wide, error);
    if (status == MQ_OK) *value = (uint32_t)wide;
    return status;
}

/* A size, `fallback` where the config does not say it; 0: it must. */
static mq_status read_size(const json_t *root, const char *name, int64_t low, int64_t high, uint32_t fallback,
                           uint32_t *value, mq_error *error)
{
    return mq__config_u32(root, name, low, high, fallback ? (int64_t)fallback : -1, value, error);
}

static mq_status read_sizes(const json_t *root, mq_model_config *c, mq_error *error)
{
    const default_sizes *d = &architectures[c->architecture].sizes;
    mq_status s = read_size(root, "vocab_size", 1, 4 << 20, d->vocab, &c->vocab, error);
    if (s == MQ_OK) s = read_size(root, "hidden_size", 1, 65536, d->width, &c->width, error);
    if (s == MQ_OK) s = read_size(root, "intermediate_size", 1, 1 << 20, d->ffn, &c->ffn, error);
    if (s == MQ_OK) s = read_size(root, "num_hidden_layers", 1, MQ_LAYERS_MAX, d->layers, &c->layers, error);
    if (s == MQ_OK) s = read_size(root, "num_attention_heads", 1, 1024, d->heads, &c->heads, error);
    const bool null_heads = json_is_null(json_object_get(root, "num_key_value_heads")); /* says: as many as heads */
    const uint32_t kv_heads = d->kv_heads && !null_heads ? d->kv_heads : c->heads;
    if (s == MQ_OK) s = read_size(root, "num_key_value_heads", 1, 1024, kv_heads, &c->kv_heads, error);
    const uint32_t head_dim = d->head_dim || s != MQ_OK ? d->head_dim : c->width / c->heads;
    if (s == MQ_OK) s = read_size(root, "head_dim", 2, 1024, head_dim, &c->head_dim, error);
    c->rotary_dim = c->head_dim;
    if (s == MQ_OK) s = read_size(root, "max_position_embeddings", 1, 1 << 24, d->positions, &c->max_positions, error);
    if (s == MQ_OK) s = mq__json_number(root, "rms_norm_eps", 1e-30, 1, 1e-6, &c->norm_eps, error);
    if (s != MQ_OK) return s;
    if (c->heads % c->kv_heads != 0 || c->head_dim % 2 != 0) {
        return mq__fail(error, MQ_UNSUPPORTED,
                        "config: num_attention_heads: expected a multiple of num_key_value_heads and an even head_dim, "
                        "got %u, %u and %u",
                        c->heads, c->kv_heads, c->head_dim);
    }
    return MQ_OK;
}

mq_status mq__config_expect_one(const json_t *object, const char *name, mq_error *error)
{
    const json_t *value = json_object_get(object, name);
    if (!value || json_is_null(value) || (json_is_number(value) && json_number_value(value) == 1.0)) return MQ_OK;
    return mq__fail(error, MQ_UNSUPPORTED, "config: %s: expected none or 1, got another value", name);
}

/* Fields that would change the maths. */
static mq_status refuse_unsupported(const json_t *root, const mq_model_config *c, mq_error *error)
{
    const char *activation = NULL;
    bool sliding = false;
    mq_status s = mq__json_string(root, "hidden_act", &activation, error);
    if (s != MQ_OK) return s;
    if (activation && strcmp(activation, "silu") != 0) {
        return mq__fail(error, MQ_UNSUPPORTED, "config: hidden_act: expected silu, got %.64s", activation);
    }
    s = mq__json_bool(root, "use_sliding_window", false, &sliding, error);
    if (s != MQ_OK) return s;
    if (sliding) return mq__fail(error, MQ_UNSUPPORTED, "config: use_sliding_window: expected false, got true");
    const json_t *window = json_object_get(root, "sliding_window");
    if (c->architecture == MQ_ARCH_LLAMA && window && !json_is_null(window)) {
        return mq__fail(error, MQ_UNSUPPORTED, "config: sliding_window: expected none for llama, got one");
    }
    if (c->rope.type == MQ_ROPE_PROPORTIONAL) {
        return mq__fail(error, MQ_UNSUPPORTED, "config: rope_type: expected default, linear, llama3 or yarn, got %s",
                        mq__rope_type_name(c->rope.type));
    }
    if (c->rope.partial != 0 && c->rope.partial != 1 && c->rotary_dim == c->head_dim) {
        return mq__fail(error, MQ_UNSUPPORTED, "config: partial_rotary_factor: expected none or 1, got another value");
    }
    static const char *const neutral_one[] = {"logits_scaling", "residual_multiplier", "embedding_multiplier",
                                              "rope_local_base_freq"};
    for (size_t k = 0; k < sizeof neutral_one / sizeof neutral_one[0]; k++) {
        s = mq__config_expect_one(root, neutral_one[k], error);
        if (s != MQ_OK) return s;
    }
    static const char *const absent[] = {"attn_logit_softcapping",
                                         "final_logit_softcapping",
                                         "attention_multiplier",
                                         "query_pre_attn_scalar",
                                         "num_experts",
                                         "num_local_experts"};
    const size_t count = sizeof absent / sizeof absent[0] - (c->experts > 0 ? 2 : 0); /* experts: read already */
    for (size_t k = 0; k < count; k++) {
        const json_t *value = json_object_get(root, absent[k]);
        if (!value || json_is_null(value) || (json_is_integer(value) && json_integer_value(value) == 0)) continue;
        return mq__fail(error, MQ_UNSUPPORTED, "config: %s: expected none, got one", absent[k]);
    }
    return MQ_OK;
}

/* Kinds of layers by their names in layer_types; `allowed` has a bit for each mq_mixer_kind that the family has. */
mq_status mq__config_layer_types(const json_t *root, unsigned allowed, mq_model_config *c, mq_error *error)
{
    static const char *const names[MQ_MIXER_COUNT] = {"full_attention", "linear_attention"};
    const json_t *layer_types = json_object_get(root, "layer_types"), *type;
    size_t i;
    if (!layer_types || json_is_null(layer_types)) return MQ_OK;
    if (!json_is_array(layer_types)) {
        return mq__fail(error, MQ_FORMAT, "config: layer_types: expected a list, got something else");
    }
    json_array_foreach(layer_types, i, type)
    {
        const char *name = json_string_value(type);
        int kind = 0;
        while (kind < MQ_MIXER_COUNT && !(allowed >> kind & 1 && name && strcmp(name, names[kind]) == 0)) {
            kind++;
        }
        if (kind == MQ_MIXER_COUNT) {
            return mq__fail(error, MQ_UNSUPPORTED, "config: layer_types[%zu]: expected full_attention%s, got %.64s", i,
                            allowed >> MQ_MIXER_GATED_DELTA & 1 ? " or linear_attention" : "",
                            name ? name : "something else");
        }
        if (i < c->layers) c->layer[i].mixer = (uint8_t)kind;
    }
    if (i >= c->layers || allowed == 1u << MQ_MIXER_ATTENTION) return MQ_OK;
    return mq__fail(error, MQ_FORMAT, "config: layer_types: expected %u layers, got %zu", c->layers, i);
}

static mq_status add_eos(mq_model_config *c, const json_t *value, mq_error *error)
{
    const size_t count = json_is_array(value) ? json_array_size(value) : value && !json_is_null(value) ? 1 : 0;
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_is_array(value) ? json_array_get(value, i) : value;
        const json_int_t id = json_integer_value(item);
        if (!json_is_integer(item)) {
            return mq__fail(error, MQ_FORMAT, "config: eos_token_id: expected whole numbers, got something else");
        }
        bool known = id < 0 || id >= (json_int_t)c->vocab; /* can never be drawn */
        for (size_t k = 0; k < c->eos_count; k++) {
            known = known || c->eos[k] == (int32_t)id;
        }
        if (known) continue;
        if (c->eos_count == MQ_EOS_MAX) {
            return mq__fail(error, MQ_LIMIT, "config: eos_token_id: expected at most %d ids, got more", MQ_EOS_MAX);
        }
        c->eos[c->eos_count++] = (int32_t)id;
    }
    return MQ_OK;
}

static mq_status read_generation_config(const char *dir, mq_model_config *c, mq_error *error)
{
    char *path = mq__path_join(dir, "generation_config.json");
    json_t *root = NULL;
    if (!path) return mq__fail(error, MQ_NO_MEMORY, "config: %s: expected memory, got none", dir);
    mq_status status = MQ_OK;
    if (mq__file_exists(path)) status = mq__json_file(path, CONFIG_MAX, &root, error);
    if (root) {
        status = add_eos(c, json_object_get(root, "eos_token_id"), error);
        if (status == MQ_OK) status = mq__sampling_suggested(root, &c->suggested, &c->suggested_fields, error);
        if (status != MQ_OK) (void)mq__fail_within(error, status, path);
    }
    json_decref(root);
    mq__free(path);
    return status;
}

/* The tokenizer's own end token ends an answer, too, as in serving engines: base models and fine-tunes often have the
 * end of a turn only there. */
static mq_status read_tokenizer_eos(const char *dir, mq_model_config *c, mq_error *error)
{
    int64_t id;
    mq_status status = mq__tokenizer_eos(dir, &id, error);
    if (status != MQ_OK || id < 0 || id >= (int64_t)c->vocab) return status;
    json_t *value = json_integer(id);
    if (!value) return mq__fail(error, MQ_NO_MEMORY, "config: %s: expected memory, got none", dir);
    status = add_eos(c, value, error);
    json_decref(value);
    return status;
}

static bool is_text_type(int architecture, const char *type)
{
    const char *own = architectures[architecture].text_type;
    return own && strcmp(type, own) == 0;
}

static mq_status read_architecture(const json_t *root, mq_model_config *c, mq_error *error)
{
    const char *type = NULL;
    mq_status s = mq__json_string(root, "model_type", &type, error);
    if (s != MQ_OK) return s;
    int found = 0;
    while (found < MQ_ARCH_COUNT &&
           (!type || (strcmp(type, architectures[found].type) != 0 && !is_text_type(found, type)))) {
        found++;
    }
    if (found == MQ_ARCH_COUNT) {
        return mq__fail(error, MQ_UNSUPPORTED,
                        "config: model_type: expected llama, mistral, qwen2, qwen3, qwen3_moe, qwen3_5, qwen3_5_moe, "
                        "gemma3 or gemma4, "
                        "got %.64s",
                        type ? type : "none");
    }
    const char *class_name = json_string_value(json_array_get(json_object_get(root, "architectures"), 0));
    const char *text_class = architectures[found].text_class;
    if (class_name && strcmp(class_name, architectures[found].class_name) != 0 &&
        !(text_class && strcmp(class_name, text_class) == 0)) {
        return mq__fail(error, MQ_UNSUPPORTED, "config: architectures: expected %s, got %.64s",
                        architectures[found].class_name, class_name);
    }
    c->architecture = (mq_architecture)found;
    return mq__json_bool(root, "tie_word_embeddings", false, &c->tied_head, error);
}

/* ---- what differs between architectures */

static mq_status read_attention_bias(const json_t *root, mq_model_config *c, mq_error *error)
{
    const mq_status s = mq__json_bool(root, "attention_bias", false, &c->qkv_bias, error);
    c->o_bias = c->qkv_bias;
    return s;
}

/* All layers attend to everything before them. */
static mq_status full_attention(const json_t *root, mq_model_config *c, mq_error *error)
{
    return mq__config_layer_types(root, 1u << MQ_MIXER_ATTENTION, c, error);
}

static mq_status read_llama(const json_t *root, mq_model_config *c, mq_error *error)
{
    const mq_status s = read_attention_bias(root, c, error);
    if (s != MQ_OK) return s;
    const mq_status read = mq__json_bool(root, "mlp_bias", false, &c->mlp_bias, error);
    return read == MQ_OK ? full_attention(root, c, error) : read;
}

static mq_status read_qwen2(const json_t *root, mq_model_config *c, mq_error *error)
{
    c->qkv_bias = true;
    return full_attention(root, c, error);
}

static mq_status read_qwen3(const json_t *root, mq_model_config *c, mq_error *error)
{
    c->qk_norm = true;
    const mq_status s = read_attention_bias(root, c, error);
    return s == MQ_OK ? full_attention(root, c, error) : s;
}

/* Llama with a window in all layers, or in none. */
static mq_status read_mistral(const json_t *root, mq_model_config *c, mq_error *error)
{
    const bool none = json_is_null(json_object_get(root, "sliding_window"));
    const mq_status s = none ? MQ_OK : mq__config_u32(root, "sliding_window", 1, 1 << 24, 4096, &c->window, error);
    return s == MQ_OK ? full_attention(root, c, error) : s;
}

/* mlp_only_layers: layers that keep a dense MLP. */
static mq_status read_dense_layers(const json_t *root, mq_model_config *c, mq_error *error)
{
    const json_t *list = json_object_get(root, "mlp_only_layers"), *item;
    size_t i;
    if (list && !json_is_array(list) && !json_is_null(list)) {
        return mq__fail(error, MQ_FORMAT, "config: mlp_only_layers: expected a list, got something else");
    }
    json_array_foreach(list, i, item)
    {
        const json_int_t layer = json_integer_value(item);
        if (!json_is_integer(item) || layer < 0 || layer >= (json_int_t)c->layers) {
            return mq__fail(error, MQ_FORMAT,
                            "config: mlp_only_layers[%zu]: expected a layer below %u, got another value", i, c->layers);
        }
        c->layer[layer].mlp = MQ_MLP_DENSE;
    }
    return MQ_OK;
}

/* transformers 5 writes num_local_experts where version 4 wrote num_experts. */
mq_status mq__config_experts(const json_t *root, int64_t fallback, uint32_t *experts, mq_error *error)
{
    static const char *const names[] = {"num_experts", "num_local_experts"};
    const json_t *newer = json_object_get(root, names[1]);
    uint32_t other = 0;
    if (!newer || json_is_null(newer))
        return mq__config_u32(root, names[0], 1, MQ_EXPERTS_MAX, fallback, experts, error);
    mq_status s = mq__config_u32(root, names[1], 1, MQ_EXPERTS_MAX, -1, experts, error);
    if (s == MQ_OK) s = mq__config_u32(root, names[0], 1, MQ_EXPERTS_MAX, *experts, &other, error);
    if (s != MQ_OK || other == *experts) return s;
    return mq__fail(error, MQ_FORMAT, "config: num_local_experts: expected the %u of num_experts, got %u", other,
                    *experts);
}

static mq_status read_qwen3_moe(const json_t *root, mq_model_config *c, mq_error *error)
{
    uint32_t step = 1;
    mq_status s = read_qwen3(root, c, error);
    if (s == MQ_OK) s = mq__config_experts(root, -1, &c->experts, error);
    if (s == MQ_OK) s = mq__config_u32(root, "num_experts_per_tok", 1, c->experts, -1, &c->experts_per_token, error);
    if (s == MQ_OK) s = mq__config_u32(root, "moe_intermediate_size", 1, 1 << 20, -1, &c->expert_ffn, error);
    if (s == MQ_OK) s = mq__json_bool(root, "norm_topk_prob", false, &c->norm_topk, error);
    if (s == MQ_OK) s = mq__config_u32(root, "decoder_sparse_step", 1, MQ_LAYERS_MAX, 1, &step, error);
    if (s != MQ_OK) return s;
    if ((uint64_t)c->experts * c->layers > MQ_ALL_EXPERTS) {
        return mq__fail(error, MQ_LIMIT, "config: num_experts: expected at most %d in all layers, got %u in each of %u",
                        MQ_ALL_EXPERTS, c->experts, c->layers);
    }
    for (uint32_t l = 0; l < c->layers; l++) {
        c->layer[l].mlp = (l + 1) % step == 0 ? MQ_MLP_EXPERTS : MQ_MLP_DENSE;
    }
    return read_dense_layers(root, c, error);
}

/* Rotations of weights are in the stored weights. Others would turn activations at run time, which nothing here does. */
static mq_status refuse_transforms(const json_t *config, mq_error *error)
{
    const json_t *groups = json_object_get(json_object_get(config, "transform_config"), "config_groups");
    const char *name;
    json_t *group, *apply;
    size_t i;
    json_object_foreach((json_t *)(uintptr_t)groups, name, group)
    {
        json_array_foreach(json_object_get(group, "apply"), i, apply)
        {
            const char *location = json_string_value(json_object_get(apply, "location"));
            if (location && strncmp(location, "weight_", strlen("weight_")) == 0) continue;
            return mq__fail(error, MQ_UNSUPPORTED,
                            "config: transform_config: %.64s: expected transforms of weights, got one of %.64s", name,
                            location ? location : "something else");
        }
    }
    return MQ_OK;
}

static mq_status read_quant_method(const json_t *root, mq_quant_method *method, mq_error *error)
{
    const json_t *config = json_object_get(root, "quantization_config");
    const char *name = NULL;
    *method = MQ_QUANT_NONE;
    mq_status s = mq__json_string(config, "quant_method", &name, error);
    if (s == MQ_OK) s = refuse_transforms(config, error);
    if (s != MQ_OK || !name) return s;
    if (strcmp(name, "compressed-tensors") == 0)
        *method = MQ_QUANT_COMPRESSED_TENSORS;
    else if (strcmp(name, "modelopt") == 0)
        *method = MQ_QUANT_MODELOPT;
    else
        return mq__fail(error, MQ_UNSUPPORTED,
                        "config: quant_method: expected compressed-tensors or modelopt, got %.64s", name);
    return MQ_OK;
}

/* What is nested in text_config, with what stands beside it where it says nothing itself. A new reference; NULL: no memory. */
static json_t *text_config_of(const json_t *root)
{
    json_t *text = json_copy(json_object_get(root, "text_config"));
    json_t *outer = (json_t *)(uintptr_t)root;
    static const char *const of_outer[] = {"model_type", "architectures"};
    bool failed = !text || json_object_update_missing(text, outer) != 0;
    for (size_t i = 0; !failed && i < sizeof of_outer / sizeof of_outer[0]; i++) {
        json_t *value = json_object_get(root, of_outer[i]);
        failed = value && json_object_set(text, of_outer[i], value) != 0;
    }
    if (!failed) return text;
    json_decref(text);
    return NULL;
}

static mq_status parse_text(const json_t *root, mq_model_config *c, mq_error *error)
{
    mq_status s = read_architecture(root, c, error);
    if (s == MQ_OK) s = read_sizes(root, c, error);
    const bool alone = s == MQ_OK && architectures[c->architecture].alone;
    if (s == MQ_OK && !alone) s = mq__rope_config_read(root, 10000, &c->rope, &c->max_positions, error);
    if (s == MQ_OK) s = architectures[c->architecture].read(root, c, error);
    if (s == MQ_OK && !alone) s = refuse_unsupported(root, c, error);
    if (s == MQ_OK) s = add_eos(c, json_object_get(root, "eos_token_id"), error);
    if (s != MQ_OK) return s;
    const json_t *bos = json_object_get(root, "bos_token_id");
    if (json_is_integer(bos) && json_integer_value(bos) >= 0 && json_integer_value(bos) < (json_int_t)c->vocab) {
        c->bos = (int32_t)json_integer_value(bos);
    }
    return read_quant_method(root, &c->quant_method, error);
}

mq_status mq__model_config_parse(const json_t *root, mq_model_config *c, mq_error *error)
{
    *c = (mq_model_config){.bos = -1, .suggested = MQ_SAMPLING_GREEDY};
    if (!json_is_object(json_object_get(root, "text_config"))) return parse_text(root, c, error);
    json_t *text = text_config_of(root);
    if (!text) return mq__fail(error, MQ_NO_MEMORY, "config: text_config: expected memory, got none");
    const mq_status s = parse_text(text, c, error);
    json_decref(text);
    return s;
}

mq_status mq__model_config_read(const char *dir, mq_model_config *c, mq_error *error)
{
    *c = (mq_model_config){.bos = -1, .suggested = MQ_SAMPLING_GREEDY};
    json_t *root = NULL;
    char *path = mq__path_join(dir, "config.json");
    if (!path) return mq__fail(error, MQ_NO_MEMORY, "config: %s: expected memory, got none", dir);
    mq_status s = mq__json_file(path, CONFIG_MAX, &root, error);
    if (s == MQ_OK) s = mq__model_config_parse(root, c, error);
    if (s != MQ_OK) (void)mq__fail_within(error, s, path);
    if (s == MQ_OK) s = read_generation_config(dir, c, error);
    if (s == MQ_OK) s = read_tokenizer_eos(dir, c, error);
    json_decref(root);
    mq__free(path);
    return s;
}
