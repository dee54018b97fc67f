/* Quantised checkpoints: what the two layouts hold, that they mean the same weights, and that a failure leaves nothing. */
#include "base/halffloat.h"
#include "base/json_read.h"
#include "base/mem.h"
#include "format/checkpoint.h"
#include "format/checkpoint_write.h"
#include "format/nvfp4.h"
#include "unit_files.h"

#include <signal.h>
#include <sys/resource.h>

/* tiny-qwen3: D 80, H*K 144, F 152 (no multiple of 16: down_proj stays dense), 3 layers. */
#define LAYERS 3
static const struct {
    const char *name;
    size_t n, k;
    int group;
} modules[] = {
    {"self_attn.q_proj", 144, 80, 0}, {"self_attn.k_proj", 48, 80, 0}, {"self_attn.v_proj", 48, 80, 0},
    {"self_attn.o_proj", 80, 144, 1}, {"mlp.gate_proj", 152, 80, 2},   {"mlp.up_proj", 152, 80, 2},
};
#define MODULES (sizeof modules / sizeof modules[0])

static int setup(void **state)
{
    if (unit_setup(state) != 0) return -1;
    const mq_synth_options options = {.shape = "tiny-qwen3", .seed = 7, .out_dir = unit_path("in")};
    return mq_synth_checkpoint(&options, NULL) == MQ_OK ? 0 : -1;
}

static mq_quantize_options options_of(mq_checkpoint_layout layout, mq_scale_rule scales, const char *out)
{
    return (mq_quantize_options){
        .in_dir = unit_path("in"), .out_dir = unit_path(out), .layout = layout, .scales = scales, .threads = 2};
}

static void quantize(mq_checkpoint_layout layout, mq_scale_rule scales, const char *out)
{
    mq_error error = {0};
    const mq_quantize_options options = options_of(layout, scales, out);
    if (mq_quantize_checkpoint(&options, &error) != MQ_OK) fail_msg("%s", error.text);
}

static mq_checkpoint *open_checkpoint(const char *name)
{
    mq_error error = {0};
    mq_checkpoint *checkpoint;
    if (mq__checkpoint_open(unit_path(name), &checkpoint, &error) != MQ_OK) fail_msg("%s", error.text);
    return checkpoint;
}

static const mq_tensor *tensor_of(const mq_checkpoint *c, int layer, size_t module, const char *suffix)
{
    char name[128];
    snprintf(name, sizeof name, "model.layers.%d.%s.%s", layer, modules[module].name, suffix);
    return mq__checkpoint_find(c, name);
}

static void assert_tensor(const mq_tensor *t, mq_dtype dtype, int rank, uint64_t rows, uint64_t columns)
{
    assert_non_null(t);
    assert_int_equal(t->dtype, dtype);
    assert_int_equal(t->rank, rank);
    if (rank > 0) assert_int_equal(t->shape[0], rows);
    if (rank > 1) assert_int_equal(t->shape[1], columns);
}

static float scalar(const mq_tensor *t)
{
    float value;
    assert_int_equal(t->bytes, sizeof value);
    memcpy(&value, t->data, sizeof value);
    return value;
}

/* The names, types and shapes that compressed-tensors and ModelOpt write, and nothing else beside what was there before. */
static void check_tensors(mq_checkpoint_layout layout, const char *out)
{
    const bool modelopt = layout == MQ_LAYOUT_MODELOPT;
    mq_checkpoint *in = open_checkpoint("in"), *c = open_checkpoint(out);
    size_t before = 0, after = 0, kept = 0;
    for (int l = 0; l < LAYERS; l++) {
        for (size_t m = 0; m < MODULES; m++) {
            const size_t n = modules[m].n, k = modules[m].k;
            assert_tensor(tensor_of(c, l, m, modelopt ? "weight" : "weight_packed"), MQ_DTYPE_U8, 2, n, k / 2);
            assert_tensor(tensor_of(c, l, m, "weight_scale"), MQ_DTYPE_F8_E4M3, 2, n, k / 16);
            assert_tensor(tensor_of(c, l, m, modelopt ? "weight_scale_2" : "weight_global_scale"), MQ_DTYPE_F32,
                          modelopt ? 0 : 1, 1, 0);
            assert_null(tensor_of(c, l, m, modelopt ? "weight_packed" : "weight"));
        }
    }
    for (size_t s = 0; s < mq__checkpoint_shards(in); s++) {
        const mq_safetensors *shard = mq__checkpoint_shard(in, s);
        before += shard->count;
        for (size_t i = 0; i < shard->count; i++) {
            const mq_tensor *t = &shard->tensors[i], *same = mq__checkpoint_find(c, t->name);
            if (!same || same->dtype != t->dtype) continue;
            assert_int_equal(same->bytes, t->bytes);
            assert_memory_equal(same->data, t->data, t->bytes);
            kept++;
        }
    }
    for (size_t s = 0; s < mq__checkpoint_shards(c); s++) {
        after += mq__checkpoint_shard(c, s)->count;
    }
    assert_int_equal(kept, before - LAYERS * MODULES);
    assert_int_equal(after, before + 2 * LAYERS * MODULES);
    mq__checkpoint_close(c);
    mq__checkpoint_close(in);
}

