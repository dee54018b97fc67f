/* Tokenizer and chat template behind the public header. */
#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"
#include "format/checkpoint_locate.h"
#include "text/answer_style.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

#include <string.h>

struct mq_text {
    mq_tokenizer *tokenizer;        /* NULL: the directory has no tokenizer.json */
    mq_chat_template *chat;         /* NULL: the model has no template */
    mq_error no_tokenizer, no_chat; /* why not */
    mq_answer_style style;
    mq_marker_tokens markers;
};

struct mq_stream {
    mq_detokenizer *detokenizer;
    mq_buf text;
};

void mq_free(void *block)
{
    mq__free(block);
}

static mq_status open_text(const char *dir, const char *template_file, mq_text **out, mq_error *error)
{
    mq_text *text = mq__alloc_zero(1, sizeof *text);
    char *path = mq__path_join(dir, "tokenizer.json");
    mq_status status = MQ_OK;
    if (!text || !path) {
        status = mq__fail(error, MQ_NO_MEMORY, "text: %s: expected memory, got none", dir);
    } else if (mq__file_exists(path)) {
        status = mq__tokenizer_load(dir, &text->tokenizer, error);
    } else {
        (void)mq__fail(&text->no_tokenizer, MQ_IO, "tokenizer: %s: expected a readable file, got none", path);
    }
    if (status == MQ_OK) {
        const mq_status chat = template_file ? mq__chat_template_load_file(template_file, dir, &text->chat, error)
                                             : mq__chat_template_load(dir, &text->chat, &text->no_chat);
        /* A model may do without a template, but a file that is there and cannot be read is no file that is not there. */
        if (template_file)
            status = chat;
        else if (chat == MQ_NO_MEMORY || chat == MQ_IO)
            status = mq__fail(error, chat, "%s", text->no_chat.text);
    }
    if (status == MQ_OK && !text->tokenizer && !text->chat) {
        status = mq__fail(error, text->no_tokenizer.status, "%s", text->no_tokenizer.text);
    }
    mq__free(path);
    if (status == MQ_OK) {
        const char *const source = text->chat ? mq__chat_template_source(text->chat) : NULL;
        mq__answer_style(source, text->tokenizer, &text->style, &text->markers);
        *out = text;
    } else {
        mq_text_close(text);
    }
    return status;
}

mq_status mq_text_open(const char *model_dir, const char *template_file, mq_text **out, mq_error *error)
{
    char *dir;
    *out = NULL;
    mq_status status = mq__checkpoint_locate(model_dir, false, &dir, error);
    if (status == MQ_OK) status = open_text(dir, template_file, out, error);
    mq__free(dir);
    return status;
}

void mq_text_close(mq_text *text)
{
    if (!text) return;
    mq__tokenizer_free(text->tokenizer);
    mq__chat_template_free(text->chat);
    mq__free(text);
}

static mq_status need_tokenizer(const mq_text *text, mq_error *error)
{
    return text->tokenizer ? MQ_OK : mq__fail(error, text->no_tokenizer.status, "%s", text->no_tokenizer.text);
}

mq_status mq_tokenize(const mq_text *text, const char *bytes, size_t count, unsigned flags, int32_t **tokens,
                      size_t *token_count, mq_error *error)
{
    mq_ids ids = {0};
    const unsigned encode = (flags & MQ_TOKENIZE_ADD_SPECIAL ? (unsigned)MQ_ENCODE_ADD_SPECIAL : 0) |
                            (flags & MQ_TOKENIZE_PARSE_SPECIAL ? (unsigned)MQ_ENCODE_PARSE_SPECIAL : 0);
    mq_status status = need_tokenizer(text, error);
    if (status == MQ_OK) status = mq__tokenizer_encode(text->tokenizer, bytes, count, encode, &ids, error);
    *tokens = ids.data;
    *token_count = ids.len;
    return status;
}

mq_status mq_detokenize(const mq_text *text, const int32_t *tokens, size_t count, bool skip_special, char **bytes,
                        size_t *byte_count, mq_error *error)
{
    mq_buf buf = {0};
    *bytes = NULL;
    *byte_count = 0;
    mq_status status = need_tokenizer(text, error);
    if (status == MQ_OK) {
        status = mq__tokenizer_decode(text->tokenizer, tokens, count, skip_special ? MQ_DECODE_SKIP_SPECIAL : 0, &buf,
                                      error);
    }
    const size_t length = buf.len;
    if (status == MQ_OK) {
        *bytes = mq__buf_take(&buf);
        if (!*bytes) return mq__fail(error, MQ_NO_MEMORY, "detokenize: expected memory, got none");
        *byte_count = length;
    }
    mq__buf_free(&buf);
    return status;
}

bool mq_token_is_special(const mq_text *text, int32_t token)
{
    return text->tokenizer && mq__tokenizer_is_special(text->tokenizer, token);
}

bool mq_token_is_marker(const mq_text *text, int32_t token)
{
    for (size_t i = 0; i < text->markers.count; i++) {
        if (text->markers.ids[i] == token) return true;
    }
    return false;
}

void mq_text_answer_style(const mq_text *text, mq_answer_style *style)
{
    *style = text->style;
}

mq_status mq_render(const mq_text *text, const char *request_json, size_t count, char **prompt, size_t *bytes,
                    mq_error *error)
{
    *prompt = NULL;
    *bytes = 0;
    if (!text->chat) return mq__fail(error, text->no_chat.status, "%s", text->no_chat.text);
    return mq__chat_template_render(text->chat, request_json, count, prompt, bytes, error);
}

mq_status mq_stream_new(const mq_text *text, unsigned flags, mq_stream **out, mq_error *error)
{
    *out = NULL;
    mq_status status = need_tokenizer(text, error);
    if (status != MQ_OK) return status;
    mq_stream *stream = mq__alloc_zero(1, sizeof *stream);
    if (!stream || !mq__buf_reserve(&stream->text, 1024)) {
        mq_stream_free(stream);
        return mq__fail(error, MQ_NO_MEMORY, "stream: expected memory, got none");
    }
    const unsigned decode = (flags & MQ_STREAM_SKIP_SPECIAL ? (unsigned)MQ_DECODE_SKIP_SPECIAL : 0) |
                            (flags & MQ_STREAM_CONTINUES ? (unsigned)MQ_DECODE_CONTINUE : 0);
    status = mq__detokenizer_new(text->tokenizer, decode, &stream->detokenizer, error);
    if (status == MQ_OK)
        *out = stream;
    else
        mq_stream_free(stream);
    return status;
}

mq_status mq_stream_push(mq_stream *stream, int32_t token, const char **bytes, size_t *count, mq_error *error)
{
    mq__buf_clear(&stream->text);
    const mq_status status = mq__detokenizer_push(stream->detokenizer, token, &stream->text, error);
    *bytes = stream->text.data;
    *count = stream->text.len;
    return status;
}

mq_status mq_stream_flush(mq_stream *stream, const char **bytes, size_t *count, mq_error *error)
{
    mq__buf_clear(&stream->text);
    const mq_status status = mq__detokenizer_flush(stream->detokenizer, &stream->text, error);
    *bytes = stream->text.data;
    *count = stream->text.len;
    return status;
}

void mq_stream_free(mq_stream *stream)
{
    if (!stream) return;
    mq__detokenizer_free(stream->detokenizer);
    mq__buf_free(&stream->text);
    mq__free(stream);
}
