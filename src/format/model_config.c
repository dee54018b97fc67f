#include "format/model_config.h"

#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"
#include "format/config_read.h"

#include <string.h>

#define CONFIG_MAX ((size_t)4 << 20)

static const char *const architecture_names[MQ_ARCH_COUNT] = {"llama", "qwen2", "qwen3"};

const char *mq__architecture_name(mq_architecture architecture)
{
    return architecture_names[architecture];
}

/* Index of name in names, or count. */
static int find_name_model_config(const char *name, const char *const *names, int count)
{
    int i = 0;
    while (i < count && (!name || strcmp(name, names[i]) != 0)) {
        i++;
    }
    return i;
}

static mq_status read_u32(const json_t *root, const char *name, int64_t low, int64_t high, int64_t fallback,
                          uint32_t *value, mq_error *error)
{
    int64_t wide = 0;
    const mq_status status = mq__json_integer(root, name, low, high, fallback, &wide, error);
    if (status == MQ_OK) *value = (uint32_t)wide;
    return status;
}

static mq_status read_sizes(const json_t *root, mq_model_config *c, mq_error *error)
{
    mq_status s = read_u32(root, "vocab_size", 1, 4 << 20, -1, &c->vocab, error);
    if (s == MQ_OK) s = read_u32(root, "hidden_size", 1, 65536, -1, &c->width, error);
    if (s == MQ_OK) s = read_u32(root, "intermediate_size", 1, 1 << 20, -1, &c->ffn, error);
    if (s == MQ_OK) s = read_u32(root, "num_hidden_layers", 1, 1024, -1, &c->layers, error);
    if (s == MQ_OK) s = read_u32(root, "num_attention_heads", 1, 1024, -1, &c->heads, error);
    if (s == MQ_OK) s = read_u32(root, "num_key_value_heads", 1, 1024, (int64_t)c->heads, &c->kv_heads, error);
    const int64_t derived = s == MQ_OK ? c->width / c->heads : 0;
    if (s == MQ_OK) s = read_u32(root, "head_dim", 2, 1024, derived, &c->head_dim, error);
    if (s == MQ_OK) s = read_u32(root, "max_position_embeddings", 1, 1 << 24, 2048, &c->max_positions, error);
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
    const json_t *layer_types = json_object_get(root, "layer_types"), *type;
    size_t i;
    if (layer_types && !json_is_array(layer_types) && !json_is_null(layer_types)) {
        return mq__fail(error, MQ_FORMAT, "config: layer_types: expected a list, got something else");
    }
    json_array_foreach(layer_types, i, type)
    {
        const char *name = json_string_value(type);
        if (name && strcmp(name, "full_attention") == 0) continue;
        return mq__fail(error, MQ_UNSUPPORTED, "config: layer_types[%zu]: expected full_attention, got %.64s", i,
                        name ? name : "something else");
    }
    const json_t *window = json_object_get(root, "sliding_window");
    if (c->architecture == MQ_ARCH_LLAMA && window && !json_is_null(window)) {
        return mq__fail(error, MQ_UNSUPPORTED, "config: sliding_window: expected none for llama, got one");
    }
    static const char *const neutral_one[] = {"partial_rotary_factor", "logits_scaling", "residual_multiplier",
                                              "embedding_multiplier", "rope_local_base_freq"};
    for (size_t k = 0; k < sizeof neutral_one / sizeof neutral_one[0]; k++) {
        s = mq__config_expect_one(root, neutral_one[k], error);
        if (s != MQ_OK) return s;
    }
    static const char *const absent[] = {"attn_logit_softcapping", "final_logit_softcapping", "num_experts",
                                         "num_local_experts",      "attention_multiplier",    "query_pre_attn_scalar"};
    for (size_t k = 0; k < sizeof absent / sizeof absent[0]; k++) {
        const json_t *value = json_object_get(root, absent[k]);
        if (!value || json_is_null(value) || (json_is_integer(value) && json_integer_value(value) == 0)) continue;
        return mq__fail(error, MQ_UNSUPPORTED, "config: %s: expected none, got one", absent[k]);
    }
    return MQ_OK;
}

