/* config.json: what is read, what is refused by name, and the rotary frequencies against published values. */
#include "base/mem.h"
#include "format/model_config.h"
#include "unit_files.h"

#include <jansson.h>

/* A config that is accepted, with `changes` (a JSON object) laid over it; a member that is changed to the string
 * "-absent-" is removed. */
static void write_config(const char *changes)
{
    json_error_t at;
    json_t *root = json_loads(
        "{\"model_type\":\"qwen3\",\"architectures\":[\"Qwen3ForCausalLM\"],\"vocab_size\":1000,\"hidden_size\":256,"
        "\"intermediate_size\":512,\"num_hidden_layers\":3,\"num_attention_heads\":8,\"num_key_value_heads\":2,"
        "\"head_dim\":128,\"max_position_embeddings\":4096,\"rms_norm_eps\":1e-6,\"rope_theta\":1000000,"
        "\"hidden_act\":\"silu\",\"tie_word_embeddings\":true,\"bos_token_id\":5,\"eos_token_id\":7}",
        0, &at);
    json_t *over = json_loads(changes, 0, &at), *value;
    const char *key;
    assert_non_null(root);
    if (!over) fail_msg("%s: %s", changes, at.text);
    json_object_foreach(over, key, value)
    {
        const char *text = json_string_value(value);
        if (text && strcmp(text, "-absent-") == 0)
            assert_int_equal(json_object_del(root, key), 0);
        else
            assert_int_equal(json_object_set(root, key, value), 0);
    }
    assert_int_equal(json_dump_file(root, unit_path("config.json"), 0), 0);
    json_decref(over);
    json_decref(root);
}

static mq_model_config read_config(const char *changes)
{
    mq_model_config config;
    mq_error error = {0};
    write_config(changes);
    if (mq__model_config_read(unit_dir, &config, &error) != MQ_OK) fail_msg("%s: %s", changes, error.text);
    return config;
}

static void refused(const char *changes, mq_status expected, const char *names)
{
    mq_model_config config;
    mq_error error = {0};
    write_config(changes);
    unit_refused(mq__model_config_read(unit_dir, &config, &error), expected, &error, names);
    assert_non_null(strstr(error.text, "config.json"));
}

static void test_sizes(void **state)
{
    (void)state;
    mq_model_config c = read_config("{}");
    assert_int_equal(c.architecture, MQ_ARCH_QWEN3);
    assert_string_equal(mq__architecture_name(c.architecture), "qwen3");
    assert_int_equal(c.vocab, 1000);
    assert_int_equal(c.width, 256);
    assert_int_equal(c.ffn, 512);
    assert_int_equal(c.layers, 3);
    assert_int_equal(c.heads, 8);
    assert_int_equal(c.kv_heads, 2);
    assert_int_equal(c.head_dim, 128); /* H*K is not D */
    assert_int_equal(c.max_positions, 4096);
    assert_true(c.norm_eps == 1e-6);
    assert_true(c.tied_head);
    assert_int_equal(c.bos, 5);
    assert_int_equal(c.rope.type, MQ_ROPE_DEFAULT);
    assert_true(c.rope.theta == 1e6);
    assert_int_equal(c.quant_method, MQ_QUANT_NONE);
    /* Defaults: one kv head per head, Qwen3's head_dim. */
    c = read_config("{\"num_key_value_heads\":null,\"head_dim\":\"-absent-\",\"tie_word_embeddings\":\"-absent-\","
                    "\"rope_theta\":\"-absent-\",\"bos_token_id\":null,\"eos_token_id\":null}");
    assert_int_equal(c.kv_heads, 8);
    assert_int_equal(c.head_dim, 128);
    assert_false(c.tied_head);
    assert_true(c.rope.theta == 10000);
    assert_int_equal(c.bos, -1);
    assert_int_equal(c.eos_count, 0);
}

