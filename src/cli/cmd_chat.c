#include "base/unicode.h"
#include "cli/chat_input.h"
#include "cli/turn.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

typedef struct conversation {
    cli_turn turn;
    cli_input input;
    json_t *messages;
    size_t kept;      /* messages that /clear keeps: the system's */
    uint32_t context; /* tokens */
    bool stats;
} conversation;

static bool add_message_chat(json_t *messages, const char *role, const char *content, size_t bytes)
{
    json_t *text = json_stringn(content, bytes);
    return text && json_array_append_new(messages, json_pack("{ssso}", "role", role, "content", text)) == 0;
}

/* An answer may be cut inside a character: what is no UTF-8 becomes U+FFFD. */
static bool add_answer(json_t *messages, const cli_turn *turn)
{
    mq_buf text = {0};
    for (size_t at = 0; at < turn->answer_bytes;) {
        const uint32_t code = mq__utf8_next(turn->answer, turn->answer_bytes, &at);
        mq__utf8_put(&text, code == MQ_UTF8_INVALID ? 0xFFFD : code);
    }
    const bool added = !text.failed && add_message_chat(messages, "assistant", text.data ? text.data : "", text.len);
    mq__buf_free(&text);
    return added;
}

static void forget_messages(conversation *c, size_t from)
{
    while (json_array_size(c->messages) > from) {
        json_array_remove(c->messages, json_array_size(c->messages) - 1);
    }
}

static mq_status render_messages(const conversation *c, char **prompt, size_t *bytes, mq_error *error)
{
    json_t *body = json_pack("{sOsb}", "messages", c->messages, "add_generation_prompt", 1);
    char *request = body ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    if (!request) {
        *error = (mq_error){MQ_NO_MEMORY, "chat: messages: expected memory, got none"};
        return MQ_NO_MEMORY;
    }
    const mq_status status = mq_render(c->turn.text, request, strlen(request), prompt, bytes, error);
    free(request);
    return status;
}

static void print_notes(const conversation *c)
{
    const cli_turn *t = &c->turn;
    if (t->generated.finish == MQ_FINISH_LENGTH && t->generated.generated < t->max_tokens) {
        fprintf(stderr, "mixquant: chat: context: expected at most %u tokens, got there: /clear forgets the turns\n",
                c->context);
    }
    if (!c->stats) return;
    fprintf(stderr, "[%u prompt tokens, %u reused, prefill %.1f tok/s, decode %.1f tok/s]\n", t->prompt_tokens,
            t->sync.cached, cli_rate(t->sync.prefilled, t->sync.prefill_s),
            cli_rate(cli_decoded(&t->generated), t->generated.decode_s));
}

/* A turn that does not fit, was stopped or that the template refuses is as if it had not been said: the conversation goes
 * on. What would fail again at every turn ends it. */
static int refuse_turn(conversation *c, size_t before, const mq_error *error)
{
    forget_messages(c, before);
    fflush(stdout);
    if (error->status == MQ_CANCELLED) {
        fprintf(stderr, "(stopped before the answer; the message is not kept)\n");
        return CLI_DONE;
    }
    if (error->status == MQ_LIMIT) {
        fprintf(stderr, "mixquant: %s: send less, or /clear to forget the turns\n", error->text);
        return CLI_DONE;
    }
    const int code = cli_report(error);
    return error->status == MQ_USAGE || (error->status == MQ_TEMPLATE && before > c->kept) ? CLI_DONE : code;
}

static int answer_chat(conversation *c, const char *line, size_t bytes)
{
    mq_error error = {0};
    char *prompt = NULL;
    size_t count;
    const size_t before = json_array_size(c->messages);
    if (!add_message_chat(c->messages, "user", line, bytes)) {
        fprintf(stderr, "mixquant: chat: input: expected UTF-8, got other bytes\n");
        return CLI_DONE; /* the conversation goes on */
    }
    mq_status status = render_messages(c, &prompt, &count, &error);
    if (status == MQ_OK) status = cli_turn_try(&c->turn, prompt, count, MQ_TOKENIZE_PARSE_SPECIAL, &error);
    mq_free(prompt);
    if (status != MQ_OK) return refuse_turn(c, before, &error);
    putchar('\n');
    fflush(stdout);
    print_notes(c);
    if (!add_answer(c->messages, &c->turn)) forget_messages(c, before);
    return CLI_DONE;
}

