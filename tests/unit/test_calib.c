/* Calibration: GPTQ against its textbook form and against rounding to nearest; smoothing that changes no bit; the choice of a
 * plan against all choices; refusals and failing allocations. */
#include "base/halffloat.h"
#include "base/json_read.h"
#include "base/mem.h"
#include "format/checkpoint_write.h"
#include "quantize/gptq.h"
#include "quantize/sensitivity.h"
#include "quantize/smoothquant.h"
#include "unit_files.h"

enum { TEXT = 60, TEXTS = 3, LAYERS = 3 };
static int32_t tokens[TEXTS][TEXT];
static mq_token_span texts[TEXTS];

static int setup(void **state)
{
    if (unit_setup(state) != 0) return -1;
    uint32_t seed = 5;
    for (int i = 0; i < TEXTS; i++) {
        for (int t = 0; t < TEXT; t++) {
            seed = seed * 1664525 + 1013904223;
            tokens[i][t] = (int32_t)(seed >> 24);
        }
        texts[i] = (mq_token_span){tokens[i], TEXT};
    }
    const mq_synth_options options = {.shape = "tiny-qwen3", .seed = 7, .out_dir = unit_path("in")};
    return mq_synth_checkpoint(&options, NULL) == MQ_OK ? 0 : -1;
}

/* ---- GPTQ */

enum { WIDTH = 160, ROWS = 13, SAMPLES = 400 }; /* more than a block of lazy columns */

static float normal(uint32_t *seed)
{
    float sum = 0;
    for (int i = 0; i < 12; i++) {
        *seed = *seed * 1664525 + 1013904223;
        sum += (float)(*seed >> 8) * 0x1p-24f;
    }
    return sum - 6;
}

static float weights[ROWS * WIDTH], moments[WIDTH * WIDTH];

/* Inputs that are mixtures, with one dead channel. */
static void make_problem(void)
{
    uint32_t seed = 11;
    float x[WIDTH];
    for (int i = 0; i < ROWS * WIDTH; i++) {
        weights[i] = normal(&seed) * 0.05f;
    }
    memset(moments, 0, sizeof moments);
    for (int s = 0; s < SAMPLES; s++) {
        float common = normal(&seed);
        for (int i = 0; i < WIDTH; i++) {
            common = 0.7f * common + 0.7f * normal(&seed);
            x[i] = i == 37 ? 0 : common * (float)(1 + i % 5);
        }
        for (int i = 0; i < WIDTH; i++) {
            for (int k = 0; k < WIDTH; k++) {
                moments[i * WIDTH + k] += x[i] * x[k];
            }
        }
    }
}

/* (w - q) H (w - q)^T over all rows: the squared change of the outputs. */
static double output_error(const uint8_t *nibbles, const uint8_t *scales, float multiplier)
{
    double sum = 0;
    for (int r = 0; r < ROWS; r++) {
        float q[WIDTH];
        mq__nvfp4_dequantize_row(nibbles + r * WIDTH / 2, scales + r * WIDTH / 16, multiplier, WIDTH, q);
        for (int i = 0; i < WIDTH; i++) {
            for (int k = 0; k < WIDTH; k++) {
                sum += (double)(weights[r * WIDTH + i] - q[i]) * (double)moments[i * WIDTH + k] *
                       (double)(weights[r * WIDTH + k] - q[k]);
            }
        }
    }
    return sum;
}

static double damped[WIDTH][2 * WIDTH], inverse[WIDTH][WIDTH];

/* The inverse of the damped moments by Gauss-Jordan. */
static void invert(double damping)
{
    double mean = 0;
    for (int i = 0; i < WIDTH; i++) {
        mean += (double)moments[i * WIDTH + i] / WIDTH;
    }
    for (int i = 0; i < WIDTH; i++) {
        for (int k = 0; k < WIDTH; k++) {
            damped[i][k] = (double)moments[i * WIDTH + k] + (i == k ? damping * mean : 0);
            damped[i][WIDTH + k] = i == k;
        }
    }
    for (int p = 0; p < WIDTH; p++) {
        const double pivot = damped[p][p];
        for (int k = 0; k < 2 * WIDTH; k++) {
            damped[p][k] /= pivot;
        }
        for (int i = 0; i < WIDTH; i++) {
            const double by = damped[i][p];
            for (int k = 0; i != p && k < 2 * WIDTH; k++) {
                damped[i][k] -= by * damped[p][k];
            }
        }
    }
    for (int i = 0; i < WIDTH; i++) {
        memcpy(inverse[i], damped[i] + WIDTH, sizeof inverse[i]);
    }
}

