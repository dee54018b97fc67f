/* `bfcl`: function calls compared with the published answers; multi_turn with tools that answer neutrally. */
#include "base/error.h"
#include "base/mem.h"
#include "eval/bfcl.h"

#include <stdio.h>
#include <string.h>

#define MAX_TOKENS 4096 /* of an answer, as in the original; the paper names no other */
#define STEPS_MAX  20   /* answers in one turn, as in the original */
#define QUICK      34

typedef struct bfcl {
    const mq_eval_context *context;
    json_t *items;
    char hash[32];
    bool thinks;
} bfcl;

typedef struct episode {
    const bfcl *task;
    const json_t *item;
    mq_bfcl_language language;
    json_t *messages, *functions, *calls, *answers; /* calls: of this turn */
    size_t turn, turns, steps, right;
    bool answered; /* this turn: the last answer was one, neither cut in its thought nor without room in the context */
} episode;

static bool is_multi(const episode *e)
{
    return json_object_get(e->item, "missed") != NULL;
}

static void close_bfcl(void *task)
{
    bfcl *b = task;
    if (b) json_decref(b->items);
    mq__free(b);
}

static mq_status open_bfcl(const mq_eval_context *context, void **task, size_t *items, mq_error *error)
{
    const mq_eval_options *o = context->options;
    bfcl *b = mq__alloc_zero(1, sizeof *b);
    *task = b;
    if (!b) return mq__fail(error, MQ_NO_MEMORY, "eval: bfcl: expected memory, got none");
    b->context = context;
    b->thinks = mq__eval_opens_thought(context->text);
    if (!o->data)
        return mq__fail(error, MQ_USAGE, "eval: bfcl: data: expected the folder of BFCL v4 (--data), got none");
    const mq_status status = mq__bfcl_read(o->data, o->kinds, &b->items, error);
    if (status != MQ_OK) return status;
    char *text = json_dumps(b->items, JSON_COMPACT);
    if (!text) return mq__fail(error, MQ_NO_MEMORY, "eval: bfcl: expected memory, got none");
    snprintf(b->hash, sizeof b->hash, "%016llx", (unsigned long long)mq__eval_hash(0, text, strlen(text)));
    free(text);
    *items = json_array_size(b->items);
    if (o->quick && *items > QUICK) *items = QUICK;
    return MQ_OK;
}

static const char *bfcl_id(void *task, size_t item)
{
    return json_string_value(json_object_get(json_array_get(((const bfcl *)task)->items, item), "id"));
}

static int max_tokens_of_bfcl(const bfcl *b)
{
    return b->context->options->max_tokens ? (int)b->context->options->max_tokens : MAX_TOKENS;
}

static json_t *settings_bfcl(void *task)
{
    return json_pack("{sssi}", "data", ((const bfcl *)task)->hash, "max_tokens", max_tokens_of_bfcl(task));
}

static mq_status begin_bfcl(void *task, size_t index, void **out, mq_error *error)
{
    const bfcl *b = task;
    episode *e = mq__alloc_zero(1, sizeof *e);
    *out = e;
    if (!e) return mq__fail(error, MQ_NO_MEMORY, "eval: bfcl: expected memory, got none");
    e->task = b;
    e->item = json_array_get(b->items, index);
    e->language = mq__bfcl_language_of(json_string_value(json_object_get(e->item, "category")));
    e->turns = json_array_size(json_object_get(e->item, "question"));
    e->messages = json_array();
    e->answers = json_array();
    e->functions = json_copy(json_object_get(e->item, "function"));
    if (e->messages && e->answers && e->functions) return MQ_OK;
    return mq__fail(error, MQ_NO_MEMORY, "eval: bfcl: expected memory, got none");
}

/* The user's messages of a turn; where functions were kept back, they come with a turn that says so. */
static void begin_turn(episode *e)
{
    char turn[24];
    snprintf(turn, sizeof turn, "%zu", e->turn);
    json_t *missed = json_object_get(json_object_get(e->item, "missed"), turn);
    json_array_extend(e->messages, json_array_get(json_object_get(e->item, "question"), e->turn));
    if (missed) {
        json_array_extend(e->functions, missed);
        json_array_append_new(e->messages, json_pack("{ssss}", "role", "user", "content",
                                                     "There are more functions now. Can you do it with them?"));
    }
    json_decref(e->calls);
    e->calls = json_array();
    e->steps = 0;
}

