/* The token loop of one sequence: draw and push while the logits are there, then a step. */
#include "base/error.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "gen/drafter.h"

#include <math.h>
#include <string.h>

#define TOP_LOGPROBS_MAX 20

/* One call of mq_generate. */
typedef struct answering {
    mq_sequence *sequence;
    const mq_generate_options *options;
    mq_generate_result *result;
    mq_generation *generation;
    mq_draft_answer draft; /* its tokens are owned; NULL: nothing is drafted */
    uint32_t right;        /* tokens of the draft that were drawn */
} answering;

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

/* ---- the token that the logits give */

/* Rows of the draft behind the one whose logits are next. */
static uint32_t rows_behind(const answering *a)
{
    return a->draft.drafted - a->right;
}

static void report_token(const answering *a, int32_t token)
{
    const mq_generate_options *o = a->options;
    if (!o->token) return;
    mq_token_logprob top[TOP_LOGPROBS_MAX];
    const size_t count = o->top_logprobs < TOP_LOGPROBS_MAX ? o->top_logprobs : TOP_LOGPROBS_MAX;
    float logprob = NAN;
    if (o->logprobs || count) {
        const float *logits = mq_sequence_logits_of(a->sequence, rows_behind(a));
        logprob = mq_logprobs(logits, a->sequence->engine->weights->model.vocab, token, top, count);
    }
    o->token(o->context, token, logprob, top, count);
}

/* False: the caller cancels. It is asked at every token, also while nothing is printed. */
static bool hand_out_text(const mq_generate_options *o, const char *bytes, size_t count)
{
    return !o->text || o->text(o->context, bytes, count);
}

/* Draws the next token and pushes it. *right: it is the draft's, whose row has run. */
static mq_status take_token(answering *a, int32_t *token, bool *right, mq_error *error)
{
    const mq_generate_options *o = a->options;
    mq_generate_result *result = a->result;
    const char *bytes;
    size_t count;
    const float *logits = mq_sequence_logits_of(a->sequence, rows_behind(a));
    mq_status status = mq_sampler_draw(mq_generation_sampler(a->generation), logits, NULL, token, error);
    if (status != MQ_OK) return status;
    if (o->script) *token = mq__draft_scripted(o->script, mq_generation_count(a->generation));
    report_token(a, *token);
    *right = o->drafter && mq__draft_judge(o->drafter, &a->draft, a->right, *token);
    status = mq_generation_push(a->generation, *token, &bytes, &count, &result->finish, error);
    result->generated = mq_generation_count(a->generation);
    if (status != MQ_OK) return status;
    if (!hand_out_text(o, bytes, count) && result->finish == MQ_FINISH_NONE) result->finish = MQ_FINISH_CANCELLED;
    return MQ_OK;
}

/* Drafted tokens behind the first `right` leave the sequence; logits of the rows before them stay. */
static void drop_draft(answering *a)
{
    const uint32_t wrong = rows_behind(a);
    a->result->drafted += a->draft.drafted;
    a->result->drafted_right += a->right;
    a->draft.drafted = a->right = 0;
    if (wrong) mq__sequence_drop(a->sequence, wrong);
}

/* ---- the step that gives logits */

/* The token's row, and those of what is likely to follow. */
static void draft_behind(answering *a, int32_t token)
{
    mq_draft_answer *draft = &a->draft;
    const mq_sequence *sequence = a->sequence;
    const uint32_t room = sequence->engine->context - sequence->count - 1;
    const uint32_t left = a->options->max_tokens - mq_generation_count(a->generation);
    draft->tokens[sequence->count] = token;
    draft->count = sequence->count + 1;
    draft->most = left - 1 < room ? left - 1 : room; /* the last token is never run */
    mq__draft_propose(a->options->drafter, &draft, 1, 1);
}

