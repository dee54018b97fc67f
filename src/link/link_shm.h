/* Ends of links through shared memory, between processes (link_shm.c) or within one (link_memory.c). */
#ifndef MQ_LINK_SHM_H
#define MQ_LINK_SHM_H

#include "link/link_impl.h"

extern const mq_link_kind mq__link_memory; /* of mq__link_pair only */

/* Mapped memory and how many ends in this process have it. */
typedef struct mq_shm_memory {
    void *base;
    atomic_int holders;
} mq_shm_memory;

/* Maps a descriptor, or memory of this process (-1), for one holder. NULL: no memory. */
mq_shm_memory *mq__shm_map(int fd);
void mq__shm_unmap(mq_shm_memory *memory);

/* An end writes to way `way` and reads the other. sockets[0]: its reader sleeps there and the other end's writer rings it;
 * sockets[1]: its writer, and the other end's reader. Takes a hold of the memory and the sockets, in case of failure, too. NULL: no memory. */
mq_link *mq__shm_link_new(const mq_link_kind *kind, mq_shm_memory *memory, int way, const int sockets[2]);

/* What the kinds share. */
mq_status mq__shm_read(mq_link *link, void *to, size_t bytes, bool *late, mq_error *error);
mq_status mq__shm_write(mq_link *link, struct iovec *parts, int count, double seconds, mq_error *error);
void mq__shm_stop(mq_link *link);
void mq__shm_free(mq_link *link);

#endif
