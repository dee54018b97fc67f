/* mixquant: runs a prompt through NVFP4 weights and activations, and the answer through the original BF16 weights.
 *
 * Nothing is owned at file scope: every object below has one constructor, one destructor and one owner. The library never prints,
 * exits or aborts on input; each fallible call returns a status and fills the caller's mq_error with one line. */
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

/* Reads tokenizer.json, tokenizer_config.json and the chat template (if any) of a checkpoint directory; needs no weights. template_file overrides the
 * directory's template (NULL: none). A directory without tokenizer.json still renders. Thread-safe after opening. Returns owned; free with mq_text_close. */
MQ_API mq_status mq_text_open(const char *model_dir, const char *template_file, mq_text **text, mq_error *error);
MQ_API void mq_text_close(mq_text *text);

enum { MQ_TOKENIZE_ADD_SPECIAL = 1, /* run the post-processor: BOS and the like */ MQ_TOKENIZE_PARSE_SPECIAL = 2 };

/* Text bytes (any bytes) -> token ids. *tokens is owned by the caller: mq_free. */
MQ_API mq_status mq_tokenize(const mq_text *text, const char *bytes, size_t count, unsigned flags, int32_t **tokens,
                             size_t *token_count, mq_error *error);
/* Token ids -> bytes, NUL-terminated as a convenience. Ids without a token (padding rows of the embedding) are empty, negative
 * ones MQ_USAGE, here and in a stream. *bytes is owned by the caller: mq_free. */
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

/* The arithmetic of a linear layer. BF16 stands for the checkpoint's own type (BF16, F16 or F32 weights, FP32 activations); NVFP4 is W4A4; W4A16 has NVFP4
 * weights and FP32 activations; W16A16 BF16 weights and activations rounded to BF16, as on GPUs (a checkpoint in F16 or F32 runs as BF16); INT8 is W8A8 with
 * a scale for every 64 weights and 64 activations; FP8 is W8A8 in E4M3 with a scale a row, for comparisons of quality: it computes in FP32. */
typedef enum mq_linear_format {
    MQ_LINEAR_BF16,
    MQ_LINEAR_NVFP4,
    MQ_LINEAR_W4A16,
    MQ_LINEAR_W16A16,
    MQ_LINEAR_INT8,
    MQ_LINEAR_FP8,
    MQ_LINEAR_FORMATS
} mq_linear_format;

/* A prompt is prefilled, an answer is decoded. */
typedef enum mq_phase { MQ_PHASE_PREFILL, MQ_PHASE_DECODE, MQ_PHASES } mq_phase;

MQ_API const char *
mq_linear_format_name(mq_linear_format format); /* "bf16", "nvfp4", "w4a16", "w16a16", "int8", "fp8" */

/* Linear layers that read the same input share a format: they share its quantised form. */
typedef enum mq_linear_group { MQ_GROUP_QKV, MQ_GROUP_O, MQ_GROUP_GATE_UP, MQ_GROUP_DOWN, MQ_GROUPS } mq_linear_group;

/* The arithmetic of attention in the prefill phase; the cache is BF16 and decoding attends in FP32 whatever it is. BF16 (of the cache) computes in FP32.
 * INT8 multiplies queries and weights with quantised tiles of earlier keys and values (SageAttention's recipe). W16A16 rounds queries and weights to BF16,
 * as GPUs' FlashAttention does, where the processor multiplies BF16 (AMX, AVX512_BF16, ARM's), and is BF16 elsewhere. */
typedef enum mq_attention_format {
    MQ_ATTENTION_BF16,
    MQ_ATTENTION_INT8,
    MQ_ATTENTION_W16A16,
    MQ_ATTENTION_FORMATS
} mq_attention_format;

MQ_API const char *mq_attention_format_name(mq_attention_format format); /* "bf16", "int8", "w16a16" */

/* How the NVFP4 copy is made from the checkpoint's weights; the on-disk format is the same for all. */
typedef enum mq_scale_rule { MQ_SCALES_RTN, MQ_SCALES_FOUR_SIX, MQ_SCALES_SWEEP, MQ_SCALE_RULES } mq_scale_rule;

MQ_API const char *mq_scale_rule_name(mq_scale_rule rule); /* "rtn", "four-six", "sweep" */

