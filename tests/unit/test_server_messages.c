/* Anthropic's Messages API: bodies of all kinds, and those that are refused. */
#include "server_apis.h"

#define API      (&mq__messages_api)
#define HI       "'messages':[{'role':'user','content':'hi'}]"
#define ONE_TOOL "{'name':'f','description':'d','input_schema':{'type':'object','properties':{'a':{'type':'string'}}}}"
#define USER(c)  "{'messages':[{'role':'user','content':[" c "]}]}"
#define ANSWER(c)                                                                                                      \
    "{'messages':[{'role':'user','content':'q'},{'role':'assistant','content':[" c "]},{'role':'user','content':'r'}]" \
    "}"

/* ---- messages */

static void system_texts(void **state)
{
    (void)state;
    apis_expect(API, "{" HI "}", "[{'role':'user','content':'hi'}]");
    apis_expect(API, "{'system':'be brief'," HI "}",
                "[{'role':'system','content':'be brief'},{'role':'user','content':'hi'}]");
    apis_expect(API,
                "{'system':[{'type':'text','text':'a','cache_control':{'type':'ephemeral'}},{'type':'text','text':''},"
                "{'text':'b'}]," HI "}",
                "[{'role':'system','content':'a\\nb'},{'role':'user','content':'hi'}]");
    apis_expect(API, "{'system':null," HI "}", "[{'role':'user','content':'hi'}]");
    apis_expect(API, "{'system':[]," HI "}", "[{'role':'user','content':'hi'}]");
    apis_expect(API, "{'system':''," HI "}", "[{'role':'user','content':'hi'}]");
}

/* Lines that change with each request must not be in the prompt. */
static void volatile_lines(void **state)
{
    (void)state;
    static const char *const turns[] = {
        "{'system':[{'type':'text','text':'x-anthropic-billing-header: cc_version=2.1; cch=00001;'},"
        "{'type':'text','text':'You are an agent.'}]," HI "}",
        "{'system':[{'type':'text','text':'x-anthropic-billing-header: cc_version=2.1; cch=fffff;'},"
        "{'type':'text','text':'You are an agent.'}]," HI "}",
        "{'system':'x-anthropic-billing-header: cch=7\\nYou are an agent.'," HI "}",
        "{'system':[{'type':'text','text':'x-anthropic-billing-header: cch=7\\nYou are an agent.'}]," HI "}",
    };
    for (size_t i = 0; i < sizeof turns / sizeof turns[0]; i++) {
        apis_expect(API, turns[i], "[{'role':'system','content':'You are an agent.'},{'role':'user','content':'hi'}]");
    }
    apis_expect(API, "{'system':'see x-anthropic-billing-header: y'," HI "}",
                "[{'role':'system','content':'see x-anthropic-billing-header: y'},{'role':'user','content':'hi'}]");
    apis_expect(API, "{'system':'x-anthropic-billing-header: y'," HI "}", "[{'role':'user','content':'hi'}]");
    /* In a user's text it is a text. */
    apis_expect(API, USER("{'type':'text','text':'x-anthropic-billing-header: y'}"),
                "[{'role':'user','content':'x-anthropic-billing-header: y'}]");
}

static void system_amid_messages(void **state)
{
    (void)state;
    apis_expect(
        API,
        "{'system':'a','messages':[{'role':'user','content':'q'},{'role':'system','content':"
        "'x-anthropic-billing-header: 1\\nnote'},{'role':'assistant','content':'r'},{'role':'user','content':'s'}]}",
        "[{'role':'system','content':'a'},{'role':'user','content':'q\\n\\n<system-reminder>\\nnote\\n"
        "</system-reminder>'},{'role':'assistant','content':'r'},{'role':'user','content':'s'}]");
    apis_expect(API,
                "{'messages':[{'role':'system','content':[{'type':'text','text':'a'}]},{'role':'user','content':'q'}]}",
                "[{'role':'system','content':'a'},{'role':'user','content':'q'}]");
}

