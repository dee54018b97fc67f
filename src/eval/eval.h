/* Evaluation: tasks run under a list of phase plans on the same prompts and seeds; a record of every prediction, statistics
 * over them, a report. Sees mixquant.h only; prints nothing.
 *
 * A task is one of two kinds. A *dialogue* task hands out prompts and gets answers (src/eval runs up to 8 of its items at
 * once and decodes them in lockstep). A *measure* task is given the engine and looks at logits itself. Either makes one
 * record for each item and plan: a JSON object of metrics, which is all that the statistics see. */
#ifndef MQ_EVAL_EVAL_H
#define MQ_EVAL_EVAL_H

#include "mixquant.h"
#include "mixquant_tools.h"

#include <jansson.h>

#define MQ_EVAL_PLANS_MAX   16
#define MQ_EVAL_METRICS_MAX 8
#define MQ_EVAL_CONTROL     "bf16+int8-attention" /* of which no task may see a difference from bf16 */
#define MQ_EVAL_BATCH       8                     /* items of a dialogue task at once */

typedef struct mq_eval_plan {
    char name[64]; /* "mix", or "nvfp4/bf16" as it was given */
    mq_plan_options options;
    uint32_t precise; /* tokens at each prompt's end in the decode plan; 0: the last one */
    bool
        reprefill; /* answers run in the prefill plan once more when the next prompt holds them, as where another machine reads
                         prompts; otherwise their KV is kept from decoding */
} mq_eval_plan;

/* "bf16", "mix", ..., "PREFILL/DECODE", each also with "+int8-attention", "+lastN" (N tokens at a prompt's end in the decode plan)
 * and "+reprefill"; or the path of a plan file (contains ".json"; borrowed as long as the plan is used). */
mq_status mq__eval_plan_parse(const char *name, mq_eval_plan *plan, mq_error *error);

/* What tasks may ask for. Texts are borrowed and may be NULL. */
typedef struct mq_eval_options {
    const char *model_dir;
    const char *data;    /* file or folder of the task's data; NULL: the task's own default */
    const char *text;    /* ppl, kld, attention: a text file; NULL: the model's episodes.jsonl. ruler: the noise */
    const char *wording; /* ruler: "ruler" or "bundled"; NULL: by the model */
    const char *kinds;   /* a task's own subsets, separated by commas; NULL: all (bfcl: categories, ruler: families) */
    const uint32_t *lengths;             /* context lengths in tokens; ruler, attention */
    size_t length_count;                 /* 0: the task's default */
    uint32_t limit;                      /* items of a task at most; 0: all, or the task's default */
    uint32_t max_tokens;                 /* of one answer; 0: the task's default */
    uint64_t seed;                       /* of prompts and sampling */
    bool quick;                          /* a smaller default size */
    const mq_sampling *sampling;         /* NULL: the task's default */
    const char *scales;                  /* rule of NVFP4 scales and */
    const char *judge_url, *judge_model; /* who judges free answers: an OpenAI-style endpoint and its model's name */
    const char *prefill_model; /* prefill checkpoint of the engine: recorded, compared on resume; NULL: the default */
} mq_eval_options;

/* What a task is opened with; everything outlives it. */
typedef struct mq_eval_context {
    const mq_eval_options *options;
    const mq_text *text;
    mq_engine *engine;
    mq_engine_info info;
} mq_eval_context;

/* One generation. A dialogue task fills it; the framework frees request and prompt. */
typedef struct mq_eval_prompt {
    json_t *request; /* owned: {"messages": [...], "tools": [...]} as mq_render takes it; or NULL and */
    char *prompt;    /* owned (mq__alloc): the exact prompt, special tokens parsed. Both NULL: the item is over */
    uint32_t max_tokens;
    mq_sampling sampling;     /* its seed is set by the framework from the run's seed, the item's id and the turn */
    const char *const *stops; /* borrowed until the answer */
    size_t stop_count;
    uint32_t max_prompt; /* 0, or: cut the middle of a longer prompt out, so that so many tokens remain (LongBench) */
} mq_eval_prompt;

typedef struct mq_eval_answer {
    const char *text; /* UTF-8 without NUL, special tokens left out; valid during the call */
    size_t bytes;
    uint32_t prompt_tokens, output_tokens;
    mq_finish finish; /* MQ_FINISH_LENGTH also when the prompt did not fit the context: then text is empty */
} mq_eval_answer;

