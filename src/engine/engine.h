/* The engine's insides: what an mq_engine, an mq_plan and an mq_sequence own. Internal to src/engine. */
#ifndef MQ_ENGINE_H
#define MQ_ENGINE_H

#include "base/pool.h"
#include "engine/draft_head.h"
#include "engine/fingerprint.h"
#include "engine/weights.h"
#include "kv/kv_blocks.h"
#include "mixquant_tools.h"
#include "model/forward.h"

#include <stdatomic.h>

/* A phase plan of the engine's model. Equal plans are one object. */
struct mq_plan {
    struct mq_plan *next;
    uint64_t id;                      /* tags KV blocks; never 0 */
    mq_linear_format prefill, decode; /* the defaults, where a file overrides layers */
    mq_phase_plan phase[MQ_PHASES];   /* owned arrays */
};

/* Who is told the logits of prefill rows instead of their sequence. */
typedef struct mq_logits_visitor {
    void (*visit)(void *context, uint32_t first, uint32_t rows, const float *logits); /* NULL: nobody */
    void *context;
} mq_logits_visitor;

/* The pass of a phase as it is put together, [max(chunk, MQ_DECODE_ROWS)] each. */
typedef struct mq_pass_rows {
    int32_t *tokens;
    mq_segment *segments;
    mq_rows **owner; /* whose rows a segment has */
} mq_pass_rows;

struct mq_engine {
    mq_engine_options options; /* strings owned, in the three fields below */
    char *model_dir, *prefill_model_dir, *cache_dir;
    mq_weights *weights;       /* owns the maps, packed faces and the model that points into them */
    const mq_kernels *kernels; /* tuned */
    mq_kernels tuned;
    mq_pool *pool;
    mq_runtime *runtime;
    mq_kv_layout kv_layout;
    mq_kv_pool *kv;
    uint32_t context, chunk, blocks_per_sequence;
    uint32_t windows_per_sequence; /* window parts that one needs at once, at most; 0: the model has no windows */
    size_t state_floats;           /* of the recurrent state of a sequence; 0: the model has none */
    uint32_t state_interval;       /* tokens between two snapshots of it */
    struct mq_plan *plans;         /* all that were read, the newest first */
    const mq_plan *plan;           /* of sequences that have none of their own */
    uint32_t plan_count;

    mq_pass_rows pass[MQ_PHASES];
    bool reading;           /* a prefill pass runs: its interlude runs steps of decode rows only */
    mq_interlude interlude; /* of prefill passes; call is NULL: none */
    float *batch_logits;    /* [MQ_DECODE_ROWS, V] */
    mq_logits_visitor visitor;
    const mq_plan *draft;      /* NULL: there are no draft steps (draft.h) */
    mq_draft_head *draft_head; /* of these */
    bool drafting;             /* the step in hand is one */

    mq_fingerprint fingerprint; /* without the plan's part */
    mq_digest checkpoint[2];    /* of its weights: the model's with config.json, the prefill checkpoint's */
    bool fingerprint_ready;
    mq_observer observer;
    bool observed;                /* observer is set */
    bool placed;                  /* weights are copied near the threads that read them */
    bool settling;                /* what decoding reads is on its way to memory of large pages */
    uint64_t steps, settle_after; /* decode passes while settling; those before the first slice */
};

struct mq_sequence {
    mq_engine *engine;
    const mq_plan *plan; /* of the KV that it holds */
    bool own_plan;       /* set by mq_sequence_set_plan: stays when the engine's changes */
    int32_t *tokens;     /* [context], the first `count` have their KV in the blocks */
    uint32_t count;
    uint32_t prompt;      /* how many of them the last sync gave: those behind are output */
    mq_kv_block **blocks; /* [blocks_per_sequence], the first `block_count` are held */
    uint16_t **pages;     /* [blocks_per_sequence] the data of each, as kernels read it */
    uint32_t block_count;
    uint16_t **window_pages; /* [blocks_per_sequence] the window parts of blocks [window_from, window_end), which */
    uint32_t window_from, window_end; /* the sequence watches; NULL elsewhere */
    uint32_t landmark;                /* others begin with the tokens before this one, too */
    uint32_t running;                 /* rows of the pass in progress: their KV may be there, they do not count yet */
    uint32_t planned, planned_in; /* while a step is checked: tokens it will have, and phases it appears in (bits) */
    float *state, *state_after;   /* recurrent: behind the tokens, and behind those of a running pass; or NULL */
    uint32_t drafted; /* of `count`: tokens of draft steps. Their state is state_after, `state` the one before them */
    float *kept;      /* what the states take of the rows that verified a draft; NULL: there were none */
    uint32_t kept_room, kept_first, kept_rows; /* the last pass ran those, from the state in state_after; 0: others */
    float *logits;                             /* [logits_room, V] */
    uint32_t logits_room, logits_ready;
    atomic_bool cancel;
};

/* ---- step.c */

/* Between two layers of each prefill pass `call` runs, on the thread of its step; `layers` of the pass are done. It may run steps of decode rows, of sequences that
 * are not in the step which it interrupts. NULL: nobody. */
void mq__engine_set_interlude(mq_engine *engine, void (*call)(void *context, uint32_t layers), void *context);

/* ---- engine.c */

/* Rows of a pass, at most. */
static inline uint32_t mq__engine_rows(const mq_engine *engine)
{
    return engine->chunk > MQ_DECODE_ROWS ? engine->chunk : MQ_DECODE_ROWS;
}

