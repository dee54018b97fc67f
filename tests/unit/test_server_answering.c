/* The life of a request under threads: clients that leave, time that passes, masks, warnings, and memory that is short. */
#include "server_fixture.h"
#include "server_masks.h"

#include "server/answering_call.h"

#define ASK(members) "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]" members "}"
#define TOOLS                                                                                                          \
    ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\"}}},"          \
    "{\"type\":\"function\",\"function\":{\"name\":\"g\"}}]"
#define THINKING "tests/unit/templates/thinking.jinja"

static mq_exchange *begin(mq_server *server, const char *body)
{
    mq_exchange *x = fixture_exchange("/v1/chat/completions", body, NULL);
    mq__api_chat(server, x);
    return x;
}

static void pause_ms(long milliseconds)
{
    (void)nanosleep(&(struct timespec){.tv_nsec = milliseconds * 1000000}, NULL);
}

static mq_server *masked_server(const char *script, const char *template_file)
{
    mq_server *server = fixture_server(script, template_file);
    memset(&masks, 0, sizeof masks);
    assert_int_equal(mq_vocabulary_new(server->text, 3072, server->eos, 1, &server->model.vocabulary, NULL), MQ_OK);
    return server;
}

/* ---- clients that leave */

/* The first event is there before the backend has admitted anything. */
static void test_begins_at_once(void **state)
{
    mq_server *server = fixture_server("[{\"hold\":true}]", NULL);
    (void)state;
    mq_exchange *x = begin(server, ASK(",\"stream\":true"));
    assert_true(x->begun);
    assert_int_equal(x->status, 200);
    assert_non_null(strstr(x->sent.data, "\"role\":\"assistant\""));
    fixture_gone(x, false);
    assert_int_equal(script_released(server->script), 1);
    assert_non_null(strstr(server->log.data, "status 499"));
    fixture_free(x);
    fixture_close(server);
}

static void test_left_before(void **state)
{
    mq_server *server = masked_server("[]", NULL);
    (void)state;
    mq_exchange *x = fixture_exchange("/v1/chat/completions", ASK(TOOLS ",\"stream\":true"), NULL);
    x->leaves_at_once = true;
    mq__api_chat(server, x);
    assert_int_equal(script_requests(server->script), 0);
    assert_false(x->begun || x->replied);
    assert_int_equal(masks.made, masks.freed);
    fixture_free(x);
    fixture_close(server);
}

/* Clients leave at every moment of an answer, while the watcher ticks. */
static void *tick_on(void *context)
{
    mq_exchange *x = context;
    for (int i = 0; i < 20; i++) {
        fixture_tick(x);
        pause_ms(1);
    }
    return NULL;
}

static void test_leaving(void **state)
{
    mq_server *server = fixture_server(
        "{\"prefill_s\":0.01,\"token_s\":0.0005,\"answers\":[{\"answer\":\"a b c d e f g h i j k l m n o p q\"}]}",
        NULL);
    (void)state;
    for (int i = 0; i < 30; i++) {
        pthread_t watcher;
        mq_exchange *x = begin(server, i % 2 ? ASK(",\"stream\":true,\"n\":3") : ASK(",\"n\":2"));
        assert_int_equal(pthread_create(&watcher, NULL, tick_on, x), 0);
        pause_ms(i);
        assert_int_equal(pthread_join(watcher, NULL), 0);
        fixture_gone(x, false);
        const size_t sent = x->sent.len;
        pause_ms(1);
        assert_int_equal(x->sent.len, sent);
        fixture_free(x);
    }
    assert_int_equal(script_released(server->script), script_requests(server->script));
    fixture_close(server);
}

/* A client that does not read any more: a write fails, the answer ends, the watcher releases the job. */
static void test_deaf(void **state)
{
    (void)state;
    for (size_t writes = 1; writes < 8; writes++) {
        mq_server *server = fixture_server("{\"token_s\":0.001,\"answers\":[{\"answer\":\"a b c d e f g h\"}]}", NULL);
        mq_exchange *x = fixture_exchange("/v1/chat/completions", ASK(",\"stream\":true,\"n\":2"), NULL);
        x->deaf_after = writes;
        mq__api_chat(server, x);
        fixture_wait_end(x);
        fixture_tick(x);
        assert_int_equal(script_released(server->script), 2);
        fixture_gone(x, false);
        assert_non_null(strstr(server->log.data, "finish left"));
        fixture_free(x);
        fixture_close(server);
    }
}

