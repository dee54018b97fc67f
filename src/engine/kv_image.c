#include "engine/kv_image.h"

#include "base/error.h"
#include "base/mem.h"
#include "engine/engine.h"

#include <string.h>

static uint32_t blocks_of_range(uint32_t first, uint32_t count)
{
    return count ? (first + count - 1) / MQ_PAGE_TOKENS - first / MQ_PAGE_TOKENS + 1 : 0;
}

/* ---- chunks between blocks and payloads */

size_t mq__kv_chunk_bytes(const mq_kv_layout *layout, uint32_t l, uint32_t count)
{
    const mq_kv_layer *layer = &layout->layer[l];
    if (count == 0) return layer->state_floats * sizeof(float);
    return (size_t)layer->kv_heads * 2 * count * layer->head_dim * sizeof(uint16_t);
}

size_t mq__kv_chunk_most(const mq_kv_layout *layout)
{
    size_t most = 0;
    for (uint32_t l = 0; l < layout->layers; l++) {
        const size_t block = mq__kv_chunk_bytes(layout, l, MQ_PAGE_TOKENS), state = mq__kv_chunk_bytes(layout, l, 0);
        const size_t bytes = block > state ? block : state;
        if (bytes > most) most = bytes;
    }
    return most;
}

mq_kvchunk mq__kv_chunk_at(const mq_kv_layout *layout, uint32_t layer, uint32_t first, uint32_t end)
{
    const uint32_t room = MQ_PAGE_TOKENS - first % MQ_PAGE_TOKENS, count = end - first < room ? end - first : room;
    return (mq_kvchunk){
        .layer = layer, .first = first, .count = count, .bytes = mq__kv_chunk_bytes(layout, layer, count)};
}

mq_kvchunk mq__kv_chunk_of_state(const mq_kv_layout *layout, uint32_t layer, uint32_t end)
{
    return (mq_kvchunk){.layer = layer, .first = end, .bytes = mq__kv_chunk_bytes(layout, layer, 0)};
}

uint32_t mq__kv_bare(const mq_kv_layout *layout, uint32_t first, uint32_t end)
{
    const uint32_t whole = end / MQ_PAGE_TOKENS * MQ_PAGE_TOKENS; /* where the prefix cache begins */
    const uint32_t from = layout->window ? mq__kv_window_from(layout, whole) * MQ_PAGE_TOKENS : 0;
    if (first % MQ_PAGE_TOKENS || from <= first) return 0;
    return (from < end ? from : end) - first;
}

uint64_t mq__kv_range_bytes(const mq_kv_layout *layout, uint32_t first, uint32_t end)
{
    const uint64_t elements = (uint64_t)(end - first) * layout->block_elements +
                              (uint64_t)(end - first - mq__kv_bare(layout, first, end)) * layout->window_elements;
    return elements / MQ_PAGE_TOKENS * sizeof(uint16_t) + layout->state_floats * sizeof(float);
}

bool mq__kv_chunk_exists(const mq_kv_layout *layout, const mq_kvimage *image, uint32_t layer, uint32_t position)
{
    const mq_kv_layer *l = &layout->layer[layer];
    const uint32_t at = position - image->first;
    if (at >= image->count) return l->state_floats > 0;
    return l->kv_heads > 0 && (!l->window || at >= image->bare);
}

uint32_t mq__kv_block_chunks(const mq_kv_layout *layout, const mq_kvimage *image, uint32_t position)
{
    uint32_t chunks = 0;
    for (uint32_t l = 0; l < layout->layers; l++) {
        chunks += mq__kv_chunk_exists(layout, image, l, position);
    }
    return chunks;
}

uint64_t mq__kv_chunks(const mq_kv_layout *layout, const mq_kvimage *image)
{
    const uint32_t end = image->first + image->count;
    uint64_t chunks = mq__kv_block_chunks(layout, image, end); /* of states */
    for (uint32_t at = image->first; at < end; at = (at / MQ_PAGE_TOKENS + 1) * MQ_PAGE_TOKENS) {
        chunks += mq__kv_block_chunks(layout, image, at);
    }
    return chunks;
}

/* Where the chunk's part of a head's keys or values begins (i: head by head, keys first), in elements of the block. */
static size_t chunk_place(const mq_kv_layer *layer, const mq_kvchunk *chunk, uint32_t i)
{
    return layer->offset + ((size_t)i * MQ_PAGE_TOKENS + chunk->first % MQ_PAGE_TOKENS) * layer->head_dim;
}

