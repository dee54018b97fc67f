/* config.json of Gemma 3, Gemma 4 and Mistral: geometry by layer, and what is refused by name. */
#include "unit_files.h"

#include "format/model_config.h"
#include "model/family.h"

static const char published_31b[] =
    "{\"model_type\":\"gemma4\",\"architectures\":[\"Gemma4ForConditionalGeneration\"],\"vision_config\":{},"
    "\"tie_word_embeddings\":true,\"text_config\":{\"model_type\":\"gemma4_text\",\"attention_bias\":false,"
    "\"attention_k_eq_v\":true,\"enable_moe_block\":false,\"final_logit_softcapping\":30.0,\"global_head_dim\":512,"
    "\"head_dim\":256,\"hidden_activation\":\"gelu_pytorch_tanh\",\"hidden_size\":5376,"
    "\"hidden_size_per_layer_input\":0,\"intermediate_size\":21504,\"max_position_embeddings\":262144,"
    "\"moe_intermediate_size\":null,\"num_attention_heads\":32,\"num_experts\":null,"
    "\"num_global_key_value_heads\":4,\"num_hidden_layers\":60,\"num_key_value_heads\":16,\"num_kv_shared_layers\":0,"
    "\"rms_norm_eps\":1e-6,\"sliding_window\":1024,\"top_k_experts\":null,\"use_bidirectional_attention\":\"vision\","
    "\"use_double_wide_mlp\":false,\"vocab_size\":262144,\"rope_parameters\":{\"full_attention\":{"
    "\"rope_type\":\"proportional\",\"partial_rotary_factor\":0.25,\"rope_theta\":1000000.0},"
    "\"sliding_attention\":{\"rope_type\":\"default\",\"rope_theta\":10000.0}}}}";

static mq_status parse(const char *text, const char *change, mq_model_config *c, mq_error *error)
{
    json_t *root = json_loads(text, 0, NULL), *changes = json_loads(change, 0, NULL);
    assert_non_null(root);
    assert_non_null(changes);
    json_t *inner = json_object_get(root, "text_config");
    assert_int_equal(json_object_update(inner ? inner : root, changes), 0);
    const mq_status status = mq__model_config_parse(root, c, error);
    json_decref(changes);
    json_decref(root);
    return status;
}

static void must_parse(const char *text, const char *change, mq_model_config *c)
{
    mq_error error = {0};
    if (parse(text, change, c, &error) != MQ_OK) fail_msg("%s", error.text);
}

static void refused(const char *change, const char *naming)
{
    static mq_model_config c;
    mq_error error = {0};
    assert_int_equal(parse(published_31b, change, &c, &error), MQ_UNSUPPORTED);
    if (!strstr(error.text, naming)) fail_msg("expected %s, got %s", naming, error.text);
}

static void test_31b(void **state)
{
    (void)state;
    static mq_model_config c;
    static float inv[256];
    float factor;
    must_parse(published_31b, "{}", &c);
    assert_int_equal(c.architecture, MQ_ARCH_GEMMA4);
    assert_true(c.tied_head && c.gelu && c.v_norm);
    assert_true(c.embedding_scale == 73.5 && c.attention_scale == 1 && c.logit_cap == 30);
    const mq_attention_config local = mq__attention_of(&c, 0), global = mq__attention_of(&c, 59);
    assert_int_equal(local.kv_heads, 16);
    assert_int_equal(local.head_dim, 256);
    assert_int_equal(local.window, 1024);
    assert_false(local.shares_kv);
    assert_int_equal(global.kv_heads, 4);
    assert_int_equal(global.head_dim, 512);
    assert_int_equal(global.window, 0);
    assert_true(global.shares_kv);
    for (uint32_t l = 0; l < 60; l++) {
        assert_int_equal(c.layer[l].global, l % 6 == 5);
    }
    mq__rope_frequencies(&global.rope, global.rotary_dim, inv, &factor);
    assert_true(fabsf(inv[1] - 0.947463526f) < 1e-6f && fabsf(inv[63] - 0.0333762469f) < 1e-7f);
    assert_true(inv[0] == 1 && inv[64] == 0 && inv[255] == 0 && factor == 1);
    mq__rope_frequencies(&local.rope, local.rotary_dim, inv, &factor);
    assert_true(inv[127] > 0 && fabsf(inv[64] - 0.01f) < 1e-7f);
    assert_int_equal(mq__rule_size(&c, 0, 'Q'), 8192);
    assert_int_equal(mq__rule_size(&c, 5, 'Q'), 16384);
    assert_int_equal(mq__rule_size(&c, 5, 'G'), 2048);
}

