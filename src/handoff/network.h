/* Names of peers as text, and networks that requests may name peers of. No name is looked up here. */
#ifndef MQ_NETWORK_H
#define MQ_NETWORK_H

#include "mixquant.h"

#define MQ_HOST_MOST 256

/* "HOST:PORT", "[v6]:PORT", or the same after "link://". */
typedef struct mq_peer_name {
    char host[MQ_HOST_MOST]; /* without brackets */
    uint16_t port;
    bool is_link; /* the address of a link, not of an HTTP server */
} mq_peer_name;

/* MQ_USAGE: it is no such name. */
mq_status mq__peer_name_read(const char *text, mq_peer_name *name, mq_error *error);

typedef struct mq_network {
    int family; /* AF_INET, AF_INET6 */
    uint8_t bytes[16];
    unsigned bits;
} mq_network;

/* "10.0.0.0/8", "fd00::/8", or one address. MQ_USAGE: another text, or bits behind the prefix. */
mq_status mq__network_read(const char *text, mq_network *network, mq_error *error);
/* Whether the host is a numeric address of it. */
bool mq__network_has(const mq_network *network, const char *host);
bool mq__is_loopback(const char *host);

#endif
