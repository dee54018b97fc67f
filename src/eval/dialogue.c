#include "eval/dialogue.h"

#include "base/buf.h"
#include "base/error.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

#define ANSWER_BYTES_MAX ((size_t)16 << 20)

/* One item in progress. */
typedef struct slot {
    mq_sequence *session;
    size_t item;
    void *episode; /* NULL: idle */
    bool asked;    /* a prompt is being answered */
    mq_eval_prompt prompt;
    mq_stream *stream;
    mq_buf text;
    uint32_t turn, prompt_tokens, output;
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
    mq_stream_free(s->stream);
    s->stream = NULL;
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
    s->output = 0;
    s->prompt_tokens = (uint32_t)count;
    mq__buf_clear(&s->text);
    mq_sync_stats stats = {0};
    if (status == MQ_OK && *fits) {
        status = mq_sequence_sync(s->session, tokens, (uint32_t)count, NULL, &stats, error);
        s->input_tokens += stats.prefilled + 1;
    }
    if (status == MQ_OK) {
        status = mq_stream_new(r->d->context->text, MQ_STREAM_SKIP_SPECIAL | MQ_STREAM_CONTINUES, &s->stream, error);
    }
    mq_free(tokens);
    return status;
}

typedef struct pick {
    int32_t token;
} pick;

static void take_token(void *context, int32_t token, float logprob, const mq_token_logprob *top, size_t count)
{
    (void)logprob;
    (void)top;
    (void)count;
    ((pick *)context)->token = token;
}

/* The first stop string in the answer cuts it. */
static bool find_stop_dialogue(slot *s)
{
    size_t first = s->text.len;
    for (size_t i = 0; i < s->prompt.stop_count && s->text.len; i++) {
        const char *at = memmem(s->text.data, s->text.len, s->prompt.stops[i], strlen(s->prompt.stops[i]));
        if (at && (size_t)(at - s->text.data) < first) first = (size_t)(at - s->text.data);
    }
    if (first == s->text.len) return false;
    s->text.len = first;
    s->text.data[first] = '\0';
    return true;
}

/* Draws the next token from the session's logits; *finished with *finish when the answer is complete. A seed of its own
 * for each token makes draws independent of what else is in the batch. */
static mq_status draw_dialogue(runner *r, slot *s, bool *finished, mq_finish *finish, mq_error *error)
{
    char name[320];
    const char *bytes;
    size_t count;
    pick picked = {-1};
    mq_generate_result result;
    snprintf(name, sizeof name, "%s#%u#%u", r->d->task->id(r->d->state, s->item), s->turn, s->output);
    mq_eval_random seed = mq__eval_random(r->d->context->options->seed, name);
    mq_generate_options options = {
        .sampling = s->prompt.sampling, .max_tokens = 1, .keep_special = true, .token = take_token, .context = &picked};
    options.sampling.seed = mq__eval_random_u64(&seed);
    mq_status status = mq_generate(s->session, r->d->context->text, &options, &result, error);
    if (status != MQ_OK) return status;
    *finish = result.finish;
    *finished = result.finish == MQ_FINISH_EOS;
    if (*finished) return MQ_OK;
    s->output++;
    s->output_tokens++;
    status = mq_stream_push(s->stream, picked.token, &bytes, &count, error);
    if (status == MQ_OK && (s->text.len + count > ANSWER_BYTES_MAX || !mq__buf_append(&s->text, bytes, count))) {
        status = mq__fail(error, MQ_NO_MEMORY, "eval: answer: expected memory, got none");
    }
    if (status == MQ_OK && find_stop_dialogue(s)) {
        *finished = true;
        *finish = MQ_FINISH_STOP;
        return MQ_OK;
    }
    uint32_t held;
    (void)mq_sequence_tokens(s->session, &held);
    *finished = s->output >= s->prompt.max_tokens || held >= r->d->context->info.context;
    *finish = MQ_FINISH_LENGTH;
    s->has_token = !*finished;
    s->token = picked.token;
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
    s->turn = 0;
    s->input_tokens = s->output_tokens = 0;
    mq_sequence_truncate(s->session, 0); /* what an earlier item left must not be reused: it was made in another way */
    const mq_status status = r->d->task->begin(r->d->state, s->item, &s->episode, error);
    return status == MQ_OK ? turn(r, s, NULL, fits, error) : status;
}

/* Brings a slot to where it waits for a decode step, or to idleness when no item is left. */
static mq_status advance_dialogue(runner *r, slot *s, mq_error *error)
{
    mq_status status = MQ_OK;
    s->has_token = false;
    while (status == MQ_OK && !s->has_token) {
        bool fits = true, finished = false;
        mq_finish finish = MQ_FINISH_LENGTH;
        if (!s->episode) {
            if (r->next == r->d->count) return MQ_OK;
            status = begin_dialogue(r, s, &fits, error);
            finished = !fits;
        }
        if (status == MQ_OK && s->episode && fits) status = draw_dialogue(r, s, &finished, &finish, error);
        while (status == MQ_OK && s->episode && finished) {
            const char *bytes;
            size_t count;
            status = mq_stream_flush(s->stream, &bytes, &count, error);
            if (status == MQ_OK && finish != MQ_FINISH_STOP && count) (void)mq__buf_append(&s->text, bytes, count);
            mq__eval_make_text(s->text.data, s->text.len);
            const mq_eval_answer answer = {.text = s->text.len ? s->text.data : "",
                                           .bytes = s->text.len,
                                           .prompt_tokens = s->prompt_tokens,
                                           .output_tokens = s->output,
                                           .finish = finish};
            fits = true;
            if (status == MQ_OK) status = turn(r, s, &answer, &fits, error);
            finished = !fits;
            finish = MQ_FINISH_LENGTH;
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
            rows[count++] = (mq_rows){.sequence = r->slots[i].session,
                                      .tokens = &r->slots[i].token,
                                      .count = 1,
                                      .phase = MQ_PHASE_DECODE,
                                      .logits = 1};
        }
        if (count == 0) return MQ_OK;
        const mq_status status = mq_engine_step(r->d->context->engine, rows, count, error);
        if (status != MQ_OK) return status;
    }
}

mq_status mq__eval_dialogue_run(const mq_eval_dialogue *dialogue, mq_error *error)
{
    runner r = {.d = dialogue};
    mq_status status = MQ_OK;
    for (uint32_t i = 0; status == MQ_OK && i < dialogue->batch; i++) {
        status = mq_sequence_new(dialogue->context->engine, &r.slots[i].session, error);
    }
    if (status == MQ_OK) status = lockstep(&r, error);
    for (uint32_t i = 0; i < dialogue->batch; i++) {
        slot *s = &r.slots[i];
        if (s->episode) json_decref(dialogue->task->end(s->episode, false));
        clear_prompt(s);
        mq__buf_free(&s->text);
        mq_sequence_free(s->session);
    }
    return status;
}
