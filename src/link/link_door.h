/* A door: the listener of kinds whose links are sockets. It outlives connections that fail, a process without free descriptors, and
 * crowds: beyond MQ_DOOR_MOST links that are open, those that come are closed. */
#ifndef MQ_LINK_DOOR_H
#define MQ_LINK_DOOR_H

#include "link/link_impl.h"

#define MQ_DOOR_MOST    256
#define MQ_DOOR_BACKLOG 64

/* Takes the connection: a link, or NULL and it is closed. Must not wait for the peer. */
typedef mq_link *mq_door_welcome(int fd);

/* Takes the listening socket, in case of failure, too. */
mq_status mq__door_open(int fd, const mq_link_listener *like, mq_door_welcome *welcome, mq_link_listener **listener,
                        mq_error *error);
void mq__door_close(mq_link_listener *listener);

#endif
