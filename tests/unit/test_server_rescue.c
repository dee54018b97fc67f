/* Conversations in the forms that chat templates take. */
#include "server_apis.h"

#include <ctype.h>
#include <unistd.h>

#define TEMPLATE(name) "tests/unit/templates/" name ".jinja"
#define ALL(messages)  "{'messages':[" messages "]}"
#define SCHEMA         "{'type':'object','properties':{'a':{'type':'integer'}}}"
#define TOOLS          "'tools':[{'type':'function','function':{'name':'f','description':'d','parameters':" SCHEMA "}}]"
#define SYS(t)         "{'role':'system','content':'" t "'}"
#define USER(t)        "{'role':'user','content':'" t "'}"
#define ASSIST(t)      "{'role':'assistant','content':'" t "'}"
#define CALL(id, a)    "{" id "'type':'function','function':{'name':'f','arguments':'{\\'a\\':" a "}'}}"
#define CALLS(t, list) "{'role':'assistant','content':" t ",'tool_calls':[" list "]}"
#define RESULT(id, t)  "{'role':'tool'," id "'content':'" t "'}"
#define ID(id)         "'id':'" id "',"
#define OF(id)         "'tool_call_id':'" id "',"

/* Owned: free with mq_free; NULL with a fault. */
static char *render(const mq_api *api, const char *body, mq_fault *fault)
{
    apis_ask a = apis_read(api, body);
    char *prompt = NULL;
    size_t bytes;
    if (!a.read) fail_msg("%s\nin %s", a.fault.message, body);
    memset(fault, 0, sizeof *fault);
    if (!mq__ask_render(apis_server, &a.ask, &prompt, &bytes, fault)) assert_null(prompt);
    apis_done(&a);
    return prompt;
}

static char *must_render(const mq_api *api, const char *body)
{
    mq_fault fault;
    char *prompt = render(api, body, &fault);
    if (!prompt) fail_msg("%s\nin %s", fault.message, body);
    return prompt;
}

static void expect(const char *body, const char *expected)
{
    char *prompt = must_render(&mq__chat_api, body);
    assert_string_equal(prompt, expected);
    mq_free(prompt);
}

static void expect_refusal(const char *body, const char *says)
{
    mq_fault fault;
    char *prompt = render(&mq__chat_api, body, &fault);
    if (prompt) fail_msg("not refused: %s: %s", body, prompt);
    assert_int_equal(fault.status, 400);
    assert_non_null(strstr(fault.message, says));
}

/* ---- ids */

/* The nine letters behind the mark's n-th occurrence. */
static void id_behind(const char *prompt, const char *mark, int n, char id[10])
{
    for (; prompt && n >= 0; n--) {
        prompt = strstr(prompt, mark);
        if (prompt) prompt += strlen(mark);
    }
    assert_non_null(prompt);
    snprintf(id, 10, "%s", prompt);
    for (size_t i = 0; i < 9; i++) {
        assert_true(isalnum((unsigned char)id[i]));
    }
}

/* The n-th call's id is that of result m. */
static void expect_pairs(const char *body, const int *results, int count)
{
    char *prompt = must_render(&mq__chat_api, body), call[10], result[10], other[10];
    for (int i = 0; i < count; i++) {
        id_behind(prompt, "[ID]", i, call);
        id_behind(prompt, "[RESULT]", results[i], result);
        assert_string_equal(call, result);
        for (int k = 0; k < i; k++) {
            id_behind(prompt, "[ID]", k, other);
            assert_string_not_equal(call, other);
        }
    }
    mq_free(prompt);
}

static void test_ids(void **state)
{
    (void)state;
    apis_script("[]", TEMPLATE("short_ids"));
    expect_pairs(
        ALL(USER("u") "," CALLS("null", CALL(ID("call_aaaaaaaaaa"), "1") "," CALL(ID("call_b"), "2")) "," RESULT(
            OF("call_b"), "y") "," RESULT(OF("call_aaaaaaaaaa"), "x")),
        (const int[]){1, 0}, 2);
    /* Without ids results answer calls in their order. */
    expect_pairs(ALL(USER("u") "," CALLS("null", CALL("", "1") "," CALL("", "2")) "," RESULT("", "x") "," RESULT(
                     "", "y") "," CALLS("null", CALL("", "3")) "," RESULT("", "z")),
                 (const int[]){0, 1, 2}, 3);
    expect_pairs(ALL(USER("u") "," CALLS("null", CALL(ID("call_1"), "1")) "," RESULT("", "x")), (const int[]){0}, 1);
    /* What is short stays. */
    expect(ALL(USER("u") "," CALLS("null", CALL(ID("abcdefghi"), "1")) "," RESULT(OF("abcdefghi"), "x")),
           "[INST]u[/INST][CALL]f[ID]abcdefghi[ARGS]{\"a\": 1}[RESULT]abcdefghi[OF]x[/RESULT]");
}

