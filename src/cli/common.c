#include "cli/cli.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int cli_exit_code(mq_status status)
{
    switch (status) {
    case MQ_OK:
        return CLI_DONE;
    case MQ_USAGE:
        return CLI_USAGE;
    case MQ_IO:
    case MQ_FORMAT:
    case MQ_UNSUPPORTED:
    case MQ_LIMIT:
    case MQ_TEMPLATE:
        return CLI_REFUSED;
    case MQ_NO_MEMORY:
    case MQ_WRITE:
    case MQ_CANCELLED:
    default:
        return CLI_FAILED;
    }
}

int cli_report(const mq_error *error)
{
    fflush(stdout);
    fprintf(stderr, "mixquant: %s\n", error->text);
    return cli_exit_code(error->status);
}

int cli_usage_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("mixquant: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return CLI_USAGE;
}

#define READ_MAX ((size_t)64 << 20)

int cli_read(const char *path, char **data, size_t *bytes)
{
    const bool is_stdin = !path || strcmp(path, "-") == 0;
    FILE *file = is_stdin ? stdin : fopen(path, "re");
    size_t cap = 65536, used = 0;
    char *block = file ? malloc(cap) : NULL;
    *data = NULL;
    if (!file) {
        fprintf(stderr, "mixquant: file: %s: expected a readable file, got %s\n", path, strerror(errno));
        return CLI_REFUSED;
    }
    while (block) {
        const size_t n = fread(block + used, 1, cap - used - 1, file);
        used += n;
        if (n == 0) break;
        if (used + 1 < cap) continue;
        if (cap >= READ_MAX) {
            fprintf(stderr, "mixquant: file: %s: expected at most %zu bytes, got more\n", is_stdin ? "stdin" : path,
                    READ_MAX);
            free(block);
            if (!is_stdin) fclose(file);
            return CLI_REFUSED;
        }
        cap *= 2;
        char *larger = realloc(block, cap);
        if (!larger) free(block);
        block = larger;
    }
    const bool failed = ferror(file) != 0;
    if (!is_stdin) fclose(file);
    if (!block || failed) {
        free(block);
        fprintf(stderr, "mixquant: file: %s: expected to read it, got %s\n", is_stdin ? "stdin" : path,
                failed ? strerror(errno) : "no memory");
        return failed ? CLI_REFUSED : CLI_FAILED;
    }
    block[used] = '\0';
    *data = block;
    *bytes = used;
    return CLI_DONE;
}

const char *cli_model(const char *model)
{
    if (model) return model;
    /* The source tree first: a developer's build runs the model of its own checkout. */
    return access(MQ_SOURCE_MODEL_DIR "/config.json", R_OK) == 0 ? MQ_SOURCE_MODEL_DIR : MQ_MODEL_DIR;
}

static void print_log(void *context, const char *line)
{
    (void)context;
    if (isatty(STDERR_FILENO) || getenv("MQ_LOG")) fprintf(stderr, "mixquant: %s\n", line);
}

static bool is_auto(const char *format)
{
    return format && strcmp(format, "auto") == 0;
}

/* Beside products of fewer bits than BF16, attention in fewer loses nothing (docs/EVALUATION.md). */
static bool is_quantised(mq_linear_format format)
{
    return format == MQ_LINEAR_NVFP4 || format == MQ_LINEAR_INT8;
}

/* Workers that exchange KV have the same plan, and machines may differ in what is the fastest: there, formats go by name. */
static mq_status refuse_auto(const cli_engine *o, const mq_engine_options *options, mq_error *error)
{
    mq_plan_options here = options->plan;
    const mq_status status = mq_choose_plan(options, is_auto(o->prefill), is_auto(o->attention), &here, NULL, 0, error);
    if (status != MQ_OK) return status;
    snprintf(error->text, sizeof error->text,
             "serve: %s: expected a format by name, the same on all workers, got auto (the fastest here: --prefill %s "
             "--attention %s)",
             is_auto(o->prefill) ? "--prefill" : "--attention", mq_linear_format_name(here.prefill),
             mq_attention_format_name(here.attention));
    return error->status = MQ_USAGE;
}