void mq__kv_chunk_gather(const mq_kv_layout *layout, const mq_kvchunk *chunk, const uint16_t *block, uint8_t *payload)
{
    const mq_kv_layer *layer = &layout->layer[chunk->layer];
    const size_t bytes = (size_t)chunk->count * layer->head_dim * sizeof *block;
    for (uint32_t i = 0; i < 2 * layer->kv_heads; i++) {
        memcpy(payload + i * bytes, block + chunk_place(layer, chunk, i), bytes);
    }
}

void mq__kv_chunk_scatter(const mq_kv_layout *layout, const mq_kvchunk *chunk, const uint8_t *payload, uint16_t *block)
{
    const mq_kv_layer *layer = &layout->layer[chunk->layer];
    const size_t bytes = (size_t)chunk->count * layer->head_dim * sizeof *block;
    for (uint32_t i = 0; i < 2 * layer->kv_heads; i++) {
        memcpy(block + chunk_place(layer, chunk, i), payload + i * bytes, bytes);
    }
}

/* The largest chunk with its head; owned. */
static uint8_t *new_chunk(const mq_kv_layout *layout, size_t *payload, mq_error *error)
{
    *payload = mq__kv_chunk_most(layout);
    uint8_t *chunk = mq__alloc_zero(1, MQ_KVCHUNK_HEAD + *payload);
    if (!chunk) (void)mq__fail(error, MQ_NO_MEMORY, "KV image: chunk: expected memory, got none");
    return chunk;
}

/* ---- export */

typedef struct kv_output {
    bool (*write)(void *context, const void *bytes, size_t count);
    void *context;
} kv_output;

static mq_status put_bytes(const kv_output *out, const void *bytes, size_t count, mq_error *error)
{
    if (out->write(out->context, bytes, count)) return MQ_OK;
    return mq__fail(error, MQ_WRITE, "KV image: expected %zu bytes to be taken, got a refusal", count);
}

/* Window parts that are not there, or that nobody needs behind the range. */
static mq_status bare_range(const mq_sequence *sequence, mq_kvimage *image, mq_error *error)
{
    const mq_kv_layout *layout = &sequence->engine->kv_layout;
    const uint32_t end = image->first + image->count;
    image->bare = mq__kv_bare(layout, image->first, end);
    for (uint32_t at = image->first + image->bare; layout->window && at < end;) {
        const uint32_t block = at / MQ_PAGE_TOKENS, next = (block + 1) * MQ_PAGE_TOKENS;
        at = next < end ? next : end;
        if (!sequence->blocks[block]->window) image->bare = at - image->first;
    }
    if (image->bare == 0 || image->first % MQ_PAGE_TOKENS == 0) return MQ_OK;
    return mq__fail(
        error, MQ_UNSUPPORTED,
        "KV image: range: expected one that begins with a block, where windows are behind it, got one from %u",
        image->first);
}

static mq_status put_header(mq_sequence *sequence, mq_kvimage *image, const kv_output *out, mq_error *error)
{
    const uint32_t first = image->first, count = image->count;
    mq_fingerprint print;
    mq_buf head = {0};
    uint8_t *precise = mq__alloc_zero((count + 7) / 8, 1);
    mq_status status = mq__fingerprint_kept(sequence->engine, sequence->plan, &print, error);
    if (status == MQ_OK && !precise) {
        status = mq__fail(error, MQ_NO_MEMORY, "KV image: provenance: expected memory, got none");
    }
    for (uint32_t i = 0; status == MQ_OK && i < count; i++) {
        if (mq_sequence_is_precise(sequence, first + i)) precise[i / 8] |= (uint8_t)(1u << i % 8);
    }
    *image = (mq_kvimage){.weights = print.weights,
                          .plan = print.plan,
                          .tokenizer = print.tokenizer,
                          .rope = print.rope,
                          .layout = print.layout,
                          .layers = sequence->engine->kv_layout.layers,
                          .first = first,
                          .count = count};
    if (status == MQ_OK) status = bare_range(sequence, image, error);
    if (status == MQ_OK) status = mq__kvimage_write(image, sequence->tokens, precise, &head, error);
    if (status == MQ_OK) status = put_bytes(out, head.data, head.len, error);
    mq__buf_free(&head);
    mq__free(precise);
    return status;
}

