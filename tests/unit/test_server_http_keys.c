/* Who may come in: API keys, Host headers, addresses, Unix sockets; loading and draining. */
#include "base/mem.h"
#include "unit_http.h"

#include <sodium.h>

/* Says whose request it is. */
static void tell_owner(mq_server *s, mq_exchange *x)
{
    char text[32];
    (void)s;
    snprintf(text, sizeof text, "owner %016llx", (unsigned long long)mq__exchange_owner(x));
    mq__exchange_reply(x, 200, "text/plain", text, strlen(text));
}

static const http_route routes[] = {
    {"/mine", "GET, POST", tell_owner, false, false},
    {"/open", "GET", tell_owner, true, false},
    {"/early", "GET", tell_owner, true, true},
};
#define ROUTES routes, sizeof routes / sizeof routes[0]

static unsigned ask_with(const char *path, const char *headers, char owner[32])
{
    char request[2048];
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s\r\n", path,
             headers);
    char *answer = ask(request);
    const unsigned status = status_of(answer);
    const char *found = strstr(answer, "owner ");
    if (owner) snprintf(owner, 32, "%s", found ? found : "");
    mq__free(answer);
    return status;
}

/* ---- the file */

static mq_status read_keys(const char *text, api_keys **keys, mq_error *error)
{
    unit_puts("keys", text);
    return mq__keys_read(unit_path("keys"), keys, error);
}

static void test_key_files(void **state)
{
    (void)state;
    api_keys *keys;
    mq_error error = {0};
    assert_int_equal(
        read_keys("# comment\n\nfirst-key-1234\r\n  second-key-1234  \nlast-key-without-end", &keys, &error), MQ_OK);
    const uint64_t first = mq__keys_owner(keys, "first-key-1234", 14);
    const uint64_t second = mq__keys_owner(keys, "second-key-1234", 15);
    assert_true(first && second && first != second);
    assert_true(mq__keys_owner(keys, "last-key-without-end", 20));
    assert_int_equal(mq__keys_owner(keys, "first-key-123", 13), 0);
    assert_int_equal(mq__keys_owner(keys, "first-key-12345", 15), 0);
    assert_int_equal(mq__keys_owner(keys, "", 0), 0);
    assert_int_equal(mq__keys_owner(keys, "# comment", 9), 0);
    mq__keys_free(keys);

    unsigned char hash[32];
    char hex[65], text[128];
    crypto_generichash(hash, sizeof hash, (const unsigned char *)"first-key-1234", 14, NULL, 0);
    sodium_bin2hex(hex, sizeof hex, hash, sizeof hash);
    snprintf(text, sizeof text, "blake2b:%s\n", hex);
    assert_int_equal(read_keys(text, &keys, &error), MQ_OK);
    assert_int_equal(mq__keys_owner(keys, "first-key-1234", 14), first); /* the same, however it is written */
    assert_int_equal(mq__keys_owner(keys, hex, 64), 0);                  /* a hash is no key */
    mq__keys_free(keys);
}

static void check_bad_keys(const char *text, const char *names)
{
    api_keys *keys;
    mq_error error = {0};
    unit_refused(read_keys(text, &keys, &error), MQ_FORMAT, &error, names);
    assert_null(keys);
    assert_null(strstr(error.text, "secret")); /* what stands in the file is not told */
}

static void test_bad_key_files(void **state)
{
    (void)state;
    api_keys *keys;
    mq_error error = {0};
    check_bad_keys("", "at least one key");
    check_bad_keys("# only a comment\n", "at least one key");
    check_bad_keys("good-key-1234\nsecret\n", "line 2");
    check_bad_keys("a secret with blanks\n", "line 1");
    check_bad_keys("secret\377\001key\n", "line 1");
    check_bad_keys("blake2b:secret-that-is-no-hash\n", "line 1");
    check_bad_keys("blake2b:00112233445566778899aabbccddeeff\n", "line 1");
    assert_int_equal(mq__keys_read(unit_path("none"), &keys, &error), MQ_IO);
}

/* ---- requests */

