/* A strict pull reader for large JSON files (tokenizer.json: 11 MB, 300,000 short strings).
 *
 * It borrows the file's bytes and allocates only to unescape strings. It refuses what RFC 8259 refuses, and also
 * invalid UTF-8, lone surrogates and nesting over 64. It does not look for duplicate keys: the caller does. The first
 * failure is kept in `status` and `error`; every later call returns false. Typical use:
 *
 *     mq__tokjson_open(&json, '{');
 *     while (mq__tokjson_more(&json, '}')) { mq__tokjson_key(&json, &key); ...; }
 *     if (json.status != MQ_OK) ...
 */
#ifndef MQ_FORMAT_TOKJSON_H
#define MQ_FORMAT_TOKJSON_H

#include "base/buf.h"
#include "mixquant.h"

#define MQ_TOKJSON_MAX_DEPTH 64

typedef struct mq_text { /* borrowed bytes, not NUL-terminated, may contain NUL */
    const char *data;
    size_t bytes;
} mq_text;

static inline bool mq__text_is(mq_text text, const char *word)
{
    const size_t n = __builtin_strlen(word);
    return text.bytes == n && __builtin_memcmp(text.data, word, n) == 0;
}

typedef struct mq_tokjson {
    const char *data; /* borrowed */
    size_t bytes, pos;
    const char *what; /* names the file in messages; borrowed */
    unsigned depth;
    uint64_t begun; /* bit d: the container at depth d+1 has an element already */
    mq_buf scratch; /* holds the latest string that had escapes */
    mq_status status;
    mq_error *error;
} mq_tokjson;

void mq__tokjson_init(mq_tokjson *json, const char *what, mq_text text, mq_error *error);
void mq__tokjson_free(mq_tokjson *json);

char mq__tokjson_peek(mq_tokjson *json); /* first byte of the next value, after white space; 0 at the end */
bool mq__tokjson_open(mq_tokjson *json, char bracket);    /* '{' or '[' */
bool mq__tokjson_more(mq_tokjson *json, char bracket);    /* '}' or ']': true when another element follows */
bool mq__tokjson_key(mq_tokjson *json, mq_text *key);     /* and its colon; valid until the next string is read */
bool mq__tokjson_string(mq_tokjson *json, mq_text *text); /* valid until the next string is read */
bool mq__tokjson_integer(mq_tokjson *json, int64_t min, int64_t max, int64_t *value);
bool mq__tokjson_bool(mq_tokjson *json, bool *value);
bool mq__tokjson_null(mq_tokjson *json);                 /* takes a null if one is next; never fails */
bool mq__tokjson_skip(mq_tokjson *json, mq_text *value); /* any value, checked; value may be NULL */
bool mq__tokjson_end(mq_tokjson *json);                  /* only white space is left */

/* Records a failure at the current byte: "<what>: byte <n>: expected <expected>, got ..." */
bool mq__tokjson_expected(mq_tokjson *json, const char *expected);
bool mq__tokjson_no_memory(mq_tokjson *json);

#endif
