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

#define BACKLOG 511

static bool is_loopback_address(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        return ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr) >> 24 == 127;
    }
    return address->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
}

/* Bound and listening, or an errno. */
static int open_address(mq_server *server, const struct addrinfo *a)
{
    const int on = 1;
    const int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return errno;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0) {
        server->listener = fd;
        return 0;
    }
    const int code = errno;
    close(fd);
    return code;
}

static void note_port(mq_server *server)
{
    struct sockaddr_storage bound;
    socklen_t count = sizeof bound;
    if (getsockname(server->listener, (struct sockaddr *)&bound, &count) != 0) return;
    server->port = ntohs(bound.ss_family == AF_INET ? ((struct sockaddr_in *)&bound)->sin_port
                                                    : ((struct sockaddr_in6 *)&bound)->sin6_port);
}

/* The first of a name's addresses that can be had. */
static mq_status listen_any(mq_server *server, const struct addrinfo *found, mq_error *error)
{
    int code = 0;
    for (const struct addrinfo *a = found; a && server->listener < 0; a = a->ai_next) {
        server->is_loopback = is_loopback_address(a->ai_addr);
        if (!server->keys && !server->options.insecure && !server->is_loopback) {
            return mq__fail(error, MQ_USAGE,
                            "server: %s: expected API keys (--api-key-file) or --insecure for an address that others "
                            "reach, got neither",
                            server->host);
        }
        code = open_address(server, a);
    }
    if (server->listener < 0) {
        return mq__fail(error, MQ_USAGE, "server: %s port %u: expected a free address of this machine, got %s",
                        server->host, server->options.port, strerror(code));
    }
    note_port(server);
    return MQ_OK;
}

static mq_status listen_tcp(mq_server *server, mq_error *error)
{
    char port[8];
    struct addrinfo *found, hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    snprintf(port, sizeof port, "%u", server->options.port);
    const int code = getaddrinfo(server->host, port, &hints, &found);
    if (code != 0) {
        return mq__fail(error, MQ_USAGE, "server: %s: expected a name or address of this machine, got %s", server->host,
                        gai_strerror(code));
    }
    const mq_status status = listen_any(server, found, error);
    freeaddrinfo(found);
    return status;
}

/* A socket that a dead server left goes; one that answers stays. */
static bool is_taken(const struct sockaddr_un *address)
{
    struct stat facts;
    if (lstat(address->sun_path, &facts) != 0 || !S_ISSOCK(facts.st_mode)) return false;
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool answers = fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof *address) == 0;
    if (fd >= 0) close(fd);
    if (!answers) (void)unlink(address->sun_path);
    return answers;
}

static mq_status listen_unix(mq_server *server, mq_error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = server->unix_socket;
    if (strlen(path) >= sizeof address.sun_path) {
        return mq__fail(error, MQ_USAGE, "server: %s: expected a path below %zu bytes, got %zu", path,
                        sizeof address.sun_path, strlen(path));
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (is_taken(&address)) {
        return mq__fail(error, MQ_USAGE, "server: %s: expected a free path, got one that a server listens on", path);
    }
    server->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* Before bind: the file never has another mode. */
    const bool ready = server->listener >= 0 && fchmod(server->listener, 0600) == 0;
    server->has_socket_file = ready && bind(server->listener, (struct sockaddr *)&address, sizeof address) == 0;
    if (server->has_socket_file && listen(server->listener, BACKLOG) == 0) return MQ_OK;
    return mq__fail(error, MQ_USAGE, "server: %s: expected to make a socket there, got %s", path, strerror(errno));
}

mq_status mq__server_listen(mq_server *server, mq_error *error)
{
    return server->unix_socket ? listen_unix(server, error) : listen_tcp(server, error);
}