static void test_26b(void **state)
{
    (void)state;
    static mq_model_config c;
    must_parse(
        published_31b,
        "{\"hidden_size\":2816,\"num_hidden_layers\":30,\"intermediate_size\":2112,\"num_attention_heads\":16,"
        "\"num_key_value_heads\":8,\"num_global_key_value_heads\":2,\"enable_moe_block\":true,\"num_experts\":128,"
        "\"top_k_experts\":8,\"moe_intermediate_size\":704}",
        &c);
    assert_true(c.embedding_scale == 53 && c.norm_topk);
    assert_true(fabs(c.router_scale - 1 / sqrt(2816.0)) < 1e-12);
    assert_int_equal(c.experts, 128);
    assert_int_equal(c.experts_per_token, 8);
    assert_int_equal(c.expert_ffn, 704);
    assert_int_equal(c.layer[17].mlp, MQ_MLP_EXPERTS);
    assert_int_equal(mq__attention_of(&c, 5).kv_heads, 2);
}

/* What the newest writers say instead of global_head_dim; a last layer that claims a window; values of their own. */
static void test_variants(void **state)
{
    (void)state;
    static mq_model_config c;
    must_parse(
        published_31b,
        "{\"num_hidden_layers\":3,\"layer_types\":[\"sliding_attention\",\"full_attention\",\"sliding_attention\"],"
        "\"global_head_dim\":256,\"per_layer_config\":{\"1\":{\"head_dim\":512,\"num_key_value_heads\":4}}}",
        &c);
    assert_true(c.layer[1].global && c.layer[2].global && !c.layer[0].global);
    assert_int_equal(mq__attention_of(&c, 2).head_dim, 512);
    must_parse(published_31b, "{\"attention_k_eq_v\":false}", &c);
    assert_int_equal(mq__attention_of(&c, 5).kv_heads, 16);
    assert_false(mq__attention_of(&c, 5).shares_kv);
}

static void test_refused(void **state)
{
    (void)state;
    refused("{\"hidden_size_per_layer_input\":256}", "hidden_size_per_layer_input");
    refused("{\"num_kv_shared_layers\":20}", "num_kv_shared_layers");
    refused("{\"use_bidirectional_attention\":\"all\"}", "use_bidirectional_attention");
    refused("{\"use_bidirectional_attention\":true}", "use_bidirectional_attention");
    refused("{\"attention_bias\":true}", "attention_bias");
    refused("{\"attn_logit_softcapping\":50.0}", "attn_logit_softcapping");
    refused("{\"hidden_activation\":\"silu\"}", "hidden_activation");
    refused("{\"layer_types\":[\"chunked_attention\"],\"num_hidden_layers\":1}", "layer_types[0]");
    refused("{\"num_global_key_value_heads\":5}", "num_attention_heads");
    refused("{\"per_layer_config\":{\"0\":{\"head_dim\":512}}}", "per_layer_config");
    refused("{\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\",\"partial_rotary_factor\":0.5},"
            "\"sliding_attention\":{}}}",
            "partial_rotary_factor");
}

