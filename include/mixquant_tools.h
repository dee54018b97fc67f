/* mixquant's tools: making NVFP4 checkpoints, plans from measurements, random models, a checkpoint's description, this machine,
 * and watching passes. What serves requests is in mixquant.h; its rules on ownership and errors hold here, too. */
#ifndef MIXQUANT_TOOLS_H
#define MIXQUANT_TOOLS_H

#include "mixquant.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- names, as people write them */

MQ_API mq_status mq_linear_format_parse(const char *name, mq_linear_format *format, mq_error *error);
MQ_API const char *mq_linear_group_name(mq_linear_group group); /* "qkv", "o", "gate_up", "down" */
MQ_API mq_status mq_attention_format_parse(const char *name, mq_attention_format *format, mq_error *error);
MQ_API mq_status mq_scale_rule_parse(const char *name, mq_scale_rule *rule, mq_error *error);
MQ_API mq_status mq_placement_parse(const char *name, mq_placement *placement,
                                    mq_error *error); /* "auto", "off", "on" */

/* ---------------------------------------------------------------- what answers come from */

#define MQ_SOURCE_SIZE 33

/* Digests in hexadecimal of the files that an engine's answers depend on: weights, configs, tokenizer, chat template. They tell
 * whether a folder still holds what it held, not where it is. */
typedef struct mq_sources {
    char model[MQ_SOURCE_SIZE];
    char prefill_model[MQ_SOURCE_SIZE]; /* empty: the engine has no prefill checkpoint */
} mq_sources;

/* Reads all weights, once an engine: about a second for 8 GB that are in memory. */
MQ_API mq_status mq_engine_sources(mq_engine *engine, mq_sources *sources, mq_error *error);

/* ---------------------------------------------------------------- where the time goes */

/* What a pass consists of, as the caller's thread sees it (Amdahl's parts). X(NAME, "name") */
#define MQ_STAGE_LIST(X)                                                                                               \
    X(EMBED, "embed")      /* embedding rows, cos and sin */                                                           \
    X(PREPARE, "prepare")  /* norms, SwiGLU, quantisation and packing of activations */                                \
    X(LINEAR, "linear")    /* the products of the linear layers */                                                     \
    X(ROTATE, "rotate")    /* q/k norms, rotation, writing K and V */                                                  \
    X(ATTEND, "attention") /* scores, softmax, weighted values */                                                      \
    X(HEAD, "head")        /* final norm and lm_head */                                                                \
    X(WAIT, "wait")        /* the caller waits for other threads; not part of the stages above */

typedef enum mq_stage {
#define MQ_STAGE_ENUM(name, text) MQ_STAGE_##name,
    MQ_STAGE_LIST(MQ_STAGE_ENUM)
#undef MQ_STAGE_ENUM
        MQ_STAGES
} mq_stage;

typedef struct mq_profile {
    double prefill[MQ_STAGES], decode[MQ_STAGES]; /* seconds */
    uint64_t prefill_passes, decode_passes;
} mq_profile;

MQ_API const char *mq_stage_name(mq_stage stage);
/* Everything since the engine was opened. Two clock readings a stage: well below 0.1% of a decode step. */
MQ_API void mq_engine_profile(const mq_engine *engine, mq_profile *profile);

/* Moves weights to large pages now instead of a slice after each decode step (MQ_PLACEMENT_AUTO): before timing, or while a
 * server is idle. Sequences and results are unaffected. */
MQ_API void mq_engine_settle(mq_engine *engine);

/* ---------------------------------------------------------------- watching a pass */

/* What passes by, for calibration and analysis. Each may be NULL. Called on the caller's thread between the stages of every
 * pass, prefill or decode; the values are valid during the call and must not be changed. */
typedef struct mq_observer {
    /* The input rows [count, width] of a linear group, as FP32 before any quantisation: normed rows, the attention's
     * output, or silu(gate) * up. In the order of the layers, after the group has been computed. */
    void (*linear)(void *context, uint32_t layer, mq_linear_group group, const float *rows, uint32_t count,
                   uint32_t width);
    /* The queries [rows, heads * head_dim] of positions first .. first+rows-1, rotated, not yet scaled by
     * 1/sqrt(head_dim). Once per sequence of the pass; its keys up to these positions can be read then. */
    void (*queries)(void *context, uint32_t layer, uint32_t first, const float *queries, uint32_t rows);
    void *context;
} mq_observer;

