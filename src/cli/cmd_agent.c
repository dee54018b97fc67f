/* A tool-using episode: question, tool call, the tool run over local data, answer; then what each phase cost. */
#include "base/mem.h"
#include "cli/turn.h"
#include "eval/scene.h"

#include <stdlib.h>
#include <string.h>

#define CALLS_MAX 4 /* tool calls for one question */

typedef struct episode {
    const json_t *scene;
    json_t *messages, *tools;
    mq_engine *engine;
    cli_turn turn;
    uint32_t prompt, cached, prefilled, decoded;
    double prefill_s, decode_s;
    int questions, right;
    const char *plan_file; /* NULL, or of formats per layer */
    bool is_bundled;       /* the model */
} episode;

static int ask_agent(episode *e)
{
    mq_error error = {0};
    char *prompt;
    size_t bytes;
    json_t *body = json_pack("{sOsOsb}", "messages", e->messages, "tools", e->tools, "add_generation_prompt", 1);
    char *request = body ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    if (!request) return CLI_FAILED;
    const mq_status status = mq_render(e->turn.text, request, strlen(request), &prompt, &bytes, &error);
    free(request);
    if (status != MQ_OK) return cli_report(&error);
    const int code = cli_turn_run(&e->turn, prompt, bytes, MQ_TOKENIZE_PARSE_SPECIAL);
    mq_free(prompt);
    if (code != CLI_DONE) return code;
    e->prompt = e->turn.prompt_tokens;
    e->cached += e->turn.sync.cached;
    e->prefilled += e->turn.sync.prefilled;
    e->prefill_s += e->turn.sync.prefill_s;
    e->decoded += e->turn.generated.steps + 1; /* the prompt's last token is a decode step too */
    e->decode_s += e->turn.generated.decode_s + e->turn.sync.last_s;
    return CLI_DONE;
}

static void print_result(const char *result)
{
    size_t lines = 1;
    for (const char *p = result; *p; p++) {
        lines += *p == '\n';
    }
    const int shown = (int)strcspn(result, "\n");
    printf("  tool      %.*s\n", shown, result);
    if (lines > 1) printf("            ... %zu rows, %zu bytes\n", lines, strlen(result));
}

/* Runs the calls of one question until the model answers in text. *called is the last tool used. */
static int answer_agent(episode *e, char called[64])
{
    int code = CLI_DONE;
    called[0] = '\0';
    for (int round = 0; round <= CALLS_MAX; round++) {
        code = ask_agent(e);
        if (code != CLI_DONE) return code;
        json_t *call = round < CALLS_MAX ? mq__scene_parse_call(e->turn.answer) : NULL;
        if (!call) break;
        const char *name = json_string_value(json_object_get(call, "name"));
        char *arguments = json_dumps(json_object_get(call, "arguments"), 0);
        char *result = mq__scene_call(e->scene, name, json_object_get(call, "arguments"));
        snprintf(called, 64, "%s", name);
        printf("  call      %s %s\n", name, arguments ? arguments : "");
        if (result) print_result(result);
        json_array_append_new(e->messages, json_pack("{sssss[{sss{sssO}}]}", "role", "assistant", "content", "",
                                                     "tool_calls", "type", "function", "function", "name", name,
                                                     "arguments", json_object_get(call, "arguments")));
        json_array_append_new(e->messages, json_pack("{ssss}", "role", "tool", "content", result ? result : ""));
        free(arguments);
        mq__free(result);
        json_decref(call);
    }
    json_array_append_new(e->messages,
                          json_pack("{ssss%}", "role", "assistant", "content", e->turn.answer, e->turn.answer_bytes));
    return code;
}

static bool is_right_turn(const json_t *turn, const char *text, const char *called)
{
    const char *expect = json_string_value(json_object_get(turn, "expect"));
    const char *call = json_string_value(json_object_get(turn, "call"));
    const char *last = strrchr(text, '\n');
    return (!expect || strstr(last ? last + 1 : text, expect)) && strcmp(called, call ? call : "") == 0;
}

static void indent(const char *label, const char *text)
{
    printf("  %-9s ", label);
    for (const char *p = text; *p; p++) {
        putchar(*p);
        if (*p == '\n') fputs("            ", stdout);
    }
    putchar('\n');
}

static int play(episode *e)
{
    const json_t *turns = json_object_get(e->scene, "turns"), *turn;
    size_t i;
    int code = CLI_DONE;
    json_array_append_new(e->messages,
                          json_pack("{sssO}", "role", "system", "content", json_object_get(e->scene, "system")));
    json_array_foreach(turns, i, turn)
    {
        char called[64];
        printf("turn %zu\n", i + 1);
        indent("user", json_string_value(json_object_get(turn, "user")));
        json_array_append_new(e->messages,
                              json_pack("{sssO}", "role", "user", "content", json_object_get(turn, "user")));
        code = answer_agent(e, called);
        if (code != CLI_DONE) return code;
        const bool right = is_right_turn(turn, e->turn.answer, called);
        indent("answer", e->turn.answer);
        printf("  %-9s %s\n\n", "check", right ? "right" : "wrong");
        e->questions++;
        e->right += right;
    }
    return code;
}

/* What BF16 is compared with: the format that ran, or NVFP4 where that was BF16. */
static mq_linear_format quantised_of(const mq_engine_info *info)
{
    return info->prefill == MQ_LINEAR_BF16 ? MQ_LINEAR_NVFP4 : info->prefill;
}

