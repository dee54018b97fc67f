/* `gsm8k`: grade-school mathematics (Cobbe et al. 2021, arXiv 2110.14168), test.jsonl as published. */
#include "eval/question.h"

#include <math.h>

static bool usable_gsm8k(const json_t *item)
{
    static const char *const keys[] = {"question", "answer"};
    double number;
    return mq__question_has_texts(item, keys, 2) &&
           mq__final_number(json_string_value(json_object_get(item, "answer")), &number);
}

static void ask_gsm8k(const json_t *item, mq_buf *text)
{
    mq__buf_puts(text, json_string_value(json_object_get(item, "question")));
    mq__buf_puts(text, "\n\nThink step by step. End with a line of its own: #### and the final number.");
}

static json_t *score_gsm8k(const json_t *item, const char *answer)
{
    double got = 0, wanted = 0;
    const bool found = mq__final_number(answer, &got);
    mq__final_number(json_string_value(json_object_get(item, "answer")), &wanted);
    const bool right = found && fabs(got - wanted) <= 1e-6 * fmax(1, fabs(wanted));
    return json_pack("{sf}", "right", right ? 1.0 : 0.0);
}

static const mq_benchmark benchmark = {
    .name = "gsm8k", .max_tokens = 32768, .quick = 24, .usable = usable_gsm8k, .ask = ask_gsm8k, .score = score_gsm8k};

static mq_status open_gsm8k(const mq_eval_context *context, void **task, size_t *items, mq_error *error)
{
    return mq__question_open(&benchmark, context, task, items, error);
}

const mq_eval_task mq__eval_gsm8k = {
    .name = "gsm8k",
    .summary = "grade-school mathematics (--data test.jsonl): the final number",
    .metrics = {"right"},
    .binary = 1u << 0,
    .open = open_gsm8k,
    MQ_QUESTION_CALLBACKS,
};
