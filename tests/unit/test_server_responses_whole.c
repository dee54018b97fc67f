/* OpenAI's Responses API: whole answers, errors, counts, what Codex sends. */
#include "server_apis.h"

#define FUNCTION                                                                                                       \
    "{'type':'function','name':'f','description':'d','strict':false,'parameters':{'type':'object','properties':{}}}"
#define CUSTOM "{'type':'custom','name':'patch','description':'Edits.'}"
#define SPACE                                                                                                          \
    "{'type':'namespace','name':'mcp__a','tools':[{'type':'function','name':'f','parameters':{}},{'type':'custom',"    \
    "'name':'c'}]}"
#define CALLS(c) "{\"name\": \"" c "}\n</tool_call>"

/* ---- whole answers */

static void whole_text(void **state)
{
    (void)state;
    apis_answer("Hello there.", NULL);
    json_t *answer =
        apis_whole(mq__api_responses,
                   "{'model':'gpt-x','input':'hi','instructions':'i','temperature':0.5,'metadata':{'k':'v'}}", 200);
    assert_string_equal(text_at_path(answer, "id"), "resp_request0123456789abcdefg");
    assert_string_equal(text_at_path(answer, "object"), "response");
    assert_string_equal(text_at_path(answer, "status"), "completed");
    assert_string_equal(text_at_path(answer, "model"), "gpt-x");
    assert_true(json_is_null(at_path(answer, "error")) && json_is_null(at_path(answer, "incomplete_details")));
    assert_string_equal(text_at_path(answer, "output.0.type"), "message");
    assert_string_equal(text_at_path(answer, "output.0.role"), "assistant");
    assert_string_equal(text_at_path(answer, "output.0.content.0.type"), "output_text");
    assert_string_equal(text_at_path(answer, "output.0.content.0.text"), "Hello there.");
    assert_true(json_is_array(at_path(answer, "output.0.content.0.annotations")));
    assert_string_equal(text_at_path(answer, "instructions"), "i");
    assert_string_equal(text_at_path(answer, "metadata.k"), "v");
    assert_string_equal(text_at_path(answer, "tool_choice"), "auto");
    assert_string_equal(text_at_path(answer, "text.format.type"), "text");
    assert_true(json_is_array(at_path(answer, "tools")) && json_is_false(at_path(answer, "store")));
    assert_int_equal(integer_at_path(answer, "usage.input_tokens") + integer_at_path(answer, "usage.output_tokens"),
                     integer_at_path(answer, "usage.total_tokens"));
    assert_int_equal(integer_at_path(answer, "usage.input_tokens_details.cached_tokens"), 0);
    assert_int_equal(integer_at_path(answer, "usage.output_tokens_details.reasoning_tokens"), 0);
    assert_string_equal(text_at_path(answer, "plan.prefill"), "nvfp4");
    assert_non_null(at_path(answer, "timings.prompt_ms"));
    assert_int_equal(integer_at_path(answer, "created_at") > 1000000000, 1);
    json_decref(answer);
}

static void whole_calls(void **state)
{
    (void)state;
    apis_answer(
        "I act.\n<tool_call>\n" CALLS("f\", \"arguments\": {\"a\": 1}") "\n<tool_call>\n" CALLS(
            "patch\", "
            "\"arguments\":"
            " {\"input\": "
            "\"*** "
            "Begin\\n\"}") "\n<tool_call>\n" CALLS("mcp__a__f\", \"arguments\": {}") "\n<tool_call>\n" CALLS("local_"
                                                                                                             "shell\", "
                                                                                                             "\"argumen"
                                                                                                             "ts\": "
                                                                                                             "{\"comman"
                                                                                                             "d\": "
                                                                                                             "[\"ls\", "
                                                                                                             "\"-l\"], "
                                                                                                             "\"workdir"
                                                                                                             "\": "
                                                                                                             "\"/\"}") "\n<tool_call>"
                                                                                                                       "\n" CALLS(
                                                                                                                           "local_"
                                                                                                                           "shell"
                                                                                                                           "\", "
                                                                                                                           "\"argu"
                                                                                                                           "ments"
                                                                                                                           "\": "
                                                                                                                           "{\"com"
                                                                                                                           "mand\""
                                                                                                                           ": "
                                                                                                                           "\"ls\""
                                                                                                                           "}"),
        NULL);
    json_t *answer = apis_whole(
        mq__api_responses, "{'input':'hi','tools':[" FUNCTION "," CUSTOM "," SPACE ",{'type':'local_shell'}]}", 200);
    assert_int_equal(json_array_size(at_path(answer, "output")), 6);
    assert_string_equal(text_at_path(answer, "output.0.content.0.text"), "I act.");
    assert_string_equal(text_at_path(answer, "output.1.type"), "function_call");
    assert_string_equal(text_at_path(answer, "output.1.name"), "f");
    assert_string_equal(text_at_path(answer, "output.1.arguments"), "{\"a\": 1}");
    assert_memory_equal(text_at_path(answer, "output.1.call_id"), "call_", 5);
    assert_memory_equal(text_at_path(answer, "output.1.id"), "fc_", 3);
    assert_null(at_path(answer, "output.1.namespace"));
    assert_string_equal(text_at_path(answer, "output.2.type"), "custom_tool_call");
    assert_string_equal(text_at_path(answer, "output.2.name"), "patch");
    assert_string_equal(text_at_path(answer, "output.2.input"), "*** Begin\n");
    assert_string_equal(text_at_path(answer, "output.3.name"), "f");
    assert_string_equal(text_at_path(answer, "output.3.namespace"), "mcp__a");
    assert_string_equal(text_at_path(answer, "output.4.type"), "local_shell_call");
    assert_string_equal(text_at_path(answer, "output.4.action.command.1"), "-l");
    assert_string_equal(text_at_path(answer, "output.4.action.working_directory"), "/");
    assert_string_equal(text_at_path(answer, "output.5.action.command.2"), "ls");
    assert_string_equal(text_at_path(answer, "status"), "completed");
    json_decref(answer);
}