static void test_keys_of_requests(void **state)
{
    (void)state;
    char first[32], second[32], other[32];
    unit_puts("keys", "first-key-1234\nsecond-key-1234\n");
    start_server(&(mq_server_options){.key_file = unit_path("keys")}, ROUTES);
    assert_int_equal(ask_with("/mine", "", NULL), 401);
    assert_int_equal(ask_with("/mine", "Authorization: Bearer wrong-key-1234\r\n", NULL), 401);
    assert_int_equal(ask_with("/mine", "Authorization: Basic first-key-1234\r\n", NULL), 401);
    assert_int_equal(ask_with("/mine", "Authorization: first-key-1234\r\n", NULL), 401);
    assert_int_equal(ask_with("/mine?key=first-key-1234", "", NULL), 401);
    assert_int_equal(ask_with("/open", "", other), 200);
    assert_string_equal(other, "owner 0000000000000000");
    assert_int_equal(ask_with("/mine", "Authorization: Bearer first-key-1234\r\n", first), 200);
    assert_int_equal(ask_with("/mine", "x-api-key: second-key-1234\r\n", second), 200);
    assert_string_not_equal(first, second);
    assert_string_not_equal(first, other);
    assert_int_equal(ask_with("/mine", "authorization: bearer first-key-1234\r\n", other), 200);
    assert_string_equal(first, other);
    assert_int_equal(ask_with("/mine", "X-Api-Key: first-key-1234\r\n", other), 200);
    assert_string_equal(first, other);
    /* a client's own vendor's key beside ours */
    assert_int_equal(ask_with("/mine", "x-api-key: sk-ant-1\r\nAuthorization: Bearer first-key-1234\r\n", other), 200);
    assert_string_equal(first, other);
    char *answer = ask("POST /mine HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
    assert_int_equal(status_of(answer), 401);
    assert_non_null(strstr(answer, "\r\nWWW-Authenticate: Bearer\r\n"));
    assert_non_null(strstr(answer, "\r\nx-should-retry: false\r\n"));
    assert_non_null(strstr(answer, "\"code\":\"invalid_api_key\""));
    mq__free(answer);
    stop_server();
}

static void test_reloaded_keys(void **state)
{
    (void)state;
    mq_error error = {0};
    unit_puts("keys", "first-key-1234\n");
    start_server(&(mq_server_options){.key_file = unit_path("keys")}, ROUTES);
    unit_puts("keys", "second-key-1234\n");
    assert_int_equal(ask_with("/mine", "x-api-key: first-key-1234\r\n", NULL), 200);
    assert_int_equal(mq__server_reload_keys(server, &error), MQ_OK);
    assert_int_equal(ask_with("/mine", "x-api-key: first-key-1234\r\n", NULL), 401);
    assert_int_equal(ask_with("/mine", "x-api-key: second-key-1234\r\n", NULL), 200);
    unit_puts("keys", "bad\n");
    assert_int_equal(mq__server_reload_keys(server, &error), MQ_FORMAT);
    assert_int_equal(ask_with("/mine", "x-api-key: second-key-1234\r\n", NULL), 200); /* the old ones stay */
    assert_int_equal(unlink(unit_path("keys")), 0);
    assert_int_equal(mq__server_reload_keys(server, &error), MQ_IO);
    assert_int_equal(ask_with("/mine", "x-api-key: second-key-1234\r\n", NULL), 200);
    assert_int_equal(ask_with("/mine", "", NULL), 401);
    stop_server();
}

/* ---- hosts and addresses */

static unsigned ask_host(const char *host)
{
    char request[256];
    snprintf(request, sizeof request, "GET /open HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host);
    char *answer = ask(request);
    const unsigned status = status_of(answer);
    mq__free(answer);
    return status;
}

static void test_hosts(void **state)
{
    (void)state;
    const char *const allowed[] = {"gpu-box", "llm.example", "fd00::1"};
    start_server(&(mq_server_options){.allowed_hosts = allowed, .allowed_host_count = 3}, ROUTES);
    static const char *const good[] = {"localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080",  "127.8.8.8",
                                       "gpu-box",   "GPU-Box:80",     "llm.example", "[fd00::1]:80"};
    static const char *const bad[] = {"evil.example",
                                      "localhost.evil.example",
                                      "gpu-box.evil.example",
                                      "evil.example:8080",
                                      "10.0.0.1",
                                      "127.0.0.1.evil.example",
                                      "localhost:80:80",
                                      "localhost@evil.example",
                                      "[::1",
                                      "[fd00::2]",
                                      "xgpu-box",
                                      "0.0.0.0",
                                      "127.0.0.1evil.test",
                                      "*"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (ask_host(good[i]) != 200) fail_msg("%s: refused", good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (ask_host(bad[i]) != 421) fail_msg("%s: not refused", bad[i]);
    }
    stop_server();
}

static void test_any_host(void **state)
{
    (void)state;
    const char *const all = "*";
    start_server(&(mq_server_options){.allowed_hosts = &all, .allowed_host_count = 1}, ROUTES);
    assert_int_equal(ask_host("whoever.example"), 200);
    stop_server();
}

/* On an address that others reach, addresses are no names that somebody could turn. */
static void test_hosts_of_other_addresses(void **state)
{
    (void)state;
    start_server(&(mq_server_options){.host = "0.0.0.0", .insecure = true}, ROUTES);
    assert_int_equal(ask_host("192.0.2.7:8080"), 200);
    assert_int_equal(ask_host("[2001:db8::7]:8080"), 200);
    assert_int_equal(ask_host("localhost"), 200);
    assert_int_equal(ask_host("evil.example"), 421);
    assert_int_equal(ask_host("192.0.2.7.evil.example"), 421);
    assert_int_equal(ask_host("192.0.2.256"), 421);
    stop_server();
}

static void check_not_started(mq_server_options options, const char *names)
{
    mq_server *none = NULL;
    mq_error error = {0};
    const mq_status status = mq__server_start_with(&options, ROUTES, &none, &error);
    unit_refused(status, status == MQ_OK ? MQ_USAGE : status, &error, names);
    assert_null(none);
}

static void test_what_does_not_start(void **state)
{
    (void)state;
    check_not_started((mq_server_options){.host = "0.0.0.0"}, "--insecure");
    check_not_started((mq_server_options){.host = "::"}, "--insecure");
    check_not_started((mq_server_options){.host = "nobody.invalid"}, "nobody.invalid");
    check_not_started((mq_server_options){.host = "192.0.2.1", .insecure = true}, "192.0.2.1");
    check_not_started((mq_server_options){.key_file = unit_path("none")}, "none");
    check_not_started((mq_server_options){.tls_cert = unit_path("none")}, "none");
    unit_puts("pem", "no certificate");
    check_not_started((mq_server_options){.tls_cert = unit_path("pem")}, "one of them");
    check_not_started((mq_server_options){.tls_cert = unit_path("pem"), .tls_key = unit_path("pem")}, "TLS");
    start_server(NULL, ROUTES);
    check_not_started((mq_server_options){.port = mq__server_port(server)}, "free address");
    stop_server();
    unit_puts("keys", "first-key-1234\n");
    start_server(&(mq_server_options){.host = "0.0.0.0", .key_file = unit_path("keys")}, ROUTES);
    stop_server();
}

/* ---- Unix sockets */

static int open_unix(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0) return fd;
    close(fd);
    return -1;
}

static void check_unix(const char *path)
{
    mq_buf heard = {0};
    struct stat facts;
    assert_int_equal(stat(path, &facts), 0);
    assert_int_equal(facts.st_mode, S_IFSOCK | 0600);
    const int fd = open_unix(path);
    assert_true(fd >= 0);
    say(fd, "GET /open HTTP/1.1\r\nHost: any.example\r\n\r\n");
    hear_until(fd, &heard, "owner ");
    mq__buf_free(&heard);
    close(fd);
}

static void test_unix_sockets(void **state)
{
    (void)state;
    const char *path = unit_path("socket");
    const mq_server_options options = {.unix_socket = path, .limits = {.per_address = 1}};
    start_server(&options, ROUTES);
    check_unix(path);
    check_not_started(options, "free path"); /* and the one that is there stays */
    check_unix(path);
    stop_server();
    assert_int_equal(access(path, F_OK), -1);

    struct sockaddr_un stale = {.sun_family = AF_UNIX}; /* of a server that was killed */
    snprintf(stale.sun_path, sizeof stale.sun_path, "%s", path);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&stale, sizeof stale), 0);
    close(fd);
    start_server(&options, ROUTES);
    check_unix(path);
    stop_server();

    unit_puts("file", "no socket");
    check_not_started((mq_server_options){.unix_socket = unit_path("file")}, "in use");
    assert_int_equal(access(unit_path("file"), F_OK), 0);
    check_not_started((mq_server_options){.unix_socket = unit_path("no/folder")}, "No such file");
    char long_path[200];
    memset(long_path, 'x', sizeof long_path - 1);
    long_path[sizeof long_path - 1] = '\0';
    check_not_started((mq_server_options){.unix_socket = long_path}, "below");
}

