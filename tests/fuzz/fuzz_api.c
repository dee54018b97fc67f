/* Bodies of requests. The first byte says whose they are (0 chat, 1 completions, 2 messages, 3 responses), the rest is the body. What is
 * read is rendered and tokenised, with the bundled model's template. */
#include "fuzz.h"
#include "server/answering.h"
#include "server/api_messages.h"
#include "server/api_responses.h"
#include "server/metrics.h"
#include "server_masks.h"

#include <string.h>

struct mq_server {
    mq_served_model model;
    mq_server_limits limits;
    mq_server_options options;
    mq_backend backend;
    mq_counts counts;
};

static mq_server server = {
    .limits = {.json_depth = 64, .messages = 100, .tools = 20, .max_tokens = 4096, .n = 16, .stops = 16}};

/* ---- the server's side, as far as readers see it */

const mq_served_model *mq__server_model(const mq_server *s)
{
    return &s->model;
}

bool mq__server_is_private(const mq_server *s)
{
    (void)s;
    return true;
}

const mq_backend *mq__server_backend(const mq_server *s)
{
    return &s->backend;
}

static bool allows_all(void *self, const char *peer)
{
    (void)self;
    FUZZ_CHECK(peer[0]);
    return true;
}

const mq_handoff_backend *mq__server_handoff(const mq_server *s)
{
    static const mq_handoff_backend handoff = {
        .role = "both", .receives = true, .link_host = "0.0.0.0", .link_port = 8998, .allows = allows_all};
    (void)s;
    return &handoff;
}

const mq_server_limits *mq__server_limits(const mq_server *s)
{
    return &s->limits;
}

const mq_server_options *mq__server_options(const mq_server *s)
{
    return &s->options;
}

mq_counts *mq__server_counts(mq_server *s)
{
    return &s->counts;
}

void mq__server_log(mq_server *s, const char *format, ...)
{
    (void)s;
    (void)format;
}

const char *mq__exchange_method(const mq_exchange *x)
{
    (void)x;
    return "POST";
}

const char *mq__exchange_path(const mq_exchange *x)
{
    (void)x;
    return "/";
}

const char *mq__exchange_header(const mq_exchange *x, const char *name)
{
    (void)x;
    (void)name;
    return NULL;
}

const char *mq__exchange_query(const mq_exchange *x, const char *key)
{
    (void)x;
    (void)key;
    return NULL;
}

const char *mq__exchange_body(const mq_exchange *x, size_t *count)
{
    (void)x;
    *count = 0;
    return "";
}

uint64_t mq__exchange_owner(const mq_exchange *x)
{
    (void)x;
    return 0;
}

bool mq__exchange_local_address(const mq_exchange *x, char *host, size_t size)
{
    (void)x;
    snprintf(host, size, "192.0.2.7");
    return true;
}

const char *mq__exchange_id(const mq_exchange *x)
{
    (void)x;
    return "id";
}

void mq__exchange_set_header(mq_exchange *x, const char *name, const char *value)
{
    (void)x;
    (void)name;
    (void)value;
}

void mq__exchange_reply(mq_exchange *x, unsigned status, const char *type, const char *bytes, size_t count)
{
    (void)x;
    (void)status;
    (void)type;
    (void)bytes;
    (void)count;
}

void mq__exchange_begin(mq_exchange *x, unsigned status, const char *type)
{
    (void)x;
    (void)status;
    (void)type;
}

bool mq__exchange_write(mq_exchange *x, const char *bytes, size_t count)
{
    (void)x;
    (void)bytes;
    (void)count;
    return true;
}

void mq__exchange_end(mq_exchange *x)
{
    (void)x;
}

void mq__exchange_set_hooks(mq_exchange *x, const mq_exchange_hooks *hooks)
{
    (void)x;
    (void)hooks;
}

/* ---- what holds of every ask */

static bool is_one_of(const char *text, const char *const *list)
{
    for (; text && *list; list++) {
        if (strcmp(text, *list) == 0) return true;
    }
    return false;
}

static void check_messages(const json_t *messages)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool", NULL};
    size_t i;
    json_t *message;
    FUZZ_CHECK(json_array_size(messages) > 0);
    json_array_foreach((json_t *)(uintptr_t)messages, i, message)
    {
        const char *role = json_string_value(json_object_get(message, "role"));
        const json_t *content = json_object_get(message, "content");
        FUZZ_CHECK(is_one_of(role, roles));
        FUZZ_CHECK(i == 0 || strcmp(role, "system") != 0);
        FUZZ_CHECK(json_is_string(content) || (json_is_null(content) && json_object_get(message, "tool_calls")));
    }
}

