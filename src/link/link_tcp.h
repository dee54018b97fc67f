/* Sockets of tcp links, for kinds that meet over one. */
#ifndef MQ_LINK_TCP_H
#define MQ_LINK_TCP_H

#include "mixquant.h"

/* A connected socket that blocks. */
mq_status mq__tcp_connect_socket(const char *host, uint16_t port, double seconds, int *fd, mq_error *error);
/* Listens at the first of a name's addresses that can be had. bound: its port. */
mq_status mq__tcp_listen_socket(const char *host, uint16_t port, int *fd, uint16_t *bound, mq_error *error);

void mq__tcp_set_options(int fd);                     /* no delay, and a peer that vanished is noticed */
void mq__tcp_where(int fd, char *where, size_t room); /* the peer's address as text */

#endif
