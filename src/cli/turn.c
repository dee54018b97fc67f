#include "cli/turn.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

double cli_rate(uint32_t tokens, double seconds)
{
    return tokens && seconds > 0 ? tokens / seconds : 0;
}

uint32_t cli_decoded(const mq_generate_result *generated)
{
    return generated->steps + generated->drafted_right;
}

const char *cli_finish_name(mq_finish finish)
{
    static const char *const names[] = {"none", "eos", "stop", "length", "cancelled"};
    return names[finish];
}

static bool take_text_turn(void *context, const char *bytes, size_t count)
{
    cli_turn *turn = context;
    char *larger = realloc(turn->answer, turn->answer_bytes + count + 1);
    if (!larger) return false;
    turn->answer = larger;
    memcpy(turn->answer + turn->answer_bytes, bytes, count);
    turn->answer_bytes += count;
    turn->answer[turn->answer_bytes] = '\0';
    if (turn->echo && (fwrite(bytes, 1, count, turn->echo) != count || fflush(turn->echo) != 0)) return false;
    return !(turn->stopped && turn->stopped());
}

void cli_turn_clear(cli_turn *turn)
{
    free(turn->answer);
    turn->answer = NULL;
    turn->answer_bytes = 0;
}

static bool show_progress_turn(void *context, uint32_t done, uint32_t total)
{
    const cli_turn *turn = context;
    return cli_progress(NULL, done, total) && !(turn->stopped && turn->stopped());
}

/* The sequence holds the prompt afterwards, with logits. */
static mq_status take_prompt(cli_turn *turn, const char *prompt, size_t bytes, unsigned flags, mq_error *error)
{
    int32_t *tokens = NULL;
    size_t count = 0;
    mq_status status = mq_tokenize(turn->text, prompt, bytes, flags, &tokens, &count, error);
    if (status == MQ_OK && count == 0) {
        status = mq__fail(error, MQ_USAGE, "prompt: expected at least one token, got none");
    }
    turn->prompt_tokens = (uint32_t)count;
    const mq_sync_options sync = {.progress = show_progress_turn, .context = turn};
    if (status == MQ_OK) {
        status = mq_sequence_sync(turn->sequence, tokens, (uint32_t)count, &sync, &turn->sync, error);
    }
    mq_free(tokens);
    return status;
}

mq_status cli_turn_try(cli_turn *turn, const char *prompt, size_t bytes, unsigned flags, mq_error *error)
{
    cli_turn_clear(turn);
    turn->answer = calloc(1, 1);
    if (!turn->answer) return mq__fail(error, MQ_NO_MEMORY, "answer: expected memory, got none");
    const mq_status status = take_prompt(turn, prompt, bytes, flags, error);
    const mq_generate_options options = {
        .sampling = turn->sampling,
        .max_tokens = turn->max_tokens,
        .stops = turn->stops.item,
        .stop_count = turn->stops.count,
        .ignore_eos = turn->ignore_eos,
        .keep_special = turn->keep_special,
        .text = take_text_turn,
        .context = turn,
        .drafter = turn->drafter,
    };
    return status == MQ_OK ? mq_generate(turn->sequence, turn->text, &options, &turn->generated, error) : status;
}

int cli_turn_run(cli_turn *turn, const char *prompt, size_t bytes, unsigned flags)
{
    mq_error error = {0};
    return cli_turn_try(turn, prompt, bytes, flags, &error) == MQ_OK ? CLI_DONE : cli_report(&error);
}
