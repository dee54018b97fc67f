/* What the tests of the Messages and the Responses API share: reading a body into an ask, streams through an automaton, bodies of
 * clients from tests/clients/bodies. */
#ifndef MQ_SERVER_APIS_H
#define MQ_SERVER_APIS_H

#include "server_fixture.h"
#include "server_masks.h"
#include "server_order.h"

#include "base/json_read.h"
#include "server/answering_call.h"
#include "server/api_messages.h"
#include "server/api_responses.h"

#define THINKS "tests/unit/server_think.jinja" /* a template with reasoning */

static mq_server *apis_server; /* of the test under way */

static inline int apis_setup(void **state)
{
    (void)state;
    apis_server = fixture_server("[]", NULL);
    return 0;
}

static inline int apis_teardown(void **state)
{
    (void)state;
    fixture_close(apis_server);
    return 0;
}

/* Another script, and perhaps another template. */
static inline void apis_script(const char *script, const char *template_file)
{
    fixture_close(apis_server);
    apis_server = fixture_server(script, template_file);
}

/* A script of one answer to everything. */
static inline void apis_answer(const char *text, const char *template_file)
{
    json_t *script = json_pack("[{ssss}]", "when", "", "answer", text);
    char *printed = json_dumps(script, 0);
    apis_script(printed, template_file);
    free(printed);
    json_decref(script);
}

/* JSON with ' for ". A new reference. */
static inline json_t *apis_json(const char *text)
{
    json_error_t error;
    char *copy = strdup(text);
    for (char *c = copy; *c; c++) {
        if (*c == '\'') *c = '"';
    }
    json_t *value = json_loads(copy, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!value) fail_msg("%s: %s", error.text, copy);
    free(copy);
    return value;
}

typedef struct apis_ask {
    mq_ask ask;
    mq_fault fault;
    bool read;
    const mq_api *api;
} apis_ask;

static inline apis_ask apis_read_json(const mq_api *api, const json_t *body, const char *const *headers)
{
    apis_ask made = {.api = api};
    mq_exchange *x = fixture_exchange("/", "", headers);
    mq__ask_defaults(apis_server, &made.ask);
    mq__ask_hints(x, body, &made.ask);
    const unsigned long before = mq__json_failures();
    made.read = api->read(apis_server, x, body, &made.ask, &made.fault);
    if (mq__json_failures() != before) made.read = mq__fault_memory(&made.fault);
    fixture_free(x);
    return made;
}

static inline apis_ask apis_read(const mq_api *api, const char *body)
{
    json_t *value = apis_json(body);
    const apis_ask made = apis_read_json(api, value, NULL);
    json_decref(value);
    return made;
}

static inline void apis_done(apis_ask *a)
{
    if (a->ask.extra) a->api->free_extra(a->ask.extra);
    mq__ask_clear(&a->ask);
}

/* What a body's messages become, as JSON with ' for ". */
static inline void apis_expect(const mq_api *api, const char *body, const char *messages)
{
    apis_ask a = apis_read(api, body);
    if (!a.read) fail_msg("%s\nin %s", a.fault.message, body);
    json_t *expected = apis_json(messages);
    if (!json_equal(a.ask.messages, expected)) {
        char *got = json_dumps(a.ask.messages, JSON_SORT_KEYS);
        fail_msg("expected %s\ngot %s", messages, got);
    }
    json_decref(expected);
    apis_done(&a);
}

/* A body that is refused with 400, for this field. */
static inline void apis_refuse(const mq_api *api, const char *body, const char *param)
{
    apis_ask a = apis_read(api, body);
    if (a.read) fail_msg("not refused: %s", body);
    if (a.fault.status != 400 || strcmp(a.fault.param, param) != 0 || !a.fault.message[0]) {
        fail_msg("%u %s (%s) for %s", a.fault.status, a.fault.param, a.fault.message, body);
    }
    apis_done(&a);
}

