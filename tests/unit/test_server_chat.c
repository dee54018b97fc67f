/* POST /v1/chat/completions from body to last byte, against a script. */
#include "server_chunks.h"
#include "server_masks.h"

#define ASK(members) "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]" members "}"
#define TOOLS                                                                                                          \
    ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\"}}},"          \
    "{\"type\":\"function\",\"function\":{\"name\":\"g\"}}]"
#define CALL_F                                                                                                         \
    "<tool_call>\\n{\\\"name\\\": \\\"f\\\", \\\"arguments\\\": {\\\"a\\\": [1, \\\"x y\\\"]}}\\n</tool_call>"
#define CALL_G     "<tool_call>\\n{\\\"name\\\": \\\"g\\\", \\\"arguments\\\": {}}\\n</tool_call>"
#define SAYS(text) "[{\"answer\":\"" text "\"}]"

static mq_exchange *chat(mq_server *server, const char *body)
{
    return fixture_ask(server, mq__api_chat, "/v1/chat/completions", body, NULL);
}

/* One request on a server of its own: JSON of the answer. */
static json_t *whole(const char *script, const char *template_file, const char *body, unsigned status)
{
    mq_server *server = fixture_server(script, template_file);
    mq_exchange *x = chat(server, body);
    if (x->status != status) fail_msg("%s: status %u: %s", body, x->status, x->sent.data);
    json_t *answer = fixture_json(x);
    fixture_free(x);
    fixture_close(server);
    return answer;
}

/* ---- plain answers */

static void test_whole(void **state)
{
    (void)state;
    json_t *a = whole(SAYS("Hello \\u00e9."), NULL, ASK(""), 200);
    assert_string_equal(text_at_path(a, "object"), "chat.completion");
    assert_string_equal(text_at_path(a, "id"), "chatcmpl-request0123456789abcdefg");
    assert_string_equal(text_at_path(a, "model"), "mixquant-agent");
    assert_true(integer_at_path(a, "created") > 1700000000);
    assert_int_equal(json_array_size(at_path(a, "choices")), 1);
    assert_int_equal(integer_at_path(a, "choices.0.index"), 0);
    assert_string_equal(text_at_path(a, "choices.0.message.role"), "assistant");
    assert_string_equal(text_at_path(a, "choices.0.message.content"), "Hello \xc3\xa9.");
    assert_true(json_is_null(at_path(a, "choices.0.message.refusal")));
    assert_null(at_path(a, "choices.0.message.tool_calls"));
    assert_null(at_path(a, "choices.0.message.reasoning_content"));
    assert_string_equal(text_at_path(a, "choices.0.finish_reason"), "stop");
    assert_true(json_is_null(at_path(a, "choices.0.logprobs")));
    const long long prompt = integer_at_path(a, "usage.prompt_tokens"),
                    said = integer_at_path(a, "usage.completion_tokens");
    assert_true(prompt > 3 && said > 1);
    assert_int_equal(integer_at_path(a, "usage.total_tokens"), prompt + said);
    assert_int_equal(integer_at_path(a, "usage.prompt_tokens_details.cached_tokens"), 0);
    assert_int_equal(integer_at_path(a, "usage.completion_tokens_details.reasoning_tokens"), 0);
    assert_int_equal(integer_at_path(a, "timings.cache_n"), 0);
    assert_int_equal(integer_at_path(a, "timings.prompt_n"), prompt);
    assert_int_equal(integer_at_path(a, "timings.predicted_n"), said);
    static const char *const times[] = {
        "timings.prompt_ms",    "timings.prompt_per_token_ms",    "timings.prompt_per_second",
        "timings.predicted_ms", "timings.predicted_per_token_ms", "timings.predicted_per_second"};
    for (size_t i = 0; i < 6; i++) {
        assert_true(json_number_value(at_path(a, times[i])) > 0);
    }
    assert_string_equal(text_at_path(a, "timings.plan.prefill"), "nvfp4");
    assert_string_equal(text_at_path(a, "plan.decode"), "bf16");
    assert_null(at_path(a, "timings.cache_miss"));
    json_decref(a);
}

