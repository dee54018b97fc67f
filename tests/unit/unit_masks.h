/* What the tests of masks share: a vocabulary, texts tried against a schema, random answers. */
#ifndef MQ_UNIT_MASKS_H
#define MQ_UNIT_MASKS_H

#include "unit_files.h"

#include "gen/vocabulary.h"
#include "mixquant_serve.h"

#include <jansson.h>

#define VOCAB 3072
#define EOS   3062

static mq_text *text;
static mq_vocabulary *vocabulary;

static inline mq_constraint *new_constraint(const mq_constraint_options *options)
{
    mq_constraint *c;
    mq_error error = {0};
    if (mq_constraint_new(vocabulary, options, &c, NULL, &error) != MQ_OK) fail_msg("%s", error.text);
    return c;
}

static inline mq_constraint *schema_constraint(const char *schema)
{
    return new_constraint(&(mq_constraint_options){.schema = schema, .schema_bytes = strlen(schema)});
}

static inline bool is_allowed(const uint32_t *mask, int32_t token)
{
    return !mask || (mask[token / 32] >> token % 32 & 1);
}

/* The token that is this byte: there is one of each in vocabularies of this kind. */
static inline int32_t byte_token(char byte)
{
    for (int32_t t = 0; t < VOCAB; t++) {
        const mq_token_bytes *token = &vocabulary->token[t];
        if (token->count == 1 && vocabulary->bytes[token->offset] == (uint8_t)byte) return t;
    }
    fail_msg("no token is the byte %d", byte);
    return -1;
}

/* Whether a text is taken, byte by byte, and may end there; else the byte at which it was refused. */
static inline long try_text(mq_constraint *c, const char *bytes)
{
    long at = 0;
    for (; bytes[at]; at++) {
        const int32_t token = byte_token(bytes[at]);
        if (!is_allowed(mq_constraint_mask(c), token)) return at;
        assert_int_equal(mq_constraint_accept(c, token, NULL), MQ_OK);
    }
    return is_allowed(mq_constraint_mask(c), EOS) ? -1 : at;
}

static inline unsigned next_random(unsigned *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

/* One of the allowed tokens, or -1 where only the end is. */
static inline int32_t draw_allowed(const uint32_t *mask, unsigned *seed, bool hurry)
{
    uint32_t count = 0;
    for (int32_t t = 0; t < VOCAB; t++) {
        count += t != EOS && is_allowed(mask, t);
    }
    assert_true(count > 0 || is_allowed(mask, EOS)); /* never nothing */
    if (is_allowed(mask, EOS) && (count == 0 || hurry || next_random(seed) % 3 == 0)) return -1;
    static const char closing[] = "\"}]><";
    for (size_t i = 0; hurry && closing[i]; i++) {
        const int32_t token = byte_token(closing[i]);
        if (is_allowed(mask, token) && next_random(seed) % 2) return token;
    }
    uint32_t pick = next_random(seed) % count;
    for (int32_t t = 0; t < VOCAB; t++) {
        if (t != EOS && is_allowed(mask, t) && pick-- == 0) return t;
    }
    return -1;
}

/* Text of a random answer; *ended: it came to its end. */
static inline char *walk(mq_constraint *c, unsigned seed, bool *ended)
{
    static int32_t tokens[1500];
    size_t count = 0;
    *ended = false;
    for (; count < 1500 && !*ended; count += !*ended) {
        const uint32_t *mask = mq_constraint_mask(c);
        const int32_t token = mask ? draw_allowed(mask, &seed, count > 60) : -1;
        *ended = token < 0;
        if (*ended) break;
        assert_int_equal(mq_constraint_accept(c, token, NULL), MQ_OK);
        tokens[count] = token;
    }
    char *bytes;
    size_t length;
    assert_int_equal(mq_detokenize(text, tokens, count, false, &bytes, &length, NULL), MQ_OK);
    return bytes;
}

static inline int unit_open_vocabulary(void **state)
{
    (void)state;
    const char *source = getenv("MQ_SOURCE_DIR");
    const int32_t eos = EOS;
    char dir[1024];
    mq_error error = {0};
    snprintf(dir, sizeof dir, "%s/models/mixquant-agent", source ? source : ".");
    if (mq_text_open(dir, NULL, &text, &error) == MQ_OK &&
        mq_vocabulary_new(text, VOCAB, &eos, 1, &vocabulary, &error) == MQ_OK) {
        return 0;
    }
    print_error("%s\n", error.text);
    return 1;
}

static inline int unit_close_vocabulary(void **state)
{
    (void)state;
    mq_vocabulary_free(vocabulary);
    mq_text_close(text);
    return 0;
}

#endif
