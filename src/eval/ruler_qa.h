/* RULER's questions about published texts (its "qa_1" and "qa_2"): the documents that a question is about, hidden among others. */
#ifndef MQ_EVAL_RULER_QA_H
#define MQ_EVAL_RULER_QA_H

#include "base/buf.h"
#include "eval/eval.h"

typedef struct mq_ruler_qa {
    json_t *documents; /* [] texts, each once */
    json_t *questions; /* [] {"question": text, "answers": [text], "own": [places in documents]} */
    char hash[32];
} mq_ruler_qa;

/* Reads a published file: SQuAD's (1.1 or 2.0, whose unanswerable questions are left out) or HotpotQA's (distractor). A question with
 * more than MQ_RULER_OWN documents or MQ_RULER_ANSWERS answers is none of theirs: MQ_FORMAT. */
enum { MQ_RULER_OWN = 256, MQ_RULER_ANSWERS = 256 };
mq_status mq__ruler_qa_read(const char *path, mq_ruler_qa *qa, mq_error *error);
void mq__ruler_qa_free(mq_ruler_qa *qa);

/* The number of the sample-th question in an order that the seed chooses; all questions come once before one comes again. */
size_t mq__ruler_qa_draw(const mq_ruler_qa *qa, uint64_t seed, size_t sample);

/* The user's text of a question with `others` documents beside its own, as many as there are at most; equal
 * seeds give equal texts, and a text with more documents has all those of one with fewer. */
void mq__ruler_qa_text(const mq_ruler_qa *qa, size_t index, uint64_t seed, uint32_t others, mq_buf *text);

/* Its answers, any of which is right; borrowed. */
const json_t *mq__ruler_qa_answers(const mq_ruler_qa *qa, size_t index);

#endif
