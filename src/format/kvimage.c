#include "format/kvimage.h"

#include "base/error.h"
#include "base/little_endian.h"

#include <string.h>

#define BLOCK  64u /* positions of a block */
#define DIGEST 16

static const char image_magic[8] = {'M', 'Q', 'K', 'V', 'I', 'M', 'G', '2'};
static const char chunk_magic[4] = {'M', 'Q', 'K', 'C'};

static uint64_t head_size(uint64_t tokens, uint64_t count)
{
    return MQ_KVIMAGE_FIXED + 4 * tokens + (count + 7) / 8;
}

/* ---- header */

/* The fingerprints in the order of the header. */
static void put_digests(const mq_kvimage *image, uint8_t *at)
{
    const mq_digest all[] = {image->weights, image->plan, image->tokenizer, image->rope, image->layout};
    memcpy(at, all, sizeof all);
}

mq_status mq__kvimage_write(const mq_kvimage *image, const int32_t *tokens, const uint8_t *precise, mq_buf *out,
                            mq_error *error)
{
    uint8_t fixed[MQ_KVIMAGE_FIXED] = {0}, word[4];
    const size_t begin = out->len, held = (size_t)image->first + image->count;
    memcpy(fixed, image_magic, sizeof image_magic);
    mq__put_u32(fixed + 8, (uint32_t)head_size(held, image->count));
    put_digests(image, fixed + 32);
    mq__put_u32(fixed + 112, image->layers);
    mq__put_u32(fixed + 116, image->first);
    mq__put_u32(fixed + 120, image->count);
    mq__put_u32(fixed + 124, image->bare);
    bool ok = mq__buf_append(out, fixed, sizeof fixed);
    for (size_t i = 0; ok && i < held; i++) {
        mq__put_u32(word, (uint32_t)tokens[i]);
        ok = mq__buf_append(out, word, sizeof word);
    }
    if (!ok || !mq__buf_append(out, precise, (image->count + 7) / 8)) {
        return mq__fail(error, MQ_NO_MEMORY, "KV image: header: expected memory, got none");
    }
    uint8_t *head = (uint8_t *)out->data + begin;
    const mq_digest digest = mq__digest(head + MQ_KVIMAGE_PREFIX, out->len - begin - MQ_KVIMAGE_PREFIX);
    memcpy(head + 16, digest.bytes, DIGEST);
    return MQ_OK;
}

mq_status mq__kvimage_head_bytes(const uint8_t *prefix, uint32_t max_tokens, size_t *bytes, mq_error *error)
{
    if (memcmp(prefix, image_magic, sizeof image_magic) != 0) {
        return mq__fail(error, MQ_FORMAT, "KV image: magic: expected MQKVIMG2, got another file or version");
    }
    *bytes = mq__get_u32(prefix + 8);
    if (*bytes >= head_size(1, 1) && *bytes <= head_size(max_tokens, max_tokens) && mq__get_u32(prefix + 12) == 0) {
        return MQ_OK;
    }
    return mq__fail(error, MQ_FORMAT, "KV image: header: expected one of at most %u tokens, got %zu bytes", max_tokens,
                    *bytes);
}

static bool is_bare_right(const mq_kvimage *image)
{
    if (image->bare == 0) return true;
    return image->first % BLOCK == 0 &&
           (image->bare == image->count || (image->bare < image->count && image->bare % BLOCK == 0));
}

