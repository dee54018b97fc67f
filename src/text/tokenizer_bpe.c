/* Byte pair encoding of one word: while any two neighbours have a merge, do the one of lowest rank, leftmost first.
 *
 * Two ways with the same result: short words search the ranks of all pairs again after each merge (quadratic in at most
 * SHORT_WORD symbols, but all in the cache); long words - a megabyte of one letter is a legal input - keep the symbols
 * in a linked list and the candidates in a heap, O(n log n). */
#include "base/mem.h"
#include "text/tokenizer_impl.h"

#include <string.h>

#define SHORT_WORD 48
#define NONE       UINT32_MAX

/* ---------------------------------------------------------------- symbols of a word */

static bool add_symbol(mq_bpe_work *work, int32_t id)
{
    if (work->len == work->symbols_cap) {
        const size_t cap = work->symbols_cap ? work->symbols_cap * 2 : 256;
        mq_bpe_symbol *symbols = mq__realloc(work->symbols, cap * sizeof *symbols);
        if (!symbols) return false;
        work->symbols = symbols;
        work->symbols_cap = cap;
    }
    work->symbols[work->len++].id = id;
    return true;
}

/* A character without a token: the unknown token, one for a row of them if the file says so; nothing if it has none. */
static bool add_unknown(const mq_bpe *bpe, mq_bpe_work *work, bool *in_unknown)
{
    if (bpe->unk_id < 0 || (bpe->fuse_unk && *in_unknown)) return true;
    *in_unknown = true;
    return add_symbol(work, bpe->unk_id);
}

static bool symbols_of_bytes(const mq_bpe *bpe, mq_text word, mq_bpe_work *work)
{
    bool in_unknown = false;
    for (size_t i = 0; i < word.bytes; i++) {
        const int32_t id = bpe->byte_id[(uint8_t)word.data[i]];
        if (id < 0) {
            if (!add_unknown(bpe, work, &in_unknown)) return false;
            continue;
        }
        in_unknown = false;
        if (!add_symbol(work, id)) return false;
    }
    return true;
}

/* The vocabulary's id of word[from, to) with the prefix of inner and the suffix of last characters; -1: none.
 * -2: memory is short. */
static int32_t character_id(const mq_bpe *bpe, const mq_vocab *vocab, mq_text word, size_t from, size_t to, mq_buf *key)
{
    const bool prefix = bpe->prefix && from > 0, suffix = bpe->suffix && to == word.bytes;
    if (!prefix && !suffix) return mq__vocab_find_model(vocab, word.data + from, to - from);
    mq__buf_clear(key);
    if (prefix) mq__buf_append(key, bpe->prefix, bpe->prefix_bytes);
    mq__buf_append(key, word.data + from, to - from);
    if (suffix) mq__buf_append(key, bpe->suffix, bpe->suffix_bytes);
    return key->failed ? -2 : mq__vocab_find_model(vocab, key->data, key->len);
}

static bool has_byte_tokens(const mq_bpe *bpe, const char *bytes, size_t count)
{
    if (!bpe->byte_fallback) return false;
    for (size_t i = 0; i < count; i++) {
        if (bpe->byte_id[(uint8_t)bytes[i]] < 0) return false;
    }
    return true;
}

static bool symbols_of_characters(const mq_bpe *bpe, const mq_vocab *vocab, mq_text word, mq_bpe_work *work)
{
    bool in_unknown = false;
    for (size_t i = 0; i < word.bytes;) {
        const size_t from = i;
        (void)mq__utf8_next(word.data, word.bytes, &i);
        const int32_t id = character_id(bpe, vocab, word, from, i, &work->key);
        bool ok = id != -2;
        if (id >= 0) {
            in_unknown = false;
            ok = add_symbol(work, id);
        } else if (ok && has_byte_tokens(bpe, word.data + from, i - from)) {
            in_unknown = false;
            for (size_t k = from; ok && k < i; k++)
                ok = add_symbol(work, bpe->byte_id[(uint8_t)word.data[k]]);
        } else if (ok) {
            ok = add_unknown(bpe, work, &in_unknown);
        }
        if (!ok) return false;
    }
    return true;
}

