/* mixquant_serve.h: what a server of many clients needs beside mixquant.h: tool calls in a model's text, masks that hold an answer to
 * a JSON schema, and a scheduler that runs many requests on one engine over a prefix cache. No network here. */
#ifndef MIXQUANT_SERVE_H
#define MIXQUANT_SERVE_H

#include "mixquant_draft.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- tool calls and reasoning in an answer's text */

/* How a model writes a tool call. */
typedef enum mq_tool_format {
    MQ_TOOLS_NONE,   /* its template knows no tools: calls are text */
    MQ_TOOLS_HERMES, /* <tool_call>{"name": ..., "arguments": {...}}</tool_call> (Hermes, Qwen2.5, Qwen3) */
    MQ_TOOLS_QWEN3_CODER, /* <tool_call><function=NAME><parameter=KEY>value</parameter></function></tool_call> (also Qwen3.5) */
    MQ_TOOLS_LLAMA3,  /* {"name": ..., "parameters": {...}} before any text, or after <|python_tag|>; more after ';' */
    MQ_TOOLS_MISTRAL, /* [TOOL_CALLS][{"name": ..., "arguments": {...}}], or [TOOL_CALLS]name[ARGS]{...} */
    MQ_TOOLS_GEMMA4,  /* <|tool_call>call:name{key:<|"|>text<|"|>,n:1}<tool_call|> */
    MQ_TOOL_FORMATS
} mq_tool_format;

MQ_API const char *
mq_tool_format_name(mq_tool_format format); /* "none", "hermes", "qwen3-coder", "llama3", "mistral", "gemma4" */

/* What the chat template says about answers. */
typedef struct mq_answer_style {
    mq_tool_format tools;
    bool keep_special; /* its markers are special tokens: generate with keep_markers (not with keep_special) */
    char think[32],
        unthink[32]; /* what stands around reasoning, "<think>" and "</think>"; empty: the model does not reason */
} mq_answer_style;

/* From the template's text and the tokenizer, found out when `text` was opened. */
MQ_API void mq_text_answer_style(const mq_text *text, mq_answer_style *style);
/* A special token that marks calls or reasoning in this style. Other special tokens are no part of an answer's text. */
MQ_API bool mq_token_is_marker(const mq_text *text, int32_t token);

/* Pieces of an answer, in order. A call is CALL, any number of ARGUMENTS, CALL_END; an incomplete one has no CALL_END. */
typedef enum mq_part_kind {
    MQ_PART_REASONING,
    MQ_PART_TEXT,
    MQ_PART_CALL,
    MQ_PART_ARGUMENTS,
    MQ_PART_CALL_END
} mq_part_kind;

typedef struct mq_part {
    mq_part_kind kind;
    uint32_t call; /* number of the call in the answer, from 0 */
    const char
        *bytes; /* REASONING, TEXT: some of it. CALL: the function's name. ARGUMENTS: some of the JSON object's text */
    size_t count;
} mq_part;

typedef struct mq_answer_options {
    mq_answer_style style; /* with tools = MQ_TOOLS_NONE calls stay text */
    bool split_reasoning;  /* false: reasoning stays in the text */
    bool in_reasoning;     /* the prompt ends inside it */
    const char *tools;     /* the request's tools (OpenAI's JSON array): types of parameters; NULL: none */
    size_t tools_bytes;
    void (*part)(void *context, const mq_part *part);
    void *context;
} mq_answer_options;

/* Takes an answer apart as it streams. Total: any bytes will do, and the parts (those of one kind joined) do not depend on where
 * pushes cut them; pieces are whole UTF-8 characters where pushes are. Time is linear. What is held back: the beginning of a mark,
 * white space that may go, a call up to its name, a parameter that need not be a string.
 *
 * - CALL comes when the name is complete, ARGUMENTS follow as they come. Where the model writes JSON they are its bytes (of a string
 *   with JSON in it, the text), duplicate keys included; no arguments are "{}". Elsewhere they are made from its text by the types of
 *   the tool's schema: what may only be a string is one, anything else is JSON if it is JSON, else a string.
 * - CALL_END comes with the end of the arguments: together they are one JSON object. What follows it up to the closing mark is
 *   dropped where it is in order, and text from where it is not. A closing mark that is missing does not matter.
 * - What comes to no call is text, all of it: broken JSON, a name that `tools` does not have, an opening mark alone.
 * - Arguments that break, or that the answer's end cuts: what came was valid so far, nothing is repaired. There is no CALL_END, the
 *   call is not counted, the rest is text.
 * - Reasoning begins where `think` precedes any text (also after a call), and ends with `unthink`, or never. Line breaks at its ends
 *   and behind it go; calls in it are reasoning.
 * - White space that is alone between reasoning, calls and the end goes, and one line break before a call. If there is no call and no
 *   reasoning the text is the answer, byte for byte. */
