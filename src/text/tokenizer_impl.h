/* What the tokenizer's files share: tables, compiled steps and the scratch memory of one encode call. */
#ifndef MQ_FORMAT_TOKENIZER_IMPL_H
#define MQ_FORMAT_TOKENIZER_IMPL_H

#include "base/buf.h"
#include "base/unicode.h"
#include "text/pretokenize.h"
#include "text/pretokenize_regex.h"
#include "text/tokenizer.h"
#include "text/tokjson.h"

#include <jansson.h>

/* ---------------------------------------------------------------- tables (tokenizer_vocab.c) */

#define MQ_TOKEN_ABSENT UINT32_MAX

enum {
    MQ_TOKEN_ADDED = 1,    /* an added token */
    MQ_TOKEN_SPECIAL = 2,  /* and a special one */
    MQ_TOKEN_OUTSIDE = 4,  /* not in the model's own vocabulary: merging never sees it */
    MQ_TOKEN_RESTATED = 8, /* an added token whose flags tokenizer_config.json changed */
    MQ_TOKEN_SINGLE_WORD = 16,
    MQ_TOKEN_LSTRIP = 32,
    MQ_TOKEN_RSTRIP = 64,
    MQ_TOKEN_NORMALIZED = 128
};

typedef struct mq_token {
    uint32_t offset, bytes; /* in the arena; bytes == MQ_TOKEN_ABSENT: this id has no token */
    uint32_t flags;
} mq_token;

typedef struct mq_vocab_slot {
    uint32_t hash; /* low half of the text's hash */
    int32_t id;    /* -1: free */
} mq_vocab_slot;

/* Texts by id and ids by text of all tokens. */
typedef struct mq_vocab {
    mq_buf arena;
    mq_token *tokens; /* [count] */
    size_t count, cap;
    mq_vocab_slot *slots; /* [mask + 1], open addressing, at most half full */
    size_t mask, used;
    uint64_t seed;  /* random per load: a file cannot aim at one slot */
    size_t longest; /* bytes of the longest token */
} mq_vocab;

typedef struct mq_merge { /* left == -1: free */
    int32_t left, right, result;
    uint32_t rank;
} mq_merge;

typedef struct mq_merges {
    mq_merge *slots; /* [mask + 1], open addressing, at most half full */
    size_t mask;
    uint64_t seed;
} mq_merges;

mq_text mq__vocab_text(const mq_vocab *vocab, int32_t id);                           /* data NULL when absent */
int32_t mq__vocab_find(const mq_vocab *vocab, const char *text, size_t bytes);       /* -1 */
int32_t mq__vocab_find_model(const mq_vocab *vocab, const char *text, size_t bytes); /* -1; not those outside */

typedef enum mq_put { MQ_PUT_DONE, MQ_PUT_NO_MEMORY, MQ_PUT_SAME_TEXT, MQ_PUT_SAME_ID } mq_put;
mq_put mq__vocab_put(mq_vocab *vocab, mq_text text, int32_t id, uint32_t flags); /* id 0..MQ_TOKENIZER_MAX_ID */
bool mq__vocab_reserve(mq_vocab *vocab, size_t tokens);
void mq__vocab_free(mq_vocab *vocab);

bool mq__merges_build(mq_merges *merges, const mq_merge *list, size_t count, uint64_t seed); /* a later pair replaces */
void mq__merges_free(mq_merges *merges);

static inline uint64_t mq__pair_hash(uint64_t seed, int32_t left, int32_t right)
{
    uint64_t x = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) ^ seed;
    x *= 0x9E3779B97F4A7C15u;
    x ^= x >> 32;
    x *= 0xD6E8FEB86659FD93u;
    return x ^ x >> 29;
}

static inline const mq_merge *mq__merges_find(const mq_merges *merges, int32_t left, int32_t right) /* NULL: none */
{
    for (size_t i = (size_t)mq__pair_hash(merges->seed, left, right) & merges->mask;; i = (i + 1) & merges->mask) {
        const mq_merge *slot = &merges->slots[i];
        if (slot->left == left && slot->right == right) return slot;
        if (slot->left < 0) return NULL;
    }
}

