#include "eval/run_header.h"

#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

#define PLAN_FILE_MAX ((size_t)16 << 20)
#define ANEW          "remove it or choose another folder (-o) to start anew"

static mq_status no_memory_run_header(mq_error *error)
{
    return mq__fail(error, MQ_NO_MEMORY, "eval: header: expected memory, got none");
}

static json_t *sampling_of(const mq_sampling *s)
{
    if (!s) return json_null();
    return json_pack("{sfsisfsf}", "temperature", (double)s->temperature, "top_k", s->top_k, "top_p", (double)s->top_p,
                     "min_p", (double)s->min_p);
}

/* A plan by what it says: a file keeps its name when its text changes. */
static mq_status add_plan_run_header(json_t *plans, const mq_eval_plan *plan, mq_error *error)
{
    const mq_plan_options *o = &plan->options;
    char *text = NULL;
    size_t bytes;
    mq_status status = o->file ? mq__file_read(o->file, PLAN_FILE_MAX, &text, &bytes, error) : MQ_OK;
    if (status != MQ_OK) return status;
    json_t *file = text ? json_stringn(text, bytes) : NULL;
    mq__free(text);
    if (o->file && !file) {
        return mq__fail(error, MQ_FORMAT, "eval: plan: %s: expected UTF-8, got another text", o->file);
    }
    json_t *says = json_pack("{ssssss}", "prefill", mq_linear_format_name(o->prefill), "decode",
                             mq_linear_format_name(o->decode), "attention", mq_attention_format_name(o->attention));
    if (file) json_object_set_new(says, "file", file);
    if (plan->precise) json_object_set_new(says, "precise", json_integer(plan->precise));
    if (plan->reprefill) json_object_set_new(says, "reprefill", json_true());
    return says && json_object_set_new(plans, plan->name, says) == 0 ? MQ_OK : no_memory_run_header(error);
}

mq_status mq__eval_header_new(const mq_eval_run *run, void *task, json_t **header, mq_error *error)
{
    const mq_eval_options *o = run->context->options;
    const char *isa = run->context->info.isa;
    mq_sources sources = {.model = ""};
    json_t *plans = json_object(), *settings = run->task->settings ? run->task->settings(task) : json_object();
    char seed[32];
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)o->seed); /* as text: JSON's integers are signed */
    mq_status status = run->out_dir ? mq_engine_sources(run->context->engine, &sources, error) : MQ_OK;
    for (size_t p = 0; status == MQ_OK && p < run->plan_count; p++) {
        status = add_plan_run_header(plans, &run->plans[p], error);
    }
    *header = json_pack("{sssssssssOsssssosO}", "task", run->task->name, "isa", isa ? isa : "", "model", sources.model,
                        "prefill_model", sources.prefill_model, "plans", plans, "seed", seed, "scales",
                        o->scales ? o->scales : "", "sampling", sampling_of(o->sampling), "settings", settings);
    if (status == MQ_OK && !*header) status = no_memory_run_header(error);
    json_decref(plans);
    json_decref(settings);
    return status;
}

/* ------------------------------------------------------------------ comparing */

static const char *title_run_header(const char *key)
{
    static const char *const titles[][2] = {
        {"isa", "kernel level"}, {"model", "checkpoint"}, {"prefill_model", "prefill checkpoint"}};
    for (size_t i = 0; i < sizeof titles / sizeof titles[0]; i++) {
        if (strcmp(titles[i][0], key) == 0) return titles[i][1];
    }
    return key;
}

static mq_status differs(const char *path, const char *key, const json_t *was, const json_t *is, mq_error *error)
{
    char *is_text = json_dumps(is, JSON_COMPACT | JSON_ENCODE_ANY),
         *was_text = json_dumps(was, JSON_COMPACT | JSON_ENCODE_ANY);
    const mq_status status =
        mq__fail(error, MQ_USAGE, "eval: %s: %s: expected records of %.80s, got some of %.80s; " ANEW, path,
                 title_run_header(key), is_text ? is_text : "?", was_text ? was_text : "?");
    free(is_text);
    free(was_text);
    return status;
}

static mq_status check_plans_run_header(const char *path, const json_t *was, const json_t *is, mq_error *error)
{
    const char *name;
    const json_t *plan;
    json_object_foreach((json_t *)(uintptr_t)is, name, plan)
    {
        const json_t *old = json_object_get(was, name);
        if (old && !json_equal(old, plan)) {
            return mq__fail(
                error, MQ_USAGE,
                "eval: %s: plan %s: expected records of what it says now, got some of what it said before; " ANEW, path,
                name);
        }
    }
    return MQ_OK;
}

mq_status mq__eval_header_check(const json_t *was, const json_t *is, const char *path, mq_error *error)
{
    const char *key;
    const json_t *value;
    json_object_foreach((json_t *)(uintptr_t)is, key, value)
    {
        if (!json_object_get(was, key)) {
            return mq__fail(
                error, MQ_USAGE,
                "eval: %s: expected records that say their %s, got some of another version of mixquant; " ANEW, path,
                title_run_header(key));
        }
    }
    json_object_foreach((json_t *)(uintptr_t)is, key, value)
    {
        const json_t *old = json_object_get(was, key);
        const bool plans = strcmp(key, "plans") == 0;
        const mq_status status = plans                    ? check_plans_run_header(path, old, value, error)
                                 : json_equal(old, value) ? MQ_OK
                                                          : differs(path, key, old, value, error);
        if (status != MQ_OK) return status;
    }
    json_object_foreach((json_t *)(uintptr_t)was, key, value)
    {
        if (!json_object_get(is, key)) return differs(path, key, value, json_object_get(is, key), error);
    }
    return MQ_OK;
}