static void test_stream(void **state)
{
    mq_server *server = fixture_server(SAYS("Hello there, how are you?"), NULL);
    (void)state;
    for (int usage = 0; usage < 2; usage++) {
        mq_exchange *x = chat(server, usage ? ASK(",\"stream\":true,\"stream_options\":{\"include_usage\":true}")
                                            : ASK(",\"stream\":true"));
        assert_int_equal(x->status, 200);
        fixture_events events = fixture_parse(x);
        collected c = collect(&events, 0);
        assert_string_equal(text_of(&c.text), "Hello there, how are you?");
        assert_string_equal(c.finish, "stop");
        assert_true(c.chunks > 3);
        assert_true((c.usage != NULL) == usage);
        assert_true(json_is_null(at_path(events.at[0].data, "usage")) == usage);
        assert_string_equal(text_at_path(c.last, "plan.prefill"), "nvfp4");
        assert_true(integer_at_path(c.last, "timings.predicted_n") > 3);
        if (usage) assert_true(integer_at_path(c.usage, "prompt_tokens") > 3);
        forget(&c);
        fixture_events_free(&events);
        fixture_free(x);
    }
    fixture_close(server);
}

/* ---- tools */

static void test_calls_whole(void **state)
{
    (void)state;
    json_t *a = whole(SAYS("Now." CALL_F CALL_G), NULL, ASK(TOOLS), 200);
    assert_string_equal(text_at_path(a, "choices.0.finish_reason"), "tool_calls");
    assert_string_equal(text_at_path(a, "choices.0.message.content"), "Now.");
    assert_int_equal(json_array_size(at_path(a, "choices.0.message.tool_calls")), 2);
    assert_string_equal(text_at_path(a, "choices.0.message.tool_calls.0.function.name"), "f");
    assert_string_equal(text_at_path(a, "choices.0.message.tool_calls.0.function.arguments"), "{\"a\": [1, \"x y\"]}");
    assert_string_equal(text_at_path(a, "choices.0.message.tool_calls.1.function.arguments"), "{}");
    assert_string_equal(text_at_path(a, "choices.0.message.tool_calls.1.type"), "function");
    assert_string_not_equal(text_at_path(a, "choices.0.message.tool_calls.0.id"),
                            text_at_path(a, "choices.0.message.tool_calls.1.id"));
    json_decref(a);
    a = whole(SAYS(CALL_G), NULL, ASK(TOOLS), 200);
    assert_true(json_is_null(at_path(a, "choices.0.message.content")));
    json_decref(a);
    /* Nobody may call: it is text. So is a call of a tool that is not there. */
    a = whole(SAYS(CALL_F), NULL, ASK(TOOLS ",\"tool_choice\":\"none\""), 200);
    assert_string_equal(text_at_path(a, "choices.0.finish_reason"), "stop");
    assert_non_null(strstr(text_at_path(a, "choices.0.message.content"), "<tool_call>"));
    json_decref(a);
    a = whole(SAYS(CALL_F), NULL, ASK(""), 200);
    assert_string_equal(text_at_path(a, "choices.0.finish_reason"), "stop");
    json_decref(a);
}

static void test_calls_stream(void **state)
{
    mq_server *server = fixture_server(SAYS("Now." CALL_F CALL_G), NULL);
    (void)state;
    mq_exchange *x = chat(server, ASK(TOOLS ",\"stream\":true"));
    fixture_events events = fixture_parse(x);
    collected c = collect(&events, 0);
    assert_string_equal(text_of(&c.text), "Now.");
    assert_int_equal(c.calls, 2);
    assert_string_equal(c.names[0], "f");
    assert_string_equal(c.names[1], "g");
    assert_string_equal(text_of(&c.arguments[0]), "{\"a\": [1, \"x y\"]}");
    assert_string_equal(text_of(&c.arguments[1]), "{}");
    assert_string_equal(c.finish, "tool_calls");
    assert_int_equal(masks.made, masks.freed);
    forget(&c);
    fixture_events_free(&events);
    fixture_free(x);
    fixture_close(server);
}

