/* POST /v1/completions: raw text goes on. */
#include "base/json_read.h"
#include "base/mem.h"
#include "server/answering.h"

#include <string.h>

#define SILENCE 15.0 /* seconds after which an empty chunk goes out */

typedef struct completion_extra {
    bool echo;  /* the prompt comes back */
    bool warms; /* no token was asked for: the prompt is read into the cache */
} completion_extra;

/* ---- reading */

static bool read_prompt_text(const json_t *prompt, mq_ask *ask, mq_fault *fault)
{
    const size_t bytes = json_string_length(prompt);
    ask->prompt = mq__strndup(json_string_value(prompt), bytes);
    ask->prompt_bytes = bytes;
    return ask->prompt || mq__fault_memory(fault);
}

static bool read_prompt_ids(mq_server *server, const json_t *prompt, mq_ask *ask, mq_fault *fault)
{
    const uint32_t vocab = mq__server_model(server)->info.vocab;
    const size_t count = json_array_size(prompt);
    ask->prompt_tokens = mq__alloc((count + 1) * sizeof *ask->prompt_tokens);
    if (!ask->prompt_tokens) return mq__fault_memory(fault);
    for (size_t i = 0; i < count; i++) {
        const json_t *id = json_array_get(prompt, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= vocab) {
            return mq__fault(fault, "prompt", "prompt[%zu]: expected a token id below %u, got another value", i, vocab);
        }
        ask->prompt_tokens[i] = (int32_t)json_integer_value(id);
    }
    ask->prompt_token_count = (uint32_t)count;
    return true;
}

/* A text, a list of one text, ids, or a list of one list of ids. */
static bool read_raw_prompt(mq_server *server, const json_t *prompt, mq_ask *ask, mq_fault *fault)
{
    const json_t *first = json_array_get(prompt, 0);
    if ((json_is_string(first) || json_is_array(first)) && json_array_size(prompt) == 1) prompt = first;
    if (json_is_string(prompt)) return read_prompt_text(prompt, ask, fault);
    if (json_is_array(prompt) && json_is_integer(json_array_get(prompt, 0))) {
        return read_prompt_ids(server, prompt, ask, fault);
    }
    return mq__fault(fault, "prompt", "prompt: expected one text or one list of token ids, got %s",
                     json_array_size(prompt) > 1 ? "several"
                     : prompt                    ? "another value"
                                                 : "nothing");
}

static bool read_limit_completions(const json_t *body, mq_ask *ask, mq_fault *fault)
{
    static const char *const names[] = {"n_predict", "max_tokens"};
    completion_extra *extra = ask->extra;
    bool given = false;
    for (size_t i = 0; i < 2; i++) {
        const json_t *value = json_object_get(body, names[i]);
        int64_t most = 0;
        if (!value || json_is_null(value)) continue;
        if (!mq__field_integer(body, names[i], -1, INT64_MAX, &most, fault)) return false;
        given = true;
        extra->warms = most == 0;
        ask->max_tokens = most < 0 || most > UINT32_MAX ? UINT32_MAX : most == 0 ? 1 : (uint32_t)most;
    }
    if (!given) ask->max_tokens = 16; /* OpenAI's default */
    return true;
}

static bool read_completions(mq_server *server, const mq_exchange *x, const json_t *body, mq_ask *ask, mq_fault *fault)
{
    const json_t *options = json_object_get(body, "stream_options"), *suffix = json_object_get(body, "suffix");
    completion_extra *extra = mq__alloc_zero(1, sizeof *extra);
    int64_t n = 1, top = -1;
    (void)x;
    ask->extra = extra;
    if (!extra) return mq__fault_memory(fault);
    if (json_string_length(suffix))
        return mq__fault(fault, "suffix", "suffix: expected none, got a text: not supported");
    if (!read_raw_prompt(server, json_object_get(body, "prompt"), ask, fault) ||
        !mq__read_sampling(server, body, ask, fault) || !read_limit_completions(body, ask, fault) ||
        !mq__read_stops(server, json_object_get(body, "stop"), "stop", ask, fault) ||
        !mq__field_bool(body, "ignore_eos", &ask->ignore_eos, fault) ||
        !mq__field_bool(body, "echo", &extra->echo, fault) ||
        !mq__field_integer(body, "n", 1, mq__server_limits(server)->n, &n, fault) ||
        !mq__field_integer(body, "logprobs", 0, 20, &top, fault) ||
        !mq__field_bool(body, "stream", &ask->stream, fault) ||
        !mq__field_bool(options, "include_usage", &ask->include_usage, fault)) {
        return false;
    }
    if (extra->echo && top >= 0) { /* a harness would take the answer's for the prompt's */
        return mq__fault(fault, "echo",
                         "echo: expected false beside logprobs, got true: the prompt's own are not kept");
    }
    ask->n = (uint32_t)n;
    ask->logprobs = top >= 0;
    ask->top_logprobs = top > 0 ? (uint32_t)top : 0;
    return true;
}

