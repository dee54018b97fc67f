/* How many tokens of an answer are reasoning: those between its marks, wherever the answer begins and ends. */
#include "server_apis.h"

#define OPENS "tests/unit/templates/thinking_open.jinja" /* the prompt ends inside it */
#define TOOL  "'tools':[{'type':'function','function':{'name':'f','parameters':{'type':'object'}}}]"
#define CALL  "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>"
#define HI    "'messages':[{'role':'user','content':'hi'}]"

static uint32_t tokens_of(const char *text)
{
    int32_t *tokens;
    size_t count;
    assert_int_equal(
        mq_tokenize(apis_server->text, text, strlen(text), MQ_TOKENIZE_PARSE_SPECIAL, &tokens, &count, NULL), MQ_OK);
    mq_free(tokens);
    return (uint32_t)count;
}

/* The same in all APIs that tell it. */
static void expect_tokens(const char *answer, const char *template_file, const char *fields, uint32_t reasoning)
{
    char body[800];
    apis_answer(answer, template_file);
    snprintf(body, sizeof body, "{%s%s" HI "}", fields, fields[0] ? "," : "");
    json_t *whole = apis_whole(mq__api_chat, body, 200);
    const long long told = integer_at_path(whole, "usage.completion_tokens_details.reasoning_tokens");
    const long long all = integer_at_path(whole, "usage.completion_tokens");
    if (told != reasoning) fail_msg("%s %s: expected %u of %lld, got %lld", fields, answer, reasoning, all, told);
    json_decref(whole);
}

static void test_tokens(void **state)
{
    (void)state;
    apis_answer("", THINKS);
    const uint32_t thought = tokens_of("\nIt is four.\n");
    assert_true(thought > 3);
    /* The model opens it. */
    expect_tokens("<think>\nIt is four.\n</think>\n\n4", THINKS, "", thought);
    expect_tokens("<think>\nIt is four.\n</think>\n\n4", THINKS, "'include_reasoning':false", thought);
    expect_tokens("4", THINKS, "", 0);
    /* A call that is held back until its name is there is none of it. */
    expect_tokens("<think>\nIt is four.\n</think>\n\n" CALL, THINKS, TOOL, thought);
    /* It ends with the limit: the mark alone, some of it, all of it but the closing mark. */
    expect_tokens("<think>\nIt is four.\n</think>\n\n4", THINKS, "'max_tokens':1", 0);
    expect_tokens("<think>\nIt is four.\n</think>\n\n4", THINKS, "'max_tokens':4", 3);
    expect_tokens("<think>\nIt is four.", THINKS, "", tokens_of("\nIt is four."));
    /* It is empty. */
    expect_tokens("<think></think>\n\n4", THINKS, "", 0);
    expect_tokens("<think>\n\n</think>\n\n4", THINKS, "", tokens_of("\n\n"));
}

static void test_tokens_of_an_open_prompt(void **state)
{
    (void)state;
    apis_answer("", OPENS);
    const uint32_t thought = tokens_of("It is four.\n");
    expect_tokens("It is four.\n</think>\n\n4", OPENS, "", thought);
    expect_tokens("It is four.\n</think>\n\n" CALL, OPENS, TOOL, thought);
    expect_tokens("It is four.\n</think>\n\n4", OPENS, "'max_tokens':2", 2);
    expect_tokens("It is four.\n", OPENS, "", thought);
    expect_tokens("</think>\n\n4", OPENS, "", 0);
    expect_tokens("</think>\n\n" CALL, OPENS, TOOL, 0);
}

/* Responses and the sum over several answers. */
static void test_other_places(void **state)
{
    (void)state;
    apis_answer("<think>\nIt is four.\n</think>\n\n4", THINKS);
    const uint32_t thought = tokens_of("\nIt is four.\n");
    json_t *whole = apis_whole(mq__api_responses, "{'input':'hi','reasoning':{'effort':'high'}}", 200);
    assert_int_equal(integer_at_path(whole, "usage.output_tokens_details.reasoning_tokens"), thought);
    json_decref(whole);
    whole = apis_whole(mq__api_responses, "{'input':'hi','reasoning':{'effort':'high'},'max_output_tokens':2}", 200);
    assert_string_equal(text_at_path(whole, "status"), "incomplete");
    assert_int_equal(integer_at_path(whole, "usage.output_tokens_details.reasoning_tokens"), 1);
    json_decref(whole);
    whole = apis_whole(mq__api_chat, "{'n':3," HI "}", 200);
    assert_int_equal(integer_at_path(whole, "usage.completion_tokens_details.reasoning_tokens"), 3 * thought);
    json_decref(whole);
}

/* A count is of the prompt that would be sent: one that opens the reasoning where the answer is held to a form. */
static void test_counts(void **state)
{
    (void)state;
    static const char *const fields[] = {
        "'input':'hi'", "'input':'hi','reasoning':{'effort':'high'},'text':{'format':{'type':'json_schema',"
                        "'name':'n','schema':{'type':'object'}}}"};
    long long counted[2];
    apis_answer("<think>\nIt is four.\n</think>\n\n{}", THINKS);
    for (size_t i = 0; i < 2; i++) {
        char body[400];
        snprintf(body, sizeof body, "{%s}", fields[i]);
        json_t *count = apis_whole(mq__api_count_responses, body, 200),
               *whole = apis_whole(mq__api_responses, body, 200);
        counted[i] = integer_at_path(count, "input_tokens");
        assert_int_equal(counted[i], integer_at_path(whole, "usage.input_tokens"));
        json_decref(count);
        json_decref(whole);
    }
    assert_true(counted[1] > counted[0]);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, apis_setup, apis_teardown)
    const struct CMUnitTest tests[] = {TEST(test_tokens), TEST(test_tokens_of_an_open_prompt), TEST(test_other_places),
                                       TEST(test_counts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
