/* Mixture of experts: rows do not see batch-mates, chunks or threads; only routed experts count; NVFP4 for each expert; what is
 * wrong with a checkpoint is named. tests/golden/logits compares the values with a float64 reference. */
#include "unit_files.h"

#include "base/json_read.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "format/checkpoint_write.h"

#define TOKENS  150
#define LAYERS  3
#define EXPERTS 7
#define TAKEN   3

static int32_t tokens[TOKENS];
static const mq_linear_format formats[] = {MQ_LINEAR_BF16, MQ_LINEAR_W16A16, MQ_LINEAR_NVFP4, MQ_LINEAR_W4A16,
                                           MQ_LINEAR_INT8};

/* tiny-qwen3-moe: D 80, M 48. */
static int make_model(void **state)
{
    if (unit_setup(state) != 0) return -1;
    for (int i = 0; i < TOKENS; i++) {
        tokens[i] = (i * 37 + i * i * 11) % 200;
    }
    const mq_synth_options options = {.shape = "tiny-qwen3-moe", .seed = 7, .out_dir = unit_path("in")};
    return mq_synth_checkpoint(&options, NULL) == MQ_OK ? 0 : -1;
}

static mq_engine *open_engine(mq_engine_options options)
{
    mq_engine *engine;
    mq_error error = {0};
    if (!options.model_dir) options.model_dir = unit_path("in");
    if (!options.cache_dir) options.no_cache = true;
    options.context = 256;
    if (mq_engine_open(&options, &engine, &error) != MQ_OK) fail_msg("%s", error.text);
    return engine;
}

static size_t logits_bytes(const mq_engine *engine)
{
    mq_engine_info info;
    mq_engine_describe(engine, &info);
    return info.vocab * sizeof(float);
}

/* The logits after all tokens; owned. Closes the engine. */
static float *logits_of(mq_engine *engine, size_t *bytes)
{
    mq_sequence *sequence;
    *bytes = logits_bytes(engine);
    assert_int_equal(mq_sequence_new(engine, &sequence, NULL), MQ_OK);
    assert_int_equal(mq_sequence_sync(sequence, tokens, TOKENS, NULL, NULL, NULL), MQ_OK);
    float *copy = malloc(*bytes);
    assert_non_null(copy);
    memcpy(copy, mq_sequence_logits(sequence), *bytes);
    mq_sequence_free(sequence);
    mq_engine_close(engine);
    return copy;
}

/* Changes config.json of a checkpoint. */
static void set_config(const char *dir, const char *key, json_t *value)
{
    char name[64];
    json_t *config;
    snprintf(name, sizeof name, "%s/config.json", dir);
    assert_int_equal(mq__json_file(unit_path(name), 1 << 20, &config, NULL), MQ_OK);
    assert_int_equal(json_object_set_new(config, key, value), 0);
    assert_int_equal(json_dump_file(config, unit_path(name), 0), 0);
    json_decref(config);
}

/* Fills the tensors whose name contains `part` with one BF16 value. */
static void fill_tensors(const char *dir, const char *part, uint16_t value)
{
    char name[64];
    mq_safetensors file;
    size_t filled = 0;
    snprintf(name, sizeof name, "%s/model.safetensors", dir);
    assert_int_equal(mq__safetensors_open(unit_path(name), &file, NULL), MQ_OK);
    FILE *out = fopen(unit_path(name), "r+b");
    assert_non_null(out);
    for (size_t i = 0; i < file.count; i++) {
        if (!strstr(file.tensors[i].name, part)) continue;
        assert_int_equal(fseek(out, file.tensors[i].data - (const uint8_t *)file.map.data, SEEK_SET), 0);
        for (size_t k = 0; k < file.tensors[i].bytes / 2; k++) {
            assert_int_equal(fwrite(&value, sizeof value, 1, out), 1);
        }
        filled++;
    }
    assert_int_equal(fclose(out), 0);
    mq__safetensors_close(&file);
    assert_true(filled > 0);
}

