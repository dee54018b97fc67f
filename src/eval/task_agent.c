/* `agent`: multi-turn episodes of the bundled world. Tools are really executed over the episode's tables, so a wrong call
 * brings the model a wrong result, and an error of an early turn meets the later ones. */
#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"
#include "eval/eval.h"
#include "eval/scene.h"

#include <stdio.h>
#include <string.h>

#define CALLS_MAX  4 /* tool calls in one turn */
#define QUICK      24
#define MAX_TOKENS 192

typedef struct agent {
    json_t *scenes; /* array of scenes, each with an "id" */
    char *path;
    char hash[32]; /* of the scenes */
    bool thinks;
    const mq_eval_context *context;
} agent;

/* Where the first wrong turn of an episode goes wrong first. */
typedef enum part { PART_NONE, PART_TOOL, PART_ARGUMENT, PART_QUOTE, PART_STATEMENT, PARTS } part;
static const char *const part_names[PARTS] = {"none", "tool", "argument", "quote", "statement"};

typedef struct episode {
    const agent *task;
    const json_t *scene;
    json_t *messages, *tools, *turns; /* turns: what the record shows */
    size_t turn;
    int calls;       /* of this turn */
    part call_wrong; /* so far: whether it is the expected call and no other */
    part first_wrong;
    size_t first_wrong_turn;
    json_t *last_call;
    size_t calls_right, answers_right, turns_right;
} episode;

static void close_agent(void *task)
{
    agent *a = task;
    if (!a) return;
    json_decref(a->scenes);
    mq__free(a->path);
    mq__free(a);
}

static mq_status check_scenes(json_t *scenes, const char *path, mq_error *error)
{
    json_t *scene, *seen = json_object();
    size_t i;
    mq_status status = MQ_OK;
    json_array_foreach(scenes, i, scene)
    {
        char name[32];
        snprintf(name, sizeof name, "scene-%zu", i);
        if (!json_is_string(json_object_get(scene, "id"))) json_object_set_new(scene, "id", json_string(name));
        const char *id = json_string_value(json_object_get(scene, "id"));
        if (status == MQ_OK) status = mq__scene_check(scene, id ? id : name, error);
        if (status == MQ_OK && json_array_size(json_object_get(scene, "turns")) == 0) {
            status = mq__fail(error, MQ_FORMAT, "eval: %s: %s: expected a scene with turns, got none", path, id);
        }
        if (status == MQ_OK && json_object_get(seen, id)) {
            status = mq__fail(error, MQ_FORMAT, "eval: %s: expected scenes with different ids, got %s twice", path, id);
        }
        if (status == MQ_OK) json_object_set_new(seen, id, json_true());
    }
    json_decref(seen);
    return status;
}

static mq_status open_agent(const mq_eval_context *context, void **task, size_t *items, mq_error *error)
{
    const mq_eval_options *o = context->options;
    agent *a = mq__alloc_zero(1, sizeof *a);
    *task = a;
    if (a) a->path = o->data ? mq__strdup(o->data) : mq__path_join(o->model_dir, "episodes.jsonl");
    if (!a || !a->path) return mq__fail(error, MQ_NO_MEMORY, "eval: agent: expected memory, got none");
    a->context = context;
    a->thinks = mq__eval_opens_thought(context->text);
    mq_status status = mq__eval_read_lines(a->path, false, &a->scenes, error);
    if (status == MQ_OK) status = check_scenes(a->scenes, a->path, error);
    char *text = status == MQ_OK ? json_dumps(a->scenes, JSON_COMPACT) : NULL;
    if (status == MQ_OK && !text) status = mq__fail(error, MQ_NO_MEMORY, "eval: agent: expected memory, got none");
    if (text) snprintf(a->hash, sizeof a->hash, "%016llx", (unsigned long long)mq__eval_hash(0, text, strlen(text)));
    free(text);
    *items = json_array_size(a->scenes);
    if (o->quick && *items > QUICK) *items = QUICK;
    return status;
}

