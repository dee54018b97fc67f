/* The thread pool: every part runs once, results are visible, sleeping workers wake up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "base/pool.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void ignore_run(void *context, int thread, int threads)
{
    (void)context;
    (void)thread;
    (void)threads;
}

typedef struct counter {
    size_t values[1000];
    int calls[8];
} counter;

static void add_one(void *context, int thread, int threads)
{
    counter *c = context;
    size_t begin, end;
    mq__partition(1000, thread, threads, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        c->values[i]++;
    }
    c->calls[thread]++;
}

static void test_every_part_once(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 8; threads += 3) {
        mq_pool *pool;
        counter c = {0};
        assert_int_equal(mq__pool_new(threads, &pool, NULL), MQ_OK);
        assert_int_equal(mq__pool_threads(pool), threads);
        for (int run = 0; run < 300; run++) {
            mq__pool_run(pool, add_one, &c);
            if (run % 100 == 50) usleep(20000); /* long enough for the workers to sleep */
        }
        mq__pool_free(pool);
        for (size_t i = 0; i < 1000; i++) {
            assert_int_equal(c.values[i], 300);
        }
        for (int t = 0; t < 8; t++) {
            assert_int_equal(c.calls[t], t < threads ? 300 : 0);
        }
    }
}

/* Parts that were done, and by whom; `late` threads take their time. */
typedef struct deal {
    atomic_int done[8 * MQ_POOL_EACH];
    int by[8]; /* written by its thread only */
    int late;
} deal;

static void do_dealt(void *context, int part, int parts, int thread)
{
    deal *d = context;
    if (part < 0 || part >= parts) abort(); /* cmocka's own checks are for the thread of the test */
    atomic_fetch_add(&d->done[part], 1);
    d->by[thread]++;
    if (thread < d->late) usleep(300);
}

/* Each part of each thread once, however many there are and whoever is slow. */
static void test_deals_every_part_once(void **state)
{
    (void)state;
    static const int counts[] = {1, 2, 3, 4, 20, MQ_POOL_EACH};
    for (int threads = 1; threads <= 8; threads += 3) {
        mq_pool *pool;
        assert_int_equal(mq__pool_new(threads, &pool, NULL), MQ_OK);
        for (size_t e = 0; e < sizeof counts / sizeof counts[0]; e++) {
            const int each = counts[e];
            deal d = {.late = each == 4 ? threads / 2 : 0};
            const int parts = threads == 1 ? 1 : threads * each;
            for (int run = 0; run < 50; run++) {
                mq__pool_deal(pool, do_dealt, &d, each);
                mq__pool_run(pool, ignore_run, NULL); /* tickets of both kinds */
                if (run % 20 == 10) usleep(20000);    /* long enough for the workers to sleep */
            }
            int all = 0;
            for (int i = 0; i < 8 * MQ_POOL_EACH; i++) {
                assert_int_equal(atomic_load(&d.done[i]), i < parts ? 50 : 0);
            }
            for (int t = 0; t < 8; t++) {
                all += d.by[t];
            }
            assert_int_equal(all, 50 * parts);
        }
        mq__pool_free(pool);
    }
}

/* What a slow thread has not begun is done by the others. */
static void test_slow_threads_are_helped(void **state)
{
    (void)state;
    mq_pool *pool;
    int helped = 0;
    assert_int_equal(mq__pool_new(2, &pool, NULL), MQ_OK);
    for (int run = 0; run < 20; run++) {
        deal d = {.late = 1};
        mq__pool_deal(pool, do_dealt, &d, 16);
        helped += d.by[0] < 16;
    }
    assert_true(helped > 10);
    mq__pool_free(pool);
}

static void test_partition_covers(void **state)
{
    (void)state;
    for (size_t count = 0; count < 40; count++) {
        for (int threads = 1; threads < 12; threads++) {
            size_t expected = 0, begin, end;
            for (int t = 0; t < threads; t++) {
                mq__partition(count, t, threads, &begin, &end);
                assert_int_equal(begin, expected);
                assert_true(end - begin <= count / (size_t)threads + 1);
                expected = end;
            }
            assert_int_equal(expected, count);
        }
    }
}

typedef struct places {
    pthread_t self[2];
    int processor[2];
    cpu_set_t allowed[2];
} places;

static void look_around(void *context, int thread, int threads)
{
    (void)threads;
    places *p = context;
    p->self[thread] = pthread_self();
    p->processor[thread] = sched_getcpu();
    assert_int_equal(pthread_getaffinity_np(pthread_self(), sizeof p->allowed[thread], &p->allowed[thread]), 0);
    usleep(2000); /* so that the worker gets to its part before the owner does it */
}

/* A worker that slept runs beside its waker, not after it, and may go wherever it might before. Other programs can spoil
 * single runs. */
static void test_wakes_elsewhere(void **state)
{
    (void)state;
    cpu_set_t all;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    if (CPU_COUNT(&all) < 2) skip();
    mq_pool *pool;
    int runs = 0, apart = 0;
    assert_int_equal(mq__pool_new(2, &pool, NULL), MQ_OK);
    for (int i = 0; i < 200 && runs < 20; i++) {
        places p;
        usleep(20000);
        mq__pool_run(pool, look_around, &p);
        assert_true(CPU_EQUAL(&p.allowed[1], &all));
        if (pthread_equal(p.self[0], p.self[1])) continue; /* the owner did both parts */
        runs++;
        apart += p.processor[0] != p.processor[1];
    }
    assert_true(runs > 0);
    assert_true(2 * apart > runs);
    mq__pool_free(pool);
}

