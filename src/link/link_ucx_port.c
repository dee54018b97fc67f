#include "link/link_ucx_port.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <ifaddrs.h>
#include <linux/filter.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static socklen_t size_of_address(int family)
{
    return family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

static in_port_t *port_of(struct sockaddr_storage *address)
{
    return address->ss_family == AF_INET6 ? &((struct sockaddr_in6 *)address)->sin6_port
                                          : &((struct sockaddr_in *)address)->sin_port;
}

/* An IPv4 address within IPv6 becomes the former. */
static void unmap(struct sockaddr_storage *address)
{
    const struct sockaddr_in6 six = *(const struct sockaddr_in6 *)address;
    if (six.sin6_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&six.sin6_addr)) return;
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = six.sin6_port};
    memcpy(&four.sin_addr, six.sin6_addr.s6_addr + 12, 4);
    memcpy(address, &four, sizeof four);
}

static bool is_same_host(const struct sockaddr *a, const struct sockaddr_storage *b)
{
    if (a->sa_family != b->ss_family) return false;
    if (a->sa_family == AF_INET) {
        return ((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr ==
               ((const struct sockaddr_in *)b)->sin_addr.s_addr;
    }
    return a->sa_family == AF_INET6 && memcmp(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr,
                                              &((const struct sockaddr_in6 *)b)->sin6_addr, 16) == 0;
}

/* UCX listens at an interface's first address, of IPv4 where it has any. */
static const struct sockaddr *first_address(const struct ifaddrs *all, const char *device)
{
    for (int i = 0; i < 2; i++) {
        for (const struct ifaddrs *a = all; a; a = a->ifa_next) {
            const bool is_its = a->ifa_addr && strcmp(a->ifa_name, device) == 0;
            if (is_its && a->ifa_addr->sa_family == (i == 0 ? AF_INET : AF_INET6)) return a->ifa_addr;
        }
    }
    return NULL;
}

static void find_device(mq_ucx_port *port, const struct sockaddr_storage *own)
{
    struct ifaddrs *all;
    if (getifaddrs(&all) != 0) return;
    const struct ifaddrs *a = all;
    while (a && !(a->ifa_addr && is_same_host(a->ifa_addr, own))) {
        a = a->ifa_next;
    }
    if (a) {
        snprintf(port->device, sizeof port->device, "%s", a->ifa_name);
        const struct sockaddr *first = first_address(all, a->ifa_name);
        memcpy(&port->address, first, size_of_address(first->sa_family));
    }
    freeifaddrs(all);
}

/* The system's choice, taken for a moment. */
static bool choose_number(struct sockaddr_storage *address)
{
    const int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t bytes = size_of_address(address->ss_family);
    *port_of(address) = 0;
    const bool is_free = fd >= 0 && bind(fd, (struct sockaddr *)address, bytes) == 0 &&
                         getsockname(fd, (struct sockaddr *)address, &bytes) == 0;
    if (fd >= 0) close(fd);
    return is_free;
}

bool mq__ucx_port_is_given(void)
{
    return getenv("UCX_TLS") || getenv("UCX_NET_DEVICES") || getenv("UCX_TCP_PORT_RANGE");
}

bool mq__ucx_port_choose(mq_ucx_port *port, int connected)
{
    struct sockaddr_storage own = {0};
    socklen_t bytes = sizeof own;
    memset(port, 0, sizeof *port);
    if (getsockname(connected, (struct sockaddr *)&own, &bytes) != 0) return false;
    unmap(&own);
    find_device(port, &own);
    return port->device[0] && choose_number(&port->address);
}

uint16_t mq__ucx_port_number(const mq_ucx_port *port)
{
    struct sockaddr_storage address = port->address;
    return address.ss_family == AF_UNSPEC ? 0 : ntohs(*port_of(&address));
}

static bool listens_there(int fd, const mq_ucx_port *port)
{
    int listens = 0;
    socklen_t bytes = sizeof listens;
    struct sockaddr_storage own = {0}, wanted = port->address;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &bytes) != 0 || !listens) return false;
    bytes = sizeof own;
    return getsockname(fd, (struct sockaddr *)&own, &bytes) == 0 && is_same_host((struct sockaddr *)&wanted, &own) &&
           *port_of(&own) == *port_of(&wanted);
}

/* A filter that takes no packet; connections that are there have their own. */
static void drop_packets(int fd)
{
    struct sock_filter none = {.code = BPF_RET | BPF_K, .k = 0};
    const struct sock_fprog program = {.len = 1, .filter = &none};
    (void)setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

void mq__ucx_port_deafen(const mq_ucx_port *port)
{
    DIR *fds = port->address.ss_family == AF_UNSPEC ? NULL : opendir("/proc/self/fd");
    if (!fds) return;
    for (const struct dirent *entry = readdir(fds); entry; entry = readdir(fds)) {
        const int fd = atoi(entry->d_name);
        if (fd > 0 && listens_there(fd, port)) drop_packets(fd);
    }
    closedir(fds);
}