/* ---------------------------------------------------------------- byte-level alphabet (tokenizer_bytes.c) */

/* GPT-2's printable stand-ins: byte -> code point below 0x144, and back (-1: not in the alphabet). */
uint32_t mq__byte_to_code(uint8_t byte);
int mq__code_to_byte(uint32_t code);
bool mq__bytes_to_alphabet(const char *bytes, size_t count, mq_buf *out);
int mq__byte_token_value(mq_text text); /* of "<0x4A>": 0x4A; -1 for another text */

/* ---------------------------------------------------------------- BPE (tokenizer_bpe.c) */

typedef struct mq_bpe {
    mq_merges merges;
    int32_t
        byte_id[256]; /* bytes mode: id of the byte's stand-in. Otherwise: id of <0xXX>, for byte_fallback. -1: none */
    bool bytes_mode;  /* words are raw bytes: the last pre-tokeniser was ByteLevel and its mapping is left out */
    bool byte_fallback, fuse_unk, ignore_merges;
    bool cut_spaces;       /* no merge reaches from another character over to U+2581: words may be cut there */
    int32_t unk_id;        /* -1: characters without a token are dropped */
    char *prefix, *suffix; /* continuing_subword_prefix, end_of_word_suffix; NULL when empty */
    size_t prefix_bytes, suffix_bytes;
} mq_bpe;

typedef struct mq_bpe_symbol { /* of a long word being merged, doubly linked */
    int32_t id;                /* -1: merged into its left neighbour */
    uint32_t previous, next;   /* UINT32_MAX at the ends */
    uint32_t rank;             /* of the merge with the next symbol; UINT32_MAX: none */
} mq_bpe_symbol;

typedef struct mq_bpe_work {
    mq_bpe_symbol *symbols; /* [len] */
    size_t len, symbols_cap;
    uint64_t *heap; /* min-heap of rank << 32 | position; entries whose symbol has another rank by now are stale */
    size_t heap_len, heap_cap;
    mq_buf key;
} mq_bpe_work;

/* Appends the ids of one word; false when memory is short. */
bool mq__bpe_encode(const mq_bpe *bpe, const mq_vocab *vocab, mq_text word, mq_bpe_work *work, mq_ids *ids);
void mq__bpe_work_free(mq_bpe_work *work);
void mq__bpe_free(mq_bpe *bpe);

/* ---------------------------------------------------------------- added tokens (tokenizer_added.c) */

#define MQ_ADDED_MAX_BYTES 512

typedef struct mq_added {
    char *content; /* owned by the set; of a token that is looked for in normalised text, its normalised form */
    size_t bytes;
    int32_t id;
    bool special, single_word, lstrip, rstrip, normalized;
    bool restates; /* its flags replace those that the token had before */
} mq_added;

/* One set of texts to look for, sorted by content. */
typedef struct mq_added_set {
    mq_added *tokens; /* owned */
    size_t count, cap;
    uint32_t first[257]; /* tokens that begin with byte b: [first[b], first[b + 1]) */
} mq_added_set;

typedef struct mq_added_match {
    size_t start, end; /* white space that lstrip and rstrip take is inside */
    int32_t id;
    bool found;
} mq_added_match;

bool mq__added_put(mq_added_set *set, const mq_added *token); /* copies content, which is not empty */
void mq__added_sort(mq_added_set *set);                       /* before the first find; of equal contents keeps one */
mq_added_match mq__added_find(const mq_added_set *set, const char *text, size_t bytes, size_t from, bool specials);
void mq__added_free(mq_added_set *set);

/* ---------------------------------------------------------------- steps */

#define MQ_MAX_STEPS 64 /* of each kind, Sequences flattened */

typedef enum mq_norm_kind {
    MQ_NORM_PREPEND,
    MQ_NORM_REPLACE, /* regex, or text when regex is NULL */
    MQ_NORM_FORM,
    MQ_NORM_LOWERCASE,
    MQ_NORM_STRIP,
    MQ_NORM_STRIP_ACCENTS
} mq_norm_kind;

