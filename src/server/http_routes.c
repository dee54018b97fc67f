/* Paths, and who may enter. */
#include "server/http.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static void answer_health(mq_server *server, mq_exchange *x)
{
    static const char ok[] = "{\"status\":\"ok\"}";
    if (atomic_load(&server->is_draining))
        mq__exchange_refuse(x, 503, "draining", "the server is shutting down");
    else if (!atomic_load(&server->is_ready))
        mq__exchange_refuse(x, 503, "loading", "the model is being loaded");
    else
        mq__exchange_reply(x, 200, "application/json", ok, sizeof ok - 1);
}

static void answer_hello(mq_server *server, mq_exchange *x)
{
    (void)server;
    mq__exchange_reply(x, 200, "application/json", "{}", 2);
}

#define BOTH(path, methods, handler)                                                                                   \
    {"/v1" path, methods, handler, false, false},                                                                      \
    {                                                                                                                  \
        path, methods, handler, false, false                                                                           \
    }

const http_route mq__http_routes[] = {
    {"/health", "GET, HEAD", answer_health, true, true},
    {"/v1/health", "GET, HEAD", answer_health, true, true},
    {"/api/hello", "GET, HEAD", answer_hello, true, true},
    {"/", "GET, HEAD", mq__page, true, true},
    {"/metrics", "GET, HEAD", mq__api_metrics, false, false},
    {"/internal/link", "GET, HEAD", mq__api_link, true, true},
    BOTH("/chat/completions", "POST", mq__api_chat),
    BOTH("/completions", "POST", mq__api_completions),
    BOTH("/responses", "POST", mq__api_responses),
    BOTH("/responses/input_tokens", "POST", mq__api_count_responses),
    BOTH("/messages", "POST", mq__api_messages),
    BOTH("/messages/count_tokens", "POST", mq__api_count_messages),
    BOTH("/models", "GET, HEAD", mq__api_models),
    BOTH("/models/", "GET, HEAD", mq__api_models),
    BOTH("/tokenize", "POST", mq__api_tokenize),
    BOTH("/detokenize", "POST", mq__api_detokenize),
    BOTH("/apply-template", "POST", mq__api_apply_template),
};
const size_t mq__http_route_count = sizeof mq__http_routes / sizeof mq__http_routes[0];

static const http_route *find_route(const mq_server *server, const char *path)
{
    for (size_t i = 0; i < server->route_count; i++) {
        const http_route *route = &server->routes[i];
        const size_t count = strlen(route->path);
        const bool prefix = count > 1 && route->path[count - 1] == '/';
        if (prefix ? strncmp(path, route->path, count) == 0 && path[count] : strcmp(path, route->path) == 0)
            return route;
    }
    return NULL;
}

/* `words` is "GET, HEAD". */
static bool has_word(const char *words, const char *word)
{
    const size_t count = strlen(word);
    while (*words) {
        const size_t n = strcspn(words, ", ");
        if (n == count && memcmp(words, word, n) == 0) return true;
        words += n + strspn(words + n, ", ");
    }
    return false;
}

/* ---- who may come in */

/* x-api-key: KEY, or Authorization: Bearer KEY; some clients send both, one of them their own vendor's. */
static uint64_t owner_of_request(const api_keys *keys, const mq_exchange *x)
{
    const char *key = mq__exchange_header(x, "x-api-key"), *bearer = mq__exchange_header(x, "Authorization");
    uint64_t owner = key ? mq__keys_owner(keys, key, strlen(key)) : 0;
    if (owner == 0 && bearer && strncasecmp(bearer, "Bearer ", 7) == 0) {
        bearer += 7 + strspn(bearer + 7, " ");
        owner = mq__keys_owner(keys, bearer, strlen(bearer));
    }
    return owner;
}

static bool may_enter(mq_server *server, mq_exchange *x)
{
    bool enters = true;
    pthread_mutex_lock(&server->lock);
    if (server->keys) {
        x->owner = owner_of_request(server->keys, x);
        enters = x->owner != 0;
    }
    pthread_mutex_unlock(&server->lock);
    return enters;
}

http_entry mq__http_admit(mq_server *server, mq_exchange *x, const http_line *line)
{
    const char *reason;
    const unsigned status = mq__http_audit(x, line, &reason);
    const http_route *route = status ? NULL : find_route(server, x->path);
    if (status) {
        mq__exchange_refuse(x, status, status == 421 ? "misdirected_request" : "bad_request", reason);
        return HTTP_UNSOUND;
    }
    if (!route) {
        mq__exchange_refuse(x, 404, "not_found", "no such path");
    } else if (!has_word(route->methods, x->method)) {
        mq__exchange_set_header(x, "Allow", route->methods);
        mq__exchange_refuse(x, 405, "method_not_allowed", "the path has other methods; see Allow");
    } else if (!route->open && !may_enter(server, x)) {
        mq__exchange_refuse(x, 401, "invalid_api_key", "expected an API key");
    } else if (!route->early && !atomic_load(&server->is_ready)) {
        mq__exchange_refuse(x, 503, "loading", "the model is being loaded");
    } else if (!route->early && atomic_load(&server->is_draining)) {
        mq__exchange_refuse(x, 503, "draining", "the server is shutting down");
    } else {
        x->handler = route->handler;
    }
    return x->handler ? HTTP_ENTERS : HTTP_REFUSED;
}