/* Commands are whole lines. Returns whether it was one. */
static bool obey(conversation *c, const char *line, bool *leave)
{
    *leave = strcmp(line, "/exit") == 0 || strcmp(line, "/quit") == 0;
    if (*leave) return true;
    if (strcmp(line, "/clear") == 0) {
        forget_messages(c, c->kept);
        return true;
    }
    if (strcmp(line, "/help") != 0) return false;
    fprintf(stderr, "/clear forgets the conversation but the system message, /exit leaves (as Ctrl-D does),\n"
                    "Ctrl-C stops an answer; a pasted block is one message\n");
    return true;
}

static int converse(conversation *c)
{
    int code = CLI_DONE;
    bool leave = false, warned = false; /* warned: the next Ctrl-C at an empty prompt leaves */
    while (code == CLI_DONE && !leave && !ferror(stdout)) {
        const cli_input_result result = cli_input_read(&c->input);
        if (result == CLI_INPUT_END) break;
        if (result == CLI_INPUT_INTERRUPTED) {
            leave = warned;
            if (!leave) fprintf(stderr, "(Ctrl-C again, Ctrl-D or /exit leaves)\n");
        }
        warned = result != CLI_INPUT_TURN;
        if (result != CLI_INPUT_TURN || c->input.turn.len == 0 || obey(c, c->input.turn.data, &leave)) continue;
        code = answer_chat(c, c->input.turn.data, c->input.turn.len);
        warned = cli_interrupted(); /* it stopped the answer */
    }
    return code;
}

static int begin_conversation(conversation *c, const mq_engine *engine, const char *system)
{
    mq_engine_info info;
    mq_engine_describe(engine, &info);
    c->context = info.context;
    c->messages = json_array();
    if (system && !add_message_chat(c->messages, "system", system, strlen(system))) {
        return cli_usage_error("chat: --system: expected UTF-8, got other bytes");
    }
    c->kept = json_array_size(c->messages);
    cli_input_open(&c->input);
    const int code = converse(c);
    cli_input_close(&c->input);
    return code;
}

static int run_chat(int argc, char **argv)
{
    cli_engine options;
    cli_sampling given;
    conversation c = {.turn = {.echo = stdout, .stopped = cli_interrupted}};
    const char *system = NULL, *draft = NULL;
    int max_tokens = 1024;
    cli_option engine[CLI_ENGINE_OPTION_COUNT], sampling[CLI_SAMPLING_OPTION_COUNT];
    cli_engine_options(&options, engine, "");
    cli_sampling_options(&given, sampling);
    const cli_option own[] = {
        {"system", CLI_TEXT_OR_EMPTY, &system, 0, 0, "system message"},
        {"n", CLI_NUMBER, &max_tokens, 1, 16777216, "tokens of one answer at most (default 1024)"},
        {"draft", CLI_TEXT, &draft, 0, 0, CLI_DRAFT_HELP " (default off)"},
        {"stats", CLI_FLAG, &c.stats, 0, 0, "print tokens and speeds after each answer"},
    };
    const cli_options tables[] = {CLI_OPTIONS(own), CLI_OPTIONS(sampling), CLI_OPTIONS(engine)};
    cli_texts rest = {.count = 0};
    int code = cli_parse(&cli_chat, tables, 3, argc, argv, &rest, 1);
    if (code == CLI_GO_ON) code = cli_positional(&cli_chat, &rest, "-m", &options.model);
    if (code != CLI_GO_ON) return code;
    mq_engine *opened;
    mq_text *text;
    code = cli_open(&options, &opened, &text);
    if (code != CLI_DONE) return code;
    mq_error error = {0};
    c.turn.text = text;
    c.turn.max_tokens = (uint32_t)max_tokens;
    c.turn.sampling = cli_sampling_choose(&given, opened);
    c.turn.stops = given.stops;
    code = cli_drafter(draft, opened, &c.turn.drafter);
    if (code == CLI_DONE && mq_sequence_new(opened, &c.turn.sequence, &error) != MQ_OK) code = cli_report(&error);
    if (code == CLI_DONE) code = begin_conversation(&c, opened, system);
    json_decref(c.messages);
    cli_turn_clear(&c.turn);
    mq_drafter_free(c.turn.drafter);
    mq_sequence_free(c.turn.sequence);
    mq_engine_close(opened);
    mq_text_close(text);
    return code;
}

const cli_command cli_chat = {"chat", "[DIR] [options]", "conversation in the terminal (/help lists its commands)",
                              run_chat};
