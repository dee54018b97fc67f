/* The bounds of a server, as options of `serve`. */
#ifndef MQ_CLI_SERVE_LIMITS_H
#define MQ_CLI_SERVE_LIMITS_H

#include "cli/cli.h"
#include "server/server.h"

/* 0 and NULL: the server's own. */
typedef struct cli_serve_limits {
    const char *body, *bodies, *headers, *unread; /* sizes */
    int depth, messages, tools, tokens, answers, stops, connections, per_address;
    float header_s, body_s, idle_s, write_s, request_s;
} cli_serve_limits;

#define CLI_SERVE_LIMIT_COUNT 17

void cli_serve_limit_options(cli_serve_limits *limits, cli_option options[CLI_SERVE_LIMIT_COUNT]);
/* False: a size is none, which is reported. */
bool cli_serve_limits_read(const cli_serve_limits *given, mq_server_limits *limits);

/* "8G", "512MiB", "1000000" to bytes; NULL is 0. False: it is none of these, which is reported for --NAME. */
bool cli_size(const char *name, const char *text, uint64_t *bytes);

#endif