#define FIRST  SYS("s") "," USER("u")
#define SECOND FIRST "," CALLS("null", CALL(ID("call_1"), "1")) "," RESULT(OF("call_1"), "x")
#define THIRD  SECOND "," USER("remark") "," CALLS("null", CALL(ID("call_2"), "2")) "," RESULT(OF("call_2"), "y")

/* Ids, a system text and remarks beside results at once; and the prompt of a turn begins with that of the turn before. */
static void test_prefixes(void **state)
{
    static const char *const turns[] = {ALL(FIRST), ALL(SECOND), ALL(SECOND "," USER("remark")), ALL(THIRD)};
    static const size_t ends[] = {0, 0, 9, 0}; /* of the closing mark, behind which a remark is not */
    (void)state;
    apis_script("[]", TEMPLATE("short_ids"));
    char *before = must_render(&mq__chat_api, turns[0]);
    assert_string_equal(before, "[INST]s\n\nu[/INST]");
    for (size_t i = 1; i < 4; i++) {
        char *prompt = must_render(&mq__chat_api, turns[i]);
        assert_true(strlen(prompt) > strlen(before));
        assert_memory_equal(prompt, before, strlen(before) - ends[i]);
        mq_free(before);
        before = prompt;
    }
    assert_non_null(strstr(before, "[OF]x\n\nremark[/RESULT]"));
    mq_free(before);
}

/* ---- turns */

static void test_turns(void **state)
{
    (void)state;
    apis_script("[]", TEMPLATE("two_roles"));
    expect(ALL(SYS("s") "," USER("a") "," USER("b") "," ASSIST("c") "," ASSIST("d") "," USER("e")),
           "<user>s\n\na\n\nb</><assistant>c\n\nd</><user>e</><assistant>");
    expect(ALL(USER("a") "," USER("") "," USER("b")), "<user>a\n\nb</><assistant>");
    expect_refusal(ALL(ASSIST("a") "," USER("b")), "must alternate");
    expect(ALL(SYS("s") "," ASSIST("a") "," USER("b")), "<user>s</><assistant>a</><user>b</><assistant>");
    apis_script("[]", TEMPLATE("short_ids"));
    expect(ALL(USER("a") "," CALLS("null", CALL(ID("abcdefghi"), "1")) "," RESULT(OF("abcdefghi"), "x") "," USER(
               "b") "," USER("c") "," ASSIST("d") "," USER("e")),
           "[INST]a[/INST][CALL]f[ID]abcdefghi[ARGS]{\"a\": 1}[RESULT]abcdefghi[OF]x\n\nb\n\nc[/RESULT]d</s>"
           "[INST]e[/INST]");
    /* A template that takes them gets what came. */
    apis_script("[]", TEMPLATE("three_roles"));
    expect(ALL(USER("a") "," USER("b")), "<user>a</><user>b</><assistant>");
}

/* A long conversation of one role is joined in linear time. */
static void test_many_neighbours(void **state)
{
    const size_t count = 9999;
    char *body = malloc(count * 300 + 100), *at = body;
    (void)state;
    assert_non_null(body);
    at += sprintf(at, "{'messages':[");
    for (size_t i = 0; i < count; i++) {
        at += sprintf(at, "%s" USER("%0200zu"), i ? "," : "", i);
    }
    sprintf(at, "]}");
    apis_script("[]", TEMPLATE("two_roles"));
    char *prompt = must_render(&mq__chat_api, body);
    assert_int_equal(strlen(prompt), strlen("<user></><assistant>") + 202 * count - 2);
    mq_free(prompt);
    free(body);
}

/* ---- what is not known */

#define SAID(a) "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\":" a "}}\n</tool_call>"
#define GAVE(t) "<tool_response>\n" t "\n</tool_response>"

static void test_unknown_tools(void **state)
{
    static const char body[] = ALL(USER("u") "," CALLS("'say'", CALL(ID("1"), "1") "," CALL(ID("2"), "2")) "," RESULT(
        OF("1"), "x") "," RESULT(OF("2"), "y") "," ASSIST("z") "," USER("v"));
    (void)state;
    apis_script("[]", TEMPLATE("three_roles"));
    expect(body, "<user>u</><assistant>say\n" SAID("1") "\n" SAID("2") "</><user>" GAVE("x") "</><user>" GAVE(
                     "y") "</><assistant>z</><user>v</><assistant>");
    apis_script("[]", TEMPLATE("two_roles"));
    expect(body, "<user>u</><assistant>say\n" SAID("1") "\n" SAID("2") "</><user>" GAVE("x") "\n\n" GAVE(
                     "y") "</><assistant>z</><user>v</><assistant>");
}

