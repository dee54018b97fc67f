/* Small tokenizers that the tests write themselves, and ways to look at what they do. */
#ifndef MQ_TEST_TOKENIZER_FIXTURE_H
#define MQ_TEST_TOKENIZER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/mem.h"
#include "text/tokenizer_impl.h"

typedef struct fixture {       /* each text is JSON; NULL is the default */
    bool marks;                /* SentencePiece style: letters, U+2581 and <0xXX>; else the byte alphabet */
    const char *const *merges; /* pairs "a b", NULL-terminated; NULL: default_merges or mark_merges */
    const char *model;         /* further members of the model, with a comma behind each */
    const char *normalizer, *pre, *post, *decoder, *added;
    bool pairs; /* merges as ["a","b"] */
} fixture;

static const char *const default_merges[] = {"h e",        "l l", "he ll",        "hell o", "\xC4\xA0 hello",
                                             "\xC4\xA0 w", "o r", "\xC4\xA0w or", "1 2",    "\xC4\xA0 \xC4\xA0",
                                             "' s",        "a a", "aa aa",        NULL};
static const char *const mark_merges[] = {"h e",
                                          "l l",
                                          "he ll",
                                          "hell o",
                                          "\xE2\x96\x81 hello",
                                          "\xE2\x96\x81 w",
                                          "a a",
                                          "aa aa",
                                          "\xE2\x96\x81 \xE2\x96\x81",
                                          NULL};

/* A JSON string of UTF-8 text. */
static void put_string(mq_buf *out, const char *text, size_t bytes)
{
    mq__buf_putc(out, '"');
    for (size_t i = 0; i < bytes; i++) {
        const unsigned char c = (unsigned char)text[i];
        if (c < 0x20 || c == '"' || c == '\\') {
            mq__buf_printf(out, "\\u%04x", c);
        } else {
            mq__buf_putc(out, (char)c);
        }
    }
    mq__buf_putc(out, '"');
}

static void put_entry(mq_buf *out, const char *text, size_t bytes, int *id)
{
    if (*id > 0) mq__buf_putc(out, ',');
    put_string(out, text, bytes);
    mq__buf_printf(out, ":%d", (*id)++);
}

static void put_letters(mq_buf *out, bool marks, int *id)
{
    char text[8];
    if (!marks) {
        for (int b = 0; b < 256; b++) {
            mq_buf letter = {0};
            mq__utf8_put(&letter, mq__byte_to_code((uint8_t)b));
            put_entry(out, letter.data, letter.len, id);
            mq__buf_free(&letter);
        }
        return;
    }
    put_entry(out, "<unk>", 5, id);
    put_entry(out, "<s>", 3, id);
    put_entry(out, "</s>", 4, id);
    for (int b = 0; b < 256; b++) {
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)b);
        put_entry(out, text, 6, id);
    }
    for (char c = 0x21; c < 0x7F; c++)
        put_entry(out, &c, 1, id);
    put_entry(out, "\xE2\x96\x81", 3, id);
}

/* Returns owned JSON text. */
static char *fixture_json(const fixture *f, size_t *bytes)
{
    mq_buf out = {0};
    int id = 0;
    const char *const *merges = f->merges ? f->merges : f->marks ? mark_merges : default_merges;
    mq__buf_printf(&out, "{\"version\":\"1.0\",\"added_tokens\":%s,\"normalizer\":%s,\"pre_tokenizer\":%s,",
                   f->added ? f->added : "[]", f->normalizer ? f->normalizer : "null", f->pre ? f->pre : "null");
    mq__buf_printf(&out, "\"post_processor\":%s,\"decoder\":%s,\"model\":{\"type\":\"BPE\",%s\"vocab\":{",
                   f->post ? f->post : "null", f->decoder ? f->decoder : "null", f->model ? f->model : "");
    put_letters(&out, f->marks, &id);
    for (size_t i = 0; merges[i]; i++) {
        char joined[64];
        const char *space = strchr(merges[i] + 1, ' ');
        const size_t left = (size_t)(space - merges[i]);
        snprintf(joined, sizeof joined, "%.*s%s", (int)left, merges[i], space + 1);
        bool again = false; /* two merges may make the same token */
        for (size_t k = 0; k < i; k++) {
            const char *gap = strchr(merges[k] + 1, ' ');
            const size_t n = (size_t)(gap - merges[k]);
            again = again || (strncmp(joined, merges[k], n) == 0 && strcmp(joined + n, gap + 1) == 0);
        }
        if (!again) put_entry(&out, joined, strlen(joined), &id);
    }
    mq__buf_puts(&out, "},\"merges\":[");
    for (size_t i = 0; merges[i]; i++) {
        const char *space = strchr(merges[i] + 1, ' ');
        if (i) mq__buf_putc(&out, ',');
        if (f->pairs) {
            mq__buf_putc(&out, '[');
            put_string(&out, merges[i], (size_t)(space - merges[i]));
            mq__buf_putc(&out, ',');
            put_string(&out, space + 1, strlen(space + 1));
            mq__buf_putc(&out, ']');
        } else {
            put_string(&out, merges[i], strlen(merges[i]));
        }
    }
    mq__buf_puts(&out, "]}}");
    *bytes = out.len;
    char *text = mq__buf_take(&out);
    assert_non_null(text);
    return text;
}

