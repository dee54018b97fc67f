/* The token loop of one sequence: draw, push, step. */
#include "base/error.h"
#include "engine/engine.h"

#include <math.h>

#define TOP_LOGPROBS_MAX 20

static mq_status generation_of(const mq_sequence *sequence, const mq_text *text, const mq_generate_options *options,
                               mq_generation **g, mq_error *error)
{
    const mq_weights *weights = sequence->engine->weights;
    const mq_generation_start start = {.vocab = weights->model.vocab,
                                       .eos = weights->eos,
                                       .eos_count = weights->eos_count,
                                       .tokens = sequence->tokens,
                                       .prompt_count = sequence->prompt,
                                       .token_count = sequence->count};
    return mq_generation_new(text, options, &start, g, error);
}

static void report_token(const mq_sequence *sequence, const mq_generate_options *o, int32_t token)
{
    if (!o->token) return;
    mq_token_logprob top[TOP_LOGPROBS_MAX];
    const size_t count = o->top_logprobs < TOP_LOGPROBS_MAX ? o->top_logprobs : TOP_LOGPROBS_MAX;
    float logprob = NAN;
    if (o->logprobs || count) {
        logprob = mq_logprobs(mq_sequence_logits(sequence), sequence->engine->weights->model.vocab, token, top, count);
    }
    o->token(o->context, token, logprob, top, count);
}

/* False: the caller cancels. It is asked at every token, also while nothing is printed. */
static bool hand_out_text(const mq_generate_options *o, const char *bytes, size_t count)
{
    return !o->text || o->text(o->context, bytes, count);
}

static mq_status step_timed(mq_sequence *sequence, int32_t token, mq_generate_result *result, mq_error *error)
{
    const double start = mq__seconds();
    mq_error failure = {0};
    const mq_status status = mq_sequence_step(sequence, token, &failure);
    if (status == MQ_CANCELLED) { /* by mq_sequence_cancel, perhaps from another thread */
        result->finish = MQ_FINISH_CANCELLED;
        return MQ_OK;
    }
    if (status != MQ_OK) {
        if (error) *error = failure;
        return status;
    }
    result->decode_s += mq__seconds() - start;
    result->steps++;
    return MQ_OK;
}

static mq_status token_loop(mq_sequence *sequence, mq_generation *g, const mq_generate_options *o,
                            mq_generate_result *result, mq_error *error)
{
    while (result->finish == MQ_FINISH_NONE) {
        const char *bytes;
        size_t count;
        int32_t token;
        mq_status status = mq_sampler_draw(mq_generation_sampler(g), mq_sequence_logits(sequence), NULL, &token, error);
        if (status != MQ_OK) return status;
        report_token(sequence, o, token);
        status = mq_generation_push(g, token, &bytes, &count, &result->finish, error);
        result->generated = mq_generation_count(g);
        if (status != MQ_OK) return status;
        if (!hand_out_text(o, bytes, count) && result->finish == MQ_FINISH_NONE) result->finish = MQ_FINISH_CANCELLED;
        if (result->finish != MQ_FINISH_NONE) break;
        if (sequence->count == sequence->engine->context) {
            result->finish = MQ_FINISH_LENGTH;
            status = mq_generation_end(g, &bytes, &count, error);
            if (status == MQ_OK) (void)hand_out_text(o, bytes, count);
        } else {
            status = step_timed(sequence, token, result, error);
        }
        if (status != MQ_OK) return status;
    }
    return MQ_OK;
}

mq_status mq_generate(mq_sequence *sequence, const mq_text *text, const mq_generate_options *options,
                      mq_generate_result *result, mq_error *error)
{
    *result = (mq_generate_result){0};
    if (!sequence->logits_ready) {
        return mq__fail(error, MQ_USAGE, "generate: sequence: expected one with logits (sync first), got none");
    }
    mq_generation *g;
    mq_status status = generation_of(sequence, text, options, &g, error);
    if (options->max_tokens == 0) result->finish = MQ_FINISH_LENGTH;
    if (status == MQ_OK) status = token_loop(sequence, g, options, result, error);
    mq_generation_free(g);
    return status;
}
