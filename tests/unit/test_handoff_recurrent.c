/* Hand-offs of a model with recurrent state: the state comes whole or nothing is of use, and beginnings end at snapshots. */
#define UNIT_SHAPE "tiny-qwen3.5"
#include "unit_liar.h"

#define COUNT 200 /* tokens of a prompt: 4 blocks of 2 layers that attend, and the states of 2 others */
enum { AT_STATE = AT_KV + 8, AT_COMMIT = AT_STATE + 2 };

/* A new prompt and its right answer. */
static mq_report ask_for(worker *d, mq_engine *alone, uint32_t seed, uint32_t count)
{
    client *c = new_client(seed, count);
    ask(d, c);
    await(c);
    check_truth(alone, c);
    const mq_report report = c->report;
    drop(c);
    return report;
}

/* Whatever becomes of a chunk, of KV or of a state: what has come is of no use, and the prompt is read here. */
static void test_all_or_nothing(void **state)
{
    (void)state;
    static const deed deeds[] = {DIES, HANGS, FAILS, FORGETS, DAMAGES_BODY, REPEATS};
    static const uint32_t places[] = {AT_KV + 7, AT_STATE, AT_STATE + 1};
    const mq_handoff_options options = {.least = 1, .timeout_s = SILENCE};
    liar *l = start_liar(model);
    const char *name = l->name;
    worker *d = open_decode(open_model(model, 4, 128, MQ_LINEAR_NVFP4), &name, 1, &options);
    mq_engine *alone = open_model(model, 1, 128, MQ_LINEAR_NVFP4);
    d->handoff->tuning.suspect_first = d->handoff->tuning.suspect_most = 0;
    serve_worker(d, NULL);
    uint32_t seed = 1;
    for (size_t i = 0; i < sizeof deeds / sizeof deeds[0]; i++) {
        for (size_t j = 0; j < sizeof places / sizeof places[0]; j++) {
            set_deed(l, deeds[i], places[j]);
            mq_report report = ask_for(d, alone, seed++, COUNT);
            if (report.arrived != 0 || report.transfer_failures != 2 || report.prefilled != MQ_PREFILLED_LOCAL)
                fail_msg("deed %d at %u: %u tokens, %u failures", deeds[i], places[j], report.arrived,
                         report.transfer_failures);
            set_deed(l, GOOD, 0);
            report = ask_for(d, alone, seed++, COUNT);
            assert_int_equal(report.arrived, COUNT - 1);
            assert_int_equal(report.prefilled, MQ_PREFILLED_REMOTE);
        }
    }
    set_deed(l, FORGETS, AT_COMMIT);
    assert_int_equal(ask_for(d, alone, seed, COUNT).arrived, 0);
    stop_worker(d);
    stop_liar(l);
    mq_engine_close(alone);
}

static uint64_t computed_by(const worker *w)
{
    mq_scheduler_stats stats;
    mq_scheduler_describe(w->scheduler, &stats);
    return stats.prompt_tokens;
}

/* A state that comes at a block's end is a snapshot there. The other worker has those of its prompts' ends. */
static void test_cached_beginnings(void **state)
{
    (void)state;
    mq_engine *alone = open_model(model, 1, 128, MQ_LINEAR_NVFP4);
    worker *p = start_prefill(open_model(model, 6, 128, MQ_LINEAR_NVFP4), NULL);
    worker *d = start_decode(open_model(model, 10, 128, MQ_LINEAR_NVFP4), p, NULL);
    const uint64_t token_bytes = mq__kv_token_bytes(&alone->kv_layout), state_bytes = alone->state_floats * 4;
    assert_int_equal(ask_for(d, alone, 5, 193).arrived, 192);
    uint64_t moved = handoff_stats(d).received_bytes, made = computed_by(p);
    mq_report report = ask_for(d, alone, 5, 400); /* both have 192 of it */
    assert_int_equal(report.cached, 192);
    assert_int_equal(report.arrived, 399 - 192);
    assert_int_equal(handoff_stats(d).received_bytes - moved, (399 - 192) * token_bytes + state_bytes);
    assert_int_equal(computed_by(p) - made, 399 - 192);
    moved = handoff_stats(d).received_bytes;
    made = computed_by(p);
    report = ask_for(d, alone, 5, 700); /* P has 384 of it, D still 192 */
    assert_int_equal(report.cached, 192);
    assert_int_equal(report.arrived, 699 - 192);
    assert_int_equal(handoff_stats(d).received_bytes - moved, (699 - 192) * token_bytes + state_bytes);
    assert_int_equal(computed_by(p) - made, 699 - 384);
    stop_worker(d);
    stop_worker(p);
    mq_engine_close(alone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_or_nothing),
        cmocka_unit_test(test_cached_beginnings),
    };
    return cmocka_run_group_tests(tests, open_text, close_text);
}
