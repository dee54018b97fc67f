/* OpenAI's Responses API: bodies with items and tools of all kinds, and those that are refused. */
#include "server_apis.h"

#define API (&mq__responses_api)
#define FUNCTION                                                                                                       \
    "{'type':'function','name':'f','description':'d','strict':false,'parameters':{'type':'object','properties':{}}}"
#define CUSTOM "{'type':'custom','name':'patch','description':'Edits.'}"
#define SPACE                                                                                                          \
    "{'type':'namespace','name':'mcp__a','tools':[{'type':'function','name':'f','parameters':{}},{'type':'custom',"    \
    "'name':'c'}]}"

static void inputs(void **state)
{
    (void)state;
    apis_expect(API, "{'input':'hi'}", "[{'role':'user','content':'hi'}]");
    apis_expect(API, "{'instructions':'be brief','input':'hi'}",
                "[{'role':'system','content':'be brief'},{'role':'user','content':'hi'}]");
    apis_expect(API, "{'instructions':null,'input':[{'role':'user','content':'hi'}]}",
                "[{'role':'user','content':'hi'}]");
    apis_expect(API,
                "{'instructions':'a','input':[{'type':'message','role':'developer','content':[{'type':'input_text','"
                "text':'b'}]},"
                "{'type':'message','role':'user','content':[{'type':'input_text','text':'c'},{'type':'input_text','"
                "text':'d'}]}]}",
                "[{'role':'system','content':'a\\n\\nb'},{'role':'user','content':'c\\nd'}]");
    apis_expect(
        API,
        "{'input':[{'role':'user','content':'q'},{'role':'developer','content':'n'},{'role':'assistant','content':'r'},"
        "{'role':'user','content':'s'}]}",
        "[{'role':'user','content':'q\\n\\n<system-reminder>\\nn\\n</"
        "system-reminder>'},{'role':'assistant','content':'r'"
        "},{'role':'user','content':'s'}]");
    /* Probes without input. */
    apis_expect(API, "{'input':[],'max_output_tokens':1}", "[{'role':'user','content':''}]");
    apis_expect(API, "{'input':''}", "[{'role':'user','content':''}]");
    apis_expect(API, "{}", "[{'role':'user','content':''}]");
    apis_expect(API, "{'instructions':'a'}", "[{'role':'system','content':'a'},{'role':'user','content':''}]");
}

/* Reasoning, message and calls of one answer are one message. */
static void items_of_an_answer(void **state)
{
    (void)state;
    apis_expect(
        API,
        "{'input':[{'role':'user','content':'q'},{'type':'reasoning','id':'rs','summary':[],'content':null,'encrypted_"
        "content':"
        "'mq1:dGhvdWdodA=='},{'type':'message','role':'assistant','content':[{'type':'output_text','text':'a','"
        "annotations':[]},"
        "{'type':'output_text','text':'b'}]},{'type':'function_call','call_id':'1','name':'f','arguments':'{}'},"
        "{'type':'function_call','call_id':'2','name':'f','namespace':'mcp__a','arguments':'{\\u0022x\\u0022'},"
        "{'type':'custom_tool_call','call_id':'3','name':'patch','input':'a\\u0022b\\n'},"
        "{'type':'local_shell_call','call_id':'4','action':{'type':'exec','command':['ls'],'timeout_ms':5,'working_"
        "directory':"
        "'/','env':{}}},{'type':'tool_search_call','call_id':'5','arguments':{'query':'x'}},"
        "{'type':'function_call_output','call_id':'1','output':'one'},"
        "{'type':'function_call_output','call_id':'2','output':[{'type':'input_text','text':'t'},{'type':'input_text','"
        "text':'wo'}"
        "]},{'type':'custom_tool_call_output','call_id':'3','output':'three'},{'type':'local_shell_call_output','id':'"
        "4','output':"
        "'four'},{'type':'tool_search_output','call_id':'5','tools':[{'name':'f'}]}]}",
        "[{'role':'user','content':'q'},{'role':'assistant','content':'ab','reasoning_content':'thought','tool_calls':["
        "{'id':'1','type':'function','function':{'name':'f','arguments':'{}'}},"
        "{'id':'2','type':'function','function':{'name':'mcp__a__f','arguments':'{\\u0022x\\u0022'}},"
        "{'id':'3','type':'function','function':{'name':'patch','arguments':'{\\u0022input\\u0022:"
        "\\u0022a\\\\\\u0022b\\\\n\\u0022}'"
        "}},{'id':'4','type':'function','function':{'name':'local_shell','arguments':'{\\u0022command\\u0022:["
        "\\u0022ls\\u0022],"
        "\\u0022workdir\\u0022:\\u0022/\\u0022,\\u0022timeout_ms\\u0022:5}'}},"
        "{'id':'5','type':'function','function':{'name':'tool_search','arguments':'{\\u0022query\\u0022:"
        "\\u0022x\\u0022}'}}]},"
        "{'role':'tool','tool_call_id':'1','name':'f','content':'one'},"
        "{'role':'tool','tool_call_id':'2','name':'mcp__a__f','content':'t\\nwo'},"
        "{'role':'tool','tool_call_id':'3','name':'patch','content':'three'},"
        "{'role':'tool','tool_call_id':'4','name':'local_shell','content':'four'},"
        "{'role':'tool','tool_call_id':'5','name':'tool_search','content':'[{\\u0022name\\u0022:\\u0022f\\u0022}]'}]");
}

