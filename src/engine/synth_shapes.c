/* Shapes, as the published config.json of each model has them, and the JSON files of a synthetic checkpoint. */
#include "engine/synth_shapes.h"

#include <string.h>

/* clang-format off */
#define ATTENTION 0, {0, 0, 0, 0, 0}
static const mq_synth_shape shapes[] = {
    /* name            architecture    L     D      F   H  G    K       V     max  tied  theta   eps  llama3 yarn, experts: E, per token, M, attention every, Gated DeltaNet: Hk, Hv, dk, dv, taps */
    {"qwen3-0.6b",    MQ_ARCH_QWEN3, 28, 1024,  3072, 16, 8, 128, 151936,  40960, true,  1e6, 1e-6,  0, 0, 0, 0, 0, ATTENTION},
    {"qwen3-1.7b",    MQ_ARCH_QWEN3, 28, 2048,  6144, 16, 8, 128, 151936,  40960, true,  1e6, 1e-6,  0, 0, 0, 0, 0, ATTENTION},
    {"qwen3-4b",      MQ_ARCH_QWEN3, 36, 2560,  9728, 32, 8, 128, 151936,  40960, true,  1e6, 1e-6,  0, 0, 0, 0, 0, ATTENTION},
    {"qwen3-8b",      MQ_ARCH_QWEN3, 36, 4096, 12288, 32, 8, 128, 151936,  40960, false, 1e6, 1e-6,  0, 0, 0, 0, 0, ATTENTION},
    {"qwen3-14b",     MQ_ARCH_QWEN3, 40, 5120, 17408, 40, 8, 128, 151936,  40960, false, 1e6, 1e-6,  0, 0, 0, 0, 0, ATTENTION},
    {"qwen3-32b",     MQ_ARCH_QWEN3, 64, 5120, 25600, 64, 8, 128, 151936,  40960, false, 1e6, 1e-6,  0, 0, 0, 0, 0, ATTENTION},
    {"qwen2.5-0.5b",  MQ_ARCH_QWEN2, 24,  896,  4864, 14, 2,  64, 151936,  32768, true,  1e6, 1e-6,  0, 0, 0, 0, 0, ATTENTION},
    {"qwen2.5-1.5b",  MQ_ARCH_QWEN2, 28, 1536,  8960, 12, 2, 128, 151936,  32768, true,  1e6, 1e-6,  0, 0, 0, 0, 0, ATTENTION},
    {"qwen2.5-3b",    MQ_ARCH_QWEN2, 36, 2048, 11008, 16, 2, 128, 151936,  32768, true,  1e6, 1e-6,  0, 0, 0, 0, 0, ATTENTION},
    {"qwen2.5-7b",    MQ_ARCH_QWEN2, 28, 3584, 18944, 28, 4, 128, 152064,  32768, false, 1e6, 1e-6,  0, 0, 0, 0, 0, ATTENTION},
    {"llama-3.2-1b",  MQ_ARCH_LLAMA, 16, 2048,  8192, 32, 8,  64, 128256, 131072, true,  5e5, 1e-5, 32, 0, 0, 0, 0, ATTENTION},
    {"llama-3.2-3b",  MQ_ARCH_LLAMA, 28, 3072,  8192, 24, 8, 128, 128256, 131072, true,  5e5, 1e-5, 32, 0, 0, 0, 0, ATTENTION},
    {"llama-3.1-8b",  MQ_ARCH_LLAMA, 32, 4096, 14336, 32, 8, 128, 128256, 131072, false, 5e5, 1e-5,  8, 0, 0, 0, 0, ATTENTION},
    {"qwen3-30b-a3b", MQ_ARCH_QWEN3_MOE, 48, 2048, 6144, 32, 4, 128, 151936, 40960, false, 1e6, 1e-6, 0, 0, 128, 8, 768, ATTENTION},
    {"qwen3.5-4b",    MQ_ARCH_QWEN3_5, 32, 2560, 9216, 16, 4, 256, 248320, 262144, true, 1e7, 1e-6, 0, 0, 0, 0, 0, 4, {16, 32, 128, 128, 4}},
    {"qwen3.5-9b",    MQ_ARCH_QWEN3_5, 32, 4096, 12288, 16, 4, 256, 248320, 262144, false, 1e7, 1e-6, 0, 0, 0, 0, 0, 4, {16, 32, 128, 128, 4}},
    {"qwen3.5-35b-a3b", MQ_ARCH_QWEN3_5_MOE, 40, 2048, 512, 16, 2, 256, 248320, 262144, false, 1e7, 1e-6, 0, 0, 256, 8, 512, 4, {16, 32, 128, 128, 4}},
    {"gemma-4-31b",     MQ_ARCH_GEMMA4, 60, 5376, 21504, 32, 16, 256, 262144, 262144, true, 1e4, 1e-6, 0, 0, 0, 0, 0, ATTENTION},
    {"gemma-4-26b-a4b", MQ_ARCH_GEMMA4, 30, 2816,  2112, 16,  8, 256, 262144, 262144, true, 1e4, 1e-6, 0, 0, 128, 8, 704, ATTENTION},
    /* widths that are no multiples of 16 or 32, H*K != D, uneven vocabularies, every kind of scaling */
    {"tiny-llama",    MQ_ARCH_LLAMA,  3,   72,   104,  4, 2,  20,    301,   1024, false, 1e4, 1e-5,  4, 0, 0, 0, 0, ATTENTION},
    {"tiny-qwen2",    MQ_ARCH_QWEN2,  3,   56,   120,  7, 1,   8,    277,   1024, true,  1e6, 1e-6,  0, 4, 0, 0, 0, ATTENTION},
    {"tiny-qwen3",    MQ_ARCH_QWEN3,  3,   80,   152,  6, 2,  24,    333,   1024, true,  1e6, 1e-6,  0, 0, 0, 0, 0, ATTENTION},
    {"tiny-gemma4",     MQ_ARCH_GEMMA4, 3,   80,   152,  6, 3,  24,    333,   1024, true,  1e4, 1e-6,  0, 0, 0, 0, 0, ATTENTION},
    {"tiny-gemma4-moe", MQ_ARCH_GEMMA4, 3,   80,   152,  6, 3,  24,    333,   1024, true,  1e4, 1e-6,  0, 0, 7, 3, 48, ATTENTION},
    {"tiny-qwen3-moe", MQ_ARCH_QWEN3_MOE, 3, 80,  152,  6, 2,  24,    333,   1024, false, 1e6, 1e-6,  0, 0, 7, 3, 48, ATTENTION},
    {"tiny-qwen3.5",  MQ_ARCH_QWEN3_5, 4, 80, 152, 4, 2, 24, 333, 1024, true, 1e6, 1e-6, 0, 0, 0, 0, 0, 2, {2, 4, 32, 16, 4}},
    {"tiny-qwen3.5-moe", MQ_ARCH_QWEN3_5_MOE, 3, 80, 56, 6, 2, 24, 333, 1024, false, 1e6, 1e-6, 0, 4, 7, 3, 48, 2, {2, 6, 16, 32, 3}},
};
/* What Gemma 4 has beside that: the window of most layers, and of every sixth, which is global, kv heads and width. */
static const struct gemma_shape {
    const char *name;
    uint32_t window, global_kv_heads, global_head_dim;
} gemma_shapes[] = {
    {"gemma-4-31b", 1024, 4, 512},
    {"gemma-4-26b-a4b", 1024, 2, 512},
    {"tiny-gemma4", 37, 2, 40},
    {"tiny-gemma4-moe", 37, 2, 40},
};
/* clang-format on */