/* ---------------------------------------------------------------- short words */

static bool merge_short(const mq_merges *merges, const mq_bpe_work *work, mq_ids *out)
{
    int32_t ids[SHORT_WORD], result[SHORT_WORD];
    uint32_t rank[SHORT_WORD]; /* rank[i], result[i]: of the pair i, i + 1 */
    size_t n = work->len;
    for (size_t i = 0; i < n; i++)
        ids[i] = work->symbols[i].id;
#define LOOK_UP(i)                                                                                                     \
    do {                                                                                                               \
        const mq_merge *found = mq__merges_find(merges, ids[i], ids[(i) + 1]);                                         \
        rank[i] = found ? found->rank : NONE;                                                                          \
        result[i] = found ? found->result : -1;                                                                        \
    } while (0)
    for (size_t i = 0; i + 1 < n; i++)
        LOOK_UP(i);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            best = rank[i] < rank[best] ? i : best;
        if (rank[best] == NONE) break;
        ids[best] = result[best];
        n--;
        memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
        memmove(rank + best + 1, rank + best + 2, (n - best - 1) * sizeof *rank);
        memmove(result + best + 1, result + best + 2, (n - best - 1) * sizeof *result);
        if (best + 1 < n) LOOK_UP(best);
        if (best > 0) LOOK_UP(best - 1);
    }
#undef LOOK_UP
    for (size_t i = 0; i < n; i++) {
        if (!mq__ids_push(out, ids[i])) return false;
    }
    return true;
}

/* ---------------------------------------------------------------- long words */

static bool heap_push(mq_bpe_work *work, uint64_t entry)
{
    if (work->heap_len == work->heap_cap) {
        const size_t cap = work->heap_cap ? work->heap_cap * 2 : 256;
        uint64_t *heap = mq__realloc(work->heap, cap * sizeof *heap);
        if (!heap) return false;
        work->heap = heap;
        work->heap_cap = cap;
    }
    size_t i = work->heap_len++;
    for (; i > 0 && work->heap[(i - 1) / 2] > entry; i = (i - 1) / 2)
        work->heap[i] = work->heap[(i - 1) / 2];
    work->heap[i] = entry;
    return true;
}

