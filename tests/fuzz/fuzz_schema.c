/* A schema, and bytes that choose the way through its masks: somewhere to go at every place, and what ends is JSON. */
#include "fuzz.h"
#include "gen/vocabulary.h"

#include <jansson.h>
#include <string.h>

#define STEPS_MOST 48 /* that the input chooses; what follows them goes for the end */
#define CLOSE_MOST 120

/* Each byte is a token; a few have more. In the order of their bytes. */
static const char *const longer[] = {" \"", "\", \"", "\"}", "00", "\\u00",   "],[",
                                     "aa",  "true,",  "{\"", "}}", "\xc3\xa9"};
enum { LONGER = sizeof longer / sizeof *longer, EOS = 256 + LONGER, VOCAB };

static mq_vocabulary *vocabulary(void)
{
    static uint8_t bytes[256 + 16 * LONGER];
    static mq_token_bytes token[VOCAB];
    static int32_t order[VOCAB], eos = EOS;
    static mq_vocabulary v = {
        .vocab = VOCAB, .bytes = bytes, .token = token, .order = order, .eos = &eos, .eos_count = 1};
    uint32_t used = 256;
    if (v.ordered) return &v;
    for (uint32_t byte = 0; byte < 256; byte++) {
        bytes[byte] = (uint8_t)byte;
        token[byte] = (mq_token_bytes){byte, 1, 0};
        order[v.ordered++] = (int32_t)byte;
        for (uint32_t i = 0; i < LONGER; i++) {
            const uint8_t count = (uint8_t)strlen(longer[i]);
            if ((uint8_t)longer[i][0] != byte) continue;
            memcpy(bytes + used, longer[i], count);
            token[256 + i] = (mq_token_bytes){used, count, 1};
            order[v.ordered++] = (int32_t)(256 + i);
            used += count;
        }
    }
    return &v;
}

static bool has(const uint32_t *mask, int32_t t)
{
    return mask[t / 32] >> t % 32 & 1;
}

/* The way that the input chooses, or the one to the end. */
static int32_t choose(const uint32_t *mask, const fuzz_part *way, size_t step)
{
    int32_t allowed[VOCAB], count = 0;
    for (int32_t t = 0; t < VOCAB; t++) {
        if (has(mask, t)) allowed[count++] = t;
    }
    FUZZ_CHECK(count > 0);
    if (step < way->bytes && step < STEPS_MOST) return allowed[(uint8_t)way->data[step] % count];
    for (const char *c = "\"}]"; *c && !has(mask, EOS); c++) {
        if (has(mask, *c)) return *c;
    }
    while (count > 1 && allowed[count - 1] != EOS && allowed[count - 1] >= 0x7f) {
        count--;
    }
    return allowed[count - 1];
}

static bool walk(mq_constraint *c, const fuzz_part *way)
{
    char text[16 * CLOSE_MOST];
    size_t length = 0;
    mq_error error = {0};
    for (size_t step = 0; step < CLOSE_MOST; step++) {
        const uint32_t *mask = mq_constraint_mask(c);
        FUZZ_CHECK(mask);
        const int32_t chosen = choose(mask, way, step);
        FUZZ_CHECK(mq_constraint_accept(c, chosen, &error) == MQ_OK);
        if (chosen == EOS) {
            json_error_t why;
            json_t *value = json_loadb(text, length, JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &why);
            /* "\u0000" in a name is JSON, too, and 1e400, but jansson has neither */
            FUZZ_CHECK(value || json_error_code(&why) == json_error_null_byte_in_key ||
                       json_error_code(&why) == json_error_numeric_overflow);
            json_decref(value);
            return true;
        }
        const mq_token_bytes *token = &vocabulary()->token[chosen];
        memcpy(text + length, vocabulary()->bytes + token->offset, token->count);
        length += token->count;
    }
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    fuzz_part parts[2];
    mq_error error = {0};
    mq_constraint *c = NULL;
    fuzz_cut(data, bytes, parts, 2);
    fuzz_accepted = false;
    for (int strict = 0; strict < 2; strict++) {
        char *dropped = NULL;
        const mq_constraint_options options = {
            .schema = parts[0].data ? parts[0].data : "", .schema_bytes = parts[0].bytes, .strict = strict};
        if (fuzz_passed(mq_constraint_new(vocabulary(), &options, &c, &dropped, &error), &error)) {
            if (strict) FUZZ_CHECK(!dropped);
            if (!strict) fuzz_accepted = walk(c, &parts[1]); /* the strict one is the same, or there is none */
            mq_constraint_free(c);
        } else {
            FUZZ_CHECK(!c && !dropped);
            fuzz_accepted = false;
        }
        mq_free(dropped);
    }
    fuzz_free(parts, 2);
    return 0;
}
