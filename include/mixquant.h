/* mixquant: runs a prompt through NVFP4 weights and activations, and the answer through the original BF16 weights.
 *
 * This is the only public header. It owns nothing at file scope: every object below has one constructor, one destructor
 * and one owner. The library never prints, exits or aborts on input; each fallible call returns a status and fills the
 * caller's mq_error with one line that names what failed, where, what was expected and what was found. */
#ifndef MIXQUANT_H
#define MIXQUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MQ_API __attribute__((visibility("default")))

/* ---------------------------------------------------------------- status */

/* X(name, text). World and resource errors are statuses; a bug in the library is an assert. */
#define MQ_STATUS_LIST(X)                                                                                              \
    X(OK, "ok")                                                                                                        \
    X(USAGE, "wrong usage")         /* an argument of the caller is out of its documented range */                     \
    X(NO_MEMORY, "out of memory")   /* an allocation failed or would pass a configured bound */                        \
    X(IO, "cannot read")            /* the system refused to open, read or map a file */                               \
    X(WRITE, "cannot write")        /* the system refused to create, write or rename a file (a full disk) */           \
    X(FORMAT, "malformed file")     /* a file's bytes contradict its format */                                         \
    X(UNSUPPORTED, "not supported") /* a well-formed file asks for something that this library refuses */              \
    X(LIMIT, "limit exceeded")      /* a budget was spent: steps, depth, output bytes, context length */               \
    X(CANCELLED, "cancelled")       /* the caller's callback asked to stop */                                          \
    X(TEMPLATE, "template error")   /* a chat template raised an exception or does not apply */

typedef enum mq_status {
#define MQ_STATUS_ENUM(name, text) MQ_##name,
    MQ_STATUS_LIST(MQ_STATUS_ENUM)
#undef MQ_STATUS_ENUM
} mq_status;

/* Filled by the call that failed first; untouched on success. May be NULL where the text is not wanted. */
typedef struct mq_error {
    mq_status status;
    char text[480]; /* one line, NUL-terminated: "<what>: <where>: expected <x>, got <y>" */
} mq_error;

/* The constant text of a status; never NULL. */
MQ_API const char *mq_status_text(mq_status status);

/* ---------------------------------------------------------------- texts: tokenizer and chat template */

typedef struct mq_text mq_text;

/* Reads tokenizer.json, tokenizer_config.json and the chat template (if any) of a checkpoint directory; needs no
 * weights. template_file overrides the directory's template (NULL: none). A directory without tokenizer.json still
 * renders. Thread-safe after opening. Returns owned; free with mq_text_close. */
MQ_API mq_status mq_text_open(const char *model_dir, const char *template_file, mq_text **text, mq_error *error);
MQ_API void mq_text_close(mq_text *text);

enum { MQ_TOKENIZE_ADD_SPECIAL = 1, /* run the post-processor: BOS and the like */ MQ_TOKENIZE_PARSE_SPECIAL = 2 };

/* Text bytes (any bytes) -> token ids. *tokens is owned by the caller: mq_free. */
MQ_API mq_status mq_tokenize(const mq_text *text, const char *bytes, size_t count, unsigned flags, int32_t **tokens,
                             size_t *token_count, mq_error *error);
/* Token ids -> bytes, NUL-terminated as a convenience. *bytes is owned by the caller: mq_free. */
MQ_API mq_status mq_detokenize(const mq_text *text, const int32_t *tokens, size_t count, bool skip_special,
                               char **bytes, size_t *byte_count, mq_error *error);
/* Renders an OpenAI-style body {messages, tools, add_generation_prompt, chat_template_kwargs} (JSON text) into the exact
 * prompt. MQ_TEMPLATE when the template raises or none exists. *prompt is owned by the caller: mq_free. */
MQ_API mq_status mq_render(const mq_text *text, const char *request_json, size_t count, char **prompt, size_t *bytes,
                           mq_error *error);