/* `chunk` has room for the largest one. */
static mq_status put_blocks(const mq_sequence *sequence, const mq_kvimage *image, uint8_t *chunk, const kv_output *out,
                            mq_error *error)
{
    const mq_kv_layout *layout = &sequence->engine->kv_layout;
    const uint32_t end = image->first + image->count;
    mq_status status = MQ_OK;
    for (uint32_t at = image->first, next; status == MQ_OK && at < end; at = next) {
        next = at + mq__kv_chunk_at(layout, 0, at, end).count;
        for (uint32_t l = 0; status == MQ_OK && l < layout->layers; l++) {
            const mq_kvchunk c = mq__kv_chunk_at(layout, l, at, end);
            uint8_t *payload = chunk + MQ_KVCHUNK_HEAD;
            if (!mq__kv_chunk_exists(layout, image, l, at)) continue;
            const mq_kv_block *block = sequence->blocks[at / MQ_PAGE_TOKENS];
            mq__kv_chunk_gather(layout, &c, layout->layer[l].window ? block->window : block->data, payload);
            mq__kvchunk_write(&c, payload, chunk);
            status = put_bytes(out, chunk, MQ_KVCHUNK_HEAD + c.bytes, error);
        }
    }
    return status;
}

static mq_status put_state(const mq_kv_layout *layout, const mq_kvimage *image, const float *state,
                           const kv_output *out, mq_error *error)
{
    const uint32_t end = image->first + image->count;
    mq_status status = MQ_OK;
    for (uint32_t l = 0; status == MQ_OK && l < layout->layers; l++) {
        uint8_t head[MQ_KVCHUNK_HEAD];
        const mq_kvchunk c = mq__kv_chunk_of_state(layout, l, end);
        if (!mq__kv_chunk_exists(layout, image, l, end)) continue;
        const float *part = state + layout->layer[l].state_at;
        mq__kvchunk_write(&c, part, head);
        status = put_bytes(out, head, sizeof head, error);
        if (status == MQ_OK) status = put_bytes(out, part, c.bytes, error);
    }
    return status;
}

/* All of the range is there, and the state behind it. */
static mq_status check_export(const mq_sequence *sequence, uint32_t first, uint32_t count, const float **state,
                              mq_error *error)
{
    if (count == 0 || first > sequence->count || count > sequence->count - first) {
        return mq__fail(error, MQ_USAGE, "KV image: range: expected positions below %u, got %u from %u",
                        sequence->count, count, first);
    }
    *state = mq__sequence_state_at(sequence, first + count);
    if (*state || !sequence->engine->state_floats) return MQ_OK;
    return mq__fail(error, MQ_USAGE,
                    "KV image: range: expected it to end where the recurrent state is known (at a snapshot, or with "
                    "the sequence's %u tokens), got %u",
                    sequence->count, first + count);
}

mq_status mq_sequence_export(mq_sequence *sequence, uint32_t first, uint32_t count,
                             bool (*write)(void *context, const void *bytes, size_t count), void *context,
                             mq_error *error)
{
    const mq_kv_layout *layout = &sequence->engine->kv_layout;
    const kv_output out = {write, context};
    mq_kvimage image = {.first = first, .count = count};
    const float *state;
    size_t most;
    mq_status status = check_export(sequence, first, count, &state, error);
    if (status != MQ_OK) return status;
    uint8_t *chunk = new_chunk(layout, &most, error);
    if (!chunk) return MQ_NO_MEMORY;
    status = put_header(sequence, &image, &out, error);
    if (status == MQ_OK) status = put_blocks(sequence, &image, chunk, &out, error);
    if (status == MQ_OK) status = put_state(layout, &image, state, &out, error);
    mq__free(chunk);
    return status;
}

/* ---- import */

typedef struct kv_input {
    bool (*read)(void *context, void *bytes, size_t count);
    void *context;
} kv_input;

static mq_status get_bytes(const kv_input *in, void *bytes, size_t count, mq_error *error)
{
    if (in->read(in->context, bytes, count)) return MQ_OK;
    return mq__fail(error, MQ_IO, "KV image: expected %zu more bytes, got an end", count);
}