/* Watches all sequences of the engine from now on; NULL ends it. Copied. */
MQ_API void mq_engine_observe(mq_engine *engine, const mq_observer *observer);

/* What attention costs, windows considered: multiply-adds of the tokens at positions [first, first + count), and the bytes of keys and
 * values that the token at a position reads. */
MQ_API uint64_t mq_engine_attention_macs(const mq_engine *engine, uint32_t first, uint32_t count);
MQ_API uint64_t mq_engine_attention_bytes(const mq_engine *engine, uint32_t position);
/* Whether every layer attends to everything before a token, with the kv_heads and head_dim of mq_engine_info. */
MQ_API bool mq_engine_attends_alike(const mq_engine *engine);

/* Keys and values [count, head_dim] of one kv head at positions first .. first+count-1, as attention reads them: BF16
 * widened to FP32, keys rotated. Either may be NULL. Inside a callback of the sequence's own pass, positions of that pass
 * can be read as well. MQ_USAGE for a place that the sequence does not hold. */
MQ_API mq_status mq_sequence_read_kv(const mq_sequence *sequence, uint32_t layer, uint32_t kv_head, uint32_t first,
                                     uint32_t count, float *keys, float *values, mq_error *error);

/* ---------------------------------------------------------------- tools */

/* Random weights of a published shape, to benchmark without downloading */

typedef struct mq_synth_options {
    const char *shape;   /* one of mq_synth_shape_name: "qwen3-0.6b" */
    uint32_t layers;     /* 0: all of the shape's; else the first `layers` */
    uint64_t seed;       /* equal seeds give equal bytes; a cut model has the first layers of the whole one */
    const char *out_dir; /* must not exist, or be empty */
} mq_synth_options;

/* Writes a BF16 checkpoint in HF form: config, weights, and a tokenizer of the 256 bytes. On failure nothing stays. */
MQ_API mq_status mq_synth_checkpoint(const mq_synth_options *options, mq_error *error);

MQ_API const char *mq_synth_shape_name(size_t i); /* NULL past the last */

/* The same with seed 1, made once: <cache_dir>/synth/<shape>[-L<layers>]. cache_dir NULL: $XDG_CACHE_HOME/mixquant or
 * ~/.cache/mixquant. *dir is owned by the caller: mq_free. */
MQ_API mq_status mq_synth_cached(const char *shape, uint32_t layers, const char *cache_dir, char **dir,
                                 mq_error *error);

typedef enum mq_checkpoint_layout {
    MQ_LAYOUT_COMPRESSED_TENSORS, /* stores divisors */
    MQ_LAYOUT_MODELOPT,           /* stores multipliers */
    MQ_LAYOUTS
} mq_checkpoint_layout;

MQ_API const char *mq_checkpoint_layout_name(mq_checkpoint_layout layout); /* "compressed-tensors", "modelopt" */
MQ_API mq_status mq_checkpoint_layout_parse(const char *name, mq_checkpoint_layout *layout, mq_error *error);

/* How codes are found ("rtn", "gptq"), given the rule of the scales: each weight to its nearest value, or (GPTQ) the columns one after the
 * other, each taking up the errors of those before it, weighted with what the inputs of calibration texts look like. */
typedef enum mq_quantize_method { MQ_METHOD_RTN, MQ_METHOD_GPTQ, MQ_METHODS } mq_quantize_method;

MQ_API mq_status mq_quantize_method_parse(const char *name, mq_quantize_method *method, mq_error *error);

/* A calibration text: token ids, borrowed during the call. */
typedef struct mq_token_span {
    const int32_t *tokens;
    uint32_t count;
} mq_token_span;

typedef struct mq_quantize_options {
    const char *in_dir;  /* a BF16, F16 or F32 checkpoint */
    const char *out_dir; /* must not exist, or be empty */
    mq_checkpoint_layout layout;
    mq_scale_rule scales;
    const char *ignore; /* NULL, or a regular expression (PCRE2) that is matched from the start of a module's name, as
                           "model.layers.0.self_attn.q_proj"; q, k and v (gate and up) can only be left out together.
                           Without one the projections of Gated DeltaNet (linear_attn) are left out */
    int threads;        /* 0: one per available processor */
    mq_quantize_method method;
    /* 0: none; else SmoothQuant's alpha, in (0, 1]: how much of the inputs' range the weights before which stands a norm take
     * over, through that norm's weights, by powers of two (docs/CALIBRATION.md). */
    float smooth;
    const mq_token_span *texts; /* for GPTQ and smoothing */
    size_t text_count;
    /* Called before each linear layer; return false to cancel. NULL: none. */
    bool (*progress)(void *context, uint32_t done, uint32_t total);
    void *context;
} mq_quantize_options;