/* ---- life */

static void test_loading_and_draining(void **state)
{
    (void)state;
    mq_error error = {0};
    assert_int_equal(mq__server_start_with(&(mq_server_options){0}, ROUTES, &server, &error), MQ_OK);
    assert_null(mq__server_model(server));
    assert_int_equal(ask_with("/open", "", NULL), 503);
    assert_int_equal(ask_with("/early", "", NULL), 200);
    mq__server_ready(server, &(mq_served_model){.name = "m"}, &(mq_backend){0});
    assert_string_equal(mq__server_model(server)->name, "m");
    assert_int_equal(ask_with("/open", "", NULL), 200);
    mq__server_draining(server);
    assert_int_equal(ask_with("/open", "", NULL), 503);
    char *answer = ask("GET /early HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_int_equal(status_of(answer), 200);
    assert_non_null(strstr(answer, "\r\nConnection: close\r\n"));
    mq__free(answer);
    stop_server();
}

static void check_health(unsigned status, const char *text)
{
    char *answer = ask("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    if (status_of(answer) != status || !strstr(answer, text)) fail_msg("expected %u %s, got %s", status, text, answer);
    assert_true(status == 200 || strstr(answer, "\r\nRetry-After: "));
    mq__free(answer);
}

/* The real routes, as far as they need no model. */
static void test_health_and_page(void **state)
{
    (void)state;
    mq_error error = {0};
    unit_puts("keys", "first-key-1234\n");
    assert_int_equal(mq__server_start(&(mq_server_options){.key_file = unit_path("keys")}, &server, &error), MQ_OK);
    check_health(503, "\"code\":\"loading\"");
    assert_int_equal(ask_with("/metrics", "", NULL), 401);
    assert_int_equal(ask_with("/v1/models", "", NULL), 401);
    assert_int_equal(ask_with("/v1/models", "x-api-key: first-key-1234\r\n", NULL), 503);
    char *answer = ask("HEAD /api/hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_int_equal(status_of(answer), 200);
    mq__free(answer);
    mq__server_ready(server, &(mq_served_model){.name = "m"}, &(mq_backend){0});
    check_health(200, "{\"status\":\"ok\"}");
    answer = ask("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_int_equal(status_of(answer), 200);
    assert_non_null(strstr(answer, "Content-Security-Policy: default-src 'none';"));
    assert_non_null(strstr(answer, "script-src 'sha256-"));
    assert_null(strstr(answer, "unsafe-inline"));
    const char *page = strstr(answer, "<!doctype html>");
    assert_non_null(page);
    assert_null(strstr(page, "http://")); /* nothing from elsewhere */
    assert_null(strstr(page, "https://"));
    assert_null(strstr(page, "innerHTML"));
    mq__free(answer);
    mq__server_draining(server);
    check_health(503, "\"code\":\"draining\"");
    stop_server();
}

static void test_connections_of_an_address(void **state)
{
    (void)state;
    start_server(&(mq_server_options){.limits = {.per_address = 3}}, ROUTES);
    int fds[4];
    for (size_t i = 0; i < 3; i++) {
        fds[i] = open_client();
    }
    pause_ms(100);
    fds[3] = open_client();
    assert_true(ends_within(fds[3], 2));
    close(fds[0]);
    pause_ms(100);
    assert_int_equal(ask_with("/open", "", NULL), 200);
    for (size_t i = 1; i < 4; i++) {
        close(fds[i]);
    }
    stop_server();
}

static char logged[2048];

static void note_line(void *context, const char *line)
{
    (void)context;
    snprintf(logged, sizeof logged, "%s", line);
}

static void test_log_lines(void **state)
{
    (void)state;
    start_server(&(mq_server_options){.log = note_line}, ROUTES);
    mq__server_log(server, "a %s\nb\033[31m %d", "line", 7);
    assert_string_equal(logged, "a line b [31m 7");
    stop_server();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_key_files),
        cmocka_unit_test(test_bad_key_files),
        cmocka_unit_test(test_keys_of_requests),
        cmocka_unit_test(test_reloaded_keys),
        cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_any_host),
        cmocka_unit_test(test_hosts_of_other_addresses),
        cmocka_unit_test(test_what_does_not_start),
        cmocka_unit_test(test_unix_sockets),
        cmocka_unit_test(test_loading_and_draining),
        cmocka_unit_test(test_health_and_page),
        cmocka_unit_test(test_connections_of_an_address),
        cmocka_unit_test(test_log_lines),
    };
    return cmocka_run_group_tests(tests, unit_setup, unit_teardown);
}