/* *header is owned. */
static mq_status get_header(const mq_engine *engine, const kv_input *in, uint8_t **header, mq_kvimage *image,
                            mq_error *error)
{
    uint8_t prefix[MQ_KVIMAGE_PREFIX];
    size_t bytes = 0;
    mq_status status = get_bytes(in, prefix, sizeof prefix, error);
    if (status == MQ_OK) status = mq__kvimage_head_bytes(prefix, engine->context, &bytes, error);
    if (status != MQ_OK) return status;
    *header = mq__alloc_zero(1, bytes);
    if (!*header) return mq__fail(error, MQ_NO_MEMORY, "KV image: header: expected memory, got none");
    memcpy(*header, prefix, sizeof prefix);
    status = get_bytes(in, *header + sizeof prefix, bytes - sizeof prefix, error);
    return status == MQ_OK ? mq__kvimage_read(*header, bytes, image, error) : status;
}

static mq_status check_digest(mq_digest got, mq_digest own, const char *what, mq_error *error)
{
    if (memcmp(got.bytes, own.bytes, sizeof own.bytes) == 0) return MQ_OK;
    return mq__fail(error, MQ_UNSUPPORTED, "KV image: %s: expected this engine's, got another's", what);
}

static mq_status check_fingerprint(mq_sequence *sequence, const mq_kvimage *image, mq_error *error)
{
    mq_fingerprint own;
    mq_status status = mq__fingerprint_kept(sequence->engine, sequence->plan, &own, error);
    if (status == MQ_OK) status = check_digest(image->weights, own.weights, "weights", error);
    if (status == MQ_OK) status = check_digest(image->plan, own.plan, "plan", error);
    if (status == MQ_OK) status = check_digest(image->tokenizer, own.tokenizer, "tokenizer", error);
    if (status == MQ_OK) status = check_digest(image->rope, own.rope, "rope", error);
    if (status == MQ_OK) status = check_digest(image->layout, own.layout, "layout", error);
    if (status == MQ_OK && image->layers != sequence->engine->kv_layout.layers) {
        status = mq__fail(error, MQ_FORMAT, "KV image: layers: expected %u, got %u", sequence->engine->kv_layout.layers,
                          image->layers);
    }
    return status;
}

/* Of the model's windows at least: the image has no chunks, or parts can be had for them. */
static mq_status check_windows(const mq_sequence *sequence, const mq_kvimage *image, mq_error *error)
{
    const mq_kv_layout *layout = &sequence->engine->kv_layout;
    const uint32_t parts = blocks_of_range(image->first + image->bare, image->count - image->bare);
    if (image->bare && !layout->window) {
        return mq__fail(error, MQ_FORMAT, "KV image: bare: expected 0 of a model without windows, got %u", image->bare);
    }
    if (layout->window && image->first % MQ_PAGE_TOKENS && !sequence->window_pages[image->first / MQ_PAGE_TOKENS]) {
        return mq__fail(error, MQ_USAGE, "KV image: range: expected windows before position %u, got none",
                        image->first);
    }
    if (!layout->window || parts < mq__kv_windows_available(sequence->engine->kv)) return MQ_OK;
    return mq__fail(error, MQ_LIMIT, "KV image: window parts of KV blocks: expected more than %u, got %u", parts,
                    mq__kv_windows_available(sequence->engine->kv));
}

/* The sequence holds the tokens before the range and nothing else, and its tokens are this model's. */
static mq_status check_range(const mq_sequence *sequence, const mq_kvimage *image, mq_error *error)
{
    if (image->first != sequence->count) {
        return mq__fail(error, MQ_USAGE, "KV image: range: expected one from position %u on, got %u", sequence->count,
                        image->first);
    }
    if (image->count > sequence->engine->context - image->first) {
        return mq__fail(error, MQ_LIMIT, "KV image: range: expected it to end within the context of %u, got %u from %u",
                        sequence->engine->context, image->count, image->first);
    }
    for (uint32_t i = 0; i < image->first + image->count; i++) {
        const int32_t token = mq__kvimage_token(image, i);
        if (i < image->first ? token == sequence->tokens[i]
                             : token >= 0 && (uint32_t)token < sequence->engine->weights->model.vocab) {
            continue;
        }
        return mq__fail(error, MQ_UNSUPPORTED, "KV image: token %u: expected the sequence's, got %d", i, token);
    }
    const uint32_t missing = mq__sequence_blocks_missing(sequence, image->first + image->count);
    if (missing <= mq__kv_available(sequence->engine->kv)) return check_windows(sequence, image, error);
    return mq__fail(error, MQ_LIMIT, "KV image: KV blocks: expected %u more, got %u", missing,
                    mq__kv_available(sequence->engine->kv));
}