/* One of several answers fails: the others are cancelled. */
static void test_one_fails(void **state)
{
    mq_server *server = fixture_server("[{\"times\":1,\"hold\":true},{\"error\":\"io\"}]", NULL);
    (void)state;
    mq_exchange *x = begin(server, ASK(",\"stream\":true,\"n\":2"));
    fixture_wait_end(x);
    assert_non_null(strstr(x->sent.data, "internal_error"));
    fixture_tick(x);
    assert_int_equal(script_released(server->script), 2);
    fixture_gone(x, true);
    fixture_free(x);
    fixture_close(server);
}

/* The queue takes one of two: the first is given back. */
static void test_queue_full_midway(void **state)
{
    mq_server *server = fixture_server("{\"queue\":1,\"answers\":[{\"hold\":true}]}", NULL);
    (void)state;
    mq_exchange *x = begin(server, ASK(",\"stream\":true,\"n\":2"));
    assert_int_equal(x->status, 429);
    assert_true(x->replied && !x->begun);
    assert_int_equal(script_released(server->script), 1);
    fixture_gone(x, true);
    fixture_free(x);
    fixture_close(server);
}

static void test_many_at_once(void **state)
{
    mq_server *server = fixture_server("{\"prefill_s\":0.01,\"answers\":[{\"answer\":\"some words\"}]}", NULL);
    mq_exchange *x[32];
    (void)state;
    for (int i = 0; i < 32; i++) {
        x[i] = begin(server, i % 2 ? ASK(",\"stream\":true") : ASK(""));
    }
    for (int i = 0; i < 32; i++) {
        fixture_wait_end(x[i]);
        assert_int_equal(x[i]->status, 200);
        assert_non_null(strstr(x[i]->sent.data, "\"finish_reason\":\"stop\""));
        fixture_gone(x[i], true);
        fixture_free(x[i]);
    }
    assert_int_equal(atomic_load(&server->counts.answers[0][0]), 32);
    fixture_close(server);
}

/* ---- time that passes */

/* Moves the clock of a call; it is the hooks' context. */
static void let_pass(mq_exchange *x, double seconds)
{
    mq_call *call = x->hooks.context;
    pthread_mutex_lock(&call->lock);
    call->started -= seconds;
    call->sent -= seconds;
    call->told -= seconds;
    pthread_mutex_unlock(&call->lock);
}

static void test_alive(void **state)
{
    mq_server *server = fixture_server("[{\"hold\":true}]", NULL);
    (void)state;
    mq_exchange *x = begin(server, ASK(",\"stream\":true"));
    size_t sent = x->sent.len;
    let_pass(x, 14);
    fixture_tick(x);
    assert_int_equal(x->sent.len, sent);
    let_pass(x, 2);
    fixture_tick(x);
    assert_true(x->sent.len > sent);
    assert_non_null(strstr(x->sent.data + sent, "\"delta\":{}"));
    sent = x->sent.len;
    fixture_tick(x); /* once is enough */
    assert_int_equal(x->sent.len, sent);
    let_pass(x, 16);
    fixture_tick(x);
    assert_true(x->sent.len > sent);
    fixture_gone(x, false);
    fixture_free(x);
    fixture_close(server);
}

static void test_progress(void **state)
{
    mq_server *server = fixture_server("{\"steps\":4,\"answers\":[{\"answer\":\"x\"}]}", NULL);
    (void)state;
    mq_exchange *x = begin(server, ASK(",\"stream\":true,\"return_progress\":true"));
    fixture_wait_end(x);
    fixture_gone(x, true);
    fixture_events events = fixture_parse(x);
    long long before = -1, seen = 0;
    for (size_t i = 0; i < events.count; i++) {
        json_t *progress = at_path(events.at[i].data, "prompt_progress");
        if (!progress) continue;
        seen++;
        assert_true(integer_at_path(progress, "processed") >= before);
        before = integer_at_path(progress, "processed");
        assert_true(before <= integer_at_path(progress, "total"));
        assert_int_equal(integer_at_path(progress, "cache"), 0);
        assert_true(json_is_number(at_path(progress, "time_ms")));
    }
    assert_int_equal(seen, 4);
    fixture_events_free(&events);
    fixture_free(x);
    fixture_close(server);
}

