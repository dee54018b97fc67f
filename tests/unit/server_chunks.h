/* Streams of chat/completions, put together again. */
#ifndef MQ_SERVER_CHUNKS_H
#define MQ_SERVER_CHUNKS_H

#include "server_fixture.h"

typedef struct collected {
    mq_buf text, reasoning, arguments[4];
    char names[4][32], ids[4][40];
    size_t calls, logprobs, chunks;
    char finish[20];
    json_t *last; /* the last chunk that is JSON */
    json_t *usage;
    bool done, error;
} collected;

static inline void collect_calls(collected *c, json_t *calls)
{
    size_t i;
    json_t *call;
    json_array_foreach(calls, i, call)
    {
        const size_t n = (size_t)integer_at_path(call, "index");
        assert_true(n < 4 && n <= c->calls);
        if (n == c->calls) { /* the first piece of a call has all that is not its arguments */
            c->calls++;
            assert_string_equal(text_at_path(call, "type"), "function");
            snprintf(c->names[n], sizeof c->names[n], "%s", text_at_path(call, "function.name"));
            snprintf(c->ids[n], sizeof c->ids[n], "%s", text_at_path(call, "id"));
            assert_int_equal(strncmp(c->ids[n], "call_", 5), 0);
        } else {
            assert_int_equal(n, c->calls - 1);
            assert_null(at_path(call, "id"));
            assert_null(at_path(call, "function.name"));
        }
        mq__buf_puts(&c->arguments[n], text_at_path(call, "function.arguments"));
    }
}

/* Checks the order of chunks as it goes: the role first, content, one finish reason, usage, [DONE]. */
static inline void collect_chunk(collected *c, json_t *chunk, long long choice)
{
    json_t *first = at_path(chunk, "choices.0");
    assert_string_equal(text_at_path(chunk, "object"), "chat.completion.chunk");
    assert_string_equal(text_at_path(chunk, "model"), "mixquant-agent");
    c->last = chunk;
    if (!first) {
        assert_true(c->finish[0] && !c->usage);
        c->usage = at_path(chunk, "usage");
        assert_true(json_is_object(c->usage));
        return;
    }
    if (integer_at_path(first, "index") != choice) return;
    json_t *delta = at_path(first, "delta");
    assert_true(json_is_object(delta));
    assert_false(c->finish[0]);
    if (c->chunks++ == 0) {
        assert_string_equal(text_at_path(delta, "role"), "assistant");
        assert_string_equal(text_at_path(delta, "content"), "");
        return;
    }
    assert_null(at_path(delta, "role"));
    if (at_path(delta, "content")) mq__buf_puts(&c->text, text_at_path(delta, "content"));
    if (at_path(delta, "reasoning_content")) mq__buf_puts(&c->reasoning, text_at_path(delta, "reasoning_content"));
    collect_calls(c, at_path(delta, "tool_calls"));
    c->logprobs += json_array_size(at_path(first, "logprobs.content"));
    if (json_is_string(at_path(first, "finish_reason"))) {
        snprintf(c->finish, sizeof c->finish, "%s", text_at_path(first, "finish_reason"));
    }
}

static inline collected collect(const fixture_events *events, long long choice)
{
    collected c = {.chunks = 0};
    for (size_t i = 0; i < events->count; i++) {
        assert_false(c.done);
        assert_string_equal(events->at[i].name, "");
        if (!events->at[i].data) {
            c.done = true;
        } else if (at_path(events->at[i].data, "error")) {
            c.error = true;
        } else {
            assert_false(c.error);
            collect_chunk(&c, events->at[i].data, choice);
        }
    }
    assert_true(c.done);
    return c;
}

static inline void forget(collected *c)
{
    mq__buf_free(&c->text);
    mq__buf_free(&c->reasoning);
    for (size_t i = 0; i < 4; i++) {
        mq__buf_free(&c->arguments[i]);
    }
}

static inline const char *text_of(const mq_buf *buf)
{
    return buf->len ? buf->data : "";
}

#endif
