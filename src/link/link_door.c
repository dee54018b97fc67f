#include "link/link_door.h"

#include "base/error.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAUSE_MS 100 /* while the process has no descriptor or memory for another connection */

typedef struct door {
    mq_link_listener listener;
    int fd;
    int closes; /* an eventfd: readable when the door is to be closed */
    mq_door_welcome *welcome;
    atomic_int *crowd;
    pthread_t thread;
} door;

static void hand_over(door *d, int fd)
{
    if (atomic_fetch_add(d->crowd, 1) > MQ_DOOR_MOST) {
        mq__link_leave(d->crowd);
        close(fd);
        return;
    }
    mq_link *link = d->welcome(fd);
    if (!link) {
        mq__link_leave(d->crowd);
        return;
    }
    link->crowd = d->crowd;
    link->is_accepted = true;
    d->listener.accepted(d->listener.context, link, link->where);
}

/* What concerns one connection, not the process. */
static bool is_passing(int code)
{
    return code == EINTR || code == EAGAIN || code == ECONNABORTED || code == EPERM || code == EPROTO;
}

static void *keep_door(void *argument)
{
    door *d = argument;
    struct pollfd both[2] = {{.fd = d->closes, .events = POLLIN}, {.fd = d->fd, .events = POLLIN}};
    for (;;) {
        if (poll(both, 2, -1) < 0 && errno != EINTR) return NULL;
        if (both[0].revents != 0) return NULL;
        const int fd = accept4(d->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            hand_over(d, fd);
        } else if (!is_passing(errno)) {
            (void)poll(both, 1, PAUSE_MS);
        }
    }
}

static void free_door(door *d)
{
    if (d->fd >= 0) close(d->fd);
    if (d->closes >= 0) close(d->closes);
    mq__link_leave(d->crowd);
    mq__free(d);
}

mq_status mq__door_open(int fd, const mq_link_listener *like, mq_door_welcome *welcome, mq_link_listener **listener,
                        mq_error *error)
{
    door *d = mq__alloc_zero(1, sizeof *d);
    if (!d) {
        close(fd);
        return mq__fail(error, MQ_NO_MEMORY, "link: listener: expected memory, got none");
    }
    *d = (door){.listener = *like, .fd = fd, .closes = eventfd(0, EFD_CLOEXEC), .welcome = welcome};
    d->crowd = mq__alloc(sizeof *d->crowd);
    if (d->crowd) atomic_init(d->crowd, 1);
    if (!d->crowd || d->closes < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) != 0 ||
        pthread_create(&d->thread, NULL, keep_door, d) != 0) {
        free_door(d);
        return mq__fail(error, MQ_NO_MEMORY, "link: listener: expected memory, a descriptor and a thread, got %s",
                        strerror(errno));
    }
    *listener = &d->listener;
    return MQ_OK;
}

void mq__door_close(mq_link_listener *listener)
{
    door *d = (door *)listener;
    const uint64_t one = 1;
    (void)!write(d->closes, &one, sizeof one); /* the first write to an eventfd does not fail */
    pthread_join(d->thread, NULL);
    free_door(d);
}
