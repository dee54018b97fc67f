/* POST /tokenize, /detokenize, /apply-template: llama.cpp's and vLLM's bodies both. They never wait for the engine. */
#include "base/json_read.h"
#include "base/mem.h"
#include "base/unicode.h"
#include "server/answering.h"

#include <string.h>

/* A handler's frame: body in, JSON or a fault out. */
static void reply_text(mq_server *server, mq_exchange *x,
                       json_t *(*make)(mq_server *server, const mq_exchange *x, const json_t *body, mq_fault *fault))
{
    mq_fault fault;
    const unsigned long before = mq__json_failures();
    mq_ask named = {.model = ""};
    json_t *body = mq__body_read(server, x, &fault);
    const bool ours = body && mq__ask_model(server, body, &named, &fault);
    json_t *answer = ours ? make(server, x, body, &fault) : NULL;
    if (answer && mq__json_failures() != before) {
        json_decref(answer);
        answer = NULL;
        (void)mq__fault_memory(&fault);
    }
    json_decref(body);
    if (answer)
        mq__reply_json(x, 200, answer);
    else
        mq__reply_fault(x, NULL, &fault);
}

/* ---- the prompt of a chat body */

static bool read_ask_text(mq_server *server, const mq_exchange *x, const json_t *body, mq_ask *ask, mq_fault *fault)
{
    mq__ask_defaults(server, ask);
    return mq__chat_api.read(server, x, body, ask, fault);
}

static json_t *make_rendering(mq_server *server, const mq_exchange *x, const json_t *body, mq_fault *fault)
{
    mq_ask ask;
    char *prompt = NULL;
    size_t bytes = 0;
    const bool rendered =
        read_ask_text(server, x, body, &ask, fault) && mq__ask_render(server, &ask, &prompt, &bytes, fault);
    json_t *answer = rendered ? json_pack("{so}", "prompt", mq__json_text(prompt, bytes)) : NULL;
    if (rendered && !answer) (void)mq__fault_memory(fault);
    mq_free(prompt);
    mq__ask_clear(&ask);
    return answer;
}

/* ---- to tokens */

static bool tokens_of_chat(mq_server *server, const mq_exchange *x, const json_t *body, int32_t **tokens, size_t *count,
                           mq_fault *fault)
{
    mq_ask ask;
    const bool made = read_ask_text(server, x, body, &ask, fault) && mq__ask_tokens(server, &ask, tokens, count, fault);
    mq__ask_clear(&ask);
    return made;
}

/* llama.cpp: content, add_special (default false), parse_special (true). vLLM: prompt, add_special_tokens (true). */
static bool tokens_of_body(mq_server *server, const json_t *body, int32_t **tokens, size_t *count, mq_fault *fault)
{
    const json_t *content = json_object_get(body, "content"), *prompt = json_object_get(body, "prompt");
    const json_t *text = json_is_string(content) ? content : prompt;
    bool add = text == prompt, parse = true;
    if (!json_is_string(text))
        return mq__fault(fault, "content", "content: expected a string (or prompt, or messages)");
    if (!mq__field_bool(body, "add_special", &add, fault) || !mq__field_bool(body, "add_special_tokens", &add, fault) ||
        !mq__field_bool(body, "parse_special", &parse, fault)) {
        return false;
    }
    mq_error error = {0};
    const unsigned flags = (add ? MQ_TOKENIZE_ADD_SPECIAL : 0u) | (parse ? MQ_TOKENIZE_PARSE_SPECIAL : 0u);
    const mq_status status = mq_tokenize(mq__server_model(server)->text, json_string_value(text),
                                         json_string_length(text), flags, tokens, count, &error);
    return status == MQ_OK || mq__fault_error(fault, status, &error);
}

