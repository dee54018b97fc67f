/* What a checkpoint is said to be, and that one whose config.json and tensors contradict each other is refused by name. */
#include "base/json_read.h"
#include "base/mem.h"
#include "format/checkpoint.h"
#include "format/checkpoint_write.h"
#include "unit_files.h"

static void synth(const char *shape, const char *out)
{
    mq_error error = {0};
    const mq_synth_options options = {.shape = shape, .seed = 3, .out_dir = unit_path(out)};
    if (mq_synth_checkpoint(&options, &error) != MQ_OK) fail_msg("%s", error.text);
}

static void quantize(const char *in, const char *out, mq_checkpoint_layout layout)
{
    mq_error error = {0};
    const mq_quantize_options options = {
        .in_dir = unit_path(in), .out_dir = unit_path(out), .layout = layout, .threads = 1};
    if (mq_quantize_checkpoint(&options, &error) != MQ_OK) fail_msg("%s", error.text);
}

static json_t *report_of(const char *dir)
{
    char *text;
    mq_error error = {0};
    json_error_t at;
    if (mq_inspect(unit_path(dir), true, &text, &error) != MQ_OK) fail_msg("%s", error.text);
    json_t *report = json_loads(text, 0, &at);
    if (!report) fail_msg("%s", at.text);
    mq_free(text);
    return report;
}

/* The number at a path as "bytes.mapped". */
static long long number_at(const json_t *report, const char *path)
{
    char copy[64], *rest = copy;
    snprintf(copy, sizeof copy, "%s", path);
    for (const char *part = strsep(&rest, "."); part; part = strsep(&rest, ".")) {
        report = json_object_get(report, part);
    }
    if (!json_is_integer(report)) fail_msg("no number at %s", path);
    return (long long)json_integer_value(report);
}

static void accepted(const char *dir)
{
    json_decref(report_of(dir));
}

static void refused(const char *dir, mq_status status, const char *names)
{
    char *text;
    mq_error error = {0};
    unit_refused(mq_inspect(unit_path(dir), true, &text, &error), status, &error, names);
    assert_null(text);
}

/* ---- what it says */

static void test_dense_model(void **state)
{
    (void)state;
    synth("tiny-qwen3", "m");
    json_t *report = report_of("m");
    struct stat info;
    mq_checkpoint *c;
    long long weights = 0;
    assert_int_equal(stat(unit_path("m/model.safetensors"), &info), 0);
    assert_int_equal(mq__checkpoint_open(unit_path("m"), &c, NULL), MQ_OK);
    for (size_t i = 0; i < mq__checkpoint_shard(c, 0)->count; i++) {
        weights += (long long)mq__checkpoint_shard(c, 0)->tensors[i].bytes / 2;
    }
    mq__checkpoint_close(c);
    assert_int_equal(number_at(report, "parameters"), weights); /* tied: every weight of the file once */
    assert_int_equal(number_at(report, "bytes.mapped"), info.st_size);
    assert_int_equal(number_at(report, "bytes.kv_per_token"), 3 * 2 * 24 * 2 * 2); /* L G K, keys and values, 2 bytes */
    assert_int_equal(number_at(report, "bytes.embedding"), 333 * 80 * 2);
    assert_int_equal(number_at(report, "linears.weights"), 3 * (144 * 80 * 2 + 48 * 80 * 2 + 152 * 80 * 3));
    assert_int_equal(number_at(report, "bytes.linear_dense"), 2 * number_at(report, "linears.weights"));
    assert_int_equal(number_at(report, "phases.prefill.nvfp4"), 21);
    assert_int_equal(number_at(report, "phases.prefill.bf16"), 0);
    assert_int_equal(number_at(report, "phases.decode.bf16"), 21);
    assert_int_equal(number_at(report, "model.head_dim"), 24);
    json_decref(report);
}

static void test_quantised_model(void **state)
{
    (void)state;
    synth("tiny-qwen3", "m");
    for (int layout = 0; layout < MQ_LAYOUTS; layout++) {
        const char *name = mq_checkpoint_layout_name((mq_checkpoint_layout)layout);
        quantize("m", name, (mq_checkpoint_layout)layout);
        json_t *report = report_of(name);
        assert_int_equal(number_at(report, "linears.nvfp4"), 18); /* down_proj has no whole blocks */
        assert_int_equal(number_at(report, "linears.dense"), 3);
        assert_int_equal(number_at(report, "phases.prefill.nvfp4"), 18);
        assert_int_equal(number_at(report, "phases.prefill.bf16"), 3);
        assert_int_equal(number_at(report, "phases.decode.w4a16"), 18);
        assert_int_equal(number_at(report, "files.types.U8.tensors"), 18);
        assert_string_equal(json_string_value(json_object_get(json_object_get(report, "model"), "quantization")), name);
        json_decref(report);
    }
}