/* ---- writing */

typedef struct completion_state {
    size_t *told;   /* [n] log probabilities that went out */
    size_t *offset; /* [n] characters of text that their tokens have */
    uint32_t ended;
} completion_state;

static void free_completion_state(void *pointer)
{
    completion_state *state = pointer;
    mq__free(state->told);
    mq__free(state->offset);
}

static bool fill_completion_state(mq_call *call)
{
    completion_state *state = mq__call_state(call);
    const uint32_t n = mq__call_ask(call)->n;
    state->told = mq__alloc_zero(n, sizeof *state->told);
    state->offset = mq__alloc_zero(n, sizeof *state->offset);
    return state->told && state->offset;
}

static const completion_extra *completion_extra_of(const mq_call *call)
{
    return mq__call_ask(call)->extra;
}

/* The prompt as text, where it is to come back; NULL: not. */
static json_t *echoed(const mq_call *call)
{
    const mq_ask *ask = mq__call_ask(call);
    if (!completion_extra_of(call)->echo) return NULL;
    if (ask->prompt) return mq__json_text(ask->prompt, ask->prompt_bytes);
    char *text = NULL;
    size_t bytes = 0;
    if (mq_detokenize(mq__server_model(mq__call_server(call))->text, ask->prompt_tokens, ask->prompt_token_count, false,
                      &text, &bytes, NULL) != MQ_OK) {
        return json_string("");
    }
    json_t *value = mq__json_text(text, bytes);
    mq_free(text);
    return value;
}

static size_t characters(const json_t *text)
{
    const char *bytes = json_string_value(text);
    size_t count = 0;
    for (size_t i = 0; i < json_string_length(text); i++) {
        count += ((unsigned char)bytes[i] & 0xC0) != 0x80;
    }
    return count;
}

/* A NUL cannot be in a name. */
static void put_top(json_t *top, const json_t *token, json_t *logprob)
{
    const char *text = json_string_value(token);
    (void)json_object_setn(top, text, strlen(text), logprob);
}

/* The old form: four lists side by side. */
static json_t *old_logprobs(mq_call *call, uint32_t choice)
{
    completion_state *state = mq__call_state(call);
    const json_t *all = mq__call_answered(call, choice)->logprobs;
    const size_t count = completion_extra_of(call)->warms ? 0 : json_array_size(all);
    if (!mq__call_ask(call)->logprobs) return json_null();
    json_t *tokens = json_array(), *values = json_array(), *tops = json_array(), *offsets = json_array();
    for (size_t i = state->told[choice]; i < count; i++) {
        const json_t *entry = json_array_get(all, i), *list = json_object_get(entry, "top_logprobs");
        json_t *top = json_object();
        for (size_t k = 0; k < json_array_size(list); k++) {
            const json_t *one = json_array_get(list, k), *token = json_object_get(one, "token");
            if (token) put_top(top, token, json_object_get(one, "logprob"));
        }
        (void)json_array_append(tokens, json_object_get(entry, "token"));
        (void)json_array_append(values, json_object_get(entry, "logprob"));
        (void)json_array_append_new(tops, top);
        (void)json_array_append_new(offsets, json_integer((json_int_t)state->offset[choice]));
        state->offset[choice] += characters(json_object_get(entry, "token"));
    }
    state->told[choice] = count;
    return json_pack("{so so so so}", "tokens", tokens, "token_logprobs", values, "top_logprobs", tops, "text_offset",
                     offsets);
}

static json_t *completion_head(const mq_call *call)
{
    char id[80] = "cmpl-";
    strncat(id, mq__call_id(call), sizeof id - 6);
    return json_pack("{ss ss sI ss ss}", "id", id, "object", "text_completion", "created",
                     (json_int_t)mq__call_created(call), "model", mq__server_model(mq__call_server(call))->name,
                     "system_fingerprint", mq_version());
}

static json_t *completion_usage(const mq_call *call)
{
    json_t *usage = mq__call_usage(call);
    if (!completion_extra_of(call)->warms) return usage;
    (void)json_object_set_new(usage, "completion_tokens", json_integer(0));
    (void)json_object_set(usage, "total_tokens", json_object_get(usage, "prompt_tokens"));
    return usage;
}

static const char *completion_finish(const mq_call *call, uint32_t choice)
{
    return completion_extra_of(call)->warms ? "length" : mq__finish_name(mq__call_answered(call, choice));
}