static void test_what_architectures_have(void **state)
{
    (void)state;
    static const struct {
        const char *changes;
        bool qkv_bias, o_bias, mlp_bias, qk_norm;
    } cases[] = {
        {"{}", false, false, false, true},
        {"{\"attention_bias\":true}", true, true, false, true},
        {"{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"]}", false, false, false, false},
        {"{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],\"attention_bias\":true,\"mlp_bias\":"
         "true}",
         true, true, true, false},
        {"{\"model_type\":\"qwen2\",\"architectures\":[\"Qwen2ForCausalLM\"]}", true, false, false, false},
        {"{\"model_type\":\"qwen2\",\"architectures\":\"-absent-\",\"sliding_window\":4096,"
         "\"use_sliding_window\":false}",
         true, false, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const mq_model_config c = read_config(cases[i].changes);
        assert_int_equal(c.qkv_bias, cases[i].qkv_bias);
        assert_int_equal(c.o_bias, cases[i].o_bias);
        assert_int_equal(c.mlp_bias, cases[i].mlp_bias);
        assert_int_equal(c.qk_norm, cases[i].qk_norm);
    }
}

static void test_refused_architectures(void **state)
{
    (void)state;
    refused("{\"model_type\":\"gemma5\"}", MQ_UNSUPPORTED, "got gemma5");
    refused("{\"model_type\":\"qwen3_moe\"}", MQ_UNSUPPORTED, "Qwen3MoeForCausalLM");
    refused("{\"model_type\":\"-absent-\"}", MQ_UNSUPPORTED, "model_type");
    refused("{\"model_type\":3}", MQ_FORMAT, "model_type");
    refused("{\"architectures\":[\"Qwen3ForSequenceClassification\"]}", MQ_UNSUPPORTED,
            "Qwen3ForSequenceClassification");
    refused("{\"architectures\":[\"LlamaForCausalLM\"]}", MQ_UNSUPPORTED, "LlamaForCausalLM");
}

static void test_refused_sizes(void **state)
{
    (void)state;
    static const char *const names[] = {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                                        "num_attention_heads"};
    static const char *const values[] = {
        "0", "-1", "1e30", "1.5", "\"12\"", "\"-absent-\"", "[1]", "2147483648", "9223372036854775807", "true"};
    char changes[128];
    for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
        for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
            snprintf(changes, sizeof changes, "{\"%s\":%s}", names[n], values[v]);
            refused(changes, MQ_FORMAT, names[n]);
        }
    }
    refused("{\"num_key_value_heads\":0}", MQ_FORMAT, "num_key_value_heads");
    refused("{\"num_key_value_heads\":3}", MQ_UNSUPPORTED, "num_key_value_heads");
    refused("{\"num_key_value_heads\":16}", MQ_UNSUPPORTED, "num_key_value_heads");
    refused("{\"head_dim\":33}", MQ_UNSUPPORTED, "head_dim");
    refused("{\"head_dim\":0}", MQ_FORMAT, "head_dim");
    refused("{\"head_dim\":100000}", MQ_FORMAT, "head_dim");
    refused("{\"max_position_embeddings\":0}", MQ_FORMAT, "max_position_embeddings");
    refused("{\"rms_norm_eps\":-1e-6}", MQ_FORMAT, "rms_norm_eps");
    refused("{\"rms_norm_eps\":\"x\"}", MQ_FORMAT, "rms_norm_eps");
    refused("{\"tie_word_embeddings\":1}", MQ_FORMAT, "tie_word_embeddings");
    refused("{\"attention_bias\":\"yes\"}", MQ_FORMAT, "attention_bias");
}