/* A checkpoint `out` of those tensors of `in` that `rename` gives a name (what is left in `name`; "": none). */
static void copy_tensors(const char *out, void (*rename)(char name[MQ_TENSOR_NAME_BYTES]))
{
    mq_checkpoint *in;
    mq_checkpoint_writer writer;
    json_t *config;
    mq_tensor_spec specs[128];
    char names[128][MQ_TENSOR_NAME_BYTES];
    const mq_tensor *tensors[128];
    size_t count = 0;
    assert_int_equal(mq__checkpoint_open(unit_path("in"), &in, NULL), MQ_OK);
    const mq_safetensors *file = mq__checkpoint_shard(in, 0);
    assert_true(file->count <= 128);
    for (size_t i = 0; i < file->count; i++) {
        const mq_tensor *t = &file->tensors[i];
        snprintf(names[count], sizeof names[count], "%s", t->name);
        rename(names[count]);
        if (!names[count][0]) continue;
        specs[count] = (mq_tensor_spec){.name = names[count], .dtype = t->dtype, .rank = t->rank};
        memcpy(specs[count].shape, t->shape, sizeof t->shape);
        tensors[count++] = t;
    }
    assert_int_equal(mq__json_file(unit_path("in/config.json"), 1 << 20, &config, NULL), MQ_OK);
    assert_int_equal(mq__checkpoint_create(unit_path(out), &writer, NULL), MQ_OK);
    assert_int_equal(mq__checkpoint_put_json(&writer, "config.json", config, NULL), MQ_OK);
    assert_int_equal(mq__checkpoint_declare(&writer, specs, count, 0, NULL), MQ_OK);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(mq__checkpoint_put(&writer, tensors[i]->data, tensors[i]->bytes, NULL), MQ_OK);
    }
    assert_int_equal(mq__checkpoint_finish(&writer, NULL), MQ_OK);
    json_decref(config);
    mq__checkpoint_close(in);
}

/* ---- results */

static void test_chunks_and_threads_change_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        const mq_plan_options plan = {.prefill = formats[i], .decode = formats[i]};
        size_t bytes;
        float *one = logits_of(open_engine((mq_engine_options){.plan = plan, .threads = 1}), &bytes);
        float *many = logits_of(open_engine((mq_engine_options){.plan = plan, .threads = 16, .chunk = 19}), &bytes);
        assert_memory_equal(one, many, bytes);
        free(one);
        free(many);
    }
}

static void test_batch_equals_single(void **state)
{
    enum { BATCH = 12 }; /* more than a thin kernel takes at once */
    (void)state;
    for (size_t f = 0; f < sizeof formats / sizeof formats[0]; f++) {
        mq_engine *engine = open_engine((mq_engine_options){
            .plan = {.prefill = MQ_LINEAR_NVFP4, .decode = formats[f]}, .threads = 3, .sequences = BATCH + 1});
        mq_sequence *batch[BATCH], *single;
        int32_t next[BATCH];
        mq_rows rows[BATCH];
        for (uint32_t i = 0; i < BATCH; i++) {
            next[i] = tokens[5 + i];
            assert_int_equal(mq_sequence_new(engine, &batch[i], NULL), MQ_OK);
            assert_int_equal(mq_sequence_sync(batch[i], tokens + i, 2 + 10 * i, NULL, NULL, NULL), MQ_OK);
            rows[i] =
                (mq_rows){.sequence = batch[i], .tokens = &next[i], .count = 1, .phase = MQ_PHASE_DECODE, .logits = 1};
        }
        assert_int_equal(mq_engine_step(engine, rows, BATCH, NULL), MQ_OK);
        for (uint32_t i = 0; i < BATCH; i++) {
            assert_int_equal(mq_sequence_new(engine, &single, NULL), MQ_OK);
            assert_int_equal(mq_sequence_sync(single, tokens + i, 2 + 10 * i, NULL, NULL, NULL), MQ_OK);
            assert_int_equal(mq_sequence_step(single, next[i], NULL), MQ_OK);
            assert_memory_equal(mq_sequence_logits(batch[i]), mq_sequence_logits(single), logits_bytes(engine));
            mq_sequence_free(single);
        }
        for (uint32_t i = 0; i < BATCH; i++) {
            mq_sequence_free(batch[i]);
        }
        mq_engine_close(engine);
    }
}

