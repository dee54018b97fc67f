#include "engine/draft.h"

#include "base/error.h"

static bool plan_reads(const mq_engine *e, const mq_phase_plan *plan, mq_face face)
{
    for (uint32_t l = 0; l < e->weights->model.layers; l++) {
        for (int g = 0; g < MQ_GROUPS; g++) {
            if (mq__face_of((mq_linear_format)plan->format[l][g]) == face) return true;
        }
    }
    return false;
}

/* Whether decoding reads dense weights. */
static bool decodes_dense(const mq_engine *e, const mq_plan *plan)
{
    return plan_reads(e, &plan->phase[MQ_PHASE_DECODE], MQ_FACE_DENSE);
}

bool mq__engine_can_draft(const mq_engine *e)
{
    return plan_reads(e, &e->plan->phase[MQ_PHASE_PREFILL], MQ_FACE_NVFP4) && decodes_dense(e, e->plan);
}

bool mq__sequence_can_draft(const mq_sequence *s)
{
    return s->engine->draft && decodes_dense(s->engine, s->plan);
}

mq_status mq__engine_draft_open(mq_engine *e, mq_error *error)
{
    const mq_plan_options options = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_NVFP4};
    if (e->draft) return MQ_OK;
    if (!mq__engine_can_draft(e)) {
        return mq__fail(error, MQ_USAGE,
                        "draft: nvfp4: expected a plan with nvfp4 or w4a16 prefill and bf16 decode, got %s, %s",
                        mq_linear_format_name(e->plan->prefill), mq_linear_format_name(e->plan->decode));
    }
    mq_status status = mq__draft_head_new(&e->weights->model, e->options.scales, e->pool, &e->draft_head, error);
    if (status == MQ_OK) status = mq_engine_plan(e, &options, &e->draft, error);
    if (status == MQ_OK) mq__engine_settle_begin(e);
    return status;
}

void mq__engine_draft_know(mq_engine *e, const int32_t *tokens, uint32_t count)
{
    if (e->draft) mq__draft_head_add(e->draft_head, tokens, count);
}

mq_status mq__engine_draft(mq_engine *e, mq_rows *rows, uint32_t count, mq_error *error)
{
    e->drafting = true;
    const mq_status status = mq_engine_step(e, rows, count, error);
    e->drafting = false;
    for (uint32_t i = 0; status == MQ_OK && i < count; i++) {
        if (rows[i].status == MQ_CANCELLED) mq_sequence_cancel(rows[i].sequence);
    }
    return status;
}