/* Incremental detokenising: each push returns the bytes that became complete, never a part of a UTF-8 sequence. */
enum { MQ_STREAM_SKIP_SPECIAL = 1, MQ_STREAM_CONTINUES = 2 /* the tokens continue a text: keep a leading space */ };
typedef struct mq_stream mq_stream;
MQ_API mq_status mq_stream_new(const mq_text *text, unsigned flags, mq_stream **stream, mq_error *error);
MQ_API mq_status mq_stream_push(mq_stream *stream, int32_t token, const char **bytes, size_t *count, mq_error *error);
MQ_API mq_status mq_stream_flush(mq_stream *stream, const char **bytes, size_t *count, mq_error *error);
MQ_API void mq_stream_free(mq_stream *stream);

MQ_API bool mq_token_is_special(const mq_text *text, int32_t token);

MQ_API void mq_free(void *block); /* frees what the calls above returned as owned */

/* ---------------------------------------------------------------- engine */

/* The arithmetic of a linear layer. BF16 stands for the checkpoint's own type (BF16, F16 or F32 weights, FP32
 * activations); NVFP4 is W4A4; W4A16 has NVFP4 weights and FP32 activations; W16A16 has BF16 weights and activations
 * rounded to BF16, the arithmetic of GPUs' BF16 baselines (a checkpoint in F16 or F32 runs as BF16 in its place); INT8 is
 * W8A8 with a scale for every 64 weights and 64 activations. */
typedef enum mq_linear_format {
    MQ_LINEAR_BF16,
    MQ_LINEAR_NVFP4,
    MQ_LINEAR_W4A16,
    MQ_LINEAR_W16A16,
    MQ_LINEAR_INT8,
    MQ_LINEAR_FORMATS
} mq_linear_format;

MQ_API const char *mq_linear_format_name(mq_linear_format format); /* "bf16", "nvfp4", "w4a16", "w16a16", "int8" */
MQ_API mq_status mq_linear_format_parse(const char *name, mq_linear_format *format, mq_error *error);

/* Linear layers that read the same input share a format: they share its quantised form. */
typedef enum mq_linear_group { MQ_GROUP_QKV, MQ_GROUP_O, MQ_GROUP_GATE_UP, MQ_GROUP_DOWN, MQ_GROUPS } mq_linear_group;

MQ_API const char *mq_linear_group_name(mq_linear_group group); /* "qkv", "o", "gate_up", "down" */

/* The arithmetic of attention in the prefill phase; the cache is BF16 and decoding attends in FP32 whatever it is. BF16
 * (of the cache) computes in FP32. INT8 multiplies queries and weights with quantised tiles of earlier keys and values
 * (SageAttention's recipe). W16A16 rounds queries and weights to BF16, as GPUs' FlashAttention does, where the processor
 * multiplies BF16 (AVX512_BF16), and is BF16 elsewhere. */
typedef enum mq_attention_format {
    MQ_ATTENTION_BF16,
    MQ_ATTENTION_INT8,
    MQ_ATTENTION_W16A16,
    MQ_ATTENTION_FORMATS
} mq_attention_format;

MQ_API const char *mq_attention_format_name(mq_attention_format format); /* "bf16", "int8", "w16a16" */
MQ_API mq_status mq_attention_format_parse(const char *name, mq_attention_format *format, mq_error *error);

/* How the NVFP4 copy is made from the checkpoint's weights; the on-disk format is the same for all. */
typedef enum mq_scale_rule { MQ_SCALES_RTN, MQ_SCALES_FOUR_SIX, MQ_SCALES_SWEEP, MQ_SCALE_RULES } mq_scale_rule;

MQ_API const char *mq_scale_rule_name(mq_scale_rule rule); /* "rtn", "four-six", "sweep" */
MQ_API mq_status mq_scale_rule_parse(const char *name, mq_scale_rule *rule, mq_error *error);

/* A phase plan: the format of all linear layers in each phase, or per layer from a JSON file (docs/PLANS.md).
 * Mix-Quant is {NVFP4, BF16}; uniform NVFP4 {NVFP4, NVFP4}; W4A16 {W4A16, W4A16}; the baseline {BF16, BF16}. */