static const char *agent_id(void *task, size_t item)
{
    const agent *a = task;
    return json_string_value(json_object_get(json_array_get(a->scenes, item), "id"));
}

static uint32_t max_tokens_of_agent(const agent *a)
{
    return a->context->options->max_tokens ? a->context->options->max_tokens : MAX_TOKENS;
}

static json_t *settings_agent(void *task)
{
    return json_pack("{sssi}", "data", ((const agent *)task)->hash, "max_tokens", (int)max_tokens_of_agent(task));
}

static mq_status begin_agent(void *task, size_t item, void **out, mq_error *error)
{
    const agent *a = task;
    episode *e = mq__alloc_zero(1, sizeof *e);
    *out = e;
    if (!e) return mq__fail(error, MQ_NO_MEMORY, "eval: agent: expected memory, got none");
    e->task = a;
    e->scene = json_array_get(a->scenes, item);
    e->messages = json_pack("[{sssO}]", "role", "system", "content", json_object_get(e->scene, "system"));
    e->tools = mq__scene_tools(e->scene);
    e->turns = json_array();
    if (e->messages && e->tools && e->turns) return MQ_OK;
    return mq__fail(error, MQ_NO_MEMORY, "eval: agent: expected memory, got none");
}

static const json_t *turn_of(const episode *e)
{
    return json_array_get(json_object_get(e->scene, "turns"), e->turn);
}

/* What is wrong with a turn's first call. */
static part check_call(const json_t *turn, const json_t *call)
{
    const char *name = json_string_value(json_object_get(turn, "call"));
    const json_t *arguments = json_object_get(turn, "arguments");
    if (!name || strcmp(name, json_string_value(json_object_get(call, "name"))) != 0) return PART_TOOL;
    const bool equal = !json_is_object(arguments) || json_equal(arguments, json_object_get(call, "arguments"));
    return equal ? PART_NONE : PART_ARGUMENT;
}

/* The model's call is run, and both become part of the conversation. */
static void run_call(episode *e, json_t *call)
{
    const char *name = json_string_value(json_object_get(call, "name"));
    char *result = mq__scene_call(e->scene, name, json_object_get(call, "arguments"));
    const part wrong = e->calls == 0 ? check_call(turn_of(e), call) : PART_TOOL;
    if (e->call_wrong == PART_NONE) e->call_wrong = wrong;
    e->calls++;
    json_array_append_new(e->messages, json_pack("{sssss[{sss{sssO}}]}", "role", "assistant", "content", "",
                                                 "tool_calls", "type", "function", "function", "name", name,
                                                 "arguments", json_object_get(call, "arguments")));
    json_array_append_new(e->messages, json_pack("{ssss}", "role", "tool", "content", result ? result : ""));
    mq__free(result);
    json_decref(e->last_call);
    e->last_call = call;
}

/* tools/train/README.md: an answer is right when its last line contains the expected statement. */
static bool is_right_agent(const json_t *turn, const char *text)
{
    const char *expect = json_string_value(json_object_get(turn, "expect")), *last = strrchr(text, '\n');
    return !expect || strstr(last ? last + 1 : text, expect) != NULL;
}

/* Of a wrong answer: whether the lines before the last one, the key and the row that it rests on, are wrong already. */
static part check_lines(const json_t *turn, const char *text)
{
    const char *right = json_string_value(json_object_get(turn, "answer"));
    const char *end = right ? strrchr(right, '\n') : NULL;
    return end && strncmp(right, text, (size_t)(end + 1 - right)) != 0 ? PART_QUOTE : PART_STATEMENT;
}

