#include "base/pool.h"

#include "base/cpu.h"
#include "base/error.h"
#include "base/mem.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Spins before sleeping. The stages of a decode step follow each other within microseconds, and a wake-up through the
 * kernel costs about 50 us; 20,000 pauses are about 0.5 ms on current x86. */
#define SPINS 20000

/* One cache line per worker: as long as workers run, nobody else writes to it. */
typedef struct worker {
    _Alignas(64) atomic_uint claimed; /* last generation of which this worker's part was begun, by it or by the owner */
    atomic_uint seen;                 /* last generation this worker finished itself */
    atomic_uint asleep;               /* 1 while in (or entering) futex_wait on the pool's generation */
    atomic_uint away; /* 1 while it may not run where the owner does; `home` is where it may otherwise */
    cpu_set_t home;
    pthread_t thread;
    mq_pool *pool;
    int index;
} worker;

struct mq_pool {
    _Alignas(64) atomic_uint generation; /* a new value announces a run; written by the owner only */
    mq_pool_fn *fn;                      /* NULL: exit */
    void *context;
    int threads, started;
    bool bound;      /* workers have processors of their own */
    double waited;   /* of the owner */
    worker *workers; /* [threads - 1] */
};

double mq__seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double mq__pool_waited(const mq_pool *pool)
{
    return pool->waited;
}

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void futex(atomic_uint *word, int operation, unsigned value)
{
    (void)syscall(SYS_futex, word, operation, value, NULL, NULL, 0);
}

static unsigned wait_for_change(worker *w, unsigned last)
{
    mq_pool *pool = w->pool;
    unsigned now = last;
    for (int i = 0; i < SPINS; i++) {
        now = atomic_load_explicit(&pool->generation, memory_order_acquire);
        if (now != last) return now;
        relax();
    }
    for (;;) {
        /* Sequentially consistent pair with mq__pool_run: either we see the new generation here, or the owner sees
         * asleep == 1 and wakes us; the kernel re-checks the word before it sleeps. */
        atomic_store(&w->asleep, 1);
        now = atomic_load(&pool->generation);
        if (now != last) break;
        futex(&pool->generation, FUTEX_WAIT_PRIVATE, last);
    }
    atomic_store(&w->asleep, 0);
    return now;
}

/* Parts are begun in the order of generations, so the one before `now` is what a part not begun yet shows. */
static bool claim(worker *w, unsigned now)
{
    unsigned before = now - 1;
    return atomic_compare_exchange_strong_explicit(&w->claimed, &before, now, memory_order_acq_rel,
                                                   memory_order_relaxed);
}

/* The kernel likes to wake a thread where its waker runs, and the two would share that processor for milliseconds, until it
 * balances its queues. So workers are woken elsewhere, and may go where they like as soon as they run. */
static void send_away(worker *w, int processor)
{
    cpu_set_t others;
    if (atomic_load(&w->away) || pthread_getaffinity_np(w->thread, sizeof w->home, &w->home) != 0) return;
    others = w->home;
    CPU_CLR((size_t)processor, &others);
    if (CPU_COUNT(&others) < w->pool->threads - 1) return; /* too few for all */
    atomic_store(&w->away, 1);
    (void)pthread_setaffinity_np(w->thread, sizeof others, &others);
}

static void come_home(worker *w)
{
    if (!atomic_load_explicit(&w->away, memory_order_relaxed)) return;
    (void)pthread_setaffinity_np(w->thread, sizeof w->home, &w->home);
    atomic_store(&w->away, 0);
}

static void *work(void *argument)
{
    worker *w = argument;
    unsigned last = 0;
    for (;;) {
        last = wait_for_change(w, last);
        come_home(w);
        if (!claim(w, last)) continue; /* too late: the owner did it */
        mq_pool_fn *fn = w->pool->fn;
        if (!fn) return NULL;
        fn(w->pool->context, w->index, w->pool->threads);
        atomic_store_explicit(&w->seen, last, memory_order_release);
    }
}

