/* What a token brings: its log probability, and the parts of the answer that its text completes. */
#include "base/json_read.h"
#include "base/mem.h"
#include "server/answering_call.h"

#include <math.h>
#include <string.h>

#define LOGPROB_LEAST (-9999.0) /* stands for minus infinity, which JSON cannot say */

/* ---- parts */

static mq_answered_call *begin_call(mq_answered *a, const mq_part *part)
{
    mq_answered_call *calls = mq__realloc(a->calls, (a->call_count + 1) * sizeof *calls);
    if (!calls) return NULL;
    a->calls = calls;
    mq_answered_call *made = &calls[a->call_count];
    *made = (mq_answered_call){.name = mq__strndup(part->bytes, part->count)};
    if (!made->name) return NULL;
    memcpy(made->id, "call_", 5);
    mq__random_id(made->id + 5, 24);
    a->call_count++;
    return made;
}

/* False: no memory. */
static bool keep_part(mq_answered *a, const mq_part *part)
{
    mq_answered_call *last = a->call_count ? &a->calls[a->call_count - 1] : NULL;
    switch (part->kind) {
    case MQ_PART_REASONING:
        return mq__buf_append(&a->reasoning, part->bytes, part->count);
    case MQ_PART_TEXT:
        return mq__buf_append(&a->text, part->bytes, part->count);
    case MQ_PART_CALL:
        return begin_call(a, part) != NULL;
    case MQ_PART_ARGUMENTS:
        return !last || mq__buf_append(&last->arguments, part->bytes, part->count);
    case MQ_PART_CALL_END:
    default:
        if (last) last->complete = true;
        return true;
    }
}

static void take_part(void *context, const mq_part *part)
{
    mq_choice *choice = context;
    mq_call *call = choice->call;
    mq_answered *a = &choice->answered;
    if (call->over || call->broken) return;
    a->last = part->kind;
    if (part->kind == MQ_PART_REASONING && call->ask.hide_reasoning) return;
    if (!keep_part(a, part)) {
        call->broken = true;
        return;
    }
    if (call->ask.stream) call->api->part(call, choice->number, part);
}

/* ---- log probabilities */

static json_t *logprob_entry(mq_call *call, int32_t token, float logprob)
{
    char *text = NULL;
    size_t count = 0;
    mq_error error;
    if (mq_detokenize(mq__server_model(call->server)->text, &token, 1, false, &text, &count, &error) != MQ_OK)
        return NULL;
    json_t *bytes = json_array();
    for (size_t i = 0; i < count; i++) {
        (void)json_array_append_new(bytes, json_integer((unsigned char)text[i]));
    }
    json_t *entry = json_pack("{so sf so}", "token", mq__json_text(text, count), "logprob",
                              isfinite(logprob) ? (double)logprob : LOGPROB_LEAST, "bytes", bytes);
    mq_free(text);
    return entry;
}

static void keep_logprob(mq_choice *choice, const mq_event *event)
{
    mq_call *call = choice->call;
    mq_answered *a = &choice->answered;
    json_t *entry = logprob_entry(call, event->token, event->logprob), *top = json_array();
    for (size_t i = 0; i < event->top_count; i++) {
        (void)json_array_append_new(top, logprob_entry(call, event->top[i].token, event->top[i].logprob));
    }
    (void)json_object_set_new(entry, "top_logprobs", top);
    if (!a->logprobs) a->logprobs = json_array();
    if (json_array_append_new(a->logprobs, entry) != 0) call->broken = true;
}

/* ---- one answer */

bool mq__choice_open(mq_choice *choice, mq_fault *fault)
{
    mq_call *call = choice->call;
    const mq_ask *ask = &call->ask;
    mq_error error = {0};
    mq_buf tools = {0};
    mq_answer_options options = {.style = mq__server_model(call->server)->style,
                                 .split_reasoning = ask->messages && !ask->raw_reasoning,
                                 .in_reasoning = call->prompt.in_reasoning,
                                 .part = take_part,
                                 .context = choice};
    if (mq__call_has_tools(call)) {
        if (!mq__json_print(ask->callable ? ask->callable : ask->tools, JSON_COMPACT, &tools)) {
            mq__buf_free(&tools);
            return mq__fault_memory(fault);
        }
        options.tools = tools.data;
        options.tools_bytes = tools.len;
    } else {
        options.style.tools = MQ_TOOLS_NONE;
    }
    const mq_status status = mq_answer_new(&options, &choice->answer, &error);
    mq__buf_free(&tools);
    return status == MQ_OK || mq__fault_error(fault, status, &error);
}

void mq__choice_close(mq_choice *choice)
{
    mq_answered *a = &choice->answered;
    mq_answer_free(choice->answer);
    mq_constraint_free(choice->constraint);
    for (size_t i = 0; i < a->call_count; i++) {
        mq__free(a->calls[i].name);
        mq__buf_free(&a->calls[i].arguments);
    }
    mq__free(a->calls);
    mq__buf_free(&a->text);
    mq__buf_free(&a->reasoning);
    json_decref(a->logprobs);
}

static void push_text(mq_choice *choice, const mq_event *event)
{
    mq_error error;
    if (event->count && mq_answer_push(choice->answer, event->bytes, event->count, &error) != MQ_OK) {
        choice->call->broken = true;
    }
}

void mq__choice_token(mq_choice *choice, const mq_event *event)
{
    mq_call *call = choice->call;
    mq_answered *a = &choice->answered;
    if (call->first_token == 0) call->first_token = mq__seconds();
    if (call->ask.logprobs) keep_logprob(choice, event);
    /* Marks are no part of it: neither what opens it nor what closes it. */
    const bool inside = mq_answer_in_reasoning(choice->answer);
    push_text(choice, event);
    if (inside && mq_answer_in_reasoning(choice->answer)) a->reasoning_tokens++;
}

void mq__choice_finish(mq_choice *choice, const mq_event *event)
{
    mq_error error;
    push_text(choice, event);
    if (mq_answer_end(choice->answer, &error) != MQ_OK) choice->call->broken = true;
    choice->answered.ended = true;
}
