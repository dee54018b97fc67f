/* What requests say of prefill elsewhere: peers, leases, prefill legs. */
#include "server_workers.h"

/* ---- the header */

static void test_header_names_a_peer(void **state)
{
    static const struct {
        const char *path, *body;
    } all[] = {{CHAT, ASK()},
               {COMPLETIONS, RAW()},
               {"/v1/messages", ASK(",\"max_tokens\":9")},
               {"/v1/responses", "{\"input\":\"hi\"}"}};
    (void)state;
    worker w = open_worker("decode", "[{\"prefilled\":\"remote\"}]");
    w.handoff->allowed[0] = "10.0.0.1:8080";
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        mq_exchange *x = ask_worker(&w, all[i].path, all[i].body, "x-prefiller-host-port: 10.0.0.1:8080,10.0.0.2:8080");
        assert_int_equal(x->status, 200);
        assert_string_equal(w.peer, "10.0.0.1:8080");
        assert_string_equal(w.lease, "");
        assert_string_equal(fixture_answer_header(x, "x-prefill"), "remote");
        fixture_free(x);
    }
    fixture_free(ask_worker(&w, CHAT, ASK(), "x-prefiller-host-port:   http://10.0.0.1:8080"));
    assert_string_equal(w.peer, "10.0.0.1:8080");
    assert_int_equal(w.handoff->refused, 0);
    close_worker(&w);
}

static void test_header_that_is_not_allowed(void **state)
{
    (void)state;
    worker w = open_worker("decode", "[]");
    mq_exchange *x = ask_worker(&w, CHAT, ASK(), "x-prefiller-host-port: 10.0.0.9:22");
    assert_int_equal(x->status, 200);
    assert_string_equal(w.peer, "");
    assert_int_equal(w.handoff->refused, 1);
    assert_string_equal(fixture_answer_header(x, "x-prefill"), "local");
    json_t *answer = fixture_json(x);
    assert_string_equal(text_at_path(answer, "timings.prefill.where"), "local");
    assert_non_null(strstr(text_at_path(answer, "timings.prefill.reason"), "10.0.0.9:22 is not among"));
    assert_non_null(strstr(w.server->log.data, "10.0.0.9:22 is not among"));
    json_decref(answer);
    fixture_free(x);
    close_worker(&w);
}

static void test_header_of_other_text(void **state)
{
    static const char *const bad[] = {"http://10.0.0.1:80/x", "a b", "h\tx", "\"h\"", ","};
    (void)state;
    worker w = open_worker("decode", "[]");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char header[400];
        snprintf(header, sizeof header, "x-prefiller-host-port: %s", bad[i]);
        mq_exchange *x = ask_worker(&w, CHAT, ASK(), header);
        assert_int_equal(x->status, 200);
        assert_string_equal(w.peer, "");
        fixture_free(x);
    }
    assert_true(w.handoff->refused <= 1); /* "a" was a name */
    close_worker(&w);
}

/* A server that takes part in nothing says nothing, and does not look. */
static void test_plain_server(void **state)
{
    (void)state;
    worker w = open_worker("decode", "[]");
    w.server->backend.handoff = NULL;
    mq_exchange *x = ask_worker(&w, CHAT, ASK(), "x-prefiller-host-port: 10.0.0.1:8080");
    assert_string_equal(w.peer, "");
    assert_null(fixture_answer_header(x, "x-prefill"));
    json_t *answer = fixture_json(x);
    assert_null(at_path(answer, "timings.prefill"));
    json_decref(answer);
    fixture_free(x);
    x = ask_worker(&w, CHAT, ASK(LENDS), NULL);
    assert_int_equal(x->status, 200);
    answer = fixture_json(x);
    assert_null(at_path(answer, "kv_transfer_params"));
    json_decref(answer);
    fixture_free(x);
    close_worker(&w);
}

/* ---- two steps */

