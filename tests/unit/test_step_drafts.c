/* Draft steps: what they leave is nothing. Blocks, their provenance and all later logits are those of a sequence that was never
 * drafted for; and the head that they use. */
#define TOKENS 400
#include "unit_model.h"
#include "unit_sequence.h"

#include "base/mem.h"
#include "engine/draft.h"
#include "format/nvfp4.h"

#include <math.h>

static mq_engine *open_engine_of(const char *dir, mq_linear_format prefill, mq_linear_format decode)
{
    mq_engine *engine;
    mq_error error = {0};
    const mq_engine_options options = {.model_dir = dir,
                                       .plan = {.prefill = prefill, .decode = decode},
                                       .threads = 2,
                                       .context = TOKENS,
                                       .chunk = 64,
                                       .sequences = 3,
                                       .no_cache = true};
    if (mq_engine_open(&options, &engine, &error) != MQ_OK) fail_msg("%s", error.text);
    return engine;
}

static mq_rows decode_rows(mq_sequence *sequence, const int32_t *ids, uint32_t count)
{
    return (mq_rows){.sequence = sequence, .tokens = ids, .count = count, .phase = MQ_PHASE_DECODE, .logits = count};
}

static void must_draft(mq_engine *engine, mq_sequence *sequence, const int32_t *ids, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        mq_rows rows = decode_rows(sequence, ids + i, 1);
        assert_int_equal(mq__engine_draft(engine, &rows, 1, NULL), MQ_OK);
        assert_int_equal(rows.status, MQ_OK);
        assert_non_null(mq_sequence_logits(sequence));
        assert_false(mq_sequence_is_precise(sequence, sequence->count - 1));
    }
}

static void must_step(mq_engine *engine, mq_sequence *sequence, const int32_t *ids, uint32_t count)
{
    mq_rows rows = decode_rows(sequence, ids, count);
    assert_int_equal(mq_engine_step(engine, &rows, 1, NULL), MQ_OK);
    assert_int_equal(rows.status, MQ_OK);
}

/* KV of all positions, and the whole blocks' provenance. */
static void assert_same_blocks(const mq_sequence *a, const mq_sequence *b)
{
    const mq_kv_layout *kv = &a->engine->kv_layout;
    assert_int_equal(a->count, b->count);
    assert_int_equal(a->block_count, b->block_count);
    for (uint32_t i = 0; i < a->block_count; i++) {
        const uint32_t left = a->count - i * MQ_PAGE_TOKENS, some = left < MQ_PAGE_TOKENS ? left : MQ_PAGE_TOKENS;
        assert_int_equal(a->blocks[i]->plan, b->blocks[i]->plan);
        assert_true(a->blocks[i]->precise == b->blocks[i]->precise);
        for (uint32_t l = 0; l < kv->layers; l++) {
            for (uint32_t g = 0; g < kv->layer[l].kv_heads; g++) {
                const size_t bytes = (size_t)some * kv->layer[l].head_dim * sizeof(uint16_t);
                const size_t k = mq__kv_key_offset(kv, l, g), v = mq__kv_value_offset(kv, l, g);
                assert_memory_equal(a->pages[i] + k, b->pages[i] + k, bytes);
                assert_memory_equal(a->pages[i] + v, b->pages[i] + v, bytes);
            }
        }
    }
}

static void assert_same_states(const mq_sequence *a, const mq_sequence *b)
{
    if (a->state) assert_memory_equal(a->state, b->state, a->engine->state_floats * sizeof(float));
}

