/* A model that judges: any endpoint with OpenAI's chat completions, mixquant's own server as well. */
#ifndef MQ_EVAL_JUDGE_H
#define MQ_EVAL_JUDGE_H

#include "eval/eval.h"

typedef enum mq_verdict { MQ_VERDICT_NONE, MQ_VERDICT_NO, MQ_VERDICT_YES } mq_verdict;

/* What a judge's reply says: the yes or no that its last line begins with, or its first; neither: MQ_VERDICT_NONE. */
mq_verdict mq__judge_verdict(const char *reply);

/* Asks options->judge_url (".../v1") a question that is answered with yes or no, greedily. The environment's MQ_JUDGE_KEY, if set, is
 * sent as the key. An endpoint that cannot be reached or refuses is asked three times, then an error. */
mq_status mq__judge_ask(const mq_eval_options *options, const char *question, mq_verdict *verdict, mq_error *error);

#endif