static void announce(mq_pool *pool, mq_pool_fn *fn, void *context)
{
    pool->fn = fn;
    pool->context = context;
    atomic_fetch_add(&pool->generation, 1);
    bool asleep = false;
    for (int i = 0; i < pool->started; i++) {
        worker *w = &pool->workers[i];
        if (!atomic_load(&w->asleep)) continue;
        asleep = true;
        if (!pool->bound) send_away(w, sched_getcpu());
    }
    if (asleep) futex(&pool->generation, FUTEX_WAKE_PRIVATE, (unsigned)pool->threads);
}

void mq__pool_run(mq_pool *pool, mq_pool_fn *fn, void *context)
{
    if (pool->threads == 1) {
        fn(context, 0, 1);
        return;
    }
    announce(pool, fn, context);
    fn(context, 0, pool->threads);
    const unsigned now = atomic_load_explicit(&pool->generation, memory_order_relaxed);
    /* Parts that nobody has begun: their workers sleep, or other programs have their cores. Waiting for them could take the
     * scheduler's time slice, a thousand times as long as a stage. */
    for (int i = 0; i < pool->started; i++) {
        worker *w = &pool->workers[i];
        if (atomic_load_explicit(&w->claimed, memory_order_relaxed) == now || !claim(w, now)) continue;
        fn(context, w->index, pool->threads);
        atomic_store_explicit(&w->seen, now, memory_order_relaxed);
    }
    const double start = mq__seconds();
    for (int i = 0; i < pool->started; i++) {
        for (int spin = 0; atomic_load_explicit(&pool->workers[i].seen, memory_order_acquire) != now; spin++) {
            if (spin < SPINS) {
                relax();
            } else {
                (void)usleep(0); /* an oversubscribed machine: let the worker have this core */
            }
        }
    }
    pool->waited += mq__seconds() - start;
}

mq_status mq__pool_new(int threads, mq_pool **out, mq_error *error)
{
    *out = NULL;
    if (threads < 1 || threads > 256) {
        return mq__fail(error, MQ_USAGE, "pool: threads: expected 1 to 256, got %d", threads);
    }
    mq_pool *pool = mq__alloc_aligned(sizeof *pool);
    worker *workers = mq__alloc_aligned(sizeof *workers * (size_t)threads);
    if (!pool || !workers) {
        mq__free_aligned(pool);
        mq__free_aligned(workers);
        return mq__fail(error, MQ_NO_MEMORY, "pool: %d threads: expected memory, got none", threads);
    }
    *pool = (mq_pool){.threads = threads, .workers = workers};
    for (int i = 0; i < threads - 1; i++) {
        workers[i] = (worker){.pool = pool, .index = i + 1};
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0) {
            mq__pool_free(pool);
            return mq__fail(error, MQ_NO_MEMORY, "pool: thread %d: expected it to start, got a refusal", i + 1);
        }
        pool->started++;
    }
    *out = pool;
    return MQ_OK;
}

void mq__pool_free(mq_pool *pool)
{
    if (!pool) return;
    announce(pool, NULL, NULL);
    for (int i = 0; i < pool->started; i++) {
        pthread_join(pool->workers[i].thread, NULL);
    }
    mq__free_aligned(pool->workers);
    mq__free_aligned(pool);
}

void mq__pool_bind(mq_pool *pool)
{
    int processors[CPU_SETSIZE];
    const size_t count = mq__cpu_list(processors, CPU_SETSIZE);
    pool->bound = true;
    for (int i = 0; count > 0 && i < pool->started; i++) {
        const size_t t = (size_t)pool->workers[i].index, threads = (size_t)pool->threads;
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((size_t)processors[threads <= count ? t * count / threads : t % count], &set);
        (void)pthread_setaffinity_np(pool->workers[i].thread, sizeof set,
                                     &set); /* a wish: results do not depend on it */
    }
}

int mq__pool_threads(const mq_pool *pool)
{
    return pool->threads;
}
