/* The list of tasks. A task is one constant in its own file, src/eval/task_NAME.c. */
#include "eval/eval.h"

#include <string.h>

extern const mq_eval_task mq__eval_agent, mq__eval_ruler, mq__eval_ppl, mq__eval_kld, mq__eval_attention, mq__eval_bfcl,
    mq__eval_gsm8k, mq__eval_longbench, mq__eval_longmemeval, mq__eval_ledger, mq__eval_math500, mq__eval_aime,
    mq__eval_aa_lcr;

static const mq_eval_task *const tasks[] = {
    &mq__eval_agent,     &mq__eval_ledger,  &mq__eval_ruler, &mq__eval_ppl,       &mq__eval_kld,
    &mq__eval_attention, &mq__eval_bfcl,    &mq__eval_gsm8k, &mq__eval_longbench, &mq__eval_longmemeval,
    &mq__eval_aa_lcr,    &mq__eval_math500, &mq__eval_aime};

const mq_eval_task *mq__eval_task(size_t i)
{
    return i < sizeof tasks / sizeof tasks[0] ? tasks[i] : NULL;
}

const mq_eval_task *mq__eval_task_named(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof tasks / sizeof tasks[0]; i++) {
        if (strlen(tasks[i]->name) == length && strncmp(tasks[i]->name, name, length) == 0) return tasks[i];
    }
    return NULL;
}