/* With a router of zeros all experts are alike: every row takes the first ones, and nobody sees the others. */
static void test_equal_experts_go_by_number(void **state)
{
    (void)state;
    size_t bytes;
    const mq_plan_options plan = {.prefill = MQ_LINEAR_INT8, .decode = MQ_LINEAR_BF16};
    fill_tensors("in", "mlp.gate.weight", 0);
    float *before = logits_of(open_engine((mq_engine_options){.plan = plan, .threads = 3}), &bytes);
    for (int e = TAKEN; e < EXPERTS; e++) {
        char part[32];
        snprintf(part, sizeof part, "experts.%d.", e);
        fill_tensors("in", part, 0x4040); /* 3.0 */
    }
    float *after = logits_of(open_engine((mq_engine_options){.plan = plan, .threads = 3}), &bytes);
    assert_memory_equal(before, after, bytes);
    fill_tensors("in", "experts.2.down", 0x4040);
    float *taken = logits_of(open_engine((mq_engine_options){.plan = plan, .threads = 3}), &bytes);
    assert_memory_not_equal(before, taken, bytes);
    free(before);
    free(after);
    free(taken);
}

/* experts.0 becomes the layer's dense MLP. */
static void first_expert_only(char name[MQ_TENSOR_NAME_BYTES])
{
    char *expert = strstr(name, "experts.");
    if (strstr(name, "mlp.gate.weight")) name[0] = '\0';
    if (!expert) return;
    if (strncmp(expert, "experts.0.", 10) == 0)
        memmove(expert, expert + 10, strlen(expert + 10) + 1);
    else
        name[0] = '\0';
}

/* All rows take one expert, with weight 1: the same bits as a dense model of that expert. */
static void test_one_expert_is_a_dense_model(void **state)
{
    (void)state;
    copy_tensors("dense", first_expert_only);
    set_config("dense", "mlp_only_layers", json_pack("[iii]", 0, 1, 2));
    set_config("dense", "intermediate_size", json_integer(48));
    set_config("in", "num_experts_per_tok", json_integer(1));
    fill_tensors("in", "mlp.gate.weight", 0);
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        const mq_plan_options plan = {.prefill = formats[i], .decode = formats[i]};
        size_t bytes;
        float *experts = logits_of(open_engine((mq_engine_options){.plan = plan, .threads = 2}), &bytes);
        float *dense = logits_of(
            open_engine((mq_engine_options){.model_dir = unit_path("dense"), .plan = plan, .threads = 2}), &bytes);
        assert_memory_equal(experts, dense, bytes);
        free(experts);
        free(dense);
    }
    /* without norm_topk_prob the weight is a seventh */
    size_t bytes;
    const mq_plan_options bf16 = {.prefill = MQ_LINEAR_BF16};
    float *whole = logits_of(open_engine((mq_engine_options){.plan = bf16}), &bytes);
    set_config("in", "norm_topk_prob", json_false());
    float *seventh = logits_of(open_engine((mq_engine_options){.plan = bf16}), &bytes);
    assert_memory_not_equal(whole, seventh, bytes);
    free(whole);
    free(seventh);
}

