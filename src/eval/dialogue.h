/* Runs the items of a dialogue task under the engine's present plan: up to 8 at once, decoded in lockstep. A row of a
 * batch does not depend on the others, so the answers are those of one item at a time. */
#ifndef MQ_EVAL_DIALOGUE_H
#define MQ_EVAL_DIALOGUE_H

#include "eval/eval.h"

typedef struct mq_eval_dialogue {
    const mq_eval_context *context;
    const mq_eval_task *task;
    const mq_eval_plan *plan; /* in force in the engine already; here, how prompts are read */
    void *state;              /* of the opened task */
    const size_t *items;      /* [count] which to run, in this order */
    size_t count;
    uint32_t batch; /* 1 to MQ_EVAL_BATCH */
    /* Takes each finished record, with input_tokens and output_tokens; another status than MQ_OK ends the run. */
    mq_status (*take)(void *context, size_t item, json_t *record, mq_error *error);
    void *take_context;
} mq_eval_dialogue;

mq_status mq__eval_dialogue_run(const mq_eval_dialogue *dialogue, mq_error *error);

#endif
