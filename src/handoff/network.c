#include "handoff/network.h"

#include "base/error.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- names */

static bool is_host_byte(char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') ||
           byte == '.' || byte == '-' || byte == '_';
}

static bool is_plain_host(const char *host)
{
    for (const char *at = host; *at; at++) {
        if (!is_host_byte(*at)) return false;
    }
    return host[0] != '\0' && host[0] != '-';
}

static bool read_port(const char *text, uint16_t *port)
{
    unsigned long value = 0;
    size_t digits = 0;
    for (; text[digits] >= '0' && text[digits] <= '9' && digits < 6; digits++) {
        value = 10 * value + (unsigned long)(text[digits] - '0');
    }
    *port = (uint16_t)value;
    return digits > 0 && text[digits] == '\0' && value > 0 && value <= 65535;
}

/* The host between `from` and `to`. */
static bool copy_host(const char *from, const char *to, mq_peer_name *name)
{
    const size_t bytes = (size_t)(to - from);
    if (bytes == 0 || bytes >= sizeof name->host) return false;
    memcpy(name->host, from, bytes);
    name->host[bytes] = '\0';
    return true;
}

static bool read_host_port(const char *text, mq_peer_name *name)
{
    uint8_t address[16];
    if (text[0] == '[') {
        const char *end = strchr(text, ']');
        return end && end[1] == ':' && copy_host(text + 1, end, name) &&
               inet_pton(AF_INET6, name->host, address) == 1 && read_port(end + 2, &name->port);
    }
    const char *colon = strchr(text, ':');
    return colon && copy_host(text, colon, name) && is_plain_host(name->host) && read_port(colon + 1, &name->port);
}

mq_status mq__peer_name_read(const char *text, mq_peer_name *name, mq_error *error)
{
    static const char prefix[] = "link://";
    *name = (mq_peer_name){.is_link = strncmp(text, prefix, sizeof prefix - 1) == 0};
    if (read_host_port(text + (name->is_link ? sizeof prefix - 1 : 0), name)) return MQ_OK;
    return mq__fail(error, MQ_USAGE, "hand-off: peer: expected HOST:PORT, got \"%.64s\"", text);
}

/* ---- networks */

/* A numeric address; one of IPv4 that is written as IPv6 is one of IPv4. */
static bool read_address(const char *text, int *family, uint8_t bytes[16])
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    memset(bytes, 0, 16);
    *family = AF_INET;
    if (inet_pton(AF_INET, text, bytes) == 1) return true;
    *family = AF_INET6;
    if (inet_pton(AF_INET6, text, bytes) != 1) return false;
    if (memcmp(bytes, mapped, sizeof mapped) != 0) return true;
    *family = AF_INET;
    memmove(bytes, bytes + 12, 4);
    memset(bytes + 4, 0, 12);
    return true;
}

static bool same_prefix(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    const unsigned whole = bits / 8, rest = bits % 8;
    if (memcmp(a, b, whole) != 0) return false;
    return rest == 0 || ((a[whole] ^ b[whole]) >> (8 - rest)) == 0;
}

static bool read_network(const char *text, mq_network *network)
{
    char address[64];
    static const uint8_t zero[16];
    const char *slash = strchr(text, '/');
    const size_t bytes = slash ? (size_t)(slash - text) : strlen(text);
    if (bytes >= sizeof address) return false;
    memcpy(address, text, bytes);
    address[bytes] = '\0';
    if (!read_address(address, &network->family, network->bytes)) return false;
    const unsigned most = network->family == AF_INET ? 32 : 128;
    uint16_t bits = 0;
    if (slash && strcmp(slash, "/0") != 0 && (!read_port(slash + 1, &bits) || bits > most)) return false;
    network->bits = slash ? bits : most;
    /* what is behind the prefix must be zero: another network was meant */
    uint8_t rest[16];
    memcpy(rest, network->bytes, sizeof rest);
    for (unsigned i = 0; i < network->bits; i++) {
        rest[i / 8] &= (uint8_t) ~(0x80u >> i % 8);
    }
    return memcmp(rest, zero, sizeof rest) == 0;
}

mq_status mq__network_read(const char *text, mq_network *network, mq_error *error)
{
    *network = (mq_network){0};
    if (read_network(text, network)) return MQ_OK;
    return mq__fail(error, MQ_USAGE, "hand-off: network: expected one as 10.0.0.0/8 or fd00::/8, got \"%.64s\"", text);
}

bool mq__network_has(const mq_network *network, const char *host)
{
    int family;
    uint8_t bytes[16];
    return read_address(host, &family, bytes) && family == network->family &&
           same_prefix(bytes, network->bytes, network->bits);
}

bool mq__is_loopback(const char *host)
{
    static const mq_network v4 = {.family = AF_INET, .bytes = {127}, .bits = 8};
    static const mq_network v6 = {.family = AF_INET6, .bytes = {[15] = 1}, .bits = 128};
    return strcmp(host, "localhost") == 0 || mq__network_has(&v4, host) || mq__network_has(&v6, host);
}
