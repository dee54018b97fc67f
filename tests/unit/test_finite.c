/* Numbers that are none are errors that say where they came up, whatever weight brings them in. */
#include "base/cpu.h"
#include "format/checkpoint.h"
#include "model/finite.h"
#include "unit_files.h"

static void test_logits(void **state)
{
    (void)state;
    enum { VOCAB = 1003 };
    static float logits[VOCAB];
    mq_error error = {0};
    for (int i = 0; i < VOCAB; i++) {
        logits[i] = (float)(i % 17) - 8.5f;
    }
    assert_int_equal(mq__logits_check(logits, VOCAB, &error), MQ_OK);
    logits[3] = -3e38f;
    logits[4] = 3e38f;
    assert_int_equal(mq__logits_check(logits, VOCAB, &error), MQ_OK);
    static const int places[] = {0, 5, 512, VOCAB - 1};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        const float kept = logits[places[i]];
        char names[32];
        snprintf(names, sizeof names, "token %d:", places[i]);
        logits[places[i]] = NAN;
        unit_refused(mq__logits_check(logits, VOCAB, &error), MQ_FORMAT, &error, names);
        assert_non_null(strstr(error.text, "got nan"));
        logits[places[i]] = -NAN;
        unit_refused(mq__logits_check(logits, VOCAB, &error), MQ_FORMAT, &error, names);
        logits[places[i]] = INFINITY;
        unit_refused(mq__logits_check(logits, VOCAB, &error), MQ_FORMAT, &error, names);
        logits[places[i]] = -INFINITY;
        unit_refused(mq__logits_check(logits, VOCAB, &error), MQ_FORMAT, &error, names);
        logits[places[i]] = kept;
    }
    assert_int_equal(mq__logits_check(logits, VOCAB, &error), MQ_OK);
}

static void test_embedding_rows(void **state)
{
    (void)state;
    static const uint16_t bf16[] = {0x3f80, 0x7f7f, 0x3f80, 0x7f80, 0xffc0, 0};
    static const uint16_t f16[] = {0x3c00, 0x7bff, 0x3c00, 0x7c00, 0xfe00, 0};
    const float f32[] = {1, 3e38f, 1, INFINITY, -NAN, 0};
    const struct {
        const void *data;
        mq_dense_type type;
    } cases[] = {{bf16, MQ_DENSE_BF16}, {f16, MQ_DENSE_F16}, {f32, MQ_DENSE_F32}};
    for (size_t i = 0; i < 3; i++) {
        mq_error error = {0};
        const mq_model model = {.embedding = {.data = cases[i].data, .type = cases[i].type, .n = 3, .k_width = 2}};
        assert_int_equal(mq__embedding_check(&model, (const int32_t[]){0, 0}, 2, &error), MQ_OK);
        unit_refused(mq__embedding_check(&model, (const int32_t[]){0, 1}, 2, &error), MQ_FORMAT, &error, "token 1");
        unit_refused(mq__embedding_check(&model, (const int32_t[]){2}, 1, &error), MQ_FORMAT, &error, "token 2");
    }
}

static void synth(const char *shape)
{
    mq_error error = {0};
    const mq_synth_options options = {.shape = shape, .seed = 5, .out_dir = unit_path("m")};
    if (mq_synth_checkpoint(&options, &error) != MQ_OK) fail_msg("%s", error.text);
}

