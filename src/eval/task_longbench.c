/* `longbench-v2`: multiple choice about long contexts (Bai et al. 2024, arXiv 2412.15204), data.json as published. Contexts that
 * do not fit lose their middle, as in the original. */
#include "eval/question.h"

#include <string.h>

static const char *const keys[] = {"_id",      "question", "choice_A", "choice_B", "choice_C",
                                   "choice_D", "answer",   "context",  "length",   "difficulty"};

static bool usable_longbench(const json_t *item)
{
    const char *answer = json_string_value(json_object_get(item, "answer"));
    return mq__question_has_texts(item, keys, sizeof keys / sizeof keys[0]) && strlen(answer) == 1 && *answer >= 'A' &&
           *answer <= 'D';
}

static const char *text_of_longbench(const json_t *item, const char *key)
{
    return json_string_value(json_object_get(item, key));
}

static void ask_longbench(const json_t *item, mq_buf *text)
{
    mq__buf_puts(text, "Read the text, then answer the question about it.\n\n<text>\n");
    mq__buf_puts(text, text_of_longbench(item, "context"));
    mq__buf_puts(text, "\n</text>\n\nQuestion: ");
    mq__buf_puts(text, text_of_longbench(item, "question"));
    for (char c = 'A'; c <= 'D'; c++) {
        const char key[] = {'c', 'h', 'o', 'i', 'c', 'e', '_', c, '\0'};
        mq__buf_printf(text, "\n(%c) ", c);
        mq__buf_puts(text, text_of_longbench(item, key));
    }
    mq__buf_puts(text, "\n\nAnswer in this form: \"The correct answer is (letter)\".");
}

static json_t *score_longbench(const json_t *item, const char *answer)
{
    const bool right = mq__final_choice(answer) == *text_of_longbench(item, "answer");
    return json_pack("{sfss}", "right", right ? 1.0 : 0.0, "group", text_of_longbench(item, "length"));
}

static const mq_benchmark benchmark = {.name = "longbench-v2",
                                       .max_tokens = 30720,
                                       .max_prompt = 100000,
                                       .quick = 12,
                                       .usable = usable_longbench,
                                       .ask = ask_longbench,
                                       .score = score_longbench,
                                       .id_key = "_id"};

static mq_status open_longbench(const mq_eval_context *context, void **task, size_t *items, mq_error *error)
{
    return mq__question_open(&benchmark, context, task, items, error);
}

const mq_eval_task mq__eval_longbench = {
    .name = "longbench-v2",
    .summary = "multiple choice about long contexts (--data data.json): the chosen letter",
    .metrics = {"right"},
    .binary = 1u << 0,
    .open = open_longbench,
    MQ_QUESTION_CALLBACKS,
};
