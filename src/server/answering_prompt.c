/* From an ask to the prompt's tokens. */
#include "base/error.h"
#include "base/json_read.h"
#include "base/mem.h"
#include "server/answering_call.h"

#include <string.h>

/* ---- rendering */

/* The body that mq_render takes. NULL: no memory. */
static json_t *render_body(const mq_ask *ask, json_t *messages, bool turn)
{
    json_t *kwargs = ask->template_kwargs ? json_copy(ask->template_kwargs) : json_object();
    if (ask->thinking >= 0) {
        static const char *const names[] = {"enable_thinking", "thinking"}; /* different templates, one meaning */
        for (size_t i = 0; i < 2; i++) {
            if (!json_object_get(kwargs, names[i])) {
                (void)json_object_set_new(kwargs, names[i], json_boolean(ask->thinking));
            }
        }
    }
    return json_pack("{sO sO? sb so}", "messages", messages, "tools", ask->tools, "add_generation_prompt", turn,
                     "chat_template_kwargs", kwargs);
}

static mq_status render_once(mq_server *server, const mq_ask *ask, json_t *messages, bool turn, char **prompt,
                             size_t *bytes, mq_error *error)
{
    mq_buf text = {0};
    json_t *body = render_body(ask, messages, turn);
    const bool printed = body && mq__json_print(body, JSON_COMPACT, &text);
    json_decref(body);
    *prompt = NULL;
    const mq_status status = printed
                                 ? mq_render(mq__server_model(server)->text, text.data, text.len, prompt, bytes, error)
                                 : mq__fail(error, MQ_NO_MEMORY, "messages: expected memory, got none");
    mq__buf_free(&text);
    return status;
}

static mq_status render_rescued(mq_server *server, const mq_ask *ask, json_t *messages, unsigned which, bool turn,
                                char **prompt, size_t *bytes, mq_error *error)
{
    json_t *said = mq__rescue(messages, which);
    const mq_status status = said ? render_once(server, ask, said, turn, prompt, bytes, error)
                                  : mq__fail(error, MQ_NO_MEMORY, "messages: expected memory, got none");
    json_decref(said);
    return status;
}

/* As the template needs it. If it refuses that, which no probe has met, then in all forms at once; the first refusal is what is told. */
static mq_status render_somehow(mq_server *server, const mq_ask *ask, json_t *messages, bool turn, char **prompt,
                                size_t *bytes, mq_error *error)
{
    mq_error other = {0};
    const unsigned needs = mq__server_model(server)->needs.rescues[ask->tools != NULL];
    const mq_status status = render_rescued(server, ask, messages, needs, turn, prompt, bytes, error);
    if (status != MQ_TEMPLATE) return status;
    const mq_status again = render_rescued(server, ask, messages, MQ_ALL_RESCUES, turn, prompt, bytes, &other);
    if (again == MQ_NO_MEMORY) *error = other;
    return again == MQ_OK || again == MQ_NO_MEMORY ? again : status;
}

/* ---- reasoning */

typedef enum reasoning { OUTSIDE, INSIDE, BEHIND } reasoning; /* BEHIND: it is over, or does not come */

static bool ends_in(const char *text, size_t bytes, const char *end)
{
    const size_t n = strlen(end);
    return n && bytes >= n && memcmp(text + bytes - n, end, n) == 0;
}

/* Where a prompt ends. */
static reasoning reasoning_at_end(const mq_answer_style *style, const char *prompt, size_t bytes)
{
    while (bytes && strchr(" \t\r\n", prompt[bytes - 1])) {
        bytes--;
    }
    if (ends_in(prompt, bytes, style->unthink)) return BEHIND;
    return ends_in(prompt, bytes, style->think) ? INSIDE : OUTSIDE;
}

static const char *last_in(const char *text, const char *mark)
{
    const char *last = NULL;
    for (const char *at = text; *mark && (at = strstr(at, mark)); at++) {
        last = at;
    }
    return last;
}

/* Appends the assistant's last message to a prompt that ends where its turn begins. Returns where it ends. */
static reasoning append_turn(const mq_answer_style *style, const json_t *message, reasoning where, mq_buf *prompt)
{
    const json_t *content = json_object_get(message, "content"),
                 *thought = json_object_get(message, "reasoning_content");
    const char *text = json_string_value(content);
    const bool has_text = json_string_length(content) > 0,
               has_thought = json_string_length(thought) > 0 && style->think[0];
    const char *opened = has_text ? last_in(text, style->think) : NULL,
               *closed = has_text ? last_in(text, style->unthink) : NULL;
    if (has_thought) {
        if (where != INSIDE) {
            (void)mq__buf_puts(prompt, style->think);
            (void)mq__buf_putc(prompt, '\n');
        }
        (void)mq__buf_append(prompt, json_string_value(thought), json_string_length(thought));
        where = INSIDE;
    }
    if (has_text && where == INSIDE && (has_thought || !closed)) {
        if (prompt->len && prompt->data[prompt->len - 1] != '\n') (void)mq__buf_putc(prompt, '\n');
        (void)mq__buf_puts(prompt, has_thought ? "" : "\n");
        (void)mq__buf_puts(prompt, style->unthink);
        (void)mq__buf_puts(prompt, "\n\n");
    }
    if (!has_text) return where;
    (void)mq__buf_append(prompt, text, json_string_length(content));
    return opened && (!closed || closed < opened) ? INSIDE : BEHIND;
}

/* Whether the model begins its answer with reasoning though the prompt does not open it: templates that have a switch say so by
 * what they put there when it is off. */
