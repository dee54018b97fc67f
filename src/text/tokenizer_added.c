/* Added tokens: texts that are found before anything else is done to the input, longest match first.
 *
 * The set is sorted, so the tokens that agree with the text so far are one range of it: a match narrows that range byte
 * by byte. Bytes that begin no token cost one table look-up. */
#include "base/mem.h"
#include "text/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

static bool same_text_tokenizer_added(const mq_added *a, const mq_added *b)
{
    return a->bytes == b->bytes && memcmp(a->content, b->content, a->bytes) == 0;
}

static int compare_tokenizer_added(const void *a, const void *b)
{
    const mq_added *x = a, *y = b;
    const size_t n = x->bytes < y->bytes ? x->bytes : y->bytes;
    const int order = memcmp(x->content, y->content, n);
    if (order) return order;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id); /* so that which of two equal texts is kept does not depend on qsort */
}

bool mq__added_put(mq_added_set *set, const mq_added *token)
{
    if (set->count == set->cap) {
        const size_t cap = set->cap ? set->cap * 2 : 32;
        mq_added *tokens = mq__realloc(set->tokens, cap * sizeof *tokens);
        if (!tokens) return false;
        set->tokens = tokens;
        set->cap = cap;
    }
    char *content = mq__strndup(token->content, token->bytes);
    if (!content) return false;
    set->tokens[set->count] = *token;
    set->tokens[set->count++].content = content;
    return true;
}

void mq__added_sort(mq_added_set *set)
{
    if (set->count > 1) qsort(set->tokens, set->count, sizeof *set->tokens, compare_tokenizer_added);
    size_t kept = 0;
    for (size_t i = 0; i < set->count; i++) { /* of equal texts one is enough */
        if (kept > 0 && same_text_tokenizer_added(&set->tokens[kept - 1], &set->tokens[i])) {
            mq__free(set->tokens[i].content);
        } else {
            set->tokens[kept++] = set->tokens[i];
        }
    }
    set->count = kept;
    size_t i = 0;
    for (unsigned b = 0; b < 256; b++) {
        set->first[b] = (uint32_t)i;
        while (i < kept && (uint8_t)set->tokens[i].content[0] == b)
            i++;
    }
    set->first[256] = (uint32_t)kept;
}

/* First of tokens[low, high) whose byte at depth is >= byte; all of them agree up to depth and are longer than it. */
static size_t lower_bound(const mq_added_set *set, size_t low, size_t high, size_t depth, unsigned byte)
{
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if ((uint8_t)set->tokens[middle].content[depth] < byte) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The longest token that stands at text[at], or NULL. */
static const mq_added *longest_at(const mq_added_set *set, const char *text, size_t bytes, size_t at, bool specials)
{
    const mq_added *best = NULL;
    size_t low = set->first[(uint8_t)text[at]], high = set->first[(uint8_t)text[at] + 1];
    for (size_t depth = 1; low < high; depth++) {
        if (set->tokens[low].bytes == depth) { /* the shortest of equal beginnings sorts first */
            if (specials || !set->tokens[low].special) best = &set->tokens[low];
            low++;
        }
        if (at + depth == bytes) break;
        const unsigned byte = (uint8_t)text[at + depth];
        low = lower_bound(set, low, high, depth, byte);
        high = lower_bound(set, low, high, depth, byte + 1);
    }
    return best;
}

static unsigned class_before(const char *text, size_t at)
{
    size_t start = mq__utf8_before(text, at);
    return mq__unicode_class(mq__utf8_next(text, at, &start));
}

static bool stands_alone(const char *text, size_t bytes, size_t start, size_t end)
{
    if (start > 0 && (class_before(text, start) & MQ_CLASS_WORD)) return false;
    if (end == bytes) return true;
    size_t next = end;
    return !(mq__unicode_class(mq__utf8_next(text, bytes, &next)) & MQ_CLASS_WORD);
}

mq_added_match mq__added_find(const mq_added_set *set, const char *text, size_t bytes, size_t from, bool specials)
{
    for (size_t at = from; set->count > 0 && at < bytes; at++) {
        const uint8_t byte = (uint8_t)text[at];
        if (set->first[byte] == set->first[byte + 1]) continue;
        const mq_added *token = longest_at(set, text, bytes, at, specials);
        if (!token) continue;
        mq_added_match match = {at, at + token->bytes, token->id, true};
        if (token->single_word && !stands_alone(text, bytes, match.start, match.end)) {
            at = match.end - 1; /* the rejected text is not searched again */
            continue;
        }
        while (token->lstrip && match.start > from && (class_before(text, match.start) & MQ_CLASS_SPACE))
            match.start = mq__utf8_before(text, match.start);
        while (token->rstrip && match.end < bytes) {
            size_t next = match.end;
            if (!(mq__unicode_class(mq__utf8_next(text, bytes, &next)) & MQ_CLASS_SPACE)) break;
            match.end = next;
        }
        return match;
    }
    return (mq_added_match){bytes, bytes, -1, false};
}

void mq__added_free(mq_added_set *set)
{
    for (size_t i = 0; i < set->count; i++)
        mq__free(set->tokens[i].content);
    mq__free(set->tokens);
    *set = (mq_added_set){0};
}
