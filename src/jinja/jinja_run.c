/* One render: budgets, arguments, the values of a request, and the entry that everything unwinds to. */
#include "jinja/jinja_run.h"

#include "base/c_locale.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/json_read.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_STEPS  10000000u
#define DEFAULT_OUTPUT ((size_t)32 << 20)
#define DEFAULT_MEMORY ((size_t)256 << 20)
#define DEFAULT_STRING ((size_t)32 << 20)
#define DEFAULT_CALLS  100u
#define MAX_DEPTH      1200 /* nested evaluations: bounds the C stack */
#define JSON_NESTING   150

/* ---------------------------------------------------------------- budgets and errors */

void mq__jrun_throw(mq_jrun *run, mq_status status, const char *format, ...)
{
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    mq__jtrap_throw(&run->trap, status, "%s", text);
}

void mq__jrun_out_of_steps(mq_jrun *run)
{
    mq__jrun_throw(run, MQ_LIMIT, "expected at most %llu steps, got more", (unsigned long long)run->limits.steps);
}

void mq__jinja_enter(mq_jrun *run)
{
    if (++run->depth > MAX_DEPTH)
        mq__jrun_throw(run, MQ_LIMIT, "expected at most %d nested evaluations, got more", MAX_DEPTH);
}

void mq__jinja_leave(mq_jrun *run)
{
    run->depth--;
}

void *mq__jrun_alloc(mq_jrun *run, size_t count, size_t bytes_each)
{
    void *const block = mq__arena_alloc_zero(&run->objects, count, bytes_each);
    if (!block) mq__jtrap_throw_memory(&run->trap, &run->objects);
    mq__jrun_charge(run, count * bytes_each / 1024);
    return block;
}

char *mq__jrun_text(mq_jrun *run, size_t bytes)
{
    if (bytes > run->limits.string_bytes) {
        mq__jrun_throw(run, MQ_LIMIT, "expected a string of at most %zu bytes, got %zu", run->limits.string_bytes,
                       bytes);
    }
    char *const text = mq__arena_text(&run->text, bytes);
    if (!text) mq__jtrap_throw_memory(&run->trap, &run->text);
    return text;
}

/* ---------------------------------------------------------------- arguments */

void mq__jargs_positional(mq_jrun *run, const char *what, const mq_jargs *args, size_t min, size_t max)
{
    if (args->named_count) {
        mq__jrun_throw(run, MQ_TEMPLATE, "%s: expected no named arguments, got '%.*s'", what,
                       args->names[0].bytes < 100 ? (int)args->names[0].bytes : 100, args->names[0].as.text);
    }
    if (args->count < min || args->count > max) {
        mq__jrun_throw(run, MQ_TEMPLATE, "%s: expected %zu to %zu arguments, got %zu", what, min, max, args->count);
    }
}

mq_jvalue mq__jargs_at(const mq_jargs *args, size_t i)
{
    return i < args->count ? args->values[i] : (mq_jvalue){0};
}

void mq__jargs_bind(mq_jrun *run, const char *what, const mq_jargs *args, const char *const *names, size_t count,
                    mq_jvalue *out)
{
    if (args->count > count) {
        mq__jrun_throw(run, MQ_TEMPLATE, "%s: expected at most %zu arguments, got %zu", what, count, args->count);
    }
    for (size_t i = 0; i < count; i++) {
        out[i] = mq__jargs_at(args, i);
    }
    for (size_t i = 0; i < args->named_count; i++) {
        size_t k = 0;
        while (k < count && !mq__jvalue_is_text(args->names[i], names[k])) {
            k++;
        }
        if (k == count || out[k].type != MQ_J_MISSING) {
            mq__jrun_throw(run, MQ_TEMPLATE, "%s: expected each of its arguments once, got '%.*s'", what,
                           args->names[i].bytes < 100 ? (int)args->names[i].bytes : 100, args->names[i].as.text);
        }
        out[k] = args->named[i];
    }
}

/* ---------------------------------------------------------------- the request */