static void user_blocks(void **state)
{
    (void)state;
    apis_expect(API, USER("{'type':'text','text':'a'},{'type':'text','text':''},{'type':'text','text':'b'}"),
                "[{'role':'user','content':'a\\nb'}]");
    apis_expect(API, USER(""), "[{'role':'user','content':''}]");
    apis_expect(API, USER("{'type':'text','text':''}"), "[{'role':'user','content':''}]");
    apis_expect(API,
                USER("{'type':'document','title':'T','source':{'type':'text','media_type':'text/plain','data':'D'}}"),
                "[{'role':'user','content':'T\\nD'}]");
    apis_expect(API, USER("{'type':'document','source':{'type':'content','content':[{'type':'text','text':'D'}]}}"),
                "[{'role':'user','content':'D'}]");
    apis_expect(API, USER("{'type':'search_result','title':'T','source':'S','content':[{'type':'text','text':'C'}]}"),
                "[{'role':'user','content':'T\\nS\\nC'}]");
    apis_expect(API, "{'messages':[{'role':'user','content':'a\\u0000b'}]}", "[{'role':'user','content':'a\\u0000b'}]");
}

/* Results become messages of their own, in their order, before the texts beside them. */
static void results_of_tools(void **state)
{
    (void)state;
    apis_expect(
        API,
        "{'messages':[{'role':'user','content':'q'},{'role':'assistant','content':[{'type':'tool_use','id':'t1','name':"
        "'f','input':{'a':1}},{'type':'tool_use','id':'t2','name':'g','input':{}}]},{'role':'user','content':["
        "{'type':'text','text':'first'},{'type':'tool_result','tool_use_id':'t2','content':'two'},"
        "{'type':'tool_result','tool_use_id':'t1','content':[{'type':'text','text':'o'},{'type':'text','text':'ne'}]},"
        "{'type':'text','text':'last'}]}]}",
        "[{'role':'user','content':'q'},{'role':'assistant','content':null,'tool_calls':[{'id':'t1','type':'function',"
        "'function':{'name':'f','arguments':'{\\u0022a\\u0022:1}'}},{'id':'t2','type':'function','function':{'name':'g'"
        ","
        "'arguments':'{}'}}]},{'role':'tool','tool_call_id':'t2','name':'g','content':'two'},"
        "{'role':'tool','tool_call_id':'t1','name':'f','content':'o\\nne'},{'role':'user','content':'first\\nlast'}]");
    apis_expect(API, USER("{'type':'tool_result','tool_use_id':'x'}"),
                "[{'role':'tool','tool_call_id':'x','content':''}]");
    apis_expect(API,
                USER("{'type':'tool_result','tool_use_id':'x','content':[{'type':'tool_reference','tool_name':'f'}]}"),
                "[{'role':'tool','tool_call_id':'x','content':'The tool f is there.'}]");
    apis_expect(API,
                USER("{'type':'tool_result','tool_use_id':'x','content':[{'type':'search_result','title':'T','source':"
                     "'S','content':[{'type':'text','text':'C'}]}]}"),
                "[{'role':'tool','tool_call_id':'x','content':'T\\nS\\nC'}]");
    apis_expect(API, USER("{'type':'tool_result','tool_use_id':'x','is_error':true,'content':'no file'}"),
                "[{'role':'tool','tool_call_id':'x','content':'Error: no file'}]");
    apis_expect(API, USER("{'type':'tool_result','tool_use_id':'x','is_error':true}"),
                "[{'role':'tool','tool_call_id':'x','content':'Error'}]");
    apis_expect(API, USER("{'type':'tool_result','tool_use_id':'x','is_error':true,'content':'<tool_use_error>a'}"),
                "[{'role':'tool','tool_call_id':'x','content':'<tool_use_error>a'}]");
    apis_expect(API, USER("{'type':'tool_result','tool_use_id':'x','is_error':true,'content':'Error: a'}"),
                "[{'role':'tool','tool_call_id':'x','content':'Error: a'}]");
}

