/* Runs evaluation tasks under a list of phase plans; prints the table, writes records, report and plots. */
#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/turn.h"
#include "eval/eval_run.h"
#include "eval/plots.h"
#include "eval/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct settings {
    cli_engine engine;
    cli_sampling sampling;
    const char *tasks, *plans, *out, *data, *text, *wording, *kinds, *lengths, *judge_url, *judge_model;
    int limit, max_tokens, batch;
    uint64_t seed;
    bool quick, json;
} settings;

static const char default_plans[] = "bf16,w4a16,nvfp4,mix,inverse";

static int add_plan_eval(const char *name, mq_eval_plan *plans, size_t *count)
{
    mq_error error = {0};
    if (*count == MQ_EVAL_PLANS_MAX) {
        return cli_usage_error("eval: plans: expected at most %d, got more", MQ_EVAL_PLANS_MAX);
    }
    if (mq__eval_plan_parse(name, &plans[*count], &error) != MQ_OK) return cli_report(&error);
    for (size_t i = 0; i < *count; i++) {
        if (strcmp(plans[i].name, name) == 0)
            return cli_usage_error("eval: plans: expected %s once, got it twice", name);
    }
    (*count)++;
    return CLI_GO_ON;
}

/* bf16, if it is not there yet, and what must be like it. */
static int add_control(mq_eval_plan *plans, size_t *count)
{
    bool there = false;
    for (size_t i = 0; i < *count; i++) {
        there = there || strcmp(plans[i].name, "bf16") == 0;
    }
    const int code = there ? CLI_GO_ON : add_plan_eval("bf16", plans, count);
    return code == CLI_GO_ON ? add_plan_eval(MQ_EVAL_CONTROL, plans, count) : code;
}

static int parse_plans(const char *list, mq_eval_plan *plans, size_t *count, char **names)
{
    char *rest;
    *names = strdup(list);
    *count = 0;
    if (!*names) return CLI_FAILED;
    for (char *name = strtok_r(*names, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
        const int code = strcmp(name, "control") == 0 ? add_control(plans, count) : add_plan_eval(name, plans, count);
        if (code != CLI_GO_ON) return code;
    }
    return *count ? CLI_GO_ON : cli_usage_error("eval: plans: expected at least one, got none");
}

/* "agent, ruler, ..." */
static void name_tasks(char *names, size_t size)
{
    names[0] = '\0';
    for (size_t i = 0; mq__eval_task(i); i++) {
        const size_t used = strlen(names);
        snprintf(names + used, size - used, "%s%s", i ? ", " : "", mq__eval_task(i)->name);
    }
}

static int parse_tasks(const char *list, const mq_eval_task **tasks, size_t max, size_t *count)
{
    char names[512];
    *count = 0;
    name_tasks(names, sizeof names);
    if (!list || !*list) return cli_usage_error("eval: --task: expected one or more of %s, got none", names);
    for (const char *p = list; *p;) {
        const size_t length = strcspn(p, ",");
        const mq_eval_task *task = mq__eval_task_named(p, length);
        if (!task) return cli_usage_error("eval: --task: expected some of %s, got %.*s", names, (int)length, p);
        if (*count == max) return cli_usage_error("eval: tasks: expected at most %zu, got more", max);
        tasks[(*count)++] = task;
        p += length + (p[length] == ',');
    }
    return CLI_GO_ON;
}

static void show_progress(void *context, const char *task, const char *plan, size_t done, size_t total)
{
    (void)context;
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[K%s %s %zu/%zu", task, plan, done, total);
}

static int write_text(const char *folder, const char *name, const char *text, size_t bytes)
{
    mq_error error = {0};
    mq_writer writer = {0};
    char *path = mq__path_join(folder, name);
    if (!path) return CLI_FAILED;
    mq_status status = mq__writer_open(&writer, path, &error);
    if (status == MQ_OK) status = mq__writer_put(&writer, text, bytes, &error);
    if (status == MQ_OK) status = mq__writer_commit(&writer, &error);
    mq__writer_abort(&writer);
    mq__free(path);
    return status == MQ_OK ? CLI_DONE : cli_report(&error);
}

static int write_json(const char *folder, const char *name, const json_t *value)
{
    char *text = json_dumps(value, JSON_INDENT(1));
    if (!text) return CLI_FAILED;
    const int code = write_text(folder, name, text, strlen(text));
    free(text);
    return code;
}

static int write_plots(const char *folder, const json_t *report)
{
    int code = CLI_DONE;
    const char *name;
    json_t *svg, *plots = mq__eval_plots(report);
    if (!plots) return CLI_FAILED;
    json_object_foreach(plots, name, svg)
    {
        if (code == CLI_DONE) code = write_text(folder, name, json_string_value(svg), json_string_length(svg));
    }
    json_decref(plots);
    return code;
}

/* The table (or the report as JSON) to stdout; report.json, table.txt, timings.json and the plots to the folder. */
static int publish(const settings *s, const json_t *report, const json_t *timings)
{
    mq_buf table = {0};
    mq__eval_table(report, &table);
    char *json = s->json ? json_dumps(report, JSON_INDENT(1)) : NULL;
    int code = table.failed || (s->json && !json) ? CLI_FAILED : CLI_DONE;
    if (code == CLI_DONE) puts(s->json ? json : table.data ? table.data : "");
    mq_error error = {0};
    if (code == CLI_DONE && s->out && mq__make_dirs(s->out, &error) != MQ_OK) code = cli_report(&error);
    if (code == CLI_DONE && s->out) code = write_json(s->out, "report.json", report);
    if (code == CLI_DONE && s->out) code = write_json(s->out, "timings.json", timings);
    if (code == CLI_DONE && s->out) code = write_text(s->out, "table.txt", table.data ? table.data : "", table.len);
    if (code == CLI_DONE && s->out) code = write_plots(s->out, report);
    free(json);
    mq__buf_free(&table);
    return code;
}

static int run_tasks(const settings *s, const mq_eval_context *context, const mq_eval_task *const *tasks,
                     size_t task_count, const mq_eval_plan *plans, size_t plan_count)
{
    mq_error error = {0};
    json_t *summaries = json_object(), *timings = json_object();
    mq_status status = MQ_OK;
    for (size_t t = 0; status == MQ_OK && t < task_count; t++) {
        const mq_eval_run run = {.context = context,
                                 .task = tasks[t],
                                 .plans = plans,
                                 .plan_count = plan_count,
                                 .out_dir = s->out,
                                 .batch = (uint32_t)s->batch,
                                 .progress = show_progress};
        json_t *result;
        status = mq__eval_run(&run, &result, &error);
        if (isatty(STDERR_FILENO)) fputs("\r\033[K", stderr);
        if (status != MQ_OK) break;
        json_object_set_new(summaries, tasks[t]->name, mq__eval_summary(tasks[t], plans, plan_count, result, s->seed));
        json_object_set(timings, tasks[t]->name, json_object_get(result, "seconds"));
        json_decref(result);
    }
    char seed[32];
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)s->seed);
    json_t *report =
        json_pack("{sssssssssssO}", "mixquant", mq_version(), "commit", mq_commit(), "model",
                  context->options->model_dir, "scales", s->engine.scales, "seed", seed, "tasks", summaries);
    int code = status == MQ_OK ? CLI_DONE : cli_report(&error);
    if (code == CLI_DONE) code = report ? publish(s, report, timings) : CLI_FAILED;
    json_decref(report);
    json_decref(summaries);
    json_decref(timings);
    return code;
}

