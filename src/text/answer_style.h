/* What a chat template and a tokenizer say about answers. */
#ifndef MQ_ANSWER_STYLE_H
#define MQ_ANSWER_STYLE_H

#include "mixquant_serve.h"
#include "text/tokenizer.h"

#define MQ_MARKER_TOKENS 8

/* Special tokens that are marks of calls or of reasoning. */
typedef struct mq_marker_tokens {
    int32_t ids[MQ_MARKER_TOKENS];
    size_t count;
} mq_marker_tokens;

/* source: the template's text for requests with tools, or NULL; tokenizer may be NULL. */
void mq__answer_style(const char *source, const mq_tokenizer *tokenizer, mq_answer_style *style,
                      mq_marker_tokens *tokens);

#endif