static void test_blanks(void **state)
{
    mq_server *server = fixture_server("{\"prefill_s\":0.2,\"answers\":[{\"answer\":\"x\"},{}]}", NULL);
    (void)state;
    server->options.json_keepalive = true;
    mq_exchange *x = begin(server, ASK(""));
    fixture_tick(x);
    assert_false(x->begun);
    let_pass(x, 6);
    fixture_tick(x);
    assert_true(x->begun);
    assert_string_equal(x->type, "application/json");
    fixture_tick(x);
    assert_int_equal(x->sent.len, 1);
    let_pass(x, 16);
    fixture_tick(x);
    assert_int_equal(x->sent.len, 2);
    fixture_wait_end(x);
    fixture_gone(x, true);
    json_t *a = fixture_json(x);
    assert_string_equal(text_at_path(a, "choices.0.message.content"), "x");
    json_decref(a);
    fixture_free(x);
    fixture_close(server);
    /* An error after blanks. */
    server = fixture_server("{\"prefill_s\":0.2,\"answers\":[{\"error\":\"io\"}]}", NULL);
    server->options.json_keepalive = true;
    x = begin(server, ASK(""));
    let_pass(x, 6);
    fixture_tick(x);
    fixture_wait_end(x);
    fixture_gone(x, true);
    a = fixture_json(x);
    assert_string_equal(text_at_path(a, "error.code"), "internal_error");
    json_decref(a);
    fixture_free(x);
    fixture_close(server);
}

static void test_too_long(void **state)
{
    (void)state;
    for (int stream = 0; stream < 2; stream++) {
        mq_server *server = fixture_server("[{\"hold\":true}]", NULL);
        server->limits.request_s = 30;
        mq_exchange *x = begin(server, stream ? ASK(",\"stream\":true") : ASK(""));
        fixture_tick(x);
        assert_false(x->ended);
        let_pass(x, 31);
        fixture_tick(x);
        assert_true(x->ended);
        assert_int_equal(x->status, stream ? 200 : 504);
        assert_non_null(strstr(x->sent.data, "request_timeout"));
        assert_int_equal(script_released(server->script), 1);
        fixture_gone(x, true);
        fixture_free(x);
        fixture_close(server);
    }
}

/* ---- masks and warnings */

static void expect_masked(const char *template_file, const char *body, unsigned status, const char *warning)
{
    const mq_status refuse = masks.refuse;
    const unsigned refusals = masks.refusals;
    const char *dropped = masks.dropped, *wrong = masks.wrong;
    mq_server *server = masked_server("[{\"answer\":\"x\"}]", template_file);
    masks.refuse = refuse;
    masks.refusals = refusals;
    masks.dropped = dropped;
    masks.wrong = wrong;
    mq_exchange *x = begin(server, body);
    fixture_wait_end(x);
    fixture_gone(x, true);
    if (x->status != status) fail_msg("%s: %u: %s", body, x->status, x->sent.data);
    const char *header = fixture_answer_header(x, "warning");
    if (warning && status == 400) assert_non_null(strstr(x->sent.data, warning));
    if (warning && status == 200) assert_string_equal(header ? header : "(none)", warning);
    if (!warning) assert_null(header);
    fixture_free(x);
    fixture_close(server);
    assert_int_equal(masks.made, masks.freed);
    masks.refusals = 0;
    masks.dropped = NULL;
}

#define SCHEMA                                                                                                         \
    ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"strict\":true,\"schema\":{\"type\":\"array\"}}" \
    "}"