/* Drafts of all lengths over block boundaries, of which some tokens, none or all are right: tokens[] is the answer. */
static void run_two(const char *dir)
{
    mq_engine *engine = open_engine_of(dir, MQ_LINEAR_NVFP4, MQ_LINEAR_BF16);
    assert_int_equal(mq__engine_draft_open(engine, NULL), MQ_OK);
    mq_sequence *drafted = new_sequence(engine), *plain = new_sequence(engine);
    enum { PROMPT = 50 };
    assert_int_equal(mq_sequence_sync(drafted, tokens, PROMPT, NULL, NULL, NULL), MQ_OK);
    assert_int_equal(mq_sequence_sync(plain, tokens, PROMPT, NULL, NULL, NULL), MQ_OK);
    const size_t vocab = engine->weights->model.vocab;
    for (uint32_t at = PROMPT, round = 0; at + 10 < 270; round++) {
        const uint32_t k = round % 6, right = k ? round / 6 % (k + 1) : 0;
        int32_t rows[8];
        for (uint32_t i = 0; i <= k; i++) {
            rows[i] = i <= right ? tokens[at + i] : (tokens[at + i] + 1) % 200;
        }
        must_draft(engine, drafted, rows, k);
        assert_int_equal(mq_sequence_truncate(drafted, at), at);
        must_step(engine, drafted, rows, k + 1);
        for (uint32_t i = 0; i <= right; i++) {
            must_step(engine, plain, tokens + at + i, 1);
            assert_memory_equal(mq_sequence_logits(plain), mq_sequence_logits_of(drafted, k - i),
                                vocab * sizeof(float));
        }
        if (k > right) mq__sequence_drop(drafted, k - right);
        at += 1 + right;
        assert_memory_equal(mq_sequence_logits(plain), mq_sequence_logits(drafted), vocab * sizeof(float));
        assert_same_blocks(drafted, plain);
        assert_same_states(drafted, plain);
    }
    mq_sequence_free(drafted);
    mq_sequence_free(plain);
    mq_engine_close(engine);
}

static void test_drafts_leave_nothing(void **state)
{
    (void)state;
    run_two(model);
}

static void test_drafts_of_experts_leave_nothing(void **state)
{
    (void)state;
    char *dir;
    assert_int_equal(mq_synth_cached("tiny-qwen3-moe", 0, NULL, &dir, NULL), MQ_OK);
    run_two(dir);
    mq_free(dir);
}

static void test_drafts_leave_no_state(void **state)
{
    (void)state;
    static const char *const shapes[] = {"tiny-qwen3.5", "tiny-qwen3.5-moe"};
    for (size_t i = 0; i < 2; i++) {
        char *dir;
        assert_int_equal(mq_synth_cached(shapes[i], 0, NULL, &dir, NULL), MQ_OK);
        run_two(dir);
        mq_free(dir);
    }
}

/* Who shares the last block does not see what is drafted into it. */
static void test_forks_do_not_see_drafts(void **state)
{
    (void)state;
    mq_engine *engine = open_engine_of(model, MQ_LINEAR_NVFP4, MQ_LINEAR_BF16);
    assert_int_equal(mq__engine_draft_open(engine, NULL), MQ_OK);
    mq_sequence *sequence = new_sequence(engine), *plain = new_sequence(engine), *fork;
    assert_int_equal(mq_sequence_sync(sequence, tokens, 70, NULL, NULL, NULL), MQ_OK);
    assert_int_equal(mq_sequence_sync(plain, tokens, 70, NULL, NULL, NULL), MQ_OK);
    assert_int_equal(mq_sequence_fork(sequence, 67, &fork, NULL), MQ_OK);
    must_draft(engine, fork, tokens + 100, 5);
    assert_same_blocks(sequence, plain);
    (void)mq_sequence_truncate(fork, 67);
    must_step(engine, fork, tokens + 67, 3);
    assert_same_blocks(sequence, plain);
    mq_sequence_free(fork);
    mq_sequence_free(sequence);
    mq_sequence_free(plain);
    mq_engine_close(engine);
}

static void test_a_cancelled_sequence_stays_so(void **state)
{
    (void)state;
    mq_engine *engine = open_engine_of(model, MQ_LINEAR_NVFP4, MQ_LINEAR_BF16);
    assert_int_equal(mq__engine_draft_open(engine, NULL), MQ_OK);
    mq_sequence *sequence = new_sequence(engine);
    assert_int_equal(mq_sequence_sync(sequence, tokens, 20, NULL, NULL, NULL), MQ_OK);
    mq_sequence_cancel(sequence);
    mq_rows rows = decode_rows(sequence, tokens + 20, 1);
    assert_int_equal(mq__engine_draft(engine, &rows, 1, NULL), MQ_OK);
    assert_int_equal(rows.status, MQ_CANCELLED);
    assert_int_equal(sequence->count, 20);
    assert_int_equal(mq_engine_step(engine, &rows, 1, NULL), MQ_OK);
    assert_int_equal(rows.status, MQ_CANCELLED);
    assert_int_equal(mq_engine_step(engine, &rows, 1, NULL), MQ_OK);
    assert_int_equal(rows.status, MQ_OK);
    mq_sequence_free(sequence);
    mq_engine_close(engine);
}