/* The original runs Python code here, which is not data: every call is answered alike. */
static void answer_calls(episode *e, const json_t *calls)
{
    json_t *call, *shown = json_array();
    size_t i;
    json_array_foreach(calls, i, call)
    {
        json_array_append_new(shown, json_pack("{sssO}", "type", "function", "function", call));
    }
    json_array_append_new(e->messages, json_pack("{sssssO}", "role", "assistant", "content", "", "tool_calls", shown));
    for (i = 0; i < json_array_size(calls); i++) {
        json_array_append_new(e->messages, json_pack("{ssss}", "role", "tool", "content", "{\"result\": \"done\"}"));
    }
    json_decref(shown);
}

static bool turn_is_right(const episode *e)
{
    const json_t *truth = json_object_get(e->item, "ground_truth");
    const char *category = json_string_value(json_object_get(e->item, "category"));
    if (!e->answered && json_array_size(e->calls) == 0)
        return false; /* where no call is right, saying nothing is not */
    if (is_multi(e)) return mq__bfcl_same_calls(e->calls, e->functions, json_array_get(truth, e->turn));
    if (truth) return mq__bfcl_match(e->calls, e->functions, truth, e->language);
    const bool wants_call = strstr(category, "irrelevance") == NULL;
    return wants_call == (json_array_size(e->calls) > 0);
}

static void finish_turn_bfcl(episode *e)
{
    e->right += turn_is_right(e);
    e->turn++;
}

static void take_answer(episode *e, const mq_eval_answer *answer)
{
    char *text = mq__strndup(answer->text, answer->bytes);
    const bool no_room = answer->finish == MQ_FINISH_LENGTH && answer->output_tokens == 0;
    json_t *calls = mq__bfcl_answer_calls(mq__eval_after_thought(text ? text : "", e->task->thinks), e->functions);
    e->answered = !no_room && text && !mq__eval_is_cut_thought(text, e->task->thinks);
    json_array_append_new(e->answers, json_stringn(answer->text, answer->bytes));
    json_array_extend(e->calls, calls);
    if (is_multi(e) && json_array_size(calls) > 0 && ++e->steps < STEPS_MAX) {
        answer_calls(e, calls);
    } else {
        json_array_append_new(e->messages,
                              json_pack("{ssss%}", "role", "assistant", "content", answer->text, answer->bytes));
        finish_turn_bfcl(e);
        if (e->turn < e->turns) begin_turn(e);
    }
    json_decref(calls);
    mq__free(text);
}

static mq_status next_bfcl(void *context, const mq_eval_answer *answer, mq_eval_prompt *prompt, mq_error *error)
{
    episode *e = context;
    if (answer) {
        take_answer(e, answer);
    } else {
        begin_turn(e);
    }
    if (e->turn == e->turns) return MQ_OK;
    const mq_sampling *sampling = e->task->context->options->sampling;
    prompt->sampling = sampling ? *sampling : MQ_SAMPLING_GREEDY;
    prompt->max_tokens = (uint32_t)max_tokens_of_bfcl(e->task);
    prompt->request = json_pack("{sOso}", "messages", e->messages, "tools", mq__bfcl_tools(e->functions, e->language));
    return prompt->request ? MQ_OK : mq__fail(error, MQ_NO_MEMORY, "eval: bfcl: expected memory, got none");
}

static json_t *end_bfcl(void *context, bool want_record)
{
    episode *e = context;
    json_t *record = NULL;
    if (want_record) {
        record = json_pack("{sfsfsOsO}", "right", e->right == e->turns ? 1.0 : 0.0, "turn",
                           (double)e->right / (double)e->turns, "group", json_object_get(e->item, "category"),
                           "answers", e->answers);
    }
    json_decref(e->messages);
    json_decref(e->functions);
    json_decref(e->calls);
    json_decref(e->answers);
    mq__free(e);
    return record;
}

const mq_eval_task mq__eval_bfcl = {
    .name = "bfcl",
    .summary =
        "the Berkeley function calling leaderboard, version 4 (--data FOLDER): calls compared with the published ones",
    .metrics = {"right", "turn"},
    .binary = 1u << 0,
    .open = open_bfcl,
    .close = close_bfcl,
    .id = bfcl_id,
    .settings = settings_bfcl,
    .begin = begin_bfcl,
    .next = next_bfcl,
    .end = end_bfcl,
};