static void test_token_loop_does_not_allocate(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(
        (mq_engine_options){.plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16}, .threads = 3, .chunk = 32});
    mq_sequence *sequence;
    assert_int_equal(mq_sequence_new(engine, &sequence, NULL), MQ_OK);
    mq__alloc_guard_begin();
    assert_int_equal(mq_sequence_sync(sequence, tokens, 100, NULL, NULL, NULL), MQ_OK);
    assert_int_equal(mq_sequence_step(sequence, tokens[7], NULL), MQ_OK);
    assert_int_equal(mq__alloc_guard_end(), 0);
    mq_sequence_free(sequence);
    mq_engine_close(engine);
}

/* ---- weights */

/* Each expert has its panels, and a cache file brings them back. */
static void test_packed_experts(void **state)
{
    (void)state;
    size_t bytes, expected = 0;
    float *logits[2];
    const uint32_t shapes[4][2] = {{144, 80}, {48, 80}, {48, 80}, {80, 144}}; /* q, k, v, o */
    for (size_t i = 0; i < 4; i++) {
        expected += mq__nvfp4_panel_bytes(shapes[i][0], shapes[i][1]);
    }
    expected += EXPERTS * (2 * mq__nvfp4_panel_bytes(48, 80) + mq__nvfp4_panel_bytes(80, 48));
    for (int run = 0; run < 2; run++) {
        mq_engine_info info;
        mq_engine *engine = open_engine((mq_engine_options){
            .plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_NVFP4}, .cache_dir = unit_path("cache")});
        mq_engine_describe(engine, &info);
        assert_int_equal(info.packed_bytes, LAYERS * expected);
        assert_true((engine->weights->face[MQ_FACE_NVFP4].file.map.data != NULL) == (run == 1));
        assert_int_equal(engine->weights->module_count, LAYERS * (4 + 3 * EXPERTS));
        logits[run] = logits_of(engine, &bytes);
    }
    assert_memory_equal(logits[0], logits[1], bytes);
    free(logits[0]);
    free(logits[1]);
}

/* A token uses its share of the experts: what a decode step reads, and what it multiplies. */
static void test_only_routed_experts_count(void **state)
{
    (void)state;
    mq_engine_info info;
    mq_engine *engine = open_engine((mq_engine_options){.plan = {.prefill = MQ_LINEAR_BF16, .decode = MQ_LINEAR_BF16}});
    mq_engine_describe(engine, &info);
    const uint64_t attention = 2 * 144 * 80 + 2 * 48 * 80, expert = 3 * 48 * 80, head = 333 * 80;
    const uint64_t used = LAYERS * (attention + TAKEN * expert);
    const uint64_t norms = LAYERS * (2 * 80 + 2 * 24) + 80, router = LAYERS * EXPERTS * 80;
    assert_int_equal(info.linear_weights, used);
    assert_int_equal(info.decode_bytes, 2 * (used + head));
    assert_int_equal(info.parameters, LAYERS * (attention + EXPERTS * expert) + 2 * head + norms + router);
    mq_engine_close(engine);
}

static double relative_error(const float *got, const float *want, size_t count)
{
    double error = 0, size = 0;
    for (size_t i = 0; i < count; i++) {
        error += pow((double)got[i] - (double)want[i], 2);
        size += pow((double)want[i], 2);
    }
    return sqrt(error / size);
}

static bool names_module(const json_t *list, const char *name)
{
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        if (strcmp(json_string_value(item), name) == 0) return true;
    }
    return false;
}