/* The textbook: after each column all later weights move by the error through the inverse, from which the column is then
 * eliminated (Optimal Brain Quantization in a fixed order). */
static void quantize_by_the_book(mq_nvfp4_rule rule, mq_nvfp4_scale scale, int row, float q[WIDTH])
{
    double w[WIDTH];
    invert(0.01);
    for (int i = 0; i < WIDTH; i++) {
        w[i] = (double)weights[row * WIDTH + i];
    }
    float step = 0;
    for (int i = 0; i < WIDTH; i++) {
        if (i % 16 == 0) {
            float block[16];
            uint8_t nibbles[8], byte;
            for (int k = 0; k < 16; k++) {
                block[k] = (float)w[i + k];
            }
            mq__nvfp4_quantize_row(rule, scale, block, MQ_WEIGHT_F32, 16, nibbles, &byte);
            step = mq__e4m3_decode(byte) * scale.multiplier;
        }
        q[i] = mq__e2m1_decode(mq__e2m1_encode((float)w[i] / step)) * step;
        const double error = (w[i] - (double)q[i]) / inverse[i][i], of_i = inverse[i][i];
        double line[WIDTH];
        memcpy(line, inverse[i], sizeof line);
        for (int k = i + 1; k < WIDTH; k++) {
            w[k] -= error * line[k];
            for (int m = i + 1; m < WIDTH; m++) {
                inverse[k][m] -= line[k] * line[m] / of_i;
            }
        }
    }
}

static float *factor_u(void)
{
    float *u;
    mq_pool *pool;
    mq_error error = {0};
    assert_int_equal(mq__pool_new(3, &pool, NULL), MQ_OK);
    if (mq__gptq_factor(moments, NULL, WIDTH, 0.01, pool, &u, &error) != MQ_OK) fail_msg("%s", error.text);
    mq__pool_free(pool);
    return u;
}

static void test_gptq(void **state)
{
    (void)state;
    static const mq_nvfp4_rule rules[] = {MQ_NVFP4_RTN, MQ_NVFP4_MODELOPT, MQ_NVFP4_FOUR_SIX, MQ_NVFP4_SWEEP};
    make_problem();
    float *u = factor_u(), *scratch = mq__alloc(mq__gptq_scratch_bytes(WIDTH));
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        static uint8_t nibbles[ROWS * WIDTH / 2], scales[ROWS * WIDTH / 16], nearest[sizeof nibbles];
        static uint8_t nearest_scales[sizeof scales];
        const mq_nvfp4_scale scale =
            mq__nvfp4_scale(rules[i], mq__weights_amax(weights, MQ_WEIGHT_F32, sizeof weights / sizeof *weights));
        mq__gptq_quantize_rows(u, rules[i], scale, weights, ROWS, WIDTH, nibbles, scales, scratch);
        for (int r = 0; r < ROWS; r++) {
            mq__nvfp4_quantize_row(rules[i], scale, weights + r * WIDTH, MQ_WEIGHT_F32, WIDTH, nearest + r * WIDTH / 2,
                                   nearest_scales + r * WIDTH / 16);
        }
        const double gptq = output_error(nibbles, scales, scale.multiplier);
        const double rtn = output_error(nearest, nearest_scales, scale.multiplier);
        assert_true(gptq > 0 && gptq < 0.7 * rtn);
        int same = 0;
        for (int r = 0; r < 3; r++) {
            float book[WIDTH], ours[WIDTH];
            quantize_by_the_book(rules[i], scale, r, book);
            mq__nvfp4_dequantize_row(nibbles + r * WIDTH / 2, scales + r * WIDTH / 16, scale.multiplier, WIDTH, ours);
            for (int k = 0; k < WIDTH; k++) {
                same += fabsf(book[k] - ours[k]) <= 1e-6f;
            }
        }
        /* A tie that rounds the other way moves all that follows in its row: rare. */
        assert_true(same > 3 * WIDTH * 9 / 10);
    }
    mq__free(scratch);
    mq__free_aligned(u);
}

