/* Draft steps: decode rows whose tokens are only proposed. They run in the NVFP4 copy of the model over the same KV, and leave none: the
 * sequence is cut back before the rows that verify them run, which write KV of the decode plan to the same places. */
#ifndef MQ_ENGINE_DRAFT_H
#define MQ_ENGINE_DRAFT_H

#include "engine/engine.h"

/* Whether the engine's plan has the NVFP4 copy in memory anyway, and decoding reads more than that. */
bool mq__engine_can_draft(const mq_engine *engine);
/* Makes what draft steps need besides: a plan and an lm_head. MQ_USAGE: the engine's plan is not one for drafts. */
mq_status mq__engine_draft_open(mq_engine *engine, mq_error *error);
/* Whether a sequence's decode plan is one that drafts are worth something for. */
bool mq__sequence_can_draft(const mq_sequence *sequence);
/* Tokens that a draft may propose (draft_head.h). */
void mq__engine_draft_know(mq_engine *engine, const int32_t *tokens, uint32_t count);
/* As mq_engine_step, of decode rows with one logits row each; their tokens do not count as precise, and the caller forgets them by
 * mq_sequence_truncate. A sequence that was cancelled stays so. */
mq_status mq__engine_draft(mq_engine *engine, mq_rows *rows, uint32_t count, mq_error *error);

#endif