static void test_text(void **state)
{
    (void)state;
    char *text;
    synth("tiny-llama", "m");
    assert_int_equal(mq_inspect(unit_path("m"), false, &text, NULL), MQ_OK);
    static const char *const said[] = {"llama",
                                       "L 3, D 72, F 104, H 4, G 2, K 20, V 301",
                                       "own head",
                                       "llama3",
                                       "21 of 21 linear layers in nvfp4",
                                       "all in bf16",
                                       "30 tens",
                                       "480 bytes per token"};
    for (size_t i = 0; i < sizeof said / sizeof said[0]; i++) {
        if (!strstr(text, said[i])) fail_msg("expected \"%s\" in:\n%s", said[i], text);
    }
    mq_free(text);
    synth("tiny-qwen2", "q");
    assert_int_equal(mq_inspect(unit_path("q"), false, &text, NULL), MQ_OK);
    assert_non_null(strstr(text, "tied head, biases on q, k, v, no norms on q, k"));
    assert_non_null(strstr(text, "yarn, theta 1e+06, factor 4"));
    mq_free(text);
}

/* ---- config.json against the tensors */

/* config.json with one member changed; value is JSON. */
static void change_config(const char *dir, const char *member, const char *value)
{
    char name[64];
    json_t *root;
    snprintf(name, sizeof name, "%s/config.json", dir);
    assert_int_equal(mq__json_file(unit_path(name), 1 << 20, &root, NULL), MQ_OK);
    assert_int_equal(json_object_set_new(root, member, json_loads(value, JSON_DECODE_ANY, NULL)), 0);
    assert_int_equal(json_dump_file(root, unit_path(name), 0), 0);
    json_decref(root);
}

static void test_config_contradicts_tensors(void **state)
{
    (void)state;
    static const struct {
        const char *shape, *member, *wrong, *right, *names;
    } cases[] = {
        {"tiny-qwen3", "hidden_size", "96", "80", "model.embed_tokens.weight"},
        {"tiny-qwen3", "vocab_size", "334", "333", "model.embed_tokens.weight"},
        {"tiny-qwen3", "num_hidden_layers", "2", "3", "model.layers.2."},
        {"tiny-qwen3", "num_hidden_layers", "4", "3", "model.layers.3."},
        {"tiny-qwen3", "num_attention_heads", "4", "6", "q_proj"},
        {"tiny-qwen3", "num_key_value_heads", "3", "2", "k_proj"},
        {"tiny-qwen3", "head_dim", "48", "24", "q_norm"},
        {"tiny-qwen3", "intermediate_size", "160", "152", "gate_proj"},
        {"tiny-qwen3", "tie_word_embeddings", "false", "true", "lm_head.weight"},
        {"tiny-qwen3", "attention_bias", "true", "false", "q_proj.bias"},
        {"tiny-llama", "mlp_bias", "true", "false", "gate_proj.bias"},
        {"tiny-llama", "tie_word_embeddings", "true", "false", "lm_head.weight"},
    };
    synth("tiny-qwen3", "tiny-qwen3");
    synth("tiny-llama", "tiny-llama");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        change_config(cases[i].shape, cases[i].member, cases[i].wrong);
        refused(cases[i].shape, MQ_FORMAT, cases[i].names);
        change_config(cases[i].shape, cases[i].member, cases[i].right);
        accepted(cases[i].shape);
    }
}

/* Another architecture's name over the same tensors. */
static void test_config_of_another_architecture(void **state)
{
    (void)state;
    synth("tiny-qwen3", "q3");
    change_config("q3", "model_type", "\"llama\"");
    change_config("q3", "architectures", "[\"LlamaForCausalLM\"]");
    refused("q3", MQ_FORMAT, "self_attn.k_norm.weight in a llama");
    synth("tiny-qwen2", "q2");
    change_config("q2", "model_type", "\"llama\"");
    change_config("q2", "architectures", "[\"LlamaForCausalLM\"]");
    refused("q2", MQ_FORMAT, "self_attn.k_proj.bias in a llama");
    change_config("q2", "model_type", "\"mamba\"");
    refused("q2", MQ_UNSUPPORTED, "mamba");
}

/* ---- tensors that should not be, or not be so */

