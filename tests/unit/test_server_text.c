/* Completions, tokenize, detokenize, apply-template, models, metrics. */
#include "server_fixture.h"
#include "server_masks.h"

static mq_exchange *post(mq_server *server, mq_handler *handler, const char *body)
{
    return fixture_ask(server, handler, "/", body, NULL);
}

static json_t *reply(mq_server *server, mq_handler *handler, const char *body, unsigned status)
{
    mq_exchange *x = post(server, handler, body);
    if (x->status != status) fail_msg("%s: status %u: %s", body, x->status, x->sent.data);
    assert_string_equal(x->type, "application/json");
    json_t *answer = fixture_json(x);
    fixture_free(x);
    return answer;
}

static void refuses(mq_server *server, mq_handler *handler, const char *body, const char *param)
{
    json_t *a = reply(server, handler, body, 400);
    const json_t *given = at_path(a, "error.param");
    const char *own = json_is_null(given) ? "" : json_string_value(given);
    if (strcmp(own, param) != 0) fail_msg("%s: param %s: %s", body, own, text_at_path(a, "error.message"));
    json_decref(a);
}

/* ---- completions */

static void test_completion(void **state)
{
    mq_server *server = fixture_server("[{\"answer\":\" a time STOP there\"}]", NULL);
    (void)state;
    json_t *a = reply(server, mq__api_completions, "{\"prompt\":\"Once\",\"stop\":\"STOP\",\"max_tokens\":50}", 200);
    assert_string_equal(text_at_path(a, "object"), "text_completion");
    assert_int_equal(strncmp(text_at_path(a, "id"), "cmpl-", 5), 0);
    assert_string_equal(text_at_path(a, "choices.0.text"), " a time ");
    assert_string_equal(text_at_path(a, "choices.0.finish_reason"), "stop");
    assert_true(json_is_null(at_path(a, "choices.0.logprobs")));
    assert_string_equal(text_at_path(a, "plan.prefill"), "nvfp4");
    assert_true(integer_at_path(a, "usage.prompt_tokens") >= 1);
    json_decref(a);
    char *prompt = script_last_prompt(server->script);
    assert_string_equal(prompt, "Once");
    mq_free(prompt);
    a = reply(server, mq__api_completions,
              "{\"prompt\":[\"Once\"],\"echo\":true,\"max_tokens\":2,\"n\":2,\"best_of\":5}", 200);
    assert_int_equal(strncmp(text_at_path(a, "choices.1.text"), "Once a", 6), 0);
    assert_string_equal(text_at_path(a, "choices.1.finish_reason"), "length");
    json_decref(a);
    fixture_free(post(server, mq__api_completions, "{\"prompt\":\"x\"}"));
    assert_int_equal(script_last_request(server->script).options.max_tokens, 16); /* as OpenAI */
    fixture_free(post(server, mq__api_completions, "{\"prompt\":\"x\",\"max_tokens\":-1}"));
    assert_int_equal(script_last_request(server->script).options.max_tokens,
                     4096 - script_last_request(server->script).count);
    fixture_free(post(server, mq__api_completions, "{\"prompt\":\"x\",\"max_tokens\":9223372036854775807}"));
    assert_int_equal(script_last_request(server->script).options.max_tokens,
                     4096 - script_last_request(server->script).count);
    fixture_close(server);
}