/* A phase plan: the format of all linear layers in each phase, or per layer from a JSON file (docs/PLANS.md).
 * Mix-Quant is {NVFP4, BF16}; uniform NVFP4 {NVFP4, NVFP4}; W4A16 {W4A16, W4A16}; the baseline {BF16, BF16}. */
typedef struct mq_plan_options {
    mq_linear_format prefill, decode, head; /* head: of lm_head, in both phases: BF16 (default), W4A16 or NVFP4 */
    const char *file;                       /* NULL, or the path of a plan file that overrides single layers */
    mq_attention_format attention;
} mq_plan_options;

/* Where weights lie. */
typedef enum mq_placement {
    MQ_PLACEMENT_AUTO, /* COPY with several memory nodes (NUMA); else MAP at first, and what decoding reads moves to memory
                          of 2 MiB pages while it decodes, given twice as much free memory */
    MQ_PLACEMENT_MAP, /* where the page cache has the file */
    MQ_PLACEMENT_COPY /* copied into the memory of the threads that read them; worker threads are bound to processors */
} mq_placement;

typedef struct mq_engine_options {
    const char *model_dir;         /* HF checkpoint directory, or OWNER/NAME of one that `hf download` has fetched */
    const char *prefill_model_dir; /* NULL, or a separate NVFP4 checkpoint for the prefill phase, with its own norms */
    mq_plan_options plan;
    mq_scale_rule scales;  /* how NVFP4 weights are made when no checkpoint brings them */
    int threads;           /* 0: one per processor that this process (its container) may use */
    uint32_t context;      /* largest number of tokens of a sequence; 0: the model's own maximum, bounded by memory */
    uint32_t chunk;        /* prefill rows per pass; 0: 512, with experts 2048 */
    uint32_t last;         /* tokens at a prompt's end that run in the decode plan; 0: 1, as in the paper */
    uint32_t sequences;    /* sequences that may hold a full context at once; 0: 1 */
    uint64_t state_bytes;  /* of snapshots of recurrent state; 0: 22 a context, a quarter of memory at most */
    uint64_t kv_bytes;     /* of KV of all sequences together, one context at least; 0: as `sequences` says */
    const char *cache_dir; /* where packed weights are kept; NULL: $XDG_CACHE_HOME/mixquant or ~/.cache/mixquant */
    bool no_cache;         /* neither read nor write packed weights */
    mq_placement placement;
    void (*log)(void *context, const char *line); /* NULL: silent; one line without newline */
    void *log_context;
} mq_engine_options;

typedef struct mq_engine mq_engine;

/* Maps the checkpoint, makes or loads the packed copies that the plan needs, starts the threads. Options are copied. */
MQ_API mq_status mq_engine_open(const mq_engine_options *options, mq_engine **engine, mq_error *error);
MQ_API void mq_engine_close(mq_engine *engine); /* after all its sequences are freed */

/* A plan for the engine's model; packs what is missing. Borrowed, valid while the engine lives; equal plans are one object. */
typedef struct mq_plan mq_plan;
MQ_API mq_status mq_engine_plan(mq_engine *engine, const mq_plan_options *options, const mq_plan **plan,
                                mq_error *error);
/* Another plan for sequences that have none of their own: their next sync rebuilds what the old one made. */
MQ_API mq_status mq_engine_set_plan(mq_engine *engine, const mq_plan_options *plan, mq_error *error);

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

typedef struct mq_engine_info {
    uint32_t vocab, width, ffn, layers, heads, kv_heads, head_dim, context, chunk, last, max_positions, state_interval;
    int threads;
    const char *isa, *model_type;                                                   /* valid while the engine lives */
    uint64_t parameters, mapped_bytes, packed_bytes, kv_bytes_per_token, kv_tokens; /* kv_tokens: of all sequences */
    uint64_t state_bytes;    /* recurrent state of a sequence (0: none); a snapshot every state_interval tokens */
    uint64_t linear_weights; /* weights of the layers' linear maps: the multiply-adds per token outside attention */
    uint64_t head_weights;   /* weights of lm_head */
    uint64_t decode_bytes;   /* weight bytes that one decode step reads under the present plan */
    int32_t bos;             /* -1: none */
    const int32_t *eos;      /* [eos_count] of the configs and the tokenizer; valid while the engine lives */
    size_t eos_count;
    mq_linear_format prefill, decode; /* of the plan (its defaults, where a file overrides layers) */
    mq_attention_format attention;    /* of the plan's prefill */
    /* What generation_config.json suggests: do_sample = false is temperature 0; fields it does not name are off, temperature 0 or (true) 1. */
    mq_sampling suggested;
    bool has_suggested; /* it names at least one */
} mq_engine_info;