static void test_refused_maths(void **state)
{
    (void)state;
    static const char *const numbers[] = {"partial_rotary_factor", "logits_scaling", "residual_multiplier",
                                          "embedding_multiplier"};
    static const char *const absent[] = {"attn_logit_softcapping", "final_logit_softcapping", "num_experts",
                                         "num_local_experts",      "attention_multiplier",    "query_pre_attn_scalar"};
    char changes[128];
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        snprintf(changes, sizeof changes, "{\"%s\":0.5}", numbers[i]);
        refused(changes, MQ_UNSUPPORTED, numbers[i]);
        snprintf(changes, sizeof changes, "{\"%s\":1.0}", numbers[i]);
        (void)read_config(changes);
        snprintf(changes, sizeof changes, "{\"%s\":null}", numbers[i]);
        (void)read_config(changes);
    }
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++) {
        snprintf(changes, sizeof changes, "{\"%s\":30.0}", absent[i]);
        refused(changes, MQ_UNSUPPORTED, absent[i]);
        snprintf(changes, sizeof changes, "{\"%s\":null}", absent[i]);
        (void)read_config(changes);
    }
    refused("{\"hidden_act\":\"gelu_pytorch_tanh\"}", MQ_UNSUPPORTED,
            "hidden_act: expected silu, got gelu_pytorch_tanh");
    refused("{\"hidden_act\":{}}", MQ_FORMAT, "hidden_act");
    refused("{\"use_sliding_window\":true}", MQ_UNSUPPORTED, "use_sliding_window");
    refused("{\"layer_types\":[\"full_attention\",\"sliding_attention\"]}", MQ_UNSUPPORTED, "layer_types[1]");
    refused("{\"layer_types\":\"full_attention\"}", MQ_FORMAT, "layer_types");
    refused("{\"layer_types\":[\"full_attention\",7]}", MQ_UNSUPPORTED, "layer_types[1]");
    (void)read_config("{\"layer_types\":[\"full_attention\",\"full_attention\"]}");
    refused("{\"model_type\":\"llama\",\"architectures\":\"-absent-\",\"sliding_window\":4096}", MQ_UNSUPPORTED,
            "sliding_window");
    (void)read_config("{\"model_type\":\"llama\",\"architectures\":\"-absent-\",\"sliding_window\":null}");
    refused("{\"rope_parameters\":{\"rope_type\":\"default\",\"partial_rotary_factor\":0.25}}", MQ_UNSUPPORTED,
            "partial_rotary_factor");
}

static void test_refused_rope(void **state)
{
    (void)state;
    static const char *const types[] = {"dynamic", "longrope", "su", "mrope", "proportional", ""};
    char changes[160];
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        snprintf(changes, sizeof changes, "{\"rope_scaling\":{\"type\":\"%s\",\"factor\":2.0}}", types[i]);
        refused(changes, MQ_UNSUPPORTED, "rope_type");
        snprintf(changes, sizeof changes, "{\"rope_parameters\":{\"rope_type\":\"%s\",\"factor\":2.0}}", types[i]);
        refused(changes, MQ_UNSUPPORTED, "rope_type");
    }
    refused("{\"rope_theta\":0}", MQ_FORMAT, "rope_theta");
    refused("{\"rope_theta\":-1e4}", MQ_FORMAT, "rope_theta");
    refused("{\"rope_theta\":\"1e4\"}", MQ_FORMAT, "rope_theta");
    refused("{\"rope_parameters\":{\"rope_theta\":0.5}}", MQ_FORMAT, "rope_theta");
    refused("{\"rope_scaling\":{\"rope_type\":\"linear\"}}", MQ_FORMAT, "factor");
    refused("{\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":0}}", MQ_FORMAT, "factor");
    refused("{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":-4}}", MQ_FORMAT, "factor");
    refused("{\"rope_scaling\":{\"rope_type\":7}}", MQ_FORMAT, "rope_type");
    refused("{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"high_freq_factor\":4}}", MQ_FORMAT,
            "low_freq_factor");
    refused("{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4}}",
            MQ_FORMAT, "high_freq_factor");
    refused("{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":0}}",
            MQ_FORMAT, "original_max_position_embeddings");
    refused("{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4,\"truncate\":\"no\"}}", MQ_FORMAT, "truncate");
    refused("{\"rope_scaling\":\"yarn\"}", MQ_FORMAT, "rope_scaling");
    refused("{\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\"}}}", MQ_UNSUPPORTED, "full_attention");
    refused("{\"rope_scaling\":[2.0]}", MQ_FORMAT, "rope_scaling");
    /* A factor that no rule takes, and two rules. */
    refused("{\"rope_scaling\":{\"factor\":4.0}}", MQ_UNSUPPORTED, "rope_type: expected one beside factor, got none");
    refused("{\"rope_parameters\":{\"rope_theta\":1e4,\"factor\":4.0}}", MQ_UNSUPPORTED, "rope_type");
    (void)read_config("{\"rope_scaling\":{\"factor\":1.0}}");
    refused("{\"rope_scaling\":{\"type\":\"yarn\",\"rope_type\":\"default\",\"factor\":4.0}}", MQ_UNSUPPORTED,
            "rope_type: expected the same as type, got default and yarn");
    (void)read_config("{\"rope_scaling\":{\"type\":\"yarn\",\"rope_type\":\"yarn\",\"factor\":4.0}}");
}