/* Where nothing would be gained, or would have to be packed for it. */
static void test_plans_that_are_not_for_drafts(void **state)
{
    (void)state;
    static const mq_linear_format plans[][2] = {{MQ_LINEAR_BF16, MQ_LINEAR_BF16},
                                                {MQ_LINEAR_NVFP4, MQ_LINEAR_NVFP4},
                                                {MQ_LINEAR_NVFP4, MQ_LINEAR_W4A16},
                                                {MQ_LINEAR_INT8, MQ_LINEAR_BF16}};
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        mq_error error = {0};
        mq_engine *engine = open_engine_of(model, plans[i][0], plans[i][1]);
        assert_false(mq__engine_can_draft(engine));
        assert_int_equal(mq__engine_draft_open(engine, &error), MQ_USAGE);
        assert_non_null(strstr(error.text, "draft"));
        mq_engine_close(engine);
    }
    mq_engine *engine = open_engine_of(model, MQ_LINEAR_W4A16, MQ_LINEAR_BF16);
    assert_int_equal(mq__engine_draft_open(engine, NULL), MQ_OK);
    const mq_plan_options options = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_W4A16};
    const mq_plan *other;
    assert_int_equal(mq_engine_plan(engine, &options, &other, NULL), MQ_OK);
    mq_sequence *sequence = new_sequence(engine);
    assert_true(mq__sequence_can_draft(sequence));
    mq_sequence_set_plan(sequence, other);
    assert_false(mq__sequence_can_draft(sequence));
    mq_sequence_free(sequence);
    mq_engine_close(engine);
}

/* ---- the head */

/* A head of random rows over a vocabulary that ends inside a panel. */
enum { V = 40010, D = 32 };

static void fill_model(mq_model *m, uint16_t *weights)
{
    uint32_t seed = 5;
    for (size_t i = 0; i < (size_t)V * D; i++) {
        seed = seed * 1664525u + 1013904223u;
        weights[i] = (uint16_t)(0x3d00 + (seed >> 24) + (seed >> 8 & 0x8000)); /* BF16 of about 0.03 to 0.1 */
    }
    *m = (mq_model){.vocab = V, .width = D};
    m->head =
        (mq_linear){.n = V, .k_width = D, .dense = {.data = weights, .type = MQ_DENSE_BF16, .n = V, .k_width = D}};
}

/* Rows that came one by one, panels made again each time, are those of a head that gets all at once: `more`, then every third. */
static void same_panels(const mq_model *m, mq_pool *pool, const mq_draft_head *head, const int32_t *more,
                        uint32_t count)
{
    static int32_t all[V];
    mq_draft_head *once;
    memcpy(all, more, count * sizeof *all);
    for (int32_t t = 0; t < V; t += 3) {
        all[count++] = t;
    }
    assert_int_equal(mq__draft_head_new(m, MQ_SCALES_RTN, pool, &once, NULL), MQ_OK);
    mq__draft_head_add(once, all, count);
    const mq_linear *a = mq__draft_head_linear(head), *b = mq__draft_head_linear(once);
    assert_int_equal(a->n, b->n);
    const size_t panels = (a->n + MQ_NVFP4_NR - 1) / MQ_NVFP4_NR;
    assert_memory_equal(a->nvfp4.panels, b->nvfp4.panels, panels * mq__nvfp4_panel_bytes(MQ_NVFP4_NR, D));
    mq__draft_head_free(once);
}