/* Swaps one BF16 value of a tensor; returns what was there. */
static uint16_t swap(const char *tensor, size_t index, uint16_t value)
{
    mq_checkpoint *c;
    uint16_t before;
    assert_int_equal(mq__checkpoint_open(unit_path("m"), &c, NULL), MQ_OK);
    const mq_tensor *t = mq__checkpoint_find(c, tensor);
    if (!t) fail_msg("no tensor %s", tensor);
    memcpy(&before, t->data + 2 * index, 2);
    const long offset = (long)(t->data - mq__checkpoint_shard(c, 0)->map.data) + 2 * (long)index;
    mq__checkpoint_close(c);
    FILE *file = fopen(unit_path("m/model.safetensors"), "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, offset, SEEK_SET), 0);
    assert_int_equal(fwrite(&value, 2, 1, file), 1);
    assert_int_equal(fclose(file), 0);
    return before;
}

/* The first error of opening, a prompt of 40 tokens and two steps. */
static mq_status run_model(mq_linear_format prefill, mq_linear_format decode, mq_attention_format attention,
                           mq_error *error)
{
    mq_engine *engine;
    mq_sequence *sequence = NULL;
    int32_t prompt[40];
    const mq_engine_options options = {.model_dir = unit_path("m"),
                                       .plan = {.prefill = prefill, .decode = decode, .attention = attention},
                                       .threads = 2,
                                       .context = 64,
                                       .no_cache = true};
    for (int i = 0; i < 40; i++) {
        prompt[i] = 1 + i % 7;
    }
    mq_status s = mq_engine_open(&options, &engine, error);
    if (s != MQ_OK) return s;
    s = mq_sequence_new(engine, &sequence, error);
    if (s == MQ_OK) s = mq_sequence_sync(sequence, prompt, 40, NULL, NULL, error);
    if (s != MQ_OK && sequence) assert_null(mq_sequence_logits(sequence));
    for (int i = 0; s == MQ_OK && i < 2; i++) {
        s = mq_sequence_step(sequence, 3, error);
    }
    mq_sequence_free(sequence);
    mq_engine_close(engine);
    return s;
}

static const struct {
    mq_linear_format prefill, decode;
    mq_attention_format attention;
} plans[] = {{MQ_LINEAR_BF16, MQ_LINEAR_BF16, MQ_ATTENTION_BF16},
             {MQ_LINEAR_NVFP4, MQ_LINEAR_BF16, MQ_ATTENTION_INT8},
             {MQ_LINEAR_NVFP4, MQ_LINEAR_NVFP4, MQ_ATTENTION_BF16},
             {MQ_LINEAR_INT8, MQ_LINEAR_INT8, MQ_ATTENTION_INT8},
             {MQ_LINEAR_W16A16, MQ_LINEAR_BF16, MQ_ATTENTION_W16A16}};

static void check_tensor(const char *isa, const char *tensor, size_t index, uint16_t value)
{
    const uint16_t before = swap(tensor, index, value);
    for (size_t i = 0; i < sizeof plans / sizeof plans[0]; i++) {
        mq_error error = {0};
        if (run_model(plans[i].prefill, plans[i].decode, plans[i].attention, &error) != MQ_FORMAT) {
            fail_msg("%s: plan %zu: %s[%zu] = %04x: %s", isa, i, tensor, index, value, error.text);
        }
    }
    (void)swap(tensor, index, before);
}

/* Each kind of matrix, each plan, each level of kernels: none runs on to an answer. */
static void test_weights(void **state)
{
    (void)state;
    static const char *const tensors[] = {"model.embed_tokens.weight",
                                          "lm_head.weight",
                                          "model.norm.weight",
                                          "model.layers.0.input_layernorm.weight",
                                          "model.layers.0.self_attn.q_proj.weight",
                                          "model.layers.0.self_attn.k_proj.weight",
                                          "model.layers.0.self_attn.v_proj.weight",
                                          "model.layers.0.self_attn.o_proj.weight",
                                          "model.layers.0.mlp.gate_proj.weight",
                                          "model.layers.0.mlp.up_proj.weight",
                                          "model.layers.1.mlp.down_proj.weight"};
    static const uint16_t values[] = {0x7fc0, 0x7f80, 0xff80}; /* NaN, infinities */
    synth("tiny-llama");
    mq_engine_info info;
    mq_engine *engine;
    assert_int_equal(mq_engine_open(&(mq_engine_options){.model_dir = unit_path("m"), .no_cache = true}, &engine, NULL),
                     MQ_OK);
    mq_engine_describe(engine, &info);
    const uint32_t width = info.width;
    mq_engine_close(engine);
    for (mq_isa l = MQ_ISA_REF; l < MQ_ISA_COUNT; l = (mq_isa)(l + 1)) {
        const char *level = mq__isa_name(l);
        mq_error error = {0};
        assert_int_equal(setenv("MQ_ISA", level, 1), 0);
        for (size_t i = 0; i < sizeof plans / sizeof plans[0]; i++) {
            if (run_model(plans[i].prefill, plans[i].decode, plans[i].attention, &error) != MQ_OK) {
                fail_msg("%s: %s", level, error.text);
            }
        }
        for (size_t t = 0; t < sizeof tensors / sizeof tensors[0]; t++) {
            for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
                check_tensor(level, tensors[t], t == 0 ? 3 * width + 5 : 1, values[v]); /* the row of token 3 */
            }
        }
    }
    assert_int_equal(unsetenv("MQ_ISA"), 0);
}

/* A cap of logits leaves no finite number of one that is none. Row 200 of the tied embedding is read as the head's alone. */
static void test_capped_logits(void **state)
{
    (void)state;
    synth("tiny-gemma4");
    for (mq_isa l = MQ_ISA_REF; l < MQ_ISA_COUNT; l = (mq_isa)(l + 1)) {
        assert_int_equal(setenv("MQ_ISA", mq__isa_name(l), 1), 0);
        mq_error error = {0};
        if (run_model(MQ_LINEAR_BF16, MQ_LINEAR_BF16, MQ_ATTENTION_BF16, &error) != MQ_OK) fail_msg("%s", error.text);
        check_tensor(mq__isa_name(l), "model.embed_tokens.weight", 200 * 80 + 5, 0x7fc0);
    }
    assert_int_equal(unsetenv("MQ_ISA"), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, unit_setup, unit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_logits),
        TEST(test_embedding_rows),
        TEST(test_weights),
        TEST(test_capped_logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