static void test_masks(void **state)
{
    (void)state;
    expect_masked(NULL, ASK(""), 200, NULL);
    assert_int_equal(masks.made, 0);
    expect_masked(NULL, ASK(SCHEMA), 200, NULL);
    assert_string_equal(masks.schema, "{\"type\":\"array\"}");
    assert_true(masks.options.strict && masks.made == 1);
    assert_string_equal(masks.after, "");
    expect_masked(NULL, ASK(SCHEMA ",\"n\":3"), 200, NULL);
    assert_int_equal(masks.made, 3);
    expect_masked(NULL, ASK(TOOLS), 200, NULL);
    assert_true(!masks.options.schema && !masks.options.required && masks.options.parallel);
    assert_int_equal(masks.options.format, MQ_TOOLS_HERMES);
    assert_non_null(strstr(masks.tools, "\"name\":\"g\""));
    expect_masked(NULL, ASK(TOOLS ",\"tool_choice\":\"required\",\"parallel_tool_calls\":false"), 200, NULL);
    assert_true(masks.options.required && !masks.options.parallel);
    expect_masked(NULL, ASK(TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}}"), 200, NULL);
    assert_true(masks.options.required && !strstr(masks.tools, "\"f\"") && strstr(masks.tools, "\"g\""));
    expect_masked(NULL, ASK(TOOLS ",\"tool_choice\":\"none\""), 200, NULL);
    assert_int_equal(masks.made, 0);
    expect_masked(NULL, ASK(TOOLS SCHEMA), 200, NULL);
    assert_string_equal(masks.schema, "{\"type\":\"array\"}");
    assert_non_null(strstr(masks.tools, "\"name\":\"g\""));
    assert_int_equal(masks.options.format, MQ_TOOLS_HERMES);
    assert_true(masks.options.strict && !masks.options.strict_tools && masks.options.parallel);
    expect_masked(NULL, ASK(TOOLS SCHEMA ",\"tool_choice\":\"required\""), 200, NULL); /* a call in any case */
    assert_true(masks.options.required && masks.schema[0] == 0 && !masks.options.strict);
    expect_masked(NULL, ASK(TOOLS SCHEMA ",\"tool_choice\":\"none\""), 200, NULL);
    assert_string_equal(masks.schema, "{\"type\":\"array\"}");
}

/* Where the model reasons first, the form begins behind the reasoning, which the prompt opens. */
static void test_masks_after_reasoning(void **state)
{
    (void)state;
    expect_masked(THINKING, ASK(SCHEMA), 200, NULL);
    assert_string_equal(masks.after, "</think>");
    expect_masked(THINKING, ASK(SCHEMA ",\"enable_thinking\":false"), 200, NULL);
    assert_string_equal(masks.after, "");
    expect_masked(THINKING, ASK(TOOLS), 200, NULL);
    assert_string_equal(masks.after, "</think>");
    expect_masked(THINKING, ASK(TOOLS ",\"tool_choice\":\"required\""), 200, NULL);
    assert_string_equal(masks.after, "</think>");
    expect_masked(THINKING, ASK(TOOLS SCHEMA), 200, NULL);
    assert_string_equal(masks.after, "</think>");
    expect_masked(THINKING, ASK(TOOLS SCHEMA ",\"enable_thinking\":false"), 200, NULL);
    assert_string_equal(masks.after, "");

    mq_server *server = masked_server("[{\"answer\":\"Hm.\\n</think>\\n\\n[]\"}]", THINKING);
    mq_exchange *x = begin(server, ASK(SCHEMA));
    fixture_wait_end(x);
    fixture_gone(x, true);
    char *prompt = script_last_prompt(server->script);
    assert_non_null(strstr(prompt, "<|im_start|>assistant\n<think>\n"));
    json_t *a = fixture_json(x);
    assert_string_equal(text_at_path(a, "choices.0.message.reasoning_content"), "Hm.");
    assert_string_equal(text_at_path(a, "choices.0.message.content"), "[]");
    json_decref(a);
    mq_free(prompt);
    fixture_free(x);
    x = begin(server, ASK(TOOLS)); /* not where it may say what it likes */
    fixture_wait_end(x);
    fixture_gone(x, true);
    prompt = script_last_prompt(server->script);
    assert_null(strstr(prompt, "<think>"));
    mq_free(prompt);
    fixture_free(x);
    fixture_close(server);
}