static mq_status add_eos(mq_model_config *c, const json_t *value, mq_error *error)
{
    const size_t count = json_is_array(value) ? json_array_size(value) : value && !json_is_null(value) ? 1 : 0;
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_is_array(value) ? json_array_get(value, i) : value;
        const json_int_t id = json_integer_value(item);
        if (!json_is_integer(item) || id < 0 || id >= (json_int_t)c->vocab) {
            return mq__fail(error, MQ_FORMAT, "config: eos_token_id: expected ids below %u, got something else",
                            c->vocab);
        }
        bool known = false;
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

static mq_status read_architecture(const json_t *root, mq_model_config *c, mq_error *error)
{
    const char *type = NULL, *class_name = NULL;
    mq_status s = mq__json_string(root, "model_type", &type, error);
    if (s != MQ_OK) return s;
    const int found = find_name_model_config(type, architecture_names, MQ_ARCH_COUNT);
    static const char *const classes[MQ_ARCH_COUNT] = {"LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"};
    if (found == MQ_ARCH_COUNT) {
        return mq__fail(error, MQ_UNSUPPORTED, "config: model_type: expected llama, qwen2 or qwen3, got %.64s",
                        type ? type : "none");
    }
    class_name = json_string_value(json_array_get(json_object_get(root, "architectures"), 0));
    if (class_name && strcmp(class_name, classes[found]) != 0) {
        return mq__fail(error, MQ_UNSUPPORTED, "config: architectures: expected %s, got %.64s", classes[found],
                        class_name);
    }
    c->architecture = (mq_architecture)found;
    bool attention_bias = false;
    s = mq__json_bool(root, "attention_bias", false, &attention_bias, error);
    if (s == MQ_OK) s = mq__json_bool(root, "mlp_bias", false, &c->mlp_bias, error);
    if (s == MQ_OK) s = mq__json_bool(root, "tie_word_embeddings", false, &c->tied_head, error);
    c->qkv_bias = attention_bias || found == MQ_ARCH_QWEN2;
    c->o_bias = attention_bias && found != MQ_ARCH_QWEN2;
    if (found != MQ_ARCH_LLAMA) c->mlp_bias = false; /* the others have no such setting */
    c->qk_norm = found == MQ_ARCH_QWEN3;
    return s;
}

static mq_status read_quant_method(const json_t *root, mq_quant_method *method, mq_error *error)
{
    const json_t *config = json_object_get(root, "quantization_config");
    const char *name = NULL;
    *method = MQ_QUANT_NONE;
    const mq_status s = mq__json_string(config, "quant_method", &name, error);
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

mq_status mq__model_config_read(const char *dir, mq_model_config *c, mq_error *error)
{
    *c = (mq_model_config){.bos = -1, .suggested = MQ_SAMPLING_GREEDY};
    json_t *root = NULL;
    char *path = mq__path_join(dir, "config.json");
    if (!path) return mq__fail(error, MQ_NO_MEMORY, "config: %s: expected memory, got none", dir);
    mq_status s = mq__json_file(path, CONFIG_MAX, &root, error);
    if (s == MQ_OK) s = read_architecture(root, c, error);
    if (s == MQ_OK) s = read_sizes(root, c, error);
    if (s == MQ_OK) s = refuse_unsupported(root, c, error);
    if (s == MQ_OK) s = mq__rope_config_read(root, &c->rope, &c->max_positions, error);
    if (s == MQ_OK) s = add_eos(c, json_object_get(root, "eos_token_id"), error);
    if (s == MQ_OK) {
        const json_t *bos = json_object_get(root, "bos_token_id");
        if (json_is_integer(bos) && json_integer_value(bos) >= 0 && json_integer_value(bos) < (json_int_t)c->vocab) {
            c->bos = (int32_t)json_integer_value(bos);
        }
        s = read_quant_method(root, &c->quant_method, error);
    }
    if (s != MQ_OK) (void)mq__fail_within(error, s, path);
    if (s == MQ_OK) s = read_generation_config(dir, c, error);
    if (s == MQ_OK) s = read_tokenizer_eos(dir, c, error);
    json_decref(root);
    mq__free(path);
    return s;
}