/* Writes the linear layers of the transformer as NVFP4 and copies everything else: weights, tokenizer, templates. Layers
 * whose input width is no multiple of 16 stay as they are. The result is labelled weight-only (W4A16): a static
 * activation scale needs calibration data, and a made-up one would clip; this library scales activations itself, token
 * by token, and runs such a checkpoint as W4A4. On failure nothing stays of out_dir. */
MQ_API mq_status mq_quantize_checkpoint(const mq_quantize_options *options, mq_error *error);

typedef struct mq_sensitivity_options {
    const char *model_dir, *prefill_model_dir; /* as in mq_engine_options */
    mq_scale_rule scales;
    int threads;                /* 0: one per available processor */
    const mq_token_span *texts; /* the last quarter of each (128 tokens at most) is its answer */
    size_t text_count;
    double budget; /* of the prefill's time: 1.05 lets the plan take 5% longer than NVFP4 does; at least 1 */
    /* Called before each measurement; return false to cancel. NULL: none. */
    bool (*progress)(void *context, uint32_t done, uint32_t total);
    void *context;
} mq_sensitivity_options;

/* Measures for each linear group of each layer how far the answer's logits move when it alone prefills the prompt in NVFP4 or
 * INT8, and what each format's time is, and chooses a plan within the budget (docs/CALIBRATION.md). *plan is the text of a
 * plan file with what was measured in it; owned by the caller: mq_free. */
MQ_API mq_status mq_sensitivity_plan(const mq_sensitivity_options *options, char **plan, mq_error *error);

/* Architecture, tensors, formats, what each phase would use, and what it takes in memory; as lines for people or as one
 * JSON object. Checks the checkpoint as opening it does. *text is owned by the caller: mq_free. */
MQ_API mq_status mq_inspect(const char *model_dir, bool json, char **text, mq_error *error);

/* The fastest formats of this machine, measured in a fraction of a second (and kept in the cache folder): those of `prefill` and of
 * `attention` go into *plan where they are asked for. The more precise format wins where two are equally fast. INT8 only where its
 * copy fits in half of the free memory; what is not asked for is taken as it is in *plan. `why` (of `size` bytes) says so in a line, and
 * whether a more precise format would be much faster than the NVFP4 or INT8 of the plan.
 * Of the options the directories count. Another machine may choose otherwise. */
MQ_API mq_status mq_choose_plan(const mq_engine_options *options, bool prefill, bool attention, mq_plan_options *plan,
                                char *why, size_t size, mq_error *error);

/* This machine: level, caches, and (when measured) its limits, the yardsticks of every benchmark. */
typedef struct mq_machine {
    char cpu[96];
    const char *isa;
    int threads;
    double read_gb_s, fma_gmac_s;         /* of all threads together; 0 when not measured */
    size_t l1d_bytes, l2_bytes, l3_bytes; /* of one cache; 0 when unknown */
} mq_machine;

MQ_API mq_status mq_machine_measure(int threads, bool measure, mq_machine *machine, mq_error *error);
/* Kernel slots: returns false past the last; *isa names the level that provides the slot. */
MQ_API bool mq_machine_kernel(size_t slot, const char **name, const char **isa);

/* Of what is chosen by measuring: operations with several kernels of equal results, and the formats of prefill and attention. */
typedef struct mq_candidate {
    const char *choice, *name; /* "dense_thin", "plain"; "prefill", "int8" */
    double seconds;            /* of equal pieces of work; 0: there was no memory to measure */
    bool winner, pinned;       /* pinned: by MQ_VARIANTS */
} mq_candidate;

/* At most `room` of them; *count: how many there are. Measures what the cache folder (NULL: the usual one) does not have. */
MQ_API mq_status mq_machine_candidates(const char *cache_dir, mq_candidate *candidates, size_t room, size_t *count,
                                       mq_error *error);

#ifdef __cplusplus
}
#endif
#endif