/* A token's text, or its bytes where they are no UTF-8. */
static json_t *piece_of(mq_server *server, int32_t token)
{
    char *text = NULL;
    size_t count = 0;
    json_t *piece = NULL;
    if (mq_detokenize(mq__server_model(server)->text, &token, 1, false, &text, &count, NULL) != MQ_OK) return NULL;
    if (mq__utf8_valid(text, count)) {
        piece = mq__json_text(text, count);
    } else {
        piece = json_array();
        for (size_t i = 0; i < count; i++) {
            (void)json_array_append_new(piece, json_integer((unsigned char)text[i]));
        }
    }
    mq_free(text);
    return piece;
}

static json_t *make_tokens(mq_server *server, const mq_exchange *x, const json_t *body, mq_fault *fault)
{
    int32_t *tokens = NULL;
    size_t count = 0;
    bool pieces = false;
    const json_t *messages = json_object_get(body, "messages");
    const bool chat = messages && !json_is_null(messages);
    if (!mq__field_bool(body, "with_pieces", &pieces, fault)) return NULL;
    if (!(chat ? tokens_of_chat(server, x, body, &tokens, &count, fault)
               : tokens_of_body(server, body, &tokens, &count, fault))) {
        return NULL;
    }
    json_t *list = json_array();
    bool made = list != NULL;
    for (size_t i = 0; made && i < count; i++) {
        json_t *entry = pieces ? json_pack("{sI so}", "id", (json_int_t)tokens[i], "piece", piece_of(server, tokens[i]))
                               : json_integer(tokens[i]);
        made = json_array_append_new(list, entry) == 0;
    }
    mq_free(tokens);
    json_t *answer = json_pack("{so sI sI}", "tokens", list, "count", (json_int_t)count, "max_model_len",
                               (json_int_t)mq__server_model(server)->info.context);
    if (made && answer) return answer;
    json_decref(answer);
    (void)mq__fault_memory(fault);
    return NULL;
}

/* ---- from tokens */

static bool read_ids(mq_server *server, const json_t *list, int32_t **tokens, mq_fault *fault)
{
    const uint32_t vocab = mq__server_model(server)->info.vocab;
    const size_t count = json_array_size(list);
    if (!json_is_array(list)) return mq__fault(fault, "tokens", "tokens: expected a list of ids, got another value");
    *tokens = mq__alloc((count + 1) * sizeof **tokens);
    if (!*tokens) return mq__fault_memory(fault);
    for (size_t i = 0; i < count; i++) {
        const json_t *id = json_array_get(list, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= vocab) {
            return mq__fault(fault, "tokens", "tokens[%zu]: expected an id below %u, got another value", i, vocab);
        }
        (*tokens)[i] = (int32_t)json_integer_value(id);
    }
    return true;
}

static json_t *make_text(mq_server *server, const mq_exchange *x, const json_t *body, mq_fault *fault)
{
    const json_t *list = json_object_get(body, "tokens");
    int32_t *tokens = NULL;
    char *text = NULL;
    size_t bytes = 0;
    mq_error error = {0};
    json_t *answer = NULL;
    (void)x;
    if (read_ids(server, list, &tokens, fault)) {
        const mq_status status =
            mq_detokenize(mq__server_model(server)->text, tokens, json_array_size(list), false, &text, &bytes, &error);
        if (status != MQ_OK) {
            (void)mq__fault_error(fault, status, &error);
        } else { /* llama.cpp's name, and vLLM's */
            answer = json_pack("{so so}", "content", mq__json_text(text, bytes), "prompt", mq__json_text(text, bytes));
            if (!answer) (void)mq__fault_memory(fault);
        }
    }
    mq_free(text);
    mq__free(tokens);
    return answer;
}

/* ---- handlers */

void mq__api_tokenize(mq_server *server, mq_exchange *x)
{
    reply_text(server, x, make_tokens);
}

void mq__api_detokenize(mq_server *server, mq_exchange *x)
{
    reply_text(server, x, make_text);
}

void mq__api_apply_template(mq_server *server, mq_exchange *x)
{
    reply_text(server, x, make_rendering);
}
