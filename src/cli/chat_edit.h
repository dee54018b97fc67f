/* A line of a terminal with editing and history, by libedit. */
#ifndef MQ_CLI_CHAT_EDIT_H
#define MQ_CLI_CHAT_EDIT_H

#include "base/buf.h"

#include <stdbool.h>

typedef struct cli_editor cli_editor;

typedef enum cli_edit_result { CLI_EDIT_TURN, CLI_EDIT_INTERRUPTED, CLI_EDIT_END } cli_edit_result;

/* NULL without libedit, or on a terminal that cannot move its cursor. */
cli_editor *cli_editor_open(const char *prompt);
void cli_editor_close(cli_editor *editor);

bool cli_editor_brackets(const cli_editor *editor); /* it takes bracketed pastes */

/* `turn` is what was typed, up to Enter or the interruption. */
cli_edit_result cli_editor_read(cli_editor *editor, mq_buf *turn);

#endif