static void test_layouts(void **state)
{
    (void)state;
    quantize(MQ_LAYOUT_COMPRESSED_TENSORS, MQ_SCALES_RTN, "ct");
    check_tensors(MQ_LAYOUT_COMPRESSED_TENSORS, "ct");
    quantize(MQ_LAYOUT_MODELOPT, MQ_SCALES_RTN, "mo");
    check_tensors(MQ_LAYOUT_MODELOPT, "mo");
}

/* Overwrites bytes of a tensor in a file. */
static void patch(const char *dir, const char *tensor, size_t at, const void *bytes, size_t count)
{
    char name[64];
    mq_checkpoint *c = open_checkpoint(dir);
    const mq_tensor *t = mq__checkpoint_find(c, tensor);
    assert_non_null(t);
    const long offset = (long)(t->data - mq__checkpoint_shard(c, 0)->map.data) + (long)at;
    snprintf(name, sizeof name, "%s/model.safetensors", dir);
    FILE *file = fopen(unit_path(name), "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, offset, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
    mq__checkpoint_close(c);
}

/* Every byte is what the format layer makes of the matrix with the joint maximum of its fused group. */
static void check_bytes(mq_nvfp4_rule rule, mq_checkpoint_layout layout, const char *out)
{
    mq_checkpoint *in = open_checkpoint("in"), *c = open_checkpoint(out);
    for (int l = 0; l < LAYERS; l++) {
        float amax[3] = {0};
        for (size_t m = 0; m < MODULES; m++) {
            const mq_tensor *w = tensor_of(in, l, m, "weight");
            amax[modules[m].group] =
                fmaxf(amax[modules[m].group], mq__weights_amax(w->data, MQ_WEIGHT_BF16, w->bytes / 2));
        }
        for (size_t m = 0; m < MODULES; m++) {
            const size_t n = modules[m].n, k = modules[m].k;
            const mq_nvfp4_scale scale = mq__nvfp4_scale(rule, amax[modules[m].group]);
            const bool modelopt = layout == MQ_LAYOUT_MODELOPT;
            const mq_tensor *w = tensor_of(in, l, m, "weight"), *s = tensor_of(c, l, m, "weight_scale");
            const mq_tensor *p = tensor_of(c, l, m, modelopt ? "weight" : "weight_packed");
            for (size_t r = 0; r < n; r++) {
                uint8_t nibbles[72], scales[9];
                mq__nvfp4_quantize_row(rule, scale, w->data + 2 * r * k, MQ_WEIGHT_BF16, k, nibbles, scales);
                assert_memory_equal(nibbles, p->data + r * k / 2, k / 2);
                assert_memory_equal(scales, s->data + r * k / 16, k / 16);
            }
            const float stored = scalar(tensor_of(c, l, m, modelopt ? "weight_scale_2" : "weight_global_scale"));
            assert_true(stored == (modelopt ? scale.multiplier : scale.divisor));
        }
    }
    mq__checkpoint_close(c);
    mq__checkpoint_close(in);
}

static void test_bytes_of_every_rule(void **state)
{
    (void)state;
    static const struct {
        mq_checkpoint_layout layout;
        mq_scale_rule scales;
        mq_nvfp4_rule rule;
    } cases[] = {{MQ_LAYOUT_COMPRESSED_TENSORS, MQ_SCALES_RTN, MQ_NVFP4_RTN},
                 {MQ_LAYOUT_COMPRESSED_TENSORS, MQ_SCALES_FOUR_SIX, MQ_NVFP4_FOUR_SIX},
                 {MQ_LAYOUT_COMPRESSED_TENSORS, MQ_SCALES_SWEEP, MQ_NVFP4_SWEEP},
                 {MQ_LAYOUT_MODELOPT, MQ_SCALES_RTN, MQ_NVFP4_MODELOPT},
                 {MQ_LAYOUT_MODELOPT, MQ_SCALES_FOUR_SIX, MQ_NVFP4_FOUR_SIX},
                 {MQ_LAYOUT_MODELOPT, MQ_SCALES_SWEEP, MQ_NVFP4_SWEEP}};
    /* The last of a fused group has the largest weight of the group. */
    static const uint16_t large = 0x4000, larger = 0xc060;
    patch("in", "model.layers.0.self_attn.v_proj.weight", 1234, &large, sizeof large);
    patch("in", "model.layers.2.mlp.up_proj.weight", 4320, &larger, sizeof larger);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char out[16];
        snprintf(out, sizeof out, "out%zu", i);
        quantize(cases[i].layout, cases[i].scales, out);
        check_bytes(cases[i].rule, cases[i].layout, out);
    }
}