static mq_status run_drafted(answering *a, int32_t token, mq_error *error)
{
    mq_sequence *sequence = a->sequence;
    const uint32_t count = 1 + a->draft.drafted;
    mq_rows rows = {.sequence = sequence,
                    .tokens = a->draft.tokens ? a->draft.tokens + sequence->count : &token,
                    .count = count,
                    .phase = MQ_PHASE_DECODE,
                    .logits = count};
    const double start = mq__seconds();
    const mq_status status = mq_engine_step(sequence->engine, &rows, 1, error);
    if (a->options->drafter) {
        mq__draft_stepped(a->options->drafter, count, count > 1, mq__seconds() - start);
    }
    if (status == MQ_OK) return rows.status;
    return status;
}

static mq_status step_timed(answering *a, int32_t token, mq_error *error)
{
    const double start = mq__seconds();
    if (a->draft.tokens) draft_behind(a, token);
    const mq_status status = run_drafted(a, token, error);
    if (status == MQ_CANCELLED) { /* by mq_sequence_cancel, perhaps from another thread */
        a->result->finish = MQ_FINISH_CANCELLED;
        return MQ_OK;
    }
    if (status != MQ_OK) return status;
    a->result->decode_s += mq__seconds() - start;
    a->result->steps++;
    return MQ_OK;
}

/* ---- all of them */

static mq_status end_full(answering *a, mq_error *error)
{
    const char *bytes;
    size_t count;
    a->result->finish = MQ_FINISH_LENGTH;
    const mq_status status = mq_generation_end(a->generation, &bytes, &count, error);
    if (status == MQ_OK) (void)hand_out_text(a->options, bytes, count);
    return status;
}

static mq_status token_loop(answering *a, mq_error *error)
{
    mq_status status = MQ_OK;
    while (status == MQ_OK && a->result->finish == MQ_FINISH_NONE) {
        int32_t token;
        bool right;
        status = take_token(a, &token, &right, error);
        if (status == MQ_OK && a->result->finish == MQ_FINISH_NONE && right) {
            a->right++;
            continue;
        }
        drop_draft(a);
        if (status != MQ_OK || a->result->finish != MQ_FINISH_NONE) break;
        status = a->sequence->count == a->sequence->engine->context ? end_full(a, error) : step_timed(a, token, error);
    }
    return status;
}

/* Tokens of the sequence and of the answer, with the lookups over them. */
static mq_status begin_drafts(answering *a, mq_error *error)
{
    const mq_sequence *sequence = a->sequence;
    const uint32_t context = sequence->engine->context, left = context - sequence->count;
    const uint32_t most = a->options->max_tokens < left ? a->options->max_tokens : left;
    mq_draft_answer *draft = &a->draft;
    if (!a->options->drafter || most < 2) return MQ_OK;
    draft->tokens = mq__alloc((size_t)(sequence->count + most) * sizeof *draft->tokens);
    if (!draft->tokens) return mq__fail(error, MQ_NO_MEMORY, "generate: drafts: expected memory, got none");
    memcpy(draft->tokens, sequence->tokens, sequence->count * sizeof *draft->tokens);
    draft->sequence = a->sequence;
    draft->generation = a->generation;
    draft->script = a->options->script;
    return mq__draft_begin(a->options->drafter, sequence->count + most, draft, error);
}

static void end_drafts(answering *a, uint32_t first)
{
    const uint32_t count = a->sequence->count;
    if (a->draft.tokens && count > first) {
        mq__draft_keep(a->options->drafter, 0, a->sequence->tokens + first, count - first);
    }
    mq__draft_end(&a->draft);
    mq__free(a->draft.tokens);
}

mq_status mq_generate(mq_sequence *sequence, const mq_text *text, const mq_generate_options *options,
                      mq_generate_result *result, mq_error *error)
{
    *result = (mq_generate_result){0};
    if (!sequence->logits_ready) {
        return mq__fail(error, MQ_USAGE, "generate: sequence: expected one with logits (sync first), got none");
    }
    answering a = {.sequence = sequence, .options = options, .result = result};
    const uint32_t first = sequence->count;
    mq_status status = generation_of(sequence, text, options, &a.generation, error);
    if (options->max_tokens == 0) result->finish = MQ_FINISH_LENGTH;
    if (status == MQ_OK) status = begin_drafts(&a, error);
    if (status == MQ_OK) status = token_loop(&a, error);
    end_drafts(&a, first);
    mq_generation_free(a.generation);
    return status;
}
