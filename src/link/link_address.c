#include "link/link_address.h"

#include "base/error.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/wait.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* getaddrinfo has no deadline, so it runs on a thread that is left to itself when it is late: who comes last frees. */
typedef struct lookup {
    pthread_mutex_t lock; /* of all below but host and port */
    pthread_cond_t done;
    int holders;
    bool is_done;
    int code;
    struct addrinfo *found; /* NULL: none, or they were taken */
    char port[8];
    char host[]; /* NUL-terminated */
} lookup;

static const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};

/* NULL: no memory. For the caller and the thread. */
static lookup *new_lookup(const char *host, const char *port)
{
    lookup *l = mq__alloc_zero(1, sizeof *l + strlen(host) + 1);
    if (!l) return NULL;
    if (!mq__cond_init(&l->done)) {
        mq__free(l);
        return NULL;
    }
    pthread_mutex_init(&l->lock, NULL);
    l->holders = 2;
    snprintf(l->port, sizeof l->port, "%s", port);
    memcpy(l->host, host, strlen(host));
    return l;
}

static void let_go(lookup *l)
{
    pthread_mutex_lock(&l->lock);
    const bool is_last = --l->holders == 0;
    pthread_mutex_unlock(&l->lock);
    if (!is_last) return;
    if (l->found) freeaddrinfo(l->found);
    pthread_cond_destroy(&l->done);
    pthread_mutex_destroy(&l->lock);
    mq__free(l);
}

static void *look_up(void *argument)
{
    lookup *l = argument;
    struct addrinfo *found = NULL;
    const int code = getaddrinfo(l->host, l->port, &hints, &found);
    pthread_mutex_lock(&l->lock);
    l->code = code;
    l->found = code == 0 ? found : NULL;
    l->is_done = true;
    pthread_cond_signal(&l->done);
    pthread_mutex_unlock(&l->lock);
    let_go(l);
    return NULL;
}

static bool start_detached(void *(*function)(void *), void *argument)
{
    pthread_t thread;
    pthread_attr_t detached;
    if (pthread_attr_init(&detached) != 0) return false;
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    const bool started = pthread_create(&thread, &detached, function, argument) == 0;
    pthread_attr_destroy(&detached);
    return started;
}

/* A code of getaddrinfo's; EAI_AGAIN as well when it is late. */
static int wait_for_lookup(lookup *l, double seconds, struct addrinfo **found)
{
    const double until = mq__seconds() + seconds;
    int code = EAI_AGAIN;
    pthread_mutex_lock(&l->lock);
    while (!l->is_done && mq__cond_wait_until(&l->done, &l->lock, until)) {}
    if (l->is_done) {
        code = l->code;
        *found = l->found;
        l->found = NULL;
    }
    pthread_mutex_unlock(&l->lock);
    return code;
}

static int resolve_name(const char *host, const char *port, double seconds, struct addrinfo **found)
{
    lookup *l = new_lookup(host, port);
    if (!l) return EAI_MEMORY;
    if (!start_detached(look_up, l)) {
        l->holders = 1;
        let_go(l);
        return EAI_MEMORY;
    }
    const int code = wait_for_lookup(l, seconds, found);
    let_go(l);
    return code;
}

mq_status mq__link_resolve(const char *host, uint16_t port, double seconds, struct addrinfo **found, mq_error *error)
{
    char number[8];
    struct addrinfo numeric = hints;
    numeric.ai_flags |= AI_NUMERICHOST;
    *found = NULL;
    snprintf(number, sizeof number, "%u", port);
    int code = getaddrinfo(host, number, &numeric, found);
    if (code == EAI_NONAME) code = resolve_name(host, number, seconds, found);
    if (code == 0) return MQ_OK;
    return mq__fail(error, MQ_IO, "link: %s: expected a name or address, got %s", host, gai_strerror(code));
}

void mq__link_address_text(const struct sockaddr *address, socklen_t bytes, char *text, size_t room)
{
    char numeric[NI_MAXHOST] = "?";
    (void)getnameinfo(address, bytes, numeric, sizeof numeric, NULL, 0, NI_NUMERICHOST);
    const bool is_mapped = address->sa_family == AF_INET6 &&
                           IN6_IS_ADDR_V4MAPPED(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
    snprintf(text, room, "%s", is_mapped && strncmp(numeric, "::ffff:", 7) == 0 ? numeric + 7 : numeric);
}