typedef struct mq_plan_options {
    mq_linear_format prefill, decode;
    const char *file; /* NULL, or the path of a plan file that overrides single layers */
    mq_attention_format attention;
} mq_plan_options;

/* The prefill format for this machine: INT8 where it is the fastest and its copy fits in half of the free memory, NVFP4 where
 * it is not or does not, BF16 without vector units. `why` (of `size` bytes) says so in a line. */
MQ_API mq_status mq_choose_prefill(const char *model_dir, mq_linear_format *format, char *why, size_t size,
                                   mq_error *error);

/* Where weights lie. */
typedef enum mq_placement {
    MQ_PLACEMENT_AUTO, /* COPY with several memory nodes (NUMA); else MAP at first, and what decoding reads moves to memory
                          of 2 MiB pages while it decodes, given twice as much free memory */
    MQ_PLACEMENT_MAP, /* where the page cache has the file */
    MQ_PLACEMENT_COPY /* copied into the memory of the threads that read them; worker threads are bound to processors */
} mq_placement;

MQ_API mq_status mq_placement_parse(const char *name, mq_placement *placement,
                                    mq_error *error); /* "auto", "off", "on" */

typedef struct mq_engine_options {
    const char *model_dir;         /* HF checkpoint directory: the precise copy */
    const char *prefill_model_dir; /* NULL, or a separate NVFP4 checkpoint for the prefill phase, with its own norms */
    mq_plan_options plan;
    mq_scale_rule scales;  /* how NVFP4 weights are made when no checkpoint brings them */
    int threads;           /* 0: one per available processor */
    uint32_t context;      /* largest number of tokens of a session; 0: the model's own maximum, bounded by memory */
    uint32_t chunk;        /* prefill rows per pass; 0: 512 */
    uint32_t sessions;     /* sessions that may hold a full context at once; 0: 1 */
    const char *cache_dir; /* where packed weights are kept; NULL: $XDG_CACHE_HOME/mixquant or ~/.cache/mixquant */
    bool no_cache;         /* neither read nor write packed weights */
    mq_placement placement;
    void (*log)(void *context, const char *line); /* NULL: silent; one line without newline */
    void *log_context;
} mq_engine_options;

typedef struct mq_engine mq_engine;

/* Maps the checkpoint, makes or loads the packed copies that the plan needs, starts the threads. Options are copied. */
MQ_API mq_status mq_engine_open(const mq_engine_options *options, mq_engine **engine, mq_error *error);
MQ_API void mq_engine_close(mq_engine *engine); /* after all its sessions are freed */

/* Another plan for the same model; packs what is missing. Cached tokens of sessions stay valid only for the plan they
 * were made with: the next sync rebuilds them. */
MQ_API mq_status mq_engine_set_plan(mq_engine *engine, const mq_plan_options *plan, mq_error *error);

/* Moves weights to large pages now instead of a slice after each decode step (MQ_PLACEMENT_AUTO): before timing, or while a
 * server is idle. Sessions and results are unaffected. */
MQ_API void mq_engine_settle(mq_engine *engine);

typedef struct mq_engine_info {
    uint32_t vocab, width, ffn, layers, heads, kv_heads, head_width, context, chunk, max_positions;
    int threads;
    const char *isa, *model_type; /* valid while the engine lives */
    uint64_t parameters, mapped_bytes, packed_bytes, kv_bytes_per_token;
    uint64_t linear_weights; /* weights of the layers' linear maps: the multiply-adds per token outside attention */
    uint64_t head_weights;   /* weights of lm_head */
    uint64_t decode_bytes;   /* weight bytes that one decode step reads under the present plan */
    int32_t bos;             /* -1: none */
    const int32_t *eos;      /* valid while the engine lives */
    size_t eos_count;
    mq_linear_format prefill, decode; /* of the plan (its defaults, where a file overrides layers) */
    mq_attention_format attention;    /* of the plan's prefill */
} mq_engine_info;

