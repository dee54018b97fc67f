/* The listening socket: an address, or a path. */
#include "base/error.h"
#include "server/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static bool is_loopback_address(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        return ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr) >> 24 == 127;
    }
    return address->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
}

static mq_status listen_address(mq_server *server, const struct addrinfo *a, mq_error *error)
{
    const int on = 1;
    if (!server->keys && !server->options.insecure && !is_loopback_address(a->ai_addr)) {
        return mq__fail(error, MQ_USAGE,
                        "server: %s: expected API keys (--api-key-file) or --insecure for an address that others "
                        "reach, got neither",
                        server->host);
    }
    server->listener = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (server->listener < 0) return mq__fail(error, MQ_IO, "server: socket: %s", strerror(errno));
    (void)setsockopt(server->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(server->listener, a->ai_addr, a->ai_addrlen) != 0 || listen(server->listener, 511) != 0) {
        return mq__fail(error, MQ_IO, "server: %s port %u: %s", server->host, server->options.port, strerror(errno));
    }
    struct sockaddr_storage bound;
    socklen_t count = sizeof bound;
    if (getsockname(server->listener, (struct sockaddr *)&bound, &count) == 0) {
        server->port = ntohs(bound.ss_family == AF_INET ? ((struct sockaddr_in *)&bound)->sin_port
                                                        : ((struct sockaddr_in6 *)&bound)->sin6_port);
    }
    return MQ_OK;
}

static mq_status listen_tcp(mq_server *server, mq_error *error)
{
    char port[8];
    struct addrinfo *found, hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    snprintf(port, sizeof port, "%u", server->options.port);
    const int code = getaddrinfo(server->host, port, &hints, &found);
    if (code != 0) return mq__fail(error, MQ_USAGE, "server: %s: %s", server->host, gai_strerror(code));
    const mq_status status = listen_address(server, found, error);
    freeaddrinfo(found);
    return status;
}

/* A socket that a dead server left is replaced; one that answers is not. */
static mq_status listen_unix(mq_server *server, mq_error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = server->unix_socket;
    if (strlen(path) >= sizeof address.sun_path) {
        return mq__fail(error, MQ_USAGE, "server: %s: expected a path below %zu bytes", path, sizeof address.sun_path);
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    server->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (server->listener < 0) return mq__fail(error, MQ_IO, "server: socket: %s", strerror(errno));
    struct stat facts;
    if (lstat(path, &facts) == 0 && S_ISSOCK(facts.st_mode)) {
        if (connect(server->listener, (struct sockaddr *)&address, sizeof address) == 0) {
            return mq__fail(error, MQ_IO, "server: %s: expected a free path, got a server that listens on it", path);
        }
        (void)unlink(path);
    }
    const mode_t mask = umask(0177);
    const bool bound = bind(server->listener, (struct sockaddr *)&address, sizeof address) == 0;
    (void)umask(mask);
    if (bound && listen(server->listener, 511) == 0) return MQ_OK;
    return mq__fail(error, MQ_IO, "server: %s: %s", path, strerror(errno));
}

mq_status mq__server_listen(mq_server *server, mq_error *error)
{
    return server->unix_socket ? listen_unix(server, error) : listen_tcp(server, error);
}