static void expect_warning(const char *template_file, const char *body, const char *says)
{
    apis_script("[]", template_file);
    json_t *value = apis_json(body);
    char *text = json_dumps(value, 0);
    mq_exchange *x = fixture_ask(apis_server, mq__api_chat, "/v1/chat/completions", text, NULL);
    assert_int_equal(x->status, 200);
    const char *warning = fixture_answer_header(x, "warning");
    if (says) assert_non_null(warning);
    if (says) assert_non_null(strstr(warning, says));
    if (!says) assert_null(warning);
    assert_true((strstr(apis_server->log.data, "left out: tools") != NULL) == (says != NULL));
    fixture_free(x);
    free(text);
    json_decref(value);
}

static void test_hidden_tools(void **state)
{
    static const char body[] = "{'messages':[" USER("u") "]," TOOLS "}";
    (void)state;
    expect_warning(TEMPLATE("two_roles"), body, "left out: tools: the chat template does not show them");
    expect_warning(TEMPLATE("three_roles"), body, "left out: tools");
    expect_warning(TEMPLATE("three_roles"), ALL(USER("u")), NULL);
    expect_warning(TEMPLATE("short_ids"), body, NULL);
    expect_warning(TEMPLATE("one_call"), body, NULL);
    expect_warning(NULL, body, NULL);
}

static void test_lone_system(void **state)
{
    (void)state;
    apis_script("[]", TEMPLATE("two_roles"));
    expect(ALL(SYS("s")), "<user>s</><assistant>");
    apis_script("[]", TEMPLATE("short_ids"));
    expect(ALL(SYS("s")), "[INST]s[/INST]");
    expect(ALL(SYS("s") "," ASSIST("a")), "[INST]s[/INST]a"); /* the answer goes on */
    apis_script("[]", TEMPLATE("three_roles"));
    expect(ALL(SYS("s")), "<system>s</><assistant>");
}

/* ---- parallel calls */

static void test_parallel_calls(void **state)
{
    (void)state;
    apis_script("[]", TEMPLATE("one_call"));
    expect(ALL(USER("u") "," CALLS("'say'", CALL(ID("1"), "1") "," CALL(ID("2"), "2")) "," RESULT(
               OF("2"), "y") "," RESULT(OF("3"), "z") "," RESULT(OF("1"), "x") "," USER("v")),
           "<user>u</><call>sayf{\"a\": 1}</><tool>x</><call>f{\"a\": 2}</><tool>y</><tool>z</><user>v</><assistant>");
    expect(ALL(USER("u") "," CALLS("null", CALL("", "1") "," CALL("", "2")) "," RESULT("", "x") "," RESULT("", "y")),
           "<user>u</><call>f{\"a\": 1}</><tool>x</><call>f{\"a\": 2}</><tool>y</><assistant>");
    /* Results that did not come. */
    expect(ALL(USER("u") "," CALLS("null", CALL(ID("1"), "1") "," CALL(ID("2"), "2")) "," RESULT(OF("2"), "y")),
           "<user>u</><call>f{\"a\": 1}</><call>f{\"a\": 2}</><tool>y</><assistant>");
}

/* ---- what no probe meets */

/* A template that refuses only some conversations: all forms at once. */
static void test_refusals_by_chance(void **state)
{
    (void)state;
    apis_script("[]", TEMPLATE("two_roles"));
    apis_server->model.needs = (mq_template_needs){.rescues = {0}};
    expect(ALL(SYS("s") "," USER("a") "," USER("b") "," CALLS("null", CALL(ID("1"), "1")) "," RESULT(OF("1"), "x")),
           "<user>s\n\na\n\nb</><assistant>" SAID("1") "</><user>" GAVE("x") "</><assistant>");
    expect_refusal(ALL(ASSIST("a") "," USER("b")), "must alternate");
}

static void test_rescue_memory(void **state)
{
    static const char body[] = ALL(SYS("s") "," USER("a") "," USER("b") "," CALLS(
        "null", CALL(ID("1"), "1") "," CALL("", "2")) "," RESULT(OF("1"), "x") "," RESULT("", "y") "," USER("c"));
    (void)state;
    apis_ask a = apis_read(&mq__chat_api, body);
    char *whole = json_dumps(a.ask.messages, JSON_SORT_KEYS);
    for (unsigned which = 1; which <= 1u << 10; which <<= 1) {
        bool hit = true;
        for (unsigned long n = 1; hit; n++) {
            (void)mq__alloc_fail_at(n);
            json_t *said = mq__rescue(a.ask.messages, which == 1u << 10 ? MQ_ALL_RESCUES : which);
            hit = mq__alloc_fail_at(0) >= n;
            assert_true((said == NULL) == hit);
            json_decref(said);
        }
    }
    char *after = json_dumps(a.ask.messages, JSON_SORT_KEYS);
    assert_string_equal(after, whole);
    free(after);
    free(whole);
    apis_done(&a);
}

