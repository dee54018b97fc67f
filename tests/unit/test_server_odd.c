/* Requests that are odd but plausible: what the vendors' servers answer is answered. */
#include "server_apis.h"

#define HI     "'messages':[{'role':'user','content':'hi'}]"
#define CALL   "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"x\"}}\n</tool_call>"
#define SCHEMA "{'type':'object','properties':{'a':{'type':'string'}}}"
#define TOOL   "'tools':[{'type':'function','function':{'name':'f','parameters':" SCHEMA "}}]"

static void answers(mq_handler *handler, const char *const *bodies, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        json_t *body = apis_json(bodies[i]);
        for (int stream = 0; stream < 2; stream++) {
            json_object_set_new(body, "stream", json_boolean(stream));
            char *printed = json_dumps(body, 0);
            mq_exchange *x = fixture_ask(apis_server, handler, "/", printed, NULL);
            if (x->status != 200) fail_msg("%s: %u %s", printed, x->status, x->sent.data);
            if (stream) assert_string_equal(x->type, "text/event-stream");
            if (strstr(x->sent.data, "\"error\":{")) fail_msg("%s: %s", printed, x->sent.data);
            fixture_free(x);
            free(printed);
        }
        json_decref(body);
    }
}

#define ANSWERS(handler, bodies) answers(handler, bodies, sizeof bodies / sizeof bodies[0])

static void odd_chats(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{'frequency_penalty':null,'logit_bias':null,'logprobs':null,'top_logprobs':null,'max_completion_tokens':null,'"
        "n':"
        "null,'response_format':null,'seed':null,'stop':null,'stream_options':null,'temperature':null,'top_p':null,'"
        "tools':"
        "null,'tool_choice':null,'parallel_tool_calls':null,'user':null,'metadata':null,'store':null,'service_tier':"
        "null,"
        "'modalities':null,'prediction':null,'reasoning_effort':null,'functions':null,'function_call':null,'audio':"
        "null,"
        "'model':null," HI "}",
        "{'tools':[],'tool_choice':'auto','functions':[],'stop':[],'logit_bias':{},'metadata':{}," HI "}",
        "{'tool_choice':'none','parallel_tool_calls':false," HI "}",
        "{'n':2,'logprobs':true,'top_logprobs':2," TOOL "," HI "}",
        "{'max_tokens':5.0,'n':1.0,'top_k':40.0,'seed':-5,'max_completion_tokens':1000000000000," HI "}",
        "{'messages':[{'role':'user','content':'hi'},{'role':'system','content':'s'},{'role':'developer','content':'d'}"
        "]}",
        "{'messages':[{'role':'system','content':'s'}]}",
        "{'messages':[{'role':'user','content':[]},{'role':'assistant','content':null},{'role':'user'}]}",
        "{'messages':[{'role':'user','content':''},{'role':'assistant','content':[],'tool_calls':null,'refusal':null,"
        "'annotations':[],'audio':null,'function_call':null},{'role':'user','content':[{'type':'text','text':''}]}]}",
        "{'messages':[{'role':'user','content':'hi'},{'role':'assistant','tool_calls':[{'id':'1','type':'function',"
        "'function':{'name':'f','arguments':''}},{'id':'1','type':'function','function':{'name':'f','arguments':'{'}}]}"
        ",{"
        "'role':'tool','tool_call_id':'1','content':null},{'role':'tool','tool_call_id':'1','content':[]},{'role':'"
        "tool',"
        "'tool_call_id':'9','content':'orphan'}]}",
        "{'tools':[{'type':'function','function':{'name':'a.b/c "
        "\\u00e9','description':null,'parameters':null,'strict':null}},"
        "{'type':'custom','custom':{'name':'c'}},{'function':{'name':'g','parameters':{'type':'wat','properties':{'a':"
        "false},'required':['x']}}}]," HI "}",
        "{'tools':[{'function':{'name':'f','parameters':{'$ref':'#/nowhere'}}}],'tool_choice':'required'," HI "}",
        "{'tools':[{'function':{'name':'f','parameters':{'properties':{'a':{'enum':[]}},'required':['a']}}}]," HI "}",
        "{'reasoning_effort':'xhigh','prediction':{'type':'content','content':'x'},'web_search_options':{},'foo':1," HI
        "}"};
    apis_answer(CALL, NULL);
    ANSWERS(mq__api_chat, bodies);
}

static void odd_messages(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{'system':null,'metadata':null,'stop_sequences':null,'temperature':null,'top_k':null,'top_p':null,'tools':"
        "null,"
        "'tool_choice':null,'thinking':null,'service_tier':null,'container':null,'context_management':null,'mcp_"
        "servers':"
        "null,'output_config':null,'cache_control':null,'diagnostics':null,'max_tokens':null," HI "}",
        "{'system':[],'tools':[],'tool_choice':{'type':'auto','disable_parallel_tool_use':null},'stop_sequences':[],"
        "'thinking':{'type':'enabled','budget_tokens':null},'output_config':{'effort':null,'format':null}," HI "}",
        "{'tools':[{'name':'f','description':null,'input_schema':null,'type':null},{'name':'g','input_schema':{}},{'"
        "type':"
        "'bash_20250124','name':'bash'}],'tool_choice':{'type':'any'}," HI "}",
        "{'messages':[{'role':'user','content':[]},{'role':'assistant','content':[]},{'role':'user','content':''}]}",
        "{'messages':[{'role':'user','content':'q'},{'role':'assistant','content':[{'type':'tool_use','id':'1','name':'"
        "f',"
        "'input':null},{'type':'tool_use','id':'1','name':'f','input':'{'}]},{'role':'user','content':[{'type':'text','"
        "text':"
        "'before'},{'type':'tool_result','tool_use_id':'1','content':null,'is_error':null},{'type':'tool_result',"
        "'tool_use_id':'1','content':[{'type':'image','source':{'type':'base64','data':'A'}}]},{'type':'tool_result',"
        "'tool_use_id':'9'}]}]}",
        "{'messages':[{'role':'assistant','content':[{'type':'thinking','thinking':null,'signature':null},{'type':"
        "'server_tool_use','id':'s','name':'web_search','input':{}},{'type':'web_search_tool_result','tool_use_id':'s',"
        "'content':[]},{'type':'compaction','content':'c'}]},{'role':'system','content':'s'}]}"};
    apis_answer(CALL, NULL);
    ANSWERS(mq__api_messages, bodies);
}