MQ_API void mq_engine_describe(const mq_engine *engine, mq_engine_info *info);

/* ---------------------------------------------------------------- sequences */

/* One timeline of tokens and their keys and values (KV), which lie in blocks of 64 tokens. Sequences share blocks with their
 * forks; who writes to a shared block gets a copy first. All sequences of an engine are used by one thread at a time (the
 * engine has one thread pool), mq_sequence_cancel alone may come from any thread. */
typedef struct mq_sequence mq_sequence;

MQ_API mq_status mq_sequence_new(mq_engine *engine, mq_sequence **sequence, mq_error *error);
MQ_API void mq_sequence_free(mq_sequence *sequence);
/* A plan of its own, whatever the engine's is. KV that another plan made is forgotten. */
MQ_API void mq_sequence_set_plan(mq_sequence *sequence, const mq_plan *plan);
/* A new sequence that begins with the first `count` tokens (or fewer, as mq_sequence_truncate) and shares their blocks. It has no logits yet. */
MQ_API mq_status mq_sequence_fork(const mq_sequence *from, uint32_t count, mq_sequence **fork, mq_error *error);
/* Forgets tokens from `count` on, and the logits. Returns how many are held: recurrent state lands at its last snapshot, windows where their KV is left. */
MQ_API uint32_t mq_sequence_truncate(mq_sequence *sequence, uint32_t count);
/* The step that runs the sequence, or the next one, drops its rows before the next layer and says so; then it is over. */
MQ_API void mq_sequence_cancel(mq_sequence *sequence);

MQ_API const int32_t *mq_sequence_tokens(const mq_sequence *sequence, uint32_t *count);
/* Provenance: whether the KV of a position was computed in the decode plan. */
MQ_API bool mq_sequence_is_precise(const mq_sequence *sequence, uint32_t position);
/* [vocab], valid until the next call on the sequence: of its last token, or so many before it. NULL: not computed. */
MQ_API const float *mq_sequence_logits(const mq_sequence *sequence);
MQ_API const float *mq_sequence_logits_of(const mq_sequence *sequence, uint32_t before_last);

/* Rows of a step: tokens that are appended to a sequence in one phase of its plan. */
typedef struct mq_rows {
    mq_sequence *sequence;
    const int32_t *tokens; /* [count] */
    uint32_t count;        /* 1 or more; in DECODE more than one to verify a draft */
    mq_phase phase;
    uint32_t logits; /* of the last so many rows (0 to count): mq_sequence_logits */
    uint32_t done;   /* out: rows that were appended */
    /* out: MQ_OK; MQ_CANCELLED: the sequence was cancelled after `done` rows; MQ_FORMAT: logits with NaN or infinity (damaged
     * weights), none are kept. The other sequences of the step are not affected. */
    mq_status status;
} mq_rows;

/* Runs rows of many sequences together: prefill rows share their products, decode rows of all sequences read the weights once
 * (up to 64 in a pass). A sequence may appear once a phase, with its prefill rows first. Results do not depend on which
 * rows stand together: a row has the bits that it has alone. Everything is checked first, so a refusal changes nothing.
 * MQ_FORMAT: a weight is NaN or infinite; an embedding row is refused before, logits after rows ran, and none are kept. */
MQ_API mq_status mq_engine_step(mq_engine *engine, mq_rows *rows, uint32_t count, mq_error *error);

/* ---- KV images: a range of a sequence as bytes, for disks and other machines (src/format/kvimage.h has the layout) */

/* Positions first .. first+count-1, all held, in pieces; recurrent: to the end or a snapshot (else MQ_USAGE). Return false to stop: MQ_WRITE. */
MQ_API mq_status mq_sequence_export(mq_sequence *sequence, uint32_t first, uint32_t count,
                                    bool (*write)(void *context, const void *bytes, size_t count), void *context,
                                    mq_error *error);
