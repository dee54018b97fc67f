/* The port where UCX takes connections for one link: at the interface of that link only, and deaf as soon as the peer is there.
 *
 * UCX trusts whoever speaks its protocol: a stranger there could end the process, or write to its memory. */
#ifndef MQ_LINK_UCX_PORT_H
#define MQ_LINK_UCX_PORT_H

#include "mixquant.h"

#include <net/if.h>
#include <netinet/in.h>

typedef struct mq_ucx_port {
    char device[IF_NAMESIZE];        /* the interface that a connected socket uses; "": unknown */
    struct sockaddr_storage address; /* where UCX will listen; ss_family 0: it chooses itself */
} mq_ucx_port;

/* Whether the environment chooses interfaces, transports or ports. */
bool mq__ucx_port_is_given(void);
/* Finds the interface, and a port of it that is free now. False: there is none. */
bool mq__ucx_port_choose(mq_ucx_port *port, int connected);
uint16_t mq__ucx_port_number(const mq_ucx_port *port); /* 0: UCX chooses */
/* Who connects from now on gets no answer. Not before UCX listens there. */
void mq__ucx_port_deafen(const mq_ucx_port *port);

#endif
