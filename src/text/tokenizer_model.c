/* "model" of tokenizer.json. The vocabulary and the merges, which are nearly all of the file, are read where they stand
 * when what they need came before them, as in files that the tokenizers library writes; otherwise afterwards. */
#include "base/error.h"
#include "base/mem.h"
#include "text/tokenizer_impl.h"

#include <stdio.h>
#include <string.h>

#define WHAT            "tokenizer.json: model"
#define MAX_MERGES      ((size_t)1 << 22)
#define MAX_SPACED_PAIR 256            /* bytes of a merge whose tokens contain spaces */
#define SPACE_MARK      "\xE2\x96\x81" /* U+2581, SentencePiece's space */

/* ---------------------------------------------------------------- small fields */

/* The slices of the model's fields; data NULL: absent. */
typedef struct fields {
    mq_text type, vocab, merges, unk_token, prefix, suffix, dropout, fuse_unk, byte_fallback, ignore_merges;
    bool has_vocab, has_merges; /* read already */
} fields;

static mq_status read_flag(mq_text slice, bool *flag, mq_error *error)
{
    mq_tokjson json;
    if (!slice.data) return MQ_OK;
    mq__tokjson_init(&json, WHAT " flag", slice, error);
    if (!mq__tokjson_null(&json)) mq__tokjson_bool(&json, flag);
    return json.status;
}

/* A string or null; *text stays NULL for null and "". */
static mq_status read_text(mq_text slice, const char *what, char **text, size_t *bytes, mq_error *error)
{
    mq_tokjson json;
    mq_text value = {NULL, 0};
    if (!slice.data) return MQ_OK;
    mq__tokjson_init(&json, what, slice, error);
    if (!mq__tokjson_null(&json) && mq__tokjson_string(&json, &value) && value.bytes > 0) {
        *text = mq__strndup(value.data, value.bytes);
        *bytes = value.bytes;
        if (!*text) mq__tokjson_no_memory(&json);
    }
    mq__tokjson_free(&json);
    return json.status;
}

static mq_status check_type(const fields *f, mq_error *error)
{
    if (f->type.data && !mq__text_is(f->type, "\"BPE\"")) {
        return mq__fail(error, MQ_UNSUPPORTED, WHAT ".type: expected \"BPE\", got %.*s",
                        f->type.bytes > 60 ? 60 : (int)f->type.bytes, f->type.data);
    }
    if (!f->vocab.data || !f->merges.data) {
        return mq__fail(error, f->type.data ? MQ_FORMAT : MQ_UNSUPPORTED,
                        WHAT ": expected a BPE model with vocab and merges, got none");
    }
    const bool drops = f->dropout.data && !mq__text_is(f->dropout, "null") && !mq__text_is(f->dropout, "0.0") &&
                       !mq__text_is(f->dropout, "0");
    if (drops) {
        return mq__fail(error, MQ_UNSUPPORTED, WHAT ".dropout: expected null or 0, got %.*s",
                        f->dropout.bytes > 60 ? 60 : (int)f->dropout.bytes, f->dropout.data);
    }
    return MQ_OK;
}

/* ---------------------------------------------------------------- vocab */

/* Adds the tokens of the object at the reader's position. */
static bool read_vocab(mq_vocab *vocab, mq_tokjson *json)
{
    if (!mq__vocab_reserve(vocab, (json->bytes - json->pos) / 80)) return mq__tokjson_no_memory(json); /* a guess */
    mq__tokjson_open(json, '{');
    while (mq__tokjson_more(json, '}')) {
        mq_text key;
        int64_t id;
        if (!mq__tokjson_key(json, &key) || !mq__tokjson_integer(json, 0, MQ_TOKENIZER_MAX_ID, &id)) return false;
        switch (mq__vocab_put(vocab, key, (int32_t)id, 0)) {
        case MQ_PUT_NO_MEMORY:
            return mq__tokjson_no_memory(json);
        case MQ_PUT_SAME_TEXT:
            return mq__tokjson_expected(json, "each token once, before this byte");
        case MQ_PUT_SAME_ID:
            return mq__tokjson_expected(json, "each id once, before this byte");
        case MQ_PUT_DONE:
            break;
        }
    }
    return json->status == MQ_OK;
}