/* ---- published templates */

/* Two calls at once and their results, a remark beside them, and the next turn, in each API. Marks: M, and a digit. */
static const struct {
    const mq_api *api;
    const char *body;
} sessions[] = {
    {&mq__chat_api,
     "{'messages':[" SYS("M0") "," USER("M1") "," CALLS(
         "null",
         CALL(ID("call_1"), "12345") "," CALL(
             ID("call_2"),
             "54321")) "," RESULT(OF("call_1"),
                                  "M2") "," RESULT(OF("call_2"),
                                                   "M3") "," USER("M4") "," ASSIST("M5") "," USER("M6") "," USER("M7") "]," TOOLS
                                                                                                                       "}"},
    {&mq__messages_api,
     "{'max_tokens':5,'system':'M0','tools':[{'name':'f','description':'d','input_schema':" SCHEMA
     "}],'messages':[" USER(
         "M1") ",{'role':'assistant','content':[{'type':'tool_use','id':'toolu_1','name':'f','input':{'a':12345}},"
               "{'type':'tool_use','id':'toolu_2','name':'f','input':{'a':54321}}]},"
               "{'role':'user','content':[{'type':'tool_result','tool_use_id':'toolu_1','content':'M2'},"
               "{'type':'tool_result','tool_use_id':'toolu_2','content':'M3'},"
               "{'type':'text','text':'M4'}]}," ASSIST("M5") "," USER("M6") "," USER("M7") "]}"},
    {&mq__responses_api,
     "{'instructions':'M0','tools':[{'type':'function','name':'f','description':'d','parameters':" SCHEMA
     "}],'input':[" USER("M1") ",{'type':'function_call','call_id':'call_1','name':'f','arguments':'{\\'a\\':12345}'},"
                               "{'type':'function_call','call_id':'call_2','name':'f','arguments':'{\\'a\\':54321}'},"
                               "{'type':'function_call_output','call_id':'call_1','output':'M2'},"
                               "{'type':'function_call_output','call_id':'call_2','output':'M3'}," USER(
                                   "M4") "," ASSIST("M5") "," USER("M6") "," USER("M7") "]}"},
};

static void expect_session(const char *file)
{
    static const char *const marks[] = {"M0", "M1", "M2", "M3", "M4", "M5", "M6", "M7", "12345", "54321"};
    char dir[1024];
    const char *root = getenv("MQ_SOURCE_DIR");
    mq_error error = {0};
    mq_text *bundled = apis_server->text, *text;
    snprintf(dir, sizeof dir, "%s/models/mixquant-agent", root ? root : ".");
    if (mq_text_open(dir, file, &text, &error) != MQ_OK) fail_msg("%s: %s", file, error.text);
    apis_server->model.text = text;
    apis_server->model.needs = mq__template_needs(text);
    for (size_t i = 0; i < sizeof sessions / sizeof sessions[0]; i++) {
        char *prompt = must_render(sessions[i].api, sessions[i].body);
        for (size_t k = 0; k < sizeof marks / sizeof marks[0]; k++) {
            if (!strstr(prompt, marks[k])) fail_msg("%s: %s is missing in %s", file, marks[k], prompt);
        }
        mq_free(prompt);
    }
    apis_server->model.text = bundled;
    mq_text_close(text);
}

static void test_published(void **state)
{
    static const char *const files[] = {"GLM-4.6",
                                        "HuggingFaceTB-SmolLM3-3B",
                                        "Mistral-Small-3.2-24B-Instruct-2506",
                                        "NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
                                        "Qwen-Qwen2.5-7B-Instruct",
                                        "Qwen3-Coder",
                                        "Qwen3.5-4B",
                                        "Qwen3",
                                        "deepseek-ai-DeepSeek-V3.1",
                                        "gemma-3",
                                        "google-gemma-2-2b-it",
                                        "google-gemma-4-31B-it",
                                        "ibm-granite-granite-3.3-2B-Instruct",
                                        "meta-llama-Llama-3.1-8B-Instruct",
                                        "microsoft-Phi-3.5-mini-instruct",
                                        "mistralai-Mistral-Nemo-Instruct-2407",
                                        "openai-gpt-oss-120b"};
    const char *shared = getenv("MQ_SHARED");
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/data/chat_templates/%s.jinja", shared ? shared : "", files[i]);
        if (!shared || access(path, R_OK) != 0) skip();
        expect_session(path);
    }
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, apis_setup, apis_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_ids),
        TEST(test_prefixes),
        TEST(test_turns),
        TEST(test_many_neighbours),
        TEST(test_unknown_tools),
        TEST(test_hidden_tools),
        TEST(test_lone_system),
        TEST(test_parallel_calls),
        TEST(test_refusals_by_chance),
        TEST(test_rescue_memory),
        TEST(test_published),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