typedef struct mq_norm_step {
    mq_norm_kind kind;
    mq_regex *regex;      /* owned */
    char *text, *content; /* owned: what is searched or prepended; what it becomes */
    size_t text_bytes, content_bytes;
    mq_normal_form form;
    bool left, right;
} mq_norm_step;

typedef enum mq_split_behavior {
    MQ_BEHAVIOR_ISOLATED,
    MQ_BEHAVIOR_REMOVED,
    MQ_BEHAVIOR_MERGED_WITH_PREVIOUS,
    MQ_BEHAVIOR_MERGED_WITH_NEXT,
    MQ_BEHAVIOR_CONTIGUOUS
} mq_split_behavior;

typedef enum mq_pre_kind {
    MQ_PRE_PATTERN, /* a known expression, isolated */
    MQ_PRE_REGEX,
    MQ_PRE_TEXT,
    MQ_PRE_CLASS, /* each character of the class is a match */
    MQ_PRE_WORDS, /* runs of word characters and runs of others; white space is left out */
    MQ_PRE_METASPACE,
    MQ_PRE_PREFIX_SPACE, /* ByteLevel's add_prefix_space */
    MQ_PRE_BYTES         /* ByteLevel's mapping, where it is not the last step */
} mq_pre_kind;

typedef enum mq_prepend_scheme { MQ_PREPEND_ALWAYS, MQ_PREPEND_FIRST, MQ_PREPEND_NEVER } mq_prepend_scheme;

typedef struct mq_pre_step {
    mq_pre_kind kind;
    mq_split_pattern pattern;
    mq_split_behavior behavior;
    mq_regex *regex; /* owned */
    char *text;      /* owned: searched, or Metaspace's replacement */
    size_t text_bytes;
    unsigned classes;
    mq_prepend_scheme scheme;
    bool invert, split;
} mq_pre_step;

typedef enum mq_decode_kind {
    MQ_DECODER_BYTE_LEVEL,
    MQ_DECODER_BYTE_FALLBACK,
    MQ_DECODER_REPLACE,
    MQ_DECODER_STRIP,
    MQ_DECODER_METASPACE,
    MQ_DECODER_BPE, /* text: the suffix */
    MQ_DECODER_FUSE
} mq_decode_kind;

typedef struct mq_decode_step {
    mq_decode_kind kind;
    mq_regex *regex;      /* owned */
    char *text, *content; /* owned: pattern, stripped character, replacement character; what it becomes */
    size_t text_bytes, content_bytes;
    uint32_t start, stop; /* MQ_DECODER_STRIP */
    bool drop_first;      /* MQ_DECODER_METASPACE: the first token loses its replacement characters */
} mq_decode_step;

struct mq_tokenizer {
    mq_vocab vocab;
    mq_bpe bpe;
    mq_added_set raw;        /* looked for in the text as it is */
    mq_added_set normalized; /* looked for in the normalised text */
    mq_norm_step normalizers[MQ_MAX_STEPS];
    size_t normalizer_count;
    mq_pre_step pre[MQ_MAX_STEPS];
    size_t pre_count;
    mq_decode_step decoders[MQ_MAX_STEPS];
    size_t decoder_count;
    size_t fuse_at; /* decoders from here on see one joined text; decoder_count when there is no Fuse */
    bool has_decoder;
    bool added_raw;       /* the decoder starts with ByteLevel: added tokens are plain text, not its alphabet */
    mq_ids before, after; /* what the post-processor puts around a text */
    char *special_text[MQ_SPECIAL_COUNT]; /* owned */
    int32_t special_id[MQ_SPECIAL_COUNT];
    int add_bos, add_eos;
    json_t *templates;    /* object: name -> text */
    uint64_t load_budget; /* regex steps left for normalising added tokens, all together */
};

/* ---------------------------------------------------------------- encoding text (tokenizer_normalize.c, _split.c) */

typedef struct mq_span {
    uint32_t start, end;
} mq_span;

typedef struct mq_spans { /* owns data */
    mq_span *data;
    size_t len, cap;
} mq_spans;