static void check_lease(json_t *answer, long long prompt)
{
    json_t *p = at_path(answer, "kv_transfer_params");
    assert_true(json_is_true(at_path(p, "do_remote_prefill")));
    assert_true(json_is_false(at_path(p, "do_remote_decode")));
    assert_string_equal(text_at_path(p, "remote_engine_id"), "i-1");
    assert_string_equal(text_at_path(p, "remote_request_id"), SCRIPT_LEASE);
    assert_string_equal(text_at_path(p, "remote_host"), "192.0.2.7"); /* the link listens on any address */
    assert_int_equal(integer_at_path(p, "remote_port"), 8998);
    assert_int_equal(integer_at_path(p, "remote_num_tokens"), prompt);
    assert_int_equal(integer_at_path(p, "tp_size"), 1);
    assert_string_equal(text_at_path(p, "transfer_mode"), "pull");
    assert_int_equal(json_array_size(at_path(p, "remote_block_ids")), 1);
    assert_int_equal(json_array_size(at_path(p, "remote_block_ids.0")), (size_t)(prompt + 63) / 64);
    assert_true(json_real_value(at_path(p, "remote_blocks_expiry_time")) > (double)time(NULL) + 20);
}

static void test_a_prefill_worker_lends(void **state)
{
    static const struct {
        const char *path, *body, *prompt;
    } all[] = {
        {CHAT, ASK(LENDS), "usage.prompt_tokens"},
        {COMPLETIONS, RAW(LENDS), "usage.prompt_tokens"},
        {"/v1/messages", ASK(LENDS), "usage.input_tokens"},
        {"/v1/responses",
         "{\"input\":\"hi\",\"max_output_tokens\":1,\"kv_transfer_params\":{\"do_remote_decode\":true}}",
         "usage.input_tokens"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        worker w = open_worker("prefill", "[{\"answer\":\"one two three\"}]");
        mq_exchange *x = ask_worker(&w, all[i].path, all[i].body, NULL);
        assert_int_equal(x->status, 200);
        json_t *answer = fixture_json(x);
        const long long prompt = integer_at_path(answer, all[i].prompt);
        assert_true(prompt > 0);
        check_lease(answer, prompt);
        assert_true(script_last_request(w.server->script).hold);
        assert_non_null(w.handoff->lent);
        assert_true(w.handoff->seconds == 30);
        assert_int_equal(script_released(w.server->script), 0); /* the lease has the job */
        assert_null(fixture_answer_header(x, "x-prefill"));
        json_decref(answer);
        fixture_free(x);
        close_worker(&w);
    }
}

static void test_several_answers_lend_one(void **state)
{
    (void)state;
    worker w = open_worker("prefill", "[]");
    mq_exchange *x = ask_worker(&w, CHAT, ASK(LENDS ",\"n\":3"), NULL);
    assert_int_equal(x->status, 200);
    assert_int_equal(w.handoff->leases, 1);
    assert_int_equal(script_released(w.server->script), 2);
    fixture_free(x);
    close_worker(&w);
}

static void test_a_failed_answer_lends_nothing(void **state)
{
    (void)state;
    worker w = open_worker("prefill", "[{\"error\":\"io\"}]");
    mq_exchange *x = ask_worker(&w, CHAT, ASK(LENDS), NULL);
    assert_int_equal(x->status, 500);
    assert_int_equal(w.handoff->leases, 0);
    assert_int_equal(script_released(w.server->script), 1);
    fixture_free(x);
    close_worker(&w);
}

static void test_an_answer_nobody_reads_lends_nothing(void **state)
{
    (void)state;
    worker w = open_worker("prefill", "[{\"hold\":true}]");
    mq_exchange *x = fixture_exchange(CHAT, ASK(LENDS), NULL);
    mq__api_chat(w.server, x);
    fixture_gone(x, false);
    assert_int_equal(w.handoff->leases, 0);
    assert_int_equal(script_released(w.server->script), 1);
    fixture_free(x);
    close_worker(&w);
}

/* A decode worker that is asked to lend answers, and says that it does not. */
static void test_who_does_not_listen_does_not_lend(void **state)
{
    (void)state;
    worker w = open_worker("decode", "[]");
    mq_exchange *x = ask_worker(&w, CHAT, ASK(LENDS), NULL);
    json_t *answer = fixture_json(x);
    assert_int_equal(x->status, 200);
    assert_null(at_path(answer, "kv_transfer_params"));
    assert_false(script_last_request(w.server->script).hold);
    assert_non_null(strstr(w.server->log.data, "does not listen"));
    json_decref(answer);
    fixture_free(x);
    close_worker(&w);
}

static void test_a_decode_worker_fetches(void **state)
{
    (void)state;
    worker w = open_worker("decode", "[{\"prefilled\":\"remote\"}]");
    w.handoff->allowed[0] = "link://10.0.0.1:8998";
    w.handoff->allowed[1] = "link://[fe80::1]:8998";
    mq_exchange *x = ask_worker(&w, COMPLETIONS, RAW(FETCHES("\"10.0.0.1\"", "8998", "\"" SCRIPT_LEASE "\"")),
                                "x-prefiller-host-port: 10.0.0.5:80"); /* the body says it more exactly */
    assert_int_equal(x->status, 200);
    assert_string_equal(w.peer, "link://10.0.0.1:8998");
    assert_string_equal(w.lease, SCRIPT_LEASE);
    assert_string_equal(fixture_answer_header(x, "x-prefill"), "remote");
    json_t *answer = fixture_json(x);
    assert_string_equal(text_at_path(answer, "timings.prefill.where"), "remote");
    assert_true(integer_at_path(answer, "timings.prefill.arrived_n") > 0);
    assert_null(at_path(answer, "timings.prefill.reason"));
    assert_null(at_path(answer, "kv_transfer_params"));
    json_decref(answer);
    fixture_free(x);
    x = ask_worker(&w, CHAT, ASK(FETCHES("\"fe80::1\"", "8998", "\"r\"") ",\"n\":2"), NULL);
    assert_int_equal(x->status, 200);
    assert_string_equal(w.peer, "link://[fe80::1]:8998");
    assert_string_equal(w.lease, ""); /* of the second answer: the first one fetches */
    fixture_free(x);
    close_worker(&w);
}

static void test_a_lender_that_is_not_allowed(void **state)
{
    (void)state;
    worker w = open_worker("decode", "[]");
    mq_exchange *x = ask_worker(&w, CHAT, ASK(FETCHES("\"169.254.169.254\"", "80", "\"r\"")), NULL);
    assert_int_equal(x->status, 200);
    assert_string_equal(w.peer, "");
    assert_string_equal(w.lease, "");
    assert_int_equal(w.handoff->refused, 1);
    fixture_free(x);
    close_worker(&w);
}

static void test_null_members(void **state)
{
    static const char *const bodies[] = {
        ASK(",\"kv_transfer_params\":null"),
        ASK(",\"kv_transfer_params\":{}"),
        ASK(",\"kv_transfer_params\":{\"do_remote_decode\":null,\"do_remote_prefill\":null}"),
        ASK(FETCHES("null", "8998", "\"r\"")),
        ASK(FETCHES("\"10.0.0.1\"", "null", "\"r\"")),
        ASK(FETCHES("\"10.0.0.1\"", "8998", "null")),
        ASK(FETCHES("\"10.0.0.1\"", "8998", "\"\"")),
        ASK(",\"bootstrap_host\":null,\"bootstrap_port\":null,\"bootstrap_room\":null"),
        ASK(",\"bootstrap_host\":\"10.0.0.1\",\"bootstrap_port\":null,\"bootstrap_room\":7"),
    };
    (void)state;
    worker w = open_worker("decode", "[]");
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        mq_exchange *x = ask_worker(&w, CHAT, bodies[i], NULL);
        assert_int_equal(x->status, 200);
        assert_string_equal(w.peer, "");
        assert_string_equal(w.lease, "");
        fixture_free(x);
    }
    assert_int_equal(w.handoff->refused, 0);
    close_worker(&w);
}

