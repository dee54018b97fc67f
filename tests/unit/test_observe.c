/* What an observer sees is what the pass computes with: from the observed inputs, queries, keys and values the next
 * observed thing is recomputed here, in every format and phase. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/halffloat.h"
#include "format/checkpoint.h"
#include "mixquant_tools.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* tiny-qwen3; D 80, H 6, G 2, K 24, F 152, 3 layers; chunks end inside KV pages. */
enum { TOKENS = 101, LAYERS = 3, HEADS = 6, KV_HEADS = 2, HEAD = 24, WIDTH = 80, FFN = 152, CHUNK = 37 };
enum { Q_WIDTH = HEADS * HEAD };

static char *model;
static int32_t tokens[TOKENS];

typedef struct seen {
    float rows[LAYERS][MQ_GROUPS][TOKENS][FFN]; /* at most FFN wide */
    uint32_t count[LAYERS][MQ_GROUPS];
    float q[LAYERS][TOKENS][Q_WIDTH];
    const mq_sequence *session; /* NULL: do not read inside the callback */
    float last_value;           /* read inside it */
} seen;

static uint32_t width_of(mq_linear_group group)
{
    return group == MQ_GROUP_O ? Q_WIDTH : group == MQ_GROUP_DOWN ? FFN : WIDTH;
}

static void take_linear(void *context, uint32_t layer, mq_linear_group group, const float *rows, uint32_t count,
                        uint32_t width)
{
    seen *s = context;
    assert_true(layer < LAYERS && group < MQ_GROUPS);
    assert_int_equal(width, width_of(group));
    assert_true(s->count[layer][group] + count <= TOKENS);
    for (uint32_t i = 0; i < count; i++) {
        memcpy(s->rows[layer][group][s->count[layer][group]++], rows + (size_t)i * width, width * sizeof *rows);
    }
}

static void take_queries(void *context, uint32_t layer, uint32_t first, const float *queries, uint32_t rows)
{
    seen *s = context;
    assert_true(first + rows <= TOKENS);
    assert_int_equal(s->count[layer][MQ_GROUP_QKV], first + rows);
    assert_int_equal(s->count[layer][MQ_GROUP_O], first);
    memcpy(s->q[layer][first], queries, rows * sizeof s->q[0][0]);
    if (!s->session) return;
    float value[HEAD];
    assert_int_equal(mq_sequence_read_kv(s->session, layer, 1, first + rows - 1, 1, NULL, value, NULL), MQ_OK);
    s->last_value = value[HEAD - 1];
    assert_int_equal(mq_sequence_read_kv(s->session, layer, 1, first + rows, 1, NULL, value, NULL), MQ_USAGE);
}

static mq_engine *open_engine(mq_linear_format prefill, mq_linear_format decode)
{
    mq_engine *engine;
    mq_error error = {0};
    const mq_engine_options options = {.model_dir = model,
                                       .plan = {.prefill = prefill, .decode = decode},
                                       .threads = 2,
                                       .context = 128,
                                       .chunk = CHUNK,
                                       .no_cache = true};
    if (mq_engine_open(&options, &engine, &error) != MQ_OK) fail_msg("%s", error.text);
    return engine;
}

/* softmax(q k / sqrt(K)) v of one head at one position, in double, from what was observed. */
static double attention_error(const seen *s, uint32_t layer, uint32_t head, uint32_t position, const float *keys,
                              const float *values)
{
    double weight[TOKENS], total = 0, best = -INFINITY, error = 0, norm = 0;
    const float *q = s->q[layer][position] + head * HEAD;
    for (uint32_t j = 0; j <= position; j++) {
        weight[j] = 0;
        for (uint32_t i = 0; i < HEAD; i++) {
            weight[j] += (double)q[i] * (double)keys[j * HEAD + i];
        }
        weight[j] /= sqrt(HEAD);
        best = fmax(best, weight[j]);
    }
    for (uint32_t j = 0; j <= position; j++) {
        weight[j] = exp(weight[j] - best);
        total += weight[j];
    }
    for (uint32_t i = 0; i < HEAD; i++) {
        double sum = 0;
        for (uint32_t j = 0; j <= position; j++) {
            sum += weight[j] * (double)values[j * HEAD + i];
        }
        const double got = (double)s->rows[layer][MQ_GROUP_O][position][head * HEAD + i];
        error += (got - sum / total) * (got - sum / total);
        norm += got * got;
    }
    return sqrt(error / norm);
}

