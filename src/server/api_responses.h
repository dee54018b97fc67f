/* The parts of OpenAI's Responses API, stateless. api_responses.c reads the body, responses_input.c its items, responses_tools.c its tools;
 * responses_events.c writes streams, responses_answer.c response objects and items. */
#ifndef MQ_API_RESPONSES_H
#define MQ_API_RESPONSES_H

#include "server/answering.h"

/* How a call of a tool comes back. */
typedef enum mq_response_call {
    MQ_RESPONSE_FUNCTION, /* function_call, with its namespace */
    MQ_RESPONSE_CUSTOM,   /* custom_tool_call: the model's one argument is its input */
    MQ_RESPONSE_SHELL     /* local_shell_call */
} mq_response_call;

/* A tool as the model sees it, and as its client knows it. */
typedef struct mq_response_tool {
    mq_response_call kind;
    json_t *shown; /* strings, owned: the model's name for it; the client's; and its namespace, or NULL */
    json_t *name;
    json_t *space;
} mq_response_tool;

/* What the writers need of a request: mq_ask.extra. */
typedef struct mq_responses_extra {
    mq_response_tool *tools; /* [tool_count] */
    size_t tool_count;
    bool summary; /* reasoning is sent as a summary (one was asked for), else as reasoning_text */
    bool sealed;  /* include has reasoning.encrypted_content */
    json_t *echo; /* members of the response that repeat the request */
} mq_responses_extra;

/* Body to ask. */
bool mq__responses_read(mq_server *server, const mq_exchange *x, const json_t *body, mq_ask *ask, mq_fault *fault);
void mq__responses_free_extra(void *extra);
/* `tools`, those of `input`, and `tool_choice`, into ask and extra. */
bool mq__responses_read_tools(mq_server *server, const json_t *body, mq_ask *ask, mq_fault *fault);
/* `instructions` and `input`. */
bool mq__responses_read_input(mq_server *server, const json_t *body, mq_ask *ask, mq_fault *fault);
/* What the model is shown for a name in a namespace (NULL: in none). A new reference. */
json_t *mq__responses_shown_name(const json_t *space, const json_t *name);
/* A custom tool's input as the arguments of a call, JSON text. A new reference. */
json_t *mq__responses_custom_arguments(const json_t *input);

extern const mq_api mq__responses_api;

/* ---- answers; all new references */

const mq_responses_extra *mq__responses_extra_of(const mq_call *call);
/* NULL: the model named a tool that is not there. */
const mq_response_tool *mq__responses_tool(const mq_call *call, const mq_answered_call *called);
/* status: "in_progress", "completed", "incomplete" or "failed"; fault: of the last, else NULL. Takes `output`. */
json_t *mq__responses_object(const mq_call *call, const char *status, json_t *output, const mq_fault *fault);
/* Items. A text of `count` bytes; with in_progress it is to come, and not in the item. */
json_t *mq__responses_reasoning_item(const mq_call *call, const char *id, const char *text, size_t count,
                                     const char *status);
json_t *mq__responses_message_item(const mq_call *call, const char *id, const char *text, size_t count,
                                   const char *status);
json_t *mq__responses_call_item(const mq_call *call, const char *id, const mq_answered_call *called, json_t *input,
                                const char *status); /* input: of a custom tool, taken; else NULL */
json_t *mq__responses_text_part(const char *text, size_t count, json_t *logprobs); /* output_text; takes logprobs */
json_t *mq__responses_thought_part(const mq_call *call, const char *text, size_t count);
/* An item's id: its kind's letters, the request's id, its place in the answer. */
void mq__responses_item_id(const mq_call *call, const char *letters, uint32_t index, char *id, size_t size);
const char *mq__responses_call_letters(const mq_response_tool *tool); /* "fc", "ctc", "lsh" */
json_t *mq__responses_whole(mq_call *call);

/* ---- the input of a custom tool, out of the arguments of its call as they grow: {"input": "..."} */

typedef struct mq_custom_input {
    enum { MQ_INPUT_BEFORE, MQ_INPUT_INSIDE, MQ_INPUT_BEHIND, MQ_INPUT_OTHER } place;
    size_t at;    /* bytes of the arguments that were read */
    mq_buf text;  /* the input so far */
    size_t given; /* bytes of it that the writer has sent */
} mq_custom_input;

/* Reads on. Memory: input->text.failed. */
void mq__custom_input_read(mq_custom_input *input, const char *arguments, size_t count);
/* All arguments are there. Arguments of another form: their only string, or they themselves. */
void mq__custom_input_end(mq_custom_input *input, const char *arguments, size_t count);
void mq__custom_input_clear(mq_custom_input *input);

/* ---- a stream */

typedef enum mq_item_kind { MQ_ITEM_NONE, MQ_ITEM_REASONING, MQ_ITEM_MESSAGE, MQ_ITEM_CALL } mq_item_kind;

typedef struct mq_responses_state {
    uint64_t sequence;
    mq_item_kind open;    /* the item that is open, and its place in the answer; NONE: the next one's */
    uint32_t index, call; /* call: number of the open call */
    char id[96];          /* of the open item */
    size_t from;          /* where its text begins in the answer's text or reasoning */
    size_t said, thought; /* bytes of text and reasoning that earlier items have, or that were sent */
    mq_custom_input input;
    json_t *output; /* items that are done */
    double told;
} mq_responses_state;

void mq__responses_free_state(void *state);
void mq__responses_begin(mq_call *call);
void mq__responses_progress(mq_call *call, const mq_report *report);
void mq__responses_part(mq_call *call, uint32_t choice, const mq_part *part);
void mq__responses_alive(mq_call *call, double idle);
void mq__responses_end(mq_call *call);
void mq__responses_fail(mq_call *call, const mq_fault *fault);

#endif
