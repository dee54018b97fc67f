/* What the subcommands share: options, error reports, opening an engine. */
#ifndef MQ_CLI_H
#define MQ_CLI_H

#include "mixquant_draft.h"
#include "mixquant_tools.h"

#include <stdio.h>

enum { CLI_DONE = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_REFUSED = 3 };

typedef struct cli_command {
    const char *name, *arguments, *summary;
    int (*run)(int argc, char **argv); /* argv[0] is the command's name; returns an exit code */
} cli_command;

extern const cli_command cli_agent, cli_bench, cli_chat, cli_cpu, cli_detokenize, cli_eval, cli_inspect, cli_logits,
    cli_quantize, cli_render, cli_run, cli_serve, cli_synth, cli_tokenize;

/* ---- options */

/* An empty CLI_TEXT or CLI_TEXTS is refused: it is mostly a variable that is not set. */
typedef enum cli_kind {
    CLI_FLAG,
    CLI_TEXT,
    CLI_TEXT_OR_EMPTY,
    CLI_NUMBER,
    CLI_UNSIGNED,
    CLI_FLOAT,
    CLI_TEXTS
} cli_kind;

#define CLI_TEXTS_MAX 64

typedef struct cli_texts {
    const char *item[CLI_TEXTS_MAX];
    size_t count;
} cli_texts;

/* value points to bool (FLAG), const char * (TEXT, TEXT_OR_EMPTY), int (NUMBER), uint64_t (UNSIGNED), float (FLOAT), cli_texts (TEXTS). */
typedef struct cli_option {
    const char *name; /* "--name"; a single letter gives "-n" */
    cli_kind kind;
    void *value;
    double low, high; /* of numbers */
    const char *help; /* NULL: not in the help */
} cli_option;

typedef struct cli_options {
    const cli_option *item;
    size_t count;
} cli_options;

#define CLI_OPTIONS(array) ((cli_options){(array), sizeof(array) / sizeof((array)[0])})
#define CLI_GO_ON          (-1)

/* Parses argv against tables of options. Positional arguments are collected in `rest` (at most rest_max, else usage
 * error). Returns CLI_GO_ON, or an exit code after -h or a wrong argument. */
int cli_parse(const cli_command *command, const cli_options *tables, size_t table_count, int argc, char **argv,
              cli_texts *rest, size_t rest_max);

/* Takes the first positional argument, if any, as the value of `option` ("-m"). CLI_GO_ON, or a usage error when the
 * option was given as well. */
int cli_positional(const cli_command *command, const cli_texts *rest, const char *option, const char **value);

/* ---- the options of an engine and of sampling */

typedef struct cli_engine {
    const char *model, *prefill, *decode, *attention, *head, *plan, *prefill_model, *scales, *cache_dir, *numa;
    int threads, context, chunk, last;
    uint32_t sequences;   /* not an option: how many the command holds at once; 0: 1 */
    uint64_t state_bytes; /* nor this: of snapshots of recurrent state */
    uint64_t kv_bytes;    /* not an option either: of KV in all; 0: as `sequences` says */
    bool no_cache;
    bool worker; /* not an option: it exchanges KV with others, which must have its plan */
} cli_engine;

/* NAN and -1 where the user gave nothing. */
typedef struct cli_sampling {
    float temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
    int top_k;
    uint64_t seed;
    cli_texts stops;
} cli_sampling;

#define CLI_ENGINE_OPTION_COUNT   15
#define CLI_SAMPLING_OPTION_COUNT 9

/* Sets defaults as well. without: names, with spaces between, that are not in the help: the command refuses them, or has its own. */
void cli_engine_options(cli_engine *engine, cli_option options[CLI_ENGINE_OPTION_COUNT], const char *without);
void cli_sampling_options(cli_sampling *sampling, cli_option options[CLI_SAMPLING_OPTION_COUNT]);
/* What the user gave; the rest as `suggested`. */
mq_sampling cli_sampling_of(const cli_sampling *given, const mq_sampling *suggested);
/* The same with what the engine's model suggests (generation_config.json); logs what was taken from there. */
mq_sampling cli_sampling_choose(const cli_sampling *given, const mq_engine *engine);

/* The model directory: -m, or the bundled model. */
const char *cli_model(const char *model);

/* Opens the engine (and the texts, unless text is NULL) that the options describe; on failure reports and returns an exit
 * code, CLI_DONE otherwise. */
int cli_open(const cli_engine *options, mq_engine **engine, mq_text **text);

#define CLI_DRAFT_HELP                                                                                                 \
    "who proposes tokens that are verified together: lookup, nvfp4, auto, off; the answer stays the same"

/* What --draft names; *drafter stays NULL for off and for NULL. CLI_DONE, or reports and returns an exit code. */
int cli_drafter(const char *name, mq_engine *engine, mq_drafter **drafter);

/* ---- reports */

/* Prints "mixquant: <error>" and returns the exit code of its status. */
int cli_report(const mq_error *error);
int cli_usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
int cli_exit_code(mq_status status);

/* Reads a file, or stdin when path is NULL or "-"; at most 64 MiB. *data is owned: free(). Reports on failure. */
int cli_read(const char *path, char **data, size_t *bytes);

/* "1,2,3" -> numbers in [low, high]; at most max. Returns the count, 0 on a wrong list. */
size_t cli_number_list(const char *text, long low, long high, long *numbers, size_t max);

/* A progress line on stderr, only when that is a terminal. */
bool cli_progress(void *context, uint32_t done, uint32_t total);

/* Flushes stdout; CLI_FAILED with a report when what was printed could not be written. A reader that left (`| head`) has
 * what it wanted: no report, CLI_DONE. */
int cli_finish(int code);

#endif
