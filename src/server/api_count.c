/* How many tokens a request's prompt has: /v1/messages/count_tokens, /v1/responses/input_tokens. Only texts are asked, never the engine. */
#include "base/json_read.h"
#include "base/mem.h"
#include "server/api_messages.h"
#include "server/api_responses.h"

/* Reads a body as its API does. The ask is to be cleared in any case. */
static bool read_counted(mq_server *server, const mq_exchange *x, const mq_api *api, mq_ask *ask, mq_fault *fault)
{
    json_t *body = mq__body_read(server, x, fault);
    if (!body) return false;
    const unsigned long before = mq__json_failures();
    bool read = mq__ask_model(server, body, ask, fault) && api->read(server, x, body, ask, fault);
    if (mq__json_failures() != before) read = mq__fault_memory(fault);
    json_decref(body);
    return read;
}

/* `object`: NULL, or what the answer calls itself. */
static void reply_count(mq_server *server, mq_exchange *x, const mq_api *api, const char *object)
{
    mq_fault fault;
    mq_ask ask;
    int32_t *tokens = NULL;
    size_t count = 0;
    mq__ask_defaults(server, &ask);
    const bool counted =
        read_counted(server, x, api, &ask, &fault) && mq__ask_tokens(server, &ask, &tokens, &count, &fault);
    if (counted) {
        mq__reply_json(x, 200, json_pack("{ss*sI}", "object", object, "input_tokens", (json_int_t)count));
    } else {
        mq__reply_fault(x, api, &fault);
    }
    mq_free(tokens);
    if (ask.extra) api->free_extra(ask.extra);
    mq__ask_clear(&ask);
}

void mq__api_count_messages(mq_server *server, mq_exchange *x)
{
    reply_count(server, x, &mq__messages_api, NULL);
}

void mq__api_count_responses(mq_server *server, mq_exchange *x)
{
    reply_count(server, x, &mq__responses_api, "response.input_tokens");
}
