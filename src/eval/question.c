#include "eval/question.h"

#include "base/error.h"
#include "base/mem.h"
#include "eval/judge.h"

#include <stdio.h>
#include <string.h>

typedef struct questions {
    const mq_benchmark *benchmark;
    const mq_eval_context *context;
    json_t *items; /* those that are asked */
    char (*ids)[80];
    char hash[32];
    bool chat, thinks; /* the prompt is rendered as a chat; and its end opens a thought */
} questions;

typedef struct episode {
    const questions *task;
    const json_t *item;
    char *answer;
    mq_verdict verdict;
} episode;

static bool is_judged(const questions *q)
{
    return q->benchmark->judge && q->context->options->judge_url;
}

static mq_status no_memory_question(const mq_benchmark *b, mq_error *error)
{
    return mq__fail(error, MQ_NO_MEMORY, "eval: %s: expected memory, got none", b->name);
}

bool mq__question_has_texts(const json_t *item, const char *const *keys, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!json_is_string(json_object_get(item, keys[i]))) return false;
    }
    return true;
}

void mq__question_close(void *task)
{
    questions *q = task;
    if (!q) return;
    json_decref(q->items);
    mq__free(q->ids);
    mq__free(q);
}

/* Records are told apart by their names. */
static mq_status check_names(const questions *q, const char *path, mq_error *error)
{
    mq_status status = MQ_OK;
    json_t *seen = json_object();
    for (size_t i = 0; status == MQ_OK && i < json_array_size(q->items); i++) {
        if (json_object_get(seen, q->ids[i])) {
            status = mq__fail(error, MQ_FORMAT, "eval: %s: %s: expected a name of its own for each item, got %s twice",
                              q->benchmark->name, path, q->ids[i]);
        } else if (json_object_set_new(seen, q->ids[i], json_true()) != 0) {
            status = no_memory_question(q->benchmark, error);
        }
    }
    json_decref(seen);
    return status;
}

/* Keeps the items that are asked, under names of their own. */
static mq_status choose_questions(questions *q, const json_t *all, const char *path, mq_error *error)
{
    const mq_benchmark *b = q->benchmark;
    const json_t *item;
    size_t i;
    q->items = json_array();
    q->ids = mq__alloc_zero(json_array_size(all) + 1, sizeof *q->ids);
    if (!q->items || !q->ids) return no_memory_question(b, error);
    json_array_foreach(all, i, item)
    {
        const json_t *id = b->id_key ? json_object_get(item, b->id_key) : NULL;
        if (!b->usable(item) || (b->id_key && !json_is_string(id))) {
            return mq__fail(error, MQ_FORMAT, "eval: %s: %s: item %zu: expected the published keys, got others",
                            b->name, path, i);
        }
        if (b->skipped && b->skipped(item) && !is_judged(q)) continue;
        const size_t at = json_array_size(q->items);
        if (id) {
            snprintf(q->ids[at], sizeof q->ids[at], "%s", json_string_value(id));
        } else {
            snprintf(q->ids[at], sizeof q->ids[at], "%s-%04zu", b->name, i);
        }
        if (json_array_append(q->items, (json_t *)(uintptr_t)item) != 0) return no_memory_question(b, error);
    }
    if (json_array_size(q->items) > 0) return check_names(q, path, error);
    return mq__fail(error, MQ_FORMAT, "eval: %s: %s: expected questions, got none", b->name, path);
}

mq_status mq__question_open(const mq_benchmark *benchmark, const mq_eval_context *context, void **task, size_t *items,
                            mq_error *error)
{
    const mq_eval_options *o = context->options;
    questions *q = mq__alloc_zero(1, sizeof *q);
    json_t *all = NULL;
    *task = q;
    if (!q) return no_memory_question(benchmark, error);
    *q = (questions){.benchmark = benchmark,
                     .context = context,
                     .chat = mq__eval_has_template(context->text),
                     .thinks = mq__eval_opens_thought(context->text)};
    if (!o->data) {
        return mq__fail(error, MQ_USAGE, "eval: %s: data: expected the published file (--data), got none",
                        benchmark->name);
    }
    mq_status status = (benchmark->read ? benchmark->read : mq__eval_read_values)(o->data, &all, error);
    if (status == MQ_OK) status = choose_questions(q, all, o->data, error);
    json_decref(all);
    char *text = status == MQ_OK ? json_dumps(q->items, JSON_COMPACT) : NULL;
    if (status == MQ_OK && !text) status = no_memory_question(benchmark, error);
    if (text) snprintf(q->hash, sizeof q->hash, "%016llx", (unsigned long long)mq__eval_hash(0, text, strlen(text)));
    free(text);
    *items = json_array_size(q->items);
    if (o->quick && *items > benchmark->quick) *items = benchmark->quick;
    return status;
}

