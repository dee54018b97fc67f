/* What the records of a run say: means with intervals, paired comparisons, curves; as JSON and as a table. */
#ifndef MQ_EVAL_REPORT_H
#define MQ_EVAL_REPORT_H

#include "base/buf.h"
#include "eval/eval.h"

/* The summary of one task's result (mq__eval_run):
 * {"items", "metrics": {metric: {plan: {"n", "mean", "low", "high", "interval"}}},
 *  "compare": [{"plan", "against", "metric", "n", "difference", "low", "high", "higher", "lower", "p", "p_holm", "test"}],
 *  "groups": {group: {plan: {...}}}                             of the headline,
 *  "tokens": {plan: {"input", "output"}}                     means of an item,
 *  "curves": {name: {plan: {"x": [...], "y": [...]}}}}       means over the items
 * Every plan is compared with bf16, and mix with nvfp4 and inverse, where both were run. "p_holm" is Holm's correction of p over
 * the comparisons of the same metric. Returns owned; NULL: out of memory. */
json_t *mq__eval_summary(const mq_eval_task *task, const mq_eval_plan *plans, size_t plan_count, const json_t *result,
                         uint64_t seed);

/* The table of {"tasks": {name: summary}} for people. */
void mq__eval_table(const json_t *report, mq_buf *text);

#endif