mq_status mq__kvimage_read(const uint8_t *header, size_t bytes, mq_kvimage *image, mq_error *error)
{
    mq_digest digest = {{0}};
    if (bytes >= MQ_KVIMAGE_FIXED) digest = mq__digest(header + MQ_KVIMAGE_PREFIX, bytes - MQ_KVIMAGE_PREFIX);
    if (bytes < MQ_KVIMAGE_FIXED || memcmp(digest.bytes, header + 16, DIGEST) != 0) {
        return mq__fail(error, MQ_FORMAT, "KV image: header: expected its checksum, got another: it is damaged");
    }
    mq_digest all[5];
    memcpy(all, header + 32, sizeof all);
    *image = (mq_kvimage){.weights = all[0],
                          .plan = all[1],
                          .tokenizer = all[2],
                          .rope = all[3],
                          .layout = all[4],
                          .layers = mq__get_u32(header + 112),
                          .first = mq__get_u32(header + 116),
                          .count = mq__get_u32(header + 120),
                          .bare = mq__get_u32(header + 124)};
    const uint64_t held = (uint64_t)image->first + image->count;
    if (image->count == 0 || !is_bare_right(image) || head_size(held, image->count) != bytes) {
        return mq__fail(error, MQ_FORMAT, "KV image: header: expected %zu bytes of tokens and provenance, got %llu",
                        bytes, (unsigned long long)head_size(held, image->count));
    }
    image->tokens = header + MQ_KVIMAGE_FIXED;
    image->precise = image->tokens + 4 * held;
    return MQ_OK;
}

int32_t mq__kvimage_token(const mq_kvimage *image, uint32_t position)
{
    return (int32_t)mq__get_u32(image->tokens + (size_t)position * 4);
}

bool mq__kvimage_is_precise(const mq_kvimage *image, uint32_t position)
{
    const uint32_t bit = position - image->first;
    return image->precise[bit / 8] >> bit % 8 & 1;
}

/* ---- chunks */

/* The payload's own digest stands for the payload. */
static mq_digest chunk_digest(const uint8_t *head, const void *payload, uint64_t bytes)
{
    uint8_t text[32 + DIGEST];
    const mq_digest digest = mq__digest(payload, bytes);
    memcpy(text, head, 32);
    memcpy(text + 32, digest.bytes, DIGEST);
    return mq__digest(text, sizeof text);
}

void mq__kvchunk_write(const mq_kvchunk *chunk, const void *payload, uint8_t *head)
{
    memset(head, 0, MQ_KVCHUNK_HEAD);
    memcpy(head, chunk_magic, sizeof chunk_magic);
    mq__put_u32(head + 4, chunk->layer);
    mq__put_u32(head + 8, chunk->first);
    mq__put_u32(head + 12, chunk->count);
    mq__put_u64(head + 16, chunk->bytes);
    const mq_digest digest = chunk_digest(head, payload, chunk->bytes);
    memcpy(head + 32, digest.bytes, DIGEST);
}

/* Whether a chunk begins with the range or a block, and ends with the first end of either; or is a state behind the range. */
static bool is_of_range(const mq_kvchunk *chunk, const mq_kvimage *image)
{
    const uint64_t block = ((uint64_t)chunk->first / BLOCK + 1) * BLOCK, range = (uint64_t)image->first + image->count;
    if (chunk->count == 0) return chunk->first == range;
    const bool starts = chunk->first == image->first || (chunk->first % BLOCK == 0 && chunk->first > image->first);
    return starts && chunk->first < range && chunk->count == (block < range ? block : range) - chunk->first;
}

mq_status mq__kvchunk_read(const uint8_t *head, const mq_kvimage *image, uint64_t max_bytes, mq_kvchunk *chunk,
                           mq_error *error)
{
    *chunk = (mq_kvchunk){.layer = mq__get_u32(head + 4),
                          .first = mq__get_u32(head + 8),
                          .count = mq__get_u32(head + 12),
                          .bytes = mq__get_u64(head + 16)};
    if (memcmp(head, chunk_magic, sizeof chunk_magic) != 0 || mq__get_u64(head + 24) != 0 ||
        chunk->layer >= image->layers || !is_of_range(chunk, image) || chunk->bytes > max_bytes) {
        return mq__fail(error, MQ_FORMAT,
                        "KV image: chunk: expected a layer and a block of the range, got other bytes");
    }
    return MQ_OK;
}

bool mq__kvchunk_is_intact(const uint8_t *head, const void *payload, const mq_kvchunk *chunk)
{
    const mq_digest digest = chunk_digest(head, payload, chunk->bytes);
    return memcmp(digest.bytes, head + 32, DIGEST) == 0;
}