static void test_completion_ids(void **state)
{
    mq_server *server = fixture_server("[{\"answer\":\"x\"}]", NULL);
    (void)state;
    json_t *a = reply(server, mq__api_completions, "{\"prompt\":[70,71,72],\"echo\":true}", 200);
    assert_int_equal(integer_at_path(a, "usage.prompt_tokens"), 3);
    json_decref(a);
    assert_int_equal(script_last_request(server->script).count, 3);
    a = reply(server, mq__api_completions, "{\"prompt\":[[70,71,72,73]]}", 200);
    assert_int_equal(integer_at_path(a, "usage.prompt_tokens"), 4);
    json_decref(a);
    refuses(server, mq__api_completions, "{\"prompt\":[70,3072]}", "prompt");
    refuses(server, mq__api_completions, "{\"prompt\":[70,-1]}", "prompt");
    refuses(server, mq__api_completions, "{\"prompt\":[70,4294967297]}", "prompt");
    refuses(server, mq__api_completions, "{\"prompt\":[70,1.5]}", "prompt");
    refuses(server, mq__api_completions, "{\"prompt\":[70,\"a\"]}", "prompt");
    refuses(server, mq__api_completions, "{\"prompt\":[\"a\",\"b\"]}", "prompt");
    refuses(server, mq__api_completions, "{\"prompt\":[[70],[71]]}", "prompt");
    refuses(server, mq__api_completions, "{\"prompt\":[]}", "prompt");
    refuses(server, mq__api_completions, "{\"prompt\":\"\"}", "prompt");
    refuses(server, mq__api_completions, "{\"prompt\":5}", "prompt");
    refuses(server, mq__api_completions, "{}", "prompt");
    refuses(server, mq__api_completions, "{\"prompt\":\"a\",\"suffix\":\"b\"}", "suffix");
    refuses(server, mq__api_completions, "{\"prompt\":\"a\",\"logprobs\":21}", "logprobs");
    refuses(server, mq__api_completions, "{\"prompt\":\"a\",\"logprobs\":-1}", "logprobs");
    refuses(server, mq__api_completions, "{\"prompt\":\"a\",\"max_tokens\":-2}", "max_tokens");
    refuses(server, mq__api_completions, "{\"prompt\":\"a\",\"n\":0}", "n");
    refuses(server, mq__api_completions, "{\"prompt\":\"a\",\"echo\":1}", "echo");
    refuses(server, mq__api_completions, "{\"prompt\":\"a\",\"echo\":true,\"logprobs\":0}", "echo");
    fixture_close(server);
}

/* The prompt is only read: what had to be made for that is not told. */
static void test_completion_of_no_tokens(void **state)
{
    mq_server *server = fixture_server("[{\"answer\":\" a time\"}]", NULL);
    (void)state;
    json_t *a = reply(server, mq__api_completions, "{\"prompt\":\"Once\",\"max_tokens\":0,\"logprobs\":1}", 200);
    assert_string_equal(text_at_path(a, "choices.0.text"), "");
    assert_string_equal(text_at_path(a, "choices.0.finish_reason"), "length");
    assert_int_equal(json_array_size(at_path(a, "choices.0.logprobs.tokens")), 0);
    assert_int_equal(integer_at_path(a, "usage.completion_tokens"), 0);
    assert_int_equal(integer_at_path(a, "usage.total_tokens"), integer_at_path(a, "usage.prompt_tokens"));
    json_decref(a);
    a = reply(server, mq__api_completions, "{\"prompt\":\"Once\",\"n_predict\":0,\"echo\":true}", 200);
    assert_string_equal(text_at_path(a, "choices.0.text"), "Once");
    json_decref(a);
    mq_exchange *x = post(server, mq__api_completions, "{\"prompt\":\"Once\",\"max_tokens\":0,\"stream\":true}");
    fixture_events events = fixture_parse(x);
    for (size_t i = 0; i + 1 < events.count; i++) {
        assert_string_equal(text_at_path(events.at[i].data, "choices.0.text"), "");
    }
    fixture_events_free(&events);
    fixture_free(x);
    fixture_close(server);
}

static void test_completion_too_long(void **state)
{
    mq_server *server = fixture_server("[{\"answer\":\"x\"}]", NULL);
    (void)state;
    for (size_t count = 4095; count <= 4097; count++) {
        json_t *ids = json_array(), *body;
        for (size_t i = 0; i < count; i++) {
            json_array_append_new(ids, json_integer((json_int_t)(60 + i % 50)));
        }
        body = json_pack("{so}", "prompt", ids);
        char *text = json_dumps(body, 0);
        mq_exchange *x = post(server, mq__api_completions, text);
        assert_int_equal(x->status, count < 4096 ? 200 : 400);
        if (count == 4096) assert_non_null(strstr(x->sent.data, "prompt is too long: 4096 tokens > 4095 maximum"));
        fixture_free(x);
        free(text);
        json_decref(body);
    }
    fixture_close(server);
}