static void test_files_that_are_not_configs(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "[]", "{", "12", "{\"a\":1,\"a\":2}", "\xff\xfe{}"};
    mq_model_config config;
    mq_error error = {0};
    unit_refused(mq__model_config_read(unit_dir, &config, &error), MQ_IO, &error, "config.json");
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        unit_puts("config.json", texts[i]);
        unit_refused(mq__model_config_read(unit_dir, &config, &error), MQ_FORMAT, &error, "config.json");
    }
    char *deep = malloc(100001);
    assert_non_null(deep);
    memset(deep, '[', 100000);
    deep[100000] = '\0';
    unit_puts("config.json", deep);
    free(deep);
    unit_refused(mq__model_config_read(unit_dir, &config, &error), MQ_FORMAT, &error, "config.json");
    char *large = malloc(((size_t)5 << 20) + 1);
    assert_non_null(large);
    memset(large, ' ', (size_t)5 << 20);
    large[(size_t)5 << 20] = '\0';
    unit_puts("config.json", large);
    free(large);
    unit_refused(mq__model_config_read(unit_dir, &config, &error), MQ_LIMIT, &error, "config.json");
}

static void check_eos(const mq_model_config *c, const int32_t *ids, size_t count)
{
    assert_int_equal(c->eos_count, count);
    assert_memory_equal(c->eos, ids, count * sizeof *ids);
}

static void test_end_tokens(void **state)
{
    (void)state;
    mq_model_config c = read_config("{\"eos_token_id\":[7,9,7]}");
    check_eos(&c, (const int32_t[]){7, 9}, 2);
    /* Those of generation_config.json come on top. */
    unit_puts("generation_config.json", "{\"eos_token_id\":[9,11]}");
    c = read_config("{\"eos_token_id\":[7,9]}");
    check_eos(&c, (const int32_t[]){7, 9, 11}, 3);
    unit_puts("generation_config.json", "{\"eos_token_id\":8}");
    c = read_config("{}");
    check_eos(&c, (const int32_t[]){7, 8}, 2);
    unit_puts("generation_config.json", "{\"do_sample\":true}");
    c = read_config("{}");
    check_eos(&c, (const int32_t[]){7}, 1);
    c = read_config("{\"eos_token_id\":[1000,7,-1]}"); /* the vocabulary's size: what is never drawn ends nothing */
    check_eos(&c, (const int32_t[]){7}, 1);
    refused("{\"eos_token_id\":[7,\"8\"]}", MQ_FORMAT, "eos_token_id");
    refused("{\"eos_token_id\":\"</s>\"}", MQ_FORMAT, "eos_token_id");
    refused("{\"eos_token_id\":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]}", MQ_LIMIT, "eos_token_id");
    unit_puts("generation_config.json", "{\"eos_token_id\":[100000,8]}");
    c = read_config("{}");
    check_eos(&c, (const int32_t[]){7, 8}, 2);
    unit_puts("generation_config.json", "{");
    refused("{}", MQ_FORMAT, "generation_config.json");
    unit_remove(unit_path("generation_config.json"));
    /* A bos outside of the vocabulary is none. */
    assert_int_equal(read_config("{\"bos_token_id\":1000}").bos, -1);
    assert_int_equal(read_config("{\"bos_token_id\":-1}").bos, -1);
}