/* A limit that cuts what follows a call: the call stands, but the answer is not all. */
static void test_cut_after_call(void **state)
{
    mq_server *server = fixture_server(SAYS(CALL_F "There is more to say, much more."), NULL);
    (void)state;
    mq_exchange *all = chat(server, ASK(TOOLS)), *some;
    json_t *a = fixture_json(all);
    char body[500];
    snprintf(body, sizeof body, ASK(TOOLS ",\"max_tokens\":%lld"), integer_at_path(a, "usage.completion_tokens") - 3);
    assert_string_equal(text_at_path(a, "choices.0.finish_reason"), "tool_calls");
    json_decref(a);
    some = chat(server, body);
    a = fixture_json(some);
    assert_string_equal(text_at_path(a, "choices.0.finish_reason"), "length");
    assert_string_equal(text_at_path(a, "choices.0.message.tool_calls.0.function.name"), "f");
    assert_non_null(strstr(text_at_path(a, "choices.0.message.content"), "There is"));
    json_decref(a);
    fixture_free(all);
    fixture_free(some);
    fixture_close(server);
}

/* Cut by a limit: inside a call it is no call, after one it is. */
static void test_cut_calls(void **state)
{
    mq_server *server = fixture_server(SAYS(CALL_F), NULL);
    (void)state;
    bool cut = false, whole_call = false;
    for (int most = 1; most < 60 && !whole_call; most++) {
        char body[500];
        snprintf(body, sizeof body, ASK(TOOLS ",\"max_tokens\":%d"), most);
        mq_exchange *x = chat(server, body);
        json_t *a = fixture_json(x);
        const char *finish = text_at_path(a, "choices.0.finish_reason");
        if (strcmp(finish, "length") == 0) {
            cut = true;
            assert_int_equal(integer_at_path(a, "usage.completion_tokens"), most);
        } else {
            assert_string_equal(finish, "tool_calls");
            assert_string_equal(text_at_path(a, "choices.0.message.tool_calls.0.function.arguments"),
                                "{\"a\": [1, \"x y\"]}");
            whole_call = true;
        }
        json_decref(a);
        fixture_free(x);
    }
    assert_true(cut && whole_call);
    fixture_close(server);
}

/* ---- reasoning */

#define THINKING "tests/unit/templates/thinking.jinja"

static void test_reasoning_split(void **state)
{
    static const char script[] = SAYS("<think>\\nHm, a greeting.\\n</think>\\n\\nHello.");
    mq_server *server = fixture_server(script, THINKING);
    (void)state;
    assert_string_equal(server->model.style.think, "<think>");
    mq_exchange *x = chat(server, ASK(",\"stream\":true,\"stream_options\":{\"include_usage\":true}"));
    fixture_events events = fixture_parse(x);
    collected c = collect(&events, 0);
    assert_string_equal(text_of(&c.text), "Hello.");
    assert_string_equal(text_of(&c.reasoning), "Hm, a greeting.");
    const long long reasoning = integer_at_path(c.usage, "completion_tokens_details.reasoning_tokens");
    assert_true(reasoning > 4 && reasoning < integer_at_path(c.usage, "completion_tokens"));
    forget(&c);
    fixture_events_free(&events);
    fixture_free(x);
    fixture_close(server);

    json_t *a = whole(script, THINKING, ASK(""), 200);
    assert_string_equal(text_at_path(a, "choices.0.message.content"), "Hello.");
    assert_string_equal(text_at_path(a, "choices.0.message.reasoning_content"), "Hm, a greeting.");
    json_decref(a);
    a = whole(script, THINKING, ASK(",\"include_reasoning\":false"), 200);
    assert_string_equal(text_at_path(a, "choices.0.message.content"), "Hello.");
    assert_null(at_path(a, "choices.0.message.reasoning_content"));
    assert_int_equal(integer_at_path(a, "usage.completion_tokens_details.reasoning_tokens"), reasoning);
    json_decref(a);
    a = whole(script, THINKING, ASK(",\"reasoning_format\":\"none\""), 200);
    assert_string_equal(text_at_path(a, "choices.0.message.content"), "<think>\nHm, a greeting.\n</think>\n\nHello.");
    json_decref(a);
}