static bool opens_by_itself(mq_server *server, const mq_ask *ask)
{
    const mq_answer_style *style = &mq__server_model(server)->style;
    mq_ask probe = {.thinking = -1, .template_kwargs = ask->template_kwargs};
    char *on = NULL, *off = NULL;
    size_t on_bytes = 0, off_bytes = 0;
    mq_error error;
    if (!style->think[0] || ask->thinking == 0) return false;
    if (ask->thinking == 1) return true;
    json_t *messages = json_pack("[{ssss}]", "role", "user", "content", "x");
    bool opens = messages && render_once(server, &probe, messages, true, &on, &on_bytes, &error) == MQ_OK;
    probe.thinking = 0;
    opens = opens && render_once(server, &probe, messages, true, &off, &off_bytes, &error) == MQ_OK;
    opens =
        opens && reasoning_at_end(style, on, on_bytes) == OUTSIDE && reasoning_at_end(style, off, off_bytes) == BEHIND;
    mq_free(on);
    mq_free(off);
    json_decref(messages);
    return opens;
}

/* ---- the whole */

static bool render_turn(mq_server *server, const mq_ask *ask, mq_buf *prompt, reasoning *where, mq_fault *fault)
{
    const mq_answer_style *style = &mq__server_model(server)->style;
    const size_t count = json_array_size(ask->messages);
    const json_t *last = ask->continues ? json_array_get(ask->messages, count - 1) : NULL;
    json_t *messages = last ? json_copy(ask->messages) : json_incref(ask->messages);
    if (last) (void)json_array_remove(messages, count - 1);
    char *rendered = NULL;
    size_t bytes = 0;
    mq_error error = {0};
    const mq_status status =
        messages ? render_somehow(server, ask, messages, last || !ask->no_turn, &rendered, &bytes, &error)
                 : MQ_NO_MEMORY;
    json_decref(messages);
    if (status != MQ_OK) return mq__fault_error(fault, status, &error);
    (void)mq__buf_append(prompt, rendered, bytes);
    mq_free(rendered);
    if (prompt->failed) return mq__fault_memory(fault);
    *where = reasoning_at_end(style, prompt->data, prompt->len);
    if (last) *where = append_turn(style, last, *where, prompt);
    return !prompt->failed || mq__fault_memory(fault);
}

bool mq__ask_render(mq_server *server, const mq_ask *ask, char **prompt, size_t *bytes, mq_fault *fault)
{
    mq_buf text = {0};
    reasoning where;
    *prompt = NULL;
    const bool rendered = render_turn(server, ask, &text, &where, fault);
    *bytes = text.len;
    if (rendered) *prompt = mq__buf_take(&text);
    mq__buf_free(&text);
    return rendered && (*prompt || mq__fault_memory(fault));
}

static bool tokens_of_text(mq_server *server, const char *text, size_t bytes, unsigned flags, mq_prompt *prompt,
                           mq_fault *fault)
{
    mq_error error = {0};
    const mq_status status =
        mq_tokenize(mq__server_model(server)->text, text, bytes, flags, &prompt->tokens, &prompt->count, &error);
    return status == MQ_OK || mq__fault_error(fault, status, &error);
}

static bool tokens_of_messages(mq_server *server, const mq_ask *ask, mq_prompt *prompt, mq_fault *fault)
{
    const bool held = mq__ask_is_held(server, ask);
    const mq_answer_style *style = &mq__server_model(server)->style;
    mq_buf text = {0};
    reasoning where;
    bool made = render_turn(server, ask, &text, &where, fault);
    prompt->opens_reasoning = made && where == OUTSIDE && (held || ask->tools) && opens_by_itself(server, ask);
    if (prompt->opens_reasoning && held) {
        (void)mq__buf_puts(&text, style->think);
        (void)mq__buf_putc(&text, '\n');
        where = INSIDE;
        made = !text.failed || mq__fault_memory(fault);
    }
    prompt->in_reasoning = where == INSIDE;
    /* The template has put special tokens where they belong. */
    made = made && tokens_of_text(server, text.data, text.len, MQ_TOKENIZE_PARSE_SPECIAL, prompt, fault);
    mq__buf_free(&text);
    return made;
}

bool mq__prompt_make(mq_server *server, const mq_ask *ask, mq_prompt *prompt, mq_fault *fault)
{
    *prompt = (mq_prompt){0};
    bool made;
    if (ask->messages) {
        made = tokens_of_messages(server, ask, prompt, fault);
    } else if (ask->prompt_tokens) {
        prompt->count = ask->prompt_token_count;
        prompt->tokens = mq__alloc(prompt->count * sizeof *prompt->tokens);
        made = prompt->tokens || mq__fault_memory(fault);
        if (made) memcpy(prompt->tokens, ask->prompt_tokens, prompt->count * sizeof *prompt->tokens);
    } else {
        const unsigned flags = MQ_TOKENIZE_PARSE_SPECIAL | MQ_TOKENIZE_ADD_SPECIAL;
        made = tokens_of_text(server, ask->prompt ? ask->prompt : "", ask->prompt_bytes, flags, prompt, fault);
    }
    if (made && prompt->count == 0) {
        made = mq__fault(fault, ask->messages ? "messages" : "prompt", "prompt: expected at least one token, got none");
    }
    if (!made) mq_free(prompt->tokens);
    if (!made) *prompt = (mq_prompt){0};
    return made;
}

bool mq__ask_tokens(mq_server *server, const mq_ask *ask, int32_t **tokens, size_t *count, mq_fault *fault)
{
    mq_prompt prompt;
    const bool made = mq__prompt_make(server, ask, &prompt, fault);
    *tokens = prompt.tokens;
    *count = prompt.count;
    return made;
}