/* Quantised checkpoints hold every expert with a scale of its own and the router as it was; they run as the packed model. */
static void test_quantised_checkpoints(void **state)
{
    (void)state;
    size_t bytes;
    const mq_plan_options plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16};
    fill_tensors("in", "layers.1.mlp.experts.1.down", 0x3f80); /* 1.0: synthetic matrices have equal scales */
    float *packed = logits_of(open_engine((mq_engine_options){.plan = plan}), &bytes);
    for (int layout = 0; layout < MQ_LAYOUTS; layout++) {
        mq_error error = {0};
        mq_checkpoint *c;
        json_t *config;
        const char *out = layout ? "modelopt" : "ct", *scale = layout ? "weight_scale_2" : "weight_global_scale";
        const mq_quantize_options how = {
            .in_dir = unit_path("in"), .out_dir = unit_path(out), .layout = (mq_checkpoint_layout)layout, .threads = 2};
        if (mq_quantize_checkpoint(&how, &error) != MQ_OK) fail_msg("%s", error.text);
        assert_int_equal(mq__checkpoint_open(unit_path(out), &c, NULL), MQ_OK);
        float scales[2];
        for (int e = 0; e < 2; e++) {
            char name[128];
            snprintf(name, sizeof name, "model.layers.1.mlp.experts.%d.down_proj.%s", e, scale);
            const mq_tensor *t = mq__checkpoint_find(c, name);
            assert_non_null(t);
            memcpy(&scales[e], t->data, sizeof scales[e]);
        }
        assert_true(scales[0] != scales[1]);
        const mq_tensor *router = mq__checkpoint_find(c, "model.layers.1.mlp.gate.weight");
        assert_non_null(router);
        assert_int_equal(router->dtype, MQ_DTYPE_BF16);
        mq__checkpoint_close(c);
        char name[64];
        snprintf(name, sizeof name, "%s/config.json", out);
        assert_int_equal(mq__json_file(unit_path(name), 1 << 20, &config, NULL), MQ_OK);
        const json_t *ignore = json_object_get(json_object_get(config, "quantization_config"), "ignore");
        assert_true(names_module(ignore, "model.layers.2.mlp.gate"));
        assert_false(names_module(ignore, "model.layers.2.mlp.experts.0.gate_proj"));
        json_decref(config);
        float *got =
            logits_of(open_engine((mq_engine_options){.prefill_model_dir = unit_path(out), .plan = plan}), &bytes);
        const double difference = relative_error(got, packed, bytes / sizeof *got);
        print_message("%s: relative difference %.2e\n", out, difference);
        assert_true(difference < (layout ? 0.1 : 1e-6)); /* ModelOpt rounds by another rule */
        free(got);
    }
    free(packed);
}

/* Experts in NVFP4 and one that is not: a layer's gate_up has one format. Beside a dense model such a layer runs dense. */
static void test_checkpoint_with_a_dense_expert(void **state)
{
    (void)state;
    mq_engine *engine;
    mq_error error = {0};
    const mq_quantize_options how = {.in_dir = unit_path("in"),
                                     .out_dir = unit_path("partly"),
                                     .ignore = ".*layers[.]1[.]mlp[.]experts[.]1[.].*",
                                     .threads = 2};
    if (mq_quantize_checkpoint(&how, &error) != MQ_OK) fail_msg("%s", error.text);
    mq_engine_options options = {.model_dir = unit_path("partly"),
                                 .plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_W4A16},
                                 .context = 64,
                                 .no_cache = true};
    unit_refused(mq_engine_open(&options, &engine, &error), MQ_UNSUPPORTED, &error,
                 "layer 1: expected all or none of its gate_up in NVFP4, got a part");
    options.model_dir = unit_path("in");
    options.prefill_model_dir = unit_path("partly");
    mq_engine_close(open_engine(options));
}

/* Weights that were made for another embedding. */
static void test_prefill_model_of_another_model(void **state)
{
    (void)state;
    mq_engine *engine;
    mq_error error = {0};
    const mq_quantize_options how = {.in_dir = unit_path("in"), .out_dir = unit_path("other"), .threads = 2};
    if (mq_quantize_checkpoint(&how, &error) != MQ_OK) fail_msg("%s", error.text);
    const mq_engine_options options = {.model_dir = unit_path("in"),
                                       .prefill_model_dir = unit_path("other"),
                                       .plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16},
                                       .context = 64,
                                       .no_cache = true};
    mq_engine_close(open_engine(options));
    fill_tensors("other", "embed_tokens", 0x3f80);
    unit_refused(mq_engine_open(&options, &engine, &error), MQ_FORMAT, &error, "embed_tokens");
}