typedef struct mq_answer mq_answer;
MQ_API mq_status mq_answer_new(const mq_answer_options *options, mq_answer **answer, mq_error *error);
MQ_API mq_status mq_answer_push(mq_answer *answer, const char *bytes, size_t count, mq_error *error);
MQ_API mq_status mq_answer_end(mq_answer *answer, mq_error *error); /* what was held back */
MQ_API uint32_t mq_answer_calls(const mq_answer *answer);           /* calls with a CALL_END so far */
MQ_API bool mq_answer_in_reasoning(const mq_answer *answer);        /* what came last is part of it */
MQ_API void mq_answer_free(mq_answer *answer);

/* ---------------------------------------------------------------- masks: which tokens may come next */

/* The vocabulary as a tree of bytes. Built once a model, read by all constraints; may be shared by threads. */
typedef struct mq_vocabulary mq_vocabulary;
/* vocab: of the logits; eos: tokens that may come where an answer may end. */
MQ_API mq_status mq_vocabulary_new(const mq_text *text, uint32_t vocab, const int32_t *eos, size_t eos_count,
                                   mq_vocabulary **vocabulary, mq_error *error);
MQ_API void mq_vocabulary_free(mq_vocabulary *vocabulary);

typedef struct mq_constraint_options {
    const char *schema; /* a JSON schema the answer must satisfy (docs/SCHEMA.md says which); "{}": any JSON value */
    size_t schema_bytes;
    bool
        strict; /* a keyword that is not supported is an error (MQ_UNSUPPORTED names it); else it is left out and reported */
    /* Or calls of tools, in the model's format. With a schema as well the answer is either: all of it satisfies the schema, or is
     * calls. */
    mq_tool_format format;
    const char *tools; /* OpenAI's JSON array, already cut down to the ones that may be called */
    size_t tools_bytes;
    bool strict_tools; /* with a schema: what `strict` is for the tools */
    bool required;     /* the answer is a call; else text is free and what begins a call must go on as one */
    bool parallel;     /* more calls may follow */
    /* NULL, or the text after which it begins ("</think>"). What comes before is free; only the end may not, where something must follow. */
    const char *after;
} mq_constraint_options;

/* Holds one answer to a schema. Memory and time are bounded whatever the schema is: MQ_LIMIT. */
typedef struct mq_constraint mq_constraint;
/* *dropped: keywords that were left out, "a, b" (owned: mq_free), or NULL. dropped may be NULL. */
MQ_API mq_status mq_constraint_new(const mq_vocabulary *vocabulary, const mq_constraint_options *options,
                                   mq_constraint **constraint, char **dropped, mq_error *error);
MQ_API void mq_constraint_free(mq_constraint *constraint);
/* For mq_sampler_draw: a bit a token, valid until the next call; NULL: every token is allowed. At least one bit is set. */
MQ_API const uint32_t *mq_constraint_mask(mq_constraint *constraint);
/* Takes a token that the mask allowed. */
MQ_API mq_status mq_constraint_accept(mq_constraint *constraint, int32_t token, mq_error *error);

/* ---------------------------------------------------------------- scheduler */

/* Runs requests on one engine in a thread of its own, which alone uses the engine meanwhile: decode rows of all running answers
 * in one pass, prefill rows of waiting prompts between them, prompts that begin like an earlier one from the prefix cache. */
typedef struct mq_scheduler mq_scheduler;

typedef struct mq_scheduler_options {
    mq_engine *engine; /* borrowed, and not used by others until mq_scheduler_stop returns */
    const mq_text *text;
    uint32_t streams;      /* answers that run at once; 0: 64 */
    uint32_t queue;        /* requests that wait at most, of one owner as many as places are left; 0: 256 */
    double gap;            /* longest pause of answers while a prompt is read, in decode steps, 1.1 or more; 0: 2 */
    uint64_t cache_bytes;  /* prefix cache: KV that no request holds; 0: all that the engine's pool has left */
    const char *cache_dir; /* NULL, or where it is kept on disk: it outlives the process */
    uint64_t disk_bytes;   /* bound of that folder; 0: 16 GiB */
    mq_draft draft;        /* who proposes tokens of answers: the same tokens, sooner (mixquant_draft.h) */
    bool finish_abandoned; /* go on reading a prompt whose client left: its retry finds it */
    const struct mq_kv_source
        *source; /* NULL, or who may prefill prompts in place of the engine (mixquant_handoff.h); borrowed */
    void (*log)(void *context, const char *line);
    void *log_context;
} mq_scheduler_options;

MQ_API mq_status mq_scheduler_start(const mq_scheduler_options *options, mq_scheduler **scheduler, mq_error *error);
/* No new requests from now on; returns when none runs any more, or after `seconds`, while the rest goes on: call it again, or stop. */
MQ_API void mq_scheduler_drain(mq_scheduler *scheduler, double seconds);
MQ_API void mq_scheduler_stop(mq_scheduler *scheduler); /* cancels what still runs, frees */

typedef enum mq_event_kind {
    MQ_EVENT_PROGRESS, /* the prompt is being read: report->cached, ->prompt_done; also once when it is admitted */
    MQ_EVENT_TOKEN,    /* one token, and the text that became certain with it */
    MQ_EVENT_END       /* the last one: report is complete */
} mq_event_kind;

