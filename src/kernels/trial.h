/* Pieces of work of some hundred microseconds that tell which kernel is the fastest on this machine. */
#ifndef MQ_KERNELS_TRIAL_H
#define MQ_KERNELS_TRIAL_H

#include "base/pool.h"
#include "kernels/kernels.h"

typedef enum mq_work {
    /* One row, weights from memory: a decode step. */
    MQ_WORK_THIN,
    MQ_WORK_THIN_LONG,       /* a row whose activations do not stay in L1 beside just any way */
    MQ_WORK_THIN_LONG_ALONE, /* on one thread: where several share what memory gives, all ways look alike */
    MQ_WORK_NVFP4_ROW,
    MQ_WORK_NVFP4_ROW_ALONE,
    MQ_WORK_INT8_ROW,
    MQ_WORK_SPAN, /* decode attention, keys and values from memory */
    /* Rows of a prompt through a product of one size, with the packing of the rows. */
    MQ_WORK_BF16,
    MQ_WORK_NVFP4,
    MQ_WORK_W4A16,
    MQ_WORK_W16A16,
    MQ_WORK_INT8,
    /* A tile of a prompt's rows against its own positions, and against MQ_TRIAL_EARLIER more. */
    MQ_WORK_NEAR_BF16,
    MQ_WORK_NEAR_INT8,
    MQ_WORK_NEAR_W16A16,
    MQ_WORK_FAR_BF16,
    MQ_WORK_FAR_INT8,
    MQ_WORK_FAR_W16A16,
    MQ_WORKS
} mq_work;

#define MQ_TRIAL_EARLIER (8 * MQ_ATTENTION_TILE)

typedef struct mq_trial mq_trial;

/* What work reads and writes, for tables of this level. NULL in *trial with MQ_OK: memory is too short to measure. */
mq_status mq__trial_new(const mq_kernels *level, int threads, mq_trial **trial, mq_error *error);
void mq__trial_free(mq_trial *trial);

typedef struct mq_contender {
    const mq_kernels *kernels;
    mq_work work;
    double seconds; /* of the fastest run, of its slowest thread */
} mq_contender;

/* Contenders take turns, `rounds` times or until `deadline` (mq__seconds), each at least once. */
void mq__trial_race(mq_trial *trial, mq_contender *contenders, size_t count, int rounds, double deadline);

#endif