/* ---------------------------------------------------------------- merges */

typedef struct merge_reader {
    mq_tokjson *json;
    const mq_tokenizer *tokenizer;
    mq_merge *list;
    size_t count, cap;
    mq_buf joined;
    int32_t guess; /* the id after the latest result: vocabularies list results in the order of merges */
    bool crosses;  /* a result has U+2581 behind another character */
} merge_reader;

static int32_t known_token(merge_reader *r, mq_text text)
{
    const int32_t id = mq__vocab_find_model(&r->tokenizer->vocab, text.data, text.bytes);
    if (id < 0 && r->json->status == MQ_OK) {
        r->json->status =
            mq__fail(r->json->error, MQ_FORMAT, WHAT ".merges[%zu]: expected a token of the vocabulary, got \"%.*s\"",
                     r->count, text.bytes > 100 ? 100 : (int)text.bytes, text.data);
    }
    return id;
}

/* Where the space stands that parts "a b"; 0: nowhere. Files that were converted from SentencePiece may have spaces in
 * the tokens themselves; then the first one that leaves two known tokens counts. */
static size_t find_gap(const merge_reader *r, mq_text text)
{
    const mq_vocab *vocab = &r->tokenizer->vocab;
    const char *space = text.bytes > 1 ? memchr(text.data + 1, ' ', text.bytes - 1) : NULL;
    if (!space) return 0;
    size_t at = (size_t)(space - text.data);
    if (text.data[0] != ' ' && !memchr(space + 1, ' ', text.bytes - at - 1)) return at;
    for (; at < text.bytes && text.bytes <= MAX_SPACED_PAIR; at++) {
        if (text.data[at] == ' ' && mq__vocab_find_model(vocab, text.data, at) >= 0 &&
            mq__vocab_find_model(vocab, text.data + at + 1, text.bytes - at - 1) >= 0) {
            return at;
        }
    }
    return 0;
}

/* Both halves of "a b" or ["a", "b"] as ids. */
static bool read_pair(merge_reader *r, int32_t *left, int32_t *right)
{
    mq_text text;
    *left = *right = -1;
    if (mq__tokjson_peek(r->json) == '[') {
        if (!mq__tokjson_open(r->json, '[') || !mq__tokjson_more(r->json, ']') || !mq__tokjson_string(r->json, &text)) {
            return mq__tokjson_expected(r->json, "two tokens");
        }
        *left = known_token(r, text);
        if (!mq__tokjson_more(r->json, ']') || !mq__tokjson_string(r->json, &text)) {
            return mq__tokjson_expected(r->json, "two tokens");
        }
        *right = known_token(r, text);
        if (mq__tokjson_more(r->json, ']')) return mq__tokjson_expected(r->json, "two tokens");
    } else {
        if (!mq__tokjson_string(r->json, &text)) return false;
        const size_t at = find_gap(r, text);
        if (at == 0) return mq__tokjson_expected(r->json, "two tokens with a space between them, before this byte");
        *left = known_token(r, (mq_text){text.data, at});
        *right = known_token(r, (mq_text){text.data + at + 1, text.bytes - at - 1});
    }
    return r->json->status == MQ_OK;
}

static bool mark_behind_other(mq_text text)
{
    size_t at = 0;
    while (text.bytes - at >= 3 && memcmp(text.data + at, SPACE_MARK, 3) == 0)
        at += 3;
    return memmem(text.data + at, text.bytes - at, SPACE_MARK, 3) != NULL;
}

