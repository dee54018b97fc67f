/* A model's chat template: an OpenAI-style request in, the exact prompt text out, as transformers' apply_chat_template
 * makes it.
 *
 * Owns the parsed template(s) and the special tokens of a tokenizer_config.json. Refuses nothing that Jinja accepts
 * within jinja.h's subset and budgets.
 *
 * A request is {"messages": [...], "tools": [...]|null, "documents", "add_generation_prompt" (default true),
 * "chat_template_kwargs": {...}, "reasoning_effort"}; other members are ignored. The template sees messages, tools and
 * documents (none when absent), add_generation_prompt, each special token that is set (bos_token, eos_token, ...), the
 * kwargs, and reasoning_effort when the request has it.
 *
 * Some things are changed on the way, because OpenAI's form differs from what templates were written for. What a template
 * takes is found out at load: it renders short conversations in each form (chat_template_probe.c).
 *  - tool_calls[].function.arguments that is a string holding a JSON object becomes that object, and no arguments an empty
 *    one. Templates print it with tojson, so the prompt gets Python's spacing, as it does for users who pass dicts. A template
 *    that only shows a call whose arguments are a string, or prints the object as Python would, gets the string as it came.
 *  - Null content is "", unless the template shows a call only where it is null. Other members of a message that are null,
 *    and tool_calls that is empty, are left out.
 *  - content given as a list of {"type":"text","text":...}: the template is rendered, for each role, with one message
 *    in both forms. Where both give the same text the list is passed as it is; where only the string works the
 *    texts are joined by line breaks; where only the list works (some multimodal templates) strings become a list. */
#ifndef MQ_FORMAT_CHAT_TEMPLATE_H
#define MQ_FORMAT_CHAT_TEMPLATE_H

#include "jinja/jinja.h"

typedef struct mq_chat_template mq_chat_template; /* immutable once loaded: threads may share it */

/* From a checkpoint directory: chat_template.jinja (with additional_chat_templates/tool_use.jinja), else
 * tokenizer_config.json's chat_template, a string or a list of {name, template}, else chat_template.json.
 * A request with tools gets the template "tool_use" where there is one, and "default" otherwise. */
mq_status mq__chat_template_load(const char *directory, mq_chat_template **chat, mq_error *error);

/* A given Jinja file with the special tokens of `directory`, which may be NULL. */
mq_status mq__chat_template_load_file(const char *file, const char *directory, mq_chat_template **chat,
                                      mq_error *error);

/* A template given as text; `config` is the text of a tokenizer_config.json or NULL, used for its tokens. */
mq_status mq__chat_template_from_text(const char *text, size_t bytes, const char *config, mq_chat_template **chat,
                                      mq_error *error);
void mq__chat_template_free(mq_chat_template *chat);

/* Renders the request in `text`. *prompt is owned (mq__free) and NUL-terminated. MQ_FORMAT: the request is malformed;
 * MQ_TEMPLATE, MQ_LIMIT: see jinja.h. */
mq_status mq__chat_template_render(const mq_chat_template *chat, const char *request, size_t request_bytes,
                                   char **prompt, size_t *bytes, mq_error *error);
/* The same for a parsed request, with options (or NULL). */
mq_status mq__chat_template_render_json(const mq_chat_template *chat, const json_t *request,
                                        const mq_jinja_options *options, char **prompt, size_t *bytes, mq_error *error);

/* The Jinja text that a request with tools is rendered by, NUL-terminated. Valid as long as the template. */
const char *mq__chat_template_source(const mq_chat_template *chat);

/* The text of a special token ("bos_token", ...), or NULL when it is not set. Valid as long as the template. */
const char *mq__chat_template_token(const mq_chat_template *chat, const char *name);

#endif
