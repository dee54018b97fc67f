/* Anthropic's Messages API: whole answers, errors, counts, what Claude Code sends. */
#include "server_apis.h"

#define HI       "'messages':[{'role':'user','content':'hi'}]"
#define ONE_TOOL "{'name':'f','description':'d','input_schema':{'type':'object','properties':{'a':{'type':'string'}}}}"

/* ---- whole answers */

static void whole_text(void **state)
{
    (void)state;
    apis_answer("Hello there.", NULL);
    json_t *answer = apis_whole(mq__api_messages, "{'model':'claude-x','max_tokens':100," HI "}", 200);
    assert_string_equal(text_at_path(answer, "id"), "msg_request0123456789abcdefg");
    assert_string_equal(text_at_path(answer, "type"), "message");
    assert_string_equal(text_at_path(answer, "role"), "assistant");
    assert_string_equal(text_at_path(answer, "model"), "claude-x");
    assert_string_equal(text_at_path(answer, "content.0.text"), "Hello there.");
    assert_string_equal(text_at_path(answer, "stop_reason"), "end_turn");
    assert_true(json_is_null(at_path(answer, "stop_sequence")));
    assert_true(integer_at_path(answer, "usage.input_tokens") > 0);
    assert_int_equal(integer_at_path(answer, "usage.cache_read_input_tokens"), 0);
    assert_int_equal(integer_at_path(answer, "usage.cache_creation_input_tokens"), 0);
    assert_true(integer_at_path(answer, "usage.output_tokens") > 0);
    assert_string_equal(text_at_path(answer, "plan.prefill"), "nvfp4");
    assert_non_null(at_path(answer, "timings.prompt_ms"));
    assert_null(at_path(answer, "diagnostics"));
    json_decref(answer);
}

static void whole_calls(void **state)
{
    (void)state;
    apis_answer("I look.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"x\"}}\n</tool_call>\n<tool_call>\n"
                "{\"name\": \"f\", \"arguments\": {\"a\": \"y\"}}\n</tool_call>",
                NULL);
    json_t *answer = apis_whole(mq__api_messages, "{'tools':[" ONE_TOOL "]," HI "}", 200);
    assert_string_equal(text_at_path(answer, "model"), "mixquant-agent");
    assert_int_equal(json_array_size(at_path(answer, "content")), 3);
    assert_string_equal(text_at_path(answer, "content.0.text"), "I look.");
    assert_string_equal(text_at_path(answer, "content.1.type"), "tool_use");
    assert_memory_equal(text_at_path(answer, "content.1.id"), "toolu_", 6);
    assert_string_equal(text_at_path(answer, "content.1.name"), "f");
    assert_string_equal(text_at_path(answer, "content.1.input.a"), "x");
    assert_string_equal(text_at_path(answer, "content.2.input.a"), "y");
    assert_string_not_equal(text_at_path(answer, "content.1.id"), text_at_path(answer, "content.2.id"));
    assert_string_equal(text_at_path(answer, "stop_reason"), "tool_use");
    json_decref(answer);
}

static void whole_thinking_blocks(void **state)
{
    (void)state;
    apis_answer("<think>\nfour\n</think>\n\n4", THINKS);
    json_t *answer = apis_whole(mq__api_messages, "{'thinking':{'type':'adaptive'}," HI "}", 200);
    assert_string_equal(text_at_path(answer, "content.0.type"), "thinking");
    assert_string_equal(text_at_path(answer, "content.0.thinking"), "four");
    assert_true(strlen(text_at_path(answer, "content.0.signature")) > 0);
    assert_string_equal(text_at_path(answer, "content.1.text"), "4");
    json_decref(answer);
    answer = apis_whole(mq__api_messages, "{'thinking':{'type':'adaptive','display':'omitted'}," HI "}", 200);
    assert_string_equal(text_at_path(answer, "content.0.thinking"), "");
    assert_string_equal(text_at_path(answer, "content.0.signature"), "mq1:Zm91cg==");
    json_decref(answer);
}

