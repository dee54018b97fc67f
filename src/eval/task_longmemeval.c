/* `longmemeval`: questions about a long history of chats (Wu et al. 2024, arXiv 2410.10813), longmemeval_s.json as published. The
 * original asks a large model whether an answer is right; here its words are compared, which is stricter. */
#include "eval/question.h"

#include <stdio.h>
#include <string.h>

static const char *const keys[] = {"question_id", "question_type", "question", "question_date"};

static bool usable_longmemeval(const json_t *item)
{
    const json_t *answer = json_object_get(item, "answer"), *dates = json_object_get(item, "haystack_dates");
    const json_t *sessions = json_object_get(item, "haystack_sessions");
    return mq__question_has_texts(item, keys, sizeof keys / sizeof keys[0]) &&
           (json_is_string(answer) || json_is_integer(answer)) && mq__eval_are_dialogues(sessions) &&
           json_array_size(dates) == json_array_size(sessions);
}

/* Questions without an answer in the history: only a judge can tell a refusal. */
static bool skipped(const json_t *item)
{
    const char *id = json_string_value(json_object_get(item, "question_id"));
    const size_t length = strlen(id);
    return length > 4 && strcmp(id + length - 4, "_abs") == 0;
}

static const char *date_of(const json_t *item, size_t i)
{
    const char *date = json_string_value(json_array_get(json_object_get(item, "haystack_dates"), i));
    return date ? date : "an unknown day";
}

/* The session that is the next in time after `last` (SIZE_MAX: the first one), as published dates sort: "2023/05/20 (Sat) 02:21". Of
 * one date, in the file's order. */
static size_t next_session(const json_t *item, size_t last)
{
    const size_t count = json_array_size(json_object_get(item, "haystack_sessions"));
    size_t next = SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        const int past = last == SIZE_MAX ? 1 : strcmp(date_of(item, i), date_of(item, last));
        if (past < 0 || (past == 0 && i <= last)) continue;
        if (next == SIZE_MAX || strcmp(date_of(item, i), date_of(item, next)) < 0) next = i;
    }
    return next;
}

static void ask_longmemeval(const json_t *item, mq_buf *text)
{
    const json_t *message;
    size_t k;
    mq__buf_puts(text, "These are earlier chats between you and me.\n");
    for (size_t i = next_session(item, SIZE_MAX); i != SIZE_MAX; i = next_session(item, i)) {
        const json_t *session = json_array_get(json_object_get(item, "haystack_sessions"), i);
        mq__buf_printf(text, "\n### Chat of %s\n", date_of(item, i));
        json_array_foreach(session, k, message)
        {
            mq__buf_puts(text, json_string_value(json_object_get(message, "role")));
            mq__buf_puts(text, ": ");
            mq__buf_puts(text, json_string_value(json_object_get(message, "content")));
            mq__buf_putc(text, '\n');
        }
    }
    mq__buf_puts(text, "\nToday is ");
    mq__buf_puts(text, json_string_value(json_object_get(item, "question_date")));
    mq__buf_puts(text, ". Answer in a few words, from these chats: ");
    mq__buf_puts(text, json_string_value(json_object_get(item, "question")));
}

/* The published answer; an integer is written to `number`. */
static const char *wanted_longmemeval(const json_t *item, char number[32])
{
    const json_t *wanted = json_object_get(item, "answer");
    if (json_is_string(wanted)) return json_string_value(wanted);
    snprintf(number, 32, "%" JSON_INTEGER_FORMAT, json_integer_value(wanted));
    return number;
}

static void judge_longmemeval(const json_t *item, const char *answer, mq_buf *text)
{
    char number[32];
    mq__buf_puts(text, "A question about earlier chats was asked.\n\nQuestion: ");
    mq__buf_puts(text, json_string_value(json_object_get(item, "question")));
    mq__buf_puts(text, skipped(item) ? "\nIt cannot be answered from the chats: " : "\nRight answer: ");
    mq__buf_puts(text, wanted_longmemeval(item, number));
    mq__buf_puts(text, "\nGiven answer: ");
    mq__buf_puts(text, answer);
    mq__buf_puts(text, skipped(item)
                           ? "\n\nDoes the given answer say that this is not known?"
                           : "\n\nDoes the given answer say the same as the right one? More words do not matter, "
                             "another fact does.");
    mq__buf_puts(text, " Reply with yes or no only.");
}

static json_t *score_longmemeval(const json_t *item, const char *answer)
{
    char number[32];
    if (skipped(item)) return json_pack("{ss}", "group", "abstention"); /* which only a judge can score */
    const char *text = wanted_longmemeval(item, number);
    const mq_overlap overlap = mq__word_overlap(answer, text);
    return json_pack("{sfsfss}", "contains", overlap.contains ? 1.0 : 0.0, "f1", overlap.f1, "group",
                     json_string_value(json_object_get(item, "question_type")));
}

static const mq_benchmark benchmark = {.name = "longmemeval",
                                       .max_tokens = 19072,
                                       .max_prompt = 112000 - 19072,
                                       .quick = 12,
                                       .usable = usable_longmemeval,
                                       .skipped = skipped,
                                       .ask = ask_longmemeval,
                                       .score = score_longmemeval,
                                       .judge = judge_longmemeval,
                                       .id_key = "question_id"};

static mq_status open_longmemeval(const mq_eval_context *context, void **task, size_t *items, mq_error *error)
{
    return mq__question_open(&benchmark, context, task, items, error);
}

const mq_eval_task mq__eval_longmemeval = {
    .name = "longmemeval",
    .summary = "questions about a long history of chats (--data longmemeval_s.json): words of the answer",
    .metrics = {"contains", "f1", "judged"},
    .binary = 1u << 0 | 1u << 2,
    .open = open_longmemeval,
    MQ_QUESTION_CALLBACKS,
};