static int evaluate(settings *s)
{
    mq_eval_plan plans[MQ_EVAL_PLANS_MAX];
    const mq_eval_task *tasks[16];
    size_t plan_count = 0, task_count = 0;
    long numbers[16];
    uint32_t lengths[16];
    char *names = NULL;
    const size_t length_count = s->lengths ? cli_number_list(s->lengths, 16, 16777216, numbers, 16) : 0;
    if (s->lengths && !length_count) {
        return cli_usage_error("eval: lengths: expected 1 to 16 numbers above 15, got %s", s->lengths);
    }
    for (size_t i = 0; i < length_count; i++) {
        lengths[i] = (uint32_t)numbers[i];
    }
    int code = parse_tasks(s->tasks, tasks, 16, &task_count);
    if (code == CLI_GO_ON) code = parse_plans(s->plans, plans, &plan_count, &names);
    mq_text *text = NULL;
    mq_eval_context context = {0};
    s->engine.sequences = MQ_EVAL_BATCH;
    s->engine.decode = s->engine.prefill = "bf16"; /* of opening only: each plan is set in its turn */
    if (code == CLI_GO_ON) code = cli_open(&s->engine, &context.engine, &text);
    if (code == CLI_DONE) {
        const mq_sampling sampling = cli_sampling_of(&s->sampling, &MQ_SAMPLING_GREEDY);
        const mq_eval_options options = {.model_dir = cli_model(s->engine.model),
                                         .data = s->data,
                                         .text = s->text,
                                         .wording = s->wording,
                                         .kinds = s->kinds,
                                         .judge_url = s->judge_url,
                                         .judge_model = s->judge_model,
                                         .lengths = lengths,
                                         .length_count = length_count,
                                         .limit = (uint32_t)s->limit,
                                         .max_tokens = (uint32_t)s->max_tokens,
                                         .seed = s->seed,
                                         .quick = s->quick,
                                         .sampling = sampling.temperature > 0 ? &sampling : NULL,
                                         .scales = s->engine.scales,
                                         .prefill_model = s->engine.prefill_model};
        context.options = &options;
        context.text = text;
        mq_engine_describe(context.engine, &context.info);
        code = run_tasks(s, &context, tasks, task_count, plans, plan_count);
    }
    mq_engine_close(context.engine);
    mq_text_close(text);
    free(names);
    return code;
}

