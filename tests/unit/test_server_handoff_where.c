/* What answers say of prefill elsewhere: x-prefill, timings, failures; the worker's own figures. */
#include "server_workers.h"

/* ---- x-prefill */

static void test_where_of_whole_answers(void **state)
{
    static const struct {
        const char *script, *where;
        long long failures;
    } all[] = {{"[{\"prefilled\":\"remote\"}]", "remote", 0},
               {"[{\"prefilled\":\"local\"}]", "local", 0},
               {"[{\"prefilled\":\"none\"}]", "none", 0},
               {"[{\"prefilled\":\"broken\"}]", "local", 1}};
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        worker w = open_worker("decode", all[i].script);
        mq_exchange *x = ask_worker(&w, CHAT, ASK(), NULL);
        json_t *answer = fixture_json(x);
        assert_string_equal(fixture_answer_header(x, "x-prefill"), all[i].where);
        assert_string_equal(text_at_path(answer, "timings.prefill.where"), all[i].where);
        assert_int_equal(integer_at_path(answer, "timings.prefill.transfer_failures"), all[i].failures);
        assert_string_equal(text_at_path(answer, "timings.prefill.reason"),
                            all[i].failures ? "script: the transfer broke" : "(none)");
        char words[60];
        snprintf(words, sizeof words, ", prefilled %s, ", all[i].where);
        assert_non_null(strstr(w.server->log.data, words));
        json_decref(answer);
        fixture_free(x);
        close_worker(&w);
    }
}

static void test_where_of_streams(void **state)
{
    static const char *const all[][2] = {
        {"remote", "remote"}, {"local", "local"}, {"none", "none"}, {"broken", "local"}};
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        char script[200];
        snprintf(script, sizeof script, "{\"prefill_s\":0.1,\"answers\":[{\"prefilled\":\"%s\"}]}", all[i][0]);
        worker w = open_worker("decode", script);
        mq_exchange *x = ask_worker(&w, CHAT, ASK(",\"stream\":true,\"return_progress\":true"), NULL);
        assert_string_equal(fixture_answer_header(x, "x-prefill"), all[i][1]);
        fixture_events events = fixture_parse(x);
        collected c = collect(&events, 0);
        assert_string_equal(text_of(&c.text), "ok");
        assert_string_equal(text_at_path(c.last, "timings.prefill.where"), all[i][1]);
        forget(&c);
        fixture_events_free(&events);
        fixture_free(x);
        close_worker(&w);
    }
}

static void test_streams_of_all_apis_wait(void **state)
{
    static const struct {
        const char *path, *body;
    } all[] = {{COMPLETIONS, RAW(",\"stream\":true,\"n\":2")},
               {"/v1/messages", ASK(",\"max_tokens\":9,\"stream\":true")},
               {"/v1/responses", "{\"input\":\"hi\",\"stream\":true}"}};
    (void)state;
    worker w = open_worker("decode", "{\"prefill_s\":0.05,\"answers\":[{\"prefilled\":\"remote\"}]}");
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        mq_exchange *x = ask_worker(&w, all[i].path, all[i].body, NULL);
        assert_int_equal(x->status, 200);
        assert_string_equal(fixture_answer_header(x, "x-prefill"), "remote");
        fixture_events events = fixture_parse(x);
        assert_true(events.count > 2);
        fixture_events_free(&events);
        fixture_free(x);
    }
    close_worker(&w);
}

/* Ten seconds are not waited for here: the call is made older. */
static void test_a_stream_does_not_wait_for_long(void **state)
{
    static const char *const all[][2] = {
        {"{\"prefill_s\":2,\"steps\":20,\"answers\":[{\"prefilled\":\"remote\"}]}", "remote"},
        {"[{\"hold\":true}]", "none"}};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        worker w = open_worker("decode", all[i][0]);
        mq_exchange *x = fixture_exchange(CHAT, ASK(",\"stream\":true,\"return_progress\":true"), NULL);
        mq__api_chat(w.server, x);
        assert_false(x->begun);
        mq_call *call = x->hooks.context;
        while (i == 0) { /* until it is under way */
            pthread_mutex_lock(&call->lock);
            const bool arriving = call->choices[0].answered.report.arriving;
            pthread_mutex_unlock(&call->lock);
            if (arriving) break;
        }
        fixture_tick(x);
        assert_false(x->begun);
        pthread_mutex_lock(&call->lock);
        call->started -= 10;
        pthread_mutex_unlock(&call->lock);
        fixture_tick(x);
        assert_true(x->begun);
        assert_string_equal(fixture_answer_header(x, "x-prefill"), all[i][1]);
        assert_true(i == 1 || strstr(x->sent.data, "prompt_progress"));
        fixture_gone(x, false);
        fixture_free(x);
        close_worker(&w);
    }
}

/* ---- failures */

static void test_a_failed_transfer_fails(void **state)
{
    (void)state;
    worker w = open_worker("decode", "[{\"prefilled\":\"remote\",\"error\":\"io\",\"transfer\":true}]");
    w.handoff->backend.fails = true;
    mq_exchange *x = ask_worker(&w, CHAT, ASK(), NULL);
    json_t *answer = fixture_json(x);
    assert_int_equal(x->status, 503);
    assert_string_equal(text_at_path(answer, "error.code"), "kv_transfer_failed");
    assert_string_equal(text_at_path(answer, "error.message"), "script: it was asked to fail");
    assert_non_null(fixture_answer_header(x, "retry-after"));
    json_decref(answer);
    fixture_free(x);
    close_worker(&w);
}

