#include "cli/chat_input.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROMPT "> "

/* The pipe wakes who waits for a key, whichever thread the signal came to and whenever. */
static volatile sig_atomic_t interrupted;
static int wake[2] = {-1, -1};

static void on_interrupt(int number)
{
    const int before = errno;
    (void)number;
    interrupted = 1;
    if (write(wake[1], "", 1) < 0) { /* full: it wakes already */
    }
    errno = before;
}

static void forget_interrupt(void)
{
    char bytes[64];
    interrupted = 0;
    while (read(wake[0], bytes, sizeof bytes) > 0) {}
}

int cli_key_byte(char *byte)
{
    struct pollfd states[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = wake[0], .events = POLLIN}};
    if (poll(states, 2, -1) < 0) return -1;
    if (!states[1].revents) return (int)read(STDIN_FILENO, byte, 1);
    errno = EINTR;
    return -1;
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

static void catch_interrupt(void)
{
    const struct sigaction action = {.sa_handler = on_interrupt,
                                     .sa_flags = SA_RESTART}; /* the answer's writes go on */
    if (pipe2(wake, O_CLOEXEC | O_NONBLOCK) == 0) sigaction(SIGINT, &action, NULL);
}

void cli_input_open(cli_input *input)
{
    *input = (cli_input){.keyboard = isatty(STDIN_FILENO), .turn = {.max = CLI_TURN_MAX}};
    input->prompts = input->keyboard && isatty(STDOUT_FILENO);
    if (input->keyboard) catch_interrupt();
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
    if (wake[0] < 0) return;
    signal(SIGINT, SIG_DFL);
    close(wake[0]);
    close(wake[1]);
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

/* The next byte, or EOF: the end, an error or Ctrl-C. */
static int read_plain_byte(const cli_input *input)
{
    char byte;
    int n;
    if (!input->keyboard) return getc(stdin);
    do {
        n = cli_key_byte(&byte);
    } while (n < 0 && errno == EINTR && !interrupted);
    return n == 1 ? (unsigned char)byte : EOF;
}

static cli_input_result read_plain(cli_input *input)
{
    bool pasting = false;
    while (true) {
        const int byte = read_plain_byte(input);
        if (byte == EOF && interrupted) return CLI_INPUT_INTERRUPTED;
        if (byte == EOF && !input->turn.failed) return input->turn.len ? CLI_INPUT_TURN : CLI_INPUT_END;
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
    forget_interrupt();
    mq__buf_clear(&input->turn);
    if (input->prompts && !input->editor) {
        fputs(PROMPT, stdout);
        fflush(stdout);
    }
    const cli_input_result result = input->editor ? read_edited(input) : read_plain(input);
    const bool leaves_line = result != CLI_INPUT_TURN && input->prompts;
    if (leaves_line) putchar('\n'); /* the cursor stands behind the prompt */
    if (result == CLI_INPUT_TURN) trim_line_ends(&input->turn);
    return result;
}
