#include "base/pool.h"
#include "cli/cli.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *dashes(const cli_option *o)
{
    return o->name[1] ? "--" : "-";
}

/* "--name TEXT"; returns its length. */
static int name_option(const cli_option *o, char text[64])
{
    static const char *const placeholders[] = {"", " TEXT", " TEXT", " N", " N", " X", " TEXT"};
    return snprintf(text, 64, "%s%s%s", dashes(o), o->name, placeholders[o->kind]);
}

static void print_help_options(const cli_command *command, const cli_options *tables, size_t table_count)
{
    char left[64];
    int widest = 0;
    for (size_t t = 0; t < table_count; t++) {
        for (size_t i = 0; i < tables[t].count; i++) {
            const int width = name_option(&tables[t].item[i], left);
            if (tables[t].item[i].help && width > widest) widest = width;
        }
    }
    printf("mixquant %s %s\n%s\n\n", command->name, command->arguments, command->summary);
    for (size_t t = 0; t < table_count; t++) {
        for (size_t i = 0; i < tables[t].count; i++) {
            (void)name_option(&tables[t].item[i], left);
            if (tables[t].item[i].help) printf("  %-*s  %s\n", widest, left, tables[t].item[i].help);
        }
    }
    printf("  %-*s  %s\n", widest, "-h, --help", "this text");
}

static const cli_option *find_options(const cli_options *tables, size_t table_count, const char *name, size_t length)
{
    for (size_t t = 0; t < table_count; t++) {
        for (size_t i = 0; i < tables[t].count; i++) {
            const cli_option *o = &tables[t].item[i];
            if (strlen(o->name) == length && strncmp(o->name, name, length) == 0) return o;
        }
    }
    return NULL;
}

static bool parse_number(const cli_option *o, const char *text)
{
    char *end;
    errno = 0;
    if (o->kind == CLI_UNSIGNED) {
        const unsigned long long value = strtoull(text, &end, 10);
        if (end == text || *end || errno || *text == '-') return false;
        *(uint64_t *)o->value = value;
        return true;
    }
    const double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value) || value < o->low || value > o->high) return false;
    if (o->kind == CLI_NUMBER) {
        if (value != floor(value)) return false;
        *(int *)o->value = (int)value;
    } else {
        *(float *)o->value = (float)value;
    }
    return true;
}

static int store(const cli_option *o, const char *text)
{
    if ((o->kind == CLI_TEXT || o->kind == CLI_TEXTS) && *text == '\0') {
        return cli_usage_error("%s%s: expected a value, got an empty one", dashes(o), o->name);
    }
    if (o->kind == CLI_TEXT || o->kind == CLI_TEXT_OR_EMPTY) {
        *(const char **)o->value = text;
        return CLI_GO_ON;
    }
    if (o->kind == CLI_TEXTS) {
        cli_texts *texts = o->value;
        if (texts->count == CLI_TEXTS_MAX) {
            return cli_usage_error("%s%s: expected at most %d times, got more", dashes(o), o->name, CLI_TEXTS_MAX);
        }
        texts->item[texts->count++] = text;
        return CLI_GO_ON;
    }
    if (parse_number(o, text)) return CLI_GO_ON;
    if (o->kind == CLI_UNSIGNED)
        return cli_usage_error("%s%s: expected a whole number >= 0, got %s", dashes(o), o->name, text);
    return cli_usage_error("%s%s: expected %s from %.9g to %.9g, got %s", dashes(o), o->name,
                           o->kind == CLI_NUMBER ? "a whole number" : "a number", o->low, o->high, text);
}

