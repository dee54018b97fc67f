/* Addresses of UCX workers. UCX believes what an address says of its own length, so a peer's is not given to it: where this side chose
 * interface and port, an address like its own is made from the three things in which the peer's may differ. */
#ifndef MQ_LINK_UCX_ADDRESS_H
#define MQ_LINK_UCX_ADDRESS_H

#include "link/link_ucx_port.h"

#define MQ_UCX_ADDRESS 4096u /* most bytes of an address */

typedef struct mq_ucx_place {
    uint64_t uid; /* of the worker */
    uint16_t port;
    uint16_t host_bytes; /* 4, 16; 0: this host */
    uint8_t host[16];
} mq_ucx_place;

/* Where they stand in an address. */
typedef struct mq_ucx_shape {
    size_t uid_at, port_at, host_at;
} mq_ucx_shape;

/* What an own address says. False: it is not of the form that is known. */
bool mq__ucx_address_read(const uint8_t *address, size_t bytes, uint64_t uid, const mq_ucx_port *port,
                          mq_ucx_shape *shape, mq_ucx_place *place);
/* An address like `own`, of another place. */
void mq__ucx_address_write(uint8_t *address, const uint8_t *own, size_t bytes, const mq_ucx_shape *shape,
                           const mq_ucx_place *place);

#endif