/* Each allocation that a body needs fails once: 503 every time, and no leak. */
static inline void apis_starve(const mq_api *api, const char *body)
{
    json_t *value = apis_json(body);
    unsigned failed = 0;
    for (unsigned long n = 1;; n++) {
        (void)mq__alloc_fail_at(n);
        apis_ask a = apis_read_json(api, value, NULL);
        const bool read = a.read, refused = !a.read && a.fault.status == 503, hit = mq__alloc_fail_at(0) >= n;
        apis_done(&a);
        if (!hit) assert_true(read);
        if (!hit) break;
        if (!refused) fail_msg("allocation %lu: %u %s", n, a.fault.status, a.fault.message);
        failed++;
    }
    assert_true(failed > 10);
    json_decref(value);
}

/* ---- whole requests */

/* The events of a stream. A new reference. */
static inline json_t *apis_stream(mq_handler *handler, const char *body)
{
    json_t *value = apis_json(body);
    json_object_set_new(value, "stream", json_true());
    char *printed = json_dumps(value, 0);
    mq_exchange *x = fixture_ask(apis_server, handler, "/", printed, NULL);
    if (x->status != 200) fail_msg("%u: %s", x->status, x->sent.data);
    assert_string_equal(x->type, "text/event-stream");
    json_t *events = order_events(x->sent.data, x->sent.len);
    assert_non_null(events);
    fixture_free(x);
    free(printed);
    json_decref(value);
    return events;
}

/* What a strict client has at the end of them. Takes them. */
static inline json_t *apis_accept(json_t *events, order_event *take)
{
    char why[256];
    json_t *made = order_run(events, take, why, sizeof why);
    if (!made) {
        char *printed = json_dumps(events, JSON_INDENT(1));
        fail_msg("%s in %s", why, printed);
    }
    json_decref(events);
    return made;
}

/* A whole answer. A new reference. */
static inline json_t *apis_whole(mq_handler *handler, const char *body, unsigned status)
{
    json_t *value = apis_json(body);
    char *printed = json_dumps(value, 0);
    mq_exchange *x = fixture_ask(apis_server, handler, "/", printed, NULL);
    if (x->status != status) fail_msg("expected %u, got %u: %s", status, x->status, x->sent.data);
    json_t *answer = fixture_json(x);
    fixture_free(x);
    free(printed);
    json_decref(value);
    return answer;
}

/* ---- a writer alone: a stream whose backend says nothing, and parts that the test makes up */

typedef struct apis_part {
    mq_part_kind kind;
    const char *bytes;
} apis_part;

/* Begins; the script must hold the answer. End it with apis_leave. */
static inline mq_exchange *apis_hold(mq_handler *handler, const char *body)
{
    apis_script("[{\"when\":\"\",\"hold\":true}]", NULL);
    mq_exchange *x = fixture_exchange("/", body, NULL);
    handler(apis_server, x);
    if (!x->begun) fail_msg("%u: %s", x->status, x->sent.data);
    assert_true(mq__buf_reserve(&x->sent, 1 << 20)); /* the test's own memory is not what is to be short */
    return x;
}

static inline void apis_leave(mq_exchange *x)
{
    fixture_gone(x, false);
    fixture_free(x);
}

/* As answering.c does it: the answer has the part first. False: no memory for it. */
static inline bool apis_say(mq_exchange *x, const mq_api *api, const apis_part *part)
{
    mq_call *call = x->hooks.context;
    mq_answered *a = (mq_answered *)(uintptr_t)mq__call_answered(call, 0);
    const size_t count = strlen(part->bytes);
    bool kept = true;
    a->last = part->kind;
    if (part->kind == MQ_PART_REASONING) kept = mq__buf_append(&a->reasoning, part->bytes, count);
    if (part->kind == MQ_PART_TEXT) kept = mq__buf_append(&a->text, part->bytes, count);
    if (part->kind == MQ_PART_CALL) {
        mq_answered_call *more = mq__realloc(a->calls, (a->call_count + 1) * sizeof *a->calls);
        if (!more) return false;
        a->calls = more;
        a->calls[a->call_count] = (mq_answered_call){.id = "call_0", .name = mq__strdup(part->bytes)};
        a->calls[a->call_count].id[5] = (char)('0' + a->call_count);
        kept = a->calls[a->call_count++].name != NULL;
        if (!kept) a->call_count--;
    }
    if (part->kind == MQ_PART_ARGUMENTS) {
        kept = mq__buf_append(&a->calls[a->call_count - 1].arguments, part->bytes, count);
    }
    if (part->kind == MQ_PART_CALL_END) a->calls[a->call_count - 1].complete = true;
    if (!kept) return false;
    const mq_part made = {part->kind, a->call_count ? (uint32_t)a->call_count - 1 : 0, part->bytes, count};
    api->part(call, 0, &made);
    return true;
}