/* White inputs have nothing to make up for errors with: nearest values. */
static void test_gptq_of_white_inputs_is_nearest(void **state)
{
    (void)state;
    make_problem();
    memset(moments, 0, sizeof moments);
    for (int i = 0; i < WIDTH; i++) {
        moments[i * WIDTH + i] = (float)(i + 1);
    }
    float *u = factor_u(), *scratch = mq__alloc(mq__gptq_scratch_bytes(WIDTH));
    const mq_nvfp4_scale scale = mq__nvfp4_scale(MQ_NVFP4_FOUR_SIX, 0.5f);
    uint8_t a[WIDTH / 2], as[WIDTH / 16], b[WIDTH / 2], bs[WIDTH / 16];
    mq__gptq_quantize_rows(u, MQ_NVFP4_FOUR_SIX, scale, weights, 1, WIDTH, a, as, scratch);
    mq__nvfp4_quantize_row(MQ_NVFP4_FOUR_SIX, scale, weights, MQ_WEIGHT_F32, WIDTH, b, bs);
    assert_memory_equal(as, bs, sizeof as);
    float x[WIDTH], y[WIDTH];
    mq__nvfp4_dequantize_row(a, as, scale.multiplier, WIDTH, x);
    mq__nvfp4_dequantize_row(b, bs, scale.multiplier, WIDTH, y);
    for (int i = 0; i < WIDTH; i++) {
        assert_true(x[i] == y[i]);
    }
    mq__free(scratch);
    mq__free_aligned(u);
}

/* ---- smoothing */

static void logits_of(const char *dir, float *logits, size_t bytes)
{
    mq_engine *engine;
    mq_sequence *session;
    mq_error error = {0};
    const mq_engine_options options = {.model_dir = unit_path(dir), .threads = 2, .context = TEXT, .no_cache = true};
    if (mq_engine_open(&options, &engine, &error) != MQ_OK) fail_msg("%s", error.text);
    assert_int_equal(mq_sequence_new(engine, &session, NULL), MQ_OK);
    assert_int_equal(mq_sequence_sync(session, tokens[0], TEXT, NULL, NULL, NULL), MQ_OK);
    memcpy(logits, mq_sequence_logits(session), bytes);
    mq_sequence_free(session);
    mq_engine_close(engine);
}

#define LINEARS ((size_t)7) /* of a layer */

