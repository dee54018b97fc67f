/* Streams of the Messages API: answers of all shapes through the automaton of a strict client; signs of life; errors. */
#include "server_apis.h"

#define HI       "'messages':[{'role':'user','content':'hi'}]"
#define ONE_TOOL "'tools':[{'name':'f','input_schema':{'type':'object','properties':{'a':{'type':'string'}}}}]"
#define CALL(a)  "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"" a "\"}}\n</tool_call>"

static json_t *streamed(const char *body)
{
    return apis_accept(apis_stream(mq__api_messages, body), order_message_event);
}

/* Whole and streamed answers say the same. */
static void shapes(void **state)
{
    (void)state;
    static const struct {
        const char *text, *fields, *content, *reason;
    } cases[] = {
        {"Hello there, you.", "'x':0", "[{'type':'text','text':'Hello there, you.'}]", "end_turn"},
        {"", "'x':0", "[{'type':'text','text':''}]", "end_turn"},
        {" \n", "'x':0", "[{'type':'text','text':''}]", "end_turn"},
        {CALL("x"), ONE_TOOL, "[{'type':'tool_use','name':'f','input':{'a':'x'}}]", "tool_use"},
        {"I look.\n" CALL("x"), ONE_TOOL,
         "[{'type':'text','text':'I look.'},{'type':'tool_use','name':'f','input':{'a':'x'}}]", "tool_use"},
        {CALL("x") "\n" CALL("y"), ONE_TOOL,
         "[{'type':'tool_use','name':'f','input':{'a':'x'}},{'type':'tool_use','name':'f','input':{'a':'y'}}]",
         "tool_use"},
        {"<think>\nfour\n</think>\n\n4", "'thinking':{'type':'adaptive'}",
         "[{'type':'thinking','thinking':'four','signature':'mq1:'},{'type':'text','text':'4'}]", "end_turn"},
        {"<think>\nfour\n</think>\n\n4", "'thinking':{'type':'adaptive','display':'omitted'}",
         "[{'type':'thinking','thinking':'','signature':'mq1:Zm91cg=='},{'type':'text','text':'4'}]", "end_turn"},
        {"<think>\nhm\n</think>\n\nI look.\n" CALL("x"), "'thinking':{'type':'adaptive'}," ONE_TOOL,
         "[{'type':'thinking','thinking':'hm','signature':'mq1:'},{'type':'text','text':'I look.'},"
         "{'type':'tool_use','name':'f','input':{'a':'x'}}]",
         "tool_use"},
        {"one two three four", "'max_tokens':2", NULL, "max_tokens"},
        {"one two three four", "'stop_sequences':['three']", "[{'type':'text','text':'one two '}]", "stop_sequence"},
        {"one two three four", "'stop_sequences':['four','','th','three']", "[{'type':'text','text':'one two '}]",
         "stop_sequence"},
        {"one two three four", "'max_tokens':0", "[]", "max_tokens"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[600];
        snprintf(body, sizeof body, "{'model':'m',%s," HI "}", cases[i].fields);
        apis_answer(cases[i].text, strstr(cases[i].fields, "thinking") ? THINKS : NULL);
        json_t *made = streamed(body), *whole = apis_whole(mq__api_messages, body, 200);
        assert_string_equal(text_at_path(made, "stop_reason"), cases[i].reason);
        size_t k;
        json_t *block;
        json_array_foreach(at_path(made, "content"), k, block)
        {
            json_object_del(block, "id");
            json_object_del(json_array_get(at_path(whole, "content"), k), "id");
        }
        json_t *expected = cases[i].content ? apis_json(cases[i].content) : json_incref(at_path(whole, "content"));
        if (!json_equal(at_path(made, "content"), expected)) fail_msg("%zu: %s", i, json_dumps(made, 0));
        assert_true(json_equal(at_path(whole, "content"), expected));
        assert_string_equal(text_at_path(whole, "stop_reason"), cases[i].reason);
        assert_true(json_equal(at_path(whole, "stop_sequence"), at_path(made, "stop_sequence")));
        json_decref(expected);
        json_decref(made);
        json_decref(whole);
    }
}

/* Cut at every length: in a block, between blocks, in a call's arguments. */
static void cut_anywhere(void **state)
{
    (void)state;
    apis_answer("<think>\nthe file\n</think>\n\nI look at it.\n" CALL("some more text") "\n" CALL("and more"), THINKS);
    bool in_call = false;
    for (int most = 1; most < 90; most++) {
        char body[400];
        snprintf(body, sizeof body, "{'max_tokens':%d,'thinking':{'type':'adaptive'}," ONE_TOOL "," HI "}", most);
        json_t *made = streamed(body), *content = at_path(made, "content");
        const char *reason = text_at_path(made, "stop_reason");
        const bool cut = strcmp(reason, "max_tokens") == 0;
        if (!cut) assert_string_equal(reason, "tool_use");
        assert_int_equal(integer_at_path(made, "usage.output_tokens") <= most, 1);
        json_t *last = json_array_get(content, json_array_size(content) - 1);
        in_call = in_call || json_is_string(at_path(last, "input"));
        json_decref(made);
    }
    assert_true(in_call);
}

static void numbers_at_the_end(void **state)
{
    (void)state;
    apis_answer("Hello.", NULL);
    json_t *events = apis_stream(mq__api_messages, "{'diagnostics':{'previous_message_id':'msg_0'}," HI "}");
    json_t *start = at_path(events, "0.data.message"),
           *end = at_path(json_array_get(events, json_array_size(events) - 2), "data");
    assert_true(integer_at_path(start, "usage.input_tokens") > 0);
    assert_int_equal(integer_at_path(start, "usage.input_tokens"), integer_at_path(end, "usage.input_tokens"));
    assert_int_equal(integer_at_path(end, "usage.cache_read_input_tokens"), 0);
    assert_true(integer_at_path(end, "usage.output_tokens") > 0);
    assert_string_equal(text_at_path(end, "delta.diagnostics.cache_miss_reason.type"), "previous_message_not_found");
    assert_string_equal(text_at_path(end, "plan.decode"), "bf16");
    assert_non_null(at_path(end, "timings.predicted_ms"));
    json_decref(events);
}

/* ---- errors in a stream */

static void errors_in_a_stream(void **state)
{
    (void)state;
    apis_script("[{\"when\":\"\",\"error\":\"io\"}]", NULL);
    json_t *made = streamed("{" HI "}");
    assert_string_equal(text_at_path(made, "error.type"), "api_error");
    json_decref(made);
    apis_script("[{\"when\":\"\",\"cancel\":true}]", NULL);
    json_t *events = apis_stream(mq__api_messages, "{" HI "}");
    json_t *last = at_path(json_array_get(events, json_array_size(events) - 1), "data");
    assert_string_equal(text_at_path(last, "error.type"), "overloaded_error");
    assert_string_equal(text_at_path(last, "request_id"), "req_request0123456789abcdefg");
    json_decref(events);
}

/* What is wrong before the first event is an HTTP error, also of a stream. */
static void errors_before_a_stream(void **state)
{
    (void)state;
    json_t *error = apis_whole(mq__api_messages, "{'stream':true}", 400);
    assert_string_equal(text_at_path(error, "error.type"), "invalid_request_error");
    json_decref(error);
}

/* ---- signs of life */

static void signs_of_life(void **state)
{
    (void)state;
    mq_exchange *x =
        apis_hold(mq__api_messages, "{\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}");
    json_t *events = order_events(x->sent.data, x->sent.len);
    assert_int_equal(json_array_size(events), 1); /* at once, and nothing waits for the engine */
    json_decref(events);
    mq_call *call = x->hooks.context;
    for (int second = 1; second <= 14; second++) {
        mq__messages_alive(call, second);
    }
    events = order_events(x->sent.data, x->sent.len);
    assert_int_equal(json_array_size(events), 1);
    json_decref(events);
    /* Four minutes, with `idle` counted from the latest event. */
    double idle = 0;
    for (int second = 15; second <= 15 + 240; second++) {
        const size_t before = x->sent.len;
        mq__messages_alive(call, second == 15 ? 15 : idle);
        idle = x->sent.len > before ? 1 : idle + 1;
    }
    events = order_events(x->sent.data, x->sent.len);
    assert_int_equal(apis_count(events, "ping"), 15);
    assert_int_equal(apis_count(events, "message_delta"), 2); /* one in 120 s */
    assert_true(json_is_null(at_path(json_array_get(events, 8), "data.delta.stop_reason")));
    assert_int_equal(integer_at_path(json_array_get(events, 8), "data.usage.output_tokens"), 0);
    json_decref(events);
    apis_leave(x);
}

/* ---- the automaton itself */

static size_t find_event(json_t *events, const char *name, int nth)
{
    size_t i;
    json_t *event;
    json_array_foreach(events, i, event)
    {
        if (order_is(event, "event", name) && nth-- == 0) return i;
    }
    fail_msg("no %s", name);
    return 0;
}

static void spoil_index(json_t *events)
{
    json_object_set_new(at_path(json_array_get(events, find_event(events, "content_block_delta", 0)), "data"), "index",
                        json_integer(1));
}

static void spoil_kind(json_t *events)
{
    json_object_set_new(at_path(json_array_get(events, find_event(events, "content_block_delta", 0)), "data.delta"),
                        "type", json_string("text_delta"));
}

static void spoil_signature(json_t *events)
{
    json_array_remove(events, find_event(events, "content_block_stop", 0) - 1);
}

static void spoil_stop(json_t *events)
{
    json_array_remove(events, find_event(events, "content_block_stop", 0));
}

static void spoil_second_start(json_t *events)
{
    json_array_insert(events, 3, json_array_get(events, 0));
}

static void spoil_end(json_t *events)
{
    json_array_remove(events, json_array_size(events) - 1);
}

static void spoil_reason(json_t *events)
{
    json_array_remove(events, json_array_size(events) - 2);
}

static void spoil_closed(json_t *events)
{
    const size_t stop = find_event(events, "content_block_stop", 0);
    json_array_insert(events, stop + 1, json_array_get(events, find_event(events, "content_block_delta", 0)));
}

static void automaton_refuses(void **state)
{
    (void)state;
    static void (*const spoilers[])(json_t *) = {spoil_index,        spoil_kind, spoil_signature, spoil_stop,
                                                 spoil_second_start, spoil_end,  spoil_reason,    spoil_closed};
    apis_answer("<think>\nhm\n</think>\n\nI look.\n" CALL("x"), THINKS);
    json_t *events = apis_stream(mq__api_messages, "{'thinking':{'type':'adaptive'}," ONE_TOOL "," HI "}");
    for (size_t i = 0; i < sizeof spoilers / sizeof spoilers[0]; i++) {
        apis_must_refuse(events, order_message_event, spoilers[i]);
    }
    json_decref(apis_accept(events, order_message_event));
}

/* ---- memory */

/* Each allocation of the writer fails once: an error event, after events that a strict client accepts. */
static void short_memory_in_a_stream(void **state)
{
    (void)state;
    static const char body[] = "{\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}";
    static const apis_part parts[] = {
        {MQ_PART_REASONING, "hm"},      {MQ_PART_REASONING, " so"}, {MQ_PART_TEXT, "I look."}, {MQ_PART_CALL, "f"},
        {MQ_PART_ARGUMENTS, "{}"},      {MQ_PART_CALL_END, ""},     {MQ_PART_TEXT, "\n"},      {MQ_PART_CALL, "g"},
        {MQ_PART_ARGUMENTS, "{\"a\":"}, {MQ_PART_ARGUMENTS, "1}"},  {MQ_PART_CALL_END, ""}};
    const size_t count = sizeof parts / sizeof parts[0];
    bool hit = true;
    unsigned long n;
    for (n = 1; hit; n++) {
        json_t *events = apis_say_all(mq__api_messages, &mq__messages_api, body, parts, count, n, &hit);
        json_t *made = apis_accept(events, order_message_event);
        if (hit) assert_string_equal(text_at_path(made, "error.type"), "overloaded_error");
        if (!hit) assert_int_equal(json_array_size(at_path(made, "content")), 4);
        json_decref(made);
    }
    assert_true(n > 100);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, apis_setup, apis_teardown)
    const struct CMUnitTest tests[] = {
        TEST(shapes),
        TEST(cut_anywhere),
        TEST(numbers_at_the_end),
        TEST(errors_in_a_stream),
        TEST(errors_before_a_stream),
        TEST(signs_of_life),
        TEST(automaton_refuses),
        TEST(short_memory_in_a_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