/* Distance in representable floats. */
static int64_t ulps(float a, float b)
{
    const int64_t x = (int32_t)mq__f32_bits(a), y = (int32_t)mq__f32_bits(b);
    const int64_t u = x < 0 ? (int64_t)INT32_MIN - x : x, v = y < 0 ? (int64_t)INT32_MIN - y : y;
    return u > v ? u - v : v - u;
}

/* One weight as each layout's own documentation says. */
static float decode(const uint8_t *nibbles, const uint8_t *scales, size_t i, float divisor, float multiplier)
{
    static const float magnitude[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    const unsigned code = nibbles[i / 2] >> (i % 2 * 4) & 15;
    const float value = code & 8 ? -magnitude[code & 7] : magnitude[code & 7], block = mq__e4m3_decode(scales[i / 16]);
    return divisor > 0 ? value * (block / divisor) : value * block * multiplier;
}

/* The layouts decode to the same floats but for the rounding of one reciprocal, and both are near the weights. */
static void test_layouts_mean_the_same(void **state)
{
    (void)state;
    quantize(MQ_LAYOUT_COMPRESSED_TENSORS, MQ_SCALES_SWEEP, "ct");
    quantize(MQ_LAYOUT_MODELOPT, MQ_SCALES_SWEEP, "mo");
    mq_checkpoint *in = open_checkpoint("in"), *ct = open_checkpoint("ct"), *mo = open_checkpoint("mo");
    for (int l = 0; l < LAYERS; l++) {
        for (size_t m = 0; m < MODULES; m++) {
            const mq_tensor *w = tensor_of(in, l, m, "weight");
            const mq_tensor *p = tensor_of(ct, l, m, "weight_packed"), *ps = tensor_of(ct, l, m, "weight_scale");
            const mq_tensor *q = tensor_of(mo, l, m, "weight"), *qs = tensor_of(mo, l, m, "weight_scale");
            const float divisor = scalar(tensor_of(ct, l, m, "weight_global_scale"));
            const float multiplier = scalar(tensor_of(mo, l, m, "weight_scale_2"));
            double error = 0, norm = 0;
            for (size_t i = 0; i < modules[m].n * modules[m].k; i++) {
                uint16_t bits;
                memcpy(&bits, w->data + 2 * i, 2);
                const float x = mq__bf16_to_f32(bits), a = decode(p->data, ps->data, i, divisor, 0);
                const float b = decode(q->data, qs->data, i, 0, multiplier);
                assert_true(ulps(a, b) <= 2); /* the reciprocal's half and each side's own rounding */
                error += (double)(a - x) * (a - x);
                norm += (double)x * x;
            }
            assert_true(sqrt(error / norm) < 0.1);
        }
    }
    mq__checkpoint_close(mo);
    mq__checkpoint_close(ct);
    mq__checkpoint_close(in);
}

/* The same tensors in shards, in another order, so that fused modules lie in different files: the same output. */
static void test_sharded_input(void **state)
{
    (void)state;
    mq_checkpoint *in = open_checkpoint("in");
    const mq_safetensors *file = mq__checkpoint_shard(in, 0);
    mq_tensor_spec specs[64];
    mq_checkpoint_writer w;
    json_t *config;
    assert_true(file->count <= 64);
    for (size_t i = 0; i < file->count; i++) {
        const mq_tensor *t = &file->tensors[file->count - 1 - i];
        specs[i] = (mq_tensor_spec){.name = t->name, .dtype = t->dtype, .rank = t->rank};
        memcpy(specs[i].shape, t->shape, sizeof t->shape);
    }
    assert_int_equal(mq__json_file(unit_path("in/config.json"), 1 << 20, &config, NULL), MQ_OK);
    assert_int_equal(mq__checkpoint_create(unit_path("shards"), &w, NULL), MQ_OK);
    assert_int_equal(mq__checkpoint_put_json(&w, "config.json", config, NULL), MQ_OK);
    assert_int_equal(mq__checkpoint_declare(&w, specs, file->count, 20000, NULL), MQ_OK);
    for (size_t i = 0; i < file->count; i++) {
        const mq_tensor *t = &file->tensors[file->count - 1 - i];
        assert_int_equal(mq__checkpoint_put(&w, t->data, t->bytes, NULL), MQ_OK);
    }
    assert_int_equal(mq__checkpoint_finish(&w, NULL), MQ_OK);
    json_decref(config);
    mq__checkpoint_close(in);

    mq_error error = {0};
    mq_quantize_options o = options_of(MQ_LAYOUT_COMPRESSED_TENSORS, MQ_SCALES_RTN, "two");
    o.in_dir = unit_path("shards");
    if (mq_quantize_checkpoint(&o, &error) != MQ_OK) fail_msg("%s", error.text);
    quantize(MQ_LAYOUT_COMPRESSED_TENSORS, MQ_SCALES_RTN, "one");
    mq_checkpoint *one = open_checkpoint("one"), *two = open_checkpoint("two"), *shards = open_checkpoint("shards");
    assert_true(mq__checkpoint_shards(shards) > 5);
    assert_int_equal(mq__checkpoint_shards(two), 1);
    assert_int_equal(mq__checkpoint_shard(two, 0)->count, mq__checkpoint_shard(one, 0)->count);
    for (size_t i = 0; i < mq__checkpoint_shard(one, 0)->count; i++) {
        const mq_tensor *a = &mq__checkpoint_shard(one, 0)->tensors[i], *b = mq__checkpoint_find(two, a->name);
        assert_non_null(b);
        assert_int_equal(a->dtype, b->dtype);
        assert_int_equal(a->bytes, b->bytes);
        assert_memory_equal(a->data, b->data, a->bytes);
    }
    mq__checkpoint_close(shards);
    mq__checkpoint_close(two);
    mq__checkpoint_close(one);
}

static json_t *json_of(const char *dir, const char *file)
{
    char name[64];
    mq_error error = {0};
    json_t *root;
    snprintf(name, sizeof name, "%s/%s", dir, file);
    if (mq__json_file(unit_path(name), 1 << 20, &root, &error) != MQ_OK) fail_msg("%s", error.text);
    return root;
}

static const char *text_at(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

static void check_ignored(const json_t *list)
{
    assert_int_equal(json_array_size(list), LAYERS + 1);
    for (int l = 0; l < LAYERS; l++) {
        char name[64];
        snprintf(name, sizeof name, "model.layers.%d.mlp.down_proj", l);
        assert_string_equal(json_string_value(json_array_get(list, (size_t)l)), name);
    }
    assert_string_equal(json_string_value(json_array_get(list, LAYERS)), "lm_head");
}

static void test_configs(void **state)
{
    (void)state;
    quantize(MQ_LAYOUT_COMPRESSED_TENSORS, MQ_SCALES_RTN, "ct");
    quantize(MQ_LAYOUT_MODELOPT, MQ_SCALES_RTN, "mo");
    json_t *in = json_of("in", "config.json"), *ct = json_of("ct", "config.json"), *mo = json_of("mo", "config.json");
    const json_t *q = json_object_get(ct, "quantization_config");
    assert_string_equal(text_at(q, "quant_method"), "compressed-tensors");
    assert_string_equal(text_at(q, "format"), "nvfp4-pack-quantized");
    check_ignored(json_object_get(q, "ignore"));
    const json_t *group = json_object_get(json_object_get(q, "config_groups"), "group_0");
    const json_t *weights = json_object_get(group, "weights");
    assert_true(json_is_null(json_object_get(group, "input_activations"))); /* weight-only: no activation scales */
    assert_int_equal(json_integer_value(json_object_get(weights, "num_bits")), 4);
    assert_int_equal(json_integer_value(json_object_get(weights, "group_size")), 16);
    assert_string_equal(text_at(weights, "strategy"), "tensor_group");

    q = json_object_get(mo, "quantization_config");
    assert_string_equal(text_at(q, "quant_method"), "modelopt");
    assert_string_equal(text_at(q, "quant_algo"), "W4A16_NVFP4");
    check_ignored(json_object_get(q, "ignore"));
    json_t *file = json_of("mo", "hf_quant_config.json");
    check_ignored(json_object_get(json_object_get(file, "quantization"), "exclude_modules"));
    assert_string_equal(text_at(json_object_get(file, "producer"), "name"), "modelopt");
    assert_int_equal(access(unit_path("ct/hf_quant_config.json"), F_OK), -1);

    /* All else in config.json is as it was. */
    json_object_del(ct, "quantization_config");
    assert_true(json_equal(in, ct));
    json_decref(file);
    json_decref(mo);
    json_decref(ct);
    json_decref(in);
}

static void test_other_files(void **state)
{
    (void)state;
    unit_puts("in/chat_template.jinja", "{{ messages }}");
    unit_puts("in/pytorch_model.bin", "weights of another form");
    unit_puts("in/.hidden", "x");
    assert_int_equal(mkdir(unit_path("in/original"), 0755), 0);
    quantize(MQ_LAYOUT_COMPRESSED_TENSORS, MQ_SCALES_RTN, "out");
    static const char *const same[] = {"tokenizer.json", "tokenizer_config.json", "generation_config.json",
                                       "chat_template.jinja"};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        char command[1024], a[64], b[64];
        snprintf(a, sizeof a, "in/%s", same[i]);
        snprintf(b, sizeof b, "out/%s", same[i]);
        snprintf(command, sizeof command, "cmp -s '%s' '%s'", unit_path(a), unit_path(b));
        assert_int_equal(system(command), 0);
    }
    /* config.json, model.safetensors and those four. */
    assert_int_equal(unit_entries(unit_path("out")), 6);
    char *text = NULL;
    mq_error error = {0};
    assert_int_equal(mq_inspect(unit_path("out"), true, &text, &error), MQ_OK);
    mq_free(text);
}

static void test_ignored_modules(void **state)
{
    (void)state;
    mq_error error = {0};
    mq_quantize_options o = options_of(MQ_LAYOUT_COMPRESSED_TENSORS, MQ_SCALES_RTN, "out");
    o.ignore = "re:.*layers\\.1\\..*";
    assert_int_equal(mq_quantize_checkpoint(&o, &error), MQ_OK);
    mq_checkpoint *c = open_checkpoint("out");
    assert_non_null(tensor_of(c, 0, 0, "weight_packed"));
    assert_non_null(tensor_of(c, 1, 0, "weight"));
    assert_null(tensor_of(c, 1, 0, "weight_packed"));
    assert_non_null(tensor_of(c, 2, 3, "weight_packed"));
    mq__checkpoint_close(c);

    static const struct {
        const char *ignore;
        mq_status status;
        const char *names;
    } bad[] = {
        {"(", MQ_USAGE, "parenthesis"},
        {".*k_proj", MQ_USAGE, "fused"},
        {".*", MQ_USAGE, "expected one that is not ignored"},
        {"(.*.*.*.*.*.*.*.*)*[!?]", MQ_LIMIT, "pattern"},
    };
    o.out_dir = unit_path("none");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        o.ignore = bad[i].ignore;
        unit_refused(mq_quantize_checkpoint(&o, &error), bad[i].status, &error, bad[i].names);
    }
    /* A pattern is matched from the start of the name: this one is nowhere. */
    o.ignore = "k_proj";
    assert_int_equal(mq_quantize_checkpoint(&o, &error), MQ_OK);
}