/* Which linear layer a tensor is, or the count. */
static size_t module_of(const char *tensor)
{
    static const char *const names[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                        "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
    for (size_t i = 0; i < LAYERS * LINEARS; i++) {
        char name[96];
        snprintf(name, sizeof name, "model.layers.%zu.%s.weight", i / LINEARS, names[i % LINEARS]);
        if (strcmp(name, tensor) == 0) return i;
    }
    return LAYERS * LINEARS;
}

/* Writes the BF16 model smoothed; returns how many factors are not 1. */
static size_t write_smoothed(mq_weights *w, const mq_smoothing *smoothing, const char *out)
{
    const mq_safetensors *file = mq__checkpoint_shard(w->dense, 0);
    mq_tensor_spec specs[64];
    mq_checkpoint_writer writer;
    json_t *config;
    size_t changed = 0;
    assert_true(file->count <= 64);
    for (size_t i = 0; i < file->count; i++) {
        const mq_tensor *t = &file->tensors[i];
        specs[i] = (mq_tensor_spec){.name = t->name, .dtype = t->dtype, .rank = t->rank};
        memcpy(specs[i].shape, t->shape, sizeof t->shape);
    }
    assert_int_equal(mq__json_file(unit_path("in/config.json"), 1 << 20, &config, NULL), MQ_OK);
    assert_int_equal(mq__checkpoint_create(unit_path(out), &writer, NULL), MQ_OK);
    assert_int_equal(mq__checkpoint_put_json(&writer, "config.json", config, NULL), MQ_OK);
    assert_int_equal(mq__checkpoint_declare(&writer, specs, file->count, 0, NULL), MQ_OK);
    for (size_t i = 0; i < file->count; i++) {
        const mq_tensor *t = &file->tensors[i];
        const void *norm = mq__smoothing_norm(smoothing, t->name);
        const size_t module = module_of(t->name);
        const float *factor = NULL;
        if (module < LAYERS * LINEARS) {
            factor = mq__smoothing_factor(smoothing, (uint32_t)(module / LINEARS), w->module[module].rule->group);
        }
        uint16_t *copy = mq__alloc(t->bytes);
        memcpy(copy, norm ? norm : t->data, t->bytes);
        for (size_t k = 0; factor && k < t->bytes / 2; k++) {
            const float by = factor[k % t->shape[1]];
            copy[k] = mq__f32_to_bf16(mq__bf16_to_f32(copy[k]) * by);
            changed += by != 1;
        }
        assert_int_equal(mq__checkpoint_put(&writer, copy, t->bytes, NULL), MQ_OK);
        mq__free(copy);
    }
    assert_int_equal(mq__checkpoint_finish(&writer, NULL), MQ_OK);
    json_decref(config);
    return changed;
}

static void test_smoothing_alone_changes_no_bit(void **state)
{
    (void)state;
    mq_weights *w;
    mq_calib *calib;
    mq_smoothing *smoothing;
    mq_error error = {0};
    bool quantised[LAYERS * LINEARS];
    memset(quantised, true, sizeof quantised);
    assert_int_equal(mq__weights_open(unit_path("in"), NULL, &w, NULL), MQ_OK);
    if (mq__calib_open(unit_path("in"), texts, TEXTS, 2, &calib, &error) != MQ_OK) fail_msg("%s", error.text);
    assert_int_equal(mq__smoothing_new(w, calib, 0.5f, quantised, &smoothing, NULL), MQ_OK);
    assert_non_null(mq__smoothing_factor(smoothing, 2, MQ_GROUP_QKV));
    assert_null(mq__smoothing_factor(smoothing, 2, MQ_GROUP_O));
    assert_null(mq__smoothing_factor(smoothing, 2, MQ_GROUP_DOWN));
    assert_null(mq__smoothing_norm(smoothing, "model.norm.weight"));
    assert_true(write_smoothed(w, smoothing, "smoothed") > 1000);
    const size_t bytes = w->model.vocab * sizeof(float);
    float *before = mq__alloc(bytes), *after = mq__alloc(bytes);
    logits_of("in", before, bytes);
    logits_of("smoothed", after, bytes);
    assert_memory_equal(before, after, bytes);
    mq__free(after);
    mq__free(before);
    mq__smoothing_free(smoothing);
    mq__calib_close(calib);
    mq__weights_close(w);
}

/* ---- what the inputs look like */

/* Second moments are symmetric, agree with the largest magnitudes, and do not depend on the threads. */
static void test_moments(void **state)
{
    (void)state;
    mq_calib *one, *two;
    assert_int_equal(mq__calib_open(unit_path("in"), texts, TEXTS, 1, &one, NULL), MQ_OK);
    assert_int_equal(mq__calib_open(unit_path("in"), texts, TEXTS, 3, &two, NULL), MQ_OK);
    for (uint32_t l = LAYERS; l-- > 0;) {
        for (int g = 0; g < MQ_GROUPS; g++) {
            const uint32_t width = mq__calib_width(one, l, (mq_linear_group)g);
            const float *a, *b, *amax = mq__calib_amax(one, l, (mq_linear_group)g);
            assert_int_equal(mq__calib_moments(one, l, (mq_linear_group)g, &a, NULL), MQ_OK);
            assert_int_equal(mq__calib_moments(two, l, (mq_linear_group)g, &b, NULL), MQ_OK);
            assert_memory_equal(a, b, (size_t)width * width * sizeof *a);
            for (uint32_t i = 0; i < width; i++) {
                const float squares = a[i * width + i], most = amax[i] * amax[i];
                assert_true(squares >= 0.999f * most && squares <= 1.001f * most * TEXT * TEXTS);
                assert_true(fabsf(a[i * width + width / 2] - a[width / 2 * width + i]) <= 1e-4f * (1 + squares));
            }
        }
    }
    mq__calib_close(two);
    mq__calib_close(one);
}

/* ---- plans */

/* With equal times greedy is optimal: the largest savings that fit. */
static void test_choice(void **state)
{
    (void)state;
    double divergence[2][MQ_GROUPS][MQ_RUNGS] = {{{8, 2, 0}, {1, 0.5, 0}, {0, 0, 0}, {3, 1, 0}},
                                                 {{5, 1, 0}, {0.1, 0.1, 0}, {4, 3, 0}, {2, 0.2, 0}}};
    mq_sensitivity m = {.layers = 2, .divergence = divergence, .prefill_seconds = 100};
    for (int g = 0; g < MQ_GROUPS; g++) {
        m.seconds[g][MQ_RUNG_INT8] = 2; /* over NVFP4 */
        m.seconds[g][MQ_RUNG_BF16] = 50;
    }
    uint8_t choice[2][MQ_GROUPS];
    mq__sensitivity_choose(&m, 1, choice);
    for (int g = 0; g < MQ_GROUPS; g++) {
        assert_int_equal(choice[0][g] + choice[1][g], 0);
    }
    mq__sensitivity_choose(&m, 1.05, choice); /* room for two */
    const uint8_t two[2][MQ_GROUPS] = {{1, 0, 0, 0}, {1, 0, 0, 0}};
    assert_memory_equal(choice, two, sizeof two);
    for (int g = 0; g < MQ_GROUPS; g++) {
        m.seconds[g][MQ_RUNG_INT8] = -1; /* faster than NVFP4: wherever it is better */
    }
    mq__sensitivity_choose(&m, 1, choice);
    const uint8_t free_ones[2][MQ_GROUPS] = {{1, 1, 0, 1}, {1, 0, 1, 1}};
    assert_memory_equal(choice, free_ones, sizeof free_ones);
}

static void test_sensitivity_plan(void **state)
{
    (void)state;
    char *plan;
    mq_error error = {0};
    mq_sensitivity_options o = {
        .model_dir = unit_path("in"), .threads = 2, .texts = texts, .text_count = TEXTS, .budget = 1.5};
    if (mq_sensitivity_plan(&o, &plan, &error) != MQ_OK) fail_msg("%s", error.text);
    unit_puts("plan.json", plan);
    json_t *root = json_loads(plan, 0, NULL);
    const json_t *groups = json_object_get(json_object_get(root, "sensitivity"), "groups");
    assert_int_equal(json_array_size(groups), LAYERS * MQ_GROUPS);
    /* The last layer's o, gate_up and down reach no key and no value: the answer cannot depend on them. */
    for (size_t g = 0; g < LAYERS * MQ_GROUPS; g++) {
        const double kl = json_real_value(json_object_get(json_array_get(groups, g), "nvfp4"));
        const bool reaches = g < (LAYERS - 1) * MQ_GROUPS + 1;
        assert_true(reaches ? kl > 0 : kl == 0);
    }
    json_decref(root);
    mq_free(plan);
    mq_engine *engine;
    const mq_engine_options options = {.model_dir = unit_path("in"),
                                       .threads = 1,
                                       .context = 64,
                                       .no_cache = true,
                                       .plan = {.prefill = MQ_LINEAR_NVFP4, .file = unit_path("plan.json")}};
    if (mq_engine_open(&options, &engine, &error) != MQ_OK) fail_msg("%s", error.text);
    mq_engine_close(engine);
}

/* ---- refusals */

static void test_refusals(void **state)
{
    (void)state;
    mq_error error = {0};
    mq_quantize_options o = {
        .in_dir = unit_path("in"), .out_dir = unit_path("out"), .method = MQ_METHOD_GPTQ, .threads = 1};
    unit_refused(mq_quantize_checkpoint(&o, &error), MQ_USAGE, &error, "token");
    const int32_t wrong[] = {1, 100000};
    const mq_token_span span = {wrong, 2};
    o.texts = &span;
    o.text_count = 1;
    unit_refused(mq_quantize_checkpoint(&o, &error), MQ_USAGE, &error, "100000");
    o.smooth = 1.5f;
    unit_refused(mq_quantize_checkpoint(&o, &error), MQ_USAGE, &error, "alpha");
    o.smooth = NAN;
    unit_refused(mq_quantize_checkpoint(&o, &error), MQ_USAGE, &error, "alpha");
    assert_int_equal(unit_entries(unit_path("out")), -1);

    char *plan;
    mq_sensitivity_options s = {.model_dir = unit_path("in"), .budget = 1.05};
    unit_refused(mq_sensitivity_plan(&s, &plan, &error), MQ_USAGE, &error, "texts");
    s.texts = texts;
    s.text_count = TEXTS;
    s.budget = 0.5;
    unit_refused(mq_sensitivity_plan(&s, &plan, &error), MQ_USAGE, &error, "budget");
}

static void test_infinite_weights(void **state)
{
    (void)state;
    mq_error error = {0};
    mq_weights *w;
    static const uint16_t infinite = 0x7f80;
    assert_int_equal(mq__weights_open(unit_path("in"), NULL, &w, NULL), MQ_OK);
    const mq_tensor *t = mq__checkpoint_find(w->dense, "model.layers.1.mlp.up_proj.weight");
    const long at = (long)(t->data - mq__checkpoint_shard(w->dense, 0)->map.data);
    mq__weights_close(w);
    FILE *file = fopen(unit_path("in/model.safetensors"), "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    assert_int_equal(fwrite(&infinite, 2, 1, file), 1);
    assert_int_equal(fclose(file), 0);
    mq_quantize_options o = {.in_dir = unit_path("in"),
                             .out_dir = unit_path("out"),
                             .method = MQ_METHOD_GPTQ,
                             .threads = 1,
                             .texts = texts,
                             .text_count = TEXTS};
    unit_refused(mq_quantize_checkpoint(&o, &error), MQ_FORMAT, &error, "finite");
    assert_int_equal(unit_entries(unit_path("out")), -1);
}

/* Every allocation in its turn fails: a clear error, and nothing of the output stays. */
static void test_failing_allocations(void **state)
{
    (void)state;
    char in[384], out[384]; /* unit_path's buffers are used again */
    snprintf(in, sizeof in, "%s", unit_path("in"));
    snprintf(out, sizeof out, "%s", unit_path("out"));
    const mq_quantize_options o = {.in_dir = in,
                                   .out_dir = out,
                                   .method = MQ_METHOD_GPTQ,
                                   .smooth = 0.5f,
                                   .threads = 1,
                                   .texts = texts,
                                   .text_count = 1};
    mq__alloc_fail_at(0);
    assert_int_equal(mq_quantize_checkpoint(&o, NULL), MQ_OK);
    const unsigned long count = mq__alloc_fail_at(0);
    unit_remove(out);
    assert_true(count > 100);
    for (unsigned long n = 1; n <= count; n += n < 40 ? 1 : 7) {
        mq_error error = {0};
        mq__alloc_fail_at(n);
        const mq_status status = mq_quantize_checkpoint(&o, &error);
        mq__alloc_fail_at(0);
        if (status == MQ_OK) { /* an allocation that can be done without */
            unit_remove(out);
            continue;
        }
        unit_refused(status, MQ_NO_MEMORY, &error, NULL);
        assert_int_equal(unit_entries(out), -1);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, unit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_gptq),
        TEST(test_gptq_of_white_inputs_is_nearest),
        TEST(test_smoothing_alone_changes_no_bit),
        TEST(test_moments),
        TEST(test_choice),
        TEST(test_sensitivity_plan),
        TEST(test_refusals),
        TEST(test_infinite_weights),
        TEST(test_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
