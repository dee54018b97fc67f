/* config.json of models with experts: which layers have them, and what is refused by name. */
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

#define MOE                                                                                                            \
    "\"model_type\":\"qwen3_moe\",\"architectures\":[\"Qwen3MoeForCausalLM\"],\"num_experts\":16,"                     \
    "\"num_experts_per_tok\":4,\"moe_intermediate_size\":96"

/* Which layers have experts: the rule of transformers' Qwen3MoeDecoderLayer. */
static void test_experts(void **state)
{
    (void)state;
    static const struct {
        const char *changes, *kinds; /* E experts, d dense */
        bool norm_topk;
    } cases[] = {
        {"{" MOE "}", "EEE", false},
        {"{" MOE ",\"norm_topk_prob\":true,\"decoder_sparse_step\":1,\"mlp_only_layers\":[]}", "EEE", true},
        {"{" MOE ",\"decoder_sparse_step\":2,\"mlp_only_layers\":null}", "dEd", false},
        {"{" MOE ",\"decoder_sparse_step\":4}", "ddd", false},
        {"{" MOE ",\"mlp_only_layers\":[2,0,2]}", "dEd", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const mq_model_config c = read_config(cases[i].changes);
        assert_int_equal(c.architecture, MQ_ARCH_QWEN3_MOE);
        assert_int_equal(c.experts, 16);
        assert_int_equal(c.experts_per_token, 4);
        assert_int_equal(c.expert_ffn, 96);
        assert_int_equal(c.norm_topk, cases[i].norm_topk);
        assert_true(c.qk_norm && !c.qkv_bias);
        for (uint32_t l = 0; l < c.layers; l++) {
            assert_int_equal(c.layer[l].mlp, cases[i].kinds[l] == 'E' ? MQ_MLP_EXPERTS : MQ_MLP_DENSE);
        }
    }
    assert_int_equal(read_config("{}").layer[0].mlp, MQ_MLP_DENSE);
    assert_int_equal(read_config("{}").experts, 0);
}

/* What transformers 5 calls the number of experts. */
static void test_newer_name(void **state)
{
    (void)state;
    assert_int_equal(read_config("{" MOE ",\"num_experts\":null,\"num_local_experts\":8}").experts, 8);
    assert_int_equal(read_config("{" MOE ",\"num_local_experts\":16}").experts, 16);
    assert_int_equal(read_config("{" MOE ",\"num_local_experts\":null}").experts, 16);
    refused("{" MOE ",\"num_local_experts\":8}", MQ_FORMAT, "num_local_experts: expected the 16 of num_experts, got 8");
    refused("{\"num_local_experts\":8}", MQ_UNSUPPORTED, "num_local_experts");
}

static void test_malformed_experts(void **state)
{
    (void)state;
    refused("{" MOE ",\"num_experts\":0}", MQ_FORMAT, "num_experts");
    refused("{" MOE ",\"num_experts\":-5}", MQ_FORMAT, "num_experts");
    refused("{" MOE ",\"num_experts\":4294967297}", MQ_FORMAT, "num_experts");
    refused("{" MOE ",\"num_experts\":1024,\"num_hidden_layers\":1000}", MQ_LIMIT, "num_experts");
    refused("{" MOE ",\"num_experts\":null}", MQ_FORMAT, "num_experts");
    refused("{" MOE ",\"num_experts_per_tok\":17}", MQ_FORMAT,
            "num_experts_per_tok: expected a whole number from 1 to 16");
    refused("{" MOE ",\"num_experts_per_tok\":0}", MQ_FORMAT, "num_experts_per_tok");
    refused("{" MOE ",\"moe_intermediate_size\":0}", MQ_FORMAT, "moe_intermediate_size");
    refused("{" MOE ",\"moe_intermediate_size\":1e9}", MQ_FORMAT, "moe_intermediate_size");
    refused("{" MOE ",\"norm_topk_prob\":1}", MQ_FORMAT, "norm_topk_prob");
    refused("{" MOE ",\"decoder_sparse_step\":0}", MQ_FORMAT, "decoder_sparse_step");
    refused("{" MOE ",\"mlp_only_layers\":3}", MQ_FORMAT, "mlp_only_layers");
    refused("{" MOE ",\"mlp_only_layers\":[1,3]}", MQ_FORMAT, "mlp_only_layers[1]");
    refused("{" MOE ",\"mlp_only_layers\":[-1]}", MQ_FORMAT, "mlp_only_layers[0]");
    refused("{" MOE ",\"mlp_only_layers\":[\"0\"]}", MQ_FORMAT, "mlp_only_layers[0]");
    refused("{" MOE ",\"num_local_experts\":0}", MQ_FORMAT, "num_local_experts");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, unit_setup, unit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_experts), TEST(test_newer_name), TEST(test_malformed_experts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
