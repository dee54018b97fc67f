/* One prompt and its answer, as run, chat and agent share it. */
#ifndef MQ_CLI_TURN_H
#define MQ_CLI_TURN_H

#include "cli/cli.h"

typedef struct cli_turn {
    mq_sequence *sequence;
    const mq_text *text;
    mq_drafter *drafter; /* NULL: nothing is drafted */
    mq_sampling sampling;
    cli_texts stops;
    uint32_t max_tokens;
    bool ignore_eos, keep_special;
    FILE *echo;            /* where the answer is streamed; NULL: nowhere */
    bool (*stopped)(void); /* asked after each chunk and each token: true ends the turn. NULL: never */

    /* Filled by cli_turn_run: */
    char *answer; /* owned: cli_turn_clear */
    size_t answer_bytes;
    uint32_t prompt_tokens;
    mq_sync_stats sync;
    mq_generate_result generated;
} cli_turn;

/* Tokenises the prompt (flags as mq_tokenize), syncs the sequence, generates. MQ_CANCELLED: stopped before the answer. */
mq_status cli_turn_try(cli_turn *turn, const char *prompt, size_t bytes, unsigned flags, mq_error *error);
/* The same; reports a failure and returns its code. */
int cli_turn_run(cli_turn *turn, const char *prompt, size_t bytes, unsigned flags);
void cli_turn_clear(cli_turn *turn);

/* Tokens that decode steps brought. */
uint32_t cli_decoded(const mq_generate_result *generated);
double cli_rate(uint32_t tokens, double seconds); /* tokens per second; 0 when nothing was timed */
const char *cli_finish_name(mq_finish finish);

#endif