const char *mq__question_id(void *task, size_t item)
{
    return ((const questions *)task)->ids[item];
}

static uint32_t max_tokens_of_question(const questions *q)
{
    return q->context->options->max_tokens ? q->context->options->max_tokens : q->benchmark->max_tokens;
}

/* An answer may be as long as the context lets it. A prompt leaves room for the longest one, but a quarter of the context is the
 * most that is kept free: in one that is smaller than the paper's, the text that is asked about matters more. */
static uint32_t max_prompt_of_question(const questions *q)
{
    const uint32_t context = q->context->info.context, answer = max_tokens_of_question(q),
                   most = q->benchmark->max_prompt;
    const uint32_t room = context - (answer < context / 4 ? answer : context / 4);
    return most && most < room ? most : room;
}

json_t *mq__question_settings(void *task)
{
    const questions *q = task;
    const mq_eval_options *o = q->context->options;
    json_t *settings = json_pack("{sssisi}", "data", q->hash, "max_tokens", (int)max_tokens_of_question(q),
                                 "max_prompt", (int)max_prompt_of_question(q));
    if (is_judged(q)) {
        json_object_set_new(settings, "judge", json_pack("[ss]", o->judge_url, o->judge_model ? o->judge_model : ""));
    }
    return settings;
}

mq_status mq__question_begin(void *task, size_t item, void **out, mq_error *error)
{
    const questions *q = task;
    episode *e = mq__alloc_zero(1, sizeof *e);
    *out = e;
    if (!e) return no_memory_question(q->benchmark, error);
    *e = (episode){.task = q, .item = json_array_get(q->items, item)};
    return MQ_OK;
}

/* Has the answer judged; one that ends in its thought is none. */
static mq_status judge_answer(episode *e, mq_error *error)
{
    const questions *q = e->task;
    const char *answer = mq__eval_after_thought(e->answer, q->thinks);
    mq_buf text = {0};
    if (!is_judged(q)) return MQ_OK;
    e->verdict = MQ_VERDICT_NO;
    if (!*answer) return MQ_OK;
    q->benchmark->judge(e->item, answer, &text);
    mq__buf_putc(&text, '\0');
    const mq_status status = text.failed ? no_memory_question(q->benchmark, error)
                                         : mq__judge_ask(q->context->options, text.data, &e->verdict, error);
    mq__buf_free(&text);
    return status;
}

mq_status mq__question_next(void *context, const mq_eval_answer *answer, mq_eval_prompt *prompt, mq_error *error)
{
    /* The paper's settings for its benchmarks (section 5): temperature 0.6, top-p 0.95, top-k 20. */
    static const mq_sampling paper = {.temperature = 0.6f, .top_p = 0.95f, .top_k = 20, .repetition_penalty = 1};
    episode *e = context;
    const questions *q = e->task;
    if (answer) {
        e->answer = mq__strndup(answer->text, answer->bytes);
        return e->answer ? judge_answer(e, error) : no_memory_question(q->benchmark, error);
    }
    const mq_sampling *sampling = q->context->options->sampling;
    mq_buf text = {0};
    q->benchmark->ask(e->item, &text);
    prompt->sampling = sampling ? *sampling : paper;
    prompt->max_tokens = max_tokens_of_question(q);
    prompt->max_prompt = max_prompt_of_question(q);
    if (!text.failed && q->chat) {
        prompt->request = json_pack("{s[{ssss%}]sb}", "messages", "role", "user", "content", text.data, text.len,
                                    "add_generation_prompt", 1);
    } else if (!text.failed) {
        prompt->prompt = mq__buf_take(&text);
    }
    mq__buf_free(&text);
    return prompt->request || prompt->prompt ? MQ_OK : no_memory_question(q->benchmark, error);
}

json_t *mq__question_end(void *context, bool want_record)
{
    episode *e = context;
    json_t *record = NULL;
    if (want_record) {
        const char *answer = e->answer ? e->answer : "";
        record = e->task->benchmark->score(e->item, mq__eval_after_thought(answer, e->task->thinks));
        if (record) json_object_set_new(record, "answer", json_string(answer));
        if (record && e->verdict) json_object_set_new(record, "judged", json_real(e->verdict == MQ_VERDICT_YES));
    }
    mq__free(e->answer);
    mq__free(e);
    return record;
}
