/* Two ends of a link of any kind, and what arrives at each. */
#ifndef UNIT_LINK_H
#define UNIT_LINK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/pool.h"
#include "link/link.h"

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST     ((8u << 20) + 13) /* of a body, in most tests */
#define DEADLINE 20.0              /* of everything that must happen */

/* ---- messages whose bytes can be told from others */

static inline uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdULL;
    return (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53ULL;
}

static inline void fill_bytes(uint8_t *at, size_t bytes, uint64_t seed)
{
    for (size_t i = 0; i < bytes; i += 8) {
        const uint64_t word = mix(seed + i);
        memcpy(at + i, &word, bytes - i < 8 ? bytes - i : 8);
    }
}

static inline bool has_bytes(const uint8_t *at, size_t bytes, uint64_t seed)
{
    for (size_t i = 0; i < bytes; i += 8) {
        const uint64_t word = mix(seed + i);
        if (memcmp(at + i, &word, bytes - i < 8 ? bytes - i : 8) != 0) return false;
    }
    return true;
}

/* ---- an end */

typedef struct end {
    mq_link *link;
    pthread_mutex_t lock; /* of all below */
    pthread_cond_t changed;
    uint64_t count, bytes; /* messages so far; of their bodies */
    int wrong;             /* with another head or body than message `count` has */
    int ended;             /* calls */
    mq_error error;        /* of `ended` */
    bool held;             /* `arrived` does not return */
    uint64_t wanted;       /* `arrived` returns false after so many; 0: never */
    bool closed;           /* no event may come */
} end;

static inline bool arrive(void *context, const uint8_t *head, const void *body, size_t bytes)
{
    end *e = context;
    pthread_mutex_lock(&e->lock);
    e->wrong += e->closed || !has_bytes(head, MQ_LINK_HEAD, e->count) || !has_bytes(body, bytes, mix(e->count));
    e->count++;
    e->bytes += bytes;
    pthread_cond_broadcast(&e->changed);
    while (e->held) {
        pthread_cond_wait(&e->changed, &e->lock);
    }
    const bool goes_on = e->count != e->wanted;
    pthread_mutex_unlock(&e->lock);
    return goes_on;
}

static inline void note_end(void *context, const mq_error *error)
{
    end *e = context;
    pthread_mutex_lock(&e->lock);
    e->ended++;
    e->wrong += e->closed;
    e->error = *error;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

static inline struct timespec after(double seconds)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    const double whole = (double)t.tv_nsec * 1e-9 + seconds;
    t.tv_sec += (time_t)whole;
    t.tv_nsec = (long)((whole - (double)(time_t)whole) * 1e9);
    return t;
}

/* Waits until so many messages have come, or the end. False: DEADLINE is over. */
static inline bool wait_end(end *e, uint64_t count, bool ended)
{
    const struct timespec until = after(DEADLINE);
    pthread_mutex_lock(&e->lock);
    int code = 0;
    while (code == 0 && (e->count < count || (ended && !e->ended))) {
        code = pthread_cond_timedwait(&e->changed, &e->lock, &until);
    }
    const bool happened = e->count >= count && (!ended || e->ended);
    pthread_mutex_unlock(&e->lock);
    return happened;
}

static inline void hold(end *e, bool held)
{
    pthread_mutex_lock(&e->lock);
    e->held = held;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

static inline void open_end(end *e)
{
    memset(e, 0, sizeof *e);
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->changed, NULL);
}

static inline mq_status start_end(end *e, size_t most)
{
    const mq_link_events events = {arrive, note_end, e};
    return mq__link_start(e->link, &events, most, NULL);
}

static inline void close_end(end *e)
{
    hold(e, false);
    mq__link_close(e->link);
    e->link = NULL;
    pthread_mutex_lock(&e->lock);
    e->closed = true;
    pthread_mutex_unlock(&e->lock);
}

