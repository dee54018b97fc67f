/* POST /v1/chat/completions: OpenAI's, with what llama.cpp's and vLLM's clients send besides. */
#include "base/json_read.h"
#include "base/mem.h"
#include "server/answering.h"

#include <stdio.h>
#include <string.h>

#define ALIVE_EVERY 15.0 /* seconds of silence after which an empty chunk goes out */

/* ---- reading */

static bool read_token_limit(const json_t *body, mq_ask *ask, mq_fault *fault)
{
    static const char *const names[] = {"n_predict", "max_tokens",
                                        "max_completion_tokens"}; /* the last one given counts */
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        int64_t most = INT64_MAX;
        if (!mq__field_integer(body, names[i], -1, INT64_MAX, &most, fault)) return false;
        if (most == 0) return mq__fault(fault, names[i], "%s: expected 1 or more, or -1 for no bound, got 0", names[i]);
        if (most < 0 || most > UINT32_MAX) most = UINT32_MAX; /* what the context leaves is less */
        if (most != UINT32_MAX) ask->max_tokens = (uint32_t)most;
    }
    return true;
}

/* "none" switches reasoning off; how much else is meant only the template knows. */
static bool take_effort(mq_ask *ask, const char *effort, mq_fault *fault)
{
    if (strcmp(effort, "none") == 0) {
        ask->thinking = 0;
        return true;
    }
    if (strcmp(effort, "minimal") != 0) ask->thinking = 1;
    return mq__ask_kwarg(ask, "reasoning_effort", json_string(effort)) || mq__fault_memory(fault);
}

static bool read_reasoning(const json_t *body, mq_ask *ask, mq_fault *fault)
{
    const json_t *reasoning = json_object_get(body, "reasoning"), *thinking = json_object_get(body, "thinking");
    const json_t *kwarg = json_object_get(ask->template_kwargs, "enable_thinking");
    const char *effort, *format, *type = json_string_value(json_object_get(thinking, "type"));
    bool on = false, included = true, excluded = false;
    if (!mq__field_text(body, "reasoning_effort", 64, &effort, fault) ||
        !mq__field_text(body, "reasoning_format", 64, &format, fault) ||
        !mq__field_bool(body, "include_reasoning", &included, fault) ||
        !mq__field_bool(reasoning, "exclude", &excluded, fault)) {
        return false;
    }
    const char *inner = json_string_value(json_object_get(reasoning, "effort"));
    if (effort && !take_effort(ask, effort, fault)) return false;
    if (inner && !take_effort(ask, inner, fault)) return false;
    if (type) ask->thinking = strcmp(type, "disabled") == 0 ? 0 : 1;
    if (!mq__field_bool(reasoning, "enabled", &on, fault)) return false;
    if (json_is_boolean(json_object_get(reasoning, "enabled"))) ask->thinking = on;
    if (!mq__field_bool(body, "enable_thinking", &on, fault)) return false;
    if (json_is_boolean(json_object_get(body, "enable_thinking"))) ask->thinking = on;
    if (json_is_boolean(kwarg)) ask->thinking = json_is_true(kwarg);
    ask->hide_reasoning = excluded || !included;
    ask->raw_reasoning = format && strcmp(format, "none") == 0;
    return true;
}

static bool read_kwargs(const json_t *body, mq_ask *ask, mq_fault *fault)
{
    json_t *kwargs = json_object_get(body, "chat_template_kwargs");
    if (!kwargs || json_is_null(kwargs)) return true;
    if (!json_is_object(kwargs)) {
        return mq__fault(fault, "chat_template_kwargs", "chat_template_kwargs: expected an object, got another value");
    }
    ask->template_kwargs = json_copy(kwargs);
    return ask->template_kwargs || mq__fault_memory(fault);
}

static bool read_stream_fields(const json_t *body, mq_ask *ask, mq_fault *fault)
{
    const json_t *options = json_object_get(body, "stream_options");
    if (options && !json_is_null(options) && !json_is_object(options)) {
        return mq__fault(fault, "stream_options", "stream_options: expected an object, got another value");
    }
    return mq__field_bool(body, "stream", &ask->stream, fault) &&
           mq__field_bool(options, "include_usage", &ask->include_usage, fault) &&
           mq__field_bool(body, "return_progress", &ask->return_progress, fault);
}