static void test_completion_stream(void **state)
{
    mq_server *server = fixture_server("[{\"answer\":\" a time there was\"}]", NULL);
    (void)state;
    mq_exchange *x = post(server, mq__api_completions,
                          "{\"prompt\":\"Once\",\"stream\":true,\"logprobs\":2,\"stream_options\":"
                          "{\"include_usage\":true}}");
    fixture_events events = fixture_parse(x);
    mq_buf text = {0}, tokens = {0};
    long long logprobs = 0, usage = 0, finished = 0;
    for (size_t i = 0; i < events.count; i++) {
        json_t *event = events.at[i].data, *choice = at_path(event, "choices.0");
        if (!event) assert_int_equal(i, events.count - 1);
        if (event && !choice) usage = integer_at_path(event, "usage.completion_tokens");
        if (!choice) continue;
        mq__buf_puts(&text, text_at_path(choice, "text"));
        finished += json_is_string(at_path(choice, "finish_reason"));
        json_t *list = at_path(choice, "logprobs.tokens");
        for (size_t k = 0; k < json_array_size(list); k++) {
            const size_t offset =
                (size_t)json_integer_value(json_array_get(at_path(choice, "logprobs.text_offset"), k));
            assert_int_equal(offset, tokens.len);
            mq__buf_puts(&tokens, json_string_value(json_array_get(list, k)));
            assert_int_equal(json_object_size(json_array_get(at_path(choice, "logprobs.top_logprobs"), k)), 2);
            logprobs++;
        }
    }
    assert_string_equal(text.data, " a time there was");
    assert_string_equal(tokens.data, " a time there was");
    assert_int_equal(logprobs, usage);
    assert_int_equal(finished, 1);
    mq__buf_free(&text);
    mq__buf_free(&tokens);
    fixture_events_free(&events);
    fixture_free(x);
    fixture_close(server);
}

/* ---- texts */

static void test_tokenize(void **state)
{
    mq_server *server = fixture_server("[]", NULL);
    (void)state;
    json_t *a = reply(server, mq__api_tokenize, "{\"content\":\"Hello there <|im_end|>\"}", 200);
    json_t *ids = json_incref(at_path(a, "tokens"));
    assert_int_equal(integer_at_path(a, "count"), json_array_size(ids));
    assert_int_equal(integer_at_path(a, "max_model_len"), 4096);
    json_decref(a);
    json_t *body = json_pack("{sO}", "tokens", ids);
    char *text = json_dumps(body, 0);
    a = reply(server, mq__api_detokenize, text, 200);
    assert_string_equal(text_at_path(a, "content"), "Hello there <|im_end|>");
    assert_string_equal(text_at_path(a, "prompt"), "Hello there <|im_end|>");
    json_decref(a);
    free(text);
    json_decref(body);
    json_decref(ids);

    a = reply(server, mq__api_tokenize, "{\"prompt\":\"\xc3\xa9 \xf0\x9f\x9a\xa2\",\"with_pieces\":true}", 200);
    mq_buf joined = {0};
    size_t i, k;
    json_t *entry, *byte;
    json_array_foreach(at_path(a, "tokens"), i, entry)
    {
        json_t *piece = at_path(entry, "piece");
        if (json_is_string(piece)) mq__buf_puts(&joined, json_string_value(piece));
        json_array_foreach(piece, k, byte) mq__buf_putc(&joined, (char)json_integer_value(byte));
    }
    assert_string_equal(joined.data, "\xc3\xa9 \xf0\x9f\x9a\xa2");
    mq__buf_free(&joined);
    json_decref(a);
    a = reply(server, mq__api_tokenize, "{\"content\":\"\"}", 200);
    assert_int_equal(integer_at_path(a, "count"), 0);
    json_decref(a);
    a = reply(server, mq__api_tokenize, "{\"content\":\"<|im_end|>\",\"parse_special\":false}", 200);
    assert_true(integer_at_path(a, "count") > 1);
    json_decref(a);
    a = reply(server, mq__api_tokenize, "{\"content\":\"abc\",\"messages\":null}", 200);
    json_decref(a);
    refuses(server, mq__api_tokenize, "{}", "content");
    refuses(server, mq__api_tokenize, "{\"content\":5}", "content");
    refuses(server, mq__api_tokenize, "{\"content\":\"a\",\"with_pieces\":1}", "with_pieces");
    refuses(server, mq__api_detokenize, "{\"tokens\":[3072]}", "tokens");
    refuses(server, mq__api_detokenize, "{\"tokens\":[-1]}", "tokens");
    refuses(server, mq__api_detokenize, "{\"tokens\":5}", "tokens");
    refuses(server, mq__api_detokenize, "{}", "tokens");
    a = reply(server, mq__api_detokenize, "{\"tokens\":[]}", 200);
    assert_string_equal(text_at_path(a, "content"), "");
    json_decref(a);
    fixture_close(server);
}