static inline mq_tokenizer *fixture_load(const fixture *f)
{
    mq_tokenizer_files files = {0};
    mq_tokenizer *tokenizer;
    mq_error error = {0};
    char *text = fixture_json(f, &files.tokenizer_bytes);
    files.tokenizer = text;
    if (mq__tokenizer_load_memory(&files, &tokenizer, &error) != MQ_OK) fail_msg("%s", error.text);
    mq__free(text);
    return tokenizer;
}

/* The status of loading a fixture, which is expected to be refused; the report names `where`. */
static inline void fixture_refused(const fixture *f, mq_status expected, const char *where)
{
    mq_tokenizer_files files = {0};
    mq_tokenizer *tokenizer;
    mq_error error = {0};
    char *text = fixture_json(f, &files.tokenizer_bytes);
    files.tokenizer = text;
    const mq_status status = mq__tokenizer_load_memory(&files, &tokenizer, &error);
    if (status != expected || !strstr(error.text, where)) {
        fail_msg("expected status %d naming %s, got %d: %s", (int)expected, where, (int)status, error.text);
    }
    assert_null(tokenizer);
    mq__free(text);
}

/* The tokens of a text, joined by '|'; owned. */
static inline char *tokens_of(const mq_tokenizer *tokenizer, const char *text, size_t bytes, unsigned flags)
{
    mq_ids ids = {0};
    mq_buf out = {0};
    mq_error error = {0};
    if (mq__tokenizer_encode(tokenizer, text, bytes, flags, &ids, &error) != MQ_OK) fail_msg("%s", error.text);
    for (size_t i = 0; i < ids.len; i++) {
        size_t n;
        const char *token = mq__tokenizer_token(tokenizer, ids.data[i], &n);
        assert_non_null(token);
        if (i) mq__buf_putc(&out, '|');
        mq__buf_append(&out, token, n);
    }
    mq__ids_free(&ids);
    if (out.len == 0) mq__buf_puts(&out, "");
    return mq__buf_take(&out);
}

static inline void expect_tokens(const mq_tokenizer *tokenizer, const char *text, unsigned flags, const char *expected)
{
    char *got = tokens_of(tokenizer, text, strlen(text), flags);
    if (strcmp(got, expected) != 0) fail_msg("text \"%s\": expected %s, got %s", text, expected, got);
    mq__free(got);
}

/* Loads, encodes one text with the default flags, compares, frees. */
static inline void expect_fixture(const fixture *f, const char *text, const char *expected)
{
    mq_tokenizer *tokenizer = fixture_load(f);
    expect_tokens(tokenizer, text, MQ_ENCODE_DEFAULT, expected);
    mq__tokenizer_free(tokenizer);
}

/* Whole decoding and decoding id by id, which must agree; owned, *bytes gets the length. */
static inline char *decoded(const mq_tokenizer *tokenizer, const mq_ids *ids, unsigned flags, size_t *bytes)
{
    mq_buf whole = {0}, parts = {0};
    mq_detokenizer *d;
    assert_int_equal(mq__tokenizer_decode(tokenizer, ids->data, ids->len, flags, &whole, NULL), MQ_OK);
    assert_int_equal(mq__detokenizer_new(tokenizer, flags, &d, NULL), MQ_OK);
    const bool valid = mq__utf8_valid(whole.data, whole.len);
    for (int round = 0; round < 2; round++) { /* a flush makes it ready for another text */
        mq__buf_clear(&parts);
        for (size_t i = 0; i < ids->len; i++) {
            assert_int_equal(mq__detokenizer_push(d, ids->data[i], &parts, NULL), MQ_OK);
            if (valid) assert_int_equal(mq__utf8_incomplete_tail(parts.data, parts.len), 0);
        }
        assert_int_equal(mq__detokenizer_flush(d, &parts, NULL), MQ_OK);
        assert_int_equal(parts.len, whole.len);
        if (whole.len) assert_memory_equal(parts.data, whole.data, whole.len);
    }
    mq__detokenizer_free(d);
    mq__buf_free(&parts);
    *bytes = whole.len;
    if (whole.len == 0) mq__buf_puts(&whole, "");
    return mq__buf_take(&whole);
}

static inline void expect_text(const mq_tokenizer *tokenizer, const mq_ids *ids, unsigned flags, const char *expected)
{
    size_t bytes;
    char *got = decoded(tokenizer, ids, flags, &bytes);
    if (bytes != strlen(expected) || memcmp(got, expected, bytes) != 0) {
        fail_msg("expected \"%s\", got \"%s\"", expected, got);
    }
    mq__free(got);
}

/* encode, decode: the same bytes */
static inline void expect_round_trip(const mq_tokenizer *tokenizer, const char *text, size_t bytes)
{
    mq_ids ids = {0};
    size_t n;
    mq_error error = {0};
    if (mq__tokenizer_encode(tokenizer, text, bytes, 0, &ids, &error) != MQ_OK) fail_msg("%s", error.text);
    char *got = decoded(tokenizer, &ids, 0, &n);
    assert_int_equal(n, bytes);
    assert_memory_equal(got, text, bytes);
    mq__free(got);
    mq__ids_free(&ids);
}

static inline uint64_t next_random(uint64_t *state) /* xorshift64* */
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545F4914F6CDD1Du;
}

#endif