/* Message number n of this direction. */
static inline mq_status send_number(mq_link *link, uint64_t n, uint8_t *body, size_t bytes, double seconds,
                                    mq_error *error)
{
    uint8_t head[MQ_LINK_HEAD];
    fill_bytes(head, sizeof head, n);
    fill_bytes(body, bytes, mix(n));
    const mq_status status = mq__link_send(link, head, body, bytes, seconds, error);
    return status == MQ_OK ? mq__link_flush(link, seconds, error) : status;
}

/* ---- who listens */

typedef struct host {
    mq_link_listener *listener;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    mq_link *accepted; /* the latest that nobody has fetched */
    uint64_t count;
    bool closes; /* every link at once */
    char from[64];
} host;

static inline void accept_one(void *context, mq_link *link, const char *from)
{
    host *h = context;
    pthread_mutex_lock(&h->lock);
    mq_link *old = h->closes ? link : h->accepted;
    h->accepted = h->closes ? NULL : link;
    h->count++;
    snprintf(h->from, sizeof h->from, "%s", from);
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
    mq__link_close(old);
}

static inline uint16_t open_host(host *h, const char *kind, const char *address)
{
    mq_error error = {0};
    memset(h, 0, sizeof *h);
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->changed, NULL);
    if (mq__link_listen(kind, address, 0, accept_one, h, &h->listener, &error) != MQ_OK) fail_msg("%s", error.text);
    return mq__link_port(h->listener);
}

/* NULL: none came within the time. */
static inline mq_link *fetch_accepted(host *h, double seconds)
{
    const struct timespec until = after(seconds);
    pthread_mutex_lock(&h->lock);
    while (!h->accepted && pthread_cond_timedwait(&h->changed, &h->lock, &until) == 0) {}
    mq_link *link = h->accepted;
    h->accepted = NULL;
    pthread_mutex_unlock(&h->lock);
    return link;
}

static inline void close_host(host *h)
{
    mq__link_listener_close(h->listener);
    mq__link_close(h->accepted);
}

/* ---- both */

typedef struct pair {
    host host;
    end a, b; /* who connected, who was connected to */
} pair;

#define PAIRS 256

/* Of the program's life, so that what a failed test leaves running does no harm to the next. */
static inline pair *open_pair(const char *kind)
{
    static pair pairs[PAIRS];
    static int count;
    mq_error error = {0};
    assert_true(count < PAIRS);
    pair *p = &pairs[count++];
    open_end(&p->a);
    open_end(&p->b);
    if (strcmp(kind, "memory") == 0) {
        if (mq__link_pair(&p->a.link, &p->b.link, &error) != MQ_OK) fail_msg("%s", error.text);
        return p;
    }
    const uint16_t port = open_host(&p->host, kind, "127.0.0.1");
    const mq_status status = mq__link_connect(kind, "127.0.0.1", port, DEADLINE, &p->a.link, &error);
    if (status != MQ_OK) fail_msg("%s", error.text);
    p->b.link = fetch_accepted(&p->host, DEADLINE);
    assert_non_null(p->b.link);
    return p;
}

/* UCX 1.13.1 ends a process by assertions of its own, now and then, when connections come and go quickly (docs/PITFALLS.md). So what makes
 * many of them is tested on demand: MQ_TEST_UCX=1. */
static inline bool tests_ucx(void)
{
    return mq__link_has_kind("ucx") && getenv("MQ_TEST_UCX");
}

/* Opened, and both started. */
static inline pair *start_pair(const char *kind)
{
    pair *p = open_pair(kind);
    assert_int_equal(start_end(&p->a, MOST), MQ_OK);
    assert_int_equal(start_end(&p->b, MOST), MQ_OK);
    return p;
}

/* In any order; nothing wrong has come. */
static inline void close_pair(pair *p)
{
    if (p->a.link) close_end(&p->a);
    if (p->b.link) close_end(&p->b);
    if (p->host.listener) close_host(&p->host);
    assert_int_equal(p->a.wrong, 0);
    assert_int_equal(p->b.wrong, 0);
    assert_in_range(p->a.ended, 0, 1);
    assert_in_range(p->b.ended, 0, 1);
}

/* Descriptors of this process that are open. */
static inline int count_descriptors(void)
{
    int count = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir)) {
        count++;
    }
    closedir(dir);
    return count;
}

#endif
