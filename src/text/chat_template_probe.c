#include "text/chat_template_probe.h"

#include "base/error.h"
#include "base/mem.h"

#include <string.h>

#define PROBE "mqprobe"

typedef struct probe {
    const mq_jinja *program;
    const json_t *tokens;
} probe;

/* Renders a conversation (a reference that is taken); *text is NULL where the template fails on it. Only a lack of memory
 * is an error. */
static mq_status render_probe(const probe *p, json_t *messages, json_t *tools, const mq_chat_takes *takes, char **text,
                              mq_error *error)
{
    const struct tm day = {.tm_mday = 1, .tm_year = 125};
    const mq_jinja_options options = {
        .limits = {.steps = 200000, .output_bytes = (size_t)1 << 20, .memory_bytes = (size_t)8 << 20}, .now = &day};
    size_t bytes;
    json_t *variables = NULL;
    *text = NULL;
    json_t *const request = messages ? json_pack("{s:O,s:O?}", "messages", messages, "tools", tools) : NULL;
    mq_status status = MQ_NO_MEMORY;
    if (request) status = mq__chat_request_variables(request, p->tokens, takes, &variables, NULL);
    if (status == MQ_OK) status = mq__jinja_render(p->program, variables, &options, text, &bytes, NULL);
    json_decref(variables);
    json_decref(request);
    json_decref(messages);
    return status == MQ_NO_MEMORY ? mq__fail(error, status, "chat template: out of memory") : MQ_OK;
}

/* ---------------------------------------------------------------- tool calls */

static json_t *call_messages(void)
{
    return json_pack("[{s:s,s:s},{s:s,s:n,s:[{s:s,s:s,s:{s:s,s:s}}]},{s:s,s:s,s:s,s:s}]", "role", "user", "content",
                     "x", "role", "assistant", "content", "tool_calls", "id", "call00001", "type", "function",
                     "function", "name", "f", "arguments", "{\"" PROBE "\": \"x\"}", "role", "tool", "name", "f",
                     "tool_call_id", "call00001", "content", "x");
}

static json_t *call_tools(void)
{
    return json_pack("[{s:s,s:{s:s,s:s,s:{s:s,s:{}}}}]", "type", "function", "function", "name", "f", "description",
                     "x", "parameters", "type", "object", "properties");
}

/* Whether the arguments of a call are seen in the prompt, and whether as Python prints a dict: a template that prints them
 * so was written for strings. */
static mq_status probe_call(const probe *p, const mq_chat_takes *takes, bool with_tools, bool *seen, bool *as_dict,
                            mq_error *error)
{
    char *text;
    json_t *const tools = with_tools ? call_tools() : NULL;
    mq_status status = with_tools && !tools ? mq__fail(error, MQ_NO_MEMORY, "chat template: out of memory") : MQ_OK;
    *seen = *as_dict = false;
    if (status == MQ_OK) status = render_probe(p, call_messages(), tools, takes, &text, error);
    if (status == MQ_OK && text) {
        *seen = strstr(text, PROBE) != NULL;
        *as_dict = strstr(text, "'" PROBE "'") != NULL;
        mq__free(text);
    }
    json_decref(tools);
    return status;
}

/* The first form that shows the call. Objects come before strings: templates print them as their model was trained. */
static mq_status probe_calls(const probe *p, mq_chat_takes *takes, mq_error *error)
{
    mq_status status = MQ_OK;
    for (unsigned form = 0; form < 8 && status == MQ_OK; form++) {
        mq_chat_takes tried = *takes;
        bool seen, as_dict, text_as_dict;
        tried.text_arguments = (form & 2) != 0;
        tried.null_content = (form & 1) != 0;
        status = probe_call(p, &tried, (form & 4) != 0, &seen, &as_dict, error);
        if (status != MQ_OK || !seen) continue;
        *takes = tried;
        if (!as_dict || tried.text_arguments) return MQ_OK;
        tried.text_arguments = true;
        status = probe_call(p, &tried, (form & 4) != 0, &seen, &text_as_dict, error);
        takes->text_arguments = status == MQ_OK && seen && !text_as_dict;
        return status;
    }
    return status;
}

/* ---------------------------------------------------------------- content */

/* A conversation with one message of the role whose content is given. */
static json_t *role_messages(int role, json_t *content)
{
    switch (role) {
    case MQ_CHAT_USER:
        return json_pack("[{s:s,s:O}]", "role", "user", "content", content);
    case MQ_CHAT_SYSTEM:
        return json_pack("[{s:s,s:O},{s:s,s:s}]", "role", "system", "content", content, "role", "user", "content", "x");
    case MQ_CHAT_ASSISTANT:
        return json_pack("[{s:s,s:s},{s:s,s:O},{s:s,s:s}]", "role", "user", "content", "x", "role", "assistant",
                         "content", content, "role", "user", "content", "x");
    default:
        return json_pack("[{s:s,s:s},{s:s,s:n,s:[{s:s,s:s,s:{s:s,s:s}}]},{s:s,s:s,s:s,s:O}]", "role", "user", "content",
                         "x", "role", "assistant", "content", "tool_calls", "id", "call00001", "type", "function",
                         "function", "name", "f", "arguments", "{}", "role", "tool", "name", "f", "tool_call_id",
                         "call00001", "content", content);
    }
}

static mq_status probe_role(const probe *p, const mq_chat_takes *given, int role, mq_chat_content *content,
                            mq_error *error)
{
    char *from_text = NULL, *from_parts = NULL;
    json_t *const text = json_string(PROBE);
    json_t *const parts = json_pack("[{s:s,s:s}]", "type", "text", "text", PROBE);
    mq_status status = text && parts ? MQ_OK : mq__fail(error, MQ_NO_MEMORY, "chat template: out of memory");
    if (status == MQ_OK) status = render_probe(p, role_messages(role, text), NULL, given, &from_text, error);
    if (status == MQ_OK) status = render_probe(p, role_messages(role, parts), NULL, given, &from_parts, error);
    const bool text_works = from_text && strstr(from_text, PROBE), parts_work = from_parts && strstr(from_parts, PROBE);
    *content = MQ_CHAT_TEXT;
    if (text_works && parts_work && strcmp(from_text, from_parts) == 0) *content = MQ_CHAT_EITHER;
    if (!text_works && parts_work) *content = MQ_CHAT_PARTS;
    json_decref(text);
    json_decref(parts);
    mq__free(from_text);
    mq__free(from_parts);
    return status;
}

mq_status mq__chat_probe(const mq_jinja *program, const json_t *tokens, mq_chat_takes *takes, mq_error *error)
{
    const probe p = {program, tokens};
    mq_chat_takes given = {.content = {MQ_CHAT_EITHER, MQ_CHAT_EITHER, MQ_CHAT_EITHER, MQ_CHAT_EITHER}};
    mq_status status = probe_calls(&p, &given, error);
    *takes = given;
    for (int role = 0; status == MQ_OK && role < MQ_CHAT_ROLES; role++) {
        status = probe_role(&p, &given, role, &takes->content[role], error);
    }
    return status;
}
