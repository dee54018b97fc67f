#include "link/link_ucx_address.h"

#include <string.h>

static bool is_loopback(const mq_ucx_place *place)
{
    static const uint8_t six[16] = {[15] = 1};
    return place->host_bytes == 4 ? place->host[0] == 127 : memcmp(place->host, six, sizeof six) == 0;
}

/* The only place of some bytes. */
static bool find_once(const uint8_t *in, size_t bytes, const void *what, size_t count, size_t *at)
{
    const uint8_t *first = memmem(in, bytes, what, count);
    if (!first) return false;
    *at = (size_t)(first - in);
    return !memmem(first + 1, bytes - *at - 1, what, count);
}

static void read_host(const mq_ucx_port *port, mq_ucx_place *place)
{
    if (port->address.ss_family == AF_INET) {
        place->host_bytes = 4;
        memcpy(place->host, &((const struct sockaddr_in *)&port->address)->sin_addr, 4);
    } else {
        place->host_bytes = 16;
        memcpy(place->host, &((const struct sockaddr_in6 *)&port->address)->sin6_addr, 16);
    }
    if (is_loopback(place))
        place->host_bytes = 0; /* UCX names the host's network instead, and so the same on both sides */
}

static void write_port(uint8_t bytes[2], uint16_t port)
{
    bytes[0] = (uint8_t)(port >> 8);
    bytes[1] = (uint8_t)port;
}

bool mq__ucx_address_read(const uint8_t *address, size_t bytes, uint64_t uid, const mq_ucx_port *port,
                          mq_ucx_shape *shape, mq_ucx_place *place)
{
    uint8_t number[2];
    *shape = (mq_ucx_shape){0};
    *place = (mq_ucx_place){.uid = uid, .port = mq__ucx_port_number(port)};
    read_host(port, place);
    write_port(number, place->port);
    return find_once(address, bytes, &uid, sizeof uid, &shape->uid_at) &&
           find_once(address, bytes, number, sizeof number, &shape->port_at) &&
           (place->host_bytes == 0 || find_once(address, bytes, place->host, place->host_bytes, &shape->host_at));
}

void mq__ucx_address_write(uint8_t *address, const uint8_t *own, size_t bytes, const mq_ucx_shape *shape,
                           const mq_ucx_place *place)
{
    memcpy(address, own, bytes);
    memcpy(address + shape->uid_at, &place->uid, sizeof place->uid);
    write_port(address + shape->port_at, place->port);
    memcpy(address + shape->host_at, place->host, place->host_bytes);
}