static void test_others(void **state)
{
    (void)state;
    static mq_model_config c;
    static const char gemma3[] =
        "{\"model_type\":\"gemma3_text\",\"architectures\":[\"Gemma3ForCausalLM\"],\"hidden_size\":1152,"
        "\"intermediate_size\":6912,\"num_hidden_layers\":26,\"num_attention_heads\":4,\"num_key_value_heads\":1,"
        "\"head_dim\":256,\"vocab_size\":262144,\"sliding_window\":512,\"sliding_window_pattern\":6,"
        "\"query_pre_attn_scalar\":256,\"rope_theta\":1000000,\"rope_local_base_freq\":10000,\"rope_scaling\":null,"
        "\"final_logit_softcapping\":null,\"hidden_activation\":\"gelu_pytorch_tanh\",\"max_position_embeddings\":"
        "32768}";
    static const char mistral[] =
        "{\"model_type\":\"mistral\",\"architectures\":[\"MistralForCausalLM\"],\"hidden_size\":4096,"
        "\"intermediate_size\":14336,\"num_hidden_layers\":32,\"num_attention_heads\":32,\"num_key_value_heads\":8,"
        "\"vocab_size\":32768,\"rope_theta\":1000000.0,\"rms_norm_eps\":1e-5,\"max_position_embeddings\":32768,"
        "\"sliding_window\":null,\"hidden_act\":\"silu\",\"tie_word_embeddings\":false}";
    must_parse(gemma3, "{}", &c);
    assert_true(c.tied_head && !c.v_norm && c.attention_scale == 0.0625);
    assert_int_equal(mq__attention_of(&c, 0).window, 512);
    assert_int_equal(mq__attention_of(&c, 5).window, 0);
    assert_true(mq__attention_of(&c, 0).rope.theta == 1e4 && mq__attention_of(&c, 5).rope.theta == 1e6);
    must_parse(mistral, "{}", &c);
    assert_int_equal(mq__attention_of(&c, 0).window, 0);
    must_parse(mistral, "{\"sliding_window\":2048}", &c);
    assert_int_equal(mq__attention_of(&c, 31).window, 2048);
    static const char first[] = "{\"model_type\":\"mistral\",\"hidden_size\":4096,\"intermediate_size\":14336,"
                                "\"num_hidden_layers\":32,\"num_attention_heads\":32,\"vocab_size\":32000}";
    must_parse(first, "{}", &c); /* the class's own window, positions and kv heads */
    assert_int_equal(mq__attention_of(&c, 31).window, 4096);
    assert_int_equal(c.max_positions, 131072);
    assert_int_equal(c.kv_heads, 8);
    must_parse(first, "{\"num_key_value_heads\":null}", &c);
    assert_int_equal(c.kv_heads, 32);
}

