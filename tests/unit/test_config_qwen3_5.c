/* config.json of Qwen3.5: nested in text_config or flat, kinds of layers, partial rotary with YaRN, and what is refused. */
#include "unit_files.h"

#include "format/model_config.h"

#define TEXT                                                                                                           \
    "\"vocab_size\":248320,\"hidden_size\":4096,\"intermediate_size\":12288,\"num_hidden_layers\":32,"                 \
    "\"num_attention_heads\":16,\"num_key_value_heads\":4,\"head_dim\":256,\"hidden_act\":\"silu\","                   \
    "\"max_position_embeddings\":262144,\"rms_norm_eps\":1e-6,\"linear_num_key_heads\":16,"                            \
    "\"linear_num_value_heads\":32,\"linear_key_head_dim\":128,\"linear_value_head_dim\":128,"                         \
    "\"linear_conv_kernel_dim\":4,\"mtp_num_hidden_layers\":1"
#define ROPE                                                                                                           \
    "\"rope_parameters\":{\"rope_theta\":1e7,\"partial_rotary_factor\":0.25,\"mrope_section\":[11,11,10],"             \
    "\"mrope_interleaved\":true,\"rope_type\":\"default\"}"
#define OUTER "\"model_type\":\"qwen3_5\",\"architectures\":[\"Qwen3_5ForConditionalGeneration\"]"
#define FLAT  "\"model_type\":\"qwen3_5_text\",\"architectures\":[\"Qwen3_5ForCausalLM\"]"

static mq_status parse(const char *text, mq_model_config *c, mq_error *error)
{
    json_error_t at;
    json_t *root = json_loads(text, 0, &at);
    if (!root) fail_msg("%s", at.text);
    const mq_status status = mq__model_config_parse(root, c, error);
    json_decref(root);
    return status;
}

static mq_model_config accepted(const char *text)
{
    mq_model_config c;
    mq_error error = {0};
    if (parse(text, &c, &error) != MQ_OK) fail_msg("%s", error.text);
    return c;
}

static void refused(const char *text, mq_status status, const char *names)
{
    mq_model_config c;
    mq_error error = {0};
    unit_refused(parse(text, &c, &error), status, &error, names);
}

static void check_9b(const mq_model_config *c)
{
    assert_int_equal(c->architecture, MQ_ARCH_QWEN3_5);
    assert_int_equal(c->rotary_dim, 64);
    assert_true(c->output_gate && c->qk_norm && !c->qkv_bias);
    assert_int_equal(mq__delta_channels(&c->delta), 8192);
    for (uint32_t l = 0; l < 32; l++) {
        assert_int_equal(c->layer[l].mixer, l % 4 == 3 ? MQ_MIXER_ATTENTION : MQ_MIXER_GATED_DELTA);
    }
}

static void test_nested_and_flat(void **state)
{
    (void)state;
    mq_model_config c = accepted("{" OUTER ",\"tie_word_embeddings\":true,\"vision_config\":{},\"text_config\":{"
                                 "\"model_type\":\"qwen3_5_text\",\"eos_token_id\":7," TEXT "," ROPE "}}");
    check_9b(&c);
    assert_true(c.tied_head); /* said outside only */
    assert_int_equal(c.eos[0], 7);
    c = accepted("{" FLAT "," TEXT "," ROPE "}");
    check_9b(&c);
    assert_false(c.tied_head);
    assert_string_equal(mq__architecture_name(c.architecture), "qwen3_5");
}

static void test_kinds(void **state)
{
    (void)state;
    mq_model_config c = accepted("{" FLAT "," TEXT ",\"num_hidden_layers\":2,\"layer_types\":[\"full_attention\","
                                 "\"linear_attention\"]}");
    assert_int_equal(c.layer[0].mixer, MQ_MIXER_ATTENTION);
    assert_int_equal(c.layer[1].mixer, MQ_MIXER_GATED_DELTA);
    assert_int_equal(c.rotary_dim, 64); /* a quarter where it says nothing */
    refused("{" FLAT "," TEXT ",\"num_hidden_layers\":2,\"layer_types\":[\"full_attention\"]}", MQ_FORMAT,
            "layer_types");
    refused("{" FLAT "," TEXT ",\"layer_types\":[\"sliding_attention\"]}", MQ_UNSUPPORTED, "linear_attention");
    refused("{" FLAT "," TEXT ",\"num_hidden_layers\":2,\"layer_types\":[\"linear_attention\",\"linear_attention\"]}",
            MQ_UNSUPPORTED, "expected full_attention in some layer");
    refused("{" FLAT "," TEXT ",\"num_hidden_layers\":3,\"full_attention_interval\":4}", MQ_UNSUPPORTED,
            "full_attention_interval");
}

/* Frequencies of factor 4 as published: the ramp is over the 64 rotary values, not over the head's 256. */
static void test_partial_yarn(void **state)
{
    (void)state;
    const mq_model_config c =
        accepted("{" FLAT "," TEXT ",\"rope_parameters\":{\"rope_theta\":1e7,\"partial_rotary_factor\":0.25,"
                 "\"rope_type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":262144}}");
    static const struct {
        int at;
        double value;
    } expected[] = {{14, 8.65964e-4}, {16, 2.56935e-4}, {20, 1.84492e-5}, {22, 3.84982e-6}, {31, 4.13704e-8}};
    float inv[32], factor;
    mq__rope_frequencies(&c.rope, c.rotary_dim, inv, &factor);
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        assert_true(fabs((double)inv[expected[i].at] / expected[i].value - 1) < 1e-5);
    }
    assert_true(fabs((double)factor - 1.138629436) < 1e-6);
}

static void test_refused(void **state)
{
    (void)state;
    refused("{" FLAT "," TEXT ",\"attn_output_gate\":false}", MQ_UNSUPPORTED, "attn_output_gate");
    refused("{" FLAT "," TEXT ",\"attention_bias\":true}", MQ_UNSUPPORTED, "attention_bias");
    refused("{" FLAT "," TEXT ",\"linear_value_head_dim\":24}", MQ_UNSUPPORTED, "linear_value_head_dim");
    refused("{" FLAT "," TEXT ",\"linear_num_value_heads\":24}", MQ_UNSUPPORTED, "linear_num_value_heads");
    refused("{" FLAT "," TEXT ",\"partial_rotary_factor\":0.255}", MQ_UNSUPPORTED, "partial_rotary_factor");
    refused("{" FLAT "," TEXT ",\"num_experts\":8}", MQ_UNSUPPORTED, "num_experts");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nested_and_flat),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_partial_yarn),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