/* Tokens at a prompt's end that run in the decode plan. */
static inline uint32_t mq__engine_last(const mq_engine *engine)
{
    return engine->options.last ? engine->options.last : 1;
}

/* Bytes of the KV pool for each of its blocks; of window parts, which few have, the same share. */
uint64_t mq__engine_block_bytes(const mq_engine *engine);
/* Prepares the move of what decode passes read to large pages, where that is worth it. */
void mq__engine_settle_begin(mq_engine *engine);
/* To be called after each decode pass. */
void mq__engine_stepped(mq_engine *engine);

/* ---- sequence.c */

/* KV blocks that the sequence would have to take, and copy where it shares the last one, to hold `count` tokens. */
uint32_t mq__sequence_blocks_missing(const mq_sequence *sequence, uint32_t count);
/* Takes them; they must be there. Blocks that it writes to are its own afterwards. */
void mq__sequence_take_blocks(mq_sequence *sequence, uint32_t count);
/* Where mq_sequence_truncate to `count` tokens would land: with recurrent state at the last snapshot before, but rows that verified a
 * draft, and all of those that drafted, can be taken back; with windows where their parts are there. */
uint32_t mq__sequence_landing(const mq_sequence *sequence, uint32_t count);
/* The recurrent state behind its first `count` tokens; NULL: it is not known, or the model has none. */
const float *mq__sequence_state_at(const mq_sequence *sequence, uint32_t count);
/* Where a state that comes from elsewhere may be written to, as a pass would; NULL: the model has none. What is written there becomes
 * the state behind the tokens; at a block's end others may begin there, too. */
float *mq__sequence_state_room(mq_sequence *sequence);
void mq__sequence_take_state(mq_sequence *sequence);
/* Whether the next row finds what its windows see; not so only after an import of a range without it. */
bool mq__sequence_sees_windows(const mq_sequence *sequence);
/* How many of these blocks a sequence can begin with: with recurrent state those up to the last snapshot, with windows by their parts. */
uint32_t mq__sequence_adoptable(const mq_engine *engine, mq_kv_block *const *block, uint32_t blocks);
/* Gives back those beyond its tokens. */
void mq__sequence_give_blocks(mq_sequence *sequence);
/* Forgets the last `count` tokens, which were decoded by the last step, and their logits; those of earlier rows stay. */
void mq__sequence_drop(mq_sequence *sequence, uint32_t count);
/* Appends tokens whose KV a pass has written. */
void mq__sequence_append(mq_sequence *sequence, const int32_t *tokens, uint32_t count, bool precise);
/* An empty sequence begins with full blocks, which it shares with whoever holds them. */
void mq__sequence_adopt(mq_sequence *sequence, const int32_t *tokens, mq_kv_block *const *block, uint32_t blocks);
mq_status mq__sequence_check_tokens(const mq_sequence *sequence, const int32_t *tokens, uint32_t count,
                                    mq_error *error);
/* Room for the logits of `rows` rows; for what their states take of rows that verify a draft. */
mq_status mq__sequence_logits_room(mq_sequence *sequence, uint32_t rows, mq_error *error);
mq_status mq__sequence_kept_room(mq_sequence *sequence, uint32_t rows, mq_error *error);

/* The next token goes into a block that others hold, too. */
bool mq__sequence_shares_last(const mq_sequence *sequence);

static inline uint32_t mq__blocks_for(uint32_t count)
{
    return (count + MQ_PAGE_TOKENS - 1) / MQ_PAGE_TOKENS;
}

/* ---- sequence_windows.c: nothing without windows */

/* Window parts that it has to find at once, for rows that bring it to `count` tokens in as many passes as they need. */
uint32_t mq__sequence_windows_missing(const mq_sequence *sequence, uint32_t count);
/* Whether they can be had for rows up to `count` once it is cut back to `keep` tokens; `copies`: it shares the last block then. */
bool mq__sequence_windows_suffice(const mq_sequence *sequence, uint32_t keep, uint32_t count, bool copies);
/* Takes those of its blocks [from, up to `count` tokens) that are behind the ones which it has; they must be there. */
void mq__sequence_take_windows(mq_sequence *sequence, uint32_t from, uint32_t count);
/* For block `at`, the part of a block that takes its place. */
void mq__sequence_take_window_of(mq_sequence *sequence, uint32_t at, mq_kv_block *own);
/* Watches those that the row behind its tokens sees, also after a draft round is taken back, as far as they are there; and no others. */
void mq__sequence_watch_windows(mq_sequence *sequence);
/* Leaves those before these, now that rows of that phase have run. */
void mq__sequence_leave_windows(mq_sequence *sequence, mq_phase phase);

/* ---- plan.c */

/* A format that is yet to be chosen: of Gated DeltaNet's projections, which are BF16 unless a file says more, or the checkpoint. */
#define MQ_LINEAR_AS_PUBLISHED MQ_LINEAR_FORMATS

/* Fills both phases of a plan for `layers` layers: the defaults, then the overrides of options->file. kind: NULL, or of each layer. */
mq_status mq__plan_read(const mq_plan_options *options, const mq_layer_kind *kind, uint32_t layers,
                        mq_phase_plan plan[MQ_PHASES], mq_error *error);
/* The name of a group in a layer of that kind, as plan files have it. */
const char *mq__plan_group_name(mq_layer_kind kind, int group);
void mq__plan_free(mq_phase_plan plan[MQ_PHASES]);

#endif
