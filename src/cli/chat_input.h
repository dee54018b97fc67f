/* Turns as the user types, pastes or pipes them. */
#ifndef MQ_CLI_CHAT_INPUT_H
#define MQ_CLI_CHAT_INPUT_H

#include "base/buf.h"
#include "cli/chat_edit.h"

#include <stdbool.h>

#define CLI_TURN_MAX ((size_t)64 << 20) /* bytes */

typedef enum cli_input_result {
    CLI_INPUT_TURN,        /* `turn` has it, without the newline at its end */
    CLI_INPUT_INTERRUPTED, /* Ctrl-C with nothing typed */
    CLI_INPUT_DISCARDED,   /* Ctrl-C: what was typed is gone; or a turn above CLI_TURN_MAX */
    CLI_INPUT_END
} cli_input_result;

typedef struct cli_input {
    bool keyboard;      /* stdin is a terminal */
    bool prompts;       /* and stdout as well */
    bool brackets;      /* the terminal marks what is pasted */
    cli_editor *editor; /* NULL: plain lines */
    mq_buf turn;
} cli_input;

/* With a terminal on stdin, SIGINT (Ctrl-C) only sets cli_interrupted from here on. */
void cli_input_open(cli_input *input);
void cli_input_close(cli_input *input);

/* Forgets an earlier Ctrl-C, prompts, and reads a turn. A pasted block is one turn. */
cli_input_result cli_input_read(cli_input *input);

/* Waits for a byte of the keyboard: 1, 0 at the end, -1 on an error; with EINTR after Ctrl-C or another signal. */
int cli_key_byte(char *byte);

bool cli_interrupted(void); /* Ctrl-C since the last cli_input_read */

#endif
