/* The engine's insides: what an mq_engine and an mq_sequence own. Internal to src/engine. */
#ifndef MQ_ENGINE_H
#define MQ_ENGINE_H

#include "base/pool.h"
#include "engine/weights.h"
#include "kv/kv_pool.h"
#include "model/forward.h"

struct mq_engine {
    mq_engine_options options; /* strings owned, in the three fields below */
    char *model_dir, *prefill_model_dir, *cache_dir;
    mq_weights *weights; /* owns the maps, packed faces and the model that points into them */
    const mq_kernels *kernels;
    mq_pool *pool;
    mq_runtime *runtime;
    mq_kv_layout kv_layout;
    mq_kv_pool *kv;
    uint32_t context, chunk, pages_per_session;
    mq_phase_plan plan[MQ_PHASES];      /* owned arrays */
    mq_linear_format format[MQ_PHASES]; /* the plan's defaults */
    uint64_t plan_id;                   /* changes with every plan: tags the KV that was made with it */
    float *batch_logits;                /* [MQ_THIN_ROWS, V] */
    mq_observer observer;
    bool observed;  /* observer is set */
    bool placed;    /* weights are copied near the threads that read them */
    bool settling;  /* what decoding reads is on its way to memory of large pages */
    uint64_t steps; /* decode steps while settling */
};

struct mq_sequence {
    mq_engine *engine;
    int32_t *tokens; /* [context], the first `count` have their KV in the pages */
    uint32_t count;
    uint16_t **pages; /* [pages_per_session], the first `page_count` are taken from the engine's pool */
    uint32_t page_count;
    uint64_t plan_id; /* of the KV */
    uint32_t running; /* rows of the pass in progress: their KV may be there, they do not count yet */
    float *logits;    /* [V] of the last token */
    bool logits_ready;
};

/* ---- engine.c */

/* To be called after each decode step. */
void mq__engine_stepped(mq_engine *engine);

/* ---- plan.c */

/* Fills both phases of a plan for `layers` layers: the defaults, then the overrides of options->file. */
mq_status mq__plan_read(const mq_plan_options *options, uint32_t layers, mq_phase_plan plan[MQ_PHASES],
                        mq_error *error);
void mq__plan_free(mq_phase_plan plan[MQ_PHASES]);

#endif