static void test_refused_masks(void **state)
{
    (void)state;
    masks.refuse = MQ_UNSUPPORTED;
    masks.refusals = 1;
    expect_masked(NULL, ASK(SCHEMA), 400, NULL);
    /* Tools work without their schemas. */
    masks.refuse = MQ_LIMIT;
    masks.refusals = 1;
    expect_masked(NULL, ASK(TOOLS), 200, "299 mixquant \"left out: schemas of tools: schema: expected less\"");
    assert_non_null(strstr(masks.used, "\"name\":\"g\",\"parameters\":{\"type\":\"object\"}"));
    /* Where some are at fault, the others keep theirs. */
#define TWO(f, g)                                                                                                      \
    ",\"tools\":[{\"function\":{\"name\":\"f\",\"parameters\":{\"title\":\"" f                                         \
    "\"}}},{\"function\":{\"name\":\"g\",\"parameters\":{\"title\":\"" g "\"}}}]"
    masks.wrong = "wrong";
    expect_masked(NULL, ASK(TWO("right", "wrong")), 200, "299 mixquant \"left out: schema of tool g: schema: wrong\"");
    assert_non_null(strstr(masks.used, "right"));
    assert_non_null(strstr(masks.used, "\"name\":\"g\",\"parameters\":{\"type\":\"object\"}"));
    expect_masked(NULL, ASK(TWO("wrong", "wrong")), 200,
                  "299 mixquant \"left out: schema of tool f: schema: wrong; schema of tool g: schema: wrong\"");
    masks.wrong = NULL;
    masks.refuse = MQ_UNSUPPORTED;
    masks.refusals = 1;
    expect_masked(NULL, ASK(",\"tools\":[{\"function\":{\"name\":\"f\",\"strict\":true}}]"), 400, NULL);
    /* Beside a schema: the tools are left out where they are at fault, and named where they are strict. */
    masks.refusals = 1;
    expect_masked(NULL, ASK(TOOLS SCHEMA), 200, "299 mixquant \"left out: schemas of tools: schema: expected less\"");
    assert_string_equal(masks.schema, "{\"type\":\"array\"}");
    masks.refusals = 1;
    expect_masked(NULL, ASK(",\"tools\":[{\"function\":{\"name\":\"f\",\"strict\":true}}]" SCHEMA), 400, "\"tools\"");
    masks.refusals = 2;
    expect_masked(NULL, ASK(TOOLS SCHEMA), 400, "\"response_format\"");
    masks.refuse = MQ_NO_MEMORY;
    masks.refusals = 1;
    expect_masked(NULL, ASK(TOOLS), 503, NULL);
    masks.refusals = 1;
    expect_masked(NULL, ASK(TOOLS SCHEMA), 503, NULL);
    masks.dropped = "pattern, not";
    expect_masked(NULL, ASK(TOOLS), 200, "299 mixquant \"left out: schema keywords: pattern, not\"");
}

static void test_warning_is_one_line(void **state)
{
    (void)state;
    expect_masked(NULL, ASK(",\"tools\":[{\"type\":\"a\\r\\nSet-Cookie: b\\\"\"}]"), 200,
                  "299 mixquant \"left out: tool of type a??Set-Cookie: b?\"");
}

/* ---- hints */

static void test_hints(void **state)
{
    static const char *const headers[] = {"X-Claude-Code-Session-Id: abc\"\ndef", "x-app: cli-bg", NULL};
    mq_server *server = fixture_server("[]", NULL);
    (void)state;
    mq_exchange *x = fixture_ask(server, mq__api_chat, "/v1/chat/completions", ASK(""), headers);
    assert_true(script_last_request(server->script).background);
    assert_non_null(strstr(server->log.data, "session abc??def,"));
    fixture_free(x);
    x = fixture_ask(server, mq__api_chat, "/v1/chat/completions", ASK(",\"prompt_cache_key\":\"k1\""), NULL);
    assert_false(script_last_request(server->script).background);
    assert_non_null(strstr(server->log.data, "session k1,"));
    fixture_free(x);
    fixture_close(server);
}

/* Keys of different owners share nothing. */
static void test_owner(void **state)
{
    mq_server *server = fixture_server("[]", NULL);
    (void)state;
    mq_exchange *x = fixture_exchange("/v1/chat/completions", ASK(""), NULL);
    x->owner = 0x123456789ABCDEFULL;
    mq__api_chat(server, x);
    fixture_wait_end(x);
    fixture_gone(x, true);
    assert_true(script_last_request(server->script).owner == 0x123456789ABCDEFULL);
    fixture_free(x);
    fixture_close(server);
}

/* ---- short of memory: a backend that the test itself drives, so that it knows whose allocation fails */

static struct {
    mq_request request;
    bool taken;
} puppet;

static mq_status submit_puppet(void *self, const mq_request *request, mq_job **job, mq_error *error)
{
    (void)self;
    (void)error;
    puppet.request = *request;
    puppet.taken = true;
    mq_constraint_free(request->constraint);
    *job = (mq_job *)&puppet;
    return MQ_OK;
}

