/* The options of `serve` for prefill and decode on different machines, and the hand-off that they describe. */
#ifndef MQ_SERVE_HANDOFF_H
#define MQ_SERVE_HANDOFF_H

#include "cli/cli.h"
#include "server/server.h"

#define CLI_SERVE_HANDOFF_COUNT 10

typedef struct cli_serve_handoff {
    const char *role, *transport, *link_host, *key_file, *on_failure;
    cli_texts peers, allowed;
    int link_port, least; /* link_port -1: not given */
    float timeout;
    bool
        used; /* it takes part in hand-offs: `backend` is for the server, `handoff` for the rest; after cli_handoff_check */
    mq_handoff *handoff;
    mq_handoff_backend backend;
} cli_serve_handoff;

void cli_serve_handoff_options(cli_serve_handoff *h, cli_option options[CLI_SERVE_HANDOFF_COUNT]);
/* Options that contradict each other, or that this build cannot follow, are CLI_USAGE. */
int cli_handoff_check(cli_serve_handoff *h);

/* In the order of a server's life; all of them do nothing where it takes no part. Before a scheduler has the engine: */
int cli_handoff_open(cli_serve_handoff *h, mq_engine *engine, const mq_server_options *server);
const struct mq_kv_source *cli_handoff_source(const cli_serve_handoff *h); /* for the scheduler; NULL: none */
int cli_handoff_serve(cli_serve_handoff *h, mq_scheduler *scheduler);
void cli_handoff_stop(cli_serve_handoff *h); /* before the scheduler stops */
void cli_handoff_close(cli_serve_handoff *h);

#endif
