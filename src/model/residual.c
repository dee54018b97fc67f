#include "model/residual.h"

#include <math.h>

void mq__run_rows(const mq_runtime *rt, mq_pool_fn *stage, void *context)
{
    if (rt->pass->rows <= MQ_OWN_ROWS)
        stage(context, 0, 1);
    else
        mq__pool_run(rt->pool, stage, context);
}

typedef struct job {
    mq_runtime *rt;
    const float *from, *weight, *scalar;
    float *to;
    size_t count;
} job;

static void norm_each(void *context, int thread, int threads)
{
    const job *j = context;
    const size_t width = j->rt->model->width;
    size_t begin, end;
    mq__partition(j->rt->pass->rows, thread, threads, &begin, &end);
    for (size_t at = begin * width; at < end * width; at += width) {
        j->rt->kernels->rmsnorm(j->to + at, j->from + at, j->weight, width, j->rt->model->norm_eps);
    }
}

void mq__norm_rows(mq_runtime *rt, const float *from, const float *weight, float *to)
{
    job j = {.rt = rt, .from = from, .weight = weight, .to = to};
    mq__run_rows(rt, norm_each, &j);
    mq__lap(rt, MQ_STAGE_PREPARE);
}

static void add_each(void *context, int thread, int threads)
{
    const job *j = context;
    const size_t width = j->rt->model->width;
    const float scalar = j->scalar ? *j->scalar : 1;
    size_t begin, end;
    mq__partition(j->rt->pass->rows, thread, threads, &begin, &end);
    for (size_t at = begin * width; at < end * width; at += width) {
        float *h = j->rt->rows->h + at, *branch = j->rt->branch + at;
        j->rt->kernels->rmsnorm(branch, branch, j->weight, width, j->rt->model->norm_eps);
        for (size_t i = 0; i < width; i++) {
            h[i] = (h[i] + branch[i]) * scalar;
        }
    }
}

void mq__add_branch(mq_runtime *rt, const float *weight, const float *scalar)
{
    job j = {.rt = rt, .weight = weight, .scalar = scalar};
    mq__run_rows(rt, add_each, &j);
    mq__lap(rt, MQ_STAGE_PREPARE);
}

/* cap tanh(x / cap) = 2 cap sigmoid(2 x / cap) - cap, a few values at a time so that the exponential is the kernel's. That one takes
 * NaN for a number; here it stays NaN, for the check of the logits. */
static void cap_each(void *context, int thread, int threads)
{
    const job *j = context;
    const float cap = j->rt->model->logit_cap;
    enum { SOME = 256 };
    size_t begin, end;
    mq__partition(j->count, thread, threads, &begin, &end);
    for (size_t at = begin; at < end; at += SOME) {
        const size_t count = end - at < SOME ? end - at : SOME;
        float *y = j->to + at, gate[SOME];
        for (size_t i = 0; i < count; i++) {
            gate[i] = 2 / cap * y[i];
            y[i] = 2 * cap;
        }
        j->rt->kernels->sigmoid_gate(y, gate, count);
        for (size_t i = 0; i < count; i++) {
            y[i] = isnan(gate[i]) ? gate[i] : y[i] - cap;
        }
    }
}

void mq__cap_logits(mq_runtime *rt, float *logits, size_t count)
{
    job j = {.rt = rt, .to = logits, .count = count};
    mq__pool_run(rt->pool, cap_each, &j);
    mq__lap(rt, MQ_STAGE_PREPARE);
}
