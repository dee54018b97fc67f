/* Streams of the Responses API: answers of all shapes through the automaton of a strict client; signs of life; errors. */
#include "server_apis.h"

#define FUNCTION "{'type':'function','name':'f','parameters':{'type':'object','properties':{}}}"
#define TOOLS                                                                                                          \
    "'tools':[" FUNCTION                                                                                               \
    ",{'type':'custom','name':'patch'},{'type':'local_shell'},{'type':'namespace','name':'mcp__a',"                    \
    "'tools':[{'type':'function','name':'f'},{'type':'custom','name':'c'}]}]"
#define CALL(name, arguments) "<tool_call>\n{\"name\": \"" name "\", \"arguments\": " arguments "}\n</tool_call>"
#define THINK                 "'reasoning':{'effort':'high'}"
#define SEAL                  "'reasoning':{'effort':'high','summary':'auto'},'include':['reasoning.encrypted_content']"

static json_t *streamed(const char *body)
{
    return apis_accept(apis_stream(mq__api_responses, body), order_response_event);
}

/* Ids and times differ between two answers. */
static void forget_ids(json_t *output)
{
    size_t i;
    json_t *item;
    json_array_foreach(output, i, item)
    {
        json_object_del(item, "call_id");
    }
}

/* Whole and streamed answers say the same. */
static void shapes(void **state)
{
    (void)state;
    static const struct {
        const char *text, *fields, *types, *status;
    } cases[] = {
        {"Hello there, you.", "'x':0", "message", "completed"},
        {"", "'x':0", "message", "completed"},
        {" \n ", "'x':0", "message", "completed"},
        {CALL("f", "{\"a\": 1}"), TOOLS, "function_call", "completed"},
        {CALL("f", "{}"), TOOLS, "function_call", "completed"},
        {"I look.\n" CALL("f", "{\"a\": 1}"), TOOLS, "message function_call", "completed"},
        {CALL("f", "{\"a\": 1}") "\n" CALL("f", "{\"a\": 2}"), TOOLS, "function_call function_call", "completed"},
        {CALL("mcp__a__f", "{\"a\": 1}"), TOOLS, "function_call", "completed"},
        {CALL("patch", "{\"input\": \"*** Begin Patch\\n+\\u00e9 \\\"x\\\"\\n*** End Patch\"}"), TOOLS,
         "custom_tool_call", "completed"},
        {CALL("mcp__a__c", "{\"text\": \"y\"}"), TOOLS, "custom_tool_call", "completed"},
        {CALL("patch", "{\"input\": \"\"}"), TOOLS, "custom_tool_call", "completed"},
        {CALL("local_shell", "{\"command\": [\"ls\"]}") "\n" CALL("patch", "{\"input\": \"z\"}"), TOOLS,
         "local_shell_call custom_tool_call", "completed"},
        {"<think>\nfour\n</think>\n\n4", THINK, "reasoning message", "completed"},
        {"<think>\nfour\n</think>\n\n4", SEAL, "reasoning message", "completed"},
        {"<think>\nhm\n</think>\n\nI look.\n" CALL("f", "{}"), SEAL "," TOOLS, "reasoning message function_call",
         "completed"},
        {"<think>\nhm\n</think>\n\n" CALL("f", "{}"), THINK "," TOOLS, "reasoning function_call", "completed"},
        {"one two three four", "'max_output_tokens':2", "message", "incomplete"},
        {"<think>\none two three four\n</think>\n\n4", THINK ",'max_output_tokens':4", "reasoning", "incomplete"},
        {"one two three", "'top_logprobs':2", "message", "completed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[900], types[200] = "";
        snprintf(body, sizeof body, "{'model':'m','input':'hi',%s}", cases[i].fields);
        apis_answer(cases[i].text, strstr(cases[i].fields, "reasoning") ? THINKS : NULL);
        json_t *made = streamed(body), *whole = apis_whole(mq__api_responses, body, 200), *item;
        assert_string_equal(text_at_path(made, "status"), cases[i].status);
        assert_string_equal(text_at_path(whole, "status"), cases[i].status);
        size_t k;
        json_array_foreach(at_path(made, "output"), k, item)
        {
            snprintf(types + strlen(types), sizeof types - strlen(types), "%s%s", k ? " " : "",
                     text_at_path(item, "type"));
        }
        assert_string_equal(types, cases[i].types);
        forget_ids(at_path(made, "output"));
        forget_ids(at_path(whole, "output"));
        if (!json_equal(at_path(made, "output"), at_path(whole, "output"))) {
            fail_msg("%zu: %s\n%s", i, json_dumps(made, 0), json_dumps(whole, 0));
        }
        assert_true(json_equal(at_path(made, "tools"), at_path(whole, "tools")));
        json_decref(made);
        json_decref(whole);
    }
}

/* Cut at every length: no call that was cut is ever done. */
static void cut_anywhere(void **state)
{
    (void)state;
    apis_answer("<think>\nthe file\n</think>\n\nI look.\n" CALL(
                    "patch", "{\"input\": \"some text \\n more\"}") "\n" CALL("f", "{\"b\": \"and more\"}"),
                THINKS);
    bool cut_in_call = false;
    for (int most = 1; most < 110; most++) {
        char body[900];
        snprintf(body, sizeof body, "{'input':'hi','max_output_tokens':%d," THINK "," TOOLS "}", most);
        json_t *events = apis_stream(mq__api_responses, body);
        const size_t added = apis_count(events, "response.output_item.added"),
                     done = apis_count(events, "response.output_item.done");
        json_t *made = apis_accept(events, order_response_event);
        const bool cut = strcmp(text_at_path(made, "status"), "incomplete") == 0;
        assert_true(cut ? added - done <= 1 : added == done);
        cut_in_call = cut_in_call || added > done;
        json_decref(made);
    }
    assert_true(cut_in_call);
}

/* Deltas come while the model writes, not at the end. */
static void input_streams(void **state)
{
    (void)state;
    apis_answer(CALL("patch", "{\"input\": \"one two three four five six seven\"}"), NULL);
    json_t *events = apis_stream(mq__api_responses, "{'input':'hi'," TOOLS "}");
    assert_true(apis_count(events, "response.custom_tool_call_input.delta") > 3);
    json_decref(apis_accept(events, order_response_event));
    apis_answer(CALL("f", "{\"a\": \"one two three four five six seven\"}"), NULL);
    events = apis_stream(mq__api_responses, "{'input':'hi'," TOOLS "}");
    assert_true(apis_count(events, "response.function_call_arguments.delta") > 3);
    json_decref(apis_accept(events, order_response_event));
}

static void errors_in_a_stream(void **state)
{
    (void)state;
    apis_script("[{\"when\":\"\",\"error\":\"io\"}]", NULL);
    json_t *made = streamed("{'input':'hi'}");
    assert_string_equal(text_at_path(made, "error.code"), "internal_error");
    assert_string_equal(text_at_path(made, "status"), "failed");
    json_decref(made);
    json_t *error = apis_whole(mq__api_responses, "{'stream':true,'input':7}", 400); /* before the first event */
    assert_string_equal(text_at_path(error, "error.param"), "input");
    json_decref(error);
}

static void signs_of_life(void **state)
{
    (void)state;
    mq_exchange *x = apis_hold(mq__api_responses, "{\"stream\":true,\"input\":\"hi\"}");
    json_t *events = order_events(x->sent.data, x->sent.len);
    assert_int_equal(json_array_size(events), 2); /* created and in_progress, at once */
    json_decref(events);
    mq_call *call = x->hooks.context;
    double idle = 0;
    for (int second = 1; second <= 60; second++) {
        const size_t before = x->sent.len;
        mq__responses_alive(call, ++idle);
        if (x->sent.len > before) idle = 0;
    }
    events = order_events(x->sent.data, x->sent.len);
    assert_int_equal(apis_count(events, "response.in_progress"), 1 + 4);
    assert_string_equal(text_at_path(json_array_get(events, 3), "data.response.id"), "resp_request0123456789abcdefg");
    assert_int_equal(integer_at_path(json_array_get(events, 3), "data.sequence_number"), 3);
    json_decref(events);
    apis_leave(x);
}

/* ---- the automaton itself */

static json_t *event_data(json_t *events, const char *name, size_t *at)
{
    size_t i;
    json_t *event;
    json_array_foreach(events, i, event)
    {
        if (at) *at = i;
        if (order_is(event, "event", name)) return json_object_get(event, "data");
    }
    fail_msg("no %s", name);
    return NULL;
}

static void remove_event(json_t *events, const char *name)
{
    size_t at = 0, i;
    json_t *event;
    (void)event_data(events, name, &at);
    json_array_remove(events, at);
    json_array_foreach(events, i, event) /* the numbers are right: what is missing must be noticed */
    {
        json_object_set_new(json_object_get(event, "data"), "sequence_number", json_integer((json_int_t)i));
    }
}

static void spoil_number(json_t *events)
{
    json_object_set_new(event_data(events, "response.output_text.delta", NULL), "sequence_number", json_integer(0));
}

static void spoil_item(json_t *events)
{
    json_object_set_new(event_data(events, "response.output_text.delta", NULL), "item_id", json_string("other"));
}

static void spoil_index(json_t *events)
{
    json_object_set_new(event_data(events, "response.function_call_arguments.delta", NULL), "output_index",
                        json_integer(0));
}

static void spoil_text(json_t *events)
{
    json_object_set_new(event_data(events, "response.output_text.delta", NULL), "delta", json_string("other"));
}

static void spoil_output(json_t *events)
{
    json_array_remove(at_path(event_data(events, "response.completed", NULL), "response.output"), 0);
}

static void spoil_usage(json_t *events)
{
    json_object_set_new(at_path(event_data(events, "response.completed", NULL), "response.usage"), "total_tokens",
                        json_integer(1));
}

static void drop_created(json_t *events)
{
    remove_event(events, "response.created");
}

static void drop_added(json_t *events)
{
    remove_event(events, "response.output_item.added");
}

static void drop_part(json_t *events)
{
    remove_event(events, "response.content_part.added");
}

static void drop_done(json_t *events)
{
    remove_event(events, "response.output_item.done");
}

static void drop_text_done(json_t *events)
{
    remove_event(events, "response.output_text.done");
}

static void drop_summary_done(json_t *events)
{
    remove_event(events, "response.reasoning_summary_part.done");
}

static void drop_arguments_done(json_t *events)
{
    remove_event(events, "response.function_call_arguments.done");
}

static void drop_completed(json_t *events)
{
    remove_event(events, "response.completed");
}

static void automaton_refuses(void **state)
{
    (void)state;
    static void (*const spoilers[])(json_t *) = {
        spoil_number, spoil_item, spoil_index, spoil_text,     spoil_output,        spoil_usage,    drop_created,
        drop_added,   drop_part,  drop_done,   drop_text_done, drop_arguments_done, drop_completed, drop_summary_done};
    apis_answer("<think>\nhm\n</think>\n\nI look.\n" CALL("f", "{\"a\": 1}"), THINKS);
    json_t *events = apis_stream(mq__api_responses, "{'input':'hi'," SEAL "," TOOLS "}");
    for (size_t i = 0; i < sizeof spoilers / sizeof spoilers[0]; i++) {
        apis_must_refuse(events, order_response_event, spoilers[i]);
    }
    json_decref(apis_accept(events, order_response_event));
}

/* Each allocation of the writer fails once: response.failed, after events that a strict client accepts. */
static void short_memory_in_a_stream(void **state)
{
    (void)state;
    static const char body[] = "{\"stream\":true,\"input\":\"hi\",\"include\":[\"reasoning.encrypted_content\"],"
                               "\"tools\":[{\"type\":\"custom\",\"name\":"
                               "\"p\"},{\"type\":\"function\",\"name\":\"f\"},{\"type\":\"local_shell\"}]}";
    static const apis_part parts[] = {{MQ_PART_REASONING, "hm"},
                                      {MQ_PART_REASONING, " so"},
                                      {MQ_PART_TEXT, "I look."},
                                      {MQ_PART_CALL, "f"},
                                      {MQ_PART_ARGUMENTS, "{}"},
                                      {MQ_PART_CALL_END, ""},
                                      {MQ_PART_TEXT, "\n"},
                                      {MQ_PART_CALL, "p"},
                                      {MQ_PART_ARGUMENTS, "{\"input\":\"a"},
                                      {MQ_PART_ARGUMENTS, "\\u0062c\"}"},
                                      {MQ_PART_CALL_END, ""},
                                      {MQ_PART_CALL, "local_shell"},
                                      {MQ_PART_ARGUMENTS, "{\"command\":\"x\"}"},
                                      {MQ_PART_CALL_END, ""}};
    bool hit = true;
    unsigned long n;
    for (n = 1; hit; n++) {
        json_t *events =
            apis_say_all(mq__api_responses, &mq__responses_api, body, parts, sizeof parts / sizeof parts[0], n, &hit);
        json_t *made = apis_accept(events, order_response_event);
        if (strcmp(text_at_path(made, "status"), hit ? "failed" : "completed") != 0) fail_msg("n %lu", n);
        if (hit) assert_string_equal(text_at_path(made, "error.code"), "out_of_memory");
        if (!hit) assert_int_equal(json_array_size(at_path(made, "output")), 5);
        json_decref(made);
    }
    assert_true(n > 200);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, apis_setup, apis_teardown)
    const struct CMUnitTest tests[] = {
        TEST(shapes),
        TEST(cut_anywhere),
        TEST(input_streams),
        TEST(errors_in_a_stream),
        TEST(signs_of_life),
        TEST(automaton_refuses),
        TEST(short_memory_in_a_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