static void test_malformed_members(void **state)
{
    static const struct {
        const char *body, *param;
    } all[] = {
        {ASK(",\"kv_transfer_params\":7"), "kv_transfer_params"},
        {ASK(",\"kv_transfer_params\":[]"), "kv_transfer_params"},
        {ASK(",\"kv_transfer_params\":{\"do_remote_decode\":\"yes\"}"), "do_remote_decode"},
        {ASK(",\"kv_transfer_params\":{\"do_remote_decode\":true,\"do_remote_prefill\":true}"), "kv_transfer_params"},
        {ASK(",\"stream\":true,\"kv_transfer_params\":{\"do_remote_decode\":true}"), "stream"},
        {ASK(FETCHES("17", "8998", "\"r\"")), "remote_host"},
        {ASK(FETCHES("\"a b\"", "8998", "\"r\"")), "remote_host"},
        {ASK(FETCHES("\"h/x\"", "8998", "\"r\"")), "remote_host"},
        {ASK(FETCHES("\"\"", "8998", "\"r\"")), "remote_host"},
        {ASK(FETCHES("\"h\"", "0", "\"r\"")), "remote_port"},
        {ASK(FETCHES("\"h\"", "65536", "\"r\"")), "remote_port"},
        {ASK(FETCHES("\"h\"", "\"8998\"", "\"r\"")), "remote_port"},
        {ASK(FETCHES("\"h\"", "8998", "{}")), "remote_request_id"},
        {ASK(FETCHES("\"h\"", "8998", "\"a\\nb\"")), "remote_request_id"},
        {ASK(",\"kv_transfer_params\":{\"do_remote_prefill\":true,\"remote_block_ids\":7}"), "remote_block_ids"},
        {ASK(",\"bootstrap_host\":[\"a\",\"b\"],\"bootstrap_room\":[1,2]"), "bootstrap_host"},
        {ASK(",\"bootstrap_host\":\"h\",\"bootstrap_port\":8998,\"bootstrap_room\":\"r\""), "bootstrap_room"},
    };
    (void)state;
    worker w = open_worker("decode", "[]");
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        mq_exchange *x = ask_worker(&w, CHAT, all[i].body, NULL);
        json_t *answer = fixture_json(x);
        if (x->status != 400) fail_msg("%s: expected 400, got %u", all[i].body, x->status);
        assert_string_equal(text_at_path(answer, "error.param"), all[i].param);
        json_decref(answer);
        fixture_free(x);
    }
    assert_int_equal(script_requests(w.server->script), 0);
    close_worker(&w);
}

