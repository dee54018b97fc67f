#include "base/pool.h"

#include "base/cpu.h"
#include "base/error.h"
#include "base/mem.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Spins before sleeping. The stages of a decode step follow each other within microseconds, and a wake-up through the
 * kernel costs about 50 us; 20,000 pauses are about 0.5 ms on current x86. */
#define SPINS 20000

#define PROCESSORS_MAX 8192 /* that workers are spread over */

/* Who may change where a worker runs: HOME -> SENDING -> AWAY by the owner, AWAY -> HOME by the worker. Each step is taken
 * when the one before is complete, so a worker at HOME has all its processors. */
enum place { HOME, SENDING, AWAY };

/* One cache line per worker: as long as workers run, nobody else writes to it. */
typedef struct worker {
    _Alignas(64) atomic_uint claimed; /* last generation of which this worker's part was begun, by it or by the owner */
    atomic_uint seen;                 /* last generation this worker finished itself */
    atomic_uint asleep;               /* 1 while in (or entering) futex_wait on the pool's generation */
    atomic_uint place;                /* of enum place */
    mq_cpu_set home;                  /* where it may run when it is not away; of the owner at HOME and SENDING */
    pthread_t thread;
    mq_pool *pool;
    int index;
} worker;

struct mq_pool {
    _Alignas(64) atomic_uint generation; /* a new value announces a run; written by the owner only */
    mq_pool_fn *fn;                      /* NULL: exit */
    void *context;
    int threads, started;
    bool bound;        /* workers have processors of their own */
    mq_cpu_set others; /* of the owner: a worker's processors but one */
    double waited;     /* of the owner */
    worker *workers;   /* [threads - 1] */
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
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* yield does nothing on most processors; this waits for a few tens of cycles */
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
    mq_cpu_set *home = &w->home, *others = &w->pool->others;
    if (processor < 0 || !home->set || atomic_load(&w->place) != HOME) return;
    if (pthread_getaffinity_np(w->thread, home->bytes, home->set) != 0) return;
    memcpy(others->set, home->set, home->bytes);
    CPU_CLR_S((size_t)processor, others->bytes, others->set);
    if (CPU_COUNT_S(others->bytes, others->set) < w->pool->threads - 1) return; /* too few for all */
    atomic_store(&w->place, SENDING);
    (void)pthread_setaffinity_np(w->thread, others->bytes, others->set);
    atomic_store(&w->place, AWAY);
}

static void come_home(worker *w)
{
    unsigned place = atomic_load(&w->place);
    while (place == SENDING) { /* the owner is about to finish a system call */
        relax();
        place = atomic_load(&w->place);
    }
    if (place == HOME) return;
    (void)pthread_setaffinity_np(w->thread, w->home.bytes, w->home.set);
    atomic_store(&w->place, HOME);
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
    if (threads < 1 || threads > MQ_THREADS_MAX) {
        return mq__fail(error, MQ_USAGE, "pool: threads: expected 1 to %d, got %d", MQ_THREADS_MAX, threads);
    }
    mq_pool *pool = mq__alloc_aligned(sizeof *pool);
    worker *workers = mq__alloc_aligned(sizeof *workers * (size_t)threads);
    if (!pool || !workers) {
        mq__free_aligned(pool);
        mq__free_aligned(workers);
        return mq__fail(error, MQ_NO_MEMORY, "pool: %d threads: expected memory, got none", threads);
    }
    *pool = (mq_pool){.threads = threads, .workers = workers};
    if (threads > 1) pool->others = mq__cpu_set_get(sched_getaffinity);
    for (int i = 0; i < threads - 1; i++) {
        workers[i] = (worker){.pool = pool, .index = i + 1};
        if (pool->others.set) workers[i].home = mq__cpu_set_get(sched_getaffinity);
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0) {
            mq__cpu_set_free(&workers[i].home);
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
        mq__cpu_set_free(&pool->workers[i].home);
    }
    mq__cpu_set_free(&pool->others);
    mq__free_aligned(pool->workers);
    mq__free_aligned(pool);
}

void mq__pool_bind(mq_pool *pool)
{
    int processors[PROCESSORS_MAX];
    const size_t count = mq__cpu_list(processors, PROCESSORS_MAX);
    const size_t threads = (size_t)pool->threads;
    mq_cpu_set *one = &pool->others; /* bound workers are not sent away */
    pool->bound = true;
    for (int i = 0; count > 0 && one->set && i < pool->started; i++) {
        const size_t t = (size_t)pool->workers[i].index;
        CPU_ZERO_S(one->bytes, one->set);
        CPU_SET_S((size_t)processors[threads <= count ? t * count / threads : t % count], one->bytes, one->set);
        (void)pthread_setaffinity_np(pool->workers[i].thread, one->bytes,
                                     one->set); /* a wish: results do not depend on it */
    }
}

int mq__pool_threads(const mq_pool *pool)
{
    return pool->threads;
}
