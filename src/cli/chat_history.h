/* The turns of earlier conversations: $XDG_STATE_HOME/mixquant/history or ~/.local/state/mixquant/history, one a line, with
 * backslashes and newlines escaped, readable by the user only. It is a convenience: what fails is left out. */
#ifndef MQ_CLI_CHAT_HISTORY_H
#define MQ_CLI_CHAT_HISTORY_H

#define CLI_HISTORY_TURNS 1000

/* Calls `take` with the last CLI_HISTORY_TURNS turns, oldest first. */
void cli_history_load(void (*take)(void *context, const char *turn), void *context);
void cli_history_append(const char *turn);

#endif