static void items_of_answers(void **state)
{
    (void)state;
    /* Others' reasoning: its text, or its summary. */
    apis_expect(
        API,
        "{'input':[{'role':'user','content':'q'},{'type':'reasoning','summary':[{'type':'summary_text','text':'s1'},{'"
        "type':"
        "'summary_text','text':'s2'}],'encrypted_content':'gAAAA'},{'role':'assistant','content':'a'},{'role':'user',"
        "'content':'r'}]}",
        "[{'role':'user','content':'q'},{'role':'assistant','content':'a','reasoning_content':'s1\\n\\ns2'},{'role':'"
        "user',"
        "'content':'r'}]");
    apis_expect(API,
                "{'input':[{'role':'user','content':'q'},{'type':'reasoning','summary':[],'content':[{'type':'"
                "reasoning_text','text'"
                ":'t'}]},{'role':'assistant','content':'a'},{'role':'user','content':'r'}]}",
                "[{'role':'user','content':'q'},{'role':'assistant','content':'a','reasoning_content':'t'},{'role':'"
                "user','content':"
                "'r'}]");
    /* Reasoning behind a message or a call begins another answer. */
    apis_expect(
        API,
        "{'input':[{'role':'user','content':'q'},{'type':'function_call','call_id':'1','name':'f','arguments':'{}'},{'"
        "type':"
        "'reasoning','content':[{'text':'t'}]},{'type':'function_call','call_id':'2','name':'f','arguments':''}]}",
        "[{'role':'user','content':'q'},{'role':'assistant','content':null,'tool_calls':[{'id':'1','type':'function',"
        "'function':{'name':'f','arguments':'{}'}}]},{'role':'assistant','content':null,'reasoning_content':'t',"
        "'tool_calls':[{'id':'2','type':'function','function':{'name':'f','arguments':''}}]}]");
    apis_expect(
        API,
        "{'input':[{'role':'user','content':'q'},{'role':'assistant','content':[{'type':'refusal','refusal':'no'}]},{'"
        "role':"
        "'assistant','content':'b'},{'role':'user','content':'r'}]}",
        "[{'role':'user','content':'q'},{'role':'assistant','content':'no\\n\\nb'},{'role':'user','content':'r'}]");
    apis_expect(API,
                "{'input':[{'type':'agent_message','author':'/root','recipient':'/root/"
                "a','content':[{'type':'input_text','text':"
                "'To a:\\n'},{'type':'encrypted_content','encrypted_content':'look'},{'type':'other'}]}]}",
                "[{'role':'user','content':'To a:\\nlook'}]");
    apis_expect(
        API,
        "{'input':[{'role':'user','content':[{'type':'input_image','image_url':'u'},{'type':'input_text','text':"
        "'see'}]},{'role':'user','content':'r'}]}",
        "[{'role':'user','content':'[input_image left out: this model reads text only]\\nsee'},{'role':'user',"
        "'content':'r'}]");
    apis_expect(
        API,
        "{'input':[{'role':'user','content':[{'type':'input_image'}]},{'type':'function_call_output','call_id':'x',"
        "'output':'r'},{'role':'developer','content':'n'}]}",
        "[{'role':'user','content':'[input_image left out: this model reads text "
        "only]'},{'role':'tool','tool_call_id':'x',"
        "'content':'r\\n\\n<system-reminder>\\nn\\n</system-reminder>'}]");
    apis_expect(API, "{'input':[{'type':'function_call_output','call_id':'x','output':null}]}",
                "[{'role':'tool','tool_call_id':'x','content':''}]");
}