/* Where a prompt was prefilled, but for its last token, which is always decoded here. */
typedef enum mq_prefilled {
    MQ_PREFILLED_NONE,
    MQ_PREFILLED_LOCAL,
    MQ_PREFILLED_REMOTE
} mq_prefilled; /* NONE: all was cached */

typedef struct mq_report {
    uint32_t prompt, cached, prompt_done; /* tokens: of the prompt; found in the cache; cached or computed so far */
    uint32_t generated;
    mq_status status; /* MQ_OK, or why there is no answer: error has the text */
    mq_error error;   /* with MQ_OK: none, or why the prompt was not prefilled where it should have been */
    mq_finish finish;
    uint32_t stop;                                /* of MQ_FINISH_STOP: which of options.stops it was */
    bool drafts;                                  /* tokens of the answer may be proposed (not MQ_DRAFT_OFF) */
    uint32_t drafted, drafted_right;              /* tokens of the answer that were proposed, and that were right */
    double queued_s, prefill_s, last_s, decode_s; /* waiting; reading the prompt; its last token; decode steps */
    /* Why not more of the prompt was cached: the cache's best candidate differs from the prompt at miss_at, where it has
     * miss_token. miss_at = cached and miss_token = -1: nothing longer is there. */
    uint32_t miss_at;
    int32_t miss_token;
    const char *plan_prefill, *plan_decode; /* names of formats */
    mq_prefilled prefilled;                 /* LOCAL as soon as one token was */
    bool arriving;                          /* it is being prefilled elsewhere */
    uint32_t arrived;                       /* tokens of the prompt that came from elsewhere */
    uint32_t transfer_failures;             /* how often their transfer failed */
} mq_report;

typedef struct mq_event {
    mq_event_kind kind;
    const char *bytes; /* TOKEN: may be none; END: the last text */
    size_t count;
    int32_t token;
    float logprob; /* NaN unless asked for */
    const mq_token_logprob *top;
    size_t top_count;
    const mq_report *report; /* always there */
} mq_event;

typedef struct mq_request {
    const int32_t *tokens; /* [count] the prompt; copied */
    uint32_t count;
    mq_generate_options options; /* copied; its callbacks are not used */
    mq_constraint *constraint;   /* NULL, or taken (also when the call fails) */
    const mq_plan *plan;         /* NULL: the engine's */
    uint64_t owner;              /* cached prefixes are shared by requests of one owner only */
    bool background;             /* others come first, and what it caches goes first */
    /* Hand-off (mixquant_handoff.h); peer and lease are copied. */
    const char *prefill_peer, *prefill_lease; /* NULL, or who has or shall prefill the prompt, and its name for it */
    const struct mq_kv_sink *sink;            /* NULL, or where the prompt's KV goes; borrowed until mq_job_free */
    bool prefill_only;                        /* it ends when all tokens but the last are read */
    bool hold; /* its KV stays after its end, until mq_job_free: running requests wait for its blocks */
    /* Called on the scheduler's thread, one at a time: it must return quickly, and must not call mq_job_free. */
    void (*event)(void *context, const mq_event *event);
    void *context;
} mq_request;

/* A request that was submitted, until its client frees it. */
typedef struct mq_job mq_job;
/* Any thread. MQ_LIMIT: the queue is full (for this owner), the prompt is empty, or it and one token exceed the context (error says
 * which). MQ_CANCELLED: draining. MQ_USAGE: a token is not in the vocabulary. */
MQ_API mq_status mq_scheduler_submit(mq_scheduler *scheduler, const mq_request *request, mq_job **job, mq_error *error);
/* Ends it where it runs (its prompt is read on with finish_abandoned). No event comes after the return. Any other thread. */
MQ_API void mq_job_free(mq_job *job);

/* Counters since the start, and gauges. Any thread; does not wait for the engine. */
typedef struct mq_scheduler_stats {
    uint64_t prompt_tokens, cached_tokens, generated_tokens, steps; /* prompt_tokens: computed ones */
    uint64_t step_answers;                                          /* in all decode steps together */
    uint64_t drafted_tokens, drafted_right_tokens;
    double prompt_s, generated_s;
    uint64_t requests, cancelled, failed, preempted;
    uint64_t hit_tokens, miss_tokens, evicted_tokens; /* of the prefix cache, in tokens */
    uint64_t disk_read_tokens, disk_written_tokens;
    uint64_t arrived_tokens, transfers_failed; /* of prompts that were prefilled elsewhere */
    uint64_t unread_tokens;                    /* of prompts that wait to be computed here; a gauge */
    uint32_t running, waiting, arriving, held; /* arriving: of those that run; held: ended, and their KV stays */
    uint32_t kv_blocks, kv_blocks_free, kv_blocks_cached; /* of 64 tokens; cached: held by the prefix cache alone */
    uint32_t kv_windows, kv_windows_free; /* window parts of blocks; free: no running request needs them */
    uint32_t largest;                     /* tokens of the longest sequence so far */
} mq_scheduler_stats;

MQ_API void mq_scheduler_describe(mq_scheduler *scheduler, mq_scheduler_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