static void whole_ends(void **state)
{
    (void)state;
    apis_answer("one two three four five six seven", NULL);
    json_t *answer = apis_whole(mq__api_messages, "{'max_tokens':2," HI "}", 200);
    assert_string_equal(text_at_path(answer, "stop_reason"), "max_tokens");
    assert_int_equal(integer_at_path(answer, "usage.output_tokens"), 2);
    json_decref(answer);
    answer = apis_whole(mq__api_messages, "{'stop_sequences':['four']," HI "}", 200);
    assert_string_equal(text_at_path(answer, "stop_reason"), "stop_sequence");
    assert_string_equal(text_at_path(answer, "stop_sequence"), "four");
    assert_string_equal(text_at_path(answer, "content.0.text"), "one two three ");
    json_decref(answer);
    answer = apis_whole(mq__api_messages, "{'stop_sequences':['seven','','ree','three','four']," HI "}", 200);
    assert_string_equal(text_at_path(answer, "stop_reason"), "stop_sequence");
    assert_string_equal(text_at_path(answer, "stop_sequence"), "three"); /* the longest that ends there */
    assert_string_equal(text_at_path(answer, "content.0.text"), "one two ");
    json_decref(answer);
    answer = apis_whole(mq__api_messages, "{'max_tokens':0," HI "}", 200); /* only reads the prompt */
    assert_string_equal(text_at_path(answer, "stop_reason"), "max_tokens");
    assert_int_equal(json_array_size(at_path(answer, "content")), 0);
    assert_int_equal(integer_at_path(answer, "usage.output_tokens"), 0);
    json_decref(answer);
    apis_answer("", NULL);
    answer = apis_whole(mq__api_messages, "{" HI "}", 200);
    assert_string_equal(text_at_path(answer, "content.0.text"), "");
    json_decref(answer);
    apis_answer("<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"x y z x y z x y z\"}}\n</tool_call>", NULL);
    answer = apis_whole(mq__api_messages, "{'max_tokens':14,'tools':[" ONE_TOOL "]," HI "}", 200);
    assert_string_equal(text_at_path(answer, "stop_reason"), "max_tokens");
    assert_null(at_path(answer, "content.0.input"));
    json_decref(answer);
}

/* The answer wants more than the context of 4096 has: larger max_tokens would be the wrong advice. */
static void whole_context(void **state)
{
    (void)state;
    char text[4096 * 4 + 1] = "";
    for (size_t i = 0; i < 4096; i++) {
        memcpy(text + 4 * i, "one ", 5);
    }
    apis_answer(text, NULL);
    json_t *answer = apis_whole(mq__api_messages, "{'max_tokens':32000," HI "}", 200);
    assert_string_equal(text_at_path(answer, "stop_reason"), "model_context_window_exceeded");
    assert_int_equal(integer_at_path(answer, "usage.output_tokens") + integer_at_path(answer, "usage.input_tokens"),
                     4096);
    const long long room = integer_at_path(answer, "usage.output_tokens");
    json_decref(answer);
    char body[200];
    snprintf(body, sizeof body, "{'max_tokens':%lld," HI "}", room); /* as many as there is room for */
    answer = apis_whole(mq__api_messages, body, 200);
    assert_string_equal(text_at_path(answer, "stop_reason"), "max_tokens");
    json_decref(answer);
}

#define LONG                                                                                                           \
    "a long text that has more than sixty-four tokens: one two three four five six seven eight nine ten eleven "       \
    "twelve thirteen "                                                                                                 \
    "fourteen fifteen sixteen seventeen eighteen nineteen twenty one two three four five six seven eight nine ten "    \
    "eleven "                                                                                                          \
    "twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"