/* The bytes do not depend on the number of threads. */
static void test_threads(void **state)
{
    (void)state;
    static const char *const names[] = {"one", "three"};
    for (int i = 0; i < 2; i++) {
        mq_quantize_options o = options_of(MQ_LAYOUT_MODELOPT, MQ_SCALES_FOUR_SIX, names[i]);
        o.threads = i == 0 ? 1 : 3;
        assert_int_equal(mq_quantize_checkpoint(&o, NULL), MQ_OK);
    }
    char command[1024];
    snprintf(command, sizeof command, "cmp -s '%s' '%s'", unit_path("one/model.safetensors"),
             unit_path("three/model.safetensors"));
    assert_int_equal(system(command), 0);
}

/* ---- failures: only "in" is left in the scratch directory */

static void assert_nothing_left(void)
{
    assert_int_equal(unit_entries(unit_dir), 1);
}

static void test_weights_that_are_not_finite(void **state)
{
    (void)state;
    static const uint16_t bad[] = {0x7f80, 0xff80, 0x7fc0};
    const char *tensor = "model.layers.2.self_attn.v_proj.weight";
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        mq_error error = {0};
        const mq_quantize_options o = options_of(MQ_LAYOUT_MODELOPT, MQ_SCALES_RTN, "out");
        patch("in", tensor, 2 * 777, &bad[i], 2);
        unit_refused(mq_quantize_checkpoint(&o, &error), MQ_FORMAT, &error, tensor);
        assert_nothing_left();
    }
}