static void assistant_blocks(void **state)
{
    (void)state;
    apis_expect(API, ANSWER("{'type':'text','text':'a'},{'type':'text','text':''},{'type':'text','text':'b'}"),
                "[{'role':'user','content':'q'},{'role':'assistant','content':'ab'},{'role':'user','content':'r'}]");
    apis_expect(
        API,
        ANSWER("{'type':'thinking','thinking':'t','signature':'s'},{'type':'redacted_thinking','data':'x'},"
               "{'type':'text','text':'a'},{'type':'tool_use','id':'i','name':'f','input':{'b':[1,'c']}}"),
        "[{'role':'user','content':'q'},{'role':'assistant','content':'a','reasoning_content':'t','tool_calls':[{'id':"
        "'i','type':'function','function':{'name':'f','arguments':'{\\u0022b\\u0022:[1,\\u0022c\\u0022]}'}}]},"
        "{'role':'user','content':'r'}]");
    /* Thinking that was not shown comes back out of its signature. */
    apis_expect(API,
                ANSWER("{'type':'thinking','thinking':'','signature':'mq1:dGhvdWdodA=='},{'type':'text','text':'a'}"),
                "[{'role':'user','content':'q'},{'role':'assistant','content':'a','reasoning_content':'thought'},"
                "{'role':'user','content':'r'}]");
    apis_expect(API, ANSWER("{'type':'thinking','thinking':'','signature':'mq1:!!!'},{'type':'text','text':'a'}"),
                "[{'role':'user','content':'q'},{'role':'assistant','content':'a'},{'role':'user','content':'r'}]");
    apis_expect(API, ANSWER(""),
                "[{'role':'user','content':'q'},{'role':'assistant','content':''},{'role':'user','content':'r'}]");
    /* Arguments that were cut stay what they are. */
    apis_expect(
        API, ANSWER("{'type':'tool_use','id':'i','name':'f','input':'{\\u0022a'}"),
        "[{'role':'user','content':'q'},{'role':'assistant','content':null,'tool_calls':[{'id':'i','type':'function',"
        "'function':{'name':'f','arguments':'{\\u0022a'}}]},{'role':'user','content':'r'}]");
}

static void answer_that_goes_on(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        bool continues;
    } cases[] = {
        {"{'messages':[{'role':'user','content':'q'},{'role':'assistant','content':'The'}]}", true},
        {"{" HI "}", false},
        {"{'messages':[{'role':'user','content':'q'},{'role':'assistant','content':[{'type':'tool_use','id':'i','name':"
         "'f',"
         "'input':{}}]}]}",
         false},
    };
    for (size_t i = 0; i < 3; i++) {
        apis_ask a = apis_read(API, cases[i].body);
        assert_true(a.read);
        assert_int_equal(a.ask.continues, cases[i].continues);
        apis_done(&a);
    }
}

