#include "base/pool.h"

#include "base/cpu.h"
#include "base/error.h"
#include "base/mem.h"

#include <assert.h>
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

/* A run is known by its ticket: its number * TICKET_PARTS + the parts that each thread has of it. Numbers start again after 2^26
 * runs; a thread would have to sleep through all of them between reading a ticket and claiming a part to be misled. */
#define TICKET_PARTS (MQ_POOL_EACH + 1u)

/* One cache line per thread: while it has parts left, nobody else writes to it, but for an owner that does not find it awake. */
typedef struct worker {
    _Alignas(64) atomic_uint_least64_t left; /* a run's ticket << 32 | its parts of this thread that nobody has begun */
    atomic_uint finished;                    /* parts of this thread in all runs, whoever did them */
    atomic_uint asleep;                      /* 1 while in (or entering) futex_wait on the pool's ticket */
    atomic_uint place;                       /* of enum place */
    mq_cpu_set home; /* where it may run when it is not away; of the owner at HOME and SENDING */
    pthread_t thread;
    mq_pool *pool;
    int index;
} worker;

struct mq_pool {
    _Alignas(64) atomic_uint ticket; /* a new value announces a run; written by the owner only */
    mq_pool_part_fn *fn;             /* NULL: exit */
    void *context;
    int threads, started;
    bool bound;        /* workers have processors of their own */
    mq_cpu_set others; /* of the owner: a worker's processors but one */
    double waited;     /* of the owner */
    unsigned dealt;    /* parts that each thread has had in all runs */
    worker *workers;   /* [threads]; the first is the owner */
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
        now = atomic_load_explicit(&pool->ticket, memory_order_acquire);
        if (now != last) return now;
        relax();
    }
    for (;;) {
        /* Sequentially consistent pair with announce: either we see the new ticket here, or the owner sees asleep == 1 and
         * wakes us; the kernel re-checks the word before it sleeps. */
        atomic_store(&w->asleep, 1);
        now = atomic_load(&pool->ticket);
        if (now != last) break;
        futex(&pool->ticket, FUTEX_WAIT_PRIVATE, last);
    }
    atomic_store(&w->asleep, 0);
    return now;
}

/* The next of w's parts that nobody has begun, -1 when there is none. A run is announced only when all parts of the one before
 * are done. So a word of this run says what is left, a word of the run before means that nothing has been begun, and any other
 * word that this run is over. */
static int claim(worker *w, unsigned ticket)
{
    const unsigned each = ticket % TICKET_PARTS;
    uint_least64_t seen = atomic_load_explicit(&w->left, memory_order_relaxed);
    for (;;) {
        const unsigned of = (unsigned)(seen >> 32);
        unsigned left = 0;
        if (of == ticket)
            left = (unsigned)seen;
        else if (ticket - each - (of - of % TICKET_PARTS) == TICKET_PARTS)
            left = each;
        if (left == 0) return -1;
        const uint_least64_t then = (uint_least64_t)ticket << 32 | (left - 1);
        if (atomic_compare_exchange_weak_explicit(&w->left, &seen, then, memory_order_acq_rel, memory_order_relaxed))
            return (int)(each - left);
    }
}

/* The parts of w that nobody has begun, by a thread; false: it is to exit. */
static bool do_parts(mq_pool *pool, worker *w, unsigned ticket, int thread)
{
    const int each = (int)(ticket % TICKET_PARTS);
    for (int i; (i = claim(w, ticket)) >= 0;) {
        if (!pool->fn) return false;
        pool->fn(pool->context, w->index * each + i, pool->threads * each, thread);
        atomic_fetch_add_explicit(&w->finished, 1, memory_order_release);
    }
    return true;
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
    mq_pool *pool = w->pool;
    unsigned last = 0;
    for (;;) {
        last = wait_for_change(w, last);
        come_home(w);
        if (!do_parts(pool, w, last, w->index)) return NULL;
        if (last % TICKET_PARTS == 1) continue;
        for (int i = 1; i < pool->threads && atomic_load_explicit(&pool->ticket, memory_order_relaxed) == last; i++) {
            (void)do_parts(pool, &pool->workers[(w->index + i) % pool->threads], last, w->index);
        }
    }
}

static unsigned announce(mq_pool *pool, mq_pool_part_fn *fn, void *context, int each)
{
    const unsigned last = atomic_load_explicit(&pool->ticket, memory_order_relaxed);
    const unsigned now = last - last % TICKET_PARTS + TICKET_PARTS + (unsigned)each;
    pool->fn = fn;
    pool->context = context;
    pool->dealt += (unsigned)each;
    atomic_store(&pool->ticket, now);
    bool asleep = false;
    for (int i = 1; i <= pool->started; i++) {
        worker *w = &pool->workers[i];
        if (!atomic_load(&w->asleep)) continue;
        asleep = true;
        if (!pool->bound) send_away(w, sched_getcpu());
    }
    if (asleep) futex(&pool->ticket, FUTEX_WAKE_PRIVATE, (unsigned)pool->threads);
    return now;
}

void mq__pool_deal(mq_pool *pool, mq_pool_part_fn *fn, void *context, int each)
{
    assert(each >= 1 && each <= MQ_POOL_EACH);
    if (pool->threads == 1) {
        fn(context, 0, 1, 0);
        return;
    }
    const unsigned now = announce(pool, fn, context, each);
    /* Its own parts, then those that nobody has begun: their workers are busy with others, or sleep, or other programs have their
     * cores. Waiting for them could take the scheduler's time slice, a thousand times as long as a stage. */
    for (int i = 0; i < pool->threads; i++) {
        (void)do_parts(pool, &pool->workers[i], now, 0);
    }
    const double start = mq__seconds();
    for (int i = 0; i < pool->threads; i++) {
        for (int spin = 0; atomic_load_explicit(&pool->workers[i].finished, memory_order_acquire) != pool->dealt;
             spin++) {
            if (spin < SPINS) {
                relax();
            } else {
                (void)usleep(0); /* an oversubscribed machine: let the worker have this core */
            }
        }
    }
    pool->waited += mq__seconds() - start;
}

typedef struct whole_run {
    mq_pool_fn *fn;
    void *context;
} whole_run;

static void run_whole(void *context, int part, int parts, int thread)
{
    (void)thread;
    const whole_run *run = context;
    run->fn(run->context, part, parts);
}

void mq__pool_run(mq_pool *pool, mq_pool_fn *fn, void *context)
{
    whole_run run = {fn, context};
    mq__pool_deal(pool, run_whole, &run, 1);
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
    for (int i = 0; i < threads; i++) {
        workers[i] = (worker){.pool = pool, .index = i};
        if (i == 0) continue;
        if (pool->others.set) workers[i].home = mq__cpu_set_get(sched_getaffinity);
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0) {
            mq__cpu_set_free(&workers[i].home);
            mq__pool_free(pool);
            return mq__fail(error, MQ_NO_MEMORY, "pool: thread %d: expected it to start, got a refusal", i);
        }
        pool->started++;
    }
    *out = pool;
    return MQ_OK;
}

void mq__pool_free(mq_pool *pool)
{
    if (!pool) return;
    (void)announce(pool, NULL, NULL, 1);
    for (int i = 1; i <= pool->started; i++) {
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
    for (int i = 1; count > 0 && one->set && i <= pool->started; i++) {
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