/* The token that the pair becomes: its texts joined, without the prefix that marks inner pieces. */
static int32_t result_of(merge_reader *r, int32_t left, int32_t right)
{
    const mq_text a = mq__vocab_text(&r->tokenizer->vocab, left);
    mq_text b = mq__vocab_text(&r->tokenizer->vocab, right);
    const size_t prefix = r->tokenizer->bpe.prefix_bytes;
    if (prefix > 0) {
        if (b.bytes < prefix || memcmp(b.data, r->tokenizer->bpe.prefix, prefix) != 0) {
            mq__tokjson_expected(r->json, "a second token with continuing_subword_prefix, before this byte");
            return -1;
        }
        b = (mq_text){b.data + prefix, b.bytes - prefix};
    }
    mq__buf_clear(&r->joined);
    mq__buf_append(&r->joined, a.data, a.bytes);
    if (!mq__buf_append(&r->joined, b.data, b.bytes)) {
        mq__tokjson_no_memory(r->json);
        return -1;
    }
    const mq_text joined = {r->joined.data, r->joined.len};
    r->crosses = r->crosses || mark_behind_other(joined);
    const mq_text guess = mq__vocab_text(&r->tokenizer->vocab, r->guess);
    const bool hit = guess.data && guess.bytes == joined.bytes && memcmp(guess.data, joined.data, joined.bytes) == 0 &&
                     !(r->tokenizer->vocab.tokens[r->guess].flags & MQ_TOKEN_OUTSIDE);
    const int32_t id = hit ? r->guess : known_token(r, joined);
    r->guess = id + 1;
    return id;
}

static bool add_merge(merge_reader *r, mq_merge merge)
{
    if (r->count == MAX_MERGES) return mq__tokjson_expected(r->json, "at most 4194304 merges");
    if (r->count == r->cap) {
        const size_t cap = r->cap ? r->cap * 2 : 4096;
        mq_merge *list = mq__realloc(r->list, cap * sizeof *list);
        if (!list) return mq__tokjson_no_memory(r->json);
        r->list = list;
        r->cap = cap;
    }
    merge.rank = (uint32_t)r->count;
    r->list[r->count++] = merge;
    return true;
}

/* Reads the array at the reader's position. */
static bool read_merges(mq_tokenizer *tokenizer, mq_tokjson *json)
{
    merge_reader r = {.tokenizer = tokenizer, .json = json};
    mq__tokjson_open(json, '[');
    while (mq__tokjson_more(json, ']')) {
        mq_merge merge;
        if (!read_pair(&r, &merge.left, &merge.right)) break;
        merge.result = result_of(&r, merge.left, merge.right);
        if (merge.result < 0 || !add_merge(&r, merge)) break;
    }
    mq_bpe *bpe = &tokenizer->bpe;
    if (json->status == MQ_OK && !mq__merges_build(&bpe->merges, r.list, r.count, tokenizer->vocab.seed)) {
        mq__tokjson_no_memory(json);
    }
    bpe->cut_spaces = !r.crosses;
    mq__buf_free(&r.joined);
    mq__free(r.list);
    return json->status == MQ_OK;
}

/* ---------------------------------------------------------------- model */

static mq_status read_unknown(mq_tokenizer *tokenizer, mq_text slice, mq_error *error)
{
    char *text = NULL;
    size_t bytes = 0;
    tokenizer->bpe.unk_id = -1;
    mq_status status = read_text(slice, WHAT ".unk_token", &text, &bytes, error);
    if (status == MQ_OK && text) {
        tokenizer->bpe.unk_id = mq__vocab_find_model(&tokenizer->vocab, text, bytes);
        if (tokenizer->bpe.unk_id < 0) {
            status =
                mq__fail(error, MQ_FORMAT, WHAT ".unk_token: expected a token of the vocabulary, got \"%s\"", text);
        }
    }
    mq__free(text);
    return status;
}

static mq_status read_affixes(mq_bpe *bpe, const fields *f, mq_error *error)
{
    const mq_status status =
        read_text(f->prefix, WHAT ".continuing_subword_prefix", &bpe->prefix, &bpe->prefix_bytes, error);
    if (status != MQ_OK) return status;
    return read_text(f->suffix, WHAT ".end_of_word_suffix", &bpe->suffix, &bpe->suffix_bytes, error);
}

/* One value of the model object. */
static bool read_field(mq_tokenizer *tokenizer, mq_text *slice, fields *f, mq_tokjson *json)
{
    const bool is_bpe = f->type.data && mq__text_is(f->type, "\"BPE\"");
    if (slice == &f->vocab && is_bpe) {
        *slice = (mq_text){json->data, 1};
        f->has_vocab = true;
        return read_vocab(&tokenizer->vocab, json);
    }
    const bool no_prefix = f->prefix.data && (mq__text_is(f->prefix, "null") || mq__text_is(f->prefix, "\"\""));
    if (slice == &f->merges && f->has_vocab && no_prefix) {
        *slice = (mq_text){json->data, 1};
        f->has_merges = true;
        return read_merges(tokenizer, json);
    }
    return mq__tokjson_skip(json, slice);
}