/* All chunks of the range, in any order, each once. */
static mq_status get_chunks(mq_sequence *sequence, const kv_input *in, const mq_kvimage *image, uint8_t *chunk,
                            size_t most, uint8_t *seen, mq_error *error)
{
    const mq_kv_layout *layout = &sequence->engine->kv_layout;
    float *state = mq__sequence_state_room(sequence);
    const uint32_t first_block = image->first / MQ_PAGE_TOKENS, blocks = blocks_of_range(image->first, image->count);
    const uint64_t chunks = mq__kv_chunks(layout, image);
    for (uint64_t i = 0; i < chunks; i++) {
        mq_kvchunk c;
        mq_status status = get_bytes(in, chunk, MQ_KVCHUNK_HEAD, error);
        if (status == MQ_OK) status = mq__kvchunk_read(chunk, image, most, &c, error);
        if (status == MQ_OK) status = get_bytes(in, chunk + MQ_KVCHUNK_HEAD, c.bytes, error);
        if (status != MQ_OK) return status;
        const size_t row = c.count ? c.first / MQ_PAGE_TOKENS - first_block : blocks;
        uint8_t *mark = &seen[row * layout->layers + c.layer];
        if (*mark || !mq__kv_chunk_exists(layout, image, c.layer, c.first) ||
            c.bytes != mq__kv_chunk_bytes(layout, c.layer, c.count) ||
            !mq__kvchunk_is_intact(chunk, chunk + MQ_KVCHUNK_HEAD, &c)) {
            return mq__fail(
                error, MQ_FORMAT,
                "KV image: layer %u, position %u: expected an intact chunk, once, got a damaged or second one", c.layer,
                c.first);
        }
        *mark = 1;
        if (c.count) {
            uint16_t *const *pages = mq__kv_pages(layout, c.layer, sequence->pages, sequence->window_pages);
            mq__kv_chunk_scatter(layout, &c, chunk + MQ_KVCHUNK_HEAD, pages[c.first / MQ_PAGE_TOKENS]);
        } else {
            memcpy(state + layout->layer[c.layer].state_at, chunk + MQ_KVCHUNK_HEAD, c.bytes);
        }
    }
    return MQ_OK;
}

static void append_range(mq_sequence *sequence, const mq_kvimage *image)
{
    for (uint32_t i = image->first; i < image->first + image->count; i++) {
        const int32_t token = mq__kvimage_token(image, i);
        mq__sequence_append(sequence, &token, 1, mq__kvimage_is_precise(image, i));
    }
    mq__sequence_take_state(sequence);
    sequence->logits_ready = 0;
    mq__sequence_leave_windows(sequence, MQ_PHASE_PREFILL);
}

static mq_status import_range(mq_sequence *sequence, const kv_input *in, const mq_kvimage *image, mq_error *error)
{
    const mq_kv_layout *layout = &sequence->engine->kv_layout;
    const size_t rows = image->count / MQ_PAGE_TOKENS + 3; /* blocks, and one of states */
    size_t most;
    uint8_t *chunk = new_chunk(layout, &most, error), *seen = mq__alloc_zero(rows, layout->layers);
    mq_status status = chunk && seen ? MQ_OK : mq__fail(error, MQ_NO_MEMORY, "KV image: expected memory, got none");
    if (status == MQ_OK) {
        const uint32_t end = image->first + image->count;
        mq__sequence_take_blocks(sequence, end);
        mq__sequence_take_windows(sequence, (image->first + image->bare + MQ_PAGE_TOKENS - 1) / MQ_PAGE_TOKENS, end);
        status = get_chunks(sequence, in, image, chunk, most, seen, error);
    }
    if (status == MQ_OK)
        append_range(sequence, image);
    else
        mq__sequence_give_blocks(sequence);
    mq__free(chunk);
    mq__free(seen);
    return status;
}

mq_status mq_sequence_import(mq_sequence *sequence, bool (*read)(void *context, void *bytes, size_t count),
                             void *context, mq_error *error)
{
    const kv_input in = {read, context};
    uint8_t *header = NULL;
    mq_kvimage image;
    mq_status status = get_header(sequence->engine, &in, &header, &image, error);
    if (status == MQ_OK) status = check_fingerprint(sequence, &image, error);
    if (status == MQ_OK) status = check_range(sequence, &image, error);
    if (status == MQ_OK) status = import_range(sequence, &in, &image, error);
    mq__free(header);
    return status;
}
