/* tokenizer.json, tokenizer_config.json, added_tokens.json and a text: load, encode, decode at once and id by id. */
#include "fuzz.h"
#include "text/tokenizer.h"

#include <string.h>

enum { TOKENIZER, CONFIG, ADDED, TEXT, PARTS };

/* Decoding at once and id by id give the same bytes. */
static void check_decoding(const mq_tokenizer *t, const mq_ids *ids, unsigned flags)
{
    mq_buf whole = {0}, steps = {0};
    mq_error error = {0};
    mq_detokenizer *d = NULL;
    const bool decoded = fuzz_passed(mq__tokenizer_decode(t, ids->data, ids->len, flags, &whole, &error), &error);
    if (decoded && fuzz_passed(mq__detokenizer_new(t, flags, &d, &error), &error)) {
        bool same = true;
        for (size_t i = 0; same && i < ids->len; i++) {
            same = fuzz_passed(mq__detokenizer_push(d, ids->data[i], &steps, &error), &error);
        }
        if (same && fuzz_passed(mq__detokenizer_flush(d, &steps, &error), &error)) {
            FUZZ_CHECK(steps.len == whole.len && (whole.len == 0 || memcmp(steps.data, whole.data, whole.len) == 0));
        }
    }
    mq__detokenizer_free(d);
    mq__buf_free(&whole);
    mq__buf_free(&steps);
}

static bool use(const mq_tokenizer *t, const fuzz_part *text)
{
    bool all = true;
    for (unsigned flags = 0; flags <= MQ_ENCODE_DEFAULT; flags++) {
        mq_ids ids = {0};
        mq_error error = {0};
        const char *const start = text->data ? text->data : "";
        if (fuzz_passed(mq__tokenizer_encode(t, start, text->bytes, flags, &ids, &error), &error)) {
            for (size_t i = 0; i < ids.len; i++) {
                size_t bytes;
                FUZZ_CHECK(mq__tokenizer_is_valid(t, ids.data[i]));
                FUZZ_CHECK(ids.data[i] < mq__tokenizer_vocab_size(t));
                FUZZ_CHECK(mq__tokenizer_token(t, ids.data[i], &bytes));
            }
            check_decoding(t, &ids, flags);
        } else {
            FUZZ_CHECK(ids.len == 0);
            all = false;
        }
        mq__ids_free(&ids);
    }
    return all;
}

static void query(const mq_tokenizer *t)
{
    for (int i = 0; i < MQ_SPECIAL_COUNT; i++) {
        const int32_t id = mq__tokenizer_special_id(t, (mq_special)i);
        FUZZ_CHECK(id == -1 || mq__tokenizer_is_valid(t, id));
        FUZZ_CHECK(id == -1 || mq__tokenizer_special_text(t, (mq_special)i));
    }
    (void)mq__tokenizer_chat_template(t, "default");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    fuzz_part parts[PARTS];
    mq_error error = {0};
    mq_tokenizer *t = NULL;
    fuzz_cut(data, bytes, parts, PARTS);
    for (int i = CONFIG; i <= ADDED; i++) {
        if (parts[i].bytes) continue;
        free(parts[i].data); /* an empty part is an absent file */
        parts[i].data = NULL;
    }
    const mq_tokenizer_files files = {.tokenizer = parts[TOKENIZER].data,
                                      .tokenizer_bytes = parts[TOKENIZER].bytes,
                                      .config = parts[CONFIG].data,
                                      .config_bytes = parts[CONFIG].bytes,
                                      .added = parts[ADDED].data,
                                      .added_bytes = parts[ADDED].bytes};
    fuzz_accepted = false;
    if (fuzz_passed(mq__tokenizer_load_memory(&files, &t, &error), &error)) {
        query(t);
        fuzz_accepted = use(t, &parts[TEXT]);
        mq__tokenizer_free(t);
    }
    fuzz_free(parts, PARTS);
    return 0;
}