int cli_parse(const cli_command *command, const cli_options *tables, size_t table_count, int argc, char **argv,
              cli_texts *rest, size_t rest_max)
{
    bool only_rest = false;
    for (int i = 1; i < argc; i++) {
        const char *argument = argv[i];
        if (only_rest || argument[0] != '-' || argument[1] == '\0') {
            if (rest->count == rest_max) {
                return cli_usage_error("%s: expected an option, got %s", command->name, argument);
            }
            if (*argument == '\0') return cli_usage_error("%s: expected an argument, got an empty one", command->name);
            rest->item[rest->count++] = argument;
            continue;
        }
        if (strcmp(argument, "--") == 0) {
            only_rest = true;
            continue;
        }
        if (strcmp(argument, "-h") == 0 || strcmp(argument, "--help") == 0) {
            print_help_options(command, tables, table_count);
            return CLI_DONE;
        }
        const char *name = argument + (argument[1] == '-' ? 2 : 1);
        const char *equals = argument[1] == '-' ? strchr(name, '=') : NULL;
        const size_t length = equals ? (size_t)(equals - name) : strlen(name);
        const cli_option *o = find_options(tables, table_count, name, length);
        if (!o || (length == 1) != (argument[1] != '-')) {
            return cli_usage_error("%s: expected a known option (see -h), got %s", command->name, argument);
        }
        if (o->kind == CLI_FLAG) {
            if (equals) return cli_usage_error("--%s: expected no value, got one", o->name);
            *(bool *)o->value = true;
            continue;
        }
        if (!equals && i + 1 == argc) return cli_usage_error("%s: expected a value, got none", argument);
        const int code = store(o, equals ? equals + 1 : argv[++i]);
        if (code != CLI_GO_ON) return code;
    }
    return CLI_GO_ON;
}

int cli_positional(const cli_command *command, const cli_texts *rest, const char *option, const char **value)
{
    if (rest->count == 0) return CLI_GO_ON;
    if (*value) {
        return cli_usage_error("%s: expected one of %s and an argument, got both: %s and %s", command->name, option,
                               *value, rest->item[0]);
    }
    *value = rest->item[0];
    return CLI_GO_ON;
}

/* One of the names in a list with spaces. */
static bool is_named(const char *names, const char *name)
{
    const size_t length = strlen(name);
    for (const char *p = names; *p;) {
        const size_t next = strcspn(p, " ");
        if (next == length && strncmp(p, name, length) == 0) return true;
        p += next + (p[next] == ' ');
    }
    return false;
}

void cli_engine_options(cli_engine *e, cli_option options[CLI_ENGINE_OPTION_COUNT], const char *without)
{
    *e = (cli_engine){.scales = "rtn", .last = 1};
    const cli_option all[CLI_ENGINE_OPTION_COUNT] = {
        {"m", CLI_TEXT, &e->model, 0, 0, "checkpoint directory (default: the bundled model)"},
        {"prefill", CLI_TEXT, &e->prefill, 0, 0,
         "format of the prompt: nvfp4 (default), int8, bf16, w16a16, w4a16, fp8, auto"},
        {"decode", CLI_TEXT, &e->decode, 0, 0, "format of the answer: bf16 (default), nvfp4, w4a16, int8, w16a16, fp8"},
        {"attention", CLI_TEXT, &e->attention, 0, 0,
         "attention over the prompt: bf16, int8, w16a16, auto (default beside nvfp4, int8 and auto)"},
        {"head", CLI_TEXT, &e->head, 0, 0, "format of lm_head: bf16 (default: the checkpoint's type), w4a16, nvfp4"},
        {"plan", CLI_TEXT, &e->plan, 0, 0, "JSON file with formats per layer (docs/PLANS.md)"},
        {"prefill-model", CLI_TEXT, &e->prefill_model, 0, 0, "separate NVFP4 checkpoint for the prompt"},
        {"scales", CLI_TEXT, &e->scales, 0, 0, "rule for NVFP4 block scales: rtn (default), four-six, sweep"},
        {"t", CLI_NUMBER, &e->threads, 0, MQ_THREADS_MAX, "threads (default 0: all processors)"},
        {"c", CLI_NUMBER, &e->context, 0, 16777216,
         "context in tokens (default 0: the model's, as far as memory allows)"},
        {"chunk", CLI_NUMBER, &e->chunk, 0, 65536, "prompt tokens per pass (default 0: 512, with experts 2048)"},
        {"last", CLI_NUMBER, &e->last, 1, 65536,
         "prompt tokens at the end that run in the answer's format (default 1)"},
        {"cache-dir", CLI_TEXT, &e->cache_dir, 0, 0,
         "where packed weights are kept; serve: KV of prefixes, too, in DIR/kv"},
        {"no-cache", CLI_FLAG, &e->no_cache, 0, 0, "do not keep packed weights on disk"},
        {"numa", CLI_TEXT, &e->numa, 0, 0, "copy weights near their threads: on, off (the file map), auto (default)"},
    };
    memcpy(options, all, sizeof all);
    for (size_t i = 0; i < CLI_ENGINE_OPTION_COUNT; i++) {
        if (is_named(without, options[i].name)) options[i].help = NULL;
    }
}