/* Appends the range of an image to a sequence that holds exactly the tokens before it. `read` fills all of `bytes` or returns false (MQ_IO: the image is
 * cut). MQ_FORMAT for a damaged image, MQ_UNSUPPORTED for one of other weights, plan, tokenizer, rope or layout. A refusal changes nothing. */
MQ_API mq_status mq_sequence_import(mq_sequence *sequence, bool (*read)(void *context, void *bytes, size_t count),
                                    void *context, mq_error *error);

/* ---- one sequence alone */

typedef struct mq_sync_options {
    /* Called after each chunk; return false to cancel (MQ_CANCELLED; what is computed stays in the sequence). */
    bool (*progress)(void *context, uint32_t done, uint32_t total);
    /* If set, logits [rows, vocab] of positions first .. first+rows-1 are computed for every new token. */
    void (*logits)(void *context, uint32_t first, uint32_t rows, const float *logits);
    void *context;
    uint32_t precise; /* how many tokens at the prompt's end run in the decode plan; 0: as the engine's options say */
} mq_sync_options;

typedef struct mq_sync_stats {
    uint32_t cached, prefilled; /* tokens reused, and tokens computed in the prefill plan */
    double prefill_s, last_s;   /* seconds for those, and for the tokens in the decode plan */
} mq_sync_stats;

/* Makes the sequence hold exactly tokens[0, count), reusing the longest common prefix: tokens up to count-2 run in the prefill plan, the last one (or
 * more, see `precise`) in the decode plan, and its logits are ready afterwards (paper, section 3). options and stats may be NULL. A refusal changes
 * nothing; after MQ_CANCELLED the sequence keeps the tokens that are complete. */
MQ_API mq_status mq_sequence_sync(mq_sequence *sequence, const int32_t *tokens, uint32_t count,
                                  const mq_sync_options *options, mq_sync_stats *stats, mq_error *error);

/* Appends one token in the decode plan; its logits are ready afterwards. */
MQ_API mq_status mq_sequence_step(mq_sequence *sequence, int32_t token, mq_error *error);

/* ---------------------------------------------------------------- sampling and generation */

typedef struct mq_token_logprob {
    int32_t token;
    float logprob;
} mq_token_logprob;

/* Log probability of `token` in the unmodified distribution; fills the `top_count` best ones, too. A pass over the row. */
MQ_API float mq_logprobs(const float *logits, uint32_t vocab, int32_t token, mq_token_logprob *top, size_t top_count);

/* From logits to a token. Draws depend on logits, settings, seed and position (the number of accepted tokens) only: the same token comes out however calls
 * of several sequences interleave, and again after a rewind. Nothing allocates after `new`. */
typedef struct mq_sampler mq_sampler;

enum { MQ_SAMPLER_REWIND = 256 }; /* tokens that can be forgotten at most */

/* Prompt tokens count for the repetition penalty. Everything is copied. MQ_USAGE names a parameter out of range. */
MQ_API mq_status mq_sampler_new(const mq_sampling *sampling, uint32_t vocab, const int32_t *prompt, size_t prompt_count,
                                mq_sampler **sampler, mq_error *error);
MQ_API void mq_sampler_free(mq_sampler *sampler);
/* Draws from logits [vocab]; changes nothing that a later draw sees. mask: NULL, or a bit per token, 1 = allowed (bit i % 32
 * of mask[i / 32]). NaN, plus infinity and a row without a token that may be drawn are MQ_USAGE. */
MQ_API mq_status mq_sampler_draw(mq_sampler *sampler, const float *logits, const uint32_t *mask, int32_t *token,
                                 mq_error *error);
/* Probability of a token in the distribution of the last draw, after all filters. The logits of that draw must still be there. */
MQ_API double mq_sampler_probability(const mq_sampler *sampler, int32_t token);
/* accept counts a token (penalties, position), rewind forgets the last `count` of them. */
MQ_API mq_status mq_sampler_accept(mq_sampler *sampler, int32_t token, mq_error *error);
MQ_API mq_status mq_sampler_rewind(mq_sampler *sampler, uint32_t count, mq_error *error);
MQ_API uint64_t mq_sampler_position(const mq_sampler *sampler);

typedef enum mq_finish {
    MQ_FINISH_NONE, /* it goes on */
    MQ_FINISH_EOS,
    MQ_FINISH_STOP,
    MQ_FINISH_LENGTH,
    MQ_FINISH_CANCELLED
} mq_finish;

