/* The prefix cache over its folder: blocks that memory is missing for are left out, and those behind them are written. Without memory
 * for the beginning of their names none is, until it is there. */
#define TOKENS 300
#include "unit_model.h"

#include "base/mem.h"
#include "sched/prefix_cache.h"

static void test_failing_allocations(void **state)
{
    (void)state;
    const mq_engine_options options = {.model_dir = model,
                                       .plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16},
                                       .threads = 1,
                                       .context = TOKENS,
                                       .no_cache = true};
    mq_engine *engine;
    mq_sequence *sequence;
    mq_prefix_cache *cache;
    assert_int_equal(mq_engine_open(&options, &engine, NULL), MQ_OK);
    assert_int_equal(mq__prefix_cache_new(engine, 0, unit_path("kv"), 1 << 30, &cache, NULL), MQ_OK);
    assert_int_equal(mq_sequence_new(engine, &sequence, NULL), MQ_OK);
    assert_int_equal(mq_sequence_sync(sequence, tokens, 200, NULL, NULL, NULL), MQ_OK);
    uint64_t left_out = 0, unnamed = 0;
    bool hit = true;
    for (unsigned long n = 1; hit; n++) {
        const uint64_t before = cache->written_tokens, owner = n; /* whose blocks are not there yet */
        mq_kv_name name = {0};
        (void)mq__alloc_fail_at(n);
        const bool named = mq__prefix_cache_store(cache, sequence, owner, 0, &name);
        hit = mq__alloc_fail_at(0) >= n;
        unnamed += !named;
        left_out += named && cache->written_tokens == before;
        assert_true(named || mq__prefix_cache_store(cache, sequence, owner, 0, &name));
        assert_memory_not_equal(&name, &(mq_kv_name){0}, sizeof name);
        assert_true(mq__prefix_cache_store(cache, sequence, owner, 1, &name));
        assert_true(cache->written_tokens >= before + MQ_PAGE_TOKENS);
    }
    assert_true(left_out >= 3);
    assert_true(unnamed >= 1);
    mq_sequence_free(sequence);
    mq__prefix_cache_free(cache);
    mq_engine_close(engine);
}

static int open_model(void **state)
{
    return unit_setup(state) || make_model(state);
}

static int close_model(void **state)
{
    return forget_model(state) || unit_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failing_allocations),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
