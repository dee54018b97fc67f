/* The benchmarks of the harness: kernels timed in turn with the machine's limits. */
#include "checkasm.h"

#include "base/mem.h"
#include "base/pool.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BENCH_REPEATS = 15, STREAM_BYTES = 256 << 20 };

static void *stream;
static mq_pool *pool;

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef struct timed {
    void (*one)(void *);
    void (*many)(void *, int, int);
    void *context;
    int threads;
} timed;

static void run_timed(const timed *t, unsigned long times)
{
    for (unsigned long i = 0; i < times; i++) {
        if (t->many) {
            mq__pool_run(pool, t->many, t->context);
        } else {
            t->one(t->context);
        }
    }
}

/* How often to call for at least `least` seconds; also the warm-up. */
static unsigned long calibrate(const timed *t, double least)
{
    const clockid_t clock = t->many ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID;
    unsigned long times = 1;
    for (;;) {
        const double begin = seconds(clock);
        run_timed(t, times);
        const double took = seconds(clock) - begin;
        if (took >= least || times > 1ul << 30) {
            return times;
        }
        times = took > least / 1000 ? (unsigned long)((double)times * least / took * 1.05) + 1 : times * 64;
    }
}

/* Seconds of one call. */
static double measure(const timed *t, unsigned long times)
{
    const clockid_t clock = t->many ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID;
    const double begin = seconds(clock);
    run_timed(t, times);
    return (seconds(clock) - begin) / (double)times;
}

static uint64_t burned;

static void burn(void *context)
{
    (void)context;
    burned = checkasm.tested->burn_fma(20000);
}

static void burn_threads(void *context, int thread, int threads)
{
    (void)context, (void)threads;
    const uint64_t macs = checkasm.tested->burn_fma(20000);
    if (thread == 0) {
        burned = macs;
    }
}

static mq_read_way read_way;

static void read_threads(void *context, int thread, int threads)
{
    const size_t each = (size_t)STREAM_BYTES / 4 / (size_t)threads / 256 * 256;
    static size_t quarter;
    (void)context;
    checkasm.tested->read_stream((const char *)stream +
                                     (__atomic_load_n(&quarter, __ATOMIC_RELAXED) % 4) * (STREAM_BYTES / 4) +
                                     (size_t)thread * each,
                                 each, read_way);
    if (thread == 0) {
        __atomic_add_fetch(&quarter, 1, __ATOMIC_RELAXED);
    }
}

static void read_one(void *context)
{
    read_threads(context, 0, 1);
}

/* The limit that work of this unit is compared with, in units per second; 0 for none. */
static double limit(checkasm_unit unit, int threads)
{
    const timed fma = {burn, threads > 1 ? burn_threads : NULL, NULL, threads};
    const timed read = {read_one, threads > 1 ? read_threads : NULL, NULL, threads};
    if (unit == CHECKASM_MACS) {
        const double took = measure(&fma, calibrate(&fma, 1e-3));
        return (double)burned * threads / took;
    }
    if (unit == CHECKASM_BYTES) {
        if (!stream && !(stream = mq__alloc_aligned(STREAM_BYTES))) {
            checkasm_die("no memory");
        }
        static bool touched;
        if (!touched) {
            memset(stream, 1, STREAM_BYTES);
            touched = true;
        }
        double seconds = INFINITY;
        for (read_way = 0; read_way < MQ_READ_WAYS; read_way++) {
            seconds = fmin(seconds, measure(&read, 1));
        }
        return (double)(STREAM_BYTES / 4 / threads / 256 * 256) * threads / seconds;
    }
    return 0;
}

/* Repeats of limit and kernel in turn: on a machine shared with others both suffer alike, so that the median of their
 * ratios says more than the ratio of two medians. The best ratio is printed beside it. */
static void bench(const char *name, const char *label, const timed *t, double work, checkasm_unit unit)
{
    if (!checkasm_bench_wanted(name)) {
        return;
    }
    mq_error error;
    if (t->many && (!pool || mq__pool_threads(pool) != t->threads)) {
        mq__pool_free(pool);
        if (mq__pool_new(t->threads, &pool, &error) != MQ_OK) {
            checkasm_die(error.text);
        }
    }
    const unsigned long times = calibrate(t, 3e-3);
    double took[BENCH_REPEATS], peak[BENCH_REPEATS], share[BENCH_REPEATS];
    for (int r = 0; r < BENCH_REPEATS; r++) {
        peak[r] = limit(unit, t->threads);
        took[r] = measure(t, times);
        share[r] = work / took[r] / peak[r];
    }
    qsort(took, BENCH_REPEATS, sizeof took[0], by_value);
    qsort(peak, BENCH_REPEATS, sizeof peak[0], by_value);
    qsort(share, BENCH_REPEATS, sizeof share[0], by_value);
    const double median = took[BENCH_REPEATS / 2];
    printf("%-11s %-22s %-34s %11.0f ns ", mq__isa_name(checkasm.isa), name, label, median * 1e9);
    if (unit == CHECKASM_ITEMS) {
        printf("%8.3f Gitem/s", work / median * 1e-9);
    } else {
        printf("%7.2f %s %6.3f of %5.1f, best %.3f", work / median * 1e-9, unit == CHECKASM_MACS ? "GMAC/s" : "GB/s  ",
               share[BENCH_REPEATS / 2], peak[BENCH_REPEATS / 2] * 1e-9, share[BENCH_REPEATS - 1]);
    }
    printf(t->threads > 1 ? "  %d threads\n" : "\n", t->threads);
    fflush(stdout);
}

void checkasm_bench(const char *name, const char *label, void (*fn)(void *), void *context, double work,
                    checkasm_unit unit)
{
    const timed t = {.one = fn, .context = context, .threads = 1};
    bench(name, label, &t, work, unit);
}

void checkasm_bench_threads(const char *name, const char *label, void (*fn)(void *, int, int), void *context,
                            double work, checkasm_unit unit, int threads)
{
    const timed t = {.many = fn, .context = context, .threads = threads};
    bench(name, label, &t, work, unit);
}

void checkasm_bench_heading(void)
{
    printf("%s: FMA peak %.1f GMAC/s, read bandwidth %.1f GB/s, one thread\n", mq__isa_name(checkasm.isa),
           limit(CHECKASM_MACS, 1) * 1e-9, limit(CHECKASM_BYTES, 1) * 1e-9);
}

void checkasm_bench_end(void)
{
    mq__pool_free(pool);
    mq__free_aligned(stream);
}
