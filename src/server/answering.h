/* One internal request and one stream of events under all APIs. An API reads its body into an mq_ask; answering.c renders, counts,
 * submits, takes the answer apart and calls the API's writer; the writer turns events into the API's own. */
#ifndef MQ_ANSWERING_H
#define MQ_ANSWERING_H

#include "base/buf.h"
#include "server/server.h"

/* How a handler tells what was short of memory: it does not ask after each json_* call, it lets NULL run through, and compares
 * mq__json_failures() (base/json_read.h) of before and after; answering.c does so around read, the writers and whole. */

/* Why a request is refused, or an answer failed. */
typedef struct mq_fault {
    unsigned status;  /* HTTP */
    const char *type; /* "invalid_request_error", ... (OpenAI's words; an API maps them to its own) */
    const char *code; /* NULL, or "context_length_exceeded", ... */
    char param[96];   /* "" or the field */
    char message[640];
    unsigned retry_after; /* seconds; 0: no such header */
} mq_fault;

/* Fills a fault of status 400 and returns false. */
bool mq__fault(mq_fault *fault, const char *param, const char *format, ...) __attribute__((format(printf, 3, 4)));
bool mq__fault_memory(mq_fault *fault); /* 503; returns false */
/* Of a failed call of the library that reads what the request brought: 400, or 503 for a lack of memory. Returns false. */
bool mq__fault_error(mq_fault *fault, mq_status status, const mq_error *error);

typedef enum mq_tool_choice { MQ_CHOICE_AUTO, MQ_CHOICE_NONE, MQ_CHOICE_REQUIRED } mq_tool_choice;

/* What a request says of prefill and decode on different machines (ask_handoff.c). */
typedef struct mq_ask_handoff {
    char peer[280]; /* "", or who has prefilled the prompt or shall do it: HOST:PORT, or link://HOST:PORT of its link */
    char lease[129];   /* "", or what it calls the prompt that it has prefilled already */
    bool lends;        /* somebody will fetch the prompt's KV when the answer is there */
    bool acknowledges; /* nothing is to be computed: another worker asks for the prompt's KV over the link */
    char ignored[360]; /* "", or what it asked for in vain, for people */
} mq_ask_handoff;

/* A request, whichever API it came by. All owned by the ask. */
typedef struct mq_ask {
    json_t *
        messages; /* OpenAI's chat form, normalised: roles system (first only), user, assistant, tool; NULL: a raw prompt */
    json_t *tools;           /* OpenAI's array of functions; NULL: none */
    json_t *callable;        /* NULL: all of them may be called; else the array of those that may */
    json_t *template_kwargs; /* NULL, or chat_template_kwargs; an API may add to it ("reasoning_effort") */
    bool continues;          /* the last message is the assistant's, and the answer goes on in it */
    bool no_turn;            /* the prompt ends with the last message: no generation prompt */
    bool joins_next;         /* messages.c's own: the last message was made of a system text, a user's joins it */
    char *prompt;            /* raw text, of /v1/completions */
    size_t prompt_bytes;
    int32_t *prompt_tokens; /* or its token ids */
    uint32_t prompt_token_count;

    mq_sampling sampling; /* starts as the model's suggestion; bias is owned */
    uint32_t max_tokens;  /* clamped to what the context has left */
    char **stops;         /* [stop_count] */
    size_t stop_count;
    bool ignore_eos;
    uint32_t n;    /* answers, 1 or more */
    bool has_seed; /* else each answer draws its own */
    bool logprobs;
    uint32_t top_logprobs;

    mq_tool_choice choice;
    char *only_tool; /* NULL, or the one that must be called */
    bool parallel;   /* more than one call */
    bool legacy;    /* of chat: `functions` in place of tools, so the answer has function_call in place of tool_calls */
    json_t *schema; /* NULL, or the schema of the answer ({}: any JSON) */
    bool strict, strict_tools; /* of the schema, of the tools: what is not supported is 400 */
    int thinking;              /* 1 on, 0 off, -1: the template's default */
    bool
        hide_reasoning; /* neither sent nor kept: no parts, nothing in mq_answered.reasoning (its tokens are counted) */
    bool raw_reasoning; /* it stays in the text, marks and all */

    bool stream;
    bool include_usage; /* in a stream of chat/completions */
    bool return_progress;
    bool background;   /* a title or a summary: others come first. Set of headers before `read` */
    char session[128]; /* for log lines; "". Set of headers and prompt_cache_key before `read` */
    char model[128];   /* as the client wrote it */
    char *warning;     /* what was left out ("web_search, ..."), or NULL: header Warning and the log */
    mq_ask_handoff handoff;
    void *extra; /* the API's own facts about the request; freed by api->free_extra */
} mq_ask;

