/* Synthetic checkpoints: complete, of the published shape, reproducible, and whole or absent. */
#include "base/halffloat.h"
#include "base/mem.h"
#include "engine/synth_shapes.h"
#include "format/checkpoint.h"
#include "format/checkpoint_write.h"
#include "unit_files.h"

#include <signal.h>
#include <sys/resource.h>

static mq_status synth(const char *shape, uint32_t layers, uint64_t seed, const char *name, mq_error *error)
{
    return mq_synth_checkpoint(
        &(mq_synth_options){.shape = shape, .layers = layers, .seed = seed, .out_dir = unit_path(name)}, error);
}

static mq_checkpoint *opened(const char *name)
{
    mq_checkpoint *checkpoint;
    mq_error error = {0};
    if (mq__checkpoint_open(unit_path(name), &checkpoint, &error) != MQ_OK) fail_msg("%s", error.text);
    return checkpoint;
}

/* All the weights of the tiny shapes are there with the shapes that config.json implies: the engine opens them. */
static void test_tiny_shapes_open(void **state)
{
    (void)state;
    int tiny = 0;
    for (size_t i = 0; mq_synth_shape_name(i); i++) {
        const char *shape = mq_synth_shape_name(i);
        mq_error error = {0};
        mq_engine *engine;
        mq_text *text;
        if (strncmp(shape, "tiny-", 5) != 0) continue;
        tiny++;
        if (synth(shape, 0, 1, shape, &error) != MQ_OK) fail_msg("%s", error.text);
        const mq_engine_options options = {.model_dir = unit_path(shape),
                                           .threads = 1,
                                           .context = 64,
                                           .no_cache = true,
                                           .plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16}};
        if (mq_engine_open(&options, &engine, &error) != MQ_OK) fail_msg("%s", error.text);
        mq_engine_info info;
        mq_engine_describe(engine, &info);
        const mq_synth_shape *expected = mq__synth_shape_find(shape);
        assert_int_equal(info.layers, expected->layers);
        assert_int_equal(info.vocab, expected->vocab);
        assert_int_equal(info.eos_count, 2);
        mq_engine_close(engine);
        assert_int_equal(mq_text_open(unit_path(shape), NULL, &text, &error), MQ_OK);
        mq_text_close(text);
    }
    assert_int_equal(tiny, 8);
}

/* Every byte is the token of its number; the specials follow and are parsed; the template renders. */
static void test_tokenizer(void **state)
{
    (void)state;
    mq_error error = {0};
    mq_text *text;
    char bytes[4096], *back, *prompt;
    int32_t *tokens;
    size_t count, back_count, used = 0;
    assert_int_equal(synth("tiny-qwen3", 1, 1, "t", &error), MQ_OK);
    if (mq_text_open(unit_path("t"), NULL, &text, &error) != MQ_OK) fail_msg("%s", error.text);
    for (int code = 0; code < 0x800; code++) { /* all bytes that such UTF-8 has */
        if (code >= 0x80) bytes[used++] = (char)(0xc0 | code >> 6);
        bytes[used++] = (char)(code < 0x80 ? code : 0x80 | (code & 0x3f));
    }
    if (mq_tokenize(text, bytes, used, MQ_TOKENIZE_ADD_SPECIAL, &tokens, &count, &error) != MQ_OK) {
        fail_msg("%s", error.text);
    }
    assert_int_equal(count, used);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(tokens[i], (uint8_t)bytes[i]);
    }
    mq_free(tokens);
    static const char accents[] = "\xc3\xa9\xe2\x82\xac<|im_end|>";
    static const int32_t expected[] = {0xc3, 0xa9, 0xe2, 0x82, 0xac, MQ_SYNTH_IM_END};
    assert_int_equal(mq_tokenize(text, accents, strlen(accents), MQ_TOKENIZE_PARSE_SPECIAL, &tokens, &count, &error),
                     MQ_OK);
    assert_int_equal(count, 6);
    assert_memory_equal(tokens, expected, sizeof expected);
    assert_int_equal(mq_detokenize(text, tokens, count, false, &back, &back_count, &error), MQ_OK);
    assert_string_equal(back, accents);
    mq_free(back);
    mq_free(tokens);
    static const char request[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"add_generation_prompt\":true}";
    if (mq_render(text, request, strlen(request), &prompt, &count, &error) != MQ_OK) fail_msg("%s", error.text);
    assert_string_equal(prompt, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    mq_free(prompt);
    mq_text_close(text);
}

/* The shapes of the models' published config.json. */
static void test_published_shapes(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t parameters; /* of the published model */
    } known[] = {
        {"qwen3-0.6b", 596049920},    {"qwen3-1.7b", 1720574976},   {"qwen3-4b", 4022468096},
        {"qwen3-8b", 8190735360},     {"qwen3-14b", 14768307200},   {"qwen3-32b", 32762123264},
        {"qwen2.5-0.5b", 494032768},  {"qwen2.5-1.5b", 1543714304}, {"qwen2.5-3b", 3085938688},
        {"qwen2.5-7b", 7615616512},   {"llama-3.2-1b", 1235814400}, {"llama-3.2-3b", 3212749824},
        {"llama-3.1-8b", 8030261248},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        const mq_synth_shape *s = mq__synth_shape_find(known[i].name);
        assert_non_null(s);
        const uint64_t q = (uint64_t)s->heads * s->head_dim, kv = (uint64_t)s->kv_heads * s->head_dim;
        uint64_t layer =
            2 * (uint64_t)s->width + 2 * q * s->width + 2 * kv * s->width + 3 * (uint64_t)s->width * s->ffn;
        if (s->architecture == MQ_ARCH_QWEN2) layer += q + 2 * kv;
        if (s->architecture == MQ_ARCH_QWEN3) layer += 2 * (uint64_t)s->head_dim;
        const uint64_t total = layer * s->layers + s->width + (uint64_t)s->vocab * s->width * (s->tied ? 1 : 2);
        assert_int_equal(total, known[i].parameters);
    }
    assert_null(mq__synth_shape_find("qwen3-0.6B"));
    assert_null(mq__synth_shape_find(""));
}

