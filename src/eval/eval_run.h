/* One task under all plans: what is on disk already is skipped, the rest is run and written. */
#ifndef MQ_EVAL_EVAL_RUN_H
#define MQ_EVAL_EVAL_RUN_H

#include "eval/eval.h"

typedef struct mq_eval_run {
    const mq_eval_context *context;
    const mq_eval_task *task;
    const mq_eval_plan *plans;
    size_t plan_count;   /* 1 to MQ_EVAL_PLANS_MAX */
    const char *out_dir; /* holds <task>.jsonl; NULL: nothing is kept */
    uint32_t batch;      /* items at once; 0: MQ_EVAL_BATCH. Changes no result */
    void (*progress)(void *context, const char *task, const char *plan, size_t done, size_t total);
    void *progress_context;
} mq_eval_run;

/* {"ids": [...], "records": {plan: {id: record}}, "seconds": {plan: s}}: all that was made, by this run or an earlier one.
 * The seconds are those of this run. *result is owned by the caller. */
mq_status mq__eval_run(const mq_eval_run *run, json_t **result, mq_error *error);

#endif