/* ---- prompts */

static void expect_prompt(const char *template_file, const char *body, const char *expected)
{
    mq_server *server = fixture_server(SAYS("x"), template_file);
    mq_exchange *x = chat(server, body);
    if (x->status != 200) fail_msg("%s: %s", body, x->sent.data);
    char *prompt = script_last_prompt(server->script);
    assert_string_equal(prompt, expected);
    mq_free(prompt);
    fixture_free(x);
    fixture_close(server);
}

#define TURN(role, text) "<|im_start|>" role "\n" text "<|im_end|>\n"
#define MESSAGES(list)   "{\"messages\":[" list "]}"
#define OPEN             "<|im_start|>assistant\n"

static void test_prompts(void **state)
{
    (void)state;
    expect_prompt(NULL, ASK(""), TURN("user", "hi") OPEN);
    expect_prompt(THINKING, ASK(""), TURN("user", "hi") OPEN);
    expect_prompt(THINKING, ASK(",\"enable_thinking\":false"), TURN("user", "hi") OPEN "<think>\n\n</think>\n\n");
    expect_prompt(THINKING, ASK(",\"reasoning_effort\":\"none\""), TURN("user", "hi") OPEN "<think>\n\n</think>\n\n");
    /* An answer goes on where the client began it. */
    expect_prompt(NULL, MESSAGES("{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}"),
                  TURN("user", "a") OPEN "b");
    expect_prompt(THINKING,
                  MESSAGES("{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\","
                           "\"reasoning_content\":\"r\"}"),
                  TURN("user", "a") OPEN "<think>\nr\n</think>\n\nb");
    expect_prompt(THINKING,
                  MESSAGES("{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"\","
                           "\"reasoning_content\":\"r\"}"),
                  TURN("user", "a") OPEN "<think>\nr");
    /* What a template refuses is said otherwise. */
    expect_prompt(
        "tests/unit/templates/strict.jinja",
        MESSAGES(
            "{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\","
            "\"content\":\"b\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\": tr\"}}]},"
            "{\"role\":\"system\",\"content\":\"t\"},{\"role\":\"user\",\"content\":\"c\"}"),
        TURN("user", "s\n\na") TURN("assistant", "b[arguments={\"x\": tr]")
            TURN("user", "<system-reminder>\nt\n</system-reminder>\n\nc") OPEN);
}

/* What cannot be said otherwise: a template that wants a turn of the user's first. */
static void test_template_refuses(void **state)
{
    (void)state;
    expect_prompt("tests/unit/templates/strict.jinja",
                  MESSAGES("{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"user\",\"content\":\"b\"}"),
                  TURN("user", "a\n\nb") OPEN);
    json_t *a =
        whole(SAYS("x"), "tests/unit/templates/two_roles.jinja",
              MESSAGES("{\"role\":\"assistant\",\"content\":\"a\"},{\"role\":\"user\",\"content\":\"b\"}"), 400);
    assert_string_equal(text_at_path(a, "error.type"), "invalid_request_error");
    assert_non_null(strstr(text_at_path(a, "error.message"), "must alternate"));
    json_decref(a);
}

/* ---- limits of an answer */

static void test_limits(void **state)
{
    (void)state;
    json_t *a = whole(SAYS("one two three END four"), NULL, ASK(",\"stop\":[\"END\",\"never\"]"), 200);
    assert_string_equal(text_at_path(a, "choices.0.message.content"), "one two three ");
    assert_string_equal(text_at_path(a, "choices.0.finish_reason"), "stop");
    json_decref(a);
    a = whole(SAYS("one two three four five six"), NULL, ASK(",\"max_tokens\":3"), 200);
    assert_string_equal(text_at_path(a, "choices.0.finish_reason"), "length");
    assert_int_equal(integer_at_path(a, "usage.completion_tokens"), 3);
    json_decref(a);
}