/* The config of every shape means what the table says, by the reader's account. */
static void test_configs(void **state)
{
    (void)state;
    const mq_synth_shape *s;
    for (size_t i = 0; (s = mq__synth_shape_at(i)) != NULL; i++) {
        mq_model_config c;
        mq_error error = {0};
        json_t *config = mq__synth_config(s, s->layers);
        assert_non_null(config);
        assert_int_equal(json_dump_file(config, unit_path("config.json"), 0), 0);
        json_decref(config);
        if (mq__model_config_read(unit_dir, &c, &error) != MQ_OK) fail_msg("%s: %s", s->name, error.text);
        assert_int_equal(c.architecture, s->architecture);
        assert_int_equal(c.layers, s->layers);
        assert_int_equal(c.width, s->width);
        assert_int_equal(c.ffn, s->ffn);
        assert_int_equal(c.heads, s->heads);
        assert_int_equal(c.kv_heads, s->kv_heads);
        assert_int_equal(c.head_dim, s->head_dim);
        assert_int_equal(c.vocab, s->vocab);
        assert_int_equal(c.max_positions, s->max_positions);
        assert_int_equal(c.tied_head, s->tied);
        assert_true(c.norm_eps == s->eps && c.rope.theta == s->theta);
        const mq_rope_type type = s->llama3_factor > 0 ? MQ_ROPE_LLAMA3
                                  : s->yarn_factor > 0 ? MQ_ROPE_YARN
                                                       : MQ_ROPE_DEFAULT;
        assert_int_equal(c.rope.type, type);
        if (type == MQ_ROPE_LLAMA3) assert_true(c.rope.factor == s->llama3_factor);
        if (type == MQ_ROPE_LLAMA3 && s->max_positions > 8192) assert_int_equal(c.rope.original_positions, 8192);
        assert_true(s->vocab >= MQ_SYNTH_TOKENS);
    }
}

/* Mean and deviation of a BF16 tensor. */
static void moments(const mq_tensor *t, double *mean, double *deviation)
{
    double sum = 0, squares = 0;
    const size_t count = t->bytes / 2;
    assert_int_equal(t->dtype, MQ_DTYPE_BF16);
    for (size_t i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, t->data + 2 * i, 2);
        const double value = (double)mq__bf16_to_f32(half);
        sum += value;
        squares += value * value;
    }
    *mean = sum / (double)count;
    *deviation = sqrt(squares / (double)count - *mean * *mean);
}

