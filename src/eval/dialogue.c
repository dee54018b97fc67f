#include "eval/dialogue.h"

#include "base/buf.h"
#include "base/error.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

#define ANSWER_BYTES_MAX ((size_t)16 << 20)

/* One item in progress. */
typedef struct slot {
    mq_sequence *sequence;
    size_t item;
    void *episode; /* NULL: idle */
    bool asked;    /* a prompt is being answered */
    mq_eval_prompt prompt;
    mq_generation *generation; /* NULL: the prompt does not fit */
    mq_buf text;
    uint32_t turn, prompt_tokens;
    uint32_t prefilled; /* tokens at the sequence's beginning that the prefill plan read */
    uint64_t input_tokens, output_tokens;
    bool has_token; /* `token` waits to be appended by the next step */
    int32_t token;
} slot;

typedef struct runner {
    const mq_eval_dialogue *d;
    slot slots[MQ_EVAL_BATCH];
    size_t next; /* into d->items */
} runner;

static void clear_prompt(slot *s)
{
    json_decref(s->prompt.request);
    mq__free(s->prompt.prompt);
    mq_generation_free(s->generation);
    s->generation = NULL;
    s->prompt = (mq_eval_prompt){0};
    s->asked = false;
    s->has_token = false;
}

static mq_status tokens_of(const runner *r, const slot *s, int32_t **tokens, size_t *count, mq_error *error)
{
    const mq_text *text = r->d->context->text;
    if (!s->prompt.request) {
        return mq_tokenize(text, s->prompt.prompt, strlen(s->prompt.prompt),
                           MQ_TOKENIZE_PARSE_SPECIAL | MQ_TOKENIZE_ADD_SPECIAL, tokens, count, error);
    }
    char *prompt = NULL;
    size_t bytes;
    json_object_set_new(s->prompt.request, "add_generation_prompt", json_true());
    char *request = json_dumps(s->prompt.request, JSON_COMPACT);
    if (!request) return mq__fail(error, MQ_NO_MEMORY, "eval: request: expected memory, got none");
    mq_status status = mq_render(text, request, strlen(request), &prompt, &bytes, error);
    free(request);
    if (status == MQ_OK) status = mq_tokenize(text, prompt, bytes, MQ_TOKENIZE_PARSE_SPECIAL, tokens, count, error);
    mq_free(prompt);
    return status;
}

/* LongBench's truncation: the first and the last half of what may stay. */
static size_t cut_middle(int32_t *tokens, size_t count, size_t most)
{
    if (most == 0 || count <= most) return count;
    const size_t head = most / 2, tail = most - head;
    memmove(tokens + head, tokens + count - tail, tail * sizeof *tokens);
    return most;
}

/* A seed of its own for each answer, and draws that depend on nothing but seed and position: what else is in the batch does
 * not matter. */
static mq_status begin_answer(runner *r, slot *s, const int32_t *tokens, size_t count, mq_error *error)
{
    const mq_eval_context *context = r->d->context;
    char name[320];
    snprintf(name, sizeof name, "%s#%u", r->d->task->id(r->d->state, s->item), s->turn);
    mq_eval_random seed = mq__eval_random(context->options->seed, name);
    mq_generate_options options = {.sampling = s->prompt.sampling,
                                   .max_tokens = s->prompt.max_tokens,
                                   .stops = s->prompt.stops,
                                   .stop_count = s->prompt.stop_count};
    options.sampling.seed = mq__eval_random_u64(&seed);
    const mq_generation_start start = {.vocab = context->info.vocab,
                                       .eos = context->info.eos,
                                       .eos_count = context->info.eos_count,
                                       .tokens = tokens,
                                       .prompt_count = count,
                                       .token_count = count};
    return mq_generation_new(context->text, &options, &start, &s->generation, error);
}

/* Prefills the prompt. One that leaves no room for an answer is answered with nothing. */
static mq_status ask_dialogue(runner *r, slot *s, bool *fits, mq_error *error)
{
    int32_t *tokens = NULL;
    size_t count = 0;
    mq_status status = tokens_of(r, s, &tokens, &count, error);
    if (status == MQ_OK && count == 0) status = mq__fail(error, MQ_USAGE, "eval: prompt: expected tokens, got none");
    if (status == MQ_OK) count = cut_middle(tokens, count, s->prompt.max_prompt);
    *fits = count <= r->d->context->info.context;
    s->asked = true;
    s->prompt_tokens = (uint32_t)count;
    mq__buf_clear(&s->text);
    mq_sync_stats stats = {0};
    if (status == MQ_OK && *fits) {
        const mq_eval_plan *plan = r->d->plan;
        const mq_sync_options sync = {.precise = plan->precise};
        if (plan->reprefill) (void)mq_sequence_truncate(s->sequence, s->prefilled);
        status = mq_sequence_sync(s->sequence, tokens, (uint32_t)count, &sync, &stats, error);
        s->input_tokens += count - stats.cached;
        s->prefilled = stats.cached + stats.prefilled;
    }
    if (status == MQ_OK && *fits) status = begin_answer(r, s, tokens, count, error);
    mq_free(tokens);
    return status;
}

static mq_status add_text(slot *s, const char *bytes, size_t count, mq_error *error)
{
    if (mq__buf_append(&s->text, bytes, count)) return MQ_OK;
    return mq__fail(error, MQ_NO_MEMORY, "eval: answer: expected memory, got none");
}

