/* Addresses of tcp links: names to addresses within a time, and addresses as text. */
#ifndef MQ_LINK_ADDRESS_H
#define MQ_LINK_ADDRESS_H

#include "mixquant.h"

#include <netdb.h>

/* The addresses of a host's port; freeaddrinfo. A name server that does not answer is given up after so many seconds. */
mq_status mq__link_resolve(const char *host, uint16_t port, double seconds, struct addrinfo **found, mq_error *error);

/* "10.0.0.2", "fd00::2"; an IPv4 address within IPv6 as the former. */
void mq__link_address_text(const struct sockaddr *address, socklen_t bytes, char *text, size_t room);

#endif