static void test_attention_follows_from_what_is_seen(void **state)
{
    (void)state;
    const mq_linear_format formats[] = {MQ_LINEAR_BF16, MQ_LINEAR_NVFP4, MQ_LINEAR_W4A16};
    seen *s = calloc(1, sizeof *s);
    float keys[TOKENS * HEAD], values[TOKENS * HEAD];
    for (size_t f = 0; f < sizeof formats / sizeof formats[0]; f++) {
        mq_engine *engine = open_engine(formats[f], formats[f]);
        mq_sequence *session;
        assert_int_equal(mq_sequence_new(engine, &session, NULL), MQ_OK);
        *s = (seen){.session = session};
        mq_engine_observe(engine, &(mq_observer){.linear = take_linear, .queries = take_queries, .context = s});
        assert_int_equal(mq_sequence_sync(session, tokens, TOKENS, NULL, NULL, NULL), MQ_OK);
        for (uint32_t l = 0; l < LAYERS; l++) {
            for (int g = 0; g < MQ_GROUPS; g++) {
                assert_int_equal(s->count[l][g], TOKENS);
            }
            for (uint32_t h = 0; h < HEADS; h++) {
                assert_int_equal(mq_sequence_read_kv(session, l, h * KV_HEADS / HEADS, 0, TOKENS, keys, values, NULL),
                                 MQ_OK);
                for (uint32_t position = 0; position < TOKENS; position++) {
                    assert_true(attention_error(s, l, h, position, keys, values) < 1e-4);
                }
            }
        }
        assert_true(s->last_value == values[TOKENS * HEAD - 1]);
        mq_sequence_free(session);
        mq_engine_close(engine);
    }
    free(s);
}

/* V = W_v times the observed input of the qkv group; h's growth by down(silu(gate) * up) is not seen, its input is. */
static void test_values_follow_from_the_rows(void **state)
{
    (void)state;
    mq_checkpoint *c;
    assert_int_equal(mq__checkpoint_open(model, &c, NULL), MQ_OK);
    mq_engine *engine = open_engine(MQ_LINEAR_BF16, MQ_LINEAR_BF16);
    mq_sequence *session;
    seen *s = calloc(1, sizeof *s);
    float values[TOKENS * HEAD];
    assert_int_equal(mq_sequence_new(engine, &session, NULL), MQ_OK);
    mq_engine_observe(engine, &(mq_observer){.linear = take_linear, .context = s});
    assert_int_equal(mq_sequence_sync(session, tokens, TOKENS, NULL, NULL, NULL), MQ_OK);
    for (uint32_t l = 0; l < LAYERS; l++) {
        char name[96];
        snprintf(name, sizeof name, "model.layers.%u.self_attn.v_proj.weight", l);
        const mq_tensor *t = mq__checkpoint_find(c, name);
        assert_non_null(t);
        assert_int_equal(mq_sequence_read_kv(session, l, 1, 0, TOKENS, NULL, values, NULL), MQ_OK);
        for (uint32_t i = 0; i < TOKENS * HEAD; i++) {
            double sum = 0;
            for (uint32_t k = 0; k < WIDTH; k++) {
                uint16_t w;
                memcpy(&w, t->data + 2 * ((size_t)(HEAD + i % HEAD) * WIDTH + k), sizeof w);
                sum += (double)mq__bf16_to_f32(w) * (double)s->rows[l][MQ_GROUP_QKV][i / HEAD][k];
            }
            assert_true(fabs(sum - (double)values[i]) <= fabs(sum) * 0x1p-8 + 1e-6);
        }
    }
    mq_sequence_free(session);
    mq_engine_close(engine);
    mq__checkpoint_close(c);
    free(s);
}

