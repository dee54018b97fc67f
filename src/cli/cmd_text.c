/* tokenize, detokenize, render: what needs the tokenizer files only. */
#include "base/json_read.h"
#include "cli/cli.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static int open_tokenizer_text(const char *model, const char *template_file, mq_text **text)
{
    mq_error error = {0};
    return mq_text_open(cli_model(model), template_file, text, &error) == MQ_OK ? CLI_DONE : cli_report(&error);
}

static int tokenize(int argc, char **argv)
{
    const char *model = NULL;
    bool no_special = false, add_bos = false, no_parse = false;
    const cli_option own[] = {
        {"m", CLI_TEXT, &model, 0, 0, "checkpoint directory (default: the bundled model)"},
        {"no-special", CLI_FLAG, &no_special, 0, 0, "do not add special tokens (BOS and the like)"},
        {"add-bos", CLI_FLAG, &add_bos, 0, 0, "add what the tokenizer's post-processor adds (the default)"},
        {"no-parse-special", CLI_FLAG, &no_parse, 0, 0, "special tokens in the text are plain text"},
    };
    const cli_options tables[] = {CLI_OPTIONS(own)};
    cli_texts rest = {.count = 0};
    int code = cli_parse(&cli_tokenize, tables, 1, argc, argv, &rest, 0);
    if (code != CLI_GO_ON) return code;
    if (no_special && add_bos) return cli_usage_error("tokenize: expected one of --no-special and --add-bos, got both");
    mq_text *text;
    char *input;
    size_t bytes, count;
    code = open_tokenizer_text(model, NULL, &text);
    if (code != CLI_DONE) return code;
    code = cli_read(NULL, &input, &bytes);
    if (code == CLI_DONE) {
        mq_error error = {0};
        int32_t *tokens;
        const unsigned flags =
            (no_special ? 0u : MQ_TOKENIZE_ADD_SPECIAL) | (no_parse ? 0u : MQ_TOKENIZE_PARSE_SPECIAL);
        if (mq_tokenize(text, input, bytes, flags, &tokens, &count, &error) == MQ_OK) {
            putchar('[');
            for (size_t i = 0; i < count; i++) {
                printf(i ? ", %d" : "%d", tokens[i]);
            }
            puts("]");
            mq_free(tokens);
        } else {
            code = cli_report(&error);
        }
        free(input);
    }
    mq_text_close(text);
    return code;
}

/* A JSON array of ids; NULL and a report when it is none: the input is refused. */
static int32_t *parse_ids(const char *input, size_t bytes, size_t *count)
{
    json_t *array = NULL;
    (void)mq__json_read(input, bytes, 0, MQ_JSON_ROUND_NUMBERS, "ids", &array, NULL);
    *count = json_array_size(array);
    int32_t *ids = json_is_array(array) ? malloc((*count + 1) * sizeof *ids) : NULL;
    for (size_t i = 0; ids && i < *count; i++) {
        const json_t *item = json_array_get(array, i);
        const json_int_t value = json_integer_value(item);
        if (!json_is_integer(item) || value < 0 || value > INT32_MAX) {
            free(ids);
            ids = NULL;
            break;
        }
        ids[i] = (int32_t)value;
    }
    if (!ids) (void)cli_usage_error("tokens: expected a JSON array of ids, got something else");
    json_decref(array);
    return ids;
}

static int detokenize(int argc, char **argv)
{
    const char *model = NULL;
    bool no_special = false;
    const cli_option own[] = {
        {"m", CLI_TEXT, &model, 0, 0, "checkpoint directory (default: the bundled model)"},
        {"no-special", CLI_FLAG, &no_special, 0, 0, "leave special tokens out of the text"},
    };
    const cli_options tables[] = {CLI_OPTIONS(own)};
    cli_texts rest = {.count = 0};
    int code = cli_parse(&cli_detokenize, tables, 1, argc, argv, &rest, 0);
    if (code != CLI_GO_ON) return code;
    mq_text *text;
    char *input, *output;
    size_t bytes, count;
    code = open_tokenizer_text(model, NULL, &text);
    if (code != CLI_DONE) return code;
    code = cli_read(NULL, &input, &bytes);
    if (code == CLI_DONE) {
        mq_error error = {0};
        int32_t *ids = parse_ids(input, bytes, &count);
        if (!ids) {
            code = CLI_REFUSED;
        } else if (mq_detokenize(text, ids, count, no_special, &output, &bytes, &error) == MQ_OK) {
            fwrite(output, 1, bytes, stdout);
            mq_free(output);
        } else {
            code = cli_report(&error);
        }
        free(ids);
        free(input);
    }
    mq_text_close(text);
    return code;
}

static int render(int argc, char **argv)
{
    const char *model = NULL, *template_file = NULL;
    const cli_option own[] = {
        {"m", CLI_TEXT, &model, 0, 0, "checkpoint directory (default: the bundled model)"},
        {"template", CLI_TEXT, &template_file, 0, 0, "use this Jinja file instead of the model's template"},
    };
    const cli_options tables[] = {CLI_OPTIONS(own)};
    cli_texts rest = {.count = 0};
    int code = cli_parse(&cli_render, tables, 1, argc, argv, &rest, 1);
    if (code != CLI_GO_ON) return code;
    mq_text *text;
    char *input, *prompt;
    size_t bytes;
    code = open_tokenizer_text(model, template_file, &text);
    if (code != CLI_DONE) return code;
    code = cli_read(rest.count ? rest.item[0] : NULL, &input, &bytes);
    if (code == CLI_DONE) {
        mq_error error = {0};
        if (mq_render(text, input, bytes, &prompt, &bytes, &error) == MQ_OK) {
            fwrite(prompt, 1, bytes, stdout);
            mq_free(prompt);
        } else {
            code = cli_report(&error);
        }
        free(input);
    }
    mq_text_close(text);
    return code;
}

const cli_command cli_tokenize = {"tokenize", "[-m DIR] < TEXT", "text on stdin to a JSON array of token ids",
                                  tokenize};
const cli_command cli_detokenize = {"detokenize", "[-m DIR] < IDS", "a JSON array of token ids on stdin to text",
                                    detokenize};
const cli_command cli_render = {"render", "[-m DIR] [--template FILE] REQUEST.json",
                                "the exact prompt of an OpenAI-style request", render};
