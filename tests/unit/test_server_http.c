/* Requests: routes, bodies, bounds, and what an attacker sends. */
#include "base/mem.h"
#include "unit_http.h"

#include <pthread.h>
#include <zlib.h>

#define BODY_BYTES 100000

/* Everything that a handler sees. */
static void echo(mq_server *s, mq_exchange *x)
{
    mq_buf text = {0};
    size_t count;
    const char *body = mq__exchange_body(x, &count);
    const char *query = mq__exchange_query(x, "q"), *header = mq__exchange_header(x, "x-test");
    (void)s;
    mq__exchange_set_header(x, "X-Echo", "one\r\ntwo");
    assert_true(mq__buf_printf(&text, "%s %s q=%s h=%s %zu:", mq__exchange_method(x), mq__exchange_path(x),
                               query ? query : "-", header ? header : "-", count));
    if (count < 1000) assert_true(mq__buf_append(&text, body, count));
    mq__exchange_reply(x, 200, "text/plain", text.data, text.len);
    mq__buf_free(&text);
}

static void *reply_later(void *context)
{
    pause_ms(50);
    mq__exchange_reply(context, 200, "text/plain", "later", 5);
    return NULL;
}

static void later(mq_server *s, mq_exchange *x)
{
    pthread_t thread;
    (void)s;
    assert_int_equal(pthread_create(&thread, NULL, reply_later, x), 0);
    (void)pthread_detach(thread);
}

static const http_route routes[] = {
    {"/echo", "POST", echo, true, false},   {"/get", "GET, HEAD", echo, true, false},
    {"/later", "POST", later, true, false}, {"/sub/", "GET, HEAD", echo, true, false},
    {"/early", "GET", echo, true, true},
};

static int setup(void **state)
{
    (void)state;
    const mq_server_options options = {.limits = {.body_bytes = BODY_BYTES, .bodies_bytes = 4 * BODY_BYTES}};
    start_server(&options, routes, sizeof routes / sizeof routes[0]);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stop_server();
    return 0;
}

static void check_status(const char *request, unsigned status, const char *text)
{
    char *answer = ask(request);
    if (status_of(answer) != status || (text && !strstr(answer, text))) {
        fail_msg("%s\nexpected %u with \"%s\", got %s", request, status, text ? text : "", answer);
    }
    mq__free(answer);
}

