/* Calibration texts from the command line's options: a text file, or the model's own episodes. */
#ifndef MQ_CLI_CALIBRATION_H
#define MQ_CLI_CALIBRATION_H

#include "eval/corpus.h"

typedef struct cli_calibration {
    mq_eval_corpus corpus;
    mq_token_span *texts; /* [count] into the corpus */
    size_t count;
} cli_calibration;

/* The last texts of the file (NULL: the model's episodes.jsonl) that make up `tokens` tokens: evaluation begins with the
 * first ones. Reports and returns an exit code on failure, CLI_DONE otherwise. */
int cli_calibration_open(const char *model_dir, const char *file, uint32_t tokens, cli_calibration *calibration);
void cli_calibration_close(cli_calibration *calibration);

#endif