const mq_synth_shape *mq__synth_shape_at(size_t i)
{
    return i < sizeof shapes / sizeof shapes[0] ? &shapes[i] : NULL;
}

const mq_synth_shape *mq__synth_shape_find(const char *name)
{
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        if (strcmp(name, shapes[i].name) == 0) return &shapes[i];
    }
    return NULL;
}

static json_t *rope_of(const mq_synth_shape *s)
{
    if (s->llama3_factor > 0) {
        return json_pack("{ss sf sf sf si}", "rope_type", "llama3", "factor", s->llama3_factor, "low_freq_factor", 1.0,
                         "high_freq_factor", 4.0, "original_max_position_embeddings",
                         s->max_positions > 8192 ? 8192 : (int)s->max_positions / 4);
    }
    if (s->yarn_factor > 0) {
        return json_pack("{ss sf si}", "rope_type", "yarn", "factor", s->yarn_factor,
                         "original_max_position_embeddings", (int)(s->max_positions / s->yarn_factor));
    }
    return json_null();
}

static json_t *layer_types_of(uint32_t layers)
{
    json_t *types = json_array();
    for (uint32_t l = 0; l < layers; l++) {
        const bool global = (l + 1) % 6 == 0 || l + 1 == layers;
        json_array_append_new(types, json_string(global ? "full_attention" : "sliding_attention"));
    }
    return types;
}

