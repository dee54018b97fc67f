/* `math500` and `aime`: competition mathematics (Hendrycks et al. 2021, arXiv 2103.03874, the 500 of Lightman et al. 2023; the
 * American Invitational Mathematics Examination), files of one problem a line as they are published. */
#include "base/mem.h"
#include "eval/math_answer.h"
#include "eval/question.h"

#include <stdio.h>

/* Publishers name the same things in several ways. */
static const json_t *first_member(const json_t *item, const char *const *keys, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_object_get(item, keys[i]);
        if (value) return value;
    }
    return NULL;
}

static const char *problem_of(const json_t *item)
{
    static const char *const keys[] = {"problem", "Problem", "question"};
    return json_string_value(first_member(item, keys, sizeof keys / sizeof keys[0]));
}

/* The answer as text; some files have integers. */
static bool wanted_of(const json_t *item, char wanted[1024])
{
    static const char *const keys[] = {"answer", "Answer"};
    const json_t *answer = first_member(item, keys, sizeof keys / sizeof keys[0]);
    if (json_is_integer(answer)) {
        snprintf(wanted, 1024, "%" JSON_INTEGER_FORMAT, json_integer_value(answer));
        return true;
    }
    const char *text = json_string_value(answer);
    return text && *text && (size_t)snprintf(wanted, 1024, "%s", text) < 1024;
}

static bool usable_math(const json_t *item)
{
    char wanted[1024];
    return problem_of(item) && wanted_of(item, wanted);
}

static void ask_math(const json_t *item, mq_buf *text)
{
    mq__buf_puts(text, problem_of(item));
    mq__buf_puts(text, "\n\nThink step by step. Write the final answer, and nothing else, in \\boxed{}.");
}

static json_t *score_math(const json_t *item, const char *answer)
{
    char wanted[1024], group[32] = "";
    char *boxed = mq__math_boxed(answer);
    const bool right = boxed && wanted_of(item, wanted) && mq__math_equal(boxed, wanted);
    json_t *record = json_pack("{sfss}", "right", right ? 1.0 : 0.0, "boxed", boxed ? boxed : "");
    const json_t *level = json_object_get(item, "level");
    if (json_is_integer(level)) snprintf(group, sizeof group, "level %" JSON_INTEGER_FORMAT, json_integer_value(level));
    if (*group) json_object_set_new(record, "group", json_string(group));
    mq__free(boxed);
    return record;
}

static const mq_benchmark math500 = {.name = "math500",
                                     .max_tokens = 32768,
                                     .quick = 24,
                                     .usable = usable_math,
                                     .ask = ask_math,
                                     .score = score_math},
                          aime = {.name = "aime",
                                  .max_tokens = 32768,
                                  .quick = 6,
                                  .usable = usable_math,
                                  .ask = ask_math,
                                  .score = score_math};

static mq_status open_math500(const mq_eval_context *context, void **task, size_t *items, mq_error *error)
{
    return mq__question_open(&math500, context, task, items, error);
}

static mq_status open_aime(const mq_eval_context *context, void **task, size_t *items, mq_error *error)
{
    return mq__question_open(&aime, context, task, items, error);
}

const mq_eval_task mq__eval_math500 = {
    .name = "math500",
    .summary = "competition mathematics (--data test.jsonl): the boxed answer",
    .metrics = {"right"},
    .binary = 1u << 0,
    .open = open_math500,
    MQ_QUESTION_CALLBACKS,
};

const mq_eval_task mq__eval_aime = {
    .name = "aime",
    .summary = "the AIME's problems (--data FILE): the boxed answer",
    .metrics = {"right"},
    .binary = 1u << 0,
    .open = open_aime,
    MQ_QUESTION_CALLBACKS,
};
