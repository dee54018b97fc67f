/* What the Messages and the Responses API share: reasoning that travels through a client as an opaque string, texts of lists, and when a
 * silent stream says that it lives. */
#ifndef MQ_API_PARTS_H
#define MQ_API_PARTS_H

#include "base/buf.h"
#include "server/answering.h"

/* A string member; NULL: it is absent, or another value. */
const char *mq__text_member(const json_t *object, const char *name);

/* Reasoning as an opaque string (an Anthropic signature, OpenAI's encrypted_content), so that a client that does not show it can bring
 * it back, and the prompt's prefix stays what it was. It is not encrypted: it is the client's own. NULL: no memory. */
json_t *mq__reasoning_seal(const char *text, size_t count);
/* Appends the text of such a string; false where it is not ours. Memory: text->failed. */
bool mq__reasoning_open(const json_t *sealed, mq_buf *text);

/* Appends a text to others, after `between` unless it is the first. */
void mq__join_text(mq_buf *text, const char *between, const json_t *more);
/* The buffer's text as a JSON string; NULL: no memory, now or before. The buffer is emptied, and keeps its memory. */
json_t *mq__joined_text(mq_buf *text);
/* An object with one more member, a list with one more item. Takes both; NULL, and nothing is left, where either is NULL or memory is
 * short: what is missing is never left out silently. */
json_t *mq__with(json_t *object, const char *name, json_t *value);
json_t *mq__with_item(json_t *list, json_t *value);
bool mq__is_blank(const char *text, size_t count); /* nothing but spaces and line breaks */

/* For api->alive: true when `every` seconds have passed without an event, and again after as many. `told` is the writer's own, 0 at
 * first. */
bool mq__alive_due(double *told, double idle, double every);

/* The member `name` of a prompt's call or tool that the model sees has to be unique: false with a fault where it is not. */
bool mq__ask_unique_tool(const mq_ask *ask, const char *name, const char *param, mq_fault *fault);
/* What a model of a request is called in its answers: as the client wrote it, or as it is served. */
json_t *mq__call_model(const mq_call *call);

#endif