/* text: of the answer, what follows the thoughts. One that ends in its thought is none, also where nothing is expected. */
static void finish_turn_agent(episode *e, const mq_eval_answer *answer, const char *text)
{
    const bool wants_call = json_is_string(json_object_get(turn_of(e), "call"));
    const bool answered = !mq__eval_is_cut_thought(answer->text, e->task->thinks);
    const bool call = wants_call ? e->calls > 0 && e->call_wrong == PART_NONE : answered && e->calls == 0;
    const bool right = answered && is_right_agent(turn_of(e), text);
    if (e->first_wrong == PART_NONE && !(call && right)) {
        e->first_wrong = e->call_wrong ? e->call_wrong : call ? check_lines(turn_of(e), text) : PART_TOOL;
        e->first_wrong_turn = e->turn + 1;
    }
    e->calls_right += call;
    e->answers_right += right;
    e->turns_right += call && right;
    json_array_append_new(e->turns, json_pack("{sOss%sisbsb}", "call", e->last_call ? e->last_call : json_null(),
                                              "answer", answer->text, answer->bytes, "calls", e->calls, "call_right",
                                              (int)call, "right", (int)(call && right)));
    json_array_append_new(e->messages,
                          json_pack("{ssss%}", "role", "assistant", "content", answer->text, answer->bytes));
    json_decref(e->last_call);
    e->last_call = NULL;
    e->calls = 0;
    e->call_wrong = PART_NONE;
    e->turn++;
}

static mq_status next_agent(void *context, const mq_eval_answer *answer, mq_eval_prompt *prompt, mq_error *error)
{
    episode *e = context;
    const char *text = answer ? mq__eval_after_thought(answer->text, e->task->thinks) : NULL;
    json_t *call = answer && e->calls < CALLS_MAX ? mq__scene_parse_call(text) : NULL;
    if (call) run_call(e, call);
    if (answer && !call) finish_turn_agent(e, answer, text);
    if (!call) {
        const json_t *turn = turn_of(e);
        if (!turn) return MQ_OK;
        json_array_append_new(e->messages,
                              json_pack("{sssO}", "role", "user", "content", json_object_get(turn, "user")));
    }
    const mq_sampling *sampling = e->task->context->options->sampling;
    prompt->sampling = sampling ? *sampling : MQ_SAMPLING_GREEDY;
    prompt->max_tokens = max_tokens_of_agent(e->task);
    prompt->request = json_pack("{sOsO}", "messages", e->messages, "tools", e->tools);
    return prompt->request ? MQ_OK : mq__fail(error, MQ_NO_MEMORY, "eval: agent: expected memory, got none");
}

static json_t *end_agent(void *context, bool want_record)
{
    episode *e = context;
    const double turns = (double)json_array_size(json_object_get(e->scene, "turns"));
    json_t *record = NULL;
    if (want_record) {
        record = json_pack("{sfsfsfsfsO}", "episode", e->turns_right == (size_t)turns ? 1.0 : 0.0, "turn",
                           (double)e->turns_right / turns, "call", (double)e->calls_right / turns, "answer",
                           (double)e->answers_right / turns, "turns", e->turns);
        json_object_set_new(record, "first_wrong",
                            json_pack("{sssi}", "part", part_names[e->first_wrong], "turn", (int)e->first_wrong_turn));
        for (int p = PART_TOOL; p < PARTS; p++) {
            char key[32];
            snprintf(key, sizeof key, "%s_wrong", part_names[p]);
            json_object_set_new(record, key, json_real(e->first_wrong == (part)p));
        }
    }
    json_decref(e->messages);
    json_decref(e->tools);
    json_decref(e->turns);
    json_decref(e->last_call);
    mq__free(e);
    return record;
}

const mq_eval_task mq__eval_agent = {
    .name = "agent",
    .summary = "multi-turn episodes with tools that are really run: whole episodes, turns, calls, answers",
    .metrics = {"episode", "turn", "call", "answer", "tool_wrong", "argument_wrong", "quote_wrong", "statement_wrong"},
    .binary = 1u << 0 | 0xfu << 4,
    .open = open_agent,
    .close = close_agent,
    .id = agent_id,
    .settings = settings_agent,
    .begin = begin_agent,
    .next = next_agent,
    .end = end_agent,
};