/* 0: all are set. */
static int set_gemma_fields(json_t *config, const mq_synth_shape *s, uint32_t layers)
{
    static const char *const others[] = {"hidden_act", "rope_theta", "rope_scaling"};
    const struct gemma_shape *g = gemma_shapes;
    while (strcmp(g->name, s->name) != 0) {
        g++;
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        json_object_del(config, others[i]);
    }
    json_t *own = json_pack(
        "{s[s] ss ss sb si si si sf so sn si si s{s{ss sf} s{ss sf sf}}}", "architectures", "Gemma4ForCausalLM",
        "model_type", "gemma4_text", "hidden_activation", "gelu_pytorch_tanh", "attention_k_eq_v", 1, "sliding_window",
        (int)g->window, "num_global_key_value_heads", (int)g->global_kv_heads, "global_head_dim",
        (int)g->global_head_dim, "final_logit_softcapping", 30.0, "layer_types", layer_types_of(layers),
        "use_bidirectional_attention", "num_kv_shared_layers", 0, "hidden_size_per_layer_input", 0, "rope_parameters",
        "sliding_attention", "rope_type", "default", "rope_theta", 1e4, "full_attention", "rope_type", "proportional",
        "rope_theta", 1e6, "partial_rotary_factor", 0.25);
    int failed = !own || json_object_update(config, own) != 0;
    json_decref(own);
    if (failed || !s->experts) return failed;
    json_t *experts = json_pack("{sb si si si}", "enable_moe_block", 1, "num_experts", (int)s->experts, "top_k_experts",
                                (int)s->experts_per_token, "moe_intermediate_size", (int)s->expert_ffn);
    failed = !experts || json_object_update(config, experts) != 0;
    json_decref(experts);
    return failed;
}

static int set_delta_fields(json_t *config, const mq_synth_shape *s)
{
    const mq_delta_sizes *d = &s->delta;
    json_t *delta = json_pack("{si si si si si si sf}", "full_attention_interval", (int)s->attention_interval,
                              "linear_num_key_heads", (int)d->key_heads, "linear_num_value_heads", (int)d->value_heads,
                              "linear_key_head_dim", (int)d->key_dim, "linear_value_head_dim", (int)d->value_dim,
                              "linear_conv_kernel_dim", (int)d->taps, "partial_rotary_factor", 0.25);
    int failed = !delta || json_object_update(config, delta) != 0;
    json_decref(delta);
    if (s->experts) {
        failed |= json_object_set_new(config, "shared_expert_intermediate_size", json_integer((json_int_t)s->ffn));
    }
    return failed;
}

/* Fields that only some architectures have; 0: all are set. */
static int set_own_fields(json_t *config, const mq_synth_shape *s, uint32_t layers)
{
    int failed = 0;
    if (s->architecture == MQ_ARCH_GEMMA4) return set_gemma_fields(config, s, layers);
    if (s->architecture != MQ_ARCH_QWEN2) failed |= json_object_set_new(config, "attention_bias", json_false());
    if (s->architecture == MQ_ARCH_LLAMA)
        failed |= json_object_set_new(config, "mlp_bias", json_false());
    else
        failed |= json_object_set_new(config, "use_sliding_window", json_false());
    if (s->attention_interval) failed |= set_delta_fields(config, s);
    if (!s->experts) return failed;
    json_t *experts = json_pack("{si si si sb si s[]}", "num_experts", (int)s->experts, "num_experts_per_tok",
                                (int)s->experts_per_token, "moe_intermediate_size", (int)s->expert_ffn,
                                "norm_topk_prob", 1, "decoder_sparse_step", 1, "mlp_only_layers");
    failed |= !experts || json_object_update(config, experts) != 0;
    json_decref(experts);
    return failed;
}