/* What is left out is said. */
static void warnings(void **state)
{
    (void)state;
    static const struct {
        const char *body, *warning;
    } cases[] = {
        {USER("{'type':'tool_result','tool_use_id':'x','content':[{'type':'image','source':{'type':'base64','data':'A'}"
              "}]}"),
         "block of type image"},
        {USER("{'type':'tool_result','tool_use_id':'x','content':[{'type':'document','source':{'type':'base64'}}]}"),
         "block of type document"},
        {ANSWER("{'type':'server_tool_use','id':'s','name':'web_search','input':{}},{'type':'text','text':'a'}"),
         "block of type server_tool_use"},
        {USER("{'type':'container_upload','file_id':'f'},{'type':'text','text':'a'}"),
         "block of type container_upload"},
        {"{'tools':[" ONE_TOOL ",{'type':'web_search_20250305','name':'web_search'}]," HI "}",
         "tool of type web_search_20250305"},
        {"{'tools':[{'type':'bash_20250124','name':'bash'}]," HI "}", "tool of type bash_20250124"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        apis_ask a = apis_read(API, cases[i].body);
        if (!a.read) fail_msg("%s", a.fault.message);
        assert_non_null(a.ask.warning);
        assert_non_null(strstr(a.ask.warning, cases[i].warning));
        apis_done(&a);
    }
    apis_expect(API,
                USER("{'type':'tool_result','tool_use_id':'x','content':[{'type':'text','text':'a'},{'type':'image','"
                     "source':{}}]}"),
                "[{'role':'tool','tool_call_id':'x','content':'a\\n[image left out: this model reads text only]'}]");
}

/* ---- tools and choices */

static void tools_are_functions(void **state)
{
    (void)state;
    apis_ask a =
        apis_read(API, "{'tools':[" ONE_TOOL ",{'type':'custom','name':'g','input_schema':null,'cache_control':{'type':"
                       "'ephemeral'},'eager_input_streaming':true,'defer_loading':true,'input_examples':[]}]," HI "}");
    json_t *expected = apis_json(
        "[{'type':'function','function':{'name':'f','description':'d','parameters':{'type':'object','properties':{'a':{"
        "'type':"
        "'string'}}}}},{'type':'function','function':{'name':'g','parameters':{'type':'object','properties':{},"
        "'additionalProperties':false}}}]");
    assert_true(a.read);
    assert_true(json_equal(a.ask.tools, expected));
    assert_false(a.ask.strict_tools);
    assert_true(a.ask.parallel);
    assert_int_equal(a.ask.choice, MQ_CHOICE_AUTO);
    json_decref(expected);
    apis_done(&a);
}

static void strict_tools(void **state)
{
    (void)state;
    static const struct {
        const char *tools;
        bool strict;
    } cases[] = {{"{'name':'f','strict':true}", true},
                 {"{'name':'f','strict':true},{'name':'g'}", false}, /* g's schema may have what is not supported */
                 {"{'name':'f','strict':true},{'type':'web_search_20250305','name':'w'}", true},
                 {"{'type':'bash_20250124','name':'w'}", false},
                 {"{'name':'f','strict':false}", false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[400];
        snprintf(body, sizeof body, "{'tools':[%s]," HI "}", cases[i].tools);
        apis_ask a = apis_read(API, body);
        assert_true(a.read);
        if (i != 3) assert_int_equal(a.ask.strict_tools, cases[i].strict);
        apis_done(&a);
    }
}

static void choices_of_tools(void **state)
{
    (void)state;
    static const struct {
        const char *choice;
        mq_tool_choice expected;
        const char *only;
        bool parallel;
    } cases[] = {{"null", MQ_CHOICE_AUTO, NULL, true},
                 {"{'type':'auto'}", MQ_CHOICE_AUTO, NULL, true},
                 {"{'type':'auto','disable_parallel_tool_use':true}", MQ_CHOICE_AUTO, NULL, false},
                 {"{'type':'any'}", MQ_CHOICE_REQUIRED, NULL, true},
                 {"{'type':'none'}", MQ_CHOICE_NONE, NULL, true},
                 {"{'type':'tool','name':'f','disable_parallel_tool_use':true}", MQ_CHOICE_REQUIRED, "f", false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[600];
        snprintf(body, sizeof body, "{'tools':[" ONE_TOOL "],'tool_choice':%s," HI "}", cases[i].choice);
        apis_ask a = apis_read(API, body);
        if (!a.read) fail_msg("%s", a.fault.message);
        assert_int_equal(a.ask.choice, cases[i].expected);
        assert_int_equal(a.ask.parallel, cases[i].parallel);
        if (cases[i].only) {
            assert_string_equal(a.ask.only_tool, cases[i].only);
        } else {
            assert_null(a.ask.only_tool);
        }
        apis_done(&a);
    }
}

/* ---- the other fields */

static void thinking_and_effort(void **state)
{
    (void)state;
    static const struct {
        const char *fields;
        int thinking;
        bool omitted;
        const char *effort;
        int budget;
    } cases[] = {
        {"'x':0", 0, false, NULL, 0},
        {"'thinking':{'type':'disabled'}", 0, false, NULL, 0},
        {"'thinking':{'type':'enabled','budget_tokens':2048}", 1, false, NULL, 2048},
        {"'thinking':{'type':'adaptive','display':'omitted','block_binding':'x'}", 1, true, NULL, 0},
        {"'thinking':{'type':'adaptive','display':'summarized'},'output_config':{'effort':'low'}", 1, false, "low", 0},
        {"'output_config':{'effort':'max'}", 0, false, "high", 0},
        {"'thinking':null,'output_config':null", 0, false, NULL, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[400];
        snprintf(body, sizeof body, "{%s," HI "}", cases[i].fields);
        apis_ask a = apis_read(API, body);
        if (!a.read) fail_msg("%s", a.fault.message);
        const mq_messages_extra *extra = a.ask.extra;
        assert_int_equal(a.ask.thinking, cases[i].thinking);
        assert_int_equal(extra->omits_thinking, cases[i].omitted);
        const char *effort = json_string_value(json_object_get(a.ask.template_kwargs, "reasoning_effort"));
        assert_string_equal(effort ? effort : "", cases[i].effort ? cases[i].effort : "");
        assert_int_equal(json_integer_value(json_object_get(a.ask.template_kwargs, "thinking_budget")),
                         cases[i].budget);
        apis_done(&a);
    }
}

static void sampling_and_limits(void **state)
{
    (void)state;
    apis_ask a =
        apis_read(API, "{'max_tokens':1000,'temperature':0.5,'top_p':0.9,'top_k':40,'stop_sequences':['END','\\n\\n'],"
                       "'stream':true,'service_tier':'auto','unknown':{'a':1},'mcp_servers':[],'context_management':{},"
                       "'thread':null,'fallbacks':[]," HI "}");
    assert_true(a.read);
    assert_int_equal(a.ask.max_tokens, 1000);
    assert_true(a.ask.sampling.temperature == 0.5f && a.ask.sampling.top_p == 0.9f);
    assert_int_equal(a.ask.sampling.top_k, 40);
    assert_int_equal(a.ask.stop_count, 2);
    assert_string_equal(a.ask.stops[0], "END");
    assert_true(a.ask.stream);
    assert_null(a.ask.warning);
    apis_done(&a);
    a = apis_read(API, "{" HI "}");
    assert_true(a.read && a.ask.max_tokens == UINT32_MAX && !a.ask.stream);
    apis_done(&a);
    a = apis_read(API, "{'max_tokens':9000000000000," HI "}");
    assert_true(a.read && a.ask.max_tokens == UINT32_MAX);
    apis_done(&a);
}

static void form_of_the_answer(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{'output_config':{'format':{'type':'json_schema','schema':{'type':'object'}}}," HI "}",
        "{'output_format':{'type':'json_schema','schema':{'type':'object'}}," HI "}"};
    for (size_t i = 0; i < 2; i++) {
        apis_ask a = apis_read(API, bodies[i]);
        assert_true(a.read && !a.ask.strict);
        assert_string_equal(text_at_path(a.ask.schema, "type"), "object");
        apis_done(&a);
    }
}

static void side_requests(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        bool background;
    } cases[] = {
        {"{" HI "}", false},
        {"{'system':'Write a short title for this session.'," HI "}", true},
        {"{'system':'Write a short title for this session.','tools':[" ONE_TOOL "]," HI "}", false},
        {"{'output_config':{'format':{'type':'json_schema','schema':{'properties':{'title':{}}}}}," HI "}", true},
        {"{'output_config':{'format':{'type':'json_schema','schema':{'properties':{'title':{},'author':{},'year':{}}}}}"
         "," HI "}",
         false},
        {"{'messages':[{'role':'user','content':'Suggest a title for my book.'}]}", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        apis_ask a = apis_read(API, cases[i].body);
        assert_true(a.read);
        assert_int_equal(a.ask.background, cases[i].background);
        apis_done(&a);
    }
    apis_ask a = apis_read(API, "{'metadata':{'user_id':'{\\u0022session_id\\u0022:\\u0022s-1\\u0022}'}," HI "}");
    assert_string_equal(a.ask.session, "s-1");
    apis_done(&a);
    a = apis_read(API, "{'metadata':{'user_id':'{broken'}," HI "}");
    assert_true(a.read);
    assert_string_equal(a.ask.session, "");
    apis_done(&a);
}

/* What the user shows now is refused, what stands in the past is named. */
static void images_of_the_past(void **state)
{
    (void)state;
#define IMAGE "{'type':'image','source':{'type':'base64','data':'A'}}"
    apis_expect(API,
                "{'messages':[{'role':'user','content':[" IMAGE
                ",{'type':'text','text':'see'}]},{'role':'assistant','content':"
                "'a cat'},{'role':'user','content':'sure?'}]}",
                "[{'role':'user','content':'[image left out: this model reads text only]\\nsee'},{'role':'assistant',"
                "'content':'a cat'},{'role':'user','content':'sure?'}]");
    apis_ask a = apis_read(API, "{'messages':[{'role':'user','content':[" IMAGE "]},{'role':'user','content':'x'}]}");
    assert_true(a.read);
    assert_string_equal(a.ask.warning, "block of type image");
    apis_done(&a);
    /* Claude Code looks for such words, leaves the block out and asks again; else it would bring it in each turn, and be refused. */
    a = apis_read(API, "{'messages':[{'role':'user','content':[{'type':'text','text':'see'}," IMAGE "]}]}");
    assert_false(a.read);
    assert_int_equal(strncmp(a.fault.message, "messages[0].content[1].image: ", 30), 0);
    apis_done(&a);
}

static void refused_bodies(void **state)
{
    (void)state;
    static const struct {
        const char *body, *param;
    } cases[] = {
        {"{}", "messages"},
        {"{'messages':[]}", "messages"},
        {"{'messages':{}}", "messages"},
        {"{'messages':['hi']}", "messages[0].role"},
        {"{'messages':[{'role':'tool','content':'x'}]}", "messages[0].role"},
        {"{'messages':[{'role':'user'}]}", "messages[0].content"},
        {"{'messages':[{'role':'user','content':7}]}", "messages[0].content"},
        {USER("7"), "messages[0].content[0].type"},
        {USER("{'type':'text'}"), "messages[0].content[0].text"},
        {USER("{'type':'image','source':{'type':'base64','data':'A'}}"), "messages[0].content[0].image"},
        {USER("{'type':'document','source':{'type':'url','url':'u'}}"), "messages[0].content[0].document"},
        {"{'messages':[{'role':'user','content':[" IMAGE "]},{'role':'system','content':'s'}]}",
         "messages[0].content[0].image"},
        {"{'messages':[{'role':'user','content':[" IMAGE "]},{'role':'assistant','content':'It shows'}]}",
         "messages[0].content[0].image"},
        {USER("{'type':'tool_result','content':'x'}"), "messages[0].content[0].tool_use_id"},
        {USER("{'type':'tool_result','tool_use_id':'x','content':7}"), "messages[0].content[0].content"},
        {USER("{'type':'tool_result','tool_use_id':'x','content':[7]}"), "messages[0].content[0].content"},
        {USER("{'type':'tool_result','tool_use_id':'x','content':[{'type':'text'}]}"),
         "messages[0].content[0].content"},
        {ANSWER("{'type':'tool_use','id':'x'}"), "messages[1].content[0].name"},
        {ANSWER("{'type':'text','text':null}"), "messages[1].content[0].text"},
        {"{'system':7," HI "}", "system"},
        {"{'tools':{}," HI "}", "tools"},
        {"{'tools':[{'type':'web_search_20250305','name':'web_search','max_uses':8}]," HI "}", "tools"},
        {"{'tools':[{'type':'web_search_20250305','name':'s'},{'type':'web_fetch_20250910','name':'f'}]," HI "}",
         "tools"},
        {"{'tools':[7]," HI "}", "tools[0]"},
        {"{'tools':[{}]," HI "}", "tools[0]"},
        {"{'tools':[{'name':''}]," HI "}", "tools[0]"},
        {"{'tools':[{'name':'f','input_schema':'x'}]," HI "}", "tools[0]"},
        {"{'tools':[{'name':'f'},{'name':'f'}]," HI "}", "tools[1]"},
        {"{'tool_choice':'auto'," HI "}", "tool_choice"},
        {"{'tool_choice':{'type':'any'}," HI "}", "tool_choice"},
        {"{'tool_choice':{'type':'other'}," HI "}", "tool_choice"},
        {"{'tools':[" ONE_TOOL "],'tool_choice':{'type':'tool','name':'g'}," HI "}", "tool_choice"},
        {"{'thinking':true," HI "}", "thinking"},
        {"{'thinking':{'type':'enabled','budget_tokens':-1}," HI "}", "budget_tokens"},
        {"{'max_tokens':-1," HI "}", "max_tokens"},
        {"{'max_tokens':'many'," HI "}", "max_tokens"},
        {"{'temperature':'hot'," HI "}", "temperature"},
        {"{'top_p':2," HI "}", "top_p"},
        {"{'stream':1," HI "}", "stream"},
        {"{'stop_sequences':[1]," HI "}", "stop_sequences"},
        {"{'output_config':{'format':{'type':'json_schema'}}," HI "}", "output_config.format"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        apis_refuse(API, cases[i].body, cases[i].param);
    }
}

static void short_memory(void **state)
{
    (void)state;
    apis_starve(
        API, "{'system':[{'type':'text','text':'x-anthropic-billing-header: "
             "1'},{'type':'text','text':'s'}],'tools':[" ONE_TOOL
             ",{'type':'web_search_1','name':'w'}],'tool_choice':{'type':'tool','name':'f'},'stop_sequences':"
             "['a'],'thinking':{'type':'enabled','budget_tokens':7},'output_config':{'effort':'low','format':{'type':"
             "'json_schema','schema':{}}},'messages':[{'role':'user','content':'q'},{'role':'system','content':'n'},"
             "{'role':'assistant','content':[{'type':'thinking','thinking':'','signature':'mq1:dGhvdWdodA=='},{'type':"
             "'text','text':'a'},{'type':'tool_use','id':'i','name':'f','input':{'b':1}}]},{'role':'user','content':[{"
             "'type':'tool_result','tool_use_id':'i','is_error':true,'content':[{'type':'text','text':'x'},{'type':"
             "'image'}]},{'type':'text','text':'t'}]}]}");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, apis_setup, apis_teardown)
    const struct CMUnitTest tests[] = {
        TEST(system_texts),        TEST(volatile_lines),      TEST(system_amid_messages), TEST(user_blocks),
        TEST(results_of_tools),    TEST(assistant_blocks),    TEST(answer_that_goes_on),  TEST(warnings),
        TEST(tools_are_functions), TEST(strict_tools),        TEST(images_of_the_past),   TEST(choices_of_tools),
        TEST(thinking_and_effort), TEST(sampling_and_limits), TEST(form_of_the_answer),   TEST(side_requests),
        TEST(refused_bodies),      TEST(short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