typedef struct change {
    const char *tensor; /* which is renamed to `name`, or left out when that is NULL, or stored as `dtype` */
    const char *name;
    int dtype;         /* -1: as it is */
    const char *added; /* one more tensor, F32 [1] */
} change;

/* "m" with a change, into "c". */
static void copy_changed(change how)
{
    mq_checkpoint *c;
    mq_checkpoint_writer w;
    mq_tensor_spec specs[64];
    const mq_tensor *from[64];
    size_t count = 0;
    const float one = 1;
    assert_int_equal(mq__checkpoint_open(unit_path("m"), &c, NULL), MQ_OK);
    for (size_t i = 0; i < mq__checkpoint_shard(c, 0)->count; i++) {
        const mq_tensor *t = &mq__checkpoint_shard(c, 0)->tensors[i];
        const bool hit = how.tensor && strcmp(t->name, how.tensor) == 0;
        if (hit && !how.name) continue;
        specs[count] = (mq_tensor_spec){.name = hit ? how.name : t->name, .dtype = t->dtype, .rank = t->rank};
        memcpy(specs[count].shape, t->shape, sizeof t->shape);
        if (hit && how.dtype >= 0) specs[count].dtype = (mq_dtype)how.dtype;
        from[count++] = t;
    }
    if (how.added) {
        from[count] = NULL;
        specs[count++] = (mq_tensor_spec){.name = how.added, .dtype = MQ_DTYPE_F32, .rank = 1, .shape = {1}};
    }
    unit_remove(unit_path("c"));
    assert_int_equal(mq__checkpoint_create(unit_path("c"), &w, NULL), MQ_OK);
    json_t *config;
    assert_int_equal(mq__json_file(unit_path("m/config.json"), 1 << 20, &config, NULL), MQ_OK);
    assert_int_equal(mq__checkpoint_put_json(&w, "config.json", config, NULL), MQ_OK);
    json_decref(config);
    assert_int_equal(mq__checkpoint_declare(&w, specs, count, 0, NULL), MQ_OK);
    for (size_t i = 0; i < count; i++) {
        /* A narrower or wider type gets as many bytes as it needs: of the tensor, then zeros. */
        static const uint8_t zeros[1 << 20];
        const size_t bytes = (size_t)mq__tensor_spec_bytes(&specs[i]), have = from[i] ? from[i]->bytes : sizeof one;
        const void *data = from[i] ? (const void *)from[i]->data : &one;
        assert_int_equal(mq__checkpoint_put(&w, data, bytes < have ? bytes : have, NULL), MQ_OK);
        if (bytes > have) assert_int_equal(mq__checkpoint_put(&w, zeros, bytes - have, NULL), MQ_OK);
    }
    assert_int_equal(mq__checkpoint_finish(&w, NULL), MQ_OK);
    mq__checkpoint_close(c);
}

static void test_missing_tensors(void **state)
{
    (void)state;
    static const char *const names[] = {"model.embed_tokens.weight",
                                        "model.norm.weight",
                                        "model.layers.1.input_layernorm.weight",
                                        "model.layers.2.post_attention_layernorm.weight",
                                        "model.layers.0.self_attn.q_norm.weight",
                                        "model.layers.0.self_attn.o_proj.weight",
                                        "model.layers.2.mlp.down_proj.weight"};
    synth("tiny-qwen3", "m");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        copy_changed((change){.tensor = names[i]});
        refused("c", MQ_FORMAT, names[i]);
    }
}

static void test_unexpected_tensors(void **state)
{
    (void)state;
    static const char *const bad[] = {"model.layers.0.self_attn.q_proj.bias",
                                      "model.layers.1.self_attn.o_proj.bias",
                                      "model.layers.1.mlp.up_proj.bias",
                                      "model.layers.0.self_attn.q_proj.pre_quant_scale",
                                      "model.layers.0.self_attn.sinks",
                                      "model.layers.0.mlp.experts.0.up_proj.weight",
                                      "model.layers.0.pre_feedforward_layernorm.weight",
                                      "model.layers.3.input_layernorm.weight",
                                      "model.layers.-1.input_layernorm.weight",
                                      "model.layers.00.input_layernorm.weight",
                                      "model.layers.0.input_layernorm.weightless",
                                      "model.layers.0.",
                                      "model.layers.",
                                      "model.embed_positions.weight",
                                      "lm_head.bias"};
    static const char *const fine[] = {"model.layers.0.self_attn.rotary_emb.inv_freq",
                                       "model.layers.0.self_attn.k_proj.k_scale",
                                       "model.layers.0.self_attn.q_proj.input_scale", "visual.patch.weight", "mtp.fc"};
    synth("tiny-qwen3", "m");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        copy_changed((change){.added = bad[i]});
        refused("c", MQ_FORMAT, bad[i]);
    }
    for (size_t i = 0; i < sizeof fine / sizeof fine[0]; i++) {
        copy_changed((change){.added = fine[i]});
        accepted("c");
    }
}