static void test_watching_changes_nothing_and_ends(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(MQ_LINEAR_NVFP4, MQ_LINEAR_BF16);
    mq_engine_info info;
    mq_engine_describe(engine, &info);
    const size_t bytes = info.vocab * sizeof(float);
    float *plain = malloc(bytes);
    seen *s = calloc(1, sizeof *s);
    mq_sequence *session;
    assert_int_equal(mq_sequence_new(engine, &session, NULL), MQ_OK);
    assert_int_equal(mq_sequence_sync(session, tokens, TOKENS, NULL, NULL, NULL), MQ_OK);
    memcpy(plain, mq_sequence_logits(session), bytes);
    mq_sequence_truncate(session, 0);
    mq_engine_observe(engine, &(mq_observer){.linear = take_linear, .queries = take_queries, .context = s});
    assert_int_equal(mq_sequence_sync(session, tokens, TOKENS - 1, NULL, NULL, NULL), MQ_OK);
    mq_sequence_truncate(session, TOKENS - 2); /* the precise last token would stay in the prefill's KV */
    mq_engine_observe(engine, NULL);
    assert_int_equal(mq_sequence_sync(session, tokens, TOKENS, NULL, NULL, NULL), MQ_OK);
    assert_memory_equal(mq_sequence_logits(session), plain, bytes);
    assert_int_equal(s->count[0][MQ_GROUP_DOWN], TOKENS - 1);

    float one[HEAD];
    mq_error error = {0};
    assert_int_equal(mq_sequence_read_kv(session, LAYERS, 0, 0, 1, one, NULL, &error), MQ_USAGE);
    assert_int_equal(mq_sequence_read_kv(session, 0, KV_HEADS, 0, 1, one, NULL, &error), MQ_USAGE);
    assert_int_equal(mq_sequence_read_kv(session, 0, 0, TOKENS, 1, one, NULL, &error), MQ_USAGE);
    assert_int_equal(mq_sequence_read_kv(session, 0, 0, 1, UINT32_MAX, one, NULL, &error), MQ_USAGE);
    assert_int_equal(mq_sequence_read_kv(session, 0, 0, TOKENS - 1, 1, one, NULL, &error), MQ_OK);
    assert_int_equal(mq_sequence_read_kv(session, 0, 0, TOKENS, 0, one, NULL, &error), MQ_OK);
    mq_sequence_free(session);
    mq_engine_close(engine);
    free(plain);
    free(s);
}

/* A batched step shows each session's row, in the order of the batch. */
static void test_batches(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(MQ_LINEAR_BF16, MQ_LINEAR_BF16);
    mq_sequence *one, *two;
    seen *a = calloc(1, sizeof *a), *b = calloc(1, sizeof *b);
    assert_int_equal(mq_sequence_new(engine, &one, NULL), MQ_OK);
    assert_int_equal(mq_sequence_sync(one, tokens, 1, NULL, NULL, NULL), MQ_OK);
    mq_engine_observe(engine, &(mq_observer){.linear = take_linear, .context = a});
    assert_int_equal(mq_sequence_step(one, 7, NULL), MQ_OK);
    mq_sequence_truncate(one, 1);
    assert_int_equal(mq_sequence_new(engine, &two, NULL), MQ_OK);
    mq_engine_observe(engine, NULL);
    assert_int_equal(mq_sequence_sync(two, tokens, 20, NULL, NULL, NULL), MQ_OK);
    mq_engine_observe(engine, &(mq_observer){.linear = take_linear, .context = b});
    mq_rows rows[2] = {{.sequence = two, .tokens = (int32_t[]){9}, .count = 1, .phase = MQ_PHASE_DECODE},
                       {.sequence = one, .tokens = (int32_t[]){7}, .count = 1, .phase = MQ_PHASE_DECODE}};
    assert_int_equal(mq_engine_step(engine, rows, 2, NULL), MQ_OK);
    for (uint32_t l = 0; l < LAYERS; l++) {
        for (int g = 0; g < MQ_GROUPS; g++) {
            assert_int_equal(b->count[l][g], 2);
            assert_memory_equal(b->rows[l][g][1], a->rows[l][g][0], width_of((mq_linear_group)g) * sizeof(float));
            assert_memory_not_equal(b->rows[l][g][0], a->rows[l][g][0], width_of((mq_linear_group)g) * sizeof(float));
        }
    }
    mq_sequence_free(one);
    mq_sequence_free(two);
    mq_engine_close(engine);
    free(a);
    free(b);
}

static int make_model(void **state)
{
    (void)state;
    mq_error error = {0};
    if (mq_synth_cached("tiny-qwen3", 0, NULL, &model, &error) != MQ_OK) {
        print_error("%s\n", error.text);
        return 1;
    }
    for (int i = 0; i < TOKENS; i++) {
        tokens[i] = (i * 37 + i * i * 11) % 200;
    }
    return 0;
}

static int free_model(void **state)
{
    (void)state;
    mq_free(model);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention_follows_from_what_is_seen),
        cmocka_unit_test(test_values_follow_from_the_rows),
        cmocka_unit_test(test_watching_changes_nothing_and_ends),
        cmocka_unit_test(test_batches),
    };
    return cmocka_run_group_tests(tests, make_model, free_model);
}