static void test_gptq_is_refused(void **state)
{
    (void)state;
    mq_error error = {0};
    const mq_token_span text = {tokens, TOKENS};
    const mq_quantize_options how = {.in_dir = unit_path("in"),
                                     .out_dir = unit_path("out"),
                                     .method = MQ_METHOD_GPTQ,
                                     .texts = &text,
                                     .text_count = 1};
    unit_refused(mq_quantize_checkpoint(&how, &error), MQ_UNSUPPORTED, &error, "experts");
    assert_int_equal(unit_entries(unit_path("out")), -1);
}

/* The attention of a model with experts can be smoothed; the norm that a router reads stays as it is. */
static void test_smoothing_spares_the_router(void **state)
{
    (void)state;
    mq_error error = {0};
    mq_checkpoint *in, *out;
    const mq_token_span text = {tokens, TOKENS};
    const mq_quantize_options how = {
        .in_dir = unit_path("in"), .out_dir = unit_path("out"), .smooth = 0.5f, .texts = &text, .text_count = 1};
    if (mq_quantize_checkpoint(&how, &error) != MQ_OK) fail_msg("%s", error.text);
    assert_int_equal(mq__checkpoint_open(unit_path("in"), &in, NULL), MQ_OK);
    assert_int_equal(mq__checkpoint_open(unit_path("out"), &out, NULL), MQ_OK);
    static const char *const norms[] = {"model.layers.1.input_layernorm.weight",
                                        "model.layers.1.post_attention_layernorm.weight"};
    for (int i = 0; i < 2; i++) {
        const mq_tensor *a = mq__checkpoint_find(in, norms[i]), *b = mq__checkpoint_find(out, norms[i]);
        assert_true((memcmp(a->data, b->data, a->bytes) == 0) == (i == 1));
    }
    mq__checkpoint_close(in);
    mq__checkpoint_close(out);
}

/* ---- what is refused */

static void refuses(const char *dir, mq_status expected, const char *names)
{
    mq_weights *w;
    mq_error error = {0};
    unit_refused(mq__weights_open(unit_path(dir), NULL, &w, &error), expected, &error, names);
    assert_null(w);
}

static void without_one(char name[MQ_TENSOR_NAME_BYTES])
{
    if (strcmp(name, "model.layers.1.mlp.experts.4.up_proj.weight") == 0) name[0] = '\0';
}

static void without_router(char name[MQ_TENSOR_NAME_BYTES])
{
    if (strcmp(name, "model.layers.2.mlp.gate.weight") == 0) name[0] = '\0';
}

static void test_missing_tensors(void **state)
{
    (void)state;
    copy_tensors("one", without_one);
    refuses("one", MQ_FORMAT, "expected tensor model.layers.1.mlp.experts.4.up_proj.weight, got none");
    copy_tensors("router", without_router);
    refuses("router", MQ_FORMAT, "expected tensor model.layers.2.mlp.gate.weight, got none");
}

/* The last expert under another number. */
static void renumbered(char name[MQ_TENSOR_NAME_BYTES], const char *number)
{
    char rest[64], *expert = strstr(name, "layers.1.mlp.experts.6.");
    if (!expert) return;
    expert += strlen("layers.1.mlp.experts.");
    snprintf(rest, sizeof rest, "%s", expert + 1);
    snprintf(expert, (size_t)(name + MQ_TENSOR_NAME_BYTES - expert), "%s%s", number, rest);
}

static void numbered_06(char name[MQ_TENSOR_NAME_BYTES])
{
    renumbered(name, "06");
}