/* Parts and the end, with the n-th allocation failing; 0: none. The answer's events; a new reference. */
static inline json_t *apis_say_all(mq_handler *handler, const mq_api *api, const char *body, const apis_part *parts,
                                   size_t count, unsigned long fail_at, bool *hit)
{
    mq_exchange *x = apis_hold(handler, body);
    mq_call *call = x->hooks.context;
    const unsigned long before = call->failures = mq__json_failures();
    (void)mq__alloc_fail_at(fail_at);
    bool kept = true;
    for (size_t i = 0; i < count && kept && !call->broken; i++) {
        kept = apis_say(x, api, &parts[i]);
    }
    if (kept && !call->broken) api->end(call);
    const unsigned long made = mq__alloc_fail_at(0);
    *hit = fail_at && made >= fail_at;
    if (!kept || mq__json_failures() != before) call->broken = true;
    if (call->broken) fixture_tick(x); /* the error */
    json_t *events = order_events(x->sent.data, x->sent.len);
    assert_non_null(events);
    apis_leave(x);
    return events;
}

/* How many events have a name. */
static inline size_t apis_count(json_t *events, const char *name)
{
    size_t i, count = 0;
    json_t *event;
    json_array_foreach(events, i, event)
    {
        count += order_is(event, "event", name);
    }
    return count;
}

/* The automaton must refuse events that a test has spoilt; `spoil` gets a copy. */
static inline void apis_must_refuse(json_t *events, order_event *take, void (*spoil)(json_t *events))
{
    char why[256];
    json_t *copy = json_deep_copy(events);
    spoil(copy);
    json_t *made = order_run(copy, take, why, sizeof why);
    if (made) fail_msg("the automaton accepts what it must not");
    json_decref(copy);
}

/* ---- bodies of clients */

/* {"path", "headers", "body"} of a file. A new reference. */
static inline json_t *apis_recorded(const char *name)
{
    char path[1024];
    json_error_t error;
    const char *root = getenv("MQ_SOURCE_DIR");
    snprintf(path, sizeof path, "%s/tests/clients/bodies/%s.json", root ? root : ".", name);
    json_t *recorded = json_load_file(path, 0, &error);
    if (!recorded) fail_msg("%s: %s", path, error.text);
    return recorded;
}

/* Sends it; free with fixture_free. */
static inline mq_exchange *apis_replay(mq_handler *handler, const char *name)
{
    static char lines[16][1300];
    const char *headers[17] = {NULL};
    json_t *recorded = apis_recorded(name), *value;
    const char *key;
    size_t n = 0;
    json_object_foreach(json_object_get(recorded, "headers"), key, value)
    {
        if (n == 16 || strncasecmp(key, "X-Stainless", 11) == 0) continue;
        snprintf(lines[n], sizeof lines[n], "%s: %s", key, json_string_value(value));
        headers[n] = lines[n];
        n++;
    }
    static char *body; /* the exchange reads it while it lives */
    free(body);
    body = json_dumps(json_object_get(recorded, "body"), 0);
    mq_exchange *x = fixture_ask(apis_server, handler, order_string(recorded, "path"), body, headers);
    json_decref(recorded);
    return x;
}

#endif
