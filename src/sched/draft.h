/* How many drafted tokens pay. A decode step of r rows takes about fixed + slope * r seconds, both learnt from the steps themselves; a
 * drafted token is right as often as earlier ones whose match was about as long. A draft grows while a row more brings more
 * tokens a second than the step has without it. So drafts shrink as more answers run, and end where nothing is predicted. */
#ifndef MQ_DRAFT_H
#define MQ_DRAFT_H

#include <stdint.h>

enum { MQ_DRAFT_MOST = 16, MQ_DRAFT_CLASSES = 5 };

typedef struct mq_draft_model {
    double weight, rows, seconds, rows_rows, rows_seconds; /* decaying sums over steps */
    double right[MQ_DRAFT_CLASSES]; /* share of drafted tokens that were right, by length of the match */
} mq_draft_model;

void mq__draft_init(mq_draft_model *model);
/* Tokens to draft for a match of `length` in a step that has `rows` rows, of at most `most`. */
uint32_t mq__draft_tokens(mq_draft_model *model, uint32_t length, uint32_t rows, uint32_t most);
void mq__draft_verified(mq_draft_model *model, uint32_t length, uint32_t drafted, uint32_t right);
void mq__draft_stepped(mq_draft_model *model, uint32_t rows, double seconds);

#endif