/* Names that the model has no place for, beside all that it needs. */
static void test_unknown_expert(void **state)
{
    (void)state;
    mq_checkpoint *c;
    mq_model_config config;
    mq_unused unused = {0};
    mq_skipped skipped = {0};
    mq_error error = {0};
    copy_tensors("06", numbered_06);
    assert_int_equal(mq__model_config_read(unit_path("06"), &config, NULL), MQ_OK);
    assert_int_equal(mq__checkpoint_open(unit_path("06"), &c, NULL), MQ_OK);
    unit_refused(mq__weights_check_names(c, &config, MQ_COPY_PRECISE, &unused, &skipped, &error), MQ_FORMAT, &error,
                 "experts.06.");
    mq__checkpoint_close(c);
    assert_int_equal(mq__checkpoint_open(unit_path("in"), &c, NULL), MQ_OK);
    assert_int_equal(mq__weights_check_names(c, &config, MQ_COPY_PRECISE, &unused, &skipped, &error), MQ_OK);
    config.experts--;
    unit_refused(mq__weights_check_names(c, &config, MQ_COPY_PRECISE, &unused, &skipped, &error), MQ_FORMAT, &error,
                 "experts.6.");
    config.experts++;
    config.layer[1].mlp = MQ_MLP_DENSE;
    unit_refused(mq__weights_check_names(c, &config, MQ_COPY_PRECISE, &unused, &skipped, &error), MQ_FORMAT, &error,
                 "layers.1.mlp.");
    mq__checkpoint_close(c);
}

static void test_config_contradicts_tensors(void **state)
{
    (void)state;
    set_config("in", "num_experts", json_integer(EXPERTS - 1));
    refuses("in", MQ_FORMAT, "mlp.gate.weight: expected shape [6, 80]");
    set_config("in", "num_experts", json_integer(EXPERTS));
    set_config("in", "moe_intermediate_size", json_integer(64));
    refuses("in", MQ_FORMAT, "experts.0.gate_proj.weight: expected shape [64, 80]");
    set_config("in", "moe_intermediate_size", json_integer(48));
    set_config("in", "mlp_only_layers", json_pack("[i]", 1));
    refuses("in", MQ_FORMAT, "expected tensor model.layers.1.mlp.gate_proj.weight, got none");
    set_config("in", "mlp_only_layers", json_array());
    set_config("in", "num_experts_per_tok", json_integer(EXPERTS + 1));
    refuses("in", MQ_FORMAT, "num_experts_per_tok");
}

static void test_allocation_failures(void **state)
{
    (void)state;
    const mq_engine_options options = {.model_dir = unit_path("in"),
                                       .plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_INT8},
                                       .threads = 2,
                                       .context = 64,
                                       .no_cache = true};
    unsigned long n = 1, refused = 0;
    for (bool hit = true; hit; n++) {
        mq_engine *engine;
        mq_error error = {0};
        (void)mq__alloc_fail_at(n);
        const mq_status status = mq_engine_open(&options, &engine, &error);
        hit = mq__alloc_fail_at(0) >= n; /* else there are fewer than n allocations */
        assert_true(status == MQ_OK || (status == MQ_NO_MEMORY && !engine && hit));
        refused += status != MQ_OK;
        mq_engine_close(engine);
    }
    assert_true(refused > 100); /* the sweep really hit the experts */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_model, unit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_chunks_and_threads_change_nothing),
        TEST(test_batch_equals_single),
        TEST(test_equal_experts_go_by_number),
        TEST(test_one_expert_is_a_dense_model),
        TEST(test_token_loop_does_not_allocate),
        TEST(test_packed_experts),
        TEST(test_only_routed_experts_count),
        TEST(test_quantised_checkpoints),
        TEST(test_checkpoint_with_a_dense_expert),
        TEST(test_prefill_model_of_another_model),
        TEST(test_gptq_is_refused),
        TEST(test_smoothing_spares_the_router),
        TEST(test_missing_tensors),
        TEST(test_unknown_expert),
        TEST(test_config_contradicts_tensors),
        TEST(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