static void test_apply_template(void **state)
{
    static const char body[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}";
    mq_server *server = fixture_server("[]", NULL);
    (void)state;
    json_t *a = reply(server, mq__api_apply_template, body, 200);
    assert_string_equal(text_at_path(a, "prompt"), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    json_decref(a);
    static const char big[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"tools\":[{\"type\":\"function\",\"function\":"
        "{\"name\":\"f\",\"parameters\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\","
        "\"maximum\":18446744073709551615,\"enum\":[100000000000000000000]}}}}}]}";
    a = reply(server, mq__api_apply_template, big, 200); /* as they were spelled */
    assert_non_null(
        strstr(text_at_path(a, "prompt"), "\"maximum\": 18446744073709551615, \"enum\": [100000000000000000000]"));
    json_decref(a);
    a = reply(server, mq__api_apply_template,
              "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"add_generation_prompt\":false}", 200);
    assert_string_equal(text_at_path(a, "prompt"), "<|im_start|>user\nhi<|im_end|>\n");
    json_decref(a);
    /* A chat body has the tokens that a chat request counts. */
    a = reply(server, mq__api_tokenize, body, 200);
    json_t *b = reply(server, mq__api_chat, body, 200);
    assert_int_equal(integer_at_path(a, "count"), integer_at_path(b, "usage.prompt_tokens"));
    json_decref(a);
    json_decref(b);
    refuses(server, mq__api_apply_template, "{\"messages\":[]}", "messages");
    refuses(server, mq__api_apply_template, "{\"messages\":5}", "messages");
    refuses(server, mq__api_apply_template, "", "");
    fixture_close(server);
}

/* ---- models */

static json_t *get_model(mq_server *server, const char *path, unsigned status)
{
    mq_exchange *x = fixture_ask(server, mq__api_models, path, NULL, NULL);
    assert_int_equal(x->status, status);
    json_t *a = fixture_json(x);
    fixture_free(x);
    return a;
}

static void test_models(void **state)
{
    static const char *const codex[] = {"slug",
                                        "display_name",
                                        "supported_reasoning_levels",
                                        "shell_type",
                                        "visibility",
                                        "supported_in_api",
                                        "priority",
                                        "base_instructions",
                                        "supports_reasoning_summaries",
                                        "support_verbosity",
                                        "truncation_policy",
                                        "supports_parallel_tool_calls",
                                        "experimental_supported_tools",
                                        "input_modalities"};
    mq_server *server = fixture_server("[]", NULL);
    (void)state;
    json_t *a = get_model(server, "/v1/models", 200);
    assert_string_equal(text_at_path(a, "object"), "list");
    assert_string_equal(text_at_path(a, "data.0.id"), "mixquant-agent");
    assert_string_equal(text_at_path(a, "data.0.object"), "model");
    assert_int_equal(integer_at_path(a, "data.0.created"), 1700000000);
    assert_string_equal(text_at_path(a, "data.0.created_at"), "2023-11-14T22:13:20Z");
    assert_int_equal(integer_at_path(a, "data.0.max_model_len"), 4096);
    assert_int_equal(integer_at_path(a, "data.0.meta.n_ctx"), 4096);
    assert_int_equal(integer_at_path(a, "data.0.meta.n_vocab"), 3072);
    assert_string_equal(text_at_path(a, "data.0.plan.prefill"), "nvfp4");
    assert_true(json_is_false(at_path(a, "has_more")));
    json_t *card = at_path(a, "models.0");
    for (size_t i = 0; i < sizeof codex / sizeof codex[0]; i++) {
        json_t *member = json_object_get(card, codex[i]);
        if (!member || json_is_null(member)) fail_msg("%s", codex[i]);
    }
    assert_int_equal(integer_at_path(card, "context_window"), 4096);
    assert_int_equal(integer_at_path(card, "truncation_policy.limit"), 10000);
    assert_string_equal(text_at_path(card, "input_modalities.0"), "text");
    assert_int_equal(json_array_size(at_path(card, "supported_reasoning_levels")), 0);
    json_decref(a);
    a = get_model(server, "/v1/models/mixquant-agent", 200);
    assert_string_equal(text_at_path(a, "id"), "mixquant-agent");
    json_decref(a);
    a = get_model(server, "/models/mixquant%2Dagent", 200);
    json_decref(a);
    static const char *const others[] = {
        "/v1/models/gpt-5", "/v1/models/mixquant",       "/v1/models/mixquant-agent2", "/v1/models/mixquant-agent/x",
        "/v1/models/%",     "/v1/models/mixquant-agen%7"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        a = get_model(server, others[i], 404);
        assert_string_equal(text_at_path(a, "error.code"), "model_not_found");
        json_decref(a);
    }
    server->model.name = "owner/na me";
    a = get_model(server, "/v1/models/owner%2fna%20me", 200);
    assert_string_equal(text_at_path(a, "id"), "owner/na me");
    json_decref(a);
    a = get_model(server, "/v1/models/owner/na me", 200);
    json_decref(a);
    fixture_close(server);
}

/* ---- metrics */

static double metric(const char *text, const char *name)
{
    char line[200];
    snprintf(line, sizeof line, "\n%s ", name);
    const char *at = strstr(text, line);
    if (!at) fail_msg("%s: not there", name);
    return atof(at + strlen(line));
}

/* Every sample has a name whose HELP and TYPE stand before it, once. */
static void check_exposition(const char *text)
{
    char known[8000] = " ", name[200], *save;
    char *copy = mq__strdup(text);
    for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char head[210];
        if (sscanf(line, "# HELP %199s", name) == 1) continue;
        if (sscanf(line, "# TYPE %199s", name) == 1) {
            snprintf(head, sizeof head, " %s ", name);
            assert_null(strstr(known, head));
            strcat(known, name);
            strcat(known, " ");
            continue;
        }
        snprintf(name, sizeof name, "%.*s", (int)strcspn(line, "{ "), line);
        static const char *const ends[] = {"_bucket", "_sum", "_count"};
        for (size_t i = 0; i < 3; i++) {
            char *end = strstr(name, ends[i]);
            if (end && end[strlen(ends[i])] == '\0') *end = '\0';
        }
        snprintf(head, sizeof head, " %s ", name);
        if (!strstr(known, head)) fail_msg("%s: has no TYPE", line);
        const char *value = strrchr(line, ' ');
        char *rest;
        (void)strtod(value + 1, &rest);
        assert_true(value && *rest == '\0');
    }
    mq__free(copy);
}

static void test_metrics(void **state)
{
    mq_server *server = fixture_server("[{\"answer\":\"some words\"}]", NULL);
    (void)state;
    for (int i = 0; i < 3; i++) {
        fixture_free(post(server, mq__api_chat, "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"));
    }
    fixture_free(post(server, mq__api_chat, "{\"messages\":[]}"));
    fixture_free(post(server, mq__api_completions, "{\"prompt\":\"a\",\"max_tokens\":1}"));
    script_settle(server->script);
    server->model.name = "a\"b\\c";
    mq_exchange *x = fixture_ask(server, mq__api_metrics, "/metrics", NULL, NULL);
    assert_int_equal(x->status, 200);
    assert_string_equal(x->type, "text/plain; version=0.0.4; charset=utf-8");
    const char *text = x->sent.data;
    check_exposition(text);
    assert_true(metric(text, "llamacpp:prompt_tokens_total") > 0);
    assert_true(metric(text, "llamacpp:tokens_predicted_total") > 3);
    assert_true(metric(text, "llamacpp:requests_processing") == 0);
    assert_true(metric(text, "llamacpp:requests_deferred") == 0);
    assert_true(metric(text, "llamacpp:kv_cache_usage_ratio") == 0.4);
    assert_true(metric(text, "mixquant:prefix_cache_miss_tokens_total") > 0);
    assert_true(metric(text, "mixquant:kv_blocks_free") == 600);
    assert_true(metric(text, "mixquant:answers_total{api=\"chat\",status=\"200\"}") == 3);
    assert_true(metric(text, "mixquant:answers_total{api=\"chat\",status=\"400\"}") == 1);
    assert_true(metric(text, "mixquant:answers_total{api=\"completions\",status=\"200\"}") == 1);
    assert_true(metric(text, "vllm:num_requests_running{model_name=\"a\\\"b\\\\c\"}") == 0);
    assert_true(metric(text, "vllm:kv_cache_usage_perc{model_name=\"a\\\"b\\\\c\"}") == 0.25);
    assert_true(metric(text, "vllm:request_success_total{model_name=\"a\\\"b\\\\c\",finished_reason=\"stop\"}") == 3);
    assert_true(metric(text, "vllm:request_success_total{model_name=\"a\\\"b\\\\c\",finished_reason=\"length\"}") == 1);
    assert_true(metric(text, "vllm:time_to_first_token_seconds_count{model_name=\"a\\\"b\\\\c\"}") == 4);
    assert_true(metric(text, "vllm:e2e_request_latency_seconds_bucket{model_name=\"a\\\"b\\\\c\",le=\"+Inf\"}") == 4);
    fixture_free(x);
    fixture_close(server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_completion),
        cmocka_unit_test(test_completion_ids),
        cmocka_unit_test(test_completion_of_no_tokens),
        cmocka_unit_test(test_completion_too_long),
        cmocka_unit_test(test_completion_stream),
        cmocka_unit_test(test_tokenize),
        cmocka_unit_test(test_apply_template),
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_metrics),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