static void test_quantisation_methods(void **state)
{
    (void)state;
    assert_int_equal(read_config("{\"quantization_config\":{\"quant_method\":\"compressed-tensors\"}}").quant_method,
                     MQ_QUANT_COMPRESSED_TENSORS);
    assert_int_equal(read_config("{\"quantization_config\":{\"quant_method\":\"modelopt\"}}").quant_method,
                     MQ_QUANT_MODELOPT);
    refused("{\"quantization_config\":{\"quant_method\":\"gptq\"}}", MQ_UNSUPPORTED, "gptq");
    refused("{\"quantization_config\":{\"quant_method\":4}}", MQ_FORMAT, "quant_method");
    /* Rotations that are in the weights change nothing; one of activations would have to run. */
#define ROTATED(where)                                                                                                 \
    "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"transform_config\":{\"config_groups\":{"      \
    "\"R4\":{"                                                                                                         \
    "\"apply\":[{\"location\":\"weight_input\"},{\"location\":\"" where "\"}]}}}}}"
    (void)read_config(ROTATED("weight_output"));
    refused(ROTATED("input"), MQ_UNSUPPORTED, "transform_config: R4: expected transforms of weights, got one of input");
    (void)read_config("{\"quantization_config\":{\"transform_config\":{}}}");
}

/* ---- frequencies */

typedef struct frequency {
    int index;
    double value;
} frequency;

static void check_frequencies(const char *changes, const frequency *expected, size_t count, double factor)
{
    const mq_model_config c = read_config(changes);
    float inv_freq[512], got;
    mq__rope_frequencies(&c.rope, c.rotary_dim, inv_freq, &got);
    assert_true(fabs((double)got / factor - 1) < 1e-6);
    for (size_t i = 0; i < count; i++) {
        const double relative = (double)inv_freq[expected[i].index] / expected[i].value - 1;
        if (!(fabs(relative) < 1e-6)) {
            fail_msg("frequency %d: expected %.9g, got %.9g", expected[i].index, expected[i].value,
                     (double)inv_freq[expected[i].index]);
        }
    }
}

#define CHECK_FREQUENCIES(changes, factor, ...)                                                                        \
    check_frequencies(changes, (const frequency[]){__VA_ARGS__},                                                       \
                      sizeof((const frequency[]){__VA_ARGS__}) / sizeof(frequency), factor)

/* Frequencies of Llama 3.1's rule. */
static void test_llama3_frequencies(void **state)
{
    (void)state;
    static const char old_style[] =
        "{\"head_dim\":128,\"rope_theta\":500000.0,\"max_position_embeddings\":131072,\"rope_scaling\":{"
        "\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
        "\"original_max_position_embeddings\":8192}}";
    static const char new_style[] =
        "{\"head_dim\":128,\"rope_theta\":\"-absent-\",\"max_position_embeddings\":131072,\"rope_parameters\":{"
        "\"rope_theta\":500000.0,\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
        "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192}}";
    for (int style = 0; style < 2; style++) {
        CHECK_FREQUENCIES(style ? new_style : old_style, 1, {0, 1}, {10, .128687373}, {20, .0165604401},
                          {28, .00321144599}, {29, .00216657076}, {30, .00137189357}, {32, .000524846161},
                          {34, .000178507813}, {35, 9.55621235e-05}, {40, 3.4281022e-05}, {63, 3.06892599e-07});
    }
    CHECK_FREQUENCIES("{\"head_dim\":64,\"rope_theta\":500000,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":32,"
                      "\"low_freq_factor\":1,\"high_freq_factor\":4,\"original_max_position_embeddings\":8192}}",
                      1, {0, 1}, {10, .0165604401}, {14, .00321144599}, {15, .00129054793}, {16, .000429556797},
                      {17, 9.7082878e-05}, {18, 1.94616382e-05}, {20, 8.57025549e-06}, {31, 9.41830673e-08});
}