void mq__ask_defaults(mq_server *server, mq_ask *ask);
/* Which model the body names. False: not the server's, where that matters. */
bool mq__ask_model(mq_server *server, const json_t *body, mq_ask *ask, mq_fault *fault);
void mq__ask_hints(const mq_exchange *x, const json_t *body, mq_ask *ask); /* session, background */
/* ask_handoff.c: kv_transfer_params, bootstrap_room, the header x-prefiller-host-port; after the API's own `read`. */
bool mq__ask_read_handoff(mq_server *server, const mq_exchange *x, const json_t *body, mq_ask *ask, mq_fault *fault);
/* After messages, tools and schema are read: a side request that names a conversation is background. It is short, without tools, and
 * its schema is a title's, or its instructions begin with what a title shall be (Claude Code, opencode). */
void mq__ask_note_title(mq_ask *ask);
void mq__ask_clear(mq_ask *ask); /* all but `extra` */

/* What became of one answer so far; grows as parts come. */
typedef struct mq_answered_call {
    char id[32]; /* "call_" and letters; an API may put its own prefix before it */
    char *name;
    mq_buf arguments;
    bool complete;
} mq_answered_call;

typedef struct mq_answered {
    mq_buf text, reasoning;
    mq_answered_call *calls; /* [call_count] */
    size_t call_count;
    json_t *logprobs; /* OpenAI's list of token objects, where asked for */
    uint32_t reasoning_tokens;
    mq_part_kind last; /* the latest part */
    mq_report report;  /* the latest */
    bool ended;
} mq_answered;

/* A request in hand. */
typedef struct mq_call mq_call;

mq_server *mq__call_server(const mq_call *call);
const mq_ask *mq__call_ask(const mq_call *call);
const mq_answered *mq__call_answered(const mq_call *call, uint32_t choice); /* choice: below ask->n */
uint32_t mq__call_prompt_tokens(const mq_call *call);
const int32_t *mq__call_prompt(const mq_call *call); /* its ids */
const char *mq__call_id(const mq_call *call);        /* the exchange's request id */
int64_t mq__call_created(const mq_call *call);       /* seconds since 1970 */
/* What the prefix cache missed, as a sentence ("cached 512 of 900 tokens: at 512 the cache has \"foo\", the prompt \"bar\""); "" where
 * nothing is to say. */
const char *mq__call_miss(const mq_call *call);
void *mq__call_state(mq_call *call); /* the API's own: api->state_bytes of zeros before `begin`, or `whole` */

/* One API. Calls of one mq_call never overlap, whatever thread they come from. */
typedef struct mq_api {
    const char *name; /* "chat", "messages", ...: log and metrics */
    /* Body to ask; false with a fault. `ask` is filled with defaults before. */
    bool (*read)(mq_server *server, const mq_exchange *x, const json_t *body, mq_ask *ask, mq_fault *fault);
    void (*free_extra)(void *extra);
    size_t state_bytes;
    void (*free_state)(void *state); /* NULL: nothing in it is owned */
    /* A stream (content type text/event-stream), before anything is known but the prompt's length. */
    void (*begin)(mq_call *call);
    void (*progress)(mq_call *call, const mq_report *report);
    void (*part)(mq_call *call, uint32_t choice, const mq_part *part); /* mq_answered has it already */
    /* No event of the API's own for `idle` seconds: it may send one. Called once a second. */
    void (*alive)(mq_call *call, double idle);
    void (*ended)(mq_call *call, uint32_t choice);      /* NULL, or: this answer has ended well, others may go on */
    void (*end)(mq_call *call);                         /* every answer has ended well: closing events */
    void (*fail)(mq_call *call, const mq_fault *fault); /* in a stream that began */
    /* Not a stream: the whole answer (new reference). */
    json_t *(*whole)(mq_call *call);
    /* The body of an error answer (new reference). */
    json_t *(*error)(const mq_fault *fault);
} mq_api;

extern const mq_api mq__chat_api, mq__completions_api; /* apply-template and tokenize read bodies of chat */

/* A handler's whole work: reads the body, refuses or submits, streams or replies. */
void mq__answer(mq_server *server, mq_exchange *x, const mq_api *api);

/* For count_tokens, apply-template: the prompt of an ask. *prompt owned: mq_free. */
bool mq__ask_render(mq_server *server, const mq_ask *ask, char **prompt, size_t *bytes, mq_fault *fault);
bool mq__ask_tokens(mq_server *server, const mq_ask *ask, int32_t **tokens, size_t *count, mq_fault *fault);

/* ---- what writers use */

/* Sends one server-sent event; `event` NULL: data alone. The JSON reference is taken; NULL: memory was short, the stream fails.
 * False: it was not sent, and nothing but the error will be. */