/* The same prompt once more, as it ran and in BF16: what the whole conversation costs without any reuse. */
static int compare_agent(episode *e, const mq_engine_info *info, double rates[2])
{
    const mq_plan_options plans[] = {
        {.prefill = quantised_of(info), .decode = info->decode, .file = e->plan_file, .attention = info->attention},
        {.prefill = MQ_LINEAR_BF16, .decode = info->decode, .attention = MQ_ATTENTION_BF16},
    };
    uint32_t count;
    const int32_t *held = mq_sequence_tokens(e->turn.sequence, &count);
    int32_t *tokens = malloc(count * sizeof *tokens);
    mq_error error = {0};
    mq_status status = MQ_OK;
    if (!tokens) return CLI_FAILED;
    memcpy(tokens, held, count * sizeof *tokens);
    for (int run = 0; status == MQ_OK && run < 6; run++) { /* in turn, best of three */
        mq_sync_stats stats;
        status = mq_engine_set_plan(e->engine, &plans[run % 2], &error);
        mq_sequence_truncate(e->turn.sequence, 0);
        if (status == MQ_OK) status = mq_sequence_sync(e->turn.sequence, tokens, count, NULL, &stats, &error);
        const double rate = status == MQ_OK ? cli_rate(stats.prefilled, stats.prefill_s) : 0;
        if (rate > rates[run % 2]) rates[run % 2] = rate;
    }
    free(tokens);
    return status == MQ_OK ? CLI_DONE : cli_report(&error);
}

static int print_table(episode *e)
{
    mq_engine_info info;
    mq_engine_describe(e->engine, &info);
    double rates[2] = {0, 0};
    printf("%d of %d answers right; %u tokens of conversation, %u of its prompt tokens reused between turns\n\n",
           e->right, e->questions, e->prompt, e->cached);
    printf("phase                 tokens      tok/s\n");
    printf("%-8s %-10s %8u %10.1f\n", "prefill", mq_linear_format_name(info.prefill), e->prefilled,
           cli_rate(e->prefilled, e->prefill_s));
    printf("%-8s %-10s %8u %10.1f\n", "decode", mq_linear_format_name(info.decode), e->decoded,
           cli_rate(e->decoded, e->decode_s));
    uint32_t count;
    (void)mq_sequence_tokens(e->turn.sequence, &count);
    const int code = compare_agent(e, &info, rates);
    if (code != CLI_DONE) return code;
    printf("\nthe whole conversation in one prefill, without reuse:\n");
    const char *quantised = mq_linear_format_name(quantised_of(&info));
    printf("%-8s %-10s %8u %10.1f   attention %s\n", "prefill", quantised, count - 1, rates[0],
           mq_attention_format_name(info.attention));
    printf("%-8s %-10s %8u %10.1f   attention %s\n", "prefill", "bf16", count - 1, rates[1],
           mq_attention_format_name(MQ_ATTENTION_BF16));
    printf("%s / bf16 prefill: %.2fx\n", quantised, rates[0] / rates[1]);
    if (e->is_bundled) {
        printf("The bundled model has %.1fM parameters, which lie in the processor's cache; larger models gain more: "
               "docs/PERF.md\n",
               1e-6 * (double)info.parameters);
    }
    return e->right == e->questions ? CLI_DONE : CLI_FAILED;
}

static int run_episode(const cli_engine *options, const cli_sampling *sampling, const char *scene_path, int max_tokens)
{
    episode e = {.turn = {.stops = sampling->stops, .max_tokens = (uint32_t)max_tokens},
                 .plan_file = options->plan,
                 .is_bundled = !options->model};
    mq_error error = {0};
    mq_text *text = NULL;
    char *path = NULL;
    if (!scene_path && asprintf(&path, "%s/demo.json", cli_model(options->model)) < 0) return CLI_FAILED;
    json_t *scene;
    const mq_status read = mq__scene_read(scene_path ? scene_path : path, &scene, &error);
    free(path);
    if (read != MQ_OK) return cli_report(&error);
    e.scene = scene;
    e.messages = json_array();
    e.tools = mq__scene_tools(scene);
    int code = cli_open(options, &e.engine, &text);
    e.turn.text = text;
    if (code == CLI_DONE) e.turn.sampling = cli_sampling_choose(sampling, e.engine);
    if (code == CLI_DONE && mq_sequence_new(e.engine, &e.turn.sequence, &error) != MQ_OK) code = cli_report(&error);
    if (code == CLI_DONE) code = play(&e);
    if (code == CLI_DONE) code = print_table(&e);
    json_decref(e.messages);
    json_decref(e.tools);
    json_decref(scene);
    cli_turn_clear(&e.turn);
    mq_sequence_free(e.turn.sequence);
    mq_engine_close(e.engine);
    mq_text_close(text);
    return code;
}

static int run_agent(int argc, char **argv)
{
    cli_engine options;
    cli_sampling sampling_values;
    const char *scene = NULL;
    int max_tokens = 256;
    cli_option engine[CLI_ENGINE_OPTION_COUNT], sampling[CLI_SAMPLING_OPTION_COUNT];
    cli_engine_options(&options, engine, "");
    cli_sampling_options(&sampling_values, sampling);
    const cli_option own[] = {
        {"scene", CLI_TEXT, &scene, 0, 0, "JSON with tools, tables and questions (default: the model's demo.json)"},
        {"n", CLI_NUMBER, &max_tokens, 1, 65536, "tokens of one answer at most (default 256)"},
    };
    const cli_options tables[] = {CLI_OPTIONS(own), CLI_OPTIONS(sampling), CLI_OPTIONS(engine)};
    cli_texts rest = {.count = 0};
    const int code = cli_parse(&cli_agent, tables, 3, argc, argv, &rest, 0);
    return code != CLI_GO_ON ? code : run_episode(&options, &sampling_values, scene, max_tokens);
}

const cli_command cli_agent = {"agent", "[options]", "a tool-using episode over local data, and what each phase cost",
                               run_agent};