static json_t *completion_choice(mq_call *call, uint32_t choice, json_t *text, const char *finish)
{
    return json_pack("{sI so so so}", "index", (json_int_t)choice, "text", text, "logprobs", old_logprobs(call, choice),
                     "finish_reason", finish ? json_string(finish) : json_null());
}

static json_t *completion_chunk(mq_call *call, uint32_t choice, json_t *text, const char *finish)
{
    json_t *chunk = completion_head(call);
    (void)json_object_set_new(chunk, "choices", json_pack("[o]", completion_choice(call, choice, text, finish)));
    if (mq__call_ask(call)->include_usage) (void)json_object_set_new(chunk, "usage", json_null());
    return chunk;
}

static void begin_completion(mq_call *call)
{
    if (!fill_completion_state(call)) {
        mq__call_send(call, NULL, NULL);
        return;
    }
    for (uint32_t i = 0; i < mq__call_ask(call)->n; i++) {
        json_t *prompt = echoed(call);
        mq__call_send(call, NULL, completion_chunk(call, i, prompt ? prompt : json_string(""), NULL));
    }
}

static void alive_completion(mq_call *call, double idle)
{
    if (idle >= SILENCE) mq__call_send(call, NULL, completion_chunk(call, 0, json_string(""), NULL));
}

static void part_completion(mq_call *call, uint32_t choice, const mq_part *part)
{
    if (part->kind != MQ_PART_TEXT || completion_extra_of(call)->warms) return;
    mq__call_send(call, NULL, completion_chunk(call, choice, mq__json_text(part->bytes, part->count), NULL));
}

static void put_completion_measures(mq_call *call, json_t *object)
{
    (void)json_object_set_new(object, "timings", mq__call_timings(call));
    (void)json_object_set_new(object, "plan", mq__call_plan(call));
}

static void ended_completion(mq_call *call, uint32_t choice)
{
    completion_state *state = mq__call_state(call);
    const mq_ask *ask = mq__call_ask(call);
    json_t *chunk = completion_chunk(call, choice, json_string(""), completion_finish(call, choice));
    if (++state->ended == ask->n && !ask->include_usage) put_completion_measures(call, chunk);
    mq__call_send(call, NULL, chunk);
}

static void end_completion(mq_call *call)
{
    if (mq__call_ask(call)->include_usage) {
        json_t *chunk = completion_head(call);
        (void)json_object_set_new(chunk, "choices", json_array());
        (void)json_object_set_new(chunk, "usage", completion_usage(call));
        put_completion_measures(call, chunk);
        mq__call_send(call, NULL, chunk);
    }
    mq__call_send_text(call, NULL, "[DONE]");
}

static void fail_completion(mq_call *call, const mq_fault *fault)
{
    mq__call_send(call, NULL, mq__error_json(fault));
    mq__call_send_text(call, NULL, "[DONE]");
}

/* The prompt, if it comes back, and the answer. */
static json_t *completion_text(mq_call *call, uint32_t choice)
{
    const mq_answered *a = mq__call_answered(call, choice);
    json_t *prompt = echoed(call);
    const size_t written = completion_extra_of(call)->warms ? 0 : a->text.len;
    mq_buf text = {0};
    if (!prompt) return mq__json_text(a->text.data, written);
    (void)mq__buf_append(&text, json_string_value(prompt), json_string_length(prompt));
    (void)mq__buf_append(&text, a->text.data, written);
    json_decref(prompt);
    json_t *value = text.failed ? NULL : mq__json_text(text.data, text.len);
    mq__buf_free(&text);
    return value;
}

static json_t *whole_completion(mq_call *call)
{
    if (!fill_completion_state(call)) return NULL;
    json_t *answer = completion_head(call), *choices = json_array();
    for (uint32_t i = 0; i < mq__call_ask(call)->n; i++) {
        json_t *text = completion_text(call, i);
        const char *finish = completion_finish(call, i);
        (void)json_array_append_new(choices, completion_choice(call, i, text, finish));
    }
    (void)json_object_set_new(answer, "choices", choices);
    (void)json_object_set_new(answer, "usage", completion_usage(call));
    put_completion_measures(call, answer);
    return answer;
}

const mq_api mq__completions_api = {.name = "completions",
                                    .read = read_completions,
                                    .free_extra = mq__free,
                                    .state_bytes = sizeof(completion_state),
                                    .free_state = free_completion_state,
                                    .begin = begin_completion,
                                    .part = part_completion,
                                    .alive = alive_completion,
                                    .ended = ended_completion,
                                    .end = end_completion,
                                    .fail = fail_completion,
                                    .whole = whole_completion};

void mq__api_completions(mq_server *server, mq_exchange *x)
{
    mq__answer(server, x, &mq__completions_api);
}
