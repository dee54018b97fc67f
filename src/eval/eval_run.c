#include "eval/eval_run.h"

#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/pool.h"
#include "eval/dialogue.h"
#include "eval/run_header.h"
#include "eval/store.h"

#include <stdio.h>
#include <string.h>

typedef struct running {
    const mq_eval_run *run;
    void *task;
    size_t items, done;
    mq_eval_store store;
    const char *plan;
    json_t *ids, *seconds;
} running;

static void report_progress(const running *r)
{
    const mq_eval_run *run = r->run;
    if (run->progress) run->progress(run->progress_context, run->task->name, r->plan, r->done, r->items);
}

static mq_status take_eval_run(void *context, size_t item, json_t *record, mq_error *error)
{
    running *r = context;
    json_t *whole = json_pack("{ssss}", "plan", r->plan, "id", r->run->task->id(r->task, item));
    const bool made = whole && json_object_update(whole, record) == 0;
    json_decref(record);
    if (!made) {
        json_decref(whole);
        return mq__fail(error, MQ_NO_MEMORY, "eval: record: expected memory, got none");
    }
    const mq_status status = mq__eval_store_add(&r->store, whole, error);
    r->done++;
    report_progress(r);
    return status;
}

static mq_status run_dialogues(running *r, mq_error *error)
{
    const mq_eval_run *run = r->run;
    size_t *items = mq__alloc_zero(r->items, sizeof *items);
    mq_status status = items ? MQ_OK : mq__fail(error, MQ_NO_MEMORY, "eval: items: expected memory, got none");
    for (size_t p = 0; status == MQ_OK && p < run->plan_count; p++) {
        r->plan = run->plans[p].name;
        size_t count = 0;
        for (size_t i = 0; i < r->items; i++) {
            if (!mq__eval_store_get(&r->store, r->plan, run->task->id(r->task, i))) items[count++] = i;
        }
        r->done = r->items - count;
        report_progress(r);
        const mq_eval_dialogue dialogue = {.context = run->context,
                                           .task = run->task,
                                           .plan = &run->plans[p],
                                           .state = r->task,
                                           .items = items,
                                           .count = count,
                                           .batch = run->batch ? run->batch : MQ_EVAL_BATCH,
                                           .take = take_eval_run,
                                           .take_context = r};
        const double start = mq__seconds();
        if (count) status = mq_engine_set_plan(run->context->engine, &run->plans[p].options, error);
        if (status == MQ_OK && count) status = mq__eval_dialogue_run(&dialogue, error);
        json_object_set_new(r->seconds, r->plan, json_real(mq__seconds() - start));
    }
    mq__free(items);
    return status;
}

/* The plans of one item that lack a record; BF16 goes first, as the reference, when the task compares with it. */
static size_t missing_plans(const running *r, size_t item, mq_eval_plan *plans, size_t *extra)
{
    const mq_eval_run *run = r->run;
    size_t count = 0;
    if (run->task->compares_with_bf16) (void)mq__eval_plan_parse("bf16", &plans[count++], NULL);
    *extra = count;
    for (size_t p = 0; p < run->plan_count; p++) {
        if (mq__eval_store_get(&r->store, run->plans[p].name, run->task->id(r->task, item))) continue;
        if (count == 1 && *extra == 1 && strcmp(run->plans[p].name, plans[0].name) == 0)
            *extra = 0;
        else
            plans[count++] = run->plans[p];
    }
    return count;
}

static mq_status run_measures(running *r, mq_error *error)
{
    mq_eval_plan plans[MQ_EVAL_PLANS_MAX + 1];
    const double start = mq__seconds();
    mq_status status = MQ_OK;
    r->plan = "all plans";
    for (size_t i = 0; status == MQ_OK && i < r->items; i++) {
        json_t *records[MQ_EVAL_PLANS_MAX + 1] = {0};
        size_t extra;
        const size_t count = missing_plans(r, i, plans, &extra);
        if (count > extra) status = r->run->task->measure(r->task, i, plans, count, records, error);
        for (size_t p = 0; p < count; p++) {
            if (status == MQ_OK && p >= extra && records[p]) {
                r->plan = plans[p].name;
                r->done--; /* counted by the item, not by plan */
                status = take_eval_run(r, i, records[p], error);
            } else {
                json_decref(records[p]);
            }
        }
        r->plan = "all plans";
        r->done = i + 1;
        report_progress(r);
    }
    json_object_set_new(r->seconds, "all", json_real(mq__seconds() - start));
    return status;
}

static mq_status open_store(running *r, mq_error *error)
{
    const mq_eval_run *run = r->run;
    char name[96];
    json_t *header = NULL;
    snprintf(name, sizeof name, "%s.jsonl", run->task->name);
    mq_status status = mq__eval_header_new(run, r->task, &header, error);
    char *path = run->out_dir ? mq__path_join(run->out_dir, name) : NULL;
    if (status == MQ_OK && run->out_dir && !path) {
        status = mq__fail(error, MQ_NO_MEMORY, "eval: %s: expected memory, got none", run->task->name);
    }
    if (status == MQ_OK) status = mq__eval_store_open(&r->store, path, header, error);
    json_decref(header);
    mq__free(path);
    return status;
}

/* A plan file that cannot be read or does not fit the model ends the run before the plans ahead of it have run. */
static mq_status check_plan_files(const mq_eval_run *run, mq_error *error)
{
    mq_status status = MQ_OK;
    for (size_t p = 0; status == MQ_OK && p < run->plan_count; p++) {
        if (run->plans[p].options.file)
            status = mq_engine_set_plan(run->context->engine, &run->plans[p].options, error);
    }
    return status;
}

mq_status mq__eval_run(const mq_eval_run *run, json_t **result, mq_error *error)
{
    running r = {.run = run, .ids = json_array(), .seconds = json_object()};
    *result = NULL;
    mq_status status = run->task->open(run->context, &r.task, &r.items, error);
    const uint32_t limit = run->context->options->limit;
    if (status == MQ_OK && limit && r.items > limit && !run->task->own_limit) r.items = limit;
    if (status == MQ_OK && r.items == 0) {
        status = mq__fail(error, MQ_USAGE, "eval: %s: expected at least one item, got none", run->task->name);
    }
    if (status == MQ_OK) status = open_store(&r, error);
    if (status == MQ_OK) status = check_plan_files(run, error);
    for (size_t i = 0; status == MQ_OK && i < r.items; i++) {
        json_array_append_new(r.ids, json_string(run->task->id(r.task, i)));
    }
    if (status == MQ_OK) status = run->task->measure ? run_measures(&r, error) : run_dialogues(&r, error);
    if (status == MQ_OK) {
        *result = json_pack("{sOsOsO}", "ids", r.ids, "records", r.store.records, "seconds", r.seconds);
        if (!*result) status = mq__fail(error, MQ_NO_MEMORY, "eval: result: expected memory, got none");
    }
    json_decref(r.ids);
    json_decref(r.seconds);
    mq__eval_store_close(&r.store);
    run->task->close(r.task);
    return status;
}