static void mark(void *context, int thread, int threads)
{
    int *calls = context;
    calls[thread] += threads;
}

/* More threads than a byte counts, as on machines with several sockets. */
static void test_many_threads(void **state)
{
    (void)state;
    enum { MANY = 300 };
    mq_pool *pool;
    int calls[MANY] = {0};
    assert_int_equal(mq__pool_new(MANY, &pool, NULL), MQ_OK);
    mq__pool_bind(pool);
    mq__pool_run(pool, mark, calls);
    mq__pool_run(pool, mark, calls);
    mq__pool_free(pool);
    for (int t = 0; t < MANY; t++) {
        assert_int_equal(calls[t], 2 * MANY);
    }
}

/* A kernel for 3,000 processors: it takes no smaller set, and names processors beyond cpu_set_t. */
static int affinity_of_3000(pid_t pid, size_t bytes, cpu_set_t *set)
{
    (void)pid;
    if (8 * bytes < 3000) {
        errno = EINVAL;
        return -1;
    }
    memset(set, 0, bytes);
    CPU_SET_S(5, bytes, set);
    CPU_SET_S(2999, bytes, set);
    return 0;
}

static int affinity_refused(pid_t pid, size_t bytes, cpu_set_t *set)
{
    (void)pid;
    (void)bytes;
    (void)set;
    errno = EPERM;
    return -1;
}

static void test_many_processors(void **state)
{
    (void)state;
    mq_cpu_set s = mq__cpu_set_get(affinity_of_3000);
    assert_non_null(s.set);
    assert_int_equal(CPU_COUNT_S(s.bytes, s.set), 2);
    assert_true(CPU_ISSET_S(2999, s.bytes, s.set));
    mq__cpu_set_free(&s);
    s = mq__cpu_set_get(affinity_refused);
    assert_null(s.set);
    assert_int_equal(mq__cpu_threads(384, 0), 384);
    assert_int_equal(mq__cpu_threads(100000, 0), MQ_THREADS_MAX);
    assert_int_equal(mq__cpu_threads(64, 2), 2);
    assert_int_equal(mq__cpu_threads(64, 1.5), 2);
    assert_int_equal(mq__cpu_threads(2, 8), 2);
    assert_int_equal(mq__cpu_threads(2, 0.1), 1);
}

/* While `slow` is set, a worker takes its time between saying that it sleeps and sleeping, and the owner between deciding
 * where a worker may run and saying so to the kernel: what crosses by chance once a minute crosses each time. */
static atomic_bool slow;

typedef int affinity_setter(pthread_t thread, size_t bytes, const cpu_set_t *set);
typedef long system_call(long number, ...);

int pthread_setaffinity_np(pthread_t thread, size_t bytes, const cpu_set_t *set)
{
    affinity_setter *real;
    *(void **)&real = dlsym(RTLD_NEXT, "pthread_setaffinity_np");
    if (atomic_load(&slow) && !pthread_equal(thread, pthread_self())) usleep(8000);
    return real(thread, bytes, set);
}

long syscall(long number, ...)
{
    long a[6];
    va_list arguments;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++) {
        a[i] = va_arg(arguments, long);
    }
    va_end(arguments);
    system_call *real;
    *(void **)&real = dlsym(RTLD_NEXT, "syscall");
    if (number == SYS_futex && a[1] == FUTEX_WAIT_PRIVATE && atomic_load(&slow)) usleep(4000);
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* Sending a worker away and its coming home must not cross, or it keeps a smaller set of processors for good. */
static void test_workers_keep_their_processors(void **state)
{
    (void)state;
    cpu_set_t all;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    if (CPU_COUNT(&all) < 2) skip();
    mq_pool *pool;
    places p;
    counter c = {0};
    assert_int_equal(mq__pool_new(2, &pool, NULL), MQ_OK);
    atomic_store(&slow, true);
    for (unsigned gap = 500; gap < 6000; gap += 100) {
        usleep(gap);
        mq__pool_run(pool, add_one, &c);
    }
    atomic_store(&slow, false);
    int looks = 0;
    for (int i = 0; i < 200 && looks < 3; i++) {
        usleep(20000);
        mq__pool_run(pool, look_around, &p);
        if (pthread_equal(p.self[0], p.self[1])) continue; /* the owner did both parts */
        looks++;
        assert_true(CPU_EQUAL(&p.allowed[1], &all));
    }
    assert_true(looks > 0);
    mq__pool_free(pool);
}

static void test_refuses_thread_counts(void **state)
{
    (void)state;
    mq_pool *pool;
    mq_error error = {0};
    assert_int_equal(mq__pool_new(0, &pool, &error), MQ_USAGE);
    assert_int_equal(mq__pool_new(MQ_THREADS_MAX + 1, &pool, &error), MQ_USAGE);
    assert_null(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_part_once),       cmocka_unit_test(test_partition_covers),
        cmocka_unit_test(test_deals_every_part_once), cmocka_unit_test(test_slow_threads_are_helped),
        cmocka_unit_test(test_wakes_elsewhere),       cmocka_unit_test(test_many_threads),
        cmocka_unit_test(test_many_processors),       cmocka_unit_test(test_workers_keep_their_processors),
        cmocka_unit_test(test_refuses_thread_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