/* As transformers writes the text model of 4B, 12B and 27B: without what its class has by default. */
static void test_defaults(void **state)
{
    (void)state;
    static mq_model_config c;
    static const char gemma3_4b[] =
        "{\"model_type\":\"gemma3\",\"architectures\":[\"Gemma3ForConditionalGeneration\"],\"eos_token_id\":[1,106],"
        "\"vision_config\":{},\"text_config\":{\"model_type\":\"gemma3_text\",\"hidden_size\":2560,"
        "\"intermediate_size\":10240,\"num_hidden_layers\":34,\"sliding_window\":1024,"
        "\"rope_scaling\":{\"factor\":8.0,\"rope_type\":\"linear\"}}}";
    must_parse(gemma3_4b, "{}", &c);
    assert_int_equal(c.vocab, 262208);
    assert_int_equal(c.heads, 8);
    assert_int_equal(c.kv_heads, 4);
    assert_int_equal(c.head_dim, 256);
    assert_int_equal(c.max_positions, 131072);
    assert_int_equal(c.eos_count, 2);
    assert_int_equal(mq__attention_of(&c, 0).window, 1024);
    assert_true(mq__attention_of(&c, 5).rope.theta == 1e6 && mq__attention_of(&c, 5).rope.factor == 8);
    must_parse(gemma3_4b,
               "{\"num_attention_heads\":32,\"num_key_value_heads\":16,\"head_dim\":128,\"query_pre_attn_scalar\":168}",
               &c); /* 27B */
    assert_int_equal(c.kv_heads, 16);
    assert_int_equal(c.head_dim, 128);
    must_parse(gemma3_4b,
               "{\"rope_scaling\":null,\"rope_parameters\":{\"full_attention\":{\"factor\":8.0,"
               "\"rope_type\":\"linear\"},\"sliding_attention\":{\"rope_type\":\"default\"}}}",
               &c); /* as recent versions write it */
    assert_int_equal(c.max_positions, 131072);
    assert_true(mq__attention_of(&c, 0).rope.theta == 1e4 && mq__attention_of(&c, 5).rope.theta == 1e6);
    must_parse(gemma3_4b,
               "{\"rope_scaling\":null,\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":8,\"rope_theta\":5e5}}",
               &c);
    assert_true(mq__attention_of(&c, 5).rope.theta == 5e5);
    must_parse(gemma3_4b, "{\"rope_theta\":null}", &c);
    assert_true(mq__attention_of(&c, 5).rope.theta == 1e6);
    must_parse(published_31b, "{\"rope_parameters\":null}", &c);
    assert_int_equal(mq__attention_of(&c, 5).rope.type, MQ_ROPE_PROPORTIONAL);
    assert_true(mq__attention_of(&c, 5).rope.partial == 0.25 && mq__attention_of(&c, 0).rope.theta == 1e4);
}

/* Gemma 3's settings in each form: what stands outside of a kind's own, a scaling beside them, parts of a head. */
static void test_gemma3_ropes(void **state)
{
    (void)state;
    static mq_model_config c;
    mq_error error = {0};
    static float inv[128];
    float factor;
    static const char text[] =
        "{\"model_type\":\"gemma3_text\",\"hidden_size\":1152,\"intermediate_size\":6912,\"num_hidden_layers\":6,"
        "\"rope_theta\":5e5,\"rope_local_base_freq\":3e3}";
    static const char layered[] = "{\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\"},"
                                  "\"sliding_attention\":{\"rope_type\":\"default\"}}}";
    must_parse(text, layered, &c);
    assert_true(mq__attention_of(&c, 0).rope.theta == 3e3 && mq__attention_of(&c, 5).rope.theta == 5e5);
    must_parse(text,
               "{\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":8},\"rope_parameters\":{\"full_attention\":{},"
               "\"sliding_attention\":{\"rope_theta\":7e3}}}",
               &c);
    assert_true(mq__attention_of(&c, 5).rope.type == MQ_ROPE_LINEAR && mq__attention_of(&c, 5).rope.factor == 8);
    assert_true(mq__attention_of(&c, 0).rope.type == MQ_ROPE_DEFAULT && mq__attention_of(&c, 0).rope.theta == 7e3);
    must_parse(text, "{\"rope_parameters\":{\"rope_type\":\"proportional\"}}", &c);
    mq__rope_frequencies(&c.global.rope, 256, inv, &factor);
    assert_true(inv[127] > 0); /* all of the head turns, as without a part */
    static const char *const parts[] = {"{\"rope_parameters\":{\"partial_rotary_factor\":0.5}}",
                                        "{\"partial_rotary_factor\":0.5}"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        assert_int_equal(parse(text, parts[i], &c, &error), MQ_UNSUPPORTED);
        assert_non_null(strstr(error.text, "partial_rotary_factor"));
    }
    refused("{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4}}", "rope_scaling"); /* Gemma 4 has none */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_31b),         cmocka_unit_test(test_26b),
                                       cmocka_unit_test(test_variants),    cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_others),      cmocka_unit_test(test_defaults),
                                       cmocka_unit_test(test_gemma3_ropes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
