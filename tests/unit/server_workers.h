/* A server of a role, with a scripted hand-off, and requests to it that say something of prefill elsewhere. */
#ifndef MQ_SERVER_WORKERS_H
#define MQ_SERVER_WORKERS_H

#include "server_chunks.h"
#include "server_handoff.h"

#include "server/answering_call.h"

#define CHAT         "/v1/chat/completions"
#define COMPLETIONS  "/v1/completions"
#define ASK(members) "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]" members "}"
#define RAW(members) "{\"prompt\":\"Once upon a time\"" members "}"
#define LENDS                                                                                                          \
    ",\"stream\":false,\"max_tokens\":1,\"kv_transfer_params\":{\"do_remote_decode\":true,\"do_remote_prefill\":"      \
    "false,\"remote_engine_id\":null,\"remote_block_ids\":null,\"remote_host\":null,\"remote_port\":null}"
#define FETCHES(host, port, id)                                                                                        \
    ",\"kv_transfer_params\":{\"do_remote_prefill\":true,\"do_remote_decode\":false,\"remote_engine_id\":\"e\","       \
    "\"remote_request_id\":" id ",\"remote_block_ids\":[[0]],\"remote_host\":" host ",\"remote_port\":" port           \
    ",\"tp_size\":1,\"something_new\":{\"a\":1}}"
#define BOOTSTRAP(host, port)                                                                                          \
    ",\"bootstrap_host\":\"" host "\",\"bootstrap_port\":" port ",\"bootstrap_room\":1790000000000000123"

typedef struct worker {
    mq_server *server;
    scripted_handoff *handoff;
    char peer[300], lease[140];
} worker;

static inline worker open_worker(const char *role, const char *script)
{
    worker w = {.server = fixture_server(script, NULL)};
    w.handoff = handoff_of(w.server, role);
    return w;
}

static inline void close_worker(worker *w)
{
    handoff_free(w->server, w->handoff);
    fixture_close(w->server);
}

static inline mq_exchange *ask_worker(worker *w, const char *path, const char *body, const char *header)
{
    const char *const headers[] = {header, NULL};
    mq_handler *handler = strcmp(path, CHAT) == 0          ? mq__api_chat
                          : strcmp(path, COMPLETIONS) == 0 ? mq__api_completions
                          : strstr(path, "messages")       ? mq__api_messages
                                                           : mq__api_responses;
    mq_exchange *x = fixture_ask(w->server, handler, path, body, headers);
    script_last_handoff(w->server->script, w->peer, w->lease);
    return x;
}

#endif