/* Codex's newest models bring their tools as an item of the input. */
static void whole_calls_of_code_mode(void **state)
{
    (void)state;
    apis_script("[{\"when\":\"\",\"answer\":\"<tool_call>\\n{\\\"name\\\": \\\"exec\\\", \\\"arguments\\\": "
                "{\\\"input\\\": \\\"text(1)\\\"}}\\n</tool_call>\"}]",
                NULL);
    apis_server->limits.max_tokens = 64;
    apis_server->model.info.context = 16384;
    mq_exchange *x = apis_replay(mq__api_responses, "recorded-codex-code-mode");
    if (x->status != 200) fail_msg("%u %s", x->status, x->sent.data);
    json_t *answer = apis_accept(order_events(x->sent.data, x->sent.len), order_response_event);
    assert_string_equal(text_at_path(answer, "output.0.type"), "custom_tool_call");
    assert_string_equal(text_at_path(answer, "output.0.name"), "exec");
    assert_string_equal(text_at_path(answer, "output.0.namespace"), "functions");
    assert_string_equal(text_at_path(answer, "output.0.input"), "text(1)");
    assert_null(fixture_answer_header(x, "warning"));
    json_decref(answer);
    fixture_free(x);
}

static void whole_reasoning(void **state)
{
    (void)state;
    apis_answer("<think>\nfour\n</think>\n\n4", THINKS);
    json_t *answer = apis_whole(mq__api_responses, "{'input':'hi','reasoning':{'effort':'high'}}", 200);
    assert_string_equal(text_at_path(answer, "output.0.type"), "reasoning");
    assert_string_equal(text_at_path(answer, "output.0.content.0.type"), "reasoning_text");
    assert_string_equal(text_at_path(answer, "output.0.content.0.text"), "four");
    assert_int_equal(json_array_size(at_path(answer, "output.0.summary")), 0);
    assert_null(at_path(answer, "output.0.encrypted_content"));
    assert_string_equal(text_at_path(answer, "output.1.content.0.text"), "4");
    assert_true(integer_at_path(answer, "usage.output_tokens_details.reasoning_tokens") > 0);
    json_decref(answer);
    answer = apis_whole(
        mq__api_responses,
        "{'input':'hi','reasoning':{'effort':'high','summary':'auto'},'include':['reasoning.encrypted_content']}", 200);
    assert_string_equal(text_at_path(answer, "output.0.summary.0.type"), "summary_text");
    assert_string_equal(text_at_path(answer, "output.0.summary.0.text"), "four");
    assert_null(at_path(answer, "output.0.content"));
    assert_string_equal(text_at_path(answer, "output.0.encrypted_content"), "mq1:Zm91cg==");
    json_decref(answer);
}