static void test_the_head_grows(void **state)
{
    (void)state;
    static uint16_t weights[(size_t)V * D];
    static float from[V], to[V];
    mq_model m;
    mq_pool *pool;
    mq_draft_head *head;
    fill_model(&m, weights);
    assert_int_equal(mq__pool_new(2, &pool, NULL), MQ_OK);
    assert_int_equal(mq__draft_head_new(&m, MQ_SCALES_RTN, pool, &head, NULL), MQ_OK);
    const uint32_t first = mq__draft_head_tokens(head);
    assert_in_range(first, V / 8, V - 1);
    const int32_t more[] = {V - 1, 30000, 30001, 7};
    mq__draft_head_add(head, more, 4);
    mq__draft_head_add(head, more, 4);
    const mq_linear *linear = mq__draft_head_linear(head);
    assert_int_equal(mq__draft_head_tokens(head), first + 3);
    assert_int_equal(linear->n, first + 3);
    for (uint32_t i = 0; i < V; i++) {
        from[i] = (float)i;
    }
    mq__draft_head_spread(head, from, to);
    assert_true(to[7] == 7.0f && to[first - 1] == (float)(first - 1));
    assert_true(isinf(to[first]) && to[first] < 0 && isinf(to[29999]) && isinf(to[30002]));
    assert_true(to[V - 1] == (float)first && to[30000] == (float)(first + 1) && to[30001] == (float)(first + 2));
    for (int32_t t = 0; t < V; t += 3) {
        mq__draft_head_add(head, &t, 1);
    }
    same_panels(&m, pool, head, more, 3);
    for (int32_t t = 0; t < V; t++) {
        mq__draft_head_add(head, &t, 1);
    }
    assert_int_equal(mq__draft_head_tokens(head), V);
    mq__draft_head_spread(head, from, to);
    for (uint32_t t = 0; t < V; t++) {
        assert_true(to[t] > -INFINITY);
    }
    mq__draft_head_free(head);
    mq__pool_free(pool);
}

/* Each row is what the whole head would have for its token. */
static void test_the_head_is_the_heads(void **state)
{
    (void)state;
    static uint16_t weights[(size_t)V * D];
    static uint8_t nibbles[(size_t)MQ_NVFP4_NR * D / 2], scales[(size_t)MQ_NVFP4_NR * D / 16];
    mq_model m;
    mq_pool *pool;
    mq_draft_head *head;
    fill_model(&m, weights);
    assert_int_equal(mq__pool_new(3, &pool, NULL), MQ_OK);
    assert_int_equal(mq__draft_head_new(&m, MQ_SCALES_FOUR_SIX, pool, &head, NULL), MQ_OK);
    const uint32_t made = mq__draft_head_tokens(head) / MQ_NVFP4_NR;
    const int32_t more[] = {30000, 29};
    mq__draft_head_add(head, more, 2);
    const mq_nvfp4 *face = &mq__draft_head_linear(head)->nvfp4;
    const mq_nvfp4_scale scale =
        mq__nvfp4_scale(MQ_NVFP4_FOUR_SIX, mq__weights_amax(weights, MQ_WEIGHT_BF16, (size_t)V * D));
    const size_t panel_bytes = mq__nvfp4_panel_bytes(MQ_NVFP4_NR, D);
    uint8_t *expected = mq__alloc_aligned(panel_bytes);
    assert_true(face->multiplier == scale.multiplier && mq__draft_head_tokens(head) == made * MQ_NVFP4_NR + 1);
    for (uint32_t i = 0; i <= made; i++) {
        const uint32_t row0 = i < made ? i * MQ_NVFP4_NR : 30000, rows = i < made ? MQ_NVFP4_NR : 1;
        for (size_t r = 0; r < rows; r++) {
            mq__nvfp4_quantize_row(MQ_NVFP4_FOUR_SIX, scale, weights + (row0 + r) * D, MQ_WEIGHT_BF16, D,
                                   nibbles + r * (size_t)D / 2, scales + r * (size_t)D / 16);
        }
        mq__nvfp4_pack(nibbles, scales, rows, D / 16, 0, 1, expected);
        assert_memory_equal(face->panels + i * panel_bytes, expected, panel_bytes);
    }
    mq__free_aligned(expected);
    mq__draft_head_free(head);
    mq__pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_drafts_leave_nothing),
        cmocka_unit_test(test_drafts_of_experts_leave_nothing),
        cmocka_unit_test(test_drafts_leave_no_state),
        cmocka_unit_test(test_forks_do_not_see_drafts),
        cmocka_unit_test(test_a_cancelled_sequence_stays_so),
        cmocka_unit_test(test_plans_that_are_not_for_drafts),
        cmocka_unit_test(test_the_head_grows),
        cmocka_unit_test(test_the_head_is_the_heads),
    };
    return cmocka_run_group_tests(tests, make_model, forget_model);
}