static void release_puppet(void *self, mq_job *job)
{
    (void)self;
    assert_ptr_equal(job, &puppet);
    puppet.taken = false;
}

/* All events of an answer, with a call, reasoning and log probabilities. */
static void play(void)
{
    static const char *const pieces[] = {
        "<think>a",           "b</think>", "Text", " more", "<tool_call>\n{\"name\": \"f\", ", "\"arguments\": {\"x\"",
        ": 1}}\n</tool_call>"};
    mq_report report = {
        .prompt = puppet.request.count, .miss_token = 5, .miss_at = 1, .plan_prefill = "nvfp4", .plan_decode = "bf16"};
    const mq_token_logprob top[1] = {{66, -1}};
    mq_event event = {.kind = MQ_EVENT_PROGRESS, .report = &report, .token = -1};
    puppet.request.event(puppet.request.context, &event);
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        report.generated++;
        event = (mq_event){
            .kind = MQ_EVENT_TOKEN, .report = &report, .token = 65, .logprob = -0.5f, .top = top, .top_count = 1};
        event.bytes = pieces[i];
        event.count = strlen(pieces[i]);
        puppet.request.event(puppet.request.context, &event);
    }
    report.finish = MQ_FINISH_EOS;
    report.drafts = true;
    report.drafted = 5;
    report.drafted_right = 3;
    event = (mq_event){.kind = MQ_EVENT_END, .report = &report, .token = -1};
    puppet.request.event(puppet.request.context, &event);
}

/* Whether the n-th allocation of the request was made, and so failed. */
static bool run_short(mq_server *server, const char *body, unsigned long n)
{
    mq_exchange *x = fixture_exchange("/v1/chat/completions", body, NULL);
    mq__buf_reserve(&x->sent, 100000);
    mq__buf_clear(&server->log);
    mq__buf_reserve(&server->log, 10000);
    puppet.taken = false;
    (void)mq__alloc_fail_at(n);
    mq__api_chat(server, x);
    if (puppet.taken && x->hooked && !x->ended) play();
    const bool failed = mq__alloc_fail_at(0) >= n;
    assert_true(x->ended);
    if (x->replied) {
        assert_true(x->status == 503 || x->status == 200);
        if (!failed) assert_int_equal(x->status, 200);
    } else {
        const bool good = strstr(x->sent.data ? x->sent.data : "", "\"finish_reason\":\"tool_calls\"") != NULL;
        if (!failed) assert_true(good);
        if (!failed) assert_non_null(strstr(x->sent.data, "\"draft_n\":5,\"draft_n_accepted\":3"));
        const char *accepted = "\"accepted_prediction_tokens\":3,\"rejected_prediction_tokens\":2";
        if (!failed) assert_non_null(strstr(x->sent.data, accepted));
    }
    fixture_gone(x, true);
    assert_false(puppet.taken);
    fixture_free(x);
    return failed;
}

static void test_memory(void **state)
{
    static const char *const bodies[] = {
        ASK(TOOLS ",\"logprobs\":true,\"top_logprobs\":1,\"stream\":true,\"stream_options\":{\"include_usage\":true},"
                  "\"return_progress\":true"),
        ASK(TOOLS ",\"logprobs\":true,\"top_logprobs\":1,\"tool_choice\":\"required\"")};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        mq_server *server = masked_server("[]", THINKING);
        server->backend.submit = submit_puppet;
        server->backend.release = release_puppet;
        unsigned long n = 1;
        while (run_short(server, bodies[i], n)) {
            n += n < 3000 ? 1 : 7; /* rendering makes most of them */
        }
        assert_true(n > 500);
        fixture_close(server);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_begins_at_once),
        cmocka_unit_test(test_leaving),
        cmocka_unit_test(test_deaf),
        cmocka_unit_test(test_left_before),
        cmocka_unit_test(test_one_fails),
        cmocka_unit_test(test_queue_full_midway),
        cmocka_unit_test(test_many_at_once),
        cmocka_unit_test(test_alive),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_blanks),
        cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_masks),
        cmocka_unit_test(test_masks_after_reasoning),
        cmocka_unit_test(test_refused_masks),
        cmocka_unit_test(test_warning_is_one_line),
        cmocka_unit_test(test_hints),
        cmocka_unit_test(test_owner),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