static void whole_ends(void **state)
{
    (void)state;
    apis_answer("one two three four five six", NULL);
    json_t *answer = apis_whole(mq__api_responses, "{'input':'hi','max_output_tokens':2}", 200);
    assert_string_equal(text_at_path(answer, "status"), "incomplete");
    assert_string_equal(text_at_path(answer, "incomplete_details.reason"), "max_output_tokens");
    assert_string_equal(text_at_path(answer, "output.0.status"), "incomplete");
    json_decref(answer);
    answer = apis_whole(mq__api_responses, "{'input':[],'max_output_tokens':1}", 200); /* a probe */
    assert_string_equal(text_at_path(answer, "status"), "incomplete");
    json_decref(answer);
    apis_answer("", NULL);
    answer = apis_whole(mq__api_responses, "{'input':'hi'}", 200);
    assert_string_equal(text_at_path(answer, "output.0.content.0.text"), "");
    json_decref(answer);
    apis_answer("<tool_call>\n" CALLS("f\", \"arguments\": {\"a\": \"x y z x y z x y z\"}"), NULL);
    answer = apis_whole(mq__api_responses, "{'input':'hi','max_output_tokens':14,'tools':[" FUNCTION "]}", 200);
    assert_string_equal(text_at_path(answer, "status"), "incomplete");
    assert_null(at_path(answer, "output.0.arguments"));
    json_decref(answer);
}

static void whole_logprobs(void **state)
{
    (void)state;
    apis_answer("Hello.", NULL);
    json_t *answer = apis_whole(mq__api_responses, "{'input':'hi','top_logprobs':2}", 200);
    assert_true(json_array_size(at_path(answer, "output.0.content.0.logprobs")) > 0);
    assert_int_equal(json_array_size(at_path(answer, "output.0.content.0.logprobs.0.top_logprobs")), 2);
    json_decref(answer);
}

static void errors_of_openai(void **state)
{
    (void)state;
    json_t *error = apis_whole(mq__api_responses, "{'input':'hi','previous_response_id':'resp_1'}", 400);
    assert_string_equal(text_at_path(error, "error.code"), "previous_response_not_found");
    assert_string_equal(text_at_path(error, "error.param"), "previous_response_id");
    assert_string_equal(text_at_path(error, "error.type"), "invalid_request_error");
    json_decref(error);
    apis_script("[{\"when\":\"\",\"error\":\"io\"}]", NULL);
    error = apis_whole(mq__api_responses, "{'input':'hi'}", 500);
    assert_string_equal(text_at_path(error, "error.type"), "server_error");
    json_decref(error);
}

static void counts(void **state)
{
    (void)state;
    static const char body[] = "{'instructions':'s','input':'hi','tools':[" FUNCTION "]}";
    json_t *count = apis_whole(mq__api_count_responses, body, 200);
    json_t *answer = apis_whole(mq__api_responses, body, 200);
    assert_int_equal(integer_at_path(count, "input_tokens"), integer_at_path(answer, "usage.input_tokens"));
    assert_string_equal(text_at_path(count, "object"), "response.input_tokens");
    assert_int_equal(script_requests(apis_server->script), 1); /* of the answer only */
    json_decref(count);
    json_decref(answer);
}

/* ---- what Codex sends */

static void recorded_bodies(void **state)
{
    (void)state;
    static const struct {
        const char *name, *status, *session;
    } cases[] = {{"recorded-codex-first", "completed", "session 00000000-0000-4000-8000-000000002220"},
                 {"recorded-codex-results", "completed", "session 00000000-0000-4000-8000-000000002220"},
                 {"codex-items", "completed", "session 019f0000-0000-7000-8000-000000000001"},
                 {"codex-probe", "incomplete", "session 019f0000-0000-7000-8000-000000000001"}};
    apis_server->model.info.context = 16384;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mq__buf_clear(&apis_server->log);
        mq_exchange *x = apis_replay(mq__api_responses, cases[i].name);
        if (x->status != 200) fail_msg("%s: %u %s", cases[i].name, x->status, x->sent.data);
        json_t *answer = apis_accept(order_events(x->sent.data, x->sent.len), order_response_event);
        assert_string_equal(text_at_path(answer, "status"), cases[i].status);
        if (i == 1) assert_true(integer_at_path(answer, "usage.input_tokens_details.cached_tokens") > 100);
        if (i < 3) assert_non_null(strstr(fixture_answer_header(x, "warning"), "tool of type web_search"));
        assert_non_null(strstr(apis_server->log.data, cases[i].session));
        json_decref(answer);
        fixture_free(x);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, apis_setup, apis_teardown)
    const struct CMUnitTest tests[] = {
        TEST(whole_text),       TEST(whole_calls), TEST(whole_calls_of_code_mode),
        TEST(whole_reasoning),  TEST(whole_ends),  TEST(whole_logprobs),
        TEST(errors_of_openai), TEST(counts),      TEST(recorded_bodies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
