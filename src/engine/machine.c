/* What this machine can do: the yardsticks that every benchmark is held against. */
#include "base/cpu.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/pool.h"
#include "engine/engine.h"
#include "mixquant_tools.h"

#include <string.h>

#define STREAM_BYTES ((size_t)256 << 20) /* per thread: far beyond the last-level cache */
#define RUNS         5                   /* the best run counts: the limit is what the machine can do undisturbed */

typedef struct measurement {
    const mq_kernels *kernels;
    uint8_t *memory; /* [threads][STREAM_BYTES] */
    mq_read_way way;
    uint64_t rounds;
    uint64_t work[MQ_THREADS_MAX]; /* multiply-adds (or a checksum, so that reading is not optimised away), by thread */
} measurement;

static void touch(void *context, int thread, int threads)
{
    (void)threads;
    const measurement *m = context;
    memset(m->memory + (size_t)thread * STREAM_BYTES, thread + 1, STREAM_BYTES); /* first touch by its reader */
}

static void stream(void *context, int thread, int threads)
{
    (void)threads;
    measurement *m = context;
    m->work[thread] = m->kernels->read_stream(m->memory + (size_t)thread * STREAM_BYTES, STREAM_BYTES, m->way);
}

static void burn(void *context, int thread, int threads)
{
    (void)threads;
    measurement *m = context;
    m->work[thread] = m->kernels->burn_fma(m->rounds);
}

static double best_seconds(mq_pool *pool, mq_pool_fn *fn, measurement *m)
{
    double best = 1e9;
    for (int i = 0; i < RUNS; i++) {
        const double start = mq__seconds();
        mq__pool_run(pool, fn, m);
        const double seconds = mq__seconds() - start;
        if (seconds < best) best = seconds;
    }
    return best;
}

static mq_status measure_machine(mq_machine *machine, const mq_kernels *kernels, mq_error *error)
{
    mq_pool *pool;
    mq_status status = mq__pool_new(machine->threads, &pool, error);
    if (status != MQ_OK) return status;
    const size_t threads = (size_t)machine->threads;
    measurement *m = mq__alloc_zero(1, sizeof *m);
    if (m) *m = (measurement){.kernels = kernels, .rounds = 1, .memory = mq__alloc_aligned(threads * STREAM_BYTES)};
    if (!m || !m->memory) {
        status =
            mq__fail(error, MQ_NO_MEMORY, "cpu: %zu bytes to read: expected memory, got none", threads * STREAM_BYTES);
        goto out;
    }
    mq__pool_run(pool, touch, m);
    for (m->way = 0; m->way < MQ_READ_WAYS; m->way++) {
        const double gb_s = (double)(threads * STREAM_BYTES) / best_seconds(pool, stream, m) * 1e-9;
        machine->read_gb_s = gb_s > machine->read_gb_s ? gb_s : machine->read_gb_s;
    }
    while (best_seconds(pool, burn, m) < 0.02) {
        m->rounds *= 4;
    }
    const double seconds = best_seconds(pool, burn, m);
    uint64_t total = 0;
    for (size_t t = 0; t < threads; t++) {
        total += m->work[t];
    }
    machine->fma_gmac_s = (double)total / seconds * 1e-9;
out:
    if (m) mq__free_aligned(m->memory);
    mq__free(m);
    mq__pool_free(pool);
    return status;
}

mq_status mq_machine_measure(int threads, bool with_limits, mq_machine *machine, mq_error *error)
{
    mq_isa isa;
    mq_cpu_info info;
    *machine = (mq_machine){0};
    const mq_status status = mq__cpu_choose_isa(&isa, error);
    if (status != MQ_OK) return status;
    mq__cpu_info(&info);
    memcpy(machine->cpu, info.name, sizeof machine->cpu);
    machine->isa = mq__isa_name(isa);
    machine->threads = threads > 0 ? threads : info.threads;
    machine->l1d_bytes = info.l1d_bytes;
    machine->l2_bytes = info.l2_bytes;
    machine->l3_bytes = info.l3_bytes;
    return with_limits ? measure_machine(machine, mq__kernels_get(isa), error) : MQ_OK;
}

bool mq_machine_kernel(size_t slot, const char **name, const char **isa)
{
    mq_isa level;
    if (slot >= mq__kernels_slots() || mq__cpu_choose_isa(&level, NULL) != MQ_OK) return false;
    *name = mq__kernels_slot_name(slot);
    *isa = mq__isa_name(mq__kernels_slot_isa(level, slot));
    return true;
}