static void odd_responses(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{'background':null,'conversation':null,'include':null,'instructions':null,'max_output_tokens':null,'metadata':"
        "null,"
        "'parallel_tool_calls':null,'previous_response_id':null,'prompt':null,'reasoning':null,'service_tier':null,'"
        "store':"
        "null,'stream_options':null,'temperature':null,'text':null,'tool_choice':null,'tools':null,'top_logprobs':null,"
        "'truncation':null,'user':null,'input':'hi'}",
        "{'input':[],'tools':[],'include':[null],'reasoning':{'effort':null,'summary':null},'text':{'format':null}}",
        "{'input':[{'role':'user','content':[]},{'role':'user','content':null},{'type':null,'role':'system','content':'"
        "'}]}",
        "{'input':[{'type':'reasoning','id':'r','summary':[],'content':null,'encrypted_content':null,'status':null},{'"
        "type':"
        "'function_call','id':null,'call_id':'1','name':'f','namespace':null,'arguments':null},{'type':'function_call',"
        "'call_id':'1','name':'f','arguments':{'a':1}},{'type':'function_call_output','call_id':'1','output':[]},{'"
        "type':"
        "'function_call_output','call_id':'1'},{'type':'function_call_output','call_id':'9','output':{'a':1}}]}",
        "{'input':[{'type':'local_shell_call','call_id':'1','action':null},{'type':'shell_call','call_id':'2'},{'type':"
        "'mcp_call','id':'m'},{'type':'additional_tools','tools':null},{'type':'what_comes_next','role':'user'}]}",
        "{'input':'hi','tools':[{'type':'function','name':'f','parameters':null,'strict':null},{'type':'custom','name':"
        "'c',"
        "'format':null},{'type':'namespace','name':'n','tools':[]},{'type':'what_comes_next'}]}"};
    apis_answer(CALL, NULL);
    ANSWERS(mq__api_responses, bodies);
}

/* Functions, as before there were tools: the answer has their form, too. */
static void legacy_functions(void **state)
{
    (void)state;
    apis_answer("I look." CALL CALL, NULL);
#define FUNCTIONS "'functions':[{'name':'f','description':'d','parameters':" SCHEMA "},{'name':'g','parameters':{}}]"
    json_t *answer = apis_whole(mq__api_chat, "{" FUNCTIONS "," HI "}", 200);
    assert_string_equal(text_at_path(answer, "choices.0.finish_reason"), "function_call");
    assert_string_equal(text_at_path(answer, "choices.0.message.function_call.name"), "f");
    assert_string_equal(text_at_path(answer, "choices.0.message.function_call.arguments"), "{\"a\": \"x\"}");
    assert_string_equal(text_at_path(answer, "choices.0.message.content"), "I look.");
    assert_null(at_path(answer, "choices.0.message.tool_calls"));
    json_decref(answer);
    json_t *body = apis_json("{'stream':true,'function_call':'auto'," FUNCTIONS "," HI "}");
    char *printed = json_dumps(body, 0), arguments[100] = "";
    mq_exchange *x = fixture_ask(apis_server, mq__api_chat, "/", printed, NULL);
    fixture_events events = fixture_parse(x);
    size_t names = 0;
    for (size_t i = 0; i < events.count; i++) {
        json_t *delta = at_path(events.at[i].data, "choices.0.delta"),
               *more = at_path(delta, "function_call.arguments");
        assert_null(at_path(delta, "tool_calls"));
        names += at_path(delta, "function_call.name") != NULL;
        if (more) strncat(arguments, json_string_value(more), sizeof arguments - strlen(arguments) - 1);
    }
    assert_int_equal(names, 1);
    assert_string_equal(arguments, "{\"a\": \"x\"}");
    fixture_events_free(&events);
    fixture_free(x);
    free(printed);
    json_decref(body);
    answer = apis_whole(mq__api_chat, "{'function_call':'none'," FUNCTIONS "," HI "}", 200);
    assert_string_equal(text_at_path(answer, "choices.0.finish_reason"), "stop");
    json_decref(answer);
    apis_ask a = apis_read(&mq__chat_api, "{'function_call':{'name':'g'}," FUNCTIONS "," HI "}");
    assert_true(a.read && a.ask.choice == MQ_CHOICE_REQUIRED && !a.ask.parallel);
    assert_string_equal(a.ask.only_tool, "g");
    apis_done(&a);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, apis_setup, apis_teardown)
    const struct CMUnitTest tests[] = {TEST(odd_chats), TEST(odd_messages), TEST(odd_responses),
                                       TEST(legacy_functions)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
