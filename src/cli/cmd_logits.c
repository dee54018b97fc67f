#include "base/json_read.h"
#include "cli/cli.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TOKENS_MAX ((size_t)1 << 22)

typedef struct sink {
    FILE *file;
    size_t vocab;
    bool only_last, failed;
} sink;

static void take_logits(void *context, uint32_t first, uint32_t rows, const float *logits)
{
    (void)first;
    sink *s = context;
    if (!s->only_last && fwrite(logits, sizeof(float), rows * s->vocab, s->file) != rows * s->vocab) s->failed = true;
}

/* Ids from "1,2,3" or from a file with a JSON array; owned, NULL after a report, with its exit code. */
static int32_t *read_tokens_logits(const char *list, const char *file, uint32_t *count, int *code)
{
    char *data = NULL, *wrapped = NULL;
    size_t bytes = 0;
    json_t *array = NULL;
    if (file) {
        *code = cli_read(file, &data, &bytes);
        if (*code != CLI_DONE) return NULL;
        (void)mq__json_read(data, bytes, 0, MQ_JSON_ROUND_NUMBERS, "tokens", &array, NULL);
        free(data);
    } else if (asprintf(&wrapped, "[%s]", list) > 0) {
        (void)mq__json_read(wrapped, strlen(wrapped), 0, MQ_JSON_ROUND_NUMBERS, "tokens", &array, NULL);
        free(wrapped);
    }
    const size_t n = json_array_size(array);
    int32_t *tokens = n > 0 && n <= TOKENS_MAX ? malloc(n * sizeof *tokens) : NULL;
    for (size_t i = 0; tokens && i < n; i++) {
        const json_t *item = json_array_get(array, i);
        const json_int_t value = json_integer_value(item);
        if (!json_is_integer(item) || value < 0 || value > INT32_MAX) {
            free(tokens);
            tokens = NULL;
            break;
        }
        tokens[i] = (int32_t)value;
    }
    json_decref(array);
    *count = (uint32_t)n;
    *code = CLI_DONE;
    if (!tokens) {
        *code =
            cli_usage_error("logits: %s: expected a list of ids >= 0, got something else", file ? file : "--tokens");
        if (file) *code = CLI_REFUSED;
    }
    return tokens;
}

static int compute(mq_engine *engine, const int32_t *tokens, uint32_t count, sink *s)
{
    mq_error error = {0};
    mq_sequence *sequence;
    if (mq_sequence_new(engine, &sequence, &error) != MQ_OK) return cli_report(&error);
    const mq_sync_options sync = {.logits = s->only_last ? NULL : take_logits, .context = s};
    int code = CLI_DONE;
    if (mq_sequence_sync(sequence, tokens, count, &sync, NULL, &error) != MQ_OK) {
        code = cli_report(&error);
    } else if (s->only_last) {
        s->failed = fwrite(mq_sequence_logits(sequence), sizeof(float), s->vocab, s->file) != s->vocab;
    }
    mq_sequence_free(sequence);
    return code;
}

/* A device or a pipe is not ours to remove. */
static void remove_half_written(const char *path)
{
    struct stat info;
    if (lstat(path, &info) == 0 && S_ISREG(info.st_mode)) (void)unlink(path);
}

static int run_logits(int argc, char **argv)
{
    cli_engine options;
    const char *list = NULL, *tokens_file = NULL, *output = NULL;
    sink s = {0};
    cli_option engine_options[CLI_ENGINE_OPTION_COUNT];
    cli_engine_options(&options, engine_options, "last"); /* it has its own */
    const cli_option own[] = {
        {"tokens", CLI_TEXT, &list, 0, 0, "token ids: 1,2,3"},
        {"tokens-file", CLI_TEXT, &tokens_file, 0, 0, "file with a JSON array of token ids"},
        {"o", CLI_TEXT, &output, 0, 0, "file to write: float32 little-endian [T, V]"},
        {"last", CLI_FLAG, &s.only_last, 0, 0, "of the last position only: [1, V]"},
    };
    const cli_options tables[] = {CLI_OPTIONS(own), CLI_OPTIONS(engine_options)};
    cli_texts rest = {.count = 0};
    int code = cli_parse(&cli_logits, tables, 2, argc, argv, &rest, 0);
    if (code != CLI_GO_ON) return code;
    if (!output || !list == !tokens_file) {
        return cli_usage_error("logits: expected -o FILE and one of --tokens and --tokens-file, got other options");
    }
    uint32_t count;
    int32_t *tokens = read_tokens_logits(list, tokens_file, &count, &code);
    if (!tokens) return code;
    mq_engine *engine = NULL;
    code = cli_open(&options, &engine, NULL);
    if (code == CLI_DONE) {
        mq_engine_info info;
        mq_engine_describe(engine, &info);
        s.vocab = info.vocab;
        s.file = fopen(output, "wbe");
        if (!s.file) {
            fprintf(stderr, "mixquant: logits: %s: expected to create it, got %s\n", output, strerror(errno));
            code = CLI_FAILED;
        }
    }
    if (code == CLI_DONE) {
        code = compute(engine, tokens, count, &s);
        if (fclose(s.file) != 0) s.failed = true;
        if (code == CLI_DONE && s.failed) {
            fprintf(stderr, "mixquant: logits: %s: expected to write it, got %s\n", output, strerror(errno));
            code = CLI_FAILED;
        }
        if (code != CLI_DONE) remove_half_written(output);
    }
    mq_engine_close(engine);
    free(tokens);
    return code;
}

const cli_command cli_logits = {"logits", "-m DIR --tokens 1,2,3 -o FILE", "float32 logits of every position",
                                run_logits};