static bool read_fields(mq_tokenizer *tokenizer, fields *f, mq_tokjson *json)
{
    const struct {
        const char *name;
        mq_text *slice;
    } known[] = {
        {"type", &f->type},
        {"vocab", &f->vocab},
        {"merges", &f->merges},
        {"unk_token", &f->unk_token},
        {"continuing_subword_prefix", &f->prefix},
        {"end_of_word_suffix", &f->suffix},
        {"dropout", &f->dropout},
        {"fuse_unk", &f->fuse_unk},
        {"byte_fallback", &f->byte_fallback},
        {"ignore_merges", &f->ignore_merges},
    };
    mq_text key;
    mq__tokjson_open(json, '{');
    while (mq__tokjson_more(json, '}')) {
        if (!mq__tokjson_key(json, &key)) return false;
        mq_text *slice = NULL;
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
            if (mq__text_is(key, known[i].name)) slice = known[i].slice;
        }
        if (slice && slice->data) return mq__tokjson_expected(json, "each key once");
        if (!read_field(tokenizer, slice, f, json)) return false;
    }
    return json->status == MQ_OK;
}

/* What was not read in passing. */
static mq_status read_deferred(mq_tokenizer *tokenizer, const fields *f, mq_error *error)
{
    mq_tokjson json;
    mq_status status = MQ_OK;
    if (!f->has_vocab) {
        mq__tokjson_init(&json, WHAT ".vocab", f->vocab, error);
        (void)read_vocab(&tokenizer->vocab, &json);
        mq__tokjson_free(&json);
        status = json.status;
    }
    if (status == MQ_OK) status = read_unknown(tokenizer, f->unk_token, error);
    if (status == MQ_OK && !f->has_merges) {
        mq__tokjson_init(&json, WHAT ".merges", f->merges, error);
        (void)read_merges(tokenizer, &json);
        mq__tokjson_free(&json);
        status = json.status;
    }
    return status;
}

mq_status mq__model_read(mq_tokenizer *tokenizer, mq_tokjson *json)
{
    fields f = {0};
    mq_bpe *bpe = &tokenizer->bpe;
    const char *what = json->what;
    json->what = WHAT;
    if (!read_fields(tokenizer, &f, json)) return json->status;
    json->what = what;
    mq_status status = check_type(&f, json->error);
    if (status == MQ_OK) status = read_flag(f.fuse_unk, &bpe->fuse_unk, json->error);
    if (status == MQ_OK) status = read_flag(f.byte_fallback, &bpe->byte_fallback, json->error);
    if (status == MQ_OK) status = read_flag(f.ignore_merges, &bpe->ignore_merges, json->error);
    if (status == MQ_OK) status = read_affixes(bpe, &f, json->error);
    if (status == MQ_OK) status = read_deferred(tokenizer, &f, json->error);
    json->status = status;
    return status;
}

void mq__model_finish(mq_tokenizer *tokenizer)
{
    mq_bpe *bpe = &tokenizer->bpe;
    const mq_vocab *vocab = &tokenizer->vocab;
    const bool plain = !bpe->prefix && !bpe->suffix;
    const size_t last = tokenizer->pre_count;
    bpe->bytes_mode = plain && last > 0 && tokenizer->pre[last - 1].kind == MQ_PRE_BYTES;
    if (bpe->bytes_mode) tokenizer->pre_count--;
    for (int b = 0; b < 256; b++) {
        char key[8];
        int n;
        if (bpe->bytes_mode) {
            const uint32_t code = mq__byte_to_code((uint8_t)b);
            n = code < 0x80 ? 1 : 2;
            key[0] = (char)(code < 0x80 ? code : 0xC0 | code >> 6);
            key[1] = (char)(0x80 | (code & 0x3F));
        } else {
            n = snprintf(key, sizeof key, "<0x%02X>", (unsigned)b);
        }
        bpe->byte_id[b] = mq__vocab_find_model(vocab, key, (size_t)n);
    }
    bpe->cut_spaces = bpe->cut_spaces && !bpe->bytes_mode && plain && mq__vocab_find_model(vocab, SPACE_MARK, 3) >= 0;
}
