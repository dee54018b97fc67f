/* One pass of the transformer over some rows. */
#ifndef MQ_FORWARD_H
#define MQ_FORWARD_H

#include "base/pool.h"
#include "kv/kv_blocks.h"
#include "mixquant_tools.h"
#include "model/model.h"

#include <stdatomic.h>

#define MQ_DECODE_ROWS 64 /* rows of a decode pass at most: they read the weights once */

/* The state behind the first `rows` rows of a segment is wanted as well. */
typedef struct mq_state_save {
    uint32_t rows;
    float *to; /* [mq__state_floats] */
} mq_state_save;

#define MQ_STATE_SAVES 8 /* of a segment */

/* Consecutive tokens of one sequence: rows [row, row + rows) of the pass stand at positions first, first + 1, ... */
typedef struct mq_segment {
    uint16_t *const *pages;        /* KV blocks that cover positions [0, first + rows) */
    uint16_t *const *window_pages; /* what layers with a window have there: of the blocks that its rows see */
    uint32_t first, row, rows;
    const float *state; /* models with recurrent state: the one before the rows, and */
    float *state_after; /* where the one behind them goes: another place, so that a dropped segment changes nothing */
    float *
        keep; /* NULL, or [rows][delta_layers][mq__state_row_floats]: what the states take of the rows goes there as well */
    mq_state_save save[MQ_STATE_SAVES];
    uint32_t saves;            /* in ascending order */
    const atomic_bool *cancel; /* looked at before each layer; once it is set the segment's rows are dropped */
} mq_segment;

/* Who is called between two layers of a PREFILL pass: it may run DECODE passes, so that answers go on while a long prompt is read, and
 * may take away the KV of the first `layers` layers, which is there. */
typedef struct mq_interlude {
    void (*call)(void *context, uint32_t layers);
    void *context;
} mq_interlude;

typedef struct mq_pass {
    mq_phase phase;        /* PREFILL: tall kernels. DECODE: at most MQ_DECODE_ROWS rows, thin kernels */
    mq_phase_plan plan;    /* of that phase */
    const int32_t *tokens; /* [rows], each in [0, V) */
    uint32_t rows;
    mq_segment *segments; /* in the order of their rows */
    uint32_t segment_count;
    const mq_linear *draft_head;   /* NULL, or the NVFP4 head of a draft pass */
    const mq_observer *observer;   /* NULL: nobody watches */
    const mq_interlude *interlude; /* of a PREFILL pass; NULL: nobody */
} mq_pass;

/* Everything a pass needs besides weights: threads, kernels and scratch, allocated once for `max_rows` rows. Borrows model and layout. */
typedef struct mq_runtime mq_runtime;

mq_status mq__runtime_new(const mq_model *model, const mq_kv_layout *kv, const mq_kernels *kernels, mq_pool *pool,
                          uint32_t max_rows, uint32_t max_positions, mq_runtime **runtime, mq_error *error);
void mq__runtime_free(mq_runtime *runtime);

/* The time of all passes so far, by stage. */
void mq__runtime_profile(const mq_runtime *runtime, mq_profile *profile);

/* Runs the layers: writes K and V of all rows into their blocks and leaves the hidden state of every row in the runtime.
 * A cancelled segment is left with 0 rows, and the rows after it move up: pass->rows and segment->row say where they are.
 * Does not allocate. */
void mq__forward(mq_runtime *runtime, mq_pass *pass);

/* The state `to` behind rows that have run, from the one before them and what a segment kept of them. It has the same bits. Between two
 * passes, or in an interlude; rows <= MQ_DECODE_ROWS, 0: a copy. */
void mq__state_rerun(mq_runtime *runtime, const float *from, const float *kept, uint32_t rows, float *to);

/* Logits [rows, V] of rows [row, row + rows) of the last pass, through the final norm and lm_head (or [rows, n] through the draft head). A decode pass uses the
 * thin kernel, a prefill pass the tall one. rows <= max_rows. */
void mq__logits(mq_runtime *runtime, const mq_pass *pass, uint32_t row, uint32_t rows, float *logits);

#endif
