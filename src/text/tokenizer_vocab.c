/* Hash tables of the tokenizer. Both are seeded per load and at most half full, so that a hostile file can neither aim
 * at one slot nor make a probe run long. */
#include "base/mem.h"
#include "text/tokenizer_impl.h"

#include <string.h>
#include <xxhash.h>

mq_text mq__vocab_text(const mq_vocab *vocab, int32_t id)
{
    if (id < 0 || (size_t)id >= vocab->count || vocab->tokens[id].bytes == MQ_TOKEN_ABSENT) return (mq_text){NULL, 0};
    return (mq_text){vocab->arena.data + vocab->tokens[id].offset, vocab->tokens[id].bytes};
}

/* The slot that holds the text, or the free slot where it belongs. */
static mq_vocab_slot *probe_tokenizer_vocab(const mq_vocab *vocab, const char *text, size_t bytes, uint32_t *hash)
{
    const uint64_t full = XXH3_64bits_withSeed(text, bytes, vocab->seed);
    *hash = (uint32_t)full;
    for (size_t i = (size_t)full & vocab->mask;; i = (i + 1) & vocab->mask) {
        mq_vocab_slot *slot = &vocab->slots[i];
        if (slot->id < 0) return slot;
        if (slot->hash != *hash) continue;
        const mq_token *token = &vocab->tokens[slot->id];
        if (token->bytes == bytes && memcmp(vocab->arena.data + token->offset, text, bytes) == 0) return slot;
    }
}

int32_t mq__vocab_find(const mq_vocab *vocab, const char *text, size_t bytes)
{
    uint32_t hash;
    if (!vocab->slots || bytes > vocab->longest) return -1;
    return probe_tokenizer_vocab(vocab, text, bytes, &hash)->id;
}

int32_t mq__vocab_find_model(const mq_vocab *vocab, const char *text, size_t bytes)
{
    const int32_t id = mq__vocab_find(vocab, text, bytes);
    return id >= 0 && (vocab->tokens[id].flags & MQ_TOKEN_OUTSIDE) ? -1 : id;
}

bool mq__vocab_reserve(mq_vocab *vocab, size_t tokens)
{
    size_t size = 64;
    while (size < 2 * tokens)
        size *= 2;
    if (vocab->slots && size <= vocab->mask + 1) return true;
    mq_vocab_slot *slots = mq__alloc(size * sizeof *slots);
    if (!slots) return false;
    memset(slots, 0xFF, size * sizeof *slots); /* id = -1 */
    for (size_t i = 0; vocab->slots && i <= vocab->mask; i++) {
        if (vocab->slots[i].id < 0) continue;
        const mq_token *token = &vocab->tokens[vocab->slots[i].id];
        const char *text = vocab->arena.data + token->offset;
        size_t at = (size_t)XXH3_64bits_withSeed(text, token->bytes, vocab->seed) & (size - 1);
        while (slots[at].id >= 0)
            at = (at + 1) & (size - 1);
        slots[at] = vocab->slots[i];
    }
    mq__free(vocab->slots);
    vocab->slots = slots;
    vocab->mask = size - 1;
    return true;
}

static bool grow_tokens(mq_vocab *vocab, size_t count)
{
    if (count > vocab->cap) {
        size_t cap = vocab->cap ? vocab->cap : 1024;
        while (cap < count)
            cap *= 2;
        mq_token *tokens = mq__realloc(vocab->tokens, cap * sizeof *tokens);
        if (!tokens) return false;
        vocab->tokens = tokens;
        vocab->cap = cap;
    }
    for (; vocab->count < count; vocab->count++)
        vocab->tokens[vocab->count] = (mq_token){0, MQ_TOKEN_ABSENT, 0};
    return true;
}

mq_put mq__vocab_put(mq_vocab *vocab, mq_text text, int32_t id, uint32_t flags)
{
    if (!mq__vocab_reserve(vocab, vocab->used + 1)) return MQ_PUT_NO_MEMORY;
    uint32_t hash;
    mq_vocab_slot *slot = probe_tokenizer_vocab(vocab, text.data, text.bytes, &hash);
    if (slot->id >= 0) return MQ_PUT_SAME_TEXT;
    if (!grow_tokens(vocab, (size_t)id + 1)) return MQ_PUT_NO_MEMORY;
    if (vocab->tokens[id].bytes != MQ_TOKEN_ABSENT) return MQ_PUT_SAME_ID;
    const size_t offset = vocab->arena.len;
    if (text.bytes >= MQ_TOKEN_ABSENT - offset) return MQ_PUT_NO_MEMORY;
    if (!mq__buf_append(&vocab->arena, text.data, text.bytes)) return MQ_PUT_NO_MEMORY;
    vocab->tokens[id] = (mq_token){(uint32_t)offset, (uint32_t)text.bytes, flags};
    *slot = (mq_vocab_slot){hash, id};
    vocab->used++;
    if (text.bytes > vocab->longest) vocab->longest = text.bytes;
    return MQ_PUT_DONE;
}

void mq__vocab_free(mq_vocab *vocab)
{
    mq__buf_free(&vocab->arena);
    mq__free(vocab->tokens);
    mq__free(vocab->slots);
}

bool mq__merges_build(mq_merges *merges, const mq_merge *list, size_t count, uint64_t seed)
{
    size_t size = 64;
    while (size < 2 * count)
        size *= 2;
    merges->slots = mq__alloc(size * sizeof *merges->slots);
    if (!merges->slots) return false;
    memset(merges->slots, 0xFF, size * sizeof *merges->slots); /* left = -1 */
    merges->mask = size - 1;
    merges->seed = seed;
    for (size_t n = 0; n < count; n++) {
        size_t i = (size_t)mq__pair_hash(seed, list[n].left, list[n].right) & merges->mask;
        while (merges->slots[i].left >= 0 &&
               (merges->slots[i].left != list[n].left || merges->slots[i].right != list[n].right))
            i = (i + 1) & merges->mask;
        merges->slots[i] = list[n];
    }
    return true;
}

void mq__merges_free(mq_merges *merges)
{
    mq__free(merges->slots);
    *merges = (mq_merges){0};
}