static void test_clamp(void **state)
{
    mq_server *server = fixture_server(SAYS("x"), NULL);
    (void)state;
    mq_exchange *x = chat(server, ASK(",\"max_tokens\":32000"));
    json_t *a = fixture_json(x);
    const mq_request request = script_last_request(server->script);
    assert_int_equal(request.count, integer_at_path(a, "usage.prompt_tokens"));
    assert_int_equal(request.options.max_tokens, 4096 - request.count);
    json_decref(a);
    fixture_free(x);
    server->limits.max_tokens = 10;
    fixture_free(chat(server, ASK("")));
    assert_int_equal(script_last_request(server->script).options.max_tokens, 10);
    fixture_close(server);
}

static void test_overflow(void **state)
{
    mq_server *server = fixture_server(SAYS("x"), NULL);
    (void)state;
    char *body = malloc(40000);
    assert_non_null(body);
    unsigned last = 200;
    for (size_t words = 4060; words < 4110; words++) { /* across the edge */
        size_t n = (size_t)sprintf(body, "{\"messages\":[{\"role\":\"user\",\"content\":\"");
        for (size_t i = 0; i < words; i++) {
            memcpy(body + n, " 7", 2);
            n += 2;
        }
        memcpy(body + n, "\"}]}", 5);
        mq_exchange *x = chat(server, body);
        assert_true(x->status == 200 || x->status == 400);
        if (last == 400) assert_int_equal(x->status, 400);
        last = x->status;
        json_t *a = fixture_json(x);
        if (last == 400) {
            unsigned tokens = 0, most = 0;
            const char *message = text_at_path(a, "error.message");
            assert_string_equal(text_at_path(a, "error.code"), "context_length_exceeded");
            assert_string_equal(text_at_path(a, "error.type"), "invalid_request_error");
            assert_int_equal(sscanf(message, "prompt is too long: %u tokens > %u maximum", &tokens, &most), 2);
            assert_true(tokens > most && most == 4095);
            assert_non_null(strstr(message, "maximum context length"));
            assert_string_equal(fixture_answer_header(x, "x-should-retry"), "false");
        } else {
            assert_true(integer_at_path(a, "usage.prompt_tokens") <= 4095);
        }
        json_decref(a);
        fixture_free(x);
    }
    assert_int_equal(last, 400);
    free(body);
    fixture_close(server);
}

/* ---- several answers, log probabilities */

static void test_several(void **state)
{
    static const char script[] = "{\"token_s\":0.002,\"answers\":[{\"times\":1,\"answer\":\"one\"},"
                                 "{\"times\":1,\"answer\":\"two words\"},{\"answer\":\"and three more\"}]}";
    (void)state;
    json_t *a = whole(script, NULL, ASK(",\"n\":3,\"seed\":5"), 200);
    assert_int_equal(json_array_size(at_path(a, "choices")), 3);
    assert_string_equal(text_at_path(a, "choices.0.message.content"), "one");
    assert_string_equal(text_at_path(a, "choices.1.message.content"), "two words");
    assert_string_equal(text_at_path(a, "choices.2.message.content"), "and three more");
    assert_int_equal(integer_at_path(a, "choices.2.index"), 2);
    assert_int_equal(integer_at_path(a, "usage.completion_tokens"), integer_at_path(a, "timings.predicted_n"));
    json_decref(a);

    mq_server *server = fixture_server(script, NULL);
    mq_exchange *x = chat(server, ASK(",\"n\":3,\"stream\":true,\"seed\":5"));
    fixture_events events = fixture_parse(x);
    static const char *const expected[] = {"one", "two words", "and three more"};
    for (int i = 0; i < 3; i++) {
        collected c = collect(&events, i);
        assert_string_equal(text_of(&c.text), expected[i]);
        assert_string_equal(c.finish, "stop");
        forget(&c);
    }
    assert_int_equal(script_last_request(server->script).options.sampling.seed, 7);
    fixture_events_free(&events);
    fixture_free(x);
    fixture_close(server);
}

static void test_random_seeds(void **state)
{
    mq_server *server = fixture_server(SAYS("x"), NULL);
    uint64_t seeds[4];
    (void)state;
    for (int i = 0; i < 4; i++) {
        fixture_free(chat(server, ASK("")));
        seeds[i] = script_last_request(server->script).options.sampling.seed;
    }
    assert_true(seeds[0] != seeds[1] && seeds[1] != seeds[2] && seeds[2] != seeds[3]);
    fixture_close(server);
}

