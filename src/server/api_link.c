/* GET /internal/link: what workers of a deployment ask each other. Open: they have no API keys of each other. */
#include "server/http.h"

#include <string.h>

void mq__api_link(mq_server *server, mq_exchange *x)
{
    const mq_handoff_backend *handoff = mq__server_handoff(server);
    if (!atomic_load(&server->is_ready)) {
        mq__exchange_refuse(x, 503, "loading", "the model is being loaded");
        return;
    }
    if (atomic_load(&server->is_draining)) {
        mq__exchange_refuse(x, 503, "draining", "the server is shutting down");
        return;
    }
    if (!handoff) {
        mq__exchange_refuse(x, 404, "not_found", "this server takes part in no hand-off; see --role");
        return;
    }
    char *text = handoff->describe(handoff->self);
    if (text)
        mq__exchange_reply(x, 200, "application/json", text, strlen(text));
    else
        mq__exchange_refuse(x, 503, "out_of_memory", "the server is short of memory");
    mq_free(text);
}