static void test_what_handlers_see(void **state)
{
    (void)state;
    check_status("POST /echo?q=a%20b&r=1 HTTP/1.1\r\nHost: localhost\r\nX-Test: t\r\nContent-Length: 5\r\n"
                 "Connection: close\r\n\r\nhello",
                 200, "POST /echo q=a b h=t 5:hello");
    check_status("POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
                 "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
                 200, "POST /echo q=- h=- 5:hello");
    check_status("GET /get HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 200, "GET /get q=- h=- 0:");
    check_status("GET /sub/a%2Fb HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 200, "GET /sub/a/b ");
    check_status("POST /later HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 200, "\r\n\r\nlater");
}

static void test_what_answers_have(void **state)
{
    (void)state;
    char *answer = ask("GET /get HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    const char *id = strstr(answer, "\r\nx-request-id: ");
    assert_non_null(id);
    assert_int_equal(strspn(id + 16, "abcdefghijklmnopqrstuvwxyz0123456789"), 24);
    assert_non_null(strstr(answer, "\r\nContent-Type: text/plain\r\n"));
    assert_non_null(strstr(answer, "\r\nX-Echo: one  two\r\n")); /* no line of its own */
    assert_null(strstr(answer, "Access-Control"));
    mq__free(answer);
}

static void test_paths_and_methods(void **state)
{
    (void)state;
    check_status("GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404,
                 "\"code\":\"not_found\"");
    check_status("GET /sub/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404, NULL);
    check_status("GET /echo/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404, NULL);
    check_status("GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 405, "\r\nAllow: POST\r\n");
    check_status("DELETE /get HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 405,
                 "\r\nAllow: GET, HEAD\r\n");
    check_status("OPTIONS /echo HTTP/1.1\r\nHost: localhost\r\nOrigin: http://a.example\r\n"
                 "Access-Control-Request-Method: POST\r\nConnection: close\r\n\r\n",
                 405, "x-should-retry: false");
    check_status("GET, /get HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 405, NULL);
    check_status("GET /v1/messages HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404,
                 "{\"type\":\"error\",\"error\":{\"type\":\"not_found_error\",");
    char *answer = ask("HEAD /get HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_int_equal(status_of(answer), 200);
    assert_non_null(strstr(answer, "\r\nContent-Length: 20\r\n"));
    assert_string_equal(strstr(answer, "\r\n\r\n"), "\r\n\r\n");
    mq__free(answer);
}

static void test_a_connection_stays(void **state)
{
    (void)state;
    mq_buf heard = {0};
    const int fd = open_client();
    const char *two = "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\none"
                      "POST /later HTTP/1.1\r\nHost: localhost\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"
                      "GET /get?q=end HTTP/1.1\r\nHost: localhost\r\n\r\n";
    say(fd, two);
    hear_until(fd, &heard, "q=end h=- 0:"); /* after a refusal, too */
    assert_true(holds(&heard, "3:one"));
    assert_true(holds(&heard, "later"));
    assert_true(holds(&heard, "404"));
    mq__buf_clear(&heard);
    say(fd, "GET /get?q=again HTTP/1.1\r\nHost: localhost\r\n\r\n");
    hear_until(fd, &heard, "q=again");
    mq__buf_free(&heard);
    close(fd);
}

/* ---- attacks */

#define SAY(text) text, sizeof text - 1

static const struct {
    const char *name, *bytes;
    size_t count;
    unsigned status; /* 0: no answer is needed, the connection ends */
} attacks[] = {
    {"length and encoding",
     SAY("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
         "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
     400},
    {"two lengths",
     SAY("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"
         "hello!"),
     400},
    {"two equal lengths",
     SAY("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 5"
         "\r\n\r\nhello"),
     400},
    {"a list of lengths", SAY("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5, 5\r\n\r\nhello"), 400},
    {"xchunked", SAY("POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"), 400},
    {"chunked, identity",
     SAY("POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, identity\r\n\r\n"
         "0\r\n\r\n"),
     400},
    {"two encodings",
     SAY("POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
         "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
     400},
    {"encoding of 1.0", SAY("POST /echo HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
     400},
    {"blank before the colon", SAY("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length : 5\r\n\r\nhello"), 400},
    {"a line that continues", SAY("GET /get HTTP/1.1\r\nHost: localhost\r\nX-A: 1\r\n 2\r\n\r\n"), 400},
    {"a last line that continues", SAY("GET /get HTTP/1.1\r\nX-A: 1\r\nHost: localhost\r\n\t2\r\n\r\n"), 400},
    {"a line feed alone", SAY("GET /get HTTP/1.1\r\nHost: localhost\nX-A: 1\r\n\r\n"), 400},
    {"a line feed behind the first line", SAY("GET /get HTTP/1.1\nHost: localhost\r\n\r\n"), 400},
    {"line feeds alone", SAY("GET /get HTTP/1.1\nHost: localhost\n\n"), 400},
    {"a line feed at the end", SAY("GET /get HTTP/1.1\r\nHost: localhost\r\n\n"), 400},
    {"negative length", SAY("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n"), 400},
    {"length with a sign", SAY("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: +5\r\n\r\nhello"), 400},
    {"no length", SAY("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: \r\n\r\n"), 400},
    {"length of 2^64 + 5",
     SAY("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18446744073709551621\r\n\r\n"
         "hello"),
     413},
    {"length of 2^63", SAY("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9223372036854775808\r\n\r\nx"),
     413},
    {"a chunk of 2^64",
     SAY("POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
         "10000000000000005\r\nhello\r\n0\r\n\r\n"),
     413},
    {"a negative chunk",
     SAY("POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
         "-5\r\nhello\r\n0\r\n\r\n"),
     400},
    {"NUL in a value", SAY("GET /get HTTP/1.1\r\nHost: localhost\r\nX-A: 1\0002\r\n\r\n"), 400},
    {"NUL in the last value", SAY("GET /get HTTP/1.1\r\nX-A: 1\r\nHost: localhost\0.example\r\n\r\n"), 400},
    {"NUL in a name", SAY("GET /get HTTP/1.1\r\nHost: localhost\r\nX\0A: 1\r\n\r\n"), 400},
    {"NUL in the path", SAY("GET /get\0x HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400},
    {"control in a value", SAY("GET /get HTTP/1.1\r\nHost: localhost\r\nX-A: 1\0012\r\n\r\n"), 400},
    {"return in a value", SAY("GET /get HTTP/1.1\r\nHost: localhost\r\nX-A: 1\rX-B: 2\r\n\r\n"), 400},
    {"no name", SAY("GET /get HTTP/1.1\r\nHost: localhost\r\n: 1\r\n\r\n"), 400},
    {"no colon", SAY("GET /get HTTP/1.1\r\nHost: localhost\r\nX-A 1\r\n\r\n"), 400},
    {"no Host", SAY("GET /get HTTP/1.1\r\nX-A: 1\r\n\r\n"), 400},
    {"two Hosts", SAY("GET /get HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n"), 400},
    {"%00 in the path", SAY("GET /get%00/x HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400},
    {"%00 in the query", SAY("GET /get?q=%00 HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400},
    {"a blank in the path", SAY("GET /get x HTTP/1.1\r\nHost: localhost\r\n\r\n"), 0},
    {"another host", SAY("GET /get HTTP/1.1\r\nHost: rebound.example\r\n\r\n"), 421},
    {"another host with a known beginning", SAY("GET /get HTTP/1.1\r\nHost: localhost.example\r\n\r\n"), 421},
    {"a loopback name with more", SAY("GET /get HTTP/1.1\r\nHost: 127.0.0.1.example\r\n\r\n"), 421},
    {"a port that is none", SAY("GET /get HTTP/1.1\r\nHost: localhost:80x\r\n\r\n"), 421},
    {"another address", SAY("GET /get HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n"), 421},
    {"an empty host", SAY("GET /get HTTP/1.1\r\nHost: \r\n\r\n"), 421},
    {"no HTTP", SAY("\026\003\001\002\000\001\000\001\374\003\003 hello\r\n\r\n"), 0},
    {"HTTP/0.9", SAY("GET /get\r\n\r\n"), 0},
    {"HTTP/3", SAY("GET /get HTTP/3.0\r\nHost: localhost\r\n\r\n"), 0},
};

static void test_attacks(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof attacks / sizeof attacks[0]; i++) {
        mq_buf heard = {0};
        const int fd = open_client();
        assert_true(put(fd, attacks[i].bytes, attacks[i].count));
        const double end = seconds() + 3;
        bool open = true;
        while (open && seconds() < end) {
            open = hear(fd, &heard, 0.1);
        }
        const unsigned status = heard.len ? status_of(heard.data) : 0;
        if (open || (attacks[i].status ? status != attacks[i].status : heard.len && status < 400)) {
            fail_msg("%s: expected %u and the connection's end, got %u%s: %s", attacks[i].name, attacks[i].status,
                     status, open ? ", still open" : "", heard.data ? heard.data : "");
        }
        mq__buf_free(&heard);
        close(fd);
    }
    check_status("GET /get HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 200, NULL);
}

/* What is unusual and in order. */
static void test_odd_requests(void **state)
{
    (void)state;
    check_status("GET /get HTTP/1.0\r\n\r\n", 200, "GET /get ");
    check_status("GET /get HTTP/1.1\r\nhost:localhost\r\nX-Test:   t\r\nX-Empty:\r\nConnection: close\r\n\r\n", 200,
                 "h=t ");
    check_status("GET /get HTTP/1.1\r\nHost: LOCALHOST:9\r\nX-Test: t \t\r\nConnection: close\r\n\r\n", 200, "h=t ");
    check_status("\r\nGET /get HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n", 200, "GET /get ");
    check_status("GET /get HTTP/1.1\r\nHost: 127.0.0.9\r\nConnection: close\r\n\r\n", 200, "GET /get ");
    check_status("POST /echo HTTP/1.1\r\nHost: localhost\r\nCookie: a=b; c=\"d\"\r\nTransfer-Encoding: Chunked\r\n"
                 "Connection: close\r\n\r\n5;x=y\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n",
                 200, "5:hello");
    check_status("GET http://localhost/get HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 200, "GET /get");
    check_status("GET http://localhost HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404, NULL);
}

static void add_headers(mq_buf *request, unsigned count, unsigned bytes)
{
    for (unsigned i = 0; i < count; i++) {
        assert_true(mq__buf_printf(request, "X-Header-%u: %0*d\r\n", i, (int)bytes, 7));
    }
}

static unsigned status_with_headers(unsigned count, unsigned bytes)
{
    mq_buf request = {0};
    assert_true(mq__buf_puts(&request, "GET /get?q=last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"));
    add_headers(&request, count, bytes);
    assert_true(mq__buf_puts(&request, "\r\n"));
    char *answer = ask_bytes(request.data, request.len);
    const unsigned status = status_of(answer);
    assert_true(status != 200 || strstr(answer, "q=last"));
    mq__free(answer);
    mq__buf_free(&request);
    return status;
}

static void test_bounds_of_headers(void **state)
{
    (void)state;
    assert_int_equal(status_with_headers(100, 20), 200);
    assert_int_equal(status_with_headers(1, 60000), 200);
    assert_int_equal(status_with_headers(60, 1000), 200);
    assert_int_equal(status_with_headers(127, 20), 431);
    assert_int_equal(status_with_headers(2000, 20), 431);
    assert_int_equal(status_with_headers(70, 1000), 431);
    assert_int_equal(status_with_headers(1, 100000), 431);
}

/* However it is cut into packets, a request is the same. */
static void test_requests_in_pieces(void **state)
{
    (void)state;
    mq_buf request = {0}, heard = {0};
    const int fd = open_client();
    assert_true(mq__buf_puts(&request, "POST /echo?q=pieces HTTP/1.1\r\nHost: localhost\r\n"));
    add_headers(&request, 40, 100);
    assert_true(mq__buf_puts(&request, "X-Test: t\r\nContent-Length: 5\r\n\r\nhello"));
    for (size_t from = 0, step = 1; from < request.len; from += step, step = step * 7 % 257 + 1) {
        if (step > request.len - from) step = request.len - from;
        assert_true(put(fd, request.data + from, step));
        if (from % 3 == 0) pause_ms(1);
    }
    hear_until(fd, &heard, "POST /echo q=pieces h=t 5:hello");
    mq__buf_free(&request);
    mq__buf_free(&heard);
    close(fd);
}

/* ---- bodies */

static unsigned status_of_body(const char *head, size_t bytes, bool chunked, const char *text)
{
    mq_buf request = {0};
    assert_true(mq__buf_printf(&request, "%sHost: localhost\r\n", head));
    if (chunked) {
        assert_true(mq__buf_puts(&request, "Transfer-Encoding: chunked\r\n\r\n"));
        for (size_t sent = 0; sent < bytes; sent += 1000) {
            assert_true(mq__buf_printf(&request, "3e8\r\n%01000d\r\n", 0));
        }
        assert_true(mq__buf_puts(&request, "0\r\n\r\n"));
    } else {
        assert_true(mq__buf_printf(&request, "Content-Length: %zu\r\n\r\n", bytes));
        assert_true(mq__buf_reserve(&request, bytes));
        for (size_t i = 0; i < bytes; i++) {
            assert_true(mq__buf_putc(&request, '0'));
        }
    }
    assert_true(mq__buf_puts(&request, "GET /get?q=next HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
    char *answer = ask_bytes(request.data, request.len);
    const unsigned status = status_of(answer);
    if (text && !strstr(answer, text)) fail_msg("expected %s, got %s", text, answer);
    mq__free(answer);
    mq__buf_free(&request);
    return status;
}

/* Who sends more than is taken hears so, and can go on. */
static void test_bounds_of_bodies(void **state)
{
    (void)state;
    assert_int_equal(status_of_body("POST /echo HTTP/1.1\r\n", BODY_BYTES, false, "q=next"), 200);
    assert_int_equal(status_of_body("POST /echo HTTP/1.1\r\n", BODY_BYTES, true, "q=next"), 200);
    assert_int_equal(status_of_body("POST /echo HTTP/1.1\r\n", BODY_BYTES + 1, false, "q=next"), 413);
    assert_int_equal(status_of_body("POST /echo HTTP/1.1\r\n", BODY_BYTES + 1000, true, "q=next"), 413);
    assert_int_equal(status_of_body("POST /nowhere HTTP/1.1\r\n", BODY_BYTES, false, "q=next"), 404);
    assert_int_equal(status_of_body("POST /nowhere HTTP/1.1\r\n", BODY_BYTES, true, "q=next"), 404);
    assert_int_equal(status_of_body("GET /echo HTTP/1.1\r\n", 10, false, "q=next"), 405);
    const unsigned endless = status_of_body("POST /echo HTTP/1.1\r\n", 3 * BODY_BYTES, true, NULL);
    assert_true(endless == 413 || endless == 0);
}

static void test_who_waits_for_a_word(void **state)
{
    (void)state;
    mq_buf heard = {0};
    int fd = open_client();
    say(fd, "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    hear_until(fd, &heard, "HTTP/1.1 100 Continue\r\n\r\n");
    say(fd, "hello");
    hear_until(fd, &heard, "5:hello");
    close(fd);
    mq__buf_clear(&heard);
    fd = open_client();
    say(fd, "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999\r\nExpect: 100-continue\r\n\r\n");
    hear_until(fd, &heard, "HTTP/1.1 413 ");
    assert_true(ends_within(fd, 2));
    assert_false(holds(&heard, "100 Continue"));
    close(fd);
    mq__buf_free(&heard);
}

/* Bodies that wait for their ends fill what all may hold; whoever comes then is asked to come again. */
static void test_bound_of_all_bodies(void **state)
{
    (void)state;
    int fds[4];
    mq_buf heard = {0};
    char *some = mq__alloc_zero(1, BODY_BYTES);
    assert_non_null(some);
    for (size_t i = 0; i < 4; i++) {
        fds[i] = open_client();
        say(fds[i], "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n");
        assert_true(put(fds[i], some, BODY_BYTES - 1));
    }
    const double end = seconds() + 5;
    while (atomic_load(&server->held) < 4 * (BODY_BYTES - 1) && seconds() < end) {
        pause_ms(10);
    }
    check_status("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", 503,
                 "Retry-After");
    for (size_t i = 0; i < 4; i++) {
        assert_true(put(fds[i], some, 1));
        mq__buf_clear(&heard);
        hear_until(fds[i], &heard, "100000:");
        close(fds[i]);
    }
    check_status("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", 200,
                 NULL);
    mq__free(some);
    mq__buf_free(&heard);
}

/* ---- compressed bodies */

#ifdef MQ_ZLIB
static void deflate_to(mq_buf *out, const char *bytes, size_t count)
{
    z_stream z = {0};
    char some[4096];
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (Bytef *)(uintptr_t)bytes;
    z.avail_in = (uInt)count;
    int code = Z_OK;
    while (code == Z_OK) {
        z.next_out = (Bytef *)some;
        z.avail_out = sizeof some;
        code = deflate(&z, Z_FINISH);
        assert_true(mq__buf_append(out, some, sizeof some - z.avail_out));
    }
    assert_int_equal(code, Z_STREAM_END);
    deflateEnd(&z);
}
#endif

static void check_encoded(const char *encoding, const char *bytes, size_t count, unsigned status, const char *text)
{
    mq_buf request = {0};
    assert_true(mq__buf_printf(&request,
                               "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: %s\r\n"
                               "Content-Length: %zu\r\nConnection: close\r\n\r\n",
                               encoding, count));
    assert_true(mq__buf_append(&request, bytes, count));
    char *answer = ask_bytes(request.data, request.len);
    if (status_of(answer) != status || !strstr(answer, text)) fail_msg("expected %u %s, got %s", status, text, answer);
    mq__free(answer);
    mq__buf_free(&request);
}

static void test_compressed_bodies(void **state)
{
    (void)state;
    check_encoded("identity", "hello", 5, 200, "5:hello");
    check_encoded("br", "hello", 5, 415, "Accept-Encoding");
#ifdef MQ_ZLIB
    mq_buf gzip = {0};
    char *zeros = mq__alloc_zero(1, BODY_BYTES + 1);
    assert_non_null(zeros);
    deflate_to(&gzip, "hello", 5);
    check_encoded("gzip", gzip.data, gzip.len, 200, "5:hello");
    check_encoded("GZIP", gzip.data, gzip.len, 200, "5:hello");
    check_encoded("gzip", gzip.data, gzip.len - 1, 400, "no gzip");
    check_encoded("gzip", "hello", 5, 400, "no gzip");
    check_encoded("gzip", "", 0, 400, "no gzip");
    mq__buf_clear(&gzip);
    deflate_to(&gzip, "", 0);
    check_encoded("gzip", gzip.data, gzip.len, 200, " 0:");
    mq__buf_clear(&gzip);
    deflate_to(&gzip, zeros, BODY_BYTES);
    check_encoded("gzip", gzip.data, gzip.len, 200, "100000:");
    mq__buf_clear(&gzip);
    deflate_to(&gzip, zeros, BODY_BYTES + 1);
    assert_true(gzip.len < 1000);
    check_encoded("gzip", gzip.data, gzip.len, 413, "larger");
    mq__buf_free(&gzip);
    mq__free(zeros);
#else
    check_encoded("gzip", "hello", 5, 415, "Accept-Encoding");
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_handlers_see),
        cmocka_unit_test(test_what_answers_have),
        cmocka_unit_test(test_paths_and_methods),
        cmocka_unit_test(test_a_connection_stays),
        cmocka_unit_test(test_attacks),
        cmocka_unit_test(test_odd_requests),
        cmocka_unit_test(test_bounds_of_headers),
        cmocka_unit_test(test_requests_in_pieces),
        cmocka_unit_test(test_bounds_of_bodies),
        cmocka_unit_test(test_who_waits_for_a_word),
        cmocka_unit_test(test_bound_of_all_bodies),
        cmocka_unit_test(test_compressed_bodies),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