static int run_eval(int argc, char **argv)
{
    settings s = {.plans = default_plans, .seed = 42, .batch = MQ_EVAL_BATCH};
    cli_option engine[CLI_ENGINE_OPTION_COUNT];
    cli_engine_options(&s.engine, engine, "prefill decode attention head plan last"); /* --plans says all that */
    s.sampling = (cli_sampling){NAN, NAN, NAN, NAN, NAN, NAN, .top_k = -1};
    char tasks[512] = "tasks, with commas: ";
    name_tasks(tasks + strlen(tasks), sizeof tasks - strlen(tasks));
    const cli_option own[] = {
        {"task", CLI_TEXT, &s.tasks, 0, 0, tasks},
        {"plans", CLI_TEXT, &s.plans, 0, 0,
         "bf16, nvfp4, w4a16, mix, inverse, int8-mix, any format, PREFILL/DECODE, plan files, control (bf16 twice, "
         "once "
         "with INT8 attention); with commas"},
        {"o", CLI_TEXT, &s.out, 0, 0, "folder for records (a run goes on where it stopped), report and plots"},
        {"limit", CLI_NUMBER, &s.limit, 0, 1e9, "items of a task at most (default 0: the task's own)"},
        {"quick", CLI_FLAG, &s.quick, 0, 0, "a small number of items"},
        {"seed", CLI_UNSIGNED, &s.seed, 0, 0, "of prompts, sampling and resampling (default 42)"},
        {"data", CLI_TEXT, &s.data, 0, 0, "the task's file or folder (agent: the model's episodes.jsonl)"},
        {"text", CLI_TEXT, &s.text, 0, 0,
         "ppl, kld, attention: a text file (default: the agent's episodes); ruler: the noise"},
        {"kinds", CLI_TEXT, &s.kinds, 0, 0, "subsets of a task, with commas (ruler: families; bfcl: categories)"},
        {"wording", CLI_TEXT, &s.wording, 0, 0, "ruler: ruler or bundled (the words of the bundled model)"},
        {"judge-url", CLI_TEXT, &s.judge_url, 0, 0,
         "longmemeval, aa-lcr: a judge's OpenAI-style endpoint, http://HOST/v1 (key: MQ_JUDGE_KEY)"},
        {"judge-model", CLI_TEXT, &s.judge_model, 0, 0, "the judge's model name"},
        {"lengths", CLI_TEXT, &s.lengths, 0, 0, "context lengths in tokens, with commas"},
        {"n", CLI_NUMBER, &s.max_tokens, 0, 65536, "tokens of an answer at most (default 0: the task's own)"},
        {"temp", CLI_FLOAT, &s.sampling.temperature, 0, 100, "sample answers (default 0: the task's own way)"},
        {"top-k", CLI_NUMBER, &s.sampling.top_k, 0, 2147483647.0, "with --temp: keep the k best"},
        {"top-p", CLI_FLOAT, &s.sampling.top_p, 0, 1, "with --temp: keep the best that hold this probability"},
        {"batch", CLI_NUMBER, &s.batch, 1, MQ_EVAL_BATCH, "items at once (default 8; changes no result)"},
        {"json", CLI_FLAG, &s.json, 0, 0, "print the report as JSON"},
    };
    const cli_options tables[] = {CLI_OPTIONS(own), CLI_OPTIONS(engine)};
    cli_texts rest = {.count = 0};
    int code = cli_parse(&cli_eval, tables, 2, argc, argv, &rest, 1);
    if (code == CLI_GO_ON) code = cli_positional(&cli_eval, &rest, "--task", &s.tasks);
    if (code != CLI_GO_ON) return code;
    if (s.engine.plan || s.engine.prefill || s.engine.decode || s.engine.attention || s.engine.head) {
        return cli_usage_error("eval: expected --plans, got --plan, --prefill, --decode, --attention or --head");
    }
    if (s.engine.last != 1) return cli_usage_error("eval: expected a plan's +lastN, got --last");
    return evaluate(&s);
}

const cli_command cli_eval = {"eval", "[--task] NAME[,NAME] [options]",
                              "accuracy, divergence and attention of a model under phase plans", run_eval};
