#include "cli/calibration.h"

#include "cli/cli.h"

#include <stdlib.h>

#define WINDOW   1024 /* tokens of a text file's pieces */
#define SHORTEST 16

/* The last `tokens` tokens, in whole texts but for the first one taken. */
static mq_status take_last(cli_calibration *c, uint32_t tokens)
{
    uint32_t left = tokens;
    c->texts = calloc(c->corpus.count, sizeof *c->texts);
    if (!c->texts) return MQ_NO_MEMORY;
    for (size_t i = c->corpus.count; i-- > 0 && left > 0;) {
        const mq_eval_sequence *s = &c->corpus.item[i];
        const uint32_t some = s->count < left ? s->count : left;
        c->texts[c->count++] = (mq_token_span){s->tokens, some};
        left -= some;
    }
    return MQ_OK;
}

int cli_calibration_open(const char *model_dir, const char *file, uint32_t tokens, cli_calibration *c)
{
    mq_error error = {0};
    mq_text *text = NULL;
    const mq_engine_options engine_options = {.model_dir = model_dir, .threads = 1, .context = 1, .no_cache = true};
    const mq_eval_options options = {.model_dir = model_dir, .text = file};
    mq_eval_context context = {.options = &options};
    *c = (cli_calibration){0};
    mq_status status = mq_text_open(model_dir, NULL, &text, &error);
    if (status == MQ_OK) status = mq_engine_open(&engine_options, &context.engine, &error);
    if (status == MQ_OK) {
        mq_engine_describe(context.engine, &context.info);
        const uint32_t longest = context.info.max_positions;
        const mq_eval_corpus_options how = {.length = file && longest > WINDOW ? WINDOW : longest,
                                            .shortest = SHORTEST < longest ? SHORTEST : longest,
                                            .most = SIZE_MAX};
        context.text = text;
        status = mq__eval_corpus_open(&context, &how, &c->corpus, &error);
    }
    if (status == MQ_OK && take_last(c, tokens) != MQ_OK) {
        error = (mq_error){MQ_NO_MEMORY, "calibrate: texts: expected memory, got none"};
        status = MQ_NO_MEMORY;
    }
    mq_engine_close(context.engine);
    mq_text_close(text);
    if (status == MQ_OK) return CLI_DONE;
    cli_calibration_close(c);
    return cli_report(&error);
}

void cli_calibration_close(cli_calibration *c)
{
    free(c->texts);
    mq__eval_corpus_close(&c->corpus);
    *c = (cli_calibration){0};
}