MQ_API void mq_engine_describe(const mq_engine *engine, mq_engine_info *info);

/* ---------------------------------------------------------------- sessions */

/* One timeline of tokens and their KV. Used by one thread at a time; sessions of one engine are used by one thread at a
 * time altogether (the engine has one thread pool). */
typedef struct mq_session mq_session;

MQ_API mq_status mq_session_new(mq_engine *engine, mq_session **session, mq_error *error);
MQ_API void mq_session_free(mq_session *session);

typedef struct mq_sync_options {
    /* Called after each chunk; return false to cancel (MQ_CANCELLED; what is computed stays in the session). */
    bool (*progress)(void *context, uint32_t done, uint32_t total);
    /* If set, logits [rows, vocab] of positions first .. first+rows-1 are computed for every new token. */
    void (*logits)(void *context, uint32_t first, uint32_t rows, const float *logits);
    void *context;
} mq_sync_options;

typedef struct mq_sync_stats {
    uint32_t cached, prefilled; /* tokens reused, and tokens computed in the prefill plan */
    double prefill_s, last_s;   /* seconds for those, and for the last token in the decode plan */
} mq_sync_stats;

/* Makes the session hold exactly tokens[0, count), reusing the longest common prefix: tokens up to count-2 run in the
 * prefill plan, the last one in the decode plan, and its logits are ready afterwards (paper, section 3). options and
 * stats may be NULL. On an error other than MQ_CANCELLED the session keeps the tokens that are complete. */
MQ_API mq_status mq_session_sync(mq_session *session, const int32_t *tokens, uint32_t count,
                                 const mq_sync_options *options, mq_sync_stats *stats, mq_error *error);

/* Appends one token in the decode plan; its logits are ready afterwards. */
MQ_API mq_status mq_session_step(mq_session *session, int32_t token, mq_error *error);

/* The same for `count` sessions of one engine at once (1 to 8): the weights are read once. */
MQ_API mq_status mq_session_step_batch(mq_session *const *sessions, const int32_t *tokens, uint32_t count,
                                       mq_error *error);

MQ_API const float *mq_session_logits(const mq_session *session); /* [vocab], valid until the next call on it */
MQ_API const int32_t *mq_session_tokens(const mq_session *session, uint32_t *count);
MQ_API void mq_session_truncate(mq_session *session, uint32_t count); /* forgets tokens from `count` on; logits too */

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

/* ---------------------------------------------------------------- watching a pass */

/* What passes by, for calibration and analysis. Each may be NULL. Called on the caller's thread between the stages of every
 * pass, prefill or decode; the values are valid during the call and must not be changed. */
typedef struct mq_observer {
    /* The input rows [count, width] of a linear group, as FP32 before any quantisation: normed rows, the attention's
     * output, or silu(gate) * up. In the order of the layers, after the group has been computed. */
    void (*linear)(void *context, uint32_t layer, mq_linear_group group, const float *rows, uint32_t count,
                   uint32_t width);
    /* The queries [rows, heads * head_width] of positions first .. first+rows-1, rotated, not yet scaled by
     * 1/sqrt(head_width). Once per sequence of the pass; its keys up to these positions can be read then. */
    void (*queries)(void *context, uint32_t layer, uint32_t first, const float *queries, uint32_t rows);
    void *context;
} mq_observer;

/* Watches all sessions of the engine from now on; NULL ends it. Copied. */
MQ_API void mq_engine_observe(mq_engine *engine, const mq_observer *observer);

/* Keys and values [count, head_width] of one kv head at positions first .. first+count-1, as attention reads them: BF16
 * widened to FP32, keys rotated. Either may be NULL. Inside a callback of the session's own pass, positions of that pass
 * can be read as well. MQ_USAGE for a place that the session does not hold. */
MQ_API mq_status mq_session_read_kv(const mq_session *session, uint32_t layer, uint32_t kv_head, uint32_t first,
                                    uint32_t count, float *keys, float *values, mq_error *error);