void cli_sampling_options(cli_sampling *s, cli_option options[CLI_SAMPLING_OPTION_COUNT])
{
    *s = (cli_sampling){NAN, NAN, NAN, NAN, NAN, NAN, .top_k = -1};
    const cli_option all[CLI_SAMPLING_OPTION_COUNT] = {
        {"temp", CLI_FLOAT, &s->temperature, 0, 100, "temperature; 0: greedy (default: the model's, else 0)"},
        {"top-k", CLI_NUMBER, &s->top_k, 0, 2147483647.0, "keep the k best; 0: all (default: the model's, else 0)"},
        {"top-p", CLI_FLOAT, &s->top_p, 0, 1,
         "keep the best that hold this probability (default: the model's, else 1)"},
        {"min-p", CLI_FLOAT, &s->min_p, 0, 1, "keep those above this share of the best (default: the model's, else 0)"},
        {"repetition-penalty", CLI_FLOAT, &s->repetition_penalty, 1e-3, 1000,
         "divide repeated logits (default: the model's, else 1)"},
        {"presence-penalty", CLI_FLOAT, &s->presence_penalty, -100, 100, "subtract for used tokens (default 0)"},
        {"frequency-penalty", CLI_FLOAT, &s->frequency_penalty, -100, 100, "subtract per use (default 0)"},
        {"seed", CLI_UNSIGNED, &s->seed, 0, 0, "of the sampler (default 0)"},
        {"stop", CLI_TEXTS, &s->stops, 0, 0, "end before this text (repeatable)"},
    };
    memcpy(options, all, sizeof all);
}

static float given_or(float given, float otherwise)
{
    return isnan(given) ? otherwise : given;
}

mq_sampling cli_sampling_of(const cli_sampling *given, const mq_sampling *suggested)
{
    mq_sampling s = *suggested;
    s.temperature = given_or(given->temperature, s.temperature);
    s.top_p = given_or(given->top_p, s.top_p);
    s.min_p = given_or(given->min_p, s.min_p);
    s.repetition_penalty = given_or(given->repetition_penalty, s.repetition_penalty);
    s.presence_penalty = given_or(given->presence_penalty, s.presence_penalty);
    s.frequency_penalty = given_or(given->frequency_penalty, s.frequency_penalty);
    if (given->top_k >= 0) s.top_k = given->top_k;
    s.seed = given->seed;
    return s;
}

size_t cli_number_list(const char *text, long low, long high, long *numbers, size_t max)
{
    size_t count = 0;
    while (count < max) {
        char *end;
        errno = 0;
        const long value = strtol(text, &end, 10);
        if (end == text || errno || value < low || value > high) return 0;
        numbers[count++] = value;
        if (*end == '\0') return count;
        if (*end != ',') return 0;
        text = end + 1;
    }
    return 0;
}

int cli_drafter(const char *name, mq_engine *engine, mq_drafter **drafter)
{
    mq_error error = {0};
    mq_draft draft = MQ_DRAFT_OFF;
    *drafter = NULL;
    if (name && mq_draft_parse(name, &draft, &error) != MQ_OK) return cli_report(&error);
    if (draft == MQ_DRAFT_OFF) return CLI_DONE;
    return mq_drafter_new(engine, draft, drafter, &error) == MQ_OK ? CLI_DONE : cli_report(&error);
}