static void test_a_failure_before_a_stream_begins_is_a_status(void **state)
{
    (void)state;
    worker w = open_worker("decode", "[{\"prefilled\":\"lost\",\"error\":\"io\",\"transfer\":true}]");
    w.handoff->backend.fails = true;
    mq_exchange *x = ask_worker(&w, CHAT, ASK(",\"stream\":true"), NULL);
    json_t *answer = fixture_json(x);
    assert_int_equal(x->status, 503);
    assert_string_equal(text_at_path(answer, "error.code"), "kv_transfer_failed");
    assert_non_null(fixture_answer_header(x, "retry-after"));
    json_decref(answer);
    fixture_free(x);
    close_worker(&w);
}

static void test_a_failure_in_a_stream_is_an_event(void **state)
{
    (void)state;
    worker w = open_worker(
        "decode", "{\"prefill_s\":0.05,\"answers\":[{\"prefilled\":\"local\",\"error\":\"io\",\"transfer\":true}]}");
    w.handoff->backend.fails = true;
    mq_exchange *x = ask_worker(&w, CHAT, ASK(",\"stream\":true"), NULL);
    fixture_events events = fixture_parse(x);
    assert_int_equal(x->status, 200);
    assert_non_null(strstr(x->sent.data, "kv_transfer_failed"));
    fixture_events_free(&events);
    fixture_free(x);
    close_worker(&w);
}

/* Other failures, and those of a worker that makes up for transfers, are what they were. */
static void test_other_failures(void **state)
{
    static const struct {
        const char *script;
        bool fails;
        unsigned status;
    } all[] = {{"[{\"error\":\"io\",\"transfer\":true}]", false, 500},
               {"[{\"error\":\"io\"}]", true, 500},
               {"[{\"error\":\"no_memory\",\"transfer\":true}]", true, 503},
               {"[{\"error\":\"usage\",\"transfer\":true}]", true, 400}};
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        worker w = open_worker("decode", all[i].script);
        w.handoff->backend.fails = all[i].fails;
        mq_exchange *x = ask_worker(&w, CHAT, ASK(), NULL);
        json_t *answer = fixture_json(x);
        assert_int_equal(x->status, all[i].status);
        assert_string_not_equal(text_at_path(answer, "error.code"), "kv_transfer_failed");
        json_decref(answer);
        fixture_free(x);
        close_worker(&w);
    }
}

/* ---- figures */

static void test_metrics(void **state)
{
    static const char *const lines[] = {
        "mixquant:plan_info{prefill=\"nvfp4\",decode=\"bf16\",role=\"decode\"} 1\n",
        "vllm:cache_config_info{model_name=\"mixquant-agent\",block_size=\"64\",num_gpu_blocks=\"1000\"} 1\n",
        "mixquant:handoffs_sent_total 3\n",
        "mixquant:handoffs_received_total 5\n",
        "mixquant:handoff_receive_failures_total 2\n",
        "mixquant:handoff_hidden_seconds_total 1.5\n",
        "mixquant:prefill_peers_healthy 1\n",
        "mixquant:handoff_refused_peers_total 1\n",
        "vllm:num_requests_waiting{model_name=\"mixquant-agent\"} 0\n",
        "vllm:num_requests_running{model_name=\"mixquant-agent\"} 0\n",
        "vllm:kv_cache_usage_perc{model_name=\"mixquant-agent\"} 0.25\n",
        "mixquant:requests_held 0\n",
    };
    (void)state;
    worker w = open_worker("decode", "[]");
    fixture_free(ask_worker(&w, CHAT, ASK(), "x-prefiller-host-port: nobody:1"));
    script_settle(w.server->script);
    mq_exchange *x = fixture_ask(w.server, mq__api_metrics, "/metrics", NULL, NULL);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        if (!strstr(x->sent.data, lines[i])) fail_msg("expected %s", lines[i]);
    }
    fixture_free(x);
    w.server->backend.handoff = NULL;
    x = fixture_ask(w.server, mq__api_metrics, "/metrics", NULL, NULL);
    assert_non_null(strstr(x->sent.data, "role=\"both\"} 1\n"));
    assert_null(strstr(x->sent.data, "mixquant:handoff"));
    fixture_free(x);
    close_worker(&w);
}

static void test_models_say_plan_and_role(void **state)
{
    (void)state;
    worker w = open_worker("prefill", "[]");
    mq_exchange *x = fixture_ask(w.server, mq__api_models, "/v1/models", NULL, NULL);
    json_t *answer = fixture_json(x);
    assert_string_equal(text_at_path(answer, "data.0.role"), "prefill");
    assert_string_equal(text_at_path(answer, "data.0.plan.prefill"), "nvfp4");
    json_decref(answer);
    fixture_free(x);
    close_worker(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_where_of_whole_answers),
        cmocka_unit_test(test_where_of_streams),
        cmocka_unit_test(test_streams_of_all_apis_wait),
        cmocka_unit_test(test_a_stream_does_not_wait_for_long),
        cmocka_unit_test(test_a_failed_transfer_fails),
        cmocka_unit_test(test_a_failure_before_a_stream_begins_is_a_status),
        cmocka_unit_test(test_a_failure_in_a_stream_is_an_event),
        cmocka_unit_test(test_other_failures),
        cmocka_unit_test(test_metrics),
        cmocka_unit_test(test_models_say_plan_and_role),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
