/* lm_head for drafts: NVFP4, 4.5 bits a weight, made from the dense one. It has the part of the vocabulary that a draft may propose: tokens
 * with low ids, which tokenizers give to what is frequent, and all tokens that prompts and answers have had so far.
 * A draft step reads it in full, and of a small model a fifth of the step is the head; what it leaves out is drafted wrongly once. */
#ifndef MQ_DRAFT_HEAD_H
#define MQ_DRAFT_HEAD_H

#include "base/pool.h"
#include "mixquant_tools.h"
#include "model/model.h"

typedef struct mq_draft_head mq_draft_head;

/* Borrows the model and the pool. */
mq_status mq__draft_head_new(const mq_model *model, mq_scale_rule rule, mq_pool *pool, mq_draft_head **head,
                             mq_error *error);
void mq__draft_head_free(mq_draft_head *head);

/* These tokens may be proposed from now on. Between passes. */
void mq__draft_head_add(mq_draft_head *head, const int32_t *tokens, uint32_t count);
/* [its tokens, D], NVFP4. */
const mq_linear *mq__draft_head_linear(const mq_draft_head *head);
/* Logits of its tokens [linear's n] as those of the vocabulary [V]: minus infinity for tokens that it does not have. */
void mq__draft_head_spread(const mq_draft_head *head, const float *from, float *to);
uint32_t mq__draft_head_tokens(const mq_draft_head *head);

#endif
