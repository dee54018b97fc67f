/* The tokenizer of a Hugging Face checkpoint directory: text <-> token ids by tokenizer.json.
 *
 * Owns: the vocabulary, the merges and the compiled text steps of one model; immutable after loading, so any number of
 * threads encode and decode with it at once. Covers BPE, byte-level and SentencePiece style, with the normalisers,
 * pre-tokenisers, post-processors and decoders of the Qwen, Llama, Phi, SmolLM, GPT-2, Mistral and Gemma files. Refuses
 * by name (MQ_UNSUPPORTED) every other model type and step; "truncation" and "padding" are not this library's business
 * and are ignored.
 *
 * Text is any bytes. Where the model has a token for each byte (byte-level, byte_fallback), decoding what was encoded
 * gives the same bytes back, except for what the file's normaliser changes: NFC and friends change well-formed text
 * (bytes that are not UTF-8 stay), Prepend adds a space that the decoder's Strip removes again, and Replace " " by
 * U+2581 makes a U+2581 of the text come back as a space. Steps see a byte that is not UTF-8 as one character, as
 * format/unicode.h says. */
#ifndef MQ_FORMAT_TOKENIZER_H
#define MQ_FORMAT_TOKENIZER_H

#include "base/buf.h"
#include "mixquant.h"

#define MQ_TOKENIZER_MAX_FILE  ((size_t)256 << 20) /* bytes of tokenizer.json */
#define MQ_TOKENIZER_MAX_ID    ((1 << 22) - 1)
#define MQ_TOKENIZER_MAX_INPUT ((size_t)32 << 20) /* bytes of text in one encode call; more is MQ_LIMIT */

typedef struct mq_tokenizer mq_tokenizer;

/* Reads dir/tokenizer.json and, where present, dir/tokenizer_config.json (bos, eos, pad, unk tokens, add_bos_token,
 * chat_template, added_tokens_decoder) and dir/added_tokens.json. Returns owned. */
mq_status mq__tokenizer_load(const char *dir, mq_tokenizer **out, mq_error *error);

/* The same from memory, borrowed during the call; a NULL text means the file is absent. */
typedef struct mq_tokenizer_files {
    const char *tokenizer, *config, *added;
    size_t tokenizer_bytes, config_bytes, added_bytes;
} mq_tokenizer_files;

mq_status mq__tokenizer_load_memory(const mq_tokenizer_files *files, mq_tokenizer **out, mq_error *error);
void mq__tokenizer_free(mq_tokenizer *tokenizer);

/* ---------------------------------------------------------------- encoding */

enum {
    MQ_ENCODE_ADD_SPECIAL = 1,   /* run the post-processor: BOS and so on */
    MQ_ENCODE_PARSE_SPECIAL = 2, /* special added tokens written in the text become their id (others always do) */
    MQ_ENCODE_DEFAULT = 3
};

typedef struct mq_ids { /* owns data; zero it before the first use */
    int32_t *data;
    size_t len, cap;
} mq_ids;

bool mq__ids_push(mq_ids *ids, int32_t id);
void mq__ids_free(mq_ids *ids);

/* Appends the ids of text[0, bytes) to *ids; on failure *ids is as before the call. */
mq_status mq__tokenizer_encode(const mq_tokenizer *tokenizer, const char *text, size_t bytes, unsigned flags,
                               mq_ids *ids, mq_error *error);

/* ---------------------------------------------------------------- decoding */

enum {
    MQ_DECODE_SKIP_SPECIAL = 1, /* special added tokens decode to nothing */
    MQ_DECODE_CONTINUE = 2      /* the ids continue a text: what strips or joins at a text's start does not apply */
};

/* Appends the bytes of ids[0, count) to *out. An id without a token is empty: a model may have more rows than its tokenizer
 * has tokens, and can draw one of them. A negative id is MQ_USAGE. */
mq_status mq__tokenizer_decode(const mq_tokenizer *tokenizer, const int32_t *ids, size_t count, unsigned flags,
                               mq_buf *out, mq_error *error);

/* Decodes id by id. Each push appends whole UTF-8 characters only: at most 3 bytes, the beginning of one, are held
 * back, and bytes that can no longer become a character are passed on as they are. Everything appended, with the flush,
 * is what mq__tokenizer_decode gives for the same ids. */
typedef struct mq_detokenizer mq_detokenizer;

mq_status mq__detokenizer_new(const mq_tokenizer *tokenizer, unsigned flags, mq_detokenizer **out, mq_error *error);
mq_status mq__detokenizer_push(mq_detokenizer *detokenizer, int32_t id, mq_buf *out, mq_error *error);
mq_status mq__detokenizer_flush(mq_detokenizer *detokenizer, mq_buf *out, mq_error *error); /* then ready anew */
void mq__detokenizer_free(mq_detokenizer *detokenizer);

/* ---------------------------------------------------------------- queries */

int32_t mq__tokenizer_vocab_size(const mq_tokenizer *tokenizer); /* highest id + 1 */
bool mq__tokenizer_is_valid(const mq_tokenizer *tokenizer, int32_t id);
bool mq__tokenizer_is_special(const mq_tokenizer *tokenizer, int32_t id);

/* The token's text as the file has it (byte-level: in its printable alphabet); NULL for an invalid id. Valid until the
 * tokenizer is freed; not NUL-terminated; *bytes gets its length. */
const char *mq__tokenizer_token(const mq_tokenizer *tokenizer, int32_t id, size_t *bytes);

int32_t mq__tokenizer_id(const mq_tokenizer *tokenizer, const char *token, size_t bytes); /* -1 when there is none */

typedef enum mq_special { MQ_SPECIAL_BOS, MQ_SPECIAL_EOS, MQ_SPECIAL_PAD, MQ_SPECIAL_UNK, MQ_SPECIAL_COUNT } mq_special;

/* From tokenizer_config.json: the token's text (NUL-terminated) or NULL, and its id or -1. */
const char *mq__tokenizer_special_text(const mq_tokenizer *tokenizer, mq_special which);
int32_t mq__tokenizer_special_id(const mq_tokenizer *tokenizer, mq_special which);

/* add_bos_token / add_eos_token of tokenizer_config.json: 1, 0, or -1 when it does not say. Information only: encoding
 * follows the post-processor. */
int mq__tokenizer_add_bos(const mq_tokenizer *tokenizer);
int mq__tokenizer_add_eos(const mq_tokenizer *tokenizer);

/* chat_template of tokenizer_config.json: of a list of named ones the one called `name`; a single one is "default".
 * NULL when there is none. NUL-terminated. */
const char *mq__tokenizer_chat_template(const mq_tokenizer *tokenizer, const char *name);

#endif
