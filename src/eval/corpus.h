/* Token sequences for ppl, kld and attention: windows of a text file, or the agent's episodes with the right calls, their
 * real results and the right answers. */
#ifndef MQ_EVAL_CORPUS_H
#define MQ_EVAL_CORPUS_H

#include "eval/eval.h"

typedef struct mq_eval_sequence {
    char id[64];
    int32_t *tokens; /* [count] */
    uint32_t count;
} mq_eval_sequence;

typedef struct mq_eval_corpus {
    mq_eval_sequence *item;
    size_t count;
    char *path;    /* owned; what was read */
    char hash[32]; /* of the file */
} mq_eval_corpus;

typedef struct mq_eval_corpus_options {
    uint32_t length;   /* of a window of text; episodes that are longer are left out */
    uint32_t shortest; /* shorter ones are left out */
    size_t most;       /* items */
    bool prompts;      /* episodes up to the first tool result, ready to be answered; otherwise whole */
} mq_eval_corpus_options;

mq_status mq__eval_corpus_open(const mq_eval_context *context, const mq_eval_corpus_options *options,
                               mq_eval_corpus *corpus, mq_error *error);
void mq__eval_corpus_close(mq_eval_corpus *corpus);

#endif