/* ---------------------------------------------------------------- sampling and generation */

typedef struct mq_logit_bias {
    int32_t token;
    float bias;
} mq_logit_bias;

typedef struct mq_sampling {
    float temperature;                         /* 0: greedy */
    int top_k;                                 /* 0: off */
    float top_p;                               /* 1: off */
    float min_p;                               /* 0: off */
    float repetition_penalty;                  /* 1: off; over prompt and output (CTRL) */
    float presence_penalty, frequency_penalty; /* 0: off; over the output only (OpenAI) */
    const mq_logit_bias *bias;
    size_t bias_count;
    uint64_t seed;
} mq_sampling;

#define MQ_SAMPLING_GREEDY ((mq_sampling){.temperature = 0, .top_p = 1, .repetition_penalty = 1})

typedef struct mq_token_logprob {
    int32_t token;
    float logprob;
} mq_token_logprob;

typedef enum mq_finish { MQ_FINISH_EOS, MQ_FINISH_STOP, MQ_FINISH_LENGTH, MQ_FINISH_CANCELLED } mq_finish;

typedef struct mq_generate_options {
    mq_sampling sampling;
    uint32_t max_tokens;
    const char *const *stops; /* stop strings: generation ends before the first one, which is not printed */
    size_t stop_count;
    const int32_t *stop_ids; /* besides the model's end tokens */
    size_t stop_id_count;
    bool ignore_eos;
    bool keep_special;     /* print special tokens */
    uint32_t top_logprobs; /* 0..20: alternatives reported to `token` */
    /* Text as it becomes certain: complete UTF-8, no part of a stop string. Return false to cancel. */
    bool (*text)(void *context, const char *bytes, size_t count);
    /* Each sampled token with its log probability (of the unmodified distribution) and the alternatives. */
    void (*token)(void *context, int32_t token, float logprob, const mq_token_logprob *top, size_t top_count);
    void *context;
} mq_generate_options;

typedef struct mq_generate_result {
    uint32_t generated; /* tokens sampled, the end token not counted */
    double decode_s;    /* seconds of the decode steps */
    uint32_t steps;     /* decode steps timed in decode_s */
    mq_finish finish;
} mq_generate_result;

/* Samples from the session's ready logits until an end, a stop or max_tokens. The session holds the answer afterwards
 * (all but its last token, which has not been computed), so that the next turn extends it. */
MQ_API mq_status mq_generate(mq_session *session, const mq_text *text, const mq_generate_options *options,
                             mq_generate_result *result, mq_error *error);

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

/* How codes are found, given the rule of the scales: each weight to its nearest value, or (GPTQ) the columns one after the
 * other, each taking up the errors of those before it, weighted with what the inputs of calibration texts look like. */
typedef enum mq_quantize_method { MQ_METHOD_RTN, MQ_METHOD_GPTQ, MQ_METHODS } mq_quantize_method;

MQ_API const char *mq_quantize_method_name(mq_quantize_method method); /* "rtn", "gptq" */
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
                           "model.layers.0.self_attn.q_proj"; q, k and v (gate and up) can only be left out together */
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

/* This machine: level, caches, and (when measured) its limits, the yardsticks of every benchmark. */
typedef struct mq_machine {
    char cpu[96];
    const char *isa;
    int threads;
    double read_gb_s, fma_gmac_s; /* of all threads together; 0 when not measured */
    size_t l1d_bytes, l2_bytes, l3_bytes;
} mq_machine;

MQ_API mq_status mq_machine_measure(int threads, bool measure, mq_machine *machine, mq_error *error);
/* Kernel slots: returns false past the last; *isa names the level that provides the slot. */
MQ_API bool mq_machine_kernel(size_t slot, const char **name, const char **isa);

MQ_API const char *mq_version(void); /* "0.1.0" */
MQ_API const char *mq_commit(void);  /* of the build, or "unknown" */

#ifdef __cplusplus
}
#endif
#endif
