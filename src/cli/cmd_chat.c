#include "cli/turn.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct conversation {
    cli_turn turn;
    json_t *messages;
    bool stats;
} conversation;

static bool add_message_chat(json_t *messages, const char *role, const char *content, size_t bytes)
{
    json_t *text = json_stringn(content, bytes);
    return text && json_array_append_new(messages, json_pack("{ssso}", "role", role, "content", text)) == 0;
}

static int answer_chat(conversation *c, const char *line, size_t bytes)
{
    mq_error error = {0};
    char *prompt;
    size_t count;
    if (!add_message_chat(c->messages, "user", line, bytes)) {
        fprintf(stderr, "mixquant: chat: input: expected UTF-8, got other bytes\n");
        return CLI_DONE; /* the conversation goes on */
    }
    json_t *body = json_pack("{sOsb}", "messages", c->messages, "add_generation_prompt", 1);
    char *request = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    if (!request) return CLI_FAILED;
    const mq_status status = mq_render(c->turn.text, request, strlen(request), &prompt, &count, &error);
    free(request);
    if (status != MQ_OK) return cli_report(&error);
    const int code = cli_turn_run(&c->turn, prompt, count, MQ_TOKENIZE_PARSE_SPECIAL);
    mq_free(prompt);
    if (code != CLI_DONE) return code;
    putchar('\n');
    if (c->stats) {
        const cli_turn *t = &c->turn;
        fprintf(stderr, "[%u prompt tokens, %u reused, prefill %.1f tok/s, decode %.1f tok/s]\n", t->prompt_tokens,
                t->sync.cached, cli_rate(t->sync.prefilled, t->sync.prefill_s),
                cli_rate(t->generated.steps, t->generated.decode_s));
    }
    /* Text of the model is text: bytes that are no UTF-8 (a cut answer) stay out of the history. */
    if (!add_message_chat(c->messages, "assistant", c->turn.answer, c->turn.answer_bytes)) {
        json_array_remove(c->messages, json_array_size(c->messages) - 1);
    }
    return CLI_DONE;
}

static int converse(conversation *c)
{
    const bool terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    char *line = NULL;
    size_t cap = 0;
    int code = CLI_DONE;
    while (code == CLI_DONE) {
        if (terminal) {
            fputs("> ", stdout);
            fflush(stdout);
        }
        ssize_t length = getline(&line, &cap, stdin);
        if (length < 0) break;
        while (length > 0 && (line[length - 1] == '\n' || line[length - 1] == '\r')) {
            line[--length] = '\0';
        }
        if (strcmp(line, "/exit") == 0 || strcmp(line, "/quit") == 0) break;
        if (strcmp(line, "/clear") == 0) {
            while (json_array_size(c->messages) > 0) {
                json_array_remove(c->messages, json_array_size(c->messages) - 1);
            }
        } else if (length > 0) {
            code = answer_chat(c, line, (size_t)length);
        }
    }
    free(line);
    return code;
}

static int run_chat(int argc, char **argv)
{
    cli_engine options;
    conversation c = {0};
    const char *system = NULL;
    int max_tokens = 1024;
    cli_option engine[CLI_ENGINE_OPTION_COUNT], sampling[CLI_SAMPLING_OPTION_COUNT];
    cli_engine_options(&options, engine);
    cli_sampling_options(&c.turn.sampling, sampling);
    const cli_option own[] = {
        {"system", CLI_TEXT, &system, 0, 0, "system message"},
        {"n", CLI_NUMBER, &max_tokens, 1, 16777216, "tokens of one answer at most (default 1024)"},
        {"stats", CLI_FLAG, &c.stats, 0, 0, "print tokens and speeds after each answer"},
    };
    const cli_options tables[] = {CLI_OPTIONS(own), CLI_OPTIONS(sampling), CLI_OPTIONS(engine)};
    cli_texts rest = {.count = 0};
    int code = cli_parse(&cli_chat, tables, 3, argc, argv, &rest, 0);
    if (code != CLI_GO_ON) return code;
    mq_engine *opened;
    mq_text *text;
    code = cli_open(&options, &opened, &text);
    if (code != CLI_DONE) return code;
    mq_error error = {0};
    c.turn.text = text;
    c.turn.max_tokens = (uint32_t)max_tokens;
    c.turn.echo = stdout;
    c.messages = json_array();
    if (system && !add_message_chat(c.messages, "system", system, strlen(system))) {
        code = cli_usage_error("chat: --system: expected UTF-8, got other bytes");
    }
    if (code == CLI_DONE && mq_sequence_new(opened, &c.turn.session, &error) != MQ_OK) code = cli_report(&error);
    if (code == CLI_DONE) code = converse(&c);
    json_decref(c.messages);
    cli_turn_clear(&c.turn);
    mq_sequence_free(c.turn.session);
    mq_engine_close(opened);
    mq_text_close(text);
    return code;
}

const cli_command cli_chat = {"chat", "[-m DIR] [options]", "conversation in the terminal (/clear forgets, /exit ends)",
                              run_chat};