/* Formats by measurement: those for which auto is given, and unless it is named attention beside a prefill that is quantised or auto. */
static mq_status choose_formats(const cli_engine *o, mq_engine_options *options, mq_error *error)
{
    char why[512];
    mq_plan_options *plan = &options->plan;
    mq_status status = MQ_OK;
    if (o->worker && (is_auto(o->prefill) || is_auto(o->attention))) return refuse_auto(o, options, error);
    if (is_auto(o->prefill)) {
        status = mq_choose_plan(options, true, false, plan, why, sizeof why, error);
        if (status == MQ_OK) fprintf(stderr, "mixquant: %s\n", why);
    }
    if (status != MQ_OK || (o->attention && !is_auto(o->attention))) return status;
    if (!o->attention && !is_quantised(plan->prefill) && !is_auto(o->prefill)) return MQ_OK;
    if (o->worker) {
        plan->attention = MQ_ATTENTION_INT8; /* whatever the machine: so that workers agree */
        print_log(NULL, "attention int8: the same on all workers");
        return MQ_OK;
    }
    status = mq_choose_plan(options, false, true, plan, why, sizeof why, error);
    if (status == MQ_OK && (is_auto(o->attention) || is_auto(o->prefill)))
        fprintf(stderr, "mixquant: %s\n", why);
    else if (status == MQ_OK)
        print_log(NULL, why);
    return status;
}

static mq_status engine_options_of(const cli_engine *o, mq_engine_options *options, mq_error *error)
{
    *options = (mq_engine_options){
        .model_dir = cli_model(o->model),
        .prefill_model_dir = o->prefill_model,
        .threads = o->threads,
        .context = (uint32_t)o->context,
        .chunk = (uint32_t)o->chunk,
        .last = (uint32_t)o->last,
        .sequences = o->sequences,
        .kv_bytes = o->kv_bytes,
        .state_bytes = o->state_bytes,
        .cache_dir = o->cache_dir,
        .no_cache = o->no_cache,
        .log = print_log,
        .plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16, .file = o->plan},
    };
    mq_status status = o->numa ? mq_placement_parse(o->numa, &options->placement, error) : MQ_OK;
    if (status != MQ_OK) return status;
    if (o->prefill && !is_auto(o->prefill)) status = mq_linear_format_parse(o->prefill, &options->plan.prefill, error);
    if (status == MQ_OK && o->attention && !is_auto(o->attention))
        status = mq_attention_format_parse(o->attention, &options->plan.attention, error);
    if (status == MQ_OK) status = choose_formats(o, options, error);
    if (status == MQ_OK && o->head) status = mq_linear_format_parse(o->head, &options->plan.head, error);
    if (status == MQ_OK && o->decode) status = mq_linear_format_parse(o->decode, &options->plan.decode, error);
    if (status == MQ_OK) status = mq_scale_rule_parse(o->scales, &options->scales, error);
    return status;
}

int cli_open(const cli_engine *o, mq_engine **engine, mq_text **text)
{
    mq_error error = {0};
    mq_engine_options options;
    *engine = NULL;
    mq_status status = engine_options_of(o, &options, &error);
    if (status == MQ_OK && text) status = mq_text_open(options.model_dir, NULL, text, &error);
    if (status == MQ_OK) status = mq_engine_open(&options, engine, &error);
    if (status == MQ_OK) return CLI_DONE;
    if (text) {
        mq_text_close(*text);
        *text = NULL;
    }
    return cli_report(&error);
}

mq_sampling cli_sampling_choose(const cli_sampling *given, const mq_engine *engine)
{
    mq_engine_info info;
    mq_engine_describe(engine, &info);
    const mq_sampling s = cli_sampling_of(given, &info.suggested);
    if (info.has_suggested) {
        char line[160];
        snprintf(line, sizeof line,
                 "sampling: temperature %g, top-k %d, top-p %g, min-p %g (generation_config.json, then options)",
                 (double)s.temperature, s.top_k, (double)s.top_p, (double)s.min_p);
        print_log(NULL, line);
    }
    return s;
}

bool cli_progress(void *context, uint32_t done, uint32_t total)
{
    (void)context;
    if (isatty(STDERR_FILENO) && total > 512) {
        fprintf(stderr, done < total ? "\rprefill %u/%u" : "\r\033[K", done, total);
    }
    return true;
}

/* The read end of a pipe or socket was closed. */
static bool reader_left(int fd)
{
    struct pollfd state = {.fd = fd, .events = POLLOUT};
    return poll(&state, 1, 0) == 1 && (state.revents & POLLERR);
}

int cli_finish(int code)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) return code;
    if (reader_left(STDOUT_FILENO)) return code;
    fprintf(stderr, "mixquant: stdout: expected to write the answer, got %s\n", strerror(errno));
    return CLI_FAILED;
}