static void test_logprobs(void **state)
{
    (void)state;
    json_t *a = whole(SAYS("Hello \\u00e9 there."), NULL, ASK(",\"logprobs\":true,\"top_logprobs\":2"), 200);
    json_t *list = at_path(a, "choices.0.logprobs.content"), *entry;
    mq_buf text = {0};
    size_t i, k;
    assert_int_equal(json_array_size(list), integer_at_path(a, "usage.completion_tokens"));
    json_array_foreach(list, i, entry)
    {
        json_t *bytes = at_path(entry, "bytes"), *byte;
        assert_true(json_is_string(at_path(entry, "token")));
        assert_true(json_real_value(at_path(entry, "logprob")) == -0.25);
        assert_int_equal(json_array_size(at_path(entry, "top_logprobs")), 2);
        assert_true(json_real_value(at_path(entry, "top_logprobs.1.logprob")) == -2.5);
        json_array_foreach(bytes, k, byte) mq__buf_putc(&text, (char)json_integer_value(byte));
    }
    assert_string_equal(text.data, "Hello \xc3\xa9 there.");
    mq__buf_free(&text);
    json_decref(a);

    mq_server *server = fixture_server(SAYS("Hello \\u00e9 there." CALL_G), NULL);
    mq_exchange *x = chat(server, ASK(TOOLS ",\"logprobs\":true,\"stream\":true"));
    fixture_events events = fixture_parse(x);
    collected c = collect(&events, 0);
    assert_int_equal(c.logprobs, integer_at_path(c.last, "timings.predicted_n"));
    forget(&c);
    fixture_events_free(&events);
    fixture_free(x);
    fixture_close(server);
}

/* ---- the prefix cache */

static void test_cached(void **state)
{
    mq_server *server = fixture_server(SAYS("x"), NULL);
    char body[3000], text[2400] = "";
    json_t *a[3];
    (void)state;
    for (int i = 0; i < 300; i++) {
        strcat(text, " word");
    }
    static const char *const ends[] = {"9", "apple", "pear"};
    for (int i = 0; i < 3; i++) {
        server->is_public = i == 2;
        snprintf(body, sizeof body, "{\"messages\":[{\"role\":\"user\",\"content\":\"%s %s\"}]}", text, ends[i]);
        mq_exchange *x = chat(server, body);
        a[i] = fixture_json(x);
        fixture_free(x);
    }
    const long long cached = integer_at_path(a[1], "usage.prompt_tokens_details.cached_tokens");
    assert_true(cached > 0 && cached % 64 == 0);
    assert_int_equal(integer_at_path(a[1], "timings.cache_n"), cached);
    assert_int_equal(integer_at_path(a[1], "timings.prompt_n"), integer_at_path(a[1], "usage.prompt_tokens") - cached);
    assert_true(integer_at_path(a[1], "timings.cache_miss.position") >= cached);
    assert_string_equal(text_at_path(a[1], "timings.cache_miss.cached_text"), "9");
    const char *told = text_at_path(a[1], "timings.cache_miss.explanation");
    assert_non_null(strstr(told, "the cache has \"9\", the prompt \""));
    assert_non_null(strstr(server->log.data, told));
    assert_null(strstr(server->log.data, "word word"));
    /* Where others come without a key, nobody is told what they asked. */
    assert_non_null(at_path(a[2], "timings.cache_miss.position"));
    assert_null(at_path(a[2], "timings.cache_miss.cached_text"));
    assert_non_null(
        strstr(text_at_path(a[2], "timings.cache_miss.explanation"), "the cache has other text, the prompt"));
    for (int i = 0; i < 3; i++) {
        json_decref(a[i]);
    }
    fixture_close(server);
}

/* ---- refusals */

static void expect_error(const char *script, const char *body, unsigned status, const char *type, const char *code)
{
    json_t *a = whole(script, NULL, body, status);
    assert_string_equal(text_at_path(a, "error.type"), type);
    if (code)
        assert_string_equal(text_at_path(a, "error.code"), code);
    else
        assert_true(json_is_null(at_path(a, "error.code")));
    assert_true(strlen(text_at_path(a, "error.message")) > 10);
    json_decref(a);
}