mq_jvalue mq__jvalue_from_json(mq_jrun *run, const json_t *json, unsigned depth)
{
    if (depth > JSON_NESTING) mq__jrun_throw(run, MQ_LIMIT, "expected a request nested at most %d deep", JSON_NESTING);
    switch (json_typeof(json)) {
    case JSON_NULL:
        return mq__jvalue_none();
    case JSON_TRUE:
    case JSON_FALSE:
        return mq__jvalue_bool(json_is_true(json));
    case JSON_INTEGER:
        return mq__jvalue_int(json_integer_value(json));
    case JSON_REAL:
        return mq__jvalue_real(json_real_value(json));
    case JSON_STRING: {
        const size_t bytes = json_string_length(json);
        if (bytes > run->limits.string_bytes) {
            mq__jrun_throw(run, MQ_LIMIT, "expected a string of at most %zu bytes, got %zu", run->limits.string_bytes,
                           bytes);
        }
        return mq__jvalue_text(json_string_value(json), bytes);
    }
    case JSON_ARRAY: {
        const size_t count = json_array_size(json);
        mq_jlist *const list = mq__jlist_new(run, MQ_J_PLAIN, count);
        for (size_t i = 0; i < count; i++) {
            mq__jlist_push(run, list, mq__jvalue_from_json(run, json_array_get(json, i), depth + 1));
        }
        return mq__jvalue_list(list);
    }
    default: {
        const char *const big = mq__json_big_number(json);
        if (big && strpbrk(big, ".eE")) return mq__jvalue_real(strtod(big, NULL)); /* infinite, as in Python */
        if (big) return mq__jvalue_big(big, strlen(big));
        mq_jdict *const dict = mq__jdict_new(run, json_object_size(json));
        void *at = json_object_iter((json_t *)(uintptr_t)json);
        for (; at; at = json_object_iter_next((json_t *)(uintptr_t)json, at)) {
            const mq_jvalue key = mq__jvalue_text(json_object_iter_key(at), json_object_iter_key_len(at));
            mq__jdict_append(run, dict, key, mq__jvalue_from_json(run, json_object_iter_value(at), depth + 1));
        }
        return mq__jvalue_dict(dict);
    }
    }
}

/* Only names that the template mentions can be reached, so only they are converted. */
static void bind_top(mq_jrun *run, const json_t *variables)
{
    const mq_jinja *const program = run->program;
    run->top = mq__jrun_alloc(run, program->name_count, sizeof *run->top);
    for (size_t i = 0; i < program->name_count; i++) {
        const mq_jvalue name = program->names[i];
        const json_t *const given = json_object_getn(variables, name.as.text, name.bytes);
        const mq_jfunction *const function = given ? NULL : mq__jfunction_find(name);
        if (given) run->top[i] = mq__jvalue_from_json(run, given, 0);
        if (function) run->top[i] = (mq_jvalue){.type = MQ_J_FUNCTION, .as.function = function};
    }
}

/* ---------------------------------------------------------------- entry */

static void set_limits(mq_jrun *run, const mq_jinja_options *options)
{
    mq_jinja_limits *const limits = &run->limits;
    if (options) *limits = options->limits;
    if (options) run->now = options->now;
    if (!limits->steps) limits->steps = DEFAULT_STEPS;
    if (!limits->output_bytes) limits->output_bytes = DEFAULT_OUTPUT;
    if (!limits->memory_bytes) limits->memory_bytes = DEFAULT_MEMORY;
    if (!limits->string_bytes) limits->string_bytes = DEFAULT_STRING;
    if (!limits->calls) limits->calls = DEFAULT_CALLS;
    if (limits->string_bytes > UINT32_MAX / 2) limits->string_bytes = UINT32_MAX / 2;
    run->steps = limits->steps;
    run->objects.max = run->text.max = limits->memory_bytes / 2;
    run->out.max = limits->output_bytes;
}

mq_status mq__jinja_render(const mq_jinja *program, const json_t *variables, const mq_jinja_options *options,
                           char **text, size_t *bytes, mq_error *error)
{
    *text = NULL;
    *bytes = 0;
    mq_jrun *const run = mq__alloc_zero(1, sizeof *run);
    if (!run) return mq__fail(error, MQ_NO_MEMORY, "template: out of memory");
    mq_c_locale scope;
    const bool plain = mq__c_locale_enter(&scope); /* numbers and dates */
    mq_status status = MQ_OK;
    set_limits(run, options);
    run->program = program;
    run->trap.error = error;
    run->trap.line = 1;
    if (setjmp(run->trap.target) != 0) {
        status = run->trap.status;
        goto out;
    }
    if (!plain || !mq__buf_append(&run->out, "", 0)) mq__jrun_throw(run, MQ_NO_MEMORY, "out of memory");
    bind_top(run, variables);
    mq__jinja_exec(run, &program->body);
    *bytes = run->out.len;
    run->out.data[run->out.len] = '\0';
    *text = mq__buf_take(&run->out);

out:
    mq__c_locale_leave(&scope);
    mq__buf_free(&run->out);
    mq__arena_free(&run->objects);
    mq__arena_free(&run->text);
    mq__free(run);
    return status;
}
