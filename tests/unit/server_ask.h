/* Reading bodies of chat/completions in tests. */
#ifndef MQ_SERVER_ASK_H
#define MQ_SERVER_ASK_H

#include "server_fixture.h"
#include "server_masks.h"

#define SYS(t)    "{\"role\":\"system\",\"content\":\"" t "\"}"
#define USER(t)   "{\"role\":\"user\",\"content\":\"" t "\"}"
#define ASSIST(t) "{\"role\":\"assistant\",\"content\":\"" t "\"}"

static mq_server *server;

static int open_server(void **state)
{
    (void)state;
    server = fixture_server("[]", NULL);
    return 0;
}

static int close_server(void **state)
{
    (void)state;
    fixture_close(server);
    return 0;
}

/* Reads the members of a body beside one user's message. False: refused. */
static inline bool read_body(const char *members, mq_ask *ask, mq_fault *fault)
{
    char text[60000];
    memset(fault, 0, sizeof *fault);
    if (members[0] == '{')
        snprintf(text, sizeof text, "%s", members);
    else
        snprintf(text, sizeof text, "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]%s%s}",
                 members[0] ? "," : "", members);
    mq__ask_defaults(server, ask);
    json_t *body = mq__body_parse(text, strlen(text), 64, fault);
    const bool read = body && mq__chat_api.read(server, NULL, body, ask, fault);
    json_decref(body);
    return read;
}

static inline void must_read(const char *members, mq_ask *ask)
{
    mq_fault fault;
    if (!read_body(members, ask, &fault)) fail_msg("%s: refused: %s", members, fault.message);
}

static inline void accepts(const char *members)
{
    mq_ask ask;
    must_read(members, &ask);
    mq__ask_clear(&ask);
}

static inline void refuses(const char *members, const char *param)
{
    mq_ask ask;
    mq_fault fault;
    if (read_body(members, &ask, &fault)) fail_msg("%s: accepted", members);
    assert_int_equal(fault.status, 400);
    assert_string_equal(fault.type, "invalid_request_error");
    if (strcmp(fault.param, param) != 0) fail_msg("%s: param %s, message %s", members, fault.param, fault.message);
    assert_non_null(strstr(fault.message, "expected"));
    mq__ask_clear(&ask);
}

#endif
