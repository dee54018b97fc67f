/* KV images into a sequence of a small model. A search would never guess checksums and fingerprints: for an input that begins with
 * 'F' in place of the magic's 'M', those of the header and of every chunk are filled in; with 'R' as well, and the model is one
 * with recurrent state, with 'W' one with windows. */
#include "engine/engine.h"
#include "format/kvimage.h"
#include "fuzz.h"

#include <string.h>

enum { HEAD_DIGEST = 16, PRINTS = 32, CHUNK_BYTES = 16 };

typedef struct reader {
    mq_engine *engine;
    mq_fingerprint print;
} reader;

static reader readers[3]; /* plain, with recurrent state, with windows */

static const reader *reader_of(const uint8_t *data, size_t bytes)
{
    static const char *const shape[] = {"tiny-qwen3", "tiny-qwen3.5", "tiny-gemma4"};
    const char mark = bytes > 0 ? (char)data[0] : 0;
    const int kind = mark == 'R' ? 1 : mark == 'W' ? 2 : 0;
    reader *r = &readers[kind];
    char *model;
    mq_error error = {0};
    if (r->engine) return r;
    FUZZ_CHECK(mq_synth_cached(shape[kind], 0, NULL, &model, &error) == MQ_OK);
    const mq_engine_options options = {
        .model_dir = model, .threads = 1, .context = 200, .chunk = 16, .sequences = 2, .no_cache = true};
    FUZZ_CHECK(mq_engine_open(&options, &r->engine, &error) == MQ_OK);
    FUZZ_CHECK(mq__fingerprint(r->engine, r->engine->plan, &r->print, &error) == MQ_OK);
    mq_free(model);
    return r;
}

static uint64_t whole_number(const uint8_t *at, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) {
        value |= (uint64_t)at[i] << 8 * i;
    }
    return value;
}

static void fill_in_chunks(uint8_t *file, size_t bytes, size_t at)
{
    while (at <= bytes && bytes - at >= MQ_KVCHUNK_HEAD) {
        const uint64_t payload = whole_number(file + at + CHUNK_BYTES, 8);
        if (payload > bytes - at - MQ_KVCHUNK_HEAD) return;
        mq_kvchunk chunk = {.layer = (uint32_t)whole_number(file + at + 4, 4),
                            .first = (uint32_t)whole_number(file + at + 8, 4),
                            .count = (uint32_t)whole_number(file + at + 12, 4),
                            .bytes = payload};
        mq__kvchunk_write(&chunk, file + at + MQ_KVCHUNK_HEAD, file + at);
        at += MQ_KVCHUNK_HEAD + payload;
    }
}

static void fill_in_image(const mq_fingerprint *print, uint8_t *file, size_t bytes)
{
    const uint64_t head = whole_number(file + 8, 4);
    const mq_digest prints[] = {print->weights, print->plan, print->tokenizer, print->rope, print->layout};
    file[0] = 'M';
    if (head < MQ_KVIMAGE_FIXED || head > bytes) return;
    memcpy(file + PRINTS, prints, sizeof prints);
    const mq_digest digest = mq__digest(file + MQ_KVIMAGE_PREFIX, (size_t)head - MQ_KVIMAGE_PREFIX);
    memcpy(file + HEAD_DIGEST, digest.bytes, sizeof digest.bytes);
    fill_in_chunks(file, bytes, (size_t)head);
}

typedef struct input {
    const uint8_t *data;
    size_t left;
} input;

static bool read_input(void *context, void *bytes, size_t count)
{
    input *in = context;
    if (count > in->left) return false;
    memcpy(bytes, in->data, count);
    in->data += count;
    in->left -= count;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    fuzz_part whole;
    mq_sequence *sequence;
    mq_error error = {0};
    uint32_t held;
    const reader *r = reader_of(data, bytes);
    mq_engine *const engine = r->engine;
    fuzz_cut(data, bytes, &whole, 1);
    uint8_t *const file = (uint8_t *)whole.data;
    if (bytes >= MQ_KVIMAGE_FIXED && memchr("FRW", file[0], 3)) fill_in_image(&r->print, file, bytes);
    FUZZ_CHECK(mq_sequence_new(engine, &sequence, &error) == MQ_OK);
    const uint32_t available = mq__kv_available(engine->kv), windows_available = mq__kv_windows_available(engine->kv);
    input in = {file, bytes};
    fuzz_accepted = fuzz_passed(mq_sequence_import(sequence, read_input, &in, &error), &error);
    (void)mq_sequence_tokens(sequence, &held);
    FUZZ_CHECK((held > 0) == fuzz_accepted);
    FUZZ_CHECK(fuzz_accepted || mq__kv_available(engine->kv) == available);
    mq_sequence_free(sequence);
    FUZZ_CHECK(mq__kv_windows_available(engine->kv) == windows_available);
    fuzz_free(&whole, 1);
    return 0;
}