/* Draws the next token from the sequence's logits; *finish says when the answer is complete. */
static mq_status draw_dialogue(runner *r, slot *s, mq_finish *finish, mq_error *error)
{
    const char *bytes;
    size_t count;
    mq_sampler *sampler = mq_generation_sampler(s->generation);
    mq_status status = mq_sampler_draw(sampler, mq_sequence_logits(s->sequence), NULL, &s->token, error);
    if (status == MQ_OK) status = mq_generation_push(s->generation, s->token, &bytes, &count, finish, error);
    if (status == MQ_OK) status = add_text(s, bytes, count, error);
    uint32_t held;
    (void)mq_sequence_tokens(s->sequence, &held);
    if (status == MQ_OK && *finish == MQ_FINISH_NONE && held >= r->d->context->info.context) {
        *finish = MQ_FINISH_LENGTH;
        status = mq_generation_end(s->generation, &bytes, &count, error);
        if (status == MQ_OK) status = add_text(s, bytes, count, error);
    }
    s->has_token = *finish == MQ_FINISH_NONE;
    return status;
}

/* Hands the answer (or NULL) to the task and prefills its next prompt, or ends the item. */
static mq_status turn(runner *r, slot *s, const mq_eval_answer *answer, bool *fits, mq_error *error)
{
    mq_eval_prompt prompt = {0};
    mq_status status = r->d->task->next(s->episode, answer, &prompt, error);
    clear_prompt(s);
    s->prompt = prompt;
    if (status != MQ_OK) return status;
    s->turn += answer != NULL;
    if (prompt.request || prompt.prompt) return ask_dialogue(r, s, fits, error);
    json_t *record = r->d->task->end(s->episode, true);
    s->episode = NULL;
    if (!record) return mq__fail(error, MQ_NO_MEMORY, "eval: record: expected memory, got none");
    json_object_set_new(record, "input_tokens", json_integer((json_int_t)s->input_tokens));
    json_object_set_new(record, "output_tokens", json_integer((json_int_t)s->output_tokens));
    return r->d->take(r->d->take_context, s->item, record, error);
}

static mq_status begin_dialogue(runner *r, slot *s, bool *fits, mq_error *error)
{
    s->item = r->d->items[r->next++];
    s->turn = s->prefilled = 0;
    s->input_tokens = s->output_tokens = 0;
    mq_sequence_truncate(s->sequence, 0); /* what an earlier item left must not be reused: it was made in another way */
    const mq_status status = r->d->task->begin(r->d->state, s->item, &s->episode, error);
    return status == MQ_OK ? turn(r, s, NULL, fits, error) : status;
}

/* The answer that is complete goes to the task, which asks the next one or ends the item. */
static mq_status hand_in(runner *r, slot *s, mq_finish finish, bool *fits, mq_error *error)
{
    const uint32_t output = s->generation ? mq_generation_count(s->generation) : 0;
    mq__eval_make_text(s->text.data, s->text.len);
    const mq_eval_answer answer = {.text = s->text.len ? s->text.data : "",
                                   .bytes = s->text.len,
                                   .prompt_tokens = s->prompt_tokens,
                                   .output_tokens = output,
                                   .finish = finish};
    s->output_tokens += output;
    return turn(r, s, &answer, fits, error);
}

/* Brings a slot to where it waits for a decode step, or to idleness when no item is left. */
static mq_status advance_dialogue(runner *r, slot *s, mq_error *error)
{
    mq_status status = MQ_OK;
    s->has_token = false;
    while (status == MQ_OK && !s->has_token) {
        bool fits = true;
        mq_finish finish = MQ_FINISH_NONE;
        if (!s->episode) {
            if (r->next == r->d->count) return MQ_OK;
            status = begin_dialogue(r, s, &fits, error);
        } else {
            status = draw_dialogue(r, s, &finish, error);
        }
        while (status == MQ_OK && s->episode && (finish != MQ_FINISH_NONE || !fits)) {
            if (!fits) finish = MQ_FINISH_LENGTH;
            fits = true;
            status = hand_in(r, s, finish, &fits, error);
            finish = MQ_FINISH_NONE;
        }
    }
    return status;
}

static mq_status lockstep(runner *r, mq_error *error)
{
    for (;;) {
        mq_rows rows[MQ_EVAL_BATCH];
        uint32_t count = 0;
        for (uint32_t i = 0; i < r->d->batch; i++) {
            const mq_status status = advance_dialogue(r, &r->slots[i], error);
            if (status != MQ_OK) return status;
            if (!r->slots[i].has_token) continue;
            rows[count++] = (mq_rows){.sequence = r->slots[i].sequence,
                                      .tokens = &r->slots[i].token,
                                      .count = 1,
                                      .phase = MQ_PHASE_DECODE,
                                      .logits = 1};
        }
        if (count == 0) return MQ_OK;
        mq_status status = mq_engine_step(r->d->context->engine, rows, count, error);
        for (uint32_t i = 0; status == MQ_OK && i < count; i++) {
            status = rows[i].status;
        }
        if (status != MQ_OK) return status;
    }
}

mq_status mq__eval_dialogue_run(const mq_eval_dialogue *dialogue, mq_error *error)
{
    runner r = {.d = dialogue};
    mq_status status = MQ_OK;
    for (uint32_t i = 0; i < dialogue->batch; i++) {
        r.slots[i].text.max = ANSWER_BYTES_MAX;
    }
    for (uint32_t i = 0; status == MQ_OK && i < dialogue->batch; i++) {
        status = mq_sequence_new(dialogue->context->engine, &r.slots[i].sequence, error);
    }
    if (status == MQ_OK) status = lockstep(&r, error);
    for (uint32_t i = 0; i < dialogue->batch; i++) {
        slot *s = &r.slots[i];
        if (s->episode) json_decref(dialogue->task->end(s->episode, false));
        clear_prompt(s);
        mq__buf_free(&s->text);
        mq_sequence_free(s->sequence);
    }
    return status;
}
