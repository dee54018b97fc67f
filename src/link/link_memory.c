/* Two ends within this process, through the memory and with the bells of links between processes. */
#include "link/link_shm.h"

#include "base/error.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

const mq_link_kind mq__link_memory = {
    .name = "memory",
    .read = mq__shm_read,
    .write = mq__shm_write,
    .stop = mq__shm_stop,
    .free = mq__shm_free,
};

static bool make_sockets(int pair[2])
{
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0;
}

/* Takes the sockets, and both holds of the memory. */
static mq_status make_ends(mq_shm_memory *memory, const int readers[2], const int writers[2], mq_link **a, mq_link **b,
                           mq_error *error)
{
    const int of_a[2] = {readers[0], writers[0]}, of_b[2] = {readers[1], writers[1]};
    *a = mq__shm_link_new(&mq__link_memory, memory, 0, of_a);
    *b = mq__shm_link_new(&mq__link_memory, memory, 1, of_b);
    if (*a && *b) return MQ_OK;
    mq__link_close(*a);
    mq__link_close(*b);
    *a = *b = NULL;
    return mq__fail(error, MQ_NO_MEMORY, "link: pair: expected memory, got none");
}

mq_status mq__link_pair(mq_link **a, mq_link **b, mq_error *error)
{
    int readers[2], writers[2];
    *a = *b = NULL;
    if (!make_sockets(readers)) {
        return mq__fail(error, MQ_NO_MEMORY, "link: pair: expected four descriptors, got %s", strerror(errno));
    }
    if (!make_sockets(writers)) {
        (void)mq__fail(error, MQ_NO_MEMORY, "link: pair: expected four descriptors, got %s", strerror(errno));
        close(readers[0]);
        close(readers[1]);
        return MQ_NO_MEMORY;
    }
    mq_shm_memory *memory = mq__shm_map(-1);
    if (memory) {
        atomic_store(&memory->holders, 2);
        return make_ends(memory, readers, writers, a, b, error);
    }
    for (int i = 0; i < 2; i++) {
        close(readers[i]);
        close(writers[i]);
    }
    return mq__fail(error, MQ_NO_MEMORY, "link: pair: expected memory, got none");
}
