/* A server with routes of the test's own, and raw sockets to it. */
#ifndef UNIT_HTTP_H
#define UNIT_HTTP_H

#include "base/pool.h"
#include "server/http.h"
#include "unit_files.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

static mq_server *server;

static inline double seconds(void)
{
    return mq__seconds();
}

static inline void pause_ms(int ms)
{
    (void)nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

static inline void start_server(const mq_server_options *options, const http_route *routes, size_t count)
{
    mq_error error = {0};
    const mq_server_options standard = {0};
    const mq_status status = mq__server_start_with(options ? options : &standard, routes, count, &server, &error);
    if (status != MQ_OK) fail_msg("%s", error.text);
    mq__server_ready(server, &(mq_served_model){.name = "m"}, &(mq_backend){0});
}

static inline void stop_server(void)
{
    mq__server_stop(server);
    server = NULL;
}

/* ---- a client */

static inline int open_client(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(mq__server_port(server))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

/* False: the server closed meanwhile. */
static inline bool put(int fd, const char *bytes, size_t count)
{
    while (count) {
        const ssize_t n = send(fd, bytes, count, MSG_NOSIGNAL);
        if (n <= 0) return false;
        bytes += n;
        count -= (size_t)n;
    }
    return true;
}

static inline void say(int fd, const char *text)
{
    (void)put(fd, text, strlen(text));
}

/* Appends what comes within so many seconds; false: the connection has ended. */
static inline bool hear(int fd, mq_buf *heard, double within)
{
    char some[65536];
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, (int)(within * 1e3)) <= 0) return true;
    const ssize_t n = recv(fd, some, sizeof some, 0);
    if (n > 0) assert_true(mq__buf_append(heard, some, (size_t)n));
    return n > 0;
}

static inline bool holds(const mq_buf *heard, const char *text)
{
    return heard->len && memmem(heard->data, heard->len, text, strlen(text));
}

/* Until `text` has come. */
static inline void hear_until(int fd, mq_buf *heard, const char *text)
{
    const double end = seconds() + 5;
    while (!holds(heard, text)) {
        if (seconds() > end || !hear(fd, heard, 0.1)) {
            fail_msg("expected \"%s\", got \"%s\"", text, heard->data ? heard->data : "");
        }
    }
}

static inline bool ends_within(int fd, double within)
{
    mq_buf heard = {0};
    const double end = seconds() + within;
    bool open = true;
    while (open && seconds() < end) {
        open = hear(fd, &heard, end - seconds());
    }
    mq__buf_free(&heard);
    return !open;
}

/* Sends, and returns all that comes up to the connection's end, or up to a second of silence. Owned: mq__free. */
static inline char *ask_bytes(const char *request, size_t count)
{
    mq_buf heard = {0};
    const int fd = open_client();
    size_t before = 0;
    double end = seconds() + 1;
    (void)put(fd, request, count);
    while (seconds() < end && hear(fd, &heard, 0.1)) {
        if (heard.len > before) end = seconds() + 1;
        before = heard.len;
    }
    close(fd);
    assert_true(mq__buf_putc(&heard, '\0'));
    return heard.data;
}

static inline char *ask(const char *request)
{
    return ask_bytes(request, strlen(request));
}

static inline unsigned status_of(const char *answer)
{
    unsigned status = 0;
    (void)sscanf(answer, "HTTP/1.1 %u", &status);
    return status;
}

#endif