static void test_weights_are_normal(void **state)
{
    (void)state;
    mq_error error = {0};
    double mean, deviation;
    assert_int_equal(synth("tiny-qwen2", 0, 1, "q", &error), MQ_OK);
    mq_checkpoint *c = opened("q");
    static const struct {
        const char *name;
        double mean, deviation;
    } expected[] = {
        {"model.embed_tokens.weight", 0, 0.1336},           /* 1/sqrt(56): the tied head */
        {"model.layers.2.mlp.down_proj.weight", 0, 0.0913}, /* 1/sqrt(120) */
        {"model.layers.0.self_attn.q_proj.weight", 0, 0.1336},
        {"model.layers.0.input_layernorm.weight", 1, 0.05},
        {"model.layers.1.self_attn.k_proj.bias", 0, 0.1},
    };
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        const mq_tensor *t = mq__checkpoint_find(c, expected[i].name);
        assert_non_null(t);
        moments(t, &mean, &deviation);
        const double slack = 4 / sqrt((double)t->bytes / 2);
        assert_true(fabs(mean - expected[i].mean) < expected[i].deviation * slack);
        assert_true(fabs(deviation / expected[i].deviation - 1) < slack);
    }
    assert_null(mq__checkpoint_find(c, "lm_head.weight"));
    /* Two tensors of one shape differ. */
    const mq_tensor *k = mq__checkpoint_find(c, "model.layers.0.self_attn.k_proj.weight");
    const mq_tensor *v = mq__checkpoint_find(c, "model.layers.0.self_attn.v_proj.weight");
    assert_true(k && v && k->bytes == v->bytes);
    assert_memory_not_equal(k->data, v->data, k->bytes);
    mq__checkpoint_close(c);
}

static bool same_tensor(const mq_checkpoint *a, const mq_checkpoint *b, const char *name)
{
    const mq_tensor *x = mq__checkpoint_find(a, name), *y = mq__checkpoint_find(b, name);
    assert_true(x && y && x->bytes == y->bytes);
    return memcmp(x->data, y->data, x->bytes) == 0;
}

static void test_seeds_and_cuts(void **state)
{
    (void)state;
    mq_error error = {0};
    assert_int_equal(synth("tiny-llama", 0, 1, "a", &error), MQ_OK);
    assert_int_equal(synth("tiny-llama", 3, 1, "b", &error), MQ_OK);
    assert_int_equal(synth("tiny-llama", 0, 2, "c", &error), MQ_OK);
    assert_int_equal(synth("tiny-llama", 1, 1, "cut", &error), MQ_OK);
    mq_checkpoint *a = opened("a"), *b = opened("b"), *c = opened("c"), *cut = opened("cut");
    const mq_safetensors *file = mq__checkpoint_shard(a, 0);
    assert_int_equal(file->count, 3 + 3 * 9);
    for (size_t i = 0; i < file->count; i++) {
        assert_true(same_tensor(a, b, file->tensors[i].name));
        assert_false(same_tensor(a, c, file->tensors[i].name));
    }
    assert_int_equal(mq__checkpoint_shard(cut, 0)->count, 3 + 9);
    for (size_t i = 0; i < mq__checkpoint_shard(cut, 0)->count; i++) {
        assert_true(same_tensor(a, cut, mq__checkpoint_shard(cut, 0)->tensors[i].name));
    }
    mq__checkpoint_close(a);
    mq__checkpoint_close(b);
    mq__checkpoint_close(c);
    mq__checkpoint_close(cut);
}

static void test_refusals(void **state)
{
    (void)state;
    mq_error error = {0};
    char *dir;
    unit_refused(synth("gpt-2", 0, 1, "x", &error), MQ_USAGE, &error, "gpt-2");
    unit_refused(synth(NULL, 0, 1, "x", &error), MQ_USAGE, &error, "shape");
    unit_refused(synth("tiny-llama", 4, 1, "x", &error), MQ_USAGE, &error, "at most 3 layers");
    unit_refused(mq_synth_checkpoint(&(mq_synth_options){.shape = "tiny-llama"}, &error), MQ_USAGE, &error, "output");
    unit_refused(mq_synth_cached("../x", 0, unit_dir, &dir, &error), MQ_USAGE, &error, "../x");
    assert_null(dir);
    unit_puts("full", "a file");
    assert_int_not_equal(synth("tiny-llama", 0, 1, "full", &error), MQ_OK);
    assert_int_equal(mkdir(unit_path("used"), 0755), 0);
    unit_puts("used/mine", "kept");
    unit_refused(synth("tiny-llama", 0, 1, "used", &error), MQ_USAGE, &error, "used");
    assert_int_equal(unit_entries(unit_path("used")), 1);
    unit_refused(mq_synth_checkpoint(&(mq_synth_options){.shape = "tiny-llama", .out_dir = "/proc/no/such"}, &error),
                 MQ_WRITE, &error, "/proc/no");
    assert_int_equal(unit_entries(unit_dir), 2);
}

