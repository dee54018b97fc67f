/* One pass of the transformer over some rows. */
#ifndef MQ_FORWARD_H
#define MQ_FORWARD_H

#include "base/pool.h"
#include "kv/kv_pool.h"
#include "mixquant_tools.h"
#include "model/model.h"

#define MQ_THIN_ROWS 8 /* rows of a decode pass at most: the thin kernels read the weights once for up to 8 */

/* Consecutive tokens of one sequence: rows [row, row + rows) of the pass stand at positions first, first + 1, ... */
typedef struct mq_segment {
    uint16_t *const *pages; /* KV pages that cover positions [0, first + rows) */
    uint32_t first, row, rows;
} mq_segment;

typedef struct mq_pass {
    mq_phase phase;        /* PREFILL: tall kernels. DECODE: one row per segment, at most MQ_THIN_ROWS, thin kernels */
    mq_phase_plan plan;    /* of that phase */
    const int32_t *tokens; /* [rows], each in [0, V) */
    uint32_t rows;
    const mq_segment *segments;
    uint32_t segment_count;
    const mq_observer *observer; /* NULL: nobody watches */
} mq_pass;

/* Everything a pass needs besides weights: threads, kernels and scratch, allocated once for `max_rows` rows. */
typedef struct mq_runtime mq_runtime;

mq_status mq__runtime_new(const mq_model *model, const mq_kernels *kernels, mq_pool *pool, uint32_t max_rows,
                          uint32_t max_positions, mq_runtime **runtime, mq_error *error);
void mq__runtime_free(mq_runtime *runtime);

/* The time of all passes so far, by stage. */
void mq__runtime_profile(const mq_runtime *runtime, mq_profile *profile);

/* Runs the layers: writes K and V of all rows into their pages and leaves the hidden state of every row in the runtime.
 * Does not allocate. */
void mq__forward(mq_runtime *runtime, const mq_pass *pass);

/* Logits [rows, V] of rows [row, row + rows) of the last pass, through the final norm and lm_head. A decode pass uses the
 * thin kernel, a prefill pass the tall one. rows <= max_rows. */
void mq__logits(mq_runtime *runtime, const mq_pass *pass, uint32_t row, uint32_t rows, float *logits);

#endif