json_t *mq__synth_config(const mq_synth_shape *s, uint32_t layers)
{
    json_t *rope = rope_of(s);
    json_t *config =
        json_pack("{s[s] ss si si si si si si si si sf sf so sb ss ss sb si si sf}", "architectures",
                  mq__architecture_class(s->architecture), "model_type", mq__architecture_text_name(s->architecture),
                  "vocab_size", (int)s->vocab, "hidden_size", (int)s->width, "intermediate_size", (int)s->ffn,
                  "num_hidden_layers", (int)layers, "num_attention_heads", (int)s->heads, "num_key_value_heads",
                  (int)s->kv_heads, "head_dim", (int)s->head_dim, "max_position_embeddings", (int)s->max_positions,
                  "rms_norm_eps", s->eps, "rope_theta", s->theta, "rope_scaling", rope, "tie_word_embeddings", s->tied,
                  "torch_dtype", "bfloat16", "hidden_act", "silu", "use_cache", 1, "bos_token_id", MQ_SYNTH_END_OF_TEXT,
                  "eos_token_id", MQ_SYNTH_IM_END, "attention_dropout", 0.0);
    if (config && set_own_fields(config, s, layers) == 0) return config;
    json_decref(config);
    return NULL;
}

json_t *mq__synth_generation_config(void)
{
    return json_pack("{si s[ii] sb}", "bos_token_id", MQ_SYNTH_END_OF_TEXT, "eos_token_id", MQ_SYNTH_IM_END,
                     MQ_SYNTH_END_OF_TEXT, "do_sample", 0);
}

/* The character that stands for a byte in byte-level BPE files, as UTF-8: printable bytes of Latin-1 stand for
 * themselves, the others for U+0100 and up in ascending order. */
static size_t byte_character(unsigned byte, char utf8[3])
{
    unsigned code = byte, unprintable = 0;
    for (unsigned b = 0; b <= byte; b++) {
        const int printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        if (!printable) unprintable++;
        if (b == byte && !printable) code = 0x100 + unprintable - 1;
    }
    if (code < 0x80) {
        utf8[0] = (char)code;
        utf8[1] = '\0';
        return 1;
    }
    utf8[0] = (char)(0xc0 | code >> 6);
    utf8[1] = (char)(0x80 | (code & 0x3f));
    utf8[2] = '\0';
    return 2;
}

static const char *const specials[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};

json_t *mq__synth_tokenizer(void)
{
    json_t *vocab = json_object(), *added = json_array();
    int failed = !vocab || !added;
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[3];
        const size_t bytes = byte_character(byte, text);
        failed |= json_object_setn_new(vocab, text, bytes, json_integer((json_int_t)byte));
    }
    for (int i = 0; i < MQ_SYNTH_TOKENS - 256; i++) {
        failed |= json_array_append_new(added, json_pack("{si ss sb sb sb sb sb}", "id", 256 + i, "content",
                                                         specials[i], "single_word", 0, "lstrip", 0, "rstrip", 0,
                                                         "normalized", 0, "special", 1));
    }
    if (failed) {
        json_decref(vocab);
        json_decref(added);
        return NULL;
    }
    return json_pack("{ss sn sn so sn s{ss sb sb sb} sn s{ss sb sb sb} s{ss sn sn sn sn sb sb sb so s[]}}", "version",
                     "1.0", "truncation", "padding", "added_tokens", added, "normalizer", "pre_tokenizer", "type",
                     "ByteLevel", "add_prefix_space", 0, "trim_offsets", 0, "use_regex", 1, "post_processor", "decoder",
                     "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 0, "use_regex", 1, "model", "type",
                     "BPE", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                     "byte_fallback", 0, "ignore_merges", 0, "vocab", vocab, "merges");
}

json_t *mq__synth_tokenizer_config(const mq_synth_shape *s)
{
    static const char template[] =
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    return json_pack("{ss sn ss ss sb sb si ss}", "tokenizer_class", "PreTrainedTokenizerFast", "bos_token",
                     "eos_token", specials[2], "pad_token", specials[0], "add_bos_token", 0,
                     "clean_up_tokenization_spaces", 0, "model_max_length", (int)s->max_positions, "chat_template",
                     template);
}