/* Frequencies of YaRN's rule. */
static void test_yarn_frequencies(void **state)
{
    (void)state;
    static const char old_style[] =
        "{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":32768}}";
    static const char older_style[] =
        "{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":32768}}";
    static const char new_style[] =
        "{\"rope_parameters\":{\"rope_type\":\"yarn\",\"rope_theta\":1000000,\"factor\":4.0,"
        "\"original_max_position_embeddings\":32768},\"rope_theta\":\"-absent-\"}";
    const char *const styles[] = {old_style, older_style, new_style};
    for (size_t i = 0; i < sizeof styles / sizeof styles[0]; i++) {
        CHECK_FREQUENCIES(styles[i], 1.138629436, {0, 1}, {1, .805842188}, {20, .0133352143}, {23, .00697830585},
                          {24, .00537532149}, {30, .00106436098}, {40, 4.44569853e-05}, {41, 3.58253143e-05},
                          {46, 1.21741881e-05}, {63, 3.1023444e-07});
    }
    /* Without the original length, the model's own is meant. */
    CHECK_FREQUENCIES("{\"max_position_embeddings\":32768,\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0}}",
                      1.138629436, {30, .00106436098});
    CHECK_FREQUENCIES("{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0,\"attention_factor\":1.5,"
                      "\"original_max_position_embeddings\":32768}}",
                      1.5, {30, .00106436098});
    CHECK_FREQUENCIES("{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":40.0,\"mscale\":0.707,"
                      "\"mscale_all_dim\":1.0,\"original_max_position_embeddings\":4096}}",
                      (0.0707 * log(40) + 1) / (0.1 * log(40) + 1), {0, 1});
}

static void test_plain_frequencies(void **state)
{
    (void)state;
    CHECK_FREQUENCIES("{}", 1, {0, 1}, {1, pow(1e6, -2.0 / 128)}, {63, pow(1e6, -126.0 / 128)});
    CHECK_FREQUENCIES("{\"rope_scaling\":null}", 1, {1, pow(1e6, -2.0 / 128)});
    CHECK_FREQUENCIES("{\"rope_scaling\":{\"rope_type\":\"default\"}}", 1, {1, pow(1e6, -2.0 / 128)});
    CHECK_FREQUENCIES("{\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5}}", 1, {0, 0.4},
                      {63, pow(1e6, -126.0 / 128) / 2.5});
    /* A scaling beside rope_parameters applies, with their base. */
    CHECK_FREQUENCIES("{\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":10000},"
                      "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0}}",
                      1, {0, 0.5}, {63, pow(1e4, -126.0 / 128) / 2});
    CHECK_FREQUENCIES("{\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":4,\"rope_theta\":10000},"
                      "\"rope_scaling\":{\"type\":\"linear\",\"factor\":4.0}}",
                      1, {63, pow(1e4, -126.0 / 128) / 4});
}

static void test_two_scalings(void **state)
{
    (void)state;
    refused("{\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":4},"
            "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}",
            MQ_UNSUPPORTED, "rope_scaling: expected the same scaling as rope_parameters");
    refused("{\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":4},"
            "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4}}",
            MQ_UNSUPPORTED, "got yarn beside linear");
    refused("{\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":10000},"
            "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2,\"rope_theta\":500000}}",
            MQ_UNSUPPORTED, "rope_theta: expected one value, got 10000 and 500000");
    /* Neither is left out because of what it is. */
    refused("{\"rope_parameters\":{\"rope_type\":\"default\"},\"rope_scaling\":\"yarn\"}", MQ_FORMAT, "rope_scaling");
    refused("{\"rope_parameters\":\"default\",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}", MQ_FORMAT,
            "rope_parameters");
    refused("{\"rope_parameters\":{\"rope_type\":\"default\"},\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}}",
            MQ_UNSUPPORTED, "dynamic");
}