/* Names are bounded: nothing is cut silently. */
static void test_long_names(void **state)
{
    char body[2000], name[600];
    (void)state;
    worker w = open_worker("decode", "[]");
    memset(name, 'h', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    snprintf(body, sizeof body,
             "{\"prompt\":\"a\",\"kv_transfer_params\":{\"do_remote_prefill\":true,"
             "\"remote_host\":\"%s\",\"remote_port\":1,\"remote_request_id\":\"r\"}}",
             name);
    mq_exchange *x = ask_worker(&w, COMPLETIONS, body, NULL);
    assert_int_equal(x->status, 400);
    fixture_free(x);
    snprintf(body, sizeof body,
             "{\"prompt\":\"a\",\"kv_transfer_params\":{\"do_remote_prefill\":true,"
             "\"remote_host\":\"h\",\"remote_port\":1,\"remote_request_id\":\"%.129s\"}}",
             name);
    x = ask_worker(&w, COMPLETIONS, body, NULL);
    assert_int_equal(x->status, 400);
    fixture_free(x);
    snprintf(body, sizeof body, "x-prefiller-host-port: %.255s", name);
    x = ask_worker(&w, CHAT, ASK(), body);
    assert_int_equal(x->status, 200);
    assert_int_equal(strlen(w.handoff->asked), 255);
    fixture_free(x);
    snprintf(body, sizeof body, "x-prefiller-host-port: %.256s", name);
    x = ask_worker(&w, CHAT, ASK(), body);
    assert_int_equal(x->status, 200);
    assert_int_equal(w.handoff->refused, 1); /* the second one was not even asked for */
    fixture_free(x);
    close_worker(&w);
}

/* ---- two legs at once */

static void test_the_prefill_leg_is_acknowledged(void **state)
{
    (void)state;
    worker w = open_worker("prefill", "[]");
    mq_exchange *x = ask_worker(&w, CHAT, ASK(BOOTSTRAP("10.0.0.1", "8998") ",\"max_tokens\":500,\"n\":2"), NULL);
    json_t *answer = fixture_json(x);
    assert_int_equal(x->status, 200);
    assert_int_equal(script_requests(w.server->script), 0); /* nothing is computed before it is asked for */
    assert_int_equal(integer_at_path(answer, "usage.completion_tokens"), 0);
    assert_true(integer_at_path(answer, "usage.prompt_tokens") > 0);
    assert_int_equal(json_array_size(at_path(answer, "choices")), 2);
    assert_string_equal(text_at_path(answer, "choices.0.message.content"), "");
    assert_string_equal(text_at_path(answer, "choices.1.finish_reason"), "length");
    json_decref(answer);
    fixture_free(x);
    x = ask_worker(&w, CHAT, ASK(BOOTSTRAP("10.0.0.1", "8998") ",\"stream\":true"), NULL);
    fixture_events events = fixture_parse(x);
    collected c = collect(&events, 0);
    assert_string_equal(text_of(&c.text), "");
    assert_string_equal(c.finish, "length");
    forget(&c);
    fixture_events_free(&events);
    fixture_free(x);
    assert_int_equal(script_requests(w.server->script), 0);
    close_worker(&w);
}

static void test_the_prefill_leg_of_other_apis(void **state)
{
    static const struct {
        const char *path, *body;
    } all[] = {{COMPLETIONS, RAW(BOOTSTRAP("h", "1"))},
               {COMPLETIONS, RAW(BOOTSTRAP("h", "1") ",\"stream\":true")},
               {"/v1/messages", ASK(",\"max_tokens\":9" BOOTSTRAP("h", "1"))},
               {"/v1/messages", ASK(",\"max_tokens\":9,\"stream\":true" BOOTSTRAP("h", "1"))},
               {"/v1/responses", "{\"input\":\"hi\"" BOOTSTRAP("h", "1") "}"},
               {"/v1/responses", "{\"input\":\"hi\",\"stream\":true" BOOTSTRAP("h", "1") "}"}};
    (void)state;
    worker w = open_worker("prefill", "[]");
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        mq_exchange *x = ask_worker(&w, all[i].path, all[i].body, NULL);
        assert_int_equal(x->status, 200);
        fixture_free(x);
    }
    assert_int_equal(script_requests(w.server->script), 0);
    close_worker(&w);
}