static void test_cached(void **state)
{
    (void)state;
    mq_error error = {0};
    char *dir, *again, *whole;
    struct stat first, second;
    assert_int_equal(mq_synth_cached("tiny-qwen3", 2, unit_dir, &dir, &error), MQ_OK);
    assert_string_equal(dir, unit_path("synth/tiny-qwen3-L2"));
    assert_int_equal(stat(unit_path("synth/tiny-qwen3-L2/model.safetensors"), &first), 0);
    assert_int_equal(mq_synth_cached("tiny-qwen3", 2, unit_dir, &again, &error), MQ_OK);
    assert_string_equal(dir, again);
    assert_int_equal(stat(unit_path("synth/tiny-qwen3-L2/model.safetensors"), &second), 0);
    assert_int_equal(first.st_ino, second.st_ino); /* not made anew */
    /* All layers by number or by default are one model. */
    assert_int_equal(mq_synth_cached("tiny-qwen3", 3, unit_dir, &whole, &error), MQ_OK);
    assert_string_equal(whole, unit_path("synth/tiny-qwen3"));
    assert_int_equal(unit_entries(unit_path("synth")), 2);
    mq_free(dir);
    mq_free(again);
    mq_free(whole);
    /* The cache folder of the environment. */
    const char *before = getenv("XDG_CACHE_HOME");
    char *kept = before ? strdup(before) : NULL;
    assert_int_equal(setenv("XDG_CACHE_HOME", unit_path("xdg"), 1), 0);
    assert_int_equal(mq_synth_cached("tiny-qwen3", 1, NULL, &dir, &error), MQ_OK);
    assert_string_equal(dir, unit_path("xdg/mixquant/synth/tiny-qwen3-L1"));
    mq_free(dir);
    if (kept)
        (void)setenv("XDG_CACHE_HOME", kept, 1);
    else
        (void)unsetenv("XDG_CACHE_HOME");
    free(kept);
}

static void test_full_disk_leaves_nothing(void **state)
{
    (void)state;
    struct rlimit before, low;
    mq_error error = {0};
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    low = before;
    (void)signal(SIGXFSZ, SIG_IGN);
    static const rlim_t sizes[] = {0, 700, 5000, 6000, 100000, 300000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        low.rlim_cur = sizes[i];
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
        const mq_status status = synth("tiny-llama", 0, 1, "x", &error);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        unit_refused(status, MQ_WRITE, &error, "/x");
        assert_int_equal(unit_entries(unit_dir), 0);
    }
}

static void test_allocation_failures(void **state)
{
    (void)state;
    /* jansson's allocations count as well, so there are thousands: all of the first, then every 17th. */
    for (unsigned long n = 1;; n += n < 200 ? 1 : 17) {
        mq_error error = {0};
        char *dir;
        (void)mq__alloc_fail_at(n);
        const mq_status status = mq_synth_cached("tiny-qwen2", 1, unit_path("c"), &dir, &error);
        const unsigned long made = mq__alloc_fail_at(0);
        if (status == MQ_OK) {
            assert_true(made < n && n > 10);
            mq_free(dir);
            return;
        }
        unit_refused(status, MQ_NO_MEMORY, &error, NULL);
        assert_null(dir);
        assert_true(unit_entries(unit_path("c/synth")) <= 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, unit_setup, unit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_tiny_shapes_open),
        TEST(test_tokenizer),
        TEST(test_published_shapes),
        TEST(test_configs),
        TEST(test_weights_are_normal),
        TEST(test_seeds_and_cuts),
        TEST(test_refusals),
        TEST(test_cached),
        TEST(test_full_disk_leaves_nothing),
        TEST(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