/* Whether the answer goes on in the assistant's last message: if not said otherwise, yes, as with llama.cpp. */
static bool read_turn(const json_t *body, mq_ask *ask, mq_fault *fault)
{
    const json_t *last = json_array_get(ask->messages, json_array_size(ask->messages) - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    const bool can = role && strcmp(role, "assistant") == 0 && !json_object_get(last, "tool_calls");
    bool turn = !can, goes_on = can;
    if (!mq__field_bool(body, "add_generation_prompt", &turn, fault)) return false;
    if (json_is_boolean(json_object_get(body, "add_generation_prompt"))) goes_on = can && !turn;
    if (!mq__field_bool(body, "continue_final_message", &goes_on, fault)) return false;
    if (json_is_true(json_object_get(body, "continue_final_message")) && (!can || turn)) {
        return mq__fault(fault, "continue_final_message",
                         "continue_final_message: expected an assistant's last message and no generation prompt");
    }
    ask->continues = goes_on;
    ask->no_turn = !turn && !goes_on && json_is_false(json_object_get(body, "add_generation_prompt"));
    return true;
}

static bool read_counts(mq_server *server, const json_t *body, mq_ask *ask, mq_fault *fault)
{
    int64_t n = 1, top = 0;
    if (!mq__field_integer(body, "n", 1, mq__server_limits(server)->n, &n, fault) ||
        !mq__field_bool(body, "logprobs", &ask->logprobs, fault) ||
        !mq__field_integer(body, "top_logprobs", 0, 20, &top, fault)) {
        return false;
    }
    if (top && !ask->logprobs)
        return mq__fault(fault, "top_logprobs", "top_logprobs: expected logprobs to be true beside it");
    ask->n = (uint32_t)n;
    ask->top_logprobs = (uint32_t)top;
    return true;
}

/* What tools were before they were tools. */
static bool read_functions(mq_server *server, const json_t *body, mq_ask *ask, mq_fault *fault)
{
    const json_t *functions = json_object_get(body, "functions"), *choice = json_object_get(body, "function_call");
    for (size_t i = 0; i < json_array_size(functions); i++) {
        char param[64];
        snprintf(param, sizeof param, "functions[%zu]", i);
        if (!mq__ask_add_tool(server, ask, json_incref(json_array_get(functions, i)), param, fault)) return false;
    }
    ask->legacy = true;
    ask->parallel = false;
    if (!json_is_object(choice)) return mq__read_tool_choice(choice, ask, fault);
    return mq__ask_must_call(ask, json_string_value(json_object_get(choice, "name")), "function_call", fault);
}

static bool read_tool_fields(mq_server *server, const json_t *body, mq_ask *ask, mq_fault *fault)
{
    if (json_array_size(json_object_get(body, "functions")) && !json_array_size(json_object_get(body, "tools"))) {
        return read_functions(server, body, ask, fault);
    }
    return mq__read_tools(server, json_object_get(body, "tools"), ask, fault) &&
           mq__read_tool_choice(json_object_get(body, "tool_choice"), ask, fault) &&
           mq__field_bool(body, "parallel_tool_calls", &ask->parallel, fault);
}

static bool read_form(const json_t *body, mq_ask *ask, mq_fault *fault)
{
    const char *grammar = json_string_value(json_object_get(body, "grammar"));
    json_t *schema = json_object_get(body, "json_schema");
    if (grammar && grammar[0]) {
        return mq__fault(fault, "grammar", "grammar: expected response_format with a JSON schema, got a grammar");
    }
    if (!mq__read_format(json_object_get(body, "response_format"), "response_format", ask, fault)) return false;
    if (!ask->schema && json_is_object(schema)) ask->schema = json_incref(schema);
    return true;
}

static bool read_chat(mq_server *server, const mq_exchange *x, const json_t *body, mq_ask *ask, mq_fault *fault)
{
    (void)x;
    const bool read = mq__read_messages(server, json_object_get(body, "messages"), ask, fault) &&
                      mq__read_sampling(server, body, ask, fault) && read_token_limit(body, ask, fault) &&
                      mq__read_stops(server, json_object_get(body, "stop"), "stop", ask, fault) &&
                      mq__field_bool(body, "ignore_eos", &ask->ignore_eos, fault) &&
                      read_counts(server, body, ask, fault) && read_stream_fields(body, ask, fault) &&
                      read_tool_fields(server, body, ask, fault) && read_form(body, ask, fault) &&
                      read_kwargs(body, ask, fault) && read_reasoning(body, ask, fault) && read_turn(body, ask, fault);
    if (read) mq__ask_note_title(ask);
    return read;
}

/* ---- a stream */

typedef struct chat_state {
    size_t *told; /* [n] log probabilities that went out */
    uint32_t ended;
    uint32_t done, cached; /* of the prompt, as the latest progress said */
    double read_ms;
} chat_state;

static void free_chat_state(void *state)
{
    mq__free(((chat_state *)state)->told);
}

static json_t *chat_head(const mq_call *call, const char *object)
{
    char id[80] = "chatcmpl-";
    strncat(id, mq__call_id(call), sizeof id - 10);
    return json_pack("{ss ss sI ss ss}", "id", id, "object", object, "created", (json_int_t)mq__call_created(call),
                     "model", mq__server_model(mq__call_server(call))->name, "system_fingerprint", mq_version());
}

/* Log probabilities from `from` on; null where none were asked for or none are there. */
static json_t *logprobs_from(const mq_answered *a, size_t from)
{
    const size_t count = json_array_size(a->logprobs);
    if (count <= from) return json_null();
    json_t *list = json_array();
    for (size_t i = from; i < count; i++) {
        (void)json_array_append(list, json_array_get(a->logprobs, i));
    }
    return json_pack("{so sn}", "content", list, "refusal");
}

/* A chunk with one choice. finish: NULL, or why it ended. */
static json_t *chat_chunk(mq_call *call, uint32_t choice, json_t *delta, const char *finish)
{
    chat_state *state = mq__call_state(call);
    const mq_answered *a = mq__call_answered(call, choice);
    json_t *chunk = chat_head(call, "chat.completion.chunk");
    json_t *entry = json_pack("{sI so}", "index", (json_int_t)choice, "delta", delta);
    if (mq__call_ask(call)->logprobs) {
        (void)json_object_set_new(entry, "logprobs", logprobs_from(a, state->told[choice]));
        state->told[choice] = json_array_size(a->logprobs);
    }
    (void)json_object_set_new(entry, "finish_reason", finish ? json_string(finish) : json_null());
    (void)json_object_set_new(chunk, "choices", json_pack("[o]", entry));
    if (mq__call_ask(call)->include_usage) (void)json_object_set_new(chunk, "usage", json_null());
    return chunk;
}

static void begin_chat(mq_call *call)
{
    chat_state *state = mq__call_state(call);
    const uint32_t n = mq__call_ask(call)->n;
    state->told = mq__alloc_zero(n, sizeof *state->told);
    if (!state->told) {
        mq__call_send(call, NULL, NULL);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        mq__call_send(call, NULL, chat_chunk(call, i, json_pack("{ssss}", "role", "assistant", "content", ""), NULL));
    }
}

static void send_chat_progress(mq_call *call)
{
    const chat_state *state = mq__call_state(call);
    json_t *chunk = chat_chunk(call, 0, json_object(), NULL);
    if (mq__call_ask(call)->return_progress) {
        json_t *progress =
            json_pack("{sI sI sI sf}", "total", (json_int_t)mq__call_prompt_tokens(call), "cache",
                      (json_int_t)state->cached, "processed", (json_int_t)state->done, "time_ms", state->read_ms);
        (void)json_object_set_new(chunk, "prompt_progress", progress);
    }
    mq__call_send(call, NULL, chunk);
}

static void progress_chat(mq_call *call, const mq_report *report)
{
    chat_state *state = mq__call_state(call);
    state->done = report->prompt_done;
    state->cached = report->cached;
    state->read_ms = 1e3 * report->prefill_s;
    if (mq__call_ask(call)->return_progress) send_chat_progress(call);
}

static void alive_chat(mq_call *call, double idle)
{
    if (idle >= ALIVE_EVERY) send_chat_progress(call);
}

/* The old form has one call, without an id. */
static json_t *legacy_delta(const mq_answered *a, const mq_part *part)
{
    if (part->kind == MQ_PART_ARGUMENTS) {
        return json_pack("{s{so}}", "function_call", "arguments", mq__json_text(part->bytes, part->count));
    }
    const char *name = a->calls[a->call_count - 1].name;
    return json_pack("{s{so ss}}", "function_call", "name", mq__json_text(name, strlen(name)), "arguments", "");
}

static json_t *call_delta(const mq_answered *a, const mq_part *part)
{
    json_t *call;
    if (part->kind == MQ_PART_CALL) {
        const mq_answered_call *c = &a->calls[a->call_count - 1];
        json_t *function = json_pack("{so ss}", "name", mq__json_text(c->name, strlen(c->name)), "arguments", "");
        call = json_pack("{sI ss ss so}", "index", (json_int_t)part->call, "id", c->id, "type", "function", "function",
                         function);
    } else {
        call = json_pack("{sI s{so}}", "index", (json_int_t)part->call, "function", "arguments",
                         mq__json_text(part->bytes, part->count));
    }
    return json_pack("{s[o]}", "tool_calls", call);
}

static void part_chat(mq_call *call, uint32_t choice, const mq_part *part)
{
    json_t *delta;
    if (part->kind == MQ_PART_CALL_END) return;
    if (part->kind == MQ_PART_TEXT) {
        delta = json_pack("{so}", "content", mq__json_text(part->bytes, part->count));
    } else if (part->kind == MQ_PART_REASONING) {
        delta = json_pack("{so}", "reasoning_content", mq__json_text(part->bytes, part->count));
    } else if (mq__call_ask(call)->legacy) {
        if (part->call > 0) return;
        delta = legacy_delta(mq__call_answered(call, choice), part);
    } else {
        delta = call_delta(mq__call_answered(call, choice), part);
    }
    mq__call_send(call, NULL, chat_chunk(call, choice, delta, NULL));
}

static void put_measures(mq_call *call, json_t *object)
{
    (void)json_object_set_new(object, "timings", mq__call_timings(call));
    (void)json_object_set_new(object, "plan", mq__call_plan(call));
}

static const char *chat_finish(const mq_call *call, uint32_t choice)
{
    const char *finish = mq__finish_name(mq__call_answered(call, choice));
    return mq__call_ask(call)->legacy && strcmp(finish, "tool_calls") == 0 ? "function_call" : finish;
}

static void ended_chat(mq_call *call, uint32_t choice)
{
    chat_state *state = mq__call_state(call);
    json_t *chunk = chat_chunk(call, choice, json_object(), chat_finish(call, choice));
    const mq_ask *ask = mq__call_ask(call);
    if (++state->ended == ask->n && !ask->include_usage) put_measures(call, chunk);
    mq__call_send(call, NULL, chunk);
}

static void end_chat(mq_call *call)
{
    if (mq__call_ask(call)->include_usage) {
        json_t *chunk = chat_head(call, "chat.completion.chunk");
        (void)json_object_set_new(chunk, "choices", json_array());
        (void)json_object_set_new(chunk, "usage", mq__call_usage(call));
        put_measures(call, chunk);
        mq__call_send(call, NULL, chunk);
    }
    mq__call_send_text(call, NULL, "[DONE]");
}

static void fail_chat(mq_call *call, const mq_fault *fault)
{
    mq__call_send(call, NULL, mq__error_json(fault));
    mq__call_send_text(call, NULL, "[DONE]");
}

/* ---- a whole answer */

static json_t *chat_function(const mq_answered_call *c)
{
    return json_pack("{so so}", "name", mq__json_text(c->name, strlen(c->name)), "arguments",
                     mq__json_text(c->arguments.data, c->arguments.len));
}

static json_t *chat_message(const mq_call *call, const mq_answered *a)
{
    const bool silent = a->call_count && a->text.len == 0;
    json_t *message = json_pack("{ss so sn}", "role", "assistant", "content",
                                silent ? json_null() : mq__json_text(a->text.data, a->text.len), "refusal");
    if (a->reasoning.len) {
        (void)json_object_set_new(message, "reasoning_content", mq__json_text(a->reasoning.data, a->reasoning.len));
    }
    if (a->call_count == 0) return message;
    if (mq__call_ask(call)->legacy) {
        (void)json_object_set_new(message, "function_call", chat_function(&a->calls[0]));
        return message;
    }
    json_t *calls = json_array();
    for (size_t i = 0; i < a->call_count; i++) {
        const mq_answered_call *c = &a->calls[i];
        (void)json_array_append_new(
            calls, json_pack("{ss ss so}", "id", c->id, "type", "function", "function", chat_function(c)));
    }
    (void)json_object_set_new(message, "tool_calls", calls);
    return message;
}

static json_t *whole_chat(mq_call *call)
{
    json_t *answer = chat_head(call, "chat.completion"), *choices = json_array();
    for (uint32_t i = 0; i < mq__call_ask(call)->n; i++) {
        const mq_answered *a = mq__call_answered(call, i);
        json_t *entry = json_pack("{sI so so ss}", "index", (json_int_t)i, "message", chat_message(call, a), "logprobs",
                                  logprobs_from(a, 0), "finish_reason", chat_finish(call, i));
        (void)json_array_append_new(choices, entry);
    }
    (void)json_object_set_new(answer, "choices", choices);
    (void)json_object_set_new(answer, "usage", mq__call_usage(call));
    put_measures(call, answer);
    return answer;
}

const mq_api mq__chat_api = {.name = "chat",
                             .read = read_chat,
                             .state_bytes = sizeof(chat_state),
                             .free_state = free_chat_state,
                             .begin = begin_chat,
                             .progress = progress_chat,
                             .part = part_chat,
                             .alive = alive_chat,
                             .ended = ended_chat,
                             .end = end_chat,
                             .fail = fail_chat,
                             .whole = whole_chat};

void mq__api_chat(mq_server *server, mq_exchange *x)
{
    mq__answer(server, x, &mq__chat_api);
}
