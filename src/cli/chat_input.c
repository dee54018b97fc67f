#include "cli/chat_input.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROMPT "> "

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

bool cli_interrupted(void)
{
    return interrupted != 0;
}

static bool is_dumb_terminal(void)
{
    const char *term = getenv("TERM");
    return !term || !*term || strcmp(term, "dumb") == 0;
}

/* Asks the terminal to put \e[200~ and \e[201~ around what is pasted. All the time: one may paste while an answer streams. */
static void set_brackets(const cli_input *input, bool on)
{
    if (!input->brackets) return;
    fputs(on ? "\033[?2004h" : "\033[?2004l", stdout);
    fflush(stdout);
}

/* Ctrl-C ends a read from the keyboard, but a write of the answer goes on. */
static void catch_interrupt(const cli_input *input, int flags)
{
    const struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = flags};
    if (input->keyboard) sigaction(SIGINT, &action, NULL);
}

void cli_input_open(cli_input *input)
{
    *input = (cli_input){.keyboard = isatty(STDIN_FILENO), .turn = {.max = CLI_TURN_MAX}};
    input->prompts = input->keyboard && isatty(STDOUT_FILENO);
    catch_interrupt(input, SA_RESTART);
    if (!input->prompts || is_dumb_terminal()) return;
    input->editor = cli_editor_open(PROMPT);
    input->brackets = !input->editor || cli_editor_brackets(input->editor);
    set_brackets(input, true);
}

void cli_input_close(cli_input *input)
{
    set_brackets(input, false);
    cli_editor_close(input->editor);
    mq__buf_free(&input->turn);
    if (input->keyboard) signal(SIGINT, SIG_DFL);
}

/* When the turn ends with a mark of a paste, takes the mark away and notes whether a paste goes on. */
static void take_marks(mq_buf *turn, bool *pasting)
{
    static const char begin[] = "\033[200~", end[] = "\033[201~";
    const size_t length = sizeof begin - 1;
    if (turn->len < length) return;
    const char *tail = turn->data + turn->len - length;
    const bool is_begin = memcmp(tail, begin, length) == 0;
    if (!is_begin && memcmp(tail, end, length) != 0) return;
    turn->len -= length;
    turn->data[turn->len] = '\0';
    *pasting = is_begin;
}

static cli_input_result read_end(cli_input *input)
{
    if (ferror(stdin) && errno == EINTR && interrupted) {
        clearerr(stdin);
        return CLI_INPUT_INTERRUPTED;
    }
    return input->turn.len ? CLI_INPUT_TURN : CLI_INPUT_END;
}

static cli_input_result read_plain(cli_input *input)
{
    bool pasting = false;
    while (true) {
        const int byte = getc(stdin);
        if (byte == EOF && ferror(stdin) && errno == EINTR && !interrupted) {
            clearerr(stdin); /* another signal, as that of going on after Ctrl-Z */
            continue;
        }
        if (byte == EOF && !input->turn.failed) return read_end(input);
        if (byte == EOF || (byte == '\n' && !pasting)) break;
        mq__buf_putc(&input->turn, (char)byte);
        if (byte == '~' && input->brackets && !input->turn.failed) take_marks(&input->turn, &pasting);
    }
    if (!input->turn.failed) return CLI_INPUT_TURN;
    fprintf(stderr, "mixquant: chat: input: expected at most %zu bytes in a turn, got more\n", CLI_TURN_MAX);
    return CLI_INPUT_DISCARDED;
}

static cli_input_result read_edited(cli_input *input)
{
    const cli_edit_result result = cli_editor_read(input->editor, &input->turn);
    if (result == CLI_EDIT_TURN) return CLI_INPUT_TURN;
    if (result == CLI_EDIT_END) return CLI_INPUT_END;
    return input->turn.len ? CLI_INPUT_DISCARDED : CLI_INPUT_INTERRUPTED;
}

/* Line ends of other systems and of pastes are no part of the turn. */
static void trim_line_ends(mq_buf *turn)
{
    while (turn->len > 0 && (turn->data[turn->len - 1] == '\n' || turn->data[turn->len - 1] == '\r')) {
        turn->data[--turn->len] = '\0';
    }
}

cli_input_result cli_input_read(cli_input *input)
{
    interrupted = 0;
    mq__buf_clear(&input->turn);
    if (input->prompts && !input->editor) {
        fputs(PROMPT, stdout);
        fflush(stdout);
    }
    catch_interrupt(input, 0);
    const cli_input_result result = input->editor ? read_edited(input) : read_plain(input);
    catch_interrupt(input, SA_RESTART);
    const bool leaves_line = result != CLI_INPUT_TURN && input->prompts;
    if (leaves_line) putchar('\n'); /* the cursor stands behind the prompt */
    if (result == CLI_INPUT_TURN) trim_line_ends(&input->turn);
    return result;
}