bool mq__spans_push(mq_spans *spans, size_t start, size_t end); /* an empty span is dropped */
bool mq__spans_push_any(mq_spans *spans, size_t start, size_t end);

/* All scratch memory of one encode call, so that concurrent calls share nothing. */
typedef struct mq_encode_work {
    mq_buf text[2];       /* normalised text; steps swap them */
    mq_buf split_text[2]; /* text that pre-tokenisers changed */
    mq_buf mapped;        /* text with stand-ins for bytes that are not UTF-8, for PCRE2 */
    mq_spans spans[2], matches;
    mq_regex_work regex;
    mq_bpe_work bpe;
} mq_encode_work;

#define MQ_MAX_STEP_BYTES ((size_t)128 << 20) /* text may grow to this by Replace, Prepend, normal forms, stand-ins */

/* All matches of the regex, or of the pattern when it is NULL, as work->matches. A regex sees U+FFFD for a broken byte;
 * its matches may be empty. An empty text has none. */
mq_status mq__find_matches(const mq_regex *regex, mq_text pattern, mq_text text, mq_encode_work *work, mq_error *error);

/* *text becomes the normalised text, borrowed from work until the next call. */
mq_status mq__normalize(const mq_tokenizer *tokenizer, mq_text *text, mq_encode_work *work, mq_error *error);

/* Cuts *text into words: *words is valid, and *text may become another text, until the next call. at_start: the text
 * stands at the beginning of the input. */
mq_status mq__presplit(const mq_tokenizer *tokenizer, mq_text *text, bool at_start, mq_encode_work *work,
                       const mq_spans **words, mq_error *error);

void mq__encode_work_free(mq_encode_work *work);

/* ---------------------------------------------------------------- loading */

#define MQ_MAX_STEPS_JSON ((size_t)1 << 20) /* bytes of one of the four step descriptions */

/* tokenizer_steps.c, tokenizer_steps_pre.c: json is null or a step of tokenizer.json; borrowed. */
mq_status mq__steps_normalizer(mq_tokenizer *tokenizer, const json_t *json, mq_error *error);
mq_status mq__steps_pre(mq_tokenizer *tokenizer, const json_t *json, mq_error *error);
mq_status mq__steps_post(mq_tokenizer *tokenizer, const json_t *json, mq_error *error);
mq_status mq__steps_decoder(mq_tokenizer *tokenizer, const json_t *json, mq_error *error);
void mq__steps_free(mq_tokenizer *tokenizer);

/* What the two share. `where` names the part in messages: "normalizer". */
const char *mq__step_type(const json_t *json, const char *where, mq_error *error); /* NULL: failed */
mq_status mq__step_unknown(const char *type, const char *where, mq_error *error);
bool mq__step_flag(const json_t *json, const char *key, bool absent);
mq_status mq__step_text(const json_t *json, const char *key, const char *where, char **text, size_t *bytes,
                        mq_error *error); /* returns owned text */
/* {"String": ...} gives text, {"Regex": ...} gives text and regex; both owned. */
mq_status mq__step_pattern(const json_t *json, const char *where, char **text, size_t *bytes, mq_regex **regex,
                           mq_error *error);

/* tokenizer_model.c: "model" of tokenizer.json, the value at the reader's position. */
mq_status mq__model_read(mq_tokenizer *tokenizer, mq_tokjson *json);
void mq__model_finish(mq_tokenizer *tokenizer); /* after all parts: picks the mode that words are encoded in */

/* tokenizer_config.c. *lists_added: the config says which tokens are added, so that added_tokens.json does not count. */
mq_status mq__config_load(mq_tokenizer *tokenizer, mq_text config, bool *lists_added, mq_error *error);
mq_status mq__added_json_load(mq_tokenizer *tokenizer, mq_text file, mq_error *error);

/* tokenizer_load.c. Checks an added token against the vocabulary and puts it where encoding looks for it. */
mq_status mq__tokenizer_add(mq_tokenizer *tokenizer, const mq_added *token, const char *where, mq_error *error);

#endif