/* What is wrong with the request the prefill leg says, too. */
static void test_a_wrong_prefill_leg(void **state)
{
    (void)state;
    worker w = open_worker("prefill", "[]");
    mq_exchange *x = ask_worker(&w, CHAT, "{\"messages\":[]" BOOTSTRAP("h", "1") "}", NULL);
    assert_int_equal(x->status, 400);
    fixture_free(x);
    close_worker(&w);
}

static void test_the_decode_leg_asks(void **state)
{
    (void)state;
    worker w = open_worker("decode", "[{\"prefilled\":\"remote\"}]");
    w.handoff->allowed[0] = "link://10.0.0.1:8998";
    mq_exchange *x = ask_worker(&w, CHAT, ASK(BOOTSTRAP("10.0.0.1", "8998")), NULL);
    assert_int_equal(x->status, 200);
    assert_string_equal(w.peer, "link://10.0.0.1:8998");
    assert_string_equal(w.lease, "");
    assert_string_equal(fixture_answer_header(x, "x-prefill"), "remote");
    fixture_free(x);
    x = ask_worker(&w, CHAT, ASK(BOOTSTRAP("10.0.0.2", "8998")), NULL);
    assert_string_equal(w.peer, "");
    assert_int_equal(w.handoff->refused, 1);
    fixture_free(x);
    close_worker(&w);
}

/* A worker that does both tells the legs apart by the link that they name. */
static void test_legs_of_a_worker_with_both_roles(void **state)
{
    (void)state;
    worker w = open_worker("both", "[{\"prefilled\":\"remote\"}]");
    w.handoff->backend.link_host = "0.0.0.0";
    w.handoff->backend.link_port = 8998;
    w.handoff->allowed[0] = "link://192.0.2.8:8998";
    mq_exchange *x = ask_worker(&w, CHAT, ASK(BOOTSTRAP("192.0.2.7", "8998")), NULL);
    assert_int_equal(script_requests(w.server->script), 0);
    fixture_free(x);
    x = ask_worker(&w, CHAT, ASK(BOOTSTRAP("192.0.2.8", "8998")), NULL);
    assert_int_equal(script_requests(w.server->script), 1);
    assert_string_equal(w.peer, "link://192.0.2.8:8998");
    fixture_free(x);
    close_worker(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header_names_a_peer),
        cmocka_unit_test(test_header_that_is_not_allowed),
        cmocka_unit_test(test_header_of_other_text),
        cmocka_unit_test(test_plain_server),
        cmocka_unit_test(test_a_prefill_worker_lends),
        cmocka_unit_test(test_several_answers_lend_one),
        cmocka_unit_test(test_a_failed_answer_lends_nothing),
        cmocka_unit_test(test_an_answer_nobody_reads_lends_nothing),
        cmocka_unit_test(test_who_does_not_listen_does_not_lend),
        cmocka_unit_test(test_a_decode_worker_fetches),
        cmocka_unit_test(test_a_lender_that_is_not_allowed),
        cmocka_unit_test(test_null_members),
        cmocka_unit_test(test_malformed_members),
        cmocka_unit_test(test_long_names),
        cmocka_unit_test(test_the_prefill_leg_is_acknowledged),
        cmocka_unit_test(test_the_prefill_leg_of_other_apis),
        cmocka_unit_test(test_a_wrong_prefill_leg),
        cmocka_unit_test(test_the_decode_leg_asks),
        cmocka_unit_test(test_legs_of_a_worker_with_both_roles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