static void answer_that_goes_on(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        bool continues;
    } cases[] = {
        {"{'input':[{'role':'user','content':'q'},{'role':'assistant','content':'The'}]}", true},
        {"{'input':[{'role':'user','content':'q'}]}", false},
        {"{'input':[{'role':'user','content':'q'},{'type':'reasoning','content':[{'text':'t'}]}]}", false},
        {"{'input':[{'role':'user','content':'q'},{'type':'function_call','call_id':'1','name':'f','arguments':''}]}",
         false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        apis_ask a = apis_read(API, cases[i].body);
        if (!a.read) fail_msg("%s", a.fault.message);
        assert_int_equal(a.ask.continues, cases[i].continues);
        apis_done(&a);
    }
}

static void warnings(void **state)
{
    (void)state;
    static const struct {
        const char *body, *warning;
    } cases[] = {
        {"{'input':[{'type':'compaction','encrypted_content':'x'},{'role':'user','content':'hi'}]}",
         "item of type compaction"},
        {"{'input':[{'type':'ghost_snapshot'},{'role':'user','content':'hi'}]}", "item of type ghost_snapshot"},
        {"{'input':[{'type':'function_call_output','call_id':'x','output':[{'type':'input_image','image_url':'u'}]}]}",
         "part of type input_image"},
        {"{'tools':[" FUNCTION ",{'type':'web_search'}],'input':'hi'}", "tool of type web_search"},
        {"{'tools':[{'type':'image_generation'}],'input':'hi'}", "tool of type image_generation"},
        {"{'tools':[{'type':'namespace','name':'n','tools':[{'type':'tool_search'}]}],'input':'hi'}",
         "tool of type tool_search"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        apis_ask a = apis_read(API, cases[i].body);
        if (!a.read) fail_msg("%s", a.fault.message);
        assert_non_null(a.ask.warning);
        assert_non_null(strstr(a.ask.warning, cases[i].warning));
        apis_done(&a);
    }
    apis_ask a =
        apis_read(API, "{'input':[{'type':'web_search_call','id':'w','action':{}},{'role':'user','content':'hi'}],"
                       "'store':true,'include':['x'],'service_tier':'auto','client_metadata':{},'truncation':'auto',"
                       "'text':{'verbosity':'low'},'prompt_cache_key':'key-1','metadata':{},'user':'u'}");
    assert_true(a.read);
    assert_null(a.ask.warning);
    assert_string_equal(a.ask.session, "key-1");
    apis_done(&a);
}

/* ---- tools */

static void tools_of_all_kinds(void **state)
{
    (void)state;
    apis_ask a = apis_read(
        API, "{'input':'hi','tools':[" FUNCTION ",{'type':'function','function':{'name':'g'}}," CUSTOM
             ",{'type':'custom','name':'p','format':{'type':'grammar','syntax':'lark','definition':'start: x'}},"
             "{'type':'local_shell'}," SPACE "]}");
    if (!a.read) fail_msg("%s", a.fault.message);
    static const char *const names[] = {"f", "g", "patch", "p", "local_shell", "mcp__a__f", "mcp__a__c"};
    const mq_responses_extra *extra = a.ask.extra;
    assert_int_equal(json_array_size(a.ask.tools), 7);
    assert_int_equal(extra->tool_count, 7);
    for (size_t i = 0; i < 7; i++) {
        json_t *function = json_object_get(json_array_get(a.ask.tools, i), "function");
        assert_string_equal(text_at_path(function, "name"), names[i]);
        assert_true(json_is_object(json_object_get(function, "parameters")));
        assert_string_equal(json_string_value(extra->tools[i].shown), names[i]);
    }
    assert_string_equal(text_at_path(a.ask.tools, "2.function.parameters.properties.input.type"), "string");
    assert_string_equal(text_at_path(a.ask.tools, "2.function.description"), "Edits.");
    assert_string_equal(text_at_path(a.ask.tools, "3.function.description"),
                        "The input has this grammar, written in lark:\nstart: x");
    assert_string_equal(json_string_value(extra->tools[5].space), "mcp__a");
    assert_string_equal(json_string_value(extra->tools[5].name), "f");
    assert_int_equal(extra->tools[4].kind, MQ_RESPONSE_SHELL);
    assert_int_equal(extra->tools[6].kind, MQ_RESPONSE_CUSTOM);
    assert_false(a.ask.strict_tools);
    apis_done(&a);
    a = apis_read(API, "{'input':'hi','tools':[{'type':'function','name':'f','strict':true}," CUSTOM "]}");
    assert_true(a.read && a.ask.strict_tools);
    apis_done(&a);
    a = apis_read(API, "{'input':'hi','tools':[" CUSTOM "]}");
    assert_true(a.read && !a.ask.strict_tools);
    apis_done(&a);
}

/* Lists of tools among the items: those that are new, in their order; names of the namespace `functions` are plain. */
static void tools_of_the_input(void **state)
{
    (void)state;
    apis_ask a = apis_read(
        API,
        "{'tools':[" FUNCTION "],'tool_choice':{'type':'custom','name':'exec'},'input':["
        "{'type':'additional_tools','role':'developer','tools':[{'type':'namespace','name':'functions','description':''"
        ","
        "'tools':[{'type':'custom','name':'exec'},{'type':'function','name':'wait','parameters':{}}]}," SPACE
        ",{'type':'web_search'}]},{'role':'user','content':'q'},"
        "{'type':'custom_tool_call','call_id':'1','name':'exec','namespace':'functions','input':'x'},"
        "{'type':'custom_tool_call_output','call_id':'1','output':'y'},{'type':'additional_tools'},"
        "{'type':'additional_tools','tools':[{'type':'custom','name':'exec'},{'type':'function','name':'late'}]}]}");
    if (!a.read) fail_msg("%s", a.fault.message);
    static const char *const names[] = {"f", "exec", "wait", "mcp__a__f", "mcp__a__c", "late"};
    const mq_responses_extra *extra = a.ask.extra;
    assert_int_equal(json_array_size(a.ask.tools), 6);
    assert_int_equal(extra->tool_count, 6);
    for (size_t i = 0; i < 6; i++) {
        assert_string_equal(json_string_value(extra->tools[i].shown), names[i]);
        assert_string_equal(text_at_path(json_array_get(a.ask.tools, i), "function.name"), names[i]);
    }
    assert_string_equal(json_string_value(extra->tools[1].space), "functions");
    assert_string_equal(a.ask.only_tool, "exec");
    assert_string_equal(a.ask.warning,
                        "tool of type web_search; tool exec of additional_tools, which is there already");
    assert_int_equal(json_array_size(a.ask.messages), 3);
    assert_string_equal(text_at_path(a.ask.messages, "1.tool_calls.0.function.name"), "exec");
    apis_done(&a);
    a = apis_read(API,
                  "{'input':[{'type':'additional_tools','tools':[{'type':'function','name':'f','strict':true}]}]}");
    assert_true(a.read && a.ask.strict_tools);
    apis_done(&a);
    apis_refuse(API, "{'input':[{'type':'additional_tools','tools':{}}]}", "input[0].tools");
    apis_refuse(API, "{'input':['',{'type':'additional_tools','tools':[{'type':'function'}]}]}", "input[1].tools[0]");
}

static void choices_of_tools(void **state)
{
    (void)state;
    static const struct {
        const char *choice;
        mq_tool_choice expected;
        const char *only;
        size_t callable; /* SIZE_MAX: all */
    } cases[] = {
        {"null", MQ_CHOICE_AUTO, NULL, SIZE_MAX},
        {"'auto'", MQ_CHOICE_AUTO, NULL, SIZE_MAX},
        {"'none'", MQ_CHOICE_NONE, NULL, SIZE_MAX},
        {"'required'", MQ_CHOICE_REQUIRED, NULL, SIZE_MAX},
        {"{'type':'function','name':'f'}", MQ_CHOICE_REQUIRED, "f", 1},
        {"{'type':'function','function':{'name':'f'}}", MQ_CHOICE_REQUIRED, "f", 1},
        {"{'type':'custom','name':'patch'}", MQ_CHOICE_REQUIRED, "patch", 1},
        {"{'type':'custom','name':'c'}", MQ_CHOICE_REQUIRED, "mcp__a__c", 1},
        {"{'type':'function','name':'g','namespace':'mcp__b'}", MQ_CHOICE_REQUIRED, "mcp__b__g", 1},
        {"{'type':'local_shell'}", MQ_CHOICE_REQUIRED, "local_shell", 1},
        {"{'type':'allowed_tools','mode':'auto','tools':[{'type':'function','name':'f'},{'type':'web_search'}]}",
         MQ_CHOICE_AUTO, NULL, 1},
        {"{'type':'allowed_tools','mode':'required','tools':[{'type':'namespace','name':'mcp__a'}]}",
         MQ_CHOICE_REQUIRED, NULL, 1},
        {"{'type':'allowed_tools','mode':'auto','tools':[{'type':'web_search'}]}", MQ_CHOICE_NONE, NULL, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[1200];
        snprintf(body, sizeof body,
                 "{'input':'hi','parallel_tool_calls':false,'tools':[" FUNCTION "," CUSTOM
                 ",{'type':'local_shell'},{'type':'namespace','name':'mcp__a','tools':[{'type':'custom','name':'c'}]},{"
                 "'type':"
                 "'namespace','name':'mcp__b','tools':[{'type':'function','name':'g'}]}],'tool_choice':%s}",
                 cases[i].choice);
        apis_ask a = apis_read(API, body);
        if (!a.read) fail_msg("%s: %s", cases[i].choice, a.fault.message);
        assert_int_equal(a.ask.choice, cases[i].expected);
        assert_false(a.ask.parallel);
        assert_string_equal(a.ask.only_tool ? a.ask.only_tool : "", cases[i].only ? cases[i].only : "");
        if (cases[i].callable == SIZE_MAX) {
            assert_null(a.ask.callable);
        } else {
            assert_int_equal(json_array_size(a.ask.callable), cases[i].callable);
        }
        apis_done(&a);
    }
}

/* ---- the other fields */

static void reasoning_and_form(void **state)
{
    (void)state;
    static const struct {
        const char *fields;
        int thinking;
        bool summary, sealed;
        const char *effort;
    } cases[] = {{"'reasoning':null", -1, false, false, NULL},
                 {"'reasoning':{'effort':'none'}", 0, false, false, NULL},
                 {"'reasoning':{'effort':'minimal','summary':'none'}", 0, false, false, NULL},
                 {"'reasoning':{'effort':'low','summary':'auto'}", 1, true, false, "low"},
                 {"'reasoning':{'effort':'xhigh'},'include':['reasoning.encrypted_content']", 1, false, true, "high"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[300];
        snprintf(body, sizeof body, "{'input':'hi',%s}", cases[i].fields);
        apis_ask a = apis_read(API, body);
        assert_true(a.read);
        const mq_responses_extra *extra = a.ask.extra;
        assert_int_equal(a.ask.thinking, cases[i].thinking);
        assert_int_equal(extra->summary, cases[i].summary);
        assert_int_equal(extra->sealed, cases[i].sealed);
        const char *effort = json_string_value(json_object_get(a.ask.template_kwargs, "reasoning_effort"));
        assert_string_equal(effort ? effort : "", cases[i].effort ? cases[i].effort : "");
        apis_done(&a);
    }
    apis_ask a = apis_read(
        API, "{'input':'hi','max_output_tokens':7,'temperature':0.5,'top_p':0.5,'top_logprobs':3,'stream':true,"
             "'text':{'format':{'type':'json_schema','name':'n','schema':{'type':'object'},'strict':true}}}");
    assert_true(a.read && a.ask.strict && a.ask.stream && a.ask.logprobs);
    assert_int_equal(a.ask.max_tokens, 7);
    assert_int_equal(a.ask.top_logprobs, 3);
    assert_string_equal(text_at_path(a.ask.schema, "type"), "object");
    apis_done(&a);
    a = apis_read(API,
                  "{'input':'hi','include':['message.output_text.logprobs'],'text':{'format':{'type':'json_object'}}}");
    assert_true(a.read && a.ask.logprobs && a.ask.schema);
    assert_int_equal(a.ask.max_tokens, UINT32_MAX);
    apis_done(&a);
}

static void refused_bodies(void **state)
{
    (void)state;
    static const struct {
        const char *body, *param;
    } cases[] = {
        {"{'input':7}", "input"},
        {"{'input':[7]}", "input[0]"},
        {"{'input':[{}]}", "input[0].type"},
        {"{'input':[{'type':'message','content':'x'}]}", "input[0].role"},
        {"{'input':[{'role':'tool','content':'x'}]}", "input[0].role"},
        {"{'input':[{'role':'user','content':7}]}", "input[0].content"},
        {"{'input':[{'role':'user','content':[{'type':'input_image','image_url':'u'}]}]}", "input[0].content[0]"},
        {"{'input':[{'role':'user','content':[{'type':'input_image'}]},{'type':'message','role':'developer','content':'"
         "n'}]}",
         "input[0].content[0]"},
        {"{'input':[{'role':'user','content':[{'type':'input_text','text':'a'},{'type':'input_file'}]}]}",
         "input[0].content[1]"},
        {"{'input':[{'type':'item_reference','id':'x'}]}", "input[0].type"},
        {"{'input':[{'type':'function_call','arguments':''}]}", "input[0].name"},
        {"{'input':[{'type':'custom_tool_call','name':'x'}]}", "input[0].input"},
        {"{'input':[{'type':'function_call_output','output':'x'}]}", "input[0].call_id"},
        {"{'input':'hi','instructions':7}", "instructions"},
        {"{'input':'hi','previous_response_id':'resp_1'}", "previous_response_id"},
        {"{'input':'hi','conversation':'conv_1'}", "conversation"},
        {"{'input':'hi','prompt':{'id':'p'}}", "prompt"},
        {"{'input':'hi','background':true}", "background"},
        {"{'input':'hi','max_output_tokens':0}", "max_output_tokens"},
        {"{'input':'hi','top_logprobs':21}", "top_logprobs"},
        {"{'input':'hi','stream':'yes'}", "stream"},
        {"{'input':'hi','parallel_tool_calls':1}", "parallel_tool_calls"},
        {"{'input':'hi','tools':{}}", "tools"},
        {"{'input':'hi','tools':[7]}", "tools[0]"},
        {"{'input':'hi','tools':[{'type':'function'}]}", "tools[0]"},
        {"{'input':'hi','tools':[{'type':'function','name':'f','parameters':7}]}", "tools[0]"},
        {"{'input':'hi','tools':[{'type':'namespace','name':'n'}]}", "tools[0]"},
        {"{'input':'hi','tools':[{'type':'namespace','name':'n','tools':[{'type':'function'}]}]}", "tools[0].tools[0]"},
        {"{'input':'hi','tools':[" FUNCTION "," FUNCTION "]}", "tools[1]"},
        {"{'input':'hi','tools':[" SPACE ",{'type':'function','name':'mcp__a__f'}]}", "tools[1]"},
        {"{'input':'hi','tools':[{'type':'namespace','name':'a','tools':[{'type':'function','name':'b__c'}]},{'type':'"
         "namespace',"
         "'name':'a__b','tools':[{'type':'function','name':'c'}]}]}",
         "tools[1].tools[0]"},
        {"{'input':'hi','tool_choice':'required'}", "tool_choice"},
        {"{'input':'hi','tool_choice':{'type':'function','name':'f'}}", "tool_choice"},
        {"{'input':'hi','tool_choice':{'type':'web_search'}}", "tool_choice"},
        {"{'input':'hi','tools':[" FUNCTION "," SPACE
         "],'tool_choice':{'type':'allowed_tools','tools':[{'type':'function','name':"
         "'x'}]}}",
         "tool_choice"},
        {"{'input':'hi','text':{'format':{'type':'xml'}}}", "text.format"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        apis_refuse(API, cases[i].body, cases[i].param);
    }
    /* Clients that mean earlier items by their ids are told how to send the items. */
    apis_ask a = apis_read(API, "{'input':[{'role':'user','content':'hi'},{'type':'item_reference','id':'msg_1'}]}");
    assert_false(a.read);
    assert_non_null(strstr(a.fault.message, "store: false"));
    apis_done(&a);
}

static void short_memory(void **state)
{
    (void)state;
    apis_starve(
        API,
        "{'instructions':'a','reasoning':{'effort':'low','summary':'auto'},'stop':['x'],'text':{'format':{'type':"
        "'json_object'}},'metadata':{'a':'b'},'tools':[" FUNCTION "," CUSTOM "," SPACE
        ",{'type':'local_shell'},{'type':"
        "'web_search'}],'tool_choice':{'type':'allowed_tools','mode':'auto','tools':[{'type':'custom','name':'patch'}]}"
        ","
        "'input':[{'type':'additional_tools','tools':[" CUSTOM ",{'type':'custom','name':'exec'}]},{'type':"
        "'agent_message','content':[{'text':'m'}]},"
        "{'role':'user','content':[{'type':'input_text','text':'q'}]},{'type':'reasoning','encrypted_content':"
        "'mq1:dGhvdWdodA=='},{'role':'assistant','content':'b'},{'type':'function_call','call_id':'1','name':'f','"
        "namespace'"
        ":'mcp__a','arguments':'{}'},{'type':'custom_tool_call','call_id':'2','name':'patch','input':'x'},{'type':"
        "'local_shell_call','call_id':'3','action':{'command':['x']}},{'type':'function_call_output','call_id':'1','"
        "output':["
        "{'type':'input_text','text':'t'},{'type':'input_image'}]},{'type':'custom_tool_call_output','call_id':'2','"
        "output':"
        "'x'},{'type':'compaction'},{'role':'developer','content':'n'}]}");
}

/* ---- inputs of custom tools */

static void decode_input(const char *arguments, const char *expected)
{
    const size_t bytes = strlen(arguments);
    for (size_t step = 1; step <= bytes; step++) { /* however it comes in */
        mq_custom_input input = {0};
        for (size_t n = step; n < bytes; n += step) {
            char *copy = strndup(arguments, n); /* nothing beyond is read */
            mq__custom_input_read(&input, copy, n);
            free(copy);
        }
        mq__custom_input_end(&input, arguments, bytes);
        assert_false(input.text.failed);
        if (strlen(expected) != input.text.len ||
            memcmp(expected, input.text.data ? input.text.data : "", input.text.len) != 0)
            fail_msg("%s: %s, step %zu", arguments, input.text.data, step);
        mq__custom_input_clear(&input);
    }
}

static void custom_inputs(void **state)
{
    (void)state;
    decode_input("{\"input\": \"plain\"}", "plain");
    decode_input(" { \"input\" :\n\"\"}", "");
    decode_input("{\"input\":\"a\\\"b\\\\c\\/d\\n\\t\\r\\b\\f\"}", "a\"b\\c/d\n\t\r\b\f");
    decode_input("{\"input\":\"\\u00e9\\u20AC\\ud83d\\ude00\"}", "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
    decode_input("{\"input\":\"\\ud83dx\\ud83d\\n\\ude00\\ud83d\"}",
                 "\xEF\xBF\xBDx\xEF\xBF\xBD\n\xEF\xBF\xBD\xEF\xBF\xBD");
    decode_input("{\"patch\": \"other\\nname\"}", "other\nname");
    decode_input("{\"a\": 1, \"input\": \"later\"}", "later");
    decode_input("{\"input\": [1]}", "{\"input\": [1]}");
    decode_input("{\"a\": \"b\", \"c\": \"d\"}", "{\"a\": \"b\", \"c\": \"d\"}");
    decode_input("{}", "{}");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, apis_setup, apis_teardown)
    const struct CMUnitTest tests[] = {
        TEST(inputs),
        TEST(items_of_an_answer),
        TEST(items_of_answers),
        TEST(answer_that_goes_on),
        TEST(warnings),
        TEST(tools_of_all_kinds),
        TEST(tools_of_the_input),
        TEST(choices_of_tools),
        TEST(reasoning_and_form),
        TEST(refused_bodies),
        TEST(short_memory),
        TEST(custom_inputs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