typedef struct mq_generate_options {
    mq_sampling sampling;
    uint32_t max_tokens;
    /* Generation ends with the token that completes one; of several that end at the same byte the longest counts. It and
     * what follows are not printed. The text of special tokens is searched also when it is not printed. UTF-8. */
    const char *const *stops;
    const int32_t *stop_ids; /* besides the model's end tokens */
    size_t stop_count, stop_id_count;
    bool ignore_eos, keep_special, keep_markers; /* print special tokens: all; those that mq_token_is_marker knows */
    const struct mq_draft_script *script;        /* NULL; of benchmarks (mixquant_draft.h) */
    /* ---- of mq_generate only */
    bool logprobs;         /* report log probabilities to `token`; implied by top_logprobs */
    uint32_t top_logprobs; /* 0..20: alternatives reported to `token` */
    /* text: after each token, what became certain, complete UTF-8 without any of a stop string; false cancels. token: each sampled one,
     * with its log probability (of the unmodified distribution; NaN unless asked for) and alternatives. */
    bool (*text)(void *context, const char *bytes, size_t count);
    void (*token)(void *context, int32_t token, float logprob, const mq_token_logprob *top, size_t top_count);
    void *context;
    struct mq_drafter *drafter; /* NULL, or who proposes tokens: the same answer, sooner (mixquant_draft.h) */
} mq_generate_options;

/* One answer in the making: sampler, stop search, detokenising, counts. It sees logits and tokens only, neither engine nor KV: one sequence, a batch or
 * verified drafts drive it alike. Text is UTF-8 whatever the tokens are: bytes that are none become U+FFFD, and a character that the end cuts is left
 * out. */
typedef struct mq_generation mq_generation;

/* Where an answer begins, or goes on. */
typedef struct mq_generation_start {
    uint32_t vocab;
    const int32_t *eos; /* the model's end tokens */
    size_t eos_count;
    const int32_t *tokens; /* [token_count] the prompt, then the answer so far, which only the sampler counts */
    size_t prompt_count, token_count;
} mq_generation_start;

/* Everything but `text` is copied. */
MQ_API mq_status mq_generation_new(const mq_text *text, const mq_generate_options *options,
                                   const mq_generation_start *start, mq_generation **generation, mq_error *error);
MQ_API void mq_generation_free(mq_generation *generation);
MQ_API mq_sampler *mq_generation_sampler(mq_generation *generation); /* its own: to draw with a mask, for drafts */
/* Takes the next token of the answer (accepts it as well). *bytes: the text that became certain, valid until the next call.
 * With a *finish other than MQ_FINISH_NONE it is the last text, and nothing may be pushed any more. */
MQ_API mq_status mq_generation_push(mq_generation *generation, int32_t token, const char **bytes, size_t *count,
                                    mq_finish *finish, mq_error *error);
/* Ends an answer from outside (a full context): the text that was held back. */
MQ_API mq_status mq_generation_end(mq_generation *generation, const char **bytes, size_t *count, mq_error *error);
MQ_API uint32_t mq_generation_count(const mq_generation *generation); /* tokens pushed, the end token not counted */
MQ_API size_t mq_generation_stop(const mq_generation *generation);    /* MQ_FINISH_STOP: which of `stops` it was */

typedef struct mq_generate_result {
    uint32_t generated; /* tokens sampled, the end token not counted */
    double decode_s;    /* seconds of the decode steps */
    uint32_t steps, drafted,
        drafted_right; /* these steps; tokens proposed, and right: a step brings those and one more */
    mq_finish finish;
} mq_generate_result;

/* Samples from the sequence's ready logits until an end, a stop or max_tokens. The sequence holds the answer afterwards (all but its last token, which has
 * not been computed), so that the next turn extends it. Tokens that were appended since the last sync count as output of this answer (penalties,
 * position): with the same seed, several calls continue as one would. Text and stop search begin anew with each call. */
MQ_API mq_status mq_generate(mq_sequence *sequence, const mq_text *text, const mq_generate_options *options,
                             mq_generate_result *result, mq_error *error);

MQ_API const char *mq_version(void); /* "0.1.0" */
MQ_API const char *mq_commit(void);  /* of the build, or "unknown" */

#ifdef __cplusplus
}
#endif
#endif