/* What was cached, and why not more of it. */
static void cached_tokens(void **state)
{
    (void)state;
    static const struct {
        const char *body, *type;
    } cases[] = {
        {"{'system':'" LONG
         "','diagnostics':{'previous_message_id':'msg_1'},'messages':[{'role':'user','content':'" LONG "'}]}",
         "previous_message_not_found"},
        {"{'system':'" LONG
         "','diagnostics':{'previous_message_id':'msg_1'},'messages':[{'role':'user','content':'" LONG " and more'}]}",
         "messages_changed"},
        {"{'system':'" LONG
         " or so','diagnostics':{'previous_message_id':'msg_1'},'messages':[{'role':'user','content':'" LONG "'}]}",
         "system_changed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *answer = apis_whole(mq__api_messages, cases[i].body, 200);
        assert_string_equal(text_at_path(answer, "diagnostics.cache_miss_reason.type"), cases[i].type);
        const long long read = integer_at_path(answer, "usage.cache_read_input_tokens"),
                        fresh = integer_at_path(answer, "usage.input_tokens"),
                        missed = integer_at_path(answer, "diagnostics.cache_miss_reason.cache_missed_input_tokens");
        assert_true(i == 0 ? read == 0 : read >= 64);
        assert_true(fresh > 0 && (i == 0 || missed == fresh));
        if (i) assert_memory_equal(text_at_path(answer, "diagnostics.cache_miss_reason.message"), "cached ", 7);
        json_decref(answer);
    }
    json_t *answer = apis_whole(mq__api_messages, cases[0].body, 200); /* the same again: nothing was missed */
    assert_true(json_is_null(at_path(answer, "diagnostics.cache_miss_reason")));
    json_decref(answer);
}

/* ---- errors */

static void errors_of_anthropic(void **state)
{
    (void)state;
    static const struct {
        unsigned status;
        const char *type;
    } cases[] = {{400, "invalid_request_error"},
                 {401, "authentication_error"},
                 {403, "permission_error"},
                 {404, "not_found_error"},
                 {413, "request_too_large"},
                 {429, "rate_limit_error"},
                 {500, "api_error"},
                 {503, "overloaded_error"},
                 {504, "timeout_error"},
                 {529, "overloaded_error"},
                 {405, "invalid_request_error"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const mq_fault fault = {.status = cases[i].status, .type = "server_error", .message = "why"};
        json_t *error = mq__messages_error(&fault);
        assert_string_equal(text_at_path(error, "type"), "error");
        assert_string_equal(text_at_path(error, "error.type"), cases[i].type);
        assert_string_equal(text_at_path(error, "error.message"), "why");
        json_decref(error);
    }
    json_t *error = apis_whole(mq__api_messages, "{}", 400);
    assert_string_equal(text_at_path(error, "error.type"), "invalid_request_error");
    json_decref(error);
}

static void too_long_a_prompt(void **state)
{
    (void)state;
    mq_buf body = {0};
    mq__buf_puts(&body, "{'messages':[{'role':'user','content':'");
    for (int i = 0; i < 5000; i++) {
        mq__buf_puts(&body, "one two ");
    }
    mq__buf_puts(&body, "'}]}");
    json_t *error = apis_whole(mq__api_messages, body.data, 400);
    assert_string_equal(text_at_path(error, "error.type"), "invalid_request_error");
    assert_non_null(strstr(text_at_path(error, "error.message"), "prompt is too long: "));
    assert_non_null(strstr(text_at_path(error, "error.message"), " tokens > 4095 maximum"));
    assert_non_null(strstr(text_at_path(error, "error.message"), "maximum context length"));
    json_decref(error);
    json_t *count = apis_whole(mq__api_count_messages, body.data, 200); /* counting has no limit */
    assert_true(integer_at_path(count, "input_tokens") > 4096);
    json_decref(count);
    mq__buf_free(&body);
}

static void backend_errors(void **state)
{
    (void)state;
    apis_script("[{\"when\":\"\",\"error\":\"io\"}]", NULL);
    json_t *error = apis_whole(mq__api_messages, "{" HI "}", 500);
    assert_string_equal(text_at_path(error, "error.type"), "api_error");
    json_decref(error);
    apis_script("{\"queue\":0,\"answers\":[]}", NULL);
    error = apis_whole(mq__api_messages, "{" HI "}", 429);
    assert_string_equal(text_at_path(error, "error.type"), "rate_limit_error");
    json_decref(error);
}

/* ---- counts */

static void counts(void **state)
{
    (void)state;
    static const char body[] = "{'model':'m','system':'s','tools':[" ONE_TOOL "]," HI "}";
    json_t *count = apis_whole(mq__api_count_messages, body, 200);
    json_t *answer = apis_whole(mq__api_messages, body, 200);
    assert_int_equal(integer_at_path(count, "input_tokens"), integer_at_path(answer, "usage.input_tokens"));
    assert_int_equal(json_object_size(count), 1);
    assert_int_equal(script_requests(apis_server->script), 1); /* of the answer only */
    json_decref(count);
    json_decref(answer);
    json_t *error = apis_whole(mq__api_count_messages, "{'messages':7}", 400);
    assert_string_equal(text_at_path(error, "type"), "error");
    json_decref(error);
}

/* ---- what Claude Code sends */

static void recorded_bodies(void **state)
{
    (void)state;
    static const struct {
        const char *name, *session;
        bool background;
    } cases[] = {{"recorded-claude-first", "00000000-0000-4000-8000-000000002327", false},
                 {"recorded-claude-results", "00000000-0000-4000-8000-000000002327", false},
                 {"claude-code-blocks", "11111111-2222-4333-8444-555555555555", false},
                 {"claude-code-title", "11111111-2222-4333-8444-555555555555", true},
                 {"claude-code-probe", "11111111-2222-4333-8444-555555555555", false}};
    apis_server->model.info.context = 16384;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mq__buf_clear(&apis_server->log);
        mq_exchange *x = apis_replay(mq__api_messages, cases[i].name);
        if (x->status != 200) fail_msg("%s: %u %s", cases[i].name, x->status, x->sent.data);
        assert_string_equal(fixture_answer_header(x, "request-id"), "req_request0123456789abcdefg");
        json_t *answer =
            x->begun ? apis_accept(order_events(x->sent.data, x->sent.len), order_message_event) : fixture_json(x);
        /* A turn begins like the one before. */
        if (i == 1) assert_true(integer_at_path(answer, "usage.cache_read_input_tokens") > 100);
        json_decref(answer);
        fixture_free(x);
        assert_int_equal(script_last_request(apis_server->script).background, cases[i].background);
        if (!strstr(apis_server->log.data, cases[i].session)) fail_msg("%s: %s", cases[i].name, apis_server->log.data);
        char *prompt = script_last_prompt(apis_server->script);
        assert_null(strstr(prompt, "billing"));
        mq_free(prompt);
    }
    mq_exchange *x = apis_replay(mq__api_count_messages, "claude-code-count");
    json_t *count = fixture_json(x);
    assert_true(x->status == 200 && integer_at_path(count, "input_tokens") > 100);
    json_decref(count);
    fixture_free(x);
}

/* Titles of other clients: opencode asks for them as chat, or with its instructions as a system item. */
static void titles_of_others(void **state)
{
    (void)state;
    json_t *recorded = apis_recorded("recorded-opencode-title"), *body = json_object_get(recorded, "body");
    mq_exchange *x = apis_replay(mq__api_chat, "recorded-opencode-title");
    assert_int_equal(x->status, 200);
    fixture_free(x);
    assert_true(script_last_request(apis_server->script).background);
    assert_non_null(strstr(apis_server->log.data, "session ses_"));
    json_object_set(body, "input", json_object_get(body, "messages"));
    char *printed = json_dumps(body, 0);
    x = fixture_ask(apis_server, mq__api_responses, "/v1/responses", printed, NULL);
    assert_int_equal(x->status, 200);
    fixture_free(x);
    assert_true(script_last_request(apis_server->script).background);
    free(printed);
    json_decref(recorded);
    static const char *const others[] = {"recorded-opencode-first", "recorded-qwen-first"};
    apis_server->model.info.context = 32768;
    for (size_t i = 0; i < 2; i++) {
        x = apis_replay(mq__api_chat, others[i]);
        assert_int_equal(x->status, 200);
        fixture_free(x);
        assert_false(script_last_request(apis_server->script).background);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, apis_setup, apis_teardown)
    const struct CMUnitTest tests[] = {
        TEST(whole_text),     TEST(whole_calls),   TEST(whole_thinking_blocks), TEST(whole_ends),
        TEST(whole_context),  TEST(cached_tokens), TEST(errors_of_anthropic),   TEST(too_long_a_prompt),
        TEST(backend_errors), TEST(counts),        TEST(recorded_bodies),       TEST(titles_of_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
