/* Tasks of one question and one scored answer: what gsm8k, longbench-v2, longmemeval, ... share. A benchmark says how an item of
 * its published file becomes a question, and how an answer is scored; docs/BENCHMARKS.md has the settings. */
#ifndef MQ_EVAL_QUESTION_H
#define MQ_EVAL_QUESTION_H

#include "base/buf.h"
#include "eval/eval.h"

typedef struct mq_benchmark {
    const char *name;
    uint32_t max_tokens; /* of an answer, thoughts included; as in the paper's settings */
    uint32_t max_prompt; /* prompts are cut to so many tokens, in a longer context, too; 0: to the context alone */
    uint32_t quick;
    /* Reads the published data into an array, owned by the caller; NULL: a file of JSON values (mq__eval_read_values). */
    mq_status (*read)(const char *data, json_t **items, mq_error *error);
    /* Whether the item is one that can be scored, and has all that the other two read. */
    bool (*usable)(const json_t *item);
    bool (*skipped)(const json_t *item); /* well-formed, but left out; NULL: none */
    /* The user's message. Its middle is cut out where it does not fit the context. */
    void (*ask)(const json_t *item, mq_buf *text);
    /* Metrics, and "group" where there are kinds of items. The answer is what follows the thoughts (mq__eval_after_thought). */
    json_t *(*score)(const json_t *item, const char *answer);
    /* Asks a judge whether the answer is right, to be answered with yes or no; NULL: nobody judges. With a judge, items that are
     * skipped otherwise are asked, too. */
    void (*judge)(const json_t *item, const char *answer, mq_buf *text);
    const char *id_key; /* NULL: the item's number */
} mq_benchmark;

mq_status mq__question_open(const mq_benchmark *benchmark, const mq_eval_context *context, void **task, size_t *items,
                            mq_error *error);

/* The rest of an mq_eval_task, and its initialiser. */
void mq__question_close(void *task);
const char *mq__question_id(void *task, size_t item);
json_t *mq__question_settings(void *task);
mq_status mq__question_begin(void *task, size_t item, void **episode, mq_error *error);
mq_status mq__question_next(void *episode, const mq_eval_answer *answer, mq_eval_prompt *prompt, mq_error *error);
json_t *mq__question_end(void *episode, bool want_record);

#define MQ_QUESTION_CALLBACKS                                                                                          \
    .close = mq__question_close, .id = mq__question_id, .settings = mq__question_settings,                             \
    .begin = mq__question_begin, .next = mq__question_next, .end = mq__question_end

/* All keys are there as texts. */
bool mq__question_has_texts(const json_t *item, const char *const *keys, size_t count);

/* ---- scorers, for the tests as well (answer_scores.c) */

/* The number that an answer ends with: after "####", in \boxed{}, or the last one. False: there is none. */
bool mq__final_number(const char *answer, double *number);

/* 'A' to 'D' of "The correct answer is (A)", "Final answer: B", or of a last line that is "(b)" alone; 0: none is chosen. */
char mq__final_choice(const char *answer);

/* Words without case, punctuation and articles: whether a sentence of `answer` contains all of `wanted` in a row, does not deny
 * it and does not list it among other things; and the F1 of the words. */
typedef struct mq_overlap {
    bool contains;
    double f1;
} mq_overlap;
mq_overlap mq__word_overlap(const char *answer, const char *wanted);

#endif
