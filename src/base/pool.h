/* A pool of threads that run the same function over the parts of a stage: each output has one writer.
 *
 * Between two runs that follow each other closely the workers spin, so a run costs well under a microsecond on top of
 * its work; after a pause they sleep in the kernel. A part whose worker has not begun it when the owner is done is done by
 * the owner, so that a busy machine slows a run down but does not make it wait for the scheduler. One caller at a time owns
 * the pool (the engine thread). */
#ifndef MQ_BASE_POOL_H
#define MQ_BASE_POOL_H

#include "mixquant.h"

enum { MQ_THREADS_MAX = 1024, MQ_POOL_EACH = 63 };

typedef struct mq_pool mq_pool;
typedef void mq_pool_fn(void *context, int thread, int threads);
typedef void mq_pool_part_fn(void *context, int part, int parts, int thread);

/* threads in [1, MQ_THREADS_MAX]; the caller itself is thread 0. */
mq_status mq__pool_new(int threads, mq_pool **pool, mq_error *error);
void mq__pool_free(mq_pool *pool);
/* Binds the workers, evenly over the processors and their nodes, so that they stay with memory that they have touched first.
 * The caller's own thread is left alone: the processor that remains is where it is likely to run. */
void mq__pool_bind(mq_pool *pool);
int mq__pool_threads(const mq_pool *pool);

/* Runs fn(context, t, threads) once for each t and returns when all have finished. One part a thread: t is the part's number,
 * whoever does it. */
void mq__pool_run(mq_pool *pool, mq_pool_fn *fn, void *context);
/* Runs fn(context, part, parts, thread) once for each part, and returns when all have finished. Each thread has `each` parts in
 * a row, 1 to MQ_POOL_EACH; who is done with its own takes what others have not begun, so that threads of unequal speed end
 * together. `thread` is who does the part, for its scratch. A pool of one thread has one part. */
void mq__pool_deal(mq_pool *pool, mq_pool_part_fn *fn, void *context, int each);

double mq__pool_waited(const mq_pool *pool); /* seconds that the owner has waited for workers in all runs */
double mq__seconds(void);                    /* monotonic clock */

/* The part of [0, count) that part (or thread) t of n owns: contiguous, in order, sizes differ by at most one. */
static inline void mq__partition(size_t count, int thread, int threads, size_t *begin, size_t *end)
{
    const size_t t = (size_t)thread, n = (size_t)threads;
    const size_t each = count / n, rest = count % n;
    *begin = t * each + (t < rest ? t : rest);
    *end = *begin + each + (t < rest ? 1 : 0);
}

#endif
