/* From a request to the variables of a template. */
#ifndef MQ_FORMAT_CHAT_TEMPLATE_REQUEST_H
#define MQ_FORMAT_CHAT_TEMPLATE_REQUEST_H

#include "mixquant.h"

#include <jansson.h>

/* What a template takes as the content of a role. */
typedef enum mq_chat_content { MQ_CHAT_TEXT, MQ_CHAT_EITHER, MQ_CHAT_PARTS } mq_chat_content;

enum { MQ_CHAT_USER, MQ_CHAT_SYSTEM, MQ_CHAT_ASSISTANT, MQ_CHAT_TOOL, MQ_CHAT_ROLES };

/* The forms in which a template takes a request. */
typedef struct mq_chat_takes {
    mq_chat_content content[MQ_CHAT_ROLES];
    bool text_arguments; /* of a tool call: the request's string, not the object in it */
    bool null_content;   /* of a message with tool calls: null, not "" */
} mq_chat_takes;

/* Parses a request's text: no duplicate keys, nothing after it. *request is a new reference. */
mq_status mq__chat_request_parse(const char *text, size_t bytes, json_t **request, mq_error *error);

/* Owned object of variables (a new reference); it shares the request's values. */
mq_status mq__chat_request_variables(const json_t *request, const json_t *tokens, const mq_chat_takes *takes,
                                     json_t **variables, mq_error *error);

#endif