bool mq__call_send(mq_call *call, const char *event, json_t *data);
void mq__call_send_text(mq_call *call, const char *event, const char *data); /* "[DONE]" */
json_t *mq__call_usage(const mq_call *call);                                 /* OpenAI's, with details */
json_t *mq__call_timings(const mq_call *call);                               /* llama.cpp's, and plan, miss */
json_t *mq__call_plan(const mq_call *call);        /* {"prefill", "decode"}; null before admission */
const char *mq__finish_name(const mq_answered *a); /* "stop", "length", "tool_calls" */
json_t *mq__json_text(const char *bytes,
                      size_t count);          /* a JSON string of any bytes: what is no UTF-8 becomes U+FFFD */
void mq__random_id(char *id, size_t letters); /* [letters + 1] letters and digits, for "msg_...", "call_..." */

/* JSON of a request: an object without duplicate keys, depth and number of values bounded. NULL with a fault. Strings may hold NUL:
 * json_string_length counts. */
json_t *mq__body_read(mq_server *server, const mq_exchange *x, mq_fault *fault);
json_t *mq__body_parse(const char *text, size_t bytes, uint32_t most_depth, mq_fault *fault);
json_t *mq__error_json(const mq_fault *fault);                                  /* OpenAI's form */
void mq__reply_json(mq_exchange *x, unsigned status, json_t *body);             /* takes the reference */
void mq__reply_fault(mq_exchange *x, const mq_api *api, const mq_fault *fault); /* api NULL: OpenAI's form */

/* ask_fields.c: fields that several APIs share, by their JSON names; each false with a fault. Absent and null leave the default. */
bool mq__field_number(const json_t *body, const char *name, double least, double most, double *value, mq_fault *fault);
bool mq__field_integer(const json_t *body, const char *name, int64_t least, int64_t most, int64_t *value,
                       mq_fault *fault);
bool mq__field_bool(const json_t *body, const char *name, bool *value, mq_fault *fault);
bool mq__read_sampling(mq_server *server, const json_t *body, mq_ask *ask,
                       mq_fault *fault); /* temperature .. seed, penalties, logit_bias */
bool mq__read_stops(mq_server *server, const json_t *stops, const char *name, mq_ask *ask, mq_fault *fault);
/* A string of at most `most` bytes without NUL; *value is borrowed, NULL where it is absent. */
bool mq__field_text(const json_t *body, const char *name, size_t most, const char **value, mq_fault *fault);
/* Adds to ask->warning, which is printable ASCII without quotes, at most 1000 bytes. False: no memory. */
bool mq__ask_warn(mq_ask *ask, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Adds a member to ask->template_kwargs unless it has it; takes `value`. */
bool mq__ask_kwarg(mq_ask *ask, const char *name, json_t *value);

/* ask_tools.c: adds a function {"name", "description", "parameters", "strict"} (taken; `param` names it in a fault) to ask->tools.
 * strict: true sets ask->strict_tools. */
bool mq__ask_add_tool(mq_server *server, mq_ask *ask, json_t *function, const char *param, mq_fault *fault);
/* OpenAI's tools and tool_choice of chat/completions. */
bool mq__read_tools(mq_server *server, const json_t *tools, mq_ask *ask, mq_fault *fault);
bool mq__read_tool_choice(const json_t *choice, mq_ask *ask, mq_fault *fault);
/* The tool of that name must be called; false where there is none. */
bool mq__ask_must_call(mq_ask *ask, const char *name, const char *param, mq_fault *fault);
/* response_format, or text.format of responses: {"type": "text" | "json_object" | "json_schema", ...}; the schema lies in it, or in its
 * "json_schema". */
bool mq__read_format(const json_t *format, const char *name, mq_ask *ask, mq_fault *fault);

/* messages.c: OpenAI's chat messages into the normal form: content is a string (or null beside tool_calls), roles are system (first
 * only), user, assistant and tool, members are role, content, name, reasoning_content, tool_calls and tool_call_id. */
bool mq__read_messages(mq_server *server, const json_t *messages, mq_ask *ask, mq_fault *fault);
/* The first of the messages (or items) at the end with which a client asks now, where they are user's, system's and developer's: behind it
 * are only system's and developer's, and perhaps the beginning of the answer. */
size_t mq__messages_asking(const json_t *messages);
/* Appends a message of that form, or of role developer or system, to ask->messages (made if NULL). System texts at the head are
 * joined; a later one goes, tagged, to the end of the user's or tool's message before it, or begins a user's message that the
 * next user's joins: what stood before never changes. Takes `message`. */
bool mq__messages_append(mq_ask *ask, json_t *message, mq_fault *fault);
bool mq__messages_finish(mq_server *server, mq_ask *ask, mq_fault *fault); /* after the last: their number */

#endif