static void test_errors(void **state)
{
    (void)state;
    expect_error("[]", "{\"messages\":", 400, "invalid_request_error", NULL);
    expect_error("[]", "{}", 400, "invalid_request_error", NULL);
    expect_error("[]", ASK(",\"temperature\":-1"), 400, "invalid_request_error", NULL);
    expect_error("[]", ASK(",\"model\":5"), 400, "invalid_request_error", NULL);
    expect_error("{\"queue\":0}", ASK(""), 429, "rate_limit_error", "rate_limit_exceeded");
    expect_error("{\"queue\":0}", ASK(",\"stream\":true"), 429, "rate_limit_error", "rate_limit_exceeded");
    expect_error("[{\"error\":\"no_memory\"}]", ASK(""), 503, "server_error", "out_of_memory");
    expect_error("[{\"error\":\"io\"}]", ASK(""), 500, "server_error", "internal_error");
    expect_error("[{\"error\":\"format\"}]", ASK(""), 500, "server_error", "internal_error");
    expect_error("[{\"cancel\":true}]", ASK(""), 503, "server_error", "server_shutting_down");
    json_t *a = whole("[]", NULL, ASK(",\"temperature\":-1"), 400);
    assert_string_equal(text_at_path(a, "error.param"), "temperature");
    json_decref(a);
}

static void test_error_headers(void **state)
{
    mq_server *server = fixture_server("{\"queue\":0}", NULL);
    (void)state;
    mq_exchange *x = chat(server, ASK(""));
    assert_string_equal(fixture_answer_header(x, "retry-after"), "5");
    assert_null(fixture_answer_header(x, "x-should-retry"));
    fixture_free(x);
    script_drain(server->script);
    x = chat(server, ASK(""));
    assert_int_equal(x->status, 503);
    assert_string_equal(fixture_answer_header(x, "retry-after"), "10");
    fixture_free(x);
    fixture_close(server);
}

/* Once a stream has begun an error is an event. */
static void test_stream_error(void **state)
{
    static const char *const scripts[] = {"[{\"error\":\"io\"}]", "[{\"cancel\":true}]"};
    static const char *const codes[] = {"internal_error", "server_shutting_down"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        mq_server *server = fixture_server(scripts[i], NULL);
        mq_exchange *x = chat(server, ASK(",\"stream\":true"));
        assert_int_equal(x->status, 200);
        fixture_events events = fixture_parse(x);
        collected c = collect(&events, 0);
        assert_true(c.error);
        assert_string_equal(text_at_path(events.at[events.count - 2].data, "error.code"), codes[i]);
        forget(&c);
        fixture_events_free(&events);
        fixture_free(x);
        fixture_close(server);
    }
}

static void test_model_names(void **state)
{
    mq_server *server = fixture_server(SAYS("x"), NULL);
    (void)state;
    mq_exchange *x = chat(server, ASK(",\"model\":\"gpt-5\""));
    assert_int_equal(x->status, 200);
    fixture_free(x);
    server->options.strict_model = true;
    x = chat(server, ASK(",\"model\":\"gpt-5\""));
    assert_int_equal(x->status, 404);
    json_t *a = fixture_json(x);
    assert_string_equal(text_at_path(a, "error.code"), "model_not_found");
    json_decref(a);
    fixture_free(x);
    x = chat(server, ASK(",\"model\":\"mixquant-agent\""));
    assert_int_equal(x->status, 200);
    fixture_free(x);
    fixture_close(server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_calls_whole),
        cmocka_unit_test(test_calls_stream),
        cmocka_unit_test(test_cut_calls),
        cmocka_unit_test(test_cut_after_call),
        cmocka_unit_test(test_reasoning_split),
        cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_template_refuses),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_clamp),
        cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_several),
        cmocka_unit_test(test_random_seeds),
        cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_cached),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_error_headers),
        cmocka_unit_test(test_stream_error),
        cmocka_unit_test(test_model_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
