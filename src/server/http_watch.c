/* The watcher: a thread that looks at connections four times a second, and at once when a client hangs up. libmicrohttpd does not look at
 * suspended connections, and its time-out starts anew with every byte. */
#include "base/mem.h"
#include "base/pool.h"
#include "server/http.h"

#include <linux/sockios.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define PAUSE_MS 250

/* Its client has hung up and everything it sent was read: it sends no request any more. libmicrohttpd misses an end that comes with
 * the last bytes. Twice, so that a request that was just read has become an exchange. */
static bool has_left(http_connection *c)
{
    int unread = 0;
    struct pollfd fd = {.fd = c->fd, .events = POLLRDHUP};
    const bool left = poll(&fd, 1, 0) == 1 && ioctl(c->fd, FIONREAD, &unread) == 0 && unread == 0;
    const bool again = left && c->left_at == c->since;
    c->left_at = left ? c->since : 0;
    return again;
}

/* Who takes too long to send a request is cut off. Under the server's lock: a connection in the list has its descriptor open. */
static void reap(mq_server *server, double now)
{
    for (http_connection *c = server->connections; c; c = c->next) {
        if (c->allowed > 0 && (now - c->since > c->allowed || has_left(c))) {
            c->allowed = 0;
            (void)shutdown(c->fd, SHUT_RDWR);
        }
    }
}

/* What poll looks at, and whose connections they are: a descriptor may be another's by the time that poll returns. */
typedef struct watched {
    struct pollfd *fds;
    uint64_t *ids;
    size_t count, room;
} watched;

static bool watched_room(watched *w)
{
    if (w->count < w->room) return true;
    const size_t room = 2 * w->room + 64;
    struct pollfd *fds = mq__realloc(w->fds, room * sizeof *fds);
    if (fds) w->fds = fds;
    uint64_t *ids = fds ? mq__realloc(w->ids, room * sizeof *ids) : NULL;
    if (ids) w->ids = ids;
    if (ids) w->room = room;
    return ids != NULL;
}

/* Connections whose answer is not complete. Under the server's lock. */
static void list_running(mq_server *server, watched *w)
{
    w->count = 0;
    for (mq_exchange *x = server->exchanges; x && watched_room(w); x = x->next) {
        pthread_mutex_lock(&x->lock);
        const bool runs = x->socket && !x->cut && (x->stage == HTTP_RUNNING || x->stage == HTTP_STREAM);
        pthread_mutex_unlock(&x->lock);
        if (!runs) continue;
        w->ids[w->count] = x->socket->id;
        w->fds[w->count++] = (struct pollfd){.fd = x->socket->fd, .events = POLLRDHUP};
    }
}

/* A client that closes its side, even half of it, does not wait for the answer. */
static void cut_gone(mq_server *server, const watched *w)
{
    for (size_t i = 0; i < w->count; i++) {
        if (!(w->fds[i].revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL))) continue;
        for (mq_exchange *x = server->exchanges; x; x = x->next) {
            if (x->socket && x->socket->id == w->ids[i]) mq__exchange_cut(x);
        }
    }
}

/* A client that reads nothing for long, while there is something for it. Under the server's lock. */
static void cut_stuck(mq_server *server, double now)
{
    for (mq_exchange *x = server->exchanges; x; x = x->next) {
        http_connection *c = x->socket;
        int unsent = 0;
        if (!c || ioctl(c->fd, SIOCOUTQ, &unsent) != 0) continue;
        if (unsent == 0 || unsent != c->unsent) {
            c->unsent = unsent;
            c->moved = now;
        } else if (now - c->moved > server->options.limits.write_s) {
            c->moved = now;
            mq__exchange_cut(x);
        }
    }
}

/* One that has not had this tick, its hooks locked: `gone` waits. Under the server's lock. */
static mq_exchange *next_ticked(mq_server *server, uint64_t tick)
{
    for (mq_exchange *x = server->exchanges; x; x = x->next) {
        if (x->ticked == tick) continue;
        x->ticked = tick;
        pthread_mutex_lock(&x->hook_lock);
        if (x->hooked && x->hooks.tick) return x;
        pthread_mutex_unlock(&x->hook_lock);
    }
    return NULL;
}

/* Hooks run without the server's lock: others accept and end meanwhile. */
static void tick_all(mq_server *server, uint64_t tick)
{
    while (true) {
        pthread_mutex_lock(&server->lock);
        mq_exchange *x = next_ticked(server, tick);
        pthread_mutex_unlock(&server->lock);
        if (!x) return;
        x->hooks.tick(x->hooks.context);
        pthread_mutex_unlock(&x->hook_lock);
    }
}

void *mq__http_watch(void *context)
{
    mq_server *server = context;
    watched w = {0};
    double ticked = mq__seconds();
    uint64_t tick = 0;
    while (!atomic_load(&server->is_stopping)) {
        pthread_mutex_lock(&server->lock);
        list_running(server, &w);
        pthread_mutex_unlock(&server->lock);
        const double left = PAUSE_MS - 1e3 * (mq__seconds() - ticked);
        (void)poll(w.fds, (nfds_t)w.count, left > 1 ? (int)left : 1);
        const double now = mq__seconds();
        const bool due = now - ticked >= PAUSE_MS * 1e-3;
        pthread_mutex_lock(&server->lock);
        cut_gone(server, &w);
        if (due) reap(server, now);
        if (due) cut_stuck(server, now);
        pthread_mutex_unlock(&server->lock);
        if (!due) continue;
        ticked = now;
        tick_all(server, ++tick);
    }
    mq__free(w.fds);
    mq__free(w.ids);
    return NULL;
}
