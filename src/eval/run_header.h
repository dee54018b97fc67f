/* What a file of records begins with: all that decides what its records are, so that a run goes on with its own ones only. */
#ifndef MQ_EVAL_RUN_HEADER_H
#define MQ_EVAL_RUN_HEADER_H

#include "eval/eval_run.h"

/* {"task", "isa", "model", "prefill_model", "plans": {name: {"prefill", "decode", "attention", "file": its text}}, "seed", "scales",
 * "sampling", "settings"}. task: what the task's open made. The digests of the checkpoints are left empty when nothing is
 * written. *header is owned by the caller. */
mq_status mq__eval_header_new(const mq_eval_run *run, void *task, json_t **header, mq_error *error);

/* Whether a run with the header `is` may go on with the records at `path`, which begin with `was`. All must agree, and of the
 * plans those that both have. The error names what differs, and how to start anew. */
mq_status mq__eval_header_check(const json_t *was, const json_t *is, const char *path, mq_error *error);

#endif