typedef struct mq_eval_task {
    const char *name, *summary;
    /* Keys of numbers in a record, the first being the headline; NULL-terminated. A metric may be missing in single
     * records (it is then not counted) and may be null. */
    const char *metrics[MQ_EVAL_METRICS_MAX + 1];
    unsigned binary; /* bit m: metrics[m] is 0 or 1: McNemar's test, Wilson's interval */
    /* A key of the records: means over items count each item so often (the tokens of a text). NULL: once. */
    const char *weight;
    unsigned
        exponential; /* bit m: metrics[m] of an item is exp of a mean (perplexity): over items exp of the mean of logs */
    bool smaller_is_better;
    bool own_limit; /* open applies options->limit in its own way */

    /* Reads or makes the items; *items is their number (the framework applies options->limit as well). */
    mq_status (*open)(const mq_eval_context *context, void **task, size_t *items, mq_error *error);
    void (*close)(void *task); /* takes what open made; NULL is fine */
    /* A name that is unique in the task and does not depend on the limit; valid while the task is open. */
    const char *(*id)(void *task, size_t item);
    /* Borrowed settings that change what an item or its score is (compared on resume); NULL: none. Returns owned. */
    json_t *(*settings)(void *task);

    /* ---- dialogue: all three set. Several items are in progress at once; a task's shared state is constant. */
    mq_status (*begin)(void *task, size_t item, void **episode, mq_error *error);
    /* answer is NULL the first time. Fills *prompt (zeroed before), or leaves it empty when the item is over. What an
     * answer contains is never an error. */
    mq_status (*next)(void *episode, const mq_eval_answer *answer, mq_eval_prompt *prompt, mq_error *error);
    /* The record: metrics, an optional "group" (text: a row of its own in the report), and details, among which should be
     * the answers themselves. Frees the episode. Returns owned; NULL: out of memory. want_record is false on errors:
     * only frees. The framework adds task, plan, id, input_tokens and output_tokens. */
    json_t *(*end)(void *episode, bool want_record);

    /* ---- or measure: one record for each plan, records[plan_count] owned by the caller. plans[0] is BF16 when the task
     * has compares_with_bf16 (the framework puts it there). The plan in force afterwards does not matter. */
    bool compares_with_bf16;
    mq_status (*measure)(void *task, size_t item, const mq_eval_plan *plans, size_t plan_count, json_t **records,
                         mq_error *error);
} mq_eval_task;

/* The tasks by name; NULL past the last. */
const mq_eval_task *mq__eval_task(size_t i);
const mq_eval_task *mq__eval_task_named(const char *name, size_t length);

/* ---- helpers for tasks */

/* A seeded stream of numbers: splitmix64 over a hash of seed and text, so that each item has its own. */
typedef struct mq_eval_random {
    uint64_t state;
} mq_eval_random;

mq_eval_random mq__eval_random(uint64_t seed, const char *text);
uint64_t mq__eval_random_u64(mq_eval_random *random);
uint32_t mq__eval_random_below(mq_eval_random *random, uint32_t bound); /* bound > 0 */

/* FNV-1a of bytes, continued from `hash` (0 begins): tells on resume that data or model are not those of the records. */
uint64_t mq__eval_hash(uint64_t hash, const void *bytes, size_t count);

/* Reads a file of JSON values, one a line (empty lines are skipped), into an array. Returns owned. A line that is no JSON
 * is an error that names its number; with drop_cut, a last line without newline is dropped instead. */
mq_status mq__eval_read_lines(const char *path, bool drop_cut, json_t **lines, mq_error *error);

/* Makes UTF-8 without NUL of any bytes, in place: what is none becomes '?'. */
void mq__eval_make_text(char *bytes, size_t count);

/* A file of JSON values, one after the other in any layout, or of one array: the values as an array, owned. */
mq_status mq__eval_read_values(const char *path, json_t **values, mq_error *error);

/* An array of arrays of messages, each with a role and a content that are texts. */
bool mq__eval_are_dialogues(const json_t *dialogues);

/* What follows the model's thoughts: the text behind the last </think>. A thought that does not end (the answer was cut in it)
 * leaves "". opened: the prompt itself ends with <think>. */
const char *mq__eval_after_thought(const char *answer, bool opened);

/* Whether the answer ends inside a thought: then there is none, which is not the same as one that says nothing. */
bool mq__eval_is_cut_thought(const char *answer, bool opened);

/* Whether the chat template opens a thought at the end of a prompt. text may be NULL. */
bool mq__eval_opens_thought(const mq_text *text);

/* Whether the model has a chat template: else prompts are bare texts. text may be NULL. */
bool mq__eval_has_template(const mq_text *text);

#endif