/* The lines that an engine logs while it opens. */
static void keep_line(void *context, const char *line)
{
    char *lines = context;
    snprintf(lines + strlen(lines), 2000 - strlen(lines), "%s\n", line);
}

static void open_and_log(const char *dir, const char *second, char lines[2000])
{
    mq_engine *engine;
    mq_error error = {0};
    const mq_engine_options options = {.model_dir = unit_path(dir),
                                       .prefill_model_dir = second ? unit_path(second) : NULL,
                                       .threads = 1,
                                       .context = 32,
                                       .no_cache = true,
                                       .log = keep_line,
                                       .log_context = lines};
    lines[0] = '\0';
    if (mq_engine_open(&options, &engine, &error) != MQ_OK) fail_msg("%s", error.text);
    mq_engine_close(engine);
}

/* Scales of quantised attention have no use here, and a line says so. */
static void test_activation_scales(void **state)
{
    (void)state;
    static const char *const unused[] = {
        "model.layers.0.self_attn.q_scale",           "model.layers.1.self_attn.k_scale",
        "model.layers.0.self_attn.prob_output_scale", "model.layers.0.self_attn.k_proj.output_scale",
        "model.layers.0.self_attn.k_zero_point",      "model.layers.2.self_attn.v_proj.v_scale",
        "model.layers.0.mlp.down_proj.output_scale",  "model.layers.0.self_attn.attn.q_scale"};
    /* Scales of weights, or of something that nobody knows, are no such thing. */
    static const char *const bad[] = {"model.layers.0.self_attn.q_proj.weight_zero_point",
                                      "model.layers.0.self_attn.temperature_scale", "model.layers.3.self_attn.q_scale",
                                      "model.layers.0.q_scale"};
    char lines[2000];
    synth("tiny-qwen3", "m");
    for (size_t i = 0; i < sizeof unused / sizeof unused[0]; i++) {
        copy_changed((change){.added = unused[i]});
        open_and_log("c", NULL, lines);
        if (!strstr(lines, unused[i]) || !strstr(lines, "left unused: 1 tensor")) fail_msg("%s: %s", unused[i], lines);
        json_t *report = report_of("c");
        assert_int_equal(number_at(report, "unused.tensors"), 1);
        json_decref(report);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        copy_changed((change){.added = bad[i]});
        refused("c", MQ_FORMAT, bad[i]);
    }
    open_and_log("m", NULL, lines);
    assert_string_equal(lines, "");
}

/* The prefill model's head is never used, in whatever form; the precise one's is. */
static void test_head_of_the_prefill_model(void **state)
{
    (void)state;
    char lines[2000];
    synth("tiny-llama", "m");
    copy_changed((change){.tensor = "lm_head.weight", .name = "lm_head.weight_packed", .dtype = MQ_DTYPE_U8});
    open_and_log("m", "c", lines);
    assert_non_null(strstr(lines, "lm_head.weight_packed"));
    refused("c", MQ_FORMAT, "lm_head.weight");
    copy_changed((change){.tensor = "lm_head.weight"});
    open_and_log("m", "c", lines);
    assert_string_equal(lines, "");
}

static void test_types_of_tensors(void **state)
{
    (void)state;
    static const struct {
        const char *tensor;
        int dtype;
        mq_status status;
    } cases[] = {
        {"model.layers.0.self_attn.q_proj.weight", MQ_DTYPE_F8_E4M3, MQ_FORMAT}, /* without its scales */
        {"model.layers.0.self_attn.q_proj.weight", MQ_DTYPE_I32, MQ_UNSUPPORTED},
        {"model.layers.0.self_attn.q_proj.weight", MQ_DTYPE_U8, MQ_FORMAT}, /* of NVFP4, but not half as wide */
        {"model.layers.0.self_attn.q_proj.weight", MQ_DTYPE_F32, MQ_OK},
        {"model.layers.0.self_attn.q_proj.weight", MQ_DTYPE_F16, MQ_OK},
        {"model.norm.weight", MQ_DTYPE_F8_E4M3, MQ_UNSUPPORTED},
        {"model.embed_tokens.weight", MQ_DTYPE_F8_E4M3, MQ_UNSUPPORTED},
    };
    synth("tiny-qwen3", "m");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        copy_changed((change){.tensor = cases[i].tensor, .name = cases[i].tensor, .dtype = cases[i].dtype});
        if (cases[i].status == MQ_OK)
            accepted("c");
        else
            refused("c", cases[i].status, cases[i].status == MQ_FORMAT ? "q_proj" : cases[i].tensor);
    }
}

