/* Hand-offs between workers: the KV that comes is the KV that would have been computed here, and so is the answer. */
#include "unit_handoff.h"

static void check_family(const char *name, bool paired)
{
    char *dir;
    mq_error error = {0};
    if (mq_synth_cached(name, 0, NULL, &dir, &error) != MQ_OK) fail_msg("%s", error.text);
    mq_engine *alone = open_model(dir, 1, 128, MQ_LINEAR_NVFP4);
    worker *p = start_prefill(open_model(dir, 4, 128, MQ_LINEAR_NVFP4), NULL);
    const char *peer = p->name;
    worker *d = open_decode(open_model(dir, 8, 96, MQ_LINEAR_NVFP4), &peer, 1, NULL);
    if (paired) {
        d->paired = p;
        d->handoff->dial = dial_pair;
        d->handoff->dial_context = d;
    }
    serve_worker(d, NULL);
    static const uint32_t counts[] = {2, 64, 65, 66, 128, 129, 300, 850};
    uint64_t tokens_in_all = 0;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        client *c = new_client((uint32_t)i + 1, counts[i]);
        ask(d, c);
        await(c);
        assert_int_equal(c->report.prefilled, MQ_PREFILLED_REMOTE);
        assert_int_equal(c->report.arrived, counts[i] - 1);
        check_truth(alone, c);
        tokens_in_all += counts[i] - 1;
        drop(c);
    }
    const mq_handoff_stats in = handoff_stats(d);
    WAIT_FOR(handoff_stats(p).sending == 0);
    const mq_handoff_stats out = handoff_stats(p);
    assert_int_equal(in.received, sizeof counts / sizeof counts[0]);
    assert_int_equal(in.received_tokens, tokens_in_all);
    assert_int_equal(in.received_bytes, tokens_in_all * mq__kv_token_bytes(&alone->kv_layout));
    assert_int_equal(out.sent, in.received);
    assert_int_equal(out.sent_bytes, in.received_bytes);
    assert_int_equal(in.receive_failures + out.send_failures + in.refused_frames + out.refused_frames, 0);
    assert_int_equal(d->dialled, paired);
    stop_worker(d);
    stop_worker(p);
    mq_engine_close(alone);
    mq_free(dir);
}

static void test_dense(void **state)
{
    (void)state;
    check_family("tiny-qwen3", false);
}

static void test_experts(void **state)
{
    (void)state;
    check_family("tiny-qwen3-moe", false);
}

static void test_within_the_process(void **state)
{
    (void)state;
    check_family("tiny-qwen3", true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense),
        cmocka_unit_test(test_experts),
        cmocka_unit_test(test_within_the_process),
    };
    return cmocka_run_group_tests(tests, open_text, close_text);
}