/* How many positions a scaling makes usable: vLLM's rule. */
static void test_scaled_positions(void **state)
{
    (void)state;
    static const struct {
        const char *changes;
        uint32_t positions, original;
    } cases[] = {
        {"{}", 4096, 0},
        {"{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":4096}}", 16384,
         4096},
        {"{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2.5}}", 10240, 4096},
        /* Qwen3's own: 40,960 positions, of which 8,192 are for the answer. */
        {"{\"max_position_embeddings\":40960,\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0,"
         "\"original_max_position_embeddings\":32768}}",
         131072, 32768},
        /* Written with the stretched number. */
        {"{\"max_position_embeddings\":131072,\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":4.0,"
         "\"original_max_position_embeddings\":32768}}",
         131072, 32768},
        {"{\"original_max_position_embeddings\":2048,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4}}", 8192, 2048},
        {"{\"rope_scaling\":{\"type\":\"linear\",\"factor\":4.0}}", 16384, 4096},
        {"{\"max_position_embeddings\":131072,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":32,"
         "\"low_freq_factor\":1,\"high_freq_factor\":4,\"original_max_position_embeddings\":8192}}",
         131072, 8192},
        /* Attention in pieces: the first. */
        {"{\"dual_chunk_attention_config\":{\"chunk_size\":2048,\"local_size\":64}}", 1984, 0},
        {"{\"dual_chunk_attention_config\":{\"chunk_size\":8192}}", 4096, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const mq_model_config c = read_config(cases[i].changes);
        if (c.max_positions != cases[i].positions) fail_msg("%s: %u positions", cases[i].changes, c.max_positions);
        assert_int_equal(c.rope.original_positions, cases[i].original);
    }
    refused("{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":100000}}", MQ_FORMAT, "factor");
    refused("{\"rope_scaling\":{\"type\":\"linear\",\"factor\":0.0001}}", MQ_FORMAT, "factor");
    refused("{\"dual_chunk_attention_config\":true}", MQ_FORMAT, "chunk_size");
    refused("{\"rope_parameters\":{\"llama_4_scaling_beta\":0.1}}", MQ_UNSUPPORTED, "llama_4_scaling_beta");
}

/* The end token of the tokenizer ends, too. */
static void test_tokenizer_end_token(void **state)
{
    (void)state;
    unit_puts("tokenizer_config.json",
              "{\"model_max_length\":1000000000000000019884624838656,\"eos_token\":\"<end>\","
              "\"added_tokens_decoder\":{\"11\":{\"content\":\"<start>\"},\"12\":{\"content\":\"<end>\"}}}");
    mq_model_config c = read_config("{}");
    check_eos(&c, (const int32_t[]){7, 12}, 2);
    c = read_config("{\"eos_token_id\":[12,7]}");
    check_eos(&c, (const int32_t[]){12, 7}, 2);
    unit_puts("tokenizer_config.json", "{\"eos_token\":{\"content\":\"<end>\",\"lstrip\":false}}");
    unit_puts("tokenizer.json", "{\"added_tokens\":[{\"id\":3,\"content\":\"x\"},{\"id\":13,\"content\":\"<end>\"}],"
                                "\"model\":{\"vocab\":{\"<end>\":5,\"</s>\":2}}}");
    c = read_config("{}");
    check_eos(&c, (const int32_t[]){7, 13}, 2);
    unit_puts("tokenizer_config.json", "{\"eos_token\":\"</s>\"}");
    c = read_config("{}");
    check_eos(&c, (const int32_t[]){7, 2}, 2);
    unit_puts("tokenizer.json", "{\"model\":{\"vocab\":[[\"<unk>\",0],[\"</s>\",-1.5]]}}");
    c = read_config("{}");
    check_eos(&c, (const int32_t[]){7, 1}, 2);
    /* Tokens that the tokenizer or the model does not have are none. */
    unit_puts("tokenizer_config.json", "{\"eos_token\":\"<gone>\"}");
    c = read_config("{}");
    check_eos(&c, (const int32_t[]){7}, 1);
    unit_puts("tokenizer_config.json",
              "{\"eos_token\":\"<far>\",\"added_tokens_decoder\":{\"1000\":{\"content\":\"<far>\"}}}");
    c = read_config("{}");
    check_eos(&c, (const int32_t[]){7}, 1);
    unit_puts("tokenizer_config.json", "{\"eos_token\":null}");
    c = read_config("{}");
    check_eos(&c, (const int32_t[]){7}, 1);
    unit_puts("tokenizer_config.json", "{\"eos_token\":5}");
    refused("{}", MQ_FORMAT, "eos_token");
}

/* A file that is there and cannot be read is no file that was left out. */
static void test_side_files_that_cannot_be_read(void **state)
{
    (void)state;
    static const char *const names[] = {"generation_config.json", "tokenizer_config.json"};
    for (size_t i = 0; i < 2; i++) {
        (void)read_config("{}");
        assert_int_equal(symlink("nowhere", unit_path(names[i])), 0);
        refused("{}", MQ_IO, names[i]);
        unit_remove(unit_path(names[i]));
        assert_int_equal(mkdir(unit_path(names[i]), 0755), 0);
        refused("{}", MQ_IO, names[i]);
        unit_remove(unit_path(names[i]));
        unit_puts(names[i], "{}");
        assert_int_equal(chmod(unit_path(names[i]), 0), 0);
        if (geteuid() != 0) refused("{}", MQ_IO, names[i]); /* root reads everything */
        unit_remove(unit_path(names[i]));
    }
}