/* Overwrites the first bytes of a tensor. */
static void patch(const char *dir, const char *tensor, const void *bytes, size_t count)
{
    char name[64];
    mq_checkpoint *c;
    assert_int_equal(mq__checkpoint_open(unit_path(dir), &c, NULL), MQ_OK);
    const mq_tensor *t = mq__checkpoint_find(c, tensor);
    assert_non_null(t);
    const long offset = (long)(t->data - mq__checkpoint_shard(c, 0)->map.data);
    snprintf(name, sizeof name, "%s/model.safetensors", dir);
    FILE *file = fopen(unit_path(name), "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, offset, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
    mq__checkpoint_close(c);
}

static void test_scales(void **state)
{
    (void)state;
    static const uint8_t bad[] = {0x7f, 0xff, 0xb8, 0x80}, good = 0x38, zero = 0;
    static const float factors[] = {0.0f, -1.0f, INFINITY, NAN};
    static const struct {
        const char *dir, *block, *tensor;
    } layouts[] = {{"ct", "model.layers.1.mlp.up_proj.weight_scale", "model.layers.1.mlp.up_proj.weight_global_scale"},
                   {"mo", "model.layers.1.mlp.up_proj.weight_scale", "model.layers.1.mlp.up_proj.weight_scale_2"}};
    synth("tiny-qwen3", "m");
    quantize("m", "ct", MQ_LAYOUT_COMPRESSED_TENSORS);
    quantize("m", "mo", MQ_LAYOUT_MODELOPT);
    for (int i = 0; i < 2; i++) {
        const char *dir = layouts[i].dir;
        for (size_t k = 0; k < sizeof bad; k++) {
            patch(dir, layouts[i].block, &bad[k], 1);
            refused(dir, MQ_FORMAT, layouts[i].block);
        }
        patch(dir, layouts[i].block, &zero, 1); /* a block of zeros */
        accepted(dir);
        patch(dir, layouts[i].block, &good, 1);
        for (size_t k = 0; k < sizeof factors / sizeof factors[0]; k++) {
            patch(dir, layouts[i].tensor, &factors[k], sizeof factors[k]);
            refused(dir, MQ_FORMAT, "up_proj");
        }
        const float tiny = 1e-42f; /* its reciprocal is infinite */
        patch(dir, layouts[i].tensor, &tiny, sizeof tiny);
        if (i == 0) refused(dir, MQ_FORMAT, "up_proj");
    }
}

static void test_norms_that_are_not_finite(void **state)
{
    (void)state;
    static const uint16_t bad[] = {0x7f80, 0x7fc0};
    synth("tiny-qwen3", "m");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        patch("m", "model.layers.1.post_attention_layernorm.weight", &bad[i], sizeof bad[i]);
        refused("m", MQ_FORMAT, "model.layers.1.post_attention_layernorm.weight");
    }
}

static void test_allocation_failures(void **state)
{
    (void)state;
    synth("tiny-qwen2", "m");
    for (int json = 0; json < 2; json++) {
        for (unsigned long n = 1;; n++) {
            char *text;
            mq_error error = {0};
            (void)mq__alloc_fail_at(n);
            const mq_status status = mq_inspect(unit_path("m"), json, &text, &error);
            (void)mq__alloc_fail_at(0);
            if (status == MQ_OK) {
                mq_free(text);
                assert_true(n > 20);
                break;
            }
            unit_refused(status, MQ_NO_MEMORY, &error, "memory");
            assert_null(text);
        }
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, unit_setup, unit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_dense_model),
        TEST(test_quantised_model),
        TEST(test_text),
        TEST(test_config_contradicts_tensors),
        TEST(test_config_of_another_architecture),
        TEST(test_missing_tensors),
        TEST(test_unexpected_tensors),
        TEST(test_activation_scales),
        TEST(test_head_of_the_prefill_model),
        TEST(test_types_of_tensors),
        TEST(test_scales),
        TEST(test_norms_that_are_not_finite),
        TEST(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