static uint64_t heap_pop(mq_bpe_work *work)
{
    uint64_t *heap = work->heap;
    const uint64_t top = heap[0], last = heap[--work->heap_len];
    const size_t n = work->heap_len;
    size_t i = 0;
    for (size_t child = 1; child < n; child = 2 * i + 1) {
        if (child + 1 < n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= last) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

/* Looks up the pair that starts at position and makes it a candidate. */
static bool consider(const mq_merges *merges, mq_bpe_work *work, uint32_t position)
{
    mq_bpe_symbol *symbol = &work->symbols[position];
    symbol->rank = NONE;
    if (symbol->next == NONE) return true;
    const mq_merge *found = mq__merges_find(merges, symbol->id, work->symbols[symbol->next].id);
    if (!found) return true;
    symbol->rank = found->rank;
    return heap_push(work, (uint64_t)found->rank << 32 | position);
}

static bool merge_long(const mq_merges *merges, mq_bpe_work *work, mq_ids *out)
{
    const uint32_t n = (uint32_t)work->len; /* MQ_MAX_STEP_BYTES bounds it */
    mq_bpe_symbol *symbols = work->symbols;
    work->heap_len = 0;
    for (uint32_t i = 0; i < n; i++) {
        symbols[i].previous = i == 0 ? NONE : i - 1;
        symbols[i].next = i + 1 == n ? NONE : i + 1;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (!consider(merges, work, i)) return false;
    }
    while (work->heap_len > 0) {
        const uint64_t top = heap_pop(work);
        mq_bpe_symbol *left = &symbols[(uint32_t)top];
        if (left->id < 0 || left->rank != (uint32_t)(top >> 32)) continue;
        mq_bpe_symbol *right = &symbols[left->next];
        left->id = mq__merges_find(merges, left->id, right->id)->result;
        right->id = -1;
        left->next = right->next;
        if (left->next != NONE) symbols[left->next].previous = (uint32_t)top;
        if (!consider(merges, work, (uint32_t)top)) return false;
        if (left->previous != NONE && !consider(merges, work, left->previous)) return false;
    }
    for (uint32_t i = 0; i != NONE; i = symbols[i].next) {
        if (!mq__ids_push(out, symbols[i].id)) return false;
    }
    return true;
}

/* ---------------------------------------------------------------- words */

/* 1: the whole word is a token, and was appended; 0: it is not; -1: memory is short. */
static int whole_word(const mq_bpe *bpe, const mq_vocab *vocab, mq_text word, mq_bpe_work *work, mq_ids *ids)
{
    if (word.bytes > vocab->longest) return 0;
    mq_text key = word;
    if (bpe->bytes_mode) {
        mq__buf_clear(&work->key);
        if (!mq__bytes_to_alphabet(word.data, word.bytes, &work->key)) return -1;
        key = (mq_text){work->key.data, work->key.len};
    }
    const int32_t id = mq__vocab_find_model(vocab, key.data, key.bytes);
    if (id < 0) return 0;
    return mq__ids_push(ids, id) ? 1 : -1;
}

static bool encode_part(const mq_bpe *bpe, const mq_vocab *vocab, mq_text word, mq_bpe_work *work, mq_ids *ids)
{
    work->len = 0;
    const bool ok = bpe->bytes_mode ? symbols_of_bytes(bpe, word, work) : symbols_of_characters(bpe, vocab, word, work);
    if (!ok) return false;
    if (work->len == 0) return true;
    return work->len <= SHORT_WORD ? merge_short(&bpe->merges, work, ids) : merge_long(&bpe->merges, work, ids);
}

#define SPACE_MARK "\xE2\x96\x81" /* U+2581, SentencePiece's space */

/* The next place behind `from` where a U+2581 follows another character; the end if there is none. */
static size_t next_cut(mq_text word, size_t from)
{
    size_t at = from;
    for (;;) {
        const char *mark = memmem(word.data + at, word.bytes - at, SPACE_MARK, 3);
        if (!mark) return word.bytes;
        const size_t start = (size_t)(mark - word.data);
        const bool follows_mark = start >= from + 3 && memcmp(mark - 3, SPACE_MARK, 3) == 0;
        if (start > from && !follows_mark) return start;
        at = start + 3;
    }
}

bool mq__bpe_encode(const mq_bpe *bpe, const mq_vocab *vocab, mq_text word, mq_bpe_work *work, mq_ids *ids)
{
    if (bpe->ignore_merges) {
        const int found = whole_word(bpe, vocab, word, work, ids);
        if (found != 0) return found > 0;
    }
    if (!bpe->cut_spaces) return encode_part(bpe, vocab, word, work, ids);
    for (size_t from = 0, to; from < word.bytes; from = to) {
        to = next_cut(word, from);
        if (!encode_part(bpe, vocab, (mq_text){word.data + from, to - from}, work, ids)) return false;
    }
    return true;
}

void mq__bpe_work_free(mq_bpe_work *work)
{
    mq__free(work->symbols);
    mq__free(work->heap);
    mq__buf_free(&work->key);
    *work = (mq_bpe_work){0};
}

void mq__bpe_free(mq_bpe *bpe)
{
    mq__merges_free(&bpe->merges);
    mq__free(bpe->prefix);
    mq__free(bpe->suffix);
    bpe->prefix = bpe->suffix = NULL;
}