static void test_what_is_refused(void **state)
{
    (void)state;
    mq_error error = {0};
    mq_quantize_options o = options_of(MQ_LAYOUT_COMPRESSED_TENSORS, MQ_SCALES_RTN, "in");
    unit_refused(mq_quantize_checkpoint(&o, &error), MQ_USAGE, &error, "empty directory");
    o.out_dir = NULL;
    unit_refused(mq_quantize_checkpoint(&o, &error), MQ_USAGE, &error, "options");
    o.out_dir = unit_path("out");
    o.in_dir = unit_path("absent");
    unit_refused(mq_quantize_checkpoint(&o, &error), MQ_IO, &error, "absent");
    assert_nothing_left();
    /* What is quantised already. */
    quantize(MQ_LAYOUT_COMPRESSED_TENSORS, MQ_SCALES_RTN, "out");
    o = options_of(MQ_LAYOUT_COMPRESSED_TENSORS, MQ_SCALES_RTN, "again");
    o.in_dir = unit_path("out");
    unit_refused(mq_quantize_checkpoint(&o, &error), MQ_UNSUPPORTED, &error, "dense");
    assert_int_equal(unit_entries(unit_dir), 2);
    mq_checkpoint_layout layout;
    assert_int_equal(mq_checkpoint_layout_parse("modelopt", &layout, &error), MQ_OK);
    assert_int_equal(layout, MQ_LAYOUT_MODELOPT);
    unit_refused(mq_checkpoint_layout_parse("gguf", &layout, &error), MQ_USAGE, &error, "gguf");
}