static void test_suggested_sampling(void **state)
{
    (void)state;
    mq_model_config c = read_config("{}");
    assert_int_equal(c.suggested_fields, 0);
    assert_true(c.suggested.temperature == 0 && c.suggested.top_p == 1 && c.suggested.repetition_penalty == 1);
    unit_puts("generation_config.json", "{\"do_sample\":true,\"temperature\":0.6,\"top_k\":20,\"top_p\":0.95,"
                                        "\"min_p\":0.125,\"repetition_penalty\":1.05}");
    c = read_config("{}");
    assert_int_equal(c.suggested_fields, MQ_SUGGESTS_TEMPERATURE | MQ_SUGGESTS_TOP_K | MQ_SUGGESTS_TOP_P |
                                             MQ_SUGGESTS_MIN_P | MQ_SUGGESTS_REPETITION_PENALTY);
    assert_true(c.suggested.temperature == 0.6f && c.suggested.top_k == 20 && c.suggested.top_p == 0.95f);
    assert_true(c.suggested.min_p == 0.125f && c.suggested.repetition_penalty == 1.05f);
    unit_puts("generation_config.json", "{\"do_sample\":false,\"temperature\":0.6,\"top_p\":null}");
    c = read_config("{}");
    assert_int_equal(c.suggested_fields, MQ_SUGGESTS_TEMPERATURE);
    assert_true(c.suggested.temperature == 0 && c.suggested.top_p == 1);
    unit_puts("generation_config.json", "{\"do_sample\":true,\"top_k\":-1}");
    c = read_config("{}");
    assert_int_equal(c.suggested_fields, MQ_SUGGESTS_TEMPERATURE | MQ_SUGGESTS_TOP_K);
    assert_true(c.suggested.temperature == 1 && c.suggested.top_k == 0);
    unit_puts("generation_config.json", "{\"top_p\":0.8}");
    c = read_config("{}");
    assert_int_equal(c.suggested_fields, MQ_SUGGESTS_TOP_P);
    assert_true(c.suggested.temperature == 0);
    unit_puts("generation_config.json", "{\"temperature\":-1}");
    refused("{}", MQ_FORMAT, "temperature");
    unit_puts("generation_config.json", "{\"top_p\":\"0.8\"}");
    refused("{}", MQ_FORMAT, "top_p");
    unit_puts("generation_config.json", "{\"do_sample\":\"yes\"}");
    refused("{}", MQ_FORMAT, "do_sample");
}

static void test_allocation_failures(void **state)
{
    (void)state;
    unit_puts("generation_config.json", "{\"eos_token_id\":8}");
    write_config("{}");
    for (unsigned long n = 1;; n++) {
        mq_model_config config;
        mq_error error = {0};
        (void)mq__alloc_fail_at(n);
        const mq_status status = mq__model_config_read(unit_dir, &config, &error);
        const unsigned long made = mq__alloc_fail_at(0);
        if (status == MQ_OK) {
            assert_true(made < n && n > 2);
            return;
        }
        unit_refused(status, MQ_NO_MEMORY, &error, NULL);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, unit_setup, unit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_sizes),
        TEST(test_what_architectures_have),
        TEST(test_refused_architectures),
        TEST(test_refused_sizes),
        TEST(test_refused_maths),
        TEST(test_refused_rope),
        TEST(test_files_that_are_not_configs),
        TEST(test_end_tokens),
        TEST(test_quantisation_methods),
        TEST(test_llama3_frequencies),
        TEST(test_yarn_frequencies),
        TEST(test_plain_frequencies),
        TEST(test_two_scalings),
        TEST(test_scaled_positions),
        TEST(test_tokenizer_end_token),
        TEST(test_side_files_that_cannot_be_read),
        TEST(test_suggested_sampling),
        TEST(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
