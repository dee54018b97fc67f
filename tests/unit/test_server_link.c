/* GET /internal/link by a real server: open, and right about what the worker is at the moment. */
#include "base/mem.h"
#include "unit_http.h"

#define GET "GET /internal/link HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

static char *describe_link(void *self)
{
    return mq__strdup(self);
}

static char *describe_nothing(void *self)
{
    (void)self;
    return NULL;
}

static mq_handoff_backend handoff = {.role = "prefill", .describe = describe_link, .self = "{\"role\":\"prefill\"}"};

static void make_ready(const mq_handoff_backend *of_handoff)
{
    mq__server_ready(server, &(mq_served_model){.name = "m"}, &(mq_backend){.handoff = of_handoff});
}

/* A server that still loads. */
static void open_server(const char *key_file)
{
    mq_error error = {0};
    const mq_server_options options = {.key_file = key_file};
    if (mq__server_start(&options, &server, &error) != MQ_OK) fail_msg("%s", error.text);
}

static void expect(const char *request, unsigned status, const char *text)
{
    char *answer = ask(request);
    assert_int_equal(status_of(answer), status);
    if (!strstr(answer, text)) fail_msg("expected %s, got %s", text, answer);
    mq__free(answer);
}

static void test_while_loading(void **state)
{
    (void)state;
    open_server(NULL);
    expect(GET, 503, "\"loading\"");
    make_ready(&handoff);
    expect(GET, 200, "{\"role\":\"prefill\"}");
    stop_server();
}

static void test_while_draining(void **state)
{
    (void)state;
    open_server(NULL);
    make_ready(&handoff);
    mq__server_draining(server);
    expect(GET, 503, "\"draining\"");
    stop_server();
}

static void test_of_a_plain_server(void **state)
{
    (void)state;
    open_server(NULL);
    make_ready(NULL);
    expect(GET, 404, "takes part in no hand-off");
    stop_server();
}

static void test_without_memory(void **state)
{
    mq_handoff_backend broken = handoff;
    (void)state;
    broken.describe = describe_nothing;
    open_server(NULL);
    make_ready(&broken);
    expect(GET, 503, "out_of_memory");
    stop_server();
}

/* Workers have no API keys of each other; nothing else is open for that. */
static void test_needs_no_key(void **state)
{
    (void)state;
    unit_puts("keys", "first-key-1234\n");
    open_server(unit_path("keys"));
    make_ready(&handoff);
    expect(GET, 200, "{\"role\":\"prefill\"}");
    expect("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 401, "");
    expect("POST /internal/link HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 405, "Allow");
    stop_server();
}

/* The address by which a lease says where the link is. */
static void answer_address(mq_server *s, mq_exchange *x)
{
    char host[64];
    (void)s;
    assert_true(mq__exchange_local_address(x, host, sizeof host));
    mq__exchange_reply(x, 200, "text/plain", host, strlen(host));
}

static void test_local_address(void **state)
{
    const http_route routes[] = {{"/address", "GET", answer_address, true, true}};
    (void)state;
    start_server(NULL, routes, 1);
    expect("GET /address HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 200, "\r\n127.0.0.1");
    stop_server();
    const mq_server_options v6 = {.host = "::", .insecure = true};
    mq_error error = {0};
    if (mq__server_start_with(&v6, routes, 1, &server, &error) != MQ_OK) skip(); /* no IPv6 here */
    make_ready(NULL);
    expect("GET /address HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", 200, "\r\n127.0.0.1");
    stop_server();
}

static void test_no_address_of_a_unix_socket(void **state)
{
    (void)state;
    const mq_exchange x = {.socket = NULL};
    char host[64];
    assert_false(mq__exchange_local_address(&x, host, sizeof host));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_while_loading),
        cmocka_unit_test(test_while_draining),
        cmocka_unit_test(test_of_a_plain_server),
        cmocka_unit_test(test_without_memory),
        cmocka_unit_test(test_needs_no_key),
        cmocka_unit_test(test_local_address),
        cmocka_unit_test(test_no_address_of_a_unix_socket),
    };
    return cmocka_run_group_tests(tests, unit_setup, unit_teardown);
}