static bool stop_at_nine(void *context, uint32_t done, uint32_t total)
{
    assert_int_equal(total, LAYERS * MODULES);
    *(uint32_t *)context = done;
    return done < 9;
}

static void test_cancelled(void **state)
{
    (void)state;
    uint32_t done = 0;
    mq_error error = {0};
    mq_quantize_options o = options_of(MQ_LAYOUT_COMPRESSED_TENSORS, MQ_SCALES_RTN, "out");
    o.progress = stop_at_nine;
    o.context = &done;
    unit_refused(mq_quantize_checkpoint(&o, &error), MQ_CANCELLED, &error, "cancelled");
    assert_int_equal(done, 9);
    assert_nothing_left();
}

/* A limit on the size of files stands for a full disk. */
static void test_full_disk(void **state)
{
    (void)state;
    struct rlimit old, limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    (void)signal(SIGXFSZ, SIG_IGN);
    for (rlim_t bytes = 500; bytes < 200000; bytes *= 3) {
        mq_error error = {0};
        const mq_quantize_options o = options_of(MQ_LAYOUT_MODELOPT, MQ_SCALES_RTN, "out");
        limit = old;
        limit.rlim_cur = bytes;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        const mq_status status = mq_quantize_checkpoint(&o, &error);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        unit_refused(status, MQ_WRITE, &error, "out");
        assert_nothing_left();
    }
}

static void test_allocation_failures(void **state)
{
    (void)state;
    mq_quantize_options o = options_of(MQ_LAYOUT_COMPRESSED_TENSORS, MQ_SCALES_RTN, "out");
    o.threads = 1;
    /* jansson's allocations count as well, so there are thousands: all of the first, then every 17th. */
    for (unsigned long n = 1;; n += n < 200 ? 1 : 17) {
        mq_error error = {0};
        (void)mq__alloc_fail_at(n);
        const mq_status status = mq_quantize_checkpoint(&o, &error);
        const unsigned long made = mq__alloc_fail_at(0);
        if (status == MQ_OK) {
            assert_true(made < n);
            break;
        }
        unit_refused(status, MQ_NO_MEMORY, &error, "memory");
        assert_nothing_left();
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, unit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_layouts),
        TEST(test_bytes_of_every_rule),
        TEST(test_layouts_mean_the_same),
        TEST(test_sharded_input),
        TEST(test_configs),
        TEST(test_other_files),
        TEST(test_ignored_modules),
        TEST(test_threads),
        TEST(test_weights_that_are_not_finite),
        TEST(test_what_is_refused),
        TEST(test_cancelled),
        TEST(test_full_disk),
        TEST(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
