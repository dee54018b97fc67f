#include "base/pool.h"
#include "cli/turn.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

typedef struct settings {
    cli_engine engine;
    cli_sampling sampling;
    const char *prompt, *file, *system, *draft;
    int max_tokens;
    bool chat, stats, ignore_eos, special;
} settings;

static bool add_message_run(json_t *messages, const char *role, const char *content, size_t bytes)
{
    json_t *text = json_stringn(content, bytes);
    return text && json_array_append_new(messages, json_pack("{ssso}", "role", role, "content", text)) == 0;
}

/* The prompt as one user message through the model's chat template. */
static int render_chat(const mq_text *text, const settings *s, const char *user, size_t bytes, char **prompt,
                       size_t *count)
{
    mq_error error = {0};
    json_t *messages = json_array();
    const char *wrong = NULL;
    if (s->system && !add_message_run(messages, "system", s->system, strlen(s->system))) {
        wrong = "--system";
    } else if (!add_message_run(messages, "user", user, bytes)) {
        wrong = s->prompt ? "-p" : s->file ? s->file : "stdin";
    }
    json_t *body = json_pack("{sosb}", "messages", messages, "add_generation_prompt", 1);
    char *request = body && !wrong ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    if (wrong) {
        const int code = cli_usage_error("run: %s: expected UTF-8 with --chat, got other bytes", wrong);
        return s->prompt ? code : CLI_REFUSED; /* an input file */
    }
    if (!request) return cli_report(&(mq_error){MQ_NO_MEMORY, "run: prompt: expected memory, got none"});
    const mq_status status = mq_render(text, request, strlen(request), prompt, count, &error);
    free(request);
    return status == MQ_OK ? CLI_DONE : cli_report(&error);
}

static void print_stats(const cli_turn *turn, const mq_engine *engine, double load_s)
{
    mq_engine_info info;
    mq_engine_describe(engine, &info);
    json_t *stats = json_pack(
        "{si si si sf sf sf si sf sf si si sf ss s{ssss} ss si ss}", "prompt_tokens", (int)turn->prompt_tokens,
        "cached_tokens", (int)turn->sync.cached, "prefill_tokens", (int)turn->sync.prefilled, "prefill_s",
        turn->sync.prefill_s, "prefill_tok_s", cli_rate(turn->sync.prefilled, turn->sync.prefill_s), "last_token_s",
        turn->sync.last_s, "generated_tokens", (int)turn->generated.generated, "decode_s", turn->generated.decode_s,
        "decode_tok_s", cli_rate(cli_decoded(&turn->generated), turn->generated.decode_s), "draft_n",
        (int)turn->generated.drafted, "draft_n_accepted", (int)turn->generated.drafted_right, "load_s", load_s,
        "finish", cli_finish_name(turn->generated.finish), "plan", "prefill", mq_linear_format_name(info.prefill),
        "decode", mq_linear_format_name(info.decode), "attention", mq_attention_format_name(info.attention), "threads",
        info.threads, "isa", info.isa);
    const mq_sampling *p = &turn->sampling;
    json_t *sampling =
        json_pack("{sf si sf sf sf}", "temperature", (double)p->temperature, "top_k", p->top_k, "top_p",
                  (double)p->top_p, "min_p", (double)p->min_p, "repetition_penalty", (double)p->repetition_penalty);
    (void)json_object_set_new(stats, "sampling", sampling); /* without memory: left out */
    char *line = stats ? json_dumps(stats, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
    if (line) fprintf(stderr, "%s\n", line);
    free(line);
    json_decref(stats);
}

static int run_prompt(const settings *s, const char *input, size_t bytes)
{
    const double start = mq__seconds();
    mq_engine *engine;
    mq_text *text = NULL;
    int code = cli_open(&s->engine, &engine, &text);
    if (code != CLI_DONE) return code;
    mq_error error = {0};
    cli_turn turn = {.text = text,
                     .sampling = cli_sampling_choose(&s->sampling, engine),
                     .stops = s->sampling.stops,
                     .max_tokens = (uint32_t)s->max_tokens,
                     .echo = stdout,
                     .ignore_eos = s->ignore_eos,
                     .keep_special = s->special};
    char *prompt = NULL;
    size_t count = 0;
    code = cli_drafter(s->draft, engine, &turn.drafter);
    if (code == CLI_DONE && mq_sequence_new(engine, &turn.sequence, &error) != MQ_OK) code = cli_report(&error);
    const double load_s = mq__seconds() - start;
    if (code == CLI_DONE && s->chat) code = render_chat(text, s, input, bytes, &prompt, &count);
    if (code == CLI_DONE) {
        const unsigned flags = MQ_TOKENIZE_PARSE_SPECIAL | (s->chat ? 0u : MQ_TOKENIZE_ADD_SPECIAL);
        code = cli_turn_run(&turn, s->chat ? prompt : input, s->chat ? count : bytes, flags);
    }
    if (code == CLI_DONE) {
        putchar('\n');
        fflush(stdout);
        if (s->stats) print_stats(&turn, engine, load_s);
    }
    mq_free(prompt);
    cli_turn_clear(&turn);
    mq_drafter_free(turn.drafter);
    mq_sequence_free(turn.sequence);
    mq_engine_close(engine);
    mq_text_close(text);
    return code;
}

static int run_once(int argc, char **argv)
{
    settings s = {.max_tokens = 256};
    cli_option engine[CLI_ENGINE_OPTION_COUNT], sampling[CLI_SAMPLING_OPTION_COUNT];
    cli_engine_options(&s.engine, engine, "");
    cli_sampling_options(&s.sampling, sampling);
    const cli_option own[] = {
        {"p", CLI_TEXT_OR_EMPTY, &s.prompt, 0, 0, "the prompt (default: from -f, else stdin)"},
        {"f", CLI_TEXT, &s.file, 0, 0, "file that holds the prompt"},
        {"chat", CLI_FLAG, &s.chat, 0, 0, "the prompt is a user message: apply the chat template"},
        {"system", CLI_TEXT_OR_EMPTY, &s.system, 0, 0, "system message, with --chat"},
        {"n", CLI_NUMBER, &s.max_tokens, 0, 16777216, "tokens to generate at most (default 256)"},
        {"stats", CLI_FLAG, &s.stats, 0, 0, "print one JSON line about both phases on stderr"},
        {"ignore-eos", CLI_FLAG, &s.ignore_eos, 0, 0, "go on past the model's end token"},
        {"draft", CLI_TEXT, &s.draft, 0, 0, CLI_DRAFT_HELP " (default off)"},
        {"special", CLI_FLAG, &s.special, 0, 0, "print special tokens"},
    };
    const cli_options tables[] = {CLI_OPTIONS(own), CLI_OPTIONS(sampling), CLI_OPTIONS(engine)};
    cli_texts rest = {.count = 0};
    int code = cli_parse(&cli_run, tables, 3, argc, argv, &rest, 0);
    if (code != CLI_GO_ON) return code;
    if (s.prompt && s.file) return cli_usage_error("run: expected one of -p and -f, got both");
    if (s.prompt) return run_prompt(&s, s.prompt, strlen(s.prompt));
    char *input;
    size_t bytes;
    code = cli_read(s.file, &input, &bytes);
    if (code != CLI_DONE) return code;
    code = run_prompt(&s, input, bytes);
    free(input);
    return code;
}

const cli_command cli_run = {"run", "[-m DIR] [-p TEXT | -f FILE] [options]", "prompt in, text out", run_once};
