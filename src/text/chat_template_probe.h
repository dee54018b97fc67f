/* In which forms a template takes a request: it is rendered with short conversations, and what comes out decides. */
#ifndef MQ_FORMAT_CHAT_TEMPLATE_PROBE_H
#define MQ_FORMAT_CHAT_TEMPLATE_PROBE_H

#include "jinja/jinja.h"
#include "text/chat_template_request.h"

/* `tokens`: the special tokens, as variables. A template that fails on a probe is no error; a lack of memory is. */
mq_status mq__chat_probe(const mq_jinja *program, const json_t *tokens, mq_chat_takes *takes, mq_error *error);

#endif