static void check_ask(const mq_ask *ask)
{
    const mq_sampling *s = &ask->sampling;
    mq_sampler *sampler;
    mq_error error = {0};
    if (ask->messages) check_messages(ask->messages);
    FUZZ_CHECK(ask->messages || ask->prompt || ask->prompt_tokens);
    FUZZ_CHECK(ask->n >= 1 && ask->n <= server.limits.n);
    FUZZ_CHECK(ask->top_logprobs <= 20);
    FUZZ_CHECK(ask->stop_count <= server.limits.stops);
    for (size_t i = 0; i < ask->stop_count; i++) {
        FUZZ_CHECK(ask->stops[i][0] && strlen(ask->stops[i]) <= 1024);
    }
    FUZZ_CHECK(json_array_size(ask->tools) <= server.limits.tools);
    FUZZ_CHECK(ask->thinking >= -1 && ask->thinking <= 1);
    /* Whatever was let through the sampler takes. */
    FUZZ_CHECK(mq_sampler_new(s, server.model.info.vocab, NULL, 0, &sampler, &error) == MQ_OK);
    mq_sampler_free(sampler);
}

/* A peer goes to who connects, a lease over the wire: they are bounded, and of few characters. */
static void check_handoff(const mq_ask *ask)
{
    const mq_ask_handoff *h = &ask->handoff;
    FUZZ_CHECK(!h->peer[0] || strncmp(h->peer, "link://", 7) == 0);
    FUZZ_CHECK(!h->lease[0] || h->peer[0]);
    FUZZ_CHECK(!h->lends || !ask->stream);
    for (const char *c = h->peer; *c; c++) {
        FUZZ_CHECK(*c > ' ' && *c <= '~' && *c != '"');
    }
    for (const char *c = h->lease; *c; c++) {
        FUZZ_CHECK(*c > ' ' && *c <= '~');
    }
}

static void check_fault(const mq_fault *fault)
{
    FUZZ_CHECK(fault->status >= 400 && fault->status < 600);
    FUZZ_CHECK(fault->type && fault->message[0]);
    json_t *error = mq__error_json(fault);
    FUZZ_CHECK(error);
    json_decref(error);
}

static bool take(const mq_api *api, const json_t *body)
{
    mq_ask ask;
    mq_fault fault = {0};
    int32_t *tokens = NULL;
    size_t count = 0;
    mq__ask_defaults(&server, &ask);
    mq__ask_hints(NULL, body, &ask);
    bool taken = api->read(&server, NULL, body, &ask, &fault);
    if (taken) check_ask(&ask);
    taken = taken && mq__ask_read_handoff(&server, NULL, body, &ask, &fault);
    if (taken) check_handoff(&ask);
    taken = taken && mq__ask_tokens(&server, &ask, &tokens, &count, &fault);
    if (taken)
        FUZZ_CHECK(count > 0);
    else
        check_fault(&fault);
    mq_free(tokens);
    if (ask.extra) api->free_extra(ask.extra);
    mq__ask_clear(&ask);
    return taken;
}

static void open_model(void)
{
    mq_error error = {0};
    mq_text *text;
    FUZZ_CHECK(mq_text_open(MQ_FUZZ_MODEL, NULL, &text, &error) == MQ_OK);
    server.model = (mq_served_model){.name = "model", .text = text};
    server.model.info = (mq_engine_info){.vocab = 3072, .context = 4096, .suggested = MQ_SAMPLING_GREEDY};
    mq_text_answer_style(text, &server.model.style);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const mq_api *const apis[] = {&mq__chat_api, &mq__completions_api, &mq__messages_api, &mq__responses_api};
    mq_fault fault = {0};
    fuzz_accepted = false;
    if (!server.model.text) open_model();
    if (bytes == 0) return 0;
    char *text = malloc(bytes); /* exactly the body: a read past its end is seen */
    FUZZ_CHECK(text);
    memcpy(text, data + 1, bytes - 1);
    json_t *body = mq__body_parse(text, bytes - 1, server.limits.json_depth, &fault);
    if (body)
        fuzz_accepted = take(apis[data[0] % 4], body);
    else
        check_fault(&fault);
    json_decref(body);
    free(text);
    return 0;
}
